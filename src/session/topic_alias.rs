//! Topic aliases (MQTT 5 section 3.3.2.3.4): numbers that stand for topic names, each direction with a table of its own.

use std::sync::Arc;

use hashbrown::HashMap;

use super::rare::Rare;
use crate::protocol::topic::TopicName;

type TopicMap<V> = HashMap<Arc<str>, V, foldhash::fast::RandomState>;

/// The aliases that a client has set towards us. Bounded by the topic alias maximum that we announced.
#[derive(Debug, Default)]
pub struct InboundAliases {
    topics: Rare<Vec<Option<Arc<str>>>>,
    maximum: u16,
}

/// The client used an alias that is zero, above the maximum [MQTT-3.3.2-9], or not set [MQTT-3.3.4-6].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadAlias;

impl InboundAliases {
    /// An empty table for aliases up to `maximum`; allocates when the first is set.
    pub fn new(maximum: u16) -> Self {
        Self {
            topics: Rare::default(),
            maximum,
        }
    }

    /// The client sent a topic name with an alias: from now on the alias stands for it.
    pub fn set(&mut self, alias: u16, topic: TopicName<'_>) -> Result<(), BadAlias> {
        let at = self.index(alias)?;
        let topics = &mut *self.topics;
        if topics.len() <= at {
            topics.resize(at + 1, None);
        }
        let known = &mut topics[at];
        if known.as_deref() != Some(topic.as_str()) {
            *known = Some(topic.as_str().into());
        }
        Ok(())
    }

    /// The topic name that an alias stands for.
    pub fn resolve(&self, alias: u16) -> Result<Arc<str>, BadAlias> {
        self.topics.get(self.index(alias)?).cloned().flatten().ok_or(BadAlias)
    }

    const fn index(&self, alias: u16) -> Result<usize, BadAlias> {
        if alias == 0 || alias > self.maximum {
            Err(BadAlias)
        } else {
            Ok(alias as usize - 1)
        }
    }
}

/// How an outgoing PUBLISH names its topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Naming {
    /// By name.
    Name,
    /// By name, and the alias stands for it from now on.
    NameAndAlias(u16),
    /// By alias alone.
    Alias(u16),
}

/// The aliases that we use towards a client: at most as many as it allows, given to the topics that are sent most.
///
/// While there are free aliases a topic gets one at once. After that a newcomer takes the alias of the least used topic once it
/// has been sent more often: every topic without an alias is counted in a small sketch, and all counts are halved now and then,
/// so that yesterday's topics do not hold their aliases for ever.
#[derive(Debug, Default)]
pub struct OutboundAliases {
    maximum: u16,
    table: Option<Box<AliasTable>>,
}

#[derive(Debug, Default)]
struct AliasTable {
    known: TopicMap<Alias>,
    newcomers: Vec<u8>,
    sent: u32,
}

#[derive(Debug)]
struct Alias {
    number: u16,
    uses: u32,
}

/// Aliases per connection at most, whatever the client allows: each costs a topic name and about 64 bytes.
pub const OUTBOUND_ALIASES_MAX: u16 = 64;
const SKETCH: usize = 256;
const HALVE_EVERY: u32 = 4096;

impl OutboundAliases {
    /// No alias yet, and at most `maximum` later; allocates when the first is used.
    pub fn new(maximum: u16) -> Self {
        Self {
            maximum: maximum.min(OUTBOUND_ALIASES_MAX),
            ..Self::default()
        }
    }

    /// True when the client allows none.
    #[inline]
    pub const fn is_off(&self) -> bool {
        self.maximum == 0
    }

    /// How to name `topic` in the PUBLISH that is sent next. What it says must be sent: the client learns it from that packet.
    pub fn name(&mut self, topic: TopicName<'_>) -> Naming {
        if self.maximum == 0 {
            return Naming::Name;
        }
        self.table.get_or_insert_default().name(topic, self.maximum)
    }
}

impl AliasTable {
    fn name(&mut self, topic: TopicName<'_>, maximum: u16) -> Naming {
        self.sent += 1;
        if self.sent.is_multiple_of(HALVE_EVERY) {
            self.known.values_mut().for_each(|alias| alias.uses /= 2);
            self.newcomers.iter_mut().for_each(|count| *count /= 2);
        }
        if let Some(alias) = self.known.get_mut(topic.as_str()) {
            alias.uses += 1;
            return Naming::Alias(alias.number);
        }
        if self.known.len() < usize::from(maximum) {
            return self.assign(topic, self.known.len() as u16 + 1, 1);
        }
        self.newcomers.resize(SKETCH, 0);
        let bucket = std::hash::BuildHasher::hash_one(self.known.hasher(), topic.as_str()) as usize % SKETCH;
        self.newcomers[bucket] = self.newcomers[bucket].saturating_add(1);
        let uses = u32::from(self.newcomers[bucket]);
        let Some((least, number)) = self
            .known
            .iter()
            .min_by_key(|(_, alias)| alias.uses)
            .filter(|(_, alias)| alias.uses < uses)
            .map(|(t, a)| (t.clone(), a.number))
        else {
            return Naming::Name;
        };
        self.newcomers[bucket] = 0;
        self.known.remove(&*least);
        self.assign(topic, number, uses)
    }

    fn assign(&mut self, topic: TopicName<'_>, number: u16, uses: u32) -> Naming {
        self.known.insert(topic.as_str().into(), Alias { number, uses });
        Naming::NameAndAlias(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topic(text: &str) -> TopicName<'_> {
        TopicName::parse(text).unwrap()
    }

    #[test]
    fn an_alias_stands_for_the_topic_it_was_sent_with_last() {
        let mut aliases = InboundAliases::new(2);
        assert_eq!(aliases.resolve(1), Err(BadAlias), "not set");
        assert_eq!(aliases.set(1, topic("a")), Ok(()));
        assert_eq!(aliases.set(1, topic("b")), Ok(()));
        assert_eq!(aliases.resolve(1).as_deref(), Ok("b"));
        assert_eq!(aliases.set(3, topic("a")), Err(BadAlias), "above the maximum");
        assert_eq!(aliases.set(0, topic("a")), Err(BadAlias));
    }

    #[test]
    fn a_busy_newcomer_takes_the_alias_of_the_least_used_topic() {
        let mut aliases = OutboundAliases::new(2);
        assert_eq!(aliases.name(topic("a")), Naming::NameAndAlias(1));
        assert_eq!(aliases.name(topic("b")), Naming::NameAndAlias(2));
        for _ in 0..5 {
            assert_eq!(aliases.name(topic("a")), Naming::Alias(1));
        }
        assert_eq!(aliases.name(topic("c")), Naming::Name, "used as often as b: b stays");
        assert_eq!(
            aliases.name(topic("c")),
            Naming::NameAndAlias(2),
            "used more often than b"
        );
        assert_eq!(aliases.name(topic("c")), Naming::Alias(2));
        assert_eq!(aliases.name(topic("a")), Naming::Alias(1));
        assert_eq!(aliases.name(topic("b")), Naming::Name);
    }

    #[test]
    fn a_client_that_allows_none_gets_none() {
        assert_eq!(OutboundAliases::new(0).name(topic("a")), Naming::Name);
    }
}
