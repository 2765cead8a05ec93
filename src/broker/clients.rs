//! CONNECT: from the packet to a session and CONNACK.

use tracing::{info, warn};

use super::authenticate::accept_identity;
use super::connack::negotiated_keep_alive;
use super::endings::{Ending, EventKind};
use super::registry::Claim;
use super::sys::is_sys;
use super::worker::Worker;
use crate::auth::{Access, Answer, Identity, Refusal};
use crate::codec::encode;
use crate::delivery::residents::Resident;
use crate::protocol::ids::{ClientId, ConnectionKey, SlotKey, Ticket};
use crate::protocol::packet::{ConnAck, Connect, Packet};
use crate::protocol::qos::QoS;
use crate::protocol::reason::ReasonCode;
use crate::protocol::time::Time;
use crate::protocol::version::Version;
use crate::session::connection::{Connection, Phase};
use crate::session::request::ConnectRequest;
use crate::session::state::{Session, Takeovers};
use crate::session::topic_alias::{InboundAliases, OutboundAliases};
use crate::storage::Standing;

/// A connection that has been handed over this often is refused: its session moves faster than it can follow.
const HAND_OVERS_MAX: u8 = 16;

/// The session that a client is given.
struct Taken {
    slot: SlotKey,
    is_present: bool,
}

impl Worker {
    /// CONNECT came: what it asks for is checked, then the authenticator is asked.
    pub(super) fn connect(&mut self, key: ConnectionKey, connect: &Connect<'_>, now: Time) {
        let Some(connection) = self.residents.connections.get_mut(key.0) else {
            return;
        };
        connection.version = connect.version;
        connection.has_connect = true;
        connection.is_bridge = connect.is_bridge;
        let mut request = Box::new(ConnectRequest::keep(connect));
        connection.wants_problem_information = request.wants_problem_information;
        connection.packet_bytes_max = request.packet_bytes_max;
        if !request.client_id.is_empty() {
            connection.client_id = Some(ClientId::new(&request.client_id));
        }
        if request.client_id.is_empty()
            && !request.clean_start
            && !connect.version.has_properties()
            && connection.peer.rules.accept_empty_client_id_persistent
        {
            request.clean_start = true;
            request.session_expiry = Some(0);
        }
        let checked = self.check_connect(key, connect, &request);
        if let Err(refusal) = checked.and_then(|()| self.check_ban(key, request.user_name.as_deref(), now)) {
            self.refuse(key, &refusal, now);
            return;
        }
        self.authenticate(key, request, now);
    }

    /// What can be refused without knowing who it is.
    fn check_connect(
        &self,
        key: ConnectionKey,
        connect: &Connect<'_>,
        request: &ConnectRequest,
    ) -> Result<(), Refusal> {
        let refuse = |reason, why| Err(Refusal { reason, why });
        let options = &self.broker.options;
        let Some(connection) = self.residents.connections.get(key.0) else {
            return Ok(());
        };
        if self.is_draining {
            return refuse(ReasonCode::ServerUnavailable, "shutting_down"); // "shutting down" is no code of CONNACK [MQTT5 table 3-1]
        }
        if !connection.peer.rules.allowed_versions.contains(&connect.version) {
            return refuse(ReasonCode::UnsupportedProtocolVersion, "version_not_allowed");
        }
        if connect.client_id.len() > options.client_id_bytes_max {
            self.metrics().limit_client_id_bytes.increment();
            return refuse(ReasonCode::ClientIdentifierNotValid, "client_id_too_long");
        }
        if connect.client_id.is_empty() {
            let has_none = connect.version == Version::V31 || !options.allow_empty_client_id;
            let is_kept = !connect.version.has_properties() && !request.clean_start; // [MQTT-3.1.3-8]
            if has_none || is_kept {
                return refuse(ReasonCode::ClientIdentifierNotValid, "client_id_empty");
            }
        }
        if let Some(method) = &request.authentication_method
            && !self.broker.authenticator.knows_method(method, &connection.peer)
        {
            return refuse(ReasonCode::BadAuthenticationMethod, "unknown_method");
        }
        if let Some(will) = &connect.will {
            if will.payload.len() > options.will_bytes_max {
                self.metrics().limit_will_bytes.increment();
                return refuse(ReasonCode::PacketTooLarge, "limits.will_bytes_max");
            }
            if is_sys(will.topic) {
                return refuse(ReasonCode::NotAuthorized, "will_topic");
            }
            if will.qos > self.maximum_qos(connection) {
                return refuse(ReasonCode::QosNotSupported, "will_qos");
            }
            if will.retain && !options.retain_available {
                return refuse(ReasonCode::RetainNotSupported, "will_retain");
            }
        }
        Ok(())
    }

