//! Stories about damaged directories: it always starts, says what is lost, and loses nothing more.

use super::super::block::{FileHeader, FileName, StoreId};
use super::super::engine::Input;
use super::super::options::{DiskOptions, SyncMode};
use super::super::recover::{RecoverError, RecoverMode};
use super::memory::MemoryFiles;
use super::world::{World, mark, read};

/// A store of several segments: marks 1 to `count`, four to a segment.
fn segments(count: u64) -> World {
    let mut world = World::new(DiskOptions {
        sync: SyncMode::Always,
        segment_size: 4 * (56 + mark(1).len() as u64),
        snapshot_after: u64::MAX,
        ..DiskOptions::default()
    });
    for value in 1..=count {
        world.write_marks(value..=value);
        world.settle();
    }
    world
}

fn without(marks: std::ops::RangeInclusive<u64>, lost: &[u64]) -> Vec<u64> {
    marks.filter(|value| !lost.contains(value)).collect()
}

#[test]
fn a_whole_segment_that_is_gone_or_zeros_costs_only_itself() {
    let world = segments(20);
    let mut names: Vec<_> = world.files.names();
    names.retain(|name| world.files.bytes(name).len() > 128);
    assert!(names.len() > 3, "{names:?}");
    let all = read(&world.files, RecoverMode::ReadOnly).unwrap().0.marks;
    assert_eq!(all, (1..=20).collect::<Vec<_>>());
    for (at, name) in names.iter().enumerate().take(names.len() - 1) {
        for what in ["gone", "zeros", "empty", "header", "noise"] {
            let files = world.files.copy();
            let length = files.bytes(name).len();
            match what {
                "gone" => super::super::files::Files::remove(&files, name).unwrap(),
                "zeros" => files.set_bytes(name, vec![0; length]),
                "empty" => files.set_bytes(name, Vec::new()),
                "header" => {
                    let mut bytes = files.bytes(name);
                    bytes[..128].fill(0);
                    files.set_bytes(name, bytes);
                }
                _ => files.set_bytes(name, (0..length).map(|byte| (byte * 7) as u8).collect()),
            }
            let refused = read(&files.copy(), RecoverMode::RefuseDamage);
            let (seen, recovered) = read(&files.copy(), RecoverMode::Repair).unwrap();
            if what == "header" {
                assert_eq!(seen.marks, all, "its blocks say whose they are");
                continue;
            }
            assert!(
                matches!(refused, Err(RecoverError::Damaged(_))),
                "{at} {what}: {refused:?}"
            );
            assert!(!seen.gaps.is_empty(), "{at} {what}");
            let lost: Vec<_> = (1..=20).filter(|value| !seen.marks.contains(value)).collect();
            assert!(
                lost.len() <= 8 && lost.windows(2).all(|two| two[0] + 1 == two[1]),
                "{at} {what}: {lost:?}"
            );
            assert_eq!(seen.marks, without(1..=20, &lost));
            assert!(recovered.report.torn.is_none());
        }
    }
}

#[test]
fn a_last_segment_of_zeros_is_damage_since_its_header_was_safe() {
    let world = segments(3);
    let name = world.files.names()[1].clone();
    let length = world.files.bytes(&name).len();
    assert!(length > 128);
    world.files.set_bytes(&name, vec![0; length]);
    let (seen, _) = read(&world.files, RecoverMode::Repair).unwrap();
    assert_eq!((seen.marks, seen.gaps.len()), (vec![1, 2], 1));
}

#[test]
fn a_damaged_file_is_put_aside_when_something_stands_in_its_place() {
    let world = segments(20);
    let name = world.files.names()[1].clone();
    let mut bytes = world.files.bytes(&name);
    bytes[200] ^= 1;
    world.files.set_bytes(&name, bytes.clone());
    let mut world = World::on(world.files.copy(), DiskOptions::default());
    assert_eq!(world.files.bytes(&name), bytes, "it is still there");
    world.settle();
    let id = world.told.snapshots.lock().unwrap()[0].1;
    // Killed before the snapshot is there: the same again.
    let (seen, _) = read(&world.files.copy(), RecoverMode::Repair).unwrap();
    assert_eq!((seen.gaps.len(), seen.marks.len()), (1, 19));
    world.part(0, id, mark(99), &[], true);
    world.settle();
    assert_eq!(world.files.bytes(&format!("quarantine/{name}")), bytes);
    let (seen, recovered) = read(&world.files, RecoverMode::RefuseDamage).unwrap();
    assert_eq!(seen.marks, [99]);
    assert!(recovered.report.damaged.is_empty());
}

#[test]
fn to_refuse_damage_touches_nothing() {
    let world = segments(20);
    let names = world.files.names();
    let mut bytes = world.files.bytes(&names[0]);
    bytes[200] ^= 1;
    world.files.set_bytes(&names[0], bytes);
    // There is a torn tail, too, and a snapshot that never came to be.
    let last = names.last().unwrap();
    world
        .files
        .set_bytes(last, [world.files.bytes(last), vec![1; 30]].concat());
    world.files.set_bytes("snapshot-00000000000000000009.tmp", vec![1]);
    let before: Vec<_> = world
        .files
        .names()
        .iter()
        .map(|name| (name.clone(), world.files.bytes(name)))
        .collect();
    let refused = read(&world.files, RecoverMode::RefuseDamage).unwrap_err().to_string();
    assert!(refused.contains(&names[0]) && refused.contains("byte 190"), "{refused}");
    let after: Vec<_> = world
        .files
        .names()
        .iter()
        .map(|name| (name.clone(), world.files.bytes(name)))
        .collect();
    assert_eq!(before, after);
}

