//! A table whose keys are never used twice.

use slab::Slab;

use crate::protocol::ids::SlotKey;

/// Values by [`SlotKey`]: a slab whose places carry a generation, so that a key which outlives its value finds nothing.
#[derive(Debug)]
pub struct Slots<T> {
    places: Slab<(u32, T)>,
    next_generation: u32,
}

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Self {
            places: Slab::new(),
            next_generation: 0,
        }
    }
}

impl<T> Slots<T> {
    /// Adds a value.
    pub fn insert(&mut self, value: T) -> SlotKey {
        self.next_generation = self.next_generation.wrapping_add(1);
        let generation = self.next_generation;
        let slot = self.places.insert((generation, value));
        SlotKey {
            slot: slot as u32,
            generation,
        }
    }

    /// The value of a key.
    #[inline]
    pub fn get(&self, key: SlotKey) -> Option<&T> {
        self.places
            .get(key.slot as usize)
            .filter(|(generation, _)| *generation == key.generation)
            .map(|(_, value)| value)
    }

    /// The value of a key, to change.
    #[inline]
    pub fn get_mut(&mut self, key: SlotKey) -> Option<&mut T> {
        self.places
            .get_mut(key.slot as usize)
            .filter(|(generation, _)| *generation == key.generation)
            .map(|(_, value)| value)
    }

    /// Takes a value out.
    pub fn remove(&mut self, key: SlotKey) -> Option<T> {
        self.get(key)?;
        self.places.try_remove(key.slot as usize).map(|(_, value)| value)
    }

    /// The value at a place, with its key; places count from 0 to below [`Slots::places`].
    pub fn at(&self, place: usize) -> Option<(SlotKey, &T)> {
        let (generation, value) = self.places.get(place)?;
        let key = SlotKey {
            slot: place as u32,
            generation: *generation,
        };
        Some((key, value))
    }

    /// Places there are, taken or not.
    pub fn places(&self) -> usize {
        self.places.capacity()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// True when there are none.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Every key with its value, to change.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (SlotKey, &mut T)> {
        self.places.iter_mut().map(|(slot, (generation, value))| {
            let key = SlotKey {
                slot: slot as u32,
                generation: *generation,
            };
            (key, value)
        })
    }

    /// Every key with its value.
    pub fn iter(&self) -> impl Iterator<Item = (SlotKey, &T)> {
        self.places.iter().map(|(slot, (generation, value))| {
            (
                SlotKey {
                    slot: slot as u32,
                    generation: *generation,
                },
                value,
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_outlives_its_value_finds_nothing() {
        let mut slots = Slots::default();
        let old = slots.insert("old");
        assert_eq!(slots.remove(old), Some("old"));
        let new = slots.insert("new");
        assert_eq!(new.slot, old.slot, "the place is used again");
        assert_eq!(slots.get(old), None);
        assert_eq!(slots.remove(old), None);
        assert_eq!(slots.get(new), Some(&"new"));
    }
}
