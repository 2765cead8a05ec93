use std::sync::Mutex;

use super::*;
use crate::protocol::ids::{ConnectionKey, SlotKey, WorkerId};
use crate::protocol::packet::Connect;
use crate::protocol::property::Properties;
use crate::session::peer::{ListenerRules, PeerCertificate};

const LINE: &str =
    "$6$njERlZMi/7DzNB9E$iiavfuXvUm8iyDZArTy7smTxh07GXXOrOsqxfW6gkOYVXHGk+W+i/8d3xDxrMwEPygEBhoA8A/gjQC0N2M4Lkw==";

/// Takes so many checks and keeps them.
struct Taker(Mutex<Vec<PasswordCheck>>, usize);

impl PasswordChecker for Taker {
    fn attach(&self, _: Arc<dyn Answers>) {}

    fn check(&self, check: PasswordCheck) -> bool {
        let mut taken = self.0.lock().unwrap();
        let has_room = taken.len() < self.1;
        if has_room {
            taken.push(check);
        }
        has_room
    }
}

fn peer(listener: &str, certificate: Option<&str>) -> Peer {
    Peer {
        address: "192.0.2.1:1".into(),
        ip: None,
        is_secure: false,
        certificate: certificate.map(|name| {
            Arc::new(PeerCertificate {
                common_name: Some(name.into()),
                subject: format!("CN={name}"),
                alternative_names: vec![format!("{name}.example")],
                ..PeerCertificate::default()
            })
        }),
        rules: Arc::new(ListenerRules {
            name: listener.into(),
            ..ListenerRules::default()
        }),
    }
}

fn request(version: Version, user: Option<&str>, password: Option<&[u8]>) -> ConnectRequest {
    let mut request = ConnectRequest::keep(&Connect {
        version,
        is_bridge: false,
        clean_start: true,
        keep_alive: 0,
        properties: Properties::EMPTY,
        client_id: "c",
        will: None,
        user_name: None,
        password: None,
    });
    request.user_name = user.map(Into::into);
    request.password = password.map(Into::into);
    request
}

fn token() -> Token {
    Token {
        worker: WorkerId(0),
        connection: ConnectionKey(SlotKey { slot: 0, generation: 0 }),
        sequence: 1,
    }
}

fn chain(text: &str, room: usize) -> (Chain, Arc<Taker>) {
    let seed = foldhash::fast::RandomState::default();
    let file = Arc::new(PasswordFile::parse(text, &seed).unwrap());
    let entrance = |allows_anonymous, has_users: bool, names_user: bool| Entrance {
        certificate_name: names_user.then_some(CertificateName::CommonName),
        passwords: has_users.then(|| Arc::clone(&file)),
        allows_anonymous,
        ..Entrance::default()
    };
    let entrances = vec![
        ("open".into(), entrance(true, false, false)),
        ("both".into(), entrance(true, true, false)),
        ("users".into(), entrance(false, true, false)),
        ("either".into(), entrance(false, true, true)),
        ("closed".into(), entrance(false, false, false)),
    ];
    let taker = Arc::new(Taker(Mutex::default(), room));
    (Chain::new(entrances, Arc::clone(&taker) as _, seed), taker)
}

#[test]
fn the_first_way_that_decides_decides() {
    let (chain, taker) = chain(&format!("alice:{LINE}\n"), 100);
    let ask = |listener, user, password: Option<&[u8]>, certificate| {
        let answer = chain.connect(
            &request(Version::V5, user, password),
            &peer(listener, certificate),
            token(),
        );
        match answer {
            Answer::Pending => "checked".to_owned(),
            Answer::Ready(Verdict::Admit(identity)) => format!("admitted as {:?}", identity.user_name),
            Answer::Ready(Verdict::Refuse(refusal)) => format!("{} {:#x}", refusal.why, refusal.reason.byte()),
            Answer::Ready(Verdict::Continue(_)) => "continued".to_owned(),
        }
    };
    let right: Option<&[u8]> = Some(b"test");
    assert_eq!(ask("open", None, None, None), "admitted as None");
    assert_eq!(ask("open", Some("x"), None, None), "admitted as Some(\"x\")");
    assert_eq!(ask("both", None, None, None), "admitted as None");
    assert_eq!(ask("both", Some("alice"), right, None), "checked");
    assert_eq!(ask("both", Some("alice"), None, None), "bad_password 0x86");
    assert_eq!(ask("users", None, None, None), "anonymous_disabled 0x87");
    assert_eq!(ask("users", Some("nobody"), right, None), "checked");
    assert_eq!(ask("either", Some("alice"), right, None), "checked");
    assert_eq!(
        ask("either", Some("alice"), right, Some("device-7")),
        "admitted as Some(\"device-7\")"
    );
    assert_eq!(ask("closed", Some("alice"), right, None), "unknown_user 0x86");
    assert_eq!(ask("elsewhere", None, None, None), "listener_not_configured 0x87");
    let checks = taker.0.lock().unwrap();
    // The same arithmetic for who is not there, and the same answer to the client whatever comes of it.
    assert_eq!(checks[0].hash, checks[1].hash);
    let why = |verdict: &Verdict| match verdict {
        Verdict::Refuse(refusal) => (refusal.why, refusal.reason),
        _ => ("", ReasonCode::Success),
    };
    assert_eq!(
        why(&checks[1].admit),
        ("unknown_user", ReasonCode::BadUserNameOrPassword)
    );
    assert_eq!(why(&checks[1].refuse), why(&checks[1].admit));
    assert_eq!(
        why(&checks[0].refuse),
        ("bad_password", ReasonCode::BadUserNameOrPassword)
    );
}

