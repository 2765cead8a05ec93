//! Who may enter and what he may do: enhanced authentication (AUTH) with a mechanism made for these tests, an authoriser that
//! refuses, and both when they answer late.

use std::cell::RefCell;
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use sundew::auth::{Access, Answer, AuthStep, Authenticator, Authorizer, Identity, Refusal, Verdict};
use sundew::broker::mail::Outcome;
use sundew::broker::{self, Mail, Parts};
use sundew::protocol::ids::Token;
use sundew::protocol::property::{PropertiesBuf, PropertyId};
use sundew::protocol::qos::QoS;
use sundew::protocol::reason::ReasonCode;
use sundew::protocol::topic::{TopicFilter, TopicName};
use sundew::session::peer::Peer;
use sundew::session::request::ConnectRequest;

use crate::broker::{ALL, BOTH, Broker, V5, story, story_with};
use crate::client::PATIENCE;
use crate::wire::{self, Connect, PUBACK, PUBREC, Packet, Publish};

/// [MQTT-4.12.0-1] [MQTT-3.1.4-2]
#[test]
fn an_unknown_authentication_method_is_refused() {
    story(V5, |broker, version| {
        for method in ["SCRAM-SHA-256", "", "K8S-SAT"] {
            let mut client = broker.open(version);
            let connect = Connect::default().with(|p| p.push_text(PropertyId::AuthenticationMethod, method));
            let (session_present, reason, _) = client.try_connect(&connect);
            assert_eq!((session_present, reason), (false, 0x8C), "{method}");
            client.expect_closed();
        }
    });
}

/// [MQTT-4.12.0-6]
#[test]
fn without_a_method_there_is_no_auth() {
    story(V5, |broker, version| {
        let mut client = broker.open(version);
        let (_, reason, properties) = client.try_connect(&Connect::default());
        assert_eq!(
            (reason, properties.view().text(PropertyId::AuthenticationMethod)),
            (0, None)
        );
        client.send(&wire::auth(0x19, &PropertiesBuf::new()));
        client.expect_disconnect_of(&[0x81, 0x82, 0x8C]);
        let mut client = broker.client("c", version);
        client.send(&wire::auth(0x19, &challenge(Some("yes"))));
        client.expect_disconnect_of(&[0x82, 0x8C]);
    });
}

/// [MQTT-4.12.0-2] [MQTT-4.12.0-5] [MQTT-3.15.2-1] [MQTT-3.1.4-6]
#[test]
fn a_challenge_is_answered_before_the_connack() {
    story_with(gate, V5, |broker, version| {
        let mut client = broker.open(version);
        client.send(
            &Connect {
                properties: challenge(None),
                ..Connect::default()
            }
            .encode(version),
        );
        let Packet::Auth {
            reason: 0x18,
            properties,
        } = client.receive()
        else {
            panic!("AUTH")
        };
        assert_eq!(
            properties.view().text(PropertyId::AuthenticationMethod),
            Some("CHALLENGE")
        );
        assert_eq!(
            properties.view().binary(PropertyId::AuthenticationData),
            Some(&b"who?"[..])
        );
        client.send(&wire::auth(0x18, &challenge(Some("yes"))));
        let (_, reason, properties) = client.expect_connack();
        assert_eq!(
            (reason, properties.view().text(PropertyId::AuthenticationMethod)),
            (0, Some("CHALLENGE"))
        );
        client.expect_ping_answered();
        // And again while it is connected; other packets flow meanwhile.
        client.send(&wire::auth(0x19, &challenge(None)));
        let Packet::Auth { reason: 0x18, .. } = client.receive() else {
            panic!("AUTH")
        };
        client.expect_ping_answered();
        client.send(&wire::auth(0x18, &challenge(Some("yes"))));
        let Packet::Auth { reason: 0, properties } = client.receive() else {
            panic!("AUTH with success")
        };
        assert_eq!(
            properties.view().text(PropertyId::AuthenticationMethod),
            Some("CHALLENGE")
        );
    });
}

/// [MQTT-4.12.0-4] [MQTT-4.12.1-2]
#[test]
fn a_wrong_answer_ends_the_connection() {
    story_with(gate, V5, |broker, version| {
        let begin = || {
            let mut client = broker.open(version);
            client.send(
                &Connect {
                    properties: challenge(None),
                    ..Connect::default()
                }
                .encode(version),
            );
            let Packet::Auth { .. } = client.receive() else {
                panic!("AUTH")
            };
            client
        };
        let mut client = begin();
        client.send(&wire::auth(0x18, &challenge(Some("no"))));
        assert_eq!(client.expect_connack().1, 0x87);
        client.expect_closed();
        // Nothing but AUTH and DISCONNECT may come before the CONNACK.
        let mut client = begin();
        client.send(&Publish::new("a", "x", 0).encode(version));
        let rest = client.receive_to_end();
        assert!(rest.is_empty() || (rest[0] == 0x20 && rest[3] >= 0x80), "{rest:02x?}");
        let mut client = begin();
        client.send(&wire::auth(0x18, &challenge(Some("yes"))));
        assert_eq!(client.expect_connack().1, 0);
        client.send(&wire::auth(0x19, &challenge(None)));
        let Packet::Auth { .. } = client.receive() else {
            panic!("AUTH")
        };
        client.send(&wire::auth(0x18, &challenge(Some("no"))));
        client.expect_disconnect(0x87);
        let mut client = begin();
        let mut other = PropertiesBuf::new();
        other.push_text(PropertyId::AuthenticationMethod, "OTHER");
        client.send(&wire::auth(0x18, &other));
        let rest = client.receive_to_end();
        assert!(rest.is_empty() || (rest[0] == 0x20 && rest[3] >= 0x80), "{rest:02x?}");
    });
}

