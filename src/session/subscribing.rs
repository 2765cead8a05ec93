//! A SUBSCRIBE that waits for answers about its filters, one after the other: it is kept, so that each answer costs one step and not the whole
//! packet again. Nothing more is read of its connection meanwhile, so there is one at most, and no more of it than a packet may have.

use super::rare::Empty;
use crate::protocol::ids::PacketId;
use crate::protocol::packet::{Subscribe, SubscriptionOptions};
use crate::protocol::property::{PropertiesBuf, PropertyId};
use crate::protocol::topic::TopicFilter;

/// The packet, and what is known of it.
#[derive(Debug)]
pub struct Subscribing {
    packet_id: PacketId,
    identifier: Option<u32>,
    /// All filters, one behind the other.
    texts: String,
    /// Where each ends in `texts`, and its options.
    filters: Vec<(u32, SubscriptionOptions)>,
    /// What is allowed of the first ones.
    pub answers: Vec<bool>,
    /// One of the answers is no because nobody answered.
    pub is_unanswered: bool,
    /// Generations of users and rules that the answers are by.
    pub generations: (u64, Option<u64>),
}

impl Subscribing {
    const NONE: Self = Self {
        packet_id: PacketId::FIRST,
        identifier: None,
        texts: String::new(),
        filters: Vec::new(),
        answers: Vec::new(),
        is_unanswered: false,
        generations: (0, None),
    };

    /// Keeps a packet, of whose first filters it is known whether they are allowed, by these generations of users and rules.
    pub fn new(subscribe: &Subscribe<'_>, answers: &[bool], generations: (u64, Option<u64>)) -> Self {
        let mut texts = String::new();
        let filters = subscribe.filters.iter().map(|(filter, options)| {
            texts.push_str(filter.as_str());
            (texts.len() as u32, *options) // a packet has less than 2^28 bytes
        });
        Self {
            packet_id: subscribe.packet_id,
            identifier: subscribe.properties.u32(PropertyId::SubscriptionIdentifier),
            filters: filters.collect(),
            texts,
            answers: answers.to_vec(),
            is_unanswered: false,
            generations,
        }
    }

    /// Forgets all answers where they are by other users or rules than these.
    pub fn see(&mut self, generations: (u64, Option<u64>)) {
        if self.generations != generations {
            self.generations = generations;
            self.answers.clear();
            self.is_unanswered = false;
        }
    }

    fn filter(&self, at: usize) -> Option<TopicFilter<'_>> {
        let end = self.filters.get(at)?.0 as usize;
        let start = at.checked_sub(1).map_or(0, |before| self.filters[before].0 as usize);
        Some(TopicFilter::kept(&self.texts[start..end]).unwrap_or(TopicFilter::NONE))
    }

    /// The next filter to ask about; `None` when all is known.
    pub fn next(&self) -> Option<TopicFilter<'_>> {
        self.filter(self.answers.len())
    }

    /// The packet, with what it needs of its properties.
    pub fn packet<'a>(&'a self, properties: &'a mut PropertiesBuf) -> Subscribe<'a> {
        if let Some(identifier) = self.identifier {
            properties.push_u32(PropertyId::SubscriptionIdentifier, identifier);
        }
        let filters = self.filters.iter().enumerate();
        Subscribe {
            packet_id: self.packet_id,
            properties: properties.view(),
            filters: filters
                .filter_map(|(at, (_, options))| Some((self.filter(at)?, *options)))
                .collect(),
        }
    }
}

impl Default for Subscribing {
    fn default() -> Self {
        Self::NONE
    }
}

impl Empty for Subscribing {
    fn empty() -> &'static Self {
        const { &Self::NONE }
    }
}
