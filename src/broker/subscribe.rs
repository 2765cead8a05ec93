//! SUBSCRIBE and UNSUBSCRIBE.

use smallvec::SmallVec;
use tracing::info;

use super::endings::Ending;
use super::storing::subscription_record;
use super::worker::{Flow, Worker};
use super::write;
use crate::auth::{Access, Answer};
use crate::codec::encode;
use crate::delivery::memory::MemoryState;
use crate::delivery::residents::Residents;
use crate::delivery::retained_walk::RetainedWalk;
use crate::protocol::ids::{ConnectionKey, SessionKey, SlotKey, Ticket};
use crate::protocol::packet::{Packet, RetainHandling, SubAck, Subscribe, SubscriptionOptions, UnsubAck, Unsubscribe};
use crate::protocol::property::PropertyId;
use crate::protocol::qos::QoS;
use crate::protocol::reason::ReasonCode;
use crate::protocol::time::Time;
use crate::protocol::topic::TopicFilter;
use crate::session::connection::Watch;
use crate::session::held::Reply;
use crate::session::state::Subscription;
use crate::session::violation::Violation;
use crate::storage::{Record, Standing};

impl Worker {
    pub(super) fn subscribe(&mut self, key: ConnectionKey, subscribe: &Subscribe<'_>, now: Time) -> Flow {
        if self.is_mounted(key) {
            return self.subscribe_in_tenant(key, subscribe, now);
        }
        self.subscribe_to_full(key, subscribe, now)
    }

    /// SUBSCRIBE with filters as the broker knows them.
    pub(super) fn subscribe_to_full(&mut self, key: ConnectionKey, subscribe: &Subscribe<'_>, now: Time) -> Flow {
        if let Some(violation) = self.check_subscribe(key, subscribe) {
            self.end_connection(key, Ending::Violation(violation), now);
            return Flow::Done;
        }
        // Every question is asked before anything takes effect: the packet may be handled again from its start.
        let mut allowed: SmallVec<[bool; 8]> = SmallVec::new();
        for (filter, _) in &subscribe.filters {
            match self.may_subscribe(key, *filter, now) {
                Answer::Ready(is_allowed) => allowed.push(is_allowed),
                Answer::Pending => return Flow::Wait,
            }
        }
        self.metrics().subscribe_received.increment();
        self.submit_new_session(key);
        let identifier = subscribe.properties.u32(PropertyId::SubscriptionIdentifier);
        let mut reasons = Vec::with_capacity(subscribe.filters.len());
        for ((filter, options), is_allowed) in subscribe.filters.iter().zip(allowed) {
            reasons.push(match self.may_be_granted(key, *filter, is_allowed, now) {
                Ok(maximum_qos) => {
                    let maximum_qos = maximum_qos.min(self.watch(key, *filter));
                    let options = SubscriptionOptions {
                        qos: options.qos.min(maximum_qos),
                        ..*options
                    };
                    self.add_subscription(key, *filter, options, identifier)
                }
                Err(reason) => reason,
            });
        }
        let suback = SubAck {
            packet_id: subscribe.packet_id,
            properties: Default::default(),
            reasons,
        };
        self.acknowledge_change(key, &Packet::SubAck(suback));
        let slot = self
            .residents
            .connections
            .get(key.0)
            .and_then(|connection| connection.session);
        if let Some(slot) = slot {
            self.continue_delivery(slot, now);
        }
        Flow::Done
    }

    /// What other workers record for a session must stand behind the record of the session itself: it goes to the store before anybody can
    /// find its subscriptions.
    fn submit_new_session(&mut self, key: ConnectionKey) {
        let created = self.residents.pair(key).map(|(_, resident)| resident.session.created);
        if created == Some(self.residents.journal.open_ticket()) {
            self.submit_records();
        }
    }

    fn check_subscribe(&mut self, key: ConnectionKey, subscribe: &Subscribe<'_>) -> Option<Violation> {
        let options = &self.broker.options;
        let version = self.residents.connections.get(key.0)?.version;
        if !version.has_properties() {
            return None; // told in SUBACK
        }
        for (filter, _) in &subscribe.filters {
            if !options.wildcard_subscriptions && filter.has_wildcard() {
                return Some(Violation::WildcardSubscriptions);
            }
            if !options.shared_subscriptions && filter.group().is_some() {
                return Some(Violation::SharedSubscriptions);
            }
        }
        let has_identifier = subscribe.properties.u32(PropertyId::SubscriptionIdentifier).is_some();
        (has_identifier && !options.subscription_identifiers).then_some(Violation::SubscriptionIdentifiers)
    }

