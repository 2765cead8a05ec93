//! What workers, and those who answer late, write to a worker.

use std::sync::Arc;

use smallvec::SmallVec;
use tracing::debug;

use super::worker::Worker;
use crate::auth::bans::Subject;
use crate::auth::way::BackendEvent;
use crate::auth::{Guess, Verdict};
use crate::delivery::fan_out::{Delivered, Purpose};
use crate::delivery::frames::Fanned;
use crate::protocol::ids::{ClientId, ConnectionKey, MessageNumber, SessionKey, SlotKey, Token, WorkerId};
use crate::protocol::message::Message;
use crate::protocol::reason::ReasonCode;
use crate::protocol::time::Time;
use crate::router::Receiver;
use crate::router::shared::SharedGroup;
use crate::session::connection::Phase;
use crate::storage::{Record, SnapshotId};

/// Letters handled in one turn.
const LETTERS_PER_TURN: u64 = 4096;

/// A letter to a worker.
#[derive(Debug)]
pub enum Mail {
    /// Deliver to these of your sessions.
    Deliver(Arc<Message>, Arc<[Receiver]>),
    /// Deliver to one of your sessions, which was chosen from a shared group; find another member if it cannot take it.
    DeliverToMember(Box<MemberDelivery>),
    /// A request that had to wait is done.
    Complete(Token, Outcome),
    /// Route this: it comes from inside the broker.
    Publish(Arc<Message>),
    /// Disconnect a client of yours.
    Disconnect(ClientId, ReasonCode),
    /// Rules or users were replaced.
    AccessChanged,
    /// Certificates of clients were revoked.
    CertificatesRevoked,
    /// An administrator has banned them.
    Banned(Subject),
    /// A client has guessed wrongly and has not waited to hear it.
    Guessed(Box<Guess>),
    /// Something has happened with whom the authenticator or the authoriser asks.
    Backend(BackendEvent),
    /// From the store.
    Store(StoreMail),
    /// Everything that a worker wrote to you before a snapshot began has come before this.
    Fence(SnapshotId),
}

/// What a store tells a worker, see [`crate::storage::StoreEvents`].
#[derive(Debug)]
pub enum StoreMail {
    /// Your batches up to this one are safe.
    Stored(u64),
    /// Your batches up to this one are not, for now.
    Failed(u64),
    /// A snapshot begins.
    Snapshot(SnapshotId),
    /// Another part of the snapshot is wanted.
    SnapshotMore(SnapshotId),
    /// Messages of a session that had only been in the store.
    Loaded(SlotKey, Vec<(MessageNumber, Option<Arc<Message>>)>),
}

/// Letters that are collected for one worker.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    /// In order.
    pub(super) letters: Vec<Mail>,
    /// Bytes of the messages that they carry.
    pub(super) bytes: usize,
}

/// See [`Mail::DeliverToMember`].
#[derive(Debug)]
pub struct MemberDelivery {
    /// The message.
    pub message: Arc<Message>,
    /// The chosen member.
    pub receiver: Receiver,
    /// Its group.
    pub group: Arc<SharedGroup>,
    /// Members that could not take it.
    pub tried: SmallVec<[SessionKey; 2]>,
}

/// How a request that had to wait ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Of an authenticator.
    Verdict(Verdict),
    /// Of an authoriser.
    Allowed(bool),
    /// Of an authoriser that got no answer: no.
    Unanswered,
}

impl Worker {
    /// Handles everything that has come to this worker's mailbox so far: the broker stops.
    pub fn receive_last_mail(&mut self, now: Time) {
        while self.receive_mail(std::task::Waker::noop(), now) {}
    }

