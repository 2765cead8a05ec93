//! A configuration with a mistake of every kind: one run names them all.

use std::fs;

use super::{Layers, load, without_folder};
use crate::transport::certificates::{CertificatesOptions, make};

const WRONG: &str = r#"listner = 1883
max_queued_mesages = 100

[[listeners]]
name = "front"
adress = "0.0.0.0:1883"
address = "localhost:1883"
protocol = "websockets"
allowed_versions = ["5", "4"]
tcp_keepalive = 60
maximum_qos = 3

[[listeners]]
name = "secure"
address = "127.0.0.1:8883"
[listeners.tls]
certificate = "certs/server.pem"
key = "certs/client.key"
client_ca = "certs/server.key"
client_certificate = "Required"
client_crl = "none.crl"
version_mim = "1.3"
[listeners.tls.certificats]

[[listeners]]
name = "secure"
address = "127.0.0.1:8883"
websocket.path = "mqtt"
proxy_protocol.trustd = ["10.0.0.1"]

[auth]
allow_anonymous = "loopbak"
password_file = "users"
acl_file = "acl"
hashing_threads = 100
wide_subscriptions = "narow"
groups = ["staff"]

[[auth.rules]]
efect = "allow"
topics = ["a/#/b", "ok"]
groups = ["stuff"]
listeners = ["frnt"]
addresses = ["10.0.0.0/40"]
actions = ["publish", "subscibe"]

[[auth.jwt]]
isuer = "x"
jwks_url = "ftp://h"

[[auth.http]]
connect_url = "http://127.0.0.1/${usrname}"
headrs.x = "y"

[limits]
max_packet_sise = "1MiB"
packet_bytes_max = "1 MiBi"
sessions_max = "unlimted"
subscriptions_max = -1

[queue]
policy = "drop-oldest"

[storage]
snyc = "always"
sync = "alwas"

[log]
target = "file"
level = "inof"
"#;

#[test]
fn every_mistake_of_a_file_is_named_in_one_run() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("sundew.toml");
    fs::write(&file, WRONG).unwrap();
    fs::write(folder.path().join("users"), "alice\nbob:plain\n").unwrap();
    fs::write(folder.path().join("acl"), "topic a/#/b\ntopik a\n").unwrap();
    let certs = CertificatesOptions {
        folder: folder.path().join("certs"),
        ..CertificatesOptions::default()
    };
    make(&certs).unwrap();
    let layers = Layers::new(Some(file), Vec::new()).with_certificates();
    let problems = without_folder(&load(&layers).expect_err("everything in it is wrong"), &folder);
    for expected in EXPECTED {
        let (place, parts) = expected.split_once(' ').unwrap();
        let is_it = |problem: &&String| {
            problem.starts_with(&format!("{place}: ")) && parts.split(" … ").all(|part| problem.contains(part))
        };
        assert!(
            problems.iter().any(|problem| is_it(&problem)),
            "{expected} is not in {problems:#?}"
        );
    }
    assert_eq!(problems.len(), EXPECTED.len(), "{problems:#?}");
}

