//! Stories about the store with its threads, on a real directory.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, Weak};
use std::time::Duration;

use super::super::files::OsFiles;
use super::super::options::{DiskOptions, SyncMode};
use super::super::recover::{RecoverMode, recover};
use super::super::store::{DiskStore, OpenError};
use super::world::{Seen, mark, message, number};
use crate::protocol::ids::{MessageNumber, SlotKey, WorkerId};
use crate::protocol::message::Message;
use crate::storage::{Batch, RetainedCursor, RetainedPart, SnapshotId, SnapshotPart, Store, StoreEvents};

/// A broker of one worker, which answers at once.
#[derive(Default)]
pub(super) struct Broker {
    store: Mutex<Weak<DiskStore>>,
    stored: Mutex<u64>,
    changed: Condvar,
    loaded: Mutex<Vec<Option<Arc<Message>>>>,
}

impl Broker {
    pub(super) fn wait_stored(&self, up_to: u64) {
        let mut stored = self.stored.lock().unwrap();
        while *stored < up_to {
            stored = self.changed.wait(stored).unwrap();
        }
    }
}

impl StoreEvents for Broker {
    fn stored(&self, _worker: WorkerId, up_to: u64) {
        *self.stored.lock().unwrap() = up_to;
        self.changed.notify_all();
    }

    fn failed(&self, _worker: WorkerId, up_to: u64) {
        panic!("{up_to} failed");
    }

    fn snapshot(&self, worker: WorkerId, snapshot: SnapshotId) {
        let part = SnapshotPart {
            bytes: mark(77),
            stored_messages: vec![number(1)],
            is_last: true,
        };
        let store = self.store.lock().unwrap().upgrade();
        // It may be asked for when the store is being dropped.
        if let Some(store) = store {
            store.submit_snapshot(worker, snapshot, part);
        }
    }

    fn snapshot_more(&self, _worker: WorkerId, _snapshot: SnapshotId) {}

    fn snapshot_retained(&self, _cursor: &mut RetainedCursor, out: &mut Vec<u8>) -> RetainedPart {
        out.extend(mark(78));
        RetainedPart::Last
    }

    fn loaded(&self, _worker: WorkerId, _session: SlotKey, messages: Vec<(MessageNumber, Option<Arc<Message>>)>) {
        self.loaded
            .lock()
            .unwrap()
            .extend(messages.into_iter().map(|loaded| loaded.1));
        self.changed.notify_all();
    }
}

pub(super) fn open(directory: &std::path::Path, sync: SyncMode) -> (Arc<DiskStore>, Arc<Broker>, Seen) {
    let mut seen = Seen::default();
    let options = DiskOptions {
        sync,
        segment_size: 64 * 1024,
        snapshot_after: 256 * 1024,
        ..DiskOptions::default()
    };
    let (store, opened) = DiskStore::open(directory, options, RecoverMode::RefuseDamage, &mut seen).unwrap();
    assert!(opened.report.gaps.is_empty());
    let (store, broker) = (Arc::new(store), Arc::<Broker>::default());
    *broker.store.lock().unwrap() = Arc::downgrade(&store);
    store.attach(Arc::<Broker>::clone(&broker));
    (store, broker, seen)
}

fn submit(store: &DiskStore, broker: &dyn StoreEvents, value: u64, bytes: Vec<u8>) {
    let batch = Batch {
        number: value,
        bytes,
        records: 1,
        messages: (value == 1).then(|| (number(1), number(1))),
    };
    if let Some(stored) = store.submit(WorkerId(0), batch) {
        broker.stored(WorkerId(0), stored.up_to);
    }
}

