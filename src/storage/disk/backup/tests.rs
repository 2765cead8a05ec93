//! Stories of backups of more than memory is to have.

use super::*;
use crate::protocol::ids::SessionNumber;
use crate::protocol::message::Publication;
use crate::protocol::property::Properties;
use crate::protocol::qos::QoS;
use crate::protocol::topic::TopicName;
use crate::storage::disk::{DiskOptions, DiskStore};
use crate::storage::record::{Deliveries, DeliveryRecord, Progress, SessionRecord};
use crate::storage::{Batch, RetainedCursor, RetainedPart, SnapshotId, Store, StoreEvents};

const MESSAGES: u64 = 100;
const NONE: ImageOptions = ImageOptions { memory_bytes_max: 0 };
const ALL: ImageOptions = ImageOptions {
    memory_bytes_max: usize::MAX,
};

struct Nobody;

impl StoreEvents for Nobody {
    fn stored(&self, _worker: WorkerId, _up_to: u64) {}

    fn failed(&self, _worker: WorkerId, _up_to: u64) {}

    fn snapshot(&self, _worker: WorkerId, _snapshot: SnapshotId) {}

    fn snapshot_more(&self, _worker: WorkerId, _snapshot: SnapshotId) {}

    fn snapshot_retained(&self, _cursor: &mut RetainedCursor, _out: &mut Vec<u8>) -> RetainedPart {
        RetainedPart::Last
    }

    fn loaded(
        &self,
        _worker: WorkerId,
        _session: crate::protocol::ids::SlotKey,
        _messages: Vec<(MessageNumber, Option<Arc<Message>>)>,
    ) {
    }
}

/// A store with a queue of numbers.
fn fill(directory: &Path) {
    let mut image = Image::new(ALL);
    let options = DiskOptions::default();
    let (store, _) = DiskStore::open(directory, options, RecoverMode::Repair, &mut Applied(&mut image)).unwrap();
    store.attach(Arc::new(Nobody));
    let session = SessionNumber::new(1).unwrap();
    let mut batch = Batch {
        number: 1,
        messages: MessageNumber::new(1).zip(MessageNumber::new(MESSAGES)),
        records: MESSAGES as u32 + 1,
        ..Batch::default()
    };
    Record::Session(SessionRecord {
        session,
        tenant: "",
        client_id: "c",
        expiry_secs: 1000,
        expires_at: Time::NEVER,
    })
    .encode(&mut batch.bytes);
    let mut deliveries = Vec::new();
    DeliveryRecord {
        session,
        copy: 0,
        progress: Progress::Queued,
        qos: QoS::AtLeastOnce,
        retain: false,
        identifiers: Default::default(),
        group: None,
    }
    .encode(&mut deliveries);
    for number in 1..=MESSAGES {
        let payload = number.to_string();
        let message = Publication {
            topic: TopicName::parse("t").unwrap(),
            payload: payload.as_bytes(),
            qos: QoS::AtLeastOnce,
            retain: false,
            properties: Properties::EMPTY,
            expires_at: None,
            publisher: None,
            source: None,
        };
        let message = MessageRecord::of(MessageNumber::new(number).unwrap(), &message);
        Record::Message(MessageRecord {
            deliveries: Deliveries(&deliveries),
            ..message
        })
        .encode(&mut batch.bytes);
    }
    store.submit(WorkerId(0), batch);
}

/// The payloads of what waits in a directory or a backup.
fn queue(path: &Path) -> Vec<u64> {
    let (_, restored) = Source::open(path).unwrap().restore(ALL).unwrap();
    assert!(restored.report.lost.is_empty());
    let payload = |message: &Arc<Message>| std::str::from_utf8(message.payload()).unwrap().parse().unwrap();
    let queued = restored.sessions[0].queued.iter();
    queued
        .map(|delivery| payload(delivery.content.as_ref().unwrap()))
        .collect()
}

#[test]
fn a_copy_of_more_than_memory_is_to_have_is_whole() {
    let scratch = tempfile::tempdir().unwrap();
    let (data, copy) = (scratch.path().join("data"), scratch.path().join("copy"));
    fill(&data);
    for (name, options) in [("some", NONE), ("all", ALL)] {
        let backup = scratch.path().join(name);
        export(&Source::open(&data).unwrap(), &backup, options).unwrap();
        assert_eq!(queue(&backup), (1..=MESSAGES).collect::<Vec<_>>(), "{name}");
    }
    import(&scratch.path().join("some"), &copy, NONE).unwrap();
    assert_eq!(queue(&copy), (1..=MESSAGES).collect::<Vec<_>>());
}

#[test]
fn what_a_broker_removes_while_it_is_copied_is_read_all_the_same() {
    let scratch = tempfile::tempdir().unwrap();
    fill(scratch.path());
    let source = Source::open(scratch.path()).unwrap();
    let (mut recovered, _) = source.restore(NONE).unwrap();
    for name in source.files().unwrap() {
        fs::remove_file(scratch.path().join(name)).unwrap();
    }
    let read = recovered.read(&source.files, &[MessageNumber::new(7).unwrap()]);
    assert_eq!(read[0].1.as_ref().unwrap().payload(), b"7");
}
