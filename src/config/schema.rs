//! Every option, once: its name, type, default and cost. `config/reference.toml` is made from this file.

use core::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};
use std::{collections::BTreeMap, path::PathBuf};

use super::{
    option::{choice, section},
    value::{Address, Auto, Bytes, Expiry, Limit, Mode, Network},
};

mod auth;
mod bans;
mod limits;
mod storage;
mod tenants;
mod ways;

pub use self::auth::{
    AccessRule, Action, Anonymous, Auth, Effect, EnhancedMethod, RefusedLogin, RefusedPublish, WideSubscriptions,
};
pub use self::bans::Bans;
pub use self::limits::{Limits, RatePolicy};
pub use self::storage::{OnCorruption, OnFull, Storage, StorageEnabled, Sync};
pub use self::tenants::Tenant;
pub use self::ways::{Http, HttpAnswer, HttpFormat, HttpMethod, Jwt, OnFailure, TokenIn};

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

section! {
    /// The whole configuration.
    pub struct Config {
        /// Where clients connect. Any number of listeners, each with options of its own.
        /// Default: MQTT on port 1883 and WebSocket on port 9001, reachable from this machine only.
        /// Cost: an open socket each, nothing else.
        listeners: Vec<Listener> = Listener::loopback();
        /// Who may connect, and what he may do.
        auth: Auth = Auth::default();
        /// Who is kept out for a while. `sundew ban list` shows them, `sundew ban lift` lets them in, `sundew ban add` bans more.
        bans: Bans = Bans::default();
        /// Clients that are kept apart from all others: each tenant has topics, client ids, sessions and shared groups of its own.
        tenants: Vec<Tenant> = Vec::new();
        /// How much clients may take, one by one and all together. Every refusal names the option.
        limits: Limits = Limits::default();
        /// What the broker offers and asks of MQTT.
        mqtt: Mqtt = Mqtt::default();
        /// Messages that wait for one session, since its client is away or slower than they come. When the queue is full, QoS 0
        /// drops its oldest message. Retained messages that answer a SUBSCRIBE do not count.
        queue: Queue = Queue::default();
        /// What survives the end of the broker, planned or not: retained messages, sessions, their queues, wills.
        storage: Storage = Storage::default();
        /// Shared subscriptions: `$share/GROUP/FILTER`.
        shared: Shared = Shared::default();
        /// Threads that carry connections.
        workers: Workers = Workers::default();
        /// How the broker ends on SIGTERM or Ctrl-C: it accepts nobody any more, publishes the wills of its clients (their
        /// connections end, and they did not say goodbye), tells MQTT 5 clients why (0x8B), and closes.
        shutdown: Shutdown = Shutdown::default();
        /// What is logged, and where.
        log: Log = Log::default();
        /// The topics below `$SYS/broker`, named as mosquitto names them.
        sys: Sys = Sys::default();
    }
}

