//! What `sundew pub` and `sundew sub` have in common: where to connect, as whom, and how they end.

mod endpoint;
mod properties;

use std::path::PathBuf;

use clap::{ArgAction, Args};

use super::Exit;
use crate::backends::hashing::random;
use crate::client::{ClientOptions, ClientScram, ClientWill, Event, Fault};
use crate::protocol::property::PropertyId;
use crate::protocol::qos::QoS;
use crate::protocol::version::Version;
use crate::scram::Mechanism;
use crate::transport::client_driver::{ClientDriver, ClientError, Dialer};
use crate::transport::client_stream::{ClientTlsOptions, ConnectOptions};
use crate::transport::options::{CertificateFiles, TlsVersion};

use endpoint::Target;
pub(super) use properties::PacketProperties;

/// Which server, and with which password.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Connection")]
pub(super) struct ServerArguments {
    /// The broker's host name or address
    #[arg(short = 'h', long, value_name = "HOST", default_value = "localhost")]
    host: String,
    /// Its port [default: 1883; with TLS 8883; with --ws 9001]
    #[arg(short, long, value_name = "PORT")]
    port: Option<u16>,
    /// All at once: mqtt[s]://[USER[:PASSWORD]@]HOST[:PORT][/TOPIC], or ws[s]://HOST[:PORT][/PATH]
    #[arg(short = 'L', long, value_name = "URL")]
    url: Option<String>,
    /// Connect to a Unix socket
    #[arg(long, value_name = "PATH")]
    unix: Option<PathBuf>,
    /// Speak WebSocket
    #[arg(long)]
    ws: bool,
    /// The WebSocket's path
    #[arg(long, value_name = "PATH", default_value = "/mqtt")]
    ws_path: String,
    /// User name
    #[arg(short, long, value_name = "NAME", allow_hyphen_values = true)]
    username: Option<String>,
    /// Password
    #[arg(
        short = 'P',
        long = "pw",
        visible_alias = "password",
        value_name = "PASSWORD",
        allow_hyphen_values = true
    )]
    password: Option<String>,
    #[command(flatten)]
    tls: TlsArguments,
}

/// Where and as whom.
#[derive(Debug, Args)]
#[command(next_help_heading = "Connection")]
pub(super) struct ConnectArguments {
    #[command(flatten)]
    server: ServerArguments,
    /// Client id [default: the broker assigns one]
    #[arg(short, long, value_name = "ID", conflicts_with = "id_prefix")]
    id: Option<String>,
    /// Client id: this and the process id
    #[arg(short = 'I', long, value_name = "PREFIX")]
    id_prefix: Option<String>,
    /// Keep alive in seconds; 0 for none
    #[arg(short, long, value_name = "SECONDS", default_value_t = 60)]
    keepalive: u16,
    /// Keep the session when we leave, and find it again with the same -i
    #[arg(short = 'c', long)]
    disable_clean_session: bool,
    /// Seconds that the session lives on without us (MQTT 5); -1 for ever
    #[arg(short = 'x', long, value_name = "SECONDS", allow_hyphen_values = true)]
    session_expiry_interval: Option<String>,
    /// MQTT version: 31, 311 or 5 [default: 311, or 5 where an option needs it]
    #[arg(short = 'V', long, value_name = "VERSION", value_parser = parse_version)]
    protocol_version: Option<Version>,
    /// Prove the password instead of showing it (MQTT 5): scram-sha-256 or scram-sha-512
    #[arg(long, value_name = "METHOD", value_parser = parse_mechanism)]
    auth: Option<Mechanism>,
    /// MQTT 5 property: COMMAND PROPERTY VALUE; may be repeated. -D publish content-type text/plain
    #[arg(short = 'D', long = "property", value_names = ["COMMAND", "PROPERTY", "VALUE"], num_args = 3..=4,
        allow_negative_numbers = true, action = ArgAction::Append)]
    property: Vec<String>,
    /// Say what happens, on standard error
    #[arg(short, long)]
    pub(super) debug: bool,
    /// Print no errors
    #[arg(long)]
    pub(super) quiet: bool,
    /// Accepted, and on always: small packets go out at once
    #[arg(long, hide = true)]
    nodelay: bool,
    #[command(flatten)]
    will: WillArguments,
    /// This help
    #[arg(long, action = ArgAction::Help)]
    help: Option<bool>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Will")]
