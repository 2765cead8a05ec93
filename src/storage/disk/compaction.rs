//! When a snapshot is made, and what it replaces.

use std::io;
use std::sync::PoisonError;

use super::block::{FileKind, FileName};
use super::engine::Engine;
use super::jobs::{Done, Job};
use super::recover::Report;
use super::snapshot::{Need, Snapshot, temporary};
use super::status::{count, set};
use crate::protocol::ids::WorkerId;
use crate::protocol::time::Time;
use crate::storage::{SnapshotId, SnapshotPart};

/// After a snapshot could not be made, the next try is so many milliseconds later.
const AGAIN_MILLIS: u64 = 10_000;
/// Under load that fills the log at once, a snapshot begins so many milliseconds after the last one began, unless the log has become
/// [`LOG_TIMES_MAX`] times as large as it should be: each costs two syncs, and writes to the device what will be removed in a moment.
const SPACING_MILLIS: u64 = 1000;
/// See [`SPACING_MILLIS`].
const LOG_TIMES_MAX: u64 = 4;

/// What the engine knows about snapshots.
#[derive(Debug)]
pub(super) struct Compaction {
    /// One is to be made.
    pub(super) wants: bool,
    /// Not before.
    pub(super) not_before: Time,
    /// The one that is being made.
    snapshot: Option<Snapshot>,
    /// It has something to do at once.
    pub(super) has_more: bool,
    /// It is complete, and waits until the log is on the device up to this block.
    finishing: Option<u64>,
    is_publishing: bool,
    /// Files are being removed.
    is_tidying: bool,
    /// Records since the last snapshot began.
    pub(super) changes: u64,
    /// The log's last block when the store was opened.
    pub(super) blocks_at_start: u64,
    /// Bytes of the last one.
    pub(super) last_bytes: u64,
    /// Files that are put aside, not removed, when a snapshot has taken their place.
    damaged: Vec<String>,
    /// The last one that was begun.
    last_id: SnapshotId,
    began: Time,
    /// Bytes of the log then.
    pub(super) began_at_bytes: u64,
    /// There is soon no room left, and the next one makes some.
    pub(super) is_short_of_room: bool,
}

impl Compaction {
    pub(super) fn new(report: &Report, last_block: u64, last_bytes: u64) -> Self {
        Self {
            // What is damaged is put aside as soon as there is something in its place.
            wants: !report.damaged.is_empty(),
            not_before: Time::default(),
            snapshot: None,
            has_more: false,
            finishing: None,
            is_publishing: false,
            is_tidying: false,
            changes: report.replayed,
            blocks_at_start: last_block,
            last_bytes,
            damaged: report.damaged.clone(),
            last_id: 0,
            began: Time::default(),
            began_at_bytes: 0,
            is_short_of_room: false,
        }
    }

    /// True when a next start would have something to replay.
    pub(super) const fn is_needed_to_close(&self) -> bool {
        self.changes > 0 || self.snapshot.is_some() || self.is_tidying
    }
}

impl Engine {
    /// True while one is being made.
    pub(super) const fn has_snapshot(&self) -> bool {
        self.compaction.snapshot.is_some()
    }

    pub(super) fn take_part(&mut self, worker: WorkerId, id: SnapshotId, part: SnapshotPart) {
        match &mut self.compaction.snapshot {
            Some(snapshot) if snapshot.id() == id => snapshot.part(worker, part),
            _ => {} // of one that was given up
        }
    }

    pub(super) fn take_snapshot_done(&mut self, done: Done) {
        let current = self.compaction.snapshot.as_ref().map(Snapshot::id);
        match done {
            Done::SnapshotSynced(id, result) if Some(id) == current => match (result, &mut self.compaction.snapshot) {
                (Ok(()), Some(snapshot)) => snapshot.synced(),
                (Err(error), _) => self.snapshot_failed(&error),
                (Ok(()), None) => {}
            },
            Done::Copied {
                snapshot: id,
                bytes,
                rest,
                missing,
            } if Some(id) == current => self.take_copied(&bytes, rest, missing),
            Done::Published(id, result) if Some(id) == current => match result {
                Ok(()) => self.snapshot_published(),
                Err(error) => self.snapshot_failed(&error),
            },
            Done::Tidied(errors) => {
                self.compaction.is_tidying = false;
                for (name, error) in errors {
                    tracing::warn!(directory = %self.files.directory(), file = %name, %error, "a file of the store that is not needed any more could not be removed: remove it when the broker is stopped");
                }
                self.tidied();
            }
            _ => {}
        }
    }

