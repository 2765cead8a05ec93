//! Which worker has which client's session: one atomic decision for each client id.

use std::sync::atomic::{AtomicUsize, Ordering};

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;

use super::tenants::TenantCounts;
use crate::protocol::ids::{ClientId, WorkerId};

/// Client id → the worker on which its session lives.
#[derive(Debug, Default)]
pub struct Registry {
    owners: DashMap<ClientId, WorkerId, foldhash::fast::RandomState>,
    sessions: AtomicUsize,
    /// What of them, and of connections, each tenant has.
    pub tenants: TenantCounts,
}

/// What a worker that wants to serve a client finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// The client is the claimant's, and has been or is now.
    Mine,
    /// Another worker has it: the connection must go there.
    Elsewhere(WorkerId),
    /// The client is new and there are too many sessions.
    Full,
    /// The client is new and its tenant has too many sessions.
    TenantFull,
}

impl Registry {
    /// Claims a client for `me` unless another worker has it. A tenant may have `tenant_max` sessions, all together `sessions_max`.
    pub fn claim(&self, client_id: &ClientId, me: WorkerId, sessions_max: usize, tenant_max: usize) -> Claim {
        match self.owners.entry(client_id.clone()) {
            Entry::Occupied(owner) if *owner.get() == me => Claim::Mine,
            Entry::Occupied(owner) => Claim::Elsewhere(*owner.get()),
            Entry::Vacant(place) => {
                if self.sessions.fetch_add(1, Ordering::Relaxed) >= sessions_max {
                    self.sessions.fetch_sub(1, Ordering::Relaxed);
                    return Claim::Full;
                }
                if let Some(mount) = client_id.mount()
                    && !self.tenants.add_session(mount, tenant_max)
                {
                    self.sessions.fetch_sub(1, Ordering::Relaxed);
                    return Claim::TenantFull;
                }
                place.insert(me);
                Claim::Mine
            }
        }
    }

    /// The session has ended. Only its own worker says so, so nobody else's claim can be undone.
    pub fn release(&self, client_id: &ClientId) {
        if self.owners.remove(client_id).is_some() {
            self.sessions.fetch_sub(1, Ordering::Relaxed);
            if let Some(mount) = client_id.mount() {
                self.tenants.remove_session(mount);
            }
        }
    }

    /// The worker that has a client, by [`ClientId::key`].
    pub fn owner(&self, client_id: &str) -> Option<WorkerId> {
        self.owners.get(client_id).map(|owner| *owner)
    }

    /// Sessions on all workers.
    pub fn sessions(&self) -> usize {
        self.sessions.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_claimant_has_the_client_until_it_is_released() {
        let registry = Registry::default();
        let id = ClientId::new("a");
        assert_eq!(registry.claim(&id, WorkerId(1), 1, 9), Claim::Mine);
        assert_eq!(registry.claim(&id, WorkerId(0), 1, 9), Claim::Elsewhere(WorkerId(1)));
        assert_eq!(registry.claim(&id, WorkerId(1), 1, 9), Claim::Mine);
        assert_eq!(registry.claim(&ClientId::new("b"), WorkerId(0), 1, 9), Claim::Full);
        registry.release(&id);
        registry.release(&id);
        assert_eq!(registry.sessions(), 0);
        assert_eq!(registry.claim(&id, WorkerId(0), 1, 9), Claim::Mine);
    }

    #[test]
    fn a_tenant_has_its_own_limit_and_its_own_clients() {
        let registry = Registry::default();
        let [house, a, b] = ["", "a/", "b/"].map(|mount| ClientId::of(mount, "c"));
        for id in [&house, &a, &b] {
            assert_eq!(registry.claim(id, WorkerId(0), 9, 1), Claim::Mine);
        }
        let second = ClientId::of("a/", "d");
        assert_eq!(registry.claim(&second, WorkerId(0), 9, 1), Claim::TenantFull);
        assert_eq!((registry.sessions(), registry.tenants.iter().count()), (3, 2));
        registry.release(&a);
        assert_eq!(registry.claim(&second, WorkerId(0), 9, 1), Claim::Mine);
        for id in [&house, &b, &second] {
            registry.release(id);
        }
        assert_eq!((registry.sessions(), registry.tenants.iter().count()), (0, 0));
    }
}
