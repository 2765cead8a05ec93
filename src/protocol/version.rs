//! Protocol versions.

/// The protocol version of a connection, from the name and level of its CONNECT.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Version {
    /// MQTT 3.1: `MQIsdp`, level 3.
    V31 = 3,
    /// MQTT 3.1.1: `MQTT`, level 4.
    V311 = 4,
    /// MQTT 5.0: `MQTT`, level 5.
    V5 = 5,
}

impl Version {
    /// Every version, oldest first.
    pub const ALL: [Self; 3] = [Self::V31, Self::V311, Self::V5];

    /// Protocol level byte: 3, 4 or 5.
    pub const fn level(self) -> u8 {
        self as u8
    }

    /// True for MQTT 5: packets have properties and reason codes.
    #[inline]
    pub const fn has_properties(self) -> bool {
        matches!(self, Self::V5)
    }

    /// The name people use: `3.1`, `3.1.1`, `5.0`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::V31 => "3.1",
            Self::V311 => "3.1.1",
            Self::V5 => "5.0",
        }
    }
}
