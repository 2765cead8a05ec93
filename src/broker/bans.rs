//! Who is banned: wrong passwords and connections are counted, the banned are refused, an administrator's word is kept.

use core::net::IpAddr;
use std::borrow::Cow;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use tracing::{info, warn};

use super::endings::Ending;
use super::worker::Worker;
use super::{Broker, Mail};
use crate::auth::bans::{About, BANNED, Ban, BanOptions, Bans, Subject, TooManyOrders, is_guess};
use crate::auth::way::looks_like_token;
use crate::auth::{Guess, Refusal};
use crate::protocol::ids::{ConnectionKey, WorkerId};
use crate::protocol::reason::ReasonCode;
use crate::protocol::time::Time;
use crate::session::connection::{Connection, Phase};
use crate::session::network::source;

#[cfg(test)]
mod tests;

/// The bans of all workers. While nobody is banned, asking costs a load.
#[derive(Debug)]
pub struct BanTable {
    bans: Mutex<Bans>,
    /// [`Bans::latest`]
    latest: AtomicU64,
    counts_connections: bool,
}

impl BanTable {
    /// Nobody is banned.
    pub fn new(options: BanOptions) -> Self {
        Self {
            counts_connections: options.connects_max < u32::MAX,
            latest: AtomicU64::new(0),
            bans: Mutex::new(Bans::new(options)),
        }
    }

    /// See [`Bans::address`].
    pub fn address(&self, ip: IpAddr, now: Time) -> Option<Time> {
        self.if_any(now, |bans| bans.address(ip, now))
    }

    /// See [`Bans::client`].
    pub fn client(&self, ip: Option<IpAddr>, user: Option<&str>, client_id: &str, now: Time) -> Option<Time> {
        self.if_any(now, |bans| bans.client(ip, user, client_id, now))
    }

    /// See [`Bans::list`].
    pub fn list(&self, now: Time) -> Vec<Ban> {
        self.change(|bans| bans.list(now))
    }

    /// See [`Bans::orders`].
    pub fn orders(&self) -> Vec<Ban> {
        self.change(|bans| bans.orders().cloned().collect())
    }

    /// See [`Bans::lift`].
    pub fn lift(&self, subject: &Subject, now: Time) -> usize {
        self.change(|bans| bans.lift(subject, now))
    }

    /// Whether anybody may be banned.
    fn may_be_any(&self, now: Time) -> bool {
        self.latest.load(Ordering::Acquire) > now.0
    }

    /// Looks, where somebody may be banned.
    fn if_any(&self, now: Time, look: impl FnOnce(&Bans) -> Option<Time>) -> Option<Time> {
        if !self.may_be_any(now) {
            return None;
        }
        look(&self.bans.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn change<T>(&self, change: impl FnOnce(&mut Bans) -> T) -> T {
        let mut bans = self.bans.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = change(&mut bans);
        self.latest.store(bans.latest().0, Ordering::Release);
        changed
    }
}

impl Broker {
    /// An administrator bans somebody: who is connected is told to go (0x98).
    ///
    /// # Errors
    /// [`TooManyOrders`].
    pub fn ban(&self, subject: Subject, until: Time, note: &str, now: Time) -> Result<(), TooManyOrders> {
        self.bans
            .change(|bans| bans.add(subject.clone(), until, note.into(), now))?;
        for worker in 0..self.mailboxes.workers() as u16 {
            let letter = Mail::Banned(subject.clone());
            self.mailboxes.send(WorkerId(worker), &mut vec![letter]);
        }
        Ok(())
    }
}

/// What a client is called in bans: one of a tenant is another one than that of the same client id elsewhere.
fn banned_as(connection: &Connection) -> Cow<'_, str> {
    match connection.tenant() {
        None => connection.client_name().into(),
        Some(tenant) => format!("{} of {tenant}", connection.client_name()).into(),
    }
}

impl Worker {
    /// Refuses a client that is banned, under the user name that it gives or has.
    pub(super) fn check_ban(&self, key: ConnectionKey, user: Option<&str>, now: Time) -> Result<(), Refusal> {
        if !self.broker.bans.may_be_any(now) {
            return Ok(());
        }
        let Some(connection) = self.residents.connections.get(key.0) else {
            return Ok(());
        };
        // Whose client it is, is known when it is known who it is; until then it is none.
        let is_known = matches!(connection.phase, Phase::Admitted(_)) || !self.broker.authenticator.has_tenants();
        let client = if is_known { banned_as(connection) } else { "".into() };
        let until = self.broker.bans.client(connection.peer.ip, user, &client, now);
        if until.is_none() {
            return Ok(());
        }
        self.metrics().banned_connect.increment();
        Err(Refusal {
            reason: ReasonCode::Banned,
            why: BANNED,
        })
    }

