//! All rules together, and what they say.
//!
//! **A rule that denies wins, wherever it stands; else one rule that allows is enough; else it is denied.** So the order of rules has no
//! meaning but for which of them is named as the one that decided. Where nothing is configured, everything is allowed but `$SYS`.

use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock};

use hashbrown::{HashMap, HashSet};

use super::filter::{covers, overlap};
use super::grants::Grants;
use super::rule::{Action, Effect, Rule};
use super::way::{Deed, Rights};
use super::{Access, Answer, Authorizer};
use crate::protocol::ids::Token;
use crate::protocol::qos::QoS;
use crate::protocol::topic::{TopicFilter, TopicName, matches};
use crate::session::peer::{ListenerRules, Peer};

/// What becomes of a subscription to more than its client may receive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WideSubscriptions {
    /// It is refused (0x87).
    #[default]
    Refuse,
    /// It is granted where something of it may be received, and what may not be is left out when it is delivered.
    Narrow,
    /// It is granted always, and nothing is delivered that may not be received: as mosquitto does.
    Grant,
}

/// Where rules hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// On every listener: what no rule allows is denied.
    Everywhere,
    /// On every listener but these, where everything is allowed. A listener that nobody has heard of is none of them.
    Except(Vec<Box<str>>),
    /// Nowhere: everything is allowed.
    Nowhere,
}

/// A set of rules.
#[derive(Clone, Debug)]
pub struct Rules {
    list: Vec<Rule>,
    /// Numbers of rules that are for users by name only.
    by_user: HashMap<Box<str>, Vec<u32>, foldhash::fast::RandomState>,
    /// Numbers of all others.
    general: Vec<u32>,
    scope: Scope,
    wide: WideSubscriptions,
    admins: HashSet<Box<str>, foldhash::fast::RandomState>,
    is_sys_public: bool,
    /// Listeners that there are; empty where that is not known.
    listeners: Vec<Box<str>>,
    /// Who is asked what no rule says, by listener.
    elsewhere: Vec<(Box<str>, Arc<dyn Rights>)>,
}

/// Rules that allow everything, as where none are configured.
impl Default for Rules {
    fn default() -> Self {
        Self::new(Vec::new(), Scope::Nowhere, WideSubscriptions::Refuse, Vec::new())
    }
}

/// What was decided, and by what.
#[derive(Clone, Copy, Debug)]
pub struct Decision<'a> {
    /// It may be done.
    pub is_allowed: bool,
    /// Who says so.
    pub by: DecidedBy<'a>,
}

