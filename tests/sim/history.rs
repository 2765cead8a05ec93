//! Histories of the store alone: small workers write values, and the power goes at every place where something is written. What is
//! read back must be as it was after some batch, and not before the last one that was told as stored.

mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};

use sundew::protocol::ids::{MessageNumber, SessionNumber, SlotKey, WorkerId};
use sundew::protocol::message::Message;
use sundew::protocol::time::Time;
use sundew::storage::disk::block::StoreId;
use sundew::storage::disk::engine::{Engine, Input, Surroundings};
use sundew::storage::disk::jobs::{Jobs, Tools};
use sundew::storage::disk::log::Now;
use sundew::storage::disk::recover::{Gap, Place, RecoverError, RecoverMode, Recovered, Visitor, recover};
use sundew::storage::disk::{DiskOptions, SyncMode};
use sundew::storage::record::SessionRecord;
use sundew::storage::{Batch, Record, RetainedCursor, RetainedPart, SnapshotId, SnapshotPart, StoreEvents};

use crate::disk::{SimDisk, Survival};
use crate::engine::{JobList, Waiting};
use crate::random::Random;

pub(super) const WORKERS: u16 = 2;
const WALL: u64 = 1_700_000_000_000;

/// What is done, one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Op {
    /// A worker writes some of its keys, in one batch of about so many bytes.
    Submit(u16, usize),
    /// The engine takes what came.
    Step,
    /// Everything that waits for somebody else is done.
    Work,
    /// A worker answers a call for a part of a snapshot.
    Part(u16),
    /// A snapshot is wanted.
    Compact,
    /// Time passes, milliseconds.
    Wait(u64),
    /// The end, in order.
    Close,
}

/// Values by key: a key is a session, its value the expiry.
pub(super) type Values = BTreeMap<u64, u32>;

#[derive(Debug, Default)]
struct Told {
    stored: BTreeMap<u16, u64>,
    calls: BTreeMap<u16, VecDeque<SnapshotId>>,
}

#[derive(Debug, Default)]
struct Ears(Mutex<Told>);

impl StoreEvents for Ears {
    fn stored(&self, worker: WorkerId, up_to: u64) {
        self.0.lock().unwrap().stored.insert(worker.0, up_to);
    }

    fn failed(&self, _worker: WorkerId, _up_to: u64) {}

    fn snapshot(&self, worker: WorkerId, snapshot: SnapshotId) {
        self.snapshot_more(worker, snapshot);
    }

    fn snapshot_more(&self, worker: WorkerId, snapshot: SnapshotId) {
        self.0
            .lock()
            .unwrap()
            .calls
            .entry(worker.0)
            .or_default()
            .push_back(snapshot);
    }

    fn snapshot_retained(&self, _cursor: &mut RetainedCursor, _out: &mut Vec<u8>) -> RetainedPart {
        RetainedPart::Last
    }

    fn loaded(&self, _worker: WorkerId, _session: SlotKey, _messages: Vec<(MessageNumber, Option<Arc<Message>>)>) {}
}

/// What the workers have done.
#[derive(Clone, Debug, Default)]
pub(super) struct Model {
    now: Values,
    /// As it was after each batch, and before the first.
    pub(super) after: Vec<Values>,
    /// Worker and number of each batch.
    batches: Vec<(u16, u64)>,
    /// Keys that a part of a snapshot has told already.
    parts: BTreeMap<u16, (SnapshotId, u64)>,
}

impl Model {
    /// As the workers of the next life have it: what came after batch `at` never was.
    pub(super) fn goes_on_from(&self, at: usize) -> Self {
        Self {
            now: self.after[at].clone(),
            after: self.after[..=at].to_vec(),
            batches: self.batches[..at].to_vec(),
            parts: BTreeMap::new(),
        }
    }
}

/// An engine at work.
pub(super) struct Bench {
    engine: Engine,
    tools: Tools,
    jobs: Waiting,
    inputs: Vec<Input>,
    ears: Arc<Ears>,
    now: Time,
    pub(super) disk: SimDisk,
    pub(super) model: Model,
    random: Random,
    /// The first batch of this life, in `Model::batches`.
    first: usize,
    numbers: BTreeMap<u16, u64>,
}

