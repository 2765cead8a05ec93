//! TLS for listeners: certificates and keys from files, which certificate a client gets, and who the client is.
//!
//! rustls with the aws-lc-rs provider, TLS 1.2 and 1.3. Everything a [`ServerConfig`] depends on is fixed when it is
//! built: a changed certificate or revocation list means a new one, which a listener takes over for new connections.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ProducesTickets, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{CipherSuite, RootCertStore, ServerConfig, SignatureAlgorithm};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::options::{CertificateFiles, TlsOptions, TlsVersion};
use super::peer::{ClientCertificate, TlsPeer};

mod names;
mod revocation;

pub use revocation::Revocations;

/// What rustls can limit records to, in bytes with their header.
const FRAGMENT_SIZE: std::ops::RangeInclusive<usize> = 32..=16_389;

/// A listener's certificate, to be watched: an expired one locks every client out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadedCertificate {
    /// The file it came from.
    pub chain: PathBuf,
    /// The host names it is for.
    pub names: Vec<String>,
    /// Its serial number, in hexadecimal digits, as `openssl x509 -serial` shows it.
    pub serial: String,
    /// The end of its validity, seconds since 1970.
    pub not_after: i64,
}

/// Why TLS cannot be set up: one line that names the file and says what to do.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {file:?}: {source}; check the path and that the broker's user may read it")]
    Read {
        /// The file.
        file: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The listener has TLS and no certificate.
    #[error("TLS needs a certificate and its key; `sundew certs` makes them for a first try")]
    NoCertificate,
    /// A file has nothing of what it is there for.
    #[error("{file:?} has no {what} in PEM form; {advice}")]
    Nothing {
        /// The file.
        file: PathBuf,
        /// What was looked for.
        what: &'static str,
        /// What to do.
        advice: &'static str,
    },
    /// A file has something that cannot be used.
    #[error("{file:?}: {reason}")]
    Unusable {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// `fragment_size_max` is out of its range.
    #[error("TLS records can be limited to 32 to 16389 bytes; small devices need 4096 or less")]
    FragmentSize,
    /// The key is another certificate's.
    #[error("the key {key:?} does not belong to the certificate {chain:?}; give the two that were made together")]
    Mismatch {
        /// The certificate's file.
        chain: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
}

/// What the files of a listener say.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// For new connections.
    pub config: Arc<ServerConfig>,
    /// The certificates in use.
    pub certificates: Vec<LoadedCertificate>,
    /// Which clients are trusted.
    trust: Trust,
}

/// Which certificates of clients are trusted.
#[derive(Clone, Debug)]
struct Trust {
    authorities: RootCertStore,
    revocations: Revocations,
}

impl Loaded {
    /// Which certificates of clients are revoked.
    pub const fn revocations(&self) -> &Revocations {
        &self.trust.revocations
    }

    /// Where the same clients are trusted, those who were here resume their sessions: the keys of their tickets, which change by themselves
    /// every six hours, stay. Who resumes shows no certificate, so where anything is different about whom we trust they go.
    fn tickets_for(&self, trust: &Trust) -> Option<Arc<dyn ProducesTickets>> {
        let is_same = self.trust.authorities.roots == trust.authorities.roots
            && self.trust.revocations.revoked == trust.revocations.revoked;
        is_same.then(|| Arc::clone(&self.config.ticketer))
    }
}

/// Reads the files of `options` and makes the configuration of a listener, WebSocket or not. `before` is what the same listener had until
/// now.
///
/// # Errors
/// [`TlsError`]; a listener that has a configuration keeps it.
pub fn server_config(options: &TlsOptions, websocket: bool, before: Option<&Loaded>) -> Result<Loaded, TlsError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let certificates = Certificates::load(&options.certificates, &provider)?;
    let loaded = certificates
        .0
        .iter()
        .map(|certificate| certificate.loaded.clone())
        .collect();
    let versions: &[&rustls::SupportedProtocolVersion] = match options.version_min {
        TlsVersion::Tls12 => &[&rustls::version::TLS12, &rustls::version::TLS13],
        TlsVersion::Tls13 => &[&rustls::version::TLS13],
    };
    let unusable = |reason: String| TlsError::Unusable {
        file: options.certificates[0].chain.clone(),
        reason,
    };
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(versions)
        .map_err(|error| unusable(error.to_string()))?;
    let mut trust = Trust {
        authorities: RootCertStore::empty(),
        revocations: Revocations::default(),
    };
    let builder = match &options.client_ca {
        None => builder.with_no_client_auth(),
        Some(file) => {
            add_authorities(&mut trust.authorities, file)?;
            if let Some(file) = &options.client_crl {
                trust.revocations = Revocations::read(file)?;
            }
            let verifier = client_verifier(options, file, trust.authorities.clone(), provider)?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config = builder.with_cert_resolver(Arc::new(certificates));
    if options
        .fragment_size_max
        .is_some_and(|size| !FRAGMENT_SIZE.contains(&size))
    {
        return Err(TlsError::FragmentSize);
    }
    config.max_fragment_size = options.fragment_size_max;
    // Reconnecting clients resume without a signature.
    config.ticketer = match before.and_then(|before| before.tickets_for(&trust)) {
        Some(tickets) => tickets,
        None => aws_lc_rs::Ticketer::new().map_err(|error| unusable(error.to_string()))?,
    };
    config.send_tls13_tickets = 1;
    if options.alpn {
        config.alpn_protocols = vec![if websocket {
            b"http/1.1".to_vec()
        } else {
            b"mqtt".to_vec()
        }];
    }
    Ok(Loaded {
        config: Arc::new(config),
        certificates: loaded,
        trust,
    })
}

/// Everything that is wrong with the files of `options`, not only the first of it.
pub fn check(options: &TlsOptions) -> Vec<TlsError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut wrong: Vec<_> = options
        .certificates
        .iter()
        .filter_map(|files| Certificate::load(files, &provider).err())
        .collect();
    if let Some(file) = &options.client_ca {
        wrong.extend(add_authorities(&mut RootCertStore::empty(), file).err());
    }
    if let Some(file) = &options.client_crl {
        wrong.extend(Revocations::read(file).err());
    }
    if wrong.is_empty() {
        wrong.extend(server_config(options, false, None).err());
    }
    wrong
}

impl TlsError {
    /// The file that it is about.
    pub fn file(&self) -> Option<&Path> {
        match self {
            Self::Read { file, .. } | Self::Nothing { file, .. } | Self::Unusable { file, .. } => Some(file),
            Self::Mismatch { key, .. } => Some(key),
            Self::NoCertificate | Self::FragmentSize => None,
        }
    }
}

/// What the finished handshake of `connection` told of the client.
pub(super) fn peer(connection: &rustls::ServerConnection) -> TlsPeer {
    TlsPeer {
        version: connection
            .protocol_version()
            .map(|version| format!("{version:?}"))
            .unwrap_or_default(),
        cipher: connection
            .negotiated_cipher_suite()
            .map(|suite| format!("{:?}", suite.suite()))
            .unwrap_or_default(),
        server_name: connection.server_name().map(str::to_owned),
        alpn: connection
            .alpn_protocol()
            .map(|protocol| String::from_utf8_lossy(protocol).into_owned()),
        certificate: connection
            .peer_certificates()
            .and_then(|chain| client_certificate(chain.first()?)),
    }
}

/// The words of the log for a handshake that failed.
pub(super) fn handshake_failure(error: &rustls::Error) -> String {
    use rustls::CertificateError as Certificate;
    use rustls::PeerIncompatible as Incompatible;
    let known = match error {
        rustls::Error::NoCertificatesPresented => "no_client_cert",
        // A bad signature is that of another authority of the same name.
        rustls::Error::InvalidCertificate(Certificate::UnknownIssuer | Certificate::BadSignature) => "unknown_ca",
        rustls::Error::InvalidCertificate(Certificate::Expired | Certificate::ExpiredContext { .. }) => "cert_expired",
        rustls::Error::InvalidCertificate(Certificate::Revoked) => "cert_revoked",
        rustls::Error::PeerIncompatible(
            Incompatible::ServerDoesNotSupportTls12Or13
            | Incompatible::ServerTlsVersionIsDisabledByOurConfig
            | Incompatible::SupportedVersionsExtensionRequired
            | Incompatible::Tls12NotOffered
            | Incompatible::Tls12NotOfferedOrEnabled,
        ) => "no_shared_version",
        rustls::Error::PeerIncompatible(
            Incompatible::NoCipherSuitesInCommon
            | Incompatible::NoKxGroupsInCommon
            | Incompatible::NoSignatureSchemesInCommon,
        ) => "no_shared_cipher",
        rustls::Error::NoApplicationProtocol => "no_shared_alpn",
        rustls::Error::AlertReceived(alert) => return format!("peer_alert:{alert:?}"),
        error => return format!("{error}"),
    };
    known.to_owned()
}

/// Reads the certificates of a PEM file.
///
/// # Errors
/// [`TlsError`], also when there is none.
pub(super) fn read_certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let pem = read(file)?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match certificates {
        Ok(certificates) if certificates.is_empty() => Err(TlsError::Nothing {
            file: file.to_owned(),
            what: "certificate",
            advice: "it must hold a block that begins with -----BEGIN CERTIFICATE-----",
        }),
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(TlsError::Unusable {
            file: file.to_owned(),
            reason: format!("not PEM: {error}"),
        }),
    }
}

