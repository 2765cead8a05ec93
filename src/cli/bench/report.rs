//! What was measured, for people and as JSON.

use std::fmt::Write;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::scenario::Scenario;
use super::settings::Workload;

/// One run.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Report {
    /// Scenario or file.
    pub(super) name: String,
    /// The broker's name, where several are compared.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) broker: Option<String>,
    pub(super) scenario: Scenario,
    /// MQTT version.
    pub(super) version: &'static str,
    /// `tcp`, `tls`, `ws`, `wss` or `unix`.
    pub(super) transport: &'static str,
    pub(super) qos: u8,
    pub(super) sub_qos: u8,
    /// Bytes.
    pub(super) payload: usize,
    pub(super) publishers: u32,
    pub(super) subscribers: u32,
    /// What was measured, in seconds.
    pub(super) seconds: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) traffic: Option<Traffic>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) connections: Option<Connections>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) retained: Option<Retained>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) latency_us: Option<Percentiles>,
    /// QoS 1 and 2: from the moment that `latency_us` counts from to PUBACK or PUBCOMP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) acknowledged_us: Option<Percentiles>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) delivery: Option<Delivery>,
    /// With --pid.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) broker_process: Option<BrokerProcess>,
    pub(super) generator: Generator,
    /// What is wrong: the exit code is 1 where it is not empty.
    pub(super) faults: Vec<String>,
    /// What is to be known about the figures.
    pub(super) remarks: Vec<String>,
}

/// Messages a second.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Traffic {
    pub(super) published_per_second: f64,
    pub(super) delivered_per_second: f64,
    /// From the first SUBSCRIBE to the last SUBACK, connections included.
    pub(super) subscribe_seconds: f64,
    pub(super) filters: u64,
    /// SUBSCRIBE and UNSUBSCRIBE that were answered meanwhile.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) churned_per_second: Option<f64>,
}

/// Connections that were opened.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Connections {
    pub(super) opened: u64,
    /// Not opened, or lost.
    pub(super) failed: u64,
    pub(super) per_second: f64,
    pub(super) connect_us: Percentiles,
}

/// Retained messages.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Retained {
    pub(super) messages: u64,
    pub(super) stored_per_second: f64,
    pub(super) delivered_per_second: f64,
}

/// A histogram in short, in microseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Percentiles {
    pub(super) p50: f64,
    pub(super) p90: f64,
    pub(super) p99: f64,
    pub(super) p999: f64,
    pub(super) p9999: f64,
    pub(super) max: f64,
    pub(super) mean: f64,
    pub(super) count: u64,
}

impl Percentiles {
    /// Of nanoseconds.
    pub(super) fn of(histogram: &Histogram<u64>) -> Self {
        let at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1000.0;
        Self {
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            p9999: at(0.9999),
            max: histogram.max() as f64 / 1000.0,
            mean: histogram.mean() / 1000.0,
            count: histogram.len(),
        }
    }
}

/// The account of the whole run, warm-up included.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(super) struct Delivery {
    /// Messages.
    pub(super) sent: u64,
    /// Messages that the broker refused with a reason code; nobody has to get them.
    pub(super) refused: u64,
    /// Deliveries.
    pub(super) expected: u64,
    /// Different ones that came.
    pub(super) delivered: u64,
    pub(super) lost: u64,
    pub(super) duplicated: u64,
    /// Came behind a later one of the same publisher.
    pub(super) reordered: u64,
    /// Messages of nobody we know.
    pub(super) strays: u64,
    /// Messages of QoS 1 and 2 without an acknowledgement at the end.
    pub(super) unacknowledged: u64,
    /// How often nothing came for `patience` seconds, and what was on the way was given up.
    pub(super) stalls: u64,
}

