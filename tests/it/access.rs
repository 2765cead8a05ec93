//! Who gets in, and what he may do there: password files, ACL files, rules that change while clients are connected.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sundew::auth::rule::{Action, Actions, Effect, Rule, TopicPattern};
use sundew::auth::rules::WideSubscriptions;
use sundew::backends::access::{AccessOptions, ListenerAccess, LiveAccess};
use sundew::backends::hashing::HashingOptions;
use sundew::broker::Parts;
use sundew::protocol::property::{PropertiesBuf, PropertyId};
use sundew::protocol::version::Version;
use sundew::server::ServerOptions;

use crate::broker::{BOTH, Broker, V5, story_with};
use crate::client::Client;
use crate::wire::{Connect, Publish, Will};

mod bans;
mod groups;
mod matrix;
mod property;
mod random;
mod retained;
mod sessions;
mod wills;

/// Made by mosquitto_passwd 2.0.11; the passwords are `secret`, `pass word` and, by -H sha512, `test`.
const USERS: &str = "\
alice:$7$101$r02FpQM6Al2pzMki$644//s1o1Wnoh+VSi4K82qd5XhHK4buXE+daF2wEmPq23FrhHIvz89QvBcSuJ8zfqvvTsLFAzirEbEYOEa6Cow==
bob:$7$101$2H1pbgJ7Gf8Gplik$wD3JLuUq5kGZlCNhoS7R09OsiIcO1ol0pzDD5hztlYV6DCnRgVkt+Rk7xBjctSDMx9gFHdqiwNuZn/AumbokOQ==
carol:$6$njERlZMi/7DzNB9E$iiavfuXvUm8iyDZArTy7smTxh07GXXOrOsqxfW6gkOYVXHGk+W+i/8d3xDxrMwEPygEBhoA8A/gjQC0N2M4Lkw==
";

const ALICE: (&str, &str) = ("alice", "secret");
const BOB: (&str, &str) = ("bob", "pass word");
const CAROL: (&str, &str) = ("carol", "test");

/// Files of users and rules in a folder that goes away with it.
struct Files(tempfile::TempDir);

impl Files {
    fn new(users: &str, acl: &str) -> Self {
        let files = Self(tempfile::tempdir().unwrap());
        fs::write(files.path("users"), users).unwrap();
        fs::write(files.path("acl"), acl).unwrap();
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A broker with these users and rules.
    fn set(&self, wide: WideSubscriptions) -> impl Fn(&mut ServerOptions, &mut Parts) {
        let (users, acl) = (self.path("users"), self.path("acl"));
        move |options, _| options.access = Some(access(Some(&users), Some(&acl), Vec::new(), wide))
    }
}

fn access(users: Option<&Path>, acl: Option<&Path>, rules: Vec<Rule>, wide: WideSubscriptions) -> Arc<LiveAccess> {
    let listener = ListenerAccess {
        name: "tcp".into(),
        password_file: users.map(Path::to_owned),
        allows_anonymous: true,
        ..ListenerAccess::default()
    };
    let options = AccessOptions {
        listeners: vec![listener],
        rules,
        acl_file: acl.map(Path::to_owned),
        wide_subscriptions: wide,
        ..AccessOptions::default()
    };
    Arc::new(LiveAccess::start(options, &HashingOptions::default()).unwrap())
}

fn as_user<'a>((name, password): (&'a str, &'a str), client_id: &'a str) -> Connect<'a> {
    Connect {
        client_id,
        user_name: Some(name),
        password: Some(password.as_bytes()),
        ..Connect::default()
    }
}

fn user(broker: &Broker, version: Version, user: (&str, &str), client_id: &str) -> Client {
    broker.connect(version, &as_user(user, client_id)).0
}

/// A refused subscription.
fn refused(version: Version) -> u8 {
    if version.has_properties() { 0x87 } else { 0x80 }
}

