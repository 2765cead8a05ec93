//! The store with threads and a clock: a writer, one thread for syncs, one for files, one that reads.

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::block::StoreId;
use super::engine::{Engine, Input, Surroundings};
use super::files::{Files, LockError, OsFiles};
use super::jobs::{Done, Job, Jobs, Lane, Tools};
use super::options::{DiskOptions, SyncMode};
use super::recover::{RecoverError, RecoverMode, Recovered, Report, Visitor, recover};
use super::status::StoreStatus;
use super::writer::{MustNotPanic, StoreClock, Writer, wall_millis};
use crate::protocol::ids::{MessageNumber, SlotKey, WorkerId};
use crate::protocol::message::Message;
use crate::protocol::time::Time;
use crate::storage::{Batch, SnapshotId, SnapshotPart, Standing, Store, StoreEvents, Stored};

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Its directory cannot be used.
    #[error("{directory}: {error}: choose another storage.directory, or give this user the right to write there")]
    Directory {
        /// Which.
        directory: String,
        /// What.
        error: io::Error,
    },
    /// Another broker has it.
    #[error("{directory}: {error}: stop it, or choose another storage.directory")]
    Lock {
        /// Which.
        directory: String,
        /// Who.
        error: LockError,
    },
    /// Its files cannot be read.
    #[error("{directory}: {error}")]
    Recover {
        /// Which.
        directory: String,
        /// What.
        error: RecoverError,
    },
}

/// What opening a store has told.
#[derive(Debug)]
pub struct Opened {
    /// What was found.
    pub report: Report,
    /// The broker's time at [`Opened::at`]: it goes on where the store's last block left off, plus what the wall clock says has gone by since.
    pub time: Time,
    /// When that was.
    pub at: Instant,
    /// How long reading took.
    pub took: Duration,
}

/// The store on disk.
///
/// Threads: `store` writes (see `writer.rs` for when a worker does), `store-sync` and `store-files` do what takes long and nobody waits for, `store-read` reads messages back.
/// They end with [`Store::close`], or when it is dropped.
#[derive(Debug)]
pub struct DiskStore {
    writer: Arc<Writer>,
    /// Nothing is brought to the device before it is told as stored.
    is_quick: bool,
    /// What the threads are started with.
    start: Mutex<Option<Start>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

#[derive(Debug)]
struct Start {
    options: DiskOptions,
    files: Arc<dyn Files>,
    recovered: Recovered,
}

impl DiskStore {
    /// Takes a directory, makes it if it is not there, and reads what is in it. Writes nothing yet but what a torn tail needs.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(
        directory: impl Into<PathBuf>,
        options: DiskOptions,
        mode: RecoverMode,
        visitor: &mut dyn Visitor,
    ) -> Result<(Self, Opened), OpenError> {
        Self::open_on(Arc::new(OsFiles::new(directory)), options, mode, visitor)
    }

