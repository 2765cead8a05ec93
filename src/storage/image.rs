//! What a store's records add up to: the state a broker starts with.
//!
//! Every record is applied as it stands, one behind the other: `Session`, `Subscription`, `Will`, `Received` or `Unreleased`, and each delivery replace what was
//! there under the same key; the ended ones remove it. A delivery goes to the end of its session's queue **each time it is recorded as
//! queued**, and behind what is in flight when it is sent first. Of a topic's retained messages the one with the highest order
//! counts, whenever it comes. What was released is not sent again.
//!
//! # Why a snapshot that is ahead of the log is right
//!
//! A snapshot tells each session as it was at some moment *t*, later than the position *P* where the log behind it begins; then the
//! records from *P* on are applied, those before *t* a second time. For each key (a session, a filter, a delivery, an identifier) the
//! last record before *t* decides what was there at *t*; if it stands behind *P*, it is applied again and decides again, else no record
//! is applied a second time before *t* and the snapshot decides. Orders likewise: what was put at the end before *P* stays in front, and
//! everything else is put at the end once more, in the order of the log. What is between is wrong for a while (a delivery that has
//! ended is there again until its end is read again), which is why a snapshot counts only when the log up to its end is safe.
//!
//! That needs two things of who records:
//!
//! - A session gets a delivery by a `Message` record, content included; `Delivery` only changes one that the *same* session has.
//!   A message that moves on to another session, or a retained one that a new subscriber gets, is a `Message` once more with that one delivery (and without `retained` and
//!   `received`). If it were a `Delivery`, its content could be in no snapshot: the old owner was told after it gave the message away, the
//!   new one before it had it.
//! - Where a snapshot names messages that are not in memory, their contents come first, as `Message` without deliveries.

mod encode;
mod messages;
mod report;
mod restored;
mod retained;
mod session;
mod sources;

use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::HashMap;

use self::messages::Messages;
pub use self::report::{Lost, Names, Report};
pub use self::restored::{Restored, RestoredDelivery, RestoredSession, RestoredSubscription, RestoredWill};
use self::retained::RetainedTopics;
use self::session::{DeliveryState, SessionState};
use self::sources::Sources;
use super::record::{
    Content, DeliveryRecord, MessageRecord, Progress, Record, SessionRecord, SubscriptionRecord, WillRecord,
};
use crate::protocol::ids::{MessageNumber, PacketId, SessionKey, SessionNumber};
use crate::protocol::message::{Message, Publication};
use crate::protocol::source::SourceBuf;
use crate::protocol::time::Time;

/// Bounds of an [`Image`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageOptions {
    /// Bytes of queued and in flight messages, counted as [`Message::cost_bytes`], whose content is kept in memory. Of the messages
    /// above it only the number, the size and the expiry are known.
    pub memory_bytes_max: usize,
}

impl Default for ImageOptions {
    fn default() -> Self {
        Self {
            memory_bytes_max: 256 << 20,
        }
    }
}

/// The state that records add up to.
#[derive(Debug)]
pub struct Image {
    sessions: HashMap<SessionNumber, SessionState, RandomState>,
    messages: Messages,
    retained: RetainedTopics,
    sources: Sources,
    /// Counts up with every delivery that is put at an end.
    position: u64,
    last_session: u64,
    last_message: u64,
    lost: Lost,
}

impl Image {
    /// Nothing yet.
    pub fn new(options: ImageOptions) -> Self {
        Self {
            sessions: HashMap::default(),
            messages: Messages::new(options.memory_bytes_max),
            retained: RetainedTopics::default(),
            sources: Sources::default(),
            position: 0,
            last_session: 0,
            last_message: 0,
            lost: Lost::default(),
        }
    }

    /// Applies a record (kind and body). One that cannot be read is counted and named, and is a gap.
    pub fn apply(&mut self, record: &[u8]) {
        self.lost.records_seen += 1;
        match Record::decode(record) {
            Ok(record) => self.apply_decoded(&record),
            Err(error) => self.lost.unreadable(error),
        }
    }

