//! Where a connection waits that has nothing to say.
//!
//! Of what an idle connection costs, half are its task and its place in the runtime's reactor. One that has been silent for a while gives both back: its
//! socket is watched by one epoll instance for all of them, and it gets a task again when there is something to read or to write. That takes four system
//! calls each time, which is why it is done after some seconds of silence only: what it costs is bounded by that, whatever the client does.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::mem;
use std::os::fd::RawFd;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use crossbeam_utils::CachePadded;
use mio::unix::SourceFd;
use mio::{Events, Interest, Registry, Token};
use tokio::io::unix::AsyncFd;

use super::driver::Driver;
use super::worker::Local;
use crate::metrics::Metrics;
use crate::protocol::ids::ConnectionKey;

/// Sockets that are looked at in one turn.
const EVENTS_PER_TURN: usize = 256;
/// Connections that are asked to park before others have their turn.
const ASKED_PER_TURN: usize = 64;
/// Steps after a change in which the allocator is asked to give memory back, and the size of the piece it is asked with.
const NUDGES: u32 = 4;
const NUDGE_BYTES: usize = 1 << 20;
/// Steps in which silence is measured.
const STEPS: u32 = 5;

/// The tasks of a worker's connections, and those connections that have none.
pub(super) struct Parking {
    places: RefCell<Vec<Place>>,
    /// Counts steps of silence.
    step: Cell<u32>,
    registry: Registry,
    /// Places of parked connections that have something to write.
    called: RefCell<Vec<u32>>,
    attendant: RefCell<Option<Waker>>,
    metrics: Arc<CachePadded<Metrics>>,
}

/// Where a connection is; by its number in the broker.
#[derive(Default)]
enum Place {
    #[default]
    Empty,
    /// It has a task.
    Awake {
        key: ConnectionKey,
        /// When it had something to do.
        since: u32,
        waker: Waker,
    },
    /// It has none, until the watcher or the broker says so.
    Parked(ConnectionKey, Box<Driver>),
}

/// Tells which parked connections have something to read.
pub(super) struct Watcher {
    poll: AsyncFd<mio::Poll>,
    events: Events,
}

impl Parking {
    /// For a worker on the runtime of the calling thread.
    ///
    /// # Errors
    /// When the operating system has no descriptors left.
    pub(super) fn new(metrics: Arc<CachePadded<Metrics>>) -> io::Result<(Self, Watcher)> {
        let poll = mio::Poll::new()?;
        let parking = Self {
            places: RefCell::default(),
            step: Cell::new(0),
            registry: poll.registry().try_clone()?,
            called: RefCell::default(),
            attendant: RefCell::default(),
            metrics,
        };
        #[expect(
            deprecated,
            reason = "its successor is unsafe; the descriptor is the watcher's own, as long as it lives"
        )]
        let poll = AsyncFd::with_interest(poll, tokio::io::Interest::READABLE)?;
        let watcher = Watcher {
            poll,
            events: Events::with_capacity(EVENTS_PER_TURN),
        };
        Ok((parking, watcher))
    }

    /// A connection's task has its turn. True when it was silent for so long that it may park.
    pub(super) fn turn(&self, key: ConnectionKey, task: &Waker) -> bool {
        let mut places = self.places.borrow_mut();
        let (at, now) = (key.0.slot as usize, self.step.get());
        if places.len() <= at {
            places.resize_with(at + 1, Place::default);
        }
        match &mut places[at] {
            Place::Awake {
                key: owner,
                since,
                waker,
            } if *owner == key && waker.will_wake(task) => mem::replace(since, now).wrapping_add(STEPS) <= now,
            place => {
                *place = Place::Awake {
                    key,
                    since: now,
                    waker: task.clone(),
                };
                false
            }
        }
    }

    /// A connection's task is over.
    pub(super) fn forget(&self, key: ConnectionKey) {
        if let Some(place) = self.places.borrow_mut().get_mut(key.0.slot as usize)
            && matches!(place, Place::Awake { key: owner, .. } if *owner == key)
        {
            *place = Place::Empty;
        }
    }

    /// A connection has something to do: its task is woken, or it gets one.
    pub(super) fn wake(&self, key: ConnectionKey) {
        match self.places.borrow().get(key.0.slot as usize) {
            Some(Place::Awake { key: owner, waker, .. }) if *owner == key => waker.wake_by_ref(),
            Some(Place::Parked(owner, _)) if *owner == key => self.call(key),
            _ => {}
        }
    }

    fn call(&self, key: ConnectionKey) {
        self.called.borrow_mut().push(key.0.slot);
        if let Some(attendant) = &*self.attendant.borrow() {
            attendant.wake_by_ref();
        }
    }

    /// A connection gives up its task. Its stream is detached.
    pub(super) fn park(&self, key: ConnectionKey, driver: Box<Driver>, socket: RawFd) {
        let at = key.0.slot;
        // What is there to read already is told, too.
        let registered = self
            .registry
            .register(&mut SourceFd(&socket), Token(at as usize), Interest::READABLE);
        self.places.borrow_mut()[at as usize] = Place::Parked(key, driver);
        self.metrics.connections_parked.increment();
        if registered.is_err() {
            self.call(key);
        }
    }

    fn take(&self, at: u32) -> Option<Driver> {
        let mut places = self.places.borrow_mut();
        let place = places.get_mut(at as usize)?;
        let taken = mem::take(place);
        let Place::Parked(_, driver) = taken else {
            *place = taken;
            return None;
        };
        self.metrics.connections_parked.decrement();
        if let Some(socket) = driver.socket() {
            let _ = self.registry.deregister(&mut SourceFd(&socket)); // it may never have been registered
        }
        Some(*driver)
    }

    /// Closes what is parked: its connections know the worker, which would otherwise never end.
    pub(super) fn clear(&self) {
        let places = mem::take(&mut *self.places.borrow_mut());
        drop(places);
    }

    /// Asks tasks that have had nothing to do to park, from a place on. Where to go on, if there are more.
    fn ask(&self, from: usize) -> Option<usize> {
        let places = self.places.borrow();
        let now = self.step.get();
        let mut asked = 0;
        for (at, place) in places.iter().enumerate().skip(from) {
            if let Place::Awake { since, waker, .. } = place
                && since.wrapping_add(STEPS) <= now
            {
                waker.wake_by_ref();
                asked += 1;
                if asked == ASKED_PER_TURN {
                    return Some(at + 1);
                }
            }
        }
        None
    }
}

