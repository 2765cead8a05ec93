//! JSON Web Tokens in the place of passwords: who enters, what he may do, and when he has to go.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};
use serde_json::{Value, json};
use sundew::backends::access::{AccessOptions, ListenerAccess, LiveAccess};
use sundew::backends::hashing::HashingOptions;
use sundew::backends::token::{TokenOptions, now_ms};
use sundew::backends::ways::{KeysFrom, TokenIssuer};
use sundew::broker::Parts;
use sundew::protocol::version::Version;
use sundew::server::ServerOptions;

use crate::broker::{BOTH, Broker, V5, story_with};
use crate::client::Client;
use crate::wire::{Connect, Publish};

/// Whoever makes tokens: its private key, and a file with its public one.
struct Issuer(KeyPair);

impl Issuer {
    fn new() -> Self {
        Self(KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap())
    }

    fn write(&self, file: &Path) {
        fs::write(file, self.0.public_key_pem()).unwrap();
    }

    fn token(&self, claims: &Value) -> String {
        let key = EncodingKey::from_ec_pem(self.0.serialize_pem().as_bytes()).unwrap();
        encode(&Header::new(Algorithm::ES256), claims, &key).unwrap()
    }
}

/// Seconds since 1970.
fn seconds(from_now: i64) -> i64 {
    now_ms() as i64 / 1000 + from_now
}

fn listening(file: PathBuf, set: impl Fn(&mut TokenOptions)) -> impl Fn(&mut ServerOptions, &mut Parts) {
    let mut options = TokenOptions {
        leeway_ms: 0,
        ..TokenOptions::default()
    };
    set(&mut options);
    move |server, _| {
        let access = AccessOptions {
            listeners: vec![ListenerAccess {
                name: "tcp".into(),
                allows_anonymous: true,
                ..ListenerAccess::default()
            }],
            tokens: vec![TokenIssuer {
                listeners: Vec::new(),
                options: options.clone(),
                keys: KeysFrom::PublicKeys(file.clone()),
            }],
            ..AccessOptions::default()
        };
        server.access = Some(Arc::new(LiveAccess::start(access, &HashingOptions::default()).unwrap()));
        server.watch_interval = Some(Duration::from_millis(20));
    }
}

/// With a user name that says nothing: clients before MQTT 5 need one to have a password.
fn with_token<'a>(token: &'a str, client_id: &'a str) -> Connect<'a> {
    Connect {
        client_id,
        user_name: Some("token"),
        password: Some(token.as_bytes()),
        ..Connect::default()
    }
}

fn try_token(broker: &Broker, version: Version, token: &str) -> (Client, u8) {
    let mut client = broker.open(version);
    let code = client.try_connect(&with_token(token, "c")).1;
    (client, code)
}

#[test]
fn who_has_a_token_enters_with_its_rights_and_nobody_else() {
    let folder = tempfile::tempdir().unwrap();
    let (issuer, other) = (Issuer::new(), Issuer::new());
    let file = folder.path().join("key.pem");
    issuer.write(&file);
    let set = listening(file, |options| options.acl_claim = Some("acl".into()));
    story_with(set, BOTH, |broker, version| {
        let acl = json!({"pub": ["from/%u/#"], "sub": ["to/%u/#"]});
        let claims = json!({"sub": "alice", "exp": seconds(3600), "acl": acl});
        let (mut alice, code) = try_token(broker, version, &issuer.token(&claims));
        assert_eq!(code, 0);
        let refused = if version.has_properties() { 0x87 } else { 0x80 };
        assert_eq!(
            (alice.subscribe("to/alice/#", 1), alice.subscribe("to/bob/#", 1)),
            (1, refused)
        );
        let mut watcher = broker.client("watcher", version); // anonymous, with no rules of its own
        watcher.subscribe("from/#", 1);
        alice.publish(Publish::new("from/bob/x", "denied", 0));
        alice.publish(Publish::new("from/alice/x", "allowed", 0));
        watcher.expect_text("from/alice/x", "allowed");

        let wrong = if version.has_properties() { 0x86 } else { 5 };
        let mut late = claims.clone();
        late["exp"] = json!(seconds(-1));
        for token in [
            issuer.token(&late),
            other.token(&claims),
            "secret".into(),
            "eyJ.eyJ.".into(),
        ] {
            let (mut client, code) = try_token(broker, version, &token);
            assert_eq!(code, wrong, "{token}");
            client.expect_closed();
        }
    });
}

/// What a client was let in for ends: so does its connection, though it is idle, and though it talks.
#[test]
fn when_a_token_ends_its_client_is_disconnected() {
    let folder = tempfile::tempdir().unwrap();
    let issuer = Issuer::new();
    let file = folder.path().join("key.pem");
    issuer.write(&file);
    story_with(listening(file, |_| {}), BOTH, |broker, version| {
        let began = Instant::now();
        let token = issuer.token(&json!({"sub": "alice", "exp": now_ms() as f64 / 1000.0 + 1.0}));
        let (mut alice, code) = try_token(broker, version, &token);
        assert_eq!(code, 0);
        alice.expect_ping_answered();
        if version.has_properties() {
            alice.expect_disconnect(0xA0);
        }
        alice.expect_closed();
        let after = began.elapsed();
        assert!(
            (Duration::from_millis(990)..Duration::from_secs(5)).contains(&after),
            "{after:?}"
        );
        let wrong = if version.has_properties() { 0x86 } else { 5 };
        assert_eq!(try_token(broker, version, &token).1, wrong);
    });
}

#[test]
fn who_came_with_a_key_that_is_gone_goes_and_the_new_key_counts() {
    let folder = tempfile::tempdir().unwrap();
    let (old, new) = (Issuer::new(), Issuer::new());
    let file = folder.path().join("key.pem");
    story_with(
        |options, parts| {
            old.write(&file);
            listening(file.clone(), |_| {})(options, parts);
        },
        V5,
        |broker, version| {
            let claims = json!({"sub": "alice", "exp": seconds(3600)});
            let (mut alice, code) = try_token(broker, version, &old.token(&claims));
            assert_eq!(code, 0);
            new.write(&file);
            alice.expect_disconnect(0x87);
            assert_eq!(try_token(broker, version, &old.token(&claims)).1, 0x86);
            assert_eq!(try_token(broker, version, &new.token(&claims)).1, 0);
        },
    );
}

/// A token may be the user name; then it is in no log, and the name is that of its claim.
#[test]
fn a_token_as_user_name_is_taken_where_that_is_wanted() {
    let folder = tempfile::tempdir().unwrap();
    let issuer = Issuer::new();
    let file = folder.path().join("key.pem");
    issuer.write(&file);
    let set = listening(file, |options| {
        options.is_user_name = true;
        options.client_id_claim = Some("client".into());
    });
    story_with(set, BOTH, |broker, version| {
        let token = issuer.token(&json!({"sub": "alice", "client": "c1", "exp": seconds(3600)}));
        for (client_id, expected) in [("c1", 0), ("c2", if version.has_properties() { 0x87 } else { 5 })] {
            let connect = Connect {
                client_id,
                user_name: Some(&token),
                ..Connect::default()
            };
            assert_eq!(broker.open(version).try_connect(&connect).1, expected, "{client_id}");
        }
    });
}
