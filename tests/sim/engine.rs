//! The real store, its writer and its recovery, on the simulated disk: everything but threads and clocks, which the seed plays.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};

use sundew::protocol::ids::{MessageNumber, SlotKey, WorkerId};
use sundew::protocol::time::Time;
use sundew::storage::disk::backup::Applied;
use sundew::storage::disk::block::StoreId;
use sundew::storage::disk::engine::{Engine, Input, Surroundings, Wake};
use sundew::storage::disk::files::{Files, Lock};
use sundew::storage::disk::jobs::{Job, Jobs, Tools};
use sundew::storage::disk::log::Now;
use sundew::storage::disk::recover::{Gap, Place, RecoverMode, Recovered, Report, Visitor, recover};
use sundew::storage::disk::status::StoreStatus;
use sundew::storage::disk::{DiskOptions, FullPolicy, SyncMode};
use sundew::storage::image::{Image, ImageOptions, Restored};
use sundew::storage::{Batch, SnapshotId, SnapshotPart, Standing, Store, StoreEvents, Stored};

use crate::disk::{SimDisk, Survival, Troubles};
use crate::fault::Fault;
use crate::random::Random;
use crate::store::{SimStore, Stop, StoreHabits};

/// The wall clock when a run begins, milliseconds since 1970.
const WALL: u64 = 1_700_000_000_000;

/// Jobs that wait, by lane; each lane does its own in order.
pub(crate) type Waiting = Arc<Mutex<[VecDeque<Job>; 3]>>;

/// Puts jobs where the seed finds them.
pub(crate) struct JobList(pub Waiting);

impl Jobs for JobList {
    fn give(&mut self, job: Job) {
        self.0.lock().unwrap()[job.lane() as usize].push_back(job);
    }
}

struct Desk {
    random: Random,
    habits: StoreHabits,
    options: DiskOptions,
    recovered: Option<Recovered>,
    engine: Option<Engine>,
    tools: Option<Tools>,
    jobs: Waiting,
    inputs: Vec<Input>,
    now: Time,
    /// What the wall clock shows at time 0.
    wall_offset: u64,
    has_trouble: bool,
    _lock: Box<dyn Lock>,
}

pub(crate) struct EngineStore {
    desk: Mutex<Desk>,
    status: Arc<StoreStatus>,
    disk: SimDisk,
    fault: Option<Fault>,
}

fn disk_options(random: &mut Random, habits: &StoreHabits) -> DiskOptions {
    DiskOptions {
        sync: habits.sync,
        sync_interval: random.pick(&[50, 1000]),
        segment_size: random.pick(&[1_000, 4_000, 64_000]),
        snapshot_after: random.pick(&[2_000, 16_000, 1_000_000]),
        reserve: random.pick(&[0, 0, 4_000]),
        waiting_max: u64::MAX, // of the threads, which are not here
        on_full: FullPolicy::Refuse,
        workers: 1,
    }
}

impl EngineStore {
    /// On an empty disk.
    pub(crate) fn new(seed: u64, workers: usize, habits: StoreHabits, fault: Option<Fault>, now: Time) -> Self {
        let mut random = Random::new(seed);
        let disk_fault = match fault {
            Some(Fault::Disk(fault)) => Some(fault),
            _ => None,
        };
        let disk = SimDisk::new(random.next(), disk_fault);
        let options = disk_options(&mut random, &habits);
        let wall = WALL + now.0;
        Self::open(disk, random, habits, options, workers, fault, wall).0
    }

