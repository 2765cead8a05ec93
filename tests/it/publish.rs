//! What a message carries and how it is passed on: topics, payloads, properties, aliases, expiry, sizes.

use std::thread::sleep;
use std::time::Duration;

use sundew::protocol::property::{PropertiesBuf, PropertyId};
use sundew::protocol::version::Version;

use crate::broker::{ALL, BOTH, V5, story, story_with};
use crate::wire::{self, Connect, PUBREL, Packet, Publish, frame};

/// [MQTT-3.3.2-1] [MQTT-3.3.2-3] [MQTT-1.5.4-3] [MQTT-4.7.3-1] [MQTT-4.7.3-4] [MQTT311-3.3.2-1] [MQTT311-3.3.2-3]
/// [MQTT311-1.5.3-3] [MQTT311-4.7.3-1] [MQTT311-4.7.3-4]
#[test]
fn topics_are_passed_on_as_they_were_written() {
    let topics = [
        "a",
        "/",
        "//",
        "a/",
        "/a",
        "a//b",
        "a b",
        "\u{fc}mlaut/\u{1f600}",
        "\u{feff}a",
        "a/\u{feff}",
        "A",
        "e\u{301}",
        "\u{e9}",
        "a\tb",
        "\u{7f}",
        "\u{fffe}",
        "$other",
        "sport/tennis/player1",
    ];
    story(ALL, |broker, version| {
        let mut subscriber = broker.client("s", version);
        for topic in topics {
            subscriber.subscribe(topic, 0);
        }
        let mut publisher = broker.client("p", version);
        for (number, topic) in topics.iter().enumerate() {
            publisher.publish(Publish::new(topic, number.to_string(), 0));
        }
        for (number, topic) in topics.iter().enumerate() {
            subscriber.expect_text(topic, &number.to_string());
        }
        publisher.expect_nothing_sent_to(&mut subscriber);
    });
}

/// [MQTT-4.7.3-3] [MQTT311-4.7.3-3]
#[test]
fn the_longest_topic_is_passed_on() {
    story(BOTH, |broker, version| {
        let topic = "t".repeat(65_535);
        let mut client = broker.client("c", version);
        client.subscribe("#", 0);
        client.publish(Publish::new(&topic, "x", 0));
        assert_eq!(client.expect_publish().topic, topic);
    });
}

/// [MQTT-3.3.2-2] [MQTT-4.7.0-1] [MQTT-4.7.3-2] [MQTT311-3.3.2-2] [MQTT311-4.7.1-1] [MQTT311-4.7.3-2]
#[test]
fn a_topic_name_has_no_wildcard_no_null_and_is_not_empty() {
    story(BOTH, |broker, version| {
        let mut witness = broker.client("w", version);
        witness.subscribe("#", 0);
        for topic in ["#", "+", "a/#", "a/+", "+/a", "a+", "a#", "", "a\0", "\0"] {
            for qos in [0, 1] {
                let mut client = broker.client("c", version);
                client.send(&Publish::new(topic, "x", qos).encode(version));
                client.expect_disconnect_of(&[0x81, 0x82, 0x90]);
            }
        }
        broker.client("p", version).expect_nothing_sent_to(&mut witness);
    });
}

/// Any bytes, from none to a megabyte.
#[test]
fn payloads_are_passed_on_byte_by_byte() {
    story(ALL, |broker, version| {
        let mut subscriber = broker.client("s", version);
        subscriber.subscribe("a", 2);
        let mut publisher = broker.client("p", version);
        for length in [0, 1, 120, 121, 122, 127, 128, 16_370, 16_383, 16_384, 70_000, 1 << 20] {
            for qos in 0..3 {
                let payload: Vec<u8> = (0..length).map(|at: usize| (at * 31 + at / 251) as u8).collect();
                publisher.publish(Publish::new("a", &payload, qos));
                assert!(
                    subscriber.expect_message().payload == payload,
                    "{length} bytes at QoS {qos}"
                );
            }
        }
    });
}

