//! A worker's part in a snapshot: it records every session that lives on it as it is, some at a time, while it works on.
//!
//! The store begins (`StoreMail::Snapshot`) when it has begun a new segment of its log. What a worker wrote to another before is in the
//! old segments, and the effect must be in the snapshot; so each first writes a fence to every other, and none begins before it has
//! the fences of all. Then a part goes to the store whenever it wants one: no client waits for more than one part, and the memory of
//! a snapshot is that of a part.
//!
//! A long queue takes several parts. What is sent to the client between two of them leaves the queue unseen, so each part of a session
//! begins with what has come in flight since the one before; the contents of messages stand in a worker's snapshot about once.

use hashbrown::HashSet;

use super::mail::Mail;
use super::storing::encode_session;
use super::worker::Worker;
use crate::delivery::outbox::Entry;
use crate::delivery::residents::Resident;
use crate::delivery::stored;
use crate::protocol::ids::{SlotKey, WorkerId};
use crate::protocol::message::Message;
use crate::session::delivery::DeliveryKey;
use crate::session::outbound::InFlight;
use crate::session::will::Will;
use crate::storage::record::{MessageRecord, Progress};
use crate::storage::{Record, SnapshotId, SnapshotPart};

/// Bytes of a part, from where on it is sent.
const PART_BYTES: usize = 64 * 1024;
/// Messages of a part that are in the store only, which has to copy them.
const STORED_PER_PART: usize = 4096;
/// Places of the table looked at for a part.
const PLACES_PER_PART: usize = 8192;

/// Where a worker is with a snapshot.
#[derive(Debug, Default)]
pub(super) struct Snapshot {
    running: Option<Running>,
    /// Fences that came before the store's own word.
    early: Option<(SnapshotId, usize)>,
}

#[derive(Debug)]
struct Running {
    id: SnapshotId,
    /// Workers whose fence has not come.
    missing: usize,
    /// The place of the session that is next.
    place: usize,
    /// How far that session has been told, if it has been begun.
    cursor: Option<Cursor>,
}

/// How far a session that takes several parts has been told.
#[derive(Debug)]
struct Cursor {
    /// Which: another one may take its place meanwhile.
    key: SlotKey,
    /// Deliveries in flight that were told; what has ended of them since, the log tells.
    told: HashSet<DeliveryKey, foldhash::fast::RandomState>,
    /// The place in the queue that is next.
    queue_from: u64,
}

impl Worker {
    /// The store begins a snapshot.
    pub(super) fn begin_snapshot(&mut self, id: SnapshotId) {
        let workers = self.broker.mailboxes.workers();
        for to in (0..workers as u16).map(WorkerId).filter(|to| *to != self.me) {
            self.outgoing[to.index()].letters.push(Mail::Fence(id));
            self.has_mail = true;
        }
        let early = self.snapshot.early.take().filter(|(early, _)| *early == id);
        self.snapshot.running = Some(Running {
            id,
            missing: workers - 1 - early.map_or(0, |(_, count)| count),
            place: 0,
            cursor: None,
        });
        self.continue_snapshot(id);
    }

    /// Everything that another worker had written before the snapshot has come.
    pub(super) fn fence_came(&mut self, id: SnapshotId) {
        match &mut self.snapshot.running {
            Some(running) if running.id == id => {
                running.missing = running.missing.saturating_sub(1);
                self.continue_snapshot(id);
            }
            _ => {
                let count = self.snapshot.early.filter(|(early, _)| *early == id);
                self.snapshot.early = Some((id, count.map_or(0, |(_, count)| count) + 1));
            }
        }
    }

