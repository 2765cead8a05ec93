//! The subscription trie: who wants this topic.

use std::collections::BTreeMap;
use std::hash::BuildHasher;
use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use smallvec::{SmallVec, smallvec};

use super::generation::Generations;
use super::matched::{Gathered, Matched, Overlap, Receiver};
use super::shared::{Group, GroupName, Strategies};
use super::subscribers::{Subscriber, Subscribers};
use crate::protocol::ids::SessionKey;
use crate::protocol::topic::{TopicFilter, TopicName, levels};

/// All subscriptions of the broker, by filter.
///
/// A trie with one node for each level of each filter. The way from a node to a child is in one hash table for the whole trie, so
/// that a node owns no table and a match costs one look-up a level and branch, whatever the number of subscriptions. Memory:
/// under 200 bytes a subscription that shares its upper levels with others. No method recurses: a topic may have 32,768 levels.
#[derive(Debug)]
pub struct Subscriptions {
    /// Node 0 is the root; places of removed nodes are in `free`.
    nodes: Vec<Node>,
    free: Vec<u32>,
    /// From (parent, level) to the child.
    edges: HashTable<Edge>,
    hasher: RandomState,
    generations: Arc<Generations>,
    overlap: Overlap,
    strategies: Strategies,
    len: usize,
    shared_len: usize,
}

/// What became of a subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subscribed {
    /// It did not exist before.
    New,
    /// It replaced the one that the session had to the same filter [MQTT-3.8.4-3].
    Replaced,
}

impl Default for Subscriptions {
    fn default() -> Self {
        Self::new(Overlap::default(), Strategies::default())
    }
}

impl Subscriptions {
    /// No subscriptions.
    pub fn new(overlap: Overlap, strategies: Strategies) -> Self {
        Self {
            nodes: vec![Node::default()],
            free: Vec::new(),
            edges: HashTable::new(),
            hasher: RandomState::default(),
            generations: Arc::default(),
            overlap,
            strategies,
            len: 0,
            shared_len: 0,
        }
    }

    /// The counters that tell the caches of all workers that something has changed.
    pub fn generations(&self) -> &Arc<Generations> {
        &self.generations
    }

    /// Number of subscriptions, shared ones not counted.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Number of shared subscriptions: members of all groups.
    pub fn shared_len(&self) -> usize {
        self.shared_len
    }

    /// True when there are no subscriptions of any kind.
    pub fn is_empty(&self) -> bool {
        self.len == 0 && self.shared_len == 0
    }

    /// Adds a subscription, or replaces the session's subscription to the same filter.
    pub fn subscribe(&mut self, filter: TopicFilter<'_>, subscriber: Subscriber) -> Subscribed {
        let at = self.make_path(filter.filter());
        let node = &mut self.nodes[at as usize];
        let (is_replaced, count) = match filter.group() {
            None => (node.subscribers.insert(subscriber), &mut self.len),
            Some(name) => {
                let groups = &mut node.groups.get_or_insert_default().0;
                let group = groups.entry(name.into()).or_insert_with(|| {
                    let strategy = self.strategies.of(name);
                    Group::new(
                        GroupName {
                            group: name.into(),
                            filter: filter.filter().into(),
                        },
                        strategy,
                    )
                });
                (group.insert(subscriber), &mut self.shared_len)
            }
        };
        self.generations.bump(filter.filter());
        if is_replaced {
            return Subscribed::Replaced;
        }
        *count += 1;
        Subscribed::New
    }

    /// Removes a session's subscription to a filter; false when there was none.
    pub fn unsubscribe(&mut self, filter: TopicFilter<'_>, session: SessionKey) -> bool {
        let Some(at) = self.find_path(filter.filter()) else {
            return false;
        };
        let node = &mut self.nodes[at as usize];
        let is_removed = match filter.group() {
            None => node.subscribers.remove(session).is_some(),
            Some(name) => node.remove_member(name, session),
        };
        if !is_removed {
            return false;
        }
        match filter.group() {
            None => self.len -= 1,
            Some(_) => self.shared_len -= 1,
        }
        self.prune(at);
        self.generations.bump(filter.filter());
        true
    }