/// [MQTT-3.3.2-4] [MQTT-3.3.2-15] [MQTT-3.3.2-16] [MQTT-3.3.2-17] [MQTT-3.3.2-18] [MQTT-3.3.2-20] [MQTT-3.1.3-10]
#[test]
fn properties_of_a_message_are_passed_on_unaltered_and_in_order() {
    let mut properties = PropertiesBuf::new();
    properties
        .push_byte(PropertyId::PayloadFormatIndicator, 1)
        .push_text(PropertyId::ContentType, "text/plain; \u{fc}")
        .push_text(PropertyId::ResponseTopic, "answers/here")
        .push_binary(PropertyId::CorrelationData, b"\x00\xff\x01")
        .push_user_property("b", "1")
        .push_user_property("a", "2")
        .push_user_property("b", "3")
        .push_user_property("", "");
    story(V5, |broker, version| {
        let mut subscriber = broker.client("s", version);
        subscriber.subscribe("#", 2);
        let mut will = broker.open(version);
        will.connect(&Connect {
            client_id: "w",
            will: Some(wire::Will {
                topic: "will",
                properties: properties.clone(),
                ..Default::default()
            }),
            ..Connect::default()
        });
        let mut publisher = broker.client("p", version);
        for qos in 0..3 {
            let message = Publish {
                properties: properties.clone(),
                ..Publish::new("a", "x", qos)
            };
            publisher.publish(message.clone().retained());
            assert_eq!(
                sorted(&subscriber.expect_text("a", "x")),
                sorted(&message),
                "at QoS {qos}"
            );
            let mut late = broker.client("late", version);
            late.subscribe("a", 0);
            assert_eq!(sorted(&late.expect_publish()), sorted(&message), "retained");
        }
        drop(will);
        let message = Publish {
            properties: properties.clone(),
            ..Publish::new("will", "", 0)
        };
        assert_eq!(
            sorted(&subscriber.expect_text("will", "")),
            sorted(&message),
            "of a will"
        );
    });
}

/// The order between different properties is free, the order of user properties is not.
fn sorted(message: &Publish) -> (Vec<String>, Vec<(String, String)>) {
    let view = message.properties.view();
    let mut singles: Vec<_> = view
        .iter()
        .filter(|(id, _)| *id != PropertyId::UserProperty)
        .map(|found| format!("{found:?}"))
        .collect();
    singles.sort();
    (
        singles,
        view.user_properties()
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect(),
    )
}

/// [MQTT-3.3.2-13] [MQTT-3.3.2-14] [MQTT-3.3.2-19] [MQTT-1.5.7-1] [MQTT-3.3.4-6]
#[test]
fn properties_that_may_not_be_there_end_the_connection() {
    let cases: Vec<(&str, Vec<u8>, &[u8])> = vec![
        (
            "response topic with a wildcard",
            vec![8, 0, 3, b'a', b'/', b'#'],
            &[0x81, 0x82, 0x90],
        ),
        ("response topic that is not UTF-8", vec![8, 0, 1, 0xFF], &[0x81]),
        ("content type that is not UTF-8", vec![3, 0, 1, 0xFF], &[0x81]),
        (
            "user property name that is not UTF-8",
            vec![0x26, 0, 1, 0xFF, 0, 0],
            &[0x81],
        ),
        (
            "user property value that is not UTF-8",
            vec![0x26, 0, 0, 0, 1, 0xC0],
            &[0x81],
        ),
        ("user property with a null", vec![0x26, 0, 1, 0, 0, 0], &[0x81]),
        ("content type twice", vec![3, 0, 1, b'a', 3, 0, 1, b'a'], &[0x82]),
        ("payload format 2", vec![1, 2], &[0x81, 0x82]),
        ("a subscription identifier", vec![0x0B, 1], &[0x81, 0x82]),
        ("a property of CONNECT", vec![0x21, 0, 1], &[0x81, 0x82]),
        ("an unknown property", vec![0x7F, 0], &[0x81, 0x82]),
        ("a property cut short", vec![8, 0, 9, b'a'], &[0x81]),
    ];
    story(V5, |broker, version| {
        for (fault, properties, reasons) in &cases {
            let mut client = broker.client("c", version);
            let length = u8::try_from(properties.len()).unwrap();
            client.send(&frame(
                0x30,
                &[wire::text("a"), vec![length], properties.clone(), b"x".to_vec()].concat(),
            ));
            client.expect_disconnect_because(fault, reasons);
        }
    });
}

