use std::sync::Arc;

use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::*;
use crate::auth::acl_file::AclFile;
use crate::auth::rule::{Actions, TopicPattern, Users};
use crate::session::peer::{ListenerRules, Peer};

fn peer(ip: &str) -> Peer {
    Peer {
        address: ip.into(),
        ip: ip.parse().ok(),
        is_secure: false,
        certificate: None,
        rules: Arc::new(ListenerRules::default()),
    }
}

fn who<'a>(user_name: Option<&'a str>, client_id: &'a str, peer: &'a Peer) -> Access<'a> {
    Access {
        client_id,
        user_name,
        peer,
        grants: None,
    }
}

fn of_file(text: &str, wide: WideSubscriptions) -> Rules {
    let rules = AclFile::parse("acl", text).unwrap().rules;
    Rules::new(rules, Scope::Everywhere, wide, vec!["root".into()])
}

fn place<'a>(decision: &Decision<'a>) -> &'a str {
    match decision.by {
        DecidedBy::Rule(rule) | DecidedBy::OnlyPart(rule) => &rule.place,
        _ => "",
    }
}

const FILE: &str = "\
topic read public/#
user alice
topic home/#
topic deny home/safe
user bob
topic write home/lamp
pattern readwrite own/%u/#
pattern read dev/%c/#
";

#[test]
fn a_file_of_mosquitto_means_what_it_means_there() {
    let rules = of_file(FILE, WideSubscriptions::Refuse);
    let far = peer("192.0.2.1");
    let publish = |user, topic| {
        let decision = rules.publish(&who(user, "c", &far), topic, QoS::AtMostOnce, false);
        (decision.is_allowed, place(&decision))
    };
    let receive = |user, topic| {
        let decision = rules.receive(&who(user, "c", &far), topic);
        (decision.is_allowed, place(&decision))
    };
    assert_eq!(receive(None, "public/a"), (true, "acl:1"));
    assert_eq!(
        receive(Some("alice"), "public/a"),
        (false, ""),
        "only for clients without a name"
    );
    assert_eq!(publish(None, "public/a"), (false, ""));
    assert_eq!(publish(Some("alice"), "home"), (true, "acl:3"));
    assert_eq!(publish(Some("alice"), "home/safe"), (false, "acl:4"));
    assert_eq!(receive(Some("alice"), "home/safe"), (false, "acl:4"));
    assert_eq!(publish(Some("bob"), "home/lamp"), (true, "acl:6"));
    assert_eq!(receive(Some("bob"), "home/lamp"), (false, ""));
    assert_eq!(publish(Some("bob"), "own/bob/x"), (true, "acl:7"));
    assert_eq!(publish(Some("bob"), "own/alice/x"), (false, ""));
    assert_eq!(receive(None, "dev/c/1"), (true, "acl:8"));
    assert_eq!(receive(None, "dev/d/1"), (false, ""));
}

#[test]
fn names_do_not_become_wildcards_or_levels() {
    let rules = of_file(
        "pattern readwrite own/%u/#\npattern deny own/%u/not\n",
        WideSubscriptions::Refuse,
    );
    let far = peer("192.0.2.1");
    for name in ["+", "#", "a/b", "+/+", "", "a+b"] {
        let who = who(Some(name), "c", &far);
        assert!(
            !rules.publish(&who, "own/alice/x", QoS::AtMostOnce, false).is_allowed,
            "{name}"
        );
        assert!(!rules.receive(&who, "own/a/b/x").is_allowed, "{name}");
        assert!(!rules.subscribe(&who, "own/#").is_allowed, "{name}");
    }
    // What denies does not lose its force: its level is any.
    let rules = of_file(
        "user a/b\ntopic #\npattern deny own/%u/not\n",
        WideSubscriptions::Refuse,
    );
    let who = who(Some("a/b"), "c", &far);
    assert!(!rules.publish(&who, "own/x/not", QoS::AtMostOnce, false).is_allowed);
    assert!(rules.publish(&who, "other", QoS::AtMostOnce, false).is_allowed);
}

