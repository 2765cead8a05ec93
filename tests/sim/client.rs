//! A client: the least that keeps every rule of the standard for clients, and checks what the broker owes it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use sundew::codec::{self, DecodeOptions, Role, encode, write_ack};
use sundew::protocol::ids::PacketId;
use sundew::protocol::packet::{
    Ack, ConnAck, Connect, Disconnect, Packet, PacketType, Publish, RetainHandling, SubAck, Subscribe,
    SubscriptionOptions, UnsubAck, Unsubscribe, Will,
};
use sundew::protocol::property::{Properties, PropertiesBuf, PropertyId};
use sundew::protocol::qos::QoS;
use sundew::protocol::reason::ReasonCode;
use sundew::protocol::topic::{TopicFilter, TopicName};
use sundew::protocol::version::Version;

use crate::fault::Fault;
use crate::ledger::{Arrived, Invariant, Ledger, MessageId, Sub};
use crate::network::{Link, LinkId};

/// What a client is for all of its life.
#[derive(Clone, Debug)]
pub(crate) struct Character {
    pub number: usize,
    pub version: Version,
    pub is_persistent: bool,
    /// Session expiry where it is not for ever, seconds (5.0).
    pub expiry_secs: Option<u32>,
    pub keep_alive: u16,
    /// The shared group it belongs to; such a client has no other subscriptions.
    pub group: Option<&'static str>,
    /// Packet identifiers it uses, so that they come again soon.
    pub ids_max: u16,
    pub will_delay_secs: Option<u32>,
}

/// What a client says in one CONNECT.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Greeting {
    pub clean_start: bool,
    pub receive_maximum: u16,
    pub topic_aliases: u16,
    pub will: Option<MessageId>,
    pub expiry_secs: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Offline,
    /// CONNECT is under way.
    Connecting,
    Connected,
}

/// A message on its way to the broker.
#[derive(Clone, Copy, Debug)]
struct Outgoing {
    id: u16,
    message: MessageId,
    qos: QoS,
    is_released: bool,
}

/// SUBSCRIBE or UNSUBSCRIBE that waits for its answer.
#[derive(Debug)]
struct Request {
    id: u16,
    is_subscribe: bool,
    /// Places in the epoch's list of subscriptions.
    subs: Vec<usize>,
}

#[derive(Debug)]
pub(crate) struct Client {
    pub character: Character,
    pub state: State,
    pub link: Option<LinkId>,
    pub epoch: Option<usize>,
    /// Sent as soon as the network takes it.
    pub unsent: VecDeque<u8>,
    pub greeting: Option<Greeting>,
    /// A CONNECT was sent whose answer never came: the broker may have a session that we know nothing of.
    pub has_ghost: bool,
    /// The CONNECT of a ghost had clean start: what we think is kept may be gone.
    pub is_unsure: bool,
    /// The next CONNECT must have clean start.
    pub must_reset: bool,
    inbox: Vec<u8>,
    outgoing: VecDeque<Outgoing>,
    /// QoS 2 messages received and not released.
    incoming: BTreeSet<u16>,
    requests: VecDeque<Request>,
    pings: usize,
    /// Acknowledgements that we owe.
    owed: VecDeque<(PacketType, PacketId)>,
    /// Deliveries of this connection that are not acknowledged in full.
    held: BTreeSet<u16>,
    /// What we wait for, in order.
    awaited: BTreeMap<PacketType, VecDeque<u16>>,
    /// What goes wrong on purpose between this client and the broker.
    fault: Option<Fault>,
    /// A PUBACK that is held back for [`Fault::SwapAcknowledgements`].
    held_back: Option<u16>,
    last_id: u16,
    server_receive_maximum: u16,
    server_topic_aliases: u16,
    aliases_in: BTreeMap<u16, String>,
    aliases_out: BTreeMap<String, u16>,
    pub is_hung_up: bool,
}

fn packet_id(id: u16) -> PacketId {
    PacketId::new(id).unwrap()
}

