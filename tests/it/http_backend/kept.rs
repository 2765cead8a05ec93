//! What a program has allowed before is asked about again: when a session is resumed, and when rights have changed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use sundew::protocol::version::Version;

use super::{asking, fields, options};
use crate::backend::{Backend, Request, Says};
use crate::broker::{BOTH, Broker, story_with};
use crate::client::Client;
use crate::wire::{Connect, Publish};

/// What the program says of `secret/#` and `$share/g/secret/#` to alice; everything else is allowed.
const ALLOWED: u8 = 0;
const REVOKED: u8 = 1;
const DEAD: u8 = 2;
const SLOW: u8 = 3;

fn says(state: &AtomicU8, request: &Request) -> Says {
    let asked = fields(request);
    let is_it = asked["access"] == 4 && asked["username"] == "alice" && asked["topic"] == "secret/#";
    match state.load(Ordering::Acquire) {
        REVOKED if is_it => Some((403, String::new())),
        DEAD if is_it => None,
        SLOW if is_it => {
            std::thread::sleep(Duration::from_millis(300));
            Some((200, String::new()))
        }
        _ => Some((200, String::new())),
    }
}

struct Story {
    backend: Backend,
    state: Arc<AtomicU8>,
}

impl Story {
    fn new() -> Self {
        let state = Arc::new(AtomicU8::new(ALLOWED));
        let ours = Arc::clone(&state);
        let backend = Backend::start(move |request| says(&ours, request));
        Self { backend, state }
    }

    /// Answers are remembered for a minute, and yet.
    fn tell(&self, tell: impl Fn(&Broker, Version)) {
        let acl = self.backend.url("/acl");
        let mut http = options(None, Some(&acl));
        http.client.timeout = Duration::from_secs(10); // a busy machine is no dead program
        story_with(asking(http), BOTH, |broker, version| {
            self.state.store(ALLOWED, Ordering::Release);
            tell(broker, version);
        });
    }

    /// The program says something else from now on, and all answers are forgotten.
    fn set(&self, broker: &Broker, state: u8) {
        self.state.store(state, Ordering::Release);
        assert!(broker.server.reload_access(None));
    }
}

fn lasting<'a>(user: &'a str, version: Version) -> Connect<'a> {
    Connect {
        user_name: Some(user),
        ..Connect::lasting(user, version)
    }
}

/// What is for her waits while the program is asked: when this has come, it has answered.
fn expect_reviewed(alice: &mut Client, publisher: &mut Client) {
    expect_next(alice, publisher, "probe");
}

/// Nothing that was published before comes, now or later: the answer to a PINGREQ may overtake what is on its way from another worker.
fn expect_next(alice: &mut Client, publisher: &mut Client, topic: &str) {
    publisher.publish(Publish::new(topic, "x", 1));
    alice.expect_text(topic, "x");
}

fn publisher(broker: &Broker, version: Version) -> Client {
    broker.client("publisher", version)
}

#[test]
fn a_kept_subscription_that_is_not_allowed_any_more_shows_nothing_when_its_session_is_resumed() {
    let story = Story::new();
    story.tell(|broker, version| {
        let (mut alice, _) = broker.connect(version, &lasting("alice", version));
        assert_eq!((alice.subscribe("own/#", 1), alice.subscribe("secret/#", 1)), (1, 1));
        alice.disconnect();
        let mut publisher = publisher(broker, version);
        publisher.publish(Publish::new("secret/x", "waits", 1));
        publisher.publish(Publish::new("own/x", "waits", 1));
        story.set(broker, REVOKED);
        let (mut alice, is_present) = broker.connect(version, &lasting("alice", version));
        assert!(is_present);
        alice.expect_text("own/x", "waits");
        publisher.publish(Publish::new("secret/x", "now", 1));
        expect_next(&mut alice, &mut publisher, "own/x");
        // Another subscription of its own shows it, if that is allowed.
        alice.subscribe("secret/+", 1);
        publisher.publish(Publish::new("secret/x", "by another", 1));
        alice.expect_text("secret/x", "by another");
        alice.unsubscribe(&["secret/+"]);
        publisher.publish(Publish::new("secret/x", "withheld again", 1));
        expect_next(&mut alice, &mut publisher, "own/x");
        // And when it may again, it is still subscribed.
        story.set(broker, ALLOWED);
        alice.expect_ping_answered();
        publisher.publish(Publish::new("secret/x", "again", 1));
        alice.expect_text("secret/x", "again");
        alice.disconnect();
        assert_eq!(broker.server.broker().metrics.sum().subscriptions_withheld, 1);
    });
}

