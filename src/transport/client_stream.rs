//! The connecting side: what our own client (`sundew pub`, `sundew sub`, later bridges) connects with.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream, UnixStream};
use tokio_rustls::{TlsConnector, TlsStream};

use super::options::{CertificateFiles, TlsVersion};
use super::socket::Socket;
use super::stream::Stream;
use super::tls::{TlsError, add_authorities, read_certified_key};
use super::upgrade;
use super::websocket::WebSocket;

/// The stream of a connection that we opened; the same as that of one that we accepted.
pub type ClientStream = Stream;

/// The longest answer to our WebSocket request, in bytes.
const ANSWER_SIZE_MAX: usize = 8192;

/// Where and how to connect.
#[derive(Clone, Debug)]
pub struct ConnectOptions {
    /// Where.
    pub endpoint: Endpoint,
    /// TLS. Default: none.
    pub tls: Option<ClientTlsOptions>,
    /// WebSocket with this path, for example `/mqtt`. Default: none.
    pub websocket_path: Option<String>,
    /// For the whole of name look-up, connection and handshakes. Default: 10 s.
    pub timeout: Duration,
    /// Sends small packets at once (`TCP_NODELAY`). Default: on.
    pub nodelay: bool,
    /// The address to connect from: one address has room for some 28,000 connections to a port. Default: the system chooses.
    pub source: Option<IpAddr>,
}

impl ConnectOptions {
    /// TCP to `endpoint`, with the defaults.
    pub fn new(endpoint: Endpoint) -> Self {
        Self {
            endpoint,
            tls: None,
            websocket_path: None,
            timeout: Duration::from_secs(10),
            nodelay: true,
            source: None,
        }
    }
}

/// Where a broker listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// A host name or IP address, and a port.
    Tcp {
        /// Every address of it is tried, in the system's order.
        host: String,
        /// The port.
        port: u16,
    },
    /// A Unix socket.
    Unix(PathBuf),
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => path.display().fmt(f),
        }
    }
}

/// TLS of a connection that we open.
#[derive(Clone, Debug, Default)]
pub struct ClientTlsOptions {
    /// PEM file of the authorities to trust. Default: none.
    pub ca_file: Option<PathBuf>,
    /// Folder of such files. Default: none.
    pub ca_folder: Option<PathBuf>,
    /// Accepts a certificate for another host name and, where no authority is given, any certificate. Default: off.
    /// On, anybody on the way can read and change everything.
    pub insecure: bool,
    /// Our certificate. Default: none.
    pub certificate: Option<CertificateFiles>,
    /// The name to ask for (SNI) and to expect in the certificate. Default: the host connected to.
    pub server_name: Option<String>,
    /// The ALPN protocol to offer. Default: none.
    pub alpn: Option<String>,
    /// The oldest version spoken. Default: TLS 1.2.
    pub version_min: TlsVersion,
    /// The newest version spoken. Default: TLS 1.3.
    pub version_max: Option<TlsVersion>,
}

/// Why there is no connection, in one line.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// It took too long.
    #[error("no connection to {0} within {1:?}; is a firewall in between?")]
    Timeout(Endpoint, Duration),
    /// The network or the host says no.
    #[error("cannot connect to {endpoint}: {source}{advice}")]
    Connect {
        /// Where.
        endpoint: Endpoint,
        /// What the system says.
        source: io::Error,
        /// What to do, where that is known.
        advice: &'static str,
    },
    /// A certificate or key file cannot be used.
    #[error("{0}")]
    Files(#[from] TlsError),
    /// The broker that we are part of is no more.
    #[error("the broker has stopped")]
    Stopped,
    /// Nobody is trusted.
    #[error("TLS needs the authority to trust: give --cafile or --capath, or --insecure to trust anybody")]
    NoAuthority,
    /// TLS came to nothing.
    #[error("TLS with {endpoint} failed: {reason}")]
    Tls {
        /// Where.
        endpoint: Endpoint,
        /// Why, and what to do where that is known.
        reason: String,
    },
    /// The WebSocket came to nothing.
    #[error("WebSocket with {endpoint} failed: {reason}")]
    WebSocket {
        /// Where.
        endpoint: Endpoint,
        /// Why.
        reason: String,
    },
}

/// Connects, and does what comes before MQTT.
///
/// # Errors
/// [`ConnectError`].
pub async fn connect(options: &ConnectOptions) -> Result<ClientStream, ConnectError> {
    Connector::new(options.clone())?.connect().await
}

