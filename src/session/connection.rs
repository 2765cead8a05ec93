//! A connection: everything that dies with one network connection.
//!
//! ```text
//!   Opening ── CONNECT ──► Authenticating ──► Admitted ──► Connected ──► Closing
//!                           │  ▲ AUTH          │ (session lives on another worker: the connection goes there)
//!                           └──┘               └──► adopted there as Admitted
//! ```

use core::any::Any;
use std::sync::Arc;

use super::ahead::Ahead;
use super::decisions::Decisions;
use super::enhanced::Enhanced;
use super::held::Held;
use super::output::Output;
use super::peer::Peer;
use super::rare::{Empty, Rare};
use super::request::ConnectRequest;
use super::review::Review;
use super::subscribing::Subscribing;
use super::topic_alias::{InboundAliases, OutboundAliases};
use super::will::Will;
use crate::protocol::ids::{ClientId, SlotKey, Ticket, WorkerId};
use crate::protocol::mount::Mount;
use crate::protocol::source::SourceBuf;
use crate::protocol::time::Time;
use crate::protocol::topic::TopicName;
use crate::protocol::version::Version;

/// Where a connection stands.
#[derive(Debug)]
pub enum Phase {
    /// No CONNECT yet.
    Opening,
    /// CONNECT came; the authenticator has not decided.
    Authenticating(Box<ConnectRequest>),
    /// The client may enter; its session is being looked for.
    Admitted(Box<ConnectRequest>),
    /// CONNACK with success was sent.
    Connected,
    /// Nothing is read any more; what is in the output is sent, then the socket closed.
    Closing,
}

/// How few clients are let in: by a token, or by enhanced authentication.
#[derive(Debug)]
pub struct Admission {
    /// What the authenticator said of the client beside its name, for the authoriser; nothing that has a meaning here.
    pub grants: Option<Arc<dyn Any + Send + Sync>>,
    /// When what it was let in for ends.
    pub expires_at: Time,
    /// Enhanced authentication, where CONNECT named a method.
    pub enhanced: Option<Enhanced>,
}

impl Admission {
    const NONE: Self = Self {
        grants: None,
        expires_at: Time::NEVER,
        enhanced: None,
    };
}

impl Default for Admission {
    fn default() -> Self {
        Self::NONE
    }
}

impl Empty for Admission {
    fn empty() -> &'static Self {
        static NONE: Admission = Admission::NONE;
        &NONE
    }
}

/// What has to be looked at before something is delivered to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watch {
    /// Nothing: it may receive all that it subscribes to.
    Nothing,
    /// Whether it is its tenant's.
    Mount,
    /// That, and whether it may be received: not all that it subscribes to may be.
    Rules,
}

/// Packets of one connection that may wait for the store.
const HELD_MAX: usize = 4096;

