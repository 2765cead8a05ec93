//! The PROXY protocol, versions 1 and 2 (HAProxy, `doc/proxy-protocol.txt`): who the client of a proxy is.
//!
//! Never reads a byte beyond the header, so that whatever follows (TLS, MQTT, HTTP) is still in the socket.
//! Version 1 has no length: it is read a character at a time, up to 107 system calls. Version 2 takes three.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::io::{AsyncRead, AsyncReadExt};

/// The first twelve bytes of version 2.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// The shortest header of version 1, `PROXY UNKNOWN` and its end of line; version 2 is longer.
const SHORTEST: usize = 15;
/// The longest line of version 1, with its end.
const LINE_MAX: usize = 107;
/// The longest header of version 2 accepted after its first 16 bytes, in bytes. The addresses take 36 (216 for Unix
/// sockets), certificates' names and the like the rest.
const V2_LENGTH_MAX: usize = 2048;

/// What a header said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProxyHeader {
    /// The client's address; `None` if the proxy speaks for itself (health checks) or does not know.
    pub source: Option<SocketAddr>,
    /// The common name of the client's certificate, if the proxy ended TLS and verified one (version 2, `PP2_TYPE_SSL`).
    pub client_common_name: Option<String>,
    /// The host name that the client asked the proxy for (version 2, `PP2_TYPE_AUTHORITY`).
    pub server_name: Option<String>,
}

