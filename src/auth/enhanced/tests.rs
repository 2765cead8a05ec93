use std::sync::atomic::{AtomicU8, Ordering};

use super::*;
use crate::auth::chain::{Entrances, PasswordCheck, PasswordChecker};
use crate::auth::password::PasswordFile;
use crate::auth::{Answer, Answers, Authenticator};
use crate::protocol::ids::{ConnectionKey, SlotKey, Token, WorkerId};
use crate::scram::client;
use crate::session::enhanced;
use crate::session::peer::Peer;
use crate::session::peer::tests::peer;

struct Nobody;

impl PasswordChecker for Nobody {
    fn attach(&self, _: Arc<dyn Answers>) {}

    fn check(&self, _: PasswordCheck) -> bool {
        false
    }
}

/// Another number each time.
fn random(bytes: &mut [u8]) -> bool {
    static NEXT: AtomicU8 = AtomicU8::new(0);
    bytes.fill(NEXT.fetch_add(1, Ordering::Relaxed));
    true
}

fn line(mechanism: Mechanism, password: &str) -> String {
    Credential::new(mechanism, password.as_bytes(), b"saltsaltsalt", 4096).to_string()
}

const HASH: &str =
    "$6$njERlZMi/7DzNB9E$iiavfuXvUm8iyDZArTy7smTxh07GXXOrOsqxfW6gkOYVXHGk+W+i/8d3xDxrMwEPygEBhoA8A/gjQC0N2M4Lkw==";

fn chain(text: &str) -> Chain {
    let seed = foldhash::fast::RandomState::default();
    let entrance = Entrance {
        passwords: Some(Arc::new(PasswordFile::parse(text, &seed).unwrap())),
        scram: Mechanism::ALL.to_vec(),
        ..Entrance::default()
    };
    let entrances: Entrances = vec![(peer().rules.name.as_str().into(), entrance)];
    Chain::new(entrances, Arc::new(Nobody), seed).with_scram(ScramSeed {
        secret: [9; 32],
        random,
    })
}

/// A connection, as far as an authenticator sees it.
struct Party<'a> {
    chain: &'a Chain,
    exchange: enhanced::Exchange,
    is_again: bool,
    user_name: Option<&'a str>,
    peer: Peer,
}

impl<'a> Party<'a> {
    fn new(chain: &'a Chain) -> Self {
        Self {
            chain,
            exchange: enhanced::Exchange::default(),
            is_again: false,
            user_name: None,
            peer: peer(),
        }
    }

    fn says(&mut self, begins: bool, data: &[u8]) -> Verdict {
        let mut step = AuthStep {
            method: "SCRAM-SHA-256",
            data: Some(data),
            begins,
            is_again: self.is_again,
            client_id: "c",
            user_name: self.user_name,
            peer: &self.peer,
            exchange: &mut self.exchange,
        };
        let token = Token {
            worker: WorkerId(0),
            connection: ConnectionKey(SlotKey { slot: 0, generation: 0 }),
            sequence: 1,
        };
        match self.chain.continue_with(&mut step, token) {
            Answer::Ready(verdict) => verdict,
            Answer::Pending => panic!("it needs nobody else"),
        }
    }

    /// The answer to the first message, and what comes of the exchange.
    fn proves(&mut self, name: &str, password: &str) -> (String, Verdict) {
        let mut client =
            client::Exchange::begin(Mechanism::Sha256, name, password.as_bytes(), &[1; NONCE_BYTES]).unwrap();
        let Verdict::Continue(answer) = self.says(true, &client.first()) else {
            panic!("an answer")
        };
        let proof = client.prove(&answer).unwrap();
        let verdict = self.says(false, &proof);
        if let Verdict::Admit(identity) = &verdict {
            client.verify(identity.data.as_deref().unwrap()).unwrap();
        }
        (String::from_utf8(answer.into()).unwrap(), verdict)
    }
}

