//! MQTT.js over WebSocket, as browsers use it: `talk_mqttjs.mjs` does the talking.

use std::process::Command;

use crate::program::{Program, Running, installed};

#[test]
fn mqtt_js_is_served_over_websocket_and_tcp() {
    let program = Program::start();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/talk_mqttjs.mjs");
    let mut command = Command::new("node");
    command.arg(script).arg(installed("node_modules/mqtt"));
    command
        .arg(program.port("websocket").to_string())
        .arg(program.port("plain").to_string());
    let lines = Running::start(&mut command).finish();
    assert_eq!(lines.last().map(String::as_str), Some("all good"), "{lines:?}");
}
