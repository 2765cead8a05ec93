//! Stories about devices that cannot be written, or not fast enough.

use super::super::block::FileName;
use super::super::engine::Input;
use super::super::recover::RecoverMode;
use super::memory::MemoryFiles;
use super::world::{World, mark, read};
use super::{Standing, always};

/// Six marks, the last of them torn, and a snapshot that was being made.
fn torn() -> MemoryFiles {
    let mut world = World::new(always());
    world.write_marks(1..=6);
    let files = world.files.copy();
    let name = files.names()[0].clone();
    let mut bytes = files.bytes(&name);
    bytes.pop();
    files.set_bytes(&name, bytes);
    files.set_bytes("snapshot-00000000000000000009.tmp", vec![1; 300]);
    files
}

#[test]
fn what_is_on_a_device_that_cannot_be_written_is_read_and_heals_when_it_can() {
    for what in ["read only", "no sync"] {
        let files = torn();
        let break_it = |is_broken| match what {
            "read only" => files.make_read_only(is_broken),
            _ => files.break_syncs(is_broken),
        };
        break_it(true);
        let (seen, recovered) = read(&files, RecoverMode::Repair).unwrap();
        assert_eq!(seen.marks, [1, 2, 3, 4, 5], "{what}");
        let mut world = World::go_on(files.clone(), recovered, always());
        assert_eq!(world.status.standing(), Standing::Refusing, "{what}");
        world.write_marks(7..=7);
        assert_eq!(*world.told.failed.lock().unwrap(), [(0, 1)]);
        world.wait(1000);
        world.wait(10_000);
        // Started once more, it is as it was.
        let (seen, _) = read(&files.copy(), RecoverMode::RefuseDamage).unwrap();
        assert_eq!(seen.marks, [1, 2, 3, 4, 5], "{what}");
        break_it(false);
        world.wait(10_000);
        let id = world.told.snapshots.lock().unwrap().last().unwrap().1;
        world.write_marks(8..=8);
        let (seen, _) = read(&files.copy(), RecoverMode::RefuseDamage).unwrap();
        assert_eq!(seen.marks, [1, 2, 3, 4, 5], "{what}: nothing was told as stored yet");
        world.part(0, id, [mark(1), mark(5), mark(7)].concat(), &[], true);
        world.settle();
        assert_eq!(world.status.standing(), Standing::Sound, "{what}");
        assert_eq!(*world.told.stored.lock().unwrap(), [(0, 2)]);
        let (seen, recovered) = read(&files, RecoverMode::RefuseDamage).unwrap();
        assert_eq!(seen.marks, [1, 5, 7, 8], "{what}");
        assert!(recovered.report.torn.is_none(), "{what}");
    }
}

/// A store that failed and heals, in which a snapshot is complete and has just got its name; its number. The engine does not know it yet.
fn world_that_publishes(is_healing: bool) -> (World, u64) {
    let mut world = World::new(always());
    world.write_marks(1..=3);
    if is_healing {
        world.files.break_writes(true);
        world.write_marks(4..=4);
        world.files.break_writes(false);
        world.wait(1000);
    } else {
        world.input(Input::Compact);
        world.settle();
    }
    let id = world.told.snapshots.lock().unwrap().last().unwrap().1;
    world.part(0, id, mark(1), &[], true);
    let name = FileName::snapshot(id).text();
    for _ in 0..100 {
        world.step();
        world.do_job(&mut |_| 0);
        if world.files.names().contains(&name) {
            return (world, id);
        }
    }
    panic!("it is never published");
}

#[test]
fn a_snapshot_that_is_given_up_while_it_gets_its_name_leaves_nothing() {
    for is_healing in [false, true] {
        let (mut world, id) = world_that_publishes(is_healing);
        let (snapshot, segment) = (FileName::snapshot(id).text(), FileName::segment(id).text());
        // In one step: a write that fails, and the word that the snapshot has its name.
        world.files.break_writes(true);
        world.give_up_before_news();
        for _ in 0..20 {
            let names = world.files.names();
            assert!(
                !names.contains(&snapshot) || names.contains(&segment),
                "healing: {is_healing}: without its log it is not to be read: {names:?}"
            );
            world.do_job(&mut |_| 0);
        }
        world.settle();
        assert!(!world.files.names().contains(&snapshot), "healing: {is_healing}");
        world.files.break_writes(false);
        let (seen, _) = read(&world.files.copy(), RecoverMode::RefuseDamage).unwrap();
        assert_eq!(seen.marks[..3], [1, 2, 3]);
    }
}

#[test]
fn a_snapshot_that_has_taken_the_place_of_everything_keeps_its_log_though_healing_fails() {
    let (mut world, id) = world_that_publishes(true);
    let names = [FileName::segment(id).text(), FileName::snapshot(id).text()];
    world.step(); // now it knows, and removes what is older
    world.files.break_writes(true);
    world.write_marks(5..=5);
    world.settle();
    assert_eq!(world.status.standing(), Standing::Refusing);
    assert_eq!(world.files.names(), names);
    let (seen, _) = read(&world.files.copy(), RecoverMode::RefuseDamage).unwrap();
    assert_eq!(seen.marks, [1]);
}
