//! Subscriptions: filters, what they match, their options, and how they end.

use sundew::broker::Parts;
use sundew::protocol::property::{PropertiesBuf, PropertyId};

use sundew::protocol::qos::QoS;
use sundew::router::Overlap;
use sundew::server::ServerOptions;

use crate::broker::{ALL, BOTH, V5, story, story_with};
use crate::wire::{self, Connect, Packet, Publish, frame};

const NO_LOCAL: u8 = 0x04;

/// [MQTT-3.8.4-1] [MQTT-3.8.4-2] [MQTT-3.8.4-5] [MQTT-3.8.4-6] [MQTT-3.8.4-7] [MQTT-3.9.3-1] [MQTT-3.9.3-2] [MQTT-2.2.1-6]
/// [MQTT-2.2.2-1] [MQTT311-3.8.4-1] [MQTT311-3.8.4-2] [MQTT311-3.8.4-4] [MQTT311-3.8.4-5] [MQTT311-3.9.3-1]
/// [MQTT311-3.9.3-2] [MQTT311-2.3.1-7]
#[test]
fn a_subscribe_is_answered_filter_by_filter() {
    story(ALL, |broker, version| {
        let mut client = broker.client("c", version);
        let filters = [("a", 2), ("b/#", 0), ("c/+", 1), ("a", 0), ("+", 2)];
        client.send(&wire::subscribe(version, 0xABCD, &PropertiesBuf::new(), &filters));
        let Packet::SubAck { packet_id, reasons, .. } = client.receive() else {
            panic!("SUBACK")
        };
        assert_eq!((packet_id, reasons.as_slice()), (0xABCD, &[2, 0, 1, 0, 2][..]));
        client.publish(Publish::new("c/x", "hello", 2));
        assert_eq!(client.expect_text("c/x", "hello").qos, 1);
    });
}

/// [MQTT-3.10.4-1] [MQTT-3.10.4-2] [MQTT-3.10.4-4] [MQTT-3.10.4-5] [MQTT-3.10.4-6] [MQTT-3.11.3-1] [MQTT-3.11.3-2]
/// [MQTT311-3.10.4-1] [MQTT311-3.10.4-2] [MQTT311-3.10.4-4] [MQTT311-3.10.4-5] [MQTT311-3.10.4-6]
#[test]
fn an_unsubscribe_ends_exactly_the_filters_it_names() {
    story(ALL, |broker, version| {
        let mut client = broker.client("c", version);
        client.subscribe_many(&PropertiesBuf::new(), &[("a/b", 1), ("a/+", 1), ("a/#", 1), ("A/B", 1)]);
        client.send(&wire::unsubscribe(version, 0x1234, &["a/+", "nothing", "a/b", "a/#/"]));
        // A filter that is none at all is a violation; without it, each gets an answer of its own.
        client.expect_disconnect_of(&[0x81, 0x82, 0x8F]);
        let mut client = broker.client("c", version);
        client.subscribe_many(&PropertiesBuf::new(), &[("a/b", 1), ("a/+", 1), ("a/#", 1), ("A/B", 1)]);
        client.send(&wire::unsubscribe(version, 0x1234, &["a/+", "nothing", "a/b", "a/b/"]));
        let Packet::UnsubAck { packet_id, reasons, .. } = client.receive() else {
            panic!("UNSUBACK")
        };
        assert_eq!(packet_id, 0x1234);
        if version.has_properties() {
            assert_eq!(reasons, [0, 0x11, 0, 0x11]);
        }
        client.publish(Publish::new("a/b", "x", 1));
        client.expect_text("a/b", "x");
        client.unsubscribe(&["a/#"]);
        client.publish(Publish::new("a/b", "y", 1));
        client.publish(Publish::new("A/B", "z", 1));
        client.expect_text("A/B", "z");
    });
}

