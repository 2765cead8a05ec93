//! Who is at the other end of a connection.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use crate::session::peer::CertificateId;

/// Where a connection comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Address {
    /// An IP address and port.
    Ip(SocketAddr),
    /// A process on this machine, over a Unix socket.
    Unix,
    /// The program that the broker is part of.
    Inside,
}

impl Address {
    /// The IP address, if there is one.
    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::Ip(address) => Some(address.ip().to_canonical()),
            Self::Unix | Self::Inside => None,
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(f),
            Self::Unix => f.write_str("unix"),
            Self::Inside => f.write_str("inside"),
        }
    }
}

/// What is known of the peer of one connection.
#[derive(Clone, Debug)]
pub struct Peer {
    /// The client's address: what a trusted proxy said of it, else the socket's.
    pub address: Address,
    /// The proxy's address, when `address` is what a trusted proxy said.
    pub proxy: Option<Address>,
    /// What TLS told, on a TLS connection (or from a trusted proxy, as far as it says).
    pub tls: Option<Box<TlsPeer>>,
    /// What the WebSocket request told.
    pub http: Option<Box<HttpPeer>>,
}

impl Peer {
    /// A peer of whom only the address is known.
    pub fn new(address: Address) -> Self {
        Self {
            address,
            proxy: None,
            tls: None,
            http: None,
        }
    }
}

/// What a TLS handshake told of the client.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsPeer {
    /// `TLSv1_2` or `TLSv1_3`.
    pub version: String,
    /// The cipher suite's name.
    pub cipher: String,
    /// The host name the client asked for (SNI).
    pub server_name: Option<String>,
    /// The ALPN protocol agreed on.
    pub alpn: Option<String>,
    /// The client's certificate, verified against the listener's authorities.
    pub certificate: Option<ClientCertificate>,
}

/// A verified client certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientCertificate {
    /// The first common name of the subject.
    pub common_name: Option<String>,
    /// The whole subject as text, `C=…, O=…, CN=…`.
    pub subject: String,
    /// The subject as DER.
    pub subject_der: Vec<u8>,
    /// DNS names, e-mail addresses, URIs and IP addresses of the subject alternative name.
    pub alternative_names: Vec<String>,
    /// What it is revoked by; `None` where a proxy has seen it, not we.
    pub id: Option<CertificateId>,
    /// The serial number, hexadecimal.
    pub serial: String,
    /// The end of validity, seconds since 1970.
    pub not_after: i64,
    /// SHA-256 of the certificate's DER is made from this by who needs it.
    pub der: Vec<u8>,
}

/// What a WebSocket request told of the client.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HttpPeer {
    /// The path, with its query.
    pub path: String,
    /// `Host`.
    pub host: Option<String>,
    /// `Origin`, which browsers send.
    pub origin: Option<String>,
    /// `User-Agent`.
    pub user_agent: Option<String>,
    /// `Authorization`.
    pub authorization: Option<String>,
    /// `Cookie`.
    pub cookie: Option<String>,
    /// The subprotocol agreed on: `mqtt`, `mqttv3.1.1`, `mqttv3.1`, or none.
    pub subprotocol: Option<&'static str>,
}
