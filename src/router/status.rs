//! What other workers may know of a session.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use crate::protocol::ids::SessionNumber;

/// The state of a session that other workers read without asking its owner. Only the owning worker writes it; a reader may see
/// it a moment late, so it guides choices and decides none.
#[derive(Debug, Default)]
pub struct SessionStatus {
    online: AtomicBool,
    full: AtomicBool,
    above_mark: AtomicBool,
    counts_as_slow: AtomicBool,
    in_flight: AtomicU32,
    number: AtomicU64,
}

impl SessionStatus {
    /// The status of a session as it starts.
    pub fn new(is_online: bool) -> Self {
        Self {
            online: AtomicBool::new(is_online),
            ..Self::default()
        }
    }

    /// True while a connection drives the session.
    #[inline]
    pub fn is_online(&self) -> bool {
        self.online.load(Ordering::Relaxed)
    }

    /// True while the session's outbox is at its hard limit.
    #[inline]
    pub fn is_full(&self) -> bool {
        self.full.load(Ordering::Relaxed)
    }

    /// True while its publishers should wait: it is kept, and its queue is nearly as long as it may be.
    #[inline]
    pub fn is_above_mark(&self) -> bool {
        self.above_mark.load(Ordering::Relaxed)
    }

    /// By the owner: the queue is above its mark, or no more.
    #[inline]
    pub fn set_above_mark(&self, is_above: bool) {
        self.above_mark.store(is_above, Ordering::Relaxed);
    }

    /// For the owner: the session is one of those that publishers may have to wait for.
    #[inline]
    pub fn counts_as_slow(&self) -> bool {
        self.counts_as_slow.load(Ordering::Relaxed)
    }

    /// By the owner: it is above its mark with its client there, or no more.
    #[inline]
    pub fn set_counts_as_slow(&self, counts: bool) {
        self.counts_as_slow.store(counts, Ordering::Relaxed);
    }

    /// Messages sent to the client and not acknowledged, plus those that wait in the outbox.
    #[inline]
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Its number in the store, if deliveries to it are to be kept there.
    #[inline]
    pub fn stored_number(&self) -> Option<SessionNumber> {
        SessionNumber::new(self.number.load(Ordering::Relaxed))
    }

    /// By the owner: deliveries to it are to be kept under that number, or not.
    #[inline]
    pub fn set_stored_number(&self, number: Option<SessionNumber>) {
        self.number
            .store(number.map_or(0, |number| number.0.get()), Ordering::Relaxed);
    }

    /// By the owner: a connection came or went.
    #[inline]
    pub fn set_online(&self, is_online: bool) {
        self.online.store(is_online, Ordering::Relaxed);
    }

    /// By the owner: the outbox reached or left its hard limit.
    #[inline]
    pub fn set_full(&self, is_full: bool) {
        self.full.store(is_full, Ordering::Relaxed);
    }

    /// By the owner: what is under way now.
    #[inline]
    pub fn set_in_flight(&self, messages: u32) {
        self.in_flight.store(messages, Ordering::Relaxed);
    }
}
