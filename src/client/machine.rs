//! The machine of a client.

mod authentication;
mod receive;

use std::collections::VecDeque;

use hashbrown::HashMap;

use super::event::{Event, Fault, RequestError, RequestId};
use super::options::{ClientOptions, Outgoing};
use super::publications::{InFlight, Publications, Waiting};
use crate::codec::{self, DecodeOptions, PublishFrame, Role};
use crate::protocol::ids::PacketId;
use crate::protocol::packet::{
    Auth, Connect, Disconnect, Packet, PacketType, Subscribe, SubscriptionOptions, Unsubscribe, Will,
};
use crate::protocol::property::{Properties, PropertiesBuf, PropertyId};
use crate::protocol::qos::QoS;
use crate::protocol::reason::ReasonCode;
use crate::protocol::time::Time;
use crate::protocol::topic::{TopicFilter, TopicName};
use crate::scram::client::Exchange;
use crate::session::packet_ids::PacketIdSet;
use crate::session::topic_alias::{InboundAliases, Naming, OutboundAliases};

/// Bytes that wait to be written, above which no further message is added to them.
const OUTPUT_BYTES_MAX: usize = 256 * 1024;
/// Events that wait, above which no further packet is read.
const EVENTS_MAX: usize = 1024;
/// SUBSCRIBE and UNSUBSCRIBE packets that wait for their answer, at most.
const REQUESTS_MAX: usize = 1024;

/// A client. Lives as long as its session; its network connections come and go.
///
/// Each connection begins with [`Client::connect`] and ends with [`Event::Disconnected`], [`Client::disconnect`] or
/// [`Client::lost`]. In between: bytes from the network to [`Client::receive`], bytes of [`Client::output`] to the network, the time
/// to [`Client::tick`] at [`Client::next_deadline`], and events from [`Client::next_event`].
#[derive(Debug)]
pub struct Client {
    options: ClientOptions,
    state: State,
    /// Of the connection that there is, or the defaults.
    limits: Limits,
    output: Vec<u8>,
    events: VecDeque<Event>,
    publications: Publications,
    /// Identifiers of ours that are in use.
    packet_ids: PacketIdSet,
    last_packet_id: PacketId,
    requests: HashMap<PacketId, RequestId, foldhash::fast::RandomState>,
    last_request: u64,
    /// Messages of QoS 2 that the server sent and has not released.
    unreleased: PacketIdSet,
    inbound_aliases: InboundAliases,
    outbound_aliases: OutboundAliases,
    decode: DecodeOptions,
    last_sent: Time,
    last_received: Time,
    ping_sent: Option<Time>,
    /// Enhanced authentication that is under way.
    exchange: Option<Exchange>,
    /// A connection succeeded before, so that the server may have our session.
    has_session: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Offline,
    /// Since then.
    Connecting(Time),
    Connected,
    /// Nothing is read any more; the output is written and the connection closed.
    Closing,
}

/// What the server takes. MQTT 5 section 3.2.2.3.
#[derive(Clone, Copy, Debug)]
struct Limits {
    receive_maximum: u16,
    packet_bytes_max: u32,
    qos_max: QoS,
    is_retain_available: bool,
    /// Milliseconds, 0 for none.
    keep_alive: u64,
}

impl Client {
    /// A client that is not connected.
    pub fn new(options: ClientOptions) -> Self {
        let properties = options.properties.view();
        let packet_bytes_max = properties.u32(PropertyId::MaximumPacketSize);
        let decode = DecodeOptions {
            packet_bytes_max: packet_bytes_max.unwrap_or(codec::PACKET_BYTES_MAX),
            topic_separators_max: u16::MAX, // topics are the server's to judge
            ..DecodeOptions::default()
        };
        Self {
            state: State::Offline,
            limits: Limits::of(Properties::EMPTY, &options),
            output: Vec::new(),
            events: VecDeque::new(),
            publications: Publications::default(),
            packet_ids: PacketIdSet::default(),
            last_packet_id: PacketId::FIRST,
            requests: HashMap::default(),
            last_request: 0,
            unreleased: PacketIdSet::default(),
            inbound_aliases: InboundAliases::default(),
            outbound_aliases: OutboundAliases::default(),
            decode,
            last_sent: Time::default(),
            last_received: Time::default(),
            ping_sent: None,
            exchange: None,
            has_session: false,
            options,
        }
    }

