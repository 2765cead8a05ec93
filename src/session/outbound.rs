//! The broker as sender: the window of QoS 1 and 2 deliveries that a client has not acknowledged in full.
//!
//! ```text
//!   QoS 1   send ──► Published ── PUBACK ──► Done
//!   QoS 2   send ──► Published ── PUBREC ──► Released ── PUBCOMP ──► Done
//!                        └─ PUBREC ≥ 0x80 ──► Done
//! ```
//! The window is a ring: its first place has the identifier `first`, each later place the next one. So an identifier is found
//! by subtraction, the order of sending is the order of the ring (which redelivery needs), and identifiers count up from 1.

use std::collections::VecDeque;

use super::delivery::{Delivery, DeliveryKey};
use super::rare::Rare;
use crate::protocol::ids::PacketId;
use crate::protocol::qos::QoS;

/// One place of the window.
#[derive(Clone, Debug)]
enum Place {
    /// Acknowledged in full; waits only for its elders to leave the ring.
    Done,
    /// PUBLISH was sent. The delivery is kept where it may have to be sent again.
    Published { qos: QoS, kept: Option<Delivery> },
    /// PUBREC came and PUBREL was sent [MQTT-4.3.3-3].
    Released { key: Option<DeliveryKey> },
}

/// A delivery in flight.
#[derive(Clone, Copy, Debug)]
pub enum InFlight<'a> {
    /// PUBLISH was sent.
    Published(&'a Delivery),
    /// PUBREC came.
    Released(DeliveryKey),
}

/// A delivery that was in flight when the broker stopped.
#[derive(Clone, Debug)]
pub enum Former {
    /// PUBLISH was, or may have been, sent.
    Published(Delivery),
    /// PUBREC came.
    Released(DeliveryKey),
}

/// What a resumed session sends again, in order [MQTT-4.4.0-1].
#[derive(Debug)]
pub enum Resend<'a> {
    /// PUBLISH with DUP.
    Publish(PacketId, &'a Delivery),
    /// PUBREL.
    Release(PacketId),
}

/// An acknowledgement that does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Misfit {
    /// Nothing with that identifier is in flight: a late answer, harmless.
    Unknown,
    /// The delivery with that identifier waits for another acknowledgement: a protocol error.
    Wrong,
}

/// The window of one session.
#[derive(Clone, Debug)]
pub struct Outbound {
    ring: VecDeque<Place>,
    first: PacketId,
    in_flight: u16,
    /// What a resumed session has still to send again.
    resend: Rare<VecDeque<PacketId>>,
}

impl Default for Outbound {
    fn default() -> Self {
        Self {
            ring: VecDeque::new(),
            first: PacketId::FIRST,
            in_flight: 0,
            resend: Rare::default(),
        }
    }
}

/// Places of the ring at most: every identifier once.
const RING_MAX: usize = 65_535;
/// Places of the ring from where on nothing is left out any more.
const GAPS_MAX: usize = 1_024;

impl Outbound {
    /// Deliveries that count against the client's receive maximum: sent and not acknowledged in full [MQTT-3.3.4-9].
    #[inline]
    pub const fn in_flight(&self) -> u16 {
        self.in_flight
    }

    /// True when another delivery may be sent to a client with this receive maximum. Who acknowledges all but the first of them keeps the places of
    /// the others: four times as many as it takes, and 1,024.
    #[inline]
    pub fn has_room(&self, receive_maximum: u16) -> bool {
        self.in_flight < receive_maximum && self.ring.len() < ring_max(receive_maximum)
    }

    /// The oldest delivery that is not acknowledged in full, where one is in flight.
    pub fn oldest(&self) -> Option<PacketId> {
        (self.in_flight > 0).then_some(self.first)
    }

    /// The identifier that [`Outbound::send`] gives next, so that a delivery can be written before it is kept.
    #[inline]
    pub fn next_id(&self) -> PacketId {
        offset(self.first, self.ring.len())
    }

