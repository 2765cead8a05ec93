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
}

impl RetainedTopics {
    /// Retains a message, unless its topic has one that was set after it.
    pub(super) fn set(&mut self, order: u64, topic: TopicName<'_>, make: impl FnOnce() -> Arc<Message>) {
        self.last_order = self.last_order.max(order);
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
