//! What a disk may hold after a power cut, from what the shim wrote down.
//!
//! The model is as hard as POSIX allows. Of a file, what was there at its last sync is there; of what was written since, each
//! piece of 512 bytes is there or not by itself, and the file may have become longer without its bytes. Of a directory, what was
//! there at its last sync is there; creations, renames and removals since then happened or not, in order or each by itself. A
//! rename is whole or not at all. After a sync that failed, what it was to save may be lost although a later one succeeds.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::Path;

use crate::program::Start;
use crate::random::Random;
use crate::shim::{Operation, read_log};

/// What a disk writes whole or not at all.
const PIECE: usize = 512;

/// A directory and everything below it. Names are paths from there.
#[derive(Default)]
pub(crate) struct Disk {
    nodes: Vec<Node>,
    by_inode: HashMap<u64, usize>,
    /// As the program sees it.
    names: BTreeMap<String, usize>,
    /// As it surely is on the device.
    durable_names: BTreeMap<String, usize>,
    pending_names: Vec<NameChange>,
    /// How many writes, syncs and renames there were.
    pub(crate) counts: Counts,
}

/// What the shim saw.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) operations: usize,
    pub(crate) writes: usize,
    pub(crate) syncs: usize,
    pub(crate) renames: usize,
}

#[derive(Default)]
struct Node {
    is_directory: bool,
    current: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<Change>,
}

enum Change {
    Write(usize, Vec<u8>),
    Truncate(usize),
}

enum NameChange {
    Add(String, usize),
    Remove(String),
    Rename(String, String, usize),
}

/// How much of what was not synced survives.
struct Luck {
    piece_percent: usize,
    is_garbage: bool,
    names: NameLuck,
}

#[derive(Clone, Copy)]
enum NameLuck {
    None,
    All,
    Prefix,
    Each,
}

impl Disk {
    /// A directory as it is, all of it safe.
    pub(crate) fn of(directory: &Path) -> Self {
        let mut disk = Self::default();
        disk.read(directory, "");
        disk.durable_names = disk.names.clone();
        disk
    }

    fn read(&mut self, directory: &Path, prefix: &str) {
        for entry in fs::read_dir(directory).unwrap() {
            let entry = entry.unwrap();
            let name = format!("{prefix}{}", entry.file_name().to_str().unwrap());
            let status = entry.metadata().unwrap();
            if let Some(node) = self.by_inode.get(&status.ino()) {
                self.names.insert(name, *node); // another link
                continue;
            }
            let content = if status.is_dir() {
                Vec::new()
            } else {
                fs::read(entry.path()).unwrap()
            };
            let node = Node {
                is_directory: status.is_dir(),
                current: content.clone(),
                durable: content,
                pending: Vec::new(),
            };
            let number = self.add(status.ino(), node);
            if status.is_dir() {
                self.read(&entry.path(), &format!("{name}/"));
            }
            self.names.insert(name, number);
        }
    }

    fn add(&mut self, inode: u64, node: Node) -> usize {
        self.nodes.push(node);
        self.by_inode.insert(inode, self.nodes.len() - 1);
        self.nodes.len() - 1
    }

    /// Does what was done. The chance is for syncs that failed.
    pub(crate) fn replay(&mut self, operations: &[Operation], random: &mut Random) {
        for operation in operations {
            self.counts.operations += 1;
            self.apply(operation, random);
        }
    }

    fn apply(&mut self, operation: &Operation, random: &mut Random) {
        match operation {
            Operation::Create { inode, name } => {
                let node = self.add(*inode, Node::default());
                self.enter(name, node);
            }
            Operation::MakeDirectory { inode, name } => {
                let node = Node {
                    is_directory: true,
                    ..Node::default()
                };
                let node = self.add(*inode, node);
                self.enter(name, node);
            }
            Operation::Link { inode, to } => self.enter(to, self.by_inode[inode]),
            Operation::Unlink { name } | Operation::RemoveDirectory { name } => {
                self.names.remove(name);
                self.pending_names.push(NameChange::Remove(name.clone()));
            }
            Operation::Rename { inode, from, to } => {
                self.counts.renames += 1;
                let node = self.by_inode[inode];
                self.names.remove(from);
                self.names.insert(to.clone(), node);
                self.pending_names
                    .push(NameChange::Rename(from.clone(), to.clone(), node));
            }
            Operation::SyncDirectory { name } => {
                self.counts.syncs += 1;
                let (done, rest) = std::mem::take(&mut self.pending_names)
                    .into_iter()
                    .partition(|change| change.is_in(name));
                self.pending_names = rest;
                let done: Vec<NameChange> = done;
                done.iter().for_each(|change| change.apply(&mut self.durable_names));
            }
            Operation::Write { inode, offset, bytes } => {
                self.counts.writes += 1;
                self.change(*inode, Change::Write(*offset, bytes.clone()));
            }
            Operation::Truncate { inode, length } => self.change(*inode, Change::Truncate(*length)),
            Operation::Sync { inode } => {
                self.counts.syncs += 1;
                let node = &mut self.nodes[self.by_inode[inode]];
                for change in std::mem::take(&mut node.pending) {
                    change.apply(&mut node.durable);
                }
            }
            Operation::SyncFailed { inode } => {
                if let Some(node) = self.by_inode.get(inode) {
                    let node = &mut self.nodes[*node];
                    node.durable = node.survivor(&Luck::by(random), random);
                    node.pending.clear();
                }
            }
            Operation::SyncSwallowed => {}
        }
    }

