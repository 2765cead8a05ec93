//! From what the operator wrote to the options that each layer declares for itself.

use std::{ffi::OsString, num::NonZero, time::Duration};

use super::{
    schema::{self, Bans, Config, Listener, Protocol, Tls},
    value::{Address, Auto, Bytes, Limit, Network},
};
use crate::{
    auth::bans::BanOptions,
    broker::{BrokerOptions, Qos2Delivery},
    codec::DecodeOptions,
    delivery::{
        outbox::{OutboxOptions, Overflow},
        residents::DeliveryOptions,
    },
    logging::{LogFormat, LogOptions, LogTarget},
    protocol::{qos::QoS, version::Version},
    router::{Overlap, RetainedLimits, Strategies, Strategy},
    session::peer::{ListenerRules, PublishRate, RatePolicy},
    storage::disk::{DiskOptions, FullPolicy, StorageOptions, SyncMode},
    storage::image::ImageOptions,
    transport::{
        accept::Placement,
        options::{CertificateFiles, ListenAddress, ListenerOptions, TlsOptions, TlsVersion, WebSocketOptions},
    },
};

impl Config {
    /// For [`crate::broker`].
    pub fn broker_options(&self) -> BrokerOptions {
        let (limits, mqtt) = (&self.limits, &self.mqtt);
        BrokerOptions {
            decode: self.decode_options(),
            delivery: self.delivery_options(),
            checks_retained_source: self.auth.check_retained_source,
            closes_refused_publish: self.auth.refused_publish == schema::RefusedPublish::Disconnect,
            qos2_delivery: match mqtt.qos2_delivery {
                schema::Qos2Delivery::Publish => Qos2Delivery::Publish,
                schema::Qos2Delivery::Release => Qos2Delivery::Release,
            },
            overlap: match mqtt.overlap {
                schema::Overlap::Once => Overlap::Once,
                schema::Overlap::Each => Overlap::Each,
            },
            shared: Strategies {
                default: strategy(self.shared.strategy),
                by_prefix: self
                    .shared
                    .groups
                    .iter()
                    .map(|(group, chosen)| (group.clone(), strategy(*chosen)))
                    .collect(),
            },
            redistribute_on_disconnect: self.shared.redistribute_on == schema::RedistributeOn::Disconnect,
            retained: RetainedLimits {
                messages_max: limits.retained_messages_max.to_usize(),
                bytes_max: limits.retained_bytes_max.to_usize(),
            },
            maximum_qos: qos(mqtt.maximum_qos),
            retain_available: mqtt.retain_available,
            wildcard_subscriptions: mqtt.wildcard_subscriptions,
            shared_subscriptions: mqtt.shared_subscriptions,
            subscription_identifiers: mqtt.subscription_identifiers,
            keep_alive_max: match whole_seconds(mqtt.keep_alive_max) {
                0 => u16::MAX,
                seconds => seconds,
            },
            server_keep_alive: mqtt.server_keep_alive.map(whole_seconds),
            allow_empty_client_id: mqtt.allow_empty_client_id,
            assigned_client_id_prefix: mqtt.assigned_client_id_prefix.clone(),
            client_id_bytes_max: usize::from(limits.client_id_bytes_max),
            session_expiry_max: mqtt.session_expiry_max.seconds(),
            session_expiry_v3: mqtt.session_expiry_v3.seconds(),
            receive_maximum: mqtt.receive_maximum,
            topic_alias_maximum: mqtt.topic_alias_max,
            topic_alias_maximum_out: mqtt.topic_alias_max_out,
            payload_format_check: mqtt.payload_format_check,
            response_information: mqtt.response_information.clone(),
            server_reference: self.shutdown.server_reference.clone(),
            server_moved: self.shutdown.server_moved,
            sessions_max: limits.sessions_max.to_usize(),
            subscriptions_per_session_max: limits.subscriptions_per_session_max.to_usize(),
            subscriptions_max: limits.subscriptions_max.to_usize(),
            connect_bytes_max: u32::try_from(limits.connect_bytes_max.0).unwrap_or(u32::MAX),
            unauthenticated_bytes_max: limits.unauthenticated_bytes_max.to_usize(),
            will_bytes_max: usize::from(limits.will_bytes_max),
            pending_wills_max: limits.pending_wills_max.to_usize(),
            will_grace_ms: self.storage.will_grace.as_millis() as u64,
            bans: self.bans.options(),
            sys_interval_secs: self.sys.interval.as_secs(),
            ..BrokerOptions::default()
        }
    }

