//! What real devices do, and which has to work all the same.

use sundew::broker::Parts;
use sundew::server::ServerOptions;

use crate::broker::{ALL, BOTH, V5, V311, story, story_with};
use crate::wire::{self, Connect, PUBACK, Publish, Will};

/// A user name without a password, and in 5.0 a password without a user name.
#[test]
fn a_user_name_may_come_alone() {
    story(ALL, |broker, version| {
        let (mut client, _) = broker.connect(
            version,
            &Connect {
                user_name: Some("printer"),
                ..Connect::default()
            },
        );
        client.expect_ping_answered();
        let named = Connect {
            user_name: Some("u"),
            password: Some(b"\x00\xff any bytes"),
            ..Connect::default()
        };
        broker.connect(version, &named).0.expect_ping_answered();
    });
    story(V5, |broker, version| {
        let (mut client, _) = broker.connect(
            version,
            &Connect {
                password: Some(b"token"),
                ..Connect::default()
            },
        );
        client.expect_ping_answered();
    });
}

/// Some clients want a lasting session without a name; by an option they get a clean one.
#[test]
fn by_option_an_empty_identifier_gets_a_clean_session_anyway() {
    let set = |options: &mut ServerOptions, _: &mut Parts| {
        options.listeners[0].1.accept_empty_client_id_persistent = true;
    };
    story_with(set, V311, |broker, version| {
        let connect = Connect {
            client_id: "",
            clean: false,
            ..Connect::default()
        };
        let (mut client, session_present) = broker.connect(version, &connect);
        assert!(!session_present);
        client.expect_ping_answered();
    });
}

/// Power comes back and everything connects at once, again and again; each CONNACK comes, and the last one holds.
#[test]
fn a_storm_of_reconnects_is_served() {
    story(BOTH, |broker, version| {
        let will = || {
            Some(Will {
                topic: "tele/LWT",
                payload: b"Offline",
                qos: 1,
                retain: true,
                ..Will::default()
            })
        };
        let storms: Vec<_> = (0..8)
            .map(|device| {
                let port = broker.port;
                std::thread::spawn(move || {
                    let id = format!("device {device}");
                    let mut last = None;
                    for _ in 0..40 {
                        let mut client = crate::client::Client::open(port, version);
                        client.connect(&Connect {
                            client_id: &id,
                            clean: false,
                            will: will(),
                            ..Connect::default()
                        });
                        client.publish(Publish::new("tele/LWT", "Online", 1).retained());
                        last = Some(client); // the one before is dropped without a word
                    }
                    last.unwrap().expect_ping_answered();
                })
            })
            .collect();
        storms.into_iter().for_each(|storm| storm.join().unwrap());
        broker.client("after", version).expect_ping_answered();
    });
}

/// Availability: the retained will and the retained "Online" after it come in order.
#[test]
fn the_availability_of_a_device_is_right_after_a_takeover() {
    story(BOTH, |broker, version| {
        let connect = Connect {
            will: Some(Will {
                topic: "tele/x/LWT",
                payload: b"Offline",
                qos: 1,
                retain: true,
                ..Will::default()
            }),
            ..Connect::default()
        };
        let mut watcher = broker.client("watcher", version);
        watcher.subscribe("tele/+/LWT", 1);
        let (mut device, _) = broker.connect(version, &connect);
        device.publish(Publish::new("tele/x/LWT", "Online", 1).retained());
        watcher.expect_text("tele/x/LWT", "Online");
        for _ in 0..10 {
            let (mut again, _) = broker.connect(version, &connect);
            again.publish(Publish::new("tele/x/LWT", "Online", 1).retained());
            watcher.expect_text("tele/x/LWT", "Offline");
            watcher.expect_text("tele/x/LWT", "Online");
            let mut late = broker.client("late", version);
            late.subscribe("tele/x/LWT", 1);
            late.expect_text("tele/x/LWT", "Online");
            device = again;
        }
        device.expect_ping_answered();
    });
}

/// Clients that send PUBLISH again after PUBREL, or the same PUBREC twice, are not thrown out.
#[test]
fn replays_within_a_qos_2_handshake_are_answered() {
    story(BOTH, |broker, version| {
        let mut client = broker.client("c", version);
        client.subscribe("a", 2);
        let mut publisher = broker.client("p", version);
        publisher.publish(Publish::new("a", "x", 2));
        let id = client.expect_publish().packet_id;
        client.send(&[wire::ack(wire::PUBREC, id), wire::ack(wire::PUBREC, id)].concat());
        client.await_ack(wire::PUBREL, id);
        client.await_ack(wire::PUBREL, id);
        client.send(&[wire::ack(wire::PUBCOMP, id), wire::ack(wire::PUBCOMP, id)].concat());
        client.expect_ping_answered();
    });
}

/// A control character in a topic must not end in a message that is sent again for ever.
#[test]
fn a_tab_in_a_topic_is_delivered_once_and_done() {
    story(BOTH, |broker, version| {
        let mut client = broker.client("c", version);
        client.subscribe("#", 1);
        let mut device = broker.client("esp", version);
        device.send(&Publish::new("led\t/state", "1", 1).id(5).encode(version));
        device.await_ack(PUBACK, 5);
        client.expect_text("led\t/state", "1");
        device.expect_nothing_sent_to(&mut client);
    });
}

/// Packets a client sends in one go, before any answer: CONNECT, SUBSCRIBE, PUBLISH, DISCONNECT.
#[test]
fn a_whole_session_in_one_segment_is_served() {
    story(ALL, |broker, version| {
        let mut witness = broker.client("w", version);
        witness.subscribe("a", 1);
        let packets = [
            Connect::default().encode(version),
            Publish::new("a", "hello", 1).id(1).encode(version),
            wire::disconnect(version, 0, &Default::default()),
        ];
        let mut client = broker.open(version);
        client.send(&packets.concat());
        assert_eq!(client.expect_connack().1, 0);
        client.await_ack(PUBACK, 1);
        client.expect_closed();
        witness.expect_text("a", "hello");
    });
}

/// A keep alive of 0, as many devices have it, is no keep alive.
#[test]
fn a_device_without_keep_alive_may_be_silent() {
    story(BOTH, |broker, version| {
        let (mut client, _) = broker.connect(
            version,
            &Connect {
                keep_alive: 0,
                ..Connect::default()
            },
        );
        std::thread::sleep(std::time::Duration::from_millis(1_500));
        client.expect_ping_answered();
    });
}
