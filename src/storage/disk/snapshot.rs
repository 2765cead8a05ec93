//! A snapshot that is being written, beside the log and out of its way.
//!
//! The workers' parts come one at a time from each; the retained messages are pulled. Messages that a part names and that are only in older files
//! are copied from there first. All of it goes in small slices, and never far ahead of the device, so that neither the log's
//! writes nor its syncs have to wait for a mountain.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use super::block::{BlockFacts, BlockKind, FileHeader, FileName, encode_block};
use super::files::{Files, StoreFile};
use super::index::{FileIndex, NumberSet};
use crate::protocol::ids::{MessageNumber, WorkerId};
use crate::protocol::time::Time;
use crate::storage::{RetainedCursor, RetainedPart, SnapshotId, SnapshotPart, StoreEvents, record};

/// Bytes written between two looks at the log's queue, and between two pauses: some tens of microseconds, as a thread that has a core for
/// longer is one that others wait for.
const SLICE_BYTES: u64 = 16 * 1024;
/// Retained messages are pulled until there are so many bytes for a block.
const RETAINED_BYTES: usize = 16 * 1024;
/// After so many bytes the device is asked to take them, and no more are written than as many again until it has: a sync of the log may have to
/// wait for all of them (ext4 brings the data of other files along with its journal).
const SYNC_BYTES: u64 = 1024 * 1024;

/// What a snapshot needs next.
#[derive(Debug)]
pub(super) enum Need {
    /// Nothing but parts from the workers, or the end of a job.
    Wait,
    /// To be looked at again soon.
    More,
    /// These messages from older files.
    Copy(Vec<MessageNumber>),
    /// A sync of its file.
    Sync,
    /// It is complete: a sync of its file, and of the log.
    Finish,
    /// To be given up: what is missing will not come.
    GiveUp,
}

/// See the module's text.
#[derive(Debug)]
pub(super) struct Snapshot {
    id: SnapshotId,
    header: FileHeader,
    file: Arc<dyn StoreFile>,
    /// The last block of the log before its first segment.
    base: u64,
    length: u64,
    blocks: u64,
    records: u64,
    buffer: Vec<u8>,
    workers_left: usize,
    parts: VecDeque<(WorkerId, SnapshotPart)>,
    is_copying: bool,
    /// Messages of the first part that are still to be copied.
    to_copy: Vec<MessageNumber>,
    copied: NumberSet,
    retained: RetainedCursor,
    is_retained_done: bool,
    retained_buffer: Vec<u8>,
    index: FileIndex,
    /// Bytes that the device has, or is asked to take.
    sync_asked: u64,
    is_syncing: bool,
    is_ended: bool,
}

/// Its name while it is written.
pub(super) fn temporary(id: SnapshotId) -> String {
    format!("snapshot-{id:020}.tmp")
}

impl Snapshot {
    /// Begins one that stands for everything up to block `base`; the log goes on in the segment of the same number.
    ///
    /// # Errors
    /// Of the file system.
    pub(super) fn create(files: &dyn Files, header: FileHeader, base: u64, workers: usize) -> io::Result<Self> {
        let id = header.name.number;
        let file = files.create(&temporary(id))?;
        let bytes = header.encode();
        if let Err(error) = file.write_at(0, &bytes) {
            _ = files.remove(&temporary(id)); // it will be tried again, under another name
            return Err(error);
        }
        Ok(Self {
            id,
            header,
            file,
            base,
            length: bytes.len() as u64,
            blocks: 0,
            records: 0,
            buffer: Vec::new(),
            workers_left: workers,
            parts: VecDeque::new(),
            is_copying: false,
            to_copy: Vec::new(),
            copied: NumberSet::default(),
            retained: RetainedCursor::default(),
            is_retained_done: false,
            retained_buffer: Vec::new(),
            index: FileIndex::default(),
            sync_asked: 0,
            is_syncing: false,
            is_ended: false,
        })
    }

    /// Which.
    pub(super) const fn id(&self) -> SnapshotId {
        self.id
    }

    /// Its name when it is done.
    pub(super) const fn name(&self) -> FileName {
        self.header.name
    }

    /// Its file.
    pub(super) fn file(&self) -> Arc<dyn StoreFile> {
        Arc::clone(&self.file)
    }

    /// Bytes written.
    pub(super) const fn bytes(&self) -> u64 {
        self.length
    }

    /// Records written.
    pub(super) const fn records(&self) -> u64 {
        self.records
    }

    /// Where its messages are, when it is done.
    pub(super) fn take_index(&mut self) -> FileIndex {
        std::mem::take(&mut self.index)
    }

    /// A worker's part has come.
    pub(super) fn part(&mut self, from: WorkerId, part: SnapshotPart) {
        self.parts.push_back((from, part));
    }

