//! Stories of one client, told against packets.

mod lost_connections;
mod proof;

use super::*;
use crate::codec::{DecodeOptions, Role, decode, encode};
use crate::protocol::ids::PacketId;
use crate::protocol::packet::{Ack, ConnAck, Disconnect, Packet, Publish, SubAck, SubscriptionOptions};
use crate::protocol::property::{Properties, PropertiesBuf, PropertyId};
use crate::protocol::qos::QoS;
use crate::protocol::reason::ReasonCode;
use crate::protocol::time::Time;
use crate::protocol::topic::TopicName;
use crate::protocol::version::Version;

const NOW: Time = Time(1000);

fn id(value: u16) -> PacketId {
    PacketId::new(value).unwrap()
}

fn options(version: Version) -> ClientOptions {
    ClientOptions {
        version,
        client_id: "c".to_owned(),
        ..ClientOptions::default()
    }
}

fn connack(session_present: bool, properties: &PropertiesBuf) -> Packet<'_> {
    Packet::ConnAck(ConnAck {
        session_present,
        reason: ReasonCode::Success,
        properties: properties.view(),
    })
}

fn ack(packet_id: u16) -> Ack<'static> {
    Ack {
        packet_id: id(packet_id),
        reason: ReasonCode::Success,
        properties: Properties::EMPTY,
    }
}

fn publish(qos: QoS, packet_id: u16, payload: &str) -> Packet<'_> {
    Packet::Publish(Publish {
        dup: false,
        qos,
        retain: false,
        topic: TopicName::parse("t").ok(),
        packet_id: PacketId::new(packet_id).filter(|_| qos.is_acknowledged()),
        properties: Properties::EMPTY,
        payload: payload.as_bytes(),
    })
}

fn send(client: &mut Client, packet: &Packet<'_>) {
    let mut bytes = Vec::new();
    encode(packet, client.options().version, &mut bytes).unwrap();
    assert_eq!(client.receive(&bytes, NOW), bytes.len());
}

/// The packets in the output, in words; the output is empty then.
fn written(client: &mut Client) -> Vec<String> {
    let bytes = client.output().to_vec();
    client.sent(bytes.len(), NOW);
    let version = client.options().version;
    let (mut at, mut packets) = (0, Vec::new());
    while at < bytes.len() {
        let is_connect = bytes[at] >> 4 == 1;
        let version = Some(version).filter(|_| !is_connect);
        let (packet, count) = decode(&bytes[at..], version, Role::Server, &DecodeOptions::default())
            .unwrap()
            .unwrap();
        at += count;
        packets.push(match packet {
            Packet::Publish(publish) => format!(
                "PUBLISH{} {:?} {} {}{}",
                if publish.dup { " again" } else { "" },
                publish.packet_id,
                publish.topic.map_or("-", TopicName::as_str),
                String::from_utf8_lossy(publish.payload),
                publish
                    .properties
                    .u16(PropertyId::TopicAlias)
                    .map_or_else(String::new, |alias| format!(" alias {alias}")),
            ),
            Packet::PubAck(ack) | Packet::PubRec(ack) | Packet::PubRel(ack) | Packet::PubComp(ack) => {
                let name = decode(&bytes[at - count..], version, Role::Server, &DecodeOptions::default());
                let name = name.unwrap().unwrap().0.packet_type().name();
                format!("{name} {}", ack.packet_id)
            }
            Packet::Connect(connect) => format!("CONNECT {}", connect.clean_start),
            other => other.packet_type().name().to_owned(),
        });
    }
    packets
}

fn events(client: &mut Client) -> Vec<Event> {
    std::iter::from_fn(|| client.next_event()).collect()
}

fn connected(options: ClientOptions, properties: &PropertiesBuf) -> Client {
    let mut client = Client::new(options);
    client.connect(NOW);
    written(&mut client);
    send(&mut client, &connack(false, properties));
    assert!(client.is_connected());
    events(&mut client);
    client
}