/// [MQTT-3.10.4-3] [MQTT311-3.10.4-3]
#[test]
fn an_unsubscribe_lets_what_has_been_sent_be_finished() {
    story(BOTH, |broker, version| {
        let mut client = broker.client("c", version);
        client.subscribe("a", 2);
        let mut publisher = broker.client("p", version);
        publisher.publish(Publish::new("a", "x", 2));
        let id = client.expect_publish().packet_id;
        client.unsubscribe(&["a"]);
        client.send(&wire::ack(wire::PUBREC, id));
        client.await_ack(wire::PUBREL, id);
        client.send(&wire::ack(wire::PUBCOMP, id));
        client.expect_ping_answered();
    });
}

/// [MQTT-4.7.1-1] [MQTT-4.7.1-2] [MQTT-4.7.2-1] [MQTT311-4.7.1-2] [MQTT311-4.7.1-3] [MQTT311-4.7.2-1]
#[test]
fn wildcards_match_what_the_standard_says() {
    let cases: &[(&str, &[&str], &[&str])] = &[
        (
            "sport/tennis/player1/#",
            &["sport/tennis/player1", "sport/tennis/player1/ranking/a"],
            &["sport/tennis/player2"],
        ),
        ("sport/#", &["sport", "sport/", "sport/a/b"], &["sports", "a/sport"]),
        ("#", &["a", "/", "/a", "a/b/c"], &["$SYS/x", "$a"]),
        ("+", &["a"], &["/", "/a", "a/", "$a"]),
        ("+/+", &["/a", "a/b", "a/", "/"], &["a", "a/b/c", "$a/b"]),
        ("/+", &["/a", "/"], &["a", "/a/b"]),
        ("sport/+", &["sport/", "sport/a"], &["sport", "sport/a/b"]),
        (
            "sport/+/player1",
            &["sport/tennis/player1", "sport//player1"],
            &["sport/player1"],
        ),
        ("+/tennis/#", &["a/tennis", "/tennis/x"], &["tennis", "$a/tennis"]),
        ("$a/#", &["$a/b", "$a"], &["a/b"]),
        ("$a/+", &["$a/b"], &["$a", "$b/b"]),
        ("a/$b/+", &["a/$b/c"], &["a/b/c"]),
        ("a//b", &["a//b"], &["a/b", "a/x/b"]),
    ];
    story(BOTH, |broker, version| {
        let mut publisher = broker.client("p", version);
        for (filter, matching, other) in cases {
            let mut client = broker.client("c", version);
            client.subscribe(filter, 0);
            for topic in matching.iter().chain(*other) {
                publisher.publish(Publish::new(topic, "x", 0));
            }
            for topic in *matching {
                assert_eq!(client.expect_publish().topic, *topic, "of {filter}");
            }
            publisher.expect_nothing_sent_to(&mut client);
        }
    });
}

/// [MQTT-4.7.1-1] [MQTT-4.7.1-2] [MQTT-4.7.3-1] [MQTT-4.7.3-2] [MQTT-3.8.3-1] [MQTT-3.10.3-1] [MQTT-4.8.2-1] [MQTT-4.8.2-2]
/// [MQTT311-3.8.3-1] [MQTT311-3.10.3-1]
#[test]
fn a_filter_that_is_none_is_refused() {
    let texts = [
        "a#",
        "a/#/b",
        "#/a",
        "a+",
        "+a",
        "a/b+/c",
        "",
        "a\0",
        "$share",
        "$share/",
        "$share//a",
        "$share/g",
        "$share/g/",
        "$share/g+/a",
        "$share/g#/a",
        "$share/+/a",
    ];
    let raw: [&[u8]; 3] = [b"\xff", b"\xed\xa0\x80", b"a/\xc0\x80"];
    story(BOTH, |broker, version| {
        let filters = texts.iter().map(|text| text.as_bytes()).chain(raw);
        for filter in filters {
            let shown = String::from_utf8_lossy(filter);
            let properties: &[u8] = if version.has_properties() { &[0, 1, 0] } else { &[0, 1] };
            let mut client = broker.client("c", version);
            client.send(&frame(0x82, &[properties, &wire::prefixed(filter), &[0]].concat()));
            match client.receive_unless_closed() {
                Some(Packet::SubAck { reasons, .. }) => {
                    assert!(matches!(reasons[..], [0x80 | 0x8F]), "{shown}: {reasons:?}")
                }
                Some(Packet::Disconnect { reason, .. }) => {
                    assert!(matches!(reason, 0x81 | 0x82 | 0x8F), "{shown}: {reason:#x}");
                    client.expect_closed();
                }
                Some(other) => panic!("{shown}: {other:?}"),
                None => assert!(!version.has_properties(), "{shown}: closed without a reason"),
            }
            let mut client = broker.client("c", version);
            client.send(&frame(0xA2, &[properties, &wire::prefixed(filter)].concat()));
            client.send_lossy(&wire::PINGREQ);
            match client.receive_unless_closed() {
                Some(Packet::UnsubAck { .. }) | None => {}
                Some(Packet::Disconnect { reason, .. }) => assert!(matches!(reason, 0x81 | 0x82 | 0x8F), "{reason:#x}"),
                Some(other) => panic!("{shown}: {other:?}"),
            }
        }
    });
}

