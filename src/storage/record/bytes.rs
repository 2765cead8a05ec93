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

/// Small fields that are put together on the stack and appended at once: a message has a dozen, and with sessions that are kept they are
/// a tenth of what it costs. Room for `ROOM` bytes, of the longest numbers that its fields may have.
pub(super) struct Head<const ROOM: usize> {
    bytes: [u8; ROOM],
    length: usize,
}

/// A head of a record that consists of at most three numbers and two bytes.
pub(super) type ShortHead = Head<48>;
/// A head of up to seven numbers and a few bytes.
pub(super) type LongHead = Head<96>;

impl<const ROOM: usize> Head<ROOM> {
    /// Nothing yet.
    #[inline(always)]
    pub(super) const fn new() -> Self {
        Self {
            bytes: [0; ROOM],
            length: 0,
        }
    }

    /// The beginning of a record. Its length is put there by [`Head::append_record`], or by who appends more.
    #[inline(always)]
    pub(super) const fn record(kind: u8) -> Self {
        let mut head = Self::new();
        head.bytes[LENGTH_BYTES] = kind;
        head.length = LENGTH_BYTES + 1;
        head
    }

    #[inline(always)]
    fn put<const BYTES: usize>(&mut self, bytes: [u8; BYTES]) {
        self.bytes[self.length..][..BYTES].copy_from_slice(&bytes);
        self.length += BYTES;
    }

    /// Puts a byte behind what is there.
    #[inline(always)]
    pub(super) fn byte(&mut self, byte: u8) {
        self.put([byte]);
    }

    /// Puts a number behind what is there, as a varint. Its groups of seven bits are put into their bytes together, all but the last marked as
    /// "more follows".
    #[inline(always)]
    pub(super) fn number(&mut self, value: u64) {
        let low = value as u32;
        if value < 1 << 7 {
            self.put([low as u8]);
        } else if value < 1 << 14 {
            self.put(
                (low & 0x7F | (low & 0x3F80) << 1 | 0x80)
                    .to_le_bytes()
                    .first_chunk::<2>()
                    .copied()
                    .unwrap_or_default(),
            );
        } else if value < 1 << 28 {
            let groups = low & 0x7F | (low & 0x3F80) << 1 | (low & 0x1F_C000) << 2 | (low & 0xFE0_0000) << 3;
            if value < 1 << 21 {
                self.put(
                    (groups | 0x8080)
                        .to_le_bytes()
                        .first_chunk::<3>()
                        .copied()
                        .unwrap_or_default(),
                );
            } else {
                self.put((groups | 0x80_8080).to_le_bytes());
            }
        } else {
            self.long_number(value);
        }
    }

    #[cold]
    fn long_number(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.byte(value as u8 | 0x80);
            value >>= 7;
        }
        self.byte(value as u8);
    }

    /// Appends what was put. Copies more than that and takes the rest back: a copy of known length is two instructions, one of another is
    /// a call that costs as much as everything else here.
    #[inline(always)]
    pub(super) fn append_to(&self, out: &mut Vec<u8>) {
        let start = out.len();
        match self.bytes.first_chunk::<32>() {
            Some(first) if self.length <= 32 => out.extend_from_slice(first),
            _ => out.extend_from_slice(&self.bytes),
        }
        out.truncate(start + self.length);
    }

    /// Appends the whole record.
    #[inline(always)]
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_writes_numbers_as_they_are_read_and_as_put_does() {
        let around = (0..64).flat_map(|bit| [(1u64 << bit) - 1, 1 << bit, (1 << bit) | 0x55]);
        let numbers: Vec<u64> = around.chain([u64::MAX, 300, 0x0FFF_FFFF, 0x1000_0000]).collect();
        for number in numbers {
            let (mut head, mut plain, mut quick) = (ShortHead::new(), vec![7], vec![7]);
            head.byte(1);
            head.number(number);
            head.number(2);
            head.append_to(&mut quick);
            plain.push(1);
            put(&mut plain, number);
            put(&mut plain, 2);
            assert_eq!(quick, plain, "{number}");
            assert_eq!(Reader(&quick[2..]).number(), Ok(number));
        }
    }

    #[test]
    fn a_head_has_room_for_the_longest_fields() {
        let (mut short, mut long) = (ShortHead::record(1), LongHead::record(1));
        for _ in 0..4 {
            short.number(u64::MAX);
        }
        for _ in 0..8 {
            long.number(u64::MAX);
        }
        let mut out = Vec::new();
        short.append_record(&mut out);
        long.append_record(&mut out);
        assert_eq!(out[..5], [41, 0, 0, 0, 1]);
        assert_eq!(out[45..50], [81, 0, 0, 0, 1]);
        assert_eq!(out.len(), 45 + 85);
    }
}
