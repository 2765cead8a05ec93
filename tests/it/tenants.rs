//! Tenants: topics, client ids, sessions and groups of their own on one broker, and nobody notices.

use std::collections::BTreeMap;
use std::sync::Arc;

use sundew::auth::bans::Subject;
use sundew::auth::rule::{Actions, Effect, Rule, TopicPattern};
use sundew::auth::tenants::{NamePattern, Tenant, TenantLimits};
use sundew::backends::access::{AccessOptions, ListenerAccess, LiveAccess};
use sundew::backends::hashing::HashingOptions;
use sundew::broker::Parts;
use sundew::protocol::ids::ClientId;
use sundew::protocol::property::PropertiesBuf;
use sundew::protocol::reason::ReasonCode;
use sundew::protocol::time::Time;
use sundew::protocol::version::Version;
use sundew::server::ServerOptions;

use crate::broker::{BOTH, Broker, story_with};
use crate::client::Client;
use crate::wire::{Connect, Publish, Will, subscribe};

mod limits;
mod random;
mod version5;

/// Users `a-…` are of the tenant `a`, users `b-…` of `b` with a mount point of two levels; whoever has no name is of none.
fn options() -> AccessOptions {
    let tenant = |name: &str, mount: &str| Tenant {
        name: name.into(),
        mount: mount.into(),
        listeners: Vec::new(),
        users: vec![NamePattern::BeginsWith(format!("{name}-").into())],
        certificates: Vec::new(),
        limits: TenantLimits::UNLIMITED,
    };
    AccessOptions {
        listeners: vec![ListenerAccess {
            name: "tcp".into(),
            allows_anonymous: true,
            ..ListenerAccess::default()
        }],
        is_sys_public: true,
        tenants: vec![tenant("a", "a/"), tenant("b", "b/b/")],
        ..AccessOptions::default()
    }
}

fn with(options: &AccessOptions) -> impl Fn(&mut ServerOptions, &mut Parts) {
    let options = options.clone();
    move |server, _| {
        server.broker.sys_interval_secs = 0;
        server.access = Some(Arc::new(
            LiveAccess::start(options.clone(), &HashingOptions::default()).unwrap(),
        ));
    }
}

fn tenants(tell: impl Fn(&Broker, Version)) {
    story_with(with(&options()), BOTH, tell);
}

/// A client of a tenant; of none where that is empty.
fn of<'a>(tenant: &str, client_id: &'a str) -> Connect<'a> {
    Connect {
        client_id,
        user_name: match tenant {
            "a" => Some("a-1"),
            "b" => Some("b-1"),
            _ => None,
        },
        ..Connect::default()
    }
}

fn lasting<'a>(tenant: &str, client_id: &'a str, version: Version) -> Connect<'a> {
    Connect {
        user_name: of(tenant, client_id).user_name,
        ..Connect::lasting(client_id, version)
    }
}

fn client(broker: &Broker, version: Version, tenant: &str, client_id: &str) -> Client {
    broker.connect(version, &of(tenant, client_id)).0
}

/// One of `a`, one of `b`, one of none, all with the same client id.
fn three(broker: &Broker, version: Version) -> [Client; 3] {
    ["a", "b", ""].map(|tenant| client(broker, version, tenant, "c"))
}

#[test]
fn topics_are_a_tenants_own_and_full_names_to_those_of_none() {
    tenants(|broker, version| {
        let [mut a, mut b, mut house] = three(broker, version);
        let mut publisher = client(broker, version, "a", "publisher");
        for receiver in [&mut a, &mut b, &mut house] {
            receiver.subscribe("#", 2);
        }
        let large = "x".repeat(20_000);
        for (qos, payload) in [(0, "0"), (1, "1"), (2, "2"), (1, &large), (0, &large)] {
            publisher.publish(Publish::new("lamp/on", payload, qos));
            assert_eq!(a.expect_text("lamp/on", payload).qos, qos);
            assert_eq!(house.expect_text("a/lamp/on", payload).qos, qos);
        }
        // And back: what those of none send there, is there.
        house.publish(Publish::new("b/b/lamp", "for b", 1));
        b.expect_text("lamp", "for b");
        house.expect_text("b/b/lamp", "for b");
        b.publish(Publish::new("b/b/lamp", "deeper", 1));
        b.expect_text("b/b/lamp", "deeper");
        house.expect_text("b/b/b/b/lamp", "deeper");
        for client in [&mut a, &mut b, &mut house] {
            client.expect_ping_answered();
        }
        a.unsubscribe(&["#"]);
        publisher.publish(Publish::new("lamp/on", "unheard", 1));
        a.expect_ping_answered();
    });
}

