//! From a publication to everyone who wants it: retained store, receivers here and on other workers, shared groups.

use std::sync::Arc;

use tracing::warn;

use super::mail::{Mail, MemberDelivery};
use super::worker::{Worker, next_random};
use super::{read, write};
use crate::delivery::fan_out::{Delivered, Tally};
use crate::delivery::frames::Fanned;
use crate::protocol::ids::SessionKey;
use crate::protocol::message::{Message, Publication};
use crate::protocol::time::Time;
use crate::router::RetainedError;
use crate::router::shared::{Choice, SharedGroup};

/// What became of a publication.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Routed {
    /// Somebody took it, or nobody had to.
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
        let Self { me, broker, residents, cache, frames, outgoing, has_mail, random, .. } = self;
        let matched = cache.resolve(publication.topic, || read(&broker.subscriptions).matches(publication.topic));
        if matched.is_empty() {
            residents.metrics.dropped_no_subscriber.increment();
            return if publication.retain { Routed::Taken } else { Routed::NoSubscriber };
        }
        let mut fanned = Fanned::new(publication, kept, frames, matched.receivers_len() + matched.groups.len(), now);
        let mut tally = Tally::default();
        for receivers in &matched.workers {
            if receivers.worker == *me {
                let own = || read(&broker.subscriptions).matches_own(publication.topic, publication.publisher?);
                let here = residents.fan_out(&mut fanned, &receivers.receivers, own, now);
                tally.taken += here.taken;
                tally.refused += here.refused;
            } else if !publication.qos.is_acknowledged()
                && broker.mailboxes.waiting(receivers.worker) > broker.options.mailbox_letters_max
            {
                residents.metrics.dropped_queue_full_qos0.add(receivers.receivers.len() as u64);
            } else {
                let full = receivers.receivers.iter().all(|receiver| receiver.status.is_full());
                if publication.qos.is_acknowledged() && full {
                    tally.refused += 1;
                    continue;
                }
                let mail = Mail::Deliver(Arc::clone(fanned.kept()), Arc::clone(&receivers.receivers));
                outgoing[receivers.worker.index()].push(mail);
                *has_mail = true;
                tally.taken += 1;
            }
        }
        for group in &matched.groups {
            let mut tried: smallvec::SmallVec<[SessionKey; 2]> = smallvec::SmallVec::new();
            let is_taken = loop {
                let choice = Choice {
                    publisher: publication.publisher,
                    topic: publication.topic.as_str(),
                    qos: publication.qos,
                    random: next_random(random),
                    excluded: &tried,
                };
                let Some(member) = group.choose(&choice) else { break false };
                if member.session.worker != *me {
                    let delivery = MemberDelivery {
                        message: Arc::clone(fanned.kept()),
                        receiver: member.clone(),
                        group: Arc::clone(group),
                        tried,
                    };
                    outgoing[member.session.worker.index()].push(Mail::DeliverToMember(Box::new(delivery)));
                    *has_mail = true;
                    break true;
                }
                if residents.deliver(&mut fanned, member, Some(group), now) == Delivered::Taken {
                    break true;
                }
                tried.push(member.session);
            };
            if is_taken {
                tally.taken += 1;
            } else if !publication.qos.is_acknowledged() {
                residents.metrics.dropped_offline_qos0.increment();
            } else {
                tally.refused += 1;
            }
        }
        if tally.taken == 0 && tally.refused > 0 && !publication.retain { Routed::Refused } else { Routed::Taken }
    }

    /// Gives a message that was meant for one member of a shared subscription to another.
    pub(super) fn route_to_group(&mut self, message: &Arc<Message>, group: &Arc<SharedGroup>, tried: &[SessionKey], now: Time) {
        let publication = message.view();
        // The members may have changed since the message was routed first.
        let matched = Arc::clone(
            self.cache.resolve(publication.topic, || read(&self.broker.subscriptions).matches(publication.topic)),
        );
        let Some(group) = matched.groups.iter().find(|current| current.name == group.name) else {
            self.metrics().dropped_session_ended.increment();
            return;
        };
        let mut tried: smallvec::SmallVec<[SessionKey; 2]> = tried.into();
        loop {
            let choice = Choice {
                publisher: publication.publisher,
                topic: publication.topic.as_str(),
                qos: publication.qos,
                random: self.next_random(),
                excluded: &tried,
            };
            let Some(member) = group.choose(&choice) else {
                self.metrics().dropped_session_ended.increment();
                return;
            };
            if member.session.worker != self.me {
                let to = member.session.worker.index();
                let (message, group, receiver) = (Arc::clone(message), Arc::clone(group), member.clone());
                self.outgoing[to].push(Mail::DeliverToMember(Box::new(MemberDelivery { message, receiver, group, tried })));
                self.has_mail = true;
                return;
            }
            let mut fanned = Fanned::new(&publication, Some(Arc::clone(message)), &mut self.frames, 1, now);
            if self.residents.deliver(&mut fanned, member, Some(group), now) == Delivered::Taken {
                return;
            }
            tried.push(member.session);
        }
    }

    /// Sets or, with an empty payload, clears a topic's retained message [MQTT-3.3.1-5] [MQTT-3.3.1-6]. False when there is no room.
    fn retain(&mut self, message: &Arc<Message>) -> bool {
        let mut retained = write(&self.broker.retained);
        if message.payload().is_empty() {
            retained.clear(message.topic());
            return true;
        }
        let Err(error) = retained.set(Arc::clone(message)) else { return true };
        drop(retained);
        match error {
            RetainedError::Bytes { .. } => self.metrics().limit_retained_bytes.increment(),
            _ => self.metrics().limit_retained_messages.increment(),
        }
        warn!(topic = message.topic().as_str(), %error, "retained message refused");
        false
    }
}
