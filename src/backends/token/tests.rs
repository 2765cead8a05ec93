use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use foldhash::fast::FixedState;
use jsonwebtoken::{EncodingKey, Header};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PKCS_RSA_SHA256, RsaKeySize};
use serde_json::json;

use super::*;
use crate::auth::Access;
use crate::auth::rules::{Rules, Scope, WideSubscriptions};
use crate::protocol::qos::QoS;
use crate::session::peer::tests::peer;

/// In the middle of 2026, milliseconds since 1970.
const NOW: u64 = 1_782_000_000_000;
const SECRET: &str = "a secret of more than thirty-two bytes";

fn seconds(from_now: i64) -> i64 {
    (NOW / 1000) as i64 + from_now
}

/// Claims that are good for an hour.
fn good() -> Value {
    json!({"sub": "alice", "iss": "https://login.example", "aud": "mqtt", "exp": seconds(3600)})
}

fn with(name: &str, value: Value) -> Value {
    let mut claims = good();
    claims[name] = value;
    claims
}

fn without(name: &str) -> Value {
    let mut claims = good();
    claims.as_object_mut().unwrap().remove(name);
    claims
}

fn options() -> TokenOptions {
    TokenOptions {
        issuer: Some("https://login.example".into()),
        audiences: vec!["mqtt".into(), "home".into()],
        ..TokenOptions::default()
    }
}

fn issuers_of(options: TokenOptions, keys: Keys) -> Issuers {
    Issuers::new(vec![Arc::new(Issuer::new(
        options,
        KeySource::Fixed(Arc::new(keys)),
        &FixedState::default(),
    ))])
}

fn secret() -> Keys {
    Keys::from_secret(SECRET, false, &FixedState::default()).unwrap()
}

fn signed(algorithm: Algorithm, key: &EncodingKey, id: Option<&str>, claims: &Value) -> String {
    let mut header = Header::new(algorithm);
    header.kid = id.map(Into::into);
    jsonwebtoken::encode(&header, claims, key).unwrap()
}

fn by_secret(claims: &Value) -> String {
    signed(
        Algorithm::HS256,
        &EncodingKey::from_secret(SECRET.as_bytes()),
        None,
        claims,
    )
}

/// A token of these two, with a signature of whatever is said.
fn written(header: &Value, claims: &Value, signature: &str) -> String {
    format!(
        "{}.{}.{signature}",
        BASE64.encode(header.to_string()),
        BASE64.encode(claims.to_string())
    )
}

fn fault(issuers: &Issuers, token: &str) -> TokenFault {
    issuers
        .check(token, "c", NOW)
        .map(|(identity, _)| identity)
        .unwrap_err()
}

#[test]
fn a_token_that_is_good_is_whom_it_names_until_it_ends() {
    let issuers = issuers_of(options(), secret());
    let (identity, _) = issuers.check(&by_secret(&good()), "c", NOW).unwrap();
    assert_eq!(identity.user_name.as_deref(), Some("alice"));
    assert_eq!(identity.lifetime_ms, Some(3_605_000), "with the leeway");
    assert!(!identity.is_believed && identity.stamp != Some(0));
    let (identity, _) = issuers
        .check(&by_secret(&with("aud", json!(["web", "home"]))), "c", NOW)
        .unwrap();
    assert_eq!(identity.grants.unwrap().rules, None);
}

#[test]
fn what_is_wrong_with_a_token_is_said_in_one_word() {
    let issuers = issuers_of(options(), secret());
    let table = [
        (with("exp", json!(seconds(-6))), TokenFault::Expired),
        (with("exp", json!(-1)), TokenFault::Expired),
        (with("exp", json!("tomorrow")), TokenFault::Moment("exp")),
        (without("exp"), TokenFault::NoExpiry),
        (with("nbf", json!(seconds(6))), TokenFault::NotYetValid),
        (with("iss", json!("https://other.example")), TokenFault::Issuer),
        (without("iss"), TokenFault::Issuer),
        (with("aud", json!("web")), TokenFault::Audience),
        (with("aud", json!(["web"])), TokenFault::Audience),
        (without("aud"), TokenFault::Audience),
        (without("sub"), TokenFault::NoUser),
        (with("sub", json!("")), TokenFault::NoUser),
        (with("sub", json!("al\0ice")), TokenFault::NoUser),
        (with("sub", json!({"name": "alice"})), TokenFault::NoUser),
    ];
    for (claims, expected) in table {
        assert_eq!(fault(&issuers, &by_secret(&claims)), expected, "{claims}");
    }
    for claims in [
        with("exp", json!(seconds(-4))),
        with("exp", json!(seconds(1) as f64 + 0.5)),
        with("nbf", json!(seconds(4))),
    ] {
        assert!(issuers.check(&by_secret(&claims), "c", NOW).is_ok(), "{claims}");
    }
}

