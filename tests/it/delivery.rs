//! What happens when somebody does not keep up: bounded queues, who loses what, and who does not notice.

use sundew::delivery::outbox::Overflow;
use sundew::protocol::property::PropertyId;
use sundew::server::ServerOptions;

use crate::broker::{BEFORE_5, BOTH, Broker, V5, story, story_with};
use crate::client::Client;
use crate::wire::{self, Connect, PUBACK, Packet, Publish};
use sundew::protocol::version::Version;

fn short_queue(overflow: Overflow) -> impl Fn(&mut ServerOptions, &mut sundew::broker::Parts) {
    move |options, _| {
        options.broker.delivery.outbox.messages_max = 10;
        options.broker.delivery.outbox.overflow = overflow;
    }
}

/// A publisher whose message nobody could take is told, and what was acknowledged arrives. Where the receiver sits on another
/// worker, its queue may be seen as full a little late: never is a message acknowledged and then dropped.
#[test]
fn a_message_that_no_receiver_can_take_is_refused_truthfully() {
    story_with(short_queue(Overflow::Refuse), V5, |broker, version| {
        let keep = absent_subscriber(broker, version, "s");
        let mut publisher = broker.client("p", version);
        let (mut accepted, mut refused) = (Vec::new(), 0);
        for number in 0..500 {
            let reason = publisher.try_publish(Publish::new("a", number.to_string(), 1 + number as u8 % 2));
            match reason {
                0 => accepted.push(number),
                0x97 => refused += 1,
                other => panic!("{other:#x}"),
            }
        }
        assert!(
            accepted.len() >= 10 && refused > 0,
            "{} accepted, {refused} refused",
            accepted.len()
        );
        let (mut subscriber, _) = broker.connect(version, &keep);
        for number in accepted {
            subscriber.expect_text("a", &number.to_string());
        }
        broker.client("q", version).expect_nothing_sent_to(&mut subscriber);
    });
}

/// Before 5.0 a refusal has no words: the connection ends, and the publisher knows that it was not acknowledged.
#[test]
fn before_5_a_message_that_nobody_can_take_is_not_acknowledged() {
    story_with(short_queue(Overflow::Refuse), BEFORE_5, |broker, version| {
        absent_subscriber(broker, version, "s");
        let mut publisher = broker.client("p", version);
        let mut accepted = 0;
        for id in 1..500 {
            publisher.send_lossy(&Publish::new("a", "x", 1).id(id).encode(version));
            match publisher.receive_unless_closed() {
                Some(Packet::PubAck(_)) => accepted += 1,
                Some(other) => panic!("{other:?}"),
                None => break,
            }
        }
        assert!((10..499).contains(&accepted), "{accepted}");
    });
}

/// [MQTT-4.3.3-9]
#[test]
fn the_identifier_of_a_refused_qos_2_message_is_free() {
    story_with(short_queue(Overflow::Refuse), V5, |broker, version| {
        let keep = absent_subscriber(broker, version, "s");
        let mut publisher = broker.client("p", version);
        let mut accepted = 0;
        while publisher.try_publish(Publish::new("a", "x", 1)) == 0 {
            accepted += 1;
        }
        let message = Publish::new("a", "new", 2).id(50_000);
        publisher.send(&message.encode(version));
        assert_eq!(publisher.await_ack(wire::PUBREC, 50_000).reason, 0x97);
        let (mut subscriber, _) = broker.connect(version, &keep);
        for _ in 0..accepted {
            subscriber.expect_text("a", "x");
        }
        subscriber.expect_ping_answered();
        publisher.send(&message.encode(version));
        assert_eq!(publisher.await_ack(wire::PUBREC, 50_000).reason, 0);
        publisher.send(&wire::ack(wire::PUBREL, 50_000));
        publisher.await_ack(wire::PUBCOMP, 50_000);
        while subscriber.expect_message().payload != b"new" {}
    });
}

/// Where one receiver has room, the publisher is not punished for the other.
#[test]
fn a_full_queue_does_not_take_from_others() {
    story_with(short_queue(Overflow::Refuse), BOTH, |broker, version| {
        absent_subscriber(broker, version, "absent");
        let mut present = broker.client("present", version);
        present.subscribe("a", 1);
        let mut publisher = broker.client("p", version);
        for number in 0..40 {
            publisher.publish(Publish::new("a", number.to_string(), 1));
            present.expect_text("a", &number.to_string());
        }
    });
}

/// QoS 0 to a full queue costs nobody the connection.
#[test]
fn a_qos_0_publisher_is_not_punished_for_a_full_queue() {
    story_with(short_queue(Overflow::Refuse), BOTH, |broker, version| {
        absent_subscriber(broker, version, "s");
        let mut publisher = broker.client("p", version);
        for _ in 0..50 {
            publisher.publish(Publish::new("a", "x", 0));
        }
        publisher.expect_ping_answered();
    });
}

/// The policies that drop, by their names.
#[test]
fn dropping_policies_drop_the_end_they_name() {
    for (overflow, expected) in [(Overflow::DropOldest, 15..25), (Overflow::DropNewest, 0..10)] {
        story_with(short_queue(overflow), BOTH, |broker, version| {
            let keep = absent_subscriber(broker, version, "s");
            let mut publisher = broker.client("p", version);
            for number in 0..25 {
                publisher.publish(Publish::new("a", number.to_string(), 1));
            }
            let (mut subscriber, _) = broker.connect(version, &keep);
            for number in expected.clone() {
                subscriber.expect_text("a", &number.to_string());
            }
            publisher.expect_nothing_sent_to(&mut subscriber);
        });
    }
}

