//! Reviews step by step: a program that answers when the story says so.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use super::*;
use crate::auth::Authorizer;
use crate::broker::mail::Outcome;
use crate::broker::{Broker, BrokerOptions, Parts};
use crate::protocol::ids::{Token, WorkerId};
use crate::protocol::qos::QoS;
use crate::protocol::topic::TopicName;
use crate::session::peer::tests::peer;

/// Is asked about every filter, where it is configured, and answers later.
#[derive(Default)]
struct Program {
    is_configured: AtomicBool,
    generation: AtomicU64,
    asked: Mutex<Vec<(Token, String)>>,
}

impl Authorizer for Program {
    fn publish(&self, _: &Access<'_>, _: TopicName<'_>, _: QoS, _: bool, _: Token) -> Answer<bool> {
        Answer::Ready(true)
    }

    fn subscribe(&self, who: &Access<'_>, filter: TopicFilter<'_>, token: Token) -> Answer<bool> {
        if !self.asks_again(who) {
            return Answer::Ready(true);
        }
        self.asked.lock().unwrap().push((token, filter.as_str().to_owned()));
        Answer::Pending
    }

    fn asks_again(&self, _: &Access<'_>) -> bool {
        self.is_configured.load(Ordering::Relaxed)
    }

    fn generation(&self) -> Option<u64> {
        Some(self.generation.load(Ordering::Relaxed))
    }

    fn restricts(&self, _: &Access<'_>) -> bool {
        true
    }

    fn watches(&self, _: &Access<'_>, _: TopicFilter<'_>) -> bool {
        false
    }
}

const CONNECT: &[u8] = b"\x10\x0d\x00\x04MQTT\x04\x00\x00\x00\x00\x01c";
const PUBLISHER: &[u8] = b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x00\x00\x01p";
const DISCONNECT: &[u8] = b"\xE0\x00";

fn filters_packet(first: u8, filters: &[&str], tail: &[u8]) -> Vec<u8> {
    let mut body = vec![0, 1];
    for filter in filters {
        body.extend([0, filter.len() as u8]);
        body.extend(filter.as_bytes());
        body.extend(tail);
    }
    [&[first, body.len() as u8], &body[..]].concat()
}

fn subscribe(filters: &[&str]) -> Vec<u8> {
    filters_packet(0x82, filters, &[1])
}

fn unsubscribe(filter: &str) -> Vec<u8> {
    filters_packet(0xA2, &[filter], &[])
}

struct Story {
    program: Arc<Program>,
    worker: Worker,
    publisher: ConnectionKey,
    now: Time,
}

impl Story {
    fn new(is_configured: bool) -> Self {
        let program = Arc::new(Program {
            is_configured: is_configured.into(),
            ..Program::default()
        });
        let parts = Parts {
            authorizer: Arc::clone(&program) as _,
            ..Parts::default()
        };
        let broker = Broker::new(BrokerOptions::default(), 1, parts);
        let now = Time(1_000_000);
        let mut worker = Worker::new(broker, WorkerId(0), now);
        let publisher = worker.open(peer(), now.plus_secs(10), now);
        worker.receive(publisher, PUBLISHER, now);
        Self {
            program,
            worker,
            publisher,
            now,
        }
    }

    /// A client that begins by sending this.
    fn open(&mut self, packets: &[&[u8]]) -> ConnectionKey {
        let key = self.worker.open(peer(), self.now.plus_secs(10), self.now);
        self.send(key, &packets.concat());
        key
    }

    fn send(&mut self, key: ConnectionKey, bytes: &[u8]) {
        let taken = self.worker.receive(key, bytes, self.now);
        self.worker.continue_reviews(self.now);
        if taken < bytes.len() {
            self.worker.receive(key, &bytes[taken..], self.now);
        }
    }

    /// Rules are replaced, and maybe a program is configured.
    fn reload(&mut self) {
        self.program.is_configured.store(true, Ordering::Relaxed);
        self.program.generation.fetch_add(1, Ordering::Relaxed);
        self.worker.see_to_access(self.now);
        self.worker.continue_reviews(self.now);
    }

    /// The program answers the only question that is out; what it was asked about.
    fn answer(&mut self, outcome: Outcome) -> String {
        let (token, filter) = {
            let mut asked = self.program.asked.lock().unwrap();
            assert_eq!(asked.len(), 1, "{asked:?}");
            asked.remove(0)
        };
        self.worker.complete(token, outcome, self.now);
        self.worker.continue_reviews(self.now);
        filter
    }

    fn publish(&mut self, topic: &str) {
        let mut bytes = vec![0x32, topic.len() as u8 + 4, 0, topic.len() as u8];
        bytes.extend(topic.as_bytes());
        bytes.extend([0, 1]);
        self.send(self.publisher, &bytes);
    }

    fn wait(&mut self, secs: u64) {
        self.now = self.now.plus_secs(secs);
        self.worker.expire(self.now);
        self.worker.continue_reviews(self.now);
    }

    /// How much was sent to a client.
    fn sent_bytes(&mut self, key: ConnectionKey) -> usize {
        self.worker.output(key).unwrap().chunks().flatten().count()
    }