impl Client {
    pub(crate) fn new(character: Character, fault: Option<Fault>) -> Self {
        Self {
            character,
            state: State::Offline,
            link: None,
            epoch: None,
            unsent: VecDeque::new(),
            greeting: None,
            has_ghost: false,
            is_unsure: false,
            must_reset: false,
            inbox: Vec::new(),
            outgoing: VecDeque::new(),
            incoming: BTreeSet::new(),
            requests: VecDeque::new(),
            pings: 0,
            owed: VecDeque::new(),
            held: BTreeSet::new(),
            awaited: BTreeMap::new(),
            fault,
            held_back: None,
            last_id: 0,
            server_receive_maximum: u16::MAX,
            server_topic_aliases: 0,
            aliases_in: BTreeMap::new(),
            aliases_out: BTreeMap::new(),
            is_hung_up: false,
        }
    }

    pub(crate) fn number(&self) -> usize {
        self.character.number
    }

    pub(crate) fn name(&self) -> String {
        format!("client-{}", self.number())
    }

    fn send(&mut self, packet: &Packet<'_>) {
        let mut bytes = Vec::new();
        encode(packet, self.character.version, &mut bytes).unwrap();
        self.unsent.extend(bytes);
    }

    /// Opens a connection: CONNECT.
    pub(crate) fn connect(&mut self, link: LinkId, greeting: Greeting, ledger: &mut Ledger) {
        self.leave(ledger);
        let number = self.number();
        ledger.note(|| format!("client {number} connects on link {link}: {greeting:?}"));
        (self.state, self.link, self.greeting, self.is_hung_up) =
            (State::Connecting, Some(link), Some(greeting), false);
        if greeting.clean_start {
            self.forget_session(ledger);
            self.is_unsure = self.character.is_persistent;
        }
        let mut properties = PropertiesBuf::new();
        if self.character.version.has_properties() {
            let more = if self.fault == Some(Fault::WidenWindow) { 3 } else { 0 };
            properties.push_u16(
                PropertyId::ReceiveMaximum,
                greeting.receive_maximum.saturating_add(more),
            );
            if greeting.topic_aliases > 0 {
                properties.push_u16(PropertyId::TopicAliasMaximum, greeting.topic_aliases);
            }
            if greeting.expiry_secs > 0 {
                properties.push_u32(PropertyId::SessionExpiryInterval, greeting.expiry_secs);
            }
        }
        let mut will_properties = PropertiesBuf::new();
        if let Some(delay) = self.character.will_delay_secs
            && self.character.version.has_properties()
        {
            will_properties.push_u32(PropertyId::WillDelayInterval, delay);
        }
        let will = greeting.will.map(|id| (id, ledger.messages[id].clone()));
        let payload = will
            .as_ref()
            .map(|(id, message)| message.payload(*id))
            .unwrap_or_default();
        let name = self.name();
        let connect = Connect {
            version: self.character.version,
            is_bridge: false,
            clean_start: greeting.clean_start || self.fault == Some(Fault::LoseSession),
            keep_alive: self.character.keep_alive,
            client_id: &name,
            will: will.as_ref().map(|(_, message)| Will {
                topic: TopicName::parse(&message.topic).unwrap(),
                payload: &payload,
                qos: message.qos,
                retain: false,
                properties: will_properties.view(),
            }),
            user_name: None,
            password: None,
            properties: properties.view(),
        };
        self.send(&Packet::Connect(connect));
    }

    /// The connection is gone, or we turn away from it.
    pub(crate) fn leave(&mut self, ledger: &mut Ledger) {
        if self.state == State::Connecting {
            self.has_ghost = true;
        }
        if self.state != State::Offline {
            let number = self.number();
            ledger.note(|| format!("client {number} leaves link {:?}", self.link));
        }
        let is_over = self.greeting.is_some_and(|greeting| greeting.expiry_secs == 0);
        if self.state == State::Connected && is_over {
            self.forget_session(ledger);
        }
        self.state = State::Offline;
        self.link = None;
        self.unsent.clear();
        self.inbox.clear();
        self.requests.clear();
        self.pings = 0;
        self.owed.clear();
        self.held.clear();
        self.awaited.clear();
        self.aliases_in.clear();
        self.aliases_out.clear();
        self.held_back = None;
    }