    /// Opens what is on the disk, however often the power goes meanwhile.
    fn open(
        mut disk: SimDisk,
        mut random: Random,
        habits: StoreHabits,
        options: DiskOptions,
        workers: usize,
        fault: Option<Fault>,
        wall: u64,
    ) -> (Self, Restored, Time, Report) {
        if habits.sync == SyncMode::Always && random.percent(30) {
            disk.cut_power_at(Some(disk.operations() + random.between(1, 5) as u64));
        }
        let (lock, mut recovered, image) = loop {
            let mut image = Image::new(ImageOptions {
                memory_bytes_max: habits.memory_bytes,
            });
            disk.create_directory().unwrap();
            let lock = disk.lock().unwrap();
            match recover(&disk, RecoverMode::Repair, &mut Applied(&mut image)) {
                // A repair that fails is no error to who reads, so the disk is asked whether the power went meanwhile.
                Ok(recovered) if !disk.is_dead() => break (lock, recovered, image),
                Err(error) => assert!(disk.is_dead(), "it must start: {error}"),
                Ok(_) => {}
            }
            drop(lock);
            disk = disk.restart(Survival::Chance(Random::new(random.next())));
        };
        disk.cut_power_at(None);
        let time = recovered.time_at(wall);
        let report = recovered.report.clone();
        let mut restored = image.finish(time);
        restored.read_in_flight(|messages| recovered.read(&disk, messages));
        let store = Self {
            desk: Mutex::new(Desk {
                random,
                habits,
                options: DiskOptions {
                    workers: workers as u16,
                    ..options
                },
                recovered: Some(recovered),
                engine: None,
                tools: None,
                jobs: Arc::default(),
                inputs: Vec::new(),
                now: time,
                wall_offset: wall - time.0,
                has_trouble: disk.is_limited(),
                _lock: lock,
            }),
            status: Arc::default(),
            disk,
            fault,
        };
        (store, restored, time, report)
    }

    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Desk {
    fn clock(&self) -> Now {
        Now {
            time: self.now,
            wall: self.wall_offset + self.now.0,
        }
    }

    /// A device fails for a while, now and then.
    fn trouble(&mut self, disk: &SimDisk) {
        if self.has_trouble {
            if self.random.percent(3) || self.habits.fails == 0 {
                self.has_trouble = false;
                disk.set_troubles(Troubles::default());
                disk.set_limit(None);
            }
        } else if self.random.below(1000) < self.habits.fails {
            self.has_trouble = true;
            let chance = |random: &mut Random| random.pick(&[0, 0, 30, 100]);
            disk.set_troubles(Troubles {
                write: chance(&mut self.random),
                sync: chance(&mut self.random),
                create: chance(&mut self.random),
            });
            if self.random.percent(50) {
                disk.set_limit(Some(disk.used() + self.random.below(5_000) as u64));
            }
        }
    }

    /// One job of some lane is done, by chance.
    fn work(&mut self) {
        let lanes: Vec<usize> = {
            let jobs = self.jobs.lock().unwrap();
            (0..3).filter(|lane| !jobs[*lane].is_empty()).collect()
        };
        if lanes.is_empty() {
            return;
        }
        let lane = self.random.pick(&lanes);
        let job = self.jobs.lock().unwrap()[lane].pop_front();
        if let (Some(job), Some(tools)) = (job, &self.tools) {
            self.inputs.extend(job.run(tools).map(Input::Done));
        }
    }

    fn step(&mut self, disk: &SimDisk) {
        self.trouble(disk);
        if self.random.percent(50) {
            self.work();
        }
        let snapshots = self.habits.snapshots;
        if self.random.below(1000) < snapshots {
            self.inputs.push(Input::Compact);
        }
        let now = self.clock();
        if let Some(engine) = &mut self.engine {
            engine.step(&mut self.inputs, now);
        }
    }
}

impl SimStore for EngineStore {
    fn calm_down(&self) {
        let mut desk = self.desk();
        (desk.habits.fails, desk.habits.snapshots) = (0, 0);
    }

    fn is_busy(&self) -> bool {
        let desk = self.desk();
        let has_jobs = desk.jobs.lock().unwrap().iter().any(|lane| !lane.is_empty());
        has_jobs || !desk.inputs.is_empty() || desk.engine.as_ref().is_some_and(|engine| engine.wake() == Wake::Now)
    }

    fn is_sound(&self) -> bool {
        self.status.standing() == Standing::Sound
    }

    fn step(&self, now: Time) {
        let mut desk = self.desk();
        desk.now = now;
        desk.step(&self.disk);
    }

    fn survives_power_cuts(&self) -> bool {
        self.desk().options.sync == SyncMode::Always
    }

    fn begin_close(&self) {
        self.desk().inputs.push(Input::Close { with_snapshot: true });
    }

    fn is_closed(&self) -> bool {
        self.is_sound() && self.desk().engine.as_ref().is_some_and(Engine::is_closed)
    }

