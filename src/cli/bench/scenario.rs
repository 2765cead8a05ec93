//! The scenarios: who subscribes to what, who publishes where, and who is to get which message.

use std::ops::Range;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Scenario {
    /// Each publisher has a topic and a subscriber of its own
    Pairs,
    /// Many publishers, few subscribers with a wildcard: devices and a collector
    FanIn,
    /// One topic, many subscribers: every message is delivered to each
    FanOut,
    /// The subscribers are one shared group: every message is delivered to one of them
    Shared,
    /// Many filters, random topics; with --filter-kind mixed every message matches three of them
    Wildcard,
    /// Pairs at a fixed rate, for latency
    Latency,
    /// Connections are opened as fast as possible, many at once
    Connect,
    /// Connections are opened and do nothing: the memory of each, with --pid
    Idle,
    /// Messages are stored as retained ones, then sent to a new subscriber
    Retained,
}

impl Scenario {
    /// Messages go through the broker for some time.
    pub(super) const fn is_traffic(self) -> bool {
        !matches!(self, Self::Connect | Self::Idle | Self::Retained)
    }

    /// Each topic's messages go to each subscriber over one way only, so they must come in order [MQTT-4.6.0-6].
    pub(super) const fn is_ordered(self) -> bool {
        matches!(self, Self::Pairs | Self::FanIn | Self::FanOut | Self::Latency)
    }
}

/// What the filters of the wildcard scenario look like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum FilterKind {
    /// The others but `exact`, a third of each
    #[default]
    Mixed,
    /// `A/B/C`
    Exact,
    /// `A/+/C`
    Plus,
    /// `A/B/#`
    Hash,
}

/// How large a scenario is.
#[derive(Clone, Debug)]
pub(super) struct Size {
    pub(super) publishers: u32,
    pub(super) subscribers: u32,
    /// Of the wildcard scenario, about.
    pub(super) filters: u32,
    pub(super) filter_kind: FilterKind,
    /// Of the retained scenario.
    pub(super) messages: u64,
    /// What all topics begin with; no other run has the same.
    pub(super) prefix: String,
}

/// Who does what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) publishers: Vec<PublisherPlan>,
    pub(super) subscribers: Vec<SubscriberPlan>,
    /// The publishers of whom each audience gets every message once.
    pub(super) audiences: Vec<Range<u32>>,
    /// Deliveries of one message: the audiences of its publisher.
    pub(super) deliveries: u64,
}

/// A publisher's topics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PublisherPlan {
    pub(super) topic: String,
    pub(super) change: Change,
    /// It ends after as many messages, if it ends by itself.
    pub(super) messages: Option<u64>,
}

/// What changes in a topic from message to message: digits that are written over, so that its length stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Nothing,
    /// The message's number, in [`DIGITS`] digits at this place.
    Number {
        at: usize,
    },
    /// Levels of [`LEVEL_DIGITS`] random digits below `below` at this place and each fifth byte behind it.
    Random {
        at: usize,
        below: u32,
    },
}

/// Digits of a numbered topic.
pub(super) const DIGITS: usize = 9;
/// Digits of each random level, and how many levels.
pub(super) const LEVEL_DIGITS: usize = 4;
/// Random levels of a topic.
pub(super) const RANDOM_LEVELS: usize = 3;

/// A subscriber's filters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SubscriberPlan {
    pub(super) filters: Vec<String>,
    /// Index into [`Plan::audiences`].
    pub(super) audience: usize,
}

impl Plan {
    /// The plan of a scenario; connections alone have none.
    pub(super) fn new(scenario: Scenario, size: &Size) -> Self {
        match scenario {
            Scenario::Pairs | Scenario::Latency => Self::pairs(size),
            Scenario::FanIn => Self::fan_in(size),
            Scenario::FanOut => Self::fan_out(size),
            Scenario::Shared => Self::shared(size),
            Scenario::Wildcard => Self::wildcard(size),
            Scenario::Retained => Self::retained(size),
            Scenario::Connect | Scenario::Idle => Self {
                publishers: Vec::new(),
                subscribers: Vec::new(),
                audiences: Vec::new(),
                deliveries: 0,
            },
        }
    }

    /// Bytes of the text of all filters.
    pub(super) fn filter_bytes(&self) -> u64 {
        let filters = self.subscribers.iter().flat_map(|subscriber| &subscriber.filters);
        filters.map(|filter| filter.len() as u64).sum()
    }

    /// How many filters there are.
    pub(super) fn filters(&self) -> u64 {
        self.subscribers
            .iter()
            .map(|subscriber| subscriber.filters.len() as u64)
            .sum()
    }

    fn pairs(size: &Size) -> Self {
        let topic = |pair: u32| format!("{}/{pair}/data", size.prefix);
        Self {
            publishers: (0..size.publishers)
                .map(|pair| PublisherPlan::fixed(topic(pair)))
                .collect(),
            subscribers: (0..size.publishers)
                .map(|pair| SubscriberPlan::new(topic(pair), pair as usize))
                .collect(),
            audiences: (0..size.publishers).map(|pair| pair..pair + 1).collect(),
            deliveries: 1,
        }
    }

