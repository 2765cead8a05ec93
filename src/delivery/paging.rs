//! Long queues: what waits above a budget of memory is in the store only, and comes back when its turn does.
//!
//! ```text
//!   put in, with content ── above the budget ──► due ── the store has it ──► stored ── its turn comes ──► asked for ── loaded ──► sent
//! ```
//!
//! The store has it when a batch of this worker, submitted after the delivery was put in, was told as safe while the store is sound:
//! the message itself was in that batch, or in one before, or in one that another worker submitted before it wrote its letter. A store that
//! failed in between is sound again only after a snapshot of everything, for which every delivery that is not stored gave its
//! content. So what is asked for later is always there.
//!
//! Below the budgets this costs two comparisons for each delivery that has to wait, and nothing for one that need not.

use std::collections::VecDeque;

use tracing::error;

use super::congestion::tell_status;
use super::outbox::{Load, Loaded, Outbox};
use super::residents::{DeliveryOptions, Resident, Residents};
use super::stored;
use crate::metrics::Metrics;
use crate::protocol::ids::{MessageNumber, SlotKey, Ticket};

/// Messages asked for at once.
const RUN_MESSAGES: usize = 1024;
/// Bytes asked for at once: a fourth of the session's budget, and no more than this.
const RUN_BYTES: usize = 1 << 20;
/// The same while the budget of all sessions is used up.
const RUN_BYTES_SHORT: usize = 64 << 10;

/// What a worker knows about where contents are.
#[derive(Debug, Default)]
pub struct Paging {
    /// What all its queues hold.
    total: Load,
    /// Sessions in whose queues something is due that waits for no batch yet.
    due: Vec<SlotKey>,
    /// Sessions whose queues are due up to a place as soon as a batch is safe.
    waiting: VecDeque<(Ticket, SlotKey, u64)>,
    /// Messages that the store is to be asked for.
    wanted: Vec<(SlotKey, Vec<MessageNumber>)>,
}

impl Paging {
    /// Brings the sums up to date after a queue has changed.
    #[inline]
    pub fn count(&mut self, outbox: &mut Outbox, metrics: &Metrics) {
        if outbox.count_into(&mut self.total) {
            metrics.queued_messages.set(self.total.messages as u64);
            metrics.queued_bytes.set(self.total.bytes as u64);
            metrics.queued_stored.set(self.total.stored as u64);
            metrics.queued_memory_bytes.set(self.total.memory_bytes as u64);
        }
    }

    /// What all queues of the worker hold.
    pub const fn total(&self) -> Load {
        self.total
    }

    /// A delivery that the store will have was put in.
    #[inline]
    pub(super) fn look_at(&mut self, key: SlotKey, outbox: &mut Outbox, options: &DeliveryOptions) {
        if (outbox.is_over_memory(options.memory_bytes_max) || self.is_over(options)) && outbox.mark_due() {
            self.due.push(key);
        }
    }

    /// What waits in a queue that the store has is to leave memory.
    pub(super) fn page_out_all(&mut self, key: SlotKey, outbox: &mut Outbox) {
        if outbox.mark_all_due() {
            self.due.push(key);
        }
    }

    /// True when the memory of all sessions is used up.
    pub const fn is_over(&self, options: &DeliveryOptions) -> bool {
        self.total.memory_bytes > options.memory_total_max
    }

    /// True when something is due, or wanted, that the store has not been told.
    pub const fn has_something(&self) -> bool {
        !self.due.is_empty() || !self.wanted.is_empty()
    }

    /// A session with something due, if there is one.
    pub fn first_due(&self) -> Option<SlotKey> {
        self.due.first().copied()
    }

