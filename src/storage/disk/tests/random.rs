//! Directories that anything has happened to: they are opened, nothing is invented, and what was repaired stays so. And histories in which the
//! power goes: what was promised is there, and what is there is a part of the history from its begin.
//!
//! `SUNDEW_FUZZ_INPUTS` is how many (500 by default), `SUNDEW_FUZZ_SEED` where they start from.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::super::engine::Input;
use super::super::files::Files;
use super::super::options::{DiskOptions, SyncMode};
use super::super::recover::RecoverMode;
use super::memory::MemoryFiles;
use super::world::{World, mark, read};

/// Numbers that look random (SplitMix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

/// Marks 1 to 40, some of them in a snapshot.
fn directory(random: &mut Random) -> MemoryFiles {
    let modes = [SyncMode::Always, SyncMode::Interval, SyncMode::Os];
    let mut world = World::new(DiskOptions {
        sync: modes[random.below(3)],
        segment_size: 200 + random.below(2000) as u64,
        ..DiskOptions::default()
    });
    let snapshot_at = random.below(60) as u64;
    for value in 1..=40 {
        world.write_marks(value..=value);
        if random.below(3) == 0 {
            world.wait(random.below(2000) as u64);
        }
        if value == snapshot_at {
            let before = world.files.copy();
            world.snapshot((1..=value).flat_map(mark).collect(), &[]);
            if random.below(3) == 0 {
                // Killed before what it replaces was removed.
                let there = world.files.names();
                for name in before.names().into_iter().filter(|name| !there.contains(name)) {
                    world.files.set_bytes(&name, before.bytes(&name));
                }
            }
        }
    }
    world.files.copy()
}

fn harm(random: &mut Random, files: &MemoryFiles) {
    for _ in 0..=random.below(4) {
        let names = files.names();
        if names.is_empty() {
            return;
        }
        let name = &names[random.below(names.len())];
        let mut bytes = files.bytes(name);
        let (at, length) = (random.below(bytes.len()), random.below(200));
        let end = (at + length).min(bytes.len());
        match random.below(8) {
            0 if !bytes.is_empty() => bytes[at] ^= 1 << random.below(8),
            1 => bytes.truncate(at),
            2 => bytes[at..end].fill(0),
            3 => drop(bytes.drain(at..end)),
            4 => {
                let other = files.bytes(&names[random.below(names.len())]);
                let from = random.below(other.len());
                bytes.splice(at..end, other[from..(from + length).min(other.len())].iter().copied());
            }
            5 => bytes.extend((0..length).map(|_| random.next() as u8)),
            6 => {
                files.remove(name).unwrap();
                continue;
            }
            _ => bytes.fill(0),
        }
        files.set_bytes(name, bytes);
    }
}

fn one(seed: u64) {
    let mut random = Random(seed);
    let files = directory(&mut random);
    let whole = read(&files.copy(), RecoverMode::RefuseDamage).unwrap().0;
    assert!(whole.marks.iter().copied().eq(1..=40), "{whole:?}");
    harm(&mut random, &files);
    let (live, _) = read(&files, RecoverMode::ReadOnly).unwrap();
    let (seen, recovered) = read(&files, RecoverMode::Repair).unwrap();
    assert_eq!(live.marks, seen.marks, "to look at it tells what is there");
    assert!(
        seen.marks.iter().all(|mark| (1..=40).contains(mark)),
        "nothing is invented: {seen:?}"
    );
    let is_damaged = !recovered.report.damaged.is_empty();
    assert!(seen.gaps.is_empty() || is_damaged);
    if !is_damaged {
        let (again, _) = read(&files.copy(), RecoverMode::RefuseDamage).unwrap();
        assert_eq!(again.marks, seen.marks, "what was repaired stays so");
    }
    let mut world = World::go_on(files, recovered, DiskOptions::default());
    world.settle();
    let begun = std::mem::take(&mut *world.told.snapshots.lock().unwrap());
    assert_eq!(
        !begun.is_empty(),
        is_damaged,
        "something is to stand in the place of what is damaged"
    );
    world.write_marks(100..=102);
    let (again, _) = read(&world.files.copy(), RecoverMode::Repair).unwrap();
    assert_eq!(again.marks, [&seen.marks[..], &[100, 101, 102]].concat());
    for (worker, id) in begun {
        world.part(worker, id, mark(99), &[], true);
        world.settle();
        let (again, recovered) = read(&world.files, RecoverMode::RefuseDamage).unwrap();
        assert_eq!(again.marks, [99, 100, 101, 102]);
        assert!(recovered.report.damaged.is_empty(), "{recovered:?}");
    }
}

