//! `sundew user`, `sundew auth explain`, `sundew reload` and `sundew check` of what they are about.

use std::io::Write as _;
use std::path::Path;

use super::*;

/// Runs with something on standard input.
fn with_input(arguments: &[&str], input: &str) -> (i32, String, String) {
    let mut process = command(SUNDEW, arguments).stdin(Stdio::piped()).spawn().unwrap();
    // A command that is wrong reads nothing.
    let _ = process.stdin.take().unwrap().write_all(input.as_bytes());
    ended(process.wait_with_output().unwrap())
}

pub(super) fn user(action: &str, name: &str, file: &Path, password: &str) -> (i32, String, String) {
    let file = file.to_str().unwrap();
    with_input(&["user", action, name, "--stdin", "--file", file], password)
}

/// A program that serves as a configuration says, and its port.
pub(super) struct Serving(pub(super) Child, BufReader<ChildStderr>, pub(super) String);

impl Serving {
    pub(super) fn start(config: &Path) -> Self {
        let mut process = command(SUNDEW, &["-c", config.to_str().unwrap()]).spawn().unwrap();
        let log = BufReader::new(process.stderr.take().unwrap());
        let mut serving = Self(process, log, String::new());
        let listening = serving.line("address=127.0.0.1:");
        serving.2 = listening.trim().rsplit(':').next().unwrap().to_owned();
        serving.line(" ready ");
        serving
    }

