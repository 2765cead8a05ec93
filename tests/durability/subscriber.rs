//! A subscriber with a session that stays, as MQTT demands one: it keeps the identifiers of QoS 2 over its connections, and
//! acknowledges late, so that there is always something on its way when the broker dies.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use sundew::protocol::property::{PropertiesBuf, PropertyId, PropertyValue};
use sundew::protocol::version::Version;

use crate::link::{Gone, Link};
use crate::publisher::connect;
use crate::random::Random;
use crate::stage::{Phase, Stage};
use crate::wire::{self, PINGREQ, PUBACK, PUBCOMP, PUBREC, Packet, Publish};

/// What a subscriber does while there is load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Plan {
    /// It is there whenever the broker is.
    Stay,
    /// It comes and goes, with a DISCONNECT or without a word.
    Flap,
    /// It subscribes, leaves, and comes back seldom until the end.
    Away,
    /// It is there, and unsubscribes and subscribes.
    Change,
    /// It comes and goes, and sometimes it begins a new session.
    Clear,
}

/// One subscriber; runs in a thread of its own.
pub(crate) struct Subscriber {
    pub(crate) name: String,
    pub(crate) version: Version,
    pub(crate) filter: String,
    pub(crate) qos: u8,
    pub(crate) plan: Plan,
    /// Its number in the ledger; none for the witness of wills.
    pub(crate) audience: Option<usize>,
    pub(crate) random: Random,
    state: State,
    has_session: bool,
    /// Begins a new session, and goes on trying.
    is_clearing: bool,
    /// QoS 2: what came and was not released, and what it was.
    received: HashMap<u16, Vec<u8>>,
    acks: VecDeque<Vec<u8>>,
    /// PINGREQ sent and PINGRESP seen on this connection, at the end.
    pings: (usize, usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Out,
    Subscribing,
    In,
    Unsubscribing,
}

/// At the end each asks so often whether there is more. Messages at QoS 2 wait for the store, and answers overtake them.
const PINGS: usize = 10;
/// The packet identifier of SUBSCRIBE and UNSUBSCRIBE.
const ID: u16 = 7;

impl Subscriber {
    pub(crate) fn new(name: &str, version: Version, filter: &str, qos: u8, plan: Plan, seed: u64) -> Self {
        Self {
            name: name.to_owned(),
            version,
            filter: filter.to_owned(),
            qos,
            plan,
            audience: None,
            random: Random::new(seed),
            state: State::Out,
            has_session: false,
            is_clearing: false,
            received: HashMap::new(),
            acks: VecDeque::new(),
            pings: (0, 0),
        }
    }

    /// Subscribes and receives over all lives of the broker, until all is over.
    pub(crate) fn run(mut self, stage: &Stage) {
        while let Some(address) = stage.broker() {
            let is_load = stage.phase() == Phase::Load;
            if self.plan == Plan::Away && self.state == State::In && is_load && !self.random.percent(2) {
                stage.rest(Duration::from_millis(50));
                continue;
            }
            let may_clear = self.plan == Plan::Clear && self.state == State::In && is_load;
            if may_clear && self.random.percent(20) && !self.is_clearing {
                self.is_clearing = true;
                self.on_ledger(stage, |ledger, audience| ledger.unsubscribing(audience, true));
            }
            if let Ok(mut link) = self.open(stage, address) {
                let _ = self.talk(&mut link, stage);
            }
            let pause = if self.plan == Plan::Stay {
                5
            } else {
                5 + self.random.below(150)
            };
            stage.rest(Duration::from_millis(if is_load { pause as u64 } else { 5 }));
        }
    }

    fn on_ledger(&self, stage: &Stage, act: impl FnOnce(&mut crate::ledger::Ledger, usize)) {
        if let Some(audience) = self.audience {
            act(&mut stage.ledger(), audience);
        }
    }

    fn open(&mut self, stage: &Stage, address: std::net::SocketAddr) -> Result<Link, Gone> {
        let mut connect = connect(&self.name, self.version, true);
        connect.clean = self.is_clearing;
        if self.version.has_properties() {
            connect = connect.with(|properties| properties.push_u16(PropertyId::ReceiveMaximum, 12));
        }
        let (mut link, session_present) = Link::open(address, self.version, &connect)?;
        if self.is_clearing && session_present {
            stage
                .ledger()
                .fault(format!("{}: session present after a clean start", self.name));
        }
        if !self.is_clearing && self.has_session && !session_present {
            stage.ledger().fault(format!("the session of {} is lost", self.name));
        }
        if self.is_clearing {
            self.on_ledger(stage, |ledger, audience| ledger.unsubscribed(audience));
        }
        if !session_present {
            self.state = State::Out;
            self.received.clear();
        }
        let is_cleared = std::mem::take(&mut self.is_clearing);
        self.has_session = !is_cleared || self.version.has_properties();
        if !self.has_session {
            return Err(Gone); // before 5.0 a clean session ends with its connection: the next one begins what stays
        }
        self.acks.clear();
        self.pings = (0, 0);
        match self.state {
            State::In => {}
            State::Unsubscribing => self.unsubscribe(&mut link)?,
            State::Out if self.plan == Plan::Change && self.has_changed(stage) => {}
            State::Out | State::Subscribing => self.subscribe(&mut link, stage)?,
        }
        Ok(link)
    }

    /// Whether it is out since it wants to be.
    fn has_changed(&self, stage: &Stage) -> bool {
        self.audience
            .is_some_and(|audience| stage.ledger().has_subscribed(audience))
    }

