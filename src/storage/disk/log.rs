//! The log that is being written: blocks into a segment, one write for a whole group.

use std::io;
use std::sync::Arc;

use super::block::{BLOCKS_START, BlockFacts, BlockKind, FileHeader, FileName, Salt, encode_block_header};
use super::files::{Files, StoreFile};
use super::index::Numbers;
use crate::protocol::ids::WorkerId;
use crate::protocol::time::Time;
use crate::storage::Batch;

/// What the clocks show.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Now {
    /// The broker's time, which goes on over restarts.
    pub time: Time,
    /// Wall clock, milliseconds since 1970; may jump.
    pub wall: u64,
}

/// A segment that was made and has no blocks yet. It is on the device.
#[derive(Debug)]
pub struct Segment {
    header: FileHeader,
    file: Arc<dyn StoreFile>,
    length: u64,
}

impl Segment {
    /// Makes one, and brings it to the device: a header that cannot be read later was damaged, not torn.
    ///
    /// # Errors
    /// Of the file system.
    pub(super) fn create(files: &dyn Files, header: FileHeader) -> io::Result<Self> {
        let name = header.name.text();
        let file = files.create(&name)?;
        let made = file
            .write_at(0, &header.encode())
            .and_then(|()| file.sync())
            .and_then(|()| files.sync_directory(""));
        if let Err(error) = made {
            _ = files.remove(&name); // it will be tried again, under another name
            return Err(error);
        }
        Ok(Self {
            header,
            file,
            length: BLOCKS_START,
        })
    }

    /// Its name.
    pub(super) const fn name(&self) -> FileName {
        self.header.name
    }

    fn salt(&self) -> Salt {
        self.header.salt()
    }
}

/// Files to be brought to the device, and what that makes safe.
#[derive(Debug)]
pub struct LogSync {
    files: Vec<Arc<dyn StoreFile>>,
    up_to: u64,
}

impl LogSync {
    /// Does it; says up to which block the log is on the device then.
    ///
    /// # Errors
    /// Of the file system: of no file of these is known what it holds.
    pub fn run(&self) -> io::Result<u64> {
        for file in &self.files {
            file.sync()?;
        }
        Ok(self.up_to)
    }
}

/// Where messages of written blocks are.
pub(super) type Note = (FileName, u64, Numbers);

/// The end of the log.
#[derive(Debug)]
pub(super) struct Log {
    segment: Option<Segment>,
    /// Finished segments whose last blocks may not be on the device.
    unsynced: Vec<Arc<dyn StoreFile>>,
    /// The last block that was put.
    last_block: u64,
    /// The last block that is on the device.
    synced: u64,
    /// What blocks say of that. It stays behind while blocks are missing and nothing stands in their place yet: then what is written behind them is, for
    /// who reads it, a torn tail, and counts no more than what is missing.
    told: u64,
    is_whole: bool,
    /// The last block that was written.
    written: u64,
    /// Blocks to be written at the end of the segment.
    buffer: Vec<u8>,
    /// Messages in them.
    notes: Vec<Note>,
    /// What the last block says of the time.
    stamp: (Time, u64),
}

/// Bytes that the buffer keeps for the next group.
const BUFFER_KEPT_BYTES: usize = 4 * 1024 * 1024;

impl Log {
    /// Goes on behind a block.
    pub(super) const fn new(last_block: u64, stamp: (Time, u64)) -> Self {
        Self {
            segment: None,
            unsynced: Vec::new(),
            last_block,
            synced: last_block,
            told: last_block,
            is_whole: true,
            written: last_block,
            buffer: Vec::new(),
            notes: Vec::new(),
            stamp,
        }
    }

    /// The last block that was put.
    pub(super) const fn last_block(&self) -> u64 {
        self.last_block
    }

    /// The last block that is on the device.
    pub(super) const fn synced_up_to(&self) -> u64 {
        self.synced
    }

    /// True when something is written that may not be on the device.
    pub(super) const fn has_unsynced(&self) -> bool {
        self.written > self.synced
    }

    /// Bytes that wait to be written.
    pub(super) const fn buffered(&self) -> usize {
        self.buffer.len()
    }

    /// Bytes in the segment, with those that wait to be written.
    pub(super) fn segment_bytes(&self) -> u64 {
        self.segment.as_ref().map_or(0, |segment| segment.length) + self.buffer.len() as u64
    }

    /// True when there is a segment, and nothing in it.
    pub(super) fn is_at_start(&self) -> bool {
        self.segment.is_some() && self.segment_bytes() == BLOCKS_START
    }

    /// The segment's name, if there is one.
    pub(super) fn segment_name(&self) -> Option<FileName> {
        self.segment.as_ref().map(Segment::name)
    }

