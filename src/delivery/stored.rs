//! What the store is told of deliveries, and what waits until it has it.

use std::collections::VecDeque;

use smallvec::SmallVec;

use super::fan_out::{DeliveryForm, Purpose};
use super::frames::Fanned;
use crate::protocol::ids::{ConnectionKey, MessageNumber, PacketId, SessionNumber, Ticket};
use crate::protocol::qos::QoS;
use crate::session::connection::Connection;
use crate::session::delivery::{Delivery, DeliveryKey};
use crate::session::held::Waiting;
use crate::session::state::Session;
use crate::storage::record::{DeliveryHead, DeliveryRecord, MessageRecord, Progress};
use crate::storage::{Journal, Record};

/// Connections with something that waits for a batch, by batch.
pub type HeldConnections = VecDeque<(Ticket, ConnectionKey)>;

/// Lets a packet wait for a ticket, behind what waits already.
pub fn hold(
    key: ConnectionKey,
    connection: &mut Connection,
    packet: Waiting,
    ticket: Ticket,
    held: &mut HeldConnections,
) {
    connection.held.push(packet, ticket);
    if ticket > connection.held_for {
        connection.held_for = ticket;
        held.push_back((ticket, key));
    }
}

/// True when a packet that depends on a ticket may be written: the store has what it depends on, or is quick, and then the output waits
/// (`session/ahead.rs`). False where the packet has to wait by itself.
#[inline]
pub fn may_write(
    key: ConnectionKey,
    connection: &mut Connection,
    ticket: Ticket,
    journal: &Journal,
    held: &mut HeldConnections,
) -> bool {
    if !connection.held.is_empty() {
        return false;
    }
    if journal.is_stored(ticket) {
        return true;
    }
    let length = connection.output.len();
    if !journal.is_quick
        || !connection
            .ahead
            .begin(ticket, length, |ticket| journal.is_stored(ticket))
    {
        return false;
    }
    if ticket > connection.held_for {
        connection.held_for = ticket;
        held.push_back((ticket, key));
    }
    true
}

/// A delivery from a publication that is being routed is sent with that identifier; false where the store does not keep it.
pub(super) fn sent_now(
    journal: &mut Journal,
    session: &Session,
    fanned: &Fanned<'_>,
    form: DeliveryForm<'_>,
    id: PacketId,
) -> bool {
    routed_now(journal, session, fanned, form, Progress::Sent(id))
}

/// A delivery from a publication that is being routed waits in the outbox.
pub(super) fn queued_now(journal: &mut Journal, session: &Session, fanned: &Fanned<'_>, form: DeliveryForm<'_>) {
    routed_now(journal, session, fanned, form, Progress::Queued);
}

fn routed_now(
    journal: &mut Journal,
    session: &Session,
    fanned: &Fanned<'_>,
    form: DeliveryForm<'_>,
    progress: Progress,
) -> bool {
    let (Some(session), Some(message)) = (session.stored_number(), fanned.number()) else {
        return false;
    };
    if let (Purpose::Own(0), [], false) = (form.purpose, &form.receiver.identifiers[..], fanned.is_recorded) {
        journal.add_delivery_head(DeliveryHead {
            session,
            progress,
            qos: form.qos,
            retain: form.retain,
        });
        return true;
    }
    let delivery = DeliveryRecord {
        session,
        copy: form.purpose.copy(),
        progress,
        qos: form.qos,
        retain: form.retain,
        identifiers: SmallVec::from_slice(&form.receiver.identifiers),
        group: form
            .purpose
            .group()
            .map(|group| (&*group.name.group, &*group.name.filter)),
    };
    if fanned.is_recorded {
        journal.record(&Record::Delivery(message, delivery));
    } else {
        journal.add_delivery(&delivery);
    }
    true
}

/// A kept delivery as the store knows it.
pub fn record<'a>(session: &Session, delivery: &'a Delivery, progress: Progress) -> Option<DeliveryRecord<'a>> {
    Some(DeliveryRecord {
        session: session.stored_number()?,
        copy: delivery.copy,
        progress,
        qos: delivery.qos,
        retain: delivery.retain,
        identifiers: SmallVec::from_slice(&delivery.identifiers),
        group: delivery.group.as_ref().map(|name| (&*name.group, &*name.filter)),
    })
}

/// A delivery that waited is sent with that identifier. `is_new` where the store has not heard of it: a retained message, which it gets
/// with its content. False where the store does not keep it.
pub(super) fn sent(journal: &mut Journal, session: &Session, delivery: &Delivery, id: PacketId, is_new: bool) -> bool {
    let Some(number) = delivery.message.number.filter(|_| journal.is_on()) else {
        return false;
    };
    let Some(record) = record(session, delivery, Progress::Sent(id)) else {
        return false;
    };
    if is_new {
        journal.begin_message();
        journal.add_delivery(&record);
        let view = delivery.message.view();
        journal.end_message(&MessageRecord::of(number, &view));
    } else {
        journal.record(&Record::Delivery(number, record));
    }
    true
}

/// A QoS 2 delivery was received by its client; false where the store does not keep it.
pub fn released(journal: &mut Journal, session: &Session, key: Option<DeliveryKey>, id: PacketId) -> bool {
    let (Some((message, copy)), Some(session)) = (key, session.stored_number()) else {
        return false;
    };
    let delivery = released_record(session, copy, id);
    journal.record(&Record::Delivery(message, delivery));
    true
}

/// A QoS 2 delivery that its client has received: what it was does not matter any more.
pub fn released_record(session: SessionNumber, copy: u16, id: PacketId) -> DeliveryRecord<'static> {
    DeliveryRecord {
        session,
        copy,
        progress: Progress::Released(id),
        qos: QoS::ExactlyOnce,
        retain: false,
        identifiers: SmallVec::new(),
        group: None,
    }
}

/// A delivery is over.
pub fn ended(journal: &mut Journal, session: &Session, message: Option<MessageNumber>, copy: u16) {
    if let (Some(message), Some(session)) = (message, session.stored_number()) {
        journal.record(&Record::DeliveryEnded(message, session, copy));
    }
}

/// A kept delivery is over.
pub fn ended_key(journal: &mut Journal, session: &Session, key: Option<DeliveryKey>) {
    if let Some((message, copy)) = key {
        ended(journal, session, Some(message), copy);
    }
}
