//! Reads the fields of one packet: integers, binary data, strings. MQTT 5 section 1.5.

use super::{DecodeOptions, ErrorKind};
use crate::protocol::ids::PacketId;
use crate::protocol::topic::{TopicError, TopicName};

/// The unread part of a packet. It cannot run past the packet: what is missing is [`ErrorKind::Short`].
#[derive(Clone, Copy)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
    /// Where `rest` ends, in bytes from the packet's first.
    end: usize,
}

impl<'a> Reader<'a> {
    /// Over a whole packet, behind its fixed header.
    #[inline]
    pub(super) fn new(packet: &'a [u8], header_bytes: usize) -> Self {
        Self {
            rest: packet.get(header_bytes..).unwrap_or_default(),
            end: packet.len(),
        }
    }

    /// Bytes from the packet's first.
    #[inline]
    pub(super) const fn offset(&self) -> usize {
        self.end - self.rest.len()
    }

    #[inline]
    pub(super) const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Everything that is left.
    #[inline]
    pub(super) const fn take_rest(&mut self) -> &'a [u8] {
        let rest = self.rest;
        self.rest = &[];
        rest
    }

    /// Confines reading to the next `count` bytes; [`Self::resume`] goes on behind them with what is returned here.
    #[inline]
    pub(super) fn confine(&mut self, count: usize) -> Result<&'a [u8], ErrorKind> {
        let (inner, behind) = self.rest.split_at_checked(count).ok_or(ErrorKind::Short)?;
        self.rest = inner;
        self.end -= behind.len();
        Ok(behind)
    }

    /// See [`Self::confine`].
    #[inline]
    pub(super) const fn resume(&mut self, behind: &'a [u8]) {
        self.end += behind.len();
        self.rest = behind;
    }

    /// The end of the packet must be reached.
    #[inline]
    pub(super) const fn finish(&self) -> Result<(), ErrorKind> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(ErrorKind::TrailingBytes)
        }
    }

    /// What is left, without reading it.
    #[inline]
    pub(super) const fn peek(&self) -> &'a [u8] {
        self.rest
    }

    #[inline]
    pub(super) fn take(&mut self, count: usize) -> Result<&'a [u8], ErrorKind> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(ErrorKind::Short)?;
        self.rest = rest;
        Ok(taken)
    }

    #[inline]
    pub(super) fn u8(&mut self) -> Result<u8, ErrorKind> {
        let (&byte, rest) = self.rest.split_first().ok_or(ErrorKind::Short)?;
        self.rest = rest;
        Ok(byte)
    }

    #[inline]
    pub(super) fn u16(&mut self) -> Result<u16, ErrorKind> {
        let (bytes, rest) = self.rest.split_first_chunk().ok_or(ErrorKind::Short)?;
        self.rest = rest;
        Ok(u16::from_be_bytes(*bytes))
    }

    #[inline]
    pub(super) fn u32(&mut self) -> Result<u32, ErrorKind> {
        let (bytes, rest) = self.rest.split_first_chunk().ok_or(ErrorKind::Short)?;
        self.rest = rest;
        Ok(u32::from_be_bytes(*bytes))
    }

    /// A variable byte integer in its shortest form [MQTT-1.5.5-1].
    #[inline]
    pub(super) fn varint(&mut self) -> Result<u32, ErrorKind> {
        let mut value = 0;
        for shift in [0, 7, 14, 21] {
            let byte = self.u8()?;
            value |= u32::from(byte & 0x7F) << shift;
            if byte & 0x80 == 0 {
                return if byte == 0 && shift > 0 {
                    Err(ErrorKind::VariableByteInteger)
                } else {
                    Ok(value)
                };
            }
        }
        Err(ErrorKind::VariableByteInteger)
    }

    /// Never zero [MQTT-2.2.1-3].
    #[inline]
    pub(super) fn packet_id(&mut self) -> Result<PacketId, ErrorKind> {
        PacketId::new(self.u16()?).ok_or(ErrorKind::PacketIdZero)
    }

    /// Bytes with a length of two bytes.
    #[inline]
    pub(super) fn binary(&mut self) -> Result<&'a [u8], ErrorKind> {
        let length = self.u16()?;
        self.take(usize::from(length))
    }

    /// A string: UTF-8 without U+0000.
    #[inline]
    pub(super) fn text(&mut self, options: &DecodeOptions) -> Result<&'a str, ErrorKind> {
        let bytes = self.binary()?;
        let text = simdutf8::basic::from_utf8(bytes).map_err(|_| ErrorKind::Utf8)?;
        if !is_plain::<false>(bytes) {
            check_characters(text, options)?;
        }
        Ok(text)
    }

    /// Steps over a string once it is clear that [`Self::text`] would read it.
    #[inline]
    pub(super) fn skip_text(&mut self, options: &DecodeOptions) -> Result<(), ErrorKind> {
        let bytes = self.binary()?;
        if is_plain::<false>(bytes) {
            return Ok(());
        }
        let text = simdutf8::basic::from_utf8(bytes).map_err(|_| ErrorKind::Utf8)?;
        check_characters(text, options)
    }

    /// A topic name. The caller says by `fault` whose it is.
    #[inline]
    pub(super) fn topic(
        &mut self,
        options: &DecodeOptions,
        fault: fn(TopicError) -> ErrorKind,
    ) -> Result<TopicName<'a>, ErrorKind> {
        let bytes = self.binary()?;
        let text = simdutf8::basic::from_utf8(bytes).map_err(|_| ErrorKind::Utf8)?;
        check_separators(bytes, options)?;
        if is_plain::<true>(bytes) && !bytes.is_empty() {
            return Ok(TopicName::from_parsed(text));
        }
        check_characters(text, options)?;
        TopicName::parse(text).map_err(fault)
    }
}

