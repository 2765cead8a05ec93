//! A subscriber: subscribes, acknowledges, and enters every message into the account. Knows no socket and reads no clock.

use std::sync::{MutexGuard, PoisonError};

use hdrhistogram::Histogram;

use super::account::{Account, Arrival, Order};
use super::link::Failure;
use super::shared::{Counters, Shared, add};
use super::stamp::Stamp;
use crate::codec::{self, write_ack};
use crate::protocol::ids::PacketId;
use crate::protocol::packet::{Packet, PacketType, Publish, Subscribe, SubscriptionOptions};
use crate::protocol::property::Properties;
use crate::protocol::qos::QoS;
use crate::protocol::reason::ReasonCode;
use crate::protocol::topic::TopicFilter;

/// Filters in one SUBSCRIBE.
const FILTERS_PER_PACKET: usize = 100;

/// One subscriber.
#[derive(Debug)]
pub(super) struct Subscriber {
    index: usize,
    /// Filters that were asked for.
    asked: usize,
    /// Filters that were granted.
    granted: usize,
    pub(super) order: Order,
}

/// Messages with one stamp time of one publisher, one behind the other: they count together.
#[derive(Clone, Copy, Debug, Default)]
struct Batch {
    publisher: u32,
    time: u64,
    count: u64,
}

/// One read of one subscriber.
#[derive(Debug)]
pub(super) struct Reading<'a> {
    shared: &'a Shared,
    counters: &'a Counters,
    latency: &'a mut Histogram<u64>,
    now: u64,
    account: Option<MutexGuard<'a, Account>>,
    batch: Batch,
    delivered: u64,
}

impl<'a> Reading<'a> {
    /// Before the first packet of a read.
    pub(super) const fn new(shared: &'a Shared, counters: &'a Counters, latency: &'a mut Histogram<u64>) -> Self {
        Self {
            shared,
            counters,
            latency,
            now: 0,
            account: None,
            batch: Batch {
                publisher: 0,
                time: 0,
                count: 0,
            },
            delivered: 0,
        }
    }

    /// Behind the last.
    pub(super) fn end(mut self) {
        self.end_batch();
        if self.delivered > 0 {
            add(&self.counters.delivered, self.delivered);
        }
    }

    #[inline]
    fn deliver(&mut self, stamp: &Stamp) {
        self.delivered += 1;
        if stamp.publisher == self.batch.publisher && stamp.time == self.batch.time {
            self.batch.count += 1;
            return;
        }
        self.end_batch();
        self.batch = Batch {
            publisher: stamp.publisher,
            time: stamp.time,
            count: 1,
        };
    }

    fn end_batch(&mut self) {
        let Batch { publisher, time, count } = self.batch;
        if count == 0 {
            return;
        }
        self.batch.count = 0;
        if self.shared.is_measured(time) {
            self.latency.saturating_record_n(self.now.saturating_sub(time), count);
        }
        if let Some(cell) = self.shared.publishers.get(publisher as usize) {
            cell.deliver(count);
        }
    }
}

impl Subscriber {
    /// A subscriber that has not yet asked for anything.
    pub(super) fn new(index: usize, shared: &Shared) -> Self {
        let audience = shared.plan.subscribers[index].audience;
        Self {
            index,
            asked: 0,
            granted: 0,
            order: Order::new(shared.plan.audiences[audience].len()),
        }
    }

    /// Appends the next SUBSCRIBE, if there are filters left.
    pub(super) fn subscribe(&mut self, shared: &Shared, out: &mut Vec<u8>) -> Result<(), Failure> {
        let filters = &shared.plan.subscribers[self.index].filters;
        let next = &filters[self.asked..filters.len().min(self.asked + FILTERS_PER_PACKET)];
        if next.is_empty() {
            return Ok(());
        }
        let options = SubscriptionOptions {
            qos: shared.workload.sub_qos,
            ..SubscriptionOptions::default()
        };
        self.asked += next.len();
        let packet = Packet::Subscribe(Subscribe {
            packet_id: PacketId::FIRST, // one at a time
            properties: Properties::EMPTY,
            filters: next
                .iter()
                .filter_map(|filter| Some((TopicFilter::parse(filter).ok()?, options)))
                .collect(),
        });
        codec::encode(&packet, shared.workload.version, out)?;
        Ok(())
    }

    /// Every filter is granted.
    pub(super) fn is_subscribed(&self, shared: &Shared) -> bool {
        self.granted == shared.plan.subscribers[self.index].filters.len()
    }

    /// Takes a packet and answers it into `out`.
    #[inline]
    pub(super) fn receive<'a>(
        &mut self,
        packet: &Packet<'_>,
        reading: &mut Reading<'a>,
        out: &mut Vec<u8>,
    ) -> Result<(), Failure> {
        let version = reading.shared.workload.version;
        match packet {
            Packet::Publish(publish) => {
                if let Some(id) = publish.packet_id {
                    let answer = match publish.qos {
                        QoS::ExactlyOnce => PacketType::PubRec,
                        _ => PacketType::PubAck,
                    };
                    write_ack(answer, id, ReasonCode::Success, version, out);
                }
                self.take(publish, reading);
            }
            Packet::PubRel(release) => {
                write_ack(
                    PacketType::PubComp,
                    release.packet_id,
                    ReasonCode::Success,
                    version,
                    out,
                );
            }
            Packet::SubAck(ack) => {
                if let Some(reason) = ack.reasons.iter().find(|reason| reason.is_error()) {
                    return Err(Failure::SubscriptionRefused(*reason));
                }
                self.granted += ack.reasons.len();
                add(&reading.counters.subscribed, ack.reasons.len() as u64);
                self.subscribe(reading.shared, out)?;
            }
            other => return Err(Failure::Unexpected(other.packet_type().name())),
        }
        Ok(())
    }

    #[inline]
    fn take<'a>(&mut self, publish: &Publish<'_>, reading: &mut Reading<'a>) {
        let shared: &'a Shared = reading.shared;
        let audience = shared.plan.subscribers[self.index].audience;
        if reading.account.is_none() {
            reading.now = shared.now();
            // A thread that panicked ends the run; what it counted is of no use then.
            let account = shared.accounts[audience].lock().unwrap_or_else(PoisonError::into_inner);
            reading.account = Some(account);
        }
        let Some(account) = reading.account.as_deref_mut() else {
            return; // it was set above
        };
        let first = shared.plan.audiences[audience].start;
        let Some(stamp) = Stamp::read(publish.payload).filter(|stamp| stamp.run == shared.run) else {
            account.strays += 1;
            return;
        };
        let publisher = stamp.publisher.wrapping_sub(first);
        match account.take(publisher, stamp.sequence) {
            Arrival::New => {
                self.order.take(publisher, stamp.sequence);
                reading.deliver(&stamp);
            }
            Arrival::Repeated | Arrival::Stray => {}
        }
    }
}
