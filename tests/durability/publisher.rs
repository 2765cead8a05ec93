//! A publisher as MQTT demands one: what was not acknowledged is sent again, in its order, on the next connection.

use std::collections::VecDeque;
use std::time::Duration;

use sundew::protocol::property::PropertyId;
use sundew::protocol::version::Version;

use crate::link::{Gone, Link};
use crate::random::Random;
use crate::stage::{Phase, Stage};
use crate::wire::{self, Ack, Connect, PUBREL, Packet, Publish};

/// Messages on their way at once.
const WINDOW: usize = 12;

/// One publisher; runs in a thread of its own.
pub(crate) struct Publisher {
    /// Which one: its topics are `m/NUMBER/QOS` and `r/NUMBER/…`, the latter retained.
    pub(crate) number: usize,
    pub(crate) version: Version,
    /// Whether its session stays. Without one it sends at QoS 1 only.
    pub(crate) is_lasting: bool,
    pub(crate) random: Random,
    /// Longest pause between two turns.
    pub(crate) pause: Duration,
    in_flight: VecDeque<InFlight>,
    has_session: bool,
    last_id: u16,
}

struct InFlight {
    number: usize,
    packet: Publish,
    /// PUBREC came: PUBREL is what is sent again.
    is_received: bool,
}

impl Publisher {
    pub(crate) fn new(number: usize, version: Version, is_lasting: bool, seed: u64) -> Self {
        Self {
            number,
            version,
            is_lasting,
            random: Random::new(seed),
            pause: Duration::from_millis(6),
            in_flight: VecDeque::new(),
            has_session: false,
            last_id: 0,
        }
    }

    /// Publishes over all lives of the broker, until all is over.
    pub(crate) fn run(mut self, stage: &Stage) {
        while let Some(address) = stage.broker() {
            let client_id = format!("publisher-{}", self.number);
            let connect = connect(&client_id, self.version, self.is_lasting);
            let Ok((mut link, session_present)) = Link::open(address, self.version, &connect) else {
                stage.rest(Duration::from_millis(10));
                continue;
            };
            if self.is_lasting && session_present != self.has_session && self.has_session {
                stage.ledger().fault(format!("the session of {client_id} is lost"));
            }
            self.has_session = self.is_lasting;
            let _ = self
                .resume(&mut link, session_present)
                .and_then(|()| self.talk(&mut link, stage));
            if stage.phase() == Phase::Over {
                return;
            }
            stage.rest(Duration::from_millis(5));
        }
    }

    /// Sends again what was not acknowledged (4.4).
    fn resume(&mut self, link: &mut Link, session_present: bool) -> Result<(), Gone> {
        for sent in &self.in_flight {
            let bytes = match sent.is_received && session_present {
                true => wire::ack(PUBREL, sent.packet.packet_id),
                false if session_present => sent.packet.clone().again().encode(self.version),
                false => sent.packet.encode(self.version),
            };
            link.send(&bytes)?;
        }
        Ok(())
    }

    fn talk(&mut self, link: &mut Link, stage: &Stage) -> Result<(), Gone> {
        loop {
            let phase = stage.phase();
            stage.idle(self.number, phase != Phase::Load && self.in_flight.is_empty());
            if phase == Phase::Over {
                return Ok(());
            }
            if phase == Phase::Load {
                self.publish_some(link, stage)?;
            }
            if !self.pause.is_zero() && self.random.percent(50) {
                stage.rest(self.pause.mul_f64(self.random.below(100) as f64 / 100.0));
            }
            while let Some(packet) = link.look()? {
                self.answer(link, stage, packet)?;
            }
        }
    }

    fn publish_some(&mut self, link: &mut Link, stage: &Stage) -> Result<(), Gone> {
        for _ in 0..self.random.below(5) {
            if self.in_flight.len() >= WINDOW {
                break;
            }
            let (number, packet) = self.message(stage);
            let bytes = packet.encode(self.version);
            self.in_flight.push_back(InFlight {
                number,
                packet,
                is_received: false,
            });
            link.send(&bytes)?;
        }
        Ok(())
    }

