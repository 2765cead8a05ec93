//! What an operator can limit: announced in CONNACK where the version can, enforced in every version.

use sundew::protocol::property::PropertyId;
use sundew::protocol::version::Version;
use sundew::server::ServerOptions;
use sundew::transport::options::ListenAddress;

use crate::broker::{ALL, BOTH, V5, story, story_with};
use crate::wire::{self, Connect, Publish, Will};

/// The defaults, as a client sees them.
#[test]
fn by_default_everything_is_available() {
    story(V5, |broker, version| {
        let (_, _, properties) = broker.open(version).try_connect(&Connect::default());
        let view = properties.view();
        for id in [
            PropertyId::MaximumQoS,
            PropertyId::RetainAvailable,
            PropertyId::WildcardSubscriptionAvailable,
            PropertyId::SubscriptionIdentifierAvailable,
            PropertyId::SharedSubscriptionAvailable,
        ] {
            assert!(matches!(view.byte(id), None | Some(1)), "{}", id.name());
        }
        assert_eq!(view.u16(PropertyId::ServerKeepAlive), None);
        assert!(
            view.u32(PropertyId::MaximumPacketSize)
                .is_none_or(|bytes| (32 << 20..=268_435_455).contains(&bytes))
        );
    });
}

/// [MQTT-3.2.2-22] [MQTT-3.1.2-22]
#[test]
fn a_server_keep_alive_is_told_and_used() {
    story_with(
        |options, _| options.broker.server_keep_alive = Some(1),
        V5,
        |broker, version| {
            let mut client = broker.open(version);
            let (_, _, properties) = client.try_connect(&Connect {
                keep_alive: 1_000,
                ..Connect::default()
            });
            assert_eq!(properties.view().u16(PropertyId::ServerKeepAlive), Some(1));
            client.expect_disconnect(0x8D);
        },
    );
}

/// A longest keep alive: of 5.0 clients that want longer or none; older ones keep theirs.
#[test]
fn a_maximum_keep_alive_is_told_to_who_wants_more() {
    story_with(
        |options, _| options.broker.keep_alive_max = 60,
        V5,
        |broker, version| {
            for (wanted, told) in [(0, Some(60)), (61, Some(60)), (60, None), (10, None)] {
                let (_, _, properties) = broker.open(version).try_connect(&Connect {
                    keep_alive: wanted,
                    ..Connect::default()
                });
                let found = properties.view().u16(PropertyId::ServerKeepAlive);
                assert!(
                    found == told || (told.is_none() && found == Some(wanted)),
                    "{wanted}: {found:?}"
                );
            }
        },
    );
}

/// A longest session expiry is told, and it is the one that counts.
#[test]
fn a_maximum_session_expiry_is_told_and_used() {
    story_with(
        |options, _| options.broker.session_expiry_max = 1,
        V5,
        |broker, version| {
            for wanted in [1000, u32::MAX] {
                let keep = Connect {
                    clean: false,
                    ..Connect::default()
                }
                .with(|p| p.push_u32(PropertyId::SessionExpiryInterval, wanted));
                let mut client = broker.open(version);
                let (session_present, _, properties) = client.try_connect(&keep);
                assert!(!session_present);
                assert_eq!(properties.view().u32(PropertyId::SessionExpiryInterval), Some(1));
                client.disconnect();
                std::thread::sleep(std::time::Duration::from_millis(2_100));
            }
        },
    );
    story_with(
        |options, _| options.broker.session_expiry_max = 1,
        &[Version::V311],
        |broker, version| {
            broker.connect(version, &Connect::lasting("c", version)).0.disconnect();
            std::thread::sleep(std::time::Duration::from_millis(2_100));
            assert!(
                !broker.connect(version, &Connect::lasting("c", version)).1,
                "older versions, too"
            );
        },
    );
}

/// Sessions of 3.1.1 clients end after a time of their own.
#[test]
fn a_session_of_an_older_client_expires_after_the_configured_time() {
    story_with(
        |options, _| options.broker.session_expiry_v3 = 1,
        &[Version::V311],
        |broker, version| {
            let keep = Connect::lasting("c", version);
            broker.connect(version, &keep).0.disconnect();
            let (client, session_present) = broker.connect(version, &keep);
            assert!(session_present);
            client.disconnect();
            std::thread::sleep(std::time::Duration::from_millis(2_100));
            assert!(!broker.connect(version, &keep).1);
        },
    );
}

