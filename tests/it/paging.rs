//! Queues longer than their memory: what waits is on disk, and comes back in order.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sundew::broker::Parts;
use sundew::metrics::Totals;
use sundew::protocol::ids::{MessageNumber, SlotKey, WorkerId};
use sundew::protocol::version::Version;
use sundew::server::ServerOptions;
use sundew::storage::disk::recover::{Gap, Place, RecoverMode, Visitor};
use sundew::storage::disk::{DiskOptions, DiskStore, StorageOptions};
use sundew::storage::{Batch, SnapshotId, SnapshotPart, Standing, Store, StoreEvents, Stored};

use crate::broker::{BOTH, Broker};
use crate::client::Client;
use crate::wire::{self, Connect, PUBACK, PUBCOMP, PUBREC, PUBREL, Packet, Publish};

/// Bytes of memory for one queue.
const MEMORY: usize = 8 * 1024;
const PAYLOAD_BYTES: usize = 200;

/// A broker on a directory, with little memory and many snapshots.
fn start(workers: usize, directory: &Path) -> Broker {
    Broker::start(workers, |options: &mut ServerOptions, _: &mut Parts| {
        options.broker.delivery.memory_bytes_max = MEMORY;
        let mut storage = StorageOptions::in_directory(directory);
        storage.disk.segment_size = 256 * 1024;
        storage.disk.snapshot_after = 256 * 1024;
        storage.image.memory_bytes_max = 4 * MEMORY;
        options.storage = Some(storage);
    })
}

fn totals(broker: &Broker) -> Totals {
    broker.server.broker().metrics.sum()
}

fn payload(number: u32) -> String {
    format!("{number:0>PAYLOAD_BYTES$}")
}

/// Publishes numbers, QoS 1 and 2 in turn, a hundred at a time.
fn publish(publisher: &mut Client, numbers: std::ops::Range<u32>) {
    let numbers: Vec<u32> = numbers.collect();
    for some in numbers.chunks(100) {
        let mut sent = Vec::new();
        for number in some {
            let qos = 1 + (number % 2) as u8;
            let mut message = Publish::new("t", payload(*number), qos);
            message.packet_id = publisher.next_id();
            publisher.send(&message.encode(publisher.version()));
            sent.push((qos, message.packet_id));
        }
        for (qos, id) in sent {
            if qos == 1 {
                assert!(publisher.await_ack(PUBACK, id).reason < 0x80);
            } else {
                assert!(publisher.await_ack(PUBREC, id).reason < 0x80);
                publisher.send(&wire::ack(PUBREL, id));
            }
        }
        // PUBCOMP of each QoS 2 comes when all of them have been acknowledged.
        for number in some.iter().filter(|number| *number % 2 == 1) {
            let Packet::PubComp(_) = publisher.receive() else {
                panic!("PUBCOMP for {number}")
            };
        }
    }
}

/// What a client gets. Each QoS has an order of its own: QoS 2 waits for the store before it leaves, and QoS 1 does not.
#[derive(Default)]
struct Reader {
    next: [Option<u32>; 2],
    /// The client has come again: what it acknowledged last may not have been read any more.
    may_repeat: [bool; 2],
}

impl Reader {
    fn take(&mut self, client: &mut Client, count: usize) {
        for _ in 0..count {
            let message = loop {
                match client.receive() {
                    Packet::Publish(message) => break message,
                    // The end of a handshake that a restart has cut short.
                    Packet::PubRel(ack) => client.send(&wire::ack(PUBCOMP, ack.packet_id)),
                    other => panic!("PUBLISH, but there came {other:?}"),
                }
            };
            let number: u32 = message.text().parse().unwrap();
            let of_qos = (number % 2) as usize;
            assert_eq!(usize::from(message.qos), 1 + of_qos);
            let expected = self.next[of_qos].unwrap_or(number % 2);
            let is_repeat = std::mem::take(&mut self.may_repeat[of_qos]) && number < expected;
            assert!(number == expected || is_repeat, "{number}, not {expected}");
            self.next[of_qos] = Some(number + 2);
            if message.qos == 1 {
                client.send(&wire::ack(PUBACK, message.packet_id));
            } else {
                client.send(&wire::ack(PUBREC, message.packet_id));
                client.await_ack(PUBREL, message.packet_id);
                client.send(&wire::ack(PUBCOMP, message.packet_id));
            }
        }
    }

    /// Takes what is left of so many numbers.
    fn take_rest(&mut self, client: &mut Client, of: u32) {
        while self.next != [Some(of), Some(of + 1)] {
            self.take(client, 1);
        }
    }
}

/// What is published with the last acknowledgement may still be on its way to the store.
fn await_stored(broker: &Broker, at_least: u64) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while totals(broker).queued_stored < at_least {
        assert!(Instant::now() < deadline, "{:?}", totals(broker));
        std::thread::yield_now();
    }
}

fn subscribe_and_go(broker: &Broker, version: Version) {
    let (mut client, _) = broker.connect(version, &Connect::lasting("c", version));
    client.subscribe("t", 2);
    client.disconnect();
}