#[test]
fn a_user_name_that_looks_like_a_placeholder_is_a_name() {
    let rules = of_file("pattern readwrite %c/%u/%/100%\n", WideSubscriptions::Refuse);
    let far = peer("192.0.2.1");
    let who = who(Some("%c"), "%u", &far);
    assert!(rules.receive(&who, "%u/%c/%/100%").is_allowed);
    assert!(!rules.receive(&who, "%u/%u/%/100%").is_allowed);
}

/// No rules, and an admin.
fn open() -> Rules {
    let scope = Scope::Nowhere;
    Rules::new(Vec::new(), scope, WideSubscriptions::Refuse, vec!["root".into()])
}

#[test]
fn sys_is_read_from_this_machine_and_by_admins() {
    for rules in [open(), of_file("user bob\ntopic home/#\n", WideSubscriptions::Refuse)] {
        for (user, ip, is_allowed) in [
            (None, "127.0.0.1", true),
            (None, "::1", true),
            (None, "", true),
            (None, "192.0.2.1", false),
            (Some("bob"), "192.0.2.1", false),
            (Some("root"), "192.0.2.1", true),
        ] {
            let peer = peer(ip);
            let who = who(user, "c", &peer);
            assert_eq!(rules.subscribe(&who, "$SYS/#").is_allowed, is_allowed, "{user:?} {ip}");
            assert_eq!(
                rules.receive(&who, "$SYS/broker/uptime").is_allowed,
                is_allowed,
                "{user:?} {ip}"
            );
            assert_eq!(rules.watches(&who, "$SYS/broker/+"), !is_allowed, "{user:?} {ip}");
        }
    }
    let public = open().with_public_sys(true);
    assert!(
        public
            .subscribe(&who(None, "c", &peer("192.0.2.1")), "$SYS/#")
            .is_allowed
    );
    let rules = of_file("user bob\ntopic read $SYS/#\n", WideSubscriptions::Refuse);
    let far = peer("192.0.2.1");
    assert!(
        rules
            .subscribe(&who(Some("bob"), "c", &far), "$SYS/broker/#")
            .is_allowed
    );
}

#[test]
fn where_nothing_is_configured_everything_is_allowed_and_nothing_is_looked_at() {
    let rules = Rules::default();
    let far = peer("192.0.2.1");
    let who = who(Some("alice"), "c", &far);
    assert!(!rules.govern(&who));
    assert!(rules.publish(&who, "a", QoS::ExactlyOnce, true).is_allowed);
    assert!(rules.subscribe(&who, "#").is_allowed && !rules.watches(&who, "#"));
}

#[test]
fn a_wide_subscription_is_refused_narrowed_or_granted() {
    let far = peer("192.0.2.1");
    let who = who(Some("alice"), "c", &far);
    let table: &[(&str, bool, bool, bool)] = &[
        // filter, refuse, narrow, looked at when delivered
        ("home/lamp", true, true, false),
        ("home/safe", false, false, true),
        ("home/#", false, true, true),
        ("#", false, true, true),
        ("other/#", false, false, true),
        ("own/alice/+", true, true, false),
    ];
    for (filter, refuse, narrow, watches) in table {
        let ask = |wide| of_file(FILE, wide).subscribe(&who, filter).is_allowed;
        assert_eq!(ask(WideSubscriptions::Refuse), *refuse, "{filter}");
        assert_eq!(ask(WideSubscriptions::Narrow), *narrow, "{filter}");
        assert!(ask(WideSubscriptions::Grant), "{filter}");
        assert_eq!(
            of_file(FILE, WideSubscriptions::Refuse).watches(&who, filter),
            *watches,
            "{filter}"
        );
    }
}

