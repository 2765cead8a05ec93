use super::*;
use crate::protocol::ids::{SlotKey, WorkerId};
use crate::protocol::packet::SubscriptionOptions;
use crate::protocol::qos::QoS;
use crate::protocol::topic;
use crate::router::{MatchCache, MatchCacheLimits, NoLocal};

use proptest::prelude::*;

pub(in crate::router) fn session(number: u32) -> SessionKey {
    let key = SlotKey {
        slot: number,
        generation: 0,
    };
    SessionKey {
        worker: WorkerId((number % 3) as u16),
        key,
    }
}

pub(in crate::router) fn subscriber(number: u32) -> Subscriber {
    Subscriber {
        session: session(number),
        options: SubscriptionOptions::default(),
        identifier: None,
        status: Arc::default(),
    }
}

fn with(number: u32, qos: QoS, no_local: bool, identifier: Option<u32>) -> Subscriber {
    let options = SubscriptionOptions {
        qos,
        no_local,
        ..SubscriptionOptions::default()
    };
    Subscriber {
        options,
        identifier,
        ..subscriber(number)
    }
}

fn filter(text: &str) -> TopicFilter<'_> {
    TopicFilter::parse(text).unwrap()
}

fn name(text: &str) -> TopicName<'_> {
    TopicName::parse(text).unwrap()
}

/// The sessions that receive a topic's messages, in the order of the match.
fn receivers(matched: &Matched) -> Vec<u32> {
    matched.receivers().map(|receiver| receiver.session.key.slot).collect()
}

fn is_empty_again(subscriptions: &Subscriptions) -> bool {
    let live = subscriptions.nodes.len() - subscriptions.free.len();
    subscriptions.is_empty() && live == 1 && subscriptions.edges.is_empty()
}

#[test]
fn examples_of_section_4_7_match_as_written() {
    for (text, topic, expected) in [
        ("sport/tennis/player1/#", "sport/tennis/player1", true),
        ("sport/tennis/player1/#", "sport/tennis/player1/ranking", true),
        ("sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", true),
        ("sport/#", "sport", true),
        ("#", "sport/tennis", true),
        ("sport/tennis/+", "sport/tennis/player1", true),
        ("sport/tennis/+", "sport/tennis/player1/ranking", false),
        ("sport/+", "sport", false),
        ("sport/+", "sport/", true),
        ("+/tennis/#", "sport/tennis", true),
        ("+/+", "/finance", true),
        ("/+", "/finance", true),
        ("+", "/finance", false),
        ("/finance", "finance", false),
        ("a//b", "a//b", true),
        ("a/+/b", "a//b", true),
        ("a//b", "a/b", false),
        ("#", "$SYS/x", false),
        ("+/monitor/Clients", "$SYS/monitor/Clients", false),
        ("$SYS/#", "$SYS/x", true),
        ("$SYS/monitor/+", "$SYS/monitor/Clients", true),
        ("a/+", "a/$x", true),
        ("ACCOUNTS", "Accounts", false),
    ] {
        let mut subscriptions = Subscriptions::default();
        subscriptions.subscribe(filter(text), subscriber(1));
        let matched = subscriptions.matches(name(topic));
        assert_eq!(!matched.is_empty(), expected, "{text} against {topic}");
        assert!(subscriptions.unsubscribe(filter(text), session(1)));
        assert!(subscriptions.matches(name(topic)).is_empty());
        assert!(is_empty_again(&subscriptions), "{text}");
    }
}

#[test]
fn overlapping_subscriptions_of_home_assistant_make_one_delivery_with_the_highest_qos() {
    let mut subscriptions = Subscriptions::default();
    subscriptions.subscribe(filter("#"), with(1, QoS::AtMostOnce, false, Some(9)));
    subscriptions.subscribe(filter("a/+/c"), with(1, QoS::ExactlyOnce, false, Some(3)));
    subscriptions.subscribe(filter("a/b/c"), with(1, QoS::AtLeastOnce, false, Some(9)));
    subscriptions.subscribe(filter("a/b/c"), with(2, QoS::AtMostOnce, false, None));

    let matched = subscriptions.matches(name("a/b/c"));
    assert_eq!(receivers(&matched), [1, 2]);
    let merged = matched.receivers().next().unwrap();
    assert_eq!(merged.qos, QoS::ExactlyOnce);
    assert_eq!(
        merged.identifiers[..],
        [3, 9, 9],
        "one for each subscription, in a stable order"
    );
    assert_eq!(merged.no_local, NoLocal::Never);
}

