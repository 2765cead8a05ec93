//! Addresses we accept connections on.
//!
//! [`Listener::bind`] needs no runtime, so that every listener is bound, or refused with a line that says what to do,
//! before anything starts. The runtime that accepts then calls [`Listener::attach`] and [`Listener::accept`] in a loop.
//! What it gets is attached to that runtime; if another worker is to carry the connection, detach it first.

use std::fs::File;
use std::hash::Hash;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener as StdTcpListener};
use std::os::unix::net::UnixListener as StdUnixListener;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use crossbeam_utils::CachePadded;
use rustls::ServerConfig;
use tokio::net::{TcpListener, UnixListener};

use super::addresses::{Addresses, Beyond};
use super::classify::NotMqtt;
use super::options::{ListenAddress, ListenerOptions};
use super::peer::{Address, Peer};
use super::socket::Socket;
use super::tls::{self, Loaded, LoadedCertificate, Revocations};
use crate::metrics::Metrics;
use crate::protocol::repeat::Repeats;
use crate::protocol::time::Time;
use crate::session::network::source;

mod bind;
mod error;
#[cfg(test)]
mod tests;

pub use error::ListenError;

/// Equal refusals of one address within this time are one line.
const REFUSALS_WINDOW_MS: u64 = 60_000;
/// Refusals remembered at a time, about 32 bytes each.
const REFUSALS_KEYS_MAX: usize = 1024;

/// The sockets of one listener.
#[derive(Debug)]
pub struct Listener {
    shared: Arc<ListenerShared>,
    place: Arc<Place>,
    sockets: Vec<Bound>,
    /// Which socket is asked first, so that a busy one does not starve the others.
    next: usize,
    /// Given up for a moment when descriptors run out, so that the connection can be accepted and closed: it would
    /// otherwise stay in the backlog and wake us for ever.
    reserve: Option<File>,
    /// The reserve is given up and the next connection is to be closed.
    reserve_given_up: bool,
    /// Connections closed for want of descriptors since the last line in the log.
    without_descriptor: u64,
    /// Connections closed beyond `connections_max` since the last line in the log.
    beyond_limit: u64,
    /// Where these are counted, once it accepts for a worker.
    metrics: Option<Arc<CachePadded<Metrics>>>,
}

/// What the connections of one listener have in common.
#[derive(Debug)]
pub struct ListenerShared {
    options: ListenerOptions,
    connections: AtomicUsize,
    /// For new connections; swapped when certificates are renewed.
    tls: Option<RwLock<Loaded>>,
    refusals: Mutex<Repeats>,
    /// Where they are counted.
    addresses: Option<Mutex<Addresses>>,
    started: Instant,
}

/// A connection nothing was read from yet.
#[derive(Debug)]
pub struct Accepted {
    /// Attached to the runtime that accepted it.
    pub socket: Socket,
    /// Who connects, as far as the socket tells.
    pub peer: Peer,
    /// The place it takes in its listener.
    pub slot: Slot,
}

/// One place among the connections of a listener, given back when dropped. Keep it as long as the connection.
#[derive(Debug)]
pub struct Slot(Arc<Place>);

/// Where a slot is: one for all slots of a listener, but for those whose address is counted.
#[derive(Debug)]
pub(super) struct Place {
    listener: Arc<ListenerShared>,
    address: Option<IpAddr>,
}

impl Listener {
    /// Binds and listens on every address of `options`.
    ///
    /// # Errors
    /// [`ListenError`], in one line that says what to do.
    pub fn bind(options: ListenerOptions) -> Result<Self, ListenError> {
        let shared = ListenerShared::new(options)?; // reads the certificates
        let sockets = bind::bind(&shared.options)?;
        let shared = Arc::new(shared);
        Ok(Self {
            place: Arc::new(Place::of(Arc::clone(&shared))),
            shared,
            sockets,
            next: 0,
            reserve: reserve_descriptor(),
            reserve_given_up: false,
            without_descriptor: 0,
            beyond_limit: 0,
            metrics: None,
        })
    }

