//! PUBACK, PUBREC, PUBREL and PUBCOMP. MQTT 5 sections 3.4 to 3.7.

use super::reader::Reader;
use super::writer::{Frame, write_ack};
use super::{Context, EncodeError, ErrorKind, properties, reasons};
use crate::protocol::packet::{Ack, PacketType};
use crate::protocol::property::{Properties, PropertyOwner};
use crate::protocol::reason::ReasonCode;
use crate::protocol::version::Version;

/// Reads an acknowledgement behind its fixed header. Two bytes are the whole of it before MQTT 5, and mean success since.
#[inline]
pub(super) fn read<'a>(
    reader: &mut Reader<'a>,
    packet: PacketType,
    owner: PropertyOwner,
    context: &Context<'_>,
) -> Result<Ack<'a>, ErrorKind> {
    let packet_id = reader.packet_id()?;
    let mut ack = Ack {
        packet_id,
        reason: ReasonCode::Success,
        properties: Properties::EMPTY,
    };
    if reader.is_empty() {
        return Ok(ack);
    }
    if !context.version.has_properties() {
        return Err(ErrorKind::TrailingBytes);
    }
    let reason = reader.u8()?;
    if !reader.is_empty() {
        ack.properties = properties::read(reader, owner, context)?;
        reader.finish()?;
    }
    ack.reason = reasons::read(reason, packet, context.role)?;
    Ok(ack)
}

/// Writes an acknowledgement in its shortest form; before MQTT 5 the reason cannot be said.
pub(super) fn write(packet: PacketType, ack: &Ack<'_>, version: Version, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    if ack.properties.is_empty() || !version.has_properties() {
        write_ack(packet, ack.packet_id, ack.reason, version, out);
        return Ok(());
    }
    let flags = if packet == PacketType::PubRel { 0b0010 } else { 0 };
    let mut frame = Frame::begin(out, packet, flags);
    frame.u16(ack.packet_id.get());
    frame.u8(ack.reason.byte());
    frame.properties(ack.properties, version);
    frame.end()
}