/// Connects many times to one place: certificates are read once.
#[derive(Clone, Debug)]
pub struct Connector {
    options: ConnectOptions,
    tls: Option<Arc<ClientConfig>>,
}

impl Connector {
    /// Reads the certificates, connects to nobody yet.
    ///
    /// # Errors
    /// [`ConnectError::Files`] and [`ConnectError::NoAuthority`].
    pub fn new(options: ConnectOptions) -> Result<Self, ConnectError> {
        let tls = options.tls.as_ref().map(client_config).transpose()?;
        Ok(Self { options, tls })
    }

    /// See [`connect`].
    ///
    /// # Errors
    /// [`ConnectError`].
    pub async fn connect(&self) -> Result<ClientStream, ConnectError> {
        let options = &self.options;
        let steps = steps(options, self.tls.clone());
        let timeout = |_| ConnectError::Timeout(options.endpoint.clone(), options.timeout);
        tokio::time::timeout(options.timeout, steps).await.map_err(timeout)?
    }
}

async fn steps(options: &ConnectOptions, config: Option<Arc<ClientConfig>>) -> Result<ClientStream, ConnectError> {
    let mut socket = open(options).await.map_err(|source| {
        let advice = match source.kind() {
            io::ErrorKind::ConnectionRefused => "; is a broker running, and on this port? start one with `sundew`",
            io::ErrorKind::NotFound => "; is a broker running? start one with `sundew`",
            _ => "",
        };
        ConnectError::Connect {
            endpoint: options.endpoint.clone(),
            source,
            advice,
        }
    })?;
    let Some(config) = config else {
        let Some(path) = &options.websocket_path else {
            return Ok(Stream::Plain(socket));
        };
        open_websocket(&mut socket, path, options).await?;
        return Ok(Stream::WebSocket(Box::new(WebSocket::client(socket))));
    };
    let mut tls = handshake(socket, config, options).await?;
    let Some(path) = &options.websocket_path else {
        return Ok(Stream::Tls(Box::new(tls)));
    };
    open_websocket(&mut tls, path, options).await?;
    Ok(Stream::SecureWebSocket(Box::new(WebSocket::client(tls))))
}

async fn open(options: &ConnectOptions) -> io::Result<Socket> {
    match &options.endpoint {
        Endpoint::Tcp { host, port } => {
            let stream = match options.source {
                None => TcpStream::connect((host.as_str(), *port)).await?,
                Some(source) => connect_from(source, host, *port).await?,
            };
            stream.set_nodelay(options.nodelay)?;
            Ok(stream.into())
        }
        Endpoint::Unix(path) => UnixStream::connect(path).await.map(Socket::from),
    }
}

/// Connects from an address of ours to the first address of the host that is of its kind.
async fn connect_from(source: IpAddr, host: &str, port: u16) -> io::Result<TcpStream> {
    let mut addresses = tokio::net::lookup_host((host, port)).await?;
    let address = addresses.find(|address| address.is_ipv4() == source.is_ipv4());
    let address = address.ok_or_else(|| io::Error::other(format!("it has no address that {source} reaches")))?;
    let socket = if source.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    socket.bind(SocketAddr::new(source, 0))?;
    socket.connect(address).await
}

async fn handshake(
    socket: Socket,
    config: Arc<ClientConfig>,
    options: &ConnectOptions,
) -> Result<TlsStream<Socket>, ConnectError> {
    let error = |reason| ConnectError::Tls {
        endpoint: options.endpoint.clone(),
        reason,
    };
    let named = options.tls.as_ref().and_then(|tls| tls.server_name.clone());
    let name = named.unwrap_or_else(|| match &options.endpoint {
        Endpoint::Tcp { host, .. } => host.clone(),
        Endpoint::Unix(_) => "localhost".to_owned(),
    });
    let server_name =
        ServerName::try_from(name).map_err(|_| error("the server's name is not a host name".to_owned()))?;
    let handshake = TlsConnector::from(config).connect(server_name, socket).await;
    handshake
        .map(TlsStream::from)
        .map_err(|source| error(handshake_failure(&source)))
}