    pub(super) fn maximum_qos(&self, connection: &Connection) -> QoS {
        connection
            .peer
            .rules
            .maximum_qos
            .map_or(self.broker.options.maximum_qos, |q| {
                q.min(self.broker.options.maximum_qos)
            })
    }

    pub(super) fn admit(
        &mut self,
        key: ConnectionKey,
        mut request: Box<ConnectRequest>,
        identity: Identity,
        now: Time,
    ) {
        let assigned = request.client_id.is_empty().then(|| self.assigned_client_id());
        let Some(connection) = self.residents.connections.get_mut(key.0) else {
            return;
        };
        if let Some(assigned) = &assigned {
            connection.client_id = Some(ClientId::new(assigned));
        }
        request.authentication_data = identity.data.clone();
        accept_identity(connection, identity, now);
        request.password = None;
        if let Err(refusal) = self.enter_tenant(key, &mut request) {
            return self.refuse(key, &refusal, now);
        }
        let Some(connection) = self.residents.connections.get_mut(key.0) else {
            return;
        };
        connection.phase = Phase::Admitted(request);
        if let Err(refusal) = self.check_admitted(key, now) {
            return self.refuse(key, &refusal, now);
        }
        match self.may_leave_will(key, now) {
            Answer::Ready(is_allowed) => self.will_decided(key, is_allowed, now),
            Answer::Pending => {}
        }
    }

    /// May the client publish what its will says? A will is a PUBLISH that is sent in advance.
    fn may_leave_will(&mut self, key: ConnectionKey, now: Time) -> Answer<bool> {
        let token = self.token(key);
        let Some(connection) = self.residents.connections.get_mut(key.0) else {
            return Answer::Ready(false);
        };
        let Phase::Admitted(request) = &connection.phase else {
            return Answer::Ready(false);
        };
        let Some(will) = &request.will else {
            return Answer::Ready(true);
        };
        let message = will.message();
        let who = Access::of(connection);
        let answer = self
            .broker
            .authorizer
            .publish(&who, message.topic(), message.qos, message.retain, token);
        if answer == Answer::Pending {
            self.wait_for_answer(key, token, now);
        }
        answer
    }

    /// It is known whether an admitted client may leave its will.
    pub(super) fn will_decided(&mut self, key: ConnectionKey, is_allowed: bool, now: Time) {
        if is_allowed {
            self.enter(key, now);
        } else {
            let reason = ReasonCode::NotAuthorized;
            let connection = self.residents.connections.get(key.0);
            let is_unanswered = connection.is_some_and(|connection| connection.questions.is_unanswered());
            let why = if is_unanswered { "backend_failed" } else { "will_topic" };
            self.refuse(key, &Refusal { reason, why }, now);
        }
    }

    /// The client is admitted: its session is taken up here, or the connection is handed over to the worker that has it.
    pub(super) fn enter(&mut self, key: ConnectionKey, now: Time) {
        let Some(connection) = self.residents.connections.get_mut(key.0) else {
            return;
        };
        let Some(client_id) = connection.client_id.clone() else {
            return;
        };
        if let Err(refusal) = self.check_entrance(key, now) {
            return self.refuse(key, &refusal, now);
        }
        if !self.claim(key, &client_id, now) {
            return;
        }
        let Some(connection) = self.residents.connections.get_mut(key.0) else {
            return;
        };
        let Phase::Admitted(request) = std::mem::replace(&mut connection.phase, Phase::Opening) else {
            return;
        };
        if self.is_of_another_user(key, &client_id, now) {
            return;
        }
        if self.cannot_keep(key, &client_id, &request, now) {
            return self.release_client(&client_id);
        }
        if self.is_tenant_full(key, &client_id, now) {
            return self.release_client(&client_id);
        }
        self.entering = Some(client_id.clone());
        let taken = self.take_session(&client_id, &request, now);
        self.entering = None;
        self.settle(key, taken.slot, &request, now);
        self.settle_rights(key);
        self.continue_reviews(now);
        self.remind_of_expiry(key);
        self.record_session(key, taken.slot);
        let ticket = match self.residents.sessions.get(taken.slot) {
            // A will, too, is there when its client believes so; while the store cannot write, better in without than out.
            Some(_) if self.ended.has(client_id.key()) || (request.will.is_some() && !self.is_refusing) => {
                self.residents.journal.latest()
            }
            Some(resident) if resident.session.is_persistent() => resident.session.created,
            _ => Ticket::DONE,
        };
        if !self.send_connack(key, &request, taken.is_present, ticket) {
            // It could never be told anything: its maximum packet size is too small for any CONNACK.
            let ending = Ending::Refused(ReasonCode::PacketTooLarge, "maximum_packet_size_too_small");
            return self.end_connection(key, ending, now);
        }
        self.log_connected(key, &request, taken.is_present);
        self.begin_delivery(key, now);
    }

