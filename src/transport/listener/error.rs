//! Why a listener cannot listen, and what to do about it.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::super::tls::TlsError;

/// Why a listener cannot listen: one line that says what to do.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Somebody listens there already.
    #[error("listener {listener:?}: {address} is in use by {holder}; stop that program or choose another port")]
    AddressInUse {
        /// The listener's name.
        listener: String,
        /// The address.
        address: SocketAddr,
        /// Who listens there, as far as it can be found out.
        holder: String,
    },
    /// Ports below 1024 are reserved.
    #[error(
        "listener {listener:?}: not allowed to listen on {address}; choose a port of 1024 or above, \
         or give the program CAP_NET_BIND_SERVICE"
    )]
    NotAllowed {
        /// The listener's name.
        listener: String,
        /// The address.
        address: SocketAddr,
    },
    /// The address belongs to no interface of this machine.
    #[error(
        "listener {listener:?}: {address} is not an address of this machine; \
         use 0.0.0.0 or [::] for all interfaces, 127.0.0.1 for this machine only"
    )]
    NotAvailable {
        /// The listener's name.
        listener: String,
        /// The address.
        address: SocketAddr,
    },
    /// The list of addresses is empty.
    #[error("listener {listener:?} has no address; give it one, for example 127.0.0.1:1883")]
    NoAddress {
        /// The listener's name.
        listener: String,
    },
    /// A broker answers on the Unix socket.
    #[error("listener {listener:?}: {path:?} is in use by another program; stop it or choose another path")]
    PathInUse {
        /// The listener's name.
        listener: String,
        /// The socket's file.
        path: PathBuf,
    },
    /// The Unix socket cannot be made.
    #[error(
        "listener {listener:?}: cannot make the socket {path:?}: {source}; does its folder exist, may we write there?"
    )]
    Path {
        /// The listener's name.
        listener: String,
        /// The socket's file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Its certificates cannot be used.
    #[error("listener {listener:?}: {source}")]
    Tls {
        /// The listener's name.
        listener: String,
        /// Which file, and what to do.
        source: TlsError,
    },
    /// Anything else the operating system says.
    #[error("listener {listener:?}: cannot listen on {address}: {source}")]
    Other {
        /// The listener's name.
        listener: String,
        /// The address.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
}

impl ListenError {
    pub(super) fn tcp(listener: &str, address: SocketAddr, source: io::Error) -> Self {
        let listener = listener.to_owned();
        match source.kind() {
            io::ErrorKind::AddrInUse => Self::AddressInUse {
                listener,
                address,
                holder: holder(address),
            },
            io::ErrorKind::PermissionDenied => Self::NotAllowed { listener, address },
            io::ErrorKind::AddrNotAvailable => Self::NotAvailable { listener, address },
            _ => Self::Other {
                listener,
                address,
                source,
            },
        }
    }

    pub(super) fn unix(listener: &str, path: &Path, source: io::Error) -> Self {
        let (listener, path) = (listener.to_owned(), path.to_owned());
        match source.kind() {
            io::ErrorKind::AddrInUse => Self::PathInUse { listener, path },
            _ => Self::Path { listener, path, source },
        }
    }
}

/// Who listens on the port of `address`: the program's name and process id where Linux tells, else "another program".
fn holder(address: SocketAddr) -> String {
    let inodes = ["/proc/net/tcp", "/proc/net/tcp6"]
        .into_iter()
        .filter_map(|table| std::fs::read_to_string(table).ok());
    let inodes: Vec<String> = inodes
        .flat_map(|table| listening_inodes(&table, address.port()))
        .collect();
    holder_of_inodes(&inodes).unwrap_or_else(|| "another program".to_owned())
}

/// The socket inodes that listen on `port`, of a table in the format of `/proc/net/tcp`.
fn listening_inodes(table: &str, port: u16) -> Vec<String> {
    const LISTEN: &str = "0A";
    let port = format!(":{port:04X}");
    let rows = table
        .lines()
        .skip(1)
        .map(|row| row.split_ascii_whitespace().collect::<Vec<_>>());
    rows.filter(|row| row.len() > 9 && row[1].ends_with(&port) && row[3] == LISTEN)
        .map(|row| format!("socket:[{}]", row[9]))
        .collect()
}

fn holder_of_inodes(inodes: &[String]) -> Option<String> {
    for process in std::fs::read_dir("/proc").ok()?.flatten() {
        if process.file_name() == "self" || process.file_name() == "thread-self" {
            continue; // says less than the number
        }
        let Ok(descriptors) = std::fs::read_dir(process.path().join("fd")) else {
            continue; // not a process, or not ours to look at
        };
        let links = descriptors
            .flatten()
            .filter_map(|descriptor| std::fs::read_link(descriptor.path()).ok());
        let mut links = links.filter_map(|link| link.into_os_string().into_string().ok());
        if links.any(|link| inodes.contains(&link)) {
            let name = std::fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            return Some(format!(
                "{} (process {})",
                name.trim(),
                process.file_name().to_string_lossy()
            ));
        }
    }
    None
}