    /// Takes the next free identifier for a delivery that is sent now [MQTT-2.2.1-4]. `kept` is needed where the session can
    /// outlive the connection. Call only when [`Outbound::has_room`].
    #[inline]
    pub fn send(&mut self, qos: QoS, kept: Option<Delivery>) -> PacketId {
        debug_assert!(self.ring.len() < RING_MAX);
        let id = self.next_id();
        self.ring.push_back(Place::Published { qos, kept });
        self.in_flight += 1;
        id
    }

    /// A delivery that cannot be sent when its turn comes, as it has expired or is too large for the client, takes its identifier with it: a
    /// gap in what the client sees tells that there was something. Not behind 1,024 places: a gap is not worth memory.
    pub fn leave_out(&mut self) {
        if self.ring.is_empty() {
            self.first = self.first.next();
        } else if self.ring.len() < GAPS_MAX {
            self.ring.push_back(Place::Done);
        }
    }

    /// PUBACK: a QoS 1 delivery has arrived. Gives back what was kept.
    #[inline]
    pub fn puback(&mut self, id: PacketId) -> Result<Option<Delivery>, Misfit> {
        self.finish_published(id, QoS::AtLeastOnce)
    }

    /// PUBREC with success: the PUBREL that answers it may be sent. A second PUBREC is answered again. True for the first; with what
    /// the store knows the delivery by.
    pub fn pubrec(&mut self, id: PacketId) -> Result<(bool, Option<DeliveryKey>), Misfit> {
        match self.place(id)? {
            place @ Place::Published {
                qos: QoS::ExactlyOnce, ..
            } => {
                let Place::Published { kept, .. } = &*place else {
                    return Err(Misfit::Wrong);
                };
                let key = kept.as_ref().and_then(|delivery| delivery.key());
                *place = Place::Released { key };
                Ok((true, key))
            }
            Place::Released { key } => Ok((false, *key)),
            Place::Published { .. } | Place::Done => Err(Misfit::Wrong),
        }
    }

    /// PUBREC with an error: the delivery is over and the identifier free [MQTT-4.3.3-4]. Gives back what was kept.
    pub fn pubrec_refused(&mut self, id: PacketId) -> Result<Option<Delivery>, Misfit> {
        self.finish_published(id, QoS::ExactlyOnce)
    }

    /// PUBCOMP: a QoS 2 delivery has arrived once. Gives what the store knows it by.
    pub fn pubcomp(&mut self, id: PacketId) -> Result<Option<DeliveryKey>, Misfit> {
        match self.place(id)? {
            place @ Place::Released { .. } => {
                let Place::Released { key } = std::mem::replace(place, Place::Done) else {
                    return Err(Misfit::Wrong);
                };
                self.leave();
                Ok(key)
            }
            Place::Published { .. } | Place::Done => Err(Misfit::Wrong),
        }
    }

    /// The session is resumed: everything in flight waits to be sent again, in the order of sending [MQTT-4.4.0-1].
    pub fn begin_resend(&mut self) {
        let in_flight = |at: &usize| !matches!(self.ring[*at], Place::Done);
        self.resend.take();
        if !self.ring.is_empty() {
            let in_flight = (0..self.ring.len()).filter(in_flight);
            self.resend.extend(in_flight.map(|at| offset(self.first, at)));
        }
    }

    /// True while something waits to be sent again.
    #[inline]
    pub fn has_resend(&self) -> bool {
        !self.resend.is_empty()
    }

