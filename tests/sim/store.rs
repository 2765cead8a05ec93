//! A store without files that keeps to `storage::Store` and to nothing more: batches are kept in the order in which they come, told
//! when the seed says, and a snapshot is put together from its parts. What it has kept is what the next broker begins with. Real
//! files, and their faults, are in `engine.rs`.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

use sundew::protocol::ids::{MessageNumber, SessionKey, SlotKey, WorkerId};
use sundew::protocol::message::{Message, Publication};
use sundew::protocol::time::Time;
use sundew::storage::disk::SyncMode;
use sundew::storage::image::{Image, ImageOptions, Restored};
use sundew::storage::record::{self, Record};
use sundew::storage::{
    Batch, RetainedCursor, RetainedPart, SnapshotId, SnapshotPart, Standing, Store, StoreEvents, Stored,
};

use crate::fault::Fault;
use crate::random::Random;

/// How a store of the simulation behaves.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct StoreHabits {
    /// False for one that keeps nothing.
    pub keeps: bool,
    /// How many of 100 batches it tells of later than at once.
    pub late: usize,
    /// How many of 1000 batches it fails with, until it heals.
    pub fails: usize,
    /// How many of 1000 steps begin a snapshot.
    pub snapshots: usize,
    /// Real files on a simulated disk; otherwise a list in memory.
    pub is_on_disk: bool,
    /// When what was written is brought to the device.
    pub sync: SyncMode,
    /// Packets are made before it is known that what they depend on is kept.
    pub is_quick: bool,
    /// Bytes of queued messages that a new broker has in memory.
    pub memory_bytes: usize,
}

/// How the broker's process ends, and what the next one finds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stop {
    /// Only the process is killed: what it wrote is there.
    pub is_kill: bool,
    /// The store was closed in order before.
    pub is_orderly: bool,
    /// One bit in the files is turned around.
    pub is_damaged: bool,
    /// When, by the broker's time.
    pub now: Time,
    /// Milliseconds that the wall clock goes on until the next begins; it may also be set back.
    pub wall_jump: i64,
    /// Workers of the next.
    pub workers: usize,
}

/// A store that the simulation drives.
pub(crate) trait SimStore: Store {
    /// From now on nothing fails, and nothing is begun.
    fn calm_down(&self);

    /// True when there is something to do at once.
    fn is_busy(&self) -> bool;

    /// False while it cannot write.
    fn is_sound(&self) -> bool;

    /// Does something, by chance.
    fn step(&self, now: Time);

    /// False where a loss of power may cost what was told as stored.
    fn survives_power_cuts(&self) -> bool;

    /// Begins to close in order, while the workers go on.
    fn begin_close(&self);

    /// True when it was closed in order.
    fn is_closed(&self) -> bool;

    /// The broker is gone. The store that the next one has, what it begins with, and its time.
    fn restart(&self, stop: Stop) -> (Arc<dyn SimStore>, Restored, Time);

    /// Everything that it has, for whoever looks for a mistake.
    fn describe(&self) -> String;
}

/// What a store tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Stored(WorkerId, u64),
    Failed(WorkerId, u64),
    Snapshot(WorkerId, SnapshotId),
    More(WorkerId, SnapshotId),
}

/// A batch that was submitted.
#[derive(Debug)]
struct Entry {
    worker: WorkerId,
    number: u64,
    bytes: Vec<u8>,
}

/// A snapshot on its way.
#[derive(Debug)]
struct Draft {
    id: SnapshotId,
    /// Place in the log where it began.
    start: usize,
    bytes: Vec<u8>,
    retained: Option<RetainedCursor>,
    /// Workers that have parts left.
    open: Vec<WorkerId>,
    /// Workers that may send another.
    waiting: Vec<WorkerId>,
}

#[derive(Debug, PartialEq, Eq, Clone, Copy)]
enum Health {
    Sound,
    Failing,
    /// The snapshot that is on its way heals it.
    Healing,
}

#[derive(Debug)]
struct Shelf {
    random: Random,
    habits: StoreHabits,
    submitted: Vec<u64>,
    /// Everything before the log.
    base: Vec<u8>,
    log: Vec<Entry>,
    /// So much of the log was told as stored.
    kept: usize,
    health: Health,
    draft: Option<Draft>,
    snapshots: u64,
    loads: Vec<(WorkerId, SlotKey, Vec<MessageNumber>)>,
}

