//! The program itself: what it prints, how it ends, what signals do.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::process::{Child, ChildStderr, Command, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};

/// A CONNECT of MQTT 3.1.1 by the client `stay`, and the answer to it.
const CONNECT: &[u8] = b"\x10\x10\x00\x04MQTT\x04\x02\x00\x3c\x00\x04stay";
const CONNACK: [u8; 4] = [0x20, 2, 0, 0];

pub(crate) fn sundew(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sundew"));
    command
        .args(arguments)
        .env_remove("SUNDEW_CONFIG")
        .env("SUNDEW__STORAGE__ENABLED", "false")
        .env_remove("JOURNAL_STREAM");
    command
}

fn run(arguments: &[&str]) -> (i32, String, String) {
    let Output { status, stdout, stderr } = sundew(arguments).output().unwrap();
    (
        status.code().unwrap(),
        String::from_utf8(stdout).unwrap(),
        String::from_utf8(stderr).unwrap(),
    )
}

/// A broker in a process of its own, killed when the story ends.
pub(crate) struct Broker {
    process: Child,
    log: BufReader<ChildStderr>,
}

impl Broker {
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut process = command.stderr(Stdio::piped()).spawn().unwrap();
        let log = BufReader::new(process.stderr.take().unwrap());
        let mut broker = Self { process, log };
        broker.wait_for("ready");
        broker
    }

    /// Reads the log up to the line that contains `text`.
    pub(crate) fn wait_for(&mut self, text: &str) -> String {
        let mut read = String::new();
        loop {
            let mut line = String::new();
            assert_ne!(self.log.read_line(&mut line).unwrap(), 0, "no {text:?} in:\n{read}");
            if line.contains(text) {
                return line;
            }
            read.push_str(&line);
        }
    }

    /// Its process.
    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    fn signal(&self, name: &str) {
        let sent = Command::new("kill")
            .args(["-s", name, &self.process.id().to_string()])
            .status()
            .unwrap();
        assert!(sent.success());
    }

    /// How it ended, and the rest of the log.
    fn end(&mut self) -> (Option<i32>, String) {
        let mut rest = String::new();
        self.log.read_to_string(&mut rest).unwrap();
        (self.process.wait().unwrap().code(), rest)
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.process.kill(); // it has ended, where the story has come so far
        let _ = self.process.wait();
    }
}

/// A port that was free a moment ago.
pub(crate) fn free_port() -> String {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Below the ports that the system gives to connections: one of those may be taken before the broker listens on all addresses.
    let first = (std::process::id() % 1000) as u16 * 10;
    loop {
        let port = 12_000 + first + NEXT.fetch_add(1, Ordering::Relaxed) % 8_000;
        if TcpListener::bind(("0.0.0.0", port)).is_ok() {
            return port.to_string();
        }
    }
}

fn connect(mut socket: impl Read + Write) -> impl Read + Write {
    socket.write_all(CONNECT).unwrap();
    let mut answer = [0; 4];
    socket.read_exact(&mut answer).unwrap();
    assert_eq!(answer, CONNACK);
    socket
}

#[test]
fn a_broker_serves_and_ends_on_sigterm() {
    let port = free_port();
    let mut broker = Broker::start(&mut sundew(&["-p", &port]));
    let warning = broker.wait_for("WARN");
    assert!(
        warning.ends_with(&format!(
            "WARN listening on 127.0.0.1:{port} and [::1]:{port} only, other machines are refused; \
             to open: sundew --listen 0.0.0.0:{port} --anonymous\n"
        )),
        "{warning}"
    );
    drop(connect(TcpStream::connect(format!("127.0.0.1:{port}")).unwrap()));
    broker.signal("TERM");
    let (code, log) = broker.end();
    assert_eq!(code, Some(0));
    assert!(log.ends_with(" INFO stopped\n"), "{log}");
}

#[test]
fn a_second_signal_ends_it_at_once() {
    // It gives clients half a second to close: on a machine that is busier than that it is gone before the second signal.
    let ended_at_once = (0..20).any(|_| {
        let port = free_port();
        let mut broker = Broker::start(&mut sundew(&["-p", &port]));
        let _stays = connect(TcpStream::connect(format!("127.0.0.1:{port}")).unwrap());
        broker.signal("INT");
        broker.wait_for("stopping; once more stops at once signal=\"SIGINT\"");
        broker.signal("INT");
        let (code, log) = broker.end();
        assert_eq!(code, Some(0));
        log.ends_with(" WARN stopped at once\n")
    });
    assert!(ended_at_once);
}

#[test]
fn the_environment_and_a_unix_socket() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sundew.sock");
    let listen = format!("unix:{}", path.display());
    let mut broker = Broker::start(sundew(&["--listen", &listen]).env("SUNDEW__LOG__FORMAT", "json"));
    drop(connect(UnixStream::connect(&path).unwrap()));
    let line = broker.wait_for("client connected");
    assert!(line.starts_with('{') && line.contains("\"client\":\"stay\""), "{line}");
    broker.signal("TERM");
    assert_eq!(broker.end().0, Some(0));
    assert!(!path.exists(), "the socket is removed");
}

#[test]
fn nobody_is_let_in_where_the_operator_says_so() {
    let port = free_port();
    let mut broker = Broker::start(sundew(&["-p", &port]).env("SUNDEW__AUTH__ALLOW_ANONYMOUS", "false"));
    let mut socket = TcpStream::connect(format!("127.0.0.1:{port}")).unwrap();
    socket.write_all(CONNECT).unwrap();
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).unwrap();
    assert_eq!(answer, [0x20, 2, 0, 5], "not authorized, and the connection ends");
    let line = broker.wait_for("client refused");
    assert!(
        line.contains("client=\"stay\"") && line.contains("reason=\"anonymous_disabled\""),
        "{line}"
    );
}

