//! What a store counts.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use crate::storage::Standing;

/// Counters and gauges of a store, since it was opened. Any thread may read them.
#[derive(Debug, Default)]
pub struct StoreStatus {
    /// Batches written.
    pub batches: AtomicU64,
    /// Records written, without those of snapshots.
    pub records: AtomicU64,
    /// Bytes written to the log.
    pub bytes: AtomicU64,
    /// Writes to the log: each takes all batches that are there.
    pub groups: AtomicU64,
    /// Those of them that a worker made itself.
    pub written_by_workers: AtomicU64,
    /// Syncs of the log.
    pub syncs: AtomicU64,
    /// Microseconds that syncs of the log took, all told.
    pub sync_micros: AtomicU64,
    /// Batches that were dropped while nothing could be written.
    pub dropped: AtomicU64,
    /// Snapshots made.
    pub snapshots: AtomicU64,
    /// Snapshots given up.
    pub snapshot_failures: AtomicU64,
    /// Writes and syncs of the log that failed.
    pub failures: AtomicU64,
    /// Bytes of the newest snapshot.
    pub snapshot_bytes: AtomicU64,
    /// Bytes of the log since then.
    pub log_bytes: AtomicU64,
    /// Messages that were to be read back and were not found.
    pub missing: AtomicU64,
    /// Bytes of batches that wait to be written.
    pub waiting_bytes: AtomicU64,
    /// Times when more of them waited than may, and clients were read slower.
    pub behind: AtomicU64,
    standing: AtomicU8,
}

impl StoreStatus {
    /// All of them, by name.
    pub fn figures(&self) -> Vec<(&'static str, u64)> {
        [
            ("batches", &self.batches),
            ("records", &self.records),
            ("bytes", &self.bytes),
            ("groups", &self.groups),
            ("written_by_workers", &self.written_by_workers),
            ("syncs", &self.syncs),
            ("sync_micros", &self.sync_micros),
            ("dropped", &self.dropped),
            ("snapshots", &self.snapshots),
            ("snapshot_failures", &self.snapshot_failures),
            ("failures", &self.failures),
            ("snapshot_bytes", &self.snapshot_bytes),
            ("log_bytes", &self.log_bytes),
            ("missing", &self.missing),
            ("waiting_bytes", &self.waiting_bytes),
            ("behind", &self.behind),
        ]
        .map(|(name, value)| (name, value.load(Ordering::Relaxed)))
        .to_vec()
    }

    /// How the store stands.
    pub fn standing(&self) -> Standing {
        match self.standing.load(Ordering::Acquire) {
            0 => Standing::Sound,
            1 => Standing::Refusing,
            _ => Standing::Forgetting,
        }
    }

    pub(super) fn stand(&self, standing: Standing) {
        let value = match standing {
            Standing::Sound => 0,
            Standing::Refusing => 1,
            Standing::Forgetting => 2,
        };
        self.standing.store(value, Ordering::Release);
    }
}

/// Counts one or more.
pub(super) fn count(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Ordering::Relaxed);
}

/// Sets a gauge.
pub(super) fn set(gauge: &AtomicU64, value: u64) {
    gauge.store(value, Ordering::Relaxed);
}
