//! The ways in: WebSocket, TLS, both, Unix sockets, PROXY protocol; and what is not MQTT at all.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::Path;

use sundew::broker::Parts;
use sundew::server::ServerOptions;
use sundew::transport::certificates::{self, CertificatesOptions};
use sundew::transport::options::{CertificateFiles, ListenAddress, TlsOptions, TlsVersion, WebSocketOptions};
use tempfile::TempDir;

use crate::broker::{ALL, BOTH, V5, story, story_with};
use crate::client::Client;
use crate::streams::{BINARY, TEXT, WebSocket, tcp, tls, tls_config};
use crate::wire::{self, Connect, PUBACK, Packet, Publish};

/// [MQTT-6.0.0-4] [MQTT311-6.0.0-4]
#[test]
fn a_websocket_is_opened_with_the_subprotocol_that_the_client_names() {
    story_with(websocket, ALL, |broker, version| {
        for (offered, chosen) in [
            (Some("mqtt"), Some("mqtt")),
            (Some("mqttv3.1"), Some("mqttv3.1")),
            (Some("mqttv3.1.1"), Some("mqttv3.1.1")),
            (Some("chat, mqtt"), Some("mqtt")),
            (None, None),
        ] {
            for path in ["/", "/mqtt", "/any/path?x=1"] {
                let (head, socket) = WebSocket::open(tcp(broker.port), path, offered);
                let head = head.to_lowercase();
                let named = head
                    .lines()
                    .find_map(|line| line.strip_prefix("sec-websocket-protocol: "));
                assert_eq!(named, chosen, "{offered:?}: {head}");
                assert!(
                    head.contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo="),
                    "{head}"
                );
                exchange(&mut Client::over(socket.expect("an open WebSocket"), version));
            }
        }
    });
}

/// [MQTT-6.0.0-2] [MQTT311-6.0.0-2]
#[test]
fn packets_and_websocket_frames_need_not_meet() {
    story_with(websocket, BOTH, |broker, version| {
        let mut bytes = Connect::default().encode(version);
        bytes.extend(wire::subscribe(version, 1, &Default::default(), &[("a", 1)]));
        bytes.extend(Publish::new("a", vec![b'x'; 300], 1).id(2).encode(version));
        for size in [1, 3, 70, bytes.len()] {
            let (_, socket) = WebSocket::open(tcp(broker.port), "/mqtt", Some("mqtt"));
            let mut socket = socket.unwrap();
            for piece in bytes.chunks(size) {
                socket.send_frame(true, BINARY, piece);
            }
            expect_answers(&mut Client::over(socket, version));
        }
        // One message in many fragments.
        let (_, socket) = WebSocket::open(tcp(broker.port), "/mqtt", Some("mqtt"));
        let mut socket = socket.unwrap();
        let pieces: Vec<_> = bytes.chunks(50).collect();
        for (number, piece) in pieces.iter().enumerate() {
            socket.send_frame(number + 1 == pieces.len(), if number == 0 { BINARY } else { 0 }, piece);
        }
        expect_answers(&mut Client::over(socket, version));
    });
}

/// [MQTT-6.0.0-1] [MQTT311-6.0.0-1]
#[test]
fn a_text_frame_ends_the_connection() {
    story_with(websocket, BOTH, |broker, version| {
        let (_, socket) = WebSocket::open(tcp(broker.port), "/mqtt", Some("mqtt"));
        let mut socket = socket.unwrap();
        socket.send_frame(true, TEXT, &Connect::default().encode(version));
        let rest = Client::over(socket, version).receive_to_end();
        assert!(rest.is_empty(), "{rest:02x?}");
    });
}

/// Large messages either way.
#[test]
fn a_websocket_carries_large_messages() {
    story_with(websocket, BOTH, |broker, version| {
        let (_, socket) = WebSocket::open(tcp(broker.port), "/mqtt", Some("mqtt"));
        let mut client = Client::over(socket.unwrap(), version);
        client.connect(&Connect::default());
        client.subscribe("a", 1);
        for length in [100, 1_000, 70_000, 3 << 20] {
            let payload: Vec<u8> = (0..length).map(|at: usize| (at % 251) as u8).collect();
            client.publish(Publish::new("a", &payload, 1));
            assert!(client.expect_message().payload == payload, "{length} bytes");
        }
    });
}

/// A path, where one is asked for, and no upgrade where none is wanted.
#[test]
fn what_is_no_websocket_upgrade_gets_an_answer_of_http() {
    let set = |options: &mut ServerOptions, parts: &mut Parts| {
        websocket(options, parts);
        options.listeners[0].0.websocket.as_mut().unwrap().path = Some("/mqtt".into());
    };
    story_with(set, V5, |broker, version| {
        let (head, socket) = WebSocket::open(tcp(broker.port), "/other", Some("mqtt"));
        assert!(socket.is_none() && head.starts_with("HTTP/1.1 4"), "{head}");
        let mut stream = tcp(broker.port);
        stream
            .write_all(b"GET /mqtt HTTP/1.1\r\nHost: localhost\r\n\r\n")
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 4"), "{answer}");
        let (_, socket) = WebSocket::open(tcp(broker.port), "/mqtt", Some("mqtt"));
        exchange(&mut Client::over(socket.unwrap(), version));
    });
}

