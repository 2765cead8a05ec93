//! No message is ever delivered that a plain reading of the rules forbids: live, retained, wills, shared groups, what waited for a session; in
//! three tenants with the same users and client ids, in both versions, through random changes of the rules.

use std::sync::Arc;

use sundew::auth::rule::{Action, Actions, Effect, Rule, TopicPattern};
use sundew::auth::rules::{LiveRules, Rules, Scope, WideSubscriptions};
use sundew::protocol::topic::matches;
use sundew::protocol::version::Version;

use super::matrix::{Believing, GRETA, MALLORY, WATCHER, Who};
use super::random::Random;
use crate::broker::{BOTH, Broker};
use crate::client::Client;
use crate::wire::{Connect, PINGREQ, PUBACK, Packet, Publish, Will, ack};

const TENANTS: [&str; 3] = ["", "a", "b"];
/// What clients say, without their tenants.
const TOPICS: [&str; 4] = ["x", "y", "z/x", "$q/x"];
const FILTERS: [&str; 7] = ["#", "x", "+/x", "z/#", "$q/#", "$share/g/#", "$share/g/x"];
/// What rules are about, with them.
const PATTERNS: [&str; 11] = [
    "#", "a/#", "b/#", "x", "+/x", "a/x", "b/x", "a/z/#", "$a/#", "$b/$q/x", "+/+/x",
];

/// A rule as one reads it: whether it allows, to write or to read, what, to whom.
type Plain = (bool, bool, &'static str, &'static str);

fn random_rules(random: &mut Random) -> Vec<Plain> {
    let mut rules = Vec::new();
    for user in [MALLORY.user, GRETA.user] {
        for _ in 0..5 + random.below(5) {
            let allows = random.below(10) < 8;
            rules.push((allows, random.below(2) == 0, random.one_of(&PATTERNS), user));
        }
    }
    rules
}

fn may(rules: &[Plain], user: &str, writes: bool, full: &str) -> bool {
    let fits = |allows: bool| {
        let mut all = rules.iter();
        all.any(|rule| rule.0 == allows && rule.1 == writes && rule.3 == user && matches(rule.2, full))
    };
    user == WATCHER.user || fits(true) && !fits(false)
}

/// For the broker; the witness may do everything.
fn written(rules: &[Plain], wide: WideSubscriptions) -> Rules {
    let read = Actions::default().with(Action::Subscribe).with(Action::Receive);
    let rule = |effect, actions, topics, user: &str| {
        let mut rule = Rule::new(effect, actions, TopicPattern::plain(topics).unwrap(), "here");
        rule.users.names = [user.into()].into();
        rule
    };
    let rules = rules.iter().map(|(allows, writes, topics, user)| {
        let effect = if *allows { Effect::Allow } else { Effect::Deny };
        let actions = if *writes {
            Actions::default().with(Action::Publish)
        } else {
            read
        };
        rule(effect, actions, topics, user)
    });
    let witness = rule(Effect::Allow, Actions::ALL, "#", WATCHER.user);
    let of_tenants = ["$a/#", "$b/#", "$q/#"].map(|topics| rule(Effect::Allow, Actions::ALL, topics, WATCHER.user));
    let list = rules.chain([witness]).chain(of_tenants).collect();
    Rules::new(list, Scope::Everywhere, wide, Vec::new())
}

/// A full name as `src/protocol/mount.rs` describes it.
fn full(tenant: &str, own: &str) -> String {
    match (tenant, own.strip_prefix('$')) {
        ("", _) => own.to_owned(),
        (tenant, Some(_)) => format!("${tenant}/{own}"),
        (tenant, None) => format!("{tenant}/{own}"),
    }
}

/// One client, and what it has been granted.
struct Member {
    who: Who,
    version: Version,
    /// `None` while it is away.
    client: Option<Client>,
    filters: Vec<&'static str>,
}

impl Member {
    fn connect(&self) -> Connect<'static> {
        let who = self.who.connect();
        Connect {
            user_name: who.user_name,
            password: who.password,
            ..Connect::lasting(who.client_id, self.version)
        }
    }
}

