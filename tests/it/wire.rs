//! Packets as these tests write and read them, without the broker's codec: what it gets wrong both ways would else be seen by
//! nobody. Reading is strict: a reserved bit, a property that does not belong there or a byte too many fails the test.

use sundew::protocol::property::{Properties, PropertiesBuf, PropertyId, PropertyOwner, PropertyValue};
use sundew::protocol::version::Version;

/// What a client sends to open a session. `..Connect::default()` is a clean start of client `c` with keep alive 60.
#[derive(Clone, Debug)]
pub(crate) struct Connect<'a> {
    pub(crate) client_id: &'a str,
    /// Clean Start, Clean Session before 5.0.
    pub(crate) clean: bool,
    /// Seconds.
    pub(crate) keep_alive: u16,
    pub(crate) will: Option<Will<'a>>,
    pub(crate) user_name: Option<&'a str>,
    pub(crate) password: Option<&'a [u8]>,
    pub(crate) properties: PropertiesBuf,
}

impl Default for Connect<'_> {
    fn default() -> Self {
        Self {
            client_id: "c",
            clean: true,
            keep_alive: 60,
            will: None,
            user_name: None,
            password: None,
            properties: PropertiesBuf::new(),
        }
    }
}

/// The will of a CONNECT.
#[derive(Clone, Debug, Default)]
pub(crate) struct Will<'a> {
    pub(crate) topic: &'a str,
    pub(crate) payload: &'a [u8],
    pub(crate) qos: u8,
    pub(crate) retain: bool,
    pub(crate) properties: PropertiesBuf,
}

impl<'a> Connect<'a> {
    /// A client whose session stays when it leaves.
    pub(crate) fn lasting(client_id: &'a str, version: Version) -> Self {
        let connect = Self {
            client_id,
            clean: false,
            ..Self::default()
        };
        if version.has_properties() {
            connect.with(|p| p.push_u32(PropertyId::SessionExpiryInterval, 1000))
        } else {
            connect
        }
    }

    /// The same with properties.
    pub(crate) fn with(mut self, push: impl FnOnce(&mut PropertiesBuf) -> &mut PropertiesBuf) -> Self {
        push(&mut self.properties);
        self
    }

    /// The packet.
    pub(crate) fn encode(&self, version: Version) -> Vec<u8> {
        let name = if version == Version::V31 { "MQIsdp" } else { "MQTT" };
        let mut flags = u8::from(self.clean) << 1;
        if let Some(will) = &self.will {
            flags |= 0x04 | will.qos << 3 | u8::from(will.retain) << 5;
        }
        flags |= u8::from(self.user_name.is_some()) << 7 | u8::from(self.password.is_some()) << 6;
        let mut body = text(name);
        body.extend([version.level(), flags]);
        body.extend(self.keep_alive.to_be_bytes());
        body.extend(properties(version, &self.properties));
        body.extend(text(self.client_id));
        if let Some(will) = &self.will {
            body.extend(properties(version, &will.properties));
            body.extend(text(will.topic));
            body.extend(prefixed(will.payload));
        }
        body.extend(self.user_name.map(text).unwrap_or_default());
        body.extend(self.password.map(prefixed).unwrap_or_default());
        frame(0x10, &body)
    }
}

/// A PUBLISH, either way.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Publish {
    pub(crate) dup: bool,
    pub(crate) qos: u8,
    pub(crate) retain: bool,
    pub(crate) topic: String,
    /// Of QoS 1 and 2; 0 for QoS 0.
    pub(crate) packet_id: u16,
    pub(crate) properties: PropertiesBuf,
    pub(crate) payload: Vec<u8>,
}

impl Publish {
    /// A message, not retained, packet identifier 1 where it needs one.
    pub(crate) fn new(topic: &str, payload: impl AsRef<[u8]>, qos: u8) -> Self {
        let (topic, payload) = (topic.to_owned(), payload.as_ref().to_vec());
        Self {
            qos,
            topic,
            payload,
            packet_id: u16::from(qos > 0),
            ..Self::default()
        }
    }

    /// The same with the retain flag.
    pub(crate) fn retained(self) -> Self {
        Self { retain: true, ..self }
    }

    /// The same with another packet identifier.
    pub(crate) fn id(self, packet_id: u16) -> Self {
        Self { packet_id, ..self }
    }

    /// The same with the DUP flag.
    pub(crate) fn again(self) -> Self {
        Self { dup: true, ..self }
    }

    /// The same with properties.
    pub(crate) fn with(mut self, push: impl FnOnce(&mut PropertiesBuf) -> &mut PropertiesBuf) -> Self {
        push(&mut self.properties);
        self
    }

