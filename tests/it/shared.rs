//! Shared subscriptions: one member of the group gets each message.

use std::collections::HashMap;

use crate::broker::{ALL, BOTH, Broker, V5, story, story_with};
use crate::client::Client;
use crate::wire::{self, Connect, PUBACK, PUBCOMP, PUBREC, PUBREL, Publish};
use sundew::broker::Parts;
use sundew::protocol::property::PropertyId;
use sundew::protocol::version::Version;
use sundew::router::Strategy;
use sundew::server::ServerOptions;

/// [MQTT-4.8.2-3]
#[test]
fn each_message_goes_to_one_member_at_the_qos_granted_to_it() {
    story(ALL, |broker, version| {
        let mut members = members(broker, version, &[2, 2, 2]);
        let mut outsider = broker.client("outsider", version);
        outsider.subscribe("a/#", 0);
        let mut publisher = broker.client("p", version);
        for number in 0..30 {
            publisher.publish(Publish::new("a/b", number.to_string(), number % 3));
        }
        for number in 0..30 {
            outsider.expect_text("a/b", &number.to_string());
        }
        let shares = drain(&mut members, &mut publisher);
        let mut all: Vec<_> = shares
            .iter()
            .flatten()
            .map(|message| message.text().parse::<u8>().unwrap())
            .collect();
        all.sort_unstable();
        assert_eq!(all, (0..30).collect::<Vec<_>>());
        for message in shares.iter().flatten() {
            assert_eq!(message.qos, message.text().parse::<u8>().unwrap() % 3);
        }
        assert!(
            shares.iter().all(|share| !share.is_empty()),
            "round robin: everybody gets some"
        );
    });
    story(BOTH, |broker, version| {
        let mut members = members(broker, version, &[0, 1]);
        let mut publisher = broker.client("p", version);
        for _ in 0..10 {
            publisher.publish(Publish::new("a/b", "x", 2));
        }
        let shares = drain(&mut members, &mut publisher);
        assert!(shares[0].iter().all(|message| message.qos == 0) && shares[1].iter().all(|message| message.qos == 1));
    });
}

/// Two groups and a plain subscription are three receivers.
#[test]
fn groups_do_not_know_of_each_other() {
    story(BOTH, |broker, version| {
        let mut client = broker.client("c", version);
        let mut other = broker.client("o", version);
        client.subscribe("$share/one/a", 1);
        other.subscribe("$share/two/a", 1);
        other.subscribe("$share/one/b", 1);
        let mut publisher = broker.client("p", version);
        publisher.publish(Publish::new("a", "x", 1));
        client.expect_text("a", "x");
        other.expect_text("a", "x");
        publisher.expect_nothing_sent_to(&mut client);
        publisher.expect_nothing_sent_to(&mut other);
    });
}

/// Retained messages are not sent for a shared subscription. [MQTT 5 section 4.8.2]
#[test]
fn a_shared_subscription_gets_no_retained_messages() {
    story(BOTH, |broker, version| {
        let mut publisher = broker.client("p", version);
        publisher.publish(Publish::new("a", "x", 1).retained());
        let mut client = broker.client("c", version);
        client.subscribe("$share/g/a", 1);
        publisher.expect_nothing_sent_to(&mut client);
    });
}

/// [MQTT-4.8.2-4]
#[test]
fn a_message_sent_to_a_member_is_finished_with_that_member() {
    story(V5, |broker, version| {
        let keep = Connect::lasting("one", version);
        let (mut one, _) = broker.connect(version, &keep);
        one.subscribe("$share/g/a", 2);
        let mut publisher = broker.client("p", version);
        publisher.publish(Publish::new("a", "x", 2));
        let sent = one.expect_publish();
        let mut two = broker.client("two", version);
        two.subscribe("$share/g/a", 2);
        drop(one);
        let (mut one, _) = broker.connect(version, &keep);
        assert_eq!(one.expect_publish(), sent.clone().again());
        one.send(&wire::ack(PUBREC, sent.packet_id));
        one.await_ack(PUBREL, sent.packet_id);
        one.send(&wire::ack(PUBCOMP, sent.packet_id));
        publisher.expect_nothing_sent_to(&mut two);
    });
}

/// [MQTT-4.8.2-5]
#[test]
fn a_qos_2_message_that_was_sent_dies_with_the_session() {
    story(V5, |broker, version| {
        let mut one = broker.client("one", version);
        one.subscribe("$share/g/a", 2);
        let mut publisher = broker.client("p", version);
        publisher.publish(Publish::new("a", "x", 2));
        one.expect_publish();
        let mut two = broker.client("two", version);
        two.subscribe("$share/g/a", 2);
        one.disconnect();
        publisher.expect_nothing_sent_to(&mut two);
        publisher.publish(Publish::new("a", "y", 2));
        two.expect_text("a", "y");
    });
}

/// QoS 1, and QoS 2 that has not been sent, go to another member when the session ends.
#[test]
fn what_a_member_leaves_behind_goes_to_another() {
    story(V5, |broker, version| {
        let connect = Connect {
            client_id: "one",
            ..Connect::default()
        }
        .with(|p| p.push_u16(PropertyId::ReceiveMaximum, 1));
        let (mut one, _) = broker.connect(version, &connect);
        one.subscribe("$share/g/a", 2);
        let mut publisher = broker.client("p", version);
        publisher.publish(Publish::new("a", "sent, not acknowledged", 1));
        publisher.publish(Publish::new("a", "waiting 1", 1));
        publisher.publish(Publish::new("a", "waiting 2", 2));
        one.expect_publish();
        let mut two = broker.client("two", version);
        two.subscribe("$share/g/a", 2);
        one.disconnect();
        let mut seen: Vec<_> = (0..3).map(|_| two.expect_message().text().to_owned()).collect();
        seen.sort();
        assert_eq!(seen, ["sent, not acknowledged", "waiting 1", "waiting 2"]);
        publisher.expect_nothing_sent_to(&mut two);
    });
}

