//! The memory budget: one for the whole process, measured by who drives the workers, and what is done when it is nearly, or all, used up.
//!
//! | of the budget | what changes | until |
//! | --- | --- | --- |
//! | 7/8 | QoS 0 is delivered to who reads and waits for nobody; queues that the store has leave memory | 13/16 |
//! | all | and nothing new is kept: QoS 1 and 2 for who is away, or is so slow that 64 KiB wait for him, new retained messages, and QoS 2 that waits for its release, are refused to their publishers; no new sessions and subscriptions | 15/16 |
//!
//! What was acknowledged is kept in any case, and who reads what he subscribes to notices nothing.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use tracing::{info, warn};

use super::options::Qos2Delivery;
use super::worker::Worker;
use super::{Broker, read, write};
use crate::delivery::memory::MemoryState;
use crate::delivery::outbox::Overflow;
use crate::protocol::message::Publication;
use crate::protocol::qos::QoS;
use crate::router::{Receiver, RetainedLimits};

/// The budget, and how much of it is used: shared by all workers, written some times a second.
#[derive(Debug)]
pub struct MemoryBudget {
    bytes_max: u64,
    used: AtomicU64,
    state: AtomicU8,
}

impl MemoryBudget {
    /// So many bytes; `u64::MAX` for no budget.
    pub const fn new(bytes_max: u64) -> Self {
        Self {
            bytes_max,
            used: AtomicU64::new(0),
            state: AtomicU8::new(MemoryState::Ample as u8),
        }
    }

    /// The budget, bytes; `None`: there is none.
    pub fn bytes_max(&self) -> Option<u64> {
        (self.bytes_max != u64::MAX).then_some(self.bytes_max)
    }

    /// Bytes that were used when somebody looked last.
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// How it stands.
    #[inline]
    pub fn state(&self) -> MemoryState {
        match self.state.load(Ordering::Relaxed) {
            0 => MemoryState::Ample,
            1 => MemoryState::Short,
            _ => MemoryState::Spent,
        }
    }

    /// So much is used now. Tells whoever was the first to find that it stands otherwise than before how it does.
    fn note(&self, used: u64) -> Option<(MemoryState, MemoryState)> {
        self.used.store(used, Ordering::Relaxed);
        let before = self.state();
        let after = next_state(before, used, self.bytes_max);
        let is_first = before != after
            && self
                .state
                .compare_exchange(before as u8, after as u8, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok();
        is_first.then_some((before, after))
    }
}

/// A state is left a sixteenth of the budget below where it is entered, so that it does not change all the time.
const fn next_state(before: MemoryState, used: u64, bytes_max: u64) -> MemoryState {
    let (eighth, sixteenth) = (bytes_max / 8, bytes_max / 16);
    let spent_from = match before {
        MemoryState::Spent => bytes_max - sixteenth,
        _ => bytes_max,
    };
    let short_from = match before {
        MemoryState::Ample => bytes_max - eighth,
        _ => bytes_max - eighth - sixteenth,
    };
    if used >= spent_from {
        MemoryState::Spent
    } else if used >= short_from {
        MemoryState::Short
    } else {
        MemoryState::Ample
    }
}

impl Broker {
    /// While memory is used up no topic gets a retained message that is larger than the one it has.
    fn bound_retained(&self) {
        let own = self.options.retained;
        let mut retained = write(&self.retained);
        // How it stands now, not when somebody noticed: of two workers the later may come here first.
        let limits = match self.memory.state() {
            MemoryState::Spent => RetainedLimits {
                messages_max: own.messages_max.min(retained.len()),
                bytes_max: own.bytes_max.min(retained.bytes()),
            },
            _ => own,
        };
        retained.set_limits(limits);
    }
}

impl Worker {
    /// The process uses so many bytes of memory now. True when this worker has changed its ways: its driver sees who was touched.
    pub fn note_memory(&mut self, used: u64) -> bool {
        self.metrics().memory_bytes.set(used);
        if let Some((before, after)) = self.broker.memory.note(used) {
            self.broker.bound_retained();
            if after > before {
                self.metrics().limit_memory.increment();
            }
            let budget = self.broker.memory.bytes_max;
            match after {
                MemoryState::Ample => info!(used, budget, "there is enough memory again (limits.memory_max)"),
                MemoryState::Short => warn!(
                    used,
                    budget,
                    "memory is short (limits.memory_max): messages at QoS 0 wait for nobody, queues that are on disk leave memory"
                ),
                MemoryState::Spent => warn!(
                    used,
                    budget,
                    "memory is used up (limits.memory_max): what would have to be kept is refused to its publishers; \
                     no new sessions, subscriptions and retained messages"
                ),
            }
        }
        self.see_to_memory()
    }

    /// Does what follows from how memory stands, if that has changed.
    fn see_to_memory(&mut self) -> bool {
        let memory = self.broker.memory.state();
        if self.residents.options.outbox.memory == memory {
            return false;
        }
        let own = &self.broker.options.delivery;
        let share = own.memory_total_max / self.broker.mailboxes.workers();
        self.residents.set_memory(memory, own, share);
        true
    }

    /// True while nothing new is kept.
    #[inline]
    pub(super) fn is_memory_spent(&self) -> bool {
        self.residents.options.outbox.memory == MemoryState::Spent
    }

    /// While memory is used up: true when this publication is one that would have to be kept, by a receiver that is away or slow, or as
    /// retained. Where another policy than to refuse was asked for, the queues see to it.
    pub(super) fn lacks_memory(&mut self, publication: &Publication<'_>) -> bool {
        if !self.is_memory_spent() {
            return false;
        }
        let options = &self.broker.options;
        if publication.qos == QoS::ExactlyOnce && options.qos2_delivery == Qos2Delivery::Release {
            return true; // kept until it is released, whoever reads
        }
        if publication.retain && !publication.payload.is_empty() {
            let retained = read(&self.broker.retained);
            let old = retained.get(publication.topic).map_or(0, |old| old.payload().len());
            if publication.payload.len() > old {
                return true;
            }
        }
        if options.delivery.outbox.overflow != Overflow::Refuse {
            return false;
        }
        let broker = &self.broker;
        let matched = self.cache.resolve(publication.topic, || {
            read(&broker.subscriptions).matches(publication.topic)
        });
        let must_be_kept = |receiver: &Receiver| {
            receiver.qos > QoS::AtMostOnce && (!receiver.status.is_online() || receiver.status.is_full())
        };
        matched.receivers().any(must_be_kept)
            || matched
                .groups
                .iter()
                .any(|group| !group.members().is_empty() && group.members().iter().all(must_be_kept))
    }
}

#[cfg(test)]
mod tests;
