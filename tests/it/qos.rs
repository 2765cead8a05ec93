//! The three levels of delivery, both ways: acknowledgements, packet identifiers, DUP, order, flow control.

use sundew::protocol::property::{PropertiesBuf, PropertyId};

use crate::broker::{ALL, BOTH, V5, story};
use crate::wire::{self, Connect, PUBACK, PUBCOMP, PUBREC, PUBREL, Packet, Publish};

/// [MQTT-3.3.4-1] [MQTT-2.2.1-5] [MQTT-4.3.2-4] [MQTT-4.3.3-8] [MQTT-4.3.3-11] [MQTT-3.4.2-1] [MQTT-3.5.2-1] [MQTT-3.7.2-1]
/// [MQTT311-3.3.4-1] [MQTT311-2.3.1-6] [MQTT311-4.3.2-2] [MQTT311-4.3.3-2]
#[test]
fn a_publish_is_acknowledged_as_its_qos_asks() {
    story(ALL, |broker, version| {
        let mut client = broker.client("c", version);
        client.send(&Publish::new("a", "x", 0).encode(version));
        client.expect_ping_answered();
        for id in [1, 2, 0x1234, u16::MAX] {
            client.send(&Publish::new("a", "x", 1).id(id).encode(version));
            let Packet::PubAck(ack) = client.receive() else {
                panic!("PUBACK")
            };
            assert_eq!(ack.packet_id, id);
            client.send(&Publish::new("a", "x", 2).id(id).encode(version));
            let Packet::PubRec(ack) = client.receive() else {
                panic!("PUBREC")
            };
            assert_eq!(ack.packet_id, id);
            client.send(&wire::ack(PUBREL, id));
            let Packet::PubComp(ack) = client.receive() else {
                panic!("PUBCOMP")
            };
            assert_eq!((ack.packet_id, ack.reason), (id, 0));
        }
        client.expect_ping_answered();
    });
}

/// [MQTT-3.8.4-8] [MQTT-2.2.1-2] [MQTT-3.3.1-2] [MQTT-4.3.1-1] [MQTT-4.3.2-2] [MQTT-4.3.3-2] [MQTT-3.6.2-1]
/// [MQTT311-3.8.4-6] [MQTT311-2.3.1-5] [MQTT311-3.3.1-2] [MQTT311-4.3.1-1] [MQTT311-4.3.2-1] [MQTT311-4.3.3-1]
#[test]
fn a_message_arrives_at_the_lower_of_both_qos() {
    story(ALL, |broker, version| {
        let mut publisher = broker.client("p", version);
        for granted in 0..3 {
            let mut subscriber = broker.client(&format!("s{granted}"), version);
            assert_eq!(subscriber.subscribe("a", granted), granted);
            for published in 0..3 {
                publisher.publish(Publish::new("a", "x", published));
                let message = subscriber.expect_text("a", "x");
                assert_eq!(
                    (message.qos, message.dup, message.retain),
                    (published.min(granted), false, false)
                );
            }
            subscriber.expect_ping_answered();
        }
    });
}

/// [MQTT-2.2.1-4] [MQTT-4.3.2-1] [MQTT-4.3.3-1] [MQTT311-2.3.1-4] [MQTT311-2.3.1-2]
#[test]
fn messages_in_flight_have_identifiers_of_their_own_and_identifiers_are_used_again() {
    story(BOTH, |broker, version| {
        let mut subscriber = broker.client("s", version);
        subscriber.subscribe("a", 2);
        let mut publisher = broker.client("p", version);
        for _ in 0..20 {
            for number in 0..10 {
                publisher.publish(Publish::new("a", number.to_string(), 1 + number % 2));
            }
            let messages: Vec<_> = (0..10).map(|_| subscriber.expect_publish()).collect();
            let mut ids: Vec<_> = messages.iter().map(|message| message.packet_id).collect();
            ids.sort_unstable();
            ids.dedup();
            assert_eq!(ids.len(), 10, "one identifier twice among the unacknowledged");
            for message in messages {
                let id = message.packet_id;
                if message.qos == 1 {
                    subscriber.send(&wire::ack(PUBACK, id));
                    continue;
                }
                subscriber.send(&wire::ack(PUBREC, id));
                subscriber.await_ack(PUBREL, id);
                subscriber.send(&wire::ack(PUBCOMP, id));
            }
        }
    });
}

/// [MQTT-4.3.2-5] [MQTT311-4.3.2-2]
#[test]
fn at_qos_1_the_same_identifier_is_a_new_message() {
    story(BOTH, |broker, version| {
        let mut subscriber = broker.client("s", version);
        subscriber.subscribe("a", 1);
        let mut publisher = broker.client("p", version);
        for message in [
            Publish::new("a", "x", 1),
            Publish::new("a", "x", 1),
            Publish::new("a", "x", 1).again(),
        ] {
            publisher.send(&message.id(9).encode(version));
            publisher.await_ack(PUBACK, 9);
            assert!(!subscriber.expect_text("a", "x").dup);
        }
    });
}

