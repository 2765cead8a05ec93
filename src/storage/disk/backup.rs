//! Backups: the state of a store in one file, in the form of a snapshot (`block.rs`), and a store made of it.
//!
//! A backup is snapshot number 1 of a store of its own: a file that is named `snapshot-00000000000000000001.snap` and put alone into a
//! directory is a store that a broker starts with. [`import`] does the same, and looks first whether every byte of it is sound.

use std::collections::HashMap;
use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use super::block::{BlockFacts, BlockKind, FileHeader, FileKind, FileName, HeaderError, StoreId, encode_block};
use super::files::{Files, Lock, LockError, OsFiles, StoreFile};
use super::recover::{Gap, Place, RecoverError, RecoverMode, Recovered, Visitor, recover};
use crate::protocol::ids::{MessageNumber, WorkerId};
use crate::protocol::message::Message;
use crate::protocol::time::Time;
use crate::storage::Record;
use crate::storage::image::{Image, ImageOptions, Restored};
use crate::storage::record::MessageRecord;

/// Why there is no backup, or no store made of one.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// A file that would be replaced.
    #[error("{}: it is there already, and is not replaced: choose another name, or remove it", .0.display())]
    Exists(PathBuf),
    /// A directory that a store is to be made in.
    #[error(
        "{directory}: {found} is there already: a backup goes into an empty directory only; choose another one, or move what is there away"
    )]
    NotEmpty {
        /// Which.
        directory: String,
        /// What is there.
        found: String,
    },
    /// A directory where there is no store.
    #[error("{0}: there is no store in it: a broker that keeps its state has `storage.directory` in its first lines")]
    NoStore(String),
    /// A directory that a broker is at work in.
    #[error("{directory}: {error}: stop it, or choose another directory")]
    Lock {
        /// Which.
        directory: String,
        /// Who.
        error: LockError,
    },
    /// What is to be read cannot be.
    #[error("{directory}: {error}")]
    Recover {
        /// Directory, or backup.
        directory: String,
        /// What.
        error: RecoverError,
    },
    /// A file that is no backup.
    #[error("{}: {error}", file.display())]
    NoBackup {
        /// Which.
        file: PathBuf,
        /// What.
        error: HeaderError,
    },
    /// A backup that is not sound.
    #[error(
        "{} is damaged at byte {}: {} bytes cannot be read; to start with what can be, put it alone into a directory as snapshot-00000000000000000001.snap",
        file.display(), gap.offset, gap.bytes
    )]
    Damaged {
        /// Which.
        file: PathBuf,
        /// Where first.
        gap: Gap,
    },
    /// Of the operating system.
    #[error("{}: {error}", file.display())]
    Io {
        /// Which.
        file: PathBuf,
        /// What.
        error: io::Error,
    },
}

/// What a backup was made of, or a store of a backup.
#[derive(Debug)]
pub struct Copied {
    /// What was found where it was read.
    pub found: super::recover::Report,
    /// What is in the copy.
    pub restored: crate::storage::image::Report,
    /// Bytes of the copy.
    pub bytes: u64,
}

/// A data directory, or a backup, that is only read; a broker may be at work in it.
#[derive(Debug)]
pub struct Source {
    files: ReadFiles,
}

impl Source {
    /// A data directory, or the file of a backup.
    ///
    /// # Errors
    /// [`BackupError`]: it is not there, or not one of these.
    pub fn open(path: &Path) -> Result<Self, BackupError> {
        let io = |error| BackupError::Io {
            file: path.to_owned(),
            error,
        };
        if fs::metadata(path).map_err(io)?.is_dir() {
            let files = ReadFiles::directory(path);
            let names = files.list().map_err(io)?;
            if !names.iter().any(|name| FileName::parse(name).is_some()) {
                return Err(BackupError::NoStore(files.directory()));
            }
            return Ok(Self { files });
        }
        Self::backup(path)
    }

    fn backup(file: &Path) -> Result<Self, BackupError> {
        Ok(Self {
            files: ReadFiles::backup(file)?,
        })
    }

    /// For messages to people.
    pub fn name(&self) -> String {
        self.files.directory()
    }

