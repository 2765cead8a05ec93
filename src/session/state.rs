//! A session: what the broker remembers of a client between its connections (MQTT 5 section 4.1).

use std::sync::{Arc, LazyLock};

use hashbrown::HashMap;

use super::outbound::Outbound;
use super::packet_ids::PacketIdSet;
use super::rare::{Empty, Rare};
use super::request::NEVER_EXPIRES;
use super::unreleased::Unreleased;
use super::will::Will;
use crate::protocol::ids::{ClientId, SessionKey, SessionNumber, Ticket};
use crate::protocol::packet::SubscriptionOptions;
use crate::protocol::time::Time;
use crate::router::Subscriber;
use crate::router::status::SessionStatus;

/// The state of one session.
#[derive(Debug)]
pub struct Session {
    /// Whose it is.
    pub client_id: ClientId,
    /// The user who made it, where who he is was not only believed: no other one gets it. Not in the store: after a restart it belongs to the
    /// first user who comes with this client id.
    pub owner: Option<Box<str>>,
    /// Seconds that it outlives its connection; [`NEVER_EXPIRES`] for ever, 0 not at all.
    pub expiry_secs: u32,
    /// When it expires, while it has no connection.
    pub expires_at: Time,
    /// Its subscriptions by filter as the client wrote it.
    pub subscriptions: Rare<Subscriptions>,
    /// Deliveries in flight to the client.
    pub outbound: Outbound,
    /// QoS 2 messages received and not released.
    pub inbound: Rare<PacketIdSet>,
    /// Those of them that go to their receivers only when they are released.
    pub unreleased: Rare<Unreleased>,
    /// The will and when it is due, while its delay runs.
    pub pending_will: Option<(Will, Time)>,
    /// Takeovers of late, the sign of two clients with one client id.
    pub takeovers: Rare<Takeovers>,
    /// What other workers may know of it.
    pub status: Arc<SessionStatus>,
    /// Its number in the store, if it is kept there.
    pub number: Option<SessionNumber>,
    /// What made it, in the store.
    pub created: Ticket,
    /// The store has a will of it.
    pub has_stored_will: bool,
    /// It was restored of a damaged store: which QoS 2 identifiers its client has not released is not known for sure. What it repeats first
    /// counts as received: rather lost, and named so at the start, than twice.
    pub doubts_repeats: bool,
    /// Its pending will is of a connection that a stop of the broker ended: it is forgotten when the client comes back, however it does.
    pub is_will_former: bool,
}

/// Subscriptions by filter.
pub type Subscriptions = HashMap<Box<str>, Subscription, foldhash::fast::RandomState>;

impl Empty for Subscriptions {
    fn empty() -> &'static Self {
        static EMPTY: LazyLock<Subscriptions> = LazyLock::new(HashMap::default);
        &EMPTY
    }
}

/// Counts the takeovers of one session: two devices that were given the same client id take it from each other for ever, and
/// nobody finds out why unless he is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Takeovers {
    since: Time,
    count: u32,
    warned_at: Option<Time>,
}

/// Takeovers within [`TAKEOVER_WINDOW_MS`] that are taken for two clients with one id.
const TAKEOVERS_SUSPECT: u32 = 5;
const TAKEOVER_WINDOW_MS: u64 = 60_000;
/// The warning is given again after this time.
const TAKEOVER_WARN_EVERY_MS: u64 = 600_000;

impl Empty for Takeovers {
    fn empty() -> &'static Self {
        const {
            &Self {
                since: Time(0),
                count: 0,
                warned_at: None,
            }
        }
    }
}

impl Takeovers {
    /// Counts one; how many there were within the last minute or so, when it is time to warn.
    pub fn record(&mut self, now: Time) -> Option<u32> {
        if now.millis_since(self.since) > TAKEOVER_WINDOW_MS {
            (self.since, self.count) = (now, 0);
        }
        self.count += 1;
        let is_due = self
            .warned_at
            .is_none_or(|at| now.millis_since(at) >= TAKEOVER_WARN_EVERY_MS);
        if self.count < TAKEOVERS_SUSPECT || !is_due {
            return None;
        }
        self.warned_at = Some(now);
        Some(self.count)
    }
}

/// One subscription of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subscription {
    /// Options, the QoS as granted.
    pub options: SubscriptionOptions,
    /// Subscription identifier.
    pub identifier: Option<u32>,
    /// Whoever is asked about it elsewhere has allowed it on this connection, and not taken that back.
    pub was_vouched_for: bool,
}

impl Subscription {
    /// As the router knows it.
    pub fn of(&self, session: SessionKey, status: &Arc<SessionStatus>) -> Subscriber {
        Subscriber {
            session,
            options: self.options,
            identifier: self.identifier,
            status: Arc::clone(status),
        }
    }
}

impl Session {
    /// A new session without subscriptions.
    pub fn new(client_id: ClientId, expiry_secs: u32) -> Self {
        Self {
            client_id,
            owner: None,
            expiry_secs,
            expires_at: Time::NEVER,
            subscriptions: Rare::default(),
            outbound: Outbound::default(),
            inbound: Rare::default(),
            unreleased: Rare::default(),
            pending_will: None,
            takeovers: Rare::default(),
            status: Arc::default(),
            number: None,
            created: Ticket::DONE,
            has_stored_will: false,
            doubts_repeats: false,
            is_will_former: false,
        }
    }

    /// True when it outlives its connection, so that what is sent must be kept until it is acknowledged.
    #[inline]
    pub const fn is_persistent(&self) -> bool {
        self.expiry_secs > 0
    }

    /// Its number in the store, if deliveries to it are to be kept there.
    #[inline]
    pub const fn stored_number(&self) -> Option<SessionNumber> {
        if self.is_persistent() { self.number } else { None }
    }

    /// When it expires if its connection ends at `now`.
    pub const fn expiry_from(&self, now: Time) -> Time {
        if self.expiry_secs == NEVER_EXPIRES {
            Time::NEVER
        } else {
            now.plus_secs(self.expiry_secs as u64)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fifth_takeover_in_a_minute_warns_once_and_slow_ones_never() {
        let mut fast = Takeovers::default();
        let warned: Vec<_> = (0..20).filter_map(|n| fast.record(Time(n * 1000))).collect();
        assert_eq!(warned, [5]);
        assert!(fast.record(Time(605_000)).is_none(), "the minute begins anew");
        let mut slow = Takeovers::default();
        assert!((0..100).all(|n| slow.record(Time(n * 61_000)).is_none()));
    }
}
