//! From a publication to everyone who wants it: retained store, receivers here and on other workers, shared groups.

use std::sync::Arc;

use smallvec::SmallVec;
use tracing::warn;

use super::endings::EventLog;
use super::mail::{Mail, MemberDelivery, Outgoing};
use super::sys::is_sys;
use super::worker::{Worker, next_random};
use super::{Broker, read, write};
use crate::delivery::fan_out::{Delivered, Purpose, Tally};
use crate::delivery::frames::Fanned;
use crate::delivery::residents::Residents;
use crate::protocol::ids::{MessageNumber, PacketId, SessionKey, SessionNumber, Ticket, WorkerId};
use crate::protocol::message::{Message, Publication};
use crate::protocol::mount::Mount;
use crate::protocol::time::Time;
use crate::router::shared::{Choice, GroupName, SharedGroup};
use crate::router::{Receiver, RetainedError, WorkerReceivers};
use crate::storage::Record;
use crate::storage::record::{DeliveryRecord, MessageRecord, Progress};

/// What became of a publication.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Routed {
    /// Somebody took it, or could have.
    Taken,
    /// Nobody subscribes to it.
    NoSubscriber,
    /// Those who want it, or the retained store, are full.
    Refused,
}

/// The QoS 2 identifier that a message came with, of a session that is kept.
pub(super) type Received = Option<(SessionNumber, PacketId)>;

impl Worker {
    /// Routes a publication and records it where it must survive: what depends on that waits for the ticket.
    ///
    /// There is nobody who could be told that there is no room for it among the retained messages: it goes to who is there.
    pub(super) fn route(&mut self, publication: &Publication<'_>, now: Time) -> Ticket {
        self.route_if(false, publication, None, now).1
    }

    /// The same for a publisher who can be told that it was refused: then it is for everybody.
    pub(super) fn route_or_refuse(
        &mut self,
        publication: &Publication<'_>,
        received: Received,
        now: Time,
    ) -> (Routed, Ticket) {
        self.route_if(true, publication, received, now)
    }

    fn route_if(
        &mut self,
        may_refuse: bool,
        publication: &Publication<'_>,
        received: Received,
        now: Time,
    ) -> (Routed, Ticket) {
        let must_number = publication.retain || publication.qos.is_acknowledged();
        let journal = &mut self.residents.journal;
        journal.begin_message();
        let number = if must_number { journal.message_number() } else { None };
        let (mut kept, mut retained) = (None, None);
        if publication.retain && self.broker.options.retain_available {
            let mut message = publication.to_message();
            message.number = number;
            let message = kept.insert(Arc::new(message));
            let order = self.retain(message, now);
            if order.is_none() && may_refuse {
                return (Routed::Refused, Ticket::DONE);
            }
            retained = order.filter(|_| !is_sys(publication.topic));
        }
        let routed = self.route_to_all(publication, number, kept, now);
        let journal = &mut self.residents.journal;
        let ticket = match (number, received) {
            (Some(number), _) if journal.has_deliveries() || retained.is_some() => {
                journal.end_message(&MessageRecord {
                    retained,
                    received,
                    ..MessageRecord::of(number, publication)
                })
            }
            (_, Some((session, id))) if routed != Routed::Refused => journal.record(&Record::Received(session, id)),
            _ => Ticket::DONE,
        };
        (routed, ticket)
    }