#[test]
fn thousands_wait_on_disk_and_come_back_in_order_after_a_restart() {
    for version in BOTH {
        for workers in [1, 4] {
            let folder = tempfile::tempdir().unwrap();
            let broker = start(workers, folder.path());
            subscribe_and_go(&broker, *version);
            let mut publisher = broker.client("p", *version);
            publish(&mut publisher, 0..2500);
            await_stored(&broker, 2450);
            assert!(totals(&broker).queued_memory_bytes <= MEMORY as u64);
            assert!(broker.server.stop());

            let broker = start(workers, folder.path());
            assert!(totals(&broker).queued_stored >= 2400, "{:?}", totals(&broker));
            let mut publisher = broker.client("p", *version);
            publish(&mut publisher, 2500..3000);
            let (mut client, is_present) = broker.connect(*version, &Connect::lasting("c", *version));
            assert!(is_present);
            let mut reader = Reader::default();
            reader.take(&mut client, 1000);
            // More comes while the client is behind; and then it goes, and so does the broker.
            publish(&mut publisher, 3000..3500);
            reader.take(&mut client, 500);
            drop(client);
            assert!(broker.server.stop());

            let broker = start(workers, folder.path());
            let (mut client, _) = broker.connect(*version, &Connect::lasting("c", *version));
            reader.may_repeat = [true, true];
            reader.take_rest(&mut client, 3500);
            client.expect_ping_answered();
            assert_eq!(totals(&broker).queued_messages, 0);
            assert_eq!(totals(&broker).dropped_unreadable, 0);
        }
    }
}

#[test]
fn a_client_that_reads_slowly_costs_its_memory_and_no_more() {
    let folder = tempfile::tempdir().unwrap();
    let broker = start(2, folder.path());
    let (mut client, _) = broker.connect(Version::V5, &Connect::lasting("c", Version::V5));
    client.subscribe("t", 2);
    let mut publisher = broker.client("p", Version::V5);
    let mut reader = Reader::default();
    for round in 0..40u32 {
        publish(&mut publisher, round * 100..(round + 1) * 100);
        reader.take(&mut client, round as usize);
        let totals = totals(&broker);
        assert!(totals.queued_memory_bytes < 20 * MEMORY as u64, "{totals:?}");
    }
    assert!(totals(&broker).queued_stored > 1000);
    reader.take_rest(&mut client, 4000);
    client.expect_ping_answered();
}

#[test]
fn a_session_that_ends_while_its_messages_are_read_is_over() {
    let folder = tempfile::tempdir().unwrap();
    let broker = start(1, folder.path());
    subscribe_and_go(&broker, Version::V311);
    let mut publisher = broker.client("p", Version::V311);
    publish(&mut publisher, 0..2000);
    await_stored(&broker, 1900);
    for _ in 0..10 {
        // Reading begins, and nobody is there any more.
        let (client, is_present) = broker.connect(Version::V311, &Connect::lasting("c", Version::V311));
        assert!(is_present);
        drop(client);
    }
    let (client, _) = broker.connect(Version::V311, &Connect::lasting("c", Version::V311));
    let mut other = broker.client("c", Version::V311);
    drop(client);
    other.subscribe("t", 1);
    publisher.publish(Publish::new("t", "new", 1));
    other.expect_text("t", "new");
    let totals = totals(&broker);
    assert_eq!(
        (totals.queued_messages, totals.queued_stored, totals.queued_memory_bytes),
        (0, 0, 0)
    );
}

/// A store that takes its time to read.
struct Slow(Arc<DiskStore>);

impl Store for Slow {
    fn keeps(&self) -> bool {
        true
    }

    fn attach(&self, events: Arc<dyn StoreEvents>) {
        self.0.attach(events);
    }

    fn submit(&self, from: WorkerId, batch: Batch) -> Option<Stored> {
        self.0.submit(from, batch)
    }

    fn submit_snapshot(&self, from: WorkerId, snapshot: SnapshotId, part: SnapshotPart) {
        self.0.submit_snapshot(from, snapshot, part);
    }

    fn standing(&self) -> Standing {
        self.0.standing()
    }

    fn close(&self, patience: Duration) {
        self.0.close(patience);
    }

    fn load(&self, to: WorkerId, session: SlotKey, messages: Vec<MessageNumber>) {
        let store = Arc::clone(&self.0);
        std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(100));
            store.load(to, session, messages);
        });
    }
}

struct Nobody;

impl Visitor for Nobody {
    fn record(&mut self, _record: &[u8], _place: &Place<'_>) {}

    fn gap(&mut self, _gap: &Gap) {}
}

#[test]
fn what_an_ended_session_leaves_to_its_shared_group_is_moved_before_the_broker_has_stopped() {
    const MESSAGES: u32 = 1000;
    let folder = tempfile::tempdir().unwrap();
    let broker = Broker::start(1, |options, parts| {
        options.broker.delivery.memory_bytes_max = MEMORY;
        let disk = DiskOptions::default();
        let (store, _) = DiskStore::open(folder.path(), disk, RecoverMode::RefuseDamage, &mut Nobody).unwrap();
        parts.store = Arc::new(Slow(Arc::new(store)));
    });
    let lasting = |client_id| Connect::lasting(client_id, Version::V5);
    let (mut first, _) = broker.connect(Version::V5, &lasting("first"));
    first.subscribe("$share/g/t", 2);
    first.disconnect();
    let mut publisher = broker.client("p", Version::V5);
    publish(&mut publisher, 0..MESSAGES);
    await_stored(&broker, 900);
    let (mut second, _) = broker.connect(Version::V5, &lasting("second"));
    second.subscribe("$share/g/t", 2);
    second.disconnect();
    // The first session ends, and so does the broker.
    broker.client("first", Version::V5);
    drop(publisher);
    assert!(broker.server.stop());

    let broker = start(2, folder.path());
    let (mut second, is_present) = broker.connect(Version::V5, &lasting("second"));
    assert!(is_present);
    let mut numbers: Vec<u32> = (0..MESSAGES)
        .map(|_| second.expect_message().text().parse().unwrap())
        .collect();
    numbers.sort_unstable();
    assert!(numbers.iter().copied().eq(0..MESSAGES));
}