#[test]
fn every_qos_is_published_and_reported_in_every_version() {
    for version in Version::ALL {
        let mut client = connected(options(version), &PropertiesBuf::new());
        let mut requests = Vec::new();
        for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
            requests.push(client.publish(Outgoing::new("a", "x").qos(qos), NOW).unwrap());
        }
        assert_eq!(
            written(&mut client),
            ["PUBLISH None a x", "PUBLISH Some(#1) a x", "PUBLISH Some(#2) a x"]
        );
        assert_eq!(
            events(&mut client),
            [Event::Published(requests[0], Ok(ReasonCode::Success))]
        );
        send(&mut client, &Packet::PubRec(ack(2)));
        send(&mut client, &Packet::PubAck(ack(1)));
        assert_eq!(written(&mut client), ["PUBREL 2"]);
        assert!(!client.is_idle());
        send(&mut client, &Packet::PubComp(ack(2)));
        let done = |at: usize| Event::Published(requests[at], Ok(ReasonCode::Success));
        assert_eq!(events(&mut client), [done(1), done(2)]);
        assert!(client.is_idle());
    }
}

#[test]
fn messages_are_acknowledged_when_they_are_taken() {
    for version in Version::ALL {
        let mut client = connected(options(version), &PropertiesBuf::new());
        send(&mut client, &publish(QoS::AtLeastOnce, 7, "one"));
        send(&mut client, &publish(QoS::ExactlyOnce, 8, "two"));
        assert_eq!(written(&mut client), [""; 0]);
        assert!(matches!(client.next_event(), Some(Event::Message(message)) if message.payload == "one"));
        assert_eq!(written(&mut client), ["PUBACK 7"]);
        assert!(matches!(client.next_event(), Some(Event::Message(message)) if message.payload == "two"));
        assert_eq!(written(&mut client), ["PUBREC 8"]);
        // The server did not hear it and says it again.
        send(&mut client, &publish(QoS::ExactlyOnce, 8, "two"));
        assert_eq!(events(&mut client), []);
        send(&mut client, &Packet::PubRel(ack(8)));
        assert_eq!(written(&mut client), ["PUBREC 8", "PUBCOMP 8"]);
    }
}

#[test]
fn the_receive_maximum_of_the_server_is_kept_and_the_order_too() {
    let mut properties = PropertiesBuf::new();
    properties.push_u16(PropertyId::ReceiveMaximum, 2);
    let mut client = connected(options(Version::V5), &properties);
    for payload in ["1", "2", "3"] {
        client
            .publish(Outgoing::new("a", payload).qos(QoS::AtLeastOnce), NOW)
            .unwrap();
    }
    client.publish(Outgoing::new("a", "4"), NOW).unwrap();
    assert_eq!(written(&mut client), ["PUBLISH Some(#1) a 1", "PUBLISH Some(#2) a 2"]);
    send(&mut client, &Packet::PubAck(ack(1)));
    assert_eq!(written(&mut client), ["PUBLISH Some(#3) a 3", "PUBLISH None a 4"]);
}

#[test]
fn what_waits_is_bounded() {
    let mut client = Client::new(ClientOptions {
        waiting_max: 2,
        ..options(Version::V5)
    });
    for _ in 0..2 {
        client.publish(Outgoing::new("a", "x"), NOW).unwrap();
    }
    assert_eq!(client.publish(Outgoing::new("a", "x"), NOW), Err(RequestError::Full(2)));
    assert!(!client.can_publish());
    client.connect(NOW);
    assert_eq!(written(&mut client), ["CONNECT true"]);
    send(&mut client, &connack(false, &PropertiesBuf::new()));
    assert_eq!(written(&mut client), ["PUBLISH None a x", "PUBLISH None a x"]);
}

