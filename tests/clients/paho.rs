//! paho-mqtt for Python: `talk_paho.py` does the talking, and `talk_paho_secured.py` where nobody enters as he likes.

use std::process::Command;

use jsonwebtoken::{EncodingKey, Header, encode, get_current_timestamp};

use crate::mosquitto::USERS;
use crate::program::{Program, Running, installed};

#[test]
fn paho_is_served_over_tcp_tls_and_websocket() {
    let program = Program::start();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/talk_paho.py");
    let mut command = Command::new(installed("venv/bin/python"));
    command
        .arg(script)
        .arg(program.port("plain").to_string())
        .arg(program.port("websocket").to_string());
    command
        .arg(program.port("tls").to_string())
        .arg(program.certificate("ca.pem"));
    let lines = Running::start(&mut command).finish();
    assert_eq!(lines.last().map(String::as_str), Some("all good"), "{lines:?}");
}

/// Passwords, tokens and certificates, each on a listener of its own, and what is refused there.
const SECURED: &str = r#"
[[listeners]]
name = "passwords"
address = "127.0.0.1:0"
[listeners.tls]
certificate = "certs/server.pem"
key = "certs/server.key"

[[listeners]]
name = "wss"
address = "127.0.0.1:0"
protocol = "websocket"
[listeners.tls]
certificate = "certs/server.pem"
key = "certs/server.key"

[[listeners]]
name = "tokens"
address = "127.0.0.1:0"
[listeners.tls]
certificate = "certs/server.pem"
key = "certs/server.key"

[[listeners]]
name = "certificates"
address = "127.0.0.1:0"
[listeners.tls]
certificate = "certs/server.pem"
key = "certs/server.key"
client_ca = "certs/ca.pem"
client_certificate = "required"
user_name = "common_name"

[auth]
password_file = "users"

[[auth.rules]]
effect = "allow"
topics = ["%u/#"]

[[auth.jwt]]
secret_file = "secret"
listeners = ["tokens"]
"#;

#[test]
fn paho_comes_in_with_a_password_a_token_or_a_certificate() {
    let secret = "a secret of more than thirty-two bytes";
    let program = Program::serve_with(SECURED, &[("users", USERS), ("secret", secret)]);
    let token = |from_now: i64| {
        let claims = serde_json::json!({"sub": "alice", "exp": get_current_timestamp() as i64 + from_now});
        encode(
            &Header::default(),
            &claims,
            &EncodingKey::from_secret(secret.as_bytes()),
        )
        .unwrap()
    };
    let ports = ["passwords", "wss", "tokens", "certificates"].map(|name| format!("{name}={}", program.port(name)));
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/talk_paho_secured.py");
    let mut command = Command::new(installed("venv/bin/python"));
    command
        .arg(script)
        .arg(ports.join(","))
        .arg(program.folder().join("certs"));
    command.args([token(3600), token(-3600)]);
    let lines = Running::start(&mut command).finish();
    assert_eq!(lines.last().map(String::as_str), Some("all good"), "{lines:?}");
}
