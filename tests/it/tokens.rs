//! JSON Web Tokens in the place of passwords: who enters, what he may do, and when he has to go.

use std::cell::RefCell;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};
use serde_json::{Value, json};
use sundew::backends::access::{AccessOptions, ListenerAccess, LiveAccess};
use sundew::backends::hashing::HashingOptions;
use sundew::backends::http::client::ClientOptions;
use sundew::backends::jwks::JwksOptions;
use sundew::backends::token::{TokenOptions, now_ms};
use sundew::backends::ways::{KeysFrom, TokenIssuer};
use sundew::broker::Parts;
use sundew::protocol::property::{PropertiesBuf, PropertyId};
use sundew::protocol::version::Version;
use sundew::server::ServerOptions;

use crate::backend::Backend;
use crate::broker::{BOTH, Broker, V5, story_with};
use crate::client::Client;
use crate::wire::{Connect, Packet, Publish, auth};

/// Whoever makes tokens: its private key, and a file with its public one.
struct Issuer(KeyPair);

impl Issuer {
    fn new() -> Self {
        Self(KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap())
    }

    fn write(&self, file: &Path) {
        fs::write(file, self.0.public_key_pem()).unwrap();
    }

    /// Its public key as a set (RFC 7517), with a name.
    fn jwks(&self, id: &str) -> String {
        let point = self.0.public_key_raw();
        let (x, y) = (BASE64.encode(&point[1..33]), BASE64.encode(&point[33..]));
        json!({"keys": [{"kty": "EC", "crv": "P-256", "kid": id, "x": x, "y": y}]}).to_string()
    }

