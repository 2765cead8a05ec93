use super::*;
use crate::protocol::ids::{SlotKey, WorkerId};
use crate::protocol::packet::SubscriptionOptions;
use crate::protocol::topic::{TopicFilter, TopicName};
use crate::router::{Matched, Overlap, Subscriptions};

/// A trie with one group `$share/g/t` of members of QoS 1 that are all online, and their statuses.
struct Scene {
    subscriptions: Subscriptions,
    statuses: Vec<Arc<SessionStatus>>,
}

impl Scene {
    fn new(strategy: Strategy, members: u32) -> Self {
        let strategies = Strategies {
            default: strategy,
            by_prefix: Vec::new(),
        };
        let mut scene = Self {
            subscriptions: Subscriptions::new(Overlap::Once, strategies),
            statuses: Vec::new(),
        };
        (0..members).for_each(|number| scene.join(number));
        scene
    }

    fn join(&mut self, number: u32) {
        let status = Arc::new(SessionStatus::new(true));
        self.statuses.push(status.clone());
        let options = SubscriptionOptions {
            qos: QoS::AtLeastOnce,
            ..SubscriptionOptions::default()
        };
        let subscriber = Subscriber {
            session: session(number),
            options,
            identifier: None,
            status,
        };
        self.subscriptions.subscribe(filter(), subscriber);
    }

    fn leave(&mut self, number: u32) {
        assert!(self.subscriptions.unsubscribe(filter(), session(number)));
    }

    fn matched(&self) -> Matched {
        self.subscriptions.matches(TopicName::parse("t").unwrap())
    }

    fn choose(&self, choice: &Choice<'_>) -> Option<u32> {
        let matched = self.matched();
        matched.groups[0].choose(choice).map(|member| member.session.key.slot)
    }

    fn rounds(&self, choice: &Choice<'_>, rounds: usize) -> Vec<u32> {
        (0..rounds).map(|_| self.choose(choice).unwrap()).collect()
    }
}

fn session(number: u32) -> SessionKey {
    let key = SlotKey {
        slot: number,
        generation: 0,
    };
    SessionKey {
        worker: WorkerId((number % 2) as u16),
        key,
    }
}

fn filter() -> TopicFilter<'static> {
    TopicFilter::parse("$share/g/t").unwrap()
}

const MESSAGE: Choice<'static> = Choice {
    publisher: None,
    topic: "t",
    qos: QoS::AtLeastOnce,
    random: 0,
    excluded: &[],
};

#[test]
fn round_robin_gives_everyone_a_turn_and_goes_on_when_members_come_and_go() {
    let mut scene = Scene::new(Strategy::RoundRobin, 3);
    assert_eq!(scene.rounds(&MESSAGE, 6), [0, 1, 2, 0, 1, 2]);
    scene.join(3);
    assert_eq!(scene.rounds(&MESSAGE, 4), [2, 3, 0, 1], "the round did not start again");
    scene.leave(0);
    let mut seen = scene.rounds(&MESSAGE, 3);
    seen.sort();
    assert_eq!(seen, [1, 2, 3]);
}

#[test]
fn members_that_are_online_and_have_room_come_first_then_the_offline_then_the_full() {
    let scene = Scene::new(Strategy::RoundRobin, 3);
    let qos0 = Choice {
        qos: QoS::AtMostOnce,
        ..MESSAGE
    };
    scene.statuses[0].set_online(false);
    scene.statuses[1].set_full(true);
    assert_eq!(scene.rounds(&MESSAGE, 3), [2, 2, 2]);
    assert_eq!(scene.rounds(&qos0, 3), [2, 2, 2]);

    scene.statuses[2].set_full(true);
    assert_eq!(scene.rounds(&MESSAGE, 3), [0, 0, 0], "its session keeps the message");
    assert!(
        scene.rounds(&qos0, 4).iter().all(|chosen| [1, 2].contains(chosen)),
        "QoS 0 does not wait for anybody"
    );

    scene.statuses[0].set_full(true);
    let mut all = scene.rounds(&MESSAGE, 3);
    all.sort();
    assert_eq!(all, [0, 1, 2], "the outbox decides");

    scene.statuses[1].set_online(false);
    scene.statuses[2].set_online(false);
    assert_eq!(scene.choose(&qos0), None);
}

#[test]
fn a_member_that_was_granted_qos_0_gets_nothing_while_it_is_offline() {
    let mut scene = Scene::new(Strategy::RoundRobin, 1);
    let status = Arc::new(SessionStatus::new(false));
    let options = SubscriptionOptions::default();
    scene.subscriptions.subscribe(
        filter(),
        Subscriber {
            session: session(1),
            options,
            identifier: None,
            status,
        },
    );
    scene.statuses[0].set_online(false);
    assert_eq!(scene.rounds(&MESSAGE, 4), [0, 0, 0, 0]);
}

#[test]
fn failover_leaves_out_those_who_had_it() {
    let scene = Scene::new(Strategy::Sticky, 3);
    assert_eq!(
        scene.rounds(
            &Choice {
                excluded: &[session(0), session(2)],
                ..MESSAGE
            },
            2
        ),
        [1, 1]
    );
    let all = [session(0), session(1), session(2)];
    assert_eq!(
        scene.choose(&Choice {
            excluded: &all,
            ..MESSAGE
        }),
        None
    );
}

