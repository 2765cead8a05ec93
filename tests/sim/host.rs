//! The broker as its drivers see it: workers, connections and what travels between workers, each step when the seed says.
//! [`Host::turn`] does what the driver of the I/O half does, and waits for what that waits for: a wake-up that the broker
//! forgets is a client that is never answered.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::task::Waker;

use sundew::broker::{Broker, BrokerOptions, Mail, Parts, Status, Worker};
use sundew::protocol::ids::{ConnectionKey, WorkerId};
use sundew::protocol::time::Time;
use sundew::session::connection::Connection;
use sundew::session::peer::Peer;
use sundew::storage::Store;
use sundew::storage::image::Restored;

use crate::fault::{Fault, Saboteur};
use crate::late::Late;
use crate::ledger::{Invariant, Ledger};
use crate::network::{Link, LinkId};
use crate::random::Random;
use crate::store::{SimStore, Stop};

/// Milliseconds for a CONNECT.
const CONNECT_MS: u64 = 10_000;
/// Milliseconds for the last words of a connection.
const LAST_WORDS_MS: u64 = 5_000;
const READS_PER_TURN: usize = 4;

/// One connection on the worker that drives it.
#[derive(Debug)]
pub(crate) struct Driver {
    worker: usize,
    key: ConnectionKey,
    unread: Vec<u8>,
    is_fresh: bool,
    is_woken: bool,
    wants_to_read: bool,
    wants_to_write: bool,
    closing_since: Option<Time>,
    /// CONNACK with success has been seen in its output.
    is_greeted: bool,
    has_written: bool,
}

impl Driver {
    fn new(worker: usize, key: ConnectionKey, unread: Vec<u8>) -> Self {
        Self {
            worker,
            key,
            is_fresh: !unread.is_empty(),
            unread,
            is_woken: true,
            wants_to_read: false,
            wants_to_write: false,
            closing_since: None,
            is_greeted: false,
            has_written: false,
        }
    }
}

/// A connection on its way to a worker.
#[derive(Debug)]
enum Arrival {
    Accepted(LinkId),
    HandedOver(LinkId, Box<Connection>, Vec<u8>),
}

/// What a broker is made of.
pub(crate) struct Setup {
    pub options: BrokerOptions,
    pub late: Late,
    pub store: Arc<dyn SimStore>,
    pub workers: usize,
    pub seed: u64,
    pub is_prompt: bool,
}

pub(crate) struct Host {
    pub broker: Arc<Broker>,
    pub workers: Vec<Worker>,
    pub drivers: BTreeMap<LinkId, Driver>,
    by_key: BTreeMap<(usize, ConnectionKey), LinkId>,
    arrivals: Vec<VecDeque<Arrival>>,
    pub late: Late,
    pub store: Arc<dyn SimStore>,
    pub saboteur: Saboteur,
    /// Connections that were lost without DISCONNECT after CONNACK.
    pub lost: Vec<LinkId>,
    pub hand_overs: usize,
    /// What is recorded goes to the store at once.
    is_prompt: bool,
}

impl Host {
    pub(crate) fn new(setup: Setup, restored: Restored, now: Time, fault: Option<Fault>) -> Self {
        let parts = Parts {
            authenticator: Arc::new(setup.late.clone()),
            authorizer: Arc::new(setup.late.clone()),
            store: Arc::clone(&setup.store) as Arc<dyn Store>,
            restored,
            seed: setup.seed,
        };
        let broker = Broker::new(setup.options, setup.workers, parts);
        let made = (0..setup.workers)
            .map(|me| Worker::new(Arc::clone(&broker), WorkerId(me as u16), now))
            .collect();
        Self {
            broker,
            workers: made,
            drivers: BTreeMap::new(),
            by_key: BTreeMap::new(),
            arrivals: (0..setup.workers).map(|_| VecDeque::new()).collect(),
            late: setup.late,
            store: setup.store,
            saboteur: Saboteur::new(fault),
            lost: Vec::new(),
            hand_overs: 0,
            is_prompt: setup.is_prompt,
        }
    }

    /// The process ends in the middle of whatever it does, and another one begins with what its store has; its time then.
    pub(crate) fn restart(&mut self, stop: Stop, fault: Option<Fault>) -> Time {
        self.late.forget();
        let (store, restored, now) = self.store.restart(stop);
        let setup = Setup {
            options: self.broker.options.clone(),
            late: self.late.clone(),
            store,
            workers: stop.workers,
            seed: self.broker.seed,
            is_prompt: self.is_prompt,
        };
        *self = Self::new(setup, restored, now, fault);
        now
    }

    /// Links that a connection was let in on and that are open as far as the broker knows.
    pub(crate) fn open_links(&self) -> Vec<LinkId> {
        let is_open = |driver: &Driver| driver.is_greeted && driver.closing_since.is_none();
        let drivers = self.drivers.iter().filter(|(_, driver)| is_open(driver));
        drivers.map(|(link, _)| *link).collect()
    }

