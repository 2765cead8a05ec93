//! What can be set, with defaults and costs.

use crate::auth::bans::BanOptions;
use crate::codec::DecodeOptions;
use crate::delivery::residents::DeliveryOptions;
use crate::protocol::qos::QoS;
use crate::router::{MatchCacheLimits, Overlap, RetainedLimits, Strategies};
use crate::session::request::NEVER_EXPIRES;

/// Options of a broker. The defaults suit a home or a gateway and hold the limits of a hostile network.
#[derive(Clone, Debug)]
pub struct BrokerOptions {
    /// How packets are read: size limit (default 32 MiB), strictness about characters.
    pub decode: DecodeOptions,
    /// Outboxes, windows, output.
    pub delivery: DeliveryOptions,
    /// Topics whose receivers a worker remembers, default 32,768.
    pub cache: MatchCacheLimits,
    /// What overlapping subscriptions of one client get; default once.
    pub overlap: Overlap,
    /// Strategies of shared subscriptions; default round robin.
    pub shared: Strategies,
    /// Messages waiting for a member of a shared subscription go to another member as soon as it disconnects, not only when its
    /// session ends. Default false.
    pub redistribute_on_disconnect: bool,
    /// Bounds of the retained store.
    pub retained: RetainedLimits,
    /// When a QoS 2 message goes to its receivers; default at PUBLISH.
    pub qos2_delivery: Qos2Delivery,
    /// A client before MQTT 5 that may not publish to a topic is disconnected; default false: it is acknowledged and its message
    /// dropped [MQTT311-3.3.5-2].
    pub closes_refused_publish: bool,
    /// A retained message is not delivered to new subscribers once its publisher may not publish it any more; default true.
    pub checks_retained_source: bool,
    /// Highest QoS; default 2.
    pub maximum_qos: QoS,
    /// Retained messages; default true.
    pub retain_available: bool,
    /// Wildcard subscriptions; default true.
    pub wildcard_subscriptions: bool,
    /// Shared subscriptions; default true.
    pub shared_subscriptions: bool,
    /// Subscription identifiers; default true.
    pub subscription_identifiers: bool,
    /// Longest keep alive, seconds, default none (65,535); MQTT 5 clients are told, others keep theirs.
    pub keep_alive_max: u16,
    /// Keep alive that every MQTT 5 client is told, seconds; default none.
    pub server_keep_alive: Option<u16>,
    /// Empty client ids are given one; default true.
    pub allow_empty_client_id: bool,
    /// What an assigned client id begins with; default `auto-`.
    pub assigned_client_id_prefix: String,
    /// Longest client id, bytes; default 512.
    pub client_id_bytes_max: usize,
    /// Longest session expiry, seconds; default none (0xFFFFFFFF).
    pub session_expiry_max: u32,
    /// Session expiry of 3.1 and 3.1.1 clients with clean session 0, seconds; default 14 days.
    pub session_expiry_v3: u32,
    /// Unacknowledged PUBLISH packets taken from one client; default 1,024.
    pub receive_maximum: u16,
    /// Topic aliases taken from one client; default 10. Each costs its topic.
    pub topic_alias_maximum: u16,
    /// Topic aliases used towards one client at most; default 10.
    pub topic_alias_maximum_out: u16,
    /// Payloads whose format indicator says UTF-8 are checked; default false: it costs a pass over each.
    pub payload_format_check: bool,
    /// Told to clients that ask for response information; default none.
    pub response_information: Option<String>,
    /// Named to MQTT 5 clients when the broker stops: where to go instead (0x9C); default none (0x8B).
    pub server_reference: Option<String>,
    /// Clients are told that the other server is for good (0x9D); default false.
    pub server_moved: bool,
    /// Sessions at most, default 1,000,000; each costs about 1 KiB, an idle connection about 2 KiB more.
    pub sessions_max: usize,
    /// Subscriptions of one session at most; default 100,000.
    pub subscriptions_per_session_max: usize,
    /// Subscriptions of all sessions at most; default 10,000,000.
    pub subscriptions_max: usize,
    /// Largest packet of a client that has not entered, bytes; default 128 KiB.
    pub connect_bytes_max: u32,
    /// Bytes of unfinished packets of all clients that have not entered, and of a CONNECT while it is authenticated; default 64 MiB.
    pub unauthenticated_bytes_max: usize,
    /// Memory that the process may use, bytes, see [`MemoryBudget`](super::memory::MemoryBudget); default none, as a process may have other parts.
    pub memory_bytes_max: u64,
    /// Longest payload of a will, bytes; default 65,535, the longest there is.
    pub will_bytes_max: usize,
    /// Wills whose delay runs at most; default 100,000. Above it a will is published at once.
    pub pending_wills_max: usize,
    /// How long after an unclean stop of the broker the wills of those who were connected wait for their clients to come back,
    /// milliseconds; default 60 s.
    pub will_grace_ms: u64,
    /// Who is kept out for a while, after wrong passwords for example.
    pub bans: BanOptions,
    /// `$SYS` interval, seconds, 0 for none; default 10.
    pub sys_interval_secs: u64,
    /// Letters waiting for a worker above which QoS 0 for it is shed; default 1,000,000.
    pub mailbox_letters_max: usize,
}

