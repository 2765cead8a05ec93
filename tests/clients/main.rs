//! Real clients that nobody here wrote, against the program `sundew`: mosquitto_pub and mosquitto_sub, paho-mqtt (Python),
//! MQTT.js (Node, over WebSocket) and rumqttc (Rust). `tests/run` installs those that are missing.

#![allow(clippy::disallowed_methods, reason = "a deadline is a time of the clock")]

mod migration;
mod mosquitto;
mod mqttjs;
mod operator;
mod paho;
mod program;
mod retained;
mod rumqttc;
