//! `$SYS`: the names that mosquitto's monitors read.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sundew::auth::{Access, Answer, Authorizer};
use sundew::protocol::ids::Token;
use sundew::protocol::qos::QoS;
use sundew::protocol::topic::{TopicFilter, TopicName};

use crate::broker::{ALL, BOTH, V311, story_with};
use crate::client::PATIENCE;
use crate::wire::{Connect, Publish, Will};

/// Names that existing monitors look for.
const NAMES: &[&str] = &[
    "version",
    "uptime",
    "clients/total",
    "clients/connected",
    "clients/disconnected",
    "clients/maximum",
    "clients/expired",
    "clients/active",
    "clients/inactive",
    "messages/received",
    "messages/sent",
    "messages/stored",
    "retained messages/count",
    "subscriptions/count",
    "publish/messages/received",
    "publish/messages/sent",
    "publish/messages/dropped",
    "bytes/received",
    "bytes/sent",
    "load/messages/received/1min",
    "load/messages/sent/5min",
    "load/bytes/received/15min",
    "load/connections/1min",
    "load/sockets/1min",
    "load/publish/dropped/1min",
];

#[test]
fn the_broker_tells_about_itself_under_mosquittos_names() {
    story_with(
        |options, _| options.broker.sys_interval_secs = 1,
        ALL,
        |broker, version| {
            let mut client = broker.client("c", version);
            client.publish(Publish::new("kept", "x", 1).retained());
            broker
                .connect(version, &Connect::lasting("gone", version))
                .0
                .disconnect();
            client.subscribe("$SYS/broker/#", 0);
            let mut values = HashMap::new();
            let wanted: Vec<_> = NAMES.iter().map(|name| format!("$SYS/broker/{name}")).collect();
            let is_right = |values: &HashMap<String, String>| {
                let number = |name: &str| {
                    values
                        .get(&format!("$SYS/broker/{name}"))
                        .and_then(|text| text.parse::<u64>().ok())
                };
                wanted.iter().all(|topic| values.contains_key(topic))
                    && number("clients/connected") == Some(1)
                    && number("clients/disconnected") == Some(1)
                    && number("clients/total") == Some(2)
                    && number("subscriptions/count") == Some(1)
                    && number("retained messages/count") >= Some(1)
                    && number("bytes/received") > Some(20)
            };
            for _ in 0..300 {
                let message = client.expect_publish();
                values.insert(message.topic.clone(), message.text().to_owned());
                if is_right(&values) {
                    break;
                }
            }
            let missing: Vec<_> = wanted.iter().filter(|topic| !values.contains_key(*topic)).collect();
            assert!(missing.is_empty(), "missing: {missing:?}");
            assert!(is_right(&values), "{values:#?}");
            assert!(values["$SYS/broker/uptime"].ends_with("seconds"));
        },
    );
}

/// A monitor that subscribes late gets what there is, and a client cannot lie about the broker.
#[test]
fn the_values_are_retained_and_nobody_else_can_set_them() {
    story_with(
        |options, _| options.broker.sys_interval_secs = 1,
        BOTH,
        |broker, version| {
            let mut client = broker.client("c", version);
            client.subscribe("$SYS/broker/version", 0);
            let version_text = client.expect_publish().text().to_owned();
            let mut late = broker.client("late", version);
            late.subscribe("$SYS/broker/version", 0);
            let message = late.expect_publish();
            assert!(message.retain && message.text() == version_text);
            let mut liar = broker.client("liar", version);
            liar.send(
                &Publish::new("$SYS/broker/version", "a lie", 0)
                    .retained()
                    .encode(version),
            );
            // `$SYS/#` matches this, too.
            liar.send(&Publish::new("$SYS", "a lie", 0).retained().encode(version));
            liar.expect_ping_answered();
            let mut other = broker.client("other", version);
            other.subscribe("$SYS", 0);
            other.expect_ping_answered();
            let will = Some(Will {
                topic: "$SYS",
                ..Will::default()
            });
            let leaver = Connect {
                will,
                ..Connect::default()
            };
            let refused = if version.has_properties() { 0x87 } else { 5 };
            assert_eq!(broker.open(version).try_connect(&leaver).1, refused);
            let mut later = broker.client("later", version);
            later.subscribe("$SYS/broker/version", 0);
            assert_eq!(later.expect_publish().text(), version_text);
        },
    );
}

/// It can be switched off.
#[test]
fn without_an_interval_there_is_no_sys() {
    story_with(
        |options, _| options.broker.sys_interval_secs = 0,
        BOTH,
        |broker, version| {
            let mut client = broker.client("c", version);
            client.subscribe("$SYS/#", 0);
            std::thread::sleep(std::time::Duration::from_millis(1_200));
            client.expect_ping_answered();
        },
    );
}

/// Somebody blocks a worker (here: an authoriser that takes its time). Everybody on it waits so long, and that can be seen.
#[test]
fn how_late_a_worker_is_can_be_read() {
    struct Slow;
    impl Authorizer for Slow {
        fn publish(&self, _: &Access<'_>, topic: TopicName<'_>, _: QoS, _: bool, _: Token) -> Answer<bool> {
            if topic.as_str() == "slow" {
                std::thread::sleep(BLOCKED);
            }
            Answer::Ready(true)
        }

        fn subscribe(&self, _: &Access<'_>, _: TopicFilter<'_>, _: Token) -> Answer<bool> {
            Answer::Ready(true)
        }
    }
    const BLOCKED: Duration = Duration::from_millis(700);
    story_with(
        |options, parts| {
            options.broker.sys_interval_secs = 1;
            parts.authorizer = Arc::new(Slow);
        },
        V311,
        |broker, version| {
            let mut client = broker.client("c", version);
            client.subscribe("$SYS/broker/workers/+/lag_peak_micros", 0);
            client.publish(Publish::new("slow", "x", 1));
            let begin = Instant::now();
            loop {
                let message = client.expect_publish();
                // A worker looks every half second: of 700 ms it is late by 200 at least.
                if message.text().parse::<u64>().unwrap() >= 150_000 {
                    break;
                }
                assert!(begin.elapsed() < PATIENCE, "nobody is late");
            }
            let totals = broker.server.broker().metrics.sum();
            assert!(totals.lag_peak_micros >= 150_000 && totals.lag_samples > 0);
            assert!(totals.lag_micros >= 150_000, "{}", totals.lag_micros);
        },
    );
}
