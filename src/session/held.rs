//! Packets that wait for the store, in the order in which they are to leave.
//!
//! Mostly nothing waits and a packet is written at once. Where one must wait until what it depends on is kept, those behind it wait
//! too: so acknowledgements leave in the order of what they acknowledge [MQTT-4.6.0-2] [MQTT-4.6.0-3], and QoS 2 in the order of sending.

use std::collections::VecDeque;

use super::rare::Empty;
use crate::codec::write_ack;
use crate::protocol::ids::{PacketId, Ticket};
use crate::protocol::packet::PacketType;
use crate::protocol::reason::ReasonCode;
use crate::protocol::version::Version;

/// What acknowledges one packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// PUBACK, PUBREC, PUBREL or PUBCOMP.
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

    /// PUBACK and PUBREC leave in the order of what they acknowledge [MQTT-4.6.0-2] [MQTT-4.6.0-3]; so do answers that are encoded,
    /// which may be one of them.
    pub const fn is_in_order(&self) -> bool {
        match self {
            Self::Ack { kind, .. } => matches!(kind, PacketType::PubAck | PacketType::PubRec),
            Self::Encoded(_) => true,
        }
    }

    /// The kind and identifier of an acknowledgement with success that a publisher waits for: PUBACK or PUBREC.
    const fn accepts(&self) -> Option<PacketType> {
        match self {
            Self::Ack { kind, reason, .. }
                if matches!(kind, PacketType::PubAck | PacketType::PubRec) && !reason.is_error() =>
            {
                Some(*kind)
            }
            _ => None,
        }
    }
}

/// A packet that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// An acknowledgement.
    Reply(Reply),
    /// CONNACK, encoded; nothing else leaves before it.
    ConnAck(Box<[u8]>),
    /// PUBLISH of the window, and whether it may have been sent before.
    Publish(PacketId, bool),
}

impl Waiting {
    const fn is_in_order(&self) -> bool {
        matches!(self, Self::Reply(reply) if reply.is_in_order())
    }
}

/// The packets of one connection that wait.
#[derive(Debug, Default)]
pub struct Held {
    waiting: VecDeque<(Ticket, Waiting)>,
    /// Those among them that others must not overtake.
    in_order: usize,
}

impl Empty for Held {
    fn empty() -> &'static Self {
        const {
            &Self {
                waiting: VecDeque::new(),
                in_order: 0,
            }
        }
    }
}

/// What a failure of the store means for a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failed {
    /// Nothing it could tell: what waits goes on waiting until the store has healed.
    Waits,
    /// Acknowledgements were changed into refusals, and may leave when their turn comes.
    Refused,
    /// An acknowledgement cannot be given and the client cannot be told why: the connection ends without it and all behind it.
    Withheld,
}

impl Held {
    /// True when nothing waits, and a packet may be written directly.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// True when an acknowledgement may be written directly: nothing waits, or nothing that it must not overtake. A refusal need not wait
    /// until a store has healed because a PUBCOMP does.
    #[inline]
    pub fn lets_pass(&self, reply: &Reply) -> bool {
        self.waiting.is_empty() || (self.in_order == 0 && reply.is_in_order() && !self.has_connack())
    }