#[test]
fn limits_of_the_server_are_said_instead_of_broken() {
    let mut properties = PropertiesBuf::new();
    properties
        .push_byte(PropertyId::MaximumQoS, 1)
        .push_byte(PropertyId::RetainAvailable, 0)
        .push_u32(PropertyId::MaximumPacketSize, 20);
    let mut client = connected(options(Version::V5), &properties);
    let long = "x".repeat(20);
    for (message, error) in [
        (
            Outgoing::new("a", "x").qos(QoS::ExactlyOnce),
            RequestError::QosNotSupported(QoS::AtLeastOnce),
        ),
        (Outgoing::new("a", "x").retained(), RequestError::RetainNotSupported),
        (
            Outgoing::new("a", long.clone()),
            RequestError::TooLarge {
                bytes: 26,
                bytes_max: 20,
            },
        ),
    ] {
        let request = client.publish(message, NOW).unwrap();
        assert_eq!(events(&mut client), [Event::Published(request, Err(error))]);
    }
    let filter = [(long.as_str(), SubscriptionOptions::default())];
    assert!(client.subscribe(&filter, Properties::EMPTY, NOW).is_err());
    assert_eq!(written(&mut client), [""; 0]);
}

#[test]
fn topic_aliases_are_used_both_ways() {
    let mut theirs = PropertiesBuf::new();
    theirs.push_u16(PropertyId::TopicAliasMaximum, 5);
    let mut ours = PropertiesBuf::new();
    ours.push_u16(PropertyId::TopicAliasMaximum, 1);
    let mut client = connected(
        ClientOptions {
            properties: ours,
            ..options(Version::V5)
        },
        &theirs,
    );
    for _ in 0..2 {
        client.publish(Outgoing::new("a", "x"), NOW).unwrap();
    }
    assert_eq!(
        written(&mut client),
        ["PUBLISH None a x alias 1", "PUBLISH None - x alias 1"]
    );
    events(&mut client);
    let mut alias = PropertiesBuf::new();
    alias.push_u16(PropertyId::TopicAlias, 1);
    let with_alias = |topic| {
        Packet::Publish(Publish {
            dup: false,
            qos: QoS::AtMostOnce,
            retain: false,
            topic,
            packet_id: None,
            properties: alias.view(),
            payload: b"",
        })
    };
    send(&mut client, &with_alias(TopicName::parse("long/name").ok()));
    send(&mut client, &with_alias(None));
    for event in events(&mut client) {
        assert!(matches!(event, Event::Message(message) if message.topic == "long/name"));
    }
    alias = PropertiesBuf::new();
    alias.push_u16(PropertyId::TopicAlias, 2);
    let mut bytes = Vec::new();
    let packet = Packet::Publish(Publish {
        dup: false,
        qos: QoS::AtMostOnce,
        retain: false,
        topic: TopicName::parse("b").ok(),
        packet_id: None,
        properties: alias.view(),
        payload: b"",
    });
    encode(&packet, Version::V5, &mut bytes).unwrap();
    client.receive(&bytes, NOW);
    assert!(matches!(
        events(&mut client)[..],
        [Event::Disconnected(Fault::Protocol(_))]
    ));
    assert_eq!(written(&mut client), ["DISCONNECT"]);
}

#[test]
fn silence_is_answered_with_a_ping_and_then_with_an_end() {
    let mut properties = PropertiesBuf::new();
    properties.push_u16(PropertyId::ServerKeepAlive, 10);
    let mut client = connected(options(Version::V5), &properties);
    assert_eq!(
        client.next_deadline(),
        Some(NOW.plus_secs(10)),
        "the server's keep alive counts"
    );
    client.tick(NOW.plus_secs(9));
    assert_eq!(written(&mut client), [""; 0]);
    client.tick(NOW.plus_secs(10));
    assert_eq!(written(&mut client), ["PINGREQ"]);
    assert_eq!(client.next_deadline(), Some(NOW.plus_secs(20)));
    send(&mut client, &Packet::PingResp);
    client.tick(NOW.plus_secs(20));
    assert_eq!(written(&mut client), ["PINGREQ"]);
    client.tick(NOW.plus_secs(30));
    assert_eq!(events(&mut client), [Event::Disconnected(Fault::Timeout(10))]);
    assert!(client.is_closing());

    let mut client = Client::new(options(Version::V311));
    client.connect(NOW);
    client.tick(client.next_deadline().unwrap());
    assert_eq!(events(&mut client), [Event::Disconnected(Fault::Timeout(10))]);
}

