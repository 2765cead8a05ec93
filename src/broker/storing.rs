//! The broker and its store: what workers record of sessions and wills, and what they do when the store tells them something.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};

use super::endings::Ending;
use super::mail::{Mail, StoreMail};
use super::sys::is_sys;
use super::worker::Worker;
use super::{Broker, read};
use crate::delivery::residents::{Released, Resident, Residents};
use crate::delivery::retained_walk::RetainedWalk;
use crate::delivery::stored;
use crate::protocol::ids::{ConnectionKey, MessageNumber, SessionNumber, SlotKey, Ticket, WorkerId};
use crate::protocol::message::{Message, Publication};
use crate::protocol::mount::Mount;
use crate::protocol::qos::QoS;
use crate::protocol::reason::ReasonCode;
use crate::protocol::time::Time;
use crate::session::ahead::recall;
use crate::session::delivery::Delivery;
use crate::session::held::{Failed, Waiting};
use crate::session::state::Session;
use crate::session::will::Will;
use crate::storage::record::{
    Content, MessageRecord, Progress, SessionRecord, SubscriptionRecord, UnreleasedRecord, WillRecord,
};
use crate::storage::{Record, RetainedCursor, RetainedPart, SnapshotId, Standing, StoreEvents};

/// How long a client that was refused because the store cannot write is left waiting before its connection ends: it will try the same
/// again at once. Milliseconds.
const END_LATE_MS: u64 = 2_000;
/// Retained messages that are given to a snapshot at once: their store is locked for writers meanwhile.
const RETAINED_AT_ONCE: usize = 32;
/// The same in bytes.
const RETAINED_BYTES_AT_ONCE: usize = 16 * 1024;

impl Worker {
    /// While the store cannot write: true when this publication is one that it would have to keep.
    pub(super) fn refuses_to_store(&mut self, publication: &Publication<'_>, is_received_kept: bool) -> bool {
        if is_received_kept || publication.retain {
            return true;
        }
        let broker = &self.broker;
        let matched = self.cache.resolve(publication.topic, || {
            read(&broker.subscriptions).matches(publication.topic)
        });
        let shared = matched.groups.iter().flat_map(|group| group.members());
        matched
            .receivers()
            .chain(shared)
            .any(|receiver| receiver.qos > QoS::AtMostOnce && receiver.status.stored_number().is_some())
    }

    /// Ends a connection after a while, in which nothing more is read of it.
    pub(super) fn end_late(&mut self, key: ConnectionKey, now: Time) {
        let at = now.plus_millis(END_LATE_MS);
        if let Some(connection) = self.residents.connections.get_mut(key.0) {
            connection.ends_at = connection.ends_at.min(at);
            self.remind(key, at);
        }
    }

    /// Records how a session stands that a client has just been given, with its will.
    pub(super) fn record_session(&mut self, key: ConnectionKey, slot: SlotKey) {
        let Residents {
            connections,
            sessions,
            journal,
            ..
        } = &mut self.residents;
        let (Some(connection), Some(resident)) = (connections.get(key.0), sessions.get_mut(slot)) else {
            return;
        };
        let session = &mut resident.session;
        if !journal.is_on() {
            return;
        }
        if session.number.is_none() && (session.is_persistent() || connection.will.is_some()) {
            session.number = journal.session_number();
            session.created = journal.open_ticket();
        }
        let Some(record) = session_record(session) else { return };
        let number = record.session;
        journal.record(&Record::Session(record));
        session.status.set_stored_number(session.stored_number());
        if let Some(will) = &connection.will {
            session.has_stored_will = true;
            journal.record(&Record::Will(will_record(number, will, Time::NEVER)));
        } else if std::mem::take(&mut session.has_stored_will) {
            journal.record(&Record::WillEnded(number));
        }
    }

    /// Records when a session whose client has gone expires.
    pub(super) fn record_expiry(&mut self, slot: SlotKey) {
        let Residents { sessions, journal, .. } = &mut self.residents;
        if let Some(resident) = sessions.get(slot)
            && let Some(record) = session_record(&resident.session)
        {
            journal.record(&Record::Session(record));
        }
    }

