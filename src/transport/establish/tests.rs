//! What comes before MQTT, and what never gets there.

use std::time::Duration;

use tokio::net::TcpStream;

use super::*;
use crate::transport::certificates::{self, CertificatesOptions};
use crate::transport::client_stream::{ConnectError, connect};
use crate::transport::listener::Listener;
use crate::transport::options::{CertificateFiles, TlsVersion};
use crate::transport::stream::tests::{Site, certificate_files, read, read_exact, run, write};

/// What becomes of a peer that sends `bytes`, and what it gets for it. `stays`: it does not close its side.
async fn outcome(site: &mut Site, bytes: &[u8], stays: bool) -> (Result<Established, Refused>, Vec<u8>) {
    let mut listener = site.listen();
    let mut client = TcpStream::connect(listener.local_addresses()[0]).await.unwrap();
    client.write_all(bytes).await.unwrap();
    if !stays {
        client.shutdown().await.unwrap();
    }
    let result = establish(listener.accept().await, |_, _| false).await;
    let mut answer = Vec::new();
    if result.is_err() {
        let _ = client.read_to_end(&mut answer).await; // a reset is as good as an end
    }
    (result, answer)
}

async fn refusal(site: &mut Site, bytes: &[u8]) -> (RefusedReason, String) {
    let (result, answer) = outcome(site, bytes, true).await;
    let refused = result.unwrap_err();
    refused.log();
    assert!(!refused.to_string().contains('\n'));
    (refused.reason, String::from_utf8_lossy(&answer).into_owned())
}

#[test]
fn a_plain_connection_is_established_before_it_says_anything() {
    run(async {
        let mut site = Site::new("tcp");
        let mut listener = site.listen();
        let _client = TcpStream::connect(listener.local_addresses()[0]).await.unwrap();
        let established = establish(listener.accept().await, |_, _| false).await.unwrap();
        assert_eq!(established.first_bytes, b"");
        assert!(established.deadline > Instant::now());
        assert_eq!(established.slot.listener().connections(), 1);
    });
}

