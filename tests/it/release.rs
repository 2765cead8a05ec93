//! `mqtt.qos2_delivery = "release"`: messages at QoS 2 go to their receivers at PUBREL, and are the publisher's until then.

use std::path::Path;

use sundew::broker::{Parts, Qos2Delivery};
use sundew::protocol::version::Version;
use sundew::server::ServerOptions;

use crate::broker::{ALL, BEFORE_5, BOTH, Broker, V5, story_with};
use crate::client::Client;
use crate::wire::{self, Connect, PUBCOMP, PUBREC, PUBREL, Publish};

fn at_release(options: &mut ServerOptions, _: &mut Parts) {
    options.broker.qos2_delivery = Qos2Delivery::Release;
}

/// Sends a message at QoS 2 and waits until the broker has it.
fn begin(publisher: &mut Client, message: &Publish) {
    publisher.send(&message.encode(publisher.version()));
    assert_eq!(publisher.await_ack(PUBREC, message.packet_id).reason, 0);
}

fn release(publisher: &mut Client, id: u16) {
    publisher.send(&wire::ack(PUBREL, id));
    assert_eq!(publisher.await_ack(PUBCOMP, id).reason, 0);
}

/// [MQTT-4.3.3-10] [MQTT311-4.3.3-2]
#[test]
fn a_message_arrives_when_it_is_released_and_once() {
    story_with(at_release, ALL, |broker, version| {
        let mut subscriber = broker.client("s", version);
        subscriber.subscribe("a", 2);
        let mut publisher = broker.client("p", version);
        let messages = [1, 2].map(|id| Publish::new("a", id.to_string(), 2).id(id));
        for message in &messages {
            begin(&mut publisher, message);
            begin(&mut publisher, &message.clone().again());
        }
        publisher.expect_nothing_sent_to(&mut subscriber);
        for id in [1, 2, 1] {
            release(&mut publisher, id);
        }
        let first = subscriber.expect_text("a", "1");
        assert_eq!((first.qos, first.dup, first.retain), (2, false, false));
        subscriber.expect_text("a", "2");
        publisher.expect_nothing_sent_to(&mut subscriber);
        // What is not acknowledged twice has no other way than before.
        publisher.publish(Publish::new("a", "soon", 1));
        subscriber.expect_text("a", "soon");
    });
}

/// A client that has lost its place begins anew with an identifier: what it would release is the later message.
#[test]
fn an_identifier_that_is_not_a_repetition_has_the_later_message() {
    story_with(at_release, BOTH, |broker, version| {
        let mut subscriber = broker.client("s", version);
        subscriber.subscribe("#", 2);
        let mut publisher = broker.client("p", version);
        begin(&mut publisher, &Publish::new("a", "forgotten", 2).id(7));
        begin(&mut publisher, &Publish::new("b", "meant", 2).id(7));
        release(&mut publisher, 7);
        subscriber.expect_text("b", "meant");
        publisher.expect_nothing_sent_to(&mut subscriber);
    });
}

#[test]
fn what_a_session_has_not_released_ends_with_it_and_outlives_its_connection() {
    story_with(at_release, BOTH, |broker, version| {
        let mut subscriber = broker.client("s", version);
        subscriber.subscribe("a", 2);
        let lasting = Connect::lasting("p", version);
        let (mut publisher, _) = broker.connect(version, &lasting);
        begin(&mut publisher, &Publish::new("a", "kept", 2).id(1));
        drop(publisher);
        let (mut publisher, is_present) = broker.connect(version, &lasting);
        assert!(is_present);
        begin(&mut publisher, &Publish::new("a", "kept", 2).id(1).again());
        release(&mut publisher, 1);
        subscriber.expect_text("a", "kept");
        begin(&mut publisher, &Publish::new("a", "gone", 2).id(2));
        let mut publisher = broker.client("p", version);
        release(&mut publisher, 2);
        publisher.expect_nothing_sent_to(&mut subscriber);
    });
}

