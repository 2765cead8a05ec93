//! Layer 3: what must survive. Workers record what happened, the store keeps it, and what depends on it waits for the store.
//!
//! ```text
//!   worker ── record ──► Journal ── submit(batch) ──► Store ── written, synced ──► StoreEvents::stored(worker, number) ──► mail
//!                          │                            │
//!                          └ ticket: a batch's number   └ snapshot: the workers record their whole state once more, a part at a time
//! ```
//!
//! Records are idempotent: each says how something *is* (`Record`), so a snapshot that is taken while the broker works on, followed by
//! the log from where the snapshot began, gives the state of the log's end.

#[cfg(feature = "server")]
pub mod disk;
pub mod image;
pub mod journal;
pub mod record;

use core::time::Duration;
use std::sync::Arc;

use crate::protocol::ids::{MessageNumber, SlotKey, WorkerId};
use crate::protocol::message::Message;

pub use self::journal::{Journal, Numbers};
pub use self::record::Record;

/// The records of one worker since its last batch, encoded one behind the other (`record`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// Counts up from 1 for each worker; tickets are made of it.
    pub number: u64,
    /// Encoded records.
    pub bytes: Vec<u8>,
    /// How many.
    pub records: u32,
    /// Lowest and highest number among its `Record::Message`, so that one can be found again.
    pub messages: Option<(MessageNumber, MessageNumber)>,
}

/// The answer of a store that has written a batch at once.
#[derive(Debug)]
pub struct Stored {
    /// The worker's batches up to this one are as safe as the store promises.
    pub up_to: u64,
    /// The batch's buffer, to be used again: it is warm.
    pub buffer: Vec<u8>,
}

/// Which snapshot a part belongs to.
pub type SnapshotId = u64;

/// A part of a snapshot: the same records as in a batch, telling how things are.
#[derive(Clone, Debug, Default)]
pub struct SnapshotPart {
    /// Encoded records.
    pub bytes: Vec<u8>,
    /// Messages that the records name and that are not in memory: the store copies them from where it has them.
    pub stored_messages: Vec<MessageNumber>,
    /// The worker has no more.
    pub is_last: bool,
}

/// What [`StoreEvents::snapshot_retained`] has given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetainedPart {
    /// Some, and there may be more.
    Some,
    /// The last ones.
    Last,
    /// Nothing: the broker is no more, and nobody knows what there was. A snapshot that has not got all of it says too little, and must not count.
    Gone,
}

/// How a store stands. Read with every message that must survive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It keeps what it is given.
    Sound,
    /// It cannot write, and nothing that must survive may be accepted. It heals by itself.
    Refusing,
    /// It cannot write, and by option what must survive is accepted and kept in memory only.
    Forgetting,
}

/// Where records go.
pub trait Store: Send + Sync {
    /// False where nothing survives: then nothing is recorded and nothing waits.
    fn keeps(&self) -> bool;

    /// Called once, before anything else: where the store tells what has become of batches.
    fn attach(&self, events: Arc<dyn StoreEvents>);

    /// Takes a worker's batch. A worker's batches are kept in order, and a batch that was submitted before another worker was written
    /// a letter is kept before what that worker submits after reading it.
    ///
    /// Gives an answer where it is known at once; [`StoreEvents::stored`] is not called for it then.
    fn submit(&self, from: WorkerId, batch: Batch) -> Option<Stored>;

    /// True where a batch is safe a moment after it was submitted, as a rule: the broker then makes packets that depend on it before it
    /// knows, and sends them when it does.
    fn is_quick(&self) -> bool {
        false
    }

    /// Takes a part of a snapshot that the store has asked for by [`StoreEvents::snapshot`]. Batches that the worker submitted before
    /// are kept before the snapshot counts.
    fn submit_snapshot(&self, from: WorkerId, snapshot: SnapshotId, part: SnapshotPart);

    /// What it counts, by name, for those who watch it.
    fn figures(&self) -> Vec<(&'static str, u64)> {
        Vec::new()
    }

    /// Has a snapshot made soon, though none is due.
    fn compact(&self) {}

    /// How it stands now.
    fn standing(&self) -> Standing;

    /// True while more waits to be written than it can keep up with: until it has caught up, nothing more is to be read that could become a record.
    fn is_behind(&self) -> bool {
        false
    }

    /// Ends in order: everything that was submitted is kept, and if that can be done within `patience`, in a snapshot, so that the next
    /// start has nothing to replay. The workers are still at work; nothing is submitted afterwards that anybody waits for.
    fn close(&self, patience: Duration);

    /// Reads messages that are kept and not in memory; they come by [`StoreEvents::loaded`].
    fn load(&self, to: WorkerId, session: SlotKey, messages: Vec<MessageNumber>);
}

/// What a store tells, and asks of, the broker. Never blocks.
pub trait StoreEvents: Send + Sync {
    /// Every batch of a worker up to this one is as safe as the store promises.
    fn stored(&self, worker: WorkerId, up_to: u64);

    /// The batches up to this one that have not been told as stored are not kept for now: what they acknowledge to publishers is not to be acknowledged. They
    /// will be told as stored when the store has healed, which it does by a snapshot of everything.
    fn failed(&self, worker: WorkerId, up_to: u64);

    /// A snapshot begins: the worker is to record its state from here on, in parts. The next one is wanted when
    /// [`StoreEvents::snapshot_more`] comes.
    fn snapshot(&self, worker: WorkerId, snapshot: SnapshotId);

    /// The store has taken a part and has room for another.
    fn snapshot_more(&self, worker: WorkerId, snapshot: SnapshotId);

    /// Appends some retained messages to a snapshot, as records, behind those of the call before; `cursor` starts as the default.
    fn snapshot_retained(&self, cursor: &mut RetainedCursor, out: &mut Vec<u8>) -> RetainedPart;

    /// Messages that a worker wanted for a session; `None` where one cannot be read any more.
    fn loaded(&self, worker: WorkerId, session: SlotKey, messages: Vec<(MessageNumber, Option<Arc<Message>>)>);
}

/// How far a snapshot of the retained messages has come.
#[derive(Debug, Default)]
pub struct RetainedCursor(pub usize);

/// Keeps nothing but what is in memory anyway: acknowledged messages live as long as the process.
#[derive(Clone, Copy, Debug, Default)]
pub struct MemoryStore;

impl Store for MemoryStore {
    fn keeps(&self) -> bool {
        false
    }

    fn attach(&self, _events: Arc<dyn StoreEvents>) {}

    fn submit(&self, _from: WorkerId, _batch: Batch) -> Option<Stored> {
        None
    }

    fn submit_snapshot(&self, _from: WorkerId, _snapshot: SnapshotId, _part: SnapshotPart) {}

    fn standing(&self) -> Standing {
        Standing::Sound
    }

    fn close(&self, _patience: Duration) {}

    fn load(&self, _to: WorkerId, _session: SlotKey, _messages: Vec<MessageNumber>) {}
}