pub(crate) struct LogStore {
    shelf: Mutex<Shelf>,
    events: OnceLock<Arc<dyn StoreEvents>>,
    fault: Option<Fault>,
}

impl LogStore {
    pub(crate) fn new(seed: u64, workers: usize, habits: StoreHabits, fault: Option<Fault>) -> Self {
        Self {
            shelf: Mutex::new(Shelf {
                random: Random::new(seed),
                habits,
                submitted: vec![0; workers],
                base: Vec::new(),
                log: Vec::new(),
                kept: 0,
                health: Health::Sound,
                draft: None,
                snapshots: 0,
                loads: Vec::new(),
            }),
            events: OnceLock::new(),
            fault,
        }
    }

    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        self.shelf.lock().unwrap()
    }

    fn pull_retained(&self) {
        let Some(events) = self.events.get() else { return };
        let cursor = self.shelf().draft.as_mut().and_then(|draft| draft.retained.take());
        let Some(mut cursor) = cursor else { return };
        let mut bytes = Vec::new();
        let has_more = match events.snapshot_retained(&mut cursor, &mut bytes) {
            RetainedPart::Some => true,
            RetainedPart::Last => false,
            RetainedPart::Gone => unreachable!("the broker outlives its store here"),
        };
        if let Some(draft) = &mut self.shelf().draft {
            draft.bytes.append(&mut bytes);
            draft.retained = has_more.then_some(cursor);
        }
    }

    fn tell(&self, told: &[Told]) {
        let Some(events) = self.events.get() else { return };
        for told in told {
            match *told {
                Told::Stored(worker, up_to) => events.stored(worker, up_to),
                Told::Failed(worker, up_to) => events.failed(worker, up_to),
                Told::Snapshot(worker, id) => events.snapshot(worker, id),
                Told::More(worker, id) => events.snapshot_more(worker, id),
            }
        }
    }
}

impl Shelf {
    /// What comes after a failure counts only when the snapshot is there.
    fn heals_at(&self) -> Option<usize> {
        let draft = self.draft.as_ref()?;
        (self.health == Health::Healing).then_some(draft.start)
    }

    fn workers(&self) -> Vec<WorkerId> {
        (0..self.submitted.len())
            .map(|worker| WorkerId(worker as u16))
            .collect()
    }

    fn fail(&mut self) -> Vec<Told> {
        self.health = Health::Failing;
        self.draft = None;
        // What was not told is not kept: the memory of the broker has it.
        self.log.truncate(self.kept);
        let failed = |worker: WorkerId| Told::Failed(worker, self.submitted[worker.index()]);
        self.workers().into_iter().map(failed).collect()
    }

    fn begin_snapshot(&mut self) -> Vec<Told> {
        self.snapshots += 1;
        self.draft = Some(Draft {
            id: self.snapshots,
            start: self.log.len(),
            bytes: Vec::new(),
            retained: Some(RetainedCursor::default()),
            open: self.workers(),
            waiting: Vec::new(),
        });
        let id = self.snapshots;
        self.workers()
            .into_iter()
            .map(|worker| Told::Snapshot(worker, id))
            .collect()
    }

    fn step(&mut self) -> Vec<Told> {
        if self.health == Health::Failing && self.random.percent(10) {
            self.health = Health::Healing;
            return self.begin_snapshot();
        }
        let snapshots = self.habits.snapshots;
        if self.draft.is_none() && self.health == Health::Sound && self.random.below(1000) < snapshots {
            return self.begin_snapshot();
        }
        let mut told = Vec::new();
        if self.random.percent(50)
            && let Some(draft) = &mut self.draft
            && !draft.waiting.is_empty()
        {
            let at = self.random.below(draft.waiting.len());
            told.push(Told::More(draft.waiting.swap_remove(at), draft.id));
        }
        if self.health == Health::Sound && self.kept < self.log.len() {
            let up_to = self.random.between(self.kept + 1, self.log.len());
            told.extend(self.keep(up_to));
        }
        told
    }

    fn keep(&mut self, up_to: usize) -> Vec<Told> {
        let told = self.log[self.kept..up_to].iter();
        let told = told.map(|entry| Told::Stored(entry.worker, entry.number)).collect();
        self.kept = up_to;
        told
    }

