//! Which reason codes a packet can have. MQTT 5 sections 3.2.2.2, 3.4.2.1 to 3.7.2.1, 3.9.3, 3.11.3, 3.14.2.1 and 3.15.2.1.

use super::{ErrorKind, Role};
use crate::protocol::packet::PacketType;
use crate::protocol::reason::ReasonCode;

/// The reason code of a byte in a packet of MQTT 5 that `reader` reads.
pub(super) fn read(byte: u8, packet: PacketType, reader: Role) -> Result<ReasonCode, ErrorKind> {
    ReasonCode::from_byte(byte)
        .filter(|code| is_allowed(*code, packet, reader))
        .ok_or(ErrorKind::ReasonCode(byte))
}

/// True for a code that CONNACK has.
pub fn is_of_connack(code: ReasonCode) -> bool {
    is_allowed(code, PacketType::ConnAck, Role::Client)
}

fn is_allowed(code: ReasonCode, packet: PacketType, reader: Role) -> bool {
    let byte = code.byte();
    match packet {
        PacketType::ConnAck => {
            matches!(byte, 0x00 | 0x80..=0x8A | 0x8C | 0x90 | 0x95 | 0x97 | 0x99..=0x9D | 0x9F)
        }
        PacketType::PubAck | PacketType::PubRec => {
            matches!(byte, 0x00 | 0x10 | 0x80 | 0x83 | 0x87 | 0x90 | 0x91 | 0x97 | 0x99)
        }
        PacketType::PubRel | PacketType::PubComp => matches!(byte, 0x00 | 0x92),
        PacketType::SubAck => {
            matches!(
                byte,
                0x00..=0x02 | 0x80 | 0x83 | 0x87 | 0x8F | 0x91 | 0x97 | 0x9E | 0xA1 | 0xA2
            )
        }
        PacketType::UnsubAck => matches!(byte, 0x00 | 0x11 | 0x80 | 0x83 | 0x87 | 0x8F | 0x91),
        PacketType::Disconnect => is_disconnect(byte, reader),
        PacketType::Auth => match reader {
            Role::Server => matches!(byte, 0x18 | 0x19),
            Role::Client => matches!(byte, 0x00 | 0x18),
        },
        PacketType::Connect
        | PacketType::Publish
        | PacketType::Subscribe
        | PacketType::Unsubscribe
        | PacketType::PingReq
        | PacketType::PingResp => false,
    }
}

const fn is_disconnect(byte: u8, reader: Role) -> bool {
    match byte {
        0x00 | 0x80..=0x83 | 0x90 | 0x93..=0x99 => true,
        0x04 => matches!(reader, Role::Server),
        // 0x8C is in table 2-6 but not in that of DISCONNECT.
        0x87 | 0x89 | 0x8B..=0x8F | 0x9A..=0xA2 => matches!(reader, Role::Client),
        _ => false,
    }
}
