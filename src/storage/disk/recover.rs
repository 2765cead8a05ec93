//! Reads back what is in a data directory: the newest good snapshot and the log behind it, over torn tails and damage.
//!
//! Blocks of the log have consecutive numbers. Where a number is missing, blocks further on tell what it was: if one of them says that
//! it was on the device (`synced`), something is lost, and everything else that can be read still counts (a *gap*). If none does, the power went
//! before it was there, and nothing that depends on it was promised: the log ends before it (a *torn tail*), and is cut there.

mod repair;

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use super::block::{BLOCKS_START, BlockFacts, BlockKind, FileHeader, FileKind, FileName, HeaderError, StoreId};
use super::files::{Files, StoreFile};
use super::index::Index;
use super::walk::{Step, Walk};
use crate::protocol::ids::WorkerId;
use crate::protocol::time::Time;
use crate::storage::record;

/// What recovery may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecoverMode {
    /// Nothing but read, also where a broker is at work.
    ReadOnly,
    /// Cut what is torn; go on over damage.
    Repair,
    /// Cut what is torn; damage is an error, and nothing is touched.
    RefuseDamage,
}

/// Who is told what is in a store.
pub trait Visitor {
    /// A record, kind and body, in the order of the log.
    fn record(&mut self, record: &[u8], place: &Place<'_>);

    /// Something was here and cannot be read.
    fn gap(&mut self, gap: &Gap);
}

/// Where a record stands.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// File, relative to the data directory.
    pub file: &'a str,
    /// Where its block begins in the file.
    pub offset: u64,
    /// Number of its block.
    pub block: u64,
    /// Who recorded it.
    pub worker: WorkerId,
    /// When its block was written.
    pub time: Time,
    /// In a snapshot, not in the log.
    pub is_snapshot: bool,
}

/// Something that was in the store and cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// File, relative to the data directory.
    pub file: String,
    /// Where it begins.
    pub offset: u64,
    /// Bytes of the file that are damaged; 0 when they are not there at all.
    pub bytes: u64,
    /// Blocks that are missing, where that is known.
    pub blocks: u64,
}

/// A part of the log that was not yet on the device when the power went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Torn {
    /// File, relative to the data directory.
    pub file: String,
    /// Where the log ends now.
    pub offset: u64,
    /// Bytes behind that, in this file and later ones.
    pub bytes: u64,
}

/// What was found.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The snapshot it began with.
    pub snapshot: Option<u64>,
    /// Segments read.
    pub segments: usize,
    /// Blocks read, of snapshot and log.
    pub blocks: u64,
    /// Records read, of snapshot and log.
    pub records: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Records that were read from the log: what a snapshot would have spared.
    pub replayed: u64,
    /// What was cut off.
    pub torn: Option<Torn>,
    /// What is lost.
    pub gaps: Vec<Gap>,
    /// Files that are damaged, or of another store.
    pub damaged: Vec<String>,
    /// Last segments without anything: being made when the broker stopped; or damaged, that cannot be told.
    pub unmade: Vec<String>,
    /// The store was closed in order.
    pub is_clean: bool,
}

/// Why a store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    /// Of the operating system.
    #[error("{file}: {error}")]
    Io {
        /// Which file.
        file: String,
        /// What.
        error: io::Error,
    },
    /// Written by a newer version.
    #[error("{file}: {error}")]
    Version {
        /// Which file.
        file: String,
        /// Which form.
        error: HeaderError,
    },
    /// Damage, where that is to be refused.
    #[error(
        "{} is damaged at byte {}: {} bytes cannot be read; restore it from a backup, or set storage.on_corruption = \"quarantine\" to start without them",
        .0.file, .0.offset, .0.bytes
    )]
    Damaged(Gap),
}

/// What a store goes on from.
#[derive(Debug, Default)]
pub struct Recovered {
    /// For people.
    pub report: Report,
    /// The latest moment that is written anywhere, with the wall clock at that moment.
    pub stamp: Option<(Time, u64)>,
    pub(super) store: Option<StoreId>,
    pub(super) last_block: u64,
    pub(super) last_file: u64,
    pub(super) snapshot_bytes: u64,
    pub(super) log_bytes: u64,
    pub(super) present: BTreeMap<FileName, u64>,
    pub(super) index: Index,
    /// What could not be put in order: the device cannot be written. What was read counts all the same, and a snapshot has to take its place.
    pub(super) unrepaired: Option<io::Error>,
}

impl Recovered {
    /// The broker's time at a moment of the wall clock: it went on while the broker was down, as far as the wall clock knows.
    pub fn time_at(&self, wall: u64) -> Time {
        self.stamp.map_or(Time::default(), |(time, stamped)| {
            time.plus_millis(wall.saturating_sub(stamped))
        })
    }
}

