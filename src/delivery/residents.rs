//! The sessions and connections of one worker, and the way from a session's queue to its connection's output.

use std::collections::VecDeque;
use std::sync::Arc;

use crossbeam_utils::CachePadded;
use tracing::{info, warn};

use super::buffers::Buffers;
use super::congestion::{Congestion, tell_status};
use super::memory::MemoryState;
use super::outbox::{Offered, Outbox, OutboxOptions};
use super::paging::Paging;
use super::receive::ReceiveCheck;
use super::retained_walk::RetainedWalk;
use super::slots::Slots;
use super::source_check::SourceCheck;
use super::stored::{self, HeldConnections, hold, may_write};
use super::written::{encoded_len, write_delivery};
use crate::metrics::Metrics;
use crate::protocol::ids::{ConnectionKey, PacketId, SlotKey, Ticket};
use crate::protocol::packet::PacketType;
use crate::protocol::qos::QoS;
use crate::protocol::reason::ReasonCode;
use crate::protocol::time::Time;
use crate::session::connection::{Connection, Phase};
use crate::session::delivery::{Delivery, DeliveryKey};
use crate::session::held::{Reply, Waiting};
use crate::session::outbound::Resend;
use crate::session::rare::Rare;
use crate::session::state::Session;
use crate::storage::Journal;

/// How deliveries are queued and sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeliveryOptions {
    /// Bounds and policy of each session's outbox.
    pub outbox: OutboxOptions,
    /// Bytes of deliveries of one session whose content waits in memory, above which it is left in the store, if that has it; default 4 MiB.
    pub memory_bytes_max: usize,
    /// The same for all sessions together, and for a worker its share of it; default 256 MiB.
    pub memory_total_max: usize,
    /// Bytes given to a connection and not taken by its socket, above which deliveries wait in the outbox. Default 1 MiB: what a
    /// client that does not read can cost beside its outbox.
    pub output_bytes_max: usize,
    /// QoS 1 and 2 deliveries in flight to one client at most, whatever it allows; default 1,024.
    pub in_flight_max: u16,
}

impl Default for DeliveryOptions {
    fn default() -> Self {
        Self {
            outbox: OutboxOptions::default(),
            memory_bytes_max: 4 << 20,
            memory_total_max: 256 << 20,
            output_bytes_max: 1 << 20,
            in_flight_max: 1024,
        }
    }
}

/// A session that lives on this worker.
#[derive(Debug)]
pub struct Resident {
    /// The session.
    pub session: Session,
    /// What waits for it.
    pub outbox: Rare<Outbox>,
    /// The connection that has borrowed it.
    pub connection: Option<ConnectionKey>,
    /// Since when, and behind which delivery, the full window has held up others.
    pub stalled: Option<(Time, PacketId)>,
    /// A look at `stalled` is armed.
    pub is_watched: bool,
    /// Its walk is in line for another turn.
    pub is_walking: bool,
    /// Retained messages that new subscriptions are still to get, see `broker/replay`.
    pub walks: Rare<VecDeque<RetainedWalk>>,
}

impl Resident {
    /// A session without connection, and nothing waiting for it.
    pub fn new(session: Session) -> Self {
        Self {
            session,
            outbox: Rare::default(),
            connection: None,
            stalled: None,
            is_watched: false,
            is_walking: false,
            walks: Rare::default(),
        }
    }
}

/// What left when [`Residents::release_held`] let it, as far as something may follow it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Released {
    /// Nothing, or what nothing follows.
    Other,
    /// An answer like SUBACK, behind which retained messages go.
    Answer,
    /// CONNACK, behind which everything goes.
    ConnAck,
}

