//! Will messages: when they are published, and when not.

use std::thread::sleep;
use std::time::{Duration, Instant};

use sundew::protocol::property::{PropertiesBuf, PropertyId};
use sundew::protocol::version::Version;

use crate::broker::{ALL, BOTH, Broker, V5, story, story_with};
use crate::client::Client;
use crate::wire::{self, Connect, Publish, Will, frame};

/// [MQTT-3.1.2-7] [MQTT-3.1.2-8] [MQTT-3.1.2-10] [MQTT311-3.1.2-8] [MQTT311-3.1.2-10]
#[test]
fn a_will_is_published_once_when_the_connection_is_lost() {
    story(ALL, |broker, version| {
        let mut witness = witness(broker, version);
        for qos in 0..3 {
            let will = Some(Will {
                topic: "will",
                payload: b"gone",
                qos,
                ..Will::default()
            });
            let (client, _) = broker.connect(
                version,
                &Connect {
                    will,
                    ..Connect::default()
                },
            );
            broker.client("p", version).expect_nothing_sent_to(&mut witness);
            drop(client);
            let message = witness.expect_text("will", "gone");
            assert_eq!((message.qos, message.retain), (qos, false));
            broker.client("c", version).disconnect();
            broker.client("p", version).expect_nothing_sent_to(&mut witness);
        }
    });
}

/// [MQTT-3.14.4-3] [MQTT-3.1.2-10] [MQTT311-3.14.4-3] [MQTT311-3.1.2-10] [MQTT311-3.1.2-12]
#[test]
fn a_will_is_not_published_when_the_client_says_good_bye() {
    story(ALL, |broker, version| {
        let mut witness = witness(broker, version);
        let (client, _) = broker.connect(version, &with_will(&Connect::default()));
        client.disconnect();
        drop(broker.client("without", version));
        broker.client("p", version).expect_nothing_sent_to(&mut witness);
        // Not even when the session is taken up again and then lost.
        let (client, _) = broker.connect(version, &with_will(&Connect::lasting("d", version)));
        client.disconnect();
        let (client, _) = broker.connect(version, &Connect::lasting("d", version));
        drop(client);
        broker.client("p", version).expect_nothing_sent_to(&mut witness);
    });
}

/// [MQTT-3.1.2-8]
#[test]
fn a_disconnect_with_another_reason_publishes_the_will() {
    story(V5, |broker, version| {
        let mut witness = witness(broker, version);
        for reason in [0x04, 0x80, 0x98] {
            let (mut client, _) = broker.connect(version, &with_will(&Connect::default()));
            client.disconnect_with(reason, &PropertiesBuf::new());
            witness.expect_text("will", "gone");
        }
    });
}

/// Every other end of a connection is a loss: a malformed packet, a takeover, silence. [MQTT-3.1.2-8] [MQTT311-3.1.2-8]
#[test]
fn a_will_is_published_when_the_broker_ends_the_connection() {
    story(BOTH, |broker, version| {
        let mut witness = witness(broker, version);
        let (mut client, _) = broker.connect(version, &with_will(&Connect::default()));
        client.send(&frame(0x36, &[0, 1, b'a']));
        witness.expect_text("will", "gone");
        let (_silent, _) = broker.connect(
            version,
            &with_will(&Connect {
                keep_alive: 1,
                ..Connect::default()
            }),
        );
        witness.expect_text("will", "gone");
        let (_old, _) = broker.connect(version, &with_will(&Connect::default()));
        let (_new, _) = broker.connect(version, &Connect::default());
        witness.expect_text("will", "gone");
    });
}

