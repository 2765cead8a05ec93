//! Stories about the engine and its files.

mod damage;
mod failing;
mod memory;
mod random;
mod threads;
mod world;
mod writer;

use super::engine::Input;
use super::options::{DiskOptions, FullPolicy, SyncMode};
use super::recover::{RecoverError, RecoverMode};
use crate::storage::Standing;
use memory::MemoryFiles;
use world::{World, mark, message, number, read};

fn always() -> DiskOptions {
    DiskOptions {
        sync: SyncMode::Always,
        ..DiskOptions::default()
    }
}

#[test]
fn what_was_told_as_stored_is_there_again_in_order() {
    let mut world = World::new(always());
    world.write_marks(1..=20);
    assert_eq!(world.told.stored.lock().unwrap().last(), Some(&(0, 20)));
    let mut world = World::on(world.files.copy(), always());
    world.write_marks(21..=30);
    let (seen, recovered) = read(&world.files, RecoverMode::ReadOnly).unwrap();
    assert_eq!(seen.marks, (1..=30).collect::<Vec<_>>());
    assert!(recovered.report.torn.is_none() && recovered.report.damaged.is_empty());
}

#[test]
fn a_group_is_one_write_and_one_sync() {
    let mut world = World::new(always());
    let (writes, syncs) = (world.files.writes(), world.files.syncs());
    for value in 1..=100 {
        world.submit((value % 2) as u16, mark(value), None);
    }
    world.step();
    assert_eq!((world.files.writes() - writes, world.files.syncs() - syncs), (1, 1));
    assert_eq!(*world.told.stored.lock().unwrap(), [(0, 50), (1, 50)]);
    world.wait(5000);
    assert_eq!(
        (world.files.writes() - writes, world.files.syncs() - syncs),
        (1, 1),
        "idle: nothing is written"
    );
}

#[test]
fn a_log_cut_at_any_byte_is_read_up_to_there() {
    let mut world = World::new(always());
    world.write_marks(1..=6);
    let name = world.files.names()[0].clone();
    let whole = world.files.bytes(&name);
    for length in 0..whole.len() {
        let files = MemoryFiles::default();
        files.set_bytes(&name, whole[..length].to_vec());
        let (seen, recovered) = read(&files, RecoverMode::RefuseDamage).unwrap();
        assert!(
            seen.marks.iter().copied().eq(1..=seen.marks.len() as u64),
            "{length}: {seen:?}"
        );
        assert_eq!(
            seen.marks.len(),
            length.saturating_sub(128) / ((whole.len() - 128) / 6),
            "{length}"
        );
        // It goes on from there, as often as it is started.
        let mut world = World::on(files, always());
        world.write_marks(100..=101);
        let (again, _) = read(&world.files, RecoverMode::RefuseDamage).unwrap();
        assert_eq!(
            again.marks,
            [&seen.marks[..], &[100, 101]].concat(),
            "{length}: {recovered:?}"
        );
    }
}

#[test]
fn a_log_with_any_byte_damaged_is_read_but_for_that_block() {
    let mut world = World::new(always());
    world.write_marks(1..=6);
    let name = world.files.names()[0].clone();
    let whole = world.files.bytes(&name);
    let block = (whole.len() - 128) / 6;
    for at in 0..whole.len() {
        for flip in [1, 0xFF] {
            let files = MemoryFiles::default();
            let mut bytes = whole.clone();
            bytes[at] ^= flip;
            files.set_bytes(&name, bytes);
            let refused = read(&files.copy(), RecoverMode::RefuseDamage);
            let (seen, recovered) = read(&files, RecoverMode::Repair).unwrap();
            let Some(damaged) = at.checked_sub(128).map(|at| (at / block) as u64 + 1) else {
                assert_eq!(seen.marks, [1, 2, 3, 4, 5, 6], "the header is there twice");
                continue;
            };
            let left: Vec<u64> = (1..=6).filter(|value| *value != damaged).collect();
            assert_eq!(seen.marks, left, "byte {at}");
            if damaged == 6 {
                assert!(
                    recovered.report.torn.is_some() && seen.gaps.is_empty(),
                    "nobody says that it was there"
                );
            } else {
                assert_eq!(seen.gaps.len(), 1, "byte {at}: {recovered:?}");
                assert_eq!((seen.gaps[0].file.as_str(), seen.gaps[0].blocks), (name.as_str(), 1));
                let Err(RecoverError::Damaged(gap)) = refused else {
                    panic!("byte {at}: {refused:?}");
                };
                assert_eq!(gap, seen.gaps[0]);
                assert_eq!(gap.offset, 128 + (damaged - 1) * block as u64);
            }
        }
    }
}

