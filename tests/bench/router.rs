//! What it costs to find out who wants a topic, and what is retained for a filter.
//!
//! `cargo bench --no-default-features --bench router`, with `-- cold` for those whose name contains `cold`.

use std::hint::black_box;
use std::ops::ControlFlow;
use std::sync::Arc;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};

use sundew::protocol::ids::{SessionKey, SlotKey, WorkerId};
use sundew::protocol::message::{Message, Publication};
use sundew::protocol::packet::SubscriptionOptions;
use sundew::protocol::property::PropertiesBuf;
use sundew::protocol::qos::QoS;
use sundew::protocol::topic::{TopicFilter, TopicName};
use sundew::router::{
    Choice, MatchCache, MatchCacheLimits, Overlap, Retained, SessionStatus, Strategies, Subscriber, Subscriptions, Walk,
};

fn subscriber(number: u32) -> Subscriber {
    let key = SlotKey {
        slot: number,
        generation: 0,
    };
    Subscriber {
        session: SessionKey {
            worker: WorkerId(0),
            key,
        },
        options: SubscriptionOptions::default(),
        identifier: None,
        status: Arc::new(SessionStatus::new(true)),
    }
}

/// Filters of three kinds, a third each; every topic of [`topic`] below `count / 3` has three that match.
fn filters(count: u32) -> Vec<String> {
    (0..count)
        .map(|n| match (n / 3, n % 3) {
            (device, 0) => topic(device),
            (device, 1) => format!("site/+/device/{device}/temperature"),
            (device, _) => format!("site/{}/device/{device}/#", device % 100),
        })
        .collect()
}

fn topic(device: u32) -> String {
    format!("site/{}/device/{device}/temperature", device % 100)
}

fn subscribed(filters: &[String]) -> Subscriptions {
    let mut subscriptions = Subscriptions::new(Overlap::Once, Strategies::default());
    // Ten subscriptions a session, each session with one status.
    for (number, group) in filters.chunks(10).enumerate() {
        let subscriber = subscriber(number as u32);
        for filter in group {
            subscriptions.subscribe(TopicFilter::parse(filter).unwrap(), subscriber.clone());
        }
    }
    subscriptions
}

/// Topics in an order that no cache line foresees.
fn shuffled_topics(count: u32, devices: u32) -> Vec<String> {
    let mut seed = 1u64;
    (0..count)
        .map(|_| {
            seed = seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            topic((seed >> 33) as u32 % devices)
        })
        .collect()
}

fn name(text: &str) -> TopicName<'_> {
    TopicName::parse(text).unwrap()
}

fn matching(criterion: &mut Criterion) {
    for count in [100_000, 1_000_000] {
        let filters = filters(count);
        let texts = resident_bytes();
        let subscriptions = subscribed(&filters);
        report(&format!("{count} subscriptions"), texts, u64::from(count));
        drop(filters);

        let topics = shuffled_topics(100_000, count / 3);
        let mut group = criterion.benchmark_group(format!("match/{count}"));
        group.throughput(Throughput::Elements(1));
        let mut next = topics.iter().cycle();
        group.bench_function("cold", |bencher| {
            bencher.iter(|| black_box(subscriptions.matches(name(next.next().unwrap()))));
        });
        let mut cache = MatchCache::new(subscriptions.generations().clone(), MatchCacheLimits::default());
        group.bench_function("cold, through the cache", |bencher| {
            bencher.iter(|| {
                let topic = name(next.next().unwrap());
                black_box(cache.resolve(topic, || subscriptions.matches(topic)).receivers_len())
            });
        });
        for hot in [1, 1_000, 10_000] {
            let mut next = topics[..hot].iter().cycle();
            group.bench_function(format!("cached, {hot} topics"), |bencher| {
                bencher.iter(|| {
                    let topic = name(next.next().unwrap());
                    black_box(cache.resolve(topic, || subscriptions.matches(topic)).workers.len())
                });
            });
        }
        group.finish();
    }
}

fn wide(criterion: &mut Criterion) {
    let mut subscriptions = Subscriptions::default();
    for number in 0..10_000 {
        subscriptions.subscribe(TopicFilter::parse("all/#").unwrap(), subscriber(number));
    }
    for number in 0..10 {
        subscriptions.subscribe(TopicFilter::parse("$share/g/jobs/+").unwrap(), subscriber(number));
    }
    let mut group = criterion.benchmark_group("match");
    group.bench_function("cold, 10000 receivers", |bencher| {
        bencher.iter(|| black_box(subscriptions.matches(name("all/of/you"))));
    });
    let matched = subscriptions.matches(name("jobs/1"));
    let choice = Choice {
        publisher: None,
        topic: "jobs/1",
        qos: QoS::AtLeastOnce,
        random: 0,
        excluded: &[],
    };
    group.bench_function("choose one of 10 members", |bencher| {
        bencher.iter(|| black_box(matched.groups[0].choose(&choice).map(|member| member.session)));
    });
    group.finish();
}

