//! Stories of queues longer than their memory: workers, and a store that does what the story says.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

use crate::broker::{Broker, BrokerOptions, Parts, Status, Worker};
use crate::codec::{self, DecodeOptions, Role};
use crate::metrics::Totals;
use crate::protocol::ids::{ConnectionKey, MessageNumber, SlotKey, WorkerId};
use crate::protocol::message::Message;
use crate::protocol::packet::Packet;
use crate::protocol::time::Time;
use crate::protocol::version::Version;
use crate::session::peer::tests::peer;
use crate::storage::image::{Image, ImageOptions, Restored};
use crate::storage::record::{MessageRecord, Record, records};
use crate::storage::{Batch, SnapshotId, SnapshotPart, Standing, Store, StoreEvents, Stored};

const NOW: Time = Time(1_000_000);

#[derive(Default)]
struct Shelf {
    events: OnceLock<Arc<dyn StoreEvents>>,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    batches: Vec<(WorkerId, Batch)>,
    told: usize,
    standing: Option<Standing>,
    is_behind: bool,
    loads: Vec<(WorkerId, SlotKey, Vec<MessageNumber>)>,
    unreadable: Option<u64>,
    parts: Vec<SnapshotPart>,
}

impl Kept {
    fn contents(&self) -> BTreeMap<MessageNumber, Arc<Message>> {
        let mut contents = BTreeMap::new();
        for (_, batch) in &self.batches {
            for record in records(&batch.bytes) {
                if let Ok(Record::Message(message)) = Record::decode(record) {
                    contents.insert(message.number, Arc::new(to_message(&message)));
                }
            }
        }
        contents
    }
}

fn to_message(record: &MessageRecord<'_>) -> Message {
    crate::storage::image::to_message(&record.content, Some(record.number), record.expires_at)
}

impl Shelf {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap()
    }

    /// Tells what was submitted as stored; true when there was something.
    fn tell(&self) -> bool {
        let mut kept = self.kept();
        let told: Vec<_> = kept.batches[kept.told..]
            .iter()
            .map(|(of, b)| (*of, b.number))
            .collect();
        kept.told = kept.batches.len();
        let standing = kept.standing;
        drop(kept);
        for (worker, number) in &told {
            match standing {
                Some(Standing::Refusing) => self.events.get().unwrap().failed(*worker, *number),
                _ => self.events.get().unwrap().stored(*worker, *number),
            }
        }
        !told.is_empty()
    }

    /// Answers what was asked for; true when there was something.
    fn answer(&self) -> bool {
        let mut kept = self.kept();
        let loads = std::mem::take(&mut kept.loads);
        let (contents, unreadable) = (kept.contents(), kept.unreadable);
        drop(kept);
        for (worker, slot, numbers) in &loads {
            let read = |number: &MessageNumber| {
                let content = contents.get(number).cloned();
                (*number, content.filter(|_| Some(number.0.get()) != unreadable))
            };
            let loaded = numbers.iter().map(read).collect();
            self.events.get().unwrap().loaded(*worker, *slot, loaded);
        }
        !loads.is_empty()
    }

    /// What a broker starts with that finds these batches and has no memory for contents.
    fn restored(&self) -> Restored {
        let mut image = Image::new(ImageOptions { memory_bytes_max: 0 });
        for (_, batch) in &self.kept().batches {
            records(&batch.bytes).for_each(|record| image.apply(record));
        }
        image.finish(NOW)
    }
}

impl Store for Shelf {
    fn keeps(&self) -> bool {
        true
    }

    fn attach(&self, events: Arc<dyn StoreEvents>) {
        assert!(self.events.set(events).is_ok());
    }

    fn submit(&self, from: WorkerId, batch: Batch) -> Option<Stored> {
        self.kept().batches.push((from, batch));
        None
    }

    fn submit_snapshot(&self, _from: WorkerId, _snapshot: SnapshotId, part: SnapshotPart) {
        self.kept().parts.push(part);
    }

    fn standing(&self) -> Standing {
        self.kept().standing.unwrap_or(Standing::Sound)
    }

