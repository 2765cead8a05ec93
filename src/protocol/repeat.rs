//! Repeats of one event become one line: a device that reconnects ten times a second with a wrong password must not fill a disk.

use core::hash::{BuildHasher, Hash};
use std::collections::HashMap;

use foldhash::fast::RandomState;

use super::time::Time;

/// Decides which of many equal events are written to the log.
///
/// The first event of a key is written; those that follow within the window are counted; the first one after the window is
/// written again and carries the count as `repeated=N`. At most `keys_max` keys are remembered: beyond that all new keys share
/// one entry, so that a flood of *different* keys is bounded too, in memory and in lines.
///
/// ```
/// # use sundew::protocol::{repeat::Repeats, time::Time};
/// let mut repeats = Repeats::new(60_000, 1024);
/// let event = ("auth refused", "z2m", "192.168.1.7");
/// assert_eq!(repeats.record(&event, Time(0)), Some(0)); // write the line
/// assert_eq!(repeats.record(&event, Time(1)), None); // do not write it
/// assert_eq!(repeats.record(&event, Time(60_000)), Some(1)); // write it with repeated=1
/// ```
#[derive(Debug)]
pub struct Repeats {
    window_ms: u64,
    keys_max: usize,
    hasher: RandomState,
    entries: HashMap<u64, Entry, RandomState>,
    /// Shared by every key that found `entries` full.
    overflow: Option<Entry>,
    /// Entries are dropped by a walk over all of them, at most once in a window.
    next_sweep: Time,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    written: Time,
    suppressed: u64,
}

impl Repeats {
    /// `window_ms`: milliseconds in which equal events are one line; 0 writes every event.
    /// `keys_max`: keys remembered at once, about 32 bytes each.
    #[must_use]
    pub fn new(window_ms: u64, keys_max: usize) -> Self {
        Self {
            window_ms,
            keys_max,
            hasher: RandomState::default(),
            entries: HashMap::default(),
            overflow: None,
            next_sweep: Time(0),
        }
    }

    /// Records one event. `Some(n)`: write the line, `n` equal events were left out since the last one that was written
    /// (0: say nothing of it). `None`: leave this one out.
    ///
    /// `key` is what makes two events equal, such as the tuple (kind, client id, address); the hash of it is what is kept.
    pub fn record<K: Hash + ?Sized>(&mut self, key: &K, now: Time) -> Option<u64> {
        if let Some(recorded) = self.try_record(key, now) {
            return recorded;
        }
        match &mut self.overflow {
            Some(entry) => entry.record(now, self.window_ms),
            empty => {
                *empty = Some(Entry::new(now));
                Some(0)
            }
        }
    }

    /// The same where the key is remembered already, or there is room for it; `None` where there is none.
    pub fn try_record<K: Hash + ?Sized>(&mut self, key: &K, now: Time) -> Option<Option<u64>> {
        if self.window_ms == 0 {
            return Some(Some(0));
        }
        let hash = self.hasher.hash_one(key);
        if let Some(entry) = self.entries.get_mut(&hash) {
            return Some(entry.record(now, self.window_ms));
        }
        if self.entries.len() >= self.keys_max {
            self.sweep(now);
        }
        if self.entries.len() >= self.keys_max {
            return None;
        }
        self.entries.insert(hash, Entry::new(now));
        Some(Some(0))
    }

    /// Forgets the keys whose window is over. What they left out is not reported any more: it is in the counters of the event.
    fn sweep(&mut self, now: Time) {
        if now < self.next_sweep {
            return;
        }
        self.next_sweep = now.plus_millis(self.window_ms);
        self.entries
            .retain(|_, entry| now.millis_since(entry.written) < self.window_ms);
    }
}

impl Entry {
    const fn new(now: Time) -> Self {
        Self {
            written: now,
            suppressed: 0,
        }
    }

    fn record(&mut self, now: Time, window_ms: u64) -> Option<u64> {
        if now.millis_since(self.written) < window_ms {
            self.suppressed = self.suppressed.saturating_add(1);
            return None;
        }
        let suppressed = self.suppressed;
        *self = Self::new(now);
        Some(suppressed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeats_within_the_window_become_one_line_with_their_number() {
        let mut repeats = Repeats::new(60_000, 8);
        assert_eq!(repeats.record("a", Time(0)), Some(0));
        for now in 1..=41 {
            assert_eq!(repeats.record("a", Time(now)), None);
        }
        assert_eq!(repeats.record("b", Time(42)), Some(0), "another key has its own window");
        assert_eq!(repeats.record("a", Time(60_000)), Some(41));
        assert_eq!(repeats.record("a", Time(119_999)), None);
        assert_eq!(repeats.record("a", Time(120_000)), Some(1));
    }

    #[test]
    fn a_flood_of_different_keys_is_bounded_in_memory_and_in_lines() {
        let mut repeats = Repeats::new(1000, 8);
        let written = (0..10_000).filter(|key| repeats.record(key, Time(5)).is_some()).count();
        assert_eq!(written, 9, "eight keys and one line for all the others");
        assert_eq!(repeats.entries.len(), 8);
        assert_eq!(repeats.record(&99_999, Time(1005)), Some(0), "old keys make room");
        assert_eq!(repeats.entries.len(), 1);
    }

    #[test]
    fn no_window_writes_every_event() {
        let mut repeats = Repeats::new(0, 8);
        assert!((0..100).all(|_| repeats.record("a", Time(0)) == Some(0)));
        assert!(repeats.entries.is_empty());
    }
}
