//! Moving from mosquitto: what a configuration lets a client do on a real mosquitto, it may do on Sundew when it is imported, and nothing
//! else. The configurations have the shapes of public ones.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::program::{PATIENCE, Running, sundew};

/// What a client tries.
#[derive(Clone, Copy, Debug)]
enum Try<'a> {
    /// To publish to a topic.
    Publish(&'a str),
    /// To get the retained message of a topic by subscribing to a filter.
    Receive(&'a str, &'a str),
}
use Try::{Publish, Receive};

/// Which port, of the configuration's `PORT0` and so on; the options of the client; what it tries; whether it may.
type Attempt<'a> = (usize, &'a [&'a str], Try<'a>, bool);

/// A folder with a configuration, in which `DIR` and `PORT0` to `PORT2` are put in.
pub(crate) struct Migration {
    folder: TempDir,
    /// Free ones, by the numbers they have in configurations.
    pub(crate) ports: [u16; 3],
}

/// A port that is free and stays so until somebody listens on it: below those that the system gives to whoever connects or asks for any, and
/// given once.
fn free_port() -> u16 {
    const FIRST: u16 = 20_000;
    const COUNT: u16 = 12_000;
    static GIVEN: AtomicU16 = AtomicU16::new(0);
    let start = (std::process::id() % u32::from(COUNT)) as u16;
    let candidates = (0..COUNT).map(|_| FIRST + (start + GIVEN.fetch_add(1, Ordering::Relaxed)) % COUNT);
    let mut free = candidates.filter(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok());
    free.next().expect("a free port")
}

