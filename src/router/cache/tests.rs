use std::sync::RwLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::protocol::topic::TopicFilter;
use crate::router::Subscriptions;
use crate::router::trie::tests::{session, subscriber};

fn filter(text: &str) -> TopicFilter<'_> {
    TopicFilter::parse(text).unwrap()
}

fn name(text: &str) -> TopicName<'_> {
    TopicName::parse(text).unwrap()
}

fn cache(subscriptions: &Subscriptions, limits: MatchCacheLimits) -> MatchCache {
    MatchCache::new(subscriptions.generations().clone(), limits)
}

/// How many times the trie is asked when `topic` is resolved.
fn asks(cache: &mut MatchCache, subscriptions: &Subscriptions, topic: &str) -> u32 {
    let mut asked = 0;
    let matched = cache.resolve(name(topic), || {
        asked += 1;
        subscriptions.matches(name(topic))
    });
    assert_eq!(
        matched.receivers_len(),
        subscriptions.matches(name(topic)).receivers_len()
    );
    asked
}

#[test]
fn a_topic_that_comes_again_does_not_ask_the_trie_until_a_change_can_touch_it() {
    let mut subscriptions = Subscriptions::default();
    subscriptions.subscribe(filter("a/+"), subscriber(1));
    let mut cache = cache(&subscriptions, MatchCacheLimits::default());
    // A first level whose counter is not the one of `a`.
    let of_a = subscriptions.generations().branch_of_topic("a");
    let other = (0..)
        .map(|n| format!("b{n}"))
        .find(|b| subscriptions.generations().branch_of_topic(b) != of_a);
    let other = other.unwrap();

    assert_eq!(asks(&mut cache, &subscriptions, "a/x"), 1);
    assert_eq!(asks(&mut cache, &subscriptions, "a/x"), 0);
    assert!(cache.get(name("a/x")).is_some());
    subscriptions.subscribe(filter(&other), subscriber(2));
    assert_eq!(asks(&mut cache, &subscriptions, "a/x"), 0, "another branch");
    subscriptions.subscribe(filter("a/x/y"), subscriber(2));
    assert!(cache.get(name("a/x")).is_none());
    assert_eq!(asks(&mut cache, &subscriptions, "a/x"), 1, "the same branch");
    subscriptions.subscribe(filter("$share/g/+/x"), subscriber(2));
    assert_eq!(asks(&mut cache, &subscriptions, "a/x"), 1, "a leading wildcard");
    subscriptions.unsubscribe(filter("$share/g/+/x"), session(2));
    assert_eq!(asks(&mut cache, &subscriptions, "a/x"), 1, "and its end");
    assert_eq!(cache.hits_and_misses(), (3, 5));
    assert_eq!(cache.len(), 1);
}

#[test]
fn switched_off_it_keeps_nothing_and_answers_all_the_same() {
    let mut subscriptions = Subscriptions::default();
    subscriptions.subscribe(filter("#"), subscriber(1));
    let limits = MatchCacheLimits {
        topics_max: 0,
        ..MatchCacheLimits::default()
    };
    let mut cache = cache(&subscriptions, limits);
    assert_eq!(asks(&mut cache, &subscriptions, "a"), 1);
    assert_eq!(asks(&mut cache, &subscriptions, "a"), 1);
    assert_eq!(cache.len(), 0);
}

#[test]
fn it_stays_within_its_bounds_and_a_hot_topic_survives_a_flood_of_others() {
    let mut subscriptions = Subscriptions::default();
    subscriptions.subscribe(filter("#"), subscriber(1));
    let limits = MatchCacheLimits {
        topics_max: 64,
        ..MatchCacheLimits::default()
    };
    let mut cache = cache(&subscriptions, limits);
    let mut hot_asks = 0;
    for n in 0..10_000 {
        asks(&mut cache, &subscriptions, &format!("cold/{n}"));
        hot_asks += asks(&mut cache, &subscriptions, "hot");
        assert!(cache.len() <= 64);
    }
    assert!(cache.len() > 48, "it uses its room: {}", cache.len());
    assert!(hot_asks < 100, "asked {hot_asks} times");
    cache.clear();
    assert!(cache.is_empty());
    assert_eq!(asks(&mut cache, &subscriptions, "hot"), 1);
}

#[test]
fn topics_that_come_once_do_not_push_out_those_that_come_again() {
    let mut subscriptions = Subscriptions::default();
    subscriptions.subscribe(filter("#"), subscriber(1));
    let mut cache = cache(
        &subscriptions,
        MatchCacheLimits {
            topics_max: 64,
            ..MatchCacheLimits::default()
        },
    );
    (0..1_000).for_each(|n| _ = asks(&mut cache, &subscriptions, &format!("old/{n}")));
    assert_eq!(cache.len(), 64, "full");
    let kept: Vec<String> = (0..1_000).map(|n| format!("old/{n}")).collect();
    let kept: Vec<&String> = kept.iter().filter(|topic| cache.get(name(topic)).is_some()).collect();
    (0..64).for_each(|n| _ = asks(&mut cache, &subscriptions, &format!("once/{n}")));
    let lost = kept.iter().filter(|topic| cache.get(name(topic)).is_none()).count();
    assert!(
        lost <= 64 / LET_IN as usize,
        "{lost} of 64 were lost to topics that came once"
    );

    let came_again = (0..100).map(|n| format!("twice/{n}")).filter(|topic| {
        assert_eq!(asks(&mut cache, &subscriptions, topic), 1);
        asks(&mut cache, &subscriptions, &format!("{topic}/between"));
        asks(&mut cache, &subscriptions, topic);
        cache.get(name(topic)).is_some()
    });
    let have_a_place = came_again.count();
    assert!(have_a_place > 70, "{have_a_place}");

    // Those that take turns are, one after the other, let in all the same: all of the old ones are gone in the end.
    for _ in 0..1_000 {
        (0..64).for_each(|n| _ = asks(&mut cache, &subscriptions, &format!("new/{n}")));
    }
    let old = kept.iter().filter(|topic| cache.get(name(topic)).is_some()).count();
    let new = (0..64)
        .filter(|n| cache.get(name(&format!("new/{n}"))).is_some())
        .count();
    assert!(
        new >= 40 && old + new <= 64,
        "{new} of 64 new ones are kept, {old} old ones"
    );
}