#[test]
fn one_client_id_is_three_clients_at_once() {
    tenants(|broker, version| {
        let mut first: Vec<_> = ["a", "b", ""]
            .map(|tenant| broker.connect(version, &lasting(tenant, "c", version)).0)
            .into();
        for (client, filter) in first.iter_mut().zip(["own/a", "own/b", "own/house"]) {
            client.subscribe(filter, 1);
            client.expect_ping_answered();
        }
        // Taken over is only whose tenant it is.
        let (mut second, is_present) = broker.connect(version, &lasting("a", "c", version));
        assert!(is_present, "it is the session of a");
        first.remove(0).expect_disconnect(0x8E);
        for client in &mut first {
            client.expect_ping_answered();
        }
        // Each comes back to its own session.
        first.into_iter().for_each(Client::disconnect);
        for (tenant, full) in [("b", "b/b/own/b"), ("", "own/house")] {
            let mut publisher = client(broker, version, "", "p");
            publisher.publish(Publish::new(full, tenant, 1));
            let (mut back, is_present) = broker.connect(version, &lasting(tenant, "c", version));
            assert!(is_present);
            back.expect_text(full.strip_prefix("b/b/").unwrap_or(full), tenant);
        }
        // An operator, too, says whose he means.
        let server = &broker.server;
        assert!(server.disconnect(&ClientId::of("a/", "c"), ReasonCode::AdministrativeAction));
        second.expect_disconnect(0x98);
        assert!(!server.disconnect(&ClientId::of("c/", "c"), ReasonCode::AdministrativeAction));
    });
}

/// [MQTT-3.1.2-8]
#[test]
fn wills_and_retained_messages_stay_in_their_tenant() {
    tenants(|broker, version| {
        let will = Will {
            topic: "gone",
            payload: b"will",
            qos: 1,
            retain: true,
            ..Will::default()
        };
        let dying = Connect {
            will: Some(will),
            ..of("a", "dying")
        };
        let [mut a, mut b, mut house] = three(broker, version);
        a.subscribe("gone", 1);
        b.subscribe("gone", 1);
        drop(broker.connect(version, &dying).0);
        assert!(!a.expect_text("gone", "will").retain);
        a.publish(Publish::new("kept", "by a", 1).retained());
        b.publish(Publish::new("kept", "by b", 1).retained());
        b.expect_ping_answered();
        // To whoever comes later.
        let mut late = client(broker, version, "a", "late");
        late.subscribe("#", 1);
        let mut found: Vec<_> = (0..2).map(|_| late.expect_message().topic).collect();
        found.sort();
        assert_eq!(found, ["gone", "kept"]);
        late.expect_ping_answered();
        house.subscribe("+/+", 1);
        house.subscribe("b/b/+", 1);
        let mut found: Vec<_> = (0..3).map(|_| house.expect_message()).collect();
        found.sort_by(|one, other| one.topic.cmp(&other.topic));
        let texts: Vec<_> = found.iter().map(|one| (one.topic.as_str(), one.text())).collect();
        assert_eq!(texts, [("a/gone", "will"), ("a/kept", "by a"), ("b/b/kept", "by b")]);
        // Cleared is cleared in its own tenant only.
        a.publish(Publish::new("kept", "", 1).retained());
        let mut later = client(broker, version, "b", "later");
        later.subscribe("kept", 1);
        assert!(later.expect_text("kept", "by b").retain);
        let mut later = client(broker, version, "a", "later");
        later.subscribe("kept", 1);
        later.expect_ping_answered();
    });
}

