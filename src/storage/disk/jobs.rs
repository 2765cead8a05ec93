//! What is done beside the writer, since it may take long: syncs that nobody waits for, making and removing files, reading messages back.
//!
//! The engine gives jobs away and is told of their end as an input, so a simulation can do them in any order.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use super::block::{FileHeader, FileName, StoreId};
use super::files::{Files, StoreFile};
use super::index::{Index, Part};
use super::log::{LogSync, Segment};
use super::recover::Recovered;
use super::snapshot::temporary;
use super::walk::{Step, Walk};
use crate::protocol::ids::{MessageNumber, SlotKey, WorkerId};
use crate::protocol::message::Message;
use crate::storage::image::to_message;
use crate::storage::record::{self, Deliveries, MessageRecord, Record};
use crate::storage::{SnapshotId, StoreEvents};

/// Where damaged files go.
pub(super) const QUARANTINE: &str = "quarantine";
/// Bytes that are copied into a snapshot at once.
const COPY_BYTES: usize = 256 * 1024;
/// Messages looked for at once at the start.
const READ_AT_ONCE: usize = 4096;
/// Bytes read at once when messages are looked for.
const WINDOW_BYTES: u64 = 128 * 1024;

/// Something to be done. Jobs of one [`Lane`] are done in order.
#[derive(Debug)]
pub enum Job {
    /// Bring the log to the device. The number is told back.
    SyncLog(u64, LogSync),
    /// Make a segment for later.
    Prepare(FileHeader),
    /// Bring a part of a snapshot to the device.
    SyncSnapshot(SnapshotId, Arc<dyn StoreFile>),
    /// Give a snapshot its name.
    Publish(SnapshotId),
    /// Remove files that nothing needs any more, and put damaged ones aside.
    Tidy {
        /// To be removed, in this order.
        remove: Vec<String>,
        /// To be moved.
        quarantine: Vec<String>,
    },
    /// Read messages for a session.
    Load {
        /// Its worker.
        to: WorkerId,
        /// Which.
        session: SlotKey,
        /// Which messages.
        messages: Vec<MessageNumber>,
    },
    /// Read messages for a snapshot.
    Copy(SnapshotId, Vec<MessageNumber>),
}

/// Jobs of one lane are done one after the other, and by another thread than those of another lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// Syncs of the log.
    Log,
    /// Everything with files that takes long.
    Files,
    /// Reading.
    Read,
}

/// How a job ended.
#[derive(Debug)]
pub enum Done {
    /// [`Job::SyncLog`]: up to which block the log is on the device.
    LogSynced(u64, io::Result<u64>),
    /// [`Job::Prepare`].
    Prepared(io::Result<Segment>),
    /// [`Job::SyncSnapshot`].
    SnapshotSynced(SnapshotId, io::Result<()>),
    /// [`Job::Publish`].
    Published(SnapshotId, io::Result<()>),
    /// [`Job::Tidy`], with what went wrong.
    Tidied(Vec<(String, io::Error)>),
    /// [`Job::Copy`].
    Copied {
        /// For which snapshot.
        snapshot: SnapshotId,
        /// Records.
        bytes: Vec<u8>,
        /// Messages that are still to be copied.
        rest: Vec<MessageNumber>,
        /// Messages that were not found.
        missing: usize,
    },
}

/// Who does jobs.
pub trait Jobs: Send {
    /// Takes one. Its end is told as `Input::Done`.
    fn give(&mut self, job: Job);
}

/// What jobs are done with.
#[derive(Clone)]
pub struct Tools {
    pub(super) files: Arc<dyn Files>,
    pub(super) index: Arc<Mutex<Index>>,
    pub(super) store: StoreId,
    pub(super) events: Arc<dyn StoreEvents>,
}

/// Where messages are read from.
#[derive(Clone, Copy)]
struct Source<'a> {
    files: &'a dyn Files,
    index: &'a Mutex<Index>,
    store: StoreId,
}

impl Recovered {
    /// Reads messages before a store goes on from here, in the order in which they are wanted; `None` for one that cannot be read.
    pub fn read(&mut self, files: &dyn Files, wanted: &[MessageNumber]) -> Vec<(MessageNumber, Option<Arc<Message>>)> {
        let Some(store) = self.store else {
            return Vec::new();
        };
        let index = Mutex::new(std::mem::take(&mut self.index));
        let source = Source {
            files,
            index: &index,
            store,
        };
        let messages = wanted
            .chunks(READ_AT_ONCE)
            .flat_map(|wanted| read_all(source, wanted))
            .collect();
        self.index = index.into_inner().unwrap_or_else(PoisonError::into_inner);
        messages
    }
}

impl Tools {
    fn source(&self) -> Source<'_> {
        Source {
            files: &*self.files,
            index: &self.index,
            store: self.store,
        }
    }
}

impl Job {
    /// Who is to do it.
    pub const fn lane(&self) -> Lane {
        match self {
            Self::SyncLog(..) => Lane::Log,
            Self::Prepare(_) | Self::SyncSnapshot(..) | Self::Publish(_) | Self::Tidy { .. } => Lane::Files,
            Self::Load { .. } | Self::Copy(..) => Lane::Read,
        }
    }

