//! Several brokers, each measured in turn, round by round: medians, and ratios within the rounds, whose spread says how far they can be
//! believed.

use std::fmt::Write;

use serde::Serialize;

use super::report::{Report, count, time};

/// One scenario over several brokers.
#[derive(Debug, Serialize)]
pub(super) struct Comparison {
    pub(super) scenario: String,
    pub(super) brokers: Vec<BrokerFigures>,
}

/// What a broker came to.
#[derive(Debug, Serialize)]
pub(super) struct BrokerFigures {
    pub(super) broker: String,
    pub(super) figures: Vec<Compared>,
    /// Of all its rounds, each once.
    pub(super) faults: Vec<String>,
    /// Every round.
    pub(super) rounds: Vec<Report>,
}

/// A figure over the rounds.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct Compared {
    pub(super) figure: &'static str,
    pub(super) median: f64,
    /// To the first broker, in the same round; none for the first itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) ratio: Option<Spread>,
}

/// A median, and how far the rounds lie apart.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Spread {
    pub(super) median: f64,
    pub(super) min: f64,
    pub(super) max: f64,
}

/// A figure of a report.
pub(super) struct Figure {
    pub(super) name: &'static str,
    pub(super) value: fn(&Report) -> Option<f64>,
    pub(super) print: fn(f64) -> String,
}

/// Everything that can be compared.
pub(super) const FIGURES: &[Figure] = &[
    Figure {
        name: "stored/s",
        value: |report| Some(report.retained.as_ref()?.stored_per_second),
        print: count,
    },
    Figure {
        name: "delivered/s",
        value: |report| {
            let traffic = report.traffic.as_ref().map(|traffic| traffic.delivered_per_second);
            traffic.or(report.retained.as_ref().map(|retained| retained.delivered_per_second))
        },
        print: count,
    },
    Figure {
        name: "connections/s",
        value: |report| Some(report.connections.as_ref()?.per_second),
        print: count,
    },
    Figure {
        name: "CPU s/million",
        value: |report| Some(report.broker_process?.cpu_seconds_per_million),
        print: |seconds| format!("{seconds:.3}"),
    },
    Figure {
        name: "p50",
        value: |report| Some(latency(report)?.p50),
        print: time,
    },
    Figure {
        name: "p99",
        value: |report| Some(latency(report)?.p99),
        print: time,
    },
    Figure {
        name: "p99.9",
        value: |report| Some(latency(report)?.p999),
        print: time,
    },
    Figure {
        name: "bytes each",
        value: |report| report.broker_process?.resident_each,
        print: |bytes| format!("{bytes:.0}"),
    },
    Figure {
        name: "memory MiB",
        value: |report| Some(report.broker_process?.resident as f64 / f64::from(1 << 20)),
        print: |mib| format!("{mib:.1}"),
    },
];

fn latency(report: &Report) -> Option<super::report::Percentiles> {
    let connecting = report.connections.as_ref().map(|connections| connections.connect_us);
    report.latency_us.or(connecting)
}

impl Comparison {
    /// `rounds`: of each broker its reports, round by round. The first broker is the one that the others are compared to.
    pub(super) fn new(scenario: String, rounds: Vec<(String, Vec<Report>)>) -> Self {
        let values =
            |reports: &[Report], figure: &Figure| -> Vec<f64> { reports.iter().filter_map(figure.value).collect() };
        let reference = rounds.first().map_or_else(Vec::new, |(_, reports)| reports.clone());
        let of_broker = |(index, (broker, reports)): (usize, (String, Vec<Report>))| {
            let compared = |figure: &Figure| {
                let own = values(&reports, figure);
                let first = values(&reference, figure);
                Some(Compared {
                    figure: figure.name,
                    median: median(&own)?,
                    ratio: if index == 0 { None } else { ratio(&own, &first) },
                })
            };
            let mut faults: Vec<_> = reports.iter().flat_map(|report| report.faults.clone()).collect();
            faults.sort();
            faults.dedup();
            BrokerFigures {
                figures: FIGURES.iter().filter_map(compared).collect(),
                faults,
                broker,
                rounds: reports,
            }
        };
        Self {
            scenario,
            brokers: rounds.into_iter().enumerate().map(of_broker).collect(),
        }
    }