    fn is_behind(&self) -> bool {
        self.kept().is_behind
    }

    fn close(&self, _patience: core::time::Duration) {}

    fn load(&self, to: WorkerId, session: SlotKey, messages: Vec<MessageNumber>) {
        let written = self.kept().contents();
        assert!(
            messages.iter().all(|message| written.contains_key(message)),
            "only what is written is asked for"
        );
        self.kept().loads.push((to, session, messages));
    }
}

struct House {
    broker: Arc<Broker>,
    workers: Vec<Worker>,
    shelf: Arc<Shelf>,
}

/// A client's connection.
#[derive(Clone, Copy)]
struct Link(usize, ConnectionKey);

impl House {
    fn new(memory_bytes_max: usize) -> Self {
        Self::with(memory_bytes_max, Arc::default(), Restored::default())
    }

    fn with(memory_bytes_max: usize, shelf: Arc<Shelf>, restored: Restored) -> Self {
        let mut options = BrokerOptions::default();
        options.delivery.memory_bytes_max = memory_bytes_max;
        options.delivery.in_flight_max = 5;
        options.sys_interval_secs = 0;
        options.memory_bytes_max = 1000;
        let parts = Parts {
            store: Arc::clone(&shelf) as Arc<dyn Store>,
            restored,
            ..Parts::default()
        };
        let broker = Broker::new(options, 2, parts);
        let workers = (0..2)
            .map(|me| Worker::new(Arc::clone(&broker), WorkerId(me), NOW))
            .collect();
        Self { broker, workers, shelf }
    }

    fn restart(self, memory_bytes_max: usize) -> Self {
        let mut restored = self.shelf.restored();
        let contents = self.shelf.kept().contents();
        let read = |number: &MessageNumber| (*number, contents.get(number).cloned());
        restored.read_in_flight(|numbers| numbers.iter().map(read).collect());
        let shelf = Shelf::default();
        let batches = std::mem::take(&mut self.shelf.kept().batches);
        let told = batches.len();
        *shelf.kept() = Kept {
            batches,
            told,
            ..Kept::default()
        };
        Self::with(memory_bytes_max, Arc::new(shelf), restored)
    }

    fn totals(&self) -> Totals {
        self.broker.metrics.sum()
    }

    /// Lets mail and batches go round; what is loaded comes when the story says so.
    fn settle(&mut self) {
        let mut is_busy = true;
        while is_busy {
            is_busy = false;
            for worker in &mut self.workers {
                is_busy |= worker.receive_mail(std::task::Waker::noop(), NOW);
                worker.submit_records();
                worker.send_mail();
            }
            is_busy |= self.shelf.tell();
        }
    }

    fn settle_loads(&mut self) {
        self.settle();
        while self.shelf.answer() {
            self.settle();
        }
    }

    fn send(&mut self, link: Link, packet: &[u8]) {
        let taken = self.workers[link.0].receive(link.1, packet, NOW);
        assert_eq!(taken, packet.len());
        self.workers[link.0].submit_records();
        self.workers[link.0].send_mail();
    }

    fn connect(&mut self, worker: usize, client_id: &str, is_clean: bool) -> Link {
        self.connect_for(worker, client_id, is_clean, 0)
    }

    /// Connects with a keep alive of so many seconds.
    fn connect_for(&mut self, worker: usize, client_id: &str, is_clean: bool, keep_alive: u8) -> Link {
        let link = Link(worker, self.workers[worker].open(peer(), NOW.plus_secs(10), NOW));
        let mut packet = vec![0x10, 12 + client_id.len() as u8];
        packet.extend_from_slice(b"\x00\x04MQTT\x04");
        packet.extend_from_slice(&[u8::from(is_clean) << 1, 0, keep_alive, 0, client_id.len() as u8]);
        packet.extend_from_slice(client_id.as_bytes());
        self.send(link, &packet);
        self.settle();
        link
    }

