//! The broker under test: the program, its log, and every way to end it.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long the program may take to start or to end before a test fails.
const PATIENCE: Duration = Duration::from_secs(60);

/// How it is to be started.
#[derive(Clone, Debug, Default)]
pub(crate) struct Start {
    /// Port; 0 is one of the system's choice.
    pub(crate) port: u16,
    /// Where it keeps its data; none: nowhere.
    pub(crate) directory: Option<PathBuf>,
    /// Lines of the section `[storage]`.
    pub(crate) storage: String,
    /// Threads that carry connections.
    pub(crate) workers: usize,
    /// Variables of its environment.
    pub(crate) variables: Vec<(String, String)>,
}

/// A process of its own, killed when it is dropped.
pub(crate) struct Program {
    process: Child,
    log: Arc<Mutex<Vec<String>>>,
    reader: Option<JoinHandle<()>>,
}

impl Start {
    /// On a data directory, in a mode of `storage.sync`.
    pub(crate) fn on(directory: &Path, sync: &str) -> Self {
        Self {
            directory: Some(directory.to_owned()),
            storage: format!("sync = \"{sync}\"\n"),
            workers: 2,
            ..Self::default()
        }
    }

    /// The same with more lines of the section.
    pub(crate) fn with(mut self, lines: &str) -> Self {
        self.storage.push_str(lines);
        self.storage.push('\n');
        self
    }

    fn configuration(&self) -> String {
        let storage = match &self.directory {
            Some(directory) => format!(
                "enabled = true\ndirectory = {:?}\n{}",
                directory.to_str().unwrap(),
                self.storage
            ),
            None => "enabled = false\n".to_owned(),
        };
        format!(
            "[[listeners]]\nname = \"plain\"\naddress = [\"127.0.0.1:{}\"]\n[workers]\ncount = {}\nplacement = \"round_robin\"\n\
             [queue]\nmessages_max = 10000000\nbytes_max = \"1GiB\"\n[log]\nlevel = \"info\"\n[storage]\n{storage}",
            self.port,
            self.workers.max(1),
        )
    }

    /// Starts the process and does not wait for it.
    pub(crate) fn spawn(&self) -> Program {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("sundew.toml");
        fs::write(&file, self.configuration()).unwrap();
        let mut process = Command::new(env!("CARGO_BIN_EXE_sundew"))
            .arg("--config")
            .arg(&file)
            .env_remove("SUNDEW_CONFIG")
            .env_remove("JOURNAL_STREAM")
            .envs(self.variables.iter().cloned())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Arc::new(Mutex::new(Vec::new()));
        let lines = BufReader::new(process.stderr.take().unwrap()).lines();
        let written = Arc::clone(&log);
        let reader = std::thread::spawn(move || {
            let _folder = folder; // the file is read once the process says something, and it is gone when it is
            for line in lines.map_while(Result::ok) {
                written.lock().unwrap().push(line);
            }
        });
        Program {
            process,
            log,
            reader: Some(reader),
        }
    }

    /// Starts it and waits until it is ready; fails the test with its log if it ends instead.
    pub(crate) fn start(&self) -> Program {
        let mut program = self.spawn();
        if let Err(status) = program.wait_until_ready() {
            panic!("it does not start, {status}:\n{}", program.lines("").join("\n"));
        }
        program
    }
}

impl Program {
    /// Waits until it serves, or until it has ended.
    pub(crate) fn wait_until_ready(&mut self) -> Result<(), ExitStatus> {
        self.wait_until(" ready ")
    }

    /// Waits until the log says `text`, or until the process has ended.
    pub(crate) fn wait_until(&mut self, text: &str) -> Result<(), ExitStatus> {
        let give_up = Instant::now() + PATIENCE;
        while self.lines(text).is_empty() {
            if let Some(status) = self.process.try_wait().unwrap() {
                self.join_reader();
                return if self.lines(text).is_empty() {
                    Err(status)
                } else {
                    Ok(())
                };
            }
            assert!(
                Instant::now() < give_up,
                "no {text:?} in the log:\n{}",
                self.lines("").join("\n")
            );
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    /// The lines of the log, up to now, that contain `text`.
    pub(crate) fn lines(&self, text: &str) -> Vec<String> {
        let log = self.log.lock().unwrap();
        log.iter().filter(|line| line.contains(text)).cloned().collect()
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        let line = &self.lines("listening listener=\"plain\"")[0];
        line.split_once("address=").unwrap().1.trim().parse().unwrap()
    }

    /// Whether it has ended, by itself or otherwise.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.process.try_wait().unwrap().is_some()
    }

    /// SIGKILL. Its log.
    pub(crate) fn kill(mut self) -> Vec<String> {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        self.join_reader();
        self.lines("")
    }

    /// SIGTERM, and waits for the end: exit code and log.
    pub(crate) fn terminate(mut self) -> (Option<i32>, Vec<String>) {
        let pid = self.process.id().to_string();
        let sent = Command::new("kill").args(["-s", "TERM", &pid]).status().unwrap();
        assert!(sent.success());
        self.end()
    }

    /// Waits for an end that comes by itself: exit code and log.
    pub(crate) fn end(&mut self) -> (Option<i32>, Vec<String>) {
        let give_up = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = self.process.try_wait().unwrap() {
                break status;
            }
            assert!(
                Instant::now() < give_up,
                "it does not end:\n{}",
                self.lines("").join("\n")
            );
            std::thread::sleep(Duration::from_millis(2));
        };
        self.join_reader();
        (status.code(), self.lines(""))
    }

    fn join_reader(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.join().unwrap();
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if std::thread::panicking() {
            std::thread::sleep(Duration::from_millis(200)); // what it says about it
        }
        let _ = self.process.kill(); // it has ended, where the story has come so far
        let _ = self.process.wait();
        if std::thread::panicking() {
            self.join_reader();
            let mut log = self.lines("");
            log.retain(|line| !line.contains("INFO client connected"));
            eprintln!("the broker's log, without its clients:\n{}", log.join("\n"));
        }
    }
}