    /// Records that a will waits for its delay.
    pub(super) fn record_pending_will(&mut self, slot: SlotKey) {
        let Residents { sessions, journal, .. } = &mut self.residents;
        if let Some(resident) = sessions.get_mut(slot)
            && let (Some(number), Some((will, due))) = (resident.session.number, &resident.session.pending_will)
        {
            resident.session.has_stored_will = true;
            journal.record(&Record::Will(will_record(number, will, *due)));
        }
    }

    /// Records that a session's will was published or removed.
    pub(super) fn record_will_ended(&mut self, slot: SlotKey) {
        let Residents { sessions, journal, .. } = &mut self.residents;
        if let Some(resident) = sessions.get_mut(slot)
            && std::mem::take(&mut resident.session.has_stored_will)
            && let Some(number) = resident.session.number
        {
            journal.record(&Record::WillEnded(number));
        }
    }

    /// A client has come back: the will that an unclean stop of the broker left pending is not published.
    pub(super) fn forget_former_will(&mut self, slot: SlotKey) {
        if let Some(resident) = self.residents.sessions.get_mut(slot)
            && std::mem::take(&mut resident.session.is_will_former)
            && resident.session.pending_will.take().is_some()
        {
            self.residents.metrics.wills_pending.decrement();
            self.record_will_ended(slot);
        }
    }

    /// Records that a delivery was given to another member of its shared group.
    pub(super) fn record_moved(&mut self, slot: SlotKey, delivery: &Delivery) {
        let Residents { sessions, journal, .. } = &mut self.residents;
        if let Some(resident) = sessions.get(slot) {
            stored::ended_key(journal, &resident.session, delivery.key());
        }
    }

    /// Records that a delivery which was in flight, or waited, waits again.
    pub(super) fn record_queued_again(&mut self, slot: SlotKey, delivery: &Delivery) {
        let Residents { sessions, journal, .. } = &mut self.residents;
        if let Some(resident) = sessions.get(slot)
            && let Some(number) = delivery.message.number
            && let Some(record) = stored::record(&resident.session, delivery, Progress::Queued)
        {
            journal.record(&Record::Delivery(number, record));
        }
    }

    /// The store tells something.
    pub(super) fn handle_store_mail(&mut self, mail: StoreMail, now: Time) {
        match mail {
            StoreMail::Stored(up_to) => self.batches_stored(up_to, now),
            StoreMail::Failed(up_to) => self.batches_failed(up_to, now),
            StoreMail::Snapshot(snapshot) => self.begin_snapshot(snapshot),
            StoreMail::SnapshotMore(snapshot) => self.continue_snapshot(snapshot),
            StoreMail::Loaded(slot, messages) => self.contents_came(slot, &messages, now),
        }
    }

    fn batches_stored(&mut self, up_to: u64, now: Time) {
        self.residents.journal.stored(up_to);
        self.release_stored(now);
    }

    /// True when something waits for a batch that the store has.
    pub(super) fn has_stored(&self) -> bool {
        let journal = &self.residents.journal;
        let first = self.residents.held.front();
        first.is_some_and(|(ticket, _)| journal.is_stored(*ticket))
            || self.ended.has_stored(|ticket| journal.is_stored(ticket))
            || (self.residents.has_ready_pages() && self.broker.store.standing() == Standing::Sound)
    }

    /// Lets go what waited for batches that the store has.
    pub fn release_stored(&mut self, now: Time) {
        self.release_ended();
        while let Some((ticket, key)) = self.residents.held.front().copied()
            && self.residents.journal.is_stored(ticket)
        {
            self.residents.held.pop_front();
            self.release_held(key, now);
        }
        self.page_out();
    }

    /// Lets out of a connection what need not wait any longer. Behind CONNACK, deliveries begin; behind SUBACK, retained messages.
    pub(super) fn release_held(&mut self, key: ConnectionKey, now: Time) {
        let released = self.residents.release_held(key, now);
        match released {
            Released::Other => {}
            Released::ConnAck => self.begin_delivery(key, now),
            Released::Answer => self.go_on_delivering(key, now),
        }
    }

