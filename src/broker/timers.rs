//! Deadlines of one worker: a heap of reminders, each re-armed lazily.
//!
//! A reminder says "look at this then", not "this is due": whoever is reminded looks at the truth, which may have moved, and arms
//! again. So a packet costs no timer, and a connection has one reminder however often it talks.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::protocol::ids::{ConnectionKey, SlotKey};
use crate::protocol::time::Time;

/// What to look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reminder {
    /// A connection's silence, or its unfinished CONNECT.
    Connection(ConnectionKey),
    /// A session without connection: its pending will, its expiry.
    Session(SlotKey),
    /// Retained messages that expire.
    Retained,
    /// `$SYS`.
    Sys,
}

/// Reminders too many that are not worth looking for.
const SPARE: usize = 4096;

/// The reminders of a worker.
#[derive(Debug, Default)]
pub struct Timers {
    heap: BinaryHeap<Reverse<(Time, Reminder)>>,
}

impl Timers {
    /// Reminds at `at`.
    pub fn arm(&mut self, at: Time, reminder: Reminder) {
        if at != Time::NEVER {
            self.heap.push(Reverse((at, reminder)));
        }
    }

    /// True when so many reminders have outlived what they remind of that [`Timers::retain`] pays, with `live` things to remind of.
    pub fn is_overgrown(&self, live: usize) -> bool {
        self.heap.len() > 4 * live + SPARE
    }

    /// Forgets reminders that have nothing left to remind of.
    pub fn retain(&mut self, is_alive: impl Fn(Time, Reminder) -> bool) {
        self.heap.retain(|Reverse((at, reminder))| is_alive(*at, *reminder));
    }

    /// Reminders that are armed.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.heap.len()
    }

    /// The next moment that something is to be looked at.
    pub fn next(&self) -> Option<Time> {
        self.heap.peek().map(|Reverse((at, _))| *at)
    }

    /// Takes a reminder whose time has come.
    pub fn pop_due(&mut self, now: Time) -> Option<Reminder> {
        if self.next()? > now {
            return None;
        }
        self.heap.pop().map(|Reverse((_, reminder))| reminder)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reminders_of_what_is_gone_can_be_forgotten() {
        let mut timers = Timers::default();
        for at in 0..10_000 {
            timers.arm(Time(at), Reminder::Sys);
        }
        assert!(timers.is_overgrown(1) && !timers.is_overgrown(5_000));
        timers.retain(|at, _| at >= Time(9_999));
        assert_eq!((timers.heap.len(), timers.next()), (1, Some(Time(9_999))));
    }
}
