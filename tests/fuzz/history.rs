//! Logs from a seed, such as a broker could have written.

use sundew::protocol::ids::{MessageNumber, PacketId, SessionNumber};
use sundew::protocol::packet::SubscriptionOptions;
use sundew::protocol::property::{PropertiesBuf, PropertyId};
use sundew::protocol::qos::QoS;
use sundew::protocol::source::Source;
use sundew::protocol::time::Time;
use sundew::protocol::topic::TopicName;
use sundew::storage::record::{
    Content, Deliveries, DeliveryRecord, MessageRecord, Progress, Record, SessionRecord, SubscriptionRecord, WillRecord,
};

use super::generate::Random;

const SESSIONS: usize = 4;
const TOPICS: &[&str] = &["a", "a/b", "日本/東京"];
const FILTERS: &[&str] = &["#", "a/+", "$share/g/a"];
const TIMES: &[Time] = &[Time(1), Time(5), Time(6), Time(1 << 40), Time::NEVER];

/// Some records of a few sessions.
pub(crate) fn log(random: &mut Random) -> Vec<u8> {
    let mut out = Vec::new();
    let mut messages = 0;
    for _ in 0..random.below(40) {
        let session = SessionNumber::new(1 + random.below(SESSIONS) as u64).expect("from 1");
        let id = PacketId::new(1 + random.below(3) as u16).expect("from 1");
        let some_message = MessageNumber::new(1 + random.below(messages + 1) as u64).expect("from 1");
        let mut properties = PropertiesBuf::new();
        if random.once_in(4) {
            properties.push_text(PropertyId::ContentType, "text/plain");
        }
        let content = Content {
            topic: TopicName::parse(random.pick(TOPICS)).expect("a topic"),
            properties: properties.view(),
            payload: random.pick(&[&b""[..], b"x", b"a payload that is a little longer"]),
            qos: QoS::AtLeastOnce,
            retain: random.once_in(2),
            source: some_source(random),
        };
        match random.below(14) {
            0..=2 => Record::Session(SessionRecord {
                session,
                tenant: "",
                client_id: ["", "a", "b", "ü", "d"][session.0.get() as usize],
                expiry_secs: random.pick(&[0, 1, 3600, u32::MAX]),
                expires_at: random.pick(TIMES),
            })
            .encode(&mut out),
            3 => Record::Subscription(subscription(session, random)).encode(&mut out),
            4 => Record::Will(WillRecord {
                session,
                due: random.pick(TIMES),
                delay_secs: 1,
                expiry_secs: random.once_in(2).then_some(3),
                content,
            })
            .encode(&mut out),
            5..=8 => {
                messages += 1;
                let deliveries = deliveries(random);
                Record::Message(MessageRecord {
                    number: MessageNumber::new(messages as u64).expect("from 1"),
                    expires_at: random.pick(TIMES),
                    retained: random.once_in(2).then_some(messages as u64),
                    received: random.once_in(3).then_some((session, id)),
                    content,
                    deliveries: Deliveries(&deliveries),
                })
                .encode(&mut out);
            }
            9 => Record::Delivery(some_message, delivery(random, session)).encode(&mut out),
            10 => Record::DeliveryEnded(some_message, session, 0).encode(&mut out),
            11 => Record::Received(session, id).encode(&mut out),
            12 => Record::ReceivedEnded(session, id).encode(&mut out),
            _ => match random.below(4) {
                0 => Record::SessionEnded(session),
                1 => Record::WillEnded(session),
                2 => Record::RetainedFrom(random.below(messages + 1) as u64),
                _ => Record::SubscriptionEnded(session, random.pick(FILTERS)),
            }
            .encode(&mut out),
        }
    }
    out
}

fn subscription(session: SessionNumber, random: &mut Random) -> SubscriptionRecord<'static> {
    SubscriptionRecord {
        session,
        filter: random.pick(FILTERS),
        options: SubscriptionOptions::default(),
        identifier: random.once_in(2).then_some(9),
        wants_retained: random.once_in(2),
    }
}

fn deliveries(random: &mut Random) -> Vec<u8> {
    let mut out = Vec::new();
    for number in 1..=SESSIONS as u64 {
        if random.once_in(2) {
            delivery(random, SessionNumber::new(number).expect("from 1")).encode(&mut out);
        }
    }
    out
}

fn delivery(random: &mut Random, session: SessionNumber) -> DeliveryRecord<'static> {
    let id = PacketId::new(1 + random.below(9) as u16).expect("from 1");
    DeliveryRecord {
        session,
        copy: 0,
        progress: random.pick(&[Progress::Queued, Progress::Sent(id), Progress::Released(id)]),
        qos: QoS::AtLeastOnce,
        retain: random.once_in(2),
        identifiers: random.once_in(3).then_some(7).into_iter().collect(),
        group: random.once_in(3).then_some(("g", "a")),
    }
}

fn some_source(random: &mut Random) -> Option<Source<'static>> {
    random.once_in(2).then(|| Source {
        user_name: random.pick(&[None, Some(""), Some("anna")]),
        is_listed: random.once_in(2),
        has_grants: random.once_in(2),
        client_id: random.pick(&["", "ü"]),
        listener: "tcp",
        ip: random.pick(&[
            None,
            Some([10, 0, 0, 1].into()),
            Some([0xFD00, 0, 0, 0, 0, 0, 0, 1].into()),
        ]),
    })
}
