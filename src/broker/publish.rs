//! PUBLISH from a client: is it legal, may he, who gets it, what is he told.

use std::sync::Arc;

use tracing::warn;

use super::endings::Ending;
use super::options::Qos2Delivery;
use super::route::Routed;
use super::sys::is_sys;
use super::tenants::MountedName;
use super::worker::{Flow, Worker};
use crate::auth::{Access, Answer};
use crate::codec::encode;
use crate::protocol::ids::{ConnectionKey, PacketId, SessionKey, Ticket};
use crate::protocol::message::{Publication, forwarded_properties};
use crate::protocol::packet::{PacketType, Publish};
use crate::protocol::property::{Properties, PropertiesBuf, PropertyId};
use crate::protocol::qos::QoS;
use crate::protocol::reason::ReasonCode;
use crate::protocol::time::Time;
use crate::protocol::topic::TopicName;
use crate::session::connection::Connection;
use crate::session::decisions::Question;
use crate::session::held::Reply;
use crate::session::violation::Violation;

/// A topic of the publisher: as it was sent, or what its alias stands for.
enum Named<'a> {
    Sent(TopicName<'a>),
    Alias(Arc<str>),
    /// Either, with the mount point of the publisher's tenant.
    Mounted(Box<MountedName>),
}

/// What is full when a publication is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Full {
    /// The queues of all receivers, or the retained store.
    Queues,
    /// The store, which cannot write.
    Store,
    /// Memory.
    Memory,
    /// The room for what the publisher has not released.
    Unreleased,
}

impl Named<'_> {
    fn topic(&self) -> TopicName<'_> {
        match self {
            Self::Sent(topic) => *topic,
            Self::Alias(topic) => TopicName::from_parsed(topic),
            Self::Mounted(name) => name.topic(),
        }
    }

    #[cold]
    fn mounted(self, connection: &Connection) -> Result<Self, Violation> {
        match MountedName::of(connection, self.topic()) {
            None => Ok(self),
            Some(name) => Ok(Self::Mounted(Box::new(name?))),
        }
    }

    /// Properties as everybody else is to see them.
    fn properties_in<'p>(&self, properties: Properties<'p>, scratch: &'p mut PropertiesBuf) -> Properties<'p> {
        match self {
            Self::Mounted(name) => name.properties_in(properties, scratch),
            _ => properties,
        }
    }
}

impl Worker {
    pub(super) fn publish(&mut self, key: ConnectionKey, publish: &Publish<'_>, now: Time) -> Flow {
        let named = match self.check_publish(key, publish) {
            Ok(named) => named,
            Err(violation) => {
                self.end_for(violation, key, now);
                return Flow::Done;
            }
        };
        let topic = named.topic();
        let Some((connection, resident)) = self.residents.pair(key) else {
            return Flow::Done;
        };
        let Some(slot) = connection.session else {
            return Flow::Done;
        };
        let session = &mut resident.session;
        // Once its client sends something new, it has repeated everything. Delivered at its release, what is repeated was not delivered.
        session.doubts_repeats &= publish.dup;
        let doubts = session.doubts_repeats && self.broker.options.qos2_delivery == Qos2Delivery::Publish;
        let known = publish.packet_id.filter(|id| {
            publish.qos == QoS::ExactlyOnce
                && (session.inbound.contains(*id) || (doubts && session.inbound.insert(*id)))
        });
        if let Some(id) = known.filter(|id| !publish.dup && session.unreleased.get(*id).is_some()) {
            self.forget_unreleased(key, id);
        } else if known.is_some() {
            // Sent before and not released: answered again, delivered once [MQTT-4.3.3-10].
            // What it was the first time may still be on its way to the store.
            let ticket = match resident.session.stored_number() {
                Some(_) => self.residents.journal.latest(),
                None => Ticket::DONE,
            };
            self.acknowledge(key, publish, ReasonCode::Success, ticket);
            return Flow::Done;
        }
        let is_allowed = match self.may_publish(key, publish, topic, now) {
            Answer::Ready(is_allowed) => is_allowed,
            Answer::Pending => return Flow::Wait,
        };
        self.residents
            .metrics
            .count_publish_received(publish.qos, publish.payload.len());
        if !is_allowed {
            self.refuse_publish(key, publish, topic, now);
            return Flow::Done;
        }
        let source = if publish.retain { self.source_of(key) } else { None };
        let (mut scratch, mut mounted) = (std::mem::take(&mut self.scratch), PropertiesBuf::new());
        let publication = Publication {
            topic,
            payload: publish.payload,
            qos: publish.qos,
            retain: publish.retain,
            properties: if publish.properties.is_empty() {
                Properties::EMPTY
            } else {
                let properties = forwarded_properties(publish.properties, &mut scratch);
                named.properties_in(properties, &mut mounted)
            },
            expires_at: expiry(publish.properties, now),
            publisher: Some(SessionKey {
                worker: self.me,
                key: slot,
            }),
            source: source.as_ref(),
        };
        self.accept(key, publish, &publication, now);
        self.scratch = scratch;
        Flow::Done
    }

