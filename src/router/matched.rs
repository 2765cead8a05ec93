//! The answer to "who wants this topic": receivers by worker, and shared groups.

use std::sync::Arc;

use smallvec::SmallVec;

use super::shared::SharedGroup;
use super::status::SessionStatus;
use super::subscribers::Subscriber;
use crate::protocol::ids::{SessionKey, WorkerId};
use crate::protocol::qos::QoS;

/// Who receives a topic's messages. Immutable and shared: a worker keeps it in its cache, and sends the part of another worker
/// there by reference.
#[derive(Clone, Debug, Default)]
pub struct Matched {
    /// Receivers of subscriptions that are not shared, grouped by worker in ascending order; no group is empty.
    pub workers: SmallVec<[WorkerReceivers; 1]>,
    /// Shared groups that match; each delivers to one of its members.
    pub groups: Box<[Arc<SharedGroup>]>,
}

impl Matched {
    /// True when nobody wants the topic.
    pub fn is_empty(&self) -> bool {
        self.workers.is_empty() && self.groups.is_empty()
    }

    /// Number of receivers, shared groups not counted.
    pub fn receivers_len(&self) -> usize {
        self.workers.iter().map(|worker| worker.receivers.len()).sum()
    }

    /// All receivers, shared groups not included.
    pub fn receivers(&self) -> impl Iterator<Item = &Receiver> {
        self.workers.iter().flat_map(|worker| worker.receivers.iter())
    }
}

/// The receivers that live on one worker.
#[derive(Clone, Debug)]
pub struct WorkerReceivers {
    /// The worker.
    pub worker: WorkerId,
    /// Its receivers, ordered by session; not empty.
    pub receivers: Arc<[Receiver]>,
}

/// One session that receives, and how.
#[derive(Clone, Debug)]
pub struct Receiver {
    /// The session.
    pub session: SessionKey,
    /// The highest QoS that was granted to one of its matching subscriptions [MQTT-3.3.4-2]; a delivery has the lower one of this
    /// and the message's.
    pub qos: QoS,
    /// True when one of the subscriptions wants the retain flag as the publisher set it [MQTT-3.3.1-13].
    pub retain_as_published: bool,
    /// What to do when the publisher is the receiver itself [MQTT-3.8.3-3].
    pub no_local: NoLocal,
    /// Subscription identifiers of all matching subscriptions, ascending; the same one may stand twice [MQTT-3.3.4-3].
    pub identifiers: SmallVec<[u32; 1]>,
    /// What is known of the session from outside.
    pub status: Arc<SessionStatus>,
}

impl Receiver {
    pub(super) fn new(subscriber: &Subscriber) -> Self {
        Self {
            session: subscriber.session,
            qos: subscriber.options.qos,
            retain_as_published: subscriber.options.retain_as_published,
            no_local: NoLocal::of(subscriber),
            identifiers: subscriber.identifier.into_iter().collect(),
            status: subscriber.status.clone(),
        }
    }

    /// Adds another subscription of the same session.
    pub(super) fn merge(&mut self, subscriber: &Subscriber) {
        self.qos = self.qos.max(subscriber.options.qos);
        self.retain_as_published |= subscriber.options.retain_as_published;
        if self.no_local != NoLocal::of(subscriber) {
            self.no_local = NoLocal::Mixed;
        }
        if let Some(identifier) = subscriber.identifier {
            let at = self.identifiers.partition_point(|other| *other <= identifier);
            self.identifiers.insert(at, identifier);
        }
    }
}

/// Which of a receiver's matching subscriptions have the No Local option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoLocal {
    /// None: the receiver gets its own messages.
    Never,
    /// All: the receiver does not get its own messages.
    All,
    /// Some: ask `Subscriptions::matches_own` for the receiver that the others make.
    Mixed,
}

impl NoLocal {
    fn of(subscriber: &Subscriber) -> Self {
        if subscriber.options.no_local {
            Self::All
        } else {
            Self::Never
        }
    }
}

/// What happens when several subscriptions of one session match a message. The specification allows both [MQTT-3.3.4-2].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Overlap {
    /// The message is delivered once, at the highest QoS, with all subscription identifiers.
    #[default]
    Once,
    /// The message is delivered once for each subscription.
    Each,
}

/// Collects what a walk through the trie finds.
#[derive(Default)]
pub(super) struct Gathered<'a> {
    pub(super) subscribers: SmallVec<[&'a Subscriber; 16]>,
    pub(super) groups: Vec<Arc<SharedGroup>>,
}

impl Gathered<'_> {
    pub(super) fn into_matched(mut self, overlap: Overlap) -> Matched {
        if self.subscribers.len() > 1 {
            // Stable: with `Overlap::Each` the copies of one session come in the trie's order.
            self.subscribers.sort_by_key(|subscriber| subscriber.session);
        }
        let mut workers = SmallVec::new();
        for of_worker in self.subscribers.chunk_by(|a, b| a.session.worker == b.session.worker) {
            workers.push(WorkerReceivers {
                worker: of_worker[0].session.worker,
                receivers: receivers(of_worker, overlap),
            });
        }
        Matched {
            workers,
            groups: self.groups.into_boxed_slice(),
        }
    }
}

fn receivers(subscribers: &[&Subscriber], overlap: Overlap) -> Arc<[Receiver]> {
    if let [subscriber] = subscribers {
        return Arc::new([Receiver::new(subscriber)]);
    }
    let mut receivers: Vec<Receiver> = Vec::with_capacity(subscribers.len());
    for subscriber in subscribers {
        match receivers.last_mut() {
            Some(last) if overlap == Overlap::Once && last.session == subscriber.session => last.merge(subscriber),
            _ => receivers.push(Receiver::new(subscriber)),
        }
    }
    receivers.into()
}
