//! Faults on purpose, between the drivers and the workers: each breaks one invariant, and the simulation must say which.

use std::sync::Arc;
use std::task::Waker;

use sundew::broker::mail::Outcome;
use sundew::broker::{Broker, Mail};
use sundew::protocol::ids::WorkerId;
use sundew::protocol::message::Message;
use sundew::protocol::qos::QoS;
use sundew::router::Receiver;
use sundew::storage::Batch;
use sundew::storage::record::{self, Deliveries, MessageRecord, Progress, Record, SessionRecord};

use crate::disk::DiskFault;

/// What is done wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A letter with a QoS 1 message for another worker is lost.
    LoseDelivery,
    /// A letter with a QoS 2 message is delivered twice.
    DoubleDelivery,
    /// Two letters of one publisher change places.
    SwapDeliveries,
    /// A letter goes to the receivers of another.
    MisdirectDelivery,
    /// An authoriser never answers.
    SwallowAnswer,
    /// Two PUBACK packets change places.
    SwapAcknowledgements,
    /// A retained message disappears.
    LoseRetained,
    /// A client that asks for its session gets a new one.
    LoseSession,
    /// The broker is told a larger window than the client has.
    WidenWindow,
    /// Closed connections are not removed.
    KeepConnections,
    /// A worker panics.
    Panic,
    /// Batches are told as stored before they are.
    TellEarly,
    /// That a delivery was sent is not recorded.
    ForgetSent,
    /// That a QoS 2 message was received is not recorded.
    ForgetReceived,
    /// That a subscription was made is not recorded.
    ForgetSubscription,
    /// That a QoS 2 delivery was received by its client is not recorded.
    ForgetReleased,
    /// The tenant of a session is not recorded.
    ForgetTenant,
    /// A mistake with files.
    Disk(DiskFault),
}

impl Fault {
    /// Made with what is recorded.
    pub(crate) fn is_of_records(self) -> bool {
        use Fault as F;
        matches!(
            self,
            F::ForgetSent | F::ForgetReceived | F::ForgetSubscription | F::ForgetReleased | F::ForgetTenant
        )
    }

    /// Leaves out of a batch what is to be forgotten.
    pub(crate) fn spoil(self, batch: &mut Batch) {
        let mut bytes = Vec::with_capacity(batch.bytes.len());
        for record in record::records(&batch.bytes) {
            match Record::decode(record).unwrap() {
                Record::Delivery(_, delivery)
                    if self == Self::ForgetSent && matches!(delivery.progress, Progress::Sent(_)) => {}
                Record::Received(..) if self == Self::ForgetReceived => {}
                Record::Subscription(_) if self == Self::ForgetSubscription => {}
                Record::Delivery(_, delivery)
                    if self == Self::ForgetReleased && matches!(delivery.progress, Progress::Released(_)) => {}
                Record::Session(session) if self == Self::ForgetTenant => {
                    Record::Session(SessionRecord { tenant: "", ..session }).encode(&mut bytes);
                }
                Record::Message(message) if self == Self::ForgetSent => {
                    let mut deliveries = Vec::new();
                    for delivery in message.deliveries.iter() {
                        let mut delivery = delivery.unwrap();
                        delivery.progress = Progress::Queued;
                        delivery.encode(&mut deliveries);
                    }
                    Record::Message(MessageRecord {
                        deliveries: Deliveries(&deliveries),
                        ..message
                    })
                    .encode(&mut bytes);
                }
                Record::Message(message) if self == Self::ForgetReceived => {
                    Record::Message(MessageRecord {
                        received: None,
                        ..message
                    })
                    .encode(&mut bytes);
                }
                other => other.encode(&mut bytes),
            }
        }
        batch.bytes = bytes;
    }
}

/// Does it.
#[derive(Debug)]
pub(crate) struct Saboteur {
    fault: Option<Fault>,
    seen: usize,
    receivers: Option<Arc<[Receiver]>>,
}

impl Saboteur {
    pub(crate) fn new(fault: Option<Fault>) -> Self {
        Self {
            fault,
            seen: 0,
            receivers: None,
        }
    }

    pub(crate) fn is(&self, fault: Fault) -> bool {
        self.fault == Some(fault)
    }

    /// True once in a while.
    fn strikes(&mut self, every: usize) -> bool {
        self.seen += 1;
        self.seen.is_multiple_of(every)
    }

    pub(crate) fn swallows(&mut self, outcome: &Outcome) -> bool {
        self.is(Fault::SwallowAnswer) && matches!(outcome, Outcome::Allowed(_)) && self.strikes(10)
    }

    pub(crate) fn panics(&mut self) {
        assert!(!(self.is(Fault::Panic) && self.strikes(50)), "on purpose");
    }

    pub(crate) fn forgets_to_remove(&mut self) -> bool {
        self.is(Fault::KeepConnections) && self.strikes(3)
    }

    /// Opens the letters that wait for a worker before it does.
    pub(crate) fn open_letters(&mut self, broker: &Broker, worker: usize) {
        use Fault as F;
        if !matches!(
            self.fault,
            Some(F::LoseDelivery | F::DoubleDelivery | F::SwapDeliveries | F::MisdirectDelivery)
        ) {
            return;
        }
        let mut letters = Vec::new();
        broker
            .mailboxes
            .receive(WorkerId(worker as u16), &mut letters, Waker::noop());
        let mut opened = Vec::new();
        for letter in letters {
            match letter {
                Mail::Deliver(message, receivers) => self.forward(message, receivers, &mut opened),
                other => opened.push(other),
            }
        }
        if self.is(F::SwapDeliveries) {
            swap_first_pair(&mut opened);
        }
        broker.mailboxes.send(WorkerId(worker as u16), &mut opened);
    }

    fn forward(&mut self, message: Arc<Message>, receivers: Arc<[Receiver]>, opened: &mut Vec<Mail>) {
        let fault = self.fault;
        let qos = message.qos;
        match fault {
            Some(Fault::LoseDelivery) if qos == QoS::AtLeastOnce => {
                if !self.strikes(5) {
                    opened.push(Mail::Deliver(message, receivers));
                }
            }
            Some(Fault::DoubleDelivery) if qos == QoS::ExactlyOnce => {
                opened.push(Mail::Deliver(Arc::clone(&message), Arc::clone(&receivers)));
                opened.push(Mail::Deliver(message, receivers));
            }
            Some(Fault::MisdirectDelivery) => {
                let kept = self.receivers.get_or_insert_with(|| Arc::clone(&receivers));
                let receivers = Arc::clone(kept);
                opened.push(Mail::Deliver(message, receivers));
            }
            _ => opened.push(Mail::Deliver(message, receivers)),
        }
    }
}

fn swap_first_pair(letters: &mut [Mail]) {
    let twin = |a: &Mail, b: &Mail| match (a, b) {
        (Mail::Deliver(a, _), Mail::Deliver(b, _)) => {
            a.topic() == b.topic() && a.publisher == b.publisher && a.qos == b.qos && a.payload() != b.payload()
        }
        _ => false,
    };
    for first in 0..letters.len() {
        if let Some(second) = (first + 1..letters.len()).find(|second| twin(&letters[first], &letters[*second])) {
            return letters.swap(first, second);
        }
    }
}