/// Reads a data directory, and tells the visitor what is in it.
///
/// # Errors
/// [`RecoverError`]. Damage is none, unless that is asked for.
pub fn recover(files: &dyn Files, mode: RecoverMode, visitor: &mut dyn Visitor) -> Result<Recovered, RecoverError> {
    let found = open_all(files)?;
    let store = choose_store(&found);
    let mut names = found
        .iter()
        .filter(|file| file.length > BLOCKS_START)
        .map(|file| file.name);
    let mut recovery = Recovery {
        mode,
        visitor,
        recovered: Recovered {
            store,
            last_file: found.iter().map(|file| file.name.number).max().unwrap_or(0),
            present: found.iter().map(|file| (file.name, file.length)).collect(),
            ..Recovered::default()
        },
        last_used: names.rfind(|name| name.kind == FileKind::Segment),
        synced: 0,
        torn: None,
    };
    let (mut snapshots, mut segments) = (Vec::new(), Vec::new());
    for file in found {
        if recovery.belongs(&file)? {
            match file.name.kind {
                FileKind::Segment => segments.push(file),
                FileKind::Snapshot => snapshots.push(file),
            }
        }
    }
    recovery.read_all(&snapshots, &segments)?;
    recovery.report_torn(&segments);
    if mode != RecoverMode::ReadOnly {
        recovery.recovered.unrepaired = recovery.repair(files, &segments).err();
    }
    Ok(recovery.recovered)
}

/// A file of the directory, open.
#[derive(Debug)]
struct Found {
    name: FileName,
    text: String,
    file: Arc<dyn StoreFile>,
    length: u64,
    header: Result<FileHeader, HeaderError>,
}

/// Opens all files of a store at once, in order of kind and number. A broker that is at work may remove some meanwhile: then all is begun anew.
fn open_all(files: &dyn Files) -> Result<Vec<Found>, RecoverError> {
    const TRIES: usize = 10;
    let mut tries = 0;
    'again: loop {
        tries += 1;
        let names = files.list().map_err(|error| RecoverError::Io {
            file: files.directory(),
            error,
        })?;
        let mut names: Vec<_> = names.iter().filter_map(|text| FileName::parse(text)).collect();
        names.sort_unstable();
        let mut all = Vec::with_capacity(names.len());
        // The newest first: a broker that is at work goes on in the next segment when one is full, so what is older has everything before it.
        for name in names.into_iter().rev() {
            match open_one(files, name) {
                Ok(found) => all.push(found),
                Err(RecoverError::Io { error, .. }) if error.kind() == io::ErrorKind::NotFound && tries < TRIES => {
                    continue 'again;
                }
                Err(error) => return Err(error),
            }
        }
        all.reverse();
        return Ok(all);
    }
}

fn open_one(files: &dyn Files, name: FileName) -> Result<Found, RecoverError> {
    let text = name.text();
    let io = |error| RecoverError::Io {
        file: name.text(),
        error,
    };
    let file = files.open(&text).map_err(io)?;
    let length = file.length().map_err(io)?;
    let mut bytes = [0; BLOCKS_START as usize];
    // What cannot be read is damaged, and does not keep a broker from starting.
    let count = file.read_at(0, &mut bytes).unwrap_or(0);
    let header = FileHeader::decode(&bytes[..count]);
    if let Err(error @ HeaderError::Version(_)) = header {
        return Err(RecoverError::Version { file: text, error });
    }
    Ok(Found {
        name,
        text,
        file,
        length,
        header,
    })
}

/// The store that the newest snapshot is of, or else the first segment.
fn choose_store(found: &[Found]) -> Option<StoreId> {
    let of_kind = |kind| {
        found
            .iter()
            .filter(move |file| file.name.kind == kind)
            .filter_map(|file| file.header.ok().filter(|header| header.name == file.name))
    };
    let newest = of_kind(FileKind::Snapshot).next_back();
    newest
        .or_else(|| of_kind(FileKind::Segment).next())
        .map(|header| header.store)
}

struct Recovery<'v> {
    mode: RecoverMode,
    visitor: &'v mut dyn Visitor,
    recovered: Recovered,
    /// The last segment that has blocks.
    last_used: Option<FileName>,
    /// The highest block that some block says was on the device.
    synced: u64,
    /// Index of the segment in which the log ends early, and where.
    torn: Option<(usize, u64)>,
}

