//! A worker thread: one core, one runtime, one part of the broker, and the connections whose sessions live there.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use crossbeam_utils::CachePadded;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::{JoinHandle, LocalSet};

use super::accept::{self, Gate, Placement};
use super::addresses::Beyond;
use super::driver::Driver;
use super::establish::{Established, Refused, RefusedReason, establish, establish_plain, is_plain};
use super::listener::{Accepted, Listener, Slot};
use super::memory::MemoryWatch;
use super::parking::Parking;
use super::peer::Peer as TransportPeer;
use super::stream::Stream;
use crate::broker::Worker;
use crate::metrics::{Metric, Metrics};
use crate::protocol::ids::{ConnectionKey, WorkerId};
use crate::protocol::time::Time;
use crate::session::connection::Connection;
use crate::session::peer::{ListenerRules, Peer, PeerCertificate};

/// Bytes read at once. Large reads make large batches; each worker has one buffer, not each connection.
pub const READ_BUFFER_BYTES: usize = 256 * 1024;
/// How often a worker looks how long it was at work and how late it is: when it has little to do, and when it has much.
const MEASURE_EVERY: Duration = Duration::from_millis(500);
const MEASURE_EVERY_BUSY: Duration = Duration::from_millis(100);
/// The part of the time that is much.
const MUCH: u32 = 8;
/// How long the greatest lag is remembered: for one to two such times.
const LAG_REMEMBERED: Duration = Duration::from_secs(10);
/// The timer's own grain: a worker that is not late sleeps that much longer at most.
const TIMER_GRAIN: Duration = Duration::from_millis(1);
/// How long a stopping worker waits between publishing wills and letting clients go, so that they arrive.
const WILLS_PAUSE: Duration = Duration::from_millis(20);
/// How often a stopping worker looks whether its connections are gone.
const GONE_POLL: Duration = Duration::from_millis(5);
/// Connections that may be on their way to a worker.
const ARRIVALS_MAX: usize = 1024;

/// The machine's clock as [`Time`], the same for all workers.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    started: Instant,
    at: Time,
}

impl Clock {
    /// A clock that was at `at` at a moment: where something was kept, time goes on where it was.
    pub const fn start(at: Time, started: Instant) -> Self {
        Self { started, at }
    }

    /// The time.
    #[inline]
    pub fn now(&self) -> Time {
        self.at.plus_millis(self.started.elapsed().as_millis() as u64)
    }

    /// A moment as time.
    pub fn time(&self, moment: Instant) -> Time {
        let since = moment.saturating_duration_since(self.started);
        self.at.plus_millis(since.as_millis() as u64)
    }

    fn instant(&self, time: Time) -> Instant {
        self.started + Duration::from_millis(time.millis_since(self.at))
    }
}

/// A connection that comes to a worker.
#[derive(Debug)]
pub enum Arrival {
    /// From the accept loop, detached.
    Accepted(Box<Accepted>, Arc<ListenerRules>),
    /// From another worker: the session lives here.
    HandedOver(Box<HandedOver>),
}

/// See [`Arrival::HandedOver`].
#[derive(Debug)]
pub struct HandedOver {
    pub(super) connection: Connection,
    pub(super) stream: Stream,
    pub(super) slot: Slot,
    pub(super) unread: Vec<u8>,
}

/// What other threads know of a worker.
#[derive(Clone, Debug)]
pub struct WorkerHandle {
    /// Where connections for it go.
    pub arrivals: mpsc::Sender<Arrival>,
    /// Connections it has.
    pub connections: Arc<AtomicUsize>,
    /// Microseconds in which it was at work, all told.
    pub busy_micros: Arc<AtomicU64>,
}

/// The receiving half of a [`WorkerHandle`].
#[derive(Debug)]
pub struct WorkerInbox {
    arrivals: mpsc::Receiver<Arrival>,
    handle: WorkerHandle,
}

