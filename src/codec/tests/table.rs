//! One row for everything that the standard forbids, and for what looks wrong and is not: bytes, and the exact fault.

use super::*;
use crate::protocol::topic::TopicError;
use ErrorKind as E;
use PropertyId as Id;

/// Who reads, and what was agreed before.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Reads {
    /// A server, the first packet.
    First,
    /// A server that speaks 3.1, 3.1.1 or 5.0.
    S31,
    S311,
    S5,
    /// A client that speaks 3.1, 3.1.1 or 5.0.
    C31,
    C311,
    C5,
}
use Reads::{C5, C31, C311, First, S5, S31, S311};

impl Reads {
    fn arguments(self) -> (Option<Version>, Role) {
        match self {
            First => (None, Role::Server),
            S31 => (Some(Version::V31), Role::Server),
            S311 => (Some(Version::V311), Role::Server),
            S5 => (Some(Version::V5), Role::Server),
            C31 => (Some(Version::V31), Role::Client),
            C311 => (Some(Version::V311), Role::Client),
            C5 => (Some(Version::V5), Role::Client),
        }
    }
}

/// Bytes as they are written in the tables: hexadecimal, `s:text` with its length before it, `r:text` without, and `{ … }` for
/// a block with its length of one byte before it.
fn bytes(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut open = Vec::new();
    for token in text.split_whitespace() {
        if let Some(string) = token.strip_prefix("s:") {
            out.extend_from_slice(&(string.len() as u16).to_be_bytes());
            out.extend_from_slice(string.as_bytes());
        } else if let Some(raw) = token.strip_prefix("r:") {
            out.extend_from_slice(raw.as_bytes());
        } else if token == "{" {
            open.push(out.len());
            out.push(0);
        } else if token == "}" {
            let at = open.pop().expect("a { before every }");
            out[at] = u8::try_from(out.len() - at - 1).expect("a short block");
        } else {
            let digits = token
                .as_bytes()
                .chunks(2)
                .map(|pair| std::str::from_utf8(pair).unwrap());
            out.extend(digits.map(|pair| u8::from_str_radix(pair, 16).expect("hexadecimal digits")));
        }
    }
    assert!(open.is_empty(), "a }} for every {{: {text}");
    out
}

fn check(rows: &[(Reads, &str, Result<(), ErrorKind>)]) {
    for (reads, text, expected) in rows {
        let frame = bytes(text);
        let (version, role) = reads.arguments();
        let read = decode(&frame, version, role, &OPTIONS);
        let outcome = match &read {
            Ok(Some((_, consumed))) if *consumed == frame.len() => Ok(()),
            Ok(_) => panic!("{reads:?} {text}: {read:?}"),
            Err(error) => Err(error.kind),
        };
        assert_eq!(&outcome, expected, "{reads:?} {text}");
        if let Err(error) = read {
            assert!(error.offset <= frame.len(), "{reads:?} {text}: {error:?}");
            // The same fault, whatever comes behind the packet.
            let mut behind = frame.clone();
            behind.extend_from_slice(&[0x30, 0, 0]);
            assert_eq!(decode(&behind, version, role, &OPTIONS), Err(error), "{reads:?} {text}");
        }
    }
}