/// [MQTT311-3.3.5-2] [MQTT-3.4.2-1]
#[test]
fn what_is_not_allowed_is_refused_and_not_delivered() {
    story_with(gate, BOTH, |broker, version| {
        let mut client = broker.client("c", version);
        let refused = if version.has_properties() { 0x87 } else { 0x80 };
        assert_eq!(
            client.subscribe_many(&PropertiesBuf::new(), &[("#", 0), ("secret/a", 1), ("b", 1)]),
            [0, refused, 1]
        );
        for qos in [0, 1, 2] {
            let reason = client.try_publish(Publish::new("secret/a", "x", qos));
            assert_eq!(reason, if qos > 0 && version.has_properties() { 0x87 } else { 0 });
        }
        client.publish(Publish::new("b", "allowed", 1));
        client.expect_text("b", "allowed");
        client.expect_ping_answered();
    });
}

/// [MQTT-3.1.4-2] [MQTT311-3.2.2-5] [MQTT311-3.2.2-4]
#[test]
fn a_client_that_may_not_enter_is_told_so() {
    story_with(gate, BOTH, |broker, version| {
        let mut client = broker.open(version);
        let answer = client.try_connect(&Connect {
            user_name: Some("nobody"),
            ..Connect::default()
        });
        assert_eq!(
            (answer.0, answer.1),
            (false, if version.has_properties() { 0x86 } else { 4 })
        );
        client.expect_closed();
    });
}

/// Acknowledgements keep the order of the messages when one of them has to wait for the authoriser; nothing overtakes.
/// [MQTT-4.6.0-2] [MQTT-4.6.0-3] [MQTT311-4.6.0-2] [MQTT311-4.6.0-3]
#[test]
fn acknowledgements_wait_behind_one_that_is_late() {
    story_with(gate, BOTH, |broker, version| {
        listen(broker);
        let mut subscriber = broker.client("s", version);
        subscriber.subscribe("#", 0);
        let mut client = broker.client("c", version);
        let mut packets = Vec::new();
        for (id, (topic, qos)) in [("late/a", 1), ("b", 1), ("late/c", 2), ("d", 2), ("e", 1)]
            .into_iter()
            .enumerate()
        {
            packets.extend(Publish::new(topic, "x", qos).id(id as u16 + 1).encode(version));
        }
        client.send(&packets);
        for (id, kind) in [PUBACK, PUBACK, PUBREC, PUBREC, PUBACK].into_iter().enumerate() {
            client.await_ack(kind, id as u16 + 1);
        }
        for topic in ["late/a", "b", "late/c", "d", "e"] {
            subscriber.expect_text(topic, "x");
        }
        assert_eq!(
            client.subscribe_many(&PropertiesBuf::new(), &[("a", 1), ("late/b", 2), ("c", 0)]),
            [1, 2, 0]
        );
    });
}

/// An authenticator that asks elsewhere.
#[test]
fn a_client_waits_for_an_authenticator_that_is_late() {
    story_with(gate, BOTH, |broker, version| {
        listen(broker);
        let mut client = broker.open(version);
        let connect = Connect {
            user_name: Some("late"),
            ..Connect::default()
        };
        let mut bytes = connect.encode(version);
        bytes.extend(Publish::new("a", "sent before the CONNACK", 1).encode(version));
        client.send(&bytes);
        assert_eq!(client.expect_connack().1, 0);
        client.await_ack(PUBACK, 1);
        // One that has gone meanwhile harms nobody.
        let mut gone = broker.open(version);
        gone.send(&connect.encode(version));
        drop(gone);
        client.expect_ping_answered();
    });
}

