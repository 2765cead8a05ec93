//! Which deliveries of a queue have their content in memory, and how it comes back from the store.
//!
//! A delivery is put in with its content. Above the memory budget it is *due*: when the store is known to have it, it gives up
//! its content and is *stored*. From then on all that follow do the same until the stored ones are gone, so that memory is for those whose
//! turn comes first. When it does, their contents are loaded, a run at a time and one run ahead, and the line goes on as it stands.

use std::ops::Range;
use std::sync::Arc;

use super::{Entry, Outbox, StoredDelivery};
use crate::protocol::ids::MessageNumber;
use crate::protocol::message::Message;
use crate::session::delivery::Delivery;

/// What the outbox knows about where contents are. Places as in [`Outbox::waiting_from`]; when a delivery is taken out of the middle, those
/// before it come to higher places, so a place is a lower bound.
#[derive(Debug, Default)]
pub(super) struct Pages {
    /// Deliveries whose content is in the store only.
    pub(super) stored: usize,
    /// None of them has a lower place.
    stored_from: u64,
    /// Deliveries from here on are due.
    due_from: Option<u64>,
    /// Somebody is to see to those that are due.
    is_marked: bool,
    /// Contents of these have been asked for.
    loading: Option<Range<u64>>,
    /// What was counted last.
    counted: Load,
}

/// What a queue, or all of a worker's, holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Deliveries.
    pub messages: usize,
    /// Of them, those whose content is in the store only.
    pub stored: usize,
    /// Bytes.
    pub bytes: usize,
    /// Of them, those whose content is in memory.
    pub memory_bytes: usize,
}

/// Messages that a store has read; `None` where one cannot be read any more.
pub type Loaded = Vec<(MessageNumber, Option<Arc<Message>>)>;

impl Pages {
    pub(super) const NONE: Self = Self {
        stored: 0,
        stored_from: 0,
        due_from: None,
        is_marked: false,
        loading: None,
        counted: Load {
            messages: 0,
            stored: 0,
            bytes: 0,
            memory_bytes: 0,
        },
    };
}

impl Outbox {
    /// What it holds.
    pub fn load(&self) -> Load {
        Load {
            messages: self.len(),
            stored: self.pages.stored,
            bytes: self.bytes,
            memory_bytes: self.memory_bytes,
        }
    }

    /// Brings a sum over many up to date; false when nothing has changed.
    pub fn count_into(&mut self, total: &mut Load) -> bool {
        let now = self.load();
        let before = std::mem::replace(&mut self.pages.counted, now);
        if now == before {
            return false;
        }
        total.messages = total.messages + now.messages - before.messages;
        total.stored = total.stored + now.stored - before.stored;
        total.bytes = total.bytes + now.bytes - before.bytes;
        total.memory_bytes = total.memory_bytes + now.memory_bytes - before.memory_bytes;
        true
    }

    /// Drops everything.
    pub fn clear(&mut self) {
        let pages = std::mem::take(&mut self.pages);
        *self = Self::default();
        self.pages.counted = pages.counted;
    }

    /// True when the contents of some are in the store only.
    #[inline]
    pub const fn has_stored(&self) -> bool {
        self.pages.stored > 0
    }

    /// True when the contents of the next delivery have to come from the store first.
    #[inline]
    pub fn is_front_stored(&self) -> bool {
        self.pages.stored > 0 && self.acknowledged.front().is_some_and(Entry::is_stored)
    }

    /// True when what is put in is to give up its content.
    #[inline]
    pub const fn is_over_memory(&self, memory_bytes_max: usize) -> bool {
        self.memory_bytes > memory_bytes_max || self.pages.stored > 0
    }

    /// The delivery that was put in last is due; true when nobody has been told that some are.
    pub fn mark_due(&mut self) -> bool {
        self.pages.due_from.get_or_insert(self.put.saturating_sub(1));
        !std::mem::replace(&mut self.pages.is_marked, true)
    }

    /// Every delivery that is there is due; true when nobody has been told that some are.
    pub fn mark_all_due(&mut self) -> bool {
        if self.acknowledged.is_empty() {
            return false;
        }
        self.pages.due_from = Some(self.first_place());
        !std::mem::replace(&mut self.pages.is_marked, true)
    }

    /// The place up to which deliveries are due now. What comes later is told of anew.
    pub const fn take_mark(&mut self) -> u64 {
        self.pages.is_marked = false;
        self.put
    }

