//! An engine, a broker that remembers what it was told, and jobs that are done when the story says so.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use super::super::block::StoreId;
use super::super::engine::{Engine, Input, Surroundings, Wake};
use super::super::jobs::{Job, Jobs, Tools};
use super::super::log::Now;
use super::super::options::DiskOptions;
use super::super::recover::{Gap, Place, RecoverError, RecoverMode, Recovered, Visitor, recover};
use super::super::status::StoreStatus;
use super::memory::MemoryFiles;
use crate::protocol::ids::{MessageNumber, SessionNumber, SlotKey, WorkerId};
use crate::protocol::message::Message;
use crate::protocol::property::Properties;
use crate::protocol::qos::QoS;
use crate::protocol::time::Time;
use crate::protocol::topic::TopicName;
use crate::storage::record::{Content, Deliveries, MessageRecord, Record};
use crate::storage::{Batch, RetainedCursor, RetainedPart, SnapshotId, SnapshotPart, StoreEvents};

/// What the broker was told.
#[derive(Debug, Default)]
pub(super) struct Told {
    pub(super) stored: Mutex<Vec<(u16, u64)>>,
    pub(super) failed: Mutex<Vec<(u16, u64)>>,
    pub(super) snapshots: Mutex<Vec<(u16, SnapshotId)>>,
    pub(super) more: Mutex<Vec<(u16, SnapshotId)>>,
    pub(super) loaded: Mutex<Vec<(MessageNumber, Option<Arc<Message>>)>>,
    /// Records that the retained store would give.
    pub(super) retained: Mutex<Vec<u64>>,
    /// Nobody can tell any more.
    pub(super) is_gone: AtomicBool,
}

impl StoreEvents for Told {
    fn stored(&self, worker: WorkerId, up_to: u64) {
        self.stored.lock().unwrap().push((worker.0, up_to));
    }

    fn failed(&self, worker: WorkerId, up_to: u64) {
        self.failed.lock().unwrap().push((worker.0, up_to));
    }

    fn snapshot(&self, worker: WorkerId, snapshot: SnapshotId) {
        self.snapshots.lock().unwrap().push((worker.0, snapshot));
    }

    fn snapshot_more(&self, worker: WorkerId, snapshot: SnapshotId) {
        self.more.lock().unwrap().push((worker.0, snapshot));
    }

    fn snapshot_retained(&self, _cursor: &mut RetainedCursor, out: &mut Vec<u8>) -> RetainedPart {
        if self.is_gone.load(Ordering::Relaxed) {
            return RetainedPart::Gone;
        }
        let mut retained = self.retained.lock().unwrap();
        if let Some(value) = retained.pop() {
            out.extend(mark(value));
        }
        if retained.is_empty() {
            RetainedPart::Last
        } else {
            RetainedPart::Some
        }
    }

    fn loaded(&self, _worker: WorkerId, _session: SlotKey, messages: Vec<(MessageNumber, Option<Arc<Message>>)>) {
        self.loaded.lock().unwrap().extend(messages);
    }
}

/// A record that can be told from others.
pub(super) fn mark(value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    Record::SessionEnded(SessionNumber::new(value).unwrap()).encode(&mut bytes);
    bytes
}

/// A message whose payload is its number.
pub(super) fn message(number: u64, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    Record::Message(MessageRecord {
        number: MessageNumber::new(number).unwrap(),
        expires_at: Time::NEVER,
        retained: Some(7),
        received: None,
        content: Content {
            topic: TopicName::parse("a/b").unwrap(),
            properties: Properties::from_checked(&[]),
            payload,
            qos: QoS::AtLeastOnce,
            retain: false,
            source: None,
        },
        deliveries: Deliveries(&[]),
    })
    .encode(&mut bytes);
    bytes
}

pub(super) fn number(value: u64) -> MessageNumber {
    MessageNumber::new(value).unwrap()
}

/// What recovery tells.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Marks, in order.
    pub(super) marks: Vec<u64>,
    pub(super) messages: Vec<u64>,
    pub(super) gaps: Vec<Gap>,
}

impl Visitor for Seen {
    fn record(&mut self, record: &[u8], _place: &Place<'_>) {
        match Record::decode(record) {
            Ok(Record::SessionEnded(session)) => self.marks.push(session.0.get()),
            Ok(Record::Message(message)) => self.messages.push(message.number.0.get()),
            other => panic!("{other:?} was never recorded"),
        }
    }

    fn gap(&mut self, gap: &Gap) {
        self.gaps.push(gap.clone());
    }
}

/// Reads what is there.
pub(super) fn read(files: &MemoryFiles, mode: RecoverMode) -> Result<(Seen, Recovered), RecoverError> {
    let mut seen = Seen::default();
    let recovered = recover(files, mode, &mut seen)?;
    Ok((seen, recovered))
}

#[derive(Clone, Debug, Default)]
pub(super) struct Given(pub(super) Arc<Mutex<VecDeque<Job>>>);

impl Jobs for Given {
    fn give(&mut self, job: Job) {
        self.0.lock().unwrap().push_back(job);
    }
}

