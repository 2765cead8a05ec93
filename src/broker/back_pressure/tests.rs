//! Stories of publishers that are faster than their receivers.

use super::*;
use crate::broker::{Broker, BrokerOptions, Parts, Status};
use crate::codec::{self, DecodeOptions, Role};
use crate::protocol::ids::WorkerId;
use crate::protocol::packet::Packet;
use crate::protocol::version::Version;
use crate::session::peer::tests::peer;

const NOW: Time = Time(1_000_000);
/// Messages in a queue; the mark is at 14.
const QUEUE: usize = 16;
/// Messages under way to a client.
const WINDOW: u16 = 2;

struct House {
    worker: Worker,
    now: Time,
}

impl House {
    fn new() -> Self {
        let mut options = BrokerOptions {
            sys_interval_secs: 0,
            ..BrokerOptions::default()
        };
        options.delivery.outbox.messages_max = QUEUE;
        options.delivery.in_flight_max = WINDOW;
        let worker = Worker::new(Broker::new(options, 1, Parts::default()), WorkerId(0), NOW);
        Self { worker, now: NOW }
    }

    /// A client of MQTT 5 with a keep alive of a second, whose session is kept if `expiry` is not 0.
    fn enter(&mut self, client_id: u8, expiry: u8) -> ConnectionKey {
        let key = self.worker.open(peer(), self.now.plus_secs(10), self.now);
        let packet = [
            b"\x10\x13\x00\x04MQTT\x05\x02\x00\x01\x05\x11\x00\x00\x00",
            &[expiry, 0, 1, client_id][..],
        ];
        self.worker.receive(key, &packet.concat(), self.now);
        key
    }

    /// The client that has a session comes back to it.
    fn come_back(&mut self, client_id: u8) -> ConnectionKey {
        let key = self.worker.open(peer(), self.now.plus_secs(10), self.now);
        let packet = [
            &b"\x10\x13\x00\x04MQTT\x05\x00\x00\x01\x05\x11\x00\x00\x00\x3c\x00\x01"[..],
            &[client_id],
        ];
        self.worker.receive(key, &packet.concat(), self.now);
        key
    }

    fn subscribe(&mut self, key: ConnectionKey) {
        self.worker.receive(key, &[0x82, 7, 0, 1, 0, 0, 1, b't', 1], self.now);
        self.read(key);
    }

    /// PUBLISH packets to `t` at QoS 1 in one read, from the one numbered `from` on; how many of them were handled.
    fn publish(&mut self, key: ConnectionKey, from: u16, count: u16) -> u16 {
        let mut packets = Vec::new();
        for id in from..from + count {
            packets.extend_from_slice(&[0x32, 6, 0, 1, b't', (id >> 8) as u8, id as u8, 0]);
        }
        (self.worker.receive(key, &packets, self.now) / 8) as u16
    }

    /// What a client was sent: identifiers of messages, and reasons of acknowledgements.
    fn read(&mut self, key: ConnectionKey) -> (Vec<u16>, Vec<u8>) {
        let (mut ids, mut reasons) = (Vec::new(), Vec::new());
        let Some(output) = self.worker.output(key) else {
            return (ids, reasons);
        };
        let bytes: Vec<u8> = output.chunks().flatten().copied().collect();
        self.worker.sent(key, bytes.len(), self.now);
        let (options, mut at) = (DecodeOptions::default(), 0);
        while let Ok(Some((packet, length))) = codec::decode(&bytes[at..], Some(Version::V5), Role::Client, &options) {
            at += length;
            match packet {
                Packet::Publish(publish) => ids.push(publish.packet_id.unwrap().get()),
                Packet::PubAck(ack) => reasons.push(ack.reason.byte()),
                _ => {}
            }
        }
        (ids, reasons)
    }

    /// Reads and acknowledges; how many messages there were.
    fn take(&mut self, key: ConnectionKey) -> usize {
        let ids = self.read(key).0;
        for id in &ids {
            self.worker
                .receive(key, &[0x40, 2, (id >> 8) as u8, *id as u8], self.now);
        }
        ids.len()
    }

    /// Time goes on, as the driver sees to it.
    fn wait(&mut self, millis: u64) {
        let until = self.now.plus_millis(millis);
        while let Some(at) = self.worker.next_deadline().filter(|at| *at <= until) {
            self.now = self.now.max(at);
            self.worker.expire(self.now);
        }
        self.now = until;
    }

    fn paused(&self) -> u64 {
        self.worker.metrics().publishers_paused.get()
    }
}

/// What is under way, and in the queue below its mark.
const TAKEN: u16 = WINDOW + 14;

#[test]
fn a_publisher_waits_for_a_slow_receiver_and_nothing_is_refused() {
    let mut house = House::new();
    let (slow, publisher) = (house.enter(b's', 60), house.enter(b'p', 0));
    house.subscribe(slow);
    let (mut sent, mut got) = (0, 0);
    while sent < 500 {
        sent += house.publish(publisher, sent + 1, 500 - sent);
        if sent == 500 {
            break;
        }
        assert_eq!(house.worker.status(publisher), Status::Waiting);
        got += house.take(slow);
        while house.worker.status(publisher) == Status::Waiting {
            house.wait(1);
        }
    }
    loop {
        match house.take(slow) {
            0 => break,
            some => got += some,
        }
    }
    assert_eq!(got, 500);
    assert_eq!(house.read(publisher).1, [0; 500]);
    assert!(house.paused() > 10, "{}", house.paused());
    assert!(!house.worker.residents.congestion.is_any());
}