    /// The payload as text.
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.payload).unwrap()
    }

    /// The packet.
    pub(crate) fn encode(&self, version: Version) -> Vec<u8> {
        let mut body = text(&self.topic);
        if self.qos > 0 {
            body.extend(self.packet_id.to_be_bytes());
        }
        body.extend(properties(version, &self.properties));
        body.extend(&self.payload);
        frame(
            0x30 | u8::from(self.dup) << 3 | self.qos << 1 | u8::from(self.retain),
            &body,
        )
    }
}

/// The packets that acknowledge a PUBLISH: their first byte.
pub(crate) const PUBACK: u8 = 0x40;
pub(crate) const PUBREC: u8 = 0x50;
pub(crate) const PUBREL: u8 = 0x62;
pub(crate) const PUBCOMP: u8 = 0x70;

/// PINGREQ.
pub(crate) const PINGREQ: [u8; 2] = [0xC0, 0];

/// An acknowledgement with success.
pub(crate) fn ack(kind: u8, packet_id: u16) -> Vec<u8> {
    frame(kind, &packet_id.to_be_bytes())
}

/// An acknowledgement with a reason code (5.0).
pub(crate) fn ack_with(kind: u8, packet_id: u16, reason: u8) -> Vec<u8> {
    let id = packet_id.to_be_bytes();
    frame(kind, &[id[0], id[1], reason])
}

/// A SUBSCRIBE; the options byte of each filter as the standard draws it.
pub(crate) fn subscribe(version: Version, id: u16, with: &PropertiesBuf, filters: &[(&str, u8)]) -> Vec<u8> {
    let mut body = id.to_be_bytes().to_vec();
    body.extend(properties(version, with));
    for (filter, options) in filters {
        body.extend(text(filter));
        body.push(*options);
    }
    frame(0x82, &body)
}

/// An UNSUBSCRIBE.
pub(crate) fn unsubscribe(version: Version, id: u16, filters: &[&str]) -> Vec<u8> {
    let mut body = id.to_be_bytes().to_vec();
    body.extend(properties(version, &PropertiesBuf::new()));
    body.extend(filters.iter().flat_map(|filter| text(filter)));
    frame(0xA2, &body)
}

/// A DISCONNECT; the reason and the properties only where the version has them.
pub(crate) fn disconnect(version: Version, reason: u8, with: &PropertiesBuf) -> Vec<u8> {
    if !version.has_properties() {
        return frame(0xE0, &[]);
    }
    frame(0xE0, &[vec![reason], properties(version, with)].concat())
}

/// An AUTH (5.0).
pub(crate) fn auth(reason: u8, with: &PropertiesBuf) -> Vec<u8> {
    frame(0xF0, &[vec![reason], properties(Version::V5, with)].concat())
}

/// A packet of a first byte and what follows its length.
pub(crate) fn frame(first: u8, body: &[u8]) -> Vec<u8> {
    let mut packet = vec![first];
    packet.extend(varint(body.len()));
    packet.extend(body);
    packet
}

/// A string with its length.
pub(crate) fn text(value: &str) -> Vec<u8> {
    prefixed(value.as_bytes())
}

/// Bytes with their length.
pub(crate) fn prefixed(value: &[u8]) -> Vec<u8> {
    let mut bytes = u16::try_from(value.len()).unwrap().to_be_bytes().to_vec();
    bytes.extend(value);
    bytes
}

fn varint(mut value: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = (value & 0x7F) as u8;
        value >>= 7;
        if value == 0 {
            bytes.push(low);
            return bytes;
        }
        bytes.push(low | 0x80);
    }
}

fn properties(version: Version, block: &PropertiesBuf) -> Vec<u8> {
    if !version.has_properties() {
        assert!(block.view().is_empty(), "{} has no properties", version.name());
        return Vec::new();
    }
    let block = block.view().as_bytes();
    [varint(block.len()), block.to_vec()].concat()
}

/// A packet from the broker. Before 5.0 reasons of acknowledgements are 0 and properties empty; the reason of a CONNACK is the
/// byte as it stood there.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Packet {
    ConnAck {
        session_present: bool,
        reason: u8,
        properties: PropertiesBuf,
    },
    Publish(Publish),
    PubAck(Ack),
    PubRec(Ack),
    PubRel(Ack),
    PubComp(Ack),
    SubAck {
        packet_id: u16,
        properties: PropertiesBuf,
        reasons: Vec<u8>,
    },
    UnsubAck {
        packet_id: u16,
        properties: PropertiesBuf,
        reasons: Vec<u8>,
    },
    PingResp,
    Disconnect {
        reason: u8,
        properties: PropertiesBuf,
    },
    Auth {
        reason: u8,
        properties: PropertiesBuf,
    },
}

