//! `sundew bench`: loads a broker, any MQTT broker, and says what it did: messages a second, latency, and whether all came.
//!
//! Without sockets and clock, and tested so: `scenario` (who does what), `settings`, `stamp`, `schedule`, `window`, `account`, `report`,
//! `compare`. The `conductor` leads a run; each of its threads (`worker`) is a runtime with a task for each `connection`.

mod account;
mod ceiling;
mod churn;
mod compare;
mod conductor;
mod connection;
mod link;
mod pacer;
mod process;
mod progress;
mod publisher;
mod report;
mod runs;
mod scenario;
mod schedule;
mod settings;
mod shared;
mod stamp;
mod subscriber;
mod sweep;
mod window;
mod worker;

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args, ValueEnum};

use super::client::ServerArguments;
use super::{Exit, output};
use crate::transport::client_stream::{ConnectOptions, Connector, Endpoint};

use compare::Comparison;
use conductor::Target;
use progress::Progress;
use report::Report;
use scenario::Scenario;
use settings::{Settings, Workload};
use shared::Access;
use sweep::Sweep;

/// Measure a broker: throughput, latency, connections, and whether everything arrives
///
/// Works with every MQTT broker. Each payload carries who sent it, its number and when, so that losses, repetitions and overtaking are
/// found, every one; the exit code is 1 where a message was lost at QoS 1 or 2, came twice at QoS 2, was overtaken, or a connection was
/// lost.
///
/// A closed loop (the default) sends as fast as the broker delivers: at most --in-flight messages of a publisher are on the way. An
/// open loop (--rate) sends by the clock, and latency counts from the moment a message was due, so that a broker that stands still
/// cannot hide it.
#[derive(Debug, Args)]
#[command(disable_help_flag = true, args_override_self = true, after_help = SHORT_EXAMPLES, after_long_help = EXAMPLES)]
pub(super) struct Arguments {
    /// Scenarios by name, or files with one each; --list names them
    #[arg(value_name = "SCENARIO", required_unless_present_any = ["list", "ceiling"])]
    scenarios: Vec<String>,
    /// Name the scenarios
    #[arg(long)]
    list: bool,
    /// Be the ceiling, a broker on this port of 127.0.0.1 to compare others with: it forwards, and does nothing else; until it is ended
    #[arg(long, value_name = "PORT", conflicts_with_all = ["scenarios", "list"])]
    ceiling: Option<u16>,
    /// The broker's process on this machine: its CPU time and memory
    #[arg(long, value_name = "PID")]
    pid: Option<u32>,
    /// Measure several brokers in turn, round by round, and compare them to the first: give it twice or more
    #[arg(long, value_name = "NAME=URL[,pid=PID]", conflicts_with_all = ["pid", "url"])]
    compare: Vec<String>,
    /// Rounds of --compare
    #[arg(long, value_name = "NUMBER", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Run at several sizes: a setting by its name in a file, and its values
    #[arg(long, value_name = "KEY=VALUE,VALUE…")]
    sweep: Option<String>,
    /// Draw the sweep: CPU for a million deliveries, or without a PID the rate, as SVG
    #[arg(long, value_name = "FILE", requires = "sweep")]
    plot: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Show no progress
    #[arg(long)]
    quiet: bool,
    #[command(flatten)]
    settings: Settings,
    #[command(flatten)]
    server: ServerArguments,
    /// This help
    #[arg(long, action = ArgAction::Help)]
    help: Option<bool>,
}

const SHORT_EXAMPLES: &str = "\
Examples:
  sundew bench pairs --pid $(pidof sundew)        how fast, at which CPU
  sundew bench latency --rate 50000               how soon
  sundew bench --list                             what there is";