#[test]
fn a_right_that_a_program_takes_away_is_gone_with_a_reload_retained_included() {
    let story = Story::new();
    story.tell(|broker, version| {
        let mut publisher = publisher(broker, version);
        publisher.publish(Publish::new("secret/kept", "kept", 1).retained());
        let named = |client_id| Connect {
            client_id,
            user_name: Some("alice"),
            ..Connect::default()
        };
        let (mut alice, _) = broker.connect(version, &named("a"));
        assert_eq!((alice.subscribe("probe", 1), alice.subscribe("secret/#", 1)), (1, 1));
        alice.expect_text("secret/kept", "kept");
        story.set(broker, REVOKED);
        expect_reviewed(&mut alice, &mut publisher);
        publisher.publish(Publish::new("secret/x", "now", 1));
        publisher.publish(Publish::new("secret/x", "now", 0));
        expect_next(&mut alice, &mut publisher, "probe");
        let refused = if version.has_properties() { 0x87 } else { 0x80 };
        assert_eq!(alice.subscribe("secret/#", 1), refused);
        publisher.publish(Publish::new("secret/kept", "later", 1).retained());
        alice.expect_ping_answered();
        // Nor as a member of a group: what it cannot have is another's.
        story.set(broker, ALLOWED);
        let (mut bob, _) = broker.connect(
            version,
            &Connect {
                client_id: "b",
                user_name: Some("bob"),
                ..Connect::default()
            },
        );
        for member in [&mut alice, &mut bob] {
            assert_eq!(member.subscribe("$share/g/secret/#", 1), 1);
        }
        alice.unsubscribe(&["secret/#"]);
        story.set(broker, REVOKED);
        expect_reviewed(&mut alice, &mut publisher);
        for number in 0..6 {
            publisher.publish(Publish::new("secret/job", number.to_string(), 1));
            bob.expect_text("secret/job", &number.to_string());
        }
        alice.expect_ping_answered();
        publisher.publish(Publish::new("secret/kept", "", 1).retained());
    });
}

/// Only who is asked about waits, and loses nothing.
#[test]
fn while_a_program_thinks_what_is_for_its_client_waits_and_nobody_else_does() {
    let story = Story::new();
    story.tell(|broker, version| {
        let (mut alice, _) = broker.connect(version, &lasting("alice", version));
        let (mut bob, _) = broker.connect(version, &lasting("bob", version));
        for client in [&mut alice, &mut bob] {
            assert_eq!(client.subscribe("secret/#", 1), 1);
        }
        let mut publisher = publisher(broker, version);
        publisher.publish(Publish::new("secret/x", "before", 1));
        alice.expect_text("secret/x", "before");
        bob.expect_text("secret/x", "before");
        let since = Instant::now();
        story.set(broker, SLOW);
        publisher.publish(Publish::new("secret/x", "now", 1));
        bob.expect_text("secret/x", "now");
        alice.expect_ping_answered();
        assert!(since.elapsed() < Duration::from_millis(250), "{:?}", since.elapsed());
        alice.expect_text("secret/x", "now");
        assert!(since.elapsed() >= Duration::from_millis(250), "{:?}", since.elapsed());
        for client in [alice, bob] {
            client.disconnect();
        }
    });
}

#[test]
fn a_program_that_does_not_answer_takes_nothing_away_and_lets_nobody_see_what_waited() {
    let story = Story::new();
    story.tell(|broker, version| {
        let (mut alice, _) = broker.connect(version, &lasting("alice", version));
        assert_eq!(alice.subscribe("secret/#", 1), 1);
        let mut publisher = publisher(broker, version);
        // Who is connected keeps what it was told.
        story.set(broker, DEAD);
        publisher.publish(Publish::new("secret/x", "connected", 1));
        alice.expect_text("secret/x", "connected");
        alice.disconnect();
        publisher.publish(Publish::new("secret/x", "waits", 1));
        let (mut alice, is_present) = broker.connect(version, &lasting("alice", version));
        assert!(is_present);
        alice.expect_disconnect(0x89);
        story.set(broker, ALLOWED);
        let (mut alice, is_present) = broker.connect(version, &lasting("alice", version));
        assert!(is_present);
        alice.expect_text("secret/x", "waits");
        alice.disconnect();
    });
}
