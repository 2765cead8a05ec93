//! The accept loop: which worker gets a connection.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tracing::warn;

use super::listener::{Accepted, Listener, ListenerShared};
use super::worker::{Arrival, Local, Stop, WorkerHandle};
use crate::protocol::bucket::Bucket;
use crate::protocol::ids::WorkerId;
use crate::session::peer::ListenerRules;

/// How connections are spread over workers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Placement {
    /// The first worker that is not busy: publishers and subscribers on one worker cost each other nothing. Default.
    #[default]
    Auto,
    /// Each worker in turn.
    RoundRobin,
}

/// A worker that was at work for more than this share of the last moment is busy.
const BUSY: f64 = 0.7;
/// How long a reading of the workers' loads is good for.
const READING: Duration = Duration::from_millis(500);
/// At most one line about too many connections in this time.
const COMPLAINT: Duration = Duration::from_secs(60);

/// Decides who comes in, and where to.
pub(super) struct Gate {
    pub(super) placement: Placement,
    pub(super) connections_max: usize,
    pub(super) workers: Vec<WorkerHandle>,
    /// All listeners: `connections_max` is theirs together.
    pub(super) listeners: Vec<Arc<ListenerShared>>,
    pub(super) me: WorkerId,
}

/// Accepts until the broker stops.
pub(super) async fn accept(
    local: Rc<Local>,
    mut listener: Listener,
    rules: Arc<ListenerRules>,
    gate: Gate,
    mut stop: watch::Receiver<Stop>,
) {
    if let Err(error) = listener.attach() {
        tracing::error!(listener = rules.name, %error, "cannot accept on this listener");
        return;
    }
    listener.counts_in(local.metrics());
    let mut chooser = Chooser::new(&gate);
    let (rate, mut bucket) = (listener.shared().options().connect_rate_max, Bucket::default());
    let mut refused = 0u64;
    let mut complained: Option<Instant> = None;
    loop {
        let mut accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.wait_for(|stop| *stop != Stop::Running) => return,
        };
        // This one, and those whose handshake is not over, are counted too: each has its descriptor.
        let total: usize = gate.listeners.iter().map(|listener| listener.connections()).sum();
        if total > gate.connections_max {
            refused += 1;
            local.count(|metrics| &metrics.limit_connections);
            if complained.is_none_or(|at| at.elapsed() >= COMPLAINT) {
                let (addr, limit) = (accepted.peer.address, gate.connections_max);
                warn!(listener = rules.name, %addr, limit, refused, "connection refused: limits.connections_max reached");
                complained = Some(Instant::now());
                refused = 0;
            }
            continue;
        }
        if !is_of_proxy(&accepted) && local.keeps_out(&accepted.peer, &mut accepted.slot) {
            continue;
        }
        // Only now: who is kept out takes nothing of what is for everybody.
        if let Some(per_second) = rate {
            while let Err(at) = bucket.take(1, per_second, local.clock.now()) {
                local.count(|metrics| &metrics.limit_connect_rate);
                let pause = Duration::from_millis(at.millis_since(local.clock.now()));
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    _ = stop.wait_for(|stop| *stop != Stop::Running) => return,
                }
            }
        }
        let to = chooser.choose(&gate);
        if to == gate.me {
            Rc::clone(&local).begin(accepted, Arc::clone(&rules));
        } else if accepted.socket.detach().is_ok() {
            local
                .send_arrival(to, Arrival::Accepted(Box::new(accepted), Arc::clone(&rules)))
                .await;
        }
    }
}

/// Whether it comes from a proxy: whom it brings is looked at when that is known.
fn is_of_proxy(accepted: &Accepted) -> bool {
    let options = accepted.slot.listener().options();
    options.proxy_protocol.is_some() || options.forwards_for(&accepted.peer.address)
}

struct Chooser {
    next: usize,
    read_at: Instant,
    busy_micros: Vec<u64>,
    loads: Vec<f64>,
}

impl Chooser {
    fn new(gate: &Gate) -> Self {
        let workers = gate.workers.len();
        Self {
            next: 0,
            read_at: Instant::now(),
            busy_micros: vec![0; workers],
            loads: vec![0.0; workers],
        }
    }

    fn choose(&mut self, gate: &Gate) -> WorkerId {
        let at = match gate.placement {
            Placement::RoundRobin => {
                self.next = (self.next + 1) % gate.workers.len();
                self.next
            }
            Placement::Auto => {
                self.read_loads(gate);
                let least_busy = || {
                    let by_load = self.loads.iter().enumerate().min_by(|(_, a), (_, b)| a.total_cmp(b));
                    by_load.map_or(0, |(at, _)| at)
                };
                self.loads
                    .iter()
                    .position(|load| *load < BUSY)
                    .unwrap_or_else(least_busy)
            }
        };
        WorkerId(at as u16)
    }

    fn read_loads(&mut self, gate: &Gate) {
        let elapsed = self.read_at.elapsed();
        if elapsed < READING {
            return;
        }
        self.read_at = Instant::now();
        for (at, worker) in gate.workers.iter().enumerate() {
            let busy = worker.busy_micros.load(Ordering::Relaxed);
            self.loads[at] = busy.saturating_sub(self.busy_micros[at]) as f64 / elapsed.as_micros() as f64;
            self.busy_micros[at] = busy;
        }
    }
}