    pub(crate) fn accept(&mut self, link: LinkId, worker: usize) {
        self.arrivals[worker].push_back(Arrival::Accepted(link));
    }

    pub(crate) fn has_arrivals(&self, worker: usize) -> bool {
        !self.arrivals[worker].is_empty()
    }

    /// True while the broker has, or is about to have, something of a link.
    pub(crate) fn knows(&self, link: LinkId) -> bool {
        let is_it =
            |arrival: &Arrival| matches!(arrival, Arrival::Accepted(l) | Arrival::HandedOver(l, ..) if *l == link);
        self.drivers.contains_key(&link) || self.arrivals.iter().flatten().any(is_it)
    }

    /// The next connection that is on its way to a worker arrives.
    pub(crate) fn arrive(&mut self, worker: usize, now: Time) {
        let Some(arrival) = self.arrivals[worker].pop_front() else {
            return;
        };
        let (link, key, unread) = match arrival {
            Arrival::Accepted(link) => {
                let peer = Peer {
                    address: format!("link-{link}").into(),
                    ip: None,
                    is_secure: false,
                    certificate: None,
                    rules: Arc::default(),
                };
                (
                    link,
                    self.workers[worker].open(peer, now.plus_millis(CONNECT_MS), now),
                    Vec::new(),
                )
            }
            Arrival::HandedOver(link, connection, unread) => {
                self.hand_overs += 1;
                (link, self.workers[worker].adopt(*connection, now), unread)
            }
        };
        self.drivers.insert(link, Driver::new(worker, key, unread));
        self.by_key.insert((worker, key), link);
        self.dispatch(worker, now);
    }

    fn dispatch(&mut self, worker: usize, now: Time) {
        self.wake_touched(worker);
        self.workers[worker].send_mail();
        if self.is_prompt {
            self.submit(worker, now);
        }
    }

    fn wake_touched(&mut self, worker: usize) {
        while let Some(key) = self.workers[worker].next_touched() {
            if let Some(driver) = self
                .by_key
                .get(&(worker, key))
                .and_then(|link| self.drivers.get_mut(link))
            {
                driver.is_woken = true;
            }
        }
    }

    /// The store gets what a worker has recorded.
    pub(crate) fn submit(&mut self, worker: usize, now: Time) {
        self.workers[worker].submit_records();
        self.workers[worker].release_stored(now);
        self.wake_touched(worker);
        self.workers[worker].send_mail();
    }

    /// True when the store has nothing to do, and everything that was recorded.
    pub(crate) fn is_all_kept(&self) -> bool {
        self.store.is_sound() && !self.store.is_busy() && !self.workers.iter().any(Worker::has_records)
    }

    /// A publication was refused, since this broker was started.
    pub(crate) fn has_refused(&self) -> bool {
        let mut workers = 0..self.workers.len();
        workers.any(|worker| self.broker.metrics.of(WorkerId(worker as u16)).publish_refused.get() > 0)
    }

    pub(crate) fn read_mail(&mut self, worker: usize, now: Time) {
        self.saboteur.panics();
        self.saboteur.open_letters(&self.broker, worker);
        self.workers[worker].receive_mail(Waker::noop(), now);
        self.dispatch(worker, now);
    }

    pub(crate) fn walk(&mut self, worker: usize, now: Time) {
        self.workers[worker].continue_walks(now);
        self.dispatch(worker, now);
    }

    pub(crate) fn expire(&mut self, worker: usize, now: Time) {
        if self.workers[worker].next_deadline().is_some_and(|at| at <= now) {
            self.workers[worker].expire(now);
            self.dispatch(worker, now);
        }
    }

    /// One of the late answers is given, or a word of the store.
    pub(crate) fn answer(&mut self, now: Time, random: &mut Random) {
        if random.percent(50) {
            self.store.step(now);
        }
        let Some((token, outcome)) = self.late.take(random) else {
            return;
        };
        if !self.saboteur.swallows(&outcome) {
            self.broker
                .mailboxes
                .send(token.worker, &mut vec![Mail::Complete(token, outcome)]);
        }
    }

    pub(crate) fn is_runnable(&self, id: LinkId, link: &Link) -> bool {
        self.drivers.get(&id).is_some_and(|driver| {
            driver.is_woken
                || driver.wants_to_read && (!link.up.is_empty() || link.is_client_gone)
                || driver.wants_to_write && (link.room_down() > 0 || link.is_client_gone)
        })
    }

    /// How the broker's end of a connection stands.
    pub(crate) fn describe(&self, id: LinkId, link: &Link) -> String {
        let driver = self.drivers.get(&id);
        let status = driver.map(|driver| self.workers[driver.worker].status(driver.key));
        let (up, down) = (link.up.len(), link.down.len());
        format!("{status:?}, {up} bytes on their way up, {down} down: {driver:?}")
    }

    /// Closing connections have their time.
    pub(crate) fn wake_closing(&mut self) {
        for driver in self
            .drivers
            .values_mut()
            .filter(|driver| driver.closing_since.is_some())
        {
            driver.is_woken = true;
        }
    }

