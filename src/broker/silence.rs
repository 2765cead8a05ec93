//! Reminders of connections: silence, and what did not come in time.

use super::endings::Ending;
use super::worker::{ANSWER_MAX_MS, Worker};
use crate::protocol::ids::ConnectionKey;
use crate::protocol::reason::ReasonCode;
use crate::protocol::time::Time;
use crate::session::connection::Phase;
use crate::session::violation::Violation;

impl Worker {
    /// Why a client is let go late: what it will try again at once would not be kept.
    fn what_is_full(&self) -> &'static str {
        match self.is_memory_spent() {
            true => "limits.memory_max",
            false => "storage_failed",
        }
    }

    /// A connection's reminder: has it been silent for too long, has its CONNECT come, has an answer it waits for?
    pub(super) fn check_silence(&mut self, key: ConnectionKey, now: Time) {
        let is_backed_up = self.is_backed_up();
        let Some(connection) = self.residents.connections.get_mut(key.0) else {
            return;
        };
        let ends_at = connection.ends_at;
        if ends_at <= now {
            let ending = Ending::Refused(ReasonCode::QuotaExceeded, self.what_is_full());
            return self.end_connection(key, ending, now);
        }
        if now < connection.reminded_at {
            return; // another reminder counts
        }
        connection.reminded_at = Time::NEVER;
        if ends_at != Time::NEVER {
            return self.remind(key, ends_at);
        }
        let expires_at = connection.admission.expires_at;
        if expires_at <= now {
            let is_asked = connection
                .admission
                .enhanced
                .as_ref()
                .is_some_and(|enhanced| enhanced.is_running);
            let ending = if is_asked {
                Ending::Refused(ReasonCode::NotAuthorized, "auth_timeout")
            } else {
                Ending::Expired
            };
            return self.end_connection(key, ending, now);
        }
        let asked = connection.review.asked.as_ref().map(|asked| asked.since);
        if let Some(since) = connection.questions.waiting_since().or(asked) {
            if now.millis_since(since) >= ANSWER_MAX_MS {
                let ending = no_answer(&connection.phase);
                return self.end_connection(key, ending, now);
            }
            connection.last_received = now; // it is we who let it wait
            return self.remind(key, since.plus_millis(ANSWER_MAX_MS).min(expires_at));
        }
        match connection.phase {
            Phase::Closing => {}
            Phase::Connected => {
                if connection.silence_max_ms == 0 {
                    return self.remind(key, expires_at);
                }
                if is_backed_up || connection.is_held_up() {
                    connection.last_received = now; // it is we who do not read
                }
                let silent_ms = now.millis_since(connection.last_received);
                if silent_ms >= connection.silence_max_ms.into() {
                    let keep_alive_ms = connection.keep_alive_ms.into();
                    let violation = Violation::KeepAlive {
                        silent_ms,
                        keep_alive_ms,
                    };
                    self.end_connection(key, Ending::Violation(violation), now);
                } else {
                    let at = connection.last_received.plus_millis(connection.silence_max_ms.into());
                    self.remind(key, at.min(expires_at));
                }
            }
            Phase::Opening | Phase::Authenticating(_) | Phase::Admitted(_) => {
                self.end_unconnected(key, now);
            }
        }
    }

    /// It has not entered in time.
    fn end_unconnected(&mut self, key: ConnectionKey, now: Time) {
        self.metrics().limit_connect_time.increment();
        self.end_connection(key, Ending::ConnectTimeout, now);
    }
}

/// Whoever was asked about a client has not answered.
const fn no_answer(phase: &Phase) -> Ending<'static> {
    let reason = match phase {
        Phase::Connected => ReasonCode::ServerBusy, // DISCONNECT has no 0x88 (table 3-13)
        _ => ReasonCode::ServerUnavailable,
    };
    Ending::Refused(reason, "no answer from authentication or authorisation in time")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::auth::{Access, Answer, Authorizer};
    use crate::broker::worker::Status;
    use crate::broker::{Broker, BrokerOptions, Parts};
    use crate::protocol::ids::{Token, WorkerId};
    use crate::protocol::qos::QoS;
    use crate::protocol::topic::{TopicFilter, TopicName};
    use crate::session::peer::tests::peer;

    /// Never answers.
    struct Mute;

    impl Authorizer for Mute {
        fn publish(&self, _: &Access<'_>, _: TopicName<'_>, _: QoS, _: bool, _: Token) -> Answer<bool> {
            Answer::Pending
        }

        fn subscribe(&self, _: &Access<'_>, _: TopicFilter<'_>, _: Token) -> Answer<bool> {
            Answer::Pending
        }
    }

    /// 0x88 is no code of DISCONNECT [MQTT-3.14.2-1].
    #[test]
    fn a_connected_client_whose_question_is_never_answered_is_told_that_the_server_is_busy() {
        let mut now = Time(1_000_000);
        let parts = Parts {
            authorizer: Arc::new(Mute),
            ..Parts::default()
        };
        let broker = Broker::new(BrokerOptions::default(), 1, parts);
        let mut worker = Worker::new(broker, WorkerId(0), now);
        let key = worker.open(peer(), now.plus_secs(10), now);
        worker.receive(key, b"\x10\x0e\x00\x04MQTT\x05\x02\x00\x00\x00\x00\x01c", now);
        worker.receive(key, b"\x82\x07\x00\x01\x00\x00\x01a\x01", now);
        assert_eq!(worker.status(key), Status::Waiting);
        now = now.plus_millis(ANSWER_MAX_MS);
        worker.expire(now);
        assert_eq!(worker.status(key), Status::Closing);
        let sent: Vec<u8> = worker.output(key).unwrap().chunks().flatten().copied().collect();
        assert!(
            sent.ends_with(&[0xE0, 2, 0x89, 0]) || sent.ends_with(&[0xE0, 1, 0x89]),
            "{sent:02x?}"
        );
    }
}
