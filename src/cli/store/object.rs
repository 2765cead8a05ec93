//! A JSON object of one line, its members in the order in which they are written.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::protocol::message::Publication;
use crate::protocol::property::{Properties, PropertyValue};
use crate::protocol::source::Source;
use crate::protocol::time::Time;
use crate::storage::record::Content;

/// What the wall clock said at some moment of the broker's time.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Stamp {
    pub(super) time: Time,
    /// Milliseconds since 1970.
    pub(super) wall: u64,
}

impl Stamp {
    /// A moment as RFC 3339, UTC; `None` for never.
    fn text(self, time: Time) -> Option<String> {
        if time == Time::NEVER {
            return None;
        }
        let wall = i128::from(self.wall) + i128::from(time.0) - i128::from(self.time.0);
        let moment = OffsetDateTime::from_unix_timestamp_nanos(wall.checked_mul(1_000_000)?).ok()?;
        moment.format(&Rfc3339).ok()
    }
}

/// See the module's text.
#[derive(Debug)]
pub(super) struct Object {
    text: String,
    stamp: Stamp,
}

impl Object {
    pub(super) fn new(stamp: Stamp) -> Self {
        Self {
            text: "{".to_owned(),
            stamp,
        }
    }

    /// A member that is JSON already.
    pub(super) fn raw(&mut self, key: &str, json: &str) -> &mut Self {
        if self.text.len() > 1 {
            self.text.push(',');
        }
        self.text += &format!("\"{key}\":{json}");
        self
    }

    pub(super) fn text(&mut self, key: &str, text: &str) -> &mut Self {
        self.raw(key, &Value::from(text).to_string())
    }

    pub(super) fn number(&mut self, key: &str, number: impl Into<u64>) -> &mut Self {
        let number: u64 = number.into();
        self.raw(key, &number.to_string())
    }

    pub(super) fn flag(&mut self, key: &str, flag: bool) -> &mut Self {
        self.raw(key, if flag { "true" } else { "false" })
    }

    /// A moment; never is left out.
    pub(super) fn time(&mut self, key: &str, time: Time) -> &mut Self {
        match self.stamp.text(time) {
            Some(text) => self.text(key, &text),
            None => self,
        }
    }

    pub(super) fn list(&mut self, key: &str, items: impl Iterator<Item = String>) -> &mut Self {
        let items: Vec<_> = items.collect();
        self.raw(key, &format!("[{}]", items.join(",")))
    }

    /// What a message says.
    pub(super) fn content(&mut self, content: &Content<'_>) -> &mut Self {
        self.text("topic", content.topic.as_str());
        self.number("qos", content.qos.bits()).flag("retain", content.retain);
        if content.properties.iter().next().is_some() {
            self.raw("properties", &properties(content.properties));
        }
        match std::str::from_utf8(content.payload) {
            Ok(text) => self.text("payload", text),
            Err(_) => self.text("payload_base64", &STANDARD.encode(content.payload)),
        };
        if let Some(source) = &content.source {
            self.raw("source", &source_object(source));
        }
        self
    }

    pub(super) fn publication(&mut self, view: &Publication<'_>) -> &mut Self {
        self.content(&Content::of(view))
    }

    pub(super) fn end(&mut self) -> String {
        self.text.push('}');
        std::mem::take(&mut self.text)
    }
}

/// Who published it.
fn source_object(source: &Source<'_>) -> String {
    let mut object = Object::new(Stamp::default());
    if let Some(user_name) = source.user_name {
        object.text("user", user_name).flag("listed", source.is_listed);
    }
    object
        .text("client_id", source.client_id)
        .text("listener", source.listener);
    if source.has_grants {
        object.flag("granted", true);
    }
    if let Some(ip) = source.ip {
        object.text("address", &ip.to_string());
    }
    object.end()
}

/// A member for each property, user properties as a list of pairs.
fn properties(properties: Properties<'_>) -> String {
    let mut object = Object::new(Stamp::default());
    let mut pairs = Vec::new();
    for (id, value) in properties.iter() {
        let key = id.name().replace(' ', "-");
        match value {
            PropertyValue::Byte(value) => object.number(&key, value),
            PropertyValue::U16(value) => object.number(&key, value),
            PropertyValue::U32(value) | PropertyValue::VarInt(value) => object.number(&key, value),
            PropertyValue::Text(value) => object.text(&key, value),
            PropertyValue::Binary(value) => object.text(&(key + "-base64"), &STANDARD.encode(value)),
            PropertyValue::Pair(name, value) => {
                pairs.push(Value::from(vec![name, value]).to_string());
                continue;
            }
        };
    }
    if !pairs.is_empty() {
        object.list("user-properties", pairs.into_iter());
    }
    object.end()
}