    /// Names of its files.
    ///
    /// # Errors
    /// [`BackupError::Io`].
    pub fn files(&self) -> Result<Vec<String>, BackupError> {
        self.files.list().map_err(|error| BackupError::Io {
            file: self.files.directory().into(),
            error,
        })
    }

    /// Tells everything that is in it, in the order in which a broker would apply it.
    ///
    /// # Errors
    /// [`BackupError::Recover`].
    pub fn read(&self, visitor: &mut dyn Visitor) -> Result<Recovered, BackupError> {
        recover(&self.files, RecoverMode::ReadOnly, visitor).map_err(|error| BackupError::Recover {
            directory: self.files.directory(),
            error,
        })
    }

    /// The state that it adds up to, expired or not.
    ///
    /// # Errors
    /// [`BackupError::Recover`].
    pub fn restore(&self, options: ImageOptions) -> Result<(Recovered, Restored), BackupError> {
        let mut image = Image::new(options);
        let recovered = self.read(&mut Applied(&mut image))?;
        // Time begins at 0: nothing has expired, and what has by now is left out when a broker starts with it.
        Ok((recovered, image.finish(Time(0))))
    }
}

/// Makes an image of what is told.
#[derive(Debug)]
pub struct Applied<'i>(pub &'i mut Image);

impl Visitor for Applied<'_> {
    fn record(&mut self, record: &[u8], _place: &Place<'_>) {
        self.0.apply(record);
    }

    fn gap(&mut self, _gap: &Gap) {
        self.0.gap();
    }
}

/// Writes a backup: the state of `source` as it is now, synced and complete before it has its name. What cannot be read of the source is left
/// out, and told in [`Copied::found`]. Contents of messages that wait are in memory up to a bound; the rest is read again as it is written.
///
/// # Errors
/// [`BackupError`]; then there is no backup.
pub fn export(source: &Source, file: &Path, options: ImageOptions) -> Result<Copied, BackupError> {
    if file.symlink_metadata().is_ok() {
        return Err(BackupError::Exists(file.to_owned()));
    }
    let (mut recovered, restored) = source.restore(options)?;
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
    let files = OsFiles::new(folder.unwrap_or(Path::new(".")));
    let name = file.file_name().map(|name| name.to_string_lossy().into_owned());
    let name = name.unwrap_or_default();
    let stamp = recovered.stamp;
    let read = |wanted: &[MessageNumber]| recovered.read(&source.files, wanted);
    let bytes = write(&files, &name, file, stamp, &restored, read)?;
    Ok(Copied {
        found: recovered.report,
        restored: restored.report,
        bytes,
    })
}

/// Writes a backup of a state that is in memory as a whole, and was at [`Time`] 0, which is now. The report and the bytes.
///
/// # Errors
/// [`BackupError`]; then there is no backup.
pub fn create(state: Image, file: &Path) -> Result<(crate::storage::image::Report, u64), BackupError> {
    if file.symlink_metadata().is_ok() {
        return Err(BackupError::Exists(file.to_owned()));
    }
    let restored = state.finish(Time(0));
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
    let files = OsFiles::new(folder.unwrap_or(Path::new(".")));
    let name = file.file_name().map(|name| name.to_string_lossy().into_owned());
    let bytes = write(&files, &name.unwrap_or_default(), file, None, &restored, |_| Vec::new())?;
    Ok((restored.report, bytes))
}

/// Makes a store of a backup, in a directory that is empty or not there. Memory is bounded as for [`export`].
///
/// # Errors
/// [`BackupError`]; then the directory has no store.
pub fn import(file: &Path, directory: &Path, options: ImageOptions) -> Result<Copied, BackupError> {
    let source = Source::backup(file)?;
    let (mut recovered, restored) = source.restore(options)?;
    if let Some(gap) = recovered.report.gaps.first() {
        return Err(BackupError::Damaged {
            file: file.to_owned(),
            gap: gap.clone(),
        });
    }
    let files = OsFiles::new(directory);
    let io = |error| BackupError::Io {
        file: directory.to_owned(),
        error,
    };
    files.create_directory().map_err(io)?;
    let entries = fs::read_dir(directory).map_err(io)?;
    let mut found = entries
        .filter_map(Result::ok)
        .map(|entry| entry.file_name().to_string_lossy().into_owned());
    // The lock of a broker that has ended is no state.
    if let Some(found) = found.find(|name| name != "lock") {
        return Err(BackupError::NotEmpty {
            directory: files.directory(),
            found,
        });
    }
    let _lock = lock(&files)?;
    let name = FileName::snapshot(1).text();
    let path = directory.join(&name);
    let stamp = recovered.stamp;
    let read = |wanted: &[MessageNumber]| recovered.read(&source.files, wanted);
    let bytes = write(&files, &name, &path, stamp, &restored, read)?;
    Ok(Copied {
        found: recovered.report,
        restored: restored.report,
        bytes,
    })
}

