//! Application messages: borrowed while they are routed, owned where they must be kept.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use super::ids::{MessageNumber, SessionKey};
use super::property::{Properties, PropertiesBuf, PropertyId};
use super::qos::QoS;
use super::source::SourceBuf;
use super::time::Time;
use super::topic::TopicName;

/// An application message on its way through the broker, borrowed from the read buffer or from a kept [`Message`].
#[derive(Clone, Copy, Debug)]
pub struct Publication<'a> {
    /// Topic name, aliases resolved.
    pub topic: TopicName<'a>,
    /// Payload.
    pub payload: &'a [u8],
    /// The QoS it was published with.
    pub qos: QoS,
    /// The retain flag it was published with.
    pub retain: bool,
    /// What is passed on unaltered, in order: no topic alias, no subscription identifier, no message expiry interval, no will
    /// delay [MQTT-3.3.2-4] [MQTT-3.3.2-15] [MQTT-3.3.2-16] [MQTT-3.3.2-18] [MQTT-3.3.2-20].
    pub properties: Properties<'a>,
    /// When it expires.
    pub expires_at: Option<Time>,
    /// Who published it, for No Local; `None` for the broker itself.
    pub publisher: Option<SessionKey>,
    /// Who published it, for the right to it later: of what may be retained.
    pub source: Option<&'a Arc<SourceBuf>>,
}

impl Publication<'_> {
    /// A copy that can be kept: one block of memory for topic, properties and payload.
    pub fn to_message(&self) -> Message {
        let (topic, properties) = (self.topic.as_bytes(), self.properties.as_bytes());
        let mut block = Vec::with_capacity(topic.len() + properties.len() + self.payload.len());
        block.extend_from_slice(topic);
        block.extend_from_slice(properties);
        block.extend_from_slice(self.payload);
        Message {
            block: block.into(),
            topic_bytes: topic.len() as u16, // at most 65,535 [MQTT-4.7.3-3]
            properties_bytes: properties.len() as u32,
            qos: self.qos,
            retain: self.retain,
            expires_at: self.expires_at,
            publisher: self.publisher,
            source: self.source.cloned(),
            number: None,
            mark: SnapshotMark::default(),
        }
    }
}

/// An application message that is kept: queued, in flight, retained, or on its way to another worker. Immutable; share it
/// behind an `Arc`.
#[derive(Clone, Debug)]
pub struct Message {
    /// Topic, properties and payload, one after the other.
    block: Bytes,
    topic_bytes: u16,
    properties_bytes: u32,
    /// The QoS it was published with.
    pub qos: QoS,
    /// The retain flag it was published with.
    pub retain: bool,
    /// When it expires.
    pub expires_at: Option<Time>,
    /// Who published it, for No Local.
    pub publisher: Option<SessionKey>,
    /// Who published it, for the right to it later: of what may be retained.
    pub source: Option<Arc<SourceBuf>>,
    /// Its number, where a store has it or may get it.
    pub number: Option<MessageNumber>,
    /// Who has put it into which snapshot last.
    mark: SnapshotMark,
}

/// Keeps a message that many sessions share from standing in a snapshot for each of them.
#[derive(Debug, Default)]
struct SnapshotMark(AtomicU64);

impl Clone for SnapshotMark {
    fn clone(&self) -> Self {
        Self::default() // a copy stands nowhere
    }
}

impl Message {
    /// Topic name.
    pub fn topic(&self) -> TopicName<'_> {
        self.view().topic
    }

    /// Payload.
    pub fn payload(&self) -> &[u8] {
        &self.block[self.payload_start()..]
    }

    /// The payload as a reference to the kept block, for a vectored write.
    pub fn shared_payload(&self) -> Bytes {
        self.block.slice(self.payload_start()..)
    }

    const fn payload_start(&self) -> usize {
        self.topic_bytes as usize + self.properties_bytes as usize
    }

    /// Bytes it occupies: topic, properties and payload, plus a flat share for bookkeeping.
    pub fn cost_bytes(&self) -> usize {
        self.block.len() + size_of::<Self>() + 2 * size_of::<usize>()
    }

    /// Marks it with a number; false when it had that already.
    pub fn mark(&self, number: u64) -> bool {
        self.mark.0.swap(number, Ordering::Relaxed) != number
    }

    /// True when its expiry moment has come.
    pub fn is_expired(&self, now: Time) -> bool {
        self.expires_at.is_some_and(|at| at <= now)
    }

    /// The message as it was when it was published.
    pub fn view(&self) -> Publication<'_> {
        let (topic, rest) = self.block.split_at(self.topic_bytes.into());
        let (properties, payload) = rest.split_at(self.properties_bytes as usize);
        // The block was made from a topic name, so it is one: its characters are not looked at again.
        let topic = simdutf8::basic::from_utf8(topic).map_or(TopicName::BROKEN, TopicName::from_parsed);
        Publication {
            topic,
            payload,
            qos: self.qos,
            retain: self.retain,
            properties: Properties::from_checked(properties),
            expires_at: self.expires_at,
            publisher: self.publisher,
            source: self.source.as_ref(),
        }
    }
}

/// The properties of a PUBLISH or a will that are passed on unaltered, see [`Publication::properties`]. Borrows where nothing has
/// to be taken out (the usual case), else writes into `scratch`.
pub fn forwarded_properties<'a>(properties: Properties<'a>, scratch: &'a mut PropertiesBuf) -> Properties<'a> {
    let is_forwarded = |id: PropertyId| {
        !matches!(
            id,
            PropertyId::TopicAlias
                | PropertyId::SubscriptionIdentifier
                | PropertyId::MessageExpiryInterval
                | PropertyId::WillDelayInterval
        )
    };
    if properties.iter().all(|(id, _)| is_forwarded(id)) {
        return properties;
    }
    *scratch = PropertiesBuf::new();
    for (id, value) in properties.iter().filter(|(id, _)| is_forwarded(*id)) {
        scratch.push(id, value);
    }
    scratch.view()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kept_message_reads_as_it_was_published() {
        let mut block = PropertiesBuf::new();
        block.push_text(PropertyId::ContentType, "text/plain");
        let publication = Publication {
            topic: TopicName::parse("a/b").unwrap(),
            payload: b"hello",
            qos: QoS::AtLeastOnce,
            retain: true,
            properties: block.view(),
            expires_at: Some(Time(5)),
            publisher: None,
            source: None,
        };
        let message = publication.to_message();
        assert_eq!(size_of::<Message>(), 96, "each message in memory costs that");
        let view = message.view();
        assert_eq!(view.topic.as_str(), "a/b");
        assert_eq!(view.payload, b"hello");
        assert_eq!(&message.shared_payload()[..], b"hello");
        assert_eq!(view.properties.text(PropertyId::ContentType), Some("text/plain"));
        assert!(message.is_expired(Time(5)) && !message.is_expired(Time(4)));
    }

    #[test]
    fn alias_and_expiry_are_taken_out_and_the_order_of_the_rest_stays() {
        let mut block = PropertiesBuf::new();
        block
            .push_user_property("a", "1")
            .push_u16(PropertyId::TopicAlias, 3)
            .push_user_property("b", "2")
            .push_u32(PropertyId::MessageExpiryInterval, 9);
        let mut scratch = PropertiesBuf::new();
        let forwarded = forwarded_properties(block.view(), &mut scratch);
        assert_eq!(
            forwarded.user_properties().collect::<Vec<_>>(),
            [("a", "1"), ("b", "2")]
        );
        assert_eq!(forwarded.iter().count(), 2);
    }
}
