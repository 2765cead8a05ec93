//! May a retained message still be given to new subscribers, and a will that has waited be published? Not once its publisher may not publish
//! it any more. Looked at when it leaves, so that a right that was taken away is gone at once, before and after a restart.

use core::hash::BuildHasher;
use std::sync::Arc;

use tracing::info;

use crate::auth::{Access, Authenticator, Authorizer};
use crate::protocol::message::Message;
use crate::protocol::qos::QoS;
use crate::protocol::source::SourceBuf;
use crate::session::peer::{ListenerRules, Peer};

/// Answers remembered by one worker; a power of two.
const ENTRIES: usize = 1024;
/// Longer topics are asked about each time: with those that are kept, a worker costs 300 KiB at most.
const TOPIC_BYTES_MAX: usize = 256;

#[derive(Clone, Debug, Default)]
struct Entry {
    /// Kept, so that its address is no other one's.
    source: Option<Arc<SourceBuf>>,
    topic: Box<str>,
    qos: QoS,
    is_allowed: bool,
}

/// Of the authenticator and of the authoriser.
type Generations = (u64, Option<u64>);

/// Asks who decides, and remembers the answers until they may be others.
pub struct SourceCheck {
    authenticator: Arc<dyn Authenticator>,
    authorizer: Arc<dyn Authorizer>,
    is_on: bool,
    seen: Option<Generations>,
    /// The authoriser may have something to say.
    has_rules: bool,
    /// Without memory until something is remembered.
    entries: Vec<Entry>,
    hasher: foldhash::fast::RandomState,
    /// It was told since then that something is held back.
    is_told: bool,
    /// The last publisher as the rules know him: the next message is often his, too.
    last: Option<(Arc<SourceBuf>, Peer)>,
}

impl SourceCheck {
    /// Asks these two; one that is off lets everything pass.
    pub fn new(authenticator: Arc<dyn Authenticator>, authorizer: Arc<dyn Authorizer>, is_on: bool) -> Self {
        Self {
            authenticator,
            authorizer,
            is_on,
            seen: None,
            has_rules: false,
            entries: Vec::new(),
            hasher: foldhash::fast::RandomState::default(),
            last: None,
            is_told: false,
        }
    }

    /// True where a retained message may be delivered, as far as its publisher is concerned. One whose publisher is not known may.
    #[inline]
    pub fn allows(&mut self, message: &Message) -> bool {
        match &message.source {
            Some(source) if self.is_on => self.look(source, message),
            _ => true,
        }
    }

    /// True where a will may be published that has waited for its delay, or for a start of the broker. One whose client is not known may.
    pub fn allows_will(&mut self, message: &Message) -> bool {
        match &message.source {
            Some(source) if self.has_something_to_say(source) => self.ask(source, message, message.retain),
            _ => true,
        }
    }

    /// Forgets its answers where they may be others now; whether anybody is to be asked about a publisher.
    fn has_something_to_say(&mut self, source: &SourceBuf) -> bool {
        let generations = (self.authenticator.generation(), self.authorizer.generation());
        if self.seen != Some(generations) {
            self.seen = Some(generations);
            self.has_rules = self.authorizer.judges_what_is_left();
            self.entries = Vec::new();
            self.is_told = false;
        }
        self.has_rules || source.view().is_listed
    }

    fn look(&mut self, source: &Arc<SourceBuf>, message: &Message) -> bool {
        if !self.has_something_to_say(source) {
            return true;
        }
        let view = message.view();
        let topic = view.topic.as_str();
        if self.seen.is_none_or(|(_, rules)| rules.is_none()) || topic.len() > TOPIC_BYTES_MAX {
            return self.ask(source, message, true);
        }
        let place = self.hasher.hash_one((Arc::as_ptr(source), topic)) as usize & (ENTRIES - 1);
        if let Some(entry) = self.entries.get(place)
            && entry.source.as_ref().is_some_and(|known| Arc::ptr_eq(known, source))
            && (&*entry.topic, entry.qos) == (topic, message.qos)
        {
            return entry.is_allowed;
        }
        let is_allowed = self.ask(source, message, true);
        if !is_allowed && !std::mem::replace(&mut self.is_told, true) {
            info!(
                user = source.view().user_name,
                client = source.view().client_id,
                topic,
                "retained messages are held back: who published them may not any more, or is no user any more"
            );
        }
        if self.entries.is_empty() {
            self.entries = vec![Entry::default(); ENTRIES];
        }
        self.entries[place] = Entry {
            source: Some(Arc::clone(source)),
            topic: topic.into(),
            qos: message.qos,
            is_allowed,
        };
        is_allowed
    }

