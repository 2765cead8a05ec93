//! The store's writer as a state machine: inputs and the time go in, calls to the broker and jobs come out. No thread, no clock.
//!
//! Each [`Engine::step`] takes everything that came meanwhile: batches become one write (and, with `always`, one sync), then the broker is
//! told, then there is a moment for a slice of a snapshot. `compaction.rs` has what it does about snapshots, `healing.rs` about failures.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use super::block::{BlockKind, FileHeader, FileName, StoreId};
use super::compaction::Compaction;
use super::files::Files;
use super::healing::Failure;
use super::index::Index;
use super::jobs::{Done, Job, Jobs, Tools};
use super::log::{Log, Note, Now, Segment};
use super::options::{DiskOptions, FullPolicy, SyncMode};
use super::recover::Recovered;
use super::status::{StoreStatus, count, set};
use crate::protocol::ids::{MessageNumber, SlotKey, WorkerId};
use crate::protocol::time::Time;
use crate::storage::{Batch, SnapshotId, SnapshotPart, StoreEvents};

/// Bytes that are written at once; more become several writes of one group.
const WRITE_BYTES: usize = 4 * 1024 * 1024;
/// Bytes written, or milliseconds gone, after which free space is looked at again.
const SPACE_CHECK_BYTES: u64 = 1024 * 1024;
const SPACE_CHECK_MILLIS: u64 = 1000;
/// The wall clock is looked at every so many milliseconds, and a jump of more than that is written down.
const WALL_CHECK_MILLIS: u64 = 10_000;
/// After a segment could not be made, the next try is so many milliseconds later.
const PREPARE_AGAIN_MILLIS: u64 = 10_000;

/// What comes to the engine.
#[derive(Debug)]
pub enum Input {
    /// See [`Store::submit`](crate::storage::Store::submit).
    Batch(WorkerId, Batch),
    /// See [`Store::submit_snapshot`](crate::storage::Store::submit_snapshot).
    Part(WorkerId, SnapshotId, SnapshotPart),
    /// See [`Store::load`](crate::storage::Store::load).
    Load(WorkerId, SlotKey, Vec<MessageNumber>),
    /// A job has ended.
    Done(Done),
    /// Make a snapshot as soon as may be.
    Compact,
    /// End: with a last snapshot, or as fast as may be.
    Close {
        /// The workers are there to take part in it.
        with_snapshot: bool,
    },
}

/// When to call [`Engine::step`] again although nothing comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wake {
    /// At once, with what came meanwhile.
    Now,
    /// At that moment.
    At(Time),
}

/// A segment for later.
#[derive(Debug, Default)]
pub(super) enum Next {
    #[default]
    None,
    Asked,
    Ready(Segment),
}

/// What has become of one worker's batches.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Progress {
    /// The last that came.
    pub(super) submitted: u64,
    /// The last that was told as stored.
    pub(super) stored: u64,
    /// The last that was told as failed.
    pub(super) failed: u64,
}

/// What an engine works with.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// Where files are.
    pub files: Arc<dyn Files>,
    /// What it counts.
    pub status: Arc<StoreStatus>,
    /// Which store this becomes if there is none yet: random.
    pub new_store: StoreId,
}

/// See the module's text.
pub struct Engine {
    pub(super) options: DiskOptions,
    pub(super) files: Arc<dyn Files>,
    pub(super) status: Arc<StoreStatus>,
    pub(super) events: Arc<dyn StoreEvents>,
    pub(super) jobs: Box<dyn Jobs>,
    pub(super) index: Arc<Mutex<Index>>,
    pub(super) store: StoreId,
    pub(super) now: Now,
    pub(super) log: Log,
    pub(super) next: Next,
    /// Number of the newest file.
    last_file: u64,
    prepare_not_before: Time,
    /// Files that are there, but for the current segment: bytes.
    pub(super) present: BTreeMap<FileName, u64>,
    pub(super) workers: Vec<Progress>,
    /// The worker that is told by the answer to its call.
    answers: Option<WorkerId>,
    notes: Vec<Note>,
    /// Counts up when syncs under way are of no interest any more.
    pub(super) generation: u64,
    is_syncing: bool,
    unsynced_since: Option<Time>,
    space_checked: Time,
    unchecked_bytes: u64,
    wall_checked: Time,
    pub(super) compaction: Compaction,
    pub(super) failure: Option<Failure>,
    pub(super) closing: Option<bool>,
    pub(super) is_closed: bool,
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("log", &self.log).finish_non_exhaustive()
    }
}

