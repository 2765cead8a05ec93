//! Who tries wrong passwords is kept out for a while, and nobody else.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use sundew::auth::bans::{BanOptions, Subject};
use sundew::auth::{Answer, Authenticator, Identity, Refusal, Verdict};
use sundew::protocol::ids::Token;
use sundew::protocol::reason::ReasonCode;
use sundew::protocol::time::Time;
use sundew::session::peer::Peer;
use sundew::session::request::ConnectRequest;

use super::*;
use crate::abuse::tcp_from;
use crate::client::PATIENCE;

/// Other addresses of this machine.
const HERE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 1);
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// Asked about a client, it says whether its password is `right`, and counts.
#[derive(Default)]
struct Asked(AtomicUsize);

impl Authenticator for Asked {
    fn connect(&self, request: &ConnectRequest, _: &Peer, _: Token) -> Answer<Verdict> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Answer::Ready(if request.password.as_deref() == Some(b"right") {
            Verdict::Admit(Identity {
                user_name: request.user_name.clone(),
                ..Identity::default()
            })
        } else {
            Verdict::Refuse(Refusal {
                reason: ReasonCode::BadUserNameOrPassword,
                why: "bad_password",
            })
        })
    }
}

/// Bans this machine, too.
fn ban_options() -> BanOptions {
    BanOptions {
        exempt: Vec::new(),
        ..BanOptions::default()
    }
}

fn set(bans: BanOptions) -> impl Fn(&mut ServerOptions, &mut Parts) {
    move |options, parts| {
        options.broker.bans = bans.clone();
        parts.authenticator = Arc::new(Asked::default());
    }
}

fn open_from(broker: &Broker, from: Ipv4Addr, version: Version) -> Client {
    Client::over(tcp_from(from, broker.port).unwrap(), version)
}

/// What a client is told that tries to enter; `None`: closed without a word.
fn try_from(broker: &Broker, from: Ipv4Addr, version: Version, who: (&str, &str), client_id: &str) -> Option<u8> {
    let mut client = open_from(broker, from, version);
    client.send_lossy(&as_user(who, client_id).encode(version));
    match client.receive_unless_closed()? {
        crate::wire::Packet::ConnAck { reason, .. } => Some(reason),
        packet => panic!("CONNACK, but there came {packet:?}"),
    }
}

fn code(version: Version, v5: u8, before: u8) -> Option<u8> {
    Some(if version.has_properties() { v5 } else { before })
}

#[test]
fn after_ten_wrong_passwords_not_even_the_right_one_enters_from_there() {
    let files = Files::new(USERS, "topic #\n");
    let set_files = files.set(WideSubscriptions::Refuse);
    let set = |options: &mut ServerOptions, parts: &mut Parts| {
        set_files(options, parts);
        options.broker.bans = ban_options();
    };
    story_with(set, BOTH, |broker, version| {
        let enter = |from, who| try_from(broker, from, version, who, "c");
        for _ in 0..10 {
            assert_eq!(enter(HERE, ("alice", "guess")), code(version, 0x86, 5));
        }
        assert_eq!(enter(HERE, ALICE), code(version, 0x8A, 5), "banned");
        assert_eq!(
            enter(ELSEWHERE, ALICE),
            Some(0),
            "she is, elsewhere, not kept out by a stranger"
        );
        assert_eq!(enter(HERE, CAROL), Some(0), "others there have done nothing");
        let metrics = broker.server.broker().metrics.sum();
        assert_eq!(
            (metrics.bans_user, metrics.bans_address, metrics.banned_connect),
            (1, 0, 1)
        );
        assert_eq!(
            broker
                .server
                .broker()
                .bans
                .lift(&Subject::User("alice".into()), broker.server.now()),
            1
        );
        assert_eq!(enter(HERE, ALICE), Some(0), "lifted");
    });
}

#[test]
fn the_banned_are_refused_before_anybody_is_asked() {
    for version in BOTH {
        let asked = Arc::new(Asked::default());
        let broker = Broker::start(1, |options, parts| {
            options.broker.bans = ban_options();
            parts.authenticator = Arc::clone(&asked) as _;
        });
        for attempt in 0..30 {
            let expected = if attempt < 10 {
                code(*version, 0x86, 4)
            } else {
                code(*version, 0x8A, 5)
            };
            assert_eq!(
                try_from(&broker, HERE, *version, ("alice", "guess"), "c"),
                expected,
                "{attempt}"
            );
        }
        assert_eq!(asked.0.load(Ordering::Relaxed), 10);
    }
}

