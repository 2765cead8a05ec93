//! Who published what: each once, for as long as a message names him.

use std::hash::BuildHasher;
use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::HashTable;

use crate::protocol::source::{Source, SourceBuf};

/// Below so many it is not looked which of them are needed no more.
const FEW: usize = 1024;

/// Sources that messages share.
#[derive(Debug, Default)]
pub(super) struct Sources {
    known: HashTable<Arc<SourceBuf>>,
    hasher: RandomState,
    /// When there are so many, those that nobody has any more are forgotten.
    sweep_at: usize,
}

impl Sources {
    /// The one that all share.
    pub(super) fn shared(&mut self, source: &Source<'_>) -> Arc<SourceBuf> {
        let Self { known, hasher, .. } = self;
        let hash = hasher.hash_one(source);
        if let Some(found) = known.find(hash, |known| known.view() == *source) {
            return Arc::clone(found);
        }
        if known.len() >= self.sweep_at.max(FEW) {
            known.retain(|source| Arc::strong_count(source) > 1);
            self.sweep_at = 2 * known.len();
        }
        let made = Arc::new(SourceBuf::new(source));
        known.insert_unique(hash, Arc::clone(&made), |source| hasher.hash_one(source.view()));
        made
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(client_id: &str) -> Source<'_> {
        Source {
            user_name: None,
            is_listed: false,
            has_grants: false,
            client_id,
            listener: "tcp",
            ip: None,
        }
    }

    #[test]
    fn the_same_source_is_there_once_and_those_that_nobody_has_are_forgotten() {
        let mut sources = Sources::default();
        let kept = sources.shared(&source("kept"));
        for number in 0..10_000 {
            let name = number.to_string();
            let passing = sources.shared(&source(&name));
            assert_eq!(passing.view().client_id, name);
            assert!(sources.known.len() <= FEW + 1);
        }
        assert!(Arc::ptr_eq(&kept, &sources.shared(&source("kept"))));
        assert_eq!(Arc::strong_count(&kept), 2);
    }
}