    /// SUBSCRIBE with QoS 2, the session kept, and gone.
    fn subscriber_goes(&mut self, client_id: &str, filter: &str) {
        let link = self.connect(0, client_id, false);
        let mut packet = vec![0x82, 5 + filter.len() as u8, 0, 1, 0, filter.len() as u8];
        packet.extend_from_slice(filter.as_bytes());
        packet.push(1);
        self.send(link, &packet);
        self.settle();
        self.lose(link);
    }

    fn lose(&mut self, link: Link) {
        self.workers[link.0].lost(link.1, "gone", NOW);
        self.workers[link.0].submit_records();
        self.workers[link.0].send_mail();
        self.settle();
    }

    /// Publishes numbers at QoS 1, each as a payload of 100 bytes.
    fn publish(&mut self, link: Link, numbers: std::ops::Range<u32>) {
        for number in numbers {
            let mut packet = vec![0x32, 105, 0, 1, b't', 0, 1];
            packet.extend_from_slice(format!("{number:0>100}").as_bytes());
            self.send(link, &packet);
            if number % 500 == 499 {
                self.settle(); // a publisher may not have more unacknowledged
            }
        }
    }

    /// What a client is sent while it acknowledges everything.
    fn take(&mut self, link: Link) -> Vec<u32> {
        let mut all = Vec::new();
        loop {
            let some = self.take_some(link);
            if some.is_empty() {
                return all;
            }
            all.extend(some);
            self.settle_loads();
        }
    }

    /// What a client has been sent, and acknowledges.
    fn take_some(&mut self, link: Link) -> Vec<u32> {
        let Some(output) = self.workers[link.0].output(link.1) else {
            return Vec::new();
        };
        let bytes: Vec<u8> = output.chunks().flatten().copied().collect();
        self.workers[link.0].sent(link.1, bytes.len(), NOW);
        let (mut numbers, mut acks, mut at) = (Vec::new(), Vec::new(), 0);
        let options = DecodeOptions::default();
        while let Ok(Some((packet, length))) = codec::decode(&bytes[at..], Some(Version::V311), Role::Client, &options)
        {
            at += length;
            if let Packet::Publish(publish) = packet {
                numbers.push(std::str::from_utf8(publish.payload).unwrap().parse().unwrap());
                let id = publish.packet_id.unwrap().get();
                acks.extend_from_slice(&[0x40, 2, (id >> 8) as u8, id as u8]);
            }
        }
        assert_eq!(at, bytes.len());
        if !acks.is_empty() {
            self.send(link, &acks);
        }
        numbers
    }
}

fn counted(to: u32) -> Vec<u32> {
    (0..to).collect()
}

#[test]
fn what_is_on_disk_leaves_memory_when_that_is_short() {
    let mut house = House::new(1 << 20);
    house.subscriber_goes("s", "t");
    let publisher = house.connect(1, "p", true);
    house.publish(publisher, 0..100);
    house.settle();
    assert_eq!(house.totals().queued_stored, 0);
    assert!(house.workers[0].note_memory(900) && house.workers[1].note_memory(900));
    house.settle();
    assert_eq!(house.totals().queued_stored, 100);
    house.publish(publisher, 100..200);
    house.settle();
    assert_eq!(house.totals().queued_memory_bytes, 0, "and so does what comes");
    let subscriber = house.connect(0, "s", false);
    house.settle_loads();
    assert_eq!(house.take(subscriber), counted(200));
}

#[test]
fn a_queue_longer_than_its_memory_comes_back_in_order() {
    // The publisher is on the same worker, and on another.
    for worker in [0, 1] {
        let mut house = House::new(2000);
        house.subscriber_goes("s", "t");
        let publisher = house.connect(worker, "p", true);
        house.publish(publisher, 0..200);
        house.settle();
        let totals = house.totals();
        assert_eq!(totals.queued_messages, 200);
        assert!(totals.queued_stored > 180, "{totals:?}");
        assert!(totals.queued_memory_bytes <= 2000, "{totals:?}");
        let subscriber = house.connect(0, "s", false);
        house.settle_loads();
        let mut got = house.take_some(subscriber);
        house.publish(publisher, 200..250);
        got.extend(house.take(subscriber));
        assert_eq!(got, counted(250));
        let totals = house.totals();
        assert_eq!(
            (totals.queued_messages, totals.queued_stored, totals.queued_memory_bytes),
            (0, 0, 0)
        );
    }
}

