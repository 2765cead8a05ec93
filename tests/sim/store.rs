//! A store that keeps nothing and tells when the seed says that it has kept it: at once, late, or, while it fails, not before it
//! heals. What is behind a real store, files and their faults, is in `disk/`.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

use sundew::protocol::ids::{MessageNumber, SlotKey, WorkerId};
use sundew::storage::{Batch, SnapshotId, SnapshotPart, Standing, Store, StoreEvents};

use crate::random::Random;

/// Batches of one worker.
#[derive(Clone, Copy, Debug, Default)]
struct Lane {
    submitted: u64,
    told: u64,
}

#[derive(Debug)]
struct Shelf {
    random: Random,
    late: usize,
    fails: usize,
    lanes: Vec<Lane>,
    is_failing: bool,
}

/// What a batch's end is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    Stored(WorkerId, u64),
    Failed(WorkerId, u64),
}

pub(crate) struct SlowStore {
    shelf: Mutex<Shelf>,
    events: OnceLock<Arc<dyn StoreEvents>>,
}

impl SlowStore {
    /// `late`: how many of 100 batches are told of later; `fails`: how many of 100 batches the store fails with, until it heals.
    pub(crate) fn new(seed: u64, workers: usize, late: usize, fails: usize) -> Self {
        Self {
            shelf: Mutex::new(Shelf {
                random: Random::new(seed),
                late,
                fails,
                lanes: vec![Lane::default(); workers],
                is_failing: false,
            }),
            events: OnceLock::new(),
        }
    }

    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        self.shelf.lock().unwrap()
    }

    /// From now on nothing fails.
    pub(crate) fn calm_down(&self) {
        self.shelf().fails = 0;
    }

    /// Workers with batches that were not told of.
    pub(crate) fn waiting(&self) -> usize {
        self.shelf()
            .lanes
            .iter()
            .filter(|lane| lane.told < lane.submitted)
            .count()
    }

    /// Something that a worker is to be told of, by chance; a store that fails heals by it.
    pub(crate) fn take(&self, random: &mut Random) -> Vec<Told> {
        let mut shelf = self.shelf();
        if std::mem::take(&mut shelf.is_failing) {
            return shelf.tell_all(Told::Stored);
        }
        let open: Vec<usize> = (0..shelf.lanes.len())
            .filter(|lane| shelf.lanes[*lane].told < shelf.lanes[*lane].submitted)
            .collect();
        if open.is_empty() {
            return Vec::new();
        }
        let worker = random.pick(&open);
        let lane = &mut shelf.lanes[worker];
        lane.told = random.between(lane.told as usize + 1, lane.submitted as usize) as u64;
        vec![Told::Stored(WorkerId(worker as u16), lane.told)]
    }

    pub(crate) fn tell(&self, told: &[Told]) {
        let Some(events) = self.events.get() else { return };
        for told in told {
            match *told {
                Told::Stored(worker, up_to) => events.stored(worker, up_to),
                Told::Failed(worker, up_to) => events.failed(worker, up_to),
            }
        }
    }
}

impl Shelf {
    fn tell_all(&mut self, as_what: fn(WorkerId, u64) -> Told) -> Vec<Told> {
        let is_over = as_what(WorkerId(0), 0) == Told::Stored(WorkerId(0), 0);
        let mut told = Vec::new();
        for (worker, lane) in self.lanes.iter_mut().enumerate() {
            if lane.told < lane.submitted {
                told.push(as_what(WorkerId(worker as u16), lane.submitted));
            }
            if is_over {
                lane.told = lane.submitted;
            }
        }
        told
    }

    fn submitted(&mut self, worker: WorkerId, number: u64) -> Vec<Told> {
        let lane = &mut self.lanes[worker.index()];
        assert_eq!(
            number,
            lane.submitted + 1,
            "batches of {worker:?} come one after the other"
        );
        lane.submitted = number;
        if self.is_failing {
            return vec![Told::Failed(worker, number)];
        }
        if self.random.percent(self.fails) {
            self.is_failing = true;
            return self.tell_all(Told::Failed);
        }
        if self.random.percent(self.late) {
            return Vec::new();
        }
        self.lanes[worker.index()].told = number;
        vec![Told::Stored(worker, number)]
    }
}

impl Store for SlowStore {
    fn keeps(&self) -> bool {
        true
    }

    fn attach(&self, events: Arc<dyn StoreEvents>) {
        assert!(self.events.set(events).is_ok(), "a store is attached once");
    }

    fn submit(&self, from: WorkerId, batch: Batch) {
        let told = self.shelf().submitted(from, batch.number);
        self.tell(&told);
    }

    fn submit_snapshot(&self, _from: WorkerId, _snapshot: SnapshotId, _part: SnapshotPart) {}

    fn close(&self, _patience: std::time::Duration) {}

    fn standing(&self) -> Standing {
        if self.shelf().is_failing {
            Standing::Refusing
        } else {
            Standing::Sound
        }
    }

    fn load(&self, _to: WorkerId, _session: SlotKey, _messages: Vec<MessageNumber>) {}
}
