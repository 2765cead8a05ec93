//! A subscription's way through the retained messages, see `broker/replay`.

use crate::protocol::ids::Ticket;
use crate::protocol::qos::QoS;
use crate::protocol::topic::TopicFilter;
use crate::router::Walk;
use crate::session::state::Subscription;

/// A subscription's way through the retained messages.
#[derive(Debug)]
pub struct RetainedWalk {
    /// The filter as the client wrote it.
    pub filter: Box<str>,
    /// How far it has come.
    pub walk: Walk,
    /// Granted QoS.
    pub qos: QoS,
    /// Subscription identifier.
    pub identifier: Option<u32>,
    /// What SUBACK waits for: it goes first.
    pub suback: Ticket,
    /// It was under way when the broker was started, and begins anew: of what has come already, only QoS 1 may come once more.
    pub is_anew: bool,
}

impl RetainedWalk {
    /// At its begin, waiting for nothing.
    pub fn new(filter: TopicFilter<'_>, subscription: Subscription) -> Self {
        Self {
            filter: filter.as_str().into(),
            walk: Walk::new(filter),
            qos: subscription.options.qos,
            identifier: subscription.identifier,
            suback: Ticket::DONE,
            is_anew: false,
        }
    }
}
