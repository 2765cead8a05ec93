//! What somebody is told who does not know yet what is wrong.

use super::users::{Serving, folder, user};
use super::*;

#[test]
fn a_configuration_that_is_not_there_is_named() {
    for action in [&["list"][..], &["add", "alice", "--stdin"], &["rm", "alice"]] {
        let (code, _, error) = sundew(&[&["user"], action, &["-c", "nofile.toml"]].concat());
        assert!(
            code == 78 && error.contains("nofile.toml: error: cannot read the configuration"),
            "{error}"
        );
    }
}

#[test]
fn a_listener_on_a_unix_socket_is_listening_too() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("sundew.toml");
    let text = "[[listeners]]\naddress = [\"127.0.0.1:0\", \"unix:mqtt.sock\"]\n[storage]\nenabled = false\n";
    fs::write(&config, text).unwrap();
    let mut process = command(SUNDEW, &["-c", config.to_str().unwrap()])
        .current_dir(&folder)
        .spawn()
        .unwrap();
    let log = BufReader::new(process.stderr.take().unwrap());
    let is_told = log
        .lines()
        .map_while(Result::ok)
        .any(|line| line.contains("listening") && line.contains("mqtt.sock"));
    let _ = process.kill();
    let _ = process.wait();
    assert!(is_told);
}

#[test]
fn who_speaks_without_tls_where_it_is_wanted_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let (_, files) = certificates_in(folder.path());
    let (_server, port) = broker(|listener| {
        listener.tls = Some(TlsOptions {
            certificates: vec![files],
            ..TlsOptions::default()
        });
    });
    let (code, _, error) = sundew(&["pub", "-p", &port, "-t", "a", "-m", "x"]);
    assert!(code == 1 && error.contains("does this port want TLS?"), "{error}");
}

#[test]
fn a_bench_of_which_nothing_arrives_says_why_and_fails() {
    let (folder, config) = folder("[[auth.rules]]\neffect = \"allow\"\nactions = [\"subscribe\"]\ntopics = [\"#\"]\n");
    assert_eq!(user("add", "alice", &folder.path().join("users"), "secret").0, 0);
    let serving = Serving::start(&config);
    for qos in ["0", "1"] {
        let bench = [
            "bench",
            "pairs",
            "--publishers",
            "1",
            "-d",
            "0.2",
            "--warm-up",
            "0",
            "--patience",
            "0.2",
            "-q",
            qos,
        ];
        let (code, out, error) = sundew(
            &[
                &bench[..],
                &["-p", &serving.2, "-u", "alice", "-P", "secret", "-V", "5"],
            ]
            .concat(),
        );
        assert!(
            code == 1 && (out.clone() + &error).contains("may this user publish and subscribe"),
            "{out}{error}"
        );
    }
}

#[test]
fn retained_messages_of_a_user_who_was_removed_are_held_back_and_that_is_told() {
    let (folder, config) = folder("");
    let file = folder.path().join("users");
    for name in ["alice", "bob"] {
        assert_eq!(user("add", name, &file, "secret").0, 0);
    }
    let mut serving = Serving::start(&config);
    let port = serving.2.clone();
    let publish = [
        "pub", "-p", &port, "-u", "alice", "-P", "secret", "-t", "a", "-m", "x", "-r", "-q", "1",
    ];
    assert_eq!(sundew(&publish).0, 0);
    assert_eq!(sundew(&["user", "rm", "alice", "-c", config.to_str().unwrap()]).0, 0);
    serving.line("user removed");
    let subscribe = ["sub", "-p", &port, "-u", "bob", "-P", "secret", "-t", "a", "-W", "1"];
    let (_, out, _) = sundew(&subscribe);
    assert_eq!(out, "");
    let told = serving.line("retained messages are held back");
    assert!(
        told.contains("INFO") && told.contains("user=\"alice\"") && told.contains("topic=\"a\""),
        "{told}"
    );
}

#[test]
fn a_token_that_is_broken_is_no_wrong_password_and_a_program_that_is_down_is_no_refusal() {
    let (folder, config) =
        folder("[[auth.jwt]]\nsecret_file = \"secret\"\n[[auth.http]]\nacl_url = \"http://127.0.0.1:9/acl\"\n");
    fs::write(folder.path().join("secret"), "a secret of more than thirty-two bytes").unwrap();
    assert_eq!(user("add", "alice", &folder.path().join("users"), "secret").0, 0);
    let mut serving = Serving::start(&config);
    let port = serving.2.clone();
    let publish = |name: &str, password: &str| {
        sundew(&[
            "pub", "-p", &port, "-V", "5", "-u", name, "-P", password, "-t", "a", "-m", "x", "-q", "1",
        ])
        .0
    };
    for name in ["alice", "bob"] {
        assert_ne!(publish(name, "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhbGljZSJ9"), 0);
        let refused = serving.line("client refused");
        assert!(refused.contains("reason=\"token_malformed\""), "{refused}");
    }
    assert_ne!(publish("alice", "wrong"), 0);
    assert!(serving.line("client refused").contains("reason=\"bad_password\""));
    assert_ne!(publish("alice", "secret"), 0);
    serving.line("no answer of the authentication back end");
    let refused = serving.line("not authorized");
    assert!(
        refused.contains("reason=\"backend_failed\" action=\"publish\""),
        "{refused}"
    );
}