#[test]
#[rustfmt::skip] // one row a line
fn connect() {
    check(&[
        (First, "10 { s:MQTT 04 02 003c s:ab }", Ok(())),
        (First, "10 { s:MQTT 05 02 003c { } s:ab }", Ok(())),
        (First, "10 { s:MQIsdp 03 02 003c s:ab }", Ok(())),
        (First, "10 { s:MQIsdp 83 02 003c s:ab }", Ok(())),
        (First, "10 { s:MQTT 84 02 003c s:ab }", Ok(())),
        (First, "10 { s:MQTT 04 02 003c s: }", Ok(())),
        (First, "10 { s:MQTT 05 00 003c { } s: }", Ok(())),
        (First, "10 { s:MQTT 04 00 003c s: }", Ok(())),
        (First, "10 { s:MQIsdp 03 02 003c s: }", Ok(())),
        (First, "10 { s:MQTT 04 c2 0000 s:ab s: 0003 00ff00 }", Ok(())),
        (First, "10 { s:MQTT 05 42 0000 { } s:ab 0001 ff }", Ok(())),
        (First, "10 { s:MQTT 04 42 0000 s:ab s:secret }", Err(E::PasswordWithoutUserName)),
        (First, "10 { s:MQTT 04 2e 0000 s:ab s:w s:gone }", Ok(())),
        (First, "10 { s:MQTT 05 36 0000 { } s:ab { } s:w s:gone }", Ok(())),
        (First, "1f { s:MQTT 04 02 003c s:ab }", Err(E::FixedHeaderFlags(0x0F))),
        (First, "14 { s:MQIsdp 03 03 003c s:ab }", Ok(())),
        (First, "10 { s:MQIsdp 03 c2 003c s:ab }", Ok(())),
        (First, "10 { s:MQTT 04 c2 003c s:ab }", Err(E::Short)),
        (First, "10 { s:MQTT 04 03 003c s:ab }", Err(E::ConnectFlags(3))),
        (First, "10 { s:MQTT 05 03 003c { } s:ab }", Err(E::ConnectFlags(3))),
        (First, "10 { s:MQTT 04 0a 003c s:ab }", Err(E::ConnectFlags(0x0A))),
        (First, "10 { s:MQTT 04 22 003c s:ab }", Err(E::ConnectFlags(0x22))),
        (First, "10 { s:MQTT 04 1e 003c s:ab s:w s:gone }", Err(E::ConnectFlags(0x1E))),
        (First, "10 { s:MQTT 04 06 003c s:ab s: s:gone }", Err(E::WillTopic(TopicError::Empty))),
        (First, "10 { s:MQTT 04 06 003c s:ab s:w/# s:gone }", Err(E::WillTopic(TopicError::Wildcard))),
        (First, "10 { s:MQTT 04 06 003c s:ab s:w }", Err(E::Short)),
        (First, "10 { s:MQTT 04 02 003c s:ab 00 }", Err(E::TrailingBytes)),
        (First, "10 { s:MQTT 05 02 003c { } s:ab s:user }", Err(E::TrailingBytes)),
        (First, "10 { s:MQTT 04 02 003c }", Err(E::Short)),
        (First, "10 { }", Err(E::Short)),
        (First, "10 { s:MQTT 04 02 003c 0002 6100 }", Err(E::NullCharacter)),
        (First, "10 { s:MQTT 04 02 003c 0003 eda080 }", Err(E::Utf8)),
        (First, "10 { s:MQTT 04 82 003c s:ab 0002 c080 }", Err(E::Utf8)),
        (First, "10 { s:MQTT 03 02 003c s:ab }", Err(E::ProtocolLevel(3))),
        (First, "10 { s:MQTT 06 02 003c s:ab }", Err(E::ProtocolLevel(6))),
        (First, "10 { s:MQTT 85 02 003c { } s:ab }", Err(E::ProtocolLevel(0x85))),
        (First, "10 { s:MQIsdp 04 02 003c s:ab }", Err(E::ProtocolLevel(4))),
        (First, "10 { s:mqtt 04 02 003c s:ab }", Err(E::ProtocolName)),
        (First, "10 { s: 04 02 003c s:ab }", Err(E::ProtocolName)),
        (First, "c0 00", Err(E::ConnectExpected)),
        (First, "30 { s:a }", Err(E::ConnectExpected)),
        (First, "00 00", Err(E::ConnectExpected)),
        (S311, "10 { s:MQTT 04 02 003c s:ab }", Err(E::SecondConnect)),
        (C5, "10 { s:MQTT 05 02 003c { } s:ab }", Err(E::WrongSender)),
        (First, "10 81 80 00", Err(E::RemainingLength)),
        (First, "10 ff ff ff ff 7f", Err(E::RemainingLength)),
    ]);
}

