//! What it costs to add up the records of a store.
//!
//! `cargo bench --no-default-features --bench image`

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};

use sundew::protocol::ids::{MessageNumber, SessionNumber};
use sundew::protocol::property::Properties;
use sundew::protocol::qos::QoS;
use sundew::protocol::time::Time;
use sundew::protocol::topic::TopicName;
use sundew::storage::image::{Image, ImageOptions, Restored};
use sundew::storage::record::{
    Content, Deliveries, DeliveryRecord, MessageRecord, Progress, Record, SessionRecord, records,
};

const MESSAGES: u64 = 1_000_000;

/// A million messages of 100 bytes, each to its own topic, retained or queued to one of some sessions.
fn history(sessions: u64) -> Vec<u8> {
    let payload = [b'x'; 100];
    let mut bytes = Vec::new();
    for number in (1..=sessions).filter_map(SessionNumber::new) {
        Record::Session(SessionRecord {
            session: number,
            tenant: "",
            client_id: &number.0.to_string(),
            expiry_secs: 3600,
            expires_at: Time::NEVER,
        })
        .encode(&mut bytes);
    }
    for n in 1..=MESSAGES {
        let mut deliveries = Vec::new();
        if let Some(session) = (n % sessions.max(1)).checked_add(1).filter(|_| sessions > 0) {
            DeliveryRecord {
                session: SessionNumber::new(session).unwrap(),
                copy: 0,
                progress: Progress::Queued,
                qos: QoS::AtLeastOnce,
                retain: false,
                identifiers: Default::default(),
                group: None,
            }
            .encode(&mut deliveries);
        }
        Record::Message(MessageRecord {
            number: MessageNumber::new(n).unwrap(),
            expires_at: Time::NEVER,
            retained: (sessions == 0).then_some(n),
            received: None,
            content: Content {
                topic: TopicName::parse(&format!("site/{}/device/{n}/state", n % 100)).unwrap(),
                properties: Properties::EMPTY,
                payload: &payload,
                qos: QoS::AtLeastOnce,
                retain: true,
                source: None,
            },
            deliveries: Deliveries(&deliveries),
        })
        .encode(&mut bytes);
    }
    bytes
}

fn restored(history: &[u8]) -> Restored {
    let mut image = Image::new(ImageOptions {
        memory_bytes_max: usize::MAX,
    });
    records(history).for_each(|record| image.apply(record));
    image.finish(Time(0))
}

fn image(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("image of a million messages");
    group.sample_size(10);
    for (name, sessions) in [
        ("retained", 0),
        ("queued to one session", 1),
        ("queued to 10,000 sessions", 10_000),
    ] {
        let history = history(sessions);
        group.bench_function(name, |bencher| {
            bencher.iter_with_large_drop(|| restored(black_box(&history)));
        });
    }
    group.finish();
}

criterion_group!(benches, image);
criterion_main!(benches);