#[test]
fn an_address_that_tries_many_names_is_closed_unread_until_its_time_is_over() {
    let bans = BanOptions {
        address_failures_max: 5,
        time_ms: 1000,
        time_max_ms: 1000,
        ..ban_options()
    };
    story_with(set(bans), BOTH, |broker, version| {
        let begin = Instant::now();
        for name in ["a", "b", "c", "d", "e"] {
            assert_eq!(
                try_from(broker, HERE, version, (name, "guess"), "c"),
                code(version, 0x86, 4)
            );
        }
        assert_eq!(
            try_from(broker, HERE, version, ("f", "right"), "c"),
            None,
            "closed without a word"
        );
        assert_eq!(try_from(broker, ELSEWHERE, version, ("f", "right"), "c"), Some(0));
        assert!(
            begin.elapsed() < Duration::from_secs(1),
            "the machine is too slow for this story"
        );
        while try_from(broker, HERE, version, ("f", "right"), "c") != Some(0) {
            assert!(begin.elapsed() < PATIENCE, "it does not end");
        }
        assert!(begin.elapsed() >= Duration::from_secs(1));
        let metrics = broker.server.broker().metrics.sum();
        assert!(metrics.bans_address == 1 && metrics.banned_accept >= 1);
    });
}

/// Behind a router, or a proxy that says nobody's address, one who guesses does not keep the others out.
#[test]
fn an_address_from_which_others_are_connected_is_not_closed() {
    for version in BOTH {
        let bans = BanOptions {
            address_failures_max: 5,
            ..ban_options()
        };
        let broker = Broker::start(1, set(bans));
        let mut neighbour = open_from(&broker, HERE, *version);
        neighbour.connect(&as_user(("neighbour", "right"), "neighbour"));
        for number in 0..30 {
            let refused = try_from(&broker, HERE, *version, (&format!("u{number}"), "guess"), "c");
            assert_eq!(refused, code(*version, 0x86, 4));
        }
        assert_eq!(try_from(&broker, HERE, *version, ("u", "right"), "d"), Some(0));
        neighbour.expect_ping_answered();
    }
}

/// Whom a proxy brings is banned, and not the proxy.
#[test]
fn an_address_behind_a_proxy_is_banned_and_its_neighbours_are_not() {
    let bans = BanOptions {
        address_failures_max: 3,
        ..ban_options()
    };
    let set_bans = set(bans);
    let set = |options: &mut ServerOptions, parts: &mut Parts| {
        set_bans(options, parts);
        options.listeners[0].0.proxy_protocol = Some(vec!["127.0.0.0/8".parse().unwrap()]);
    };
    story_with(set, BOTH, |broker, version| {
        let enter = |who: &str, password| {
            let mut client = broker.open(version);
            client.send_lossy(format!("PROXY TCP4 {who} 127.0.0.1 49152 1883\r\n").as_bytes());
            client.send_lossy(&as_user(("u", password), "c").encode(version));
            client.receive_unless_closed().is_some()
        };
        for _ in 0..3 {
            assert!(enter("203.0.113.7", "guess"), "told that it was wrong");
        }
        assert!(!enter("203.0.113.7", "right"), "closed");
        assert!(enter("203.0.113.8", "right"));
    });
}

#[test]
fn whom_an_administrator_bans_goes_at_once_and_comes_back_when_he_says_so() {
    story_with(set(BanOptions::default()), BOTH, |broker, version| {
        let (server, shared) = (&broker.server, broker.server.broker());
        let enter = |client_id| try_from(broker, HERE, version, ("u", "right"), client_id);
        let mut noisy = open_from(broker, HERE, version);
        noisy.connect(&as_user(("u", "right"), "noisy"));
        let mut other = open_from(broker, HERE, version);
        other.connect(&as_user(("u", "right"), "other"));
        for subject in [Subject::Client("noisy".into()), Subject::User("u".into())] {
            shared.ban(subject.clone(), Time::NEVER, "", server.now()).unwrap();
            let gone = if matches!(subject, Subject::Client(_)) {
                &mut noisy
            } else {
                &mut other
            };
            gone.expect_disconnect(0x98);
            assert_eq!(enter("noisy"), code(version, 0x8A, 5));
            assert_eq!(shared.bans.list(server.now()).len(), 1);
            assert_eq!(shared.bans.lift(&subject, server.now()), 1);
            assert_eq!(enter("noisy"), Some(0));
        }
        let everybody = Subject::Network("127.0.0.1".parse().unwrap());
        shared.ban(everybody, Time::NEVER, "", server.now()).unwrap();
        assert_eq!(
            enter("noisy"),
            None,
            "exempt from bans that are earned, and from no other"
        );
        assert_eq!(try_from(broker, ELSEWHERE, version, ("u", "right"), "noisy"), Some(0));
    });
}

#[test]
fn a_client_that_comes_and_goes_without_end_is_banned_where_that_is_wanted() {
    let bans = BanOptions {
        connects_max: 3,
        ..ban_options()
    };
    story_with(set(bans), BOTH, |broker, version| {
        let enter = |from, client_id| try_from(broker, from, version, ("u", "right"), client_id);
        for _ in 0..3 {
            assert_eq!(enter(HERE, "flaps"), Some(0));
        }
        assert_eq!(enter(HERE, "flaps"), code(version, 0x8A, 5));
        assert_eq!(enter(HERE, "flaps"), code(version, 0x8A, 5));
        assert_eq!(enter(HERE, "other"), Some(0));
        assert_eq!(
            enter(ELSEWHERE, "flaps"),
            Some(0),
            "nobody keeps a client out from elsewhere"
        );
        assert_eq!(broker.server.broker().metrics.sum().bans_client, 1);
    });
}
