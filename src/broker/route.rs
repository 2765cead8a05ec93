//! From a publication to everyone who wants it: retained store, receivers here and on other workers, shared groups.

use std::sync::Arc;

use smallvec::SmallVec;
use tracing::warn;

use super::mail::{Mail, MemberDelivery, Outgoing};
use super::worker::{Worker, next_random};
use super::{Broker, read, write};
use crate::delivery::fan_out::{Delivered, Tally};
use crate::delivery::frames::Fanned;
use crate::delivery::residents::Residents;
use crate::protocol::ids::{SessionKey, WorkerId};
use crate::protocol::message::{Message, Publication};
use crate::protocol::time::Time;
use crate::router::shared::{Choice, SharedGroup};
use crate::router::{RetainedError, WorkerReceivers};

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

impl Worker {
    /// Routes a publication. `kept` is its kept form, where there is one already.
    pub(super) fn route(&mut self, publication: &Publication<'_>, kept: Option<Arc<Message>>, now: Time) -> Routed {
        let mut kept = kept;
        if publication.retain && self.broker.options.retain_available {
            let message = kept.get_or_insert_with(|| Arc::new(publication.to_message()));
            if !self.retain(message) {
                return Routed::Refused;
            }
        }
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
                true => tally.taken += 1,
                false if publication.qos.is_acknowledged() => {
                    reach.residents.metrics.dropped_queue_full_qos1_2.increment();
                    tally.refused += 1;
                }
                false => reach.residents.metrics.dropped_offline_qos0.increment(),
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
        group: &SharedGroup,
        tried: &[SessionKey],
        now: Time,
    ) -> bool {
        let publication = message.view();
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
        let current = matched.groups.iter().find(|current| current.name == group.name);
        current.is_some_and(|group| reach.member(&mut fanned, group, tried.into()))
    }

    /// Sets or, with an empty payload, clears a topic's retained message [MQTT-3.3.1-5] [MQTT-3.3.1-6]. False when there is no room.
    fn retain(&mut self, message: &Arc<Message>) -> bool {
        let mut retained = write(&self.broker.retained);
        if message.payload().is_empty() {
            retained.clear(message.topic());
            return true;
        }
        let Err(error) = retained.set(Arc::clone(message)) else {
            return true;
        };
        drop(retained);
        match error {
            RetainedError::Bytes { .. } => self.metrics().limit_retained_bytes.increment(),
            _ => self.metrics().limit_retained_messages.increment(),
        }
        warn!(topic = message.topic().as_str(), %error, "retained message refused");
        false
    }
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

    /// To one member of a shared subscription that has not been tried; false when nobody can take it.
    fn member(
        &mut self,
        fanned: &mut Fanned<'_>,
        group: &Arc<SharedGroup>,
        mut tried: SmallVec<[SessionKey; 2]>,
    ) -> bool {
        loop {
            let choice = Choice {
                publisher: fanned.publication.publisher,
                topic: fanned.publication.topic.as_str(),
                qos: fanned.publication.qos,
                random: next_random(self.random),
                excluded: &tried,
            };
            let Some(member) = group.choose(&choice) else {
                return false;
            };
            if member.session.worker != self.me {
                let (message, group, receiver) = (Arc::clone(fanned.kept()), Arc::clone(group), member.clone());
                let delivery = MemberDelivery {
                    message,
                    receiver,
                    group,
                    tried,
                };
                let bytes = delivery.message.cost_bytes();
                self.mail(member.session.worker, Mail::DeliverToMember(Box::new(delivery)), bytes);
                return true;
            }
            if self.residents.deliver(fanned, member, Some(group), self.now) == Delivered::Taken {
                return true;
            }
            tried.push(member.session);
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