    /// Handles what is in this worker's mailbox, some at a time so that its connections have their turn; when there is nothing, `waker` is woken by the next letter. True when there was
    /// something.
    pub fn receive_mail(&mut self, waker: &std::task::Waker, now: Time) -> bool {
        self.see_to_access(now);
        if self.letters.is_empty() {
            self.broker.mailboxes.receive(self.me, &mut self.batch, waker);
            self.letters.extend(self.batch.drain(..));
            if !self.letters.is_empty() {
                self.metrics().mailbox_batches.increment();
            }
        }
        let mut count = 0;
        while count < LETTERS_PER_TURN
            && let Some(letter) = self.letters.pop_front()
        {
            self.handle_mail(letter, now);
            count += 1;
        }
        self.metrics().mailbox_mails.add(count);
        let is_some = count > 0;
        self.see_to_marked(now);
        is_some
    }

    /// True when something was recorded, or is wanted, that the store has not been told, or when it has told of something: see
    /// [`Worker::submit_records`] and [`Worker::release_stored`].
    pub fn has_records(&self) -> bool {
        self.residents.journal.is_worth_taking() || self.residents.paging.has_something() || self.has_stored()
    }

    /// Gives the store what was recorded. Best done when everything that is there to be read has been: what is given at once is written at
    /// once, and costs one hand-over to the store and one back.
    pub fn submit_records(&mut self) {
        self.wait_for_batch();
        if let Some(batch) = self.residents.journal.take()
            && let Some(stored) = self.broker.store.submit(self.me, batch)
        {
            self.residents.journal.answered(stored);
        }
        self.ask_for_contents();
    }

    /// Sends what has been collected for other workers. What was recorded goes to the store before: what they record because of
    /// a letter comes behind it.
    pub fn send_mail(&mut self) {
        if !self.has_mail {
            return;
        }
        self.submit_records();
        self.has_mail = false;
        for (to, Outgoing { letters, bytes }) in self.outgoing.iter_mut().enumerate() {
            self.broker
                .mailboxes
                .send_sized(WorkerId(to as u16), letters, std::mem::take(bytes));
        }
    }

    fn handle_mail(&mut self, letter: Mail, now: Time) {
        match letter {
            Mail::Deliver(message, receivers) => self.deliver_mail(message, &receivers, now),
            Mail::DeliverToMember(delivery) => self.deliver_to_member(*delivery, now),
            Mail::Complete(token, outcome) => self.complete(token, outcome, now),
            Mail::Publish(message) => {
                self.route(&message.view(), now);
            }
            Mail::Disconnect(client_id, reason) => self.disconnect_client(&client_id, reason, now),
            Mail::AccessChanged => self.see_to_access(now),
            Mail::CertificatesRevoked => self.look_at_access_again(now),
            Mail::Banned(subject) => self.let_banned_go(&subject, now),
            Mail::Guessed(guess) => self.count_guess(&guess, now),
            Mail::Backend(BackendEvent::Asked) => self.metrics().backend_answered.increment(),
            Mail::Backend(BackendEvent::Failed) => self.metrics().backend_failed.increment(),
            Mail::Backend(BackendEvent::Overloaded) => self.metrics().limit_backend_waiting.increment(),
            Mail::Store(mail) => self.handle_store_mail(mail, now),
            Mail::Fence(snapshot) => self.fence_came(snapshot),
        }
    }

    fn deliver_mail(&mut self, message: Arc<Message>, receivers: &[Receiver], now: Time) {
        let publication = message.view();
        let mut fanned = Fanned::new(
            &publication,
            Some(Arc::clone(&message)),
            &mut self.frames,
            receivers.len(),
            now,
        );
        fanned.is_promised = true;
        fanned.is_recorded = true;
        let (broker, publisher) = (&self.broker, publication.publisher);
        let own = || super::read(&broker.subscriptions).matches_own(publication.topic, publisher?);
        self.residents.fan_out(&mut fanned, receivers, own, now);
    }

