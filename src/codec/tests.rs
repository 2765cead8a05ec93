//! Stories over whole packets: what is written is read back, and what the standard forbids is refused by its exact fault.

mod table;

use super::*;
use crate::protocol::ids::PacketId;
use crate::protocol::packet::{Ack, Auth, Connect, Disconnect, Publish, SubAck, Subscribe, SubscriptionOptions, Will};
use crate::protocol::property::{Properties, PropertiesBuf, PropertyId};
use crate::protocol::qos::QoS;
use crate::protocol::reason::ReasonCode;
use crate::protocol::topic::{TopicFilter, TopicName};

const OPTIONS: DecodeOptions = DecodeOptions {
    packet_bytes_max: PACKET_BYTES_MAX,
    strict_utf8: false,
    topic_separators_max: 200,
    topic_bytes_max: u16::MAX,
    user_properties_max: u16::MAX,
    filters_max: 65_536,
};

fn id(value: u16) -> PacketId {
    PacketId::new(value).unwrap()
}

/// Writes a packet, reads it back whole, and finds every part of it to be incomplete.
fn check_round_trip(packet: &Packet<'_>, version: Version, role: Role) -> Vec<u8> {
    let mut out = b"before".to_vec();
    let bytes = encode(packet, version, &mut out).unwrap();
    let frame = out.split_off(6);
    assert_eq!(frame.len(), bytes);
    let read_as = (!matches!(packet, Packet::Connect(_))).then_some(version);
    for cut in 0..frame.len() {
        assert_eq!(
            decode(&frame[..cut], read_as, role, &OPTIONS),
            Ok(None),
            "{packet:?} cut at {cut}"
        );
    }
    let mut behind = frame.clone();
    behind.extend_from_slice(&[0xFF; 3]);
    let (read, consumed) = decode(&behind, read_as, role, &OPTIONS).unwrap().unwrap();
    assert_eq!((&read, consumed), (packet, bytes));
    assert_eq!(frame_length(&behind, PACKET_BYTES_MAX), Ok(Some(bytes)));
    frame
}

#[test]
fn a_connect_with_everything_is_read_back_in_every_version() {
    let mut block = PropertiesBuf::new();
    block
        .push_u32(PropertyId::SessionExpiryInterval, 60)
        .push_user_property("a", "1")
        .push_user_property("a", "1");
    let mut will_block = PropertiesBuf::new();
    will_block
        .push_u32(PropertyId::WillDelayInterval, 0)
        .push_text(PropertyId::ResponseTopic, "answers");
    for version in Version::ALL {
        let properties = |block: Properties<'static>| {
            if version.has_properties() {
                block
            } else {
                Properties::EMPTY
            }
        };
        let block = properties(Properties::from_checked(block.view().as_bytes().to_vec().leak()));
        let will_block = properties(Properties::from_checked(will_block.view().as_bytes().to_vec().leak()));
        let connect = Connect {
            version,
            is_bridge: !version.has_properties(),
            clean_start: true,
            keep_alive: 65_535,
            client_id: "ünïque",
            will: Some(Will {
                topic: TopicName::parse("will/topic").unwrap(),
                payload: &[0, 255, 0],
                qos: QoS::ExactlyOnce,
                retain: true,
                properties: will_block,
            }),
            user_name: Some(""),
            password: Some(&[0, 0xFF]),
            properties: block,
        };
        check_round_trip(&Packet::Connect(connect), version, Role::Server);
    }
}

#[test]
fn a_connect_with_little_is_read_back_in_every_version() {
    let will = Will {
        topic: TopicName::parse("w").unwrap(),
        payload: &[],
        qos: QoS::AtMostOnce,
        retain: false,
        properties: Properties::EMPTY,
    };
    let cases = Version::ALL.map(|version| [(version, None), (version, Some(will))]);
    for (version, will) in cases.into_iter().flatten() {
        let packet = Packet::Connect(Connect {
            version,
            is_bridge: false,
            clean_start: false,
            keep_alive: 0,
            client_id: "c",
            will,
            user_name: None,
            password: None,
            properties: Properties::EMPTY,
        });
        check_round_trip(&packet, version, Role::Server);
    }
}

