//! The network: two streams of bytes for each connection, slow, bounded, and cut at any byte.

use std::collections::VecDeque;

/// The number of a network connection; never used twice.
pub(crate) type LinkId = usize;

/// One network connection.
#[derive(Debug)]
pub(crate) struct Link {
    /// From the client to the broker.
    pub up: VecDeque<u8>,
    /// From the broker to the client.
    pub down: VecDeque<u8>,
    /// Bytes that each stream holds before its writer has to wait.
    pub capacity: usize,
    /// The client has closed it, or lost it: what is in `up` still arrives, and then nothing.
    pub is_client_gone: bool,
    /// The broker has closed it: what is in `down` still arrives, and then nothing.
    pub is_server_gone: bool,
    /// The client has turned away and opened another, without closing this one.
    pub is_abandoned: bool,
}

impl Link {
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            up: VecDeque::new(),
            down: VecDeque::new(),
            capacity,
            is_client_gone: false,
            is_server_gone: false,
            is_abandoned: false,
        }
    }

    /// Room towards the client.
    pub(crate) fn room_down(&self) -> usize {
        self.capacity.saturating_sub(self.down.len())
    }

    /// Room towards the broker.
    pub(crate) fn room_up(&self) -> usize {
        self.capacity.saturating_sub(self.up.len())
    }

    /// The client's end is lost after `arriving` more bytes.
    pub(crate) fn lose(&mut self, arriving: usize) {
        self.up.truncate(arriving);
        self.is_client_gone = true;
    }
}
