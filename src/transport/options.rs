//! What a listener can be told, with the default and the cost of each option.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use super::peer::Address;
pub use crate::session::network::{Network, NetworkError};

/// How one listener accepts connections.
#[derive(Clone, Debug)]
pub struct ListenerOptions {
    /// The name in logs and counters. Default: `mqtt`.
    pub name: String,
    /// Where to listen. Default: 127.0.0.1:1883 and \[::1]:1883, this machine only.
    pub addresses: Vec<ListenAddress>,
    /// TLS on this listener. Default: none.
    /// Costs about 0.5 ms of CPU a handshake (ECDSA less, RSA more), 20 to 40 KiB a connection, and a copy of every byte.
    pub tls: Option<TlsOptions>,
    /// WebSocket on this listener; with `tls` it is secure WebSocket. Default: none.
    /// Costs about 10 KiB a connection and a copy of every byte.
    pub websocket: Option<WebSocketOptions>,
    /// The networks of the proxies that begin every connection with a PROXY protocol header (version 1 or 2). Default:
    /// none, the header is not understood. When set, every connection must begin with one, and a peer outside these
    /// networks is refused: a header from anybody would let anybody choose his address.
    pub proxy_protocol: Option<Vec<Network>>,
    /// Connections at the same time on this listener. Default: no limit beyond the descriptors of the process. Beyond
    /// it, new connections are closed at once, counted and logged.
    pub connections_max: usize,
    /// Connections at the same time from one address (IPv6: /64). Default: no limit. Beyond it, new connections are closed at once,
    /// counted and logged.
    pub connections_per_address_max: Option<u32>,
    /// New connections a second, with a second's worth at once. Default: no limit. Beyond it, they wait in the kernel's line.
    pub connect_rate_max: Option<u64>,
    /// New connections a second from one address, with a second's worth at once. Default: no limit. Beyond it, they are closed at once,
    /// counted and logged.
    pub connect_rate_per_address_max: Option<u64>,
    /// From accept to a complete CONNECT. Default 10 s. `establish` spends at most this, the driver takes the rest.
    /// Too short: slow radios never get in; too long: silent peers hold descriptors.
    pub connect_timeout: Duration,
    /// Idle time after which TCP asks whether the peer still lives, `None` = never. Default 60 s, then every 15 s,
    /// 4 times. Costs one packet a minute for idle connections; without it a half-open client with keep alive 0 stays.
    pub tcp_keepalive: Option<Duration>,
    /// How long sent bytes may stay unacknowledged, or wait for a peer that does not read, before TCP gives up
    /// (`TCP_USER_TIMEOUT`, Linux), `None` = the system's (about 15 minutes). Default 60 s.
    pub tcp_user_timeout: Option<Duration>,
    /// Sends small packets at once instead of waiting to fill a segment (`TCP_NODELAY`). Default on: output is
    /// batched a round at a time already.
    pub nodelay: bool,
    /// Connections the kernel holds for us between its handshake and our accept. Default 4096 (capped by
    /// `net.core.somaxconn`): a fleet that returns after a power cut comes at once.
    pub backlog: u32,
}

impl ListenerOptions {
    /// Whether who comes from `address` is a WebSocket proxy, which says itself whom it brings.
    pub(super) fn forwards_for(&self, address: &Address) -> bool {
        let trusts = |ip| self.websocket.as_ref().is_some_and(|websocket| websocket.trusts(ip));
        address.ip().is_some_and(trusts)
    }
}

impl Default for ListenerOptions {
    fn default() -> Self {
        Self {
            name: "mqtt".to_owned(),
            addresses: vec![
                ListenAddress::Tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, 1883))),
                ListenAddress::Tcp(SocketAddr::from((Ipv6Addr::LOCALHOST, 1883))),
            ],
            tls: None,
            websocket: None,
            proxy_protocol: None,
            connections_max: usize::MAX,
            connections_per_address_max: None,
            connect_rate_max: None,
            connect_rate_per_address_max: None,
            connect_timeout: Duration::from_secs(10),
            tcp_keepalive: Some(Duration::from_secs(60)),
            tcp_user_timeout: Some(Duration::from_secs(60)),
            nodelay: true,
            backlog: 4096,
        }
    }
}

/// Where a listener listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenAddress {
    /// An IP address and port; port 0 lets the system choose. An IPv6 socket takes IPv6 only, so `0.0.0.0` and `[::]`
    /// go together. Where the machine has no IPv6, such an address is skipped as long as another remains.
    Tcp(SocketAddr),
    /// A Unix socket. A file left over by a broker that died is replaced; one that somebody answers on is not.
    Unix {
        /// The file.
        path: PathBuf,
        /// Its permission bits, for example `0o660`: who may write to it may connect.
        mode: u32,
    },
}