#[test]
#[rustfmt::skip] // one row a line
fn properties_of_connect_and_will() {
    check(&[
        (First, "10 { s:MQTT 05 02 003c { 11ffffffff 21ffff 27ffffffff 220000 1900 1701 } s:ab }", Ok(())),
        (First, "10 { s:MQTT 05 02 003c { 15 s:method 16 0002 00ff 26 s:a s:b 26 s:a s:b } s:ab }", Ok(())),
        (First, "10 { s:MQTT 05 02 003c { 16 0002 00ff } s:ab }", Err(E::AuthenticationMethodMissing)),
        (First, "10 { s:MQTT 05 02 003c { 210000 } s:ab }", Err(E::PropertyValue(Id::ReceiveMaximum))),
        (First, "10 { s:MQTT 05 02 003c { 2700000000 } s:ab }", Err(E::PropertyValue(Id::MaximumPacketSize))),
        (First, "10 { s:MQTT 05 02 003c { 1702 } s:ab }", Err(E::PropertyValue(Id::RequestProblemInformation))),
        (First, "10 { s:MQTT 05 02 003c { 19ff } s:ab }", Err(E::PropertyValue(Id::RequestResponseInformation))),
        (First, "10 { s:MQTT 05 02 003c { 210001 210001 } s:ab }", Err(E::PropertyTwice(Id::ReceiveMaximum))),
        (First, "10 { s:MQTT 05 02 003c { 230001 } s:ab }", Err(E::PropertyNotAllowed(Id::TopicAlias))),
        (First, "10 { s:MQTT 05 02 003c { 0400 } s:ab }", Err(E::PropertyUnknown(4))),
        (First, "10 { s:MQTT 05 02 003c { 8001 } s:ab }", Err(E::PropertyUnknown(0x80))),
        (First, "10 { s:MQTT 05 02 003c 8000 s:ab }", Err(E::VariableByteInteger)),
        (First, "10 { s:MQTT 05 02 003c 20 s:ab }", Err(E::Short)),
        (First, "10 { s:MQTT 05 02 003c 02 1100000000 s:ab }", Err(E::Short)),
        (First, "10 { s:MQTT 05 02 003c { 26 s:a 0002 6200 } s:ab }", Err(E::NullCharacter)),
        (First, "10 { s:MQTT 05 02 003c { 15 0001 ff } s:ab }", Err(E::Utf8)),
        (First, "10 { s:MQTT 05 06 003c { } s:ab { 1800000000 0200000000 0101 03 s:t } s:w s:gone }", Ok(())),
        (First, "10 { s:MQTT 05 06 003c { } s:ab { 08 s:a/+ } s:w s:gone }", Err(E::PropertyValue(Id::ResponseTopic))),
        (First, "10 { s:MQTT 05 06 003c { } s:ab { 08 s: } s:w s:gone }", Err(E::PropertyValue(Id::ResponseTopic))),
        (First, "10 { s:MQTT 05 06 003c { } s:ab { 1100000000 } s:w s:gone }", Err(E::PropertyNotAllowed(Id::SessionExpiryInterval))),
    ]);
}

