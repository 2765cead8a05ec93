//! The form of the store's files, version 2. What is written here is enough to write a reader. Version 1 has the same files, and records that
//! do not say who published what is retained; both are read, and the files of one directory may be of either.
//!
//! Numbers are little endian. CRC is CRC-32C (Castagnoli, as in iSCSI). There are two kinds of files, with the same form:
//! segments of the log, `segment-<number, 20 digits>.log`, and snapshots, `snapshot-<number, 20 digits>.snap` (`.tmp` while it is made).
//!
//! # File header: 64 bytes, written twice (at 0 and at 64), so that one damaged byte does not cost the file
//!
//! | at | bytes | what |
//! | --: | --: | --- |
//! | 0 | 8 | `SUNDEW\r\n` |
//! | 8 | 2 | form version: 1 or 2 |
//! | 10 | 1 | kind: 1 segment, 2 snapshot |
//! | 11 | 5 | zero |
//! | 16 | 8 | number: of a segment, counting up from 1; of a snapshot, the number of the first segment that is *not* in it |
//! | 24 | 16 | store: random, made with the directory; files of different stores do not mix |
//! | 40 | 8 | created: milliseconds since 1970 by the wall clock |
//! | 48 | 12 | zero |
//! | 60 | 4 | CRC of bytes 0 to 59 |
//!
//! # Blocks: from byte 128 on, one behind the other to the end of the file
//!
//! | at | bytes | what |
//! | --: | --: | --- |
//! | 0 | 4 | `BLK1` |
//! | 4 | 1 | kind: 1 batch, 2 snapshot part, 3 snapshot end, 4 stamp, 5 clean end |
//! | 5 | 1 | zero |
//! | 6 | 2 | worker that recorded it |
//! | 8 | 4 | length of the body |
//! | 12 | 4 | records in the body |
//! | 16 | 8 | number: in segments counting up by one from the first block of the first segment; in snapshots from 1 |
//! | 24 | 8 | synced: every block of the log up to this number was on the device when this one was written; in snapshots the last block of the log that everything behind the snapshot follows |
//! | 32 | 8 | time: the broker's time in milliseconds, going on over restarts |
//! | 40 | 8 | wall: milliseconds since 1970 at that time; never goes back |
//! | 48 | 4 | CRC of the body |
//! | 52 | 4 | CRC of bytes 0 to 51 |
//! | 56 | | body: records one behind the other (`storage::record`); empty for stamp, clean end and snapshot end |
//!
//! Both CRCs of a block begin not at zero but at the file's *salt*: the CRC of the store, followed by the number and the kind of the file. So bytes of
//! another file, and a block that somebody sends as a payload, are no blocks here.
//!
//! A snapshot is whole when its last block is a snapshot end; the number of that block says how many there are. Of a clean end nothing more is known than that
//! the store was closed in order behind it.

use std::io;

use crate::protocol::ids::WorkerId;
use crate::protocol::time::Time;

/// Bytes of one file header.
const HEADER_BYTES: usize = 64;
/// Where the first block begins: behind two file headers.
pub const BLOCKS_START: u64 = 2 * HEADER_BYTES as u64;
/// Bytes of a block's header.
pub const BLOCK_HEADER_BYTES: usize = 56;
/// How a block begins.
pub const BLOCK_MAGIC: &[u8; 4] = b"BLK1";

const FILE_MAGIC: &[u8; 8] = b"SUNDEW\r\n";
/// What is written.
const FORM_VERSION: u16 = 2;
/// What is read: this one, and all up to [`FORM_VERSION`].
const FORM_VERSION_OLDEST: u16 = 1;

/// What kind of file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FileKind {
    /// A part of the log.
    Segment,
    /// The state at some moment.
    Snapshot,
}

/// A file of the store, by kind and number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FileName {
    /// Kind.
    pub kind: FileKind,
    /// Number.
    pub number: u64,
}

impl FileName {
    /// A segment.
    pub const fn segment(number: u64) -> Self {
        Self {
            kind: FileKind::Segment,
            number,
        }
    }

