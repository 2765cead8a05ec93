//! Acknowledgements on their way back, in the order of what they acknowledge [MQTT-4.6.0-2] [MQTT-4.6.0-3].
//!
//! Mostly nothing waits and an acknowledgement is written at once. Where one must wait for a storage ticket, those behind it
//! wait too, even if their own work is done.

use std::collections::VecDeque;

use crate::codec::write_ack;
use crate::protocol::ids::PacketId;
use crate::protocol::packet::PacketType;
use crate::protocol::reason::ReasonCode;
use crate::protocol::version::Version;

/// What acknowledges one packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// PUBACK, PUBREC or PUBCOMP.
    Ack {
        /// Which of them.
        kind: PacketType,
        /// Of the packet that is acknowledged.
        id: PacketId,
        /// How it went.
        reason: ReasonCode,
    },
    /// A packet that is encoded already: SUBACK, UNSUBACK, or an acknowledgement with properties.
    Encoded(Box<[u8]>),
}

impl Reply {
    /// Appends the reply to the connection's output.
    pub fn write(&self, version: Version, out: &mut Vec<u8>) {
        match self {
            Self::Ack { kind, id, reason } => write_ack(*kind, *id, *reason, version, out),
            Self::Encoded(bytes) => out.extend_from_slice(bytes),
        }
    }
}

/// The replies of one connection that wait.
#[derive(Debug, Default)]
pub struct Replies {
    waiting: VecDeque<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    reply: Reply,
    /// The request that must be completed first.
    ticket: Option<u32>,
    /// It had a ticket.
    has_waited: bool,
}

/// What a completed ticket means for its reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Completed {
    /// The reply may leave when its turn comes.
    Released,
    /// The work failed and this version has no code to say so: the reply and all behind it are withheld, the connection ends.
    Withheld,
    /// No reply waits for that ticket.
    Unknown,
}

impl Replies {
    /// True when nothing waits, and a reply may be written directly.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Puts a reply behind the others; `ticket` is the request that it waits for itself.
    pub fn push(&mut self, reply: Reply, ticket: Option<u32>) {
        self.waiting.push_back(Waiting {
            reply,
            ticket,
            has_waited: ticket.is_some(),
        });
    }

    /// A request is done, well or not. Where it failed, an acknowledgement of MQTT 5 becomes `Quota exceeded`; any other reply has no
    /// way to say so. The failed reply is returned too.
    pub fn complete(&mut self, ticket: u32, is_stored: bool, version: Version) -> (Completed, Option<Reply>) {
        let Some(waiting) = self.waiting.iter_mut().find(|waiting| waiting.ticket == Some(ticket)) else {
            return (Completed::Unknown, None);
        };
        waiting.ticket = None;
        if is_stored {
            return (Completed::Released, None);
        }
        let failed = waiting.reply.clone();
        match &mut waiting.reply {
            Reply::Ack { reason, .. } if version.has_properties() => {
                *reason = ReasonCode::QuotaExceeded;
                (Completed::Released, Some(failed))
            }
            _ => (Completed::Withheld, Some(failed)),
        }
    }

    /// Appends every reply whose turn has come, and says how many those were.
    pub fn write_ready(&mut self, version: Version, out: &mut Vec<u8>) -> Written {
        let mut written = Written::default();
        while let Some(waiting) = self.waiting.pop_front_if(|waiting| waiting.ticket.is_none()) {
            waiting.reply.write(version, out);
            written.packets += 1;
            written.pubacks += u16::from(
                waiting.has_waited
                    && matches!(
                        waiting.reply,
                        Reply::Ack {
                            kind: PacketType::PubAck,
                            ..
                        }
                    ),
            );
        }
        written
    }
}

/// What [`Replies::write_ready`] wrote.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Packets.
    pub packets: u16,
    /// PUBACK packets among them that had a ticket of their own.
    pub pubacks: u16,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ack(id: u16) -> Reply {
        Reply::Ack {
            kind: PacketType::PubAck,
            id: PacketId::new(id).unwrap(),
            reason: ReasonCode::Success,
        }
    }

    #[test]
    fn a_reply_that_is_ready_waits_behind_one_that_is_not() {
        let mut replies = Replies::default();
        let mut out = Vec::new();
        replies.push(ack(1), Some(7));
        replies.push(ack(2), None);
        replies.write_ready(Version::V311, &mut out);
        assert!(out.is_empty());
        assert_eq!(replies.complete(7, true, Version::V311).0, Completed::Released);
        replies.write_ready(Version::V311, &mut out);
        assert_eq!(out, [0x40, 2, 0, 1, 0x40, 2, 0, 2]);
    }

    #[test]
    fn a_failed_ticket_is_told_to_mqtt_5_and_withheld_from_3_1_1() {
        let mut replies = Replies::default();
        replies.push(ack(1), Some(1));
        assert_eq!(replies.complete(1, false, Version::V311).0, Completed::Withheld);
        let mut replies = Replies::default();
        let mut out = Vec::new();
        replies.push(ack(1), Some(1));
        assert_eq!(
            replies.complete(1, false, Version::V5),
            (Completed::Released, Some(ack(1)))
        );
        replies.write_ready(Version::V5, &mut out);
        assert_eq!(out, [0x40, 3, 0, 1, 0x97]);
        assert_eq!(replies.complete(1, true, Version::V5).0, Completed::Unknown);
    }
}
