//! One connection's bytes, whatever carries them: TCP, Unix, TLS, WebSocket or both. Server and client side alike.
//!
//! The driver polls four methods. Polling order for output: [`Stream::poll_write`] while there are bytes, then
//! [`Stream::poll_flush`] until it is ready (free for a plain socket, where [`Stream::has_buffered_output`] is false).

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::TlsStream;

use super::socket::Socket;
use super::websocket::WebSocket;

#[cfg(test)]
pub(super) mod tests;

/// The bytes of one MQTT connection.
///
/// Large variants are boxed: most connections are plain, and a worker holds many.
#[derive(Debug)]
pub enum Stream {
    /// MQTT directly on a TCP or Unix socket.
    Plain(Socket),
    /// MQTT over TLS.
    Tls(Box<TlsStream<Socket>>),
    /// MQTT in WebSocket messages.
    WebSocket(Box<WebSocket<Socket>>),
    /// MQTT in WebSocket messages over TLS.
    SecureWebSocket(Box<WebSocket<TlsStream<Socket>>>),
}

impl Stream {
    /// Reads what is there into `buf`, which must not be empty. `Ok(0)` is the end of the connection.
    ///
    /// On a plain socket this is at most one `recv`; a short read is not followed by a second one to see `EAGAIN`.
    /// After a full `buf` the caller should poll again.
    ///
    /// # Errors
    /// What the socket says; `InvalidData` for a violation of TLS or WebSocket (a text message, an unmasked frame).
    pub fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Plain(socket) => poll_read_into(socket, cx, buf),
            // Peers that close without close_notify are normal: MQTT has its own DISCONNECT.
            Self::Tls(tls) => poll_read_into(&mut **tls, cx, buf).map(end_instead_of_truncation),
            Self::WebSocket(websocket) => websocket.poll_read(cx, buf),
            Self::SecureWebSocket(websocket) => websocket.poll_read(cx, buf).map(end_instead_of_truncation),
        }
    }

    /// Writes bytes from `bufs`, in order, and says how many were taken.
    ///
    /// On a plain socket this is one `send` or one `writev`. A WebSocket makes one binary message of them, at most
    /// [`MESSAGE_SIZE_MAX`](super::websocket::MESSAGE_SIZE_MAX) bytes. TLS and WebSocket may hold back some of what
    /// they took until [`poll_flush`](Self::poll_flush).
    ///
    /// # Errors
    /// What the socket says.
    pub fn poll_write(&mut self, cx: &mut Context<'_>, bufs: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        match self {
            Self::Plain(socket) => poll_write_from(socket, cx, bufs),
            Self::Tls(tls) => poll_write_from(&mut **tls, cx, bufs),
            Self::WebSocket(websocket) => websocket.poll_write(cx, bufs),
            Self::SecureWebSocket(websocket) => websocket.poll_write(cx, bufs),
        }
    }

    /// Hands everything that was taken to the kernel.
    ///
    /// # Errors
    /// What the socket says.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(_) => Poll::Ready(Ok(())),
            Self::Tls(tls) => Pin::new(&mut **tls).poll_flush(cx),
            Self::WebSocket(websocket) => websocket.poll_flush(cx),
            Self::SecureWebSocket(websocket) => websocket.poll_flush(cx),
        }
    }

    /// Says goodbye in the words of the transport (WebSocket close frame, TLS close_notify) and ends our direction.
    /// Does not wait for the peer's goodbye.
    ///
    /// # Errors
    /// What the socket says; a caller that is closing anyway may ignore it.
    pub fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(socket) => Pin::new(socket).poll_shutdown(cx),
            Self::Tls(tls) => Pin::new(&mut **tls).poll_shutdown(cx),
            Self::WebSocket(websocket) => websocket.poll_shutdown(cx),
            Self::SecureWebSocket(websocket) => websocket.poll_shutdown(cx),
        }
    }

    /// Whether bytes that [`poll_write`](Self::poll_write) took may still wait for [`poll_flush`](Self::poll_flush).
    pub fn has_buffered_output(&self) -> bool {
        match self {
            Self::Plain(_) => false,
            Self::Tls(tls) => wants_write(tls),
            Self::WebSocket(websocket) => websocket.has_buffered_output(),
            Self::SecureWebSocket(websocket) => websocket.has_buffered_output() || wants_write(websocket.inner()),
        }
    }

    /// Takes the connection off its runtime, see [`Socket::detach`]. Bytes that were read or taken stay inside.
    ///
    /// # Errors
    /// See [`Socket::detach`].
    pub fn detach(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(_) | Self::Tls(_) => {}
            Self::WebSocket(websocket) => websocket.detach(),
            Self::SecureWebSocket(websocket) => websocket.detach(),
        }
        self.socket_mut().detach()
    }

    /// Registers the connection with the runtime of the calling thread, see [`Socket::attach`].
    ///
    /// The new owner must poll for reading at once, and for flushing if
    /// [`has_buffered_output`](Self::has_buffered_output): bytes inside the stream wake nobody.
    ///
    /// # Errors
    /// See [`Socket::attach`].
    pub fn attach(&mut self) -> io::Result<()> {
        self.socket_mut().attach()
    }

    /// What carries the bytes, in one word for logs and counters: `tcp`, `unix`, `inside`, `tls`, `ws` or `wss`.
    pub fn transport_name(&self) -> &'static str {
        match self {
            Self::Plain(Socket::Unix(_) | Socket::Detached(super::socket::Detached::Unix(_))) => "unix",
            Self::Plain(Socket::Memory(_)) => "inside",
            Self::Plain(_) => "tcp",
            Self::Tls(_) => "tls",
            Self::WebSocket(_) => "ws",
            Self::SecureWebSocket(_) => "wss",
        }
    }

    fn socket_mut(&mut self) -> &mut Socket {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(tls) => tls.get_mut().0,
            Self::WebSocket(websocket) => websocket.inner_mut(),
            Self::SecureWebSocket(websocket) => websocket.inner_mut().get_mut().0,
        }
    }
}

fn poll_read_into<S: AsyncRead + Unpin>(
    stream: &mut S,
    cx: &mut Context<'_>,
    buf: &mut [u8],
) -> Poll<io::Result<usize>> {
    let mut buf = ReadBuf::new(buf);
    Pin::new(stream).poll_read(cx, &mut buf).map_ok(|()| buf.filled().len())
}

fn poll_write_from<S: AsyncWrite + Unpin>(
    stream: &mut S,
    cx: &mut Context<'_>,
    bufs: &[io::IoSlice<'_>],
) -> Poll<io::Result<usize>> {
    match bufs {
        [buf] => Pin::new(stream).poll_write(cx, buf), // send() is cheaper than writev() of one
        bufs => Pin::new(stream).poll_write_vectored(cx, bufs),
    }
}

fn end_instead_of_truncation(result: io::Result<usize>) -> io::Result<usize> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(0),
        result => result,
    }
}

fn wants_write(tls: &TlsStream<Socket>) -> bool {
    match tls {
        TlsStream::Client(tls) => tls.get_ref().1.wants_write(),
        TlsStream::Server(tls) => tls.get_ref().1.wants_write(),
    }
}

const _: () = {
    const fn is_send<T: Send>() {}
    is_send::<Stream>() // a stream moves between workers
};
