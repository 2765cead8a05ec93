//! The server: builds all parts, runs them, drains them, stops. What `main` and programs that embed a broker call.

#![allow(clippy::disallowed_methods)] // the I/O half reads the clock

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::backends::access::{AccessOptions, LiveAccess};
use crate::backends::watch::FileWatch;
use crate::broker::{Broker, BrokerOptions, Mail, Parts, Worker};
use crate::client::ClientOptions;
use crate::protocol::ids::{ClientId, WorkerId};
use crate::protocol::message::Message;
use crate::protocol::reason::ReasonCode;
use crate::protocol::time::Time;
use crate::session::peer::ListenerRules;
use crate::storage::disk::{OpenError, StorageOptions, start};
use crate::transport::accept::Placement;
use crate::transport::client_driver::ClientDriver;
use crate::transport::inside::Inside;
use crate::transport::listener::{ListenError, Listener};
use crate::transport::options::ListenerOptions;
use crate::transport::worker::{self, Clock, Stop, WorkerStart};

mod ban_file;
mod certificates;
pub mod control;
pub mod reload;

pub use self::ban_file::{BanLine, Kind};
use self::certificates::LiveCertificates;
use self::control::Control;
use self::reload::{OnReload, Reloader};

/// What a server is built from.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// Addresses to accept on, with the MQTT rules of each.
    pub listeners: Vec<(ListenerOptions, ListenerRules)>,
    /// The broker.
    pub broker: BrokerOptions,
    /// Worker threads; default one for each core.
    pub workers: usize,
    /// How connections are spread over them.
    pub placement: Placement,
    /// Connections at most; default no limit but that of the process's descriptors.
    pub connections_max: usize,
    /// How long clients have to go when the server stops; default 5 s.
    pub drain: Duration,
    /// Silence after which a connection gives up its task and its place in the runtime's reactor, half of what it costs, until there is something
    /// to do for it; default 10 s.
    pub park_after: Duration,
    /// Where what must survive is kept; default nowhere: nothing survives.
    pub storage: Option<StorageOptions>,
    /// Who may enter and what he may do, in the place of what the parts say; default: they say it.
    pub access: Option<Arc<LiveAccess>>,
    /// How often the files of `access`, and certificates, are looked at; `None`: never. Default 250 ms.
    pub watch_interval: Option<Duration>,
    /// What `sundew reload` does; default: users, rules and certificates are read again, and no configuration.
    pub on_reload: Option<OnReload>,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            listeners: vec![(ListenerOptions::default(), ListenerRules::default())],
            broker: BrokerOptions::default(),
            workers: std::thread::available_parallelism().map_or(1, usize::from),
            placement: Placement::Auto,
            connections_max: usize::MAX,
            drain: Duration::from_secs(5),
            park_after: Duration::from_secs(10),
            storage: None,
            access: None,
            watch_interval: Some(Duration::from_millis(250)),
            on_reload: None,
        }
    }
}

/// Why a server does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A listener.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The store.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// A thread.
    #[error("cannot start a worker thread: {0}; is the limit of processes (ulimit -u) too low?")]
    Thread(#[from] io::Error),
}

/// How long the store has to put everything into one place when the server stops; after that the next start replays its log.
const CLOSE_PATIENCE: Duration = Duration::from_secs(30);

/// A broker that runs. Dropped without [`Server::stop`], it stops at once.
#[derive(Debug)]
pub struct Server {
    broker: Arc<Broker>,
    clock: Clock,
    inside: Arc<Inside>,
    addresses: Vec<(String, Vec<SocketAddr>)>,
    threads: Vec<JoinHandle<io::Result<()>>>,
    stop: watch::Sender<Stop>,
    drained: Arc<AtomicUsize>,
    drain: Duration,
    reloader: Reloader,
    /// Looks at the files of users and rules, and at certificates, as long as it is there.
    _watch: Option<FileWatch>,
    /// Listens to commands in the data directory, where there is one.
    _control: Option<Control>,
}

