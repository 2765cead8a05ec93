//! The match cache: topics that come again do not walk the trie.

use std::hash::BuildHasher;
use std::sync::Arc;

use foldhash::fast::RandomState;

use super::generation::{Branch, Generations};
use super::matched::Matched;
use crate::protocol::topic::TopicName;

/// Bounds of one worker's [`MatchCache`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MatchCacheLimits {
    /// Places for topics; 0 switches the cache off. A power of two is used in full, at least 4 are. Default 32,768, about 8 MiB
    /// when full of short topics; grows only as topics come.
    pub topics_max: usize,
    /// Receivers kept in all matches together. Default 524,288, about 25 MiB when full: reached only where thousands of sessions
    /// receive thousands of topics.
    pub receivers_max: usize,
    /// Longest topic that is kept, in bytes. Default 1,024.
    pub topic_bytes_max: usize,
}

impl Default for MatchCacheLimits {
    fn default() -> Self {
        Self {
            topics_max: 32_768,
            receivers_max: 524_288,
            topic_bytes_max: 1_024,
        }
    }
}

/// From topic to [`Matched`], for one worker and shared with none. A hit costs one hash, one comparison and two loads.
///
/// Grows as topics come. When it is full, a topic that comes again soon takes the place of one of four others: of one that is out of
/// date, else of one that was not asked for lately. One that comes once is not worth a place: where every message has a topic of its own, to
/// keep them all costs more than to ask the trie.
#[derive(Debug)]
pub struct MatchCache {
    generations: Arc<Generations>,
    limits: MatchCacheLimits,
    hasher: RandomState,
    /// Sets of [`WAYS`] entries; the number of sets is a power of two.
    ways: Vec<Option<Entry>>,
    /// Of each set, a part of the hashes of its entries, 0 where there is none: a topic that is not kept is not looked for at four places.
    tags: Vec<[u32; WAYS]>,
    /// Of each set, the tag of the topic that was not kept last; empty while the cache can grow.
    once: Vec<u32>,
    len: usize,
    receivers: usize,
    /// Where the search for something to drop goes on when there are too many receivers.
    hand: usize,
    /// What was asked for last and is not kept.
    last: Arc<Matched>,
    /// Of which topic that is: one message may ask for it more than once.
    last_asked: Option<Asked>,
    /// That topic.
    last_topic: String,
    hits: u64,
    misses: u64,
}

#[derive(Debug)]
struct Entry {
    hash: u64,
    generation: u64,
    topic: Box<str>,
    matched: Arc<Matched>,
    branch: Branch,
    was_used: bool,
}

/// What says whether `last` is the match of a topic still.
#[derive(Clone, Copy, Debug)]
struct Asked {
    hash: u64,
    generation: u64,
    branch: Branch,
}

impl MatchCache {
    /// An empty cache of matches that are valid as long as `generations` says so.
    pub fn new(generations: Arc<Generations>, limits: MatchCacheLimits) -> Self {
        let sets = if limits.topics_max == 0 { 0 } else { 1 };
        Self {
            generations,
            limits,
            hasher: RandomState::default(),
            ways: empty_ways(sets),
            tags: vec![[0; WAYS]; sets],
            once: Vec::new(),
            len: 0,
            receivers: 0,
            hand: 0,
            last: Arc::default(),
            last_asked: None,
            last_topic: String::new(),
            hits: 0,
            misses: 0,
        }
    }

    /// Look-ups that were answered from the cache, and those that were not.
    pub fn hits_and_misses(&self) -> (u64, u64) {
        (self.hits, self.misses)
    }

    /// Topics kept.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True when no topic is kept.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The match of a topic: from the cache, or from `cold`, which asks the trie (and takes its lock) only if need be.
    #[inline]
    pub fn resolve(&mut self, topic: TopicName<'_>, cold: impl FnOnce() -> Matched) -> &Arc<Matched> {
        let hash = self.hasher.hash_one(topic.as_bytes());
        let found = self.find(hash, topic.as_str());
        if let Some(at) = found
            && let Some(entry) = &mut self.ways[at]
            && entry.generation == self.generations.current(entry.branch)
        {
            self.hits += 1;
            entry.was_used = true;
        } else {
            return self.ask(hash, found, topic.as_str(), cold);
        }
        // The entry was there a moment ago; said twice because a borrow that is returned lasts to the end of the function.
        found
            .and_then(|at| self.ways[at].as_ref())
            .map_or(&self.last, |entry| &entry.matched)
    }