/// [MQTT-3.1.2-8] [MQTT-3.1.3-9]
#[test]
fn a_delayed_will_waits_and_is_forgotten_when_the_client_comes_back() {
    let delayed = |seconds: u32| {
        let mut connect = with_will(&Connect::lasting("c", Version::V5));
        connect
            .will
            .as_mut()
            .unwrap()
            .properties
            .push_u32(PropertyId::WillDelayInterval, seconds);
        connect
    };
    story(V5, |broker, version| {
        let mut witness = witness(broker, version);
        let (client, _) = broker.connect(version, &delayed(1));
        drop(client);
        let (client, session_present) = broker.connect(version, &delayed(1));
        assert!(session_present);
        sleep(Duration::from_millis(1_500));
        broker.client("p", version).expect_nothing_sent_to(&mut witness);
        let since = Instant::now();
        drop(client);
        witness.expect_text("will", "gone");
        let waited = since.elapsed().as_millis();
        assert!((900..3_000).contains(&waited), "published after {waited} ms");
        // A DISCONNECT with will runs the delay, too; a clean start in between ends the session and so publishes at once.
        let (mut client, _) = broker.connect(version, &delayed(1000));
        client.disconnect_with(4, &PropertiesBuf::new());
        broker.client("p", version).expect_nothing_sent_to(&mut witness);
        broker.client("c", version).disconnect();
        witness.expect_text("will", "gone");
    });
}

/// The session's end comes first. [MQTT-3.1.2-8]
#[test]
fn a_delayed_will_is_published_at_the_latest_when_the_session_ends() {
    story(V5, |broker, version| {
        let mut witness = witness(broker, version);
        for expiry in [0, 1] {
            let mut connect = with_will(&Connect::default());
            connect.properties.push_u32(PropertyId::SessionExpiryInterval, expiry);
            connect
                .will
                .as_mut()
                .unwrap()
                .properties
                .push_u32(PropertyId::WillDelayInterval, 1000);
            let since = Instant::now();
            drop(broker.connect(version, &connect));
            witness.expect_text("will", "gone");
            assert!(since.elapsed() < Duration::from_millis(u64::from(expiry) * 1000 + 2000));
        }
    });
}

/// A client that is its own witness sees its will after its return.
#[test]
fn a_will_waits_for_an_absent_subscriber() {
    story(BOTH, |broker, version| {
        let keep = Connect::lasting("s", version);
        let (mut subscriber, _) = broker.connect(version, &keep);
        subscriber.subscribe("will", 1);
        subscriber.disconnect();
        let will = Some(Will {
            topic: "will",
            payload: b"gone",
            qos: 1,
            ..Will::default()
        });
        drop(broker.connect(
            version,
            &Connect {
                will,
                ..Connect::default()
            },
        ));
        // The loss has been seen when a new connection of the client has been accepted.
        broker.client("c", version).disconnect();
        let (mut subscriber, _) = broker.connect(version, &keep);
        subscriber.expect_text("will", "gone");
    });
}

/// Beyond the limit a will is not lost: it is published without delay.
#[test]
fn the_number_of_delayed_wills_is_bounded() {
    story_with(
        |options, _| options.broker.pending_wills_max = 1,
        V5,
        |broker, version| {
            let mut witness = witness(broker, version);
            for number in 0..2 {
                let id = number.to_string();
                let mut connect = with_will(&Connect {
                    client_id: &id,
                    ..Connect::default()
                });
                connect.properties.push_u32(PropertyId::SessionExpiryInterval, 1000);
                connect
                    .will
                    .as_mut()
                    .unwrap()
                    .properties
                    .push_u32(PropertyId::WillDelayInterval, 1000);
                drop(broker.connect(version, &connect));
            }
            witness.expect_text("will", "gone");
            broker.client("p", version).expect_nothing_sent_to(&mut witness);
        },
    );
}

/// A will on `will` that says `gone` at QoS 1.
fn with_will<'a>(connect: &Connect<'a>) -> Connect<'a> {
    let will = Some(Will {
        topic: "will",
        payload: b"gone",
        qos: 1,
        ..Will::default()
    });
    Connect {
        will,
        ..connect.clone()
    }
}

fn witness(broker: &Broker, version: Version) -> Client {
    let mut witness = broker.client("witness", version);
    witness.subscribe("will", 2);
    witness.publish(Publish::new("will", "", 1));
    witness.expect_text("will", "");
    witness.send(&wire::PINGREQ);
    assert_eq!(witness.receive(), wire::Packet::PingResp);
    witness
}