    /// Who receives a topic's messages.
    pub fn matches(&self, topic: TopicName<'_>) -> Matched {
        let mut gathered = Gathered::default();
        self.visit(topic.as_str(), |node| {
            gathered.subscribers.extend(node.subscribers.as_slice());
            if let Some(Groups(groups)) = node.groups.as_deref() {
                gathered
                    .groups
                    .extend(groups.values().map(|group| group.picture().clone()));
            }
        });
        gathered.into_matched(self.overlap)
    }

    /// How a session receives what it published itself: by its subscriptions without No Local alone [MQTT-3.8.3-3]. Asked only
    /// where a receiver says `NoLocal::Mixed`.
    pub fn matches_own(&self, topic: TopicName<'_>, session: SessionKey) -> Option<Receiver> {
        let mut own: Option<Receiver> = None;
        self.visit(topic.as_str(), |node| match node.subscribers.find(session) {
            Some(subscriber) if !subscriber.options.no_local => match &mut own {
                Some(receiver) => receiver.merge(subscriber),
                None => own = Some(Receiver::new(subscriber)),
            },
            _ => {}
        });
        own
    }

    /// Changes the strategies, those of existing groups too.
    pub fn set_strategies(&mut self, strategies: Strategies) {
        self.strategies = strategies;
        let groups = self.nodes.iter_mut().filter_map(|node| node.groups.as_deref_mut());
        for (name, group) in groups.flat_map(|groups| &mut groups.0) {
            group.set_strategy(self.strategies.of(name));
        }
        self.generations.bump_all();
    }

    /// Calls `found` for the node of every filter that matches a topic: level by level, all branches side by side.
    fn visit<'a>(&'a self, topic: &str, mut found: impl FnMut(&'a Node)) {
        let mut front: SmallVec<[u32; 16]> = smallvec![ROOT];
        let mut next: SmallVec<[u32; 16]> = SmallVec::new();
        // The first level of a filter for `$…` is no wildcard [MQTT-4.7.2-1].
        let mut wildcards_count = !topic.starts_with('$');
        for level in levels(topic) {
            let level_hash = self.hash(level.as_bytes());
            for &at in &front {
                let node = &self.nodes[at as usize];
                if wildcards_count {
                    found_if(&self.nodes, node.multi, &mut found);
                    if node.plus != NONE {
                        next.push(node.plus);
                    }
                }
                if node.exact > 0
                    && let Some(child) = self.child(at, level_hash, level)
                {
                    next.push(child);
                }
            }
            wildcards_count = true;
            std::mem::swap(&mut front, &mut next);
            next.clear();
            if front.is_empty() {
                return;
            }
        }
        for &at in &front {
            let node = &self.nodes[at as usize];
            found(node);
            found_if(&self.nodes, node.multi, &mut found); // `a/#` matches `a` too
        }
    }

    fn hash(&self, level: &[u8]) -> u64 {
        self.hasher.hash_one(level)
    }

    fn child(&self, parent: u32, level_hash: u64, level: &str) -> Option<u32> {
        let hash = edge_hash(parent, level_hash);
        let is_it = |edge: &Edge| {
            let child = &self.nodes[edge.child as usize];
            edge.hash == hash && child.parent == parent && &child.level[..] == level.as_bytes()
        };
        self.edges.find(spread(hash), is_it).map(|edge| edge.child)
    }

    fn find_path(&self, filter: &str) -> Option<u32> {
        let mut at = ROOT;
        for level in levels(filter) {
            at = match level {
                "+" => self.nodes[at as usize].plus,
                "#" => self.nodes[at as usize].multi,
                _ => self.child(at, self.hash(level.as_bytes()), level)?,
            };
            if at == NONE {
                return None;
            }
        }
        Some(at)
    }

    fn make_path(&mut self, filter: &str) -> u32 {
        let mut at = ROOT;
        for level in levels(filter) {
            at = match level {
                "+" if self.nodes[at as usize].plus != NONE => self.nodes[at as usize].plus,
                "#" if self.nodes[at as usize].multi != NONE => self.nodes[at as usize].multi,
                "+" => {
                    let child = self.add(at, "");
                    self.nodes[at as usize].plus = child;
                    child
                }
                "#" => {
                    let child = self.add(at, "");
                    self.nodes[at as usize].multi = child;
                    child
                }
                _ => self.make_child(at, level),
            };
        }
        at
    }

