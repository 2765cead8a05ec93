//! Fields of records as bytes.

use super::{LENGTH_BYTES, RecordError};
use crate::protocol::ids::{MessageNumber, PacketId, SessionNumber};
use crate::protocol::time::Time;

/// Appends a number as a varint.
#[inline]
pub(super) fn put(out: &mut Vec<u8>, mut value: u64) {
    if value < 0x80 {
        return out.push(value as u8);
    }
    let mut bytes = [0; 10];
    let mut length = 0;
    while value >= 0x80 {
        bytes[length] = value as u8 | 0x80;
        value >>= 7;
        length += 1;
    }
    bytes[length] = value as u8;
    let start = out.len();
    out.extend_from_slice(&bytes);
    out.truncate(start + length + 1);
}

/// Small fields that are put together on the stack and appended at once: a message has a dozen.
pub(super) struct Head {
    bytes: [u8; Self::BYTES],
    length: usize,
}

impl Head {
    /// Room for eight of the longest numbers.
    const BYTES: usize = 80;

    /// Nothing yet.
    pub(super) const fn new() -> Self {
        Self {
            bytes: [0; Self::BYTES],
            length: 0,
        }
    }

    /// Puts a byte behind what is there.
    #[inline]
    pub(super) const fn byte(&mut self, byte: u8) {
        self.bytes[self.length] = byte;
        self.length += 1;
    }

    /// Puts a number behind what is there, as a varint.
    #[inline]
    pub(super) const fn number(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.byte(value as u8 | 0x80);
            value >>= 7;
        }
        self.byte(value as u8);
    }

    /// Appends what was put. Copies more than that and takes the rest back: a copy of known length is two instructions, one of another is
    /// a call that costs as much as everything else here.
    #[inline]
    pub(super) fn append_to(&self, out: &mut Vec<u8>) {
        let start = out.len();
        match self.bytes.first_chunk::<32>() {
            Some(first) if self.length <= 32 => out.extend_from_slice(first),
            _ => out.extend_from_slice(&self.bytes),
        }
        out.truncate(start + self.length);
    }

    /// The beginning of a record that consists of such fields only.
    pub(super) const fn record(kind: u8) -> Self {
        let mut head = Self::new();
        head.length = LENGTH_BYTES;
        head.byte(kind);
        head
    }

    /// Appends the whole record.
    #[inline]
    pub(super) fn append_record(&mut self, out: &mut Vec<u8>) {
        let length = (self.length - LENGTH_BYTES) as u32; // of a few dozen bytes
        self.bytes[..LENGTH_BYTES].copy_from_slice(&length.to_le_bytes());
        self.append_to(out);
    }
}

/// Appends a moment.
pub(super) fn put_time(out: &mut Vec<u8>, time: Time) {
    put(out, time.0.wrapping_add(1)); // `Time::NEVER` is 0
}

/// Appends a text or binary behind its length.
pub(super) fn put_binary(out: &mut Vec<u8>, bytes: &[u8]) {
    put(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Reads fields one behind the other.
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn byte(&mut self) -> Result<u8, RecordError> {
        let (byte, rest) = self.0.split_first().ok_or(RecordError::Short)?;
        self.0 = rest;
        Ok(*byte)
    }

    pub(super) fn array<const BYTES: usize>(&mut self) -> Result<[u8; BYTES], RecordError> {
        let (bytes, rest) = self.0.split_first_chunk().ok_or(RecordError::Short)?;
        self.0 = rest;
        Ok(*bytes)
    }

    pub(super) fn number(&mut self) -> Result<u64, RecordError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7F) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(RecordError::Field("number"))
    }

    pub(super) fn small<T: TryFrom<u64>>(&mut self, field: &'static str) -> Result<T, RecordError> {
        T::try_from(self.number()?).map_err(|_| RecordError::Field(field))
    }

    pub(super) fn time(&mut self) -> Result<Time, RecordError> {
        Ok(Time(self.number()?.wrapping_sub(1)))
    }

    pub(super) fn session(&mut self) -> Result<SessionNumber, RecordError> {
        SessionNumber::new(self.number()?).ok_or(RecordError::Field("session"))
    }

    pub(super) fn message(&mut self) -> Result<MessageNumber, RecordError> {
        MessageNumber::new(self.number()?).ok_or(RecordError::Field("message"))
    }

    pub(super) fn packet_id(&mut self) -> Result<PacketId, RecordError> {
        PacketId::new(self.small("packet_id")?).ok_or(RecordError::Field("packet_id"))
    }

    pub(super) fn binary(&mut self) -> Result<&'a [u8], RecordError> {
        let length = self.small("length")?;
        let (bytes, rest) = self.0.split_at_checked(length).ok_or(RecordError::Short)?;
        self.0 = rest;
        Ok(bytes)
    }

    pub(super) fn text(&mut self, field: &'static str) -> Result<&'a str, RecordError> {
        simdutf8::basic::from_utf8(self.binary()?).map_err(|_| RecordError::Field(field))
    }
}
