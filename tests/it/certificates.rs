//! Certificates that are no good, on either side, and those that change while the broker runs.

use std::fs;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber,
};
use rustls::pki_types::{PrivateKeyDer, ServerName, pem::PemObject as _};
use rustls::{ClientConfig, ClientConnection, HandshakeKind, RootCertStore, StreamOwned};
use sundew::broker::Parts;
use sundew::protocol::version::Version;
use sundew::server::ServerOptions;
use sundew::server::reload::Reloaded;
use sundew::transport::options::{CertificateFiles, TlsOptions};
use time::{Duration as Days, OffsetDateTime};

use crate::broker::{BOTH, Broker, V5, story_with};
use crate::client::Client;
use crate::streams::tcp;
use crate::wire::{Connect, Publish};

fn reload(broker: &Broker) -> bool {
    let mut told = Reloaded::default();
    broker.server.reloader().certificates(&mut told);
    told.refused.is_empty()
}

/// An authority of our own, its files in a folder.
struct Authority {
    folder: tempfile::TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate and its key, in PEM.
struct Made {
    certificate: String,
    key: String,
}

/// What is special about a certificate.
#[derive(Clone, Copy)]
struct Kind {
    name: &'static str,
    serial: u64,
    begins: i64,
    ends: i64,
    is_for_server: bool,
}

const GOOD: Kind = Kind {
    name: "good",
    serial: 7,
    begins: -1,
    ends: 90,
    is_for_server: false,
};

impl Kind {
    fn params(self) -> CertificateParams {
        let mut params = CertificateParams::new(vec![self.name.to_owned()]).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, self.name);
        params.not_before = OffsetDateTime::now_utc() + Days::days(self.begins);
        params.not_after = OffsetDateTime::now_utc() + Days::days(self.ends);
        params.serial_number = Some(SerialNumber::from(self.serial));
        params.extended_key_usages = vec![if self.is_for_server {
            ExtendedKeyUsagePurpose::ServerAuth
        } else {
            ExtendedKeyUsagePurpose::ClientAuth
        }];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params
    }
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "an authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let issuer = CertifiedIssuer::self_signed(params, key).unwrap();
        let authority = Self {
            folder: tempfile::tempdir().unwrap(),
            issuer,
        };
        fs::write(authority.path("ca.pem"), authority.issuer.pem()).unwrap();
        authority.serve_as(authority.server("localhost"));
        authority.revoke(&[]);
        authority
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn make(&self, kind: Kind) -> Made {
        self.sign(&kind.params())
    }

    fn sign(&self, params: &CertificateParams) -> Made {
        let key = KeyPair::generate().unwrap();
        let made = params.signed_by(&key, &self.issuer).unwrap();
        Made {
            certificate: made.pem(),
            key: key.serialize_pem(),
        }
    }

    fn server(&self, name: &'static str) -> Made {
        self.make(Kind {
            name,
            is_for_server: true,
            ..GOOD
        })
    }

    fn serve_as(&self, made: Made) {
        fs::write(self.path("server.pem"), made.certificate).unwrap();
        fs::write(self.path("server.key"), made.key).unwrap();
    }

    /// Writes the list of serial numbers that are revoked.
    fn revoke(&self, serials: &[u64]) {
        let now = OffsetDateTime::now_utc();
        let revoked = serials.iter().map(|serial| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: now,
            reason_code: None,
            invalidity_date: None,
        });
        let list = CertificateRevocationListParams {
            this_update: now - Days::days(1),
            next_update: now + Days::days(1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let list = list.signed_by(&self.issuer).unwrap();
        fs::write(self.path("crl.pem"), list.pem().unwrap()).unwrap();
    }

    /// A listener that asks for certificates of this authority.
    fn asking(&self) -> impl Fn(&mut ServerOptions, &mut Parts) {
        let folder = self.folder.path().to_owned();
        move |options, _| {
            let mut tls = serving(&folder);
            tls.client_ca = Some(folder.join("ca.pem"));
            tls.client_crl = Some(folder.join("crl.pem"));
            tls.client_certificate_required = true;
            options.listeners[0].0.tls = Some(tls);
            options.watch_interval = None;
        }
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).unwrap();
        roots
    }

