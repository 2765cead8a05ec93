//! Where in the store's files a message is: for each 64 KiB of a file the lowest and highest number of the messages in the blocks that begin there.

use std::collections::BTreeMap;

use super::block::FileName;
use crate::protocol::ids::MessageNumber;

/// Blocks that begin in the same part of a file share entries.
const CHUNK_BYTES: u64 = 64 * 1024;
/// Messages whose numbers are further apart have separate entries: numbers come in ranges for each worker.
const APART: u64 = 4096;
/// Entries for one chunk at most; then they grow wide.
const ENTRIES_PER_CHUNK: usize = 16;

/// Lowest and highest number of some messages.
pub(super) type Numbers = (MessageNumber, MessageNumber);

/// The index of all files. 32 bytes for each 64 KiB that holds messages, as a rule.
#[derive(Debug, Default)]
pub(super) struct Index {
    files: BTreeMap<FileName, FileIndex>,
}

/// The index of one file.
#[derive(Debug, Default)]
pub(super) struct FileIndex {
    entries: Vec<Entry>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    /// Where the first of the blocks begins.
    offset: u64,
    lowest: u64,
    highest: u64,
}

/// A part of a file where wanted messages may be: in blocks that begin there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Part {
    /// File.
    pub(super) file: FileName,
    /// Where a block begins.
    pub(super) from: u64,
    /// Blocks from here on are of the next part.
    pub(super) to: u64,
}

impl FileIndex {
    /// Notes the messages of a block, in the order of the file.
    pub(super) fn note(&mut self, offset: u64, numbers: Numbers) {
        let (lowest, highest) = (numbers.0.0.get(), numbers.1.0.get());
        let chunk = offset / CHUNK_BYTES;
        let of_chunk = self
            .entries
            .iter()
            .rev()
            .take_while(|entry| entry.offset / CHUNK_BYTES == chunk)
            .count();
        let start = self.entries.len() - of_chunk;
        let near = self.entries[start..]
            .iter()
            .position(|entry| {
                lowest <= entry.highest.saturating_add(APART) && highest.saturating_add(APART) >= entry.lowest
            })
            .or_else(|| (of_chunk >= ENTRIES_PER_CHUNK).then(|| of_chunk - 1));
        match near {
            Some(at) => {
                let entry = &mut self.entries[start + at];
                entry.lowest = entry.lowest.min(lowest);
                entry.highest = entry.highest.max(highest);
            }
            None => self.entries.push(Entry {
                offset,
                lowest,
                highest,
            }),
        }
    }
}

impl Index {
    /// Notes the messages of a block.
    pub(super) fn note(&mut self, file: FileName, offset: u64, numbers: Numbers) {
        self.files.entry(file).or_default().note(offset, numbers);
    }

    /// A snapshot has taken the place of everything before it.
    pub(super) fn replace(&mut self, snapshot: FileName, index: FileIndex) {
        self.files.retain(|file, _| file.number >= snapshot.number);
        self.files.insert(snapshot, index);
    }

    /// Parts in which any of the messages may be, those of one file in the file's order. `wanted` is in ascending order.
    pub(super) fn find(&self, wanted: &[MessageNumber]) -> Vec<Part> {
        let mut parts: Vec<Part> = Vec::new();
        for (file, index) in &self.files {
            for entry in &index.entries {
                let at = wanted.partition_point(|number| number.0.get() < entry.lowest);
                if wanted.get(at).is_some_and(|number| number.0.get() <= entry.highest) {
                    parts.push(Part {
                        file: *file,
                        from: entry.offset,
                        to: (entry.offset / CHUNK_BYTES + 1) * CHUNK_BYTES,
                    });
                }
            }
        }
        // Entries of one chunk begin in different places and end in one: the first covers the others.
        parts.sort_unstable();
        parts.dedup_by(|later, earlier| later.file == earlier.file && later.to == earlier.to);
        parts
    }
}

/// A set of message numbers: one bit for each where they are dense.
#[derive(Debug, Default)]
pub(super) struct NumberSet {
    words: std::collections::HashMap<u64, [u64; 16], foldhash::fast::RandomState>,
}

impl NumberSet {
    /// Adds a number; false when it was there.
    pub(super) fn insert(&mut self, number: MessageNumber) -> bool {
        let number = number.0.get();
        let words = self.words.entry(number / 1024).or_default();
        let (word, bit) = (number / 64 % 16, 1 << (number % 64));
        let is_new = words[word as usize] & bit == 0;
        words[word as usize] |= bit;
        is_new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(value: u64) -> MessageNumber {
        MessageNumber::new(value).unwrap()
    }

    #[test]
    fn a_message_is_looked_for_only_where_it_may_be() {
        let mut index = Index::default();
        let file = FileName::segment(1);
        // Two workers, one of which is far behind.
        for block in 0..1000u64 {
            let first = if block % 100 == 0 {
                block / 100 + 1
            } else {
                100_000 + block * 10
            };
            index.note(file, 128 + block * 1000, (number(first), number(first + 9)));
        }
        let parts = index.find(&[number(100_505)]);
        assert_eq!(parts.len(), 1, "{parts:?}");
        assert!(parts[0].from <= 128 + 50_000 && parts[0].to > 128 + 50_000);
        assert!(index.find(&[number(50_000)]).is_empty());
        assert_eq!(index.find(&[number(100_011), number(109_991)]).len(), 2);
    }

    #[test]
    fn a_snapshot_takes_the_place_of_what_was_before() {
        let mut index = Index::default();
        for segment in 1..=3 {
            index.note(FileName::segment(segment), 128, (number(segment), number(segment)));
        }
        let mut of_snapshot = FileIndex::default();
        of_snapshot.note(128, (number(1), number(2)));
        index.replace(FileName::snapshot(3), of_snapshot);
        let files: Vec<_> = index
            .find(&[number(1), number(3)])
            .iter()
            .map(|part| part.file)
            .collect();
        assert_eq!(files, [FileName::segment(3), FileName::snapshot(3)]);
    }

    #[test]
    fn a_number_is_new_once() {
        let mut set = NumberSet::default();
        for value in [1, 63, 64, 1024, 1 << 40] {
            assert!(set.insert(number(value)));
            assert!(!set.insert(number(value)));
        }
    }
}