/// [MQTT-3.8.3-2] [MQTT-3.10.3-2] [MQTT-3.8.3-5] [MQTT-3.8.1-1] [MQTT-3.10.1-1] [MQTT311-3.8.3-3] [MQTT311-3.8.3-4]
/// [MQTT311-3.10.3-2] [MQTT311-3.8.1-1] [MQTT311-3.10.1-1]
#[test]
fn a_malformed_subscribe_or_unsubscribe_ends_the_connection() {
    story(BOTH, |broker, version| {
        let is_5 = version.has_properties();
        let id: &[u8] = if is_5 { &[0, 1, 0] } else { &[0, 1] };
        let filter: &[u8] = &[0, 1, b'a'];
        let mut cases = vec![
            ("SUBSCRIBE without a filter", 0x82, id.to_vec()),
            ("UNSUBSCRIBE without a filter", 0xA2, id.to_vec()),
            ("a filter without options", 0x82, [id, filter].concat()),
            ("QoS 3", 0x82, [id, filter, &[3]].concat()),
            ("reserved bits of the options", 0x82, [id, filter, &[0x40]].concat()),
            ("reserved bits of the options", 0x82, [id, filter, &[0x80]].concat()),
            ("flags of SUBSCRIBE", 0x80, [id, filter, &[0]].concat()),
            ("flags of SUBSCRIBE", 0x83, [id, filter, &[0]].concat()),
            ("flags of UNSUBSCRIBE", 0xA0, [id, filter].concat()),
            ("flags of UNSUBSCRIBE", 0xA6, [id, filter].concat()),
        ];
        if is_5 {
            cases.push(("retain handling 3", 0x82, [id, filter, &[0x30]].concat()));
            cases.push((
                "subscription identifier 0",
                0x82,
                [&[0, 1, 2, 0x0B, 0], filter, &[0]].concat(),
            ));
            let twice = [&[0, 1, 4, 0x0B, 1, 0x0B, 2], filter, &[0]].concat();
            cases.push(("subscription identifier twice", 0x82, twice));
        } else {
            cases.push(("no local before 5.0", 0x82, [id, filter, &[0x04]].concat()));
        }
        for (fault, first, body) in cases {
            let mut client = broker.client("c", version);
            client.send(&frame(first, &body));
            client.expect_disconnect_because(fault, &[0x81, 0x82]);
        }
    });
}

/// [MQTT-3.8.4-3] [MQTT311-3.8.4-3]
#[test]
fn a_second_subscription_with_one_filter_replaces_the_first() {
    story(BOTH, |broker, version| {
        let mut client = broker.client("c", version);
        for qos in [2, 0, 1] {
            assert_eq!(client.subscribe("a/+", qos), qos);
            client.publish(Publish::new("a/b", "x", 2));
            assert_eq!(client.expect_text("a/b", "x").qos, qos);
            client.expect_ping_answered();
        }
        client.unsubscribe(&["a/+"]);
        client.publish(Publish::new("a/b", "x", 1));
        client.expect_ping_answered();
    });
}