    fn restart(&self, stop: Stop) -> (Arc<dyn SimStore>, Restored, Time) {
        let mut desk = self.desk();
        let mut random = Random::new(desk.random.next());
        desk.now = stop.now;
        if !stop.is_kill && !stop.is_orderly && random.percent(60) {
            // The power goes while the store is at work.
            let operation = self.disk.operations() + random.between(1, 6) as u64;
            self.disk.cut_power_at(Some(operation));
            for _ in 0..20 {
                if !self.disk.is_dead() {
                    desk.step(&self.disk);
                }
            }
        }
        let survival = if stop.is_orderly {
            Survival::Nothing
        } else if stop.is_kill {
            Survival::All
        } else {
            Survival::Chance(Random::new(random.next()))
        };
        desk.engine = None;
        if desk.options.sync == SyncMode::Always {
            self.disk.forget_lost();
        }
        let disk = self.disk.restart(survival);
        disk.set_troubles(Troubles::default());
        if stop.is_damaged {
            disk.flip(&mut random);
        }
        let wall = (desk.wall_offset + stop.now.0).saturating_add_signed(stop.wall_jump);
        let (habits, options) = (desk.habits, desk.options.clone());
        let (store, restored, time, report) = Self::open(disk, random, habits, options, stop.workers, self.fault, wall);
        let is_replayed = habits.fails == 0 && (report.replayed > 0 || report.torn.is_some());
        assert!(
            !(stop.is_orderly && !stop.is_damaged && is_replayed),
            "closed in order, and yet there is something to replay: {report:?}"
        );
        (Arc::new(store), restored, time)
    }

    fn describe(&self) -> String {
        let mut text = format!(
            "{:?} {:?}, {}",
            self.desk().options,
            self.standing(),
            self.disk.describe()
        );
        let twin = self.disk.twin(0);
        let mut listing = Listing(&mut text);
        if let Err(error) = recover(&twin, RecoverMode::ReadOnly, &mut listing) {
            text += &format!("\n        {error}");
        }
        text
    }
}

struct Listing<'a>(&'a mut String);

impl Visitor for Listing<'_> {
    fn record(&mut self, record: &[u8], place: &Place<'_>) {
        let record = sundew::storage::Record::decode(record);
        *self.0 += &format!(
            "\n        {} {} {:?}: {record:?}",
            place.file, place.block, place.worker
        );
    }

    fn gap(&mut self, gap: &Gap) {
        *self.0 += &format!("\n        {gap:?}");
    }
}

impl Store for EngineStore {
    fn keeps(&self) -> bool {
        true
    }

    fn attach(&self, events: Arc<dyn StoreEvents>) {
        let mut desk = self.desk();
        let surroundings = Surroundings {
            files: Arc::new(self.disk.clone()),
            status: Arc::clone(&self.status),
            new_store: StoreId(u128::from(desk.random.next()).to_le_bytes()),
        };
        let Some(recovered) = desk.recovered.take() else { return };
        let (options, jobs, now) = (desk.options.clone(), Arc::clone(&desk.jobs), desk.clock());
        let mut kept = None;
        let engine = Engine::new(
            options,
            surroundings,
            recovered,
            events,
            |tools| {
                kept = Some(tools);
                Box::new(JobList(jobs))
            },
            now,
        );
        (desk.engine, desk.tools) = (Some(engine), kept);
    }

    fn is_quick(&self) -> bool {
        let desk = self.desk();
        desk.habits.is_quick && desk.options.sync != SyncMode::Always
    }

    fn submit(&self, from: WorkerId, mut batch: Batch) -> Option<Stored> {
        if let Some(fault) = self.fault.filter(|fault| fault.is_of_records()) {
            fault.spoil(&mut batch);
        }
        let mut desk = self.desk();
        let desk = &mut *desk;
        let now = desk.clock();
        if let Some(engine) = desk.engine.as_mut().filter(|engine| engine.is_calm())
            && desk.inputs.is_empty()
            && desk.random.percent(50)
        {
            let up_to = engine.step_with(from, &batch, now)?;
            let buffer = batch.bytes;
            return Some(Stored { up_to, buffer });
        }
        desk.inputs.push(Input::Batch(from, batch));
        None
    }

    fn submit_snapshot(&self, from: WorkerId, snapshot: SnapshotId, part: SnapshotPart) {
        self.desk().inputs.push(Input::Part(from, snapshot, part));
    }

    fn standing(&self) -> Standing {
        self.status.standing()
    }

    fn close(&self, _patience: std::time::Duration) {}

    fn load(&self, to: WorkerId, session: SlotKey, messages: Vec<MessageNumber>) {
        self.desk().inputs.push(Input::Load(to, session, messages));
    }
}