    fn may_subscribe(&mut self, key: ConnectionKey, filter: TopicFilter<'_>, now: Time) -> Answer<bool> {
        let token = self.token(key);
        let Some(connection) = self.residents.connections.get_mut(key.0) else {
            return Answer::Ready(false);
        };
        if let Some(answer) = connection.questions.next_answer() {
            return Answer::Ready(answer);
        }
        let who = Access::of(connection);
        let answer = self.broker.authorizer.subscribe(&who, filter, token);
        match answer {
            // Kept in case a later filter of the packet has to wait.
            Answer::Ready(is_allowed) => connection.questions.answered(is_allowed),
            Answer::Pending => self.wait_for_answer(key, token, now),
        }
        answer
    }

    /// Whether a subscription may be made: the highest QoS it may have, or the reason why not.
    fn may_be_granted(
        &mut self,
        key: ConnectionKey,
        filter: TopicFilter<'_>,
        is_allowed: bool,
        now: Time,
    ) -> Result<QoS, ReasonCode> {
        let connection = self
            .residents
            .connections
            .get(key.0)
            .ok_or(ReasonCode::UnspecifiedError)?;
        let maximum_qos = self.maximum_qos(connection);
        let options = &self.broker.options;
        if !is_allowed {
            self.residents.metrics.subscriptions_refused.increment();
            self.log.subscription_refused(connection, filter.as_str(), now);
            self.withhold(key, filter);
            return Err(self.broker.authorizer.subscribe_refusal());
        }
        let session = connection.session.and_then(|slot| self.residents.sessions.get(slot));
        let must_keep = session.is_some_and(|resident| resident.session.stored_number().is_some());
        if must_keep && self.broker.store.standing() == Standing::Refusing {
            return Err(ReasonCode::QuotaExceeded);
        }
        // MQTT 5 clients were disconnected for these; older ones can only be told here.
        if filter.has_wildcard() && !options.wildcard_subscriptions {
            return Err(ReasonCode::WildcardSubscriptionsNotSupported);
        }
        if filter.group().is_some() && !options.shared_subscriptions {
            return Err(ReasonCode::SharedSubscriptionsNotSupported);
        }
        Ok(maximum_qos)
    }

    /// Sees to it that deliveries of a subscription are looked at, where something of it may not be received; the highest QoS that
    /// it may have.
    fn watch(&mut self, key: ConnectionKey, filter: TopicFilter<'_>) -> QoS {
        let Some(connection) = self.residents.connections.get_mut(key.0) else {
            return QoS::ExactlyOnce;
        };
        let (who, authorizer) = (Access::of(connection), &self.broker.authorizer);
        let maximum_qos = authorizer.subscribe_qos(&who, filter);
        if connection.watch != Watch::Rules && authorizer.watches(&who, filter) {
            connection.watch = Watch::Rules;
            info!(
                client = connection.client_name(),
                user = connection.user_name.as_deref(),
                filter = filter.as_str(),
                "subscription limited: what may not be received is left out"
            );
        }
        maximum_qos
    }

    /// Adds one subscription, or replaces it [MQTT-3.8.4-3]; the reason code for SUBACK.
    fn add_subscription(
        &mut self,
        key: ConnectionKey,
        filter: TopicFilter<'_>,
        options: SubscriptionOptions,
        identifier: Option<u32>,
    ) -> ReasonCode {
        let limits = &self.broker.options;
        let connection = self.residents.connections.get(key.0);
        let Some(slot) = connection.and_then(|connection| connection.session) else {
            return ReasonCode::UnspecifiedError;
        };
        let Some(resident) = self.residents.sessions.get_mut(slot) else {
            return ReasonCode::UnspecifiedError;
        };
        let is_new = !resident.session.subscriptions.contains_key(filter.as_str());
        let mut subscriptions = write(&self.broker.subscriptions);
        let total = subscriptions.len() + subscriptions.shared_len();
        let own = resident.session.subscriptions.len();
        if is_new && self.residents.options.outbox.memory == MemoryState::Spent {
            self.residents.metrics.refused_memory.increment();
            return ReasonCode::QuotaExceeded;
        }
        if is_new && (own >= limits.subscriptions_per_session_max || total >= limits.subscriptions_max) {
            self.residents.metrics.limit_subscriptions.increment();
            return ReasonCode::QuotaExceeded;
        }
        let subscription = Subscription { options, identifier };
        let session = SessionKey {
            worker: self.me,
            key: slot,
        };
        subscriptions.subscribe(filter, subscription.of(session, &resident.session.status));
        drop(subscriptions);
        resident
            .session
            .subscriptions
            .insert(filter.as_str().into(), subscription);
        if let Some(connection) = resident
            .connection
            .and_then(|key| self.residents.connections.get_mut(key.0))
            && let Some(review) = connection.review.get_mut()
        {
            review.decide(filter.as_str(), true);
            connection.decisions.clear();
        }
        let wants_retained = match options.retain_handling {
            RetainHandling::Send => true,
            RetainHandling::SendIfNew => is_new,
            RetainHandling::DoNotSend => false,
        };
        // Retained messages are not sent for shared subscriptions (section 4.8.2).
        if wants_retained && filter.group().is_none() && limits.retain_available {
            resident.walks.retain(|walk| *walk.filter != *filter.as_str());
            resident.walks.push_back(RetainedWalk::new(filter, subscription));
        }
        if let Some(record) = subscription_record(&resident.session, &resident.walks, filter.as_str()) {
            let recorded = self.residents.journal.record(&Record::Subscription(record));
            if let Some(walk) = resident
                .walks
                .back_mut()
                .filter(|walk| *walk.filter == *filter.as_str())
            {
                walk.suback = recorded;
            }
        }
        granted(options.qos)
    }

