//! One worker's part of the broker: what its driver calls.
//!
//! For each connection: [`Worker::open`]; then [`Worker::receive`] with every read and [`Worker::sent`] after every write; at the end
//! [`Worker::lost`], or, when [`Worker::status`] says `Closing`, [`Worker::remove`] once the output has been sent. After each call:
//! write the output of every connection from [`Worker::next_touched`], then [`Worker::send_mail`]; soon, [`Worker::submit_records`] and [`Worker::release_stored`]. At [`Worker::next_deadline`]:
//! [`Worker::expire`].

use std::collections::VecDeque;
use std::sync::Arc;

use hashbrown::HashMap;

use super::ended::Ended;
use super::endings::Ending;
use super::limits::count_limit;
use super::mail::{Mail, Outgoing};
use super::timers::{Reminder, Timers};
use super::{Broker, read, write};
use crate::codec::{self, DecodeError, DecodeOptions, Role};
use crate::delivery::frames::FrameBuffer;
use crate::delivery::receive::ReceiveCheck;
use crate::delivery::residents::{Residents, STALL_MS};
use crate::delivery::source_check::SourceCheck;
use crate::metrics::Metrics;
use crate::protocol::ids::{ClientId, ConnectionKey, SlotKey, Ticket, Token, WorkerId};
use crate::protocol::packet::{Packet, PacketType};
use crate::protocol::property::PropertiesBuf;
use crate::protocol::time::Time;
use crate::protocol::version::Version;
use crate::router::MatchCache;
use crate::session::connection::{Connection, Phase};
use crate::session::held::Reply;
use crate::session::output::Output;
use crate::session::peer::Peer;
use crate::session::violation::Violation;
use crate::storage::{Journal, Standing};

/// One worker's part of the broker. Touched by one thread only.
#[derive(Debug)]
pub struct Worker {
    pub(super) me: WorkerId,
    pub(super) broker: Arc<Broker>,
    pub(super) residents: Residents,
    pub(super) cache: MatchCache,
    /// A copy of the broker's: read with every packet.
    decode: DecodeOptions,
    /// The same for clients that have not entered.
    decode_stranger: DecodeOptions,
    pub(super) frames: FrameBuffer,
    pub(super) clients: HashMap<ClientId, SlotKey, foldhash::fast::RandomState>,
    pub(super) timers: Timers,
    pub(super) outgoing: Vec<Outgoing>,
    pub(super) has_mail: bool,
    /// Letters that have been received and not handled.
    pub(super) letters: VecDeque<Mail>,
    pub(super) batch: Vec<Mail>,
    pub(super) scratch: PropertiesBuf,
    pub(super) random: u64,
    pub(super) is_draining: bool,
    /// Sessions whose way through the retained messages is to go on, see `replay`.
    pub(super) walking: VecDeque<SlotKey>,
    /// The client whose session is being taken up, so that its claim is kept while an old session ends.
    pub(super) entering: Option<ClientId>,
    /// Sessions whose end is not certain yet.
    pub(super) ended: Ended,
    pub(super) log: super::endings::EventLog,
    pub(super) sys: super::sys::Sys,
    pub(super) snapshot: super::snapshot::Snapshot,
    /// The store cannot write, as of the last read.
    pub(super) is_refusing: bool,
    /// Whether there is room for what clients publish at QoS 1 and 2 has to be asked, as of the last read.
    pub(super) must_ask_room: bool,
    pub(super) legacies: super::paging::Legacies,
    pub(super) access_seen: super::access::AccessGenerations,
    pub(super) rates: super::rates::Rates,
    pub(super) back_pressure: super::back_pressure::BackPressure,
    pub(super) strangers: super::limits::Strangers,
    pub(super) reviews: super::review::Reviews,
}

