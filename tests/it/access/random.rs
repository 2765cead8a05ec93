//! Rules that change at random while messages flow, against the plainest reading of them.

use std::fs;

use sundew::auth::rules::WideSubscriptions;
use sundew::protocol::topic::matches;

use super::{ALICE, BOB, Files, USERS, user};
use crate::broker::{BOTH, Broker};
use crate::wire::{PINGREQ, Packet, Publish};

/// Numbers that look random and are the same each time (xorshift).
pub(super) struct Random(u64);

impl Random {
    /// Others for each seed.
    pub(super) fn new(seed: u64) -> Self {
        Self(0x9E37_79B9_7F4A_7C15_u64.wrapping_mul(seed))
    }

    pub(super) fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % bound
    }

    pub(super) fn one_of<'a>(&mut self, all: &[&'a str]) -> &'a str {
        all[self.below(all.len())]
    }
}

const FILTERS: [&str; 8] = ["#", "a/#", "b/#", "+/x", "a/x", "a/y", "b/+", "a"];
const TOPICS: [&str; 6] = ["a", "a/x", "a/y", "b/x", "b/x/z", "c"];

/// Rules for one user, as lines of mosquitto's.
fn random_rules(random: &mut Random) -> String {
    let mut text = "user alice\ntopic #\nuser bob\n".to_owned();
    for _ in 0..random.below(5) {
        let access = random.one_of(&["read", "write", "readwrite", "deny"]);
        text += &format!("topic {access} {}\n", random.one_of(&FILTERS));
    }
    text
}

/// The plainest reading of the rules: may bob receive this?
fn may_bob_receive(text: &str, topic: &str) -> bool {
    let of_bob = text.split_once("user bob\n").unwrap().1;
    let fits = |access: &[&str]| {
        of_bob.lines().any(|line| {
            let words: Vec<_> = line.split(' ').collect();
            access.contains(&words[1]) && matches(words[2], topic)
        })
    };
    fits(&["read", "readwrite"]) && !fits(&["deny"])
}

/// Through random changes of the rules nothing is delivered that they forbid, and, what is subscribed to, everything that they allow.
#[test]
fn deliveries_are_those_that_the_rules_of_the_moment_allow() {
    for seed in 1..=12 {
        let mut random = Random::new(seed);
        let wide = [
            WideSubscriptions::Refuse,
            WideSubscriptions::Narrow,
            WideSubscriptions::Grant,
        ][random.below(3)];
        let version = BOTH[random.below(2)];
        let mut rules = random_rules(&mut random);
        let files = Files::new(USERS, &rules);
        let broker = Broker::start(1 + random.below(3), |options, parts| {
            options.watch_interval = None;
            files.set(wide)(options, parts);
        });
        let mut alice = user(&broker, version, ALICE, "a");
        let mut bob = user(&broker, version, BOB, "b");
        let mut granted: Vec<&str> = Vec::new();
        for step in 0..80 {
            match random.below(6) {
                0 => {
                    rules = random_rules(&mut random);
                    fs::write(files.path("acl"), &rules).unwrap();
                    assert!(broker.server.reload_access(None));
                }
                1 => {
                    let filter = random.one_of(&FILTERS);
                    // No retained messages: what is delivered is what is published in this step.
                    if bob.subscribe(filter, 1) < 0x80 && !granted.contains(&filter) {
                        granted.push(filter);
                    }
                }
                2 => {
                    bob.disconnect();
                    bob = user(&broker, version, BOB, "b");
                    granted.clear();
                }
                _ => {
                    let topic = random.one_of(&TOPICS);
                    alice.publish(Publish::new(topic, step.to_string(), 1));
                    let is_due = granted.iter().any(|filter| matches(filter, topic)) && may_bob_receive(&rules, topic);
                    if is_due {
                        bob.expect_text(topic, &step.to_string());
                    }
                }
            }
            bob.send(&PINGREQ);
            let packet = bob.receive();
            assert_eq!(
                packet,
                Packet::PingResp,
                "seed {seed}, step {step}, {wide:?}, rules:\n{rules}"
            );
        }
    }
}