    fn forget_session(&mut self, ledger: &mut Ledger) {
        if let Some(epoch) = self.epoch.take() {
            ledger.epochs[epoch].is_over = true;
        }
        self.outgoing.clear();
        self.incoming.clear();
    }

    fn next_id(&mut self) -> Option<u16> {
        let in_use = |id: u16, client: &Self| {
            client.outgoing.iter().any(|out| out.id == id) || client.requests.iter().any(|request| request.id == id)
        };
        (0..self.character.ids_max).find_map(|_| {
            self.last_id = self.last_id % self.character.ids_max + 1;
            (!in_use(self.last_id, self)).then_some(self.last_id)
        })
    }

    /// True when the rules allow another PUBLISH of that QoS.
    pub(crate) fn may_publish(&self, qos: QoS) -> bool {
        let limit = usize::from(self.server_receive_maximum.min(self.character.ids_max / 2));
        self.state == State::Connected && (!qos.is_acknowledged() || self.outgoing.len() < limit)
    }

    pub(crate) fn publish(&mut self, message: MessageId, ledger: &mut Ledger) {
        let qos = ledger.messages[message].qos;
        if !qos.is_acknowledged() {
            return self.transmit(message, None, false, ledger);
        }
        let Some(id) = self.next_id() else { return };
        self.outgoing.push_back(Outgoing {
            id,
            message,
            qos,
            is_released: false,
        });
        self.transmit(message, Some(id), false, ledger);
    }

    fn transmit(&mut self, message: MessageId, id: Option<u16>, dup: bool, ledger: &mut Ledger) {
        let entry = &mut ledger.messages[message];
        entry.sends += 1;
        let entry = entry.clone();
        let number = self.number();
        ledger.note(|| {
            format!(
                "client {number} publishes {message} as {id:?} on {} {:?} dup={dup}",
                entry.topic, entry.qos
            )
        });
        let payload = entry.payload(message);
        let mut properties = PropertiesBuf::new();
        let mut topic = Some(TopicName::parse(&entry.topic).unwrap());
        if self.server_topic_aliases > 0 {
            let next = self.aliases_out.len() as u16 + 1;
            if let Some(alias) = self.aliases_out.get(&entry.topic) {
                properties.push_u16(PropertyId::TopicAlias, *alias);
                topic = None;
            } else if next <= self.server_topic_aliases {
                self.aliases_out.insert(entry.topic.clone(), next);
                properties.push_u16(PropertyId::TopicAlias, next);
            }
        }
        if let Some(id) = id {
            let kind = if entry.qos == QoS::ExactlyOnce {
                PacketType::PubRec
            } else {
                PacketType::PubAck
            };
            self.awaited.entry(kind).or_default().push_back(id);
        }
        let publish = Publish {
            dup,
            qos: entry.qos,
            retain: entry.retain,
            topic,
            packet_id: id.map(packet_id),
            properties: properties.view(),
            payload: &payload,
        };
        self.send(&Packet::Publish(publish));
    }

    fn release(&mut self, id: u16) {
        self.awaited.entry(PacketType::PubComp).or_default().push_back(id);
        self.send(&Packet::PubRel(Ack {
            packet_id: packet_id(id),
            reason: ReasonCode::Success,
            properties: Properties::EMPTY,
        }));
    }

