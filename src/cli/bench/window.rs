//! The messages of QoS 1 and 2 that a publisher has on the way: their packet identifiers, and how many more may go.

use crate::protocol::ids::PacketId;

/// Packet identifiers in use, at most `max` of them.
#[derive(Debug)]
pub(super) struct Window {
    max: u32,
    open: u32,
    next: PacketId,
    /// A bit for each identifier. Empty where `max` is 0.
    in_use: Box<[u64]>,
}

impl Window {
    /// At most 65,535; 0 at QoS 0, where nothing is acknowledged.
    pub(super) fn new(max: u32) -> Self {
        Self {
            max,
            open: 0,
            next: PacketId::FIRST,
            in_use: vec![0; if max == 0 { 0 } else { 1024 }].into(),
        }
    }

    /// The most that may be open.
    pub(super) const fn max(&self) -> u32 {
        self.max
    }

    /// What may go now.
    pub(super) const fn free(&self) -> u32 {
        self.max - self.open
    }

    /// Opens one. Only while [`Self::free`] is above 0.
    #[inline]
    pub(super) fn open(&mut self) -> PacketId {
        while self.bit(self.next) {
            self.next = self.next.next();
        }
        let id = self.next;
        self.next = id.next();
        self.in_use[usize::from(id.get() / 64)] |= 1 << (id.get() % 64);
        self.open += 1;
        id
    }

    /// Closes one; false where the identifier is not in use.
    #[inline]
    pub(super) fn close(&mut self, id: PacketId) -> bool {
        let is_open = !self.in_use.is_empty() && self.bit(id);
        if is_open {
            self.in_use[usize::from(id.get() / 64)] &= !(1 << (id.get() % 64));
            self.open -= 1;
        }
        is_open
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
        let stuck = window.open();
        for turn in 0..70_000 {
            let id = window.open();
            assert!(id != stuck && window.free() == 0, "turn {turn}");
            assert!(window.close(id));
        }
        assert!(
            window.close(stuck) && !window.close(stuck),
            "an acknowledgement of nothing is seen"
        );
        assert_eq!(window.free(), 2);
        assert!(!Window::new(0).close(stuck));
    }
}
