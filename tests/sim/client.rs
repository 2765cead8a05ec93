//! A client: the least that keeps every rule of the standard for clients, and checks what the broker owes it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use sundew::codec::{encode, write_ack};
use sundew::protocol::ids::PacketId;
use sundew::protocol::packet::{
    Ack, Connect, Disconnect, Packet, PacketType, Publish, RetainHandling, Subscribe, SubscriptionOptions, Unsubscribe,
    Will,
};
use sundew::protocol::property::{Properties, PropertiesBuf, PropertyId};
use sundew::protocol::qos::QoS;
use sundew::protocol::reason::ReasonCode;
use sundew::protocol::topic::{TopicFilter, TopicName};
use sundew::protocol::version::Version;

use crate::fault::Fault;
use crate::ledger::{Ledger, MessageId, Sub};
use crate::network::LinkId;

/// What a client is for all of its life.
#[derive(Clone, Debug)]
pub(crate) struct Character {
    pub number: usize,
    /// What its client identifier is made of: clients of several tenants have the same one.
    pub name: usize,
    /// The mount point of its tenant; empty for none. What it says goes without it over the network, and is in the ledger with it.
    pub mount: &'static str,
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

impl Character {
    /// The full name of a topic, or the full text of a filter.
    pub(crate) fn full(&self, own: &str) -> String {
        let (group, name) = parts(own);
        [group, self.mount, name].concat()
    }

    /// The other way round: what the client says.
    fn own(&self, full: &str) -> String {
        let (group, name) = parts(full);
        [group, name.strip_prefix(self.mount).unwrap()].concat()
    }
}

/// The `$share/GROUP/` of a shared subscription, and what is behind it.
fn parts(filter: &str) -> (&str, &str) {
    let end = match filter.strip_prefix("$share/") {
        Some(rest) => "$share/".len() + rest.find('/').unwrap() + 1,
        None => 0,
    };
    filter.split_at(end)
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
pub(crate) struct Outgoing {
    pub id: u16,
    pub message: MessageId,
    pub is_released: bool,
}

/// SUBSCRIBE or UNSUBSCRIBE that waits for its answer.
#[derive(Debug)]
pub(crate) struct Request {
    pub id: u16,
    pub is_subscribe: bool,
    /// Places in the epoch's list of subscriptions.
    pub subs: Vec<usize>,
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
    pub inbox: Vec<u8>,
    pub outgoing: VecDeque<Outgoing>,
    /// QoS 2 messages received and not released, each by its identifier with how it begins.
    pub incoming: BTreeMap<u16, Vec<u8>>,
    pub requests: VecDeque<Request>,
    pub pings: usize,
    /// Acknowledgements that we owe.
    pub owed: VecDeque<(PacketType, PacketId)>,
    /// Deliveries of this connection that are not acknowledged in full.
    pub held: BTreeSet<u16>,
    /// What we wait for, in order.
    pub awaited: BTreeMap<PacketType, VecDeque<u16>>,
    /// What goes wrong on purpose between this client and the broker.
    pub fault: Option<Fault>,
    /// A PUBACK that is held back for [`Fault::SwapAcknowledgements`].
    pub held_back: Option<u16>,
    last_id: u16,
    pub server_receive_maximum: u16,
    pub server_topic_aliases: u16,
    pub aliases_in: BTreeMap<u16, String>,
    aliases_out: BTreeMap<String, u16>,
    pub is_hung_up: bool,
    /// Something has come on this connection that comes only when the will is kept.
    pub is_will_kept: bool,
}

pub(crate) fn packet_id(id: u16) -> PacketId {
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
            incoming: BTreeMap::new(),
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
            is_will_kept: false,
        }
    }

    pub(crate) fn number(&self) -> usize {
        self.character.number
    }

    pub(crate) fn name(&self) -> String {
        format!("client-{}", self.character.name)
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
        let character = self.character.clone();
        let will_topic = will.as_ref().map(|(_, message)| character.own(&message.topic));
        let connect = Connect {
            version: self.character.version,
            is_bridge: false,
            clean_start: greeting.clean_start || self.fault == Some(Fault::LoseSession),
            keep_alive: self.character.keep_alive,
            client_id: &name,
            will: will
                .as_ref()
                .zip(will_topic.as_ref())
                .map(|((_, message), topic)| Will {
                    topic: TopicName::parse(topic).unwrap(),
                    payload: &payload,
                    qos: message.qos,
                    retain: false,
                    properties: will_properties.view(),
                }),
            user_name: Some(character.mount).filter(|mount| !mount.is_empty()),
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
        self.is_will_kept = false;
    }

    pub(crate) fn forget_session(&mut self, ledger: &mut Ledger) {
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
            is_released: false,
        });
        self.transmit(message, Some(id), false, ledger);
    }

    pub(crate) fn transmit(&mut self, message: MessageId, id: Option<u16>, dup: bool, ledger: &mut Ledger) {
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
        let own = self.character.own(&entry.topic);
        let mut topic = Some(TopicName::parse(&own).unwrap());
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

    pub(crate) fn release(&mut self, id: u16) {
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
        let own = |(filter, options): &(String, _)| (self.character.own(filter), *options);
        let filters: Vec<(String, SubscriptionOptions)> = filters.iter().map(own).collect();
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
        let own = self.character.own(filter);
        let filters = vec![TopicFilter::parse(&own).unwrap()];
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
