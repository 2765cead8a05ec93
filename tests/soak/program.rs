//! The broker under test: the program, its log, its memory.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// Lines of the log that are kept; beyond, those that tell of faults.
const LINES_MAX: usize = 10_000;

/// A broker in a process of its own, killed when the story ends.
pub(crate) struct Program {
    process: Child,
    log: Arc<Mutex<Vec<String>>>,
    reader: Option<JoinHandle<()>>,
    _folder: TempDir,
}

impl Program {
    /// Starts it with a configuration, and with at most so many descriptors if that is given. Waits until it is ready.
    pub(crate) fn start(configuration: &str, descriptors_max: Option<u32>) -> Self {
        let folder = TempDir::new().unwrap();
        let file = folder.path().join("sundew.toml");
        fs::write(&file, configuration).unwrap();
        let limit = descriptors_max.map_or(String::new(), |most| format!("ulimit -n {most}; "));
        let mut process = Command::new("sh")
            .args(["-c", &format!("{limit}exec \"$0\" --config \"$1\"")])
            .arg(env!("CARGO_BIN_EXE_sundew"))
            .arg(&file)
            .env_remove("SUNDEW_CONFIG")
            .env("SUNDEW__STORAGE__ENABLED", "false")
            .env_remove("JOURNAL_STREAM")
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Arc::new(Mutex::new(Vec::new()));
        let lines = BufReader::new(process.stderr.take().unwrap()).lines();
        let written = Arc::clone(&log);
        let reader = std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let mut written = written.lock().unwrap();
                if written.len() < LINES_MAX || line.contains("ERROR") || line.contains("panicked") {
                    written.push(line);
                }
            }
        });
        let program = Self {
            process,
            log,
            reader: Some(reader),
            _folder: folder,
        };
        program.wait_for("ready");
        program
    }

    /// The first line of the log that contains `text`; waits for it.
    pub(crate) fn wait_for(&self, text: &str) -> String {
        let give_up = Instant::now() + Duration::from_secs(20);
        loop {
            if let Some(line) = self.lines(text).into_iter().next() {
                return line;
            }
            assert!(
                Instant::now() < give_up,
                "no {text:?} in the log:\n{}",
                self.lines("").join("\n")
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// The lines of the log, up to now, that contain `text`.
    pub(crate) fn lines(&self, text: &str) -> Vec<String> {
        let log = self.log.lock().unwrap();
        log.iter().filter(|line| line.contains(text)).cloned().collect()
    }

    /// Where a listener, by its name, listens.
    pub(crate) fn address(&self, listener: &str) -> SocketAddr {
        let line = self.wait_for(&format!("listening listener=\"{listener}\""));
        line.split_once("address=").unwrap().1.trim().parse().unwrap()
    }

    /// Resident memory, bytes.
    pub(crate) fn memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
    }

    /// Open descriptors.
    pub(crate) fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.process.id())).unwrap().count()
    }

    /// Ends it with SIGTERM: its exit code, and the whole log.
    pub(crate) fn terminate(mut self) -> (Option<i32>, Vec<String>) {
        let pid = self.process.id().to_string();
        assert!(
            Command::new("kill")
                .args(["-s", "TERM", &pid])
                .status()
                .unwrap()
                .success()
        );
        let code = self.process.wait().unwrap().code();
        self.reader.take().unwrap().join().unwrap();
        (code, self.lines(""))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.process.kill(); // it has ended, where the story has come so far
        let _ = self.process.wait();
    }
}
