//! AUTH: enhanced authentication, at CONNECT and again later (MQTT 5 section 4.12).

use std::sync::Arc;

use super::endings::Ending;
use super::worker::Worker;
use crate::auth::chain::{TOO_MANY_CHECKS, TOO_MANY_TOKEN_CHECKS};
use crate::auth::way::{TOKEN_TOO_LARGE, looks_like_token};
use crate::auth::{Answer, AuthStep, Identity, Refusal, Verdict};
use crate::protocol::ids::ConnectionKey;
use crate::protocol::packet::{Auth, Packet, PacketType};
use crate::protocol::property::{PropertiesBuf, PropertyId};
use crate::protocol::reason::ReasonCode;
use crate::protocol::time::Time;
use crate::session::connection::{Connection, Phase};
use crate::session::enhanced::{Enhanced, Exchange};
use crate::session::request::ConnectRequest;
use crate::session::violation::Violation;

/// How long a connected client may take to authenticate again, milliseconds, from its first AUTH on.
const AGAIN_MAX_MS: u64 = 30_000;

impl Worker {
    /// CONNECT was read and may be answered: the authenticator is asked.
    pub(super) fn authenticate(&mut self, key: ConnectionKey, request: Box<ConnectRequest>, now: Time) {
        let token = self.token(key);
        let broker = Arc::clone(&self.broker);
        let Some(connection) = self.residents.connections.get_mut(key.0) else {
            return;
        };
        let answer = match &request.authentication_method {
            None => broker.authenticator.connect(&request, &connection.peer, token),
            Some(method) => {
                let mut enhanced = Enhanced::new(method);
                let mut step = AuthStep {
                    method,
                    data: request.authentication_data.as_deref(),
                    begins: true,
                    is_again: false,
                    client_id: connection.client_name(),
                    user_name: request.user_name.as_deref(),
                    peer: &connection.peer,
                    exchange: &mut enhanced.exchange,
                };
                let answer = broker.authenticator.continue_with(&mut step, token);
                connection.admission.enhanced = Some(enhanced);
                answer
            }
        };
        connection.phase = Phase::Authenticating(request);
        match answer {
            Answer::Ready(verdict) => self.authenticated(key, verdict, now),
            Answer::Pending => self.wait_for_answer(key, token, now),
        }
    }

    /// AUTH came.
    pub(super) fn auth(&mut self, key: ConnectionKey, auth: &Auth<'_>, now: Time) {
        let token = self.token(key);
        let broker = Arc::clone(&self.broker);
        let Some(connection) = self.residents.connections.get_mut(key.0) else {
            return;
        };
        let violation = match &connection.admission.enhanced {
            // No exchange was begun at CONNECT [MQTT-4.12.0-6].
            None => Some(Violation::Unexpected(PacketType::Auth)),
            Some(enhanced) if auth.properties.text(PropertyId::AuthenticationMethod) != Some(&enhanced.method) => {
                Some(Violation::AuthenticationMethod) // [MQTT-4.12.1-1]
            }
            Some(enhanced) if !is_in_turn(connection, enhanced, auth.reason) => {
                Some(Violation::Unexpected(PacketType::Auth))
            }
            Some(_) => None,
        };
        if let Some(violation) = violation {
            return self.end_connection(key, Ending::Violation(violation), now);
        }
        let begins = auth.reason == ReasonCode::ReAuthenticate;
        if let Some(refusal) = self.ban_of_connected(key, now) {
            return self.let_go(key, refusal.reason, refusal.why, now);
        }
        let Some(connection) = self.residents.connections.get_mut(key.0) else {
            return;
        };
        if begins {
            let expires_at = &mut connection.admission.expires_at;
            *expires_at = (*expires_at).min(now.plus_millis(AGAIN_MAX_MS));
        }
        let Some(mut enhanced) = connection.admission.enhanced.take() else {
            return; // it was there a moment ago
        };
        enhanced.is_running = false;
        let (is_again, user_name) = match &connection.phase {
            Phase::Authenticating(request) => (false, request.user_name.as_deref()),
            _ => (true, connection.user_name.as_deref()),
        };
        let mut step = AuthStep {
            method: &enhanced.method,
            data: auth.properties.binary(PropertyId::AuthenticationData),
            begins,
            is_again,
            client_id: connection.client_name(),
            user_name,
            peer: &connection.peer,
            exchange: &mut enhanced.exchange,
        };
        let answer = broker.authenticator.continue_with(&mut step, token);
        connection.admission.enhanced = Some(enhanced);
        self.remind_of_expiry(key);
        match answer {
            Answer::Ready(verdict) => self.authenticated(key, verdict, now),
            Answer::Pending => self.wait_for_answer(key, token, now),
        }
    }