struct WillArguments {
    /// What the broker publishes when it loses us: the topic
    #[arg(long, value_name = "TOPIC")]
    will_topic: Option<String>,
    /// The payload
    #[arg(long, value_name = "TEXT", requires = "will_topic", allow_hyphen_values = true)]
    will_payload: Option<String>,
    /// QoS 0, 1 or 2
    #[arg(long, value_name = "QOS", requires = "will_topic", value_parser = parse_qos)]
    will_qos: Option<QoS>,
    /// Retained
    #[arg(long, requires = "will_topic")]
    will_retain: bool,
}

#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "TLS")]
struct TlsArguments {
    /// PEM file of the authorities to trust; turns TLS on
    #[arg(long, value_name = "FILE")]
    cafile: Option<PathBuf>,
    /// Folder of such files
    #[arg(long, value_name = "FOLDER")]
    capath: Option<PathBuf>,
    /// Trust the authorities of this machine
    #[arg(long)]
    tls_use_os_certs: bool,
    /// Our certificate
    #[arg(long, value_name = "FILE", requires = "key")]
    cert: Option<PathBuf>,
    /// Its key
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
    /// Accept a certificate for another host; without --cafile, any certificate
    #[arg(long)]
    insecure: bool,
    /// tlsv1.2 or tlsv1.3 [default: either]
    #[arg(long, value_name = "VERSION", value_parser = parse_tls_version)]
    tls_version: Option<TlsVersion>,
    /// ALPN protocol to offer
    #[arg(long = "tls-alpn", visible_alias = "alpn", value_name = "NAME")]
    alpn: Option<String>,
}

/// What the flags of a server come to.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) connect: ConnectOptions,
    pub(super) user_name: Option<String>,
    pub(super) password: Option<Vec<u8>>,
    /// From the URL.
    topic: Option<String>,
}

impl ServerArguments {
    /// Puts the flags together; a `url` given here takes the place of that of the flags.
    pub(super) fn resolve(&self, url: Option<&str>) -> Result<Server, String> {
        let target = Target::of(self, url.or(self.url.as_deref()))?;
        let mut connect = ConnectOptions::new(target.endpoint);
        connect.tls = target.is_tls.then(|| self.tls.options());
        connect.websocket_path = target.websocket_path;
        let password = self.password.clone().or(target.password);
        Ok(Server {
            connect,
            user_name: self.username.clone().or(target.user_name),
            password: password.map(String::into_bytes),
            topic: target.topic,
        })
    }
}

impl ServerArguments {
    fn is_tls(&self) -> bool {
        Target::of(self, self.url.as_deref()).is_ok_and(|target| target.is_tls)
    }
}

/// A server by its URL alone; the authorities, or that none are asked, count where it says TLS.
pub(super) fn server_at(url: &str, cafile: Option<&PathBuf>, insecure: bool) -> Result<Server, String> {
    let is_tls = url.starts_with("mqtts:") || url.starts_with("wss:");
    let arguments = ServerArguments {
        host: String::new(),
        port: None,
        url: None,
        unix: None,
        ws: false,
        ws_path: String::new(),
        username: None,
        password: None,
        tls: TlsArguments {
            cafile: cafile.filter(|_| is_tls).cloned(),
            capath: None,
            tls_use_os_certs: false,
            cert: None,
            key: None,
            insecure: insecure && is_tls,
            tls_version: None,
            alpn: None,
        },
    };
    arguments.resolve(Some(url))
}

/// What the connection flags come to.
pub(super) struct Connecting {
    pub(super) connect: ConnectOptions,
    pub(super) client: ClientOptions,
    pub(super) properties: PacketProperties,
    /// From the URL.
    pub(super) topic: Option<String>,
}

