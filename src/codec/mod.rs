//! Layer 1: bytes to packets and packets to bytes, for MQTT 3.1, 3.1.1 and 5.0.
//!
//! Reading copies nothing: a [`Packet`] borrows from the read buffer. Everything the standard says about the form of a packet is
//! checked here, once; behind this folder there is no invalid topic, no packet identifier zero, no reserved flag and no
//! property in the wrong place. What is wrong is said by an [`ErrorKind`], and [`DecodeError::reason`] is the one place that
//! turns a fault into the reason code the peer is told.

mod ack;
mod connect;
mod control;
mod error;
mod frame;
mod properties;
mod publish;
mod reader;
mod reasons;
mod subscribe;
#[cfg(test)]
mod tests;
mod writer;

use crate::protocol::packet::{Packet, PacketType};
use crate::protocol::property::PropertyOwner;
use crate::protocol::version::Version;

pub use error::{DecodeError, EncodeError, ErrorKind};
pub use publish::{PublishFrame, PublishSpan, patch_packet_id};
pub use reasons::is_of_connack;
pub use writer::{encode, write_ack};

use reader::Reader;

/// The longest packet of MQTT, fixed header included: 5 + 268,435,455 bytes. Section 1.5.5.
pub const PACKET_BYTES_MAX: u32 = 5 + REMAINING_LENGTH_MAX;

/// The largest remaining length, and the largest variable byte integer at all. Section 1.5.5.
pub const REMAINING_LENGTH_MAX: u32 = 268_435_455;

/// What is read, beyond what the standard says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecodeOptions {
    /// The longest packet that is read, in bytes, fixed header included; a longer one is refused as soon as its length is known.
    /// By default the longest of MQTT.
    pub packet_bytes_max: u32,
    /// Refuse U+0001 to U+001F, U+007F to U+009F and the non-characters of Unicode in every string, which section 1.5.4
    /// allows a receiver to do. Off by default. U+0000 is always refused.
    pub strict_utf8: bool,
    /// The most `/` in a topic name or filter. 200 by default: topics of thousands of levels are sent by nobody but attackers, and
    /// every level costs memory and time in the subscription tree.
    pub topic_separators_max: u16,
    /// The longest topic name or filter, in bytes. 65,535 by default, the longest there is.
    pub topic_bytes_max: u16,
    /// The most user properties in one packet. 65,535 by default: they are what a message can carry most of.
    pub user_properties_max: u16,
    /// The most topic filters in one SUBSCRIBE or UNSUBSCRIBE. 65,536 by default: a filter of 4 bytes takes 60 in memory.
    pub filters_max: u32,
}

impl Default for DecodeOptions {
    fn default() -> Self {
        Self {
            packet_bytes_max: PACKET_BYTES_MAX,
            strict_utf8: false,
            topic_separators_max: 200,
            topic_bytes_max: u16::MAX,
            user_properties_max: u16::MAX,
            filters_max: 65_536,
        }
    }
}

/// Who reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// The server: never accepts what only a server sends (CONNACK, SUBACK, UNSUBACK, PINGRESP).
    Server,
    /// A client: never accepts what only a client sends (CONNECT, SUBSCRIBE, UNSUBSCRIBE, PINGREQ).
    Client,
}

/// What a packet is read against.
#[derive(Clone, Copy)]
struct Context<'o> {
    version: Version,
    role: Role,
    options: &'o DecodeOptions,
}