/// Reads a certificate chain and its key.
///
/// # Errors
/// [`TlsError`], also when the two do not belong together.
pub(super) fn read_certified_key(
    files: &CertificateFiles,
    provider: &CryptoProvider,
) -> Result<CertifiedKey, TlsError> {
    let chain = read_certificates(&files.chain)?;
    let key = read_key(&files.key)?;
    CertifiedKey::from_der(chain, key, provider).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => TlsError::Mismatch {
            chain: files.chain.clone(),
            key: files.key.clone(),
        },
        rustls::Error::InvalidCertificate(reason) => TlsError::Unusable {
            file: files.chain.clone(),
            reason: format!("not a usable certificate: {reason}"),
        },
        error => TlsError::Unusable {
            file: files.key.clone(),
            reason: format!("not a usable key: {error}"),
        },
    })
}

/// Reads the certificates of a PEM file as authorities to trust.
///
/// # Errors
/// [`TlsError`].
pub(super) fn add_authorities(roots: &mut RootCertStore, file: &Path) -> Result<(), TlsError> {
    for certificate in read_certificates(file)? {
        roots.add(certificate).map_err(|error| TlsError::Unusable {
            file: file.to_owned(),
            reason: format!("a certificate in it is no authority to trust: {error}"),
        })?;
    }
    Ok(())
}

