//! Files in memory, that fail when they are told to.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use super::super::files::{Files, Lock, LockError, StoreFile};

type Bytes = Arc<Mutex<Content>>;

/// A file: what is read, and what a loss of power would leave.
#[derive(Clone, Debug, Default)]
struct Content {
    seen: Vec<u8>,
    safe: Vec<u8>,
    /// Written since the last sync.
    pending: Vec<(usize, Vec<u8>)>,
}

impl Content {
    fn write(&mut self, offset: usize, bytes: &[u8]) {
        put(&mut self.seen, offset, bytes);
        self.pending.push((offset, bytes.to_vec()));
    }

    fn sync(&mut self) {
        self.safe = self.seen.clone();
        self.pending.clear();
    }
}

fn put(file: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    if file.len() < offset + bytes.len() {
        file.resize(offset + bytes.len(), 0);
    }
    file[offset..offset + bytes.len()].copy_from_slice(bytes);
}

/// What happened to names since the last sync of the directory.
#[derive(Clone, Debug)]
enum Change {
    Created(String, Bytes),
    Renamed(String, String),
    Removed(String),
}

#[derive(Clone, Debug, Default)]
pub(super) struct MemoryFiles(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    files: Mutex<BTreeMap<String, Bytes>>,
    safe_names: Mutex<BTreeMap<String, Bytes>>,
    changes: Mutex<Vec<Change>>,
    writes_fail: AtomicBool,
    syncs_fail: AtomicBool,
    creates_fail: AtomicBool,
    is_read_only: AtomicBool,
    syncs: AtomicU64,
    writes: AtomicU64,
    used: AtomicU64,
}

impl MemoryFiles {
    pub(super) fn break_writes(&self, is_broken: bool) {
        self.0.writes_fail.store(is_broken, Ordering::Relaxed);
    }

    pub(super) fn break_syncs(&self, is_broken: bool) {
        self.0.syncs_fail.store(is_broken, Ordering::Relaxed);
    }

    pub(super) fn break_creates(&self, is_broken: bool) {
        self.0.creates_fail.store(is_broken, Ordering::Relaxed);
    }

    /// Nothing can be made, written, cut, renamed or removed; syncs of what is there are well.
    pub(super) fn make_read_only(&self, is_read_only: bool) {
        self.break_creates(is_read_only);
        self.break_writes(is_read_only);
        self.0.is_read_only.store(is_read_only, Ordering::Relaxed);
    }

    fn check_writable(&self) -> io::Result<()> {
        match self.0.is_read_only.load(Ordering::Relaxed) {
            true => Err(io::Error::from(io::ErrorKind::ReadOnlyFilesystem)),
            false => Ok(()),
        }
    }

    /// Bytes of the device that others use.
    pub(super) fn fill(&self, bytes: u64) {
        self.0.used.store(bytes, Ordering::Relaxed);
    }

    pub(super) fn syncs(&self) -> u64 {
        self.0.syncs.load(Ordering::Relaxed)
    }

    pub(super) fn writes(&self) -> u64 {
        self.0.writes.load(Ordering::Relaxed)
    }

    pub(super) fn names(&self) -> Vec<String> {
        self.0.files.lock().unwrap().keys().cloned().collect()
    }

    pub(super) fn bytes(&self, name: &str) -> Vec<u8> {
        self.0.files.lock().unwrap()[name].lock().unwrap().seen.clone()
    }

    /// Makes a file of bytes that are on the device.
    pub(super) fn set_bytes(&self, name: &str, bytes: Vec<u8>) {
        let file = Arc::new(Mutex::new(Content {
            seen: bytes.clone(),
            safe: bytes,
            pending: Vec::new(),
        }));
        self.0
            .safe_names
            .lock()
            .unwrap()
            .insert(name.to_owned(), Arc::clone(&file));
        self.0.files.lock().unwrap().insert(name.to_owned(), file);
    }

    /// The power goes: of what was not synced, anything may be there. `choose` gives a number below its argument.
    pub(super) fn lose_power(&self, choose: &mut dyn FnMut(usize) -> usize) -> Self {
        let mut names = self.0.safe_names.lock().unwrap().clone();
        for change in self.0.changes.lock().unwrap().iter() {
            if choose(2) == 0 {
                continue;
            }
            match change {
                Change::Created(name, file) => drop(names.insert(name.clone(), Arc::clone(file))),
                Change::Removed(name) => drop(names.remove(name)),
                Change::Renamed(from, to) => {
                    if let Some(file) = names.remove(from) {
                        names.insert(to.clone(), file);
                    }
                }
            }
        }
        let left = Self::default();
        for (name, file) in names {
            let file = file.lock().unwrap();
            let mut bytes = file.safe.clone();
            for (offset, written) in &file.pending {
                let (from, to) = match choose(4) {
                    0 => continue,
                    1 => (0, choose(written.len() + 1)),
                    2 => (choose(written.len() + 1), written.len()),
                    _ => (0, written.len()),
                };
                put(&mut bytes, offset + from, &written[from..to]);
            }
            left.set_bytes(&name, bytes);
        }
        left
    }

