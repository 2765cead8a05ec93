//! What was promised: every message, every session and every subscription as the clients see them, and the judgement over it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use sundew::protocol::qos::QoS;
use sundew::protocol::topic::{TopicFilter, matches};

use crate::late::{is_denied, own_of_any};

/// What the simulation asserts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Invariant {
    AtLeastOnce,
    ExactlyOnce,
    Order,
    NoLostAcknowledgement,
    AcknowledgementOrder,
    OnlySubscribed,
    Retained,
    SessionKept,
    Bounded,
    NothingLeft,
    WellFormed,
    NoPanic,
}

impl fmt::Display for Invariant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AtLeastOnce => "what is acknowledged arrives",
            Self::ExactlyOnce => "nothing arrives more often than its QoS allows",
            Self::Order => "order by topic, publisher and QoS",
            Self::NoLostAcknowledgement => "every request is answered",
            Self::AcknowledgementOrder => "acknowledgements leave in the order of the requests",
            Self::OnlySubscribed => "nothing arrives without a matching subscription",
            Self::Retained => "the retained store is what was published",
            Self::SessionKept => "a session lives as long as it was promised",
            Self::Bounded => "windows and queues stay within their bounds",
            Self::NothingLeft => "nothing is left when everybody has gone",
            Self::WellFormed => "the broker speaks MQTT",
            Self::NoPanic => "nothing panics",
        })
    }
}

/// A broken invariant.
#[derive(Clone, Debug)]
pub(crate) struct Breach {
    pub invariant: Invariant,
    pub what: String,
}

pub(crate) type MessageId = usize;

/// A message as its publisher knows it. Moments are steps of the simulation.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    pub publisher: usize,
    pub topic: String,
    pub qos: QoS,
    pub retain: bool,
    pub is_clear: bool,
    pub is_will: bool,
    /// How often it was sent.
    pub sends: usize,
    pub first_sent: u64,
    /// When the broker's acceptance reached the publisher.
    pub accepted: Option<u64>,
    pub padding: usize,
}

impl Message {
    pub(crate) fn payload(&self, id: MessageId) -> Vec<u8> {
        if self.is_clear {
            return Vec::new();
        }
        let mut payload = format!("{id}:").into_bytes();
        payload.resize(payload.len() + self.padding, b'x');
        payload
    }
}

/// A subscription as its client knows it.
#[derive(Clone, Debug)]
pub(crate) struct Sub {
    pub filter: String,
    pub qos: QoS,
    pub no_local: bool,
    pub granted: Option<u64>,
    pub end_asked: Option<u64>,
    pub ended: Option<u64>,
}

impl Sub {
    fn bare(&self) -> &str {
        TopicFilter::parse(&self.filter).unwrap().filter()
    }

    fn is_shared(&self) -> bool {
        self.filter.starts_with("$share/")
    }

    pub(crate) fn matches(&self, topic: &str) -> bool {
        matches(self.bare(), topic)
    }

    /// It was there for certain, from before the message was sent until after it was accepted.
    fn covers(&self, message: &Message) -> bool {
        self.granted.is_some_and(|granted| granted < message.first_sent)
            && message
                .accepted
                .is_some_and(|accepted| self.end_asked.is_none_or(|end| end > accepted))
    }
}

/// How often a message came.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Receipt {
    /// Copies that count: first ones, and those of QoS 2 that were new to the client.
    pub copies: usize,
    /// Copies of QoS 2 that were new to the client.
    pub exactly_once: usize,
}

/// One session from its creation to its end, as its client knows it.
#[derive(Clone, Debug)]
pub(crate) struct Epoch {
    pub client: usize,
    pub began: u64,
    pub is_over: bool,
    pub connections: usize,
    pub subs: Vec<Sub>,
    pub received: BTreeMap<MessageId, Receipt>,
    /// Retained messages that came for a new subscription, by topic.
    pub replayed: BTreeMap<String, MessageId>,
    last: BTreeMap<(usize, String, QoS, QoS), MessageId>,
}

/// A PUBLISH as it came to a client.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrived<'a> {
    pub topic: &'a str,
    pub payload: &'a [u8],
    pub qos: QoS,
    pub retain: bool,
    pub dup: bool,
}

/// How often something happened, so that it can be told what a run has seen.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Events {
    pub messages: u64,
    pub kills: u64,
    pub power_cuts: u64,
    pub orderly_stops: u64,
    pub damaged_files: u64,
    /// Refused because the store could not write.
    pub refusals: u64,
}