    fn ask(&mut self, source: &Arc<SourceBuf>, message: &Message, retain: bool) -> bool {
        let is_last = |(last, _): &mut (Arc<SourceBuf>, Peer)| Arc::ptr_eq(last, source);
        let (_, peer) = match self.last.take_if(is_last) {
            Some(last) => self.last.insert(last),
            None => self.last.insert((Arc::clone(source), peer_of(source))),
        };
        let source = source.view();
        let is_removed = |user| source.is_listed && self.authenticator.lists(user, peer) == Some(false);
        if source.user_name.is_some_and(is_removed) {
            return false;
        }
        let who = Access {
            client_id: source.client_id,
            user_name: source.user_name,
            peer,
            grants: None,
        };
        !self.has_rules
            || self
                .authorizer
                .left(&who, source.has_grants, message.topic(), message.qos, retain)
    }
}

/// The remote end as it was, as far as rules are about it.
fn peer_of(source: &SourceBuf) -> Peer {
    let source = source.view();
    Peer {
        address: source.ip.map_or_else(String::new, |ip| ip.to_string()).into(),
        ip: source.ip,
        is_secure: false,
        certificate: None,
        rules: Arc::new(ListenerRules {
            name: source.listener.to_owned(),
            ..ListenerRules::default()
        }),
    }
}

impl core::fmt::Debug for SourceCheck {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("SourceCheck")
            .field("is_on", &self.is_on)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

    use super::*;
    use crate::auth::{AllowAnonymous, Answer};
    use crate::protocol::ids::Token;
    use crate::protocol::message::Publication;
    use crate::protocol::property::Properties;
    use crate::protocol::source::Source;
    use crate::protocol::topic::{TopicFilter, TopicName};

    /// Counts what it is asked; allows what is not `secret`, and in odd generations that, too.
    #[derive(Default)]
    struct Counting {
        asked: AtomicU64,
        generation: AtomicU64,
        has_none: bool,
    }

    impl Authorizer for Counting {
        fn publish(&self, _: &Access<'_>, _: TopicName<'_>, _: QoS, _: bool, _: Token) -> Answer<bool> {
            unreachable!("nothing is published")
        }

        fn subscribe(&self, _: &Access<'_>, _: TopicFilter<'_>, _: Token) -> Answer<bool> {
            unreachable!("nobody subscribes")
        }

        fn generation(&self) -> Option<u64> {
            (!self.has_none).then(|| self.generation.load(Relaxed))
        }

        fn judges_what_is_left(&self) -> bool {
            true
        }

        fn left(&self, who: &Access<'_>, _: bool, topic: TopicName<'_>, _: QoS, _: bool) -> bool {
            self.asked.fetch_add(1, Relaxed);
            assert_eq!((who.client_id, who.user_name), ("c", Some("anna")));
            assert_eq!(
                (&*who.peer.rules.name, who.peer.ip),
                ("tls", Some([10, 0, 0, 1].into()))
            );
            topic.as_str() != "secret" || self.generation.load(Relaxed) % 2 == 1
        }
    }

    fn check(authorizer: &Arc<Counting>, is_on: bool) -> SourceCheck {
        let authorizer = Arc::clone(authorizer) as Arc<dyn Authorizer>;
        SourceCheck::new(Arc::new(AllowAnonymous), authorizer, is_on)
    }

    fn source() -> Arc<SourceBuf> {
        Arc::new(SourceBuf::new(&Source {
            user_name: Some("anna"),
            is_listed: false,
            has_grants: false,
            client_id: "c",
            listener: "tls",
            ip: Some([10, 0, 0, 1].into()),
        }))
    }

    fn message(topic: &str, source: Option<&Arc<SourceBuf>>) -> Message {
        let publication = Publication {
            topic: TopicName::parse(topic).unwrap(),
            payload: b"x",
            qos: QoS::AtLeastOnce,
            retain: true,
            properties: Properties::EMPTY,
            expires_at: None,
            publisher: None,
            source,
        };
        publication.to_message()
    }

    #[test]
    fn it_is_asked_once_in_a_generation() {
        let authorizer = Arc::new(Counting::default());
        let mut check = check(&authorizer, true);
        let source = source();
        let [open, secret] = ["open", "secret"].map(|topic| message(topic, Some(&source)));
        for generation in 0..3 {
            authorizer.generation.store(generation, Relaxed);
            authorizer.asked.store(0, Relaxed);
            for _ in 0..5 {
                assert!(check.allows(&open));
                assert_eq!(check.allows(&secret), generation == 1);
            }
            assert_eq!(authorizer.asked.load(Relaxed), 2);
        }
    }

    #[test]
    fn where_answers_may_not_be_kept_it_is_asked_each_time() {
        let authorizer = Arc::new(Counting {
            has_none: true,
            ..Counting::default()
        });
        let mut check = check(&authorizer, true);
        let secret = message("secret", Some(&source()));
        assert!((0..5).all(|_| !check.allows(&secret)));
        assert_eq!(authorizer.asked.load(Relaxed), 5);
    }

    #[test]
    fn what_is_of_nobody_known_passes_and_everything_where_it_is_off() {
        let authorizer = Arc::new(Counting::default());
        assert!(check(&authorizer, true).allows(&message("secret", None)));
        assert!(check(&authorizer, false).allows(&message("secret", Some(&source()))));
        assert_eq!(authorizer.asked.load(Relaxed), 0);
    }
}
