//! QoS 2 messages that a client has sent and not released, where they are delivered at PUBREL (method A of MQTT 5 section 4.3.3).

use std::collections::BTreeMap;

use super::rare::Empty;
use crate::protocol::ids::PacketId;
use crate::protocol::message::Message;

/// The messages of one session, by packet identifier.
#[derive(Debug, Default)]
pub struct Unreleased {
    messages: BTreeMap<PacketId, Message>,
    bytes: usize,
}

impl Empty for Unreleased {
    fn empty() -> &'static Self {
        const {
            &Self {
                messages: BTreeMap::new(),
                bytes: 0,
            }
        }
    }
}

impl Unreleased {
    /// Keeps a message until its identifier is released, in the place of one with the same identifier.
    pub fn insert(&mut self, id: PacketId, message: Message) {
        self.remove(id);
        self.bytes += message.cost_bytes();
        self.messages.insert(id, message);
    }

    /// Takes the message of an identifier out.
    pub fn remove(&mut self, id: PacketId) -> Option<Message> {
        let message = self.messages.remove(&id)?;
        self.bytes -= message.cost_bytes();
        Some(message)
    }

    /// The message of an identifier.
    pub fn get(&self, id: PacketId) -> Option<&Message> {
        self.messages.get(&id)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.messages.len()
    }

    /// True when there are none.
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// [`Message::cost_bytes`] of all of them.
    pub const fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::message::Publication;
    use crate::protocol::property::Properties;
    use crate::protocol::qos::QoS;
    use crate::protocol::topic::TopicName;

    fn message(payload: &[u8]) -> Message {
        let publication = Publication {
            topic: TopicName::parse("a").unwrap(),
            payload,
            qos: QoS::ExactlyOnce,
            retain: false,
            properties: Properties::EMPTY,
            expires_at: None,
            publisher: None,
            source: None,
        };
        publication.to_message()
    }

    #[test]
    fn bytes_are_those_of_what_is_there() {
        let [one, two] = [1, 2].map(|id| PacketId::new(id).unwrap());
        let mut unreleased = Unreleased::default();
        unreleased.insert(one, message(b"long and long"));
        unreleased.insert(one, message(b"new"));
        unreleased.insert(two, message(b"other"));
        assert_eq!(unreleased.get(one).unwrap().payload(), b"new");
        assert_eq!(
            unreleased.bytes(),
            message(b"new").cost_bytes() + message(b"other").cost_bytes()
        );
        assert_eq!(unreleased.remove(one).unwrap().payload(), b"new");
        assert!(unreleased.remove(one).is_none() && unreleased.len() == 1);
        unreleased.remove(two);
        assert!(unreleased.is_empty() && unreleased.bytes() == 0);
    }
}