section! {
    /// Where and how clients connect.
    pub struct Listener {
        /// What the log calls it.
        /// Default: the protocol, and a number where two are the same. Cost: none.
        name: Option<String> = None;
        /// The address with its port, or several. `"0.0.0.0:1883"` is every IPv4 address of this machine, `"[::]:1883"` every
        /// IPv6 one, `"unix:/run/sundew.sock"` a Unix socket. Required. Cost: an open socket each.
        address: Vec<Address> = Vec::new();
        /// What is spoken there. Cost: WebSocket adds 2 to 14 bytes a frame and a masking pass over what clients send.
        protocol: Protocol = Protocol::Mqtt;
        /// Encrypts the connections. Cost: about 1 ms of CPU per handshake, 20 to 30 KiB a connection.
        tls: Option<Tls> = None;
        /// For `protocol = "websocket"`.
        websocket: WebSocket = WebSocket::default();
        /// Takes the client's address from a PROXY protocol header (version 1 or 2). With this section, a connection from
        /// anybody who is not trusted is refused. Cost: none.
        proxy_protocol: Option<ProxyProtocol> = None;
        /// Versions of MQTT that are accepted. Cost: none.
        allowed_versions: Vec<Version> = vec![Version::V31, Version::V311, Version::V5];
        /// Highest QoS for clients of this listener, if it is to be less than `mqtt.maximum_qos`. Default: absent. Cost: none.
        maximum_qos: Option<u8> = None, in Some(0) => Some(2);
        /// Whether clients without a user name are let in here, if that is to differ from `auth.allow_anonymous`.
        /// Default: absent. Cost: see there.
        allow_anonymous: Option<Anonymous> = None;
        /// Users of this listener, in the place of `auth.password_file`. Default: absent. Cost: see there.
        password_file: Option<PathBuf> = None;
        /// Methods of this listener, in the place of `auth.enhanced_methods`. Default: absent. Cost: see there.
        enhanced_methods: Option<Vec<EnhancedMethod>> = None;
        /// What they may do, in the place of `auth.acl_file`. Default: absent. Cost: see there.
        acl_file: Option<PathBuf> = None;
        /// What stands before every topic of its clients, who do not see it: `"site-a/"`. They are a tenant then, that of `tenants` with this
        /// mount point, or one of their own. Default: absent. Cost: a copy of each topic that they publish to.
        mount_point: Option<String> = None;
        /// Connections at once through this listener. Cost: a file descriptor and 2 to 4 KiB each.
        connections_max: Limit = Limit::UNLIMITED;
        /// Connections at once from one address through this listener, a /64 counting as one IPv6 address; more are closed. Default: unlimited,
        /// since a router, Docker's proxy or a load balancer is one address for all that is behind it. Cost: 16 bytes a connection.
        connections_per_address_max: Limit = Limit::UNLIMITED, in Limit(1) => Limit::UNLIMITED;
        /// New connections a second through this listener, a second's worth at once; more wait in the system's line, nobody is refused.
        /// Cost: a fleet that returns after a power cut takes that long.
        connect_rate_max: Limit = Limit::UNLIMITED, in Limit(1) => Limit::UNLIMITED;
        /// New connections a second from one address, a second's worth at once; more are closed. Default: unlimited, as above.
        /// Cost: a lock a connection.
        connect_rate_per_address_max: Limit = Limit::UNLIMITED, in Limit(1) => Limit::UNLIMITED;
        /// PUBLISH packets a second from each client, a second's worth at once. Cost: a look-up each, where a listener has this or the next.
        publish_rate_max: Limit = Limit::UNLIMITED, in Limit(1) => Limit::UNLIMITED;
        /// Bytes of topics, properties and payloads that each client may publish a second. Default: absent, any number. Cost: see there.
        publish_bytes_rate_max: Option<Bytes> = None, in Some(Bytes(1)) => Some(Bytes(1 << 40));
        /// A client that publishes faster is not read for a while (`"delay"`: TCP tells it, and its keep alive stands still), or what is too much is
        /// `"drop"`ped at QoS 0 and refused at QoS 1 and 2 (0x97; before MQTT 5, which cannot be told, delayed), or it is
        /// `"disconnect"`ed (0x96). Cost: see each.
        publish_rate_policy: RatePolicy = RatePolicy::Delay;
        /// Time from the first byte of TCP to a whole CONNECT, TLS and WebSocket included.
        /// Cost: a connection that says nothing holds a descriptor so long.
        connect_timeout: Duration = seconds(10), in Duration::from_millis(100) => seconds(3600);
        /// After so long without traffic the kernel asks whether the peer is still there; `"0s"`: never.
        /// Cost: one small packet each time.
        tcp_keepalive: Duration = seconds(60), in seconds(0) => seconds(32_767);
        /// A peer that acknowledges nothing for so long is gone, and its will is published; `"0s"`: the kernel decides,
        /// after about 15 minutes. Cost: none.
        tcp_user_timeout: Duration = seconds(60), in seconds(0) => seconds(86_400);
        /// Who may open the Unix socket, as permission bits. Cost: none.
        unix_mode: Mode = Mode(0o660);
        /// What the specification forbids and some clients do: let it pass on this listener.
        quirks: Quirks = Quirks::default();
    }
}

impl Listener {
    /// What is listened on without a configuration: this machine only.
    fn loopback() -> Vec<Self> {
        let both = |port| {
            vec![
                Address::Tcp(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)),
                Address::Tcp(SocketAddr::new(IpAddr::V6(Ipv6Addr::LOCALHOST), port)),
            ]
        };
        vec![
            Self {
                name: Some("mqtt".to_owned()),
                address: both(1883),
                ..Self::default()
            },
            Self {
                name: Some("websocket".to_owned()),
                address: both(9001),
                protocol: Protocol::WebSocket,
                ..Self::default()
            },
        ]
    }
}

