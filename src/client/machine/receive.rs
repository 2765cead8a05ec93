//! What the server sends, and what follows from it.

use bytes::Bytes;

use super::{Client, Limits, State, frame};
use crate::client::event::{Connected, Event, Fault, Received, RequestId};
use crate::codec;
use crate::protocol::ids::PacketId;
use crate::protocol::packet::{Ack, ConnAck, Disconnect, Packet, PacketType, Publish};
use crate::protocol::property::{Properties, PropertiesBuf, PropertyId};
use crate::protocol::qos::QoS;
use crate::protocol::reason::ReasonCode;
use crate::protocol::time::Time;
use crate::protocol::version::Version;
use crate::session::packet_ids::PacketIdSet;
use crate::session::topic_alias::{Naming, OutboundAliases};

impl Client {
    pub(super) fn take(&mut self, packet: &Packet<'_>, now: Time) -> Result<(), Fault> {
        if matches!(self.state, State::Connecting(_)) {
            return match packet {
                Packet::ConnAck(ack) => self.take_connack(ack),
                Packet::Auth(auth) if self.exchange.is_some() => self.go_on(auth, now),
                Packet::Auth(auth) => {
                    self.events.push_back(Event::Auth(auth.reason, owned(auth.properties)));
                    Ok(())
                }
                Packet::Disconnect(disconnect) => Err(disconnected(disconnect)),
                _ => Err(Fault::Protocol("another packet before CONNACK")),
            };
        }
        match packet {
            Packet::Publish(publish) => self.take_publish(publish, now)?,
            Packet::PubAck(ack) => self.take_done(QoS::AtLeastOnce, ack)?,
            Packet::PubRec(ack) if ack.reason.is_error() => self.take_done(QoS::ExactlyOnce, ack)?,
            Packet::PubRec(ack) => {
                let is_known = self.publications.release(ack.packet_id);
                let reason = if is_known {
                    ReasonCode::Success
                } else {
                    ReasonCode::PacketIdentifierNotFound
                };
                self.acknowledge(PacketType::PubRel, ack.packet_id, reason, now);
            }
            Packet::PubRel(ack) => {
                let reason = if self.unreleased.remove(ack.packet_id) {
                    ReasonCode::Success
                } else {
                    ReasonCode::PacketIdentifierNotFound
                };
                self.acknowledge(PacketType::PubComp, ack.packet_id, reason, now);
            }
            Packet::PubComp(ack) => {
                if let Some(request) = self.publications.complete(ack.packet_id) {
                    self.packet_ids.remove(ack.packet_id);
                    self.events.push_back(Event::Published(request, Ok(ack.reason)));
                }
            }
            Packet::SubAck(ack) => {
                let request = self.answered(ack.packet_id)?;
                self.events.push_back(Event::Subscribed(request, ack.reasons.clone()));
            }
            Packet::UnsubAck(ack) => {
                let request = self.answered(ack.packet_id)?;
                self.events.push_back(Event::Unsubscribed(request, ack.reasons.clone()));
            }
            Packet::PingResp => {}
            Packet::Disconnect(disconnect) => return Err(disconnected(disconnect)),
            Packet::Auth(auth) => self.events.push_back(Event::Auth(auth.reason, owned(auth.properties))),
            _ => return Err(Fault::Protocol("a packet that does not belong here")),
        }
        Ok(())
    }

    fn take_connack(&mut self, ack: &ConnAck<'_>) -> Result<(), Fault> {
        if ack.reason != ReasonCode::Success {
            return Err(Fault::Refused(ack.reason, owned(ack.properties)));
        }
        if ack.session_present && self.clean_start() {
            return Err(Fault::Protocol("a session is present that we asked to end")); // [MQTT-3.2.2-4]
        }
        self.end_exchange(ack)?;
        self.limits = Limits::of(ack.properties, &self.options);
        let alias_maximum = ack.properties.u16(PropertyId::TopicAliasMaximum).unwrap_or(0);
        self.outbound_aliases = OutboundAliases::new(alias_maximum);
        if let Some(assigned) = ack.properties.text(PropertyId::AssignedClientIdentifier) {
            assigned.clone_into(&mut self.options.client_id);
        }
        // MQTT 3.1 does not say whether there was a session; one that was asked for is taken as there.
        let is_31_again = self.options.version == Version::V31 && !self.options.clean_start && self.has_session;
        self.state = State::Connected;
        self.has_session = true;
        self.events.push_back(Event::Connected(Connected {
            session_present: ack.session_present,
            client_id: self.options.client_id.clone(),
            properties: owned(ack.properties),
        }));
        if ack.session_present || is_31_again {
            self.send_again();
        } else {
            self.unreleased = PacketIdSet::default(); // [MQTT-3.2.2-5]
            self.packet_ids = PacketIdSet::default();
            for request in self.publications.begin_anew() {
                self.events
                    .push_back(Event::Published(request, Ok(ReasonCode::Success)));
            }
        }
        Ok(())
    }

