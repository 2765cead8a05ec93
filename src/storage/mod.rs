//! Layer 3: what must survive. The broker tells a store what happened and waits for its ticket before it acknowledges.

use crate::protocol::ids::{ClientId, PacketId, Token};
use crate::protocol::message::Publication;

/// The promise that a record survives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ticket {
    /// It survives as far as this store promises.
    Done,
    /// It will: the store calls back through `Mail::Complete` with the token.
    Pending,
    /// It will not: nothing that depends on it may be acknowledged with success.
    Failed,
}

/// Something that a broker which starts again has to know.
#[derive(Clone, Debug)]
pub enum Record<'a> {
    /// A message was accepted that is acknowledged or retained. Whether somebody must still get it later is the store's to find out.
    Publish(&'a Publication<'a>),
    /// A client's QoS 2 packet identifier was released.
    Release(&'a ClientId, PacketId),
    /// Subscriptions of a persistent session changed.
    Subscriptions(&'a ClientId),
}

/// Where records go.
pub trait Store: Send + Sync {
    /// Appends a record. With `Pending` the caller is told by `token`.
    fn append(&self, record: &Record<'_>, token: Token) -> Ticket;
}

/// Keeps nothing but what is in memory anyway: acknowledged messages live as long as the process.
#[derive(Clone, Copy, Debug, Default)]
pub struct MemoryStore;

impl Store for MemoryStore {
    fn append(&self, _record: &Record<'_>, _token: Token) -> Ticket {
        Ticket::Done
    }
}
