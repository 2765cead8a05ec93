//! Stories of a budget that is nearly, and then all, used up. How much is used is said by the story.

use super::*;
use crate::broker::{BrokerOptions, Parts, Status};
use crate::codec::{self, DecodeOptions, Role};
use crate::protocol::ids::{ConnectionKey, WorkerId};
use crate::protocol::packet::Packet;
use crate::protocol::time::Time;
use crate::protocol::version::Version;
use crate::session::peer::tests::peer;

const NOW: Time = Time(1_000_000);
const BUDGET: u64 = 1600;
const AMPLE: u64 = 1000;
const SHORT: u64 = 1450;
const SPENT: u64 = 1600;

struct House(Worker);

impl House {
    fn new(set: impl FnOnce(&mut BrokerOptions)) -> Self {
        let mut options = BrokerOptions {
            memory_bytes_max: BUDGET,
            sys_interval_secs: 0,
            ..BrokerOptions::default()
        };
        set(&mut options);
        Self(Worker::new(Broker::new(options, 1, Parts::default()), WorkerId(0), NOW))
    }

    /// Sends packets and returns what is sent back, as far as it is read: the last byte of each, and of a PUBLISH its payload.
    fn send(&mut self, key: ConnectionKey, packets: &[u8]) {
        assert_eq!(self.0.receive(key, packets, NOW), packets.len());
    }

    fn read(&mut self, key: ConnectionKey, version: Version) -> Vec<String> {
        let Some(output) = self.0.output(key) else {
            return Vec::new();
        };
        let bytes: Vec<u8> = output.chunks().flatten().copied().collect();
        self.0.sent(key, bytes.len(), NOW);
        let (mut read, mut at) = (Vec::new(), 0);
        let options = DecodeOptions::default();
        while let Ok(Some((packet, length))) = codec::decode(&bytes[at..], Some(version), Role::Client, &options) {
            at += length;
            read.push(match packet {
                Packet::Publish(publish) => String::from_utf8(publish.payload.to_vec()).unwrap(),
                Packet::PubAck(ack) => format!("PUBACK {:02x}", ack.reason.byte()),
                Packet::SubAck(ack) => format!("SUBACK {:02x}", ack.reasons[0].byte()),
                Packet::ConnAck(ack) => format!("CONNACK {:02x}", ack.reason.byte()),
                other => format!("{:?}", other.packet_type()),
            });
        }
        assert_eq!(at, bytes.len());
        read
    }

    /// A client of MQTT 5 whose session is kept for a minute.
    fn enter(&mut self, client_id: &str) -> ConnectionKey {
        let key = self.0.open(peer(), NOW.plus_secs(10), NOW);
        let mut packet = vec![0x10, 18 + client_id.len() as u8];
        packet.extend_from_slice(b"\x00\x04MQTT\x05\x00\x00\x00\x05\x11\x00\x00\x00\x3c");
        packet.extend_from_slice(&[0, client_id.len() as u8]);
        packet.extend_from_slice(client_id.as_bytes());
        self.send(key, &packet);
        key
    }

    fn enter_v311(&mut self, client_id: &str) -> ConnectionKey {
        let key = self.0.open(peer(), NOW.plus_secs(10), NOW);
        let mut packet = vec![0x10, 12 + client_id.len() as u8];
        packet.extend_from_slice(b"\x00\x04MQTT\x04\x02\x00\x00\x00");
        packet.push(client_id.len() as u8);
        packet.extend_from_slice(client_id.as_bytes());
        self.send(key, &packet);
        self.read(key, Version::V311);
        key
    }

    fn subscriber(&mut self, client_id: &str, qos: u8) -> ConnectionKey {
        let key = self.enter(client_id);
        self.send(key, &[0x82, 7, 0, 1, 0, 0, 1, b't', qos]);
        assert_eq!(
            self.read(key, Version::V5),
            ["CONNACK 00", &format!("SUBACK {qos:02x}")]
        );
        key
    }

