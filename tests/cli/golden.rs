//! Data directories of every form that was ever released, whole and damaged: `tests/golden/README.md` says how they were made.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use sundew::broker::Parts;
use sundew::protocol::ids::{MessageNumber, PacketId, SessionNumber, SlotKey, WorkerId};
use sundew::protocol::message::Message;
use sundew::protocol::packet::SubscriptionOptions;
use sundew::protocol::property::{PropertiesBuf, PropertyId};
use sundew::protocol::qos::QoS;
use sundew::protocol::source::Source;
use sundew::protocol::time::Time;
use sundew::protocol::topic::TopicName;
use sundew::storage::disk::{DiskOptions, DiskStore, StorageOptions, offline, recover, start};
use sundew::storage::image::ImageOptions;
use sundew::storage::record::{
    Content, Deliveries, DeliveryRecord, MessageRecord, Progress, Record, SessionRecord, SubscriptionRecord, WillRecord,
};
use sundew::storage::{Batch, RetainedCursor, RetainedPart, SnapshotId, Store, StoreEvents};

use super::store::{copy_directory, lines, store};
use super::*;

/// The forms that there have been; the last is the one that is written.
const FORMS: std::ops::RangeInclusive<u8> = 1..=FORM;
const FORM: u8 = 2;

/// What has happened to each directory of a form.
const DIRECTORIES: &[&str] = &["whole", "torn", "corrupt", "zero", "missing", "snapshot", "closed"];

fn golden_of(form: u8, name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    folder.join(form.to_string()).join(name)
}

/// A directory of the form that is written.
fn golden(name: &str) -> PathBuf {
    golden_of(FORM, name)
}

/// Every directory of every form.
fn all() -> impl Iterator<Item = (u8, &'static str)> {
    FORMS.flat_map(|form| DIRECTORIES.iter().map(move |name| (form, *name)))
}

/// What the commands say of a directory: what is in it, and whether it is sound.
fn said(directory: &Path) -> String {
    let directory = directory.to_str().unwrap();
    let (_, state, _) = store(&["inspect", "-d", directory]);
    let (code, verdict, _) = store(&["verify", "-d", directory]);
    let verdict = verdict.replace(directory, "directory");
    format!("{state}{verdict}exit code {code}\n")
}

#[test]
fn every_form_is_still_read_whole_and_damaged() {
    for (form, name) in all() {
        let expected = fs::read_to_string(golden_of(form, &format!("{name}.txt"))).unwrap();
        assert!(said(&golden_of(form, name)) == expected, "{form} {name}");
    }
}

#[test]
fn a_broker_starts_with_what_can_be_read_of_every_form() {
    for (form, name) in all() {
        let folder = tempfile::tempdir().unwrap();
        let copy = folder.path().join("data");
        let directory = golden_of(form, name);
        copy_directory(&directory, &copy);
        let printed = |what| store(&["inspect", "-d", directory.to_str().unwrap(), "--what", what]).1;
        let mut parts = Parts::default();
        start::open(Some(StorageOptions::in_directory(&copy)), 1, &mut parts).unwrap();
        let report = &parts.restored.report;
        assert_eq!(report.retained, printed("retained").lines().count(), "{name}");
        assert_eq!(
            report.in_flight + report.queued,
            printed("queues").lines().count(),
            "{name}"
        );
        let is_damaged = !matches!(name, "whole" | "torn" | "closed");
        assert_eq!(!report.lost.is_empty(), is_damaged, "{name}");
    }
}

