//! Carries a run through its phases: connect, warm up, measure, wait for the rest, count.
#![allow(clippy::disallowed_methods, reason = "it waits for real time")]

use std::sync::Arc;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::connection::Part;
use super::process::{self, Usage};
use super::progress::Progress;
use super::report::{BrokerProcess, Delivery, Generator, Report};
use super::scenario::{Plan, Size};
use super::settings::Workload;
use super::shared::{Access, Shared};
use super::worker::{self, Command, Event, Tally, histogram};

/// Where it goes.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) access: Access,
    pub(super) transport: &'static str,
    /// The broker's process.
    pub(super) pid: Option<u32>,
    /// The broker's name.
    pub(super) name: Option<String>,
}

/// One run, its threads and their news.
#[derive(Debug)]
pub(super) struct Conductor<'p> {
    pub(super) shared: Arc<Shared>,
    pub(super) pid: Option<u32>,
    commands: Vec<mpsc::Sender<Command>>,
    events: Receiver<Event>,
    threads: Vec<JoinHandle<std::io::Result<()>>>,
    pub(super) progress: &'p mut Progress,
    /// Connections that were lost or never there; the first one says why.
    pub(super) failures: Vec<String>,
    tallies: Vec<Tally>,
    ready: usize,
}

/// News that the conductor has not heard; a thread that has more waits.
const NEWS_MAX: usize = 1024;
/// Commands that a thread has not yet taken.
const COMMANDS_MAX: usize = 8;
/// Failures whose words are kept.
const FAILURES_MAX: usize = 1_000_000;
/// How long opening connections may take, in seconds.
const OPENING_SECONDS: f64 = 600.0;

/// A moment of a run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    /// Nanoseconds of the run's clock.
    pub(super) time: u64,
    pub(super) sent: u64,
    pub(super) delivered: u64,
    pub(super) churned: u64,
    pub(super) broker: Option<Usage>,
    own: Usage,
}

impl Moment {
    /// Seconds from another one to this.
    pub(super) fn seconds_since(&self, before: &Self) -> f64 {
        self.time.saturating_sub(before.time).max(1) as f64 / 1e9
    }
}

impl<'p> Conductor<'p> {
    /// Starts the threads; nothing is connected.
    pub(super) fn start(workload: &Workload, target: &Target, progress: &'p mut Progress) -> Result<Self, String> {
        let run = rand_u32();
        let plan = Plan::new(
            workload.scenario,
            &Size {
                publishers: workload.publishers,
                subscribers: workload.subscribers,
                filters: workload.filters,
                filter_kind: workload.filter_kind,
                messages: workload.messages,
                prefix: format!("bench/{run:08x}{}", "/l".repeat(workload.levels as usize)),
            },
        );
        let shared = Shared::new(workload.clone(), plan, target.access.clone(), run);
        let (sender, events) = sync_channel(NEWS_MAX);
        let mut conductor = Self {
            pid: target.pid,
            commands: Vec::new(),
            events,
            threads: Vec::new(),
            progress,
            failures: Vec::new(),
            tallies: Vec::new(),
            ready: 0,
            shared,
        };
        for thread in 0..workload.threads {
            let (commands, obeyed) = mpsc::channel(COMMANDS_MAX);
            let (shared, sender) = (Arc::clone(&conductor.shared), sender.clone());
            let thread = std::thread::Builder::new()
                .name(format!("bench-{thread}"))
                .spawn(move || worker::run(shared, thread, obeyed, sender))
                .map_err(|error| format!("cannot start a thread: {error}"))?;
            conductor.commands.push(commands);
            conductor.threads.push(thread);
        }
        Ok(conductor)
    }

    /// Opens connections and waits until all of them are there, subscribed where that is their part, or have failed.
    pub(super) fn open(&mut self, parts: impl Iterator<Item = Part>, what: &str) -> Result<(), String> {
        let threads = self.commands.len();
        let mut shares = vec![Vec::new(); threads];
        for (index, part) in parts.enumerate() {
            shares[index % threads].push(part);
        }
        self.ready = 0;
        for (thread, share) in shares.into_iter().enumerate() {
            self.command(thread, Command::Open(share));
        }
        self.progress.say(what);
        let end = Instant::now() + Duration::from_secs_f64(OPENING_SECONDS);
        while self.ready < threads {
            if !self.wait(end) {
                return Err(format!("{what}: not done within {OPENING_SECONDS} s"));
            }
        }
        Ok(())
    }

