//! Connections from within the process: the program that the broker is part of is a client like others, without a socket.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::duplex;

use super::client_driver::Dialer;
use super::client_stream::ConnectError;
use super::listener::{Accepted, ListenError, ListenerShared, Place};
use super::peer::{Address, Peer};
use super::socket::Socket;
use super::stream::Stream;
use super::worker::{Arrival, WorkerHandle};
use crate::session::peer::ListenerRules;

/// Bytes on their way in one direction, at most.
const PIPE_BYTES: usize = 64 * 1024;

/// The way in, for clients within the process.
#[derive(Debug)]
pub struct Inside {
    workers: Vec<WorkerHandle>,
    next: AtomicUsize,
    place: Arc<Place>,
    rules: Arc<ListenerRules>,
}

impl Inside {
    /// A way to these workers, to each in turn.
    ///
    /// # Errors
    /// See [`super::listener::Listener::bind`].
    pub fn new(workers: Vec<WorkerHandle>) -> Result<Arc<Self>, ListenError> {
        let rules = ListenerRules {
            name: "inside".into(),
            ..ListenerRules::default()
        };
        Ok(Arc::new(Self {
            workers,
            next: AtomicUsize::new(0),
            place: Arc::new(Place::of(ListenerShared::inside()?)),
            rules: Arc::new(rules),
        }))
    }

    /// What opens such connections.
    pub fn dialer(self: &Arc<Self>) -> Dialer {
        let inside = Arc::clone(self);
        Dialer::new(move || {
            let inside = Arc::clone(&inside);
            Box::pin(async move { inside.connect().await })
        })
    }

    async fn connect(&self) -> Result<Stream, ConnectError> {
        let (ours, theirs) = duplex(PIPE_BYTES);
        let accepted = Accepted {
            socket: Socket::Memory(theirs),
            peer: Peer::new(Address::Inside),
            slot: self.place.take_slot().ok_or(ConnectError::Stopped)?,
        };
        let arrival = Arrival::Accepted(Box::new(accepted), Arc::clone(&self.rules));
        let to = self.next.fetch_add(1, Ordering::Relaxed) % self.workers.len().max(1);
        let worker = self.workers.get(to).ok_or(ConnectError::Stopped)?;
        worker.arrivals.send(arrival).await.map_err(|_| ConnectError::Stopped)?;
        Ok(Stream::Plain(Socket::Memory(ours)))
    }
}