    /// The next line of the log with this text.
    pub(super) fn line(&mut self, text: &str) -> String {
        loop {
            let mut line = String::new();
            assert_ne!(self.1.read_line(&mut line).unwrap(), 0, "no line with {text:?}");
            if line.contains(text) {
                return line;
            }
        }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A folder with a configuration: one listener, users, an ACL file.
pub(super) fn folder(more: &str) -> (tempfile::TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("sundew.toml");
    let text = format!(
        "[[listeners]]\naddress = \"127.0.0.1:0\"\n[storage]\ndirectory = \"data\"\n[auth]\npassword_file = \"users\"\n{more}"
    );
    fs::write(&config, text).unwrap();
    (folder, config)
}

#[test]
fn users_are_added_changed_listed_and_removed() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("users");
    let (code, out, error) = user("add", "alice", &file, "secret\n");
    assert_eq!((code, out.as_str(), error.as_str()), (0, "", ""));
    assert_eq!(user("add", "bob", &file, "pass word").0, 0);
    let (code, _, error) = user("add", "alice", &file, "other\n");
    assert!(code == 1 && error.contains("sundew user passwd"), "{error}");
    let before = fs::read_to_string(&file).unwrap();
    assert!(!before.contains("secret"));
    assert_eq!(user("passwd", "alice", &file, "other\n").0, 0);
    let after = fs::read_to_string(&file).unwrap();
    assert!(before.lines().next() != after.lines().next() && before.lines().nth(1) == after.lines().nth(1));
    for (name, password) in [("alice", ""), ("a:b", "x"), ("", "x"), ("nobody", "x")] {
        assert_ne!(user("passwd", name, &file, password).0, 0, "{name:?} {password:?}");
    }
    let path = file.to_str().unwrap();
    let (_, listed, _) = sundew(&["user", "list", "-f", path]);
    assert_eq!(listed, "alice\targon2id\nbob\targon2id\n");
    assert_eq!(sundew(&["user", "rm", "alice", "-f", path]).0, 0);
    assert_eq!(sundew(&["user", "rm", "alice", "-f", path]).0, 1);
    assert_eq!(sundew(&["user", "list", "-f", path]).1, "bob\targon2id\n");
    // A password is no argument.
    assert_eq!(sundew(&["user", "add", "carol", "secret", "-f", path]).0, 64);
}

/// Adds a user who can prove his password, by the lowest number of iterations: it is no test of speed.
fn add_for_scram(path: &str, name: &str, how: &str) {
    let user = ["user", "add", name, "--stdin", "--file", path];
    let arguments = [&user[..], &[how, "--iterations", "4096"]].concat();
    assert_eq!(with_input(&arguments, "secret\n").0, 0);
}

/// As the README has it: a user for SCRAM, and clients that prove the password.
#[test]
fn a_user_proves_a_password_with_our_own_client() {
    let (folder, config) = folder("");
    let file = folder.path().join("users");
    let path = file.to_str().unwrap();
    add_for_scram(path, "alice", "--scram");
    add_for_scram(path, "bob", "--scram-only");
    assert_eq!(user("add", "carol", &file, "secret").0, 0);
    let (_, listed, _) = sundew(&["user", "list", "-f", path]);
    let scram = "SCRAM-SHA-256 with 4096 iterations, SCRAM-SHA-512 with 4096 iterations";
    assert_eq!(
        listed,
        format!("alice\targon2id, {scram}\nbob\t{scram}\ncarol\targon2id\n")
    );
    for wrong in [&["--iterations", "4096"][..], &["--scram", "--iterations", "4095"]] {
        let arguments = [&["user", "add", "dave", "--stdin", "--file", path], wrong].concat();
        assert_eq!(with_input(&arguments, "secret\n").0, 64);
    }
    let mut serving = Serving::start(&config);
    let port = serving.2.clone();
    let publish = |name: &str, password: &str, more: &[&str]| {
        let connect = ["pub", "-p", &port, "-u", name, "-P", password, "-t", "a", "-m", "x"];
        sundew(&[&connect, more].concat()).0
    };
    for method in ["scram-sha-256", "scram-sha-512"] {
        for (name, password, code) in [
            ("alice", "secret", 0),
            ("bob", "secret", 0),
            ("carol", "secret", 0x86),
            ("alice", "other", 0x86),
            ("nobody", "secret", 0x86),
        ] {
            assert_eq!(
                publish(name, password, &["--auth", method]),
                code,
                "{name} {password} {method}"
            );
        }
    }
    let refused = serving.line("reason=\"no_scram_credential\" code=134");
    assert!(refused.contains("user=\"carol\""), "{refused}");
    assert_eq!(publish("alice", "secret", &[]), 0, "he may still show it");
    assert_eq!(publish("bob", "secret", &[]), 5);
    assert!(serving.line("reason=\"only_scram\"").contains("user=\"bob\""));
    assert_ne!(publish("alice", "secret", &["--auth", "scram-sha-1"]), 0);
    assert_ne!(publish("alice", "secret", &["--auth", "scram-sha-256", "-V", "311"]), 0);
}

/// Where the methods are not wanted, neither is who has nothing else.
#[test]
fn who_can_prove_a_password_only_is_explained() {
    let (folder, config) = folder("");
    let file = folder.path().join("users");
    for (name, how) in [("alice", "--scram"), ("bob", "--scram-only")] {
        add_for_scram(file.to_str().unwrap(), name, how);
    }
    // Another password is kept in the ways that the one before was.
    let line = |name: &str| {
        let text = fs::read_to_string(&file).unwrap();
        text.lines().find(|line| line.starts_with(name)).unwrap().to_owned()
    };
    for (name, parts) in [("alice", 3), ("bob", 2)] {
        let before = line(name);
        assert_eq!(user("passwd", name, &file, "other").0, 0);
        let (before, after) = (before.split(' '), line(name));
        assert_eq!(after.split(' ').count(), parts, "{after}");
        assert!(
            before.zip(after.split(' ')).all(|(old, new)| old != new),
            "nothing of the old one is left"
        );
        assert_eq!(after.matches("$4096$").count(), 2);
    }
    let path = config.to_str().unwrap();
    let explain = |name: &str| sundew(&["auth", "explain", "-c", path, "-u", name]);
    let (code, said, _) = explain("bob");
    assert!(
        code == 0 && said.contains("SCRAM-SHA-512 with 4096 iterations"),
        "{said}"
    );
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, format!("{text}enhanced_methods = []\n")).unwrap();
    assert_eq!(explain("alice").0, 0);
    let (code, said, _) = explain("bob");
    assert!(code == 1 && said.contains("reason=only_scram"), "{said}");
    // What was asked for and nobody can use is told.
    fs::write(&file, "").unwrap();
    fs::write(&config, format!("{text}enhanced_methods = [\"SCRAM-SHA-512\"]\n")).unwrap();
    let (_, out, error) = sundew(&["check", path]);
    let said = out + &error;
    assert!(said.contains("can use SCRAM-SHA-512, so it is not offered"), "{said}");
    assert!(!said.contains("SCRAM-SHA-256"), "{said}");
}