/// Why a header was refused.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// The peer closed before it sent a byte: a health check or port scan.
    #[error("closed before a byte")]
    Closed,
    /// There is none.
    #[error("no PROXY protocol header; this listener is for proxies that send one")]
    Missing,
    /// There is one, and it breaks the protocol.
    #[error("bad PROXY protocol header: {0}")]
    Malformed(&'static str),
    /// The socket failed, or ended inside the header.
    #[error("while reading the PROXY protocol header: {0}")]
    Io(#[from] io::Error),
}

/// Reads the header that `stream` must begin with, and not a byte more. The caller bounds the time.
///
/// # Errors
/// [`ProxyError`].
pub async fn read_header<S: AsyncRead + Unpin>(stream: &mut S) -> Result<ProxyHeader, ProxyError> {
    let mut start = [0; SHORTEST];
    let mut filled = 0;
    while filled < SHORTEST {
        let count = match stream.read(&mut start[filled..]).await {
            Err(error) if filled == 0 && error.kind() == io::ErrorKind::ConnectionReset => 0,
            result => result?,
        };
        filled += count;
        let expected = |whole: &[u8]| start[..filled].starts_with(&whole[..filled.min(whole.len())]);
        match count {
            0 if filled == 0 => return Err(ProxyError::Closed),
            0 => return Err(ProxyError::Malformed("it ends too early")),
            _ if !expected(b"PROXY ") && !expected(SIGNATURE) => return Err(ProxyError::Missing),
            _ => {}
        }
    }
    if start.starts_with(SIGNATURE) {
        read_v2(stream, &start).await
    } else {
        read_v1(stream, &start).await
    }
}

async fn read_v1<S: AsyncRead + Unpin>(stream: &mut S, start: &[u8]) -> Result<ProxyHeader, ProxyError> {
    let mut line = start.to_vec();
    while !line.ends_with(b"\r\n") {
        if line.len() == LINE_MAX {
            return Err(ProxyError::Malformed("the line is longer than 107 bytes"));
        }
        line.push(stream.read_u8().await?);
    }
    let line = std::str::from_utf8(&line).map_err(|_| ProxyError::Malformed("the line is not ASCII"))?;
    parse_v1(line.trim_end_matches("\r\n"))
}

fn parse_v1(line: &str) -> Result<ProxyHeader, ProxyError> {
    let words: Vec<&str> = line.split(' ').collect();
    let source = match words.as_slice() {
        ["PROXY", "UNKNOWN", ..] => None, // the rest is to be ignored
        [
            "PROXY",
            family @ ("TCP4" | "TCP6"),
            source,
            destination,
            source_port,
            destination_port,
        ] => {
            let ip = |word: &str| {
                let ip = word
                    .parse::<IpAddr>()
                    .ok()
                    .filter(|ip| ip.is_ipv4() == (*family == "TCP4"));
                ip.ok_or(ProxyError::Malformed("an address is not of its family"))
            };
            let port = |word: &str| {
                word.parse::<u16>()
                    .map_err(|_| ProxyError::Malformed("a port is not a number"))
            };
            ip(destination)?;
            port(destination_port)?;
            Some(SocketAddr::new(ip(source)?, port(source_port)?))
        }
        _ => {
            return Err(ProxyError::Malformed(
                "the line is not PROXY TCP4|TCP6|UNKNOWN with two addresses and ports",
            ));
        }
    };
    Ok(ProxyHeader {
        source,
        ..ProxyHeader::default()
    })
}

async fn read_v2<S: AsyncRead + Unpin>(stream: &mut S, start: &[u8; SHORTEST]) -> Result<ProxyHeader, ProxyError> {
    let (version_command, family) = (start[12], start[13]);
    let length = usize::from(u16::from_be_bytes([start[14], stream.read_u8().await?]));
    if version_command >> 4 != 2 {
        return Err(ProxyError::Malformed("the version is neither 1 nor 2"));
    }
    if length > V2_LENGTH_MAX {
        return Err(ProxyError::Malformed("it is longer than 2048 bytes"));
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    match version_command & 0x0F {
        0 => Ok(ProxyHeader::default()), // LOCAL: the proxy itself
        1 => parse_v2(family, &body),
        _ => Err(ProxyError::Malformed("the command is neither LOCAL nor PROXY")),
    }
}

fn parse_v2(family: u8, body: &[u8]) -> Result<ProxyHeader, ProxyError> {
    const TOO_SHORT: ProxyError = ProxyError::Malformed("it is too short for its addresses");
    let (source, addresses_length) = match family >> 4 {
        0 => (None, 0), // AF_UNSPEC
        1 => {
            let (addresses, _) = body.split_first_chunk::<12>().ok_or(TOO_SHORT)?;
            let [a, b, c, d, _, _, _, _, high, low, _, _] = *addresses;
            (
                Some(SocketAddr::from((
                    Ipv4Addr::new(a, b, c, d),
                    u16::from_be_bytes([high, low]),
                ))),
                12,
            )
        }
        2 => {
            let (addresses, _) = body.split_first_chunk::<36>().ok_or(TOO_SHORT)?;
            let (ip, rest) = addresses.split_first_chunk::<16>().ok_or(TOO_SHORT)?;
            (
                Some(SocketAddr::from((
                    Ipv6Addr::from(*ip),
                    u16::from_be_bytes([rest[16], rest[17]]),
                ))),
                36,
            )
        }
        3 => (None, 216), // AF_UNIX: two paths of 108 bytes
        _ => return Err(ProxyError::Malformed("the address family is unknown")),
    };
    let mut header = ProxyHeader {
        source,
        ..ProxyHeader::default()
    };
    let fields = body.get(addresses_length..).ok_or(TOO_SHORT)?;
    for_each_field(fields, |kind, value| header.take_field(kind, value))?;
    Ok(header)
}

impl ProxyHeader {
    fn take_field(&mut self, kind: u8, value: &[u8]) -> Result<(), ProxyError> {
        const AUTHORITY: u8 = 0x02;
        const SSL: u8 = 0x20;
        const SSL_CN: u8 = 0x22;
        const CLIENT_CERT_CONN: u8 = 0x02; // a certificate was presented on this connection
        let text = |value: &[u8]| std::str::from_utf8(value).ok().map(str::to_owned);
        match kind {
            AUTHORITY => self.server_name = text(value),
            SSL => {
                let Some(([client, verify @ ..], fields)) = value.split_first_chunk::<5>() else {
                    return Err(ProxyError::Malformed("the SSL field is too short"));
                };
                let verified = *verify == [0; 4] && client & CLIENT_CERT_CONN != 0;
                for_each_field(fields, |kind, value| {
                    if kind == SSL_CN && verified {
                        self.client_common_name = text(value);
                    }
                    Ok(())
                })?;
            }
            _ => {}
        }
        Ok(())
    }
}

/// Walks type, length (two bytes), value.
fn for_each_field(
    mut fields: &[u8],
    mut take: impl FnMut(u8, &[u8]) -> Result<(), ProxyError>,
) -> Result<(), ProxyError> {
    while let Some(([kind, high, low], rest)) = fields.split_first_chunk::<3>() {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        let (value, rest) = rest
            .split_at_checked(length)
            .ok_or(ProxyError::Malformed("a field is cut off"))?;
        take(*kind, value)?;
        fields = rest;
    }
    if fields.is_empty() {
        Ok(())
    } else {
        Err(ProxyError::Malformed("a field is cut off"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the header says, and what is left unread after it.
    fn read(mut bytes: &[u8]) -> Result<(ProxyHeader, Vec<u8>), String> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let header = runtime
            .block_on(read_header(&mut bytes))
            .map_err(|error| error.to_string())?;
        Ok((header, bytes.to_vec()))
    }

    fn source(address: &str) -> ProxyHeader {
        ProxyHeader {
            source: Some(address.parse().unwrap()),
            ..ProxyHeader::default()
        }
    }

    fn v2(command: u8, family: u8, body: &[u8], rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(body.len()).unwrap().to_be_bytes();
        [&SIGNATURE[..], &[0x20 | command, family], &length, body, rest].concat()
    }

    #[test]
    fn version_1_says_who_and_leaves_the_rest() {
        let (header, rest) = read(b"PROXY TCP4 203.0.113.7 10.0.0.1 40000 1883\r\n\x10\x0c").unwrap();
        assert_eq!((header, &rest[..]), (source("203.0.113.7:40000"), &b"\x10\x0c"[..]));
        let (header, _) = read(b"PROXY TCP6 2001:db8::7 2001:db8::1 40000 1883\r\n").unwrap();
        assert_eq!(header, source("[2001:db8::7]:40000"));
        let (header, rest) = read(b"PROXY UNKNOWN\r\nx").unwrap();
        assert_eq!((header, &rest[..]), (ProxyHeader::default(), &b"x"[..]));
    }

    #[test]
    fn version_2_says_who_and_leaves_the_rest() {
        let v4 = [203, 0, 113, 7, 10, 0, 0, 1, 0x9C, 0x40, 0x07, 0x5B];
        let (header, rest) = read(&v2(1, 0x11, &v4, b"\x10")).unwrap();
        assert_eq!((header, &rest[..]), (source("203.0.113.7:40000"), &b"\x10"[..]));
        let ip: Ipv6Addr = "2001:db8::7".parse().unwrap();
        let v6 = [&ip.octets()[..], &[0; 16], &[0x9C, 0x40, 0x07, 0x5B]].concat();
        assert_eq!(read(&v2(1, 0x21, &v6, b"")).unwrap().0, source("[2001:db8::7]:40000"));
        let (header, rest) = read(&v2(0, 0, b"", b"ping")).unwrap();
        assert_eq!((header, &rest[..]), (ProxyHeader::default(), &b"ping"[..]));
        assert_eq!(read(&v2(1, 0x31, &[0; 216], b"")).unwrap().0, ProxyHeader::default());
    }

    #[test]
    fn version_2_tells_the_verified_name_only() {
        let v4 = [203, 0, 113, 7, 10, 0, 0, 1, 0x9C, 0x40, 0x07, 0x5B];
        let with = |client: u8, verify: u8| {
            let ssl = [&[client, 0, 0, 0, verify][..], b"\x22\x00\x06sensor"].concat();
            let body = [&v4[..], b"\x02\x00\x04mqtt", b"\x20\x00\x0e", &ssl].concat();
            read(&v2(1, 0x11, &body, b"")).unwrap().0
        };
        assert_eq!(with(0x07, 0).client_common_name.as_deref(), Some("sensor"));
        assert_eq!(with(0x07, 0).server_name.as_deref(), Some("mqtt"));
        assert_eq!(with(0x07, 1).client_common_name, None); // not verified
        assert_eq!(with(0x01, 0).client_common_name, None); // no certificate
    }

    #[test]
    fn everything_else_is_refused() {
        let long = [b"PROXY UNKNOWN ".as_slice(), &[b'x'; 100], b"\r\n"].concat();
        let too_long = [&SIGNATURE[..], &[0x21, 0x11, 0xFF, 0xFF]].concat();
        let cases: &[(&[u8], &str)] = &[
            (b"", "closed before a byte"),
            (b"\x10\x0c\x00\x04MQTT", "no PROXY"),
            (b"GET / HTTP/1.1\r\n\r\n", "no PROXY"),
            (b"PROXY ", "too early"),
            (b"PROXY TCP4 203.0.113.7 10.0.0.1 40000\r\n", "two addresses"),
            (b"PROXY TCP4 ::1 10.0.0.1 40000 1883\r\n", "family"),
            (b"PROXY TCP4 203.0.113.7 10.0.0.1 40000 70000\r\n", "port"),
            (b"PROXY TCP4 203.0.113.7 10.0.0.1 40000 1883", "while reading"),
            (&long, "107"),
            (&too_long, "2048"),
            (&v2(1, 0x11, &[0; 11], b""), "too short"),
            (&v2(1, 0x31, &[0; 36], b""), "too short"),
            (&v2(2, 0x11, &[0; 12], b""), "command"),
            (&v2(1, 0x41, &[0; 12], b""), "unknown"),
            (&v2(1, 0x11, &[0; 14], b""), "cut off"),
            (&v2(1, 0x00, b"\x04\x00\x09x", b""), "cut off"),
        ];
        for (bytes, reason) in cases {
            let error = read(bytes).unwrap_err();
            assert!(error.contains(reason), "{bytes:?}: {error}");
        }
    }
}
