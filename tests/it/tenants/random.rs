//! Random steps against what the full names say.

use sundew::protocol::topic::matches;
use sundew::protocol::version::Version;

use super::{client, options, with};
use crate::broker::Broker;
use crate::client::Client;
use crate::wire::{PINGREQ, PUBACK, Packet, Publish, ack};

/// Random steps of clients of three tenants with few names: whoever gets something gets what the full names say, and nothing else.
#[test]
fn nobody_gets_what_is_another_tenants_whatever_happens() {
    const NAMES: [&str; 8] = ["x", "y", "x/y", "a/x", "b/b/x", "$x", "$x/y", "a"];
    const FILTERS: [&str; 10] = [
        "#",
        "+",
        "x/#",
        "+/+",
        "$x/#",
        "a/#",
        "$share/g/#",
        "b/b/x",
        "+/x",
        "$share/g/a/+",
    ];
    for workers in [1, 4] {
        for seed in 1..=3_u64 {
            let broker = Broker::start(workers, with(&options()));
            let mut random = seed;
            let mut next = move |below: usize| {
                random = random
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                (random >> 33) as usize % below
            };
            let mut members: Vec<_> = (0..9)
                .map(|at| Member::new(&broker, ["a", "b", ""][at % 3], at / 3))
                .collect();
            for step in 0..300 {
                let at = next(members.len());
                match next(6) {
                    0 | 1 => members[at].subscribe(FILTERS[next(FILTERS.len())], (step % 2) as u8),
                    2 => members[at].unsubscribe(FILTERS[next(FILTERS.len())]),
                    _ => {
                        let message = Publish::new(NAMES[next(NAMES.len())], step.to_string(), 1 + (step % 2) as u8);
                        let full = members[at].publish(message);
                        for member in &mut members {
                            member.expect(&full, &step.to_string());
                        }
                        settle_groups(&mut members, &full, &step.to_string());
                    }
                }
            }
            for member in &mut members {
                member.client.expect_ping_answered();
            }
        }
    }
}

/// One client of the random story, and what it has asked for.
struct Member {
    mount: &'static str,
    client: Client,
    filters: Vec<&'static str>,
}

impl Member {
    fn new(broker: &Broker, tenant: &str, number: usize) -> Self {
        Self {
            mount: match tenant {
                "a" => "a/",
                "b" => "b/b/",
                _ => "",
            },
            client: client(broker, Version::V5, tenant, &number.to_string()),
            filters: Vec::new(),
        }
    }

    fn subscribe(&mut self, filter: &'static str, qos: u8) {
        self.client.subscribe(filter, qos);
        self.filters.retain(|known| *known != filter);
        self.filters.push(filter);
    }

    fn unsubscribe(&mut self, filter: &'static str) {
        let is_there = self.filters.contains(&filter);
        assert_eq!(self.client.unsubscribe(&[filter]), [if is_there { 0 } else { 0x11 }]);
        self.filters.retain(|known| *known != filter);
    }

    /// Publishes; the full name of the topic.
    fn publish(&mut self, message: Publish) -> String {
        let full = match (self.mount, message.topic.starts_with('$')) {
            ("", _) => message.topic.clone(),
            (mount, true) => format!("${mount}{}", message.topic),
            (mount, false) => format!("{mount}{}", message.topic),
        };
        self.client.publish(message);
        full
    }

    /// What it calls a topic, by the description of `src/protocol/mount.rs` and not by its code.
    fn name_of<'a>(&self, full: &'a str) -> Option<&'a str> {
        if self.mount.is_empty() {
            return Some(full);
        }
        let own = match full.strip_prefix('$') {
            Some(rest) => rest.strip_prefix(self.mount).filter(|own| own.starts_with('$')),
            None => full.strip_prefix(self.mount).filter(|own| !own.starts_with('$')),
        };
        own.filter(|own| !own.is_empty())
    }

    /// Whether it wants this topic for itself.
    fn wants(&self, full: &str) -> bool {
        let own = self.filters.iter().filter(|filter| !filter.starts_with("$share"));
        let name = self.name_of(full);
        name.is_some_and(|name| own.into_iter().any(|filter| matches(filter, name)))
    }

    fn expect(&mut self, full: &str, payload: &str) {
        if self.wants(full) {
            let name = self.name_of(full).unwrap().to_owned();
            // What a group has chosen it for may come before.
            self.client.expect_text(&name, payload);
        }
    }
}

/// Each group of each tenant has given the message to one of its members.
fn settle_groups(members: &mut [Member], full: &str, payload: &str) {
    const GROUPS: [&str; 2] = ["$share/g/#", "$share/g/a/+"];
    for mount in ["a/", "b/b/", ""] {
        let is_in = |member: &Member, group: &str| {
            let wants = |name| matches(group.trim_start_matches("$share/g/"), name);
            member.mount == mount && member.filters.contains(&group) && member.name_of(full).is_some_and(wants)
        };
        let has_member = |group: &&&str| members.iter().any(|member| is_in(member, group));
        let groups = GROUPS.iter().filter(has_member).count();
        let is_asked = |member: &&mut Member| GROUPS.iter().any(|group| is_in(member, group));
        let mut asked: Vec<_> = members.iter_mut().filter(is_asked).collect();
        let mut count = 0;
        while count < groups {
            for member in &mut asked {
                let name = member.name_of(full).unwrap().to_owned();
                count += take(&mut member.client, &name, payload);
            }
        }
        assert_eq!(count, groups, "one member of each group of {mount:?} gets {full}");
    }
}

/// Takes what comes before the answer to a PINGREQ, which is this message; how often.
fn take(client: &mut Client, name: &str, payload: &str) -> usize {
    client.send(&PINGREQ);
    for count in 0.. {
        match client.receive() {
            Packet::PingResp => return count,
            Packet::Publish(message) => {
                assert_eq!((message.topic.as_str(), message.text()), (name, payload));
                if message.qos == 1 {
                    client.send(&ack(PUBACK, message.packet_id));
                }
            }
            other => panic!("{other:?}"),
        }
    }
    unreachable!("it is answered")
}
