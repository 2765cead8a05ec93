//! Metrics: one table of name, kind and help; counters that cost a load and a store.
//!
//! Every worker has a [`Metrics`] of its own and is the only one that writes it, so there is no locked instruction and no cache
//! line that two workers write. Whoever reads adds them up. What to do with the sums ($SYS topics, an exporter) is not known here.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_utils::CachePadded;

use crate::protocol::ids::WorkerId;
use crate::protocol::qos::QoS;

/// One number of one worker.
#[derive(Debug, Default)]
pub struct Metric(AtomicU64);

impl Metric {
    /// Adds one.
    #[inline]
    pub fn increment(&self) {
        self.add(1);
    }

    /// Adds `n`. By the owning worker alone: an addition of somebody else at the same moment would be lost.
    #[inline]
    pub fn add(&self, n: u64) {
        self.0.store(self.get().wrapping_add(n), Ordering::Relaxed);
    }

    /// Takes one off a gauge.
    #[inline]
    pub fn decrement(&self) {
        self.subtract(1);
    }

    /// Takes `n` off a gauge. One worker's share may go below zero where another worker added; the sum is right.
    #[inline]
    pub fn subtract(&self, n: u64) {
        self.0.store(self.get().wrapping_sub(n), Ordering::Relaxed);
    }

    /// Sets a gauge.
    #[inline]
    pub fn set(&self, n: u64) {
        self.0.store(n, Ordering::Relaxed);
    }

    /// The number.
    #[inline]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What a number means over time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Goes up and down, and of several workers the largest counts.
    Peak,
}

impl Kind {
    /// What the numbers of two workers are together.
    fn join(self, one: u64, other: u64) -> u64 {
        match self {
            Self::Counter | Self::Gauge => one.wrapping_add(other),
            Self::Peak => one.max(other),
        }
    }
}

/// One line of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Description {
    /// The family, the same for all lines that differ in their label: `messages_dropped`. In `snake_case` and without a prefix.
    pub name: &'static str,
    /// What distinguishes the lines of a family, as (name, value): `("reason", "expired")`.
    pub label: Option<(&'static str, &'static str)>,
    /// Counter or gauge.
    pub kind: Kind,
    /// One sentence for people, with the unit where it is not a plain number.
    pub help: &'static str,
}

/// The numbers of all workers. The broker owns it; every worker has a reference to its own [`Metrics`].
#[derive(Debug)]
pub struct WorkerMetrics(Box<[Arc<CachePadded<Metrics>>]>);

impl WorkerMetrics {
    /// All zero, for `workers` workers.
    pub fn new(workers: usize) -> Self {
        Self((0..workers.max(1)).map(|_| Arc::default()).collect())
    }

    /// The numbers of one worker; those of the last one for a number that is no worker's.
    pub fn of(&self, worker: WorkerId) -> &Arc<CachePadded<Metrics>> {
        &self.0[worker.index().min(self.0.len() - 1)]
    }

    /// The sums over all workers.
    pub fn sum(&self) -> Totals {
        let mut totals = Totals::default();
        for metrics in &self.0 {
            totals.add(metrics);
        }
        totals
    }
}

impl Metrics {
    /// Counts a PUBLISH that was received.
    #[inline]
    pub fn count_publish_received(&self, qos: QoS, payload_bytes: usize) {
        self.payload_bytes_received.add(payload_bytes as u64);
        match qos {
            QoS::AtMostOnce => self.publish_received_qos0.increment(),
            QoS::AtLeastOnce => self.publish_received_qos1.increment(),
            QoS::ExactlyOnce => self.publish_received_qos2.increment(),
        }
    }

    /// Counts a PUBLISH that was sent.
    #[inline]
    pub fn count_publish_sent(&self, qos: QoS, payload_bytes: usize) {
        self.packets_sent.increment();
        self.payload_bytes_sent.add(payload_bytes as u64);
        match qos {
            QoS::AtMostOnce => self.publish_sent_qos0.increment(),
            QoS::AtLeastOnce => self.publish_sent_qos1.increment(),
            QoS::ExactlyOnce => self.publish_sent_qos2.increment(),
        }
    }
}