#[test]
fn nothing_but_a_token_in_its_compact_form_is_taken() {
    let issuers = issuers_of(options(), secret());
    let token = by_secret(&good());
    let [header, payload, signature]: [&str; 3] = token.split('.').collect::<Vec<_>>().try_into().unwrap();
    let critical = json!({"alg": "HS256", "crit": ["exp"], "exp": 1});
    for broken in [
        "",
        "..",
        "eyJ.eyJ.eyJ",
        &format!("{header}.{payload}"),
        &format!("{header}.{payload}.{signature}.x"),
        &format!("{header}=.{payload}.{signature}"),
        &format!("{payload}.{payload}.{signature}"),
        &format!("{}.{payload}.{signature}", BASE64.encode("[]")),
        &written(&critical, &good(), signature),
        &written(&json!({"alg": "HS256", "kid": 7}), &good(), signature),
    ] {
        assert_eq!(fault(&issuers, broken), TokenFault::Malformed, "{broken}");
    }
    let long = by_secret(&with("x", json!("x".repeat(8192))));
    assert_eq!(fault(&issuers, &long), TokenFault::TooLarge);
}

/// RFC 8725 sections 2.1, 3.1 and 3.2.
#[test]
fn none_a_wrong_signature_and_a_key_that_is_taken_for_another_kind_are_refused() {
    let issuers = issuers_of(options(), secret());
    for algorithm in ["none", "None", "nOnE", "HS1", "ES512", ""] {
        let token = written(&json!({"alg": algorithm}), &good(), "");
        assert_eq!(fault(&issuers, &token), TokenFault::Algorithm, "{algorithm}");
    }
    let token = by_secret(&good());
    let (message, signature) = token.rsplit_once('.').unwrap();
    let other = by_secret(&with("sub", json!("root")));
    for wrong in ["", "AAAA", "!", &signature[1..], other.rsplit_once('.').unwrap().1] {
        assert_eq!(
            fault(&issuers, &format!("{message}.{wrong}")),
            TokenFault::Signature,
            "{wrong}"
        );
    }
    // The public key, which everybody has, as a secret for HMAC.
    let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let pem = pair.public_key_pem();
    let of_key = issuers_of(options(), Keys::from_pem(&pem, &FixedState::default()).unwrap());
    for secret in [pem.as_bytes(), pem.trim().as_bytes()] {
        let token = signed(Algorithm::HS256, &EncodingKey::from_secret(secret), None, &good());
        assert_eq!(fault(&of_key, &token), TokenFault::Algorithm);
    }
    // And a secret is no public key.
    let token = signed(
        Algorithm::ES256,
        &EncodingKey::from_ec_pem(pair.serialize_pem().as_bytes()).unwrap(),
        None,
        &good(),
    );
    assert_eq!(fault(&issuers, &token), TokenFault::Algorithm);
    assert!(of_key.check(&token, "c", NOW).is_ok());
}

#[test]
fn every_kind_of_key_checks_what_it_has_signed_and_nothing_else() {
    let rsa = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap();
    let [p256, p384, edwards] = [&PKCS_ECDSA_P256_SHA256, &PKCS_ECDSA_P384_SHA384, &PKCS_ED25519]
        .map(|kind| KeyPair::generate_for(kind).unwrap());
    let private = |pair: &KeyPair| pair.serialize_pem().into_bytes();
    let signers = [
        (&rsa, EncodingKey::from_rsa_pem(&private(&rsa)).unwrap()),
        (&p256, EncodingKey::from_ec_pem(&private(&p256)).unwrap()),
        (&p384, EncodingKey::from_ec_pem(&private(&p384)).unwrap()),
        (&edwards, EncodingKey::from_ed_pem(&private(&edwards)).unwrap()),
    ];
    let of_rsa = [
        Algorithm::RS256,
        Algorithm::RS384,
        Algorithm::RS512,
        Algorithm::PS256,
        Algorithm::PS384,
        Algorithm::PS512,
    ];
    let by: [(usize, &[Algorithm]); 4] = [
        (0, &of_rsa),
        (1, &[Algorithm::ES256]),
        (2, &[Algorithm::ES384]),
        (3, &[Algorithm::EdDSA]),
    ];
    let all: String = signers.iter().map(|(pair, _)| pair.public_key_pem()).collect();
    let all = issuers_of(options(), Keys::from_pem(&all, &FixedState::default()).unwrap());
    for (number, algorithms) in by {
        let (pair, key) = &signers[number];
        let own = issuers_of(
            options(),
            Keys::from_pem(&pair.public_key_pem(), &FixedState::default()).unwrap(),
        );
        let (other, _) = &signers[(number + 1) % 4];
        let other = issuers_of(
            options(),
            Keys::from_pem(&other.public_key_pem(), &FixedState::default()).unwrap(),
        );
        for algorithm in algorithms {
            let token = signed(*algorithm, key, None, &good());
            assert!(own.check(&token, "c", NOW).is_ok(), "{algorithm:?}");
            assert!(all.check(&token, "c", NOW).is_ok(), "{algorithm:?} among others");
            assert_eq!(fault(&other, &token), TokenFault::Algorithm, "{algorithm:?}");
        }
    }
}