#[test]
fn what_is_stored_comes_back_and_a_close_leaves_nothing_to_replay() {
    for sync in [SyncMode::Always, SyncMode::Interval, SyncMode::Os] {
        let scratch = tempfile::tempdir().unwrap();
        let (store, broker, _) = open(scratch.path(), sync);
        submit(&store, &*broker, 1, message(1, b"first"));
        for value in 2..=50 {
            submit(&store, &*broker, value, mark(value));
        }
        broker.wait_stored(50);
        let session = SlotKey { slot: 0, generation: 0 };
        store.load(WorkerId(0), session, vec![number(1), number(2)]);
        let mut loaded = broker.loaded.lock().unwrap();
        while loaded.is_empty() {
            loaded = broker.changed.wait(loaded).unwrap();
        }
        assert_eq!(loaded[0].as_ref().unwrap().payload(), b"first");
        assert!(loaded[1].is_none());
        drop(loaded);
        let refused = DiskStore::open(
            scratch.path(),
            DiskOptions::default(),
            RecoverMode::Repair,
            &mut Seen::default(),
        );
        assert!(matches!(refused, Err(OpenError::Lock { .. })), "{refused:?}");
        drop(store); // without a snapshot
        let (store, _broker, seen) = open(scratch.path(), sync);
        assert_eq!(seen.marks, (2..=50).collect::<Vec<_>>());
        store.close(Duration::from_secs(60));
        drop(store);
        let (_store, _broker, mut seen) = open(scratch.path(), sync);
        seen.marks.sort_unstable();
        assert_eq!((seen.messages, seen.marks), (vec![1], vec![77, 78]));
    }
}

#[test]
fn a_log_that_grows_is_replaced_while_the_broker_works() {
    let scratch = tempfile::tempdir().unwrap();
    let (store, broker, _) = open(scratch.path(), SyncMode::Always);
    submit(&store, &*broker, 1, message(1, b"first"));
    let mut value = 1;
    while store.status().snapshots.load(Ordering::Relaxed) < 3 {
        value += 1;
        assert!(value < 1_000_000, "it never makes a snapshot: {:?}", store.status());
        submit(&store, &*broker, value, message(value, &[0; 1000]));
        if value % 50 == 0 {
            broker.wait_stored(value);
        }
        if value % 500 == 0 {
            // Somebody looks at it meanwhile.
            let mut seen = Seen::default();
            let recovered = recover(&OsFiles::new(scratch.path()), RecoverMode::ReadOnly, &mut seen).unwrap();
            assert!(recovered.report.gaps.is_empty(), "{:?}", recovered.report);
            assert!(seen.messages.contains(&value), "what was told as stored is seen");
        }
    }
    broker.wait_stored(value);
    store.close(Duration::from_secs(60));
    let bytes: u64 = std::fs::read_dir(scratch.path())
        .unwrap()
        .map(|file| file.unwrap().metadata().unwrap().len())
        .sum();
    assert!(bytes < 10_000, "{bytes} bytes are left of {value} kB");
}

/// A broker that does not come back from a call until it may.
#[derive(Default)]
struct Slow {
    calls: Mutex<u64>,
    changed: Condvar,
    /// Calls that may come back.
    may: Mutex<u64>,
    allowed: Condvar,
    /// Let go of by the first call, if it is the last to have it.
    store: Mutex<Option<Arc<DiskStore>>>,
}

impl Slow {
    fn allow(&self, calls: u64) {
        *self.may.lock().unwrap() = calls;
        self.allowed.notify_all();
    }

    fn wait_calls(&self, count: u64) {
        let mut calls = self.calls.lock().unwrap();
        while *calls < count {
            calls = self.changed.wait(calls).unwrap();
        }
    }
}

impl StoreEvents for Slow {
    fn stored(&self, _worker: WorkerId, _up_to: u64) {
        let call = {
            let mut calls = self.calls.lock().unwrap();
            *calls += 1;
            self.changed.notify_all();
            *calls
        };
        let mut may = self.may.lock().unwrap();
        while *may < call {
            may = self.allowed.wait(may).unwrap();
        }
        drop(may);
        drop(self.store.lock().unwrap().take());
    }

    fn failed(&self, _worker: WorkerId, up_to: u64) {
        panic!("{up_to} failed");
    }

    fn snapshot(&self, _worker: WorkerId, _snapshot: SnapshotId) {}

    fn snapshot_more(&self, _worker: WorkerId, _snapshot: SnapshotId) {}

    fn snapshot_retained(&self, _cursor: &mut RetainedCursor, _out: &mut Vec<u8>) -> RetainedPart {
        RetainedPart::Last
    }