#[test]
fn a_return_code_says_the_reason_that_mqtt_5_has_for_it() {
    let reasons = [
        ReasonCode::Success,
        ReasonCode::UnsupportedProtocolVersion,
        ReasonCode::ClientIdentifierNotValid,
        ReasonCode::ServerUnavailable,
        ReasonCode::BadUserNameOrPassword,
        ReasonCode::NotAuthorized,
    ];
    for (code, expected) in (0..).zip(reasons) {
        let bytes = [0x20, 2, 0, code];
        let read = decode(&bytes, Some(Version::V311), Role::Client, &OPTIONS).unwrap();
        let Some((Packet::ConnAck(ack), 4)) = read else {
            panic!("{read:?}");
        };
        assert_eq!(ack.reason, expected);
    }
}

#[test]
fn acknowledgements_take_their_shortest_form() {
    let ack = |reason| Ack {
        packet_id: id(0x1234),
        reason,
        properties: Properties::EMPTY,
    };
    let success = Packet::PubRel(ack(ReasonCode::Success));
    let failure = Packet::PubRel(ack(ReasonCode::PacketIdentifierNotFound));
    assert_eq!(
        check_round_trip(&success, Version::V5, Role::Server),
        [0x62, 2, 0x12, 0x34]
    );
    assert_eq!(
        check_round_trip(&failure, Version::V5, Role::Client),
        [0x62, 3, 0x12, 0x34, 0x92]
    );
    assert_eq!(
        check_round_trip(&success, Version::V31, Role::Client),
        [0x62, 2, 0x12, 0x34]
    );
    let disconnect = |reason| {
        Packet::Disconnect(Disconnect {
            reason,
            properties: Properties::EMPTY,
        })
    };
    assert_eq!(
        check_round_trip(&disconnect(ReasonCode::Success), Version::V5, Role::Server),
        [0xE0, 0]
    );
    assert_eq!(
        check_round_trip(&disconnect(ReasonCode::ServerBusy), Version::V5, Role::Client),
        [0xE0, 1, 0x89]
    );
    let done = Packet::Auth(Auth {
        reason: ReasonCode::Success,
        properties: Properties::EMPTY,
    });
    assert_eq!(check_round_trip(&done, Version::V5, Role::Client), [0xF0, 0]);
}

#[test]
fn a_subscription_is_read_back_and_a_failure_is_0x80_before_mqtt_5() {
    let filters = vec![
        (
            TopicFilter::parse("$share/g/a/+").unwrap(),
            SubscriptionOptions::default(),
        ),
        (
            TopicFilter::parse("#").unwrap(),
            SubscriptionOptions {
                qos: QoS::ExactlyOnce,
                ..Default::default()
            },
        ),
    ];
    for version in Version::ALL {
        let subscribe = Subscribe {
            packet_id: id(1),
            properties: Properties::EMPTY,
            filters: filters.clone(),
        };
        check_round_trip(&Packet::Subscribe(subscribe), version, Role::Server);
    }
    let reasons = vec![ReasonCode::GrantedQos2, ReasonCode::NotAuthorized];
    let ack = Packet::SubAck(SubAck {
        packet_id: id(1),
        properties: Properties::EMPTY,
        reasons,
    });
    check_round_trip(&ack, Version::V5, Role::Client);
    let mut out = Vec::new();
    encode(&ack, Version::V311, &mut out).unwrap();
    assert_eq!(out, [0x90, 4, 0, 1, 2, 0x80]);
}

