//! What can be wrong with bytes, and what the peer is told.

use crate::protocol::packet::PacketType;
use crate::protocol::property::PropertyId;
use crate::protocol::reason::ReasonCode;
use crate::protocol::topic::TopicError;
use crate::protocol::version::Version;

/// A packet that cannot be read. The connection it came from must be closed [MQTT-4.13.1-1].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecodeError {
    /// The fault.
    pub kind: ErrorKind,
    /// The packet type of the first byte; `None` for type 0.
    pub packet: Option<PacketType>,
    /// The connection's version, or the one that a faulty CONNECT announces; `None` where it announces none that is supported.
    pub version: Option<Version>,
    /// Where reading stopped, in bytes from the packet's first.
    pub offset: usize,
}

impl DecodeError {
    /// The reason code to send: in a CONNACK where CONNECT was at fault, else in a DISCONNECT.
    ///
    /// Where the standard leaves the choice between malformed packet and protocol error, it is the one that clients' tests of
    /// several brokers agree on.
    pub const fn reason(&self) -> ReasonCode {
        use ErrorKind as E;
        let is_subscription = matches!(self.packet, Some(PacketType::Subscribe | PacketType::Unsubscribe));
        match self.kind {
            E::RemainingLength
            | E::FixedHeaderFlags(_)
            | E::PublishQoS
            | E::PublishDup
            | E::Short
            | E::TrailingBytes
            | E::ConnectFlags(_)
            | E::PasswordWithoutUserName
            | E::Utf8
            | E::NullCharacter
            | E::ControlCharacter
            | E::TopicName(_)
            | E::TopicSeparators
            | E::TopicMissing
            | E::VariableByteInteger
            | E::PropertyUnknown(_)
            | E::NoFilters
            | E::SubscriptionOptions(_)
            | E::ConnAckFlags(_)
            | E::NoReasonCodes => ReasonCode::MalformedPacket,
            E::PacketType
            | E::WrongSender
            | E::ConnectExpected
            | E::SecondConnect
            | E::PropertyTwice(_)
            | E::PropertyValue(_)
            | E::AuthenticationMethodMissing
            | E::ReasonCode(_)
            | E::SharedNoLocal
            | E::SessionPresent => ReasonCode::ProtocolError,
            // Malformed by section 2.2.2.2, yet elsewhere than in SUBSCRIBE and UNSUBSCRIBE everybody answers a protocol error.
            E::PropertyNotAllowed(_) | E::PacketIdZero if is_subscription => ReasonCode::MalformedPacket,
            E::PropertyNotAllowed(_) | E::PacketIdZero => ReasonCode::ProtocolError,
            E::TopicFilter(TopicError::Share) | E::WillTopic(TopicError::Empty) => ReasonCode::ProtocolError,
            E::TopicFilter(_) | E::WillTopic(_) => ReasonCode::MalformedPacket,
            E::PacketTooLarge { .. } => ReasonCode::PacketTooLarge,
            E::ProtocolName | E::ProtocolLevel(_) => ReasonCode::UnsupportedProtocolVersion,
            E::TopicAliasZero => ReasonCode::TopicAliasInvalid,
            E::TopicTooLong if is_subscription => ReasonCode::TopicFilterInvalid,
            E::TopicTooLong => ReasonCode::TopicNameInvalid,
            E::TooManyFilters | E::TooManyUserProperties => ReasonCode::QuotaExceeded,
        }
    }
}

impl std::fmt::Display for DecodeError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let packet = self.packet.map_or("packet of type 0", PacketType::name);
        write!(f, "{packet} {}, at byte {}", self.kind, self.offset)
    }
}

impl std::error::Error for DecodeError {}