/// One that does not read holds up nobody: neither the publisher nor another subscriber, and its own answers come.
#[test]
fn a_subscriber_that_does_not_read_delays_nobody() {
    story(BOTH, |broker, version| {
        let mut stuck = broker.client("stuck", version);
        stuck.subscribe("a", 0);
        let mut reader = broker.client("reader", version);
        reader.subscribe("a", 0);
        let mut publisher = broker.client("p", version);
        let payload = vec![b'x'; 100_000];
        for _ in 0..200 {
            publisher.publish(Publish::new("a", &payload, 0));
            assert_eq!(reader.expect_publish().payload.len(), payload.len());
        }
        publisher.expect_ping_answered();
        // It reads again, and is served: some of what it missed, whole packets, and the answer to what it asks.
        stuck.send(&wire::PINGREQ);
        while stuck.receive() != Packet::PingResp {}
        publisher.publish(Publish::new("a", "fresh", 1));
        while stuck.expect_publish().payload != b"fresh" {}
    });
}

/// Control packets are never dropped, however full the queue is.
#[test]
fn control_packets_get_through_a_full_queue() {
    story_with(short_queue(Overflow::Refuse), V5, |broker, version| {
        let connect = Connect::default().with(|p| p.push_u16(PropertyId::ReceiveMaximum, 1));
        let (mut subscriber, _) = broker.connect(version, &connect);
        subscriber.subscribe("a", 1);
        let mut publisher = broker.client("p", version);
        for _ in 0..30 {
            publisher.try_publish(Publish::new("a", "x", 1));
        }
        subscriber.expect_publish();
        subscriber.expect_ping_answered();
        assert_eq!(subscriber.subscribe("b", 1), 1);
        assert_eq!(subscriber.unsubscribe(&["b"]), [0]);
        subscriber.publish(Publish::new("c", "x", 2));
        subscriber.expect_ping_answered();
    });
}

/// QoS 0 flows past a window that is full, and does not wait for acknowledgements that do not come.
#[test]
fn qos_0_flows_past_a_full_window() {
    story_with(
        |options, _| options.broker.delivery.in_flight_max = 2,
        BOTH,
        |broker, version| {
            let mut subscriber = broker.client("s", version);
            subscriber.subscribe("#", 1);
            let mut publisher = broker.client("p", version);
            for number in 0..5 {
                publisher.publish(Publish::new("acknowledged", number.to_string(), 1));
            }
            let first = subscriber.expect_publish();
            subscriber.expect_publish();
            publisher.publish(Publish::new("not", "x", 0));
            assert_eq!(subscriber.expect_publish().topic, "not");
            subscriber.send(&wire::ack(PUBACK, first.packet_id));
            assert_eq!(subscriber.expect_publish().text(), "2");
        },
    );
}

/// What is retained is replayed as fast as the client acknowledges, and takes no place in its queue: none is dropped.
#[test]
fn retained_messages_are_replayed_under_flow_control_and_past_the_limit() {
    story_with(short_queue(Overflow::Refuse), V5, |broker, version| {
        const COUNT: usize = 1_000;
        let mut publisher = broker.client("p", version);
        for number in 0..COUNT {
            publisher.send(&Publish::new(&format!("r/{number}"), "x", 0).retained().encode(version));
        }
        publisher.publish(Publish::new("last", "x", 1));
        publisher.publish(Publish::new("r/last", "x", 2).retained());
        let connect = Connect::default().with(|p| p.push_u16(PropertyId::ReceiveMaximum, 2));
        let (mut subscriber, _) = broker.connect(version, &connect);
        subscriber.subscribe("r/#", 2);
        let mut topics = std::collections::HashSet::new();
        while topics.len() < COUNT + 1 {
            assert!(topics.insert(subscriber.expect_message().topic), "twice");
        }
        publisher.expect_nothing_sent_to(&mut subscriber);
    });
}

/// Many publishers into one subscriber: nothing of QoS 1 is lost, order per publisher.
#[test]
fn a_fan_in_keeps_every_publishers_order() {
    story(BOTH, |broker, version| {
        const EACH: usize = 150;
        let mut subscriber = broker.client("s", version);
        subscriber.subscribe("in/+", 1);
        let publishing: Vec<_> = (0..6)
            .map(|number| {
                let mut publisher = broker.client(&format!("p{number}"), version);
                std::thread::spawn(move || {
                    for sequence in 0..EACH {
                        publisher.publish(Publish::new(&format!("in/{number}"), sequence.to_string(), 1));
                    }
                })
            })
            .collect();
        let mut next = std::collections::HashMap::new();
        for _ in 0..6 * EACH {
            let message = subscriber.expect_message();
            let expected = next.entry(message.topic.clone()).or_insert(0_usize);
            assert_eq!(message.text(), expected.to_string(), "{}", message.topic);
            *expected += 1;
        }
        publishing.into_iter().for_each(|thread| thread.join().unwrap());
    });
}

/// A client whose session stays, subscribed to `a` and gone.
fn absent_subscriber(broker: &Broker, version: Version, client_id: &'static str) -> Connect<'static> {
    let keep = Connect::lasting(client_id, version);
    let (mut subscriber, _): (Client, _) = broker.connect(version, &keep);
    subscriber.subscribe("a", 2);
    subscriber.disconnect();
    keep
}