#[test]
fn sticky_stays_until_the_member_cannot_and_then_stays_with_the_next() {
    let mut scene = Scene::new(Strategy::Sticky, 4);
    assert_eq!(scene.rounds(&MESSAGE, 3), [0, 0, 0]);
    scene.statuses[0].set_online(false);
    assert_eq!(scene.rounds(&MESSAGE, 3), [1, 1, 1]);
    scene.statuses[0].set_online(true);
    assert_eq!(scene.rounds(&MESSAGE, 3), [1, 1, 1]);
    scene.statuses[1].set_full(true);
    scene.statuses[2].set_full(true);
    assert_eq!(scene.rounds(&MESSAGE, 3), [3, 3, 3]);
    scene.leave(1);
    assert_eq!(scene.rounds(&MESSAGE, 3), [3, 3, 3], "it has moved to the free place");
    scene.leave(3);
    assert_eq!(scene.matched().groups[0].members().len(), 2);
    assert!(scene.choose(&MESSAGE).is_some());
}

#[test]
fn by_client_and_by_topic_keep_to_one_member_each_and_use_all() {
    for strategy in [Strategy::ByClient, Strategy::ByTopic] {
        let scene = Scene::new(strategy, 4);
        let mut used = std::collections::BTreeSet::new();
        for number in 0..100 {
            let topic = format!("t/{number}");
            let choice = match strategy {
                Strategy::ByClient => Choice {
                    publisher: Some(session(number)),
                    ..MESSAGE
                },
                _ => Choice {
                    topic: &topic,
                    ..MESSAGE
                },
            };
            let chosen = scene.rounds(&choice, 3);
            assert!(chosen.iter().all(|member| *member == chosen[0]), "{strategy:?}");
            used.insert(chosen[0]);
        }
        assert_eq!(used.len(), 4, "{strategy:?}");
    }
}

#[test]
fn random_follows_the_number_it_is_given() {
    let scene = Scene::new(Strategy::Random, 3);
    for random in 0..9 {
        assert_eq!(scene.choose(&Choice { random, ..MESSAGE }), Some(random as u32 % 3));
    }
    assert!(
        scene
            .choose(&Choice {
                random: u64::MAX,
                ..MESSAGE
            })
            .is_some()
    );
}

#[test]
fn the_least_burdened_is_chosen_and_equals_take_turns() {
    let scene = Scene::new(Strategy::LeastInFlight, 3);
    let mut equals = scene.rounds(&MESSAGE, 3);
    equals.sort();
    assert_eq!(equals, [0, 1, 2]);
    scene.statuses[0].set_in_flight(5);
    scene.statuses[1].set_in_flight(2);
    scene.statuses[2].set_in_flight(4);
    assert_eq!(scene.rounds(&MESSAGE, 3), [1, 1, 1]);
    scene.statuses[1].set_full(true);
    assert_eq!(scene.rounds(&MESSAGE, 3), [2, 2, 2]);
}

#[test]
fn the_longest_prefix_names_the_strategy_and_a_change_reaches_existing_groups() {
    let by_prefix = vec![
        ("g".to_owned(), Strategy::Random),
        ("gate".to_owned(), Strategy::Sticky),
    ];
    let strategies = Strategies {
        default: Strategy::ByTopic,
        by_prefix,
    };
    assert_eq!(strategies.of("gate7"), Strategy::Sticky);
    assert_eq!(strategies.of("green"), Strategy::Random);
    assert_eq!(strategies.of("other"), Strategy::ByTopic);

    let mut scene = Scene::new(Strategy::RoundRobin, 3);
    let mut cache = crate::router::MatchCache::new(scene.subscriptions.generations().clone(), Default::default());
    let topic = TopicName::parse("t").unwrap();
    cache.resolve(topic, || scene.matched());
    scene.subscriptions.set_strategies(strategies);
    assert!(cache.get(topic).is_none());
    let random = Choice { random: 2, ..MESSAGE };
    assert_eq!(scene.rounds(&random, 3), [2, 2, 2]);
}

#[test]
fn workers_that_choose_at_the_same_time_share_the_round() {
    let scene = Scene::new(Strategy::RoundRobin, 4);
    let matched = scene.matched();
    let turns: Vec<u32> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let choose = |_| matched.groups[0].choose(&MESSAGE).map(|member| member.session.key.slot);
                    (0..1000).filter_map(choose).collect::<Vec<_>>()
                })
            })
            .collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
    });
    for member in 0..4 {
        assert_eq!(turns.iter().filter(|turn| **turn == member).count(), 1000);
    }
}

/// Each once, the good ones first, and of equals those who are near; none who had it already.
#[test]
fn when_the_chosen_member_could_not_all_others_are_tried_once() {
    for strategy in [Strategy::RoundRobin, Strategy::Random, Strategy::LeastInFlight] {
        let scene = Scene::new(strategy, 1000);
        scene.statuses[3].set_full(true);
        scene.statuses[5].set_online(false);
        let matched = scene.matched();
        let group = &matched.groups[0];
        let excluded = [session(1), session(2)];
        let order = |qos, here| {
            let others = group.others(qos, &excluded, WorkerId(here));
            others.map(|member| member.session.key.slot).collect::<Vec<_>>()
        };
        let tried = order(QoS::AtLeastOnce, 0);
        let mut all = tried.clone();
        all.sort_unstable();
        assert_eq!(all, (0..1000).filter(|one| ![1, 2].contains(one)).collect::<Vec<_>>());
        assert_eq!(tried[996..], [5, 3], "away, then full");
        assert!(!order(QoS::AtMostOnce, 0).contains(&5));
    }
}