/// Somebody else's group of the same name takes nothing away. [MQTT-4.8.2-4]
#[test]
fn shared_groups_are_a_tenants_own() {
    tenants(|broker, version| {
        let [mut a, mut b, mut house] = three(broker, version);
        let mut second = client(broker, version, "a", "second");
        for member in [&mut a, &mut second] {
            assert_eq!(member.subscribe("$share/g/job/#", 1), 1);
        }
        b.subscribe("$share/g/job/#", 1);
        house.subscribe("$share/g/a/job/#", 1);
        let mut publisher = client(broker, version, "a", "publisher");
        for number in 0..6 {
            publisher.publish(Publish::new(&format!("job/{number}"), "", 1));
            let topic = house.expect_message().topic;
            assert_eq!(topic, format!("a/job/{number}"), "a group of its own: it gets each");
        }
        let mut found = Vec::new();
        for member in [&mut a, &mut second] {
            for _ in 0..3 {
                found.push(member.expect_message().topic);
            }
            member.expect_ping_answered();
        }
        found.sort();
        assert_eq!(found, (0..6).map(|number| format!("job/{number}")).collect::<Vec<_>>());
        b.expect_ping_answered();
        for member in [&mut a, &mut second] {
            member.unsubscribe(&["$share/g/job/#"]);
        }
        publisher.publish(Publish::new("job/last", "", 1));
        house.expect_message();
        a.expect_ping_answered();
    });
}

/// A name that the broker gives to groups is none that a client can ask for. [MQTT-4.8.2-2]
#[test]
fn nobody_can_ask_for_the_group_of_a_tenant() {
    tenants(|broker, version| {
        for tenant in ["a", ""] {
            let mut intruder = client(broker, version, tenant, "intruder");
            let filters = [("$share/g+/a/job/#", 1)];
            intruder.send(&subscribe(version, 1, &PropertiesBuf::new(), &filters));
            intruder.expect_disconnect_of(&[0x81, 0x82, 0x8F]);
        }
    });
}

/// [MQTT-4.7.2-1]
#[test]
fn what_begins_with_a_dollar_is_hidden_from_wildcards_in_a_tenant_too() {
    tenants(|broker, version| {
        let [mut a, mut b, mut house] = three(broker, version);
        let mut other = client(broker, version, "a", "other");
        for client in [&mut a, &mut b, &mut house] {
            client.subscribe("#", 1);
            client.subscribe("+/x", 1);
        }
        other.subscribe("$queue/#", 1);
        house.subscribe("$a/#", 1);
        let mut publisher = client(broker, version, "a", "publisher");
        publisher.publish(Publish::new("$queue/x", "q", 1));
        other.expect_text("$queue/x", "q");
        house.expect_text("$a/$queue/x", "q");
        for client in [&mut a, &mut b, &mut house, &mut other] {
            client.expect_ping_answered();
        }
        // $SYS is the broker's to say, in a tenant, too.
        let reason = publisher.try_publish(Publish::new("$SYS/broker/uptime", "forever", 1));
        assert_eq!(reason, if version.has_properties() { 0x87 } else { 0 });
        let reason = house.try_publish(Publish::new("$a/$SYS/broker/uptime", "forever", 1));
        assert_eq!(reason, if version.has_properties() { 0x87 } else { 0 });
        other.subscribe("$SYS/#", 1);
        other.expect_ping_answered();
    });
}

