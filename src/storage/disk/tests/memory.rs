//! Files in memory, that fail when they are told to.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use super::super::files::{Files, Lock, LockError, StoreFile};

type Bytes = Arc<Mutex<Vec<u8>>>;

#[derive(Clone, Debug, Default)]
pub(super) struct MemoryFiles(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    files: Mutex<BTreeMap<String, Bytes>>,
    writes_fail: AtomicBool,
    syncs_fail: AtomicBool,
    creates_fail: AtomicBool,
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
        self.0.files.lock().unwrap()[name].lock().unwrap().clone()
    }

    pub(super) fn set_bytes(&self, name: &str, bytes: Vec<u8>) {
        let file = Arc::new(Mutex::new(bytes));
        self.0.files.lock().unwrap().insert(name.to_owned(), file);
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
        self.set_bytes(name, Vec::new());
        self.open(name)
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn StoreFile>> {
        Ok(Arc::new(MemoryFile(self.find(name)?, Arc::clone(&self.0))))
    }

    fn cut(&self, name: &str, length: u64) -> io::Result<()> {
        self.find(name)?.lock().unwrap().truncate(length as usize);
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let file = self.find(from)?;
        let mut files = self.0.files.lock().unwrap();
        files.remove(from);
        files.insert(to.to_owned(), file);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.find(name)?;
        self.0.files.lock().unwrap().remove(name);
        Ok(())
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.names().into_iter().filter(|name| !name.contains('/')).collect())
    }

    fn sync_directory(&self, _folder: &str) -> io::Result<()> {
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
        let end = offset as usize + bytes.len();
        if self.1.writes_fail.load(Ordering::Relaxed) {
            // A part of it has got there.
            let half = offset as usize + bytes.len() / 2;
            file.resize(half, 0);
            file[offset as usize..half].copy_from_slice(&bytes[..bytes.len() / 2]);
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        self.1.writes.fetch_add(1, Ordering::Relaxed);
        if file.len() < end {
            file.resize(end, 0);
        }
        file[offset as usize..end].copy_from_slice(bytes);
        Ok(())
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<usize> {
        let file = self.0.lock().unwrap();
        let from = (offset as usize).min(file.len());
        let count = out.len().min(file.len() - from);
        out[..count].copy_from_slice(&file[from..from + count]);
        Ok(count)
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.0.lock().unwrap().len() as u64)
    }

    fn sync(&self) -> io::Result<()> {
        self.1.syncs.fetch_add(1, Ordering::Relaxed);
        if self.1.syncs_fail.load(Ordering::Relaxed) {
            return Err(io::Error::other("the device is gone"));
        }
        Ok(())
    }
}
