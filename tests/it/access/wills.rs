//! A will that waits is its client's to leave when it is published, not only when it was left.

use std::fs;
use std::path::Path;

use sundew::auth::rules::WideSubscriptions;
use sundew::protocol::property::PropertyId;
use sundew::protocol::version::Version;

use super::{ALICE, BOB, CAROL, Files, USERS, access, as_user, user};
use crate::broker::Broker;
use crate::client::Client;
use crate::wire::{Connect, Will};

const ALL: &str = "user alice\ntopic #\nuser bob\ntopic #\nuser carol\ntopic #\n";
const LESS: &str = "user alice\ntopic read #\nuser bob\ntopic #\nuser carol\ntopic #\n";

/// A client of MQTT 5 whose will waits for so many seconds.
fn delayed<'a>(who: (&'a str, &'a str), seconds: u32) -> Connect<'a> {
    let mut will = Will {
        topic: "wills",
        payload: who.0.as_bytes(),
        ..Will::default()
    };
    will.properties.push_u32(PropertyId::WillDelayInterval, seconds);
    let connect = Connect {
        will: Some(will),
        ..as_user(who, who.0)
    };
    connect.with(|properties| properties.push_u32(PropertyId::SessionExpiryInterval, 1000))
}

fn witness(broker: &Broker) -> Client {
    let mut carol = user(broker, Version::V5, CAROL, "witness");
    carol.subscribe("wills", 1);
    carol
}

/// Alice and bob are gone with their wills, and alice's right or name is taken away before they are due.
fn lose(broker: &Broker, seconds: u32, change: impl FnOnce()) {
    for who in [ALICE, BOB] {
        drop(broker.connect(Version::V5, &delayed(who, seconds)));
    }
    // The loss has been seen when the wills wait.
    while broker.server.broker().metrics.sum().wills_pending < 2 {
        std::thread::yield_now();
    }
    change();
    assert!(broker.server.reload_access(None));
}

#[test]
fn a_delayed_will_that_may_not_be_left_any_more_is_not_published() {
    for is_removed in [false, true] {
        let files = Files::new(USERS, ALL);
        let broker = Broker::start(2, |options, parts| files.set(WideSubscriptions::Refuse)(options, parts));
        let mut carol = witness(&broker);
        lose(&broker, 1, || match is_removed {
            false => fs::write(files.path("acl"), LESS).unwrap(),
            true => fs::write(files.path("users"), USERS.split_once('\n').unwrap().1).unwrap(),
        });
        carol.expect_text("wills", "bob");
        while broker.server.broker().metrics.sum().wills_pending > 0 {
            std::thread::yield_now();
        }
        carol.expect_ping_answered();
        assert_eq!(broker.server.broker().metrics.sum().dropped_source_not_authorized, 1);
    }
}

fn keeping(directory: &Path, files: &Files) -> Broker {
    Broker::keeping(directory, |options| {
        let (users, acl) = (files.path("users"), files.path("acl"));
        options.access = Some(access(Some(&users), Some(&acl), Vec::new(), WideSubscriptions::Refuse));
        options.broker.will_grace_ms = 1500;
    })
}

#[test]
fn a_will_from_the_store_is_asked_about_when_it_is_due() {
    let files = Files::new(USERS, ALL);
    let folder = tempfile::tempdir().unwrap();
    {
        let broker = keeping(folder.path(), &files);
        lose(&broker, 1000, || {});
    }
    {
        fs::write(files.path("acl"), LESS).unwrap();
        let broker = keeping(folder.path(), &files);
        let mut carol = witness(&broker);
        // They begin anew, and with that their old sessions end.
        for who in [ALICE, BOB] {
            user(&broker, Version::V5, who, who.0).disconnect();
        }
        carol.expect_text("wills", "bob");
        carol.expect_ping_answered();
    }
}
