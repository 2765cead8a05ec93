//! Bytes that are no MQTT: refused with a reason where the version can tell it, and never more than the connection is lost.

use sundew::protocol::property::{PropertiesBuf, PropertyId};
use sundew::protocol::version::Version;

use crate::broker::{BOTH, V5, story};
use crate::hostile::resident_bytes;
use crate::wire::{self, Connect, Packet, Publish, frame};

/// [MQTT-2.1.3-1] [MQTT-3.6.1-1] [MQTT-3.15.1-1] [MQTT311-2.2.2-1] [MQTT311-2.2.2-2] [MQTT311-3.6.1-1]
#[test]
fn reserved_flags_of_the_first_byte_end_the_connection() {
    let mut cases = vec![];
    for (kind, right, body) in [
        (0x40_u8, 0, &[0, 1][..]),
        (0x50, 0, &[0, 1]),
        (0x60, 2, &[0, 1]),
        (0x70, 0, &[0, 1]),
        (0xC0, 0, &[]),
        (0xE0, 0, &[]),
    ] {
        cases.extend(
            (0..16)
                .filter(|flags| *flags != right)
                .map(|flags| frame(kind | flags, body)),
        );
    }
    story(BOTH, |broker, version| {
        for bytes in &cases {
            let mut client = broker.client("c", version);
            client.send(bytes);
            client.expect_disconnect_because(&format!("{bytes:02x?}"), &[0x81]);
        }
    });
    story(V5, |broker, version| {
        for flags in 1..16 {
            let mut client = broker.client("c", version);
            client.send(&frame(0xF0 | flags, &[0x18, 0]));
            client.expect_disconnect_of(&[0x81, 0x82]);
        }
    });
}

/// [MQTT-3.3.1-4] [MQTT311-3.3.1-4] [MQTT-3.3.1-2]
#[test]
fn qos_3_and_a_duplicate_at_qos_0_end_the_connection() {
    story(BOTH, |broker, version| {
        for first in [0x36, 0x37, 0x3E, 0x3F, 0x38, 0x39] {
            let mut client = broker.client("c", version);
            let mut bytes = Publish::new("a", "x", u8::from(first & 6 != 0)).encode(version);
            bytes[0] = first;
            client.send(&bytes);
            client.expect_disconnect_because(&format!("{first:#x}"), &[0x81, 0x82]);
        }
    });
}

/// [MQTT-1.5.5-1] [MQTT311-4.8.0-1]
#[test]
fn a_length_in_too_many_bytes_ends_the_connection() {
    story(BOTH, |broker, version| {
        for bytes in [
            &[0xC0, 0x80, 0x00][..],
            &[0xC0, 0xFF, 0xFF, 0xFF, 0xFF, 0x01],
            &[0x30, 0x80, 0x80, 0x80, 0x80, 0x01],
        ] {
            let mut client = broker.client("c", version);
            client.send(bytes);
            client.expect_disconnect_because(&format!("{bytes:02x?}"), &[0x81, 0x95]);
        }
    });
    story(V5, |broker, version| {
        let mut client = broker.client("c", version);
        client.send(&frame(0x30, &[0, 1, b'a', 0x80, 0x00, b'x']));
        client.expect_disconnect(0x81);
    });
}

/// [MQTT-4.13.1-1] [MQTT311-4.8.0-1]
#[test]
fn packets_that_a_client_never_sends_end_the_connection() {
    story(BOTH, |broker, version| {
        let mut cases = vec![
            ("type 0", frame(0x00, &[])),
            ("CONNACK", frame(0x20, &[0, 0])),
            ("SUBACK", frame(0x90, &[0, 1, 0])),
            ("UNSUBACK", frame(0xB0, &[0, 1])),
            ("PINGRESP", frame(0xD0, &[])),
            ("PINGREQ with a body", frame(0xC0, &[0])),
            ("PUBACK cut short", frame(0x40, &[0])),
            ("PUBACK without an identifier", frame(0x40, &[0, 0])),
            ("PUBLISH without a topic", frame(0x30, &[])),
            ("PUBLISH with half a topic", frame(0x30, &[0, 9, b'a'])),
            ("PUBLISH without its identifier", frame(0x32, &[0, 1, b'a'])),
            ("SUBSCRIBE without an identifier", frame(0x82, &[])),
        ];
        if !version.has_properties() {
            cases.push(("AUTH before 5.0", frame(0xF0, &[0, 0])));
            cases.push(("PUBACK with a byte too many", frame(0x40, &[0, 1, 0])));
            cases.push(("DISCONNECT with a reason", frame(0xE0, &[0])));
        }
        for (fault, bytes) in cases {
            let mut client = broker.client("c", version);
            client.send(&bytes);
            client.expect_disconnect_because(fault, &[0x81, 0x82]);
        }
    });
}