/// What was seen of each kind, so that a story in which nothing happens does not pass.
#[derive(Debug, Default)]
struct Seen {
    live: usize,
    retained: usize,
    wills: usize,
    refused: usize,
    waited: usize,
}

struct Story {
    broker: Broker,
    live: Arc<LiveRules>,
    wide: WideSubscriptions,
    rules: Vec<Plain>,
    members: Vec<Member>,
    /// Who said it, on which topic, and whether he might then.
    said: Vec<(Who, String, bool)>,
    seen: Seen,
    seed: u64,
}

impl Story {
    fn new(seed: u64, random: &mut Random) -> Self {
        let all = [
            WideSubscriptions::Refuse,
            WideSubscriptions::Narrow,
            WideSubscriptions::Grant,
        ];
        let (live, wide) = (Arc::new(LiveRules::default()), all[random.below(3)]);
        let broker = Broker::start(1, |_, parts| {
            parts.authenticator = Arc::new(Believing);
            parts.authorizer = Arc::clone(&live) as _;
        });
        let whos = TENANTS.iter().flat_map(|tenant| [MALLORY.of(tenant), GRETA.of(tenant)]);
        let members = whos.map(|who| Member {
            who,
            version: BOTH[random.below(2)],
            client: None,
            filters: Vec::new(),
        });
        let mut story = Self {
            broker,
            live,
            wide,
            rules: Vec::new(),
            members: members.collect(),
            said: Vec::new(),
            seen: Seen::default(),
            seed,
        };
        story.change(random);
        for at in 0..story.members.len() {
            story.come(at);
        }
        story
    }

    fn change(&mut self, random: &mut Random) {
        self.rules = random_rules(random);
        self.live.replace(written(&self.rules, self.wide));
        self.broker.server.broker().access_changed();
    }

    fn come(&mut self, at: usize) {
        let member = &mut self.members[at];
        let (client, is_present) = self.broker.connect(member.version, &member.connect());
        member.client = Some(client);
        if !is_present {
            member.filters.clear();
        }
        let before = self.seen.live;
        self.take(at);
        self.seen.waited += self.seen.live - before;
    }

    /// Takes what has come for a member, and looks at each.
    fn take(&mut self, at: usize) -> Vec<usize> {
        let mut numbers = Vec::new();
        let member = &mut self.members[at];
        let filters = member
            .filters
            .iter()
            .map(|filter| filter.trim_start_matches("$share/g/"));
        let wants = |own: &str| filters.clone().any(|filter| matches(filter, own));
        let Some(client) = &mut member.client else {
            return numbers;
        };
        client.send(&PINGREQ);
        loop {
            let message = match client.receive() {
                Packet::PingResp => return numbers,
                Packet::Publish(message) => message,
                other => panic!("{other:?}"),
            };
            if message.qos == 1 {
                client.send(&ack(PUBACK, message.packet_id));
            }
            let number: usize = message.text().parse().unwrap();
            let (who, topic, might) = &self.said[number];
            let (user, rules) = (member.who.user, &self.rules);
            let case = format!(
                "seed {}: {user} of {:?} got {message:?}, rules {rules:?}",
                self.seed,
                member.who.tenant()
            );
            let name = full(member.who.tenant(), &message.topic);
            assert_eq!(name, *topic, "{case}");
            assert!(*might, "it was not to be published: {case}");
            assert!(may(rules, user, false, &name), "it is not to be received: {case}");
            // Of who came with claims only what is denied is known later.
            let may_still = !rules.iter().any(|rule| {
                let (allows, writes, topics, user) = *rule;
                !allows && writes && user == who.user && matches(topics, &name)
            });
            assert!(
                !message.retain || may_still,
                "who published it may not any more: {case}"
            );
            assert!(wants(&message.topic), "it was not asked for: {case}");
            self.seen.retained += usize::from(message.retain);
            self.seen.live += usize::from(!message.retain);
            numbers.push(number);
        }
    }

