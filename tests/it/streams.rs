//! What clients talk over besides TCP: WebSocket frames made by hand, TLS by rustls.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::client::{PATIENCE, Stream};

/// A TCP connection that fails a test rather than to wait for ever.
pub(crate) fn tcp(port: u16) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", port)).expect("the broker accepts a connection");
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Opcodes of WebSocket frames.
pub(crate) const TEXT: u8 = 1;
pub(crate) const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;

/// The client's side of a WebSocket: each write is one binary message.
pub(crate) struct WebSocket<S> {
    stream: S,
    /// Payload of frames that has not been read.
    payload: Vec<u8>,
    is_closed: bool,
}

impl<S: Stream> WebSocket<S> {
    /// Asks for an upgrade; returns the answer's head, and the socket where it was granted.
    pub(crate) fn open(mut stream: S, path: &str, protocols: Option<&str>) -> (String, Option<Self>) {
        let offered = protocols
            .map(|names| format!("Sec-WebSocket-Protocol: {names}\r\n"))
            .unwrap_or_default();
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{offered}\r\n"
        );
        stream.write_all(request.as_bytes()).unwrap();
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|length| length == 1) {
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).unwrap();
        let is_open = head.starts_with("HTTP/1.1 101");
        let socket = is_open.then(|| Self {
            stream,
            payload: Vec::new(),
            is_closed: false,
        });
        (head, socket)
    }

    /// Sends one frame as it is told.
    pub(crate) fn send_frame(&mut self, is_final: bool, opcode: u8, payload: &[u8]) {
        let mut frame = vec![u8::from(is_final) << 7 | opcode];
        match payload.len() {
            length @ 0..126 => frame.push(0x80 | length as u8),
            length @ 126..65_536 => {
                frame.push(0x80 | 126);
                frame.extend((length as u16).to_be_bytes());
            }
            length => {
                frame.push(0x80 | 127);
                frame.extend((length as u64).to_be_bytes());
            }
        }
        let mask = [0xA5, 0x5A, 0x12, 0x00];
        frame.extend(mask);
        frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        self.stream.write_all(&frame).expect("the broker reads");
    }

    fn read_frame(&mut self) -> io::Result<()> {
        let mut head = [0; 2];
        self.stream.read_exact(&mut head)?;
        assert_eq!(head[1] & 0x80, 0, "a server does not mask");
        let length = match head[1] {
            126 => {
                let mut bytes = [0; 2];
                self.stream.read_exact(&mut bytes)?;
                usize::from(u16::from_be_bytes(bytes))
            }
            127 => {
                let mut bytes = [0; 8];
                self.stream.read_exact(&mut bytes)?;
                u64::from_be_bytes(bytes) as usize
            }
            length => usize::from(length),
        };
        let mut payload = vec![0; length];
        self.stream.read_exact(&mut payload)?;
        match head[0] & 0x0F {
            0 | BINARY => self.payload.append(&mut payload),
            CLOSE => self.is_closed = true,
            PING => self.send_frame(true, PING + 1, &payload),
            other => panic!("a WebSocket frame with opcode {other}"),
        }
        Ok(())
    }
}

impl<S: Stream> Read for WebSocket<S> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.payload.is_empty() && !self.is_closed {
            self.read_frame()?;
        }
        let length = self.payload.len().min(into.len());
        into[..length].copy_from_slice(&self.payload[..length]);
        self.payload.drain(..length);
        Ok(length)
    }
}

impl<S: Stream> Write for WebSocket<S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.send_frame(true, BINARY, bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

/// A TLS client's settings: trusts `ca.pem` of a folder that `sundew certs` made, and shows `client.pem` if asked to.
pub(crate) fn tls_config(folder: &Path, shows_certificate: bool, is_tls12: bool) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(folder.join("ca.pem")).unwrap())
        .unwrap();
    let version = if is_tls12 {
        &rustls::version::TLS12
    } else {
        &rustls::version::TLS13
    };
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()));
    let builder = builder
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots);
    if !shows_certificate {
        return builder.with_no_client_auth();
    }
    let chain = vec![CertificateDer::from_pem_file(folder.join("client.pem")).unwrap()];
    builder
        .with_client_auth_cert(chain, PrivateKeyDer::from_pem_file(folder.join("client.key")).unwrap())
        .unwrap()
}

/// A TLS connection; the handshake happens with the first write.
pub(crate) fn tls(config: ClientConfig, name: &str, port: u16) -> StreamOwned<ClientConnection, TcpStream> {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    StreamOwned::new(ClientConnection::new(Arc::new(config), name).unwrap(), tcp(port))
}