impl Connecting {
    /// A client that has not yet connected.
    pub(super) fn driver(&self) -> ClientDriver {
        ClientDriver::new(Dialer::network(self.connect.clone()), self.client.clone(), None)
    }
}

impl ConnectArguments {
    /// Puts the flags together.
    pub(super) fn resolve(&self) -> Result<Connecting, String> {
        let server = self.server.resolve(None)?;
        let properties = PacketProperties::parse(&self.property)?;
        let needs_5 = !self.property.is_empty() || self.session_expiry_interval.is_some() || self.auth.is_some();
        let version = self
            .protocol_version
            .unwrap_or(if needs_5 { Version::V5 } else { Version::V311 });
        if needs_5 && version != Version::V5 {
            return Err(format!("-D, -x and --auth need MQTT 5, and -V says {}", version.name()));
        }
        if self.auth.is_some() && (server.user_name.is_none() || server.password.is_none()) {
            return Err("--auth needs a user name and a password: -u and -P".to_owned());
        }
        let mut connect_properties = properties.connect.clone();
        let expiry = self.session_expiry()?.filter(|_| version == Version::V5);
        if let Some(expiry) = expiry {
            connect_properties.push_u32(PropertyId::SessionExpiryInterval, expiry);
        }
        let client = ClientOptions {
            version,
            client_id: self.client_id(version)?,
            clean_start: !self.disable_clean_session,
            keep_alive: self.keepalive,
            user_name: server.user_name,
            password: server.password,
            scram: self.auth.map(|mechanism| ClientScram { mechanism, random }),
            will: self.will.will_topic.as_ref().map(|topic| ClientWill {
                topic: topic.clone(),
                payload: self.will.will_payload.clone().unwrap_or_default().into(),
                qos: self.will.will_qos.unwrap_or_default(),
                retain: self.will.will_retain,
                properties: properties.will.clone(),
            }),
            properties: connect_properties,
            ..ClientOptions::default()
        };
        if client.password.is_some() && client.user_name.is_none() && version != Version::V5 {
            return Err("-P needs -u before MQTT 5".to_owned());
        }
        Ok(Connecting {
            connect: server.connect,
            client,
            properties,
            topic: server.topic,
        })
    }

    fn client_id(&self, version: Version) -> Result<String, String> {
        let pid = std::process::id();
        match (&self.id, &self.id_prefix) {
            (Some(id), _) => Ok(id.clone()),
            (None, Some(prefix)) => Ok(format!("{prefix}{pid}")),
            (None, None) if self.disable_clean_session => {
                Err("-c keeps a session, which needs a name: give a client id with -i".to_owned())
            }
            // Before 3.1.1 a client names itself.
            (None, None) if version == Version::V31 => Ok(format!("sundew-{pid}")),
            (None, None) => Ok(String::new()),
        }
    }

    fn session_expiry(&self) -> Result<Option<u32>, String> {
        match self.session_expiry_interval.as_deref() {
            None => Ok(self.disable_clean_session.then_some(u32::MAX)),
            Some("-1" | "∞") => Ok(Some(u32::MAX)),
            Some(text) => text
                .parse()
                .map(Some)
                .map_err(|_| format!("-x {text}: give seconds, or -1 for a session that does not end")),
        }
    }

    /// One line on standard error, unless --quiet.
    pub(super) fn complain(&self, what: impl std::fmt::Display) {
        if !self.quiet {
            eprintln!("{what}");
        }
    }

    /// The same with --debug only.
    pub(super) fn explain(&self, what: impl FnOnce() -> String) {
        if self.debug {
            eprintln!("{}", what());
        }
    }

    /// Says an error and gives the exit code.
    pub(super) fn failed(&self, error: impl std::fmt::Display) -> Exit {
        self.complain(error);
        Exit::Failed
    }