/// PUBACK, PUBREC, PUBREL or PUBCOMP.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Ack {
    pub(crate) packet_id: u16,
    pub(crate) reason: u8,
    pub(crate) properties: PropertiesBuf,
}

/// The packet at the start of `bytes` and how long it is; `None` while it is not whole.
pub(crate) fn decode(version: Version, bytes: &[u8]) -> Option<(Packet, usize)> {
    let mut length = 0;
    let mut at = 1;
    loop {
        let byte = *bytes.get(at)?;
        length |= usize::from(byte & 0x7F) << (7 * (at - 1));
        at += 1;
        if byte & 0x80 == 0 {
            break;
        }
    }
    let body = bytes.get(at..at + length)?;
    assert_eq!(varint(length).len(), at - 1, "a length in more bytes than needed");
    let mut reader = Reader { version, rest: body };
    let packet = reader.packet(bytes[0]);
    assert!(reader.rest.is_empty(), "{} bytes after {packet:?}", reader.rest.len());
    Some((packet, at + length))
}

/// What the tables of the standards list for a server: 3.1 of 3.1.1; 3-1, 3-8, 3-9 and 3-10 of 5.0.
const RETURN_CODES: &[u8] = &[0, 1, 2, 3, 4, 5];
const CONNECT_REASONS: &[u8] = &[
    0, 0x80, 0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8A, 0x8C, 0x90, 0x95, 0x97, 0x99, 0x9A, 0x9B,
    0x9C, 0x9D, 0x9F,
];
const PUBLISH_REASONS: &[u8] = &[0, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99];
const SUBSCRIBE_REASONS: &[u8] = &[0, 1, 2, 0x80, 0x83, 0x87, 0x8F, 0x91, 0x97, 0x9E, 0xA1, 0xA2];
const UNSUBSCRIBE_REASONS: &[u8] = &[0, 0x11, 0x80, 0x83, 0x87, 0x8F, 0x91];
const DISCONNECT_REASONS: &[u8] = &[
    0, 0x80, 0x81, 0x82, 0x83, 0x87, 0x89, 0x8B, 0x8D, 0x8E, 0x8F, 0x90, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99,
    0x9A, 0x9B, 0x9C, 0x9D, 0x9E, 0x9F, 0xA0, 0xA1, 0xA2,
];