#[test]
fn by_option_every_overlapping_subscription_delivers() {
    let mut subscriptions = Subscriptions::new(Overlap::Each, Strategies::default());
    for (at, text) in ["#", "a/+/c", "a/b/c"].into_iter().enumerate() {
        subscriptions.subscribe(filter(text), with(1, QoS::AtMostOnce, false, Some(at as u32 + 1)));
    }
    let matched = subscriptions.matches(name("a/b/c"));
    let mut identifiers: Vec<_> = matched
        .receivers()
        .map(|receiver| receiver.identifiers.to_vec())
        .collect();
    identifiers.sort();
    assert_eq!(identifiers, [[1], [2], [3]]);
}

#[test]
fn a_subscription_to_the_same_filter_replaces_the_one_before() {
    let mut subscriptions = Subscriptions::default();
    let first = with(1, QoS::AtMostOnce, false, Some(1));
    assert_eq!(subscriptions.subscribe(filter("a/+"), first), Subscribed::New);
    let second = with(1, QoS::AtLeastOnce, true, None);
    assert_eq!(subscriptions.subscribe(filter("a/+"), second), Subscribed::Replaced);
    assert_eq!(subscriptions.len(), 1);
    let matched = subscriptions.matches(name("a/b"));
    let receiver = matched.receivers().next().unwrap();
    assert_eq!((receiver.qos, receiver.no_local), (QoS::AtLeastOnce, NoLocal::All));
    assert!(receiver.identifiers.is_empty());
    assert!(subscriptions.unsubscribe(filter("a/+"), session(1)));
    assert!(!subscriptions.unsubscribe(filter("a/+"), session(1)));
    assert!(is_empty_again(&subscriptions));
}

#[test]
fn unsubscribing_what_is_not_there_changes_nothing() {
    let mut subscriptions = Subscriptions::default();
    subscriptions.subscribe(filter("a/b/c"), subscriber(1));
    for text in ["a", "a/b", "a/b/c/d", "a/+/c", "#", "$share/g/a/b/c"] {
        assert!(!subscriptions.unsubscribe(filter(text), session(1)), "{text}");
    }
    assert!(!subscriptions.unsubscribe(filter("a/b/c"), session(2)));
    assert_eq!(receivers(&subscriptions.matches(name("a/b/c"))), [1]);
}

#[test]
fn no_local_on_some_subscriptions_leaves_the_others_for_the_publishers_own_messages() {
    let mut subscriptions = Subscriptions::default();
    subscriptions.subscribe(filter("a/#"), with(1, QoS::ExactlyOnce, true, Some(1)));
    subscriptions.subscribe(filter("a/b"), with(1, QoS::AtLeastOnce, false, Some(2)));
    let matched = subscriptions.matches(name("a/b"));
    assert_eq!(matched.receivers().next().unwrap().no_local, NoLocal::Mixed);

    let own = subscriptions.matches_own(name("a/b"), session(1)).unwrap();
    assert_eq!((own.qos, &own.identifiers[..]), (QoS::AtLeastOnce, &[2][..]));
    assert!(subscriptions.matches_own(name("a/c"), session(1)).is_none());
}

#[test]
fn receivers_are_grouped_by_worker() {
    let mut subscriptions = Subscriptions::default();
    for number in (0..9).rev() {
        subscriptions.subscribe(filter("a"), subscriber(number));
    }
    let matched = subscriptions.matches(name("a"));
    let workers: Vec<_> = matched
        .workers
        .iter()
        .map(|group| (group.worker.0, group.receivers.len()))
        .collect();
    assert_eq!(workers, [(0, 3), (1, 3), (2, 3)]);
    assert_eq!(receivers(&matched), [0, 3, 6, 1, 4, 7, 2, 5, 8]);
}

#[test]
fn the_deepest_topic_there_is_neither_overflows_the_stack_nor_takes_long() {
    let mut subscriptions = Subscriptions::default();
    let deep = vec!["a"; 32_768].join("/");
    let wild = vec!["+"; 32_768].join("/");
    for text in [&deep, &wild, "#"] {
        subscriptions.subscribe(filter(text), subscriber(1));
    }
    assert_eq!(subscriptions.matches(name(&deep)).receivers_len(), 1);
    assert_eq!(subscriptions.matches(name(&deep[..deep.len() - 2])).receivers_len(), 1);
    for text in [&deep, &wild, "#"] {
        assert!(subscriptions.unsubscribe(filter(text), session(1)));
    }
    assert!(is_empty_again(&subscriptions));
}

