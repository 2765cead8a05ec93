//! QoS 2 messages that are delivered when they are released.

use super::bytes::{Reader, put, put_time};
use super::{Content, RecordError};
use crate::protocol::ids::{PacketId, SessionNumber};
use crate::protocol::message::Publication;
use crate::protocol::time::Time;

/// See [`Record::Unreleased`](super::Record::Unreleased).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnreleasedRecord<'a> {
    /// Whose.
    pub session: SessionNumber,
    /// Which of its messages.
    pub id: PacketId,
    /// When it expires; [`Time::NEVER`] for never.
    pub expires_at: Time,
    /// What it says.
    pub content: Content<'a>,
}

impl<'a> UnreleasedRecord<'a> {
    /// A publication of a session that it has not released.
    pub fn of(session: SessionNumber, id: PacketId, publication: &Publication<'a>) -> Self {
        Self {
            session,
            id,
            expires_at: publication.expires_at.unwrap_or(Time::NEVER),
            content: Content::of(publication),
        }
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        put(out, self.session.0.get());
        put(out, self.id.get().into());
        put_time(out, self.expires_at);
        self.content.encode(out);
    }

    pub(super) fn decode(from: &mut Reader<'a>) -> Result<Self, RecordError> {
        Ok(Self {
            session: from.session()?,
            id: from.packet_id()?,
            expires_at: from.time()?,
            content: Content::decode(from)?,
        })
    }
}