impl Migration {
    pub(crate) fn new(files: &[(&str, &str)]) -> Self {
        let folder = TempDir::new().unwrap();
        let migration = Self {
            folder,
            ports: [free_port(), free_port(), free_port()],
        };
        for (name, text) in files {
            let path = migration.path(name);
            fs::create_dir_all(Path::new(&path).parent().unwrap()).unwrap();
            fs::write(path, migration.filled_in(text)).unwrap();
        }
        migration
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    fn filled_in(&self, text: &str) -> String {
        let numbered = self.ports.iter().enumerate();
        let text = text.replace("DIR", self.folder.path().to_str().unwrap());
        numbered.fold(text, |text, (number, port)| {
            text.replace(&format!("PORT{number}"), &port.to_string())
        })
    }

    /// Users, each with the password `secret`, by mosquitto's own program.
    pub(crate) fn with_users(self, users: &[&str]) -> Self {
        fs::write(self.path("passwd"), "").unwrap();
        for user in users {
            succeed(Command::new("mosquitto_passwd").args(["-b", &self.path("passwd"), user, "secret"]));
        }
        self
    }

    fn with_certificates(self) -> Self {
        succeed(sundew().args(["certs", &self.path("certs")]));
        succeed(sundew().args(["certs", &self.path("others")]));
        self
    }

    /// Tries everything at mosquitto and then, imported, at Sundew. `kept`: retained messages that are there, with who publishes them.
    fn check(&self, is_whole: bool, kept: &[(usize, &[&str], &str)], attempts: &[Attempt<'_>]) {
        let configuration = self.path("mosquitto.conf");
        let mosquitto = Running::start(Command::new(mosquitto_program()).args(["-c", &configuration]));
        self.check_one("mosquitto", kept, attempts);
        drop(mosquitto);
        let made = self.path("made");
        let imported = sundew()
            .args(["import", "mosquitto", &configuration, "--output", &made])
            .output()
            .unwrap();
        let said = said(&imported);
        assert_eq!(imported.status.code(), Some(if is_whole { 0 } else { 2 }), "{said}");
        assert_eq!(said.contains(": not carried: "), !is_whole, "{said}");
        succeed(sundew().args(["check", &format!("{made}/sundew.toml")]));
        let _sundew = Running::start(sundew().args(["-c", &format!("{made}/sundew.toml")]));
        self.check_one("sundew", kept, attempts);
    }

    fn check_one(&self, broker: &str, kept: &[(usize, &[&str], &str)], attempts: &[Attempt<'_>]) {
        let used = attempts.iter().map(|(port, ..)| *port);
        used.for_each(|port| wait_for(broker, self.ports[port]));
        for (port, options, topic) in kept {
            let mut publish = self.client("mosquitto_pub", *port, options);
            succeed(publish.args(["-r", "-q", "1", "-m", "kept", "-t", topic]));
        }
        thread::scope(|scope| {
            let running: Vec<_> = attempts
                .iter()
                .map(|attempt| scope.spawn(move || self.may(attempt)))
                .collect();
            for (attempt, may) in attempts.iter().zip(running) {
                let (may, said) = may.join().unwrap();
                assert_eq!(may, attempt.3, "{broker}: {attempt:?}: {said}");
            }
        });
    }

    fn may(&self, (port, options, what, _): &Attempt<'_>) -> (bool, String) {
        let output = match what {
            Publish(topic) => {
                let mut publish = self.client("mosquitto_pub", *port, options);
                publish.args(["-q", "1", "-m", "x", "-t", topic]).output().unwrap()
            }
            Receive(filter, _) => {
                let mut subscribe = self.client("mosquitto_sub", *port, options);
                // Who gets nothing waits in vain so long; who gets it does not wait.
                subscribe
                    .args(["-q", "1", "-v", "-W", "3", "-t", filter])
                    .output()
                    .unwrap()
            }
        };
        let said = said(&output);
        let may = match what {
            // The program ends well although it is told that it may not.
            Publish(_) => output.status.success() && !said.contains("failed"),
            Receive(_, topic) => said.contains(&format!("{topic} kept")),
        };
        (may, said)
    }

    pub(crate) fn client(&self, program: &str, port: usize, options: &[&str]) -> Command {
        // mosquitto's programs do not speak WebSocket; ours have their words.
        let is_websocket = options.contains(&"--ws");
        let mut command = if is_websocket { sundew() } else { Command::new(program) };
        command.args(is_websocket.then(|| program.trim_start_matches("mosquitto_")));
        command.args(["-V", "5", "-p", &self.ports[port].to_string()]);
        command.args(options.iter().map(|option| self.filled_in(option)));
        if !options.contains(&"-h") {
            command.args([
                "-h",
                if options.contains(&"--cafile") {
                    "localhost"
                } else {
                    "127.0.0.1"
                },
            ]);
        }
        command
    }
}

/// Not in every PATH.
pub(crate) fn mosquitto_program() -> &'static str {
    let there = Path::new("/usr/sbin/mosquitto");
    if there.exists() {
        "/usr/sbin/mosquitto"
    } else {
        "mosquitto"
    }
}

pub(crate) fn said(output: &Output) -> String {
    [&output.stdout[..], &output.stderr]
        .map(String::from_utf8_lossy)
        .concat()
}

pub(crate) fn succeed(command: &mut Command) {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}; run tests/run, which installs what is missing"));
    let said = said(&output);
    assert!(
        output.status.success() && !said.contains("failed"),
        "{command:?}: {said}"
    );
}

pub(crate) fn wait_for(broker: &str, port: u16) {
    let end = Instant::now() + PATIENCE;
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(Instant::now() < end, "{broker} does not listen on port {port}");
        thread::sleep(Duration::from_millis(20));
    }
}

pub(crate) const ALICE: &[&str] = &["-u", "alice", "-P", "secret"];
const BOB: &[&str] = &["-u", "bob", "-P", "secret"];
const WRONG: &[&str] = &["-u", "alice", "-P", "wrong"];
const UNKNOWN: &[&str] = &["-u", "carol", "-P", "secret"];
pub(crate) const NOBODY: &[&str] = &[];

#[test]
fn a_simple_password_file() {
    let conf = "# a comment\nuser root\nlistener PORT0\nallow_anonymous false\npassword_file DIR/passwd\n\
                persistence false\nlog_type error\n";
    let migration = Migration::new(&[("mosquitto.conf", conf)]).with_users(&["alice", "bob"]);
    migration.check(
        true,
        &[(0, ALICE, "kept/1")],
        &[
            (0, ALICE, Publish("a"), true),
            (0, BOB, Receive("#", "kept/1"), true),
            (0, WRONG, Publish("a"), false),
            (0, UNKNOWN, Publish("a"), false),
            (0, NOBODY, Publish("a"), false),
            (0, &["-u", "alice"], Publish("a"), false),
            (0, NOBODY, Receive("#", "kept/1"), false),
        ],
    );
}

