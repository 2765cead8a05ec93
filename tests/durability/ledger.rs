//! What was sent, acknowledged and delivered over all lives of the broker, and what is wrong with it.
//!
//! Stamps come from one counter: a message sent after a SUBACK was seen has the greater stamp. Only what holds whatever the
//! network and the threads did in between is called a fault.

use std::collections::{BTreeMap, HashMap};

/// Everything that the clients of one history know.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    clock: u64,
    /// Starts of the broker so far.
    pub(crate) life: usize,
    messages: Vec<Message>,
    topics: Vec<String>,
    audiences: Vec<Audience>,
    wills: Vec<Will>,
    faults: Vec<String>,
    /// First arrivals, of all audiences.
    pub(crate) delivered: usize,
    /// Second and later arrivals where they are allowed: QoS 1.
    pub(crate) duplicates: usize,
    /// Messages that the broker refused.
    pub(crate) refused: usize,
    /// Whether the last life ended in order: with the wills of everybody who was there.
    pub(crate) is_stopped: bool,
    /// Whether somebody is subscribed to the wills.
    pub(crate) has_witness: bool,
}

/// One message.
#[derive(Debug)]
struct Message {
    publisher: usize,
    /// Among the topics.
    topic: usize,
    qos: u8,
    is_retained: bool,
    /// Without the number in front; 0 with `is_retained` clears.
    length: usize,
    sent: u64,
    /// PUBACK or PUBREC with success seen, and in which life.
    acknowledged: Option<(u64, usize)>,
    is_refused: bool,
}

/// Who must get messages: one session, or the members of a shared group together.
#[derive(Debug)]
struct Audience {
    name: String,
    filter: String,
    qos: u8,
    is_group: bool,
    /// From a SUBACK that was seen until an UNSUBSCRIBE, or a CONNECT that clears the session, that was sent.
    subscribed: Vec<Span>,
    arrived: HashMap<usize, u32>,
    /// Of each publisher and topic the latest first arrival.
    latest: HashMap<(usize, usize), usize>,
    /// Messages below this number arrived or never have to.
    settled: usize,
}

/// While a session was surely subscribed, and around it while that was not certain.
#[derive(Debug)]
struct Span {
    /// SUBSCRIBE sent.
    asked: u64,
    /// SUBACK seen.
    begun: Option<u64>,
    /// UNSUBSCRIBE or clearing CONNECT sent.
    ending: Option<u64>,
    /// UNSUBACK or CONNACK seen.
    ended: Option<u64>,
    /// It ended with the session: what waited is gone, too.
    is_cleared: bool,
}

/// What must become of a will.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Not known: it may be published.
    Open,
    /// It must be published, once.
    Published,
    /// Its client came back or said goodbye: it must not.
    Void,
}

#[derive(Debug)]
struct Will {
    name: String,
    fate: Fate,
    arrived: u32,
}