#[test]
fn a_snapshot_takes_the_place_of_the_log_before_it() {
    let mut world = World::new(DiskOptions { workers: 2, ..always() });
    world.write_marks(1..=5);
    *world.told.retained.lock().unwrap() = vec![8, 7];
    world.input(Input::Compact);
    world.settle();
    let begun = world.told.snapshots.lock().unwrap().clone();
    assert_eq!(begun.iter().map(|told| told.0).collect::<Vec<_>>(), [0, 1]);
    let id = begun[0].1;
    world.part(0, id, mark(50), &[], false);
    world.write_marks(6..=6);
    world.settle();
    assert_eq!(*world.told.more.lock().unwrap(), [(0, id)]);
    world.part(0, id, mark(51), &[], true);
    world.settle();
    // Killed here, the old log counts, and what was to become a snapshot does not.
    let (seen, _) = read(&world.files.copy(), RecoverMode::Repair).unwrap();
    assert_eq!(seen.marks, [1, 2, 3, 4, 5, 6]);
    world.part(1, id, mark(60), &[], true);
    world.settle();
    world.write_marks(7..=7);
    let (seen, recovered) = read(&world.files, RecoverMode::RefuseDamage).unwrap();
    let mut of_snapshot = seen.marks[..5].to_vec();
    of_snapshot.sort_unstable();
    assert_eq!((of_snapshot, &seen.marks[5..]), (vec![7, 8, 50, 51, 60], &[6, 7][..]));
    assert_eq!(recovered.report.snapshot, Some(id));
    assert_eq!(world.files.names().len(), 2, "{:?}", world.files.names());
}

#[test]
fn a_snapshot_that_nobody_can_complete_does_not_take_the_place_of_the_log() {
    let mut world = World::new(always());
    world.write_marks(1..=5);
    world.told.is_gone.store(true, std::sync::atomic::Ordering::Relaxed);
    world.input(Input::Compact);
    world.settle();
    let (worker, id) = world.told.snapshots.lock().unwrap()[0];
    // The workers had told everything before the broker went; of what is retained there is more that nobody tells now.
    world.part(worker, id, mark(50), &[], true);
    world.settle();
    world.wait(2000);
    let (seen, recovered) = read(&world.files, RecoverMode::RefuseDamage).unwrap();
    assert_eq!((seen.marks, recovered.report.snapshot), (vec![1, 2, 3, 4, 5], None));
    world.input(Input::Close { with_snapshot: false });
    world.settle();
    let (seen, _) = read(&world.files, RecoverMode::RefuseDamage).unwrap();
    assert_eq!(seen.marks, [1, 2, 3, 4, 5]);
    assert!(
        world.files.names().iter().all(|name| name.starts_with("segment")),
        "{:?}",
        world.files.names()
    );
}

#[test]
fn a_log_that_fills_at_once_is_replaced_each_second_or_when_it_is_far_too_large() {
    let mut world = World::new(DiskOptions {
        sync: SyncMode::Os,
        snapshot_after: 10_000,
        ..DiskOptions::default()
    });
    let begun = |world: &World| world.told.snapshots.lock().unwrap().len();
    // Fills the log by so many bytes, and ends a snapshot that was begun.
    let fill = |world: &mut World, bytes: u64| {
        for value in 0..bytes / 1000 {
            world.submit(0, message(1000 + value, &[0; 1000]), None);
            world.settle();
        }
        let last = world.told.snapshots.lock().unwrap().last().copied();
        if let Some((worker, id)) = last {
            world.part(worker, id, mark(1), &[], true);
            world.settle();
        }
    };
    world.wait(5000);
    fill(&mut world, 9000);
    assert_eq!(begun(&world), 0, "it has not grown so much");
    fill(&mut world, 4000);
    assert_eq!(begun(&world), 1);
    fill(&mut world, 20_000);
    assert_eq!(begun(&world), 1, "the last one was a moment ago");
    world.wait(1000);
    assert_eq!(begun(&world), 2, "a second ago");
    fill(&mut world, 0);
    fill(&mut world, 35_000);
    assert_eq!(begun(&world), 2);
    fill(&mut world, 8000);
    assert_eq!(begun(&world), 3, "it is four times as large as it should be");
}