    /// Records the next part.
    pub(super) fn continue_snapshot(&mut self, id: SnapshotId) {
        let may_begin = |running: &Running| running.id == id && running.missing == 0;
        if !self.snapshot.running.as_ref().is_some_and(may_begin) {
            return;
        }
        // What the part shows has been recorded before: the store gets it first.
        self.submit_records();
        let Some(running) = &mut self.snapshot.running else {
            return;
        };
        let mut part = SnapshotPart {
            bytes: Vec::with_capacity(PART_BYTES + PART_BYTES / 4),
            ..SnapshotPart::default()
        };
        let marker = Marker {
            // A worker's own: another may have put a message into a part that comes after this one.
            mark: (id << 16) | (u64::from(self.me.0) + 1),
        };
        let last_place = running.place + PLACES_PER_PART;
        let places = self.residents.sessions.places();
        while running.place < places && running.place < last_place && !is_full(&part) {
            let Some((key, resident)) = self.residents.sessions.at(running.place) else {
                running.place += 1;
                continue;
            };
            let cursor = running.cursor.take().filter(|cursor| cursor.key == key);
            let connection = resident
                .connection
                .and_then(|key| self.residents.connections.get(key.0));
            let will = connection.and_then(|connection| connection.will.as_ref());
            running.cursor = marker.encode(key, resident, will, cursor, &mut part);
            running.place += usize::from(running.cursor.is_none());
        }
        part.is_last = running.place >= places;
        if part.is_last {
            part.stored_messages
                .extend(self.legacies.values().flatten().map(|delivery| delivery.message));
        }
        if part.is_last {
            self.snapshot.running = None;
        }
        self.broker.store.submit_snapshot(self.me, id, part);
    }
}

/// True when a part is to be sent.
const fn is_full(part: &SnapshotPart) -> bool {
    part.bytes.len() >= PART_BYTES || part.stored_messages.len() >= STORED_PER_PART
}

struct Marker {
    mark: u64,
}

impl Marker {
    /// Records a session from where its cursor stands; returns from where it is to be gone on with, if it is.
    fn encode(
        &self,
        key: SlotKey,
        resident: &Resident,
        will: Option<&Will>,
        cursor: Option<Cursor>,
        part: &mut SnapshotPart,
    ) -> Option<Cursor> {
        let session = &resident.session;
        let mut cursor = cursor.unwrap_or_else(|| {
            encode_session(resident, will, &mut part.bytes);
            Cursor {
                key,
                told: HashSet::default(),
                queue_from: 0,
            }
        });
        let number = session.stored_number();
        if number.is_none() && !resident.outbox.has_stored() {
            return None;
        }
        for (id, in_flight) in session.outbound.kept() {
            let Some(number) = number else { break };
            if is_full(part) {
                return Some(cursor);
            }
            let out = &mut part.bytes;
            match in_flight {
                InFlight::Published(delivery) => {
                    let record = stored::record(session, delivery, Progress::Sent(id));
                    if let (Some(record), Some(known)) = (record, delivery.key())
                        && cursor.told.insert(known)
                    {
                        self.content(&delivery.message, out);
                        Record::Delivery(known.0, record).encode(out);
                    }
                }
                InFlight::Released(known) if cursor.told.insert(known) => {
                    let (message, copy) = known;
                    Record::Delivery(message, stored::released_record(number, copy, id)).encode(out);
                }
                InFlight::Released(_) => {}
            }
        }
        for (place, entry) in resident.outbox.waiting_from(cursor.queue_from) {
            if is_full(part) {
                cursor.queue_from = place;
                return Some(cursor);
            }
            let SnapshotPart {
                bytes: out,
                stored_messages,
                ..
            } = &mut *part;
            match entry {
                // To be read for a client that is still connected, even where its session is not to survive.
                Entry::Stored(stored) => stored_messages.push(stored.message),
                Entry::Memory(delivery) if number.is_some() => self.content(&delivery.message, out),
                Entry::Memory(_) => {}
            }
            if let (Some(number), Some((message, _))) = (number, entry.key()) {
                Record::Delivery(message, entry.record(number)).encode(out);
            }
        }
        None
    }

    fn content(&self, message: &Message, out: &mut Vec<u8>) {
        if let Some(number) = message.number.filter(|_| message.mark(self.mark)) {
            let view = message.view();
            Record::Message(MessageRecord::of(number, &view)).encode(out);
        }
    }
}
