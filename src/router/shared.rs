//! Shared subscriptions: one member of the group receives each message. MQTT 5 section 4.8.2.

use std::hash::BuildHasher;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use foldhash::fast::FixedState;
use hashbrown::HashSet;

use super::matched::Receiver;
use super::status::SessionStatus;
use super::subscribers::{Subscriber, Subscribers};
use crate::protocol::ids::{SessionKey, WorkerId};
use crate::protocol::qos::QoS;

/// How a shared group chooses the member that receives a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Strategy {
    /// One after the other.
    #[default]
    RoundRobin,
    /// Any.
    Random,
    /// The same one until it cannot receive.
    Sticky,
    /// The same one for one publisher, as long as the group stays the same.
    ByClient,
    /// The same one for one topic, as long as the group stays the same: keeps the order per topic.
    ByTopic,
    /// The one with the fewest messages under way. Looks at every member.
    LeastInFlight,
}

/// Which strategy a group has, by its name.
#[derive(Clone, Debug, Default)]
pub struct Strategies {
    /// For all groups that no prefix names. Default: [`Strategy::RoundRobin`].
    pub default: Strategy,
    /// Prefixes of group names; the longest one that fits counts.
    pub by_prefix: Vec<(String, Strategy)>,
}

impl Strategies {
    /// The strategy of a group.
    pub fn of(&self, group: &str) -> Strategy {
        let fitting = self
            .by_prefix
            .iter()
            .filter(|(prefix, _)| group.starts_with(prefix.as_str()));
        fitting
            .max_by_key(|(prefix, _)| prefix.len())
            .map_or(self.default, |(_, strategy)| *strategy)
    }
}

/// The members of one group and filter at one moment, shared by all workers.
#[derive(Debug)]
pub struct SharedGroup {
    /// Name of the group, and the filter without `$share/group/`.
    pub name: Arc<GroupName>,
    strategy: Strategy,
    members: Box<[Receiver]>,
    cursor: Arc<AtomicUsize>,
    copy: u16,
}

/// What identifies a shared group: the same name with another filter is another group.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupName {
    /// The part between `$share/` and the filter.
    pub group: Box<str>,
    /// The filter.
    pub filter: Box<str>,
}

/// Set in the copy number of every delivery for a shared group's sake.
const GROUP_COPY: u16 = 0x8000;

/// The message that a member is chosen for.
#[derive(Clone, Copy, Debug)]
pub struct Choice<'a> {
    /// Who published it; `None` for the broker itself.
    pub publisher: Option<SessionKey>,
    /// Its topic.
    pub topic: &'a str,
    /// Its QoS. A member that is offline is chosen only if the message is acknowledged both ways.
    pub qos: QoS,
    /// A random number, for [`Strategy::Random`].
    pub random: u64,
    /// Members that are out of the question: they had it and could not take it.
    pub excluded: &'a [SessionKey],
}

impl SharedGroup {
    /// Tells deliveries for this group's sake apart from others of the same message to the same session; never 0, and the same after
    /// a restart.
    pub const fn copy(&self) -> u16 {
        self.copy
    }

    /// The members.
    pub fn members(&self) -> &[Receiver] {
        &self.members
    }

    /// The member that receives a message; `None` when nobody can.
    ///
    /// Members that are online and have room come first. A message of QoS 1 or 2 then goes to a member that is offline and has
    /// room, whose session outlives its connection; and at last to any, whose outbox decides what becomes of it.
    pub fn choose(&self, choice: &Choice<'_>) -> Option<&Receiver> {
        let start = self.start(choice)?;
        let is_allowed = |member: &Receiver| {
            !choice.excluded.contains(&member.session)
                && (member.status.is_online() || choice.qos.min(member.qos).is_acknowledged())
        };
        let has_room = |status: &SessionStatus| !status.is_full();
        let next = &self.members[start];
        let is_good = is_allowed(next) && next.status.is_online() && has_room(&next.status);
        if is_good && self.strategy != Strategy::LeastInFlight {
            return Some(next);
        }
        let chosen = self
            .pick(start, |member| {
                is_allowed(member) && member.status.is_online() && has_room(&member.status)
            })
            .or_else(|| self.pick(start, |member| is_allowed(member) && has_room(&member.status)))
            .or_else(|| self.pick(start, is_allowed))?;
        if self.strategy == Strategy::Sticky && chosen != start {
            self.cursor.store(chosen, Ordering::Relaxed);
        }
        Some(&self.members[chosen])
    }

