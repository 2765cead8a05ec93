//! What waits for a session goes on its way: its queue, then the retained messages of its new subscriptions.
//!
//! Retained messages are not collected: each subscription walks through the store, a few messages ahead of what its client takes.
//! So a `#` over a million messages costs its client's output buffer and no more, and counts against no limit.
//!
//! The store knows which subscriptions are on their way, and not how far: after a restart they begin anew, as far as that is allowed.

use std::ops::ControlFlow;
use std::sync::Arc;

use super::read;
use super::storing::subscription_record;
use super::worker::Worker;
use crate::delivery::outbox::Replay;
use crate::delivery::residents::Residents;
use crate::protocol::ids::SlotKey;
use crate::protocol::qos::QoS;
use crate::protocol::time::Time;
use crate::storage::Record;

/// Messages taken from the store at a time: the store is locked for readers meanwhile.
const AHEAD: usize = 256;
/// Steps of a walk at a time: a message looked at is a step, whether it matches or not.
const STEPS: usize = 4096;
/// Batches in one turn of a session.
const ROUNDS: usize = 4;

impl Worker {
    /// Sends what waits for a session, as far as there is room. A long walk pauses after its turn and goes on in
    /// [`Worker::continue_walks`], so that one wildcard over a large store delays nobody.
    pub(super) fn continue_delivery(&mut self, slot: SlotKey, now: Time) {
        self.residents.pump(slot, now);
        for _ in 0..ROUNDS {
            if !self.walk_on(slot, now) {
                return;
            }
            self.residents.pump(slot, now);
        }
        if let Some(resident) = self.residents.sessions.get_mut(slot)
            && !std::mem::replace(&mut resident.is_walking, true)
        {
            self.walking.push_back(slot);
        }
    }

    /// True when [`Worker::continue_walks`] has something to do.
    pub fn has_walks(&self) -> bool {
        !self.walking.is_empty() || self.reviews.are_due()
    }

    /// Goes on with walks that have used up their turn, and with reviews; true when there was something to do, so that what came of it is to
    /// be dispatched, also where nothing is left.
    pub fn continue_walks(&mut self, now: Time) -> bool {
        let was_due = self.has_walks();
        self.continue_reviews(now);
        for _ in 0..self.walking.len() {
            let Some(slot) = self.walking.pop_front() else { break };
            if let Some(resident) = self.residents.sessions.get_mut(slot) {
                resident.is_walking = false;
                self.continue_delivery(slot, now);
            }
        }
        self.see_to_marked(now);
        was_due || self.has_walks() || !self.residents.touched.is_empty()
    }

    /// Takes some retained messages for a session; false when there is no room, or none is left.
    fn walk_on(&mut self, slot: SlotKey, now: Time) -> bool {
        let Residents { sessions, journal, .. } = &mut self.residents;
        let Some(resident) = sessions.get_mut(slot) else {
            return false;
        };
        if resident.outbox.front_replay().is_some() {
            return false;
        }
        // All that it has taken was sent, and is the store's as deliveries: for a start again, it is done.
        while let Some(done) = resident.walks.pop_front_if(|walk| walk.walk.is_finished()) {
            if done.qos.is_acknowledged()
                && let Some(record) = subscription_record(&resident.session, &resident.walks, &done.filter)
            {
                journal.record(&Record::Subscription(record));
            }
        }
        let Some(current) = resident.walks.front_mut() else {
            return false;
        };
        if !journal.is_stored(current.suback) {
            return false; // what releases SUBACK goes on here
        }
        let retained = read(&self.broker.retained);
        let mut taken = 0;
        let (qos, identifier, outbox) = (current.qos, current.identifier, &mut resident.outbox);
        let is_anew = current.is_anew;
        retained.advance(&mut current.walk, STEPS, |message| {
            if taken == AHEAD {
                return ControlFlow::Break(());
            }
            let is_wanted = !is_anew || qos.min(message.qos) == QoS::AtLeastOnce;
            if is_wanted && !message.is_expired(now) {
                outbox.push_replay(Replay {
                    message: Arc::clone(message),
                    qos,
                    identifier,
                });
                taken += 1;
            }
            ControlFlow::Continue(())
        });
        drop(retained);
        self.residents.metrics.retained_sent.add(taken as u64);
        true
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::task::Waker;

    use super::*;
    use crate::auth::{Access, Answer, Authorizer};
    use crate::broker::{Broker, BrokerOptions, Parts};
    use crate::protocol::ids::{Token, WorkerId};
    use crate::protocol::topic::{TopicFilter, TopicName};
    use crate::session::peer::tests::peer;

    /// Wants to be asked again whenever its generation has moved, and has an answer at once.
    #[derive(Default)]
    struct Sure(AtomicU64);

    impl Authorizer for Sure {
        fn publish(&self, _: &Access<'_>, _: TopicName<'_>, _: QoS, _: bool, _: Token) -> Answer<bool> {
            Answer::Ready(true)
        }

        fn subscribe(&self, _: &Access<'_>, _: TopicFilter<'_>, _: Token) -> Answer<bool> {
            Answer::Ready(true)
        }

        fn asks_again(&self, _: &Access<'_>) -> bool {
            true
        }

        fn generation(&self) -> Option<u64> {
            Some(self.0.load(Ordering::Acquire))
        }
    }

    /// It would lie in its output until something else comes.
    #[test]
    fn what_the_last_review_releases_is_told() {
        let now = Time(1_000_000);
        let sure = Arc::new(Sure::default());
        let parts = Parts {
            authorizer: Arc::clone(&sure) as _,
            ..Parts::default()
        };
        let broker = Broker::new(BrokerOptions::default(), 1, parts);
        let mut worker = Worker::new(broker, WorkerId(0), now);
        let come = |worker: &mut Worker, client_id: u8| {
            let key = worker.open(peer(), now.plus_secs(10), now);
            let connect = [&b"\x10\x0d\x00\x04MQTT\x04\x00\x00\x00\x00\x01"[..], &[client_id]].concat();
            worker.receive(key, &connect, now);
            key
        };
        let subscriber = come(&mut worker, b's');
        worker.receive(subscriber, b"\x82\x06\x00\x01\x00\x01a\x01", now);
        let publisher = come(&mut worker, b'p');
        sure.0.fetch_add(1, Ordering::AcqRel);
        worker.receive_mail(Waker::noop(), now);
        worker.receive(publisher, b"\x32\x06\x00\x01a\x00\x01x", now);
        while worker.next_touched().is_some() {}
        let length = |worker: &mut Worker| worker.output(subscriber).unwrap().len();
        let before = length(&mut worker);
        assert!(worker.has_walks());
        assert!(worker.continue_walks(now), "there is something to dispatch");
        assert_eq!(worker.next_touched(), Some(subscriber));
        assert_eq!(length(&mut worker), before + 8);
        assert!(!worker.continue_walks(now));
    }
}
