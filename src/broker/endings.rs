//! How connections and sessions end: DISCONNECT, silence, violations, wills, expiry, drain.

use core::net::IpAddr;
use std::collections::VecDeque;

use tracing::{debug, info, warn};

use super::timers::Reminder;
use super::worker::Worker;
use crate::auth::Refusal;
use crate::auth::bans::BANNED;
use crate::codec::{DecodeError, ErrorKind, is_of_connack};
use crate::delivery::outbox::Entry;
use crate::delivery::residents::{Residents, STALL_MS};
use crate::protocol::ids::{ClientId, ConnectionKey, SessionKey, SlotKey, Ticket};
use crate::protocol::packet::{ConnAck, Disconnect, Packet, PacketType};
use crate::protocol::property::{Properties, PropertiesBuf, PropertyId};
use crate::protocol::reason::ReasonCode;
use crate::protocol::repeat::Repeats;
use crate::protocol::time::Time;
use crate::protocol::version::Version;
use crate::session::connection::{Connection, Phase};
use crate::session::violation::Violation;
use crate::session::will::Will;
use crate::storage::Record;

/// Why a connection ends.
#[derive(Clone, Debug)]
pub enum Ending<'a> {
    /// DISCONNECT came; the reason is the client's.
    Disconnect(ReasonCode),
    /// The network connection ended by itself.
    Lost(&'a str),
    /// The client broke the protocol.
    Violation(Violation),
    /// The client connected again [MQTT-3.1.4-3].
    TakenOver,
    /// Its messages could not be accepted, and its version has no other way to be told.
    Refused(ReasonCode, &'static str),
    /// Its queue overflowed and the policy says so.
    Overflow,
    /// CONNECT did not come in time.
    ConnectTimeout,
    /// What its client was let in for has ended: the token that it showed.
    Expired,
    /// The broker stops.
    Shutdown,
    /// An operator wants it.
    Administrative(ReasonCode),
}

impl Ending<'_> {
    /// The reason code for the client, where the broker ends it.
    const fn reason(&self) -> Option<ReasonCode> {
        match self {
            Self::Disconnect(_) | Self::Lost(_) | Self::ConnectTimeout => None,
            Self::Violation(violation) => Some(violation.reason()),
            Self::TakenOver => Some(ReasonCode::SessionTakenOver),
            Self::Refused(reason, _) | Self::Administrative(reason) => Some(*reason),
            Self::Overflow => Some(ReasonCode::QuotaExceeded),
            Self::Expired => Some(ReasonCode::MaximumConnectTime),
            Self::Shutdown => Some(ReasonCode::ServerShuttingDown),
        }
    }

    /// Only DISCONNECT with reason 0 removes the will [MQTT-3.14.4-3].
    const fn removes_will(&self) -> bool {
        matches!(self, Self::Disconnect(ReasonCode::Success))
    }

    fn text(&self) -> String {
        match self {
            Self::Disconnect(ReasonCode::Success) => "disconnected by the client".into(),
            Self::Disconnect(reason) => format!("disconnected by the client: {}", reason.name()),
            Self::Lost(why) => (*why).into(),
            Self::Violation(violation) => violation.to_string(),
            Self::TakenOver => "session taken over by a new connection of the same client id".into(),
            Self::Refused(_, why) => (*why).into(),
            Self::Overflow => "queue full, and the overflow policy is disconnect".into(),
            Self::ConnectTimeout => "no CONNECT in time".into(),
            Self::Expired => "token_expired".into(),
            Self::Shutdown => "server shutting down".into(),
            Self::Administrative(reason) => reason.name().into(),
        }
    }
}