    /// Messages have been copied from older files; `rest` of those that were wanted are still to come.
    ///
    /// # Errors
    /// Of the file system.
    pub(super) fn copied(&mut self, bytes: &[u8], rest: Vec<MessageNumber>, stamp: (Time, u64)) -> io::Result<()> {
        self.is_copying = false;
        self.to_copy = rest;
        if bytes.is_empty() {
            return Ok(());
        }
        self.write_block(BlockKind::SnapshotPart, WorkerId(0), bytes, stamp)
    }

    /// A sync of its file has ended well.
    pub(super) fn synced(&mut self) {
        self.is_syncing = false;
    }

    /// True when everything is written, and the file is on the device.
    pub(super) const fn is_safe(&self) -> bool {
        self.is_ended && !self.is_syncing
    }

    /// Writes a slice.
    ///
    /// # Errors
    /// Of the file system.
    pub(super) fn step(&mut self, events: &dyn StoreEvents, stamp: (Time, u64)) -> io::Result<Need> {
        let start = self.length;
        while !self.is_ended {
            if self.length - self.sync_asked >= SYNC_BYTES {
                if self.is_syncing {
                    return Ok(Need::Wait); // the device is behind
                }
                return Ok(self.ask_sync(Need::Sync));
            }
            if self.length - start >= SLICE_BYTES {
                return Ok(Need::More);
            }
            let is_part_ready = !self.is_copying && !self.parts.is_empty();
            if is_part_ready {
                if let Some(numbers) = self.next_part(events, stamp)? {
                    self.is_copying = true;
                    return Ok(Need::Copy(numbers));
                }
            } else if !self.is_retained_done {
                if !self.pull_retained(events, stamp)? {
                    return Ok(Need::GiveUp);
                }
            } else if self.workers_left > 0 || self.is_copying || self.is_syncing {
                return Ok(Need::Wait);
            } else {
                self.write_block(BlockKind::SnapshotEnd, WorkerId(0), &[], stamp)?;
                self.is_ended = true;
                return Ok(self.ask_sync(Need::Finish));
            }
        }
        Ok(Need::Wait)
    }

    fn ask_sync(&mut self, need: Need) -> Need {
        self.sync_asked = self.length;
        self.is_syncing = true;
        need
    }

    /// Writes the first part that waits, unless messages have to be copied before.
    fn next_part(&mut self, events: &dyn StoreEvents, stamp: (Time, u64)) -> io::Result<Option<Vec<MessageNumber>>> {
        let Some((worker, mut part)) = self.parts.pop_front() else {
            return Ok(None);
        };
        let mut wanted = std::mem::take(&mut self.to_copy);
        let mut named = std::mem::take(&mut part.stored_messages);
        named.retain(|number| self.copied.insert(*number));
        wanted.append(&mut named);
        if !wanted.is_empty() {
            wanted.sort_unstable();
            self.parts.push_front((worker, part));
            return Ok(Some(wanted));
        }
        if !part.bytes.is_empty() {
            self.write_block(BlockKind::SnapshotPart, worker, &part.bytes, stamp)?;
        }
        if part.is_last {
            self.workers_left = self.workers_left.saturating_sub(1);
        } else {
            events.snapshot_more(worker, self.id);
        }
        Ok(None)
    }

    /// False when there is nobody who could tell.
    fn pull_retained(&mut self, events: &dyn StoreEvents, stamp: (Time, u64)) -> io::Result<bool> {
        let mut bytes = std::mem::take(&mut self.retained_buffer);
        bytes.clear();
        while bytes.len() < RETAINED_BYTES && !self.is_retained_done {
            match events.snapshot_retained(&mut self.retained, &mut bytes) {
                RetainedPart::Some => {}
                RetainedPart::Last => self.is_retained_done = true,
                RetainedPart::Gone => return Ok(false),
            }
        }
        if !bytes.is_empty() {
            self.write_block(BlockKind::SnapshotPart, WorkerId(0), &bytes, stamp)?;
        }
        bytes.shrink_to(4 * RETAINED_BYTES);
        self.retained_buffer = bytes;
        Ok(true)
    }

    fn write_block(&mut self, kind: BlockKind, worker: WorkerId, body: &[u8], stamp: (Time, u64)) -> io::Result<()> {
        let mut records = 0;
        if let Some(numbers) = record::message_numbers(record::records(body).inspect(|_| records += 1)) {
            self.index.note(self.length, numbers);
        }
        self.blocks += 1;
        self.records += u64::from(records);
        let facts = BlockFacts {
            kind,
            worker,
            records,
            number: self.blocks,
            synced: self.base,
            time: stamp.0,
            wall: stamp.1,
        };
        self.buffer.clear();
        encode_block(&facts, body, self.header.salt(), &mut self.buffer)?;
        self.file.write_at(self.length, &self.buffer)?;
        self.length += self.buffer.len() as u64;
        self.buffer.shrink_to(4 * RETAINED_BYTES);
        Ok(())
    }
}
