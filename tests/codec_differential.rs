//! The same bytes to our codec and to mqttbytes 0.6.0, which nobody here wrote. Where the two differ, the difference is of a
//! kind that is known, explained and listed here; any other difference fails.
//!
//! What mqttbytes accepts goes through its own encoder and is read by ours, so its writing is compared along with its reading.
//! Its request for more bytes of a packet that is whole counts as a refusal.

#[allow(dead_code, reason = "the fuzz driver uses all of it")]
#[path = "fuzz/generate.rs"]
mod generate;

use std::collections::BTreeMap;

use bytes::BytesMut;
use generate::{Random, frame, mutate};
use sundew::codec::{DecodeError, DecodeOptions, ErrorKind, Role, decode};
use sundew::protocol::packet::Packet;
use sundew::protocol::property::{Properties, PropertyId};
use sundew::protocol::version::Version;

/// Why the two may differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Known {
    /// It does not look at: flags, zero identifiers, lengths inside, trailing bytes, topics, properties, directions.
    ItDoesNotCheck(&'static str),
    /// It knows no mosquitto bridges.
    BridgeBit,
    /// It takes the password for a string.
    BinaryPassword,
    /// It refuses a DISCONNECT without properties.
    ShortDisconnect,
    /// It knows no AUTH.
    Auth,
    /// It counts the identifier byte of a subscription identifier twice: what follows in the block is cut off, or refused.
    SubscriptionIdentifier,
    /// It takes a user name that is empty for none, and loses the password with it.
    EmptyLogin,
    /// It writes a CONNACK without the mandatory property length.
    ConnAckWithoutProperties,
}

#[derive(Debug)]
enum Verdict {
    Same,
    Known(Known),
    Unknown(String),
}

const OPTIONS: DecodeOptions = DecodeOptions {
    packet_bytes_max: u32::MAX,
    strict_utf8: false,
    topic_separators_max: u16::MAX,
    topic_bytes_max: u16::MAX,
    user_properties_max: u16::MAX,
    filters_max: u32::MAX,
};

#[test]
fn packets_of_our_encoder_are_the_same_to_both() {
    let mut found = BTreeMap::new();
    for seed in 0..inputs(60_000) {
        let (version, role, bytes) = frame(&mut Random::new(seed));
        judge(seed, version, role, &bytes, &mut found);
    }
    report(&found);
}

#[test]
fn broken_packets_are_the_same_to_both_but_for_what_mqttbytes_does_not_check() {
    let mut found = BTreeMap::new();
    for seed in 0..inputs(120_000) {
        let mut random = Random::new(seed);
        let (version, role, mut bytes) = frame(&mut random);
        mutate(&mut random, &mut bytes);
        judge(seed, version, role, &bytes, &mut found);
    }
    report(&found);
}

/// Every kind of difference is there: an entry of [`Known`] that mqttbytes has outgrown has to go.
#[test]
fn every_known_difference_is_one() {
    let connect = |flags: u8, rest: &[u8]| {
        let body = [b"\0\x04MQTT\x04", &[flags][..], b"\0\0\0\x01a", rest].concat();
        [&[0x10, body.len() as u8][..], &body].concat()
    };
    let (v311, v5) = (Version::V311, Version::V5);
    let bridge = [&connect(2, b"")[..8], &[0x84], &connect(2, b"")[9..]].concat();
    let three_ids = b"\x30\x0C\0\x01a\x06\x0B\x01\x0B\x02\x0B\x03hi";
    for (version, role, bytes, expected) in [
        (
            v311,
            Role::Server,
            &b"\xCF\0"[..],
            Known::ItDoesNotCheck("flags of the first byte"),
        ),
        (v311, Role::Server, &bridge, Known::BridgeBit),
        (
            v311,
            Role::Server,
            &connect(0xC2, b"\0\x01u\0\x01\xFF"),
            Known::BinaryPassword,
        ),
        (v311, Role::Server, &connect(0xC2, b"\0\0\0\0"), Known::EmptyLogin),
        (v5, Role::Server, b"\xE0\0", Known::ShortDisconnect),
        (v5, Role::Client, b"\xE0\x01\x89", Known::ShortDisconnect),
        (v5, Role::Client, b"\xF0\0", Known::Auth),
        (v5, Role::Client, three_ids, Known::SubscriptionIdentifier),
        (v5, Role::Client, b"\x20\x03\0\0\0", Known::ConnAckWithoutProperties),
    ] {
        match compare(version, role, bytes) {
            Verdict::Known(known) => assert_eq!(known, expected, "{bytes:02x?}"),
            other => panic!("{bytes:02x?}: {other:?}"),
        }
    }
}

/// `SUNDEW_FUZZ_INPUTS` as in `fuzz/main.rs`.
fn inputs(default: u64) -> u64 {
    std::env::var("SUNDEW_FUZZ_INPUTS").map_or(default, |text| text.parse().expect("a number"))
}

