//! Layer 6: the store on disk. An append-only log in segments, and snapshots that take the place of what is older.
//!
//! `block.rs` has the form of the files, `recover.rs` how they are read back. `engine.rs` is the writer, a state machine over the file
//! system of `files.rs`; `store.rs` gives it threads and a clock, `writer.rs` says which thread writes.

#![allow(clippy::disallowed_methods)] // the I/O half reads the clock

pub mod backup;
pub mod block;
mod compaction;
pub mod engine;
pub mod files;
mod healing;
mod index;
pub mod jobs;
pub mod log;
pub mod offline;
pub mod options;
pub mod recover;
mod snapshot;
pub mod start;
pub mod status;
pub mod store;
#[cfg(test)]
mod tests;
mod walk;
mod writer;

pub use self::options::{DiskOptions, FullPolicy, SyncMode};
pub use self::start::StorageOptions;
pub use self::store::{DiskStore, OpenError, Opened};
