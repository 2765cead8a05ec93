//! A client that proves its password shows it to nobody, and believes no server that proves nothing.

use std::sync::Arc;

use super::{NOW, connack, options, send};
use crate::client::{Client, ClientOptions, ClientScram, Event, Fault};
use crate::codec::{DecodeOptions, Role, decode};
use crate::protocol::packet::{Auth, Packet};
use crate::protocol::property::{PropertiesBuf, PropertyId};
use crate::protocol::reason::ReasonCode;
use crate::protocol::version::Version;
use crate::scram::server::Exchange;
use crate::scram::{self, ClientFirst, Credential, Mechanism, NONCE_BYTES};

const METHOD: &str = "SCRAM-SHA-256";

fn random(bytes: &mut [u8]) -> bool {
    bytes.fill(7);
    true
}

fn client() -> Client {
    let mut client = Client::new(ClientOptions {
        user_name: Some("alice".to_owned()),
        password: Some(b"secret".to_vec()),
        scram: Some(ClientScram {
            mechanism: Mechanism::Sha256,
            random,
        }),
        ..options(Version::V5)
    });
    client.connect(NOW);
    client
}

/// Authentication Data of the packet in the output, which is empty then.
fn said(client: &mut Client, version: Option<Version>) -> Vec<u8> {
    let bytes = client.output().to_vec();
    client.sent(bytes.len(), NOW);
    assert!(!bytes.windows(6).any(|part| part == b"secret"), "it is shown to nobody");
    let packet = decode(&bytes, version, Role::Server, &DecodeOptions::default()).unwrap();
    let properties = match packet {
        Some((Packet::Connect(connect), _)) => connect.properties,
        Some((Packet::Auth(auth), _)) => auth.properties,
        other => panic!("{other:?}"),
    };
    assert_eq!(properties.text(PropertyId::AuthenticationMethod), Some(METHOD));
    properties.binary(PropertyId::AuthenticationData).unwrap().to_vec()
}

fn data(bytes: &[u8]) -> PropertiesBuf {
    let mut properties = PropertiesBuf::new();
    properties.push_text(PropertyId::AuthenticationMethod, METHOD);
    properties.push_binary(PropertyId::AuthenticationData, bytes);
    properties
}

fn asks(client: &mut Client, properties: &PropertiesBuf) {
    let auth = Auth {
        reason: ReasonCode::ContinueAuthentication,
        properties: properties.view(),
    };
    send(client, &Packet::Auth(auth));
}

/// The server's side, up to its last word.
fn proved(client: &mut Client) -> Box<[u8]> {
    let first = ClientFirst::parse(&said(client, None)).unwrap();
    let credential = Arc::new(Credential::new(Mechanism::Sha256, b"secret", b"saltsalt", 4096));
    let server = Exchange::begin(first, credential, true, &[1; NONCE_BYTES]);
    asks(client, &data(server.server_first()));
    server.finish(&said(client, Some(Version::V5))).unwrap()
}

fn ended(client: &mut Client) -> Fault {
    match client.next_event() {
        Some(Event::Disconnected(fault)) => fault,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_server_that_knows_the_password_is_believed_and_no_other() {
    let mut believes = client();
    let signature = proved(&mut believes);
    send(&mut believes, &connack(false, &data(&signature)));
    assert!(believes.is_connected());
    for last in [PropertiesBuf::new(), data(b""), data(b"v=AAAA")] {
        let mut doubts = client();
        proved(&mut doubts);
        send(&mut doubts, &connack(false, &last));
        assert!(matches!(ended(&mut doubts), Fault::Authentication(_)));
    }
    // One that lets everybody in without a question.
    let mut doubts = client();
    send(&mut doubts, &connack(false, &data(b"v=AAAA")));
    assert_eq!(ended(&mut doubts), Fault::Authentication(scram::Fault::Over));
    // One that asks for another client's proof, or in another method.
    let mut doubts = client();
    asks(&mut doubts, &data(b"r=other,s=c2FsdHNhbHQ=,i=4096"));
    assert_eq!(ended(&mut doubts), Fault::Authentication(scram::Fault::Nonce));
    let mut doubts = client();
    let mut other = PropertiesBuf::new();
    other.push_text(PropertyId::AuthenticationMethod, "PLAIN");
    asks(&mut doubts, &other);
    assert!(matches!(ended(&mut doubts), Fault::Protocol(_)));
}
