//! The three kinds of run: traffic, connections, retained messages.
#![allow(clippy::disallowed_methods, reason = "it waits for real time")]

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::conductor::{Conductor, Moment, Target};
use super::connection::Part;
use super::progress::Progress;
use super::report::{Connections, Percentiles, Report, Retained, Traffic};
use super::scenario::Scenario;
use super::schedule::Schedule;
use super::settings::Workload;
use super::worker::Command;

/// Runs a scenario once.
pub(super) fn run(workload: &Workload, target: &Target, progress: &mut Progress) -> Result<Report, String> {
    let conductor = Conductor::start(workload, target, progress)?;
    let report = match workload.scenario {
        Scenario::Connect | Scenario::Idle => connections(conductor, target),
        Scenario::Retained => retained(conductor, target),
        _ => traffic(conductor, target),
    };
    progress.clear();
    report
}

fn publishers(workload: &Workload) -> impl Iterator<Item = Part> + use<> {
    (0..workload.publishers).map(Part::Publisher)
}

fn subscribers(conductor: &Conductor<'_>) -> impl Iterator<Item = Part> + use<> {
    (0..conductor.shared.plan.subscribers.len() as u32).map(Part::Subscriber)
}

/// Seconds as nanoseconds.
fn nanos(seconds: f64) -> u64 {
    (seconds * 1e9) as u64
}

fn traffic(mut conductor: Conductor<'_>, target: &Target) -> Result<Report, String> {
    let workload = conductor.shared.workload.clone();
    let first = conductor.moment()?;
    conductor.open_all(subscribers(&conductor), "subscribing")?;
    let subscribed = conductor.moment()?;
    conductor.open_all(publishers(&workload), "connecting publishers")?;
    let start = conductor.shared.now() + nanos(0.01);
    let from = start + nanos(workload.warm_up);
    conductor.shared.measured_from.store(from, Ordering::SeqCst);
    conductor
        .shared
        .measured_to
        .store(from + nanos(workload.duration), Ordering::SeqCst);
    if workload.rate > 0.0 {
        let schedule = Schedule::new(start, workload.rate, workload.publishers);
        // Set once: a run has one schedule.
        let _ = conductor.shared.schedule.set(schedule);
        conductor.command_all(|| Command::Pace);
    }
    if workload.churn > 0.0 {
        conductor.command(0, Command::Churn(workload.churn));
    }
    conductor.publish();
    let mut stalls = 0;
    watch(&mut conductor, from, &mut stalls)?;
    let from = conductor.moment()?;
    watch(&mut conductor, from.time + nanos(workload.duration), &mut stalls)?;
    let to = conductor.moment()?;
    conductor.drain();
    conductor.check()?;
    let tally = conductor.finish()?;

    let mut report = conductor.report(target);
    let delivered = to.delivered - from.delivered;
    let filters = conductor.shared.plan.filters();
    report.seconds = to.seconds_since(&from);
    report.traffic = Some(Traffic {
        published_per_second: (to.sent - from.sent) as f64 / report.seconds,
        delivered_per_second: delivered as f64 / report.seconds,
        subscribe_seconds: subscribed.seconds_since(&first),
        filters,
        churned_per_second: (workload.churn > 0.0).then(|| (to.churned - from.churned) as f64 / report.seconds),
    });
    report.latency_us = Some(Percentiles::of(&tally.latency));
    if workload.qos.is_acknowledged() {
        report.acknowledged_us = Some(Percentiles::of(&tally.acknowledging));
    }
    report.broker_process = conductor.broker_process(&first, &from, &to, delivered);
    if let Some(process) = &mut report.broker_process
        && workload.scenario == Scenario::Wildcard
    {
        process.each("subscription", &first, &subscribed, filters);
        process.resident_text = Some(conductor.shared.plan.filter_bytes() as f64 / filters.max(1) as f64);
        let subscribing = subscribed.broker.zip(first.broker);
        process.other_cpu_seconds = subscribing.map(|(subscribed, first)| subscribed.cpu - first.cpu);
    }
    report.generator = conductor.generator(&from, &to);
    if workload.rate > 0.0 {
        report.generator.late_max_us = Some(tally.late_max as f64 / 1000.0);
    }
    report.judge(conductor.delivery(tally.overtaken, stalls));
    report.remark(workload.rate);
    Ok(report)
}