#[test]
#[rustfmt::skip] // one row a line
fn publish() {
    check(&[
        (S311, "30 { s:a }", Ok(())),
        (S311, "33 { s:a 0001 r:x }", Ok(())),
        (S5, "3d { s:a 0001 { } 00ff }", Ok(())),
        (C31, "3a { s:a 0001 }", Ok(())),
        (S5, "30 { s:a { 0101 0200000000 03 s:t 08 s:r 09 0001 00 230001 26 s:k s:v 26 s:k s:v } }", Ok(())),
        (S5, "30 { s: { 230001 } r:x }", Ok(())),
        (C5, "30 { s:a { 0b01 0bffffff7f } }", Ok(())),
        (S311, "36 { s:a 0001 }", Err(E::PublishQoS)),
        (S5, "3e { s:a 0001 { } }", Err(E::PublishQoS)),
        (S311, "38 { s:a }", Err(E::PublishDup)),
        (S311, "32 { s:a 0000 }", Err(E::PacketIdZero)),
        (S311, "32 { s:a 00 }", Err(E::Short)),
        (S311, "30 { 0005 r:abc }", Err(E::Short)),
        (S311, "30 { }", Err(E::Short)),
        (S311, "30 { s: }", Err(E::TopicName(TopicError::Empty))),
        (S5, "30 { s: { } }", Err(E::TopicMissing)),
        (S311, "30 { s:a/+/b }", Err(E::TopicName(TopicError::Wildcard))),
        (S5, "30 { s:a/# { } }", Err(E::TopicName(TopicError::Wildcard))),
        (S311, "30 { 0003 610062 }", Err(E::NullCharacter)),
        (S311, "30 { 0003 eda080 }", Err(E::Utf8)),
        (S311, "30 { 0002 c3a9 }", Ok(())),
        (S311, "30 { 0002 6101 }", Ok(())),
        (S5, "30 { s:a }", Err(E::Short)),
        (S5, "30 { s:a { 0102 } }", Err(E::PropertyValue(Id::PayloadFormatIndicator))),
        (S5, "30 { s:a { 0100 0100 } }", Err(E::PropertyTwice(Id::PayloadFormatIndicator))),
        (S5, "30 { s:a { 03 s:t 03 s:t } }", Err(E::PropertyTwice(Id::ContentType))),
        (S5, "30 { s:a { 230000 } }", Err(E::TopicAliasZero)),
        (S5, "30 { s:a { 0b01 } }", Err(E::PropertyNotAllowed(Id::SubscriptionIdentifier))),
        (C5, "30 { s:a { 0b00 } }", Err(E::PropertyValue(Id::SubscriptionIdentifier))),
        (C5, "30 { s:a { 0b8000 } }", Err(E::VariableByteInteger)),
        (C5, "30 { s:a { 0b8080808001 } }", Err(E::VariableByteInteger)),
        (S5, "30 { s:a { 08 s:a/# } }", Err(E::PropertyValue(Id::ResponseTopic))),
        (S5, "30 { s:a { 1100000000 } }", Err(E::PropertyNotAllowed(Id::SessionExpiryInterval))),
        // A property that runs past the block does not eat the payload, nor does one that is not allowed anyway.
        (S5, "30 { s:a 03 02000000 r:payload }", Err(E::Short)),
        (S5, "30 { s:a { 2100 } }", Err(E::Short)),
        (S5, "30 { s:a { 210001 70 } }", Err(E::PropertyUnknown(0x70))),
        (S5, "30 { s:a 7f }", Err(E::Short)),
        (S5, "30 { s:a 8000 }", Err(E::VariableByteInteger)),
    ]);
}

#[test]
#[rustfmt::skip] // one row a line
fn acknowledgements() {
    check(&[
        (S311, "40 { 0001 }", Ok(())),
        (S5, "40 { 0001 }", Ok(())),
        (S5, "40 { 0001 10 }", Ok(())),
        (S5, "50 { 0001 83 { 1f s:why 26 s:a s:b } }", Ok(())),
        (C5, "62 { 0001 92 { } }", Ok(())),
        (S5, "70 { 0001 00 }", Ok(())),
        (S31, "6a { 0001 }", Ok(())),
        (S311, "6a { 0001 }", Err(E::FixedHeaderFlags(0x0A))),
        (S311, "4f { 0001 }", Err(E::FixedHeaderFlags(0x0F))),
        (S311, "60 { 0001 }", Err(E::FixedHeaderFlags(0))),
        (S5, "72 { 0001 }", Err(E::FixedHeaderFlags(2))),
        (S311, "40 { 0000 }", Err(E::PacketIdZero)),
        (S5, "50 { 0000 }", Err(E::PacketIdZero)),
        (S5, "62 { 0000 }", Err(E::PacketIdZero)),
        (S5, "70 { 0000 }", Err(E::PacketIdZero)),
        (S311, "40 { 0001 00 }", Err(E::TrailingBytes)),
        (S5, "40 { 0001 00 { } 00 }", Err(E::TrailingBytes)),
        (S5, "40 { 00 }", Err(E::Short)),
        (S5, "40 { }", Err(E::Short)),
        (S5, "40 { 0001 00 01 }", Err(E::Short)),
        (S5, "40 { 0001 ff }", Err(E::ReasonCode(0xFF))),
        (S5, "40 { 0001 92 }", Err(E::ReasonCode(0x92))),
        (S5, "62 { 0001 10 }", Err(E::ReasonCode(0x10))),
        (S5, "70 { 0001 80 }", Err(E::ReasonCode(0x80))),
        (S5, "40 { 0001 00 { 1f s:a 1f s:a } }", Err(E::PropertyTwice(Id::ReasonString))),
        (S5, "40 { 0001 00 { 230001 } }", Err(E::PropertyNotAllowed(Id::TopicAlias))),
        (S5, "40 { 0001 ff { 2300 01 70 } }", Err(E::PropertyUnknown(0x70))),
    ]);
}

