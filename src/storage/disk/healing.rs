//! What the engine does when it cannot write, and how it heals.
//!
//! A write or a sync that failed is final for its segment: nobody knows what it holds. Memory has the truth, so healing is a new segment and
//! a snapshot of everything; when that is on the device, and there is room for more, all is well again.

use std::io;

use super::block::FileName;
use super::engine::{Engine, Next};
use super::jobs::Job;
use super::options::FullPolicy;
use super::status::count;
use crate::protocol::ids::WorkerId;
use crate::protocol::time::Time;
use crate::storage::Standing;

const FIRST_TRY_MILLIS: u64 = 1000;
const TRY_MILLIS_MAX: u64 = 10_000;
const WARN_MILLIS: u64 = 60_000;

/// It cannot write.
#[derive(Debug)]
pub(super) struct Failure {
    since: Time,
    /// A snapshot of everything is being made.
    is_healing: bool,
    next_try: Time,
    delay: u64,
    next_warning: Time,
    /// Something was dropped since the last try: what is to be kept may be less now, since clients have taken it.
    has_changed: bool,
}

impl Failure {
    /// A batch was dropped.
    pub(super) fn change(&mut self) {
        self.has_changed = true;
    }

    /// True while a snapshot of everything is being made.
    pub(super) const fn is_healing(&self) -> bool {
        self.is_healing
    }

    /// When to look again.
    pub(super) fn wake(&self) -> Time {
        if self.is_healing {
            self.next_warning
        } else {
            self.next_try.min(self.next_warning)
        }
    }
}

impl Engine {
    /// Something failed that everything behind it depends on.
    pub(super) fn fail(&mut self, what: &'static str, error: &io::Error) {
        count(&self.status.failures, 1);
        if self.failure.is_some() {
            self.heal_failed(error);
            return;
        }
        if let Some((name, bytes)) = self.log.abandon() {
            self.present.insert(name, bytes);
        }
        self.forget_syncs();
        self.drop_snapshot();
        let now = self.now.time;
        self.failure = Some(Failure {
            since: now,
            is_healing: false,
            next_try: now.plus_millis(FIRST_TRY_MILLIS),
            delay: FIRST_TRY_MILLIS,
            next_warning: now.plus_millis(WARN_MILLIS),
            has_changed: false,
        });
        let directory = self.files.directory();
        match self.options.on_full {
            FullPolicy::Refuse => {
                self.status.stand(Standing::Refusing);
                tracing::error!(%directory, what, %error, "the store cannot write: messages that must survive are refused until it can. See to the device and its free space; it heals by itself");
            }
            FullPolicy::Forget => {
                self.status.stand(Standing::Forgetting);
                tracing::error!(%directory, what, %error, "the store cannot write: what is accepted now is kept in memory only, and lost if the broker stops. See to the device and its free space; it heals by itself");
            }
        }
    }

    /// A segment for later could not be made. The log goes on in the one it has.
    pub(super) fn not_prepared(&mut self, error: &io::Error) {
        if self.failure.is_some() {
            self.heal_failed(error);
        } else {
            tracing::warn!(directory = %self.files.directory(), %error, "the store cannot make a new file: it goes on in the one it has, which grows. See to free space and to the rights of the directory");
        }
    }

    /// A try was in vain; the next one is later.
    pub(super) fn heal_failed(&mut self, error: &io::Error) {
        // The snapshot first: without the log behind it, it is not to be read.
        self.drop_snapshot();
        if let Some((name, bytes)) = self.log.abandon() {
            if self.present.contains_key(&FileName::snapshot(name.number)) {
                // It has taken the place of everything else already, and needs this log.
                self.present.insert(name, bytes);
            } else {
                // What is in it is behind something that is missing, and was told to nobody.
                self.jobs.give(Job::Tidy {
                    remove: vec![name.text()],
                    quarantine: Vec::new(),
                });
            }
        }
        self.forget_syncs();
        let now = self.now.time;
        if let Some(failure) = &mut self.failure {
            failure.is_healing = false;
            failure.delay = (failure.delay * 2).min(TRY_MILLIS_MAX);
            failure.next_try = now.plus_millis(failure.delay);
            tracing::debug!(directory = %self.files.directory(), %error, next_try_ms = failure.delay, "the store still cannot write");
        }
    }

    /// Tries to heal when it is time, and says each minute how things are.
    pub(super) fn tick_failure(&mut self) {
        let now = self.now.time;
        let Some(failure) = &mut self.failure else {
            return;
        };
        if now >= failure.next_warning {
            failure.next_warning = now.plus_millis(WARN_MILLIS);
            let (directory, seconds) = (self.files.directory(), now.millis_since(failure.since) / 1000);
            match self.options.on_full {
                FullPolicy::Refuse => {
                    tracing::warn!(%directory, seconds, "the store still cannot write: messages that must survive are refused");
                }
                FullPolicy::Forget => {
                    tracing::warn!(%directory, seconds, "the store still cannot write: what was accepted meanwhile is lost if the broker stops");
                }
            }
        }
        if failure.is_healing || now < failure.next_try || self.is_closed {
            return;
        }
        if matches!(self.next, Next::Asked) {
            return;
        }
        if let Err(error) = self.is_room_to_heal() {
            self.heal_failed(&error);
        } else if self.rotate() {
            if let Some(failure) = &mut self.failure {
                failure.is_healing = true;
                failure.has_changed = false;
            }
            self.begin_snapshot();
        } else {
            self.prepare_to_heal();
        }
    }

    /// A try makes sense when there is room for a snapshot now, and for the reserve when what it replaces is gone. How large it will be
    /// only the last one can tell; where something has changed since, less may do.
    fn is_room_to_heal(&self) -> io::Result<()> {
        let Ok(free) = self.files.free_bytes() else {
            return Ok(()); // trying will tell
        };
        let snapshot = self.compaction.last_bytes;
        let old: u64 = self.present.values().sum();
        let has_changed = self.failure.as_ref().is_some_and(|failure| failure.has_changed);
        let is_likely = free >= snapshot && free + old >= self.options.reserve + snapshot;
        if is_likely || (has_changed && free + old >= self.options.reserve) {
            Ok(())
        } else {
            Err(io::Error::from(io::ErrorKind::StorageFull))
        }
    }

    /// What the last snapshot replaced is gone.
    pub(super) fn tidied(&mut self) {
        let is_healed = self.failure.as_ref().is_some_and(Failure::is_healing) && !self.has_snapshot();
        if !is_healed || self.is_closed {
            return; // what was removed is a snapshot that was given up
        }
        match self.files.free_bytes() {
            Ok(free) if free < self.options.reserve => self.heal_failed(&io::Error::from(io::ErrorKind::StorageFull)),
            _ => self.healed(),
        }
    }

    fn healed(&mut self) {
        // What came while the snapshot was made is in the log behind it.
        self.flush();
        if self.log.segment_name().is_none() {
            return; // that failed, and with it the try
        }
        let Some(failure) = self.failure.take() else {
            return;
        };
        self.log.healed();
        self.status.stand(Standing::Sound);
        for (at, progress) in self.workers.iter_mut().enumerate() {
            if progress.submitted > 0 {
                progress.stored = progress.submitted;
                self.events.stored(WorkerId(at as u16), progress.submitted);
            }
        }
        tracing::info!(
            directory = %self.files.directory(),
            seconds = self.now.time.millis_since(failure.since) / 1000,
            "the store writes again, and everything is in it"
        );
    }
}