    /// A client that trusts this authority and shows that certificate.
    fn client(&self, shows: Option<&Made>, is_tls12: bool) -> ClientConfig {
        let version = if is_tls12 {
            &rustls::version::TLS12
        } else {
            &rustls::version::TLS13
        };
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(self.roots());
        match shows {
            None => builder.with_no_client_auth(),
            Some(made) => {
                let chain = rustls::pki_types::CertificateDer::pem_slice_iter(made.certificate.as_bytes());
                let key = PrivateKeyDer::from_pem_slice(made.key.as_bytes()).unwrap();
                builder
                    .with_client_auth_cert(chain.map(Result::unwrap).collect(), key)
                    .unwrap()
            }
        }
    }
}

fn serving(folder: &Path) -> TlsOptions {
    TlsOptions {
        certificates: vec![CertificateFiles {
            chain: folder.join("server.pem"),
            key: folder.join("server.key"),
        }],
        ..TlsOptions::default()
    }
}

fn open(config: ClientConfig, name: &'static str, port: u16) -> StreamOwned<ClientConnection, std::net::TcpStream> {
    let name = ServerName::try_from(name).unwrap();
    StreamOwned::new(ClientConnection::new(Arc::new(config), name).unwrap(), tcp(port))
}

/// Whether a client gets its CONNACK.
fn enters(config: ClientConfig, port: u16, version: Version) -> bool {
    let mut stream = open(config, "localhost", port);
    let sent = stream
        .write_all(&Connect::default().encode(version))
        .and_then(|()| stream.flush());
    sent.and_then(|()| stream.read_exact(&mut [0; 4])).is_ok()
}

fn connected(config: ClientConfig, port: u16, version: Version, client_id: &str) -> Client {
    let mut client = Client::over(open(config, "localhost", port), version);
    client.connect(&Connect {
        client_id,
        ..Connect::default()
    });
    client
}

/// Whether a client that was there before resumes its session; `None` where it gets no CONNACK.
fn resumes(config: &ClientConfig, port: u16) -> Option<bool> {
    let mut stream = open(config.clone(), "localhost", port);
    stream.write_all(&Connect::default().encode(Version::V5)).ok()?;
    stream.flush().ok()?;
    stream.read_exact(&mut [0; 4]).ok()?;
    Some(stream.conn.handshake_kind() == Some(HandshakeKind::Resumed))
}

/// A fleet that comes back after a certificate was renewed costs no signatures; who is not trusted any more cannot come back at all.
#[test]
fn sessions_are_resumed_over_a_reload_as_long_as_the_same_clients_are_trusted() {
    for is_tls12 in [false, true] {
        let authority = Authority::new();
        let certificate = authority.make(Kind { serial: 1, ..GOOD });
        let broker = Broker::start(1, authority.asking());
        let config = authority.client(Some(&certificate), is_tls12);
        let resumes = || resumes(&config, broker.port);
        let reload = || assert!(reload(&broker));
        assert_eq!([resumes(), resumes()], [Some(false), Some(true)]);
        reload();
        assert_eq!(resumes(), Some(true), "nothing has changed");
        authority.serve_as(authority.server("localhost"));
        reload();
        assert_eq!(resumes(), Some(true), "another certificate of ours");
        authority.revoke(&[99]);
        reload();
        assert_eq!([resumes(), resumes()], [Some(false), Some(true)], "somebody is revoked");
        let trusted = fs::read(authority.path("ca.pem")).unwrap();
        fs::write(authority.path("ca.pem"), Authority::new().issuer.pem()).unwrap();
        reload();
        assert_eq!(resumes(), None, "its authority is not trusted any more");
        fs::write(authority.path("ca.pem"), trusted).unwrap();
        reload();
        assert_eq!([resumes(), resumes()], [Some(false), Some(true)], "it is again");
        authority.revoke(&[1]);
        reload();
        assert_eq!(resumes(), None, "it is revoked itself");
    }
}

