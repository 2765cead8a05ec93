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
use tokio::time::{Instant, Sleep};
use tokio_websockets::{CloseCode, Config, Error, Limits, Message, WebSocketStream};

use super::options::WebSocketOptions;

#[cfg(test)]
mod tests;

/// The largest binary message we send, in bytes. Longer output becomes several messages, so that no peer with a
/// modest limit refuses it and no copy grows without bound.
pub const MESSAGE_SIZE_MAX: usize = 256 * 1024;

/// The first byte of AUTH (§3.15.1): who is sent one has not entered.
const AUTH: u8 = 0xF0;

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
    /// The limit to set once the client has entered.
    message_size_max: Option<usize>,
    pings: Option<Pings>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> WebSocket<S> {
    /// Takes over `stream`, on which a client's upgrade was answered with 101.
    pub fn server(stream: S, options: &WebSocketOptions) -> Self {
        let builder = tokio_websockets::ServerBuilder::new().config(framing());
        Self {
            message_size_max: Some(options.message_size_max),
            pings: options.ping_interval.map(Pings::new),
            ..Self::new(builder.limits(limits(options.first_message_size_max)).serve(stream))
        }
    }

    /// Takes over `stream`, on which a server answered our upgrade with 101.
    pub fn client(stream: S) -> Self {
        let builder = tokio_websockets::ClientBuilder::new().config(framing());
        Self::new(builder.limits(limits(CLIENT_MESSAGE_SIZE_MAX)).take_over(stream))
    }

    fn new(frames: WebSocketStream<S>) -> Self {
        let (unread, message_size_max, pings) = (Bytes::new(), None, None);
        Self {
            frames,
            unread,
            buffered: false,
            closing: false,
            message_size_max,
            pings,
        }
    }

    /// See [`Stream::poll_read`](super::stream::Stream::poll_read). Pings are answered on the way, and sent when due.
    pub fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        if self.pings.as_mut().is_some_and(|pings| pings.poll_due(cx)) {
            // Refused only after a close frame, when nobody needs a ping.
            self.buffered |= Pin::new(&mut self.frames)
                .start_send(Message::ping(Bytes::new()))
                .is_ok();
        }
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
        self.see_to_limit(bufs);
        let mut payload = BytesMut::with_capacity(length);
        for buf in bufs {
            let room = length - payload.len();
            payload.extend_from_slice(&buf[..buf.len().min(room)]);
        }
        Pin::new(&mut self.frames)
            .start_send(Message::binary(payload.freeze()))
            .map_err(into_io)?;
        self.buffered = true;
        if let Some(pings) = &mut self.pings {
            pings.put_off();
        }
        match self.poll_flush(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Ready(Ok(length)),
        }
    }

    /// Lets a client send more at once when it is told that it has entered, and not when it is asked for more proof.
    fn see_to_limit(&mut self, output: &[io::IoSlice<'_>]) {
        if self.message_size_max.is_none() || output.iter().flat_map(|buf| buf.first()).next() == Some(&AUTH) {
            return;
        }
        if let Some(bytes) = self.message_size_max.take() {
            self.frames.limits_mut().set_max_payload_len(Some(bytes));
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

    /// Forgets the runtime that the pings were timed by.
    pub(super) fn detach(&mut self) {
        if let Some(pings) = &mut self.pings {
            pings.timer = None;
        }
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

/// When a ping is due. Looked at twice in an interval, so that no write touches a timer.
#[derive(Debug)]
struct Pings {
    interval: Duration,
    /// Made by the first poll on a runtime.
    timer: Option<Pin<Box<Sleep>>>,
    /// Half intervals that have passed since something was sent.
    idle_halves: u8,
}

impl Pings {
    fn new(interval: Duration) -> Self {
        Self {
            interval,
            timer: None,
            idle_halves: 0,
        }
    }

    fn put_off(&mut self) {
        self.idle_halves = 0;
    }

    /// Whether nothing was sent for an interval, or half of one more.
    fn poll_due(&mut self, cx: &mut Context<'_>) -> bool {
        let half = self.interval / 2;
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(half)));
        let mut is_due = false;
        while timer.as_mut().poll(cx).is_ready() {
            timer.as_mut().reset(Instant::now() + half);
            is_due |= self.idle_halves >= 2;
            self.idle_halves = if is_due { 0 } else { self.idle_halves + 1 };
        }
        is_due
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