    /// A message nobody saw before.
    fn message(&mut self, stage: &Stage) -> (usize, Publish) {
        let is_retained = self.random.percent(20);
        let kind = self.random.below(if is_retained { 4 } else { 2 });
        let qos = if self.is_lasting { 1 + kind as u8 % 2 } else { 1 };
        let topic = format!("{}/{}/{kind}", if is_retained { "r" } else { "m" }, self.number);
        let length = match self.random.below(100) {
            0..6 => 20_000 + self.random.below(60_000),
            6..30 if is_retained => 0,
            _ => 1 + self.random.below(300),
        };
        let (number, payload) = stage.ledger().publish(self.number, &topic, qos, is_retained, length);
        let packet = Publish {
            retain: is_retained,
            ..Publish::new(&topic, payload, qos).id(self.next_id())
        };
        (number, packet)
    }

    fn answer(&mut self, link: &mut Link, stage: &Stage, packet: Packet) -> Result<(), Gone> {
        match packet {
            Packet::PubAck(ack) => {
                if let Some(sent) = self.take(&ack) {
                    self.settle(stage, &sent, &ack);
                }
            }
            Packet::PubRec(ack) if ack.reason >= 0x80 => {
                if let Some(sent) = self.take(&ack) {
                    self.settle(stage, &sent, &ack);
                }
            }
            Packet::PubRec(ack) => {
                let found = self
                    .in_flight
                    .iter_mut()
                    .find(|sent| sent.packet.packet_id == ack.packet_id);
                let Some(sent) = found else {
                    stage.ledger().fault(format!("PUBREC {} for nothing", ack.packet_id));
                    return Ok(());
                };
                sent.is_received = true;
                stage.ledger().acknowledge(sent.number);
                link.send(&wire::ack(PUBREL, ack.packet_id))?;
            }
            Packet::PubComp(ack) => {
                if ack.reason != 0 && self.has(&ack) {
                    let fault = format!("PUBCOMP {:#x} for a message of publisher {}", ack.reason, self.number);
                    stage.ledger().fault(fault);
                }
                self.take(&ack);
            }
            Packet::Disconnect { .. } => return Err(Gone),
            packet => stage.ledger().fault(format!("a publisher got {packet:?}")),
        }
        Ok(())
    }

    fn settle(&self, stage: &Stage, sent: &InFlight, ack: &Ack) {
        if ack.reason >= 0x80 {
            stage.ledger().refuse(sent.number);
        } else {
            stage.ledger().acknowledge(sent.number);
        }
    }

    fn has(&self, ack: &Ack) -> bool {
        self.in_flight.iter().any(|sent| sent.packet.packet_id == ack.packet_id)
    }

    fn take(&mut self, ack: &Ack) -> Option<InFlight> {
        let at = self
            .in_flight
            .iter()
            .position(|sent| sent.packet.packet_id == ack.packet_id)?;
        self.in_flight.remove(at)
    }

    fn next_id(&mut self) -> u16 {
        loop {
            self.last_id = self.last_id.checked_add(1).unwrap_or(1);
            if self.in_flight.iter().all(|sent| sent.packet.packet_id != self.last_id) {
                return self.last_id;
            }
        }
    }
}

/// The CONNECT of a client that takes up its session; or of one without, that begins anew.
pub(crate) fn connect(client_id: &str, version: Version, is_lasting: bool) -> Connect<'_> {
    let connect = Connect {
        client_id,
        clean: !is_lasting,
        ..Connect::default()
    };
    if is_lasting && version.has_properties() {
        connect.with(|properties| properties.push_u32(PropertyId::SessionExpiryInterval, 10_000))
    } else {
        connect
    }
}
