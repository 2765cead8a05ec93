//! MQTT 5 properties: one table (MQTT 5 table 2-4), one view over bytes, one writer.
//!
//! A packet's properties stay the bytes they arrived as. The codec checks a block once against the table; after that
//! [`Properties`] reads it in place, without an allocation and without an error to handle.

/// The form of a property's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PropertyKind {
    /// One byte.
    Byte,
    /// Two bytes, big-endian.
    U16,
    /// Four bytes, big-endian.
    U32,
    /// Variable byte integer.
    VarInt,
    /// UTF-8 string with a two-byte length.
    Text,
    /// Bytes with a two-byte length.
    Binary,
    /// Two UTF-8 strings.
    Pair,
}

/// The packets (and the will, which has properties of its own) that a property may stand in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
#[allow(missing_docs, reason = "the names of the packets")]
pub enum PropertyOwner {
    Connect = 1,
    ConnAck = 1 << 1,
    Publish = 1 << 2,
    Will = 1 << 3,
    PubAck = 1 << 4,
    PubRec = 1 << 5,
    PubRel = 1 << 6,
    PubComp = 1 << 7,
    Subscribe = 1 << 8,
    SubAck = 1 << 9,
    Unsubscribe = 1 << 10,
    UnsubAck = 1 << 11,
    Disconnect = 1 << 12,
    Auth = 1 << 13,
}

macro_rules! property_table {
    ($($value:literal $name:ident $kind:ident [$($owner:ident)*] $sentence:literal,)*) => {
        /// A property identifier.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum PropertyId {
            $(#[doc = $sentence] $name = $value,)*
        }

        impl PropertyId {
            /// Every property, ascending.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The property of an identifier; `None` for one the standard does not assign.
            #[inline]
            pub const fn from_byte(byte: u8) -> Option<Self> {
                match byte {
                    $($value => Some(Self::$name),)*
                    _ => None,
                }
            }

            /// The form of the value.
            #[inline]
            pub const fn kind(self) -> PropertyKind {
                match self {
                    $(Self::$name => PropertyKind::$kind,)*
                }
            }

            /// True where the standard allows the property in that packet.
            #[inline]
            pub const fn is_allowed_in(self, owner: PropertyOwner) -> bool {
                let owners: u16 = match self {
                    $(Self::$name => 0 $(| PropertyOwner::$owner as u16)*,)*
                };
                owners & owner as u16 != 0
            }

            /// The standard's name, for errors.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $sentence,)*
                }
            }
        }
    };
}

property_table! {
    0x01 PayloadFormatIndicator Byte [Publish Will] "payload format indicator",
    0x02 MessageExpiryInterval U32 [Publish Will] "message expiry interval",
    0x03 ContentType Text [Publish Will] "content type",
    0x08 ResponseTopic Text [Publish Will] "response topic",
    0x09 CorrelationData Binary [Publish Will] "correlation data",
    0x0B SubscriptionIdentifier VarInt [Publish Subscribe] "subscription identifier",
    0x11 SessionExpiryInterval U32 [Connect ConnAck Disconnect] "session expiry interval",
    0x12 AssignedClientIdentifier Text [ConnAck] "assigned client identifier",
    0x13 ServerKeepAlive U16 [ConnAck] "server keep alive",
    0x15 AuthenticationMethod Text [Connect ConnAck Auth] "authentication method",
    0x16 AuthenticationData Binary [Connect ConnAck Auth] "authentication data",
    0x17 RequestProblemInformation Byte [Connect] "request problem information",
    0x18 WillDelayInterval U32 [Will] "will delay interval",
    0x19 RequestResponseInformation Byte [Connect] "request response information",
    0x1A ResponseInformation Text [ConnAck] "response information",
    0x1C ServerReference Text [ConnAck Disconnect] "server reference",
    0x1F ReasonString Text [ConnAck PubAck PubRec PubRel PubComp SubAck UnsubAck Disconnect Auth] "reason string",
    0x21 ReceiveMaximum U16 [Connect ConnAck] "receive maximum",
    0x22 TopicAliasMaximum U16 [Connect ConnAck] "topic alias maximum",
    0x23 TopicAlias U16 [Publish] "topic alias",
    0x24 MaximumQoS Byte [ConnAck] "maximum QoS",
    0x25 RetainAvailable Byte [ConnAck] "retain available",
    0x26 UserProperty Pair [Connect ConnAck Publish Will PubAck PubRec PubRel PubComp Subscribe SubAck Unsubscribe UnsubAck Disconnect Auth] "user property",
    0x27 MaximumPacketSize U32 [Connect ConnAck] "maximum packet size",
    0x28 WildcardSubscriptionAvailable Byte [ConnAck] "wildcard subscription available",
    0x29 SubscriptionIdentifierAvailable Byte [ConnAck] "subscription identifier available",
    0x2A SharedSubscriptionAvailable Byte [ConnAck] "shared subscription available",
}