/// What the driver of a connection does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Read on.
    Open,
    /// Do not read: an answer is awaited. The connection is touched when it comes.
    Waiting,
    /// Hand the connection over: [`Worker::release`] here, [`Worker::adopt`] there.
    HandOver(WorkerId),
    /// Send what is in the output, then close and [`Worker::remove`].
    Closing,
    /// Not here any more.
    Gone,
}

/// First byte of a TLS connection.
const TLS_HANDSHAKE: u8 = 0x16;
/// How long an authenticator or authoriser may take to answer, milliseconds.
pub(super) const ANSWER_MAX_MS: u64 = 30_000;
/// Letters waiting for a worker above which the others do not read on.
const MAIL_PAUSE_LETTERS: usize = 65_536;
/// The same in bytes of messages.
const MAIL_PAUSE_BYTES: usize = 64 << 20;
/// Acknowledgements and the like that may wait in a connection's output.
const REPLIES_BYTES_MAX: usize = 1 << 20;
/// Retained messages that are removed for their expiry under one lock.
const EXPIRED_PER_TURN: usize = 256;

/// How handling a packet ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flow {
    /// Done with it.
    Done,
    /// An answer is awaited: the packet is handled again when it comes.
    Wait,
}

impl Worker {
    /// Worker number `me` of a broker.
    pub fn new(broker: Arc<Broker>, me: WorkerId, now: Time) -> Self {
        let metrics = Arc::clone(broker.metrics.of(me));
        let journal = Journal::new(broker.store.keeps(), Arc::clone(&broker.numbers));
        let generations = Arc::clone(read(&broker.subscriptions).generations());
        let mut timers = Timers::default();
        if me == WorkerId(0) {
            if broker.options.sys_interval_secs > 0 {
                timers.arm(now, Reminder::Sys);
            }
            timers.arm(now.plus_secs(1), Reminder::Retained);
        }
        let mut delivery = broker.options.delivery.clone();
        delivery.memory_total_max /= broker.mailboxes.workers();
        let mut worker = Self {
            me,
            residents: Residents::new(
                delivery,
                ReceiveCheck::new(Arc::clone(&broker.authorizer)),
                SourceCheck::new(
                    Arc::clone(&broker.authenticator),
                    Arc::clone(&broker.authorizer),
                    broker.options.checks_retained_source,
                ),
                journal,
                metrics,
            ),
            cache: MatchCache::new(generations, broker.options.cache),
            decode: broker.options.decode,
            decode_stranger: broker.options.decode_stranger(),
            frames: FrameBuffer::default(),
            clients: HashMap::default(),
            timers,
            outgoing: (0..broker.mailboxes.workers()).map(|_| Outgoing::default()).collect(),
            has_mail: false,
            letters: VecDeque::new(),
            batch: Vec::new(),
            scratch: PropertiesBuf::new(),
            random: broker.seed ^ (u64::from(me.0) + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1,
            is_draining: false,
            walking: VecDeque::new(),
            entering: None,
            ended: Ended::default(),
            log: super::endings::EventLog::default(),
            sys: super::sys::Sys::new(now),
            snapshot: super::snapshot::Snapshot::default(),
            is_refusing: false,
            must_ask_room: false,
            legacies: super::paging::Legacies::default(),
            access_seen: broker.access_generations(),
            rates: super::rates::Rates::default(),
            back_pressure: super::back_pressure::BackPressure::default(),
            strangers: super::limits::Strangers::new(
                broker.options.unauthenticated_bytes_max / broker.mailboxes.workers(),
            ),
            reviews: super::review::Reviews::default(),
            broker,
        };
        worker.residents.congestion = worker.broker.congestion.share();
        worker.restore(now);
        worker
    }

    /// This worker's number.
    pub const fn id(&self) -> WorkerId {
        self.me
    }

    /// Connections and sessions that live here, in whatever state: none when everybody has gone.
    pub fn population(&self) -> (usize, usize) {
        (self.residents.connections.len(), self.residents.sessions.len())
    }

    /// The broker it is a part of.
    pub const fn broker(&self) -> &Arc<Broker> {
        &self.broker
    }

    pub(super) fn metrics(&self) -> &Metrics {
        &self.residents.metrics
    }

    /// A connection was accepted; its CONNECT must be complete at `connect_by`.
    pub fn open(&mut self, peer: Peer, connect_by: Time, now: Time) -> ConnectionKey {
        self.metrics().connections_accepted.increment();
        self.rates.expect(&peer);
        let key = ConnectionKey(self.residents.connections.insert(Connection::new(peer, now)));
        self.remind(key, connect_by);
        self.prune_timers(now);
        key
    }

    /// Forgets reminders that have outlived their connection or session: a client that comes and goes leaves one each time.
    fn prune_timers(&mut self, now: Time) {
        let (residents, rates) = (&self.residents, &self.rates);
        if !self
            .timers
            .is_overgrown(residents.connections.len() + residents.sessions.len())
        {
            return;
        }
        self.timers.retain(|at, reminder| match reminder {
            Reminder::Connection(key) => {
                let connection = residents.connections.get(key.0);
                connection.is_some_and(|connection| connection.reminded_at == at || rates.is_paused(key))
            }
            Reminder::Session(slot) => residents.sessions.get(slot).is_some_and(|resident| {
                let session = &resident.session;
                let is_will_due = session.pending_will.as_ref().is_some_and(|(_, due)| *due == at);
                let is_expiry = resident.connection.is_none() && session.expires_at == at;
                is_will_due || is_expiry || (resident.stalled.is_some() && at <= now.plus_millis(STALL_MS))
            }),
            Reminder::Retained | Reminder::Sys => true,
        });
    }

    /// A connection that another worker handed over.
    pub fn adopt(&mut self, mut connection: Connection, now: Time) -> ConnectionKey {
        connection.is_touched = false;
        connection.reminded_at = Time::NEVER; // that reminder is the other worker's
        connection.hand_overs += 1;
        self.rates.expect(&connection.peer);
        let key = ConnectionKey(self.residents.connections.insert(connection));
        self.prune_timers(now);
        self.enter(key, now);
        key
    }

    /// Takes a connection out, to hand it over.
    pub fn release(&mut self, key: ConnectionKey) -> Option<Connection> {
        self.residents.connections.remove(key.0)
    }

    /// Takes what has come over the network, from the first byte that has not been taken before. Returns how many bytes it is done
    /// with; the rest is the beginning of a packet, or waits for an answer, and must be offered again.
    pub fn receive(&mut self, key: ConnectionKey, bytes: &[u8], now: Time) -> usize {
        if let Some(connection) = self.residents.connections.get_mut(key.0) {
            connection.last_received = now;
        }
        self.see_to_access(now);
        // Once a read is enough: what is accepted a moment too late is told as failed by the store.
        if self.residents.journal.is_on() {
            let standing = self.broker.store.standing();
            self.is_refusing = standing == Standing::Refusing;
            self.residents.journal.is_quick = standing == Standing::Sound && self.broker.store.is_quick();
        }
        self.must_ask_room = self.is_refusing || self.is_memory_spent();
        self.residents.congestion.is_new = self.residents.congestion.is_any();
        if !self.residents.congestion.is_new {
            self.back_pressure.forget_all();
        }
        let (decode, decode_stranger) = (self.decode, self.decode_stranger);
        let (mut taken, mut is_done, mut is_stranger) = (0, false, false);
        while let Some(connection) = self.residents.connections.get_mut(key.0) {
            if std::mem::take(&mut is_done) {
                connection.questions.finish();
            }
            is_stranger = true;
            let (version, options) = match connection.phase {
                Phase::Opening => (None, &decode_stranger),
                Phase::Authenticating(_) => (Some(connection.version), &decode_stranger),
                Phase::Connected => {
                    is_stranger = false;
                    (Some(connection.version), &decode)
                }
                Phase::Admitted(_) => break,
                Phase::Closing => {
                    taken = bytes.len();
                    break;
                }
            };
            if connection.questions.is_waiting() || connection.is_held_up() || connection.ends_at != Time::NEVER {
                break;
            }
            match codec::decode(&bytes[taken..], version, Role::Server, options) {
                Ok(Some((packet, length))) => {
                    connection.questions.begin();
                    let is_connected = matches!(connection.phase, Phase::Connected);
                    match self.handle(key, packet, is_connected, now) {
                        Flow::Done => {
                            taken += length;
                            is_done = true;
                            self.residents.metrics.packets_received.increment();
                        }
                        Flow::Wait => break,
                    }
                }
                Ok(None) => break,
                Err(error) => {
                    count_limit(&self.residents.metrics, error.kind);
                    let violation = violation(error, version, bytes[taken], connection);
                    self.end_connection(key, Ending::Violation(violation), now);
                    taken = bytes.len();
                }
            }
        }
        self.residents.metrics.bytes_received.add(taken as u64);
        if is_stranger && !self.may_hold(key, bytes.len() - taken, now) {
            taken = bytes.len();
        }
        self.see_to_marked(now);
        taken
    }

    fn handle(&mut self, key: ConnectionKey, packet: Packet<'_>, is_connected: bool, now: Time) -> Flow {
        if !is_connected {
            match packet {
                Packet::Connect(connect) => self.connect(key, &connect, now),
                Packet::Auth(auth) => self.auth(key, &auth, now),
                Packet::Disconnect(disconnect) => self.disconnect(key, &disconnect, now),
                other => self.end_connection(key, Ending::Violation(Violation::Unexpected(other.packet_type())), now),
            }
            return Flow::Done;
        }
        match packet {
            Packet::Publish(publish) => {
                let limited = self.rates.is_on.then(|| self.limit_rate(key, &publish, now));
                return limited.flatten().unwrap_or_else(|| self.publish(key, &publish, now));
            }
            Packet::PubAck(ack) => self.puback(key, &ack, now),
            Packet::PubRec(ack) => self.pubrec(key, &ack, now),
            Packet::PubRel(ack) => self.pubrel(key, &ack, now),
            Packet::PubComp(ack) => self.pubcomp(key, &ack, now),
            Packet::Subscribe(subscribe) => return self.subscribe(key, &subscribe, now),
            Packet::Unsubscribe(unsubscribe) => self.unsubscribe(key, &unsubscribe, now),
            Packet::PingReq => self.ping(key),
            Packet::Disconnect(disconnect) => self.disconnect(key, &disconnect, now),
            Packet::Auth(auth) => self.auth(key, &auth, now),
            Packet::Connect(_) => self.end_connection(key, Ending::Violation(Violation::SecondConnect), now),
            Packet::ConnAck(_) | Packet::SubAck(_) | Packet::UnsubAck(_) | Packet::PingResp => {
                self.end_connection(key, Ending::Violation(Violation::Unexpected(packet.packet_type())), now);
            }
        }
        Flow::Done
    }

    fn ping(&mut self, key: ConnectionKey) {
        const PINGRESP: [u8; 2] = [(PacketType::PingResp as u8) << 4, 0];
        self.residents.touch(key);
        let Some(connection) = self.residents.connections.get_mut(key.0) else {
            return;
        };
        if connection.has_connack {
            connection.output.tail().extend_from_slice(&PINGRESP);
            self.residents.metrics.packets_sent.increment();
        } else {
            self.reply(key, Reply::Encoded(PINGRESP.into()), Ticket::DONE);
        }
    }

    /// What the driver does next with a connection.
    pub fn status(&self, key: ConnectionKey) -> Status {
        let Some(connection) = self.residents.connections.get(key.0) else {
            return Status::Gone;
        };
        match &connection.phase {
            Phase::Closing => Status::Closing,
            _ if connection.questions.is_waiting() || connection.is_held_up() || connection.ends_at != Time::NEVER => {
                Status::Waiting
            }
            Phase::Admitted(_) => Status::HandOver(connection.destination),
            _ if self.rates.is_paused(key) => Status::Waiting,
            _ => Status::Open,
        }
    }

    /// Whether a client waits for what is of use to nobody once it has gone: to enter, or an answer about its SUBSCRIBE.
    pub fn waits_for_itself(&self, key: ConnectionKey) -> bool {
        let Some(connection) = self.residents.connections.get(key.0) else {
            return false;
        };
        match connection.phase {
            Phase::Opening | Phase::Authenticating(_) | Phase::Admitted(_) => true,
            Phase::Connected => connection.questions.is_waiting() && !connection.subscribing.is_none(),
            Phase::Closing => false,
        }
    }

    /// False while a connection has more to take than deliveries alone can be: acknowledgements and answers to pings are not queued by
    /// policy, so what bounds them is that no more of their causes are read.
    pub fn may_read(&self, key: ConnectionKey) -> bool {
        let limit = self.broker.options.delivery.output_bytes_max + REPLIES_BYTES_MAX;
        self.residents
            .connections
            .get(key.0)
            .is_none_or(|connection| connection.output.len() < limit)
    }

    /// True while another worker has more mail, or the store more records, than it can keep up with: until it has caught up, nothing more is read
    /// that could become either. Mail itself is always read, so two workers never wait for each other.
    pub fn is_backed_up(&self) -> bool {
        let workers = 0..self.broker.mailboxes.workers() as u16;
        self.broker.store.is_behind()
            || workers
                .map(WorkerId)
                .any(|to| to != self.me && self.broker.mailboxes.is_over(to, MAIL_PAUSE_LETTERS, MAIL_PAUSE_BYTES))
    }

    /// A connection that has got something to send, or has changed its status; in no particular order.
    pub fn next_touched(&mut self) -> Option<ConnectionKey> {
        let key = self.residents.touched.pop()?;
        if let Some(connection) = self.residents.connections.get_mut(key.0) {
            connection.is_touched = false;
        }
        Some(key)
    }

    /// The address of a connection that ended before a CONNECT was read, so that the driver can look what its bytes were instead.
    pub fn failed_to_open(&self, key: ConnectionKey) -> Option<&str> {
        let connection = self.residents.connections.get(key.0)?;
        (matches!(connection.phase, Phase::Closing) && !connection.has_connect).then_some(&*connection.peer.address)
    }

    /// True while a connection's output has to wait until the store has what it depends on; the connection is touched when that is so.
    pub fn must_wait_to_send(&self, key: ConnectionKey) -> bool {
        let connection = self.residents.connections.get(key.0);
        connection.is_some_and(|connection| !self.residents.journal.is_stored(connection.ahead.ticket()))
    }

    /// What waits for the network; `None` for a connection that is gone, or one that [must wait](Worker::must_wait_to_send).
    pub fn output(&mut self, key: ConnectionKey) -> Option<&mut Output> {
        let connection = self.residents.connections.get_mut(key.0)?;
        self.residents
            .journal
            .is_stored(connection.ahead.ticket())
            .then_some(&mut connection.output)
    }

    /// The network has taken `count` bytes of the output: makes room, and sends what waited for it.
    pub fn sent(&mut self, key: ConnectionKey, count: usize, now: Time) {
        self.metrics().bytes_sent.add(count as u64);
        let Some(connection) = self.residents.connections.get_mut(key.0) else {
            return;
        };
        connection.output.advance(count);
        let session = connection.session;
        if let Some(slot) = session {
            self.continue_delivery(slot, now);
            self.see_to_strays(now);
        }
        self.residents.reclaim_buffer(key);
    }

    /// Frees what only a busy worker needs.
    pub fn rest(&mut self) {
        self.residents.buffers.shrink();
    }

    /// The network connection has ended by itself. `why` is for the log.
    pub fn lost(&mut self, key: ConnectionKey, why: &str, now: Time) {
        self.see_to_access(now);
        self.end_connection(key, Ending::Lost(why), now);
        self.remove(key);
    }

    /// Forgets a connection that is closing and whose output has been sent, or never will be.
    pub fn remove(&mut self, key: ConnectionKey) {
        self.residents.connections.remove(key.0);
        self.rates.forget(key);
        self.back_pressure.forget(key);
    }

    /// The next moment at which [`Worker::expire`] has something to do.
    pub fn next_deadline(&self) -> Option<Time> {
        self.timers.next()
    }

    /// Does what is due.
    pub fn expire(&mut self, now: Time) {
        let (hits, misses) = self.cache.hits_and_misses();
        self.metrics().match_cache_hits.set(hits);
        self.metrics().match_cache_misses.set(misses);
        self.see_to_access(now);
        while let Some(reminder) = self.timers.pop_due(now) {
            match reminder {
                Reminder::Connection(key) => {
                    self.see_to_pause(key, now);
                    self.check_silence(key, now);
                    self.ask_unanswered(key, now);
                }
                Reminder::Session(slot) => self.check_session(slot, now),
                Reminder::Retained => {
                    let mut retained = write(&self.broker.retained);
                    let expired = (0..EXPIRED_PER_TURN)
                        .map_while(|_| retained.remove_expired(now))
                        .count();
                    drop(retained);
                    self.metrics().retained_expired.add(expired as u64);
                    let pause_ms = if expired == EXPIRED_PER_TURN { 1 } else { 1000 };
                    self.timers.arm(now.plus_millis(pause_ms), Reminder::Retained);
                }
                Reminder::Sys => self.publish_sys(now),
            }
        }
    }

    /// Nothing more is read of a connection until its answer comes; one that never comes ends the connection.
    pub(super) fn wait_for_answer(&mut self, key: ConnectionKey, token: Token, now: Time) {
        if let Some(connection) = self.residents.connections.get_mut(key.0) {
            connection.questions.wait(token.sequence, now);
            self.remind(key, now.plus_millis(ANSWER_MAX_MS));
        }
    }

    /// Arms a connection's reminder. It has one that counts, the earliest; others that come are of no meaning.
    pub(super) fn remind(&mut self, key: ConnectionKey, at: Time) {
        if let Some(connection) = self.residents.connections.get_mut(key.0)
            && at < connection.reminded_at
        {
            connection.reminded_at = at;
            self.timers.arm(at, Reminder::Connection(key));
        }
    }

    pub(super) fn token(&mut self, key: ConnectionKey) -> Token {
        let number = self
            .residents
            .connections
            .get_mut(key.0)
            .map_or(0, Connection::request_number);
        Token {
            worker: self.me,
            connection: key,
            sequence: number,
        }
    }

    /// A number that nobody has to be able to guess, only to be spread evenly (xorshift64*).
    pub(super) const fn next_random(&mut self) -> u64 {
        next_random(&mut self.random)
    }
}

/// What a client has done wrong whose packet cannot be read; `first` is its first byte.
fn violation(mut error: DecodeError, version: Option<Version>, first: u8, connection: &Connection) -> Violation {
    if version.is_none() && first == TLS_HANDSHAKE {
        error.packet = None; // it has the type of CONNECT by accident
    }
    let is_stray_auth = error.packet == Some(PacketType::Auth)
        && version.is_some_and(Version::has_properties)
        && connection.admission.enhanced.is_none();
    if is_stray_auth {
        Violation::Unexpected(PacketType::Auth)
    } else {
        error.into()
    }
}

/// See [`Worker::next_random`].
pub(super) const fn next_random(state: &mut u64) -> u64 {
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    state.wrapping_mul(0x2545_F491_4F6C_DD1D)
}
