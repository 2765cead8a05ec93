//! paho-mqtt for Python: `talk_paho.py` does the talking.

use std::process::Command;

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
