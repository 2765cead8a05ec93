//! What sessions subscribe to is looked at again, where a program decides that: when a client is back, and when rights have changed. Who waits for
//! answers is sent nothing meanwhile, and nobody else waits.
//!
//! Rules need none of this: every delivery is looked at by them (`delivery/receive.rs`).

use std::collections::VecDeque;

use tracing::info;

use super::endings::Ending;
use super::worker::{ANSWER_MAX_MS, Worker};
use crate::auth::{Access, Answer};
use crate::protocol::ids::ConnectionKey;
use crate::protocol::reason::ReasonCode;
use crate::protocol::time::Time;
use crate::protocol::topic::TopicFilter;
use crate::session::connection::Watch;
use crate::session::review::{Asked, Review};
use crate::session::state::Session;

/// Connections of one worker that have a question out at once: all others wait in line, so that they do not take every place that the program
/// has.
const OUT_MAX: usize = 16;
/// Pauses after which is asked again what was not answered, milliseconds: each is twice as long as the one before.
const PAUSE_MIN_MS: u64 = 5_000;
/// The longest of them.
const PAUSE_MAX_MS: u64 = 300_000;
/// Questions in one turn that are answered from memory.
const PER_TURN: usize = 256;

/// The reviews of one worker.
#[derive(Debug, Default)]
pub(super) struct Reviews {
    /// Whose turn it is.
    line: VecDeque<ConnectionKey>,
    /// Who waits for an answer.
    out: Vec<ConnectionKey>,
}

impl Reviews {
    /// Whether somebody has his turn.
    pub(super) fn are_due(&self) -> bool {
        !self.line.is_empty() && self.out.len() < OUT_MAX
    }
}

impl Worker {
    /// Begins to look again at what a session subscribes to; nothing is delivered until that is done. Where nobody has to be asked, nothing
    /// happens.
    pub(super) fn begin_review(&mut self, key: ConnectionKey) {
        let Some((connection, resident)) = self.residents.pair(key) else {
            return;
        };
        if !connection.has_connack
            && let Some(subscriptions) = resident.session.subscriptions.get_mut()
        {
            let subscriptions = subscriptions.values_mut();
            subscriptions.for_each(|subscription| subscription.was_vouched_for = false);
        }
        let subscriptions = &resident.session.subscriptions;
        // What waits of a filter that its client has ended is withheld or not, too.
        let has_waiting = resident.session.outbound.in_flight() > 0 || !resident.outbox.is_empty();
        let known = connection.review.get_mut().filter(|_| has_waiting);
        let ended = known.map_or_else(Vec::new, |review| review.undecided_or_refused(subscriptions));
        let is_empty = subscriptions.is_empty() && ended.is_empty();
        let is_asked = !is_empty && self.broker.authorizer.asks_again(&Access::of(connection));
        if !is_asked && !connection.is_under_review {
            if !connection.review.is_none() {
                connection.review = Default::default();
            }
            return;
        }
        let filters = subscriptions.keys().chain(&ended).filter(|_| is_asked);
        let known = connection.review.take();
        let (was_first, is_in_line) = known.as_ref().map_or((false, false), |review| {
            (review.is_first && connection.is_under_review, review.is_in_line)
        });
        let (unfinished, before) =
            known.map_or_else(Default::default, |review| (review.refused_before, review.refused));
        *connection.review = Review {
            unasked: filters.cloned().collect(),
            is_in_line: true,
            is_first: was_first || !connection.has_connack,
            refused_before: if connection.is_under_review { unfinished } else { before },
            ..Review::default()
        };
        connection.is_under_review = true;
        if !is_in_line {
            self.reviews.line.push_back(key);
        }
    }

    /// Goes on with reviews whose turn it is.
    pub(super) fn continue_reviews(&mut self, now: Time) {
        if self.reviews.line.is_empty() {
            return;
        }
        let connections = &self.residents.connections;
        let waits = |key: &ConnectionKey| connections.get(key.0).is_some_and(|one| one.review.asked.is_some());
        self.reviews.out.retain(waits);
        let mut left = PER_TURN;
        while left > 0
            && self.reviews.out.len() < OUT_MAX
            && let Some(key) = self.reviews.line.pop_front()
        {
            left = left.saturating_sub(self.ask_again(key, left, now).max(1));
        }
    }

    /// Asks about what nobody was asked about yet, until an answer has to be waited for; how often it asked.
    fn ask_again(&mut self, key: ConnectionKey, max: usize, now: Time) -> usize {
        for count in 0..max {
            let token = self.token(key);
            let Some((connection, resident)) = self.residents.pair(key) else {
                return count;
            };
            let Some(review) = connection.review.get_mut() else {
                return count;
            };
            review.is_in_line = false;
            let Some(filter) = review.unasked.pop() else {
                self.finish_review(key, now);
                return count;
            };
            let who = Access::of(connection);
            let authorizer = &self.broker.authorizer;
            let (answer, is_theirs) = match TopicFilter::kept(&filter) {
                Ok(parsed) => (
                    authorizer.subscribe_again(&who, parsed, token),
                    authorizer.asks_about(&who, parsed),
                ),
                Err(_) => (Answer::Ready(false), false), // it matches nothing
            };
            match answer {
                Answer::Ready(is_allowed) => {
                    if is_theirs {
                        vouch(&mut resident.session, &filter, is_allowed);
                    }
                    connection.review.decide(&filter, is_allowed);
                }
                Answer::Pending => {
                    connection.review.asked = Some(Asked {
                        request: token.sequence,
                        filter,
                        since: now,
                    });
                    self.reviews.out.push(key);
                    self.remind(key, now.plus_millis(ANSWER_MAX_MS));
                    return count + 1;
                }
            }
        }
        if let Some(review) = self
            .residents
            .connections
            .get_mut(key.0)
            .and_then(|one| one.review.get_mut())
        {
            review.is_in_line = true;
            self.reviews.line.push_front(key);
        }
        max
    }