const EXAMPLES: &str = "\
Examples:
  sundew bench pairs -q 1 --pid $(pidof sundew)   pairs at QoS 1, with the broker's CPU and memory
  sundew bench fan-out --subscribers 1000 --in-flight 100
                                                  one to a thousand
  sundew bench latency --rate 50000 -d 30         half a minute by the clock
  sundew bench idle --connections 10000 --pid $(pidof mosquitto)
                                                  bytes for each connection
  sundew bench pairs -L mqtts://broker.example --cafile ca.pem -u ann -P secret -V 5
                                                  over TLS, with a password, MQTT 5
  sundew bench tests/bench/*.toml --json          every figure that we publish
  sundew bench pairs fan-in --compare sundew=mqtt://localhost:1883,pid=$(pidof sundew) \\
      --compare mosquitto=mqtt://localhost:1884,pid=$(pidof mosquitto)
                                                  in turn, with medians and ratios
  sundew bench fan-out --sweep subscribers=1,10,100,1000 --pid $(pidof sundew) --plot growth.svg
                                                  how the cost of a delivery grows
  sundew bench --ceiling 1899 &                   what this machine can do at all, then:
  sundew bench pairs --compare ceiling=mqtt://localhost:1899,pid=$! \\
      --compare sundew=mqtt://localhost:1883,pid=$(pidof sundew)

A file says the same as the flags, with _ for -; a flag goes before it:
  scenario = \"fan-in\"
  qos = 1
  in_flight = 500

Figures of a machine that does other things, or where broker and generator have one core together, say little.
CPU for a million deliveries is the steadiest one. Compare only what was measured in turn.";

pub(super) fn run(arguments: &Arguments) -> Exit {
    if arguments.list {
        return output::print(list().as_bytes());
    }
    if let Some(port) = arguments.ceiling {
        eprintln!("{}", forward(port));
        return Exit::Failed;
    }
    let measured = arguments.workloads().and_then(|workloads| {
        let needed = workloads
            .iter()
            .flatten()
            .map(|sized| sized.workload.connections())
            .max()
            .unwrap_or(0);
        raise_descriptors(needed)?;
        if arguments.compare.is_empty() {
            measure(arguments, &workloads)
        } else {
            compare(arguments, &workloads)
        }
    });
    match measured {
        Ok(exit) => exit,
        Err(error) => {
            eprintln!("{error}");
            Exit::Failed
        }
    }
}

/// Is the ceiling, until that fails; the failure in words.
fn forward(port: u16) -> String {
    let _ = rlimit::increase_nofile_limit(u64::MAX); // what is too little is seen at the generator
    let bound = ceiling::Ceiling::bind(port).and_then(|ceiling| Ok((ceiling.address()?, ceiling)));
    let (address, ceiling) = match bound {
        Ok(bound) => bound,
        Err(error) => return format!("cannot listen on 127.0.0.1:{port}: {error}"),
    };
    output::print(format!("the ceiling listens on {address}\n").as_bytes());
    format!("cannot wait for connections: {}", ceiling.run())
}

fn list() -> String {
    let lines = Scenario::value_variants().iter().filter_map(|scenario| {
        let value = scenario.to_possible_value()?;
        Some(format!("{:<10}{}\n", value.get_name(), value.get_help()?))
    });
    lines.collect()
}

/// A scenario at one size of a sweep.
struct Sized {
    workload: Workload,
    value: f64,
}

/// Each scenario once, one after the other; what is measured is printed at once.
fn measure(arguments: &Arguments, scenarios: &[Vec<Sized>]) -> Result<Exit, String> {
    let mut progress = Progress::new(arguments.quiet);
    let mut exit = Exit::Done;
    let mut lines = Lines::new(arguments)?;
    for sizes in scenarios {
        let mut runs = Vec::new();
        for Sized { workload, value } in sizes {
            let target = arguments.target(None, None, arguments.pid, workload)?;
            let report = runs::run(workload, &target, &mut progress)?;
            if !report.faults.is_empty() {
                exit = Exit::Failed;
            }
            print(&report, arguments.json, Report::table)?;
            runs.push((*value, report));
        }
        if let (Some(sweep), false) = (&lines.sweep, arguments.json) {
            print(&(), false, |()| sweep::table(sweep, &runs))?;
        }
        lines.add(&sizes[0].workload.scenario_name(), &runs);
    }
    lines.draw(arguments)?;
    Ok(exit)
}

/// Each scenario, each size, each round, each broker.
fn compare(arguments: &Arguments, scenarios: &[Vec<Sized>]) -> Result<Exit, String> {
    let brokers: Vec<_> = arguments
        .compare
        .iter()
        .map(|text| Compare::parse(text))
        .collect::<Result<_, _>>()?;
    let mut progress = Progress::new(arguments.quiet);
    let mut exit = Exit::Done;
    let mut lines = Lines::new(arguments)?;
    for sizes in scenarios {
        let mut runs = vec![Vec::new(); brokers.len()];
        for Sized { workload, value } in sizes {
            let rounds = rounds(arguments, &brokers, workload, &mut progress)?;
            for ((_, reports), runs) in rounds.iter().zip(&mut runs) {
                runs.extend(reports.iter().map(|report| (*value, report.clone())));
                if reports.iter().any(|report| !report.faults.is_empty()) {
                    exit = Exit::Failed;
                }
            }
            print(
                &Comparison::new(workload.name.clone(), rounds),
                arguments.json,
                Comparison::table,
            )?;
        }
        for (broker, runs) in brokers.iter().zip(&runs) {
            lines.add(&format!("{} {}", sizes[0].workload.scenario_name(), broker.name), runs);
        }
    }
    lines.draw(arguments)?;
    Ok(exit)
}

/// Of each broker its reports.
fn rounds(
    arguments: &Arguments,
    brokers: &[Compare],
    workload: &Workload,
    progress: &mut Progress,
) -> Result<Vec<(String, Vec<Report>)>, String> {
    let mut rounds: Vec<_> = brokers.iter().map(|broker| (broker.name.clone(), Vec::new())).collect();
    for _ in 0..arguments.rounds {
        for (broker, (_, reports)) in brokers.iter().zip(&mut rounds) {
            let target = arguments.target(Some(&broker.name), Some(&broker.url), broker.pid, workload)?;
            let run = runs::run(workload, &target, progress);
            reports.push(run.map_err(|error| format!("{}, {}: {error}", workload.name, broker.name))?);
        }
    }
    Ok(rounds)
}

/// The lines of the plot, where one is wanted.
struct Lines {
    sweep: Option<Sweep>,
    figure: Option<&'static compare::Figure>,
    lines: Vec<sweep::Line>,
}

impl Lines {
    fn new(arguments: &Arguments) -> Result<Self, String> {
        Ok(Self {
            sweep: arguments.sweep.as_deref().map(Sweep::parse).transpose()?,
            figure: None,
            lines: Vec::new(),
        })
    }

    fn add(&mut self, name: &str, runs: &[(f64, Report)]) {
        self.figure = self.figure.or_else(|| sweep::figure(runs));
        if let Some(figure) = self.figure {
            self.lines.push(sweep::line(name.to_owned(), runs, figure));
        }
    }

    fn draw(&self, arguments: &Arguments) -> Result<(), String> {
        let (Some(file), Some(sweep), Some(figure)) = (&arguments.plot, &self.sweep, self.figure) else {
            return Ok(());
        };
        let title = arguments.scenarios.join(", ");
        let svg = sweep::plot(&title, &sweep.key, figure.name, &self.lines);
        std::fs::write(file, svg).map_err(|error| format!("cannot write {}: {error}", file.display()))
    }
}

fn print<T: serde::Serialize>(value: &T, is_json: bool, table: impl Fn(&T) -> String) -> Result<(), String> {
    let mut text = if is_json {
        serde_json::to_string(value).map_err(|error| format!("cannot write JSON: {error}"))?
    } else {
        table(value)
    };
    text.push('\n');
    match output::print(text.as_bytes()) {
        Exit::Done => Ok(()),
        _ => Err("the report could not be printed".to_owned()),
    }
}

/// One `--compare`.
#[derive(Debug, PartialEq)]
struct Compare {
    name: String,
    url: String,
    pid: Option<u32>,
}

impl Compare {
    fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("--compare {text}: write it like sundew=mqtt://localhost:1883,pid=123");
        let (name, rest) = text.split_once('=').ok_or_else(wrong)?;
        let (url, pid) = match rest.rsplit_once(",pid=") {
            Some((url, pid)) => (url, Some(pid.parse().map_err(|_| wrong())?)),
            None => (rest, None),
        };
        if name.is_empty() || !url.contains("://") {
            return Err(wrong());
        }
        Ok(Self {
            name: name.to_owned(),
            url: url.to_owned(),
            pid,
        })
    }
}

impl Arguments {
    /// Each scenario at each size; without a sweep at one.
    fn workloads(&self) -> Result<Vec<Vec<Sized>>, String> {
        let sweep = self.sweep.as_deref().map(Sweep::parse).transpose()?;
        let decide = |argument: &String| {
            let (name, settings) = settings::read(argument)?;
            let Some(sweep) = &sweep else {
                let workload = settings.decide(&[&self.settings], name)?;
                return Ok(vec![Sized { workload, value: 0.0 }]);
            };
            let at = |value: &f64| {
                let name = format!("{name}, {}={value}", sweep.key);
                let workload = settings
                    .clone()
                    .decide(&[&sweep.settings(*value)?, &self.settings], name)?;
                Ok(Sized {
                    workload,
                    value: *value,
                })
            };
            sweep.values.iter().map(at).collect()
        };
        self.scenarios.iter().map(decide).collect()
    }

    fn target(
        &self,
        name: Option<&str>,
        url: Option<&str>,
        pid: Option<u32>,
        workload: &Workload,
    ) -> Result<Target, String> {
        if let Some(pid) = pid {
            process::usage(pid)?;
        }
        let server = self.server.resolve(url)?;
        let mut connect = server.connect;
        let transport = match (&connect.endpoint, &connect.tls, &connect.websocket_path) {
            (Endpoint::Unix(_), ..) => "unix",
            (_, None, None) => "tcp",
            (_, Some(_), None) => "tls",
            (_, None, Some(_)) => "ws",
            (_, Some(_), Some(_)) => "wss",
        };
        look_up(&mut connect)?;
        let connector = |source: Option<IpAddr>| {
            let options = ConnectOptions {
                source,
                ..connect.clone()
            };
            Connector::new(options).map_err(|error| error.to_string())
        };
        let connectors = match workload.sources {
            1 => vec![connector(None)?],
            count => (1..=count)
                .map(|last| connector(Some(IpAddr::V4(Ipv4Addr::new(127, 0, 0, last)))))
                .collect::<Result<_, _>>()?,
        };
        Ok(Target {
            access: Access {
                connectors,
                user_name: server.user_name,
                password: server.password.map(Into::into),
            },
            transport,
            pid,
            name: name.map(str::to_owned),
        })
    }
}

/// How long one address may take to answer.
const ANSWER: Duration = Duration::from_secs(5);

/// Puts the first address that answers in the place of the host's name: a name is not looked up for every connection.
fn look_up(connect: &mut ConnectOptions) -> Result<(), String> {
    let Endpoint::Tcp { host, port } = &connect.endpoint else {
        return Ok(());
    };
    let endpoint = connect.endpoint.clone();
    let addresses = (host.as_str(), *port).to_socket_addrs();
    let addresses = addresses.map_err(|error| format!("cannot find {host}: {error}"))?;
    let mut refusal = None;
    let mut answers = |address: &SocketAddr| match TcpStream::connect_timeout(address, ANSWER) {
        Ok(_) => true,
        Err(error) => {
            refusal.get_or_insert(error);
            false
        }
    };
    let Some(address) = addresses.into_iter().find(|address| answers(address)) else {
        let why = refusal.map_or_else(|| "it has no address".to_owned(), |error| error.to_string());
        return Err(format!(
            "cannot connect to {endpoint}: {why}; is a broker running, and on this port?"
        ));
    };
    if let Some(tls) = &mut connect.tls {
        tls.server_name.get_or_insert(host.clone());
    }
    connect.endpoint = Endpoint::Tcp {
        host: address.ip().to_string(),
        port: address.port(),
    };
    Ok(())
}

/// Files and sockets that are no connections.
const DESCRIPTORS_BESIDE: u64 = 64;

fn raise_descriptors(connections: u64) -> Result<(), String> {
    let allowed = rlimit::increase_nofile_limit(u64::MAX).unwrap_or(u64::MAX); // what cannot be asked fails when it is needed
    if allowed < connections + DESCRIPTORS_BESIDE {
        return Err(format!(
            "{connections} connections need as many descriptors, and the system allows {allowed}: raise its limit (ulimit -Hn)"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broker_to_compare_has_a_name_a_url_and_maybe_a_process() {
        let parsed = Compare::parse("a=mqtt://u:p=q@h:1,pid=12").unwrap();
        assert_eq!(
            (parsed.name.as_str(), parsed.url.as_str(), parsed.pid),
            ("a", "mqtt://u:p=q@h:1", Some(12))
        );
        assert_eq!(Compare::parse("a=ws://h/x").unwrap().pid, None);
        for wrong in ["a", "=mqtt://h", "a=h:1883", "a=mqtt://h,pid=x"] {
            assert!(Compare::parse(wrong).unwrap_err().contains("write it like"), "{wrong}");
        }
    }

    #[test]
    fn every_scenario_is_listed_with_what_it_is() {
        let list = list();
        assert_eq!(list.lines().count(), Scenario::value_variants().len());
        assert!(list.contains("fan-in    Many publishers"), "{list}");
    }
}
