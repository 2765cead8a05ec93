//! What strangers may hold, and the counters of limits that the codec sees to.

use hashbrown::HashMap;

use super::endings::Ending;
use super::worker::Worker;
use crate::codec::ErrorKind;
use crate::metrics::Metrics;
use crate::protocol::ids::{ConnectionKey, SlotKey};
use crate::protocol::reason::ReasonCode;
use crate::protocol::time::Time;
use crate::session::connection::Phase;

/// Less is not worth counting: it is about what a connection costs anyway.
const COUNTED_BYTES_MIN: usize = 1024;
/// How often, at most, those are looked for that are no strangers any more, milliseconds.
const SWEEP_MS: u64 = 100;

/// Bytes of clients of a worker that have not entered: of unfinished packets, and of the CONNECT of those that are asked for more proof.
#[derive(Debug)]
pub(super) struct Strangers {
    held: HashMap<SlotKey, usize, foldhash::fast::RandomState>,
    bytes: usize,
    bytes_max: usize,
    swept: Time,
}

impl Strangers {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self {
            held: HashMap::default(),
            bytes: 0,
            bytes_max,
            swept: Time(0),
        }
    }
}

impl Strangers {
    /// It is decided about a client.
    pub(super) fn forget(&mut self, key: ConnectionKey) {
        if !self.held.is_empty() {
            self.bytes -= self.held.remove(&key.0).unwrap_or(0);
        }
    }
}

impl Worker {
    /// Of what a client has sent that has not entered, so many bytes wait, beside the CONNECT that is kept while it is authenticated. If that is too much for all of them, it goes: those whose CONNECT
    /// comes in one piece hold nothing, so whoever floods us keeps none of them out. False where it goes: what it has sent is of no use.
    #[cold]
    pub(super) fn may_hold(&mut self, key: ConnectionKey, bytes: usize, now: Time) -> bool {
        let connection = self.residents.connections.get(key.0);
        let bytes = match connection.map(|connection| &connection.phase) {
            Some(Phase::Authenticating(request)) => bytes + request.cost_bytes(),
            _ => bytes,
        };
        let before = if bytes < COUNTED_BYTES_MIN {
            self.strangers.held.remove(&key.0)
        } else {
            self.strangers.bytes += bytes;
            self.strangers.held.insert(key.0, bytes)
        };
        self.strangers.bytes -= before.unwrap_or(0);
        if self.strangers.bytes <= self.strangers.bytes_max {
            return true;
        }
        if now.millis_since(self.strangers.swept) >= SWEEP_MS {
            let connections = &self.residents.connections;
            let is_stranger = |key: &SlotKey| {
                connections
                    .get(*key)
                    .is_some_and(|it| !matches!(it.phase, Phase::Connected | Phase::Closing))
            };
            self.strangers.held.retain(|key, _| is_stranger(key));
            self.strangers.bytes = self.strangers.held.values().sum();
            self.strangers.swept = now;
        }
        let is_too_much = self.strangers.bytes > self.strangers.bytes_max;
        if is_too_much {
            self.strangers.forget(key);
            self.metrics().limit_unauthenticated_bytes.increment();
            let ending = Ending::Refused(ReasonCode::ServerBusy, "limits.unauthenticated_bytes_max");
            self.end_connection(key, ending, now);
        }
        !is_too_much
    }
}

