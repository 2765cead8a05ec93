//! What the generator's threads and its conductor have in common: the clock, the counters, and what each publisher may still send.
#![allow(clippy::disallowed_methods, reason = "it has the clock of the run")]

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Instant;

use bytes::Bytes;
use crossbeam_utils::CachePadded;
use futures_util::task::AtomicWaker;

use super::account::Account;
use super::scenario::Plan;
use super::schedule::Schedule;
use super::settings::Workload;
use crate::transport::client_stream::Connector;

/// One run.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) workload: Workload,
    pub(super) plan: Plan,
    pub(super) server: Access,
    /// In every stamp, and in every client id and topic.
    pub(super) run: u32,
    began: Instant,
    /// Publishers may send.
    pub(super) is_publishing: AtomicBool,
    /// Messages that are stamped from here on are measured, in nanoseconds of the run's clock.
    pub(super) measured_from: AtomicU64,
    /// Messages that are stamped from here on are not.
    pub(super) measured_to: AtomicU64,
    /// When an open loop sends.
    pub(super) schedule: OnceLock<Schedule>,
    /// One for each thread.
    pub(super) counters: Box<[CachePadded<Counters>]>,
    /// One for each publisher.
    pub(super) publishers: Box<[CachePadded<PublisherCell>]>,
    /// One for each audience.
    pub(super) accounts: Box<[Mutex<Account>]>,
}

/// How to connect, and as whom.
#[derive(Clone, Debug)]
pub(super) struct Access {
    /// One for each address that we connect from.
    pub(super) connectors: Vec<Connector>,
    pub(super) user_name: Option<String>,
    pub(super) password: Option<Bytes>,
}

/// What a thread has counted. Written by that thread alone.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) sent: AtomicU64,
    pub(super) delivered: AtomicU64,
    pub(super) acknowledged: AtomicU64,
    pub(super) opened: AtomicU64,
    pub(super) subscribed: AtomicU64,
    /// SUBACK and UNSUBACK of subscriptions that come and go.
    pub(super) churned: AtomicU64,
}

/// A publisher, as the subscribers and the conductor see it.
#[derive(Debug, Default)]
pub(super) struct PublisherCell {
    /// Deliveries of its messages, and what the conductor has written off.
    delivered: AtomicU64,
    /// The publisher waits for as many.
    wanted: AtomicU64,
    /// What it has sent. Written by its thread alone.
    pub(super) sent: AtomicU64,
    /// What the broker refused with a reason code. Written by its thread alone.
    pub(super) refused: AtomicU64,
    waker: AtomicWaker,
}

impl Shared {
    /// Nothing has happened yet.
    pub(super) fn new(workload: Workload, plan: Plan, server: Access, run: u32) -> Arc<Self> {
        let accounts = plan
            .audiences
            .iter()
            .map(|publishers| Mutex::new(Account::new(publishers.len())));
        Arc::new(Self {
            run,
            began: Instant::now(),
            is_publishing: AtomicBool::new(false),
            measured_from: AtomicU64::new(u64::MAX),
            measured_to: AtomicU64::new(u64::MAX),
            schedule: OnceLock::new(),
            counters: (0..workload.threads).map(|_| CachePadded::default()).collect(),
            publishers: plan.publishers.iter().map(|_| CachePadded::default()).collect(),
            accounts: accounts.collect(),
            server,
            plan,
            workload,
        })
    }

    /// Nanoseconds since the run began.
    #[inline]
    pub(super) fn now(&self) -> u64 {
        self.began.elapsed().as_nanos() as u64
    }

    /// Whether a message with this stamp counts for the latency.
    #[inline]
    pub(super) fn is_measured(&self, time: u64) -> bool {
        time >= self.measured_from.load(Ordering::Relaxed) && time < self.measured_to.load(Ordering::Relaxed)
    }

    /// One counter of all threads together.
    pub(super) fn sum(&self, counter: impl Fn(&Counters) -> &AtomicU64) -> u64 {
        self.counters
            .iter()
            .map(|counters| counter(counters).load(Ordering::Relaxed))
            .sum()
    }

    /// Lets all publishers look again at what they may send.
    pub(super) fn wake_publishers(&self) {
        for cell in &self.publishers {
            cell.waker.wake();
        }
    }
}

/// Adds to a counter that only this thread writes.
#[inline]
pub(super) fn add(counter: &AtomicU64, count: u64) {
    counter.store(counter.load(Ordering::Relaxed) + count, Ordering::Relaxed);
}

impl PublisherCell {
    /// Messages of this publisher have come; it is woken where it waits for them.
    #[inline]
    pub(super) fn deliver(&self, count: u64) {
        // In one order with `wait_for`: either it sees the deliveries, or we see what it waits for.
        let delivered = self.delivered.fetch_add(count, Ordering::SeqCst) + count;
        if delivered >= self.wanted.load(Ordering::SeqCst) {
            self.waker.wake();
        }
    }

    /// Deliveries so far.
    #[inline]
    pub(super) fn delivered(&self) -> u64 {
        self.delivered.load(Ordering::SeqCst)
    }

    /// The publisher waits for `wanted` deliveries, or for anything else that wakes it. False where they are there already.
    pub(super) fn wait_for(&self, wanted: u64, waker: &std::task::Waker) -> bool {
        self.waker.register(waker);
        self.wanted.store(wanted, Ordering::SeqCst);
        self.delivered() < wanted
    }

    /// Wakes the publisher.
    pub(super) fn wake(&self) {
        self.waker.wake();
    }

    /// Counts everything sent as delivered, so that the publisher goes on. Says whether something was missing.
    pub(super) fn write_off(&self, deliveries: u64) -> bool {
        let sent = self.sent.load(Ordering::Relaxed) * deliveries;
        let was = self.delivered.fetch_max(sent, Ordering::SeqCst);
        self.waker.wake();
        was < sent
    }
}