    fn enter(&mut self, name: &str, node: usize) {
        self.names.insert(name.to_owned(), node);
        self.pending_names.push(NameChange::Add(name.to_owned(), node));
    }

    fn change(&mut self, inode: u64, change: Change) {
        let node = &mut self.nodes[self.by_inode[&inode]];
        change.apply(&mut node.current);
        node.pending.push(change);
    }

    /// After what the log of the shim tells, the power is cut: a start on what the disk may hold then, in another directory.
    pub(crate) fn after_cut(mut self, log: &Path, into: &Path, before: &Start, random: &mut Random) -> Start {
        self.replay(&read_log(log), random);
        self.cut(random, into);
        Start {
            directory: Some(into.to_owned()),
            ..before.clone()
        }
    }

    /// The power is cut: makes a directory that holds what one such disk may hold now.
    pub(crate) fn cut(&self, random: &mut Random, into: &Path) {
        let luck = Luck::by(random);
        let mut names = self.durable_names.clone();
        let survivors = match luck.names {
            NameLuck::None => 0,
            NameLuck::Prefix => random.below(self.pending_names.len() + 1),
            NameLuck::All | NameLuck::Each => self.pending_names.len(),
        };
        for change in &self.pending_names[..survivors] {
            if !matches!(luck.names, NameLuck::Each) || random.percent(50) {
                change.apply(&mut names);
            }
        }
        self.make(&names, into, |node| node.survivor(&luck, random));
    }

    /// Makes a directory of names and contents.
    fn make(&self, names: &BTreeMap<String, usize>, into: &Path, mut content: impl FnMut(&Node) -> Vec<u8>) {
        fs::DirBuilder::new().mode(0o700).recursive(true).create(into).unwrap();
        // In the order of names, so that a directory comes before what is in it.
        for (name, node) in names {
            let path = into.join(name);
            if !path.parent().unwrap().exists() {
                continue; // its directory is lost
            }
            let node = &self.nodes[*node];
            if node.is_directory {
                fs::DirBuilder::new().mode(0o700).create(path).unwrap();
            } else {
                fs::write(&path, content(node)).unwrap();
                fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            }
        }
    }

    /// What differs between what the log says and what is there: nothing, if the shim saw everything.
    pub(crate) fn differences(&self, directory: &Path) -> Vec<String> {
        let real = Self::of(directory);
        let mut differences = Vec::new();
        for name in self.names.keys().chain(real.names.keys()) {
            let content = |disk: &Self| disk.names.get(name).map(|node| disk.nodes[*node].current.clone());
            let (replayed, real) = (content(self), content(&real));
            if replayed != real {
                let length = |bytes: Option<Vec<u8>>| bytes.map_or(-1, |bytes| bytes.len() as i64);
                differences.push(format!(
                    "{name}: {} bytes by the log, {} there",
                    length(replayed),
                    length(real)
                ));
            }
        }
        differences
    }
}

impl Node {
    /// What of the file is there after a power cut.
    fn survivor(&self, luck: &Luck, random: &mut Random) -> Vec<u8> {
        let mut bytes = self.durable.clone();
        for change in &self.pending {
            match change {
                Change::Truncate(length) if random.percent(luck.piece_percent) => bytes.resize(*length, 0),
                Change::Truncate(_) => {}
                Change::Write(offset, written) => survive(&mut bytes, *offset, written, luck, random),
            }
        }
        // Its length may be on the device before its bytes.
        if bytes.len() < self.current.len() && random.percent(50) {
            let length = random.between(bytes.len(), self.current.len());
            bytes.resize(length, 0);
        }
        bytes
    }
}

