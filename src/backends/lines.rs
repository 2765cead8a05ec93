//! Who waits for something scarce, in a line for each address: the next is of the address whose turn it is, so whoever sends a thousand
//! questions makes his own wait, and everybody else's hardly.

use std::collections::{BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv6Addr};

use hashbrown::HashMap;

/// Who stands in one line: an IPv4 address, the /64 network of an IPv6 address, which one customer has whole, or programs of this machine that have
/// none.
pub type Origin = Option<IpAddr>;

/// The line of a client that comes from an address.
pub fn origin(ip: Option<IpAddr>) -> Origin {
    ip.map(|ip| match ip.to_canonical() {
        IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() & !u128::from(u64::MAX))),
        ip => ip,
    })
}

/// What became of one that came.
#[derive(Debug, PartialEq, Eq)]
pub enum Added<T> {
    /// It waits.
    Waits,
    /// It waits, in the place of the last of the longest line, which has to go.
    InsteadOf(T),
    /// It has to go: its line is the longest.
    Refused,
}

/// All lines.
#[derive(Debug)]
pub struct Lines<T> {
    by_origin: HashMap<Origin, VecDeque<T>, foldhash::fast::RandomState>,
    /// Whose turn it is; each that has a line, once.
    turns: VecDeque<Origin>,
    /// How long the lines are.
    lengths: BTreeSet<(usize, Origin)>,
    waiting: usize,
    waiting_max: usize,
}

impl<T> Lines<T> {
    /// Without anybody; `waiting_max` at most in all lines together, at least one.
    pub fn new(waiting_max: usize) -> Self {
        Self {
            by_origin: HashMap::default(),
            turns: VecDeque::new(),
            lengths: BTreeSet::new(),
            waiting: 0,
            waiting_max: waiting_max.max(1),
        }
    }

    /// Whether anybody waits.
    #[cfg(test)]
    pub const fn is_waiting(&self) -> bool {
        self.waiting > 0
    }

    /// One more comes to the end of a line. Where no more may wait, whoever has the longest line pays for it.
    pub fn add(&mut self, origin: Origin, one: T) -> Added<T> {
        let mut instead_of = None;
        if self.waiting >= self.waiting_max {
            let own = self.by_origin.get(&origin).map_or(0, VecDeque::len);
            match self.lengths.last().copied() {
                Some((longest, of)) if longest > own + 1 => instead_of = self.take(of, VecDeque::pop_back),
                _ => return Added::Refused,
            }
        }
        let line = self.by_origin.entry(origin).or_default();
        if line.is_empty() {
            self.turns.push_back(origin);
        } else {
            self.lengths.remove(&(line.len(), origin));
        }
        line.push_back(one);
        self.lengths.insert((line.len(), origin));
        self.waiting += 1;
        instead_of.map_or(Added::Waits, Added::InsteadOf)
    }

    /// The next: the first of the line whose turn it is. Then it is the next line's turn.
    pub fn take_next(&mut self) -> Option<T> {
        let origin = self.turns.pop_front()?;
        let next = self.take(origin, VecDeque::pop_front);
        if self.by_origin.contains_key(&origin) {
            self.turns.push_back(origin);
        }
        next
    }

    /// Takes one out of a line. A line that is empty then is no line any more, but for its turn.
    fn take(&mut self, origin: Origin, which: fn(&mut VecDeque<T>) -> Option<T>) -> Option<T> {
        let line = self.by_origin.get_mut(&origin)?;
        self.lengths.remove(&(line.len(), origin));
        let taken = which(line);
        if line.is_empty() {
            self.by_origin.remove(&origin);
        } else {
            self.lengths.insert((line.len(), origin));
        }
        self.waiting -= usize::from(taken.is_some());
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(last: u8) -> Origin {
        Some([192, 0, 2, last].into())
    }

    #[test]
    fn whoever_asks_much_waits_for_himself() {
        let mut lines = Lines::new(100);
        for number in 0..50 {
            assert_eq!(lines.add(from(1), number), Added::Waits);
        }
        assert_eq!(lines.add(from(2), 100), Added::Waits);
        assert_eq!(lines.add(None, 200), Added::Waits);
        let order: Vec<_> = std::iter::from_fn(|| lines.take_next()).collect();
        assert_eq!(order[..5], [0, 100, 200, 1, 2]);
        assert_eq!(order.len(), 52);
        assert!(lines.by_origin.is_empty() && lines.turns.is_empty() && lines.lengths.is_empty() && lines.waiting == 0);
    }

    #[test]
    fn where_no_more_may_wait_the_longest_line_pays() {
        let mut lines = Lines::new(4);
        for number in 0..4 {
            assert_eq!(lines.add(from(1), number), Added::Waits);
        }
        assert_eq!(lines.add(from(1), 4), Added::Refused);
        assert_eq!(lines.add(from(2), 10), Added::InsteadOf(3));
        assert_eq!(lines.add(from(2), 11), Added::InsteadOf(2));
        assert_eq!(lines.add(from(2), 12), Added::Refused, "it would be the longest itself");
        assert_eq!(lines.add(from(3), 20), Added::InsteadOf(11));
        assert_eq!(lines.waiting, 4);
        let order: Vec<_> = std::iter::from_fn(|| lines.take_next()).collect();
        assert_eq!(order, [0, 10, 20, 1]);
    }

    #[test]
    fn a_network_of_one_customer_has_one_line() {
        let of = |text: &str| origin(Some(text.parse().unwrap()));
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:192.0.2.7"), from(7));
        assert_eq!(origin(None), None);
    }

    proptest::proptest! {
        #[test]
        fn what_comes_leaves_once(steps in proptest::collection::vec((0u8..6, proptest::bool::ANY), 0..200)) {
            let (mut lines, mut inside) = (Lines::new(7), std::collections::BTreeSet::new());
            for (number, (last, comes)) in steps.into_iter().enumerate() {
                if comes {
                    match lines.add(from(last), number) {
                        Added::Waits => assert!(inside.insert(number)),
                        Added::InsteadOf(other) => assert!(inside.remove(&other) && inside.insert(number)),
                        Added::Refused => assert!(inside.len() == 7),
                    }
                } else {
                    let has_some = !inside.is_empty();
                    let next = lines.take_next();
                    assert!(next.is_some() == has_some && next.is_none_or(|next| inside.remove(&next)));
                }
                assert!(lines.waiting == inside.len() && inside.len() <= 7);
                assert_eq!(lines.turns.iter().filter(|origin| lines.by_origin.contains_key(*origin)).count(), lines.by_origin.len());
            }
        }
    }
}
