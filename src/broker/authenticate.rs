//! AUTH: enhanced authentication, at CONNECT and again later (MQTT 5 section 4.12).

use super::endings::Ending;
use super::worker::Worker;
use crate::auth::{Answer, AuthStep, Identity, Verdict};
use crate::protocol::ids::ConnectionKey;
use crate::protocol::packet::{Auth, Packet, PacketType};
use crate::protocol::property::{PropertiesBuf, PropertyId};
use crate::protocol::reason::ReasonCode;
use crate::protocol::time::Time;
use crate::session::connection::{Connection, Phase};
use crate::session::violation::Violation;

impl Worker {
    /// AUTH came.
    pub(super) fn auth(&mut self, key: ConnectionKey, auth: &Auth<'_>, now: Time) {
        let token = self.token(key);
        let broker = std::sync::Arc::clone(&self.broker);
        let Some(connection) = self.residents.connections.get_mut(key.0) else {
            return;
        };
        let is_again = match connection.phase {
            Phase::Connected => true,
            Phase::Authenticating(_) => false,
            _ => return self.end_connection(key, Ending::Violation(Violation::Unexpected(PacketType::Auth)), now),
        };
        let Some(method) = connection.admission.method.clone() else {
            // No exchange was begun at CONNECT [MQTT-4.12.0-6].
            return self.end_connection(key, Ending::Violation(Violation::Unexpected(PacketType::Auth)), now);
        };
        if auth.properties.text(PropertyId::AuthenticationMethod) != Some(&method) {
            return self.end_connection(key, Ending::Violation(Violation::AuthenticationMethod), now);
        }
        let step = AuthStep {
            method: &method,
            data: auth.properties.binary(PropertyId::AuthenticationData),
            is_again,
            client_id: connection.client_name(),
        };
        match broker.authenticator.continue_with(&step, token) {
            Answer::Ready(verdict) => self.authenticated(key, verdict, now),
            Answer::Pending => self.wait_for_answer(key, token, now),
        }
    }

    /// The authenticator has decided about a client that authenticates again.
    pub(super) fn authenticated_again(&mut self, key: ConnectionKey, verdict: Verdict, now: Time) {
        match verdict {
            Verdict::Admit(identity) => {
                let data = identity.data.clone();
                if let Some(connection) = self.residents.connections.get_mut(key.0) {
                    accept_identity(connection, identity, now);
                }
                self.settle_access(key);
                self.remind_of_expiry(key);
                self.send_auth(key, ReasonCode::Success, data.as_deref());
            }
            Verdict::Continue(data) => self.send_auth(key, ReasonCode::ContinueAuthentication, Some(&data)),
            Verdict::Refuse(refusal) => self.end_connection(key, Ending::Refused(refusal.reason, refusal.why), now),
        }
    }

    /// Sees to it that a client goes when what it was let in for ends.
    pub(super) fn remind_of_expiry(&mut self, key: ConnectionKey) {
        let connection = self.residents.connections.get(key.0);
        let expires_at = connection.map_or(Time::NEVER, |connection| connection.admission.expires_at);
        self.remind(key, expires_at);
    }

    pub(super) fn send_auth(&mut self, key: ConnectionKey, reason: ReasonCode, data: Option<&[u8]>) {
        let mut properties = PropertiesBuf::new();
        let Some(connection) = self.residents.connections.get(key.0) else {
            return;
        };
        if let Some(method) = &connection.admission.method {
            properties.push_text(PropertyId::AuthenticationMethod, method);
        }
        if let Some(data) = data {
            properties.push_binary(PropertyId::AuthenticationData, data);
        }
        self.send_packet(
            key,
            &Packet::Auth(Auth {
                reason,
                properties: properties.view(),
            }),
        );
    }
}

