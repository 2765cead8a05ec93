//! Whatever is lost on the way, QoS 1 arrives at least once and QoS 2 once, each in order. Both directions, all versions, against a
//! server that is as plain as can be.

use std::collections::{BTreeSet, VecDeque};

use proptest::prelude::*;

use super::{NOW, ack, connack, id, options};
use crate::client::{Client, ClientOptions, Event, Outgoing};
use crate::codec::{DecodeOptions, Role, decode, encode};
use crate::protocol::packet::{Packet, Publish};
use crate::protocol::property::{Properties, PropertiesBuf, PropertyId};
use crate::protocol::qos::QoS;
use crate::protocol::topic::TopicName;
use crate::protocol::version::Version;

#[derive(Clone, Debug)]
enum Step {
    ClientPublishes(QoS),
    ServerPublishes(QoS),
    /// So many bytes arrive at the server.
    Up(usize),
    /// So many bytes arrive at the client.
    Down(usize),
    /// The client's program takes so many events.
    Take(usize),
    Lose,
}

#[derive(Debug)]
struct Server {
    version: Version,
    is_connected: bool,
    had_session: bool,
    unread: Vec<u8>,
    output: VecDeque<u8>,
    received: Vec<(QoS, u32)>,
    unreleased: BTreeSet<u16>,
    /// Packet identifier, QoS, number, released.
    in_flight: Vec<(u16, QoS, u32, bool)>,
    last_id: u16,
}

impl Server {
    fn new(version: Version) -> Self {
        Self {
            version,
            is_connected: false,
            had_session: false,
            unread: Vec::new(),
            output: VecDeque::new(),
            received: Vec::new(),
            unreleased: BTreeSet::new(),
            in_flight: Vec::new(),
            last_id: 0,
        }
    }

    fn say(&mut self, packet: &Packet<'_>) {
        if self.is_connected {
            let mut bytes = Vec::new();
            encode(packet, self.version, &mut bytes).unwrap();
            self.output.extend(bytes);
        }
    }

    fn publish(&mut self, qos: QoS, number: u32) {
        self.last_id += 1;
        self.in_flight.push((self.last_id, qos, number, false));
        self.say_publish(self.last_id, qos, number, false);
    }

    fn say_publish(&mut self, packet_id: u16, qos: QoS, number: u32, dup: bool) {
        let payload = number.to_string();
        let publish = Publish {
            dup,
            qos,
            retain: false,
            topic: TopicName::parse("t").ok(),
            packet_id: Some(id(packet_id)),
            properties: Properties::EMPTY,
            payload: payload.as_bytes(),
        };
        self.say(&Packet::Publish(publish));
    }

    fn lose(&mut self) {
        self.is_connected = false;
        self.unread.clear();
        self.output.clear();
    }

    fn receive(&mut self, bytes: &[u8]) {
        self.unread.extend_from_slice(bytes);
        let unread = std::mem::take(&mut self.unread);
        let mut at = 0;
        loop {
            let version = Some(self.version).filter(|_| self.is_connected);
            let read = decode(&unread[at..], version, Role::Server, &DecodeOptions::default()).unwrap();
            let Some((packet, count)) = read else { break };
            at += count;
            self.take(&packet);
        }
        self.unread = unread[at..].to_vec();
    }

    fn take(&mut self, packet: &Packet<'_>) {
        match packet {
            Packet::Connect(connect) => {
                assert!(
                    !connect.clean_start || !self.had_session,
                    "the session is asked for again"
                );
                self.is_connected = true;
                let is_present = self.had_session && self.version != Version::V31;
                self.had_session = true;
                self.say(&connack(is_present, &PropertiesBuf::new()));
                for (packet_id, qos, number, is_released) in self.in_flight.clone() {
                    if is_released {
                        self.say(&Packet::PubRel(ack(packet_id)));
                    } else {
                        self.say_publish(packet_id, qos, number, true);
                    }
                }
            }
            Packet::Publish(publish) => {
                let number = std::str::from_utf8(publish.payload).unwrap().parse().unwrap();
                let packet_id = publish.packet_id.unwrap().get();
                if publish.qos == QoS::AtLeastOnce {
                    self.received.push((QoS::AtLeastOnce, number));
                    self.say(&Packet::PubAck(ack(packet_id)));
                } else {
                    if self.unreleased.insert(packet_id) {
                        self.received.push((QoS::ExactlyOnce, number));
                    }
                    self.say(&Packet::PubRec(ack(packet_id)));
                }
            }
            Packet::PubRel(release) => {
                self.unreleased.remove(&release.packet_id.get());
                self.say(&Packet::PubComp(ack(release.packet_id.get())));
            }
            Packet::PubRec(received) => {
                let packet_id = received.packet_id.get();
                for sent in self.in_flight.iter_mut().filter(|sent| sent.0 == packet_id) {
                    sent.3 = true;
                }
                self.say(&Packet::PubRel(ack(packet_id)));
            }
            Packet::PubAck(done) | Packet::PubComp(done) => {
                self.in_flight.retain(|sent| sent.0 != done.packet_id.get());
            }
            other => panic!("{other:?}"),
        }
    }
}

