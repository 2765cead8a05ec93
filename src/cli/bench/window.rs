//! The messages of QoS 1 and 2 that a publisher has on the way: their packet identifiers, and how many more may go.

use std::collections::VecDeque;

use crate::protocol::ids::PacketId;

/// Packet identifiers in use, at most `max` of them.
#[derive(Debug)]
pub(super) struct Window {
    max: u32,
    /// In the order in which they were opened, each with the time of its message: that is the order in which they are acknowledged [MQTT-4.6.0-2].
    open: VecDeque<(PacketId, u64)>,
    next: PacketId,
    /// A bit for each identifier. Empty where `max` is 0.
    in_use: Box<[u64]>,
}

impl Window {
    /// At most 65,535; 0 at QoS 0, where nothing is acknowledged.
    pub(super) fn new(max: u32) -> Self {
        Self {
            max,
            open: VecDeque::new(),
            next: PacketId::FIRST,
            in_use: vec![0; if max == 0 { 0 } else { 1024 }].into(),
        }
    }

    /// The most that may be open.
    pub(super) const fn max(&self) -> u32 {
        self.max
    }

    /// What may go now.
    pub(super) fn free(&self) -> u32 {
        self.max - self.open.len() as u32
    }

    /// The identifier of the next one. Only while [`Self::free`] is above 0.
    #[inline]
    pub(super) fn next(&mut self) -> PacketId {
        while self.bit(self.next) {
            self.next = self.next.next();
        }
        self.next
    }

    /// Opens [`Self::next`], of a message of this time.
    #[inline]
    pub(super) fn open(&mut self, time: u64) {
        let id = self.next();
        self.next = id.next();
        self.in_use[usize::from(id.get() / 64)] |= 1 << (id.get() % 64);
        self.open.push_back((id, time));
    }

    /// Closes one and says its time; `None` where the identifier is not in use.
    #[inline]
    pub(super) fn close(&mut self, id: PacketId) -> Option<u64> {
        let at = self.open.iter().position(|(open, _)| *open == id)?;
        self.in_use[usize::from(id.get() / 64)] &= !(1 << (id.get() % 64));
        self.open.remove(at).map(|(_, time)| time)
    }

    #[inline]
    fn bit(&self, id: PacketId) -> bool {
        self.in_use[usize::from(id.get() / 64)] & 1 << (id.get() % 64) != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_go_round_and_skip_what_is_not_acknowledged() {
        let mut window = Window::new(2);
        let stuck = window.next();
        window.open(7);
        for turn in 0..70_000 {
            let id = window.next();
            window.open(turn);
            assert!(id != stuck && window.free() == 0, "turn {turn}");
            assert_eq!(window.close(id), Some(turn));
        }
        assert_eq!(
            (window.close(stuck), window.close(stuck)),
            (Some(7), None),
            "an acknowledgement of nothing is seen"
        );
        assert_eq!(window.free(), 2);
        assert_eq!(Window::new(0).close(stuck), None);
    }
}
