//! mosquitto_pub and mosquitto_sub.

use std::process::Command;

use crate::program::{Program, Running};

pub(crate) const USERS: &str = "\
alice:$7$101$r02FpQM6Al2pzMki$644//s1o1Wnoh+VSi4K82qd5XhHK4buXE+daF2wEmPq23FrhHIvz89QvBcSuJ8zfqvvTsLFAzirEbEYOEa6Cow==
bob:$7$101$2H1pbgJ7Gf8Gplik$wD3JLuUq5kGZlCNhoS7R09OsiIcO1ol0pzDD5hztlYV6DCnRgVkt+Rk7xBjctSDMx9gFHdqiwNuZn/AumbokOQ==
";
const VERSIONS: [&str; 3] = ["31", "311", "5"];

#[test]
fn messages_arrive_in_every_version_at_every_qos() {
    let program = Program::start();
    for version in VERSIONS {
        for qos in ["0", "1", "2"] {
            let mut subscriber = subscribe(&program, &["-V", version, "-q", qos, "-t", "a/#", "-C", "2"]);
            publish(&program, &["-V", version, "-q", qos, "-t", "a/b", "-m", "hi"]);
            publish(&program, &["-V", version, "-q", qos, "-t", "a", "-n"]);
            let lines = subscriber.lines_until("a  ");
            assert!(lines.contains(&format!("a/b hi {qos} 0")), "{version} {qos}: {lines:?}");
            subscriber.finish();
        }
    }
}

/// Users of mosquitto_passwd 2.0.11 (`secret`, `pass word`) and its ACL file.
#[test]
fn users_have_passwords_and_rights() {
    let program = Program::serve_with(
        "[[listeners]]\nname = \"plain\"\naddress = \"127.0.0.1:0\"\n\
         [auth]\npassword_file = \"users\"\nacl_file = \"acl\"\nwide_subscriptions = \"grant\"\n",
        &[
            ("users", USERS),
            (
                "acl",
                "user alice\ntopic home/#\nuser bob\ntopic read home/+\ntopic deny home/safe\n",
            ),
        ],
    );
    for version in VERSIONS {
        let bob = ["-u", "bob", "-P", "pass word"];
        let mut subscriber = subscribe(&program, &[&["-V", version, "-t", "#", "-C", "1"][..], &bob].concat());
        for topic in ["home/safe", "home/a/b", "home/lamp"] {
            publish(
                &program,
                &[
                    "-V", version, "-u", "alice", "-P", "secret", "-q", "1", "-t", topic, "-m", "on",
                ],
            );
        }
        assert_eq!(
            subscriber
                .lines_until("home/lamp on")
                .iter()
                .filter(|line| line.starts_with("home/"))
                .count(),
            1
        );
        subscriber.finish();
        for (user, password) in [("bob", "secret"), ("carol", "secret")] {
            let port = program.port("plain").to_string();
            let refused = Command::new("mosquitto_pub")
                .args([
                    "-p", &port, "-V", version, "-u", user, "-P", password, "-t", "a", "-m", "x",
                ])
                .output()
                .unwrap();
            assert!(!refused.status.success(), "{user} {version}");
        }
    }
}

/// A token in the place of a password, over TLS: the example of the README.
#[test]
fn a_token_is_taken_for_a_password_over_tls() {
    use jsonwebtoken::{EncodingKey, Header, encode, get_current_timestamp};
    let secret = "a secret of more than thirty-two bytes";
    let program = Program::serve_with(
        "[[listeners]]\nname = \"plain\"\naddress = \"127.0.0.1:0\"\n\
         [listeners.tls]\ncertificate = \"certs/server.pem\"\nkey = \"certs/server.key\"\n\
         [[auth.jwt]]\nsecret_file = \"secret\"\nacl_claim = \"acl\"\n",
        &[("secret", secret)],
    );
    let token = |from_now: i64| {
        let claims = serde_json::json!({
            "sub": "alice", "exp": get_current_timestamp() as i64 + from_now, "acl": {"all": ["home/#"]},
        });
        encode(
            &Header::default(),
            &claims,
            &EncodingKey::from_secret(secret.as_bytes()),
        )
        .unwrap()
    };
    let authority = program.certificate("ca.pem");
    let trust = ["--cafile", &authority, "-h", "localhost"];
    let (good, expired) = (token(3600), token(-3600));
    for version in VERSIONS {
        let own = [&trust[..], &["-V", version, "-u", "alice", "-P", &good]].concat();
        let mut subscriber = subscribe(&program, &[&own[..], &["-t", "home/#", "-C", "1"]].concat());
        publish(
            &program,
            &[&own[..], &["-q", "1", "-t", "home/lamp", "-m", "on"]].concat(),
        );
        subscriber.lines_until("home/lamp on");
        subscriber.finish();
        let port = program.port("plain").to_string();
        let refused = Command::new("mosquitto_pub")
            .args(trust)
            .args([
                "-p",
                &port,
                "-V",
                version,
                "-u",
                "alice",
                "-P",
                &expired,
                "-t",
                "home/lamp",
                "-m",
                "x",
            ])
            .output()
            .unwrap();
        assert!(!refused.status.success(), "{version}");
    }
}

