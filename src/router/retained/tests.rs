use super::*;
use crate::protocol::ids::{SessionKey, SlotKey, WorkerId};
use crate::protocol::message::Publication;
use crate::protocol::property::PropertiesBuf;
use crate::protocol::qos::QoS;
use crate::protocol::topic;

use proptest::prelude::*;

/// A client: only the messages of clients count against the limits.
const PUBLISHER: SessionKey = SessionKey {
    worker: WorkerId(0),
    key: SlotKey { slot: 0, generation: 1 },
};

fn message(topic: &str, payload: &str, expires_at: Option<Time>) -> Arc<Message> {
    let properties = PropertiesBuf::new();
    let publication = Publication {
        topic: TopicName::parse(topic).unwrap(),
        payload: payload.as_bytes(),
        qos: QoS::AtLeastOnce,
        retain: true,
        properties: properties.view(),
        expires_at,
        publisher: Some(PUBLISHER),
        source: None,
    };
    Arc::new(publication.to_message())
}

fn filter(text: &str) -> TopicFilter<'_> {
    TopicFilter::parse(text).unwrap()
}

fn name(text: &str) -> TopicName<'_> {
    TopicName::parse(text).unwrap()
}

fn topics(retained: &Retained, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    retained.matches(filter(text), |message| found.push(message.topic().as_str().to_owned()));
    found
}

fn filled(topics: &[&str]) -> Retained {
    let mut retained = Retained::default();
    for topic in topics {
        retained.set(message(topic, topic, None)).unwrap();
    }
    retained
}

#[test]
fn the_last_message_of_a_topic_stays_and_an_empty_one_clears_it() {
    let mut retained = Retained::default();
    assert!(retained.set(message("a", "1", None)).unwrap().is_none());
    let old = retained.set(message("a", "two", None)).unwrap().unwrap();
    assert_eq!(old.payload(), b"1");
    assert_eq!(retained.get(name("a")).unwrap().payload(), b"two");
    assert_eq!(
        (retained.len(), retained.bytes()),
        (1, message("a", "two", None).cost_bytes())
    );
    let old = retained.set(message("a", "", None)).unwrap().unwrap();
    assert_eq!(old.payload(), b"two");
    assert!(retained.get(name("a")).is_none() && retained.clear(name("a")).is_none());
    assert!(retained.is_empty() && retained.in_order.is_empty() && retained.bytes() == 0);
}

#[test]
fn filters_find_topics_in_the_order_of_levels() {
    let retained = filled(&[
        "a", "a!", "a/b", "a/b!/c", "a/b/c", "a/x/c", "a//c", "/", "$SYS/a/c", "b/b/c", "a/b/c/d",
    ]);
    for (text, expected) in [
        ("a", &["a"][..]),
        ("a/#", &["a", "a//c", "a/b", "a/b/c", "a/b/c/d", "a/b!/c", "a/x/c"]),
        ("a/+/c", &["a//c", "a/b/c", "a/b!/c", "a/x/c"]),
        ("+/b/c", &["a/b/c", "b/b/c"]),
        ("+/+", &["/", "a/b"]),
        ("+", &["a", "a!"]),
        ("$SYS/#", &["$SYS/a/c"]),
        ("$SYS/+/c", &["$SYS/a/c"]),
        ("+/a/c", &[]),
        ("c/+", &[]),
        (
            "#",
            &[
                "/", "a", "a//c", "a/b", "a/b/c", "a/b/c/d", "a/b!/c", "a/x/c", "a!", "b/b/c",
            ],
        ),
    ] {
        assert_eq!(topics(&retained, text), expected, "{text}");
    }
}