choice! {
    /// What is spoken on a listener.
    pub enum Protocol {
        /// MQTT directly over TCP, TLS or a Unix socket.
        Mqtt = "mqtt",
        /// MQTT in WebSocket frames, for browsers and through HTTP proxies.
        WebSocket = "websocket",
    }
}

choice! {
    /// A version of MQTT.
    pub enum Version {
        /// `MQIsdp`, level 3.
        V31 = "3.1",
        /// `MQTT`, level 4.
        V311 = "3.1.1",
        /// `MQTT`, level 5.
        V5 = "5.0",
    }
}

section! {
    /// TLS of one listener.
    pub struct Tls {
        /// The certificate with its chain, PEM. Required. Cost: none.
        certificate: PathBuf = PathBuf::new();
        /// Its private key, PEM, unencrypted. Required. Cost: none.
        key: PathBuf = PathBuf::new();
        /// More certificates: the one whose name the client asks for (SNI) is used, the first one otherwise. Cost: none.
        certificates: Vec<Certificate> = Vec::new();
        /// Authorities that may sign certificates of clients, PEM. Cost: none.
        client_ca: Option<PathBuf> = None;
        /// Whether clients must show a certificate. Cost: one more signature check per handshake.
        client_certificate: ClientCertificate = ClientCertificate::None;
        /// What of a client's certificate is its user name, if it shows one; it is not asked for a password then: `"common_name"`, the
        /// first `"alternative_name"` (DNS, e-mail, URI or IP), the whole `"subject"`, or `"none"` of it.
        /// Cost: whom the authorities trust, you trust.
        user_name: CertificateUser = CertificateUser::None;
        /// Certificates of clients that were revoked (CRL), PEM. Default: absent. Cost: none.
        client_crl: Option<PathBuf> = None;
        /// The oldest version of TLS that is spoken. Devices on ESP8266 know 1.2 only. Cost: none.
        version_min: TlsVersion = TlsVersion::V12;
        /// Largest TLS record that is sent, for devices with little memory. Default: absent, 16 KiB.
        /// Cost: 29 bytes and some CPU a record.
        fragment_bytes_max: Option<u16> = None, in Some(512) => Some(16_384);
        /// Whether ALPN is answered with `mqtt`; a client that offers only others is then refused, one that offers none is not.
        /// Cost: none.
        alpn: bool = false;
    }
}

section! {
    /// One more certificate of a listener.
    pub struct Certificate {
        /// The certificate with its chain, PEM. Required. Cost: none.
        certificate: PathBuf = PathBuf::new();
        /// Its private key, PEM, unencrypted. Required. Cost: none.
        key: PathBuf = PathBuf::new();
    }
}

choice! {
    /// Whether clients must show a certificate.
    pub enum ClientCertificate {
        /// It is not asked for.
        None = "none",
        /// It is asked for, and checked if there is one.
        Optional = "optional",
        /// Without one there is no connection.
        Required = "required",
    }
}

choice! {
    /// What of a certificate is a user name.
    pub enum CertificateUser {
        /// Nothing.
        None = "none",
        /// The common name of its subject.
        CommonName = "common_name",
        /// The first of its alternative names.
        AlternativeName = "alternative_name",
        /// Its subject.
        Subject = "subject",
    }
}

choice! {
    /// A version of TLS.
    pub enum TlsVersion {
        /// RFC 5246.
        V12 = "1.2",
        /// RFC 8446.
        V13 = "1.3",
    }
}

section! {
    /// WebSocket of one listener.
    pub struct WebSocket {
        /// The only path that is accepted, such as `"/mqtt"`. Default: any path. Cost: none.
        path: Option<String> = None;
        /// The pages that browsers may come from, such as `"https://app.example.org"`. Default: any. Cost: none.
        origins: Option<Vec<String>> = None;
        /// After so long without traffic a ping is sent, since proxies cut idle connections; `"0s"`: never.
        /// Cost: one small frame each time.
        ping_interval: Duration = seconds(30), in seconds(0) => seconds(3600);
        /// Reverse proxies whose X-Forwarded-For or Forwarded header is believed: addresses or blocks of them. Cost: none.
        trusted_proxies: Vec<Network> = Vec::new();
    }
}

