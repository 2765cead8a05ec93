//! The retained store: the last retained message of each topic.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::BuildHasher;
use std::ops::ControlFlow;
use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::HashTable;

use super::shares::Shares;
use super::walk::{Walk, sort_key};
use crate::protocol::message::Message;
use crate::protocol::time::Time;
use crate::protocol::topic::{TopicFilter, TopicName};

/// Bounds of the retained store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetainedLimits {
    /// Messages kept. Default 1,000,000. Costs about 200 bytes each besides the message itself.
    pub messages_max: usize,
    /// Bytes of all messages kept, counted as [`Message::cost_bytes`]. Default 1 GiB.
    pub bytes_max: usize,
}

impl Default for RetainedLimits {
    fn default() -> Self {
        Self {
            messages_max: 1_000_000,
            bytes_max: 1 << 30,
        }
    }
}

/// Why a message is not retained. What was retained before stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RetainedError {
    /// [`RetainedLimits::messages_max`] is reached.
    #[error("{messages_max} messages are retained already, as many as allowed")]
    Messages {
        /// The limit.
        messages_max: usize,
    },
    /// Its tenant has as many as it may.
    #[error(
        "{messages_max} messages are retained of this tenant already, as many as allowed (tenants.retained_messages_max)"
    )]
    TenantMessages {
        /// The limit.
        messages_max: usize,
    },
    /// Its tenant would have more bytes than it may.
    #[error(
        "{bytes} bytes of messages are retained of this tenant already, and {bytes_max} are allowed (tenants.retained_bytes_max)"
    )]
    TenantBytes {
        /// What is retained now.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// The message would exceed [`RetainedLimits::bytes_max`].
    #[error("{bytes} bytes of messages are retained already, and {bytes_max} are allowed")]
    Bytes {
        /// What is retained now.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
}

/// The last retained message of each topic: by topic in one look-up, by filter in the order of topics, level by level.
///
/// Walking in order makes a walk resumable after any change: a [`Walk`] remembers the topic it has come to, and nothing else.
#[derive(Debug, Default)]
pub struct Retained {
    limits: RetainedLimits,
    slots: Vec<Option<Arc<Message>>>,
    free: Vec<u32>,
    /// Slots by topic.
    by_topic: HashTable<u32>,
    /// Slots by [`sort_key`] of the topic.
    in_order: BTreeMap<Box<[u8]>, u32>,
    /// Slots of messages that expire, soonest first.
    by_expiry: BTreeSet<(Time, u32)>,
    hasher: RandomState,
    bytes: usize,
    /// Messages without a publisher, the broker's own (`$SYS`): few, and counted against no limit.
    own_messages: usize,
    /// What of all others is below mount points that have bounds.
    shares: Shares,
    /// Counts changes, so that a store can tell their order.
    order: u64,
}

impl Retained {
    /// An empty store.
    pub fn new(limits: RetainedLimits) -> Self {
        Self {
            limits,
            ..Self::default()
        }
    }

    /// Counts a change, and gives it its number: of two changes of a topic, the one with the higher number came later.
    pub const fn next_order(&mut self) -> u64 {
        self.order += 1;
        self.order
    }

    /// The number of the last change.
    pub const fn order(&self) -> u64 {
        self.order
    }

    /// Puts back what was retained when the broker stopped, whatever the bounds are now.
    pub fn restore(&mut self, messages: Vec<Arc<Message>>, order: u64) {
        let limits = std::mem::replace(
            &mut self.limits,
            RetainedLimits {
                messages_max: usize::MAX,
                bytes_max: usize::MAX,
            },
        );
        for message in messages {
            let is_set = self.set(message).is_ok();
            debug_assert!(is_set, "there are no bounds");
        }
        self.limits = limits;
        self.order = order;
    }

    /// Messages retained, those that have expired and are not removed yet included.
    pub fn len(&self) -> usize {
        self.by_topic.len()
    }

    /// True when nothing is retained.
    pub fn is_empty(&self) -> bool {
        self.by_topic.is_empty()
    }

    /// Bytes of all messages, counted as [`Message::cost_bytes`].
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether these bounds hold below mount points.
    pub fn has_shares(&self, shares: &[(Box<str>, RetainedLimits)]) -> bool {
        self.shares.are(shares)
    }

    /// Sets bounds for what is below mount points, and counts what is there: in a store of a million messages that takes a tenth of a second. What is
    /// there stays, even if it is more.
    pub fn set_shares(&mut self, shares: Vec<(Box<str>, RetainedLimits)>) {
        self.shares = Shares::new(shares);
        if self.shares.is_empty() {
            return;
        }
        let messages = self.slots.iter().flatten();
        for message in messages.filter(|message| message.publisher.is_some()) {
            self.shares.add(message.topic().as_str(), message.cost_bytes());
        }
    }

    /// Changes the bounds. What is there stays, even if it is more.
    pub fn set_limits(&mut self, limits: RetainedLimits) {
        self.limits = limits;
    }

    /// Retains a message in place of the one its topic had, which is returned [MQTT-3.3.1-5]. A message without payload is not
    /// retained but clears its topic [MQTT-3.3.1-6] [MQTT-3.3.1-7].
    pub fn set(&mut self, message: Arc<Message>) -> Result<Option<Arc<Message>>, RetainedError> {
        let topic = message.topic();
        if message.payload().is_empty() {
            return Ok(self.clear(topic));
        }
        let hash = self.hasher.hash_one(topic.as_bytes());
        let found = self.find(hash, topic);
        let cost = message.cost_bytes();
        let old_cost = found
            .and_then(|slot| self.message(slot))
            .map_or(0, |old| old.cost_bytes());
        let is_own = message.publisher.is_none();
        if found.is_none() && !is_own && self.len() - self.own_messages >= self.limits.messages_max {
            return Err(RetainedError::Messages {
                messages_max: self.limits.messages_max,
            });
        }
        if cost > old_cost && !is_own && self.bytes - old_cost + cost > self.limits.bytes_max {
            return Err(RetainedError::Bytes {
                bytes: self.bytes,
                bytes_max: self.limits.bytes_max,
            });
        }
        if !self.shares.is_empty() {
            let old = found
                .and_then(|slot| self.message(slot))
                .filter(|old| old.publisher.is_some());
            let old = old.map(|old| old.cost_bytes());
            match (is_own, old) {
                (false, old) => self.shares.replace(topic.as_str(), old, cost)?,
                (true, Some(old)) => self.shares.remove(topic.as_str(), old),
                (true, None) => {}
            }
        }
        self.bytes = self.bytes - old_cost + cost;
        let slot = match found {
            Some(slot) => slot,
            None => self.add(hash, topic),
        };
        let expires_at = message.expires_at;
        self.own_messages += usize::from(is_own);
        let old = self.slots[slot as usize].replace(message);
        self.own_messages -= old.as_deref().map_or(0, |old| usize::from(old.publisher.is_none()));
        if let Some(at) = old.as_ref().and_then(|old| old.expires_at) {
            self.by_expiry.remove(&(at, slot));
        }
        if let Some(at) = expires_at {
            self.by_expiry.insert((at, slot));
        }
        Ok(old)
    }

    /// Removes the message of a topic and returns it.
    pub fn clear(&mut self, topic: TopicName<'_>) -> Option<Arc<Message>> {
        let hash = self.hasher.hash_one(topic.as_bytes());
        let Self { by_topic, slots, .. } = self;
        let entry = by_topic.find_entry(hash, |slot| has_topic(slots, *slot, topic)).ok()?;
        let (slot, _) = entry.remove();
        let message = self.slots[slot as usize].take()?;
        self.own_messages -= usize::from(message.publisher.is_none());
        self.in_order.remove(&*sort_key(topic.as_str()));
        if let Some(at) = message.expires_at {
            self.by_expiry.remove(&(at, slot));
        }
        self.bytes -= message.cost_bytes();
        if message.publisher.is_some() {
            self.shares.remove(topic.as_str(), message.cost_bytes());
        }
        self.free.push(slot);
        Some(message)
    }

    /// The message of a topic.
    pub fn get(&self, topic: TopicName<'_>) -> Option<&Arc<Message>> {
        let slot = self.find(self.hasher.hash_one(topic.as_bytes()), topic)?;
        self.message(slot)
    }

    /// Some messages in no order, from place `*from` on, which is moved behind them: `None` where there are no more. A message that is
    /// set meanwhile may be missed, none that was there all the time.
    pub fn next_in_store(&self, from: &mut usize) -> Option<&Arc<Message>> {
        while let Some(slot) = self.slots.get(*from) {
            *from += 1;
            if slot.is_some() {
                return slot.as_ref();
            }
        }
        None
    }

    /// Calls `visit` for every message whose topic a filter matches, in the order of topics. For few messages or tests; what goes
    /// to a client is walked through with [`Retained::advance`], as the client takes it.
    pub fn matches(&self, filter: TopicFilter<'_>, mut visit: impl FnMut(&Arc<Message>)) {
        let mut walk = Walk::new(filter);
        while !walk.is_finished() {
            self.advance(&mut walk, usize::MAX, |message| {
                visit(message);
                ControlFlow::Continue(())
            });
        }
    }

    /// Goes on with a walk for at most `steps_max` steps, a bound on the time it takes: a message looked at is a step, whether it
    /// matches or not. `visit` takes a message with `Continue`; with `Break` the walk stops and offers it again next time.
    ///
    /// A message that is set or cleared while the walk pauses is seen or not as it is when the walk comes to its topic; no topic is
    /// visited twice. Expired messages are visited as long as they are in the store.
    pub fn advance(&self, walk: &mut Walk, steps_max: usize, mut visit: impl FnMut(&Arc<Message>) -> ControlFlow<()>) {
        if let Some(topic) = walk.only_topic() {
            let is_done = self.get(topic).is_none_or(|message| visit(message).is_continue());
            return if is_done {
                walk.finish()
            };
        }
        walk.advance(&self.in_order, steps_max, |slot| match self.message(slot) {
            Some(message) => visit(message),
            None => ControlFlow::Continue(()),
        });
    }

    /// When the next message expires.
    pub fn next_expiry(&self) -> Option<Time> {
        self.by_expiry.first().map(|(at, _)| *at)
    }

    /// Removes one message that has expired and returns it; call until there is none.
    pub fn remove_expired(&mut self, now: Time) -> Option<Arc<Message>> {
        let (at, slot) = *self.by_expiry.first()?;
        if at > now {
            return None;
        }
        let message = self.message(slot)?.clone();
        self.clear(message.topic())
    }

    fn find(&self, hash: u64, topic: TopicName<'_>) -> Option<u32> {
        self.by_topic
            .find(hash, |slot| has_topic(&self.slots, *slot, topic))
            .copied()
    }

    fn message(&self, slot: u32) -> Option<&Arc<Message>> {
        self.slots[slot as usize].as_ref()
    }

    /// A slot for a topic that has none; its message is put there by the caller.
    fn add(&mut self, hash: u64, topic: TopicName<'_>) -> u32 {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            (self.slots.len() - 1) as u32
        });
        let Self {
            by_topic,
            slots,
            hasher,
            ..
        } = self;
        by_topic.insert_unique(hash, slot, |slot| {
            let topic = slots[*slot as usize].as_ref().map(|message| message.topic());
            hasher.hash_one(topic.map_or(&[][..], TopicName::as_bytes))
        });
        self.in_order.insert(sort_key(topic.as_str()), slot);
        slot
    }
}

fn has_topic(slots: &[Option<Arc<Message>>], slot: u32, topic: TopicName<'_>) -> bool {
    slots[slot as usize]
        .as_ref()
        .is_some_and(|message| message.topic() == topic)
}

#[cfg(test)]
mod tests;