    /// Routes what was allowed and acknowledges it.
    #[inline]
    fn accept(&mut self, key: ConnectionKey, publish: &Publish<'_>, publication: &Publication<'_>, now: Time) {
        let Some(id) = publish.packet_id else {
            self.route(publication, now);
            return;
        };
        let Some((_, resident)) = self.residents.pair(key) else {
            return;
        };
        let is_exactly_once = publish.qos == QoS::ExactlyOnce;
        let publisher = resident.session.stored_number().filter(|_| is_exactly_once);
        if self.must_ask_room
            && let Some(full) = self.finds_no_room(publication, publisher.is_some())
        {
            self.metrics().publish_refused.increment();
            return self.refuse_full(key, publish, full, now);
        }
        if is_exactly_once && self.broker.options.qos2_delivery == Qos2Delivery::Release {
            return self.keep_unreleased(key, publish, id, publication, now);
        }
        let (routed, ticket) = self.route_or_refuse(publication, publisher.map(|session| (session, id)), now);
        if routed == Routed::Refused {
            self.metrics().publish_refused.increment();
            return self.refuse_full(key, publish, Full::Queues, now);
        }
        if is_exactly_once && let Some((_, resident)) = self.residents.pair(key) {
            resident.session.inbound.insert(id);
        }
        let nobody = routed == Routed::NoSubscriber && publish.qos == QoS::AtLeastOnce;
        let reason = if nobody {
            ReasonCode::NoMatchingSubscribers
        } else {
            ReasonCode::Success
        };
        self.acknowledge(key, publish, reason, ticket);
    }

    #[cold]
    fn end_for(&mut self, violation: Violation, key: ConnectionKey, now: Time) {
        let aliases = self.broker.options.topic_alias_maximum;
        if matches!(violation, Violation::TopicAlias(alias) if alias > aliases) {
            self.metrics().limit_topic_aliases.increment();
        }
        self.end_connection(key, Ending::Violation(violation), now);
    }