#[test]
fn a_walk_pauses_where_the_client_has_no_room_and_goes_on_there_whatever_happened_meanwhile() {
    let mut retained = filled(&["a/1", "a/2", "a/3", "a/4", "a/5"]);
    let mut walk = Walk::new(filter("a/+"));
    let mut taken = Vec::new();
    let mut take = |retained: &Retained, walk: &mut Walk, room: usize| {
        let mut left = room;
        retained.advance(walk, 1000, |message| {
            if left == 0 {
                return ControlFlow::Break(());
            }
            left -= 1;
            taken.push(message.topic().as_str().to_owned());
            ControlFlow::Continue(())
        });
    };
    take(&retained, &mut walk, 2);
    retained.clear(name("a/3"));
    retained.clear(name("a/1"));
    retained.set(message("a/2", "again", None)).unwrap();
    retained.set(message("a/33", "new", None)).unwrap();
    take(&retained, &mut walk, 0);
    assert!(!walk.is_finished());
    take(&retained, &mut walk, 100);
    assert!(walk.is_finished());
    assert_eq!(taken, ["a/1", "a/2", "a/33", "a/4", "a/5"]);
}

#[test]
fn a_walk_for_one_topic_offers_it_again_until_it_is_taken() {
    let retained = filled(&["a/1", "a/2"]);
    let mut walk = Walk::new(filter("a/1"));
    retained.advance(&mut walk, 10, |_| ControlFlow::Break(()));
    assert!(!walk.is_finished());
    let mut taken = 0;
    for _ in 0..3 {
        retained.advance(&mut walk, 10, |_| {
            taken += 1;
            ControlFlow::Continue(())
        });
    }
    assert!(walk.is_finished() && taken == 1);
    let mut walk = Walk::new(filter("a/none"));
    retained.advance(&mut walk, 10, |_| unreachable!());
    assert!(walk.is_finished());
}

#[test]
fn a_walk_that_finds_nothing_still_keeps_to_its_steps() {
    let mut retained = Retained::default();
    for n in 0..1000 {
        retained.set(message(&format!("a/{n}/x/{n}"), "1", None)).unwrap();
    }
    let mut walk = Walk::new(filter("+/+/+/none"));
    let mut rounds = 0;
    while !walk.is_finished() {
        retained.advance(&mut walk, 100, |_| unreachable!());
        rounds += 1;
    }
    assert!((10..=40).contains(&rounds), "{rounds}");
}

#[test]
fn a_walk_jumps_over_what_cannot_match() {
    let mut retained = Retained::default();
    for device in 0..10 {
        for n in 0..1000 {
            retained.set(message(&format!("d{device}/{n}"), "1", None)).unwrap();
        }
        retained.set(message(&format!("d{device}/status"), "1", None)).unwrap();
    }
    let mut walk = Walk::new(filter("+/status"));
    let mut found = 0;
    retained.advance(&mut walk, 300, |_| {
        found += 1;
        ControlFlow::Continue(())
    });
    assert!(walk.is_finished());
    assert_eq!(found, 10);

    let mut walk = Walk::new(filter("d3/#"));
    retained.advance(&mut walk, 1003, |_| ControlFlow::Continue(()));
    assert!(walk.is_finished(), "nothing behind the branch is looked at");
}

#[test]
fn limits_say_which_one_it_was_and_leave_what_was_there() {
    let cost = message("a", "12345", None).cost_bytes();
    let limits = RetainedLimits {
        messages_max: 2,
        bytes_max: 2 * cost,
    };
    let mut retained = Retained::new(limits);
    retained.set(message("a", "12345", None)).unwrap();
    let error = retained.set(message("b", "123456", None)).unwrap_err();
    assert_eq!(
        error,
        RetainedError::Bytes {
            bytes: cost,
            bytes_max: 2 * cost
        }
    );
    retained.set(message("b", "12345", None)).unwrap();
    let error = retained.set(message("c", "1", None)).unwrap_err();
    assert_eq!(error, RetainedError::Messages { messages_max: 2 });
    assert_eq!(error.to_string(), "2 messages are retained already, as many as allowed");
    assert!(retained.set(message("a", "123456", None)).is_err());
    assert_eq!(retained.get(name("a")).unwrap().payload(), b"12345");
    retained.set(message("a", "1", None)).unwrap();
    retained.set_limits(RetainedLimits {
        messages_max: 0,
        bytes_max: 0,
    });
    retained
        .set(message("b", "1234", None))
        .expect("smaller than before is always welcome");
    assert_eq!(retained.len(), 2);
}