/// [MQTT-3.1.4-2] [MQTT311-3.1.4-2]
#[test]
fn only_users_with_the_right_password_enter() {
    let files = Files::new(USERS, "topic #\npattern readwrite %u/#\n");
    story_with(files.set(WideSubscriptions::Refuse), BOTH, |broker, version| {
        for who in [ALICE, BOB, CAROL] {
            user(broker, version, who, who.0).expect_ping_answered();
        }
        let wrong = if version.has_properties() { 0x86 } else { 5 };
        for who in [
            ("alice", "Secret"),
            ("alice", ""),
            ("alice", "pass word"),
            ("nobody", "secret"),
            ("", "secret"),
        ] {
            let mut client = broker.open(version);
            assert_eq!(client.try_connect(&as_user(who, "c")).1, wrong, "{who:?}");
            client.expect_closed();
        }
        let mut client = broker.open(version);
        let without = Connect {
            user_name: Some("alice"),
            ..Connect::default()
        };
        assert_eq!(client.try_connect(&without).1, wrong);
        // Without a name: anonymous, with rights of its own.
        broker.client("anonymous", version).expect_ping_answered();
    });
}

/// What the rules say of each user, on each way there is to do something.
const ACL: &str = "\
topic read public/#
user alice
topic home/#
topic deny home/safe/#
user bob
topic write home/lamp
topic read home/+/state
pattern readwrite own/%u/#
pattern read dev/%c/#
";

/// [MQTT311-3.3.5-2] [MQTT-3.4.2-1]
#[test]
fn the_matrix_of_what_is_denied() {
    let files = Files::new(USERS, ACL);
    story_with(files.set(WideSubscriptions::Refuse), BOTH, |broker, version| {
        let refused = refused(version);
        let mut alice = user(broker, version, ALICE, "a");
        let mut bob = user(broker, version, BOB, "b");
        let mut nobody = broker.client("n", version);
        let table: [(&str, u8, u8, u8); 14] = [
            // filter, then what alice, bob and anonymous are told
            ("home/lamp", 0, refused, refused),
            ("home/lamp/more", 0, refused, refused),
            ("home/x/state", 0, 0, refused),
            ("home/+/state", refused, 0, refused),
            ("home/safe/key", refused, refused, refused),
            ("home/#", refused, refused, refused),
            ("#", refused, refused, refused),
            ("+/x", refused, refused, refused),
            ("own/alice/#", 0, refused, refused),
            ("own/+/x", refused, refused, refused),
            ("public/#", refused, refused, 0),
            ("dev/a/#", 0, refused, refused),
            ("$share/g/home/safe/#", refused, refused, refused),
            ("$share/g/home/lamp", 0, refused, refused),
        ];
        for (filter, for_alice, for_bob, for_nobody) in table {
            // `home/+/state` overlaps what alice is denied.
            assert_eq!(alice.subscribe(filter, 0), for_alice, "alice: {filter}");
            assert_eq!(bob.subscribe(filter, 0), for_bob, "bob: {filter}");
            assert_eq!(nobody.subscribe(filter, 0), for_nobody, "anonymous: {filter}");
        }
        let told = if version.has_properties() { 0x87 } else { 0 };
        let publishes: [(&str, bool, bool, bool); 6] = [
            ("home/lamp", true, true, false),
            ("home/x/state", true, false, false),
            ("home/safe/key", false, false, false),
            ("own/alice/x", true, false, false),
            ("public/a", false, false, false),
            ("$other/a", false, false, false),
        ];
        for (topic, for_alice, for_bob, for_nobody) in publishes {
            for (client, may) in [(&mut alice, for_alice), (&mut bob, for_bob), (&mut nobody, for_nobody)] {
                for retain in [false, true] {
                    let publish = Publish::new(topic, "", 1);
                    let publish = if retain { publish.retained() } else { publish };
                    let reason = client.try_publish(publish);
                    assert_eq!(reason >= 0x80, !may && told != 0, "{topic}: {reason:#x}");
                }
            }
        }
    });
}