/// The tool of mosquitto and ours change one file; both kinds of users enter.
#[test]
fn a_file_is_shared_with_mosquitto_passwd() {
    let (folder, config) = folder("");
    let file = folder.path().join("users");
    let made = Command::new("mosquitto_passwd")
        .args(["-c", "-b"])
        .arg(&file)
        .args(["old", "secret"])
        .output();
    if made.map_or(true, |made| !made.status.success()) {
        return; // its package would start a broker on this machine, so `tests/run` does not install it; its lines are in other tests
    }
    assert_eq!(user("add", "new", &file, "other").0, 0);
    let serving = Serving::start(&config);
    for (name, password, code) in [
        ("old", "secret", 0),
        ("new", "other", 0),
        ("old", "other", 5),
        ("none", "secret", 5),
    ] {
        let publish = [
            "pub", "-p", &serving.2, "-u", name, "-P", password, "-t", "a", "-m", "x",
        ];
        assert_eq!(sundew(&publish).0, code, "{name} {password}");
    }
}

/// [`sundew reload`], the file watch, and what the log says of each change.
#[test]
fn a_running_broker_follows_its_files() {
    let (folder, config) = folder("acl_file = \"acl\"\nwatch_interval = \"0s\"\n");
    let file = folder.path().join("users");
    assert_eq!(user("add", "alice", &file, "secret").0, 0);
    fs::write(folder.path().join("acl"), "user alice\ntopic a/#\n").unwrap();
    let mut serving = Serving::start(&config);
    let port = serving.2.clone();
    let publish =
        |name: &str, password: &str| sundew(&["pub", "-p", &port, "-u", name, "-P", password, "-t", "a", "-m", "x"]).0;
    let publish_v5 = |name: &str| {
        let publish = [
            "pub", "-p", &port, "-V", "5", "-q", "1", "-u", name, "-P", "secret", "-t", "a", "-m", "x",
        ];
        sundew(&publish).0
    };
    assert_eq!(publish("alice", "secret"), 0);
    assert_eq!(publish("bob", "secret"), 5);
    let refused = serving.line("client refused");
    assert!(
        refused.contains("user=\"bob\"") && refused.contains("reason=\"unknown_user\""),
        "{refused}"
    );
    assert_eq!(user("add", "bob", &file, "secret").0, 0);
    let path = config.to_str().unwrap();
    assert_eq!(sundew(&["reload", "-c", path]).0, 0);
    assert!(serving.line("user added").contains("user=\"bob\""));
    serving.line("users and rules read again");
    assert_eq!(publish("bob", "secret"), 0);
    // A mistake is told to who made it, and the broker goes on as it was.
    fs::write(folder.path().join("acl"), "user alice\ntopic a/#\ntopic reed b\n").unwrap();
    let (code, _, error) = sundew(&["reload", "-c", path]);
    assert!(
        code == 78 && error.contains("acl:3:1: error: the access \"reed\" is not known"),
        "{error}"
    );
    assert_eq!(publish("bob", "secret"), 0);
    assert_eq!(sundew(&["user", "rm", "bob", "-c", path]).0, 0);
    let pid = serving.0.id().to_string();
    fs::write(folder.path().join("acl"), "user alice\ntopic a/#\n").unwrap();
    let (code, said, _) = sundew(&["reload", "-c", path, "--pid", &pid]);
    assert!(code == 0 && said.contains("its log says"), "{said}");
    assert!(serving.line("user removed").contains("user=\"bob\""));
    assert_eq!(publish("bob", "secret"), 5);
    // The rules of the configuration, too.
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text + "[[auth.rules]]\neffect = \"deny\"\ntopics = [\"a\"]\n").unwrap();
    assert_eq!(publish_v5("alice"), 0);
    assert_eq!(sundew(&["reload", "-c", path]).0, 0);
    serving.line("users and rules read again");
    assert_ne!(publish_v5("alice"), 0);
    // What waits for a restart is named.
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text + "[limits]\nsessions_max = 7\n").unwrap();
    let (code, said, _) = sundew(&["reload", "-c", path]);
    assert!(code == 0 && said.starts_with("users and rules read again: "), "{said}");
    assert!(
        said.ends_with("limits.sessions_max has changed: it waits for a restart\n"),
        "{said}"
    );
    let waits = serving.line("wait for a restart");
    assert!(
        waits.contains("WARN") && waits.contains("options=\"limits.sessions_max\""),
        "{waits}"
    );
    drop(serving);
    let (code, _, error) = sundew(&["reload", "-c", path]);
    assert!(code == 69 && error.contains("no broker is at work here"), "{error}");
}