#[test]
fn a_shared_group_is_matched_as_a_group_and_not_as_its_members() {
    let mut subscriptions = Subscriptions::default();
    for number in 0..3 {
        assert_eq!(
            subscriptions.subscribe(filter("$share/g/a/+"), subscriber(number)),
            Subscribed::New
        );
    }
    assert_eq!(
        subscriptions.subscribe(filter("$share/g/a/+"), subscriber(2)),
        Subscribed::Replaced
    );
    subscriptions.subscribe(filter("$share/h/a/+"), subscriber(0));
    subscriptions.subscribe(filter("$share/g/a/#"), subscriber(0));
    subscriptions.subscribe(filter("a/+"), subscriber(7));
    assert_eq!((subscriptions.len(), subscriptions.shared_len()), (1, 5));

    let matched = subscriptions.matches(name("a/b"));
    assert_eq!(receivers(&matched), [7]);
    let groups: Vec<_> = matched
        .groups
        .iter()
        .map(|group| (&*group.name.group, &*group.name.filter))
        .collect();
    assert_eq!(groups, [("g", "a/#"), ("g", "a/+"), ("h", "a/+")]);
    assert_eq!(matched.groups[1].members().len(), 3);
    assert!(subscriptions.matches(name("$SYS/b")).groups.is_empty());

    for (text, number) in [
        ("$share/g/a/+", 0),
        ("$share/g/a/+", 1),
        ("$share/g/a/+", 2),
        ("$share/h/a/+", 0),
        ("$share/g/a/#", 0),
        ("a/+", 7),
    ] {
        assert!(subscriptions.unsubscribe(filter(text), session(number)), "{text}");
    }
    assert!(is_empty_again(&subscriptions));
}

/// One step of a script.
#[derive(Clone, Debug)]
enum Step {
    Subscribe(u32, String, SubscriptionOptions, Option<u32>),
    Unsubscribe(u32, String),
    Publish(String),
}

fn level(wildcards: bool) -> impl Strategy<Value = &'static str> {
    let plain = prop_oneof![4 => Just("a"), 4 => Just("b"), 1 => Just(""), 1 => Just("$x")];
    prop_oneof![3 => plain.boxed(), 2 => if wildcards { Just("+").boxed() } else { Just("c").boxed() }]
}

fn topic_text() -> impl Strategy<Value = String> {
    prop::collection::vec(level(false), 1..5)
        .prop_map(|levels| levels.join("/"))
        .prop_filter("a topic is not empty", |topic| !topic.is_empty())
}

fn filter_text() -> impl Strategy<Value = String> {
    let plain = prop::collection::vec(level(true), 0..5);
    (
        plain,
        any::<bool>(),
        prop_oneof![3 => Just(""), 1 => Just("$share/g/"), 1 => Just("$share/h/")],
    )
        .prop_map(|(mut levels, is_multi, group)| {
            if is_multi {
                levels.push("#");
            }
            (levels.join("/"), group)
        })
        .prop_filter("a filter is not empty", |(filter, _)| !filter.is_empty())
        .prop_map(|(filter, group)| format!("{group}{filter}"))
}

fn step() -> impl Strategy<Value = Step> {
    let options = (0..3u8, any::<bool>(), any::<bool>()).prop_map(|(bits, no_local, retain_as_published)| {
        let qos = QoS::from_bits(bits).unwrap();
        SubscriptionOptions {
            qos,
            no_local,
            retain_as_published,
            ..SubscriptionOptions::default()
        }
    });
    let identifier = prop::option::of(1..5u32);
    prop_oneof![
        (0..24u32, filter_text(), options, identifier)
            .prop_map(|(who, filter, options, identifier)| Step::Subscribe(who, filter, options, identifier)),
        (0..24u32, filter_text()).prop_map(|(who, filter)| Step::Unsubscribe(who, filter)),
        topic_text().prop_map(Step::Publish),
    ]
}

/// What a receiver says of itself, without its session.
type Said = (QoS, bool, NoLocal, Vec<u32>);

fn said(receiver: &Receiver) -> Said {
    (
        receiver.qos,
        receiver.retain_as_published,
        receiver.no_local,
        receiver.identifiers.to_vec(),
    )
}

/// The naive router: a list.
#[derive(Default)]
struct Oracle(BTreeMap<(u32, String), (SubscriptionOptions, Option<u32>)>);

impl Oracle {
    /// The matching subscriptions that are not shared, by session.
    fn subscriptions(&self, topic: &str) -> BTreeMap<SessionKey, Vec<(SubscriptionOptions, Option<u32>)>> {
        let mut found: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for ((who, text), subscription) in &self.0 {
            let parsed = filter(text);
            if parsed.group().is_none() && topic::matches(parsed.filter(), topic) {
                found.entry(session(*who)).or_default().push(*subscription);
            }
        }
        found
    }