#[test]
fn a_session_is_not_resumed_when_its_certificate_has_ended() {
    let authority = Authority::new();
    let ends = OffsetDateTime::now_utc() + Days::seconds(3);
    let mut params = GOOD.params();
    params.not_after = ends;
    let certificate = authority.sign(&params);
    let broker = Broker::start(1, authority.asking());
    let config = authority.client(Some(&certificate), false);
    assert_eq!(
        resumes(&config, broker.port),
        Some(false),
        "the machine is too slow for this story"
    );
    while OffsetDateTime::now_utc() <= ends + Days::seconds(1) {
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(resumes(&config, broker.port), None);
}

#[test]
fn only_a_good_certificate_of_the_right_authority_gets_in() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    authority.revoke(&[66]);
    let key = KeyPair::generate().unwrap();
    let own = Made {
        certificate: GOOD.params().self_signed(&key).unwrap().pem(),
        key: key.serialize_pem(),
    };
    let made = [
        ("good", true, Some(authority.make(GOOD))),
        ("none", false, None),
        (
            "expired",
            false,
            Some(authority.make(Kind {
                begins: -9,
                ends: -1,
                ..GOOD
            })),
        ),
        ("not valid yet", false, Some(authority.make(Kind { begins: 2, ..GOOD }))),
        ("revoked", false, Some(authority.make(Kind { serial: 66, ..GOOD }))),
        ("another authority of the same name", false, Some(stranger.make(GOOD))),
        ("signed by itself", false, Some(own)),
        ("a server's", false, Some(authority.server("localhost"))),
    ];
    story_with(authority.asking(), BOTH, |broker, version| {
        for (what, is_good, made) in &made {
            for is_tls12 in [true, false] {
                let config = authority.client(made.as_ref(), is_tls12);
                assert_eq!(
                    enters(config, broker.port, version),
                    *is_good,
                    "{what}, TLS 1.2: {is_tls12}"
                );
            }
        }
    });
}

/// What a client sees that looks: our certificate is for its name, of its authority, and valid.
#[test]
fn a_client_that_looks_turns_away_from_a_wrong_certificate() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let set = |options: &mut ServerOptions, _: &mut Parts| {
        options.listeners[0].0.tls = Some(serving(authority.folder.path()))
    };
    let broker = Broker::start(1, set);
    assert!(enters(authority.client(None, false), broker.port, Version::V5));
    assert!(!enters(stranger.client(None, false), broker.port, Version::V5));
    authority.serve_as(authority.server("elsewhere"));
    assert!(reload(&broker));
    assert!(!enters(authority.client(None, false), broker.port, Version::V5));
    let ended = Kind {
        begins: -9,
        ends: -1,
        name: "localhost",
        is_for_server: true,
        ..GOOD
    };
    authority.serve_as(authority.make(ended));
    assert!(reload(&broker));
    assert!(!enters(authority.client(None, false), broker.port, Version::V5));
}

/// A ClientHello of SSL 3.0, TLS 1.0 and 1.1: the answer is an alert (protocol_version, RFC 5246 section 7.2.2), and the end.
#[test]
fn tls_1_1_and_older_are_refused() {
    let authority = Authority::new();
    let set = |options: &mut ServerOptions, _: &mut Parts| {
        options.listeners[0].0.tls = Some(serving(authority.folder.path()))
    };
    story_with(set, V5, |broker, version| {
        for minor in [0, 1, 2] {
            let mut hello = vec![3, minor];
            hello.extend([7; 32]); // random
            hello.push(0); // no session
            let suites: [u16; 4] = [0xC009, 0xC013, 0x0035, 0x002F];
            hello.extend((suites.len() as u16 * 2).to_be_bytes());
            hello.extend(suites.iter().flat_map(|suite| suite.to_be_bytes()));
            hello.extend([1, 0]); // no compression
            // secp256r1; ECDSA with SHA-256
            hello.extend([0, 16, 0, 10, 0, 4, 0, 2, 0, 23, 0, 13, 0, 4, 0, 2, 4, 3]);
            let mut message = vec![1, 0, 0, hello.len() as u8];
            message.append(&mut hello);
            let mut record = vec![0x16, 3, minor.min(1), 0, message.len() as u8];
            record.append(&mut message);
            let mut stream = tcp(broker.port);
            stream.write_all(&record).unwrap();
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).unwrap();
            assert_eq!(answer.first(), Some(&0x15), "{answer:02x?}");
            assert_eq!(answer[5..], [2, 70], "fatal, protocol_version: {answer:02x?}");
        }
        assert!(enters(authority.client(None, true), broker.port, version));
    });
}