fn refused(verdict: &Verdict) -> (&'static str, u8) {
    match verdict {
        Verdict::Refuse(refusal) => (refusal.why, refusal.reason.byte()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn who_proves_his_password_is_in_and_stands_with_his_line() {
    let chain = chain(&format!(
        "alice:{HASH} {}\nbob:{HASH}\n",
        line(Mechanism::Sha256, "secret")
    ));
    let (_, verdict) = Party::new(&chain).proves("alice", "secret");
    let Verdict::Admit(identity) = verdict else {
        panic!("{verdict:?}")
    };
    assert_eq!(identity.user_name.as_deref(), Some("alice"));
    assert!(chain.stands(Some("alice"), identity.stamp.unwrap(), &peer()));
    assert!(!chain.stands(Some("bob"), identity.stamp.unwrap(), &peer()));
    let mut again = Party::new(&chain);
    (again.is_again, again.user_name) = (true, Some("alice"));
    assert!(matches!(again.proves("alice", "secret").1, Verdict::Admit(_)));
    assert_eq!(refused(&again.proves("alice", "wrong").1), ("bad_password", 0x87));
}

/// Nobody can tell a user from nobody: the salt is of the same length and the same each time, the iterations are, and it ends as late.
#[test]
fn who_is_no_user_sees_what_a_user_sees() {
    let chain = chain(&format!("alice:{}\nbob:{HASH}\n", line(Mechanism::Sha256, "secret")));
    let salt = |answer: &str| answer.split_once(",s=").unwrap().1.to_owned();
    let (real, verdict) = Party::new(&chain).proves("alice", "wrong");
    assert_eq!(refused(&verdict), ("bad_password", 0x86));
    for (name, why) in [("nobody", "unknown_user"), ("bob", "no_scram_credential")] {
        let (answer, verdict) = Party::new(&chain).proves(name, "secret");
        assert_eq!(refused(&verdict), (why, 0x86));
        assert_eq!(
            salt(&Party::new(&chain).proves(name, "other").0),
            salt(&answer),
            "the same each time"
        );
        assert_ne!(salt(&answer), salt(&real));
        assert_eq!((answer.len(), answer.ends_with(",i=4096")), (real.len(), true));
    }
    assert_ne!(
        salt(&Party::new(&chain).proves("a", "x").0),
        salt(&Party::new(&chain).proves("b", "x").0)
    );
}

#[test]
fn what_is_no_exchange_is_refused_with_a_word() {
    let chain = chain(&format!("alice:{}\n", line(Mechanism::Sha256, "secret")));
    for (first, why) in [
        (&b""[..], "auth_malformed"),
        (b"\xFF\x00", "auth_malformed"),
        (b"p=tls-exporter,,n=alice,r=x", "channel_binding"),
        (b"n,a=root,n=alice,r=x", "another_user"),
    ] {
        assert_eq!(refused(&Party::new(&chain).says(true, first)).0, why);
    }
    assert!(matches!(
        Party::new(&chain).says(true, b"n,a=alice,n=alice,r=x"),
        Verdict::Continue(_)
    ));
    // The name in CONNECT, or of who is connected, is no other.
    let mut party = Party::new(&chain);
    party.user_name = Some("bob");
    assert_eq!(refused(&party.says(true, b"n,,n=alice,r=x")), ("another_user", 0x86));
    assert_eq!(party.exchange.user_name.as_deref(), Some("alice"));
    // One message ends an exchange, right or wrong.
    let mut party = Party::new(&chain);
    party.says(true, b"n,,n=alice,r=x");
    assert_eq!(refused(&party.says(false, b"c=biws,r=x,p=AAAA")).0, "auth_nonce");
    assert_eq!(refused(&party.says(false, b"c=biws,r=x,p=AAAA")).0, "auth_malformed");
}

#[test]
fn a_method_is_offered_where_somebody_can_use_it() {
    let only_256 = chain(&format!("alice:{}\n", line(Mechanism::Sha256, "secret")));
    assert!(only_256.knows_method("SCRAM-SHA-256", &peer()));
    for other in ["SCRAM-SHA-512", "SCRAM-SHA-256-PLUS", "scram-sha-256", ""] {
        assert!(!only_256.knows_method(other, &peer()), "{other}");
    }
    assert!(!chain(&format!("alice:{HASH}\n")).knows_method("SCRAM-SHA-256", &peer()));
    let both = chain(&format!("alice:{}\n", line(Mechanism::Sha512, "secret")));
    assert!(both.knows_method("SCRAM-SHA-512", &peer()) && !both.knows_method("SCRAM-SHA-256", &peer()));
    let mut entrances = (*both.current()).clone();
    entrances[0].1.scram.clear();
    both.replace(entrances);
    assert!(
        !both.knows_method("SCRAM-SHA-512", &peer()),
        "the operator does not want it"
    );
}
