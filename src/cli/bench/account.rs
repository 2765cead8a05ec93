//! The account of deliveries: who got which message of whom, so that losses, repetitions and overtaking are found, every one.

use std::collections::VecDeque;

/// Subscribers that together are to get every message of some publishers exactly once: one alone, or a shared group.
#[derive(Debug)]
pub(super) struct Account {
    publishers: Vec<Numbers>,
    /// Messages that came again.
    pub(super) repeated: u64,
    /// Messages of nobody whom this audience listens to.
    pub(super) strays: u64,
}

/// What a message is to its audience.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arrival {
    /// It came for the first time.
    New,
    /// It was here before.
    Repeated,
    /// It is not for this audience.
    Stray,
}

impl Account {
    /// For an audience of publishers 0 to `publishers` - 1.
    pub(super) fn new(publishers: usize) -> Self {
        Self {
            publishers: vec![Numbers::default(); publishers],
            repeated: 0,
            strays: 0,
        }
    }

    /// A message has come; `publisher` is counted from the audience's first.
    #[inline]
    pub(super) fn take(&mut self, publisher: u32, sequence: u64) -> Arrival {
        let Some(numbers) = self.publishers.get_mut(publisher as usize) else {
            self.strays += 1;
            return Arrival::Stray;
        };
        if numbers.insert(sequence) {
            Arrival::New
        } else {
            self.repeated += 1;
            Arrival::Repeated
        }
    }

    /// How many different messages of a publisher have come.
    pub(super) fn count(&self, publisher: u32) -> u64 {
        self.publishers
            .get(publisher as usize)
            .map_or(0, |numbers| numbers.count)
    }
}

/// Messages of one connection that came behind one with a higher number of the same publisher.
#[derive(Debug)]
pub(super) struct Order {
    newest: Vec<u64>,
    /// Messages that were overtaken.
    pub(super) overtaken: u64,
}

impl Order {
    /// For publishers 0 to `publishers` - 1.
    pub(super) fn new(publishers: usize) -> Self {
        Self {
            newest: vec![0; publishers],
            overtaken: 0,
        }
    }

    /// A new message has come.
    #[inline]
    pub(super) fn take(&mut self, publisher: u32, sequence: u64) {
        if let Some(newest) = self.newest.get_mut(publisher as usize) {
            if sequence < *newest {
                self.overtaken += 1;
            } else {
                *newest = sequence;
            }
        }
    }
}

/// A set of numbers that come nearly in order: one comparison for each that does, a bit for each behind the first that is missing.
#[derive(Clone, Debug, Default)]
struct Numbers {
    /// Every number below has come.
    whole: u64,
    /// Bit by bit the numbers from `whole` on, counted from `whole` rounded down to 64. Empty where nothing is missing.
    above: VecDeque<u64>,
    count: u64,
}

impl Numbers {
    /// False where the number was there.
    #[inline]
    fn insert(&mut self, number: u64) -> bool {
        if number == self.whole && self.above.is_empty() {
            self.whole += 1;
            self.count += 1;
            return true;
        }
        self.insert_out_of_order(number)
    }

    fn insert_out_of_order(&mut self, number: u64) -> bool {
        if number < self.whole {
            return false;
        }
        if self.above.is_empty() {
            // Numbers of the first word that are below `whole`.
            self.above.push_back((1 << (self.whole % 64)) - 1);
        }
        let word = (number / 64 - self.whole / 64) as usize;
        if word >= self.above.len() {
            self.above.resize(word + 1, 0);
        }
        let bit = 1 << (number % 64);
        if self.above[word] & bit != 0 {
            return false;
        }
        self.above[word] |= bit;
        self.count += 1;
        if number == self.whole {
            self.close_up();
        }
        true
    }

    /// Moves `whole` to the first number that is missing.
    fn close_up(&mut self) {
        while self.above.front() == Some(&u64::MAX) {
            self.above.pop_front();
            self.whole = (self.whole / 64 + 1) * 64;
        }
        match self.above.front() {
            None => {}
            Some(word) => self.whole = self.whole / 64 * 64 + u64::from(word.trailing_ones()),
        }
        let is_nothing_above = self.above.len() == 1 && self.above[0] == (1 << (self.whole % 64)) - 1;
        if is_nothing_above {
            self.above.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_lost_is_missing_in_the_count() {
        let mut account = Account::new(2);
        for sequence in (0..1000).filter(|sequence| *sequence != 17 && *sequence != 600) {
            assert_eq!(account.take(1, sequence), Arrival::New);
        }
        assert_eq!((account.count(0), account.count(1), account.repeated), (0, 998, 0));
        assert_eq!(account.take(1, 17), Arrival::New, "late is not lost");
        assert_eq!(account.count(1), 999);
    }

    #[test]
    fn a_repetition_is_found_however_late() {
        let mut account = Account::new(1);
        for sequence in 0..500 {
            account.take(0, sequence);
        }
        account.take(0, 700);
        for (sequence, arrival) in [
            (499, Arrival::Repeated),
            (0, Arrival::Repeated),
            (700, Arrival::Repeated),
            (699, Arrival::New),
            (699, Arrival::Repeated),
            (500, Arrival::New),
        ] {
            assert_eq!(account.take(0, sequence), arrival, "{sequence}");
        }
        assert_eq!((account.repeated, account.count(0)), (4, 503));
    }

    #[test]
    fn a_message_for_somebody_else_is_a_stray() {
        let mut account = Account::new(1);
        assert_eq!(account.take(1, 0), Arrival::Stray);
        assert_eq!((account.strays, account.count(0)), (1, 0));
    }

    #[test]
    fn overtaking_is_counted_by_publisher() {
        let mut order = Order::new(2);
        for (publisher, sequence) in [(0, 0), (1, 5), (0, 1), (0, 3), (0, 2), (1, 4), (1, 6), (0, 4)] {
            order.take(publisher, sequence);
        }
        assert_eq!(order.overtaken, 2, "2 behind 3 and 4 behind 5");
    }

    #[test]
    fn numbers_in_any_order_are_the_set_that_a_set_would_be() {
        let mut random = 0x9E37_79B9_u64;
        for span in [3_u64, 64, 65, 300] {
            let mut numbers = Numbers::default();
            let mut set = std::collections::BTreeSet::new();
            for _ in 0..4 * span {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let number = (random >> 33) % span;
                assert_eq!(numbers.insert(number), set.insert(number), "{number} of {span}");
                assert_eq!(numbers.count, set.len() as u64);
            }
            for number in 0..span {
                assert_eq!(numbers.insert(number), set.insert(number));
            }
            assert!(
                numbers.above.is_empty() && numbers.whole == span,
                "nothing is kept for what is whole"
            );
        }
    }
}