/// All sessions and connections of a worker.
#[derive(Debug)]
pub struct Residents {
    /// Sessions, with or without connection.
    pub sessions: Slots<Resident>,
    /// Connections, with or without session.
    pub connections: Slots<Connection>,
    /// Connections whose output has grown or that are to be closed, each once, in order.
    pub touched: Vec<ConnectionKey>,
    /// Sessions whose window has become full with more waiting: to be looked at after [`STALL_MS`].
    pub stalled: Vec<SlotKey>,
    /// Sessions whose policy wants them disconnected.
    pub overflowed: Vec<SlotKey>,
    /// What a session was to get as a member of a shared group, and its client may not receive any more: for others of the group.
    pub strays: Vec<(SlotKey, Delivery)>,
    /// Counters of this worker.
    pub metrics: Arc<CachePadded<Metrics>>,
    /// Options.
    pub options: DeliveryOptions,
    /// Whether what is delivered may be received.
    pub receive: ReceiveCheck,
    /// Whether what is retained may still be delivered.
    pub sources: SourceCheck,
    /// What is to survive goes here.
    pub journal: Journal,
    /// Connections with packets that wait for the store, in the order of their batches.
    pub held: HeldConnections,
    /// Where the contents of waiting deliveries are.
    pub paging: Paging,
    /// Whose queues are so long that publishers should wait.
    pub congestion: Congestion,
    /// Spare output buffers.
    pub buffers: Buffers,
    /// What was dropped for a delivery that is being queued.
    lost: Vec<DeliveryKey>,
}

/// How long a full window may hold up others before the log says so, milliseconds.
pub const STALL_MS: u64 = 30_000;

impl Residents {
    /// An empty worker.
    pub fn new(
        options: DeliveryOptions,
        receive: ReceiveCheck,
        sources: SourceCheck,
        journal: Journal,
        metrics: Arc<CachePadded<Metrics>>,
    ) -> Self {
        Self {
            sessions: Slots::default(),
            connections: Slots::default(),
            touched: Vec::new(),
            stalled: Vec::new(),
            overflowed: Vec::new(),
            strays: Vec::new(),
            metrics,
            options,
            receive,
            sources,
            journal,
            held: HeldConnections::new(),
            paging: Paging::default(),
            congestion: Congestion::default(),
            buffers: Buffers::default(),
            lost: Vec::new(),
        }
    }

    /// Notes that a connection has something to send, and sees to it that it has a buffer.
    #[inline]
    pub fn touch(&mut self, key: ConnectionKey) {
        if let Some(connection) = self.connections.get_mut(key.0) {
            touch(key, connection, &mut self.touched, &mut self.buffers);
        }
    }

    /// Takes back the buffer of a connection that has sent everything.
    pub fn reclaim_buffer(&mut self, key: ConnectionKey) {
        if let Some(connection) = self.connections.get_mut(key.0)
            && let Some(buffer) = connection.output.reclaim()
        {
            self.buffers.give(buffer);
        }
    }

    /// A connection and the session it has borrowed.
    pub fn pair(&mut self, key: ConnectionKey) -> Option<(&mut Connection, &mut Resident)> {
        let (connection, resident, _) = self.pair_and_journal(key)?;
        Some((connection, resident))
    }

    /// A connection, the session it has borrowed, and where what becomes of it is recorded.
    #[inline]
    pub fn pair_and_journal(&mut self, key: ConnectionKey) -> Option<(&mut Connection, &mut Resident, &mut Journal)> {
        let connection = self.connections.get_mut(key.0)?;
        let resident = self.sessions.get_mut(connection.session?)?;
        Some((connection, resident, &mut self.journal))
    }

