//! A publisher: what it may send now, and the bytes of it. Knows no socket and reads no clock.

use std::sync::atomic::Ordering;
use std::task::Waker;

use hdrhistogram::Histogram;

use super::link::Failure;
use super::scenario::{Change, DIGITS, LEVEL_DIGITS, PublisherPlan, RANDOM_LEVELS, write_digits};
use super::shared::{Counters, Shared, add};
use super::stamp::Stamp;
use crate::codec::{EncodeError, PublishFrame, patch_packet_id, write_ack};
use crate::protocol::ids::PacketId;
use crate::protocol::packet::{Packet, PacketType};
use crate::protocol::property::Properties;
use crate::protocol::qos::QoS;
use crate::protocol::reason::ReasonCode;

use super::window::Window;

/// Bytes that may wait for the socket before a publisher stops adding to them.
const OUT_BYTES_MAX: usize = 256 * 1024;

/// One publisher.
#[derive(Debug)]
pub(super) struct Publisher {
    index: u32,
    frame: Frame,
    change: Change,
    qos: QoS,
    /// Number of the next message.
    sequence: u64,
    messages: Option<u64>,
    window: Window,
    random: u64,
    /// The longest delay of a message behind its moment in the schedule, in nanoseconds, for want of room in the window or the socket or
    /// because we are slow.
    pub(super) late_max: u64,
}

/// A PUBLISH with its places: everything but identifier, digits of the topic and stamp is always the same.
#[derive(Debug)]
struct Frame {
    bytes: Vec<u8>,
    topic_at: usize,
    packet_id_at: Option<usize>,
    payload_at: usize,
}

impl Frame {
    fn new(plan: &PublisherPlan, shared: &Shared, payload: &[u8]) -> Result<Self, EncodeError> {
        let workload = &shared.workload;
        let frame = PublishFrame {
            topic: &plan.topic,
            qos: workload.qos,
            retain: plan.messages.is_some(),
            dup: false,
            packet_id: Some(PacketId::FIRST),
            topic_alias: None,
            message_expiry: None,
            subscription_identifiers: &[],
            properties: Properties::EMPTY,
            payload,
        };
        let mut bytes = Vec::new();
        let span = frame.write(workload.version, &mut bytes)?;
        let behind_topic = plan.topic.len()
            + if workload.qos.is_acknowledged() { 2 } else { 0 }
            + usize::from(workload.version.has_properties());
        Ok(Self {
            topic_at: span.payload_at - behind_topic,
            packet_id_at: span.packet_id_at,
            payload_at: span.payload_at,
            bytes,
        })
    }
}

/// The acknowledgements of one read of one publisher. Those of messages of one time count together.
#[derive(Debug)]
pub(super) struct Answers<'a> {
    shared: &'a Shared,
    counters: &'a Counters,
    latency: &'a mut Histogram<u64>,
    now: u64,
    /// Of the last one.
    time: u64,
    count: u64,
}

impl<'a> Answers<'a> {
    /// Before the first packet of a read.
    pub(super) const fn new(shared: &'a Shared, counters: &'a Counters, latency: &'a mut Histogram<u64>) -> Self {
        Self {
            shared,
            counters,
            latency,
            now: 0,
            time: 0,
            count: 0,
        }
    }

    #[inline]
    fn add(&mut self, time: u64) {
        if self.now == 0 {
            self.now = self.shared.now();
        }
        if time != self.time {
            self.enter();
            self.time = time;
        }
        self.count += 1;
    }

    #[inline]
    fn enter(&mut self) {
        add(&self.counters.acknowledged, self.count);
        if self.count > 0 && self.shared.is_measured(self.time) {
            self.latency
                .saturating_record_n(self.now.saturating_sub(self.time), self.count);
        }
        self.count = 0;
    }

    /// Behind the last.
    pub(super) fn end(mut self) {
        self.enter();
    }
}

impl Publisher {
    /// A publisher that has sent nothing; the broker takes `receive_maximum` at once.
    pub(super) fn new(index: u32, shared: &Shared, receive_maximum: u16) -> Result<Self, EncodeError> {
        let workload = &shared.workload;
        let plan = &shared.plan.publishers[index as usize];
        let window = workload.window.min(u32::from(receive_maximum));
        Ok(Self {
            index,
            frame: Frame::new(plan, shared, &vec![b'x'; workload.payload])?,
            change: plan.change,
            qos: workload.qos,
            sequence: 0,
            messages: plan.messages,
            window: Window::new(if workload.qos.is_acknowledged() { window } else { 0 }),
            random: u64::from(shared.run) << 32 | u64::from(index) << 1 | 1,
            late_max: 0,
        })
    }

    /// Goes over its topics once more, to remove what is retained there.
    pub(super) fn erase(&mut self, shared: &Shared) -> Result<(), EncodeError> {
        self.frame = Frame::new(&shared.plan.publishers[self.index as usize], shared, &[])?;
        self.sequence = 0;
        Ok(())
    }

    /// Appends to `out` what may be sent now. Whoever could send more is woken when that may have changed. `waiting` bytes of
    /// `out` are not written.
    pub(super) fn publish(
        &mut self,
        shared: &Shared,
        counters: &Counters,
        waiting: usize,
        out: &mut Vec<u8>,
        waker: &Waker,
    ) {
        let cell = &shared.publishers[self.index as usize];
        loop {
            if !shared.is_publishing.load(Ordering::Relaxed) {
                cell.wait_for(u64::MAX, waker);
                if !shared.is_publishing.load(Ordering::SeqCst) {
                    return;
                }
            }
            let count = self.sendable(shared, waiting);
            if count > 0 {
                self.append(count, shared, out);
                add(&counters.sent, count);
                add(&cell.sent, count);
                return; // asked again when it is written
            }
            if !self.wait(shared, waker) {
                return;
            }
        }
    }

