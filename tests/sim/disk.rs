//! A file system in memory that keeps to `storage::disk::files` and to nothing more: what was not synced may be lost in any part and
//! any order when the power goes, a sync that failed may have thrown away what it was to bring to the device, and a disk may be full.

#[cfg(test)]
mod files;
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use crate::random::Random;

/// The device writes a sector wholly or not at all.
pub(crate) const SECTOR: usize = 512;

/// What goes wrong on purpose: mistakes that a store could make, made below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DiskFault {
    /// Syncs of segments do nothing.
    SkipSync,
    /// Syncs of snapshots do nothing.
    SkipSnapshotSync,
    /// Syncs of directories do nothing.
    SkipDirectorySync,
    /// When a snapshot is begun, everything older is removed.
    DropLogEarly,
}

/// How often something fails by itself, in percent.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Troubles {
    pub write: usize,
    pub sync: usize,
    pub create: usize,
}

/// What survives of what was not synced, when the power goes.
#[derive(Clone, Debug)]
pub(crate) enum Survival {
    /// Everything: the process was killed, not the machine.
    All,
    /// Nothing.
    Nothing,
    /// By chance, each for itself.
    Chance(Random),
    /// Of the last write the sectors whose bits are set, of everything before all or nothing.
    LastWrite { mask: u64, before: bool },
}

/// One sector, or a part of one, that was written and not synced.
#[derive(Clone, Debug)]
struct Dirty {
    offset: usize,
    bytes: Vec<u8>,
    write: u64,
}

#[derive(Clone, Debug, Default)]
struct Inode {
    now: Vec<u8>,
    device: Vec<u8>,
    dirty: Vec<Dirty>,
    /// Bytes that are on the device whatever happens.
    synced: usize,
    /// A sync has failed: what is in memory is taken for what is on the device, and is not.
    has_lost: bool,
}

type InodeId = usize;

/// A change of names that was not synced.
#[derive(Clone, Debug)]
enum Change {
    Link(String, InodeId),
    Unlink(String),
    Rename(String, String, InodeId),
    Folder(String),
}

#[derive(Clone, Debug, Default)]
struct Names {
    files: BTreeMap<String, InodeId>,
    folders: BTreeSet<String>,
}

#[derive(Debug)]
struct State {
    inodes: Vec<Inode>,
    now: Names,
    device: Names,
    changes: Vec<(Change, BTreeSet<String>)>,
    random: Random,
    /// Which life of the machine, or of the process, this is: what was opened in another one is dead.
    life: u64,
    is_locked: bool,
    troubles: Troubles,
    limit: Option<u64>,
    fault: Option<DiskFault>,
    /// Operations so far that change something.
    operations: u64,
    /// The power goes with this one.
    cut_at: Option<u64>,
    is_dead: bool,
    /// The last write: its number and its sectors.
    last_write: (u64, usize),
}

/// The file system, as the store sees it in one life of the machine.
#[derive(Clone)]
pub(crate) struct SimDisk {
    state: Arc<Mutex<State>>,
    life: u64,
}

impl fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SimDisk")
    }
}

fn error(what: &'static str) -> io::Error {
    io::Error::other(what)
}

fn folder_of(name: &str) -> String {
    name.rsplit_once('/').map_or("", |(folder, _)| folder).to_owned()
}

impl SimDisk {
    pub(crate) fn new(seed: u64, fault: Option<DiskFault>) -> Self {
        Self {
            state: Arc::new(Mutex::new(State {
                inodes: Vec::new(),
                now: Names::default(),
                device: Names::default(),
                changes: Vec::new(),
                random: Random::new(seed),
                life: 0,
                is_locked: false,
                troubles: Troubles::default(),
                limit: None,
                fault,
                operations: 0,
                cut_at: None,
                is_dead: false,
                last_write: (0, 0),
            })),
            life: 0,
        }
    }

