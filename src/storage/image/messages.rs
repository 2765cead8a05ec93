//! Messages that deliveries need: each once, for as long as one of them is there.

use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::HashMap;

use crate::protocol::ids::MessageNumber;
use crate::protocol::message::Message;
use crate::protocol::time::Time;

/// What is known of a message.
#[derive(Clone, Debug)]
pub(super) struct KnownMessage {
    /// `None` above the budget, and where only that it was released is known.
    pub(super) content: Option<Arc<Message>>,
    /// [`Message::cost_bytes`]; 0 where its content was never seen.
    pub(super) bytes: usize,
    /// [`Time::NEVER`] for never.
    pub(super) expires_at: Time,
    /// Deliveries that need it.
    deliveries: u32,
}

/// Messages by number.
#[derive(Debug)]
pub(super) struct Messages {
    known: HashMap<MessageNumber, KnownMessage, RandomState>,
    memory_bytes: usize,
    memory_bytes_max: usize,
}

impl Messages {
    pub(super) fn new(memory_bytes_max: usize) -> Self {
        Self {
            known: HashMap::default(),
            memory_bytes: 0,
            memory_bytes_max,
        }
    }

    #[cfg(test)]
    pub(super) fn is_known(&self, number: MessageNumber) -> bool {
        self.known.contains_key(&number)
    }

    pub(super) fn get(&self, number: MessageNumber) -> Option<&KnownMessage> {
        self.known.get(&number)
    }

    /// The content of a message, if it is in memory.
    pub(super) fn content(&self, number: MessageNumber) -> Option<Arc<Message>> {
        self.known.get(&number)?.content.clone()
    }

    /// Keeps a message that deliveries are going to need.
    pub(super) fn keep(&mut self, number: MessageNumber, expires_at: Time, make: impl FnOnce() -> Arc<Message>) {
        let known = self.known.entry(number).or_insert(KnownMessage {
            content: None,
            bytes: 0,
            expires_at,
            deliveries: 0,
        });
        if known.bytes > 0 {
            return;
        }
        let content = make();
        known.bytes = content.cost_bytes();
        known.expires_at = expires_at;
        if self.memory_bytes + known.bytes <= self.memory_bytes_max {
            self.memory_bytes += known.bytes;
            known.content = Some(content);
        }
    }

    /// Another delivery needs a message.
    pub(super) fn refer(&mut self, number: MessageNumber, expires_at: Time, make: impl FnOnce() -> Arc<Message>) {
        self.keep(number, expires_at, make);
        if let Some(known) = self.known.get_mut(&number) {
            known.deliveries += 1;
        }
    }

    /// Another delivery needs a message, if it is known; one that was released needs only its number.
    pub(super) fn refer_known(&mut self, number: MessageNumber, is_released: bool) -> bool {
        if is_released {
            self.known.entry(number).or_insert(KnownMessage {
                content: None,
                bytes: 0,
                expires_at: Time::NEVER,
                deliveries: 0,
            });
        }
        match self.known.get_mut(&number) {
            Some(known) if known.bytes > 0 || is_released => {
                known.deliveries += 1;
                true
            }
            _ => false,
        }
    }

    /// A delivery is over.
    pub(super) fn release(&mut self, number: MessageNumber) {
        let Some(known) = self.known.get_mut(&number) else {
            return;
        };
        known.deliveries -= 1;
        if known.deliveries > 0 {
            return;
        }
        if known.content.is_some() {
            self.memory_bytes -= known.bytes;
        }
        self.known.remove(&number);
    }
}
