//! What other workers may know of a session's queue, and how many of them are so long that publishers should wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crossbeam_utils::CachePadded;

use super::outbox::OutboxOptions;
use super::residents::Resident;

/// Sessions of all workers whose queues are above their marks, and whose clients are there: nobody waits for who is away.
#[derive(Debug, Default)]
pub struct Congestion {
    sessions: Arc<CachePadded<AtomicUsize>>,
    /// One of this worker was above its mark since this was set to false.
    pub is_new: bool,
}

impl Congestion {
    /// The same count, for another worker.
    pub fn share(&self) -> Self {
        Self {
            sessions: Arc::clone(&self.sessions),
            is_new: false,
        }
    }

    /// True while there is one.
    #[inline]
    pub fn is_any(&self) -> bool {
        self.sessions.load(Ordering::Relaxed) > 0
    }

    /// A session that is removed counts no more.
    pub(super) fn forget(&mut self, resident: &Resident) {
        self.tell(resident, false);
    }

    fn tell(&mut self, resident: &Resident, is_above: bool) {
        let status = &resident.session.status;
        if !is_above && !status.is_above_mark() {
            return; // then it does not count, either
        }
        status.set_above_mark(is_above);
        let counts = is_above && status.is_online();
        if status.counts_as_slow() == counts {
            return;
        }
        status.set_counts_as_slow(counts);
        if counts {
            self.is_new = true;
            self.sessions.fetch_add(1, Ordering::Relaxed);
        } else {
            self.sessions.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// Lets other workers know how a session stands.
pub fn tell_status(resident: &Resident, options: &OutboxOptions, congestion: &mut Congestion) {
    let (session, outbox) = (&resident.session, &resident.outbox);
    let waiting = usize::from(session.outbound.in_flight()) + outbox.len();
    session.status.set_in_flight(waiting as u32);
    session.status.set_full(outbox.is_full(options));
    let is_above =
        outbox.is_above_mark(options) || (session.status.is_above_mark() && outbox.stays_above_mark(options));
    congestion.tell(resident, is_above && session.is_persistent());
}