    /// The authenticator has decided about a CONNECT. A ban that came meanwhile, or of a name that only the exchange told, is looked at
    /// first: who is banned hears the same whether he has guessed right or wrong.
    pub(super) fn authenticated(&mut self, key: ConnectionKey, verdict: Verdict, now: Time) {
        if let Err(refusal) = self.check_claim(key, now) {
            return self.refuse(key, &refusal, now);
        }
        let Some(connection) = self.residents.connections.get_mut(key.0) else {
            return;
        };
        if !matches!(verdict, Verdict::Continue(_)) {
            self.strangers.forget(key);
        }
        match std::mem::replace(&mut connection.phase, Phase::Opening) {
            Phase::Authenticating(request) => match verdict {
                Verdict::Admit(identity) => self.admit(key, request, identity, now),
                Verdict::Continue(data) => {
                    connection.phase = Phase::Authenticating(request);
                    self.ask_for_more(key, &data, now);
                }
                Verdict::Refuse(refusal) => {
                    let claimed = enhanced(connection).and_then(|enhanced| enhanced.exchange.user_name.take());
                    let user_name = claimed.or_else(|| request.user_name.clone());
                    connection.user_name = user_name.filter(|name| !looks_like_token(name));
                    match refusal.why {
                        TOO_MANY_CHECKS => self.metrics().limit_password_checks.increment(),
                        TOO_MANY_TOKEN_CHECKS => self.metrics().limit_token_checks.increment(),
                        TOKEN_TOO_LARGE => self.metrics().limit_token_bytes.increment(),
                        _ => {}
                    }
                    self.count_refusal(key, refusal.why, now);
                    self.refuse(key, &refusal, now);
                }
            },
            Phase::Connected => {
                connection.phase = Phase::Connected;
                self.authenticated_again(key, verdict, now);
            }
            other => connection.phase = other,
        }
    }

    /// Whether a connected client that authenticates again is banned by now, as its user: it hears no more of what is right than who connects.
    fn ban_of_connected(&self, key: ConnectionKey, now: Time) -> Option<Refusal> {
        let connection = self.residents.connections.get(key.0)?;
        if !matches!(connection.phase, Phase::Connected) {
            return None; // what it says it is, is looked at when it has said so
        }
        self.check_ban(key, connection.user_name.as_deref(), now).err()
    }

    /// Refuses a client that wants to connect as a user who is banned.
    fn check_claim(&self, key: ConnectionKey, now: Time) -> Result<(), Refusal> {
        let Some(connection) = self.residents.connections.get(key.0) else {
            return Ok(());
        };
        let Phase::Authenticating(request) = &connection.phase else {
            return Ok(());
        };
        let enhanced = connection.admission.enhanced.as_ref();
        let claimed = enhanced.and_then(|enhanced| enhanced.exchange.user_name.as_deref());
        self.check_ban(key, claimed.or(request.user_name.as_deref()), now)
    }