/// [MQTT-3.8.4-4] [MQTT311-3.8.4-3]
#[test]
fn replacing_a_subscription_loses_nothing() {
    story(BOTH, |broker, version| {
        const COUNT: usize = 200;
        let mut client = broker.client("c", version);
        client.subscribe("a", 1);
        let mut publisher = broker.client("p", version);
        let publishing = std::thread::spawn(move || {
            for number in 0..COUNT {
                publisher.publish(Publish::new("a", number.to_string(), 1));
            }
        });
        for number in 0..COUNT {
            if number % 10 == 0 {
                client.subscribe("a", 1 + u8::from(number % 20 == 0));
            }
            client.expect_text("a", &number.to_string());
        }
        publishing.join().unwrap();
    });
}

/// [MQTT-3.3.4-2] [MQTT-3.3.4-3] [MQTT-3.3.4-4] [MQTT311-3.3.5-1]
#[test]
fn overlapping_subscriptions_get_one_copy_at_the_highest_qos_with_all_identifiers() {
    story(ALL, |broker, version| {
        let mut client = broker.client("c", version);
        let filters = [("#", 0), ("a/+/c", 2), ("a/b/c", 1), ("x/#", 2)];
        for (number, (filter, qos)) in filters.into_iter().enumerate() {
            if version.has_properties() {
                client.subscribe_with_id(filter, qos, 10 + number as u32);
            } else {
                client.subscribe(filter, qos);
            }
        }
        let mut publisher = broker.client("p", version);
        for qos in 0..3 {
            publisher.publish(Publish::new("a/b/c", "once", qos));
            let message = client.expect_text("a/b/c", "once");
            assert_eq!(message.qos, qos);
            let mut identifiers: Vec<_> = message.properties.view().subscription_identifiers().collect();
            identifiers.sort_unstable();
            let expected: &[u32] = if version.has_properties() { &[10, 11, 12] } else { &[] };
            assert_eq!(identifiers, expected);
        }
        publisher.expect_nothing_sent_to(&mut client);
    });
}

/// [MQTT-3.3.4-5]
#[test]
fn by_option_each_overlapping_subscription_gets_its_copy() {
    story_with(
        |options, _| options.broker.overlap = Overlap::Each,
        V5,
        |broker, version| {
            let mut client = broker.client("c", version);
            client.subscribe_with_id("#", 0, 1);
            client.subscribe_with_id("a/+", 2, 2);
            client.subscribe_with_id("a/b", 1, 3);
            let mut publisher = broker.client("p", version);
            publisher.publish(Publish::new("a/b", "x", 2));
            let mut seen: Vec<_> = (0..3)
                .map(|_| {
                    let message = client.expect_message();
                    (
                        message.properties.view().subscription_identifiers().collect::<Vec<_>>(),
                        message.qos,
                    )
                })
                .collect();
            seen.sort();
            assert_eq!(seen, [(vec![1], 0), (vec![2], 2), (vec![3], 1)]);
            publisher.expect_nothing_sent_to(&mut client);
        },
    );
}

/// [MQTT-3.3.4-3]
#[test]
fn a_subscription_identifier_goes_with_its_subscription() {
    story(V5, |broker, version| {
        let mut client = broker.client("c", version);
        let identifiers = |client: &mut crate::client::Client| {
            client.publish(Publish::new("a", "x", 1));
            client
                .expect_message()
                .properties
                .view()
                .subscription_identifiers()
                .collect::<Vec<_>>()
        };
        client.subscribe_with_id("a", 1, 268_435_455);
        assert_eq!(identifiers(&mut client), [268_435_455]);
        client.subscribe_with_id("a", 1, 2);
        assert_eq!(identifiers(&mut client), [2]);
        client.subscribe("a", 1);
        assert!(identifiers(&mut client).is_empty());
        let mut publisher = broker.client("p", version);
        publisher.publish(Publish::new("kept", "x", 1).retained());
        client.subscribe_with_id("kept", 1, 7);
        let message = client.expect_text("kept", "x");
        assert_eq!(
            message.properties.view().subscription_identifiers().collect::<Vec<_>>(),
            [7]
        );
    });
}

