//! CONNECT and CONNACK. MQTT 5 sections 3.1 and 3.2, MQTT 3.1.1 the same, MQTT 3.1 sections 3.1 and 3.2.

use super::reader::Reader;
use super::writer::Frame;
use super::{Context, DecodeOptions, EncodeError, ErrorKind, Role, properties, reasons};
use crate::protocol::packet::{ConnAck, Connect, PacketType, Will};
use crate::protocol::property::PropertyOwner;
use crate::protocol::qos::QoS;
use crate::protocol::reason::ReasonCode;
use crate::protocol::version::Version;

const RESERVED: u8 = 1;
const CLEAN_START: u8 = 1 << 1;
const WILL: u8 = 1 << 2;
const WILL_QOS_SHIFT: u8 = 3;
const WILL_QOS_AND_RETAIN: u8 = 0b0011_1000;
const WILL_RETAIN: u8 = 1 << 5;
const PASSWORD: u8 = 1 << 6;
const USER_NAME: u8 = 1 << 7;

/// Set in the protocol level by bridges of the mosquitto family.
const BRIDGE: u8 = 0x80;

/// Reads a CONNECT behind its fixed header; `first` is the packet's first byte.
pub(super) fn read<'a>(reader: &mut Reader<'a>, first: u8, options: &DecodeOptions) -> Result<Connect<'a>, ErrorKind> {
    let (version, is_bridge) = read_version(reader)?;
    let context = Context {
        version,
        role: Role::Server,
        options,
    };
    let is_31 = version == Version::V31; // It does not use the fixed header's flags, nor the reserved connect flag.
    if first & 0x0F != 0 && !is_31 {
        return Err(ErrorKind::FixedHeaderFlags(first & 0x0F));
    }
    let flags = reader.u8()?;
    check_flags(flags, version)?;
    let keep_alive = reader.u16()?;
    let properties = properties::read(reader, PropertyOwner::Connect, &context)?;
    let client_id = reader.text(options)?;
    let will = if flags & WILL != 0 {
        Some(read_will(reader, flags, &context)?)
    } else {
        None
    };
    // In MQTT 3.1 the remaining length takes precedence over these two flags.
    let is_there = |reader: &Reader<'_>, flag| flags & flag != 0 && !(is_31 && reader.is_empty());
    let user_name = if is_there(reader, USER_NAME) {
        Some(reader.text(options)?)
    } else {
        None
    };
    let password = if is_there(reader, PASSWORD) {
        Some(reader.binary()?)
    } else {
        None
    };
    reader.finish()?;
    let clean_start = flags & CLEAN_START != 0;
    Ok(Connect {
        version,
        is_bridge,
        clean_start,
        keep_alive,
        client_id,
        will,
        user_name,
        password,
        properties,
    })
}

/// The version that a CONNECT announces, whatever is wrong with the rest of it.
pub(super) fn announced_version(mut reader: Reader<'_>) -> Option<Version> {
    read_version(&mut reader).ok().map(|(version, _)| version)
}

fn read_version(reader: &mut Reader<'_>) -> Result<(Version, bool), ErrorKind> {
    let name = reader.binary()?;
    let is_31 = match name {
        b"MQTT" => false,
        b"MQIsdp" => true,
        _ => return Err(ErrorKind::ProtocolName),
    };
    match (is_31, reader.u8()?) {
        (true, level @ (3 | 0x83)) => Ok((Version::V31, level & BRIDGE != 0)),
        (false, level @ (4 | 0x84)) => Ok((Version::V311, level & BRIDGE != 0)),
        (false, 5) => Ok((Version::V5, false)),
        (_, level) => Err(ErrorKind::ProtocolLevel(level)),
    }
}

fn check_flags(flags: u8, version: Version) -> Result<(), ErrorKind> {
    let is_reserved_set = flags & RESERVED != 0 && version != Version::V31; // [MQTT-3.1.2-3]
    let is_will_broken = if flags & WILL == 0 {
        flags & WILL_QOS_AND_RETAIN != 0 // [MQTT-3.1.2-11] [MQTT-3.1.2-13]
    } else {
        will_qos(flags).is_none() // [MQTT-3.1.2-12]
    };
    if is_reserved_set || is_will_broken {
        return Err(ErrorKind::ConnectFlags(flags));
    }
    if flags & (USER_NAME | PASSWORD) == PASSWORD && !version.has_properties() {
        return Err(ErrorKind::PasswordWithoutUserName);
    }
    Ok(())
}