    /// The match of a topic if it is in the cache and valid; counts as a hit or a miss.
    pub fn get(&mut self, topic: TopicName<'_>) -> Option<&Arc<Matched>> {
        let hash = self.hasher.hash_one(topic.as_bytes());
        let valid = self.find(hash, topic.as_str()).and_then(|at| self.ways[at].as_mut());
        let valid = valid.filter(|entry| entry.generation == self.generations.current(entry.branch));
        match valid {
            Some(entry) => {
                self.hits += 1;
                entry.was_used = true;
                Some(&entry.matched)
            }
            None => {
                self.misses += 1;
                None
            }
        }
    }

    /// Drops everything.
    pub fn clear(&mut self) {
        let sets = self.tags.len().min(1);
        (self.ways, self.tags, self.once) = (empty_ways(sets), vec![[0; WAYS]; sets], Vec::new());
        (self.len, self.receivers, self.hand) = (0, 0, 0);
        (self.last, self.last_asked) = (Arc::default(), None);
    }

    fn find(&self, hash: u64, topic: &str) -> Option<usize> {
        let set = self.set_of(hash);
        let tags = self.tags.get(set)?;
        let is_it = |entry: &Entry| entry.hash == hash && &*entry.topic == topic;
        (0..WAYS)
            .filter(|way| tags[*way] == tag(hash))
            .map(|way| set * WAYS + way)
            .find(|at| self.ways[*at].as_ref().is_some_and(is_it))
    }

    /// The set where a topic may be.
    const fn set_of(&self, hash: u64) -> usize {
        hash as usize & self.tags.len().saturating_sub(1)
    }

    #[cold]
    #[inline(never)]
    fn ask(&mut self, hash: u64, found: Option<usize>, topic: &str, cold: impl FnOnce() -> Matched) -> &Arc<Matched> {
        if found.is_none() && self.is_last(hash, topic) {
            self.hits += 1;
            return &self.last;
        }
        self.misses += 1;
        // Read before the trie is asked: a change in between makes the entry look older than it is, never newer.
        let branch = self.generations.branch_of_topic(topic);
        let generation = self.generations.current(branch);
        let matched = cold();
        let receivers = matched.receivers_len();
        if let Some(entry) = found.and_then(|at| self.ways[at].as_mut()) {
            self.receivers -= entry.matched.receivers_len();
            (entry.generation, entry.matched) = (generation, Arc::new(matched));
        } else if !self.is_worth_a_place(hash, topic) {
            match Arc::get_mut(&mut self.last) {
                Some(last) => *last = matched,
                None => self.last = Arc::new(matched),
            }
            let asked = Asked {
                hash,
                generation,
                branch,
            };
            self.remember_last(asked, topic);
            return &self.last;
        } else {
            let entry = Entry {
                hash,
                generation,
                topic: topic.into(),
                matched: Arc::new(matched),
                branch,
                was_used: true,
            };
            self.insert(entry);
        }
        self.receivers += receivers;
        self.shed(hash, topic)
    }

    /// True when the match of this topic was asked for last, and stands.
    fn is_last(&self, hash: u64, topic: &str) -> bool {
        let asked = self.last_asked.filter(|asked| asked.hash == hash);
        asked
            .is_some_and(|asked| asked.generation == self.generations.current(asked.branch) && self.last_topic == topic)
    }

    /// Not where the cache is switched off, nor a topic that is too long to be kept.
    fn remember_last(&mut self, asked: Asked, topic: &str) {
        let is_short = topic.len() <= self.limits.topic_bytes_max && !self.tags.is_empty();
        self.last_asked = is_short.then_some(asked);
        if is_short {
            self.last_topic.clear();
            self.last_topic.push_str(topic);
        }
    }

