//! Walks the blocks of one file, over whatever has happened to it.

use super::block::{BLOCK_HEADER_BYTES, BLOCK_MAGIC, BlockHeader, Salt};
use super::files::StoreFile;

/// Bytes read at once.
const WINDOW_BYTES: u64 = 1024 * 1024;
/// Bytes read at once where the device reports an error.
const PAGE_BYTES: u64 = 4096;

/// What is found at a place.
#[derive(Debug)]
pub(super) enum Step<'a> {
    /// A whole block.
    Block {
        /// Where it begins.
        offset: u64,
        /// Its header.
        header: BlockHeader,
        /// Its body.
        body: &'a [u8],
    },
    /// Bytes that are no block.
    Bad {
        /// The first of them.
        from: u64,
        /// The first behind them.
        to: u64,
    },
    /// The end of the file.
    End,
}

/// Goes through a file. Holds at most a window of it, or one block if that is larger.
#[derive(Debug)]
pub(super) struct Walk<'a> {
    file: &'a dyn StoreFile,
    salt: Salt,
    length: u64,
    at: u64,
    window: Vec<u8>,
    window_at: u64,
    window_bytes: u64,
}

impl<'a> Walk<'a> {
    /// Begins at a place where a block should begin.
    pub(super) fn new(file: &'a dyn StoreFile, salt: Salt, length: u64, at: u64) -> Self {
        Self {
            file,
            salt,
            length,
            at: at.min(length),
            window: Vec::new(),
            window_at: 0,
            window_bytes: WINDOW_BYTES,
        }
    }

    /// Reads that many bytes at once, where only a short part of a file is wanted.
    pub(super) fn with_window(mut self, bytes: u64) -> Self {
        self.window_bytes = bytes;
        self
    }

    /// Where it stands.
    pub(super) const fn offset(&self) -> u64 {
        self.at
    }

    /// The next thing in the file.
    pub(super) fn next(&mut self) -> Step<'_> {
        let from = self.at;
        if from >= self.length {
            return Step::End;
        }
        let salt = self.salt;
        let Some(header) = BlockHeader::decode(self.bytes(from, BLOCK_HEADER_BYTES as u64), salt) else {
            self.at = self.seek(from + 1);
            return Step::Bad { from, to: self.at };
        };
        let end = from + header.total_bytes();
        if end > self.length {
            self.at = self.length;
            return Step::Bad { from, to: self.at };
        }
        // The header is whole, so what follows begins behind the body, whatever that is.
        self.at = end;
        let body = &self.bytes(from, header.total_bytes())[BLOCK_HEADER_BYTES..];
        if header.is_body(body, salt) {
            Step::Block {
                offset: from,
                header,
                body,
            }
        } else {
            Step::Bad { from, to: end }
        }
    }

    /// Where the next block's header is, from here on; the file's end when there is none.
    fn seek(&mut self, mut from: u64) -> u64 {
        const MAGIC_BYTES: u64 = BLOCK_MAGIC.len() as u64;
        while from + BLOCK_HEADER_BYTES as u64 <= self.length {
            let length = self.window_bytes.min(self.length - from);
            let window = self.bytes(from, length);
            match memchr::memmem::find(window, BLOCK_MAGIC) {
                Some(found) => {
                    let at = from + found as u64;
                    let salt = self.salt;
                    if BlockHeader::decode(self.bytes(at, BLOCK_HEADER_BYTES as u64), salt).is_some() {
                        return at;
                    }
                    from = at + 1;
                }
                // The magic may begin in the last bytes of what was looked at.
                None => from += (length - MAGIC_BYTES + 1).max(1),
            }
        }
        self.length
    }

    /// Bytes of the file, fewer at its end.
    fn bytes(&mut self, from: u64, count: u64) -> &[u8] {
        let end = (from + count).min(self.length);
        let is_there = from >= self.window_at && end <= self.window_at + self.window.len() as u64;
        if !is_there {
            self.fill(from, end.max((from + self.window_bytes).min(self.length)));
        }
        let start = (from - self.window_at) as usize;
        &self.window[start..start + (end - from) as usize]
    }

    fn fill(&mut self, from: u64, to: u64) {
        self.window.clear();
        self.window.resize((to - from) as usize, 0);
        self.window_at = from;
        if self.file.read_at(from, &mut self.window).is_ok() {
            return;
        }
        // A part of the device cannot be read: what can be is, and the rest is zeros, which are no block.
        self.window.fill(0);
        for page in self.window.chunks_mut(PAGE_BYTES as usize).enumerate() {
            if self.file.read_at(from + page.0 as u64 * PAGE_BYTES, page.1).is_err() {
                page.1.fill(0);
            }
        }
    }
}