impl Worker {
    /// DISCONNECT came.
    pub(super) fn disconnect(&mut self, key: ConnectionKey, disconnect: &Disconnect<'_>, now: Time) {
        if let Some(expiry) = disconnect.properties.u32(PropertyId::SessionExpiryInterval)
            && let Some((connection, resident)) = self.residents.pair(key)
        {
            if connection.session_expiry_was_zero && expiry > 0 {
                return self.end_connection(key, Ending::Violation(Violation::SessionExpiry), now); // [MQTT-3.14.2-2]
            }
            resident.session.expiry_secs = expiry.min(self.broker.options.session_expiry_max);
        }
        self.end_connection(key, Ending::Disconnect(disconnect.reason), now);
    }

    /// Ends a connection: tells the client where the version can, parts it from its session, sees to the will, logs one line. What is
    /// in the output is still sent; then the driver closes the socket.
    pub fn end_connection(&mut self, key: ConnectionKey, ending: Ending<'_>, now: Time) {
        self.forget_ahead(key);
        let Some(connection) = self.residents.connections.get_mut(key.0) else {
            return;
        };
        let was = std::mem::replace(&mut connection.phase, Phase::Closing);
        if matches!(was, Phase::Closing) {
            return;
        }
        // Before CONNACK has left, the refusal is a CONNACK.
        let is_connected = matches!(was, Phase::Connected) && connection.has_connack;
        self.log.ended(connection, &ending, is_connected, now);
        if let (Some(reason), true) = (
            ending.reason(),
            connection.version.has_properties() && !matches!(was, Phase::Opening),
        ) {
            self.tell(key, reason, &ending, is_connected);
        } else if let (Phase::Opening, Ending::Violation(Violation::Decode(error))) = (&was, &ending) {
            self.refuse_malformed_connect(key, error);
        }
        self.residents.touch(key);
        self.part(key, &ending, now);
    }

    /// The answer to a CONNECT that could not be read, where the standard has one: a version that is not spoken here, in the form of
    /// 3.1.1 [MQTT-3.1.2-2], and whatever MQTT 5 has a code for.
    fn refuse_malformed_connect(&mut self, key: ConnectionKey, error: &DecodeError) {
        let version = match error.version {
            Some(Version::V5) => Version::V5,
            _ if matches!(error.kind, ErrorKind::ProtocolLevel(_)) => Version::V311,
            _ => return,
        };
        if let Some(connection) = self.residents.connections.get_mut(key.0) {
            connection.version = version;
            let connack = ConnAck {
                session_present: false,
                reason: error.reason(),
                properties: Properties::EMPTY,
            };
            self.send_packet(key, &Packet::ConnAck(connack));
        }
    }

    fn tell(&mut self, key: ConnectionKey, mut reason: ReasonCode, ending: &Ending<'_>, is_connected: bool) {
        let mut properties = PropertiesBuf::new();
        let Some(connection) = self.residents.connections.get(key.0) else {
            return;
        };
        if connection.wants_problem_information
            && let Ending::Violation(violation) = ending
        {
            properties.push_text(PropertyId::ReasonString, &violation.to_string());
        }
        if let (Ending::Shutdown, Some(reference)) = (ending, &self.broker.options.server_reference) {
            properties.push_text(PropertyId::ServerReference, reference);
            let moved = self.broker.options.server_moved;
            reason = if moved {
                ReasonCode::ServerMoved
            } else {
                ReasonCode::UseAnotherServer
            };
        }
        if !is_connected && !is_of_connack(reason) {
            // CONNACK still waits for the store, or for a hand-over. Nobody who was taken over tries again.
            match ending {
                Ending::Shutdown => reason = ReasonCode::ServerUnavailable,
                _ => return,
            }
        }
        let packet = |properties| {
            if is_connected {
                Packet::Disconnect(Disconnect { reason, properties })
            } else {
                Packet::ConnAck(ConnAck {
                    session_present: false,
                    reason,
                    properties,
                })
            }
        };
        let before = self.residents.connections.get(key.0).map_or(0, |c| c.output.len());
        self.send_packet(key, &packet(properties.view()));
        let after = self.residents.connections.get(key.0).map_or(0, |c| c.output.len());
        if before == after {
            // Too large with its properties [MQTT-3.14.2-3]: the code alone says enough.
            self.send_packet(key, &packet(Properties::EMPTY));
        }
    }