    /// What is to be sent again next to a client with this receive maximum; `None` when nothing waits or the client has enough.
    /// PUBREL is not counted (section 4.9).
    pub fn next_resend(&mut self, receive_maximum: u16) -> Option<Resend<'_>> {
        loop {
            let id = *self.resend.front()?;
            let sent = usize::from(self.in_flight).saturating_sub(self.resend.len());
            match self.place(id) {
                Ok(Place::Published { kept: Some(_), .. }) if sent >= usize::from(receive_maximum) => return None,
                Ok(Place::Published { kept: Some(_), .. } | Place::Released { .. }) => break,
                // Acknowledged meanwhile: the client had it after all.
                _ => self.resend.pop_front(),
            };
        }
        let id = self.resend.pop_front()?;
        match self.place(id) {
            Ok(Place::Published {
                kept: Some(delivery), ..
            }) => Some(Resend::Publish(id, delivery)),
            _ => Some(Resend::Release(id)),
        }
    }

    /// Gives up a delivery that cannot be sent again: the client does not take packets of its size any more [MQTT-3.1.2-25]. Gives
    /// back what was kept.
    pub fn give_up(&mut self, id: PacketId) -> Option<Delivery> {
        let place = self.place(id).ok()?;
        let given_up = std::mem::replace(place, Place::Done);
        self.leave();
        match given_up {
            Place::Published { kept, .. } => kept,
            Place::Released { .. } | Place::Done => None,
        }
    }

    /// The delivery that was, or is to be, published with an identifier.
    pub fn published(&mut self, id: PacketId) -> Option<&Delivery> {
        match self.place(id) {
            Ok(Place::Published { kept, .. }) => kept.as_ref(),
            _ => None,
        }
    }

    /// Everything in flight that is kept, in the order of sending.
    pub fn kept(&self) -> impl Iterator<Item = (PacketId, InFlight<'_>)> {
        self.ring.iter().enumerate().filter_map(|(at, place)| {
            let in_flight = match place {
                Place::Published {
                    kept: Some(delivery), ..
                } => InFlight::Published(delivery),
                Place::Released { key: Some(key) } => InFlight::Released(*key),
                Place::Published { kept: None, .. } | Place::Released { key: None } | Place::Done => return None,
            };
            Some((offset(self.first, at), in_flight))
        })
    }

    /// The window as it was when the broker stopped: deliveries in the order of sending. One whose identifier does not follow from
    /// those before it (which only a damaged store can bring about) is given back, to be sent as if it never was.
    pub fn restore(former: impl IntoIterator<Item = (PacketId, Former)>) -> (Self, Vec<Delivery>) {
        let (mut window, mut misplaced) = (Self::default(), Vec::new());
        for (id, former) in former {
            if window.ring.is_empty() {
                window.first = id;
            }
            let at = distance(window.first, id);
            if at < window.ring.len() {
                if let Former::Published(delivery) = former {
                    misplaced.push(delivery);
                }
                continue;
            }
            window.ring.resize(at, Place::Done);
            window.ring.push_back(match former {
                Former::Published(delivery) => Place::Published {
                    qos: delivery.qos,
                    kept: Some(delivery),
                },
                Former::Released(key) => Place::Released { key: Some(key) },
            });
            window.in_flight += 1;
        }
        (window, misplaced)
    }

    /// Takes out the deliveries that another member of a shared subscription may have, because this client is gone: QoS 1, sent or
    /// not; not QoS 2 that was sent [MQTT-4.8.2-5]. Everything else stays.
    pub fn take_for_redistribution(&mut self) -> Vec<Delivery> {
        let mut taken = Vec::new();
        for place in &mut self.ring {
            if let Place::Published {
                qos: QoS::AtLeastOnce,
                kept,
            } = place
                && let Some(delivery) = kept.take_if(|delivery| delivery.group.is_some())
            {
                *place = Place::Done;
                self.in_flight -= 1;
                taken.push(delivery);
            }
        }
        self.trim();
        taken
    }

    /// Marks every delivery that is in flight without having been kept as over: the client is gone and nothing can be sent again.
    pub fn forget_unkept(&mut self) {
        for place in &mut self.ring {
            if matches!(place, Place::Published { kept: None, .. }) {
                *place = Place::Done;
                self.in_flight -= 1;
            }
        }
        self.trim();
    }

    /// The place of an identifier that is in flight.
    #[inline]
    fn place(&mut self, id: PacketId) -> Result<&mut Place, Misfit> {
        match self.ring.get_mut(distance(self.first, id)) {
            None | Some(Place::Done) => Err(Misfit::Unknown),
            Some(place) => Ok(place),
        }
    }

    #[inline]
    fn finish_published(&mut self, id: PacketId, acknowledged: QoS) -> Result<Option<Delivery>, Misfit> {
        match self.place(id)? {
            Place::Published { qos, kept } if *qos == acknowledged => {
                let kept = kept.take();
                if let Ok(place) = self.place(id) {
                    *place = Place::Done;
                }
                self.leave();
                Ok(kept)
            }
            _ => Err(Misfit::Wrong),
        }
    }

    fn leave(&mut self) {
        self.in_flight -= 1;
        self.trim();
    }

    fn trim(&mut self) {
        while matches!(self.ring.front(), Some(Place::Done)) {
            self.ring.pop_front();
            self.first = self.first.next();
        }
        // A burst should not be remembered for ever.
        if self.ring.is_empty() && self.ring.capacity() > 256 {
            self.ring = VecDeque::new();
        }
    }
}

