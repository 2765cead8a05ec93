//! The end of a run: everybody comes back, everything is delivered and judged; then everybody leaves, and nothing may be left.

use sundew::protocol::qos::QoS;
use sundew::protocol::topic::TopicName;
use sundew::protocol::version::Version;

use crate::client::{Character, Client, State, plain};
use crate::fault::Fault;
use crate::ledger::{Invariant, MessageId};
use crate::world::World;

impl World {
    pub(crate) fn end(&mut self) {
        self.host.late.calm_down();
        self.host.store.calm_down();
        self.settle(true);
        self.check_answered();
        let totals = self.host.broker.metrics.sum();
        self.ledger.losses_allowed += totals.dropped_queue_full_qos1_2;
        if self.ledger.breach.is_none() {
            self.ledger.judge();
            self.ledger.judge_single_members();
        }
        if self.is_sabotaged_by(Fault::LoseRetained) {
            self.lose_retained();
        }
        if self.ledger.breach.is_none() {
            self.judge_retained();
        }
        if self.ledger.breach.is_none() {
            self.everybody_leaves();
        }
    }

    fn check_answered(&mut self) {
        for client in &self.clients {
            let number = client.number();
            if client.state != State::Connected {
                let state = client.state;
                self.ledger.fail(Invariant::NoLostAcknowledgement, || {
                    format!("client {number} does not get in: {state:?}")
                });
            } else if let Some(what) = client.waits_for() {
                let seen = client.link.map(|id| self.host.describe(id, &self.links[id]));
                let what = format!("{what}, {seen:?}");
                self.ledger.fail(Invariant::NoLostAcknowledgement, || {
                    format!("client {number} waits for ever: {what}")
                });
            }
        }
    }

    fn retained_topics(&self) -> Vec<String> {
        let retained = |client: &Client| client.character.full(&format!("r/{}", client.character.name));
        self.clients.iter().map(retained).collect()
    }

    fn retained(&self, topic: &str) -> Option<MessageId> {
        let retained = self.host.broker.retained.read().unwrap();
        let message = retained.get(TopicName::parse(topic).unwrap())?;
        let text = String::from_utf8_lossy(message.payload()).into_owned();
        text.split_once(':').and_then(|(id, _)| id.parse().ok())
    }

    fn lose_retained(&mut self) {
        for topic in self.retained_topics() {
            self.host
                .broker
                .retained
                .write()
                .unwrap()
                .clear(TopicName::parse(&topic).unwrap());
        }
    }

    /// What is retained is what was accepted last, or something that was sent after it and never answered. A new subscriber gets it.
    fn judge_retained(&mut self) {
        for topic in self.retained_topics() {
            let sent: Vec<_> = self
                .ledger
                .messages
                .iter()
                .enumerate()
                .filter(|(_, m)| m.topic == topic && m.sends > 0)
                .collect();
            let last = sent.iter().rposition(|(_, message)| message.accepted.is_some());
            let found = self.retained(&topic);
            let mut possible = sent[last.unwrap_or(0)..].iter();
            let is_right = match found {
                Some(found) => possible.any(|(id, message)| *id == found && !message.is_clear),
                None => last.is_none() || possible.any(|(_, message)| message.is_clear),
            };
            // One that was refused and sent again, because its client did not hear of it, may have come last.
            let is_again = |id: MessageId| {
                let message = &self.ledger.messages[id];
                message.sends > 1 && message.accepted.is_some()
            };
            let has_refused = self.ledger.has_refused || self.host.has_refused();
            let is_what_there_is = |id: MessageId| match found {
                Some(found) => found == id,
                None => self.ledger.messages[id].is_clear,
            };
            let is_right = is_right || has_refused && sent.iter().any(|(id, _)| is_what_there_is(*id) && is_again(*id));
            let was_sent = found.is_none_or(|found| sent.iter().any(|(id, _)| *id == found));
            if !(is_right || self.ledger.is_damaged && was_sent) {
                let last = last.map(|last| sent[last].0);
                self.ledger.fail(Invariant::Retained, || {
                    format!("{topic} retains {found:?}, accepted last was {last:?}")
                });
            }
        }
        let auditor = self.add_client(Character {
            number: 0,
            name: self.clients.len(),
            mount: "",
            version: Version::V5,
            is_persistent: false,
            expiry_secs: None,
            keep_alive: 0,
            group: None,
            ids_max: 40,
            will_delay_secs: None,
        });
        self.settle(true);
        self.clients[auditor].subscribe(&[("#".into(), plain(QoS::ExactlyOnce))], &mut self.ledger);
        self.settle(true);
        self.check_answered();
        let Some(epoch) = self.clients[auditor].epoch else {
            return;
        };
        for topic in self.retained_topics() {
            let (got, kept) = (
                self.ledger.epochs[epoch].replayed.get(&topic).copied(),
                self.retained(&topic),
            );
            if got != kept {
                self.ledger.fail(Invariant::Retained, || {
                    format!("a new subscriber got {got:?} on {topic}, retained is {kept:?}")
                });
            }
        }
    }

    fn everybody_leaves(&mut self) {
        for number in 0..self.clients.len() {
            let is_kept = self.clients[number].character.is_persistent;
            if is_kept && !self.clients[number].character.version.has_properties() {
                self.clients[number].disconnect(false, &mut self.ledger);
            }
        }
        self.settle(false);
        for number in 0..self.clients.len() {
            if self.clients[number].state == State::Offline {
                self.connect(number, true);
            }
        }
        self.settle(false);
        for number in 0..self.clients.len() {
            let is_kept = self.clients[number].character.is_persistent;
            self.clients[number].disconnect(is_kept, &mut self.ledger);
        }
        self.settle(false);
        self.check_nothing_left();
    }

    fn check_nothing_left(&mut self) {
        let broker = &self.host.broker;
        let totals = broker.metrics.sum();
        let subscriptions = broker.subscriptions.read().unwrap();
        let population = |of: fn((usize, usize)) -> usize| self.host.workers.iter().map(|w| of(w.population())).sum();
        let left = [
            ("connections of workers", population(|(connections, _)| connections)),
            ("sessions of workers", population(|(_, sessions)| sessions)),
            ("sessions in the registry", broker.registry.sessions()),
            ("sessions", totals.sessions as usize),
            ("connections", totals.connections as usize),
            ("pending wills", totals.wills_pending as usize),
            ("subscriptions", subscriptions.len()),
            ("shared subscriptions", subscriptions.shared_len()),
            ("drivers", self.host.drivers.len()),
            ("tenants", broker.registry.tenants.iter().count()),
        ];
        drop(subscriptions);
        for (what, count) in left {
            if count != 0 {
                self.ledger
                    .fail(Invariant::NothingLeft, || format!("{count} {what} are left"));
            }
        }
    }
}