    /// All who can be asked when the chosen member could not take a message, each once: in the order of [`SharedGroup::choose`], but of those who
    /// are equally good the ones on the worker `here` first, so that a message does not go from worker to worker for each member.
    pub fn others<'g>(
        &'g self,
        qos: QoS,
        excluded: &[SessionKey],
        here: WorkerId,
    ) -> impl Iterator<Item = &'g Receiver> + use<'g> {
        let excluded: HashSet<SessionKey, FixedState> = excluded.iter().copied().collect();
        let start = self.cursor.load(Ordering::Relaxed) % self.members.len().max(1);
        let mut places: Vec<_> = (start..self.members.len()).chain(0..start).collect();
        places.retain(|place| {
            let member = &self.members[*place];
            let may_wait = member.status.is_online() || qos.min(member.qos).is_acknowledged();
            may_wait && !excluded.contains(&member.session)
        });
        places.sort_by_cached_key(|place| {
            let member = &self.members[*place];
            let in_flight = match self.strategy {
                Strategy::LeastInFlight => member.status.in_flight(),
                _ => 0,
            };
            let (is_full, is_online) = (member.status.is_full(), member.status.is_online());
            (is_full, !is_online, member.session.worker != here, in_flight)
        });
        places.into_iter().map(move |place| {
            if self.strategy == Strategy::Sticky {
                self.cursor.store(place, Ordering::Relaxed);
            }
            &self.members[place]
        })
    }

    /// Where to start looking.
    fn start(&self, choice: &Choice<'_>) -> Option<usize> {
        let number = match self.strategy {
            // Another worker may take the same turn in between: the choice is fair on the whole, not message by message.
            Strategy::RoundRobin | Strategy::LeastInFlight => self.cursor.fetch_add(1, Ordering::Relaxed) as u64,
            Strategy::Random => choice.random,
            Strategy::Sticky => self.cursor.load(Ordering::Relaxed) as u64,
            Strategy::ByClient => FixedState::default().hash_one(choice.publisher),
            Strategy::ByTopic => FixedState::default().hash_one(choice.topic),
        };
        number
            .checked_rem(self.members.len() as u64)
            .map(|place| place as usize)
    }

    /// The first member from `start` on, round the end, that is suitable; with [`Strategy::LeastInFlight`] the best of them.
    fn pick(&self, start: usize, is_suitable: impl Fn(&Receiver) -> bool) -> Option<usize> {
        let mut suitable = (start..self.members.len())
            .chain(0..start)
            .filter(|at| is_suitable(&self.members[*at]));
        match self.strategy {
            Strategy::LeastInFlight => suitable.min_by_key(|at| self.members[*at].status.in_flight()),
            _ => suitable.next(),
        }
    }
}

/// A shared group as the trie keeps it: the members as they change, and the picture of them that messages are routed by.
#[derive(Debug)]
pub(super) struct Group {
    name: Arc<GroupName>,
    strategy: Strategy,
    members: Subscribers,
    /// Outlives the pictures, so that a change of members does not start the round again.
    cursor: Arc<AtomicUsize>,
    /// Made when it is asked for: a thousand members that join one after the other cost a thousand steps, not a million.
    picture: OnceLock<Arc<SharedGroup>>,
}

impl Group {
    pub(super) fn new(name: GroupName, strategy: Strategy) -> Self {
        Self {
            name: Arc::new(name),
            strategy,
            members: Subscribers::default(),
            cursor: Arc::default(),
            picture: OnceLock::new(),
        }
    }

    pub(super) fn set_strategy(&mut self, strategy: Strategy) {
        self.strategy = strategy;
        self.picture.take();
    }

    pub(super) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Adds a member, or replaces it and returns true.
    pub(super) fn insert(&mut self, subscriber: Subscriber) -> bool {
        self.picture.take();
        self.members.insert(subscriber)
    }

    /// Takes a member out; false when it was none.
    pub(super) fn remove(&mut self, session: SessionKey) -> bool {
        let Some(place) = self.members.remove(session) else {
            return false;
        };
        self.picture.take();
        // The last member now stands at the free place; whoever stuck to it still does.
        let last = self.members.as_slice().len();
        if self.strategy == Strategy::Sticky && self.cursor.load(Ordering::Relaxed) == last {
            self.cursor.store(place, Ordering::Relaxed);
        }
        true
    }

    pub(super) fn picture(&self) -> &Arc<SharedGroup> {
        self.picture.get_or_init(|| {
            Arc::new(SharedGroup {
                name: self.name.clone(),
                strategy: self.strategy,
                members: self.members.as_slice().iter().map(Receiver::new).collect(),
                cursor: self.cursor.clone(),
                copy: GROUP_COPY | FixedState::default().hash_one(&*self.name) as u16,
            })
        })
    }
}

#[cfg(test)]
mod tests;