/// Versions a listener does not let in. [MQTT-3.1.2-2] [MQTT311-3.1.2-2]
#[test]
fn a_listener_can_leave_versions_out() {
    for left_out in Version::ALL {
        let set = |options: &mut ServerOptions, _: &mut sundew::broker::Parts| {
            options.listeners[0]
                .1
                .allowed_versions
                .retain(|version| *version != left_out);
        };
        story_with(set, ALL, |broker, version| {
            let mut client = broker.open(version);
            let (session_present, reason, _) = client.try_connect(&Connect::default());
            if version != left_out {
                assert_eq!(reason, 0);
                return client.expect_ping_answered();
            }
            assert_eq!(
                (session_present, reason),
                (false, if version.has_properties() { 0x84 } else { 1 })
            );
            client.expect_closed();
        });
    }
}

/// [MQTT-3.1.3-8] [MQTT311-3.1.3-9]
#[test]
fn client_identifiers_that_are_not_wanted_are_refused() {
    let refused = |version: Version| if version.has_properties() { 0x85 } else { 2 };
    story_with(
        |options, _| options.broker.allow_empty_client_id = false,
        BOTH,
        |broker, version| {
            let mut client = broker.open(version);
            assert_eq!(
                client
                    .try_connect(&Connect {
                        client_id: "",
                        ..Connect::default()
                    })
                    .1,
                refused(version)
            );
            client.expect_closed();
        },
    );
    story_with(
        |options, _| options.broker.client_id_bytes_max = 30,
        BOTH,
        |broker, version| {
            broker.client(&"x".repeat(30), version).expect_ping_answered();
            let mut client = broker.open(version);
            assert_eq!(
                client
                    .try_connect(&Connect {
                        client_id: &"x".repeat(31),
                        ..Connect::default()
                    })
                    .1,
                refused(version)
            );
            client.expect_closed();
        },
    );
}

/// [MQTT-3.2.2-7] [MQTT311-3.2.2-5]
#[test]
fn the_number_of_sessions_is_bounded_and_a_known_one_comes_back() {
    story_with(
        |options, _| options.broker.sessions_max = 2,
        BOTH,
        |broker, version| {
            let mut one = broker.client("one", version);
            let (two, _) = broker.connect(version, &Connect::lasting("two", version));
            let mut three = broker.open(version);
            let (_, reason, _) = three.try_connect(&Connect {
                client_id: "three",
                ..Connect::default()
            });
            assert!(
                if version.has_properties() {
                    matches!(reason, 0x97 | 0x89 | 0x88)
                } else {
                    reason == 3
                },
                "{reason:#x}"
            );
            three.expect_closed();
            two.disconnect();
            broker
                .connect(version, &Connect::lasting("two", version))
                .0
                .expect_ping_answered();
            one.expect_ping_answered();
            one.disconnect();
            broker.client("three", version).expect_ping_answered();
        },
    );
}

/// Who does not send a CONNECT in time is cut off, and so is who sends only half of one.
#[test]
fn a_connect_must_come_in_time() {
    let set = |options: &mut ServerOptions, _: &mut sundew::broker::Parts| {
        options.listeners[0].0.connect_timeout = std::time::Duration::from_millis(500);
    };
    story_with(set, BOTH, |broker, version| {
        let mut silent = broker.open(version);
        let mut slow = broker.open(version);
        slow.send(&Connect::default().encode(version)[..5]);
        let mut right = broker.client("right", version);
        silent.expect_closed();
        slow.expect_closed();
        right.expect_ping_answered();
    });
}