    /// From here on something may be missing: what names a session or a message that is not known is lost, and told so.
    pub fn gap(&mut self) {
        self.lost.gaps += 1;
    }

    /// Ends the replay at `now`: what has expired is left out. See [`Restored`].
    pub fn finish(self, now: Time) -> Restored {
        restored::finish(self, now)
    }

    /// Applies a record.
    pub fn apply_decoded(&mut self, record: &Record<'_>) {
        match record {
            Record::Session(session) => self.session(session),
            Record::SessionEnded(session) => self.session_ended(*session),
            Record::Subscription(subscription) => self.subscription(subscription),
            Record::SubscriptionEnded(session, filter) => {
                if let Some(session) = self.known(*session) {
                    session.subscriptions.remove(*filter);
                }
            }
            Record::Will(will) => self.will(will),
            Record::RetainedFrom(order) => self.retained.count_from(*order),
            Record::WillEnded(session) => {
                if let Some(session) = self.known(*session) {
                    session.will = None;
                }
            }
            Record::Message(message) => self.message(message),
            Record::Delivery(number, delivery) => self.delivery(*number, delivery),
            Record::DeliveryEnded(number, session, copy) => self.delivery_ended(*number, *session, *copy),
            Record::Received(session, id) => self.received(*session, *id, None),
            Record::Unreleased(record) => {
                let message = to_message(&record.content, None, record.expires_at);
                self.received(record.session, record.id, Some(Box::new(message)));
            }
            Record::ReceivedEnded(session, id) => {
                if let Some(session) = self.known(*session) {
                    session.received.remove(id);
                }
            }
        }
    }

    fn session(&mut self, record: &SessionRecord<'_>) {
        self.last_session = self.last_session.max(record.session.0.get());
        self.sessions.entry(record.session).or_default().set(record);
    }

    fn session_ended(&mut self, session: SessionNumber) {
        self.last_session = self.last_session.max(session.0.get());
        let Some(session) = self.sessions.remove(&session) else {
            return; // over is over, known or not
        };
        for (number, _) in session.deliveries.into_keys() {
            self.messages.release(number);
        }
    }

    fn subscription(&mut self, record: &SubscriptionRecord<'_>) {
        if let Some(session) = self.known(record.session) {
            let subscription = (record.options, record.identifier, record.wants_retained);
            *session.subscriptions.entry_ref(record.filter).or_insert(subscription) = subscription;
        }
    }

    fn will(&mut self, record: &WillRecord<'_>) {
        let source = record.content.source.map(|source| self.sources.shared(&source));
        if let Some(session) = self.known(record.session) {
            session.will = Some(RestoredWill {
                due: record.due,
                delay_secs: record.delay_secs,
                expiry_secs: record.expiry_secs,
                message: message_of(&record.content, None, Time::NEVER, source.as_ref()),
            });
        }
    }

    fn received(&mut self, session: SessionNumber, id: PacketId, unreleased: Option<Box<Message>>) {
        if let Some(session) = self.known(session) {
            session.received.insert(id, unreleased);
        }
    }

    fn message(&mut self, record: &MessageRecord<'_>) {
        self.last_message = self.last_message.max(record.number.0.get());
        if let Some((session, id)) = record.received {
            self.received(session, id, None);
        }
        let topic = record.content.topic;
        let source = record.content.source.map(|source| self.sources.shared(&source));
        let source = source.as_ref();
        // Shared with who has it already.
        let mut made = self
            .messages
            .content(record.number)
            .filter(|made| made.topic() == topic);
        if let Some(order) = record.retained {
            self.retained.set(order, topic, || share(&mut made, record, source));
        }
        if record.deliveries.0.is_empty() {
            // Only its content: a snapshot's deliveries will name it.
            if record.retained.is_none() && record.received.is_none() {
                self.messages
                    .keep(record.number, record.expires_at, || share(&mut made, record, source));
            }
            return;
        }
        if made.is_none() {
            made = self.retained.content(topic, record.number);
        }
        for delivery in record.deliveries.iter() {
            match delivery {
                Ok(delivery) => self.deliver(record, &delivery, &mut made, source),
                Err(error) => self.lost.unreadable(error),
            }
        }
    }