impl Server {
    /// Binds every listener, then starts the workers.
    ///
    /// # Errors
    /// [`StartError`]; nothing runs then.
    pub fn start(options: ServerOptions, mut parts: Parts) -> Result<Self, StartError> {
        let mut listeners = Vec::new();
        for (listener, rules) in options.listeners {
            listeners.push((Listener::bind(listener)?, Arc::new(rules)));
        }
        // Before the store is read, which may take long: what is renewed meanwhile is seen afterwards.
        let certificates = listeners.iter().map(|(listener, rules)| (listener.shared(), rules));
        let certificates = Arc::new(LiveCertificates::new(certificates));
        let addresses = listeners
            .iter()
            .map(|(listener, rules)| (rules.name.clone(), listener.local_addresses()))
            .collect();
        let workers = options.workers.clamp(1, usize::from(u16::MAX));
        if let Some(access) = &options.access {
            parts.authenticator = Arc::clone(access.chain()) as _;
            parts.authorizer = Arc::clone(access.rules()) as _;
        }
        let directory = options.storage.as_ref().map(|storage| storage.directory.clone());
        let (time, at) = start::open(options.storage, workers, &mut parts)?;
        let clock = Clock::start(time, at);
        let broker = Broker::new(options.broker, workers, parts);
        let reloader = Reloader {
            access: options.access,
            broker: Arc::clone(&broker),
            certificates,
        };
        let control = directory.and_then(|at| listen_to_commands(&at, &reloader, options.on_reload, clock));
        let (stop, stopped) = watch::channel(Stop::Running);
        let (handles, inboxes): (Vec<_>, Vec<_>) = (0..workers).map(|_| worker::handle()).unzip();
        let inside = Inside::new(handles.clone())?;
        let mut threads = Vec::new();
        let mut listeners = Some(listeners);
        let mut parts: Vec<_> = (0..workers)
            .map(|me| Worker::new(Arc::clone(&broker), WorkerId(me as u16), clock.now()))
            .collect();
        settle_what_is_due(&mut parts, clock.now());
        let drained = Arc::new(AtomicUsize::new(0));
        for (number, (worker, inbox)) in parts.into_iter().zip(inboxes).enumerate() {
            let start = WorkerStart {
                worker,
                clock,
                inbox,
                peers: handles.clone(),
                listeners: listeners.take().unwrap_or_default(),
                placement: options.placement.clone(),
                connections_max: options.connections_max,
                stop: stopped.clone(),
                drained: Arc::clone(&drained),
                park_after: options.park_after,
            };
            let thread = std::thread::Builder::new().name(format!("worker-{number}"));
            threads.push(thread.spawn(move || worker::run(start))?);
        }
        let looking = reloader.clone();
        let watch = |interval| FileWatch::start(interval, move || looking.look());
        let watch = options.watch_interval.map(watch);
        Ok(Self {
            reloader,
            _watch: watch.transpose()?,
            _control: control,
            broker,
            clock,
            inside,
            addresses,
            threads,
            stop,
            drained,
            drain: options.drain,
        })
    }

    /// The listeners' names and addresses, with the ports that the system chose.
    pub fn addresses(&self) -> &[(String, Vec<SocketAddr>)] {
        &self.addresses
    }

    /// The broker.
    pub const fn broker(&self) -> &Arc<Broker> {
        &self.broker
    }

    /// The broker's time: what its moments are told in.
    pub fn now(&self) -> Time {
        self.clock.now()
    }

    /// Publishes from inside.
    pub fn publish(&self, message: Message) {
        self.broker
            .mailboxes
            .send(WorkerId(0), &mut vec![Mail::Publish(Arc::new(message))]);
    }

    /// A client of this broker within the process: no socket, else like any other. Needs a tokio runtime, see [`ClientDriver`].
    pub fn connect(&self, options: ClientOptions) -> ClientDriver {
        ClientDriver::new(self.inside.dialer(), options, None)
    }

    /// Disconnects a client with a reason; false when it has no session. One of a tenant: [`ClientId::of`].
    pub fn disconnect(&self, client: &ClientId, reason: ReasonCode) -> bool {
        let Some(owner) = self.broker.registry.owner(client.key()) else {
            return false;
        };
        self.broker
            .mailboxes
            .send(owner, &mut vec![Mail::Disconnect(client.clone(), reason)]);
        true
    }

    /// Reads the files of users and rules again, all or none of them, and, where there are, with other options; clients that may not be
    /// here any more are told to go. False when a file is wrong, which the log tells, or there are none.
    pub fn reload_access(&self, options: Option<AccessOptions>) -> bool {
        self.reloader.access(options, &mut reload::Reloaded::default())
    }

    /// What can be read again while it runs, for who has no server at hand.
    pub const fn reloader(&self) -> &Reloader {
        &self.reloader
    }

    /// Stops: clients are told and have until the drain time is over. True when all were gone by then.
    pub fn stop(mut self) -> bool {
        self.stop.send_replace(Stop::Draining);
        let deadline = Instant::now() + self.drain;
        let is_drained = || self.drained.load(Ordering::Acquire) >= self.threads.len();
        while !is_drained() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(2));
        }
        let are_gone = is_drained();
        // The workers are still there: they tell the store how everything is, for a start that has nothing to replay.
        self.broker.store.close(CLOSE_PATIENCE);
        self.stop.send_replace(Stop::Now);
        self.join();
        are_gone
    }

    fn join(&mut self) {
        for thread in self.threads.drain(..) {
            match thread.join() {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::error!(%error, "a worker could not run"),
                Err(_) => tracing::error!("a worker panicked"),
            }
        }
    }
}

/// Where nothing is kept, no command finds the broker.
fn listen_to_commands(
    directory: &Path,
    reloader: &Reloader,
    on_reload: Option<OnReload>,
    clock: Clock,
) -> Option<Control> {
    let broker = &reloader.broker;
    let started = broker
        .store
        .keeps()
        .then(|| Control::start(directory, reloader.clone(), on_reload, clock))?;
    let warn = |error| {
        let path = directory.display();
        tracing::warn!(%error, "cannot listen in {path}: `sundew ban` and `sundew reload` will not find this broker");
    };
    started.map_err(warn).ok()
}

/// Wills, and the ends of sessions, whose time came while the broker was away: whoever connects finds them done.
fn settle_what_is_due(workers: &mut [Worker], now: Time) {
    for worker in &mut *workers {
        worker.expire(now);
        worker.send_mail();
    }
    for worker in workers {
        worker.receive_last_mail(now);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.send_replace(Stop::Now);
        self.join();
    }
}
