//! One worker's records on their way to the store.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::record::{Deliveries, DeliveryHead, DeliveryRecord, MessageRecord, Record};
use super::{Batch, Stored};
use crate::protocol::ids::{MessageNumber, SessionNumber, Ticket};

/// Gives numbers to sessions and messages: each once, for all workers.
#[derive(Debug)]
pub struct Numbers {
    sessions: AtomicU64,
    messages: AtomicU64,
}

/// Message numbers that a worker takes at once, so that it seldom meets the others there.
const MESSAGE_NUMBERS: u64 = 1024;

impl Default for Numbers {
    fn default() -> Self {
        Self::after(0, 0)
    }
}

impl Numbers {
    /// Goes on behind the highest numbers that were given.
    pub const fn after(session: u64, message: u64) -> Self {
        Self {
            sessions: AtomicU64::new(session + 1),
            messages: AtomicU64::new(message + 1),
        }
    }

    fn next_session(&self) -> Option<SessionNumber> {
        SessionNumber::new(self.sessions.fetch_add(1, Ordering::Relaxed))
    }

    fn next_messages(&self) -> u64 {
        self.messages.fetch_add(MESSAGE_NUMBERS, Ordering::Relaxed)
    }
}

/// Bytes of a batch's buffer that is used again.
const BUFFER_KEPT_BYTES: usize = 256 * 1024;

/// Bytes of a batch that is not held back though another is under way.
const BATCH_BYTES: usize = 64 * 1024;

/// Collects the records of one worker.
#[derive(Debug)]
pub struct Journal {
    is_on: bool,
    /// The store has a batch a moment after it was submitted, as a rule: packets need not wait one by one.
    pub is_quick: bool,
    numbers: Arc<Numbers>,
    /// Message numbers that are this worker's to give.
    own_messages: std::ops::Range<u64>,
    /// The batch that records go into now.
    open: Batch,
    /// The last batch that the store has told to be safe.
    stored: u64,
    /// The last batch that it has told anything about.
    told: u64,
    /// Who is to get the message that is being routed.
    deliveries: Vec<u8>,
    /// Deliveries that ended while it was: some may be its own, and are recorded once more behind it.
    ended_meanwhile: Vec<(MessageNumber, SessionNumber, u16)>,
    /// Bytes of the largest batch of late.
    capacity: usize,
    /// The buffer of the last batch, if it has come back.
    spare: Vec<u8>,
}

impl Journal {
    /// A journal; one that is off records nothing, and nothing waits for it.
    pub fn new(is_on: bool, numbers: Arc<Numbers>) -> Self {
        Self {
            is_on,
            is_quick: false,
            numbers,
            own_messages: 0..0,
            open: Batch {
                number: 1,
                ..Batch::default()
            },
            stored: 0,
            told: 0,
            deliveries: Vec::new(),
            ended_meanwhile: Vec::new(),
            capacity: 0,
            spare: Vec::new(),
        }
    }

    /// False where nothing is kept.
    #[inline]
    pub const fn is_on(&self) -> bool {
        self.is_on
    }

    /// A number for a session that is to be kept; `None` where nothing is.
    pub fn session_number(&self) -> Option<SessionNumber> {
        if self.is_on { self.numbers.next_session() } else { None }
    }

    /// A number for a message that may have to be kept; `None` where nothing is.
    #[inline]
    pub fn message_number(&mut self) -> Option<MessageNumber> {
        if !self.is_on {
            return None;
        }
        if self.own_messages.is_empty() {
            let first = self.numbers.next_messages();
            self.own_messages = first..first + MESSAGE_NUMBERS;
        }
        self.own_messages.next().and_then(MessageNumber::new)
    }

    /// Records something; what depends on it waits for the ticket.
    #[inline(always)]
    pub fn record(&mut self, record: &Record<'_>) -> Ticket {
        if !self.is_on {
            return Ticket::DONE;
        }
        record.encode(&mut self.open.bytes);
        self.open.records += 1;
        match record {
            Record::Message(message) => self.note_message(message.number),
            Record::DeliveryEnded(message, session, copy) if self.has_deliveries() => {
                self.ended_meanwhile.push((*message, *session, *copy));
            }
            _ => {}
        }
        Ticket::of_batch(self.open.number)
    }

    /// Begins a message that is being routed: nobody is to get it yet.
    #[inline]
    pub fn begin_message(&mut self) {
        self.deliveries.clear();
        self.ended_meanwhile.clear();
    }

