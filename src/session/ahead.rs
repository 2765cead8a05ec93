//! Packets that stand in a connection's output before the store has what they depend on.
//!
//! Where a store is quick, to let every packet wait by itself (`held.rs`) costs more than what it waits for. So acknowledgements and QoS 2
//! PUBLISH are put into the output as if nothing was missing, and it is the output that waits, as a whole, for one batch. If the store
//! fails with it, they are taken out again ([`recall`]), and wait by themselves.

use super::held::{Reply, Waiting};
use crate::codec::{DecodeOptions, Role, decode, frame_length};
use crate::protocol::ids::Ticket;
use crate::protocol::packet::{Ack, Packet, PacketType};
use crate::protocol::qos::QoS;
use crate::protocol::version::Version;

/// What a connection's output waits for.
#[derive(Clone, Copy, Debug)]
pub struct Ahead {
    ticket: Ticket,
    /// Bytes at the front of the output that depend on nothing.
    from: u32,
}

impl Ahead {
    /// Nothing: it may leave.
    pub const NONE: Self = Self {
        ticket: Ticket::DONE,
        from: 0,
    };

    /// A packet that depends on a batch may be put behind the first `from` bytes of the output; false where the output waits for another
    /// batch already, or is too long.
    #[inline]
    pub fn begin(&mut self, ticket: Ticket, from: usize, is_stored: impl Fn(Ticket) -> bool) -> bool {
        if self.ticket == ticket {
            return true;
        }
        let Ok(from) = u32::try_from(from) else { return false };
        if !is_stored(self.ticket) {
            return false;
        }
        *self = Self { ticket, from };
        true
    }

    /// The batch that it waits for, or waited.
    #[inline]
    pub const fn ticket(&self) -> Ticket {
        self.ticket
    }

    /// It waits no more; how many bytes at the front depended on nothing.
    pub const fn end(&mut self) -> usize {
        let from = self.from as usize;
        *self = Self::NONE;
        from
    }
}

/// Takes apart what stood in the output too early: the bytes that may leave all the same, and the packets that wait on by themselves. Of a
/// session that is not kept, what it is sent depends on nothing.
pub fn recall(bytes: &[u8], version: Version, is_kept: bool) -> (Vec<u8>, Vec<Waiting>) {
    let options = DecodeOptions {
        packet_bytes_max: u32::MAX,
        ..DecodeOptions::default()
    };
    let (mut free, mut waiting, mut rest) = (Vec::new(), Vec::new(), bytes);
    while let Ok(Some(length)) = frame_length(rest, u32::MAX) {
        let Some((packet, behind)) = rest.split_at_checked(length) else {
            break;
        };
        match decode(packet, Some(version), Role::Client, &options) {
            Ok(Some((decoded, _))) if let Some(packet) = waits(&decoded, is_kept) => waiting.push(packet),
            _ => free.extend_from_slice(packet),
        }
        rest = behind;
    }
    debug_assert!(rest.is_empty(), "what was written is whole packets");
    (free, waiting)
}

fn waits(packet: &Packet<'_>, is_kept: bool) -> Option<Waiting> {
    let reply = |kind, ack: &Ack<'_>| {
        Some(Waiting::Reply(Reply::Ack {
            kind,
            id: ack.packet_id,
            reason: ack.reason,
        }))
    };
    match packet {
        Packet::PubAck(ack) => reply(PacketType::PubAck, ack),
        Packet::PubRec(ack) => reply(PacketType::PubRec, ack),
        Packet::PubRel(ack) if is_kept => reply(PacketType::PubRel, ack),
        Packet::PubComp(ack) => reply(PacketType::PubComp, ack),
        Packet::Publish(publish) if is_kept && publish.qos == QoS::ExactlyOnce => {
            publish.packet_id.map(|id| Waiting::Publish(id, publish.dup))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::{encode, write_ack};
    use crate::protocol::ids::PacketId;
    use crate::protocol::packet::Publish;
    use crate::protocol::property::Properties;
    use crate::protocol::reason::ReasonCode;
    use crate::protocol::topic::TopicName;

    fn id(value: u16) -> PacketId {
        PacketId::new(value).unwrap()
    }

    fn publish(qos: QoS, version: Version) -> Vec<u8> {
        let mut bytes = Vec::new();
        let publish = Publish {
            dup: false,
            qos,
            retain: false,
            topic: Some(TopicName::parse("a/b").unwrap()),
            packet_id: qos.is_acknowledged().then_some(id(9)),
            properties: Properties::EMPTY,
            payload: b"x",
        };
        encode(&Packet::Publish(publish), version, &mut bytes).unwrap();
        bytes
    }

    #[test]
    fn what_depends_on_the_store_waits_and_the_rest_may_leave() {
        for version in [Version::V311, Version::V5] {
            let mut bytes = Vec::new();
            let acks = [
                PacketType::PubAck,
                PacketType::PubRec,
                PacketType::PubRel,
                PacketType::PubComp,
            ];
            for (kind, number) in acks.into_iter().zip(1..) {
                bytes.extend(publish(QoS::AtLeastOnce, version));
                write_ack(kind, id(number), ReasonCode::Success, version, &mut bytes);
            }
            bytes.extend(publish(QoS::ExactlyOnce, version));
            bytes.extend([0xD0, 0]);
            let (free, waiting) = recall(&bytes, version, true);
            let mut expected = publish(QoS::AtLeastOnce, version).repeat(4);
            expected.extend([0xD0, 0]);
            assert_eq!(free, expected);
            let reply = |(kind, number)| {
                Waiting::Reply(Reply::Ack {
                    kind,
                    id: id(number),
                    reason: ReasonCode::Success,
                })
            };
            let mut expected: Vec<_> = acks.into_iter().zip(1..).map(reply).collect();
            expected.push(Waiting::Publish(id(9), false));
            assert_eq!(waiting, expected);
        }
    }

    #[test]
    fn what_a_session_is_sent_that_is_not_kept_waits_for_nothing() {
        let mut bytes = publish(QoS::ExactlyOnce, Version::V5);
        write_ack(PacketType::PubRel, id(1), ReasonCode::Success, Version::V5, &mut bytes);
        let sent = bytes.clone();
        write_ack(PacketType::PubAck, id(2), ReasonCode::Success, Version::V5, &mut bytes);
        let (free, waiting) = recall(&bytes, Version::V5, false);
        assert_eq!(free, sent);
        assert_eq!(waiting.len(), 1, "a publisher's message is for others: {waiting:?}");
    }

    #[test]
    fn the_output_waits_for_one_batch_at_a_time() {
        let mut ahead = Ahead::NONE;
        let stored = |up_to: u64| move |ticket: Ticket| ticket.batch() <= up_to;
        assert!(ahead.begin(Ticket::of_batch(3), 10, stored(2)));
        assert!(ahead.begin(Ticket::of_batch(3), 70, stored(2)), "the same one");
        assert!(!ahead.begin(Ticket::of_batch(4), 90, stored(2)), "another one");
        assert_eq!(ahead.ticket(), Ticket::of_batch(3));
        assert_eq!(ahead.end(), 10, "where the first of them begins");
        assert!(ahead.begin(Ticket::of_batch(4), 0, stored(3)));
    }
}