struct World {
    client: Client,
    server: Server,
    unread: Vec<u8>,
    received: Vec<(QoS, u32)>,
    sent: [Vec<(QoS, u32)>; 2],
}

impl World {
    fn new(version: Version) -> Self {
        let mut properties = PropertiesBuf::new();
        properties.push_u32(PropertyId::SessionExpiryInterval, u32::MAX);
        let mut client = Client::new(ClientOptions {
            clean_start: false,
            in_flight_max: 4,
            properties,
            ..options(version)
        });
        client.connect(NOW);
        Self {
            client,
            server: Server::new(version),
            unread: Vec::new(),
            received: Vec::new(),
            sent: [Vec::new(), Vec::new()],
        }
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::ClientPublishes(qos) => {
                let number = self.sent[0].len() as u32;
                self.sent[0].push((qos, number));
                let message = Outgoing::new("t", number.to_string()).qos(qos);
                self.client.publish(message, NOW).unwrap();
            }
            Step::ServerPublishes(qos) => {
                let number = self.sent[1].len() as u32;
                self.sent[1].push((qos, number));
                self.server.publish(qos, number);
            }
            Step::Up(count) => {
                let bytes = self.client.output().to_vec();
                let count = count.min(bytes.len());
                self.client.sent(count, NOW);
                self.server.receive(&bytes[..count]);
            }
            Step::Down(count) => {
                let count = count.min(self.server.output.len());
                self.unread.extend(self.server.output.drain(..count));
                let taken = self.client.receive(&self.unread, NOW);
                self.unread.drain(..taken);
            }
            Step::Take(count) => {
                for _ in 0..count {
                    match self.client.next_event() {
                        Some(Event::Message(message)) => {
                            let number = std::str::from_utf8(&message.payload).unwrap().parse().unwrap();
                            self.received.push((message.qos, number));
                        }
                        Some(Event::Disconnected(fault)) => assert!(fault.is_passing(), "{fault}"),
                        _ => {}
                    }
                }
            }
            Step::Lose => {
                self.unread.clear();
                self.server.lose();
                self.client.lost("torn");
                self.client.connect(NOW);
            }
        }
    }

    fn settle(&mut self) {
        for _ in 0..200 {
            for step in [Step::Up(usize::MAX), Step::Down(usize::MAX), Step::Take(1000)] {
                self.step(&step);
            }
        }
        assert!(
            self.client.is_idle() && self.server.in_flight.is_empty(),
            "everything is acknowledged"
        );
        for (sent, received) in [(&self.sent[0], &self.server.received), (&self.sent[1], &self.received)] {
            let of = |messages: &[(QoS, u32)], wanted: QoS| -> Vec<u32> {
                messages
                    .iter()
                    .filter(|(qos, _)| *qos == wanted)
                    .map(|(_, number)| *number)
                    .collect()
            };
            assert_eq!(
                of(received, QoS::ExactlyOnce),
                of(sent, QoS::ExactlyOnce),
                "exactly once, in order"
            );
            let mut seen = BTreeSet::new();
            let mut first = of(received, QoS::AtLeastOnce);
            first.retain(|number| seen.insert(*number));
            assert_eq!(first, of(sent, QoS::AtLeastOnce), "at least once, first times in order");
        }
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let qos = || prop_oneof![Just(QoS::AtLeastOnce), Just(QoS::ExactlyOnce)];
    let step = prop_oneof![
        2 => qos().prop_map(Step::ClientPublishes),
        2 => qos().prop_map(Step::ServerPublishes),
        3 => (1..60usize).prop_map(Step::Up),
        3 => (1..60usize).prop_map(Step::Down),
        2 => (1..4usize).prop_map(Step::Take),
        1 => Just(Step::Lose),
    ];
    prop::collection::vec(step, 0..120)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) })]

    #[test]
    fn nothing_is_lost_and_qos_2_comes_once(
        version in prop_oneof![Just(Version::V31), Just(Version::V311), Just(Version::V5)],
        steps in steps(),
    ) {
        let mut world = World::new(version);
        for step in &steps {
            world.step(step);
        }
        world.settle();
    }
}