    /// A snapshot counts when every part is there and everything that was submitted before is kept.
    fn complete(&mut self) -> Vec<Told> {
        let is_whole = |draft: &Draft| draft.open.is_empty() && draft.retained.is_none();
        if !self.draft.as_ref().is_some_and(is_whole) {
            return Vec::new();
        }
        let mut told = self.keep(self.log.len());
        if let Some(draft) = self.draft.take() {
            self.base = draft.bytes;
            self.log.drain(..draft.start);
            self.kept = self.log.len();
        }
        if std::mem::replace(&mut self.health, Health::Sound) == Health::Healing {
            let stored = |worker: WorkerId| Told::Stored(worker, self.submitted[worker.index()]);
            told.extend(self.workers().into_iter().map(stored));
        }
        told
    }

    fn submitted(&mut self, worker: WorkerId, batch: Batch) -> Vec<Told> {
        let last = &mut self.submitted[worker.index()];
        assert_eq!(
            batch.number,
            *last + 1,
            "batches of {worker:?} come one after the other"
        );
        *last = batch.number;
        if self.health == Health::Failing {
            return vec![Told::Failed(worker, batch.number)];
        }
        self.log.push(Entry {
            worker,
            number: batch.number,
            bytes: batch.bytes,
        });
        if self.health == Health::Healing {
            return vec![Told::Failed(worker, batch.number)];
        }
        let (fails, late) = (self.habits.fails, self.habits.late);
        if self.random.below(1000) < fails {
            return self.fail();
        }
        if self.random.percent(late) {
            return Vec::new();
        }
        self.keep(self.log.len())
    }

    fn find_all(&self, numbers: &[MessageNumber]) -> Vec<(MessageNumber, Option<Arc<Message>>)> {
        numbers.iter().map(|number| (*number, self.find(*number))).collect()
    }

    fn find(&self, number: MessageNumber) -> Option<Arc<Message>> {
        let bytes = self.find_record(number)?;
        let Ok(Record::Message(message)) = Record::decode(bytes) else {
            return None;
        };
        let publication = Publication {
            topic: message.content.topic,
            payload: message.content.payload,
            qos: message.content.qos,
            retain: message.content.retain,
            properties: message.content.properties,
            expires_at: (message.expires_at != Time::NEVER).then_some(message.expires_at),
            publisher: Some(SessionKey::FORMER),
            source: None,
        };
        let mut message = publication.to_message();
        message.number = Some(number);
        Some(Arc::new(message))
    }

    fn find_record(&self, number: MessageNumber) -> Option<&[u8]> {
        let logs = std::iter::once(&self.base).chain(self.log.iter().map(|entry| &entry.bytes));
        logs.flat_map(|bytes| record::records(bytes))
            .find(|bytes| record::message_number(bytes) == Some(number))
    }

    fn part(&mut self, worker: WorkerId, id: SnapshotId, mut part: SnapshotPart) {
        let contents: Vec<Vec<u8>> = part
            .stored_messages
            .iter()
            .filter_map(|number| self.content_record(*number))
            .collect();
        let Some(draft) = self.draft.as_mut().filter(|draft| draft.id == id) else {
            return;
        };
        for content in contents {
            draft.bytes.extend(content);
        }
        draft.bytes.append(&mut part.bytes);
        if part.is_last {
            draft.open.retain(|open| *open != worker);
        } else {
            draft.waiting.push(worker);
        }
    }

    /// A message as a snapshot has it, without deliveries.
    fn content_record(&self, number: MessageNumber) -> Option<Vec<u8>> {
        let Ok(Record::Message(message)) = Record::decode(self.find_record(number)?) else {
            return None;
        };
        let mut bytes = Vec::new();
        Record::Message(record::MessageRecord {
            retained: None,
            received: None,
            deliveries: record::Deliveries::default(),
            ..message
        })
        .encode(&mut bytes);
        Some(bytes)
    }
}

impl SimStore for LogStore {
    fn calm_down(&self) {
        let mut shelf = self.shelf();
        (shelf.habits.fails, shelf.habits.snapshots) = (0, 0);
    }

    fn is_busy(&self) -> bool {
        let shelf = self.shelf();
        shelf.kept < shelf.log.len()
            || shelf.health != Health::Sound
            || shelf.draft.is_some()
            || !shelf.loads.is_empty()
    }