#[test]
fn after_a_second_the_policy_decides_and_the_keep_alive_stood_still() {
    let mut house = House::new();
    let (slow, publisher) = (house.enter(b's', 60), house.enter(b'p', 0));
    house.subscribe(slow);
    assert_eq!(house.publish(publisher, 1, 100), TAKEN);
    assert_eq!(house.worker.status(publisher), Status::Waiting);
    let (mut sent, begin) = (0, house.now);
    while sent == 0 {
        assert!(house.now < begin.plus_millis(1020), "a second is over");
        house.wait(1);
        if house.worker.status(publisher) == Status::Open {
            sent = house.publish(publisher, TAKEN + 1, 10);
        }
    }
    assert!(house.now >= begin.plus_millis(1000), "{:?}", house.now);
    let reasons = house.read(publisher).1;
    assert_eq!(sent, 10);
    assert_eq!(reasons[..usize::from(TAKEN) + 2], [0; TAKEN as usize + 2]);
    assert_eq!(reasons[usize::from(TAKEN) + 2..], [0x97; 8]);
    assert_eq!(house.paused(), 1, "once: they are as slow as they were");
    house.wait(1400);
    assert_eq!(
        house.worker.status(publisher),
        Status::Open,
        "it was silent for 1.4 seconds of 1.5"
    );
    // As soon as they have caught up, it is waited for them again.
    while house.take(slow) > 0 {}
    assert_eq!(house.publish(publisher, 100, 100), TAKEN);
    assert_eq!(house.paused(), 2);
    house.wait(10_000);
    assert_eq!(
        house.worker.status(publisher),
        Status::Closing,
        "its own silence counts"
    );
}

#[test]
fn one_that_owes_acknowledgements_is_never_paused() {
    let mut house = House::new();
    let narcissus = house.enter(b'n', 60);
    house.subscribe(narcissus);
    assert_eq!(house.publish(narcissus, 1, 100), 100);
    assert_eq!((house.paused(), house.worker.status(narcissus)), (0, Status::Open));
    let mut got = 0;
    loop {
        let (ids, reasons) = house.read(narcissus);
        if ids.is_empty() && reasons.is_empty() {
            break;
        }
        for id in &ids {
            house
                .worker
                .receive(narcissus, &[0x40, 2, (id >> 8) as u8, *id as u8], house.now);
        }
        got += ids.len();
    }
    assert_eq!(got, usize::from(WINDOW) + QUEUE, "what was accepted came");
}

#[test]
fn nobody_waits_for_who_cannot_be_waited_for() {
    // One who is quick, one whose session is not kept, one who is away.
    for (expiry, is_away, has_quick) in [(60, false, true), (0, false, false), (60, true, false)] {
        let mut house = House::new();
        let (slow, publisher) = (house.enter(b's', expiry), house.enter(b'p', 0));
        house.subscribe(slow);
        if is_away {
            house.worker.lost(slow, "gone", NOW);
        }
        if has_quick {
            let quick = house.enter(b'q', 60);
            house.subscribe(quick);
            for number in 1..=100 {
                assert_eq!(house.publish(publisher, number, 1), 1);
                assert_eq!(house.take(quick), 1);
            }
        } else {
            assert_eq!(house.publish(publisher, 1, 100), 100);
        }
        assert_eq!(house.paused(), 0, "{expiry} {is_away} {has_quick}");
    }
}

/// A session that ends, or is gone, counts no more.
#[test]
fn who_is_gone_makes_nobody_look() {
    let mut house = House::new();
    let (slow, publisher) = (house.enter(b's', 60), house.enter(b'p', 0));
    house.subscribe(slow);
    house.publish(publisher, 1, 100);
    assert!(house.worker.residents.congestion.is_any());
    house.worker.lost(slow, "gone", NOW);
    house.wait(61_000);
    assert!(!house.worker.residents.congestion.is_any());
}

#[test]
fn to_look_again_and_again_leaves_no_reminders_behind() {
    let mut house = House::new();
    let (slow, publisher) = (house.enter(b's', 60), house.enter(b'p', 0));
    house.subscribe(slow);
    let sent = house.publish(publisher, 1, 100);
    let reminders = house.worker.timers.len();
    for _ in 0..50 {
        assert_eq!(house.worker.status(publisher), Status::Waiting);
        house.wait(LOOK_MS);
        assert_eq!(house.worker.status(publisher), Status::Open);
        assert_eq!(house.publish(publisher, sent + 1, 1), 0);
    }
    assert!(house.worker.timers.len() <= reminders, "{}", house.worker.timers.len());
}

/// Nobody can wait for who is away: that his queue is long is not looked at with every message.
#[test]
fn a_long_queue_counts_while_its_client_is_there() {
    let mut house = House::new();
    let (slow, publisher) = (house.enter(b's', 60), house.enter(b'p', 0));
    house.subscribe(slow);
    house.worker.lost(slow, "gone", house.now);
    assert_eq!(house.publish(publisher, 1, QUEUE as u16), QUEUE as u16);
    assert!(!house.worker.residents.congestion.is_any());
    let slow = house.come_back(b's');
    assert!(house.worker.residents.congestion.is_any());
    house.worker.lost(slow, "gone", house.now);
    assert!(!house.worker.residents.congestion.is_any());
    let slow = house.come_back(b's');
    assert!(house.worker.residents.congestion.is_any());
    while house.take(slow) > 0 {}
    assert!(!house.worker.residents.congestion.is_any());
}
