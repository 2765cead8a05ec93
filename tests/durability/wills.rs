//! A broker that is killed when it has just let a client in: the will is there, and what is due is done before anybody connects.

use std::net::SocketAddr;

use sundew::protocol::property::{PropertiesBuf, PropertyId};
use sundew::protocol::version::Version;

use crate::link::Link;
use crate::program::Start;
use crate::publisher::connect;
use crate::rounds;
use crate::wire::{self, Packet, Publish, Will};

/// The retained messages below `w`, as their number.
fn retained(address: SocketAddr, client_id: &str) -> Vec<usize> {
    let (mut link, _) = Link::open(address, Version::V5, &connect(client_id, Version::V5, false)).unwrap();
    let none = PropertiesBuf::new();
    link.send(&wire::subscribe(Version::V5, 1, &none, &[("w/#", 0)]))
        .unwrap();
    let packets = link.until_pong().unwrap();
    let number = |packet: &Packet| match packet {
        Packet::Publish(Publish { payload, .. }) => Some(std::str::from_utf8(payload).unwrap().parse().unwrap()),
        _ => None,
    };
    packets.iter().filter_map(number).collect()
}

#[test]
fn the_will_of_whoever_was_just_let_in_is_published_before_anybody_connects() {
    let folder = tempfile::tempdir().unwrap();
    let start = Start::on(&folder.path().join("data"), "interval").with("will_grace = \"0s\"");
    for round in 0..rounds("SUNDEW_KILL_ROUNDS", 4, 20) {
        let version = [Version::V311, Version::V5][round % 2];
        let is_lasting = round % 4 > 1;
        let topic = format!("w/{round}");
        let payload = round.to_string();
        let mut will = Will {
            topic: &topic,
            payload: payload.as_bytes(),
            qos: 1,
            retain: true,
            ..Will::default()
        };
        if version == Version::V5 {
            // Until then, or until the session is over: where it does not outlive its connection, that was at the stop.
            will.properties.push_u32(PropertyId::WillDelayInterval, 3600);
        }
        let broker = start.start();
        let mut connect = connect("c", version, is_lasting);
        connect.will = Some(will);
        Link::open(broker.address(), version, &connect).unwrap();
        broker.kill();

        let broker = start.start();
        let is_due = version != Version::V5 || !is_lasting;
        assert_eq!(
            retained(broker.address(), "witness").contains(&round),
            is_due,
            "round {round}"
        );
        let (code, log) = broker.terminate();
        assert_eq!(code, Some(0), "{}", log.join("\n"));
    }
}

#[test]
fn a_will_that_waited_for_its_delay_is_published_when_its_session_is_begun_anew_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let start = Start::on(&folder.path().join("data"), "interval");
    let broker = start.start();
    let mut will = Will {
        topic: "w/7",
        payload: b"7",
        qos: 1,
        retain: true,
        ..Will::default()
    };
    will.properties.push_u32(PropertyId::WillDelayInterval, 3600);
    let mut first = connect("c", Version::V5, true);
    first.will = Some(will);
    Link::open(broker.address(), Version::V5, &first).unwrap();
    // The client is let go with the broker, in order: its delay runs.
    broker.terminate();

    let broker = start.start();
    assert!(retained(broker.address(), "witness").is_empty());
    let anew = connect("c", Version::V5, false);
    let (_link, is_present) = Link::open(broker.address(), Version::V5, &anew).unwrap();
    assert!(!is_present);
    assert_eq!(
        retained(broker.address(), "witness"),
        [7],
        "the session has ended [MQTT-3.1.2-8]"
    );
}