const fn will_qos(flags: u8) -> Option<QoS> {
    QoS::from_bits(flags >> WILL_QOS_SHIFT & 0b11)
}

fn read_will<'a>(reader: &mut Reader<'a>, flags: u8, context: &Context<'_>) -> Result<Will<'a>, ErrorKind> {
    let properties = properties::read(reader, PropertyOwner::Will, context)?;
    Ok(Will {
        topic: reader.topic(context.options, ErrorKind::WillTopic)?,
        payload: reader.binary()?,
        qos: will_qos(flags).ok_or(ErrorKind::ConnectFlags(flags))?,
        retain: flags & WILL_RETAIN != 0,
        properties,
    })
}

/// Reads a CONNACK behind its fixed header.
pub(super) fn read_ack<'a>(reader: &mut Reader<'a>, context: &Context<'_>) -> Result<ConnAck<'a>, ErrorKind> {
    let flags = reader.u8()?;
    let code = reader.u8()?;
    let properties = properties::read(reader, PropertyOwner::ConnAck, context)?;
    reader.finish()?;
    let reason = match context.version {
        Version::V5 => reasons::read(code, PacketType::ConnAck, context.role)?,
        Version::V31 | Version::V311 => reason_of_return_code(code).ok_or(ErrorKind::ReasonCode(code))?,
    };
    if context.version == Version::V31 {
        return Ok(ConnAck {
            session_present: false,
            reason,
            properties,
        }); // The first byte is not used.
    }
    if flags & !1 != 0 {
        return Err(ErrorKind::ConnAckFlags(flags));
    }
    let session_present = flags & 1 != 0;
    if session_present && reason != ReasonCode::Success {
        return Err(ErrorKind::SessionPresent);
    }
    Ok(ConnAck {
        session_present,
        reason,
        properties,
    })
}

/// MQTT 3.1.1 table 3.1.
const fn reason_of_return_code(code: u8) -> Option<ReasonCode> {
    Some(match code {
        0 => ReasonCode::Success,
        1 => ReasonCode::UnsupportedProtocolVersion,
        2 => ReasonCode::ClientIdentifierNotValid,
        3 => ReasonCode::ServerUnavailable,
        4 => ReasonCode::BadUserNameOrPassword,
        5 => ReasonCode::NotAuthorized,
        _ => return None,
    })
}

/// Writes a CONNECT in the packet's own version.
pub(super) fn write(connect: &Connect<'_>, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    let version = connect.version;
    let mut frame = Frame::begin(out, PacketType::Connect, 0);
    frame.text(if version == Version::V31 { "MQIsdp" } else { "MQTT" })?;
    frame.u8(version.level() | if connect.is_bridge { BRIDGE } else { 0 });
    let will = connect.will.as_ref().map_or(0, |will| {
        WILL | will.qos.bits() << WILL_QOS_SHIFT | if will.retain { WILL_RETAIN } else { 0 }
    });
    let flag = |is_set: bool, flag: u8| if is_set { flag } else { 0 };
    frame.u8(will
        | flag(connect.clean_start, CLEAN_START)
        | flag(connect.user_name.is_some(), USER_NAME)
        | flag(connect.password.is_some(), PASSWORD));
    frame.u16(connect.keep_alive);
    frame.properties(connect.properties, version);
    frame.text(connect.client_id)?;
    if let Some(will) = &connect.will {
        frame.properties(will.properties, version);
        frame.text(will.topic.as_str())?;
        frame.binary(will.payload)?;
    }
    if let Some(user_name) = connect.user_name {
        frame.text(user_name)?;
    }
    if let Some(password) = connect.password {
        frame.binary(password)?;
    }
    frame.end()
}

/// Writes a CONNACK; before MQTT 5 with the return code nearest to the reason.
pub(super) fn write_ack(ack: &ConnAck<'_>, version: Version, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    let mut frame = Frame::begin(out, PacketType::ConnAck, 0);
    frame.u8(u8::from(ack.session_present && version != Version::V31));
    match version {
        Version::V5 => frame.u8(ack.reason.byte()),
        Version::V31 | Version::V311 => frame.u8(ack.reason.connect_return_code()),
    }
    frame.properties(ack.properties, version);
    frame.end()
}
