//! How a connection begins: CONNECT, CONNACK, client identifiers, takeover.

use sundew::protocol::property::{PropertiesBuf, PropertyId};
use sundew::protocol::version::Version;

use crate::broker::{ALL, BEFORE_5, BOTH, V5, V311, story};
use crate::wire::{self, Connect, PINGREQ, Packet, Publish, frame, text};

/// [MQTT-3.1.4-5] [MQTT-3.2.0-1] [MQTT-3.2.2-8] [MQTT-4.2-1] [MQTT-3.12.4-1] [MQTT311-3.1.4-4] [MQTT311-3.2.0-1]
/// [MQTT311-3.12.4-1] [MQTT311-7.1.1-1] [MQTT311-7.0.0-2]
#[test]
fn a_connect_is_answered_by_a_connack_and_a_ping_by_a_ping() {
    story(ALL, |broker, version| {
        let mut client = broker.open(version);
        let (session_present, reason, _) = client.try_connect(&Connect::default());
        assert_eq!((session_present, reason), (false, 0));
        client.expect_ping_answered();
        client.expect_ping_answered();
    });
}

/// [MQTT-3.1.0-1] [MQTT-3.14.0-1] [MQTT311-3.1.0-1]
#[test]
fn what_is_not_a_connect_first_is_answered_by_silence() {
    story(BOTH, |broker, version| {
        let first_packets = [
            PINGREQ.to_vec(),
            Publish::new("a", "x", 0).encode(version),
            wire::subscribe(version, 1, &PropertiesBuf::new(), &[("a", 0)]),
            wire::disconnect(version, 0, &PropertiesBuf::new()),
            frame(0x20, &[0, 0]),
        ];
        for packet in first_packets {
            let mut client = broker.open(version);
            client.send(&packet);
            client.expect_closed();
        }
        let mut client = broker.open(Version::V5);
        client.send(&wire::auth(0x18, &PropertiesBuf::new()));
        client.expect_closed();
    });
}

/// [MQTT-3.1.0-2] [MQTT-3.2.0-2] [MQTT-4.13.1-1] [MQTT311-3.1.0-2] [MQTT311-4.8.0-1]
#[test]
fn a_second_connect_ends_the_connection() {
    story(ALL, |broker, version| {
        let mut client = broker.client("c", version);
        client.send(&Connect::default().encode(version));
        client.expect_disconnect(0x82);
    });
}

/// [MQTT-3.1.2-1] [MQTT311-3.1.2-1]
#[test]
fn another_protocol_name_is_not_served() {
    story(BOTH, |broker, version| {
        for name in ["MQTS", "mqtt", "MQTTX", "", "HTTP"] {
            let mut client = broker.open(version);
            let tail: &[u8] = if version == Version::V5 {
                &[0, 0, 1, b'c']
            } else {
                &[0, 1, b'c']
            };
            client.send(&frame(
                0x10,
                &[text(name), vec![version.level(), 2, 0, 60], tail.to_vec()].concat(),
            ));
            match client.receive_unless_closed() {
                None => {}
                Some(Packet::ConnAck { reason, .. }) => {
                    assert!(matches!(reason, 0x84 | 1), "{name}: {reason:#x}");
                    client.expect_closed();
                }
                Some(other) => panic!("{name}: {other:?}"),
            }
        }
    });
}

/// [MQTT-3.1.2-2] [MQTT311-3.1.2-2] [MQTT311-3.2.2-4] [MQTT311-3.2.2-5]
#[test]
fn an_unknown_protocol_level_is_refused_in_the_form_that_the_client_can_read() {
    story(BOTH, |broker, _| {
        for level in [0, 1, 2, 3, 6, 9, 127] {
            let mut client = broker.open(Version::V311);
            client.send(&frame(
                0x10,
                &[text("MQTT"), vec![level, 2, 0, 60, 0, 1, b'c']].concat(),
            ));
            let answer = client.receive_to_end();
            assert!(
                matches!(answer[..], [0x20, _, 0, 1 | 0x84, ..]),
                "level {level}: {answer:02x?}"
            );
        }
    });
}

