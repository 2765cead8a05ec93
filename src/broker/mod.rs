//! Layer 5: the broker. One short method for each verb of MQTT; everything it needs comes from the layers below, everything it
//! decides goes back as values.
//!
//! There is one [`Broker`], shared by all workers, and one [`Worker`] for each core. A session lives on one worker for as long as it
//! exists; a client that connects elsewhere is handed over to that worker ("the connection goes to the session"), so no session
//! ever moves and no message can overtake another on the way.

mod access;
mod acknowledge;
mod authenticate;
mod back_pressure;
pub mod bans;
pub mod clients;
mod connack;
mod ended;
pub mod endings;
mod limits;
pub mod mail;
pub mod memory;
pub mod options;
mod paging;
mod publish;
mod rates;
pub mod registry;
mod release;
mod replay;
mod restore;
mod review;
mod route;
mod silence;
mod snapshot;
mod storing;
mod subscribe;
pub mod sys;
pub mod tenants;
pub mod timers;
pub mod worker;

use std::sync::{Arc, Mutex, RwLock};

use crate::auth::{AllowAll, AllowAnonymous, Authenticator, Authorizer};
use crate::delivery::congestion::Congestion;
use crate::delivery::mailbox::Mailboxes;
use crate::metrics::WorkerMetrics;
use crate::protocol::ids::{ClientId, WorkerId};
use crate::router::{Retained, Subscriptions};
use crate::storage::image::{Restored, RestoredSession};
use crate::storage::{MemoryStore, Numbers, Store};

pub use self::mail::Mail;
pub use self::options::{BrokerOptions, Qos2Delivery};
pub use self::worker::{Status, Worker};

/// What all workers share.
pub struct Broker {
    /// Options.
    pub options: BrokerOptions,
    /// Who subscribes to what. Lock order: this before `retained`; neither is held while anything else is waited for.
    pub subscriptions: RwLock<Subscriptions>,
    /// Retained messages.
    pub retained: RwLock<Retained>,
    /// Which worker has which client's session.
    pub registry: registry::Registry,
    /// Where workers meet.
    pub mailboxes: Mailboxes<Mail>,
    /// Counters of every worker.
    pub metrics: WorkerMetrics,
    /// Decides who enters.
    pub authenticator: Arc<dyn Authenticator>,
    /// Decides what a client may do.
    pub authorizer: Arc<dyn Authorizer>,
    /// Who is kept out for a while.
    pub bans: bans::BanTable,
    /// How many queues are so long that publishers should wait.
    pub(crate) congestion: Congestion,
    /// How much memory the process may use, and does.
    pub memory: memory::MemoryBudget,
    /// What must survive goes here.
    pub store: Arc<dyn Store>,
    /// Numbers of what the store keeps.
    pub(crate) numbers: Arc<Numbers>,
    /// Sessions that the store had, for each worker, until it takes them.
    pub(crate) restored: Vec<Mutex<Vec<RestoredSession>>>,
    /// Part of what the store had could not be read.
    pub(crate) has_lost: bool,
    /// A number that nobody outside can guess, for client ids and hashes.
    pub seed: u64,
}

impl std::fmt::Debug for Broker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Broker")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

/// The parts of a broker that can be replaced.
pub struct Parts {
    /// Decides who enters; default everyone.
    pub authenticator: Arc<dyn Authenticator>,
    /// Decides what a client may do; default everything.
    pub authorizer: Arc<dyn Authorizer>,
    /// What must survive goes here; default memory.
    pub store: Arc<dyn Store>,
    /// What the store had; default nothing.
    pub restored: Restored,
    /// A number that nobody outside can guess.
    pub seed: u64,
}

impl Default for Parts {
    fn default() -> Self {
        Self {
            authenticator: Arc::new(AllowAnonymous),
            authorizer: Arc::new(AllowAll),
            store: Arc::new(MemoryStore),
            restored: Restored::default(),
            seed: std::hash::BuildHasher::hash_one(&foldhash::fast::RandomState::default(), "seed"),
        }
    }
}

impl std::fmt::Debug for Parts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parts").finish_non_exhaustive()
    }
}

impl Broker {
    /// A broker for that many workers, with what its store had. Every worker is to be made before one of them serves.
    pub fn new(options: BrokerOptions, workers: usize, parts: Parts) -> Arc<Self> {
        let Restored {
            sessions,
            retained: messages,
            last_session,
            last_message,
            last_retained_order,
            report,
        } = parts.restored;
        let mut retained = Retained::new(options.retained);
        retained.restore(messages, last_retained_order);
        let registry = registry::Registry::default();
        let mut restored: Vec<_> = (0..workers).map(|_| Vec::new()).collect();
        // Newest first: should a client have two, of which the end of one was lost, the newer one counts.
        for (at, session) in sessions.into_iter().rev().enumerate() {
            let owner = WorkerId((at % workers) as u16);
            let client_id = ClientId::of(&session.tenant, &session.client_id);
            if registry.owner(client_id.key()).is_none() {
                registry.claim(&client_id, owner, usize::MAX, usize::MAX);
                restored[owner.index()].push(session);
            }
        }
        let broker = Arc::new(Self {
            subscriptions: RwLock::new(Subscriptions::new(options.overlap, options.shared.clone())),
            retained: RwLock::new(retained),
            registry,
            mailboxes: Mailboxes::new(workers),
            metrics: WorkerMetrics::new(workers),
            authenticator: parts.authenticator,
            authorizer: parts.authorizer,
            bans: bans::BanTable::new(options.bans.clone()),
            congestion: Congestion::default(),
            memory: memory::MemoryBudget::new(options.memory_bytes_max),
            store: parts.store,
            numbers: Arc::new(Numbers::after(last_session, last_message)),
            restored: restored.into_iter().map(Mutex::new).collect(),
            has_lost: !report.lost.is_empty(),
            seed: parts.seed,
            options,
        });
        broker.share_retained();
        broker.store.attach(Arc::new(storing::Events::new(&broker)));
        broker.authenticator.attach(Arc::new(access::LateAnswers::new(&broker)));
        broker
    }
}

/// Reads behind a lock; a panic elsewhere never leaves these tables half changed.
pub(crate) fn read<T>(lock: &RwLock<T>) -> std::sync::RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Changes behind a lock.
pub(crate) fn write<T>(lock: &RwLock<T>) -> std::sync::RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(std::sync::PoisonError::into_inner)
}