    fn is_sound(&self) -> bool {
        self.shelf().health == Health::Sound
    }

    fn step(&self, _now: Time) {
        let told = self.shelf().step();
        self.tell(&told);
        let loads = std::mem::take(&mut self.shelf().loads);
        for (worker, session, numbers) in loads {
            let messages = self.shelf().find_all(&numbers);
            if let Some(events) = self.events.get() {
                events.loaded(worker, session, messages);
            }
        }
        self.pull_retained();
        let told = self.shelf().complete();
        self.tell(&told);
    }

    fn survives_power_cuts(&self) -> bool {
        true
    }

    fn begin_close(&self) {}

    fn is_closed(&self) -> bool {
        let shelf = self.shelf();
        shelf.health == Health::Sound && shelf.kept == shelf.log.len()
    }

    fn restart(&self, stop: Stop) -> (Arc<dyn SimStore>, Restored, Time) {
        let mut shelf = self.shelf();
        let whole = shelf.heals_at().unwrap_or(shelf.log.len());
        // Everything that was told as stored is there, and as much of the rest, in order, as the seed says.
        let kept = if stop.is_kill {
            whole
        } else {
            let low = shelf.kept.min(whole);
            shelf.random.between(low, whole)
        };
        let mut image = Image::new(ImageOptions {
            memory_bytes_max: shelf.habits.memory_bytes,
        });
        let mut base = std::mem::take(&mut shelf.base);
        for entry in shelf.log.drain(..kept) {
            base.extend_from_slice(&entry.bytes);
        }
        record::records(&base).for_each(|record| image.apply(record));
        let next = Self::new(shelf.random.next(), stop.workers, shelf.habits, self.fault);
        next.shelf().base = base;
        let now = stop.now.plus_millis(stop.wall_jump.max(0) as u64);
        let mut restored = image.finish(now);
        restored.read_in_flight(|messages| next.shelf().find_all(messages));
        (Arc::new(next), restored, now)
    }

    fn describe(&self) -> String {
        let shelf = self.shelf();
        let describe = |bytes: &[u8]| {
            record::records(bytes)
                .map(|bytes| format!("\n        {:?}", Record::decode(bytes)))
                .collect::<String>()
        };
        let mut text = format!(
            "{:?} {:?}, before the log:{}",
            shelf.health,
            shelf.draft,
            describe(&shelf.base)
        );
        for (at, entry) in shelf.log.iter().enumerate() {
            let is_kept = if at < shelf.kept { "kept" } else { "not kept" };
            text += &format!(
                "\n      {:?} {} {is_kept}:{}",
                entry.worker,
                entry.number,
                describe(&entry.bytes)
            );
        }
        text
    }
}

impl Store for LogStore {
    fn keeps(&self) -> bool {
        self.shelf().habits.keeps
    }

    fn attach(&self, events: Arc<dyn StoreEvents>) {
        assert!(self.events.set(events).is_ok(), "a store is attached once");
    }

    fn is_quick(&self) -> bool {
        self.shelf().habits.is_quick
    }

    fn submit(&self, from: WorkerId, mut batch: Batch) -> Option<Stored> {
        if let Some(fault) = self.fault.filter(|fault| fault.is_of_records()) {
            fault.spoil(&mut batch);
        }
        let number = batch.number;
        let mut told = self.shelf().submitted(from, batch);
        let answer = Told::Stored(from, number);
        let is_answered = self.shelf().habits.is_quick && told.contains(&answer);
        told.retain(|told| !is_answered || *told != answer);
        self.tell(&told);
        if self.fault == Some(Fault::TellEarly) {
            self.tell(&[answer]);
        }
        is_answered.then_some(Stored {
            up_to: number,
            buffer: Vec::new(),
        })
    }

    fn submit_snapshot(&self, from: WorkerId, snapshot: SnapshotId, part: SnapshotPart) {
        self.shelf().part(from, snapshot, part);
    }

    fn close(&self, _patience: std::time::Duration) {}

    fn standing(&self) -> Standing {
        if self.shelf().health == Health::Sound {
            Standing::Sound
        } else {
            Standing::Refusing
        }
    }

    fn load(&self, to: WorkerId, session: SlotKey, messages: Vec<MessageNumber>) {
        self.shelf().loads.push((to, session, messages));
    }
}