impl Ledger {
    /// The time now, by the ledger's own clock.
    pub(crate) fn stamp(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    /// A new audience; its number.
    pub(crate) fn audience(&mut self, name: &str, filter: &str, qos: u8, is_group: bool) -> usize {
        self.audiences.push(Audience {
            name: name.to_owned(),
            filter: filter.to_owned(),
            qos,
            is_group,
            subscribed: Vec::new(),
            arrived: HashMap::new(),
            latest: HashMap::new(),
            settled: 0,
        });
        self.audiences.len() - 1
    }

    pub(crate) fn subscribing(&mut self, audience: usize) {
        let asked = self.stamp();
        self.audiences[audience].subscribed.push(Span {
            asked,
            begun: None,
            ending: None,
            ended: None,
            is_cleared: false,
        });
    }

    pub(crate) fn subscribed(&mut self, audience: usize) {
        let now = self.stamp();
        if let Some(span) = self.audiences[audience].subscribed.last_mut() {
            span.begun.get_or_insert(now);
        }
    }

    /// Whether it ever was.
    pub(crate) fn has_subscribed(&self, audience: usize) -> bool {
        self.audiences[audience]
            .subscribed
            .iter()
            .any(|span| span.begun.is_some())
    }

    /// An UNSUBSCRIBE, or a CONNECT that clears, is sent.
    pub(crate) fn unsubscribing(&mut self, audience: usize, is_cleared: bool) {
        let now = self.stamp();
        for span in &mut self.audiences[audience].subscribed {
            if span.ended.is_none() {
                span.ending.get_or_insert(now);
                span.is_cleared |= is_cleared;
            }
        }
    }

    /// UNSUBACK, or CONNACK of a cleared session, seen.
    pub(crate) fn unsubscribed(&mut self, audience: usize) {
        let now = self.stamp();
        for span in &mut self.audiences[audience].subscribed {
            span.ended.get_or_insert(now);
        }
    }

    /// A message is about to be sent for the first time: its number and its payload.
    pub(crate) fn publish(
        &mut self,
        publisher: usize,
        topic: &str,
        qos: u8,
        retain: bool,
        length: usize,
    ) -> (usize, Vec<u8>) {
        let sent = self.stamp();
        let number = self.messages.len();
        let topic = self.topic(topic);
        self.messages.push(Message {
            publisher,
            topic,
            qos,
            is_retained: retain,
            length,
            sent,
            acknowledged: None,
            is_refused: false,
        });
        (number, payload(number, length))
    }

    fn topic(&mut self, name: &str) -> usize {
        let known = self.topics.iter().position(|topic| topic == name);
        known.unwrap_or_else(|| {
            self.topics.push(name.to_owned());
            self.topics.len() - 1
        })
    }

    /// PUBACK or PUBREC with success.
    pub(crate) fn acknowledge(&mut self, number: usize) {
        let now = self.stamp();
        let life = self.life;
        self.messages[number].acknowledged.get_or_insert((now, life));
    }

    /// PUBACK or PUBREC with an error.
    pub(crate) fn refuse(&mut self, number: usize) {
        self.refused += 1;
        self.messages[number].is_refused = true;
    }

    /// A message arrived; of QoS 2, one that its client had not got before by the rules of the protocol.
    pub(crate) fn arrive(&mut self, audience: usize, topic: &str, qos: u8, bytes: &[u8]) {
        let Some(number) = number_of(bytes).filter(|number| *number < self.messages.len()) else {
            let name = &self.audiences[audience].name;
            self.faults
                .push(format!("{name} got what nobody sent: {topic} {} bytes", bytes.len()));
            return;
        };
        let life = self.life;
        let message = &self.messages[number];
        let to = &mut self.audiences[audience];
        let about = format!(
            "{} in life {life}: message {number} ({}, QoS {} of publisher {}, acknowledged {:?})",
            to.name, self.topics[message.topic], message.qos, message.publisher, message.acknowledged
        );
        let expected_qos = message.qos.min(to.qos);
        if self.topics[message.topic] != topic || qos != expected_qos || payload(number, message.length) != bytes {
            self.faults.push(format!(
                "changed on its way to {about}: {topic}, QoS {qos}, {} bytes",
                bytes.len()
            ));
        }
        if !to.may_have(message) {
            self.faults.push(format!("not subscribed any more: {about}"));
        }
        if to.is_cleared_of(message) && !to.arrived.contains_key(&number) {
            self.faults.push(format!("of a session that was cleared: {about}"));
        }
        let times = to.arrived.entry(number).or_insert(0);
        *times += 1;
        if *times > 1 {
            if expected_qos == 2 {
                self.faults.push(format!("twice at {about}"));
            }
            self.duplicates += 1;
            return;
        }
        self.delivered += 1;
        // One that was sent before the SUBACK may come late: again, after a connection was lost.
        let was_subscribed = to.is_subscribed_at(message.sent);
        let latest = to.latest.entry((message.publisher, message.topic)).or_insert(number);
        if *latest > number && !to.is_group && was_subscribed {
            self.faults.push(format!("after message {latest} came at {about}"));
        }
        *latest = number.max(*latest);
    }

    /// A client with a will is about to connect: the will's number.
    pub(crate) fn will(&mut self, name: &str) -> usize {
        self.wills.push(Will {
            name: name.to_owned(),
            fate: Fate::Open,
            arrived: 0,
        });
        self.wills.len() - 1
    }

    pub(crate) fn will_is(&mut self, will: usize, fate: Fate) {
        self.wills[will].fate = fate;
    }

    /// A will arrived at its witness.
    pub(crate) fn will_arrived(&mut self, bytes: &[u8]) {
        match number_of(bytes).and_then(|number| self.wills.get_mut(number)) {
            Some(will) => will.arrived += 1,
            None => self.faults.push(format!("a will that nobody left: {bytes:02x?}")),
        }
    }

    /// Something that should not be, seen by a client.
    pub(crate) fn fault(&mut self, fault: String) {
        self.faults.push(format!("in life {}: {fault}", self.life));
    }

    /// How many messages were acknowledged.
    pub(crate) fn acknowledged(&self) -> usize {
        self.messages
            .iter()
            .filter(|message| message.acknowledged.is_some())
            .count()
    }

    /// Wills that must be published, and that were not yet.
    pub(crate) fn wills_missing(&self) -> usize {
        let is_missing = |will: &&Will| will.fate == Fate::Published && will.arrived == 0;
        self.wills.iter().filter(is_missing).count()
    }

    /// Wills that must be published, and those that must not.
    pub(crate) fn wills_judged(&self) -> (usize, usize) {
        let count = |fate| self.wills.iter().filter(|will| will.fate == fate).count();
        (count(Fate::Published), count(Fate::Void))
    }

    /// What is missing at each audience.
    fn missing(&mut self) -> BTreeMap<String, Vec<usize>> {
        let mut missing: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for audience in &mut self.audiences {
            let of_interest: Vec<bool> = self
                .topics
                .iter()
                .map(|topic| matches(&audience.filter, topic))
                .collect();
            let mut is_all_settled = true;
            for number in audience.settled..self.messages.len() {
                let message = &self.messages[number];
                let is_final = message.acknowledged.is_some() || message.is_refused;
                let is_missing = of_interest[message.topic]
                    && audience.must_have(message)
                    && !audience.arrived.contains_key(&number);
                if is_missing {
                    missing.entry(audience.name.clone()).or_default().push(number);
                }
                is_all_settled &= is_final && !is_missing;
                if is_all_settled {
                    audience.settled = number + 1;
                }
            }
        }
        missing
    }

    /// How many deliveries are missing, wills not counted.
    pub(crate) fn missing_count(&mut self) -> usize {
        self.missing().values().map(Vec::len).sum()
    }

    /// What may be retained on each topic: numbers of messages, `None` for nothing.
    pub(crate) fn retained_allowed(&self) -> BTreeMap<String, Vec<Option<usize>>> {
        let mut allowed: BTreeMap<String, Vec<Option<usize>>> = BTreeMap::new();
        for (number, message) in self
            .messages
            .iter()
            .enumerate()
            .filter(|(_, message)| message.is_retained)
        {
            let entry = allowed
                .entry(self.topics[message.topic].clone())
                .or_insert_with(|| vec![None]);
            if message.acknowledged.is_some() {
                entry.clear();
            }
            entry.push((message.length > 0).then_some(number));
        }
        allowed
    }

    /// Compares what is retained, by topic, with what may be.
    pub(crate) fn check_retained(&mut self, found: &BTreeMap<String, Vec<u8>>) {
        let life = self.life;
        for (topic, allowed) in self.retained_allowed() {
            let has = found.get(&topic).map(|bytes| number_of(bytes).unwrap_or(usize::MAX));
            if !allowed.contains(&has) {
                self.faults.push(format!(
                    "in life {life}: {topic} retains {has:?}, it may be one of {allowed:?}"
                ));
            }
        }
        for topic in found.keys().filter(|topic| !self.topics.contains(topic)) {
            self.faults
                .push(format!("in life {life}: {topic} is retained, nobody sent it"));
        }
    }

    /// Everything that is wrong, one line each; what is missing in a line for each audience and life.
    pub(crate) fn faults(&mut self) -> Vec<String> {
        let mut faults = self.faults.clone();
        for (name, numbers) in self.missing() {
            let mut by_life: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
            for number in numbers {
                let life = self.messages[number].acknowledged.map_or(0, |at| at.1);
                by_life.entry(life).or_default().push(number);
            }
            for (life, numbers) in by_life {
                let first = &self.messages[numbers[0]];
                faults.push(format!(
                    "lost: {} messages acknowledged in life {life} never came to {name}: first {} ({}, QoS {}), last {:?}",
                    numbers.len(),
                    numbers[0],
                    self.topics[first.topic],
                    first.qos,
                    numbers.last(),
                ));
            }
        }
        for will in &self.wills {
            match (will.fate, will.arrived) {
                (Fate::Published, 0) => faults.push(format!("lost: the will of {}", will.name)),
                (Fate::Void, 1..) => faults.push(format!(
                    "published, though its client was there: the will of {}",
                    will.name
                )),
                (_, 2..) => faults.push(format!("published {} times: the will of {}", will.arrived, will.name)),
                _ => {}
            }
        }
        faults
    }
}

impl Audience {
    /// Whether it was surely subscribed when the message was sent, and stayed so until it was acknowledged.
    fn must_have(&self, message: &Message) -> bool {
        let Some((acknowledged, _)) = message.acknowledged.filter(|_| !message.is_refused) else {
            return false;
        };
        self.subscribed.iter().any(|span| {
            let is_begun = span.begun.is_some_and(|begun| begun < message.sent);
            is_begun
                && span
                    .ending
                    .is_none_or(|ending| acknowledged < ending && !span.is_cleared)
        })
    }

