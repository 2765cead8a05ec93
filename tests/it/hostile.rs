//! A broker under hostile bytes: nothing but the connection they came on is lost, and nothing grows.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};

use sundew::protocol::property::{PropertiesBuf, PropertyId};
use sundew::protocol::version::Version;

use crate::broker::{BOTH, Broker, story};
use crate::wire::{self, Connect, PUBACK, PUBREC, PUBREL, Publish, Will};

/// Connections with spoiled packets, for each version and number of workers. `SUNDEW_TEST_LONG` makes it a million.
fn inputs() -> u64 {
    if std::env::var_os("SUNDEW_TEST_LONG").is_some() {
        250_000
    } else {
        5_000
    }
}

#[test]
fn spoiled_sessions_cost_their_connection_and_nothing_grows() {
    story(BOTH, |broker, version| {
        let mut canary = broker.client("canary", version);
        canary.subscribe("canary", 1);
        let mut random = Random(0x9E37_79B9_7F4A_7C15 ^ u64::from(version.level()));
        let mut resident_at_first = 0;
        for round in 0..inputs() {
            send(broker, &spoiled_session(version, &mut random));
            if round % 250 == 249 {
                canary.publish(Publish::new("canary", round.to_string(), 1));
                canary.expect_text("canary", &round.to_string());
            }
            if round == inputs() / 4 {
                resident_at_first = resident_bytes();
            }
        }
        let grown = resident_bytes().saturating_sub(resident_at_first);
        // Other stories run in this process at the same time: a leak of a session for each input would still stand out.
        assert!(grown < 512 << 20, "{} MiB more", grown >> 20);
    });
}

/// Sends, says that it has finished, and reads what comes until the broker closes or has nothing more to say.
fn send(broker: &Broker, bytes: &[u8]) {
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", broker.port)) else {
        panic!("the broker accepts no more")
    };
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(Shutdown::Write);
    stream.set_read_timeout(Some(crate::client::PATIENCE)).unwrap();
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer);
    let is_timeout = read.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock);
    assert!(!is_timeout, "neither closed nor answered: {bytes:02x?}");
}

/// A session that makes sense, with some of its bytes changed, left out, doubled or put in.
fn spoiled_session(version: Version, random: &mut Random) -> Vec<u8> {
    let mut bytes = session(version, random);
    for _ in 0..random.below(6) {
        let at = random.below(bytes.len());
        match random.below(5) {
            0 => bytes[at] = random.next() as u8,
            1 => bytes[at] ^= 1 << random.below(8),
            2 => drop(bytes.remove(at)),
            3 => bytes.insert(at, random.next() as u8),
            _ => {
                let end = (at + random.below(20)).min(bytes.len());
                let copy = bytes[at..end].to_vec();
                bytes.splice(at..at, copy);
            }
        }
        if bytes.is_empty() {
            bytes.push(0);
        }
    }
    bytes
}

fn session(version: Version, random: &mut Random) -> Vec<u8> {
    let client_id = format!("h{}", random.below(50));
    let will = (random.below(3) == 0).then(|| Will {
        topic: "hostile/will",
        payload: b"x",
        qos: 1,
        ..Will::default()
    });
    let connect = Connect {
        client_id: &client_id,
        clean: random.below(2) == 0,
        will,
        ..Connect::default()
    };
    let mut bytes = connect.encode(version);
    for _ in 0..random.below(8) {
        let id = 1 + random.below(9) as u16;
        let qos = random.below(3) as u8;
        let mut message = Publish::new(["hostile/a", "hostile/b/c", "h"][random.below(3)], "payload", qos);
        message.packet_id = if qos > 0 { id } else { 0 };
        message.retain = random.below(4) == 0;
        if version.has_properties() && random.below(2) == 0 {
            message = message.with(|p| {
                p.push_user_property("k", "v")
                    .push_u32(PropertyId::MessageExpiryInterval, 5)
                    .push_u16(PropertyId::TopicAlias, 1)
            });
        }
        let none = PropertiesBuf::new();
        bytes.extend(match random.below(7) {
            0 => wire::subscribe(version, id, &none, &[("hostile/#", qos), ("$share/g/h", 1)]),
            1 => wire::unsubscribe(version, id, &["hostile/#"]),
            2 => wire::ack([PUBACK, PUBREC, PUBREL, wire::PUBCOMP][random.below(4)], id),
            3 => wire::PINGREQ.to_vec(),
            _ => message.encode(version),
        });
    }
    if random.below(2) == 0 {
        bytes.extend(wire::disconnect(version, 0, &PropertiesBuf::new()));
    }
    bytes
}

/// The same numbers on every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() >> 16) as usize % bound
    }
}

/// Memory of this process.
pub(crate) fn resident_bytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<usize>().ok())
        .unwrap_or(0)
        << 10
}