impl Engine {
    /// Goes on from what was recovered. Where that could not be put in order, or a first segment cannot be made, it starts as one that failed,
    /// and heals.
    pub fn new(
        options: DiskOptions,
        surroundings: Surroundings,
        recovered: Recovered,
        events: Arc<dyn StoreEvents>,
        jobs: impl FnOnce(Tools) -> Box<dyn Jobs>,
        now: Now,
    ) -> Self {
        let Surroundings {
            files,
            status,
            new_store,
        } = surroundings;
        let store = recovered.store.unwrap_or(new_store);
        let index = Arc::new(Mutex::new(recovered.index));
        let tools = Tools {
            files: Arc::clone(&files),
            index: Arc::clone(&index),
            store,
            events: Arc::clone(&events),
        };
        set(&status.snapshot_bytes, recovered.snapshot_bytes);
        let workers = vec![Progress::default(); options.workers.into()];
        let mut engine = Self {
            compaction: Compaction::new(&recovered.report, recovered.last_block, recovered.snapshot_bytes),
            options,
            files,
            status,
            events,
            jobs: jobs(tools),
            index,
            store,
            now,
            log: Log::new(recovered.last_block, recovered.stamp.unwrap_or((now.time, now.wall))),
            next: Next::None,
            last_file: recovered.last_file,
            prepare_not_before: Time::default(),
            present: recovered.present,
            workers,
            answers: None,
            notes: Vec::new(),
            generation: 0,
            is_syncing: false,
            unsynced_since: None,
            space_checked: now.time,
            unchecked_bytes: 0,
            wall_checked: now.time,
            failure: None,
            closing: None,
            is_closed: false,
        };
        engine.begin_log(recovered.unrepaired);
        if engine.compaction.wants {
            // What was found on the device over damage is told to be there, so that it counts again if the power goes before the snapshot is made.
            engine.log.put_mark(BlockKind::Stamp, now);
        }
        engine
    }

    fn begin_log(&mut self, unrepaired: Option<io::Error>) {
        if let Some(error) = unrepaired {
            // What is left of a torn tail is behind what was read: only a snapshot of everything can stand for it.
            self.fail("putting in order what was found", &error);
            return;
        }
        let header = self.next_header();
        match Segment::create(&*self.files, header) {
            Ok(segment) => _ = self.log.rotate(segment),
            Err(error) => self.fail("making the first segment", &error),
        }
    }

    /// Takes what came, and does what is due.
    pub fn step(&mut self, inputs: &mut Vec<Input>, now: Now) {
        self.begin_step(now);
        let mut loads = Vec::new();
        for input in inputs.drain(..) {
            match input {
                Input::Batch(worker, batch) => {
                    self.take_batch(worker, &batch, Log::put_batch);
                    if self.log.buffered() >= WRITE_BYTES {
                        self.write(&[]);
                    }
                }
                Input::Part(worker, id, part) => self.take_part(worker, id, part),
                Input::Load(to, session, messages) => loads.push(Job::Load { to, session, messages }),
                Input::Done(done) => self.take_done(done),
                Input::Compact => self.compaction.wants = true,
                Input::Close { with_snapshot } => {
                    self.closing = Some(with_snapshot);
                    self.compaction.not_before = Time::default();
                }
            }
        }
        self.flush();
        self.tell();
        // What is asked for may be in a batch that has just been written.
        for load in loads {
            self.jobs.give(load);
        }
        self.tick();
        self.step_close();
        self.step_snapshot();
    }

