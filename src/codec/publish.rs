//! PUBLISH. MQTT 5 section 3.3.

use super::reader::Reader;
use super::writer::{put_u16, put_varint, varint_bytes};
use super::{Context, EncodeError, ErrorKind, REMAINING_LENGTH_MAX, properties};
use crate::protocol::ids::PacketId;
use crate::protocol::packet::{PacketType, Publish};
use crate::protocol::property::{Properties, PropertyId, PropertyOwner};
use crate::protocol::qos::QoS;
use crate::protocol::topic::{STRING_BYTES_MAX, TopicName};
use crate::protocol::version::Version;

const RETAIN: u8 = 1;
const DUP: u8 = 1 << 3;

/// Reads a PUBLISH behind its fixed header; `first` is the packet's first byte.
#[inline]
pub(super) fn read<'a>(reader: &mut Reader<'a>, first: u8, context: &Context<'_>) -> Result<Publish<'a>, ErrorKind> {
    let qos = QoS::from_bits(first >> 1 & 0b11).ok_or(ErrorKind::PublishQoS)?;
    let topic = match reader.peek() {
        [0, 0, ..] if context.version.has_properties() => {
            reader.u16()?;
            None
        }
        _ => Some(reader.topic(context.options, ErrorKind::TopicName)?),
    };
    let packet_id = if qos.is_acknowledged() {
        Some(reader.packet_id()?)
    } else {
        None
    };
    let properties = properties::read(reader, PropertyOwner::Publish, context)?;
    if topic.is_none() && properties.u16(PropertyId::TopicAlias).is_none() {
        return Err(ErrorKind::TopicMissing);
    }
    Ok(Publish {
        dup: first & DUP != 0,
        qos,
        retain: first & RETAIN != 0,
        topic,
        packet_id,
        properties,
        payload: reader.take_rest(),
    })
}

/// An outgoing PUBLISH, put together from its parts while it is written. Allocates nothing beyond the output buffer.
///
/// Properties stand in this order: topic alias, subscription identifiers, the forwarded block, message expiry interval.
#[derive(Clone, Copy, Debug)]
pub struct PublishFrame<'a> {
    /// Topic name; empty where the alias stands alone.
    pub topic: &'a str,
    /// QoS.
    pub qos: QoS,
    /// Retain flag.
    pub retain: bool,
    /// Sent before.
    pub dup: bool,
    /// Needed at QoS 1 and 2; not looked at for QoS 0.
    pub packet_id: Option<PacketId>,
    /// Never 0 [MQTT-3.3.2-8]. Not written before MQTT 5, as all that follow.
    pub topic_alias: Option<u16>,
    /// In seconds.
    pub message_expiry: Option<u32>,
    /// Of the subscriptions that match, each 1 to 268,435,455.
    pub subscription_identifiers: &'a [u32],
    /// A checked block that is passed on as it is.
    pub properties: Properties<'a>,
    /// Payload.
    pub payload: &'a [u8],
}

/// Where the parts of a written PUBLISH are, in bytes from its first. A copy of the frame is made to fit the next receiver with
/// [`patch_packet_id`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublishSpan {
    /// Of the packet identifier; `None` at QoS 0.
    pub packet_id_at: Option<usize>,
    /// Of the payload: the header's length.
    pub payload_at: usize,
    /// Of the whole packet, payload included.
    pub packet_bytes: usize,
}

/// Lengths that are needed before anything is written.
struct Lengths {
    properties: usize,
    remaining: usize,
}

