//! The simulated file system as the store sees it.

use std::fmt;
use std::io;
use std::sync::Arc;

use sundew::storage::disk::files::{Files, Lock, LockError, StoreFile};

use super::{Change, DiskFault, Inode, InodeId, SimDisk, State, error, folder_of};

impl Files for SimDisk {
    fn directory(&self) -> String {
        "simulated".into()
    }

    fn create_directory(&self) -> io::Result<()> {
        self.live().map(drop)
    }

    fn create_folder(&self, name: &str) -> io::Result<()> {
        let (mut state, is_last) = self.change()?;
        if !state.now.folders.contains(name) {
            state.alter(Change::Folder(name.to_owned()), &[""]);
        }
        done(is_last)
    }

    fn lock(&self) -> Result<Box<dyn Lock>, LockError> {
        let mut state = self.live()?;
        if std::mem::replace(&mut state.is_locked, true) {
            return Err(LockError::Taken { pid: None });
        }
        Ok(Box::new(SimLock(self.clone())))
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn StoreFile>> {
        let (mut state, is_last) = self.change()?;
        let chance = state.troubles.create;
        if state.random.percent(chance) {
            return Err(error("EIO of a create"));
        }
        if state.now.files.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let folder = folder_of(name);
        if !folder.is_empty() && !state.now.folders.contains(&folder) {
            return Err(io::ErrorKind::NotFound.into());
        }
        state.inodes.push(Inode::default());
        let id = state.inodes.len() - 1;
        state.alter(Change::Link(name.to_owned(), id), &[&folder]);
        if state.fault == Some(DiskFault::DropLogEarly) && name.ends_with(".tmp") {
            state.drop_log();
        }
        done(is_last)?;
        Ok(self.handle(id, name, true))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn StoreFile>> {
        let id = self.live()?.find(name)?;
        Ok(self.handle(id, name, false))
    }

    fn cut(&self, name: &str, length: u64) -> io::Result<()> {
        let (mut state, is_last) = self.change()?;
        let id = state.find(name)?;
        if !is_last || state.random.percent(50) {
            state.inodes[id].cut(length as usize);
        }
        done(is_last)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let (mut state, is_last) = self.change()?;
        let id = state.find(from)?;
        let change = Change::Rename(from.to_owned(), to.to_owned(), id);
        state.alter(change, &[&folder_of(from), &folder_of(to)]);
        done(is_last)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let (mut state, is_last) = self.change()?;
        state.find(name)?;
        state.alter(Change::Unlink(name.to_owned()), &[&folder_of(name)]);
        done(is_last)
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let state = self.live()?;
        let names = state.now.files.keys().filter(|name| !name.contains('/'));
        Ok(names.cloned().collect())
    }

    fn sync_directory(&self, folder: &str) -> io::Result<()> {
        let (mut state, is_last) = self.change()?;
        let chance = state.troubles.sync;
        if state.random.percent(chance) {
            return Err(error("EIO of a directory"));
        }
        if is_last || state.fault == Some(DiskFault::SkipDirectorySync) {
            return done(is_last);
        }
        for (change, mut folders) in std::mem::take(&mut state.changes) {
            folders.remove(folder);
            if folders.is_empty() {
                state.device.apply(&change);
            } else {
                state.changes.push((change, folders));
            }
        }
        Ok(())
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let state = self.live()?;
        Ok(state.limit.map_or(1 << 40, |limit| limit.saturating_sub(state.used())))
    }
}

fn done(is_last: bool) -> io::Result<()> {
    if is_last { Err(error("the power went")) } else { Ok(()) }
}

struct SimLock(SimDisk);

impl fmt::Debug for SimLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SimLock")
    }
}

impl Lock for SimLock {}

impl Drop for SimLock {
    fn drop(&mut self) {
        let mut state = self.0.look();
        if state.life == self.0.life {
            state.is_locked = false;
        }
    }
}

#[derive(Debug)]
struct SimFile {
    disk: SimDisk,
    id: InodeId,
    is_snapshot: bool,
    is_writable: bool,
}

impl SimDisk {
    fn handle(&self, id: InodeId, name: &str, is_writable: bool) -> Arc<dyn StoreFile> {
        Arc::new(SimFile {
            disk: self.clone(),
            id,
            is_snapshot: name.starts_with("snapshot"),
            is_writable,
        })
    }
}

impl StoreFile for SimFile {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        assert!(self.is_writable, "a file that is open for reading is not written to");
        let (mut state, is_last) = self.disk.change()?;
        let growth = (offset as usize + bytes.len()).saturating_sub(state.inodes[self.id].now.len());
        let room = state
            .limit
            .map_or(usize::MAX, |limit| limit.saturating_sub(state.used()) as usize);
        let chance = state.troubles.write;
        let (taken, failed) = if state.random.percent(chance) {
            (state.random.below(bytes.len() + 1), Some(error("EIO of a write")))
        } else if growth > room {
            (
                bytes.len().saturating_sub(growth - room),
                Some(io::ErrorKind::StorageFull.into()),
            )
        } else {
            (bytes.len(), None)
        };
        let number = state.last_write.0 + 1;
        let sectors = state.inodes[self.id].write(offset as usize, &bytes[..taken], number);
        state.last_write = (number, sectors);
        failed.map_or_else(|| done(is_last), Err)
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<usize> {
        let state = self.disk.live()?;
        let bytes = state.inodes[self.id].now.get(offset as usize..).unwrap_or_default();
        let count = bytes.len().min(out.len());
        out[..count].copy_from_slice(&bytes[..count]);
        Ok(count)
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.disk.live()?.inodes[self.id].now.len() as u64)
    }

    fn sync(&self) -> io::Result<()> {
        let (mut state, is_last) = self.disk.change()?;
        let chance = state.troubles.sync;
        if state.random.percent(chance) {
            let State { inodes, random, .. } = &mut *state;
            inodes[self.id].fail_sync(random);
            return Err(error("EIO of a sync"));
        }
        let skipped = match state.fault {
            Some(DiskFault::SkipSync) => !self.is_snapshot,
            Some(DiskFault::SkipSnapshotSync) => self.is_snapshot,
            _ => false,
        };
        if !is_last && !skipped {
            state.inodes[self.id].sync();
        }
        done(is_last)
    }
}