#[test]
fn what_was_refused_reaches_nobody_and_a_will_is_refused_at_once() {
    let files = Files::new(USERS, ACL);
    story_with(files.set(WideSubscriptions::Refuse), BOTH, |broker, version| {
        let mut alice = user(broker, version, ALICE, "a");
        alice.subscribe("home/x/state", 2);
        let mut bob = user(broker, version, BOB, "b");
        for qos in 0..3 {
            bob.try_publish(Publish::new("home/x/state", "no", qos));
        }
        bob.expect_ping_answered();
        alice.expect_ping_answered();
        alice.publish(Publish::new("home/x/state", "yes", 1));
        alice.expect_text("home/x/state", "yes");
        let will = |topic| {
            let will = Some(Will {
                topic,
                payload: b"gone",
                ..Will::default()
            });
            Connect {
                will,
                ..as_user(BOB, "w")
            }
        };
        let mut client = broker.open(version);
        let not_authorized = if version.has_properties() { 0x87 } else { 5 };
        assert_eq!(client.try_connect(&will("home/x/state")).1, not_authorized);
        assert_eq!(broker.open(version).try_connect(&will("home/lamp")).1, 0);
    });
}

/// An alias stands for its topic, in what is asked of the rules, too.
#[test]
fn an_alias_hides_nothing() {
    let files = Files::new(USERS, ACL);
    story_with(files.set(WideSubscriptions::Refuse), V5, |broker, version| {
        let mut bob = user(broker, version, BOB, "b");
        let alias = |topic: &str| Publish::new(topic, "x", 1).with(|p| p.push_u16(PropertyId::TopicAlias, 1));
        assert_eq!(bob.try_publish(alias("home/safe/key")), 0x87);
        assert_eq!(bob.try_publish(alias("")), 0x87);
        assert!(bob.try_publish(alias("home/lamp")) < 0x80);
        assert!(bob.try_publish(alias("")) < 0x80);
    });
}

#[test]
fn a_narrowed_subscription_gets_what_may_be_received_and_no_more() {
    let files = Files::new(USERS, ACL);
    story_with(files.set(WideSubscriptions::Narrow), BOTH, |broker, version| {
        let mut alice = user(broker, version, ALICE, "a");
        for topic in ["home/lamp", "home/kept/state", "own/alice/x"] {
            alice.publish(Publish::new(topic, "kept", 1).retained());
        }
        let mut bob = user(broker, version, BOB, "b");
        assert_eq!(bob.subscribe("#", 2), 2);
        bob.expect_text("home/kept/state", "kept");
        assert_eq!(bob.subscribe("public/#", 0), refused(version), "nothing of it");
        for qos in 0..3 {
            alice.publish(Publish::new("home/lamp", "no", qos));
            alice.publish(Publish::new("home/x/state", "yes", qos));
            bob.expect_text("home/x/state", "yes");
        }
        bob.expect_ping_answered();
        // Of a shared subscription the member gets it that may.
        let mut other = user(broker, version, ALICE, "a2");
        assert_eq!(bob.subscribe("$share/g/home/#", 1), 1);
        assert_eq!(other.subscribe("$share/g/home/#", 1), 1);
        bob.unsubscribe(&["#"]);
        for number in 0..6 {
            alice.publish(Publish::new("home/lamp", number.to_string(), 1));
            other.expect_text("home/lamp", &number.to_string());
        }
        bob.expect_ping_answered();
    });
}