/// More connections than a listener allows are turned away at once; when one has gone there is room again.
#[test]
fn the_number_of_connections_of_a_listener_is_bounded() {
    let set = |options: &mut ServerOptions, _: &mut sundew::broker::Parts| options.listeners[0].0.connections_max = 2;
    story_with(set, BOTH, |broker, version| {
        let (one, mut two) = (broker.client("one", version), broker.client("two", version));
        let mut three = broker.open(version);
        three.send_lossy(
            &Connect {
                client_id: "three",
                ..Connect::default()
            }
            .encode(version),
        );
        let answer = three.receive_to_end();
        assert!(answer.is_empty() || answer[3] >= 3, "{answer:02x?}");
        two.expect_ping_answered();
        one.disconnect();
        let mut tries = 0;
        loop {
            let mut four = broker.open(version);
            four.send_lossy(
                &Connect {
                    client_id: "four",
                    ..Connect::default()
                }
                .encode(version),
            );
            if four.receive_unless_closed().is_some() {
                break four.expect_ping_answered();
            }
            tries += 1;
            assert!(tries < 1_000, "there is room again");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    });
}

/// The bound of all listeners counts those who are not through their handshake: each of them has a descriptor.
#[test]
fn connections_that_have_not_finished_their_handshake_count() {
    let set = |options: &mut ServerOptions, _: &mut sundew::broker::Parts| {
        options.connections_max = 2;
        options.listeners[0].0.connect_timeout = std::time::Duration::from_secs(600);
        options.listeners[0].0.websocket = Some(sundew::transport::options::WebSocketOptions::default());
    };
    story_with(set, BOTH, |broker, version| {
        let _silent = [broker.open(version), broker.open(version)];
        broker.open(version).expect_closed();
    });
}

/// Topics of very many levels are for attackers. The option has a default that no device meets.
#[test]
fn a_topic_of_too_many_levels_is_refused() {
    story(BOTH, |broker, version| {
        let fine = "a/".repeat(100) + "a";
        let mut client = broker.client("c", version);
        client.subscribe(&fine, 0);
        client.publish(Publish::new(&fine, "x", 1));
        client.expect_text(&fine, "x");
        let deep = "/".repeat(60_000);
        client.send_lossy(&Publish::new(&deep, "x", 0).encode(version));
        client.expect_disconnect_of(&[0x81, 0x90]);
        let mut client = broker.client("c", version);
        client.send_lossy(&wire::subscribe(version, 1, &Default::default(), &[(&deep, 0)]));
        match client.receive_unless_closed() {
            Some(wire::Packet::SubAck { reasons, .. }) => assert!(reasons[0] >= 0x80),
            Some(wire::Packet::Disconnect { .. }) | None => {}
            Some(other) => panic!("{other:?}"),
        }
    });
}

/// By option, the characters that the standard lets a receiver refuse.
#[test]
fn strict_text_refuses_control_characters() {
    story_with(
        |options, _| options.broker.decode.strict_utf8 = true,
        BOTH,
        |broker, version| {
            for topic in ["a\tb", "\u{1}", "\u{7f}", "\u{9f}", "\u{fffe}", "\u{1ffff}"] {
                let mut client = broker.client("c", version);
                client.send(&Publish::new(topic, "x", 1).encode(version));
                client.expect_disconnect_of(&[0x81, 0x90]);
            }
            let will = Some(Will {
                topic: "fine/\u{fc}",
                ..Will::default()
            });
            broker
                .connect(
                    version,
                    &Connect {
                        will,
                        ..Connect::default()
                    },
                )
                .0
                .expect_ping_answered();
        },
    );
}

/// Two listeners of one broker, each with rules of its own.
#[test]
fn listeners_have_rules_of_their_own() {
    let set = |options: &mut ServerOptions, _: &mut sundew::broker::Parts| {
        let mut second = options.listeners[0].clone();
        second.0.name = "second".into();
        second.1.name = "second".into();
        second.1.maximum_qos = Some(sundew::protocol::qos::QoS::AtMostOnce);
        second.0.addresses = vec![ListenAddress::Tcp("127.0.0.1:0".parse().unwrap())];
        options.listeners.push(second);
    };
    story_with(set, V5, |broker, version| {
        let port = broker.server.addresses()[1].1[0].port();
        let mut second = crate::client::Client::open(port, version);
        let (_, _, properties) = second.try_connect(&Connect {
            client_id: "second",
            ..Connect::default()
        });
        assert_eq!(properties.view().byte(PropertyId::MaximumQoS), Some(0));
        assert_eq!(second.subscribe("a", 2), 0);
        let mut first = broker.client("first", version);
        assert_eq!(first.subscribe("a", 2), 2);
        first.publish(Publish::new("a", "x", 2));
        second.expect_text("a", "x");
        first.expect_text("a", "x");
    });
}
