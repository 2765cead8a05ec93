//! Stories about devices that cannot be written, or not fast enough.

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
