//! DISCONNECT and AUTH. MQTT 5 sections 3.14 and 3.15.

use super::reader::Reader;
use super::writer::Frame;
use super::{Context, EncodeError, ErrorKind, properties, reasons};
use crate::protocol::packet::{Auth, Disconnect, PacketType};
use crate::protocol::property::{Properties, PropertyId, PropertyOwner};
use crate::protocol::reason::ReasonCode;
use crate::protocol::version::Version;

/// Reads a DISCONNECT behind its fixed header. Before MQTT 5 it is empty; since, an empty one is a normal disconnection and one
/// of a single byte has no properties.
pub(super) fn read_disconnect<'a>(reader: &mut Reader<'a>, context: &Context<'_>) -> Result<Disconnect<'a>, ErrorKind> {
    let mut disconnect = Disconnect {
        reason: ReasonCode::Success,
        properties: Properties::EMPTY,
    };
    if reader.is_empty() {
        return Ok(disconnect);
    }
    if !context.version.has_properties() {
        return Err(ErrorKind::TrailingBytes);
    }
    let reason = reader.u8()?;
    if !reader.is_empty() {
        disconnect.properties = properties::read(reader, PropertyOwner::Disconnect, context)?;
        reader.finish()?;
    }
    disconnect.reason = reasons::read(reason, PacketType::Disconnect, context.role)?;
    Ok(disconnect)
}

/// Writes a DISCONNECT in its shortest form.
pub(super) fn write_disconnect(
    disconnect: &Disconnect<'_>,
    version: Version,
    out: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    let mut frame = Frame::begin(out, PacketType::Disconnect, 0);
    let has_properties = !disconnect.properties.is_empty();
    if version.has_properties() && (has_properties || disconnect.reason != ReasonCode::Success) {
        frame.u8(disconnect.reason.byte());
        if has_properties {
            frame.properties(disconnect.properties, version);
        }
    }
    frame.end()
}

/// Reads an AUTH behind its fixed header. An empty one is the success of a server that has nothing to add.
pub(super) fn read_auth<'a>(reader: &mut Reader<'a>, context: &Context<'_>) -> Result<Auth<'a>, ErrorKind> {
    let mut auth = Auth {
        reason: ReasonCode::Success,
        properties: Properties::EMPTY,
    };
    let mut byte = ReasonCode::Success.byte();
    if !reader.is_empty() {
        byte = reader.u8()?;
        auth.properties = properties::read(reader, PropertyOwner::Auth, context)?;
        reader.finish()?;
    }
    auth.reason = reasons::read(byte, PacketType::Auth, context.role)?;
    if auth.reason != ReasonCode::Success && auth.properties.text(PropertyId::AuthenticationMethod).is_none() {
        return Err(ErrorKind::AuthenticationMethodMissing); // Section 3.15.2.2.2.
    }
    Ok(auth)
}

/// Writes an AUTH.
pub(super) fn write_auth(auth: &Auth<'_>, version: Version, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    if !version.has_properties() {
        return Err(EncodeError::NotInVersion(version));
    }
    let mut frame = Frame::begin(out, PacketType::Auth, 0);
    if auth.reason != ReasonCode::Success || !auth.properties.is_empty() {
        frame.u8(auth.reason.byte());
        frame.properties(auth.properties, version);
    }
    frame.end()
}