#[test]
#[rustfmt::skip] // one row a line
fn subscribe_and_unsubscribe() {
    check(&[
        (S311, "82 { 0001 s:a/+/# 02 s:b 00 }", Ok(())),
        (S5, "82 { 0001 { 0bffffff7f 26 s:a s:b } s:a 2e }", Ok(())),
        (S5, "82 { 0001 { } s:$share/g/a 09 }", Ok(())),
        (S31, "8a { 0001 s:a 01 }", Ok(())),
        (S311, "80 { 0001 s:a 00 }", Err(E::FixedHeaderFlags(0))),
        (S311, "82 { 0000 s:a 00 }", Err(E::PacketIdZero)),
        (S311, "82 { 0001 }", Err(E::NoFilters)),
        (S5, "82 { 0001 { } }", Err(E::NoFilters)),
        (S311, "82 { 0001 s:a }", Err(E::Short)),
        (S311, "82 { 0001 s: 00 }", Err(E::TopicFilter(TopicError::Empty))),
        (S5, "82 { 0001 { } s:a 00 s: 00 }", Err(E::TopicFilter(TopicError::Empty))),
        (S311, "82 { 0001 s:a/#/b 00 }", Err(E::TopicFilter(TopicError::MultiLevelWildcard))),
        (S311, "82 { 0001 s:a+/b 00 }", Err(E::TopicFilter(TopicError::SingleLevelWildcard))),
        (S311, "82 { 0001 0002 6100 00 }", Err(E::NullCharacter)),
        (S311, "82 { 0001 0001 ff 00 }", Err(E::Utf8)),
        (S311, "82 { 0001 s:a 03 }", Err(E::SubscriptionOptions(3))),
        (S311, "82 { 0001 s:a fd }", Err(E::SubscriptionOptions(0xFD))),
        (S311, "82 { 0001 s:a 04 }", Err(E::SubscriptionOptions(4))),
        (S5, "82 { 0001 { } s:a 03 }", Err(E::SubscriptionOptions(3))),
        (S5, "82 { 0001 { } s:a 30 }", Err(E::SubscriptionOptions(0x30))),
        (S5, "82 { 0001 { } s:a c1 }", Err(E::SubscriptionOptions(0xC1))),
        (S5, "82 { 0001 { } s:$share/g/a 04 }", Err(E::SharedNoLocal)),
        (S5, "82 { 0001 { } s:$share/+/a 00 }", Err(E::TopicFilter(TopicError::Share))),
        (S5, "82 { 0001 { } s:$share//a 00 }", Err(E::TopicFilter(TopicError::Share))),
        (S5, "82 { 0001 { } s:$share/g 00 }", Err(E::TopicFilter(TopicError::Share))),
        (S5, "82 { 0001 { 0b00 } s:a 00 }", Err(E::PropertyValue(Id::SubscriptionIdentifier))),
        (S5, "82 { 0001 { 0b01 0b01 } s:a 00 }", Err(E::PropertyTwice(Id::SubscriptionIdentifier))),
        (S5, "82 { 0001 { 1f s:a } s:a 00 }", Err(E::PropertyNotAllowed(Id::ReasonString))),
        (S311, "a2 { 0001 s:a s:b/# }", Ok(())),
        (S5, "a2 { 0001 { 26 s:a s:b } s:$share/g/a }", Ok(())),
        (S31, "aa { 0001 s:a }", Ok(())),
        (S311, "a0 { 0001 s:a }", Err(E::FixedHeaderFlags(0))),
        (S311, "a2 { 0000 s:a }", Err(E::PacketIdZero)),
        (S311, "a2 { 0001 }", Err(E::NoFilters)),
        (S5, "a2 { 0001 { } s:a/#/b }", Err(E::TopicFilter(TopicError::MultiLevelWildcard))),
        (S5, "a2 { 0001 { 0b01 } s:a }", Err(E::PropertyNotAllowed(Id::SubscriptionIdentifier))),
        (C5, "82 { 0001 { } s:a 00 }", Err(E::WrongSender)),
    ]);
}