impl Delivery {
    /// What the standard does not allow, in words. `qos`: the lower one of publisher and subscriber.
    fn faults(&self, qos: u8, is_ordered: bool) -> Vec<String> {
        let mut faults = Vec::new();
        let mut fault = |is_wrong: bool, what: String| {
            if is_wrong {
                faults.push(what);
            }
        };
        fault(
            qos > 0 && self.lost > 0,
            format!("{} of {} deliveries lost at QoS {qos}", self.lost, self.expected),
        );
        fault(
            qos == 2 && self.duplicated > 0,
            format!("{} messages came twice at QoS 2", self.duplicated),
        );
        fault(
            is_ordered && self.reordered > 0,
            format!("{} messages were overtaken [MQTT-4.6.0-6]", self.reordered),
        );
        fault(
            self.strays > 0,
            format!("{} messages that nobody had asked for", self.strays),
        );
        fault(
            self.unacknowledged > 0,
            format!("{} messages were not acknowledged", self.unacknowledged),
        );
        faults
    }
}

/// The broker's process.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct BrokerProcess {
    pub(super) pid: u32,
    /// While it was measured.
    pub(super) cpu_seconds: f64,
    /// CPU seconds for a million deliveries (or messages, connections): the same number in microseconds for one.
    pub(super) cpu_seconds_per_million: f64,
    /// Bytes in memory before the first connection.
    pub(super) resident_before: u64,
    /// Bytes in memory at the end of what is measured.
    pub(super) resident: u64,
    pub(super) resident_max: u64,
    /// Bytes more for each connection, subscription or retained message, see `resident_of`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) resident_each: Option<f64>,
    /// `connection`, `subscription` or `retained message`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) resident_of: Option<&'static str>,
    /// Of these bytes, what the text of a subscription's filter has itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) resident_text: Option<f64>,
    /// Of storing (retained), subscribing (wildcard), or being idle.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) other_cpu_seconds: Option<f64>,
}

/// Ourselves.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(super) struct Generator {
    pub(super) threads: usize,
    pub(super) cpu_seconds: f64,
    /// Of all threads; near 1 the generator is what is measured.
    pub(super) busy: f64,
    /// The longest delay of a message behind the schedule.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) late_max_us: Option<f64>,
}

impl Report {
    /// Nothing measured yet.
    pub(super) fn new(workload: &Workload, transport: &'static str) -> Self {
        Self {
            name: workload.name.clone(),
            broker: None,
            scenario: workload.scenario,
            version: workload.version.name(),
            transport,
            qos: workload.qos.bits(),
            sub_qos: workload.sub_qos.bits(),
            payload: workload.payload,
            publishers: workload.publishers,
            subscribers: workload.subscribers,
            seconds: 0.0,
            traffic: None,
            connections: None,
            retained: None,
            latency_us: None,
            acknowledged_us: None,
            delivery: None,
            broker_process: None,
            generator: Generator::default(),
            faults: Vec::new(),
            remarks: Vec::new(),
        }
    }

    /// Enters the account, and what is wrong by it.
    pub(super) fn judge(&mut self, delivery: Delivery) {
        let qos = self.qos.min(self.sub_qos);
        self.faults.extend(delivery.faults(qos, self.scenario.is_ordered()));
        if delivery.sent > 0 && delivery.delivered == 0 {
            let what = "nothing that was sent has come: may this user publish and subscribe there? The broker's log says what it refuses";
            self.faults.push(what.to_owned());
        }
        if delivery.refused > 0 {
            self.remarks
                .push(format!("the broker refused {} messages", delivery.refused));
        }
        if delivery.stalls > 0 {
            self.remarks
                .push(format!("deliveries stopped {} times", delivery.stalls));
        }
        self.delivery = Some(delivery);
    }

    /// Says what makes the figures less than they seem.
    pub(super) fn remark(&mut self, rate: f64) {
        // By the clock it is busy waiting.
        if self.generator.busy > 0.95 && rate == 0.0 {
            self.remarks
                .push("the generator had no time left: the broker may do more; try --threads".to_owned());
        }
        if let Some(traffic) = &self.traffic
            && rate > 0.0
            && traffic.published_per_second < 0.98 * rate
        {
            self.remarks
                .push(format!("the rate of {} a second was not reached", count(rate)));
        }
    }