/// The exact fault. The text continues a sentence that begins with the packet's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ErrorKind {
    /// Remaining length of more than four bytes, or with needless ones [MQTT-1.5.5-1].
    #[error("has a remaining length that is not minimal or longer than four bytes")]
    RemainingLength,
    /// Over [`super::DecodeOptions::packet_bytes_max`].
    #[error("is too large: {bytes} bytes, at most {bytes_max} are read")]
    PacketTooLarge {
        /// Of the whole packet.
        bytes: u32,
        /// The limit.
        bytes_max: u32,
    },
    /// Type 0, or AUTH before MQTT 5.
    #[error("is of a type that this version reserves")]
    PacketType,
    /// Only the other side may send it.
    #[error("may not be sent in this direction")]
    WrongSender,
    /// Something else came first [MQTT-3.1.0-1].
    #[error("came where CONNECT has to be the first packet")]
    ConnectExpected,
    /// A CONNECT after a CONNECT [MQTT-3.1.0-2].
    #[error("came a second time")]
    SecondConnect,
    /// Reserved flags of the fixed header [MQTT-2.1.3-1].
    #[error("has flags {0:#06b} in its first byte")]
    FixedHeaderFlags(u8),
    /// QoS 3 [MQTT-3.3.1-4].
    #[error("has QoS 3")]
    PublishQoS,
    /// DUP with QoS 0 [MQTT-3.3.1-2].
    #[error("is marked as sent again at QoS 0")]
    PublishDup,
    /// The packet ends inside a field.
    #[error("ends inside a field")]
    Short,
    /// Bytes behind the last field.
    #[error("has bytes behind its last field")]
    TrailingBytes,
    /// Neither `MQTT` nor `MQIsdp` [MQTT-3.1.2-1].
    #[error("has a protocol name other than MQTT")]
    ProtocolName,
    /// A level that the protocol name does not have [MQTT-3.1.2-2].
    #[error("has protocol level {0}, which is not supported")]
    ProtocolLevel(u8),
    /// Reserved flag set, will QoS 3, or will QoS or retain without a will [MQTT-3.1.2-3] [MQTT-3.1.2-11] [MQTT-3.1.2-13].
    #[error("has connect flags {0:#010b}")]
    ConnectFlags(u8),
    /// Not before MQTT 5 (MQTT 3.1.1 [MQTT-3.1.2-22]).
    #[error("has a password without a user name")]
    PasswordWithoutUserName,
    /// Not UTF-8, surrogates included [MQTT-1.5.4-1].
    #[error("has a string that is not UTF-8")]
    Utf8,
    /// U+0000 [MQTT-1.5.4-2].
    #[error("has a string with a null character")]
    NullCharacter,
    /// With [`super::DecodeOptions::strict_utf8`]: a control character or a non-character.
    #[error("has a string with a control character")]
    ControlCharacter,
    /// A bad topic name.
    #[error("has a topic name that {0}")]
    TopicName(TopicError),
    /// A bad will topic.
    #[error("has a will topic that {0}")]
    WillTopic(TopicError),
    /// A bad topic filter.
    #[error("has a topic filter that {0}")]
    TopicFilter(TopicError),
    /// Over [`super::DecodeOptions::topic_separators_max`].
    #[error("has a topic of too many levels")]
    TopicSeparators,
    /// Over [`super::DecodeOptions::topic_bytes_max`].
    #[error("has a topic that is too long")]
    TopicTooLong,
    /// Over [`super::DecodeOptions::user_properties_max`].
    #[error("has too many user properties")]
    TooManyUserProperties,
    /// Neither topic name nor topic alias.
    #[error("has neither a topic name nor a topic alias")]
    TopicMissing,
    /// Packet identifier 0 [MQTT-2.2.1-3].
    #[error("has packet identifier 0")]
    PacketIdZero,
    /// A variable byte integer of more than four bytes, or with needless ones [MQTT-1.5.5-1].
    #[error("has a variable byte integer that is not minimal or longer than four bytes")]
    VariableByteInteger,
    /// An identifier that the standard does not assign.
    #[error("has the unknown property {0:#04x}")]
    PropertyUnknown(u8),
    /// A property of other packets, or of the same packet in the other direction.
    #[error("may not have the property {}", .0.name())]
    PropertyNotAllowed(PropertyId),
    /// A property that may stand once.
    #[error("has the property {} twice", .0.name())]
    PropertyTwice(PropertyId),
    /// A value out of range.
    #[error("has a value that is not allowed for the property {}", .0.name())]
    PropertyValue(PropertyId),
    /// Topic alias 0 [MQTT-3.3.2-8].
    #[error("has topic alias 0")]
    TopicAliasZero,
    /// Authentication data or an exchange without a method.
    #[error("has no authentication method")]
    AuthenticationMethodMissing,
    /// A reason code that this packet cannot have, sent from this side.
    #[error("has reason code {0:#04x}")]
    ReasonCode(u8),
    /// SUBSCRIBE or UNSUBSCRIBE without a filter [MQTT-3.8.3-2] [MQTT-3.10.3-2].
    #[error("has no topic filter")]
    NoFilters,
    /// Over [`super::DecodeOptions::filters_max`].
    #[error("has too many topic filters")]
    TooManyFilters,
    /// Reserved bits, QoS 3 or retain handling 3 [MQTT-3.8.3-5].
    #[error("has subscription options {0:#010b}")]
    SubscriptionOptions(u8),
    /// No Local on a shared subscription [MQTT-3.8.3-4].
    #[error("asks for No Local on a shared subscription")]
    SharedNoLocal,
    /// Reserved flags of CONNACK [MQTT-3.2.2-1].
    #[error("has acknowledge flags {0:#010b}")]
    ConnAckFlags(u8),
    /// Session Present along with a refusal [MQTT-3.2.2-6].
    #[error("refuses the connection and says that a session is present")]
    SessionPresent,
    /// SUBACK, or UNSUBACK of MQTT 5, without a reason code.
    #[error("has no reason code")]
    NoReasonCodes,
}

/// A packet that cannot be written; nothing was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// The remaining length would be over [`super::REMAINING_LENGTH_MAX`].
    #[error("a packet of {bytes} bytes is longer than MQTT allows")]
    TooLarge {
        /// The remaining length it would have.
        bytes: usize,
    },
    /// A string or binary field of more than 65,535 bytes.
    #[error("a field of {bytes} bytes is longer than the 65,535 that MQTT allows")]
    FieldTooLong {
        /// Of the field.
        bytes: usize,
    },
    /// A PUBLISH at QoS 1 or 2 without a packet identifier [MQTT-2.2.1-4].
    #[error("a PUBLISH at QoS 1 or 2 needs a packet identifier")]
    PacketIdMissing,
    /// AUTH, or a PUBLISH with a topic alias alone, before MQTT 5.
    #[error("MQTT {} has no way to say this", .0.name())]
    NotInVersion(Version),
}