/// Users who may enter, and guests who may read.
#[test]
fn rules_with_patterns_and_guests() {
    let acl = "topic read public/#\nuser alice\ntopic readwrite home/#\ntopic deny home/safe\ntopic public/news\n\
               user bob\ntopic read home/+/lamp\n\npattern readwrite own/%u/#\npattern write devices/%c/state\n";
    let conf =
        "user root\nlistener PORT0 127.0.0.1\nallow_anonymous true\npassword_file DIR/passwd\nacl_file DIR/acl\n";
    let migration = Migration::new(&[("mosquitto.conf", conf), ("acl", acl)]).with_users(&["alice", "bob"]);
    migration.check(
        true,
        &[
            (0, ALICE, "home/hall/lamp"),
            (0, ALICE, "home/hall/door"),
            (0, ALICE, "public/news"),
            (0, BOB, "own/bob/x"),
        ],
        &[
            (0, ALICE, Publish("home/x"), true),
            (0, ALICE, Publish("home/safe"), false),
            (0, ALICE, Publish("other"), false),
            (0, ALICE, Publish("own/alice/x"), true),
            (0, ALICE, Publish("own/bob/x"), false),
            (0, BOB, Publish("home/hall/lamp"), false),
            (0, BOB, Receive("home/hall/lamp", "home/hall/lamp"), true),
            (0, BOB, Receive("#", "home/hall/lamp"), true),
            (0, BOB, Receive("#", "home/hall/door"), false),
            (0, BOB, Receive("own/bob/#", "own/bob/x"), true),
            (0, ALICE, Receive("own/#", "own/bob/x"), false),
            (0, NOBODY, Receive("public/#", "public/news"), true),
            (0, NOBODY, Receive("#", "public/news"), true),
            (0, ALICE, Receive("public/#", "public/news"), true),
            (0, BOB, Receive("public/#", "public/news"), false),
            (0, NOBODY, Publish("public/news"), false),
            (0, &["-i", "d7"], Publish("devices/d7/state"), true),
            (0, &["-i", "d9"], Publish("devices/d8/state"), false),
            (0, &["-i", "+"], Publish("devices/d8/state"), false),
            (0, WRONG, Receive("public/#", "public/news"), false),
        ],
    );
}

/// Open for this machine, closed for others; rules for one of the two.
#[test]
fn listeners_with_settings_of_their_own() {
    let conf = "per_listener_settings true\nuser root\n\nlistener PORT0 127.0.0.1\nallow_anonymous true\n\n\
                listener PORT1\nallow_anonymous false\npassword_file DIR/passwd\nacl_file DIR/acl\nmax_connections -1\n\n\
                listener PORT2 localhost\npassword_file DIR/passwd\n";
    let migration =
        Migration::new(&[("mosquitto.conf", conf), ("acl", "user alice\ntopic #\n")]).with_users(&["alice", "bob"]);
    migration.check(
        true,
        &[(0, NOBODY, "kept/1")],
        &[
            (0, NOBODY, Publish("a"), true),
            (0, UNKNOWN, Publish("a"), true),
            (1, NOBODY, Publish("a"), false),
            (1, ALICE, Receive("#", "kept/1"), true),
            (1, BOB, Receive("#", "kept/1"), false),
            (1, BOB, Publish("a"), false),
            (2, BOB, Publish("a"), true),
            (2, NOBODY, Publish("a"), false),
            (2, WRONG, Publish("a"), false),
        ],
    );
}

const TRUSTED: &[&str] = &["--cafile", "DIR/certs/ca.pem"];
const CERTIFIED: &[&str] = &[
    "--cafile",
    "DIR/certs/ca.pem",
    "--cert",
    "DIR/certs/client.pem",
    "--key",
    "DIR/certs/client.key",
];
const OF_ANOTHER: &[&str] = &[
    "--cafile",
    "DIR/certs/ca.pem",
    "--cert",
    "DIR/others/client.pem",
    "--key",
    "DIR/others/client.key",
];