fn read(file: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(file).map_err(|source| TlsError::Read {
        file: file.to_owned(),
        source,
    })
}

fn read_key(file: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let pem = read(file)?;
    PrivateKeyDer::from_pem_slice(&pem).map_err(|_| {
        let encrypted = pem.windows(9).any(|window| window == b"ENCRYPTED");
        let advice = if encrypted {
            "it is encrypted: decrypt it with `openssl pkey -in FILE -out NEW`"
        } else {
            "it must hold a block that begins with -----BEGIN PRIVATE KEY-----"
        };
        TlsError::Nothing {
            file: file.to_owned(),
            what: "private key",
            advice,
        }
    })
}

fn client_verifier(
    options: &TlsOptions,
    authorities: &Path,
    roots: RootCertStore,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn rustls::server::danger::ClientCertVerifier>, TlsError> {
    let mut builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    if let Some(file) = &options.client_crl {
        let lists = revocation::read_lists(file)?;
        // A list covers its own authority; intermediates without one stay usable.
        builder = builder
            .with_crls(lists)
            .only_check_end_entity_revocation()
            .allow_unknown_revocation_status();
    }
    if !options.client_certificate_required {
        builder = builder.allow_unauthenticated();
    }
    let file = options.client_crl.as_deref().unwrap_or(authorities);
    builder.build().map_err(|error| TlsError::Unusable {
        file: file.to_owned(),
        reason: error.to_string(),
    })
}

fn client_certificate(der: &CertificateDer<'_>) -> Option<ClientCertificate> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    Some(ClientCertificate {
        common_name: names::common_name(&certificate),
        subject: names::subject(certificate.subject()),
        subject_der: certificate.subject().as_raw().to_vec(),
        id: Some(revocation::id_of(
            revocation::content(certificate.issuer().as_raw()),
            certificate.raw_serial(),
        )),
        alternative_names: names::alternative_names(&certificate),
        serial: certificate.serial.to_str_radix(16),
        not_after: certificate.validity().not_after.timestamp(),
        der: der.to_vec(),
    })
}