/// TLS 1.2 and 1.3, by host name and by address.
#[test]
fn a_client_comes_in_by_tls() {
    let folder = made_certificates(false);
    story_with(
        |options, _| tls_listener(options, folder.path()),
        ALL,
        |broker, version| {
            for is_tls12 in [true, false] {
                for name in ["localhost", "127.0.0.1"] {
                    let config = tls_config(folder.path(), false, is_tls12);
                    exchange(&mut Client::over(tls(config, name, broker.port), version));
                }
            }
        },
    );
}

/// RSA certificates, for devices that know nothing else; a listener with both picks by what the client can.
#[test]
fn a_listener_has_several_certificates() {
    let (ecdsa, rsa) = (made_certificates(false), made_certificates(true));
    let set = |options: &mut ServerOptions, _: &mut Parts| {
        tls_listener(options, ecdsa.path());
        let tls = options.listeners[0].0.tls.as_mut().unwrap();
        tls.certificates.push(certificate_files(rsa.path()));
    };
    story_with(set, V5, |broker, version| {
        let config = tls_config(ecdsa.path(), false, false);
        exchange(&mut Client::over(tls(config, "localhost", broker.port), version));
    });
}

/// A certificate of the client's own, where the listener asks for one.
#[test]
fn a_client_shows_a_certificate() {
    let folder = made_certificates(false);
    let set = |options: &mut ServerOptions, _: &mut Parts| {
        tls_listener(options, folder.path());
        let tls = options.listeners[0].0.tls.as_mut().unwrap();
        tls.client_ca = Some(folder.path().join("ca.pem"));
        tls.client_certificate_required = true;
    };
    story_with(set, V5, |broker, version| {
        for is_tls12 in [true, false] {
            let config = tls_config(folder.path(), true, is_tls12);
            exchange(&mut Client::over(tls(config, "localhost", broker.port), version));
            let config = tls_config(folder.path(), false, is_tls12);
            let mut stream = tls(config, "localhost", broker.port);
            let sent = stream
                .write_all(&Connect::default().encode(version))
                .and_then(|()| stream.flush());
            let answer = sent.and_then(|()| stream.read(&mut [0; 10]));
            assert!(answer.is_err(), "without a certificate: {answer:?}");
        }
    });
}

/// The lowest version of TLS is an option.
#[test]
fn tls_1_2_can_be_refused() {
    let folder = made_certificates(false);
    let set = |options: &mut ServerOptions, _: &mut Parts| {
        tls_listener(options, folder.path());
        options.listeners[0].0.tls.as_mut().unwrap().version_min = TlsVersion::Tls13;
    };
    story_with(set, V5, |broker, version| {
        let mut old = tls(tls_config(folder.path(), false, true), "localhost", broker.port);
        assert!(old.write_all(b"x").is_err());
        exchange(&mut Client::over(
            tls(tls_config(folder.path(), false, false), "localhost", broker.port),
            version,
        ));
    });
}

/// WebSocket inside TLS, as browsers on https pages need it.
#[test]
fn a_websocket_comes_in_by_tls() {
    let folder = made_certificates(false);
    let set = |options: &mut ServerOptions, parts: &mut Parts| {
        tls_listener(options, folder.path());
        websocket(options, parts);
    };
    story_with(set, BOTH, |broker, version| {
        let stream = tls(tls_config(folder.path(), false, false), "localhost", broker.port);
        let (_, socket) = WebSocket::open(stream, "/mqtt", Some("mqtt"));
        exchange(&mut Client::over(socket.expect("an open WebSocket"), version));
    });
}

/// A socket of the file system, beside TCP.
#[test]
fn a_client_comes_in_by_a_unix_socket() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("sundew.sock");
    let set = |options: &mut ServerOptions, _: &mut Parts| {
        let address = ListenAddress::Unix {
            path: path.clone(),
            mode: 0o600,
        };
        options.listeners[0].0.addresses.push(address);
    };
    story_with(set, ALL, |broker, version| {
        let stream = UnixStream::connect(&path).unwrap();
        stream.set_read_timeout(Some(crate::client::PATIENCE)).unwrap();
        let mut unix = Client::over(stream, version);
        exchange(&mut unix);
        unix.subscribe("b", 1);
        broker
            .client("over tcp", version)
            .publish(Publish::new("b", "hello", 1));
        unix.expect_text("b", "hello");
    });
}