/// What waits for a client that is away is looked at when it comes back.
#[test]
fn a_right_that_is_taken_away_is_gone_at_once() {
    for version in BOTH {
        let files = Files::new(USERS, "user alice\ntopic #\nuser bob\ntopic one\ntopic two\n");
        let broker = Broker::start(2, |options, parts| files.set(WideSubscriptions::Refuse)(options, parts));
        let mut alice = user(&broker, *version, ALICE, "a");
        let lasting = Connect {
            user_name: Some(BOB.0),
            password: Some(BOB.1.as_bytes()),
            ..Connect::lasting("b", *version)
        };
        let (mut bob, _) = broker.connect(*version, &lasting);
        assert_eq!(
            bob.subscribe_many(&PropertiesBuf::new(), &[("one", 1), ("two", 1)]),
            [1, 1]
        );
        alice.publish(Publish::new("two", "read", 1));
        bob.expect_text("two", "read");
        bob.disconnect();
        alice.publish(Publish::new("two", "waits", 1));
        alice.publish(Publish::new("one", "waits", 1));
        alice.publish(Publish::new("two", "kept", 1).retained());
        fs::write(files.path("acl"), "user alice\ntopic #\nuser bob\ntopic one\n").unwrap();
        assert!(broker.server.reload_access(None));
        let (mut bob, is_present) = broker.connect(*version, &lasting);
        assert!(is_present);
        bob.expect_text("one", "waits");
        alice.publish(Publish::new("two", "now", 1));
        alice.publish(Publish::new("one", "now", 1));
        bob.expect_text("one", "now");
        assert_eq!(bob.subscribe("two", 1), refused(*version));
        bob.expect_ping_answered();
        // And it comes back as it went.
        fs::write(
            files.path("acl"),
            "user alice\ntopic #\nuser bob\ntopic one\ntopic two\n",
        )
        .unwrap();
        assert!(broker.server.reload_access(None));
        alice.publish(Publish::new("two", "again", 1));
        bob.expect_text("two", "again");
    }
}

/// A will is a publication that is sent in advance: it goes with the right to it, and with a user who is removed it is looked at last.
#[test]
fn a_will_goes_with_the_right_to_leave_it() {
    for version in BOTH {
        let with = "user alice\ntopic #\nuser bob\ntopic will/#\n";
        let files = Files::new(USERS, with);
        let broker = Broker::start(2, |options, parts| files.set(WideSubscriptions::Refuse)(options, parts));
        let mut alice = user(&broker, *version, ALICE, "a");
        alice.subscribe("will/#", 0);
        let leave = |who, client_id: &str, topic| {
            let will = Some(Will {
                topic,
                payload: b"gone",
                ..Will::default()
            });
            broker
                .connect(
                    *version,
                    &Connect {
                        will,
                        ..as_user(who, client_id)
                    },
                )
                .0
        };
        let (mut stays, mut goes) = (leave(BOB, "b1", "will/stays"), leave(BOB, "b2", "will/goes"));
        fs::write(files.path("acl"), "user alice\ntopic #\nuser bob\ntopic will/stays\n").unwrap();
        assert!(broker.server.reload_access(None));
        stays.expect_ping_answered();
        goes.expect_ping_answered();
        drop(goes);
        drop(stays);
        alice.expect_text("will/stays", "gone");
        // Of a user who is removed: the broker ends his connection.
        let mut removed = leave(BOB, "b3", "will/stays");
        let of_alice = USERS.lines().next().unwrap();
        fs::write(files.path("users"), of_alice).unwrap();
        assert!(broker.server.reload_access(None));
        removed.expect_disconnect(0x87);
        alice.expect_text("will/stays", "gone");
        alice.expect_ping_answered();
    }
}