#[test]
fn what_is_not_tls_on_a_tls_port_is_named() {
    run(async {
        let mut site = Site::new("tls");
        let (reason, _) = refusal(&mut site, b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x3c\x00\x00").await;
        assert!(matches!(reason, RefusedReason::PlaintextOnTls), "{reason}");
        let (reason, _) = refusal(&mut site, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
        assert!(matches!(reason, RefusedReason::HttpOnTls), "{reason}");
        let (reason, _) = refusal(&mut site, b"\x01\x02\x03\x04").await;
        assert!(matches!(reason, RefusedReason::NotTls), "{reason}");
        let (reason, _) = refusal(&mut site, b"\x16\x03\x01\x00\x05hello").await;
        assert!(matches!(reason, RefusedReason::Handshake(_)), "{reason}");
    });
}

#[test]
fn what_is_no_websocket_on_a_websocket_port_is_named_and_answered() {
    run(async {
        let mut site = Site::new("ws");
        let (reason, _) = refusal(&mut site, b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x3c\x00\x00").await;
        assert!(matches!(reason, RefusedReason::MqttOnWebSocket), "{reason}");
        let (reason, _) = refusal(&mut site, b"\x16\x03\x01\x02\x00\x01").await;
        assert!(matches!(reason, RefusedReason::NotMqtt(NotMqtt::Tls)), "{reason}");
        let (reason, answer) = refusal(&mut site, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
        assert!(matches!(reason, RefusedReason::Http(_)), "{reason}");
        assert!(answer.starts_with("HTTP/1.1 426 "), "{answer}");
        let endless = [b"GET / HTTP/1.1\r\nX: ".to_vec(), vec![b'x'; 8300]].concat();
        let (_, answer) = refusal(&mut site, &endless).await;
        assert!(answer.starts_with("HTTP/1.1 431 ") || answer.is_empty(), "{answer}"); // a reset may eat it
        let early = [
            upgrade::request("x", "/", "dGhlIHNhbXBsZSBub25jZQ=="),
            b"\x82\x80".to_vec(),
        ]
        .concat();
        let (_, answer) = refusal(&mut site, &early).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    });
}

#[test]
fn a_probe_that_sends_nothing_is_told_apart() {
    run(async {
        for transport in ["tls", "ws", "wss"] {
            let (result, _) = outcome(&mut Site::new(transport), b"", false).await;
            assert!(
                matches!(result.unwrap_err().reason, RefusedReason::Closed),
                "{transport}"
            );
        }
        let mut site = Site::new("tcp");
        site.listener.proxy_protocol = Some(vec!["127.0.0.0/8".parse().unwrap()]);
        let (result, _) = outcome(&mut site, b"", false).await;
        assert!(matches!(
            result.unwrap_err().reason,
            RefusedReason::Proxy(ProxyError::Closed)
        ));
    });
}

#[test]
fn silence_is_cut_off_at_the_connect_timeout() {
    run(async {
        for (transport, bytes, what) in [
            ("tls", &b""[..], "TLS handshake"),
            ("ws", b"GET / HT", "WebSocket request"),
            ("tcp", b"PRO", "PROXY header"),
        ] {
            let mut site = Site::new(transport);
            site.listener.connect_timeout = Duration::from_millis(50);
            if transport == "tcp" {
                site.listener.proxy_protocol = Some(vec!["127.0.0.1".parse().unwrap()]);
            }
            let (reason, _) = refusal(&mut site, bytes).await;
            assert!(
                matches!(reason, RefusedReason::Timeout(step) if step == what),
                "{transport}: {reason}"
            );
        }
    });
}

#[test]
fn a_proxy_header_says_who_the_client_is_and_loses_no_byte() {
    run(async {
        let mut site = Site::new("tcp");
        site.listener.proxy_protocol = Some(vec!["127.0.0.0/8".parse().unwrap()]);
        let bytes = b"PROXY TCP4 203.0.113.7 10.0.0.1 40000 1883\r\nMQTT bytes";
        let Established { mut stream, peer, .. } = outcome(&mut site, bytes, true).await.0.unwrap();
        assert_eq!(peer.address.to_string(), "203.0.113.7:40000");
        assert_eq!(peer.proxy.unwrap().ip(), Some("127.0.0.1".parse().unwrap()));
        assert_eq!(read_exact(&mut stream, 10).await, b"MQTT bytes");

        let (reason, _) = refusal(&mut site, b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x3c\x00\x00").await;
        assert!(matches!(reason, RefusedReason::Proxy(ProxyError::Missing)), "{reason}");
        site.listener.proxy_protocol = Some(vec!["10.0.0.0/8".parse().unwrap()]);
        let (reason, _) = refusal(&mut site, bytes).await;
        assert!(matches!(reason, RefusedReason::UntrustedProxy), "{reason}");
    });
}

#[test]
fn a_proxy_header_may_come_before_tls() {
    run(async {
        let mut site = Site::new("wss");
        site.listener.proxy_protocol = Some(vec!["127.0.0.0/8".parse().unwrap()]);
        let mut listener = site.listen();
        let address = listener.local_addresses()[0];
        // A proxy in front that does nothing but announce the client.
        let proxy = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let crate::transport::client_stream::Endpoint::Tcp { port, .. } = &mut site.client.endpoint else {
            panic!()
        };
        *port = proxy.local_addr().unwrap().port();
        let forward = async {
            let (mut client, _) = proxy.accept().await.unwrap();
            let mut server = TcpStream::connect(address).await.unwrap();
            server
                .write_all(b"PROXY TCP6 2001:db8::7 2001:db8::1 40000 8883\r\n")
                .await
                .unwrap();
            let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
        };
        let story = async {
            let accept = async { establish(listener.accept().await, |_, _| false).await.unwrap() };
            let (client, server) = tokio::join!(connect(&site.client), accept);
            let (mut client, mut server) = (client.unwrap(), server);
            write(&mut client, b"hello").await;
            assert_eq!(read_exact(&mut server.stream, 5).await, b"hello");
            assert_eq!(server.peer.address.to_string(), "[2001:db8::7]:40000");
            assert_eq!(server.peer.http.unwrap().path, "/mqtt");
        };
        tokio::select! { () = forward => panic!("the proxy ended"), () = story => {} }
    });
}

/// Whoever is banned costs no handshake: nothing is waited for after the header.
#[test]
fn whom_a_proxy_brings_is_looked_at_before_tls_and_before_a_request_is_answered() {
    run(async {
        let proxies = vec!["127.0.0.0/8".parse().unwrap()];
        let mut site = Site::new("tls");
        site.listener.proxy_protocol = Some(proxies.clone());
        site.listener.connections_per_address_max = Some(1);
        let mut listener = site.listen();
        let address = listener.local_addresses()[0];
        let header = b"PROXY TCP4 203.0.113.7 10.0.0.1 40000 8883\r\n";
        let mut asked = Vec::new();
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(header).await.unwrap();
        let kept_out = establish(listener.accept().await, |peer, _| {
            asked.push(peer.address.to_string());
            true
        });
        let refused = kept_out.await.unwrap_err();
        assert!(matches!(refused.reason, RefusedReason::KeptOut), "{refused}");
        assert_eq!(asked, ["203.0.113.7:40000"]);

        // It turns out to be that of another proxy: only whom that one brings is looked at.
        let mut site = Site::new("ws");
        site.listener.proxy_protocol = Some(proxies);
        site.listener.connections_per_address_max = Some(1);
        let websocket = site.listener.websocket.as_mut().unwrap();
        websocket.trusted_proxies = vec!["203.0.113.7".parse().unwrap()];
        let mut listener = site.listen();
        let address = listener.local_addresses()[0];
        let mut established = Vec::new();
        for (client_address, is_kept_out) in [("198.51.100.1", false), ("198.51.100.2", false), ("198.51.100.2", true)]
        {
            let mut client = TcpStream::connect(address).await.unwrap();
            let request = upgrade::request("x", "/mqtt", "dGhlIHNhbXBsZSBub25jZQ==");
            let request = String::from_utf8(request).unwrap();
            let forwarded = format!("\r\nX-Forwarded-For: {client_address}\r\n\r\n");
            let request = request.replacen("\r\n\r\n", &forwarded, 1);
            client
                .write_all(&[&header[..], request.as_bytes()].concat())
                .await
                .unwrap();
            let keeps_out = |peer: &Peer, slot: &mut Slot| {
                assert_eq!(peer.address.to_string(), format!("{client_address}:0"));
                slot.count_for(&peer.address).is_err()
            };
            match establish(listener.accept().await, keeps_out).await {
                Ok(server) => {
                    assert!(!is_kept_out, "{client_address}");
                    established.push((client, server));
                }
                Err(refused) => {
                    assert!(
                        is_kept_out && matches!(refused.reason, RefusedReason::KeptOut),
                        "{refused}"
                    );
                    drop(refused);
                    let mut answer = Vec::new();
                    let _ = client.read_to_end(&mut answer).await;
                    assert_eq!(answer, b"", "told nothing");
                }
            }
        }
        assert_eq!(established.len(), 2);
    });
}

#[test]
fn the_certificate_is_chosen_by_the_name_asked_for() {
    run(async {
        let mut site = Site::new("tls");
        let other = tempfile::tempdir().unwrap();
        let names = vec!["*.example.org".to_owned()];
        let folder = other.path().to_owned();
        certificates::make(&CertificatesOptions {
            folder,
            names,
            rsa: true,
            ..CertificatesOptions::default()
        })
        .unwrap();
        site.listener
            .tls
            .as_mut()
            .unwrap()
            .certificates
            .push(certificate_files(other.path(), "server"));
        let connect_to = async |site: &mut Site, name: &str, ca: &std::path::Path| {
            let tls = site.client.tls.as_mut().unwrap();
            (tls.server_name, tls.ca_file) = (Some(name.to_owned()), Some(ca.join("ca.pem")));
            let mut listener = site.listen();
            let accept = async { establish(listener.accept().await, |_, _| false).await };
            tokio::join!(connect(&site.client), accept)
        };
        let first = site.folder.path().to_owned();
        // Each client trusts one authority only: success shows which certificate it got.
        let (client, server) = connect_to(&mut site, "localhost", &first).await;
        assert!(client.is_ok());
        assert_eq!(
            server.unwrap().peer.tls.unwrap().server_name.as_deref(),
            Some("localhost")
        );
        assert!(
            connect_to(&mut site, "broker.example.org", other.path())
                .await
                .0
                .is_ok()
        );
        let (client, server) = connect_to(&mut site, "broker.example.org", &first).await;
        let Err(ConnectError::Tls { reason, .. }) = client else {
            panic!("trusted the wrong authority")
        };
        assert!(reason.contains("another authority"), "{reason}");
        let reason = server.unwrap_err().to_string();
        assert!(
            reason.ends_with("peer_alert:UnknownCA") || reason.ends_with("peer_alert:DecryptError"),
            "{reason}"
        );
    });
}

#[test]
fn client_certificates_are_asked_for_verified_and_told() {
    run(async {
        let mut site = Site::new("tls");
        let tls = site.listener.tls.as_mut().unwrap();
        tls.client_ca = Some(site.folder.path().join("ca.pem"));
        let without = site.pair().await.1.unwrap().peer; // optional
        assert_eq!(without.tls.unwrap().certificate, None);

        site.listener.tls.as_mut().unwrap().client_certificate_required = true;
        site.client.tls.as_mut().unwrap().certificate = Some(certificate_files(site.folder.path(), "client"));
        let certificate = site.pair().await.1.unwrap().peer.tls.unwrap().certificate.unwrap();
        assert_eq!(certificate.common_name.as_deref(), Some("client"));
        assert_eq!(certificate.subject, "CN=client");
        assert!(certificate.not_after > 1_700_000_000 && !certificate.subject_der.is_empty());

        let stranger = tempfile::tempdir().unwrap();
        let folder = stranger.path().to_owned();
        certificates::make(&CertificatesOptions {
            folder,
            ..CertificatesOptions::default()
        })
        .unwrap();
        let reason = async |site: &mut Site, certificate: Option<CertificateFiles>| {
            site.client.tls.as_mut().unwrap().certificate = certificate;
            let mut listener = site.listen();
            let accept = async { establish(listener.accept().await, |_, _| false).await };
            let client = async {
                if let Ok(mut stream) = connect(&site.client).await {
                    let _ = read(&mut stream, 1).await; // in TLS 1.3 the client learns of it only now
                }
            };
            tokio::join!(accept, client).0.unwrap_err().to_string()
        };
        assert!(reason(&mut site, None).await.ends_with(": no_client_cert"));
        let strange = certificate_files(stranger.path(), "client");
        assert!(reason(&mut site, Some(strange)).await.ends_with(": unknown_ca"));
    });
}

#[test]
fn an_old_version_or_another_alpn_is_named() {
    run(async {
        let mut site = Site::new("tls");
        site.listener.tls.as_mut().unwrap().alpn = true;
        site.client.tls.as_mut().unwrap().alpn = Some("mqtt".to_owned());
        let tls = site.pair().await.1.unwrap().peer.tls.unwrap();
        assert_eq!(tls.alpn.as_deref(), Some("mqtt"));
        let reason = async |site: &mut Site| {
            let mut listener = site.listen();
            let accept = async { establish(listener.accept().await, |_, _| false).await };
            tokio::join!(accept, connect(&site.client)).0.unwrap_err().to_string()
        };
        site.client.tls.as_mut().unwrap().alpn = Some("h2".to_owned());
        assert!(reason(&mut site).await.ends_with(": no_shared_alpn"));
        site.client.tls.as_mut().unwrap().alpn = None;
        site.client.tls.as_mut().unwrap().version_max = Some(TlsVersion::Tls12);
        site.listener.tls.as_mut().unwrap().version_min = TlsVersion::Tls13;
        assert!(reason(&mut site).await.ends_with(": no_shared_version"));
    });
}

#[test]
fn renewed_certificates_serve_new_connections_and_bad_ones_change_nothing() {
    run(async {
        let mut site = Site::new("tls");
        let mut listener = site.listen();
        let shared = Arc::clone(listener.shared());
        let mut accept_one = async |site: &Site| {
            let accept = async { establish(listener.accept().await, |_, _| false).await };
            tokio::join!(connect(&site.client), accept).0.is_ok()
        };
        assert!(accept_one(&site).await);
        let folder = site.folder.path().to_owned();
        std::fs::write(folder.join("server.pem"), "-----BEGIN CERTIFICATE-----\nhalf").unwrap();
        assert!(shared.reload_tls().is_err());
        assert!(accept_one(&site).await);
        certificates::make(&CertificatesOptions {
            folder,
            force: true,
            ..CertificatesOptions::default()
        })
        .unwrap();
        assert!(!accept_one(&site).await); // the client reads the new authority, the listener has the old certificate
        shared.reload_tls().unwrap();
        assert!(accept_one(&site).await);
        assert_eq!(shared.certificates()[0].names, ["localhost"]);
    });
}

#[test]
fn more_handshakes_than_fit_in_a_round_all_succeed() {
    run(async {
        let mut site = Site::new("tls");
        let mut listener = site.listen();
        let local = tokio::task::LocalSet::new();
        let clients: Vec<_> = (0..4 * HANDSHAKES_PER_ROUND)
            .map(|_| {
                let options = site.client.clone();
                local.spawn_local(async move { connect(&options).await.is_ok() })
            })
            .collect();
        let story = async {
            let mut servers = Vec::new();
            for _ in 0..clients.len() {
                let accepted = listener.accept().await;
                servers.push(tokio::task::spawn_local(establish(accepted, |_, _| false)));
            }
            for server in servers {
                assert!(server.await.unwrap().is_ok());
            }
            for client in clients {
                assert!(client.await.unwrap());
            }
        };
        local.run_until(story).await;
    });
}

#[test]
fn bad_files_are_named_before_anything_listens() {
    let site = Site::new("tls");
    let folder = site.folder.path();
    let message = |chain: &str, key: &str| {
        let mut options = site.listener.clone();
        let files = CertificateFiles {
            chain: folder.join(chain),
            key: folder.join(key),
        };
        options.tls.as_mut().unwrap().certificates = vec![files];
        Listener::bind(options).unwrap_err().to_string()
    };
    std::fs::write(
        folder.join("secret.key"),
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAA==\n",
    )
    .unwrap();
    for (chain, key, word) in [
        ("missing.pem", "server.key", "cannot read"),
        ("server.key", "server.key", "no certificate in PEM form"),
        ("server.pem", "server.pem", "no private key in PEM form"),
        ("server.pem", "client.key", "does not belong to"),
        ("server.pem", "secret.key", "encrypted"),
    ] {
        let message = message(chain, key);
        assert!(
            message.contains(word) && !message.contains('\n'),
            "{chain}, {key}: {message}"
        );
    }
}