#[test]
fn a_directory_of_a_newer_form_is_refused_and_nothing_in_it_is_touched() {
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("data");
    copy_directory(&golden("whole"), &copy);
    let mut names: Vec<_> = fs::read_dir(&copy)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    names.sort();
    let newest = names
        .iter()
        .rfind(|path| path.extension().is_some_and(|end| end == "log"))
        .unwrap();
    let mut bytes = fs::read(newest).unwrap();
    for header in bytes[..128].chunks_mut(64) {
        header[8] = FORM + 1;
        let crc = crc32c::crc32c(&header[..60]);
        header[60..].copy_from_slice(&crc.to_le_bytes());
    }
    fs::write(newest, &bytes).unwrap();
    let newer = format!("form {}", FORM + 1);
    let said = |action: &str| store(&[action, "-d", copy.to_str().unwrap()]);
    for action in ["inspect", "verify", "compact"] {
        let (code, _, error) = said(action);
        let name = newest.file_name().unwrap().to_str().unwrap();
        assert!(
            code == 1 && error.contains(name) && error.contains(&newer),
            "{action}: {error}"
        );
    }
    let refused = start::open(Some(StorageOptions::in_directory(&copy)), 1, &mut Parts::default());
    assert!(refused.unwrap_err().to_string().contains(&newer));
    assert_eq!(fs::read(newest).unwrap(), bytes);
}

#[test]
fn a_compaction_keeps_what_can_be_read_and_puts_the_rest_aside() {
    for (form, name) in all() {
        let folder = tempfile::tempdir().unwrap();
        let copy = folder.path().join("data");
        copy_directory(&golden_of(form, name), &copy);
        let text = copy.to_str().unwrap();
        // The moment at which something expires may move by a millisecond: the two clocks are not read in one instant.
        let state = |what| {
            let mut state = lines(&store(&["inspect", "-d", text, "--what", what]).1);
            for line in &mut state {
                line.as_object_mut().unwrap().remove("expires_at");
            }
            state
        };
        let before = (state("retained"), state("queues"));
        let (code, told, error) = store(&["compact", "-d", text]);
        assert_eq!(code, 0, "{name}: {told}{error}");
        assert!((state("retained"), state("queues")) == before, "{name}");
        let (code, verdict, _) = store(&["verify", "-d", text]);
        assert_eq!(code, 0, "{name}: {verdict}");
        let aside = fs::read_dir(copy.join("quarantine")).map_or(0, Iterator::count);
        let expected = usize::from(matches!(name, "corrupt" | "zero" | "snapshot"));
        assert!(aside >= expected, "{name}: {aside} files");
    }
}

/// Writes what is said of each directory; and the directories, if they are not there: that is for a new form, in a folder of its own.
/// `cargo test --test cli golden -- --ignored`
#[test]
#[ignore = "writes tests/golden"]
fn write_what_is_said() {
    if !golden("whole").exists() {
        write_directories();
    }
    for name in DIRECTORIES {
        fs::write(golden(&format!("{name}.txt")), said(&golden(name))).unwrap();
    }
}

fn write_directories() {
    let whole = golden("whole");
    fs::create_dir_all(golden("")).unwrap();
    write(&whole, &[accounts(), messages(1..=40)]);
    let compacted = offline::compact(&whole, ImageOptions::default(), std::time::Duration::from_secs(60)).unwrap();
    assert!(compacted.is_written);
    write(&whole, &[messages(41..=60), acknowledgements()]);
    write(&whole, &[messages(61..=70), messages(71..=80)]);
    write(&whole, &[messages(81..=84), messages(85..=86)]);
    fs::remove_file(whole.join("lock")).unwrap();
    let mut names: Vec<_> = fs::read_dir(&whole)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    names.sort();
    let segments: Vec<_> = names
        .iter()
        .filter(|name| name.to_str().unwrap().ends_with(".log"))
        .collect();
    let snapshot = names
        .iter()
        .find(|name| name.to_str().unwrap().ends_with(".snap"))
        .unwrap();
    let (first, last) = (segments[0], segments[segments.len() - 1]);
    let damaged = |name: &str, file: &std::ffi::OsStr, change: &dyn Fn(&mut Vec<u8>)| {
        copy_directory(&whole, &golden(name));
        let path = golden(name).join(file);
        let mut bytes = fs::read(&path).unwrap();
        change(&mut bytes);
        fs::write(&path, bytes).unwrap();
    };
    // The last block has no end: the one that tells that the store was closed goes with it.
    damaged("torn", last, &|bytes| bytes.truncate(bytes.len() - 56 - 10));
    damaged("corrupt", first, &|bytes| bytes[300] ^= 0x10);
    damaged("zero", first, &|bytes| bytes.fill(0));
    damaged("snapshot", snapshot, &|bytes| bytes[400] ^= 0x10);
    copy_directory(&whole, &golden("missing"));
    fs::remove_file(golden("missing").join(first)).unwrap();
    copy_directory(&whole, &golden("closed"));
    offline::compact(
        &golden("closed"),
        ImageOptions::default(),
        std::time::Duration::from_secs(60),
    )
    .unwrap();
    fs::remove_file(golden("closed").join("lock")).unwrap();
}