    /// PUBLISH to `t` at QoS 1; what it is answered.
    fn publish(&mut self, key: ConnectionKey, payload: &str) -> String {
        let mut packet = vec![0x32, 6 + payload.len() as u8];
        packet.extend_from_slice(b"\x00\x01t\x00\x01\x00");
        packet.extend_from_slice(payload.as_bytes());
        self.send(key, &packet);
        self.read(key, Version::V5).pop().unwrap_or_default()
    }

    /// A message of 16 KiB to `t`, at QoS 1, as one that is repeated; what it is answered.
    fn publish_large(&mut self, key: ConnectionKey, letter: u8) -> String {
        let mut packet = b"\x3A\x86\x80\x01\x00\x01t\x00\x01\x00".to_vec();
        packet.extend_from_slice(&[letter; 16 << 10]);
        self.send(key, &packet);
        self.read(key, Version::V5).pop().unwrap_or_default()
    }

    /// The first letters of all the messages that a client is sent.
    fn letters(&mut self, key: ConnectionKey) -> String {
        let mut letters = String::new();
        loop {
            let read = self.read(key, Version::V5);
            if read.is_empty() {
                return letters;
            }
            letters.extend(read.iter().filter_map(|payload| payload.chars().next()));
        }
    }

    /// The same at QoS 0.
    fn publish_qos0(&mut self, key: ConnectionKey, payload: &str) {
        let mut packet = vec![0x30, 4 + payload.len() as u8];
        packet.extend_from_slice(b"\x00\x01t\x00");
        packet.extend_from_slice(payload.as_bytes());
        self.send(key, &packet);
    }

    /// PUBLISH to a topic of one letter, retained, at QoS 1; what it is answered.
    fn retain(&mut self, key: ConnectionKey, topic: u8, payload: &str) -> String {
        let mut packet = vec![0x33, 6 + payload.len() as u8];
        packet.extend_from_slice(&[0, 1, topic, 0, 1, 0]);
        packet.extend_from_slice(payload.as_bytes());
        self.send(key, &packet);
        self.read(key, Version::V5).pop().unwrap_or_default()
    }
}

#[test]
fn a_state_is_left_below_where_it_is_entered() {
    let mut state = MemoryState::Ample;
    let mut go = |used| {
        state = next_state(state, used, BUDGET);
        state
    };
    use MemoryState::{Ample, Short, Spent};
    let way = [1399, 1400, 1301, 1300, 1299, 1399, 1599, 1600, 1500, 1499, 1599, 0].map(&mut go);
    assert_eq!(
        way,
        [
            Ample, Short, Short, Short, Ample, Ample, Short, Spent, Spent, Short, Short, Ample
        ]
    );
    assert_eq!(
        next_state(Ample, u64::MAX - 1, u64::MAX),
        Short,
        "nobody uses that much"
    );
}

#[test]
fn what_waits_at_qos_0_goes_first_and_who_reads_gets_everything() {
    let mut house = House::new(|options| options.delivery.output_bytes_max = 10);
    let (subscriber, publisher) = (house.subscriber("s", 0), house.enter("p"));
    for number in 0..10 {
        house.publish_qos0(publisher, &format!("{number}"));
    }
    let waiting = house.0.metrics().queued_messages.get();
    assert!(waiting > 5, "{waiting}");
    assert!(house.0.note_memory(SHORT));
    assert_eq!(house.0.metrics().dropped_memory_qos0.get(), waiting);
    assert_eq!(house.0.metrics().queued_messages.get(), 0);
    house.publish_qos0(publisher, "shed");
    assert_eq!(house.0.metrics().dropped_memory_qos0.get(), waiting + 1);
    assert_eq!(house.read(subscriber, Version::V5).len() as u64, 10 - waiting);
    house.publish_qos0(publisher, "read");
    assert_eq!(house.read(subscriber, Version::V5), ["read"]);
    assert!(!house.0.note_memory(SHORT), "that is known");
    assert!(house.0.note_memory(AMPLE));
    (0..10).for_each(|_| house.publish_qos0(publisher, "waits"));
    assert!(house.0.metrics().queued_messages.get() > 5);
    assert_eq!(house.0.metrics().limit_memory.get(), 1);
}