    /// Puts a delivery into a session's outbox; logs and counts by policy. `is_promised` where its publisher has been told that it
    /// arrives, see [`Outbox::offer_promised`].
    pub fn enqueue(&mut self, key: SlotKey, delivery: Delivery, is_promised: bool, now: Time) -> Offered {
        let Some(resident) = self.sessions.get_mut(key) else {
            return Offered::Refused;
        };
        let qos = delivery.qos;
        if self.options.outbox.memory != MemoryState::Ample && !qos.is_acknowledged() {
            self.metrics.dropped_memory_qos0.increment();
            return Offered::Dropped; // first of all
        }
        let topic_of = Arc::clone(&delivery.message);
        let lost_keys = &mut self.lost;
        if resident.outbox.is_over(&delivery, &self.options.outbox) {
            let expired = resident.outbox.drop_expired(now, lost_keys);
            self.metrics.dropped_expired.add(expired);
        }
        let was_full = resident.session.status.is_full();
        let offered = if is_promised {
            resident
                .outbox
                .offer_promised(delivery, &self.options.outbox, lost_keys)
        } else {
            resident.outbox.offer(delivery, &self.options.outbox, lost_keys)
        };
        for key in lost_keys.drain(..) {
            stored::ended_key(&mut self.journal, &resident.session, Some(key));
        }
        self.paging.count(&mut resident.outbox, &self.metrics);
        let is_stored = topic_of.number.is_some() && resident.session.stored_number().is_some();
        if qos.is_acknowledged() && is_stored {
            self.paging.look_at(key, &mut resident.outbox, &self.options);
        }
        tell_status(resident, &self.options.outbox, &mut self.congestion);
        note_stall(key, resident, now, &mut self.stalled);
        if offered != Offered::Queued || (!was_full && resident.session.status.is_full()) {
            let is_long = resident.outbox.len() >= self.options.outbox.messages_max;
            let limit = match is_long {
                true => &self.metrics.limit_queue_messages,
                false => &self.metrics.limit_queue_bytes,
            };
            limit.increment();
        }
        let lost = match offered {
            Offered::Queued => return offered,
            Offered::QueuedAfterDropping(count) => u64::from(count),
            Offered::Dropped | Offered::Refused | Offered::Disconnect => 1,
        };
        if qos.is_acknowledged() && offered != Offered::QueuedAfterDropping(lost as u32) {
            self.metrics.dropped_queue_full_qos1_2.add(lost);
        } else {
            self.metrics.dropped_queue_full_qos0.add(lost);
        }
        if resident.outbox.record_drop(lost) {
            let (client, queued, bytes) = (
                resident.session.client_id.as_str(),
                resident.outbox.len(),
                resident.outbox.bytes(),
            );
            let (policy, topic) = (self.options.outbox.overflow.name(qos), topic_of.topic().as_str());
            warn!(client, queued, bytes, policy, topic, "queue full");
        }
        if offered == Offered::Disconnect {
            self.overflowed.push(key);
        }
        offered
    }

    /// Writes what waited for the store and need not any longer.
    pub fn release_held(&mut self, key: ConnectionKey, now: Time) -> Released {
        let mut released = Released::Other;
        self.touch(key);
        let Some(connection) = self.connections.get_mut(key.0) else {
            return released;
        };
        if matches!(connection.phase, Phase::Closing) {
            return released; // nothing follows the last packet [MQTT-3.14.4-1]
        }
        let session = connection.session;
        while let Some((_, packet)) = connection.held.pop_ready(|ticket| self.journal.is_stored(ticket)) {
            match packet {
                Waiting::Reply(reply) => {
                    if let Reply::Ack { kind, .. } = &reply
                        && *kind == PacketType::PubAck
                    {
                        connection.unacknowledged = connection.unacknowledged.saturating_sub(1);
                    }
                    if matches!(reply, Reply::Encoded(_)) {
                        released = released.max(Released::Answer);
                    }
                    reply.write(connection.version, connection.output.tail());
                }
                Waiting::ConnAck(bytes) => {
                    connection.output.tail().extend_from_slice(&bytes);
                    connection.has_connack = true;
                    released = Released::ConnAck;
                }
                Waiting::Publish(id, dup) => {
                    let resident = session.and_then(|slot| self.sessions.get_mut(slot));
                    // A client that acknowledges what it was not sent has it all the same.
                    let Some(delivery) = resident.and_then(|resident| resident.session.outbound.published(id)) else {
                        continue;
                    };
                    self.metrics
                        .count_publish_sent(delivery.qos, delivery.message.payload().len());
                    if dup {
                        self.metrics.publish_repeated.increment();
                    }
                    write_delivery(connection, delivery, Some(id), dup, now);
                    continue;
                }
            }
            self.metrics.packets_sent.increment();
        }
        released
    }