#[test]
fn nothing_more_is_read_while_the_store_is_behind_and_nobody_is_taken_for_silent() {
    let mut house = House::new(2000);
    let link = house.connect_for(0, "p", true, 10);
    assert!(!house.workers[0].is_backed_up());
    house.shelf.kept().is_behind = true;
    assert!(house.workers.iter().all(Worker::is_backed_up));
    for secs in 1..60 {
        house.workers[0].expire(NOW.plus_secs(secs));
    }
    assert_eq!(
        house.workers[0].status(link.1),
        Status::Open,
        "it is we who do not read"
    );
    house.shelf.kept().is_behind = false;
    assert!(!house.workers.iter().any(Worker::is_backed_up));
    for secs in 60..80 {
        house.workers[0].expire(NOW.plus_secs(secs));
    }
    assert_eq!(house.workers[0].status(link.1), Status::Closing, "now it is silent");
}

#[test]
fn the_memory_of_all_sessions_is_one_budget() {
    let mut house = House::new(usize::MAX);
    let share = &mut house.workers[0].residents.options.memory_total_max;
    *share = 1500;
    house.subscriber_goes("a", "t");
    house.subscriber_goes("b", "t");
    let publisher = house.connect(0, "p", true);
    house.publish(publisher, 0..50);
    house.settle();
    let totals = house.totals();
    assert!(
        totals.queued_stored > 80 && totals.queued_memory_bytes <= 2000,
        "{totals:?}"
    );
    for client in ["a", "b"] {
        let link = house.connect(0, client, false);
        house.settle_loads();
        assert_eq!(house.take(link), counted(50));
    }
}

#[test]
fn what_a_store_has_not_kept_stays_in_memory() {
    for (worker, standing) in [
        (0, Standing::Refusing),
        (1, Standing::Refusing),
        (0, Standing::Forgetting),
        (1, Standing::Forgetting),
    ] {
        let mut house = House::new(0);
        house.subscriber_goes("s", "t");
        let publisher = house.connect(worker, "p", true);
        // Published while the store is sound; told as failed, or as if they were stored.
        house.publish(publisher, 0..20);
        house.shelf.kept().standing = Some(standing);
        house.settle();
        assert_eq!(house.totals().queued_stored, 0);
        house.shelf.kept().batches.clear();
        house.shelf.kept().told = 0;
        let subscriber = house.connect(0, "s", false);
        assert_eq!(house.take(subscriber), counted(20), "memory has the truth");
    }
}

#[test]
fn a_broker_that_starts_has_no_content_in_memory_and_delivers_in_order() {
    let mut house = House::new(1000);
    house.subscriber_goes("s", "t");
    let publisher = house.connect(1, "p", true);
    house.publish(publisher, 0..100);
    house.settle();
    let mut house = house.restart(1000);
    let totals = house.totals();
    assert_eq!((totals.queued_stored, totals.queued_memory_bytes), (100, 0));
    let publisher = house.connect(1, "p", true);
    house.publish(publisher, 100..120);
    house.settle();
    let mut house = house.restart(1 << 20);
    house.connect(0, "s", false);
    house.settle_loads();
    // A broker that stops while five are in flight, and has memory for none, sends these again.
    let mut house = house.restart(1000);
    assert_eq!(house.totals().queued_stored, 115);
    let subscriber = house.connect(0, "s", false);
    house.settle_loads();
    assert_eq!(house.take(subscriber), counted(120));
    assert_eq!(house.totals().dropped_unreadable, 0);
}

