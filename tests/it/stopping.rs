//! How a broker stops, and what programs that embed it can do.

use sundew::protocol::ids::ClientId;
use sundew::protocol::property::PropertyId;
use sundew::protocol::reason::ReasonCode;

use crate::broker::{BOTH, Broker, V5, story, story_with};
use crate::client::Client;
use crate::wire::{Connect, Packet, Publish, Will};

/// [MQTT-3.14.2-1]
#[test]
fn every_client_is_told_that_the_broker_stops() {
    for workers in [1, 4] {
        for version in sundew::protocol::version::Version::ALL {
            let broker = Broker::start(workers, |_, _| {});
            let mut clients: Vec<_> = (0..10)
                .map(|number| broker.client(&number.to_string(), version))
                .collect();
            let port = broker.port;
            let stopping = std::thread::spawn(move || broker.server.stop());
            for client in &mut clients {
                client.expect_disconnect(0x8B);
            }
            drop(clients);
            assert!(stopping.join().unwrap(), "all were gone in time");
            assert!(
                std::net::TcpStream::connect(("127.0.0.1", port)).is_err(),
                "nobody listens any more"
            );
        }
    }
}

/// Where to go instead, for a while or for good.
#[test]
fn clients_of_a_broker_that_moves_are_told_where() {
    for (is_for_good, code) in [(false, 0x9C), (true, 0x9D)] {
        let broker = Broker::start(4, |options, _| {
            options.broker.server_reference = Some("other.example:1883".into());
            options.broker.server_moved = is_for_good;
        });
        let version = sundew::protocol::version::Version::V5;
        let mut client = broker.client("c", version);
        let stopping = std::thread::spawn(move || broker.server.stop());
        let Packet::Disconnect { reason, properties } = client.receive() else {
            panic!("DISCONNECT")
        };
        assert_eq!(reason, code);
        assert_eq!(
            properties.view().text(PropertyId::ServerReference),
            Some("other.example:1883")
        );
        drop(client);
        stopping.join().unwrap();
    }
}

/// What was acknowledged before the stop has been delivered to who was there.
#[test]
fn what_was_acknowledged_is_delivered_before_the_end() {
    for workers in [1, 4] {
        let version = sundew::protocol::version::Version::V5;
        let broker = Broker::start(workers, |_, _| {});
        let mut subscriber = broker.client("s", version);
        subscriber.subscribe("a", 0);
        let mut publisher = broker.client("p", version);
        for _ in 0..50 {
            publisher.publish(Publish::new("a", "x", 1));
        }
        let stopping = std::thread::spawn(move || broker.server.stop());
        for _ in 0..50 {
            subscriber.expect_text("a", "x");
        }
        subscriber.expect_disconnect(0x8B);
        drop((subscriber, publisher));
        stopping.join().unwrap();
    }
}

/// A program throws a client out.
#[test]
fn a_program_can_disconnect_a_client_and_publish() {
    story(BOTH, |broker, version| {
        let mut client = broker.client("c", version);
        client.subscribe("a", 1);
        let message = sundew::protocol::message::Publication {
            topic: sundew::protocol::topic::TopicName::parse("a").unwrap(),
            payload: b"from inside",
            qos: sundew::protocol::qos::QoS::AtLeastOnce,
            retain: false,
            properties: Default::default(),
            expires_at: None,
            publisher: None,
            source: None,
        };
        broker.server.publish(message.to_message());
        client.expect_text("a", "from inside");
        assert!(
            !broker
                .server
                .disconnect(&ClientId::new("nobody"), ReasonCode::AdministrativeAction)
        );
        assert!(
            broker
                .server
                .disconnect(&ClientId::new("c"), ReasonCode::AdministrativeAction)
        );
        client.expect_disconnect(0x98);
    });
}

/// The will of a client that is thrown out is published: it did not say good-bye.
#[test]
fn the_will_of_a_client_that_is_thrown_out_is_published() {
    story_with(
        |_, _| {},
        V5,
        |broker, version| {
            let mut witness = broker.client("w", version);
            witness.subscribe("will", 0);
            let will = Some(Will {
                topic: "will",
                payload: b"gone",
                ..Will::default()
            });
            let (mut client, _): (Client, _) = broker.connect(
                version,
                &Connect {
                    will,
                    ..Connect::default()
                },
            );
            broker
                .server
                .disconnect(&ClientId::new("c"), ReasonCode::AdministrativeAction);
            client.expect_disconnect(0x98);
            witness.expect_text("will", "gone");
        },
    );
}
