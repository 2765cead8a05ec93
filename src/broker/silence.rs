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
                let ending = Ending::Refused(
                    ReasonCode::ServerUnavailable,
                    "no answer from authentication or authorisation in time",
                );
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