/// [MQTT-3.8.3-3]
#[test]
fn no_local_keeps_a_client_from_hearing_itself() {
    story(V5, |broker, version| {
        let keep = Connect::lasting("c", version);
        let (mut client, _) = broker.connect(version, &keep);
        client.subscribe("a", NO_LOCAL | 1);
        client.publish(Publish::new("a", "own", 1));
        client.expect_ping_answered();
        let mut other = broker.client("o", version);
        other.publish(Publish::new("a", "other's", 1));
        client.expect_text("a", "other's");
        client.disconnect();
        // It is the client that counts, not the connection.
        let (mut client, _) = broker.connect(version, &keep);
        client.publish(Publish::new("a", "own", 1));
        client.expect_ping_answered();
        client.subscribe("+", 1);
        client.publish(Publish::new("a", "heard by the other filter", 1));
        client.expect_text("a", "heard by the other filter");
        client.expect_ping_answered();
    });
}

/// [MQTT-3.8.3-4]
#[test]
fn no_local_on_a_shared_subscription_is_a_protocol_error() {
    story(V5, |broker, version| {
        let mut client = broker.client("c", version);
        client.send(&wire::subscribe(
            version,
            1,
            &PropertiesBuf::new(),
            &[("$share/g/a", NO_LOCAL)],
        ));
        client.expect_disconnect(0x82);
    });
}

/// What is announced as not available is refused. [MQTT-3.2.2-8]
#[test]
fn subscriptions_that_are_not_available_are_announced_and_refused() {
    let set = |options: &mut ServerOptions, _: &mut Parts| {
        options.broker.wildcard_subscriptions = false;
        options.broker.shared_subscriptions = false;
        options.broker.subscription_identifiers = false;
    };
    story_with(set, V5, |broker, version| {
        let mut client = broker.open(version);
        let (_, _, properties) = client.try_connect(&Connect::default());
        for id in [
            PropertyId::WildcardSubscriptionAvailable,
            PropertyId::SharedSubscriptionAvailable,
            PropertyId::SubscriptionIdentifierAvailable,
        ] {
            assert_eq!(properties.view().byte(id), Some(0), "{}", id.name());
        }
        let cases = [
            ("a/#", None, 0xA2),
            ("+", None, 0xA2),
            ("$share/g/a", None, 0x9E),
            ("a", Some(1), 0xA1),
        ];
        for (filter, identifier, expected) in cases {
            let mut client = broker.client("c", version);
            let mut with = PropertiesBuf::new();
            if let Some(identifier) = identifier {
                with.push_varint(PropertyId::SubscriptionIdentifier, identifier);
            }
            client.send(&wire::subscribe(version, 1, &with, &[(filter, 0)]));
            match client.receive() {
                Packet::SubAck { reasons, .. } => assert_eq!(reasons, [expected], "{filter}"),
                Packet::Disconnect { reason, .. } => assert_eq!(reason, expected, "{filter}"),
                other => panic!("{filter}: {other:?}"),
            }
        }
    });
}

/// [MQTT311-3.8.3-2]
#[test]
fn without_wildcards_a_filter_that_has_one_is_refused() {
    story_with(
        |options, _| options.broker.wildcard_subscriptions = false,
        &crate::broker::BOTH[..1],
        |broker, version| {
            let mut client = broker.client("c", version);
            assert_eq!(
                client.subscribe_many(&PropertiesBuf::new(), &[("a", 1), ("a/#", 1), ("+", 0)]),
                [1, 0x80, 0x80]
            );
        },
    );
}