    /// What may have changed since a client was admitted.
    fn check_entrance(&self, key: ConnectionKey, now: Time) -> Result<(), Refusal> {
        if self.is_draining {
            return Err(Refusal {
                reason: ReasonCode::ServerUnavailable,
                why: "shutting_down",
            });
        }
        if let Some(why) = self.must_go(key) {
            return Err(Refusal {
                reason: ReasonCode::NotAuthorized,
                why,
            });
        }
        // While it was handed over it was with no worker, and none could tell it to go.
        let connection = self.residents.connections.get(key.0);
        match connection.filter(|connection| connection.hand_overs > 0) {
            Some(connection) => self.check_ban(key, connection.user_name.as_deref(), now),
            None => Ok(()),
        }
    }

    /// Whether a client's session is, or may be, here. If not, the connection goes where it is, or is refused.
    fn claim(&mut self, key: ConnectionKey, client_id: &ClientId, now: Time) -> bool {
        let limits = self.tenant_limits(client_id);
        let sessions_max = match self.is_memory_spent() {
            true => 0,
            false => self.broker.options.sessions_max,
        };
        let Some(connection) = self.residents.connections.get_mut(key.0) else {
            return false;
        };
        let registry = &self.broker.registry;
        match registry.claim(client_id, self.me, sessions_max, limits.sessions_max) {
            Claim::Mine => return true,
            Claim::Elsewhere(owner) if connection.hand_overs < HAND_OVERS_MAX => {
                connection.destination = owner;
                self.residents.touch(key);
            }
            Claim::Elsewhere(_) => {
                self.refuse(
                    key,
                    &Refusal {
                        reason: ReasonCode::ServerBusy,
                        why: "session_moves",
                    },
                    now,
                );
            }
            Claim::Full => {
                let (metrics, reason) = (self.metrics(), ReasonCode::ServerBusy);
                let why = if self.is_memory_spent() {
                    metrics.refused_memory.increment();
                    "limits.memory_max"
                } else {
                    metrics.limit_sessions.increment();
                    "limits.sessions_max"
                };
                self.refuse(key, &Refusal { reason, why }, now);
            }
            Claim::TenantFull => {
                self.metrics().limit_tenants.increment();
                let (reason, why) = (ReasonCode::QuotaExceeded, "tenants.sessions_max");
                self.refuse(key, &Refusal { reason, why }, now);
            }
        }
        false
    }

    /// Refuses a client whose session is another user's: he neither gets what waits in it, nor ends it. One that was made without a user
    /// name is nobody's.
    fn is_of_another_user(&mut self, key: ConnectionKey, client_id: &ClientId, now: Time) -> bool {
        let known = self.session_of(client_id);
        let owner = known.and_then(|resident| resident.session.owner.as_deref());
        let connection = self.residents.connections.get(key.0);
        let user = connection.and_then(|connection| connection.user_name.as_deref());
        let is_refused = owner.is_some() && owner != user;
        if is_refused {
            let refusal = Refusal {
                reason: ReasonCode::NotAuthorized,
                why: "session_of_another_user",
            };
            self.refuse(key, &refusal, now);
        }
        is_refused
    }

    /// Refuses a client for whom something would have to be kept that cannot be now; true when that is so.
    fn cannot_keep(&mut self, key: ConnectionKey, client_id: &ClientId, request: &ConnectRequest, now: Time) -> bool {
        if !self.residents.journal.is_on() || self.broker.store.standing() != Standing::Refusing {
            return false;
        }
        let expiry = self.session_expiry(request);
        let known = self.session_of(client_id);
        let journal = &self.residents.journal;
        let is_kept = known.is_some_and(|resident| {
            let session = &resident.session;
            session.stored_number().is_some() && journal.is_stored(session.created)
        });
        let changes = if is_kept {
            request.clean_start
        } else {
            expiry > 0 || self.ended.has(client_id.key())
        };
        if changes {
            let refusal = Refusal {
                reason: ReasonCode::QuotaExceeded,
                why: "storage_failed",
            };
            self.refuse(key, &refusal, now);
        }
        changes
    }