/// Takes a data directory.
///
/// # Errors
/// [`BackupError::Lock`] while a broker is at work in it.
pub fn lock(files: &dyn Files) -> Result<Box<dyn Lock>, BackupError> {
    files.lock().map_err(|error| BackupError::Lock {
        directory: files.directory(),
        error,
    })
}

/// Writes a state under another name, brings it to the device, and gives it its own.
fn write(
    files: &OsFiles,
    name: &str,
    path: &Path,
    stamp: Option<(Time, u64)>,
    restored: &Restored,
    read: impl FnMut(&[MessageNumber]) -> Vec<(MessageNumber, Option<Arc<Message>>)>,
) -> Result<u64, BackupError> {
    let io = |error| BackupError::Io {
        file: path.to_owned(),
        error,
    };
    let temporary = format!("{name}.tmp");
    let wall = SystemTime::now().duration_since(UNIX_EPOCH);
    let wall = wall.map_or(0, |since| since.as_millis() as u64);
    let random = RandomState::new();
    let mut store = StoreId::default();
    store.0[..8].copy_from_slice(&random.hash_one(1).to_le_bytes());
    store.0[8..].copy_from_slice(&random.hash_one(2).to_le_bytes());
    let header = FileHeader {
        name: FileName::snapshot(1),
        store,
        created: wall,
    };
    let mut writer = Writer {
        file: files.create(&temporary).map_err(io)?,
        header,
        stamp: stamp.unwrap_or((Time(0), wall)),
        length: 0,
        blocks: 0,
    };
    let written = writer
        .all(restored, read)
        .and_then(|()| files.rename(&temporary, name))
        .and_then(|()| files.sync_directory(""));
    if let Err(error) = written {
        let _ = files.remove(&temporary); // what is left of it is of no use, and in nobody's way
        return Err(io(error));
    }
    Ok(writer.length)
}

/// Messages that are read again at once.
const READ_AT_ONCE: usize = 32;

/// Writes the blocks of a snapshot.
struct Writer {
    file: Arc<dyn StoreFile>,
    header: FileHeader,
    stamp: (Time, u64),
    length: u64,
    blocks: u64,
}

impl Writer {
    /// Writes everything. What is not in memory is read when its turn comes.
    fn all(
        &mut self,
        restored: &Restored,
        mut read: impl FnMut(&[MessageNumber]) -> Vec<(MessageNumber, Option<Arc<Message>>)>,
    ) -> io::Result<()> {
        let header = self.header.encode();
        self.file.write_at(0, &header)?;
        self.length = header.len() as u64;
        let mut result = Ok(());
        restored.encode(&mut |part| {
            for wanted in part.stored_messages.chunks(READ_AT_ONCE) {
                if result.is_ok() {
                    result = self.contents(read(wanted));
                }
            }
            if result.is_ok() && !part.bytes.is_empty() {
                result = self.block(BlockKind::SnapshotPart, &part.bytes);
            }
        });
        result?;
        self.block(BlockKind::SnapshotEnd, &[])?;
        self.file.sync()
    }

    /// What messages say, before the deliveries that name them.
    fn contents(&mut self, messages: Vec<(MessageNumber, Option<Arc<Message>>)>) -> io::Result<()> {
        let mut bytes = Vec::new();
        for (number, message) in messages {
            let message = message.ok_or_else(|| {
                io::Error::other(format!("message {} of the source cannot be read any more", number.0))
            })?;
            Record::Message(MessageRecord::of(number, &message.view())).encode(&mut bytes);
        }
        self.block(BlockKind::SnapshotPart, &bytes)
    }