#[test]
fn a_change_of_a_file_is_live_without_being_asked_for() {
    let (folder, config) = folder("");
    let file = folder.path().join("users");
    assert_eq!(user("add", "alice", &file, "secret").0, 0);
    let mut serving = Serving::start(&config);
    assert_eq!(user("add", "bob", &file, "secret").0, 0);
    serving.line("user added");
    let publish = [
        "pub", "-p", &serving.2, "-u", "bob", "-P", "secret", "-t", "a", "-m", "x",
    ];
    assert_eq!(sundew(&publish).0, 0);
}

const RULES: &str = r#"
[auth.groups]
family = ["alice", "bob"]

[[auth.rules]]
effect = "allow"
topics = ["home/#", "own/%u/#"]
groups = ["family"]

[[auth.rules]]
effect = "deny"
topics = ["home/safe/#"]
users = ["bob"]
"#;

#[test]
fn explain_names_the_rule_that_decides() {
    let (folder, config) = folder(RULES);
    for name in ["alice", "bob"] {
        assert_eq!(user("add", name, &folder.path().join("users"), "secret").0, 0);
    }
    let path = config.to_str().unwrap();
    let explain = |arguments: &[&str]| sundew(&[&["auth", "explain", "-c", path][..], arguments].concat());
    let table: &[(&[&str], i32, &str)] = &[
        (
            &["--user", "alice", "--topic", "home/safe/x"],
            0,
            "sundew.toml:11: allows publish, subscribe, receive on home/#",
        ),
        (
            &["--user", "bob", "--topic", "home/safe/x"],
            1,
            "sundew.toml:16: denies publish, subscribe, receive on home/safe/#",
        ),
        (&["--user", "bob", "--topic", "own/bob/x"], 0, "on own/%u/#"),
        (
            &["--user", "bob", "--topic", "other"],
            1,
            "denied to publish other: no rule allows it",
        ),
        (
            &["--user", "bob", "--topic", "$share/g/home/#", "--action", "subscribe"],
            1,
            "denies",
        ),
        (&["--user", "carol"], 1, "reason=unknown_user"),
        (&[], 1, "reason=anonymous_disabled"),
        (&["--user", "bob"], 0, "own/%u/#, here own/bob/#"),
        (
            &[
                "--user",
                "bob",
                "--address",
                "192.0.2.1",
                "--topic",
                "$SYS/x",
                "--action",
                "receive",
            ],
            1,
            "$SYS is for",
        ),
        (
            &["--user", "bob", "--topic", "$SYS/#", "--action", "subscribe"],
            0,
            "$SYS is for",
        ),
    ];
    for (arguments, code, text) in table {
        let (found, out, error) = explain(arguments);
        assert!(
            found == *code && out.contains(text),
            "{arguments:?}: {found} {out}{error}"
        );
    }
    assert_eq!(explain(&["--topic", "a/#"]).0, 64);
}

#[test]
fn explain_says_what_it_is_about_and_that_who_is_refused_does_nothing() {
    let (folder, config) = folder(RULES);
    assert_eq!(user("add", "alice", &folder.path().join("users"), "secret").0, 0);
    let path = config.to_str().unwrap();
    let (code, out, _) = sundew(&["auth", "explain", "-c", path, "-u", "carol", "-t", "home/x"]);
    let lines: Vec<_> = out.lines().collect();
    assert!(code == 1 && lines[0] == format!("configuration: {path}"), "{out}");
    assert!(
        lines[2] == "to publish home/x: not asked, since it may not enter",
        "{out}"
    );
    let (_, out, _) = sundew(&["auth", "explain", "-u", "alice"]);
    assert!(out.starts_with("configuration: none was named"), "{out}");
}