#[test]
#[rustfmt::skip] // one row a line
fn what_a_server_sends() {
    check(&[
        (C311, "20 { 01 00 }", Ok(())),
        (C311, "20 { 00 05 }", Ok(())),
        (C31, "20 { ff 00 }", Ok(())),
        (C5, "20 { 00 00 { } }", Ok(())),
        (C5, "20 { 00 87 { 1f s:why } }", Ok(())),
        (C5, "20 { 01 00 { 11ffffffff 21000a 2401 2500 270000ffff 12 s:id 22000a 2801 2900 2a00 130000 1a s:i 1c s:r } }", Ok(())),
        (C311, "20 { 02 00 }", Err(E::ConnAckFlags(2))),
        (C311, "20 { 01 05 }", Err(E::SessionPresent)),
        (C311, "20 { 00 06 }", Err(E::ReasonCode(6))),
        (C5, "20 { 00 01 { } }", Err(E::ReasonCode(1))),
        (C5, "20 { 00 00 }", Err(E::Short)),
        (C5, "20 { 00 00 { 2402 } }", Err(E::PropertyValue(Id::MaximumQoS))),
        (C5, "20 { 00 00 { 2502 } }", Err(E::PropertyValue(Id::RetainAvailable))),
        (C311, "90 { 0001 00 01 02 80 }", Ok(())),
        (C5, "90 { 0001 { 1f s:why } 00 a2 }", Ok(())),
        (C311, "90 { 0001 03 }", Err(E::ReasonCode(3))),
        (C5, "90 { 0001 { } 04 }", Err(E::ReasonCode(4))),
        (C311, "90 { 0001 }", Err(E::NoReasonCodes)),
        (C311, "b0 { 0001 }", Ok(())),
        (C311, "b0 { 0001 00 }", Err(E::TrailingBytes)),
        (C5, "b0 { 0001 { } 00 11 }", Ok(())),
        (C5, "b0 { 0001 { } }", Err(E::NoReasonCodes)),
        (C5, "b0 { 0001 { } 02 }", Err(E::ReasonCode(2))),
        (C311, "d0 { }", Ok(())),
        (C311, "d0 { 00 }", Err(E::TrailingBytes)),
        (C311, "e0 { }", Err(E::WrongSender)),
        (S5, "20 { 00 00 { } }", Err(E::WrongSender)),
        (S5, "29 { 00 }", Err(E::WrongSender)),
        (S5, "90 { 0001 { } 00 }", Err(E::WrongSender)),
        (S5, "91 { 0001 { } 00 }", Err(E::FixedHeaderFlags(1))),
        (S311, "b0 { 0001 }", Err(E::WrongSender)),
        (S311, "d0 { }", Err(E::WrongSender)),
    ]);
}