impl Events {
    pub(crate) fn add(&mut self, other: Self) {
        self.messages += other.messages;
        self.kills += other.kills;
        self.power_cuts += other.power_cuts;
        self.orderly_stops += other.orderly_stops;
        self.damaged_files += other.damaged_files;
        self.refusals += other.refusals;
    }
}

#[derive(Debug, Default)]
pub(crate) struct Ledger {
    pub events: Events,
    pub step: u64,
    pub messages: Vec<Message>,
    pub epochs: Vec<Epoch>,
    pub breach: Option<Breach>,
    /// When the broker was stopped, and began again.
    pub crashes: Vec<u64>,
    /// A bit of the store's files was turned around: something may be lost, but nothing may be invented.
    pub is_damaged: bool,
    /// The steps at which that happened.
    pub damages: Vec<u64>,
    /// More than may be lost without a gap was lost: even QoS 2 may come again.
    pub may_forget: bool,
    /// Queues are small, and deliveries may be dropped or refused.
    pub has_small_queues: bool,
    /// Deliveries that the broker said it dropped, see [`Ledger::judge`].
    pub losses_allowed: u64,
    /// A broker has refused a publication.
    pub has_refused: bool,
    pub trace: Option<Vec<String>>,
}

impl Ledger {
    pub(crate) fn fail(&mut self, invariant: Invariant, what: impl FnOnce() -> String) {
        if self.breach.is_none() {
            let what = format!("step {}: {}", self.step, what());
            self.note(|| what.clone());
            self.breach = Some(Breach { invariant, what });
        }
    }