/// A handle and its receiving half.
pub fn handle() -> (WorkerHandle, WorkerInbox) {
    let (sender, arrivals) = mpsc::channel(ARRIVALS_MAX);
    let handle = WorkerHandle {
        arrivals: sender,
        connections: Arc::default(),
        busy_micros: Arc::default(),
    };
    (handle.clone(), WorkerInbox { arrivals, handle })
}

/// What the tasks of one worker share.
pub(super) struct Local {
    pub(super) broker: RefCell<Worker>,
    pub(super) read_buffer: RefCell<Vec<u8>>,
    pub(super) clock: Clock,
    pub(super) parking: Parking,
    memory: MemoryWatch,
    /// Of the task that reads mail and goes on with walks.
    mail_waker: RefCell<Option<Waker>>,
    /// Of the task that gives the store what was recorded.
    records_waker: RefCell<Option<Waker>>,
    /// When the timer task will look next.
    armed: Cell<Time>,
    rearm: Notify,
    peers: Vec<WorkerHandle>,
    pub(super) connections: Arc<AtomicUsize>,
}

/// What a worker thread is started with.
pub struct WorkerStart {
    /// This worker's part of the broker. All parts are made before the first worker runs: what one restores, another may be asked for.
    pub worker: Worker,
    /// The clock of all workers.
    pub clock: Clock,
    /// Connections for it.
    pub inbox: WorkerInbox,
    /// All workers, itself too.
    pub peers: Vec<WorkerHandle>,
    /// Listeners it accepts on, with the MQTT rules of each; only worker 0 has any.
    pub listeners: Vec<(Listener, Arc<ListenerRules>)>,
    /// Where accepted connections go.
    pub placement: Placement,
    /// Connections of all workers at most.
    pub connections_max: usize,
    /// How far the broker is with stopping.
    pub stop: watch::Receiver<Stop>,
    /// Counted up when this worker's clients are gone; it works on until [`Stop::Now`], for the store's sake.
    pub drained: Arc<AtomicUsize>,
    /// Silence after which a connection gives up its task.
    pub park_after: Duration,
}

/// How far the broker is with stopping.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stop {
    /// It runs.
    Running,
    /// Clients are told and let go.
    Draining,
    /// Whatever is left is dropped.
    Now,
}

/// Runs a worker on this thread until it is stopped and its connections are gone.
///
/// # Errors
/// When the operating system refuses a runtime.
pub fn run(start: WorkerStart) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let WorkerStart {
        worker,
        clock,
        inbox,
        peers,
        listeners,
        placement,
        connections_max,
        stop,
        drained,
        park_after,
    } = start;
    let me = worker.id();
    let (parking, watcher) = {
        let _inside = runtime.enter();
        Parking::new(Arc::clone(worker.broker().metrics.of(me)))?
    };
    let WorkerInbox { arrivals, handle } = inbox;
    let memory = MemoryWatch::new(worker.broker().memory.bytes_max().is_some());
    let local = Rc::new(Local {
        broker: RefCell::new(worker),
        read_buffer: RefCell::new(vec![0; READ_BUFFER_BYTES]),
        clock,
        parking,
        memory,
        mail_waker: RefCell::default(),
        records_waker: RefCell::default(),
        armed: Cell::new(Time::NEVER),
        rearm: Notify::new(),
        connections: Arc::clone(&handle.connections),
        peers,
    });
    let tasks = LocalSet::new();
    let own = [
        tasks.spawn_local(Rc::clone(&local).take_arrivals(arrivals)),
        tasks.spawn_local(Rc::clone(&local).read_mail()),
        tasks.spawn_local(Rc::clone(&local).keep_time()),
        tasks.spawn_local(Rc::clone(&local).submit_records()),
        tasks.spawn_local(Rc::clone(&local).attend(watcher)),
    ];
    for task in own {
        tasks.spawn_local(must_not_end(task));
    }
    tasks.spawn_local(Rc::clone(&local).measure(handle, me));
    tasks.spawn_local(Rc::clone(&local).ask_to_park(park_after));
    let all: Vec<_> = listeners
        .iter()
        .map(|(listener, _)| Arc::clone(listener.shared()))
        .collect();
    for (listener, rules) in listeners {
        let gate = Gate {
            placement: placement.clone(),
            connections_max,
            workers: local.peers.clone(),
            listeners: all.clone(),
            me,
        };
        tasks.spawn_local(accept::accept(Rc::clone(&local), listener, rules, gate, stop.clone()));
    }
    tasks.block_on(&runtime, drain(&local, stop, &drained));
    local.parking.clear();
    Ok(())
}