    fn token_of(&self, id: &str, claims: &Value) -> String {
        let key = EncodingKey::from_ec_pem(self.0.serialize_pem().as_bytes()).unwrap();
        let mut header = Header::new(Algorithm::ES256);
        header.kid = Some(id.into());
        encode(&header, claims, &key).unwrap()
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
    listening_for(KeysFrom::PublicKeys(file), set)
}

fn listening_for(keys: KeysFrom, set: impl Fn(&mut TokenOptions)) -> impl Fn(&mut ServerOptions, &mut Parts) {
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
                takes_tokens_again: true,
                ..ListenerAccess::default()
            }],
            tokens: vec![TokenIssuer {
                listeners: Vec::new(),
                options: options.clone(),
                keys: keys.clone(),
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

fn fetched(url: String) -> KeysFrom {
    KeysFrom::Url(JwksOptions {
        url,
        client: ClientOptions {
            ca_file: None,
            timeout: Duration::from_millis(500),
            connections_max: 1,
            answer_bytes_max: 4096,
        },
        refresh: Duration::from_secs(3600),
        pause: Duration::ZERO,
        keep: Duration::from_secs(3600),
    })
}

/// A token with a key that is not known has the keys fetched; who came with the old one, which is withdrawn, goes.
#[test]
fn a_key_that_its_issuer_has_rotated_is_picked_up() {
    let (old, new) = (Issuer::new(), Issuer::new());
    let (first, second) = (old.jwks("old"), new.jwks("new"));
    story_with(
        |options, parts| {
            let set = Arc::new(Mutex::new((200, first.clone())));
            let theirs = Arc::clone(&set);
            let backend = Backend::start(move |_| Some(theirs.lock().unwrap().clone()));
            listening_for(fetched(backend.url("/jwks.json")), |_| {})(options, parts);
            BACKEND.with_borrow_mut(|kept| *kept = Some((backend, set)));
        },
        V5,
        |broker, version| {
            let (backend, set) = BACKEND.take().unwrap();
            let claims = json!({"sub": "alice", "exp": seconds(3600)});
            let (mut alice, code) = try_token(broker, version, &old.token_of("old", &claims));
            assert_eq!(code, 0);
            assert_eq!(try_token(broker, version, &new.token_of("new", &claims)).1, 0x86);
            let asked = backend.requests();
            assert!(
                (2..=3).contains(&asked.len()),
                "at the start, for one that is not known: {asked:?}"
            );
            assert!(
                asked
                    .iter()
                    .all(|request| request.method == "GET" && request.path == "/jwks.json")
            );
            // What the address says is wrong for a while: nothing changes.
            for wrong in [
                (500, second.clone()),
                (302, second.clone()),
                (200, "x".repeat(5000)),
                (200, "{}".into()),
            ] {
                *set.lock().unwrap() = wrong;
                assert_eq!(try_token(broker, version, &new.token_of("new", &claims)).1, 0x86);
            }
            assert_eq!(try_token(broker, version, &old.token_of("old", &claims)).1, 0);
            alice.expect_disconnect(0x8E); // the same client id
            let (mut alice, _) = try_token(broker, version, &old.token_of("old", &claims));
            *set.lock().unwrap() = (200, second.clone());
            let mut other = broker.open(version);
            let token = new.token_of("new", &claims);
            assert_eq!(other.try_connect(&with_token(&token, "other")).1, 0);
            alice.expect_disconnect(0x87);
            assert_eq!(try_token(broker, version, &old.token_of("old", &claims)).1, 0x86);
            other.expect_ping_answered();
        },
    );
}

/// A server of keys, and what it says.
type Changing = (Backend, Arc<Mutex<(u16, String)>>);

thread_local! {
    static BACKEND: RefCell<Option<Changing>> = const { RefCell::new(None) };
}

/// Before there are any keys nobody can say that a token is wrong: its client is told to come later.
#[test]
fn while_no_keys_can_be_fetched_clients_are_told_to_come_later() {
    let dead = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let keys = fetched(format!("http://{dead}/jwks.json"));
    story_with(listening_for(keys, |_| {}), BOTH, |broker, version| {
        let token = Issuer::new().token(&json!({"sub": "alice", "exp": seconds(3600)}));
        let later = if version.has_properties() { 0x88 } else { 3 };
        assert_eq!(try_token(broker, version, &token).1, later);
    });
}

/// A token as the data of CONNECT or AUTH.
fn shown(token: &str) -> PropertiesBuf {
    let mut properties = PropertiesBuf::new();
    properties.push_text(PropertyId::AuthenticationMethod, "OAUTH2-JWT");
    properties.push_binary(PropertyId::AuthenticationData, token.as_bytes());
    properties
}

fn show(broker: &Broker, token: &str, client_id: &str) -> (Client, u8) {
    let mut client = broker.open(Version::V5);
    let connect = Connect {
        client_id,
        properties: shown(token),
        ..Connect::default()
    };
    let code = client.try_connect(&connect).1;
    (client, code)
}

fn expect_auth(client: &mut Client) {
    let Packet::Auth { reason: 0, properties } = client.receive() else {
        panic!("AUTH with success")
    };
    let properties = properties.view();
    assert_eq!(properties.text(PropertyId::AuthenticationMethod), Some("OAUTH2-JWT"));
    assert_eq!(properties.binary(PropertyId::AuthenticationData), None);
}

/// [MQTT-4.12.1-1] Its rights and its end are those of the new token.
#[test]
fn a_client_that_sends_a_new_token_in_time_stays() {
    let folder = tempfile::tempdir().unwrap();
    let issuer = Issuer::new();
    let file = folder.path().join("key.pem");
    issuer.write(&file);
    let set = listening(file, |options| options.acl_claim = Some("acl".into()));
    story_with(set, V5, |broker, version| {
        let began = Instant::now();
        let token = |milliseconds: u64, acl: &str| {
            let exp = (now_ms() + milliseconds) as f64 / 1000.0;
            issuer.token(&json!({"sub": "alice", "exp": exp, "acl": {"all": [acl]}}))
        };
        let (mut alice, code) = show(broker, &token(1500, "first/#"), "c");
        assert_eq!(code, 0);
        assert_eq!(
            (alice.subscribe("first/#", 1), alice.subscribe("second/#", 1)),
            (1, 0x87)
        );
        let (mut bob, code) = show(broker, &token(1500, "first/#"), "bob");
        assert_eq!(code, 0);
        alice.send(&auth(0x19, &shown(&token(3000, "second/#"))));
        expect_auth(&mut alice);
        assert_eq!(
            (alice.subscribe("first/#", 1), alice.subscribe("second/#", 1)),
            (0x87, 1)
        );
        // What it may not receive any more it does not, though it has subscribed to it before.
        let mut house = broker.client("house", version);
        house.publish(Publish::new("first/x", "", 1));
        house.publish(Publish::new("second/x", "", 1));
        assert_eq!(alice.expect_message().topic, "second/x");
        bob.expect_disconnect(0xA0);
        alice.expect_ping_answered();
        alice.expect_disconnect(0xA0);
        let after = began.elapsed();
        assert!(
            (Duration::from_millis(2990)..Duration::from_secs(6)).contains(&after),
            "{after:?}"
        );
    });
}

/// [MQTT-4.12.1-2]
#[test]
fn a_new_token_that_is_not_good_or_somebody_elses_disconnects() {
    let folder = tempfile::tempdir().unwrap();
    let (issuer, other) = (Issuer::new(), Issuer::new());
    let file = folder.path().join("key.pem");
    issuer.write(&file);
    story_with(listening(file, |_| {}), V5, |broker, _| {
        let claims = |user: &str, from_now: i64| json!({"sub": user, "exp": seconds(from_now)});
        let good = issuer.token(&claims("alice", 3600));
        let wrong = [
            issuer.token(&claims("alice", -1)),
            issuer.token(&claims("bob", 3600)),
            other.token(&claims("alice", 3600)),
            "secret".into(),
            String::new(),
        ];
        for token in &wrong {
            let (mut alice, code) = show(broker, &good, "c");
            assert_eq!(code, 0);
            alice.send(&auth(0x19, &shown(token)));
            alice.expect_disconnect(0x87);
        }
        for token in &wrong[2..] {
            assert_eq!(show(broker, token, "c").1, 0x86, "{token}");
        }
        // Nothing is asked for, so nothing is to go on with; and who named no method may not begin.
        let (mut alice, _) = show(broker, &good, "c");
        alice.send(&auth(0x18, &shown(&good)));
        alice.expect_disconnect(0x82);
        let (mut alice, _) = try_token(broker, Version::V5, &good);
        alice.send(&auth(0x19, &shown(&good)));
        alice.expect_disconnect(0x82);
    });
}

/// Where there are no tokens, or it is taken away, the method is not offered.
#[test]
fn where_no_tokens_are_taken_the_method_is_not_offered() {
    story_with(|_, _| {}, V5, |broker, _| assert_eq!(show(broker, "x", "c").1, 0x8C));
}
