//! What of a session, a subscription and a message is there after SIGKILL: all of it, as long as it has not expired meanwhile.

use std::collections::BTreeSet;
use std::fs;
use std::time::{Duration, Instant};

use sundew::protocol::property::{PropertiesBuf, PropertyId};
use sundew::protocol::version::Version;

use crate::link::Link;
use crate::program::Start;
use crate::talker::{Outcome, Talker};
use crate::wire::{self, Connect, PUBACK, Packet, Publish};

/// A client of 5.0 whose session stays so many seconds.
fn lasting(client_id: &str, seconds: u32) -> Connect<'_> {
    let connect = Connect {
        client_id,
        clean: false,
        ..Connect::default()
    };
    connect.with(|properties| properties.push_u32(PropertyId::SessionExpiryInterval, seconds))
}

/// Subscribes and leaves.
fn leave_subscribed(start: std::net::SocketAddr, connect: &Connect<'_>, filter: (&str, u8), identifier: u32) {
    let (mut link, _) = Link::open(start, Version::V5, connect).unwrap();
    let mut properties = PropertiesBuf::new();
    properties.push_varint(PropertyId::SubscriptionIdentifier, identifier);
    link.send(&wire::subscribe(Version::V5, 1, &properties, &[filter]))
        .unwrap();
    assert!(matches!(link.wait().unwrap(), Packet::SubAck { reasons, .. } if reasons[0] < 3));
    link.send(&wire::disconnect(Version::V5, 0, &PropertiesBuf::new()))
        .unwrap();
    while link.look().is_ok() {}
}

/// Publishes at QoS 1 and waits for the PUBACK.
fn publish(link: &mut Link, message: &Publish) {
    link.send(&message.encode(Version::V5)).unwrap();
    let answer = link.wait().unwrap();
    assert!(
        matches!(&answer, Packet::PubAck(ack) if ack.reason < 0x80),
        "{answer:?}"
    );
}

fn message(link: &mut Link) -> Publish {
    match link.wait().unwrap() {
        Packet::Publish(message) => {
            if message.qos == 1 {
                link.send(&wire::ack(PUBACK, message.packet_id)).unwrap();
            }
            message
        }
        packet => panic!("a message, but there came {packet:?}"),
    }
}

/// The properties of a message but for what counts down, which is given beside.
fn described(message: &Publish) -> (Vec<String>, Option<u32>) {
    let view = message.properties.view();
    let expiry = view.u32(PropertyId::MessageExpiryInterval);
    let others = view.iter().filter(|(id, _)| *id != PropertyId::MessageExpiryInterval);
    (
        others.map(|(id, value)| format!("{} {value:?}", id.name())).collect(),
        expiry,
    )
}

#[test]
fn subscriptions_keep_their_options_and_messages_their_properties() {
    let folder = tempfile::tempdir().unwrap();
    let start = Start::on(&folder.path().join("data"), "interval");
    let program = start.start();
    const NO_LOCAL: u8 = 0x04;
    const RETAIN_AS_PUBLISHED: u8 = 0x08;
    let options = 1 | NO_LOCAL | RETAIN_AS_PUBLISHED;
    leave_subscribed(program.address(), &lasting("subscriber", 1000), ("a/#", options), 42);
    let sent = Publish::new("a/b", "value", 1).retained().with(|properties| {
        properties
            .push_byte(PropertyId::PayloadFormatIndicator, 1)
            .push_u32(PropertyId::MessageExpiryInterval, 1000)
            .push_text(PropertyId::ContentType, "text/plain")
            .push_text(PropertyId::ResponseTopic, "answers")
            .push_binary(PropertyId::CorrelationData, b"\x00\xff")
            .push_user_property("b", "1")
            .push_user_property("a", "2")
    });
    let (mut publisher, _) = Link::open(program.address(), Version::V5, &Connect::default()).unwrap();
    publish(&mut publisher, &sent);
    program.kill();

    let program = start.start();
    let (mut link, session_present) = Link::open(program.address(), Version::V5, &lasting("subscriber", 1000)).unwrap();
    assert!(session_present);
    let waited = message(&mut link);
    let (mut properties, expiry) = described(&waited);
    let (expected, _) = described(&sent);
    let identifier = format!("{} VarInt(42)", PropertyId::SubscriptionIdentifier.name());
    let at = properties.iter().position(|property| *property == identifier);
    properties.remove(at.expect("its subscription identifier"));
    assert_eq!(properties, expected);
    assert!(
        expiry.is_some_and(|left| (900..=1000).contains(&left)),
        "{expiry:?} left of 1000 s"
    );
    assert!(waited.retain, "as published");
    assert_eq!(waited.payload, b"value");
    link.send(&Publish::new("a/own", "x", 0).encode(Version::V5)).unwrap();
    assert_eq!(link.until_pong().unwrap(), [], "no local");
    link.send(&wire::unsubscribe(Version::V5, 9, &["a/#"])).unwrap();
    assert!(matches!(link.wait().unwrap(), Packet::UnsubAck { reasons, .. } if reasons == [0]));

    let (mut late, _) = Link::open(program.address(), Version::V5, &Connect::default()).unwrap();
    late.send(&wire::subscribe(Version::V5, 1, &PropertiesBuf::new(), &[("a/b", 0)]))
        .unwrap();
    let Packet::SubAck { .. } = late.wait().unwrap() else {
        panic!("SUBACK")
    };
    let retained = message(&mut late);
    assert_eq!(described(&retained).0, expected);
    assert!(retained.retain);
}

