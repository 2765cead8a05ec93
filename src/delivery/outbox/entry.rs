//! A delivery that waits: with its content, or with what is needed to get that from the store.

use std::sync::Arc;

use smallvec::SmallVec;

use crate::protocol::ids::{MessageNumber, SessionNumber};
use crate::protocol::message::Message;
use crate::protocol::qos::QoS;
use crate::protocol::time::Time;
use crate::router::shared::GroupName;
use crate::session::delivery::{Delivery, DeliveryKey};
use crate::storage::record::{DeliveryRecord, Progress};

/// A QoS 1 or 2 delivery in the queue. 48 bytes, whichever it is.
#[derive(Debug)]
pub enum Entry {
    /// Its content is in memory.
    Memory(Delivery),
    /// Its content is in the store only.
    Stored(StoredDelivery),
}

/// A delivery whose content is in the store only.
#[derive(Debug)]
pub struct StoredDelivery {
    /// Which message.
    pub message: MessageNumber,
    /// When it expires; [`Time::NEVER`] for never.
    pub expires_at: Time,
    /// What it is charged with in its session's queue, bytes: as much as with its content.
    cost: u32,
    /// Tells apart several deliveries of one message to one session.
    pub copy: u16,
    /// QoS of the delivery.
    pub qos: QoS,
    /// Retain flag of the delivery.
    pub retain: bool,
    /// What most deliveries do not have.
    more: Option<Box<More>>,
}

#[derive(Debug)]
struct More {
    identifiers: SmallVec<[u32; 1]>,
    group: Option<Arc<GroupName>>,
}

const _: () = assert!(size_of::<Entry>() <= 48, "a long queue is made of them");

impl Entry {
    /// What it is charged with in its session's queue, bytes.
    pub fn cost_bytes(&self) -> usize {
        match self {
            Self::Memory(delivery) => delivery.cost_bytes(),
            Self::Stored(stored) => stored.cost as usize,
        }
    }

    /// What the store knows it by, if its message has a number.
    pub fn key(&self) -> Option<DeliveryKey> {
        match self {
            Self::Memory(delivery) => delivery.key(),
            Self::Stored(stored) => Some((stored.message, stored.copy)),
        }
    }

    /// True when its expiry moment has come.
    pub fn is_expired(&self, now: Time) -> bool {
        match self {
            Self::Memory(delivery) => delivery.message.is_expired(now),
            Self::Stored(stored) => stored.expires_at <= now,
        }
    }

    /// Bytes of it that are in memory because of its content.
    pub(super) fn memory_bytes(&self) -> usize {
        match self {
            Self::Memory(delivery) => delivery.cost_bytes(),
            Self::Stored(_) => 0,
        }
    }

    /// True for QoS 1 and 2.
    pub(super) fn is_acknowledged(&self) -> bool {
        match self {
            Self::Memory(delivery) => delivery.qos.is_acknowledged(),
            Self::Stored(_) => true,
        }
    }

    /// True when its content is in the store only.
    pub const fn is_stored(&self) -> bool {
        matches!(self, Self::Stored(_))
    }

    /// As the store knows it.
    pub fn record(&self, session: SessionNumber) -> DeliveryRecord<'_> {
        let (copy, qos, retain, identifiers, group) = match self {
            Self::Memory(of) => (of.copy, of.qos, of.retain, of.identifiers.clone(), of.group.as_ref()),
            Self::Stored(of) => (of.copy, of.qos, of.retain, of.identifiers(), of.group()),
        };
        DeliveryRecord {
            session,
            copy,
            progress: Progress::Queued,
            qos,
            retain,
            identifiers,
            group: group.map(|name| (&*name.group, &*name.filter)),
        }
    }
}

impl StoredDelivery {
    /// What remains of a delivery without its content; `None` where the store has no number for its message.
    pub fn of(delivery: &Delivery) -> Option<Self> {
        let expires_at = delivery.message.expires_at.unwrap_or(Time::NEVER);
        let stored = Self::new(
            (delivery.message.number?, delivery.copy),
            expires_at,
            delivery.message.cost_bytes(),
            (delivery.qos, delivery.retain),
        );
        Some(stored.with(delivery.identifiers.clone(), delivery.group.clone()))
    }

    /// A delivery of a message that costs so many bytes, see [`Message::cost_bytes`]; with QoS and retain flag.
    pub fn new(key: DeliveryKey, expires_at: Time, message_bytes: usize, (qos, retain): (QoS, bool)) -> Self {
        Self {
            message: key.0,
            expires_at,
            cost: u32::try_from(message_bytes + size_of::<Delivery>()).unwrap_or(u32::MAX),
            copy: key.1,
            qos,
            retain,
            more: None,
        }
    }

    /// With subscription identifiers and shared subscription.
    #[must_use]
    pub fn with(mut self, identifiers: SmallVec<[u32; 1]>, group: Option<Arc<GroupName>>) -> Self {
        if !identifiers.is_empty() || group.is_some() {
            self.more = Some(Box::new(More { identifiers, group }));
        }
        self
    }

    /// The shared subscription it was chosen for.
    pub fn group(&self) -> Option<&Arc<GroupName>> {
        self.more.as_ref()?.group.as_ref()
    }

    /// The delivery, now that its content has come.
    pub fn to_delivery(&self, message: Arc<Message>) -> Delivery {
        Delivery {
            message,
            qos: self.qos,
            retain: self.retain,
            identifiers: self.identifiers(),
            group: self.group().cloned(),
            copy: self.copy,
        }
    }

    fn identifiers(&self) -> SmallVec<[u32; 1]> {
        self.more
            .as_ref()
            .map_or_else(SmallVec::new, |more| more.identifiers.clone())
    }
}