struct Reader<'a> {
    version: Version,
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn packet(&mut self, first: u8) -> Packet {
        if first >> 4 == 3 {
            return Packet::Publish(self.publish(first));
        }
        let reserved = if first >> 4 == 6 { 2 } else { 0 };
        assert_eq!(
            first & 0x0F,
            reserved,
            "reserved flags of a packet of type {}",
            first >> 4
        );
        match first >> 4 {
            2 => self.connack(),
            4 => Packet::PubAck(self.ack(PropertyOwner::PubAck, PUBLISH_REASONS)),
            5 => Packet::PubRec(self.ack(PropertyOwner::PubRec, PUBLISH_REASONS)),
            6 => Packet::PubRel(self.ack(PropertyOwner::PubRel, &[0, 0x92])),
            7 => Packet::PubComp(self.ack(PropertyOwner::PubComp, &[0, 0x92])),
            9 => {
                let (packet_id, properties) = (self.u16(), self.properties(PropertyOwner::SubAck));
                let reasons = self.reasons(SUBSCRIBE_REASONS, &[0, 1, 2, 0x80]);
                Packet::SubAck {
                    packet_id,
                    properties,
                    reasons,
                }
            }
            11 => {
                let (packet_id, properties) = (self.u16(), self.properties(PropertyOwner::UnsubAck));
                let reasons = self.reasons(UNSUBSCRIBE_REASONS, &[]);
                Packet::UnsubAck {
                    packet_id,
                    properties,
                    reasons,
                }
            }
            13 => Packet::PingResp,
            14 => self.disconnect(),
            15 => {
                assert_eq!(self.version, Version::V5, "AUTH exists only in 5.0");
                let (reason, properties) = self.reason_and_properties(PropertyOwner::Auth);
                assert!(matches!(reason, 0 | 0x18 | 0x19), "AUTH with reason {reason:#x}");
                Packet::Auth { reason, properties }
            }
            other => panic!("a packet of type {other} from the broker"),
        }
    }

    fn connack(&mut self) -> Packet {
        let flags = self.u8();
        assert!(flags <= 1, "reserved CONNACK flags {flags:#x}");
        let reason = self.u8();
        let listed = if self.version.has_properties() {
            CONNECT_REASONS
        } else {
            RETURN_CODES
        };
        assert!(listed.contains(&reason), "CONNACK with reason {reason:#x}");
        assert!(flags == 0 || reason == 0, "session present with reason {reason:#x}");
        Packet::ConnAck {
            session_present: flags == 1,
            reason,
            properties: self.properties(PropertyOwner::ConnAck),
        }
    }

    fn disconnect(&mut self) -> Packet {
        assert_eq!(
            self.version,
            Version::V5,
            "a DISCONNECT from the broker exists only in 5.0"
        );
        let (reason, properties) = self.reason_and_properties(PropertyOwner::Disconnect);
        assert!(
            DISCONNECT_REASONS.contains(&reason),
            "DISCONNECT with reason {reason:#x}"
        );
        let expiry = properties.view().u32(PropertyId::SessionExpiryInterval);
        assert_eq!(expiry, None, "session expiry in a DISCONNECT from the broker");
        Packet::Disconnect { reason, properties }
    }

    fn publish(&mut self, first: u8) -> Publish {
        let qos = first >> 1 & 3;
        let topic = self.text();
        let packet_id = if qos > 0 { self.u16() } else { 0 };
        assert!(qos < 3, "QoS 3 from the broker");
        assert!(qos == 0 || packet_id > 0, "packet identifier 0");
        assert!(qos > 0 || first & 8 == 0, "DUP at QoS 0");
        let properties = self.properties(PropertyOwner::Publish);
        let payload = self.take(self.rest.len()).to_vec();
        Publish {
            dup: first & 8 != 0,
            qos,
            retain: first & 1 != 0,
            topic,
            packet_id,
            properties,
            payload,
        }
    }

    /// The reason must be one that the standard lists for the packet.
    fn ack(&mut self, owner: PropertyOwner, reasons: &[u8]) -> Ack {
        let packet_id = self.u16();
        if !self.version.has_properties() {
            return Ack {
                packet_id,
                reason: 0,
                properties: PropertiesBuf::new(),
            };
        }
        let (reason, properties) = self.reason_and_properties(owner);
        assert!(reasons.contains(&reason), "{owner:?} with reason {reason:#x}");
        Ack {
            packet_id,
            reason,
            properties,
        }
    }

    /// The rest of the packet, each byte one of those that are listed for 5.0 or for the versions before.
    fn reasons(&mut self, listed_of_5: &[u8], listed_before: &[u8]) -> Vec<u8> {
        let listed = if self.version.has_properties() {
            listed_of_5
        } else {
            listed_before
        };
        let reasons = self.take(self.rest.len()).to_vec();
        let is_listed = reasons.iter().all(|reason| listed.contains(reason));
        assert!(is_listed, "reasons {reasons:02x?}, not of {listed:02x?}");
        reasons
    }

    /// Both may be left out.
    fn reason_and_properties(&mut self, owner: PropertyOwner) -> (u8, PropertiesBuf) {
        let reason = if self.rest.is_empty() { 0 } else { self.u8() };
        let properties = if self.rest.is_empty() {
            PropertiesBuf::new()
        } else {
            self.properties(owner)
        };
        (reason, properties)
    }

    fn properties(&mut self, owner: PropertyOwner) -> PropertiesBuf {
        let mut owned = PropertiesBuf::new();
        if !self.version.has_properties() {
            return owned;
        }
        let mut length = 0;
        for shift in [0, 7, 14, 21] {
            let byte = self.u8();
            length |= usize::from(byte & 0x7F) << shift;
            if byte & 0x80 == 0 {
                break;
            }
        }
        let mut iter = Properties::from_checked(self.take(length)).iter();
        for (id, value) in iter.by_ref() {
            assert!(id.is_allowed_in(owner), "{} in {owner:?}", id.name());
            let repeats = matches!(value, PropertyValue::Pair(..) | PropertyValue::VarInt(_));
            assert!(
                repeats || owned.view().iter().all(|(seen, _)| seen != id),
                "{} twice",
                id.name()
            );
            owned.push(id, value);
        }
        assert!(iter.rest().is_empty(), "malformed properties in {owner:?}");
        owned
    }

    fn u8(&mut self) -> u8 {
        self.take(1)[0]
    }

    fn u16(&mut self) -> u16 {
        u16::from_be_bytes(self.take(2).try_into().unwrap())
    }

    fn text(&mut self) -> String {
        let length = self.u16();
        String::from_utf8(self.take(usize::from(length)).to_vec()).expect("well-formed UTF-8 from the broker")
    }

    fn take(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.rest.split_at_checked(count).expect("a packet cut short");
        self.rest = rest;
        taken
    }
}
