//! What the store asks of a file system, and the real one.
//!
//! Everything goes through two traits, so that the same code runs on a file system that lies, tears and loses (`tests/sim`).
//! Names are relative to the data directory, with `/` between parts, and never leave it.
//!
//! What may be relied on, and nothing else:
//! - Bytes written by [`StoreFile::write_at`] are read back at once by everybody, and are on the device only when a [`StoreFile::sync`]
//!   that was called afterwards has returned `Ok`. Before that, a loss of power may leave any part of any of them, in any order; what they
//!   have not reached reads as zeros, or the file is shorter.
//! - That a file was created, renamed or removed is on the device when a [`Files::sync_directory`] of its folder that was called
//!   afterwards has returned `Ok`. Before that it may be so or not. A rename is all or nothing.
//! - After an error of a write or a sync, nothing is known about what was written since the last good sync.

use std::fmt;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, IoSlice, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A file system, seen from a data directory. Methods may be called from several threads.
pub trait Files: fmt::Debug + Send + Sync {
    /// The directory, for messages to people.
    fn directory(&self) -> String;

    /// Makes the directory and what is above it, if it is not there, for this user alone (mode 0700).
    ///
    /// # Errors
    /// Of the operating system.
    fn create_directory(&self) -> io::Result<()>;

    /// Makes a folder in it, if it is not there.
    ///
    /// # Errors
    /// Of the operating system.
    fn create_folder(&self, name: &str) -> io::Result<()>;

    /// Takes the directory for this process, until the process ends or the lock is dropped.
    ///
    /// # Errors
    /// [`LockError::Taken`] when somebody else has it.
    fn lock(&self) -> Result<Box<dyn Lock>, LockError>;

    /// Makes a file that is not there yet, for reading and writing, for this user alone (mode 0600).
    ///
    /// # Errors
    /// Of the operating system, also when it is there.
    fn create(&self, name: &str) -> io::Result<Arc<dyn StoreFile>>;

    /// Opens a file for reading; it may be synced, too.
    ///
    /// # Errors
    /// Of the operating system, also when it is not there.
    fn open(&self, name: &str) -> io::Result<Arc<dyn StoreFile>>;

    /// Cuts a file off behind its first `length` bytes, and syncs it.
    ///
    /// # Errors
    /// Of the operating system.
    fn cut(&self, name: &str, length: u64) -> io::Result<()>;

    /// Renames a file; one that has the new name is replaced.
    ///
    /// # Errors
    /// Of the operating system.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file. Whoever has it open can still read it.
    ///
    /// # Errors
    /// Of the operating system.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Names of the files in the directory, not of folders nor what is in them, in any order.
    ///
    /// # Errors
    /// Of the operating system.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Brings what was created, renamed and removed in a folder to the device; the directory itself for "".
    ///
    /// # Errors
    /// Of the operating system.
    fn sync_directory(&self, folder: &str) -> io::Result<()>;

    /// Bytes that this process may still write.
    ///
    /// # Errors
    /// Of the operating system.
    fn free_bytes(&self) -> io::Result<u64>;
}

/// An open file.
pub trait StoreFile: fmt::Debug + Send + Sync {
    /// Writes all bytes at a place; the file grows as needed.
    ///
    /// # Errors
    /// Of the operating system; then any part of the bytes may have been written.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Writes the bytes of two places at one, the second behind the first, as if by one [`StoreFile::write_at`].
    ///
    /// # Errors
    /// As there.
    fn write_both_at(&self, offset: u64, first: &[u8], second: &[u8]) -> io::Result<()> {
        self.write_at(offset, &[first, second].concat())
    }

    /// Reads at a place as many bytes as fit, fewer only at the file's end; says how many.
    ///
    /// # Errors
    /// Of the operating system.
    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<usize>;

    /// Bytes in the file.
    ///
    /// # Errors
    /// Of the operating system.
    fn length(&self) -> io::Result<u64>;

    /// Brings everything written to the file so far, and its length, to the device.
    ///
    /// # Errors
    /// Of the operating system; the file is of no use for writing then.
    fn sync(&self) -> io::Result<()>;
}

/// A directory is taken as long as this lives.
pub trait Lock: fmt::Debug + Send + Sync {}

/// Why a directory could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Somebody else has it.
    #[error("another broker uses it{}", pid.map_or_else(String::new, |pid| format!(" (process {pid})")))]
    Taken {
        /// Who, where that can be read.
        pid: Option<u32>,
    },
    /// Of the operating system.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// The operating system's files.
#[derive(Clone, Debug)]
pub struct OsFiles {
    root: PathBuf,
}

/// Name of the lock file.
const LOCK: &str = "lock";
/// Digits of a process number, with room.
const PID_BYTES_MAX: u64 = 32;

impl OsFiles {
    /// Those below a directory, which need not be there yet.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }
}

impl Files for OsFiles {
    fn directory(&self) -> String {
        self.root.display().to_string()
    }