    fn take_copied(&mut self, bytes: &[u8], rest: Vec<crate::protocol::ids::MessageNumber>, missing: usize) {
        if missing > 0 {
            count(&self.status.missing, missing as u64);
            tracing::error!(directory = %self.files.directory(), missing, "messages that were in the store cannot be read any more: they are lost");
        }
        let stamp = self.log.stamp(self.now);
        let result = self
            .compaction
            .snapshot
            .as_mut()
            .map_or(Ok(()), |snapshot| snapshot.copied(bytes, rest, stamp));
        if let Err(error) = result {
            self.snapshot_failed(&error);
        }
    }

    /// Makes a snapshot early where there will soon be no room for one, and the log is what takes it.
    pub(super) fn compact_before_full(&mut self, free: u64) {
        let snapshot = self.compaction.last_bytes;
        if free < 2 * (self.options.reserve + snapshot) && self.log_bytes() > snapshot.max(self.options.reserve) {
            self.compaction.wants = true;
            self.compaction.is_short_of_room = true;
        }
    }

    /// Bytes of the log at which a snapshot is due.
    pub(super) fn log_limit(&self) -> u64 {
        self.options.snapshot_after.max(self.compaction.last_bytes)
    }

    /// Sees whether the log has grown so much that a snapshot is due; false while one cannot begin.
    pub(super) fn want_snapshot(&mut self) -> bool {
        let may_begin = self.compaction.snapshot.is_none() && self.failure.is_none() && !self.is_closed;
        if may_begin {
            let (limit, bytes) = (self.log_limit(), self.log_bytes());
            let is_early = self.now.time.millis_since(self.compaction.began) < SPACING_MILLIS;
            let most = if is_early {
                limit.saturating_mul(LOG_TIMES_MAX)
            } else {
                limit
            };
            self.compaction.wants |= self.compaction.changes > 0 && bytes > most;
        }
        may_begin
    }

    /// Begins a snapshot when one is due, and goes on with it.
    pub(super) fn step_snapshot(&mut self) {
        if self.want_snapshot() {
            let is_due =
                self.compaction.wants && !self.compaction.is_tidying && self.now.time >= self.compaction.not_before;
            let segment = self.log.segment_name().map_or(0, |name| name.number);
            let is_at_start = self.log.is_at_start() && self.compaction.last_id != segment;
            if is_due && (is_at_start || self.rotate()) {
                self.begin_snapshot();
            } else if is_due {
                self.prepare();
            }
        }
        self.write_snapshot();
        self.publish_snapshot();
    }

    /// Begins one at the start of the current segment, which has no blocks yet.
    pub(super) fn begin_snapshot(&mut self) {
        let Some(segment) = self.log.segment_name() else {
            return;
        };
        self.compaction.last_id = segment.number;
        let header = self.header(FileName::snapshot(segment.number));
        let bytes = self.log_bytes();
        match Snapshot::create(&*self.files, header, self.log.last_block(), self.workers.len()) {
            Ok(snapshot) => {
                let compaction = &mut self.compaction;
                compaction.wants = false;
                compaction.changes = 0;
                compaction.began = self.now.time;
                compaction.began_at_bytes = bytes;
                compaction.snapshot = Some(snapshot);
                for worker in 0..self.workers.len() {
                    self.events.snapshot(WorkerId(worker as u16), segment.number);
                }
            }
            Err(error) => self.snapshot_failed(&error),
        }
    }

