//! SIGKILL at random moments, under load: nothing that was acknowledged is lost, in any mode of `storage.sync`.

use std::time::Duration;

use crate::history::History;
use crate::program::Start;
use crate::random::Random;
use crate::{check, rounds};

#[test]
fn nothing_acknowledged_is_lost_by_kill_9_when_every_commit_is_synced() {
    let summary = kill_rounds("always", 11);
    check(summary);
}

#[test]
fn nothing_acknowledged_is_lost_by_kill_9_when_syncs_come_each_second() {
    let summary = kill_rounds("interval", 12);
    check(summary);
}

#[test]
fn nothing_acknowledged_is_lost_by_kill_9_when_the_system_decides() {
    let summary = kill_rounds("os", 13);
    check(summary);
}

/// The proof that the account is fair: with a broker that nobody kills there is nothing to find.
#[test]
fn a_broker_that_lives_loses_nothing() {
    let history = History::begin("nobody dies", 15);
    let program = Start::default().start();
    history.serve(&program);
    std::thread::sleep(Duration::from_secs(2));
    check(history.close());
}

/// The proof that the account can fail: a broker that keeps nothing on disk loses, and it is seen.
#[test]
fn a_broker_without_storage_is_found_out() {
    let history = History::begin("no storage", 14).patient(Duration::from_secs(2));
    let (summary, faults) = run(history, &Start::default(), 2, &mut Random::new(14));
    assert!(
        faults
            .iter()
            .any(|fault| fault.starts_with("lost: ") && fault.contains("stays")),
        "{summary}: {faults:?}"
    );
    assert!(
        faults.iter().any(|fault| fault.contains("the session of")),
        "{summary}: {faults:?}"
    );
    assert!(
        faults.iter().any(|fault| fault.contains("retains None")),
        "{summary}: {faults:?}"
    );
}

/// Small segments and snapshots, so that there is always one in the making.
const STORAGE: &str = "segment_size = \"1MiB\"\nsnapshot_after = \"1MiB\"\nwill_grace = \"3s\"";

fn kill_rounds(sync: &str, seed: u64) -> (String, Vec<String>) {
    let folder = tempfile::tempdir().unwrap();
    let start = Start::on(&folder.path().join("data"), sync).with(STORAGE);
    let seed = crate::seed(seed);
    let history = History::begin(&format!("kill -9, sync = {sync}, seed {seed}"), seed);
    run(
        history,
        &start,
        rounds("SUNDEW_KILL_ROUNDS", 5, 100),
        &mut Random::new(seed),
    )
}

/// So many lives that end with SIGKILL, and the account.
fn run(history: History, start: &Start, rounds: usize, random: &mut Random) -> (String, Vec<String>) {
    let mut start = start.clone();
    for _ in 0..rounds {
        start.workers = random.between(1, 4);
        if random.percent(15) {
            // Dies while it starts: in the middle of its recovery, if it gets so far.
            let program = start.spawn();
            std::thread::sleep(Duration::from_millis(random.below(60) as u64));
            program.kill();
        }
        let program = start.start();
        history.serve(&program);
        std::thread::sleep(Duration::from_millis(random.between(100, 1200) as u64));
        program.kill();
        history.interrupt();
    }
    let program = start.start();
    history.serve(&program);
    history.end(program, &start)
}