#[test]
fn explain_does_not_say_no_where_a_program_decides() {
    let (folder, config) = folder(
        "[[auth.http]]\nconnect_url = \"http://127.0.0.1:9/c\"\nacl_url = \"http://127.0.0.1:9/a\"\n\
         [[auth.rules]]\neffect = \"deny\"\ntopics = [\"safe\"]\n",
    );
    assert_eq!(user("add", "alice", &folder.path().join("users"), "secret").0, 0);
    let explain = |name: &str, topic: &str| {
        let path = config.to_str().unwrap();
        sundew(&["auth", "explain", "-c", path, "-u", name, "-t", topic])
    };
    let (code, out, _) = explain("bob", "home");
    assert!(
        code == 3 && out.contains("bob may enter or not, that is not known"),
        "{out}"
    );
    assert!(
        out.contains("if it enters: not known whether it is allowed to publish home"),
        "{out}"
    );
    let (code, out, _) = explain("alice", "home");
    assert!(code == 3 && out.contains("alice may enter: "), "{out}");
    assert_eq!(explain("alice", "safe").0, 1);
    assert_eq!(explain("bob", "safe").0, 1);
}

#[test]
fn explain_knows_who_shows_a_certificate() {
    let folder = tempfile::tempdir().unwrap();
    certificates_in(folder.path());
    let config = folder.path().join("sundew.toml");
    let text = "[[listeners]]\naddress = \"127.0.0.1:1\"\n[[listeners]]\nname = \"devices\"\naddress = \"127.0.0.1:2\"\n\
                [listeners.tls]\ncertificate = \"server.pem\"\nkey = \"server.key\"\nclient_ca = \"ca.pem\"\n\
                client_certificate = \"required\"\nuser_name = \"common_name\"\n\
                [[auth.rules]]\neffect = \"allow\"\ntopics = [\"own/%u\"]\n";
    fs::write(&config, text).unwrap();
    let explain = |arguments: &[&str]| {
        let path = config.to_str().unwrap();
        sundew(&[&["auth", "explain", "-c", path, "-t", "own/d7"], arguments].concat())
    };
    let (code, out, error) = explain(&["--certificate-name", "d7"]);
    assert!(
        code == 0 && out.contains("d7 may enter: its certificate says so"),
        "{out}{error}"
    );
    assert_eq!(explain(&["--certificate-name", "d8"]).0, 1);
    let (code, out, _) = explain(&["-u", "d7", "-l", "devices"]);
    assert!(code == 1 && out.contains("wants a certificate of the client"), "{out}");
}

#[test]
fn explain_says_what_a_token_is_good_for() {
    use jsonwebtoken::{EncodingKey, Header, encode};
    let (folder, config) = folder("[[auth.jwt]]\nsecret_file = \"secret\"\nacl_claim = \"acl\"\n");
    let secret = "a secret of more than thirty-two bytes";
    std::fs::write(folder.path().join("secret"), secret).unwrap();
    std::fs::write(folder.path().join("users"), "").unwrap();
    let write = |exp: u64| {
        let claims = serde_json::json!({"sub": "alice", "exp": exp, "acl": {"pub": ["home/%u/#"]}});
        let token = encode(
            &Header::default(),
            &claims,
            &EncodingKey::from_secret(secret.as_bytes()),
        )
        .unwrap();
        std::fs::write(folder.path().join("token"), token + "\n").unwrap();
    };
    let token = folder.path().join("token");
    let path = [
        "auth",
        "explain",
        "-c",
        config.to_str().unwrap(),
        "--token-file",
        token.to_str().unwrap(),
    ];
    write(4_000_000_000);
    let (code, out, _) = sundew(&[&path[..], &["--topic", "home/alice/lamp"]].concat());
    assert_eq!(code, 0, "{out}");
    assert!(out.contains("\nalice may enter: a token that "), "{out}");
    assert!(
        out.contains("sundew.toml:7 takes, the name from its claim sub, disconnected in "),
        "{out}"
    );
    assert!(
        out.contains("allowed to publish home/alice/lamp: token claim acl: allows publish on home/%u/#"),
        "{out}"
    );
    let (code, out, _) = sundew(&[&path[..], &["--topic", "home/bob/lamp"]].concat());
    assert!(
        code == 1 && out.contains("denied to publish home/bob/lamp: no rule allows it"),
        "{out}"
    );
    write(1);
    let (code, out, _) = sundew(&path);
    assert!(
        code == 1 && out.contains("reason=token_expired: it has expired (exp)"),
        "{out}"
    );
}