/// [MQTT-3.1.2-3] [MQTT-3.1.4-1] [MQTT-3.1.3-1] [MQTT-3.1.3-3] [MQTT-3.1.2-9] [MQTT-3.1.2-11] [MQTT-3.1.2-12] [MQTT-3.1.2-13]
/// [MQTT-3.1.2-16] [MQTT-3.1.2-17] [MQTT-3.1.2-18] [MQTT-3.1.2-19] [MQTT311-3.1.2-3] [MQTT311-3.1.4-1] [MQTT311-3.1.3-1]
/// [MQTT311-3.1.3-3] [MQTT311-3.1.2-9] [MQTT311-3.1.2-11] [MQTT311-3.1.2-13] [MQTT311-3.1.2-14] [MQTT311-3.1.2-15]
/// [MQTT311-3.1.2-18] [MQTT311-3.1.2-19] [MQTT311-3.1.2-20] [MQTT311-3.1.2-21] [MQTT311-3.1.2-22]
#[test]
fn a_connect_whose_flags_and_payload_disagree_is_malformed() {
    story(BOTH, |broker, version| {
        let client_id = text("c");
        let will = if version == Version::V5 {
            vec![0, 0, 1, b'w', 0, 0]
        } else {
            vec![0, 1, b'w', 0, 0]
        };
        let user_name = text("u");
        let cases: Vec<(&str, u8, Vec<u8>)> = vec![
            ("the reserved flag", 0x03, client_id.clone()),
            ("no client identifier", 0x02, vec![]),
            ("will without topic", 0x06, client_id.clone()),
            (
                "will without payload",
                0x06,
                [client_id.clone(), will[..will.len() - 2].to_vec()].concat(),
            ),
            (
                "will fields without the flag",
                0x02,
                [client_id.clone(), will.clone()].concat(),
            ),
            ("will QoS without a will", 0x0A, client_id.clone()),
            ("will retain without a will", 0x22, client_id.clone()),
            ("will QoS 3", 0x1E, [client_id.clone(), will].concat()),
            ("user name flag without a user name", 0x82, client_id.clone()),
            (
                "a user name without the flag",
                0x02,
                [client_id.clone(), user_name.clone()].concat(),
            ),
            (
                "password flag without a password",
                0xC2,
                [client_id.clone(), user_name.clone()].concat(),
            ),
            (
                "a password without the flag",
                0x82,
                [client_id.clone(), user_name, text("p")].concat(),
            ),
            ("a client identifier cut short", 0x02, vec![0, 5, b'c']),
        ];
        for (fault, flags, payload) in cases {
            let mut head = [text("MQTT"), vec![version.level(), flags, 0, 60]].concat();
            head.extend((version == Version::V5).then_some(0));
            let mut client = broker.open(version);
            client.send(&frame(0x10, &[head, payload].concat()));
            expect_malformed_connect(&mut client, fault);
        }
    });
    story(V311, |broker, version| {
        let mut client = broker.open(version);
        let body = [
            text("MQTT"),
            vec![4, 0x42, 0, 60],
            text("c"),
            text("password without user name"),
        ]
        .concat();
        client.send(&frame(0x10, &body));
        expect_malformed_connect(&mut client, "password without user name");
    });
}

/// [MQTT-3.1.3-4] [MQTT-3.1.3-11] [MQTT-3.1.3-12] [MQTT-1.5.4-1] [MQTT-1.5.4-2] [MQTT311-3.1.3-4] [MQTT311-3.1.3-10]
/// [MQTT311-3.1.3-11] [MQTT311-1.5.3-1] [MQTT311-1.5.3-2]
#[test]
fn texts_of_a_connect_are_well_formed_utf8_without_null() {
    let faults: [&[u8]; 6] = [
        b"\xff",
        b"a\0b",
        b"\xed\xa0\x80",
        b"\xc0\xaf",
        b"\xf4\x90\x80\x80",
        b"\xe2\x82",
    ];
    story(BOTH, |broker, version| {
        for bad in faults {
            let fields = [[bad, b"w", b"u"], [b"c", bad, b"u"], [b"c", b"w", bad]];
            for [client_id, topic, user_name] in fields {
                let properties = if version == Version::V5 { vec![0] } else { vec![] };
                let body = [
                    text("MQTT"),
                    vec![version.level(), 0x86, 0, 60],
                    properties.clone(),
                    wire::prefixed(client_id),
                    properties,
                    wire::prefixed(topic),
                    wire::prefixed(b"payload"),
                    wire::prefixed(user_name),
                ];
                let mut client = broker.open(version);
                client.send(&frame(0x10, &body.concat()));
                expect_malformed_connect(&mut client, "ill-formed text");
            }
        }
    });
}

