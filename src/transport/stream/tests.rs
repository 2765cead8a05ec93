//! The same stories over every transport, on real sockets.

use std::future::{Future, poll_fn};
use std::io::IoSlice;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;

use super::*;
use crate::transport::certificates::{self, CertificatesOptions};
use crate::transport::client_stream::{ClientTlsOptions, ConnectOptions, Endpoint, connect};
use crate::transport::establish::{Established, Refused, establish};
use crate::transport::listener::Listener;
use crate::transport::options::{
    CertificateFiles, ListenAddress, ListenerOptions, TlsOptions, TlsVersion, WebSocketOptions,
};
use crate::transport::websocket::MESSAGE_SIZE_MAX;

pub(in crate::transport) const TRANSPORTS: [&str; 5] = ["tcp", "unix", "tls", "ws", "wss"];

/// A listener on a free port or path, and what a client needs to connect to it.
pub(in crate::transport) struct Site {
    pub(in crate::transport) listener: ListenerOptions,
    pub(in crate::transport) client: ConnectOptions,
    pub(in crate::transport) folder: TempDir,
}

impl Site {
    pub(in crate::transport) fn new(transport: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let address = match transport {
            "unix" => ListenAddress::Unix {
                path: folder.path().join("mqtt.sock"),
                mode: 0o600,
            },
            _ => ListenAddress::Tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))),
        };
        let mut listener = ListenerOptions {
            name: transport.to_owned(),
            addresses: vec![address],
            ..ListenerOptions::default()
        };
        let mut client = ConnectOptions::new(Endpoint::Unix(folder.path().join("mqtt.sock")));
        if matches!(transport, "tls" | "wss") {
            let options = CertificatesOptions {
                folder: folder.path().to_owned(),
                ..CertificatesOptions::default()
            };
            certificates::make(&options).unwrap();
            let certificates = vec![certificate_files(folder.path(), "server")];
            listener.tls = Some(TlsOptions {
                certificates,
                ..TlsOptions::default()
            });
            let ca_file = Some(folder.path().join("ca.pem"));
            client.tls = Some(ClientTlsOptions {
                ca_file,
                ..ClientTlsOptions::default()
            });
        }
        if matches!(transport, "ws" | "wss") {
            listener.websocket = Some(WebSocketOptions::default());
            client.websocket_path = Some("/mqtt".to_owned());
        }
        Self {
            listener,
            client,
            folder,
        }
    }

    /// Binds and attaches, and points the client at the port.
    pub(in crate::transport) fn listen(&mut self) -> Listener {
        let mut listener = Listener::bind(self.listener.clone()).unwrap();
        listener.attach().unwrap();
        if let Some(address) = listener.local_addresses().first() {
            self.client.endpoint = Endpoint::Tcp {
                host: "127.0.0.1".to_owned(),
                port: address.port(),
            };
        }
        listener
    }

    /// One connection, as both sides see it.
    pub(in crate::transport) async fn pair(&mut self) -> (Stream, Result<Established, Refused>) {
        let mut listener = self.listen();
        let accept = async { establish(listener.accept().await, |_, _| false).await };
        let (client, server) = tokio::join!(connect(&self.client), accept);
        (client.unwrap(), server)
    }
}

pub(in crate::transport) fn certificate_files(folder: &Path, name: &str) -> CertificateFiles {
    CertificateFiles {
        chain: folder.join(format!("{name}.pem")),
        key: folder.join(format!("{name}.key")),
    }
}

pub(in crate::transport) fn run<T>(story: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let limit = Duration::from_secs(20);
    runtime.block_on(async { tokio::time::timeout(limit, story).await.expect("the story hangs") })
}

pub(in crate::transport) async fn read(stream: &mut Stream, size: usize) -> io::Result<Vec<u8>> {
    let mut buf = vec![0; size];
    let length = poll_fn(|cx| stream.poll_read(cx, &mut buf)).await?;
    buf.truncate(length);
    Ok(buf)
}

pub(in crate::transport) async fn read_exact(stream: &mut Stream, size: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while bytes.len() < size {
        let more = read(stream, size - bytes.len()).await.unwrap();
        assert!(
            !more.is_empty(),
            "the stream ended after {} of {size} bytes",
            bytes.len()
        );
        bytes.extend(more);
    }
    bytes
}

/// Writes in two slices at a time, as the driver does.
pub(in crate::transport) async fn write(stream: &mut Stream, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        let (one, two) = bytes.split_at(bytes.len() / 3);
        let bufs = [IoSlice::new(one), IoSlice::new(two)];
        let length = poll_fn(|cx| stream.poll_write(cx, &bufs)).await.unwrap();
        bytes = &bytes[length..];
    }
    poll_fn(|cx| stream.poll_flush(cx)).await.unwrap();
    assert!(!stream.has_buffered_output());
}

pub(in crate::transport) async fn shutdown(stream: &mut Stream) {
    poll_fn(|cx| stream.poll_shutdown(cx)).await.unwrap();
}

fn sample(size: usize) -> Vec<u8> {
    (0..size).map(|index| u8::try_from(index % 251).unwrap()).collect()
}