    /// How many may go now: none, or a batch.
    fn sendable(&mut self, shared: &Shared, waiting: usize) -> u64 {
        let workload = &shared.workload;
        if waiting >= OUT_BYTES_MAX {
            return 0;
        }
        let left = self.messages.map_or(u64::MAX, |messages| messages - self.sequence);
        let mut free = left;
        if self.qos.is_acknowledged() {
            free = free.min(u64::from(self.window.free()));
        }
        if let Some(schedule) = shared.schedule.get() {
            let now = shared.now();
            let mut due = 0;
            let due_max = free.min(1024);
            while due < due_max && schedule.time_of_publisher(self.index, self.sequence + due) <= now {
                due += 1;
            }
            return due;
        }
        if workload.in_flight > 0 {
            free = free.min(workload.in_flight.saturating_sub(self.on_the_way(shared)));
        }
        let batch = workload.batch.min(left).min(match self.qos {
            QoS::AtMostOnce => u64::MAX,
            _ => u64::from(self.window.max()),
        });
        if free < batch {
            return 0;
        }
        free.min(((OUT_BYTES_MAX - waiting) / self.frame.bytes.len()) as u64 + 1)
    }

    fn on_the_way(&self, shared: &Shared) -> u64 {
        let cell = &shared.publishers[self.index as usize];
        self.sequence
            .saturating_sub(cell.delivered() / shared.plan.deliveries.max(1))
    }

    /// Waits for deliveries where they are what is missing. True where they have come meanwhile.
    fn wait(&self, shared: &Shared, waker: &Waker) -> bool {
        let workload = &shared.workload;
        let cell = &shared.publishers[self.index as usize];
        let is_short = workload.in_flight > 0
            && workload.in_flight.saturating_sub(self.on_the_way(shared)) < workload.batch.min(workload.in_flight);
        if !is_short {
            cell.wait_for(u64::MAX, waker); // acknowledgements, the socket or the schedule wake us
            return false;
        }
        let wanted = (self.sequence + workload.batch.min(workload.in_flight)).saturating_sub(workload.in_flight);
        !cell.wait_for(wanted * shared.plan.deliveries, waker)
    }

    fn append(&mut self, count: u64, shared: &Shared, out: &mut Vec<u8>) {
        let now = shared.now();
        let schedule = shared.schedule.get();
        out.reserve(count as usize * self.frame.bytes.len());
        for _ in 0..count {
            let start = out.len();
            out.extend_from_slice(&self.frame.bytes);
            let packet = &mut out[start..];
            if self.change != Change::Nothing {
                self.change_topic(&mut packet[self.frame.topic_at..]);
            }
            let time = match schedule {
                None => now,
                Some(schedule) => {
                    let due = schedule.time_of_publisher(self.index, self.sequence);
                    if shared.is_measured(due) {
                        self.late_max = self.late_max.max(now.saturating_sub(due));
                    }
                    due
                }
            };
            if let Some(at) = self.frame.packet_id_at {
                patch_packet_id(packet, at, self.window.next());
                self.window.open(time);
            }
            if packet.len() > self.frame.payload_at {
                let stamp = Stamp {
                    run: shared.run,
                    publisher: self.index,
                    sequence: self.sequence,
                    time,
                };
                stamp.write(&mut packet[self.frame.payload_at..]);
            }
            self.sequence += 1;
        }
    }

    fn change_topic(&mut self, topic: &mut [u8]) {
        match self.change {
            Change::Nothing => {}
            Change::Number { at } => write_digits(&mut topic[at..at + DIGITS], self.sequence),
            Change::Random { at, below } => {
                for level in 0..RANDOM_LEVELS {
                    // Xorshift, George Marsaglia 2003.
                    self.random ^= self.random << 13;
                    self.random ^= self.random >> 7;
                    self.random ^= self.random << 17;
                    let number = ((self.random >> 32) * u64::from(below)) >> 32;
                    let at = at + level * (LEVEL_DIGITS + 1);
                    write_digits(&mut topic[at..at + LEVEL_DIGITS], number);
                }
            }
        }
    }

    /// Takes an acknowledgement. PUBREC is answered into `out`.
    pub(super) fn receive(
        &mut self,
        packet: &Packet<'_>,
        answers: &mut Answers<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), Failure> {
        let shared = answers.shared;
        let cell = &shared.publishers[self.index as usize];
        let (ack, is_done) = match packet {
            Packet::PubAck(ack) if self.qos == QoS::AtLeastOnce => (ack, true),
            Packet::PubRec(ack) if self.qos == QoS::ExactlyOnce => (ack, ack.reason.is_error()),
            Packet::PubComp(ack) if self.qos == QoS::ExactlyOnce => (ack, true),
            other => return Err(Failure::Unexpected(other.packet_type().name())),
        };
        if !is_done {
            write_ack(
                PacketType::PubRel,
                ack.packet_id,
                ReasonCode::Success,
                shared.workload.version,
                out,
            );
            return Ok(());
        }
        let Some(time) = self.window.close(ack.packet_id) else {
            return Err(Failure::Unexpected(packet.packet_type().name()));
        };
        answers.add(time);
        if ack.reason.is_error() {
            add(&cell.refused, 1);
        }
        Ok(())
    }
}
