//! Sessions whose end the store does not have yet. If the broker was killed now they would come back, so their client ids stay with this
//! worker, and whoever connects with one of them is told that nothing is left only when that is certain.

use std::collections::VecDeque;

use hashbrown::HashMap;

use super::worker::Worker;
use crate::protocol::ids::{ClientId, Ticket};

/// Client ids by what their last session's end waits for. Empty but for the moments until a batch is stored, or while the store fails; then
/// bounded by `limits.sessions_max`, which these client ids count for.
#[derive(Debug, Default)]
pub(super) struct Ended {
    tickets: HashMap<ClientId, Ticket, foldhash::fast::RandomState>,
    in_order: VecDeque<(Ticket, ClientId)>,
}

impl Ended {
    /// A session's end was recorded.
    pub(super) fn note(&mut self, client_id: ClientId, ticket: Ticket) {
        self.in_order.push_back((ticket, client_id.clone()));
        self.tickets.insert(client_id, ticket);
    }

    /// True while the end of a session of this client is not certain.
    pub(super) fn has(&self, client_id: &str) -> bool {
        self.tickets.contains_key(client_id)
    }

    /// True when there may be one whose ends are all stored.
    pub(super) fn has_stored(&self, is_stored: impl Fn(Ticket) -> bool) -> bool {
        self.in_order.front().is_some_and(|(ticket, _)| is_stored(*ticket))
    }

    /// The next client id whose ends are all stored.
    fn next_stored(&mut self, is_stored: impl Fn(Ticket) -> bool) -> Option<ClientId> {
        while let Some((ticket, client_id)) = self.in_order.pop_front_if(|(ticket, _)| is_stored(*ticket)) {
            if self.tickets.get(&client_id) == Some(&ticket) {
                self.tickets.remove(&client_id);
                return Some(client_id);
            }
        }
        None
    }
}

impl Worker {
    /// Lets go of a client id that has no session any more, where nothing of the last one can come back.
    pub(super) fn release_client(&self, client_id: &ClientId) {
        if !self.clients.contains_key(client_id.key()) && !self.ended.has(client_id.key()) {
            self.broker.registry.release(client_id);
        }
    }

    /// The store has told of more batches: client ids that waited for that are anybody's again.
    pub(super) fn release_ended(&mut self) {
        while let Some(client_id) = self.next_ended() {
            self.release_client(&client_id);
        }
    }

    fn next_ended(&mut self) -> Option<ClientId> {
        let journal = &self.residents.journal;
        self.ended.next_stored(|ticket| journal.is_stored(ticket))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_id_is_free_when_the_last_of_its_ends_is_stored() {
        let mut ended = Ended::default();
        let (a, b) = (ClientId::new("a"), ClientId::new("b"));
        ended.note(a.clone(), Ticket::of_batch(1));
        ended.note(b.clone(), Ticket::of_batch(1));
        ended.note(a.clone(), Ticket::of_batch(2));
        let stored = |ended: &mut Ended, up_to| ended.next_stored(|ticket| ticket.batch() <= up_to);
        assert_eq!(stored(&mut ended, 0), None);
        assert_eq!(stored(&mut ended, 1), Some(b));
        assert_eq!(stored(&mut ended, 1), None);
        assert!(ended.has("a") && !ended.has("b"));
        assert_eq!(stored(&mut ended, 2), Some(a));
        assert!(!ended.has("a"));
    }
}
