//! Retained messages: stored, replaced, removed, sent to new subscribers.

use sundew::protocol::property::PropertiesBuf;

use crate::broker::{ALL, BOTH, Broker, V5, story, story_with};
use crate::wire::{self, Connect, PUBACK, Packet, Publish, Will};

/// [MQTT-3.3.1-5] [MQTT-3.3.1-9] [MQTT311-3.3.1-5] [MQTT311-3.3.1-6] [MQTT311-3.3.1-8]
#[test]
fn the_last_retained_message_of_each_topic_is_sent_to_a_new_subscriber() {
    story(ALL, |broker, version| {
        let mut publisher = broker.client("p", version);
        for (topic, payload, qos) in [
            ("a/1", "old", 1),
            ("a/1", "new", 2),
            ("a/2", "two", 0),
            ("b", "other", 1),
        ] {
            publisher.publish(Publish::new(topic, payload, qos).retained());
        }
        // The last QoS 0 message has been routed when a later acknowledged one has been.
        let mut late = broker.client("late", version);
        late.subscribe("a/#", 2);
        let mut messages = [late.expect_message(), late.expect_message()];
        messages.sort_by_key(|message| message.topic.clone());
        let seen = messages
            .each_ref()
            .map(|message| (message.topic.as_str(), message.text(), message.qos, message.retain));
        assert_eq!(seen, [("a/1", "new", 2, true), ("a/2", "two", 0, true)]);
        publisher.expect_nothing_sent_to(&mut late);
    });
}

/// [MQTT-3.3.1-6] [MQTT-3.3.1-7] [MQTT311-3.3.1-10] [MQTT311-3.3.1-11]
#[test]
fn an_empty_retained_message_removes_the_one_before_and_is_not_stored() {
    story(ALL, |broker, version| {
        let mut subscriber = broker.client("s", version);
        subscriber.subscribe("a", 1);
        let mut publisher = broker.client("p", version);
        publisher.publish(Publish::new("a", "x", 1).retained());
        publisher.publish(Publish::new("a", "", 1).retained());
        publisher.publish(Publish::new("never/there", "", 1).retained());
        subscriber.expect_text("a", "x");
        assert!(!subscriber.expect_text("a", "").retain);
        let mut late = broker.client("late", version);
        late.subscribe("#", 1);
        publisher.expect_nothing_sent_to(&mut late);
    });
}

/// [MQTT-3.3.1-8] [MQTT311-3.3.1-12]
#[test]
fn a_message_without_the_flag_leaves_the_retained_one_alone() {
    story(BOTH, |broker, version| {
        let mut publisher = broker.client("p", version);
        publisher.publish(Publish::new("a", "kept", 1).retained());
        publisher.publish(Publish::new("a", "passing", 1));
        publisher.publish(Publish::new("a", "", 1));
        publisher.publish(Publish::new("b", "passing", 1));
        let mut late = broker.client("late", version);
        late.subscribe("#", 1);
        late.expect_text("a", "kept");
        publisher.expect_nothing_sent_to(&mut late);
    });
}

/// [MQTT-3.3.1-12] [MQTT311-3.3.1-9] [MQTT311-3.3.1-7]
#[test]
fn to_a_subscription_that_exists_a_retained_message_is_a_message_like_others() {
    story(ALL, |broker, version| {
        let mut subscriber = broker.client("s", version);
        subscriber.subscribe("a", 1);
        let mut publisher = broker.client("p", version);
        for (payload, qos) in [("one", 1), ("zero", 0)] {
            publisher.publish(Publish::new("a", payload, qos).retained());
            assert!(!subscriber.expect_text("a", payload).retain);
        }
        let mut late = broker.client("late", version);
        late.subscribe("a", 1);
        assert!(late.expect_text("a", "zero").retain, "a QoS 0 message replaces, too");
    });
}

/// [MQTT-3.3.1-13]
#[test]
fn retain_as_published_leaves_the_flag() {
    story(V5, |broker, version| {
        let mut subscriber = broker.client("s", version);
        subscriber.subscribe("a", 0x08);
        let mut publisher = broker.client("p", version);
        publisher.publish(Publish::new("a", "retained", 1).retained());
        publisher.publish(Publish::new("a", "not", 1));
        assert!(subscriber.expect_text("a", "retained").retain);
        assert!(!subscriber.expect_text("a", "not").retain);
    });
}

