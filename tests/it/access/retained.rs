//! A retained message speaks for who published it: once he may not, new subscribers do not get it.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use sundew::auth::grants::Grants;
use sundew::auth::rule::{Actions, Effect, Rule, TopicPattern};
use sundew::auth::rules::{LiveRules, Rules, Scope, WideSubscriptions};
use sundew::auth::{Answer, Authenticator, Identity, Verdict};
use sundew::protocol::ids::Token;
use sundew::protocol::version::Version;
use sundew::session::peer::Peer;
use sundew::session::request::ConnectRequest;

use super::{ALICE, BOB, CAROL, Files, USERS, access, as_user, user};
use crate::broker::{BOTH, Broker, story_with};
use crate::client::Client;
use crate::wire::{Connect, PINGREQ, Packet, Publish, Will};

const ALL: &str = "user alice\ntopic #\nuser bob\ntopic #\nuser carol\ntopic read #\n";
/// Alice may not write what is hers in `home`.
const LESS: &str = "user alice\ntopic read #\ntopic write other\nuser bob\ntopic #\nuser carol\ntopic read #\n";

fn set_rules(files: &Files, broker: &Broker, acl: &str) {
    fs::write(files.path("acl"), acl).unwrap();
    assert!(broker.server.reload_access(None));
}

/// Every retained message of a topic filter, in the order of topics.
fn retained(broker: &Broker, version: Version, filter: &str, qos: u8) -> Vec<(String, String)> {
    let mut carol = user(broker, version, CAROL, "reader");
    assert_eq!(carol.subscribe(filter, qos), qos);
    carol.send(&PINGREQ);
    let mut found = Vec::new();
    loop {
        match carol.receive() {
            Packet::Publish(message) if message.retain => {
                found.push((message.topic.clone(), message.text().to_owned()))
            }
            Packet::PingResp => break,
            packet => panic!("a retained message, but there came {packet:?}"),
        }
    }
    carol.disconnect();
    found
}

fn topics(found: &[(String, String)]) -> Vec<&str> {
    found.iter().map(|(topic, _)| topic.as_str()).collect()
}

fn publish_some(alice: &mut Client, bob: &mut Client) {
    for topic in ["home/a", "home/b", "other"] {
        alice.publish(Publish::new(topic, "alice", 1).retained());
    }
    bob.publish(Publish::new("home/c", "bob", 1).retained());
    alice.publish(Publish::new("home/d", "alice", 1).retained());
    bob.publish(Publish::new("home/d", "bob", 1).retained());
}

#[test]
fn what_is_retained_goes_and_comes_with_the_right_of_its_publisher() {
    for version in BOTH {
        let files = Files::new(USERS, ALL);
        let broker = Broker::start(2, |options, parts| files.set(WideSubscriptions::Refuse)(options, parts));
        let mut alice = user(&broker, *version, ALICE, "a");
        let mut bob = user(&broker, *version, BOB, "b");
        publish_some(&mut alice, &mut bob);
        let everything = ["home/a", "home/b", "home/c", "home/d", "other"];
        for qos in 0..3 {
            assert_eq!(topics(&retained(&broker, *version, "#", qos)), everything);
        }
        set_rules(&files, &broker, LESS);
        for qos in 0..3 {
            let found = retained(&broker, *version, "#", qos);
            assert_eq!(topics(&found), ["home/c", "home/d", "other"]);
            assert_eq!(retained(&broker, *version, "home/a", qos), []);
        }
        // One who may says it anew; and the right comes back as it went.
        bob.publish(Publish::new("home/a", "bob", 1).retained());
        assert_eq!(
            topics(&retained(&broker, *version, "#", 1)),
            ["home/a", "home/c", "home/d", "other"]
        );
        set_rules(&files, &broker, ALL);
        assert_eq!(topics(&retained(&broker, *version, "#", 1)), everything);
    }
}

/// A user who is no user any more has no rights, whatever the rules say of everybody.
#[test]
fn what_a_removed_user_has_left_is_not_delivered() {
    for version in BOTH {
        let files = Files::new(USERS, "topic #\npattern readwrite #\n");
        let broker = Broker::start(2, |options, parts| files.set(WideSubscriptions::Refuse)(options, parts));
        let mut alice = user(&broker, *version, ALICE, "a");
        let mut bob = user(&broker, *version, BOB, "b");
        publish_some(&mut alice, &mut bob);
        let mut nobody = broker.client("n", *version);
        nobody.publish(Publish::new("of/nobody", "x", 1).retained());
        let without_alice = USERS.split_once('\n').unwrap().1;
        fs::write(files.path("users"), without_alice).unwrap();
        assert!(broker.server.reload_access(None));
        alice.expect_disconnect(0x87);
        let found = retained(&broker, *version, "#", 1);
        assert_eq!(topics(&found), ["home/c", "home/d", "of/nobody"]);
    }
}

/// A will is retained for whoever left it.
#[test]
fn a_retained_will_goes_with_the_right_to_leave_it() {
    for version in BOTH {
        let files = Files::new(USERS, ALL);
        let broker = Broker::start(2, |options, parts| files.set(WideSubscriptions::Refuse)(options, parts));
        let will = |topic| Connect {
            will: Some(Will {
                topic,
                payload: b"gone",
                retain: true,
                ..Will::default()
            }),
            ..as_user(ALICE, topic)
        };
        for topic in ["home/will", "other"] {
            drop(broker.connect(*version, &will(topic)));
        }
        let mut bob = user(&broker, *version, BOB, "b");
        bob.subscribe("home/will", 0);
        bob.expect_text("home/will", "gone");
        bob.subscribe("other", 0);
        bob.expect_text("other", "gone");
        set_rules(&files, &broker, LESS);
        assert_eq!(topics(&retained(&broker, *version, "#", 1)), ["other"]);
    }
}