/// PROXY protocol of a trusted peer; without a header nobody gets in.
#[test]
fn a_proxy_tells_who_the_client_is() {
    let set = |options: &mut ServerOptions, _: &mut Parts| {
        options.listeners[0].0.proxy_protocol = Some(vec!["127.0.0.0/8".parse().unwrap()]);
    };
    let mut v2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c".to_vec();
    v2.extend([192, 0, 2, 7, 127, 0, 0, 1, 0xC0, 0, 0x07, 0x5B]);
    let headers: [&[u8]; 4] = [
        b"PROXY TCP4 192.0.2.7 127.0.0.1 49152 1883\r\n",
        b"PROXY TCP6 2001:db8::7 ::1 49152 1883\r\n",
        b"PROXY UNKNOWN\r\n",
        &v2,
    ];
    story_with(set, BOTH, |broker, version| {
        for header in headers {
            let mut stream = tcp(broker.port);
            stream.write_all(header).unwrap();
            exchange(&mut Client::over(stream, version));
        }
        let mut client = broker.open(version);
        client.send(&Connect::default().encode(version));
        client.expect_closed();
    });
    let set = |options: &mut ServerOptions, _: &mut Parts| {
        options.listeners[0].0.proxy_protocol = Some(vec!["192.0.2.0/24".parse().unwrap()]);
    };
    story_with(set, BOTH, |broker, version| {
        let mut stream = tcp(broker.port);
        stream.write_all(headers[0]).unwrap();
        let mut client = Client::over(stream, version);
        client.send_lossy(&Connect::default().encode(version));
        client.expect_closed();
    });
}

/// IPv6, where the machine has it.
#[test]
fn a_client_comes_in_by_ipv6() {
    if std::net::TcpListener::bind("[::1]:0").is_err() {
        return;
    }
    let any_port = ListenAddress::Tcp("[::1]:0".parse::<SocketAddr>().unwrap());
    let set = |options: &mut ServerOptions, _: &mut Parts| options.listeners[0].0.addresses = vec![any_port.clone()];
    story_with(set, BOTH, |broker, version| {
        let stream = std::net::TcpStream::connect(("::1", broker.port)).unwrap();
        exchange(&mut Client::over(stream, version));
    });
}

/// TLS on a plain port, plaintext on a TLS port, HTTP, PROXY headers: closed, and the broker goes on.
#[test]
fn what_is_not_mqtt_is_turned_away() {
    story(BOTH, |broker, version| {
        let first_bytes: [&[u8]; 6] = [
            b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
            b"PROXY TCP4 192.0.2.7 127.0.0.1 49152 1883\r\n",
            b"SSH-2.0-OpenSSH_9.2\r\n",
            b"\0\0\0\0",
            b"*1\r\n$4\r\nPING\r\n",
        ];
        for bytes in first_bytes {
            let mut client = broker.open(version);
            client.send(bytes);
            let answer = client.receive_to_end();
            assert!(
                answer.is_empty() || answer.starts_with(b"HTTP/1.1 400"),
                "{answer:02x?}"
            );
        }
        drop(broker.open(version)); // a probe that says nothing
        exchange(&mut broker.open(version));
    });
    let folder = made_certificates(false);
    story_with(
        |options, _| tls_listener(options, folder.path()),
        V5,
        |broker, version| {
            let mut plain = broker.open(version);
            plain.send(&Connect::default().encode(version));
            plain.receive_to_end();
            let config = tls_config(folder.path(), false, false);
            exchange(&mut Client::over(tls(config, "localhost", broker.port), version));
        },
    );
}

/// Of CONNECT, SUBSCRIBE and PUBLISH in one run.
fn expect_answers(client: &mut Client) {
    assert_eq!(client.expect_connack().1, 0);
    assert!(matches!(client.receive(), Packet::SubAck { .. }));
    client.await_ack(PUBACK, 2);
}

/// Connects, subscribes and hears its own message.
fn exchange(client: &mut Client) {
    client.connect(&Connect::default());
    client.subscribe("own", 2);
    client.publish(Publish::new("own", "hello", 2));
    client.expect_text("own", "hello");
}

fn websocket(options: &mut ServerOptions, _: &mut Parts) {
    options.listeners[0].0.websocket = Some(WebSocketOptions::default());
}

fn tls_listener(options: &mut ServerOptions, folder: &Path) {
    let certificates = vec![certificate_files(folder)];
    options.listeners[0].0.tls = Some(TlsOptions {
        certificates,
        ..TlsOptions::default()
    });
}

fn certificate_files(folder: &Path) -> CertificateFiles {
    CertificateFiles {
        chain: folder.join("server.pem"),
        key: folder.join("server.key"),
    }
}

/// What `sundew certs` makes, in a folder that goes away.
fn made_certificates(rsa: bool) -> TempDir {
    let folder = TempDir::new().unwrap();
    let options = CertificatesOptions {
        folder: folder.path().to_owned(),
        rsa,
        ..CertificatesOptions::default()
    };
    certificates::make(&options).unwrap();
    folder
}
