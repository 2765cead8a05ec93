//! A thread of the generator: a runtime, and its share of the connections.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::Duration;

use hdrhistogram::Histogram;
use tokio::sync::mpsc::Receiver;
use tokio::task::{JoinSet, LocalSet};

use super::churn::churn;
use super::connection::{Connection, KEEP_ALIVE, Local, Part, Role, forget};
use super::link::Failure;
use super::pacer::pace;
use super::shared::Shared;

/// What the conductor wants of a thread.
#[derive(Debug)]
pub(super) enum Command {
    /// Open these connections; answered with [`Event::Ready`].
    Open(Vec<Part>),
    /// Keep to the schedule from now on.
    Pace,
    /// Subscribe and unsubscribe from now on, so many times a second.
    Churn(f64),
    /// Close the subscribers and let the publishers remove what is retained.
    Erase,
    /// Close everything; answered with [`Event::Finished`]. The thread ends.
    Finish,
}

/// What a thread has to say.
#[derive(Debug)]
pub(super) enum Event {
    /// Everything that was to be opened is open, or has failed.
    Ready,
    /// A connection could not be opened, or is over.
    Failed(String),
    /// It is over.
    Finished(Box<Tally>),
}

/// What a thread has found.
#[derive(Debug)]
pub(super) struct Tally {
    pub(super) latency: Histogram<u64>,
    pub(super) acknowledging: Histogram<u64>,
    pub(super) connecting: Histogram<u64>,
    pub(super) overtaken: u64,
    /// Nanoseconds.
    pub(super) late_max: u64,
}

/// Nanoseconds that a histogram goes up to; what takes longer counts as much.
const LATENCY_MAX: u64 = 3_600_000_000_000;

/// Every value within 0.1 %.
pub(super) fn histogram() -> Histogram<u64> {
    #[allow(clippy::unwrap_used, reason = "the bounds are constants, and these are valid")]
    Histogram::new_with_bounds(1, LATENCY_MAX, 3).unwrap()
}

/// Runs the thread until [`Command::Finish`], or until the conductor is gone.
pub(super) fn run(
    shared: Arc<Shared>,
    thread: usize,
    commands: Receiver<Command>,
    events: SyncSender<Event>,
) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let local = Local {
        shared,
        thread,
        scratch: RefCell::new(Vec::new()),
        latency: RefCell::new(histogram()),
        acknowledging: RefCell::new(histogram()),
        connecting: RefCell::new(histogram()),
    };
    let worker = Worker {
        local: Rc::new(local),
        events,
        connections: Rc::default(),
        parts: Vec::new(),
    };
    LocalSet::new().block_on(&runtime, worker.obey(commands));
    Ok(())
}

type Connections = Rc<RefCell<Vec<Rc<RefCell<Connection>>>>>;

struct Worker {
    local: Rc<Local>,
    events: SyncSender<Event>,
    connections: Connections,
    /// Everything that was opened.
    parts: Vec<Part>,
}

impl Worker {
    async fn obey(mut self, mut commands: Receiver<Command>) {
        let mut tasks = JoinSet::new();
        let pause = Duration::from_secs(u64::from(KEEP_ALIVE) / 2);
        let mut pings = tokio::time::interval_at(tokio::time::Instant::now() + pause, pause);
        loop {
            let command = tokio::select! {
                command = commands.recv() => command,
                _ = pings.tick() => {
                    self.for_each(Connection::ping);
                    continue;
                }
            };
            match command {
                Some(Command::Open(parts)) => {
                    self.parts.extend(&parts);
                    let (local, connections) = (Rc::clone(&self.local), Rc::clone(&self.connections));
                    tasks.spawn_local(open_all(parts, local, connections, self.events.clone()));
                }
                Some(Command::Pace) => {
                    let local = Rc::clone(&self.local);
                    let events = self.events.clone();
                    tasks.spawn_local(async move {
                        let Some(schedule) = local.shared.schedule.get() else {
                            return;
                        };
                        if let Err(error) = pace(&local.shared, *schedule, local.thread).await {
                            let _ = events.send(Event::Failed(format!("no timer: {error}")));
                        }
                    });
                }
                Some(Command::Churn(rate)) => {
                    let (local, events) = (Rc::clone(&self.local), self.events.clone());
                    tasks.spawn_local(async move { tell(&events, &churn(&local, rate).await) });
                }
                Some(Command::Erase) => self.erase(),
                Some(Command::Finish) => break,
                None => return,
            }
        }
        let tally = self.finish().await;
        let _ = self.events.send(Event::Finished(Box::new(tally))); // a conductor that is gone needs no tally
    }

    fn for_each(&self, act: impl Fn(&mut Connection)) {
        for connection in self.connections.borrow().iter() {
            act(&mut connection.borrow_mut());
        }
    }

    fn erase(&self) {
        self.for_each(|connection| {
            match &mut connection.role {
                Role::Idle => {}
                Role::Subscriber(_) => connection.leave(),
                Role::Publisher(publisher) => {
                    // It fitted with a payload.
                    if publisher.erase(&self.local.shared).is_ok() {
                        connection.wake();
                    }
                }
            }
        });
    }

    async fn finish(&self) -> Tally {
        let local = &self.local;
        let mut tally = Tally {
            latency: local.latency.replace(histogram()),
            acknowledging: local.acknowledging.replace(histogram()),
            connecting: local.connecting.replace(histogram()),
            overtaken: 0,
            late_max: 0,
        };
        for connection in self.connections.borrow().iter() {
            let mut connection = connection.borrow_mut();
            match &connection.role {
                Role::Idle => {}
                Role::Publisher(publisher) => tally.late_max = tally.late_max.max(publisher.late_max),
                Role::Subscriber(subscriber) => tally.overtaken += subscriber.order.overtaken,
            }
            connection.leave();
        }
        if local.shared.workload.keep_session {
            for part in &self.parts {
                if let Err(error) = forget(*part, local).await {
                    let _ = self
                        .events
                        .send(Event::Failed(format!("a session is left in the broker: {error}")));
                    break;
                }
            }
        }
        tally
    }
}

/// Opens connections, not all of them at once.
async fn open_all(parts: Vec<Part>, local: Rc<Local>, connections: Connections, events: SyncSender<Event>) {
    let workload = &local.shared.workload;
    let at_once = (workload.at_once / workload.threads).max(1);
    let mut opening = JoinSet::new();
    for part in parts {
        if opening.len() >= at_once {
            opening.join_next().await;
        }
        let (local, connections, events) = (Rc::clone(&local), Rc::clone(&connections), events.clone());
        opening.spawn_local(async move {
            match Connection::open(part, &local).await {
                Ok(connection) => {
                    connections.borrow_mut().push(Rc::clone(&connection));
                    tokio::task::spawn_local(carry(connection, local, events));
                }
                Err(failure) => tell(&events, &failure),
            }
        });
    }
    while opening.join_next().await.is_some() {}
    let _ = events.send(Event::Ready); // a conductor that is gone waits for nothing
}

/// Carries a connection to its end.
async fn carry(connection: Rc<RefCell<Connection>>, local: Rc<Local>, events: SyncSender<Event>) {
    let failure = poll_fn(|cx| connection.borrow_mut().poll(cx, &local)).await;
    tell(&events, &failure);
}

fn tell(events: &SyncSender<Event>, failure: &Failure) {
    let _ = events.send(Event::Failed(failure.to_string())); // as above
}