/// [MQTT-3.3.2-7] [MQTT-3.3.2-8] [MQTT-3.3.2-12]
#[test]
fn topic_aliases_of_a_client_last_as_long_as_its_connection() {
    let aliased = |topic: &str, payload: &str, value: u16| {
        Publish::new(topic, payload, 1).with(|p| p.push_u16(PropertyId::TopicAlias, value))
    };
    story(V5, |broker, version| {
        let mut subscriber = broker.client("s", version);
        subscriber.subscribe("#", 1);
        let mut client = broker.open(version);
        let (_, _, properties) = client.try_connect(&Connect::lasting("c", version));
        let maximum = properties
            .view()
            .u16(PropertyId::TopicAliasMaximum)
            .expect("aliases are allowed by default");
        assert!(maximum >= 10, "devices use eight aliases without asking");
        for value in [1, 2, maximum] {
            client.publish(aliased(&format!("t{value}"), "set", value));
            client.publish(aliased("", "used", value));
            subscriber.expect_text(&format!("t{value}"), "set");
            let used = subscriber.expect_text(&format!("t{value}"), "used");
            assert_eq!(used.properties.view().u16(PropertyId::TopicAlias), None);
        }
        client.publish(aliased("other", "moved", 1));
        client.publish(aliased("", "used", 1));
        subscriber.expect_text("other", "moved");
        subscriber.expect_text("other", "used");
        for (fault, value, reasons) in [
            ("zero", 0, [0x81, 0x82, 0x94]),
            ("above the maximum", maximum + 1, [0x94, 0x94, 0x94]),
        ] {
            let (mut client, _) = broker.connect(version, &Connect::lasting("d", version));
            client.send(&aliased("t", "x", value).encode(version));
            client.expect_disconnect_because(fault, &reasons);
        }
        drop(client);
        let (mut client, session_present) = broker.connect(version, &Connect::lasting("c", version));
        assert!(session_present);
        client.send(&aliased("", "from before", 1).encode(version));
        client.expect_disconnect_of(&[0x82, 0x94]);
        broker.client("p", version).expect_nothing_sent_to(&mut subscriber);
    });
}

/// [MQTT-3.1.2-26] [MQTT-3.1.2-27] [MQTT-3.3.2-11]
#[test]
fn topic_aliases_of_the_broker_stay_within_what_the_client_takes() {
    story(V5, |broker, version| {
        let mut publisher = broker.client("p", version);
        for maximum in [0, 1, 5] {
            let connect = Connect {
                client_id: "s",
                ..Connect::default()
            }
            .with(|p| p.push_u16(PropertyId::TopicAliasMaximum, maximum));
            let (mut subscriber, _) = broker.connect(version, &connect);
            subscriber.subscribe("long/topic/#", 1);
            let mut names = std::collections::HashMap::new();
            for number in 0..60 {
                let topic = format!("long/topic/number/{}", if number % 2 == 0 { 0 } else { number % 7 });
                publisher.publish(Publish::new(&topic, "x", u8::from(number % 3 == 0)));
                let message = subscriber.expect_message();
                let alias = message.properties.view().u16(PropertyId::TopicAlias);
                if let Some(alias) = alias {
                    assert!((1..=maximum).contains(&alias), "alias {alias} of {maximum}");
                    if !message.topic.is_empty() {
                        names.insert(alias, message.topic.clone());
                    }
                }
                let meant = if message.topic.is_empty() {
                    &names[&alias.unwrap()]
                } else {
                    &message.topic
                };
                assert_eq!(meant, &topic);
            }
        }
    });
}

/// The names that come again and again are the ones that get an alias.
#[test]
fn topic_aliases_of_the_broker_save_what_is_sent_often() {
    story(V5, |broker, version| {
        let connect = Connect::default().with(|p| p.push_u16(PropertyId::TopicAliasMaximum, 1));
        let (mut subscriber, _) = broker.connect(version, &connect);
        subscriber.subscribe("#", 0);
        let mut publisher = broker.client("p", version);
        let often = "a/long/topic/that/is/used/again/and/again";
        let mut named = 0;
        for number in 0..300 {
            let seldom = format!("seldom/{number}");
            publisher.publish(Publish::new(if number % 10 == 0 { &seldom } else { often }, "x", 0));
            named += usize::from(subscriber.expect_publish().topic == often);
        }
        assert!(named < 100, "named in full {named} times of 270");
    });
}

