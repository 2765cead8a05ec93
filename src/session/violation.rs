//! What a peer did wrong, and the one table from there to reason codes.

use crate::codec::DecodeError;
use crate::protocol::ids::PacketId;
use crate::protocol::mount::TooLong;
use crate::protocol::packet::PacketType;
use crate::protocol::qos::QoS;
use crate::protocol::reason::ReasonCode;

/// A breach of the protocol, or of a limit that was announced. It ends the connection.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Violation {
    /// The bytes are not a packet.
    #[error("{0}")]
    Decode(#[from] DecodeError),
    /// A second CONNECT [MQTT-3.1.0-2].
    #[error("a second CONNECT on one connection")]
    SecondConnect,
    /// A packet that has no place in this state.
    #[error("{} is not expected now", .0.name())]
    Unexpected(PacketType),
    /// QoS above the maximum that was announced [MQTT-3.2.2-11].
    #[error("QoS {} is above the maximum QoS of this server", .0.bits())]
    QosNotSupported(QoS),
    /// Retain where it is not available [MQTT-3.2.2-14].
    #[error("retained messages are not available on this server")]
    RetainNotSupported,
    /// Topic alias zero, above the maximum [MQTT-3.3.2-9], or not set.
    #[error("topic alias {0} is above the maximum or has not been set")]
    TopicAlias(u16),
    /// More unacknowledged PUBLISH packets than the receive maximum [MQTT-3.3.4-7].
    #[error("more than {0} PUBLISH packets without acknowledgement, the receive maximum of this server")]
    ReceiveMaximum(u16),
    /// A wildcard subscription where it is not available.
    #[error("wildcard subscriptions are not available on this server")]
    WildcardSubscriptions,
    /// A shared subscription where it is not available.
    #[error("shared subscriptions are not available on this server")]
    SharedSubscriptions,
    /// A subscription identifier where it is not available.
    #[error("subscription identifiers are not available on this server")]
    SubscriptionIdentifiers,
    /// Session Expiry Interval at DISCONNECT although it was zero at CONNECT [MQTT-3.14.2-2].
    #[error("a session expiry interval at DISCONNECT although it was 0 at CONNECT")]
    SessionExpiry,
    /// AUTH without, or with another, authentication method [MQTT-4.12.0-5].
    #[error("AUTH with another authentication method than at CONNECT")]
    AuthenticationMethod,
    /// No packet for one and a half times the keep alive [MQTT-3.1.2-22].
    #[error("no packet for {silent_ms} ms, keep alive is {keep_alive_ms} ms")]
    KeepAlive {
        /// Since the last byte came.
        silent_ms: u64,
        /// As agreed.
        keep_alive_ms: u64,
    },
    /// An acknowledgement for a delivery of another QoS.
    #[error("{} for packet identifier {} which waits for another acknowledgement", .0.name(), .1)]
    WrongAcknowledgement(PacketType, PacketId),
    /// A topic, or a filter, that is too long with the mount point of its tenant [MQTT-4.7.3-3].
    #[error("a topic or filter {0}")]
    MountedTooLong(#[from] TooLong),
    /// The payload is not UTF-8 though its format indicator says so.
    #[error("the payload is not UTF-8 though its payload format indicator says so")]
    PayloadFormat,
}

impl Violation {
    /// The reason code that tells the peer.
    pub const fn reason(&self) -> ReasonCode {
        match self {
            Self::Decode(error) => error.reason(),
            Self::SecondConnect
            | Self::Unexpected(_)
            | Self::SessionExpiry
            | Self::AuthenticationMethod
            | Self::WrongAcknowledgement(..) => ReasonCode::ProtocolError,
            Self::QosNotSupported(_) => ReasonCode::QosNotSupported,
            Self::RetainNotSupported => ReasonCode::RetainNotSupported,
            Self::TopicAlias(_) => ReasonCode::TopicAliasInvalid,
            Self::ReceiveMaximum(_) => ReasonCode::ReceiveMaximumExceeded,
            Self::WildcardSubscriptions => ReasonCode::WildcardSubscriptionsNotSupported,
            Self::SharedSubscriptions => ReasonCode::SharedSubscriptionsNotSupported,
            Self::SubscriptionIdentifiers => ReasonCode::SubscriptionIdentifiersNotSupported,
            Self::KeepAlive { .. } => ReasonCode::KeepAliveTimeout,
            Self::PayloadFormat => ReasonCode::PayloadFormatInvalid,
            Self::MountedTooLong(_) => ReasonCode::TopicNameInvalid,
        }
    }
}