    pub(crate) fn subscribe(&mut self, filters: &[(String, SubscriptionOptions)], ledger: &mut Ledger) {
        let (Some(epoch), Some(id)) = (self.epoch, self.next_id()) else {
            return;
        };
        let number = self.number();
        ledger.note(|| format!("client {number} subscribes {filters:?}"));
        let step = ledger.step;
        let subs = &mut ledger.epochs[epoch].subs;
        let first = subs.len();
        for (filter, options) in filters {
            for old in subs.iter_mut().filter(|sub| sub.filter == *filter) {
                old.end_asked.get_or_insert(step);
            }
            subs.push(Sub {
                filter: filter.clone(),
                qos: options.qos,
                no_local: options.no_local,
                asked: step,
                granted: None,
                end_asked: None,
                ended: None,
            });
        }
        self.requests.push_back(Request {
            id,
            is_subscribe: true,
            subs: (first..first + filters.len()).collect(),
        });
        let filters = filters
            .iter()
            .map(|(filter, options)| (TopicFilter::parse(filter).unwrap(), *options))
            .collect();
        self.send(&Packet::Subscribe(Subscribe {
            packet_id: packet_id(id),
            properties: Properties::EMPTY,
            filters,
        }));
    }

    /// Ends one of the subscriptions.
    pub(crate) fn unsubscribe(&mut self, filter: &str, ledger: &mut Ledger) {
        let (Some(epoch), Some(id)) = (self.epoch, self.next_id()) else {
            return;
        };
        let number = self.number();
        ledger.note(|| format!("client {number} unsubscribes {filter}"));
        let step = ledger.step;
        let mut places = Vec::new();
        for (place, sub) in ledger.epochs[epoch]
            .subs
            .iter_mut()
            .enumerate()
            .filter(|(_, sub)| sub.filter == filter)
        {
            sub.end_asked.get_or_insert(step);
            places.push(place);
        }
        self.requests.push_back(Request {
            id,
            is_subscribe: false,
            subs: places,
        });
        let filters = vec![TopicFilter::parse(filter).unwrap()];
        self.send(&Packet::Unsubscribe(Unsubscribe {
            packet_id: packet_id(id),
            properties: Properties::EMPTY,
            filters,
        }));
    }

    pub(crate) fn ping(&mut self) {
        self.pings += 1;
        self.send(&Packet::PingReq);
    }

    /// DISCONNECT, which removes the will; the connection is closed once it is on its way. With `ends_session` the session ends too.
    pub(crate) fn disconnect(&mut self, ends_session: bool, ledger: &mut Ledger) {
        let mut properties = PropertiesBuf::new();
        if ends_session && self.character.version.has_properties() {
            properties.push_u32(PropertyId::SessionExpiryInterval, 0);
            self.forget_session(ledger);
            // It may never arrive.
            self.is_unsure = true;
        }
        self.send(&Packet::Disconnect(Disconnect {
            reason: ReasonCode::Success,
            properties: properties.view(),
        }));
        self.is_hung_up = true;
    }

    /// True when the client may ask for something else.
    pub(crate) fn may_ask(&self) -> bool {
        self.state == State::Connected && !self.is_hung_up && self.requests.len() < 4 && self.pings < 4
    }

    pub(crate) fn owes(&self) -> bool {
        !self.owed.is_empty()
    }

    /// Sends the oldest acknowledgement that we owe.
    pub(crate) fn pay(&mut self) {
        let Some((kind, id)) = self.owed.pop_front() else {
            return;
        };
        if matches!(kind, PacketType::PubAck | PacketType::PubComp) {
            self.held.remove(&id.get());
        }
        let mut bytes = Vec::new();
        write_ack(kind, id, ReasonCode::Success, self.character.version, &mut bytes);
        self.unsent.extend(bytes);
    }

    /// Moves up to `count` bytes to the network.
    pub(crate) fn flush(&mut self, link: &mut Link, count: usize) {
        let count = count.min(link.room_up()).min(self.unsent.len());
        link.up.extend(self.unsent.drain(..count));
    }

    /// Takes up to `count` bytes from the network and handles the packets that are complete.
    pub(crate) fn read(&mut self, link: &mut Link, count: usize, ledger: &mut Ledger) {
        let count = count.min(link.down.len());
        self.inbox.extend(link.down.drain(..count));
        let inbox = std::mem::take(&mut self.inbox);
        let mut taken = 0;
        while self.state != State::Offline && ledger.breach.is_none() {
            let version = Some(self.character.version);
            match codec::decode(&inbox[taken..], version, Role::Client, &DecodeOptions::default()) {
                Ok(Some((packet, length))) => {
                    self.handle(&packet, ledger);
                    taken += length;
                }
                Ok(None) => break,
                Err(error) => {
                    let number = self.number();
                    ledger.fail(Invariant::WellFormed, || {
                        format!("client {number} cannot read the broker: {error}")
                    });
                }
            }
        }
        if self.state != State::Offline {
            self.inbox = inbox[taken..].to_vec();
        }
    }