    fn loaded(&self, _worker: WorkerId, _session: SlotKey, _messages: Vec<(MessageNumber, Option<Arc<Message>>)>) {}
}

fn open_slow(directory: &std::path::Path, waiting_max: u64) -> (Arc<DiskStore>, Arc<Slow>) {
    let options = DiskOptions {
        waiting_max,
        sync: SyncMode::Always, // so that the store's own thread writes everything
        ..DiskOptions::default()
    };
    let (store, _) = DiskStore::open(directory, options, RecoverMode::Repair, &mut Seen::default()).unwrap();
    let (store, broker) = (Arc::new(store), Arc::<Slow>::default());
    store.attach(Arc::<Slow>::clone(&broker));
    (store, broker)
}

#[test]
fn a_store_that_cannot_keep_up_says_so_until_it_has_caught_up() {
    const PIECE: usize = 64 * 1024;
    let scratch = tempfile::tempdir().unwrap();
    let (store, broker) = open_slow(scratch.path(), 64 * PIECE as u64);
    submit(&store, &*broker, 1, mark(1));
    broker.wait_calls(1);
    let wait = |bytes: u64| {
        while store.status().waiting_bytes.load(Ordering::Relaxed) > bytes {
            std::thread::sleep(Duration::from_millis(1));
        }
    };
    for value in 2..=64 {
        submit(&store, &*broker, value, message(value, &[0; PIECE]));
    }
    assert!(!store.is_behind(), "63 MiB wait");
    for value in 65..=66 {
        submit(&store, &*broker, value, message(value, &[0; PIECE]));
    }
    assert!(store.is_behind());
    broker.allow(1);
    broker.wait_calls(2);
    assert!(store.is_behind(), "they are not done with");
    for value in 67..=96 {
        submit(&store, &*broker, value, message(value, &[0; PIECE]));
    }
    broker.allow(2);
    wait(31 * PIECE as u64);
    assert!(!store.is_behind(), "30 MiB wait");
    broker.allow(u64::MAX);
    wait(0);
    assert_eq!(store.status().behind.load(Ordering::Relaxed), 1);
    let figures = store.figures();
    assert!(figures.contains(&("behind", 1)) && figures.contains(&("waiting_bytes", 0)));
}

#[test]
fn a_store_that_one_of_its_threads_lets_go_of_ends_too() {
    let scratch = tempfile::tempdir().unwrap();
    let (store, broker) = open_slow(scratch.path(), u64::MAX);
    submit(&store, &*broker, 1, mark(1));
    broker.wait_calls(1);
    *broker.store.lock().unwrap() = Some(store);
    broker.allow(1);
    let begin = std::time::Instant::now();
    let seen = loop {
        let mut seen = Seen::default();
        match DiskStore::open(
            scratch.path(),
            DiskOptions::default(),
            RecoverMode::RefuseDamage,
            &mut seen,
        ) {
            Ok(_) => break seen,
            Err(OpenError::Lock { .. }) => assert!(begin.elapsed() < Duration::from_secs(20), "it never ends"),
            Err(error) => panic!("{error}"),
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    assert_eq!(seen.marks, [1]);
}

/// Set for the process that is to end.
const CHILD: &str = "SUNDEW_TEST_PANICS_IN";

#[test]
fn a_thread_of_the_store_that_panics_ends_the_process() {
    if let Some(directory) = std::env::var_os(CHILD) {
        let directory = std::path::Path::new(&directory);
        let (store, broker) = open_slow(directory, u64::MAX);
        let poison = Arc::clone(&broker);
        _ = std::thread::spawn(move || {
            let _may = poison.may.lock().unwrap();
            panic!("so that whoever takes it panics");
        })
        .join();
        submit(&store, &*broker, 1, mark(1));
        std::thread::sleep(Duration::from_secs(20));
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    let name = "storage::disk::tests::threads::a_thread_of_the_store_that_panics_ends_the_process";
    let child = std::process::Command::new(std::env::current_exe().unwrap())
        .args([name, "--exact"])
        .env(CHILD, scratch.path())
        .output()
        .unwrap();
    let signal = std::os::unix::process::ExitStatusExt::signal(&child.status);
    assert_eq!(signal, Some(6), "{child:?}");
}
