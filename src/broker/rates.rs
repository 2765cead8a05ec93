//! How fast clients may publish, where their listener limits it: state that most brokers never have, so it is beside the connections.

use hashbrown::HashMap;

use super::endings::Ending;
use super::timers::Reminder;
use super::worker::{Flow, Worker};
use crate::protocol::bucket::Bucket;
use crate::protocol::ids::{ConnectionKey, SlotKey, Ticket};
use crate::protocol::packet::Publish;
use crate::protocol::qos::QoS;
use crate::protocol::reason::ReasonCode;
use crate::protocol::time::Time;
use crate::session::peer::{Peer, PublishRate, RatePolicy};

/// The connections of a worker whose rate is limited, and those of them that are not read for a while.
#[derive(Debug, Default)]
pub(super) struct Rates {
    /// There is, or was, a connection whose rate is limited: without, nothing is looked up.
    pub(super) is_on: bool,
    of: HashMap<SlotKey, Taken, foldhash::fast::RandomState>,
    paused: HashMap<SlotKey, Time, foldhash::fast::RandomState>,
}

/// What a connection has taken of its rates.
#[derive(Debug, Default)]
struct Taken {
    messages: Bucket,
    bytes: Bucket,
    /// The packet that comes next was counted before it had to wait.
    was_counted: bool,
}

impl Taken {
    /// Takes one message; if that is too many, nothing, and when the next may come.
    fn take(&mut self, rate: &PublishRate, bytes: usize, now: Time) -> Result<(), Time> {
        if rate.messages.is_some() {
            self.messages.may_take(now)?;
        }
        if rate.bytes.is_some() {
            self.bytes.may_take(now)?;
        }
        if let Some(per_second) = rate.messages {
            self.messages.take(1, per_second, now)?;
        }
        if let Some(per_second) = rate.bytes {
            self.bytes.take(bytes as u64, per_second, now)?;
        }
        Ok(())
    }
}

impl Rates {
    /// A connection has come.
    pub(super) fn expect(&mut self, peer: &Peer) {
        self.is_on |= peer.rules.publish_rate.is_some();
    }

    /// A packet that was counted has to wait for something else, and comes again.
    pub(super) fn expect_again(&mut self, key: ConnectionKey) {
        if let Some(taken) = self.of.get_mut(&key.0) {
            taken.was_counted = true;
        }
    }

    /// A connection is gone.
    pub(super) fn forget(&mut self, key: ConnectionKey) {
        if self.is_on {
            self.of.remove(&key.0);
        }
        if !self.paused.is_empty() {
            self.paused.remove(&key.0);
        }
    }

    /// True while a connection is not read.
    #[inline]
    pub(super) fn is_paused(&self, key: ConnectionKey) -> bool {
        !self.paused.is_empty() && self.paused.contains_key(&key.0)
    }
}

impl Worker {
    /// A PUBLISH, where the rate of some clients is limited. `None`: it is handled like any other.
    #[cold]
    pub(super) fn limit_rate(&mut self, key: ConnectionKey, publish: &Publish<'_>, now: Time) -> Option<Flow> {
        let connection = self.residents.connections.get(key.0)?;
        let rate = connection.peer.rules.publish_rate?;
        let taken = self.rates.of.get_mut(&key.0);
        let was_counted = taken.is_some_and(|taken| std::mem::take(&mut taken.was_counted));
        if was_counted || connection.questions.has_answers() {
            return None; // it was counted when it came
        }
        if self.rates.paused.get(&key.0).is_some_and(|until| *until > now) {
            return Some(Flow::Wait);
        }
        let has_properties = connection.version.has_properties();
        let topic_bytes = publish.topic.map_or(0, |topic| topic.as_str().len());
        let bytes = topic_bytes + publish.properties.as_bytes().len() + publish.payload.len();
        let taken = self.rates.of.entry(key.0).or_default();
        let Err(free_at) = taken.take(&rate, bytes, now) else {
            return None;
        };
        self.metrics().limit_publish_rate.increment();
        match rate.policy {
            RatePolicy::Disconnect => {
                let ending = Ending::Refused(ReasonCode::MessageRateTooHigh, "publish_rate");
                self.end_connection(key, ending, now);
                Some(Flow::Done)
            }
            RatePolicy::Drop if publish.qos == QoS::AtMostOnce => {
                self.metrics().dropped_rate.increment();
                Some(Flow::Done)
            }
            RatePolicy::Drop if has_properties => {
                self.acknowledge(key, publish, ReasonCode::QuotaExceeded, Ticket::DONE);
                Some(Flow::Done)
            }
            // An older client cannot be told that a message is not accepted: it has to wait.
            RatePolicy::Drop | RatePolicy::Delay => {
                self.pause(key, free_at);
                Some(Flow::Wait)
            }
        }
    }

    /// Nothing more is read of a connection until then.
    pub(super) fn pause(&mut self, key: ConnectionKey, until: Time) {
        // A reminder of its own: the one that counts for its silence stays where it is.
        if self.rates.paused.insert(key.0, until).is_none() {
            self.timers.arm(until, Reminder::Connection(key));
        }
    }