/// [MQTT-3.3.2-5]
#[test]
fn a_message_that_expires_before_it_is_released_is_not_delivered() {
    story_with(at_release, V5, |broker, version| {
        let mut subscriber = broker.client("s", version);
        subscriber.subscribe("a", 2);
        let mut publisher = broker.client("p", version);
        let expiry = sundew::protocol::property::PropertyId::MessageExpiryInterval;
        for (id, seconds) in [(1, 0), (2, 100)] {
            let message = Publish::new("a", seconds.to_string(), 2).id(id);
            begin(&mut publisher, &message.with(|p| p.push_u32(expiry, seconds)));
        }
        release(&mut publisher, 1);
        release(&mut publisher, 2);
        subscriber.expect_text("a", "100");
    });
}

fn with_little_room(options: &mut ServerOptions, parts: &mut Parts) {
    at_release(options, parts);
    options.broker.delivery.outbox.unstored_bytes_max = 10_000;
}

#[test]
fn what_waits_for_its_release_has_a_bound() {
    let half = || Publish::new("a", [b'x'; 4500], 2);
    story_with(with_little_room, V5, |broker, version| {
        let mut publisher = broker.client("p", version);
        begin(&mut publisher, &half().id(1));
        begin(&mut publisher, &half().id(2));
        publisher.send(&half().id(3).encode(version));
        assert_eq!(publisher.await_ack(PUBREC, 3).reason, 0x97);
        release(&mut publisher, 1);
        begin(&mut publisher, &half().id(3));
        release(&mut publisher, 2);
        release(&mut publisher, 3);
    });
    story_with(with_little_room, BEFORE_5, |broker, version| {
        let mut publisher = broker.client("p", version);
        begin(&mut publisher, &half().id(1));
        begin(&mut publisher, &half().id(2));
        publisher.send(&half().id(3).encode(version));
        publisher.expect_closed();
    });
}

fn keeping(directory: &Path, delivery: Qos2Delivery) -> Broker {
    Broker::keeping(directory, |options| options.broker.qos2_delivery = delivery)
}

/// Over a stop, of which a snapshot is left, and over an end without one, of which the log is left.
fn end(broker: Broker, is_stopped: bool) {
    if is_stopped {
        assert!(broker.server.stop());
    }
}

/// A message, its publisher and its receiver, over two ends of the broker.
fn tell_over_restarts(version: Version, is_stopped: bool, later: Qos2Delivery) {
    let folder = tempfile::tempdir().unwrap();
    let [publishing, receiving] = ["p", "s"].map(|id| Connect::lasting(id, version));
    let broker = keeping(folder.path(), Qos2Delivery::Release);
    broker.connect(version, &receiving).0.subscribe("a", 2);
    let (mut publisher, _) = broker.connect(version, &publishing);
    for (id, payload) in [(1, "one"), (2, "two"), (3, "given up"), (3, "three")] {
        begin(&mut publisher, &Publish::new("a", payload, 2).id(id));
    }
    release(&mut publisher, 1);
    end(broker, is_stopped);

    let broker = keeping(folder.path(), later);
    let (mut subscriber, is_present) = broker.connect(version, &receiving);
    assert!(is_present);
    subscriber.expect_text("a", "one");
    let (mut publisher, is_present) = broker.connect(version, &publishing);
    assert!(is_present);
    begin(&mut publisher, &Publish::new("a", "two", 2).id(2).again());
    publisher.expect_nothing_sent_to(&mut subscriber);
    release(&mut publisher, 2);
    release(&mut publisher, 3);
    subscriber.expect_text("a", "two");
    subscriber.expect_text("a", "three");
    subscriber.expect_ping_answered();
    end(broker, is_stopped);

    let broker = keeping(folder.path(), later);
    let (mut subscriber, _) = broker.connect(version, &receiving);
    let (mut publisher, _) = broker.connect(version, &publishing);
    for id in 1..=3 {
        release(&mut publisher, id);
    }
    publisher.expect_nothing_sent_to(&mut subscriber);
}

#[test]
fn what_is_not_released_survives_the_end_of_the_broker() {
    for version in BOTH {
        for is_stopped in [true, false] {
            tell_over_restarts(*version, is_stopped, Qos2Delivery::Release);
        }
    }
}

/// What was accepted to be released is released, whatever the option says now.
#[test]
fn what_is_not_released_survives_a_change_of_the_option() {
    tell_over_restarts(Version::V5, true, Qos2Delivery::Publish);
}
