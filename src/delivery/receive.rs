//! May a message be delivered to this client? Looked at when it leaves, so that a right that was taken away is gone at once, for what
//! waits and for retained messages, too.

use std::sync::Arc;

use crate::auth::{Access, Authorizer};
use crate::protocol::topic::TopicName;
use crate::session::connection::{Connection, Watch};
use crate::session::decisions::Question;

/// Asks the authoriser, for connections that are watched.
pub struct ReceiveCheck(Arc<dyn Authorizer>);

impl ReceiveCheck {
    /// Asks this one.
    pub fn new(authorizer: Arc<dyn Authorizer>) -> Self {
        Self(authorizer)
    }

    /// True where a message on this topic may be delivered. Costs one look at the connection where all it subscribes to may be read.
    #[inline]
    pub fn allows(&self, connection: &mut Connection, topic: TopicName<'_>) -> bool {
        connection.watch == Watch::Nothing || self.look(connection, topic)
    }

    #[cold]
    fn look(&self, connection: &mut Connection, topic: TopicName<'_>) -> bool {
        if connection.is_mounted && connection.mount_hides(topic).is_none() {
            return false; // a filter of the tenant matches it, and yet its clients have no name for it
        }
        if connection.watch == Watch::Mount {
            return true;
        }
        if let Some(is_allowed) = connection.decisions.get(Question::Receive, topic.as_str()) {
            return is_allowed;
        }
        // Before all is answered nothing leaves and nothing is withheld for good: what is still asked about may show it.
        let is_decided = !connection.is_under_review;
        let is_withheld = is_decided && !connection.review.is_none() && connection.review.withholds(topic.as_str());
        let is_allowed = !is_withheld && self.0.receive(&Access::of(connection), topic);
        if is_decided && self.0.generation().is_some() {
            connection.decisions.keep(Question::Receive, topic.as_str(), is_allowed);
        }
        is_allowed
    }
}

impl core::fmt::Debug for ReceiveCheck {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("ReceiveCheck")
    }
}
