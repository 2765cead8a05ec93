//! The state a broker starts with.

use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::{HashMap, HashSet};
use smallvec::SmallVec;

use super::Image;
use super::messages::Messages;
use super::report::Report;
use super::session::{DeliveryState, SessionState};
use crate::protocol::ids::{MessageNumber, PacketId, SessionNumber};
use crate::protocol::message::Message;
use crate::protocol::packet::SubscriptionOptions;
use crate::protocol::qos::QoS;
use crate::protocol::time::Time;
use crate::storage::record::Progress;

/// What a broker starts with.
#[derive(Debug, Default)]
pub struct Restored {
    /// By number. A session that is over is here while its will is still to be published: with an expiry of 0 and nothing but the will.
    pub sessions: Vec<RestoredSession>,
    /// Retained messages, in no order.
    pub retained: Vec<Arc<Message>>,
    /// The highest session number that was given; 0 for none.
    pub last_session: u64,
    /// The highest message number that was given; 0 for none.
    pub last_message: u64,
    /// The highest order of a retained message that was given; 0 for none.
    pub last_retained_order: u64,
    /// What there is, and what is not.
    pub report: Report,
}

impl Restored {
    /// Reads what is in flight and whose content was above the budget: it is sent again as soon as its client comes, with the identifier it had, and
    /// so belongs in memory. `read` gets numbers in ascending order, each once; not called where there are none.
    pub fn read_in_flight(
        &mut self,
        read: impl FnOnce(&[MessageNumber]) -> Vec<(MessageNumber, Option<Arc<Message>>)>,
    ) {
        let mut missing: Vec<_> = self.without_content().map(|delivery| delivery.message).collect();
        if missing.is_empty() {
            return;
        }
        missing.sort_unstable();
        missing.dedup();
        let contents: HashMap<_, _, RandomState> = read(&missing).into_iter().collect();
        for delivery in self.without_content() {
            delivery.content = contents.get(&delivery.message).cloned().flatten();
        }
    }

    fn without_content(&mut self) -> impl Iterator<Item = &mut RestoredDelivery> {
        let in_flight = self.sessions.iter_mut().flat_map(|session| &mut session.in_flight);
        in_flight.filter(|delivery| delivery.content.is_none() && matches!(delivery.progress, Progress::Sent(_)))
    }
}

/// A subscription to be restored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestoredSubscription {
    /// As the client wrote it.
    pub filter: Box<str>,
    /// Options, the QoS as granted.
    pub options: SubscriptionOptions,
    /// Subscription identifier.
    pub identifier: Option<u32>,
    /// Its client had not got all retained messages for it.
    pub wants_retained: bool,
}

/// A session to be restored.
#[derive(Debug)]
pub struct RestoredSession {
    /// Which.
    pub number: SessionNumber,
    /// Whose house its client lives in; empty where there is only one.
    pub tenant: Box<str>,
    /// Its client.
    pub client_id: Box<str>,
    /// Seconds that it outlives its connection; 0 where only its will is left.
    pub expiry_secs: u32,
    /// When it expires; [`Time::NEVER`] if its client was connected at the stop: then the moment is for the broker to set.
    pub expires_at: Time,
    /// In the order of filters.
    pub subscriptions: Vec<RestoredSubscription>,
    /// Its will.
    pub will: Option<RestoredWill>,
    /// What was, or may have been, sent and not acknowledged in full, in the order of sending [MQTT-4.6.0-1].
    pub in_flight: Vec<RestoredDelivery>,
    /// What waits, in order.
    pub queued: Vec<RestoredDelivery>,
    /// QoS 2 identifiers that its client has not released and whose messages went to their receivers, in the order of numbers.
    pub received: Vec<PacketId>,
    /// QoS 2 messages that go to their receivers when its client releases them, in the order of numbers.
    pub unreleased: Vec<(PacketId, Message)>,
}

/// A will to be restored.
#[derive(Clone, Debug)]
pub struct RestoredWill {
    /// When it is to be published; [`Time::NEVER`] if its client was connected at the stop: then the moment is for the broker to set.
    pub due: Time,
    /// Seconds between the end of the connection and the will.
    pub delay_secs: u32,
    /// Message expiry interval, seconds from when it is published.
    pub expiry_secs: Option<u32>,
    /// The message, without the moment it expires at.
    pub message: Message,
}

/// A delivery to be restored.
#[derive(Clone, Debug)]
pub struct RestoredDelivery {
    /// Which message.
    pub message: MessageNumber,
    /// Its content; `None` where it is in the store only and is to be loaded by number. One that is `Released` needs none, and it may be nowhere.
    pub content: Option<Arc<Message>>,
    /// [`Message::cost_bytes`] of it; 0 where the content is nowhere.
    pub bytes: usize,
    /// When it expires; [`Time::NEVER`] for never.
    pub expires_at: Time,
    /// Tells apart several deliveries of one message to one session.
    pub copy: u16,
    /// How far it has come.
    pub progress: Progress,
    /// QoS of the delivery.
    pub qos: QoS,
    /// Retain flag of the delivery.
    pub retain: bool,
    /// Subscription identifiers.
    pub identifiers: SmallVec<[u32; 1]>,
    /// The shared subscription it was chosen for: group and filter.
    pub group: Option<(Box<str>, Box<str>)>,
}