    fn make_child(&mut self, parent: u32, level: &str) -> u32 {
        let level_hash = self.hash(level.as_bytes());
        if let Some(child) = self.child(parent, level_hash, level) {
            return child;
        }
        let child = self.add(parent, level);
        let hash = edge_hash(parent, level_hash);
        self.edges
            .insert_unique(spread(hash), Edge { hash, child }, |edge| spread(edge.hash));
        self.nodes[parent as usize].exact += 1;
        child
    }

    fn add(&mut self, parent: u32, level: &str) -> u32 {
        let node = Node {
            parent,
            level: SmallVec::from_slice(level.as_bytes()),
            ..Node::default()
        };
        match self.free.pop() {
            Some(at) => {
                self.nodes[at as usize] = node;
                at
            }
            None => {
                self.nodes.push(node);
                (self.nodes.len() - 1) as u32
            }
        }
    }

    /// Removes a node that carries nothing any more, and those above it that were there for its sake.
    fn prune(&mut self, mut at: u32) {
        while at != ROOT && self.nodes[at as usize].is_bare() {
            let node = std::mem::take(&mut self.nodes[at as usize]);
            let parent = &mut self.nodes[node.parent as usize];
            if parent.plus == at {
                parent.plus = NONE;
            } else if parent.multi == at {
                parent.multi = NONE;
            } else {
                parent.exact -= 1;
                let hash = edge_hash(node.parent, self.hash(&node.level));
                if let Ok(edge) = self.edges.find_entry(spread(hash), |edge| edge.child == at) {
                    edge.remove();
                }
            }
            self.free.push(at);
            at = node.parent;
        }
    }
}

/// One level of a filter, and what is subscribed to exactly up to here.
#[derive(Debug, Default)]
struct Node {
    subscribers: Subscribers,
    groups: Option<Box<Groups>>,
    /// Its own level; empty for wildcards. Short ones are here in place: they cost neither an allocation nor a cache miss.
    level: SmallVec<[u8; 16]>,
    parent: u32,
    /// The child `+`, or [`NONE`].
    plus: u32,
    /// The child `#`, or [`NONE`].
    multi: u32,
    /// Number of children that are not wildcards; they are in the edge table.
    exact: u32,
}

/// Shared groups by name.
#[derive(Debug, Default)]
struct Groups(BTreeMap<Box<str>, Group>);

impl Node {
    fn is_bare(&self) -> bool {
        self.subscribers.is_empty()
            && self.groups.is_none()
            && self.exact == 0
            && self.plus == NONE
            && self.multi == NONE
    }

    fn remove_member(&mut self, name: &str, session: SessionKey) -> bool {
        let Some(Groups(groups)) = self.groups.as_deref_mut() else {
            return false;
        };
        let Some(group) = groups.get_mut(name) else {
            return false;
        };
        let is_removed = group.remove(session);
        if group.is_empty() {
            groups.remove(name);
        }
        if groups.is_empty() {
            self.groups = None;
        }
        is_removed
    }
}

/// The way from a parent to one child. The hash spares the look at nodes that are not meant, and at all nodes when the table
/// grows.
#[derive(Debug)]
struct Edge {
    hash: u32,
    child: u32,
}

fn edge_hash(parent: u32, level_hash: u64) -> u32 {
    let mixed = (level_hash ^ u64::from(parent).wrapping_mul(MIX)).wrapping_mul(MIX);
    (mixed >> 32) as u32
}

/// The table wants good bits at both ends.
fn spread(hash: u32) -> u64 {
    u64::from(hash).wrapping_mul(MIX)
}

fn found_if<'a>(nodes: &'a [Node], at: u32, found: &mut impl FnMut(&'a Node)) {
    if at != NONE {
        found(&nodes[at as usize]);
    }
}

const ROOT: u32 = 0;
/// No node: the root is nobody's child.
const NONE: u32 = 0;
/// 2^64 divided by the golden ratio: spreads neighbouring numbers.
const MIX: u64 = 0x9E37_79B9_7F4A_7C15;

#[cfg(test)]
pub(super) mod tests;