    /// The store has everything up to that place: what is due gives up its content, as long as memory is used up (`is_over` where it is
    /// whatever this queue holds).
    pub fn page_out(&mut self, end: u64, memory_bytes_max: usize, is_over: bool) {
        let Some(due_from) = self.pages.due_from else { return };
        let first = self.first_place();
        let from = due_from.max(first);
        self.pages.due_from = (end < self.put).then_some(end.max(from));
        for place in from..end.min(self.put) {
            if !is_over && !self.is_over_memory(memory_bytes_max) {
                return;
            }
            let entry = &mut self.acknowledged[(place - first) as usize];
            if let Entry::Memory(delivery) = entry
                && let Some(stored) = StoredDelivery::of(delivery)
            {
                self.memory_bytes -= delivery.cost_bytes();
                *entry = Entry::Stored(stored);
                if self.pages.stored == 0 {
                    self.pages.stored_from = place;
                }
                self.pages.stored += 1;
                self.pages.stored_from = self.pages.stored_from.min(place);
            }
        }
    }

    /// The next messages to ask the store for: of as many stored deliveries as stand together, or as the bounds allow, but one. `None` when there
    /// are none, or some have been asked for.
    pub fn next_run(&mut self, messages_max: usize, bytes_max: usize) -> Option<Vec<MessageNumber>> {
        if self.pages.stored == 0 || self.pages.loading.is_some() {
            return None;
        }
        let first = self.first_place();
        let from = self.pages.stored_from.saturating_sub(first) as usize;
        let waiting = self.acknowledged.range(from.min(self.acknowledged.len())..);
        let start = from + waiting.take_while(|entry| !entry.is_stored()).count();
        let (mut run, mut bytes, mut length) = (Vec::new(), 0, 0);
        for entry in self.acknowledged.range(start..).take(messages_max) {
            let Entry::Stored(stored) = entry else { break };
            bytes += entry.cost_bytes();
            if length > 0 && bytes > bytes_max {
                break;
            }
            length += 1;
            if run.last() != Some(&stored.message) {
                run.push(stored.message);
            }
        }
        let start = first + start as u64;
        self.pages.stored_from = start;
        self.pages.loading = (length > 0).then_some(start..start + length);
        (length > 0).then_some(run)
    }

    /// What was asked for has come: deliveries that still wait get their contents. Those whose content cannot be read leave the queue and
    /// are given back.
    pub fn fill(&mut self, loaded: &Loaded) -> Vec<StoredDelivery> {
        let mut lost = Vec::new();
        let Some(places) = self.pages.loading.take() else {
            return lost;
        };
        let first = self.first_place();
        let (mut at, mut end) = (
            places.start.saturating_sub(first) as usize,
            places.end.saturating_sub(first) as usize,
        );
        let mut loaded = loaded.iter().peekable();
        while at < end.min(self.acknowledged.len()) {
            let Entry::Stored(stored) = &self.acknowledged[at] else {
                at += 1;
                continue;
            };
            // Both are in the order of the queue; whose delivery has left meanwhile is passed over.
            while loaded.next_if(|(number, _)| *number != stored.message).is_some() {}
            match loaded.peek() {
                Some((_, Some(content))) => {
                    let delivery = stored.to_delivery(Arc::clone(content));
                    let (before, now) = (self.acknowledged[at].cost_bytes(), delivery.cost_bytes());
                    self.bytes = self.bytes - before + now;
                    self.memory_bytes += now;
                    self.pages.stored -= 1;
                    self.acknowledged[at] = Entry::Memory(delivery);
                    at += 1;
                }
                Some((_, None)) => {
                    if let Some(entry) = self.acknowledged.remove(at) {
                        self.took(&entry);
                        end -= 1;
                        lost.extend(match entry {
                            Entry::Stored(stored) => Some(stored),
                            Entry::Memory(_) => None,
                        });
                    }
                }
                None => break,
            }
        }
        lost
    }

    /// Takes a delivery that was waiting when the broker stopped, whatever the bounds are now.
    pub fn restore(&mut self, entry: Entry) {
        self.bytes += entry.cost_bytes();
        self.memory_bytes += entry.memory_bytes();
        self.put += 1;
        if entry.is_stored() {
            if self.pages.stored == 0 {
                self.pages.stored_from = self.put - 1;
            }
            self.pages.stored += 1;
        }
        self.acknowledged.push_back(entry);
    }

    /// The same, of a delivery with its content, which the store has: the content is given up where memory is used up.
    pub fn restore_delivery(&mut self, delivery: Delivery, memory_bytes_max: usize, is_over: bool) {
        let is_over = is_over || self.pages.stored > 0 || self.memory_bytes + delivery.cost_bytes() > memory_bytes_max;
        let stored = StoredDelivery::of(&delivery).filter(|_| is_over);
        self.restore(stored.map_or(Entry::Memory(delivery), Entry::Stored));
    }

    /// The place of the first delivery that waits.
    pub(super) fn first_place(&self) -> u64 {
        self.put - self.acknowledged.len() as u64
    }
}