    /// A table of two columns.
    pub(super) fn table(&self) -> String {
        let mut text = String::new();
        let mut line = |name: &str, value: String| {
            let _ = writeln!(text, "  {name:<14}{value}"); // writing into a string does not fail
        };
        if let Some(traffic) = &self.traffic {
            line("delivered", format!("{}/s", count(traffic.delivered_per_second)));
            line("published", format!("{}/s", count(traffic.published_per_second)));
            if let Some(churned) = traffic.churned_per_second {
                line("churn", format!("{} SUBSCRIBE and UNSUBSCRIBE/s", count(churned)));
            }
            if self.scenario == Scenario::Wildcard {
                let (filters, seconds) = (traffic.filters, traffic.subscribe_seconds);
                line("subscribed", format!("{filters} filters in {seconds:.2} s"));
            }
        }
        if let Some(connections) = &self.connections {
            let Connections {
                opened,
                failed,
                per_second,
                ..
            } = connections;
            line(
                "connections",
                format!("{opened}, {failed} failed, {}/s", count(*per_second)),
            );
            line("connecting", connections.connect_us.line());
        }
        if let Some(retained) = &self.retained {
            line(
                "stored",
                format!(
                    "{}/s, {} messages",
                    count(retained.stored_per_second),
                    retained.messages
                ),
            );
            line("delivered", format!("{}/s", count(retained.delivered_per_second)));
        }
        if let Some(latency) = self.latency_us.filter(|latency| latency.count > 0) {
            line("latency", latency.line());
        }
        if let Some(acknowledged) = self.acknowledged_us.filter(|acknowledged| acknowledged.count > 0) {
            line("acknowledged", acknowledged.line());
        }
        if let Some(delivery) = &self.delivery {
            line("delivery", delivery.line());
        }
        if let Some(broker) = &self.broker_process {
            line("broker CPU", broker.cpu_line(self.scenario));
            line("broker memory", broker.memory_line());
        }
        line(
            "generator",
            format!(
                "{:.0} % of {} thread(s)",
                100.0 * self.generator.busy,
                self.generator.threads
            ),
        );
        for remark in &self.remarks {
            line("note", remark.clone());
        }
        for fault in &self.faults {
            line("WRONG", fault.clone());
        }
        let title = self.title();
        format!("{title}\n{text}")
    }

    /// What was run, in a line.
    pub(super) fn title(&self) -> String {
        let broker = self
            .broker
            .as_ref()
            .map_or_else(String::new, |broker| format!(", {broker}"));
        let what = match self.scenario {
            Scenario::Connect | Scenario::Idle => String::new(),
            _ => format!(
                ", {} → {}, QoS {}{}, {} bytes",
                self.publishers,
                self.subscribers,
                self.qos,
                if self.qos == self.sub_qos {
                    String::new()
                } else {
                    format!("/{}", self.sub_qos)
                },
                self.payload
            ),
        };
        let (name, version, transport) = (&self.name, self.version, self.transport);
        format!(
            "{name}{broker}: MQTT {version} over {transport}{what}, {:.1} s",
            self.seconds
        )
    }
}

impl Percentiles {
    fn line(&self) -> String {
        let Self {
            p50,
            p90,
            p99,
            p999,
            max,
            ..
        } = *self;
        let [p50, p90, p99, p999, max] = [p50, p90, p99, p999, max].map(time);
        format!("p50 {p50}  p90 {p90}  p99 {p99}  p99.9 {p999}  max {max}")
    }
}