    /// The same on any file system.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open_on(
        files: Arc<dyn Files>,
        options: DiskOptions,
        mode: RecoverMode,
        visitor: &mut dyn Visitor,
    ) -> Result<(Self, Opened), OpenError> {
        let directory = files.directory();
        files.create_directory().map_err(|error| OpenError::Directory {
            directory: directory.clone(),
            error,
        })?;
        let lock = files.lock().map_err(|error| match error {
            LockError::Io(error) => OpenError::Directory {
                directory: directory.clone(),
                error,
            },
            taken @ LockError::Taken { .. } => OpenError::Lock {
                directory: directory.clone(),
                error: taken,
            },
        })?;
        let begin = Instant::now();
        let recovered = recover(&*files, mode, visitor).map_err(|error| OpenError::Recover {
            directory: directory.clone(),
            error,
        })?;
        log_report(&directory, &recovered.report);
        let (at, wall) = (Instant::now(), wall_millis());
        let opened = Opened {
            report: recovered.report.clone(),
            time: recovered.time_at(wall),
            at,
            took: begin.elapsed(),
        };
        let clock = StoreClock { at, time: opened.time };
        let store = Self {
            writer: Arc::new(Writer::new(clock, options.waiting_max, lock)),
            is_quick: options.sync != SyncMode::Always,
            start: Mutex::new(Some(Start {
                options,
                files,
                recovered,
            })),
            threads: Mutex::default(),
        };
        Ok((store, opened))
    }

    /// Reads messages of a store that has been opened and not attached, in the order in which they are wanted; `None` for one that cannot be
    /// read.
    pub fn read(&self, wanted: &[MessageNumber]) -> Vec<(MessageNumber, Option<Arc<Message>>)> {
        let mut start = self.start.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(Start { files, recovered, .. }) = &mut *start else {
            return Vec::new();
        };
        recovered.read(&**files, wanted)
    }

    /// Counters.
    pub fn status(&self) -> &Arc<StoreStatus> {
        &self.writer.status
    }

    /// Ends it: with a snapshot if that can be made within `patience`. Everything that was submitted is on the device when this returns `true`.
    fn end(&self, with_snapshot: bool, patience: Duration) -> bool {
        if self.is_own_thread() {
            // The broker let go of it in a call of the store. Who waits here for the store's end waits for itself; it ends when the call has come back.
            self.writer.put(Input::Close { with_snapshot: false });
            return false;
        }
        self.writer.close(with_snapshot, patience, || self.is_running());
        for thread in std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner)) {
            _ = thread.join(); // a panic ends the process
        }
        self.writer.status.standing() == Standing::Sound
    }

    fn is_running(&self) -> bool {
        let threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        threads.first().is_some_and(|thread| !thread.is_finished())
    }

    fn is_own_thread(&self) -> bool {
        let current = thread::current().id();
        let threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        threads.iter().any(|thread| thread.thread().id() == current)
    }
}

impl Drop for DiskStore {
    fn drop(&mut self) {
        if self.is_running() {
            self.end(false, Duration::ZERO);
        }
    }
}

impl Store for DiskStore {
    fn keeps(&self) -> bool {
        true
    }

    fn attach(&self, events: Arc<dyn StoreEvents>) {
        let start = self.start.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(start) = start {
            let threads = start_threads(&self.writer, start, events);
            *self.threads.lock().unwrap_or_else(PoisonError::into_inner) = threads;
        }
    }

    fn submit(&self, from: WorkerId, batch: Batch) -> Option<Stored> {
        self.writer.submit(from, batch)
    }

    fn is_quick(&self) -> bool {
        self.is_quick
    }

    fn submit_snapshot(&self, from: WorkerId, snapshot: SnapshotId, part: SnapshotPart) {
        self.writer.put(Input::Part(from, snapshot, part));
    }

    fn is_behind(&self) -> bool {
        self.writer.is_behind()
    }

    fn figures(&self) -> Vec<(&'static str, u64)> {
        self.writer.status.figures()
    }

    fn compact(&self) {
        self.writer.put(Input::Compact);
    }

    fn standing(&self) -> Standing {
        self.writer.status.standing()
    }

    fn close(&self, patience: Duration) {
        if self.is_running() && !self.end(true, patience) {
            tracing::warn!("the store could not be closed in order: the next start reads what is there");
        }
    }

    fn load(&self, to: WorkerId, session: SlotKey, messages: Vec<MessageNumber>) {
        self.writer.put(Input::Load(to, session, messages));
    }
}

/// Jobs for the threads that do them.
struct Lanes {
    lanes: [Arc<JobQueue>; 3],
}

#[derive(Default)]
struct JobQueue {
    jobs: Mutex<(VecDeque<Job>, bool)>,
    ready: Condvar,
}

impl Jobs for Lanes {
    fn give(&mut self, job: Job) {
        let lane = &self.lanes[lane_number(job.lane())];
        lane.jobs
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .0
            .push_back(job);
        lane.ready.notify_one();
    }
}

/// When the writer ends, so do they, when they have done what they were given.
impl Drop for Lanes {
    fn drop(&mut self) {
        for lane in &self.lanes {
            lane.jobs.lock().unwrap_or_else(PoisonError::into_inner).1 = true;
            lane.ready.notify_one();
        }
    }
}