/// What is on a disk.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) values: Values,
    pub(super) gaps: Vec<Gap>,
}

impl Visitor for Found {
    fn record(&mut self, record: &[u8], _place: &Place<'_>) {
        match Record::decode(record).unwrap() {
            Record::Session(session) => {
                self.values.insert(session.session.0.get(), session.expiry_secs);
            }
            other => panic!("nobody wrote {other:?}"),
        }
    }

    fn gap(&mut self, gap: &Gap) {
        self.gaps.push(gap.clone());
    }
}

/// Reads a disk as a start would.
pub(super) fn read(disk: &SimDisk) -> Result<(Found, Recovered), RecoverError> {
    let mut found = Found::default();
    let recovered = recover(disk, RecoverMode::Repair, &mut found)?;
    Ok((found, recovered))
}

pub(super) fn options(sync: SyncMode, segment_size: u64) -> DiskOptions {
    DiskOptions {
        sync,
        sync_interval: 100,
        segment_size,
        snapshot_after: 1 << 30,
        reserve: 0,
        workers: WORKERS,
        ..DiskOptions::default()
    }
}

impl Bench {
    /// Goes on from what is on a disk; `model` is what the workers have in memory.
    pub(super) fn new(disk: SimDisk, options: DiskOptions, recovered: Recovered, model: Model) -> Self {
        let (ears, jobs) = (Arc::new(Ears::default()), Waiting::default());
        let surroundings = Surroundings {
            files: Arc::new(disk.clone()),
            status: Arc::default(),
            new_store: StoreId([7; 16]),
        };
        let mut tools = None;
        let now = recovered.time_at(WALL);
        let (events, list) = (Arc::clone(&ears) as Arc<dyn StoreEvents>, JobList(Arc::clone(&jobs)));
        let engine = Engine::new(
            options,
            surroundings,
            recovered,
            events,
            |made| {
                tools = Some(made);
                Box::new(list) as Box<dyn Jobs>
            },
            clock(now),
        );
        Self {
            engine,
            tools: tools.unwrap(),
            jobs,
            inputs: Vec::new(),
            ears,
            now,
            disk,
            first: model.batches.len(),
            model,
            random: Random::new(1),
            numbers: BTreeMap::new(),
        }
    }

    /// On an empty disk.
    pub(super) fn fresh(disk: SimDisk, options: DiskOptions) -> Self {
        let model = Model {
            after: vec![Values::new()],
            ..Model::default()
        };
        Self::new(disk, options, Recovered::default(), model)
    }

    /// Does it, unless the power has gone.
    pub(super) fn run(&mut self, op: Op) {
        if self.disk.is_dead() {
            return;
        }
        match op {
            Op::Submit(worker, bytes) => self.submit(worker, bytes),
            Op::Step => {
                let now = clock(self.now);
                self.engine.step(&mut self.inputs, now);
            }
            Op::Work => self.work(),
            Op::Part(worker) => self.part(worker),
            Op::Compact => self.inputs.push(Input::Compact),
            Op::Wait(millis) => self.now = self.now.plus_millis(millis),
            Op::Close => self.inputs.push(Input::Close { with_snapshot: false }),
        }
    }

    fn work(&mut self) {
        for lane in 0..3 {
            loop {
                let job = self.jobs.lock().unwrap()[lane].pop_front();
                let Some(job) = job else { break };
                if self.disk.is_dead() {
                    return;
                }
                self.inputs.extend(job.run(&self.tools).map(Input::Done));
            }
        }
    }

    fn submit(&mut self, worker: u16, bytes: usize) {
        let value = self.model.batches.len() as u32 + 1;
        let (keys, padding) = (self.random.between(1, 3), "x".repeat(bytes / 3));
        let mut batch = Batch::default();
        for _ in 0..keys {
            // Each key is one worker's.
            let key = 1 + u64::from(worker) + u64::from(WORKERS) * self.random.below(3) as u64;
            record(key, value, &padding, &mut batch.bytes);
            batch.records += 1;
            self.model.now.insert(key, value);
        }
        let number = self.numbers.entry(worker).or_default();
        *number += 1;
        batch.number = *number;
        self.model.batches.push((worker, *number));
        self.model.after.push(self.model.now.clone());
        self.inputs.push(Input::Batch(WorkerId(worker), batch));
    }