/// Devices have certificates, their common name is their user name; services have passwords on another port.
#[test]
fn certificates_say_who_a_client_is() {
    let conf = "user root\npassword_file DIR/passwd\nacl_file DIR/acl\nlistener PORT0 127.0.0.1\n\
                listener PORT1 127.0.0.1\ncafile DIR/certs/ca.pem\ncertfile DIR/certs/server.pem\nkeyfile DIR/certs/server.key\n\
                require_certificate true\nuse_identity_as_username true\ntls_version tlsv1.2\n\
                listener PORT2 127.0.0.1\ncertfile DIR/certs/server.pem\nkeyfile DIR/certs/server.key\n";
    let acl = "user alice\ntopic #\npattern readwrite devices/%u/#\n";
    let migration = Migration::new(&[("mosquitto.conf", conf), ("acl", acl)])
        .with_users(&["alice"])
        .with_certificates();
    let with_user = [CERTIFIED, ALICE].concat();
    let password_only = [TRUSTED, ALICE].concat();
    migration.check(
        true,
        &[(0, ALICE, "devices/client/x")],
        &[
            (1, CERTIFIED, Publish("devices/client/y"), true),
            (1, CERTIFIED, Receive("devices/#", "devices/client/x"), true),
            (1, CERTIFIED, Publish("devices/other/y"), false),
            (1, &with_user, Publish("devices/client/y"), true),
            (1, &with_user, Publish("devices/other/y"), false),
            (1, TRUSTED, Publish("devices/client/y"), false),
            (1, &password_only, Publish("a"), false),
            (1, OF_ANOTHER, Publish("devices/client/y"), false),
            (1, ALICE, Publish("a"), false),
            (0, NOBODY, Publish("devices/client/y"), false),
            (2, &password_only, Publish("a"), true),
            (2, TRUSTED, Publish("a"), false),
            (2, CERTIFIED, Publish("devices/client/y"), false),
        ],
    );
}

/// As older guides have it: the server's own certificate in certfile, what stands between it and its authority in cafile. OpenSSL puts
/// them together.
#[test]
fn a_chain_in_two_files() {
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
    let params = |name: &str, is_authority: bool| {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        if is_authority {
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        }
        params
    };
    let key = || KeyPair::generate().unwrap();
    let root = CertifiedIssuer::self_signed(params("root", true), key()).unwrap();
    let between = CertifiedIssuer::signed_by(params("between", true), key(), &root).unwrap();
    let own = key();
    let server = params("server", false).signed_by(&own, &between).unwrap();
    let conf = "user root\nlistener PORT0 127.0.0.1\nallow_anonymous true\ncafile DIR/chain.pem\ncertfile DIR/cert.pem\nkeyfile DIR/key.pem\n";
    let migration = Migration::new(&[
        ("mosquitto.conf", conf),
        ("chain.pem", &between.pem()),
        ("cert.pem", &server.pem()),
        ("key.pem", &own.serialize_pem()),
        ("root.pem", &root.pem()),
    ]);
    let options = &["--cafile", "DIR/root.pem"];
    migration.check(
        true,
        &[],
        &[(0, options, Publish("a"), true), (0, NOBODY, Publish("a"), false)],
    );
    assert_eq!(
        fs::read_to_string(migration.path("made/chain-cert.pem"))
            .unwrap()
            .matches("BEGIN")
            .count(),
        2
    );
}

/// The Home Assistant add-on, with rules of its user's own in the folder for that.
#[test]
fn home_assistant() {
    let conf = "protocol mqtt\nuser root\nlog_dest stdout\nlog_type error\nlog_type warning\nlog_type notice\nlog_type information\n\
                persistence true\npersistence_location DIR/\n\ninclude_dir DIR/share/mosquitto\n\n\
                listener PORT0\nprotocol mqtt\n\nlistener PORT1\nprotocol websockets\n\n# Follow SSL listener if a certificate exists\n\
                listener PORT2\nprotocol mqtt\ncertfile DIR/certs/server.pem\nkeyfile DIR/certs/server.key\nrequire_certificate false\n";
    let acl = "user homeassistant\ntopic readwrite #\n\nuser tasmota\ntopic readwrite tele/#\ntopic read cmnd/#\n";
    let migration = Migration::new(&[
        ("mosquitto.conf", conf),
        (
            "share/mosquitto/acl.conf",
            "acl_file DIR/share/mosquitto/accesscontrollist\n",
        ),
        (
            "share/mosquitto/users.conf",
            "password_file DIR/passwd\nallow_anonymous false\n",
        ),
        ("share/mosquitto/accesscontrollist", acl),
    ])
    .with_users(&["homeassistant", "tasmota"])
    .with_certificates();
    let own: &[&str] = &["-u", "homeassistant", "-P", "secret"];
    let tasmota: &[&str] = &["-u", "tasmota", "-P", "secret"];
    let [own_ws, tasmota_ws, wrong_ws, own_tls, tasmota_tls] = [
        [own, &["--ws"]].concat(),
        [tasmota, &["--ws"]].concat(),
        vec!["-u", "tasmota", "-P", "no", "--ws"],
        [own, TRUSTED].concat(),
        [tasmota, TRUSTED].concat(),
    ];
    migration.check(
        true,
        &[(0, own, "cmnd/plug/power"), (0, own, "homeassistant/x/config")],
        &[
            (0, tasmota, Publish("tele/plug/state"), true),
            (0, tasmota, Publish("cmnd/plug/power"), false),
            (0, NOBODY, Publish("tele/plug/state"), false),
            (1, &own_ws, Receive("homeassistant/#", "homeassistant/x/config"), true),
            (1, &tasmota_ws, Receive("#", "cmnd/plug/power"), true),
            (1, &tasmota_ws, Receive("#", "homeassistant/x/config"), false),
            (1, &wrong_ws, Publish("tele/plug/state"), false),
            (1, &["--ws"], Publish("tele/plug/state"), false),
            (2, &own_tls, Receive("cmnd/#", "cmnd/plug/power"), true),
            (2, &tasmota_tls, Publish("stat/x"), false),
            (2, TRUSTED, Publish("tele/x"), false),
            (2, own, Publish("a"), false),
        ],
    );
}