    fn say(&mut self, who: Who, own: &str) -> (String, bool) {
        let name = full(who.tenant(), own);
        let might = may(&self.rules, who.user, true, &name);
        self.said.push((who, name, might));
        ((self.said.len() - 1).to_string(), might)
    }

    /// Everybody who is there, subscribes for himself and may, gets it.
    fn expect(&mut self, number: usize) {
        let (_, name, might) = self.said[number].clone();
        for at in 0..self.members.len() {
            let member = &self.members[at];
            let is_there = member.client.is_some();
            let own = TOPICS.iter().find(|own| full(member.who.tenant(), own) == name);
            let own = own
                .copied()
                .or_else(|| member.who.tenant().is_empty().then_some(&*name));
            let mut alone = member.filters.iter().filter(|filter| !filter.starts_with("$share"));
            let wants = own.is_some_and(|own| alone.any(|filter| matches(filter, own)));
            let is_due = is_there && wants && might && may(&self.rules, member.who.user, false, &name);
            let got = self.take(at);
            assert!(
                !is_due || got.contains(&number),
                "seed {}: {name} {:?}",
                self.seed,
                self.rules
            );
        }
    }

    fn publish(&mut self, at: usize, own: &str, retain: bool) {
        let (text, _) = self.say(self.members[at].who, own);
        let message = Publish::new(own, &text, 1);
        let client = self.members[at].client.as_mut().unwrap();
        client.try_publish(if retain { message.retained() } else { message });
        self.expect(self.said.len() - 1);
    }

    /// Somebody of the same user and tenant leaves a will.
    fn die(&mut self, at: usize, own: &'static str, retain: bool) {
        let (who, version) = (self.members[at].who, self.members[at].version);
        let (text, might) = self.say(who, own);
        let will = Will {
            topic: own,
            payload: text.as_bytes(),
            qos: 1,
            retain,
            ..Will::default()
        };
        let connect = Connect {
            client_id: "dying",
            will: Some(will),
            ..who.connect()
        };
        let mut client = self.broker.open(version);
        let code = client.try_connect(&connect).1;
        assert_eq!(code == 0, might, "seed {}: a will on {own}", self.seed);
        if !might {
            self.seen.refused += 1;
            return;
        }
        let published = || self.broker.server.broker().metrics.sum().wills_published;
        let before = published();
        drop(client);
        while published() == before {
            std::thread::yield_now();
        }
        self.seen.wills += 1;
        self.expect(self.said.len() - 1);
    }

    fn step(&mut self, random: &mut Random) {
        let at = random.below(self.members.len());
        let own = random.one_of(&TOPICS);
        let retain = random.below(3) == 0;
        if self.members[at].client.is_none() {
            return self.come(at);
        }
        match random.below(12) {
            0 => self.change(random),
            1..4 => {
                let filter = random.one_of(&FILTERS);
                self.take(at);
                let member = &mut self.members[at];
                // What is retained comes behind SUBACK.
                let client = member.client.as_mut().unwrap();
                let is_granted = client.subscribe(filter, 1) < 0x80;
                self.seen.refused += usize::from(!is_granted);
                if is_granted && !member.filters.contains(&filter) {
                    member.filters.push(filter);
                }
                self.take(at);
            }
            4 => {
                self.take(at);
                self.members[at].client.take().unwrap().disconnect();
            }
            5 => self.die(at, own, retain),
            _ => self.publish(at, own, retain),
        }
        for at in 0..self.members.len() {
            self.take(at);
        }
    }
}

#[test]
fn nothing_is_delivered_that_a_plain_reading_of_the_rules_forbids() {
    let mut seen = Seen::default();
    for seed in 1..=24 {
        let mut random = Random::new(seed);
        let mut story = Story::new(seed, &mut random);
        for _ in 0..200 {
            story.step(&mut random);
        }
        seen.live += story.seen.live;
        seen.retained += story.seen.retained;
        seen.wills += story.seen.wills;
        seen.refused += story.seen.refused;
        seen.waited += story.seen.waited;
    }
    let each = [seen.live, seen.retained, seen.wills, seen.refused, seen.waited];
    assert!(each.iter().all(|count| *count >= 10), "{seen:?}");
}