    fn change(&self, change: Change) {
        self.0.changes.lock().unwrap().push(change);
    }

    /// What is there now, on a device that works.
    pub(super) fn copy(&self) -> Self {
        let copy = Self::default();
        for name in self.names() {
            copy.set_bytes(&name, self.bytes(&name));
        }
        copy
    }

    fn find(&self, name: &str) -> io::Result<Bytes> {
        let files = self.0.files.lock().unwrap();
        files
            .get(name)
            .cloned()
            .ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }
}

#[derive(Debug)]
struct MemoryLock;

impl Lock for MemoryLock {}

/// Bytes of the device.
pub(super) const DEVICE_BYTES: u64 = 1 << 30;

impl Files for MemoryFiles {
    fn directory(&self) -> String {
        "memory".into()
    }

    fn create_directory(&self) -> io::Result<()> {
        Ok(())
    }

    fn create_folder(&self, _name: &str) -> io::Result<()> {
        Ok(())
    }

    fn lock(&self) -> Result<Box<dyn Lock>, LockError> {
        Ok(Box::new(MemoryLock))
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn StoreFile>> {
        if self.0.creates_fail.load(Ordering::Relaxed) {
            return Err(io::Error::from(io::ErrorKind::ReadOnlyFilesystem));
        }
        if self.find(name).is_ok() {
            return Err(io::Error::from(io::ErrorKind::AlreadyExists));
        }
        let file = Bytes::default();
        self.0.files.lock().unwrap().insert(name.to_owned(), Arc::clone(&file));
        self.change(Change::Created(name.to_owned(), file));
        self.open(name)
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn StoreFile>> {
        Ok(Arc::new(MemoryFile(self.find(name)?, Arc::clone(&self.0))))
    }

    fn cut(&self, name: &str, length: u64) -> io::Result<()> {
        self.check_writable()?;
        let file = self.find(name)?;
        let mut file = file.lock().unwrap();
        file.seen.truncate(length as usize);
        file.sync();
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.check_writable()?;
        let file = self.find(from)?;
        let mut files = self.0.files.lock().unwrap();
        files.remove(from);
        files.insert(to.to_owned(), file);
        self.change(Change::Renamed(from.to_owned(), to.to_owned()));
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.check_writable()?;
        self.find(name)?;
        self.0.files.lock().unwrap().remove(name);
        self.change(Change::Removed(name.to_owned()));
        Ok(())
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.names().into_iter().filter(|name| !name.contains('/')).collect())
    }

    fn sync_directory(&self, _folder: &str) -> io::Result<()> {
        if self.0.syncs_fail.load(Ordering::Relaxed) {
            return Err(io::Error::other("the device is gone"));
        }
        *self.0.safe_names.lock().unwrap() = self.0.files.lock().unwrap().clone();
        self.0.changes.lock().unwrap().clear();
        Ok(())
    }

    fn free_bytes(&self) -> io::Result<u64> {
        Ok(DEVICE_BYTES - self.0.used.load(Ordering::Relaxed))
    }
}

#[derive(Debug)]
struct MemoryFile(Bytes, Arc<Inner>);

impl StoreFile for MemoryFile {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut file = self.0.lock().unwrap();
        if self.1.writes_fail.load(Ordering::Relaxed) {
            file.write(offset as usize, &bytes[..bytes.len() / 2]); // a part of it has got there
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        self.1.writes.fetch_add(1, Ordering::Relaxed);
        file.write(offset as usize, bytes);
        Ok(())
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<usize> {
        let file = &self.0.lock().unwrap().seen;
        let from = (offset as usize).min(file.len());
        let count = out.len().min(file.len() - from);
        out[..count].copy_from_slice(&file[from..from + count]);
        Ok(count)
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.0.lock().unwrap().seen.len() as u64)
    }

    fn sync(&self) -> io::Result<()> {
        self.1.syncs.fetch_add(1, Ordering::Relaxed);
        if self.1.syncs_fail.load(Ordering::Relaxed) {
            return Err(io::Error::other("the device is gone"));
        }
        self.0.lock().unwrap().sync();
        Ok(())
    }
}