    /// A snapshot.
    pub const fn snapshot(number: u64) -> Self {
        Self {
            kind: FileKind::Snapshot,
            number,
        }
    }

    /// Its name in the data directory.
    pub fn text(self) -> String {
        match self.kind {
            FileKind::Segment => format!("segment-{:020}.log", self.number),
            FileKind::Snapshot => format!("snapshot-{:020}.snap", self.number),
        }
    }

    /// Reads a name; `None` when it is not one of the store's.
    pub fn parse(text: &str) -> Option<Self> {
        let (kind, digits) = if let Some(rest) = text.strip_prefix("segment-") {
            (FileKind::Segment, rest.strip_suffix(".log")?)
        } else {
            let rest = text.strip_prefix("snapshot-")?;
            (FileKind::Snapshot, rest.strip_suffix(".snap")?)
        };
        let is_number = digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit());
        let number = digits.parse().ok().filter(|number| is_number && *number > 0)?;
        Some(Self { kind, number })
    }
}

/// Which store: random.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct StoreId(pub [u8; 16]);

/// What a file says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileHeader {
    /// Kind and number.
    pub name: FileName,
    /// Store.
    pub store: StoreId,
    /// When it was made, milliseconds since 1970.
    pub created: u64,
}

impl FileHeader {
    /// The first [`BLOCKS_START`] bytes of the file.
    pub fn encode(&self) -> Vec<u8> {
        let mut one = [0; HEADER_BYTES];
        one[..8].copy_from_slice(FILE_MAGIC);
        one[8..10].copy_from_slice(&FORM_VERSION.to_le_bytes());
        one[10] = kind_byte(self.name.kind);
        one[16..24].copy_from_slice(&self.name.number.to_le_bytes());
        one[24..40].copy_from_slice(&self.store.0);
        one[40..48].copy_from_slice(&self.created.to_le_bytes());
        let crc = crc32c::crc32c(&one[..60]);
        one[60..].copy_from_slice(&crc.to_le_bytes());
        [one, one].concat()
    }

    /// Reads it from the first bytes of a file.
    ///
    /// # Errors
    /// [`HeaderError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, HeaderError> {
        let mut error = HeaderError::Damaged;
        for one in bytes.chunks_exact(HEADER_BYTES).take(2) {
            match Self::decode_one(one) {
                Ok(header) => return Ok(header),
                Err(found @ HeaderError::Version(_)) => error = found,
                Err(HeaderError::Damaged) => {}
            }
        }
        Err(error)
    }

    fn decode_one(one: &[u8]) -> Result<Self, HeaderError> {
        if !one.starts_with(FILE_MAGIC) || u32_at(one, 60) != crc32c::crc32c(&one[..60]) {
            return Err(HeaderError::Damaged);
        }
        let version = u16::from_le_bytes([one[8], one[9]]);
        if !(FORM_VERSION_OLDEST..=FORM_VERSION).contains(&version) {
            return Err(HeaderError::Version(version));
        }
        let kind = match one[10] {
            1 => FileKind::Segment,
            2 => FileKind::Snapshot,
            _ => return Err(HeaderError::Damaged),
        };
        let mut store = StoreId::default();
        store.0.copy_from_slice(&one[24..40]);
        Ok(Self {
            name: FileName {
                kind,
                number: u64_at(one, 16),
            },
            store,
            created: u64_at(one, 40),
        })
    }

    /// Where the CRCs of the file's blocks begin.
    pub fn salt(&self) -> Salt {
        let crc = crc32c::crc32c(&self.store.0);
        let crc = crc32c::crc32c_append(crc, &self.name.number.to_le_bytes());
        Salt(crc32c::crc32c_append(crc, &[kind_byte(self.name.kind)]))
    }
}

/// What is wrong with a file's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// Both copies of it.
    #[error("its header is damaged")]
    Damaged,
    /// Written by a newer Sundew.
    #[error("it has form {0}, which this version does not read: use the version that wrote it, or a newer one")]
    Version(u16),
}

