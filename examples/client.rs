//! A client of any broker: subscribes, prints what comes, and comes back when the connection is lost.
//!
//! `cargo run --example client -- 127.0.0.1 1883`
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "an example shows what happens")]

use sundew::client::{ClientOptions, Event};
use sundew::protocol::packet::SubscriptionOptions;
use sundew::protocol::property::{Properties, PropertiesBuf, PropertyId};
use sundew::transport::client_driver::{ClientDriver, Dialer, Reconnect};
use sundew::transport::client_stream::{ConnectOptions, Endpoint};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let endpoint = Endpoint::Tcp {
        host: arguments.next().unwrap_or_else(|| "localhost".to_owned()),
        port: arguments.next().map_or(Ok(1883), |port| port.parse())?,
    };
    // The broker keeps what comes while we are away, for an hour.
    let mut properties = PropertiesBuf::new();
    properties.push_u32(PropertyId::SessionExpiryInterval, 3600);
    let options = ClientOptions {
        properties,
        ..ClientOptions::default()
    };
    let dialer = Dialer::network(ConnectOptions::new(endpoint));
    let mut client = ClientDriver::new(dialer, options, Some(Reconnect::default()));
    loop {
        match client.next_event().await? {
            Event::Connected(connected) => {
                println!("connected as {}", connected.client_id);
                if !connected.session_present {
                    client.subscribe(&[("#", SubscriptionOptions::default())], Properties::EMPTY)?;
                }
            }
            Event::Message(message) => {
                println!("{}: {}", message.topic, String::from_utf8_lossy(&message.payload));
            }
            Event::Disconnected(fault) => eprintln!("{fault}; connecting again"),
            _ => {}
        }
    }
}
