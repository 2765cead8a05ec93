//! One rule: to whom it applies, what it allows or denies, on which topics.

use std::borrow::Cow;
use std::collections::BTreeSet;

use super::Access;
use crate::protocol::qos::QoS;
use crate::protocol::topic::{TopicError, TopicFilter};
use crate::session::network::Network;

/// What a rule says of what it applies to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It may be done, unless another rule denies it.
    Allow,
    /// It may not be done, whatever other rules say.
    Deny,
}

/// One thing that can be done with a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// To send messages to it, and to leave a will on it.
    Publish,
    /// To ask for its messages; who may do that may receive them, and who may not does not receive them.
    Subscribe,
    /// To be sent its messages, looked at when each is delivered.
    Receive,
}

impl Action {
    /// The word in configurations and logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Subscribe => "subscribe",
            Self::Receive => "receive",
        }
    }
}

/// Some actions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Actions(u8);

impl Actions {
    /// All of them.
    pub const ALL: Self = Self(0b111);
    /// What mosquitto calls `read`.
    pub const READ: Self = Self(0b110);
    /// What mosquitto calls `write`.
    pub const WRITE: Self = Self(0b001);

    /// With another one.
    #[must_use]
    pub const fn with(self, action: Action) -> Self {
        Self(self.0 | 1 << action as u8)
    }

    /// True where the action is one of them.
    pub const fn contains(self, action: Action) -> bool {
        self.0 & 1 << action as u8 != 0
    }

    /// True where they decide about deliveries.
    const fn reads(self) -> bool {
        self.contains(Action::Subscribe) || self.contains(Action::Receive)
    }

    /// True where they decide about that action: of deliveries decides who may subscribe, too.
    pub const fn decide(self, action: Action) -> bool {
        match action {
            Action::Receive => self.reads(),
            action => self.contains(action),
        }
    }
}

/// Some clients by their id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientPattern {
    /// This one.
    Is(Box<str>),
    /// All whose id begins so: written with `*` at the end.
    BeginsWith(Box<str>),
}

impl ClientPattern {
    /// `sensor-7`, or `sensor-*`.
    pub fn new(text: &str) -> Self {
        match text.strip_suffix('*') {
            Some(beginning) => Self::BeginsWith(beginning.into()),
            None => Self::Is(text.into()),
        }
    }

    fn matches(&self, client_id: &str) -> bool {
        match self {
            Self::Is(id) => **id == *client_id,
            Self::BeginsWith(beginning) => client_id.starts_with(&**beginning),
        }
    }
}

/// To whom a rule applies by name; to everyone where all are empty. One that fits is enough.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Users {
    /// Users by name, those of groups included.
    pub names: BTreeSet<Box<str>>,
    /// Clients without a user name.
    pub anonymous: bool,
    /// Clients with one, whatever it is.
    pub authenticated: bool,
    /// A group was named, though it may have no members: so it is not everyone.
    pub has_group: bool,
}

impl Users {
    /// True where the rule is for everyone.
    pub fn is_everyone(&self) -> bool {
        self.names.is_empty() && !self.anonymous && !self.authenticated && !self.has_group
    }

    fn matches(&self, user: Option<&str>) -> bool {
        match user {
            _ if self.is_everyone() => true,
            Some(user) => self.authenticated || self.names.contains(user),
            None => self.anonymous,
        }
    }
}

/// The topics of a rule: a topic filter in which `%u` is the user name and `%c` the client id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicPattern {
    text: Box<str>,
    has_user: bool,
    has_client: bool,
}

impl TopicPattern {
    /// A filter as it stands, `%u` and `%c` without meaning.
    ///
    /// # Errors
    /// What is wrong with it as a topic filter.
    pub fn plain(text: &str) -> Result<Self, TopicError> {
        check(text)?;
        Ok(Self {
            text: text.into(),
            has_user: false,
            has_client: false,
        })
    }

