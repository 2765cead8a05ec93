//! QoS 2 messages that are delivered at PUBREL (method A of MQTT 5 section 4.3.3), and PUBREL.
//!
//! Until its publisher releases it, such a message is a part of the publisher's session: it is kept and recorded there, PUBREC leaves
//! when it is safe, and nobody else has seen it. A session that ends takes it along.

use tracing::warn;

use super::publish::Full;
use super::worker::Worker;
use crate::auth::Access;
use crate::protocol::ids::{ConnectionKey, PacketId, SessionKey, SlotKey, Ticket};
use crate::protocol::message::{Message, Publication};
use crate::protocol::packet::{Ack, PacketType, Publish};
use crate::protocol::reason::ReasonCode;
use crate::protocol::time::Time;
use crate::session::connection::Connection;
use crate::session::held::Reply;
use crate::storage::Record;
use crate::storage::record::UnreleasedRecord;

impl Worker {
    /// Keeps a QoS 2 message that was allowed, until it is released.
    pub(super) fn keep_unreleased(
        &mut self,
        key: ConnectionKey,
        publish: &Publish<'_>,
        id: PacketId,
        publication: &Publication<'_>,
        now: Time,
    ) {
        let bytes_max = self.broker.options.delivery.outbox.unstored_bytes_max;
        let Some((connection, resident)) = self.residents.pair(key) else {
            return;
        };
        let session = &mut resident.session;
        let message = publication.to_message();
        if session.unreleased.bytes() + message.cost_bytes() > bytes_max {
            self.log
                .unreleased_full(connection, session.unreleased.bytes(), bytes_max, now);
            self.metrics().limit_unreleased_bytes.increment();
            self.metrics().publish_refused.increment();
            return self.refuse_full(key, publish, Full::Unreleased, now);
        }
        session.inbound.insert(id);
        session.unreleased.insert(id, message);
        let number = session.stored_number();
        let ticket = number.map_or(Ticket::DONE, |session| {
            let record = UnreleasedRecord::of(session, id, publication);
            self.residents.journal.record(&Record::Unreleased(record))
        });
        self.acknowledge(key, publish, ReasonCode::Success, ticket);
    }

    /// An identifier came again, not as a repetition: its client has lost its place and begins anew with it. The message that it would
    /// have released is forgotten.
    pub(super) fn forget_unreleased(&mut self, key: ConnectionKey, id: PacketId) {
        let Some((_, resident)) = self.residents.pair(key) else {
            return;
        };
        let session = &mut resident.session;
        session.inbound.remove(id);
        session.unreleased.remove(id);
        if let Some(number) = session.stored_number() {
            self.residents.journal.record(&Record::ReceivedEnded(number, id));
        }
    }

    /// PUBREL: the client will not send that message again; PUBCOMP also where nothing was known [MQTT-4.3.3-11].
    pub(super) fn pubrel(&mut self, key: ConnectionKey, ack: &Ack<'_>, now: Time) {
        let Some((connection, resident)) = self.residents.pair(key) else {
            return;
        };
        let slot = connection.session;
        let was_known = resident.session.inbound.remove(ack.packet_id);
        let message = resident.session.unreleased.remove(ack.packet_id);
        let number = resident.session.stored_number();
        let message = message.filter(|message| self.may_release(key, message, now));
        let routed = match (message, slot) {
            (Some(message), Some(slot)) => self.release_message(slot, &message, now),
            _ => Ticket::DONE,
        };
        // In the batch in which the message was given to its receivers: it is there once, whenever the broker stops.
        let journal = &mut self.residents.journal;
        let ticket = match number {
            Some(session) if was_known => journal.record(&Record::ReceivedEnded(session, ack.packet_id)),
            Some(_) => journal.latest(),
            None => routed,
        };
        let reply = Reply::Ack {
            kind: PacketType::PubComp,
            id: ack.packet_id,
            reason: ReasonCode::Success,
        };
        self.reply(key, reply, ticket);
    }

    /// May its client still publish it? It was allowed when it came, which may be long ago.
    fn may_release(&mut self, key: ConnectionKey, message: &Message, now: Time) -> bool {
        let token = self.token(key);
        let Some(connection) = self.residents.connections.get(key.0) else {
            return false;
        };
        let (who, topic) = (Access::of(connection), message.topic());
        let authorizer = &self.broker.authorizer;
        if !connection.is_restricted || !authorizer.forbids(&who, topic, message.qos, message.retain, token) {
            return true;
        }
        self.log
            .not_allowed(connection, "publish", message.topic().as_str(), now);
        self.metrics().dropped_not_authorized.increment();
        false
    }

    /// Routes a message that was released. It was accepted before: nobody can be told now that there is no room for it.
    fn release_message(&mut self, slot: SlotKey, message: &Message, now: Time) -> Ticket {
        if message.is_expired(now) {
            self.metrics().dropped_expired.increment();
            return Ticket::DONE;
        }
        let publication = Publication {
            publisher: Some(SessionKey {
                worker: self.me,
                key: slot,
            }),
            ..message.view()
        };
        self.route(&publication, now)
    }
}

impl super::endings::EventLog {
    /// Told once a minute for each client.
    fn unreleased_full(&mut self, connection: &Connection, bytes: usize, bytes_max: usize, now: Time) {
        if let Some(repeated) = self.record(&(connection.client_name(), "unreleased"), now) {
            warn!(
                client = connection.client_name(),
                bytes,
                bytes_max,
                repeated = (repeated > 0).then_some(repeated),
                "message refused: too much of its client waits to be released"
            );
        }
    }
}