/// [MQTT-3.2.2-9] [MQTT-3.2.2-10] [MQTT-3.2.2-12]
#[test]
fn a_maximum_qos_is_announced_granted_and_enforced() {
    story_with(
        |options, _| options.broker.maximum_qos = QoS::AtLeastOnce,
        V5,
        |broker, version| {
            let mut client = broker.open(version);
            let (_, _, properties) = client.try_connect(&Connect::default());
            assert_eq!(properties.view().byte(PropertyId::MaximumQoS), Some(1));
            assert_eq!(
                client.subscribe_many(&PropertiesBuf::new(), &[("a", 0), ("b", 1), ("c", 2)]),
                [0, 1, 1]
            );
            client.send(&Publish::new("a", "x", 2).encode(version));
            client.expect_disconnect(0x9B);
            let will = Some(wire::Will {
                topic: "w",
                qos: 2,
                ..Default::default()
            });
            let mut client = broker.open(version);
            assert_eq!(
                client
                    .try_connect(&Connect {
                        will,
                        ..Connect::default()
                    })
                    .1,
                0x9B
            );
            client.expect_closed();
        },
    );
}

/// Limits of subscriptions: of one session and of all.
#[test]
fn the_number_of_subscriptions_is_bounded() {
    for is_of_one_session in [true, false] {
        let set = |options: &mut ServerOptions, _: &mut Parts| {
            let limits = &mut options.broker;
            *if is_of_one_session {
                &mut limits.subscriptions_per_session_max
            } else {
                &mut limits.subscriptions_max
            } = 2;
        };
        story_with(set, BOTH, |broker, version| {
            let mut client = broker.client("c", version);
            let refused = if version.has_properties() { 0x97 } else { 0x80 };
            let granted = client.subscribe_many(&PropertiesBuf::new(), &[("a", 1), ("b", 1), ("c", 1), ("a", 0)]);
            assert_eq!(granted, [1, 1, refused, 0]);
            client.unsubscribe(&["b"]);
            assert_eq!(client.subscribe("c", 1), 1);
        });
    }
}

/// Home Assistant's and Node-RED's filter sets: one copy each, not three.
#[test]
fn filters_of_home_assistant_give_one_delivery_each() {
    story(BOTH, |broker, version| {
        let mut client = broker.client("ha", version);
        let filters = [
            "homeassistant/+/+/config",
            "homeassistant/+/+/+/config",
            "homeassistant/#",
            "zigbee2mqtt/#",
            "zigbee2mqtt/lamp",
            "zigbee2mqtt/+/availability",
            "+/lamp",
        ];
        client.subscribe_many(&PropertiesBuf::new(), &filters.map(|filter| (filter, 0)));
        let mut publisher = broker.client("p", version);
        let topics = [
            "homeassistant/light/lamp/config",
            "zigbee2mqtt/lamp",
            "zigbee2mqtt/lamp/availability",
        ];
        for topic in topics {
            publisher.publish(Publish::new(topic, "x", 1));
        }
        for topic in topics {
            client.expect_text(topic, "x");
        }
        publisher.expect_nothing_sent_to(&mut client);
    });
}

/// The match cache of a worker is told of every change: a topic that was published before is matched anew.
#[test]
fn subscriptions_that_come_and_go_take_effect_at_once() {
    story(BOTH, |broker, version| {
        let mut client = broker.client("c", version);
        let mut other = broker.client("o", version);
        other.subscribe("a/#", 0);
        let mut publisher = broker.client("p", version);
        for round in 0..20 {
            let filter = ["a/b", "+/b", "a/#", "#"][round % 4];
            publisher.publish(Publish::new("a/b", "before", 1));
            client.subscribe(filter, 1);
            publisher.publish(Publish::new("a/b", "during", 1));
            client.expect_text("a/b", "during");
            client.unsubscribe(&[filter]);
            publisher.publish(Publish::new("a/b", "after", 1));
            client.expect_ping_answered();
        }
    });
}