    fn write_snapshot(&mut self) {
        self.compaction.has_more = false;
        let stamp = self.log.stamp(self.now);
        let Some(snapshot) = &mut self.compaction.snapshot else {
            return;
        };
        let (id, result) = (snapshot.id(), snapshot.step(&*self.events, stamp));
        match result {
            Err(error) => self.snapshot_failed(&error),
            Ok(Need::Wait) => {}
            Ok(Need::More) => self.compaction.has_more = true,
            Ok(Need::Copy(messages)) => {
                self.compaction.has_more = true;
                self.jobs.give(Job::Copy(id, messages));
            }
            Ok(Need::Sync) => {
                let file = snapshot.file();
                self.compaction.has_more = true;
                self.jobs.give(Job::SyncSnapshot(id, file));
            }
            Ok(Need::Finish) => {
                let file = snapshot.file();
                self.compaction.finishing = Some(self.log.last_block());
                self.jobs.give(Job::SyncSnapshot(id, file));
            }
            Ok(Need::GiveUp) => {
                self.drop_snapshot();
                self.compaction.not_before = self.now.time.plus_millis(AGAIN_MILLIS);
                if self.failure.is_some() {
                    self.heal_failed(&io::Error::other("the broker has ended"));
                }
            }
        }
    }

    /// What a snapshot tells may be newer than its segment's begin, so it counts only together with the log up to its own end.
    fn publish_snapshot(&mut self) {
        let (Some(needed), Some(snapshot)) = (self.compaction.finishing, &self.compaction.snapshot) else {
            return;
        };
        if self.log.synced_up_to() < needed {
            self.sync_beside();
        } else if snapshot.is_safe() && !self.compaction.is_publishing {
            self.compaction.is_publishing = true;
            let job = Job::Publish(snapshot.id());
            self.jobs.give(job);
        }
    }

    fn snapshot_published(&mut self) {
        let Some(mut snapshot) = self.compaction.snapshot.take() else {
            return;
        };
        let name = snapshot.name();
        self.compaction.finishing = None;
        self.compaction.is_publishing = false;
        self.compaction.is_short_of_room = false;
        self.compaction.last_bytes = snapshot.bytes();
        count(&self.status.snapshots, 1);
        set(&self.status.snapshot_bytes, snapshot.bytes());
        self.index
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .replace(name, snapshot.take_index());
        let quarantine = std::mem::take(&mut self.compaction.damaged);
        let (kept, old): (Vec<_>, Vec<_>) = std::mem::take(&mut self.present)
            .into_iter()
            .partition(|(file, _)| file.number >= name.number);
        self.present = kept.into_iter().collect();
        self.present.insert(name, snapshot.bytes());
        let mut old: Vec<FileName> = old.into_iter().map(|file| file.0).collect();
        // Segments last and in order: what is left of them when the power goes is older than the snapshot.
        old.sort_unstable_by_key(|file| (file.kind == FileKind::Segment, file.number));
        let remove = old
            .into_iter()
            .map(FileName::text)
            .filter(|name| !quarantine.contains(name))
            .collect();
        for name in &quarantine {
            self.present.retain(|file, _| file.text() != *name);
            tracing::warn!(directory = %self.files.directory(), file = %name, "a damaged file is put into quarantine: a snapshot of what could be read has taken its place");
        }
        self.compaction.is_tidying = true;
        self.jobs.give(Job::Tidy { remove, quarantine });
        tracing::info!(
            snapshot = name.number,
            records = snapshot.records(),
            bytes = snapshot.bytes(),
            ms = self.now.time.millis_since(self.compaction.began),
            "snapshot made"
        );
    }

    pub(super) fn snapshot_failed(&mut self, error: &io::Error) {
        count(&self.status.snapshot_failures, 1);
        let is_healing = self.failure.is_some();
        if !is_healing {
            tracing::warn!(directory = %self.files.directory(), %error, "a snapshot could not be written, and is tried again; the log goes on and grows meanwhile: see to free space");
        }
        self.drop_snapshot();
        self.compaction.wants = true;
        self.compaction.not_before = self.now.time.plus_millis(AGAIN_MILLIS);
        if is_healing {
            self.heal_failed(error);
        }
    }

    /// Gives up a snapshot that is being made, also one that is just getting its name.
    pub(super) fn drop_snapshot(&mut self) {
        self.compaction.finishing = None;
        self.compaction.is_publishing = false;
        self.compaction.has_more = false;
        if let Some(snapshot) = self.compaction.snapshot.take() {
            self.compaction.changes += 1;
            self.jobs.give(Job::Tidy {
                remove: vec![temporary(snapshot.id()), snapshot.name().text()],
                quarantine: Vec::new(),
            });
            self.compaction.is_tidying = true;
        }
    }
}