section! {
    /// PROXY protocol of one listener.
    pub struct ProxyProtocol {
        /// Who may say so: addresses or blocks of the proxies. Required. Cost: none.
        trusted: Vec<Network> = Vec::new();
    }
}

section! {
    /// What the specification forbids and some clients do.
    pub struct Quirks {
        /// A client of MQTT 3.1.1 with an empty id and clean session 0 gets an id and a clean session, instead of being refused
        /// as [MQTT-3.1.3-8] says. Cost: it finds no session when it comes back, and nobody tells it.
        accept_empty_client_id_persistent: bool = false;
    }
}

section! {
    /// What the broker offers and asks of MQTT.
    pub struct Mqtt {
        /// Highest QoS that clients may publish with; subscriptions are granted no more. Cost: none.
        maximum_qos: u8 = 2, in 0 => 2;
        /// Whether retained messages are kept. Cost: see `limits.retained_bytes_max`.
        retain_available: bool = true;
        /// Whether `+` and `#` may be subscribed to. Cost: a longer look-up of topics seen for the first time.
        wildcard_subscriptions: bool = true;
        /// Whether `$share/GROUP/FILTER` may be subscribed to. Cost: none.
        shared_subscriptions: bool = true;
        /// Whether MQTT 5 clients may number their subscriptions. Cost: a few bytes a message.
        subscription_identifiers: bool = true;
        /// Longest keep alive: an MQTT 5 client that asks for more, or for none, is told this instead (Server Keep Alive).
        /// Older clients cannot be told and are left alone. `"0s"`: no limit. Cost: none.
        keep_alive_max: Duration = seconds(0), in seconds(0) => seconds(65_535);
        /// Keep alive that every MQTT 5 client is told, whatever it asked for. Default: absent. Cost: pings that often.
        server_keep_alive: Option<Duration> = None, in Some(seconds(1)) => Some(seconds(65_535));
        /// Whether a client may leave its id empty and be given one. Cost: none.
        allow_empty_client_id: bool = true;
        /// What the ids that we give begin with; a UUID follows. Cost: none.
        assigned_client_id_prefix: String = "auto-".to_owned();
        /// Longest time a session of an MQTT 5 client is kept while the client is away. Cost: memory of forgotten sessions.
        session_expiry_max: Expiry = Expiry::Never;
        /// How long a session of an MQTT 3.1 or 3.1.1 client with clean session 0 is kept while the client is away.
        /// Cost: memory of forgotten sessions.
        session_expiry_v3: Expiry = Expiry::After(seconds(14 * 86_400));
        /// Messages at QoS 1 and 2 that a client may have under way to us (our Receive Maximum). Cost: about 16 bytes each.
        receive_maximum: u16 = 1024, in 1 => 65_535;
        /// Messages at QoS 1 and 2 that we have under way to a client, if it does not ask for less. Cost: the message each.
        max_inflight: u16 = 1024, in 1 => 65_535;
        /// Topic aliases a client may use towards us. Cost: a topic each.
        topic_alias_max: u16 = 10;
        /// Topic aliases that we use towards a client, if it allows as many. Cost: a topic each.
        topic_alias_max_out: u16 = 10;
        /// What MQTT 5 clients that ask for Response Information are given, as the start of their reply topics.
        /// Default: absent. Cost: none.
        response_information: Option<String> = None;
        /// Whether control characters and non-characters in texts are refused, which the specification allows. Devices send
        /// them, and repeat for ever when refused. Cost: one more pass over topics that are not plain ASCII.
        strict_utf8: bool = false;
        /// Whether payloads announced as UTF-8 (Payload Format Indicator) are checked; 0x99 if they are not.
        /// Cost: one pass over such payloads.
        payload_format_check: bool = false;
        /// When a message at QoS 2 goes to its receivers: `"publish"`: as soon as it comes, or `"release"`: when its publisher has heard
        /// that it came (PUBREL), as mosquitto does. Cost of release: it arrives a round trip later, and waits in memory, up to
        /// `queue.unstored_bytes_max` of each client, and in the store; one that finds every queue full then is dropped.
        qos2_delivery: Qos2Delivery = Qos2Delivery::Publish;
        /// A message that several subscriptions of one client match is delivered `"once"` at the highest QoS, or once for
        /// `"each"`. Cost of each: duplicates that clients of MQTT 3.1.1 cannot tell apart.
        overlap: Overlap = Overlap::Once;
    }
}