    /// Parts a connection from its session.
    fn part(&mut self, key: ConnectionKey, ending: &Ending<'_>, now: Time) {
        self.end_review(key);
        let Some(connection) = self.residents.connections.get_mut(key.0) else {
            return;
        };
        let left = connection.will.take();
        let is_removed = left.is_some() && ending.removes_will();
        let will = left.filter(|_| !is_removed);
        let Some(slot) = connection.session.take() else { return };
        let Some(resident) = self.residents.sessions.get_mut(slot) else {
            return;
        };
        self.residents.metrics.connections.decrement();
        self.residents.metrics.connections_closed.increment();
        resident.connection = None;
        resident.stalled = None;
        let client_id = connection.client_id.as_ref().filter(|_| connection.is_mounted).cloned();
        let goes_on = resident.session.is_persistent();
        if let Some(walks) = resident.walks.get_mut() {
            walks.retain_mut(|walk| {
                walk.suback = Ticket::DONE; // it will not come
                goes_on && walk.qos.is_acknowledged()
            });
        }
        if let Some(outbox) = resident.outbox.get_mut() {
            outbox.forget_replay(goes_on);
            if !self.broker.options.delivery.outbox.queue_qos0_offline {
                outbox.forget_unacknowledged();
            }
        }
        resident.session.outbound.forget_unkept();
        resident.session.status.set_online(false);
        let expires_at = resident.session.expiry_from(now);
        resident.session.expires_at = expires_at;
        let is_over = !resident.session.is_persistent();
        self.residents.count_queue(slot);
        if let Some(client_id) = client_id {
            self.forget_in_tenant(&client_id);
        }
        if is_removed {
            self.record_will_ended(slot);
        }
        if let Some(will) = will {
            self.will_due(slot, will, is_over, expires_at, now);
        }
        if is_over {
            self.end_session(slot, now);
        } else {
            self.record_expiry(slot);
            self.timers.arm(expires_at, Reminder::Session(slot));
            if self.broker.options.redistribute_on_disconnect {
                self.redistribute(slot, true, now);
            }
        }
    }

    /// A connection ended with its will standing: it is published now, or when its delay has passed or the session ends, whichever
    /// comes first [MQTT-3.1.2-8].
    fn will_due(&mut self, slot: SlotKey, will: Will, is_over: bool, expires_at: Time, now: Time) {
        let is_at_limit = || self.broker.metrics.sum().wills_pending >= self.broker.options.pending_wills_max as u64;
        // A broker that keeps its sessions keeps what their clients asked to be delayed, too.
        let is_last_chance = self.is_draining && !self.residents.journal.is_on();
        if will.delay_secs() == 0 || is_over || is_last_chance {
            return self.publish_will(slot, &will, now);
        }
        if is_at_limit() {
            self.metrics().limit_pending_wills.increment();
            return self.publish_will(slot, &will, now);
        }
        let due = now.plus_secs(will.delay_secs().into()).min(expires_at);
        if let Some(resident) = self.residents.sessions.get_mut(slot) {
            resident.session.pending_will = Some((will, due));
            self.residents.metrics.wills_pending.increment();
            self.timers.arm(due, Reminder::Session(slot));
            self.record_pending_will(slot);
        }
    }

    /// A will that has waited: its client may be gone long since, and what he may leave be less now.
    fn publish_late_will(&mut self, slot: SlotKey, will: &Will, now: Time) {
        if self.residents.sources.allows_will(will.message()) {
            return self.publish_will(slot, will, now);
        }
        let resident = self.residents.sessions.get(slot);
        info!(
            client = resident.map(|resident| resident.session.client_id.as_str()),
            topic = will.message().topic().as_str(),
            "will removed: not authorized any more"
        );
        self.metrics().dropped_source_not_authorized.increment();
        self.record_will_ended(slot);
    }