/// Refuses a topic of more levels, or longer, than the options allow.
#[inline]
pub(super) fn check_separators(topic: &[u8], options: &DecodeOptions) -> Result<(), ErrorKind> {
    let most = usize::from(options.topic_separators_max);
    // A topic that is no longer than the limit cannot be over it: the usual topic is not looked at.
    let bytes_most = usize::from(options.topic_bytes_max);
    if topic.len() > most.min(bytes_most) {
        if memchr::memchr_iter(b'/', topic).count() > most {
            return Err(ErrorKind::TopicSeparators);
        }
        if topic.len() > bytes_most {
            return Err(ErrorKind::TopicTooLong);
        }
    }
    Ok(())
}

/// True when all bytes are printable ASCII and, for a topic, none is a wildcard: nothing else has to be looked at. Eight bytes
/// at a time; the usual topic ends here.
#[inline]
fn is_plain<const TOPIC: bool>(bytes: &[u8]) -> bool {
    let mut rest = bytes;
    while let Some((word, behind)) = rest.split_first_chunk::<8>() {
        if !is_plain_word::<TOPIC>(u64::from_le_bytes(*word)) {
            return false;
        }
        rest = behind;
    }
    if rest.is_empty() {
        return true;
    }
    is_plain_word::<TOPIC>(last_word(bytes))
}

/// The last eight bytes as a word; a shorter text is filled up. Looking at some bytes twice is cheaper than one by one.
#[inline]
fn last_word(bytes: &[u8]) -> u64 {
    const SPACES: u64 = 0x2020_2020_2020_2020;
    if let Some(word) = bytes.last_chunk::<8>() {
        return u64::from_le_bytes(*word);
    }
    match (bytes.first_chunk::<4>(), bytes.last_chunk::<4>(), bytes) {
        (Some(first), Some(last), _) => {
            u64::from(u32::from_le_bytes(*first)) | u64::from(u32::from_le_bytes(*last)) << 32
        }
        (_, _, [first, .., last]) => {
            let middle = bytes[bytes.len() / 2];
            SPACES << 24 | u64::from(*first) | u64::from(middle) << 8 | u64::from(*last) << 16
        }
        (_, _, [only]) => SPACES << 8 | u64::from(*only),
        (_, _, []) => SPACES,
    }
}

/// Every term sets the high bit of a byte that is not plain. A borrow can set the one above too, which only costs time.
#[inline]
const fn is_plain_word<const TOPIC: bool>(word: u64) -> bool {
    const ONES: u64 = u64::MAX / 0xFF;
    let from_0x7f = word.wrapping_add(ONES);
    let below_space = word.wrapping_sub(ONES * 0x20);
    let mut marks = word | from_0x7f | below_space;
    if TOPIC {
        marks |= (word ^ (ONES * b'+' as u64)).wrapping_sub(ONES);
        marks |= (word ^ (ONES * b'#' as u64)).wrapping_sub(ONES);
    }
    marks & (ONES * 0x80) == 0
}

/// The characters that a string cannot have.
#[cold]
pub(super) fn check_characters(text: &str, options: &DecodeOptions) -> Result<(), ErrorKind> {
    if memchr::memchr(0, text.as_bytes()).is_some() {
        return Err(ErrorKind::NullCharacter);
    }
    let is_refused = |c: char| {
        c.is_control() || matches!(u32::from(c) & 0xFFFF, 0xFFFE | 0xFFFF) || ('\u{FDD0}'..='\u{FDEF}').contains(&c)
    };
    if options.strict_utf8 && text.chars().any(is_refused) {
        return Err(ErrorKind::ControlCharacter);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_at_every_place_is_judged_as_one_by_one() {
        let plain = |byte: u8, topic: bool| matches!(byte, 0x20..0x7F) && !(topic && matches!(byte, b'+' | b'#'));
        for length in 1..=17 {
            for at in 0..length {
                for byte in 0..=u8::MAX {
                    let mut bytes = vec![b'a'; length];
                    bytes[at] = byte;
                    assert_eq!(
                        is_plain::<true>(&bytes),
                        plain(byte, true),
                        "{byte:#x} at {at} of {length}"
                    );
                    assert_eq!(
                        is_plain::<false>(&bytes),
                        plain(byte, false),
                        "{byte:#x} at {at} of {length}"
                    );
                }
            }
        }
    }

    #[test]
    fn strict_refuses_exactly_controls_and_non_characters() {
        let strict = DecodeOptions {
            strict_utf8: true,
            ..DecodeOptions::default()
        };
        for c in [
            '\u{1}',
            '\u{1F}',
            '\u{7F}',
            '\u{9F}',
            '\u{FDD0}',
            '\u{FDEF}',
            '\u{FFFE}',
            '\u{10FFFF}',
        ] {
            assert_eq!(
                check_characters(&c.to_string(), &strict),
                Err(ErrorKind::ControlCharacter),
                "{c:?}"
            );
            assert_eq!(
                check_characters(&c.to_string(), &DecodeOptions::default()),
                Ok(()),
                "{c:?}"
            );
        }
        for c in [
            ' ',
            '~',
            '\u{A0}',
            '\u{FEFF}',
            '\u{FDCF}',
            '\u{FDF0}',
            '\u{FFFD}',
            '\u{2A6D4}',
        ] {
            assert_eq!(check_characters(&c.to_string(), &strict), Ok(()), "{c:?}");
        }
    }
}