#[test]
fn whatever_happens_to_a_directory_it_is_opened_and_nothing_is_invented() {
    for_every_seed(one);
}

fn for_every_seed(one: fn(u64)) {
    let first = setting("SUNDEW_FUZZ_SEED", 1);
    for seed in first..first + setting("SUNDEW_FUZZ_INPUTS", 500) {
        if catch_unwind(AssertUnwindSafe(|| one(seed))).is_err() {
            panic!("seed {seed}: run again with SUNDEW_FUZZ_SEED={seed} SUNDEW_FUZZ_INPUTS=1");
        }
    }
}

/// What the broker did since it was started. It records marks 1, 2, 3 … and each snapshot has all that were recorded so far.
struct Life {
    world: World,
    /// The last mark before this life.
    before: u64,
    recorded: u64,
    /// The last mark that was told as stored.
    stored: u64,
    snapshots: usize,
}

impl Life {
    fn step(&mut self, random: &mut Random) {
        match random.below(12) {
            0..4 => {
                for _ in 0..=random.below(3) {
                    self.recorded += 1;
                    self.world.submit(0, mark(self.recorded), None);
                }
            }
            4..8 => self.world.do_job(&mut |bound| random.below(bound)),
            8 if random.below(4) == 0 => self.world.input(Input::Compact),
            9 if random.below(8) == 0 => {
                let files = &self.world.files;
                let (writes, syncs, creates) = (random.below(2), random.below(2), random.below(2));
                files.break_writes(writes == 0 && random.below(2) == 0);
                files.break_syncs(syncs == 0 && random.below(2) == 0);
                files.break_creates(creates == 0 && random.below(2) == 0);
            }
            10 => {
                self.world.now.time = self.world.now.time.plus_millis(random.below(3000) as u64);
            }
            _ => {}
        }
        self.world.step();
        let begun = self.world.told.snapshots.lock().unwrap().clone();
        if begun.len() > self.snapshots && random.below(3) == 0 {
            self.snapshots = begun.len();
            let (worker, id) = begun[begun.len() - 1];
            self.world
                .part(worker, id, (1..=self.recorded).flat_map(mark).collect(), &[], true);
        }
        let stored = self.world.told.stored.lock().unwrap().last().map_or(0, |told| told.1);
        self.stored = self.before + stored;
    }
}

/// Marks 1 to n, in any order and any number of times: n.
fn prefix(marks: &[u64]) -> u64 {
    let marks: std::collections::BTreeSet<_> = marks.iter().copied().collect();
    assert!(
        marks.iter().copied().eq(1..=marks.len() as u64),
        "something is missing in {marks:?}"
    );
    marks.len() as u64
}

fn history(seed: u64) {
    let mut random = Random(seed);
    let mode = [SyncMode::Always, SyncMode::Interval, SyncMode::Os][random.below(3)];
    let mut files = MemoryFiles::default();
    let mut recorded = 0;
    for _ in 0..=random.below(4) {
        let (seen, recovered) = read(&files, RecoverMode::RefuseDamage).unwrap();
        assert_eq!(prefix(&seen.marks), recorded);
        let options = DiskOptions {
            sync: mode,
            segment_size: 200 + random.below(1000) as u64,
            snapshot_after: 200 + random.below(4000) as u64,
            ..DiskOptions::default()
        };
        let mut life = Life {
            world: World::go_on(files, recovered, options),
            before: recorded,
            recorded,
            stored: recorded,
            snapshots: 0,
        };
        for _ in 0..random.below(120) {
            life.step(&mut random);
        }
        let is_power_lost = random.below(4) > 0;
        files = match is_power_lost {
            true => life.world.files.lose_power(&mut |bound| random.below(bound)),
            false => life.world.files.copy(),
        };
        // To open it may be cut short, too.
        for _ in 0..random.below(3) {
            let (again, _) = read(&files.copy(), RecoverMode::RefuseDamage).unwrap();
            read(&files, RecoverMode::RefuseDamage).unwrap();
            files = files.lose_power(&mut |bound| random.below(bound));
            let (seen, _) = read(&files.copy(), RecoverMode::RefuseDamage).unwrap();
            assert_eq!(prefix(&seen.marks), prefix(&again.marks));
        }
        let (seen, recovered) = read(&files.copy(), RecoverMode::RefuseDamage).unwrap();
        let there = prefix(&seen.marks);
        assert!(there <= life.recorded && recovered.report.gaps.is_empty());
        if mode == SyncMode::Always || !is_power_lost {
            assert!(
                there >= life.stored,
                "{there} are there, and {} were told as stored",
                life.stored
            );
        }
        recorded = there;
    }
}

#[test]
fn what_was_promised_is_there_whenever_the_power_goes() {
    for_every_seed(history);
}