    /// One turn of a connection's driver.
    pub(crate) fn turn(&mut self, id: LinkId, link: &mut Link, now: Time, random: &mut Random, ledger: &mut Ledger) {
        let Some(mut driver) = self.drivers.remove(&id) else {
            return;
        };
        (driver.is_woken, driver.wants_to_read, driver.wants_to_write) = (false, false, false);
        let worker = driver.worker;
        if self.serve(id, &mut driver, link, now, random) {
            self.drivers.insert(id, driver);
        } else {
            self.by_key.remove(&(worker, driver.key));
        }
        self.dispatch(worker, now);
        self.check_bounds(id, ledger);
    }

    /// False when this worker is done with the connection.
    fn serve(&mut self, id: LinkId, driver: &mut Driver, link: &mut Link, now: Time, random: &mut Random) -> bool {
        if let Some(since) = driver.closing_since {
            let has_written = self.write(driver, link, now);
            let is_empty = self.workers[driver.worker]
                .output(driver.key)
                .is_none_or(|output| output.is_empty());
            if has_written && !is_empty && now.millis_since(since) < LAST_WORDS_MS {
                return true;
            }
            if !self.saboteur.forgets_to_remove() {
                self.workers[driver.worker].remove(driver.key);
            }
            link.is_server_gone = true;
            return false;
        }
        for _ in 0..READS_PER_TURN {
            if driver.is_fresh {
                driver.is_fresh = false;
                self.receive(driver, &[], now);
            }
            if !self.write(driver, link, now) {
                return self.lose(id, driver, link, now);
            }
            match self.workers[driver.worker].status(driver.key) {
                Status::Open => {}
                Status::Waiting => {
                    driver.is_fresh = true;
                    return true;
                }
                Status::HandOver(to) => {
                    if let Some(connection) = self.workers[driver.worker].release(driver.key) {
                        let unread = std::mem::take(&mut driver.unread);
                        self.arrivals[to.index()].push_back(Arrival::HandedOver(id, Box::new(connection), unread));
                    }
                    return false;
                }
                Status::Closing => {
                    (driver.closing_since, driver.is_woken) = (Some(now), true);
                    return true;
                }
                Status::Gone => {
                    link.is_server_gone = true;
                    return false;
                }
            }
            if link.up.is_empty() {
                if link.is_client_gone {
                    return self.lose(id, driver, link, now);
                }
                driver.wants_to_read = true;
                return true;
            }
            let count = random.between(1, link.up.len());
            let bytes: Vec<u8> = link.up.drain(..count).collect();
            self.receive(driver, &bytes, now);
        }
        driver.is_fresh = !driver.unread.is_empty();
        driver.is_woken = true;
        true
    }

    fn receive(&mut self, driver: &mut Driver, bytes: &[u8], now: Time) {
        driver.unread.extend_from_slice(bytes);
        let taken = self.workers[driver.worker].receive(driver.key, &driver.unread, now);
        driver.unread.drain(..taken);
        self.dispatch(driver.worker, now);
    }

    /// False when the network connection is gone.
    fn write(&mut self, driver: &mut Driver, link: &mut Link, now: Time) -> bool {
        loop {
            let Some(output) = self.workers[driver.worker]
                .output(driver.key)
                .filter(|output| !output.is_empty())
            else {
                return true;
            };
            if !driver.has_written {
                let first: Vec<u8> = output.chunks().flatten().take(4).copied().collect();
                driver.is_greeted = first[0] == 0x20 && first.get(3) == Some(&0);
            }
            if link.is_client_gone {
                return false;
            }
            let room = link.room_down();
            if room == 0 {
                driver.wants_to_write = true;
                return true;
            }
            let bytes: Vec<u8> = output.chunks().flatten().take(room).copied().collect();
            driver.has_written = true;
            link.down.extend(&bytes);
            self.workers[driver.worker].sent(driver.key, bytes.len(), now);
        }
    }

    fn lose(&mut self, id: LinkId, driver: &mut Driver, link: &mut Link, now: Time) -> bool {
        let is_open = matches!(
            self.workers[driver.worker].status(driver.key),
            Status::Open | Status::Waiting
        );
        if driver.is_greeted && is_open {
            self.lost.push(id);
        }
        self.workers[driver.worker].lost(driver.key, "lost", now);
        link.is_server_gone = true;
        false
    }

    fn check_bounds(&mut self, id: LinkId, ledger: &mut Ledger) {
        let bound = self.broker.options.delivery.output_bytes_max;
        let Some(driver) = self.drivers.get(&id) else { return };
        let length = self.workers[driver.worker]
            .output(driver.key)
            .map_or(0, |output| output.len());
        // Above the bound nothing new is added but what one read of the network asks for, and one packet.
        if length > bound + 64 * 1024 {
            ledger.fail(Invariant::Bounded, || {
                format!("{length} bytes wait for link {id}, the bound is {bound}")
            });
        }
    }
}