    /// How it connects.
    pub const fn options(&self) -> &ClientOptions {
        &self.options
    }

    /// Begins a connection: CONNECT is in the output.
    pub fn connect(&mut self, now: Time) {
        self.output.clear();
        self.requests.clear();
        // What was not taken was not acknowledged: the server sends it again.
        let is_unacknowledged = |event: &Event| matches!(event, Event::Message(message) if message.packet_id.is_some());
        self.events.retain(|event| !is_unacknowledged(event));
        self.packet_ids = PacketIdSet::default();
        for sent in &self.publications.in_flight {
            self.packet_ids.insert(sent.packet_id);
        }
        let alias_maximum = self.options.properties.view().u16(PropertyId::TopicAliasMaximum);
        self.inbound_aliases = InboundAliases::new(alias_maximum.unwrap_or(0));
        self.outbound_aliases = OutboundAliases::default();
        self.limits = Limits::of(Properties::EMPTY, &self.options);
        self.ping_sent = None;
        (self.last_sent, self.last_received) = (now, now);
        self.state = State::Connecting(now);
        let written = self.begin_exchange();
        if let Err(fault) = written.and_then(|properties| self.write_connect(&properties).map_err(Fault::Connect)) {
            self.fail(fault);
        }
    }

    /// Publishes a message now, or as soon as there is a connection that has room for it. [`Event::Published`] answers.
    ///
    /// # Errors
    /// [`RequestError::Topic`] and [`RequestError::Full`].
    pub fn publish(&mut self, message: Outgoing, now: Time) -> Result<RequestId, RequestError> {
        if let Err(error) = TopicName::parse(&message.topic) {
            return Err(RequestError::Topic(message.topic, error));
        }
        if !self.can_publish() {
            return Err(RequestError::Full(self.publications.waiting.len()));
        }
        let request = self.next_request();
        self.publications.waiting.push_back(Waiting { request, message });
        self.send_waiting(now);
        Ok(request)
    }

    /// True when [`Client::publish`] takes another message.
    pub fn can_publish(&self) -> bool {
        self.publications.waiting.len() < self.options.waiting_max
    }

    /// True when every message is sent, and acknowledged where that is due. The output may still have to be written.
    pub fn is_idle(&self) -> bool {
        self.publications.is_empty()
    }

    /// Subscribes. [`Event::Subscribed`] answers.
    ///
    /// # Errors
    /// [`RequestError`].
    pub fn subscribe(
        &mut self,
        filters: &[(&str, SubscriptionOptions)],
        properties: Properties<'_>,
        now: Time,
    ) -> Result<RequestId, RequestError> {
        let filters = filters
            .iter()
            .map(|(filter, options)| Ok((parse_filter(filter)?, *options)));
        let filters = filters.collect::<Result<Vec<_>, RequestError>>()?;
        self.request(now, |packet_id| {
            Packet::Subscribe(Subscribe {
                packet_id,
                properties,
                filters,
            })
        })
    }

    /// Unsubscribes. [`Event::Unsubscribed`] answers.
    ///
    /// # Errors
    /// [`RequestError`].
    pub fn unsubscribe(
        &mut self,
        filters: &[&str],
        properties: Properties<'_>,
        now: Time,
    ) -> Result<RequestId, RequestError> {
        let filters = filters.iter().map(|filter| parse_filter(filter));
        let filters = filters.collect::<Result<Vec<_>, RequestError>>()?;
        self.request(now, |packet_id| {
            Packet::Unsubscribe(Unsubscribe {
                packet_id,
                properties,
                filters,
            })
        })
    }

    /// Sends AUTH (5.0), while connecting or later. MQTT 5 section 4.12.
    ///
    /// # Errors
    /// [`RequestError`].
    pub fn auth(&mut self, reason: ReasonCode, properties: Properties<'_>, now: Time) -> Result<(), RequestError> {
        if !matches!(self.state, State::Connecting(_) | State::Connected) {
            return Err(RequestError::NotConnected);
        }
        self.write(&Packet::Auth(Auth { reason, properties }), now)
    }

