//! A walk through the retained store that can pause at any topic.

use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};

use crate::protocol::topic::{TopicFilter, TopicName};

/// A walk through the retained messages that a filter matches, see [`super::Retained::advance`]. Owns a copy of the filter and the
/// topic it has come to; borrows nothing, so it may pause for as long as the client is slow.
#[derive(Clone, Debug)]
pub struct Walk {
    /// The [`sort_key`] of the filter.
    filter: Box<[u8]>,
    /// Set when the filter has no wildcard: it is the only topic.
    topic: Option<Box<str>>,
    /// Where to go on: the first key that has not been visited is here or behind.
    from: Box<[u8]>,
    is_finished: bool,
}

impl Walk {
    /// A walk that starts at the first topic.
    pub fn new(filter: TopicFilter<'_>) -> Self {
        let key = sort_key(filter.filter());
        let literal_bytes = memchr::memchr2(b'+', b'#', &key).unwrap_or(key.len());
        Self {
            // `a/#` finds `a` too, which stands before all that begins with `a/`.
            from: key[..literal_bytes.saturating_sub(1)].into(),
            filter: key,
            topic: (!filter.has_wildcard()).then(|| filter.filter().into()),
            is_finished: false,
        }
    }

    /// True when all messages have been visited.
    pub fn is_finished(&self) -> bool {
        self.is_finished
    }

    pub(super) fn finish(&mut self) {
        self.is_finished = true;
    }

    /// The topic, where there can be only one and it has not been visited.
    pub(super) fn only_topic(&self) -> Option<TopicName<'_>> {
        // A filter without wildcards is a topic name.
        self.topic
            .as_deref()
            .filter(|_| !self.is_finished)
            .map(TopicName::from_parsed)
    }

    /// Visits the values of matching keys, see [`super::Retained::advance`].
    pub(super) fn advance(
        &mut self,
        in_order: &BTreeMap<Box<[u8]>, u32>,
        steps_max: usize,
        mut visit: impl FnMut(u32) -> ControlFlow<()>,
    ) {
        let mut steps = 0;
        let mut target = Vec::new();
        'seek: while !self.is_finished {
            let mut keys = in_order.range::<[u8], _>((Bound::Included(&*self.from), Bound::Unbounded));
            let mut tries = 0;
            target.clear();
            loop {
                let Some((key, slot)) = keys.next() else {
                    self.is_finished = true;
                    return;
                };
                if steps == steps_max {
                    self.from = key.clone();
                    return;
                }
                steps += 1;
                if **key < *target {
                    // The next key is often near; looking for it from the top costs as much as some steps.
                    tries += 1;
                    if tries == TRIES_BEFORE_SEEK {
                        self.from = target.as_slice().into();
                        continue 'seek;
                    }
                    continue;
                }
                tries = 0;
                match compare(&self.filter, key, &mut target) {
                    Compared::Matches => {
                        if visit(*slot).is_break() {
                            self.from = key.clone();
                            return;
                        }
                    }
                    Compared::GoOnAtTarget => {}
                    Compared::NothingMore => {
                        self.is_finished = true;
                        return;
                    }
                }
            }
        }
    }
}

/// A topic or filter as bytes whose plain order is the order level by level: everything under `a/b` stands together, before
/// `a/b!`. The separator becomes the null character, which no topic contains [MQTT-4.7.3-2].
pub(super) fn sort_key(text: &str) -> Box<[u8]> {
    let mut key: Box<[u8]> = text.as_bytes().into();
    key.iter_mut()
        .filter(|byte| **byte == b'/')
        .for_each(|byte| *byte = SEPARATOR);
    key
}

enum Compared {
    Matches,
    /// No key before the target matches, except those already looked at.
    GoOnAtTarget,
    NothingMore,
}

/// Compares a key with a filter; where it does not match, writes to `target` where the next match can be at the earliest. The
/// target is greater than the key.
fn compare(filter: &[u8], key: &[u8], target: &mut Vec<u8>) -> Compared {
    if key[0] == b'$' && matches!(filter[0], b'+' | b'#') {
        // [MQTT-4.7.2-1]
        set(target, &[], &[b'$' + 1]);
        return Compared::GoOnAtTarget;
    }
    // End of the level of the key that the last `+` stood for.
    let mut last_plus_end = None;
    let mut filter_levels = filter.split(|byte| *byte == SEPARATOR);
    // Where the level begins in the key; behind the key's end plus one when the key has no more levels.
    let mut start = 0;
    loop {
        let Some(wanted) = filter_levels.next() else {
            if start > key.len() {
                return Compared::Matches;
            }
            // The key goes on: it and all that share its beginning are too deep.
            return after_all_under(&key[..start - 1], last_plus_end.is_some(), target);
        };
        if wanted == b"#" {
            return Compared::Matches; // the parent level too: `a/#` matches `a`
        }
        if start > key.len() {
            // The key ends before the filter: what can match begins with it.
            set(target, key, &[SEPARATOR]);
            target.extend_from_slice(if wanted == b"+" { &[] } else { wanted });
            return Compared::GoOnAtTarget;
        }
        let end = memchr::memchr(SEPARATOR, &key[start..]).map_or(key.len(), |bytes| start + bytes);
        if wanted == b"+" {
            last_plus_end = Some(end);
        } else {
            match key[start..end].cmp(wanted) {
                std::cmp::Ordering::Equal => {}
                std::cmp::Ordering::Less => {
                    set(target, &key[..start], wanted);
                    return Compared::GoOnAtTarget;
                }
                std::cmp::Ordering::Greater => {
                    return match last_plus_end {
                        Some(end) => after_all_under(&key[..end], true, target),
                        None => Compared::NothingMore,
                    };
                }
            }
        }
        start = end + 1;
    }
}

/// The first key that neither is `prefix` nor lies under it.
fn after_all_under(prefix: &[u8], can_go_on: bool, target: &mut Vec<u8>) -> Compared {
    if !can_go_on {
        return Compared::NothingMore;
    }
    set(target, prefix, &[SEPARATOR + 1]);
    Compared::GoOnAtTarget
}

fn set(target: &mut Vec<u8>, first: &[u8], second: &[u8]) {
    target.clear();
    target.extend_from_slice(first);
    target.extend_from_slice(second);
}

const SEPARATOR: u8 = 0;
/// Keys looked at one by one before the walk jumps to where the next match can be.
const TRIES_BEFORE_SEEK: usize = 6;