    /// Does it. [`Job::Load`] tells its end to the broker, not to the store.
    pub fn run(self, tools: &Tools) -> Option<Done> {
        let files = &*tools.files;
        Some(match self {
            Self::SyncLog(number, sync) => Done::LogSynced(number, sync.run()),
            Self::Prepare(header) => Done::Prepared(Segment::create(files, header)),
            Self::SyncSnapshot(id, file) => Done::SnapshotSynced(id, file.sync()),
            Self::Publish(id) => Done::Published(id, publish(files, id)),
            Self::Tidy { remove, quarantine } => Done::Tidied(tidy(files, &remove, &quarantine)),
            Self::Load { to, session, messages } => {
                load(tools, to, session, &messages);
                return None;
            }
            Self::Copy(id, wanted) => copy(tools, id, wanted),
        })
    }
}

fn publish(files: &dyn Files, id: SnapshotId) -> io::Result<()> {
    files.rename(&temporary(id), &FileName::snapshot(id).text())?;
    files.sync_directory("")
}

fn tidy(files: &dyn Files, remove: &[String], quarantine: &[String]) -> Vec<(String, io::Error)> {
    let mut errors = Vec::new();
    let mut note = |name: &str, result: io::Result<()>| match result {
        Err(error) if error.kind() != io::ErrorKind::NotFound => errors.push((name.to_owned(), error)),
        _ => {}
    };
    for name in remove {
        note(name, files.remove(name));
    }
    if !quarantine.is_empty() {
        note(QUARANTINE, files.create_folder(QUARANTINE));
    }
    for name in quarantine {
        note(name, files.rename(name, &format!("{QUARANTINE}/{name}")));
    }
    if !quarantine.is_empty() {
        note(QUARANTINE, files.sync_directory(QUARANTINE));
    }
    note("", files.sync_directory(""));
    errors
}

fn load(tools: &Tools, to: WorkerId, session: SlotKey, wanted: &[MessageNumber]) {
    tools.events.loaded(to, session, read_all(tools.source(), wanted));
}

/// Reads messages, in the order in which they are wanted; `None` for one that cannot be read.
fn read_all(source: Source<'_>, wanted: &[MessageNumber]) -> Vec<(MessageNumber, Option<Arc<Message>>)> {
    let mut found = std::collections::HashMap::with_capacity(wanted.len());
    read_messages(source, wanted.to_vec(), &mut |number, message| {
        found.insert(
            number,
            Arc::new(to_message(&message.content, Some(number), message.expires_at)),
        );
        true
    });
    wanted
        .iter()
        .map(|number| (*number, found.get(number).cloned()))
        .collect()
}

fn copy(tools: &Tools, snapshot: SnapshotId, wanted: Vec<MessageNumber>) -> Done {
    let mut bytes = Vec::new();
    let (rest, is_all) = read_messages(tools.source(), wanted, &mut |_, message| {
        // What it says is copied. Who is still to get it, and whether it is still retained, is told by others; what the record says of that is old.
        Record::Message(MessageRecord {
            retained: None,
            received: None,
            deliveries: Deliveries::default(),
            ..message
        })
        .encode(&mut bytes);
        bytes.len() < COPY_BYTES
    });
    let missing = if is_all { rest.len() } else { 0 };
    Done::Copied {
        snapshot,
        bytes,
        rest: if is_all { Vec::new() } else { rest },
        missing,
    }
}

/// Gives out each wanted message once, until the taker has enough. Says which it has not found, and whether it has looked everywhere.
fn read_messages(
    source: Source<'_>,
    mut wanted: Vec<MessageNumber>,
    take: &mut dyn FnMut(MessageNumber, MessageRecord<'_>) -> bool,
) -> (Vec<MessageNumber>, bool) {
    /// A snapshot may take the place of the files while they are looked for.
    const TRIES: usize = 3;
    wanted.sort_unstable();
    wanted.dedup();
    for _ in 0..TRIES {
        let parts = source
            .index
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .find(&wanted);
        let mut open: Option<(FileName, Arc<dyn StoreFile>, u64)> = None;
        let mut is_gone = false;
        for part in parts {
            if open.as_ref().is_none_or(|open| open.0 != part.file) {
                open = open_file(source.files, part.file);
                is_gone |= open.is_none();
            }
            let Some((_, file, length)) = &open else {
                continue;
            };
            if !read_part(source.store, &**file, *length, part, &mut wanted, take) {
                return (wanted, false);
            }
            if wanted.is_empty() {
                return (wanted, true);
            }
        }
        if !is_gone {
            break;
        }
    }
    (wanted, true)
}

fn open_file(files: &dyn Files, name: FileName) -> Option<(FileName, Arc<dyn StoreFile>, u64)> {
    let file = files.open(&name.text()).ok()?;
    let length = file.length().ok()?;
    Some((name, file, length))
}

/// False when the taker has enough.
fn read_part(
    store: StoreId,
    file: &dyn StoreFile,
    length: u64,
    part: Part,
    wanted: &mut Vec<MessageNumber>,
    take: &mut dyn FnMut(MessageNumber, MessageRecord<'_>) -> bool,
) -> bool {
    let header = FileHeader {
        name: part.file,
        store,
        created: 0,
    };
    let mut walk = Walk::new(file, header.salt(), length, part.from).with_window(WINDOW_BYTES);
    let mut wants_more = true;
    while wants_more && walk.offset() < part.to && !wanted.is_empty() {
        let body = match walk.next() {
            Step::Block { body, .. } => body,
            Step::Bad { .. } => continue,
            Step::End => break,
        };
        for record in record::records(body) {
            let Some(at) = record::message_number(record).and_then(|number| wanted.binary_search(&number).ok()) else {
                continue;
            };
            if let Ok(Record::Message(message)) = Record::decode(record) {
                wants_more &= take(wanted.remove(at), message);
            }
        }
    }
    wants_more
}