    /// What is wrong with a PUBLISH in this connection; else its topic.
    fn check_publish<'a>(&mut self, key: ConnectionKey, publish: &Publish<'a>) -> Result<Named<'a>, Violation> {
        let options = &self.broker.options;
        let Some((connection, resident)) = self.residents.pair(key) else {
            return Err(Violation::Unexpected(PacketType::Publish));
        };
        let maximum_qos = connection
            .peer
            .rules
            .maximum_qos
            .map_or(options.maximum_qos, |q| q.min(options.maximum_qos));
        if publish.qos > maximum_qos {
            return Err(Violation::QosNotSupported(publish.qos)); // [MQTT-3.2.2-11]
        }
        if publish.retain && !options.retain_available {
            return Err(Violation::RetainNotSupported); // [MQTT-3.2.2-14]
        }
        let named = name(connection, publish)?;
        let named = match connection.is_mounted {
            false => named,
            true => named.mounted(connection)?,
        };
        if let Some(id) = publish.packet_id
            && connection.version.has_properties()
            && !resident.session.inbound.contains(id)
            && resident.session.inbound.len() + connection.unacknowledged >= options.receive_maximum
        {
            self.residents.metrics.limit_receive_maximum.increment();
            return Err(Violation::ReceiveMaximum(options.receive_maximum)); // [MQTT-3.3.4-7]
        }
        if options.payload_format_check
            && publish.properties.byte(PropertyId::PayloadFormatIndicator) == Some(1)
            && simdutf8::basic::from_utf8(publish.payload).is_err()
        {
            return Err(Violation::PayloadFormat);
        }
        Ok(named)
    }

    /// Whether a client may publish that; pending also where it has to wait for its receivers.
    fn may_publish(
        &mut self,
        key: ConnectionKey,
        publish: &Publish<'_>,
        topic: TopicName<'_>,
        now: Time,
    ) -> Answer<bool> {
        if self.residents.congestion.is_new && publish.packet_id.is_some() && self.holds_back(key, publish, topic, now)
        {
            return Answer::Pending;
        }
        let token = self.token(key);
        let Some(connection) = self.residents.connections.get_mut(key.0) else {
            return Answer::Ready(false);
        };
        if is_sys(topic) {
            return Answer::Ready(false);
        }
        if !connection.is_restricted {
            return Answer::Ready(true);
        }
        if let Some(answer) = connection.questions.next_answer() {
            return Answer::Ready(answer);
        }
        let question = Question::Publish(publish.qos, publish.retain);
        if let Some(answer) = connection.decisions.get(question, topic.as_str()) {
            return Answer::Ready(answer);
        }
        let who = Access::of(connection);
        let authorizer = &self.broker.authorizer;
        let answer = authorizer.publish(&who, topic, publish.qos, publish.retain, token);
        if matches!(answer, Answer::Ready(_)) && self.broker.access_generations() != self.access_seen {
            return match self.stays_after_reload(key, now) {
                true => self.may_publish(key, publish, topic, now),
                false => Answer::Pending,
            };
        }
        match answer {
            Answer::Ready(is_allowed) if authorizer.remembers(&who) => {
                connection.decisions.keep(question, topic.as_str(), is_allowed);
            }
            Answer::Ready(_) => {}
            Answer::Pending => self.wait_for_answer(key, token, now),
        }
        answer
    }

    /// The authoriser said no: MQTT 5 is told; older versions are acknowledged and the message is dropped, or, by option, are
    /// disconnected [MQTT311-3.3.5-2].
    fn refuse_publish(&mut self, key: ConnectionKey, publish: &Publish<'_>, topic: TopicName<'_>, now: Time) {
        self.metrics().dropped_not_authorized.increment();
        if let Some(connection) = self.residents.connections.get(key.0) {
            self.log.not_allowed(connection, "publish", topic.as_str(), now);
            if self.broker.options.closes_refused_publish && !connection.version.has_properties() {
                let ending = Ending::Refused(ReasonCode::NotAuthorized, "not_authorized to publish");
                return self.end_connection(key, ending, now);
            }
        }
        self.acknowledge(key, publish, ReasonCode::NotAuthorized, Ticket::DONE);
    }

    /// What there is no room for, if a publication has to be kept.
    #[cold]
    fn finds_no_room(&mut self, publication: &Publication<'_>, is_received_kept: bool) -> Option<Full> {
        if self.is_refusing && self.refuses_to_store(publication, is_received_kept) {
            return Some(Full::Store);
        }
        if !self.lacks_memory(publication) {
            return None;
        }
        self.metrics().refused_memory.increment();
        Some(Full::Memory)
    }

    /// Nobody could take it: MQTT 5 is told; older versions have no way to be told but silence and the end of the connection. Where the
    /// store or memory is the reason, the end comes late: the client will connect and try again at once.
    pub(super) fn refuse_full(&mut self, key: ConnectionKey, publish: &Publish<'_>, full: Full, now: Time) {
        let Some(connection) = self.residents.connections.get_mut(key.0) else {
            return;
        };
        if connection.version.has_properties() {
            return self.acknowledge(key, publish, ReasonCode::QuotaExceeded, Ticket::DONE);
        }
        match full {
            Full::Queues => {
                let ending = Ending::Refused(ReasonCode::QuotaExceeded, "every receiver's queue is full");
                self.end_connection(key, ending, now);
            }
            Full::Store | Full::Memory => self.end_late(key, now),
            Full::Unreleased => {
                let ending = Ending::Refused(ReasonCode::QuotaExceeded, "too much of it waits to be released");
                self.end_connection(key, ending, now);
            }
        }
    }

    #[inline]
    pub(super) fn acknowledge(
        &mut self,
        key: ConnectionKey,
        publish: &Publish<'_>,
        reason: ReasonCode,
        ticket: Ticket,
    ) {
        let Some(id) = publish.packet_id else { return };
        let kind = if publish.qos == QoS::ExactlyOnce {
            PacketType::PubRec
        } else {
            PacketType::PubAck
        };
        let reply = if reason.is_error() {
            self.refusal(key, kind, id, reason)
        } else {
            Reply::Ack { kind, id, reason }
        };
        self.reply(key, reply, ticket);
    }

    /// An acknowledgement with an error says why, where the client wants to know [MQTT-3.1.2-29].
    fn refusal(&self, key: ConnectionKey, kind: PacketType, id: PacketId, reason: ReasonCode) -> Reply {
        let connection = self.residents.connections.get(key.0);
        let Some(connection) = connection.filter(|c| c.version.has_properties() && c.wants_problem_information) else {
            return Reply::Ack { kind, id, reason };
        };
        let mut properties = PropertiesBuf::new();
        properties.push_text(PropertyId::ReasonString, explain(reason));
        let ack = crate::protocol::packet::Ack {
            packet_id: id,
            reason,
            properties: properties.view(),
        };
        let packet = match kind {
            PacketType::PubRec => crate::protocol::packet::Packet::PubRec(ack),
            _ => crate::protocol::packet::Packet::PubAck(ack),
        };
        let mut bytes = Vec::new();
        let is_encoded = encode(&packet, connection.version, &mut bytes).is_ok();
        if is_encoded && bytes.len() <= connection.packet_bytes_max as usize {
            Reply::Encoded(bytes.into())
        } else {
            Reply::Ack { kind, id, reason }
        }
    }
}