    fn decode_options(&self) -> DecodeOptions {
        DecodeOptions {
            packet_bytes_max: u32::try_from(self.limits.packet_bytes_max.0).unwrap_or(u32::MAX),
            strict_utf8: self.mqtt.strict_utf8,
            topic_bytes_max: self.limits.topic_bytes_max,
            user_properties_max: self.limits.user_properties_max,
            topic_separators_max: self.limits.topic_levels_max - 1, // at least 8 levels, by its range
            filters_max: self.limits.filters_per_packet_max,
        }
    }

    fn delivery_options(&self) -> DeliveryOptions {
        DeliveryOptions {
            outbox: OutboxOptions {
                messages_max: self.queue.messages_max.to_usize(),
                bytes_max: self.queue.bytes_max.to_usize(),
                unstored_bytes_max: self.queue.unstored_bytes_max.to_usize(),
                overflow: match self.queue.policy {
                    schema::QueuePolicy::Refuse => Overflow::Refuse,
                    schema::QueuePolicy::DropOldest => Overflow::DropOldest,
                    schema::QueuePolicy::DropNewest => Overflow::DropNewest,
                    schema::QueuePolicy::Disconnect => Overflow::Disconnect,
                },
                queue_qos0_offline: self.queue.qos0_offline,
                ..OutboxOptions::default()
            },
            memory_bytes_max: self.queue.memory_bytes_max.to_usize(),
            memory_total_max: self.queue.memory_total_max.to_usize(),
            output_bytes_max: self.queue.output_bytes_max.to_usize(),
            in_flight_max: self.mqtt.max_inflight,
        }
    }

    /// For [`crate::transport`], with the MQTT rules of each listener.
    pub fn listener_options(&self) -> Vec<(ListenerOptions, ListenerRules)> {
        self.listeners
            .iter()
            .map(|listener| (listener.options(&self.limits), listener.rules()))
            .collect()
    }

    /// Where and how what must survive is kept; `None` where nothing is to. `state_directory` is what systemd says.
    pub fn storage_options(&self, state_directory: Option<OsString>) -> Option<StorageOptions> {
        let storage = &self.storage;
        if storage.enabled == schema::StorageEnabled::Off {
            return None;
        }
        // systemd may name several, separated by colons: the first one is meant.
        let of_system = state_directory.and_then(|names| std::env::split_paths(&names).next());
        let directory = storage.directory.clone().or(of_system);
        Some(StorageOptions {
            directory: directory.unwrap_or_else(|| "data".into()),
            disk: DiskOptions {
                sync: match storage.sync {
                    schema::Sync::Always => SyncMode::Always,
                    schema::Sync::Interval => SyncMode::Interval,
                    schema::Sync::Os => SyncMode::Os,
                },
                sync_interval: storage.sync_interval.as_millis() as u64,
                segment_size: storage.segment_size.0,
                snapshot_after: storage.snapshot_after.0,
                reserve: storage.reserve.0,
                waiting_max: storage.waiting_max.0,
                on_full: match storage.on_full {
                    schema::OnFull::Refuse => FullPolicy::Refuse,
                    schema::OnFull::Forget => FullPolicy::Forget,
                },
                ..DiskOptions::default()
            },
            refuses_damage: storage.on_corruption == schema::OnCorruption::Refuse,
            is_required: storage.enabled == schema::StorageEnabled::On,
            image: ImageOptions {
                memory_bytes_max: self.queue.memory_total_max.to_usize(),
            },
        })
    }