    fn block(&mut self, kind: BlockKind, body: &[u8]) -> io::Result<()> {
        self.blocks += 1;
        let facts = BlockFacts {
            kind,
            worker: WorkerId(0),
            records: crate::storage::record::records(body).count() as u32,
            number: self.blocks,
            synced: 0, // nothing of a log is before it
            time: self.stamp.0,
            wall: self.stamp.1,
        };
        let mut bytes = Vec::new();
        encode_block(&facts, body, self.header.salt(), &mut bytes)?;
        self.file.write_at(self.length, &bytes)?;
        self.length += bytes.len() as u64;
        Ok(())
    }
}

/// A data directory, or a backup that is seen as one with one snapshot in it. Nothing can be changed, and what was opened once stays readable: a broker
/// may remove it meanwhile.
#[derive(Debug)]
struct ReadFiles {
    path: PathBuf,
    folder: OsFiles,
    /// Of a backup: its name in the folder, and the name that it would have in a data directory.
    backup: Option<(String, String)>,
    opened: Mutex<HashMap<String, Arc<dyn StoreFile>>>,
}

impl ReadFiles {
    fn directory(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            folder: OsFiles::new(path),
            backup: None,
            opened: Mutex::default(),
        }
    }

    fn backup(path: &Path) -> Result<Self, BackupError> {
        let io = |error| BackupError::Io {
            file: path.to_owned(),
            error,
        };
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let folder = OsFiles::new(folder.unwrap_or(Path::new(".")));
        let own_name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let file = folder.open(&own_name).map_err(io)?;
        let mut bytes = [0; super::block::BLOCKS_START as usize];
        let count = file.read_at(0, &mut bytes).map_err(io)?;
        let header = FileHeader::decode(&bytes[..count]).and_then(|header| match header.name.kind {
            FileKind::Snapshot => Ok(header),
            FileKind::Segment => Err(HeaderError::Damaged),
        });
        match header {
            Ok(header) => Ok(Self {
                path: path.to_owned(),
                folder,
                backup: Some((own_name, header.name.text())),
                opened: Mutex::default(),
            }),
            Err(error) => Err(BackupError::NoBackup {
                file: path.to_owned(),
                error,
            }),
        }
    }
}

/// What is asked besides reading.
fn read_only<T>() -> io::Result<T> {
    Err(io::ErrorKind::ReadOnlyFilesystem.into())
}

impl Files for ReadFiles {
    fn directory(&self) -> String {
        self.path.display().to_string()
    }

    fn create_directory(&self) -> io::Result<()> {
        read_only()
    }

    fn create_folder(&self, _name: &str) -> io::Result<()> {
        read_only()
    }

    fn lock(&self) -> Result<Box<dyn Lock>, LockError> {
        Ok(read_only()?)
    }

    fn create(&self, _name: &str) -> io::Result<Arc<dyn StoreFile>> {
        read_only()
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn StoreFile>> {
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = opened.get(name) {
            return Ok(Arc::clone(file));
        }
        let file = match &self.backup {
            None => self.folder.open(name)?,
            Some((own_name, as_named)) if name == as_named => self.folder.open(own_name)?,
            Some(_) => return Err(io::ErrorKind::NotFound.into()),
        };
        opened.insert(name.to_owned(), Arc::clone(&file));
        Ok(file)
    }

    fn cut(&self, _name: &str, _length: u64) -> io::Result<()> {
        read_only()
    }

    fn rename(&self, _from: &str, _to: &str) -> io::Result<()> {
        read_only()
    }

    fn remove(&self, _name: &str) -> io::Result<()> {
        read_only()
    }

    fn list(&self) -> io::Result<Vec<String>> {
        match &self.backup {
            None => self.folder.list(),
            Some((_, as_named)) => Ok(vec![as_named.clone()]),
        }
    }

    fn sync_directory(&self, _folder: &str) -> io::Result<()> {
        read_only()
    }

    fn free_bytes(&self) -> io::Result<u64> {
        Ok(0)
    }
}

#[cfg(test)]
mod tests;