#[test]
#[rustfmt::skip] // one row a line
fn ping_disconnect_and_auth() {
    check(&[
        (S311, "c0 { }", Ok(())),
        (S311, "c0 { 00 }", Err(E::TrailingBytes)),
        (S311, "cf { }", Err(E::FixedHeaderFlags(0x0F))),
        (C311, "c0 { }", Err(E::WrongSender)),
        (S311, "e0 { }", Ok(())),
        (S311, "e0 { 00 }", Err(E::TrailingBytes)),
        (S311, "ef { }", Err(E::FixedHeaderFlags(0x0F))),
        (S5, "e0 { }", Ok(())),
        (S5, "e0 { 04 }", Ok(())),
        (S5, "e0 { 00 { 1100000000 1f s:bye } }", Ok(())),
        (C5, "e0 { 8b { 1c s:elsewhere } }", Ok(())),
        (S5, "e1 { }", Err(E::FixedHeaderFlags(1))),
        (S5, "e0 { 8b }", Err(E::ReasonCode(0x8B))),
        (S5, "e0 { 05 }", Err(E::ReasonCode(5))),
        (C5, "e0 { 04 }", Err(E::ReasonCode(4))),
        (C5, "e0 { 00 { 1100000000 } }", Err(E::PropertyNotAllowed(Id::SessionExpiryInterval))),
        (S5, "e0 { 00 { 1100000000 1100000000 } }", Err(E::PropertyTwice(Id::SessionExpiryInterval))),
        (S5, "e0 { 00 { } 00 }", Err(E::TrailingBytes)),
        (S5, "e0 { 00 { 23000170 } }", Err(E::PropertyUnknown(0x70))),
        (S5, "f0 { 18 { 15 s:m 16 0001 00 } }", Ok(())),
        (S5, "f0 { 19 { 15 s:m } }", Ok(())),
        (C5, "f0 { }", Ok(())),
        (C5, "f0 { 00 { 15 s:m } }", Ok(())),
        (S5, "f0 { 18 { } }", Err(E::AuthenticationMethodMissing)),
        (S5, "f0 { 18 { 16 0001 00 } }", Err(E::AuthenticationMethodMissing)),
        (S5, "f0 { 00 { 15 s:m } }", Err(E::ReasonCode(0))),
        (C5, "f0 { 19 { 15 s:m } }", Err(E::ReasonCode(0x19))),
        (S5, "f0 { 18 { 15 s:m } 00 }", Err(E::TrailingBytes)),
        (S5, "f1 { 18 { 15 s:m } }", Err(E::FixedHeaderFlags(1))),
        (S311, "f0 { }", Err(E::PacketType)),
        (S5, "00 { }", Err(E::PacketType)),
        (S5, "0a c0", Err(E::PacketType)),
    ]);
}

#[test]
fn the_peer_is_told_the_reason_that_the_standard_gives() {
    for (reads, text, reason) in [
        (S5, "e1 { }", ReasonCode::MalformedPacket),
        (S5, "20 { 00 00 { } }", ReasonCode::ProtocolError),
        (S5, "30 { s:a { 230000 } }", ReasonCode::TopicAliasInvalid),
        (S5, "30 { s:a/+ { } }", ReasonCode::MalformedPacket),
        (S5, "30 { s:a { 0100 0100 } }", ReasonCode::ProtocolError),
        (S5, "30 { s:a { 21000170 } }", ReasonCode::MalformedPacket),
        (S5, "40 { 0000 }", ReasonCode::ProtocolError),
        (S5, "40 { 0001 00 { 230001 } }", ReasonCode::ProtocolError),
        (S5, "82 { 0000 { } s:a 00 }", ReasonCode::MalformedPacket),
        (S5, "82 { 0001 { 230001 } s:a 00 }", ReasonCode::MalformedPacket),
        (S5, "82 { 0001 { } s:$share/g 00 }", ReasonCode::ProtocolError),
        (S5, "82 { 0001 { } s:a# 00 }", ReasonCode::MalformedPacket),
        (
            First,
            "10 { s:MQTT 06 02 003c s:ab }",
            ReasonCode::UnsupportedProtocolVersion,
        ),
        (
            First,
            "10 { s:MQTT 05 02 003c { 210000 } s: }",
            ReasonCode::ProtocolError,
        ),
    ] {
        let (version, role) = reads.arguments();
        let error = decode(&bytes(text), version, role, &OPTIONS).unwrap_err();
        assert_eq!(error.reason(), reason, "{text}: {error}");
    }
}