/// Watches the traffic until it is time: shows it once a second, and goes on where a broker has lost what a closed loop waits for.
fn watch(conductor: &mut Conductor<'_>, until: u64, stalls: &mut u64) -> Result<(), String> {
    let workload = conductor.shared.workload.clone();
    let mut last = conductor.shared.sum(|counters| &counters.delivered);
    let mut shown = last;
    let mut moved = Instant::now();
    let mut second = Instant::now();
    loop {
        let left = until.saturating_sub(conductor.shared.now());
        if left == 0 {
            return Ok(());
        }
        conductor.sleep(Duration::from_nanos(left).min(Duration::from_millis(100)));
        conductor.check()?;
        let delivered = conductor.shared.sum(|counters| &counters.delivered);
        if delivered != last {
            (last, moved) = (delivered, Instant::now());
        } else if workload.rate == 0.0 && moved.elapsed().as_secs_f64() >= workload.patience {
            let deliveries = conductor.shared.plan.deliveries;
            let lost = conductor
                .shared
                .publishers
                .iter()
                .filter(|cell| cell.write_off(deliveries));
            *stalls += u64::from(lost.count() > 0);
            moved = Instant::now();
        }
        if second.elapsed() >= Duration::from_secs(1) {
            let sent = conductor.shared.sum(|counters| &counters.sent) * conductor.shared.plan.deliveries;
            let seconds = second.elapsed().as_secs_f64();
            let new = (delivered - shown) as f64;
            let left = left as f64 / 1e9;
            conductor
                .progress
                .traffic(&workload.name, seconds, left, new, sent.saturating_sub(delivered));
            (shown, second) = (delivered, Instant::now());
        }
    }
}

fn connections(mut conductor: Conductor<'_>, target: &Target) -> Result<Report, String> {
    let workload = conductor.shared.workload.clone();
    let first = conductor.moment()?;
    conductor.open((0..workload.connections).map(Part::Idle), "connecting")?;
    let opened = conductor.moment()?;
    let failed = conductor.failures.len();
    if workload.scenario == Scenario::Idle {
        conductor.progress.say("idle");
        conductor.sleep(Duration::from_secs_f64(workload.duration));
    } else {
        conductor.sleep(Duration::from_millis(200)); // for the broker's books
    }
    let rested = conductor.moment()?;
    let count = conductor.shared.sum(|counters| &counters.opened);
    let lost = conductor.failures.len();
    let tally = conductor.finish()?;

    let mut report = conductor.report(target);
    report.seconds = opened.seconds_since(&first);
    report.connections = Some(Connections {
        opened: count,
        failed: lost as u64,
        per_second: count as f64 / report.seconds,
        connect_us: Percentiles::of(&tally.connecting),
    });
    report.broker_process = conductor.broker_process(&first, &first, &opened, count);
    if let Some(process) = &mut report.broker_process {
        process.each("connection", &first, &rested, count);
        process.resident = rested.broker.map_or(0, |usage| usage.resident);
        if let (true, Some(opened), Some(rested)) = (workload.scenario == Scenario::Idle, opened.broker, rested.broker)
        {
            process.other_cpu_seconds = Some(rested.cpu - opened.cpu);
        }
    }
    report.generator = conductor.generator(&first, &opened);
    if let Some(why) = conductor.failures.first() {
        let when = if lost > failed {
            "not opened, or lost"
        } else {
            "not opened"
        };
        report.faults.push(format!("{lost} connections {when}: {why}"));
    }
    report.remark(0.0);
    Ok(report)
}

