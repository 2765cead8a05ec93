use std::sync::Arc;

use proptest::prelude::*;

use super::client;
use super::server::Exchange;
use super::*;

/// RFC 7677 section 3, and the same for SHA-512, made with the hashlib and hmac of Python 3.
struct Known {
    mechanism: Mechanism,
    line: &'static str,
    proof: &'static str,
    signature: &'static str,
}

const KNOWN: [Known; 2] = [
    Known {
        mechanism: Mechanism::Sha256,
        line: "$scram-sha-256$4096$W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=$wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=",
        proof: "dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
        signature: "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=",
    },
    Known {
        mechanism: Mechanism::Sha512,
        line: "$scram-sha-512$4096$W22ZaJ0SNY7soEsUEjb6gQ==$6AAub3065EYRmyFpM2RNwqK+eGnrkYuEWbXn19LsEmBqzu8QaCXNc1FwpnX9NhH2hK/60dzj9DoO5DvVkOHbvg==$jZHbYjC1aHh0/hKbxyBuGFjDrgjgKTT1esA7awWiKcRZ0o/0b1yWEebBeSVkkCFewf91nLDfKF24mvD5nmE6rA==",
        proof: "gMGXRcevScNtxZ6/8lQYpGtnsNAc3mGcmNomv+xnoOMw+3R2xNJdMNnzMlTN8PPC6wdp6dybEmDYXYTxwnYPJQ==",
        signature: "ZQnYEgWQMFmmsM8aQMF0nDDCy/AgCzkwk8CmMZYcMg0vSVlKDanekLtifDSeVGT4+5ZxXnJq199RVG2rR7N7Zw==",
    },
];
const CLIENT_NONCE: &str = "rOprNGfwEbeRWgbNEkqO";
const SERVER_NONCE: &str = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
const FIRST: &str = "n,,n=user,r=rOprNGfwEbeRWgbNEkqO";
const ANSWER: &str = "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
const LAST: &str = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";

fn server(known: &Known, first: &str, is_real: bool) -> Exchange {
    let credential = Arc::new(Credential::parse(known.line).unwrap());
    let first = ClientFirst::parse(first.as_bytes()).unwrap();
    Exchange::begin_with(first, credential, is_real, SERVER_NONCE)
}

fn begun(known: &Known, password: &str) -> client::Exchange {
    client::Exchange::begin_with(known.mechanism, "user", password.as_bytes(), CLIENT_NONCE.to_owned()).unwrap()
}

#[test]
fn the_exchange_of_the_standard_is_ours_byte_by_byte() {
    for known in &KNOWN {
        let mut client = begun(known, "pencil");
        assert_eq!(client.first(), FIRST.as_bytes());
        let server = server(known, FIRST, true);
        assert_eq!(str::from_utf8(server.server_first()), Ok(ANSWER));
        let proof = client.prove(ANSWER.as_bytes()).unwrap();
        assert_eq!(str::from_utf8(&proof).unwrap(), format!("{LAST},p={}", known.proof));
        let signature = server.finish(&proof).unwrap();
        assert_eq!(str::from_utf8(&signature).unwrap(), format!("v={}", known.signature));
        client.verify(&signature).unwrap();
        let salt = Credential::parse(known.line).unwrap().salt;
        let made = Credential::new(known.mechanism, b"pencil", &salt, 4096);
        assert_eq!(made.to_string(), known.line);
    }
}

#[test]
fn nothing_else_is_a_proof() {
    for known in &KNOWN {
        let right = format!("{LAST},p={}", known.proof);
        let end = |message: &str| server(known, FIRST, true).finish(message.as_bytes()).unwrap_err();
        assert!(server(known, FIRST, true).finish(right.as_bytes()).is_ok());
        assert_eq!(
            server(known, FIRST, false).finish(right.as_bytes()),
            Err(Fault::Proof),
            "no user"
        );
        let wrong = begun(known, "Pencil").prove(ANSWER.as_bytes()).unwrap();
        assert_eq!(end(str::from_utf8(&wrong).unwrap()), Fault::Proof);
        assert_eq!(end(&format!("{LAST},p=AAAA")), Fault::Proof, "too short");
        assert_eq!(
            end(&format!("{LAST},x=y,p={}", known.proof)),
            Fault::Proof,
            "more was said than proved"
        );
        assert_eq!(end(&right.replace("hNlF", "hNlG")), Fault::Nonce);
        assert_eq!(end(&right.replace(SERVER_NONCE, "")), Fault::Nonce);
        assert_eq!(
            end(&right.replace("biws", "eSws")),
            Fault::ChannelBinding,
            "y instead of n"
        );
        assert_eq!(end(&right.replace("c=biws", "m=x,c=biws")), Fault::Extension);
        for malformed in [
            LAST,
            "",
            "c=biws",
            &right[..right.len() - 1],
            &right.replace("c=", "d="),
            &format!("{LAST},p="),
        ] {
            assert_eq!(end(malformed), Fault::Malformed, "{malformed}");
        }
        // A message that was heard proves nothing in another exchange.
        let credential = Arc::new(Credential::parse(known.line).unwrap());
        let first = ClientFirst::parse(FIRST.as_bytes()).unwrap();
        let other = Exchange::begin(first, credential, true, &[7; NONCE_BYTES]);
        assert_eq!(other.finish(right.as_bytes()), Err(Fault::Nonce));
    }
}