/// New connections are refused, and who showed it goes; everybody else stays.
#[test]
fn a_certificate_that_is_revoked_while_its_client_is_connected() {
    let authority = Authority::new();
    let (one, other) = (
        authority.make(Kind { serial: 200, ..GOOD }), // whose first bit is set, so that a byte goes before it
        authority.make(Kind { serial: 2, ..GOOD }),
    );
    for version in BOTH {
        authority.revoke(&[]);
        let broker = Broker::start(2, authority.asking());
        let of = |made: &Made| authority.client(Some(made), false);
        let mut bad = connected(of(&one), broker.port, *version, "bad");
        let mut good = connected(of(&other), broker.port, *version, "good");
        good.subscribe("a", 0);
        bad.publish(Publish::new("a", "x", 1));
        good.expect_text("a", "x");
        authority.revoke(&[200]);
        assert!(reload(&broker));
        if version.has_properties() {
            bad.expect_disconnect(0x87);
        }
        bad.expect_closed();
        good.expect_ping_answered();
        assert!(!enters(of(&one), broker.port, *version));
        assert!(enters(of(&other), broker.port, *version));
        // A list that is wrong revokes nothing and restores nothing.
        fs::write(authority.path("crl.pem"), "-----BEGIN X509 CRL-----\nAAAA\n").unwrap();
        assert!(!reload(&broker));
        assert!(!enters(of(&one), broker.port, *version));
        authority.revoke(&[]);
        assert!(reload(&broker));
        assert!(enters(of(&one), broker.port, *version));
        good.expect_ping_answered();
    }
}

/// By the watch, as `cp` or an editor writes a file: in two pieces, with time between them, and the key after the certificate.
#[test]
fn half_a_certificate_breaks_nothing_and_a_whole_one_counts_by_itself() {
    let (authority, new) = (Authority::new(), Authority::new());
    let set = |options: &mut ServerOptions, _: &mut Parts| {
        options.listeners[0].0.tls = Some(serving(authority.folder.path()));
        options.watch_interval = Some(Duration::from_millis(20));
    };
    let broker = Broker::start(2, set);
    let mut stays = connected(authority.client(None, false), broker.port, Version::V5, "stays");
    let Made { certificate, key } = new.server("localhost");
    let serves_old = || enters(authority.client(None, false), broker.port, Version::V5);
    let serves_new = || enters(new.client(None, false), broker.port, Version::V5);
    for half in ["", &certificate[..certificate.len() / 2], "rubbish\n", &certificate] {
        fs::write(authority.path("server.pem"), half).unwrap();
        for _ in 0..5 {
            std::thread::sleep(Duration::from_millis(20)); // that the watch looks at it, some times
            assert!(serves_old() && !serves_new(), "{half}");
        }
    }
    fs::write(authority.path("server.key"), &key[..key.len() / 2]).unwrap();
    assert!(serves_old());
    assert!(!reload(&broker));
    assert!(serves_old());
    fs::write(authority.path("server.key"), key).unwrap();
    let since = std::time::Instant::now();
    while !serves_new() {
        assert!(since.elapsed() < Duration::from_secs(10), "the new one counts soon");
    }
    assert!(!serves_old());
    stays.expect_ping_answered();
}

/// A hundred clients, and everything is read again all the time.
#[test]
fn nobody_is_dropped_by_a_reload_under_load() {
    let authority = Authority::new();
    let certificate = authority.make(GOOD);
    let broker = Broker::start(2, authority.asking());
    let config = authority.client(Some(&certificate), false);
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let crowd: Vec<_> = (0..4)
            .map(|crowd| {
                let (config, is_over, port) = (config.clone(), &is_over, broker.port);
                scope.spawn(move || {
                    let mut clients: Vec<_> = (0..25)
                        .map(|number| {
                            let mut client = connected(config.clone(), port, Version::V5, &format!("{crowd}/{number}"));
                            client.subscribe(&format!("own/{crowd}/{number}"), 1);
                            client
                        })
                        .collect();
                    let mut rounds = 0;
                    while !is_over.load(Ordering::Relaxed) || rounds < 3 {
                        for (number, client) in clients.iter_mut().enumerate() {
                            let topic = format!("own/{crowd}/{number}");
                            client.publish(Publish::new(&topic, "x", 1));
                            client.expect_text(&topic, "x");
                        }
                        rounds += 1;
                    }
                    rounds
                })
            })
            .collect();
        for number in 0..40 {
            authority.serve_as(authority.server("localhost"));
            authority.revoke(&[100 + number]);
            assert!(reload(&broker));
            std::thread::sleep(Duration::from_millis(10)); // not faster than any watch
        }
        is_over.store(true, Ordering::Relaxed);
        assert!(crowd.into_iter().all(|crowd| crowd.join().unwrap() >= 3));
    });
}