/// A property's value, borrowed from the block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PropertyValue<'a> {
    /// One byte.
    Byte(u8),
    /// Two bytes.
    U16(u16),
    /// Four bytes.
    U32(u32),
    /// Variable byte integer.
    VarInt(u32),
    /// A string.
    Text(&'a str),
    /// Bytes.
    Binary(&'a [u8]),
    /// A name and a value.
    Pair(&'a str, &'a str),
}

/// The properties of one packet, in the order they were sent, read in place.
///
/// Made by the codec from checked bytes, or by [`PropertiesBuf`]. The bytes are those after the property length.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Properties<'a>(&'a [u8]);

impl<'a> Properties<'a> {
    /// No properties.
    pub const EMPTY: Self = Self(&[]);

    /// A view over a block that has been checked: well formed, nothing twice that must stand once. Over an unchecked block
    /// nothing panics, but reading stops at the first fault.
    #[inline]
    pub const fn from_checked(block: &'a [u8]) -> Self {
        Self(block)
    }

    /// The encoded block, without its length.
    #[inline]
    pub const fn as_bytes(self) -> &'a [u8] {
        self.0
    }

    /// True when there are none.
    #[inline]
    pub const fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    /// Every property with its value, in order.
    #[inline]
    pub const fn iter(self) -> PropertyIter<'a> {
        PropertyIter { rest: self.0 }
    }

    fn find(self, id: PropertyId) -> Option<PropertyValue<'a>> {
        self.iter().find(|(found, _)| *found == id).map(|(_, value)| value)
    }

    /// The value of a one-byte property.
    pub fn byte(self, id: PropertyId) -> Option<u8> {
        match self.find(id) {
            Some(PropertyValue::Byte(value)) => Some(value),
            _ => None,
        }
    }

    /// The value of a two-byte property.
    pub fn u16(self, id: PropertyId) -> Option<u16> {
        match self.find(id) {
            Some(PropertyValue::U16(value)) => Some(value),
            _ => None,
        }
    }

    /// The value of a four-byte property, or of the first variable byte integer of that name.
    pub fn u32(self, id: PropertyId) -> Option<u32> {
        match self.find(id) {
            Some(PropertyValue::U32(value) | PropertyValue::VarInt(value)) => Some(value),
            _ => None,
        }
    }

    /// The value of a string property.
    pub fn text(self, id: PropertyId) -> Option<&'a str> {
        match self.find(id) {
            Some(PropertyValue::Text(value)) => Some(value),
            _ => None,
        }
    }

    /// The value of a binary property.
    pub fn binary(self, id: PropertyId) -> Option<&'a [u8]> {
        match self.find(id) {
            Some(PropertyValue::Binary(value)) => Some(value),
            _ => None,
        }
    }

    /// User properties in the order they were sent [MQTT-3.3.2-18].
    pub fn user_properties(self) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.iter().filter_map(|(_, value)| match value {
            PropertyValue::Pair(name, value) => Some((name, value)),
            _ => None,
        })
    }

    /// Subscription identifiers in the order they were sent.
    pub fn subscription_identifiers(self) -> impl Iterator<Item = u32> {
        self.iter().filter_map(|(id, value)| match (id, value) {
            (PropertyId::SubscriptionIdentifier, PropertyValue::VarInt(value)) => Some(value),
            _ => None,
        })
    }
}

impl std::fmt::Debug for Properties<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

/// See [`Properties::iter`].
#[derive(Clone, Debug)]
pub struct PropertyIter<'a> {
    rest: &'a [u8],
}

impl<'a> PropertyIter<'a> {
    /// The bytes that have not been read.
    pub const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(count)?;
        self.rest = rest;
        Some(taken)
    }

    fn take_u16(&mut self) -> Option<u16> {
        Some(u16::from_be_bytes(self.take(2)?.try_into().ok()?))
    }

    fn take_binary(&mut self) -> Option<&'a [u8]> {
        let length = self.take_u16()?;
        self.take(usize::from(length))
    }

    fn take_text(&mut self) -> Option<&'a str> {
        simdutf8::basic::from_utf8(self.take_binary()?).ok()
    }

    fn take_varint(&mut self) -> Option<u32> {
        let mut value = 0;
        for shift in [0, 7, 14, 21] {
            let byte = self.take(1)?[0];
            value |= u32::from(byte & 0x7F) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }
}

impl<'a> Iterator for PropertyIter<'a> {
    type Item = (PropertyId, PropertyValue<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let id = PropertyId::from_byte(self.take(1)?[0])?;
        let value = match id.kind() {
            PropertyKind::Byte => PropertyValue::Byte(self.take(1)?[0]),
            PropertyKind::U16 => PropertyValue::U16(self.take_u16()?),
            PropertyKind::U32 => PropertyValue::U32(u32::from_be_bytes(self.take(4)?.try_into().ok()?)),
            PropertyKind::VarInt => PropertyValue::VarInt(self.take_varint()?),
            PropertyKind::Text => PropertyValue::Text(self.take_text()?),
            PropertyKind::Binary => PropertyValue::Binary(self.take_binary()?),
            PropertyKind::Pair => PropertyValue::Pair(self.take_text()?, self.take_text()?),
        };
        Some((id, value))
    }
}

