//! PUBACK, PUBREC, PUBREL, PUBCOMP, and the acknowledgements that go back.

use super::endings::Ending;
use super::worker::Worker;
use crate::codec::write_ack;
use crate::protocol::ids::{ConnectionKey, PacketId};
use crate::protocol::packet::{Ack, PacketType};
use crate::protocol::reason::ReasonCode;
use crate::protocol::time::Time;
use crate::session::outbound::Misfit;
use crate::session::replies::{Completed, Reply};
use crate::session::violation::Violation;
use crate::storage::{Record, Ticket};

impl Worker {
    pub(super) fn puback(&mut self, key: ConnectionKey, ack: &Ack<'_>, now: Time) {
        let Some((_, resident)) = self.residents.pair(key) else {
            return;
        };
        match resident.session.outbound.puback(ack.packet_id) {
            Ok(_) => self.window_moved(key, ack.reason, now),
            Err(misfit) => self.misfit(key, PacketType::PubAck, ack.packet_id, misfit, now),
        }
    }

    pub(super) fn pubrec(&mut self, key: ConnectionKey, ack: &Ack<'_>, now: Time) {
        let Some((connection, resident)) = self.residents.pair(key) else {
            return;
        };
        if ack.reason.is_error() {
            match resident.session.outbound.pubrec_refused(ack.packet_id) {
                Ok(_) => self.window_moved(key, ack.reason, now),
                Err(misfit) => self.misfit(key, PacketType::PubRec, ack.packet_id, misfit, now),
            }
            return;
        }
        match resident.session.outbound.pubrec(ack.packet_id) {
            // An unknown identifier is answered too: the client has lost its place, and PUBREL helps it on [MQTT-4.3.3-3].
            Ok(()) | Err(Misfit::Unknown) => {
                let version = connection.version;
                let tail = connection.output.tail();
                write_ack(PacketType::PubRel, ack.packet_id, ReasonCode::Success, version, tail);
                self.metrics().packets_sent.increment();
                self.residents.touch(key);
            }
            Err(misfit) => self.misfit(key, PacketType::PubRec, ack.packet_id, misfit, now),
        }
    }

    pub(super) fn pubcomp(&mut self, key: ConnectionKey, ack: &Ack<'_>, now: Time) {
        let Some((_, resident)) = self.residents.pair(key) else {
            return;
        };
        match resident.session.outbound.pubcomp(ack.packet_id) {
            Ok(()) => self.window_moved(key, ack.reason, now),
            Err(misfit) => self.misfit(key, PacketType::PubComp, ack.packet_id, misfit, now),
        }
    }

    /// PUBREL: the client will not send that message again; PUBCOMP also where nothing was known [MQTT-4.3.3-11].
    pub(super) fn pubrel(&mut self, key: ConnectionKey, ack: &Ack<'_>, now: Time) {
        let token = self.token(key);
        let Some((_, resident)) = self.residents.pair(key) else {
            return;
        };
        let was_known = resident.session.inbound.remove(ack.packet_id);
        let ticket = if was_known && resident.session.is_persistent() {
            let client_id = resident.session.client_id.clone();
            self.broker
                .store
                .append(&Record::Release(&client_id, ack.packet_id), token)
        } else {
            Ticket::Done
        };
        let reply = Reply::Ack {
            kind: PacketType::PubComp,
            id: ack.packet_id,
            reason: ReasonCode::Success,
        };
        self.reply(key, reply, ticket, token.sequence, now);
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
    pub(super) fn reply(&mut self, key: ConnectionKey, reply: Reply, ticket: Ticket, request: u32, now: Time) {
        self.residents.touch(key);
        let Some(connection) = self.residents.connections.get_mut(key.0) else {
            return;
        };
        let version = connection.version;
        match ticket {
            Ticket::Done if connection.replies.is_empty() => {
                reply.write(version, connection.output.tail());
                self.residents.metrics.packets_sent.increment();
            }
            Ticket::Done => connection.replies.push(reply, None),
            Ticket::Pending | Ticket::Failed => {
                if matches!(
                    reply,
                    Reply::Ack {
                        kind: PacketType::PubAck,
                        ..
                    }
                ) {
                    connection.unacknowledged += 1;
                }
                connection.replies.push(reply, Some(request));
                if ticket == Ticket::Failed {
                    self.stored(key, request, false, now);
                }
            }
        }
    }

    /// A storage ticket is done.
    pub(super) fn stored(&mut self, key: ConnectionKey, request: u32, is_stored: bool, now: Time) {
        self.residents.touch(key);
        let Some((connection, resident)) = self.residents.pair(key) else {
            return; // it has ended: nothing follows its last packet [MQTT-3.14.4-1]
        };
        let version = connection.version;
        let (completed, failed) = connection.replies.complete(request, is_stored, version);
        if let Some(Reply::Ack {
            kind: PacketType::PubRec,
            id,
            ..
        }) = failed
        {
            resident.session.inbound.remove(id); // what failed may be sent again, and is then no repetition
        }
        match completed {
            Completed::Unknown => {}
            Completed::Withheld => {
                let ending = Ending::Refused(ReasonCode::QuotaExceeded, "storage_failed");
                self.end_connection(key, ending, now);
            }
            Completed::Released => {
                let written = connection.replies.write_ready(version, connection.output.tail());
                connection.unacknowledged = connection.unacknowledged.saturating_sub(written.pubacks);
                self.residents.metrics.packets_sent.add(written.packets.into());
            }
        }
    }
}
