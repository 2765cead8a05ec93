//! The subscribers of one filter: mostly one, sometimes a hundred thousand.

use std::hash::BuildHasher;
use std::sync::Arc;

use foldhash::fast::FixedState;
use hashbrown::HashTable;

use super::status::SessionStatus;
use crate::protocol::ids::SessionKey;
use crate::protocol::packet::SubscriptionOptions;

/// One session's subscription to one filter.
#[derive(Clone, Debug)]
pub struct Subscriber {
    /// The session.
    pub session: SessionKey,
    /// Its options; the QoS is the one that was granted.
    pub options: SubscriptionOptions,
    /// Subscription identifier, 1 to 268,435,455.
    pub identifier: Option<u32>,
    /// What other workers may know of the session.
    pub status: Arc<SessionStatus>,
}

/// A set of subscribers by session, in an order that depends on nothing but the calls made. One subscriber needs no memory of
/// its own; from [`INDEX_ABOVE`] on an index keeps every operation O(1).
#[derive(Debug, Default)]
pub(super) enum Subscribers {
    #[default]
    None,
    One(Subscriber),
    Many(Box<Many>),
}

#[derive(Debug)]
pub(super) struct Many {
    list: Vec<Subscriber>,
    /// Places in `list` by session; empty while the list is short.
    places: HashTable<u32>,
}

impl Subscribers {
    pub(super) fn as_slice(&self) -> &[Subscriber] {
        match self {
            Self::None => &[],
            Self::One(subscriber) => std::slice::from_ref(subscriber),
            Self::Many(many) => &many.list,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        matches!(self, Self::None)
    }

    pub(super) fn find(&self, session: SessionKey) -> Option<&Subscriber> {
        match self {
            Self::Many(many) => many.place(session).map(|at| &many.list[at]),
            _ => self.as_slice().iter().find(|subscriber| subscriber.session == session),
        }
    }

    /// Adds a subscriber, or replaces the one of the same session and returns true.
    pub(super) fn insert(&mut self, subscriber: Subscriber) -> bool {
        match self {
            Self::None => {
                *self = Self::One(subscriber);
                false
            }
            Self::One(only) if only.session == subscriber.session => {
                *only = subscriber;
                true
            }
            Self::One(_) => {
                if let Self::One(only) = std::mem::take(self) {
                    let list = vec![only, subscriber];
                    *self = Self::Many(Box::new(Many {
                        list,
                        places: HashTable::new(),
                    }));
                }
                false
            }
            Self::Many(many) => many.insert(subscriber),
        }
    }

    /// Takes a session's subscriber out; returns its place in the order, where the last one now stands.
    pub(super) fn remove(&mut self, session: SessionKey) -> Option<usize> {
        let place = match self {
            Self::None => return None,
            Self::One(only) if only.session != session => return None,
            Self::One(_) => {
                *self = Self::None;
                return Some(0);
            }
            Self::Many(many) => many.remove(session)?,
        };
        if let Self::Many(many) = self
            && many.list.len() == 1
        {
            *self = many.list.pop().map_or(Self::None, Self::One);
        }
        Some(place)
    }
}

impl Many {
    fn place(&self, session: SessionKey) -> Option<usize> {
        if self.places.is_empty() {
            return self.list.iter().position(|subscriber| subscriber.session == session);
        }
        let is_it = |at: &u32| self.list[*at as usize].session == session;
        self.places.find(hash(session), is_it).map(|at| *at as usize)
    }

    fn insert(&mut self, subscriber: Subscriber) -> bool {
        if let Some(at) = self.place(subscriber.session) {
            self.list[at] = subscriber;
            return true;
        }
        self.list.push(subscriber);
        if !self.places.is_empty() {
            self.index(self.list.len() - 1);
        } else if self.list.len() > INDEX_ABOVE {
            (0..self.list.len()).for_each(|at| self.index(at));
        }
        false
    }

    fn index(&mut self, at: usize) {
        let Self { list, places } = self;
        places.insert_unique(hash(list[at].session), at as u32, |at| hash(list[*at as usize].session));
    }

    fn remove(&mut self, session: SessionKey) -> Option<usize> {
        let at = self.place(session)?;
        let last = self.list.len() - 1;
        if !self.places.is_empty() {
            if let Ok(entry) = self.places.find_entry(hash(session), |place| *place as usize == at) {
                entry.remove();
            }
            if let Some(place) = self
                .places
                .find_mut(hash(self.list[last].session), |place| *place as usize == last)
            {
                *place = at as u32;
            }
        }
        self.list.swap_remove(at);
        if self.list.len() < self.list.capacity() / 4 {
            self.list.shrink_to(self.list.len() * 2);
        }
        if self.list.len() <= INDEX_ABOVE / 2 {
            self.places = HashTable::new();
        }
        Some(at)
    }
}

fn hash(session: SessionKey) -> u64 {
    FixedState::default().hash_one(session)
}

/// Subscribers of one filter above which looking through all of them is slower than an index.
const INDEX_ABOVE: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::ids::{SlotKey, WorkerId};

    fn subscriber(slot: u32, identifier: u32) -> Subscriber {
        let key = SlotKey { slot, generation: 0 };
        Subscriber {
            session: SessionKey {
                worker: WorkerId(0),
                key,
            },
            options: SubscriptionOptions::default(),
            identifier: Some(identifier),
            status: Arc::default(),
        }
    }

    #[test]
    fn it_grows_and_shrinks_through_every_size_and_loses_nobody() {
        let mut set = Subscribers::default();
        for n in 0..100 {
            assert!(!set.insert(subscriber(n, n)));
            assert!(set.insert(subscriber(n / 2, n)), "half of them are there already");
            assert_eq!(set.as_slice().len(), n as usize + 1);
        }
        for n in (0..100).step_by(3).chain((0..100).filter(|n| n % 3 != 0)) {
            assert!(set.find(subscriber(n, 0).session).is_some(), "{n}");
            assert!(set.remove(subscriber(n, 0).session).is_some(), "{n}");
            assert!(set.find(subscriber(n, 0).session).is_none(), "{n}");
            assert!(set.remove(subscriber(n, 0).session).is_none(), "{n}");
        }
        assert!(set.is_empty());
    }

    #[test]
    fn one_subscriber_needs_no_memory_of_its_own() {
        assert!(size_of::<Subscribers>() <= 40, "{}", size_of::<Subscribers>());
    }
}