/// Waits until the broker stops, lets this worker's clients go, and works on for the store until everything ends.
async fn drain(local: &Local, mut stop: watch::Receiver<Stop>, drained: &AtomicUsize) {
    // The sender lives as long as the server does; without it there is nobody to wait for.
    let _ = stop.wait_for(|stop| *stop >= Stop::Draining).await;
    local.broker.borrow_mut().publish_wills(local.clock.now());
    local.dispatch();
    tokio::time::sleep(WILLS_PAUSE).await;
    local.broker.borrow_mut().receive_last_mail(local.clock.now());
    // The mailbox has forgotten who reads it, and the store still writes.
    if let Some(waker) = &*local.mail_waker.borrow() {
        waker.wake_by_ref();
    }
    local.broker.borrow_mut().drain(local.clock.now());
    local.dispatch();
    let all_gone = async {
        while local.connections.load(Ordering::Relaxed) > 0 || local.broker.borrow().has_legacies() {
            tokio::time::sleep(GONE_POLL).await;
        }
    };
    tokio::select! {
        () = all_gone => {}
        _ = stop.wait_for(|stop| *stop == Stop::Now) => {}
    }
    drained.fetch_add(1, Ordering::Release);
    let _ = stop.wait_for(|stop| *stop == Stop::Now).await;
}

impl Local {
    /// Gives bytes to the broker, and everyone what follows from them.
    pub(super) fn receive(&self, key: ConnectionKey, bytes: &[u8]) -> usize {
        let taken = self.broker.borrow_mut().receive(key, bytes, self.clock.now());
        if self.memory.has_come(taken) {
            self.look_at_memory();
        }
        self.dispatch();
        taken
    }

    /// Wakes the tasks of connections that have something to do, sends the mail, and sees to the timer.
    pub(super) fn dispatch(&self) {
        let mut broker = self.broker.borrow_mut();
        while let Some(key) = broker.next_touched() {
            self.parking.wake(key);
        }
        broker.send_mail();
        if broker.has_records()
            && let Some(waker) = &*self.records_waker.borrow()
        {
            waker.wake_by_ref();
        }
        if broker.has_walks()
            && let Some(waker) = &*self.mail_waker.borrow()
        {
            waker.wake_by_ref();
        }
        if broker.next_deadline().is_some_and(|next| next < self.armed.get()) {
            self.rearm.notify_one();
        }
    }

    pub(super) fn lost(&self, key: ConnectionKey, why: &str) {
        self.broker.borrow_mut().lost(key, why, self.clock.now());
        self.dispatch();
    }

    pub(super) fn remove(&self, key: ConnectionKey) {
        self.broker.borrow_mut().remove(key);
    }

    pub(super) fn release(&self, key: ConnectionKey) -> Option<Connection> {
        self.broker.borrow_mut().release(key)
    }

    pub(super) async fn send_arrival(&self, to: WorkerId, arrival: Arrival) {
        // A worker that is gone has stopped, and so does this one: the connection is dropped.
        let _ = self.peers[to.index()].arrivals.send(arrival).await;
    }

    async fn take_arrivals(self: Rc<Self>, mut arrivals: mpsc::Receiver<Arrival>) {
        while let Some(arrival) = arrivals.recv().await {
            match arrival {
                Arrival::Accepted(accepted, rules) => Rc::clone(&self).begin(*accepted, rules),
                Arrival::HandedOver(handed_over) => Rc::clone(&self).adopt(*handed_over),
            }
        }
    }