#[test]
fn messages_expire_in_time_and_a_new_one_starts_anew() {
    let mut retained = Retained::default();
    retained.set(message("a", "1", Some(Time(10)))).unwrap();
    retained.set(message("b", "1", Some(Time(5)))).unwrap();
    retained.set(message("c", "1", None)).unwrap();
    retained.set(message("b", "2", Some(Time(20)))).unwrap();
    retained.set(message("d", "1", Some(Time(7)))).unwrap();
    retained.clear(name("d"));
    assert_eq!(retained.next_expiry(), Some(Time(10)));
    assert!(retained.remove_expired(Time(9)).is_none());
    assert_eq!(retained.remove_expired(Time(15)).unwrap().topic().as_str(), "a");
    assert!(retained.remove_expired(Time(15)).is_none());
    assert_eq!(topics(&retained, "#"), ["b", "c"]);
    retained.set(message("b", "3", None)).unwrap();
    assert_eq!(retained.next_expiry(), None);
}

#[test]
fn a_topic_of_32768_levels_is_found() {
    let deep = vec!["a"; 32_768].join("/");
    let retained = filled(&[&deep, "a", "b"]);
    let wild = format!("{}/#", vec!["+"; 32_767].join("/"));
    assert_eq!(topics(&retained, &wild), [deep]);
}

fn level(wildcards: bool) -> impl Strategy<Value = &'static str> {
    let plain = prop_oneof![4 => Just("a"), 4 => Just("b"), 2 => Just("a!"), 1 => Just(""), 1 => Just("$x"), 1 => Just("\u{1}")];
    prop_oneof![3 => plain.boxed(), 2 => if wildcards { Just("+").boxed() } else { Just("c").boxed() }]
}

fn topic_text() -> impl Strategy<Value = String> {
    let levels = prop::collection::vec(level(false), 1..6).prop_map(|levels| levels.join("/"));
    levels.prop_filter("a topic is not empty", |topic| !topic.is_empty())
}

fn filter_text() -> impl Strategy<Value = String> {
    (prop::collection::vec(level(true), 0..6), any::<bool>())
        .prop_map(|(mut levels, is_multi)| {
            if is_multi {
                levels.push("#");
            }
            levels.join("/")
        })
        .prop_filter("a filter is not empty", |filter| !filter.is_empty())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn walks_find_what_the_naive_matcher_finds_in_steps_of_any_size(
        set in prop::collection::vec(topic_text(), 0..150),
        cleared in prop::collection::vec(topic_text(), 0..20),
        filters in prop::collection::vec(filter_text(), 1..20),
        steps_max in 1..20usize,
    ) {
        let mut retained = Retained::default();
        let mut oracle = std::collections::BTreeSet::new();
        for topic in set {
            let is_new = oracle.insert(topic.clone());
            prop_assert_eq!(retained.set(message(&topic, "x", None)).unwrap().is_none(), is_new);
        }
        for topic in cleared {
            prop_assert_eq!(retained.clear(name(&topic)).is_some(), oracle.remove(&topic));
        }
        prop_assert_eq!(retained.len(), oracle.len());
        for text in filters {
            let mut walk = Walk::new(filter(&text));
            let mut found = Vec::new();
            let mut rounds = 0;
            while !walk.is_finished() {
                retained.advance(&mut walk, steps_max, |message| {
                    found.push(message.topic().as_str().to_owned());
                    ControlFlow::Continue(())
                });
                rounds += 1;
                prop_assert!(rounds < 1000, "{} does not end", text);
            }
            let mut expected: Vec<_> = oracle.iter().filter(|topic| topic::matches(&text, topic)).cloned().collect();
            expected.sort_by_key(|topic| sort_key(topic));
            prop_assert_eq!(found, expected, "{}", text);
        }
    }
}