    fn subscribe(&mut self, link: &mut Link, stage: &Stage) -> Result<(), Gone> {
        if self.state == State::Out {
            self.on_ledger(stage, |ledger, audience| ledger.subscribing(audience));
        }
        self.state = State::Subscribing;
        let mut properties = PropertiesBuf::new();
        if self.version.has_properties() {
            properties.push_varint(PropertyId::SubscriptionIdentifier, self.identifier());
        }
        link.send(&wire::subscribe(
            self.version,
            ID,
            &properties,
            &[(&self.filter, self.qos)],
        ))
    }

    fn unsubscribe(&mut self, link: &mut Link) -> Result<(), Gone> {
        link.send(&wire::unsubscribe(self.version, ID, &[&self.filter]))
    }

    /// Its subscription identifier (5.0).
    fn identifier(&self) -> u32 {
        self.filter.len() as u32 * 1000 + u32::from(self.qos)
    }

    fn talk(&mut self, link: &mut Link, stage: &Stage) -> Result<(), Gone> {
        let is_new = self.state != State::In;
        let until = Instant::now() + Duration::from_millis(self.random.between(30, 500) as u64);
        loop {
            let phase = stage.phase();
            if phase == Phase::Over {
                return Ok(());
            }
            let is_time = match self.plan {
                Plan::Away => is_new && self.state == State::In || Instant::now() > until,
                Plan::Flap | Plan::Clear => Instant::now() > until,
                Plan::Stay | Plan::Change => false,
            };
            if phase == Phase::Load && is_time {
                if self.random.percent(50) {
                    link.send(&wire::disconnect(self.version, 0, &PropertiesBuf::new()))?;
                }
                return Ok(());
            }
            if phase == Phase::Load && self.plan == Plan::Change && self.random.percent(2) {
                self.change(link, stage)?;
            }
            if phase == Phase::Drain && self.pings.0 == self.pings.1 && self.pings.0 < PINGS {
                stage.rest(Duration::from_millis(20));
                link.send(&PINGREQ)?;
                self.pings.0 += 1;
            }
            while let Some(packet) = link.look()? {
                self.take(stage, packet);
                self.flush(link, phase)?;
            }
            self.flush(link, phase)?;
        }
    }

    fn change(&mut self, link: &mut Link, stage: &Stage) -> Result<(), Gone> {
        match self.state {
            State::In => {
                self.on_ledger(stage, |ledger, audience| ledger.unsubscribing(audience, false));
                self.state = State::Unsubscribing;
                self.unsubscribe(link)
            }
            State::Out => self.subscribe(link, stage),
            State::Subscribing | State::Unsubscribing => Ok(()),
        }
    }

    fn take(&mut self, stage: &Stage, packet: Packet) {
        match packet {
            Packet::Publish(message) => self.receive(stage, &message),
            Packet::PubRel(ack) => {
                let is_known = self.received.remove(&ack.packet_id).is_some();
                self.acks.push_back(match is_known || !self.version.has_properties() {
                    true => wire::ack(PUBCOMP, ack.packet_id),
                    false => wire::ack_with(PUBCOMP, ack.packet_id, 0x92),
                });
            }
            Packet::SubAck { reasons, .. } => {
                self.state = State::In;
                if reasons != [self.qos] {
                    stage.ledger().fault(format!("{}: SUBACK {reasons:02x?}", self.name));
                }
                self.on_ledger(stage, |ledger, audience| ledger.subscribed(audience));
                if self.audience.is_none() {
                    stage.ledger().has_witness = true;
                }
            }
            Packet::UnsubAck { .. } => {
                self.state = State::Out;
                self.on_ledger(stage, |ledger, audience| ledger.unsubscribed(audience));
            }
            Packet::PingResp => {
                self.pings.1 += 1;
                if self.pings.1 == PINGS {
                    stage.settle();
                }
            }
            Packet::Disconnect { reason, .. } => {
                if reason != 0x8B {
                    stage.ledger().fault(format!("{}: DISCONNECT {reason:#x}", self.name));
                }
            }
            packet => stage.ledger().fault(format!("{} got {packet:?}", self.name)),
        }
    }

    fn receive(&mut self, stage: &Stage, message: &Publish) {
        match message.qos {
            1 => self.acks.push_back(wire::ack(PUBACK, message.packet_id)),
            2 => {
                self.acks.push_back(wire::ack(PUBREC, message.packet_id));
                if let Some(before) = self.received.get(&message.packet_id) {
                    if *before != message.payload {
                        let fault = format!(
                            "{}: packet identifier {} of another message",
                            self.name, message.packet_id
                        );
                        stage.ledger().fault(fault);
                    }
                    return; // method of 4.3.3: it was handed on when it came first
                }
                self.received.insert(message.packet_id, message.payload.clone());
            }
            _ => {}
        }
        let values = message.properties.view();
        let mut identifiers = values.iter().filter_map(|(_, value)| match value {
            PropertyValue::VarInt(identifier) => Some(identifier),
            _ => None,
        });
        if self.version.has_properties() && identifiers.next() != Some(self.identifier()) {
            stage
                .ledger()
                .fault(format!("{}: not its subscription identifier", self.name));
        }
        match self.audience {
            Some(audience) => stage
                .ledger()
                .arrive(audience, &message.topic, message.qos, &message.payload),
            None => stage.ledger().will_arrived(&message.payload),
        }
    }

    /// Acknowledges what came: late, while there is load.
    fn flush(&mut self, link: &mut Link, phase: Phase) -> Result<(), Gone> {
        while phase != Phase::Load || self.random.percent(60) {
            let Some(ack) = self.acks.pop_front() else {
                return Ok(());
            };
            link.send(&ack)?;
        }
        Ok(())
    }
}
