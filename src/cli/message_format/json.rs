//! `%j` and `%J`: a message as one JSON object, keys as `mosquitto_sub` has them.

use time::OffsetDateTime;

use crate::client::Received;
use crate::protocol::property::PropertyValue;

/// The object; with `is_json` the payload is a value of it instead of a string.
pub(super) fn message(message: &Received, now: OffsetDateTime, is_json: bool) -> Result<String, String> {
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
    if let Some(properties) = properties(message) {
        out += &format!(",\"properties\":{{{properties}}}");
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

/// One member for each property, in order; those that stand more than once come together where the first stands.
fn properties(message: &Received) -> Option<String> {
    let mut members: Vec<(String, Vec<String>)> = Vec::new();
    let mut pairs = Vec::new();
    for (id, value) in message.properties.view().iter() {
        let value = match value {
            PropertyValue::Byte(value) => value.to_string(),
            PropertyValue::U16(value) => value.to_string(),
            PropertyValue::U32(value) | PropertyValue::VarInt(value) => value.to_string(),
            PropertyValue::Text(value) => text(value),
            PropertyValue::Binary(value) => text(&String::from_utf8_lossy(value)),
            PropertyValue::Pair(name, value) => {
                pairs.push(format!("{}:{}", text(name), text(value)));
                continue;
            }
        };
        let key = id.name().replace(' ', "-");
        match members.iter_mut().find(|(known, _)| *known == key) {
            Some((_, values)) => values.push(value),
            None => members.push((key, vec![value])),
        }
    }
    let mut members: Vec<_> = members
        .into_iter()
        .map(|(key, values)| match &values[..] {
            [value] => format!("\"{key}\":{value}"),
            values => format!("\"{key}\":[{}]", values.join(",")),
        })
        .collect();
    if !pairs.is_empty() {
        // A name may stand twice in the object, as it may in the packet.
        members.push(format!("\"user-properties\":{{{}}}", pairs.join(",")));
    }
    (!members.is_empty()).then(|| members.join(","))
}

fn text(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