/// In 5.0 a CONNACK may say why; before, a malformed CONNECT gets no answer at all.
fn expect_malformed_connect(client: &mut crate::client::Client, fault: &str) {
    match client.receive_unless_closed() {
        None => {}
        Some(Packet::ConnAck {
            session_present,
            reason,
            ..
        }) if client.version() == Version::V5 => {
            assert!(
                !session_present && matches!(reason, 0x81 | 0x82 | 0x85 | 0x90),
                "{fault}: {reason:#x}"
            );
            client.expect_closed();
        }
        Some(packet) => panic!("{fault}: {packet:?}"),
    }
}

/// [MQTT-3.1.4-6] [MQTT-3.2.2-6] [MQTT-3.2.2-7] [MQTT-4.13.2-1] [MQTT311-3.1.4-5]
#[test]
fn what_follows_a_refused_connect_is_not_processed() {
    story(BOTH, |broker, version| {
        let mut witness = broker.client("witness", version);
        witness.subscribe("a", 0);
        let mut client = broker.open(version);
        let refused = frame(0x10, &[text("MQTT"), vec![9, 2, 0, 60, 0, 1, b'c']].concat());
        client.send(&[refused, Publish::new("a", "from a refused client", 0).encode(version)].concat());
        let answer = client.receive_to_end();
        assert!(
            matches!(answer[..], [0x20, 2, 0, 1 | 0x84] | [0x20, 3, 0, 0x84, 0]),
            "{answer:02x?}"
        );
        broker.client("other", version).expect_nothing_sent_to(&mut witness);
    });
}

/// [MQTT-3.1.3-5] [MQTT-3.1.3-2] [MQTT311-3.1.3-5] [MQTT311-3.1.3-2]
#[test]
fn client_identifiers_of_every_length_and_alphabet_name_different_sessions() {
    story(ALL, |broker, version| {
        let long = "x".repeat(23);
        let ids = [
            "a",
            "0123456789abcdefghijklm",
            "nopqrstuvwxyzABCDEFGHIJ",
            "KLMNOPQRSTUVWXYZ",
            &long,
        ];
        let mut clients: Vec<_> = ids.iter().map(|id| broker.client(id, version)).collect();
        for client in &mut clients {
            client.expect_ping_answered();
        }
    });
}

/// [MQTT-3.1.3-6] [MQTT-3.1.3-7] [MQTT-3.2.2-16]
#[test]
fn an_empty_client_identifier_gets_a_new_one_and_is_told() {
    story(V5, |broker, version| {
        let assigned = |client: &mut crate::client::Client, client_id: &str| {
            let (_, reason, properties) = client.try_connect(&Connect {
                client_id,
                ..Connect::default()
            });
            assert_eq!(reason, 0);
            properties
                .view()
                .text(PropertyId::AssignedClientIdentifier)
                .map(str::to_owned)
        };
        let (mut one, mut two) = (broker.open(version), broker.open(version));
        let first = assigned(&mut one, "").expect("an assigned client identifier");
        let second = assigned(&mut two, "").expect("an assigned client identifier");
        assert!(!first.is_empty() && first != second, "{first} and {second}");
        // It is the name of the session from now on: whoever connects with it takes the session over.
        let mut three = broker.open(version);
        assert_eq!(assigned(&mut three, &first), None);
        one.expect_disconnect(0x8E);
        two.expect_ping_answered();
    });
}

/// [MQTT311-3.1.3-6]
#[test]
fn an_empty_client_identifier_is_served_with_a_clean_session() {
    story(V311, |broker, version| {
        let mut one = broker.client("", version);
        let mut two = broker.client("", version);
        one.subscribe("a", 0);
        two.publish(Publish::new("a", "hello", 0));
        one.expect_text("a", "hello");
        two.expect_ping_answered();
    });
}

/// [MQTT311-3.1.3-7] [MQTT311-3.1.3-8] [MQTT311-3.1.3-9]
#[test]
fn an_empty_client_identifier_cannot_have_a_session_that_stays() {
    story(V311, |broker, version| {
        let mut client = broker.open(version);
        let answer = client.try_connect(&Connect {
            client_id: "",
            clean: false,
            ..Connect::default()
        });
        assert_eq!((answer.0, answer.1), (false, 2));
        client.expect_closed();
    });
}

/// [MQTT-3.1.4-3] [MQTT311-3.1.4-2]
#[test]
fn a_second_connection_of_a_client_takes_over() {
    story(ALL, |broker, version| {
        let mut old = broker.client("c", version);
        for _ in 0..5 {
            let mut new = broker.client("c", version);
            old.expect_disconnect(0x8E);
            new.expect_ping_answered();
            old = new;
        }
    });
}

