//! Makes the listening sockets.

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};

use super::super::options::{ListenAddress, ListenerOptions};
use super::{Bound, ListenError};

/// Binds every address of `options`. The sockets do not block.
pub(super) fn bind(options: &ListenerOptions) -> Result<Vec<Bound>, ListenError> {
    let mut sockets = Vec::with_capacity(options.addresses.len());
    let mut without_ipv6 = None;
    for address in &options.addresses {
        match address {
            ListenAddress::Unix { path, mode } => match bind_unix(path, *mode, options) {
                Ok(socket) => sockets.push(Bound::IdleUnix(socket)),
                Err(error) => return Err(ListenError::unix(&options.name, path, error)),
            },
            &ListenAddress::Tcp(address) => match bind_tcp(address, options) {
                Ok(socket) => sockets.push(Bound::IdleTcp(socket.into())),
                // A machine or container without IPv6 is normal; the IPv4 address beside it is what is needed.
                Err(error) if has_no_ipv6(address, &error) => without_ipv6 = Some((address, error)),
                Err(error) => return Err(ListenError::tcp(&options.name, address, error)),
            },
        }
    }
    match without_ipv6 {
        Some((address, error)) if sockets.is_empty() => Err(ListenError::tcp(&options.name, address, error)),
        Some((address, _)) => {
            tracing::info!(listener = options.name, %address, "no IPv6 on this machine, listening on the others");
            Ok(sockets)
        }
        None if sockets.is_empty() => Err(ListenError::NoAddress {
            listener: options.name.clone(),
        }),
        None => Ok(sockets),
    }
}

fn bind_tcp(address: SocketAddr, options: &ListenerOptions) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM.nonblocking(),
        Some(Protocol::TCP),
    )?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?; // so that 0.0.0.0 and [::] can both be bound
    }
    socket.set_reuse_address(true)?; // a restart does not wait for old connections in TIME_WAIT
    // Accepted sockets inherit these: no system call per connection.
    socket.set_tcp_nodelay(options.nodelay)?;
    if let Some(idle) = options.tcp_keepalive {
        let interval = std::time::Duration::from_secs(15);
        socket.set_tcp_keepalive(
            &TcpKeepalive::new()
                .with_time(idle)
                .with_interval(interval)
                .with_retries(4),
        )?;
    }
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(options.tcp_user_timeout)?;
    socket.bind(&address.into())?;
    socket.listen(backlog(options))?;
    Ok(socket)
}

fn bind_unix(path: &Path, mode: u32, options: &ListenerOptions) -> io::Result<UnixListener> {
    let listener = match UnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_left_over(path) => {
            std::fs::remove_file(path)?;
            UnixListener::bind(path)?
        }
        result => result?,
    };
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
    SockRef::from(&listener).listen(backlog(options))?; // once more, with our backlog
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Whether the file is a socket nobody listens on any more.
fn is_left_over(path: &Path) -> bool {
    matches!(UnixStream::connect(path), Err(error) if error.kind() == io::ErrorKind::ConnectionRefused)
}

fn backlog(options: &ListenerOptions) -> i32 {
    i32::try_from(options.backlog).unwrap_or(i32::MAX)
}

fn has_no_ipv6(address: SocketAddr, error: &io::Error) -> bool {
    const EAFNOSUPPORT: i32 = 97; // Linux; elsewhere IPv6 can hardly be missing
    let here = address.ip().is_loopback() || address.ip().is_unspecified();
    address.is_ipv6()
        && here
        && (error.kind() == io::ErrorKind::AddrNotAvailable || error.raw_os_error() == Some(EAFNOSUPPORT))
}
