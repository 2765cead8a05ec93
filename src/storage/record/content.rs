//! What a message says.

use super::bytes::{Reader, put_binary};
use super::{RecordError, source};
use crate::protocol::message::Publication;
use crate::protocol::property::Properties;
use crate::protocol::qos::QoS;
use crate::protocol::source::Source;
use crate::protocol::topic::TopicName;

/// What a message says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Content<'a> {
    /// Topic name.
    pub topic: TopicName<'a>,
    /// Properties that are passed on.
    pub properties: Properties<'a>,
    /// Payload.
    pub payload: &'a [u8],
    /// QoS it was published with.
    pub qos: QoS,
    /// Retain flag it was published with.
    pub retain: bool,
    /// Who published it, of what may be retained; `None` where it is not known, as in form 1.
    pub source: Option<Source<'a>>,
}

/// Set in the first byte of a content, above QoS and retain: behind the payload stands who published it.
const HAS_SOURCE: u8 = 1 << 3;

impl<'a> Content<'a> {
    #[inline(always)]
    pub(super) fn bits(&self) -> u8 {
        self.qos.bits() | u8::from(self.retain) << 2 | if self.source.is_some() { HAS_SOURCE } else { 0 }
    }

    /// What a publication says.
    #[inline(always)]
    pub fn of(publication: &Publication<'a>) -> Self {
        Self {
            topic: publication.topic,
            properties: publication.properties,
            payload: publication.payload,
            qos: publication.qos,
            retain: publication.retain,
            source: publication.source.map(|source| source.view()),
        }
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.push(self.bits());
        put_binary(out, self.topic.as_bytes());
        put_binary(out, self.properties.as_bytes());
        put_binary(out, self.payload);
        self.encode_source(out);
    }

    /// What stands behind the payload.
    pub(super) fn encode_source(&self, out: &mut Vec<u8>) {
        if let Some(source) = &self.source {
            source::encode(source, out);
        }
    }

    pub(super) fn decode(from: &mut Reader<'a>) -> Result<Self, RecordError> {
        let bits = from.byte()?;
        if bits > 15 {
            return Err(RecordError::Field("content"));
        }
        let topic = TopicName::parse(from.text("topic")?).map_err(|_| RecordError::Field("topic"))?;
        Ok(Self {
            topic,
            properties: Properties::from_checked(from.binary()?),
            payload: from.binary()?,
            qos: super::qos(bits & 3)?,
            retain: bits & 4 != 0,
            source: match bits & HAS_SOURCE {
                0 => None,
                _ => Some(source::decode(from)?),
            },
        })
    }
}