async fn open_websocket<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    path: &str,
    options: &ConnectOptions,
) -> Result<(), ConnectError> {
    let host = match &options.endpoint {
        endpoint @ Endpoint::Tcp { .. } => endpoint.to_string(),
        Endpoint::Unix(_) => "localhost".to_owned(),
    };
    let error = |reason| ConnectError::WebSocket {
        endpoint: options.endpoint.clone(),
        reason,
    };
    upgrade_stream(stream, &host, path).await.map_err(error)
}

async fn upgrade_stream<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    host: &str,
    path: &str,
) -> Result<(), String> {
    if path.bytes().any(|byte| !byte.is_ascii_graphic()) {
        return Err(format!("the path {path:?} is not one: no blanks, ASCII only"));
    }
    let mut random = [0; 16];
    let provider = aws_lc_rs::default_provider();
    provider
        .secure_random
        .fill(&mut random)
        .map_err(|_| "the system gives no random numbers".to_owned())?;
    let key = upgrade::request_key(random);
    let io_error = |error: io::Error| error.to_string();
    stream
        .write_all(&upgrade::request(host, path, &key))
        .await
        .map_err(io_error)?;
    stream.flush().await.map_err(io_error)?;
    let mut head = Vec::with_capacity(1024);
    let end = loop {
        if let Some(end) = upgrade::head_end(&head) {
            break end;
        }
        if head.len() >= ANSWER_SIZE_MAX || head.first().is_some_and(|byte| *byte != b'H') {
            return Err("the answer is not HTTP; is it the WebSocket port?".to_owned());
        }
        if (&mut *stream).take(1024).read_buf(&mut head).await.map_err(io_error)? == 0 {
            return Err("the server closed the connection without an answer; is it the WebSocket port?".to_owned());
        }
    };
    upgrade::check_answer(&head[..end], &key)?;
    // An MQTT server says nothing before our CONNECT.
    if end == head.len() {
        Ok(())
    } else {
        Err("the server sent bytes before it was asked anything".to_owned())
    }
}

fn handshake_failure(error: &io::Error) -> String {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let advice = match inner {
        Some(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer)) => {
            "; the broker's certificate is signed by another authority than the one given"
        }
        Some(rustls::Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        )) => "; connect by a name that is in the certificate, or skip this check with --insecure",
        Some(rustls::Error::InvalidMessage(_)) => "; is it the TLS port?",
        None if error.kind() == io::ErrorKind::UnexpectedEof => "; is it the TLS port?",
        _ => "",
    };
    format!("{error}{advice}")
}

fn client_config(options: &ClientTlsOptions) -> Result<Arc<ClientConfig>, ConnectError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let versions: &[&rustls::SupportedProtocolVersion] = match (options.version_min, options.version_max) {
        (TlsVersion::Tls13, _) => &[&rustls::version::TLS13],
        (TlsVersion::Tls12, Some(TlsVersion::Tls12)) => &[&rustls::version::TLS12],
        (TlsVersion::Tls12, _) => &[&rustls::version::TLS12, &rustls::version::TLS13],
    };
    let failed = |error: rustls::Error| TlsError::Unusable {
        file: PathBuf::new(),
        reason: error.to_string(),
    };
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider));
    let builder = builder.with_protocol_versions(versions).map_err(failed)?;
    let verifier = server_verifier(options, Arc::clone(&provider))?;
    let builder = builder.dangerous().with_custom_certificate_verifier(verifier);
    let mut config = match &options.certificate {
        None => builder.with_no_client_auth(),
        Some(files) => {
            let key = read_certified_key(files, &provider)?;
            builder.with_client_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(key)))
        }
    };
    config.alpn_protocols = options.alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    Ok(Arc::new(config))
}

