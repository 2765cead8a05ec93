//! Clients of a tenant: what they say gets the mount point in front of its topics before anything is done with it, and from there on is like
//! what everybody says. What goes out loses it again in `delivery/frames.rs` and `delivery/written.rs`.
//!
//! Their client identifiers are those of [`ClientId::of`], so registry, sessions and store tell tenants apart without knowing of them.

use dashmap::DashMap;
use hashbrown::HashSet;
use tracing::warn;

use super::endings::{Ending, EventLog};
use super::worker::{Flow, Worker};
use super::{Broker, read, write};
use crate::auth::tenants::TenantLimits;
use crate::auth::{Access, Refusal};
use crate::protocol::ids::{ClientId, ConnectionKey};
use crate::protocol::mount::{Mount, TooLong};
use crate::protocol::packet::{Subscribe, Unsubscribe};
use crate::protocol::property::{Properties, PropertiesBuf};
use crate::protocol::reason::ReasonCode;
use crate::protocol::time::Time;
use crate::protocol::topic::{TopicFilter, TopicName};
use crate::session::connection::{Connection, Phase};
use crate::session::request::ConnectRequest;

/// How much each tenant has now: those that have something.
#[derive(Debug, Default)]
pub struct TenantCounts(DashMap<Box<str>, TenantCount, foldhash::fast::RandomState>);

/// How much one tenant has now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TenantCount {
    /// Connections that were let in.
    pub connections: usize,
    /// Sessions, with and without a connection.
    pub sessions: usize,
    /// Subscriptions of its sessions.
    pub subscriptions: usize,
}

impl TenantCounts {
    /// Counts one more; false, and nothing is counted, where that would be more than `max`.
    fn add(&self, mount: Mount<'_>, max: usize, pick: impl Fn(&mut TenantCount) -> &mut usize) -> bool {
        let mut entry = self.0.entry(mount.as_str().into()).or_default();
        let count = pick(&mut entry);
        let has_room = *count < max;
        *count += usize::from(has_room);
        drop(entry);
        if !has_room {
            self.forget_if_nothing(mount);
        }
        has_room
    }

    fn forget_if_nothing(&self, mount: Mount<'_>) {
        self.0
            .remove_if(mount.as_str(), |_, count| *count == TenantCount::default());
    }

    fn remove(&self, mount: Mount<'_>, pick: impl Fn(&mut TenantCount) -> &mut usize) {
        if let Some(mut count) = self.0.get_mut(mount.as_str()) {
            let count = pick(&mut count);
            *count = count.saturating_sub(1);
        }
        self.forget_if_nothing(mount);
    }

    pub(super) fn add_session(&self, mount: Mount<'_>, max: usize) -> bool {
        self.add(mount, max, |count| &mut count.sessions)
    }

    pub(super) fn remove_session(&self, mount: Mount<'_>) {
        self.remove(mount, |count| &mut count.sessions);
    }

    pub(super) fn add_subscription(&self, mount: Mount<'_>, max: usize) -> bool {
        self.add(mount, max, |count| &mut count.subscriptions)
    }

    /// One of a session of this client is not there any more.
    pub(super) fn remove_subscription(&self, client_id: &ClientId) {
        if let Some(mount) = client_id.mount() {
            self.remove(mount, |count| &mut count.subscriptions);
        }
    }

    /// Each tenant that has something, by its mount point, with how much.
    pub fn iter(&self) -> impl Iterator<Item = (Box<str>, TenantCount)> {
        self.0.iter().map(|entry| (entry.key().clone(), *entry.value()))
    }
}

impl Broker {
    /// Counts a subscription of a client; false, and nothing is counted, if its tenant has as many as it may.
    pub(super) fn takes_subscription(&self, client_id: &ClientId) -> bool {
        client_id.mount().is_none_or(|mount| {
            let max = self.authenticator.tenant_limits(mount).subscriptions_max;
            self.registry.tenants.add_subscription(mount, max)
        })
    }

    /// Tells the retained store how much may be below which mount point.
    pub(super) fn share_retained(&self) {
        let shares = self.authenticator.retained_shares();
        let is_known = read(&self.retained).has_shares(&shares);
        if !is_known {
            write(&self.retained).set_shares(shares);
        }
    }
}

/// Told once a minute for each client.
impl EventLog {
    pub(super) fn tenant_full(&mut self, client_id: &ClientId, limit: &str, now: Time) {
        let Some(repeated) = self.record(&(client_id.key(), limit), now) else {
            return;
        };
        warn!(
            tenant = client_id.mount().map(Mount::as_str),
            client = client_id.as_str(),
            limit,
            repeated = (repeated > 0).then_some(repeated),
            "tenant has all it may have"
        );
    }
}

