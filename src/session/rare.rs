//! What most sessions and connections never have: nothing until it is changed, then a box.

use std::collections::VecDeque;
use std::ops::{Deref, DerefMut};

/// A value that stays empty for most of those who could have it, in the room of a pointer. It is read as an empty one; the first change
/// allocates, so whoever might only find nothing to change asks [`Rare::is_none`] first.
#[derive(Clone, Debug)]
pub struct Rare<T>(Option<Box<T>>);

/// Has an empty value that everybody shares.
pub trait Empty: Default + 'static {
    /// It.
    fn empty() -> &'static Self;
}

impl<T> Rare<T> {
    /// True while it was never changed, so that there is nothing in it.
    #[inline]
    pub const fn is_none(&self) -> bool {
        self.0.is_none()
    }

    /// The value, if there is one.
    #[inline]
    pub fn get_mut(&mut self) -> Option<&mut T> {
        self.0.as_deref_mut()
    }

    /// Takes the value out, if there is one, and leaves it empty.
    pub const fn take(&mut self) -> Option<Box<T>> {
        self.0.take()
    }
}

impl<T> Default for Rare<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T: Empty> Deref for Rare<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        match &self.0 {
            Some(value) => value,
            None => T::empty(),
        }
    }
}

impl<T: Empty> DerefMut for Rare<T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        self.0.get_or_insert_default()
    }
}

impl<T: 'static> Empty for Vec<T> {
    fn empty() -> &'static Self {
        const { &Self::new() }
    }
}

impl<T: 'static> Empty for VecDeque<T> {
    fn empty() -> &'static Self {
        const { &Self::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reading_costs_nothing_and_the_first_change_a_box() {
        let mut numbers: Rare<VecDeque<u8>> = Rare::default();
        assert_eq!(size_of_val(&numbers), size_of::<usize>());
        assert!(numbers.is_empty() && numbers.is_none());
        numbers.push_back(1);
        assert_eq!(numbers.front(), Some(&1));
        assert!(numbers.take().is_some() && numbers.is_empty() && numbers.is_none());
    }
}