/// Takes over who a client is.
pub(super) fn accept_identity(connection: &mut Connection, identity: Identity, now: Time) {
    connection.user_name = identity.user_name;
    connection.is_believed = identity.is_believed;
    connection.stamp = identity.stamp;
    let expires_at = identity
        .lifetime_ms
        .map_or(Time::NEVER, |lifetime| now.plus_millis(lifetime));
    if identity.grants.is_some() || expires_at != Time::NEVER || !connection.admission.is_none() {
        connection.admission.grants = identity.grants.map(|grants| grants as _);
        connection.admission.expires_at = expires_at;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::auth::{Access, Authenticator, Authorizer};
    use crate::broker::worker::Status;
    use crate::broker::{Broker, BrokerOptions, Parts};
    use crate::protocol::ids::{Token, WorkerId};
    use crate::protocol::qos::QoS;
    use crate::protocol::topic::{TopicFilter, TopicName};
    use crate::session::peer::Peer;
    use crate::session::peer::tests::peer;
    use crate::session::request::ConnectRequest;

    /// Lets everybody in for a minute.
    struct Minute;

    impl Authenticator for Minute {
        fn connect(&self, _: &ConnectRequest, _: &Peer, _: Token) -> Answer<Verdict> {
            Answer::Ready(Verdict::Admit(Identity {
                lifetime_ms: Some(60_000),
                ..Identity::default()
            }))
        }
    }

    /// Is asked about wills, and never answers.
    struct Silent;

    impl Authorizer for Silent {
        fn publish(&self, _: &Access<'_>, _: TopicName<'_>, _: QoS, _: bool, _: Token) -> Answer<bool> {
            Answer::Pending
        }

        fn subscribe(&self, _: &Access<'_>, _: TopicFilter<'_>, _: Token) -> Answer<bool> {
            Answer::Pending
        }
    }

    /// Also while it is asked whether it may leave its will, and when it is gone already.
    #[test]
    fn a_client_whose_time_is_over_before_it_has_entered_does_not_enter() {
        let now = Time(1_000_000);
        let parts = Parts {
            authenticator: Arc::new(Minute),
            authorizer: Arc::new(Silent),
            ..Parts::default()
        };
        let broker = Broker::new(BrokerOptions::default(), 1, parts);
        let mut worker = Worker::new(broker, WorkerId(0), now);
        let key = worker.open(peer(), now.plus_secs(10), now);
        let connect = b"\x10\x15\x00\x04MQTT\x05\x06\x00\x3c\x00\x00\x01c\x00\x00\x01w\x00\x01x";
        worker.receive(key, connect, now);
        assert_eq!(worker.status(key), Status::Waiting);
        worker
            .residents
            .connections
            .get_mut(key.0)
            .unwrap()
            .admission
            .expires_at = now.plus_secs(5);
        for second in 1..30 {
            worker.expire(now.plus_secs(second));
        }
        assert_eq!(worker.status(key), Status::Closing);
    }

    #[test]
    fn a_client_goes_in_the_moment_that_its_time_is_over_whether_it_talks_or_not() {
        let mut now = Time(1_000_000);
        let parts = Parts {
            authenticator: Arc::new(Minute),
            ..Parts::default()
        };
        let broker = Broker::new(BrokerOptions::default(), 1, parts);
        let mut worker = Worker::new(broker, WorkerId(0), now);
        let connect = |keep_alive, client_id| {
            [
                b"\x10\x0e\x00\x04MQTT\x05\x02\x00",
                &[keep_alive, 0, 0, 1, client_id][..],
            ]
            .concat()
        };
        let silent = worker.open(peer(), now.plus_secs(10), now);
        worker.receive(silent, &connect(0, b's'), now);
        let talks = worker.open(peer(), now.plus_secs(10), now);
        worker.receive(talks, &connect(4, b't'), now);
        for _ in 0..59 {
            now = now.plus_secs(1);
            worker.expire(now);
            worker.receive(talks, &[0xC0, 0], now);
        }
        worker.expire(now.plus_millis(999));
        assert_eq!(
            (worker.status(silent), worker.status(talks)),
            (Status::Open, Status::Open)
        );
        let next = worker.next_deadline().unwrap();
        assert!(next <= now.plus_secs(1), "nobody wakes the worker in time: {next:?}");
        worker.expire(now.plus_secs(1));
        for key in [silent, talks] {
            assert_eq!(worker.status(key), Status::Closing);
            let sent: Vec<u8> = worker.output(key).unwrap().chunks().flatten().copied().collect();
            assert!(
                sent.ends_with(&[0xE0, 2, 0xA0, 0]) || sent.ends_with(&[0xE0, 1, 0xA0]),
                "{sent:02x?}"
            );
        }
    }
}