    /// How far the wall clock has jumped ahead since the last block, in milliseconds.
    pub(super) fn jump(&self, now: Now) -> u64 {
        now.wall
            .saturating_sub(self.stamp.1 + now.time.millis_since(self.stamp.0))
    }

    /// The time as it is written: neither clock goes back.
    pub(super) fn stamp(&mut self, now: Now) -> (Time, u64) {
        let (time, wall) = self.stamp;
        self.stamp = (time.max(now.time), now.wall.max(wall + now.time.millis_since(time)));
        self.stamp
    }

    /// Puts a worker's batch behind what is there.
    ///
    /// # Errors
    /// It is too large for a block.
    pub(super) fn put_batch(&mut self, worker: WorkerId, batch: &Batch, now: Now) -> io::Result<()> {
        self.put_batch_header(worker, batch, now)?;
        if self.segment.is_some() {
            self.buffer.extend_from_slice(&batch.bytes);
        }
        Ok(())
    }

    /// The same without its body, which must be given to [`Log::write`] next.
    ///
    /// # Errors
    /// It is too large for a block.
    pub(super) fn put_batch_header(&mut self, worker: WorkerId, batch: &Batch, now: Now) -> io::Result<()> {
        if let (Some(numbers), Some(segment)) = (batch.messages, &self.segment) {
            let offset = segment.length + self.buffer.len() as u64;
            self.notes.push((segment.name(), offset, numbers));
        }
        self.put_header(BlockKind::Batch, worker, batch.records, &batch.bytes, now)
    }

    /// Puts a block without records.
    pub(super) fn put_mark(&mut self, kind: BlockKind, now: Now) {
        _ = self.put_header(kind, WorkerId(0), 0, &[], now); // nothing is not too large
    }

    fn put_header(&mut self, kind: BlockKind, worker: WorkerId, records: u32, body: &[u8], now: Now) -> io::Result<()> {
        let (time, wall) = self.stamp(now);
        let Some(segment) = &self.segment else {
            return Ok(()); // the engine puts nothing while it has no segment
        };
        self.last_block += 1;
        let facts = BlockFacts {
            kind,
            worker,
            records,
            number: self.last_block,
            synced: self.told,
            time,
            wall,
        };
        encode_block_header(&facts, body, segment.salt(), &mut self.buffer)
    }

    /// Writes what waits, and behind it the body of a block whose header was put last; says how many bytes, and hands out where messages are now.
    ///
    /// # Errors
    /// Of the file system: the segment is of no use any more.
    pub(super) fn write(&mut self, body: &[u8], notes: &mut Vec<Note>) -> io::Result<u64> {
        let Some(segment) = &mut self.segment else {
            return Ok(0);
        };
        if body.is_empty() {
            segment.file.write_at(segment.length, &self.buffer)?;
        } else {
            segment.file.write_both_at(segment.length, &self.buffer, body)?;
        }
        let bytes = (self.buffer.len() + body.len()) as u64;
        segment.length += bytes;
        self.written = self.last_block;
        self.buffer.clear();
        self.buffer.shrink_to(BUFFER_KEPT_BYTES);
        notes.append(&mut self.notes);
        Ok(bytes)
    }

    /// What is to be done so that everything written is on the device.
    pub(super) fn sync_job(&mut self) -> LogSync {
        let mut files = std::mem::take(&mut self.unsynced);
        files.extend(self.segment.as_ref().map(|segment| Arc::clone(&segment.file)));
        LogSync {
            files,
            up_to: self.written,
        }
    }

    /// A sync has ended well.
    pub(super) fn synced(&mut self, up_to: u64) {
        self.synced = self.synced.max(up_to);
        if self.is_whole {
            self.told = self.synced;
        }
    }

    /// Leaves a block out: a batch came that cannot be written.
    pub(super) const fn skip(&mut self) {
        self.last_block += 1;
        self.is_whole = false;
    }

    /// A snapshot stands in the place of what is missing.
    pub(super) const fn healed(&mut self) {
        self.is_whole = true;
        self.told = self.synced;
    }

    /// Goes on in another segment; what waits must have been written. Says how many bytes the finished one has.
    pub(super) fn rotate(&mut self, next: Segment) -> Option<(FileName, u64)> {
        let Some(finished) = self.segment.replace(next) else {
            // What is missing will not come.
            self.written = self.last_block;
            self.synced = self.last_block;
            return None;
        };
        if self.has_unsynced() {
            self.unsynced.push(Arc::clone(&finished.file));
        }
        Some((finished.name(), finished.length))
    }

    /// Gives the segment up: nothing is written to it any more, nor is it synced in the hope that it works now.
    pub(super) fn abandon(&mut self) -> Option<(FileName, u64)> {
        self.is_whole = false;
        self.unsynced.clear();
        self.buffer = Vec::new();
        self.notes.clear();
        self.written = self.synced;
        self.segment.take().map(|segment| (segment.name(), segment.length))
    }
}
