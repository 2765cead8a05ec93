//! A store that nobody uses, brought into one file: what a broker does while it works, without a broker.

use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use super::backup::Applied;
use super::options::DiskOptions;
use super::recover::RecoverMode;
use super::store::{DiskStore, OpenError, Opened};
use crate::protocol::ids::{MessageNumber, SlotKey, WorkerId};
use crate::protocol::message::Message;
use crate::storage::image::{Image, ImageOptions, Report, Restored};
use crate::storage::{RetainedCursor, RetainedPart, SnapshotId, Store, StoreEvents};

/// What was made of a store.
#[derive(Debug)]
pub struct Compacted {
    /// What was found.
    pub opened: Opened,
    /// What is in it now; what had expired is not.
    pub restored: Report,
    /// False where nothing was to be done, or it could not be: see `is_sound`.
    pub is_written: bool,
    /// Everything is on the device.
    pub is_sound: bool,
}

/// Puts a snapshot in the place of everything in a directory; what is damaged goes to `quarantine/`. Does nothing where there is
/// nothing but a snapshot. Takes the directory meanwhile, and at most `patience`.
///
/// # Errors
/// [`OpenError`].
pub fn compact(directory: &Path, options: ImageOptions, patience: Duration) -> Result<Compacted, OpenError> {
    let mut image = Image::new(options);
    let disk = DiskOptions {
        reserve: 0, // it needs less space afterwards
        ..DiskOptions::default()
    };
    let (store, opened) = DiskStore::open(directory, disk, RecoverMode::Repair, &mut Applied(&mut image))?;
    let restored = image.finish(opened.time);
    let (asks, asked) = channel();
    store.attach(Arc::new(Asks(Mutex::new(asks))));
    thread::scope(|scope| {
        let (store, restored) = (&store, &restored);
        scope.spawn(move || tell(store, restored, &asked));
        store.compact();
        store.close(patience); // the writer ends, and with it who tells
    });
    Ok(Compacted {
        opened,
        is_written: store.status().snapshots.load(Ordering::Relaxed) > 0,
        is_sound: store.standing() == crate::storage::Standing::Sound,
        restored: restored.report,
    })
}

/// Tells the state whenever a snapshot begins, until there will be none.
fn tell(store: &DiskStore, restored: &Restored, asked: &Receiver<Ask>) {
    let mut next = asked.recv().ok();
    while let Some(Ask::Begin(worker, snapshot)) = next.take() {
        let mut is_current = true;
        restored.encode(&mut |part| {
            if !is_current {
                return;
            }
            let is_last = part.is_last;
            store.submit_snapshot(worker, snapshot, part);
            if !is_last {
                next = asked.recv().ok();
                is_current = next == Some(Ask::More(snapshot));
            }
        });
        if is_current {
            next = asked.recv().ok();
        }
    }
}

/// What the store wants to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ask {
    Begin(WorkerId, SnapshotId),
    More(SnapshotId),
}

#[derive(Debug)]
struct Asks(Mutex<Sender<Ask>>);

impl Asks {
    fn send(&self, ask: Ask) {
        let asks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = asks.send(ask); // who tells has ended: so does the store
    }
}

impl StoreEvents for Asks {
    fn stored(&self, _worker: WorkerId, _up_to: u64) {}

    fn failed(&self, _worker: WorkerId, _up_to: u64) {}

    fn snapshot(&self, worker: WorkerId, snapshot: SnapshotId) {
        self.send(Ask::Begin(worker, snapshot));
    }

    fn snapshot_more(&self, _worker: WorkerId, snapshot: SnapshotId) {
        self.send(Ask::More(snapshot));
    }

    fn snapshot_retained(&self, _cursor: &mut RetainedCursor, _out: &mut Vec<u8>) -> RetainedPart {
        RetainedPart::Last // they are told with the sessions
    }

    fn loaded(&self, _worker: WorkerId, _session: SlotKey, _messages: Vec<(MessageNumber, Option<Arc<Message>>)>) {}
}