    /// Somebody who is kept is to get the message that is being routed.
    #[inline]
    pub fn add_delivery(&mut self, delivery: &DeliveryRecord<'_>) {
        delivery.encode(&mut self.deliveries);
    }

    /// The same, where there is nothing else to say of the delivery.
    #[inline]
    pub fn add_delivery_head(&mut self, delivery: DeliveryHead) {
        delivery.encode(&mut self.deliveries);
    }

    /// True when somebody who is kept is to get the message that is being routed.
    #[inline]
    pub const fn has_deliveries(&self) -> bool {
        !self.deliveries.is_empty()
    }

    /// Records the message that was routed, with those who are to get it.
    #[inline(always)] // so that the record is written from where its parts are, and never put together
    pub fn end_message(&mut self, message: &MessageRecord<'_>) -> Ticket {
        if !self.is_on {
            return Ticket::DONE;
        }
        let number = message.number;
        message.encode_with(Deliveries(&self.deliveries), &mut self.open.bytes);
        self.open.records += 1;
        self.note_message(number);
        self.deliveries.clear();
        // A delivery that made room for another one of the same message ended before it was told of.
        while let Some((ended, session, copy)) = self.ended_meanwhile.pop() {
            if ended == number {
                self.record(&Record::DeliveryEnded(ended, session, copy));
            }
        }
        Ticket::of_batch(self.open.number)
    }

    /// Waits for everything that has been recorded so far.
    pub const fn latest(&self) -> Ticket {
        let last = if self.open.records > 0 {
            self.open.number
        } else {
            self.open.number - 1
        };
        if last > self.stored {
            Ticket::of_batch(last)
        } else {
            Ticket::DONE
        }
    }

    /// Waits for what is recorded next, and for everything before.
    #[inline]
    pub const fn open_ticket(&self) -> Ticket {
        Ticket::of_batch(self.open.number)
    }

    /// True when a ticket waits for nothing more.
    #[inline]
    pub const fn is_stored(&self, ticket: Ticket) -> bool {
        ticket.batch() <= self.stored
    }

    /// The store has told that every batch up to this one is safe.
    pub fn stored(&mut self, up_to: u64) {
        self.stored = self.stored.max(up_to);
        self.told(up_to);
    }

    /// The store has answered that a batch is safe, and given its buffer back.
    pub fn answered(&mut self, stored: Stored) {
        self.stored(stored.up_to);
        if stored.buffer.capacity() <= 2 * BUFFER_KEPT_BYTES {
            self.spare = stored.buffer;
        }
    }

    /// The store has told what has become of every batch up to this one.
    pub fn told(&mut self, up_to: u64) {
        self.told = self.told.max(up_to);
    }

    /// True when something has been recorded that was not taken.
    #[inline]
    pub const fn has_records(&self) -> bool {
        self.open.records > 0
    }

    /// True when what has been recorded is worth a batch of its own now: nothing is under way, or much has come together. Else it had
    /// better go when the store has told of the one before: each batch costs a hand-over there and one back.
    #[inline]
    pub const fn is_worth_taking(&self) -> bool {
        self.has_records() && (self.open.number == self.told + 1 || self.open.bytes.len() >= BATCH_BYTES)
    }

    /// Takes the open batch, if there is something in it.
    pub fn take(&mut self) -> Option<Batch> {
        if self.open.records == 0 {
            return None;
        }
        // It shrinks slowly: a buffer that is too small is copied as it grows.
        let shrunk = self.capacity - self.capacity / 16;
        self.capacity = self.open.bytes.len().clamp(shrunk, BUFFER_KEPT_BYTES);
        let mut bytes = std::mem::take(&mut self.spare);
        bytes.clear();
        bytes.reserve(self.capacity);
        let next = Batch {
            number: self.open.number + 1,
            bytes,
            ..Batch::default()
        };
        Some(std::mem::replace(&mut self.open, next))
    }

