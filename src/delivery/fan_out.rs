//! From "who wants it" to "his queue": one publication to the receivers that live on this worker.

use std::sync::Arc;

use super::frames::{Addressing, Fanned};
use super::outbox::Offered;
use super::residents::{Residents, record_too_large, touch, write_delivery};
use crate::protocol::ids::PacketId;
use crate::protocol::qos::QoS;
use crate::protocol::time::Time;
use crate::router::shared::SharedGroup;
use crate::router::{NoLocal, Receiver};
use crate::session::connection::Phase;
use crate::session::delivery::Delivery;

/// What became of one delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivered {
    /// Written to the connection or waiting in the outbox, or rightly left out (QoS 0 for a client that is away).
    Taken,
    /// The session is gone.
    Gone,
    /// The session's outbox refused it.
    Refused,
}

/// What became of a publication on this worker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Receivers that took it.
    pub taken: u32,
    /// Receivers whose outbox refused it.
    pub refused: u32,
}

impl Residents {
    /// Delivers to every receiver in the list. The publisher itself is left out where all its subscriptions say No Local; where only
    /// some do, `own` gives the receiver that the others make.
    pub fn fan_out(
        &mut self,
        fanned: &mut Fanned<'_>,
        receivers: &[Receiver],
        own: impl Fn() -> Option<Receiver>,
        now: Time,
    ) -> Tally {
        let mut tally = Tally::default();
        let publisher = fanned.publication.publisher;
        for receiver in receivers {
            let delivered = if receiver.no_local != NoLocal::Never && publisher == Some(receiver.session) {
                if receiver.no_local == NoLocal::All {
                    continue;
                }
                match own() {
                    Some(receiver) => self.deliver(fanned, &receiver, None, now),
                    None => continue,
                }
            } else {
                self.deliver(fanned, receiver, None, now)
            };
            match delivered {
                Delivered::Taken => tally.taken += 1,
                Delivered::Refused if publisher == Some(receiver.session) && self.has_no_reason_codes(receiver) => {}
                Delivered::Refused => tally.refused += 1,
                Delivered::Gone => {}
            }
        }
        tally
    }

    /// A client before MQTT 5 that publishes to itself faster than it reads is not refused, its message is dropped: it can be told
    /// only by the end of the connection, would send the same again, and never come to empty its queue.
    fn has_no_reason_codes(&self, receiver: &Receiver) -> bool {
        let key = self
            .sessions
            .get(receiver.session.key)
            .and_then(|resident| resident.connection);
        let connection = key.and_then(|key| self.connections.get(key.0));
        connection.is_some_and(|connection| !connection.version.has_properties())
    }

    /// Delivers to one receiver on this worker, for the sake of `group` where it was chosen from one.
    #[inline]
    pub fn deliver(
        &mut self,
        fanned: &mut Fanned<'_>,
        receiver: &Receiver,
        group: Option<&Arc<SharedGroup>>,
        now: Time,
    ) -> Delivered {
        let Some(resident) = self.sessions.get_mut(receiver.session.key) else {
            return Delivered::Gone;
        };
        if fanned.publication.retain {
            resident.outbox.forget_replay_of(fanned.publication.topic);
        }
        let qos = receiver.qos.min(fanned.publication.qos);
        let retain = receiver.retain_as_published && fanned.publication.retain;
        let key = resident.connection;
        let Some((key, connection)) = key.and_then(|key| Some((key, self.connections.get_mut(key.0)?))) else {
            // QoS 0 for a client that is away may be left out [MQTT-3.1.2-5].
            let may_queue = qos.is_acknowledged() || self.options.outbox.queue_qos0_offline;
            if !may_queue || !resident.session.is_persistent() {
                return Delivered::Taken;
            }
            return self.queue(fanned, receiver, qos, retain, group, now);
        };
        if connection.is_bridge && fanned.publication.publisher == Some(receiver.session) {
            return Delivered::Taken;
        }
        let may_write = matches!(connection.phase, Phase::Connected)
            && connection.output.len() < self.options.output_bytes_max
            && resident.outbox.is_clear_for(qos)
            && (!qos.is_acknowledged()
                || resident
                    .session
                    .outbound
                    .has_room(connection.receive_maximum.min(self.options.in_flight_max)));
        if !may_write {
            return self.queue(fanned, receiver, qos, retain, group, now);
        }
        let mut to = Addressing {
            version: connection.version,
            qos,
            retain,
            packet_id: qos.is_acknowledged().then_some(PacketId::FIRST),
            identifiers: &receiver.identifiers,
        };
        if connection.packet_bytes_max != u32::MAX && fanned.encoded_len(to) > connection.packet_bytes_max as usize {
            record_too_large(connection, fanned.publication.topic.as_str(), &self.metrics);
            return Delivered::Taken;
        }
        touch(key, connection, &mut self.touched, &mut self.buffers);
        self.metrics.count_publish_sent(qos, fanned.publication.payload.len());
        let is_persistent = resident.session.is_persistent();
        let outbound = &mut resident.session.outbound;
        let is_kept = qos.is_acknowledged() && (is_persistent || group.is_some());
        to.packet_id = qos.is_acknowledged().then(|| outbound.next_id());
        let kept = if connection.aliases_out.is_off() {
            fanned.write(to, &mut connection.output);
            is_kept.then(|| delivery(fanned, receiver, qos, retain, group))
        } else {
            let delivery = delivery(fanned, receiver, qos, retain, group);
            write_delivery(connection, &delivery, to.packet_id, false, now);
            is_kept.then_some(delivery)
        };
        if qos.is_acknowledged() {
            outbound.send(qos, kept.map(Box::new));
            resident.session.status.set_in_flight(outbound.in_flight().into());
        }
        Delivered::Taken
    }

    fn queue(
        &mut self,
        fanned: &mut Fanned<'_>,
        receiver: &Receiver,
        qos: QoS,
        retain: bool,
        group: Option<&Arc<SharedGroup>>,
        now: Time,
    ) -> Delivered {
        let delivery = delivery(fanned, receiver, qos, retain, group);
        // What a policy that was asked for drops is counted, and nobody's failure.
        match self.enqueue(receiver.session.key, delivery, fanned.is_promised, now) {
            Offered::Refused => Delivered::Refused,
            _ => Delivered::Taken,
        }
    }
}

fn delivery(
    fanned: &mut Fanned<'_>,
    receiver: &Receiver,
    qos: QoS,
    retain: bool,
    group: Option<&Arc<SharedGroup>>,
) -> Delivery {
    Delivery {
        message: Arc::clone(fanned.kept()),
        qos,
        retain,
        identifiers: receiver.identifiers.clone(),
        group: group.cloned(),
    }
}
