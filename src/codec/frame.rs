//! The fixed header: packet type and remaining length. MQTT 5 section 2.1.

use super::ErrorKind;
use crate::protocol::packet::PacketType;

/// The packet type of a first byte; `None` for type 0, which is reserved.
pub(super) const fn packet_type(first: u8) -> Option<PacketType> {
    Some(match first >> 4 {
        1 => PacketType::Connect,
        2 => PacketType::ConnAck,
        3 => PacketType::Publish,
        4 => PacketType::PubAck,
        5 => PacketType::PubRec,
        6 => PacketType::PubRel,
        7 => PacketType::PubComp,
        8 => PacketType::Subscribe,
        9 => PacketType::SubAck,
        10 => PacketType::Unsubscribe,
        11 => PacketType::UnsubAck,
        12 => PacketType::PingReq,
        13 => PacketType::PingResp,
        14 => PacketType::Disconnect,
        15 => PacketType::Auth,
        _ => return None,
    })
}

/// Length of the fixed header and of the whole packet; `None` while the length is not complete.
#[inline]
pub(super) fn parse(bytes: &[u8], packet_bytes_max: u32) -> Result<Option<(usize, usize)>, ErrorKind> {
    let (header_bytes, remaining) = match bytes {
        [_, length @ 0..=0x7F, ..] => (2, usize::from(*length)),
        [_, low @ 0x80..=0xFF, high @ 1..=0x7F, ..] => (3, usize::from(*high) << 7 | usize::from(*low & 0x7F)),
        _ => match parse_long(bytes)? {
            Some(lengths) => lengths,
            None => return Ok(None),
        },
    };
    let packet_bytes = header_bytes + remaining;
    if packet_bytes > packet_bytes_max as usize {
        return Err(ErrorKind::PacketTooLarge {
            bytes: packet_bytes as u32,
            bytes_max: packet_bytes_max,
        });
    }
    Ok(Some((header_bytes, packet_bytes)))
}

/// Length of a complete fixed header.
pub(super) fn header_bytes(bytes: &[u8]) -> usize {
    let continued = bytes.iter().skip(1).take_while(|byte| **byte & 0x80 != 0);
    (2 + continued.count()).min(bytes.len())
}

fn parse_long(bytes: &[u8]) -> Result<Option<(usize, usize)>, ErrorKind> {
    let mut value = 0;
    for index in 0..4 {
        let Some(&byte) = bytes.get(1 + index) else {
            return Ok(None);
        };
        value |= usize::from(byte & 0x7F) << (7 * index);
        if byte & 0x80 == 0 {
            // A last byte of zero adds nothing: the value fits in fewer bytes [MQTT-1.5.5-1].
            return if byte == 0 && index > 0 {
                Err(ErrorKind::RemainingLength)
            } else {
                Ok(Some((2 + index, value)))
            };
        }
    }
    Err(ErrorKind::RemainingLength)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_table_1_1_are_read_and_needless_or_endless_ones_are_not() {
        let parse = |bytes: &[u8]| parse(bytes, u32::MAX);
        for (bytes, expected) in [
            (&[0x30, 0][..], (2, 2)),
            (&[0x30, 0x7F], (2, 129)),
            (&[0x30, 0x80, 1], (3, 131)),
            (&[0x30, 0xFF, 0x7F], (3, 3 + 16_383)),
            (&[0x30, 0x80, 0x80, 1], (4, 4 + 16_384)),
            (&[0x30, 0xFF, 0xFF, 0xFF, 0x7F], (5, 5 + 268_435_455)),
        ] {
            assert_eq!(parse(bytes), Ok(Some(expected)), "{bytes:x?}");
            for cut in 0..bytes.len() {
                assert_eq!(parse(&bytes[..cut]), Ok(None), "{bytes:x?} cut at {cut}");
            }
        }
        for bytes in [
            &[0x30, 0x80, 0][..],
            &[0x30, 0x81, 0x80, 0],
            &[0x10, 0xFF, 0xFF, 0xFF, 0xFF],
        ] {
            assert_eq!(parse(bytes), Err(ErrorKind::RemainingLength), "{bytes:x?}");
        }
    }

    #[test]
    fn the_limit_counts_the_whole_packet() {
        assert_eq!(parse(&[0x30, 8], 10), Ok(Some((2, 10))));
        assert_eq!(
            parse(&[0x30, 9], 10),
            Err(ErrorKind::PacketTooLarge {
                bytes: 11,
                bytes_max: 10
            })
        );
    }
}
