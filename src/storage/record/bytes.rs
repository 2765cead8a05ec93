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

/// Appends small fields together: a message has a dozen, and with sessions that are kept they are a tenth of what it costs. There is `ROOM` for the
/// longest numbers that the fields may have; what is left of it is taken back. They are put where they stay: to put them together elsewhere and
/// copy them costs more than everything else here, as a load of many bytes waits for the stores of few that it overlaps.
#[inline(always)]
pub(super) fn fields<const ROOM: usize>(out: &mut Vec<u8>, put: impl FnOnce(&mut Fields<'_, ROOM>)) {
    let start = out.len();
    out.extend_from_slice(&[0; ROOM]);
    let length = out[start..].first_chunk_mut().map_or(0, |bytes| {
        let mut fields = Fields { bytes, length: 0 };
        put(&mut fields);
        fields.length
    });
    out.truncate(start + length);
}

/// Appends a record that consists of at most three numbers and two bytes.
#[inline(always)]
pub(super) fn short_record(out: &mut Vec<u8>, kind: u8, put: impl FnOnce(&mut Fields<'_, 48>)) {
    fields(out, |fields| {
        fields.begin_record(kind);
        put(fields);
        let length = (fields.length - LENGTH_BYTES) as u32; // of a few dozen bytes
        fields.bytes[..LENGTH_BYTES].copy_from_slice(&length.to_le_bytes());
    });
}

/// See [`fields`].
pub(super) struct Fields<'a, const ROOM: usize> {
    bytes: &'a mut [u8; ROOM],
    length: usize,
}

impl<const ROOM: usize> Fields<'_, ROOM> {
    /// The beginning of a record: room for its length, and its kind.
    #[inline(always)]
    pub(super) const fn begin_record(&mut self, kind: u8) {
        self.bytes[LENGTH_BYTES] = kind;
        self.length = LENGTH_BYTES + 1;
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
            self.put([low as u8 | 0x80, (low >> 7) as u8]);
        } else if value < 1 << 28 {
            let groups = low & 0x7F | (low & 0x3F80) << 1 | (low & 0x1F_C000) << 2 | (low & 0xFE0_0000) << 3;
            if value < 1 << 21 {
                let [first, second, third, _] = (groups | 0x8080).to_le_bytes();
                self.put([first, second, third]);
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
    fn fields_write_numbers_as_they_are_read_and_as_put_does() {
        let around = (0..64).flat_map(|bit| [(1u64 << bit) - 1, 1 << bit, (1 << bit) | 0x55]);
        let numbers: Vec<u64> = around.chain([u64::MAX, 300, 0x0FFF_FFFF, 0x1000_0000]).collect();
        for number in numbers {
            let (mut plain, mut quick) = (vec![7], vec![7]);
            fields::<32>(&mut quick, |fields| {
                fields.byte(1);
                fields.number(number);
                fields.number(2);
            });
            plain.push(1);
            put(&mut plain, number);
            put(&mut plain, 2);
            assert_eq!(quick, plain, "{number}");
            assert_eq!(Reader(&quick[2..]).number(), Ok(number));
        }
    }

    #[test]
    fn a_short_record_has_room_for_the_longest_fields() {
        let mut out = Vec::new();
        short_record(&mut out, 9, |fields| {
            for _ in 0..4 {
                fields.number(u64::MAX);
            }
        });
        assert_eq!((&out[..5], out.len()), (&[41, 0, 0, 0, 9][..], 45));
    }
}
