//! What a client may do can change while it is connected: rules and users are read again.

use std::sync::{Arc, Weak};

use tracing::info;

use super::endings::Ending;
use super::worker::Worker;
use super::{Broker, Mail};
use crate::auth::way::BackendEvent;
use crate::auth::{Access, Answers, Guess, Verdict};
use crate::protocol::ids::{ConnectionKey, Token, WorkerId};
use crate::protocol::reason::ReasonCode;
use crate::protocol::source::{Source, SourceBuf};
use crate::protocol::time::Time;
use crate::protocol::topic::TopicFilter;
use crate::session::connection::{Phase, Watch};

/// Of the authenticator and of the authoriser, as a worker saw them last.
pub(super) type AccessGenerations = (u64, Option<u64>);

impl Broker {
    pub(super) fn access_generations(&self) -> AccessGenerations {
        (self.authenticator.generation(), self.authorizer.generation())
    }

    /// Rules or users were replaced: workers that have nothing to do are woken, to see who has to go.
    pub fn access_changed(&self) {
        self.tell_all(|| Mail::AccessChanged);
    }

    /// More certificates of clients are revoked than before: workers see who has to go.
    pub fn certificates_revoked(&self) {
        self.tell_all(|| Mail::CertificatesRevoked);
    }

    fn tell_all(&self, letter: impl Fn() -> Mail) {
        for worker in 0..self.mailboxes.workers() as u16 {
            self.mailboxes.send(WorkerId(worker), &mut vec![letter()]);
        }
    }
}

impl Worker {
    /// Looks whether rules or users were replaced; then at every connection. To be called before anything is decided.
    #[inline]
    pub(super) fn see_to_access(&mut self, now: Time) {
        let generations = self.broker.access_generations();
        if self.access_seen != generations {
            self.access_seen = generations;
            self.look_at_access_again(now);
        }
    }

    /// Users and rules were replaced while a client was asked about: the answer is by the new rules, and it may be none of the new users. Looks at
    /// that first; false where it has to go.
    #[cold]
    pub(super) fn stays_after_reload(&mut self, key: ConnectionKey, now: Time) -> bool {
        self.see_to_access(now);
        let connection = self.residents.connections.get(key.0);
        connection.is_some_and(|connection| matches!(connection.phase, Phase::Connected))
    }

    #[cold]
    pub(super) fn look_at_access_again(&mut self, now: Time) {
        if self.me == WorkerId(0) {
            self.broker.share_retained();
        }
        let keys = self.residents.connections.iter().map(|(key, _)| ConnectionKey(key));
        for key in keys.collect::<Vec<_>>() {
            self.settle_access(key);
            self.look_at_will_again(key);
            if let Some(why) = self.must_go(key) {
                let ending = Ending::Refused(ReasonCode::NotAuthorized, why);
                self.end_connection(key, ending, now);
            }
        }
    }