/// By option, QoS 1 of a member goes to another one as soon as it is away, not only when its session ends.
#[test]
fn by_option_what_a_member_has_not_acknowledged_moves_when_it_disconnects() {
    let set = |options: &mut ServerOptions, _: &mut Parts| options.broker.redistribute_on_disconnect = true;
    story_with(set, V5, |broker, version| {
        let connect = Connect::lasting("one", version).with(|p| p.push_u16(PropertyId::ReceiveMaximum, 1));
        let (mut one, _) = broker.connect(version, &connect);
        one.subscribe("$share/g/a", 1);
        let mut publisher = broker.client("p", version);
        for payload in ["in flight", "waiting 1", "waiting 2"] {
            publisher.publish(Publish::new("a", payload, 1));
        }
        assert_eq!(one.expect_publish().text(), "in flight");
        let mut two = broker.client("two", version);
        two.subscribe("$share/g/a", 1);
        one.disconnect();
        let mut seen: Vec<_> = (0..3).map(|_| two.expect_message().text().to_owned()).collect();
        seen.sort();
        assert_eq!(seen, ["in flight", "waiting 1", "waiting 2"]);
        let (mut one, session_present) = broker.connect(version, &Connect::lasting("one", version));
        assert!(session_present);
        publisher.expect_nothing_sent_to(&mut one);
    });
}

/// [MQTT-4.8.2-6]
#[test]
fn a_message_that_a_member_refuses_is_given_to_nobody_else() {
    story(V5, |broker, version| {
        let mut members = members(broker, version, &[1, 1]);
        let mut publisher = broker.client("p", version);
        for _ in 0..2 {
            publisher.publish(Publish::new("a/b", "x", 1));
        }
        for member in &mut members {
            let message = member.expect_publish();
            member.send(&wire::ack_with(PUBACK, message.packet_id, 0x80));
            member.expect_ping_answered();
        }
        assert!(drain(&mut members, &mut publisher).iter().all(Vec::is_empty));
    });
}

/// A member that is away does not get what another can have now; when all are away the messages wait.
#[test]
fn members_that_are_connected_are_preferred() {
    story(BOTH, |broker, version| {
        let keep = Connect::lasting("away", version);
        let (mut away, _) = broker.connect(version, &keep);
        away.subscribe("$share/g/a/#", 1);
        let mut here = broker.client("here", version);
        here.subscribe("$share/g/a/#", 1);
        away.disconnect();
        let mut publisher = broker.client("p", version);
        for number in 0..6 {
            publisher.publish(Publish::new("a/b", number.to_string(), 1));
            here.expect_text("a/b", &number.to_string());
        }
        here.disconnect();
        publisher.publish(Publish::new("a/b", "waits", 1));
        let (mut away, _) = broker.connect(version, &keep);
        away.expect_text("a/b", "waits");
        publisher.expect_nothing_sent_to(&mut away);
    });
}

/// Strategies: who is chosen.
#[test]
fn strategies_choose_as_they_say() {
    for (strategy, check) in [
        (Strategy::ByTopic, same_topic_same_member as fn(&[Vec<Publish>])),
        (Strategy::Sticky, one_member_gets_all),
        (Strategy::ByClient, one_member_gets_all),
        (Strategy::Random, everybody_gets_some),
        (Strategy::RoundRobin, everybody_gets_some),
        (Strategy::LeastInFlight, everybody_gets_some),
    ] {
        story_with(
            |options, _| options.broker.shared.default = strategy,
            V5,
            |broker, version| {
                let mut members = members(broker, version, &[1, 1, 1]);
                let mut publisher = broker.client("p", version);
                for number in 0..60 {
                    publisher.publish(Publish::new(&format!("a/{}", number % 6), "x", 1));
                }
                let shares = drain(&mut members, &mut publisher);
                assert_eq!(shares.iter().map(Vec::len).sum::<usize>(), 60, "{strategy:?}");
                check(&shares);
            },
        );
    }
}

fn same_topic_same_member(shares: &[Vec<Publish>]) {
    let mut members = HashMap::new();
    for (member, share) in shares.iter().enumerate() {
        for message in share {
            assert_eq!(
                *members.entry(message.topic.clone()).or_insert(member),
                member,
                "{}",
                message.topic
            );
        }
    }
}

fn one_member_gets_all(shares: &[Vec<Publish>]) {
    assert_eq!(shares.iter().filter(|share| !share.is_empty()).count(), 1);
}

fn everybody_gets_some(shares: &[Vec<Publish>]) {
    assert!(shares.iter().all(|share| !share.is_empty()));
}

/// Members of one group, with the QoS of each.
fn members(broker: &Broker, version: Version, qos: &[u8]) -> Vec<Client> {
    let member = |(number, qos): (usize, &u8)| {
        let mut client = broker.client(&format!("member {number}"), version);
        client.subscribe("$share/g/a/#", *qos);
        client
    };
    qos.iter().enumerate().map(member).collect()
}

/// What each member got, up to a message that all of them get last.
fn drain(members: &mut [Client], publisher: &mut Client) -> Vec<Vec<Publish>> {
    for member in members.iter_mut() {
        member.subscribe("fence", 0);
    }
    publisher.publish(Publish::new("fence", "", 0));
    let share = |member: &mut Client| {
        let mut share = Vec::new();
        loop {
            let message = member.expect_message();
            if message.topic == "fence" {
                return share;
            }
            share.push(message);
        }
    };
    members.iter_mut().map(share).collect()
}
