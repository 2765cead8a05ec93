//! What other workers may know of a session's queue, and how many of them are so long that publishers should wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::outbox::OutboxOptions;
use super::residents::Resident;

/// Sessions of all workers whose queues are above their marks.
#[derive(Debug, Default)]
pub struct Congestion {
    sessions: Arc<AtomicUsize>,
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
        if status.is_above_mark() == is_above {
            return;
        }
        status.set_above_mark(is_above);
        if is_above {
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
    congestion.tell(resident, session.is_persistent() && outbox.is_above_mark(options));
}