/// Reads one packet from the front of `bytes` and says how many bytes it took. `Ok(None)` means that more bytes are needed.
///
/// `version` is `None` until a CONNECT was read: only a CONNECT is accepted then [MQTT-3.1.0-1], and none after it
/// [MQTT-3.1.0-2]. Faults of the first byte and of the length are reported without waiting for the rest of the packet.
///
/// # Errors
///
/// Whatever the standard forbids. No bytes behind a fault can be trusted: the connection must be closed.
#[inline]
pub fn decode<'a>(
    bytes: &'a [u8],
    version: Option<Version>,
    role: Role,
    options: &DecodeOptions,
) -> Result<Option<(Packet<'a>, usize)>, DecodeError> {
    let Some(&first) = bytes.first() else {
        return Ok(None);
    };
    let Some(version) = version else {
        return decode_first(bytes, role, options);
    };
    let context = Context { version, role, options };
    let packet = match check_first_byte(first, version, role) {
        Ok(packet) => packet,
        Err(kind) => return Err(fault(kind, 0, first, Some(version))),
    };
    let (header_bytes, packet_bytes) = match frame::parse(bytes, options.packet_bytes_max) {
        Ok(Some(lengths)) => lengths,
        Ok(None) => return Ok(None),
        Err(kind) => return Err(fault(kind, 1, first, Some(version))),
    };
    let Some(whole) = bytes.get(..packet_bytes) else {
        return Ok(None);
    };
    let mut reader = Reader::new(whole, header_bytes);
    let read = if packet == PacketType::Publish {
        publish::read(&mut reader, first, &context).map(Packet::Publish)
    } else {
        read_other(&mut reader, packet, &context)
    };
    match read {
        Ok(packet) => Ok(Some((packet, packet_bytes))),
        Err(kind) => Err(fault(kind, reader.offset(), first, Some(version))),
    }
}

/// The length in bytes of the packet at the front, fixed header included, so that a large one can be gathered. `Ok(None)` means
/// that its length is not complete.
///
/// # Errors
///
/// A length of more than four bytes or with needless bytes, or over `packet_bytes_max`.
#[inline]
pub fn frame_length(bytes: &[u8], packet_bytes_max: u32) -> Result<Option<usize>, DecodeError> {
    match frame::parse(bytes, packet_bytes_max) {
        Ok(lengths) => Ok(lengths.map(|(_, packet_bytes)| packet_bytes)),
        Err(kind) => Err(fault(kind, 1, bytes.first().copied().unwrap_or(0), None)),
    }
}

/// Reads a CONNECT, the only packet that says itself which version it is.
#[inline(never)]
fn decode_first<'a>(
    bytes: &'a [u8],
    role: Role,
    options: &DecodeOptions,
) -> Result<Option<(Packet<'a>, usize)>, DecodeError> {
    let first = bytes[0];
    if first >> 4 != PacketType::Connect as u8 || role == Role::Client {
        return Err(fault(ErrorKind::ConnectExpected, 0, first, None));
    }
    let (header_bytes, packet_bytes) = match frame::parse(bytes, options.packet_bytes_max) {
        Ok(Some(lengths)) => lengths,
        Ok(None) => return Ok(None),
        Err(kind) => {
            // Its beginning is there most often, and says how to tell it.
            let announced = |header_bytes| connect::announced_version(Reader::new(bytes, header_bytes));
            let is_header = matches!(kind, ErrorKind::PacketTooLarge { .. });
            let version = is_header.then(|| frame::header_bytes(bytes)).and_then(announced);
            return Err(fault(kind, 1, first, version));
        }
    };
    let Some(whole) = bytes.get(..packet_bytes) else {
        return Ok(None);
    };
    let mut reader = Reader::new(whole, header_bytes);
    match connect::read(&mut reader, first, options) {
        Ok(connect) => Ok(Some((Packet::Connect(connect), packet_bytes))),
        Err(kind) => {
            let version = connect::announced_version(Reader::new(whole, header_bytes));
            Err(fault(kind, reader.offset(), first, version))
        }
    }
}