impl Recovery<'_> {
    /// False for a file of another store, and one that never came to be.
    fn belongs(&mut self, file: &Found) -> Result<bool, RecoverError> {
        let is_own = match file.header {
            Ok(header) => header.name == file.name && Some(header.store) == self.recovered.store,
            // Its blocks can still be known as those of this store. Without any, it was being made when the power went.
            Err(_) => file.length > BLOCKS_START && self.recovered.store.is_some(),
        };
        if !is_own && file.header.is_err() {
            // A snapshot gets its name when it is whole, and a segment is used when it has a header.
            if file.length > BLOCKS_START || file.name.kind == FileKind::Snapshot || Some(file.name) < self.last_used {
                self.gap(file, 0, file.length, 0)?;
            } else {
                self.recovered.report.unmade.push(file.text.clone());
            }
            return Ok(false);
        }
        if file.length > BLOCKS_START && (file.header.is_err() || !is_own) {
            self.recovered.report.damaged.push(file.text.clone());
        }
        Ok(is_own)
    }

    fn read_all(&mut self, snapshots: &[Found], segments: &[Found]) -> Result<(), RecoverError> {
        let mut expected = Some(1);
        let mut from = 0;
        let mut chain = snapshots;
        let mut is_newest_taken = false;
        if let Some((newest, older)) = snapshots.split_last() {
            // There is something older only if the broker was stopped between making the newest and removing the rest.
            let has_older = !older.is_empty()
                || segments
                    .first()
                    .is_some_and(|file| file.name < FileName::segment(newest.name.number));
            is_newest_taken = !has_older || self.is_whole_snapshot(newest);
            if is_newest_taken {
                chain = &snapshots[older.len()..];
            }
        }
        // As a rule one snapshot. Where the newest is damaged, the older ones and the log between them come first.
        for (at, snapshot) in chain.iter().enumerate() {
            let is_start = at == 0 && (is_newest_taken || self.is_start(snapshot, segments));
            if !is_start {
                expected = self.read_log(segments, from..snapshot.name.number, expected)?;
            }
            expected = self
                .read_snapshot(snapshot)?
                .map(|base| base + 1)
                .or(expected.filter(|_| !is_start));
            from = snapshot.name.number;
        }
        self.recovered.report.snapshot = chain.last().map(|file| file.name.number);
        let expected = self.read_log(segments, from..u64::MAX, expected)?;
        self.recovered.last_block = expected.map_or(0, |expected| expected - 1);
        Ok(())
    }

    /// True when nothing before a snapshot has to be read: there is nothing, or the snapshot is whole.
    fn is_start(&self, snapshot: &Found, segments: &[Found]) -> bool {
        let has_older = segments
            .first()
            .is_some_and(|file| file.name.number < snapshot.name.number);
        !has_older || self.is_whole_snapshot(snapshot)
    }

    fn walk<'f>(&self, found: &'f Found) -> Walk<'f> {
        let header = FileHeader {
            name: found.name,
            store: self.recovered.store.unwrap_or_default(),
            created: 0,
        };
        Walk::new(&*found.file, header.salt(), found.length, BLOCKS_START)
    }

    fn is_whole_snapshot(&self, found: &Found) -> bool {
        let mut walk = self.walk(found);
        let mut expected = 1;
        let mut last = None;
        loop {
            match walk.next() {
                Step::Block { header, .. } if header.facts.number == expected => {
                    expected += 1;
                    last = Some(header.facts.kind);
                }
                Step::End => return last == Some(BlockKind::SnapshotEnd),
                _ => return false,
            }
        }
    }

    /// Applies what can be read of a snapshot; says the last block of the log before it.
    fn read_snapshot(&mut self, found: &Found) -> Result<Option<u64>, RecoverError> {
        let mut walk = self.walk(found);
        let mut expected = 1;
        let mut base = None;
        let mut bad: Option<(u64, u64)> = None;
        let mut is_ended = false;
        loop {
            match walk.next() {
                Step::Block { offset, header, body } if header.facts.number >= expected => {
                    if header.facts.number > expected {
                        let (from, to) = bad.unwrap_or((offset, offset));
                        self.gap(found, from, to - from, header.facts.number - expected)?;
                    }
                    bad = None;
                    expected = header.facts.number + 1;
                    base = Some(header.facts.synced);
                    is_ended = header.facts.kind == BlockKind::SnapshotEnd;
                    self.apply(found, offset, &header.facts, body);
                }
                Step::Block { .. } => {}
                Step::Bad { from, to } => bad = Some((bad.map_or(from, |bad| bad.0), to)),
                Step::End => break,
            }
        }
        if !is_ended {
            let (from, to) = bad.unwrap_or((found.length, found.length));
            self.gap(found, from, to - from, 0)?;
        }
        self.recovered.snapshot_bytes = found.length;
        Ok(base)
    }

    /// Applies the log of some segments; says which block is expected next, `None` when any may be.
    fn read_log(
        &mut self,
        segments: &[Found],
        numbers: std::ops::Range<u64>,
        mut expected: Option<u64>,
    ) -> Result<Option<u64>, RecoverError> {
        let is_end = numbers.end == u64::MAX;
        // Bytes that are no blocks: segment, from, to.
        let mut bad: Option<(usize, u64, u64)> = None;
        for (at, found) in segments.iter().enumerate() {
            if !numbers.contains(&found.name.number) {
                continue;
            }
            self.recovered.report.segments += 1;
            self.recovered.log_bytes += found.length;
            if found.header.is_err() && !self.has_blocks(found) {
                // A header is on the device before the first block is written.
                self.gap(found, 0, found.length, 0)?;
                continue;
            }
            let mut walk = self.walk(found);
            loop {
                match walk.next() {
                    Step::Block { offset, header, body } => {
                        let (number, wanted) = (header.facts.number, expected.unwrap_or(header.facts.number));
                        if number < wanted {
                            continue;
                        }
                        if number > wanted {
                            let (file, from, to) = bad.unwrap_or((at, offset, offset));
                            if is_end && self.synced_behind(segments, at) < wanted {
                                self.torn = Some((file, from));
                                return Ok(expected);
                            }
                            self.gap(&segments[file], from, to - from, number - wanted)?;
                        }
                        bad = None;
                        expected = Some(number + 1);
                        self.apply(found, offset, &header.facts, body);
                    }
                    Step::Bad { from, to } => {
                        let first = bad.filter(|bad| bad.0 == at).map_or(from, |bad| bad.1);
                        bad = Some((at, first, to));
                    }
                    Step::End => break,
                }
            }
        }
        if let (Some((file, from, _)), true) = (bad, is_end) {
            self.torn = Some((file, from));
        }
        Ok(expected)
    }

    fn has_blocks(&self, found: &Found) -> bool {
        let mut walk = self.walk(found);
        loop {
            match walk.next() {
                Step::Block { .. } => return true,
                Step::Bad { .. } => {}
                Step::End => return false,
            }
        }
    }

    /// The highest block that any block from this segment on says was on the device. Looked up once: what comes later is higher.
    fn synced_behind(&mut self, segments: &[Found], at: usize) -> u64 {
        for found in &segments[at..] {
            let mut walk = self.walk(found);
            let mut synced = 0;
            loop {
                match walk.next() {
                    Step::Block { header, .. } => synced = header.facts.synced.max(synced),
                    Step::Bad { .. } => {}
                    Step::End => break,
                }
            }
            self.synced = self.synced.max(synced);
        }
        self.synced
    }

    fn apply(&mut self, found: &Found, offset: u64, facts: &BlockFacts, body: &[u8]) {
        let is_snapshot = found.name.kind == FileKind::Snapshot;
        let place = Place {
            file: &found.text,
            offset,
            block: facts.number,
            worker: facts.worker,
            time: facts.time,
            is_snapshot,
        };
        let mut records = 0;
        let numbers = record::message_numbers(record::records(body).inspect(|record| {
            records += 1;
            self.visitor.record(record, &place);
        }));
        let recovered = &mut self.recovered;
        if let Some(numbers) = numbers {
            recovered.index.note(found.name, offset, numbers);
        }
        recovered.stamp = recovered.stamp.max(Some((facts.time, facts.wall)));
        recovered.report.blocks += 1;
        recovered.report.records += records;
        recovered.report.bytes += body.len() as u64;
        if !is_snapshot {
            recovered.report.replayed += records;
            recovered.report.is_clean = facts.kind == BlockKind::CleanEnd;
        }
    }

    fn gap(&mut self, found: &Found, offset: u64, bytes: u64, blocks: u64) -> Result<(), RecoverError> {
        let gap = Gap {
            file: found.text.clone(),
            offset,
            bytes,
            blocks,
        };
        if self.mode == RecoverMode::RefuseDamage {
            return Err(RecoverError::Damaged(gap));
        }
        if !self.recovered.report.damaged.contains(&gap.file) {
            self.recovered.report.damaged.push(gap.file.clone());
        }
        self.visitor.gap(&gap);
        self.recovered.report.gaps.push(gap);
        Ok(())
    }

    fn report_torn(&mut self, segments: &[Found]) {
        if let Some((at, offset)) = self.torn {
            let behind: u64 = segments[at + 1..]
                .iter()
                .map(|found| found.length.saturating_sub(BLOCKS_START))
                .sum();
            self.recovered.report.torn = Some(Torn {
                file: segments[at].text.clone(),
                offset,
                bytes: behind + segments[at].length - offset,
            });
        }
    }
}
