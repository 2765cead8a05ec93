//! From "who wants it" to "his queue": one publication to the receivers that live on this worker.

use std::sync::Arc;

use smallvec::SmallVec;

use super::buffers::Buffers;
use super::frames::{Addressing, Fanned};
use super::outbox::Offered;
use super::residents::{DeliveryOptions, Resident, Residents, record_too_large, touch};
use super::stored::{self, HeldConnections};
use super::written::write_delivery;
use crate::metrics::Metrics;
use crate::protocol::ids::{ConnectionKey, PacketId};
use crate::protocol::qos::QoS;
use crate::protocol::time::Time;
use crate::router::shared::SharedGroup;
use crate::router::{NoLocal, Receiver};
use crate::session::connection::Connection;
use crate::session::delivery::Delivery;
use crate::session::held::Waiting;
use crate::session::state::Session;
use crate::storage::Journal;

/// What became of one delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivered {
    /// Written to the connection or waiting in the outbox, or rightly left out (QoS 0 for a client that is away).
    Taken,
    /// The session is gone.
    Gone,
    /// The session's outbox refused it.
    Refused,
    /// Its client may not receive it.
    Forbidden,
}

/// For whose sake a session gets a message.
#[derive(Clone, Copy, Debug)]
pub enum Purpose<'a> {
    /// Its own: it subscribes. With the number of its deliveries before this one, where overlapping subscriptions make several.
    Own(u16),
    /// A shared group's, of which it is the chosen member.
    Group(&'a Arc<SharedGroup>),
}

impl<'a> Purpose<'a> {
    /// Tells apart several deliveries of one message to one session.
    #[inline]
    pub fn copy(self) -> u16 {
        match self {
            Self::Own(copy) => copy,
            Self::Group(group) => group.copy(),
        }
    }

    /// The shared group.
    #[inline]
    pub const fn group(self) -> Option<&'a Arc<SharedGroup>> {
        match self {
            Self::Own(_) => None,
            Self::Group(group) => Some(group),
        }
    }
}

/// One delivery as it is made from a publication.
#[derive(Clone, Copy, Debug)]
pub(super) struct DeliveryForm<'a> {
    pub(super) receiver: &'a Receiver,
    pub(super) qos: QoS,
    pub(super) retain: bool,
    pub(super) purpose: Purpose<'a>,
}

/// What became of a publication on this worker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Receivers that took it.
    pub taken: u32,
    /// Receivers whose outbox refused it.
    pub refused: u32,
}

impl Residents {
    /// Delivers to every receiver in the list. The publisher itself is left out where all its subscriptions say No Local; where only
    /// some do, `own` gives the receiver that the others make.
    pub fn fan_out(
        &mut self,
        fanned: &mut Fanned<'_>,
        receivers: &[Receiver],
        own: impl Fn() -> Option<Receiver>,
        now: Time,
    ) -> Tally {
        let mut tally = Tally::default();
        let publisher = fanned.publication.publisher;
        let (mut last, mut copy) = (None, 0);
        for receiver in receivers {
            // Overlapping subscriptions may make several deliveries; those of one session stand together.
            copy = if last == Some(receiver.session) { copy + 1 } else { 0 };
            last = Some(receiver.session);
            let delivered = if receiver.no_local != NoLocal::Never && publisher == Some(receiver.session) {
                if receiver.no_local == NoLocal::All {
                    continue;
                }
                match own() {
                    Some(receiver) => self.deliver(fanned, &receiver, Purpose::Own(copy), now),
                    None => continue,
                }
            } else {
                self.deliver(fanned, receiver, Purpose::Own(copy), now)
            };
            match delivered {
                Delivered::Taken => tally.taken += 1,
                Delivered::Refused if publisher == Some(receiver.session) && self.has_no_reason_codes(receiver) => {}
                Delivered::Refused => tally.refused += 1,
                Delivered::Gone | Delivered::Forbidden => {}
            }
        }
        tally
    }

