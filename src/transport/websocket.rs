//! MQTT bytes in WebSocket messages (RFC 6455): framing. The upgrade that comes before is in `upgrade`.
//!
//! MQTT packets and WebSocket messages need not align [MQTT-6.0.0-2]: reading yields the payload bytes of binary
//! messages one after the other, writing makes one binary message of what it is given [MQTT-6.0.0-1].

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use futures_util::{Sink, Stream as _};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_websockets::{CloseCode, Config, Error, Limits, Message, WebSocketStream};

#[cfg(test)]
mod tests;

/// The largest binary message we send, in bytes. Longer output becomes several messages, so that no peer with a
/// modest limit refuses it and no copy grows without bound.
pub const MESSAGE_SIZE_MAX: usize = 256 * 1024;

/// The largest message accepted from a peer that has not connected yet, in bytes: room for a CONNECT with a will.
pub const FIRST_MESSAGE_SIZE_MAX: usize = 1024 * 1024;

/// The largest message our client accepts, in bytes: the longest MQTT packet (§2.1.4) with its header. The server is
/// one that the user chose.
const CLIENT_MESSAGE_SIZE_MAX: usize = 268_435_455 + 5;

/// A WebSocket that carries MQTT over `S`.
#[derive(Debug)]
pub struct WebSocket<S> {
    frames: WebSocketStream<S>,
    /// The rest of a message whose beginning was read.
    unread: Bytes,
    /// Messages were queued that no flush has sent yet.
    buffered: bool,
    closing: bool,
    ping_interval: Option<Duration>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> WebSocket<S> {
    /// Takes over `stream`, on which a client's upgrade was answered with 101. `ping_interval`: see
    /// [`ping_interval`](Self::ping_interval).
    pub fn server(stream: S, ping_interval: Option<Duration>) -> Self {
        let builder = tokio_websockets::ServerBuilder::new();
        Self::new(
            builder
                .config(framing())
                .limits(limits(FIRST_MESSAGE_SIZE_MAX))
                .serve(stream),
            ping_interval,
        )
    }

    /// Takes over `stream`, on which a server answered our upgrade with 101.
    pub fn client(stream: S) -> Self {
        let builder = tokio_websockets::ClientBuilder::new();
        Self::new(
            builder
                .config(framing())
                .limits(limits(CLIENT_MESSAGE_SIZE_MAX))
                .take_over(stream),
            None,
        )
    }

    fn new(frames: WebSocketStream<S>, ping_interval: Option<Duration>) -> Self {
        Self {
            frames,
            unread: Bytes::new(),
            buffered: false,
            closing: false,
            ping_interval,
        }
    }

    /// See [`Stream::poll_read`](super::stream::Stream::poll_read). Pings are answered on the way.
    pub fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        while self.unread.is_empty() {
            let message = match ready!(Pin::new(&mut self.frames).poll_next(cx)) {
                None => return Poll::Ready(Ok(0)),
                Some(Err(error)) => {
                    self.buffered = true; // a close frame that names the fault may have been queued
                    return Poll::Ready(Err(into_io(error)));
                }
                Some(Ok(message)) => message,
            };
            if message.is_binary() {
                self.unread = message.into_payload().into();
            } else if message.is_text() {
                self.close(CloseCode::UNSUPPORTED_DATA, "MQTT needs binary messages [MQTT-6.0.0-1]");
                let reason = "a text message; MQTT needs binary messages";
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, reason)));
            } else if message.is_close() {
                self.closing = true;
                self.buffered = true; // the answer to it
                return Poll::Ready(Ok(0));
            } else {
                self.buffered = true; // a ping queued its pong
            }
        }
        let length = self.unread.len().min(buf.len());
        self.unread.copy_to_slice(&mut buf[..length]);
        Poll::Ready(Ok(length))
    }

    /// See [`Stream::poll_write`](super::stream::Stream::poll_write). Waits while an earlier message is not flushed.
    pub fn poll_write(&mut self, cx: &mut Context<'_>, bufs: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let length = bufs.iter().map(|buf| buf.len()).sum::<usize>().min(MESSAGE_SIZE_MAX);
        if length == 0 {
            return Poll::Ready(Ok(0)); // an empty message would say nothing
        }
        ready!(Pin::new(&mut self.frames).poll_ready(cx)).map_err(into_io)?;
        let mut payload = BytesMut::with_capacity(length);
        for buf in bufs {
            let room = length - payload.len();
            payload.extend_from_slice(&buf[..buf.len().min(room)]);
        }
        Pin::new(&mut self.frames)
            .start_send(Message::binary(payload.freeze()))
            .map_err(into_io)?;
        self.buffered = true;
        match self.poll_flush(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Ready(Ok(length)),
        }
    }

    /// See [`Stream::poll_flush`](super::stream::Stream::poll_flush).
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.frames).poll_flush(cx)).map_err(into_io)?;
        self.buffered = false;
        Poll::Ready(Ok(()))
    }

    /// Sends a close frame (1000, normal) unless one was sent, and ends our direction of `S`.
    pub fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.close(CloseCode::NORMAL_CLOSURE, "");
        ready!(self.poll_flush(cx))?;
        Pin::new(self.frames.get_mut()).poll_shutdown(cx)
    }

    /// Whether frames may wait for [`poll_flush`](Self::poll_flush).
    pub fn has_buffered_output(&self) -> bool {
        self.buffered
    }

    /// Sets the largest message to accept, in bytes.
    pub fn set_message_size_max(&mut self, bytes: usize) {
        self.frames.limits_mut().set_max_payload_len(Some(bytes));
    }

    /// How long the connection may be idle before a ping is due; `None` = never.
    pub fn ping_interval(&self) -> Option<Duration> {
        self.ping_interval
    }

    /// Queues a ping without payload.
    pub fn queue_ping(&mut self) {
        // Refused only after a close frame, when nobody needs a ping.
        self.buffered |= Pin::new(&mut self.frames)
            .start_send(Message::ping(Bytes::new()))
            .is_ok();
    }

    /// What carries the frames.
    pub fn inner(&self) -> &S {
        self.frames.get_ref()
    }

    /// What carries the frames, to move it between runtimes.
    pub fn inner_mut(&mut self) -> &mut S {
        self.frames.get_mut()
    }

    fn close(&mut self, code: CloseCode, reason: &str) {
        if !std::mem::replace(&mut self.closing, true) {
            // Refused only when the connection is closing already.
            self.buffered |= Pin::new(&mut self.frames)
                .start_send(Message::close(Some(code), reason))
                .is_ok();
        }
    }
}

fn framing() -> Config {
    // One frame per message, and one message on its way at a time: back-pressure reaches the writer.
    Config::default().frame_size(MESSAGE_SIZE_MAX).flush_threshold(1)
}

fn limits(message_size_max: usize) -> Limits {
    Limits::default().max_payload_len(Some(message_size_max))
}

fn into_io(error: Error) -> io::Error {
    match error {
        Error::Io(error) => error,
        Error::AlreadyClosed => io::Error::new(io::ErrorKind::NotConnected, "the WebSocket is closed"),
        error => io::Error::new(io::ErrorKind::InvalidData, format!("WebSocket: {error}")),
    }
}