#[test]
fn a_tenants_sys_tells_of_the_tenant_and_not_of_the_broker() {
    let set = |server: &mut ServerOptions, parts: &mut Parts| {
        with(&options())(server, parts);
        server.broker.sys_interval_secs = 1;
    };
    story_with(set, BOTH, |broker, version| {
        let [mut a, b, mut house] = three(broker, version);
        let _second = client(broker, version, "a", "second");
        house.subscribe("$SYS/broker/clients/connected", 0);
        while house.expect_message().text() != "4" {}
        a.subscribe("$SYS/#", 0);
        let mut seen = BTreeMap::new();
        while seen.len() < 2 || seen.values().any(|value| value != "2") {
            let message = a.expect_message();
            seen.insert(message.topic.clone(), message.text().to_owned());
        }
        let topics: Vec<_> = seen.keys().map(String::as_str).collect();
        assert_eq!(topics, ["$SYS/broker/clients/connected", "$SYS/broker/clients/total"]);
        // Who has nothing any more, of him nothing is told.
        house.subscribe("$b/b/$SYS/#", 0);
        b.disconnect();
        while !house.expect_message().payload.is_empty() {}
    });
}

/// Those of none can publish where a tenant's filter matches and there is no name for it.
#[test]
fn a_topic_without_a_name_in_the_tenant_is_left_out() {
    tenants(|broker, version| {
        let mut house = client(broker, version, "", "c");
        let mut lasting_a = broker.connect(version, &lasting("a", "away", version)).0;
        lasting_a.subscribe("#", 2);
        lasting_a.disconnect();
        let mut a = client(broker, version, "a", "c");
        a.subscribe("#", 2);
        a.subscribe("$share/g/#", 2);
        for qos in [0, 1, 2] {
            for topic in ["a", "a/"] {
                house.publish(Publish::new(topic, "nameless", qos));
                house.publish(Publish::new(topic, "nameless", qos).retained());
            }
        }
        house.publish(Publish::new("a/x", "named", 2));
        a.expect_text("x", "named");
        a.expect_text("x", "named");
        a.expect_ping_answered();
        let (mut back, is_present) = broker.connect(version, &lasting("a", "away", version));
        assert!(is_present);
        back.expect_text("x", "named");
        back.subscribe("#", 2);
        back.expect_ping_answered();
    });
}

/// Its sessions come back in their tenants, with what waits for them.
#[test]
fn a_restart_mixes_nobody_up() {
    for version in BOTH {
        let folder = tempfile::tempdir().unwrap();
        let set = |options: &mut ServerOptions| with(&self::options())(options, &mut Parts::default());
        let broker = Broker::keeping(folder.path(), set);
        for tenant in ["a", "b", ""] {
            let mut client = broker.connect(*version, &lasting(tenant, "c", *version)).0;
            client.subscribe("news", 1);
            client.subscribe("$share/g/job", 1);
            client.disconnect();
        }
        let mut publisher = client(&broker, *version, "", "publisher");
        for (full, text) in [("a/news", "a"), ("b/b/news", "b"), ("news", "")] {
            publisher.publish(Publish::new(full, text, 1));
        }
        publisher.publish(Publish::new("a/kept", "by a", 1).retained());
        drop(publisher);
        assert!(broker.server.stop());
        let broker = Broker::keeping(folder.path(), set);
        let mut publisher = client(&broker, *version, "a", "publisher");
        publisher.publish(Publish::new("job", "after", 1));
        for tenant in ["a", "b", ""] {
            let (mut back, is_present) = broker.connect(*version, &lasting(tenant, "c", *version));
            assert!(is_present, "{tenant}");
            back.expect_text("news", tenant);
            if tenant == "a" {
                back.expect_text("job", "after");
                back.subscribe("kept", 1);
                back.expect_text("kept", "by a");
            }
            back.expect_ping_answered();
        }
        assert!(broker.server.stop());
    }
}