/// Where the CRCs of a file's blocks begin, see the module's text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Salt(u32);

/// What a block is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockKind {
    /// A worker's records.
    Batch,
    /// A part of a snapshot.
    SnapshotPart,
    /// The last block of a snapshot.
    SnapshotEnd,
    /// Tells the time.
    Stamp,
    /// The store was closed in order.
    CleanEnd,
}

impl BlockKind {
    const fn byte(self) -> u8 {
        match self {
            Self::Batch => 1,
            Self::SnapshotPart => 2,
            Self::SnapshotEnd => 3,
            Self::Stamp => 4,
            Self::CleanEnd => 5,
        }
    }

    const fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Batch,
            2 => Self::SnapshotPart,
            3 => Self::SnapshotEnd,
            4 => Self::Stamp,
            5 => Self::CleanEnd,
            _ => return None,
        })
    }
}

/// A block without its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockHeader {
    /// What it says of itself.
    pub facts: BlockFacts,
    /// Bytes of its body.
    pub length: u32,
    body_crc: u32,
}

/// What a block is made of, besides its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockFacts {
    /// Kind.
    pub kind: BlockKind,
    /// Who recorded it.
    pub worker: WorkerId,
    /// Records in its body.
    pub records: u32,
    /// Its number.
    pub number: u64,
    /// Blocks of the log up to this one were on the device; in a snapshot, the last one before its first segment.
    pub synced: u64,
    /// The broker's time.
    pub time: Time,
    /// Wall clock, milliseconds since 1970.
    pub wall: u64,
}

/// Appends a block.
///
/// # Errors
/// A body of 4 GiB or more has no place in a block: its length would be cut off, and what is behind it could not be read. Nothing is appended then.
pub fn encode_block(facts: &BlockFacts, body: &[u8], salt: Salt, out: &mut Vec<u8>) -> io::Result<()> {
    encode_block_header(facts, body, salt, out)?;
    out.extend_from_slice(body);
    Ok(())
}

/// Appends a block without its body, which is to stand behind it.
///
/// # Errors
/// As [`encode_block`].
pub fn encode_block_header(facts: &BlockFacts, body: &[u8], salt: Salt, out: &mut Vec<u8>) -> io::Result<()> {
    let length = u32::try_from(body.len()).map_err(|_| {
        let text = format!("{} bytes are too many for one block", body.len());
        io::Error::new(io::ErrorKind::FileTooLarge, text)
    })?;
    let start = out.len();
    out.reserve(BLOCK_HEADER_BYTES);
    out.extend_from_slice(BLOCK_MAGIC);
    out.extend_from_slice(&[facts.kind.byte(), 0]);
    out.extend_from_slice(&facts.worker.0.to_le_bytes());
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&facts.records.to_le_bytes());
    for number in [facts.number, facts.synced, facts.time.0, facts.wall] {
        out.extend_from_slice(&number.to_le_bytes());
    }
    out.extend_from_slice(&crc32c::crc32c_append(salt.0, body).to_le_bytes());
    let crc = crc32c::crc32c_append(salt.0, &out[start..]);
    out.extend_from_slice(&crc.to_le_bytes());
    Ok(())
}

impl BlockHeader {
    /// Reads the header of a block; `None` when these bytes are none of this file.
    pub fn decode(bytes: &[u8], salt: Salt) -> Option<Self> {
        let bytes = bytes.get(..BLOCK_HEADER_BYTES)?;
        if !bytes.starts_with(BLOCK_MAGIC) || u32_at(bytes, 52) != crc32c::crc32c_append(salt.0, &bytes[..52]) {
            return None;
        }
        Some(Self {
            facts: BlockFacts {
                kind: BlockKind::from_byte(bytes[4])?,
                worker: WorkerId(u16::from_le_bytes([bytes[6], bytes[7]])),
                records: u32_at(bytes, 12),
                number: u64_at(bytes, 16),
                synced: u64_at(bytes, 24),
                time: Time(u64_at(bytes, 32)),
                wall: u64_at(bytes, 40),
            },
            length: u32_at(bytes, 8),
            body_crc: u32_at(bytes, 48),
        })
    }

