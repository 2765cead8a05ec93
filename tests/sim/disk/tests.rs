//! The simulated file system keeps its word, and nothing but its word.

use proptest::collection::vec;
use proptest::prelude::*;
use sundew::storage::disk::files::{Files, StoreFile};

use super::{SECTOR, SimDisk, Survival, Troubles};
use crate::random::Random;

/// What a store may do with a file.
#[derive(Clone, Debug)]
enum Step {
    Write(usize, Vec<u8>),
    Sync,
    Cut(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let bytes = (1..1500usize, 1..255u8).prop_map(|(length, byte)| vec![byte; length]);
    prop_oneof![
        4 => (0..3000usize, bytes).prop_map(|(at, bytes)| Step::Write(at, bytes)),
        2 => Just(Step::Sync),
        1 => (0..3000usize).prop_map(Step::Cut),
    ]
}

fn content(disk: &SimDisk, name: &str) -> Option<Vec<u8>> {
    let file = disk.open(name).ok()?;
    let mut bytes = vec![0; file.length().unwrap() as usize];
    assert_eq!(file.read_at(0, &mut bytes).unwrap(), bytes.len());
    Some(bytes)
}

/// A file with a name that is on the device.
fn prepared(seed: u64) -> (SimDisk, std::sync::Arc<dyn StoreFile>) {
    let disk = SimDisk::new(seed, None);
    let file = disk.create("a").unwrap();
    disk.sync_directory("").unwrap();
    (disk, file)
}

fn put(model: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    model.resize(model.len().max(at + bytes.len()), 0);
    model[at..at + bytes.len()].copy_from_slice(bytes);
}

proptest! {
    /// What was written is read; what was synced survives; of the rest each sector is as it was at some moment since the sync, or zero.
    #[test]
    fn a_loss_of_power_leaves_what_was_synced_and_any_part_of_the_rest(steps in vec(step(), 1..30), seed in any::<u64>()) {
        let (disk, file) = prepared(seed);
        let (mut now, mut versions) = (Vec::new(), vec![Vec::new()]);
        for step in &steps {
            match step {
                Step::Write(at, bytes) => {
                    file.write_at(*at as u64, bytes).unwrap();
                    put(&mut now, *at, bytes);
                    versions.push(now.clone());
                }
                Step::Sync => {
                    file.sync().unwrap();
                    versions = vec![now.clone()];
                }
                Step::Cut(length) => {
                    disk.cut("a", *length as u64).unwrap();
                    now.truncate(*length);
                    versions = vec![now.clone()];
                }
            }
            prop_assert_eq!(&content(&disk, "a").unwrap(), &now);
        }
        let after = disk.restart(Survival::Chance(Random::new(seed)));
        let found = content(&after, "a").unwrap();
        prop_assert!(found.len() >= versions[0].len(), "what was synced is not shortened");
        for (at, byte) in found.iter().enumerate() {
            let mut possible = versions.iter().map(|version| version.get(at).copied().unwrap_or(0));
            prop_assert!(possible.any(|possible| possible == *byte), "byte {} is {}", at, byte);
        }
        prop_assert!(file.length().is_err(), "what was opened in another life is dead");
        let again = after.restart(Survival::Nothing);
        prop_assert_eq!(content(&again, "a").unwrap(), found, "what survived is on the device");
    }

    /// After `kill -9` everything is there, and may still be lost with the power afterwards.
    #[test]
    fn a_killed_process_loses_nothing_until_the_power_goes(length in 1..5000usize, seed in any::<u64>()) {
        let (disk, file) = prepared(seed);
        file.write_at(0, &vec![7; length]).unwrap();
        let killed = disk.restart(Survival::All);
        prop_assert_eq!(content(&killed, "a").unwrap(), vec![7; length]);
        let dark = killed.restart(Survival::Nothing);
        prop_assert_eq!(content(&dark, "a").unwrap(), Vec::<u8>::new());
    }

    /// A rename is all or nothing, and certain only when the directory was synced.
    #[test]
    fn names_are_certain_when_their_directory_is_synced(seed in any::<u64>()) {
        let (disk, file) = prepared(seed);
        file.write_at(0, b"old").unwrap();
        file.sync().unwrap();
        let new = disk.create("b").unwrap();
        new.write_at(0, b"new").unwrap();
        new.sync().unwrap();
        disk.sync_directory("").unwrap();
        disk.rename("b", "a").unwrap();
        let unsure = disk.twin(seed).restart(Survival::Chance(Random::new(seed)));
        let (a, b) = (content(&unsure, "a").unwrap(), content(&unsure, "b"));
        match b {
            Some(b) => prop_assert_eq!((&a[..], &b[..]), (&b"old"[..], &b"new"[..])),
            None => prop_assert_eq!(&a[..], b"new"),
        }
        disk.sync_directory("").unwrap();
        let sure = disk.restart(Survival::Nothing);
        prop_assert_eq!(content(&sure, "a").unwrap(), b"new");
        prop_assert_eq!(content(&sure, "b"), None);
    }
}

#[test]
fn after_a_failed_sync_a_good_one_proves_nothing() {
    let mut is_lost = false;
    for seed in 0..20 {
        let (disk, file) = prepared(seed);
        file.write_at(0, &[7; SECTOR]).unwrap();
        disk.set_troubles(Troubles {
            sync: 100,
            ..Troubles::default()
        });
        file.sync().unwrap_err();
        disk.set_troubles(Troubles::default());
        file.sync().unwrap();
        let mut seen = [0; SECTOR];
        assert_eq!(file.read_at(0, &mut seen).unwrap(), SECTOR, "it is still in memory");
        is_lost |= content(&disk.restart(Survival::Nothing), "a").unwrap() == [0; SECTOR];
    }
    assert!(is_lost, "and yet it is not on the device");
}

#[test]
fn a_full_disk_takes_what_fits() {
    let (disk, file) = prepared(1);
    disk.set_limit(Some(1000));
    file.write_at(0, &[1; 900]).unwrap();
    assert_eq!(disk.free_bytes().unwrap(), 100);
    let refused = file.write_at(900, &[2; 200]).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::StorageFull);
    assert_eq!((file.length().unwrap(), disk.used()), (1000, 1000));
    disk.remove("a").unwrap();
    assert_eq!(disk.free_bytes().unwrap(), 1000);
    assert_eq!(file.length().unwrap(), 1000, "who has it open can still read it");
}