    /// Sends what waits for a session, as far as its window and its connection's output have room.
    pub fn pump(&mut self, key: SlotKey, now: Time) {
        let Some(resident) = self.sessions.get_mut(key) else {
            return;
        };
        if resident.outbox.is_empty() && !resident.session.outbound.has_resend() {
            return;
        }
        let Some(connection_key) = resident.connection else {
            return;
        };
        let Some(connection) = self.connections.get_mut(connection_key.0) else {
            return;
        };
        if !connection.is_ready() {
            return;
        }
        touch(connection_key, connection, &mut self.touched, &mut self.buffers);
        let window = connection.receive_maximum.min(self.options.in_flight_max);
        let mut way = Way {
            key: connection_key,
            slot: key,
            strays: &mut self.strays,
            receive: &self.receive,
            sources: &mut self.sources,
            journal: &mut self.journal,
            held: &mut self.held,
            metrics: &self.metrics,
            now,
        };
        while connection.output.len() < self.options.output_bytes_max {
            if way.resend_next(connection, &mut resident.session, window) {
                continue;
            }
            let has_room = resident.session.outbound.has_room(window) && !resident.outbox.is_front_stored();
            let next = if has_room {
                resident.outbox.pop_acknowledged()
            } else {
                None
            };
            let (delivery, is_new) = match next.or_else(|| resident.outbox.pop_unacknowledged()) {
                Some(delivery) => (delivery, false),
                None => match next_replay(resident, has_room) {
                    Some(delivery) => (delivery, true),
                    None => break,
                },
            };
            way.send(connection, &mut resident.session, delivery, is_new);
        }
        if connection.output.len() >= self.options.output_bytes_max {
            self.metrics.limit_output_bytes.increment();
        }
        if resident.outbox.has_stored() {
            self.paging.read_ahead(key, &mut resident.outbox, &self.options);
        }
        self.paging.count(&mut resident.outbox, &self.metrics);
        tell_status(resident, &self.options.outbox, &mut self.congestion);
        note_stall(key, resident, now, &mut self.stalled);
        if let Some(dropped) = resident.outbox.take_drops(&self.options.outbox) {
            info!(client = resident.session.client_id.as_str(), dropped, "queue drained");
        }
    }
}

/// Set in [`Delivery::copy`] of a retained message for a new subscription; below it, its packet identifier. The bit above is a shared group's.
const REPLAYED: u16 = 0x4000;

/// The way from a session's queue to its connection's output, past the store.
struct Way<'a> {
    key: ConnectionKey,
    slot: SlotKey,
    strays: &'a mut Vec<(SlotKey, Delivery)>,
    receive: &'a ReceiveCheck,
    sources: &'a mut SourceCheck,
    journal: &'a mut Journal,
    held: &'a mut HeldConnections,
    metrics: &'a Metrics,
    now: Time,
}

impl Way<'_> {
    /// Sends again what was in flight when the last connection of the session ended; false when there is nothing, or no room.
    fn resend_next(&mut self, connection: &mut Connection, session: &mut Session, window: u16) -> bool {
        let version = connection.version;
        // What it says must be kept before it is said: that it was sent, or received, may still be on its way to the store.
        let ticket = self.journal.latest();
        let must_wait = ticket != Ticket::DONE || !connection.held.is_empty();
        let given_up = match session.outbound.next_resend(window) {
            None => return false,
            Some(Resend::Release(id)) => {
                let reply = Reply::Ack {
                    kind: PacketType::PubRel,
                    id,
                    reason: ReasonCode::Success,
                };
                if must_wait {
                    hold(self.key, connection, Waiting::Reply(reply), ticket, self.held);
                } else {
                    reply.write(version, connection.output.tail());
                    self.metrics.packets_sent.increment();
                }
                None
            }
            Some(Resend::Publish(id, delivery)) if !self.receive.allows(connection, delivery.message.topic()) => {
                self.metrics.dropped_not_readable.increment();
                Some(id)
            }
            Some(Resend::Publish(id, delivery)) => {
                if encoded_len(connection, delivery, self.now) > connection.packet_bytes_max as usize {
                    record_too_large(connection, delivery.message.topic().as_str(), self.metrics);
                    Some(id)
                } else if must_wait && delivery.qos == QoS::ExactlyOnce {
                    hold(self.key, connection, Waiting::Publish(id, true), ticket, self.held);
                    None
                } else {
                    self.metrics
                        .count_publish_sent(delivery.qos, delivery.message.payload().len());
                    self.metrics.publish_repeated.increment();
                    write_delivery(connection, delivery, Some(id), true, self.now);
                    None
                }
            }
        };
        if let Some(id) = given_up {
            let key = session.outbound.give_up(id).and_then(|delivery| delivery.key());
            stored::ended_key(self.journal, session, key);
        }
        true
    }

    /// Sends a delivery that waited. One that expired, may not be received, is retained of somebody who may not publish it any more,
    /// or is too large for the client, is dropped here and
    /// counted. `is_new` where the store has not heard of it.
    fn send(&mut self, connection: &mut Connection, session: &mut Session, mut delivery: Delivery, is_new: bool) {
        let is_acknowledged = delivery.qos.is_acknowledged();
        let is_expired = delivery.message.is_expired(self.now);
        let is_forbidden = !self.receive.allows(connection, delivery.message.topic());
        // Who has subscribed already got it when its publisher might publish it.
        let is_void = is_new && !self.sources.allows(&delivery.message);
        let is_too_large = !is_expired
            && !is_forbidden
            && !is_void
            && connection.packet_bytes_max != u32::MAX
            && encoded_len(connection, &delivery, self.now) > connection.packet_bytes_max as usize;
        if is_expired || is_too_large || is_forbidden || is_void {
            if is_expired {
                self.metrics.dropped_expired.increment();
            } else if is_forbidden {
                self.metrics.dropped_not_readable.increment();
            } else if is_void {
                self.metrics.dropped_source_not_authorized.increment();
            } else {
                record_too_large(connection, delivery.message.topic().as_str(), self.metrics);
            }
            if is_acknowledged {
                // What he may not have leaves no gap: he would know how much there is.
                if !is_forbidden && !is_void {
                    session.outbound.leave_out();
                }
                if is_forbidden && !is_expired && delivery.group.is_some() {
                    self.strays.push((self.slot, delivery));
                } else if !is_new {
                    stored::ended_key(self.journal, session, delivery.key());
                }
            }
            return;
        }
        if !is_acknowledged {
            self.metrics
                .count_publish_sent(delivery.qos, delivery.message.payload().len());
            return write_delivery(connection, &delivery, None, false, self.now);
        }
        let (qos, id) = (delivery.qos, session.outbound.next_id());
        if is_new {
            // The same message may be under way for another subscription, or from when it was published.
            delivery.copy = REPLAYED | (id.get() & (REPLAYED - 1));
        }
        let is_stored = stored::sent(self.journal, session, &delivery, id, is_new);
        let ticket = self.journal.open_ticket();
        // A new topic alias must leave with the packet that brings it, before those that use it.
        let must_wait = is_stored
            && qos == QoS::ExactlyOnce
            && !(connection.aliases_out.is_off() && may_write(self.key, connection, ticket, self.journal, self.held));
        if must_wait {
            hold(self.key, connection, Waiting::Publish(id, false), ticket, self.held);
        } else {
            self.metrics
                .count_publish_sent(delivery.qos, delivery.message.payload().len());
            write_delivery(connection, &delivery, Some(id), false, self.now);
        }
        let is_kept = session.is_persistent() || delivery.group.is_some();
        session.outbound.send(qos, is_kept.then_some(delivery));
    }
}

