//! Identifiers: packets, clients, sessions, connections, workers, tokens.

use std::fmt;
use std::num::{NonZeroU16, NonZeroU64};
use std::sync::Arc;

use super::mount::Mount;

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

/// A client, shared by everything that names it: its client identifier, and the mount point of its tenant, if it has one. The same client
/// identifier is another client in another tenant.
///
/// One text: what the client says, or, in a tenant, U+0000, mount point, U+0000 and what the client says; U+0000 is in no text of MQTT
/// [MQTT-1.5.4-2].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId(Arc<str>);

impl ClientId {
    /// A client that belongs to no tenant.
    pub fn new(text: &str) -> Self {
        Self(text.into())
    }

    /// A client of the tenant with this mount point; of none where that is empty.
    pub fn of(mount: &str, text: &str) -> Self {
        if mount.is_empty() {
            Self::new(text)
        } else {
            Self(["\0", mount, "\0", text].concat().into())
        }
    }

    /// The client identifier, as the client says it.
    pub fn as_str(&self) -> &str {
        self.in_tenant().map_or(&self.0, |(_, text)| text)
    }

    /// The mount point of its tenant.
    pub fn mount(&self) -> Option<Mount<'_>> {
        self.in_tenant().map(|(mount, _)| Mount::from_parsed(mount))
    }

    /// What it is looked up by, unlike any other client of any tenant.
    pub fn key(&self) -> &str {
        &self.0
    }

    fn in_tenant(&self) -> Option<(&str, &str)> {
        self.0.strip_prefix('\0')?.split_once('\0')
    }
}

impl fmt::Display for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// For tables, in which clients are looked up by [`ClientId::key`].
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_client_id_is_another_client_in_each_tenant() {
        let [house, a, b] = ["", "a/", "b/"].map(|mount| ClientId::of(mount, "c/1"));
        assert!(house != a && a != b && house == ClientId::new("c/1"));
        for (client, mount) in [(&house, None), (&a, Some("a/")), (&b, Some("b/"))] {
            assert_eq!((client.as_str(), client.mount().map(Mount::as_str)), ("c/1", mount));
        }
        assert_eq!(house.key(), "c/1");
        assert_ne!(a.key(), b.key());
        assert_eq!((ClientId::of("a/", "").as_str(), a.to_string()), ("", "c/1".to_owned()));
    }
}