    /// A client before MQTT 5 that publishes to itself faster than it reads is not refused, its message is dropped: it can be told
    /// only by the end of the connection, would send the same again, and never come to empty its queue.
    fn has_no_reason_codes(&self, receiver: &Receiver) -> bool {
        let key = self
            .sessions
            .get(receiver.session.key)
            .and_then(|resident| resident.connection);
        let connection = key.and_then(|key| self.connections.get(key.0));
        connection.is_some_and(|connection| !connection.version.has_properties())
    }

    /// Delivers to one receiver on this worker.
    #[inline]
    pub fn deliver(
        &mut self,
        fanned: &mut Fanned<'_>,
        receiver: &Receiver,
        purpose: Purpose<'_>,
        now: Time,
    ) -> Delivered {
        let Some(resident) = self.sessions.get_mut(receiver.session.key) else {
            return Delivered::Gone;
        };
        if fanned.publication.retain && !resident.outbox.is_none() {
            resident.outbox.forget_replay_of(fanned.publication.topic);
        }
        let qos = receiver.qos.min(fanned.publication.qos);
        let form = DeliveryForm {
            receiver,
            qos,
            retain: receiver.retain_as_published && fanned.publication.retain,
            purpose,
        };
        let key = resident.connection;
        let Some((key, connection)) = key.and_then(|key| Some((key, self.connections.get_mut(key.0)?))) else {
            // QoS 0 for a client that is away may be left out [MQTT-3.1.2-5].
            let may_queue = qos.is_acknowledged() || self.options.outbox.queue_qos0_offline;
            if !may_queue || !resident.session.is_persistent() {
                return Delivered::Taken;
            }
            return self.queue(fanned, form, now);
        };
        if !self.receive.allows(connection, fanned.publication.topic) {
            self.metrics.dropped_not_readable.increment();
            if purpose.group().is_none() {
                end_recorded(fanned, &mut self.journal, &resident.session, purpose);
            }
            return Delivered::Forbidden;
        }
        if connection.is_bridge && fanned.publication.publisher == Some(receiver.session) {
            return Delivered::Taken;
        }
        if !may_write(connection, resident, qos, &self.options) {
            return self.queue(fanned, form, now);
        }
        let mut to = Addressing {
            version: connection.version,
            qos,
            retain: form.retain,
            packet_id: qos.is_acknowledged().then_some(PacketId::FIRST),
            identifiers: &receiver.identifiers,
            hidden_bytes: connection.hidden_bytes(fanned.publication.topic),
        };
        let sender = Sender {
            key,
            journal: &mut self.journal,
            held: &mut self.held,
            touched: &mut self.touched,
            buffers: &mut self.buffers,
            metrics: &self.metrics,
            now,
        };
        if connection.packet_bytes_max != u32::MAX && fanned.encoded_len(to) > connection.packet_bytes_max as usize {
            sender.leave_out(connection, &mut resident.session, fanned, form);
            return Delivered::Taken;
        }
        to.packet_id = qos.is_acknowledged().then(|| resident.session.outbound.next_id());
        sender.send(connection, &mut resident.session, fanned, form, to);
        Delivered::Taken
    }

    fn queue(&mut self, fanned: &mut Fanned<'_>, form: DeliveryForm<'_>, now: Time) -> Delivered {
        let delivery = delivery(fanned, form);
        let slot = form.receiver.session.key;
        // What a policy that was asked for drops is counted, and nobody's failure.
        let offered = self.enqueue(slot, delivery, fanned.is_promised, now);
        let is_queued = matches!(offered, Offered::Queued | Offered::QueuedAfterDropping(_));
        if form.qos.is_acknowledged()
            && let Some(resident) = self.sessions.get(slot)
        {
            let (journal, session) = (&mut self.journal, &resident.session);
            match (is_queued, fanned.is_recorded) {
                (true, false) => stored::queued_now(journal, session, fanned, form),
                (false, true) if offered != Offered::Refused => {
                    stored::ended(journal, session, fanned.number(), form.purpose.copy());
                }
                _ => {}
            }
        }
        match offered {
            Offered::Refused => Delivered::Refused,
            _ => Delivered::Taken,
        }
    }
}

