//! The program under test, on ports of the system's choice, and the programs that talk to it.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// How long anything may take before a test fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// `sundew`, serving as a configuration file says, stopped when it is dropped.
pub(crate) struct Program {
    /// The process; its lines are the log.
    pub(crate) running: Running,
    ports: HashMap<String, u16>,
    folder: TempDir,
}

/// A plain, a WebSocket and two TLS listeners, on ports of the system's choice.
const CONFIGURATION: &str = r#"
[[listeners]]
name = "plain"
address = ["127.0.0.1:0"]

[[listeners]]
name = "websocket"
address = ["127.0.0.1:0"]
protocol = "websocket"

[[listeners]]
name = "tls"
address = ["127.0.0.1:0"]
[listeners.tls]
certificate = "certs/server.pem"
key = "certs/server.key"

[[listeners]]
name = "mutual"
address = ["127.0.0.1:0"]
[listeners.tls]
certificate = "certs/server.pem"
key = "certs/server.key"
client_ca = "certs/ca.pem"
client_certificate = "required"

[log]
level = "info"
"#;

impl Program {
    /// Serves as [`CONFIGURATION`] says.
    pub(crate) fn start() -> Self {
        Self::serve(CONFIGURATION)
    }

    /// Makes certificates with `sundew certs`, then serves.
    pub(crate) fn serve(configuration: &str) -> Self {
        Self::serve_with(configuration, &[])
    }

    /// The same with other files beside the configuration.
    pub(crate) fn serve_with(configuration: &str, files: &[(&str, &str)]) -> Self {
        let folder = TempDir::new().unwrap();
        let made = sundew().arg("certs").arg(folder.path().join("certs")).output().unwrap();
        assert!(
            made.status.success(),
            "sundew certs: {}",
            String::from_utf8_lossy(&made.stderr)
        );
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        let file = folder.path().join("sundew.toml");
        std::fs::write(&file, configuration).unwrap();
        let mut running = Running::start(sundew().arg("-c").arg(&file));
        let mut ports = HashMap::new();
        for line in running.lines_until(" ready ") {
            let port = field(&line, "address").and_then(|address| address.rsplit(':').next()?.parse().ok());
            if let (true, Some(name), Some(port)) = (line.contains(" listening "), field(&line, "listener"), port) {
                ports.insert(name.to_owned(), port);
            }
        }
        Self { running, ports, folder }
    }

    /// The port of a listener: `plain`, `websocket`, `tls`, `mutual`.
    pub(crate) fn port(&self, listener: &str) -> u16 {
        *self
            .ports
            .get(listener)
            .unwrap_or_else(|| panic!("no port of {listener} in the log: {:?}", self.ports))
    }

    /// What `sundew certs` made: `ca.pem`, `client.pem`, `client.key`.
    pub(crate) fn certificate(&self, name: &str) -> String {
        self.folder.path().join("certs").join(name).to_str().unwrap().to_owned()
    }

    /// A folder that goes away with the program.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }
}

/// The program's command line.
pub(crate) fn sundew() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sundew"));
    command.env("SUNDEW__STORAGE__ENABLED", "false");
    command
}

/// The value of `name=value` in a line of the log.
fn field<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    let (_, value) = line.split_once(&format!("{name}="))?;
    value.split_whitespace().next().map(|value| value.trim_matches('"'))
}

/// Where `tests/run` puts what is not a Debian package.
pub(crate) fn installed(path: &str) -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    let found = target.join("clients").join(path);
    assert!(
        found.exists(),
        "{} is missing: run tests/run, which installs it",
        found.display()
    );
    found
}

/// Another program, its output read line by line.
pub(crate) struct Running {
    process: Child,
    lines: Receiver<String>,
    name: String,
}

impl Running {
    /// Starts it; failing that says how to install it.
    pub(crate) fn start(command: &mut Command) -> Self {
        let name = command.get_program().to_string_lossy().into_owned();
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut process = command.spawn().unwrap_or_else(|error| {
            panic!("{name}: {error}; run tests/run, which installs the clients that are missing")
        });
        let (sender, lines) = sync_channel(100_000);
        let streams: [Box<dyn Read + Send>; 2] = [
            Box::new(process.stdout.take().unwrap()),
            Box::new(process.stderr.take().unwrap()),
        ];
        for stream in streams {
            let sender = sender.clone();
            std::thread::spawn(move || {
                for line in BufReader::new(stream).lines().map_while(Result::ok) {
                    let _ = sender.send(line);
                }
            });
        }
        Self { process, lines, name }
    }

    /// Lines up to the first that contains `text`, which is the last of them.
    pub(crate) fn lines_until(&mut self, text: &str) -> Vec<String> {
        let deadline = Instant::now() + PATIENCE;
        let mut seen = Vec::new();
        loop {
            match self
                .lines
                .recv_timeout(deadline.saturating_duration_since(Instant::now()))
            {
                Ok(line) => {
                    let is_last = line.contains(text);
                    seen.push(line);
                    if is_last {
                        return seen;
                    }
                }
                Err(_) => panic!("{} did not say {text:?}:\n{}", self.name, seen.join("\n")),
            }
        }
    }

    /// Every line until it ends, which must be with success.
    pub(crate) fn finish(mut self) -> Vec<String> {
        let deadline = Instant::now() + PATIENCE;
        let mut seen = Vec::new();
        while let Ok(line) = self
            .lines
            .recv_timeout(deadline.saturating_duration_since(Instant::now()))
        {
            seen.push(line);
        }
        let is_over = Instant::now() < deadline;
        if !is_over {
            let _ = self.process.kill();
        }
        let status = self.process.wait().unwrap();
        assert!(
            is_over && status.success(),
            "{} ended with {status}:\n{}",
            self.name,
            seen.join("\n")
        );
        seen
    }

    /// Asks it to end, as a service manager does.
    pub(crate) fn terminate(&self) {
        let sent = Command::new("kill")
            .args(["-TERM", &self.process.id().to_string()])
            .status()
            .unwrap();
        assert!(sent.success());
    }

    /// Ends it as a power cut would.
    pub(crate) fn kill(mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
