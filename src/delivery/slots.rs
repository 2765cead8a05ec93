//! A table whose keys are never used twice.

use crate::protocol::ids::SlotKey;

/// Values by [`SlotKey`]: places carry a generation, so that a key which outlives its value finds nothing.
///
/// One piece of memory, which is copied when it has to grow. In pieces that stay where they are a crowd would come in more smoothly, and every message
/// would pay for it: it is here some eight times, see `tests/bench/NOTES.md`.
#[derive(Debug)]
pub struct Slots<T> {
    places: Vec<Place<T>>,
    /// Places without a value, the one to be used next at the end.
    free: Vec<u32>,
    next_generation: u32,
}

#[derive(Debug)]
struct Place<T> {
    generation: u32,
    value: Option<T>,
}

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Self {
            places: Vec::new(),
            free: Vec::new(),
            next_generation: 0,
        }
    }
}

impl<T> Slots<T> {
    /// Adds a value.
    pub fn insert(&mut self, value: T) -> SlotKey {
        self.next_generation = self.next_generation.wrapping_add(1);
        let generation = self.next_generation;
        let place = Place {
            generation,
            value: Some(value),
        };
        let slot = match self.free.pop() {
            Some(slot) => {
                self.places[slot as usize] = place;
                slot
            }
            None => {
                self.places.push(place);
                self.places.len() as u32 - 1
            }
        };
        SlotKey { slot, generation }
    }

    /// The value of a key.
    #[inline]
    pub fn get(&self, key: SlotKey) -> Option<&T> {
        let place = self.places.get(key.slot as usize)?;
        place.value.as_ref().filter(|_| place.generation == key.generation)
    }

    /// The value of a key, to change.
    #[inline]
    pub fn get_mut(&mut self, key: SlotKey) -> Option<&mut T> {
        let place = self.places.get_mut(key.slot as usize)?;
        place.value.as_mut().filter(|_| place.generation == key.generation)
    }

    /// Takes a value out.
    pub fn remove(&mut self, key: SlotKey) -> Option<T> {
        let place = self.places.get_mut(key.slot as usize)?;
        let value = place.value.take_if(|_| place.generation == key.generation)?;
        self.free.push(key.slot);
        Some(value)
    }

    /// The value at a place, with its key; places count from 0 to below [`Slots::places`].
    pub fn at(&self, slot: usize) -> Option<(SlotKey, &T)> {
        let place = self.places.get(slot)?;
        let key = SlotKey {
            slot: slot as u32,
            generation: place.generation,
        };
        Some((key, place.value.as_ref()?))
    }

    /// Places there are, taken or not.
    pub const fn places(&self) -> usize {
        self.places.len()
    }

    /// How many there are.
    pub const fn len(&self) -> usize {
        self.places() - self.free.len()
    }

    /// True when there are none.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Every key with its value, to change.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (SlotKey, &mut T)> {
        let places = self.places.iter_mut().enumerate();
        places.filter_map(|(slot, place)| {
            let key = SlotKey {
                slot: slot as u32,
                generation: place.generation,
            };
            Some((key, place.value.as_mut()?))
        })
    }

    /// Every key with its value.
    pub fn iter(&self) -> impl Iterator<Item = (SlotKey, &T)> {
        (0..self.places()).filter_map(|slot| self.at(slot))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::residents::Resident;
    use crate::session::connection::Connection;

    /// What an idle client costs here; beside it stand its task (`transport/driver.rs`) and what the runtime keeps of its socket. What most clients
    /// never have belongs into a [`Rare`](crate::session::rare::Rare).
    #[test]
    fn places_of_idle_clients_are_small() {
        let (connection, session) = (size_of::<Place<Connection>>(), size_of::<Place<Resident>>());
        assert!(connection <= 392, "{connection} bytes for a connection");
        assert!(session <= 224, "{session} bytes for a session");
    }

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

    #[test]
    fn a_crowd_is_found_again_and_counted_while_some_leave() {
        let mut slots = Slots::default();
        let mut keys: Vec<_> = (0..1000).map(|value| (slots.insert(value), value)).collect();
        assert_eq!((slots.len(), slots.places()), (1000, 1000));
        let left: Vec<_> = keys.extract_if(.., |(_, value)| *value % 3 == 0).collect();
        assert!(left.iter().all(|(key, value)| slots.remove(*key) == Some(*value)));
        let late = slots.insert(5000);
        keys.push((late, 5000));
        assert_eq!((slots.len(), slots.places()), (keys.len(), 1000));
        assert!(keys.iter().all(|(key, value)| slots.get(*key) == Some(value)));
        keys.sort_by_key(|(key, _)| key.slot);
        assert!(slots.iter().map(|(key, value)| (key, *value)).eq(keys));
        for (_, value) in slots.iter_mut() {
            *value += 1;
        }
        assert_eq!(slots.get(late), Some(&5001));
        assert!((0..slots.places()).all(|at| slots.at(at).is_none_or(|(key, _)| key.slot == at as u32)));
    }
}