    /// How many worker threads.
    pub fn worker_count(&self) -> usize {
        match self.workers.count {
            Auto::Auto => std::thread::available_parallelism().map_or(1, NonZero::get),
            Auto::Fixed(count) => count as usize,
        }
    }

    /// Where connections go.
    pub const fn placement(&self) -> Placement {
        match self.workers.placement {
            schema::Placement::Auto => Placement::Auto,
            schema::Placement::RoundRobin => Placement::RoundRobin,
        }
    }

    /// For [`crate::logging`].
    pub fn log_options(&self) -> LogOptions {
        LogOptions {
            filter: self.log.level.0.clone(),
            format: match self.log.format {
                schema::LogFormat::Text => LogFormat::Text,
                schema::LogFormat::Json => LogFormat::Json,
            },
            target: match (self.log.target, &self.log.file) {
                (schema::LogTarget::File, Some(file)) => LogTarget::File(file.clone()),
                (schema::LogTarget::Stdout, _) => LogTarget::Stdout,
                _ => LogTarget::Stderr,
            },
            lines_max: self.log.lines_max as usize,
        }
    }
}

impl Bans {
    fn options(&self) -> BanOptions {
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        BanOptions {
            failures_max: self.failures_max.to_u32(),
            address_failures_max: self.address_failures_max.to_u32(),
            window_ms: millis(self.window),
            time_ms: millis(self.time),
            time_max_ms: millis(self.time_max),
            connects_max: self.connects_max.to_u32(),
            connects_window_ms: millis(self.connects_window),
            exempt: self.exempt.iter().map(Network::network).collect(),
            entries_max: self.entries_max as usize,
        }
    }
}

impl Listener {
    pub(super) fn display_name(&self) -> String {
        self.name.clone().unwrap_or_else(|| "mqtt".to_owned())
    }

    fn options(&self, limits: &schema::Limits) -> ListenerOptions {
        ListenerOptions {
            name: self.display_name(),
            addresses: self
                .address
                .iter()
                .map(|address| match address {
                    Address::Tcp(address) => ListenAddress::Tcp(*address),
                    Address::Unix(path) => ListenAddress::Unix {
                        path: path.clone(),
                        mode: self.unix_mode.0,
                    },
                })
                .collect(),
            tls: self.tls.as_ref().map(Tls::options),
            websocket: (self.protocol == Protocol::WebSocket).then(|| WebSocketOptions {
                path: self.websocket.path.clone(),
                origins: self.websocket.origins.clone(),
                ping_interval: unless_zero(self.websocket.ping_interval),
                first_message_size_max: WebSocketOptions::first_message_size(limits.connect_bytes_max.to_usize()),
                trusted_proxies: self.websocket.trusted_proxies.iter().map(Network::network).collect(),
                ..WebSocketOptions::default()
            }),
            proxy_protocol: self
                .proxy_protocol
                .as_ref()
                .map(|proxy| proxy.trusted.iter().map(Network::network).collect()),
            connections_max: self.connections_max.to_usize(),
            connections_per_address_max: self
                .connections_per_address_max
                .rate()
                .map(|_| self.connections_per_address_max.to_u32()),
            connect_rate_max: self.connect_rate_max.rate(),
            connect_rate_per_address_max: self.connect_rate_per_address_max.rate(),
            connect_timeout: self.connect_timeout,
            tcp_keepalive: unless_zero(self.tcp_keepalive),
            tcp_user_timeout: unless_zero(self.tcp_user_timeout),
            ..ListenerOptions::default()
        }
    }

    fn rules(&self) -> ListenerRules {
        let version = |version: &schema::Version| match version {
            schema::Version::V31 => Version::V31,
            schema::Version::V311 => Version::V311,
            schema::Version::V5 => Version::V5,
        };
        ListenerRules {
            name: self.display_name(),
            allowed_versions: self.allowed_versions.iter().map(version).collect(),
            accept_empty_client_id_persistent: self.quirks.accept_empty_client_id_persistent,
            maximum_qos: self.maximum_qos.map(qos),
            publish_rate: self.publish_rate(),
            ..ListenerRules::default()
        }
    }