#[test]
fn what_would_have_to_be_kept_is_refused_and_what_was_acknowledged_is_not_lost() {
    let mut house = House::new(|_| {});
    let (away, reads, publisher) = (
        house.subscriber("away", 1),
        house.subscriber("reads", 1),
        house.enter("p"),
    );
    house.0.lost(away, "gone", NOW);
    assert_eq!(house.publish(publisher, "one"), "PUBACK 00");
    house.0.note_memory(SHORT);
    assert_eq!(house.publish(publisher, "two"), "PUBACK 00");
    house.0.note_memory(SPENT);
    assert_eq!(house.publish(publisher, "three"), "PUBACK 97");
    assert_eq!(
        house.read(reads, Version::V5),
        ["one", "two"],
        "refused is refused for all"
    );
    house.publish_qos0(publisher, "at once");
    assert_eq!(house.read(reads, Version::V5), ["at once"]);
    assert_eq!(house.0.metrics().refused_memory.get(), 1);
    // Its session is there: it may come, and takes something away.
    let back = house.enter("away");
    assert_eq!(house.read(back, Version::V5), ["CONNACK 00", "one", "two"]);
    assert_eq!(house.publish(publisher, "four"), "PUBACK 00", "nobody has to keep it");
    assert_eq!(house.read(back, Version::V5), ["four"]);
    house.0.lost(back, "gone", NOW);
    house.0.note_memory(AMPLE);
    assert_eq!(house.publish(publisher, "five"), "PUBACK 00");
    let back = house.enter("away");
    assert!(house.read(back, Version::V5).contains(&"five".to_owned()));
}

/// One who is connected and has a moment's work is not slow; for one who is, little waits.
#[test]
fn who_does_not_read_is_not_waited_for() {
    let mut house = House::new(|options| options.delivery.in_flight_max = 2);
    let (slow, publisher) = (house.subscriber("slow", 1), house.enter("p"));
    house.0.note_memory(SPENT);
    let answers: Vec<_> = (0..6).map(|n| house.publish(publisher, &n.to_string())).collect();
    assert_eq!(answers, ["PUBACK 00"; 6], "two under way, and a few that wait");
    let answers: Vec<_> = (b'a'..=b'f').map(|n| house.publish_large(publisher, n)).collect();
    assert_eq!(answers[..4], ["PUBACK 00"; 4]);
    assert_eq!(answers[4..], ["PUBACK 97"; 2]);
    assert_eq!(house.letters(slow), "01");
    for (id, next) in [(1, "23"), (3, "45"), (5, "ab")] {
        house.send(slow, &[0x40, 2, 0, id, 0x40, 2, 0, id + 1]);
        assert_eq!(house.letters(slow), next);
    }
    assert_eq!(house.publish_large(publisher, b'g'), "PUBACK 00");
}

#[test]
fn a_policy_that_drops_goes_on_dropping_and_grows_no_more() {
    let mut house = House::new(|options| options.delivery.outbox.overflow = Overflow::DropOldest);
    let (away, publisher) = (house.subscriber("away", 1), house.enter("p"));
    house.0.lost(away, "gone", NOW);
    for payload in b'a'..=b'e' {
        assert_eq!(house.publish_large(publisher, payload), "PUBACK 00");
    }
    house.0.note_memory(SPENT);
    for payload in b'f'..=b'g' {
        assert_eq!(house.publish_large(publisher, payload), "PUBACK 00");
    }
    let back = house.enter("away");
    assert_eq!(house.letters(back), "Ccdefg", "CONNACK, and as much as before");
    house.0.lost(back, "gone", NOW);
    assert_eq!(house.publish_large(publisher, b'h'), "PUBACK 00");
    let back = house.enter("away");
    assert_eq!(
        house.letters(back),
        "Ccdefgh",
        "there is a little room in an empty queue"
    );
}

