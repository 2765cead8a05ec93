//! PUBACK, PUBREC, PUBCOMP, and the acknowledgements that go back.

use super::endings::Ending;
use super::worker::Worker;
use crate::delivery::stored;
use crate::protocol::ids::{ConnectionKey, PacketId, Ticket};
use crate::protocol::packet::{Ack, PacketType};
use crate::protocol::reason::ReasonCode;
use crate::protocol::time::Time;
use crate::session::delivery::DeliveryKey;
use crate::session::held::{Reply, Waiting};
use crate::session::outbound::{Misfit, Outbound};
use crate::session::violation::Violation;

impl Worker {
    pub(super) fn puback(&mut self, key: ConnectionKey, ack: &Ack<'_>, now: Time) {
        let puback = |window: &mut Outbound| Ok(window.puback(ack.packet_id)?.and_then(|delivery| delivery.key()));
        self.end_delivery(key, PacketType::PubAck, ack, puback, now);
    }

    pub(super) fn pubrec(&mut self, key: ConnectionKey, ack: &Ack<'_>, now: Time) {
        if ack.reason.is_error() {
            let refused = |window: &mut Outbound| {
                let kept = window.pubrec_refused(ack.packet_id)?;
                Ok(kept.and_then(|delivery| delivery.key()))
            };
            return self.end_delivery(key, PacketType::PubRec, ack, refused, now);
        }
        let Some((_, resident, journal)) = self.residents.pair_and_journal(key) else {
            return;
        };
        // PUBREL leaves when it is kept that PUBREC came: the message is not sent again then, whatever happens.
        let ticket = match resident.session.outbound.pubrec(ack.packet_id) {
            Ok((true, known)) if stored::released(journal, &resident.session, known, ack.packet_id) => {
                journal.open_ticket()
            }
            Ok((false, Some(_))) => journal.latest(),
            // An unknown identifier is answered too: the client has lost its place, and PUBREL helps it on [MQTT-4.3.3-3].
            Ok(_) | Err(Misfit::Unknown) => Ticket::DONE,
            Err(misfit) => return self.misfit(key, PacketType::PubRec, ack.packet_id, misfit, now),
        };
        let reply = Reply::Ack {
            kind: PacketType::PubRel,
            id: ack.packet_id,
            reason: ReasonCode::Success,
        };
        self.reply(key, reply, ticket);
    }

    pub(super) fn pubcomp(&mut self, key: ConnectionKey, ack: &Ack<'_>, now: Time) {
        let pubcomp = |window: &mut Outbound| window.pubcomp(ack.packet_id);
        self.end_delivery(key, PacketType::PubComp, ack, pubcomp, now);
    }

    /// The client's last word on a delivery: `finish` takes it out of the window, and what waits behind it may follow.
    #[inline]
    fn end_delivery(
        &mut self,
        key: ConnectionKey,
        kind: PacketType,
        ack: &Ack<'_>,
        finish: impl FnOnce(&mut Outbound) -> Result<Option<DeliveryKey>, Misfit>,
        now: Time,
    ) {
        let Some((connection, resident, journal)) = self.residents.pair_and_journal(key) else {
            return;
        };
        let slot = connection.session;
        let outbound = &mut resident.session.outbound;
        let known = match finish(outbound) {
            Ok(known) => known,
            Err(misfit) => return self.misfit(key, kind, ack.packet_id, misfit, now),
        };
        let (in_flight, has_resend) = (outbound.in_flight(), outbound.has_resend());
        resident.session.status.set_in_flight(in_flight.into());
        stored::ended_key(journal, &resident.session, known);
        let has_more = has_resend || !resident.outbox.is_empty() || !resident.walks.is_empty();
        if ack.reason.is_error() {
            self.metrics().dropped_rejected.increment();
        }
        if let Some(slot) = slot.filter(|_| has_more) {
            self.continue_delivery(slot, now);
        }
    }

    fn misfit(&mut self, key: ConnectionKey, kind: PacketType, id: PacketId, misfit: Misfit, now: Time) {
        // An unknown identifier is a late answer to something that was settled: harmless.
        if misfit == Misfit::Wrong {
            self.end_connection(key, Ending::Violation(Violation::WrongAcknowledgement(kind, id)), now);
        }
    }

    /// Sends an acknowledgement when its ticket, and all before it, are done.
    #[inline]
    pub(super) fn reply(&mut self, key: ConnectionKey, reply: Reply, ticket: Ticket) {
        self.residents.touch(key);
        let is_stored = self.residents.journal.is_stored(ticket);
        let Some(connection) = self.residents.connections.get_mut(key.0) else {
            return;
        };
        let may_write = if is_stored {
            connection.held.lets_pass(&reply)
        } else {
            let (journal, held) = (&self.residents.journal, &mut self.residents.held);
            matches!(reply, Reply::Ack { .. }) && stored::may_write(key, connection, ticket, journal, held)
        };
        if may_write {
            reply.write(connection.version, connection.output.tail());
            self.residents.metrics.packets_sent.increment();
            return;
        }
        if let Reply::Ack {
            kind: PacketType::PubAck,
            ..
        } = reply
        {
            connection.unacknowledged += 1;
        }
        stored::hold(key, connection, Waiting::Reply(reply), ticket, &mut self.residents.held);
    }
}