/// Places of the ring for a client with this receive maximum.
#[inline]
const fn ring_max(receive_maximum: u16) -> usize {
    let places = GAPS_MAX + 4 * receive_maximum as usize;
    if places < RING_MAX { places } else { RING_MAX }
}

/// How many places after `first` an identifier stands.
fn distance(first: PacketId, id: PacketId) -> usize {
    ((u32::from(id.get()) + 65_535 - u32::from(first.get())) % 65_535) as usize
}

/// The identifier `distance` places after `first`; identifiers go round from 65,535 to 1.
fn offset(first: PacketId, distance: usize) -> PacketId {
    let sum = (usize::from(first.get()) - 1 + distance) % 65_535;
    PacketId::new(sum as u16 + 1).unwrap_or(PacketId::FIRST)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(value: u16) -> PacketId {
        PacketId::new(value).unwrap()
    }

    #[test]
    fn identifiers_count_from_one_and_go_round_without_zero() {
        let mut window = Outbound::default();
        for round in 0..3u32 {
            for expected in 1..=65_535u16 {
                let sent = window.send(QoS::AtLeastOnce, None);
                assert_eq!(sent.get(), expected, "round {round}");
                assert!(window.puback(sent).is_ok());
            }
        }
        assert_eq!(window.in_flight(), 0);
    }

    #[test]
    fn an_identifier_in_flight_is_not_given_again() {
        let mut window = Outbound::default();
        for _ in 0..65_535 {
            window.send(QoS::AtLeastOnce, None);
        }
        assert!(!window.has_room(65_535));
        assert!(window.puback(id(2)).is_ok());
        assert!(!window.has_room(65_535), "the oldest is still out, the ring is full");
        assert!(window.puback(id(1)).is_ok());
        assert!(window.has_room(65_535));
        assert_eq!(window.send(QoS::AtLeastOnce, None), id(1));
    }

    #[test]
    fn qos_2_takes_pubrec_then_pubcomp_and_nothing_else() {
        let mut window = Outbound::default();
        let sent = window.send(QoS::ExactlyOnce, None);
        assert_eq!(
            window.puback(sent).err(),
            Some(Misfit::Wrong),
            "PUBACK does not fit QoS 2"
        );
        assert_eq!(window.pubcomp(sent), Err(Misfit::Wrong), "PUBCOMP before PUBREC");
        assert_eq!(window.pubrec(sent), Ok((true, None)));
        assert_eq!(
            window.pubrec(sent),
            Ok((false, None)),
            "a second PUBREC is answered again"
        );
        assert_eq!(window.in_flight(), 1, "the receive maximum counts it until PUBCOMP");
        assert_eq!(window.pubcomp(sent), Ok(None));
        assert_eq!(window.pubcomp(sent), Err(Misfit::Unknown));
        assert_eq!(window.in_flight(), 0);
    }

    #[test]
    fn what_is_sent_again_respects_the_receive_maximum_of_the_new_connection() {
        let mut window = Outbound::default();
        for _ in 0..3 {
            window.send(QoS::AtLeastOnce, Some(crate::session::delivery::tests::delivery()));
        }
        let released = window.send(QoS::ExactlyOnce, None);
        assert!(window.pubrec(released).is_ok());
        window.begin_resend();
        assert!(matches!(window.next_resend(1), Some(Resend::Publish(first, _)) if first == id(1)));
        assert!(
            window.next_resend(1).is_none(),
            "one is out, and that is all the client takes"
        );
        assert!(!window.has_room(1), "nothing new overtakes");
        assert!(window.puback(id(1)).is_ok());
        assert!(
            window.puback(id(2)).is_ok(),
            "the client had the second one all the same"
        );
        assert!(matches!(window.next_resend(1), Some(Resend::Publish(third, _)) if third == id(3)));
        assert!(
            matches!(window.next_resend(1), Some(Resend::Release(last)) if last == released),
            "PUBREL is not counted"
        );
        assert!(window.next_resend(9).is_none() && !window.has_resend());
    }

    #[test]
    fn what_is_not_of_a_shared_subscription_stays_in_flight() {
        let mut window = Outbound::default();
        let first = window.send(QoS::ExactlyOnce, None);
        let second = window.send(QoS::AtLeastOnce, None);
        assert!(window.take_for_redistribution().is_empty());
        assert_eq!(window.in_flight(), 2);
        assert!(window.pubrec(first).is_ok());
        assert!(window.puback(second).is_ok());
    }

    #[test]
    fn a_window_is_as_it_was_after_a_restart() {
        let kept = crate::session::delivery::tests::delivery;
        let key = (crate::protocol::ids::MessageNumber::new(1).unwrap(), 0);
        let (mut window, misplaced) = Outbound::restore([
            (id(65_534), Former::Published(kept())),
            (id(1), Former::Released(key)),
            (id(2), Former::Published(kept())),
            (id(65_535), Former::Published(kept())),
        ]);
        assert_eq!(misplaced.len(), 1, "65,535 was sent before 1, not behind 2");
        assert_eq!((window.in_flight(), window.next_id()), (3, id(3)));
        let order: Vec<_> = window.kept().map(|(id, _)| id.get()).collect();
        assert_eq!(order, [65_534, 1, 2]);
        assert_eq!(window.pubcomp(id(1)), Ok(Some(key)));
        assert!(window.puback(id(65_534)).is_ok() && window.puback(id(2)).is_ok());
        assert_eq!(window.in_flight(), 0);
    }

    #[test]
    fn what_cannot_be_sent_leaves_a_gap_that_costs_little() {
        let mut window = Outbound::default();
        window.leave_out();
        assert_eq!(window.send(QoS::AtLeastOnce, None), id(2));
        window.leave_out();
        let behind = window.send(QoS::AtLeastOnce, None);
        assert_eq!((behind, window.in_flight()), (id(4), 2));
        assert!(matches!(window.puback(id(3)), Err(Misfit::Unknown)));
        for _ in 0..100_000 {
            window.leave_out();
        }
        assert_eq!((window.ring.len(), window.in_flight()), (GAPS_MAX, 2));
        assert!(window.has_room(3) && window.puback(id(2)).is_ok() && window.puback(id(4)).is_ok());
        assert!(window.ring.is_empty(), "gaps go with what they stood behind");
    }

    #[test]
    fn who_never_acknowledges_the_first_does_not_make_us_keep_places_without_end() {
        for (receive_maximum, places) in [(2, GAPS_MAX + 8), (1000, GAPS_MAX + 4000), (u16::MAX, RING_MAX)] {
            let mut window = Outbound::default();
            window.send(QoS::AtLeastOnce, None);
            while window.has_room(receive_maximum) {
                let sent = window.send(QoS::AtLeastOnce, None);
                assert!(window.puback(sent).is_ok());
            }
            assert_eq!(window.ring.len(), places, "{receive_maximum}");
            assert!(window.puback(id(1)).is_ok() && window.has_room(receive_maximum));
        }
    }

    #[test]
    fn acknowledgements_out_of_order_leave_the_others_in_place() {
        let mut window = Outbound::default();
        let sent: Vec<_> = (0..5).map(|_| window.send(QoS::AtLeastOnce, None)).collect();
        for at in [3, 1, 4, 0, 2] {
            assert!(window.puback(sent[at]).is_ok(), "{at}");
            assert!(window.puback(sent[at]).is_err(), "{at} twice");
        }
        assert!(window.has_room(1));
    }
}