    /// Registers with the runtime of the calling thread, which will accept.
    ///
    /// # Errors
    /// When the operating system refuses to register a socket.
    pub fn attach(&mut self) -> io::Result<()> {
        for bound in &mut self.sockets {
            *bound = match std::mem::replace(bound, Bound::Closed) {
                Bound::IdleTcp(listener) => Bound::Tcp(TcpListener::from_std(listener)?),
                Bound::IdleUnix(listener) => Bound::Unix(UnixListener::from_std(listener)?),
                other => other,
            };
        }
        Ok(())
    }

    /// Counts there what it closes.
    pub fn counts_in(&mut self, metrics: Arc<CachePadded<Metrics>>) {
        self.metrics = Some(metrics);
    }

    /// What the connections of this listener share.
    pub fn shared(&self) -> &Arc<ListenerShared> {
        &self.shared
    }

    /// The addresses in use, with the port that the system chose for port 0; Unix sockets left out.
    pub fn local_addresses(&self) -> Vec<SocketAddr> {
        self.sockets.iter().filter_map(Bound::local_address).collect()
    }

    /// The next connection. Never fails: what goes wrong with one connection is logged and the next is waited for.
    pub async fn accept(&mut self) -> Accepted {
        loop {
            match std::future::poll_fn(|cx| self.poll_accept(cx)).await {
                Ok(accepted) => return accepted,
                Err(error) => {
                    // ENOBUFS, ENOMEM, EPERM by a firewall: nothing to do but to try again, not in a tight loop.
                    tracing::warn!(listener = self.shared.name(), %error, "cannot accept a connection, waiting 100 ms");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    /// The next connection, or the error of a socket that goes on after a pause.
    ///
    /// # Errors
    /// What the operating system says, except for running out of descriptors and for connections that ended before
    /// they were accepted.
    pub fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Accepted>> {
        let count = self.sockets.len();
        for turn in 0..count {
            let index = (self.next + turn) % count;
            while let Poll::Ready(result) = self.sockets[index].poll_accept(cx) {
                self.next = index + 1;
                match result {
                    Ok(_) if self.reserve_given_up => self.close_for_want_of_descriptors(),
                    Ok((socket, peer)) => {
                        if let Some(accepted) = self.admit(socket, peer) {
                            return Poll::Ready(Ok(accepted));
                        }
                    }
                    Err(error) if is_gone(&error) => {}
                    Err(error) if is_out_of_descriptors(&error) && self.reserve.take().is_some() => {
                        self.reserve_given_up = true; // one descriptor is free now: accept the next one and close it
                    }
                    Err(error) => return Poll::Ready(Err(error)),
                }
            }
        }
        if std::mem::take(&mut self.reserve_given_up) {
            self.reserve = reserve_descriptor(); // it went away by itself
        }
        Poll::Pending
    }

    fn admit(&mut self, socket: Socket, peer: Peer) -> Option<Accepted> {
        let name = self.shared.name();
        if self.without_descriptor > 0 {
            tracing::warn!(
                listener = name,
                closed = self.without_descriptor,
                "descriptors are available again"
            );
            self.without_descriptor = 0;
        }
        let Some(slot) = self.place.take_slot() else {
            self.beyond_limit += 1;
            if let Some(metrics) = &self.metrics {
                metrics.limit_connections.increment();
            }
            if self.beyond_limit == 1 {
                let max = self.shared.options.connections_max;
                tracing::warn!(listener = name, addr = %peer.address, connections_max = max,
                    "the listener is full, closing new connections; raise its connections_max if that is too few");
            }
            return None;
        };
        if self.beyond_limit > 0 {
            tracing::warn!(
                listener = name,
                closed = self.beyond_limit,
                "the listener has room again"
            );
            self.beyond_limit = 0;
        }
        Some(Accepted { socket, peer, slot })
    }

    /// The connection that took the place of the reserve is closed already.
    fn close_for_want_of_descriptors(&mut self) {
        self.reserve = reserve_descriptor();
        self.reserve_given_up = false;
        self.without_descriptor += 1;
        if self.without_descriptor == 1 {
            tracing::warn!(
                listener = self.shared.name(),
                "out of file descriptors, closing new connections; raise the limit (ulimit -n, LimitNOFILE=)"
            );
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        for address in &self.shared.options.addresses {
            if let ListenAddress::Unix { path, .. } = address {
                let _ = std::fs::remove_file(path); // left behind it would only be replaced at the next start
            }
        }
    }
}

impl ListenerShared {
    fn new(options: ListenerOptions) -> Result<Self, ListenError> {
        let error = |source| ListenError::Tls {
            listener: options.name.clone(),
            source,
        };
        let loaded = options
            .tls
            .as_ref()
            .map(|tls| tls::server_config(tls, options.websocket.is_some(), None));
        let loaded = loaded.transpose().map_err(error)?;
        let addresses = Addresses::new(
            options.connections_per_address_max,
            options.connect_rate_per_address_max,
        );
        Ok(Self {
            addresses: addresses.map(Mutex::new),
            options,
            connections: AtomicUsize::new(0),
            tls: loaded.map(RwLock::new),
            refusals: Mutex::new(Repeats::new(REFUSALS_WINDOW_MS, REFUSALS_KEYS_MAX)),
            started: Instant::now(),
        })
    }

    /// For connections within this process, which nothing listens for.
    ///
    /// # Errors
    /// None without TLS.
    pub(super) fn inside() -> Result<Arc<Self>, ListenError> {
        let options = ListenerOptions {
            name: "inside".to_owned(),
            addresses: Vec::new(),
            ..ListenerOptions::default()
        };
        Self::new(options).map(Arc::new)
    }

    /// Reads certificates, keys and revocation lists again, and says which certificates of clients are revoked now. New connections use them; on
    /// an error nothing changes. Only one thread at a time does so.
    ///
    /// # Errors
    /// [`ListenError::Tls`].
    pub fn reload_tls(&self) -> Result<Revocations, ListenError> {
        let (Some(current), Some(options)) = (&self.tls, &self.options.tls) else {
            return Ok(Revocations::default());
        };
        let before = current.read().unwrap_or_else(PoisonError::into_inner).clone();
        let loaded = tls::server_config(options, self.options.websocket.is_some(), Some(&before));
        let loaded = loaded.map_err(|source| ListenError::Tls {
            listener: self.options.name.clone(),
            source,
        })?;
        let revocations = loaded.revocations().clone();
        *current.write().unwrap_or_else(PoisonError::into_inner) = loaded;
        Ok(revocations)
    }

    /// The certificates in use, to watch their end.
    pub fn certificates(&self) -> Vec<LoadedCertificate> {
        self.of_tls(|loaded| loaded.certificates.clone()).unwrap_or_default()
    }

    /// The TLS configuration of new connections, if this listener has TLS.
    pub(super) fn tls(&self) -> Option<Arc<ServerConfig>> {
        self.of_tls(|loaded| Arc::clone(&loaded.config))
    }

    fn of_tls<T>(&self, take: impl FnOnce(&Loaded) -> T) -> Option<T> {
        let loaded = self.tls.as_ref()?.read().unwrap_or_else(PoisonError::into_inner);
        Some(take(&loaded))
    }

    /// See [`Repeats::record`].
    pub(super) fn record_refusal<K: Hash>(&self, key: &K) -> Option<u64> {
        let now = self.now();
        self.refusals
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .record(key, now)
    }

    /// Writes the one line about a connection whose first bytes were not MQTT; repeats of one address become one.
    pub(super) fn log_not_mqtt(&self, found: Option<NotMqtt>, addr: &str) {
        let reason = found.map_or_else(
            || "not MQTT: it does not begin with CONNECT".to_owned(),
            |found| found.to_string(),
        );
        let host = addr.rsplit_once(':').map_or(addr, |(host, _)| host);
        if let Some(repeated) = self.record_refusal(&(&reason, host)) {
            let repeated = (repeated > 0).then_some(repeated);
            tracing::warn!(listener = self.name(), %addr, reason, repeated, "connection refused");
        }
    }

    /// The listener's options.
    pub fn options(&self) -> &ListenerOptions {
        &self.options
    }

    /// The listener's name.
    pub fn name(&self) -> &str {
        &self.options.name
    }

    /// How many connections it has now.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    fn now(&self) -> Time {
        Time(u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX))
    }
}

impl Place {
    /// In a listener.
    pub(super) const fn of(listener: Arc<ListenerShared>) -> Self {
        let address = None;
        Self { listener, address }
    }

    pub(super) fn take_slot(self: &Arc<Self>) -> Option<Slot> {
        let max = self.listener.options.connections_max;
        let taken = self
            .listener
            .connections
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| (n < max).then(|| n + 1));
        taken.ok().map(|_| Slot(Arc::clone(self)))
    }
}

impl Slot {
    /// The listener the place is in.
    pub fn listener(&self) -> &Arc<ListenerShared> {
        &self.0.listener
    }

    /// Counts it for an address, where addresses are counted, and no longer for another: one proxy may say who is behind the next. If that
    /// address has too much already, the connection is to be closed.
    pub(super) fn count_for(&mut self, address: &Address) -> Result<(), Beyond> {
        let listener = self.listener();
        let (Some(addresses), Some(ip)) = (&listener.addresses, address.ip()) else {
            return Ok(());
        };
        let mut locked = addresses.lock().unwrap_or_else(PoisonError::into_inner);
        let entered = locked.enter(ip, listener.now());
        if let (Ok(()), Some(before)) = (entered, self.0.address) {
            locked.leave(before, listener.now());
        }
        drop(locked);
        match entered {
            Ok(()) => {
                let place = Place {
                    listener: Arc::clone(listener),
                    address: Some(ip),
                };
                self.0 = Arc::new(place);
            }
            Err(beyond) => {
                let (option, name) = (beyond.option(), listener.name());
                if let Some(repeated) = listener.record_refusal(&(option, source(ip))) {
                    let repeated = (repeated > 0).then_some(repeated);
                    tracing::warn!(listener = name, addr = %address, reason = option, repeated, "connection refused");
                }
            }
        }
        entered
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let listener = self.listener();
        listener.connections.fetch_sub(1, Ordering::Relaxed);
        if let (Some(ip), Some(addresses)) = (self.0.address, &listener.addresses) {
            let mut addresses = addresses.lock().unwrap_or_else(PoisonError::into_inner);
            addresses.leave(ip, listener.now());
        }
    }
}

/// One listening socket, on a runtime or not yet.
#[derive(Debug)]
enum Bound {
    IdleTcp(StdTcpListener),
    IdleUnix(StdUnixListener),
    Tcp(TcpListener),
    Unix(UnixListener),
    /// It could not be registered.
    Closed,
}

impl Bound {
    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<(Socket, Peer)>> {
        match self {
            Self::Tcp(listener) => listener
                .poll_accept(cx)
                .map_ok(|(stream, address)| (stream.into(), Peer::new(Address::Ip(address)))),
            Self::Unix(listener) => listener
                .poll_accept(cx)
                .map_ok(|(stream, _)| (stream.into(), Peer::new(Address::Unix))),
            Self::IdleTcp(_) | Self::IdleUnix(_) | Self::Closed => Poll::Ready(Err(io::Error::new(
                io::ErrorKind::NotConnected,
                "the listener is not attached",
            ))),
        }
    }

    fn local_address(&self) -> Option<SocketAddr> {
        match self {
            Self::IdleTcp(listener) => listener.local_addr().ok(),
            Self::Tcp(listener) => listener.local_addr().ok(),
            Self::IdleUnix(_) | Self::Unix(_) | Self::Closed => None,
        }
    }
}

fn reserve_descriptor() -> Option<File> {
    File::open("/dev/null").ok()
}

/// The connection ended between the kernel's handshake and our accept.
fn is_gone(error: &io::Error) -> bool {
    is_peer_gone(error) || error.kind() == io::ErrorKind::Interrupted
}

/// The peer ended the connection, politely or not.
pub(super) fn is_peer_gone(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(
        error.kind(),
        BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof
    )
}

fn is_out_of_descriptors(error: &io::Error) -> bool {
    const ENFILE: i32 = 23; // of the system
    const EMFILE: i32 = 24; // of the process
    matches!(error.raw_os_error(), Some(ENFILE | EMFILE))
}