    /// Begins to serve an accepted connection. A handshake, which needs much more room than the driver, is a task of its own.
    pub(super) fn begin(self: Rc<Self>, accepted: Accepted, rules: Arc<ListenerRules>) {
        if is_plain(&accepted) {
            return self.serve_or_log(establish_plain(accepted), rules);
        }
        tokio::task::spawn_local(async move {
            let established = establish(accepted, |peer, slot| self.keeps_out(peer, slot)).await;
            self.serve_or_log(established, rules);
        });
    }

    fn serve_or_log(self: Rc<Self>, established: Result<Established, Refused>, rules: Arc<ListenerRules>) {
        match established {
            Ok(established) => self.serve(established, rules),
            Err(refused) => {
                if matches!(refused.reason, RefusedReason::Timeout(_)) {
                    self.count(|metrics| &metrics.limit_connect_time);
                }
                refused.log();
            }
        }
    }

    /// Whether everybody from an address is banned, or it has too many connections, which is counted: this one is to be closed without a word.
    pub(super) fn keeps_out(&self, peer: &TransportPeer, slot: &mut Slot) -> bool {
        let now = self.clock.now();
        let is_banned = |ip| self.broker.borrow().broker().bans.address(ip, now).is_some();
        if peer.address.ip().is_some_and(is_banned) {
            self.count(|metrics| &metrics.banned_accept);
            return true;
        }
        match slot.count_for(&peer.address) {
            Ok(()) => return false,
            Err(Beyond::Connections) => self.count(|metrics| &metrics.limit_connections),
            Err(Beyond::Rate) => self.count(|metrics| &metrics.limit_connect_rate),
        }
        true
    }

    /// Counts something.
    pub(super) fn count(&self, metric: impl Fn(&Metrics) -> &Metric) {
        metric(&self.metrics()).increment();
    }

    /// This worker's own.
    pub(super) fn metrics(&self) -> Arc<CachePadded<Metrics>> {
        let worker = self.broker.borrow();
        Arc::clone(worker.broker().metrics.of(worker.id()))
    }

    fn serve(self: Rc<Self>, established: Established, rules: Arc<ListenerRules>) {
        let Established {
            stream,
            peer,
            first_bytes,
            deadline,
            slot,
        } = established;
        let connect_by = self.clock.time(deadline.into_std());
        let key = self
            .broker
            .borrow_mut()
            .open(session_peer(peer, rules), connect_by, self.clock.now());
        self.dispatch();
        self.drive(key, stream, slot, first_bytes);
    }

    fn adopt(self: Rc<Self>, handed_over: HandedOver) {
        let HandedOver {
            connection,
            mut stream,
            slot,
            unread,
        } = handed_over;
        if stream.attach().is_err() {
            return;
        }
        let key = self.broker.borrow_mut().adopt(connection, self.clock.now());
        self.dispatch();
        self.drive(key, stream, slot, unread);
    }

    fn drive(self: Rc<Self>, key: ConnectionKey, stream: Stream, slot: Slot, unread: Vec<u8>) {
        tokio::task::spawn_local(Driver::new(self, key, stream, slot, unread).run());
    }

    async fn read_mail(self: Rc<Self>) {
        poll_fn(|cx| {
            self.mail_waker.borrow_mut().get_or_insert_with(|| cx.waker().clone());
            let now = self.clock.now();
            let has_mail = self.broker.borrow_mut().receive_mail(cx.waker(), now);
            let has_walked = self.broker.borrow_mut().continue_walks(now);
            if has_mail || has_walked {
                self.dispatch();
                // Connections have their turn before the next batch.
                cx.waker().wake_by_ref();
            }
            Poll::<()>::Pending
        })
        .await;
    }

