//! The worker's side of `delivery/paging`: batches that deliveries wait for, contents that are asked for and come, and what ended
//! sessions leave to others.

use std::collections::VecDeque;

use hashbrown::HashMap;

use super::storing::session_record;
use super::worker::Worker;
use crate::delivery::outbox::{Loaded, StoredDelivery};
use crate::delivery::paging::report_lost;
use crate::delivery::residents::Residents;
use crate::protocol::ids::{SessionKey, SlotKey};
use crate::protocol::time::Time;
use crate::storage::{Record, Standing};

/// Messages of a legacy that are asked for at once.
const LEGACY_AT_ONCE: usize = 256;

/// What shared subscriptions had chosen ended sessions for, and whose contents have still to be loaded before others can have it. It is not
/// a session's any more: a broker that stops waits for it; if it is killed before, it is lost, like what a session that expires while the broker
/// is down has.
pub(super) type Legacies = HashMap<SlotKey, VecDeque<StoredDelivery>, foldhash::fast::RandomState>;

impl Worker {
    /// What is due to give up its content waits for the batch that is submitted next. Where nothing was recorded that could be a batch,
    /// a session is recorded as it stands: all that was due may have been recorded by other workers.
    pub(super) fn wait_for_batch(&mut self) {
        let Some(first) = self.residents.paging.first_due() else {
            return;
        };
        let Residents { sessions, journal, .. } = &mut self.residents;
        if !journal.has_records()
            && let Some(resident) = sessions.get(first)
            && let Some(record) = session_record(&resident.session)
        {
            journal.record(&Record::Session(record));
        }
        let ticket = journal.open_ticket();
        self.residents.wait_for_batch(ticket);
    }

    /// Batches are safe. Where the store is not sound they are not, and memory has the truth.
    pub(super) fn page_out(&mut self) {
        if self.residents.has_ready_pages() && self.broker.store.standing() == Standing::Sound {
            self.residents.page_out();
        }
    }

    /// Asks the store for what is to be sent next.
    pub(super) fn ask_for_contents(&mut self) {
        for (slot, messages) in self.residents.paging.take_wanted() {
            self.broker.store.load(self.me, slot, messages);
        }
    }

    /// Messages have been read.
    pub(super) fn contents_came(&mut self, slot: SlotKey, loaded: &Loaded, now: Time) {
        if self.residents.sessions.get(slot).is_some() {
            self.residents.contents_came(slot, loaded);
            self.continue_delivery(slot, now);
        } else if self.legacies.contains_key(&slot) {
            self.share_legacy(slot, loaded, now);
        }
    }

    /// A session ends that has deliveries for others, whose contents are in the store only.
    pub(super) fn leave_legacy(&mut self, slot: SlotKey, deliveries: VecDeque<StoredDelivery>) {
        if !deliveries.is_empty() {
            self.legacies.insert(slot, deliveries);
            self.read_legacy(slot);
        }
    }

    /// True while others are still to get what a session has left to them, and the store reads it.
    pub fn has_legacies(&self) -> bool {
        !self.legacies.is_empty()
    }

    fn read_legacy(&mut self, slot: SlotKey) {
        let Some(legacy) = self.legacies.get(&slot) else {
            return;
        };
        let next: Vec<_> = legacy
            .iter()
            .take(LEGACY_AT_ONCE)
            .map(|delivery| delivery.message)
            .collect();
        if next.is_empty() {
            self.legacies.remove(&slot);
        } else {
            self.residents.paging.want(slot, next);
        }
    }

    fn share_legacy(&mut self, slot: SlotKey, loaded: &Loaded, now: Time) {
        let tried = [SessionKey {
            worker: self.me,
            key: slot,
        }];
        let mut unreadable = Vec::new();
        for (number, content) in loaded {
            let legacy = self.legacies.get_mut(&slot);
            let Some(delivery) = legacy.and_then(|legacy| legacy.pop_front_if(|next| next.message == *number)) else {
                continue;
            };
            let Some(message) = content else {
                unreadable.push(*number);
                continue;
            };
            if message.is_expired(now) {
                self.metrics().dropped_expired.increment();
            } else if !delivery
                .group()
                .is_some_and(|group| self.route_to_group(message, group, &tried, now))
            {
                self.metrics().dropped_session_ended.increment();
            }
        }
        self.metrics().dropped_unreadable.add(unreadable.len() as u64);
        if let Some(first) = unreadable.first() {
            report_lost("a shared subscription", first.0.get(), unreadable.len());
        }
        self.read_legacy(slot);
    }
}

#[cfg(test)]
mod tests;
