//! One connected socket, TCP or Unix, that can leave the runtime it lives on and join another.
//!
//! A worker that has read a CONNECT may find that the session lives on another worker. It calls [`Socket::detach`],
//! sends the stream over as a value, and the other worker calls [`Socket::attach`]. Nothing is lost in between: what
//! the peer sends waits in the kernel.

use std::io;
use std::net::TcpStream as StdTcpStream;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

/// A connected socket, on a runtime or between two.
#[derive(Debug)]
pub enum Socket {
    /// A TCP connection, registered with the runtime that attached it.
    Tcp(TcpStream),
    /// A connection over a Unix socket, registered with the runtime that attached it.
    Unix(UnixStream),
    /// A connection within this process; no runtime watches it, and none needs to.
    Memory(DuplexStream),
    /// A connection that no runtime watches: reads and writes fail until it is attached.
    Detached(Detached),
}

/// A socket that no runtime watches.
#[derive(Debug)]
pub enum Detached {
    /// A non-blocking TCP socket.
    Tcp(StdTcpStream),
    /// A non-blocking Unix socket.
    Unix(StdUnixStream),
    /// Nothing: the socket was closed because it could not be (de)registered.
    Closed,
}

impl Socket {
    /// Takes the socket off its runtime and keeps it open. Does nothing if it is off already.
    ///
    /// # Errors
    /// When the operating system refuses to deregister it; the socket is then closed.
    pub fn detach(&mut self) -> io::Result<()> {
        *self = match std::mem::replace(self, Self::Detached(Detached::Closed)) {
            Self::Tcp(stream) => Self::Detached(Detached::Tcp(stream.into_std()?)),
            Self::Unix(stream) => Self::Detached(Detached::Unix(stream.into_std()?)),
            other @ (Self::Memory(_) | Self::Detached(_)) => other,
        };
        Ok(())
    }

    /// The descriptor of a TCP connection.
    pub(super) fn tcp(&self) -> Option<RawFd> {
        match self {
            Self::Tcp(stream) => Some(stream.as_raw_fd()),
            Self::Detached(Detached::Tcp(stream)) => Some(stream.as_raw_fd()),
            Self::Unix(_) | Self::Memory(_) | Self::Detached(_) => None,
        }
    }

    /// Registers the socket with the runtime of the calling thread. Does nothing if it is registered already.
    ///
    /// # Errors
    /// When the operating system refuses to register it (the socket is then closed), or when it is closed.
    ///
    /// # Panics
    /// When the calling thread is not inside a tokio runtime.
    pub fn attach(&mut self) -> io::Result<()> {
        *self = match std::mem::replace(self, Self::Detached(Detached::Closed)) {
            Self::Detached(Detached::Tcp(stream)) => Self::Tcp(TcpStream::from_std(stream)?),
            Self::Detached(Detached::Unix(stream)) => Self::Unix(UnixStream::from_std(stream)?),
            Self::Detached(Detached::Closed) => return Err(not_attached()),
            attached => attached,
        };
        Ok(())
    }
}

impl From<TcpStream> for Socket {
    fn from(stream: TcpStream) -> Self {
        Self::Tcp(stream)
    }
}

impl From<UnixStream> for Socket {
    fn from(stream: UnixStream) -> Self {
        Self::Unix(stream)
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Memory(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Detached(_) => Poll::Ready(Err(not_attached())),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Memory(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Detached(_) => Poll::Ready(Err(not_attached())),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Memory(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Detached(_) => Poll::Ready(Err(not_attached())),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(())) // the kernel has it
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Memory(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Detached(_) => Poll::Ready(Err(not_attached())),
        }
    }
}

fn not_attached() -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, "the socket is not attached to a runtime")
}