#[test]
fn bytes_go_both_ways_and_end_cleanly() {
    for transport in TRANSPORTS {
        run(async {
            let mut site = Site::new(transport);
            let (mut client, server) = site.pair().await;
            let mut server = server.unwrap().stream;
            assert_eq!(
                (client.transport_name(), server.transport_name()),
                (transport, transport)
            );
            let big = sample(3 * MESSAGE_SIZE_MAX + 7); // several messages and many records
            for bytes in [sample(1), sample(70_000), big] {
                let (_, there) = tokio::join!(write(&mut client, &bytes), read_exact(&mut server, bytes.len()));
                assert!(there == bytes, "{transport}");
                let (_, back) = tokio::join!(write(&mut server, &bytes), read_exact(&mut client, bytes.len()));
                assert!(back == bytes, "{transport}");
            }
            shutdown(&mut client).await;
            assert_eq!(read(&mut server, 10).await.unwrap(), b"", "{transport}");
            shutdown(&mut server).await;
            assert_eq!(read(&mut client, 10).await.unwrap(), b"", "{transport}");
        });
    }
}

#[test]
fn a_vanished_client_is_an_end_or_an_error_never_a_hang() {
    for transport in TRANSPORTS {
        run(async {
            let (client, server) = Site::new(transport).pair().await;
            drop(client);
            let result = read(&mut server.unwrap().stream, 10).await;
            assert!(
                result.is_err() || result.is_ok_and(|bytes| bytes.is_empty()),
                "{transport}"
            );
        });
    }
}

/// Bytes wait everywhere while the stream is between two threads: half read inside it (TLS record, WebSocket message)
/// and in the kernel.
#[test]
fn a_stream_moves_to_another_runtime_in_the_middle() {
    for transport in TRANSPORTS {
        let (to_other, from_first) = std::sync::mpsc::sync_channel::<Stream>(1);
        let bytes = sample(50_000);
        let expected = bytes.clone();
        let other = std::thread::spawn(move || {
            let mut stream = from_first.recv().unwrap();
            run(async {
                stream.attach().unwrap();
                assert!(read_exact(&mut stream, 49_990).await == expected[10..]);
                write(&mut stream, b"from the other thread").await;
                assert_eq!(read_exact(&mut stream, 3).await, b"end");
            });
        });
        run(async {
            let (mut client, server) = Site::new(transport).pair().await;
            let mut server = server.unwrap().stream;
            write(&mut client, &bytes).await;
            assert_eq!(read_exact(&mut server, 10).await, bytes[..10]);
            server.detach().unwrap();
            to_other.send(server).unwrap();
            assert_eq!(
                read_exact(&mut client, 21).await,
                b"from the other thread",
                "{transport}"
            );
            write(&mut client, b"end").await;
            other.join().unwrap();
        });
    }
}

#[test]
fn a_stream_can_move_back_and_forth() {
    run(async {
        for transport in TRANSPORTS {
            let (mut client, server) = Site::new(transport).pair().await;
            let mut server = server.unwrap().stream;
            for round in 0..3 {
                server.detach().unwrap();
                server.detach().unwrap(); // twice is once
                assert_eq!(server.transport_name(), transport);
                server.attach().unwrap();
                server.attach().unwrap();
                write(&mut client, &[round; 5]).await;
                assert_eq!(read_exact(&mut server, 5).await, [round; 5]);
            }
        }
    });
}

#[test]
fn a_detached_stream_is_neither_read_nor_written() {
    run(async {
        let (_client, server) = Site::new("tcp").pair().await;
        let mut server = server.unwrap().stream;
        server.detach().unwrap();
        assert_eq!(
            read(&mut server, 1).await.unwrap_err().kind(),
            io::ErrorKind::NotConnected
        );
        let written = poll_fn(|cx| server.poll_write(cx, &[IoSlice::new(b"x")])).await;
        assert_eq!(written.unwrap_err().kind(), io::ErrorKind::NotConnected);
    });
}

#[test]
fn both_versions_of_tls_are_spoken() {
    for (max, expected) in [(TlsVersion::Tls12, "TLSv1_2"), (TlsVersion::Tls13, "TLSv1_3")] {
        run(async {
            let mut site = Site::new("tls");
            site.client.tls.as_mut().unwrap().version_max = Some(max);
            let (mut client, server) = site.pair().await;
            let Established { mut stream, peer, .. } = server.unwrap();
            let tls = peer.tls.unwrap();
            assert_eq!(tls.version, expected);
            assert!(tls.cipher.starts_with("TLS"), "{}", tls.cipher);
            write(&mut client, b"hello").await;
            assert_eq!(read_exact(&mut stream, 5).await, b"hello");
        });
    }
}

#[test]
fn output_to_a_peer_that_does_not_read_is_bounded() {
    run(async {
        for transport in TRANSPORTS {
            let (_client, server) = Site::new(transport).pair().await;
            let mut server = server.unwrap().stream;
            let block = sample(100_000);
            let mut taken = 0;
            loop {
                let write = poll_fn(|cx| server.poll_write(cx, &[IoSlice::new(&block)]));
                match tokio::time::timeout(Duration::from_millis(100), write).await {
                    Ok(length) => taken += length.unwrap(),
                    Err(_) => break,
                }
                assert!(taken < 100 << 20, "{transport} takes without bound");
            }
        }
    });
}