#[inline(never)]
fn read_other<'a>(reader: &mut Reader<'a>, packet: PacketType, context: &Context<'_>) -> Result<Packet<'a>, ErrorKind> {
    Ok(match packet {
        PacketType::Connect => return Err(ErrorKind::SecondConnect),
        PacketType::ConnAck => Packet::ConnAck(connect::read_ack(reader, context)?),
        PacketType::Publish => return Err(ErrorKind::PacketType),
        PacketType::PubAck => Packet::PubAck(ack::read(reader, packet, PropertyOwner::PubAck, context)?),
        PacketType::PubRec => Packet::PubRec(ack::read(reader, packet, PropertyOwner::PubRec, context)?),
        PacketType::PubRel => Packet::PubRel(ack::read(reader, packet, PropertyOwner::PubRel, context)?),
        PacketType::PubComp => Packet::PubComp(ack::read(reader, packet, PropertyOwner::PubComp, context)?),
        PacketType::Subscribe => Packet::Subscribe(subscribe::read(reader, context)?),
        PacketType::SubAck => Packet::SubAck(subscribe::read_ack(reader, context)?),
        PacketType::Unsubscribe => Packet::Unsubscribe(subscribe::read_unsubscribe(reader, context)?),
        PacketType::UnsubAck => Packet::UnsubAck(subscribe::read_unsubscribe_ack(reader, context)?),
        PacketType::PingReq => reader.finish().map(|()| Packet::PingReq)?,
        PacketType::PingResp => reader.finish().map(|()| Packet::PingResp)?,
        PacketType::Disconnect => Packet::Disconnect(control::read_disconnect(reader, context)?),
        PacketType::Auth => Packet::Auth(control::read_auth(reader, context)?),
    })
}

/// The packet type of a first byte, once it is clear that the sender may send it and that its flags are right.
#[inline]
fn check_first_byte(first: u8, version: Version, role: Role) -> Result<PacketType, ErrorKind> {
    use PacketType as P;
    let flags = first & 0x0F;
    if first >> 4 == P::Publish as u8 {
        return match flags & 0b1110 {
            0b0110 | 0b1110 => Err(ErrorKind::PublishQoS),
            0b1000 => Err(ErrorKind::PublishDup),
            _ => Ok(P::Publish),
        };
    }
    let packet = frame::packet_type(first).ok_or(ErrorKind::PacketType)?;
    if packet == P::Auth && !version.has_properties() {
        return Err(ErrorKind::PacketType);
    }
    let is_ours_to_read = match packet {
        P::Connect => {
            return Err(if role == Role::Server {
                ErrorKind::SecondConnect
            } else {
                ErrorKind::WrongSender
            });
        }
        P::Subscribe | P::Unsubscribe | P::PingReq => role == Role::Server,
        P::ConnAck | P::SubAck | P::UnsubAck | P::PingResp => role == Role::Client,
        P::Disconnect => role == Role::Server || version.has_properties(),
        P::Publish | P::PubAck | P::PubRec | P::PubRel | P::PubComp | P::Auth => true,
    };
    // CONNACK and PINGRESP have nothing worth a look when a client sends them; for SUBACK and UNSUBACK wrong flags come first.
    if !is_ours_to_read && (flags == 0 || matches!(packet, P::ConnAck | P::PingResp)) {
        return Err(ErrorKind::WrongSender);
    }
    let required = match packet {
        P::PubRel | P::Subscribe | P::Unsubscribe => 0b0010,
        _ => 0,
    };
    // MQTT 3.1 marks a repeated PUBREL, SUBSCRIBE or UNSUBSCRIBE with DUP.
    let is_repeated_31 = version == Version::V31 && required != 0 && flags == required | 0b1000;
    if flags != required && !is_repeated_31 {
        return Err(ErrorKind::FixedHeaderFlags(flags));
    }
    if is_ours_to_read {
        Ok(packet)
    } else {
        Err(ErrorKind::WrongSender)
    }
}

#[cold]
fn fault(kind: ErrorKind, offset: usize, first: u8, version: Option<Version>) -> DecodeError {
    DecodeError {
        kind,
        packet: frame::packet_type(first),
        version,
        offset,
    }
}