#[test]
fn a_faulty_connect_says_its_version_and_where_the_fault_is() {
    let frame = bytes("10 { s:MQTT 05 02 003c { 210001 1702 } s:ab }");
    let error = decode(&frame, None, Role::Server, &OPTIONS).unwrap_err();
    assert_eq!(
        (error.version, error.packet),
        (Some(Version::V5), Some(PacketType::Connect))
    );
    assert_eq!(error.offset, 16, "the faulty property's identifier");
    let text = "CONNECT has a value that is not allowed for the property request problem information, at byte 16";
    assert_eq!(error.to_string(), text);
}

#[test]
fn limits_are_the_reader_s_own() {
    let strict = DecodeOptions {
        strict_utf8: true,
        packet_bytes_max: 10,
        topic_separators_max: 2,
        filters_max: 1,
        ..OPTIONS
    };
    for (text, expected) in [
        ("30 { 0002 6101 { } }", Err(E::ControlCharacter)),
        ("30 { s:a/b/c { } }", Ok(true)),
        ("30 { s:a/b// { } }", Err(E::TopicSeparators)),
        (
            "30 { s:abcdef { } }",
            Err(E::PacketTooLarge {
                bytes: 11,
                bytes_max: 10,
            }),
        ),
        (
            "30 7f",
            Err(E::PacketTooLarge {
                bytes: 129,
                bytes_max: 10,
            }),
        ),
        ("a2 { 0001 { } s:a }", Ok(true)),
    ] {
        let frame = bytes(text);
        let read = decode(&frame, Some(Version::V5), Role::Server, &strict);
        assert_eq!(
            read.map(|packet| packet.is_some()).map_err(|error| error.kind),
            expected,
            "{text}"
        );
    }
    let one = DecodeOptions {
        filters_max: 1,
        ..OPTIONS
    };
    let error = decode(
        &bytes("82 { 0001 s:a 00 s:b 00 }"),
        Some(Version::V311),
        Role::Server,
        &one,
    )
    .unwrap_err();
    assert_eq!(
        (error.kind, error.reason()),
        (E::TooManyFilters, ReasonCode::QuotaExceeded)
    );
}

/// Who sends too large a CONNECT can be told, as soon as its version is there.
#[test]
fn a_connect_that_is_too_large_says_its_version() {
    let small = DecodeOptions {
        packet_bytes_max: 200,
        ..OPTIONS
    };
    for (level, version) in [(3, None), (4, Some(Version::V311)), (5, Some(Version::V5))] {
        let mut beginning = b"\x10\xa0\x8d\x06\x00\x04MQTT".to_vec();
        beginning.push(level);
        for length in 4..beginning.len() {
            let error = decode(&beginning[..length], None, Role::Server, &small).unwrap_err();
            assert_eq!(
                (error.reason(), error.version),
                (ReasonCode::PacketTooLarge, None),
                "{length}"
            );
        }
        let error = decode(&beginning, None, Role::Server, &small).unwrap_err();
        assert_eq!((error.reason(), error.version), (ReasonCode::PacketTooLarge, version));
    }
}

#[test]
fn topics_and_lists_of_user_properties_are_as_long_as_the_options_say() {
    let short = DecodeOptions {
        topic_bytes_max: 3,
        user_properties_max: 1,
        ..OPTIONS
    };
    let read = |text: &str| {
        let frame = bytes(text);
        let read = decode(&frame, Some(Version::V5), Role::Server, &short);
        read.map(|_| ()).map_err(|error| (error.kind, error.reason()))
    };
    assert_eq!(read("30 { s:abc { } }"), Ok(()));
    assert_eq!(
        read("30 { s:abcd { } }"),
        Err((E::TopicTooLong, ReasonCode::TopicNameInvalid))
    );
    assert_eq!(
        read("82 { 0001 { } s:abcd 00 }"),
        Err((E::TopicTooLong, ReasonCode::TopicFilterInvalid))
    );
    assert_eq!(read("30 { s:a { 26 s:k s:v } }"), Ok(()));
    let too_many = Err((E::TooManyUserProperties, ReasonCode::QuotaExceeded));
    assert_eq!(read("30 { s:a { 26 s:k s:v 26 s:k s:v } }"), too_many);
}
