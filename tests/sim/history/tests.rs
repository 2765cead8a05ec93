//! Every place where the power can go in short histories, and many in long ones.

use sundew::storage::disk::SyncMode;

use super::{Bench, Found, Model, Op, Values, check, options, read, survivals};
use crate::disk::{DiskFault, SimDisk, Survival, Troubles};
use crate::random::Random;

const MODES: [SyncMode; 3] = [SyncMode::Always, SyncMode::Interval, SyncMode::Os];

/// Short histories, each with the size of a segment.
fn scripts() -> Vec<(u64, Vec<Op>)> {
    use Op::{Close, Compact, Part, Step, Submit, Wait, Work};
    let snapshot = |between: &[Op]| {
        let mut ops = vec![Submit(0, 200), Submit(1, 900), Step, Compact, Step, Work, Step];
        for _ in 0..4 {
            ops.extend([Part(0), Step]);
            ops.extend(between);
            ops.extend([Part(1), Step, Work, Step]);
        }
        ops.extend([Work, Step, Submit(1, 100), Step, Work, Step]);
        ops
    };
    let two = [snapshot(&[Submit(0, 30)]), snapshot(&[Submit(1, 30), Step])].concat();
    vec![
        (
            1 << 20,
            vec![
                Submit(0, 30),
                Step,
                Submit(1, 700),
                Submit(0, 30),
                Step,
                Wait(200),
                Step,
                Work,
                Step,
            ],
        ),
        (
            600,
            vec![
                Submit(0, 500),
                Step,
                Work,
                Step,
                Submit(1, 500),
                Step,
                Submit(0, 900),
                Step,
                Work,
                Step,
                Submit(1, 9),
                Step,
            ],
        ),
        (1 << 20, snapshot(&[])),
        (1 << 20, snapshot(&[Submit(0, 30), Step])),
        (500, snapshot(&[Submit(0, 600), Submit(1, 30), Step])),
        (1 << 20, two),
        (
            1 << 20,
            vec![Submit(0, 30), Submit(1, 1200), Step, Close, Step, Work, Step],
        ),
    ]
}

/// Runs a history until the power goes with an operation of the disk.
fn run(script: &[Op], sync: SyncMode, segment: u64, fault: Option<DiskFault>, cut_at: Option<u64>) -> Bench {
    let disk = SimDisk::new(1, fault);
    disk.cut_power_at(cut_at);
    let mut bench = Bench::fresh(disk, options(sync, segment));
    script.iter().for_each(|op| bench.run(*op));
    bench
}

/// What a start finds, also when the power goes again in the middle of it, at each place: `synced` is what must be there then.
fn check_start(disk: &SimDisk, model: &Model, told: usize, synced: usize, seed: u64) -> Result<(), String> {
    let whole = disk.twin(seed);
    let before = whole.operations();
    let (found, _) = read(&whole).map_err(|error| error.to_string())?;
    let at = check(&found, model, told)?;
    for operation in before + 1..=whole.operations() {
        let twin = disk.twin(seed);
        twin.cut_power_at(Some(operation));
        // What cannot be repaired is no error to who reads, so the disk is asked whether the power went.
        drop(read(&twin));
        if !twin.is_dead() {
            return Err(format!("operation {operation} does not come again"));
        }
        let again = twin.restart(Survival::Chance(Random::new(seed + operation)));
        let (found, _) = read(&again).map_err(|error| format!("cut again at {operation}: {error}"))?;
        check(&found, model, synced).map_err(|what| format!("cut again at {operation}: {what}"))?;
    }
    // And what was found is there for good.
    let dark = whole.restart(Survival::Nothing);
    let (found, _) = read(&dark).map_err(|error| error.to_string())?;
    check(&found, model, at)
        .map(drop)
        .map_err(|what| format!("after the repair: {what}"))
}

/// The first thing that is wrong with a history, if anything is.
fn try_all(script: &[Op], sync: SyncMode, segment: u64, fault: Option<DiskFault>) -> Result<usize, String> {
    let operations = run(script, sync, segment, fault, None).disk.operations();
    let mut crashes = 0;
    for cut_at in 1..=operations {
        let bench = run(script, sync, segment, fault, Some(cut_at));
        let told = if sync == SyncMode::Always { bench.told() } else { 0 };
        for survival in survivals(&bench.disk, cut_at) {
            let disk = bench.disk.twin(cut_at).restart(survival.clone());
            check_start(&disk, &bench.model, told, told, cut_at).map_err(|what| {
                format!(
                    "{sync:?}, cut at {cut_at} of {operations}, {survival:?}: {what}\n{}",
                    disk.describe()
                )
            })?;
            crashes += 1;
        }
        // The process is killed instead: what was told in any mode is there.
        let killed = bench.disk.twin(cut_at).restart(Survival::All);
        check_start(&killed, &bench.model, bench.told(), told, cut_at)
            .map_err(|what| format!("{sync:?}, killed at {cut_at}: {what}"))?;
    }
    Ok(crashes)
}

#[test]
fn at_every_place_of_short_histories_the_power_may_go() {
    let mut crashes = 0;
    for (number, (segment, script)) in scripts().iter().enumerate() {
        for sync in MODES {
            crashes += try_all(script, sync, *segment, None).unwrap_or_else(|what| panic!("history {number}: {what}"));
        }
    }
    assert!(crashes > 4_500, "{crashes} are few");
}