    /// Ends the connection in order: DISCONNECT is in the output, and the connection is to be closed once it is written.
    pub fn disconnect(&mut self, reason: ReasonCode, properties: Properties<'_>, now: Time) {
        if self.state == State::Connected {
            // Only properties that are too long keep it from being written: then it goes without.
            let packet = |properties| Packet::Disconnect(Disconnect { reason, properties });
            if self.write(&packet(properties), now).is_err() {
                let _ = self.write(&packet(Properties::EMPTY), now); // nothing more can be said
            }
        }
        self.state = State::Closing;
    }

    /// The network connection is gone; `why` is for people. Says so in an event, unless the end was known before.
    pub fn lost(&mut self, why: &str) {
        if self.is_online() {
            let is_answered = self.state == State::Connected;
            let fault = if is_answered { Fault::Lost } else { Fault::Unanswered };
            self.fail(fault(why.to_owned()));
        }
        self.state = State::Offline;
        self.output.clear();
    }

    /// True once CONNACK let us in, until the connection ends.
    pub fn is_connected(&self) -> bool {
        self.state == State::Connected
    }

    /// True when nothing more is read: write the output, then close.
    pub fn is_closing(&self) -> bool {
        self.state == State::Closing
    }

    /// Bytes to write. Tell [`Client::sent`] how many were.
    pub fn output(&self) -> &[u8] {
        &self.output
    }

    /// The first `count` bytes of the output were written.
    pub fn sent(&mut self, count: usize, now: Time) {
        self.output.drain(..count.min(self.output.len()));
        self.send_waiting(now);
    }

    /// True when an event waits.
    pub fn has_events(&self) -> bool {
        !self.events.is_empty()
    }

    /// The next event. A message of QoS 1 or 2 is acknowledged when it is taken: write the output afterwards.
    pub fn next_event(&mut self) -> Option<Event> {
        let event = self.events.pop_front();
        if let Some(Event::Message(message)) = &event {
            self.acknowledge_message(message.qos, message.packet_id);
        }
        event
    }

    /// Reads packets from the front of `bytes` and says how many bytes it took; the rest comes again with more behind it. Takes
    /// the events in between where they have become many.
    pub fn receive(&mut self, bytes: &[u8], now: Time) -> usize {
        let mut taken = 0;
        while self.events.len() < EVENTS_MAX {
            if !self.is_online() {
                return bytes.len();
            }
            match codec::decode(&bytes[taken..], Some(self.options.version), Role::Client, &self.decode) {
                Ok(None) => break,
                Ok(Some((packet, count))) => {
                    taken += count;
                    (self.last_received, self.ping_sent) = (now, None);
                    if let Err(fault) = self.take(&packet, now) {
                        self.fail(fault);
                    }
                }
                Err(error) => self.fail(Fault::Malformed(error, self.options.version)),
            }
        }
        self.send_waiting(now);
        taken
    }

    /// When [`Client::tick`] is due.
    pub fn next_deadline(&self) -> Option<Time> {
        match self.state {
            State::Connecting(since) => Some(since.plus_millis(self.options.connect_timeout)),
            State::Connected if self.limits.keep_alive > 0 => {
                let from = self.ping_sent.unwrap_or(self.last_sent.min(self.last_received));
                Some(from.plus_millis(self.limits.keep_alive))
            }
            _ => None,
        }
    }

    /// The time has come: PINGREQ, or the end of patience.
    pub fn tick(&mut self, now: Time) {
        if self.next_deadline().is_none_or(|deadline| deadline > now) {
            return;
        }
        match self.state {
            State::Connecting(_) => self.fail(Fault::Timeout(self.options.connect_timeout / 1000)),
            _ if self.ping_sent.is_some() => self.fail(Fault::Timeout(self.limits.keep_alive / 1000)),
            _ => {
                self.ping_sent = Some(now);
                let _ = self.write(&Packet::PingReq, now); // two bytes always fit
            }
        }
    }