    fn route_to_all(
        &mut self,
        publication: &Publication<'_>,
        number: Option<MessageNumber>,
        kept: Option<Arc<Message>>,
        now: Time,
    ) -> Routed {
        let Self {
            me,
            broker,
            residents,
            cache,
            frames,
            outgoing,
            has_mail,
            random,
            ..
        } = self;
        let matched = cache.resolve(publication.topic, || {
            read(&broker.subscriptions).matches(publication.topic)
        });
        if matched.is_empty() {
            if !publication.retain {
                residents.metrics.dropped_no_subscriber.increment();
            }
            return Routed::NoSubscriber; // of a retained message, too: those who come later are not there now
        }
        let mut fanned = Fanned::new(
            publication,
            kept,
            frames,
            matched.receivers_len() + matched.groups.len(),
            now,
        );
        fanned.set_number(number);
        let mut reach = Reach {
            me: *me,
            broker,
            residents,
            outgoing,
            has_mail,
            random,
            now,
        };
        let mut tally = Tally::default();
        for receivers in &matched.workers {
            reach.sessions(&mut fanned, receivers, &mut tally);
        }
        for group in &matched.groups {
            match reach.member(&mut fanned, group, SmallVec::new()) {
                Member::Takes => tally.taken += 1,
                Member::MayNot => {} // as one who subscribes alone
                Member::CanNot if publication.qos.is_acknowledged() => {
                    reach.residents.metrics.dropped_queue_full_qos1_2.increment();
                    tally.refused += 1;
                }
                Member::CanNot => reach.residents.metrics.dropped_offline_qos0.increment(),
            }
        }
        if tally.taken == 0 && tally.refused > 0 && !publication.retain {
            Routed::Refused
        } else {
            Routed::Taken
        }
    }

    /// Gives a message that was meant for one member of a shared subscription to another; false when nobody else can take it.
    pub(super) fn route_to_group(
        &mut self,
        message: &Arc<Message>,
        group: &GroupName,
        tried: &[SessionKey],
        now: Time,
    ) -> bool {
        let publication = message.view();
        self.residents.journal.begin_message();
        let Self {
            me,
            broker,
            residents,
            cache,
            frames,
            outgoing,
            has_mail,
            random,
            ..
        } = self;
        // The members may have changed since the message was routed first.
        let matched = cache.resolve(publication.topic, || {
            read(&broker.subscriptions).matches(publication.topic)
        });
        let mut fanned = Fanned::new(&publication, Some(Arc::clone(message)), frames, 1, now);
        let mut reach = Reach {
            me: *me,
            broker,
            residents,
            outgoing,
            has_mail,
            random,
            now,
        };
        let current = matched.groups.iter().find(|current| *current.name == *group);
        let is_taken = current.is_some_and(|group| reach.member(&mut fanned, group, tried.into()) == Member::Takes);
        let journal = &mut self.residents.journal;
        if let Some(number) = message.number.filter(|_| journal.has_deliveries()) {
            journal.end_message(&MessageRecord::of(number, &publication));
        }
        is_taken
    }

    /// Sets or, with an empty payload, clears a topic's retained message [MQTT-3.3.1-5] [MQTT-3.3.1-6], and gives the change its
    /// place in their order. `None` when there is no room.
    fn retain(&mut self, message: &Arc<Message>, now: Time) -> Option<u64> {
        let mut retained = write(&self.broker.retained);
        if message.payload().is_empty() {
            retained.clear(message.topic());
            return Some(retained.next_order());
        }
        let Err(error) = retained.set(Arc::clone(message)) else {
            return Some(retained.next_order());
        };
        drop(retained);
        match error {
            RetainedError::TenantMessages { .. } | RetainedError::TenantBytes { .. } => {
                self.metrics().limit_tenants.increment();
            }
            RetainedError::Bytes { .. } => self.metrics().limit_retained_bytes.increment(),
            _ => self.metrics().limit_retained_messages.increment(),
        }
        let publisher = message.view().publisher.filter(|session| session.worker == self.me);
        let resident = publisher.and_then(|session| self.residents.sessions.get(session.key));
        let tenant = resident.and_then(|resident| resident.session.client_id.mount());
        self.log.retained_refused(message, &error, tenant, now);
        None
    }
}