/// [MQTT-3.3.1-3] [MQTT311-3.3.1-3]
#[test]
fn the_dup_flag_is_not_passed_on() {
    story(BOTH, |broker, version| {
        let mut subscriber = broker.client("s", version);
        subscriber.subscribe("a", 2);
        let mut publisher = broker.client("p", version);
        for qos in [1, 2] {
            publisher.publish(Publish::new("a", "x", qos).again());
            assert!(!subscriber.expect_text("a", "x").dup);
        }
    });
}

/// [MQTT-4.3.3-10] [MQTT311-4.3.3-2]
#[test]
fn any_number_of_duplicates_before_the_pubrel_are_one_message() {
    story(BOTH, |broker, version| {
        let mut subscriber = broker.client("s", version);
        subscriber.subscribe("a", 2);
        let mut publisher = broker.client("p", version);
        let message = Publish::new("a", "once", 2).id(3);
        for _ in 0..5 {
            publisher.send(&message.clone().again().encode(version));
            assert_eq!(publisher.await_ack(PUBREC, 3).packet_id, 3);
        }
        publisher.send(&wire::ack(PUBREL, 3));
        publisher.await_ack(PUBCOMP, 3);
        subscriber.expect_text("a", "once");
        publisher.expect_nothing_sent_to(&mut subscriber);
    });
}

/// A PUBREL that nobody waits for is answered, never punished: real clients send it again after a reconnect. The answer is a
/// success: what the client wants, that the identifier is free, is so.
#[test]
fn an_unknown_pubrel_is_completed() {
    story(ALL, |broker, version| {
        let mut client = broker.client("c", version);
        client.send(&wire::ack(PUBREL, 77));
        let ack = client.await_ack(PUBCOMP, 77);
        assert_eq!(ack.reason, 0);
        client.expect_ping_answered();
    });
}

/// The same for acknowledgements of messages that the broker has not sent.
#[test]
fn unknown_acknowledgements_do_no_harm() {
    story(BOTH, |broker, version| {
        let mut client = broker.client("c", version);
        client.send(&[wire::ack(PUBACK, 5), wire::ack(PUBCOMP, 7)].concat());
        client.expect_ping_answered();
        client.send(&wire::ack(PUBREC, 6));
        let ack = client.await_ack(PUBREL, 6);
        assert!(matches!(ack.reason, 0 | 0x92));
        client.send(&wire::ack(PUBCOMP, 6));
        client.expect_ping_answered();
    });
}

/// [MQTT-4.6.0-2] [MQTT-4.6.0-3] [MQTT311-4.6.0-2] [MQTT311-4.6.0-3]
#[test]
fn acknowledgements_leave_in_the_order_of_the_messages() {
    story(BOTH, |broker, version| {
        let mut client = broker.client("c", version);
        let mut packets = Vec::new();
        for id in 1..=20_u16 {
            packets.extend(Publish::new("a", "x", 1 + (id % 2) as u8).id(id).encode(version));
        }
        client.send(&packets);
        for expected in 1..=20 {
            let (qos, ack) = match client.receive() {
                Packet::PubAck(ack) => (1, ack),
                Packet::PubRec(ack) => (2, ack),
                other => panic!("{other:?}"),
            };
            assert_eq!((qos, ack.packet_id), (1 + expected % 2, expected));
        }
    });
}

/// [MQTT-4.6.0-4] [MQTT311-4.6.0-4]
#[test]
fn pubrels_leave_in_the_order_of_the_pubrecs() {
    story(BOTH, |broker, version| {
        let mut subscriber = broker.client("s", version);
        subscriber.subscribe("a", 2);
        let mut publisher = broker.client("p", version);
        for number in 0..5 {
            publisher.publish(Publish::new("a", number.to_string(), 2));
        }
        let mut ids: Vec<_> = (0..5).map(|_| subscriber.expect_publish().packet_id).collect();
        ids.reverse();
        subscriber.send(&ids.iter().flat_map(|id| wire::ack(PUBREC, *id)).collect::<Vec<_>>());
        for id in ids {
            let Packet::PubRel(ack) = subscriber.receive() else {
                panic!("PUBREL")
            };
            assert_eq!(ack.packet_id, id);
        }
    });
}

/// [MQTT-4.6.0-5] [MQTT-4.6.0-6] [MQTT311-4.6.0-5] [MQTT311-4.6.0-6]
#[test]
fn messages_of_one_publisher_arrive_in_order_at_every_qos() {
    story(ALL, |broker, version| {
        const COUNT: usize = 300;
        for qos in 0..3 {
            let mut subscribers: Vec<_> = (0..4).map(|n| broker.client(&format!("s{qos}{n}"), version)).collect();
            for subscriber in &mut subscribers {
                subscriber.subscribe("a/+", qos);
            }
            let mut publisher = broker.client("p", version);
            let publishing = std::thread::spawn(move || {
                for number in 0..COUNT {
                    publisher.publish(Publish::new("a/b", number.to_string(), qos));
                }
                publisher
            });
            for subscriber in &mut subscribers {
                for number in 0..COUNT {
                    subscriber.expect_text("a/b", &number.to_string());
                }
            }
            drop(publishing.join().unwrap());
        }
    });
}

