//! Packets to bytes. Nothing is allocated beyond the output buffer, and a packet that cannot be written leaves no trace in it.

use super::{EncodeError, REMAINING_LENGTH_MAX, ack, connect, control, publish, subscribe};
use crate::protocol::ids::PacketId;
use crate::protocol::packet::{Packet, PacketType};
use crate::protocol::property::Properties;
use crate::protocol::reason::ReasonCode;
use crate::protocol::topic::STRING_BYTES_MAX;
use crate::protocol::version::Version;

/// Appends a whole packet in its shortest form and says how many bytes it has. A CONNECT is written in its own version. What the
/// version cannot say is left out: properties, and the reasons of acknowledgements.
///
/// # Errors
///
/// [`EncodeError`]; `out` is as it was then.
pub fn encode(packet: &Packet<'_>, version: Version, out: &mut Vec<u8>) -> Result<usize, EncodeError> {
    let start = out.len();
    match packet {
        Packet::Connect(connect) => connect::write(connect, out),
        Packet::ConnAck(ack) => connect::write_ack(ack, version, out),
        Packet::Publish(publish) => publish::write(publish, version, out),
        Packet::PubAck(ack) | Packet::PubRec(ack) | Packet::PubRel(ack) | Packet::PubComp(ack) => {
            ack::write(packet.packet_type(), ack, version, out)
        }
        Packet::Subscribe(subscribe) => subscribe::write(subscribe, version, out),
        Packet::SubAck(ack) => subscribe::write_ack(ack, version, out),
        Packet::Unsubscribe(unsubscribe) => subscribe::write_unsubscribe(unsubscribe, version, out),
        Packet::UnsubAck(ack) => subscribe::write_unsubscribe_ack(ack, version, out),
        Packet::PingReq => write_empty(PacketType::PingReq, out),
        Packet::PingResp => write_empty(PacketType::PingResp, out),
        Packet::Disconnect(disconnect) => control::write_disconnect(disconnect, version, out),
        Packet::Auth(auth) => control::write_auth(auth, version, out),
    }?;
    Ok(out.len() - start)
}

/// Appends a PUBACK, PUBREC, PUBREL or PUBCOMP without properties: four bytes, or five where MQTT 5 has a reason to say.
#[inline]
pub fn write_ack(packet: PacketType, packet_id: PacketId, reason: ReasonCode, version: Version, out: &mut Vec<u8>) {
    let flags = if matches!(packet, PacketType::PubRel) {
        0b0010
    } else {
        0
    };
    let first = (packet as u8) << 4 | flags;
    let [high, low] = packet_id.get().to_be_bytes();
    if matches!(reason, ReasonCode::Success) || !version.has_properties() {
        out.extend_from_slice(&[first, 2, high, low]);
    } else {
        out.extend_from_slice(&[first, 3, high, low, reason.byte()]);
    }
}

fn write_empty(packet: PacketType, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    out.extend_from_slice(&[(packet as u8) << 4, 0]);
    Ok(())
}

/// A packet that is being appended. Its length is known at the end: one byte is kept free for it, and the few packets that need
/// more are moved. Dropped without [`Self::end`], it takes back what it wrote.
pub(super) struct Frame<'o> {
    out: &'o mut Vec<u8>,
    start: usize,
    is_whole: bool,
}

impl<'o> Frame<'o> {
    pub(super) fn begin(out: &'o mut Vec<u8>, packet: PacketType, flags: u8) -> Self {
        let start = out.len();
        out.extend_from_slice(&[(packet as u8) << 4 | flags, 0]);
        Self {
            out,
            start,
            is_whole: false,
        }
    }

    /// Fills in the remaining length.
    pub(super) fn end(mut self) -> Result<(), EncodeError> {
        let body = self.start + 2;
        let remaining = self.out.len() - body;
        if remaining > REMAINING_LENGTH_MAX as usize {
            return Err(EncodeError::TooLarge { bytes: remaining });
        }
        let extra = varint_bytes(remaining) - 1;
        if extra > 0 {
            self.out.extend_from_slice(&[0; 3][..extra]);
            self.out.copy_within(body..body + remaining, body + extra);
        }
        fill_varint(&mut self.out[self.start + 1..=self.start + 1 + extra], remaining);
        self.is_whole = true;
        Ok(())
    }

    pub(super) fn u8(&mut self, value: u8) {
        self.out.push(value);
    }

    pub(super) fn u16(&mut self, value: u16) {
        put_u16(self.out, value);
    }

    pub(super) fn text(&mut self, text: &str) -> Result<(), EncodeError> {
        self.binary(text.as_bytes())
    }

    pub(super) fn binary(&mut self, bytes: &[u8]) -> Result<(), EncodeError> {
        if bytes.len() > STRING_BYTES_MAX {
            return Err(EncodeError::FieldTooLong { bytes: bytes.len() });
        }
        put_u16(self.out, bytes.len() as u16);
        self.out.extend_from_slice(bytes);
        Ok(())
    }

    /// Length and block; nothing before MQTT 5.
    pub(super) fn properties(&mut self, properties: Properties<'_>, version: Version) {
        if version.has_properties() {
            put_varint(self.out, properties.as_bytes().len());
            self.out.extend_from_slice(properties.as_bytes());
        }
    }
}

impl Drop for Frame<'_> {
    fn drop(&mut self) {
        if !self.is_whole {
            self.out.truncate(self.start);
        }
    }
}

#[inline]
pub(super) fn put_u16(out: &mut Vec<u8>, value: u16) {
    out.extend_from_slice(&value.to_be_bytes());
}

/// The bytes that a variable byte integer takes.
#[inline]
pub(super) const fn varint_bytes(value: usize) -> usize {
    match value {
        0..=0x7F => 1,
        0x80..=0x3FFF => 2,
        0x4000..=0x1F_FFFF => 3,
        _ => 4,
    }
}

/// Appends a variable byte integer of at most 268,435,455.
#[inline]
pub(super) fn put_varint(out: &mut Vec<u8>, value: usize) {
    if value < 0x80 {
        out.push(value as u8);
        return;
    }
    let mut bytes = [0; 4];
    let place = &mut bytes[..varint_bytes(value)];
    fill_varint(place, value);
    out.extend_from_slice(place);
}

/// Writes a variable byte integer over all of `place`, which is exactly as long as it needs.
fn fill_varint(place: &mut [u8], mut value: usize) {
    let last = place.len() - 1;
    for (index, byte) in place.iter_mut().enumerate() {
        *byte = (value & 0x7F) as u8 | if index < last { 0x80 } else { 0 };
        value >>= 7;
    }
}