    /// Takes a batch of a worker that waits for the answer: the number up to which its batches are stored, or `None` when they are not for now.
    pub fn step_with(&mut self, from: WorkerId, batch: &Batch, now: Now) -> Option<u64> {
        self.begin_step(now);
        // Its body is written from where it is.
        let is_put = self.take_batch(from, batch, Log::put_batch_header);
        self.answers = Some(from);
        self.flush_with(if is_put { &batch.bytes } else { &[] });
        self.tell();
        self.answers = None;
        self.tick();
        // A snapshot is work for who has time.
        self.want_snapshot();
        let progress = self.workers[usize::from(from.0)];
        (progress.stored == batch.number).then_some(progress.stored)
    }

    fn begin_step(&mut self, now: Now) {
        self.now = Now {
            time: now.time.max(self.now.time),
            wall: now.wall,
        };
    }

    /// When it is to be called again although nothing comes.
    pub fn wake(&self) -> Wake {
        if self.compaction.has_more {
            return Wake::Now;
        }
        let mut at = self.wall_checked.plus_millis(WALL_CHECK_MILLIS);
        if let (SyncMode::Interval, false, Some(since)) = (self.options.sync, self.is_syncing, self.unsynced_since) {
            at = at.min(since.plus_millis(self.options.sync_interval));
        }
        if let Some(failure) = &self.failure {
            at = at.min(failure.wake());
        } else if self.compaction.wants {
            let try_at = self.compaction.not_before.max(self.prepare_not_before);
            at = at.min(try_at.max(self.now.time.plus_millis(1)));
        }
        Wake::At(at)
    }

    /// True when a snapshot that is being made is waited for: to end, to heal, because there is soon no room, or because the log grows
    /// faster than it.
    pub fn is_hurried(&self) -> bool {
        let is_outrun = self.log_bytes() > self.compaction.began_at_bytes.saturating_add(self.log_limit());
        self.closing.is_some() || self.failure.is_some() || self.compaction.is_short_of_room || is_outrun
    }

    /// True when it was closed: nothing more will be written.
    pub const fn is_closed(&self) -> bool {
        self.is_closed
    }

    /// True while [`Engine::step_with`] takes no longer than a write to memory: nothing fails, and the log is not being brought to the device.
    pub fn is_calm(&self) -> bool {
        self.options.sync != SyncMode::Always
            && !self.is_syncing
            && self.failure.is_none()
            && self.closing.is_none()
            && !self.is_closed
    }

    /// False where it is not in the log then.
    fn take_batch(
        &mut self,
        worker: WorkerId,
        batch: &Batch,
        put: impl FnOnce(&mut Log, WorkerId, &Batch, Now) -> io::Result<()>,
    ) -> bool {
        let at = usize::from(worker.0);
        if at >= self.workers.len() {
            self.workers.resize(at + 1, Progress::default());
        }
        self.workers[at].submitted = batch.number;
        if self.log.segment_name().is_none() || self.is_closed {
            self.log.skip();
            count(&self.status.dropped, 1);
            if let Some(failure) = &mut self.failure {
                failure.change();
            }
            return false;
        }
        if let Err(error) = put(&mut self.log, worker, batch, self.now) {
            self.fail("a batch", &error);
            return false;
        }
        self.compaction.changes += u64::from(batch.records);
        count(&self.status.batches, 1);
        count(&self.status.records, batch.records.into());
        true
    }

