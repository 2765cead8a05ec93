//! What outlives a connection: sessions, their expiry, what is kept in them and sent again.

use std::thread::sleep;
use std::time::Duration;

use sundew::protocol::property::{PropertiesBuf, PropertyId};
use sundew::protocol::version::Version;

use crate::broker::{ALL, BOTH, V5, story};
use crate::wire::{self, Connect, PUBACK, PUBCOMP, PUBREC, PUBREL, Packet, Publish};

/// [MQTT-3.1.2-4] [MQTT-3.1.2-5] [MQTT-3.1.2-6] [MQTT-3.1.2-23] [MQTT-3.1.4-4] [MQTT-3.2.2-1] [MQTT-3.2.2-2] [MQTT-3.2.2-3]
/// [MQTT311-3.1.2-4] [MQTT311-3.1.2-6] [MQTT311-3.1.4-3] [MQTT311-3.2.2-1] [MQTT311-3.2.2-2] [MQTT311-3.2.2-3]
#[test]
fn session_present_tells_whether_there_was_one() {
    story(BOTH, |broker, version| {
        let keep = Connect::lasting("c", version);
        let clean = Connect {
            client_id: "c",
            ..Connect::default()
        };
        for (connect, expected) in [
            (&keep, false),
            (&keep, true),
            (&keep, true),
            (&clean, false),
            (&clean, false),
            (&keep, false),
            (&keep, true),
        ] {
            let (client, session_present) = broker.connect(version, connect);
            assert_eq!(session_present, expected, "clean: {}", connect.clean);
            client.disconnect();
        }
    });
}

/// [MQTT-4.5.0-1] [MQTT-4.1.0-1] [MQTT311-3.1.2-5] [MQTT311-4.5.0-1] [MQTT311-4.1.0-1] [MQTT311-4.1.0-2]
#[test]
fn messages_for_an_absent_client_wait_in_order() {
    story(ALL, |broker, version| {
        let keep = Connect::lasting("c", version);
        let (mut client, _) = broker.connect(version, &keep);
        client.subscribe_many(&PropertiesBuf::new(), &[("one/#", 1), ("two/#", 2)]);
        client.disconnect();
        let mut publisher = broker.client("p", version);
        for number in 0..50 {
            let qos = 1 + number % 2;
            publisher.publish(Publish::new(
                ["one/a", "two/b"][usize::from(qos) - 1],
                number.to_string(),
                qos,
            ));
        }
        let (mut client, _) = broker.connect(version, &keep);
        for number in 0..50 {
            let message = client.expect_message();
            assert_eq!(
                (message.text(), message.qos, message.dup),
                (number.to_string().as_str(), 1 + number % 2, false)
            );
        }
        publisher.expect_nothing_sent_to(&mut client);
    });
}

/// [MQTT-3.1.2-4] [MQTT311-3.1.2-6]
#[test]
fn a_clean_start_forgets_subscriptions_and_messages() {
    story(ALL, |broker, version| {
        let (mut client, _) = broker.connect(version, &Connect::lasting("c", version));
        client.subscribe("a", 1);
        client.disconnect();
        let mut publisher = broker.client("p", version);
        publisher.publish(Publish::new("a", "waits", 1));
        broker.client("c", version).disconnect();
        let (mut client, session_present) = broker.connect(version, &Connect::lasting("c", version));
        assert!(!session_present);
        publisher.publish(Publish::new("a", "nobody is subscribed", 1));
        publisher.expect_nothing_sent_to(&mut client);
    });
}

/// [MQTT311-3.1.2-6]
#[test]
fn a_clean_session_ends_with_its_connection() {
    story(ALL, |broker, version| {
        let mut client = broker.client("c", version);
        client.subscribe("a", 1);
        client.disconnect();
        broker
            .client("p", version)
            .publish(Publish::new("a", "nobody is there", 1));
        let (mut client, session_present) = broker.connect(version, &Connect::lasting("c", version));
        assert!(!session_present);
        broker.client("p", version).expect_nothing_sent_to(&mut client);
    });
}

/// [MQTT-4.1.0-2]
#[test]
fn a_session_ends_when_its_expiry_interval_has_passed() {
    story(V5, |broker, version| {
        let connect = |seconds: Option<u32>| Connect {
            clean: false,
            properties: seconds.map(expiry).unwrap_or_default(),
            ..Connect::default()
        };
        let (client, _) = broker.connect(version, &connect(Some(1)));
        client.disconnect();
        let (client, session_present) = broker.connect(version, &connect(Some(1)));
        assert!(session_present, "within the interval");
        client.disconnect();
        sleep(Duration::from_millis(2_100));
        let (client, session_present) = broker.connect(version, &connect(None));
        assert!(!session_present, "after the interval");
        client.disconnect();
        let (client, session_present) = broker.connect(version, &connect(Some(u32::MAX)));
        assert!(!session_present, "no interval is 0");
        client.disconnect();
        assert!(broker.connect(version, &connect(None)).1, "0xFFFFFFFF never expires");
    });
}

