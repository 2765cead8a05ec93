//! SCRAM by enhanced authentication, on real sockets: who proves his password is in, and, connected, proves it again while messages flow.

use std::fs;
use std::sync::Arc;

use sundew::auth::acl_file::AclFile;
use sundew::backends::access::{AccessOptions, ListenerAccess, LiveAccess};
use sundew::backends::hashing::{HashingOptions, random};
use sundew::broker::Parts;
use sundew::client::{ClientOptions, ClientScram, Fault};
use sundew::protocol::property::{PropertiesBuf, PropertyId};
use sundew::protocol::version::Version;
use sundew::scram::client::Exchange;
use sundew::scram::{Credential, Mechanism};
use sundew::server::ServerOptions;
use sundew::transport::client_driver::{ClientDriver, ClientError, Dialer};
use sundew::transport::client_stream::{ConnectOptions, Endpoint};

use crate::broker::{Broker, V5, story_with};
use crate::client::Client;
use crate::wire::{self, Connect, Packet, Publish};

fn line(name: &str, password: &str) -> String {
    let entries = Mechanism::ALL.map(|mechanism| {
        let salt = format!("salt of {name}");
        Credential::new(mechanism, password.as_bytes(), salt.as_bytes(), 4096).to_string()
    });
    format!("{name}:{}\n", entries.join(" "))
}

/// Alice and bob may enter; what is said of alice is that she may publish and read `a/#`.
fn users(options: &mut ServerOptions, _: &mut Parts) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("users");
    fs::write(&file, line("alice", "secret") + &line("bob", "other")).unwrap();
    let listener = ListenerAccess {
        name: "tcp".into(),
        password_file: Some(file),
        scram: Mechanism::ALL.to_vec(),
        ..ListenerAccess::default()
    };
    let access = AccessOptions {
        listeners: vec![listener],
        rules: AclFile::parse("acl", "user alice\ntopic a/#\n").unwrap().rules,
        ..AccessOptions::default()
    };
    options.access = Some(Arc::new(LiveAccess::start(access, &HashingOptions::default()).unwrap()));
}

fn data(method: &str, data: &[u8]) -> PropertiesBuf {
    let mut properties = PropertiesBuf::new();
    properties.push_text(PropertyId::AuthenticationMethod, method);
    properties.push_binary(PropertyId::AuthenticationData, data);
    properties
}

fn begin(mechanism: Mechanism, (name, password): (&str, &str)) -> (Exchange, PropertiesBuf) {
    let mut nonce = [0; 18];
    assert!(random(&mut nonce));
    let exchange = Exchange::begin(mechanism, name, password.as_bytes(), &nonce).unwrap();
    let first = data(mechanism.name(), &exchange.first());
    (exchange, first)
}

/// Answers what the broker asks in AUTH.
fn prove(client: &mut Client, exchange: &mut Exchange, method: &str) {
    let Packet::Auth {
        reason: 0x18,
        properties,
    } = client.receive()
    else {
        panic!("AUTH that goes on")
    };
    assert_eq!(properties.view().text(PropertyId::AuthenticationMethod), Some(method));
    let asked = properties
        .view()
        .binary(PropertyId::AuthenticationData)
        .unwrap()
        .to_vec();
    client.send(&wire::auth(0x18, &data(method, &exchange.prove(&asked).unwrap())));
}

fn connect(broker: &Broker, client_id: &str, mechanism: Mechanism, who: (&str, &str)) -> (Client, u8) {
    let mut client = broker.open(Version::V5);
    let (mut exchange, properties) = begin(mechanism, who);
    client.send(
        &Connect {
            client_id,
            properties,
            ..Connect::default()
        }
        .encode(Version::V5),
    );
    prove(&mut client, &mut exchange, mechanism.name());
    let (_, reason, properties) = client.expect_connack();
    if reason == 0 {
        let properties = properties.view();
        assert_eq!(
            properties.text(PropertyId::AuthenticationMethod),
            Some(mechanism.name())
        );
        exchange
            .verify(properties.binary(PropertyId::AuthenticationData).unwrap())
            .unwrap();
    }
    (client, reason)
}

const ALICE: (&str, &str) = ("alice", "secret");

/// [MQTT-4.12.0-2] [MQTT-4.12.0-5]
#[test]
fn a_password_is_proved_and_never_sent() {
    story_with(users, V5, |broker, _| {
        for mechanism in Mechanism::ALL {
            let (mut client, reason) = connect(broker, "c", mechanism, ALICE);
            assert_eq!(reason, 0);
            assert_eq!(client.subscribe("a/b", 1), 1);
            assert_eq!(client.subscribe("b", 1), 0x87, "she is alice to the rules");
            client.publish(Publish::new("a/b", "proved", 1));
            client.expect_text("a/b", "proved");
            for who in [("alice", "wrong"), ("nobody", "secret"), ("bob", "secret")] {
                let (mut client, reason) = connect(broker, "d", mechanism, who);
                assert_eq!(reason, 0x86, "{who:?}");
                client.expect_closed();
            }
        }
        // Neither is there a password to be shown.
        let mut client = broker.open(Version::V5);
        let shown = Connect {
            user_name: Some("alice"),
            password: Some(b"secret"),
            ..Connect::default()
        };
        assert_eq!(client.try_connect(&shown).1, 0x86);
    });
}