const fn lane_number(lane: Lane) -> usize {
    match lane {
        Lane::Log => 0,
        Lane::Files => 1,
        Lane::Read => 2,
    }
}

impl JobQueue {
    /// The next job; `None` when there will be no more.
    fn next(&self) -> Option<Job> {
        let mut jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(job) = jobs.0.pop_front() {
                return Some(job);
            }
            if jobs.1 {
                return None;
            }
            jobs = self.ready.wait(jobs).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

fn start_threads(writer: &Arc<Writer>, start: Start, events: Arc<dyn StoreEvents>) -> Vec<JoinHandle<()>> {
    let lanes: [Arc<JobQueue>; 3] = Default::default();
    let mut tools_of_lanes = None;
    let random = RandomState::new();
    let halves = [random.hash_one(1), random.hash_one(2)].map(u64::to_le_bytes);
    let mut new_store = StoreId::default();
    new_store.0[..8].copy_from_slice(&halves[0]);
    new_store.0[8..].copy_from_slice(&halves[1]);
    let surroundings = Surroundings {
        files: start.files,
        status: Arc::clone(&writer.status),
        new_store,
    };
    let jobs = |tools: Tools| -> Box<dyn Jobs> {
        tools_of_lanes = Some(tools);
        Box::new(Lanes { lanes: lanes.clone() })
    };
    let engine = Engine::new(
        start.options,
        surroundings,
        start.recovered,
        events,
        jobs,
        writer.clock.now(),
    );
    writer.begin(engine);
    let mut threads = Vec::new();
    let of_thread = Arc::clone(writer);
    threads.push(spawn("store", move || of_thread.run()));
    for (name, lane) in ["store-sync", "store-files", "store-read"].into_iter().zip(lanes) {
        if let Some(tools) = tools_of_lanes.clone() {
            let writer = Arc::clone(writer);
            threads.push(spawn(name, move || work(&writer, &lane, &tools)));
        }
    }
    threads
}

/// A store without one of its threads keeps nothing, and everybody waits for it, as with [`MustNotPanic`].
fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> JoinHandle<()> {
    let spawned = thread::Builder::new().name(name.to_owned()).spawn(body);
    spawned.unwrap_or_else(|error| {
        tracing::error!(name, %error, "a thread of the store could not be started, the process ends; is the limit of processes (ulimit -u) too low?");
        std::process::abort()
    })
}

/// A thread that does jobs.
fn work(writer: &Writer, lane: &JobQueue, tools: &Tools) {
    let _alarm = MustNotPanic;
    while let Some(job) = lane.next() {
        if let Some(done) = run(job, tools, writer) {
            writer.put(Input::Done(done));
        }
    }
}

fn run(job: Job, tools: &Tools, writer: &Writer) -> Option<Done> {
    let is_sync = job.lane() == Lane::Log;
    let begin = Instant::now();
    let done = job.run(tools);
    if is_sync {
        super::status::count(&writer.status.sync_micros, begin.elapsed().as_micros() as u64);
    }
    done
}

fn log_report(directory: &str, report: &Report) {
    if let Some(torn) = &report.torn {
        tracing::info!(
            %directory,
            file = %torn.file,
            offset = torn.offset,
            bytes = torn.bytes,
            "the end of the log is not whole, and nothing behind it says that it was on the device: it is cut off. After a loss of power nothing is lost that was promised; if there was none, the file is damaged"
        );
    }
    for file in &report.unmade {
        tracing::info!(
            %directory,
            %file,
            "a file without anything in it is removed: it was being made when the broker stopped; if it was not, it is damaged"
        );
    }
    for gap in &report.gaps {
        tracing::error!(
            %directory,
            file = %gap.file,
            offset = gap.offset,
            bytes = gap.bytes,
            blocks = gap.blocks,
            "a file of the store is damaged: what was there is lost; everything behind it that can be read is used. The file goes to quarantine/"
        );
    }
}