    fn look(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn live(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.look();
        if state.is_dead || state.life != self.life {
            return Err(error("the power is off"));
        }
        Ok(state)
    }

    /// An operation that changes something; the power may go with it, which is told by true: then it may be done or not.
    fn change(&self) -> io::Result<(MutexGuard<'_, State>, bool)> {
        let mut state = self.live()?;
        state.operations += 1;
        let is_last = state.cut_at == Some(state.operations);
        state.is_dead |= is_last;
        Ok((state, is_last))
    }

    pub(crate) fn set_troubles(&self, troubles: Troubles) {
        self.look().troubles = troubles;
    }

    /// Bytes that fit on the device.
    pub(crate) fn set_limit(&self, limit: Option<u64>) {
        self.look().limit = limit;
    }

    pub(crate) fn is_limited(&self) -> bool {
        self.look().limit.is_some()
    }

    /// The power goes with the operation of this number.
    pub(crate) fn cut_power_at(&self, operation: Option<u64>) {
        self.look().cut_at = operation;
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.look().is_dead
    }

    /// Operations so far that change something.
    pub(crate) fn operations(&self) -> u64 {
        self.look().operations
    }

    /// Sectors of the last write.
    pub(crate) fn last_write_sectors(&self) -> usize {
        self.look().last_write.1
    }

    pub(crate) fn used(&self) -> u64 {
        self.look().used()
    }

    /// The process, or with anything but [`Survival::All`] the machine, stops. What comes back is the same device in its next life.
    pub(crate) fn restart(&self, survival: Survival) -> Self {
        let mut state = self.look();
        state.stop(survival);
        state.life += 1;
        state.is_dead = false;
        state.is_locked = false;
        state.cut_at = None;
        Self {
            state: Arc::clone(&self.state),
            life: state.life,
        }
    }

    /// A copy of everything, in a next life of its own.
    pub(crate) fn twin(&self, seed: u64) -> Self {
        let state = self.look();
        Self {
            state: Arc::new(Mutex::new(State {
                inodes: state.inodes.clone(),
                now: state.now.clone(),
                device: state.device.clone(),
                changes: state.changes.clone(),
                random: Random::new(seed),
                ..*state
            })),
            life: self.life,
        }
    }

    /// Turns one bit around in what the files hold; says where. `None` when there is nothing in them.
    pub(crate) fn flip(&self, random: &mut Random) -> Option<String> {
        let mut state = self.look();
        let filled: Vec<(String, InodeId)> = (state.now.files.iter())
            .filter(|(_, id)| !state.inodes[**id].now.is_empty())
            .map(|(name, id)| (name.clone(), *id))
            .collect();
        let (name, id) = filled.get(random.below(filled.len()))?;
        let inode = &mut state.inodes[*id];
        let (at, bit) = (random.below(inode.now.len()), random.below(8));
        inode.now[at] ^= 1 << bit;
        if let Some(byte) = inode.device.get_mut(at) {
            *byte ^= 1 << bit;
        }
        Some(format!("{name} byte {at} bit {bit}"))
    }

    /// What a failed sync left in memory and not on the device goes from memory, too, as it may at any time.
    pub(crate) fn forget_lost(&self) {
        self.look().inodes.iter_mut().for_each(Inode::forget_lost);
    }

    /// Names and lengths, for whoever looks for a mistake.
    pub(crate) fn describe(&self) -> String {
        let state = self.look();
        let files = state.now.files.iter();
        let files = files.map(|(name, id)| format!("{name} {}", state.inodes[*id].now.len()));
        files.collect::<Vec<_>>().join(", ")
    }
}

impl State {
    fn used(&self) -> u64 {
        let ids: BTreeSet<&InodeId> = self.now.files.values().collect();
        ids.into_iter().map(|id| self.inodes[*id].now.len() as u64).sum()
    }

    fn find(&self, name: &str) -> io::Result<InodeId> {
        let found = self.now.files.get(name).copied();
        found.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no such file"))
    }

    fn alter(&mut self, change: Change, folders: &[&str]) {
        self.now.apply(&change);
        let folders = folders.iter().map(|folder| (*folder).to_owned()).collect();
        self.changes.push((change, folders));
    }

    /// Removes, for good, every segment but the one that is written now, and every snapshot that is whole.
    fn drop_log(&mut self) {
        let is_log = |name: &&String| name.ends_with(".log");
        let last = self.now.files.keys().rfind(is_log).cloned();
        for names in [&mut self.now, &mut self.device] {
            (names.files)
                .retain(|name, _| !(name.ends_with(".log") || name.ends_with(".snap")) || Some(name) == last.as_ref());
        }
    }

