//! What the clients of one history share: where the broker is, how far the history has come, the ledger.

use std::net::SocketAddr;
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::Duration;

use crate::ledger::Ledger;

/// How far a history has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// Everybody does what they do.
    Load,
    /// Publishers send nothing new, and end what they began; every session's client comes and stays.
    Drain,
    /// Everybody leaves.
    Over,
}

/// Shared by the threads of one history.
pub(crate) struct Stage {
    state: Mutex<State>,
    changed: Condvar,
    ledger: Mutex<Ledger>,
}

struct State {
    address: Option<SocketAddr>,
    phase: Phase,
    /// Publishers that have nothing on its way.
    idle: Vec<bool>,
    /// Subscribers that got everything this life of the broker had for them when they came to stay.
    settled: usize,
}

impl Stage {
    pub(crate) fn new(publishers: usize) -> Self {
        Self {
            state: Mutex::new(State {
                address: None,
                phase: Phase::Load,
                idle: vec![false; publishers],
                settled: 0,
            }),
            changed: Condvar::new(),
            ledger: Mutex::new(Ledger::default()),
        }
    }

    pub(crate) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap()
    }

    pub(crate) fn phase(&self) -> Phase {
        self.state.lock().unwrap().phase
    }

    pub(crate) fn enter(&self, phase: Phase) {
        self.state.lock().unwrap().phase = phase;
        self.changed.notify_all();
    }

    /// The broker serves here, or nowhere.
    pub(crate) fn serve(&self, address: Option<SocketAddr>) {
        let mut state = self.state.lock().unwrap();
        (state.address, state.settled) = (address, 0);
        drop(state);
        self.changed.notify_all();
    }

    /// Where the broker is; waits while it is nowhere. `None`: all is over.
    pub(crate) fn broker(&self) -> Option<SocketAddr> {
        let mut state = self.state.lock().unwrap();
        loop {
            match (state.phase, state.address) {
                (Phase::Over, _) => return None,
                (_, Some(address)) => return Some(address),
                (_, None) => state = self.changed.wait(state).unwrap(),
            }
        }
    }

    /// Passes time, shorter when all is over.
    pub(crate) fn rest(&self, time: Duration) {
        let state = self.state.lock().unwrap();
        let phase = state.phase;
        let _ = self
            .changed
            .wait_timeout_while(state, time, |state| state.phase == phase)
            .unwrap();
    }

    /// A publisher says whether it has nothing on its way.
    pub(crate) fn idle(&self, publisher: usize, is_idle: bool) {
        self.state.lock().unwrap().idle[publisher] = is_idle;
    }

    /// A subscriber has asked twice, and what waited for it came before the answers.
    pub(crate) fn settle(&self) {
        self.state.lock().unwrap().settled += 1;
    }

    pub(crate) fn settled(&self) -> usize {
        self.state.lock().unwrap().settled
    }

    pub(crate) fn all_idle(&self) -> bool {
        self.state.lock().unwrap().idle.iter().all(|idle| *idle)
    }
}
