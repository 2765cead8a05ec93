//! What only MQTT 5 has: topic aliases, response topics, the maximum packet size.

use sundew::protocol::property::{PropertiesBuf, PropertyId};

use super::{client, of, options, three, with};
use crate::broker::{V5, story_with};
use crate::wire::{Connect, Packet, Publish, Will, subscribe};

/// [MQTT-3.3.2-12]
#[test]
fn topic_aliases_mean_what_they_mean_without_a_tenant() {
    story_with(with(&options()), V5, |broker, version| {
        let taking = |tenant| {
            let connect = of(tenant, "taking");
            connect.with(|properties| properties.push_u16(PropertyId::TopicAliasMaximum, 5))
        };
        let mut clients = ["a", "b", ""].map(|tenant| broker.connect(version, &taking(tenant)).0);
        for client in &mut clients {
            client.subscribe("#", 1);
        }
        let mut publisher = client(broker, version, "a", "publisher");
        let aliased =
            |topic| Publish::new(topic, "text", 1).with(|properties| properties.push_u16(PropertyId::TopicAlias, 1));
        publisher.publish(aliased("long/name"));
        publisher.publish(aliased(""));
        for (at, name) in [(0, "long/name"), (2, "a/long/name")] {
            let first = clients[at].expect_message();
            let alias = first.properties.view().u16(PropertyId::TopicAlias);
            assert!(first.topic == name && alias.is_some(), "{first:?}");
            let second = clients[at].expect_message();
            assert_eq!(
                (
                    second.topic.as_str(),
                    second.properties.view().u16(PropertyId::TopicAlias)
                ),
                ("", alias)
            );
        }
        clients[1].expect_ping_answered();
    });
}

fn response_topic(message: &Publish) -> Option<&str> {
    message.properties.view().text(PropertyId::ResponseTopic)
}

/// [MQTT-3.3.2-14]
#[test]
fn who_is_asked_answers_where_he_is_told() {
    story_with(with(&options()), V5, |broker, version| {
        let asking = |topic: &str, reply: &str| {
            Publish::new(topic, "?", 1).with(|properties| {
                properties
                    .push_text(PropertyId::ResponseTopic, reply)
                    .push_binary(PropertyId::CorrelationData, b"7")
            })
        };
        let [mut a, mut b, mut house] = three(broker, version);
        let mut service = client(broker, version, "a", "service");
        service.subscribe("service", 1);
        house.subscribe("a/service", 1);
        a.subscribe("reply/#", 1);
        b.subscribe("#", 1);
        a.publish(asking("service", "reply/1"));
        // One of the tenant, and one of none.
        for (server, from) in [(&mut service, "tenant"), (&mut house, "house")] {
            let question = server.expect_message();
            let reply = response_topic(&question).unwrap().to_owned();
            assert_eq!(
                question.properties.view().binary(PropertyId::CorrelationData),
                Some(&b"7"[..])
            );
            server.publish(Publish::new(&reply, from, 1));
            a.expect_text("reply/1", from);
        }
        // From outside: only what its clients can answer to.
        house.publish(asking("a/service", "a/reply/2"));
        assert_eq!(response_topic(&service.expect_message()), Some("reply/2"));
        house.publish(asking("a/service", "b/b/reply"));
        assert_eq!(response_topic(&service.expect_message()), None);
        // A will has one, too.
        let mut dying = of("a", "dying");
        let mut properties = PropertiesBuf::new();
        properties.push_text(PropertyId::ResponseTopic, "reply/3");
        dying.will = Some(Will {
            topic: "service",
            payload: b"will",
            properties,
            ..Will::default()
        });
        drop(broker.connect(version, &dying).0);
        assert_eq!(response_topic(&service.expect_message()), Some("reply/3"));
        let seen = house.receive();
        let Packet::Publish(seen) = seen else {
            panic!("{seen:?}")
        };
        // Its own two come first.
        let last = [seen].into_iter().chain((0..2).map(|_| house.expect_message())).last();
        assert_eq!(last.as_ref().and_then(response_topic), Some("a/reply/3"));
        b.expect_ping_answered();
    });
}

/// [MQTT-3.1.2-24] and what is announced is of what the client sees.
#[test]
fn a_packet_is_as_long_as_its_client_sees_it() {
    story_with(with(&options()), V5, |broker, version| {
        let exact = |tenant, topic: &str| {
            let length = Publish::new(topic, "payload", 1).encode(version).len() as u32;
            let connect = Connect {
                user_name: of(tenant, "").user_name,
                ..Connect::lasting("narrow", version)
            };
            connect.with(|properties| properties.push_u32(PropertyId::MaximumPacketSize, length))
        };
        let mut a = broker.connect(version, &exact("a", "topic/of/a")).0;
        a.subscribe("#", 1);
        let mut publisher = client(broker, version, "a", "publisher");
        publisher.publish(Publish::new("topic/of/a1", "payload", 1));
        publisher.publish(Publish::new("topic/of/a", "payload", 1));
        a.expect_text("topic/of/a", "payload");
        a.disconnect();
        publisher.publish(Publish::new("topic/of/a1", "payload", 1));
        publisher.publish(Publish::new("topic/of/a", "payload", 1));
        let mut again = exact("a", "topic/of/a");
        again.clean = false;
        let (mut a, is_present) = broker.connect(version, &again);
        assert!(is_present);
        a.expect_text("topic/of/a", "payload");
        a.expect_ping_answered();
    });
}

/// [MQTT-4.7.3-3]
#[test]
fn a_topic_that_is_too_long_in_front_of_which_the_mount_point_stands_is_refused() {
    story_with(with(&options()), V5, |broker, version| {
        let long = "x".repeat(65_535);
        let mut a = client(broker, version, "a", "c");
        a.send(&Publish::new(&long, "", 1).encode(version));
        a.expect_disconnect(0x90);
        let mut a = client(broker, version, "a", "c");
        a.send(&subscribe(version, 1, &PropertiesBuf::new(), &[(&long, 1)]));
        a.expect_disconnect(0x90);
        let dying = Connect {
            will: Some(Will {
                topic: &long,
                ..Will::default()
            }),
            ..of("a", "c")
        };
        assert_eq!(broker.open(version).try_connect(&dying).1, 0x90);
        let mut a = client(broker, version, "a", "c");
        a.publish(Publish::new(&long[2..], "", 1));
        a.expect_ping_answered();
    });
}