/// [MQTT-3.3.4-9] [MQTT-3.3.4-10] [MQTT-4.9.0-1] [MQTT-4.9.0-2] [MQTT-4.9.0-3]
#[test]
fn no_more_messages_are_in_flight_than_the_client_can_receive() {
    story(V5, |broker, version| {
        let connect = Connect::default().with(|p| p.push_u16(PropertyId::ReceiveMaximum, 3));
        let (mut subscriber, _) = broker.connect(version, &connect);
        subscriber.subscribe("a", 2);
        let mut publisher = broker.client("p", version);
        for number in 0..9 {
            publisher.publish(Publish::new("a", number.to_string(), 1 + number % 2));
        }
        let mut open: Vec<_> = (0..3).map(|_| subscriber.expect_publish()).collect();
        // The window is full: nothing more comes, but every other packet is answered and QoS 0 still flows.
        subscriber.expect_ping_answered();
        subscriber.subscribe("b", 0);
        publisher.publish(Publish::new("b", "qos 0", 0));
        assert_eq!(subscriber.expect_publish().topic, "b");
        let mut seen = 3;
        while let Some(message) = (!open.is_empty()).then(|| open.remove(0)) {
            let id = message.packet_id;
            if message.qos == 1 {
                subscriber.send(&wire::ack(PUBACK, id));
            } else {
                subscriber.send(&wire::ack(PUBREC, id));
                subscriber.await_ack(PUBREL, id);
                // PUBREC alone frees no place.
                subscriber.expect_ping_answered();
                subscriber.send(&wire::ack(PUBCOMP, id));
            }
            if seen < 9 {
                let next = subscriber.expect_publish();
                assert_eq!(next.text(), seen.to_string());
                open.push(next);
                seen += 1;
            }
            subscriber.expect_ping_answered();
        }
        assert_eq!(seen, 9);
    });
}

/// [MQTT-3.3.4-9]
#[test]
fn a_pubrec_with_an_error_frees_a_place() {
    story(V5, |broker, version| {
        let connect = Connect::default().with(|p| p.push_u16(PropertyId::ReceiveMaximum, 1));
        let (mut subscriber, _) = broker.connect(version, &connect);
        subscriber.subscribe("a", 2);
        let mut publisher = broker.client("p", version);
        for number in 0..4 {
            publisher.publish(Publish::new("a", number.to_string(), 2));
        }
        for number in 0..4 {
            let message = subscriber.expect_publish();
            assert_eq!(message.text(), number.to_string());
            subscriber.send(&wire::ack_with(PUBREC, message.packet_id, 0x80));
        }
        subscriber.expect_ping_answered();
    });
}

/// A Receive Maximum of zero is a protocol error.
#[test]
fn a_client_that_can_receive_nothing_is_refused() {
    story(V5, |broker, version| {
        let connect = Connect::default().with(|p| p.push_u16(PropertyId::ReceiveMaximum, 0));
        let mut client = broker.open(version);
        client.send(&connect.encode(version));
        match client.receive_unless_closed() {
            None => {}
            Some(Packet::ConnAck { reason: 0x82, .. }) => client.expect_closed(),
            Some(other) => panic!("{other:?}"),
        }
    });
}

/// What a client sends beyond the broker's Receive Maximum. [MQTT 5 section 3.3.4]
#[test]
fn more_messages_in_flight_than_the_broker_can_receive_end_the_connection() {
    story(V5, |broker, version| {
        let mut client = broker.open(version);
        let (_, _, properties) = client.try_connect(&Connect::default());
        let maximum = properties.view().u16(PropertyId::ReceiveMaximum).unwrap_or(u16::MAX);
        if maximum > 5_000 {
            return;
        }
        for id in 1..=maximum {
            client.send(&Publish::new("a", "x", 2).id(id).encode(version));
            client.await_ack(PUBREC, id);
        }
        client.expect_ping_answered();
        client.send(&Publish::new("a", "x", 2).id(maximum + 1).encode(version));
        client.expect_disconnect(0x93);
    });
}

/// [MQTT-2.2.1-3] [MQTT311-2.3.1-1]
#[test]
fn packet_identifier_zero_is_malformed() {
    story(BOTH, |broker, version| {
        for packet in [
            Publish::new("a", "x", 1).id(0).encode(version),
            Publish::new("a", "x", 2).id(0).encode(version),
            wire::subscribe(version, 0, &PropertiesBuf::new(), &[("a", 0)]),
            wire::unsubscribe(version, 0, &["a"]),
        ] {
            let mut client = broker.client("c", version);
            client.send(&packet);
            client.expect_disconnect_of(&[0x81, 0x82]);
        }
    });
}