    fn handle(&mut self, packet: &Packet<'_>, ledger: &mut Ledger) {
        let number = self.number();
        ledger.note(|| format!("client {number} gets {}", brief(packet)));
        if matches!(packet, Packet::ConnAck(_)) != (self.state == State::Connecting) {
            return ledger.fail(Invariant::WellFormed, || {
                format!("client {number} did not expect {}", brief(packet))
            });
        }
        match packet {
            Packet::ConnAck(ack) => self.connack(ack, ledger),
            Packet::Publish(publish) => self.arrived(publish, ledger),
            Packet::PubAck(ack) if self.fault == Some(Fault::SwapAcknowledgements) => match self.held_back.take() {
                None => self.held_back = Some(ack.packet_id.get()),
                Some(first) => {
                    self.acknowledged(PacketType::PubAck, ack, ledger);
                    self.acknowledged(
                        PacketType::PubAck,
                        &Ack {
                            packet_id: packet_id(first),
                            ..*ack
                        },
                        ledger,
                    );
                }
            },
            Packet::PubAck(ack) => self.acknowledged(PacketType::PubAck, ack, ledger),
            Packet::PubRec(ack) => self.acknowledged(PacketType::PubRec, ack, ledger),
            Packet::PubComp(ack) => self.acknowledged(PacketType::PubComp, ack, ledger),
            Packet::PubRel(ack) => {
                self.incoming.remove(&ack.packet_id.get());
                self.owed.push_back((PacketType::PubComp, ack.packet_id));
            }
            Packet::SubAck(ack) => self.subscribed(ack, ledger),
            Packet::UnsubAck(ack) => self.unsubscribed(ack, ledger),
            Packet::PingResp => {
                self.pings = self.pings.wrapping_sub(1);
                if self.pings == usize::MAX {
                    ledger.fail(Invariant::WellFormed, || {
                        format!("client {number} got PINGRESP without asking")
                    });
                }
            }
            Packet::Disconnect(disconnect) => self.disconnected(disconnect.reason, ledger),
            other => ledger.fail(Invariant::WellFormed, || {
                format!("client {number} got {}", brief(other))
            }),
        }
    }

    fn disconnected(&mut self, reason: ReasonCode, ledger: &mut Ledger) {
        use ReasonCode as R;
        let number = self.number();
        if !matches!(reason, R::SessionTakenOver | R::KeepAliveTimeout | R::QuotaExceeded) {
            ledger.fail(Invariant::WellFormed, || {
                format!("client {number} was disconnected: {}", reason.name())
            });
        }
        self.is_hung_up = true;
    }

    fn connack(&mut self, ack: &ConnAck<'_>, ledger: &mut Ledger) {
        let number = self.number();
        if ack.reason.is_error() {
            self.is_hung_up = true;
            return;
        }
        let Some(greeting) = self.greeting else { return };
        self.state = State::Connected;
        self.server_receive_maximum = ack.properties.u16(PropertyId::ReceiveMaximum).unwrap_or(u16::MAX);
        self.server_topic_aliases = ack.properties.u16(PropertyId::TopicAliasMaximum).unwrap_or(0);
        if ack.session_present && (greeting.clean_start || (self.epoch.is_none() && !self.has_ghost && !self.is_unsure))
        {
            ledger.fail(Invariant::SessionKept, || {
                format!("client {number} was given a session that it did not ask for")
            });
        }
        let is_for_ever = self.character.is_persistent && self.character.expiry_secs.is_none();
        if !ack.session_present && self.epoch.is_some() && is_for_ever && !self.is_unsure {
            ledger.fail(Invariant::SessionKept, || {
                format!("client {number} has lost its session")
            });
        }
        if !ack.session_present {
            self.forget_session(ledger);
            self.epoch = Some(ledger.begin_epoch(number, Vec::new()));
        } else if self.is_unsure {
            // We have given up the session that the broker still has [MQTT-3.2.2-4].
            self.is_hung_up = true;
            self.must_reset = true;
            return;
        } else if self.epoch.is_none() {
            self.epoch = Some(ledger.begin_epoch(number, Vec::new()));
        }
        (self.has_ghost, self.is_unsure, self.must_reset) = (false, false, false);
        if let Some(epoch) = self.epoch {
            ledger.epochs[epoch].connections += 1;
        }
        for out in self.outgoing.clone() {
            if out.is_released {
                self.release(out.id);
            } else {
                self.transmit(out.message, Some(out.id), true, ledger);
            }
        }
    }

