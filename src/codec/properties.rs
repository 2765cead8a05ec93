//! Checks a property block once, against the table of `protocol::property`. MQTT 5 section 2.2.2.
//!
//! The form of all properties is judged before the meaning of any: a block that is cut short is malformed, whatever else is wrong
//! with it.

use super::reader::Reader;
use super::{Context, ErrorKind, Role};
use crate::protocol::property::{Properties, PropertyId, PropertyKind, PropertyOwner};

/// Reads the property length and the properties; before MQTT 5 there are none.
#[inline]
pub(super) fn read<'a>(
    reader: &mut Reader<'a>,
    owner: PropertyOwner,
    context: &Context<'_>,
) -> Result<Properties<'a>, ErrorKind> {
    if !context.version.has_properties() {
        return Ok(Properties::EMPTY);
    }
    if let [0, ..] = reader.peek() {
        reader.u8()?;
        return Ok(Properties::EMPTY);
    }
    read_block(reader, owner, context)
}

fn read_block<'a>(
    reader: &mut Reader<'a>,
    owner: PropertyOwner,
    context: &Context<'_>,
) -> Result<Properties<'a>, ErrorKind> {
    let length = reader.varint()? as usize;
    let behind = reader.confine(length)?;
    let block = reader.peek();
    let (mut seen, mut user_properties) = (0_u64, 0_u32);
    let mut first_fault = None;
    while !reader.is_empty() {
        let before = *reader;
        let byte = reader.u8()?;
        let id = PropertyId::from_byte(byte).ok_or(ErrorKind::PropertyUnknown(byte))?;
        let is_in_range = read_value(reader, id, context)?;
        user_properties += u32::from(id == PropertyId::UserProperty);
        let bit = 1 << (id as u8);
        let fault = if !is_allowed(id, owner, context.role) {
            ErrorKind::PropertyNotAllowed(id)
        } else if seen & bit != 0 && !may_repeat(id, owner) {
            ErrorKind::PropertyTwice(id)
        } else if !is_in_range {
            if id == PropertyId::TopicAlias {
                ErrorKind::TopicAliasZero
            } else {
                ErrorKind::PropertyValue(id)
            }
        } else {
            seen |= bit;
            continue;
        };
        first_fault.get_or_insert((fault, before));
    }
    if let Some((fault, at)) = first_fault {
        *reader = at;
        return Err(fault);
    }
    if user_properties > u32::from(context.options.user_properties_max) {
        return Err(ErrorKind::TooManyUserProperties);
    }
    const DATA: u64 = 1 << (PropertyId::AuthenticationData as u8);
    const METHOD: u64 = 1 << (PropertyId::AuthenticationMethod as u8);
    if seen & (DATA | METHOD) == DATA {
        return Err(ErrorKind::AuthenticationMethodMissing);
    }
    reader.resume(behind);
    Ok(Properties::from_checked(block))
}

/// Reads a value and says whether the standard allows it.
#[inline]
fn read_value(reader: &mut Reader<'_>, id: PropertyId, context: &Context<'_>) -> Result<bool, ErrorKind> {
    Ok(match id.kind() {
        PropertyKind::Byte => reader.u8()? <= 1, // All of them are flags, maximum QoS included.
        PropertyKind::U16 => {
            let may_be_zero = matches!(id, PropertyId::ServerKeepAlive | PropertyId::TopicAliasMaximum);
            reader.u16()? != 0 || may_be_zero
        }
        PropertyKind::U32 => reader.u32()? != 0 || id != PropertyId::MaximumPacketSize,
        PropertyKind::VarInt => reader.varint()? != 0,
        PropertyKind::Binary => reader.binary().map(|_| true)?,
        // The response topic is a topic name [MQTT-3.3.2-14].
        PropertyKind::Text if id == PropertyId::ResponseTopic => {
            let text = reader.text(context.options)?;
            !text.is_empty() && memchr::memchr2(b'+', b'#', text.as_bytes()).is_none()
        }
        PropertyKind::Text => reader.skip_text(context.options).map(|()| true)?,
        PropertyKind::Pair => {
            reader.skip_text(context.options)?;
            reader.skip_text(context.options)?;
            true
        }
    })
}

/// The table, and what it cannot say: two properties go in one direction only.
#[inline]
fn is_allowed(id: PropertyId, owner: PropertyOwner, role: Role) -> bool {
    let is_other_way = match (id, owner) {
        (PropertyId::SubscriptionIdentifier, PropertyOwner::Publish) => role == Role::Server, // [MQTT-3.3.4-6]
        (PropertyId::SessionExpiryInterval, PropertyOwner::Disconnect) => role == Role::Client, // [MQTT-3.14.2-2]
        _ => false,
    };
    id.is_allowed_in(owner) && !is_other_way
}

#[inline]
fn may_repeat(id: PropertyId, owner: PropertyOwner) -> bool {
    match id {
        PropertyId::UserProperty => true,
        PropertyId::SubscriptionIdentifier => owner == PropertyOwner::Publish,
        _ => false,
    }
}