    /// A Markdown table: a line for each figure, a column for each broker, in it the median and the ratio to the first with its spread.
    pub(super) fn table(&self) -> String {
        let mut text = format!("### {}\n\n| |", self.scenario);
        let mut put = |piece: String| text.push_str(&piece);
        for broker in &self.brokers {
            put(format!(" {} |", broker.broker));
        }
        put(format!("\n|---|{}\n", "---|".repeat(self.brokers.len())));
        for figure in FIGURES {
            let cells: Vec<_> = self.brokers.iter().map(|broker| broker.cell(figure)).collect();
            if cells.iter().any(Option::is_some) {
                let cells: Vec<_> = cells
                    .into_iter()
                    .map(|cell| cell.unwrap_or_else(|| "-".to_owned()))
                    .collect();
                put(format!("| {} | {} |\n", figure.name, cells.join(" | ")));
            }
        }
        for broker in &self.brokers {
            for fault in &broker.faults {
                let _ = write!(text, "\nWRONG, {}: {fault}\n", broker.broker); // writing into a string does not fail
            }
        }
        text
    }
}

impl BrokerFigures {
    fn cell(&self, figure: &Figure) -> Option<String> {
        let found = self.figures.iter().find(|compared| compared.figure == figure.name)?;
        let value = (figure.print)(found.median);
        Some(match found.ratio {
            None => value,
            Some(Spread { median, min, max }) => format!("{value}, {median:.2}× ({min:.2}–{max:.2})"),
        })
    }
}

/// The middle one; of two in the middle the mean.
pub(super) fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    let upper = *sorted.get(middle)?;
    Some(if sorted.len() % 2 == 1 {
        upper
    } else {
        f64::midpoint(sorted[middle - 1], upper)
    })
}

/// Of values of the same rounds.
fn ratio(own: &[f64], first: &[f64]) -> Option<Spread> {
    let ratios: Vec<_> = own
        .iter()
        .zip(first)
        .filter(|(_, first)| **first > 0.0)
        .map(|(own, first)| own / first)
        .collect();
    Some(Spread {
        median: median(&ratios)?,
        min: ratios.iter().copied().reduce(f64::min)?,
        max: ratios.iter().copied().reduce(f64::max)?,
    })
}

#[cfg(test)]
mod tests {
    use super::super::report::Traffic;
    use super::super::settings::Settings;
    use super::*;

    fn report(delivered_per_second: f64) -> Report {
        let settings: Settings = toml::from_str("scenario = \"pairs\"").unwrap();
        let workload = settings.decide(&[], "pairs".to_owned()).unwrap();
        let mut report = Report::new(&workload, "tcp");
        report.traffic = Some(Traffic {
            published_per_second: 0.0,
            delivered_per_second,
            subscribe_seconds: 0.0,
            filters: 8,
            churned_per_second: None,
        });
        report
    }

    #[test]
    fn ratios_are_taken_within_a_round() {
        // The machine was twice as fast in the second round: the ratio is the same.
        let rounds = |values: [f64; 3]| values.map(report).to_vec();
        let comparison = Comparison::new(
            "pairs".to_owned(),
            vec![
                ("one".to_owned(), rounds([100.0, 200.0, 100.0])),
                ("other".to_owned(), rounds([50.0, 100.0, 60.0])),
            ],
        );
        let other = &comparison.brokers[1].figures[0];
        assert_eq!((other.figure, other.median), ("delivered/s", 60.0));
        let spread = Spread {
            median: 0.5,
            min: 0.5,
            max: 0.6,
        };
        assert_eq!(other.ratio, Some(spread));
        let table = comparison.table();
        assert!(
            table.contains("| delivered/s | 100 | 60, 0.50× (0.50–0.60) |"),
            "{table}"
        );
        assert!(!table.contains("CPU"), "what nobody has, has no line: {table}");
    }

    #[test]
    fn the_median_of_an_even_number_lies_between_the_two_in_the_middle() {
        assert_eq!(median(&[4.0, 1.0, 3.0, 2.0]), Some(2.5));
        assert_eq!(median(&[]), None);
    }
}
