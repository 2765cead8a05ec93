//! Reason codes of MQTT 5 (table 2-6) and their names; the return codes of 3.1.1 are derived from them.

macro_rules! reason_codes {
    ($($value:literal $name:ident $sentence:literal,)*) => {
        /// A reason code. Below 0x80 it reports success.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum ReasonCode {
            $(#[doc = $sentence] $name = $value,)*
        }

        impl ReasonCode {
            /// Every reason code, ascending.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The reason code of a byte; `None` for a byte the standard does not assign.
            #[inline]
            pub const fn from_byte(byte: u8) -> Option<Self> {
                match byte {
                    $($value => Some(Self::$name),)*
                    _ => None,
                }
            }

            /// A short name for logs and reason strings.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $sentence,)*
                }
            }
        }
    };
}

reason_codes! {
    0x00 Success "success",
    0x01 GrantedQos1 "granted QoS 1",
    0x02 GrantedQos2 "granted QoS 2",
    0x04 DisconnectWithWill "disconnect with will message",
    0x10 NoMatchingSubscribers "no matching subscribers",
    0x11 NoSubscriptionExisted "no subscription existed",
    0x18 ContinueAuthentication "continue authentication",
    0x19 ReAuthenticate "re-authenticate",
    0x80 UnspecifiedError "unspecified error",
    0x81 MalformedPacket "malformed packet",
    0x82 ProtocolError "protocol error",
    0x83 ImplementationSpecificError "implementation specific error",
    0x84 UnsupportedProtocolVersion "unsupported protocol version",
    0x85 ClientIdentifierNotValid "client identifier not valid",
    0x86 BadUserNameOrPassword "bad user name or password",
    0x87 NotAuthorized "not authorized",
    0x88 ServerUnavailable "server unavailable",
    0x89 ServerBusy "server busy",
    0x8A Banned "banned",
    0x8B ServerShuttingDown "server shutting down",
    0x8C BadAuthenticationMethod "bad authentication method",
    0x8D KeepAliveTimeout "keep alive timeout",
    0x8E SessionTakenOver "session taken over",
    0x8F TopicFilterInvalid "topic filter invalid",
    0x90 TopicNameInvalid "topic name invalid",
    0x91 PacketIdentifierInUse "packet identifier in use",
    0x92 PacketIdentifierNotFound "packet identifier not found",
    0x93 ReceiveMaximumExceeded "receive maximum exceeded",
    0x94 TopicAliasInvalid "topic alias invalid",
    0x95 PacketTooLarge "packet too large",
    0x96 MessageRateTooHigh "message rate too high",
    0x97 QuotaExceeded "quota exceeded",
    0x98 AdministrativeAction "administrative action",
    0x99 PayloadFormatInvalid "payload format invalid",
    0x9A RetainNotSupported "retain not supported",
    0x9B QosNotSupported "QoS not supported",
    0x9C UseAnotherServer "use another server",
    0x9D ServerMoved "server moved",
    0x9E SharedSubscriptionsNotSupported "shared subscriptions not supported",
    0x9F ConnectionRateExceeded "connection rate exceeded",
    0xA0 MaximumConnectTime "maximum connect time",
    0xA1 SubscriptionIdentifiersNotSupported "subscription identifiers not supported",
    0xA2 WildcardSubscriptionsNotSupported "wildcard subscriptions not supported",
}

impl ReasonCode {
    /// The byte on the wire.
    #[inline]
    pub const fn byte(self) -> u8 {
        self as u8
    }

    /// True from 0x80: the request failed.
    #[inline]
    pub const fn is_error(self) -> bool {
        self as u8 >= 0x80
    }

    /// The CONNACK return code of MQTT 3.1 and 3.1.1 that says the same, 0 to 5 (3.1.1 table 3.1).
    pub const fn connect_return_code(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::UnsupportedProtocolVersion => 1,
            Self::ClientIdentifierNotValid => 2,
            Self::BadUserNameOrPassword => 4,
            Self::NotAuthorized | Self::Banned | Self::BadAuthenticationMethod => 5,
            _ => 3,
        }
    }
}