/// The certificates of a listener, in the order of its options.
#[derive(Debug)]
struct Certificates(Vec<Certificate>);

#[derive(Debug)]
struct Certificate {
    key: Arc<CertifiedKey>,
    loaded: LoadedCertificate,
}

impl Certificates {
    fn load(files: &[CertificateFiles], provider: &CryptoProvider) -> Result<Self, TlsError> {
        if files.is_empty() {
            return Err(TlsError::NoCertificate);
        }
        files
            .iter()
            .map(|files| Certificate::load(files, provider))
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let usable = || self.0.iter().filter(|certificate| is_usable(&certificate.key, &hello));
        let named = hello
            .server_name()
            .and_then(|name| usable().find(|certificate| certificate.is_for(name)));
        named
            .or_else(|| usable().next())
            .or_else(|| self.0.first())
            .map(|certificate| Arc::clone(&certificate.key))
    }
}

impl Certificate {
    fn load(files: &CertificateFiles, provider: &CryptoProvider) -> Result<Self, TlsError> {
        let key = read_certified_key(files, provider)?;
        let leaf = key
            .end_entity_cert()
            .ok()
            .and_then(|der| X509Certificate::from_der(der).ok());
        let (_, leaf) = leaf.ok_or_else(|| TlsError::Unusable {
            file: files.chain.clone(),
            reason: "its first certificate cannot be read".to_owned(),
        })?;
        let loaded = LoadedCertificate {
            chain: files.chain.clone(),
            names: names::host_names(&leaf),
            serial: leaf.raw_serial().iter().map(|byte| format!("{byte:02X}")).collect(),
            not_after: leaf.validity().not_after.timestamp(),
        };
        Ok(Self {
            key: Arc::new(key),
            loaded,
        })
    }

    fn is_for(&self, name: &str) -> bool {
        self.loaded.names.iter().any(|pattern| names::matches(pattern, name))
    }
}

/// Whether the client can use this kind of key. Small devices speak TLS 1.2 with RSA certificates only, and say so by
/// their cipher suites and not always by their signature schemes.
fn is_usable(key: &CertifiedKey, hello: &ClientHello<'_>) -> bool {
    use CipherSuite as Suite;
    let algorithm = key.key.algorithm();
    let fits = |suite: &CipherSuite| match suite {
        Suite::TLS13_AES_128_GCM_SHA256 | Suite::TLS13_AES_256_GCM_SHA384 | Suite::TLS13_CHACHA20_POLY1305_SHA256 => {
            true
        }
        Suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256
        | Suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384
        | Suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256 => algorithm == SignatureAlgorithm::RSA,
        Suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
        | Suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384
        | Suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256 => algorithm != SignatureAlgorithm::RSA,
        _ => false,
    };
    key.key.choose_scheme(hello.signature_schemes()).is_some() && hello.cipher_suites().iter().any(fits)
}