    fn publish_will(&mut self, slot: SlotKey, will: &Will, now: Time) {
        self.metrics().wills_published.increment();
        let publisher = SessionKey {
            worker: self.me,
            key: slot,
        };
        self.route(&will.publication(now, publisher), now);
        self.record_will_ended(slot);
    }

    /// Ends a session: subscriptions, queue and identifiers are gone; a pending will is published; what a shared subscription had
    /// given it goes to other members.
    pub(super) fn end_session(&mut self, slot: SlotKey, now: Time) {
        let Some(resident) = self.residents.sessions.get_mut(slot) else {
            return;
        };
        if let Some((will, _)) = resident.session.pending_will.take() {
            self.residents.metrics.wills_pending.decrement();
            self.publish_late_will(slot, &will, now);
        }
        self.unsubscribe_all(slot);
        self.redistribute(slot, false, now);
        let Some(resident) = self.residents.remove_session(slot) else {
            return;
        };
        if let Some(number) = resident.session.number {
            let ticket = self.residents.journal.record(&Record::SessionEnded(number));
            // One that is in the store for its will only is not resumed.
            if resident.session.status.stored_number().is_some() {
                self.ended.note(resident.session.client_id.clone(), ticket);
            }
        }
        let unreleased = resident.session.unreleased.len() as u64;
        self.metrics().dropped_session_ended.add(unreleased);
        self.metrics().sessions.decrement();
        self.clients.remove(resident.session.client_id.key());
        // While its client begins anew here, no other worker may step in between.
        if self.entering.as_ref() != Some(&resident.session.client_id) {
            // What the session had to say last, its will, goes out before its client can be anywhere else.
            self.submit_records();
            self.send_mail();
            self.release_client(&resident.session.client_id);
        }
    }

    /// Gives what a shared subscription had chosen this session for, and its client has not got, to other members [MQTT-4.8.2-3].
    /// What nobody else takes stays with a session that goes on.
    fn redistribute(&mut self, slot: SlotKey, goes_on: bool, now: Time) {
        let Some(resident) = self.residents.sessions.get_mut(slot) else {
            return;
        };
        let mut deliveries = resident.session.outbound.take_for_redistribution();
        let mut legacy = VecDeque::new();
        let waiting = resident.outbox.get_mut();
        for entry in waiting.map_or_else(Vec::new, |outbox| outbox.take_for_redistribution(!goes_on)) {
            match entry {
                Entry::Memory(delivery) => deliveries.push(delivery),
                Entry::Stored(stored) => legacy.push_back(stored),
            }
        }
        self.residents.count_queue(slot);
        self.leave_legacy(slot, legacy);
        let tried = [SessionKey {
            worker: self.me,
            key: slot,
        }];
        for delivery in deliveries {
            let Some(group) = &delivery.group else { continue };
            if self.route_to_group(&delivery.message, group, &tried, now) {
                self.record_moved(slot, &delivery);
                continue;
            }
            if goes_on {
                self.record_queued_again(slot, &delivery);
                self.residents.enqueue(slot, delivery, true, now);
            } else {
                self.metrics().dropped_session_ended.increment();
            }
        }
    }

    /// A session's reminder: is its will due, has it expired?
    pub(super) fn check_session(&mut self, slot: SlotKey, now: Time) {
        let Some(resident) = self.residents.sessions.get_mut(slot) else {
            return;
        };
        if resident.connection.is_some() {
            return self.check_stall(slot, now);
        }
        let session = &mut resident.session;
        let expires_at = session.expires_at;
        if let Some((will, _)) = session.pending_will.take_if(|(_, due)| *due <= now) {
            self.residents.metrics.wills_pending.decrement();
            self.publish_late_will(slot, &will, now);
        }
        if expires_at <= now {
            self.metrics().sessions_expired.increment();
            self.end_session(slot, now);
        }
    }