    /// The same for the end of a client.
    pub(super) fn ended(&self, error: &ClientError, version: Version) -> Exit {
        match error {
            ClientError::Done => Exit::Done,
            ClientError::Fault(Fault::Refused(reason, _)) => {
                use crate::protocol::reason::ReasonCode as R;
                let advice = match reason {
                    R::NotAuthorized | R::BadUserNameOrPassword if self.server.username.is_none() => {
                        "; give a user name and password with -u and -P"
                    }
                    R::UnsupportedProtocolVersion => "; try another version with -V 5, -V 311 or -V 31",
                    _ => "",
                };
                self.complain(format!("{error}{advice}"));
                Exit::Refused(if version == Version::V5 {
                    reason.byte()
                } else {
                    reason.connect_return_code()
                })
            }
            ClientError::Fault(Fault::Unanswered(_) | Fault::Malformed(..)) if !self.server.is_tls() => {
                self.failed(format!("{error}; does this port want TLS? Then give --cafile FILE"))
            }
            error => self.failed(error),
        }
    }

    /// One line about an event with --debug.
    pub(super) fn explain_event(&self, event: &Event) {
        self.explain(|| match event {
            Event::Message(message) => format!(
                "received PUBLISH {:?}, QoS {}, {} bytes",
                message.topic,
                message.qos.bits(),
                message.payload.len()
            ),
            other => format!("{other:?}"),
        });
    }
}

impl TlsArguments {
    fn is_given(&self) -> bool {
        self.cafile.is_some()
            || self.capath.is_some()
            || self.cert.is_some()
            || self.tls_version.is_some()
            || self.insecure
            || self.tls_use_os_certs
            || self.alpn.is_some()
    }

    fn options(&self) -> ClientTlsOptions {
        let is_nobody_named = self.cafile.is_none() && self.capath.is_none() && !self.insecure;
        let of_machine = || {
            let files = OS_AUTHORITIES.iter().map(PathBuf::from);
            files.into_iter().find(|file| file.is_file())
        };
        let certificate = self.cert.clone().zip(self.key.clone());
        ClientTlsOptions {
            ca_file: self.cafile.clone().or_else(|| {
                let is_wanted = self.tls_use_os_certs || is_nobody_named;
                is_wanted.then(of_machine).flatten()
            }),
            ca_folder: self.capath.clone(),
            insecure: self.insecure,
            certificate: certificate.map(|(chain, key)| CertificateFiles { chain, key }),
            server_name: None,
            alpn: self.alpn.clone(),
            version_min: self.tls_version.unwrap_or_default(),
            version_max: self.tls_version,
        }
    }
}

/// Where systems keep the authorities they trust: Debian, Fedora, Alpine and BSD.
const OS_AUTHORITIES: [&str; 3] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
];

/// QoS of a command line.
pub(super) fn parse_qos(text: &str) -> Result<QoS, &'static str> {
    let bits = text.parse().ok().and_then(QoS::from_bits);
    bits.ok_or("give 0 (at most once), 1 (at least once) or 2 (exactly once)")
}

pub(super) fn parse_version(text: &str) -> Result<Version, &'static str> {
    match text.strip_prefix("mqttv").unwrap_or(text) {
        "31" | "3.1" => Ok(Version::V31),
        "311" | "3.1.1" => Ok(Version::V311),
        "5" | "50" | "5.0" => Ok(Version::V5),
        _ => Err("give 31, 311 or 5"),
    }
}

fn parse_mechanism(text: &str) -> Result<Mechanism, &'static str> {
    Mechanism::from_name(&text.to_ascii_uppercase()).ok_or("give scram-sha-256 or scram-sha-512")
}

fn parse_tls_version(text: &str) -> Result<TlsVersion, &'static str> {
    match text.strip_prefix("tlsv").unwrap_or(text) {
        "1.2" => Ok(TlsVersion::Tls12),
        "1.3" => Ok(TlsVersion::Tls13),
        _ => Err("give tlsv1.2 or tlsv1.3; older ones are not safe"),
    }
}

/// Runs a client on this thread.
pub(super) fn run_client(arguments: &ConnectArguments, client: impl Future<Output = Exit>) -> Exit {
    match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => {
            let exit = runtime.block_on(client);
            // A name that is still looked up is not waited for.
            runtime.shutdown_background();
            exit
        }
        Err(error) => arguments.failed(format!("cannot start: {error}")),
    }
}