    /// Each subscriber has a part of the publishers, next to each other.
    fn fan_in(size: &Size) -> Self {
        let part_of = |publisher: u32| {
            let part = u64::from(publisher) * u64::from(size.subscribers) / u64::from(size.publishers);
            part as u32
        };
        let audience = |subscriber| {
            let mut own = (0..size.publishers).filter(|publisher| part_of(*publisher) == subscriber);
            own.next().map_or(0..0, |first| first..first + 1 + own.count() as u32)
        };
        Self {
            publishers: (0..size.publishers)
                .map(|publisher| PublisherPlan::fixed(format!("{}/{}/{publisher}", size.prefix, part_of(publisher))))
                .collect(),
            subscribers: (0..size.subscribers)
                .map(|subscriber| SubscriberPlan::new(format!("{}/{subscriber}/#", size.prefix), subscriber as usize))
                .collect(),
            audiences: (0..size.subscribers).map(audience).collect(),
            deliveries: 1,
        }
    }

    fn fan_out(size: &Size) -> Self {
        let topic = format!("{}/all", size.prefix);
        Self {
            publishers: vec![PublisherPlan::fixed(topic.clone()); size.publishers as usize],
            subscribers: (0..size.subscribers)
                .map(|subscriber| SubscriberPlan::new(topic.clone(), subscriber as usize))
                .collect(),
            audiences: vec![0..size.publishers; size.subscribers as usize],
            deliveries: u64::from(size.subscribers),
        }
    }

    fn shared(size: &Size) -> Self {
        let filter = format!("$share/bench/{}/#", size.prefix);
        Self {
            publishers: (0..size.publishers)
                .map(|publisher| PublisherPlan::fixed(format!("{}/{publisher}/data", size.prefix)))
                .collect(),
            subscribers: vec![SubscriberPlan::new(filter, 0); size.subscribers as usize],
            audiences: std::iter::once(0..size.publishers).collect(),
            deliveries: 1,
        }
    }

    /// Topics `prefix/A/B/C` with random levels below n, and families of filters, of each of which every topic matches exactly one: n × n of `A/+/C`, `+/B/C` or
    /// `A/B/#`, or n × n × n without a wildcard. Each family is held by subscribers of its own, which are one audience.
    fn wildcard(size: &Size) -> Self {
        let families = size.filter_kind.families();
        let count = families.len();
        let is_exact = size.filter_kind == FilterKind::Exact;
        let each = f64::from(size.filters) / count as f64;
        let below = if is_exact { each.cbrt() } else { each.sqrt() };
        let below = (below.round() as u32).clamp(1, 9999);
        let members = (size.subscribers as usize / count).max(1);
        let mut subscribers: Vec<_> = (0..count * members)
            .map(|subscriber| SubscriberPlan {
                filters: Vec::new(),
                audience: subscriber / members,
            })
            .collect();
        let thirds = if is_exact { below } else { 1 };
        for number in 0..u64::from(below) * u64::from(below) * u64::from(thirds) {
            let levels = [
                number / u64::from(thirds) / u64::from(below),
                number / u64::from(thirds) % u64::from(below),
                number % u64::from(thirds),
            ];
            let member = (number % members as u64) as usize;
            for (family, filter) in families.iter().enumerate() {
                subscribers[family * members + member]
                    .filters
                    .push(filter(&size.prefix, levels));
            }
        }
        subscribers.retain(|subscriber| !subscriber.filters.is_empty());
        let publisher = PublisherPlan {
            topic: format!("{}/0000/0000/0000", size.prefix),
            change: Change::Random {
                at: size.prefix.len() + 1,
                below,
            },
            messages: None,
        };
        Self {
            publishers: vec![publisher; size.publishers as usize],
            subscribers,
            audiences: vec![0..size.publishers; count],
            deliveries: count as u64,
        }
    }

    fn retained(size: &Size) -> Self {
        let publishers = u64::from(size.publishers);
        let publisher = |index: u64| {
            let before = format!("{}/{index}/", size.prefix);
            PublisherPlan {
                change: Change::Number { at: before.len() },
                topic: format!("{before}{:0DIGITS$}", 0),
                messages: Some(size.messages * (index + 1) / publishers - size.messages * index / publishers),
            }
        };
        Self {
            publishers: (0..publishers).map(publisher).collect(),
            subscribers: (0..size.subscribers)
                .map(|subscriber| SubscriberPlan::new(format!("{}/#", size.prefix), subscriber as usize))
                .collect(),
            audiences: vec![0..size.publishers; size.subscribers as usize],
            deliveries: u64::from(size.subscribers),
        }
    }
}

/// A filter of a family, from the prefix and its levels.
type Filter = fn(&str, [u64; 3]) -> String;