    /// Why a client would not be let in any more; `None` where it would.
    pub(super) fn must_go(&self, key: ConnectionKey) -> Option<&'static str> {
        let connection = self.residents.connections.get(key.0)?;
        let peer = &connection.peer;
        if peer.certificate.as_ref().is_some_and(|one| peer.rules.revoked.has(one)) {
            return Some("certificate_revoked");
        }
        let user = connection.user_name.as_deref();
        let stands = |stamp| self.broker.authenticator.stands(user, stamp, peer);
        if !connection.stamp.is_none_or(stands) {
            return Some("user_removed_or_password_changed");
        }
        (!self.is_in_its_tenant(connection)).then_some("tenant_changed")
    }

    /// The same for a client that enters. Since it was asked about its will, on another worker, rules may have changed that this one has seen already.
    pub(super) fn settle_rights(&mut self, key: ConnectionKey) {
        self.settle_access(key);
        let connection = self.residents.connections.get(key.0);
        if connection.is_some_and(|connection| connection.hand_overs > 0) {
            self.look_at_will_again(key);
        }
    }

    /// Finds out what has to be asked about a connection, when it is known who the client is and what its session subscribes to, or
    /// either has changed. What it remembers is forgotten.
    pub(super) fn settle_access(&mut self, key: ConnectionKey) {
        let authorizer = &self.broker.authorizer;
        let Some((connection, resident)) = self.residents.pair(key) else {
            return;
        };
        connection.decisions.clear();
        let who = Access::of(connection);
        let is_watched = resident.session.subscriptions.keys().any(|filter| {
            // A filter that was read from a store and is none any more matches nothing.
            TopicFilter::kept(filter).is_ok_and(|filter| authorizer.watches(&who, filter))
        });
        let is_restricted = authorizer.restricts(&who);
        // What waits may be of a subscription that is not there any more.
        let has_waiting = resident.session.outbound.in_flight() > 0 || !resident.outbox.is_empty();
        connection.watch = match is_watched || (is_restricted && has_waiting) {
            true => Watch::Rules,
            false if connection.is_mounted => Watch::Mount,
            false => Watch::Nothing,
        };
        connection.is_restricted = is_restricted;
        self.begin_review(key);
    }

    /// Who the client of a connection is, for what it publishes to be retained: once for all of that.
    pub(super) fn source_of(&mut self, key: ConnectionKey) -> Option<Arc<SourceBuf>> {
        let connection = self.residents.connections.get_mut(key.0)?;
        if connection.source.is_none() {
            let (peer, user_name) = (&connection.peer, connection.user_name.as_deref());
            // What a token says of him is in no list.
            let has_grants = connection.admission.grants.is_some();
            let lists = |user| !has_grants && self.broker.authenticator.lists(user, peer) == Some(true);
            let source = SourceBuf::new(&Source {
                user_name,
                is_listed: user_name.is_some_and(lists),
                has_grants,
                client_id: connection.client_name(),
                listener: &peer.rules.name,
                ip: peer.ip,
            });
            connection.source = Some(Arc::new(source));
        }
        connection.source.clone()
    }

    /// Notes in the will of a connection whose it is.
    pub(super) fn sign_will(&mut self, key: ConnectionKey) {
        let source = self.source_of(key);
        if let Some(connection) = self.residents.connections.get_mut(key.0)
            && let (Some(will), Some(source)) = (&mut connection.will, source)
        {
            will.set_source(source);
        }
    }

    /// A will that its client may not leave any more is taken away.
    pub(super) fn look_at_will_again(&mut self, key: ConnectionKey) {
        let token = self.token(key);
        let Some(connection) = self.residents.connections.get_mut(key.0) else {
            return;
        };
        let (Some(will), Phase::Connected, true) = (&connection.will, &connection.phase, connection.is_restricted)
        else {
            return;
        };
        let message = will.message();
        let who = Access::of(connection);
        let authorizer = &self.broker.authorizer;
        if !authorizer.forbids(&who, message.topic(), message.qos, message.retain, token) {
            return;
        }
        info!(
            client = connection.client_name(),
            user = connection.user_name.as_deref(),
            topic = message.topic().as_str(),
            "will removed: not authorized any more"
        );
        connection.will = None;
        if let Some(slot) = connection.session {
            self.record_will_ended(slot);
        }
    }
}

/// Brings late answers of an authenticator to the worker that waits for them.
pub(super) struct LateAnswers(Weak<Broker>);

impl LateAnswers {
    pub(super) fn new(broker: &Arc<Broker>) -> Self {
        Self(Arc::downgrade(broker))
    }

    fn send(&self, worker: WorkerId, letter: Mail) -> bool {
        let Some(broker) = self.0.upgrade() else { return false };
        broker.mailboxes.send(worker, &mut vec![letter]);
        true
    }
}

impl Answers for LateAnswers {
    fn verdict(&self, token: Token, verdict: Verdict) -> bool {
        self.send(
            token.worker,
            Mail::Complete(token, super::mail::Outcome::Verdict(verdict)),
        )
    }
    fn allowed(&self, token: Token, is_allowed: bool) {
        self.send(
            token.worker,
            Mail::Complete(token, super::mail::Outcome::Allowed(is_allowed)),
        );
    }

