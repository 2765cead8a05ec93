//! One connection to the broker: bytes out, packets in. Whoever uses it says what they mean.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::task::{Context, Poll, ready};

use crate::codec::{self, DecodeError, DecodeOptions, EncodeError, Role};
use crate::protocol::packet::Packet;
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
}

impl Link {
    /// A connection on which nothing was said.
    pub(super) const fn new(stream: Stream, version: Version) -> Self {
        Self {
            stream,
            version,
            out: Vec::new(),
            written: 0,
            tail: Vec::new(),
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

    /// Reads once and gives every whole packet to `take`, which may answer into the output. `scratch` is only used within the call.
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
        while let Some((packet, used)) = codec::decode(bytes, Some(self.version), Role::Client, &OPTIONS)? {
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
        mut is_it: impl FnMut(&Packet<'_>) -> Result<Option<T>, Failure>,
    ) -> Result<T, Failure> {
        let mut found = None;
        let mut scratch = Vec::new();
        poll_fn(|cx| {
            while found.is_none() {
                if let Poll::Ready(Err(error)) = self.poll_write(cx) {
                    return Poll::Ready(Err(error.into()));
                }
                ready!(self.poll_read(cx, &mut scratch, |packet, _| {
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
    filters_max: u32::MAX,
};