/// What a decision comes from.
#[derive(Clone, Copy, Debug)]
pub enum DecidedBy<'a> {
    /// This rule.
    Rule(&'a Rule),
    /// No rule allows it.
    NoRule,
    /// This one allows a part of it only.
    OnlyPart(&'a Rule),
    /// No rules are configured for the listener.
    NotConfigured,
    /// `$SYS`, which clients of this machine and members of the group `admin` may read.
    Sys,
    /// Subscriptions are always granted, and looked at when something is delivered.
    Granted,
    /// No rule says it: somebody else is asked, or, of a delivery, was when it was subscribed to.
    Elsewhere,
}

impl Decision<'_> {
    const fn of(is_allowed: bool, by: DecidedBy<'_>) -> Decision<'_> {
        Decision { is_allowed, by }
    }
}

/// The group whose members read `$SYS` from anywhere.
pub const ADMIN_GROUP: &str = "admin";
const SYS: &str = "$SYS/#";

impl Rules {
    /// Rules in the order in which they are named. `admins`: users who read `$SYS` from anywhere.
    pub fn new(list: Vec<Rule>, scope: Scope, wide: WideSubscriptions, admins: Vec<Box<str>>) -> Self {
        let mut by_user: HashMap<Box<str>, Vec<u32>, _> = HashMap::default();
        let mut general = Vec::new();
        for (number, rule) in (0..).zip(&list) {
            let users = &rule.users;
            if users.anonymous || users.authenticated || users.is_everyone() {
                general.push(number);
            } else {
                for name in &users.names {
                    by_user.entry(name.clone()).or_default().push(number);
                }
            }
        }
        Self {
            list,
            by_user,
            general,
            scope,
            wide,
            admins: admins.into_iter().collect(),
            is_sys_public: false,
            listeners: Vec::new(),
            elsewhere: Vec::new(),
        }
    }

    /// Tells the names of all listeners.
    #[must_use]
    pub fn with_listeners(mut self, names: Vec<Box<str>>) -> Self {
        self.listeners = names;
        self
    }

    /// Has somebody asked what no rule says on these listeners: about publications and subscriptions. What may be subscribed to is
    /// received then, but for what a rule denies.
    #[must_use]
    pub fn with_elsewhere(mut self, elsewhere: Vec<(Box<str>, Arc<dyn Rights>)>) -> Self {
        self.elsewhere = elsewhere;
        self
    }

    /// Who is asked about a client what no rule says. One that has rules of its own has all of them.
    pub fn elsewhere(&self, who: &Access<'_>) -> Option<&Arc<dyn Rights>> {
        if self.elsewhere.is_empty() || who.grants.is_some_and(|grants| grants.rules.is_some()) {
            return None;
        }
        let here = self.elsewhere.iter().find(|(name, _)| **name == *who.peer.rules.name);
        here.map(|(_, rights)| rights)
    }

    fn ask_elsewhere(&self, decision: &Decision<'_>, who: &Access<'_>, deed: &Deed<'_>, token: Token) -> Answer<bool> {
        match (decision.by, self.elsewhere(who)) {
            (DecidedBy::Elsewhere, Some(rights)) => rights.ask(who, deed, token),
            _ => Answer::Ready(decision.is_allowed),
        }
    }

    /// Lets every client read `$SYS` that no rule denies it.
    #[must_use]
    pub const fn with_public_sys(mut self, is_public: bool) -> Self {
        self.is_sys_public = is_public;
        self
    }

    /// All of them.
    pub fn list(&self) -> &[Rule] {
        &self.list
    }

    /// Whether rules hold for a client at all: those of its listener, or its own.
    pub fn govern(&self, who: &Access<'_>) -> bool {
        match &self.scope {
            _ if who.grants.is_some_and(|grants| grants.rules.is_some()) => true,
            _ if self.elsewhere(who).is_some() => true,
            Scope::Everywhere => true,
            Scope::Except(names) => names.iter().all(|name| **name != *who.peer.rules.name),
            Scope::Nowhere => false,
        }
    }

    /// The rules that apply to a client, with their topics for it: those for users by name, all others, and what its token says, each in their
    /// order.
    pub fn applying<'a>(&'a self, who: &Access<'a>) -> impl Iterator<Item = (&'a Rule, std::borrow::Cow<'a, str>)> {
        let own = who.user_name.and_then(|user| self.by_user.get(user));
        let own = own.map_or(&[][..], Vec::as_slice);
        let who = *who;
        let rule = |number: &u32| &self.list[*number as usize];
        own.iter()
            .chain(&self.general)
            .map(rule)
            .chain(who.grants.map_or(&[][..], Grants::rules))
            .filter_map(move |rule| Some((rule, rule.filter_for(&who)?)))
    }

    /// May a client publish to a topic?
    pub fn publish<'a>(&'a self, who: &Access<'a>, topic: &str, qos: QoS, retain: bool) -> Decision<'a> {
        if !self.govern(who) {
            return Decision::of(true, DecidedBy::NotConfigured);
        }
        let mut allowed = None;
        for (rule, filter) in self.applying(who) {
            if !rule.actions.decide(Action::Publish) || !matches(&filter, topic) {
                continue;
            }
            match rule.effect {
                Effect::Deny => return Decision::of(false, DecidedBy::Rule(rule)),
                Effect::Allow if qos <= rule.qos_max && (rule.retain || !retain) => {
                    allowed = allowed.or(Some(rule));
                }
                Effect::Allow => {}
            }
        }
        match allowed {
            None if self.elsewhere(who).is_some() => Decision::of(false, DecidedBy::Elsewhere),
            allowed => by_rule(allowed),
        }
    }

    /// May a client still publish what it has left behind, retained or as a will? One that came by a listener that is not there any more may do what it may by any.
    /// One that brought rights of its own (`had_grants`) may do what no rule denies: what they were is not known any more.
    pub fn left(&self, who: &Access<'_>, had_grants: bool, topic: &str, qos: QoS, retain: bool) -> bool {
        let may = |who: &Access<'_>| {
            let decision = self.publish(who, topic, qos, retain);
            match decision.by {
                DecidedBy::Elsewhere => true, // it was asked when it was published
                DecidedBy::NoRule => had_grants,
                _ => decision.is_allowed,
            }
        };
        let is_known = self.listeners.is_empty() || self.listeners.iter().any(|name| **name == *who.peer.rules.name);
        if is_known {
            return may(who);
        }
        self.listeners.iter().any(|name| {
            let rules = ListenerRules {
                name: name.to_string(),
                ..ListenerRules::default()
            };
            let peer = Peer {
                rules: Arc::new(rules),
                ..who.peer.clone()
            };
            may(&Access { peer: &peer, ..*who })
        })
    }

    /// May a message on a topic be delivered to a client?
    pub fn receive<'a>(&'a self, who: &Access<'a>, topic: &str) -> Decision<'a> {
        let is_governed = self.govern(who);
        let mut allowed = None;
        for (rule, filter) in self.applying(who).take_while(|_| is_governed) {
            if !rule.actions.decide(Action::Receive) || !matches(&filter, topic) {
                continue;
            }
            match rule.effect {
                Effect::Deny => return Decision::of(false, DecidedBy::Rule(rule)),
                Effect::Allow => allowed = allowed.or(Some(rule)),
            }
        }
        if allowed.is_none() && matches(SYS, topic) {
            return Decision::of(self.reads_sys(who), DecidedBy::Sys);
        }
        match allowed {
            None if self.elsewhere(who).is_some() => Decision::of(true, DecidedBy::Elsewhere),
            allowed if is_governed => by_rule(allowed),
            _ => Decision::of(true, DecidedBy::NotConfigured),
        }
    }

    /// May a client subscribe to a filter? The filter is that of a shared subscription without `$share/GROUP/`.
    pub fn subscribe<'a>(&'a self, who: &Access<'a>, filter: &str) -> Decision<'a> {
        self.subscribe_with(self.wide, who, filter)
    }

    /// As [`Rules::subscribe`]; what a rule denies a part of is for the rest to say.
    fn subscribe_again<'a>(&'a self, who: &Access<'a>, filter: &str) -> Decision<'a> {
        self.subscribe_with(WideSubscriptions::Narrow, who, filter)
    }

    fn subscribe_with<'a>(&'a self, wide: WideSubscriptions, who: &Access<'a>, filter: &str) -> Decision<'a> {
        let is_governed = self.govern(who);
        let is_elsewhere = self.elsewhere(who).is_some();
        if is_governed && !is_elsewhere && wide == WideSubscriptions::Grant {
            return Decision::of(true, DecidedBy::Granted);
        }
        let (mut whole, mut part) = (None, None);
        for (rule, of_rule) in self.applying(who).take_while(|_| is_governed) {
            if !rule.actions.contains(Action::Subscribe) || !overlap(&of_rule, filter) {
                continue;
            }
            match rule.effect {
                Effect::Deny if wide == WideSubscriptions::Refuse || covers(&of_rule, filter) => {
                    return Decision::of(false, DecidedBy::Rule(rule));
                }
                Effect::Deny => {}
                Effect::Allow if covers(&of_rule, filter) => whole = whole.or(Some(rule)),
                Effect::Allow => part = part.or(Some(rule)),
            }
        }
        match (whole, part) {
            (Some(rule), _) => Decision::of(true, DecidedBy::Rule(rule)),
            (None, _) if covers(SYS, filter) && (self.reads_sys(who) || !is_governed) => {
                Decision::of(self.reads_sys(who), DecidedBy::Sys)
            }
            (None, _) if is_elsewhere => Decision::of(false, DecidedBy::Elsewhere),
            (None, _) if !is_governed => Decision::of(true, DecidedBy::NotConfigured),
            (None, Some(rule)) => Decision::of(wide == WideSubscriptions::Narrow, DecidedBy::OnlyPart(rule)),
            (None, None) => Decision::of(false, DecidedBy::NoRule),
        }
    }

    /// The highest QoS that a client may subscribe to a filter with: what is allowed to all of it; where nothing is, to a part.
    pub fn subscribe_qos(&self, who: &Access<'_>, filter: &str) -> QoS {
        if !self.govern(who) {
            return QoS::ExactlyOnce;
        }
        let (mut of_whole, mut of_part) = (None, None);
        for (rule, of_rule) in self.applying(who) {
            if rule.effect != Effect::Allow || !rule.actions.contains(Action::Subscribe) {
                continue;
            }
            if covers(&of_rule, filter) {
                of_whole = of_whole.max(Some(rule.qos_max));
            } else if overlap(&of_rule, filter) {
                of_part = of_part.max(Some(rule.qos_max));
            }
        }
        of_whole.or(of_part).unwrap_or(QoS::ExactlyOnce)
    }

    /// Whether something that a filter matches may not be received, so that deliveries have to be looked at.
    pub fn watches(&self, who: &Access<'_>, filter: &str) -> bool {
        let reads_sys = covers(SYS, filter) && self.reads_sys(who);
        if !self.govern(who) {
            return overlap(SYS, filter) && !self.reads_sys(who);
        }
        let mut is_covered = reads_sys || self.elsewhere(who).is_some();
        for (rule, of_rule) in self.applying(who) {
            if !rule.actions.decide(Action::Receive) {
                continue;
            }
            match rule.effect {
                Effect::Deny if overlap(&of_rule, filter) => return true,
                Effect::Deny => {}
                Effect::Allow => is_covered = is_covered || covers(&of_rule, filter),
            }
        }
        !is_covered
    }

    fn reads_sys(&self, who: &Access<'_>) -> bool {
        self.is_sys_public || who.peer.is_local() || who.user_name.is_some_and(|user| self.admins.contains(user))
    }
}

