//! A snapshot that is taken session by session while the history goes on, followed by the log from where it began, is the history.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::protocol::source::Source;

/// What a state says, of a model or of an image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct State {
    sessions: BTreeMap<u64, Session>,
    /// Number of the message by topic.
    retained: BTreeMap<String, u64>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Session {
    expiry_secs: u32,
    /// Identifier by filter.
    subscriptions: BTreeMap<String, u32>,
    /// Its delay.
    will: Option<u32>,
    queued: Vec<(u64, u16)>,
    in_flight: Vec<(u64, u16, Progress)>,
    /// With the payload of a message that is not released.
    received: BTreeMap<u16, Option<String>>,
}

impl Session {
    fn has(&self, key: (u64, u16)) -> bool {
        self.queued.contains(&key) || self.in_flight.iter().any(|(number, copy, _)| (*number, *copy) == key)
    }

    fn remove(&mut self, key: (u64, u16)) {
        self.queued.retain(|queued| *queued != key);
        self.in_flight.retain(|(number, copy, _)| (*number, *copy) != key);
    }

    /// Some delivery of it.
    fn pick(&self, choice: usize) -> Option<(u64, u16)> {
        let in_flight = self.in_flight.iter().map(|(number, copy, _)| (*number, *copy));
        let all: Vec<_> = in_flight.chain(self.queued.iter().copied()).collect();
        (!all.is_empty()).then(|| all[choice % all.len()])
    }
}

impl From<Restored> for State {
    fn from(restored: Restored) -> Self {
        let session = |session: RestoredSession| {
            for delivery in session.queued.iter().chain(&session.in_flight) {
                let content = delivery.content.as_ref();
                let is_released = matches!(delivery.progress, Progress::Released(_));
                assert!(is_released || content.unwrap().payload() == delivery.message.0.to_string().as_bytes());
            }
            let key = |delivery: &RestoredDelivery| (delivery.message.0.get(), delivery.copy);
            let subscriptions = session.subscriptions.into_iter();
            let state = Session {
                expiry_secs: session.expiry_secs,
                subscriptions: subscriptions
                    .map(|restored| {
                        let identifier = restored.identifier.unwrap();
                        assert_eq!(restored.wants_retained, identifier % 2 == 1);
                        (restored.filter.into(), identifier)
                    })
                    .collect(),
                will: session.will.map(|will| will.delay_secs),
                queued: session.queued.iter().map(key).collect(),
                in_flight: session
                    .in_flight
                    .iter()
                    .map(|delivery| (key(delivery).0, key(delivery).1, delivery.progress))
                    .collect(),
                received: received(&session.received, &session.unreleased),
            };
            (session.number.0.get(), state)
        };
        let retained = restored.retained.iter().inspect(|message| {
            let number = message.number.unwrap().0.get();
            let source = message.source.as_ref().map(|source| source.view());
            assert_eq!(source, source_of(number, &number.to_string()));
        });
        Self {
            retained: retained
                .map(|message| (message.topic().as_str().into(), message.number.unwrap().0.get()))
                .collect(),
            sessions: restored.sessions.into_iter().map(session).collect(),
        }
    }
}

/// A broker of few words: what happens to it, and what it records.
#[derive(Default)]
struct Model {
    state: State,
    /// The session that each of a few clients has.
    clients: [Option<u64>; 3],
    sessions: u64,
    messages: u64,
    log: Vec<Vec<u8>>,
}

/// What happens: the kind, who, and what else it needs.
type Event = (u8, usize, usize, usize);

impl Model {
    fn record(&mut self, record: &Record<'_>) {
        self.log.push(encoded(record));
    }

    fn happen(&mut self, (kind, who, what, which): Event) {
        let client = who % self.clients.len();
        let Some(number) = self.clients[client] else {
            return self.start(client);
        };
        match kind {
            0 => {
                self.record(&Record::SessionEnded(session(number)));
                self.state.sessions.remove(&number);
                self.clients[client] = None;
            }
            1..=3 => self.change(number, kind, what, which),
            4..=6 => self.hand_over(number, what, which),
            7..=9 => self.publish(what, which),
            10..=13 => self.send(number),
            _ => self.come_further(number, kind, what),
        }
    }