/// Whether there is nothing to wait for: the connection is there, has room, and nobody is in line before.
#[inline]
fn may_write(connection: &Connection, resident: &Resident, qos: QoS, options: &DeliveryOptions) -> bool {
    let window = connection.receive_maximum.min(options.in_flight_max);
    connection.is_ready()
        && connection.output.len() < options.output_bytes_max
        && resident.outbox.is_clear_for(qos)
        && (!qos.is_acknowledged() || resident.session.outbound.has_room(window))
}

/// Records that a delivery is over which another worker has recorded as queued.
fn end_recorded(fanned: &Fanned<'_>, journal: &mut Journal, session: &Session, purpose: Purpose<'_>) {
    if fanned.is_recorded {
        stored::ended(journal, session, fanned.number(), purpose.copy());
    }
}

/// What sending to a connection takes beside the connection and its session.
struct Sender<'a> {
    key: ConnectionKey,
    journal: &'a mut Journal,
    held: &'a mut HeldConnections,
    touched: &'a mut Vec<ConnectionKey>,
    buffers: &'a mut Buffers,
    metrics: &'a Metrics,
    now: Time,
}

impl Sender<'_> {
    /// Drops a delivery that is too large for its client.
    #[cold]
    fn leave_out(
        self,
        connection: &mut Connection,
        session: &mut Session,
        fanned: &Fanned<'_>,
        form: DeliveryForm<'_>,
    ) {
        record_too_large(connection, fanned.publication.topic.as_str(), self.metrics);
        if form.qos.is_acknowledged() {
            session.outbound.leave_out();
        }
        if fanned.is_recorded {
            stored::ended(self.journal, session, fanned.number(), form.purpose.copy());
        }
    }

    /// Sends a delivery for which there is room.
    #[inline]
    fn send(
        self,
        connection: &mut Connection,
        session: &mut Session,
        fanned: &mut Fanned<'_>,
        form: DeliveryForm<'_>,
        to: Addressing<'_>,
    ) {
        let must_be_kept_first = match to.packet_id {
            // It leaves when it is known to be kept that it did: a repetition after a crash has the same identifier then.
            Some(id) => stored::sent_now(self.journal, session, fanned, form, id) && form.qos == QoS::ExactlyOnce,
            None => false,
        };
        let mut kept = None;
        let ticket = self.journal.open_ticket();
        let must_wait = must_be_kept_first
            && !(connection.aliases_out.is_off()
                && stored::may_write(self.key, connection, ticket, self.journal, self.held));
        if let (true, Some(id)) = (must_wait, to.packet_id) {
            stored::hold(self.key, connection, Waiting::Publish(id, false), ticket, self.held);
        } else {
            touch(self.key, connection, self.touched, self.buffers);
            self.metrics
                .count_publish_sent(form.qos, fanned.publication.payload.len());
            if connection.aliases_out.is_off() {
                fanned.write(to, &mut connection.output);
            } else {
                let delivery = kept.insert(delivery(fanned, form));
                write_delivery(connection, delivery, to.packet_id, false, self.now);
            }
        }
        if form.qos.is_acknowledged() {
            let is_kept = session.is_persistent() || form.purpose.group().is_some();
            let kept = is_kept.then(|| kept.unwrap_or_else(|| delivery(fanned, form)));
            session.outbound.send(form.qos, kept);
            session.status.set_in_flight(session.outbound.in_flight().into());
        }
    }
}

fn delivery(fanned: &mut Fanned<'_>, form: DeliveryForm<'_>) -> Delivery {
    Delivery {
        message: Arc::clone(fanned.kept()),
        qos: form.qos,
        retain: form.retain,
        identifiers: SmallVec::from_slice(&form.receiver.identifiers), // a clone goes one by one
        group: form.purpose.group().map(|group| Arc::clone(&group.name)),
        copy: form.purpose.copy(),
    }
}
