//! Who published a message, as bytes: flags, user name, client id, listener, address.

use core::net::IpAddr;

use super::RecordError;
use super::bytes::{Reader, put_binary};
use crate::protocol::source::Source;

const HAS_USER: u8 = 1;
const IS_LISTED: u8 = 1 << 1;
const HAS_IPV4: u8 = 1 << 2;
const HAS_IPV6: u8 = 1 << 3;
const HAS_GRANTS: u8 = 1 << 4;
const KNOWN: u8 = HAS_USER | IS_LISTED | HAS_IPV4 | HAS_IPV6 | HAS_GRANTS;

pub(super) fn encode(source: &Source<'_>, out: &mut Vec<u8>) {
    let mut flags = 0;
    for (is_set, flag) in [
        (source.user_name.is_some(), HAS_USER),
        (source.is_listed, IS_LISTED),
        (source.has_grants, HAS_GRANTS),
        (matches!(source.ip, Some(IpAddr::V4(_))), HAS_IPV4),
        (matches!(source.ip, Some(IpAddr::V6(_))), HAS_IPV6),
    ] {
        flags |= if is_set { flag } else { 0 };
    }
    out.push(flags);
    for name in source.user_name.into_iter().chain([source.client_id, source.listener]) {
        put_binary(out, name.as_bytes());
    }
    match source.ip {
        None => {}
        Some(IpAddr::V4(ip)) => out.extend_from_slice(&ip.octets()),
        Some(IpAddr::V6(ip)) => out.extend_from_slice(&ip.octets()),
    }
}

pub(super) fn decode<'a>(from: &mut Reader<'a>) -> Result<Source<'a>, RecordError> {
    let flags = from.byte()?;
    if flags & !KNOWN != 0 {
        return Err(RecordError::Field("source"));
    }
    let user_name = match flags & HAS_USER {
        0 => None,
        _ => Some(from.text("source user")?),
    };
    Ok(Source {
        user_name,
        is_listed: flags & IS_LISTED != 0,
        has_grants: flags & HAS_GRANTS != 0,
        client_id: from.text("source client")?,
        listener: from.text("source listener")?,
        ip: match flags & (HAS_IPV4 | HAS_IPV6) {
            0 => None,
            HAS_IPV4 => Some(IpAddr::from(from.array::<4>()?)),
            HAS_IPV6 => Some(IpAddr::from(from.array::<16>()?)),
            _ => return Err(RecordError::Field("source address")),
        },
    })
}
