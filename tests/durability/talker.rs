//! A client for stories with a fixed course: one thing after the other, each with its outcome.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use sundew::protocol::property::{PropertiesBuf, PropertyId};
use sundew::protocol::version::Version;

use crate::link::{Gone, Link};
use crate::publisher::connect;
use crate::wire::{self, Connect, PUBACK, PUBCOMP, PUBREC, PUBREL, Packet, Publish};

/// What did not come for so long does not come.
const QUIET: Duration = Duration::from_secs(1);

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// PUBACK or PUBREC with success.
    Acknowledged,
    /// PUBACK or PUBREC with this reason.
    Refused(u8),
    /// No acknowledgement, and the connection was closed.
    Closed,
}

/// One client on one connection.
pub(crate) struct Talker {
    link: Link,
    version: Version,
    pub(crate) session_present: bool,
    last_id: u16,
    messages: Vec<Publish>,
}

impl Talker {
    /// Connects; with a session that stays, or a new one that does not.
    pub(crate) fn connect(to: SocketAddr, version: Version, client_id: &str, is_lasting: bool) -> Result<Self, Gone> {
        Self::connect_as(to, version, &connect(client_id, version, is_lasting))
    }

    pub(crate) fn connect_as(to: SocketAddr, version: Version, connect: &Connect<'_>) -> Result<Self, Gone> {
        let (link, session_present) = Link::open(to, version, connect)?;
        Ok(Self {
            link,
            version,
            session_present,
            last_id: 0,
            messages: Vec::new(),
        })
    }

    /// Sends a message and, above QoS 0, waits for what becomes of it.
    pub(crate) fn publish(&mut self, topic: &str, payload: &[u8], qos: u8, retain: bool) -> Outcome {
        self.last_id = self.last_id.checked_add(1).unwrap_or(1);
        let id = self.last_id;
        let packet = Publish {
            retain,
            ..Publish::new(topic, payload, qos).id(if qos > 0 { id } else { 0 })
        };
        if self.link.send(&packet.encode(self.version)).is_err() {
            return Outcome::Closed;
        }
        if qos == 0 {
            return Outcome::Acknowledged;
        }
        let mut is_received = false;
        loop {
            match self.next() {
                Err(Gone) if is_received => return Outcome::Acknowledged, // the message is the broker's already
                Err(Gone) => return Outcome::Closed,
                Ok(Packet::PubAck(ack) | Packet::PubRec(ack)) if ack.packet_id == id && ack.reason >= 0x80 => {
                    return Outcome::Refused(ack.reason);
                }
                Ok(Packet::PubAck(ack) | Packet::PubComp(ack)) if ack.packet_id == id => return Outcome::Acknowledged,
                Ok(Packet::PubRec(ack)) if ack.packet_id == id => {
                    is_received = true;
                    let _ = self.link.send(&wire::ack(PUBREL, id)); // if it is closed, reading says so
                }
                Ok(packet) => panic!("an acknowledgement of {id}, but there came {packet:?}"),
            }
        }
    }

    /// Subscribes: the granted QoS or the reason why not.
    pub(crate) fn subscribe(&mut self, filter: &str, qos: u8) -> Result<u8, Gone> {
        self.last_id = self.last_id.checked_add(1).unwrap_or(1);
        let packet = wire::subscribe(self.version, self.last_id, &PropertiesBuf::new(), &[(filter, qos)]);
        self.link.send(&packet)?;
        match self.next()? {
            Packet::SubAck { reasons, .. } => Ok(reasons[0]),
            packet => panic!("SUBACK, but there came {packet:?}"),
        }
    }

    /// What comes: so many messages, and what comes along with them; fewer when nothing has come for a while. (An answer to
    /// PINGREQ is no fence: at QoS 2 a message waits for the store, others overtake it.)
    pub(crate) fn messages(&mut self, expected: usize) -> Result<Vec<Publish>, Gone> {
        let mut quiet = Instant::now();
        while self.messages.len() < expected && quiet.elapsed() < QUIET {
            if let Some(packet) = self.link.look()? {
                self.keep(packet)?;
                quiet = Instant::now();
            }
        }
        for packet in self.link.until_pong()? {
            self.keep(packet)?;
        }
        Ok(std::mem::take(&mut self.messages))
    }

    /// What comes before so many messages on a topic; or, where they do not come, before a while without any.
    pub(crate) fn messages_until(&mut self, count: usize, end: &str) -> Result<Vec<Publish>, Gone> {
        let mut quiet = Instant::now();
        while self.messages.iter().filter(|message| message.topic == end).count() < count && quiet.elapsed() < QUIET {
            if let Some(packet) = self.link.look()? {
                self.keep(packet)?;
                quiet = Instant::now();
            }
        }
        let mut messages = std::mem::take(&mut self.messages);
        messages.retain(|message| message.topic != end);
        Ok(messages)
    }

    /// Waits for one message.
    pub(crate) fn message(&mut self) -> Result<Publish, Gone> {
        while self.messages.is_empty() {
            let packet = self.link.wait()?;
            self.keep(packet)?;
        }
        Ok(self.messages.remove(0))
    }

    /// Says goodbye and waits until the broker hangs up.
    pub(crate) fn leave(mut self) {
        let goodbye = wire::disconnect(self.version, 0, &PropertiesBuf::new());
        if self.link.send(&goodbye).is_ok() {
            while self.link.look().is_ok() {}
        }
    }

    /// The next packet that is no message and does not belong to one.
    fn next(&mut self) -> Result<Packet, Gone> {
        loop {
            let packet = self.link.wait()?;
            if let Some(packet) = self.keep(packet)? {
                return Ok(packet);
            }
        }
    }

    /// Takes messages, acknowledges them, and gives back what is something else.
    fn keep(&mut self, packet: Packet) -> Result<Option<Packet>, Gone> {
        match packet {
            Packet::Publish(message) => {
                match message.qos {
                    0 => {}
                    1 => self.link.send(&wire::ack(PUBACK, message.packet_id))?,
                    _ => self.link.send(&wire::ack(PUBREC, message.packet_id))?,
                }
                self.messages.push(message);
            }
            Packet::PubRel(ack) => self.link.send(&wire::ack(PUBCOMP, ack.packet_id))?,
            Packet::Disconnect { .. } => return Err(Gone),
            packet => return Ok(Some(packet)),
        }
        Ok(None)
    }
}

/// The CONNECT of a session that stays, with a small Receive Maximum so that most of what waits waits on.
pub(crate) fn slow(client_id: &str) -> Connect<'_> {
    connect(client_id, Version::V5, true).with(|properties| properties.push_u16(PropertyId::ReceiveMaximum, 3))
}
