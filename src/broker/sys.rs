//! `$SYS`: the broker about itself, under the names that mosquitto gave these topics, so that existing monitors work.

use super::read;
use super::timers::Reminder;
use super::worker::Worker;
use crate::metrics::{Metrics, Totals};
use crate::protocol::ids::WorkerId;
use crate::protocol::message::Publication;
use crate::protocol::property::Properties;
use crate::protocol::qos::QoS;
use crate::protocol::time::Time;
use crate::protocol::topic::{TopicName, levels};
use crate::storage::Standing;

/// What the broker says of itself is nobody else's to say, in a tenant neither: `$SYS/x`, `$MOUNT/$SYS/x`. `$SYS/#` matches `$SYS`, too.
#[inline]
pub(super) fn is_sys(topic: TopicName<'_>) -> bool {
    topic.as_str().starts_with('$') && levels(topic.as_str()).any(|level| level == "$SYS")
}

/// What `$SYS` remembers from one round to the next.
#[derive(Debug)]
pub struct Sys {
    started: Time,
    last: Time,
    clients_maximum: u64,
    loads: [Load; LOADS.len()],
    /// Samples and microseconds of each worker's lag, as of the last round.
    lags: Vec<(u64, u64)>,
    /// What was published last, by topic: only changes are published.
    published: hashbrown::HashMap<String, String, foldhash::fast::RandomState>,
    /// Mount points of the tenants of which something was told.
    pub(super) tenants: Vec<Box<str>>,
}

/// A moving average over 1, 5 and 15 minutes, in units a minute.
#[derive(Clone, Copy, Debug, Default)]
struct Load {
    last: u64,
    averages: [f64; 3],
}

type Pick = fn(&Totals) -> u64;

const LOADS: [(&str, Pick); 9] = [
    ("messages/received", |t| t.packets_received),
    ("messages/sent", |t| t.packets_sent),
    ("publish/received", received),
    ("publish/sent", sent),
    ("publish/dropped", dropped),
    ("bytes/received", |t| t.bytes_received),
    ("bytes/sent", |t| t.bytes_sent),
    ("sockets", |t| t.connections_accepted),
    ("connections", |t| t.connections_opened),
];

const WINDOWS: [(&str, f64); 3] = [("1min", 60.0), ("5min", 300.0), ("15min", 900.0)];

const fn received(t: &Totals) -> u64 {
    t.publish_received_qos0 + t.publish_received_qos1 + t.publish_received_qos2
}

const fn sent(t: &Totals) -> u64 {
    t.publish_sent_qos0 + t.publish_sent_qos1 + t.publish_sent_qos2
}

const fn dropped(t: &Totals) -> u64 {
    t.dropped_queue_full_qos0
        + t.dropped_queue_full_qos1_2
        + t.dropped_memory_qos0
        + t.dropped_expired
        + t.dropped_too_large
}

impl Sys {
    /// Nothing has been published yet.
    pub fn new(now: Time) -> Self {
        Self {
            started: now,
            last: now,
            clients_maximum: 0,
            loads: [Load::default(); LOADS.len()],
            lags: Vec::new(),
            published: hashbrown::HashMap::default(),
            tenants: Vec::new(),
        }
    }

    /// Topic and value of everything that is told.
    fn values(&mut self, totals: &Totals, gauges: &Gauges, now: Time) -> Vec<(String, String)> {
        self.clients_maximum = self.clients_maximum.max(totals.sessions);
        let uptime = format!("{} seconds", now.millis_since(self.started) / 1000);
        let away = totals.sessions.saturating_sub(totals.connections);
        let mut values: Vec<(String, String)> = [
            (
                "version",
                concat!("sundew version ", env!("CARGO_PKG_VERSION")).to_owned(),
            ),
            ("uptime", uptime),
            ("clients/total", totals.sessions.to_string()),
            ("clients/connected", totals.connections.to_string()),
            ("clients/active", totals.connections.to_string()),
            ("clients/parked", totals.connections_parked.to_string()),
            ("clients/disconnected", away.to_string()),
            ("clients/inactive", away.to_string()),
            ("clients/maximum", self.clients_maximum.to_string()),
            ("clients/expired", totals.sessions_expired.to_string()),
            ("messages/received", totals.packets_received.to_string()),
            ("messages/sent", totals.packets_sent.to_string()),
            ("messages/stored", gauges.retained.to_string()),
            ("store/messages/count", gauges.retained.to_string()),
            ("store/messages/bytes", gauges.retained_bytes.to_string()),
            ("retained messages/count", gauges.retained.to_string()),
            ("subscriptions/count", gauges.subscriptions.to_string()),
            ("shared_subscriptions/count", gauges.shared_subscriptions.to_string()),
            ("publish/messages/received", received(totals).to_string()),
            ("publish/messages/sent", sent(totals).to_string()),
            ("publish/messages/dropped", dropped(totals).to_string()),
            ("publish/bytes/received", totals.payload_bytes_received.to_string()),
            ("publish/bytes/sent", totals.payload_bytes_sent.to_string()),
            ("bytes/received", totals.bytes_received.to_string()),
            ("bytes/sent", totals.bytes_sent.to_string()),
        ]
        .into_iter()
        .map(|(topic, value)| (format!("$SYS/broker/{topic}"), value))
        .collect();
        self.push_loads(totals, now, &mut values);
        values
    }