    /// A session has its connection: what is under way is sent, behind CONNACK, for which this waits if it must.
    pub(super) fn begin_delivery(&mut self, key: ConnectionKey, now: Time) {
        if let Some((connection, resident)) = self.residents.pair(key)
            && connection.has_connack
        {
            resident.session.outbound.begin_resend();
            self.go_on_delivering(key, now);
        }
    }

    fn go_on_delivering(&mut self, key: ConnectionKey, now: Time) {
        let connection = self.residents.connections.get(key.0);
        if let Some(slot) = connection.and_then(|connection| connection.session) {
            self.continue_delivery(slot, now);
        }
    }

    /// Takes packets out of an output that were put there in the hope that the store would have one of these batches.
    fn recall(&mut self, key: ConnectionKey, up_to: u64) {
        let Some(connection) = self.residents.connections.get(key.0) else {
            return;
        };
        let ticket = connection.ahead.ticket();
        if !self.residents.journal.is_stored(ticket) && ticket.batch() <= up_to {
            let waiting = self.take_back(key);
            if let Some(connection) = self.residents.connections.get_mut(key.0) {
                connection.held.put_first(waiting, ticket);
            }
            self.residents.touch(key);
        }
    }

    /// Takes what depends on the store out of an output that waits for it; the rest may leave.
    fn take_back(&mut self, key: ConnectionKey) -> Vec<Waiting> {
        let is_kept = self.residents.pair(key).is_some_and(|(_, resident)| {
            let session = &resident.session;
            session.stored_number().is_some()
        });
        let Some(connection) = self.residents.connections.get_mut(key.0) else {
            return Vec::new();
        };
        let behind = connection.output.cut(connection.ahead.end());
        let (free, waiting) = recall(&behind, connection.version, is_kept);
        connection.output.tail().extend(free);
        waiting
    }

    /// Packets that may not leave any more, as their connection ends before the store has what they depend on.
    pub(super) fn forget_ahead(&mut self, key: ConnectionKey) {
        if !self.must_wait_to_send(key) {
            return;
        }
        self.submit_records();
        if self.must_wait_to_send(key) {
            self.take_back(key);
        }
    }

    /// Batches are not kept for now: publishers whose messages were in them are told so, or cut off.
    fn batches_failed(&mut self, up_to: u64, now: Time) {
        self.residents.journal.told(up_to);
        let journal = &self.residents.journal;
        let waiting: Vec<_> = self
            .residents
            .held
            .iter()
            .filter(|(ticket, _)| ticket.batch() <= up_to && !journal.is_stored(*ticket))
            .map(|(_, key)| *key)
            .collect();
        for key in waiting {
            self.recall(key, up_to);
            let journal = &self.residents.journal;
            let is_failed = |ticket: Ticket| ticket.batch() <= up_to && !journal.is_stored(ticket);
            let Some(connection) = self.residents.connections.get_mut(key.0) else {
                continue;
            };
            let version = connection.version;
            match connection.held.fail(is_failed, version) {
                Failed::Waits if !connection.has_connack => {
                    // A session that cannot be kept is not begun: CONNACK says so.
                    let ending = Ending::Refused(ReasonCode::QuotaExceeded, "storage_failed");
                    self.end_connection(key, ending, now);
                }
                Failed::Waits => {}
                Failed::Refused => self.release_held(key, now),
                Failed::Withheld if version.has_properties() => {
                    let ending = Ending::Refused(ReasonCode::QuotaExceeded, "storage_failed");
                    self.end_connection(key, ending, now);
                }
                Failed::Withheld => self.end_late(key, now),
            }
        }
    }
}

pub(super) fn session_record(session: &Session) -> Option<SessionRecord<'_>> {
    Some(SessionRecord {
        session: session.number?,
        tenant: session.client_id.mount().map_or("", Mount::as_str),
        client_id: session.client_id.as_str(),
        expiry_secs: session.expiry_secs,
        expires_at: session.expires_at,
    })
}

fn will_record(session: SessionNumber, will: &Will, due: Time) -> WillRecord<'_> {
    WillRecord {
        session,
        due,
        delay_secs: will.delay_secs(),
        expiry_secs: will.expiry_secs(),
        content: Content::of(&will.message().view()),
    }
}

