//! Identifiers: packets, clients, sessions, connections, workers, tokens.

use std::fmt;
use std::num::{NonZeroU16, NonZeroU64};
use std::sync::Arc;

/// A packet identifier: never zero [MQTT-2.2.1-3].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PacketId(NonZeroU16);

impl PacketId {
    /// The lowest identifier.
    pub const FIRST: Self = Self(NonZeroU16::MIN);

    /// The identifier of a number; `None` for 0.
    #[inline]
    pub const fn new(value: u16) -> Option<Self> {
        match NonZeroU16::new(value) {
            Some(value) => Some(Self(value)),
            None => None,
        }
    }

    /// The number, 1 to 65,535.
    #[inline]
    pub const fn get(self) -> u16 {
        self.0.get()
    }

    /// The identifier after this one; 1 follows 65,535.
    #[inline]
    #[must_use]
    pub const fn next(self) -> Self {
        match self.0.checked_add(1) {
            Some(value) => Self(value),
            None => Self::FIRST,
        }
    }
}

impl fmt::Debug for PacketId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

impl fmt::Display for PacketId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A client identifier, shared by everything that names the client.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId(Arc<str>);

impl ClientId {
    /// The identifier of a text.
    pub fn new(text: &str) -> Self {
        Self(text.into())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::borrow::Borrow<str> for ClientId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// The number of a session that is kept in a store: given once, for as long as the store exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionNumber(pub NonZeroU64);

/// The number of a message that is kept in a store: given once, for as long as the store exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageNumber(pub NonZeroU64);

impl SessionNumber {
    /// The session of a number; `None` for 0.
    pub fn new(value: u64) -> Option<Self> {
        NonZeroU64::new(value).map(Self)
    }
}

impl MessageNumber {
    /// The message of a number; `None` for 0.
    pub fn new(value: u64) -> Option<Self> {
        NonZeroU64::new(value).map(Self)
    }
}

/// The number of a worker, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct WorkerId(pub u16);

impl WorkerId {
    /// As an index.
    #[inline]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// A place in a worker's table and the generation that makes it unique: a place is used again, a key never is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SlotKey {
    /// Index in the table.
    pub slot: u32,
    /// How often the place had been taken before, the guard against a key that outlives its owner.
    pub generation: u32,
}

/// One session on its worker. A session stays on its worker for life, so the pair is an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionKey {
    /// The worker that owns the session.
    pub worker: WorkerId,
    /// The place in the worker's table.
    pub key: SlotKey,
}

impl SessionKey {
    /// Stands for a session of which no more is known: who published a message before the broker was started again.
    pub const FORMER: Self = Self {
        worker: WorkerId(u16::MAX),
        key: SlotKey {
            slot: u32::MAX,
            generation: u32::MAX,
        },
    };
}

/// One network connection on the worker that now drives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionKey(pub SlotKey);

/// What a request that must wait is called back by. A token whose connection is gone is ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token {
    /// The worker that waits.
    pub worker: WorkerId,
    /// The connection that waits.
    pub connection: ConnectionKey,
    /// Which of the connection's requests.
    pub sequence: u32,
}

/// The promise that what was recorded will be kept: the number of a worker's batch of records. What depends on it waits for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Ticket(u64);

impl Ticket {
    /// Nothing to wait for.
    pub const DONE: Self = Self(0);

    /// Waits for a batch; batches count from 1.
    pub const fn of_batch(number: u64) -> Self {
        Self(number)
    }

    /// The batch it waits for; 0 for none.
    pub const fn batch(self) -> u64 {
        self.0
    }
}