#[test]
fn a_port_in_use_is_one_line_that_says_what_to_do() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (code, _, stderr) = run(&["--listen", &address, "--anonymous"]);
    assert_eq!(code, 69);
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(
        stderr.contains(&format!("ERROR listener \"mqtt\": {address} is in use by ")),
        "{stderr}"
    );
    assert!(
        stderr.ends_with("; stop that program or choose another port\n"),
        "{stderr}"
    );
}

#[test]
fn a_wrong_configuration_starts_nothing_and_check_says_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("sundew.toml");
    fs::write(&file, "[limits]\npacket_bytes_maxx = 1\n[log]\nlevel = info\n").unwrap();
    let file = file.to_str().unwrap();
    let expected = format!(
        "{file}:2:1: error: unknown key limits.packet_bytes_maxx (did you mean packet_bytes_max?)\n\
         {file}:4:9: error: not TOML: a text needs quotes, write level = \"info\"\n"
    );
    assert_eq!(run(&["-c", file]), (78, String::new(), expected.clone()));
    assert_eq!(run(&["check", file]), (78, expected, String::new()));
}

#[test]
fn files_that_are_not_there_are_named() {
    let missing = "error: cannot read the configuration: No such file or directory (os error 2); \
                   check the path, or leave it out to start with the defaults\n";
    assert_eq!(
        run(&["-c", "/nowhere/x.toml"]),
        (78, String::new(), format!("/nowhere/x.toml: {missing}"))
    );
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("sundew.toml");
    fs::write(&file, "[log]\ntarget = \"file\"\nfile = \"/nowhere/sundew.log\"\n").unwrap();
    let (code, _, stderr) = run(&["-c", file.to_str().unwrap()]);
    assert_eq!(code, 73);
    assert_eq!(
        stderr,
        "cannot write the log file /nowhere/sundew.log: No such file or directory (os error 2); \
         create its folder and let the user that runs sundew write there\n"
    );
}

#[test]
fn bans_are_made_listed_and_lifted_while_the_broker_is_at_work() {
    let (folder, port) = (tempfile::tempdir().unwrap(), free_port());
    let at = |arguments: &[&str]| run(&[arguments, &["-d", folder.path().to_str().unwrap()]].concat());
    let (code, _, stderr) = at(&["ban", "list"]);
    assert!(
        code == 69 && stderr.starts_with("no broker is at work here: "),
        "{stderr}"
    );
    let answer = || {
        let mut socket = TcpStream::connect(format!("127.0.0.1:{port}")).unwrap();
        socket.write_all(CONNECT).unwrap();
        let mut answer = Vec::new();
        socket.read_exact(&mut [0; 3]).unwrap();
        socket.take(1).read_to_end(&mut answer).unwrap();
        answer
    };
    let start = || {
        let mut command = sundew(&["-p", &port]);
        command.env("SUNDEW__STORAGE__ENABLED", "true");
        Broker::start(command.env("SUNDEW__STORAGE__DIRECTORY", folder.path()))
    };
    let mut broker = start();
    assert_eq!(
        at(&["ban", "add", "--client", "stay", "--note", "noisy"]),
        (0, String::new(), String::new())
    );
    let listed = (
        0,
        "client \"stay\"   until it is lifted   \"noisy\"\n".to_owned(),
        String::new(),
    );
    assert_eq!(at(&["ban", "list"]), listed);
    assert_eq!(answer(), [5]);
    broker.signal("TERM");
    assert_eq!(broker.end().0, Some(0));
    let _broker = start();
    assert_eq!(at(&["ban", "list"]), listed, "it outlives the broker");
    assert_eq!(answer(), [5]);
    assert_eq!(
        at(&["ban", "lift", "--client", "stay"]),
        (0, String::new(), String::new())
    );
    assert_eq!(answer(), [0]);
    assert_eq!(at(&["ban", "lift", "--client", "stay"]).0, 1);
    assert_eq!(at(&["ban", "add", "--address", "home"]).0, 1);
    assert_eq!(at(&["ban", "add"]).0, 64);
}

#[test]
fn a_wrong_command_line_says_what_is_right() {
    let (code, _, stderr) = run(&["--lisen", "0.0.0.0:1883"]);
    assert_eq!(code, 64);
    assert!(stderr.contains("a similar argument exists: '--listen'"), "{stderr}");
    let (code, _, stderr) = run(&["-d"]);
    assert_eq!((code, stderr.lines().count()), (64, 1), "{stderr}");
    assert!(stderr.contains("stays in the foreground"), "{stderr}");
}

#[test]
fn help_completions_and_manual_pages_are_there() {
    let (code, help, _) = run(&["--help"]);
    assert_eq!(code, 0);
    for needed in [
        "Examples:",
        "Exit codes:",
        "SUNDEW__LIMITS__PACKET_BYTES_MAX",
        "check",
        "certs",
    ] {
        assert!(help.contains(needed), "{needed} is missing in:\n{help}");
    }
    for shell in ["bash", "zsh", "fish"] {
        let (code, text, _) = run(&["completions", shell]);
        assert!(code == 0 && text.contains("listen"), "{shell}");
    }
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(run(&["man", folder.path().to_str().unwrap()]).0, 0);
    assert!(folder.path().join("sundew.1").exists() && folder.path().join("sundew-check.1").exists());
}