/// The state of one network connection.
#[derive(Debug)]
pub struct Connection {
    /// Who is at the other end.
    pub peer: Peer,
    /// Where it stands.
    pub phase: Phase,
    /// From CONNECT; meaningless before.
    pub version: Version,
    /// A CONNECT was read.
    pub has_connect: bool,
    /// The client, once it is known.
    pub client_id: Option<ClientId>,
    /// The user the authenticator found.
    pub user_name: Option<Box<str>>,
    /// It is only said to be that user.
    pub is_believed: bool,
    /// What the authenticator let it in for, where that can change.
    pub stamp: Option<u64>,
    /// How it was let in, where that was by more than a name.
    pub admission: Rare<Admission>,
    /// Who it is, for what it published and is retained; made when it publishes such a thing.
    pub source: Option<Arc<SourceBuf>>,
    /// What it was told about topics before.
    pub decisions: Decisions,
    /// Its publications have to be asked about.
    pub is_restricted: bool,
    /// What has to be looked at before something is delivered to it.
    pub watch: Watch,
    /// Its client belongs to a tenant, see [`Connection::mount`].
    pub is_mounted: bool,
    /// The session that the connection has borrowed.
    pub session: Option<SlotKey>,
    /// What waits for the network.
    pub output: Output,
    /// Packets that wait for the store.
    pub held: Rare<Held>,
    /// The last batch for which the worker looks after what waits.
    pub held_for: Ticket,
    /// What the output waits for, if packets were put into it that depend on the store.
    pub ahead: Ahead,
    /// CONNACK is in the output: nothing may leave before it.
    pub has_connack: bool,
    /// What its session subscribes to is looked at again: no delivery may leave.
    pub is_under_review: bool,
    /// Where that stands, and what it may not receive by it.
    pub review: Rare<Review>,
    /// A SUBSCRIBE about whose filters somebody is asked.
    pub subscribing: Rare<Subscribing>,
    /// The will, until DISCONNECT removes it.
    pub will: Option<Will>,
    /// Silence that ends the connection, milliseconds: one and a half times the keep alive; 0 for never.
    pub silence_max_ms: u32,
    /// Keep alive as agreed, milliseconds; 0 for none.
    pub keep_alive_ms: u32,
    /// When the last byte came.
    pub last_received: Time,
    /// Unacknowledged PUBLISH packets that the client takes.
    pub receive_maximum: u16,
    /// QoS 1 PUBLISH packets of the client whose PUBACK waits.
    pub unacknowledged: u16,
    /// Largest packet that the client takes.
    pub packet_bytes_max: u32,
    /// Whether the client wants reason strings.
    pub wants_problem_information: bool,
    /// It is a bridge of the mosquitto family.
    pub is_bridge: bool,
    /// Session expiry at CONNECT was zero, so DISCONNECT may not set one.
    pub session_expiry_was_zero: bool,
    /// Aliases of the client.
    pub aliases_in: InboundAliases,
    /// Aliases towards the client.
    pub aliases_out: OutboundAliases,
    /// What the connection waits for.
    pub questions: Questions,
    /// Is in the worker's list of connections with something to send.
    pub is_touched: bool,
    /// The number of the next request that may have to wait.
    pub next_request: u32,
    /// The worker that has the session of an admitted client.
    pub destination: WorkerId,
    /// When its reminder comes that counts.
    pub reminded_at: Time,
    /// Workers that it was handed over by.
    pub hand_overs: u8,
    /// Before [`Time::NEVER`]: it is not read any more and ends then, as its client was refused what it will try again at once.
    pub ends_at: Time,
}

impl Connection {
    /// A connection that was just accepted.
    pub fn new(peer: Peer, now: Time) -> Self {
        Self {
            peer,
            phase: Phase::Opening,
            version: Version::V311,
            has_connect: false,
            client_id: None,
            user_name: None,
            is_believed: false,
            stamp: None,
            admission: Rare::default(),
            source: None,
            decisions: Decisions::default(),
            is_restricted: true,
            watch: Watch::Rules,
            is_mounted: false,
            session: None,
            output: Output::default(),
            held: Rare::default(),
            held_for: Ticket::DONE,
            ahead: Ahead::NONE,
            has_connack: false,
            is_under_review: false,
            review: Rare::default(),
            subscribing: Rare::default(),
            will: None,
            silence_max_ms: 0,
            keep_alive_ms: 0,
            last_received: now,
            receive_maximum: u16::MAX,
            unacknowledged: 0,
            packet_bytes_max: u32::MAX,
            wants_problem_information: true,
            is_bridge: false,
            session_expiry_was_zero: false,
            aliases_in: InboundAliases::default(),
            aliases_out: OutboundAliases::default(),
            questions: Questions::default(),
            is_touched: false,
            next_request: 0,
            destination: WorkerId(0),
            reminded_at: Time::NEVER,
            hand_overs: 0,
            ends_at: Time::NEVER,
        }
    }

    /// The client id for logs; empty before CONNECT.
    pub fn client_name(&self) -> &str {
        self.client_id.as_ref().map_or("", ClientId::as_str)
    }