    /// The session that a client has here.
    fn session_of(&self, client_id: &ClientId) -> Option<&Resident> {
        let slot = self.clients.get(client_id.key())?;
        self.residents.sessions.get(*slot)
    }

    fn session_expiry(&self, request: &ConnectRequest) -> u32 {
        let options = &self.broker.options;
        request
            .session_expiry
            .unwrap_or(options.session_expiry_v3)
            .min(options.session_expiry_max)
    }

    /// The session of a client: the one there is, or a new one. An old connection is taken over, with its will published before
    /// the new CONNACK, so that what the client says next comes last.
    fn take_session(&mut self, client_id: &ClientId, request: &ConnectRequest, now: Time) -> Taken {
        let mut takeovers = Takeovers::default();
        if let Some(slot) = self.clients.get(client_id.key()).copied() {
            if let Some(old) = self.connection_of(slot) {
                self.metrics().sessions_taken_over.increment();
                takeovers = self.record_takeover(slot, old, now);
                self.end_connection(old, Ending::TakenOver, now); // [MQTT-3.1.4-3]
            }
            self.forget_former_will(slot);
            let is_over = self
                .residents
                .sessions
                .get(slot)
                .is_some_and(|resident| !resident.session.is_persistent());
            if request.clean_start || is_over {
                self.end_session(slot, now); // [MQTT-3.1.2-4]
            }
        }
        if let Some(slot) = self.clients.get(client_id.key()).copied() {
            self.metrics().sessions_resumed.increment();
            return Taken {
                slot,
                is_present: true, // [MQTT-3.1.2-5]
            };
        }
        self.metrics().sessions_created.increment();
        self.metrics().sessions.increment();
        let mut session = Session::new(client_id.clone(), 0);
        // Its last session may be among what was lost at the start, and its client may not have heard of that.
        session.doubts_repeats = self.broker.has_lost && !request.clean_start;
        if takeovers != Takeovers::default() {
            *session.takeovers = takeovers;
        }
        let slot = self.residents.sessions.insert(Resident::new(session));
        self.clients.insert(client_id.clone(), slot);
        Taken {
            slot,
            is_present: false,
        }
    }

    /// Two clients with one id are told about, by both their addresses.
    fn record_takeover(&mut self, slot: SlotKey, old: ConnectionKey, now: Time) -> Takeovers {
        let Some(resident) = self.residents.sessions.get_mut(slot) else {
            return Takeovers::default();
        };
        let due = resident.session.takeovers.record(now);
        let record = *resident.session.takeovers;
        let Some(takeovers) = due else {
            return record;
        };
        let address = |key: Option<ConnectionKey>| {
            let connection = key.and_then(|key| self.residents.connections.get(key.0));
            connection.map_or_else(String::new, |connection| connection.peer.address.to_string())
        };
        let entering = self.residents.connections.iter().find(|(_, connection)| {
            matches!(connection.phase, Phase::Opening)
                && connection.client_id.as_ref() == Some(&resident.session.client_id)
        });
        warn!(
            client = resident.session.client_id.as_str(),
            addr = address(Some(old)),
            other = address(entering.map(|(key, _)| ConnectionKey(key))),
            takeovers,
            "two clients seem to share one client id and disconnect each other"
        );
        record
    }

    /// Puts what was negotiated into connection and session, and ties the two together.
    fn settle(&mut self, key: ConnectionKey, slot: SlotKey, request: &ConnectRequest, now: Time) {
        let options = &self.broker.options;
        let keep_alive = u32::from(negotiated_keep_alive(request, options));
        let expiry = self.session_expiry(request);
        let Some(connection) = self.residents.connections.get_mut(key.0) else {
            return;
        };
        connection.phase = Phase::Connected;
        connection.session = Some(slot);
        connection.receive_maximum = request.receive_maximum;
        connection.session_expiry_was_zero = request.session_expiry == Some(0);
        connection.aliases_in = InboundAliases::new(if request.version.has_properties() {
            options.topic_alias_maximum
        } else {
            0
        });
        connection.aliases_out = OutboundAliases::new(request.topic_alias_maximum.min(options.topic_alias_maximum_out));
        connection.will.clone_from(&request.will);
        connection.last_received = now;
        // One and a half times the keep alive [MQTT-3.1.2-22], and a second more for the shortest, which a busy radio misses easily.
        connection.silence_max_ms = keep_alive * 1500 + if (1..10).contains(&keep_alive) { 1000 } else { 0 };
        connection.keep_alive_ms = keep_alive * 1000; // at most 65,535,000
        let user = connection.user_name.as_deref().filter(|_| !connection.is_believed);
        let user = user.map(Box::from);
        let silence_max_ms = connection.silence_max_ms;
        if silence_max_ms > 0 {
            self.remind(key, now.plus_millis(silence_max_ms.into()));
        }
        if request.will.is_some() {
            self.sign_will(key);
        }
        let Some(resident) = self.residents.sessions.get_mut(slot) else {
            return;
        };
        resident.connection = Some(key);
        resident.session.owner = resident.session.owner.take().or(user);
        resident.session.expiry_secs = expiry;
        resident.session.expires_at = Time::NEVER;
        resident.session.status.set_online(true);
        if resident.session.pending_will.take().is_some() {
            self.residents.metrics.wills_pending.decrement(); // [MQTT-3.1.3-9]
        }
        self.residents.count_queue(slot);
        self.residents.metrics.connections_opened.increment();
        self.residents.metrics.connections.increment();
    }

