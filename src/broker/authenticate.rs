//! AUTH: enhanced authentication, at CONNECT and again later (MQTT 5 section 4.12).

use super::endings::Ending;
use super::worker::Worker;
use crate::auth::{Answer, AuthStep, Verdict};
use crate::protocol::ids::ConnectionKey;
use crate::protocol::packet::{Auth, Packet, PacketType};
use crate::protocol::property::{PropertiesBuf, PropertyId};
use crate::protocol::reason::ReasonCode;
use crate::protocol::time::Time;
use crate::session::connection::Phase;
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
        let Some(method) = connection.authentication_method.clone() else {
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
                if let Some(connection) = self.residents.connections.get_mut(key.0) {
                    connection.user_name = identity.user_name;
                    connection.is_believed = identity.is_believed;
                    connection.stamp = identity.stamp;
                }
                self.settle_access(key);
                self.send_auth(key, ReasonCode::Success, identity.data.as_deref());
            }
            Verdict::Continue(data) => self.send_auth(key, ReasonCode::ContinueAuthentication, Some(&data)),
            Verdict::Refuse(refusal) => self.end_connection(key, Ending::Refused(refusal.reason, refusal.why), now),
        }
    }

    pub(super) fn send_auth(&mut self, key: ConnectionKey, reason: ReasonCode, data: Option<&[u8]>) {
        let mut properties = PropertiesBuf::new();
        let Some(connection) = self.residents.connections.get(key.0) else {
            return;
        };
        if let Some(method) = &connection.authentication_method {
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