choice! {
    /// When a message at QoS 2 goes to its receivers.
    pub enum Qos2Delivery {
        /// When it comes.
        Publish = "publish",
        /// When its publisher releases it.
        Release = "release",
    }
}

choice! {
    /// How often a message is delivered that several subscriptions of one client match.
    pub enum Overlap {
        /// Once, at the highest QoS, with all Subscription Identifiers.
        Once = "once",
        /// Once for each subscription.
        Each = "each",
    }
}

section! {
    /// Messages that wait for one session. Retained messages that answer a SUBSCRIBE do not count. When it is full, QoS 0 drops its
    /// oldest message.
    pub struct Queue {
        /// Messages that wait for one session. Cost: 50 to 100 bytes of memory each, and topic and payload: in memory once for all
        /// sessions up to `memory_bytes_max`, the rest on disk.
        messages_max: Limit = Limit(1_000_000), in Limit(1) => Limit::UNLIMITED;
        /// Bytes that wait for one session, wherever they are. Cost: disk, about twice as much.
        bytes_max: Bytes = Bytes(1 << 30), in Bytes(1024) => Bytes(1 << 40);
        /// Of the bytes that wait for one session, those that are in memory; what is more is in the store only and is read back, in order, when
        /// its turn comes. Messages whose sessions end with the connection, and QoS 0, are always in memory. Cost: memory.
        memory_bytes_max: Bytes = Bytes(4 << 20), in Bytes(0) => Bytes(1 << 40);
        /// The same for all sessions together. Cost: memory; each client that reads while it is used up takes 64 KiB more.
        memory_total_max: Bytes = Bytes(256 << 20), in Bytes(0) => Bytes(1 << 40);
        /// Bytes in memory at which a queue is full, whatever else has room: where nothing is stored, or the store cannot keep up.
        /// Cost: memory.
        unstored_bytes_max: Bytes = Bytes(64 << 20), in Bytes(1024) => Bytes(1 << 40);
        /// When the queue is full, messages at QoS 1 and 2 are: `"refuse"`d to their publisher (0x97), or dropped, the oldest
        /// or the newest, or the session's client is disconnected. Cost of each: see there; drops are counted and logged.
        /// Before, from seven eighths on, who publishes only to kept sessions with such queues is not read for a second at most.
        policy: QueuePolicy = QueuePolicy::Refuse;
        /// Bytes that were handed to a connection and that its client has not read; what is more waits in the queue.
        /// Cost: memory, for each client that does not read.
        output_bytes_max: Bytes = Bytes(1 << 20), in Bytes(4096) => Bytes(1 << 30);
        /// Whether messages at QoS 0 wait for a client that is away. Cost: memory for what may be lost anyway.
        qos0_offline: bool = false;
    }
}

choice! {
    /// What happens to a message at QoS 1 or 2 that finds the queue full.
    pub enum QueuePolicy {
        /// Its publisher is told, where no other receiver can take it.
        Refuse = "refuse",
        /// The oldest waiting message makes room.
        DropOldest = "drop_oldest",
        /// It is dropped itself.
        DropNewest = "drop_newest",
        /// The slow client is disconnected, its session kept.
        Disconnect = "disconnect",
    }
}

section! {
    /// Shared subscriptions.
    pub struct Shared {
        /// Which member of a group gets a message. Cost: `"least_in_flight"` looks at every member for each message.
        strategy: Strategy = Strategy::RoundRobin;
        /// Groups that choose otherwise, by the beginning of their name: BEGINNING = "strategy". The longest one that fits counts.
        groups: BTreeMap<String, Strategy> = BTreeMap::new();
        /// When messages that a member has not finished go to another one: when its session ends, or already when it
        /// disconnects. Cost of the latter: messages twice, after a short break of the network.
        redistribute_on: RedistributeOn = RedistributeOn::SessionEnd;
    }
}

choice! {
    /// Which member of a group gets a message.
    pub enum Strategy {
        /// One after the other.
        RoundRobin = "round_robin",
        /// Anyone.
        Random = "random",
        /// The same one until it is gone.
        Sticky = "sticky",
        /// The same one for all messages of one publisher.
        ByClient = "by_client",
        /// The same one for all messages of one topic.
        ByTopic = "by_topic",
        /// The one with the fewest messages under way.
        LeastInFlight = "least_in_flight",
    }
}

