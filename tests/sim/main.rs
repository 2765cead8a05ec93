//! A deterministic simulation of the broker's pure half: many clients, one broker of several workers, and a network, a clock,
//! mailboxes and late answers that obey one seed. No sockets, no threads, no clock.
//!
//! `SUNDEW_SIM_SEED=123 cargo test --test sim` runs one seed and shows what happened; `SUNDEW_SIM_SEEDS=100000` runs that many,
//! from `SUNDEW_SIM_FIRST` on, with `SUNDEW_SIM_JOBS` at a time.

#![allow(clippy::print_stdout, reason = "the figures are what one runs many seeds for")]

mod client;
mod crash;
mod disk;
mod end;
mod engine;
mod fault;
mod history;
mod host;
mod late;
mod ledger;
mod network;
mod random;
mod reading;
mod store;
mod world;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use disk::DiskFault;
use fault::Fault;
use ledger::{Breach, Events, Invariant};

/// Seeds of a run that nobody asked more of.
const SEEDS: u64 = 300;
/// Seeds in one of which a mistake must be noticed.
const FAULT_SEEDS: u64 = 2000;
/// Seeds that break something after which no more are looked for.
const BROKEN_MAX: usize = 50;
/// Events that are shown of a seed that failed.
const SHOWN: usize = 80;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

fn run(seed: u64, fault: Option<Fault>) -> Result<Events, Breach> {
    let run = || {
        let (result, ledger) = world::run(seed, fault, false);
        result.map(|()| ledger.events)
    };
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        let what = panic
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).into()));
        Err(Breach {
            invariant: Invariant::NoPanic,
            what: what.unwrap_or_default(),
        })
    })
}

fn story(seed: u64) -> String {
    let told = catch_unwind(|| world::run(seed, None, true).1.trace.unwrap_or_default());
    let told = told.unwrap_or_default();
    let shown = number("SUNDEW_SIM_SHOWN").map_or(SHOWN, |shown| shown as usize);
    told[told.len().saturating_sub(shown)..].join("\n")
}

#[test]
fn every_seed_keeps_every_promise() {
    let seeds = match number("SUNDEW_SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => {
            let first = number("SUNDEW_SIM_FIRST").unwrap_or(1);
            first..first + number("SUNDEW_SIM_SEEDS").unwrap_or(SEEDS)
        }
    };
    let next = AtomicU64::new(seeds.start);
    let broken = Mutex::new(BTreeMap::new());
    let events = Mutex::new(Events::default());
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end || broken.lock().unwrap().len() >= BROKEN_MAX {
                return;
            }
            match run(seed, None) {
                Ok(happened) => events.lock().unwrap().add(happened),
                Err(breach) => _ = broken.lock().unwrap().insert(seed, breach),
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..number("SUNDEW_SIM_JOBS").unwrap_or(1) {
            scope.spawn(work);
        }
    });
    println!(
        "seeds {} to {}: {:?}",
        seeds.start,
        seeds.end - 1,
        events.lock().unwrap()
    );
    let broken = broken.into_inner().unwrap();
    let Some((seed, breach)) = broken.first_key_value() else {
        return;
    };
    let list: String = broken
        .iter()
        .map(|(seed, breach)| format!("{seed}: {}: {:.200}\n", breach.invariant, breach.what))
        .collect();
    panic!(
        "{}\n\nbroken in seed {seed}: {}\n{}\nall that were found:\n{list}run it again: SUNDEW_SIM_SEED={seed} cargo test --test sim\n",
        story(*seed),
        breach.invariant,
        breach.what
    );
}

/// Does something wrong and expects that the simulation says what is broken by it. In another seed the same fault may break another
/// promise first.
fn expect(fault: Fault, invariant: Invariant) {
    let mut found = Vec::new();
    for seed in 1..=FAULT_SEEDS {
        match run(seed, Some(fault)) {
            Err(breach) if breach.invariant == invariant => return,
            Err(breach) => found.push(breach.what),
            Ok(_) => {}
        }
    }
    panic!("{fault:?} went unnoticed in {FAULT_SEEDS} seeds, or was taken for something else: {found:?}");
}

#[test]
fn a_lost_letter_is_noticed() {
    expect(Fault::LoseDelivery, Invariant::AtLeastOnce);
}

#[test]
fn a_letter_that_is_delivered_twice_is_noticed() {
    expect(Fault::DoubleDelivery, Invariant::ExactlyOnce);
}

#[test]
fn letters_that_change_places_are_noticed() {
    expect(Fault::SwapDeliveries, Invariant::Order);
}

#[test]
fn a_letter_to_the_wrong_receivers_is_noticed() {
    expect(Fault::MisdirectDelivery, Invariant::OnlySubscribed);
}

#[test]
fn an_answer_that_never_comes_is_noticed() {
    expect(Fault::SwallowAnswer, Invariant::NoLostAcknowledgement);
}

#[test]
fn acknowledgements_that_change_places_are_noticed() {
    expect(Fault::SwapAcknowledgements, Invariant::AcknowledgementOrder);
}

#[test]
fn a_retained_message_that_disappears_is_noticed() {
    expect(Fault::LoseRetained, Invariant::Retained);
}

#[test]
fn a_session_that_is_thrown_away_is_noticed() {
    expect(Fault::LoseSession, Invariant::SessionKept);
}

#[test]
fn a_window_that_is_too_wide_is_noticed() {
    expect(Fault::WidenWindow, Invariant::Bounded);
}

#[test]
fn connections_that_are_never_removed_are_noticed() {
    expect(Fault::KeepConnections, Invariant::NothingLeft);
}

#[test]
fn a_store_that_tells_too_early_is_noticed() {
    expect(Fault::TellEarly, Invariant::SessionKept);
}

#[test]
fn a_delivery_of_which_it_is_not_kept_that_it_was_sent_is_noticed() {
    expect(Fault::ForgetSent, Invariant::ExactlyOnce);
}

#[test]
fn a_qos_2_identifier_that_is_not_kept_is_noticed() {
    expect(Fault::ForgetReceived, Invariant::ExactlyOnce);
}

#[test]
fn a_subscription_that_is_not_kept_is_noticed() {
    expect(Fault::ForgetSubscription, Invariant::AtLeastOnce);
}

#[test]
fn a_delivery_of_which_it_is_not_kept_that_it_was_received_is_noticed() {
    expect(Fault::ForgetReleased, Invariant::ExactlyOnce);
}

#[test]
fn a_tenant_that_is_not_kept_is_noticed() {
    expect(Fault::ForgetTenant, Invariant::SessionKept);
}

#[test]
fn a_sync_that_is_left_out_is_noticed() {
    expect(Fault::Disk(DiskFault::SkipSync), Invariant::SessionKept);
}

#[test]
fn a_snapshot_that_is_not_synced_is_noticed() {
    expect(Fault::Disk(DiskFault::SkipSnapshotSync), Invariant::SessionKept);
}

#[test]
fn a_directory_that_is_not_synced_is_noticed() {
    expect(Fault::Disk(DiskFault::SkipDirectorySync), Invariant::SessionKept);
}

#[test]
fn a_log_that_is_removed_too_early_is_noticed() {
    expect(Fault::Disk(DiskFault::DropLogEarly), Invariant::SessionKept);
}

#[test]
fn a_panic_is_noticed() {
    expect(Fault::Panic, Invariant::NoPanic);
}

#[test]
fn a_seed_tells_the_same_story_every_time() {
    for seed in 1..6 {
        assert_eq!(story(seed), story(seed), "seed {seed}");
    }
}