    /// The authenticator has decided about a client that authenticates again.
    fn authenticated_again(&mut self, key: ConnectionKey, verdict: Verdict, now: Time) {
        let identity = match verdict {
            Verdict::Continue(data) => return self.ask_for_more(key, &data, now),
            Verdict::Refuse(refusal) => {
                self.count_refusal(key, refusal.why, now);
                return self.let_go(key, refusal.reason, refusal.why, now);
            }
            Verdict::Admit(identity) => identity,
        };
        let Some(connection) = self.residents.connections.get_mut(key.0) else {
            return;
        };
        if connection.user_name != identity.user_name {
            // Its session, its will and what it published are the former user's.
            return self.let_go(key, ReasonCode::NotAuthorized, "another_user", now);
        }
        let data = identity.data.clone();
        accept_identity(connection, identity, now);
        if let Some(why) = self.must_go(key) {
            return self.let_go(key, ReasonCode::NotAuthorized, why, now);
        }
        self.settle_access(key);
        self.look_at_will_again(key);
        self.remind_of_expiry(key);
        self.send_auth(key, ReasonCode::Success, data.as_deref(), now);
    }

    /// Authenticating again has failed [MQTT-4.12.1-2].
    fn let_go(&mut self, key: ConnectionKey, reason: ReasonCode, why: &'static str, now: Time) {
        let reason = match reason {
            // DISCONNECT has no such code (table 3-13).
            ReasonCode::BadUserNameOrPassword | ReasonCode::BadAuthenticationMethod | ReasonCode::Banned => {
                ReasonCode::NotAuthorized
            }
            ReasonCode::ServerUnavailable => ReasonCode::ServerBusy,
            reason => reason,
        };
        self.end_connection(key, Ending::Refused(reason, why), now);
    }

    /// Sees to it that a client goes when what it was let in for ends.
    pub(super) fn remind_of_expiry(&mut self, key: ConnectionKey) {
        let connection = self.residents.connections.get(key.0);
        let expires_at = connection.map_or(Time::NEVER, |connection| connection.admission.expires_at);
        self.remind(key, expires_at);
    }

    /// The client has to say more before it is decided [MQTT-4.12.0-2].
    fn ask_for_more(&mut self, key: ConnectionKey, data: &[u8], now: Time) {
        let connection = self.residents.connections.get_mut(key.0);
        if let Some(enhanced) = connection.and_then(enhanced) {
            enhanced.is_running = true;
        }
        self.send_auth(key, ReasonCode::ContinueAuthentication, Some(data), now);
    }

    fn send_auth(&mut self, key: ConnectionKey, reason: ReasonCode, data: Option<&[u8]>, now: Time) {
        let mut properties = PropertiesBuf::new();
        let Some(connection) = self.residents.connections.get(key.0) else {
            return;
        };
        if let Some(enhanced) = &connection.admission.enhanced {
            properties.push_text(PropertyId::AuthenticationMethod, &enhanced.method);
        }
        if let Some(data) = data {
            properties.push_binary(PropertyId::AuthenticationData, data);
        }
        let properties = properties.view();
        if !self.send_packet(key, &Packet::Auth(Auth { reason, properties })) {
            // It could never go on: its maximum packet size is too small for the exchange.
            let ending = Ending::Refused(ReasonCode::PacketTooLarge, "maximum_packet_size_too_small");
            self.end_connection(key, ending, now);
        }
    }
}

/// Whether an AUTH with this reason may come now: to go on where the client was asked to, or, once it is connected and no exchange is
/// under way, to begin again.
fn is_in_turn(connection: &Connection, enhanced: &Enhanced, reason: ReasonCode) -> bool {
    match reason {
        ReasonCode::ContinueAuthentication => enhanced.is_running,
        ReasonCode::ReAuthenticate => {
            !enhanced.is_running && matches!(connection.phase, Phase::Connected) && connection.has_connack
        }
        _ => false,
    }
}

/// Of most there is none, and none is made.
fn enhanced(connection: &mut Connection) -> Option<&mut Enhanced> {
    connection.admission.get_mut()?.enhanced.as_mut()
}