    /// One key at a time, as it is now.
    fn part(&mut self, worker: u16) {
        let call = self.ears.0.lock().unwrap().calls.entry(worker).or_default().pop_front();
        let Some(id) = call else { return };
        let told = self
            .model
            .parts
            .get(&worker)
            .filter(|(part, _)| *part == id)
            .map_or(0, |told| told.1);
        let is_own = |key: &u64| (key - 1) % u64::from(WORKERS) == u64::from(worker);
        let mut left = self.model.now.range(told + 1..).filter(|(key, _)| is_own(key));
        let mut part = SnapshotPart::default();
        if let Some((key, value)) = left.next() {
            record(*key, *value, "snapshot", &mut part.bytes);
            self.model.parts.insert(worker, (id, *key));
        }
        part.is_last = left.next().is_none();
        self.inputs.push(Input::Part(WorkerId(worker), id, part));
    }

    /// How many batches, of all, were at least told as stored.
    pub(super) fn told(&self) -> usize {
        let told = self.ears.0.lock().unwrap();
        let mut batches = self.model.batches[self.first..].iter();
        let is_told = |(worker, number): &(u16, u64)| told.stored.get(worker).is_some_and(|up_to| up_to >= number);
        batches.rposition(is_told).map_or(self.first, |at| self.first + at + 1)
    }

    /// Values that were told as stored, by key: no older one may come back.
    pub(super) fn told_values(&self) -> Values {
        let told = self.ears.0.lock().unwrap();
        let mut values = self.model.after[self.first].clone();
        for (at, (worker, number)) in self.model.batches.iter().enumerate().skip(self.first) {
            if told.stored.get(worker).is_some_and(|up_to| up_to >= number) {
                let changed = self.model.after[at + 1]
                    .iter()
                    .filter(|(_, value)| **value == at as u32 + 1);
                values.extend(changed.map(|(key, value)| (*key, *value)));
            }
        }
        values
    }
}

fn clock(now: Time) -> Now {
    Now {
        time: now,
        wall: WALL + now.0,
    }
}

fn record(key: u64, value: u32, padding: &str, out: &mut Vec<u8>) {
    Record::Session(SessionRecord {
        session: SessionNumber::new(key).unwrap(),
        tenant: "",
        client_id: padding,
        expiry_secs: value,
        expires_at: Time::NEVER,
    })
    .encode(out);
}

/// What is on a disk is as it was after some batch from `told` on; says after which.
pub(super) fn check(found: &Found, model: &Model, told: usize) -> Result<usize, String> {
    if !found.gaps.is_empty() {
        return Err(format!("nothing is damaged, and there are gaps: {:?}", found.gaps));
    }
    let at = model.after.iter().rposition(|values| *values == found.values);
    match at {
        None => Err(format!("{:?} is as it never was: {:?}", found.values, model.after)),
        // Some batches change nothing that can be seen from a later one.
        Some(at) if at < told && model.after[at] != model.after[told] => {
            Err(format!("as after batch {at}, and {told} was told as stored"))
        }
        Some(at) => Ok(at),
    }
}

/// What survives when the power has gone with the last operation: of a write each choice of sectors, if they are not too many.
pub(super) fn survivals(disk: &SimDisk, seed: u64) -> Vec<Survival> {
    const SECTORS_MAX: usize = 5;
    let sectors = disk.last_write_sectors().min(SECTORS_MAX);
    let masks = 0..1u64 << sectors;
    let chosen = masks.flat_map(|mask| [true, false].map(|before| Survival::LastWrite { mask, before }));
    let chance = (0..4).map(|at| Survival::Chance(Random::new(seed * 4 + at)));
    chosen.chain(chance).collect()
}
