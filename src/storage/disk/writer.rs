//! Who writes: a thread of its own, or, where that is as quick as handing it over, the worker that has something small.
//!
//! To hand a batch to another thread and to be told back wakes two threads, which costs many times what a small write to the
//! operating system's memory does. So a worker takes the engine itself when nobody has it, nothing waits, and nothing is under way that makes a write slow. A write that
//! was slow all the same is paid back: for [`REST`] times as long everything is handed over, so a bad card costs the workers a twentieth of
//! their time at most. Nothing overtakes: while something waits, what comes is put behind it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::engine::{Engine, Input, Wake};
use super::files::Lock;
use super::log::Now;
use super::status::{StoreStatus, count, set};
use crate::protocol::ids::WorkerId;
use crate::protocol::time::Time;
use crate::storage::{Batch, Stored};

/// The largest batch that a worker writes itself, in bytes: some tens of microseconds (`tests/bench/NOTES.md`).
const SMALL_BYTES: usize = 256 * 1024;
/// A write of a worker is slow from here on.
const SLOW: Duration = Duration::from_millis(5);
/// What a slow write is paid back with, times its own length.
const REST: u64 = 20;
/// How long the thread rests between two slices of a snapshot, if nothing comes: whoever shares its core waits for milliseconds otherwise. A
/// snapshot of 100 MB takes seven seconds longer, of which nobody takes notice.
const PAUSE: Duration = Duration::from_millis(1);
/// The same where the snapshot is waited for, see [`Engine::is_hurried`].
const PAUSE_HURRIED: Duration = Duration::from_micros(50);
/// How long it is not said again that too much waits.
const SAID_FOR: Duration = Duration::from_secs(60);

/// The engine, and what waits for it.
#[derive(Debug)]
pub(super) struct Writer {
    /// There from the start of the threads to the end of the store. Locked before the queue.
    engine: Mutex<Option<Engine>>,
    queue: Mutex<Queue>,
    ready: Condvar,
    pub(super) status: Arc<StoreStatus>,
    pub(super) clock: StoreClock,
    /// See `DiskOptions::waiting_max`.
    waiting_max: u64,
    /// More waits than that. Changed under the lock of the queue.
    is_behind: AtomicBool,
    /// The directory is taken until the last thread has ended.
    _lock: Box<dyn Lock>,
}

#[derive(Debug, Default)]
struct Queue {
    inputs: Vec<Input>,
    /// Bytes of batches that are not written, with those that the writer has taken and works on.
    waiting_bytes: u64,
    /// When it was last said that too much waits.
    behind_said: Option<Instant>,
    /// Until when the thread sleeps if nothing comes.
    sleeps_until: Time,
    /// Until then, workers hand everything over.
    rests_until: Time,
    /// Nothing more is taken.
    is_closed: bool,
}

/// The clocks of a store.
#[derive(Clone, Copy, Debug)]
pub(super) struct StoreClock {
    /// A moment.
    pub(super) at: Instant,
    /// The broker's time then.
    pub(super) time: Time,
}

impl StoreClock {
    pub(super) fn now(&self) -> Now {
        Now {
            time: self.time.plus_millis(self.at.elapsed().as_millis() as u64),
            wall: wall_millis(),
        }
    }
}

/// Milliseconds since 1970.
pub(super) fn wall_millis() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as u64)
}

/// What a worker that tried to write has to say.
enum Written {
    /// It did, and the batches up to this one are stored; without a number, they are not for now.
    Here(Option<u64>),
    /// That is for the thread.
    NotHere,
}

impl Writer {
    pub(super) fn new(clock: StoreClock, waiting_max: u64, lock: Box<dyn Lock>) -> Self {
        Self {
            engine: Mutex::default(),
            queue: Mutex::default(),
            ready: Condvar::new(),
            status: Arc::default(),
            clock,
            waiting_max,
            is_behind: AtomicBool::new(false),
            _lock: lock,
        }
    }

    /// Before [`Writer::run`].
    pub(super) fn begin(&self, engine: Engine) {
        *self.engine() = Some(engine);
    }

    /// True while more waits than may.
    pub(super) fn is_behind(&self) -> bool {
        self.is_behind.load(Ordering::Relaxed)
    }

    /// A worker's batch: written here and now where that is quick; then with what [`Store::submit`](crate::storage::Store::submit) gives.
    pub(super) fn submit(&self, from: WorkerId, batch: Batch) -> Option<Stored> {
        match self.write_here(from, &batch) {
            Written::Here(up_to) => {
                let buffer = batch.bytes;
                up_to.map(|up_to| Stored { up_to, buffer })
            }
            Written::NotHere => {
                self.put(Input::Batch(from, batch));
                None
            }
        }
    }

    fn write_here(&self, from: WorkerId, batch: &Batch) -> Written {
        if batch.bytes.len() > SMALL_BYTES {
            return Written::NotHere;
        }
        let Ok(mut place) = self.engine.try_lock() else {
            return Written::NotHere;
        };
        let Some(engine) = place.as_mut().filter(|engine| engine.is_calm() && self.is_calm()) else {
            return Written::NotHere;
        };
        let alarm = MustNotPanic;
        let begin = Instant::now();
        let stored = engine.step_with(from, batch, self.clock.now());
        let took = begin.elapsed();
        drop(alarm);
        count(&self.status.written_by_workers, 1);
        let wake = match engine.wake() {
            Wake::Now => Time::default(),
            Wake::At(at) => at,
        };
        let mut queue = self.lock();
        if took >= SLOW {
            let rest = REST * took.as_millis() as u64;
            queue.rests_until = self.clock.now().time.plus_millis(rest);
        }
        if wake < queue.sleeps_until {
            queue.sleeps_until = wake;
            self.ready.notify_all();
        }
        Written::Here(stored)
    }