pub(super) struct World {
    pub(super) files: MemoryFiles,
    pub(super) told: Arc<Told>,
    pub(super) status: Arc<StoreStatus>,
    pub(super) engine: Engine,
    pub(super) jobs: Given,
    tools: Tools,
    pub(super) now: Now,
    inputs: Vec<Input>,
    batches: [u64; 2],
}

impl World {
    pub(super) fn new(options: DiskOptions) -> Self {
        Self::on(MemoryFiles::default(), options)
    }

    /// Recovers what is there, and goes on.
    pub(super) fn on(files: MemoryFiles, options: DiskOptions) -> Self {
        let recovered = read(&files, RecoverMode::Repair).unwrap().1;
        Self::go_on(files, recovered, options)
    }

    /// Goes on from what was recovered.
    pub(super) fn go_on(files: MemoryFiles, recovered: Recovered, options: DiskOptions) -> Self {
        let wall = 1_700_000_000_000;
        let now = Now {
            time: recovered.time_at(wall),
            wall,
        };
        let (told, status, jobs) = (Arc::<Told>::default(), Arc::<StoreStatus>::default(), Given::default());
        let surroundings = Surroundings {
            files: Arc::new(files.clone()),
            status: Arc::clone(&status),
            // A store that is made anew is another one.
            new_store: StoreId([1 + files.names().len() as u8; 16]),
        };
        let mut tools = None;
        let given = jobs.clone();
        let engine = Engine::new(
            options,
            surroundings,
            recovered,
            Arc::<Told>::clone(&told),
            |of_engine| {
                tools = Some(of_engine);
                Box::new(given)
            },
            now,
        );
        Self {
            files,
            told,
            status,
            engine,
            jobs,
            tools: tools.unwrap(),
            now,
            inputs: Vec::new(),
            batches: [0; 2],
        }
    }

    /// A batch with one record comes; it is written with the next step.
    pub(super) fn submit(&mut self, worker: u16, bytes: Vec<u8>, messages: Option<(u64, u64)>) {
        let count = &mut self.batches[usize::from(worker)];
        *count += 1;
        let batch = Batch {
            number: *count,
            bytes,
            records: 1,
            messages: messages.map(|(lowest, highest)| (number(lowest), number(highest))),
        };
        self.inputs.push(Input::Batch(WorkerId(worker), batch));
    }

    pub(super) fn input(&mut self, input: Input) {
        self.inputs.push(input);
    }

    pub(super) fn part(&mut self, worker: u16, id: SnapshotId, bytes: Vec<u8>, stored: &[u64], is_last: bool) {
        let part = SnapshotPart {
            bytes,
            stored_messages: stored.iter().copied().map(number).collect(),
            is_last,
        };
        self.inputs.push(Input::Part(WorkerId(worker), id, part));
    }

    pub(super) fn step(&mut self) {
        self.engine.step(&mut self.inputs, self.now);
    }

    /// Does a job that waits, one of those that may be next.
    pub(super) fn do_job(&mut self, choose: &mut dyn FnMut(usize) -> usize) {
        let job = {
            let mut jobs = self.jobs.0.lock().unwrap();
            let lane = match jobs.len() {
                0 => return,
                count => jobs[choose(count)].lane(),
            };
            let first = jobs.iter().position(|job| job.lane() == lane);
            first.and_then(|at| jobs.remove(at))
        };
        let done = job.and_then(|job| job.run(&self.tools));
        self.inputs.extend(done.map(Input::Done));
    }

    /// A batch comes and is written before the ends of jobs are heard of.
    pub(super) fn give_up_before_news(&mut self) {
        let news = std::mem::take(&mut self.inputs);
        self.submit(0, mark(99), None);
        self.step();
        self.inputs = news;
    }

    /// Steps, and does jobs, until there is nothing left to do but wait.
    pub(super) fn settle(&mut self) {
        for _ in 0..10_000 {
            self.step();
            let Some(job) = self.jobs.0.lock().unwrap().pop_front() else {
                if self.engine.wake() == Wake::Now {
                    continue;
                }
                return;
            };
            let done = job.run(&self.tools);
            self.inputs.extend(done.map(Input::Done));
        }
        panic!("it never settles");
    }

    pub(super) fn wait(&mut self, millis: u64) {
        self.now.time = self.now.time.plus_millis(millis);
        self.now.wall += millis;
        self.settle();
    }

    /// Marks 1 to `count`, each a group of its own.
    pub(super) fn write_marks(&mut self, marks: std::ops::RangeInclusive<u64>) {
        for value in marks {
            self.submit(0, mark(value), None);
            self.step();
        }
    }

    /// Makes a snapshot in which the workers say that.
    pub(super) fn snapshot(&mut self, bytes: Vec<u8>, stored: &[u64]) {
        self.input(Input::Compact);
        self.settle();
        let begun = std::mem::take(&mut *self.told.snapshots.lock().unwrap());
        for (worker, id) in begun {
            let is_first = worker == 0;
            let (bytes, stored) = if is_first {
                (bytes.clone(), stored)
            } else {
                (Vec::new(), &[][..])
            };
            self.part(worker, id, bytes, stored, true);
        }
        self.settle();
    }
}