/// Place, what it begins with, and what it has.
#[rustfmt::skip]
const EXPECTED: &[&str] = &[
    r#"acl:1:1 error: the topic "a/#/b" has a # that is not its whole last level"#,
    r#"acl:2:1 error: "topik" is not known, expected user, topic or pattern"#,
    "sundew.toml:1:1 error: unknown key listner (did you mean listeners?)",
    "sundew.toml:2:1 error: unknown key max_queued_mesages (did you mean queue.messages_max?)",
    "sundew.toml:6:1 error: unknown key listeners[0].adress (did you mean address?)",
    "sundew.toml:7:1 error: listeners[0].address[0]: expected an address with a port suc",
    r#"sundew.toml:8:1 error: listeners[0].protocol: expected "mqtt" or "websocket", found … (did you mean "websocket"?)"#,
    r#"sundew.toml:9:21 error: listeners[0].allowed_versions[0]: expected "3.1", "3.1.1" or … (did you mean "5.0"?)"#,
    r#"sundew.toml:9:26 error: listeners[0].allowed_versions[1]: expected "3.1", "3.1.1" or"#,
    r#"sundew.toml:10:1 error: listeners[0].tcp_keepalive: expected a duration such as "30s"#,
    "sundew.toml:11:1 error: listeners[0].maximum_qos: 3 is out of range, expected 0 to 2",
    r#"sundew.toml:18:1 error: listeners[1].tls.key: the key "certs/client.key" does not be"#,
    r#"sundew.toml:19:1 error: listeners[1].tls.client_ca: "certs/server.key" has no certif"#,
    r#"sundew.toml:20:1 error: listeners[1].tls.client_certificate: expected "none", "optio … (did you mean "required"?)"#,
    "sundew.toml:21:1 error: listeners[1].tls.client_crl: cannot read none.crl: No such f",
    "sundew.toml:22:1 error: unknown key listeners[1].tls.version_mim (did you mean version_min?)",
    "sundew.toml:23:16 error: unknown key listeners[1].tls.certificats (did you mean certificates?)",
    r#"sundew.toml:26:1 error: listeners[2].name: another listener is called "secure" too"#,
    "sundew.toml:27:1 error: listeners[2].address: 127.0.0.1:8883 is the address of liste",
    "sundew.toml:28:11 error: listeners[2].websocket.path: this listener speaks mqtt, add ",
    "sundew.toml:28:11 error: listeners[2].websocket.path: a path begins with /",
    "sundew.toml:29:1 error: listeners[2].proxy_protocol: nobody is trusted, add trusted ",
    "sundew.toml:29:16 error: unknown key listeners[2].proxy_protocol.trustd (did you mean … (did you mean trusted?)",
    r#"sundew.toml:32:1 error: auth.allow_anonymous: expected true, false, "loopback" or "a … (did you mean "loopback"?)"#,
    "sundew.toml:35:1 error: auth.hashing_threads: 100 is out of range, expected 1 to 64",
    r#"sundew.toml:36:1 error: auth.wide_subscriptions: expected "refuse", "narrow" or "gra … (did you mean "narrow"?)"#,
    "sundew.toml:37:1 error: auth.groups: expected a section of names, each with a text, ",
    r#"sundew.toml:39:1 error: auth.rules[0]: it has no effect, add effect = "allow" or "deny""#,
    "sundew.toml:40:1 error: unknown key auth.rules[0].efect (did you mean effect?)",
    r#"sundew.toml:41:11 error: auth.rules[0].topics[0]: "a/#/b" has a # that is not its who"#,
    r#"sundew.toml:42:1 error: auth.rules[0].groups: there is no "stuff""#,
    r#"sundew.toml:43:1 error: auth.rules[0].listeners: there is no "frnt" (did you mean "front"?)"#,
    "sundew.toml:44:14 error: auth.rules[0].addresses[0]: expected an address or a block o",
    r#"sundew.toml:45:23 error: auth.rules[0].actions[1]: expected "publish", "subscribe" or … (did you mean "subscribe"?)"#,
    "sundew.toml:47:1 warning: auth.jwt[0]: every token that these keys have signed lets it",
    "sundew.toml:48:1 error: unknown key auth.jwt[0].isuer (did you mean issuer?)",
    r#"sundew.toml:49:1 error: auth.jwt[0].jwks_url: "ftp://h": it begins with neither http"#,
    "sundew.toml:52:1 error: auth.http[0].connect_url: there is no ${usrname} (did you me … (did you mean ${username}?)",
    "sundew.toml:53:1 error: unknown key auth.http[0].headrs (did you mean headers?)",
    "sundew.toml:56:1 error: unknown key limits.max_packet_sise (did you mean limits.pack … (did you mean limits.packet_bytes_max?)",
    r#"sundew.toml:57:1 error: limits.packet_bytes_max: expected a size such as "32MiB", fo"#,
    r#"sundew.toml:58:1 error: limits.sessions_max: expected a number or "unlimited", found … (did you mean "unlimited"?)"#,
    r#"sundew.toml:59:1 error: limits.subscriptions_max: expected a number or "unlimited", found -1"#,
    r#"sundew.toml:62:1 error: queue.policy: expected "refuse", "drop_oldest", "drop_newest … (did you mean "drop_oldest"?)"#,
    "sundew.toml:65:1 error: unknown key storage.snyc (did you mean sync?)",
    r#"sundew.toml:66:1 error: storage.sync: expected "always", "interval" or "os", found " … (did you mean "always"?)"#,
    r#"sundew.toml:69:1 error: log.target: "file" needs the path of the file, add log.file "#,
    r#"sundew.toml:70:1 error: log.level: expected "error", "warn", "info", "debug", or suc … (did you mean "info"?)"#,
    "users:1:1 error: expected USER:HASH; `sundew user add` writes such lines",
    r#"users:2:1 error: user "bob": the password is not hashed; write the line with "#,
];