    fn start(&mut self, client: usize) {
        self.sessions += 1;
        self.clients[client] = Some(self.sessions);
        self.state.sessions.insert(
            self.sessions,
            Session {
                expiry_secs: 1,
                ..Session::default()
            },
        );
        self.record(&session_record(self.sessions, 1));
    }

    fn change(&mut self, number: u64, kind: u8, what: usize, which: usize) {
        let state = self.state.sessions.get_mut(&number).unwrap();
        let filter = ["a", "b/#"][which % 2];
        let identifier = what as u32 + 1;
        let id = PacketId::new(which as u16 % 3 + 1).unwrap();
        let payload;
        let record = match (kind, what % 3) {
            (1, 0) => {
                state.subscriptions.remove(filter);
                Record::SubscriptionEnded(session(number), filter)
            }
            (1, _) => {
                state.subscriptions.insert(filter.into(), identifier);
                subscription_record(number, filter, identifier)
            }
            (2, 0) => {
                state.received.remove(&id.get());
                Record::ReceivedEnded(session(number), id)
            }
            (2, 1) => {
                state.received.insert(id.get(), None);
                Record::Received(session(number), id)
            }
            (2, _) => {
                payload = what.to_string();
                state.received.insert(id.get(), Some(payload.clone()));
                unreleased_record(number, id, &payload)
            }
            (_, 0) => {
                state.will = None;
                Record::WillEnded(session(number))
            }
            (_, 1) => {
                state.will = Some(identifier);
                will_record(number, identifier)
            }
            _ => {
                state.expiry_secs = identifier;
                session_record(number, identifier)
            }
        };
        let record = encoded(&record);
        self.log.push(record);
    }

    /// A new message for the clients whose bits are set, retained or not; or one that clears its topic.
    fn publish(&mut self, bits: usize, retained: usize) {
        self.messages += 1;
        let message = self.messages;
        let topic = topic_of(message);
        let is_clear = retained % 4 == 1;
        let order = (retained % 4 < 3).then_some(message);
        if order.is_some() {
            self.state.retained.remove(topic);
            if !is_clear {
                self.state.retained.insert(topic.into(), message);
            }
        }
        let mut deliveries = Vec::new();
        for (client, number) in self.clients.iter().enumerate() {
            if let Some(number) = number
                && bits >> client & 1 == 1
                && !is_clear
            {
                self.state.sessions.get_mut(number).unwrap().queued.push((message, 0));
                deliveries.push(to(*number, Progress::Queued));
            }
        }
        let payload = if is_clear { String::new() } else { message.to_string() };
        self.log
            .push(message_record(message, topic, &payload, order, &deliveries));
    }

    /// A delivery moves on to another client, or back again.
    fn hand_over(&mut self, from: u64, what: usize, which: usize) {
        let Some(to_number) = self.clients[which % self.clients.len()] else {
            return;
        };
        let Some(key) = self.state.sessions[&from].pick(what) else {
            return;
        };
        if to_number == from || self.state.sessions[&to_number].has(key) {
            return;
        }
        let is_released = |(number, copy, progress): &(u64, u16, Progress)| {
            (*number, *copy) == key && matches!(progress, Progress::Released(_))
        };
        if self.state.sessions[&from].in_flight.iter().any(is_released) {
            return; // the client has it
        }
        self.state.sessions.get_mut(&from).unwrap().remove(key);
        self.state.sessions.get_mut(&to_number).unwrap().queued.push(key);
        let deliveries = [to(to_number, Progress::Queued)];
        self.log.push(message_record(
            key.0,
            topic_of(key.0),
            &key.0.to_string(),
            None,
            &deliveries,
        ));
        self.record(&Record::DeliveryEnded(number(key.0), session(from), key.1));
    }