    /// Gives the store what was recorded. Woken, it comes behind every connection that is ready: they all share one batch.
    async fn submit_records(self: Rc<Self>) {
        poll_fn(|cx| {
            self.records_waker
                .borrow_mut()
                .get_or_insert_with(|| cx.waker().clone());
            let mut broker = self.broker.borrow_mut();
            broker.submit_records();
            broker.release_stored(self.clock.now());
            drop(broker);
            self.dispatch();
            Poll::<()>::Pending
        })
        .await;
    }

    /// Keeps the account of this worker's working time, and of how late its loop runs: by as much as a timer of its own comes late, a
    /// message waits before it is looked at.
    async fn measure(self: Rc<Self>, handle: WorkerHandle, me: WorkerId) {
        let metrics = Arc::clone(self.broker.borrow().broker().metrics.of(me));
        let runtime = tokio::runtime::Handle::current().metrics();
        let (mut every, mut busy) = (MEASURE_EVERY, Duration::ZERO);
        let (mut peaks, mut turned) = ([Duration::ZERO; 2], Instant::now());
        loop {
            let due = Instant::now() + every;
            tokio::time::sleep_until(due.into()).await;
            let lag = due.elapsed().saturating_sub(TIMER_GRAIN);
            let before = std::mem::replace(&mut busy, runtime.worker_total_busy_duration(0));
            handle.busy_micros.store(busy.as_micros() as u64, Ordering::Relaxed);
            self.look_at_memory();
            let is_busy = busy.saturating_sub(before) > every / MUCH;
            every = if is_busy { MEASURE_EVERY_BUSY } else { MEASURE_EVERY };
            if !is_busy {
                self.broker.borrow_mut().rest();
            }
            if turned.elapsed() >= LAG_REMEMBERED {
                (peaks, turned) = ([Duration::ZERO, peaks[0]], Instant::now());
            }
            peaks[0] = peaks[0].max(lag);
            metrics.busy_micros.set(busy.as_micros() as u64);
            metrics.lag_samples.increment();
            metrics.lag_micros.add(lag.as_micros() as u64);
            metrics.lag_peak_micros.set(peaks[0].max(peaks[1]).as_micros() as u64);
        }
    }

    /// Tells the broker how much memory is used.
    fn look_at_memory(&self) {
        let Some(used) = self.memory.used() else { return };
        let has_changed = self.broker.borrow_mut().note_memory(used);
        if has_changed {
            self.dispatch();
        }
    }

    async fn keep_time(self: Rc<Self>) {
        loop {
            let next = self.broker.borrow().next_deadline().unwrap_or(Time::NEVER);
            self.armed.set(next);
            let sleep = async {
                if next == Time::NEVER {
                    std::future::pending::<()>().await;
                }
                tokio::time::sleep_until(self.clock.instant(next).into()).await;
            };
            tokio::select! {
                () = sleep => {
                    self.broker.borrow_mut().expire(self.clock.now());
                    self.dispatch();
                }
                () = self.rearm.notified() => {}
            }
        }
    }
}

/// A worker without one of its own tasks is deaf: better the whole process ends, and is started again.
async fn must_not_end(task: JoinHandle<()>) {
    if task.await.is_err_and(|error| error.is_panic()) {
        tracing::error!("internal error: a worker's own task panicked; the process ends");
        std::process::abort();
    }
}

fn session_peer(peer: TransportPeer, rules: Arc<ListenerRules>) -> Peer {
    let certificate = peer.tls.as_ref().and_then(|tls| tls.certificate.as_ref());
    Peer {
        address: peer.address.to_string().into(),
        ip: peer.address.ip(),
        is_secure: peer.tls.is_some(),
        certificate: certificate.map(|certificate| {
            Arc::new(PeerCertificate {
                common_name: certificate.common_name.clone(),
                subject: certificate.subject.clone(),
                alternative_names: certificate.alternative_names.clone(),
                id: certificate.id,
            })
        }),
        rules,
    }
}
