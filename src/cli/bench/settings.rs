//! What may be set: the same words on the command line and in a scenario file; the command line wins.

use std::path::Path;

use clap::Args;
use serde::Deserialize;

use super::scenario::{FilterKind, Scenario};
use super::stamp::STAMP_BYTES;
use crate::cli::client::parse_version;
use crate::protocol::qos::QoS;
use crate::protocol::version::Version;

/// What is said; the rest is the scenario's default.
#[derive(Clone, Debug, Default, PartialEq, Args, Deserialize)]
#[serde(deny_unknown_fields)]
#[command(next_help_heading = "Load")]
pub(super) struct Settings {
    /// In a file only: the scenario.
    #[arg(skip)]
    scenario: Option<Scenario>,
    /// In a file only: what it shows, in a line.
    #[arg(skip)]
    about: Option<String>,
    /// Publishers [default: pairs, fan-in, shared: 8; latency: 10; wildcard: 4; fan-out, retained: 1]
    #[arg(long, value_name = "NUMBER")]
    publishers: Option<u32>,
    /// Subscribers [default: fan-in, retained: 1; fan-out: 50; shared: 8; wildcard: 30; pairs: as many as publishers]
    #[arg(long, value_name = "NUMBER")]
    subscribers: Option<u32>,
    /// connect and idle: connections [default: 1000]
    #[arg(long, value_name = "NUMBER")]
    connections: Option<u32>,
    /// wildcard: filters, about [default: 100000]
    #[arg(long, value_name = "NUMBER")]
    filters: Option<u32>,
    /// wildcard: what the filters look like
    #[arg(long, value_name = "KIND")]
    filter_kind: Option<FilterKind>,
    /// retained: messages [default: 100000]
    #[arg(long, value_name = "NUMBER")]
    messages: Option<u64>,
    /// QoS of publishing: 0, 1 or 2
    #[arg(short, long, value_name = "QOS")]
    qos: Option<u8>,
    /// QoS of subscribing [default: that of publishing]
    #[arg(long, value_name = "QOS")]
    sub_qos: Option<u8>,
    /// Bytes of the payload, at least 24 [default: 64]
    #[arg(long, value_name = "BYTES")]
    payload: Option<usize>,
    /// Messages a second, of all publishers together, sent when they are due, however slow the broker is; latency counts from then
    /// [default: as fast as --window and --in-flight allow; latency: 5000]
    #[arg(long, value_name = "NUMBER")]
    rate: Option<f64>,
    /// With a rate: microseconds before a message is due in which the generator does not sleep, so that its own waking up is no part of
    /// the latency; never more than a quarter of the time between two messages [default: 50]
    #[arg(long, value_name = "MICROSECONDS")]
    spin: Option<u32>,
    /// QoS 1 and 2: messages of a publisher that are not acknowledged, at most [default: 100]
    #[arg(long, value_name = "NUMBER")]
    window: Option<u32>,
    /// Messages of a publisher that are not delivered, at most; 0: no bound [default: 1000; with a rate 0]
    #[arg(long, value_name = "NUMBER")]
    in_flight: Option<u64>,
    /// A publisher writes when it may send so many, in one go [default: a quarter of its window, at most 256]
    #[arg(long, value_name = "NUMBER")]
    batch: Option<u64>,
    /// Subscriptions that come and go meanwhile, SUBSCRIBE and UNSUBSCRIBE a second [default: 0]
    #[arg(long, value_name = "NUMBER")]
    churn: Option<f64>,
    /// Levels that every topic has more [default: 0]
    #[arg(long, value_name = "NUMBER")]
    levels: Option<u32>,
    /// Seconds before anything is counted [default: 1]
    #[arg(long, value_name = "SECONDS")]
    warm_up: Option<f64>,
    /// Seconds that are counted; idle: to be idle [default: 5]
    #[arg(short, long, value_name = "SECONDS")]
    duration: Option<f64>,
    /// Seconds without a delivery after which what is missing is lost [default: 3]
    #[arg(long, value_name = "SECONDS")]
    patience: Option<f64>,
    /// Connections that are being opened at the same time [default: 256]
    #[arg(long, value_name = "NUMBER")]
    at_once: Option<usize>,
    /// Connect from so many addresses, 127.0.0.1 and up: each has room for some 28,000 connections [default: 1]
    #[arg(long, value_name = "NUMBER")]
    sources: Option<u8>,
    /// Sessions outlive their connections, so a broker that keeps sessions on disk has to; removed at the end
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true, value_name = "BOOL")]
    keep_session: Option<bool>,
    /// MQTT version: 31, 311 or 5 [default: 311]
    #[arg(short = 'V', long = "protocol-version", value_name = "VERSION")]
    #[serde(rename = "protocol_version")]
    version: Option<String>,
    /// Threads of the generator; more than one only where it is the bottleneck [default: 1]
    #[arg(long, value_name = "NUMBER")]
    threads: Option<usize>,
}