/// [MQTT-4.12.1-2]
#[test]
fn it_is_proved_again_while_messages_flow() {
    const METHOD: &str = "SCRAM-SHA-256";
    story_with(users, V5, |broker, _| {
        let mechanism = Mechanism::Sha256;
        let (mut client, _) = connect(broker, "c", mechanism, ALICE);
        client.subscribe("a/#", 1);
        let (mut exchange, first) = begin(mechanism, ALICE);
        client.publish(Publish::new("a/1", "before", 1));
        client.expect_text("a/1", "before");
        client.send(&wire::auth(0x19, &first));
        client.send(&Publish::new("a/2", "meanwhile", 0).encode(Version::V5));
        prove(&mut client, &mut exchange, METHOD);
        client.expect_text("a/2", "meanwhile");
        let Packet::Auth { reason: 0, properties } = client.receive() else {
            panic!("AUTH with success")
        };
        exchange
            .verify(properties.view().binary(PropertyId::AuthenticationData).unwrap())
            .unwrap();
        client.publish(Publish::new("a/3", "after", 1));
        client.expect_text("a/3", "after");
    });
}

/// [MQTT-4.12.1-1] [MQTT-4.12.1-2]
#[test]
fn who_proves_something_else_the_second_time_goes() {
    const METHOD: &str = "SCRAM-SHA-256";
    story_with(users, V5, |broker, _| {
        let mechanism = Mechanism::Sha256;
        let again = |who, is_refused_at_once: bool| {
            let (mut client, _) = connect(broker, "c", mechanism, ALICE);
            let (mut exchange, first) = begin(mechanism, who);
            client.send(&wire::auth(0x19, &first));
            if !is_refused_at_once {
                prove(&mut client, &mut exchange, METHOD);
            }
            client.expect_disconnect(0x87);
        };
        again(("alice", "wrong"), false);
        again(("bob", "other"), true);
        again(("nobody", "x"), true);
        // By another method; a second time before the first is done; with what was not asked for; a message that was heard before.
        let (mut client, _) = connect(broker, "c", mechanism, ALICE);
        client.send(&wire::auth(0x19, &begin(Mechanism::Sha512, ALICE).1));
        client.expect_disconnect(0x82);
        let (mut client, _) = connect(broker, "c", mechanism, ALICE);
        client.send(&wire::auth(0x19, &begin(mechanism, ALICE).1));
        client.send(&wire::auth(0x19, &begin(mechanism, ALICE).1));
        let Packet::Auth { reason: 0x18, .. } = client.receive() else {
            panic!("AUTH")
        };
        client.expect_disconnect(0x82);
        let (mut client, _) = connect(broker, "c", mechanism, ALICE);
        client.send(&wire::auth(0x18, &begin(mechanism, ALICE).1));
        client.expect_disconnect(0x82);
        let (mut client, _) = connect(broker, "c", mechanism, ALICE);
        let (mut exchange, first) = begin(mechanism, ALICE);
        client.send(&wire::auth(0x19, &first));
        let Packet::Auth { properties, .. } = client.receive() else {
            panic!("AUTH")
        };
        let asked = properties
            .view()
            .binary(PropertyId::AuthenticationData)
            .unwrap()
            .to_vec();
        let proof = wire::auth(0x18, &data(METHOD, &exchange.prove(&asked).unwrap()));
        client.send(&proof);
        let Packet::Auth { reason: 0, .. } = client.receive() else {
            panic!("AUTH with success")
        };
        client.send(&wire::auth(0x19, &first));
        let Packet::Auth { reason: 0x18, .. } = client.receive() else {
            panic!("AUTH")
        };
        client.send(&proof);
        client.expect_disconnect(0x87);
    });
}

/// [MQTT-4.12.0-4]
#[test]
fn what_cannot_be_read_ends_it() {
    story_with(users, V5, |broker, _| {
        for first in [
            &b""[..],
            b"\xFF",
            b"n,,n=alice",
            &[b'x'; 60_000],
            b"p=tls-exporter,,n=alice,r=x",
        ] {
            let mut client = broker.open(Version::V5);
            let connect = Connect {
                properties: data("SCRAM-SHA-256", first),
                ..Connect::default()
            };
            assert_eq!(client.try_connect(&connect).1, 0x86);
            client.expect_closed();
        }
        // Another name in CONNECT than in the exchange.
        let mut client = broker.open(Version::V5);
        let connect = Connect {
            user_name: Some("bob"),
            properties: begin(Mechanism::Sha256, ALICE).1,
            ..Connect::default()
        };
        assert_eq!(client.try_connect(&connect).1, 0x86);
    });
}

#[test]
fn our_client_proves_it() {
    story_with(users, V5, |broker, _| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let driver = |password: &str| {
            let options = ClientOptions {
                user_name: Some("alice".into()),
                password: Some(password.into()),
                scram: Some(ClientScram {
                    mechanism: Mechanism::Sha512,
                    random,
                }),
                ..ClientOptions::default()
            };
            let endpoint = Endpoint::Tcp {
                host: "127.0.0.1".into(),
                port: broker.port,
            };
            ClientDriver::new(Dialer::network(ConnectOptions::new(endpoint)), options, None)
        };
        runtime.block_on(async {
            driver("secret").connected().await.unwrap();
            let refused = driver("Secret").connected().await;
            assert!(
                matches!(refused, Err(ClientError::Fault(Fault::Refused(..)))),
                "{refused:?}"
            );
        });
    });
}
