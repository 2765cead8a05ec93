//! How much is retained below each mount point that has a bound.

use super::retained::{RetainedError, RetainedLimits};

/// The mount points in their order; none begins with another.
#[derive(Debug, Default)]
pub(super) struct Shares(Vec<Share>);

/// What is below one of them.
#[derive(Debug)]
struct Share {
    mount: Box<str>,
    limits: RetainedLimits,
    messages: usize,
    bytes: usize,
}

impl Shares {
    /// With nothing below any of them.
    pub(super) fn new(limits: Vec<(Box<str>, RetainedLimits)>) -> Self {
        let share = |(mount, limits)| Share {
            mount,
            limits,
            messages: 0,
            bytes: 0,
        };
        let mut all: Vec<_> = limits.into_iter().map(share).collect();
        all.sort_unstable_by(|one, other| one.mount.cmp(&other.mount));
        Self(all)
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether these are the bounds, in any order.
    pub(super) fn are(&self, limits: &[(Box<str>, RetainedLimits)]) -> bool {
        let is_there = |(mount, limits): &(Box<str>, RetainedLimits)| {
            let mut known = self.0.iter();
            known.any(|share| share.mount == *mount && share.limits == *limits)
        };
        self.0.len() == limits.len() && limits.iter().all(is_there)
    }

    /// The one that a topic is below. What its clients say with `$` has that before the mount point.
    fn of(&mut self, topic: &str) -> Option<&mut Share> {
        let topic = topic.strip_prefix('$').unwrap_or(topic);
        // What lies between a mount point and a topic below it is below it, too, so it is the last before the topic.
        let behind = self.0.partition_point(|share| *share.mount <= *topic);
        let share = self.0.get_mut(behind.checked_sub(1)?)?;
        topic.starts_with(&*share.mount).then_some(share)
    }

    /// Counts a message in the place of one of so many bytes; refused, and not counted, where that is too much.
    pub(super) fn replace(&mut self, topic: &str, old: Option<usize>, new: usize) -> Result<(), RetainedError> {
        let Some(share) = self.of(topic) else { return Ok(()) };
        let (messages_max, bytes_max) = (share.limits.messages_max, share.limits.bytes_max);
        if old.is_none() && share.messages >= messages_max {
            return Err(RetainedError::TenantMessages { messages_max });
        }
        let bytes = share.bytes - old.unwrap_or(0) + new;
        if bytes > bytes_max && old.is_none_or(|old| new > old) {
            let bytes = share.bytes;
            return Err(RetainedError::TenantBytes { bytes, bytes_max });
        }
        share.messages += usize::from(old.is_none());
        share.bytes = bytes;
        Ok(())
    }

    /// Counts a message that is there, however much that is.
    pub(super) fn add(&mut self, topic: &str, bytes: usize) {
        if let Some(share) = self.of(topic) {
            share.messages += 1;
            share.bytes += bytes;
        }
    }

    /// A message of so many bytes is there no more.
    pub(super) fn remove(&mut self, topic: &str, bytes: usize) {
        if let Some(share) = self.of(topic) {
            share.messages -= 1;
            share.bytes -= bytes;
        }
    }
}
