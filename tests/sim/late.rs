//! An authenticator and an authoriser that answer when the seed says.

use std::sync::{Arc, Mutex, MutexGuard};

use sundew::auth::{Access, Answer, Authenticator, Authorizer, Identity, Refusal, Verdict};
use sundew::broker::mail::Outcome;
use sundew::protocol::ids::Token;
use sundew::protocol::qos::QoS;
use sundew::protocol::reason::ReasonCode;
use sundew::protocol::topic::{TopicFilter, TopicName};
use sundew::session::peer::Peer;
use sundew::session::request::ConnectRequest;

use crate::random::Random;

/// The mount points of tenants.
pub(crate) const MOUNTS: [&str; 2] = ["a/", "b/"];

/// How often each of them answers late, and how often wrong, in percent.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Habits {
    pub authenticator_late: usize,
    pub authorizer_late: usize,
    pub refuses: usize,
    /// What a session subscribes to is asked about again when its client is back.
    pub asks_again: bool,
}

#[derive(Debug)]
struct Desk {
    random: Random,
    habits: Habits,
    waiting: Vec<(Token, Outcome)>,
}

/// Both in one.
#[derive(Clone, Debug)]
pub(crate) struct Late(Arc<Mutex<Desk>>);

impl Late {
    pub(crate) fn new(seed: u64, habits: Habits) -> Self {
        Self(Arc::new(Mutex::new(Desk {
            random: Random::new(seed),
            habits,
            waiting: Vec::new(),
        })))
    }

    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.0.lock().unwrap()
    }

    /// From now on nothing fails.
    pub(crate) fn calm_down(&self) {
        self.desk().habits.refuses = 0;
    }

    /// The broker is gone that waited for answers.
    pub(crate) fn forget(&self) {
        self.desk().waiting.clear();
    }

    pub(crate) fn waiting(&self) -> usize {
        self.desk().waiting.len()
    }

    /// Takes out one of the answers that wait, by chance.
    pub(crate) fn take(&self, random: &mut Random) -> Option<(Token, Outcome)> {
        let mut desk = self.desk();
        let at = random.below(desk.waiting.len());
        (at < desk.waiting.len()).then(|| desk.waiting.swap_remove(at))
    }

    fn answer_allowed(&self, is_allowed: bool, token: Token) -> Answer<bool> {
        let mut desk = self.desk();
        let chance = desk.habits.authorizer_late;
        if !desk.random.percent(chance) {
            return Answer::Ready(is_allowed);
        }
        desk.waiting.push((token, Outcome::Allowed(is_allowed)));
        Answer::Pending
    }
}

impl Authenticator for Late {
    fn connect(&self, request: &ConnectRequest, _peer: &Peer, token: Token) -> Answer<Verdict> {
        let mut desk = self.desk();
        let habits = desk.habits;
        let verdict = if desk.random.percent(habits.refuses) {
            Verdict::Refuse(Refusal {
                reason: ReasonCode::NotAuthorized,
                why: "by_chance",
            })
        } else {
            Verdict::Admit(Identity {
                user_name: request.user_name.clone(),
                ..Identity::default()
            })
        };
        if !desk.random.percent(habits.authenticator_late) {
            return Answer::Ready(verdict);
        }
        desk.waiting.push((token, Outcome::Verdict(verdict)));
        Answer::Pending
    }

    /// The name of a user is the mount point of his tenant.
    fn mount_of(&self, who: &Access<'_>) -> Result<Option<Box<str>>, &'static str> {
        Ok(who.user_name.map(Into::into))
    }

    fn has_tenants(&self) -> bool {
        true
    }
}

/// What nobody may, in any tenant.
pub(crate) fn is_denied(full: &str) -> bool {
    own_of_any(full).starts_with("d/")
}

/// A topic or filter without the mount point of its tenant, whichever it is.
pub(crate) fn own_of_any(full: &str) -> &str {
    let mut mounts = MOUNTS.iter();
    mounts.find_map(|mount| full.strip_prefix(mount)).unwrap_or(full)
}

impl Authorizer for Late {
    fn publish(&self, _who: &Access<'_>, topic: TopicName<'_>, _qos: QoS, _retain: bool, token: Token) -> Answer<bool> {
        self.answer_allowed(!is_denied(topic.as_str()), token)
    }

    fn subscribe(&self, _who: &Access<'_>, filter: TopicFilter<'_>, token: Token) -> Answer<bool> {
        self.answer_allowed(!is_denied(filter.as_str()), token)
    }

    fn asks_again(&self, _who: &Access<'_>) -> bool {
        self.desk().habits.asks_again
    }
}
