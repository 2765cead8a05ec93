//! Bytes that wait for the network: what a connection has been given and its socket has not taken yet.

use std::collections::VecDeque;

use bytes::{Buf, Bytes};

use super::rare::Rare;

/// Sent bytes at the front of the tail that are worth moving the rest for.
const COMPACT_FROM_BYTES: usize = 64 * 1024;

/// The output of one connection: small packets are copied one behind the other, large payloads stand in between by reference.
#[derive(Debug, Default)]
pub struct Output {
    /// Complete pieces before the tail, oldest first.
    pieces: Rare<VecDeque<Bytes>>,
    /// Bytes of `pieces`.
    pieces_bytes: usize,
    /// Where packets are appended.
    tail: Vec<u8>,
    /// Bytes of the tail that have left.
    tail_sent: usize,
}

impl Output {
    /// The buffer that packets are appended to.
    #[inline]
    pub fn tail(&mut self) -> &mut Vec<u8> {
        &mut self.tail
    }

    /// Appends bytes by reference.
    pub fn push_shared(&mut self, bytes: Bytes) {
        self.seal_tail();
        self.pieces_bytes += bytes.len();
        self.pieces.push_back(bytes);
    }

    /// Bytes that wait.
    #[inline]
    pub fn len(&self) -> usize {
        self.pieces_bytes + self.tail.len() - self.tail_sent
    }

    /// True when nothing waits.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What waits, in order, for a vectored write.
    pub fn chunks(&self) -> impl Iterator<Item = &[u8]> {
        let tail = &self.tail[self.tail_sent..];
        self.pieces
            .iter()
            .map(|piece| &piece[..])
            .chain((!tail.is_empty()).then_some(tail))
    }

    /// Forgets the first `count` bytes: the network has them.
    pub fn advance(&mut self, mut count: usize) {
        while let Some(piece) = self.pieces.get_mut().and_then(VecDeque::front_mut) {
            if count < piece.len() {
                piece.advance(count);
                self.pieces_bytes -= count;
                return;
            }
            count -= piece.len();
            self.pieces_bytes -= piece.len();
            self.pieces.pop_front();
        }
        self.tail_sent += count;
        debug_assert!(self.tail_sent <= self.tail.len());
        if self.tail_sent >= self.tail.len() {
            self.tail.clear();
            self.tail_sent = 0;
        } else if self.tail_sent >= COMPACT_FROM_BYTES && self.tail_sent * 2 >= self.tail.len() {
            // A reader that never catches up would otherwise keep everything it was ever sent.
            self.tail.drain(..self.tail_sent);
            self.tail_sent = 0;
        }
    }

    /// Takes out everything behind the first `keep` bytes.
    pub fn cut(&mut self, keep: usize) -> Vec<u8> {
        let all = self.chunks().collect::<Vec<_>>().concat();
        self.clear();
        self.tail.extend_from_slice(&all[..keep.min(all.len())]);
        all[keep.min(all.len())..].to_vec()
    }

    /// Drops everything that waits.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// Gives an empty output a buffer that was used before.
    #[inline]
    pub fn lend(&mut self, buffer: Vec<u8>) {
        if self.tail.capacity() == 0 {
            self.tail = buffer;
        }
    }

    /// Takes the buffer of an output in which nothing waits, so that an idle connection owns none.
    #[inline]
    pub fn reclaim(&mut self) -> Option<Vec<u8>> {
        (self.is_empty() && self.tail.capacity() > 0).then(|| std::mem::take(&mut self.tail))
    }

    /// True when it owns no buffer yet.
    #[inline]
    pub fn needs_buffer(&self) -> bool {
        self.tail.capacity() == 0
    }

    fn seal_tail(&mut self) {
        if self.tail.len() > self.tail_sent {
            let mut sealed = Bytes::from(std::mem::take(&mut self.tail));
            sealed.advance(self.tail_sent);
            self.pieces_bytes += sealed.len();
            self.pieces.push_back(sealed);
        } else {
            self.tail.clear();
        }
        self.tail_sent = 0;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_reader_that_never_catches_up_keeps_no_bytes_it_was_sent() {
        let mut output = Output::default();
        output.tail().extend_from_slice(&[0; 1000]);
        for _ in 0..10_000 {
            output.tail().extend_from_slice(&[0; 1000]);
            output.advance(1000);
        }
        assert_eq!(output.len(), 1000);
        assert!(output.tail.capacity() < 1 << 20);
    }

    proptest! {
        #[test]
        fn bytes_leave_in_the_order_they_came(script in proptest::collection::vec((0u8..4, 0usize..50), 0..100)) {
            let (mut output, mut expected, mut sent) = (Output::default(), Vec::<u8>::new(), Vec::<u8>::new());
            let mut next = 0u8;
            for (what, count) in script {
                let fresh: Vec<u8> = (0..count).map(|_| { next = next.wrapping_add(1); next }).collect();
                match what {
                    0 => { output.tail().extend_from_slice(&fresh); expected.extend(fresh); }
                    1 => { expected.extend(&fresh); output.push_shared(fresh.into()); }
                    2 => {
                        let behind = output.cut(count);
                        prop_assert_eq!(output.len() + behind.len(), expected.len() - sent.len());
                        output.tail().extend(behind);
                    }
                    _ => {
                        let waiting: Vec<u8> = output.chunks().flatten().copied().collect();
                        prop_assert_eq!(waiting.len(), output.len());
                        let count = count.min(waiting.len());
                        sent.extend(&waiting[..count]);
                        output.advance(count);
                    }
                }
            }
            sent.extend(output.chunks().flatten());
            prop_assert_eq!(sent, expected);
        }
    }
}