/// Who calls himself `$SYS` reads what everybody in his place would read, and no more.
#[test]
fn a_name_opens_no_tree_of_its_own() {
    let rules = of_file(
        "pattern readwrite %c/#\npattern readwrite %u/#\npattern readwrite own/%c/#\n",
        WideSubscriptions::Refuse,
    );
    let far = peer("192.0.2.1");
    let receive = |user, client, topic| rules.receive(&who(user, client, &far), topic).is_allowed;
    assert!(receive(Some("u"), "c", "c/x") && receive(Some("u"), "c", "u/x"));
    assert!(!receive(Some("u"), "$SYS", "$SYS/broker/version"));
    assert!(!receive(Some("$app"), "c", "$app/x"));
    assert!(receive(Some("u"), "$SYS", "own/$SYS/x"));
    let denies = of_file("topic #\ntopic $app/#\npattern deny %c/#\n", WideSubscriptions::Refuse);
    assert!(denies.receive(&who(None, "c", &far), "$app/x").is_allowed);
    assert!(!denies.receive(&who(None, "$app", &far), "$app/x").is_allowed);
}

#[test]
fn limits_of_qos_and_retain_hold() {
    let mut rule = Rule::new(Effect::Allow, Actions::ALL, TopicPattern::parse("a/#").unwrap(), "r");
    rule.qos_max = QoS::AtLeastOnce;
    rule.retain = false;
    let rules = Rules::new(vec![rule], Scope::Everywhere, WideSubscriptions::Refuse, Vec::new());
    let far = peer("192.0.2.1");
    let who = who(None, "c", &far);
    assert!(rules.publish(&who, "a", QoS::AtLeastOnce, false).is_allowed);
    assert!(!rules.publish(&who, "a", QoS::ExactlyOnce, false).is_allowed);
    assert!(!rules.publish(&who, "a", QoS::AtLeastOnce, true).is_allowed);
    assert_eq!(rules.subscribe_qos(&who, "a/b"), QoS::AtLeastOnce);
}

#[test]
fn what_is_allowed_to_a_part_of_a_subscription_raises_the_qos_of_none() {
    let allow = |topics, qos_max| Rule {
        qos_max,
        ..Rule::new(Effect::Allow, Actions::ALL, TopicPattern::parse(topics).unwrap(), "r")
    };
    let list = vec![allow("a/#", QoS::AtMostOnce), allow("a/pub/#", QoS::ExactlyOnce)];
    let rules = Rules::new(list, Scope::Everywhere, WideSubscriptions::Narrow, Vec::new());
    let far = peer("192.0.2.1");
    let who = who(None, "c", &far);
    assert_eq!(rules.subscribe_qos(&who, "a/#"), QoS::AtMostOnce);
    assert_eq!(rules.subscribe_qos(&who, "a/pub/x"), QoS::ExactlyOnce);
    // Nothing covers it: it is narrowed to its parts.
    assert_eq!(rules.subscribe_qos(&who, "#"), QoS::ExactlyOnce);
}

#[test]
fn rules_apply_by_client_address_and_listener() {
    let allow = |change: &dyn Fn(&mut Rule)| {
        let mut rule = Rule::new(Effect::Allow, Actions::ALL, TopicPattern::parse("a").unwrap(), "r");
        change(&mut rule);
        Rules::new(vec![rule], Scope::Everywhere, WideSubscriptions::Refuse, Vec::new())
    };
    let far = peer("192.0.2.1");
    let may = |rules: Rules, client| rules.receive(&who(Some("u"), client, &far), "a").is_allowed;
    let clients = |rule: &mut Rule| rule.clients = vec![super::super::rule::ClientPattern::new("sensor-*")];
    assert!(may(allow(&clients), "sensor-1") && !may(allow(&clients), "sensor"));
    assert!(may(
        allow(&|rule| rule.networks = vec!["192.0.2.0/24".parse().unwrap()]),
        "c"
    ));
    assert!(!may(
        allow(&|rule| rule.networks = vec!["10.0.0.0/8".parse().unwrap()]),
        "c"
    ));
    assert!(may(allow(&|rule| rule.listeners = vec!["tcp".into()]), "c"));
    assert!(!may(allow(&|rule| rule.listeners = vec!["tls".into()]), "c"));
    assert!(may(allow(&|rule| rule.users.authenticated = true), "c"));
    assert!(!may(allow(&|rule| rule.users.anonymous = true), "c"));
    assert!(
        !may(allow(&|rule| rule.users.has_group = true), "c"),
        "a group without members"
    );
}