    fn arrived(&mut self, publish: &Publish<'_>, ledger: &mut Ledger) {
        let number = self.number();
        let alias = publish.properties.u16(PropertyId::TopicAlias);
        let topic = match (publish.topic, alias) {
            (Some(topic), alias) => {
                alias.map(|alias| self.aliases_in.insert(alias, topic.as_str().into()));
                topic.as_str().to_owned()
            }
            (None, alias) => match alias.and_then(|alias| self.aliases_in.get(&alias)) {
                Some(topic) => topic.clone(),
                None => {
                    return ledger.fail(Invariant::WellFormed, || {
                        format!("client {number} got an unknown topic alias")
                    });
                }
            },
        };
        let maximum = self.greeting.map_or(0, |greeting| greeting.topic_aliases);
        if alias.is_some_and(|alias| alias > maximum) {
            ledger.fail(Invariant::WellFormed, || {
                format!("client {number} got topic alias {alias:?} over {maximum}")
            });
        }
        let mut is_new = true;
        if let Some(id) = publish.packet_id {
            self.held.insert(id.get());
            if publish.qos == QoS::ExactlyOnce {
                is_new = self.incoming.insert(id.get());
                self.owed.push_back((PacketType::PubRec, id));
            } else {
                self.owed.push_back((PacketType::PubAck, id));
            }
        }
        let maximum = self.greeting.map_or(u16::MAX, |greeting| greeting.receive_maximum);
        if self.character.version.has_properties() && self.held.len() > usize::from(maximum) {
            let held = self.held.len();
            ledger.fail(Invariant::Bounded, || {
                format!("client {number} got {held} PUBLISH at once, its maximum is {maximum}")
            });
        }
        let Some(epoch) = self.epoch else { return };
        let arrived = Arrived {
            topic: &topic,
            payload: publish.payload,
            qos: publish.qos,
            retain: publish.retain,
            dup: publish.dup,
        };
        ledger.arrived(epoch, arrived, is_new);
    }

    /// PUBACK, PUBREC or PUBCOMP: the one that is awaited, in the order of what it acknowledges.
    fn acknowledged(&mut self, kind: PacketType, ack: &Ack<'_>, ledger: &mut Ledger) {
        let (number, id) = (self.number(), ack.packet_id.get());
        let awaited = self.awaited.entry(kind).or_default().pop_front();
        if awaited != Some(id) {
            return ledger.fail(Invariant::AcknowledgementOrder, || {
                format!("client {number} got {} for {id}, it waits for {awaited:?}", kind.name())
            });
        }
        let step = ledger.step;
        let Some(at) = self.outgoing.iter().position(|out| out.id == id) else {
            return;
        };
        let out = &mut self.outgoing[at];
        match kind {
            PacketType::PubRec if !ack.reason.is_error() => {
                out.is_released = true;
                ledger.messages[out.message].accepted.get_or_insert(step);
                self.release(id);
            }
            PacketType::PubAck if !ack.reason.is_error() => {
                ledger.messages[out.message].accepted.get_or_insert(step);
                self.outgoing.remove(at);
            }
            _ => {
                self.outgoing.remove(at);
            }
        }
    }

