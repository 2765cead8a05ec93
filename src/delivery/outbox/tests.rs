//! Tests of the outbox.

use super::*;
use crate::session::delivery::tests::delivery_of as delivery;

fn options(messages_max: usize, overflow: Overflow) -> OutboxOptions {
    OutboxOptions {
        messages_max,
        overflow,
        ..OutboxOptions::default()
    }
}

#[test]
fn qos_0_drops_its_oldest_and_counts() {
    let options = options(2, Overflow::Refuse);
    let mut outbox = Outbox::default();
    for (payload, expected) in [
        (b"1", Offered::Queued),
        (b"2", Offered::Queued),
        (b"3", Offered::QueuedAfterDropping(1)),
    ] {
        assert_eq!(
            outbox.offer(delivery(QoS::AtMostOnce, payload), &options, &mut Vec::new()),
            expected
        );
    }
    assert_eq!(outbox.pop_unacknowledged().unwrap().message.payload(), b"2");
}

#[test]
fn qos_1_is_refused_at_the_bound_by_default_and_displaces_qos_0_before() {
    let options = options(2, Overflow::Refuse);
    let mut outbox = Outbox::default();
    assert_eq!(
        outbox.offer(delivery(QoS::AtMostOnce, b"0"), &options, &mut Vec::new()),
        Offered::Queued
    );
    assert_eq!(
        outbox.offer(delivery(QoS::AtLeastOnce, b"1"), &options, &mut Vec::new()),
        Offered::Queued
    );
    assert_eq!(
        outbox.offer(delivery(QoS::AtLeastOnce, b"2"), &options, &mut Vec::new()),
        Offered::QueuedAfterDropping(1)
    );
    assert_eq!(
        outbox.offer(delivery(QoS::AtLeastOnce, b"3"), &options, &mut Vec::new()),
        Offered::Refused
    );
    assert_eq!(
        outbox.offer(delivery(QoS::AtMostOnce, b"4"), &options, &mut Vec::new()),
        Offered::Dropped
    );
    assert!(outbox.is_full(&options));
}

#[test]
fn what_was_acknowledged_already_is_taken_above_the_bound() {
    let options = options(1, Overflow::Refuse);
    let mut outbox = Outbox::default();
    for payload in [b"1", b"2"] {
        let delivery = delivery(QoS::AtLeastOnce, payload);
        assert_eq!(
            outbox.offer_promised(delivery, &options, &mut Vec::new()),
            Offered::Queued
        );
    }
    assert_eq!(outbox.len(), 2);
    assert_eq!(
        outbox.offer(delivery(QoS::AtLeastOnce, b"3"), &options, &mut Vec::new()),
        Offered::Refused
    );
}

#[test]
fn policies_that_drop_are_asked_for_by_name() {
    for (overflow, expected, first) in [
        (Overflow::DropOldest, Offered::QueuedAfterDropping(1), b"2"),
        (Overflow::DropNewest, Offered::Dropped, b"1"),
        (Overflow::Disconnect, Offered::Disconnect, b"1"),
    ] {
        let options = options(1, overflow);
        let mut outbox = Outbox::default();
        outbox.offer(delivery(QoS::AtLeastOnce, b"1"), &options, &mut Vec::new());
        assert_eq!(
            outbox.offer(delivery(QoS::AtLeastOnce, b"2"), &options, &mut Vec::new()),
            expected
        );
        assert_eq!(
            outbox.pop_acknowledged().unwrap().message.payload(),
            first,
            "{overflow:?}"
        );
    }
}

#[test]
fn only_what_a_shared_subscription_gave_is_taken_for_others() {
    let mut outbox = Outbox::default();
    outbox.offer(
        delivery(QoS::AtLeastOnce, b"mine"),
        &OutboxOptions::default(),
        &mut Vec::new(),
    );
    let bytes = outbox.bytes();
    assert!(outbox.take_for_redistribution(true).is_empty());
    assert_eq!((outbox.len(), outbox.bytes()), (1, bytes));
}

#[test]
fn a_message_above_the_byte_bound_does_not_empty_the_world_for_nothing() {
    let options = OutboxOptions {
        bytes_max: 300,
        overflow: Overflow::DropOldest,
        ..OutboxOptions::default()
    };
    let mut outbox = Outbox::default();
    assert_eq!(
        outbox.offer(delivery(QoS::AtLeastOnce, &[0; 1000]), &options, &mut Vec::new()),
        Offered::Dropped
    );
    assert_eq!(outbox.bytes(), 0);
}

mod paging;
