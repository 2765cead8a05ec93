//! Generation numbers: how a worker's match cache learns that the trie has changed.

use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_utils::CachePadded;
use foldhash::fast::RandomState;

/// Counters that a change of subscriptions moves: one for each of [`BRANCHES`] groups of first levels, and one for filters whose
/// first level is a wildcard. A cached match is valid as long as the two counters of its topic stand still, so that clients that
/// come and go under `a/` leave what is known about `b/` alone.
#[derive(Debug)]
pub struct Generations {
    branches: [CachePadded<AtomicU64>; BRANCHES],
    /// Filters that start with `+` or `#`: they touch every topic.
    wildcards: CachePadded<AtomicU64>,
    hasher: RandomState,
}

impl Default for Generations {
    fn default() -> Self {
        Self {
            branches: [const { CachePadded::new(AtomicU64::new(0)) }; BRANCHES],
            wildcards: CachePadded::default(),
            hasher: RandomState::default(),
        }
    }
}

impl Generations {
    /// The branch a topic belongs to.
    pub(super) fn branch_of_topic(&self, topic: &str) -> Branch {
        let first_level_bytes = memchr::memchr(b'/', topic.as_bytes()).unwrap_or(topic.len());
        let hash = self.hasher.hash_one(&topic.as_bytes()[..first_level_bytes]);
        Branch((hash % BRANCHES as u64) as u8)
    }

    /// The generation of all topics of a branch. Both counters only grow, hence so does their sum.
    #[inline]
    pub(super) fn current(&self, branch: Branch) -> u64 {
        let branch = self.branches[usize::from(branch.0) % BRANCHES].load(Ordering::Acquire);
        branch.wrapping_add(self.wildcards.load(Ordering::Acquire))
    }

    /// By the trie, while nobody reads it: the matches of all topics that `filter` can match have changed.
    pub(super) fn bump(&self, filter: &str) {
        let counter = match filter.as_bytes().first() {
            Some(b'+' | b'#') => &self.wildcards,
            _ => &self.branches[usize::from(self.branch_of_topic(filter).0)],
        };
        counter.fetch_add(1, Ordering::AcqRel);
    }

    /// By the trie: every match has changed.
    pub(super) fn bump_all(&self) {
        self.wildcards.fetch_add(1, Ordering::AcqRel);
    }
}

/// One of [`BRANCHES`] groups of first levels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Branch(u8);

/// Groups of first levels; each has a counter on a cache line of its own, 8 KiB in all.
pub const BRANCHES: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_moves_its_own_branch_and_a_leading_wildcard_moves_all() {
        let generations = Generations::default();
        let a = generations.branch_of_topic("a/x/y");
        assert_eq!(a, generations.branch_of_topic("a"));
        let other = (0..100)
            .map(|n| generations.branch_of_topic(&format!("b{n}/x")))
            .find(|branch| *branch != a)
            .unwrap();
        let before = (generations.current(a), generations.current(other));

        generations.bump("a/#");
        assert_eq!(
            (generations.current(a), generations.current(other)),
            (before.0 + 1, before.1)
        );

        generations.bump("+/x");
        assert_eq!(
            (generations.current(a), generations.current(other)),
            (before.0 + 2, before.1 + 1)
        );
    }
}