choice! {
    /// When another member takes over what one has not finished.
    pub enum RedistributeOn {
        /// When its session ends.
        SessionEnd = "session_end",
        /// When its connection ends.
        Disconnect = "disconnect",
    }
}

section! {
    /// Threads that carry connections.
    pub struct Workers {
        /// How many; `"auto"`: one a core. Cost: about 1 MiB each; more than cores is slower.
        count: Auto = Auto::Auto, in Auto::Fixed(1) => Auto::Fixed(1024);
        /// Where a new connection goes: `"auto"` fills one worker before it spreads, since two clients on one worker meet
        /// without a lock, `"round_robin"` spreads from the start. Cost: messages between workers cost a hand-over.
        placement: Placement = Placement::Auto;
    }
}

choice! {
    /// Where a new connection goes.
    pub enum Placement {
        /// Spreads when a worker is busy.
        Auto = "auto",
        /// One after the other.
        RoundRobin = "round_robin",
    }
}

section! {
    /// How the broker ends. A second signal ends it at once.
    pub struct Shutdown {
        /// Longest time that takes. Cost: a slow reader delays the end so long.
        deadline: Duration = seconds(5), in seconds(0) => seconds(3600);
        /// Another broker that MQTT 5 clients are told to use instead (0x9C and Server Reference). Default: absent.
        /// Cost: none.
        server_reference: Option<String> = None;
        /// The other broker is for good: MQTT 5 clients are told 0x9D instead of 0x9C. Cost: none.
        server_moved: bool = false;
    }
}

section! {
    /// What is logged, and where. Payloads never are.
    pub struct Log {
        /// Least important level that is written: `"error"`, `"warn"`, `"info"`, `"debug"`; or by part of the broker:
        /// `"info,sundew::session=debug"`. Cost: debug writes several lines a connection.
        level: LogLevel = LogLevel("info".to_owned());
        /// Lines to read, or JSON for machines. Cost: JSON is about twice as long.
        format: LogFormat = LogFormat::Text;
        /// Where lines go. Cost: none; a slow disk or terminal loses lines, and their number is logged.
        target: LogTarget = LogTarget::Stderr;
        /// The file, for `target = "file"`; appended to. Default: absent. Cost: it grows; rotate it with logrotate's copytruncate.
        file: Option<PathBuf> = None;
        /// Lines that wait to be written; those beyond are lost and counted. Cost: about 200 bytes each.
        lines_max: u32 = 16_384, in 128 => 10_000_000;
    }
}

/// A filter of the log, checked when the log starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLevel(pub String);

impl super::value::Scalar for LogLevel {
    fn from_text(text: &str) -> Option<Self> {
        let is_level = |word: &str| matches!(word, "off" | "error" | "warn" | "info" | "debug");
        let is_directive = |part: &str| match part.split_once('=') {
            Some((target, level)) => !target.is_empty() && is_level(level),
            None => is_level(part),
        };
        text.split(',').all(is_directive).then(|| Self(text.to_owned()))
    }
    fn to_toml(&self) -> String {
        self.0.to_toml()
    }
    fn expected() -> String {
        "\"error\", \"warn\", \"info\", \"debug\", or such as \"info,sundew::session=debug\"".to_owned()
    }
    fn words() -> &'static [&'static str] {
        &["error", "warn", "info", "debug"]
    }
}

choice! {
    /// How log lines look.
    pub enum LogFormat {
        /// `2026-11-20T21:57:00+01:00 INFO client connected client="z2m"`
        Text = "text",
        /// One JSON object a line.
        Json = "json",
    }
}

choice! {
    /// Where log lines go.
    pub enum LogTarget {
        /// Standard error.
        Stderr = "stderr",
        /// Standard output.
        Stdout = "stdout",
        /// The file named in `log.file`.
        File = "file",
    }
}

section! {
    /// The topics below `$SYS/broker`.
    pub struct Sys {
        /// Whether every client may read them, not only those of this machine, members of the group `admin`, and whom a rule allows it.
        /// Cost: it tells strangers how busy you are.
        public: bool = false;
        /// How often they are published; `"0s"`: never. Cost: some 50 retained messages each time.
        interval: Duration = seconds(10), in seconds(0) => seconds(86_400);
    }
}