const fn explain(reason: ReasonCode) -> &'static str {
    match reason {
        ReasonCode::NotAuthorized => "this client may not publish to this topic",
        ReasonCode::QuotaExceeded => {
            "the queues of all receivers, the retained store, the disk, memory, what waits for PUBREL, or your publish rate is full"
        }
        other => other.name(),
    }
}

fn name<'a>(connection: &mut Connection, publish: &Publish<'a>) -> Result<Named<'a>, Violation> {
    let alias = if publish.properties.is_empty() {
        None
    } else {
        publish.properties.u16(PropertyId::TopicAlias)
    };
    match (publish.topic, alias) {
        (Some(topic), None) => Ok(Named::Sent(topic)),
        (Some(topic), Some(alias)) => {
            connection
                .aliases_in
                .set(alias, topic)
                .map_err(|_| Violation::TopicAlias(alias))?;
            Ok(Named::Sent(topic))
        }
        (None, Some(alias)) => connection
            .aliases_in
            .resolve(alias)
            .map(Named::Alias)
            .map_err(|_| Violation::TopicAlias(alias)),
        (None, None) => Err(Violation::TopicAlias(0)),
    }
}

fn expiry(properties: Properties<'_>, now: Time) -> Option<Time> {
    if properties.is_empty() {
        return None;
    }
    properties
        .u32(PropertyId::MessageExpiryInterval)
        .map(|seconds| now.plus_secs(seconds.into()))
}

/// Told once a minute for each client and topic.
impl super::endings::EventLog {
    pub(super) fn not_allowed(&mut self, connection: &Connection, action: &str, topic: &str, now: Time) {
        let is_unanswered = connection.questions.is_unanswered();
        let reason = if is_unanswered {
            "backend_failed"
        } else {
            "not_authorized"
        };
        let Some(repeated) = self.record(&(connection.client_name(), action, topic, reason), now) else {
            return;
        };
        warn!(
            client = connection.client_name(),
            user = connection.user_name.as_deref(),
            addr = %connection.peer.address,
            listener = connection.peer.rules.name,
            reason,
            action,
            topic,
            repeated = (repeated > 0).then_some(repeated),
            "not authorized"
        );
    }

    pub(super) fn subscription_refused(&mut self, connection: &Connection, filter: &str, now: Time) {
        self.not_allowed(connection, "subscribe", filter, now);
    }
}