impl PublishFrame<'_> {
    /// The length of the whole packet in bytes, as [`Self::write`] would write it.
    pub fn encoded_len(&self, version: Version) -> usize {
        let remaining = self.lengths(version).remaining;
        1 + varint_bytes(remaining) + remaining
    }

    /// Appends the whole packet.
    ///
    /// # Errors
    ///
    /// [`EncodeError`]; nothing was written then.
    #[inline]
    pub fn write(&self, version: Version, out: &mut Vec<u8>) -> Result<PublishSpan, EncodeError> {
        let lengths = self.checked_lengths(version)?;
        out.reserve(lengths.remaining + 5);
        let span = self.write_parts(&lengths, version, out);
        out.extend_from_slice(self.payload);
        Ok(span)
    }

    /// Appends everything but the payload, whose length is counted all the same: for a payload that goes out by reference.
    ///
    /// # Errors
    ///
    /// [`EncodeError`]; nothing was written then.
    #[inline]
    pub fn write_header(&self, version: Version, out: &mut Vec<u8>) -> Result<PublishSpan, EncodeError> {
        let lengths = self.checked_lengths(version)?;
        out.reserve(lengths.remaining - self.payload.len() + 5);
        Ok(self.write_parts(&lengths, version, out))
    }

    #[inline]
    fn lengths(&self, version: Version) -> Lengths {
        let packet_id = if self.qos.is_acknowledged() { 2 } else { 0 };
        let mut remaining = 2 + self.topic.len() + packet_id + self.payload.len();
        let mut properties = 0;
        if version.has_properties() {
            properties = self.properties.as_bytes().len();
            properties += if self.topic_alias.is_some() { 3 } else { 0 };
            properties += if self.message_expiry.is_some() { 5 } else { 0 };
            properties += self
                .subscription_identifiers
                .iter()
                .map(|id| 1 + varint_bytes(*id as usize))
                .sum::<usize>();
            remaining += varint_bytes(properties) + properties;
        }
        Lengths { properties, remaining }
    }

    #[inline]
    fn checked_lengths(&self, version: Version) -> Result<Lengths, EncodeError> {
        let lengths = self.lengths(version);
        if lengths.remaining > REMAINING_LENGTH_MAX as usize {
            return Err(EncodeError::TooLarge {
                bytes: lengths.remaining,
            });
        }
        if self.topic.len() > STRING_BYTES_MAX {
            return Err(EncodeError::FieldTooLong {
                bytes: self.topic.len(),
            });
        }
        if self.topic.is_empty() && !version.has_properties() {
            return Err(EncodeError::NotInVersion(version));
        }
        if self.qos.is_acknowledged() && self.packet_id.is_none() {
            return Err(EncodeError::PacketIdMissing);
        }
        Ok(lengths)
    }

    #[inline]
    fn write_parts(&self, lengths: &Lengths, version: Version, out: &mut Vec<u8>) -> PublishSpan {
        let start = out.len();
        let flags = self.qos.bits() << 1 | if self.retain { RETAIN } else { 0 } | if self.dup { DUP } else { 0 };
        let first = (PacketType::Publish as u8) << 4 | flags;
        let [high, low] = (self.topic.len() as u16).to_be_bytes();
        match lengths.remaining {
            // In one piece where the length is short: every append costs a look at the capacity.
            remaining @ 0..=0x7F => out.extend_from_slice(&[first, remaining as u8, high, low]),
            remaining @ 0x80..=0x3FFF => {
                out.extend_from_slice(&[first, remaining as u8 | 0x80, (remaining >> 7) as u8, high, low]);
            }
            remaining => {
                out.push(first);
                put_varint(out, remaining);
                out.extend_from_slice(&[high, low]);
            }
        }
        out.extend_from_slice(self.topic.as_bytes());
        let mut packet_id_at = None;
        if let Some(packet_id) = self.packet_id.filter(|_| self.qos.is_acknowledged()) {
            packet_id_at = Some(out.len() - start);
            put_u16(out, packet_id.get());
        }
        if version.has_properties() {
            put_varint(out, lengths.properties);
            if lengths.properties > 0 {
                self.write_properties(out);
            }
        }
        let payload_at = out.len() - start;
        PublishSpan {
            packet_id_at,
            payload_at,
            packet_bytes: payload_at + self.payload.len(),
        }
    }

    fn write_properties(&self, out: &mut Vec<u8>) {
        if let Some(alias) = self.topic_alias {
            out.push(PropertyId::TopicAlias as u8);
            put_u16(out, alias);
        }
        for id in self.subscription_identifiers {
            out.push(PropertyId::SubscriptionIdentifier as u8);
            put_varint(out, *id as usize);
        }
        out.extend_from_slice(self.properties.as_bytes());
        if let Some(seconds) = self.message_expiry {
            out.push(PropertyId::MessageExpiryInterval as u8);
            out.extend_from_slice(&seconds.to_be_bytes());
        }
    }
}

/// Gives a copy of a written PUBLISH another packet identifier; `at` is [`PublishSpan::packet_id_at`], counted from the packet's
/// first byte, which is `packet[0]`.
#[inline]
pub fn patch_packet_id(packet: &mut [u8], at: usize, packet_id: PacketId) {
    if let Some(place) = packet.get_mut(at..at + 2) {
        place.copy_from_slice(&packet_id.get().to_be_bytes());
    }
}

/// Writes a PUBLISH as it was read.
pub(super) fn write(publish: &Publish<'_>, version: Version, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    let frame = PublishFrame {
        topic: publish.topic.map_or("", TopicName::as_str),
        qos: publish.qos,
        retain: publish.retain,
        dup: publish.dup,
        packet_id: publish.packet_id,
        topic_alias: None,
        message_expiry: None,
        subscription_identifiers: &[],
        properties: publish.properties,
        payload: publish.payload,
    };
    frame.write(version, out).map(|_| ())
}