    fn send(&mut self, of: u64) {
        let state = self.state.sessions.get_mut(&of).unwrap();
        if state.queued.is_empty() {
            return;
        }
        let (message, copy) = state.queued.remove(0);
        let is_free = |id: &PacketId| {
            !state.in_flight.iter().any(
                |(_, _, progress)| matches!(progress, Progress::Sent(other) | Progress::Released(other) if other == id),
            )
        };
        let free = (1..).filter_map(PacketId::new).find(is_free).unwrap();
        state.in_flight.push((message, copy, Progress::Sent(free)));
        self.record(&Record::Delivery(number(message), to(of, Progress::Sent(free))));
    }

    /// An acknowledgement comes for some delivery that is in flight, the first or the last of its exchange.
    fn come_further(&mut self, of: u64, kind: u8, what: usize) {
        let state = self.state.sessions.get_mut(&of).unwrap();
        if state.in_flight.is_empty() {
            return;
        }
        let at = what % state.in_flight.len();
        let (message, copy, progress) = state.in_flight[at];
        match progress {
            Progress::Sent(id) if kind < 16 => {
                state.in_flight[at].2 = Progress::Released(id);
                self.record(&Record::Delivery(number(message), to(of, Progress::Released(id))));
            }
            _ => {
                state.in_flight.remove(at);
                self.record(&Record::DeliveryEnded(number(message), session(of), copy));
            }
        }
    }
}

/// A snapshot that is being taken.
struct Snapshot {
    /// Where the log behind it begins.
    position: usize,
    /// Sessions and topics that are still to be told.
    sessions: Vec<u64>,
    topics: Vec<&'static str>,
    records: Vec<Vec<u8>>,
}

impl Snapshot {
    fn begin(model: &Model) -> Self {
        Self {
            position: model.log.len(),
            sessions: model.clients.iter().flatten().copied().collect(),
            topics: vec!["r/1", "r/2", "r/3"],
            records: Vec::new(),
        }
    }

    /// Tells one session, or one topic, as it is now.
    fn step(&mut self, model: &Model, choice: usize) {
        if choice.is_multiple_of(2) && !self.sessions.is_empty() {
            let number = self.sessions.remove(choice / 2 % self.sessions.len());
            if let Some(state) = model.state.sessions.get(&number) {
                self.session(number, state, choice);
            }
        } else if let Some(topic) = self.topics.pop()
            && let Some(message) = model.state.retained.get(topic)
        {
            // Its order was its number.
            self.records.push(message_record(
                *message,
                topic,
                &message.to_string(),
                Some(*message),
                &[],
            ));
        }
    }

    fn session(&mut self, of: u64, state: &Session, choice: usize) {
        let told = &mut self.records;
        told.push(encoded(&session_record(of, state.expiry_secs)));
        for (filter, identifier) in &state.subscriptions {
            told.push(encoded(&subscription_record(of, filter, *identifier)));
        }
        if let Some(delay) = state.will {
            told.push(encoded(&will_record(of, delay)));
        }
        for (id, payload) in &state.received {
            told.push(encoded(&match payload {
                Some(payload) => unreleased_record(of, id_of(*id), payload),
                None => Record::Received(session(of), id_of(*id)),
            }));
        }
        let queued = state.queued.iter().map(|(message, _)| (*message, Progress::Queued));
        let in_flight = state
            .in_flight
            .iter()
            .map(|(message, _, progress)| (*message, *progress));
        for (message, progress) in in_flight.chain(queued) {
            let payload = message.to_string();
            if matches!(progress, Progress::Released(_)) && !choice.is_multiple_of(3) {
                told.push(encoded(&Record::Delivery(number(message), to(of, progress))));
            } else if (choice + message as usize).is_multiple_of(3) {
                // It is not in memory: the store copies it.
                told.push(message_record(message, topic_of(message), &payload, None, &[]));
                told.push(encoded(&Record::Delivery(number(message), to(of, progress))));
            } else {
                let deliveries = [to(of, progress)];
                told.push(message_record(message, topic_of(message), &payload, None, &deliveries));
            }
        }
    }
}

/// Every third message has the same topic.
fn topic_of(message: u64) -> &'static str {
    ["r/1", "r/2", "r/3"][message as usize % 3]
}

fn id_of(value: u16) -> PacketId {
    PacketId::new(value).unwrap()
}

fn encoded(record: &Record<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    record.encode(&mut bytes);
    bytes.split_off(4)
}

