//! PUBACK, PUBREC, PUBCOMP, and the acknowledgements that go back.

use super::endings::Ending;
use super::worker::Worker;
use crate::delivery::residents::Residents;
use crate::delivery::stored;
use crate::protocol::ids::{ConnectionKey, PacketId, Ticket};
use crate::protocol::packet::{Ack, PacketType};
use crate::protocol::reason::ReasonCode;
use crate::protocol::time::Time;
use crate::session::delivery::DeliveryKey;
use crate::session::held::{Reply, Waiting};
use crate::session::outbound::Misfit;
use crate::session::violation::Violation;

impl Worker {
    pub(super) fn puback(&mut self, key: ConnectionKey, ack: &Ack<'_>, now: Time) {
        let Some((_, resident)) = self.residents.pair(key) else {
            return;
        };
        match resident.session.outbound.puback(ack.packet_id) {
            Ok(kept) => {
                self.delivery_ended(key, kept.and_then(|delivery| delivery.key()));
                self.window_moved(key, ack.reason, now);
            }
            Err(misfit) => self.misfit(key, PacketType::PubAck, ack.packet_id, misfit, now),
        }
    }

    pub(super) fn pubrec(&mut self, key: ConnectionKey, ack: &Ack<'_>, now: Time) {
        let Residents {
            connections,
            sessions,
            journal,
            ..
        } = &mut self.residents;
        let slot = connections.get(key.0).and_then(|connection| connection.session);
        let Some(resident) = slot.and_then(|slot| sessions.get_mut(slot)) else {
            return;
        };
        if ack.reason.is_error() {
            match resident.session.outbound.pubrec_refused(ack.packet_id) {
                Ok(kept) => {
                    self.delivery_ended(key, kept.and_then(|delivery| delivery.key()));
                    self.window_moved(key, ack.reason, now);
                }
                Err(misfit) => self.misfit(key, PacketType::PubRec, ack.packet_id, misfit, now),
            }
            return;
        }
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
        let Some((_, resident)) = self.residents.pair(key) else {
            return;
        };
        match resident.session.outbound.pubcomp(ack.packet_id) {
            Ok(known) => {
                self.delivery_ended(key, known);
                self.window_moved(key, ack.reason, now);
            }
            Err(misfit) => self.misfit(key, PacketType::PubComp, ack.packet_id, misfit, now),
        }
    }

    fn delivery_ended(&mut self, key: ConnectionKey, known: Option<DeliveryKey>) {
        let Residents {
            connections,
            sessions,
            journal,
            ..
        } = &mut self.residents;
        let slot = connections.get(key.0).and_then(|connection| connection.session);
        if let Some(resident) = slot.and_then(|slot| sessions.get(slot)) {
            stored::ended_key(journal, &resident.session, known);
        }
    }

    fn window_moved(&mut self, key: ConnectionKey, reason: ReasonCode, now: Time) {
        if reason.is_error() {
            self.metrics().dropped_rejected.increment();
        }
        let Some((connection, resident)) = self.residents.pair(key) else {
            return;
        };
        resident
            .session
            .status
            .set_in_flight(resident.session.outbound.in_flight().into());
        let slot = connection.session;
        if let Some(slot) = slot
            && !(resident.outbox.is_empty() && resident.walks.is_empty() && !resident.session.outbound.has_resend())
        {
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
        if is_stored && connection.held.lets_pass(&reply) {
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