/// Some pieces of one write.
fn survive(bytes: &mut Vec<u8>, offset: usize, written: &[u8], luck: &Luck, random: &mut Random) {
    let mut at = 0;
    while at < written.len() {
        let end = written.len().min(at + PIECE - (offset + at) % PIECE);
        let mut piece = written[at..end].to_vec();
        let is_lucky = random.percent(luck.piece_percent);
        let is_garbage = !is_lucky && luck.is_garbage && random.percent(20);
        if is_garbage {
            piece.iter_mut().for_each(|byte| *byte = random.next() as u8);
        }
        if is_lucky || is_garbage {
            Change::Write(offset + at, piece).apply(bytes);
        }
        at = end;
    }
}

impl Luck {
    fn by(random: &mut Random) -> Self {
        Self {
            piece_percent: random.pick(&[0, 0, 20, 50, 90, 100]),
            is_garbage: random.percent(30),
            names: random.pick(&[NameLuck::None, NameLuck::All, NameLuck::Prefix, NameLuck::Each]),
        }
    }
}

impl Change {
    fn apply(&self, to: &mut Vec<u8>) {
        match self {
            Self::Truncate(length) => to.resize(*length, 0),
            Self::Write(offset, bytes) => {
                let end = offset + bytes.len();
                if to.len() < end {
                    to.resize(end, 0);
                }
                to[*offset..end].copy_from_slice(bytes);
            }
        }
    }
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<String, usize>) {
        match self {
            Self::Add(name, node) => drop(names.insert(name.clone(), *node)),
            Self::Remove(name) => drop(names.remove(name)),
            Self::Rename(from, to, node) => {
                names.remove(from);
                names.insert(to.clone(), *node);
            }
        }
    }

    /// Whether it is one of this directory.
    fn is_in(&self, directory: &str) -> bool {
        let lies_in = |name: &str| name.rsplit_once('/').map_or("", |(parent, _)| parent) == directory;
        match self {
            Self::Add(name, _) | Self::Remove(name) => lies_in(name),
            Self::Rename(from, to, _) => lies_in(from) || lies_in(to),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn create(inode: u64, name: &str) -> Operation {
        Operation::Create {
            inode,
            name: name.to_owned(),
        }
    }

    fn write(inode: u64, offset: usize, text: &str) -> Operation {
        Operation::Write {
            inode,
            offset,
            bytes: text.as_bytes().to_vec(),
        }
    }

    fn after_cut(operations: &[Operation], seed: u64) -> BTreeMap<String, Vec<u8>> {
        let mut random = Random::new(seed);
        let mut disk = Disk::default();
        disk.replay(operations, &mut random);
        let folder = tempfile::tempdir().unwrap();
        disk.cut(&mut random, folder.path());
        let found = Disk::of(folder.path());
        let content = |node: &usize| found.nodes[*node].current.clone();
        found
            .names
            .iter()
            .map(|(name, node)| (name.clone(), content(node)))
            .collect()
    }

    #[test]
    fn what_was_synced_with_its_name_is_there_after_every_cut() {
        let here = Operation::SyncDirectory { name: String::new() };
        let moved = Operation::Rename {
            inode: 1,
            from: "a".to_owned(),
            to: "b".to_owned(),
        };
        let history = [
            create(1, "a"),
            write(1, 0, "whole"),
            Operation::Sync { inode: 1 },
            here,
            moved,
            write(1, 5, "!"),
        ];
        for seed in 0..100 {
            let found = after_cut(&history, seed);
            assert_eq!(found.len(), 1, "once, under its old or its new name");
            assert!(found.values().all(|bytes| bytes.starts_with(b"whole")), "{found:?}");
        }
    }

    #[test]
    fn what_was_not_synced_is_lost_in_some_cut_and_there_in_another() {
        let here = Operation::SyncDirectory { name: String::new() };
        let names_only = [create(1, "a"), here.clone(), write(1, 0, "bytes")];
        let bytes_only = [create(1, "a"), write(1, 0, "bytes"), Operation::Sync { inode: 1 }];
        let failed = [
            create(1, "a"),
            here,
            write(1, 0, "bytes"),
            Operation::SyncFailed { inode: 1 },
            Operation::Sync { inode: 1 },
        ];
        for history in [&names_only[..], &bytes_only, &failed] {
            let (there, lost): (Vec<u64>, Vec<u64>) = (0..100).partition(|seed| {
                after_cut(history, *seed)
                    .get("a")
                    .is_some_and(|bytes| bytes == b"bytes")
            });
            assert!(
                there.len() > 5 && lost.len() > 5,
                "{} there, {} lost",
                there.len(),
                lost.len()
            );
        }
    }
}