/// [MQTT-3.3.2-5] [MQTT-3.3.2-6]
#[test]
fn a_message_that_waits_grows_older_and_expires() {
    story(V5, |broker, version| {
        let keep = Connect::lasting("c", version);
        let (mut client, _) = broker.connect(version, &keep);
        client.subscribe("#", 1);
        client.disconnect();
        let mut publisher = broker.client("p", version);
        let lasting = |payload: &str, seconds| {
            Publish::new("a", payload, 1).with(|p| p.push_u32(PropertyId::MessageExpiryInterval, seconds))
        };
        publisher.publish(lasting("short", 1));
        publisher.publish(lasting("long", 100));
        publisher.publish(Publish::new("a", "for ever", 1));
        sleep(Duration::from_millis(2_100));
        let (mut client, _) = broker.connect(version, &keep);
        let left = client
            .expect_text("a", "long")
            .properties
            .view()
            .u32(PropertyId::MessageExpiryInterval);
        assert!(
            (95..=98).contains(&left.expect("an expiry interval")),
            "{left:?} of 100 s left after 2.1 s"
        );
        let message = client.expect_text("a", "for ever");
        assert_eq!(message.properties.view().u32(PropertyId::MessageExpiryInterval), None);
        publisher.publish(lasting("at once", 100));
        let left = client
            .expect_text("a", "at once")
            .properties
            .view()
            .u32(PropertyId::MessageExpiryInterval);
        assert!(matches!(left, Some(99 | 100)), "{left:?}");
    });
}

/// The same for a message that is retained, and for one that waits for a place in the window.
#[test]
fn a_retained_message_and_one_that_waits_for_a_place_expire_too() {
    story(V5, |broker, version| {
        let mut publisher = broker.client("p", version);
        let short =
            |topic: &str| Publish::new(topic, "x", 1).with(|p| p.push_u32(PropertyId::MessageExpiryInterval, 1));
        let connect = Connect::default().with(|p| p.push_u16(PropertyId::ReceiveMaximum, 1));
        let (mut slow, _) = broker.connect(version, &connect);
        slow.subscribe("window", 1);
        publisher.publish(short("retained").retained());
        publisher.publish(Publish::new("window", "first", 1));
        publisher.publish(short("window"));
        publisher.publish(Publish::new("window", "last", 1));
        sleep(Duration::from_millis(2_100));
        slow.expect_text("window", "first");
        slow.expect_text("window", "last");
        slow.subscribe("retained", 1);
        publisher.expect_nothing_sent_to(&mut slow);
    });
}

/// [MQTT-4.3.3-7] [MQTT-4.3.3-13]
#[test]
fn a_message_that_has_been_sent_does_not_expire() {
    story(V5, |broker, version| {
        let keep = Connect::lasting("c", version);
        let (mut client, _) = broker.connect(version, &keep);
        client.subscribe("a", 2);
        let mut publisher = broker.client("p", version);
        publisher.publish(Publish::new("a", "x", 2).with(|p| p.push_u32(PropertyId::MessageExpiryInterval, 1)));
        let sent = client.expect_publish();
        drop(client);
        sleep(Duration::from_millis(2_100));
        let (mut client, _) = broker.connect(version, &keep);
        let again = client.expect_publish();
        assert_eq!((again.packet_id, again.dup), (sent.packet_id, true));
        client.send(&wire::ack(wire::PUBREC, sent.packet_id));
        client.await_ack(PUBREL, sent.packet_id);
        client.send(&wire::ack(wire::PUBCOMP, sent.packet_id));
        client.expect_ping_answered();
        // And the broker, as the receiver, goes through with the handshake of a message that has expired meanwhile.
        publisher.send(
            &Publish::new("b", "x", 2)
                .id(900)
                .with(|p| p.push_u32(PropertyId::MessageExpiryInterval, 1))
                .encode(version),
        );
        publisher.await_ack(wire::PUBREC, 900);
        sleep(Duration::from_millis(1_200));
        publisher.send(&wire::ack(PUBREL, 900));
        assert_eq!(publisher.await_ack(wire::PUBCOMP, 900).reason, 0);
    });
}

