//! SUBSCRIBE, SUBACK, UNSUBSCRIBE and UNSUBACK. MQTT 5 sections 3.8 to 3.11.

use super::reader::{Reader, check_characters, check_separators};
use super::writer::Frame;
use super::{Context, EncodeError, ErrorKind, properties, reasons};
use crate::protocol::packet::{
    PacketType, RetainHandling, SubAck, Subscribe, SubscriptionOptions, UnsubAck, Unsubscribe,
};
use crate::protocol::property::PropertyOwner;
use crate::protocol::qos::QoS;
use crate::protocol::reason::ReasonCode;
use crate::protocol::topic::TopicFilter;
use crate::protocol::version::Version;

const NO_LOCAL: u8 = 1 << 2;
const RETAIN_AS_PUBLISHED: u8 = 1 << 3;
const RETAIN_HANDLING_SHIFT: u8 = 4;
const RESERVED: u8 = 0b1100_0000;

/// Reads a SUBSCRIBE behind its fixed header.
pub(super) fn read<'a>(reader: &mut Reader<'a>, context: &Context<'_>) -> Result<Subscribe<'a>, ErrorKind> {
    let packet_id = reader.packet_id()?;
    let properties = properties::read(reader, PropertyOwner::Subscribe, context)?;
    let mut filters = Vec::new();
    while !reader.is_empty() {
        check_count(filters.len(), context)?;
        let filter = read_filter(reader, context)?;
        let options = read_options(reader.u8()?, context.version)?;
        if options.no_local && filter.group().is_some() {
            return Err(ErrorKind::SharedNoLocal); // [MQTT-3.8.3-4]
        }
        filters.push((filter, options));
    }
    if filters.is_empty() {
        return Err(ErrorKind::NoFilters); // [MQTT-3.8.3-2]
    }
    Ok(Subscribe {
        packet_id,
        properties,
        filters,
    })
}

/// Reads an UNSUBSCRIBE behind its fixed header.
pub(super) fn read_unsubscribe<'a>(
    reader: &mut Reader<'a>,
    context: &Context<'_>,
) -> Result<Unsubscribe<'a>, ErrorKind> {
    let packet_id = reader.packet_id()?;
    let properties = properties::read(reader, PropertyOwner::Unsubscribe, context)?;
    let mut filters = Vec::new();
    while !reader.is_empty() {
        check_count(filters.len(), context)?;
        filters.push(read_filter(reader, context)?);
    }
    if filters.is_empty() {
        return Err(ErrorKind::NoFilters); // [MQTT-3.10.3-2]
    }
    Ok(Unsubscribe {
        packet_id,
        properties,
        filters,
    })
}

fn check_count(filters: usize, context: &Context<'_>) -> Result<(), ErrorKind> {
    if filters < context.options.filters_max as usize {
        Ok(())
    } else {
        Err(ErrorKind::TooManyFilters)
    }
}

fn read_filter<'a>(reader: &mut Reader<'a>, context: &Context<'_>) -> Result<TopicFilter<'a>, ErrorKind> {
    let bytes = reader.binary()?;
    let text = simdutf8::basic::from_utf8(bytes).map_err(|_| ErrorKind::Utf8)?;
    check_characters(text, context.options)?;
    check_separators(bytes, context.options)?;
    TopicFilter::parse(text).map_err(ErrorKind::TopicFilter)
}

/// Before MQTT 5 the byte holds the QoS alone.
fn read_options(byte: u8, version: Version) -> Result<SubscriptionOptions, ErrorKind> {
    let malformed = ErrorKind::SubscriptionOptions(byte);
    let qos = QoS::from_bits(byte & 0b11).ok_or(malformed)?;
    let reserved = if version.has_properties() { RESERVED } else { !0b11 };
    if byte & reserved != 0 {
        return Err(malformed); // [MQTT-3.8.3-5]
    }
    Ok(SubscriptionOptions {
        qos,
        no_local: byte & NO_LOCAL != 0,
        retain_as_published: byte & RETAIN_AS_PUBLISHED != 0,
        retain_handling: match byte >> RETAIN_HANDLING_SHIFT & 0b11 {
            0 => RetainHandling::Send,
            1 => RetainHandling::SendIfNew,
            2 => RetainHandling::DoNotSend,
            _ => return Err(malformed),
        },
    })
}