    pub(super) fn unsubscribe(&mut self, key: ConnectionKey, unsubscribe: &Unsubscribe<'_>, now: Time) {
        if self.is_mounted(key) {
            return self.unsubscribe_in_tenant(key, unsubscribe, now);
        }
        self.unsubscribe_from_full(key, unsubscribe);
    }

    /// UNSUBSCRIBE with filters as the broker knows them.
    pub(super) fn unsubscribe_from_full(&mut self, key: ConnectionKey, unsubscribe: &Unsubscribe<'_>) {
        self.metrics().unsubscribe_received.increment();
        let Residents {
            connections,
            sessions,
            journal,
            ..
        } = &mut self.residents;
        let Some(slot) = connections.get(key.0).and_then(|connection| connection.session) else {
            return;
        };
        let Some(resident) = sessions.get_mut(slot) else {
            return;
        };
        let session = SessionKey {
            worker: self.me,
            key: slot,
        };
        let stored = resident.session.stored_number();
        let mut reasons = Vec::with_capacity(unsubscribe.filters.len());
        let mut subscriptions = write(&self.broker.subscriptions);
        for filter in &unsubscribe.filters {
            let existed = resident.session.subscriptions.remove(filter.as_str()).is_some();
            if existed {
                subscriptions.unsubscribe(*filter, session);
                if let Some(number) = stored {
                    journal.record(&Record::SubscriptionEnded(number, filter.as_str()));
                }
                if let Some(walks) = resident.walks.get_mut() {
                    walks.retain(|walk| *walk.filter != *filter.as_str());
                }
            }
            reasons.push(if existed {
                ReasonCode::Success
            } else {
                ReasonCode::NoSubscriptionExisted
            });
        }
        drop(subscriptions);
        if let Some(connection) = connections.get_mut(key.0)
            && let Some(review) = connection.review.get_mut()
        {
            let filters = unsubscribe.filters.iter();
            filters.for_each(|filter| review.forget(filter.as_str()));
            connection.decisions.clear();
        }
        let unsuback = UnsubAck {
            packet_id: unsubscribe.packet_id,
            properties: Default::default(),
            reasons,
        };
        self.acknowledge_change(key, &Packet::UnsubAck(unsuback));
    }

    /// Acknowledges a change of subscriptions, when it is where it must be.
    fn acknowledge_change(&mut self, key: ConnectionKey, packet: &Packet<'_>) {
        let Some((connection, resident)) = self.residents.pair(key) else {
            return;
        };
        let mut bytes = Vec::new();
        let is_encoded = encode(packet, connection.version, &mut bytes).is_ok();
        debug_assert!(is_encoded, "an answer is shorter than its question");
        let ticket = match resident.session.stored_number() {
            Some(_) => self.residents.journal.latest(),
            None => Ticket::DONE,
        };
        self.reply(key, Reply::Encoded(bytes.into()), ticket);
    }

    /// Takes every subscription of a session out of the router.
    pub(super) fn unsubscribe_all(&mut self, slot: SlotKey) {
        let Some(resident) = self.residents.sessions.get_mut(slot) else {
            return;
        };
        if resident.session.subscriptions.is_empty() {
            return;
        }
        let session = SessionKey {
            worker: self.me,
            key: slot,
        };
        let mut subscriptions = write(&self.broker.subscriptions);
        for (filter, _) in resident.session.subscriptions.drain() {
            if let Ok(filter) = TopicFilter::kept(&filter) {
                subscriptions.unsubscribe(filter, session);
            }
        }
    }
}

const fn granted(qos: QoS) -> ReasonCode {
    match qos {
        QoS::AtMostOnce => ReasonCode::Success,
        QoS::AtLeastOnce => ReasonCode::GrantedQos1,
        QoS::ExactlyOnce => ReasonCode::GrantedQos2,
    }
}