impl Worker {
    /// Puts a client that was let in where it belongs, and its will; or says why it cannot enter.
    pub(super) fn enter_tenant(&mut self, key: ConnectionKey, request: &mut ConnectRequest) -> Result<(), Refusal> {
        let Some(connection) = self.residents.connections.get_mut(key.0) else {
            return Ok(());
        };
        let mount = self.broker.authenticator.mount_of(&Access::of(connection));
        let mount = mount.map_err(|why| Refusal {
            reason: ReasonCode::NotAuthorized,
            why,
        })?;
        let Some(mount) = mount else { return Ok(()) };
        connection.client_id = Some(ClientId::of(&mount, connection.client_name()));
        connection.is_mounted = true;
        if let Some(will) = &request.will {
            let mounted = will.mounted(Mount::from_parsed(&mount));
            request.will = Some(mounted.map_err(|TooLong| Refusal {
                reason: ReasonCode::TopicNameInvalid,
                why: "will_topic",
            })?);
        }
        Ok(())
    }

    /// Whether a client still belongs where it was put. Where it was not put anywhere yet, that is decided when it is let in.
    pub(super) fn is_in_its_tenant(&self, connection: &Connection) -> bool {
        if !matches!(connection.phase, Phase::Admitted(_) | Phase::Connected) {
            return true;
        }
        let mount = self.broker.authenticator.mount_of(&Access::of(connection));
        mount.is_ok_and(|mount| mount.as_deref() == connection.tenant())
    }

    /// The limits of the tenant of a client.
    pub(super) fn tenant_limits(&self, client_id: &ClientId) -> TenantLimits {
        match client_id.mount() {
            None => TenantLimits::UNLIMITED,
            Some(mount) => self.broker.authenticator.tenant_limits(mount),
        }
    }

    /// Counts a connection of a tenant that is about to be let in, or refuses it, if it has as many as it may; true then.
    pub(super) fn is_tenant_full(&mut self, key: ConnectionKey, client_id: &ClientId, now: Time) -> bool {
        let Some(mount) = client_id.mount() else { return false };
        // Who takes over takes nothing more.
        let known = self.clients.get(client_id.key()).copied();
        let takes_over = known.is_some_and(|slot| self.connection_of(slot).is_some());
        let max = self.tenant_limits(client_id).connections_max;
        let max = max.saturating_add(usize::from(takes_over));
        let counts = &self.broker.registry.tenants;
        if counts.add(mount, max, |count| &mut count.connections) {
            return false;
        }
        self.metrics().limit_tenants.increment();
        let refusal = Refusal {
            reason: ReasonCode::QuotaExceeded,
            why: "tenants.connections_max",
        };
        self.refuse(key, &refusal, now);
        true
    }

    /// A connection that [`Worker::is_tenant_full`] has counted is not there any more.
    pub(super) fn forget_in_tenant(&self, client_id: &ClientId) {
        if let Some(mount) = client_id.mount() {
            let counts = &self.broker.registry.tenants;
            counts.remove(mount, |count| &mut count.connections);
        }
    }

    /// SUBSCRIBE of a client of a tenant.
    #[cold]
    pub(super) fn subscribe_in_tenant(&mut self, key: ConnectionKey, subscribe: &Subscribe<'_>, now: Time) -> Flow {
        let filters = subscribe.filters.iter().map(|(filter, _)| *filter);
        let Some(texts) = self.full_filters(key, filters, now) else {
            return Flow::Done;
        };
        let options = subscribe.filters.iter().map(|(_, options)| *options);
        let mounted = Subscribe {
            packet_id: subscribe.packet_id,
            properties: subscribe.properties,
            filters: kept(&texts).zip(options).collect(),
        };
        self.subscribe_to_full(key, &mounted, now)
    }

    /// UNSUBSCRIBE of a client of a tenant.
    #[cold]
    pub(super) fn unsubscribe_in_tenant(&mut self, key: ConnectionKey, unsubscribe: &Unsubscribe<'_>, now: Time) {
        if let Some(texts) = self.full_filters(key, unsubscribe.filters.iter().copied(), now) {
            let mounted = Unsubscribe {
                packet_id: unsubscribe.packet_id,
                properties: unsubscribe.properties,
                filters: kept(&texts).collect(),
            };
            self.unsubscribe_from_full(key, &mounted);
        }
    }