/// When a QoS 2 message goes to its receivers: the two methods of MQTT 5 section 4.3.3.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Qos2Delivery {
    /// When it comes; its packet identifier is kept until it is released (method B).
    #[default]
    Publish,
    /// When its publisher releases it; it is kept until then (method A), up to [`OutboxOptions::unstored_bytes_max`] of each session.
    ///
    /// [`OutboxOptions::unstored_bytes_max`]: crate::delivery::outbox::OutboxOptions::unstored_bytes_max
    Release,
}

impl BrokerOptions {
    /// How packets of clients are read that have not entered.
    pub(super) fn decode_stranger(&self) -> DecodeOptions {
        DecodeOptions {
            packet_bytes_max: self.connect_bytes_max.min(self.decode.packet_bytes_max),
            ..self.decode
        }
    }
}

impl Default for BrokerOptions {
    fn default() -> Self {
        Self {
            decode: DecodeOptions {
                packet_bytes_max: 32 << 20,
                user_properties_max: 1000,
                ..DecodeOptions::default()
            },
            delivery: DeliveryOptions::default(),
            cache: MatchCacheLimits::default(),
            overlap: Overlap::Once,
            shared: Strategies::default(),
            redistribute_on_disconnect: false,
            retained: RetainedLimits::default(),
            qos2_delivery: Qos2Delivery::Publish,
            closes_refused_publish: false,
            checks_retained_source: true,
            maximum_qos: QoS::ExactlyOnce,
            retain_available: true,
            wildcard_subscriptions: true,
            shared_subscriptions: true,
            subscription_identifiers: true,
            keep_alive_max: u16::MAX,
            server_keep_alive: None,
            allow_empty_client_id: true,
            assigned_client_id_prefix: "auto-".into(),
            client_id_bytes_max: 512,
            session_expiry_max: NEVER_EXPIRES,
            session_expiry_v3: 14 * 24 * 3600,
            receive_maximum: 1024,
            topic_alias_maximum: 10,
            topic_alias_maximum_out: 10,
            payload_format_check: false,
            response_information: None,
            server_reference: None,
            server_moved: false,
            sessions_max: 1_000_000,
            subscriptions_per_session_max: 100_000,
            subscriptions_max: 10_000_000,
            connect_bytes_max: 128 << 10,
            unauthenticated_bytes_max: 64 << 20,
            memory_bytes_max: u64::MAX,
            will_bytes_max: 65_535,
            pending_wills_max: 100_000,
            will_grace_ms: 60_000,
            bans: BanOptions::default(),
            sys_interval_secs: 10,
            mailbox_letters_max: 1_000_000,
        }
    }
}
