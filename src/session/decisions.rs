//! What a client was told about a topic before: an answer costs a hash and a comparison the second time.

use core::hash::BuildHasher;

use crate::protocol::qos::QoS;

/// Answers remembered for one connection; a power of two.
const ENTRIES: usize = 32;
/// Longer topics are asked about each time: with those that are kept, a connection costs 8 KiB at most.
const TOPIC_BYTES_MAX: usize = 256;

/// What was asked about a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// May it be published to, with that QoS, retained or not?
    Publish(QoS, bool),
    /// May messages on it be received?
    Receive,
}

impl Question {
    const fn code(self) -> u8 {
        match self {
            Self::Publish(qos, retain) => (qos as u8) << 1 | retain as u8,
            Self::Receive => 0x80,
        }
    }
}

#[derive(Clone, Debug, Default)]
struct Entry {
    topic: String,
    question: u8,
    is_allowed: bool,
}

/// The last answers to one connection, empty and without memory until one is kept. Forgotten as a whole when rules change.
#[derive(Clone, Debug, Default)]
pub struct Decisions {
    entries: Option<Box<[Entry; ENTRIES]>>,
    hasher: foldhash::fast::RandomState,
}

impl Decisions {
    /// The answer that was kept.
    #[inline]
    pub fn get(&self, question: Question, topic: &str) -> Option<bool> {
        let entry = &self.entries.as_ref()?[self.place(question, topic)];
        (entry.question == question.code() && entry.topic == topic && !topic.is_empty()).then_some(entry.is_allowed)
    }

    /// Keeps an answer, in the place of another.
    pub fn keep(&mut self, question: Question, topic: &str, is_allowed: bool) {
        if topic.len() > TOPIC_BYTES_MAX {
            return;
        }
        let place = self.place(question, topic);
        let entry = &mut self.entries.get_or_insert_default()[place];
        entry.topic.clear();
        entry.topic.push_str(topic);
        entry.question = question.code();
        entry.is_allowed = is_allowed;
    }

    /// Forgets everything: the rules have changed, or who the client is.
    pub fn clear(&mut self) {
        self.entries = None;
    }

    fn place(&self, question: Question, topic: &str) -> usize {
        self.hasher.hash_one((question.code(), topic)) as usize & (ENTRIES - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_found_again_for_its_question_only() {
        let mut decisions = Decisions::default();
        let publish = Question::Publish(QoS::AtLeastOnce, false);
        assert_eq!(decisions.get(publish, "a"), None);
        decisions.keep(publish, "a", true);
        assert_eq!(decisions.get(publish, "a"), Some(true));
        assert_eq!(decisions.get(Question::Publish(QoS::AtLeastOnce, true), "a"), None);
        assert_eq!(decisions.get(Question::Receive, "a"), None);
        assert_eq!(decisions.get(publish, "b"), None);
        decisions.clear();
        assert_eq!(decisions.get(publish, "a"), None);
    }

    #[test]
    fn many_topics_are_never_confused_and_long_ones_are_not_kept() {
        let mut decisions = Decisions::default();
        for number in 0..1000 {
            decisions.keep(Question::Receive, &number.to_string(), number % 2 == 0);
        }
        let mut known = 0;
        for number in 0..1000 {
            if let Some(is_allowed) = decisions.get(Question::Receive, &number.to_string()) {
                assert_eq!(is_allowed, number % 2 == 0);
                known += 1;
            }
        }
        assert!((1..=ENTRIES).contains(&known), "{known}");
        let long = "t".repeat(TOPIC_BYTES_MAX + 1);
        decisions.keep(Question::Receive, &long, true);
        assert_eq!(decisions.get(Question::Receive, &long), None);
    }
}