// What follows reads the rules in the plainest way there is, and compares.

const USERS: [Option<&str>; 4] = [None, Some("alice"), Some("bob"), Some("a/b")];
const CLIENTS: [&str; 3] = ["c1", "c2", "+"];

fn topics() -> Vec<String> {
    let levels = ["a", "b", "alice", "c1"];
    let mut all: Vec<String> = levels.map(str::to_owned).into();
    let two: Vec<String> = levels
        .iter()
        .flat_map(|one| levels.map(|other| format!("{one}/{other}")))
        .collect();
    let three = two.iter().flat_map(|one| levels.map(|other| format!("{one}/{other}")));
    all.extend(three.collect::<Vec<_>>());
    all.extend(two);
    all
}

fn rule() -> impl Strategy<Value = Rule> {
    let patterns = [
        "#", "a/#", "a/b", "+/b", "+/+", "%u/#", "a/%c", "a/%u/b", "b/#", "a", "+/c1/+",
    ];
    let subjects = subsequence(vec!["alice", "bob", "a/b", "anonymous", "authenticated"], 0..3);
    let actions = subsequence(vec![Action::Publish, Action::Subscribe, Action::Receive], 1..=3);
    (
        any::<bool>(),
        actions,
        select(patterns.to_vec()),
        subjects,
        subsequence(CLIENTS.to_vec(), 0..2),
    )
        .prop_map(|(allows, actions, pattern, subjects, clients)| {
            let effect = if allows { Effect::Allow } else { Effect::Deny };
            let actions = actions.into_iter().fold(Actions::default(), Actions::with);
            let mut rule = Rule::new(effect, actions, TopicPattern::parse(pattern).unwrap(), "r");
            rule.users = Users {
                anonymous: subjects.contains(&"anonymous"),
                authenticated: subjects.contains(&"authenticated"),
                names: subjects
                    .into_iter()
                    .filter(|s| !s.starts_with("an") && !s.starts_with("au"))
                    .map(Into::into)
                    .collect(),
                has_group: false,
            };
            rule.clients = clients
                .into_iter()
                .map(super::super::rule::ClientPattern::new)
                .collect();
            rule
        })
}

/// Whether the rules, read in the plainest way, allow one action on one topic.
fn plainly(rules: &[Rule], user: Option<&str>, client: &str, topic: &str, counts: impl Fn(&Rule) -> bool) -> bool {
    let fits = |rule: &&Rule| {
        let users = &rule.users;
        let by_name = match user {
            None => users.anonymous,
            Some(name) => users.authenticated || users.names.iter().any(|one| **one == *name),
        };
        let everyone = users.names.is_empty() && !users.anonymous && !users.authenticated;
        let by_client = rule.clients.is_empty()
            || rule
                .clients
                .iter()
                .any(|one| *one == super::super::rule::ClientPattern::Is(client.into()));
        if !(everyone || by_name) || !by_client || !counts(rule) {
            return false;
        }
        let text = rule.topics.as_str();
        let (needs_user, needs_client) = (text.contains("%u"), text.contains("%c"));
        if needs_user && user.is_none() {
            return false;
        }
        let bad = |name: &str| name.contains(['+', '#', '/']);
        if (needs_user && bad(user.unwrap())) || (needs_client && bad(client)) {
            let level = text.find('%').unwrap();
            return rule.effect == Effect::Deny && matches(&format!("{}#", &text[..level]), topic);
        }
        matches(&text.replace("%u", user.unwrap_or("")).replace("%c", client), topic)
    };
    let fitting: Vec<_> = rules.iter().filter(fits).collect();
    !fitting.iter().any(|rule| rule.effect == Effect::Deny) && !fitting.is_empty()
}