fn retained(mut conductor: Conductor<'_>, target: &Target) -> Result<Report, String> {
    let workload = conductor.shared.workload.clone();
    conductor.open_all(publishers(&workload), "connecting publishers")?;
    let first = conductor.moment()?;
    conductor.publish();
    acknowledged(&mut conductor, workload.messages, "storing")?;
    let stored = conductor.moment()?;
    // The store may still be busy, and the next figure is to be that of delivering alone.
    conductor.sleep(Duration::from_millis(300));
    let before = conductor.moment()?;
    conductor.shared.measured_from.store(u64::MAX, Ordering::SeqCst);
    let expected = workload.messages * u64::from(workload.subscribers);
    conductor.open_all(subscribers(&conductor), "subscribing")?;
    let (last, after) = replayed(&mut conductor, expected)?;
    let mut delivery = conductor.delivery(0, 0);
    delivery.reordered = 0; // retained messages come in whatever order
    conductor.progress.say("removing");
    conductor.command_all(|| Command::Erase);
    // Subscribers that were told to leave are closed by the broker.
    let lost = conductor.failures.len();
    let erased = acknowledged_or_lost(
        &mut conductor,
        2 * workload.messages,
        lost + workload.subscribers as usize,
    );
    conductor.finish()?;

    let mut report = conductor.report(target);
    report.seconds = after.seconds_since(&before);
    let storing = stored.seconds_since(&first);
    report.retained = Some(Retained {
        messages: workload.messages,
        stored_per_second: workload.messages as f64 / storing,
        delivered_per_second: delivery.delivered as f64 / (last.saturating_sub(before.time).max(1) as f64 / 1e9),
    });
    report.broker_process = conductor.broker_process(&first, &before, &after, delivery.delivered);
    if let Some(process) = &mut report.broker_process {
        process.each("retained message", &first, &stored, workload.messages);
        process.other_cpu_seconds = stored
            .broker
            .zip(first.broker)
            .map(|(stored, first)| stored.cpu - first.cpu);
    }
    report.generator = conductor.generator(&before, &after);
    report.judge(delivery);
    if !erased {
        report
            .remarks
            .push("not every retained message could be removed again".to_owned());
    }
    Ok(report)
}

/// Waits for acknowledgements; an error where a connection is lost or they stop.
fn acknowledged(conductor: &mut Conductor<'_>, count: u64, what: &str) -> Result<(), String> {
    conductor.progress.say(what);
    if acknowledged_or_lost(conductor, count, 0) {
        return Ok(());
    }
    conductor.check()?;
    let acknowledged = conductor.shared.sum(|counters| &counters.acknowledged);
    Err(format!(
        "{what}: {acknowledged} of {count} messages acknowledged, then nothing"
    ))
}

/// True when so many are acknowledged; false when nothing moves, or more than `losses_max` connections are lost.
fn acknowledged_or_lost(conductor: &mut Conductor<'_>, count: u64, losses_max: usize) -> bool {
    let patience = Duration::from_secs_f64(conductor.shared.workload.patience);
    let (mut last, mut moved) = (0, Instant::now());
    loop {
        let acknowledged = conductor.shared.sum(|counters| &counters.acknowledged);
        if acknowledged >= count {
            return true;
        }
        if acknowledged != last {
            (last, moved) = (acknowledged, Instant::now());
        }
        if moved.elapsed() >= patience || conductor.failures.len() > losses_max {
            return false;
        }
        conductor.sleep(Duration::from_millis(1));
    }
}

/// Waits for the retained messages; the time of the last one, and the moment behind it.
fn replayed(conductor: &mut Conductor<'_>, expected: u64) -> Result<(u64, Moment), String> {
    let patience = Duration::from_secs_f64(conductor.shared.workload.patience);
    let mut last = (0, conductor.shared.now());
    loop {
        conductor.check()?;
        let delivered = conductor.shared.sum(|counters| &counters.delivered);
        let now = conductor.shared.now();
        if delivered != last.0 {
            last = (delivered, now);
        }
        if delivered >= expected || Duration::from_nanos(now - last.1) >= patience {
            return Ok((last.1, conductor.moment()?));
        }
        conductor.sleep(Duration::from_millis(1));
    }
}