#[test]
fn check_finds_every_mistake_in_users_and_rules_at_once() {
    let wrong = r#"
acl_file = "acl"
[[auth.rules]]
effekt = "allow"
topics = ["home/#/x"]
[[auth.rules]]
effect = "deny"
qos_max = 1
topics = ["a"]
groups = ["famly"]
listeners = ["tls"]
users = []
client_ids = []
addresses = []
[auth.groups]
family = ["alice"]
"#;
    let (folder, config) = folder(wrong);
    fs::write(folder.path().join("users"), "alice:secret\nbob\n").unwrap();
    fs::write(folder.path().join("acl"), "topic reed x\nuser\n").unwrap();
    let (code, out, _) = sundew(&["check", config.to_str().unwrap()]);
    assert_eq!(code, 78);
    for expected in [
        "users:1:1: error: user \"alice\": the password is not hashed",
        "users:2:1: error: expected USER:HASH",
        "acl:1:1: error: the access \"reed\" is not known",
        "acl:2:1: error: no user name behind `user`",
        "sundew.toml:10:1: error: unknown key auth.rules[0].effekt (did you mean effect?)",
        "error: auth.rules[0].topics[0]: \"home/#/x\" has a # that is not its whole last level",
        "error: auth.rules[0]: it has no effect",
        "error: auth.rules[1]: qos_max and retain are limits of rules that allow",
        "error: auth.rules[1].groups: there is no \"famly\" (did you mean \"family\"?)",
        "error: auth.rules[1].listeners: there is no \"tls\"",
        "error: auth.rules[1].users: it is empty, so the rule is for nobody",
        "error: auth.rules[1].client_ids: it is empty",
        "error: auth.rules[1].addresses: it is empty",
    ] {
        assert!(out.contains(expected), "no {expected:?} in:\n{out}");
    }
}

/// The lines that the filter for fail2ban is made for.
#[test]
fn a_refusal_is_one_line_that_names_the_address() {
    let (folder, config) = folder("");
    assert_eq!(user("add", "alice", &folder.path().join("users"), "secret").0, 0);
    let mut serving = Serving::start(&config);
    let name = "x\" addr=192.0.2.9:1 reason=\"bad_password";
    let publish = [
        "pub", "-p", &serving.2, "-u", name, "-P", "x", "-t", "a", "-m", "x", "-i", "c",
    ];
    assert_eq!(sundew(&publish).0, 5);
    let line = serving.line("client refused");
    let expected =
        r#" WARN client refused client="c" user="x\" addr=192.0.2.9:1 reason=\"bad_password" addr=127.0.0.1:"#;
    assert!(line.contains(expected), "{line}");
    assert!(
        line.contains(r#" listener="mqtt" reason="unknown_user" code=135"#),
        "{line}"
    );
}

/// Listeners stay bound as they were at the start: what a changed configuration says of others opens none of them.
#[test]
fn a_reload_gives_no_listener_the_door_of_another() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("sundew.toml");
    let listener =
        |address: &str, is_open: bool| format!("[[listeners]]\naddress = \"{address}\"\nallow_anonymous = {is_open}\n");
    let rest = "[storage]\ndirectory = \"data\"\n";
    let closed = listener("127.0.0.1:0", false);
    fs::write(&config, format!("{closed}{rest}")).unwrap();
    let mut serving = Serving::start(&config);
    let publish = ["pub", "-p", &serving.2.clone(), "-t", "a", "-m", "x"];
    let path = config.to_str().unwrap();
    // One that comes above it, and has its name then; another address of the same name.
    let above = listener("127.0.0.1:1", true);
    for changed in [format!("{above}{closed}"), listener("127.0.0.2:0", true)] {
        fs::write(&config, format!("{changed}{rest}")).unwrap();
        let (code, said, error) = sundew(&["reload", "-c", path]);
        assert!(code == 1 && error.contains("listeners have changed"), "{error}");
        assert!(said.contains("listeners[0].a"), "{said}");
        serving.line("listeners have changed in the configuration");
        assert_eq!(sundew(&publish).0, 5);
    }
    fs::write(&config, format!("{}{rest}", listener("127.0.0.1:0", true))).unwrap();
    assert_eq!(sundew(&["reload", "-c", path]).0, 0);
    serving.line("users and rules read again");
    assert_eq!(sundew(&publish).0, 0);
}