#[test]
fn more_checks_than_may_wait_are_refused() {
    let (chain, _) = chain(&format!("alice:{LINE}\n"), 1);
    let ask = || {
        chain.connect(
            &request(Version::V311, Some("alice"), Some(b"x")),
            &peer("users", None),
            token(),
        )
    };
    assert_eq!(ask(), Answer::Pending);
    let Answer::Ready(Verdict::Refuse(refusal)) = ask() else {
        panic!("refused")
    };
    assert_eq!(refusal.reason, ReasonCode::QuotaExceeded);
}

#[test]
fn who_was_let_in_stands_until_the_password_changes() {
    let (chain, taker) = chain(&format!("alice:{LINE}\nbob:{LINE}\n"), 100);
    chain.connect(
        &request(Version::V5, Some("alice"), Some(b"x")),
        &peer("users", None),
        token(),
    );
    let Verdict::Admit(identity) = taker.0.lock().unwrap()[0].admit.clone() else {
        panic!("admitted")
    };
    let stands = || chain.stands(Some("alice"), identity.stamp.unwrap(), &peer("users", None));
    assert!(stands());
    let generation = chain.generation();
    let read = |text: &str| {
        let file = PasswordFile::parse(text, &chain.seed).unwrap();
        let entrance = Entrance {
            passwords: Some(Arc::new(file)),
            ..Entrance::default()
        };
        chain.replace(vec![("users".into(), entrance)]);
    };
    read(&format!("# bob has gone\nalice:{LINE}\n"));
    assert!(stands() && chain.generation() != generation);
    read(&format!("alice:{}\n", LINE.replace("njER", "njES")));
    assert!(!stands());
    read("");
    assert!(!stands());
}

/// Each way in is asked about again: nobody keeps a name that nobody would believe now.
#[test]
fn who_came_in_without_a_password_stands_as_long_as_that_way_is_open() {
    let (chain, _) = chain(&format!("alice:{LINE}\n"), 100);
    let way = |certificate_name, has_users: bool, allows_anonymous| {
        let file = PasswordFile::parse(&format!("alice:{LINE}\n"), &chain.seed).unwrap();
        let passwords = has_users.then(|| Arc::new(file));
        let entrance = Entrance {
            certificate_name,
            passwords,
            allows_anonymous,
            ..Entrance::default()
        };
        chain.replace(vec![("open".into(), entrance)]);
    };
    let certified = Some(CertificateName::CommonName);
    let enter = |user, certificate| {
        let peer = peer("open", certificate);
        let Answer::Ready(Verdict::Admit(identity)) = chain.connect(&request(Version::V5, user, None), &peer, token())
        else {
            panic!("admitted")
        };
        (identity, peer)
    };
    way(certified, false, true);
    let all = [
        enter(None, None),
        enter(Some("alice"), None),
        enter(None, Some("alice")),
    ];
    assert_eq!(all.each_ref().map(|(who, _)| who.is_believed), [false, true, false]);
    let stand = || {
        all.each_ref().map(|(who, peer)| {
            let stamp = who.stamp.expect("asked about again");
            chain.stands(who.user_name.as_deref(), stamp, peer)
        })
    };
    assert_eq!(stand(), [true, true, true]);
    way(certified, false, false);
    assert_eq!(stand(), [false, false, true]);
    way(certified, true, true);
    assert_eq!(stand(), [true, false, true], "alice has a password now");
    way(None, true, true);
    assert_eq!(stand(), [true, false, false], "certificates name nobody any more");
}

/// What is printed of a client that connects, in whatever state, tells no secret.
#[test]
fn a_password_is_not_printed() {
    let secret = "secret";
    let connect = Connect {
        version: Version::V5,
        is_bridge: false,
        clean_start: true,
        keep_alive: 0,
        properties: Properties::EMPTY,
        client_id: "c",
        will: None,
        user_name: Some("alice"),
        password: Some(secret.as_bytes()),
    };
    let bytes = format!("{:?}", secret.as_bytes());
    let request = ConnectRequest::keep(&connect);
    for printed in [format!("{connect:?}"), format!("{request:?}")] {
        assert!(printed.contains("alice"));
        assert!(!printed.contains(&bytes) && !printed.contains(secret), "{printed}");
    }
}