    /// Whether it was perhaps subscribed at a moment when the broker may have taken the message.
    fn may_have(&self, message: &Message) -> bool {
        self.subscribed.iter().any(|span| {
            let is_before_end = span.ended.is_none_or(|ended| message.sent < ended);
            is_before_end && message.acknowledged.is_none_or(|(at, _)| span.asked < at)
        })
    }

    /// Whether what waited was thrown away after the message was taken.
    fn is_cleared_of(&self, message: &Message) -> bool {
        let is_before = |span: &Span| message.acknowledged.is_some_and(|(at, _)| Some(at) < span.ending);
        let mut cleared = self
            .subscribed
            .iter()
            .filter(|span| span.is_cleared && span.ended.is_some());
        cleared.any(is_before)
    }

    fn is_subscribed_at(&self, stamp: u64) -> bool {
        let covers = |span: &Span| {
            span.begun.is_some_and(|begun| begun < stamp) && span.ending.is_none_or(|ending| stamp < ending)
        };
        self.subscribed.iter().any(covers)
    }
}

/// Whether a filter, without a group, matches a topic (4.7.1).
fn matches(filter: &str, topic: &str) -> bool {
    let mut topic = topic.split('/');
    for part in filter.split('/') {
        match (part, topic.next()) {
            ("#", _) => return true,
            ("+", Some(_)) => {}
            (part, Some(level)) if part == level => {}
            _ => return false,
        }
    }
    topic.next().is_none()
}

/// The payload of a message: its number, and as many bytes as it is long, each one following from both.
fn payload(number: usize, length: usize) -> Vec<u8> {
    if length == 0 {
        return Vec::new();
    }
    let mut bytes = format!("{number} ").into_bytes();
    bytes.extend((0..length).map(|at| (number.wrapping_mul(31) + at) as u8));
    bytes
}

/// The number that a payload starts with.
fn number_of(bytes: &[u8]) -> Option<usize> {
    let end = bytes.iter().position(|byte| *byte == b' ')?;
    std::str::from_utf8(&bytes[..end]).ok()?.parse().ok()
}