/// Debian's files: a main one, and the rest in conf.d; with a bridge, which is not carried.
#[test]
fn conf_d_and_a_bridge() {
    let main = "pid_file DIR/mosquitto.pid\n\npersistence true\npersistence_location DIR/\n\nlog_dest file DIR/mosquitto.log\n\n\
                user root\ninclude_dir DIR/conf.d\n";
    let bridge = "connection cloud\naddress 127.0.0.1:1\ntopic # out 1\nremote_username me\nremote_password hunter2\nstart_type lazy\n";
    let access = "allow_anonymous false\npassword_file DIR/passwd\n";
    let migration = Migration::new(&[
        ("mosquitto.conf", main),
        ("conf.d/10-access.conf", access),
        ("conf.d/20-listener.conf", "listener PORT0\nmax_qos 1\n"),
        ("conf.d/30-bridge.conf", bridge),
        ("conf.d/README", "flobble"),
    ])
    .with_users(&["alice"]);
    migration.check(
        false,
        &[(0, ALICE, "kept/1")],
        &[
            (0, ALICE, Receive("#", "kept/1"), true),
            (0, NOBODY, Publish("a"), false),
            (0, WRONG, Publish("a"), false),
        ],
    );
}

#[test]
fn the_old_words_for_a_listener() {
    let conf = "user root\nbind_address 127.0.0.1\nport PORT0\nallow_anonymous true\nacl_file DIR/acl\n";
    let migration = Migration::new(&[("mosquitto.conf", conf), ("acl", "topic a/#\npattern deny a/secret\n")]);
    migration.check(
        false, // a pattern that denies is asked first here
        &[(0, NOBODY, "a/kept")],
        &[
            (0, NOBODY, Publish("a/b"), true),
            (0, NOBODY, Publish("b"), false),
            (0, NOBODY, Receive("#", "a/kept"), true),
            (0, UNKNOWN, Publish("a/b"), false),
        ],
    );
}

const ROLES: &str = r#"
        {"rolename": "writer", "acls": [
            {"acltype": "publishClientSend", "topic": "home/#", "allow": true},
            {"acltype": "publishClientSend", "topic": "home/safe", "priority": 2, "allow": false}]},
        {"rolename": "reader", "acls": [
            {"acltype": "subscribePattern", "topic": "home/#", "allow": true},
            {"acltype": "subscribeLiteral", "topic": "public/news", "allow": true},
            {"acltype": "publishClientReceive", "topic": "home/hidden", "allow": false}]},
        {"rolename": "guest", "acls": [
            {"acltype": "publishClientSend", "topic": "public/#", "allow": true},
            {"acltype": "publishClientSend", "topic": "home/hidden", "allow": true},
            {"acltype": "subscribePattern", "topic": "public/#", "allow": true}]}"#;

