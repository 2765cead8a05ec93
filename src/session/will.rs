//! The will: what is published when a connection ends without DISCONNECT (MQTT 5 section 3.1.2.5).

use std::sync::Arc;

use crate::protocol::ids::SessionKey;
use crate::protocol::message::{Message, Publication, forwarded_properties};
use crate::protocol::mount::{Mount, TooLong};
use crate::protocol::packet;
use crate::protocol::property::{PropertiesBuf, PropertyId};
use crate::protocol::source::SourceBuf;
use crate::protocol::time::Time;
use crate::protocol::topic::TopicName;

/// A will message, kept for as long as the connection lives and its delay runs.
#[derive(Clone, Debug)]
pub struct Will(Arc<Kept>);

#[derive(Clone, Debug)]
struct Kept {
    message: Message,
    expiry_secs: Option<u32>,
    delay_secs: u32,
}

impl Will {
    /// Keeps the will of a CONNECT.
    pub fn keep(will: &packet::Will<'_>) -> Self {
        let mut scratch = PropertiesBuf::new();
        let publication = Publication {
            topic: will.topic,
            payload: will.payload,
            qos: will.qos,
            retain: will.retain,
            properties: forwarded_properties(will.properties, &mut scratch),
            expires_at: None,
            publisher: None,
            source: None,
        };
        Self::restored(
            publication.to_message(),
            will.properties.u32(PropertyId::MessageExpiryInterval),
            will.properties.u32(PropertyId::WillDelayInterval).unwrap_or(0),
        )
    }

    /// A will as it was kept.
    pub fn restored(message: Message, expiry_secs: Option<u32>, delay_secs: u32) -> Self {
        Self(Arc::new(Kept {
            message,
            expiry_secs,
            delay_secs,
        }))
    }

    /// As everybody else is to see it who is not of the tenant with this mount point.
    ///
    /// # Errors
    /// Its topic is too long then.
    pub fn mounted(&self, mount: Mount<'_>) -> Result<Self, TooLong> {
        let view = self.message().view();
        let topic = mount.topic(view.topic)?;
        let mut scratch = PropertiesBuf::new();
        let publication = Publication {
            topic: TopicName::from_parsed(&topic),
            properties: mount.properties_in(view.properties, &mut scratch),
            ..view
        };
        Ok(Self::restored(
            publication.to_message(),
            self.expiry_secs(),
            self.delay_secs(),
        ))
    }

    /// Notes whose it is.
    pub fn set_source(&mut self, source: Arc<SourceBuf>) {
        Arc::make_mut(&mut self.0).message.source = Some(source);
    }

    /// Will delay interval, seconds.
    pub fn delay_secs(&self) -> u32 {
        self.0.delay_secs
    }

    /// Message expiry interval, seconds.
    pub fn expiry_secs(&self) -> Option<u32> {
        self.0.expiry_secs
    }

    /// The message, without the moment it expires at.
    pub fn message(&self) -> &Message {
        &self.0.message
    }

    /// The message as it is published at `now` for `publisher`.
    pub fn publication(&self, now: Time, publisher: SessionKey) -> Publication<'_> {
        Publication {
            expires_at: self.0.expiry_secs.map(|seconds| now.plus_secs(seconds.into())),
            publisher: Some(publisher),
            ..self.0.message.view()
        }
    }
}