#[test]
fn what_a_store_must_not_leave_out_is_noticed_in_short_histories() {
    for fault in [
        DiskFault::SkipSync,
        DiskFault::SkipSnapshotSync,
        DiskFault::SkipDirectorySync,
        DiskFault::DropLogEarly,
    ] {
        let mut tries = scripts()
            .into_iter()
            .map(|(segment, script)| try_all(&script, SyncMode::Always, segment, Some(fault)));
        assert!(tries.any(|tried| tried.is_err()), "{fault:?} went unnoticed");
    }
}

fn op(random: &mut Random) -> Op {
    match random.below(20) {
        0..8 => Op::Submit(random.below(2) as u16, random.pick(&[0, 30, 300, 2000])),
        8..13 => Op::Step,
        13..15 => Op::Work,
        15..18 => Op::Part(random.below(2) as u16),
        18 => Op::Wait(random.pick(&[1, 150, 20_000])),
        _ => Op::Compact,
    }
}

/// A long history with several lives; the last batch that each begins with is what the one before left.
fn long(seed: u64) -> Result<(), String> {
    let mut random = Random::new(seed);
    let sync = random.pick(&MODES);
    let options = options(sync, random.pick(&[400, 3_000, 1 << 20]));
    let mut bench = Bench::fresh(SimDisk::new(random.next(), None), options.clone());
    for _ in 0..random.between(1, 4) {
        for _ in 0..random.between(1, 120) {
            bench.run(op(&mut random));
        }
        let is_kill = random.percent(30);
        if !is_kill && random.percent(70) {
            bench
                .disk
                .cut_power_at(Some(bench.disk.operations() + random.between(1, 8) as u64));
            for _ in 0..40 {
                bench.run(op(&mut random));
            }
        }
        let told = if is_kill || sync == SyncMode::Always {
            bench.told()
        } else {
            0
        };
        let survival = if is_kill {
            Survival::All
        } else {
            Survival::Chance(random.clone())
        };
        let disk = bench.disk.restart(survival);
        check_start(
            &disk,
            &bench.model,
            told,
            if sync == SyncMode::Always { told } else { 0 },
            random.next() >> 8,
        )?;
        let (found, recovered) = read(&disk).map_err(|error| error.to_string())?;
        let at = check(&found, &bench.model, told)?;
        let model = bench.model.goes_on_from(at);
        bench = Bench::new(disk, options.clone(), recovered, model);
    }
    Ok(())
}

/// With a device that fails now and then: what was told is not older, and what was never written is not there.
fn failing(seed: u64) -> Result<(), String> {
    let mut random = Random::new(seed);
    let mut options = options(SyncMode::Always, random.pick(&[400, 3_000, 1 << 20]));
    options.reserve = random.pick(&[0, 2_000]);
    let mut bench = Bench::fresh(SimDisk::new(random.next(), None), options);
    for round in 0..6 {
        let chance = |random: &mut Random| if round % 2 == 0 { 0 } else { random.pick(&[0, 20, 100]) };
        bench.disk.set_troubles(Troubles {
            write: chance(&mut random),
            sync: chance(&mut random),
            create: chance(&mut random),
        });
        let room = (round % 2 == 1 && random.percent(50)).then(|| bench.disk.used() + random.below(4_000) as u64);
        bench.disk.set_limit(room);
        for _ in 0..random.between(1, 80) {
            let op = if random.percent(10) {
                Op::Wait(2_000)
            } else {
                op(&mut random)
            };
            bench.run(op);
        }
    }
    let told = bench.told_values();
    let disk = bench.disk.restart(Survival::Chance(random.clone()));
    disk.set_troubles(Troubles::default());
    let (Found { values, gaps }, _) = read(&disk).map_err(|error| error.to_string())?;
    if !gaps.is_empty() {
        return Err(format!("{gaps:?}"));
    }
    is_as_new(&values, &told, &bench.model)
}

fn is_as_new(found: &Values, told: &Values, model: &Model) -> Result<(), String> {
    for (key, value) in told {
        if found.get(key).is_none_or(|found| found < value) {
            return Err(format!("{key} is {:?}, and {value} was told as stored", found.get(key)));
        }
    }
    let was_written = |key: &u64, value: &u32| model.after.iter().any(|values| values.get(key) == Some(value));
    match found.iter().find(|(key, value)| !was_written(key, value)) {
        Some(invented) => Err(format!("nobody wrote {invented:?}")),
        None => Ok(()),
    }
}

fn seeds() -> std::ops::RangeInclusive<u64> {
    let first = crate::number("SUNDEW_SIM_FIRST").unwrap_or(1);
    first..=first + crate::number("SUNDEW_SIM_SEEDS").unwrap_or(150)
}

#[test]
fn long_histories_are_as_they_were_after_some_batch() {
    for seed in seeds() {
        long(seed).unwrap_or_else(|what| panic!("seed {seed}: {what}"));
    }
}

#[test]
fn a_device_that_fails_costs_nothing_that_was_told_as_stored() {
    for seed in seeds() {
        failing(seed).unwrap_or_else(|what| panic!("seed {seed}: {what}"));
    }
}