/// Reads a SUBACK behind its fixed header.
pub(super) fn read_ack<'a>(reader: &mut Reader<'a>, context: &Context<'_>) -> Result<SubAck<'a>, ErrorKind> {
    let packet_id = reader.packet_id()?;
    let properties = properties::read(reader, PropertyOwner::SubAck, context)?;
    let reasons = read_reasons(reader, PacketType::SubAck, context)?;
    Ok(SubAck {
        packet_id,
        properties,
        reasons,
    })
}

/// Reads an UNSUBACK behind its fixed header; before MQTT 5 it has no reason codes.
pub(super) fn read_unsubscribe_ack<'a>(
    reader: &mut Reader<'a>,
    context: &Context<'_>,
) -> Result<UnsubAck<'a>, ErrorKind> {
    let packet_id = reader.packet_id()?;
    let properties = properties::read(reader, PropertyOwner::UnsubAck, context)?;
    let reasons = if context.version.has_properties() {
        read_reasons(reader, PacketType::UnsubAck, context)?
    } else {
        reader.finish().map(|()| Vec::new())?
    };
    Ok(UnsubAck {
        packet_id,
        properties,
        reasons,
    })
}

fn read_reasons(
    reader: &mut Reader<'_>,
    packet: PacketType,
    context: &Context<'_>,
) -> Result<Vec<ReasonCode>, ErrorKind> {
    if reader.is_empty() {
        return Err(ErrorKind::NoReasonCodes);
    }
    let mut codes = Vec::with_capacity(reader.peek().len()); // One byte each, all of them already here.
    while !reader.is_empty() {
        let byte = reader.u8()?;
        codes.push(match (context.version, byte) {
            (Version::V5, _) => reasons::read(byte, packet, context.role)?,
            (_, 0) => ReasonCode::Success,
            (_, 1) => ReasonCode::GrantedQos1,
            (_, 2) => ReasonCode::GrantedQos2,
            (_, 0x80) => ReasonCode::UnspecifiedError,
            _ => return Err(ErrorKind::ReasonCode(byte)),
        });
    }
    Ok(codes)
}

/// Writes a SUBSCRIBE.
pub(super) fn write(subscribe: &Subscribe<'_>, version: Version, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    let mut frame = Frame::begin(out, PacketType::Subscribe, 0b0010);
    frame.u16(subscribe.packet_id.get());
    frame.properties(subscribe.properties, version);
    for (filter, options) in &subscribe.filters {
        frame.text(filter.as_str())?;
        frame.u8(options_byte(*options, version));
    }
    frame.end()
}

const fn options_byte(options: SubscriptionOptions, version: Version) -> u8 {
    let qos = options.qos.bits();
    if !version.has_properties() {
        return qos;
    }
    qos | if options.no_local { NO_LOCAL } else { 0 }
        | if options.retain_as_published {
            RETAIN_AS_PUBLISHED
        } else {
            0
        }
        | (options.retain_handling as u8) << RETAIN_HANDLING_SHIFT
}

/// Writes an UNSUBSCRIBE.
pub(super) fn write_unsubscribe(
    unsubscribe: &Unsubscribe<'_>,
    version: Version,
    out: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    let mut frame = Frame::begin(out, PacketType::Unsubscribe, 0b0010);
    frame.u16(unsubscribe.packet_id.get());
    frame.properties(unsubscribe.properties, version);
    for filter in &unsubscribe.filters {
        frame.text(filter.as_str())?;
    }
    frame.end()
}

/// Writes a SUBACK; before MQTT 5 every failure is 0x80.
pub(super) fn write_ack(ack: &SubAck<'_>, version: Version, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    let mut frame = Frame::begin(out, PacketType::SubAck, 0);
    frame.u16(ack.packet_id.get());
    frame.properties(ack.properties, version);
    for reason in &ack.reasons {
        let is_plain_failure = reason.is_error() && !version.has_properties();
        frame.u8(if is_plain_failure {
            ReasonCode::UnspecifiedError.byte()
        } else {
            reason.byte()
        });
    }
    frame.end()
}

/// Writes an UNSUBACK; before MQTT 5 without reason codes.
pub(super) fn write_unsubscribe_ack(
    ack: &UnsubAck<'_>,
    version: Version,
    out: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    let mut frame = Frame::begin(out, PacketType::UnsubAck, 0);
    frame.u16(ack.packet_id.get());
    frame.properties(ack.properties, version);
    if version.has_properties() {
        for reason in &ack.reasons {
            frame.u8(reason.byte());
        }
    }
    frame.end()
}
