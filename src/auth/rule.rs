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

/// The topics of a rule: a topic filter in which `%u` is the user name, `%c` the client id and `%{claim}` a claim of the client's token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicPattern {
    text: Box<str>,
    /// Of what a filter is put together for each client; nothing where it is the same for all.
    parts: Box<[Part]>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(Box<str>),
    User,
    Client,
    Claim(Box<str>),
}

impl Part {
    /// What stands there for one client; `None` where it has no such thing.
    fn of<'a>(&'a self, who: &Access<'a>) -> Option<&'a str> {
        match self {
            Self::Text(text) => Some(text),
            Self::User => who.user_name,
            Self::Client => Some(who.client_id),
            Self::Claim(name) => who.grants?.claim(name),
        }
    }

    const fn is_text(&self) -> bool {
        matches!(self, Self::Text(_))
    }
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
            parts: Box::default(),
        })
    }

    /// A filter with `%u`, `%c` and `%{claim}` in it.
    ///
    /// # Errors
    /// As [`TopicPattern::plain`].
    pub fn parse(text: &str) -> Result<Self, TopicError> {
        let mut pattern = Self::plain(text)?;
        let parts = parts(text);
        if !parts.iter().all(Part::is_text) {
            pattern.parts = parts.into();
        }
        Ok(pattern)
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// What looks like a placeholder in a text and is none, or one with something behind it that was meant to be part of it: `%user`, `%i`,
    /// `%{sub`. In words, for who wrote it.
    pub fn doubt(text: &str) -> Option<String> {
        let mut rest = text;
        while let Some(at) = rest.find('%') {
            let from = &rest[at + 1..];
            let mut letters = from.chars();
            let (first, second) = (letters.next(), letters.next());
            let is_word = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
            let word: String = from.chars().take_while(char::is_ascii_alphanumeric).collect();
            match first {
                Some('{') => match from.split_once('}') {
                    None => {
                        return Some(
                            "%{ has no } behind it, so it stands for itself; a claim of a token is %{claim}".into(),
                        );
                    }
                    Some(("{", _)) => return Some("%{} names no claim; a claim of a token is %{claim}".into()),
                    Some(_) => {}
                },
                Some(known @ ('u' | 'c')) if is_word(second) => {
                    let what = if known == 'u' { "user name" } else { "client id" };
                    return Some(format!(
                        "%{word} is %{known}, the {what}, with {:?} right behind it",
                        &word[1..]
                    ));
                }
                Some('u' | 'c') => {}
                Some(_) if is_word(first) => {
                    return Some(format!(
                        "%{word} stands for itself; the user name is %u, the client id %c, a claim of a token %{{claim}}"
                    ));
                }
                _ => {}
            }
            rest = from;
        }
        None
    }

    /// True where something is put in for each client.
    pub const fn has_placeholder(&self) -> bool {
        !self.parts.is_empty()
    }

    /// The filter for one client; `None` where the rule does not apply to it.
    ///
    /// A name with `+`, `#` or `/` in it would become more levels, or wildcards. It makes a rule that allows void, and a rule that
    /// denies deny everything from the level on in which the name would stand. One that begins with `$` would make another tree of topics of
    /// what a placeholder begins, such as `$SYS`: nothing is allowed there. All names are put in at once: a user name of `%c` stays one.
    fn filter_for(&self, who: &Access<'_>, effect: Effect) -> Option<Cow<'_, str>> {
        if !self.has_placeholder() {
            return Some(Cow::Borrowed(&self.text));
        }
        let mut filter = String::with_capacity(self.text.len() + 16);
        let mut is_unsafe = false;
        for (at, part) in self.parts.iter().enumerate() {
            let name = part.of(who)?;
            let is_put_in = !part.is_text();
            is_unsafe |= is_put_in && !is_one_level(name);
            if effect == Effect::Allow && (is_unsafe || (is_put_in && at == 0 && name.starts_with('$'))) {
                return None;
            }
            filter.push_str(name);
        }
        if is_unsafe {
            let before = match self.parts.first() {
                Some(Part::Text(text)) => text,
                _ => "",
            };
            let level = before.rfind('/').map_or(0, |slash| slash + 1);
            return Some(Cow::Owned(format!("{}#", &before[..level])));
        }
        Some(Cow::Owned(filter))
    }
}

fn parts(text: &str) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut plain = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('%') {
        let (before, from) = rest.split_at(at);
        plain.push_str(before);
        let claim = from.strip_prefix("%{").and_then(|from| from.split_once('}'));
        let (part, behind) = match (from.as_bytes().get(1), claim) {
            (Some(b'u'), _) => (Part::User, &from[2..]),
            (Some(b'c'), _) => (Part::Client, &from[2..]),
            (_, Some((name, behind))) => (Part::Claim(name.into()), behind),
            _ => {
                plain.push('%');
                rest = &from[1..];
                continue;
            }
        };
        if !plain.is_empty() {
            parts.push(Part::Text(std::mem::take(&mut plain).into()));
        }
        parts.push(part);
        rest = behind;
    }
    plain.push_str(rest);
    if !plain.is_empty() {
        parts.push(Part::Text(plain.into()));
    }
    parts
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
#[derive(Clone, Debug, PartialEq, Eq)]
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