    /// Asks for the contents of what comes next, a run ahead of what is sent.
    pub fn read_ahead(&mut self, key: SlotKey, outbox: &mut Outbox, options: &DeliveryOptions) {
        let is_over = self.is_over(options);
        let run_bytes = (options.memory_bytes_max / 4).min(if is_over { RUN_BYTES_SHORT } else { RUN_BYTES });
        let is_enough = is_over || outbox.load().memory_bytes > run_bytes;
        if is_enough && !outbox.is_front_stored() {
            return;
        }
        if let Some(run) = outbox.next_run(RUN_MESSAGES, run_bytes) {
            self.wanted.push((key, run));
        }
    }

    /// The store is to be asked for these.
    pub fn want(&mut self, key: SlotKey, messages: Vec<MessageNumber>) {
        self.wanted.push((key, messages));
    }

    /// What the store is to be asked for.
    pub fn take_wanted(&mut self) -> std::vec::Drain<'_, (SlotKey, Vec<MessageNumber>)> {
        self.wanted.drain(..)
    }
}

impl Residents {
    /// Everything that is due waits for this batch, which will be submitted now.
    pub fn wait_for_batch(&mut self, ticket: Ticket) {
        let mut due = std::mem::take(&mut self.paging.due);
        for key in due.drain(..) {
            if let Some(resident) = self.sessions.get_mut(key) {
                self.paging
                    .waiting
                    .push_back((ticket, key, resident.outbox.take_mark()));
            }
        }
        self.paging.due = due;
    }

    /// True when something is due as soon as a batch is safe that is.
    pub fn has_ready_pages(&self) -> bool {
        let first = self.paging.waiting.front();
        first.is_some_and(|(ticket, ..)| self.journal.is_stored(*ticket))
    }

    /// Takes the contents of what is due, and is safe in a sound store, out of memory.
    pub fn page_out(&mut self) {
        while self.has_ready_pages()
            && let Some((_, key, end)) = self.paging.waiting.pop_front()
        {
            if let Some(resident) = self.sessions.get_mut(key) {
                let is_over = self.paging.is_over(&self.options);
                let outbox = &mut resident.outbox;
                outbox.page_out(end, self.options.memory_bytes_max, is_over);
                self.paging.count(outbox, &self.metrics);
                tell_status(resident, &self.options.outbox, &mut self.congestion);
            }
        }
    }

    /// Contents have come from the store for a session. What cannot be read any more is lost, and said to be.
    pub fn contents_came(&mut self, key: SlotKey, loaded: &Loaded) {
        let Some(resident) = self.sessions.get_mut(key) else {
            return;
        };
        let lost = resident.outbox.fill(loaded);
        if let Some(first) = lost.first() {
            let (client, message) = (resident.session.client_id.as_str(), first.message.0.get());
            report_lost(client, message, lost.len());
        }
        for lost in lost {
            self.metrics.dropped_unreadable.increment();
            stored::ended(&mut self.journal, &resident.session, Some(lost.message), lost.copy);
        }
        self.paging.count(&mut resident.outbox, &self.metrics);
        tell_status(resident, &self.options.outbox, &mut self.congestion);
    }

    /// Takes a session out, with what waits for it.
    pub fn remove_session(&mut self, key: SlotKey) -> Option<Resident> {
        let mut resident = self.sessions.remove(key)?;
        self.congestion.forget(&resident);
        if let Some(mut rest) = resident.outbox.take() {
            rest.clear();
            self.paging.count(&mut rest, &self.metrics);
        }
        Some(resident)
    }

    /// A queue has changed otherwise.
    pub fn count_queue(&mut self, key: SlotKey) {
        let Some(resident) = self.sessions.get_mut(key) else {
            return;
        };
        if let Some(outbox) = resident.outbox.get_mut() {
            self.paging.count(outbox, &self.metrics);
            tell_status(resident, &self.options.outbox, &mut self.congestion);
        }
    }
}

/// Messages that were acknowledged to their publishers, and that the store cannot read any more.
pub fn report_lost(client: &str, first_message: u64, count: usize) {
    error!(
        client,
        first_message, count, "queued messages are lost: the store cannot read them any more; see to the device"
    );
}