    fn has_connack(&self) -> bool {
        matches!(self.waiting.front(), Some((_, Waiting::ConnAck(_))))
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Puts a packet behind the others.
    pub fn push(&mut self, packet: Waiting, ticket: Ticket) {
        self.in_order += usize::from(packet.is_in_order());
        self.waiting.push_back((ticket, packet));
    }

    /// Puts packets before the others, in their order. Refusals among them depend on nothing.
    pub fn put_first(&mut self, packets: Vec<Waiting>, ticket: Ticket) {
        for packet in packets.into_iter().rev() {
            let is_refusal = matches!(&packet, Waiting::Reply(Reply::Ack { reason, .. }) if reason.is_error());
            let ticket = if is_refusal { Ticket::DONE } else { ticket };
            self.in_order += usize::from(packet.is_in_order());
            self.waiting.push_front((ticket, packet));
        }
    }

    /// Takes the packet whose turn it is, if its ticket is among those `is_stored`; with its ticket.
    pub fn pop_ready(&mut self, is_stored: impl Fn(Ticket) -> bool) -> Option<(Ticket, Waiting)> {
        let ready = self.waiting.pop_front_if(|(ticket, _)| is_stored(*ticket))?;
        self.in_order -= usize::from(ready.1.is_in_order());
        Some(ready)
    }

    /// What waits for `failed` batches is not kept. A PUBACK of MQTT 5 becomes `Quota exceeded`: the publisher may send the message
    /// again. A PUBREC cannot: the message is on its way already, and sent anew it would arrive twice; the publisher is to connect
    /// again and repeat it with its identifier. Older versions have no codes. Anything else waits until the store has healed.
    pub fn fail(&mut self, is_failed: impl Fn(Ticket) -> bool, version: Version) -> Failed {
        let mut result = Failed::Waits;
        for (ticket, packet) in &mut self.waiting {
            let Waiting::Reply(reply) = packet else { continue };
            if !is_failed(*ticket) {
                continue;
            }
            match (reply.accepts(), &mut *reply) {
                (None, _) => {}
                (Some(PacketType::PubAck), Reply::Ack { reason, .. }) if version.has_properties() => {
                    *reason = ReasonCode::QuotaExceeded;
                    *ticket = Ticket::DONE;
                    result = Failed::Refused;
                }
                _ => return Failed::Withheld,
            }
        }
        if result == Failed::Refused && !self.has_connack() {
            // They pass what waits for healing and is no acknowledgement.
            let (first, rest): (VecDeque<_>, VecDeque<_>) = std::mem::take(&mut self.waiting)
                .into_iter()
                .partition(|(_, packet)| packet.is_in_order());
            self.waiting = first;
            self.waiting.extend(rest);
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(value: u16) -> PacketId {
        PacketId::new(value).unwrap()
    }

    fn ack(kind: PacketType, value: u16) -> Waiting {
        Waiting::Reply(Reply::Ack {
            kind,
            id: id(value),
            reason: ReasonCode::Success,
        })
    }

    fn ready(held: &mut Held, stored: u64) -> Vec<Waiting> {
        std::iter::from_fn(|| held.pop_ready(|ticket| ticket.batch() <= stored))
            .map(|(_, packet)| packet)
            .collect()
    }

    #[test]
    fn a_packet_that_is_ready_waits_behind_one_that_is_not() {
        let mut held = Held::default();
        held.push(ack(PacketType::PubAck, 1), Ticket::of_batch(7));
        held.push(ack(PacketType::PubAck, 2), Ticket::DONE);
        held.push(Waiting::Publish(id(3), false), Ticket::of_batch(8));
        assert!(ready(&mut held, 6).is_empty());
        assert_eq!(
            ready(&mut held, 7),
            [ack(PacketType::PubAck, 1), ack(PacketType::PubAck, 2)]
        );
        assert_eq!(ready(&mut held, 8), [Waiting::Publish(id(3), false)]);
    }

    #[test]
    fn a_failure_is_told_to_mqtt_5_and_withheld_from_3_1_1() {
        for (version, expected) in [(Version::V311, Failed::Withheld), (Version::V5, Failed::Refused)] {
            let mut held = Held::default();
            held.push(ack(PacketType::PubAck, 1), Ticket::of_batch(1));
            assert_eq!(held.fail(|ticket| ticket.batch() == 1, version), expected);
        }
        let mut held = Held::default();
        held.push(ack(PacketType::PubAck, 1), Ticket::of_batch(1));
        held.fail(|_| true, Version::V5);
        let mut out = Vec::new();
        let Waiting::Reply(reply) = &ready(&mut held, 0)[0] else {
            panic!("it is a reply")
        };
        reply.write(Version::V5, &mut out);
        assert_eq!(out, [0x40, 3, 0, 1, 0x97]);
    }

    #[test]
    fn a_refusal_behind_what_failed_leaves_with_it() {
        let refusal = Waiting::Reply(Reply::Ack {
            kind: PacketType::PubAck,
            id: id(2),
            reason: ReasonCode::NotAuthorized,
        });
        let mut held = Held::default();
        held.put_first(vec![ack(PacketType::PubAck, 1), refusal.clone()], Ticket::of_batch(1));
        assert_eq!(held.fail(|ticket| ticket.batch() == 1, Version::V5), Failed::Refused);
        let left = ready(&mut held, 0);
        assert_eq!((left.len(), left.last()), (2, Some(&refusal)));
        assert!(held.is_empty());
    }

    #[test]
    fn qos_2_is_not_refused_when_it_is_on_its_way_already() {
        let mut held = Held::default();
        held.push(ack(PacketType::PubRec, 1), Ticket::of_batch(1));
        assert_eq!(held.fail(|_| true, Version::V5), Failed::Withheld);
    }

    #[test]
    fn a_refusal_passes_what_waits_for_healing_but_no_acknowledgement_before_it() {
        let refusal = Reply::Ack {
            kind: PacketType::PubAck,
            id: id(2),
            reason: ReasonCode::QuotaExceeded,
        };
        let mut held = Held::default();
        assert!(held.lets_pass(&refusal));
        held.push(ack(PacketType::PubComp, 1), Ticket::of_batch(1));
        assert!(held.lets_pass(&refusal));
        held.push(ack(PacketType::PubRec, 1), Ticket::of_batch(1));
        assert!(!held.lets_pass(&refusal));
        assert_eq!(ready(&mut held, 1).len(), 2);
        held.push(Waiting::ConnAck(Box::new([])), Ticket::of_batch(2));
        assert!(!held.lets_pass(&refusal), "nothing leaves before CONNACK");
    }

    #[test]
    fn what_becomes_a_refusal_passes_what_waits_for_healing_too() {
        let mut held = Held::default();
        held.push(ack(PacketType::PubComp, 1), Ticket::of_batch(1));
        held.push(Waiting::Publish(id(2), false), Ticket::of_batch(1));
        held.push(ack(PacketType::PubAck, 3), Ticket::of_batch(1));
        held.push(ack(PacketType::PubRel, 4), Ticket::of_batch(2));
        assert_eq!(held.fail(|_| true, Version::V5), Failed::Refused);
        let refused = ready(&mut held, 0);
        assert!(
            matches!(&refused[..], [Waiting::Reply(Reply::Ack { id, reason: ReasonCode::QuotaExceeded, .. })] if id.get() == 3),
            "{refused:?}"
        );
        assert_eq!(
            ready(&mut held, 2),
            [
                ack(PacketType::PubComp, 1),
                Waiting::Publish(id(2), false),
                ack(PacketType::PubRel, 4)
            ]
        );
    }

    #[test]
    fn what_is_no_publishers_waits_for_the_store_to_heal() {
        let mut held = Held::default();
        held.push(ack(PacketType::PubRel, 1), Ticket::of_batch(1));
        held.push(
            Waiting::Reply(Reply::Encoded(Box::new([0x90, 3, 0, 1, 1]))),
            Ticket::of_batch(1),
        );
        held.push(ack(PacketType::PubComp, 1), Ticket::of_batch(1));
        assert_eq!(held.fail(|_| true, Version::V311), Failed::Waits);
        assert!(ready(&mut held, 0).is_empty());
        assert_eq!(ready(&mut held, 1).len(), 3);
    }
}