    fn unanswered(&self, token: Token) {
        self.send(token.worker, Mail::Complete(token, super::mail::Outcome::Unanswered));
    }

    fn backend(&self, worker: WorkerId, event: BackendEvent) {
        self.send(worker, Mail::Backend(event));
    }

    fn guessed(&self, worker: WorkerId, guess: Guess) {
        self.send(worker, Mail::Guessed(Box::new(guess)));
    }

    fn access_changed(&self) {
        if let Some(broker) = self.0.upgrade() {
            broker.access_changed();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::auth::{Answer, Authenticator, Authorizer, Identity};
    use crate::broker::worker::Status;
    use crate::broker::{BrokerOptions, Parts};
    use crate::protocol::qos::QoS;
    use crate::protocol::topic::TopicName;
    use crate::session::peer::Peer;
    use crate::session::peer::tests::peer;
    use crate::session::request::ConnectRequest;

    /// Users and rules are replaced in the moment in which something is asked: the new rules allow all, and the user is none any more.
    #[derive(Default)]
    struct Replaced(AtomicU64);

    impl Authenticator for Replaced {
        fn connect(&self, _: &ConnectRequest, _: &Peer, _: Token) -> Answer<Verdict> {
            Answer::Ready(Verdict::Admit(Identity {
                stamp: Some(1),
                ..Identity::default()
            }))
        }

        fn generation(&self) -> u64 {
            self.0.load(Ordering::Relaxed)
        }

        fn stands(&self, _: Option<&str>, _: u64, _: &Peer) -> bool {
            self.0.load(Ordering::Relaxed) == 0
        }
    }

    impl Authorizer for Replaced {
        fn publish(&self, _: &Access<'_>, _: TopicName<'_>, _: QoS, _: bool, _: Token) -> Answer<bool> {
            self.0.store(1, Ordering::Relaxed);
            Answer::Ready(true)
        }

        fn subscribe(&self, _: &Access<'_>, _: TopicFilter<'_>, _: Token) -> Answer<bool> {
            self.0.store(1, Ordering::Relaxed);
            Answer::Ready(true)
        }

        fn generation(&self) -> Option<u64> {
            Some(self.0.load(Ordering::Relaxed))
        }
    }

    #[test]
    fn new_rules_allow_nothing_to_whom_the_new_users_do_not_know() {
        // PUBLISH `t` with QoS 1; SUBSCRIBE to `t`: each behind a CONNECT that came in the same moment.
        for packet in [
            &b"\x32\x07\x00\x01t\x00\x01\x00x"[..],
            b"\x82\x07\x00\x01\x00\x00\x01t\x00",
        ] {
            let now = Time(1_000_000);
            let replaced = Arc::new(Replaced::default());
            let parts = Parts {
                authenticator: Arc::clone(&replaced) as _,
                authorizer: replaced,
                ..Parts::default()
            };
            let broker = Broker::new(BrokerOptions::default(), 1, parts);
            let mut worker = Worker::new(broker, WorkerId(0), now);
            let key = worker.open(peer(), now.plus_secs(10), now);
            let connect = b"\x10\x0e\x00\x04MQTT\x05\x02\x00\x00\x00\x00\x01c";
            worker.receive(key, &[connect, packet].concat(), now);
            assert_eq!(worker.status(key), Status::Closing);
            let sent: Vec<u8> = worker.output(key).unwrap().chunks().flatten().copied().collect();
            assert!(
                sent.ends_with(&[0xE0, 2, 0x87, 0]) || sent.ends_with(&[0xE0, 1, 0x87]),
                "{sent:02x?}"
            );
            let metrics = worker.broker.metrics.sum();
            assert_eq!((metrics.subscriptions, metrics.publish_received_qos1), (0, 0));
        }
    }
}