    /// CONNACK with an error, one log line, and the end.
    pub(super) fn refuse(&mut self, key: ConnectionKey, refusal: &Refusal, now: Time) {
        self.metrics().connections_refused.increment();
        let Some(connection) = self.residents.connections.get_mut(key.0) else {
            return;
        };
        let connack = ConnAck {
            session_present: false,
            reason: refusal.reason,
            properties: Default::default(),
        };
        connection.phase = Phase::Closing;
        self.log.refused(connection, refusal, now);
        self.send_packet(key, &Packet::ConnAck(connack));
        self.residents.touch(key);
    }

    fn log_connected(&mut self, key: ConnectionKey, request: &ConnectRequest, is_present: bool) {
        let Some(connection) = self.residents.connections.get(key.0) else {
            return;
        };
        info!(
            client = connection.client_name(),
            addr = %connection.peer.address,
            listener = connection.peer.rules.name,
            version = request.version.name(),
            keep_alive = request.keep_alive,
            clean_start = request.clean_start,
            session_present = is_present,
            user = connection.user_name.as_deref(),
            tenant = connection.tenant(),
            "{}", EventKind::Connected.text()
        );
    }

    /// Appends a packet to a connection's output. One that is larger than the client takes is left out [MQTT-3.1.2-24]: false.
    pub(super) fn send_packet(&mut self, key: ConnectionKey, packet: &Packet<'_>) -> bool {
        self.residents.touch(key);
        let Some(connection) = self.residents.connections.get_mut(key.0) else {
            return false;
        };
        let start = connection.output.tail().len();
        let version = connection.version;
        if encode(packet, version, connection.output.tail()).is_err() {
            return false;
        }
        if connection.output.tail().len() - start > connection.packet_bytes_max as usize {
            connection.output.tail().truncate(start);
            return false;
        }
        self.residents.metrics.packets_sent.increment();
        true
    }

    /// A client id that nobody has: the prefix and a random UUID (RFC 9562, version 4).
    fn assigned_client_id(&mut self) -> String {
        let bits = (u128::from(self.next_random()) << 64) | u128::from(self.next_random());
        let bits = bits & !(0xF << 76) & !(0x3 << 62) | (0x4 << 76) | (0x2 << 62);
        let hex = format!("{bits:032x}");
        let prefix = &self.broker.options.assigned_client_id_prefix;
        format!(
            "{prefix}{}-{}-{}-{}-{}",
            &hex[..8],
            &hex[8..12],
            &hex[12..16],
            &hex[16..20],
            &hex[20..]
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::{Broker, BrokerOptions, Parts};
    use crate::protocol::ids::WorkerId;
    use crate::session::peer::tests::peer;

    /// CONNACK has no code for a server that is shutting down [MQTT-3.2.2-8].
    #[test]
    fn who_comes_while_the_broker_stops_is_told_that_it_is_unavailable() {
        let now = Time(1_000_000);
        let broker = Broker::new(BrokerOptions::default(), 1, Parts::default());
        let mut worker = Worker::new(broker, WorkerId(0), now);
        worker.publish_wills(now);
        let v311: &[u8] = b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x00\x00\x01c";
        let v5: &[u8] = b"\x10\x0e\x00\x04MQTT\x05\x02\x00\x00\x00\x00\x01c";
        for (packet, connack) in [(v311, &[0x20, 2, 0, 3][..]), (v5, &[0x20, 3, 0, 0x88, 0])] {
            let key = worker.open(peer(), now.plus_secs(10), now);
            worker.receive(key, packet, now);
            let sent: Vec<u8> = worker.output(key).unwrap().chunks().flatten().copied().collect();
            assert_eq!(sent, connack);
        }
    }
}
