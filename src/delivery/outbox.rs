//! A session's queue of deliveries: bounded in messages and in bytes, with a named policy at the bound.
//!
//! Deliveries of QoS 1 and 2 wait in one line, each with its content or, where that is in the store and memory is used up, without
//! (`paging.rs`).

mod entry;
mod paging;

use std::collections::VecDeque;
use std::sync::Arc;

use smallvec::SmallVec;

pub use self::entry::{Entry, StoredDelivery};
use self::paging::Pages;
pub use self::paging::{Load, Loaded};
use super::memory::MemoryState;
use crate::protocol::message::Message;
use crate::protocol::qos::QoS;
use crate::protocol::time::Time;
use crate::protocol::topic::TopicName;
use crate::session::delivery::{Delivery, DeliveryKey};
use crate::session::rare::Empty;

/// Bytes that may wait in memory for one session, while that is short, before its publishers wait; while it is used up, before they
/// are refused.
const MEMORY_BYTES_SHORT: usize = 64 << 10;

/// What happens to QoS 1 and 2 deliveries at the bound. QoS 0 always drops its oldest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Overflow {
    /// The new message is refused, to its publisher where no receiver could take it. Nothing is lost silently.
    #[default]
    Refuse,
    /// The oldest waiting delivery is dropped for the new one.
    DropOldest,
    /// The new one is dropped.
    DropNewest,
    /// The client is disconnected; its queue stays.
    Disconnect,
}

impl Overflow {
    /// What is done with a delivery of that QoS, for the log.
    pub const fn name(self, qos: QoS) -> &'static str {
        match (qos, self) {
            (QoS::AtMostOnce, _) => "drop_oldest_qos0",
            (_, Self::Refuse) => "refuse",
            (_, Self::DropOldest) => "drop_oldest",
            (_, Self::DropNewest) => "drop_newest",
            (_, Self::Disconnect) => "disconnect",
        }
    }
}

/// Bounds of one outbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboxOptions {
    /// Deliveries at most, default 1,000,000; each costs about 50 bytes beside its message.
    pub messages_max: usize,
    /// Bytes at most, default 1 GiB, each message counted in full though it may be shared with other sessions, or be in the store only.
    pub bytes_max: usize,
    /// Bytes at most whose content is in memory, default 64 MiB: what counts where nothing is stored, or not yet.
    pub unstored_bytes_max: usize,
    /// Policy for QoS 1 and 2.
    pub overflow: Overflow,
    /// Keep QoS 0 messages for sessions without connection. Default off, as with other brokers.
    pub queue_qos0_offline: bool,
    /// How much memory is left: not an option, but what all queues of a worker are told.
    pub memory: MemoryState,
}

impl Default for OutboxOptions {
    fn default() -> Self {
        Self {
            messages_max: 1_000_000,
            bytes_max: 1 << 30,
            unstored_bytes_max: 64 << 20,
            overflow: Overflow::Refuse,
            queue_qos0_offline: false,
            memory: MemoryState::Ample,
        }
    }
}

/// What became of a delivery that was offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offered {
    /// It waits.
    Queued,
    /// It waits, and that many older ones of the QoS class were dropped for it.
    QueuedAfterDropping(u32),
    /// It was dropped by policy.
    Dropped,
    /// It was refused.
    Refused,
    /// It was refused, and the client is to be disconnected.
    Disconnect,
}

/// A retained message that a new subscription is still to get.
#[derive(Clone, Debug)]
pub struct Replay {
    /// The message as it was when the client subscribed.
    pub message: Arc<Message>,
    /// Granted QoS.
    pub qos: QoS,
    /// Subscription identifier.
    pub identifier: Option<u32>,
}

/// Deliveries that wait for one session. Order is kept within QoS 0 and within QoS 1 and 2 [MQTT-4.6.0-6].
#[derive(Debug, Default)]
pub struct Outbox {
    unacknowledged: VecDeque<Delivery>,
    acknowledged: VecDeque<Entry>,
    replay: VecDeque<Replay>,
    bytes: usize,
    /// Of `bytes`, those whose content is in memory.
    memory_bytes: usize,
    pages: Pages,
    /// QoS 1 and 2 deliveries that were put in, ever: counted from there, a delivery's place does not change when others leave.
    put: u64,
    /// Deliveries lost since the queue was last in order; 0 when it is.
    dropped: u64,
}

