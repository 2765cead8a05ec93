//! One message on its way to one session.

use std::sync::Arc;

use smallvec::SmallVec;

use crate::protocol::ids::MessageNumber;
use crate::protocol::message::Message;
use crate::protocol::qos::QoS;
use crate::router::shared::GroupName;

/// A message that waits for, or is in flight to, one session, with what the session's subscriptions decided about it.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// The message, shared with everyone else who is to have it.
    pub message: Arc<Message>,
    /// QoS of this delivery: the lower one of publisher's and subscription's.
    pub qos: QoS,
    /// The retain flag of this delivery.
    pub retain: bool,
    /// Subscription identifiers of every subscription that matched [MQTT-3.3.4-3].
    pub identifiers: SmallVec<[u32; 1]>,
    /// The shared subscription it was chosen for, where another member may have it if this one goes.
    pub group: Option<Arc<GroupName>>,
    /// Tells apart several deliveries of one message to one session: 0 but for overlapping and shared subscriptions.
    pub copy: u16,
}

/// What a store knows a delivery to one session by: its message, and which of the message's deliveries to the session it is.
pub type DeliveryKey = (MessageNumber, u16);

impl Delivery {
    /// What the store knows it by, if its message has a number.
    #[inline]
    pub fn key(&self) -> Option<DeliveryKey> {
        self.message.number.map(|number| (number, self.copy))
    }

    /// Bytes it is charged with in its session's queue: the message, though it may be shared, and its own bookkeeping.
    pub fn cost_bytes(&self) -> usize {
        self.message.cost_bytes() + size_of::<Self>()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::protocol::message::Publication;
    use crate::protocol::property::Properties;
    use crate::protocol::topic::TopicName;

    /// Some QoS 1 delivery.
    pub(crate) fn delivery() -> Delivery {
        delivery_of(QoS::AtLeastOnce, b"p")
    }

    /// A delivery of a message on `t`.
    pub(crate) fn delivery_of(qos: QoS, payload: &[u8]) -> Delivery {
        let publication = Publication {
            topic: TopicName::parse("t").unwrap(),
            payload,
            qos,
            retain: false,
            properties: Properties::EMPTY,
            expires_at: None,
            publisher: None,
            source: None,
        };
        Delivery {
            message: Arc::new(publication.to_message()),
            qos,
            retain: false,
            identifiers: SmallVec::new(),
            group: None,
            copy: 0,
        }
    }
}