/// Time goes on while the broker is away, whichever way it went.
#[test]
fn what_expires_while_the_broker_is_away_is_gone() {
    for is_killed in [true, false] {
        let folder = tempfile::tempdir().unwrap();
        let start = Start::on(&folder.path().join("data"), "interval");
        let program = start.start();
        let address = program.address();
        leave_subscribed(address, &lasting("short", 2), ("a/#", 1), 1);
        leave_subscribed(address, &lasting("long", 1000), ("a/#", 1), 1);
        let since = Instant::now();
        let (mut publisher, _) = Link::open(address, Version::V5, &Connect::default()).unwrap();
        for (payload, seconds) in [("short", 2), ("long", 1000)] {
            let topic = format!("a/{payload}");
            let expiring = Publish::new(&topic, payload, 1).retained();
            publish(
                &mut publisher,
                &expiring.with(|p| p.push_u32(PropertyId::MessageExpiryInterval, seconds)),
            );
        }
        if is_killed {
            program.kill();
        } else {
            program.terminate();
        }
        assert!(since.elapsed() < Duration::from_secs(2), "too slow to tell this story");
        std::thread::sleep(Duration::from_millis(3100).saturating_sub(since.elapsed()));

        let program = start.start();
        let open = |client_id| Link::open(program.address(), Version::V5, &lasting(client_id, 1000)).unwrap();
        assert!(!open("short").1, "a session that has expired");
        let (mut long, session_present) = open("long");
        assert!(session_present);
        let waited = message(&mut long);
        assert_eq!(waited.payload, b"long", "a message that has expired");
        let (_, left) = described(&waited);
        assert!(left.is_some_and(|left| left <= 997), "{left:?} s left of 1000 after 3");
        let (mut late, _) = Link::open(program.address(), Version::V5, &Connect::default()).unwrap();
        late.send(&wire::subscribe(Version::V5, 1, &PropertiesBuf::new(), &[("a/#", 0)]))
            .unwrap();
        let Packet::SubAck { .. } = late.wait().unwrap() else {
            panic!("SUBACK")
        };
        assert_eq!(message(&mut late).payload, b"long");
        assert_eq!(late.until_pong().unwrap(), [], "a retained message that has expired");
    }
}

/// Retained messages that a new subscription is still to get at the end of the process come after it: those of QoS 1, all of which may come
/// again, but none of QoS 2.
#[test]
fn the_way_through_the_retained_messages_begins_anew_after_a_restart() {
    const RETAINED: usize = 300;
    for is_killed in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let start = Start::on(&folder.path().join("data"), "interval");
        let program = start.start();
        let mut publisher = Talker::connect(program.address(), Version::V5, "publisher", false).unwrap();
        let topics: BTreeSet<_> = (0..RETAINED).map(|number| format!("r/{number}")).collect();
        for (number, topic) in topics.iter().enumerate() {
            let qos = if number % 50 == 0 { 2 } else { 1 };
            assert_eq!(publisher.publish(topic, b"x", qos, true), Outcome::Acknowledged);
        }
        let few = lasting("c", 1000).with(|properties| properties.push_u16(PropertyId::ReceiveMaximum, 20));
        let (mut link, _) = Link::open(program.address(), Version::V5, &few).unwrap();
        link.send(&wire::subscribe(Version::V5, 1, &PropertiesBuf::new(), &[("r/#", 2)]))
            .unwrap();
        for _ in 0..21 {
            link.wait().unwrap(); // SUBACK, and nothing is acknowledged
        }
        if is_killed {
            program.kill();
        } else {
            program.terminate();
        }

        let program = start.start();
        let mut client = Talker::connect_as(program.address(), Version::V5, &lasting("c", 1000)).unwrap();
        assert!(client.session_present);
        let came = client.messages(10 * RETAINED).unwrap();
        let of_qos = |qos| came.iter().filter(move |message| message.qos == qos);
        let mut of_qos_2: Vec<_> = of_qos(2).map(|message| &message.topic).collect();
        of_qos_2.sort_unstable();
        assert!(of_qos_2.is_sorted_by(|a, b| a < b), "twice at QoS 2: {of_qos_2:?}");
        let of_qos_1: BTreeSet<_> = of_qos(1).map(|message| &message.topic).collect();
        assert_eq!(of_qos_1.len(), RETAINED - RETAINED / 50, "{of_qos_1:?}");
        assert!(topics.len() == RETAINED && came.iter().all(|message| topics.contains(&message.topic)));
        drop(client);
        program.terminate();

        let program = start.start();
        let mut client = Talker::connect_as(program.address(), Version::V5, &lasting("c", 1000)).unwrap();
        assert_eq!(client.messages(1).unwrap(), [], "it has come to its end");
    }
}

#[test]
fn a_directory_has_one_broker_and_the_other_is_told_which() {
    let folder = tempfile::tempdir().unwrap();
    let start = Start::on(&folder.path().join("data"), "interval");
    let first = start.start();
    let pid = fs::read_to_string(folder.path().join("data/lock")).unwrap();
    let mut second = start.spawn();
    let (code, log) = second.end();
    assert!(code.is_some_and(|code| code != 0));
    let is_named = log
        .iter()
        .any(|line| line.contains("ERROR") && line.contains(pid.trim()));
    assert!(is_named && !pid.trim().is_empty(), "{log:?}");
    first.kill();
    start.start(); // a broker that is no more locks nobody out
}
