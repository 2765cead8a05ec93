//! One session, while records are applied.

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use smallvec::SmallVec;

use super::restored::RestoredWill;
use crate::protocol::ids::{MessageNumber, PacketId};
use crate::protocol::message::Message;
use crate::protocol::packet::SubscriptionOptions;
use crate::protocol::qos::QoS;
use crate::protocol::time::Time;
use crate::storage::record::{DeliveryRecord, Progress, SessionRecord};

/// A session as its records tell it.
#[derive(Debug, Default)]
pub(super) struct SessionState {
    pub(super) tenant: Box<str>,
    pub(super) client_id: Box<str>,
    pub(super) expiry_secs: u32,
    pub(super) expires_at: Time,
    /// By filter: options, identifier, and whether retained messages are still to come.
    pub(super) subscriptions: HashMap<Box<str>, (SubscriptionOptions, Option<u32>, bool), RandomState>,
    pub(super) will: Option<RestoredWill>,
    /// By message and copy.
    pub(super) deliveries: HashMap<(MessageNumber, u16), DeliveryState, RandomState>,
    /// QoS 2 identifiers that are not released, with the messages that wait for that.
    pub(super) received: HashMap<PacketId, Option<Box<Message>>, RandomState>,
}

impl SessionState {
    pub(super) fn set(&mut self, record: &SessionRecord<'_>) {
        if *self.client_id != *record.client_id {
            self.client_id = record.client_id.into();
        }
        if *self.tenant != *record.tenant {
            self.tenant = record.tenant.into();
        }
        self.expiry_secs = record.expiry_secs;
        self.expires_at = record.expires_at;
    }
}

/// A delivery as its records tell it.
#[derive(Debug)]
pub(super) struct DeliveryState {
    /// Its place among those of its session that are queued, or in flight.
    pub(super) position: u64,
    pub(super) progress: Progress,
    pub(super) qos: QoS,
    pub(super) retain: bool,
    pub(super) identifiers: SmallVec<[u32; 1]>,
    /// Seldom there: behind one pointer.
    pub(super) group: Option<Box<(Box<str>, Box<str>)>>,
}

impl DeliveryState {
    pub(super) fn new(record: &DeliveryRecord<'_>, position: u64) -> Self {
        Self {
            position,
            progress: record.progress,
            qos: record.qos,
            retain: record.retain,
            identifiers: record.identifiers.clone(),
            group: record
                .group
                .map(|(group, filter)| Box::new((group.into(), filter.into()))),
        }
    }
}