    /// True when this is the block's body.
    pub fn is_body(&self, body: &[u8], salt: Salt) -> bool {
        body.len() == self.length as usize && crc32c::crc32c_append(salt.0, body) == self.body_crc
    }

    /// Bytes of the whole block.
    pub const fn total_bytes(&self) -> u64 {
        BLOCK_HEADER_BYTES as u64 + self.length as u64
    }
}

const fn kind_byte(kind: FileKind) -> u8 {
    match kind {
        FileKind::Segment => 1,
        FileKind::Snapshot => 2,
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn header() -> FileHeader {
        FileHeader {
            name: FileName::segment(7),
            store: StoreId([9; 16]),
            created: 1_700_000_000_000,
        }
    }

    #[test]
    fn a_header_survives_any_one_damaged_byte() {
        let whole = header().encode();
        assert_eq!(whole.len() as u64, BLOCKS_START);
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x20;
            assert_eq!(FileHeader::decode(&bytes), Ok(header()), "byte {at}");
        }
        assert_eq!(FileHeader::decode(&[0; 128]), Err(HeaderError::Damaged));
        assert_eq!(FileHeader::decode(&whole[..63]), Err(HeaderError::Damaged));
    }

    #[test]
    fn names_are_read_back_and_nothing_else_is_taken_for_one() {
        for name in [FileName::segment(1), FileName::snapshot(u64::MAX)] {
            assert_eq!(FileName::parse(&name.text()), Some(name));
        }
        for text in [
            "lock",
            "segment-1.log",
            "segment-00000000000000000000.log",
            "snapshot-00000000000000000001.tmp",
            "segment-+0000000000000000001.log",
        ] {
            assert_eq!(FileName::parse(text), None, "{text}");
        }
    }

    #[test]
    #[cfg(target_pointer_width = "64")]
    fn a_body_that_is_too_long_for_its_length_is_no_block() {
        let facts = BlockFacts {
            kind: BlockKind::SnapshotPart,
            worker: WorkerId(0),
            records: 1,
            number: 1,
            synced: 0,
            time: Time(0),
            wall: 0,
        };
        let body = vec![0; 1 << 32]; // zeros that nobody touches take no memory
        let mut out = Vec::new();
        assert!(encode_block(&facts, &body, header().salt(), &mut out).is_err());
        assert!(out.is_empty());
    }

    proptest! {
        #[test]
        fn blocks_are_read_back_and_one_damaged_byte_is_seen(
            body in proptest::collection::vec(any::<u8>(), 0..200),
            numbers: (u64, u64, u64, u64, u16, u32),
            damage: (usize, u8),
        ) {
            let salt = header().salt();
            let facts = BlockFacts {
                kind: BlockKind::Batch,
                worker: WorkerId(numbers.4),
                records: numbers.5,
                number: numbers.0,
                synced: numbers.1,
                time: Time(numbers.2),
                wall: numbers.3,
            };
            let mut bytes = Vec::new();
            encode_block(&facts, &body, salt, &mut bytes).unwrap();
            let read = BlockHeader::decode(&bytes, salt).unwrap();
            prop_assert_eq!(read.total_bytes(), bytes.len() as u64);
            prop_assert!(read.is_body(&bytes[BLOCK_HEADER_BYTES..], salt));
            prop_assert_eq!(read.facts, facts);
            let other = FileHeader { name: FileName::segment(8), ..header() }.salt();
            prop_assert!(BlockHeader::decode(&bytes, other).is_none(), "of another file");
            let at = damage.0 % bytes.len();
            bytes[at] ^= damage.1.max(1);
            let is_whole = BlockHeader::decode(&bytes, salt).is_some_and(|read| read.is_body(&bytes[BLOCK_HEADER_BYTES..], salt));
            prop_assert!(!is_whole, "byte {}", at);
        }
    }
}