    /// A filter with `%u` and `%c` in it.
    ///
    /// # Errors
    /// As [`TopicPattern::plain`].
    pub fn parse(text: &str) -> Result<Self, TopicError> {
        let pattern = Self::plain(text)?;
        Ok(Self {
            has_user: text.contains("%u"),
            has_client: text.contains("%c"),
            ..pattern
        })
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// True where something is put in for each client.
    pub const fn has_placeholder(&self) -> bool {
        self.has_user || self.has_client
    }

    /// The filter for one client; `None` where the rule does not apply to it.
    ///
    /// A name with `+`, `#` or `/` in it would become more levels, or wildcards. It makes a rule that allows void, and a rule that
    /// denies deny everything from the level on in which the name would stand. One that begins with `$` would make another tree of topics of
    /// what a placeholder begins, such as `$SYS`: nothing is allowed there.
    fn filter_for(&self, who: &Access<'_>, effect: Effect) -> Option<Cow<'_, str>> {
        if !self.has_placeholder() {
            return Some(Cow::Borrowed(&self.text));
        }
        let user = who.user_name.unwrap_or_default();
        if self.has_user && who.user_name.is_none() {
            return None;
        }
        let is_unsafe = (self.has_user && !is_one_level(user)) || (self.has_client && !is_one_level(who.client_id));
        let begins = |placeholder, name: &str| self.text.starts_with(placeholder) && name.starts_with('$');
        if effect == Effect::Allow && (begins("%u", user) || begins("%c", who.client_id)) {
            return None;
        }
        if !is_unsafe {
            // `%c` first would let a user name of "%c" become the client id: both in one pass.
            return Some(Cow::Owned(substitute(&self.text, user, who.client_id)));
        }
        if effect == Effect::Allow {
            return None;
        }
        let first = self.text.find("%u").into_iter().chain(self.text.find("%c")).min()?;
        let level = self.text[..first].rfind('/').map_or(0, |slash| slash + 1);
        Some(Cow::Owned(format!("{}#", &self.text[..level])))
    }
}

fn substitute(text: &str, user: &str, client_id: &str) -> String {
    let mut out = String::with_capacity(text.len() + user.len() + client_id.len());
    let mut rest = text;
    while let Some(at) = rest.find('%') {
        let (before, from) = rest.split_at(at);
        out.push_str(before);
        let (put_in, taken) = match from.as_bytes().get(1) {
            Some(b'u') => (user, 2),
            Some(b'c') => (client_id, 2),
            _ => ("%", 1),
        };
        out.push_str(put_in);
        rest = &from[taken..];
    }
    out.push_str(rest);
    out
}

fn is_one_level(name: &str) -> bool {
    !name.is_empty() && !name.contains(['+', '#', '/'])
}

/// Rules are about topics: `$share/GROUP/` is taken off of what is asked, so no rule has it.
fn check(text: &str) -> Result<(), TopicError> {
    match TopicFilter::parse(text)?.group() {
        Some(_) => Err(TopicError::Share),
        None => Ok(()),
    }
}

/// A rule.
#[derive(Clone, Debug)]
pub struct Rule {
    /// What it says.
    pub effect: Effect,
    /// Of what.
    pub actions: Actions,
    /// To whom it applies.
    pub users: Users,
    /// To which clients; to all where it is empty.
    pub clients: Vec<ClientPattern>,
    /// From which addresses; from all where it is empty. A client without an address, over a Unix socket, is at none of them.
    pub networks: Vec<Network>,
    /// Through which listeners, by name; through all where it is empty.
    pub listeners: Vec<Box<str>>,
    /// On which topics.
    pub topics: TopicPattern,
    /// Highest QoS that it allows; a rule that denies does so at any.
    pub qos_max: QoS,
    /// Whether it allows messages to be retained; a rule that denies does so in either case.
    pub retain: bool,
    /// Where it stands: `FILE:LINE`.
    pub place: Box<str>,
}

impl Rule {
    /// A rule for everyone, everywhere.
    pub fn new(effect: Effect, actions: Actions, topics: TopicPattern, place: impl Into<Box<str>>) -> Self {
        Self {
            effect,
            actions,
            users: Users::default(),
            clients: Vec::new(),
            networks: Vec::new(),
            listeners: Vec::new(),
            topics,
            qos_max: QoS::ExactlyOnce,
            retain: true,
            place: place.into(),
        }
    }

    /// Its topics, where it applies to a client; `None` where it does not.
    pub fn filter_for(&self, who: &Access<'_>) -> Option<Cow<'_, str>> {
        let applies = self.users.matches(who.user_name)
            && (self.clients.is_empty() || self.clients.iter().any(|client| client.matches(who.client_id)))
            && (self.listeners.is_empty() || self.listeners.iter().any(|name| **name == *who.peer.rules.name))
            && (self.networks.is_empty()
                || who
                    .peer
                    .ip
                    .is_some_and(|ip| self.networks.iter().any(|network| network.contains(ip))));
        if applies {
            self.topics.filter_for(who, self.effect)
        } else {
            None
        }
    }
}