/// While it waits for the authenticator, which takes its time.
#[test]
fn a_client_that_goes_before_it_is_answered_gives_its_place_back_at_once() {
    let set = |options: &mut sundew::server::ServerOptions, parts: &mut Parts| {
        gate(options, parts);
        options.listeners[0].0.connections_per_address_max = Some(1);
        options.listeners[0].0.connect_timeout = PATIENCE; // nothing else closes it
    };
    story_with(set, ALL, |broker, version| {
        let connect = Connect {
            user_name: Some("never answered"),
            ..Connect::default()
        };
        let mut gone = broker.open(version);
        gone.send(&connect.encode(version));
        std::thread::sleep(Duration::from_millis(50)); // it is being asked about
        drop(gone);
        let begin = Instant::now();
        loop {
            let mut client = broker.open(version);
            client.send_lossy(&Connect::default().encode(version));
            if client.receive_unless_closed().is_some() {
                break;
            }
            assert!(begin.elapsed() < PATIENCE / 2, "its place stays taken");
        }
    });
}

/// It said all it had to say.
#[test]
fn what_a_client_sent_counts_though_it_has_gone_before_it_was_answered() {
    story_with(gate, BOTH, |broker, version| {
        listen(broker);
        let mut subscriber = broker.client("subscriber", version);
        subscriber.subscribe("a", 0);
        let connect = Connect {
            user_name: Some("late"),
            ..Connect::default()
        };
        let mut bytes = connect.encode(version);
        bytes.extend(Publish::new("a", "the last word", 0).encode(version));
        let mut client = broker.open(version);
        client.send(&bytes);
        drop(client);
        subscriber.expect_text("a", "the last word");
    });
}

/// Method CHALLENGE, with an answer.
fn challenge(answer: Option<&str>) -> PropertiesBuf {
    let mut properties = PropertiesBuf::new();
    properties.push_text(PropertyId::AuthenticationMethod, "CHALLENGE");
    if let Some(answer) = answer {
        properties.push_binary(PropertyId::AuthenticationData, answer.as_bytes());
    }
    properties
}

fn gate(_: &mut sundew::server::ServerOptions, parts: &mut Parts) {
    let gate = Arc::new(Gate::default());
    GATE.set(Some(Arc::clone(&gate)));
    parts.authenticator = Arc::clone(&gate) as Arc<dyn Authenticator>;
    parts.authorizer = gate;
}

/// Where late answers are sent to.
fn listen(broker: &Broker) {
    let gate = GATE.take().expect("the story uses `gate`");
    gate.broker
        .set(Arc::downgrade(broker.server.broker()))
        .expect("once a story");
}

thread_local! {
    /// The gate of the story that this thread tells.
    static GATE: RefCell<Option<Arc<Gate>>> = const { RefCell::new(None) };
}

/// Lets everyone in but `nobody`; refuses `secret/…`; answers late to user `late` and for topics `late/…`.
#[derive(Default)]
struct Gate {
    broker: OnceLock<Weak<broker::Broker>>,
}

impl Gate {
    fn answer_later(&self, token: Token, outcome: Outcome) {
        let broker = self.broker.get().expect("listen() first").clone();
        std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(30));
            if let Some(broker) = broker.upgrade() {
                broker
                    .mailboxes
                    .send(token.worker, &mut vec![Mail::Complete(token, outcome)]);
            }
        });
    }

    fn may(&self, topic: &str, token: Token) -> Answer<bool> {
        if topic.starts_with("late/") {
            self.answer_later(token, Outcome::Allowed(true));
            return Answer::Pending;
        }
        Answer::Ready(!topic.starts_with("secret/"))
    }
}

impl Authenticator for Gate {
    fn connect(&self, request: &ConnectRequest, _: &Peer, token: Token) -> Answer<Verdict> {
        let admit = Verdict::Admit(Identity {
            user_name: request.user_name.clone(),
            ..Identity::default()
        });
        match request.user_name.as_deref() {
            Some("nobody") => Answer::Ready(Verdict::Refuse(Refusal {
                reason: ReasonCode::BadUserNameOrPassword,
                why: "unknown_user",
            })),
            Some("never answered") => Answer::Pending,
            Some("late") => {
                self.answer_later(token, Outcome::Verdict(admit));
                Answer::Pending
            }
            _ => Answer::Ready(admit),
        }
    }

    fn knows_method(&self, method: &str, _: &Peer) -> bool {
        method == "CHALLENGE"
    }

    fn continue_with(&self, step: &mut AuthStep<'_>, _: Token) -> Answer<Verdict> {
        Answer::Ready(match step.data {
            None => Verdict::Continue(b"who?"[..].into()),
            Some(b"yes") => Verdict::Admit(Identity::default()),
            Some(_) => Verdict::Refuse(Refusal {
                reason: ReasonCode::NotAuthorized,
                why: "wrong_answer",
            }),
        })
    }
}

impl Authorizer for Gate {
    fn publish(&self, _: &Access<'_>, topic: TopicName<'_>, _: QoS, _: bool, token: Token) -> Answer<bool> {
        self.may(topic.as_str(), token)
    }

    fn subscribe(&self, _: &Access<'_>, filter: TopicFilter<'_>, token: Token) -> Answer<bool> {
        self.may(filter.as_str(), token)
    }
}
