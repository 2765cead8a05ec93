//! Power cuts: what had not reached the device is gone, and the rest is torn. With `sync = "always"` nothing acknowledged is lost.
//!
//! The broker writes through `disk_shim.c`, which ends it before an operation of the test's choice. What clients had been told
//! until then is what must be there; the disk that the next life starts on is one that the synced part allows.

use std::fs;
use std::time::{Duration, Instant};

use sundew::protocol::version::Version;

use crate::history::History;
use crate::program::Start;
use crate::random::Random;
use crate::replay::{Counts, Disk};
use crate::shim::{Cut, Kind, Shim, read_log};
use crate::talker::{Outcome, Talker};
use crate::{check, rounds, seed};

const STORAGE: &str = "segment_size = \"1MiB\"\nsnapshot_after = \"1MiB\"\nwill_grace = \"3s\"";

#[test]
fn nothing_acknowledged_is_lost_by_power_cuts_when_every_commit_is_synced() {
    let seed = seed(21);
    let history = History::begin(&format!("power cuts, sync = always, seed {seed}"), seed);
    let cuts = rounds("SUNDEW_POWER_CUTS", 3, 20);
    let (summary, faults, counts) = power_cuts(history, cuts, false, &mut Random::new(seed));
    assert!(
        counts.writes > 10 * cuts && counts.syncs > 10 * cuts && (counts.renames > 0 || cuts < 10),
        "{counts:?}"
    );
    check((format!("{summary}; {counts:?}"), faults));
}

/// The proof that the test above can fail: with syncs that do nothing, the same history is found to lose.
#[test]
fn a_broker_whose_syncs_do_nothing_is_found_out() {
    let history = History::begin("swallowed syncs", 22).patient(Duration::from_secs(4));
    let (summary, faults, counts) = power_cuts(history, 2, true, &mut Random::new(22));
    assert_eq!(counts.syncs, 0);
    assert!(
        faults.iter().any(|fault| fault.starts_with("lost: ")),
        "{summary}: {faults:?}"
    );
}

/// The proof that the shim sees everything: what its log says is, byte for byte, what is there.
#[test]
fn the_log_of_the_shim_tells_all_that_happened() {
    for sync in ["always", "interval", "os"] {
        let folder = tempfile::tempdir().unwrap();
        let (data, log) = (folder.path().join("data"), folder.path().join("log"));
        fs::create_dir(&data).unwrap();
        let start = Shim::default().before(&Start::on(&data, sync).with(STORAGE), &log);
        let history = History::begin(&format!("shim, sync = {sync}"), 23);
        let mut disk = Disk::of(&data);
        let program = start.start();
        history.serve(&program);
        std::thread::sleep(Duration::from_millis(1500));
        history.stop(program);
        disk.replay(&read_log(&log), &mut Random::new(0));
        let differences = disk.differences(&data);
        assert!(differences.is_empty(), "{differences:?}");
        let counts = disk.counts;
        assert!(
            counts.writes > 10 && counts.syncs > 3 && counts.renames > 0,
            "sync = {sync}: {counts:?}"
        );
    }
}

/// A clean stop has synced everything, in any mode: a power cut a moment later changes nothing.
#[test]
fn a_power_cut_after_a_clean_stop_loses_nothing() {
    for sync in ["interval", "os"] {
        let folder = tempfile::tempdir().unwrap();
        let (data, log) = (folder.path().join("data"), folder.path().join("log"));
        fs::create_dir(&data).unwrap();
        let plain = Start::on(&data, sync).with(STORAGE);
        let start = Shim::default().before(&plain, &log);
        let history = History::begin(&format!("clean stop, sync = {sync}"), 24);
        let disk = Disk::of(&data);
        let program = start.start();
        history.serve(&program);
        std::thread::sleep(Duration::from_millis(800));
        history.stop(program);
        let mut random = Random::new(24);
        let start = disk.after_cut(&log, &folder.path().join("after"), &plain, &mut random);
        let program = start.start();
        history.serve(&program);
        check(history.end(program, &start));
    }
}