    fn take_done(&mut self, done: Done) {
        match done {
            Done::LogSynced(generation, result) if generation == self.generation => {
                self.is_syncing = false;
                match result {
                    Ok(up_to) => self.log.synced(up_to),
                    Err(error) => self.fail("a sync", &error),
                }
            }
            Done::LogSynced(..) => {}
            Done::Prepared(Ok(segment)) => self.next = Next::Ready(segment),
            Done::Prepared(Err(error)) => {
                self.next = Next::None;
                self.prepare_not_before = self.now.time.plus_millis(PREPARE_AGAIN_MILLIS);
                self.not_prepared(&error);
            }
            other => self.take_snapshot_done(other),
        }
    }

    /// Writes what was put and, where it has to be, brings it to the device.
    pub(super) fn flush(&mut self) {
        self.flush_with(&[]);
    }

    /// Writes what waits, and behind it the body of the batch whose header was put last, if it is not among that.
    fn flush_with(&mut self, body: &[u8]) {
        self.write(body);
        if self.options.sync == SyncMode::Always && self.log.has_unsynced() {
            self.sync_here();
        }
        if self.failure.is_none() && self.log.segment_bytes() >= self.options.segment_size / 2 {
            self.prepare();
        }
        if self.log.segment_bytes() >= self.options.segment_size && matches!(self.next, Next::Ready(_)) {
            self.rotate();
        }
    }

    fn write(&mut self, body: &[u8]) {
        let bytes = (self.log.buffered() + body.len()) as u64;
        if bytes == 0 {
            return;
        }
        if let Err(error) = self.check_space(bytes) {
            self.fail("looking for free space", &error);
            return;
        }
        match self.log.write(body, &mut self.notes) {
            Ok(bytes) => {
                count(&self.status.bytes, bytes);
                count(&self.status.groups, 1);
                self.unsynced_since.get_or_insert(self.now.time);
                let mut index = self.index.lock().unwrap_or_else(PoisonError::into_inner);
                for (file, offset, numbers) in self.notes.drain(..) {
                    index.note(file, offset, numbers);
                }
            }
            Err(error) => self.fail("a write", &error),
        }
    }

    /// A device that is nearly full counts as full: what is left is for healing. So while it heals, it is not looked at.
    fn check_space(&mut self, bytes: u64) -> io::Result<()> {
        let reserve = self.options.reserve;
        self.unchecked_bytes += bytes;
        let is_due = self.unchecked_bytes >= SPACE_CHECK_BYTES.min(reserve / 4)
            || self.now.time.millis_since(self.space_checked) >= SPACE_CHECK_MILLIS;
        if self.failure.is_some() || reserve == 0 || !is_due {
            return Ok(());
        }
        self.space_checked = self.now.time;
        self.unchecked_bytes = 0;
        let Ok(free) = self.files.free_bytes() else {
            return Ok(()); // writing will tell
        };
        if free < reserve.saturating_add(bytes) {
            let text = format!("{free} bytes are free, and storage.reserve is {reserve}");
            return Err(io::Error::new(io::ErrorKind::StorageFull, text));
        }
        self.compact_before_full(free);
        Ok(())
    }

    /// Brings the log to the device while everybody waits.
    pub(super) fn sync_here(&mut self) {
        let begin = Instant::now();
        match self.log.sync_job().run() {
            Ok(up_to) => self.log.synced(up_to),
            Err(error) => self.fail("a sync", &error),
        }
        self.unsynced_since = None;
        count(&self.status.syncs, 1);
        count(&self.status.sync_micros, begin.elapsed().as_micros() as u64);
    }

    /// Has the log brought to the device while the broker goes on.
    pub(super) fn sync_beside(&mut self) {
        if !self.is_syncing && self.log.has_unsynced() {
            self.is_syncing = true;
            self.unsynced_since = None;
            count(&self.status.syncs, 1);
            let job = Job::SyncLog(self.generation, self.log.sync_job());
            self.jobs.give(job);
        }
    }

    /// Syncs that are under way are of no interest any more.
    pub(super) fn forget_syncs(&mut self) {
        self.generation += 1;
        self.is_syncing = false;
        self.unsynced_since = None;
    }

