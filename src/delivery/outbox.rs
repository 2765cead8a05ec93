//! A session's queue of deliveries: bounded in messages and in bytes, with a named policy at the bound.

use std::collections::VecDeque;
use std::sync::Arc;

use smallvec::SmallVec;

use crate::protocol::message::Message;
use crate::protocol::qos::QoS;
use crate::protocol::time::Time;
use crate::protocol::topic::TopicName;
use crate::session::delivery::{Delivery, DeliveryKey};

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

/// Bounds of one outbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboxOptions {
    /// Deliveries at most, default 100,000; each costs about 80 bytes beside its message.
    pub messages_max: usize,
    /// Bytes at most, default 64 MiB, each message counted in full though it may be shared with other sessions.
    pub bytes_max: usize,
    /// Policy for QoS 1 and 2.
    pub overflow: Overflow,
    /// Keep QoS 0 messages for sessions without connection. Default off, as with other brokers.
    pub queue_qos0_offline: bool,
}

impl Default for OutboxOptions {
    fn default() -> Self {
        Self {
            messages_max: 100_000,
            bytes_max: 64 << 20,
            overflow: Overflow::Refuse,
            queue_qos0_offline: false,
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
    acknowledged: VecDeque<Delivery>,
    replay: VecDeque<Replay>,
    bytes: usize,
    /// QoS 1 and 2 deliveries that were put in, ever: counted from there, a delivery's place does not change when others leave.
    put: u64,
    /// Deliveries lost since the queue was last in order; 0 when it is.
    dropped: u64,
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
            && (self.acknowledged.len() >= options.messages_max || self.bytes >= options.bytes_max)
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
        self.bytes += delivery.cost_bytes();
        self.put(delivery);
        Offered::Queued
    }

    /// Takes a delivery, or does with it what the policy says. Those of QoS 1 and 2 that were dropped for it are added to `lost`.
    pub fn offer(&mut self, delivery: Delivery, options: &OutboxOptions, lost: &mut Vec<DeliveryKey>) -> Offered {
        let cost = delivery.cost_bytes();
        let is_acknowledged = delivery.qos.is_acknowledged();
        let mut dropped = 0;
        while self.len() >= options.messages_max || self.bytes + cost > options.bytes_max {
            // QoS 0 makes room first, whoever needs it.
            let victim = match self.unacknowledged.pop_front() {
                Some(victim) => Some(victim),
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
            self.bytes -= victim.cost_bytes();
            dropped += 1;
            lost.extend(victim.key().filter(|_| victim.qos.is_acknowledged()));
        }
        self.bytes += cost;
        if is_acknowledged {
            self.put(delivery);
        } else {
            self.unacknowledged.push_back(delivery);
        }
        if dropped == 0 {
            Offered::Queued
        } else {
            Offered::QueuedAfterDropping(dropped)
        }
    }

    fn put(&mut self, delivery: Delivery) {
        self.put += 1;
        self.acknowledged.push_back(delivery);
    }

    /// Takes a delivery that was waiting when the broker stopped, whatever the bounds are now.
    pub fn restore(&mut self, delivery: Delivery) {
        self.bytes += delivery.cost_bytes();
        self.put(delivery);
    }

    /// QoS 1 and 2 deliveries from a place on, each with its place. What comes later has a higher place, for ever.
    pub fn waiting_from(&self, place: u64) -> impl Iterator<Item = (u64, &Delivery)> {
        let first = self.put - self.acknowledged.len() as u64;
        let skipped = place.saturating_sub(first).min(self.acknowledged.len() as u64);
        let waiting = self.acknowledged.range(skipped as usize..);
        waiting
            .enumerate()
            .map(move |(at, delivery)| (first + skipped + at as u64, delivery))
    }

    /// The next QoS 1 or 2 delivery.
    pub fn pop_acknowledged(&mut self) -> Option<Delivery> {
        let delivery = self.acknowledged.pop_front()?;
        self.bytes -= delivery.cost_bytes();
        self.shrink();
        Some(delivery)
    }

    /// The next QoS 0 delivery.
    pub fn pop_unacknowledged(&mut self) -> Option<Delivery> {
        let delivery = self.unacknowledged.pop_front()?;
        self.bytes -= delivery.cost_bytes();
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
        for queue in [&mut self.unacknowledged, &mut self.acknowledged] {
            while let Some(expired) = queue.pop_front_if(|delivery| delivery.message.is_expired(now)) {
                self.bytes -= expired.cost_bytes();
                dropped += 1;
                lost.extend(expired.key().filter(|_| expired.qos.is_acknowledged()));
            }
        }
        dropped
    }

    /// True when `delivery` does not fit as things are.
    pub fn is_over(&self, delivery: &Delivery, options: &OutboxOptions) -> bool {
        self.len() >= options.messages_max || self.bytes + delivery.cost_bytes() > options.bytes_max
    }

    /// Drops every QoS 0 delivery: the connection they waited for is gone.
    pub fn forget_unacknowledged(&mut self) -> usize {
        let count = self.unacknowledged.len();
        self.bytes -= self
            .unacknowledged
            .drain(..)
            .map(|delivery| delivery.cost_bytes())
            .sum::<usize>();
        count
    }

    /// Counts a lost delivery; true for the first since the queue was in order, which is the one to log.
    pub const fn record_drop(&mut self, count: u64) -> bool {
        let is_first = self.dropped == 0;
        self.dropped += count;
        is_first
    }

    /// How many were lost, once the queue is in order again (half of its bound); `None` while it is not, or nothing was lost.
    pub fn take_drops(&mut self, options: &OutboxOptions) -> Option<u64> {
        let is_in_order = self.len() <= options.messages_max / 2 && self.bytes <= options.bytes_max / 2;
        (self.dropped > 0 && is_in_order).then(|| std::mem::take(&mut self.dropped))
    }

    /// Takes out the deliveries that another member of a shared subscription may have, because this client is gone. Everything else
    /// stays, in order.
    pub fn take_for_redistribution(&mut self) -> Vec<Delivery> {
        let (taken, kept): (Vec<_>, Vec<_>) = self
            .acknowledged
            .drain(..)
            .partition(|delivery| delivery.group.is_some());
        self.acknowledged = kept.into();
        self.bytes -= taken.iter().map(Delivery::cost_bytes).sum::<usize>();
        taken
    }

    fn shrink(&mut self) {
        if self.acknowledged.is_empty() && self.acknowledged.capacity() > 64 {
            self.acknowledged = VecDeque::new();
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
mod tests {
    use super::*;
    use crate::protocol::message::Publication;
    use crate::protocol::property::Properties;
    use crate::protocol::topic::TopicName;

    fn delivery(qos: QoS, payload: &[u8]) -> Delivery {
        let publication = Publication {
            topic: TopicName::parse("t").unwrap(),
            payload,
            qos,
            retain: false,
            properties: Properties::EMPTY,
            expires_at: None,
            publisher: None,
        };
        Delivery {
            message: Arc::new(publication.to_message()),
            qos,
            retain: false,
            identifiers: SmallVec::new(),
            group: None,
            copy: 0,
        }
    }

    fn options(messages_max: usize, overflow: Overflow) -> OutboxOptions {
        OutboxOptions {
            messages_max,
            overflow,
            ..OutboxOptions::default()
        }
    }

    #[test]
    fn qos_0_drops_its_oldest_and_counts() {
        let options = options(2, Overflow::Refuse);
        let mut outbox = Outbox::default();
        for (payload, expected) in [
            (b"1", Offered::Queued),
            (b"2", Offered::Queued),
            (b"3", Offered::QueuedAfterDropping(1)),
        ] {
            assert_eq!(
                outbox.offer(delivery(QoS::AtMostOnce, payload), &options, &mut Vec::new()),
                expected
            );
        }
        assert_eq!(outbox.pop_unacknowledged().unwrap().message.payload(), b"2");
    }

    #[test]
    fn qos_1_is_refused_at_the_bound_by_default_and_displaces_qos_0_before() {
        let options = options(2, Overflow::Refuse);
        let mut outbox = Outbox::default();
        assert_eq!(
            outbox.offer(delivery(QoS::AtMostOnce, b"0"), &options, &mut Vec::new()),
            Offered::Queued
        );
        assert_eq!(
            outbox.offer(delivery(QoS::AtLeastOnce, b"1"), &options, &mut Vec::new()),
            Offered::Queued
        );
        assert_eq!(
            outbox.offer(delivery(QoS::AtLeastOnce, b"2"), &options, &mut Vec::new()),
            Offered::QueuedAfterDropping(1)
        );
        assert_eq!(
            outbox.offer(delivery(QoS::AtLeastOnce, b"3"), &options, &mut Vec::new()),
            Offered::Refused
        );
        assert_eq!(
            outbox.offer(delivery(QoS::AtMostOnce, b"4"), &options, &mut Vec::new()),
            Offered::Dropped
        );
        assert!(outbox.is_full(&options));
    }

    #[test]
    fn what_was_acknowledged_already_is_taken_above_the_bound() {
        let options = options(1, Overflow::Refuse);
        let mut outbox = Outbox::default();
        for payload in [b"1", b"2"] {
            let delivery = delivery(QoS::AtLeastOnce, payload);
            assert_eq!(
                outbox.offer_promised(delivery, &options, &mut Vec::new()),
                Offered::Queued
            );
        }
        assert_eq!(outbox.len(), 2);
        assert_eq!(
            outbox.offer(delivery(QoS::AtLeastOnce, b"3"), &options, &mut Vec::new()),
            Offered::Refused
        );
    }

    #[test]
    fn policies_that_drop_are_asked_for_by_name() {
        for (overflow, expected, first) in [
            (Overflow::DropOldest, Offered::QueuedAfterDropping(1), b"2"),
            (Overflow::DropNewest, Offered::Dropped, b"1"),
            (Overflow::Disconnect, Offered::Disconnect, b"1"),
        ] {
            let options = options(1, overflow);
            let mut outbox = Outbox::default();
            outbox.offer(delivery(QoS::AtLeastOnce, b"1"), &options, &mut Vec::new());
            assert_eq!(
                outbox.offer(delivery(QoS::AtLeastOnce, b"2"), &options, &mut Vec::new()),
                expected
            );
            assert_eq!(
                outbox.pop_acknowledged().unwrap().message.payload(),
                first,
                "{overflow:?}"
            );
        }
    }

    #[test]
    fn only_what_a_shared_subscription_gave_is_taken_for_others() {
        let mut outbox = Outbox::default();
        outbox.offer(
            delivery(QoS::AtLeastOnce, b"mine"),
            &OutboxOptions::default(),
            &mut Vec::new(),
        );
        let bytes = outbox.bytes();
        assert!(outbox.take_for_redistribution().is_empty());
        assert_eq!((outbox.len(), outbox.bytes()), (1, bytes));
    }

    #[test]
    fn a_message_above_the_byte_bound_does_not_empty_the_world_for_nothing() {
        let options = OutboxOptions {
            bytes_max: 300,
            overflow: Overflow::DropOldest,
            ..OutboxOptions::default()
        };
        let mut outbox = Outbox::default();
        assert_eq!(
            outbox.offer(delivery(QoS::AtLeastOnce, &[0; 1000]), &options, &mut Vec::new()),
            Offered::Dropped
        );
        assert_eq!(outbox.bytes(), 0);
    }
}