    /// As [`Self::open`], and one failure is one too many.
    pub(super) fn open_all(&mut self, parts: impl Iterator<Item = Part>, what: &str) -> Result<(), String> {
        self.open(parts, what)?;
        self.check()
    }

    /// An error where a connection is lost.
    pub(super) fn check(&self) -> Result<(), String> {
        match self.failures.first() {
            None => Ok(()),
            Some(failure) if self.failures.len() == 1 => Err(failure.clone()),
            Some(failure) => Err(format!("{failure} ({} connections)", self.failures.len())),
        }
    }

    /// Tells every thread.
    pub(super) fn command_all(&self, command: impl Fn() -> Command) {
        for thread in 0..self.commands.len() {
            self.command(thread, command());
        }
    }

    /// Tells one thread.
    pub(super) fn command(&self, thread: usize, command: Command) {
        let _ = self.commands[thread].blocking_send(command); // a thread that is gone is found when it is joined
    }

    /// Waits for news; false when it is time.
    pub(super) fn wait(&mut self, until: Instant) -> bool {
        let left = until.saturating_duration_since(Instant::now());
        match self.events.recv_timeout(left) {
            Ok(Event::Ready) => self.ready += 1,
            Ok(Event::Failed(failure)) if self.failures.len() < FAILURES_MAX => self.failures.push(failure),
            Ok(Event::Failed(_)) => {}
            Ok(Event::Finished(tally)) => self.tallies.push(*tally),
            Err(RecvTimeoutError::Timeout) => return false,
            Err(RecvTimeoutError::Disconnected) => {
                self.failures.push("a thread of the generator has ended".to_owned());
                std::thread::sleep(left.min(Duration::from_millis(100)));
                return false;
            }
        }
        true
    }

    /// Waits until it is time, whatever the news is.
    pub(super) fn sleep(&mut self, time: Duration) {
        let until = Instant::now() + time;
        while self.wait(until) {}
    }

    /// Everything that grows, now.
    pub(super) fn moment(&self) -> Result<Moment, String> {
        let shared = &self.shared;
        Ok(Moment {
            time: shared.now(),
            sent: shared.sum(|counters| &counters.sent),
            delivered: shared.sum(|counters| &counters.delivered),
            churned: shared.sum(|counters| &counters.churned),
            broker: self.pid.map(process::usage).transpose()?,
            own: process::usage(std::process::id()).unwrap_or_default(), // where there is no /proc
        })
    }

    /// Lets the publishers send, from now on or by the schedule.
    pub(super) fn publish(&self) {
        self.shared.is_publishing.store(true, Ordering::SeqCst);
        self.shared.wake_publishers();
    }

    /// Waits until everything that was sent is delivered and acknowledged, or nothing has come for a while.
    pub(super) fn drain(&mut self) {
        self.shared.is_publishing.store(false, Ordering::SeqCst);
        let patience = Duration::from_secs_f64(self.shared.workload.patience);
        let mut last = (0, 0);
        let mut moved = Instant::now();
        self.progress.say("waiting for the rest");
        while !self.is_whole() {
            let shared = &self.shared;
            let now = (
                shared.sum(|counters| &counters.delivered),
                shared.sum(|counters| &counters.acknowledged),
            );
            if now != last {
                (last, moved) = (now, Instant::now());
            }
            if moved.elapsed() >= patience || !self.failures.is_empty() {
                break;
            }
            self.sleep(Duration::from_millis(2));
        }
        // What is too much comes behind.
        self.sleep(Duration::from_millis(20));
    }

    fn is_whole(&self) -> bool {
        let shared = &self.shared;
        let sent = shared.sum(|counters| &counters.sent);
        let is_acknowledged =
            !shared.workload.qos.is_acknowledged() || shared.sum(|counters| &counters.acknowledged) == sent;
        let refused: u64 = shared
            .publishers
            .iter()
            .map(|cell| cell.refused.load(Ordering::Relaxed))
            .sum();
        let expected = (sent - refused.min(sent)) * shared.plan.deliveries;
        is_acknowledged && shared.sum(|counters| &counters.delivered) >= expected
    }

