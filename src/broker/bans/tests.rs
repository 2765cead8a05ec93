use std::sync::Arc;

use super::*;
use crate::auth::tests::Silent;
use crate::auth::{Answer, AuthStep, Authenticator, Identity, Verdict};
use crate::broker::worker::Status;
use crate::broker::{BrokerOptions, Parts};
use crate::protocol::ids::Token;
use crate::session::peer::Peer;
use crate::session::peer::tests::peer;
use crate::session::request::ConnectRequest;

const NOW: Time = Time(1_000_000);
/// MQTT 5, client id `c`, user `u`.
const PASSWORD: &[u8] = b"\x10\x11\x00\x04MQTT\x05\x82\x00\x00\x00\x00\x01c\x00\x01u";
/// The same without a user: method `m`, with data.
const METHOD: &[u8] = b"\x10\x17\x00\x04MQTT\x05\x02\x00\x00\x09\x15\x00\x01m\x16\x00\x02in\x00\x01c";
/// A will, and no user.
const WILL: &[u8] = b"\x10\x15\x00\x04MQTT\x05\x06\x00\x00\x00\x00\x01c\x00\x00\x01w\x00\x01x";

/// Passwords take a while; an exchange says at its first step who it is, and wants more.
struct Slow;

impl Authenticator for Slow {
    fn connect(&self, request: &ConnectRequest, _: &Peer, _: Token) -> Answer<Verdict> {
        match request.user_name {
            Some(_) => Answer::Pending,
            None => Answer::Ready(Verdict::Admit(Identity::default())),
        }
    }

    fn knows_method(&self, _: &str, _: &Peer) -> bool {
        true
    }

    fn continue_with(&self, step: &mut AuthStep<'_>, _: Token) -> Answer<Verdict> {
        step.exchange.user_name = Some("u".into());
        Answer::Ready(Verdict::Continue(b"more"[..].into()))
    }
}

fn worker() -> Worker {
    let parts = Parts {
        authenticator: Arc::new(Slow),
        authorizer: Arc::new(Silent),
        ..Parts::default()
    };
    Worker::new(Broker::new(BrokerOptions::default(), 1, parts), WorkerId(0), NOW)
}

fn connect(worker: &mut Worker, packet: &[u8]) -> ConnectionKey {
    let peer = Peer {
        ip: Some(IpAddr::from([10, 0, 0, 7])),
        ..peer()
    };
    let key = worker.open(peer, NOW.plus_secs(10), NOW);
    worker.receive(key, packet, NOW);
    key
}

fn sent(worker: &mut Worker, key: ConnectionKey) -> Vec<u8> {
    worker.output(key).unwrap().chunks().flatten().copied().collect()
}

fn wrong() -> Verdict {
    Verdict::Refuse(Refusal {
        reason: ReasonCode::BadUserNameOrPassword,
        why: "bad_password",
    })
}

fn right() -> Verdict {
    Verdict::Admit(Identity {
        user_name: Some("u".into()),
        ..Identity::default()
    })
}

/// However many guesses are on their way at once.
#[test]
fn who_is_banned_does_not_hear_whether_he_has_guessed_right() {
    let mut worker = worker();
    let keys: Vec<_> = (0..12).map(|_| connect(&mut worker, PASSWORD)).collect();
    for key in &keys[..10] {
        assert_eq!(worker.status(*key), Status::Waiting);
        worker.authenticated(*key, wrong(), NOW);
        assert_eq!(sent(&mut worker, *key)[3], 0x86);
    }
    worker.authenticated(keys[10], wrong(), NOW);
    worker.authenticated(keys[11], right(), NOW);
    assert_eq!(sent(&mut worker, keys[10])[3], 0x8A);
    assert_eq!(sent(&mut worker, keys[10]), sent(&mut worker, keys[11]));
    // Nor does he who does not say who he is before the exchange does.
    let key = connect(&mut worker, METHOD);
    assert_eq!(worker.status(key), Status::Closing);
    assert_eq!(sent(&mut worker, key), sent(&mut worker, keys[10]));
}

#[test]
fn who_is_banned_while_he_is_handed_over_does_not_enter() {
    let mut worker = worker();
    let key = connect(&mut worker, WILL);
    assert_eq!(worker.status(key), Status::Waiting);
    worker.residents.connections.get_mut(key.0).unwrap().hand_overs = 1;
    let subject = Subject::Client("c".into());
    worker.broker.ban(subject, Time::NEVER, "", NOW).unwrap();
    worker.will_decided(key, true, NOW);
    assert_eq!(worker.status(key), Status::Closing);
    assert_eq!(sent(&mut worker, key)[3], 0x8A);
}

/// Who goes before he hears that his password is wrong has guessed as often as who waits.
#[test]
fn guesses_of_those_who_have_gone_count() {
    let mut worker = worker();
    let guess = Guess {
        from: Some(IpAddr::from([10, 0, 0, 7])),
        user_name: Some("u".into()),
        why: "bad_password",
    };
    for _ in 0..10 {
        let letter = Mail::Guessed(Box::new(guess.clone()));
        worker.broker.mailboxes.send(WorkerId(0), &mut vec![letter]);
    }
    worker.receive_last_mail(NOW);
    let key = connect(&mut worker, PASSWORD);
    assert_eq!(worker.status(key), Status::Closing);
    assert_eq!(sent(&mut worker, key)[3], 0x8A);
}

/// Whoever proves himself with `in` is user `u`; everything else is wrong.
struct Proves;

impl Authenticator for Proves {
    fn connect(&self, _: &ConnectRequest, _: &Peer, _: Token) -> Answer<Verdict> {
        panic!("the client names a method")
    }

    fn knows_method(&self, _: &str, _: &Peer) -> bool {
        true
    }

    fn continue_with(&self, step: &mut AuthStep<'_>, _: Token) -> Answer<Verdict> {
        Answer::Ready(if step.data == Some(b"in") { right() } else { wrong() })
    }
}

#[test]
fn guesses_of_who_authenticates_again_count_and_who_is_banned_then_goes() {
    let parts = Parts {
        authenticator: Arc::new(Proves),
        ..Parts::default()
    };
    let mut worker = Worker::new(Broker::new(BrokerOptions::default(), 1, parts), WorkerId(0), NOW);
    let again = |data: &[u8; 2]| [&b"\xF0\x0B\x19\x09\x15\x00\x01m\x16\x00\x02"[..], data].concat();
    let goes = |worker: &mut Worker, key| {
        assert_eq!(worker.status(key), Status::Closing);
        let sent = sent(worker, key);
        assert!(
            sent.ends_with(&[0xE0, 2, 0x87, 0]) || sent.ends_with(&[0xE0, 1, 0x87]),
            "{sent:02x?}"
        );
        worker.remove(key);
    };
    for _ in 0..9 {
        let guesses = connect(&mut worker, METHOD);
        assert_eq!(worker.status(guesses), Status::Open);
        worker.receive(guesses, &again(b"no"), NOW);
        goes(&mut worker, guesses);
    }
    let mut other = METHOD.to_vec();
    *other.last_mut().unwrap() = b'd';
    let stays = connect(&mut worker, &other);
    worker.receive(stays, &again(b"in"), NOW);
    assert_eq!(worker.status(stays), Status::Open, "nobody is banned yet");
    let guesses = connect(&mut worker, METHOD);
    worker.receive(guesses, &again(b"no"), NOW);
    goes(&mut worker, guesses);
    worker.receive(stays, &again(b"in"), NOW);
    goes(&mut worker, stays);
    let comes = connect(&mut worker, METHOD);
    assert_eq!(sent(&mut worker, comes)[3], 0x8A);
}