proptest! {
    #[test]
    fn every_decision_is_that_of_the_plainest_reading(list in prop::collection::vec(rule(), 0..7), user in select(USERS.to_vec()), client in select(CLIENTS.to_vec())) {
        let far = peer("192.0.2.1");
        let who = who(user, client, &far);
        let rules = |wide| Rules::new(list.clone(), Scope::Everywhere, wide, Vec::new());
        let refusing = rules(WideSubscriptions::Refuse);
        let narrowing = rules(WideSubscriptions::Narrow);
        let reads = |rule: &Rule| rule.actions.contains(Action::Subscribe) || rule.actions.contains(Action::Receive);
        let asks = |rule: &Rule| rule.actions.contains(Action::Subscribe);
        for topic in topics() {
            let expected = plainly(&list, user, client, &topic, |rule| rule.actions.contains(Action::Publish));
            prop_assert_eq!(refusing.publish(&who, &topic, QoS::AtMostOnce, false).is_allowed, expected, "publish {}", topic);
            let expected = plainly(&list, user, client, &topic, reads);
            prop_assert_eq!(refusing.receive(&who, &topic).is_allowed, expected, "receive {}", topic);
        }
        for filter in ["#", "a/#", "+/b", "a/b", "a/+", "+/+/b", "alice/#", "a/c1", "+"] {
            let all: Vec<_> = topics().into_iter().filter(|topic| matches(filter, topic)).collect();
            let readable = all.iter().filter(|topic| plainly(&list, user, client, topic, reads)).count();
            let asked_for = all.iter().filter(|topic| plainly(&list, user, client, topic, asks)).count();
            if !refusing.watches(&who, filter) {
                prop_assert_eq!(readable, all.len(), "{} is not looked at", filter);
            }
            if refusing.subscribe(&who, filter).is_allowed {
                prop_assert_eq!(asked_for, all.len(), "{} is not wider than allowed", filter);
            }
            if !narrowing.subscribe(&who, filter).is_allowed {
                prop_assert_eq!(asked_for, 0, "{} has a part that is allowed", filter);
            }
        }
    }
}

/// What is retained is judged by the listener it came by, and where that is gone by any.
#[test]
fn what_is_retained_survives_the_renaming_of_a_listener_and_no_more() {
    let at = |listener: &str| Peer {
        rules: Arc::new(ListenerRules {
            name: listener.into(),
            ..ListenerRules::default()
        }),
        ..peer("192.0.2.1")
    };
    let rules = |listeners: [&str; 2]| {
        let mut list = AclFile::parse("acl", "topic write home/#\n").unwrap().rules;
        list.iter_mut()
            .for_each(|rule| rule.listeners = vec![listeners[0].into()]);
        let scope = Scope::Everywhere;
        Rules::new(list, scope, WideSubscriptions::Refuse, Vec::new()).with_listeners(listeners.map(Into::into).into())
    };
    let may = |rules: &Rules, listener, topic| {
        let peer = at(listener);
        rules.left(&who(None, "c", &peer), false, topic, QoS::AtMostOnce, true)
    };
    let before = rules(["tcp:1883", "other"]);
    assert!(may(&before, "tcp:1883", "home/x") && !may(&before, "tcp:1883", "x"));
    assert!(!may(&before, "other", "home/x"), "it is there, and allows nothing");
    let after = rules(["tcp:1884", "other"]);
    assert!(may(&after, "tcp:1883", "home/x") && !may(&after, "tcp:1883", "x"));
}

/// What a token allowed is not known any more; what the rules deny is.
#[test]
fn what_is_retained_of_a_token_s_bearer_is_held_back_by_a_rule_that_denies() {
    let rules = of_file(
        "user anna\ntopic write home/#\ntopic deny home/safe\n",
        WideSubscriptions::Refuse,
    );
    let far = peer("192.0.2.1");
    let may = |had_grants, topic| rules.left(&who(Some("anna"), "c", &far), had_grants, topic, QoS::AtMostOnce, true);
    for (topic, without, with) in [
        ("home/a", true, true),
        ("home/safe", false, false),
        ("other", false, true),
    ] {
        assert_eq!((may(false, topic), may(true, topic)), (without, with), "{topic}");
    }
}

/// Says yes to `asked`.
#[derive(Debug)]
struct Asked;

impl Rights for Asked {
    fn ask(&self, _: &Access<'_>, deed: &Deed<'_>, _: Token) -> Answer<bool> {
        Answer::Ready(deed.topic == "asked")
    }
}