#[test]
fn a_tenant_takes_no_more_than_it_may_and_nobody_else_feels_it() {
    let mut options = options();
    options.tenants[0].limits = TenantLimits {
        connections_max: 2,
        sessions_max: 3,
        ..TenantLimits::UNLIMITED
    };
    story_with(with(&options), BOTH, |broker, version| {
        let full = if version.has_properties() { 0x97 } else { 3 };
        let first = broker.connect(version, &lasting("a", "1", version)).0;
        let mut second = client(broker, version, "a", "2");
        assert_eq!(broker.open(version).try_connect(&of("a", "3")).1, full);
        let _others = ["b", ""].map(|tenant| client(broker, version, tenant, "3"));
        // Who takes over takes nothing more.
        let mut third = client(broker, version, "a", "2");
        second.expect_disconnect(0x8E);
        third.expect_ping_answered();
        // A session that stays counts as one; a connection that has gone does not.
        first.disconnect();
        let fourth = broker.connect(version, &lasting("a", "4", version)).0;
        fourth.disconnect();
        assert_eq!(
            broker.open(version).try_connect(&of("a", "5")).1,
            full,
            "three sessions"
        );
        third.disconnect();
        client(broker, version, "a", "5").expect_ping_answered();
        let refused = broker.server.broker().metrics.sum().limit_tenants;
        assert_eq!(refused, 2);
    });
}

/// mosquitto does so, too.
#[test]
fn rules_see_full_names() {
    let rule = |effect, topic: &str| Rule::new(effect, Actions::ALL, TopicPattern::parse(topic).unwrap(), "here");
    let options = AccessOptions {
        rules: vec![
            rule(Effect::Allow, "a/open/#"),
            rule(Effect::Allow, "open/#"),
            rule(Effect::Deny, "a/open/secret"),
        ],
        ..options()
    };
    story_with(with(&options), BOTH, |broker, version| {
        let [mut a, mut b, mut house] = three(broker, version);
        let refused = if version.has_properties() { 0x87 } else { 0x80 };
        assert_eq!(a.subscribe("open/lamp", 1), 1);
        assert_eq!(a.subscribe("open/secret", 1), refused);
        assert_eq!(a.subscribe("a/open/lamp", 1), refused);
        assert_eq!(b.subscribe("open/lamp", 1), refused);
        assert_eq!(house.subscribe("a/open/lamp", 1), 1);
        a.publish(Publish::new("open/lamp", "on", 1));
        a.expect_text("open/lamp", "on");
        house.expect_text("a/open/lamp", "on");
        let reason = b.try_publish(Publish::new("open/lamp", "on", 1));
        assert_eq!(reason, if version.has_properties() { 0x87 } else { 0 });
        let dying = Connect {
            will: Some(Will {
                topic: "open/secret",
                ..Will::default()
            }),
            ..of("a", "dying")
        };
        let code = broker.open(version).try_connect(&dying).1;
        assert_eq!(code, if version.has_properties() { 0x87 } else { 5 });
    });
}

/// Who belongs to another tenant now has to come again.
#[test]
fn a_client_whose_tenant_has_changed_is_sent_away() {
    tenants(|broker, version| {
        let [mut a, mut b, mut house] = three(broker, version);
        let mut changed = options();
        changed.tenants[0].mount = "moved/".into();
        assert!(broker.server.reload_access(Some(changed.clone())));
        a.expect_disconnect(0x87);
        b.expect_ping_answered();
        house.expect_ping_answered();
        let mut a = client(broker, version, "a", "c");
        house.subscribe("#", 1);
        a.publish(Publish::new("x", "there", 1));
        house.expect_text("moved/x", "there");
        changed.tenants.remove(0);
        assert!(broker.server.reload_access(Some(changed)));
        a.expect_disconnect(0x87);
        b.expect_ping_answered();
    });
}

/// Whoever is called the same elsewhere is not meant.
#[test]
fn a_ban_is_for_the_client_of_one_tenant() {
    tenants(|broker, version| {
        let [mut a, mut b, mut house] = three(broker, version);
        let (shared, now) = (broker.server.broker(), broker.server.now());
        let ban = |name: &str| shared.ban(Subject::Client(name.into()), Time::NEVER, "", now).unwrap();
        ban("c of a/");
        a.expect_disconnect(0x98);
        b.expect_ping_answered();
        house.expect_ping_answered();
        let code = broker.open(version).try_connect(&of("a", "c")).1;
        assert_eq!(code, if version.has_properties() { 0x8A } else { 5 });
        ban("c");
        house.expect_disconnect(0x98);
        b.expect_ping_answered();
        client(broker, version, "b", "c").expect_ping_answered();
    });
}
