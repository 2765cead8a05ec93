//! Back-pressure: a publisher whose receivers are slow is not read for a moment, instead of queues that grow without end.
//!
//! Only for QoS 1 and 2, and only where every receiver is a session that is kept and whose queue is above its mark, one of them with a
//! connection that could empty it. The publisher is looked at again every few milliseconds, and waits a second at most: from then on the
//! policy of the queues decides, until they are below their marks again. Never one that owes acknowledgements itself: what it waits for might
//! stand behind what is not read of it, as with a client that publishes to itself.

use hashbrown::HashMap;
use tracing::info;

use super::read;
use super::worker::Worker;
use crate::protocol::ids::{ConnectionKey, PacketId, SlotKey};
use crate::protocol::packet::Publish;
use crate::protocol::qos::QoS;
use crate::protocol::time::Time;
use crate::protocol::topic::TopicName;
use crate::router::Receiver;

/// How long a publisher waits at most, all told, before the queues' policy decides, milliseconds.
const PAUSE_MAX_MS: u64 = 1_000;
/// How long after its beginning a wait that was in vain counts: so long the policy decides, if the queues stay above their marks.
const AGAIN_AFTER_MS: u64 = 10_000;
/// How often it is looked at whether there is room again, milliseconds.
const LOOK_MS: u64 = 10;

/// Publishers of a worker that have found their receivers slow.
#[derive(Debug, Default)]
pub(super) struct BackPressure(HashMap<SlotKey, Wait, foldhash::fast::RandomState>);

/// How long a publisher has waited for its receivers.
#[derive(Clone, Copy, Debug)]
struct Wait {
    since: Time,
    /// The packet that waits, or waited too long.
    packet_id: PacketId,
}

impl BackPressure {
    /// No queue is above its mark.
    pub(super) fn forget_all(&mut self) {
        if !self.0.is_empty() {
            self.0.clear();
        }
    }

    /// A connection is gone.
    pub(super) fn forget(&mut self, key: ConnectionKey) {
        if !self.0.is_empty() {
            self.0.remove(&key.0);
        }
    }
}

impl Worker {
    /// A PUBLISH at QoS 1 or 2, while the queue of some session is above its mark. True: nothing more is read of its client for now.
    #[cold]
    pub(super) fn holds_back(
        &mut self,
        key: ConnectionKey,
        publish: &Publish<'_>,
        topic: TopicName<'_>,
        now: Time,
    ) -> bool {
        let owes = |worker: &mut Self| {
            let pair = worker.residents.pair(key);
            pair.is_none_or(|(_, resident)| resident.session.outbound.in_flight() > 0)
        };
        if publish.dup || !self.residents.congestion.is_any() || !self.are_all_slow(topic) || owes(self) {
            self.back_pressure.forget(key);
            return false;
        }
        let Some(packet_id) = publish.packet_id else {
            return false;
        };
        let fresh = Wait { since: now, packet_id };
        let wait = self.back_pressure.0.entry(key.0).or_insert(fresh);
        let waited_ms = now.millis_since(wait.since);
        if waited_ms >= AGAIN_AFTER_MS || (waited_ms < PAUSE_MAX_MS && wait.packet_id != packet_id) {
            *wait = fresh; // the last one that waited found room, or it is long ago
        }
        let is_first = wait.since == now;
        if now.millis_since(wait.since) >= PAUSE_MAX_MS {
            return false;
        }
        if is_first {
            self.metrics().publishers_paused.increment();
            self.tell_paused(key, topic, now);
        }
        self.rates.expect_again(key);
        self.pause(key, now.plus_millis(LOOK_MS));
        true
    }

    /// Whether everybody who wants a topic at QoS 1 or 2 is slow, and somebody may be so no more in a moment.
    fn are_all_slow(&mut self, topic: TopicName<'_>) -> bool {
        let broker = &self.broker;
        let matched = self.cache.resolve(topic, || read(&broker.subscriptions).matches(topic));
        let is_slow = |receiver: &Receiver| receiver.qos > QoS::AtMostOnce && receiver.status.is_above_mark();
        let is_there = |receiver: &Receiver| receiver.status.is_online();
        let members = || matched.groups.iter().flat_map(|group| group.members());
        matched.receivers().chain(members()).all(is_slow) && matched.receivers().chain(members()).any(is_there)
    }

    fn tell_paused(&mut self, key: ConnectionKey, topic: TopicName<'_>, now: Time) {
        let Some(connection) = self.residents.connections.get(key.0) else {
            return;
        };
        let client = connection.client_name();
        if let Some(repeated) = self.log.record(&(client, "publisher paused"), now) {
            let (topic, repeated) = (topic.as_str(), (repeated > 0).then_some(repeated));
            info!(client, topic, repeated, "publisher paused: all its receivers are slow");
        }
    }
}

#[cfg(test)]
mod tests;