fn subscribing(criterion: &mut Criterion) {
    let filters = filters(100_000);
    let mut group = criterion.benchmark_group("subscribe");
    group
        .sample_size(10)
        .throughput(Throughput::Elements(filters.len() as u64));
    group.bench_function("100000 filters", |bencher| {
        bencher.iter_with_large_drop(|| subscribed(&filters));
    });
    group.bench_function("100000 filters, and unsubscribe", |bencher| {
        let unsubscribe = |mut subscriptions: Subscriptions| {
            for (number, group) in filters.chunks(10).enumerate() {
                for filter in group {
                    let session = subscriber(number as u32).session;
                    assert!(subscriptions.unsubscribe(TopicFilter::parse(filter).unwrap(), session));
                }
            }
            subscriptions
        };
        bencher.iter_with_large_drop(|| unsubscribe(subscribed(&filters)));
    });
    group.finish();
}

fn messages(count: u32) -> Vec<Arc<Message>> {
    let properties = PropertiesBuf::new();
    let message = |device| {
        let topic = topic(device);
        let publication = Publication {
            topic: name(&topic),
            payload: &[b'x'; 64],
            qos: QoS::AtMostOnce,
            retain: true,
            properties: properties.view(),
            expires_at: None,
            publisher: None,
            source: None,
        };
        Arc::new(publication.to_message())
    };
    (0..count).map(message).collect()
}

fn retained(criterion: &mut Criterion) {
    const COUNT: u32 = 100_000;
    let before = resident_bytes();
    let messages = messages(COUNT);
    let set_all = |messages: &[Arc<Message>]| {
        let mut retained = Retained::default();
        for message in messages {
            retained.set(message.clone()).unwrap();
        }
        retained
    };
    let mut retained = set_all(&messages);
    report("100000 retained messages of 64 bytes", before, u64::from(COUNT));

    let mut group = criterion.benchmark_group("retained/100000");
    group.throughput(Throughput::Elements(1));
    let mut next = messages.iter().cycle();
    group.bench_function("get", |bencher| {
        bencher.iter(|| black_box(retained.get(next.next().unwrap().topic()).is_some()));
    });
    group.bench_function("replace", |bencher| {
        bencher.iter(|| black_box(retained.set(next.next().unwrap().clone())));
    });
    group.sample_size(10).throughput(Throughput::Elements(u64::from(COUNT)));
    group.bench_function("set new ones", |bencher| {
        bencher.iter_batched(|| (), |()| set_all(&messages), BatchSize::PerIteration);
    });
    for (filter, expected) in [
        ("#", COUNT),
        ("site/+/device/+/temperature", COUNT),
        ("site/7/#", COUNT / 100),
    ] {
        group.throughput(Throughput::Elements(u64::from(expected)));
        group.bench_function(format!("walk {filter}"), |bencher| {
            bencher.iter(|| {
                let mut walk = Walk::new(TopicFilter::parse(filter).unwrap());
                let mut found = 0;
                // A thousand at a time, as a client takes them.
                while !walk.is_finished() {
                    retained.advance(&mut walk, 1000, |message| {
                        found += u32::from(!message.payload().is_empty());
                        ControlFlow::Continue(())
                    });
                }
                assert_eq!(found, expected);
            });
        });
    }
    group.finish();
}

/// Memory of this process that is in the machine's memory; 0 where the system does not say.
fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok());
    pages.unwrap_or(0) * 4096
}

#[allow(clippy::print_stderr, reason = "a bench talks to a person")]
fn report(what: &str, before: u64, count: u64) {
    let bytes = resident_bytes().saturating_sub(before);
    eprintln!("{what}: {} MB, {} bytes each", bytes / 1_000_000, bytes / count);
}

criterion_group! {
    name = router;
    config = Criterion::default()
        .without_plots()
        .warm_up_time(std::time::Duration::from_millis(500))
        .measurement_time(std::time::Duration::from_secs(2));
    // First what measures memory: it must not find what others left.
    targets = retained, matching, wide, subscribing
}
criterion_main!(router);