#[test]
fn first_messages_are_read_as_the_standard_has_them() {
    let read = |text: &str| ClientFirst::parse(text.as_bytes());
    assert_eq!(&*read("y,,n=a=2Cb=3Dc,r=x").unwrap().user_name, "a,b=c");
    let first = read("n,a=boss,n=\u{fc},r=x,e=1,f=2").unwrap();
    assert_eq!(
        (first.authorization.as_deref(), &*first.user_name),
        (Some("boss"), "\u{fc}")
    );
    assert_eq!(&*first.header, "n,a=boss,");
    let long = format!("n,,n={},r=x", "a".repeat(MESSAGE_BYTES_MAX));
    for (text, fault) in [
        ("p=tls-exporter,,n=a,r=x", Fault::ChannelBinding),
        ("n,,m=x,n=a,r=x", Fault::Extension),
        ("n,,n=a\u{7},r=x", Fault::Text),
        ("n,,n=a=2cb,r=x", Fault::Malformed),
        ("n,,n=a=,r=x", Fault::Malformed),
        ("n,,n=,r=x", Fault::Malformed),
        ("n,,n=a,r=", Fault::Malformed),
        ("n,,n=a,r=\u{fc}", Fault::Malformed),
        ("n,,n=a,r=x y", Fault::Malformed),
        ("n,,n=a,r=x,", Fault::Malformed),
        ("n,,n=a,r=x,ext=1", Fault::Malformed),
        ("n,,n=a", Fault::Malformed),
        ("n,,r=x,n=a", Fault::Malformed),
        ("n,b=x,n=a,r=x", Fault::Malformed),
        ("x,,n=a,r=x", Fault::Malformed),
        ("n,n=a,r=x", Fault::Malformed),
        ("n", Fault::Malformed),
        ("", Fault::Malformed),
        ("n,,n=a\0b,r=x", Fault::Malformed),
        (&long, Fault::Malformed),
    ] {
        assert_eq!(read(text), Err(fault), "{text:?}");
    }
    assert_eq!(ClientFirst::parse(b"n,,n=\xFF,r=x"), Err(Fault::Malformed));
}

/// What pretends to be the server gets no proof that is cheap to try passwords against, no seconds of our time, and no belief.
#[test]
fn a_client_trusts_no_server() {
    let known = &KNOWN[0];
    let answer = |text: &str| begun(known, "pencil").prove(text.as_bytes()).unwrap_err();
    assert_eq!(answer(&ANSWER.replace("i=4096", "i=1")), Fault::Iterations(1));
    assert_eq!(
        answer(&ANSWER.replace("i=4096", "i=4294967295")),
        Fault::Iterations(u32::MAX)
    );
    assert_eq!(answer(&ANSWER.replace("i=4096", "i=4294967296")), Fault::Malformed);
    assert_eq!(answer(&ANSWER.replace("r=rO", "r=r0")), Fault::Nonce);
    assert_eq!(answer(&ANSWER.replace(SERVER_NONCE, "")), Fault::Nonce);
    let mut client = begun(known, "pencil");
    assert_eq!(client.verify(b"v=AAAA"), Err(Fault::Over), "nothing was proved yet");
    for wrong in ["v=AAAA", "e=other-error", "x", ""] {
        let mut client = begun(known, "pencil");
        client.prove(ANSWER.as_bytes()).unwrap();
        assert!(client.verify(wrong.as_bytes()).is_err(), "{wrong}");
    }
    let nonce = [0; NONCE_BYTES];
    for (user, password) in [("", "x"), ("a", ""), ("a\n", "x"), ("a", "x\u{7f}")] {
        let begun = client::Exchange::begin(Mechanism::Sha256, user, password.as_bytes(), &nonce);
        assert_eq!(begun.err(), Some(Fault::Text), "{user:?} {password:?}");
    }
}

#[test]
fn lines_are_whole_and_bounded() {
    for (from, to, said) in [
        ("4096", "4095", "expected 4096 to 2000000"),
        ("4096", "2000001", "expected 4096 to 2000000"),
        ("W22ZaJ0SNY7soEsUEjb6gQ==", "W22ZaA==", "the salt has 4 bytes"),
        ("W22ZaJ0SNY7soEsUEjb6gQ==", "W22{", "not base64"),
        ("WG5d8oPm3Otc", "WG5d", "keys have"),
        ("sha-256", "sha-512", "keys have 32 and 32 bytes, expected 64"),
        ("sha-256", "sha-1", "is known as"),
        ("$4096", "", "not whole"),
    ] {
        let line = KNOWN[0].line.replacen(from, to, 1);
        let error = Credential::parse(&line).unwrap_err();
        assert!(error.contains(said), "{line}: {error}");
    }
    assert!(!format!("{:?}", Credential::parse(KNOWN[0].line)).contains("WG5d"));
}

proptest! {
    #[test]
    fn no_message_panics_and_none_is_a_proof(text in "([a-z]?=|[ncrpyvsie]|,|[A-Za-z0-9+/=]{0,8}|biws|\u{fc}|4096){0,12}") {
        let _ = ClientFirst::parse(text.as_bytes());
        prop_assert!(server(&KNOWN[0], FIRST, true).finish(text.as_bytes()).is_err());
        prop_assert!(begun(&KNOWN[0], "pencil").prove(text.as_bytes()).is_err());
    }

    #[test]
    fn every_name_arrives(name in "[^\\p{Cc}]{1,40}") {
        let exchange = client::Exchange::begin(Mechanism::Sha256, &name, b"x", &[1; NONCE_BYTES]).unwrap();
        let first = ClientFirst::parse(&exchange.first()).unwrap();
        prop_assert_eq!(&*first.user_name, &*name);
    }
}