/// mosquitto's rules see topics with their mount points, and its clients do not.
#[test]
fn listeners_with_mount_points() {
    let conf = "allow_anonymous true\nacl_file DIR/acl\nlistener PORT0 127.0.0.1\nlistener PORT1 127.0.0.1\nmount_point site/a/\n\
                listener PORT2 127.0.0.1\nmount_point site/b/\n";
    let migration = Migration::new(&[
        ("mosquitto.conf", conf),
        ("acl", "topic site/a/#\ntopic site/b/open/#\n"),
    ]);
    migration.check(
        true,
        &[(1, NOBODY, "lamp"), (2, NOBODY, "open/lamp")],
        &[
            (0, NOBODY, Publish("site/a/x"), true),
            (0, NOBODY, Publish("lamp"), false),
            (0, NOBODY, Receive("#", "site/a/lamp"), true),
            (0, NOBODY, Receive("site/b/#", "site/b/open/lamp"), true),
            (1, NOBODY, Publish("x"), true),
            (1, NOBODY, Receive("#", "lamp"), true),
            (1, NOBODY, Receive("+", "lamp"), true),
            (1, NOBODY, Receive("#", "open/lamp"), false),
            (2, NOBODY, Publish("lamp"), false),
            (2, NOBODY, Publish("open/x"), true),
            (2, NOBODY, Receive("open/#", "open/lamp"), true),
            (2, NOBODY, Receive("lamp", "lamp"), false),
        ],
    );
}

/// Users, roles and groups in a file that mosquitto changes while it runs.
#[test]
fn dynamic_security() {
    let plugin = fs::read_dir("/usr/lib")
        .unwrap()
        .filter_map(|entry| Some(entry.ok()?.path()));
    let plugin = plugin
        .chain(["/usr/lib".into()])
        .map(|folder| folder.join("mosquitto_dynamic_security.so"));
    let plugin = plugin
        .into_iter()
        .find(|path| path.exists())
        .expect("mosquitto comes with it");
    let conf = format!(
        "user root\nallow_anonymous true\nlistener PORT0 127.0.0.1\nplugin {}\nplugin_opt_config_file DIR/dynamic.json\n",
        plugin.display()
    );
    let migration = Migration::new(&[("mosquitto.conf", &conf)]).with_users(&["alice", "bob", "off"]);
    let passwords = fs::read_to_string(migration.path("passwd")).unwrap();
    let mut clients = Vec::new();
    for line in passwords.lines() {
        let parts: Vec<_> = line.split(['$', ':']).collect();
        let (name, iterations, salt, hash) = (parts[0], parts[3], parts[4], parts[5]);
        let own = if name == "alice" {
            r#"{"rolename": "writer"}, {"rolename": "reader"}"#
        } else {
            ""
        };
        clients.push(format!(
            r#"{{"username": "{name}", "password": "{hash}", "salt": "{salt}", "iterations": {iterations},
               "disabled": {}, "roles": [{own}]}}"#,
            name == "off"
        ));
    }
    let json = format!(
        r#"{{"clients": [{}], "roles": [{ROLES}],
        "groups": [{{"groupname": "guests", "roles": [{{"rolename": "guest"}}], "clients": [{{"username": "bob"}}]}}],
        "anonymousGroup": "guests",
        "defaultACLAccess": {{"publishClientSend": false, "publishClientReceive": true, "subscribe": false, "unsubscribe": true}}}}"#,
        clients.join(",\n")
    );
    fs::write(migration.path("dynamic.json"), json).unwrap();
    migration.check(
        true,
        &[
            (0, ALICE, "home/lamp"),
            (0, NOBODY, "home/hidden"),
            (0, BOB, "public/news"),
        ],
        &[
            (0, ALICE, Publish("home/x"), true),
            (0, ALICE, Publish("home/safe"), false),
            (0, ALICE, Publish("public/x"), false),
            (0, ALICE, Receive("home/#", "home/lamp"), true),
            (0, ALICE, Receive("home/#", "home/hidden"), false),
            (0, ALICE, Receive("public/news", "public/news"), true),
            (0, ALICE, Receive("#", "home/lamp"), false),
            (0, BOB, Receive("public/+", "public/news"), true),
            (0, BOB, Receive("home/#", "home/lamp"), false),
            (0, BOB, Publish("home/x"), false),
            (0, BOB, Publish("public/x"), true),
            (0, NOBODY, Receive("public/#", "public/news"), true),
            (0, NOBODY, Publish("home/x"), false),
            (0, WRONG, Publish("home/x"), false),
            (0, UNKNOWN, Publish("public/x"), false),
            (0, &["-u", "off", "-P", "secret"], Publish("public/x"), false),
        ],
    );
}