/// Opens a store, submits batches, and closes it without a snapshot.
fn write(directory: &Path, batches: &[Vec<u8>]) {
    let mode = recover::RecoverMode::RefuseDamage;
    let (disk, _) = DiskStore::open(directory, DiskOptions::default(), mode, &mut Nobody).unwrap();
    disk.attach(Arc::new(Nobody));
    for (bytes, number) in batches.iter().zip(1..) {
        disk.submit(
            WorkerId(0),
            Batch {
                number,
                bytes: bytes.clone(),
                records: 0,
                messages: None,
            },
        );
        // Each batch a block of its own.
        while disk.status().batches.load(std::sync::atomic::Ordering::Relaxed) < number {
            std::thread::yield_now();
        }
    }
}

fn session(number: u64) -> SessionNumber {
    SessionNumber::new(number).unwrap()
}

fn id(value: u16) -> PacketId {
    PacketId::new(value).unwrap()
}

/// Ann, who is away; Bob, who is connected and has a will; Cid, who is gone.
fn accounts() -> Vec<u8> {
    let mut out = Vec::new();
    for (number, client_id, expiry_secs, expires_at) in [
        (1, "ann", 3600, Time(4_000_000_000_000)),
        (2, "bob ü", u32::MAX, Time::NEVER),
        (3, "cid", 60, Time::NEVER),
    ] {
        Record::Session(SessionRecord {
            session: session(number),
            tenant: "",
            client_id,
            expiry_secs,
            expires_at,
        })
        .encode(&mut out);
        for (filter, qos, identifier) in [
            ("home/#", QoS::AtLeastOnce, None),
            ("$share/g/+/x", QoS::ExactlyOnce, Some(7)),
        ] {
            Record::Subscription(SubscriptionRecord {
                session: session(number),
                filter,
                options: SubscriptionOptions {
                    qos,
                    ..SubscriptionOptions::default()
                },
                identifier,
                wants_retained: false,
            })
            .encode(&mut out);
        }
    }
    Record::SubscriptionEnded(session(2), "home/#").encode(&mut out);
    Record::SessionEnded(session(3)).encode(&mut out);
    Record::Received(session(2), id(9)).encode(&mut out);
    Record::Received(session(2), id(10)).encode(&mut out);
    Record::ReceivedEnded(session(2), id(9)).encode(&mut out);
    Record::Will(WillRecord {
        session: session(2),
        due: Time::NEVER,
        delay_secs: 5,
        expiry_secs: Some(60),
        content: Content {
            topic: TopicName::parse("will/bob").unwrap(),
            properties: PropertiesBuf::new().view(),
            payload: b"gone",
            qos: QoS::AtLeastOnce,
            retain: true,
            source: Some(anna()),
        },
    })
    .encode(&mut out);
    out
}

/// A user of a list.
fn anna() -> Source<'static> {
    Source {
        user_name: Some("anna"),
        is_listed: true,
        has_grants: false,
        client_id: "panel",
        listener: "tcp:1883",
        ip: Some([192, 168, 1, 7].into()),
    }
}

/// Of what is retained, every second one is of Anna, others of an anonymous client, and of some it is not known.
fn source_of(number: u64) -> Option<Source<'static>> {
    match number % 20 {
        0 | 10 => Some(anna()),
        5 => Some(Source {
            user_name: None,
            is_listed: false,
            has_grants: false,
            client_id: "sensor ü",
            listener: "tls",
            ip: Some([0xFD00, 0, 0, 0, 0, 0, 0, 1].into()),
        }),
        _ => None,
    }
}