    const fn is_online(&self) -> bool {
        matches!(self.state, State::Connecting(_) | State::Connected)
    }

    fn fail(&mut self, fault: Fault) {
        let reason = match &fault {
            Fault::Malformed(error, _) => Some(error.reason()),
            Fault::Protocol(_) => Some(ReasonCode::ProtocolError),
            _ => None,
        };
        if let Some(reason) = reason.filter(|_| self.options.version.has_properties()) {
            let properties = Properties::EMPTY;
            // Four bytes always fit.
            let packet = Packet::Disconnect(Disconnect { reason, properties });
            let _ = codec::encode(&packet, self.options.version, &mut self.output);
        }
        self.state = State::Closing;
        self.events.push_back(Event::Disconnected(fault));
    }

    fn write_connect(&mut self, properties: &PropertiesBuf) -> Result<(), RequestError> {
        let options = &self.options;
        let will = options.will.as_ref().map(|will| {
            let topic =
                TopicName::parse(&will.topic).map_err(|error| RequestError::Topic(will.topic.clone(), error))?;
            Ok::<_, RequestError>(Will {
                topic,
                payload: &will.payload,
                qos: will.qos,
                retain: will.retain,
                properties: will.properties.view(),
            })
        });
        let connect = Connect {
            version: options.version,
            is_bridge: false,
            clean_start: self.clean_start(),
            keep_alive: options.keep_alive,
            client_id: &options.client_id,
            will: will.transpose()?,
            user_name: options.user_name.as_deref(),
            // Who proves it does not show it.
            password: options.password.as_deref().filter(|_| options.scram.is_none()),
            properties: properties.view(),
        };
        codec::encode(&Packet::Connect(connect), options.version, &mut self.output)?;
        Ok(())
    }

    /// A session that the server keeps between connections is asked for again.
    fn clean_start(&self) -> bool {
        let expiry = self.options.properties.view().u32(PropertyId::SessionExpiryInterval);
        let is_kept = self.options.version.has_properties() && expiry.is_some_and(|seconds| seconds > 0);
        self.options.clean_start && !(self.has_session && is_kept)
    }

    fn send_waiting(&mut self, now: Time) {
        while self.state == State::Connected && self.output.len() < OUTPUT_BYTES_MAX {
            let in_flight_max = self.options.in_flight_max.max(1).min(self.limits.receive_maximum);
            let is_full = self.publications.in_flight.len() >= usize::from(in_flight_max);
            let waiting = &mut self.publications.waiting;
            let Some(Waiting { request, message }) =
                waiting.pop_front_if(|next| !(is_full && next.message.qos.is_acknowledged()))
            else {
                return;
            };
            let is_acknowledged = message.qos.is_acknowledged();
            let packet_id = if is_acknowledged { self.free_packet_id() } else { None };
            if let Err(error) = self.write_message(&message, packet_id) {
                self.events.push_back(Event::Published(request, Err(error)));
                continue;
            }
            self.last_sent = now;
            if let Some(packet_id) = packet_id {
                self.packet_ids.insert(packet_id);
                self.publications.in_flight.push_back(InFlight {
                    packet_id,
                    request,
                    message: Some(message),
                });
            } else {
                self.events
                    .push_back(Event::Published(request, Ok(ReasonCode::Success)));
            }
        }
    }

    fn write_message(&mut self, message: &Outgoing, packet_id: Option<PacketId>) -> Result<(), RequestError> {
        let version = self.options.version;
        let plain = frame(message, packet_id, Naming::Name, false);
        // Three bytes for an alias that may come on top.
        let alias_bytes = if self.outbound_aliases.is_off() { 0 } else { 4 };
        self.limits.check(message, plain.encoded_len(version) + alias_bytes)?;
        let naming = match TopicName::parse(&message.topic) {
            Ok(topic) if !self.outbound_aliases.is_off() => self.outbound_aliases.name(topic),
            _ => Naming::Name,
        };
        frame(message, packet_id, naming, false).write(version, &mut self.output)?;
        Ok(())
    }