#[test]
fn every_sector_of_the_last_write_survives_or_not_as_asked() {
    for mask in 0..8u64 {
        let (disk, file) = prepared(1);
        file.write_at(0, &[1; 10]).unwrap();
        disk.cut_power_at(Some(disk.operations() + 1));
        file.write_at(512, &[2; 3 * SECTOR]).unwrap_err();
        assert!(disk.is_dead() && disk.last_write_sectors() == 3);
        let after = disk.restart(Survival::LastWrite { mask, before: true });
        let found = content(&after, "a").unwrap();
        assert_eq!(found[..10], [1; 10]);
        for sector in 0..3 {
            let byte = found.get(512 + sector * SECTOR).copied().unwrap_or(0);
            assert_eq!(byte == 2, mask >> sector & 1 == 1, "sector {sector} of mask {mask}");
        }
    }
}

#[test]
fn one_bit_is_turned_around_and_stays_so() {
    let (disk, file) = prepared(1);
    file.write_at(0, &[0; 2000]).unwrap();
    file.sync().unwrap();
    disk.flip(&mut Random::new(3)).unwrap();
    let found = content(&disk.restart(Survival::Nothing), "a").unwrap();
    assert_eq!(found.iter().map(|byte| byte.count_ones()).sum::<u32>(), 1);
}

#[test]
fn one_owner_at_a_time_and_none_after_a_crash() {
    let (disk, _) = prepared(1);
    let lock = disk.lock().unwrap();
    assert!(disk.lock().is_err());
    let next = disk.restart(Survival::All);
    let again = next.lock().unwrap();
    drop(lock);
    assert!(next.lock().is_err(), "a lock of another life gives nothing back");
    drop(again);
    next.lock().unwrap();
}