/// [MQTT-3.3.1-9] [MQTT-3.3.1-10] [MQTT-3.3.1-11] [MQTT-3.8.4-4]
#[test]
fn retain_handling_decides_when_retained_messages_are_sent() {
    story(V5, |broker, version| {
        let mut publisher = broker.client("p", version);
        publisher.publish(Publish::new("a", "x", 1).retained());
        let mut subscriber = broker.client("s", version);
        let mut expect = |handling: u8, is_sent: bool| {
            subscriber.subscribe("a", handling << 4 | 1);
            if is_sent {
                assert!(subscriber.expect_text("a", "x").retain);
            }
            publisher.expect_nothing_sent_to(&mut subscriber);
        };
        expect(2, false);
        expect(1, false);
        expect(0, true);
        expect(0, true);
        let mut subscriber = broker.client("t", version);
        subscriber.subscribe("a", 1 << 4);
        assert!(subscriber.expect_text("a", "x").retain);
        subscriber.subscribe("a", 1 << 4);
        subscriber.expect_ping_answered();
        subscriber.unsubscribe(&["a"]);
        subscriber.subscribe("a", 1 << 4);
        assert!(subscriber.expect_text("a", "x").retain);
    });
}

/// [MQTT311-3.8.4-3]
#[test]
fn subscribing_again_sends_retained_messages_again() {
    story(BOTH, |broker, version| {
        let mut publisher = broker.client("p", version);
        publisher.publish(Publish::new("a", "x", 2).retained());
        let mut subscriber = broker.client("s", version);
        for qos in [0, 2, 1] {
            subscriber.subscribe("a", qos);
            assert_eq!(subscriber.expect_text("a", "x").qos, qos);
        }
    });
}

/// [MQTT311-3.1.2-7]
#[test]
fn retained_messages_outlive_the_session_that_published_them() {
    story(BOTH, |broker, version| {
        let mut publisher = broker.client("p", version);
        publisher.publish(Publish::new("a", "x", 1).retained());
        publisher.disconnect();
        broker.client("p", version).disconnect();
        let mut late = broker.client("late", version);
        late.subscribe("+", 1);
        late.expect_text("a", "x");
    });
}

/// [MQTT-3.1.2-14] [MQTT-3.1.2-15] [MQTT311-3.1.2-16] [MQTT311-3.1.2-17]
#[test]
fn a_will_is_retained_when_it_says_so() {
    story(ALL, |broker, version| {
        for retain in [false, true] {
            let topic = if retain { "kept" } else { "passing" };
            let mut witness = broker.client("w", version);
            witness.subscribe(topic, 1);
            let will = Some(Will {
                topic,
                payload: b"gone",
                qos: 1,
                retain,
                ..Will::default()
            });
            drop(broker.connect(
                version,
                &Connect {
                    will,
                    ..Connect::default()
                },
            ));
            assert!(!witness.expect_text(topic, "gone").retain);
        }
        let mut late = broker.client("late", version);
        late.subscribe("#", 1);
        assert!(late.expect_text("kept", "gone").retain);
        broker.client("p", version).expect_nothing_sent_to(&mut late);
    });
}

/// Every retained message arrives once, however many there are and however slowly the subscriber reads; nothing is dropped.
#[test]
fn thousands_of_retained_messages_are_all_delivered() {
    story(BOTH, |broker, version| {
        const COUNT: usize = 5_000;
        let mut publisher = broker.client("p", version);
        for number in 0..COUNT {
            publisher.send(
                &Publish::new(&format!("homeassistant/{number}/config"), "{}", 0)
                    .retained()
                    .encode(version),
            );
        }
        publisher.publish(Publish::new("last", "", 1));
        let mut subscriber = broker.client("s", version);
        subscriber.subscribe("homeassistant/#", 1);
        let mut seen = std::collections::HashSet::new();
        while seen.len() < COUNT {
            assert!(seen.insert(subscriber.expect_message().topic), "twice");
        }
        publisher.expect_nothing_sent_to(&mut subscriber);
    });
}

