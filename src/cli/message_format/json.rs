//! `%j` and `%J`: a message as one JSON object, keys as `mosquitto_sub` has them.

use serde_json::{Map, Value, to_string};
use time::OffsetDateTime;

use crate::client::Received;
use crate::protocol::property::{PropertyId, PropertyValue};

/// The object; with `is_json` the payload is a value of it instead of a string.
pub(super) fn message(message: &Received, now: OffsetDateTime, is_json: bool) -> Result<String, String> {
    let text = |text: &str| Value::from(text).to_string();
    let payload = if is_json {
        let payload = std::str::from_utf8(&message.payload).ok();
        let payload = payload.filter(|payload| serde_json::from_str::<serde::de::IgnoredAny>(payload).is_ok());
        payload
            .map(|payload| payload.trim().to_owned())
            .ok_or_else(|| format!("the payload of {:?} is not JSON, %j takes any", message.topic))?
    } else {
        text(&String::from_utf8_lossy(&message.payload))
    };
    let mut out = format!(
        "{{\"tst\":{},\"topic\":{},\"qos\":{},\"retain\":{},\"payloadlen\":{}",
        text(&timestamp(now)),
        text(&message.topic),
        message.qos.bits(),
        u8::from(message.retain),
        message.payload.len(),
    );
    if let Some(packet_id) = message.packet_id {
        out += &format!(",\"mid\":{packet_id}");
    }
    let properties = properties(message);
    if !properties.is_empty() {
        let properties = to_string(&properties).map_err(|error| error.to_string())?;
        out += &format!(",\"properties\":{properties}");
    }
    out += &format!(",\"payload\":{payload}}}");
    Ok(out)
}

/// `2026-11-21T12:30:45.123456+0100`.
fn timestamp(now: OffsetDateTime) -> String {
    let whole = super::iso_8601(now);
    let (seconds, offset) = whole.split_at(whole.len() - 5);
    format!("{seconds}.{:06}{offset}", now.microsecond())
}

fn properties(message: &Received) -> Map<String, Value> {
    let mut all = Map::new();
    let view = message.properties.view();
    for (id, value) in view.iter() {
        let value = match value {
            PropertyValue::Byte(value) => value.into(),
            PropertyValue::U16(value) => value.into(),
            PropertyValue::U32(value) | PropertyValue::VarInt(value) => value.into(),
            PropertyValue::Text(value) => value.into(),
            PropertyValue::Binary(value) => String::from_utf8_lossy(value).into(),
            PropertyValue::Pair(..) => continue,
        };
        match all.get_mut(&key(id)) {
            // Only a subscription identifier stands more than once.
            Some(Value::Array(values)) => values.push(value),
            Some(first) => *first = Value::Array(vec![first.take(), value]),
            None => {
                all.insert(key(id), value);
            }
        }
    }
    let pairs: Vec<_> = view
        .user_properties()
        .map(|(name, value)| Value::from_iter([(name, value)]))
        .collect();
    if !pairs.is_empty() {
        all.insert("user-properties".to_owned(), pairs.into());
    }
    all
}

fn key(id: PropertyId) -> String {
    id.name().replace(' ', "-")
}