/// One message may ask twice: whether its receivers are slow, and who they are.
#[test]
fn a_topic_that_is_asked_for_twice_for_one_message_came_once() {
    let mut subscriptions = Subscriptions::default();
    subscriptions.subscribe(filter("+/a"), subscriber(1));
    let limits = MatchCacheLimits {
        topics_max: 64,
        ..MatchCacheLimits::default()
    };
    let mut cache = cache(&subscriptions, limits);
    (0..1_000).for_each(|n| _ = asks(&mut cache, &subscriptions, &format!("old{n}/a")));
    let topics: Vec<String> = (0..160).map(|n| format!("once/{n}")).collect();
    for topic in &topics {
        assert_eq!(asks(&mut cache, &subscriptions, topic), 1);
        assert_eq!(asks(&mut cache, &subscriptions, topic), 0);
    }
    let kept = topics.iter().filter(|topic| cache.get(name(topic)).is_some()).count();
    assert!(kept <= 160 / LET_IN as usize, "{kept}");
    // A change is seen.
    let topic = topics.iter().find(|topic| cache.get(name(topic)).is_none()).unwrap();
    asks(&mut cache, &subscriptions, topic);
    subscriptions.subscribe(filter("once/#"), subscriber(2));
    assert_eq!(asks(&mut cache, &subscriptions, topic), 1);
}

#[test]
fn what_is_out_of_date_goes_first() {
    let mut subscriptions = Subscriptions::default();
    let of_a = subscriptions.generations().branch_of_topic("a");
    let other = (0..)
        .map(|n| format!("b{n}"))
        .find(|b| subscriptions.generations().branch_of_topic(b) != of_a);
    let limits = MatchCacheLimits {
        topics_max: 4,
        ..MatchCacheLimits::default()
    };
    for stale in 0..4 {
        let mut cache = cache(&subscriptions, limits);
        let topics: Vec<_> = (0..4)
            .map(|n| {
                if n == stale {
                    "a/x".to_owned()
                } else {
                    format!("{}/{n}", other.as_ref().unwrap())
                }
            })
            .collect();
        topics
            .iter()
            .for_each(|topic| assert_eq!(asks(&mut cache, &subscriptions, topic), 1));
        subscriptions.subscribe(filter("a/x"), subscriber(1));
        assert_eq!(asks(&mut cache, &subscriptions, "new"), 1);
        let kept = topics.iter().filter(|topic| cache.get(name(topic)).is_some()).count();
        assert_eq!(kept, 3);
    }
}

#[test]
fn wide_matches_and_long_topics_do_not_eat_the_memory() {
    let mut subscriptions = Subscriptions::default();
    for number in 0..100 {
        subscriptions.subscribe(filter("#"), subscriber(number));
    }
    let limits = MatchCacheLimits {
        receivers_max: 1000,
        topic_bytes_max: 10,
        ..MatchCacheLimits::default()
    };
    let mut cache = cache(&subscriptions, limits);
    for n in 0..1000 {
        asks(&mut cache, &subscriptions, &n.to_string());
        assert_eq!(cache.receivers, cache.len() * 100);
        assert!(cache.receivers <= 1000 && !cache.is_empty());
    }
    let before = cache.len();
    assert_eq!(asks(&mut cache, &subscriptions, "longer than ten bytes"), 1);
    assert_eq!(asks(&mut cache, &subscriptions, "longer than ten bytes"), 1);
    assert_eq!(cache.len(), before);

    for number in 100..2000 {
        subscriptions.subscribe(filter("#"), subscriber(number));
    }
    assert_eq!(asks(&mut cache, &subscriptions, "huge"), 1);
    assert_eq!(
        asks(&mut cache, &subscriptions, "huge"),
        0,
        "one match larger than the bound is kept alone"
    );
    assert_eq!(cache.len(), 1);
}

#[test]
fn a_subscription_that_was_acknowledged_is_seen_by_every_worker() {
    let subscriptions = RwLock::new(Subscriptions::default());
    let acknowledged = AtomicUsize::new(0);
    let generations = subscriptions.read().unwrap().generations().clone();
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let mut cache = MatchCache::new(generations.clone(), MatchCacheLimits::default());
                loop {
                    let at_least = acknowledged.load(Ordering::Acquire);
                    let topic = name("a/b");
                    let found = cache
                        .resolve(topic, || subscriptions.read().unwrap().matches(topic))
                        .receivers_len();
                    assert!(found >= at_least, "{found} of {at_least}");
                    if at_least == 500 {
                        return;
                    }
                }
            });
        }
        for number in 0..500 {
            let text = ["a/b", "a/+", "+/b", "#"][number as usize % 4];
            subscriptions
                .write()
                .unwrap()
                .subscribe(filter(text), subscriber(number));
            acknowledged.store(number as usize + 1, Ordering::Release);
        }
    });
}
