//! A look again at what a session subscribes to, where whoever decides that has to be asked: when its client is back, and when rights have changed.
//! Until all is answered nothing is delivered; what may not be received after it is left out, and the subscription stays for the day on which
//! it may again.

use super::rare::Empty;
use super::state::Subscriptions;
use crate::protocol::time::Time;
use crate::protocol::topic::{TopicFilter, matches};

/// What is out: the number of the request, the filter that it is about, and since when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// See [`crate::protocol::ids::Token`].
    pub request: u32,
    /// The filter, as the session has it.
    pub filter: Box<str>,
    /// When it was asked.
    pub since: Time,
}

/// Where a review stands, and what came of it.
#[derive(Debug, Default)]
pub struct Review {
    /// Filters that nobody was asked about yet.
    pub unasked: Vec<Box<str>>,
    /// The question that is out.
    pub asked: Option<Asked>,
    /// It has its place in the line of its worker.
    pub is_in_line: bool,
    /// Nothing was asked about these subscriptions on this connection before: what is not answered is not known from then either.
    pub is_first: bool,
    /// Filters of which nothing may be received.
    pub refused: Vec<Box<str>>,
    /// All others of the session, where there are such.
    pub granted: Vec<Box<str>>,
    /// Those that were refused before this review.
    pub refused_before: Vec<Box<str>>,
    /// Those that nobody answered about, while what was said before holds.
    pub unanswered: Vec<Box<str>>,
    /// When they are asked about again.
    pub again_at: Option<Time>,
    /// How long that was put off, milliseconds.
    pub pause_ms: u64,
}

impl Empty for Review {
    fn empty() -> &'static Self {
        const {
            &Self {
                unasked: Vec::new(),
                asked: None,
                is_in_line: false,
                is_first: false,
                refused: Vec::new(),
                granted: Vec::new(),
                refused_before: Vec::new(),
                unanswered: Vec::new(),
                again_at: None,
                pause_ms: 0,
            }
        }
    }
}

impl Review {
    /// Whether a message on a topic is not to be delivered: a filter that matches it is refused, and no other one does.
    pub fn withholds(&self, topic: &str) -> bool {
        let fits = |filter: &str| TopicFilter::kept(filter).is_ok_and(|filter| matches(filter.filter(), topic));
        self.refused.iter().any(|filter| fits(filter)) && !self.granted.iter().any(|filter| fits(filter))
    }

    /// It is known about a filter whether it may be subscribed to.
    pub fn decide(&mut self, filter: &str, is_allowed: bool) {
        self.forget(filter);
        if is_allowed {
            self.granted.push(filter.into());
        } else {
            self.refused.push(filter.into());
        }
    }

    /// A filter is not subscribed to any more: it shows nothing. Whether what waits of it may be received is asked all the same.
    pub fn end(&mut self, filter: &str) {
        if let Some(at) = self.granted.iter().position(|known| **known == *filter) {
            self.granted.swap_remove(at);
        }
    }

    /// Filters of which something may have to be withheld and that `subscriptions` does not have any more.
    pub fn undecided_or_refused(&self, subscriptions: &Subscriptions) -> Vec<Box<str>> {
        let asked = self.asked.as_ref().map(|asked| &asked.filter);
        let filters = self.unasked.iter().chain(asked).chain(&self.refused);
        filters
            .filter(|filter| !subscriptions.contains_key(*filter))
            .cloned()
            .collect()
    }

    fn forget(&mut self, filter: &str) {
        for list in [&mut self.unasked, &mut self.refused, &mut self.granted] {
            if let Some(at) = list.iter().position(|known| **known == *filter) {
                list.swap_remove(at);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_another_subscription_shows_is_not_withheld() {
        let mut review = Review::default();
        for (filter, is_allowed) in [("a/#", false), ("a/b", true), ("$share/g/c/+", false)] {
            review.decide(filter, is_allowed);
        }
        let withheld = |review: &Review| ["a/x", "a/b", "c/x", "d"].map(|topic| review.withholds(topic));
        assert_eq!(withheld(&review), [true, false, true, false]);
        review.decide("a/#", true);
        assert_eq!(withheld(&review), [false, false, true, false]);
        // What is not subscribed to any more shows nothing, and what was refused of it stays so.
        for filter in ["a/#", "$share/g/c/+"] {
            review.end(filter);
        }
        assert_eq!(withheld(&review), [false, false, true, false]);
        review.decide("a/#", false);
        review.end("a/b");
        assert_eq!(withheld(&review), [true, true, true, false]);
    }
}
