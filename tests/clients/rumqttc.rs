//! rumqttc, the Rust client, in both of its halves: 3.1.1 and 5.0.

use std::time::Duration;

use rumqttc::v5::mqttbytes::v5::Packet as Packet5;
use rumqttc::v5::{Client as Client5, Connection as Connection5, Event as Event5, MqttOptions as Options5};
use rumqttc::{Client, Connection, Event, MqttOptions, Packet, QoS};

use crate::program::{PATIENCE, Program};

#[test]
fn rumqttc_of_3_1_1_publishes_and_subscribes() {
    let program = Program::start();
    let (client, mut connection) = connect(&program, "rumqttc", true);
    client.subscribe("a/+", QoS::ExactlyOnce).unwrap();
    until(&mut connection, |packet| {
        matches!(packet, Packet::SubAck(_)).then_some(())
    });
    for (number, qos) in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce]
        .into_iter()
        .enumerate()
    {
        client.publish("a/b", qos, false, vec![number as u8; 3_000]).unwrap();
        let message = until(&mut connection, |packet| match packet {
            Packet::Publish(message) => Some(message),
            _ => None,
        });
        assert_eq!(
            (message.topic.as_str(), message.qos, message.payload.len()),
            ("a/b", qos, 3_000)
        );
    }
}

#[test]
fn rumqttc_of_3_1_1_finds_its_session_again() {
    let program = Program::start();
    let (client, mut connection) = connect(&program, "lasting", false);
    client.subscribe("queue", QoS::AtLeastOnce).unwrap();
    until(&mut connection, |packet| {
        matches!(packet, Packet::SubAck(_)).then_some(())
    });
    drop((client, connection)); // without a DISCONNECT
    let (publisher, mut publishing) = connect(&program, "publisher", true);
    for number in 0..10 {
        publisher
            .publish("queue", QoS::AtLeastOnce, false, vec![number])
            .unwrap();
        until(&mut publishing, |packet| {
            matches!(packet, Packet::PubAck(_)).then_some(())
        });
    }
    let (_client, mut connection) = connect(&program, "lasting", false);
    for number in 0..10 {
        let payload = until(&mut connection, |packet| match packet {
            Packet::Publish(message) => Some(message.payload),
            _ => None,
        });
        assert_eq!(&payload[..], [number]);
    }
}

#[test]
fn rumqttc_of_5_publishes_and_subscribes() {
    use rumqttc::v5::mqttbytes::QoS;
    let program = Program::start();
    let mut options = Options5::new("rumqttc", "127.0.0.1", program.port("plain"));
    options.set_keep_alive(Duration::from_secs(30));
    let (client, mut connection) = Client5::new(options, 50);
    client.subscribe("a/+", QoS::ExactlyOnce).unwrap();
    until5(&mut connection, |packet| {
        matches!(packet, Packet5::SubAck(_)).then_some(())
    });
    for (number, qos) in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce]
        .into_iter()
        .enumerate()
    {
        client.publish("a/b", qos, false, vec![number as u8; 3_000]).unwrap();
        let message = until5(&mut connection, |packet| match packet {
            Packet5::Publish(message) => Some(message),
            _ => None,
        });
        assert_eq!(
            (&message.topic[..], message.qos, message.payload.len()),
            (&b"a/b"[..], qos, 3_000)
        );
    }
}

fn connect(program: &Program, client_id: &str, clean: bool) -> (Client, Connection) {
    let mut options = MqttOptions::new(client_id, "127.0.0.1", program.port("plain"));
    options.set_clean_session(clean).set_keep_alive(Duration::from_secs(30));
    Client::new(options, 50)
}

/// Drives the connection until a packet comes that `pick` wants.
fn until<T>(connection: &mut Connection, pick: impl Fn(Packet) -> Option<T>) -> T {
    loop {
        let event = connection
            .recv_timeout(PATIENCE)
            .expect("a packet in time")
            .expect("a connection");
        if let Event::Incoming(packet) = event
            && let Some(found) = pick(packet)
        {
            return found;
        }
    }
}

fn until5<T>(connection: &mut Connection5, pick: impl Fn(Packet5) -> Option<T>) -> T {
    loop {
        let event = connection
            .recv_timeout(PATIENCE)
            .expect("a packet in time")
            .expect("a connection");
        if let Event5::Incoming(packet) = event
            && let Some(found) = pick(packet)
        {
            return found;
        }
    }
}
