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

    /// Goes on with walks that have used up their turn, and with reviews; true when some are left for the next.
    pub fn continue_walks(&mut self, now: Time) -> bool {
        self.continue_reviews(now);
        for _ in 0..self.walking.len() {
            let Some(slot) = self.walking.pop_front() else { break };
            if let Some(resident) = self.residents.sessions.get_mut(slot) {
                resident.is_walking = false;
                self.continue_delivery(slot, now);
            }
        }
        self.has_walks()
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