/// A message published to a topic whose retained message is being sent comes after it.
#[test]
fn a_live_message_never_overtakes_the_retained_one() {
    story(BOTH, |broker, version| {
        let mut publisher = broker.client("p", version);
        for number in 0..500 {
            publisher.send(&Publish::new(&format!("t/{number}"), "0", 0).retained().encode(version));
        }
        publisher.publish(Publish::new("last", "", 1));
        let mut subscriber = broker.client("s", version);
        subscriber.send(&wire::subscribe(version, 1, &PropertiesBuf::new(), &[("t/#", 0)]));
        publisher.publish(Publish::new("t/499", "1", 1).retained());
        let (mut last, mut is_answered, mut is_over) = (None, false, false);
        while !is_over || last.is_none() {
            match subscriber.receive() {
                Packet::SubAck { .. } => {
                    is_answered = true;
                    publisher.publish(Publish::new("t/end", "", 1));
                }
                Packet::Publish(message) if message.topic == "t/499" => {
                    assert!(last.as_deref() != Some("1") || message.text() == "1", "0 after 1");
                    last = Some(message.text().to_owned());
                }
                Packet::Publish(message) => is_over |= message.topic == "t/end",
                other => panic!("{other:?}"),
            }
        }
        assert!(is_answered && last.as_deref() == Some("1"), "{last:?}");
    });
}

/// [MQTT-3.2.2-13]
#[test]
fn where_retain_is_not_available_it_is_said_and_refused() {
    use sundew::protocol::property::PropertyId;
    story_with(
        |options, _| options.broker.retain_available = false,
        V5,
        |broker, version| {
            let mut client = broker.open(version);
            let (_, _, properties) = client.try_connect(&Connect::default());
            assert_eq!(properties.view().byte(PropertyId::RetainAvailable), Some(0));
            client.send(&Publish::new("a", "x", 1).retained().encode(version));
            client.expect_disconnect(0x9A);
            let will = Some(Will {
                topic: "a",
                retain: true,
                ..Will::default()
            });
            let mut client = broker.open(version);
            assert_eq!(
                client
                    .try_connect(&Connect {
                        will,
                        ..Connect::default()
                    })
                    .1,
                0x9A
            );
            client.expect_closed();
        },
    );
}

/// Bounds of the store: what does not fit is refused, never another message thrown out.
#[test]
fn the_store_of_retained_messages_is_bounded() {
    story_with(
        |options, _| {
            options.broker.retained.messages_max = 2;
            options.broker.sys_interval_secs = 0; // its messages are retained, too
        },
        BOTH,
        |broker, version| {
            let mut publisher = broker.client("p", version);
            for topic in ["a", "b"] {
                publisher.publish(Publish::new(topic, "x", 1).retained());
            }
            // Refused truthfully: with a reason in 5.0, with the end of the connection before.
            publisher.send(&Publish::new("c", "x", 1).id(9).retained().encode(version));
            if version.has_properties() {
                assert_eq!(publisher.await_ack(PUBACK, 9).reason, 0x97);
            } else {
                publisher.expect_closed();
                publisher = broker.client("p", version);
            }
            publisher.publish(Publish::new("a", "new", 1).retained());
            let mut late = broker.client("late", version);
            late.subscribe("#", 1);
            let mut seen = [late.expect_message().topic, late.expect_message().topic];
            seen.sort();
            assert_eq!(seen, ["a", "b"]);
            publisher.expect_nothing_sent_to(&mut late);
        },
    );
}

/// SUBACK waits until the subscription is kept; the standard lets retained messages overtake it, and no client expects that.
#[test]
fn retained_messages_come_behind_the_suback_also_where_it_waits_for_the_store() {
    for version in BOTH {
        let folder = tempfile::tempdir().unwrap();
        let broker = Broker::keeping(folder.path(), |_| {});
        let mut publisher = broker.client("p", *version);
        // Acknowledged, so that it is there before anybody subscribes.
        publisher.publish(Publish::new("a", "kept", 2).retained());
        for qos in 0..3 {
            let (mut client, _) = broker.connect(*version, &Connect::lasting("c", *version));
            client.send(&wire::subscribe(*version, 1, &PropertiesBuf::new(), &[("a", qos)]));
            let first = client.receive();
            assert!(
                matches!(first, Packet::SubAck { .. }),
                "SUBACK, but there came {first:?}"
            );
            assert!(client.expect_text("a", "kept").retain);
            client.disconnect();
            broker.client("c", *version).disconnect();
        }
    }
}