/// A scenario with everything decided.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Workload {
    pub(super) name: String,
    pub(super) scenario: Scenario,
    pub(super) publishers: u32,
    pub(super) subscribers: u32,
    pub(super) connections: u32,
    pub(super) filters: u32,
    pub(super) filter_kind: FilterKind,
    pub(super) messages: u64,
    pub(super) qos: QoS,
    pub(super) sub_qos: QoS,
    pub(super) payload: usize,
    /// 0: a closed loop.
    pub(super) rate: f64,
    /// Microseconds.
    pub(super) spin: u32,
    pub(super) window: u32,
    /// 0: no bound.
    pub(super) in_flight: u64,
    pub(super) batch: u64,
    pub(super) churn: f64,
    pub(super) levels: u32,
    pub(super) warm_up: f64,
    pub(super) duration: f64,
    pub(super) patience: f64,
    pub(super) at_once: usize,
    pub(super) sources: u8,
    pub(super) keep_session: bool,
    pub(super) version: Version,
    pub(super) threads: usize,
}

/// A scenario by its name, or what a file says.
pub(super) fn read(argument: &str) -> Result<(String, Settings), String> {
    if let Ok(scenario) = <Scenario as clap::ValueEnum>::from_str(argument, false) {
        let settings = Settings {
            scenario: Some(scenario),
            ..Settings::default()
        };
        return Ok((argument.to_owned(), settings));
    }
    let path = Path::new(argument);
    if !path.is_file() {
        return Err(format!(
            "{argument}: neither a scenario nor a file; `sundew bench --list` names the scenarios"
        ));
    }
    let text = std::fs::read_to_string(path).map_err(|error| format!("cannot read {argument}: {error}"))?;
    let settings: Settings = toml::from_str(&text).map_err(|error| format!("{argument}: {error}"))?;
    if settings.scenario.is_none() {
        return Err(format!(
            "{argument}: no scenario in it; write for example: scenario = \"pairs\""
        ));
    }
    let name = path
        .file_stem()
        .map_or_else(|| argument.to_owned(), |stem| stem.to_string_lossy().into_owned());
    Ok((name, settings))
}

impl Settings {
    /// One setting by its name in a file.
    pub(super) fn one(key: &str, value: &str) -> Result<Self, String> {
        let parsed = toml::from_str(&format!("{key} = {value}"));
        parsed.map_err(|error| format!("{key} = {value}: {}", error.message()))
    }