    /// A message's delivery: its session gets it.
    fn deliver(
        &mut self,
        record: &MessageRecord<'_>,
        delivery: &DeliveryRecord<'_>,
        made: &mut Option<Arc<Message>>,
        source: Option<&Arc<SourceBuf>>,
    ) {
        self.last_session = self.last_session.max(delivery.session.0.get());
        let Some(session) = self.sessions.get_mut(&delivery.session) else {
            self.lost.delivery(delivery.session, Some(record.content.topic));
            return;
        };
        self.position += 1;
        let state = DeliveryState::new(delivery, self.position);
        if session
            .deliveries
            .insert((record.number, delivery.copy), state)
            .is_none()
        {
            self.messages
                .refer(record.number, record.expires_at, || share(made, record, source));
        }
    }

    /// A delivery has come further.
    fn delivery(&mut self, number: MessageNumber, delivery: &DeliveryRecord<'_>) {
        self.last_message = self.last_message.max(number.0.get());
        self.last_session = self.last_session.max(delivery.session.0.get());
        let Some(session) = self.sessions.get_mut(&delivery.session) else {
            self.lost.delivery(delivery.session, None);
            return;
        };
        self.position += 1;
        let mut state = DeliveryState::new(delivery, self.position);
        let is_released = matches!(delivery.progress, Progress::Released(_));
        if let Some(before) = session.deliveries.get_mut(&(number, delivery.copy)) {
            if let (Progress::Released(id), Progress::Sent(sent)) = (before.progress, delivery.progress)
                && id == sent
            {
                return; // a snapshot was ahead; its content may not be there any more
            }
            let is_in_flight = |progress| progress != Progress::Queued;
            if is_in_flight(before.progress) && is_in_flight(state.progress) {
                state.position = before.position;
            }
            *before = state;
        } else if self.messages.refer_known(number, is_released) {
            session.deliveries.insert((number, delivery.copy), state);
        } else {
            self.lost.delivery(delivery.session, None);
        }
    }

    fn delivery_ended(&mut self, number: MessageNumber, session: SessionNumber, copy: u16) {
        self.last_message = self.last_message.max(number.0.get());
        self.last_session = self.last_session.max(session.0.get());
        let ended = |session: &mut SessionState| session.deliveries.remove(&(number, copy));
        if self.sessions.get_mut(&session).and_then(ended).is_some() {
            self.messages.release(number);
        }
    }

    /// A session that a record names; one that is not known has ended, or was in a gap.
    fn known(&mut self, number: SessionNumber) -> Option<&mut SessionState> {
        self.last_session = self.last_session.max(number.0.get());
        let session = self.sessions.get_mut(&number);
        if session.is_none() {
            self.lost.session(number);
        }
        session
    }
}

/// The message of a record: made once, shared by all who have it.
fn share(made: &mut Option<Arc<Message>>, record: &MessageRecord<'_>, source: Option<&Arc<SourceBuf>>) -> Arc<Message> {
    let make = || message_of(&record.content, Some(record.number), record.expires_at, source);
    Arc::clone(made.get_or_insert_with(|| Arc::new(make())))
}

/// A message that was published before the broker was started.
pub(crate) fn to_message(content: &Content<'_>, number: Option<MessageNumber>, expires_at: Time) -> Message {
    let source = content.source.map(|source| Arc::new(SourceBuf::new(&source)));
    message_of(content, number, expires_at, source.as_ref())
}

/// The same, with a source that is shared.
fn message_of(
    content: &Content<'_>,
    number: Option<MessageNumber>,
    expires_at: Time,
    source: Option<&Arc<SourceBuf>>,
) -> Message {
    let publication = Publication {
        topic: content.topic,
        payload: content.payload,
        qos: content.qos,
        retain: content.retain,
        properties: content.properties,
        expires_at: (expires_at != Time::NEVER).then_some(expires_at),
        publisher: Some(SessionKey::FORMER),
        source,
    };
    let mut message = publication.to_message();
    message.number = number;
    message
}

#[cfg(test)]
mod tests;