    /// A client that does not acknowledge, while more waits for it, is told about: mostly its packet buffer is too small.
    fn check_stall(&mut self, slot: SlotKey, now: Time) {
        let Some(resident) = self.residents.sessions.get_mut(slot) else {
            return;
        };
        resident.is_watched = false;
        let Some((since, oldest)) = resident.stalled else {
            return;
        };
        let at = since.plus_millis(STALL_MS);
        if at > now {
            resident.is_watched = true;
            return self.timers.arm(at, Reminder::Session(slot));
        }
        resident.stalled = None;
        warn!(
            client = resident.session.client_id.as_str(),
            in_flight = resident.session.outbound.in_flight(),
            queued = resident.outbox.len(),
            oldest_ms = now.millis_since(since),
            packet_id = oldest.get(),
            "in flight stalled: the client does not acknowledge, and more waits for it"
        );
    }

    /// Arms a look at every session whose window has become full.
    pub(super) fn watch_stalls(&mut self, now: Time) {
        while let Some(slot) = self.residents.stalled.pop() {
            self.timers.arm(now.plus_millis(STALL_MS), Reminder::Session(slot));
        }
    }

    /// Disconnects a client of this worker, if it is connected.
    pub(super) fn disconnect_client(&mut self, client_id: &ClientId, reason: ReasonCode, now: Time) {
        if let Some(slot) = self.clients.get(client_id.key()).copied()
            && let Some(key) = self.connection_of(slot)
        {
            self.end_connection(key, Ending::Administrative(reason), now);
        }
    }

    /// The broker stops: nobody is let in any more, and every will that stands is published, those whose delay runs too where nothing
    /// is kept: the network connections will close without the clients' DISCONNECT [MQTT-3.1.2-8], and sessions in memory end with the
    /// process. Where sessions are kept, so is a will whose delay runs.
    /// [`Worker::drain`] follows when the other workers have had a moment to deliver.
    pub fn publish_wills(&mut self, now: Time) {
        self.is_draining = true;
        let keeps = self.residents.journal.is_on();
        let (mut late, mut wills) = (Vec::new(), Vec::new());
        for (slot, resident) in self.residents.sessions.iter_mut() {
            let last_chance = resident.session.pending_will.take_if(|_| !keeps);
            late.extend(last_chance.map(|(will, _)| (slot, will)));
        }
        self.metrics().wills_pending.subtract(late.len() as u64);
        for (slot, will) in late {
            self.publish_late_will(slot, &will, now);
        }
        let Residents {
            connections, sessions, ..
        } = &mut self.residents;
        for (_, connection) in connections.iter_mut() {
            let Some(slot) = connection.session else { continue };
            let goes_on = keeps
                && sessions
                    .get(slot)
                    .is_some_and(|resident| resident.session.is_persistent());
            let last_chance = connection.will.take_if(|will| !goes_on || will.delay_secs() == 0);
            wills.extend(last_chance.map(|will| (slot, will)));
        }
        for (slot, will) in wills {
            self.publish_will(slot, &will, now);
        }
    }

    /// The broker stops: every client is told (0x8B, or another server's name, to MQTT 5) and let go.
    pub fn drain(&mut self, now: Time) {
        let keys = self.residents.connections.iter().map(|(key, _)| ConnectionKey(key));
        for key in keys.collect::<Vec<_>>() {
            self.end_connection(key, Ending::Shutdown, now);
        }
    }
}

/// Words of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventKind {
    /// A client is in.
    Connected,
    /// A client was refused.
    Refused,
    /// A client is gone.
    Disconnected,
}

impl EventKind {
    /// The sentence.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Connected => "client connected",
            Self::Refused => "client refused",
            Self::Disconnected => "client disconnected",
        }
    }
}

/// The log of connections; repeats of one complaint become one line.
#[derive(Debug)]
pub struct EventLog {
    repeats: Repeats,
    /// By address, where `repeats` is full: who invents names hides nobody's complaints but his own.
    by_address: Repeats,
}