const fn by_rule(rule: Option<&Rule>) -> Decision<'_> {
    match rule {
        Some(rule) => Decision::of(true, DecidedBy::Rule(rule)),
        None => Decision::of(false, DecidedBy::NoRule),
    }
}

/// Rules that can be replaced while clients are connected.
#[derive(Debug, Default)]
pub struct LiveRules {
    current: RwLock<Arc<Rules>>,
    generation: AtomicU64,
}

impl LiveRules {
    /// Begins with these.
    pub fn new(rules: Rules) -> Self {
        Self {
            current: RwLock::new(Arc::new(rules)),
            generation: AtomicU64::new(0),
        }
    }

    /// The rules as they are now.
    pub fn current(&self) -> Arc<Rules> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Replaces them. Every question from now on is answered by the new ones; what connections remember they forget with the next
    /// packet or letter of their worker.
    pub fn replace(&self, rules: Rules) {
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        let before = mem::replace(&mut *current, Arc::new(rules));
        self.generation.fetch_add(1, Ordering::Release); // who sees the new ones sees this, too
        drop(current);
        drop(before);
    }
}

const fn subscribing(filter: TopicFilter<'_>) -> Deed<'_> {
    Deed {
        action: Action::Subscribe,
        topic: filter.filter(),
        qos: QoS::AtMostOnce,
        retain: false,
    }
}

impl Authorizer for LiveRules {
    fn publish(&self, who: &Access<'_>, topic: TopicName<'_>, qos: QoS, retain: bool, token: Token) -> Answer<bool> {
        let rules = self.current();
        let decision = rules.publish(who, topic.as_str(), qos, retain);
        let deed = Deed {
            action: Action::Publish,
            topic: topic.as_str(),
            qos,
            retain,
        };
        rules.ask_elsewhere(&decision, who, &deed, token)
    }

    fn subscribe(&self, who: &Access<'_>, filter: TopicFilter<'_>, token: Token) -> Answer<bool> {
        let rules = self.current();
        let decision = rules.subscribe(who, filter.filter());
        rules.ask_elsewhere(&decision, who, &subscribing(filter), token)
    }

    fn asks_again(&self, who: &Access<'_>) -> bool {
        self.current().elsewhere(who).is_some()
    }

    fn asks_about(&self, who: &Access<'_>, filter: TopicFilter<'_>) -> bool {
        let rules = self.current();
        let is_asked = rules.elsewhere(who).is_some();
        is_asked && matches!(rules.subscribe_again(who, filter.filter()).by, DecidedBy::Elsewhere)
    }

    fn subscribe_again(&self, who: &Access<'_>, filter: TopicFilter<'_>, token: Token) -> Answer<bool> {
        let rules = self.current();
        let decision = rules.subscribe_again(who, filter.filter());
        match decision.by {
            DecidedBy::Elsewhere => rules.ask_elsewhere(&decision, who, &subscribing(filter), token),
            _ => Answer::Ready(true), // what a rule denies is not received
        }
    }

    fn forbids(&self, who: &Access<'_>, topic: TopicName<'_>, qos: QoS, retain: bool, _: Token) -> bool {
        let rules = self.current();
        let decision = rules.publish(who, topic.as_str(), qos, retain);
        // An overloaded program is no reason to take away what it has allowed.
        !decision.is_allowed && !matches!(decision.by, DecidedBy::Elsewhere)
    }

    fn remembers(&self, who: &Access<'_>) -> bool {
        self.current().elsewhere(who).is_none()
    }

    fn subscribe_qos(&self, who: &Access<'_>, filter: TopicFilter<'_>) -> QoS {
        self.current().subscribe_qos(who, filter.filter())
    }

    fn generation(&self) -> Option<u64> {
        Some(self.generation.load(Ordering::Acquire))
    }

    fn restricts(&self, who: &Access<'_>) -> bool {
        self.current().govern(who)
    }

    fn watches(&self, who: &Access<'_>, filter: TopicFilter<'_>) -> bool {
        self.current().watches(who, filter.filter())
    }

    fn judges_what_is_left(&self) -> bool {
        self.current().scope != Scope::Nowhere
    }

    fn left(&self, who: &Access<'_>, had_grants: bool, topic: TopicName<'_>, qos: QoS, retain: bool) -> bool {
        self.current().left(who, had_grants, topic.as_str(), qos, retain)
    }

    fn receive(&self, who: &Access<'_>, topic: TopicName<'_>) -> bool {
        self.current().receive(who, topic.as_str()).is_allowed
    }
}

#[cfg(test)]
#[path = "rules/tests.rs"]
mod tests;