/// [MQTT-3.1.2-24] [MQTT-3.1.2-25]
#[test]
fn a_message_too_large_for_a_client_is_left_out_and_nothing_else() {
    story(V5, |broker, version| {
        let connect = Connect::default().with(|p| p.push_u32(PropertyId::MaximumPacketSize, 200));
        let (mut small, _) = broker.connect(version, &connect);
        let mut large = broker.client("large", version);
        let mut publisher = broker.client("p", version);
        for subscriber in [&mut small, &mut large] {
            subscriber.subscribe("#", 2);
        }
        for qos in 0..3 {
            for length in [10, 1_000, 20] {
                publisher.publish(Publish::new("a", vec![b'x'; length], qos));
                assert_eq!(large.expect_message().payload.len(), length);
            }
            assert_eq!(small.expect_message().payload.len(), 10);
            assert_eq!(small.expect_message().payload.len(), 20);
        }
        publisher.publish(Publish::new("retained", vec![b'x'; 1_000], 1).retained());
        large.expect_message();
        small.subscribe("retained", 1);
        publisher.expect_nothing_sent_to(&mut small);
    });
}

/// [MQTT-3.2.2-19] [MQTT-3.2.2-20] [MQTT-3.4.2-2] [MQTT-3.4.2-3] [MQTT-3.5.2-2] [MQTT-3.5.2-3] [MQTT-3.6.2-2] [MQTT-3.6.2-3]
/// [MQTT-3.7.2-2] [MQTT-3.7.2-3] [MQTT-3.9.2-1] [MQTT-3.9.2-2] [MQTT-3.11.2-1] [MQTT-3.11.2-2] [MQTT-3.14.2-3] [MQTT-3.14.2-4]
#[test]
fn reason_strings_are_left_out_where_the_client_takes_only_small_packets() {
    story_with(
        |options, _| options.broker.retain_available = false,
        V5,
        |broker, version| {
            let answers = |size: Option<u32>| {
                let mut connect = Connect::default();
                if let Some(size) = size {
                    connect = connect.with(|p| p.push_u32(PropertyId::MaximumPacketSize, size));
                }
                let mut client = broker.open(version);
                client.send(&connect.encode(version));
                let unknown_pubrec = wire::ack(wire::PUBREC, 9);
                let requests = [
                    Publish::new("nobody", "x", 1).id(1).encode(version),
                    Publish::new("nobody", "x", 2).id(2).encode(version),
                    wire::ack(PUBREL, 99),
                    unknown_pubrec,
                    wire::subscribe(version, 3, &PropertiesBuf::new(), &[("$share/bad", 0), ("a", 0)]),
                    wire::unsubscribe(version, 4, &["nothing"]),
                    Publish::new("a", "x", 1).id(5).retained().encode(version),
                ];
                for request in requests {
                    client.send_lossy(&request);
                }
                client.receive_to_end()
            };
            let generous = packets(&answers(None));
            let connack_bytes = generous[0].len();
            let strict = packets(&answers(Some(u32::try_from(connack_bytes).unwrap())));
            assert_eq!(strict.len(), generous.len(), "each packet but without what is too long");
            for (strict, generous) in strict.iter().zip(&generous) {
                assert!(
                    strict.len() <= connack_bytes && strict[0] == generous[0],
                    "{strict:02x?}, not {generous:02x?}"
                );
            }
            assert!(
                generous.iter().any(|packet| packet.len() > connack_bytes),
                "a reason string somewhere: {generous:02x?}"
            );
        },
    );
}

/// The packets in a run of bytes, none over 16,383 bytes.
fn packets(mut bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    while bytes.len() >= 2 {
        let (length, head) = match bytes[1] {
            byte if byte & 0x80 == 0 => (usize::from(byte), 2),
            byte => (usize::from(byte & 0x7F) | usize::from(bytes[2]) << 7, 3),
        };
        let (packet, rest) = bytes.split_at(head + length);
        found.push(packet.to_vec());
        bytes = rest;
    }
    found
}