    fn deliver_to_member(&mut self, mut delivery: MemberDelivery, now: Time) {
        let delivered = self.try_member(&delivery, false, now);
        if delivered == Delivered::Taken {
            return;
        }
        delivery.tried.push(delivery.receiver.session);
        let is_taken = self.route_to_group(&delivery.message, &delivery.group.name, &delivery.tried, now);
        if !is_taken {
            // Its publisher has been told that it arrives: the member takes it above its bound, unless it is gone.
            if delivered == Delivered::Refused && self.try_member(&delivery, true, now) == Delivered::Taken {
                return;
            }
            self.metrics().dropped_session_ended.increment();
        }
        let first = delivery.receiver.status.stored_number();
        if let (Some(message), Some(session)) = (delivery.message.number, first) {
            let copy = delivery.group.copy();
            let record = Record::DeliveryEnded(message, session, copy);
            self.residents.journal.record(&record);
        }
    }

    fn try_member(&mut self, delivery: &MemberDelivery, is_promised: bool, now: Time) -> Delivered {
        let publication = delivery.message.view();
        let kept = Some(Arc::clone(&delivery.message));
        let mut fanned = Fanned::new(&publication, kept, &mut self.frames, 1, now);
        fanned.is_recorded = true;
        fanned.is_promised = is_promised;
        let purpose = Purpose::Group(&delivery.group);
        self.residents.deliver(&mut fanned, &delivery.receiver, purpose, now)
    }

    /// A request that had to wait is done. A token whose connection is gone, or which is not awaited, is ignored.
    pub fn complete(&mut self, token: Token, outcome: Outcome, now: Time) {
        let key = token.connection;
        let answer = match outcome {
            Outcome::Allowed(is_allowed) => Some(is_allowed),
            _ => None,
        };
        if !matches!(outcome, Outcome::Verdict(_)) && self.reviewed(key, token.sequence, answer, now) {
            return;
        }
        let Some(connection) = self.residents.connections.get_mut(key.0) else {
            debug!(?token, "late answer for a connection that is gone");
            return;
        };
        match outcome {
            Outcome::Verdict(verdict) => {
                if connection.questions.release(token.sequence) {
                    self.authenticated(key, verdict, now);
                    self.residents.touch(key);
                }
            }
            Outcome::Allowed(_) | Outcome::Unanswered => {
                let is_allowed = outcome == Outcome::Allowed(true);
                let is_unanswered = outcome == Outcome::Unanswered;
                if matches!(connection.phase, Phase::Admitted(_)) {
                    if connection.questions.release(token.sequence) {
                        if is_unanswered {
                            connection.questions.set_unanswered();
                        }
                        self.will_decided(key, is_allowed, now);
                        self.residents.touch(key);
                    }
                } else if !connection.subscribing.is_none() {
                    if connection.questions.release(token.sequence) {
                        self.go_on_subscribing(key, answer, now);
                        self.residents.touch(key);
                    }
                } else if connection.questions.complete(token.sequence, is_allowed) {
                    if is_unanswered {
                        connection.questions.set_unanswered();
                    }
                    self.residents.touch(key);
                }
            }
        }
    }

    /// Sees to sessions that delivery has marked: disconnects those whose overflow policy wants it, watches those whose client does
    /// not acknowledge; gives to others of its group what one may not have any more.
    pub(super) fn see_to_marked(&mut self, now: Time) {
        self.watch_stalls(now);
        self.see_to_strays(now);
        while let Some(slot) = self.residents.overflowed.pop() {
            if let Some(key) = self.connection_of(slot) {
                self.end_connection(key, super::endings::Ending::Overflow, now);
            }
        }
    }

    /// Gives what a client may not receive any more, and was to get as a member of a shared group, to another one. Where none takes it, it is dropped,
    /// as it is for who subscribes alone.
    pub(super) fn see_to_strays(&mut self, now: Time) {
        while !self.residents.strays.is_empty() {
            for (slot, delivery) in std::mem::take(&mut self.residents.strays) {
                let tried = [SessionKey {
                    worker: self.me,
                    key: slot,
                }];
                if let Some(group) = &delivery.group {
                    self.route_to_group(&delivery.message, group, &tried, now);
                }
                self.record_moved(slot, &delivery);
            }
        }
    }

    pub(super) fn connection_of(&self, slot: SlotKey) -> Option<ConnectionKey> {
        self.residents.sessions.get(slot)?.connection
    }
}