fn keeping(directory: &Path, files: &Files, checks: bool) -> Broker {
    Broker::keeping(directory, |options| {
        let (users, acl) = (files.path("users"), files.path("acl"));
        let access = access(Some(&users), Some(&acl), Vec::new(), WideSubscriptions::Refuse);
        options.access = Some(access);
        options.broker.checks_retained_source = checks;
    })
}

/// Who published it is on disk.
#[test]
fn a_restart_does_not_forget_who_published_what_is_retained() {
    let version = Version::V5;
    let files = Files::new(USERS, ALL);
    let folder = tempfile::tempdir().unwrap();
    {
        let broker = keeping(folder.path(), &files, true);
        let mut alice = user(&broker, version, ALICE, "a");
        let mut bob = user(&broker, version, BOB, "b");
        publish_some(&mut alice, &mut bob);
    }
    for _ in 0..2 {
        fs::write(files.path("acl"), LESS).unwrap();
        let broker = keeping(folder.path(), &files, true);
        let found = retained(&broker, version, "#", 1);
        assert_eq!(topics(&found), ["home/c", "home/d", "other"]);
        set_rules(&files, &broker, ALL);
        assert_eq!(retained(&broker, version, "#", 1).len(), 5);
    }
    fs::write(files.path("acl"), LESS).unwrap();
    let broker = keeping(folder.path(), &files, false);
    assert_eq!(retained(&broker, version, "#", 1).len(), 5, "by option it is not asked");
}

/// The matrix: for each kind of rule, what of a publisher's retained messages a new subscriber gets once that rule is there.
#[test]
fn every_kind_of_rule_holds_for_what_is_retained() {
    // The publishers are alice as client `a`, and somebody without a name as `dev-1`, each with a message on `PUBLISHER/x`.
    let table: [(&str, &str, &[&str]); 6] = [
        ("nothing changes", "topic #\nuser alice\ntopic #\n", &["a/x", "dev-1/x"]),
        (
            "an allowing rule is gone",
            "topic #\nuser alice\ntopic read #\n",
            &["dev-1/x"],
        ),
        (
            "a denying rule has come",
            "topic #\nuser alice\ntopic #\ntopic deny a/#\n",
            &["dev-1/x"],
        ),
        (
            "anonymous clients have lost theirs",
            "topic read #\nuser alice\ntopic #\n",
            &["a/x"],
        ),
        (
            "by client id",
            "topic read #\npattern write %c/#\n",
            &["a/x", "dev-1/x"],
        ),
        ("by user name", "topic read #\npattern write %u/#\n", &[]),
    ];
    let files = Files::new(USERS, "");
    story_with(files.set(WideSubscriptions::Grant), BOTH, |broker, version| {
        set_rules(&files, broker, "topic #\npattern readwrite #\n");
        let mut alice = user(broker, version, ALICE, "a");
        alice.publish(Publish::new("a/x", "x", 1).retained());
        let mut nobody = broker.client("dev-1", version);
        nobody.publish(Publish::new("dev-1/x", "x", 1).retained());
        for (what, acl, expected) in table {
            let acl = format!("{acl}user carol\ntopic read #\n");
            set_rules(&files, broker, &acl);
            let found = retained(broker, version, "#", 1);
            assert_eq!(topics(&found), expected, "{what}");
        }
    });
}

/// Lets everybody in with the right to write to `mine`.
struct Generous;

impl Authenticator for Generous {
    fn connect(&self, request: &ConnectRequest, _: &Peer, _: Token) -> Answer<Verdict> {
        let grants = Grants {
            rules: Some(vec![rule(Effect::Allow, Actions::WRITE, "mine/#")]),
            ..Grants::default()
        };
        Answer::Ready(Verdict::Admit(Identity {
            user_name: request.user_name.clone(),
            grants: Some(Arc::new(grants)),
            ..Identity::default()
        }))
    }
}

fn rule(effect: Effect, actions: Actions, topics: &str) -> Rule {
    Rule::new(effect, actions, TopicPattern::plain(topics).unwrap(), "here")
}

/// What a token allowed is not known any more when its bearer has gone; what the rules deny is.
#[test]
fn what_was_retained_by_a_right_that_was_brought_along_stays_until_a_rule_denies_it() {
    let rules = |more: Option<Rule>| {
        let list = [rule(Effect::Allow, Actions::READ, "#")].into_iter().chain(more);
        Rules::new(list.collect(), Scope::Everywhere, WideSubscriptions::Refuse, Vec::new())
    };
    for version in BOTH {
        let live = Arc::new(LiveRules::new(rules(None)));
        let broker = Broker::start(2, |_, parts| {
            parts.authenticator = Arc::new(Generous);
            parts.authorizer = Arc::clone(&live) as _;
        });
        let mut bearer = user(&broker, *version, ALICE, "a");
        for topic in ["mine/a", "mine/b"] {
            bearer.publish(Publish::new(topic, "x", 1).retained());
        }
        bearer.disconnect();
        assert_eq!(topics(&retained(&broker, *version, "#", 1)), ["mine/a", "mine/b"]);
        live.replace(rules(Some(rule(Effect::Deny, Actions::WRITE, "mine/b"))));
        assert_eq!(topics(&retained(&broker, *version, "#", 1)), ["mine/a"]);
    }
}