/// [MQTT-3.1.2-29]
#[test]
fn reasons_are_not_told_to_a_client_that_does_not_want_them() {
    story(V5, |broker, version| {
        let connect = Connect::default().with(|p| p.push_byte(PropertyId::RequestProblemInformation, 0));
        let (mut client, _) = broker.connect(version, &connect);
        client.send(&wire::ack(PUBREL, 99));
        assert!(client.await_ack(wire::PUBCOMP, 99).properties.view().is_empty());
        client.send(&Publish::new("a", "x", 1).id(1).encode(version));
        assert!(client.await_ack(wire::PUBACK, 1).properties.view().is_empty());
        client.send(&wire::unsubscribe(version, 2, &["a"]));
        let Packet::UnsubAck { properties, .. } = client.receive() else {
            panic!("UNSUBACK")
        };
        assert!(properties.view().is_empty());
    });
}

/// [MQTT-3.1.2-28]
#[test]
fn response_information_is_told_to_who_asks() {
    let ask = |wanted: Option<u8>| match wanted {
        Some(value) => Connect::default().with(|p| p.push_byte(PropertyId::RequestResponseInformation, value)),
        None => Connect::default(),
    };
    story_with(
        |options, _| options.broker.response_information = Some("answers/".into()),
        V5,
        |broker, version| {
            for (wanted, expected) in [(None, None), (Some(0), None), (Some(1), Some("answers/"))] {
                let (_, _, properties) = broker.open(version).try_connect(&ask(wanted));
                assert_eq!(properties.view().text(PropertyId::ResponseInformation), expected);
            }
        },
    );
}

/// By option; the default passes payloads on unread.
#[test]
fn a_payload_that_is_not_the_text_it_claims_to_be_is_refused() {
    let claim = |payload: &[u8], qos| {
        Publish::new("a", payload, qos).with(|p| p.push_byte(PropertyId::PayloadFormatIndicator, 1))
    };
    story_with(
        |options, _| options.broker.payload_format_check = true,
        V5,
        |broker, version| {
            let mut subscriber = broker.client("s", version);
            subscriber.subscribe("a", 2);
            let mut publisher = broker.client("p", version);
            for qos in 0..3 {
                let mut wrong = broker.client("wrong", version);
                wrong.send(&claim(b"\xff", qos).encode(version));
                wrong.expect_disconnect(0x99);
            }
            assert_eq!(publisher.try_publish(claim("\u{fc}".as_bytes(), 2)), 0);
            subscriber.expect_text("a", "\u{fc}");
            assert_eq!(publisher.try_publish(Publish::new("a", b"\xff", 1)), 0);
            assert_eq!(subscriber.expect_message().payload, b"\xff");
        },
    );
    story(V5, |broker, version| {
        assert_eq!(broker.client("p", version).try_publish(claim(b"\xff", 1)) & 0x80, 0);
    });
}

/// Reasons that say more than success: nobody was there.
#[test]
fn a_publisher_learns_that_nobody_listens() {
    story(&[Version::V5], |broker, version| {
        let mut client = broker.client("c", version);
        for qos in [1, 2] {
            assert!(matches!(client.try_publish(Publish::new("nobody", "x", qos)), 0 | 0x10));
        }
        // Nor does somebody who may come later.
        assert_eq!(client.try_publish(Publish::new("later", "x", 1).retained()), 0x10);
        client.subscribe("somebody", 0);
        for qos in [1, 2] {
            assert_eq!(client.try_publish(Publish::new("somebody", "x", qos)), 0);
            client.expect_text("somebody", "x");
        }
    });
}

/// What is announced is what is enforced. [MQTT 5 section 3.2.2.3.6]
#[test]
fn a_packet_larger_than_announced_ends_the_connection() {
    story_with(
        |options, _| options.broker.decode.packet_bytes_max = 1024,
        BOTH,
        |broker, version| {
            let mut client = broker.open(version);
            let (_, _, properties) = client.try_connect(&Connect::default());
            if version.has_properties() {
                assert_eq!(properties.view().u32(PropertyId::MaximumPacketSize), Some(1024));
            }
            let overhead = Publish::new("a", vec![0; 1000], 1).encode(version).len() - 1000;
            client.publish(Publish::new("a", vec![0; 1024 - overhead], 1));
            client.send_lossy(&Publish::new("a", vec![0; 1025 - overhead], 1).encode(version));
            client.expect_disconnect(0x95);
        },
    );
}