    /// A client has proved who it is: it may be another user than it said, and it may come too often.
    pub(super) fn check_admitted(&self, key: ConnectionKey, now: Time) -> Result<(), Refusal> {
        let Some(connection) = self.residents.connections.get(key.0) else {
            return Ok(());
        };
        let user = connection.user_name.as_deref();
        if self.broker.bans.counts_connections
            && let Some(ip) = connection.peer.ip
        {
            let client = banned_as(connection);
            let ban = self.broker.bans.change(|bans| bans.connected(ip, &client, user, now));
            self.tell_of(ban, Some(&*connection.peer.rules.name), now);
        }
        self.check_ban(key, user, now)
    }

    /// A client was refused: if it has guessed wrongly, that counts against its address, and the user name that it gave.
    pub(super) fn count_refusal(&self, key: ConnectionKey, why: &'static str, now: Time) {
        let Some(connection) = self.residents.connections.get(key.0).filter(|_| is_guess(why)) else {
            return;
        };
        let listener = Some(&*connection.peer.rules.name);
        self.count_failure(connection.peer.ip, connection.user_name.as_deref(), listener, now);
    }

    /// The same of one that has gone before it was refused.
    pub(super) fn count_guess(&self, guess: &Guess, now: Time) {
        let user = guess.user_name.as_deref().filter(|name| !looks_like_token(name));
        self.count_failure(guess.from, user, None, now);
    }

    fn count_failure(&self, from: Option<IpAddr>, user: Option<&str>, listener: Option<&str>, now: Time) {
        let Some(ip) = from else { return };
        // Those of other workers are not seen: where many are connected from one address, some are here.
        let is_shared = || {
            let mut connections = self.residents.connections.iter();
            connections.any(|(_, other)| {
                matches!(other.phase, Phase::Connected)
                    && other.peer.ip.is_some_and(|other| source(other) == source(ip))
            })
        };
        let made = self.broker.bans.change(|bans| bans.failed(ip, user, is_shared, now));
        self.tell_of(made, listener, now);
    }

    /// One line for each ban; none for whom it keeps out.
    fn tell_of(&self, bans: impl IntoIterator<Item = Ban>, listener: Option<&str>, now: Time) {
        for ban in bans {
            let counter = match ban.about {
                About::Login(..) => &self.metrics().bans_user,
                About::Client(..) => &self.metrics().bans_client,
                About::Address(_) | About::Order(_) => &self.metrics().bans_address,
            };
            counter.increment();
            let (seconds, count) = (now.secs_until(ban.until), ban.count);
            warn!(reason = BANNED, listener, seconds, count, "banned: {}", ban.about);
        }
    }

    /// An administrator has banned somebody: who it is goes.
    pub(super) fn let_banned_go(&mut self, subject: &Subject, now: Time) {
        let mut gone = Vec::new();
        for (key, connection) in self.residents.connections.iter() {
            let user = connection.user_name.as_deref();
            if subject.is(connection.peer.ip, user, &banned_as(connection)) {
                gone.push(ConnectionKey(key));
            }
        }
        if !gone.is_empty() {
            info!(
                reason = BANNED,
                connections = gone.len(),
                "an administrator's ban: {}",
                About::Order(subject.clone())
            );
        }
        for key in gone {
            // CONNACK alone can say "banned" (table 3-13).
            self.end_connection(key, Ending::Administrative(ReasonCode::AdministrativeAction), now);
        }
    }
}
