//! What was restored, and what was not.

use foldhash::fast::RandomState;
use hashbrown::HashSet;

use crate::protocol::ids::SessionNumber;
use crate::protocol::topic::TopicName;
use crate::storage::record::RecordError;

/// Counts of what was restored, what had expired, and what was lost.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Retained messages.
    pub retained: usize,
    /// Sessions that outlive their connection.
    pub sessions: usize,
    /// Their subscriptions.
    pub subscriptions: usize,
    /// Deliveries that wait.
    pub queued: usize,
    /// Of those that wait or are in flight, how many have their content in the store only.
    pub stored_only: usize,
    /// Deliveries that are in flight.
    pub in_flight: usize,
    /// Wills.
    pub wills: usize,
    /// QoS 2 identifiers that clients have not released.
    pub received: usize,
    /// Sessions that had expired.
    pub expired_sessions: usize,
    /// Retained messages and deliveries that had expired.
    pub expired_messages: usize,
    /// What could not be restored.
    pub lost: Lost,
}

/// A count, and the first of what was counted by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// How many.
    pub count: u64,
    /// At most [`Names::NAMED_MAX`] of them.
    pub named: Vec<Box<str>>,
}

impl Names {
    /// As many are named at most.
    pub const NAMED_MAX: usize = 100;

    fn add(&mut self, name: impl FnOnce() -> Box<str>) {
        self.count += 1;
        if self.named.len() < Self::NAMED_MAX {
            self.named.push(name());
        }
    }
}

/// What could not be restored, because records were missing or could not be read.
#[derive(Clone, Debug, Default)]
pub struct Lost {
    /// Places where something may be missing.
    pub gaps: u64,
    /// Records that could not be read, each with its number in the order of reading and what is wrong with it.
    pub unreadable: Names,
    /// Sessions that later records name and that were not there, or whose messages were not: by client identifier, or where that is not known by number (`#17`).
    pub sessions: Names,
    /// Deliveries that belong to them or whose message was not there.
    pub deliveries: u64,
    /// Topics of those deliveries, as far as known.
    pub topics: Names,
    /// Records that were read.
    pub(super) records_seen: u64,
    /// Who they are, before names are looked up.
    pub(super) numbers: HashSet<SessionNumber, RandomState>,
}

impl Lost {
    /// True when everything is there.
    pub const fn is_empty(&self) -> bool {
        self.gaps == 0 && self.unreadable.count == 0
    }

    /// A record, or a part of it, cannot be read: whatever it told is missing from here on.
    pub(super) fn unreadable(&mut self, error: RecordError) {
        self.gaps += 1;
        let number = self.records_seen;
        self.unreadable.add(|| format!("record {number}: {error}").into());
    }

    /// A record names a session that is not known.
    pub(super) fn session(&mut self, number: SessionNumber) {
        if self.gaps > 0 {
            self.numbers.insert(number);
        }
    }

    /// A delivery has no session, or no message.
    pub(super) fn delivery(&mut self, session: SessionNumber, topic: Option<TopicName<'_>>) {
        if self.gaps == 0 {
            return;
        }
        self.numbers.insert(session);
        self.deliveries += 1;
        if let Some(topic) = topic
            && !self.topics.named.iter().any(|name| **name == *topic.as_str())
        {
            self.topics.add(|| topic.as_str().into());
        }
    }

    /// Names the sessions.
    pub(super) fn name_sessions<'a>(&mut self, client_id: impl Fn(SessionNumber) -> Option<&'a str>) {
        let mut numbers: Vec<_> = std::mem::take(&mut self.numbers).into_iter().collect();
        numbers.sort_unstable();
        for number in numbers {
            self.sessions.add(|| match client_id(number) {
                Some(client_id) => client_id.into(),
                None => format!("#{}", number.0).into(),
            });
        }
    }
}
