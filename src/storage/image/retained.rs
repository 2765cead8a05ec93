//! The last retained message of each topic, by the order in which they were set.

use std::hash::BuildHasher;
use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use crate::protocol::ids::MessageNumber;
use crate::protocol::message::Message;
use crate::protocol::topic::TopicName;

/// What was set last, and when.
#[derive(Debug)]
struct Slot {
    /// Of its topic: a table that grows does not look at a million messages.
    hash: u64,
    order: u64,
    /// Without payload where the topic was cleared: kept, so that an older one that comes later does not come back.
    message: Arc<Message>,
}

/// Retained messages by topic.
#[derive(Debug, Default)]
pub(super) struct RetainedTopics {
    slots: HashTable<Slot>,
    hasher: RandomState,
    last_order: u64,
    /// Lower orders do not count.
    from: u64,
}

impl RetainedTopics {
    /// Changes of a lower order than this have been told already, by what they came to.
    pub(super) fn count_from(&mut self, order: u64) {
        self.last_order = self.last_order.max(order);
        self.from = self.from.max(order);
    }

    /// Retains a message, unless its topic has one that was set after it.
    pub(super) fn set(&mut self, order: u64, topic: TopicName<'_>, make: impl FnOnce() -> Arc<Message>) {
        self.last_order = self.last_order.max(order);
        if order < self.from {
            return;
        }
        let Self { slots, hasher, .. } = self;
        let hash = hasher.hash_one(topic.as_bytes());
        let is_it = |slot: &Slot| slot.hash == hash && slot.message.topic() == topic;
        let make = || Slot {
            hash,
            order,
            message: make(),
        };
        match slots.entry(hash, is_it, |slot| slot.hash) {
            Entry::Occupied(mut slot) => {
                if slot.get().order < order {
                    *slot.get_mut() = make();
                }
            }
            Entry::Vacant(slot) => {
                slot.insert(make());
            }
        }
    }

    /// The content of a message, if it is the one that its topic has.
    pub(super) fn content(&self, topic: TopicName<'_>, number: MessageNumber) -> Option<Arc<Message>> {
        let hash = self.hasher.hash_one(topic.as_bytes());
        let slot = self
            .slots
            .find(hash, |slot| slot.hash == hash && slot.message.topic() == topic)?;
        (slot.message.number == Some(number)).then(|| Arc::clone(&slot.message))
    }

    /// The highest order that was given; 0 for none.
    pub(super) const fn last_order(&self) -> u64 {
        self.last_order
    }

    /// All topics that were set and not cleared.
    pub(super) fn into_messages(self) -> impl Iterator<Item = Arc<Message>> {
        let messages = self.slots.into_iter().map(|slot| slot.message);
        messages.filter(|message| !message.payload().is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::message::Publication;
    use crate::protocol::property::Properties;
    use crate::protocol::qos::QoS;

    fn set(retained: &mut RetainedTopics, order: u64, topic: &str, payload: &[u8]) {
        let topic = TopicName::parse(topic).unwrap();
        retained.set(order, topic, || {
            let publication = Publication {
                topic,
                payload,
                qos: QoS::AtMostOnce,
                retain: true,
                properties: Properties::EMPTY,
                expires_at: None,
                publisher: None,
                source: None,
            };
            Arc::new(publication.to_message())
        });
    }

    #[test]
    fn a_topic_that_was_cleared_before_the_snapshot_is_not_set_by_a_record_that_came_late() {
        let mut retained = RetainedTopics::default();
        retained.count_from(6);
        set(&mut retained, 6, "kept", b"as the snapshot has it");
        set(&mut retained, 5, "cleared", b"recorded late by another worker");
        set(&mut retained, 7, "new", b"1");
        let mut topics: Vec<_> = retained
            .into_messages()
            .map(|m| m.topic().as_str().to_owned())
            .collect();
        topics.sort();
        assert_eq!(topics, ["kept", "new"]);
    }
}