/// Messages to Ann, every third one to Bob too, every fifth one retained, every tenth one with properties and bytes that are no text.
fn messages(numbers: std::ops::RangeInclusive<u64>) -> Vec<u8> {
    let mut out = Vec::new();
    for number in numbers {
        let mut properties = PropertiesBuf::new();
        let mut payload = format!("message {number}").into_bytes();
        if number % 10 == 0 {
            properties.push_text(PropertyId::ContentType, "text/plain");
            properties.push_user_property("a", "ü");
            payload.push(0xFF);
        }
        let mut deliveries = Vec::new();
        for to in [Some(1), (number % 3 == 0).then_some(2)].into_iter().flatten() {
            DeliveryRecord {
                session: session(to),
                copy: 0,
                progress: Progress::Queued,
                qos: QoS::ExactlyOnce,
                retain: false,
                identifiers: if to == 2 {
                    [7].into_iter().collect()
                } else {
                    Default::default()
                },
                group: (to == 2).then_some(("g", "+/x")),
            }
            .encode(&mut deliveries);
        }
        Record::Message(MessageRecord {
            number: MessageNumber::new(number).unwrap(),
            expires_at: if number % 7 == 0 {
                Time(5_000_000_000_000)
            } else {
                Time::NEVER
            },
            retained: (number % 5 == 0).then_some(number),
            received: (number == 6).then_some((session(2), id(60))),
            content: Content {
                topic: TopicName::parse(&format!("home/{}", number % 20)).unwrap(),
                properties: properties.view(),
                payload: &payload,
                qos: QoS::ExactlyOnce,
                retain: number % 5 == 0,
                source: source_of(number),
            },
            deliveries: Deliveries(&deliveries),
        })
        .encode(&mut out);
    }
    out
}

/// Ann has had most of them, and is in the middle of two; one retained message is cleared.
fn acknowledgements() -> Vec<u8> {
    let mut out = Vec::new();
    let ann = |progress| DeliveryRecord {
        session: session(1),
        copy: 0,
        progress,
        qos: QoS::ExactlyOnce,
        retain: false,
        identifiers: Default::default(),
        group: None,
    };
    let number = |number| MessageNumber::new(number).unwrap();
    for done in 1..=50 {
        Record::DeliveryEnded(number(done), session(1), 0).encode(&mut out);
    }
    Record::Delivery(number(51), ann(Progress::Sent(id(1)))).encode(&mut out);
    Record::Delivery(number(52), ann(Progress::Sent(id(2)))).encode(&mut out);
    Record::Delivery(number(51), ann(Progress::Released(id(1)))).encode(&mut out);
    Record::Message(MessageRecord {
        number: number(1000),
        expires_at: Time::NEVER,
        retained: Some(1000),
        received: None,
        content: Content {
            topic: TopicName::parse("home/5").unwrap(),
            properties: PropertiesBuf::new().view(),
            payload: b"",
            qos: QoS::AtLeastOnce,
            retain: true,
            source: Some(anna()),
        },
        deliveries: Deliveries::default(),
    })
    .encode(&mut out);
    out
}

/// Hears nothing and has nothing to tell.
#[derive(Debug)]
struct Nobody;

impl recover::Visitor for Nobody {
    fn record(&mut self, _record: &[u8], _place: &recover::Place<'_>) {}

    fn gap(&mut self, _gap: &recover::Gap) {}
}

impl StoreEvents for Nobody {
    fn stored(&self, _worker: WorkerId, _up_to: u64) {}

    fn failed(&self, _worker: WorkerId, _up_to: u64) {}

    fn snapshot(&self, _worker: WorkerId, _snapshot: SnapshotId) {}

    fn snapshot_more(&self, _worker: WorkerId, _snapshot: SnapshotId) {}

    fn snapshot_retained(&self, _cursor: &mut RetainedCursor, _out: &mut Vec<u8>) -> RetainedPart {
        RetainedPart::Last
    }

    fn loaded(&self, _worker: WorkerId, _session: SlotKey, _messages: Vec<(MessageNumber, Option<Arc<Message>>)>) {}
}