/// RFC 7517, appendix A.1 and A.3, and RFC 8037, appendix A.2.
#[test]
fn a_set_of_keys_is_read_and_the_key_that_a_token_names_is_the_one() {
    let octets = BASE64.encode(SECRET);
    let set = json!({"keys": [
        {"kty": "EC", "crv": "P-256", "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4",
         "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM", "use": "sig", "kid": "1"},
        {"kty": "EC", "crv": "P-256", "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4",
         "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM", "use": "enc", "kid": "for encryption"},
        {"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo", "kid": "2"},
        {"kty": "RSA", "n": BASE64.encode([0xFF; 128]), "e": "AQAB", "kid": "too short"},
        {"kty": "new", "kid": "unknown"},
        {"kty": "oct", "k": octets, "kid": "3", "alg": "HS256"},
        {"kty": "oct", "k": octets, "kid": "4", "key_ops": ["sign"]},
    ]});
    let read = |has_secrets| Keys::from_jwks(&set.to_string(), has_secrets, &FixedState::default()).unwrap();
    let ids = |keys: &Keys| {
        keys.list()
            .iter()
            .map(|key| key.id.clone().unwrap())
            .collect::<Vec<_>>()
    };
    assert_eq!(ids(&read(true)), ["1".into(), "2".into(), "3".into()]);
    assert_eq!(
        ids(&read(false)),
        ["1".into(), "2".into()],
        "everybody may read an address"
    );
    assert_eq!(
        read(true).warnings,
        ["4 of 7 keys are none that tokens can be checked with here"]
    );
    let issuers = issuers_of(options(), read(true));
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    assert!(
        issuers
            .check(&signed(Algorithm::HS256, &key, Some("3"), &good()), "c", NOW)
            .is_ok()
    );
    assert!(
        issuers
            .check(&signed(Algorithm::HS256, &key, None, &good()), "c", NOW)
            .is_ok()
    );
    for (algorithm, id, expected) in [
        (Algorithm::HS256, "5", TokenFault::UnknownKey),
        (Algorithm::HS256, "1", TokenFault::Algorithm),
        (Algorithm::HS512, "3", TokenFault::Algorithm),
    ] {
        assert_eq!(fault(&issuers, &signed(algorithm, &key, Some(id), &good())), expected);
    }
    assert_eq!(
        fault(&issuers_of(options(), Keys::default()), &by_secret(&good())),
        TokenFault::NoKeys
    );
    for wrong in ["", "[]", "{}", r#"{"keys": [7, {}]}"#] {
        assert!(Keys::from_jwks(wrong, true, &FixedState::default()).is_err(), "{wrong}");
    }
    let withdrawn = Keys::from_jwks(r#"{"keys": []}"#, false, &FixedState::default()).unwrap();
    assert!(withdrawn.list().is_empty() && withdrawn.warnings.len() == 1);
}

#[test]
fn files_that_are_no_keys_say_what_to_do() {
    let seed = FixedState::default();
    let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    for (text, hint) in [
        (String::new(), "BEGIN PUBLIC KEY"),
        (pair.serialize_pem(), "openssl pkey -in KEY -pubout"),
        (pair.public_key_pem().replace('M', "A"), "cannot be read"),
        (
            pair.public_key_pem().replace("PUBLIC KEY", "CERTIFICATE"),
            "openssl x509",
        ),
    ] {
        let problem = Keys::from_pem(&text, &seed).unwrap_err();
        assert!(problem.contains(hint), "{problem}");
    }
    assert!(
        Keys::from_secret("secret\n", false, &seed)
            .unwrap_err()
            .contains("6 bytes")
    );
    assert!(
        Keys::from_secret("not base64!!", true, &seed)
            .unwrap_err()
            .contains("secret_base64")
    );
    assert_eq!(
        Keys::from_secret("sixteen bytes are\n", false, &seed)
            .unwrap()
            .warnings
            .len(),
        1
    );
}

#[test]
fn several_issuers_have_their_own_keys_and_terms() {
    let seed = FixedState::default();
    let issuer = |name: Option<&str>, secret: &str| {
        let options = TokenOptions {
            issuer: name.map(Into::into),
            ..TokenOptions::default()
        };
        Arc::new(Issuer::new(
            options,
            KeySource::Fixed(Arc::new(Keys::from_secret(secret, false, &seed).unwrap())),
            &seed,
        ))
    };
    let second = "another secret of more than thirty-two bytes";
    let issuers = Issuers::new(vec![
        issuer(Some("https://login.example"), SECRET),
        issuer(None, second),
    ]);
    let by_second = |claims: &Value| {
        signed(
            Algorithm::HS256,
            &EncodingKey::from_secret(second.as_bytes()),
            None,
            claims,
        )
    };
    assert!(issuers.check(&by_secret(&good()), "c", NOW).is_ok());
    assert!(issuers.check(&by_second(&without("iss")), "c", NOW).is_ok());
    assert_eq!(
        fault(&issuers, &by_second(&good())),
        TokenFault::Signature,
        "it says it is from the first"
    );
}

#[test]
fn who_came_with_a_key_stands_as_long_as_the_key_and_its_terms() {
    let stands = |options, keys, stamp| {
        let way = TokenWay::new(
            Arc::new(issuers_of(options, keys)),
            Arc::new(Pool::new("t", 1, 1, &Default::default())),
        );
        way.stands(stamp)
    };
    let (identity, _) = issuers_of(options(), secret())
        .check(&by_secret(&good()), "c", NOW)
        .map(|(identity, _)| (identity, ()))
        .unwrap();
    let stamp = identity.stamp.unwrap();
    let other = Keys::from_secret(
        "another secret of more than thirty-two bytes",
        false,
        &FixedState::default(),
    )
    .unwrap();
    let moved = TokenOptions {
        place: "another line".into(),
        ..options()
    };
    assert!(stands(moved, secret(), stamp));
    assert!(!stands(options(), other, stamp));
    assert!(
        !stands(TokenOptions::default(), secret(), stamp),
        "what is wanted is something else"
    );
    assert!(!stands(options(), secret(), 0), "nobody who was let in without a token");
}

#[test]
fn a_claim_may_say_which_client_it_is_for() {
    let wanted = TokenOptions {
        client_id_claim: Some("device.id".into()),
        ..options()
    };
    let issuers = issuers_of(wanted, secret());
    let token = by_secret(&with("device", json!({"id": "sensor-7"})));
    assert!(issuers.check(&token, "sensor-7", NOW).is_ok());
    assert_eq!(fault(&issuers, &token), TokenFault::ClientId);
    assert_eq!(fault(&issuers, &by_secret(&good())), TokenFault::ClientId);
    let empty = issuers.check(&by_secret(&with("device", json!({"id": ""}))), "", NOW);
    assert_eq!(empty.map(|(identity, _)| identity).unwrap_err(), TokenFault::ClientId);
}

#[test]
fn a_claim_may_say_whose_client_it_is() {
    let wanted = TokenOptions {
        tenant_claim: Some("org.name".into()),
        ..options()
    };
    let issuers = issuers_of(wanted, secret());
    let tenant = |claims: &Value| {
        let (identity, _) = issuers.check(&by_secret(claims), "c", NOW)?;
        Ok(identity.grants.unwrap().tenant.clone())
    };
    let claims = with("org", json!({"name": "site-a"}));
    assert_eq!(tenant(&claims), Ok(Some("site-a".into())));
    assert_eq!(tenant(&with("org", json!({"name": 7}))), Ok(Some("7".into())));
    for claims in [
        good(),
        with("org", json!({"name": ""})),
        with("org", json!({"name": ["a"]})),
    ] {
        assert_eq!(tenant(&claims), Err(TokenFault::NoTenant));
    }
    // Where nobody asks for it, it means nothing.
    let (identity, _) = issuers_of(options(), secret())
        .check(&by_secret(&claims), "c", NOW)
        .unwrap();
    assert_eq!(identity.grants.unwrap().tenant, None);
}

/// Whether a client with these claims may publish and subscribe to a topic, where the configuration has no rules.
fn rights(acl: Value, topic: &str) -> (bool, bool) {
    let wanted = TokenOptions {
        acl_claim: Some("acl".into()),
        ..options()
    };
    let mut claims = with("acl", acl);
    claims["tenant"] = json!("blue");
    claims["strange"] = json!("a/#");
    let issuers = issuers_of(wanted, secret());
    let (identity, _) = issuers.check(&by_secret(&claims), "sensor-7", NOW).unwrap();
    let peer = peer();
    let who = Access {
        client_id: "sensor-7",
        user_name: identity.user_name.as_deref(),
        peer: &peer,
        grants: identity.grants.as_deref(),
    };
    let rules = Rules::new(Vec::new(), Scope::Nowhere, WideSubscriptions::Refuse, Vec::new());
    let publish = rules.publish(&who, topic, QoS::AtLeastOnce, false);
    (publish.is_allowed, rules.subscribe(&who, topic).is_allowed)
}

#[test]
fn a_token_says_what_its_client_may_do() {
    let lists = json!({"pub": ["own/%u/#", "%{tenant}/%c"], "sub": "news/#", "all": ["both"]});
    let list = json!([
        {"permission": "allow", "action": "publish", "topic": "own/${username}/#"},
        {"permission": "deny", "action": "publish", "topic": "own/alice/safe"},
        {"permission": "allow", "action": "subscribe", "topics": ["news/#"]},
        {"permission": "allow", "topic": "both"},
        {"permission": "allow", "action": "publish", "topic": "low", "qos": 0},
        {"permission": "allow", "action": "publish", "topic": "%{tenant}/${clientid}", "qos": [0, 1], "retain": false},
    ]);
    for acl in [&lists, &list] {
        let table = [
            ("own/alice/x", (true, false)),
            ("own/bob/x", (false, false)),
            ("blue/sensor-7", (true, false)),
            ("red/sensor-7", (false, false)),
            ("news/today", (false, true)),
            ("both", (true, true)),
            ("other", (false, false)),
            ("low", (false, false)),
        ];
        for (topic, expected) in table {
            assert_eq!(rights(acl.clone(), topic), expected, "{topic}");
        }
    }
    assert_eq!(rights(list, "own/alice/safe"), (false, false));
    // What is no single level fits nothing that is allowed.
    assert_eq!(rights(json!({"all": "%{strange}"}), "a/b"), (false, false));
    assert_eq!(rights(json!({"all": "%{nothing}/#"}), "a/b"), (false, false));
    assert_eq!(rights(json!({}), "a"), (false, false));
}

#[test]
fn an_acl_claim_that_is_not_understood_lets_nobody_in_and_one_that_is_missing_gives_no_rights() {
    let wanted = TokenOptions {
        acl_claim: Some("acl".into()),
        ..options()
    };
    let issuers = issuers_of(wanted, secret());
    let many: Vec<_> = (0..129).map(|number| number.to_string()).collect();
    for acl in [
        json!("all"),
        json!(null),
        json!({"publsh": ["a"]}),
        json!({"pub": ["a/#/b"]}),
        json!({"pub": [7]}),
        json!({"pub": many}),
        json!([{"topic": "a"}]),
        json!([{"permission": "maybe", "topic": "a"}]),
        json!([{"permission": "allow", "action": "any", "topic": "a"}]),
        json!([{"permission": "allow", "topic": "a", "qos": 3}]),
        json!([{"permission": "allow", "topic": "a", "qos": [2]}]),
        json!([{"permission": "allow", "topic": "a", "qos": [0, "1"]}]),
        json!([{"permission": "allow", "topic": "a", "retain": "false"}]),
        json!([{"permission": "allow", "topic": "a", "retain": 0}]),
        json!([{"permission": "allow", "topic": "a", "ipaddr": "192.0.2.1"}]),
        json!([{"permission": "deny", "topic": "eq a/#"}]),
        json!([{"permission": "deny", "topic": "a", "topics": ["b"]}]),
    ] {
        assert_eq!(
            fault(&issuers, &by_secret(&with("acl", acl.clone()))),
            TokenFault::Acl,
            "{acl}"
        );
    }
    let (identity, _) = issuers.check(&by_secret(&good()), "c", NOW).unwrap();
    assert_eq!(identity.grants.unwrap().rules, Some(Vec::new()));
}