fn asked_elsewhere() -> (LiveRules, Token) {
    let rules = AclFile::parse("acl", "pattern readwrite known\npattern deny safe/#\n")
        .unwrap()
        .rules;
    let rules = Rules::new(rules, Scope::Everywhere, WideSubscriptions::Refuse, Vec::new());
    let live = LiveRules::new(rules.with_elsewhere(vec![("tcp".into(), Arc::new(Asked))]));
    let token = Token {
        worker: crate::protocol::ids::WorkerId(0),
        connection: crate::protocol::ids::ConnectionKey(crate::protocol::ids::SlotKey { slot: 0, generation: 0 }),
        sequence: 0,
    };
    (live, token)
}

/// Of what a rule denies the whole nothing is received anyway.
#[test]
fn about_what_a_rule_denies_a_part_of_it_is_asked_again_all_the_same() {
    let (near, (live, token)) = (peer("127.0.0.1"), asked_elsewhere());
    let again = |filter| {
        let filter = TopicFilter::parse(filter).unwrap();
        live.subscribe_again(&who(Some("anna"), "c", &near), filter, token)
    };
    for (filter, expected) in [
        ("asked", true),
        ("#", false),
        ("+/x", false),
        ("safe/#", true),
        ("known", true),
    ] {
        assert_eq!(again(filter), Answer::Ready(expected), "{filter}");
    }
}

#[test]
fn what_no_rule_says_is_asked_elsewhere_and_what_one_says_is_not() {
    let (near, mut far) = (peer("127.0.0.1"), peer("192.0.2.1"));
    let (live, token) = asked_elsewhere();
    let may = |peer: &Peer, topic: &str| {
        let who = who(Some("anna"), "c", peer);
        let name = TopicName::parse(topic).unwrap();
        let publish = live.publish(&who, name, QoS::AtMostOnce, false, token);
        let subscribe = live.subscribe(&who, TopicFilter::parse(topic).unwrap(), token);
        assert_eq!(publish, subscribe, "{topic}");
        publish == Answer::Ready(true)
    };
    for (topic, expected) in [("known", true), ("asked", true), ("safe/x", false), ("other", false)] {
        assert_eq!(may(&near, topic), expected, "{topic}");
    }
    // What was allowed before is not asked about again: it goes where a rule denies it only.
    let forbids = |topic| {
        let (who, name) = (who(Some("anna"), "c", &near), TopicName::parse(topic).unwrap());
        live.forbids(&who, name, QoS::AtMostOnce, false, token)
    };
    for (topic, expected) in [("known", false), ("asked", false), ("safe/x", true), ("other", false)] {
        assert_eq!(forbids(topic), expected, "{topic}");
    }
    // What was granted is received without asking, and what is retained of it stays, but for what a rule denies.
    let near_by = who(Some("anna"), "c", &near);
    assert!(live.current().receive(&near_by, "other").is_allowed);
    assert!(!live.current().receive(&near_by, "safe/x").is_allowed);
    assert!(
        !live
            .current()
            .receive(&who(None, "c", &far), "$SYS/broker/uptime")
            .is_allowed
    );
    assert!(live.current().left(&near_by, false, "other", QoS::AtMostOnce, true));
    assert!(!live.current().left(&near_by, false, "safe/x", QoS::AtMostOnce, true));
    let filter = |text| TopicFilter::parse(text).unwrap();
    assert!(live.watches(&near_by, filter("#")) && !live.watches(&near_by, filter("other")));
    assert!(!live.remembers(&near_by));
    // On other listeners, and of who has rules of his own, it is not asked.
    far.rules = Arc::new(ListenerRules {
        name: "inside".into(),
        ..ListenerRules::default()
    });
    assert!(!may(&far, "asked") && live.remembers(&who(None, "c", &far)));
    let grants = Grants {
        rules: Some(Vec::new()),
        ..Grants::default()
    };
    let own = Access {
        grants: Some(&grants),
        ..near_by
    };
    assert!(!live.current().publish(&own, "asked", QoS::AtMostOnce, false).is_allowed && live.remembers(&own));
}