    /// A reminder of a connection came. One that is paused is read again when it is time; its silence meanwhile is our doing.
    pub(super) fn see_to_pause(&mut self, key: ConnectionKey, now: Time) {
        let Some(until) = self.rates.paused.get(&key.0).copied() else {
            return;
        };
        if let Some(connection) = self.residents.connections.get_mut(key.0) {
            connection.last_received = now;
        }
        if until <= now {
            self.rates.paused.remove(&key.0);
            self.residents.touch(key);
        } else {
            self.timers.arm(until, Reminder::Connection(key));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::broker::worker::Status;
    use crate::broker::{Broker, BrokerOptions, Parts};
    use crate::protocol::ids::WorkerId;
    use crate::session::peer::ListenerRules;
    use crate::session::peer::tests::peer;

    const NOW: Time = Time(1_000_000);
    const CONNECT_V311: &[u8] = b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x02\x00\x01c";
    const CONNECT_V5: &[u8] = b"\x10\x0e\x00\x04MQTT\x05\x02\x00\x02\x00\x00\x01c";
    const QOS_0_V311: &[u8] = b"\x30\x04\x00\x01tx";
    const QOS_1_V5: &[u8] = b"\x32\x07\x00\x01t\x00\x01\x00x";

    fn connected(policy: RatePolicy, connect: &[u8]) -> (Worker, ConnectionKey) {
        let (messages, bytes) = (Some(10), None);
        let rate = PublishRate {
            messages,
            bytes,
            policy,
        };
        connected_with(rate, connect)
    }

    fn connected_with(rate: PublishRate, connect: &[u8]) -> (Worker, ConnectionKey) {
        let broker = Broker::new(BrokerOptions::default(), 1, Parts::default());
        let mut worker = Worker::new(broker, WorkerId(0), NOW);
        let rules = ListenerRules {
            publish_rate: Some(rate),
            ..ListenerRules::default()
        };
        let peer = Peer {
            rules: Arc::new(rules),
            ..peer()
        };
        let key = worker.open(peer, NOW.plus_secs(10), NOW);
        assert_eq!(worker.receive(key, connect, NOW), connect.len());
        (worker, key)
    }

    fn received(worker: &Worker) -> u64 {
        let metrics = worker.metrics();
        metrics.publish_received_qos0.get() + metrics.publish_received_qos1.get()
    }

    #[test]
    fn a_client_above_its_rate_waits_and_its_keep_alive_with_it() {
        let (mut worker, key) = connected(RatePolicy::Delay, CONNECT_V311);
        let flood = QOS_0_V311.repeat(1000);
        let (mut at, mut now) = (0, NOW);
        while now < NOW.plus_secs(10) {
            at += worker.receive(key, &flood[at..], now);
            assert_eq!(worker.status(key), Status::Waiting);
            // As the driver does: nothing is read until it is touched.
            while worker.status(key) == Status::Waiting {
                now = worker.next_deadline().unwrap().max(now);
                worker.expire(now);
            }
            assert_eq!(worker.status(key), Status::Open, "after {} ms", now.millis_since(NOW));
        }
        let count = received(&worker);
        assert!(
            (100..=111).contains(&count) && at == count as usize * QOS_0_V311.len(),
            "{count}"
        );
        worker.remove(key);
        assert!(worker.rates.of.is_empty() && worker.rates.paused.is_empty());
    }

    #[test]
    fn messages_above_the_rate_are_dropped_or_refused_or_end_the_connection() {
        let (mut worker, key) = connected(RatePolicy::Drop, CONNECT_V311);
        let flood = QOS_0_V311.repeat(100);
        assert_eq!(worker.receive(key, &flood, NOW), flood.len());
        assert_eq!((received(&worker), worker.metrics().dropped_rate.get()), (10, 90));

        let (mut worker, key) = connected(RatePolicy::Drop, CONNECT_V5);
        let before = worker.output(key).unwrap().len();
        let flood = QOS_1_V5.repeat(12);
        assert_eq!(worker.receive(key, &flood, NOW), flood.len());
        let sent: Vec<u8> = worker.output(key).unwrap().chunks().flatten().copied().collect();
        let refused = sent[before..].windows(3).filter(|bytes| *bytes == [0, 1, 0x97]);
        assert_eq!(refused.count(), 2, "{sent:02x?}");

        let (mut worker, key) = connected(RatePolicy::Disconnect, CONNECT_V5);
        worker.receive(key, &flood, NOW);
        assert_eq!(worker.status(key), Status::Closing);
        let sent: Vec<u8> = worker.output(key).unwrap().chunks().flatten().copied().collect();
        assert!(
            sent.ends_with(&[0xE0, 2, 0x96, 0]) || sent.ends_with(&[0xE0, 1, 0x96]),
            "{sent:02x?}"
        );
    }

    #[test]
    fn user_properties_are_bytes_too() {
        let rate = PublishRate {
            messages: None,
            bytes: Some(1000),
            policy: RatePolicy::Drop,
        };
        let (mut worker, key) = connected_with(rate, CONNECT_V5);
        let mut publish = b"\x30\xD2\x01\x00\x01t\xCD\x01\x26\x00\x01n\x00\xC7".to_vec();
        publish.resize(3 + 210, b'v');
        let flood = publish.repeat(100);
        assert_eq!(worker.receive(key, &flood, NOW), flood.len());
        assert_eq!((received(&worker), worker.metrics().dropped_rate.get()), (5, 95));
    }

    /// What waits for room in the one rate must not use up the other meanwhile.
    #[test]
    fn what_one_rate_refuses_costs_nothing_of_the_other() {
        let rate = PublishRate {
            messages: Some(10),
            bytes: Some(1),
            policy: RatePolicy::Delay,
        };
        let mut taken = Taken::default();
        assert_eq!(taken.take(&rate, 1, NOW), Ok(()));
        for _ in 0..100 {
            assert_eq!(taken.take(&rate, 1, NOW), Err(NOW.plus_millis(1)));
        }
        assert_eq!(taken.take(&rate, 1, NOW.plus_secs(1)), Ok(()));
        assert!(taken.messages.is_full(NOW.plus_millis(1100)));
    }
}