    /// Decides everything; what is said first goes before what is said later, and all of it before what the file says.
    pub(super) fn decide(self, over: &[&Self], name: String) -> Result<Workload, String> {
        use Scenario as S;
        let scenario = self
            .scenario
            .ok_or("which scenario? `sundew bench --list` names them")?;
        macro_rules! said {
            ($field:ident) => {
                over.iter()
                    .find_map(|over| over.$field.clone())
                    .or(self.$field.clone())
            };
        }
        let qos = parse_qos(said!(qos).unwrap_or(0))?;
        let publishers = said!(publishers).unwrap_or(default_publishers(scenario));
        let subscribers = said!(subscribers).unwrap_or(match scenario {
            S::FanIn | S::Retained => 1,
            S::FanOut => 50,
            S::Wildcard => 30,
            S::Pairs | S::Latency => publishers,
            _ => 8,
        });
        let rate = said!(rate).unwrap_or(if scenario == S::Latency { 5000.0 } else { 0.0 });
        let window = said!(window).unwrap_or(100);
        let is_bounded = rate == 0.0 && scenario.is_traffic();
        let in_flight = said!(in_flight)
            .filter(|_| is_bounded)
            .unwrap_or(if is_bounded { 1000 } else { 0 });
        let on_the_way = most_on_the_way(qos, window, in_flight);
        let workload = Workload {
            name,
            scenario,
            publishers,
            subscribers,
            connections: said!(connections).unwrap_or(1000),
            filters: said!(filters).unwrap_or(100_000),
            filter_kind: said!(filter_kind).unwrap_or_default(),
            messages: said!(messages).unwrap_or(100_000),
            // That everything is stored is known from acknowledgements.
            qos: if scenario == S::Retained {
                qos.max(QoS::AtLeastOnce)
            } else {
                qos
            },
            sub_qos: said!(sub_qos).map_or(Ok(qos), parse_qos)?,
            payload: said!(payload).unwrap_or(64),
            rate,
            spin: said!(spin).unwrap_or(50),
            window,
            in_flight,
            // A quarter: messages travel in batches, and the line is never empty. More than all would never be sent.
            batch: said!(batch).unwrap_or((on_the_way / 4).clamp(1, 256)).min(on_the_way),
            churn: said!(churn).unwrap_or(0.0),
            levels: said!(levels).unwrap_or(0),
            warm_up: said!(warm_up).unwrap_or(1.0),
            duration: said!(duration).unwrap_or(5.0),
            patience: said!(patience).unwrap_or(3.0),
            at_once: said!(at_once).unwrap_or(256),
            sources: said!(sources).unwrap_or(1),
            keep_session: said!(keep_session).unwrap_or(false),
            version: said!(version).map_or(Ok(Version::V311), |version| {
                parse_version(&version).map_err(|error| format!("protocol version {version}: {error}"))
            })?,
            threads: said!(threads).unwrap_or(1),
        };
        workload.check()?;
        Ok(workload)
    }
}

const fn default_publishers(scenario: Scenario) -> u32 {
    match scenario {
        Scenario::FanOut | Scenario::Retained => 1,
        Scenario::Latency => 10,
        Scenario::Wildcard => 4,
        _ => 8,
    }
}

/// The most messages of a publisher that may be on the way, as far as there is a bound.
fn most_on_the_way(qos: QoS, window: u32, in_flight: u64) -> u64 {
    let bound = if in_flight == 0 { 1024 } else { in_flight };
    if qos.is_acknowledged() {
        bound.min(u64::from(window))
    } else {
        bound
    }
}

fn parse_qos(bits: u8) -> Result<QoS, String> {
    QoS::from_bits(bits).ok_or_else(|| format!("QoS {bits}: give 0, 1 or 2"))
}

impl Workload {
    /// The name without what a sweep adds to it.
    pub(super) fn scenario_name(&self) -> String {
        self.name.split(',').next().unwrap_or_default().to_owned()
    }

    /// Connections of the whole scenario.
    pub(super) fn connections(&self) -> u64 {
        match self.scenario {
            Scenario::Connect | Scenario::Idle => u64::from(self.connections),
            _ => u64::from(self.publishers) + u64::from(self.subscribers) + 1,
        }
    }