    /// Ends the threads and adds up what they have found.
    pub(super) fn finish(&mut self) -> Result<Tally, String> {
        self.command_all(|| Command::Finish);
        let end = Instant::now() + Duration::from_secs(60);
        while self.tallies.len() < self.commands.len() {
            if !self.wait(end) {
                return Err("a thread of the generator does not end".to_owned());
            }
        }
        for thread in self.threads.drain(..) {
            match thread.join() {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return Err(format!("a thread of the generator failed: {error}")),
                Err(_) => return Err("a thread of the generator panicked".to_owned()),
            }
        }
        self.progress.clear();
        let mut whole = Tally {
            latency: histogram(),
            acknowledging: histogram(),
            connecting: histogram(),
            overtaken: 0,
            late_max: 0,
        };
        for tally in &self.tallies {
            whole.latency += &tally.latency;
            whole.acknowledging += &tally.acknowledging;
            whole.connecting += &tally.connecting;
            whole.overtaken += tally.overtaken;
            whole.late_max = whole.late_max.max(tally.late_max);
        }
        Ok(whole)
    }

    /// What became of every message. Behind [`Self::finish`].
    pub(super) fn delivery(&self, overtaken: u64, stalls: u64) -> Delivery {
        let shared = &self.shared;
        let mut delivery = Delivery {
            reordered: overtaken,
            stalls,
            ..Delivery::default()
        };
        let left = |publisher: u32| {
            let cell = &shared.publishers[publisher as usize];
            cell.sent.load(Ordering::Relaxed) - cell.refused.load(Ordering::Relaxed)
        };
        for cell in &shared.publishers {
            delivery.sent += cell.sent.load(Ordering::Relaxed);
            delivery.refused += cell.refused.load(Ordering::Relaxed);
        }
        for (audience, account) in shared.plan.audiences.iter().zip(&shared.accounts) {
            let account = account.lock().unwrap_or_else(PoisonError::into_inner);
            delivery.duplicated += account.repeated;
            delivery.strays += account.strays;
            for (index, publisher) in audience.clone().enumerate() {
                let came = account.count(index as u32);
                delivery.expected += left(publisher);
                delivery.delivered += came;
                delivery.lost += left(publisher).saturating_sub(came);
            }
        }
        if shared.workload.qos.is_acknowledged() {
            let acknowledged = shared.sum(|counters| &counters.acknowledged);
            delivery.unacknowledged = delivery.sent.saturating_sub(acknowledged);
        }
        delivery
    }

    /// The broker's process between two moments; `count` is what was done in between.
    pub(super) fn broker_process(
        &self,
        first: &Moment,
        from: &Moment,
        to: &Moment,
        count: u64,
    ) -> Option<BrokerProcess> {
        let (pid, first, from, to) = (self.pid?, first.broker?, from.broker?, to.broker?);
        let cpu_seconds = to.cpu - from.cpu;
        Some(BrokerProcess {
            pid,
            cpu_seconds,
            cpu_seconds_per_million: cpu_seconds / (count.max(1) as f64 / 1e6),
            resident_before: first.resident,
            resident: to.resident,
            resident_max: to.resident_max,
            resident_each: None,
            resident_of: None,
            resident_text: None,
            other_cpu_seconds: None,
        })
    }

    /// Ourselves between two moments.
    pub(super) fn generator(&self, from: &Moment, to: &Moment) -> Generator {
        let threads = self.shared.workload.threads;
        let cpu_seconds = to.own.cpu - from.own.cpu;
        Generator {
            threads,
            cpu_seconds,
            busy: cpu_seconds / to.seconds_since(from) / threads as f64,
            late_max_us: None,
        }
    }

    /// An empty report of this run.
    pub(super) fn report(&self, target: &Target) -> Report {
        let mut report = Report::new(&self.shared.workload, target.transport);
        report.broker.clone_from(&target.name);
        report
    }
}

impl BrokerProcess {
    /// What each of `count` things takes that came to be between two moments.
    pub(super) fn each(&mut self, of: &'static str, before: &Moment, after: &Moment, count: u64) {
        if let (Some(before), Some(after)) = (before.broker, after.broker)
            && count > 0
        {
            self.resident_each = Some((after.resident as f64 - before.resident as f64) / count as f64);
            self.resident_of = Some(of);
        }
    }
}

/// Differs from run to run.
fn rand_u32() -> u32 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(std::process::id()) as u32
}