fn forget_exchange(connection: &mut Connection) {
    if let Some(enhanced) = enhanced(connection) {
        enhanced.exchange = Exchange::default();
    }
}

/// Takes over who a client is.
pub(super) fn accept_identity(connection: &mut Connection, identity: Identity, now: Time) {
    forget_exchange(connection);
    connection.user_name = identity.user_name;
    connection.source = None; // it says who he was, and whether he had rights of his own
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
    use crate::auth::Authenticator;
    use crate::auth::tests::Silent;
    use crate::broker::worker::Status;
    use crate::broker::{Broker, BrokerOptions, Parts};
    use crate::protocol::ids::{Token, WorkerId};
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

    /// Asks and asks.
    struct Endless;

    impl Authenticator for Endless {
        fn connect(&self, _: &ConnectRequest, _: &Peer, _: Token) -> Answer<Verdict> {
            panic!("the client names a method")
        }

        fn knows_method(&self, _: &str, _: &Peer) -> bool {
            true
        }

        fn continue_with(&self, step: &mut AuthStep<'_>, _: Token) -> Answer<Verdict> {
            Answer::Ready(match step.data {
                Some(b"in") => Verdict::Admit(Identity::default()),
                Some(b"an") => Verdict::Admit(Identity {
                    user_name: Some("another".into()),
                    ..Identity::default()
                }),
                Some(b"of") => Verdict::Refuse(Refusal {
                    reason: ReasonCode::ServerUnavailable,
                    why: "backend_failed",
                }),
                _ => Verdict::Continue(b"more"[..].into()),
            })
        }
    }

    fn endless_worker(now: Time) -> Worker {
        worker_with(BrokerOptions::default(), now)
    }

    fn worker_with(options: BrokerOptions, now: Time) -> Worker {
        let parts = Parts {
            authenticator: Arc::new(Endless),
            ..Parts::default()
        };
        let broker = Broker::new(options, 1, parts);
        Worker::new(broker, WorkerId(0), now)
    }

    /// Whatever an authenticator says: session, will and subscriptions are those of who it was.
    #[test]
    fn nobody_becomes_another_user_while_he_is_connected() {
        let now = Time(1_000_000);
        let mut worker = endless_worker(now);
        let key = worker.open(peer(), now.plus_secs(10), now);
        let connect = b"\x10\x17\x00\x04MQTT\x05\x02\x00\x00\x09\x15\x00\x01m\x16\x00\x02in\x00\x01c";
        worker.receive(key, connect, now);
        worker.receive(key, b"\xF0\x0B\x19\x09\x15\x00\x01m\x16\x00\x02in", now);
        assert_eq!(worker.status(key), Status::Open);
        // What it publishes from now on is signed anew.
        let signed = worker.source_of(key).unwrap();
        worker.receive(key, b"\xF0\x0B\x19\x09\x15\x00\x01m\x16\x00\x02in", now);
        assert!(!Arc::ptr_eq(&signed, &worker.source_of(key).unwrap()));
        worker.receive(key, b"\xF0\x0B\x19\x09\x15\x00\x01m\x16\x00\x02an", now);
        assert_eq!(worker.status(key), Status::Closing);
        let sent: Vec<u8> = worker.output(key).unwrap().chunks().flatten().copied().collect();
        assert!(
            sent.ends_with(&[0xE0, 2, 0x87, 0]) || sent.ends_with(&[0xE0, 1, 0x87]),
            "{sent:02x?}"
        );
    }

    /// 0x88 is no code of DISCONNECT [MQTT-3.14.2-1].
    #[test]
    fn who_authenticates_again_where_nobody_answers_is_told_that_the_server_is_busy() {
        let now = Time(1_000_000);
        let mut worker = endless_worker(now);
        let key = worker.open(peer(), now.plus_secs(10), now);
        let connect = b"\x10\x17\x00\x04MQTT\x05\x02\x00\x00\x09\x15\x00\x01m\x16\x00\x02in\x00\x01c";
        worker.receive(key, connect, now);
        worker.receive(key, b"\xF0\x0B\x19\x09\x15\x00\x01m\x16\x00\x02of", now);
        assert_eq!(worker.status(key), Status::Closing);
        let sent: Vec<u8> = worker.output(key).unwrap().chunks().flatten().copied().collect();
        assert!(
            sent.ends_with(&[0xE0, 2, 0x89, 0]) || sent.ends_with(&[0xE0, 1, 0x89]),
            "{sent:02x?}"
        );
    }

    /// A will of 20,000 bytes is kept from the first packet to the last.
    #[test]
    fn what_is_kept_while_clients_authenticate_is_bounded() {
        let now = Time(1_000_000);
        let options = BrokerOptions {
            unauthenticated_bytes_max: 64 << 10,
            ..BrokerOptions::default()
        };
        let mut worker = worker_with(options, now);
        let connect = |id: u8| {
            let begin = b"\x10\xBD\x9C\x01\x00\x04MQTT\x05\x06\x00\x00\x09\x15\x00\x01m\x16\x00\x02no\x00\x01";
            let end = [&[id, 0][..], b"\x00\x01t\x4E\x20", &[b'w'; 20_000]].concat();
            [&begin[..], &end].concat()
        };
        let come = |worker: &mut Worker, id| {
            let key = worker.open(peer(), now.plus_secs(10), now);
            assert_eq!(worker.receive(key, &connect(id), now), 20_033);
            (key, worker.status(key))
        };
        let waiting = [b'a', b'b', b'c'].map(|id| come(&mut worker, id));
        assert!(waiting.iter().all(|(_, status)| *status == Status::Open));
        assert_eq!(come(&mut worker, b'd').1, Status::Closing);
        assert_eq!(worker.metrics().limit_unauthenticated_bytes.get(), 1);
        // One that has entered has left its room to others.
        worker.receive(waiting[0].0, b"\xF0\x0B\x18\x09\x15\x00\x01m\x16\x00\x02in", now);
        assert_eq!(worker.status(waiting[0].0), Status::Open);
        assert_eq!(come(&mut worker, b'e').1, Status::Open);
        assert_eq!(come(&mut worker, b'f').1, Status::Closing);
    }

    #[test]
    fn who_begins_to_authenticate_and_does_not_end_it_goes() {
        let now = Time(1_000_000);
        let mut worker = endless_worker(now);
        // Method `m`, data of two bytes.
        let connect = |data: &[u8; 2]| {
            [
                b"\x10\x17\x00\x04MQTT\x05\x02\x00\x00\x09\x15\x00\x01m\x16\x00\x02",
                &data[..],
                b"\x00\x01c",
            ]
            .concat()
        };
        let first = worker.open(peer(), now.plus_secs(10), now);
        worker.receive(first, &connect(b"no"), now);
        worker.expire(now.plus_millis(9_999));
        assert_eq!(worker.status(first), Status::Open);
        worker.expire(now.plus_secs(10));
        assert_eq!(worker.status(first), Status::Closing, "as without CONNECT");
        let again = worker.open(peer(), now.plus_secs(10), now);
        worker.receive(again, &connect(b"in"), now);
        let auth = |reason| [&[0xF0, 0x06, reason, 4][..], b"\x15\x00\x01m"].concat();
        worker.receive(again, &auth(0x19), now);
        for step in 1..30 {
            let now = now.plus_secs(step);
            worker.receive(again, &auth(0x18), now);
            worker.expire(now);
            assert_eq!(worker.status(again), Status::Open, "after {step} s");
        }
        worker.expire(now.plus_secs(30));
        assert_eq!(
            worker.status(again),
            Status::Closing,
            "it has had its time, however much it says"
        );
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
