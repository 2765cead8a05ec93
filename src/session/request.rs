//! What a CONNECT asks for, kept: it outlives its packet while an authenticator thinks or another worker takes the connection.

use std::sync::Arc;

use super::will::Will;
use crate::protocol::packet::Connect;
use crate::protocol::property::{PropertiesBuf, PropertyId};
use crate::protocol::version::Version;

/// A session that never expires: Session Expiry Interval 0xFFFFFFFF [MQTT-3.1.2-23].
pub const NEVER_EXPIRES: u32 = u32::MAX;

/// A CONNECT, owned.
pub struct ConnectRequest {
    /// Protocol version.
    pub version: Version,
    /// It is a bridge of the mosquitto family: wants nothing back that it published.
    pub is_bridge: bool,
    /// Begin without the old session.
    pub clean_start: bool,
    /// Seconds; 0 means none.
    pub keep_alive: u16,
    /// May be empty.
    pub client_id: Box<str>,
    /// Will message.
    pub will: Option<Will>,
    /// User name.
    pub user_name: Option<Box<str>>,
    /// Password.
    pub password: Option<Box<[u8]>>,
    /// Session Expiry Interval in seconds; `None` where the version has none and the session is to outlive the connection.
    pub session_expiry: Option<u32>,
    /// Unacknowledged QoS 1 and 2 PUBLISH packets the client takes.
    pub receive_maximum: u16,
    /// Largest packet the client takes, bytes.
    pub packet_bytes_max: u32,
    /// Highest topic alias the client takes.
    pub topic_alias_maximum: u16,
    /// Reason strings and user properties are wanted in every packet.
    pub wants_problem_information: bool,
    /// Response information is wanted in CONNACK.
    pub wants_response_information: bool,
    /// Enhanced authentication: method.
    pub authentication_method: Option<Box<str>>,
    /// Enhanced authentication: data.
    pub authentication_data: Option<Box<[u8]>>,
    /// User properties, encoded, in order; for authenticators.
    pub user_properties: PropertiesBuf,
    /// Gone with the request, when its connection is: who takes long to answer it can see that nobody waits any more.
    pub presence: Arc<()>,
}

/// Says who, and nothing that proves it.
impl core::fmt::Debug for ConnectRequest {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("ConnectRequest")
            .field("version", &self.version)
            .field("client_id", &self.client_id)
            .field("user_name", &self.user_name)
            .finish_non_exhaustive()
    }
}

impl ConnectRequest {
    /// Bytes of what the client chose the length of.
    pub fn cost_bytes(&self) -> usize {
        let texts = [&self.user_name, &self.authentication_method];
        let texts = texts.into_iter().flatten().map(|text| text.len());
        let secrets = [&self.password, &self.authentication_data];
        let secrets = secrets.into_iter().flatten().map(|secret| secret.len());
        let will = self.will.as_ref().map_or(0, |will| will.message().cost_bytes());
        let properties = self.user_properties.view().as_bytes().len();
        self.client_id.len() + texts.chain(secrets).sum::<usize>() + will + properties
    }

    /// Keeps a CONNECT.
    pub fn keep(connect: &Connect<'_>) -> Self {
        let properties = connect.properties;
        let mut user_properties = PropertiesBuf::new();
        for (name, value) in properties.user_properties() {
            user_properties.push_user_property(name, value);
        }
        let session_expiry = if connect.version.has_properties() {
            Some(properties.u32(PropertyId::SessionExpiryInterval).unwrap_or(0))
        } else if connect.clean_start {
            Some(0)
        } else {
            None
        };
        Self {
            version: connect.version,
            is_bridge: connect.is_bridge,
            clean_start: connect.clean_start,
            keep_alive: connect.keep_alive,
            client_id: connect.client_id.into(),
            will: connect.will.as_ref().map(Will::keep),
            user_name: connect.user_name.map(Into::into),
            password: connect.password.map(Into::into),
            session_expiry,
            receive_maximum: properties.u16(PropertyId::ReceiveMaximum).unwrap_or(u16::MAX),
            packet_bytes_max: properties.u32(PropertyId::MaximumPacketSize).unwrap_or(u32::MAX),
            topic_alias_maximum: properties.u16(PropertyId::TopicAliasMaximum).unwrap_or(0),
            wants_problem_information: properties.byte(PropertyId::RequestProblemInformation) != Some(0),
            wants_response_information: properties.byte(PropertyId::RequestResponseInformation) == Some(1),
            authentication_method: properties.text(PropertyId::AuthenticationMethod).map(Into::into),
            authentication_data: properties.binary(PropertyId::AuthenticationData).map(Into::into),
            user_properties,
            presence: Arc::default(),
        }
    }
}