    fn check(&self) -> Result<(), String> {
        let wrong = |what: &str| Err(format!("{}: {what}", self.name));
        let is_seconds = |seconds: f64| (0.0..=1e6).contains(&seconds);
        if self.publishers == 0 || self.subscribers == 0 || self.connections == 0 || self.filters == 0 {
            return wrong("publishers, subscribers, connections and filters are 1 at least");
        }
        if matches!(self.scenario, Scenario::Pairs | Scenario::Latency) && self.publishers != self.subscribers {
            return wrong("a pair is one publisher and one subscriber: leave out --subscribers");
        }
        if self.scenario == Scenario::FanIn && self.subscribers > self.publishers {
            return wrong("a fan-in has no more subscribers than publishers");
        }
        if !(STAMP_BYTES..=268_000_000).contains(&self.payload) {
            return wrong("a payload has 24 to 268000000 bytes: publisher, number and time are in it");
        }
        if !(1..=65_535).contains(&self.window) || self.batch == 0 || self.at_once == 0 || self.sources == 0 {
            return wrong("the window is 1 to 65535; batch, at-once and sources are 1 at least");
        }
        if !(0.0..=1e8).contains(&self.rate) || !(0.0..=1e6).contains(&self.churn) {
            return wrong("the rate is 0 to 100000000 messages a second, the churn 0 to 1000000");
        }
        if self.levels > 150 {
            return wrong("topics have 150 levels more at most");
        }
        if ![self.warm_up, self.duration, self.patience].into_iter().all(is_seconds) || self.duration == 0.0 {
            return wrong("times are seconds, and the duration is more than 0");
        }
        if !(1..=1024).contains(&self.threads) {
            return wrong("threads are 1 to 1024");
        }
        if !(1..=1_000_000_000).contains(&self.messages) {
            return wrong("messages are 1 to 1000000000");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decide(file: &str, over: &Settings) -> Result<Workload, String> {
        let settings: Settings = toml::from_str(file).map_err(|error| error.to_string())?;
        settings.decide(&[over], "test".to_owned())
    }

    #[test]
    fn the_command_line_goes_before_the_file_and_the_file_before_the_default() {
        let over = Settings {
            payload: Some(1024),
            ..Settings::default()
        };
        let workload = decide("scenario = \"fan-in\"\nqos = 1\npayload = 100", &over).unwrap();
        assert_eq!((workload.payload, workload.qos), (1024, QoS::AtLeastOnce));
        assert_eq!(
            (workload.sub_qos, workload.publishers, workload.subscribers),
            (QoS::AtLeastOnce, 8, 1)
        );
        assert_eq!((workload.in_flight, workload.batch), (1000, 25));
    }

    #[test]
    fn an_open_loop_is_not_slowed_down_by_what_is_not_delivered() {
        let workload = decide("scenario = \"latency\"\nin_flight = 5", &Settings::default()).unwrap();
        assert_eq!((workload.rate, workload.in_flight), (5000.0, 0));
    }

    #[test]
    fn mistakes_are_named() {
        for (file, said) in [
            ("scenario = \"fan\"", "fan-in"),
            ("scenario = \"pairs\"\npayloads = 1", "payload"),
            ("scenario = \"pairs\"\npayload = 23", "24"),
            ("scenario = \"pairs\"\nqos = 3", "0, 1 or 2"),
            ("scenario = \"pairs\"\nsubscribers = 3", "a pair is"),
            ("scenario = \"pairs\"\nprotocol_version = \"4\"", "311"),
            ("scenario = \"pairs\"\nduration = 0", "more than 0"),
            ("scenario = \"pairs\"\nwindow = 65536", "65535"),
            ("qos = 1", "which scenario"),
        ] {
            let error = decide(file, &Settings::default()).unwrap_err();
            assert!(error.contains(said), "{file}: {error}");
        }
        assert!(read("pears").unwrap_err().contains("--list"));
    }
}