    fn create_directory(&self) -> io::Result<()> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.root)
    }

    fn create_folder(&self, name: &str) -> io::Result<()> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(self.path(name))
    }

    fn lock(&self) -> Result<Box<dyn Lock>, LockError> {
        let path = self.path(LOCK);
        let mut file = match OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
        {
            // What is there can be read, and the lock is taken as well by who cannot write.
            Err(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => File::open(&path)?,
            opened => opened?,
        };
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                let pid = (&mut file)
                    .take(PID_BYTES_MAX)
                    .read_to_string(&mut text)
                    .ok()
                    .and_then(|_| text.trim().parse().ok());
                return Err(LockError::Taken { pid });
            }
            Err(TryLockError::Error(error)) => return Err(LockError::Io(error)),
        }
        let pid = format!("{}\n", std::process::id());
        if let Err(error) = file.set_len(0).and_then(|()| file.write_all(pid.as_bytes())) {
            // It is there for people. A device that is full or cannot be written is no reason not to read it.
            tracing::debug!(file = %path.display(), %error, "the number of this process could not be written");
        }
        Ok(Box::new(OsLock(file)))
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn StoreFile>> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(self.path(name))?;
        Ok(Arc::new(OsFile(file)))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn StoreFile>> {
        Ok(Arc::new(OsFile(File::open(self.path(name))?)))
    }

    fn cut(&self, name: &str, length: u64) -> io::Result<()> {
        let file = OpenOptions::new().write(true).open(self.path(name))?;
        file.set_len(length)?;
        file.sync_all()
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path(from), self.path(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path(name))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.root)? {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                names.extend(entry.file_name().into_string()); // a name that is no text is none of ours
            }
        }
        Ok(names)
    }

    fn sync_directory(&self, folder: &str) -> io::Result<()> {
        let path: &Path = &self.path(folder);
        File::open(path)?.sync_all()
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let stat = rustix::fs::statvfs(&self.root)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }
}

#[derive(Debug)]
struct OsFile(File);

impl StoreFile for OsFile {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn write_both_at(&self, offset: u64, first: &[u8], second: &[u8]) -> io::Result<()> {
        // `pwritev` by the library would go past those who look on (`tests/durability`), and std has none. A file is written by one at a time.
        let mut file = &self.0;
        file.seek(SeekFrom::Start(offset))?;
        let written = match file.write_vectored(&[IoSlice::new(first), IoSlice::new(second)]) {
            Ok(written) => written,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
            Err(error) => return Err(error),
        };
        let of_first = written.min(first.len());
        self.write_at(offset + of_first as u64, &first[of_first..])?;
        let of_second = written - of_first;
        self.write_at(offset + written.max(first.len()) as u64, &second[of_second..])
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<usize> {
        let mut done = 0;
        while done < out.len() {
            match self.0.read_at(&mut out[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(count) => done += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }
}

/// The operating system gives the lock back when the file is closed, whatever ends the process.
#[derive(Debug)]
struct OsLock(#[expect(dead_code, reason = "it is held, not used")] File);

impl Lock for OsLock {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_directory_has_one_owner_and_the_other_is_told_who() {
        let scratch = tempfile::tempdir().unwrap();
        let files = OsFiles::new(scratch.path().join("a/b"));
        files.create_directory().unwrap();
        let lock = files.lock().unwrap();
        let refused = files.lock().unwrap_err();
        assert!(matches!(refused, LockError::Taken { pid: Some(pid) } if pid == std::process::id()));
        assert!(refused.to_string().contains(&std::process::id().to_string()));
        drop(lock);
        files.lock().unwrap();
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_lock_is_taken_where_nothing_can_be_written() {
        let scratch = tempfile::tempdir().unwrap();
        let files = OsFiles::new(scratch.path());
        std::os::unix::fs::symlink("/dev/full", scratch.path().join(LOCK)).unwrap();
        let _lock = files.lock().unwrap();
        assert!(matches!(files.lock(), Err(LockError::Taken { pid: None })));
    }

    #[test]
    fn files_do_what_the_traits_say() {
        let scratch = tempfile::tempdir().unwrap();
        let files = OsFiles::new(scratch.path());
        let file = files.create("one").unwrap();
        assert!(files.create("one").is_err(), "it is there");
        file.write_at(0, b"hell").unwrap();
        file.write_both_at(4, b"o", b" world").unwrap();
        file.sync().unwrap();
        let mut out = [0; 8];
        assert_eq!(files.open("one").unwrap().read_at(6, &mut out).unwrap(), 5);
        assert_eq!(&out[..5], b"world");
        files.cut("one", 5).unwrap();
        assert_eq!(file.length().unwrap(), 5);
        files.create_folder("aside").unwrap();
        files.rename("one", "aside/one").unwrap();
        files.sync_directory("aside").unwrap();
        assert!(files.list().unwrap().is_empty());
        files.remove("aside/one").unwrap();
        assert_eq!(
            file.read_at(0, &mut out).unwrap(),
            5,
            "who has it open can still read it"
        );
        assert!(files.free_bytes().unwrap() > 0);
    }
}