#[test]
fn a_message_is_found_again_in_the_log_and_behind_a_snapshot() {
    let mut world = World::new(DiskOptions {
        sync: SyncMode::Os,
        ..DiskOptions::default()
    });
    for value in 1..=500 {
        world.submit(0, message(value, &value.to_le_bytes()), Some((value, value)));
        if value % 7 == 0 {
            world.step();
        }
    }
    let load = |world: &mut World, numbers: &[u64]| {
        let session = crate::protocol::ids::SlotKey { slot: 1, generation: 1 };
        world.input(Input::Load(
            crate::protocol::ids::WorkerId(0),
            session,
            numbers.iter().copied().map(number).collect(),
        ));
        world.settle();
        let loaded = std::mem::take(&mut *world.told.loaded.lock().unwrap());
        loaded
            .into_iter()
            .map(|(number, message)| (number.0.get(), message.map(|message| message.payload().to_vec())))
            .collect::<Vec<_>>()
    };
    let there = |value: u64| (value, Some(value.to_le_bytes().to_vec()));
    assert_eq!(
        load(&mut world, &[500, 3, 501, 77]),
        [there(500), there(3), (501, None), there(77)]
    );
    world.snapshot(mark(1), &[400, 3, 77]);
    assert_eq!(
        load(&mut world, &[400, 3, 77, 78]),
        [there(400), there(3), there(77), (78, None)]
    );
    let mut world = World::on(world.files.copy(), DiskOptions::default());
    assert_eq!(load(&mut world, &[77, 3]), [there(77), there(3)]);
    let (seen, _) = read(&world.files, RecoverMode::ReadOnly).unwrap();
    assert_eq!((seen.messages, seen.marks), (vec![3, 77, 400], vec![1]));
}

#[test]
fn nothing_is_told_as_stored_after_a_failure_until_it_has_healed() {
    for what in ["write", "sync"] {
        let mut world = World::new(always());
        world.write_marks(1..=3);
        match what {
            "write" => world.files.break_writes(true),
            _ => world.files.break_syncs(true),
        }
        world.files.break_creates(true);
        world.write_marks(4..=5);
        assert_eq!(world.told.stored.lock().unwrap().last(), Some(&(0, 3)));
        assert_eq!(*world.told.failed.lock().unwrap(), [(0, 4), (0, 5)]);
        assert_eq!(world.status.standing(), Standing::Refusing);
        // Somebody stops it here: what was acknowledged is there.
        let (seen, _) = read(&world.files.copy(), RecoverMode::RefuseDamage).unwrap();
        assert!(seen.marks.starts_with(&[1, 2, 3]));
        for _ in 0..20 {
            world.wait(1000);
        }
        world.files.break_writes(false);
        world.files.break_syncs(false);
        world.files.break_creates(false);
        for _ in 0..11 {
            world.wait(1000);
        }
        let begun = world.told.snapshots.lock().unwrap().clone();
        let id = begun.last().unwrap().1;
        world.write_marks(6..=6);
        assert_eq!(world.told.stored.lock().unwrap().last(), Some(&(0, 3)), "not yet");
        // What was written while it heals is behind something that is missing.
        let (seen, _) = read(&world.files.copy(), RecoverMode::RefuseDamage).unwrap();
        assert!(!seen.marks.contains(&6) || seen.marks.contains(&5), "{seen:?}");
        world.part(0, id, [mark(1), mark(2), mark(3), mark(5)].concat(), &[], true);
        world.settle();
        assert_eq!(world.told.stored.lock().unwrap().last(), Some(&(0, 6)), "{what}");
        assert_eq!(world.status.standing(), Standing::Sound);
        world.write_marks(7..=7);
        let (seen, _) = read(&world.files, RecoverMode::RefuseDamage).unwrap();
        assert_eq!(seen.marks, [1, 2, 3, 5, 6, 7]);
    }
}

#[test]
fn a_device_that_is_nearly_full_refuses_and_goes_on_when_there_is_room() {
    let mut world = World::new(always());
    world.write_marks(1..=1);
    world.files.fill(memory::DEVICE_BYTES - 1024 * 1024);
    world.wait(1000);
    world.write_marks(2..=2);
    assert_eq!(world.status.standing(), Standing::Refusing);
    world.wait(10_000);
    assert!(
        world.told.snapshots.lock().unwrap().is_empty(),
        "there is no room to try"
    );
    world.files.fill(0);
    world.wait(10_000);
    let id = world.told.snapshots.lock().unwrap()[0].1;
    world.part(0, id, mark(9), &[], true);
    world.settle();
    assert_eq!(world.status.standing(), Standing::Sound);
    assert_eq!(world.told.stored.lock().unwrap().last(), Some(&(0, 2)));
}