    fn merged(subscriptions: &[(SubscriptionOptions, Option<u32>)]) -> Said {
        let options = || subscriptions.iter().map(|(options, _)| options);
        let mut identifiers: Vec<u32> = subscriptions.iter().filter_map(|(_, identifier)| *identifier).collect();
        identifiers.sort();
        let no_local = match options().filter(|options| options.no_local).count() {
            0 => NoLocal::Never,
            all if all == subscriptions.len() => NoLocal::All,
            _ => NoLocal::Mixed,
        };
        let qos = options().map(|options| options.qos).max().unwrap();
        (
            qos,
            options().any(|options| options.retain_as_published),
            no_local,
            identifiers,
        )
    }

    fn groups(&self, topic: &str) -> BTreeMap<(String, String), Vec<SessionKey>> {
        let mut found: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for (who, text) in self.0.keys() {
            let parsed = filter(text);
            if let Some(group) = parsed.group()
                && topic::matches(parsed.filter(), topic)
            {
                let members = found.entry((group.to_owned(), parsed.filter().to_owned())).or_default();
                members.push(session(*who));
                members.sort();
            }
        }
        found
    }
}

fn check_match(matched: &Matched, oracle: &Oracle, topic: &str) {
    let receivers: BTreeMap<_, _> = matched.receivers().map(|found| (found.session, said(found))).collect();
    assert_eq!(receivers.len(), matched.receivers_len(), "nobody twice");
    let expected = oracle.subscriptions(topic);
    let expected = expected
        .iter()
        .map(|(session, found)| (*session, Oracle::merged(found)))
        .collect();
    assert_eq!(receivers, expected, "{topic}");
    let groups: BTreeMap<_, _> = matched
        .groups
        .iter()
        .map(|group| {
            let mut members: Vec<_> = group.members().iter().map(|member| member.session).collect();
            members.sort();
            ((group.name.group.to_string(), group.name.filter.to_string()), members)
        })
        .collect();
    assert_eq!(groups, oracle.groups(topic), "{topic}");
}

/// What its publisher receives of its own message.
fn check_own(subscriptions: &Subscriptions, oracle: &Oracle, topic: &str) {
    for (session, mut found) in oracle.subscriptions(topic) {
        found.retain(|(options, _)| !options.no_local);
        let own = subscriptions.matches_own(name(topic), session);
        assert_eq!(
            own.as_ref().map(said),
            (!found.is_empty()).then(|| Oracle::merged(&found)),
            "{topic}"
        );
    }
}

/// Runs a script against the oracle, with caches of several sizes side by side.
fn run(steps: &[Step]) {
    let mut subscriptions = Subscriptions::default();
    let mut each = Subscriptions::new(Overlap::Each, Strategies::default());
    let mut oracle = Oracle::default();
    let mut caches: Vec<_> = [0, 1, 4, 8, 1000]
        .into_iter()
        .map(|topics_max| {
            let limits = MatchCacheLimits {
                topics_max,
                receivers_max: 40,
                ..MatchCacheLimits::default()
            };
            MatchCache::new(subscriptions.generations().clone(), limits)
        })
        .collect();
    for step in steps {
        match step {
            Step::Subscribe(who, text, options, identifier) => {
                let is_new = oracle.0.insert((*who, text.clone()), (*options, *identifier)).is_none();
                let subscriber = Subscriber {
                    options: *options,
                    identifier: *identifier,
                    ..subscriber(*who)
                };
                each.subscribe(filter(text), subscriber.clone());
                assert_eq!(
                    subscriptions.subscribe(filter(text), subscriber) == Subscribed::New,
                    is_new
                );
            }
            Step::Unsubscribe(who, text) => {
                let was_there = oracle.0.remove(&(*who, text.clone())).is_some();
                each.unsubscribe(filter(text), session(*who));
                assert_eq!(subscriptions.unsubscribe(filter(text), session(*who)), was_there);
            }
            Step::Publish(topic) => {
                check_match(&subscriptions.matches(name(topic)), &oracle, topic);
                check_own(&subscriptions, &oracle, topic);
                for cache in &mut caches {
                    check_match(
                        cache.resolve(name(topic), || subscriptions.matches(name(topic))),
                        &oracle,
                        topic,
                    );
                }
                let copies: usize = oracle.subscriptions(topic).values().map(Vec::len).sum();
                assert_eq!(each.matches(name(topic)).receivers_len(), copies);
            }
        }
        assert_eq!(subscriptions.len() + subscriptions.shared_len(), oracle.0.len());
    }
    for (who, text) in oracle.0.keys() {
        assert!(subscriptions.unsubscribe(filter(text), session(*who)));
    }
    assert!(is_empty_again(&subscriptions));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn trie_and_cache_answer_like_the_naive_matcher(steps in prop::collection::vec(step(), 1..120)) {
        run(&steps);
    }
}