#[test]
fn a_retained_message_is_there_for_who_comes_late() {
    let program = Program::start();
    for version in VERSIONS {
        publish(&program, &["-V", version, "-r", "-q", "1", "-t", "kept", "-m", version]);
        let subscriber = subscribe(&program, &["-V", version, "-t", "kept", "-C", "1"]);
        let lines = subscriber.finish();
        assert!(lines.contains(&format!("kept {version} 0 1")), "{lines:?}");
    }
    publish(&program, &["-r", "-n", "-q", "1", "-t", "kept"]);
    let mut subscriber = subscribe(&program, &["-t", "#", "-C", "1"]);
    publish(&program, &["-t", "first", "-m", "x"]);
    let lines = subscriber.lines_until("first x");
    assert!(!lines.iter().any(|line| line.starts_with("kept ")), "{lines:?}");
}

#[test]
fn a_will_is_published_when_its_client_is_killed() {
    let program = Program::start();
    for version in VERSIONS {
        let mut witness = subscribe(&program, &["-V", version, "-t", "will", "-C", "1"]);
        let will = ["--will-topic", "will", "--will-payload", "gone", "--will-qos", "1"];
        let client = subscribe(&program, &[&["-V", version, "-t", "x"][..], &will].concat());
        client.kill();
        witness.lines_until("will gone 0 0");
        witness.finish();
    }
}

#[test]
fn messages_wait_for_a_client_with_a_lasting_session() {
    let program = Program::start();
    for version in VERSIONS {
        let lasting: &[&str] = if version == "5" { &["-c", "-x", "1000"] } else { &["-c"] };
        let session = [&["-V", version, "-i", "lasting", "-q", "1", "-t", "queue"][..], lasting].concat();
        subscribe(&program, &[&session[..], &["-E"]].concat()).finish();
        for number in 0..20 {
            publish(&program, &["-q", "1", "-t", "queue", "-m", &number.to_string()]);
        }
        // What waited comes at once, before the answer to SUBSCRIBE.
        let mut command = client("mosquitto_sub");
        command
            .args([
                "-p",
                &program.port("plain").to_string(),
                "-F",
                "%t %p %q %r",
                "-C",
                "20",
            ])
            .args(&session);
        let lines = Running::start(&mut command).finish();
        let messages: Vec<_> = lines.into_iter().filter(|line| line.starts_with("queue ")).collect();
        let expected: Vec<_> = (0..20).map(|number| format!("queue {number} 1 0")).collect();
        assert_eq!(messages, expected, "version {version}");
        subscribe(&program, &["-V", version, "-i", "lasting", "-t", "x", "-E"]).finish();
    }
}

#[test]
fn tls_works_with_the_certificates_that_sundew_makes() {
    let program = Program::start();
    let authority = program.certificate("ca.pem");
    let (certificate, key) = (program.certificate("client.pem"), program.certificate("client.key"));
    let trust = ["--cafile", authority.as_str(), "-h", "localhost"];
    let own = [&trust[..], &["--cert", &certificate, "--key", &key]].concat();
    for version in VERSIONS {
        for (listener, options) in [("tls", &trust[..]), ("mutual", &own)] {
            let port = program.port(listener).to_string();
            let to = [&["-p", &port, "-V", version], options].concat();
            let mut subscriber = Running::start(client("mosquitto_sub").args(&to).args(["-d", "-t", "a", "-C", "1"]));
            subscriber.lines_until("Subscribed");
            Running::start(
                client("mosquitto_pub")
                    .args(&to)
                    .args(["-t", "a", "-m", "secret", "-q", "2"]),
            )
            .finish();
            assert!(subscriber.finish().contains(&"secret".to_owned()));
        }
        let port = program.port("mutual").to_string();
        let refused = client("mosquitto_pub")
            .args(["-p", &port])
            .args(trust)
            .args(["-t", "a", "-m", "x"])
            .output()
            .unwrap();
        assert!(!refused.status.success(), "without a certificate");
    }
}

