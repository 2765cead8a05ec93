//! What a client does with what comes from the broker.

use sundew::codec::{self, DecodeOptions, Role};
use sundew::protocol::ids::PacketId;
use sundew::protocol::packet::{Ack, ConnAck, Packet, PacketType, Publish, SubAck, UnsubAck};
use sundew::protocol::property::PropertyId;
use sundew::protocol::qos::QoS;
use sundew::protocol::reason::ReasonCode;

use crate::client::{Client, Request, State, packet_id};
use crate::fault::Fault;
use crate::ledger::{Arrived, Invariant, Ledger};
use crate::network::Link;

impl Client {
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
        if ledger.is_damaged && reason == R::ReceiveMaximumExceeded {
            // Identifiers whose release was in a gap count for ever: only a new session helps.
            self.must_reset = true;
        } else if !matches!(reason, R::SessionTakenOver | R::KeepAliveTimeout | R::QuotaExceeded) {
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
        if ledger.is_damaged {
            // What was ended may be there again.
            self.is_unsure |= self.epoch.is_none() || ack.session_present && greeting.clean_start;
        } else if ack.session_present
            && (greeting.clean_start || (self.epoch.is_none() && !self.has_ghost && !self.is_unsure))
        {
            ledger.fail(Invariant::SessionKept, || {
                format!("client {number} was given a session that it did not ask for")
            });
        }
        let is_for_ever = self.character.is_persistent && self.character.expiry_secs.is_none();
        if !ack.session_present && self.epoch.is_some() && is_for_ever && !self.is_unsure && !ledger.is_damaged {
            ledger.fail(Invariant::SessionKept, || {
                format!("client {number} has lost its session")
            });
        }
        if !ack.session_present {
            self.is_will_kept = self.character.is_persistent && greeting.expiry_secs > 0;
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
        let topic = self.character.full(&topic);
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
                let start = &publish.payload[..publish.payload.len().min(12)];
                let before = self.incoming.insert(id.get(), start.to_vec());
                is_new = before.is_none();
                // Where the identifier was told in a gap it may be used again, and that message is lost.
                if before.is_some_and(|before| before != start) && !ledger.is_damaged {
                    ledger.fail(Invariant::ExactlyOnce, || {
                        format!("client {number} has {id} of QoS 2, and gets another message with it")
                    });
                }
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
                ledger.events.refusals += u64::from(ack.reason == ReasonCode::QuotaExceeded);
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
        self.is_will_kept = self.greeting.is_some_and(|greeting| greeting.expiry_secs > 0);
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