impl Local {
    /// Gives parked connections a task when there is something to do for them.
    pub(super) async fn attend(self: Rc<Self>, mut watcher: Watcher) {
        let mut ready = Vec::new();
        poll_fn(|cx| {
            let parking = &self.parking;
            parking.attendant.borrow_mut().get_or_insert_with(|| cx.waker().clone());
            ready.append(&mut parking.called.borrow_mut());
            if let Poll::Ready(result) = watcher.poll_ready(cx, &mut ready) {
                if let Err(error) = result {
                    tracing::debug!(%error, "parked connections could not be looked at"); // interrupted
                }
                cx.waker().wake_by_ref();
            }
            for at in ready.drain(..) {
                if let Some(driver) = parking.take(at) {
                    driver.unpark();
                }
            }
            Poll::<()>::Pending
        })
        .await;
    }

    /// Measures silence, and sees to it that what connections have given up goes back to the system.
    pub(super) async fn ask_to_park(self: Rc<Self>, after: Duration) {
        let (mut before, mut nudges) = ((0, 0), 0);
        loop {
            tokio::time::sleep(after / STEPS).await;
            let parking = &self.parking;
            parking.step.set(parking.step.get().wrapping_add(1));
            let mut from = Some(0);
            while let Some(at) = from {
                from = parking.ask(at);
                tokio::task::yield_now().await;
            }
            let now = (
                self.connections.load(Ordering::Relaxed),
                parking.metrics.connections_parked.get(),
            );
            nudges = if now == before { nudges } else { NUDGES };
            before = now;
            if nudges > 0 {
                nudges -= 1;
                nudge_allocator();
            }
        }
    }
}

/// Makes the allocator give back what has been free for a second. It does so when memory is freed in large pieces, which in a broker that has become
/// silent may be never.
fn nudge_allocator() {
    drop(std::hint::black_box(Vec::<u8>::with_capacity(NUDGE_BYTES)));
}

impl Watcher {
    fn poll_ready(&mut self, cx: &mut Context<'_>, places: &mut Vec<u32>) -> Poll<io::Result<()>> {
        loop {
            let mut ready = ready!(self.poll.poll_read_ready_mut(cx))?;
            ready.get_inner_mut().poll(&mut self.events, Some(Duration::ZERO))?;
            if !self.events.is_empty() {
                places.extend(self.events.iter().map(|event| event.token().0 as u32));
                return Poll::Ready(Ok(()));
            }
            ready.clear_ready();
        }
    }
}