    /// Nothing waits that must go first, and no slow write is to be paid back.
    fn is_calm(&self) -> bool {
        let queue = self.lock();
        !queue.is_closed && queue.inputs.is_empty() && queue.rests_until <= self.clock.now().time
    }

    /// Something for the thread.
    pub(super) fn put(&self, input: Input) {
        let mut queue = self.lock();
        if queue.is_closed {
            return;
        }
        let was_empty = queue.inputs.is_empty();
        let bytes = waiting_bytes(&input);
        queue.inputs.push(input);
        if bytes > 0 {
            queue.waiting_bytes += bytes;
            self.watch(&mut queue);
        }
        drop(queue);
        if was_empty {
            self.ready.notify_all();
        }
    }

    /// The thread: takes what comes until the store is closed.
    pub(super) fn run(&self) {
        let _end = End(self);
        let mut inputs = Vec::new();
        loop {
            let mut place = self.engine();
            let Some(engine) = place.as_mut().filter(|engine| !engine.is_closed()) else {
                *place = None;
                return;
            };
            match engine.wake() {
                Wake::At(at) => {
                    // While nobody else has the engine: who has it next may want the thread sooner.
                    self.lock().sleeps_until = at;
                    drop(place);
                    self.sleep();
                }
                Wake::Now => {
                    let at_most = if engine.is_hurried() { PAUSE_HURRIED } else { PAUSE };
                    drop(place);
                    self.pause(at_most);
                }
            }
            place = self.engine();
            let Some(engine) = place.as_mut() else { return };
            std::mem::swap(&mut self.lock().inputs, &mut inputs);
            let bytes = inputs.iter().map(waiting_bytes).sum();
            self.step(engine, &mut inputs, bytes);
        }
    }

    /// `bytes` of batches are no more waiting then.
    fn step(&self, engine: &mut Engine, inputs: &mut Vec<Input>, bytes: u64) {
        let _alarm = MustNotPanic;
        engine.step(inputs, self.clock.now());
        if bytes > 0 {
            let mut queue = self.lock();
            queue.waiting_bytes -= bytes;
            self.watch(&mut queue);
        }
    }

    /// Between two slices of a snapshot others have the core.
    fn pause(&self, at_most: Duration) {
        let queue = self.lock();
        if queue.inputs.is_empty() {
            drop(self.wait(queue, at_most));
        }
    }

    /// Until something comes, or the thread's moment does.
    fn sleep(&self) {
        let mut queue = self.lock();
        loop {
            let left = queue.sleeps_until.millis_since(self.clock.now().time);
            if !queue.inputs.is_empty() || left == 0 {
                break;
            }
            queue = self.wait(queue, Duration::from_millis(left));
        }
        queue.sleeps_until = Time::default();
    }

    /// Asks for the end, and waits for it while the thread `is_running`; after `patience` for an end without a snapshot.
    pub(super) fn close(&self, with_snapshot: bool, patience: Duration, is_running: impl Fn() -> bool) {
        self.put(Input::Close { with_snapshot });
        let deadline = Instant::now() + patience;
        let mut queue = self.lock();
        let mut is_hurried = !with_snapshot;
        while !queue.is_closed && is_running() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() && !is_hurried {
                is_hurried = true;
                queue.inputs.push(Input::Close { with_snapshot: false });
                self.ready.notify_all();
            }
            let wait = if is_hurried { Duration::from_millis(100) } else { left };
            queue = self.wait(queue, wait);
        }
    }

    /// Sees how much waits to be written.
    fn watch(&self, queue: &mut Queue) {
        let bytes = queue.waiting_bytes;
        set(&self.status.waiting_bytes, bytes);
        let was_behind = self.is_behind.load(Ordering::Relaxed);
        if !was_behind && bytes > self.waiting_max {
            self.is_behind.store(true, Ordering::Relaxed);
            count(&self.status.behind, 1);
            if queue.behind_said.is_none_or(|at| at.elapsed() >= SAID_FOR) {
                queue.behind_said = Some(Instant::now());
                tracing::warn!(
                    bytes,
                    "the disk is slower than what is to be kept (storage.waiting_max): clients are read slower"
                );
            }
        } else if was_behind && bytes <= self.waiting_max / 2 {
            self.is_behind.store(false, Ordering::Relaxed);
        }
    }

    fn engine(&self) -> MutexGuard<'_, Option<Engine>> {
        self.engine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, queue: MutexGuard<'a, Queue>, at_most: Duration) -> MutexGuard<'a, Queue> {
        let woken = self.ready.wait_timeout(queue, at_most);
        woken.unwrap_or_else(PoisonError::into_inner).0
    }
}

/// What of an input counts as waiting to be written.
fn waiting_bytes(input: &Input) -> u64 {
    match input {
        Input::Batch(_, batch) => batch.bytes.len() as u64,
        _ => 0, // of snapshots there is one part of each worker; the rest is small
    }
}

/// When the thread has ended, nobody waits for it.
struct End<'a>(&'a Writer);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.lock().is_closed = true;
        self.0.ready.notify_all();
    }
}

/// A store without one of its threads, or with a step half done, keeps nothing, and everybody waits for it: better the whole process ends, and
/// is started again.
pub(super) struct MustNotPanic;

impl Drop for MustNotPanic {
    fn drop(&mut self) {
        if thread::panicking() {
            tracing::error!(
                thread = thread::current().name().unwrap_or_default(),
                "internal error: the store panicked; the process ends"
            );
            std::process::abort();
        }
    }
}