    /// The machine stops: now there is only what the device has.
    fn stop(&mut self, survival: Survival) {
        if matches!(survival, Survival::All) {
            return; // what the process wrote is on its way to the device, with or without it
        }
        let last = self.last_write.0;
        let mut chance = match &survival {
            Survival::Chance(random) => random.clone(),
            _ => Random::new(0),
        };
        // Those who keep a journal keep a beginning of the changes; others any part of them.
        let in_order = chance.percent(50).then(|| chance.below(self.changes.len() + 1));
        for (at, (change, _)) in std::mem::take(&mut self.changes).into_iter().enumerate() {
            let survives = match &survival {
                Survival::All => true,
                Survival::Nothing => false,
                Survival::LastWrite { before, .. } => *before,
                Survival::Chance(_) => in_order.map_or_else(|| chance.percent(50), |count| at < count),
            };
            if survives {
                self.device.apply(&change);
            }
        }
        let folders = &self.device.folders;
        (self.device.files).retain(|name, _| folder_of(name).is_empty() || folders.contains(&folder_of(name)));
        self.now = self.device.clone();
        for inode in &mut self.inodes {
            inode.stop(&survival, last, &mut chance);
        }
    }
}

impl Names {
    fn apply(&mut self, change: &Change) {
        match change {
            Change::Link(name, id) => {
                self.files.insert(name.clone(), *id);
            }
            Change::Unlink(name) => {
                self.files.remove(name);
            }
            Change::Rename(from, to, id) => {
                self.files.remove(from);
                self.files.insert(to.clone(), *id);
            }
            Change::Folder(name) => {
                self.folders.insert(name.clone());
            }
        }
    }
}

impl Inode {
    fn write(&mut self, offset: usize, bytes: &[u8], write: u64) -> usize {
        put(&mut self.now, offset, bytes);
        let (mut at, mut sectors) = (0, 0);
        while at < bytes.len() {
            let end = (at + SECTOR - (offset + at) % SECTOR).min(bytes.len());
            self.dirty.push(Dirty {
                offset: offset + at,
                bytes: bytes[at..end].to_vec(),
                write,
            });
            (at, sectors) = (end, sectors + 1);
        }
        sectors
    }

    fn sync(&mut self) {
        for dirty in std::mem::take(&mut self.dirty) {
            put(&mut self.device, dirty.offset, &dirty.bytes);
        }
        self.device.resize(self.now.len(), 0);
        self.synced = self.device.len();
    }

    fn cut(&mut self, length: usize) {
        self.now.truncate(length);
        self.sync();
    }

    /// A sync that failed: each sector is on the device, or is taken for it from now on.
    fn fail_sync(&mut self, random: &mut Random) {
        self.has_lost = true;
        for dirty in std::mem::take(&mut self.dirty) {
            if random.percent(50) {
                put(&mut self.device, dirty.offset, &dirty.bytes);
            }
        }
    }

    fn forget_lost(&mut self) {
        if std::mem::take(&mut self.has_lost) {
            self.now.clone_from(&self.device);
            for dirty in &self.dirty {
                put(&mut self.now, dirty.offset, &dirty.bytes);
            }
        }
    }

    fn stop(&mut self, survival: &Survival, last: u64, chance: &mut Random) {
        let (mut is_shortened, mut sector) = (false, 0);
        for dirty in std::mem::take(&mut self.dirty) {
            let survives = match survival {
                Survival::All => true,
                Survival::Nothing => false,
                Survival::Chance(_) => chance.percent(50),
                Survival::LastWrite { before, .. } if dirty.write != last => *before,
                Survival::LastWrite { mask, .. } => {
                    sector += 1;
                    mask >> (sector - 1) & 1 == 1
                }
            };
            if survives {
                put(&mut self.device, dirty.offset, &dirty.bytes);
            }
            is_shortened = true;
        }
        if is_shortened && matches!(survival, Survival::Chance(_)) {
            // The length is written for itself: it may be ahead of the bytes, which then read as zeros, or behind them.
            let longest = self.now.len().max(self.device.len());
            match chance.below(4) {
                0 => self.device.resize(longest, 0),
                1 => {
                    let kept = chance.between(self.synced.min(self.device.len()), self.device.len());
                    self.device.truncate(kept);
                }
                _ => {}
            }
        }
        self.sync_back();
    }

    fn sync_back(&mut self) {
        self.now.clone_from(&self.device);
        self.synced = self.device.len();
    }
}

fn put(into: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    if into.len() < offset + bytes.len() {
        into.resize(offset + bytes.len(), 0);
    }
    into[offset..offset + bytes.len()].copy_from_slice(bytes);
}