    /// Tells each worker what has become of its batches.
    fn tell(&mut self) {
        let is_kept = match (&self.failure, self.options.on_full) {
            (None, _) | (Some(_), FullPolicy::Forget) => true,
            (Some(_), FullPolicy::Refuse) => false,
        };
        for (at, progress) in self.workers.iter_mut().enumerate() {
            let worker = WorkerId(at as u16); // there are no more than that
            if progress.submitted <= progress.stored {
                continue;
            }
            if is_kept {
                progress.stored = progress.submitted;
                if self.answers != Some(worker) {
                    self.events.stored(worker, progress.submitted);
                }
            } else if progress.submitted > progress.failed {
                progress.failed = progress.submitted;
                self.events.failed(worker, progress.submitted);
            }
        }
    }

    fn tick(&mut self) {
        let now = self.now.time;
        if let (SyncMode::Interval, Some(since)) = (self.options.sync, self.unsynced_since)
            && now.millis_since(since) >= self.options.sync_interval
        {
            self.sync_beside();
        }
        if now.millis_since(self.wall_checked) >= WALL_CHECK_MILLIS {
            self.wall_checked = now;
            if self.failure.is_none() && !self.is_closed && self.log.jump(self.now) > WALL_CHECK_MILLIS {
                self.log.put_mark(BlockKind::Stamp, self.now);
                self.flush();
            }
        }
        self.tick_failure();
        set(&self.status.log_bytes, self.log_bytes());
    }

    /// Bytes of the log.
    pub(super) fn log_bytes(&self) -> u64 {
        let finished: u64 = self
            .present
            .range(FileName::segment(0)..FileName::snapshot(0))
            .map(|file| file.1)
            .sum();
        finished + self.log.segment_bytes()
    }

    /// Has a segment made to heal with, whatever was in vain before.
    pub(super) fn prepare_to_heal(&mut self) {
        self.prepare_not_before = Time::default();
        self.prepare();
    }

    /// Has a segment made for later.
    pub(super) fn prepare(&mut self) {
        if matches!(self.next, Next::None) && self.now.time >= self.prepare_not_before {
            self.next = Next::Asked;
            let header = self.next_header();
            self.jobs.give(Job::Prepare(header));
        }
    }

    fn next_header(&mut self) -> FileHeader {
        self.last_file += 1;
        self.header(FileName::segment(self.last_file))
    }

    /// The header of a file of this store.
    pub(super) const fn header(&self, name: FileName) -> FileHeader {
        FileHeader {
            name,
            store: self.store,
            created: self.now.wall,
        }
    }

    /// Goes on in the segment that was made for later, if there is one.
    pub(super) fn rotate(&mut self) -> bool {
        let Next::Ready(segment) = std::mem::take(&mut self.next) else {
            return false;
        };
        if let Some((name, bytes)) = self.log.rotate(segment) {
            self.present.insert(name, bytes);
            if self.options.sync == SyncMode::Os {
                self.sync_beside();
            }
        }
        true
    }

    /// Ends, as soon as the last snapshot is made.
    fn step_close(&mut self) {
        let Some(with_snapshot) = self.closing else {
            return;
        };
        if self.is_closed {
            return;
        }
        if let Some(failure) = &self.failure {
            if with_snapshot && failure.is_healing() {
                return; // everything may be in it in a moment
            }
            tracing::warn!(directory = %self.files.directory(), "the store is closed while it cannot write: what came since it failed is lost");
        } else if with_snapshot && self.compaction.is_needed_to_close() {
            self.compaction.wants = true;
            return;
        } else if self.log.last_block() > self.compaction.blocks_at_start {
            self.log.put_mark(BlockKind::CleanEnd, self.now);
            self.flush();
            self.sync_here();
        }
        self.drop_snapshot();
        self.is_closed = true;
    }
}