/// A session that is connected does not expire, and its time starts anew each time it is left.
#[test]
fn the_expiry_interval_counts_from_the_end_of_the_connection() {
    story(V5, |broker, version| {
        let keep = Connect {
            clean: false,
            properties: expiry(1),
            ..Connect::default()
        };
        let (mut client, _) = broker.connect(version, &keep);
        sleep(Duration::from_millis(1_600));
        client.expect_ping_answered();
        client.disconnect();
        assert!(broker.connect(version, &keep).1);
    });
}

/// [MQTT 5 section 3.14.2.2.2]
#[test]
fn a_disconnect_can_change_the_session_expiry_but_not_bring_it_back() {
    story(V5, |broker, version| {
        let keep = |seconds| Connect {
            clean: false,
            properties: expiry(seconds),
            ..Connect::default()
        };
        let (mut client, _) = broker.connect(version, &keep(1000));
        client.disconnect_with(0, &expiry(0));
        let (mut client, session_present) = broker.connect(version, &keep(1));
        assert!(!session_present, "ended at DISCONNECT");
        client.disconnect_with(0, &expiry(1000));
        sleep(Duration::from_millis(1_800));
        let (client, session_present) = broker.connect(version, &keep(0));
        assert!(session_present, "prolonged at DISCONNECT");
        client.disconnect();
        let (mut client, session_present) = broker.connect(version, &keep(0));
        assert!(!session_present);
        client.send(&wire::disconnect(version, 0, &expiry(1000)));
        client.expect_disconnect(0x82);
    });
}

/// [MQTT-4.4.0-1] [MQTT-3.3.1-1] [MQTT-4.3.2-3] [MQTT-4.3.3-3] [MQTT-4.6.0-1] [MQTT311-4.4.0-1] [MQTT311-3.3.1-1]
/// [MQTT311-4.6.0-1] [MQTT311-2.3.1-3] [MQTT311-2.3.1-4]
#[test]
fn unacknowledged_messages_are_sent_again_on_resume_with_dup_same_ids_and_order() {
    story(ALL, |broker, version| {
        let keep = Connect::lasting("c", version);
        let (mut client, _) = broker.connect(version, &keep);
        client.subscribe("a", 2);
        let mut publisher = broker.client("p", version);
        for number in 0..6 {
            publisher.publish(Publish::new("a", number.to_string(), 1 + number % 2));
        }
        let sent: Vec<_> = (0..6).map(|_| client.expect_publish()).collect();
        assert!(sent.iter().all(|message| !message.dup));
        drop(client);
        for _ in 0..2 {
            let (mut client, session_present) = broker.connect(version, &keep);
            assert!(session_present || version == Version::V31);
            for message in &sent {
                assert_eq!(client.expect_publish(), message.clone().again());
            }
            client.expect_ping_answered();
        }
        let (mut client, _) = broker.connect(version, &keep);
        for message in &sent {
            assert_eq!(client.expect_message(), message.clone().again());
        }
        client.disconnect();
        let (mut client, _) = broker.connect(version, &keep);
        publisher.expect_nothing_sent_to(&mut client);
    });
}

/// [MQTT-4.4.0-1] [MQTT311-4.4.0-1]
#[test]
fn nothing_is_sent_again_on_a_connection_that_lives() {
    story(BOTH, |broker, version| {
        let mut client = broker.client("c", version);
        client.subscribe("a", 2);
        let mut publisher = broker.client("p", version);
        publisher.publish(Publish::new("a", "one", 1));
        publisher.publish(Publish::new("a", "two", 2));
        let (one, two) = (client.expect_publish(), client.expect_publish());
        sleep(Duration::from_millis(1_200));
        client.expect_ping_answered();
        client.send(&[wire::ack(PUBACK, one.packet_id), wire::ack(PUBREC, two.packet_id)].concat());
        client.await_ack(PUBREL, two.packet_id);
        sleep(Duration::from_millis(1_200));
        client.expect_ping_answered();
    });
}

