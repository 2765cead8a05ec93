//! How a store is kept.

/// When what was written is brought to the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum SyncMode {
    /// Before it is told as stored: survives a loss of power. Costs one sync for each group of batches.
    Always,
    /// At most [`DiskOptions::sync_interval`] later: survives the end of the process at once, a loss of power after that time.
    #[default]
    Interval,
    /// When the operating system likes to, and when a segment is full: survives the end of the process.
    Os,
}

/// What becomes of what must survive while nothing can be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum FullPolicy {
    /// It is refused.
    #[default]
    Refuse,
    /// It is accepted and kept in memory only, with a warning each minute.
    Forget,
}

/// How a store is kept.
///
/// # Defaults
/// `sync` every second at most, segments and snapshots after 64 MiB, a reserve of 16 MiB, 64 MiB that may wait, refusing when full, one worker.
#[derive(Clone, Debug)]
pub struct DiskOptions {
    /// When what was written is brought to the device; default [`SyncMode::Interval`].
    pub sync: SyncMode,
    /// Milliseconds that something may be written and not on the device, in [`SyncMode::Interval`]; default 1000. What a loss of power may
    /// cost; a small one wears flash.
    pub sync_interval: u64,
    /// Bytes after which a segment is finished; default 64 MiB. It may get larger by a group of batches, or while no other can be made.
    pub segment_size: u64,
    /// Bytes of the log after which a snapshot is made, unless the last snapshot is larger: then as many as that has; default 64 MiB. Where the log
    /// fills more often than once a second, a snapshot waits for that second, or four times as many bytes. A large one costs space and time at the
    /// start, a small one writes everything again and again.
    pub snapshot_after: u64,
    /// Bytes that are left free on the device, so that there is room to heal; default 16 MiB, 0 for none.
    pub reserve: u64,
    /// Bytes of batches that may wait to be written before the store says that it is behind; it has caught up at the half; default 64 MiB. So
    /// much memory a slow device may cost, and what the workers have read already.
    pub waiting_max: u64,
    /// What becomes of what must survive while nothing can be written; default [`FullPolicy::Refuse`].
    pub on_full: FullPolicy,
    /// Workers of the broker: all of them take part in a snapshot.
    pub workers: u16,
}

impl Default for DiskOptions {
    fn default() -> Self {
        const MIB: u64 = 1024 * 1024;
        Self {
            sync: SyncMode::default(),
            sync_interval: 1000,
            segment_size: 64 * MIB,
            snapshot_after: 64 * MIB,
            reserve: 16 * MIB,
            waiting_max: 64 * MIB,
            on_full: FullPolicy::default(),
            workers: 1,
        }
    }
}