    /// What the last connection left open, in the order of sending [MQTT-4.4.0-1] [MQTT-4.6.0-1].
    fn send_again(&mut self) {
        let version = self.options.version;
        let mut dropped = Vec::new();
        for sent in &self.publications.in_flight {
            let Some(message) = &sent.message else {
                let success = ReasonCode::Success;
                codec::write_ack(PacketType::PubRel, sent.packet_id, success, version, &mut self.output);
                continue;
            };
            let frame = frame(message, Some(sent.packet_id), Naming::Name, true);
            let written = self.limits.check(message, frame.encoded_len(version));
            if let Err(error) = written.and_then(|()| Ok(frame.write(version, &mut self.output).map(|_| ())?)) {
                dropped.push((sent.packet_id, message.qos, error));
            }
        }
        for (packet_id, qos, error) in dropped {
            if let Some(request) = self.publications.finish(packet_id, qos) {
                self.packet_ids.remove(packet_id);
                self.events.push_back(Event::Published(request, Err(error)));
            }
        }
    }

    fn take_publish(&mut self, publish: &Publish<'_>, now: Time) -> Result<(), Fault> {
        let alias = publish.properties.u16(PropertyId::TopicAlias);
        let bad_alias = |_| Fault::Protocol("a topic alias that was not set, or is out of range");
        let topic = match (publish.topic, alias) {
            (Some(topic), None) => topic.as_str().to_owned(),
            (Some(topic), Some(alias)) => {
                self.inbound_aliases.set(alias, topic).map_err(bad_alias)?;
                topic.as_str().to_owned()
            }
            (None, alias) => {
                let topic = self.inbound_aliases.resolve(alias.unwrap_or(0)).map_err(bad_alias)?;
                topic.as_ref().to_owned()
            }
        };
        if let Some(packet_id) = publish.packet_id.filter(|_| publish.qos == QoS::ExactlyOnce) {
            if self.unreleased.contains(packet_id) {
                // It was delivered before [MQTT-4.3.3-10].
                self.acknowledge(PacketType::PubRec, packet_id, ReasonCode::Success, now);
                return Ok(());
            }
            let is_it = |event: &Event| {
                matches!(event, Event::Message(message)
                    if message.packet_id == Some(packet_id) && message.qos == QoS::ExactlyOnce)
            };
            // Old servers repeat themselves within a connection.
            if publish.dup && self.events.iter().any(is_it) {
                return Ok(());
            }
            let receive_maximum = self.options.properties.view().u16(PropertyId::ReceiveMaximum);
            if self.unreleased.len() >= receive_maximum.unwrap_or(u16::MAX) {
                return Err(Fault::Protocol("more messages at once than our receive maximum")); // [MQTT-3.3.4-9]
            }
        }
        self.events.push_back(Event::Message(Received {
            topic,
            payload: Bytes::copy_from_slice(publish.payload),
            qos: publish.qos,
            retain: publish.retain,
            dup: publish.dup,
            packet_id: publish.packet_id,
            properties: owned(publish.properties),
        }));
        Ok(())
    }

    /// The message was taken: it is the client's now, whether or not the server hears of it.
    pub(super) fn acknowledge_message(&mut self, qos: QoS, packet_id: Option<PacketId>) {
        let Some(packet_id) = packet_id else { return };
        let packet = if qos == QoS::ExactlyOnce {
            self.unreleased.insert(packet_id);
            PacketType::PubRec
        } else {
            PacketType::PubAck
        };
        if self.state == State::Connected {
            let version = self.options.version;
            codec::write_ack(packet, packet_id, ReasonCode::Success, version, &mut self.output);
        }
    }

    fn take_done(&mut self, qos: QoS, ack: &Ack<'_>) -> Result<(), Fault> {
        let Some(request) = self.publications.finish(ack.packet_id, qos) else {
            // A server that answers twice does no harm; one that answers what we did not send has lost count.
            return if self.packet_ids.contains(ack.packet_id) {
                Err(Fault::Protocol("an acknowledgement that does not fit the message"))
            } else {
                Ok(())
            };
        };
        self.packet_ids.remove(ack.packet_id);
        self.events.push_back(Event::Published(request, Ok(ack.reason)));
        Ok(())
    }

    fn answered(&mut self, packet_id: PacketId) -> Result<RequestId, Fault> {
        self.packet_ids.remove(packet_id);
        let request = self.requests.remove(&packet_id);
        request.ok_or(Fault::Protocol("the answer to a request that was not made"))
    }
}

fn disconnected(disconnect: &Disconnect<'_>) -> Fault {
    Fault::Disconnected(disconnect.reason, owned(disconnect.properties))
}

fn owned(properties: Properties<'_>) -> PropertiesBuf {
    let mut owned = PropertiesBuf::new();
    for (id, value) in properties.iter() {
        owned.push(id, value);
    }
    owned
}