#[test]
fn who_is_removed_or_has_another_password_goes_and_the_others_stay() {
    let files = Files::new(USERS, "topic #\npattern readwrite #\n");
    story_with(files.set(WideSubscriptions::Refuse), BOTH, |broker, version| {
        fs::write(files.path("users"), USERS).unwrap();
        broker.server.reload_access(None);
        let mut clients: Vec<_> = (0..100).map(|n| user(broker, version, BOB, &format!("b{n}"))).collect();
        let mut alice = user(broker, version, ALICE, "a");
        let mut carol = user(broker, version, CAROL, "c");
        let mut nobody = broker.client("n", version);
        // A file that is wrong changes nothing.
        fs::write(files.path("users"), format!("{USERS}dave:secret\n")).unwrap();
        assert!(!broker.server.reload_access(None));
        alice.expect_ping_answered();
        // Alice is gone, carol has bob's password.
        let lines: Vec<_> = USERS.lines().collect();
        let carol_now = lines[1].replace("bob", "carol");
        fs::write(files.path("users"), format!("# by hand\n{carol_now}\n{}\n", lines[1])).unwrap();
        assert!(broker.server.reload_access(None));
        alice.expect_disconnect(0x87);
        carol.expect_disconnect(0x87);
        for client in clients.iter_mut().chain([&mut nobody]) {
            client.expect_ping_answered();
        }
        let wrong = if version.has_properties() { 0x86 } else { 5 };
        assert_eq!(broker.open(version).try_connect(&as_user(CAROL, "c")).1, wrong);
        user(broker, version, ("carol", BOB.1), "c").expect_ping_answered();
    });
}

