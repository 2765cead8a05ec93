//! A session: what the broker remembers of a client between its connections (MQTT 5 section 4.1).

use std::sync::Arc;

use hashbrown::HashMap;

use super::outbound::Outbound;
use super::packet_ids::PacketIdSet;
use super::request::NEVER_EXPIRES;
use super::will::Will;
use crate::protocol::ids::ClientId;
use crate::protocol::packet::SubscriptionOptions;
use crate::protocol::time::Time;
use crate::router::status::SessionStatus;

/// The state of one session.
#[derive(Debug)]
pub struct Session {
    /// Whose it is.
    pub client_id: ClientId,
    /// Seconds that it outlives its connection; [`NEVER_EXPIRES`] for ever, 0 not at all.
    pub expiry_secs: u32,
    /// When it expires, while it has no connection.
    pub expires_at: Time,
    /// Its subscriptions by filter as the client wrote it.
    pub subscriptions: HashMap<Box<str>, Subscription, foldhash::fast::RandomState>,
    /// Deliveries in flight to the client.
    pub outbound: Outbound,
    /// QoS 2 messages received and not released.
    pub inbound: PacketIdSet,
    /// The will and when it is due, while its delay runs.
    pub pending_will: Option<(Will, Time)>,
    /// What other workers may know of it.
    pub status: Arc<SessionStatus>,
}

/// One subscription of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subscription {
    /// Options, the QoS as granted.
    pub options: SubscriptionOptions,
    /// Subscription identifier.
    pub identifier: Option<u32>,
}

impl Session {
    /// A new session without subscriptions.
    pub fn new(client_id: ClientId, expiry_secs: u32) -> Self {
        Self {
            client_id,
            expiry_secs,
            expires_at: Time::NEVER,
            subscriptions: HashMap::default(),
            outbound: Outbound::default(),
            inbound: PacketIdSet::default(),
            pending_will: None,
            status: Arc::default(),
        }
    }

    /// True when it outlives its connection, so that what is sent must be kept until it is acknowledged.
    #[inline]
    pub const fn is_persistent(&self) -> bool {
        self.expiry_secs > 0
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