/// Devices have certificates, services have passwords, and both use one port.
#[test]
fn a_certificate_or_a_password_is_enough_on_one_port() {
    let program = Program::serve_with(
        "[[listeners]]\nname = \"tls\"\naddress = \"127.0.0.1:0\"\npassword_file = \"users\"\nacl_file = \"acl\"\n\
         [listeners.tls]\ncertificate = \"certs/server.pem\"\nkey = \"certs/server.key\"\nclient_ca = \"certs/ca.pem\"\n\
         client_certificate = \"optional\"\nuser_name = \"common_name\"\n",
        &[
            ("users", USERS),
            ("acl", "pattern readwrite %u/#\nuser alice\ntopic read #\n"),
        ],
    );
    let (certificate, key) = (program.certificate("client.pem"), program.certificate("client.key"));
    let (authority, port) = (program.certificate("ca.pem"), program.port("tls").to_string());
    let to = ["-h", "localhost", "-p", &port, "--cafile", &authority, "-V", "5"];
    let mut alice = Running::start(
        client("mosquitto_sub")
            .args(to)
            .args(["-u", "alice", "-P", "secret", "-t", "#", "-C", "1", "-d", "-v"]),
    );
    alice.lines_until("Subscribed");
    let own = ["--cert", &certificate, "--key", &key, "-q", "1", "-m", "x", "-t"];
    // The certificate's common name is `client`.
    for topic in ["alice/a", "client/a"] {
        let _ = client("mosquitto_pub").args(to).args(own).arg(topic).output().unwrap();
    }
    assert!(alice.finish().contains(&"client/a x".to_owned()));
    let refused = client("mosquitto_pub")
        .args(to)
        .args(["-t", "a", "-m", "x"])
        .output()
        .unwrap();
    assert!(!refused.status.success(), "neither of them");
}

#[test]
fn properties_of_mqtt_5_are_passed_on() {
    let program = Program::start();
    let mut subscriber = Running::start(
        client("mosquitto_sub")
            .args(["-p", &program.port("plain").to_string(), "-V", "5", "-d", "-t", "a"])
            .args(["-C", "1", "-F", "got %p content=%C response=%R user=%P"]),
    );
    subscriber.lines_until("Subscribed");
    publish(
        &program,
        &[
            "-V",
            "5",
            "-t",
            "a",
            "-m",
            "x",
            "-q",
            "1",
            "-D",
            "publish",
            "user-property",
            "name",
            "value",
            "-D",
            "publish",
            "content-type",
            "text/plain",
            "-D",
            "publish",
            "response-topic",
            "answers",
            "-D",
            "publish",
            "message-expiry-interval",
            "60",
        ],
    );
    let lines = subscriber.finish();
    assert!(
        lines.contains(&"got x content=text/plain response=answers user=name:value".to_owned()),
        "{lines:?}"
    );
}

#[test]
fn a_file_of_five_megabytes_arrives_whole() {
    let program = Program::start();
    let file = program.folder().join("image");
    let payload: Vec<u8> = (0..5_000_000_u32).map(|at| b'a' + (at % 23) as u8).collect();
    std::fs::write(&file, &payload).unwrap();
    for qos in ["0", "2"] {
        let port = program.port("plain").to_string();
        let mut subscriber =
            Running::start(client("mosquitto_sub").args(["-p", &port, "-d", "-q", qos, "-t", "image", "-C", "1"]));
        subscriber.lines_until("Subscribed");
        publish(&program, &["-q", qos, "-t", "image", "-f", file.to_str().unwrap()]);
        assert!(
            subscriber.finish().iter().any(|line| line.as_bytes() == payload),
            "QoS {qos}"
        );
    }
}

/// What the README's first minute says, on the ports of this test.
#[test]
fn wildcards_and_shared_subscriptions_work() {
    let program = Program::start();
    for version in VERSIONS {
        let mut one = subscribe(&program, &["-V", version, "-t", "$share/g/s/+", "-t", "end"]);
        let mut two = subscribe(&program, &["-V", version, "-t", "$share/g/s/+", "-t", "end"]);
        for number in 0..10 {
            publish(
                &program,
                &["-V", version, "-q", "1", "-t", "s/x", "-m", &number.to_string()],
            );
        }
        publish(&program, &["-V", version, "-t", "end", "-m", "now"]);
        let count = |lines: Vec<String>| lines.iter().filter(|line| line.starts_with("s/x ")).count();
        let (one, two) = (count(one.lines_until("end now")), count(two.lines_until("end now")));
        assert!(
            one + two == 10 && one > 0 && two > 0,
            "version {version}: {one} and {two}"
        );
    }
}

/// Subscribes; returns when the broker has answered. Messages are printed as `topic payload qos retain`.
fn subscribe(program: &Program, options: &[&str]) -> Running {
    let port = program.port("plain").to_string();
    let mut command = client("mosquitto_sub");
    command.args(["-p", &port, "-d", "-F", "%t %p %q %r"]).args(options);
    let mut running = Running::start(&mut command);
    running.lines_until("Subscribed");
    running
}

fn publish(program: &Program, options: &[&str]) {
    let port = program.port("plain").to_string();
    Running::start(client("mosquitto_pub").args(["-p", &port]).args(options)).finish();
}

/// A command whose output comes line by line; by itself it keeps what it prints while nobody looks.
fn client(name: &str) -> Command {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let is_there = std::env::split_paths(&folders).any(|folder| folder.join(name).exists());
    assert!(is_there, "{name} is missing: run tests/run, which installs it");
    let mut command = Command::new("stdbuf");
    command.args(["-oL", name]);
    command
}