    /// How late each worker's loop ran since the last round: what everything on that worker waited beside its own work.
    fn push_lags(&mut self, workers: &[&Metrics], values: &mut Vec<(String, String)>) {
        self.lags.resize(workers.len(), (0, 0));
        for (worker, (metrics, before)) in workers.iter().zip(&mut self.lags).enumerate() {
            let now = (metrics.lag_samples.get(), metrics.lag_micros.get());
            let (samples, micros) = (now.0 - before.0, now.1 - before.1);
            *before = now;
            let (mean, peak) = (micros / samples.max(1), metrics.lag_peak_micros.get());
            for (name, value) in [("lag_mean_micros", mean), ("lag_peak_micros", peak)] {
                values.push((format!("$SYS/broker/workers/{worker}/{name}"), value.to_string()));
            }
        }
    }

    fn push_loads(&mut self, totals: &Totals, now: Time, values: &mut Vec<(String, String)>) {
        let seconds = now.millis_since(self.last) as f64 / 1000.0;
        self.last = now;
        if seconds <= 0.0 {
            return;
        }
        for ((name, pick), load) in LOADS.iter().zip(&mut self.loads) {
            let count = pick(totals);
            let per_minute = count.saturating_sub(load.last) as f64 * 60.0 / seconds;
            load.last = count;
            for ((window, window_secs), average) in WINDOWS.iter().zip(&mut load.averages) {
                *average += (per_minute - *average) * (1.0 - (-seconds / window_secs).exp());
                values.push((format!("$SYS/broker/load/{name}/{window}"), format!("{average:.2}")));
            }
        }
    }
}

struct Gauges {
    retained: usize,
    retained_bytes: usize,
    subscriptions: usize,
    shared_subscriptions: usize,
}

impl Worker {
    /// Publishes what has changed; only worker 0 is reminded to.
    pub(super) fn publish_sys(&mut self, now: Time) {
        let totals = self.broker.metrics.sum();
        let gauges = {
            let subscriptions = read(&self.broker.subscriptions);
            let retained = read(&self.broker.retained);
            Gauges {
                retained: retained.len(),
                retained_bytes: retained.bytes(),
                subscriptions: subscriptions.len(),
                shared_subscriptions: subscriptions.shared_len(),
            }
        };
        let mut values = self.sys.values(&totals, &gauges, now);
        let workers = 0..self.broker.mailboxes.workers() as u16;
        let workers: Vec<&Metrics> = workers.map(|at| &***self.broker.metrics.of(WorkerId(at))).collect();
        self.sys.push_lags(&workers, &mut values);
        if self.broker.store.keeps() {
            let standing = match self.broker.store.standing() {
                Standing::Sound => "sound",
                Standing::Refusing => "refusing",
                Standing::Forgetting => "forgetting",
            };
            values.push(("$SYS/broker/storage/standing".to_owned(), standing.to_owned()));
            let figures = self.broker.store.figures().into_iter();
            values.extend(figures.map(|(name, value)| (format!("$SYS/broker/storage/{name}"), value.to_string())));
        }
        if let Some(budget) = self.broker.memory.bytes_max() {
            let used = self.broker.memory.used();
            for (name, bytes) in [("budget", budget), ("used", used)] {
                values.push((format!("$SYS/broker/memory/{name}"), bytes.to_string()));
            }
        }
        values.extend(self.tenant_values());
        for (topic, value) in values {
            if self.sys.published.get(&topic) == Some(&value) {
                continue;
            }
            let publication = Publication {
                topic: TopicName::from_parsed(&topic),
                payload: value.as_bytes(),
                qos: QoS::ExactlyOnce,
                retain: true,
                properties: Properties::EMPTY,
                expires_at: None,
                publisher: None,
                source: None,
            };
            self.route(&publication, now);
            if value.is_empty() {
                self.sys.published.remove(&topic);
            } else {
                self.sys.published.insert(topic, value);
            }
        }
        self.timers
            .arm(now.plus_secs(self.broker.options.sys_interval_secs), Reminder::Sys);
    }
}