impl FilterKind {
    fn families(self) -> &'static [Filter] {
        const EXACT: Filter = |prefix, [a, b, c]| format!("{prefix}/{a:04}/{b:04}/{c:04}");
        const MIDDLE: Filter = |prefix, [a, b, _]| format!("{prefix}/{a:04}/+/{b:04}");
        const FIRST: Filter = |prefix, [a, b, _]| format!("{prefix}/+/{a:04}/{b:04}");
        const HASH: Filter = |prefix, [a, b, _]| format!("{prefix}/{a:04}/{b:04}/#");
        match self {
            Self::Mixed => &[MIDDLE, FIRST, HASH],
            Self::Exact => &[EXACT],
            Self::Plus => &[MIDDLE],
            Self::Hash => &[HASH],
        }
    }
}

impl PublisherPlan {
    fn fixed(topic: String) -> Self {
        Self {
            topic,
            change: Change::Nothing,
            messages: None,
        }
    }
}

impl SubscriberPlan {
    fn new(filter: String, audience: usize) -> Self {
        Self {
            filters: vec![filter],
            audience,
        }
    }
}

/// Writes a number over digits, with leading zeros; what has no place is cut off at the left.
#[inline]
pub(super) fn write_digits(place: &mut [u8], mut number: u64) {
    for digit in place.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::topic::{TopicFilter, matches};

    fn size(publishers: u32, subscribers: u32) -> Size {
        Size {
            publishers,
            subscribers,
            filters: 300,
            filter_kind: FilterKind::Mixed,
            messages: 10,
            prefix: "p".to_owned(),
        }
    }

    /// For each audience that listens to the publisher, how many of its members match a topic of it.
    fn matching(plan: &Plan, publisher: u32, topic: &str) -> Vec<usize> {
        let of_audience = |audience: usize| {
            let members = plan
                .subscribers
                .iter()
                .filter(|subscriber| subscriber.audience == audience);
            let filters = members.flat_map(|member| &member.filters);
            let is_match = |filter: &&String| matches(TopicFilter::parse(filter).unwrap().filter(), topic);
            filters.filter(is_match).count()
        };
        let audiences = plan.audiences.iter().enumerate();
        let listening = audiences.filter(|(_, publishers)| publishers.contains(&publisher));
        listening.map(|(audience, _)| of_audience(audience)).collect()
    }

    #[test]
    fn each_message_reaches_each_audience_once_and_nobody_else() {
        use Scenario::*;
        for scenario in [Pairs, FanIn, FanOut, Wildcard, Latency, Retained] {
            let plan = Plan::new(scenario, &size(5, 3));
            for (index, publisher) in plan.publishers.iter().enumerate() {
                let listening = matching(&plan, index as u32, &publisher.topic);
                assert_eq!(listening, vec![1; plan.deliveries as usize], "{scenario:?}");
                let all = plan.subscribers.iter().flat_map(|subscriber| &subscriber.filters);
                let reached = all.filter(|filter| matches(filter, &publisher.topic)).count();
                assert_eq!(reached as u64, plan.deliveries, "{scenario:?}");
            }
        }
    }

    #[test]
    fn a_shared_group_is_one_audience() {
        let plan = Plan::new(Scenario::Shared, &size(2, 3));
        assert_eq!(
            matching(&plan, 1, &plan.publishers[1].topic),
            [3],
            "three members, one of whom gets it"
        );
        assert_eq!((plan.audiences.len(), plan.deliveries), (1, 1));
    }

    #[test]
    fn wildcards_are_as_many_as_asked_for_and_their_random_levels_lie_in_the_topic() {
        let plan = Plan::new(Scenario::Wildcard, &size(1, 30));
        assert_eq!((plan.filters(), plan.subscribers.len()), (300, 30));
        let publisher = &plan.publishers[0];
        assert_eq!(publisher.change, Change::Random { at: 2, below: 10 });
        let mut topic = publisher.topic.clone().into_bytes();
        write_digits(&mut topic[2 + 5..2 + 5 + LEVEL_DIGITS], 42);
        assert_eq!(topic, b"p/0000/0042/0000");
    }

    #[test]
    fn a_topic_matches_one_filter_of_each_kind_wherever_its_levels_lie() {
        for (kind, filters) in [
            (FilterKind::Exact, 343),
            (FilterKind::Plus, 289),
            (FilterKind::Hash, 289),
        ] {
            let size = Size {
                filter_kind: kind,
                ..size(1, 30)
            };
            let plan = Plan::new(Scenario::Wildcard, &size);
            assert_eq!((plan.filters(), plan.deliveries), (filters, 1), "{kind:?}");
            for topic in ["p/0000/0000/0000", "p/0006/0001/0005"] {
                assert_eq!(matching(&plan, 0, topic), [1], "{kind:?}");
            }
        }
    }

    #[test]
    fn retained_messages_are_shared_out_without_a_rest() {
        let plan = Plan::new(Scenario::Retained, &size(3, 1));
        let messages: Vec<_> = plan
            .publishers
            .iter()
            .map(|publisher| publisher.messages.unwrap())
            .collect();
        assert_eq!(messages, [3, 3, 4]);
        assert_eq!(plan.publishers[1].topic, "p/1/000000000");
    }
}