fn judge(seed: u64, version: Version, role: Role, bytes: &[u8], found: &mut BTreeMap<String, u64>) {
    if version == Version::V31 {
        return; // It refuses MQTT 3.1 altogether.
    }
    let verdict = compare(version, role, bytes);
    match verdict {
        Verdict::Same => *found.entry("same".into()).or_default() += 1,
        Verdict::Known(known) => *found.entry(format!("{known:?}")).or_default() += 1,
        Verdict::Unknown(what) => panic!("seed {seed}, MQTT {}, {role:?}: {bytes:02x?}\n{what}", version.name()),
    }
}

fn report(found: &BTreeMap<String, u64>) {
    assert!(
        found["same"] > found.values().sum::<u64>() / 2,
        "most packets are read alike: {found:?}"
    );
}

fn compare(version: Version, role: Role, bytes: &[u8]) -> Verdict {
    let is_connect = bytes.first().is_some_and(|first| first >> 4 == 1);
    let read_as = (!is_connect).then_some(version);
    let ours = decode(bytes, read_as, role, &OPTIONS);
    let theirs = theirs(version, bytes);
    match (ours, theirs) {
        (Ok(None), Err(_)) => Verdict::Same, // The packet is not whole, and it says so or finds a fault in what there is.
        (Ok(None), Ok(_)) => Verdict::Unknown("it reads what is not whole".into()),
        (Err(_), Err(_)) => Verdict::Same,
        (Ok(Some((ours, _))), Err(error)) => we_accept(&ours, &error),
        (Err(error), Ok(rewritten)) => we_refuse(&error, bytes, &rewritten),
        (Ok(Some((ours, _))), Ok(rewritten)) => both_accept(ours, read_as, role, &rewritten),
    }
}

/// What mqttbytes reads, written again by itself.
fn theirs(version: Version, bytes: &[u8]) -> Result<Result<BytesMut, String>, mqttbytes::Error> {
    let mut stream = BytesMut::from(bytes);
    let mut out = BytesMut::new();
    let written = if version.has_properties() {
        use mqttbytes::v5::Packet as P;
        match mqttbytes::v5::read(&mut stream, usize::MAX)? {
            P::Connect(packet) => packet.write(&mut out),
            P::ConnAck(packet) => packet.write(&mut out),
            P::Publish(packet) => packet.write(&mut out),
            P::PubAck(packet) => packet.write(&mut out),
            P::PubRec(packet) => packet.write(&mut out),
            P::PubRel(packet) => packet.write(&mut out),
            P::PubComp(packet) => packet.write(&mut out),
            P::Subscribe(packet) => packet.write(&mut out),
            P::SubAck(packet) => packet.write(&mut out),
            P::Unsubscribe(packet) => packet.write(&mut out),
            P::UnsubAck(packet) => packet.write(&mut out),
            P::PingReq => mqttbytes::v5::PingReq.write(&mut out),
            P::PingResp => mqttbytes::v5::PingResp.write(&mut out),
            P::Disconnect(packet) => packet.write(&mut out),
        }
    } else {
        use mqttbytes::v4::Packet as P;
        match mqttbytes::v4::read(&mut stream, usize::MAX)? {
            P::Connect(packet) => packet.write(&mut out),
            P::ConnAck(packet) => packet.write(&mut out),
            P::Publish(packet) => packet.write(&mut out),
            P::PubAck(packet) => packet.write(&mut out),
            P::PubRec(packet) => packet.write(&mut out),
            P::PubRel(packet) => packet.write(&mut out),
            P::PubComp(packet) => packet.write(&mut out),
            P::Subscribe(packet) => packet.write(&mut out),
            P::SubAck(packet) => packet.write(&mut out),
            P::Unsubscribe(packet) => packet.write(&mut out),
            P::UnsubAck(packet) => packet.write(&mut out),
            P::PingReq => mqttbytes::v4::PingReq.write(&mut out),
            P::PingResp => mqttbytes::v4::PingResp.write(&mut out),
            P::Disconnect => mqttbytes::v4::Disconnect.write(&mut out),
        }
    };
    Ok(written.map(|_| out).map_err(|error| format!("{error:?}")))
}

fn we_accept(ours: &Packet<'_>, error: &mqttbytes::Error) -> Verdict {
    Verdict::Known(match ours {
        Packet::Auth(_) => Known::Auth,
        Packet::Disconnect(disconnect) if disconnect.properties.is_empty() => Known::ShortDisconnect,
        Packet::Connect(connect) if connect.is_bridge => Known::BridgeBit,
        Packet::Connect(connect) if connect.password.is_some_and(|p| std::str::from_utf8(p).is_err()) => {
            Known::BinaryPassword
        }
        Packet::Publish(publish) if has_subscription_id(publish.properties) => Known::SubscriptionIdentifier,
        Packet::Subscribe(subscribe) if has_subscription_id(subscribe.properties) => Known::SubscriptionIdentifier,
        _ => return Verdict::Unknown(format!("it refuses with {error:?} what we accept: {ours:?}")),
    })
}

fn has_subscription_id(properties: Properties<'_>) -> bool {
    properties.subscription_identifiers().next().is_some()
}