    /// The mount point of its client's tenant.
    pub fn mount(&self) -> Option<Mount<'_>> {
        self.client_id.as_ref().filter(|_| self.is_mounted)?.mount()
    }

    /// The mount point as a text, for logs.
    pub fn tenant(&self) -> Option<&str> {
        self.mount().map(Mount::as_str)
    }

    /// How many bytes of a topic its client does not see: what the mount point of its tenant takes.
    #[inline]
    pub fn hidden_bytes(&self, topic: TopicName<'_>) -> usize {
        if self.is_mounted {
            self.mount_hides(topic).unwrap_or(0)
        } else {
            0
        }
    }

    /// As [`Connection::hidden_bytes`]; `None` for a topic that is not of its tenant.
    #[cold]
    pub fn mount_hides(&self, topic: TopicName<'_>) -> Option<usize> {
        self.mount()?.hidden_bytes(topic.as_str())
    }

    /// A filter was subscribed to: where what its session subscribes to was looked at again, that is known now.
    pub fn note_granted(&mut self, filter: &str) {
        if let Some(review) = self.review.get_mut() {
            review.decide(filter, true);
            self.decisions.clear();
        }
    }

    /// True while so much waits for a slow store that nothing more is read.
    pub fn is_held_up(&self) -> bool {
        self.held.len() >= HELD_MAX
    }

    /// True when deliveries may be written.
    #[inline]
    pub const fn is_ready(&self) -> bool {
        matches!(self.phase, Phase::Connected) && self.has_connack && !self.is_under_review
    }

    /// A number for a request that must wait, unique for this connection.
    pub const fn request_number(&mut self) -> u32 {
        self.next_request = self.next_request.wrapping_add(1);
        self.next_request
    }
}

/// Questions that the packet at the front has asked of someone who may answer late.
///
/// A packet that must wait is not kept: its bytes stay where they are, unread, and so does everything behind it; that is the
/// bound, and TCP tells the client. When the answer comes the packet is handled again from its start and finds the answers it
/// had, in the order of its questions.
#[derive(Debug, Default)]
pub struct Questions(Option<Box<Asked>>);

#[derive(Debug, Default)]
struct Asked {
    /// Answers that have come, in the order of the questions.
    answers: Vec<bool>,
    /// Questions asked in this run.
    count: usize,
    /// The request that is out, and since when.
    waiting: Option<(u32, Time)>,
    /// One of the answers is no because nobody answered.
    is_unanswered: bool,
}

impl Questions {
    /// True while an answer is awaited: nothing more is read.
    #[inline]
    pub fn is_waiting(&self) -> bool {
        self.0.as_ref().is_some_and(|asked| asked.waiting.is_some())
    }

    /// True for a packet that is handled again, as an answer has come.
    pub fn has_answers(&self) -> bool {
        self.0.as_ref().is_some_and(|asked| !asked.answers.is_empty())
    }

    /// Begins to handle a packet, perhaps again.
    #[inline]
    pub fn begin(&mut self) {
        if let Some(asked) = &mut self.0 {
            asked.count = 0;
        }
    }

    /// The packet is done with.
    #[inline]
    pub fn finish(&mut self) {
        if let Some(asked) = &mut self.0 {
            asked.answers.clear();
            asked.count = 0;
            asked.is_unanswered = false;
        }
    }

    /// The answer to the next question, if it has come.
    #[inline]
    pub fn next_answer(&mut self) -> Option<bool> {
        let asked = self.0.as_mut()?;
        let answer = asked.answers.get(asked.count).copied();
        asked.count += usize::from(answer.is_some());
        answer
    }

    /// The answer to the next question came at once.
    pub fn answered(&mut self, is_allowed: bool) {
        let asked = self.0.get_or_insert_default();
        asked.answers.push(is_allowed);
        asked.count += 1;
    }

    /// The question is out as that request.
    pub fn wait(&mut self, request: u32, now: Time) {
        self.0.get_or_insert_default().waiting = Some((request, now));
    }

    /// Whoever was asked does not answer: it is no, and known why.
    pub fn set_unanswered(&mut self) {
        if let Some(asked) = &mut self.0 {
            asked.is_unanswered = true;
        }
    }

    /// Whether that is so of the packet that is handled.
    pub fn is_unanswered(&self) -> bool {
        self.0.as_ref().is_some_and(|asked| asked.is_unanswered)
    }

    /// Since when an answer is awaited.
    pub fn waiting_since(&self) -> Option<Time> {
        self.0.as_ref()?.waiting.map(|(_, since)| since)
    }

    /// An answer came; false when it was not awaited.
    pub fn complete(&mut self, request: u32, is_allowed: bool) -> bool {
        let is_awaited = self.release(request);
        if is_awaited && let Some(asked) = &mut self.0 {
            asked.answers.push(is_allowed);
        }
        is_awaited
    }

    /// The awaited answer came and was used otherwise (an authentication).
    pub fn release(&mut self, request: u32) -> bool {
        let awaited = self.0.as_mut().map(|asked| &mut asked.waiting);
        awaited.is_some_and(|waiting| waiting.take_if(|(awaited, _)| *awaited == request).is_some())
    }
}