/// Notes since when deliveries wait behind the same unacknowledged one; forgets it when that has been acknowledged.
fn note_stall(key: SlotKey, resident: &mut Resident, now: Time, stalled: &mut Vec<SlotKey>) {
    let outbound = &resident.session.outbound;
    let is_held_up = resident.connection.is_some() && !resident.outbox.is_clear_for(QoS::AtLeastOnce);
    match (is_held_up.then(|| outbound.oldest()).flatten(), resident.stalled) {
        (Some(oldest), Some((_, known))) if oldest == known => {}
        (Some(oldest), _) => {
            resident.stalled = Some((now, oldest));
            if !std::mem::replace(&mut resident.is_watched, true) {
                stalled.push(key);
            }
        }
        (None, _) => resident.stalled = None,
    }
}

fn next_replay(resident: &mut Resident, has_room: bool) -> Option<Delivery> {
    let replay = resident.outbox.front_replay()?;
    if replay.qos.min(replay.message.qos).is_acknowledged() && !has_room {
        return None;
    }
    resident.outbox.pop_replay().map(super::outbox::Replay::into_delivery)
}

#[inline]
pub(super) fn touch(
    key: ConnectionKey,
    connection: &mut Connection,
    touched: &mut Vec<ConnectionKey>,
    buffers: &mut Buffers,
) {
    if connection.output.needs_buffer()
        && let Some(buffer) = buffers.take()
    {
        connection.output.lend(buffer);
    }
    if !connection.is_touched {
        connection.is_touched = true;
        touched.push(key);
    }
}

/// A delivery that the client cannot take is dropped and treated as done [MQTT-3.1.2-25].
pub(super) fn record_too_large(connection: &Connection, topic: &str, metrics: &Metrics) {
    metrics.dropped_too_large.increment();
    info!(
        client = connection.client_name(),
        topic,
        limit = connection.packet_bytes_max,
        "delivery dropped: larger than the client's maximum packet size"
    );
}
