//! What a client is made from, and what it publishes.

use bytes::Bytes;

use crate::protocol::property::PropertiesBuf;
use crate::protocol::qos::QoS;
use crate::protocol::version::Version;
use crate::scram::{Mechanism, Random};

/// How a client connects. MQTT 5 section 3.1.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// Default: 5.0.
    pub version: Version,
    /// Default: empty, the server assigns one (not before 3.1.1).
    pub client_id: String,
    /// Begin with a new session. Default: on. A connection that follows a lost one asks for its session again where the server
    /// may have kept it.
    pub clean_start: bool,
    /// Seconds, 0 for none. Default: 60. A server of MQTT 5 may ask for another.
    pub keep_alive: u16,
    /// Default: none.
    pub user_name: Option<String>,
    /// Default: none. Before MQTT 5 it needs a user name.
    pub password: Option<Vec<u8>>,
    /// Prove the password instead of showing it (5.0); it is stretched in between, which may take a second. Default: none.
    pub scram: Option<ClientScram>,
    /// What the server publishes when the connection is lost. Default: nothing.
    pub will: Option<ClientWill>,
    /// Properties of CONNECT (5.0): session expiry interval, receive maximum, maximum packet size, topic alias maximum and so
    /// on. The client keeps the server to the limits that stand here. Default: none.
    pub properties: PropertiesBuf,
    /// Messages that are published and not yet sent, at most; more are refused. Default: 1,000.
    pub waiting_max: usize,
    /// Messages of QoS 1 and 2 on their way at the same time, at most; the server's receive maximum counts too. Default: 20.
    pub in_flight_max: u16,
    /// Milliseconds from CONNECT to CONNACK, at most. Default: 10,000.
    pub connect_timeout: u64,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            version: Version::V5,
            client_id: String::new(),
            clean_start: true,
            keep_alive: 60,
            user_name: None,
            password: None,
            scram: None,
            will: None,
            properties: PropertiesBuf::new(),
            waiting_max: 1000,
            in_flight_max: 20,
            connect_timeout: 10_000,
        }
    }
}

/// How a client proves its password.
#[derive(Clone, Copy, Debug)]
pub struct ClientScram {
    /// By which mechanism.
    pub mechanism: Mechanism,
    /// Makes nonces.
    pub random: Random,
}

/// The will of a client.
#[derive(Clone, Debug, Default)]
pub struct ClientWill {
    /// Topic name.
    pub topic: String,
    /// Payload, at most 65,535 bytes.
    pub payload: Bytes,
    /// QoS.
    pub qos: QoS,
    /// Whether it is retained.
    pub retain: bool,
    /// Will properties (5.0).
    pub properties: PropertiesBuf,
}

/// A message to publish.
#[derive(Clone, Debug, Default)]
pub struct Outgoing {
    /// Topic name.
    pub topic: String,
    /// Payload.
    pub payload: Bytes,
    /// QoS.
    pub qos: QoS,
    /// Whether it is retained.
    pub retain: bool,
    /// Properties of PUBLISH (5.0), without topic alias: the client sees to that.
    pub properties: PropertiesBuf,
}

impl Outgoing {
    /// A message of QoS 0.
    pub fn new(topic: impl Into<String>, payload: impl Into<Bytes>) -> Self {
        Self {
            topic: topic.into(),
            payload: payload.into(),
            ..Self::default()
        }
    }

    /// The same at another QoS.
    #[must_use]
    pub const fn qos(mut self, qos: QoS) -> Self {
        self.qos = qos;
        self
    }

    /// The same, retained.
    #[must_use]
    pub const fn retained(mut self) -> Self {
        self.retain = true;
        self
    }
}