impl Empty for Outbox {
    fn empty() -> &'static Self {
        static EMPTY: Outbox = Outbox {
            unacknowledged: VecDeque::new(),
            acknowledged: VecDeque::new(),
            replay: VecDeque::new(),
            bytes: 0,
            memory_bytes: 0,
            pages: Pages::NONE,
            put: 0,
            dropped: 0,
        };
        &EMPTY
    }
}

impl Outbox {
    /// True when no delivery of that kind waits, so that a new one may go straight to the connection.
    #[inline]
    pub fn is_clear_for(&self, qos: QoS) -> bool {
        if qos.is_acknowledged() {
            self.acknowledged.is_empty()
        } else {
            self.unacknowledged.is_empty()
        }
    }

    /// True when nothing waits.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.acknowledged.is_empty() && self.unacknowledged.is_empty() && self.replay.is_empty()
    }

    /// Deliveries that wait, retained replay not counted.
    pub fn len(&self) -> usize {
        self.acknowledged.len() + self.unacknowledged.len()
    }

    /// Bytes that wait.
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// True when another QoS 1 or 2 delivery would be refused.
    pub fn is_full(&self, options: &OutboxOptions) -> bool {
        // QoS 0 makes room first: as long as there is some, it is not full.
        options.overflow == Overflow::Refuse
            && self.unacknowledged.is_empty()
            && (options.memory == MemoryState::Spent && self.memory_bytes >= MEMORY_BYTES_SHORT
                || self.acknowledged.len() >= options.messages_max
                || self.bytes >= options.bytes_max
                || self.memory_bytes >= options.unstored_bytes_max)
    }

    /// True when so much waits that publishers should wait, too: seven eighths of a bound, or, while memory is short, more than a little.
    pub fn is_above_mark(&self, options: &OutboxOptions) -> bool {
        self.is_above(options, |bound| bound - bound / 8)
    }

    /// True while a queue that was above its mark still is: until there is a sixteenth of the bound less in it, so that it does not change
    /// with every message.
    pub fn stays_above_mark(&self, options: &OutboxOptions) -> bool {
        self.is_above(options, |bound| bound - (bound / 16 * 3).max(bound / 8))
    }

    fn is_above(&self, options: &OutboxOptions, mark: impl Fn(usize) -> usize) -> bool {
        let memory_bytes_mark = match options.memory {
            MemoryState::Ample => mark(options.unstored_bytes_max),
            MemoryState::Short | MemoryState::Spent => MEMORY_BYTES_SHORT.min(mark(options.unstored_bytes_max)),
        };
        self.acknowledged.len() >= mark(options.messages_max)
            || self.bytes >= mark(options.bytes_max)
            || self.memory_bytes >= memory_bytes_mark
    }

    /// Takes a delivery that was acknowledged to its publisher before this outbox was asked: by a publisher on another worker, which
    /// could not see that the bound was reached a moment ago, or because another member of a shared subscription gave it back.
    /// Where the policy is to refuse it is too late for that, and it is taken above the bound.
    pub fn offer_promised(
        &mut self,
        delivery: Delivery,
        options: &OutboxOptions,
        lost: &mut Vec<DeliveryKey>,
    ) -> Offered {
        let is_kept = delivery.qos.is_acknowledged() && options.overflow == Overflow::Refuse;
        if !is_kept || !self.is_over(&delivery, options) {
            return self.offer(delivery, options, lost);
        }
        self.put(delivery);
        Offered::Queued
    }

    /// Takes a delivery, or does with it what the policy says. Those of QoS 1 and 2 that were dropped for it are added to `lost`.
    pub fn offer(&mut self, delivery: Delivery, options: &OutboxOptions, lost: &mut Vec<DeliveryKey>) -> Offered {
        let cost = delivery.cost_bytes();
        let is_acknowledged = delivery.qos.is_acknowledged();
        let mut dropped = 0;
        // Where memory is used up, a policy that drops makes room for no more than leaves, or a little; one that refuses has refused before.
        let bytes_max = match (options.memory, options.overflow) {
            (MemoryState::Spent, policy) if policy != Overflow::Refuse => {
                options.bytes_max.min(self.bytes.max(MEMORY_BYTES_SHORT))
            }
            _ => options.bytes_max,
        };
        while !self.has_room(cost, bytes_max, options) {
            // QoS 0 makes room first, whoever needs it.
            let victim = match self.unacknowledged.pop_front() {
                Some(victim) => Some(Entry::Memory(victim)),
                None if !is_acknowledged => return Offered::Dropped,
                None => match options.overflow {
                    Overflow::Refuse => return Offered::Refused,
                    Overflow::DropNewest => return Offered::Dropped,
                    Overflow::Disconnect => return Offered::Disconnect,
                    Overflow::DropOldest => self.acknowledged.pop_front(),
                },
            };
            // A single message above the bound finds an empty queue and nothing left to drop.
            let Some(victim) = victim else { return Offered::Dropped };
            self.took(&victim);
            dropped += 1;
            lost.extend(victim.key().filter(|_| victim.is_acknowledged()));
        }
        if is_acknowledged {
            self.put(delivery);
        } else {
            self.bytes += cost;
            self.memory_bytes += cost;
            self.unacknowledged.push_back(delivery);
        }
        if dropped == 0 {
            Offered::Queued
        } else {
            Offered::QueuedAfterDropping(dropped)
        }
    }

    fn put(&mut self, delivery: Delivery) {
        let cost = delivery.cost_bytes();
        self.bytes += cost;
        self.memory_bytes += cost;
        self.put += 1;
        self.acknowledged.push_back(Entry::Memory(delivery));
    }

    /// Something has left the queue.
    fn took(&mut self, entry: &Entry) {
        self.bytes -= entry.cost_bytes();
        self.memory_bytes -= entry.memory_bytes();
        self.pages.stored -= usize::from(entry.is_stored());
    }

    /// QoS 1 and 2 deliveries from a place on, each with its place. What comes later has a higher place, for ever.
    pub fn waiting_from(&self, place: u64) -> impl Iterator<Item = (u64, &Entry)> {
        let first = self.first_place();
        let skipped = place.saturating_sub(first).min(self.acknowledged.len() as u64);
        let waiting = self.acknowledged.range(skipped as usize..);
        waiting
            .enumerate()
            .map(move |(at, delivery)| (first + skipped + at as u64, delivery))
    }

    /// The next QoS 1 or 2 delivery; `None` also where its content has to come from the store first.
    pub fn pop_acknowledged(&mut self) -> Option<Delivery> {
        let entry = self.acknowledged.pop_front_if(|entry| !entry.is_stored())?;
        self.took(&entry);
        self.shrink();
        match entry {
            Entry::Memory(delivery) => Some(delivery),
            Entry::Stored(_) => None,
        }
    }

    /// The next QoS 0 delivery.
    pub fn pop_unacknowledged(&mut self) -> Option<Delivery> {
        let delivery = self.unacknowledged.pop_front()?;
        self.bytes -= delivery.cost_bytes();
        self.memory_bytes -= delivery.cost_bytes();
        self.shrink();
        Some(delivery)
    }

    /// Puts a retained message in line; it does not count against the bounds.
    pub fn push_replay(&mut self, replay: Replay) {
        self.replay.push_back(replay);
    }

    /// Forgets the retained message of a topic that was to be sent: a newer one is on its way, and must come last.
    pub fn forget_replay_of(&mut self, topic: TopicName<'_>) {
        if !self.replay.is_empty() {
            self.replay.retain(|replay| replay.message.topic() != topic);
        }
    }

    /// The next retained message.
    pub fn front_replay(&self) -> Option<&Replay> {
        self.replay.front()
    }

    /// Takes the next retained message.
    pub fn pop_replay(&mut self) -> Option<Replay> {
        let replay = self.replay.pop_front();
        if self.replay.is_empty() {
            self.replay = VecDeque::new();
        }
        replay
    }

    /// Forgets retained messages that were not sent and are not part of a session's state: those of QoS 0, or all.
    pub fn forget_replay(&mut self, keeps_acknowledged: bool) {
        self.replay
            .retain(|replay| keeps_acknowledged && replay.qos.min(replay.message.qos).is_acknowledged());
    }

    /// Drops deliveries at the front that have expired, and says how many: they must not keep out what has not. Those of QoS 1 and 2
    /// are added to `lost`.
    pub fn drop_expired(&mut self, now: Time, lost: &mut Vec<DeliveryKey>) -> u64 {
        let mut dropped = 0;
        while let Some(expired) = self
            .unacknowledged
            .pop_front_if(|delivery| delivery.message.is_expired(now))
        {
            self.took(&Entry::Memory(expired));
            dropped += 1;
        }
        while let Some(expired) = self.acknowledged.pop_front_if(|entry| entry.is_expired(now)) {
            self.took(&expired);
            dropped += 1;
            lost.extend(expired.key());
        }
        dropped
    }

    /// True when `delivery` does not fit as things are.
    pub fn is_over(&self, delivery: &Delivery, options: &OutboxOptions) -> bool {
        !self.has_room(delivery.cost_bytes(), options.bytes_max, options)
    }

    fn has_room(&self, cost: usize, bytes_max: usize, options: &OutboxOptions) -> bool {
        self.len() < options.messages_max
            && self.bytes + cost <= bytes_max
            && self.memory_bytes + cost <= options.unstored_bytes_max
    }

    /// Drops every QoS 0 delivery: the connection they waited for is gone.
    pub fn forget_unacknowledged(&mut self) -> usize {
        let forgotten = std::mem::take(&mut self.unacknowledged);
        let bytes: usize = forgotten.iter().map(Delivery::cost_bytes).sum();
        self.bytes -= bytes;
        self.memory_bytes -= bytes;
        forgotten.len()
    }

    /// Counts a lost delivery; true for the first since the queue was in order, which is the one to log.
    pub const fn record_drop(&mut self, count: u64) -> bool {
        let is_first = self.dropped == 0;
        self.dropped += count;
        is_first
    }

    /// How many were lost, once the queue is in order again (half of its bound); `None` while it is not, or nothing was lost.
    pub fn take_drops(&mut self, options: &OutboxOptions) -> Option<u64> {
        let is_in_order = self.len() <= options.messages_max / 2
            && self.bytes <= options.bytes_max / 2
            && self.memory_bytes <= options.unstored_bytes_max / 2;
        (self.dropped > 0 && is_in_order).then(|| std::mem::take(&mut self.dropped))
    }

    /// Takes out the deliveries that another member of a shared subscription may have, because this client is gone; those whose content
    /// is in the store only where the session ends (`is_over`). Everything else stays, in order.
    pub fn take_for_redistribution(&mut self, is_over: bool) -> Vec<Entry> {
        let is_taken = |entry: &Entry| match entry {
            Entry::Memory(delivery) => delivery.group.is_some(),
            Entry::Stored(stored) => is_over && stored.group().is_some(),
        };
        if !self.acknowledged.iter().any(is_taken) {
            return Vec::new();
        }
        let (taken, kept): (Vec<_>, Vec<_>) = self.acknowledged.drain(..).partition(is_taken);
        self.acknowledged = kept.into();
        for entry in &taken {
            self.took(entry);
        }
        taken
    }

    fn shrink(&mut self) {
        if self.acknowledged.is_empty() && self.acknowledged.capacity() > 64 {
            self.acknowledged = VecDeque::new();
        } else if self.acknowledged.capacity() > 4096 && self.acknowledged.len() < self.acknowledged.capacity() / 4 {
            self.acknowledged.shrink_to(self.acknowledged.len() * 2);
        }
        if self.unacknowledged.is_empty() && self.unacknowledged.capacity() > 64 {
            self.unacknowledged = VecDeque::new();
        }
    }
}

impl Replay {
    /// As a delivery: retain flag set [MQTT-3.3.1-8].
    pub fn into_delivery(self) -> Delivery {
        Delivery {
            qos: self.qos.min(self.message.qos),
            message: self.message,
            retain: true,
            identifiers: self.identifier.into_iter().collect::<SmallVec<_>>(),
            group: None,
            copy: 0,
        }
    }
}

#[cfg(test)]
mod tests;