    fn note_message(&mut self, number: MessageNumber) {
        let (lowest, highest) = self.open.messages.unwrap_or((number, number));
        self.open.messages = Some((lowest.min(number), highest.max(number)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::message::Publication;
    use crate::protocol::property::Properties;
    use crate::protocol::qos::QoS;
    use crate::protocol::time::Time;
    use crate::protocol::topic::TopicName;
    use crate::storage::image::{Image, ImageOptions};
    use crate::storage::record::{Progress, SessionRecord, records};

    fn ended(number: u64) -> Record<'static> {
        Record::SessionEnded(SessionNumber::new(number).unwrap())
    }

    #[test]
    fn what_is_recorded_waits_for_its_batch_and_what_came_before() {
        let mut journal = Journal::new(true, Arc::default());
        assert_eq!(journal.latest(), Ticket::DONE, "nothing was recorded");
        let first = journal.record(&ended(1));
        assert!(!journal.is_stored(first));
        let batch = journal.take().unwrap();
        assert_eq!((batch.number, batch.records), (first.batch(), 1));
        assert_eq!(journal.latest(), first, "it is under way");
        let second = journal.record(&ended(2));
        journal.stored(first.batch());
        assert!(journal.is_stored(first) && !journal.is_stored(second));
        journal.take();
        journal.stored(second.batch());
        assert_eq!(journal.latest(), Ticket::DONE);
        assert!(journal.take().is_none(), "an idle worker submits nothing");
    }

    #[test]
    fn a_delivery_that_ends_while_its_message_is_routed_has_ended_behind_it() {
        let session = SessionNumber::new(1).unwrap();
        let mut image = Image::new(ImageOptions::default());
        image.apply_decoded(&Record::Session(SessionRecord {
            session,
            tenant: "",
            client_id: "c",
            expiry_secs: 100,
            expires_at: Time::NEVER,
        }));
        let mut journal = Journal::new(true, Arc::default());
        journal.begin_message();
        let number = journal.message_number().unwrap();
        let delivery = |copy| DeliveryRecord {
            session,
            copy,
            progress: Progress::Queued,
            qos: QoS::AtLeastOnce,
            retain: false,
            identifiers: Default::default(),
            group: None,
        };
        journal.add_delivery(&delivery(0));
        // The queue has room for one: the second of two overlapping subscriptions takes the place of the first.
        journal.record(&Record::DeliveryEnded(number, session, 0));
        journal.add_delivery(&delivery(1));
        let message = Publication {
            topic: TopicName::parse("t").unwrap(),
            payload: b"x",
            qos: QoS::AtLeastOnce,
            retain: false,
            properties: Properties::EMPTY,
            expires_at: None,
            publisher: None,
            source: None,
        };
        journal.end_message(&MessageRecord::of(number, &message));
        assert!(!journal.has_deliveries(), "it has been routed");
        let batch = journal.take().unwrap();
        records(&batch.bytes).for_each(|record| image.apply(record));
        let restored = image.finish(Time(0));
        let queued: Vec<_> = restored.sessions[0]
            .queued
            .iter()
            .map(|delivery| delivery.copy)
            .collect();
        assert_eq!(queued, [1]);
    }

    #[test]
    fn a_batch_waits_for_the_one_under_way_unless_it_is_large() {
        let mut journal = Journal::new(true, Arc::default());
        journal.record(&ended(1));
        assert!(journal.is_worth_taking(), "nothing is under way");
        journal.take();
        journal.record(&ended(2));
        assert!(!journal.is_worth_taking(), "the first is under way");
        journal.told(1);
        assert!(
            journal.is_worth_taking(),
            "the first has failed: this one is to be told, too"
        );
        journal.take();
        while journal.open.bytes.len() < BATCH_BYTES {
            journal.record(&ended(3));
        }
        assert!(journal.is_worth_taking(), "it is large");
    }

    #[test]
    fn a_journal_that_is_off_records_nothing_and_nothing_waits() {
        let mut journal = Journal::new(false, Arc::default());
        assert_eq!(journal.record(&ended(1)), Ticket::DONE);
        assert_eq!(journal.message_number(), None);
        assert_eq!(journal.session_number(), None);
        assert!(journal.take().is_none());
    }

    #[test]
    fn two_workers_never_give_one_number() {
        let numbers = Arc::new(Numbers::after(7, 41));
        let mut workers = [
            Journal::new(true, Arc::clone(&numbers)),
            Journal::new(true, Arc::clone(&numbers)),
        ];
        let mut seen = std::collections::HashSet::new();
        for n in 0..5000 {
            let number = workers[n % 2].message_number().unwrap();
            assert!(number.0.get() > 41 && seen.insert(number));
        }
        assert_eq!(workers[1].session_number(), SessionNumber::new(8));
    }
}