#[test]
fn a_publish_of_every_length_of_length_is_read_back() {
    for payload in [0, 1, 119, 120, 16_374, 16_375, 2_097_142, 2_097_143] {
        let payload = vec![7; payload];
        let publish = Publish {
            dup: true,
            qos: QoS::AtLeastOnce,
            retain: true,
            topic: Some(TopicName::parse("topic").unwrap()),
            packet_id: Some(id(9)),
            properties: Properties::EMPTY,
            payload: &payload,
        };
        let mut out = Vec::new();
        let bytes = encode(&Packet::Publish(publish), Version::V311, &mut out).unwrap();
        let read = decode(&out, Some(Version::V311), Role::Client, &OPTIONS).unwrap();
        assert_eq!(read, Some((Packet::Publish(publish), bytes)));
    }
}

#[test]
fn a_frame_put_together_is_the_packet_it_describes_and_can_be_patched() {
    let mut forwarded = PropertiesBuf::new();
    forwarded.push_text(PropertyId::ContentType, "text/plain");
    let frame = PublishFrame {
        topic: "a/b",
        qos: QoS::AtLeastOnce,
        retain: false,
        dup: false,
        packet_id: Some(id(1)),
        topic_alias: Some(5),
        message_expiry: Some(70),
        subscription_identifiers: &[1, 300],
        properties: forwarded.view(),
        payload: b"hello",
    };
    for version in Version::ALL {
        let mut out = vec![0xEE];
        let span = frame.write(version, &mut out).unwrap();
        let packet = &mut out[1..];
        assert_eq!(
            (packet.len(), packet.len()),
            (span.packet_bytes, frame.encoded_len(version))
        );
        assert_eq!(&packet[span.payload_at..], b"hello");
        patch_packet_id(packet, span.packet_id_at.unwrap(), id(0x0203));
        let (read, _) = decode(packet, Some(version), Role::Client, &OPTIONS).unwrap().unwrap();
        let Packet::Publish(publish) = read else {
            panic!("{read:?}")
        };
        assert_eq!(publish.packet_id, Some(id(0x0203)));
        if version.has_properties() {
            let ids: Vec<_> = publish.properties.iter().map(|(id, _)| id as u8).collect();
            assert_eq!(ids, [0x23, 0x0B, 0x0B, 0x03, 0x02]);
        } else {
            assert!(publish.properties.is_empty());
        }
        let mut header = Vec::new();
        assert_eq!(frame.write_header(version, &mut header), Ok(span));
        assert_eq!(header.len(), span.payload_at);
    }
}

#[test]
fn what_cannot_be_written_leaves_no_trace() {
    let mut out = b"before".to_vec();
    let long = "x".repeat(65_536);
    let connect = Connect {
        version: Version::V5,
        is_bridge: false,
        clean_start: true,
        keep_alive: 0,
        client_id: &long,
        will: None,
        user_name: None,
        password: None,
        properties: Properties::EMPTY,
    };
    let too_long = Err(EncodeError::FieldTooLong { bytes: 65_536 });
    assert_eq!(encode(&Packet::Connect(connect), Version::V5, &mut out), too_long);
    let mut publish = Publish {
        dup: false,
        qos: QoS::AtLeastOnce,
        retain: false,
        topic: None,
        packet_id: None,
        properties: Properties::EMPTY,
        payload: b"",
    };
    assert_eq!(
        encode(&Packet::Publish(publish), Version::V5, &mut out),
        Err(EncodeError::PacketIdMissing)
    );
    publish.qos = QoS::AtMostOnce;
    let not_in_311 = Err(EncodeError::NotInVersion(Version::V311));
    assert_eq!(encode(&Packet::Publish(publish), Version::V311, &mut out), not_in_311);
    let auth = Auth {
        reason: ReasonCode::Success,
        properties: Properties::EMPTY,
    };
    assert_eq!(encode(&Packet::Auth(auth), Version::V311, &mut out), not_in_311);
    assert_eq!(out, b"before");
}