/// Equal complaints within this time are one line, milliseconds.
const REPEAT_WINDOW_MS: u64 = 60_000;
/// Complaints remembered at once.
const REPEATS_MAX: usize = 4096;

impl Default for EventLog {
    fn default() -> Self {
        Self {
            repeats: Repeats::new(REPEAT_WINDOW_MS, REPEATS_MAX),
            by_address: Repeats::new(REPEAT_WINDOW_MS, REPEATS_MAX),
        }
    }
}

impl EventLog {
    /// Records a complaint; `None` when it is a repeat that is left out, else how many were left out since the last line.
    pub(super) fn record(&mut self, key: &impl std::hash::Hash, now: Time) -> Option<u64> {
        self.repeats.record(key, now)
    }

    /// The same of a complaint about an address.
    fn record_of(&mut self, ip: Option<IpAddr>, key: &impl std::hash::Hash, now: Time) -> Option<u64> {
        match self.repeats.try_record(key, now) {
            Some(recorded) => recorded,
            None => self.by_address.record(&ip, now),
        }
    }

    /// A client was refused.
    pub fn refused(&mut self, connection: &Connection, refusal: &Refusal, now: Time) {
        if refusal.why == BANNED {
            return; // there was a line when the ban began, and whom it keeps out is counted
        }
        let (user, ip) = (connection.user_name.as_deref(), connection.peer.ip);
        let key = (EventKind::Refused, ip, user, refusal.why);
        let Some(repeated) = self.record_of(ip, &key, now) else {
            return;
        };
        warn!(
            client = connection.client_name(),
            user,
            addr = %connection.peer.address,
            listener = connection.peer.rules.name,
            tenant = connection.tenant(),
            reason = refusal.why,
            code = refusal.reason.byte(),
            repeated = (repeated > 0).then_some(repeated),
            "{}", EventKind::Refused.text()
        );
    }

    /// A connection has ended.
    pub fn ended(&mut self, connection: &Connection, ending: &Ending<'_>, is_connected: bool, now: Time) {
        let (client, addr, listener) = (
            connection.client_name(),
            &connection.peer.address,
            &connection.peer.rules.name,
        );
        let reason = ending.text();
        match ending {
            Ending::Lost(_) | Ending::ConnectTimeout if !is_connected => {
                debug!(client, %addr, listener, reason, "connection closed before CONNECT"); // port probes
            }
            Ending::Violation(Violation::Decode(error))
                if !connection.has_connect && error.packet != Some(PacketType::Connect) =>
            {
                // The driver says what it was instead of MQTT.
                debug!(client, %addr, listener, reason, "connection did not begin with CONNECT");
            }
            Ending::Violation(violation) => {
                let ip = connection.peer.ip;
                let key = (EventKind::Disconnected, ip, violation.reason());
                if let Some(repeated) = self.record_of(ip, &key, now) {
                    let (code, repeated) = (violation.reason().byte(), (repeated > 0).then_some(repeated));
                    warn!(client, %addr, listener, reason, code, repeated, "{}", EventKind::Disconnected.text());
                }
            }
            _ => info!(client, %addr, listener, reason, "{}", EventKind::Disconnected.text()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_invents_names_hides_nobody_elses_refusals() {
        let mut log = EventLog::default();
        let (bad, good): (IpAddr, IpAddr) = ([192, 0, 2, 1].into(), [192, 0, 2, 2].into());
        let lines = (0..3 * REPEATS_MAX).filter(|name| log.record_of(Some(bad), &(bad, name), Time(1)).is_some());
        assert_eq!(lines.count(), REPEATS_MAX + 1);
        assert_eq!(log.record_of(Some(good), &(good, 7), Time(1)), Some(0));
        assert_eq!(
            log.record_of(Some(good), &(good, 8), Time(1)),
            None,
            "one line a minute"
        );
    }
}
