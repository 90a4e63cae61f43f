//! A table of values and the keys that name them.

use std::ops::{Index, IndexMut};

use slab::Slab;

/// Names a value in a [`Table`], until it is removed; then the key may be given to another value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Key(u32);

impl Key {
    /// The key of this place. A table has far fewer than 2^32 places: each connection needs a descriptor.
    #[inline]
    pub(crate) const fn of_place(place: usize) -> Self {
        Self(place as u32)
    }

    /// The place of the value in its table.
    #[inline]
    pub(crate) const fn place(self) -> usize {
        self.0 as usize
    }

    /// The key with this number. Any number is safe: there may be no value with this key.
    #[inline]
    pub(crate) const fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    /// The key as a number.
    #[inline]
    pub(crate) const fn to_bits(self) -> u32 {
        self.0
    }
}

/// Values by key. Places are reused, so the keys stay small numbers.
pub(crate) struct Table<T>(Slab<T>);

impl<T> Table<T> {
    pub(crate) const fn new() -> Self {
        Self(Slab::new())
    }

    pub(crate) fn insert(&mut self, value: T) -> Key {
        Key::of_place(self.0.insert(value))
    }

    /// # Panics
    /// If there is no value with this key.
    pub(crate) fn remove(&mut self, key: Key) -> T {
        self.0.remove(key.place())
    }

    #[inline]
    pub(crate) fn get(&self, key: Key) -> Option<&T> {
        self.0.get(key.place())
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        self.0.get_mut(key.place())
    }

    pub(crate) fn contains(&self, key: Key) -> bool {
        self.0.contains(key.place())
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The number of places: all keys are below it.
    pub(crate) fn places(&self) -> usize {
        self.0.capacity()
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = Key> {
        self.0.iter().map(|(place, _)| Key::of_place(place))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Key, &T)> {
        self.0.iter().map(|(place, value)| (Key::of_place(place), value))
    }

    pub(crate) fn values(&self) -> impl Iterator<Item = &T> {
        self.0.iter().map(|(_, value)| value)
    }

    pub(crate) fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.0.iter_mut().map(|(_, value)| value)
    }
}

impl<T> Index<Key> for Table<T> {
    type Output = T;

    #[inline]
    fn index(&self, key: Key) -> &T {
        &self.0[key.place()]
    }
}

impl<T> IndexMut<Key> for Table<T> {
    #[inline]
    fn index_mut(&mut self, key: Key) -> &mut T {
        &mut self.0[key.place()]
    }
}

/// At most one key for each number below a limit.
pub(crate) struct Keys {
    /// The key plus one; 0 if there is none. Zeroed memory costs nothing until it is used.
    plus_one: Vec<u32>,
}

impl Keys {
    pub(crate) fn new(limit: usize) -> Self {
        Self { plus_one: vec![0; limit] }
    }

    #[inline]
    pub(crate) fn get(&self, number: usize) -> Option<Key> {
        self.plus_one[number].checked_sub(1).map(Key)
    }

    pub(crate) fn set(&mut self, number: usize, key: Key) {
        self.plus_one[number] = key.0 + 1;
    }

    pub(crate) fn clear(&mut self, number: usize) {
        self.plus_one[number] = 0;
    }
}