macro_rules! metrics {
    ($($(#[doc = $help:literal])+ $field:ident: $kind:ident $name:literal $(, $label:literal = $value:literal)?;)+) => {
        /// The numbers of one worker, written by it alone.
        #[derive(Debug, Default)]
        pub struct Metrics {
            $($(#[doc = $help])+ pub $field: Metric,)+
        }

        /// The sums over all workers at one moment; of what is a [`Kind::Peak`] the largest.
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct Totals {
            $($(#[doc = $help])+ pub $field: u64,)+
        }

        impl Totals {
            fn add(&mut self, metrics: &Metrics) {
                $(self.$field = Kind::$kind.join(self.$field, metrics.$field.get());)+
            }

            /// Every number with its description, in the order of the table: the lines of a family stand together.
            pub fn iter(&self) -> impl Iterator<Item = (&'static Description, u64)> {
                DESCRIPTIONS.iter().zip([$(self.$field),+])
            }
        }

        /// The table.
        pub const DESCRIPTIONS: &[Description] = &[$(Description {
            name: $name,
            label: metrics!(@label $($label = $value)?),
            kind: Kind::$kind,
            help: concat!($($help),+).trim_ascii_start(),
        }),+];
    };
    (@label) => { None };
    (@label $label:literal = $value:literal) => { Some(($label, $value)) };
}

metrics! {
    /// Connections that were accepted on a listener.
    connections_accepted: Counter "connections_accepted";
    /// Connections that completed their handshake.
    connections_opened: Counter "connections_opened";
    /// Connections that were refused with a CONNACK.
    connections_refused: Counter "connections_refused";
    /// Connections that ended before their CONNECT was answered.
    connections_failed: Counter "connections_failed";
    /// Connections that ended after their handshake, for any reason.
    connections_closed: Counter "connections_closed";
    /// Bans that have begun: of an address where too many passwords were wrong.
    bans_address: Counter "bans", "of" = "address";
    /// Bans that have begun: of a user name at an address where too many passwords were wrong.
    bans_user: Counter "bans", "of" = "user";
    /// Bans that have begun: of a client that came too often.
    bans_client: Counter "bans", "of" = "client";
    /// Connections of the banned: closed when they were accepted.
    banned_accept: Counter "banned_refused", "at" = "accept";
    /// Connections of the banned: refused with a CONNACK.
    banned_connect: Counter "banned_refused", "at" = "connect";
    /// Connections that were closed because the client broke the protocol.
    connections_violations: Counter "connections_violations";
    /// Connections that were closed because the client was silent for too long.
    connections_keep_alive: Counter "connections_keep_alive_timeouts";
    /// Connections with a completed handshake now.
    connections: Gauge "connections";

    /// Connections that have been silent for a while, and have given up their task until there is something to do for them.
    connections_parked: Gauge "connections_parked";

    /// Questions about clients that another program has answered.
    backend_answered: Counter "backend_questions", "result" = "answered";
    /// Questions about clients that another program has not answered in time, or not in a way that is understood.
    backend_failed: Counter "backend_questions", "result" = "failed";

    /// Sessions that were created.
    sessions_created: Counter "sessions_created";
    /// Sessions that a client came back to.
    sessions_resumed: Counter "sessions_resumed";
    /// Connections that took over a session from another connection.
    sessions_taken_over: Counter "sessions_taken_over";
    /// Sessions that ended because their client stayed away for too long.
    sessions_expired: Counter "sessions_expired";
    /// Sessions now, with a connection or without.
    sessions: Gauge "sessions";

    /// Bytes read from connections.
    bytes_received: Counter "bytes_received";
    /// Bytes written to connections.
    bytes_sent: Counter "bytes_sent";
    /// Packets of all types that were received.
    packets_received: Counter "packets_received";
    /// Packets of all types that were sent.
    packets_sent: Counter "packets_sent";

    /// PUBLISH packets that were received, repeated ones included.
    publish_received_qos0: Counter "publish_received", "qos" = "0";
    /// PUBLISH packets that were received, repeated ones included.
    publish_received_qos1: Counter "publish_received", "qos" = "1";
    /// PUBLISH packets that were received, repeated ones included.
    publish_received_qos2: Counter "publish_received", "qos" = "2";
    /// PUBLISH packets that were sent, repeated ones included.
    publish_sent_qos0: Counter "publish_sent", "qos" = "0";
    /// PUBLISH packets that were sent, repeated ones included.
    publish_sent_qos1: Counter "publish_sent", "qos" = "1";
    /// PUBLISH packets that were sent, repeated ones included.
    publish_sent_qos2: Counter "publish_sent", "qos" = "2";
    /// Bytes of payload that were received.
    payload_bytes_received: Counter "payload_bytes_received";
    /// Bytes of payload that were sent.
    payload_bytes_sent: Counter "payload_bytes_sent";
    /// PUBLISH packets that were sent again after a reconnect.
    publish_repeated: Counter "publish_repeated";
    /// PUBLISH packets that arrived with a topic alias in place of a topic.
    topic_aliases_received: Counter "topic_aliases_used", "direction" = "received";
    /// PUBLISH packets that left with a topic alias in place of a topic.
    topic_aliases_sent: Counter "topic_aliases_used", "direction" = "sent";

    /// Messages or deliveries that reached nobody: QoS 0 that found the queue full.
    dropped_queue_full_qos0: Counter "messages_dropped", "reason" = "queue_full_qos0";
    /// Messages or deliveries that reached nobody: QoS 1 or 2 that found the queue full.
    dropped_queue_full_qos1_2: Counter "messages_dropped", "reason" = "queue_full_qos1_2";
    /// Messages or deliveries that reached nobody: QoS 0 that would have waited while memory is short.
    dropped_memory_qos0: Counter "messages_dropped", "reason" = "memory_qos0";
    /// Messages or deliveries that reached nobody: expired while they waited.
    dropped_expired: Counter "messages_dropped", "reason" = "expired";
    /// Messages or deliveries that reached nobody: larger than the client accepts.
    dropped_too_large: Counter "messages_dropped", "reason" = "too_large";
    /// Messages or deliveries that reached nobody: no subscription matched.
    dropped_no_subscriber: Counter "messages_dropped", "reason" = "no_subscriber";
    /// Messages or deliveries that reached nobody: the publisher was not authorised.
    dropped_not_authorized: Counter "messages_dropped", "reason" = "not_authorized";
    /// Messages or deliveries that reached nobody: the subscriber may no longer read the topic.
    dropped_not_readable: Counter "messages_dropped", "reason" = "not_readable";
    /// Messages or deliveries that reached nobody: the publisher of a retained message may no longer publish it.
    dropped_source_not_authorized: Counter "messages_dropped", "reason" = "source_not_authorized";
    /// Messages or deliveries that reached nobody: QoS 0 for a client that is not connected.
    dropped_offline_qos0: Counter "messages_dropped", "reason" = "offline_qos0";
    /// Messages or deliveries that reached nobody: the session ended while they waited.
    dropped_session_ended: Counter "messages_dropped", "reason" = "session_ended";
    /// Messages or deliveries that reached nobody: the store could not read them any more.
    dropped_unreadable: Counter "messages_dropped", "reason" = "unreadable";
    /// Messages or deliveries that reached nobody: the client answered with an error.
    dropped_rejected: Counter "messages_dropped", "reason" = "rejected";
    /// Messages or deliveries that reached nobody: QoS 0 of a publisher that was faster than it may be.
    dropped_rate: Counter "messages_dropped", "reason" = "publish_rate";
    /// Messages that were refused to their publisher because no receiver could take them.
    publish_refused: Counter "publish_refused";

    /// Deliveries that wait in the queues of sessions.
    queued_messages: Gauge "queued_messages";
    /// Bytes of the deliveries that wait in the queues of sessions.
    queued_bytes: Gauge "queued_bytes";
    /// Of the deliveries that wait, those whose content is in the store only.
    queued_stored: Gauge "queued_stored_messages";
    /// Bytes of the deliveries that wait and whose content is in memory.
    queued_memory_bytes: Gauge "queued_memory_bytes";
    /// Deliveries that were sent with QoS 1 or 2 and are not acknowledged.
    in_flight_messages: Gauge "in_flight_messages";

    /// Subscriptions now, shared ones not counted.
    subscriptions: Gauge "subscriptions";
    /// Shared subscriptions now: members of all groups.
    shared_subscriptions: Gauge "shared_subscriptions";
    /// SUBSCRIBE packets that were received.
    subscribe_received: Counter "subscribe_received";
    /// UNSUBSCRIBE packets that were received.
    unsubscribe_received: Counter "unsubscribe_received";
    /// Filters that were refused to a subscriber.
    subscriptions_refused: Counter "subscriptions_refused";
    /// Kept subscriptions that whoever decides did not allow any more when they were looked at again.
    subscriptions_withheld: Counter "subscriptions_withheld";

    /// Retained messages.
    retained_messages: Gauge "retained_messages";
    /// Bytes of retained messages with their bookkeeping.
    retained_bytes: Gauge "retained_bytes";
    /// Retained messages that were sent for a new subscription.
    retained_sent: Counter "retained_sent";
    /// Retained messages that expired.
    retained_expired: Counter "retained_expired";

    /// Wills that wait for their delay.
    wills_pending: Gauge "wills_pending";
    /// Wills that were published.
    wills_published: Counter "wills_published";

    /// Topics whose receivers were in the match cache.
    match_cache_hits: Counter "match_cache_lookups", "result" = "hit";
    /// Topics whose receivers were looked up in the trie.
    match_cache_misses: Counter "match_cache_lookups", "result" = "miss";

    /// Batches of mail from one worker to another.
    mailbox_batches: Counter "mailbox_batches";
    /// Mails from one worker to another.
    mailbox_mails: Counter "mailbox_mails";
    /// Sleeping workers that were woken by mail.
    mailbox_wakes: Counter "mailbox_wakes";
    /// Microseconds in which workers were at work.
    busy_micros: Counter "worker_busy_microseconds";
    /// Times a worker looked how late its loop runs: ten times a second while it is busy, twice while it is not.
    lag_samples: Counter "worker_lag_samples";
    /// Microseconds by which it was late, all told.
    lag_micros: Counter "worker_lag_microseconds";
    /// The most by which one was late within the last 10 to 20 seconds, microseconds.
    lag_peak_micros: Peak "worker_lag_peak_microseconds";
    /// Bytes of memory that the process uses, if it has a budget.
    memory_bytes: Peak "memory_bytes";
    /// What could not be kept because memory is used up: messages at QoS 1 and 2, sessions, subscriptions.
    refused_memory: Counter "memory_refused";
    /// Times a publisher was paused because its receivers were slow.
    publishers_paused: Counter "publishers_paused";

    /// Times a limit was reached: connections of a listener or of the broker.
    limit_connections: Counter "limits_reached", "limit" = "connections";
    /// Times a limit was reached: connections or CONNECT packets in a time.
    limit_connect_rate: Counter "limits_reached", "limit" = "connect_rate";
    /// Times a limit was reached: time for TLS handshake and CONNECT.
    limit_connect_time: Counter "limits_reached", "limit" = "connect_time";
    /// Times a limit was reached: size of a received packet.
    limit_packet_size: Counter "limits_reached", "limit" = "packet_size";
    /// Times a limit was reached: size of a will.
    limit_will_bytes: Counter "limits_reached", "limit" = "will_bytes";
    /// Times a limit was reached: length of a client id.
    limit_client_id_bytes: Counter "limits_reached", "limit" = "client_id_bytes";
    /// Times a limit was reached: length of a token.
    limit_token_bytes: Counter "limits_reached", "limit" = "token_bytes";
    /// Times a limit was reached: wills that wait for their delay; one more was published at once.
    limit_pending_wills: Counter "limits_reached", "limit" = "pending_wills";
    /// Times a limit was reached: unacknowledged messages of a client (Receive Maximum).
    limit_receive_maximum: Counter "limits_reached", "limit" = "receive_maximum";
    /// Times a limit was reached: topic aliases of a client.
    limit_topic_aliases: Counter "limits_reached", "limit" = "topic_aliases";
    /// Times a limit was reached: levels of a topic or filter.
    limit_topic_levels: Counter "limits_reached", "limit" = "topic_levels";
    /// Times a limit was reached: length of a topic or filter.
    limit_topic_bytes: Counter "limits_reached", "limit" = "topic_bytes";
    /// Times a limit was reached: user properties in one packet.
    limit_user_properties: Counter "limits_reached", "limit" = "user_properties";
    /// Times a limit was reached: bytes of unfinished packets of clients that have not entered.
    limit_unauthenticated_bytes: Counter "limits_reached", "limit" = "unauthenticated_bytes";
    /// Times a limit was reached: messages in the queue of a session.
    limit_queue_messages: Counter "limits_reached", "limit" = "queue_messages";
    /// Times a limit was reached: bytes in the queue of a session.
    limit_queue_bytes: Counter "limits_reached", "limit" = "queue_bytes";
    /// Times a limit was reached: bytes of QoS 2 messages that a client has not released.
    limit_unreleased_bytes: Counter "limits_reached", "limit" = "unreleased_bytes";
    /// Times a limit was reached: passwords that wait to be checked.
    limit_password_checks: Counter "limits_reached", "limit" = "password_checks";
    /// Questions about clients that could not be asked of another program, because too many waited.
    limit_backend_waiting: Counter "limits_reached", "limit" = "backend_waiting";
    /// Clients that were refused because too many tokens waited to be checked.
    limit_token_checks: Counter "limits_reached", "limit" = "token_checks";
    /// Times a limit was reached: sessions.
    limit_sessions: Counter "limits_reached", "limit" = "sessions";
    /// Times a limit was reached: connections, sessions, subscriptions or retained messages of one tenant.
    limit_tenants: Counter "limits_reached", "limit" = "tenants";
    /// Times a limit was reached: subscriptions of a session.
    limit_subscriptions: Counter "limits_reached", "limit" = "subscriptions";
    /// Times a limit was reached: retained messages.
    limit_retained_messages: Counter "limits_reached", "limit" = "retained_messages";
    /// Times a limit was reached: bytes of retained messages.
    limit_retained_bytes: Counter "limits_reached", "limit" = "retained_bytes";
    /// Times a limit was reached: messages of a client in a time.
    limit_publish_rate: Counter "limits_reached", "limit" = "publish_rate";
    /// Times a limit was reached: memory, nearly used up or all.
    limit_memory: Counter "limits_reached", "limit" = "memory";
    /// Times a limit was reached: bytes that wait to be written to a connection.
    limit_output_bytes: Counter "limits_reached", "limit" = "output_bytes";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_over_workers_counts_every_one_and_bears_a_gauge_that_moves() {
        let metrics = WorkerMetrics::new(3);
        metrics.of(WorkerId(0)).connections.increment();
        metrics.of(WorkerId(2)).connections.add(2);
        metrics.of(WorkerId(1)).connections.decrement();
        metrics.of(WorkerId(1)).bytes_sent.add(7);
        let totals = metrics.sum();
        assert_eq!((totals.connections, totals.bytes_sent, totals.sessions), (2, 7, 0));
        metrics.of(WorkerId(0)).lag_peak_micros.set(7);
        metrics.of(WorkerId(1)).lag_peak_micros.set(5);
        assert_eq!(metrics.sum().lag_peak_micros, 7, "two workers are not late by the sum");
        let named = |name: &str| totals.iter().find(|(about, _)| about.name == name).unwrap();
        assert_eq!(named("connections").1, 2);
        assert_eq!(
            named("connections").0.help,
            "Connections with a completed handshake now."
        );
    }

    #[test]
    fn no_line_stands_twice_and_the_lines_of_a_family_stand_together_and_agree() {
        let mut seen = std::collections::BTreeSet::new();
        for pair in DESCRIPTIONS.windows(2) {
            let (before, here) = (&pair[0], &pair[1]);
            assert!(seen.insert((before.name, before.label)), "{before:?} stands twice");
            if before.name == here.name {
                assert_eq!(before.kind, here.kind);
                assert_eq!(before.label.map(|label| label.0), here.label.map(|label| label.0));
            } else {
                assert!(
                    !seen.iter().any(|(name, _)| *name == here.name),
                    "{here:?} stands apart"
                );
            }
        }
    }
}