#[test]
fn no_retained_message_grows_and_none_is_lost() {
    let mut house = House::new(|_| {});
    let publisher = house.enter("p");
    assert_eq!(house.retain(publisher, b'r', "long enough"), "PUBACK 10");
    house.0.note_memory(SPENT);
    assert_eq!(house.retain(publisher, b'x', "new"), "PUBACK 97");
    assert_eq!(house.retain(publisher, b'r', "even longer than that"), "PUBACK 97");
    assert_eq!(house.retain(publisher, b'r', "shorter"), "PUBACK 10");
    assert_eq!(read(&house.0.broker.retained).len(), 1);
    assert_eq!(house.retain(publisher, b'r', ""), "PUBACK 10", "a topic can be cleared");
    assert_eq!(house.retain(publisher, b'r', "new"), "PUBACK 97");
    house.0.note_memory(AMPLE);
    assert_eq!(house.retain(publisher, b'x', "new"), "PUBACK 10");
}

/// Nobody can be told that a message at QoS 0 is not retained, nor one that was acknowledged and is released now.
#[test]
fn what_is_not_retained_and_cannot_be_refused_reaches_who_is_there() {
    let mut house = House::new(|options| options.qos2_delivery = Qos2Delivery::Release);
    let (subscriber, publisher) = (house.subscriber("s", 1), house.enter("p"));
    house.send(publisher, b"\x35\x0e\x00\x01t\x00\x02\x00released");
    house.0.note_memory(SPENT);
    assert_eq!(house.retain(publisher, b't', "refused"), "PUBACK 97");
    house.send(publisher, b"\x31\x09\x00\x01t\x00qos 0");
    assert_eq!(house.read(subscriber, Version::V5), ["qos 0"]);
    house.send(publisher, b"\x62\x02\x00\x02");
    assert_eq!(house.read(subscriber, Version::V5), ["released"]);
    assert!(read(&house.0.broker.retained).is_empty());
    // What would be kept until it is released is refused at once.
    house.send(publisher, b"\x34\x07\x00\x01t\x00\x03\x00x");
    assert_eq!(house.0.metrics().refused_memory.get(), 2);
}

#[test]
fn who_is_here_may_stay_and_nobody_new_comes() {
    let mut house = House::new(|_| {});
    let known = house.subscriber("known", 1);
    house.0.note_memory(SPENT);
    let stranger = house.enter("stranger");
    assert_eq!(house.read(stranger, Version::V5), ["CONNACK 89"]);
    house.send(known, &[0x82, 7, 0, 1, 0, 0, 1, b'u', 1]);
    house.send(known, &[0x82, 7, 0, 1, 0, 0, 1, b't', 0]);
    assert_eq!(house.read(known, Version::V5), ["SUBACK 97", "SUBACK 00"]);
    house.0.lost(known, "gone", NOW);
    let back = house.enter("known");
    assert_eq!(house.read(back, Version::V5), ["CONNACK 00"]);
    assert_eq!(house.0.metrics().refused_memory.get(), 2);
}

/// Before MQTT 5 nobody can be told but by the end of the connection, which comes late: it will try again at once.
#[test]
fn an_older_client_is_never_acknowledged_what_is_not_kept() {
    let mut house = House::new(|_| {});
    let (away, publisher) = (house.subscriber("away", 1), house.enter_v311("p"));
    house.0.lost(away, "gone", NOW);
    house.0.note_memory(SPENT);
    house.0.receive(publisher, b"\x32\x06\x00\x01t\x00\x01x", NOW);
    assert_eq!(house.read(publisher, Version::V311), [""; 0]);
    assert_eq!(house.0.status(publisher), Status::Waiting);
    house.0.expire(NOW.plus_secs(3));
    assert_eq!(house.0.status(publisher), Status::Closing);
}