/// Makes the state at `now` of what the records have told.
///
/// - A message that has expired is not waiting and not retained; one that is in flight goes on, because its client may have it.
/// - A session that has expired is left out. If it has a will, the will is due at the latest when the session ended [MQTT-3.1.3-9],
///   so it is still to be published [MQTT-3.1.2-8]: the session stays with that alone.
/// - A session with expiry 0 was over when its connection was; it stays for its will, if it has one.
pub(super) fn finish(image: Image, now: Time) -> Restored {
    let Image {
        mut sessions,
        messages,
        retained,
        last_session,
        last_message,
        mut lost,
        ..
    } = image;
    lost.name_sessions(|number| sessions.get(&number).map(|session| &*session.client_id));
    let has_gap = !lost.is_empty();
    if has_gap {
        forget_superseded(&mut sessions);
    }
    let mut report = Report {
        lost,
        ..Report::default()
    };
    let last_retained_order = retained.last_order();
    let mut kept = Vec::new();
    for message in retained.into_messages() {
        if message.is_expired(now) {
            report.expired_messages += 1;
        } else {
            kept.push(message);
        }
    }
    report.retained = kept.len();
    let mut end = End {
        now,
        has_gap,
        messages,
        report,
    };
    let mut restored: Vec<_> = sessions
        .into_iter()
        .filter_map(|(number, session)| end.session(number, session))
        .collect();
    restored.sort_unstable_by_key(|session| session.number);
    Restored {
        sessions: restored,
        retained: kept,
        last_session,
        last_message,
        last_retained_order,
        report: end.report,
    }
}

struct End {
    now: Time,
    has_gap: bool,
    messages: Messages,
    report: Report,
}

impl End {
    fn session(&mut self, number: SessionNumber, state: SessionState) -> Option<RestoredSession> {
        let is_expired = state.expires_at <= self.now;
        let is_over = is_expired || state.expiry_secs == 0;
        self.report.expired_sessions += usize::from(is_expired && state.expiry_secs > 0);
        let mut session = RestoredSession {
            number,
            tenant: state.tenant,
            client_id: state.client_id,
            expiry_secs: if is_over { 0 } else { state.expiry_secs },
            expires_at: state.expires_at,
            subscriptions: Vec::new(),
            will: state.will,
            in_flight: Vec::new(),
            queued: Vec::new(),
            received: Vec::new(),
            unreleased: Vec::new(),
        };
        if let Some(will) = &mut session.will {
            will.due = will.due.min(state.expires_at);
            self.report.wills += 1;
        }
        if is_over {
            return session.will.is_some().then_some(session);
        }
        let subscriptions = state.subscriptions.into_iter();
        session.subscriptions = subscriptions
            .map(|(filter, (options, identifier, wants_retained))| RestoredSubscription {
                filter,
                options,
                identifier,
                wants_retained,
            })
            .collect();
        session.subscriptions.sort_unstable_by(|a, b| a.filter.cmp(&b.filter));
        for (id, message) in state.received {
            match message {
                Some(message) => session.unreleased.push((id, *message)),
                None => session.received.push(id),
            }
        }
        session.received.sort_unstable();
        session.unreleased.sort_unstable_by_key(|(id, _)| *id);
        self.deliveries(state.deliveries.into_iter().collect(), &mut session);
        self.report.sessions += 1;
        self.report.subscriptions += session.subscriptions.len();
        self.report.received += session.received.len() + session.unreleased.len();
        self.report.queued += session.queued.len();
        self.report.in_flight += session.in_flight.len();
        Some(session)
    }

    fn deliveries(&mut self, mut states: Vec<((MessageNumber, u16), DeliveryState)>, session: &mut RestoredSession) {
        states.sort_unstable_by_key(|(_, state)| state.position);
        for ((number, copy), state) in states {
            let Some(known) = self.messages.get(number) else {
                continue; // never: who is here has kept it
            };
            let is_queued = state.progress == Progress::Queued;
            if known.bytes == 0 && !matches!(state.progress, Progress::Released(_)) {
                continue; // there is nothing to send
            }
            if is_queued && known.expires_at <= self.now {
                self.report.expired_messages += 1;
                continue;
            }
            self.report.stored_only += usize::from(known.content.is_none() && known.bytes > 0);
            let to = if is_queued {
                &mut session.queued
            } else {
                &mut session.in_flight
            };
            to.push(RestoredDelivery {
                message: number,
                content: known.content.clone(),
                bytes: known.bytes,
                expires_at: known.expires_at,
                copy,
                progress: state.progress,
                qos: state.qos,
                retain: state.retain,
                identifiers: state.identifiers,
                group: state.group.map(|group| *group),
            });
        }
        if self.has_gap {
            forget_reused(&mut session.in_flight);
        }
    }
}

/// A client has one session: that an older one was over was in a gap.
fn forget_superseded(sessions: &mut HashMap<SessionNumber, SessionState, RandomState>) {
    let client = |session: &SessionState| (session.tenant.clone(), session.client_id.clone());
    let mut newest: HashMap<_, SessionNumber, RandomState> = HashMap::default();
    for (number, session) in &*sessions {
        let last = newest.entry(client(session)).or_insert(*number);
        *last = (*last).max(*number);
    }
    sessions.retain(|number, session| newest.get(&client(session)) == Some(number));
}

/// Where an identifier is in flight twice, the first delivery had ended before the second was sent, and that was in a gap.
fn forget_reused(in_flight: &mut Vec<RestoredDelivery>) {
    let mut seen: HashSet<PacketId, RandomState> = HashSet::default();
    in_flight.reverse();
    in_flight.retain(|delivery| match delivery.progress {
        Progress::Queued => true,
        Progress::Sent(id) | Progress::Released(id) => seen.insert(id),
    });
    in_flight.reverse();
}
