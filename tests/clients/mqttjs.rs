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

/// By SCRAM as `talk_scram.mjs` has it from the text of the RFC, with the cryptography of Node.
#[test]
fn mqtt_js_proves_a_password_and_proves_it_again() {
    let configuration =
        "[[listeners]]\nname = \"plain\"\naddress = [\"127.0.0.1:0\"]\n[auth]\npassword_file = \"users\"\n";
    // The user of RFC 7677 section 3, whose password is `pencil`.
    let user = "user:$scram-sha-256$4096$W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=$wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU= $scram-sha-512$4096$W22ZaJ0SNY7soEsUEjb6gQ==$6AAub3065EYRmyFpM2RNwqK+eGnrkYuEWbXn19LsEmBqzu8QaCXNc1FwpnX9NhH2hK/60dzj9DoO5DvVkOHbvg==$jZHbYjC1aHh0/hKbxyBuGFjDrgjgKTT1esA7awWiKcRZ0o/0b1yWEebBeSVkkCFewf91nLDfKF24mvD5nmE6rA==\n";
    let program = Program::serve_with(configuration, &[("users", user)]);
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/talk_scram.mjs");
    let mut command = Command::new("node");
    command.arg(script).arg(installed("node_modules/mqtt"));
    command.arg(program.port("plain").to_string());
    let lines = Running::start(&mut command).finish();
    assert_eq!(lines.last().map(String::as_str), Some("all good"), "{lines:?}");
}
