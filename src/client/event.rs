//! What a client has to say: events, and errors of requests.

use bytes::Bytes;

use crate::codec::{DecodeError, EncodeError};
use crate::protocol::ids::PacketId;
use crate::protocol::property::PropertiesBuf;
use crate::protocol::qos::QoS;
use crate::protocol::reason::ReasonCode;
use crate::protocol::topic::TopicError;
use crate::protocol::version::Version;
use crate::scram;

/// Names a request in the event that answers it. Never used twice by one client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub(super) u64);

/// Something happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The server let us in.
    Connected(Connected),
    /// A message came. It is acknowledged when the event is taken.
    Message(Received),
    /// A message of ours is done: written (QoS 0), or acknowledged in full with this reason.
    Published(RequestId, Result<ReasonCode, RequestError>),
    /// SUBACK: one reason for each filter, in order.
    Subscribed(RequestId, Vec<ReasonCode>),
    /// UNSUBACK: one reason for each filter, in order (5.0; empty before).
    Unsubscribed(RequestId, Vec<ReasonCode>),
    /// AUTH: the server goes on with enhanced authentication. MQTT 5 section 4.12.
    Auth(ReasonCode, PropertiesBuf),
    /// The connection is over. Subscriptions that were not answered must be asked for again, messages must not.
    Disconnected(Fault),
}

/// What CONNACK says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connected {
    /// The server kept our session: subscriptions stand.
    pub session_present: bool,
    /// Our name, assigned by the server where we had none.
    pub client_id: String,
    /// Properties (5.0).
    pub properties: PropertiesBuf,
}

/// A message from the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// Topic name, alias resolved.
    pub topic: String,
    /// Payload.
    pub payload: Bytes,
    /// QoS.
    pub qos: QoS,
    /// It was retained when we subscribed.
    pub retain: bool,
    /// Sent before.
    pub dup: bool,
    /// Present at QoS 1 and 2.
    pub packet_id: Option<PacketId>,
    /// Properties (5.0).
    pub properties: PropertiesBuf,
}

/// Why a connection is over.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// CONNACK with a refusal.
    #[error("connection refused by the server: {}{}", .0.name(), because(.1))]
    Refused(ReasonCode, PropertiesBuf),
    /// DISCONNECT from the server.
    #[error("disconnected by the server: {}{}", .0.name(), because(.1))]
    Disconnected(ReasonCode, PropertiesBuf),
    /// What the server sent cannot be read.
    #[error("the server sent what is not MQTT {version}: {source}", version = .1.name(), source = .0)]
    Malformed(DecodeError, Version),
    /// The server does what it must not.
    #[error("the server broke the protocol: {0}")]
    Protocol(&'static str),
    /// The server is silent.
    #[error("no answer from the server within {0} s; is it an MQTT port?")]
    Timeout(u64),
    /// Enhanced authentication went wrong on our side, or the server does not know the password.
    #[error("enhanced authentication: {0}")]
    Authentication(scram::Fault),
    /// The system gave no nonce.
    #[error("the system has no random numbers")]
    NoRandomNumbers,
    /// Our CONNECT cannot be written.
    #[error("cannot write CONNECT: {0}")]
    Connect(RequestError),
    /// The network connection broke; the text says how.
    #[error("connection lost: {0}")]
    Lost(String),
    /// The same before the server had answered CONNECT.
    #[error("connection lost before the server answered: {0}")]
    Unanswered(String),
}

impl Fault {
    /// True where connecting again may help.
    pub const fn is_passing(&self) -> bool {
        use ReasonCode as R;
        match self {
            Self::Refused(reason, _) => matches!(
                reason,
                R::ServerUnavailable | R::ServerBusy | R::ConnectionRateExceeded | R::QuotaExceeded
            ),
            Self::Disconnected(reason, _) => {
                !matches!(reason, R::SessionTakenOver | R::AdministrativeAction | R::Banned)
            }
            Self::Timeout(_) | Self::Lost(_) | Self::Unanswered(_) => true,
            Self::Malformed(..)
            | Self::Protocol(_)
            | Self::Authentication(_)
            | Self::NoRandomNumbers
            | Self::Connect(_) => false,
        }
    }
}

fn because(properties: &PropertiesBuf) -> String {
    let reason = properties
        .view()
        .text(crate::protocol::property::PropertyId::ReasonString);
    reason.map_or_else(String::new, |reason| format!(" ({reason})"))
}

/// Why a request cannot be carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// Subscribing needs a connection.
    #[error("there is no connection")]
    NotConnected,
    /// Too many messages wait, or too many requests are not answered.
    #[error("{0} requests wait already; wait for their answers")]
    Full(usize),
    /// The topic name.
    #[error("the topic name {0:?} {1}")]
    Topic(String, TopicError),
    /// The topic filter.
    #[error("the topic filter {0:?} {1}")]
    Filter(String, TopicError),
    /// Larger than the server takes.
    #[error("the packet has {bytes} bytes, the server takes {bytes_max}")]
    TooLarge {
        /// Of the packet.
        bytes: usize,
        /// The server's maximum packet size.
        bytes_max: u32,
    },
    /// Above the server's maximum QoS.
    #[error("the server takes QoS {} at most", .0.bits())]
    QosNotSupported(QoS),
    /// The server keeps no retained messages.
    #[error("the server does not support retained messages")]
    RetainNotSupported,
    /// Does not fit the format.
    #[error(transparent)]
    Encode(#[from] EncodeError),
}
