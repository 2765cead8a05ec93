//! Our own messages: those that wait, and those on their way, in the order in which they were published.

use std::collections::VecDeque;

use super::event::RequestId;
use super::options::Outgoing;
use crate::protocol::ids::PacketId;
use crate::protocol::qos::QoS;

/// A message that waits to be sent.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) request: RequestId,
    pub(super) message: Outgoing,
}

/// A message of QoS 1 or 2 that was sent and not acknowledged in full.
#[derive(Debug)]
pub(super) struct InFlight {
    pub(super) packet_id: PacketId,
    pub(super) request: RequestId,
    /// `None` once PUBREC came: PUBREL is what would be sent again.
    pub(super) message: Option<Outgoing>,
}

/// Both. Bounded by the client's `waiting_max` and `in_flight_max`.
#[derive(Debug, Default)]
pub(super) struct Publications {
    pub(super) waiting: VecDeque<Waiting>,
    pub(super) in_flight: VecDeque<InFlight>,
}

impl Publications {
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.in_flight.is_empty()
    }

    /// PUBACK, or PUBREC with an error: the message of that identifier and QoS is done.
    pub(super) fn finish(&mut self, packet_id: PacketId, qos: QoS) -> Option<RequestId> {
        let at = self.position(packet_id)?;
        let is_it = |sent: &InFlight| sent.message.as_ref().is_some_and(|message| message.qos == qos);
        self.in_flight.get(at).filter(|sent| is_it(sent))?;
        self.in_flight.remove(at).map(|sent| sent.request)
    }

    /// PUBREC: from now on the identifier waits for PUBCOMP. False where there is no such message of QoS 2.
    pub(super) fn release(&mut self, packet_id: PacketId) -> bool {
        let sent = self.position(packet_id).and_then(|at| self.in_flight.get_mut(at));
        let Some(sent) = sent.filter(|sent| !matches!(&sent.message, Some(message) if message.qos != QoS::ExactlyOnce))
        else {
            return false;
        };
        sent.message = None;
        true
    }

    /// PUBCOMP: the message is done.
    pub(super) fn complete(&mut self, packet_id: PacketId) -> Option<RequestId> {
        let at = self.position(packet_id)?;
        self.in_flight.get(at).filter(|sent| sent.message.is_none())?;
        self.in_flight.remove(at).map(|sent| sent.request)
    }

    /// The server has forgotten our session: what it has not taken over is published anew, before what waits. Gives back the
    /// requests that it has taken over.
    pub(super) fn begin_anew(&mut self) -> Vec<RequestId> {
        let mut taken_over = Vec::new();
        while let Some(InFlight { request, message, .. }) = self.in_flight.pop_back() {
            match message {
                Some(message) => self.waiting.push_front(Waiting { request, message }),
                None => taken_over.push(request),
            }
        }
        taken_over.reverse();
        taken_over
    }

    /// Acknowledgements come in order most often, so the search ends at once.
    fn position(&self, packet_id: PacketId) -> Option<usize> {
        self.in_flight.iter().position(|sent| sent.packet_id == packet_id)
    }
}
