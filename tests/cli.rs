//! `sundew pub`, `sundew sub` and `sundew store` as programs: against a broker in this process, and against the tools they are modelled
//! on.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Output, Stdio};

use sundew::broker::Parts;
use sundew::client::{ClientOptions, Event, Outgoing};
use sundew::protocol::packet::SubscriptionOptions;
use sundew::protocol::property::Properties;
use sundew::protocol::qos::QoS;
use sundew::server::{Server, ServerOptions};
use sundew::session::peer::ListenerRules;
use sundew::transport::certificates::{self, CertificatesOptions};
use sundew::transport::options::{CertificateFiles, ListenAddress, ListenerOptions, TlsOptions, WebSocketOptions};

#[path = "cli/bench.rs"]
mod bench;
#[path = "cli/certificates.rs"]
mod certificates_renewed;
#[path = "cli/golden.rs"]
mod golden;
#[path = "cli/reloading.rs"]
mod reloading;
#[path = "cli/store.rs"]
mod store;
#[path = "cli/tenants.rs"]
mod tenants;
#[path = "cli/told.rs"]
mod told;
#[path = "cli/users.rs"]
mod users;

/// A broker with one listener on a port of the system's choice.
fn broker(change: impl FnOnce(&mut ListenerOptions)) -> (Server, String) {
    let mut listener = ListenerOptions {
        addresses: vec![ListenAddress::Tcp("127.0.0.1:0".parse().unwrap())],
        ..ListenerOptions::default()
    };
    change(&mut listener);
    let options = ServerOptions {
        listeners: vec![(listener, ListenerRules::default())],
        workers: 2,
        ..ServerOptions::default()
    };
    let server = Server::start(options, Parts::default()).unwrap();
    let port = server.addresses()[0].1.first().map_or(0, |address| address.port());
    (server, port.to_string())
}

