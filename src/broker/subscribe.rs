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
use crate::protocol::property::{PropertiesBuf, PropertyId};
use crate::protocol::qos::QoS;
use crate::protocol::reason::ReasonCode;
use crate::protocol::time::Time;
use crate::protocol::topic::TopicFilter;
use crate::session::connection::Watch;
use crate::session::held::Reply;
use crate::session::state::Subscription;
use crate::session::subscribing::Subscribing;
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
        // Every question is asked before anything takes effect. Where one has to wait the packet is kept, and not handled again from its start
        // for each answer.
        let mut allowed: SmallVec<[bool; 8]> = SmallVec::new();
        let mut generations = self.access_seen;
        while let Some((filter, _)) = subscribe.filters.get(allowed.len()) {
            match self.may_subscribe(key, *filter, now) {
                Answer::Ready(_) if generations != self.access_seen => {
                    // What was said so far was by users and rules that are no more.
                    generations = self.access_seen;
                    allowed.clear();
                }
                Answer::Ready(is_allowed) => allowed.push(is_allowed),
                Answer::Pending => {
                    if let Some(connection) = self.residents.connections.get_mut(key.0) {
                        *connection.subscribing = Subscribing::new(subscribe, &allowed, generations);
                    }
                    return Flow::Done;
                }
            }
        }
        self.subscribe_allowed(key, subscribe, &allowed, now);
        Flow::Done
    }

    /// An answer about one of the filters of a SUBSCRIBE that waits for it; `None`: whoever was asked did not answer.
    pub(super) fn go_on_subscribing(&mut self, key: ConnectionKey, answer: Option<bool>, now: Time) {
        if self.broker.access_generations() != self.access_seen && !self.stays_after_reload(key, now) {
            return;
        }
        let Some(connection) = self.residents.connections.get_mut(key.0) else {
            return;
        };
        let Some(mut subscribing) = connection.subscribing.take() else {
            return;
        };
        subscribing.answers.push(answer == Some(true));
        subscribing.is_unanswered |= answer.is_none();
        subscribing.see(self.access_seen);
        while let Some(filter) = subscribing.next() {
            match self.may_subscribe(key, filter, now) {
                Answer::Ready(_) if subscribing.generations != self.access_seen => subscribing.see(self.access_seen),
                Answer::Ready(is_allowed) => subscribing.answers.push(is_allowed),
                Answer::Pending => {
                    if let Some(connection) = self.residents.connections.get_mut(key.0) {
                        *connection.subscribing = *subscribing;
                    }
                    return;
                }
            }
        }
        if let Some(connection) = self.residents.connections.get_mut(key.0)
            && subscribing.is_unanswered
        {
            connection.questions.set_unanswered();
        }
        let mut properties = PropertiesBuf::new();
        self.subscribe_allowed(key, &subscribing.packet(&mut properties), &subscribing.answers, now);
        if let Some(connection) = self.residents.connections.get_mut(key.0) {
            connection.questions.finish();
        }
    }

    /// SUBSCRIBE of which is known what is allowed.
    fn subscribe_allowed(&mut self, key: ConnectionKey, subscribe: &Subscribe<'_>, allowed: &[bool], now: Time) {
        self.metrics().subscribe_received.increment();
        self.submit_new_session(key);
        let identifier = subscribe.properties.u32(PropertyId::SubscriptionIdentifier);
        let mut reasons = Vec::with_capacity(subscribe.filters.len());
        for ((filter, options), is_allowed) in subscribe.filters.iter().zip(allowed.iter().copied()) {
            reasons.push(match self.may_be_granted(key, *filter, is_allowed, now) {
                Ok(maximum_qos) => {
                    let maximum_qos = maximum_qos.min(self.watch(key, *filter));
                    let subscription = Subscription {
                        options: SubscriptionOptions {
                            qos: options.qos.min(maximum_qos),
                            ..*options
                        },
                        identifier,
                        was_vouched_for: self.asks_about(key, *filter),
                    };
                    self.add_subscription(key, *filter, subscription, now)
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
        let who = Access::of(connection);
        let answer = self.broker.authorizer.subscribe(&who, filter, token);
        if matches!(answer, Answer::Ready(_)) && self.broker.access_generations() != self.access_seen {
            return match self.stays_after_reload(key, now) {
                true => self.may_subscribe(key, filter, now),
                false => Answer::Pending,
            };
        }
        if answer == Answer::Pending {
            self.wait_for_answer(key, token, now);
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

    /// Whether somebody elsewhere was asked about a filter.
    fn asks_about(&self, key: ConnectionKey, filter: TopicFilter<'_>) -> bool {
        let connection = self.residents.connections.get(key.0);
        connection.is_some_and(|connection| self.broker.authorizer.asks_about(&Access::of(connection), filter))
    }

    /// Adds one subscription, or replaces it [MQTT-3.8.4-3]; the reason code for SUBACK.
    fn add_subscription(
        &mut self,
        key: ConnectionKey,
        filter: TopicFilter<'_>,
        subscription: Subscription,
        now: Time,
    ) -> ReasonCode {
        let options = subscription.options;
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
        let client_id = &resident.session.client_id;
        if is_new && !self.broker.takes_subscription(client_id) {
            self.residents.metrics.limit_tenants.increment();
            self.log.tenant_full(client_id, "tenants.subscriptions_max", now);
            return ReasonCode::QuotaExceeded;
        }
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
        if let Some(connection) = self.residents.connections.get_mut(key.0) {
            connection.note_granted(filter.as_str());
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
                self.broker
                    .registry
                    .tenants
                    .remove_subscription(&resident.session.client_id);
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
            filters.for_each(|filter| review.end(filter.as_str()));
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
            self.broker
                .registry
                .tenants
                .remove_subscription(&resident.session.client_id);
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

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::auth::Authorizer;
    use crate::broker::mail::Outcome;
    use crate::broker::worker::Status;
    use crate::broker::{Broker, BrokerOptions, Parts};
    use crate::protocol::ids::{PacketId, Token, WorkerId};
    use crate::protocol::topic::TopicName;
    use crate::protocol::version::Version;
    use crate::session::peer::tests::peer;

    /// Answers every question later.
    #[derive(Default)]
    struct Later(Mutex<Vec<(Token, String)>>);

    impl Authorizer for Later {
        fn publish(&self, _: &Access<'_>, _: TopicName<'_>, _: QoS, _: bool, _: Token) -> Answer<bool> {
            Answer::Ready(true)
        }

        fn subscribe(&self, _: &Access<'_>, filter: TopicFilter<'_>, token: Token) -> Answer<bool> {
            self.0.lock().unwrap().push((token, filter.as_str().to_owned()));
            Answer::Pending
        }
    }

    fn encoded(packet: &Packet<'_>) -> Vec<u8> {
        let mut bytes = Vec::new();
        encode(packet, Version::V311, &mut bytes).unwrap();
        bytes
    }

    /// However many filters a packet has: it is read once, and each of them is asked about once.
    #[test]
    fn a_packet_whose_filters_are_asked_about_is_not_read_again_for_each_answer() {
        const FILTERS: usize = 2000;
        let now = Time(1_000_000);
        let later = Arc::new(Later::default());
        let parts = Parts {
            authorizer: Arc::clone(&later) as _,
            ..Parts::default()
        };
        let broker = Broker::new(BrokerOptions::default(), 1, parts);
        let mut worker = Worker::new(broker, WorkerId(0), now);
        let key = worker.open(peer(), now.plus_secs(10), now);
        worker.receive(key, b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x00\x00\x01c", now);
        let texts: Vec<_> = (0..FILTERS).map(|number| format!("f/{number}")).collect();
        let options = SubscriptionOptions {
            qos: QoS::AtLeastOnce,
            ..SubscriptionOptions::default()
        };
        let filters = texts.iter().map(|text| (TopicFilter::parse(text).unwrap(), options));
        let subscribe = encoded(&Packet::Subscribe(Subscribe {
            packet_id: PacketId::FIRST,
            properties: Default::default(),
            filters: filters.collect(),
        }));
        let ping = [0xC0, 0];
        let bytes = [&subscribe[..], &ping].concat();
        let output = |worker: &mut Worker| worker.output(key).unwrap().chunks().flatten().count();
        let before = output(&mut worker);
        assert_eq!(
            worker.receive(key, &bytes, now),
            subscribe.len(),
            "what is behind it waits"
        );
        for number in 0..FILTERS {
            assert_eq!(worker.status(key), Status::Waiting);
            assert_eq!(output(&mut worker), before);
            let asked = later.0.lock().unwrap().clone();
            assert_eq!((asked.len(), &asked[number].1), (number + 1, &texts[number]));
            worker.complete(asked[number].0, Outcome::Allowed(number % 2 == 0), now);
        }
        assert_eq!(worker.status(key), Status::Open);
        let sent: Vec<u8> = worker.output(key).unwrap().chunks().flatten().copied().collect();
        let reasons = (0..FILTERS).map(|number| match number % 2 {
            0 => ReasonCode::GrantedQos1,
            _ => ReasonCode::NotAuthorized,
        });
        let suback = encoded(&Packet::SubAck(SubAck {
            packet_id: PacketId::FIRST,
            properties: Default::default(),
            reasons: reasons.collect(),
        }));
        assert_eq!(sent[before..], suback);
        assert_eq!(worker.receive(key, &ping, now), ping.len());
        assert_eq!(later.0.lock().unwrap().len(), FILTERS);
    }
}