#[test]
fn subscriptions_are_answered() {
    let mut client = connected(options(Version::V311), &PropertiesBuf::new());
    let wish = SubscriptionOptions::default();
    let request = client
        .subscribe(&[("a/#", wish), ("b", wish)], Properties::EMPTY, NOW)
        .unwrap();
    assert_eq!(written(&mut client), ["SUBSCRIBE"]);
    let reasons = vec![ReasonCode::GrantedQos1, ReasonCode::UnspecifiedError];
    let answer = Packet::SubAck(SubAck {
        packet_id: id(1),
        properties: Properties::EMPTY,
        reasons: reasons.clone(),
    });
    send(&mut client, &answer);
    assert_eq!(events(&mut client), [Event::Subscribed(request, reasons)]);
    assert!(matches!(
        client.subscribe(&[("a/#/b", wish)], Properties::EMPTY, NOW),
        Err(RequestError::Filter(..))
    ));
    client.unsubscribe(&["a/#"], Properties::EMPTY, NOW).unwrap();
    assert_eq!(written(&mut client), ["UNSUBSCRIBE"]);
    send(&mut client, &answer);
    assert!(matches!(
        events(&mut client)[..],
        [Event::Disconnected(Fault::Protocol(_))]
    ));
}

#[test]
fn refusals_and_goodbyes_are_events() {
    let mut client = Client::new(options(Version::V311));
    client.connect(NOW);
    let refusal = Packet::ConnAck(ConnAck {
        session_present: false,
        reason: ReasonCode::NotAuthorized,
        properties: Properties::EMPTY,
    });
    send(&mut client, &refusal);
    let Some(Event::Disconnected(fault)) = client.next_event() else {
        panic!("no event")
    };
    assert!(!fault.is_passing());
    assert_eq!(fault.to_string(), "connection refused by the server: not authorized");

    let mut client = connected(options(Version::V5), &PropertiesBuf::new());
    let mut properties = PropertiesBuf::new();
    properties.push_text(PropertyId::ReasonString, "back at noon");
    let goodbye = Packet::Disconnect(Disconnect {
        reason: ReasonCode::ServerShuttingDown,
        properties: properties.view(),
    });
    send(&mut client, &goodbye);
    let Some(Event::Disconnected(fault)) = client.next_event() else {
        panic!("no event")
    };
    assert!(fault.is_passing());
    assert!(fault.to_string().ends_with("server shutting down (back at noon)"));
    client.lost("reset");
    assert_eq!(events(&mut client), [], "the end is said once");
}

#[test]
fn a_session_that_is_there_is_gone_on_with_and_one_that_is_not_begins_anew() {
    for is_present in [true, false] {
        let mut properties = PropertiesBuf::new();
        properties.push_u32(PropertyId::SessionExpiryInterval, 60);
        let mut client = connected(
            ClientOptions {
                properties,
                ..options(Version::V5)
            },
            &PropertiesBuf::new(),
        );
        for payload in ["1", "2"] {
            client
                .publish(Outgoing::new("a", payload).qos(QoS::ExactlyOnce), NOW)
                .unwrap();
        }
        written(&mut client);
        send(&mut client, &Packet::PubRec(ack(1)));
        client.lost("reset");
        client.connect(NOW);
        assert_eq!(written(&mut client), ["CONNECT false"]);
        send(&mut client, &connack(is_present, &PropertiesBuf::new()));
        let again: &[&str] = if is_present {
            &["PUBREL 1", "PUBLISH again Some(#2) a 2"]
        } else {
            &["PUBLISH Some(#3) a 2"]
        };
        assert_eq!(written(&mut client), again);
    }
}
