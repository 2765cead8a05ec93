//! CONNACK with success: what a client is told about the broker and its session.

use super::worker::Worker;
use crate::codec::encode;
use crate::delivery::stored;
use crate::protocol::ids::{ConnectionKey, Ticket};
use crate::protocol::packet::{ConnAck, Packet};
use crate::protocol::property::{PropertiesBuf, PropertyId};
use crate::protocol::qos::QoS;
use crate::protocol::reason::ReasonCode;
use crate::protocol::version::Version;
use crate::session::connection::Connection;
use crate::session::held::Waiting;
use crate::session::request::ConnectRequest;

/// The largest Maximum Packet Size that is announced: some clients take one above the longest remaining length for an error.
const ANNOUNCED_BYTES_MAX: u32 = 268_435_455;

impl Worker {
    /// CONNACK with success, at once or when its ticket is done; false where the client takes no packet of its size.
    pub(super) fn send_connack(
        &mut self,
        key: ConnectionKey,
        request: &ConnectRequest,
        is_present: bool,
        ticket: Ticket,
    ) -> bool {
        let Some(connection) = self.residents.connections.get(key.0) else {
            return false;
        };
        let mut properties = PropertiesBuf::new();
        if request.version.has_properties() {
            self.describe(connection, request, &mut properties);
        }
        // MQTT 3.1 has no session present flag.
        let session_present = is_present && request.version != Version::V31;
        let connack = ConnAck {
            session_present,
            reason: ReasonCode::Success,
            properties: properties.view(),
        };
        self.residents.touch(key); // it gets a buffer
        let Some(connection) = self.residents.connections.get_mut(key.0) else {
            return false;
        };
        let is_at_once = connection.held.is_empty() && self.residents.journal.is_stored(ticket);
        let mut apart = Vec::new();
        let bytes = if is_at_once {
            connection.output.tail()
        } else {
            &mut apart
        };
        let start = bytes.len();
        if encode(&Packet::ConnAck(connack), connection.version, bytes).is_err()
            || bytes.len() - start > connection.packet_bytes_max as usize
        {
            bytes.truncate(start);
            return false;
        }
        if is_at_once {
            connection.has_connack = true;
            self.residents.metrics.packets_sent.increment();
            return true;
        }
        let bytes = apart;
        let packet = Waiting::ConnAck(bytes.into());
        stored::hold(key, connection, packet, ticket, &mut self.residents.held);
        true
    }

    /// What an MQTT 5 client is told about the broker and its session.
    fn describe(&self, connection: &Connection, request: &ConnectRequest, properties: &mut PropertiesBuf) {
        let options = &self.broker.options;
        let maximum_qos = self.maximum_qos(connection);
        if options.topic_alias_maximum > 0 {
            properties.push_u16(PropertyId::TopicAliasMaximum, options.topic_alias_maximum);
        }
        if request.client_id.is_empty() {
            properties.push_text(PropertyId::AssignedClientIdentifier, connection.client_name());
        }
        properties.push_u32(
            PropertyId::MaximumPacketSize,
            options.decode.packet_bytes_max.min(ANNOUNCED_BYTES_MAX),
        );
        properties.push_u16(PropertyId::ReceiveMaximum, options.receive_maximum);
        if maximum_qos < QoS::ExactlyOnce {
            properties.push_byte(PropertyId::MaximumQoS, maximum_qos.bits());
        }
        for (id, is_available) in [
            (PropertyId::RetainAvailable, options.retain_available),
            (
                PropertyId::WildcardSubscriptionAvailable,
                options.wildcard_subscriptions,
            ),
            (
                PropertyId::SubscriptionIdentifierAvailable,
                options.subscription_identifiers,
            ),
            (PropertyId::SharedSubscriptionAvailable, options.shared_subscriptions),
        ] {
            if !is_available {
                properties.push_byte(id, 0);
            }
        }
        if let Some(wanted) = request.session_expiry
            && wanted > options.session_expiry_max
        {
            properties.push_u32(PropertyId::SessionExpiryInterval, options.session_expiry_max);
        }
        let keep_alive = negotiated_keep_alive(request, options);
        if keep_alive != request.keep_alive {
            properties.push_u16(PropertyId::ServerKeepAlive, keep_alive);
        }
        if request.wants_response_information
            && let Some(information) = &options.response_information
        {
            properties.push_text(PropertyId::ResponseInformation, information);
        }
        if let Some(method) = &request.authentication_method {
            properties.push_text(PropertyId::AuthenticationMethod, method);
            if let Some(data) = &request.authentication_data {
                properties.push_binary(PropertyId::AuthenticationData, data);
            }
        }
    }
}

pub(super) fn negotiated_keep_alive(request: &ConnectRequest, options: &super::BrokerOptions) -> u16 {
    if !request.version.has_properties() {
        return request.keep_alive; // they cannot be told
    }
    if let Some(told) = options.server_keep_alive {
        return told;
    }
    let is_unlimited = request.keep_alive == 0 && options.keep_alive_max < u16::MAX;
    if is_unlimited {
        options.keep_alive_max
    } else {
        request.keep_alive.min(options.keep_alive_max)
    }
}