    /// The full texts of filters; `None` where one is too long, and the connection ended for it.
    fn full_filters<'f>(
        &mut self,
        key: ConnectionKey,
        filters: impl Iterator<Item = TopicFilter<'f>>,
        now: Time,
    ) -> Option<Vec<String>> {
        let mount = self.residents.connections.get(key.0)?.mount()?;
        let texts: Result<Vec<_>, TooLong> = filters.map(|filter| mount.filter(filter)).collect();
        match texts {
            Ok(texts) => Some(texts),
            Err(error) => {
                self.end_connection(key, Ending::Violation(error.into()), now);
                None
            }
        }
    }

    /// Topic and value of what each tenant's clients are told below `$SYS`: of themselves, and nothing of the broker. An empty
    /// value takes back what was told, where nothing is there any more.
    pub(super) fn tenant_values(&mut self) -> Vec<(String, String)> {
        let now: Vec<_> = self.broker.registry.tenants.iter().collect();
        let of = |mount: &str, [connected, total]: [String; 2]| {
            [("connected", connected), ("total", total)]
                .map(|(name, value)| (format!("${mount}$SYS/broker/clients/{name}"), value))
        };
        let counts = now.iter().flat_map(|(mount, count)| {
            of(
                mount,
                [count.connections, count.sessions].map(|number| number.to_string()),
            )
        });
        let mut values: Vec<_> = counts.collect();
        let known: HashSet<&str, foldhash::fast::RandomState> = now.iter().map(|(mount, _)| &**mount).collect();
        let told = self.sys.tenants.iter().map(|mount| &**mount);
        let gone = told.filter(|mount| !known.contains(mount));
        values.extend(gone.flat_map(|mount| of(mount, [const { String::new() }; 2])));
        drop(known);
        self.sys.tenants = now.into_iter().map(|(mount, _)| mount).collect();
        values
    }

    /// Whether the client of a connection belongs to a tenant.
    pub(super) fn is_mounted(&self, key: ConnectionKey) -> bool {
        let connection = self.residents.connections.get(key.0);
        connection.is_some_and(|connection| connection.is_mounted)
    }
}

/// Filters with their mount points, which are filters still.
fn kept(texts: &[String]) -> impl Iterator<Item = TopicFilter<'_>> {
    texts
        .iter()
        .map(|text| TopicFilter::kept(text).unwrap_or(TopicFilter::NONE))
}

/// A topic that a client of a tenant has published to.
#[derive(Debug)]
pub(super) struct MountedName {
    topic: String,
    client_id: ClientId,
}

impl MountedName {
    /// `None` where the client belongs to no tenant.
    pub(super) fn of(connection: &Connection, topic: TopicName<'_>) -> Option<Result<Self, TooLong>> {
        let topic = connection.mount()?.topic(topic);
        let client_id = connection.client_id.clone()?;
        Some(topic.map(|topic| Self { topic, client_id }))
    }

    /// With its mount point.
    pub(super) fn topic(&self) -> TopicName<'_> {
        TopicName::from_parsed(&self.topic)
    }

    /// Properties with the full name of a response topic.
    pub(super) fn properties_in<'p>(
        &self,
        properties: Properties<'p>,
        scratch: &'p mut PropertiesBuf,
    ) -> Properties<'p> {
        match self.client_id.mount() {
            Some(mount) => mount.properties_in(properties, scratch),
            None => properties,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::auth::{Answer, Authenticator, Identity, Verdict};
    use crate::broker::mail::Outcome;
    use crate::broker::worker::Status;
    use crate::broker::{Broker, BrokerOptions, Parts};
    use crate::protocol::ids::{Token, WorkerId};
    use crate::session::peer::Peer;
    use crate::session::peer::tests::peer;

    /// Everybody is of one tenant; who it is takes a while.
    #[derive(Default)]
    struct Slow {
        asked: Mutex<Option<Token>>,
        has_changed: AtomicBool,
    }

    impl Authenticator for Slow {
        fn connect(&self, _: &ConnectRequest, _: &Peer, token: Token) -> Answer<Verdict> {
            *self.asked.lock().unwrap() = Some(token);
            Answer::Pending
        }

        fn mount_of(&self, _: &Access<'_>) -> Result<Option<Box<str>>, &'static str> {
            let mount = match self.has_changed.load(Ordering::Relaxed) {
                false => "a/",
                true => "b/",
            };
            Ok(Some(mount.into()))
        }

        fn has_tenants(&self) -> bool {
            true
        }
    }

    #[test]
    fn a_reload_cuts_off_nobody_who_is_still_connecting() {
        let now = Time(1_000_000);
        let authenticator = Arc::new(Slow::default());
        let parts = Parts {
            authenticator: Arc::clone(&authenticator) as _,
            ..Parts::default()
        };
        let broker = Broker::new(BrokerOptions::default(), 1, parts);
        let mut worker = Worker::new(broker, WorkerId(0), now);
        let [silent, waiting] = [(); 2].map(|()| worker.open(peer(), now.plus_secs(10), now));
        worker.receive(waiting, b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x00\x00\x01c", now);
        worker.look_at_access_again(now);
        assert_eq!(worker.status(silent), Status::Open);
        assert_eq!(worker.status(waiting), Status::Waiting);
        let token = authenticator.asked.lock().unwrap().unwrap();
        worker.complete(token, Outcome::Verdict(Verdict::Admit(Identity::default())), now);
        assert_eq!(worker.status(waiting), Status::Open);
        let tenant = |worker: &Worker| worker.residents.connections.get(waiting.0).unwrap().tenant() == Some("a/");
        assert!(tenant(&worker));
        worker.look_at_access_again(now);
        assert_eq!(worker.status(waiting), Status::Open);
        authenticator.has_changed.store(true, Ordering::Relaxed);
        worker.look_at_access_again(now);
        assert_eq!(worker.status(waiting), Status::Closing, "it is of another tenant now");
    }
}