/// With syncs each second, a power cut loses less than two seconds, and only from the end.
#[test]
fn a_power_cut_loses_the_last_second_at_most_when_syncs_come_each_second() {
    let mut random = Random::new(seed(25));
    for rest in [0, 2500] {
        let folder = tempfile::tempdir().unwrap();
        let (data, log) = (folder.path().join("data"), folder.path().join("log"));
        fs::create_dir(&data).unwrap();
        let plain = Start::on(&data, "interval").with(STORAGE);
        let disk = Disk::of(&data);
        let program = Shim::default().before(&plain, &log).start();
        let mut keeper = Talker::connect(program.address(), Version::V5, "keeper", true).unwrap();
        assert_eq!(keeper.subscribe("to/keeper", 1), Ok(1));
        keeper.leave();
        let mut publisher = Talker::connect(program.address(), Version::V311, "publisher", false).unwrap();
        let mut acknowledged = Vec::new();
        let until = Instant::now() + Duration::from_millis(2500);
        while Instant::now() < until {
            let payload = format!("{:06}", acknowledged.len()).into_bytes();
            assert_eq!(
                publisher.publish("to/keeper", &payload, 1, false),
                Outcome::Acknowledged
            );
            acknowledged.push(Instant::now());
        }
        std::thread::sleep(Duration::from_millis(rest));
        let cut = Instant::now();
        program.kill();
        let start = disk.after_cut(&log, &folder.path().join("after"), &plain, &mut random);
        let program = start.start();
        let mut keeper = Talker::connect(program.address(), Version::V5, "keeper", true).unwrap();
        assert!(keeper.session_present, "the session is two seconds old and lost");
        let came = keeper.messages(acknowledged.len()).unwrap();
        for (number, message) in came.iter().enumerate() {
            assert_eq!(message.text(), format!("{number:06}"), "lost from the middle");
        }
        let lost_since = acknowledged.get(came.len()).map_or(Duration::ZERO, |at| cut - *at);
        eprintln!(
            "{} of {} messages after {rest} ms of rest, lost {lost_since:?}",
            came.len(),
            acknowledged.len()
        );
        assert!(lost_since < Duration::from_secs(2), "{lost_since:?} are lost");
    }
}

/// So many power cuts, each on the disk that the one before left, and the account.
fn power_cuts(history: History, cuts: usize, is_lying: bool, random: &mut Random) -> (String, Vec<String>, Counts) {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let mut start = Start::on(&folder.path().join("data-0"), "always").with(STORAGE);
    fs::create_dir(start.directory.as_ref().unwrap()).unwrap();
    let mut counts = Counts::default();
    for cut in 1..=cuts {
        let data = start.directory.clone().unwrap();
        start.workers = random.between(1, 4);
        let shim = Shim {
            cut: Some(moment(random)),
            is_lying,
        };
        let mut disk = Disk::of(&data);
        let mut program = shim.before(&start, &log).spawn();
        if program.wait_until_ready().is_ok() {
            history.serve(&program);
            let give_up = Instant::now() + Duration::from_millis(2500);
            while !program.has_ended() && Instant::now() < give_up {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        program.kill();
        history.interrupt();
        disk.replay(&read_log(&log), random);
        counts.operations += disk.counts.operations;
        counts.writes += disk.counts.writes;
        counts.syncs += disk.counts.syncs;
        counts.renames += disk.counts.renames;
        let after = folder.path().join(format!("data-{cut}"));
        disk.cut(random, &after);
        start.directory = Some(after);
    }
    let program = start.start();
    history.serve(&program);
    let (summary, faults) = history.end(program, &start);
    (summary, faults, counts)
}

/// As often among the first ten operations as among hundreds; and around those rare ones that snapshots are made of.
fn moment(random: &mut Random) -> Cut {
    let kinds = [Kind::Create, Kind::SyncDirectory, Kind::Rename, Kind::Unlink];
    let number = |random: &mut Random, most| 1 + random.below(most) as u64;
    match random.below(7) {
        0 => Cut::Before(number(random, 10)),
        1 => Cut::Before(number(random, 100)),
        2 => Cut::Before(number(random, 1000)),
        _ => Cut::After(random.pick(&kinds), number(random, 4), random.below(8) as u64),
    }
}
