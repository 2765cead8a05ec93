//! The packet identifiers of QoS 2 messages that a client has sent and not yet released.

use super::rare::Empty;
use crate::protocol::ids::PacketId;

const CHUNK_BITS: usize = 1024;
const CHUNK_WORDS: usize = CHUNK_BITS / 64;

/// A set of packet identifiers. Constant time; 128 bytes for each stretch of 1,024 identifiers in use, freed when empty.
#[derive(Clone, Debug, Default)]
pub struct PacketIdSet {
    chunks: Vec<Option<Box<Chunk>>>,
    len: u16,
}

impl Empty for PacketIdSet {
    fn empty() -> &'static Self {
        const {
            &Self {
                chunks: Vec::new(),
                len: 0,
            }
        }
    }
}

#[derive(Clone, Debug)]
struct Chunk {
    words: [u64; CHUNK_WORDS],
    len: u16,
}

impl PacketIdSet {
    /// Adds an identifier; false when it was there.
    pub fn insert(&mut self, id: PacketId) -> bool {
        let (chunk, word, bit) = place(id);
        if self.chunks.len() <= chunk {
            self.chunks.resize_with(chunk + 1, || None);
        }
        let chunk = self.chunks[chunk].get_or_insert_with(|| {
            Box::new(Chunk {
                words: [0; CHUNK_WORDS],
                len: 0,
            })
        });
        let is_new = chunk.words[word] & bit == 0;
        chunk.words[word] |= bit;
        chunk.len += u16::from(is_new);
        self.len += u16::from(is_new);
        is_new
    }

    /// Every identifier, ascending.
    pub fn iter(&self) -> impl Iterator<Item = PacketId> {
        let chunks = self.chunks.iter().enumerate();
        chunks.flat_map(|(at, chunk)| {
            let words = chunk.iter().flat_map(|chunk| chunk.words.iter().enumerate());
            words.flat_map(move |(word, bits)| {
                let first = at * CHUNK_BITS + word * 64;
                let set = (0..64).filter(move |bit| bits >> bit & 1 != 0);
                set.filter_map(move |bit| PacketId::new((first + bit) as u16))
            })
        })
    }

    /// Takes an identifier out; false when it was not there.
    pub fn remove(&mut self, id: PacketId) -> bool {
        let (at, word, bit) = place(id);
        let Some(Some(chunk)) = self.chunks.get_mut(at) else {
            return false;
        };
        if chunk.words[word] & bit == 0 {
            return false;
        }
        chunk.words[word] &= !bit;
        chunk.len -= 1;
        self.len -= 1;
        // A client that counts upwards would leave a trail of empty chunks; one chunk stays, so that a steady client allocates none.
        if chunk.len == 0 && self.len > 0 {
            self.chunks[at] = None;
        }
        true
    }

    /// Whether an identifier is in the set.
    pub fn contains(&self, id: PacketId) -> bool {
        let (chunk, word, bit) = place(id);
        matches!(self.chunks.get(chunk), Some(Some(chunk)) if chunk.words[word] & bit != 0)
    }

    /// How many there are.
    pub const fn len(&self) -> u16 {
        self.len
    }

    /// True when there are none.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }
}

const fn place(id: PacketId) -> (usize, usize, u64) {
    let id = id.get() as usize;
    (id / CHUNK_BITS, id % CHUNK_BITS / 64, 1 << (id % 64))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn behaves_as_a_set(script in proptest::collection::vec((any::<bool>(), prop_oneof![1u16..40, 1u16..]), 0..400)) {
            let mut ours = PacketIdSet::default();
            let mut oracle = HashSet::new();
            for (add, id) in script {
                let id = PacketId::new(id).unwrap();
                if add {
                    prop_assert_eq!(ours.insert(id), oracle.insert(id));
                } else {
                    prop_assert_eq!(ours.remove(id), oracle.remove(&id));
                }
                prop_assert_eq!(ours.contains(id), oracle.contains(&id));
                prop_assert_eq!(usize::from(ours.len()), oracle.len());
            }
        }
    }
}