fn we_refuse(error: &DecodeError, bytes: &[u8], rewritten: &Result<BytesMut, String>) -> Verdict {
    use ErrorKind as E;
    // It skips bytes behind a subscription identifier, so it may miss any fault there.
    let id = PropertyId::SubscriptionIdentifier as u8;
    if matches!(error.kind, E::PropertyUnknown(_) | E::Utf8) && bytes[..error.offset].contains(&id) {
        return Verdict::Known(Known::SubscriptionIdentifier);
    }
    Verdict::Known(Known::ItDoesNotCheck(match error.kind {
        E::FixedHeaderFlags(_) => "flags of the first byte",
        E::WrongSender | E::SecondConnect => "who sends",
        E::ConnectFlags(_) | E::ConnAckFlags(_) | E::SessionPresent => "reserved and contradicting flags",
        E::PublishDup => "DUP at QoS 0",
        E::PasswordWithoutUserName => "passwords without user names",
        E::RemainingLength | E::VariableByteInteger => "needless bytes of lengths",
        E::Short | E::TrailingBytes => "lengths inside the packet",
        E::NullCharacter => "null characters",
        E::TopicName(_) | E::WillTopic(_) | E::TopicFilter(_) | E::TopicMissing => "topics",
        E::PacketIdZero => "packet identifier zero",
        E::NoFilters | E::NoReasonCodes => "empty lists",
        E::SubscriptionOptions(_) | E::SharedNoLocal => "subscription options",
        E::PropertyTwice(_) | E::PropertyValue(_) | E::TopicAliasZero | E::AuthenticationMethodMissing => {
            "property values"
        }
        E::PropertyNotAllowed(_) => "properties of one direction",
        E::ReasonCode(_) => "reason codes of one direction",
        _ => return Verdict::Unknown(format!("it accepts what we refuse with {error}: {rewritten:02x?}")),
    }))
}

fn both_accept(
    ours: Packet<'_>,
    read_as: Option<Version>,
    role: Role,
    rewritten: &Result<BytesMut, String>,
) -> Verdict {
    let Ok(rewritten) = rewritten else {
        return Verdict::Unknown(format!("it cannot write what both read, {rewritten:?}: {ours:?}"));
    };
    let again = match decode(rewritten, read_as, role, &OPTIONS) {
        Ok(Some((packet, consumed))) if consumed == rewritten.len() => in_order(packet),
        other => return difference(&ours, &format!("{other:?} of {rewritten:02x?}")),
    };
    let ours_in_order = in_order(ours.clone());
    if again == ours_in_order {
        Verdict::Same
    } else {
        difference(&ours, &format!("{again:?}"))
    }
}

fn difference(ours: &Packet<'_>, theirs: &str) -> Verdict {
    Verdict::Known(match ours {
        Packet::Publish(publish) if has_subscription_id(publish.properties) => Known::SubscriptionIdentifier,
        Packet::Subscribe(subscribe) if has_subscription_id(subscribe.properties) => Known::SubscriptionIdentifier,
        Packet::Connect(connect) if connect.user_name == Some("") => Known::EmptyLogin,
        Packet::Connect(connect) if connect.password == Some(b"") => Known::EmptyLogin,
        Packet::ConnAck(ack) if ack.properties.is_empty() => Known::ConnAckWithoutProperties,
        _ => return Verdict::Unknown(format!("ours   {ours:?}\ntheirs {theirs}")),
    })
}

/// A packet and its properties apart, these sorted by name: mqttbytes writes them in an order of its own.
fn in_order(mut packet: Packet<'_>) -> (String, Vec<Vec<String>>) {
    let mut blocks = Vec::new();
    for properties in properties_of(&mut packet) {
        let mut list: Vec<_> = std::mem::take(properties).iter().collect();
        list.sort_by_key(|(id, _)| *id); // Stable: user properties keep their order.
        blocks.push(list.iter().map(|property| format!("{property:?}")).collect());
    }
    (format!("{packet:?}"), blocks)
}

fn properties_of<'p, 'a>(packet: &'p mut Packet<'a>) -> Vec<&'p mut Properties<'a>> {
    match packet {
        Packet::Connect(connect) => {
            let will = connect.will.as_mut().map(|will| &mut will.properties);
            std::iter::once(&mut connect.properties).chain(will).collect()
        }
        Packet::ConnAck(ack) => vec![&mut ack.properties],
        Packet::Publish(publish) => vec![&mut publish.properties],
        Packet::PubAck(ack) | Packet::PubRec(ack) | Packet::PubRel(ack) | Packet::PubComp(ack) => {
            vec![&mut ack.properties]
        }
        Packet::Subscribe(subscribe) => vec![&mut subscribe.properties],
        Packet::SubAck(ack) => vec![&mut ack.properties],
        Packet::Unsubscribe(unsubscribe) => vec![&mut unsubscribe.properties],
        Packet::UnsubAck(ack) => vec![&mut ack.properties],
        Packet::Disconnect(disconnect) => vec![&mut disconnect.properties],
        Packet::Auth(auth) => vec![&mut auth.properties],
        Packet::PingReq | Packet::PingResp => vec![],
    }
}