/// Told once a minute for each limit and tenant; the counters tell the rest.
impl EventLog {
    fn retained_refused(&mut self, message: &Message, error: &RetainedError, tenant: Option<Mount<'_>>, now: Time) {
        let tenant = tenant.map(Mount::as_str);
        if let Some(repeated) = self.record(&("retained", std::mem::discriminant(error), tenant), now) {
            let repeated = (repeated > 0).then_some(repeated);
            warn!(tenant, topic = message.topic().as_str(), %error, repeated, "retained message refused");
        }
    }
}

/// Whether somebody of a shared group takes a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Member {
    /// One does, or has promised to.
    Takes,
    /// None can.
    CanNot,
    /// None may, and that is all: its publisher can do nothing about it, and need not know.
    MayNot,
}

/// Where a publication can be sent from this worker: to sessions here, and by mail to those on other workers.
struct Reach<'a> {
    me: WorkerId,
    broker: &'a Broker,
    residents: &'a mut Residents,
    outgoing: &'a mut [Outgoing],
    has_mail: &'a mut bool,
    random: &'a mut u64,
    now: Time,
}

impl Reach<'_> {
    /// To every receiver in the list, which all live on one worker.
    #[inline]
    fn sessions(&mut self, fanned: &mut Fanned<'_>, to: &WorkerReceivers, tally: &mut Tally) {
        let (broker, publication) = (self.broker, fanned.publication);
        if to.worker == self.me {
            let own = || read(&broker.subscriptions).matches_own(publication.topic, publication.publisher?);
            let here = self.residents.fan_out(fanned, &to.receivers, own, self.now);
            tally.taken += here.taken;
            tally.refused += here.refused;
        } else if publication.qos.is_acknowledged() {
            if to.receivers.iter().all(|receiver| receiver.status.is_full()) {
                let dropped = &self.residents.metrics.dropped_queue_full_qos1_2;
                dropped.add(to.receivers.len() as u64);
                tally.refused += 1;
                return;
            }
            for (at, receiver) in to.receivers.iter().enumerate() {
                let earlier = to.receivers[..at].iter().rev();
                let copy = earlier.take_while(|other| other.session == receiver.session).count();
                self.record_queued(fanned, receiver, Purpose::Own(copy as u16));
            }
            self.deliver_by_mail(fanned, to);
            tally.taken += 1;
        } else if broker.mailboxes.waiting(to.worker) > broker.options.mailbox_letters_max {
            self.residents
                .metrics
                .dropped_queue_full_qos0
                .add(to.receivers.len() as u64);
        } else {
            self.deliver_by_mail(fanned, to);
            tally.taken += 1;
        }
    }

    /// To one member of a shared subscription that has not been tried.
    fn member(
        &mut self,
        fanned: &mut Fanned<'_>,
        group: &Arc<SharedGroup>,
        mut tried: SmallVec<[SessionKey; 2]>,
    ) -> Member {
        let mut none = Member::CanNot;
        let mut is_full = false;
        let choice = Choice {
            publisher: fanned.publication.publisher,
            topic: fanned.publication.topic.as_str(),
            qos: fanned.publication.qos,
            random: next_random(self.random),
            excluded: &tried,
        };
        // Where several could not take it, it is not chosen anew among all for each of them.
        let mut chosen = if tried.len() > 1 { None } else { group.choose(&choice) };
        let mut others = None;
        loop {
            let member = match chosen.take() {
                Some(member) => member,
                None => {
                    let qos = fanned.publication.qos;
                    let others = others.get_or_insert_with(|| group.others(qos, &tried, self.me));
                    match others.next() {
                        Some(member) => member,
                        None => return none,
                    }
                }
            };
            if member.session.worker != self.me {
                // What it cannot take is not promised: nobody here could take the promise back.
                if fanned.publication.qos.is_acknowledged() && member.status.is_full() {
                    tried.push(member.session);
                    (none, is_full) = (Member::CanNot, true);
                    continue;
                }
                self.record_queued(fanned, member, Purpose::Group(group));
                let (message, group, receiver) = (Arc::clone(fanned.kept()), Arc::clone(group), member.clone());
                let delivery = MemberDelivery {
                    message,
                    receiver,
                    group,
                    tried,
                };
                let bytes = delivery.message.cost_bytes();
                self.mail(member.session.worker, Mail::DeliverToMember(Box::new(delivery)), bytes);
                return Member::Takes;
            }
            let delivered = self.residents.deliver(fanned, member, Purpose::Group(group), self.now);
            match delivered {
                Delivered::Taken => return Member::Takes,
                Delivered::Refused => (none, is_full) = (Member::CanNot, true),
                Delivered::Forbidden if !is_full => none = Member::MayNot,
                Delivered::Forbidden | Delivered::Gone => {}
            }
            tried.push(member.session);
        }
    }

    /// Records that a session on another worker is to get the message: its worker tells what becomes of it.
    fn record_queued(&mut self, fanned: &Fanned<'_>, receiver: &Receiver, purpose: Purpose<'_>) {
        let qos = receiver.qos.min(fanned.publication.qos);
        let session = receiver.status.stored_number().filter(|_| qos.is_acknowledged());
        if let (Some(session), Some(_)) = (session, fanned.number()) {
            let group = purpose.group().map(|group| (&*group.name.group, &*group.name.filter));
            self.residents.journal.add_delivery(&DeliveryRecord {
                session,
                copy: purpose.copy(),
                progress: Progress::Queued,
                qos,
                retain: receiver.retain_as_published && fanned.publication.retain,
                identifiers: SmallVec::from_slice(&receiver.identifiers),
                group,
            });
        }
    }

    fn deliver_by_mail(&mut self, fanned: &mut Fanned<'_>, to: &WorkerReceivers) {
        let message = Arc::clone(fanned.kept());
        let bytes = message.cost_bytes();
        self.mail(to.worker, Mail::Deliver(message, Arc::clone(&to.receivers)), bytes);
    }

    fn mail(&mut self, to: WorkerId, mail: Mail, bytes: usize) {
        let outgoing = &mut self.outgoing[to.index()];
        outgoing.letters.push(mail);
        outgoing.bytes += bytes;
        *self.has_mail = true;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use tracing::{Event, Metadata, Subscriber, span};

    use super::*;
    use crate::broker::{BrokerOptions, Parts};
    use crate::router::RetainedLimits;
    use crate::session::peer::tests::peer;

    /// Counts what is told.
    #[derive(Clone, Default)]
    struct Lines(Arc<AtomicU64>);

    impl Subscriber for Lines {
        fn enabled(&self, metadata: &Metadata<'_>) -> bool {
            metadata.target().ends_with("broker::route")
        }

        fn event(&self, _: &Event<'_>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }

        fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
            span::Id::from_u64(1)
        }

        fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
        fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
        fn enter(&self, _: &span::Id) {}
        fn exit(&self, _: &span::Id) {}
    }

    #[test]
    fn a_flood_of_retained_messages_that_are_refused_is_a_line_a_minute() {
        let now = Time(1_000_000);
        let mut options = BrokerOptions::default();
        options.retained = RetainedLimits {
            messages_max: 1,
            ..options.retained
        };
        let mut worker = Worker::new(Broker::new(options, 1, Parts::default()), WorkerId(0), now);
        let key = worker.open(peer(), now.plus_secs(10), now);
        worker.receive(key, b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x00\x00\x01c", now);
        let lines = Lines::default();
        tracing::subscriber::with_default(lines.clone(), || {
            for (expected, now) in [(1, now), (2, now.plus_secs(61))] {
                for topic in b'A'..=b'Z' {
                    worker.receive(key, &[0x31, 4, 0, 1, topic, b'x'], now);
                }
                assert_eq!(lines.0.load(Ordering::Relaxed), expected);
            }
        });
        assert_eq!(worker.metrics().limit_retained_messages.get(), 2 * 26 - 2);
    }
}
