//! Publishes and subscribes from inside the program that the broker is part of, without a socket.
//!
//! `cargo run --example publish_subscribe`
#![allow(clippy::print_stdout, reason = "an example shows what happens")]

use sundew::broker::Parts;
use sundew::client::{ClientOptions, Event, Outgoing};
use sundew::protocol::packet::SubscriptionOptions;
use sundew::protocol::property::Properties;
use sundew::protocol::qos::QoS;
use sundew::server::{Server, ServerOptions};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // No listener: only this program is served. Add one, and devices meet it here.
    let options = ServerOptions {
        listeners: Vec::new(),
        ..ServerOptions::default()
    };
    let server = Server::start(options, Parts::default())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(talk(&server))?;
    server.stop();
    Ok(())
}

async fn talk(server: &Server) -> Result<(), Box<dyn std::error::Error>> {
    let mut subscriber = server.connect(ClientOptions::default());
    subscriber.connected().await?;
    let wish = SubscriptionOptions {
        qos: QoS::ExactlyOnce,
        ..SubscriptionOptions::default()
    };
    subscriber.subscribe(&[("greetings/#", wish)], Properties::EMPTY)?;
    // Only then is the subscription there.
    while !matches!(subscriber.next_event().await?, Event::Subscribed(..)) {}

    let mut publisher = server.connect(ClientOptions::default());
    for (topic, text) in [("greetings/en", "hello"), ("greetings/fr", "bonjour")] {
        publisher.publish(Outgoing::new(topic, text).qos(QoS::ExactlyOnce))?;
    }
    publisher.finish().await?; // every message has arrived at the broker

    let mut left = 2;
    while left > 0 {
        if let Event::Message(message) = subscriber.next_event().await? {
            println!("{}: {}", message.topic, String::from_utf8_lossy(&message.payload));
            left -= 1;
        }
    }
    Ok(subscriber.finish().await?)
}