/// One of a session's subscriptions, if the session is kept.
pub(super) fn subscription_record<'a>(
    session: &Session,
    walks: &VecDeque<RetainedWalk>,
    filter: &'a str,
) -> Option<SubscriptionRecord<'a>> {
    let number = session.stored_number()?;
    let subscription = session.subscriptions.get(filter)?;
    Some(SubscriptionRecord {
        session: number,
        filter,
        options: subscription.options,
        identifier: subscription.identifier,
        // What is not acknowledged is not sent to another connection.
        wants_retained: walks
            .iter()
            .any(|walk| *walk.filter == *filter && walk.qos.is_acknowledged()),
    })
}

/// A session, its subscriptions, and its will, as they are, for a snapshot.
pub(super) fn encode_session(resident: &Resident, will: Option<&Will>, out: &mut Vec<u8>) {
    let session = &resident.session;
    let Some(record) = session_record(session) else { return };
    Record::Session(record).encode(out);
    for filter in session.subscriptions.keys() {
        if let Some(record) = subscription_record(session, &resident.walks, filter) {
            Record::Subscription(record).encode(out);
        }
    }
    for id in session.inbound.iter() {
        match session.unreleased.get(id) {
            Some(message) => Record::Unreleased(UnreleasedRecord::of(record.session, id, &message.view())).encode(out),
            None => Record::Received(record.session, id).encode(out),
        }
    }
    match (&session.pending_will, will) {
        (Some((will, due)), _) => Record::Will(will_record(record.session, will, *due)).encode(out),
        (None, Some(will)) => Record::Will(will_record(record.session, will, Time::NEVER)).encode(out),
        (None, None) => {}
    }
}

/// What the store tells goes to the workers as mail. The store is a part of the broker: it must not keep it alive.
pub(super) struct Events(Weak<Broker>);

impl Events {
    pub(super) fn new(broker: &Arc<Broker>) -> Self {
        Self(Arc::downgrade(broker))
    }

    fn send(&self, to: WorkerId, mail: StoreMail) {
        if let Some(broker) = self.0.upgrade() {
            broker.mailboxes.send(to, &mut vec![Mail::Store(mail)]);
        }
    }
}

impl StoreEvents for Events {
    fn stored(&self, worker: WorkerId, up_to: u64) {
        self.send(worker, StoreMail::Stored(up_to));
    }

    fn failed(&self, worker: WorkerId, up_to: u64) {
        self.send(worker, StoreMail::Failed(up_to));
    }

    fn snapshot(&self, worker: WorkerId, snapshot: SnapshotId) {
        self.send(worker, StoreMail::Snapshot(snapshot));
    }

    fn snapshot_more(&self, worker: WorkerId, snapshot: SnapshotId) {
        self.send(worker, StoreMail::SnapshotMore(snapshot));
    }

    fn snapshot_retained(&self, cursor: &mut RetainedCursor, out: &mut Vec<u8>) -> RetainedPart {
        let Some(broker) = self.0.upgrade() else {
            return RetainedPart::Gone;
        };
        let retained = read(&broker.retained);
        // What a topic has now is as new as the last change of all: older records of it do not count any more.
        let order = retained.order();
        if cursor.0 == 0 {
            // What was cleared is told by its absence: a set before that, recorded late by another worker, must not bring it back.
            Record::RetainedFrom(order).encode(out);
        }
        for _ in 0..RETAINED_AT_ONCE {
            if out.len() >= RETAINED_BYTES_AT_ONCE {
                break;
            }
            let Some(message) = retained.next_in_store(&mut cursor.0) else {
                return RetainedPart::Last;
            };
            let view = message.view();
            if let Some(number) = message.number.filter(|_| !is_sys(view.topic)) {
                Record::Message(MessageRecord {
                    retained: Some(order),
                    ..MessageRecord::of(number, &view)
                })
                .encode(out);
            }
        }
        RetainedPart::Some
    }

    fn loaded(&self, worker: WorkerId, session: SlotKey, messages: Vec<(MessageNumber, Option<Arc<Message>>)>) {
        self.send(worker, StoreMail::Loaded(session, messages));
    }
}