#[test]
fn who_wants_it_goes_on_in_memory() {
    let mut world = World::new(DiskOptions {
        on_full: FullPolicy::Forget,
        ..always()
    });
    world.files.break_writes(true);
    world.write_marks(1..=2);
    assert_eq!(world.told.stored.lock().unwrap().last(), Some(&(0, 2)));
    assert!(world.told.failed.lock().unwrap().is_empty());
    assert_eq!(world.status.standing(), Standing::Forgetting);
}

#[test]
fn an_interval_syncs_beside_and_a_sync_that_fails_is_a_failure() {
    let mut world = World::new(DiskOptions::default());
    let syncs = world.files.syncs();
    world.write_marks(1..=10);
    assert_eq!(world.told.stored.lock().unwrap().last(), Some(&(0, 10)));
    assert_eq!(world.files.syncs(), syncs, "told before it is on the device");
    world.wait(1000);
    assert_eq!(world.files.syncs(), syncs + 1);
    world.wait(60_000);
    assert_eq!(world.files.syncs(), syncs + 1, "idle");
    world.files.break_syncs(true);
    world.write_marks(11..=11);
    world.wait(1000);
    assert_eq!(world.status.standing(), Standing::Refusing);
}

#[test]
fn after_a_close_there_is_nothing_to_replay() {
    let mut world = World::new(DiskOptions::default());
    world.write_marks(1..=5);
    world.input(Input::Close { with_snapshot: true });
    world.settle();
    let (worker, id) = world.told.snapshots.lock().unwrap()[0];
    world.part(worker, id, mark(5), &[], true);
    world.settle();
    assert!(world.engine.is_closed());
    let (seen, recovered) = read(&world.files, RecoverMode::RefuseDamage).unwrap();
    assert_eq!(seen.marks, [5]);
    assert!(recovered.report.is_clean && recovered.report.replayed == 0);
    // Started and closed again without anything to do, it writes nothing.
    let names = world.files.names();
    let mut world = World::on(world.files.copy(), DiskOptions::default());
    world.input(Input::Close { with_snapshot: true });
    world.settle();
    assert!(world.engine.is_closed() && world.told.snapshots.lock().unwrap().is_empty());
    read(&world.files, RecoverMode::Repair).unwrap();
    assert_eq!(world.files.names(), names);
}

#[test]
fn time_goes_on_over_restarts_and_jumps_of_the_wall_clock() {
    let mut world = World::new(DiskOptions::default());
    world.write_marks(1..=1);
    let (begin, wall) = (world.now.time, world.now.wall);
    world.wait(5000);
    world.write_marks(2..=2);
    // A minute off: that is known from the wall clock.
    let (_, recovered) = read(&world.files.copy(), RecoverMode::Repair).unwrap();
    assert_eq!(recovered.time_at(wall + 65_000).millis_since(begin), 65_000);
    assert_eq!(
        recovered.time_at(0).millis_since(begin),
        5000,
        "a clock that was reset: time does not go back"
    );
    // The wall clock is set right, by ten years: written down though nothing else is, once.
    let groups = world.files.writes();
    world.now.wall += 315_360_000_000;
    world.wait(10_000);
    world.wait(60_000);
    assert_eq!(world.files.writes(), groups + 1);
    let (_, recovered) = read(&world.files, RecoverMode::Repair).unwrap();
    let off = recovered.time_at(world.now.wall + 1000).millis_since(begin);
    assert_eq!(off, 76_000, "nothing expires for that");
}

#[test]
fn a_message_for_two_sessions_is_in_a_snapshot_once() {
    let mut world = World::new(DiskOptions {
        workers: 2,
        ..DiskOptions::default()
    });
    for value in 1..=3 {
        world.submit(0, message(value, &[0; 200_000]), Some((value, value)));
    }
    world.step();
    world.input(Input::Compact);
    world.settle();
    let id = world.told.snapshots.lock().unwrap()[0].1;
    world.part(0, id, mark(1), &[3, 1, 2], true);
    world.part(1, id, mark(2), &[2, 3], true);
    world.settle();
    let (seen, recovered) = read(&world.files, RecoverMode::RefuseDamage).unwrap();
    assert_eq!((seen.messages, seen.marks), (vec![1, 2, 3], vec![1, 2]));
    assert_eq!(recovered.report.snapshot, Some(id));
}
