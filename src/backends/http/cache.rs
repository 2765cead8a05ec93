//! Answers that are remembered for a while: a bounded number, by a number made of the question that nobody outside can make.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};

/// A question, as a hash under a key that is made when the broker starts: no password stays in memory for it.
pub type Fingerprint = [u8; 32];

/// The answers.
#[derive(Debug)]
pub struct Cache<T> {
    lifetime: Duration,
    /// Of each half.
    entries_max: usize,
    secret: [u8; 32],
    halves: Mutex<Halves<T>>,
}

/// The younger half becomes the older one when it is full: so the oldest go, and nothing has to be looked for.
#[derive(Debug)]
struct Halves<T> {
    young: HashMap<Fingerprint, (Instant, T)>,
    old: HashMap<Fingerprint, (Instant, T)>,
    /// When all was forgotten last: what was asked before counts for who waits, and for nobody after him.
    cleared: Option<Instant>,
}

impl<T: Clone> Cache<T> {
    /// Empty; remembers nothing where either is zero.
    ///
    /// # Errors
    /// The system has no random numbers.
    pub fn new(lifetime: Duration, entries_max: usize) -> Result<Self, String> {
        let mut secret = [0; 32];
        getrandom::fill(&mut secret).map_err(|error| format!("no random numbers: {error}"))?;
        Ok(Self {
            lifetime,
            entries_max: entries_max / 2,
            secret,
            halves: Mutex::new(Halves {
                young: HashMap::new(),
                old: HashMap::new(),
                cleared: None,
            }),
        })
    }

    /// What stands for a question: its parts may be anything, and none becomes part of another.
    pub fn fingerprint(&self, parts: &[&[u8]]) -> Fingerprint {
        let mut hash = Sha256::new().chain_update(self.secret);
        for part in parts {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        hash.finalize().into()
    }

    /// The answer to a question, if it is remembered.
    pub fn get(&self, question: &Fingerprint, now: Instant) -> Option<T> {
        let halves = self.halves.lock().unwrap_or_else(PoisonError::into_inner);
        let (since, answer) = halves.young.get(question).or_else(|| halves.old.get(question))?;
        (now.saturating_duration_since(*since) < self.lifetime).then(|| answer.clone())
    }

    /// Forgets all answers, and those that are on their way.
    pub fn clear(&self, now: Instant) {
        let mut halves = self.halves.lock().unwrap_or_else(PoisonError::into_inner);
        halves.young.clear();
        halves.old.clear();
        halves.cleared = Some(now);
    }

    /// Remembers an answer to a question that was asked at `asked`.
    pub fn keep(&self, question: Fingerprint, answer: T, asked: Instant, now: Instant) {
        if self.entries_max == 0 || self.lifetime.is_zero() {
            return;
        }
        let mut halves = self.halves.lock().unwrap_or_else(PoisonError::into_inner);
        if halves.cleared.is_some_and(|cleared| asked <= cleared) {
            return;
        }
        if halves.young.len() >= self.entries_max {
            halves.old = std::mem::take(&mut halves.young);
        }
        halves.young.insert(question, (now, answer));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_forgotten_in_time_and_beyond_the_bound() {
        let cache = Cache::new(Duration::from_secs(30), 8).unwrap();
        let start = Instant::now();
        let question = |number: u32| cache.fingerprint(&[b"q", &number.to_le_bytes()]);
        cache.keep(question(0), 0, start, start);
        assert_eq!(cache.get(&question(0), start + Duration::from_secs(29)), Some(0));
        assert_eq!(cache.get(&question(0), start + Duration::from_secs(30)), None);
        for number in 1..100 {
            cache.keep(question(number), number, start, start);
            assert_eq!(cache.get(&question(number), start), Some(number));
        }
        let kept = (0..100)
            .filter(|number| cache.get(&question(*number), start).is_some())
            .count();
        assert!((4..=8).contains(&kept), "{kept}");
        for nothing in [
            Cache::new(Duration::ZERO, 8).unwrap(),
            Cache::new(Duration::from_secs(1), 0).unwrap(),
        ] {
            nothing.keep([0; 32], 1, start, start);
            assert_eq!(nothing.get(&[0; 32], start), None);
        }
    }

    #[test]
    fn what_was_asked_before_all_was_forgotten_is_not_remembered_either() {
        let cache = Cache::new(Duration::from_secs(30), 8).unwrap();
        let (asked, cleared) = (Instant::now(), Instant::now() + Duration::from_secs(1));
        let after = cleared + Duration::from_secs(1);
        cache.keep([1; 32], 1, asked, asked);
        cache.clear(cleared);
        cache.keep([2; 32], 2, asked, after);
        cache.keep([3; 32], 3, after, after);
        assert_eq!([1, 2, 3].map(|one| cache.get(&[one; 32], after)), [None, None, Some(3)]);
    }

    #[test]
    fn no_part_of_a_question_becomes_part_of_another() {
        let cache: Cache<()> = Cache::new(Duration::from_secs(1), 8).unwrap();
        assert_ne!(cache.fingerprint(&[b"ab", b"c"]), cache.fingerprint(&[b"a", b"bc"]));
        let other: Cache<()> = Cache::new(Duration::from_secs(1), 8).unwrap();
        assert_ne!(
            cache.fingerprint(&[b"a"]),
            other.fingerprint(&[b"a"]),
            "nobody outside can make them"
        );
    }
}