    pub(crate) fn note(&mut self, what: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{:5} {}", self.step, what()));
        }
    }

    pub(crate) fn publish(&mut self, message: Message) -> MessageId {
        self.events.messages += 1;
        self.messages.push(message);
        self.messages.len() - 1
    }

    pub(crate) fn begin_epoch(&mut self, client: usize, subs: Vec<Sub>) -> usize {
        self.epochs.push(Epoch {
            client,
            began: self.step,
            is_over: false,
            connections: 0,
            subs,
            received: BTreeMap::new(),
            replayed: BTreeMap::new(),
            last: BTreeMap::new(),
        });
        self.epochs.len() - 1
    }

    /// A PUBLISH has come to a client. `is_new` is false for a QoS 2 packet that the client has already.
    pub(crate) fn arrived(&mut self, epoch: usize, arrived: Arrived<'_>, is_new: bool) {
        let Arrived {
            topic,
            payload,
            qos,
            retain,
            ..
        } = arrived;
        let client = self.epochs[epoch].client;
        let id = std::str::from_utf8(payload)
            .ok()
            .and_then(|text| text.split_once(':'))
            .and_then(|(id, _)| id.parse().ok());
        let Some(id): Option<MessageId> = id else {
            if !payload.is_empty() {
                self.fail(Invariant::WellFormed, || {
                    format!("client {client} got a payload that nobody sent on {topic}")
                });
            }
            return;
        };
        let Some(message) = self.messages.get(id).cloned() else {
            return self.fail(Invariant::WellFormed, || {
                format!("client {client} got message {id} that nobody sent")
            });
        };
        if message.topic != topic || message.payload(id) != payload {
            self.fail(Invariant::WellFormed, || {
                format!("client {client} got message {id} altered, on {topic}")
            });
        }
        self.check_subscribed(epoch, id, &message, arrived);
        if retain {
            // A copy for a new subscription: not one of those that are counted.
            self.epochs[epoch].replayed.insert(topic.to_owned(), id);
            if !message.retain {
                self.fail(Invariant::Retained, || {
                    format!("client {client} got message {id}, which is not retained, as such")
                });
            }
            return;
        }
        let is_first = !self.epochs[epoch].received.contains_key(&id);
        self.count_copy(epoch, id, &message, arrived, is_new);
        if is_first && !message.is_will && !own_of_any(topic).starts_with("s/") {
            self.check_order(epoch, id, &message, qos);
        }
    }

    fn count_copy(&mut self, epoch: usize, id: MessageId, message: &Message, arrived: Arrived<'_>, is_new: bool) {
        let Arrived { topic, qos, dup, .. } = arrived;
        let entry = &mut self.epochs[epoch];
        let client = entry.client;
        if dup && entry.connections <= 1 && !self.is_damaged {
            return self.fail(Invariant::ExactlyOnce, || {
                format!("client {client} got message {id} with DUP on its first connection")
            });
        }
        let receipt = entry.received.entry(id).or_default();
        if qos == QoS::ExactlyOnce {
            receipt.copies += usize::from(is_new);
            receipt.exactly_once += usize::from(is_new);
        } else {
            receipt.copies += usize::from(!dup);
        }
        let (copies, exactly_once) = (receipt.copies, receipt.exactly_once);
        // With QoS 1 a stop of the broker may make it forget that it has sent something, or that it has taken it already.
        let forgotten = self.crashes_since(message.first_sent);
        let allowed = if message.qos == QoS::AtLeastOnce {
            message.sends
        } else {
            1
        };
        // A member of a shared group may get again what it had not acknowledged and nobody else could take.
        let is_member = self.epochs[epoch].subs.iter().any(Sub::is_shared);
        let copies = if is_member { exactly_once } else { copies };
        let unsaid = self.damages_since(message.first_sent);
        if copies > allowed + forgotten || exactly_once > 1 + unsaid && !self.may_forget {
            self.fail(Invariant::ExactlyOnce, || {
                format!("client {client} got message {id} on {topic} {copies} times")
            });
        }
    }

    /// How often the broker was stopped since a step.
    fn crashes_since(&self, step: u64) -> usize {
        self.crashes.iter().filter(|crash| **crash > step).count()
    }

    /// How often a file was damaged since a step: that a message of QoS 2 left, or that it arrived, may be all that was said there.
    fn damages_since(&self, step: u64) -> usize {
        self.damages.iter().filter(|damage| **damage > step).count()
    }

    fn check_order(&mut self, epoch: usize, id: MessageId, message: &Message, qos: QoS) {
        let key = (message.publisher, message.topic.clone(), message.qos, qos);
        let last = self.epochs[epoch].last.insert(key, id);
        if self.is_damaged {
            return;
        }
        // One that was sent again may be new to a subscriber that came in between, or that had no room for it the first time; or it was refused the first
        // time, while the store could not write, and its client did not hear of that.
        let is_sure = |sub: &Sub| {
            let is_steady = sub.end_asked.is_none() && !sub.no_local && sub.qos >= qos;
            is_steady && sub.matches(&message.topic) && sub.granted.is_some_and(|at| at < message.first_sent)
        };
        let may_be_late = qos == QoS::AtMostOnce
            || self.has_small_queues
            || self.has_refused
            || !self.epochs[epoch].subs.iter().any(is_sure);
        if message.sends > 1 && may_be_late {
            return;
        }
        if let Some(last) = last.filter(|last| *last > id) {
            let client = self.epochs[epoch].client;
            self.fail(Invariant::Order, || {
                format!("client {client} got message {id} on {} after {last}", message.topic)
            });
        }
    }

    fn check_subscribed(&mut self, epoch: usize, id: MessageId, message: &Message, arrived: Arrived<'_>) {
        let entry = &self.epochs[epoch];
        let client = entry.client;
        let is_own = message.publisher == client && message.first_sent > entry.began && !message.is_will;
        // The way through the retained messages goes on when its subscription is replaced; and an end may have been in a gap.
        let is_lenient = arrived.retain || self.is_damaged;
        // An old session of this client may be there again.
        let former = self.epochs[..epoch].iter();
        let former = former.filter(|former| self.is_damaged && former.client == client);
        let subs = former.flat_map(|former| &former.subs).chain(&entry.subs);
        let mut fitting = subs.filter(|sub| {
            sub.matches(arrived.topic)
                && (sub.ended.is_none_or(|ended| ended > message.first_sent) || is_lenient)
                && !(is_own && sub.no_local && !arrived.retain)
        });
        let is_wanted = fitting.any(|sub| arrived.qos <= sub.qos.min(message.qos));
        if !is_wanted || is_denied(arrived.topic) {
            let qos = arrived.qos.bits();
            self.fail(Invariant::OnlySubscribed, || {
                format!(
                    "client {client} got message {id} on {} with QoS {qos} without asking for it",
                    message.topic
                )
            });
        }
    }

    /// At the end, when everybody is connected and nothing is under way.
    pub(crate) fn judge(&mut self) {
        if self.is_damaged {
            return;
        }
        let mut missing: Vec<(QoS, String)> = Vec::new();
        for (id, message) in self.messages.iter().enumerate() {
            let is_promised = message.accepted.is_some()
                && message.qos.is_acknowledged()
                && !message.is_clear
                && !is_denied(&message.topic);
            if !is_promised {
                continue;
            }
            for epoch in self.epochs.iter().filter(|epoch| !epoch.is_over) {
                let is_own = epoch.client == message.publisher;
                if is_own && epoch.subs.iter().any(|sub| sub.no_local) {
                    continue;
                }
                let covers = |sub: &&Sub| {
                    !sub.is_shared() && sub.qos.is_acknowledged() && sub.matches(&message.topic) && sub.covers(message)
                };
                if let Some(sub) = epoch.subs.iter().find(covers)
                    && !epoch.received.contains_key(&id)
                {
                    let what = format!("client {} never got message {id} on {}", epoch.client, message.topic);
                    missing.push((sub.qos.min(message.qos), what));
                }
            }
            self.judge_groups(id, message, &mut missing);
        }
        if missing.len() as u64 > self.losses_allowed {
            let (qos, what) = missing[0].clone();
            let invariant = if qos == QoS::ExactlyOnce {
                Invariant::ExactlyOnce
            } else {
                Invariant::AtLeastOnce
            };
            let (count, allowed) = (missing.len(), self.losses_allowed);
            self.fail(invariant, || {
                format!("{what} ({count} are missing, the broker owns up to {allowed})")
            });
        }
    }

    /// A message to a shared group reaches a member; with QoS 2 no more than one.
    fn judge_groups(&self, id: MessageId, message: &Message, missing: &mut Vec<(QoS, String)>) {
        let shared = || {
            self.epochs
                .iter()
                .flat_map(|epoch| epoch.subs.iter().map(move |sub| (epoch, sub)))
        };
        let groups: BTreeSet<&str> = shared()
            .filter(|(_, sub)| sub.is_shared() && sub.matches(&message.topic))
            .map(|(_, sub)| &*sub.filter)
            .collect();
        for group in groups {
            let members = || shared().filter(|(_, sub)| sub.filter == group);
            let has_certain = members().any(|(epoch, sub)| {
                !epoch.is_over && sub.qos.is_acknowledged() && sub.end_asked.is_none() && sub.covers(message)
            });
            // QoS 2 that was sent to a member goes with the member's session [MQTT-4.8.2-5].
            // So does what was sent to a member whose session ends with its connection, when the broker stops.
            let is_final = message.qos == QoS::ExactlyOnce || self.crashes_since(message.first_sent) > 0;
            let may_have_gone = is_final && members().any(|(epoch, _)| epoch.is_over);
            let clients: BTreeSet<usize> = members().map(|(epoch, _)| epoch.client).collect();
            let has_arrived = self
                .epochs
                .iter()
                .any(|epoch| clients.contains(&epoch.client) && epoch.received.contains_key(&id));
            if has_certain && !may_have_gone && !has_arrived {
                missing.push((
                    message.qos,
                    format!("no member of {group} got message {id} on {}", message.topic),
                ));
            }
        }
    }

    /// QoS 2 reaches one member of a shared group and no second one.
    pub(crate) fn judge_single_members(&mut self) {
        if self.may_forget {
            return;
        }
        let mut twice = None;
        for (id, message) in self
            .messages
            .iter()
            .enumerate()
            .filter(|(_, m)| own_of_any(&m.topic).starts_with("s/"))
        {
            let mut by_group: BTreeMap<&str, usize> = BTreeMap::new();
            for epoch in &self.epochs {
                let group = epoch
                    .subs
                    .iter()
                    .find(|sub| sub.is_shared() && sub.matches(&message.topic));
                // Of a member whose session is not kept, a broker that was stopped in between knows nothing.
                let is_forgotten = epoch.is_over && self.crashes_since(message.first_sent) > 0;
                if let (Some(group), Some(receipt), false) = (group, epoch.received.get(&id), is_forgotten) {
                    *by_group.entry(&group.filter).or_default() += receipt.exactly_once;
                }
            }
            twice = twice.or(by_group
                .into_iter()
                .find(|(_, count)| *count > 1 + self.damages_since(message.first_sent))
                .map(|(group, _)| (id, group.to_owned())));
        }
        if let Some((id, group)) = twice {
            self.fail(Invariant::ExactlyOnce, || {
                format!("two members of {group} got message {id}")
            });
        }
    }
}
