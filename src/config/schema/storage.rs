//! Options of the storage.

use core::time::Duration;
use std::path::PathBuf;

use super::seconds;
use crate::config::{
    option::{choice, section},
    value::Bytes,
};

section! {
    /// What survives the end of the broker: retained messages, sessions that outlive their connection with subscriptions, queues and
    /// QoS 2 state, and wills. What is acknowledged is kept as `sync` says.
    pub struct Storage {
        /// `"auto"`: where the directory can be written, else one warning and nothing survives; `true`: the broker does not start
        /// without; `false`: nothing survives. Cost: see `sync`.
        enabled: StorageEnabled = StorageEnabled::Auto;
        /// Where. One broker a directory; nothing else belongs there.
        /// Default: absent: systemd's `$STATE_DIRECTORY`, else `./data`. Cost: disk, about twice what is kept.
        directory: Option<PathBuf> = None;
        /// When what must survive is acknowledged: `"interval"`: when the operating system has it (kill -9 loses nothing, a power cut up to
        /// `sync_interval`); `"always"`: when the device has it (a power cut loses nothing); `"os"`: like `"interval"`, but the device gets it when the operating
        /// system likes. Cost of always: the device's time for a sync, shared by everything that waits for it.
        sync: Sync = Sync::Interval;
        /// Longest time between two syncs of what was written, for `sync = "interval"`. An idle broker writes nothing.
        /// Cost: wear of flash memory.
        sync_interval: Duration = seconds(1), in Duration::from_millis(1) => seconds(1);
        /// Size of a file of the log. Cost: none.
        segment_size: Bytes = Bytes(64 << 20), in Bytes(1 << 20) => Bytes(1 << 30);
        /// The log is replaced by a snapshot when it has grown by so much, and by as much as the last snapshot has. Taken while the broker
        /// works on; at most once a second, unless the log is four times that (for a moment it may be five times). Cost: less makes starts quicker and writes more.
        snapshot_after: Bytes = Bytes(64 << 20), in Bytes(1 << 20) => Bytes(1 << 40);
        /// What is done about damaged files at the start: `"quarantine"`: set aside, and what is readable is used and what is lost is
        /// named; `"refuse"`: the broker does not start. Cost of refuse: nobody is served before you have come.
        on_corruption: OnCorruption = OnCorruption::Quarantine;
        /// While the disk is full or fails, what would have to be kept is: `"refuse"`d (MQTT 5: 0x97, older clients are disconnected
        /// unacknowledged), or `"forget"`: accepted and kept in memory only, with a warning a minute. It heals by itself.
        /// Cost of forget: acknowledged messages are lost if the broker ends before.
        on_full: OnFull = OnFull::Refuse;
        /// Free space below which the disk counts as full, so that there is room to heal. Cost: none.
        reserve: Bytes = Bytes(16 << 20);
        /// What may wait in memory for a disk that is slow: above it clients are not read until half of it is written; nothing is dropped. Counted as
        /// `$SYS/broker/storage/behind`. Cost: so much memory.
        waiting_max: Bytes = Bytes(64 << 20), in Bytes(1 << 20) => Bytes(1 << 40);
        /// How long after an unclean stop the wills of those who were connected wait for their clients to come back.
        /// Cost: devices that are gone are told so that much later.
        will_grace: Duration = seconds(60), in seconds(0) => seconds(86_400);
    }
}

choice! {
    /// Whether something survives.
    pub enum StorageEnabled {
        /// Where the directory can be written.
        Auto = "auto",
        /// Or the broker does not start.
        On = "true",
        /// Nothing does.
        Off = "false",
    }
}

choice! {
    /// When what must survive is acknowledged.
    pub enum Sync {
        /// When the device has it.
        Always = "always",
        /// When the operating system has it; the device soon after.
        Interval = "interval",
        /// When the operating system has it.
        Os = "os",
    }
}

choice! {
    /// What is done about damaged files.
    pub enum OnCorruption {
        /// They are set aside.
        Quarantine = "quarantine",
        /// The broker does not start.
        Refuse = "refuse",
    }
}

choice! {
    /// What becomes of messages that cannot be kept.
    pub enum OnFull {
        /// They are refused.
        Refuse = "refuse",
        /// They are kept in memory only.
        Forget = "forget",
    }
}