#[test]
fn any_damaged_byte_of_a_snapshot_costs_that_part() {
    let mut world = World::new(DiskOptions::default());
    world.write_marks(1..=3);
    world.input(Input::Compact);
    world.settle();
    let id = world.told.snapshots.lock().unwrap()[0].1;
    for value in 11..=13 {
        world.part(0, id, mark(value), &[], value == 13);
        world.settle();
    }
    world.write_marks(4..=5);
    let name = FileName::snapshot(id).text();
    let whole = world.files.bytes(&name);
    for at in 128..whole.len() {
        let files = world.files.copy();
        let mut bytes = whole.clone();
        bytes[at] ^= 4;
        files.set_bytes(&name, bytes);
        assert!(
            matches!(read(&files, RecoverMode::RefuseDamage), Err(RecoverError::Damaged(_))),
            "byte {at}"
        );
        let (seen, recovered) = read(&files, RecoverMode::Repair).unwrap();
        assert!(
            seen.marks.ends_with(&[4, 5]) && seen.marks.len() >= 4,
            "byte {at}: {:?}",
            seen.marks
        );
        assert_eq!(recovered.report.damaged, std::slice::from_ref(&name));
        assert!(!seen.gaps.is_empty());
    }
    for length in 0..whole.len() {
        let files = world.files.copy();
        files.set_bytes(&name, whole[..length].to_vec());
        let (seen, _) = read(&files, RecoverMode::Repair).unwrap();
        assert!(seen.marks.ends_with(&[4, 5]), "{length}: {:?}", seen.marks);
    }
}

#[test]
fn what_a_damaged_snapshot_replaced_is_used_where_it_is_still_there() {
    let mut world = World::new(DiskOptions::default());
    world.write_marks(1..=3);
    let old = world.files.copy();
    world.snapshot([mark(1), mark(2), mark(3)].concat(), &[]);
    world.write_marks(4..=5);
    // Killed between making the snapshot and removing what it replaced.
    for name in old.names() {
        world.files.set_bytes(&name, old.bytes(&name));
    }
    let (seen, recovered) = read(&world.files.copy(), RecoverMode::RefuseDamage).unwrap();
    assert_eq!((seen.marks, recovered.report.replayed), (vec![1, 2, 3, 4, 5], 2));
    let name = world
        .files
        .names()
        .into_iter()
        .find(|name| name.ends_with(".snap"))
        .unwrap();
    let mut bytes = world.files.bytes(&name);
    bytes[130] ^= 1;
    world.files.set_bytes(&name, bytes);
    let (seen, _) = read(&world.files, RecoverMode::Repair).unwrap();
    assert_eq!(
        (&seen.marks[..3], &seen.marks[seen.marks.len() - 2..]),
        (&[1, 2, 3][..], &[4, 5][..])
    );
}

#[test]
fn a_file_of_another_store_is_not_mixed_in() {
    let world = segments(8);
    let header = FileHeader {
        name: FileName::segment(99),
        store: StoreId([6; 16]),
        created: 0,
    };
    world
        .files
        .set_bytes(&header.name.text(), [header.encode(), vec![0; 100]].concat());
    let (seen, recovered) = read(&world.files, RecoverMode::Repair).unwrap();
    assert_eq!(seen.marks, (1..=8).collect::<Vec<_>>());
    assert_eq!(recovered.report.damaged, [header.name.text()]);
    assert!(seen.gaps.is_empty());
}

#[test]
fn a_newer_form_is_not_touched() {
    let files = MemoryFiles::default();
    let mut bytes = b"SUNDEW\r\n\x03\x00\x01".to_vec();
    bytes.resize(60, 0);
    bytes.extend(crc32c::crc32c(&bytes).to_le_bytes());
    files.set_bytes(&FileName::segment(1).text(), [bytes.clone(), bytes].concat());
    let error = read(&files, RecoverMode::Repair).unwrap_err();
    assert!(error.to_string().contains("form 3"), "{error}");
}

#[test]
fn a_power_cut_between_two_segments_leaves_what_was_before_it() {
    // Nothing was synced: the first segment has lost a block, and the second one has not.
    let mut world = World::new(DiskOptions {
        sync: SyncMode::Os,
        ..DiskOptions::default()
    });
    world.write_marks(1..=4);
    let first = world.files.names()[0].clone();
    let torn = world.files.bytes(&first);
    let block = (torn.len() - 128) / 4;
    for lost in 0..4 {
        for goes_on in [false, true] {
            let files = MemoryFiles::default();
            let mut bytes = torn.clone();
            bytes[128 + lost * block..128 + (lost + 1) * block].fill(0);
            files.set_bytes(&first, bytes);
            if goes_on {
                let mut other = World::new(DiskOptions {
                    sync: SyncMode::Os,
                    segment_size: 100,
                    ..DiskOptions::default()
                });
                for value in 1..=8 {
                    other.write_marks(value..=value);
                    other.step();
                }
                let names = other.files.names();
                for name in &names[1..] {
                    files.set_bytes(name, other.files.bytes(name));
                }
            }
            let (seen, recovered) = read(&files, RecoverMode::RefuseDamage).unwrap();
            assert_eq!(seen.marks, (1..=lost as u64).collect::<Vec<_>>(), "{lost} {goes_on}");
            assert!(recovered.report.torn.is_some());
            let (again, recovered) = read(&files, RecoverMode::RefuseDamage).unwrap();
            assert_eq!(again.marks, seen.marks);
            assert!(recovered.report.torn.is_none(), "it was cut: {recovered:?}");
        }
    }
}
