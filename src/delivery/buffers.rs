//! Output buffers of a worker that no connection needs at the moment.

/// Buffers that are kept at most, however small.
const COUNT_MAX: usize = 256;
/// Bytes of them at most while the worker is busy. A buffer that has grown to what a burst needs is not grown again for the next: growing copies, and
/// new memory costs a page fault for every 4 KiB.
const BYTES_MAX: usize = 32 << 20;
/// Bytes that are kept when it is not.
const IDLE_BYTES_MAX: usize = 1 << 20;

/// Spare buffers, the one used last on top.
#[derive(Debug, Default)]
pub struct Buffers {
    spare: Vec<Vec<u8>>,
    bytes: usize,
}

impl Buffers {
    /// A buffer that was used before, empty.
    #[inline]
    pub fn take(&mut self) -> Option<Vec<u8>> {
        let buffer = self.spare.pop()?;
        self.bytes -= buffer.capacity();
        Some(buffer)
    }

    /// Keeps a buffer for the next connection with something to send, if there is room for it.
    pub fn give(&mut self, buffer: Vec<u8>) {
        if self.spare.len() < COUNT_MAX && self.bytes + buffer.capacity() <= BYTES_MAX {
            self.bytes += buffer.capacity();
            self.spare.push(buffer);
        }
    }

    /// Frees what only a busy worker needs.
    pub fn shrink(&mut self) {
        while self.bytes > IDLE_BYTES_MAX {
            self.take();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_bounded_and_freed_in_a_quiet_moment() {
        let mut buffers = Buffers::default();
        for _ in 0..100 {
            buffers.give(Vec::with_capacity(1 << 20));
        }
        assert_eq!((buffers.spare.len(), buffers.bytes), (32, BYTES_MAX));
        assert!(buffers.take().is_some_and(|buffer| buffer.capacity() == 1 << 20));
        buffers.shrink();
        assert_eq!((buffers.spare.len(), buffers.bytes), (1, IDLE_BYTES_MAX));
    }
}