/// [MQTT-4.3.3-4] [MQTT-4.3.3-5] [MQTT-4.3.3-6] [MQTT311-4.3.3-1]
#[test]
fn on_resume_a_pubrel_is_sent_where_the_publish_has_been_received() {
    story(ALL, |broker, version| {
        let keep = Connect::lasting("c", version);
        let (mut client, _) = broker.connect(version, &keep);
        client.subscribe("a", 2);
        broker.client("p", version).publish(Publish::new("a", "x", 2));
        let id = client.expect_publish().packet_id;
        client.send(&wire::ack(PUBREC, id));
        client.await_ack(PUBREL, id);
        drop(client);
        for _ in 0..2 {
            let (mut client, _) = broker.connect(version, &keep);
            client.await_ack(PUBREL, id);
            client.expect_ping_answered();
        }
        let (mut client, _) = broker.connect(version, &keep);
        client.await_ack(PUBREL, id);
        client.send(&wire::ack(PUBCOMP, id));
        client.expect_ping_answered();
        client.disconnect();
        broker.connect(version, &keep).0.expect_ping_answered();
    });
}

/// [MQTT-4.3.3-10] [MQTT-4.3.3-12] [MQTT311-4.3.3-2]
#[test]
fn a_qos_2_message_published_twice_over_a_reconnect_arrives_once() {
    story(ALL, |broker, version| {
        let mut subscriber = broker.client("s", version);
        subscriber.subscribe("a", 2);
        let keep = Connect::lasting("p", version);
        let (mut publisher, _) = broker.connect(version, &keep);
        let message = Publish::new("a", "once", 2).id(7);
        publisher.send(&message.encode(version));
        publisher.await_ack(PUBREC, 7);
        drop(publisher);
        for _ in 0..3 {
            let (mut publisher, _) = broker.connect(version, &keep);
            publisher.send(&message.clone().again().encode(version));
            publisher.await_ack(PUBREC, 7);
        }
        let (mut publisher, _) = broker.connect(version, &keep);
        publisher.send(&wire::ack(PUBREL, 7));
        publisher.await_ack(PUBCOMP, 7);
        subscriber.expect_text("a", "once");
        publisher.send(&message.encode(version));
        publisher.await_ack(PUBREC, 7);
        publisher.send(&wire::ack(PUBREL, 7));
        publisher.await_ack(PUBCOMP, 7);
        subscriber.expect_text("a", "once");
        publisher.expect_nothing_sent_to(&mut subscriber);
    });
}

/// [MQTT-4.4.0-2]
#[test]
fn a_message_that_was_refused_is_not_sent_again() {
    story(V5, |broker, version| {
        let keep = Connect::lasting("c", version);
        let (mut client, _) = broker.connect(version, &keep);
        client.subscribe("a", 2);
        let mut publisher = broker.client("p", version);
        publisher.publish(Publish::new("a", "one", 1));
        publisher.publish(Publish::new("a", "two", 2));
        let (one, two) = (client.expect_publish(), client.expect_publish());
        client.send(&wire::ack_with(PUBACK, one.packet_id, 0x80));
        client.send(&wire::ack_with(PUBREC, two.packet_id, 0x83));
        client.expect_ping_answered();
        client.disconnect();
        let (mut client, session_present) = broker.connect(version, &keep);
        assert!(session_present);
        client.expect_ping_answered();
    });
}

/// Subscriptions and messages in flight stay what they were when the client comes back with another version.
#[test]
fn a_session_goes_on_in_another_version() {
    story(&[Version::V311], |broker, _| {
        let (mut client, _) = broker.connect(Version::V5, &Connect::lasting("c", Version::V5));
        client.subscribe_with_id("a", 1, 5);
        client.disconnect();
        let mut publisher = broker.client("p", Version::V5);
        publisher.publish(Publish::new("a", "x", 1).with(|p| p.push_user_property("k", "v")));
        let (mut client, session_present) = broker.connect(Version::V311, &Connect::lasting("c", Version::V311));
        assert!(session_present);
        client.expect_text("a", "x");
        client.disconnect();
        publisher.publish(Publish::new("a", "y", 1).with(|p| p.push_user_property("k", "v")));
        let (mut client, session_present) = broker.connect(Version::V5, &Connect::lasting("c", Version::V5));
        assert!(session_present);
        let message = client.expect_text("a", "y");
        assert_eq!(
            message.properties.view().user_properties().collect::<Vec<_>>(),
            [("k", "v")]
        );
    });
}