/// Counts a packet that was over a limit.
pub(super) fn count_limit(metrics: &Metrics, fault: ErrorKind) {
    match fault {
        ErrorKind::PacketTooLarge { .. } => metrics.limit_packet_size.increment(),
        ErrorKind::TopicSeparators => metrics.limit_topic_levels.increment(),
        ErrorKind::TopicTooLong => metrics.limit_topic_bytes.increment(),
        ErrorKind::TooManyUserProperties => metrics.limit_user_properties.increment(),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::worker::Status;
    use crate::broker::{Broker, BrokerOptions, Parts};
    use crate::protocol::ids::WorkerId;
    use crate::session::peer::tests::peer;

    const NOW: Time = Time(1_000_000);

    fn worker(set: impl FnOnce(&mut BrokerOptions)) -> Worker {
        let mut options = BrokerOptions::default();
        set(&mut options);
        Worker::new(Broker::new(options, 1, Parts::default()), WorkerId(0), NOW)
    }

    fn open(worker: &mut Worker) -> ConnectionKey {
        worker.open(peer(), NOW.plus_secs(10), NOW)
    }

    /// The beginning of a CONNECT of 100,000 bytes.
    fn beginning(bytes: usize) -> Vec<u8> {
        let mut packet = b"\x10\xa0\x8d\x06\x00\x04MQTT\x04\x02\x00\x00\xff\xff".to_vec();
        packet.resize(bytes, b'x');
        packet
    }

    /// Whatever else is done about it.
    #[test]
    fn every_limit_of_a_client_is_counted_when_it_is_reached() {
        let mut worker = worker(|options| {
            (options.client_id_bytes_max, options.will_bytes_max) = (1, 1);
            options.delivery.outbox.messages_max = 1;
            options.delivery.in_flight_max = 1;
        });
        let long_id = open(&mut worker);
        worker.receive(long_id, b"\x10\x0f\x00\x04MQTT\x05\x02\x00\x00\x00\x00\x02cd", NOW);
        let large_will = open(&mut worker);
        let connect = b"\x10\x16\x00\x04MQTT\x05\x06\x00\x3c\x00\x00\x01c\x00\x00\x01w\x00\x02xy";
        worker.receive(large_will, connect, NOW);
        let aliased = open(&mut worker);
        let connect = b"\x10\x0e\x00\x04MQTT\x05\x02\x00\x00\x00\x00\x01c";
        worker.receive(aliased, connect, NOW);
        worker.receive(aliased, b"\x30\x08\x00\x01t\x03\x23\x03\xe8x", NOW);
        let _silent = open(&mut worker);
        worker.expire(NOW.plus_secs(10));
        // One message is under way and not acknowledged, one waits: that is full.
        let subscriber = open(&mut worker);
        let subscribe = b"\x82\x07\x00\x01\x00\x00\x01t\x01";
        worker.receive(subscriber, &[&connect[..], subscribe].concat(), NOW);
        worker.receive(subscriber, &b"\x32\x07\x00\x01t\x00\x01\x00x".repeat(2), NOW);
        let metrics = worker.metrics();
        let counted = [
            &metrics.limit_client_id_bytes,
            &metrics.limit_will_bytes,
            &metrics.limit_topic_aliases,
            &metrics.limit_connect_time,
            &metrics.limit_queue_messages,
        ];
        assert_eq!(counted.map(|metric| metric.get()), [1; 5]);
    }

    #[test]
    fn what_strangers_hold_together_is_bounded_and_clients_that_hold_nothing_enter() {
        let mut worker = worker(|options| options.unauthenticated_bytes_max = 1 << 20);
        let part = beginning(32 << 10);
        let keys: Vec<_> = (0..100).map(|_| open(&mut worker)).collect();
        for key in &keys {
            worker.receive(*key, &part, NOW.plus_secs(1));
        }
        let open_still = |worker: &Worker| keys.iter().filter(|key| worker.status(**key) == Status::Open).count();
        assert_eq!(open_still(&worker), 32);
        assert_eq!(worker.metrics().limit_unauthenticated_bytes.get(), 68);
        let client = open(&mut worker);
        worker.receive(
            client,
            b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x00\x00\x01c",
            NOW.plus_secs(1),
        );
        assert_eq!(worker.status(client), Status::Open);
        // Those who are gone have left their room to others.
        keys.iter().for_each(|key| worker.lost(*key, "gone", NOW.plus_secs(2)));
        for _ in 0..32 {
            let key = open(&mut worker);
            worker.receive(key, &part, NOW.plus_secs(2));
            assert_eq!(worker.status(key), Status::Open);
        }
    }

    #[test]
    fn a_stranger_may_send_less_at_once_than_a_client() {
        let mut worker = worker(|options| options.connect_bytes_max = 2000);
        let key = open(&mut worker);
        worker.receive(key, &beginning(20), NOW);
        assert_eq!(worker.status(key), Status::Closing, "before it has sent it");
        assert_eq!(worker.metrics().limit_packet_size.get(), 1);
        let client = open(&mut worker);
        worker.receive(client, b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x00\x00\x01c", NOW);
        let mut publish = b"\x30\xb8\x17\x00\x01t".to_vec();
        publish.resize(3 + 3000, b'x');
        assert_eq!(worker.receive(client, &publish, NOW), publish.len());
        assert_eq!(worker.status(client), Status::Open);
    }
}