    /// True when a topic is to be kept: there is room, or it came before, not long ago. One in [`LET_IN`] is kept in any case, so that topics that come in turn,
    /// each in the way of the next, are not kept out for ever.
    fn is_worth_a_place(&mut self, hash: u64, topic: &str) -> bool {
        let set = self.set_of(hash);
        let Some(tags) = self.tags.get(set) else { return false };
        if topic.len() > self.limits.topic_bytes_max {
            return false;
        }
        if self.may_grow() || tags.contains(&0) || self.misses.is_multiple_of(LET_IN) {
            return true;
        }
        self.once.resize(self.tags.len(), 0);
        std::mem::replace(&mut self.once[set], tag(hash)) == tag(hash)
    }

    const fn may_grow(&self) -> bool {
        let most = if self.limits.topics_max > WAYS {
            self.limits.topics_max
        } else {
            WAYS
        };
        self.ways.len() * 2 <= most
    }

    fn insert(&mut self, entry: Entry) {
        let mut at = self.place_for(entry.hash);
        let is_half_full = self.len * 2 >= self.ways.len();
        if self.ways[at].is_some() && is_half_full && self.may_grow() {
            self.grow();
            at = self.place_for(entry.hash);
        }
        self.put(at, entry);
    }

    fn put(&mut self, at: usize, entry: Entry) {
        self.tags[at / WAYS][at % WAYS] = tag(entry.hash);
        match self.ways[at].replace(entry) {
            Some(old) => self.receivers -= old.matched.receivers_len(),
            None => self.len += 1,
        }
    }

    /// A free place, else one whose entry can be missed best. Entries that were used lately get a second chance.
    fn place_for(&mut self, hash: u64) -> usize {
        let first = self.set_of(hash) * WAYS;
        let mut set = first..first + WAYS;
        if let Some(free) = set.clone().find(|at| self.ways[*at].is_none()) {
            return free;
        }
        let generations = &self.generations;
        let mut is_stale = |entry: &Entry| entry.generation != generations.current(entry.branch);
        if let Some(stale) = set.find(|at| self.ways[*at].as_ref().is_some_and(&mut is_stale)) {
            return stale;
        }
        // A place to start at that differs from time to time, so that not always the first one goes.
        let start = (self.misses as usize) % WAYS;
        let in_turn = (0..WAYS).map(|step| first + (start + step) % WAYS);
        for at in in_turn {
            match &mut self.ways[at] {
                Some(entry) if entry.was_used => entry.was_used = false,
                _ => return at,
            }
        }
        first + start
    }

    fn grow(&mut self) {
        let sets = self.ways.len() / WAYS * 2;
        let old = std::mem::replace(&mut self.ways, empty_ways(sets));
        self.tags = vec![[0; WAYS]; sets];
        (self.len, self.hand) = (0, 0);
        for entry in old.into_iter().flatten() {
            // A set is split in two, so there is room for all of it.
            let at = self.place_for(entry.hash);
            self.put(at, entry);
        }
    }

    /// Drops entries until the receivers are few enough, but never the one that was just asked for, which it returns.
    fn shed(&mut self, hash: u64, topic: &str) -> &Arc<Matched> {
        let kept = self.find(hash, topic);
        let mut steps = self.ways.len();
        while self.receivers > self.limits.receivers_max && steps > 0 {
            steps -= 1;
            self.hand = (self.hand + 1) % self.ways.len();
            if Some(self.hand) != kept
                && let Some(dropped) = self.ways[self.hand].take()
            {
                self.tags[self.hand / WAYS][self.hand % WAYS] = 0;
                self.len -= 1;
                self.receivers -= dropped.matched.receivers_len();
            }
        }
        kept.and_then(|at| self.ways[at].as_ref())
            .map_or(&self.last, |entry| &entry.matched)
    }
}

fn empty_ways(sets: usize) -> Vec<Option<Entry>> {
    std::iter::repeat_with(|| None).take(sets * WAYS).collect()
}

/// A part of a hash, and not the one that says which set; never 0.
const fn tag(hash: u64) -> u32 {
    (hash >> 32) as u32 | 1
}

/// Places where one topic may be.
const WAYS: usize = 4;
/// Of so many topics that come once, one is kept all the same.
const LET_IN: u64 = 16;

#[cfg(test)]
mod tests;