/// TLS of one listener.
#[derive(Clone, Debug, Default)]
pub struct TlsOptions {
    /// The certificates with their keys. At least one. The client's SNI chooses by the names in the certificate, its
    /// signature schemes choose between RSA and ECDSA; the first is for clients without SNI and for unknown names.
    pub certificates: Vec<CertificateFiles>,
    /// PEM file of the authorities that sign client certificates. Default: none, clients are not asked for one.
    pub client_ca: Option<PathBuf>,
    /// With `client_ca`: whether a client without certificate is refused (`true`) or let in to authenticate otherwise
    /// (`false`, the default).
    pub client_certificate_required: bool,
    /// PEM file of revoked client certificates (CRL). Default: none.
    pub client_crl: Option<PathBuf>,
    /// The oldest version spoken. Default: TLS 1.2, which many devices need.
    pub version_min: TlsVersion,
    /// The largest TLS record sent, in bytes including its header. Default `None`: 16 KiB. Small devices want 4096;
    /// costs a little CPU and 29 bytes a record.
    pub fragment_size_max: Option<usize>,
    /// Whether to offer the ALPN protocol `mqtt` (or `http/1.1` with WebSocket). Clients that offer none still get in;
    /// with this on, clients that offer only others are refused. Default off.
    pub alpn: bool,
}

impl TlsOptions {
    /// Every file, each once.
    pub fn files(&self) -> Vec<PathBuf> {
        let pairs = self.certificates.iter().flat_map(|files| [&files.chain, &files.key]);
        let mut files: Vec<_> = pairs.chain(&self.client_ca).chain(&self.client_crl).cloned().collect();
        files.sort_unstable();
        files.dedup();
        files
    }
}

/// One certificate and its key.
#[derive(Clone, Debug)]
pub struct CertificateFiles {
    /// PEM file: the certificate, then its intermediates.
    pub chain: PathBuf,
    /// PEM file: the private key (PKCS#8, PKCS#1 or SEC1, not encrypted).
    pub key: PathBuf,
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TlsVersion {
    /// RFC 5246.
    #[default]
    Tls12,
    /// RFC 8446.
    Tls13,
}

/// WebSocket of one listener.
#[derive(Clone, Debug)]
pub struct WebSocketOptions {
    /// The only path accepted, for example `/mqtt`. Default: any.
    pub path: Option<String>,
    /// The `Origin`s that browsers may come from, for example `https://app.example.org`. Default: any. Requests without
    /// `Origin` (everything but browsers) always pass.
    pub origins: Option<Vec<String>>,
    /// Time without output after which a ping is sent (half of it later at most), `None` = never. Default 30 s: proxies
    /// cut connections that say nothing for 60 s.
    pub ping_interval: Option<Duration>,
    /// The largest message accepted, in bytes. Default 64 MiB, above the largest packet; a message may hold several.
    /// Costs up to this much memory a connection while such a message comes in.
    pub message_size_max: usize,
    /// The largest message accepted from a client that has not entered, in bytes: its CONNECT. Default 128 KiB and a header. Costs up to
    /// this much memory for every stranger: a frame's announced length is reserved before its bytes are there.
    pub first_message_size_max: usize,
    /// The largest request head accepted, in bytes. Default 8192, which holds big cookies.
    pub request_size_max: usize,
    /// Networks of reverse proxies whose `X-Forwarded-For` or `Forwarded` is believed. Default: none.
    pub trusted_proxies: Vec<Network>,
}

impl WebSocketOptions {
    /// [`first_message_size_max`](Self::first_message_size_max) where a CONNECT may have so many bytes: never more than 1 MiB.
    #[must_use]
    pub const fn first_message_size(connect_bytes_max: usize) -> usize {
        const MAX: usize = 1024 * 1024;
        const HEADER: usize = 5; // §2.1.4
        (if connect_bytes_max < MAX {
            connect_bytes_max
        } else {
            MAX
        }) + HEADER
    }

    /// Whether `ip` is a reverse proxy whose word about its clients counts.
    pub(super) fn trusts(&self, ip: IpAddr) -> bool {
        self.trusted_proxies.iter().any(|network| network.contains(ip))
    }
}

impl Default for WebSocketOptions {
    fn default() -> Self {
        Self {
            path: None,
            origins: None,
            ping_interval: Some(Duration::from_secs(30)),
            message_size_max: 64 * 1024 * 1024,
            first_message_size_max: Self::first_message_size(128 * 1024),
            request_size_max: 8192,
            trusted_proxies: Vec::new(),
        }
    }
}
