//! From an accepted socket to the MQTT bytes of a known peer.

use std::io;

use super::listener::{Accepted, ListenerShared, Slot};
use super::peer::Peer;
use super::stream::Stream;

/// A connection whose next bytes are MQTT, or should be.
#[derive(Debug)]
pub struct Established {
    /// Its bytes, attached to the runtime that established it.
    pub stream: Stream,
    /// Who is at the other end.
    pub peer: Peer,
    /// MQTT bytes that were read already; most often none.
    pub first_bytes: Vec<u8>,
    /// The place it takes in its listener; keep it as long as the connection.
    pub slot: Slot,
}

/// Why a connection came to nothing before its first MQTT byte.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// The operating system failed.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// Does what comes before MQTT on `accepted`: PROXY header, TLS handshake, WebSocket upgrade, as its listener is set.
/// Attaches a detached socket to the runtime of the calling thread. Returns at once for a plain TCP or Unix listener.
///
/// # Errors
/// [`Refused`], which the caller logs with [`Refused::log`]; the connection is closed.
pub async fn establish(accepted: Accepted) -> Result<Established, Refused> {
    let Accepted { mut socket, peer, slot } = accepted;
    socket.attach()?;
    Ok(Established {
        stream: Stream::Plain(socket),
        peer,
        first_bytes: Vec::new(),
        slot,
    })
}

impl Refused {
    /// Writes the one line about it.
    pub fn log(&self, listener: &ListenerShared, peer: &Peer) {
        tracing::debug!(listener = listener.name(), addr = %peer.address, reason = %self, "connection refused");
    }
}
