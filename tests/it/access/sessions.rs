//! Whose a session is, and what becomes of what waits in it when its user may not have it, or say it, any more.

use std::fs;

use sundew::auth::rules::WideSubscriptions;
use sundew::broker::{Parts, Qos2Delivery};
use sundew::protocol::version::Version;
use sundew::server::ServerOptions;

use super::{ALICE, BOB, CAROL, Files, USERS, as_user, user};
use crate::broker::{BOTH, Broker, story_with};
use crate::wire::{self, Connect, PUBCOMP, PUBREC, PUBREL, Publish, Will};

fn lasting<'a>(who: (&'a str, &'a str), client_id: &'a str, version: Version) -> Connect<'a> {
    Connect {
        user_name: Some(who.0),
        password: Some(who.1.as_bytes()),
        ..Connect::lasting(client_id, version)
    }
}

/// Client ids are no secret: who knows one neither ends another user's connection, nor gets or clears his session.
#[test]
fn a_session_is_for_the_user_who_made_it() {
    let files = Files::new(USERS, "topic #\npattern readwrite #\n");
    story_with(files.set(WideSubscriptions::Refuse), BOTH, |broker, version| {
        let told = if version.has_properties() { 0x87 } else { 5 };
        let of_alice = Connect {
            will: Some(Will {
                topic: "will",
                payload: b"gone",
                ..Will::default()
            }),
            ..lasting(ALICE, "a", version)
        };
        let (mut alice, _) = broker.connect(version, &of_alice);
        alice.subscribe("to/alice", 1);
        let mut carol = user(broker, version, CAROL, "c");
        carol.subscribe("will", 1);
        let anonymous = Connect {
            client_id: "a",
            ..Connect::default()
        };
        let strangers = || {
            for who in [lasting(BOB, "a", version), as_user(BOB, "a"), anonymous.clone()] {
                let mut client = broker.open(version);
                assert_eq!(client.try_connect(&who).1, told);
                client.expect_closed();
            }
        };
        strangers();
        alice.expect_ping_answered();
        alice.disconnect();
        carol.publish(Publish::new("to/alice", "waits", 1));
        strangers();
        let (mut alice, is_present) = broker.connect(version, &lasting(ALICE, "a", version));
        assert!(is_present);
        alice.expect_text("to/alice", "waits");
        carol.expect_ping_answered();
        // What is over is nobody's, and neither is what was made without a name.
        alice.disconnect();
        user(broker, version, ALICE, "a").disconnect();
        let (nobody, _) = broker.connect(version, &Connect::lasting("a", version));
        nobody.disconnect();
        let (bob, is_present) = broker.connect(version, &lasting(BOB, "a", version));
        assert!(is_present);
        bob.disconnect();
        assert_eq!(broker.open(version).try_connect(&anonymous).1, told, "it is bob's now");
        user(broker, version, BOB, "a").disconnect();
    });
}

/// A name that is only believed proves nothing, so it takes nothing away either.
#[test]
fn where_names_are_believed_a_client_id_is_enough() {
    story_with(
        |_, _| {},
        BOTH,
        |broker, version| {
            broker.connect(version, &lasting(ALICE, "a", version)).0.disconnect();
            let (bob, is_present) = broker.connect(version, &lasting(BOB, "a", version));
            assert!(is_present);
            bob.disconnect();
            user(broker, version, BOB, "a").disconnect();
        },
    );
}

/// UNSUBSCRIBE leaves what is on its way; that it may be received any longer does not follow.
#[test]
fn what_waits_of_a_subscription_that_is_gone_is_looked_at_too() {
    for version in BOTH {
        let files = Files::new(USERS, "user alice\ntopic #\nuser bob\ntopic secret/#\ntopic own/#\n");
        let broker = Broker::start(2, |options, parts| {
            options.broker.delivery.in_flight_max = 1;
            files.set(WideSubscriptions::Refuse)(options, parts);
        });
        let mut alice = user(&broker, *version, ALICE, "a");
        let of_bob = lasting(BOB, "b", *version);
        let (mut bob, _) = broker.connect(*version, &of_bob);
        bob.subscribe("own/#", 1);
        bob.subscribe("secret/#", 1);
        for text in ["first", "second", "third"] {
            alice.publish(Publish::new("secret/a", text, 1));
        }
        bob.unsubscribe(&["secret/#"]);
        bob.disconnect();
        fs::write(files.path("acl"), "user alice\ntopic #\nuser bob\ntopic own/#\n").unwrap();
        assert!(broker.server.reload_access(None));
        let (mut bob, is_present) = broker.connect(*version, &of_bob);
        assert!(is_present);
        alice.publish(Publish::new("own/a", "allowed", 1));
        bob.expect_text("own/a", "allowed");
        bob.expect_ping_answered();
    }
}