/// The old connection's subscriptions live on in the new one, and a message published meanwhile is not lost.
#[test]
fn a_takeover_carries_the_session_over() {
    story(ALL, |broker, version| {
        let keep = Connect::lasting("c", version);
        let (mut old, _) = broker.connect(version, &keep);
        old.subscribe("a", 1);
        let mut publisher = broker.client("p", version);
        for round in 0..8 {
            let (mut new, session_present) = broker.connect(version, &keep);
            assert!(session_present || version == Version::V31);
            old.expect_disconnect(0x8E);
            publisher.publish(Publish::new("a", round.to_string(), 1));
            new.expect_text("a", &round.to_string());
            // The acknowledgement has arrived before the next connection takes over.
            new.expect_ping_answered();
            old = new;
        }
    });
}

/// [MQTT-3.2.2-22] [MQTT-3.1.2-22] [MQTT311-3.1.2-24]
#[test]
fn a_client_that_is_silent_for_one_and_a_half_keep_alives_is_dropped() {
    story(BOTH, |broker, version| {
        let (mut silent, _) = broker.connect(
            version,
            &Connect {
                keep_alive: 1,
                ..Connect::default()
            },
        );
        let (mut without, _) = broker.connect(
            version,
            &Connect {
                client_id: "d",
                keep_alive: 0,
                ..Connect::default()
            },
        );
        let since = std::time::Instant::now();
        silent.expect_disconnect(0x8D);
        let waited = since.elapsed().as_millis();
        assert!((1_400..4_500).contains(&waited), "dropped after {waited} ms");
        without.expect_ping_answered();
    });
}

/// Any packet counts, and a part of a packet does, too.
#[test]
fn a_client_that_sends_anything_is_not_dropped() {
    story(BOTH, |broker, version| {
        let (mut client, _) = broker.connect(
            version,
            &Connect {
                keep_alive: 1,
                ..Connect::default()
            },
        );
        let slow = Publish::new("a", "x", 1).encode(version);
        // One byte every 600 ms: longer than the keep alive before the packet is whole.
        for byte in &slow {
            client.send(&[*byte]);
            std::thread::sleep(std::time::Duration::from_millis(600));
        }
        client.await_ack(wire::PUBACK, 1);
        client.expect_ping_answered();
    });
}

/// [MQTT-3.14.4-2] [MQTT-3.14.1-1] [MQTT311-3.14.1-1]
#[test]
fn a_disconnect_is_the_end_of_the_connection() {
    story(ALL, |broker, version| {
        broker.client("c", version).disconnect();
        let mut client = broker.client("c", version);
        client.send(&[0xE1, 0]);
        client.expect_disconnect(0x81);
    });
}

/// [MQTT-3.14.2-1] [MQTT-3.14.2-2] [MQTT-3.14.4-1]
#[test]
fn a_disconnect_from_the_broker_has_a_reason_and_is_the_last_packet() {
    story(V5, |broker, version| {
        let mut client = broker.client("c", version);
        client.subscribe("a", 0);
        let bad = Publish {
            qos: 0,
            topic: "a/#".into(),
            ..Publish::default()
        }
        .encode(version);
        client.send_lossy(&[bad, Publish::new("a", "too late", 0).encode(version)].concat());
        let properties = client.expect_disconnect_of(&[0x81, 0x82, 0x90]);
        assert_eq!(properties.view().u32(PropertyId::SessionExpiryInterval), None);
    });
}

/// Long identifiers and every printable character: [MQTT 3.1.1 section 3.1.3.1] lets a server accept more than it must.
#[test]
fn long_and_unusual_client_identifiers_are_welcome() {
    story(ALL, |broker, version| {
        let long = "x".repeat(500);
        for id in [
            "govee2mqtt/light:1",
            "two words",
            "a+b#c",
            "\u{fc}mlaut",
            "owntracks-\u{1f600}",
            &long,
        ] {
            broker.client(id, version).expect_ping_answered();
        }
    });
}

/// What bridges of mosquitto send: the highest bit of the level set.
#[test]
fn a_bridge_of_mosquitto_is_welcome() {
    story(BEFORE_5, |broker, version| {
        let mut bytes = Connect::default().encode(version);
        let level = 4 + if version == Version::V31 { 6 } else { 4 };
        assert_eq!(bytes[level], version.level());
        bytes[level] |= 0x80;
        let mut client = broker.open(version);
        client.send(&bytes);
        assert_eq!(client.expect_connack().1, 0);
        client.expect_ping_answered();
    });
}
