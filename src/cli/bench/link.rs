//! One connection to the broker: bytes out, packets in. Whoever uses it says what they mean.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::task::{Context, Poll, ready};

use crate::codec::{self, DecodeError, DecodeOptions, EncodeError, Role};
use crate::protocol::ids::PacketId;
use crate::protocol::packet::{Packet, Publish};
use crate::protocol::property::Properties;
use crate::protocol::qos::QoS;
use crate::protocol::reason::ReasonCode;
use crate::protocol::version::Version;
use crate::transport::client_stream::ConnectError;
use crate::transport::stream::Stream;

/// Bytes that are read at once, at most.
const READ_BYTES: usize = 128 * 1024;

/// Why a connection is over.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// There is none.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// CONNACK.
    #[error("the broker refused the connection: {}", .0.name())]
    Refused(ReasonCode),
    /// SUBACK.
    #[error("the broker refused a subscription: {}", .0.name())]
    SubscriptionRefused(ReasonCode),
    /// DISCONNECT.
    #[error("the broker disconnected us: {}", .0.name())]
    Disconnected(ReasonCode),
    /// The broker closed the connection.
    #[error("the broker closed a connection")]
    Closed,
    /// The network.
    #[error("connection lost: {0}")]
    Io(#[from] io::Error),
    /// What came is not MQTT.
    #[error("the broker sent what is not MQTT: {0}")]
    Malformed(#[from] DecodeError),
    /// What came is not for us.
    #[error("the broker sent a {0} that nobody asked for")]
    Unexpected(&'static str),
    /// What we were to send cannot be written.
    #[error("cannot write a packet: {0}")]
    Encode(#[from] EncodeError),
    /// No CONNACK.
    #[error("no CONNACK within {0} s")]
    Silent(u64),
}

/// A connection with what is not yet written and not yet whole.
#[derive(Debug)]
pub(super) struct Link {
    stream: Stream,
    version: Version,
    /// To be written; what is before `written` is.
    pub(super) out: Vec<u8>,
    written: usize,
    /// The beginning of a packet.
    tail: Vec<u8>,
    last: Head,
}

/// Everything of a PUBLISH in front of its payload. The next one mostly has the same but for its identifier, and what was checked once need
/// not be checked again: it is the generator, not the broker, that would be measured.
#[derive(Debug, Default)]
struct Head {
    bytes: Vec<u8>,
    packet_id_at: Option<usize>,
    /// Of the whole packet, as its length in the head says.
    packet_bytes: usize,
    dup: bool,
    qos: QoS,
    retain: bool,
}

impl Head {
    /// Remembers the head of the packet at the front of `bytes`.
    fn set(&mut self, bytes: &[u8], packet_bytes: usize, publish: &Publish<'_>) {
        let length_bytes = 1 + bytes[1..].iter().take_while(|byte| **byte & 0x80 != 0).count();
        let topic_bytes = publish.topic.map_or(0, |topic| topic.as_bytes().len());
        self.bytes.clear();
        self.bytes
            .extend_from_slice(&bytes[..packet_bytes - publish.payload.len()]);
        self.packet_id_at = publish.packet_id.map(|_| 1 + length_bytes + 2 + topic_bytes);
        self.packet_bytes = packet_bytes;
        (self.dup, self.qos, self.retain) = (publish.dup, publish.qos, publish.retain);
    }

    /// The packet at the front of `bytes` where it is there as a whole and begins like the last one; without topic and properties.
    #[inline]
    fn read<'a>(&self, bytes: &'a [u8]) -> Option<(Packet<'a>, usize)> {
        let packet = bytes.get(..self.packet_bytes)?;
        let (head, payload) = packet.split_at_checked(self.bytes.len())?;
        let packet_id = match self.packet_id_at {
            None if head.is_empty() || head != self.bytes => return None,
            None => None,
            Some(at) => {
                let (front, rest) = head.split_at_checked(at)?;
                let (id, behind) = rest.split_first_chunk::<2>()?;
                if front != &self.bytes[..at] || behind != &self.bytes[at + 2..] {
                    return None;
                }
                Some(PacketId::new(u16::from_be_bytes(*id))?)
            }
        };
        let publish = Publish {
            dup: self.dup,
            qos: self.qos,
            retain: self.retain,
            topic: None,
            packet_id,
            properties: Properties::EMPTY,
            payload,
        };
        Some((Packet::Publish(publish), self.packet_bytes))
    }
}

impl Link {
    /// A connection on which nothing was said.
    pub(super) fn new(stream: Stream, version: Version) -> Self {
        Self {
            stream,
            version,
            out: Vec::new(),
            written: 0,
            tail: Vec::new(),
            last: Head::default(),
        }
    }

    /// Appends a packet.
    pub(super) fn put(&mut self, packet: &Packet<'_>) -> Result<(), EncodeError> {
        codec::encode(packet, self.version, &mut self.out).map(|_| ())
    }

    /// Bytes that wait to be written.
    pub(super) const fn waiting(&self) -> usize {
        self.out.len() - self.written
    }

    /// Reads once and gives every whole packet to `take`, which may answer into the output; a PUBLISH may come without topic and
    /// properties. `scratch` is only used within the call.
    pub(super) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &mut Vec<u8>,
        mut take: impl FnMut(&Packet<'_>, &mut Vec<u8>) -> Result<(), Failure>,
    ) -> Poll<Result<(), Failure>> {
        let kept = self.tail.len();
        if scratch.len() < kept + READ_BYTES {
            scratch.resize(kept + READ_BYTES, 0);
        }
        let read = ready!(self.stream.poll_read(cx, &mut scratch[kept..kept + READ_BYTES]))?;
        if read == 0 {
            return Poll::Ready(Err(Failure::Closed));
        }
        scratch[..kept].copy_from_slice(&self.tail);
        self.tail.clear();
        let mut bytes = &scratch[..kept + read];
        loop {
            if let Some((packet, used)) = self.last.read(bytes) {
                take(&packet, &mut self.out)?;
                bytes = &bytes[used..];
                continue;
            }
            let Some((packet, used)) = codec::decode(bytes, Some(self.version), Role::Client, &OPTIONS)? else {
                break;
            };
            if let Packet::Publish(publish) = &packet {
                self.last.set(bytes, used, publish);
            }
            take(&packet, &mut self.out)?;
            bytes = &bytes[used..];
        }
        self.tail.extend_from_slice(bytes);
        Poll::Ready(Ok(()))
    }

    /// Writes what is there.
    pub(super) fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.written < self.out.len() {
            let written = ready!(self.stream.poll_write(cx, &[IoSlice::new(&self.out[self.written..])]))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += written;
        }
        self.out.clear();
        self.written = 0;
        if self.stream.has_buffered_output() {
            self.stream.poll_flush(cx)
        } else {
            Poll::Ready(Ok(()))
        }
    }

    /// Writes what is there, then waits for the next packet that `is_it` makes something of.
    pub(super) async fn answer<T>(
        &mut self,
        scratch: &RefCell<Vec<u8>>,
        mut is_it: impl FnMut(&Packet<'_>) -> Result<Option<T>, Failure>,
    ) -> Result<T, Failure> {
        let mut found = None;
        poll_fn(|cx| {
            while found.is_none() {
                if let Poll::Ready(Err(error)) = self.poll_write(cx) {
                    return Poll::Ready(Err(error.into()));
                }
                ready!(self.poll_read(cx, &mut scratch.borrow_mut(), |packet, _| {
                    if found.is_none() {
                        found = is_it(packet)?;
                    }
                    Ok(())
                }))?;
            }
            Poll::Ready(found.take().ok_or(Failure::Closed))
        })
        .await
    }

    /// Writes what is there and closes in order.
    pub(super) async fn close(&mut self) {
        let _ = poll_fn(|cx| self.poll_write(cx)).await; // it is closed all the same
        let _ = poll_fn(|cx| self.stream.poll_shutdown(cx)).await;
    }
}

/// What is read from a broker: every packet of MQTT.
const OPTIONS: DecodeOptions = DecodeOptions {
    packet_bytes_max: codec::PACKET_BYTES_MAX,
    strict_utf8: false,
    topic_separators_max: u16::MAX,
    topic_bytes_max: u16::MAX,
    user_properties_max: u16::MAX,
    filters_max: u32::MAX,
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::PublishFrame;

    fn frame(version: Version, topic: &str, id: u16, payload: &[u8], qos: QoS) -> Vec<u8> {
        let mut bytes = Vec::new();
        let frame = PublishFrame {
            topic,
            qos,
            retain: false,
            dup: false,
            packet_id: PacketId::new(id),
            topic_alias: None,
            message_expiry: Some(7),
            subscription_identifiers: &[],
            properties: Properties::EMPTY,
            payload,
        };
        frame.write(version, &mut bytes).unwrap();
        bytes
    }

    fn decode(bytes: &[u8], version: Version) -> (Packet<'_>, usize) {
        codec::decode(bytes, Some(version), Role::Client, &OPTIONS)
            .unwrap()
            .unwrap()
    }

    #[test]
    fn a_packet_that_begins_like_the_last_one_is_read_as_the_codec_reads_it() {
        for version in Version::ALL {
            for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
                for payload in [&b"x".repeat(30)[..], &b"y".repeat(300)] {
                    let first = frame(version, "a/b", 1, payload, qos);
                    let (Packet::Publish(publish), used) = decode(&first, version) else {
                        panic!()
                    };
                    let mut head = Head::default();
                    assert!(head.read(&first).is_none(), "nothing is known yet");
                    head.set(&first, used, &publish);

                    let mut other = payload.to_vec();
                    other[0] = b'z';
                    let second = frame(version, "a/b", 0xABCD, &other, qos);
                    let (Packet::Publish(expected), used) = decode(&second, version) else {
                        panic!()
                    };
                    let Some((Packet::Publish(read), read_bytes)) = head.read(&second) else {
                        panic!("{version:?} {qos:?}")
                    };
                    assert_eq!(
                        (read.payload, read.packet_id, read_bytes),
                        (expected.payload, expected.packet_id, used)
                    );
                    assert_eq!(
                        (read.qos, read.dup, read.retain),
                        (expected.qos, expected.dup, expected.retain)
                    );

                    assert!(head.read(&second[..second.len() - 1]).is_none(), "not whole");
                    assert!(
                        head.read(&frame(version, "a/c", 1, payload, qos)).is_none(),
                        "another topic"
                    );
                    assert!(
                        head.read(&frame(version, "a/b", 1, &payload[1..], qos)).is_none(),
                        "another length"
                    );
                }
            }
        }
    }

    #[test]
    fn packet_identifier_zero_is_left_to_the_codec_which_refuses_it() {
        let version = Version::V311;
        let mut bytes = frame(version, "a", 1, b"payload", QoS::AtLeastOnce);
        let (Packet::Publish(publish), used) = decode(&bytes, version) else {
            panic!()
        };
        let mut head = Head::default();
        head.set(&bytes, used, &publish);
        bytes[6] = 0;
        assert!(head.read(&bytes).is_none());
        assert!(codec::decode(&bytes, Some(version), Role::Client, &OPTIONS).is_err());
    }
}