fn server_verifier(
    options: &ClientTlsOptions,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn ServerCertVerifier>, ConnectError> {
    let mut roots = RootCertStore::empty();
    if let Some(file) = &options.ca_file {
        add_authorities(&mut roots, file)?;
    }
    if let Some(folder) = &options.ca_folder {
        add_authorities_of_folder(&mut roots, folder)?;
    }
    let trusted = if roots.is_empty() {
        None
    } else {
        let builder = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
        let unusable = |error: rustls::server::VerifierBuilderError| {
            let file = options
                .ca_file
                .clone()
                .or(options.ca_folder.clone())
                .unwrap_or_default();
            TlsError::Unusable {
                file,
                reason: error.to_string(),
            }
        };
        Some(builder.build().map_err(unusable)?)
    };
    match trusted {
        Some(verifier) if !options.insecure => Ok(verifier),
        None if !options.insecure => Err(ConnectError::NoAuthority),
        trusted => Ok(Arc::new(Insecure { trusted, provider })),
    }
}

fn add_authorities_of_folder(roots: &mut RootCertStore, folder: &PathBuf) -> Result<(), TlsError> {
    let read = |source| TlsError::Read {
        file: folder.clone(),
        source,
    };
    for entry in std::fs::read_dir(folder).map_err(read)? {
        let file = entry.map_err(read)?.path();
        // Keys and revocation lists may lie beside the certificates.
        let is_certificate = file.extension().is_some_and(|extension| extension != "key") && file.is_file();
        if is_certificate {
            match add_authorities(roots, &file) {
                Ok(()) | Err(TlsError::Nothing { .. }) => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}

/// Checks the chain where authorities are given, and the name never.
#[derive(Debug)]
struct Insecure {
    trusted: Option<Arc<WebPkiServerVerifier>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Insecure {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Some(trusted) = &self.trusted else {
            return Ok(ServerCertVerified::assertion());
        };
        match trusted.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            result => result,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::stream::tests::{Site, run};

    async fn error(options: &ConnectOptions) -> String {
        connect(options).await.expect_err("connected").to_string()
    }

    #[test]
    fn a_connection_that_fails_says_what_to_do() {
        run(async {
            let mut site = Site::new("tcp");
            drop(site.listen());
            assert!(error(&site.client).await.contains("is a broker running"));
            let nowhere = ConnectOptions::new(Endpoint::Unix("/nonexistent/mqtt.sock".into()));
            assert!(error(&nowhere).await.contains("is a broker running"));

            // Nobody accepts: the kernel takes the connection, and nothing is ever answered.
            let _silent = site.listen();
            site.client.websocket_path = Some("/mqtt".to_owned());
            site.client.timeout = Duration::from_millis(50);
            assert!(error(&site.client).await.starts_with("no connection to 127.0.0.1:"));
            site.client.websocket_path = Some("/a path".to_owned());
            assert!(error(&site.client).await.contains("no blanks"));
        });
    }

    #[test]
    fn whom_to_trust_must_be_said() {
        run(async {
            let mut site = Site::new("tls");
            let (file, folder) = (site.folder.path().join("ca.pem"), site.folder.path().to_owned());
            let tls = ClientTlsOptions::default();
            site.client.tls = Some(tls.clone());
            assert!(error(&site.client).await.contains("--cafile"));
            let with_folder = ClientTlsOptions {
                ca_folder: Some(folder),
                ..tls.clone()
            };
            let anybody = ClientTlsOptions {
                insecure: true,
                ..tls.clone()
            };
            let another_name = Some("elsewhere.example.org".to_owned());
            let no_name = ClientTlsOptions {
                ca_file: Some(file.clone()),
                server_name: another_name.clone(),
                insecure: true,
                ..tls.clone()
            };
            for trusting in [with_folder, anybody, no_name] {
                site.client.tls = Some(trusting);
                site.pair().await.1.unwrap();
            }
            site.client.tls = Some(ClientTlsOptions {
                ca_file: Some(file),
                server_name: another_name,
                ..tls
            });
            let mut listener = site.listen();
            let accept =
                async { drop(crate::transport::establish::establish(listener.accept().await, |_, _| false).await) };
            let (message, ()) = tokio::join!(error(&site.client), accept);
            assert!(message.contains("--insecure"), "{message}");
        });
    }

    #[test]
    fn the_wrong_port_is_guessed() {
        run(async {
            let mut site = Site::new("tcp");
            let mut listener = site.listen();
            site.client.websocket_path = Some("/mqtt".to_owned());
            let accept = async {
                let mut accepted = listener.accept().await;
                accepted.socket.write_all(b"\x20\x02\x00\x05").await.unwrap();
                accepted
            };
            let (message, _accepted) = tokio::join!(error(&site.client), accept);
            assert!(message.contains("is it the WebSocket port?"), "{message}");
            site.client.websocket_path = None;
            site.client.tls = Some(ClientTlsOptions {
                insecure: true,
                ..ClientTlsOptions::default()
            });
            let accept = async { drop(listener.accept().await) };
            let (message, ()) = tokio::join!(error(&site.client), accept);
            assert!(
                message.contains("is it the TLS port?") || message.contains("reset"),
                "{message}"
            );
        });
    }
}