    fn publish_rate(&self) -> Option<PublishRate> {
        let rate = PublishRate {
            messages: self.publish_rate_max.rate(),
            bytes: self.publish_bytes_rate_max.map(|bytes| bytes.0),
            policy: match self.publish_rate_policy {
                schema::RatePolicy::Delay => RatePolicy::Delay,
                schema::RatePolicy::Drop => RatePolicy::Drop,
                schema::RatePolicy::Disconnect => RatePolicy::Disconnect,
            },
        };
        (rate.messages.is_some() || rate.bytes.is_some()).then_some(rate)
    }
}

impl Tls {
    pub(super) fn options(&self) -> TlsOptions {
        let first = CertificateFiles {
            chain: self.certificate.clone(),
            key: self.key.clone(),
        };
        let more = self.certificates.iter().map(|more| CertificateFiles {
            chain: more.certificate.clone(),
            key: more.key.clone(),
        });
        let asks_client = self.client_certificate != schema::ClientCertificate::None;
        TlsOptions {
            certificates: std::iter::once(first).chain(more).collect(),
            client_ca: self.client_ca.clone().filter(|_| asks_client),
            client_certificate_required: self.client_certificate == schema::ClientCertificate::Required,
            client_crl: self.client_crl.clone().filter(|_| asks_client),
            version_min: match self.version_min {
                schema::TlsVersion::V12 => TlsVersion::Tls12,
                schema::TlsVersion::V13 => TlsVersion::Tls13,
            },
            fragment_size_max: self.fragment_bytes_max.map(usize::from),
            alpn: self.alpn,
        }
    }
}

impl Limit {
    /// For a counter of this machine.
    pub fn to_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }

    /// So many a second; `None`: any number.
    fn rate(self) -> Option<u64> {
        (self != Self::UNLIMITED).then_some(self.0)
    }

    /// The same, for a small one.
    fn to_u32(self) -> u32 {
        u32::try_from(self.0).unwrap_or(u32::MAX)
    }
}

impl Bytes {
    /// For a counter of this machine.
    pub fn to_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

fn unless_zero(time: Duration) -> Option<Duration> {
    (!time.is_zero()).then_some(time)
}

/// Keep alive is counted in 16 bits; its range sees to it.
fn whole_seconds(time: Duration) -> u16 {
    u16::try_from(time.as_secs()).unwrap_or(u16::MAX)
}

/// 0 to 2, by its range.
pub(super) fn qos(number: u8) -> QoS {
    QoS::from_bits(number).unwrap_or(QoS::ExactlyOnce)
}

const fn strategy(strategy: schema::Strategy) -> Strategy {
    match strategy {
        schema::Strategy::RoundRobin => Strategy::RoundRobin,
        schema::Strategy::Random => Strategy::Random,
        schema::Strategy::Sticky => Strategy::Sticky,
        schema::Strategy::ByClient => Strategy::ByClient,
        schema::Strategy::ByTopic => Strategy::ByTopic,
        schema::Strategy::LeastInFlight => Strategy::LeastInFlight,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Layers, load};

    /// Two places declare each default, and say the same.
    #[test]
    fn the_defaults_are_those_of_the_layers() {
        let config = load(&Layers::default()).unwrap().config;
        let mut expected = BrokerOptions::default();
        expected.decode.packet_bytes_max = 32 << 20; // a codec of its own has no limit
        expected.decode.topic_separators_max = 199; // 200 levels
        assert_eq!(format!("{:#?}", config.broker_options()), format!("{expected:#?}"));
        let listeners = config.listener_options();
        assert_eq!(
            format!("{:#?}", listeners[0].0),
            format!("{:#?}", ListenerOptions::default())
        );
        let rules = ListenerRules {
            name: "mqtt".into(),
            ..ListenerRules::default()
        };
        assert_eq!(listeners[0].1, rules);
        assert_eq!(
            format!("{:?}", config.log_options()),
            format!("{:?}", LogOptions::default())
        );
        assert!(listeners[0].0.websocket.is_none() && listeners[1].0.websocket.is_some());
    }
}