/// A way that decides about what begins so, and stands for what it decided.
#[derive(Debug)]
struct Begins(&'static str, u64);

impl Way for Begins {
    fn ask(&self, question: &Question<'_>) -> Asked {
        let password = question.request.password.as_deref().unwrap_or_default();
        match password.strip_prefix(self.0.as_bytes()) {
            None => Asked::NotMine,
            Some(b" good") => Asked::Said(Verdict::Admit(Identity {
                stamp: Some(self.1),
                ..Identity::default()
            })),
            Some(b" later") => Asked::Later,
            Some(_) => Asked::Said(Verdict::Refuse(Refusal {
                reason: question.wrong,
                why: "bad",
            })),
        }
    }

    fn stands(&self, stamp: u64) -> bool {
        stamp == self.1
    }
}

#[test]
fn a_token_is_looked_at_before_the_password_file_and_who_is_not_in_it_is_looked_for_elsewhere() {
    let seed = foldhash::fast::RandomState::default();
    let file = Arc::new(PasswordFile::parse(&format!("alice:{LINE}\n"), &seed).unwrap());
    let tokens = || Some(Arc::new(Begins("token", 7)) as _);
    let entrances = vec![
        (
            "all".into(),
            Entrance {
                tokens: tokens(),
                passwords: Some(file),
                elsewhere: Some(Arc::new(Begins("", 8))),
                ..Entrance::default()
            },
        ),
        (
            "tokens".into(),
            Entrance {
                tokens: tokens(),
                allows_anonymous: true,
                ..Entrance::default()
            },
        ),
    ];
    let taker = Arc::new(Taker(Mutex::default(), 100));
    let chain = Chain::new(entrances, Arc::clone(&taker) as _, seed);
    let ask = |listener, user, password: &str| {
        let request = request(Version::V5, user, Some(password.as_bytes()));
        match chain.connect(&request, &peer(listener, None), token()) {
            Answer::Pending => "pending",
            Answer::Ready(Verdict::Refuse(refusal)) => refusal.why,
            Answer::Ready(Verdict::Admit(_)) => "in",
            Answer::Ready(Verdict::Continue(_)) => "continue",
        }
    };
    for (listener, user, password, expected) in [
        ("all", Some("alice"), "token good", "in"),
        ("all", Some("alice"), "token bad", "bad"),
        ("all", None, "token later", "pending"),
        ("all", Some("alice"), "guess", "pending"), // the file
        ("all", Some("bob"), " good", "in"),
        ("all", Some("bob"), "guess", "bad"),
        ("all", None, " good", "in"),
        ("tokens", Some("alice"), "token good", "in"),
        ("tokens", Some("alice"), "guess", NO_TOKEN), // though anonymous clients are let in
        ("tokens", None, "guess", "in"),
    ] {
        assert_eq!(
            ask(listener, user, password),
            expected,
            "{listener} {user:?} {password}"
        );
    }
    assert_eq!(taker.0.lock().unwrap().len(), 1);
    for (listener, stamp, expected) in [
        ("all", 7, true),
        ("all", 8, true),
        ("all", 9, false),
        ("tokens", 8, false),
    ] {
        assert_eq!(
            chain.stands(Some("bob"), stamp, &peer(listener, None)),
            expected,
            "{listener} {stamp}"
        );
    }
}

/// Whether a user is in a list that he is let in by; of a listener that is gone, in any.
#[test]
fn who_is_listed() {
    let (chain, _) = chain(&format!("carol:{LINE}\n"), 1);
    let entrances = chain.current();
    let lists = |user, listener: &str, certificate| chain.lists(user, &peer(listener, certificate));
    for listener in entrances.iter().filter(|(_, entrance)| entrance.passwords.is_some()) {
        assert_eq!(lists("carol", &listener.0, None), Some(true));
        assert_eq!(lists("dave", &listener.0, None), Some(false));
        let is_certified = listener.1.certificate_name.is_some();
        assert_eq!(lists("carol", &listener.0, Some("carol")).is_none(), is_certified);
    }
    for listener in entrances.iter().filter(|(_, entrance)| entrance.passwords.is_none()) {
        assert_eq!(lists("carol", &listener.0, None), None);
    }
    assert_eq!(lists("carol", "gone", None), Some(true));
    assert_eq!(lists("dave", "gone", None), Some(false));
    chain.replace(Vec::new());
    assert_eq!(chain.lists("carol", &peer("gone", None)), None, "there is no list");
}