fn session_record(number: u64, expiry_secs: u32) -> Record<'static> {
    Record::Session(SessionRecord {
        session: session(number),
        tenant: "",
        client_id: "c",
        expiry_secs,
        expires_at: Time::NEVER,
    })
}

fn subscription_record(number: u64, filter: &str, identifier: u32) -> Record<'_> {
    Record::Subscription(SubscriptionRecord {
        session: session(number),
        filter,
        options: SubscriptionOptions {
            qos: QoS::ExactlyOnce,
            no_local: false,
            retain_as_published: false,
            retain_handling: RetainHandling::Send,
        },
        identifier: Some(identifier),
        wants_retained: identifier % 2 == 1,
    })
}

fn will_record(number: u64, delay_secs: u32) -> Record<'static> {
    Record::Will(WillRecord {
        session: session(number),
        due: Time::NEVER,
        delay_secs,
        expiry_secs: None,
        content: content("will", "bye"),
    })
}

fn unreleased_record(number: u64, id: PacketId, payload: &str) -> Record<'_> {
    Record::Unreleased(UnreleasedRecord {
        session: session(number),
        id,
        expires_at: Time::NEVER,
        content: content("unreleased", payload),
    })
}

fn received(routed: &[PacketId], unreleased: &[(PacketId, Message)]) -> BTreeMap<u16, Option<String>> {
    let text = |message: &Message| String::from_utf8(message.payload().to_vec()).unwrap();
    let unreleased = unreleased.iter().map(|(id, message)| (id.get(), Some(text(message))));
    routed.iter().map(|id| (id.get(), None)).chain(unreleased).collect()
}

/// Every second message tells who published it: a client with its number for a name.
fn source_of(message: u64, client_id: &str) -> Option<Source<'_>> {
    message.is_multiple_of(2).then_some(Source {
        user_name: Some("anna"),
        is_listed: true,
        has_grants: false,
        client_id,
        listener: "tcp",
        ip: None,
    })
}

fn message_record(
    message: u64,
    topic: &str,
    payload: &str,
    retained: Option<u64>,
    to_whom: &[DeliveryRecord<'_>],
) -> Vec<u8> {
    let mut deliveries = Vec::new();
    to_whom.iter().for_each(|delivery| delivery.encode(&mut deliveries));
    encoded(&Record::Message(MessageRecord {
        number: number(message),
        expires_at: Time::NEVER,
        retained,
        received: None,
        content: Content {
            source: source_of(message, &message.to_string()),
            ..content(topic, payload)
        },
        deliveries: Deliveries(&deliveries),
    }))
}

fn applied<'a>(records: impl Iterator<Item = &'a Vec<u8>>) -> State {
    let mut image = Image::new(ImageOptions::default());
    records.for_each(|record| image.apply(record));
    let restored = image.finish(Time(0));
    assert!(restored.report.lost.is_empty());
    restored.into()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn a_snapshot_and_the_log_behind_its_begin_are_the_whole_history(
        history in proptest::collection::vec((0u8..17, 0usize..3, 0usize..12, 0usize..12), 1..200),
        begin in 0usize..100,
        steps in proptest::collection::vec((0usize..25, 0usize..24), 12),
    ) {
        let mut model = Model::default();
        let mut snapshot = None;
        let mut steps = steps.into_iter();
        let mut next = steps.next().unwrap();
        for (at, event) in history.into_iter().enumerate() {
            if at == begin {
                snapshot = Some(Snapshot::begin(&model));
            }
            if let Some(snapshot) = &mut snapshot {
                if next.0 == 0 {
                    snapshot.step(&model, next.1);
                    next = steps.next().unwrap_or((usize::MAX, 0));
                } else {
                    next.0 -= 1;
                }
            }
            model.happen(event);
        }
        prop_assert_eq!(&applied(model.log.iter()), &model.state);
        if let Some(mut snapshot) = snapshot {
            for choice in [0, 1, 0, 1, 0, 1] {
                snapshot.step(&model, choice);
            }
            let behind = &model.log[snapshot.position..];
            prop_assert_eq!(&applied(snapshot.records.iter().chain(behind)), &model.state);
        }
    }
}