/// Reason codes and properties that do not belong there. [MQTT-3.14.2-1] is about what the broker sends; this is its mirror.
#[test]
fn reasons_and_properties_that_the_standard_does_not_list_end_the_connection() {
    story(V5, |broker, version| {
        for (fault, bytes) in [
            ("PUBACK with an unknown reason", frame(0x40, &[0, 1, 0x7F])),
            ("PUBREC with granted QoS 1", frame(0x50, &[0, 1, 0x01])),
            ("PUBREL with not authorised", frame(0x62, &[0, 1, 0x87])),
            ("PUBACK with a content type", frame(0x40, &[0, 1, 0, 4, 3, 0, 1, b'a'])),
            (
                "PUBACK with two reason strings",
                frame(0x40, &[0, 1, 0, 8, 0x1F, 0, 1, b'a', 0x1F, 0, 1, b'a']),
            ),
            ("DISCONNECT with an unknown reason", frame(0xE0, &[0x77])),
            ("properties longer than the packet", frame(0xE0, &[0, 9])),
        ] {
            let mut client = broker.client("c", version);
            client.send(&bytes);
            client.expect_disconnect_because(fault, &[0x81, 0x82]);
        }
    });
}

/// Properties of a CONNECT: twice, out of range, of another packet.
#[test]
fn properties_of_a_connect_are_checked() {
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("receive maximum twice", vec![0x21, 0, 1, 0x21, 0, 1]),
        ("receive maximum 0", vec![0x21, 0, 0]),
        ("maximum packet size 0", vec![0x27, 0, 0, 0, 0]),
        ("request problem information 2", vec![0x17, 2]),
        ("request response information 2", vec![0x19, 2]),
        ("authentication data without a method", vec![0x16, 0, 1, b'x']),
        ("a will delay", vec![0x18, 0, 0, 0, 1]),
        ("an unknown property", vec![0x04, 0]),
        ("a property cut short", vec![0x11, 0]),
        ("a user property cut short", vec![0x26, 0, 1, b'a']),
    ];
    story(V5, |broker, _| {
        for (fault, properties) in &cases {
            let length = u8::try_from(properties.len()).unwrap();
            let body = [
                wire::text("MQTT"),
                vec![5, 2, 0, 60, length],
                properties.clone(),
                wire::text("c"),
            ]
            .concat();
            let mut client = broker.open(Version::V5);
            client.send(&frame(0x10, &body));
            match client.receive_unless_closed() {
                None => {}
                Some(Packet::ConnAck {
                    reason: 0x81 | 0x82, ..
                }) => client.expect_closed(),
                Some(other) => panic!("{fault}: {other:?}"),
            }
        }
    });
}

/// [MQTT-4.13.2-1]
#[test]
fn a_violation_costs_its_connection_and_no_other() {
    story(BOTH, |broker, version| {
        let mut canary = broker.client("canary", version);
        canary.subscribe("a", 1);
        let mut random = 0x2545_F491_4F6C_DD1D_u64;
        for round in 0..200 {
            let mut client = broker.open(version);
            let mut bytes = if round % 2 == 0 {
                Connect::default().encode(version)
            } else {
                Vec::new()
            };
            for _ in 0..40 {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                bytes.extend(random.to_le_bytes());
            }
            client.send_lossy(&bytes);
            drop(client);
        }
        canary.publish(Publish::new("a", "still here", 1));
        canary.expect_text("a", "still here");
    });
}

/// Every packet may come in any number of pieces, and many in one.
#[test]
fn packets_are_read_however_they_are_cut() {
    story(BOTH, |broker, version| {
        let mut bytes = Connect::default().encode(version);
        bytes.extend(wire::subscribe(version, 1, &PropertiesBuf::new(), &[("a", 1)]));
        bytes.extend(Publish::new("a", vec![b'x'; 200], 1).id(2).encode(version));
        bytes.extend(wire::PINGREQ);
        for size in [1, 2, 3, 5, 64, bytes.len()] {
            let mut client = broker.open(version);
            for piece in bytes.chunks(size) {
                client.send(piece);
            }
            assert_eq!(client.expect_connack().1, 0);
            let mut kinds: Vec<_> = (0..4)
                .map(|_| match client.receive() {
                    Packet::SubAck { .. } => "SUBACK",
                    Packet::PubAck(_) => "PUBACK",
                    Packet::Publish(_) => "PUBLISH",
                    Packet::PingResp => "PINGRESP",
                    other => panic!("{other:?}"),
                })
                .collect();
            kinds.sort_unstable();
            assert_eq!(kinds, ["PINGRESP", "PUBACK", "PUBLISH", "SUBACK"]);
        }
    });
}

/// A length is a promise, not a reason to set memory aside: many connections that announce 200 MB and send nothing.
#[test]
fn an_announced_length_costs_nothing() {
    story(BOTH, |broker, version| {
        let before = resident_bytes();
        let mut clients: Vec<_> = (0..50)
            .map(|number| broker.client(&number.to_string(), version))
            .collect();
        for client in &mut clients {
            client.send_lossy(&[0x30, 0x80, 0x80, 0x80, 0x08, 0, 1, b'a']);
        }
        broker.client("last", version).expect_ping_answered();
        let grown = resident_bytes().saturating_sub(before);
        assert!(grown < 64 << 20, "{} KiB more", grown >> 10);
    });
}

/// Why it was is told in words, unless the client does not want to know.
#[test]
fn a_disconnect_says_why() {
    story(V5, |broker, version| {
        let mut client = broker.client("c", version);
        client.send(&Publish::new("a/#", "x", 0).encode(version));
        let said = client.expect_disconnect_of(&[0x81, 0x82, 0x90]);
        assert!(
            said.view()
                .text(PropertyId::ReasonString)
                .is_some_and(|text| text.len() > 5),
            "{said:?}"
        );
    });
}
