//! What the payload of every message says: which run and publisher it is of, its number, and when it was to be sent.

/// Bytes of a stamp, and so of the smallest payload.
pub(super) const STAMP_BYTES: usize = 24;

/// The first bytes of a payload. All numbers little endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    /// Tells this run from what an earlier one left in the broker.
    pub(super) run: u32,
    /// Index of the publisher.
    pub(super) publisher: u32,
    /// The publisher's messages are numbered from 0.
    pub(super) sequence: u64,
    /// Nanoseconds of the run's clock: with a rate the moment at which the message was due, otherwise that at which it was written.
    pub(super) time: u64,
}

impl Stamp {
    /// Over the front of a payload of at least [`STAMP_BYTES`].
    #[inline]
    pub(super) fn write(&self, payload: &mut [u8]) {
        let mut bytes = [0; STAMP_BYTES];
        bytes[..4].copy_from_slice(&self.run.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.publisher.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.sequence.to_le_bytes());
        bytes[16..].copy_from_slice(&self.time.to_le_bytes());
        payload[..STAMP_BYTES].copy_from_slice(&bytes);
    }

    /// `None` where the payload is too short to have one.
    #[inline]
    pub(super) fn read(payload: &[u8]) -> Option<Self> {
        let bytes: &[u8; STAMP_BYTES] = payload.first_chunk()?;
        Some(Self {
            run: u32::from_le_bytes(*bytes.first_chunk()?),
            publisher: u32::from_le_bytes(*bytes[4..].first_chunk()?),
            sequence: u64::from_le_bytes(*bytes[8..].first_chunk()?),
            time: u64::from_le_bytes(*bytes[16..].first_chunk()?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_is_read_as_it_was_written_and_never_from_less() {
        let stamp = Stamp {
            run: 0xDEAD_BEEF,
            publisher: 7,
            sequence: u64::MAX - 1,
            time: 123_456_789_012,
        };
        let mut payload = [b'x'; 30];
        stamp.write(&mut payload);
        assert_eq!(Stamp::read(&payload), Some(stamp));
        assert_eq!(&payload[STAMP_BYTES..], b"xxxxxx");
        assert_eq!(Stamp::read(&payload[..STAMP_BYTES - 1]), None);
    }
}