/// QoS 0 messages may wait for an absent client or not; what may not happen is that they displace acknowledged ones.
#[test]
fn messages_of_qos_0_do_not_disturb_those_that_wait() {
    story(BOTH, |broker, version| {
        let keep = Connect::lasting("c", version);
        let (mut client, _) = broker.connect(version, &keep);
        client.subscribe("a", 2);
        client.disconnect();
        let mut publisher = broker.client("p", version);
        for number in 0..100 {
            publisher.publish(Publish::new(
                "a",
                number.to_string(),
                if number % 10 == 0 { 1 } else { 0 },
            ));
        }
        let (mut client, _) = broker.connect(version, &keep);
        let mut kept = Vec::new();
        while kept.len() < 10 {
            let message = client.expect_message();
            if message.qos == 1 {
                kept.push(message.text().to_owned());
            }
        }
        let expected: Vec<_> = (0..10).map(|tens| (tens * 10).to_string()).collect();
        assert_eq!(kept, expected);
    });
}

/// A subscription made while messages stream in loses none of those published after its SUBACK, and a client that comes and goes
/// in the middle of them gets each exactly in order, at least once.
#[test]
fn a_client_that_comes_and_goes_misses_nothing() {
    story(BOTH, |broker, version| {
        const COUNT: usize = 400;
        let keep = Connect::lasting("c", version);
        let (mut client, _) = broker.connect(version, &keep);
        client.subscribe("a", 1);
        let mut publisher = broker.client("p", version);
        let publishing = std::thread::spawn(move || {
            for number in 0..COUNT {
                publisher.publish(Publish::new("a", number.to_string(), 1));
            }
        });
        let mut next = 0;
        while next < COUNT {
            for _ in 0..20 {
                if next == COUNT {
                    break;
                }
                let message = client.expect_message();
                let number: usize = message.text().parse().unwrap();
                assert!(
                    number == next || (number < next && message.dup),
                    "{number} after {next}"
                );
                next = next.max(number + 1);
            }
            // Gone in the middle of what was sent, without a DISCONNECT.
            drop(client);
            client = broker.connect(version, &keep).0;
        }
        publishing.join().unwrap();
    });
}

/// A packet that is not whole when the connection is lost leaves no trace.
#[test]
fn half_a_packet_is_no_packet() {
    story(BOTH, |broker, version| {
        let mut subscriber = broker.client("s", version);
        subscriber.subscribe("a", 1);
        let mut publisher = broker.client("p", version);
        let packet = Publish::new("a", "cut off", 1).encode(version);
        publisher.send(&packet[..packet.len() - 1]);
        drop(publisher);
        broker.client("q", version).expect_nothing_sent_to(&mut subscriber);
    });
}

/// The resumed session of a client whose packets were on their way when it was taken over.
#[test]
fn acknowledgements_are_not_lost_in_a_takeover() {
    story(BOTH, |broker, version| {
        let keep = Connect::lasting("c", version);
        let (mut old, _) = broker.connect(version, &keep);
        old.subscribe("a", 1);
        let mut publisher = broker.client("p", version);
        publisher.publish(Publish::new("a", "one", 1));
        publisher.publish(Publish::new("a", "two", 1));
        let (one, two) = (old.expect_publish(), old.expect_publish());
        old.send(&wire::ack(PUBACK, one.packet_id));
        old.expect_ping_answered();
        let (mut new, _) = broker.connect(version, &keep);
        assert_eq!(new.receive(), Packet::Publish(two.again()));
        new.expect_ping_answered();
    });
}

/// A gap in the packet identifiers tells that a message was not sent: it had expired, or is too large for the client.
#[test]
fn what_is_not_sent_takes_its_packet_identifier_with_it() {
    story(V5, |broker, version| {
        let keep = Connect::lasting("c", version).with(|p| p.push_u32(PropertyId::MaximumPacketSize, 100));
        let (mut client, _) = broker.connect(version, &keep);
        client.subscribe("a", 2);
        client.disconnect();
        let mut publisher = broker.client("p", version);
        let expires = Publish::new("a", "1", 1).with(|p| p.push_u32(PropertyId::MessageExpiryInterval, 1));
        let large = |qos| Publish::new("a", [b'x'; 200], qos);
        publisher.publish(expires);
        publisher.publish(large(1));
        publisher.publish(large(0));
        publisher.publish(Publish::new("a", "3", 2));
        sleep(Duration::from_millis(2_100));
        let (mut client, _) = broker.connect(version, &keep);
        assert_eq!(client.expect_text("a", "3").packet_id, 3);
        publisher.publish(large(2));
        publisher.publish(Publish::new("a", "5", 1));
        assert_eq!(client.expect_text("a", "5").packet_id, 5);
    });
}

fn expiry(seconds: u32) -> PropertiesBuf {
    let mut properties = PropertiesBuf::new();
    properties.push_u32(PropertyId::SessionExpiryInterval, seconds);
    properties
}