#[test]
fn contents_that_come_late_find_the_session_as_it_is_then() {
    let mut house = House::new(1000);
    house.subscriber_goes("s", "t");
    let publisher = house.connect(1, "p", true);
    house.publish(publisher, 0..60);
    house.settle();
    let first = house.connect(0, "s", false);
    let mut got = house.take_some(first);
    house.settle();
    assert!(!house.shelf.kept().loads.is_empty(), "contents were asked for");
    // Taken over while they are on their way.
    let second = house.connect(0, "s", false);
    house.settle_loads();
    got.extend(house.take(second));
    assert_eq!(got, counted(60));

    house.lose(second);
    house.publish(publisher, 60..100);
    house.settle();
    let third = house.connect(0, "s", false);
    house.settle();
    house.take_some(third);
    // The session ends while they are on their way, and another has its client's name.
    let fourth = house.connect(0, "s", true);
    house.settle_loads();
    assert!(house.take(fourth).is_empty());
    let totals = house.totals();
    assert_eq!(
        (totals.queued_messages, totals.queued_stored, totals.queued_memory_bytes),
        (0, 0, 0)
    );
}

#[test]
fn what_cannot_be_read_is_counted_and_the_rest_goes_on() {
    let mut house = House::new(0);
    house.subscriber_goes("s", "t");
    let publisher = house.connect(0, "p", true);
    house.publish(publisher, 0..50);
    house.settle();
    let lost = *house.shelf.kept().contents().keys().nth(17).unwrap();
    house.shelf.kept().unreadable = Some(lost.0.get());
    let subscriber = house.connect(0, "s", false);
    house.settle_loads();
    let expected: Vec<_> = (0..50).filter(|number| *number != 17).collect();
    assert_eq!(house.take(subscriber), expected);
    assert_eq!(house.totals().dropped_unreadable, 1);
    let restored = house.shelf.restored();
    assert_eq!(restored.report.queued, 0, "it does not come back");
}

#[test]
fn what_a_shared_subscription_gave_a_session_that_ends_goes_to_others() {
    let mut house = House::new(500);
    house.subscriber_goes("a", "$share/g/t");
    let publisher = house.connect(1, "p", true);
    house.publish(publisher, 0..150);
    house.settle();
    assert!(house.totals().queued_stored > 100);
    house.subscriber_goes("b", "$share/g/t");
    let other = house.connect(0, "b", false);
    let last = house.connect(0, "a", true);
    house.settle_loads();
    let mut got = house.take(other);
    got.sort_unstable();
    assert_eq!(got, counted(150));
    assert!(house.take(last).is_empty());
    assert_eq!(house.totals().dropped_session_ended, 0);
}

#[test]
fn a_snapshot_names_what_only_the_store_has() {
    let mut house = House::new(700);
    house.subscriber_goes("s", "t");
    let publisher = house.connect(1, "p", true);
    house.publish(publisher, 0..5000);
    house.settle();
    let stored = house.totals().queued_stored;
    let events = house.shelf.events.get().unwrap().clone();
    (0..2).for_each(|worker| events.snapshot(WorkerId(worker), 7));
    house.settle();
    assert_eq!(
        house.shelf.kept().parts.len(),
        2,
        "a part is named in no more than so many"
    );
    events.snapshot_more(WorkerId(0), 7);
    house.settle();
    let kept = house.shelf.kept();
    assert!(kept.parts.iter().filter(|part| part.is_last).count() == 2);
    let named: Vec<_> = kept
        .parts
        .iter()
        .flat_map(|part| &part.stored_messages)
        .copied()
        .collect();
    assert_eq!(named.len() as u64, stored);
    // The store writes the contents of what is named before the part.
    let mut image = Image::new(ImageOptions::default());
    let contents = kept.contents();
    for part in &kept.parts {
        for number in &part.stored_messages {
            let message = &contents[number];
            let view = message.view();
            image.apply_decoded(&Record::Message(MessageRecord::of(*number, &view)));
        }
        records(&part.bytes).for_each(|record| image.apply(record));
    }
    let restored = image.finish(NOW);
    let session = restored
        .sessions
        .iter()
        .find(|session| &*session.client_id == "s")
        .unwrap();
    let order: Vec<u32> = session
        .queued
        .iter()
        .map(|delivery| {
            let content = delivery.content.as_ref().unwrap();
            std::str::from_utf8(content.payload()).unwrap().parse().unwrap()
        })
        .collect();
    assert_eq!(order, counted(5000));
    assert!(restored.report.lost.is_empty());
}