/// A message at QoS 2 that is published when it is released is looked at then.
#[test]
fn a_message_that_may_not_be_published_any_more_is_not_released() {
    for version in BOTH {
        let files = Files::new(USERS, "user alice\ntopic #\nuser bob\ntopic one\ntopic two\n");
        let broker = Broker::start(2, |options: &mut ServerOptions, parts: &mut Parts| {
            options.broker.qos2_delivery = Qos2Delivery::Release;
            files.set(WideSubscriptions::Refuse)(options, parts);
        });
        let mut alice = user(&broker, *version, ALICE, "a");
        alice.subscribe("#", 1);
        let mut bob = user(&broker, *version, BOB, "b");
        for (topic, id) in [("one", 1), ("two", 2)] {
            bob.send(&Publish::new(topic, "x", 2).id(id).encode(*version));
            assert_eq!(bob.await_ack(PUBREC, id).reason, 0);
        }
        fs::write(files.path("acl"), "user alice\ntopic #\nuser bob\ntopic two\n").unwrap();
        assert!(broker.server.reload_access(None));
        for id in [1, 2] {
            bob.send(&wire::ack(PUBREL, id));
            assert_eq!(bob.await_ack(PUBCOMP, id).reason, 0);
        }
        alice.expect_text("two", "x");
        alice.expect_ping_answered();
    }
}

/// How many messages there are that he may not have is not to be seen from packet identifiers either.
#[test]
fn what_may_not_be_received_leaves_no_gap() {
    for version in BOTH {
        let files = Files::new(USERS, "user alice\ntopic #\nuser bob\ntopic secret/#\ntopic own/#\n");
        let broker = Broker::start(2, files.set(WideSubscriptions::Refuse));
        let mut alice = user(&broker, *version, ALICE, "a");
        let of_bob = lasting(BOB, "b", *version);
        let (mut bob, _) = broker.connect(*version, &of_bob);
        bob.subscribe("own/#", 1);
        bob.subscribe("secret/#", 1);
        bob.disconnect();
        for topic in ["own/1", "secret/1", "secret/2", "own/2"] {
            alice.publish(Publish::new(topic, "x", 1));
        }
        fs::write(files.path("acl"), "user alice\ntopic #\nuser bob\ntopic own/#\n").unwrap();
        assert!(broker.server.reload_access(None));
        let (mut bob, _) = broker.connect(*version, &of_bob);
        let ids = ["own/1", "own/2"].map(|topic| {
            let message = bob.expect_message();
            assert_eq!(message.topic, topic);
            message.packet_id
        });
        assert_eq!(ids, [1, 2]);
    }
}

/// What waited for a member of a shared group that may not receive it any more is another member's.
#[test]
fn what_a_member_of_a_group_may_not_have_any_more_goes_to_another_one() {
    let all = "user alice\ntopic #\nuser bob\ntopic t\nuser carol\ntopic t\n";
    for version in BOTH {
        for workers in [1, 3] {
            let files = Files::new(USERS, all);
            let broker = Broker::start(workers, files.set(WideSubscriptions::Refuse));
            let mut alice = user(&broker, *version, ALICE, "a");
            let of_bob = lasting(BOB, "b", *version);
            let (mut bob, _) = broker.connect(*version, &of_bob);
            bob.subscribe("$share/g/t", 1);
            bob.disconnect();
            for text in ["first", "second"] {
                alice.publish(Publish::new("t", text, 1));
            }
            let mut carol = user(&broker, *version, CAROL, "c");
            carol.subscribe("$share/g/t", 1);
            fs::write(files.path("acl"), all.replace("user bob\ntopic t\n", "")).unwrap();
            assert!(broker.server.reload_access(None));
            let (mut bob, is_present) = broker.connect(*version, &of_bob);
            assert!(is_present);
            for text in ["first", "second"] {
                carol.expect_text("t", text);
            }
            bob.expect_ping_answered();
        }
    }
}