    fn request<'a>(
        &mut self,
        now: Time,
        packet: impl FnOnce(PacketId) -> Packet<'a>,
    ) -> Result<RequestId, RequestError> {
        if self.state != State::Connected {
            return Err(RequestError::NotConnected);
        }
        let full = RequestError::Full(self.requests.len());
        if self.requests.len() >= REQUESTS_MAX {
            return Err(full);
        }
        let packet_id = self.free_packet_id().ok_or(full)?;
        self.write(&packet(packet_id), now)?;
        self.packet_ids.insert(packet_id);
        let request = self.next_request();
        self.requests.insert(packet_id, request);
        Ok(request)
    }

    fn write(&mut self, packet: &Packet<'_>, now: Time) -> Result<(), RequestError> {
        let start = self.output.len();
        let bytes = codec::encode(packet, self.options.version, &mut self.output)?;
        if bytes > self.limits.packet_bytes_max as usize {
            self.output.truncate(start);
            let bytes_max = self.limits.packet_bytes_max;
            return Err(RequestError::TooLarge { bytes, bytes_max }); // [MQTT-3.2.2-15]
        }
        self.last_sent = now;
        Ok(())
    }

    fn acknowledge(&mut self, packet: PacketType, packet_id: PacketId, reason: ReasonCode, now: Time) {
        codec::write_ack(packet, packet_id, reason, self.options.version, &mut self.output);
        self.last_sent = now;
    }

    /// An identifier that is not in use, counting up from the last one; `None` when all are.
    fn free_packet_id(&mut self) -> Option<PacketId> {
        if self.packet_ids.len() == u16::MAX {
            return None;
        }
        let id = std::iter::successors(Some(self.last_packet_id), |id| Some(id.next()))
            .find(|id| !self.packet_ids.contains(*id))?;
        self.last_packet_id = id.next();
        Some(id)
    }

    const fn next_request(&mut self) -> RequestId {
        self.last_request += 1;
        RequestId(self.last_request)
    }
}

impl Limits {
    fn of(connack: Properties<'_>, options: &ClientOptions) -> Self {
        let keep_alive = connack.u16(PropertyId::ServerKeepAlive).unwrap_or(options.keep_alive);
        let qos_max = connack.byte(PropertyId::MaximumQoS).and_then(QoS::from_bits);
        Self {
            receive_maximum: connack.u16(PropertyId::ReceiveMaximum).unwrap_or(u16::MAX),
            packet_bytes_max: connack.u32(PropertyId::MaximumPacketSize).unwrap_or(u32::MAX),
            qos_max: qos_max.unwrap_or(QoS::ExactlyOnce),
            is_retain_available: connack.byte(PropertyId::RetainAvailable) != Some(0),
            keep_alive: u64::from(keep_alive) * 1000,
        }
    }

    fn check(&self, message: &Outgoing, bytes: usize) -> Result<(), RequestError> {
        if message.qos > self.qos_max {
            return Err(RequestError::QosNotSupported(self.qos_max)); // [MQTT-3.2.2-11]
        }
        if message.retain && !self.is_retain_available {
            return Err(RequestError::RetainNotSupported); // [MQTT-3.2.2-14]
        }
        if bytes > self.packet_bytes_max as usize {
            let bytes_max = self.packet_bytes_max;
            return Err(RequestError::TooLarge { bytes, bytes_max }); // [MQTT-3.2.2-15]
        }
        Ok(())
    }
}

fn frame(message: &Outgoing, packet_id: Option<PacketId>, naming: Naming, dup: bool) -> PublishFrame<'_> {
    let (topic, topic_alias) = match naming {
        Naming::Name => (message.topic.as_str(), None),
        Naming::NameAndAlias(alias) => (message.topic.as_str(), Some(alias)),
        Naming::Alias(alias) => ("", Some(alias)),
    };
    PublishFrame {
        topic,
        qos: message.qos,
        retain: message.retain,
        dup,
        packet_id,
        topic_alias,
        message_expiry: None,
        subscription_identifiers: &[],
        properties: message.properties.view(),
        payload: &message.payload,
    }
}

fn parse_filter(filter: &str) -> Result<TopicFilter<'_>, RequestError> {
    TopicFilter::parse(filter).map_err(|error| RequestError::Filter(filter.to_owned(), error))
}