fn command(program: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

const SUNDEW: &str = env!("CARGO_BIN_EXE_sundew");

fn sundew(arguments: &[&str]) -> (i32, String, String) {
    ended(command(SUNDEW, arguments).output().unwrap())
}

fn ended(Output { status, stdout, stderr }: Output) -> (i32, String, String) {
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

/// `sundew sub` that has its subscription.
struct Subscriber {
    process: Child,
    log: BufReader<ChildStderr>,
}

impl Subscriber {
    fn start(arguments: &[&str]) -> Self {
        let mut process = command(SUNDEW, &["sub", "-d", "-W", "20"])
            .args(arguments)
            .spawn()
            .unwrap();
        let log = BufReader::new(process.stderr.take().unwrap());
        let mut subscriber = Self { process, log };
        subscriber.wait_for("Subscribed(");
        subscriber
    }

    fn wait_for(&mut self, text: &str) {
        let mut read = String::new();
        while !read.contains(text) {
            assert_ne!(self.log.read_line(&mut read).unwrap(), 0, "no {text:?} in:\n{read}");
        }
    }

    fn end(self) -> (i32, String) {
        let Self { process, mut log } = self;
        std::thread::spawn(move || log.read_to_end(&mut Vec::new()));
        let (code, out, _) = ended(process.wait_with_output().unwrap());
        (code, out)
    }
}

/// An authority, and what it says of a server: in a folder.
fn certificates_in(folder: &Path) -> (String, CertificateFiles) {
    let certificates = CertificatesOptions {
        folder: folder.to_owned(),
        names: Vec::new(),
        client_name: "client".to_owned(),
        days: 2,
        rsa: false,
        force: false,
    };
    certificates::make(&certificates).unwrap();
    let files = CertificateFiles {
        chain: folder.join("server.pem"),
        key: folder.join("server.key"),
    };
    (folder.join("ca.pem").to_str().unwrap().to_owned(), files)
}

fn is_installed(program: &str) -> bool {
    Command::new(program).arg("--help").output().is_ok()
}

#[test]
fn messages_go_from_pub_to_sub_in_every_version_at_every_qos() {
    let (_server, port) = broker(|_| {});
    for version in ["31", "mqttv311", "5"] {
        for qos in ["0", "1", "2"] {
            let sub = ["-p", &port, "-V", version, "-q", qos, "-t", "a/#", "-C", "2"];
            let subscriber = Subscriber::start(&[&sub[..], &["-F", "%t|%p|%q|%r|%l"]].concat());
            let to = ["pub", "-p", &port, "-V", version, "-q", qos, "-t", "a/b"];
            assert_eq!(
                sundew(&[&to[..], &["-m", "hé"]].concat()),
                (0, String::new(), String::new())
            );
            assert_eq!(sundew(&[&to[..], &["-n"]].concat()).0, 0);
            let expected = format!("a/b|hé|{qos}|0|3\na/b||{qos}|0|0\n");
            assert_eq!(subscriber.end(), (0, expected), "version {version}, QoS {qos}");
        }
    }
}

#[test]
fn mosquittos_tools_and_ours_understand_each_other() {
    if !is_installed("mosquitto_pub") {
        return; // the test command installs it
    }
    let (_server, port) = broker(|_| {});
    for qos in ["0", "1", "2"] {
        let subscriber = Subscriber::start(&[
            "-p", &port, "-t", "t", "-q", qos, "-V", "5", "-C", "1", "-F", "%p %C %P",
        ]);
        let properties = [
            "-D",
            "publish",
            "content-type",
            "text",
            "-D",
            "publish",
            "user-property",
            "a",
            "b",
        ];
        let arguments = ["-p", &port, "-t", "t", "-m", "x", "-q", qos, "-V", "5"];
        let status = command("mosquitto_pub", &arguments).args(properties).status().unwrap();
        assert!(status.success());
        assert_eq!(subscriber.end(), (0, "x text a:b\n".to_owned()));
    }
    // What they print for one message is the same, but for the time.
    let format = "%t %p %x %X %l %q %r %C %E %P [%10p][%-7t][%.2t] %% \\t @@";
    let arguments = ["-p", &port, "-t", "kept", "-V", "5", "-C", "1", "-W", "5", "-F", format];
    let keep = ["pub", "-p", &port, "-t", "kept", "-m", "a b", "-r", "-q", "1"];
    let properties = [
        "-D",
        "publish",
        "content-type",
        "text/plain",
        "-D",
        "publish",
        "user-property",
        "u",
        "v",
    ];
    assert_eq!(sundew(&[&keep[..], &properties].concat()).0, 0);
    let theirs = ended(command("mosquitto_sub", &arguments).output().unwrap());
    assert_eq!(sundew(&[&["sub"], &arguments[..]].concat()), theirs);
}

#[test]
fn retained_messages_are_kept_left_out_and_removed() {
    let (_server, port) = broker(|_| {});
    for topic in ["r/1", "r/2"] {
        assert_eq!(
            sundew(&["pub", "-p", &port, "-t", topic, "-m", topic, "-r", "-q", "1"]).0,
            0
        );
    }
    let (code, mut lines, _) = sundew(&["sub", "-p", &port, "-t", "r/#", "-v", "-C", "2", "-W", "20"]);
    assert_eq!((code, lines.len()), (0, 16), "{lines}");
    lines = sundew(&["sub", "-p", &port, "-t", "r/#", "-T", "r/2", "-C", "1", "-W", "20"]).1;
    assert_eq!(lines, "r/1\n");
    assert_eq!(
        sundew(&["sub", "-p", &port, "-t", "r/#", "-R", "-E", "-W", "20"]),
        (0, String::new(), String::new())
    );
    let removal = [
        "sub",
        "-p",
        &port,
        "-t",
        "r/#",
        "--remove-retained",
        "-T",
        "r/2",
        "-C",
        "1",
        "-q",
        "1",
    ];
    assert_eq!(sundew(&removal).0, 0);
    let (code, left, _) = sundew(&["sub", "-p", &port, "-t", "r/#", "-C", "2", "-W", "1"]);
    assert_eq!(
        (code, left.as_str()),
        (27, "r/2\n"),
        "the time ran out behind the one that is left"
    );
}

#[test]
fn a_kept_session_misses_nothing() {
    let (_server, port) = broker(|_| {});
    let session = [
        "sub", "-p", &port, "-t", "s", "-q", "2", "-c", "-i", "keeper", "-W", "20",
    ];
    assert_eq!(sundew(&[&session[..], &["-E"]].concat()).0, 0);
    let mut publisher = command(SUNDEW, &["pub", "-p", &port, "-t", "s", "-q", "2", "-l"]);
    let mut publisher = publisher.stdin(Stdio::piped()).spawn().unwrap();
    publisher.stdin.take().unwrap().write_all(b"one\ntwo\nthree").unwrap();
    assert!(publisher.wait().unwrap().success());
    // One now; the others stay for next time.
    assert_eq!(sundew(&[&session[..], &["-C", "1"]].concat()).1, "one\n");
    assert_eq!(sundew(&[&session[..], &["-C", "2"]].concat()).1, "two\nthree\n");
}

#[test]
fn payloads_are_exact_whatever_they_come_from() {
    let (_server, port) = broker(|_| {});
    let bytes: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("payload");
    fs::write(&file, &bytes).unwrap();
    for from in [&["-f", file.to_str().unwrap()][..], &["-s"]] {
        let subscriber = Subscriber::start(&["-p", &port, "-t", "b", "-N", "-C", "1"]);
        let publish = ["pub", "-p", &port, "-t", "b"];
        let input = fs::File::open(&file).unwrap();
        let status = command(SUNDEW, &[&publish[..], from].concat()).stdin(input).status();
        assert!(status.unwrap().success());
        let Subscriber { process, log } = subscriber;
        drop(std::thread::spawn(move || log.lines().count()));
        assert!(process.wait_with_output().unwrap().stdout == bytes, "{from:?}");
    }
}

#[test]
fn tls_and_websocket_alone_and_together() {
    let folder = tempfile::tempdir().unwrap();
    let (authority, certificate) = certificates_in(folder.path());
    for (is_tls, is_websocket) in [(true, false), (false, true), (true, true)] {
        let (_server, port) = broker(|listener| {
            listener.tls = is_tls.then(|| TlsOptions {
                certificates: vec![certificate.clone()],
                ..TlsOptions::default()
            });
            listener.websocket = is_websocket.then(WebSocketOptions::default);
        });
        let mut connect = vec!["-p", &port];
        connect.extend(is_tls.then_some(["--cafile", &authority]).iter().flatten());
        connect.extend(is_websocket.then_some("--ws"));
        let subscriber = Subscriber::start(&[&connect[..], &["-t", "a", "-C", "1"]].concat());
        let payload = "x".repeat(70_000);
        let publish = [&["pub"], &connect[..], &["-t", "a", "-m", &payload, "-q", "1"]].concat();
        assert_eq!(sundew(&publish), (0, String::new(), String::new()));
        assert!(subscriber.end() == (0, payload + "\n"));
    }
    let (_server, port) = broker(|_| {});
    let (code, _, error) = sundew(&["pub", "-p", &port, "--cafile", &authority, "-t", "a", "-n"]);
    assert_eq!((code, error.lines().count()), (1, 1), "{error}");
}

#[test]
fn what_does_not_work_is_said_in_one_line_with_what_to_do() {
    let unused = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
        .to_string();
    let (_server, port) = broker(|_| {});
    let free = ["sub", "-t", "a", "-p", &port];
    let table: [(&[&str], &str); 9] = [
        (&["sub", "-t", "a", "-p", &unused], "start one with `sundew`"),
        (&["pub", "-t", "a", "-n", "-p", &unused], "start one with `sundew`"),
        (&["sub", "-p", &port], "give a topic filter with -t"),
        (&["sub", "-t", "a/#/b", "-p", &port], "\"a/#/b\""),
        (&["pub", "-m", "a", "-p", &port], "give a topic with -t"),
        (&["pub", "-t", "a/+", "-m", "a", "-p", &port], "wildcard"),
        (&["sub", "-t", "a", "-c", "-p", &port], "-i"),
        (&[&free[..], &["-F", "%y"]].concat(), "after % comes one of"),
        (&["pub", "-t", "a", "-n", "-L", "http://a"], "mqtt://"),
    ];
    for (arguments, advice) in table {
        let (code, out, error) = sundew(arguments);
        assert_eq!(
            (code, out.as_str(), error.lines().count()),
            (1, "", 1),
            "{arguments:?}: {error}"
        );
        assert!(error.contains(advice), "{arguments:?}: {error}");
        assert_eq!(sundew(&[arguments, &["--quiet"]].concat()).2, "");
    }
}

#[test]
fn a_refusal_is_the_exit_code_and_says_what_to_do() {
    let mut options = ServerOptions::default();
    let addresses = vec![ListenAddress::Tcp("127.0.0.1:0".parse().unwrap())];
    options.listeners[0].0.addresses = addresses;
    let parts = Parts {
        authenticator: std::sync::Arc::new(sundew::auth::DenyAll),
        ..Parts::default()
    };
    let server = Server::start(options, parts).unwrap();
    let port = server.addresses()[0].1[0].port().to_string();
    for (version, expected) in [("31", 5), ("311", 5), ("5", 0x87)] {
        for command in [&["sub"][..], &["pub", "-n"]] {
            let arguments = [command, &["-p", &port, "-V", version, "-t", "a"]].concat();
            let (code, _, error) = sundew(&arguments);
            assert_eq!((code, error.lines().count()), (expected, 1), "{arguments:?}: {error}");
            assert!(error.contains("-u and -P"), "{error}");
        }
    }
}

#[test]
fn a_subscriber_comes_back_to_a_broker_that_comes_back() {
    let (server, port) = broker(|_| {});
    let mut subscriber = Subscriber::start(&["-p", &port, "-t", "a", "-C", "1"]);
    server.stop();
    subscriber.wait_for("connecting again");
    let address = ListenAddress::Tcp(format!("127.0.0.1:{port}").parse().unwrap());
    let (_server, port) = broker(|listener| listener.addresses = vec![address]);
    subscriber.wait_for("Subscribed(");
    assert_eq!(sundew(&["pub", "-p", &port, "-t", "a", "-m", "back"]).0, 0);
    assert_eq!(subscriber.end(), (0, "back\n".to_owned()));
}

#[test]
fn a_reader_that_leaves_is_no_fault() {
    let (_server, port) = broker(|_| {});
    let mut subscriber = Subscriber::start(&["-p", &port, "-t", "a"]);
    drop(subscriber.process.stdout.take());
    assert_eq!(sundew(&["pub", "-p", &port, "-t", "a", "-m", "x"]).0, 0);
    assert_eq!(subscriber.end().0, 0);
}

#[test]
fn a_program_with_the_broker_in_it_is_a_client_without_a_socket() {
    let (server, port) = broker(|_| {});
    let subscriber = Subscriber::start(&["-p", &port, "-t", "out", "-C", "1", "-q", "2"]);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut client = server.connect(ClientOptions::default());
        client.connected().await.unwrap();
        let wish = SubscriptionOptions::default();
        client.subscribe(&[("in", wish)], Properties::EMPTY).unwrap();
        while !matches!(client.next_event().await.unwrap(), Event::Subscribed(..)) {}
        client
            .publish(Outgoing::new("out", "from inside").qos(QoS::ExactlyOnce))
            .unwrap();
        let large = "x".repeat(300_000);
        client
            .publish(Outgoing::new("in", large.clone()).qos(QoS::AtLeastOnce))
            .unwrap();
        loop {
            if let Event::Message(message) = client.next_event().await.unwrap() {
                assert!(message.payload == large);
                break;
            }
        }
        client.finish().await.unwrap();
    });
    assert_eq!(subscriber.end(), (0, "from inside\n".to_owned()));
    assert!(server.stop());
}
