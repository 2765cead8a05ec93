//! Stories about which thread writes.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::super::options::SyncMode;
use super::super::store::DiskStore;
use super::threads::{Broker, open};
use super::world::{mark, message};
use crate::protocol::ids::WorkerId;
use crate::storage::{Batch, Store, StoreEvents};

fn submit(store: &DiskStore, broker: &Broker, worker: u16, number: u64, bytes: Vec<u8>) {
    let batch = Batch {
        number,
        bytes,
        records: 1,
        messages: None,
    };
    if let Some(stored) = store.submit(WorkerId(worker), batch) {
        broker.stored(WorkerId(worker), stored.up_to);
    }
}

fn written_by_workers(store: &DiskStore) -> u64 {
    store.status().written_by_workers.load(Ordering::Relaxed)
}

#[test]
fn small_batches_are_written_by_who_brings_them_and_large_ones_are_not() {
    let scratch = tempfile::tempdir().unwrap();
    let (store, broker, _) = open(scratch.path(), SyncMode::Os);
    let mut number = 0;
    while written_by_workers(&store) == 0 {
        number += 1;
        submit(&store, &broker, 0, number, mark(number));
        broker.wait_stored(number);
        assert!(number < 10_000, "nobody ever writes himself: {:?}", store.status());
    }
    for _ in 0..20 {
        number += 1;
        let before = written_by_workers(&store);
        submit(&store, &broker, 0, number, message(number, &[0; 300_000]));
        assert_eq!(written_by_workers(&store), before);
        broker.wait_stored(number);
    }
}

#[test]
fn where_every_batch_is_synced_no_worker_waits_for_it() {
    let scratch = tempfile::tempdir().unwrap();
    let (store, broker, _) = open(scratch.path(), SyncMode::Always);
    for number in 1..=50 {
        submit(&store, &broker, 0, number, mark(number));
        broker.wait_stored(number);
    }
    assert_eq!(written_by_workers(&store), 0);
}

#[test]
fn what_is_written_here_never_overtakes_what_was_handed_over() {
    const BATCHES: u64 = 3000;
    let scratch = tempfile::tempdir().unwrap();
    for sync in [SyncMode::Interval, SyncMode::Os] {
        let directory = scratch.path().join(format!("{sync:?}"));
        let (store, broker, _) = open(&directory, sync);
        std::thread::scope(|scope| {
            for worker in 0..2 {
                let (store, broker) = (Arc::clone(&store), Arc::clone(&broker));
                scope.spawn(move || {
                    for number in 1..=BATCHES {
                        let value = number * 2 + u64::from(worker);
                        let mut bytes = mark(value);
                        if value % 97 == 0 {
                            bytes.extend(message(value, &[0; 300_000]));
                        }
                        submit(&store, &broker, worker, number, bytes);
                    }
                });
            }
        });
        // On a busy machine everything may have been handed over so far.
        let mut last = BATCHES;
        while written_by_workers(&store) == 0 {
            last += 1;
            submit(&store, &broker, 0, last, mark(last * 2));
            std::thread::yield_now();
        }
        drop(store);
        let (_store, _broker, seen) = open(&directory, sync);
        for worker in 0..2 {
            let own: Vec<u64> = seen.marks.iter().copied().filter(|value| value % 2 == worker).collect();
            let until = if worker == 0 { last } else { BATCHES };
            let expected: Vec<u64> = (1..=until).map(|number| number * 2 + worker).collect();
            assert!(own == expected, "{sync:?}: worker {worker}: {} of {until}", own.len());
        }
    }
}