/// Nobody asks for it: the files are looked at.
#[test]
fn a_new_user_enters_within_a_second() {
    let files = Files::new("", "pattern readwrite #\n");
    let broker = Broker::start(1, |options, parts| files.set(WideSubscriptions::Refuse)(options, parts));
    assert_eq!(broker.open(Version::V5).try_connect(&as_user(ALICE, "a")).1, 0x86);
    fs::write(files.path("users"), USERS).unwrap();
    let written = std::time::Instant::now();
    while broker.open(Version::V5).try_connect(&as_user(ALICE, "a")).1 != 0 {
        assert!(written.elapsed() < Duration::from_secs(5), "not live");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(
        written.elapsed() < Duration::from_secs(2),
        "live after {:?}",
        written.elapsed()
    );
}

/// Many try passwords at once: a bounded number is checked, the others are told to come later, and nobody else waits for them.
#[test]
fn a_storm_of_passwords_is_bounded_and_delays_nobody() {
    let files = Files::new(USERS, "topic #\n");
    let hash = sundew::backends::hashing::hash_password(b"secret").unwrap();
    fs::write(files.path("users"), format!("alice:{hash}\n")).unwrap();
    let users = files.path("users");
    let set = |options: &mut ServerOptions, _: &mut Parts| {
        let one = HashingOptions {
            threads: 1,
            waiting_max: 4,
        };
        let listener = ListenerAccess {
            name: "tcp".into(),
            password_file: Some(users.clone()),
            allows_anonymous: true,
            ..ListenerAccess::default()
        };
        let access = AccessOptions {
            listeners: vec![listener],
            ..AccessOptions::default()
        };
        options.access = Some(Arc::new(LiveAccess::start(access, &one).unwrap()));
    };
    story_with(set, BOTH, |broker, version| {
        let mut canary = broker.client("canary", version);
        let mut storm: Vec<_> = (0..40).map(|_| broker.open(version)).collect();
        for (number, client) in storm.iter_mut().enumerate() {
            let name = ["alice", "nobody"][number % 2];
            client.send(&as_user((name, "guess"), "c").encode(version));
        }
        let since = std::time::Instant::now();
        for _ in 0..20 {
            canary.expect_ping_answered();
        }
        assert!(since.elapsed() < Duration::from_secs(2), "{:?}", since.elapsed());
        let (wrong, later) = if version.has_properties() { (0x86, 0x97) } else { (5, 3) };
        let answers: Vec<_> = storm.iter_mut().map(|client| client.expect_connack().1).collect();
        assert!(
            answers.iter().all(|answer| [wrong, later].contains(answer)),
            "{answers:?}"
        );
        assert!(answers.contains(&wrong) && answers.contains(&later), "{answers:?}");
        assert_eq!(broker.open(version).try_connect(&as_user(ALICE, "a")).1, 0);
    });
}

/// What may be subscribed to and not received is left out for those only of whom a rule says so.
#[test]
fn a_rule_about_receiving_hides_what_a_wide_subscription_would_show() {
    let rule = |effect, actions, topics: &str| Rule::new(effect, actions, TopicPattern::parse(topics).unwrap(), "r");
    let mut hidden = rule(Effect::Deny, Actions::default().with(Action::Receive), "home/safe/#");
    hidden.users.names.insert("bob".into());
    let rules = vec![rule(Effect::Allow, Actions::ALL, "#"), hidden];
    let files = Files::new(USERS, "");
    let users = files.path("users");
    let set = |options: &mut ServerOptions, _: &mut Parts| {
        options.access = Some(access(Some(&users), None, rules.clone(), WideSubscriptions::Refuse));
    };
    story_with(set, BOTH, |broker, version| {
        let (mut alice, mut bob) = (user(broker, version, ALICE, "a"), user(broker, version, BOB, "b"));
        assert_eq!((alice.subscribe("#", 1), bob.subscribe("#", 1)), (1, 1));
        let mut other = user(broker, version, CAROL, "c");
        other.publish(Publish::new("home/safe/key", "x", 1));
        other.publish(Publish::new("home/lamp", "y", 1));
        alice.expect_text("home/safe/key", "x");
        alice.expect_text("home/lamp", "y");
        bob.expect_text("home/lamp", "y");
        bob.expect_ping_answered();
    });
}

/// A rule allows so much QoS and, if it says so, nothing retained; and only to whom it names.
#[test]
fn rules_have_limits_and_conditions() {
    let mut limited = Rule::new(Effect::Allow, Actions::ALL, TopicPattern::parse("a/#").unwrap(), "r");
    limited.qos_max = sundew::protocol::qos::QoS::AtLeastOnce;
    limited.retain = false;
    limited.networks = vec!["127.0.0.0/8".parse().unwrap()];
    let mut elsewhere = Rule::new(Effect::Allow, Actions::ALL, TopicPattern::parse("b").unwrap(), "r");
    elsewhere.networks = vec!["10.0.0.0/8".parse().unwrap()];
    let rules = vec![limited, elsewhere];
    let set = |options: &mut ServerOptions, _: &mut Parts| {
        options.access = Some(access(None, None, rules.clone(), WideSubscriptions::Refuse));
    };
    story_with(set, BOTH, |broker, version| {
        let told = if version.has_properties() { 0x87 } else { 0 };
        let mut client = broker.client("c", version);
        assert_eq!(client.subscribe("a/#", 2), 1, "granted less");
        assert_eq!(client.subscribe("b", 2), refused(version), "not from here");
        assert_eq!(client.try_publish(Publish::new("a/1", "x", 2)), told);
        assert_eq!(client.try_publish(Publish::new("a/2", "x", 1).retained()), told);
        client.publish(Publish::new("a/3", "x", 1));
        client.expect_text("a/3", "x");
        client.expect_ping_answered();
    });
}

/// Older clients cannot be told that a publication was refused; by option the end of the connection tells them.
#[test]
fn by_option_a_refused_publication_ends_the_connection_of_an_older_client() {
    let files = Files::new(USERS, ACL);
    let set = |options: &mut ServerOptions, parts: &mut Parts| {
        options.broker.closes_refused_publish = true;
        files.set(WideSubscriptions::Refuse)(options, parts);
    };
    story_with(set, BOTH, |broker, version| {
        let mut bob = user(broker, version, BOB, "b");
        bob.send(&Publish::new("home/safe/key", "x", 1).encode(version));
        if version.has_properties() {
            assert_eq!(bob.await_ack(crate::wire::PUBACK, 1).reason, 0x87);
        } else {
            bob.expect_closed();
        }
    });
}