    fn answered(&mut self, id: PacketId, is_subscribe: bool, ledger: &mut Ledger) -> Option<Request> {
        let number = self.number();
        let at = self
            .requests
            .iter()
            .position(|request| request.id == id.get() && request.is_subscribe == is_subscribe);
        if at != Some(0) {
            ledger.fail(Invariant::AcknowledgementOrder, || {
                format!("client {number} got an answer to request {id}, out of turn")
            });
        }
        at.and_then(|at| self.requests.remove(at))
    }

    fn subscribed(&mut self, ack: &SubAck<'_>, ledger: &mut Ledger) {
        let step = ledger.step;
        let Some(request) = self.answered(ack.packet_id, true, ledger) else {
            return;
        };
        let Some(epoch) = self.epoch else { return };
        let subs = &mut ledger.epochs[epoch].subs;
        for (place, reason) in request.subs.into_iter().zip(&ack.reasons) {
            if reason.is_error() {
                subs[place].end_asked.get_or_insert(step);
                subs[place].ended.get_or_insert(step);
                continue;
            }
            subs[place].granted = Some(step);
            let filter = subs[place].filter.clone();
            for old in subs[..place].iter_mut().filter(|sub| sub.filter == filter) {
                old.ended.get_or_insert(step);
            }
        }
    }

    fn unsubscribed(&mut self, ack: &UnsubAck<'_>, ledger: &mut Ledger) {
        let step = ledger.step;
        let Some(request) = self.answered(ack.packet_id, false, ledger) else {
            return;
        };
        let Some(epoch) = self.epoch else { return };
        for place in request.subs {
            ledger.epochs[epoch].subs[place].ended.get_or_insert(step);
        }
    }

    /// What the broker still owes this connection.
    pub(crate) fn waits_for(&self) -> Option<String> {
        let is_waiting = !self.outgoing.is_empty() || !self.requests.is_empty() || self.pings > 0;
        is_waiting.then(|| format!("{:?} {:?} {} pings", self.outgoing, self.requests, self.pings))
    }

    /// Filters that the client has, or may have.
    pub(crate) fn filters(&self, ledger: &Ledger) -> Vec<String> {
        let subs = self
            .epoch
            .map(|epoch| &ledger.epochs[epoch].subs[..])
            .unwrap_or_default();
        let filters: BTreeSet<&String> = subs
            .iter()
            .filter(|sub| sub.ended.is_none())
            .map(|sub| &sub.filter)
            .collect();
        filters.into_iter().cloned().collect()
    }
}

/// Options of a subscription with nothing special.
pub(crate) fn plain(qos: QoS) -> SubscriptionOptions {
    SubscriptionOptions {
        qos,
        no_local: false,
        retain_as_published: false,
        retain_handling: RetainHandling::Send,
    }
}

fn brief(packet: &Packet<'_>) -> String {
    match packet {
        Packet::Publish(publish) => {
            let payload = String::from_utf8_lossy(&publish.payload[..publish.payload.len().min(12)]).into_owned();
            let (id, qos, dup, retain) = (publish.packet_id, publish.qos.bits(), publish.dup, publish.retain);
            format!(
                "PUBLISH {id:?} {payload} on {:?} QoS {qos} dup={dup} retain={retain}",
                publish.topic
            )
        }
        Packet::PubAck(ack) | Packet::PubRec(ack) | Packet::PubRel(ack) | Packet::PubComp(ack) => {
            format!(
                "{} {} {}",
                packet.packet_type().name(),
                ack.packet_id,
                ack.reason.name()
            )
        }
        Packet::ConnAck(ack) => format!("CONNACK {} present={}", ack.reason.name(), ack.session_present),
        Packet::SubAck(ack) => format!("SUBACK {} {:?}", ack.packet_id, ack.reasons),
        Packet::Disconnect(disconnect) => format!("DISCONNECT {}", disconnect.reason.name()),
        other => other.packet_type().name().to_owned(),
    }
}