/// Writes a property block. Values that do not fit MQTT (strings over 65,535 bytes) are cut at a character boundary: they come
/// from ourselves or from packets that were checked, so only a reason string can be that long.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PropertiesBuf(Vec<u8>);

impl PropertiesBuf {
    /// An empty block; allocates nothing.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// The block as properties.
    #[inline]
    pub fn view(&self) -> Properties<'_> {
        Properties(&self.0)
    }

    /// Appends a one-byte property.
    pub fn push_byte(&mut self, id: PropertyId, value: u8) -> &mut Self {
        self.0.extend_from_slice(&[id as u8, value]);
        self
    }

    /// Appends a two-byte property.
    pub fn push_u16(&mut self, id: PropertyId, value: u16) -> &mut Self {
        self.0.push(id as u8);
        self.0.extend_from_slice(&value.to_be_bytes());
        self
    }

    /// Appends a four-byte property.
    pub fn push_u32(&mut self, id: PropertyId, value: u32) -> &mut Self {
        self.0.push(id as u8);
        self.0.extend_from_slice(&value.to_be_bytes());
        self
    }

    /// Appends a variable byte integer property; `value` at most 268,435,455.
    pub fn push_varint(&mut self, id: PropertyId, mut value: u32) -> &mut Self {
        self.0.push(id as u8);
        loop {
            let low = (value & 0x7F) as u8;
            value >>= 7;
            if value == 0 {
                self.0.push(low);
                return self;
            }
            self.0.push(low | 0x80);
        }
    }

    /// Appends a string property.
    pub fn push_text(&mut self, id: PropertyId, value: &str) -> &mut Self {
        self.0.push(id as u8);
        self.push_prefixed(
            value.as_bytes(),
            value.floor_char_boundary(super::topic::STRING_BYTES_MAX),
        )
    }

    /// Appends a binary property.
    pub fn push_binary(&mut self, id: PropertyId, value: &[u8]) -> &mut Self {
        self.0.push(id as u8);
        self.push_prefixed(value, value.len().min(super::topic::STRING_BYTES_MAX))
    }

    /// Appends a user property.
    pub fn push_user_property(&mut self, name: &str, value: &str) -> &mut Self {
        self.push_text(PropertyId::UserProperty, name);
        self.push_prefixed(
            value.as_bytes(),
            value.floor_char_boundary(super::topic::STRING_BYTES_MAX),
        )
    }

    /// Appends a property as it was read.
    pub fn push(&mut self, id: PropertyId, value: PropertyValue<'_>) -> &mut Self {
        match value {
            PropertyValue::Byte(value) => self.push_byte(id, value),
            PropertyValue::U16(value) => self.push_u16(id, value),
            PropertyValue::U32(value) => self.push_u32(id, value),
            PropertyValue::VarInt(value) => self.push_varint(id, value),
            PropertyValue::Text(value) => self.push_text(id, value),
            PropertyValue::Binary(value) => self.push_binary(id, value),
            PropertyValue::Pair(name, value) => self.push_user_property(name, value),
        }
    }

    fn push_prefixed(&mut self, bytes: &[u8], length: usize) -> &mut Self {
        self.0.extend_from_slice(&(length as u16).to_be_bytes());
        self.0.extend_from_slice(&bytes[..length]);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back_in_order() {
        let mut block = PropertiesBuf::new();
        block
            .push_byte(PropertyId::PayloadFormatIndicator, 1)
            .push_u32(PropertyId::MessageExpiryInterval, 70_000)
            .push_user_property("a", "1")
            .push_varint(PropertyId::SubscriptionIdentifier, 268_435_455)
            .push_user_property("a", "2");
        let view = block.view();
        assert_eq!(view.byte(PropertyId::PayloadFormatIndicator), Some(1));
        assert_eq!(view.u32(PropertyId::MessageExpiryInterval), Some(70_000));
        assert_eq!(view.user_properties().collect::<Vec<_>>(), [("a", "1"), ("a", "2")]);
        assert_eq!(view.subscription_identifiers().collect::<Vec<_>>(), [268_435_455]);
        assert_eq!(view.text(PropertyId::ContentType), None);
        assert_eq!(view.iter().count(), 5);
    }

    #[test]
    fn an_unchecked_block_is_read_up_to_its_fault_without_panic() {
        let cut = [0x01, 1, 0x26, 0, 9, b'x'];
        let view = Properties::from_checked(&cut);
        assert_eq!(view.iter().count(), 1);
        assert_eq!(view.byte(PropertyId::PayloadFormatIndicator), Some(1));
    }

    #[test]
    fn a_string_too_long_for_mqtt_is_cut_at_a_character() {
        let long = "ü".repeat(40_000);
        let mut block = PropertiesBuf::new();
        block.push_text(PropertyId::ReasonString, &long);
        assert_eq!(block.view().text(PropertyId::ReasonString).map(str::len), Some(65_534));
    }
}