    /// An answer that a review waits for; `None`: whoever was asked did not answer. False where it is for something else.
    pub(super) fn reviewed(&mut self, key: ConnectionKey, request: u32, answer: Option<bool>, now: Time) -> bool {
        let Some((connection, resident)) = self.residents.pair(key) else {
            return false;
        };
        let Some(review) = connection.review.get_mut() else {
            return false;
        };
        let Some(asked) = review.asked.take_if(|asked| asked.request == request) else {
            return false;
        };
        self.reviews.out.retain(|waiting| *waiting != key);
        let is_allowed = match answer {
            Some(is_allowed) => {
                vouch(&mut resident.session, &asked.filter, is_allowed);
                is_allowed
            }
            None if review.is_first => {
                // What waits is kept; better later than to whom it is not for.
                let ending = Ending::Refused(ReasonCode::ServerBusy, "backend_failed");
                self.end_connection(key, ending, now);
                return true;
            }
            // What they have said before holds; what only a rule had allowed, that is no more, they never have.
            None => {
                let subscription = resident.session.subscriptions.get(&asked.filter);
                let was_allowed = subscription.is_some_and(|subscription| subscription.was_vouched_for);
                review.unanswered.push(asked.filter.clone());
                was_allowed && !review.refused_before.contains(&asked.filter)
            }
        };
        // It may have been said anew meanwhile, in answer to a SUBSCRIBE.
        let is_known = review.refused.contains(&asked.filter) || review.granted.contains(&asked.filter);
        let is_late = !connection.is_under_review && answer.is_some();
        if !is_known || is_late {
            review.decide(&asked.filter, is_allowed);
        }
        if is_late {
            connection.watch = Watch::Rules;
            connection.decisions.clear();
        }
        review.is_in_line = true;
        self.reviews.line.push_front(key);
        self.continue_reviews(now);
        true
    }

    /// A connection's reminder: what was not answered is asked about again when it is time. What was said before holds meanwhile.
    pub(super) fn ask_unanswered(&mut self, key: ConnectionKey, now: Time) {
        let connection = self.residents.connections.get_mut(key.0);
        let Some(review) = connection.and_then(|connection| connection.review.get_mut()) else {
            return;
        };
        match review.again_at {
            Some(at) if at <= now => {
                review.again_at = None;
                review.unasked.append(&mut review.unanswered);
                review.refused_before.clone_from(&review.refused);
                review.is_in_line = true;
                self.reviews.line.push_back(key);
            }
            Some(at) => self.remind(key, at),
            None => {}
        }
    }

    /// A filter that a client has was refused to it when it asked for it anew: nothing more of it is delivered.
    pub(super) fn withhold(&mut self, key: ConnectionKey, filter: TopicFilter<'_>) {
        let Some((connection, resident)) = self.residents.pair(key) else {
            return;
        };
        let subscriptions = &resident.session.subscriptions;
        let is_there = subscriptions.contains_key(filter.as_str());
        if !is_there || !self.broker.authorizer.asks_again(&Access::of(connection)) {
            return;
        }
        if connection.review.is_none() {
            connection.review.granted = subscriptions.keys().cloned().collect();
        }
        vouch(&mut resident.session, filter.as_str(), false);
        connection.review.decide(filter.as_str(), false);
        connection.watch = Watch::Rules;
        connection.decisions.clear();
    }

    /// Who has left waits for no answer, and keeps no place.
    pub(super) fn end_review(&mut self, key: ConnectionKey) {
        let connection = self.residents.connections.get_mut(key.0);
        if connection.is_some_and(|connection| connection.review.take().is_some()) {
            self.reviews.out.retain(|waiting| *waiting != key);
        }
    }

    /// All is answered.
    fn finish_review(&mut self, key: ConnectionKey, now: Time) {
        let Some(connection) = self.residents.connections.get_mut(key.0) else {
            return;
        };
        connection.is_under_review = false;
        connection.decisions.clear();
        let review = connection.review.take().unwrap_or_default();
        for filter in review
            .refused
            .iter()
            .filter(|filter| !review.refused_before.contains(*filter))
        {
            self.residents.metrics.subscriptions_withheld.increment();
            info!(
                client = connection.client_name(),
                user = connection.user_name.as_deref(),
                filter = &**filter,
                "subscription withheld: not authorized any more"
            );
        }
        if !review.refused.is_empty() {
            connection.watch = Watch::Rules;
        }
        let pause_ms = (2 * review.pause_ms).clamp(PAUSE_MIN_MS, PAUSE_MAX_MS);
        let again_at = (!review.unanswered.is_empty()).then(|| now.plus_millis(pause_ms));
        if !review.refused.is_empty() || again_at.is_some() {
            *connection.review = Review {
                is_first: false,
                refused_before: Vec::new(),
                again_at,
                pause_ms,
                ..*review
            };
        }
        let slot = connection.session.filter(|_| connection.has_connack);
        self.remind(key, again_at.unwrap_or(Time::NEVER));
        if let Some(slot) = slot {
            self.continue_delivery(slot, now);
        }
    }
}

/// Whoever is asked about a subscription elsewhere has said whether it may be.
fn vouch(session: &mut Session, filter: &str, is_allowed: bool) {
    if let Some(subscription) = session.subscriptions.get_mut().and_then(|all| all.get_mut(filter)) {
        subscription.was_vouched_for = is_allowed;
    }
}

#[cfg(test)]
mod tests;