impl Delivery {
    fn line(&self) -> String {
        let Self {
            expected,
            lost,
            duplicated,
            reordered,
            ..
        } = *self;
        if lost + duplicated + reordered == 0 {
            format!("{expected} expected: all came, once, in order")
        } else {
            format!("{expected} expected: {lost} lost, {duplicated} duplicated, {reordered} out of order")
        }
    }
}

impl BrokerProcess {
    fn cpu_line(&self, scenario: Scenario) -> String {
        let of = match scenario {
            Scenario::Connect | Scenario::Idle => "connections",
            _ => "deliveries",
        };
        let other = self.other_cpu_seconds.map_or_else(String::new, |seconds| {
            let when = match scenario {
                Scenario::Idle => "idle",
                Scenario::Wildcard => "subscribing",
                _ => "storing",
            };
            format!("; {when}: {seconds:.2} s")
        });
        let (seconds, per_million) = (self.cpu_seconds, self.cpu_seconds_per_million);
        format!("{seconds:.2} s, {per_million:.3} s for a million {of}{other}")
    }

    fn memory_line(&self) -> String {
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        let each = self.resident_each.zip(self.resident_of);
        let each = each.map_or_else(String::new, |(bytes, of)| format!("; {bytes:.0} bytes a {of}"));
        let text = self.resident_text;
        let text = text.map_or_else(String::new, |bytes| format!(", {bytes:.0} of them its text"));
        format!(
            "{:.1} MiB before, {:.1} MiB{each}{text}",
            mib(self.resident_before),
            mib(self.resident)
        )
    }
}

/// A large number with three digits that matter.
pub(super) fn count(number: f64) -> String {
    match number {
        1e7.. => format!("{:.1} M", number / 1e6),
        1e6.. => format!("{:.2} M", number / 1e6),
        1e5.. => format!("{:.0} k", number / 1e3),
        1e4.. => format!("{:.1} k", number / 1e3),
        _ => format!("{number:.0}"),
    }
}

/// Microseconds for people.
pub(super) fn time(us: f64) -> String {
    match us {
        1e6.. => format!("{:.2} s", us / 1e6),
        1e4.. => format!("{:.1} ms", us / 1e3),
        1e3.. => format!("{:.2} ms", us / 1e3),
        _ => format!("{us:.0} µs"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_standard_does_not_allow_is_a_fault() {
        let delivery = Delivery {
            expected: 10,
            lost: 2,
            duplicated: 1,
            reordered: 3,
            ..Delivery::default()
        };
        let faults = |qos, is_ordered| delivery.faults(qos, is_ordered).len();
        assert_eq!(faults(0, false), 0, "QoS 0 may lose");
        assert_eq!(faults(0, true), 1, "and may not overtake");
        assert_eq!(faults(1, false), 1, "QoS 1 may repeat");
        assert_eq!(faults(2, true), 3);
        assert!(delivery.faults(2, false)[0].contains("2 of 10 deliveries lost"));
    }

    #[test]
    fn numbers_are_for_people() {
        let counts = [12_345_678.0, 1_234_567.0, 123_456.0, 12_345.0, 999.4].map(count);
        assert_eq!(counts, ["12.3 M", "1.23 M", "123 k", "12.3 k", "999"]);
        let times = [2_500_000.0, 12_345.0, 1_234.0, 123.4].map(time);
        assert_eq!(times, ["2.50 s", "12.3 ms", "1.23 ms", "123 µs"]);
    }

    #[test]
    fn percentiles_are_those_of_the_values_within_a_thousandth() {
        let mut histogram = super::super::worker::histogram();
        for microseconds in 1..=10_000_u64 {
            histogram.saturating_record(microseconds * 1000);
        }
        let found = Percentiles::of(&histogram);
        for (found, expected) in [
            (found.p50, 5_000.0),
            (found.p99, 9_900.0),
            (found.p999, 9_990.0),
            (found.max, 10_000.0),
        ] {
            let off: f64 = (found - expected) / expected;
            assert!(off.abs() < 0.001, "{found} {expected}");
        }
    }
}