    /// Whether something on this topic was sent to a client.
    fn has_got(&mut self, key: ConnectionKey, topic: &str) -> bool {
        let sent: Vec<u8> = self.worker.output(key).unwrap().chunks().flatten().copied().collect();
        sent.windows(topic.len()).any(|window| window == topic.as_bytes())
    }
}

const YES: Outcome = Outcome::Allowed(true);
const NO: Outcome = Outcome::Allowed(false);

#[test]
fn who_unsubscribes_while_the_program_is_asked_does_not_get_what_waited() {
    let mut story = Story::new(true);
    let first = story.open(&[CONNECT, &subscribe(&["secret/#"])]);
    story.answer(YES);
    story.send(first, DISCONNECT);
    story.publish("secret/x");
    let again = story.open(&[CONNECT, &unsubscribe("secret/#")]);
    assert_eq!(story.answer(NO), "secret/#");
    assert!(!story.has_got(again, "secret/x"));
}

#[test]
fn who_unsubscribes_after_a_refusal_and_waits_for_new_rules_does_not_get_it_either() {
    let mut story = Story::new(true);
    let first = story.open(&[CONNECT, &subscribe(&["secret/#"])]);
    story.answer(YES);
    story.send(first, DISCONNECT);
    story.publish("secret/x");
    let again = story.open(&[CONNECT, &unsubscribe("secret/#")]);
    story.reload();
    for _ in 0..2 {
        let asked = story.program.asked.lock().unwrap().pop().unwrap();
        story.worker.complete(asked.0, NO, story.now);
    }
    assert!(!story.has_got(again, "secret/x"));
}

#[test]
fn what_comes_between_two_answers_is_not_lost() {
    let mut story = Story::new(true);
    let client = story.open(&[CONNECT, &subscribe(&["a/#", "a/+"])]);
    story.answer(YES);
    story.answer(YES);
    story.publish("a/waits"); // what is in flight is looked at
    story.reload();
    story.answer(NO);
    story.publish("a/b");
    assert!(!story.has_got(client, "a/b"));
    story.answer(YES);
    assert!(story.has_got(client, "a/b"), "the other one shows it");
    story.publish("a/c");
    assert!(story.has_got(client, "a/c"));
}

#[test]
fn a_program_that_never_answered_has_allowed_nothing() {
    let mut story = Story::new(false);
    let client = story.open(&[CONNECT, &subscribe(&["a"])]);
    story.publish("a");
    let before = story.sent_bytes(client);
    story.reload();
    assert_eq!(story.answer(Outcome::Unanswered), "a");
    story.publish("a");
    assert_eq!(story.sent_bytes(client), before);
    // What it has allowed once holds while it does not answer, until it says no.
    for outcome in [YES, Outcome::Unanswered] {
        story.reload();
        story.answer(outcome);
        let before = story.sent_bytes(client);
        story.publish("a");
        assert!(story.sent_bytes(client) > before);
    }
    for outcome in [NO, Outcome::Unanswered] {
        story.reload();
        story.answer(outcome);
        let before = story.sent_bytes(client);
        story.publish("a");
        assert_eq!(story.sent_bytes(client), before);
    }
}

/// Answers from before a reload say nothing about what comes after it.
#[test]
fn a_subscribe_that_waits_is_asked_about_from_its_start_after_a_reload() {
    let mut story = Story::new(true);
    let client = story.open(&[CONNECT, &subscribe(&["a", "b"])]);
    assert_eq!(story.answer(YES), "a");
    story.reload();
    assert_eq!(story.answer(YES), "b");
    assert_eq!(story.answer(NO), "a");
    assert_eq!(story.answer(YES), "b");
    let suback = [0x90, 4, 0, 1, 0x80, 1];
    let sent: Vec<u8> = story
        .worker
        .output(client)
        .unwrap()
        .chunks()
        .flatten()
        .copied()
        .collect();
    assert!(sent.ends_with(&suback), "{sent:02x?}");
}

/// Its place is for who can use an answer.
#[test]
fn who_has_left_keeps_no_place_in_line() {
    let mut story = Story::new(true);
    let client = story.open(&[CONNECT, &subscribe(&["a"])]);
    story.answer(YES);
    story.reload();
    assert_eq!(story.worker.reviews.out.len(), 1);
    story.send(client, DISCONNECT);
    assert_eq!(story.worker.reviews.out.len(), 0);
}

/// A program that is overloaded in the moment of a reload is no way to keep what was taken away.
#[test]
fn what_was_not_answered_is_asked_about_again_after_ever_longer_pauses() {
    let mut story = Story::new(true);
    let client = story.open(&[CONNECT, &subscribe(&["a"])]);
    story.answer(YES);
    story.reload();
    story.answer(Outcome::Unanswered);
    for pause_secs in [5, 10, 20] {
        story.wait(pause_secs - 1);
        assert!(story.program.asked.lock().unwrap().is_empty());
        story.wait(1);
        story.publish("a");
        assert!(story.has_got(client, "a"));
        if pause_secs < 20 {
            story.answer(Outcome::Unanswered);
        }
    }
    story.answer(NO);
    let before = story.sent_bytes(client);
    story.publish("a");
    assert_eq!(story.sent_bytes(client), before);
    story.wait(400);
    assert!(story.program.asked.lock().unwrap().is_empty(), "it has answered");
}
