//! The ordered map that rows and indexes are kept in. A clone shares everything, and a change to one of two that share
//! copies what it touches: a few dozen entries and the list of leaves, not all entries. So a reader may hold the
//! snapshot from before each of thousands of small changes to a huge table, and none of them costs its size.
//!
//! Two levels are all: with leaves of 64 to 128, a map of 10,000 entries has about a hundred of them.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

/// A leaf of so many entries is split when another comes.
const FULL: usize = 128;

/// Entries in order of their keys, each key once.
pub struct Leaves<K, V> {
    /// None is empty, and the keys of each are less than those of the next.
    leaves: Arc<Vec<Leaf<K, V>>>,
    len: usize,
}

type Leaf<K, V> = Arc<Vec<(K, V)>>;

/// Entries in order of their keys.
pub struct Iter<'a, K, V> {
    leaves: std::slice::Iter<'a, Leaf<K, V>>,
    entries: std::slice::Iter<'a, (K, V)>,
}

impl<'a, K, V> Iterator for Iter<'a, K, V> {
    type Item = (&'a K, &'a V);
    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some((key, value)) = self.entries.next() {
                return Some((key, value));
            }
            self.entries = self.leaves.next()?.iter();
        }
    }
}

impl<'a, K, V> IntoIterator for &'a Leaves<K, V> {
    type Item = (&'a K, &'a V);
    type IntoIter = Iter<'a, K, V>;
    fn into_iter(self) -> Self::IntoIter {
        Iter { leaves: self.leaves.iter(), entries: [].iter() }
    }
}

/// A place between the entries of a map.
struct Cursor<'a, K, V> {
    /// This leaf and those after it.
    leaves: &'a [Leaf<K, V>],
    /// Where in the first of them.
    at: usize,
}

impl<'a, K, V> Cursor<'a, K, V> {
    fn at_start(map: &'a Leaves<K, V>) -> Self {
        Cursor { leaves: &map.leaves, at: 0 }
    }

    /// The leaf at whose beginning this is.
    fn whole_leaf(&self) -> Option<&'a Leaf<K, V>> {
        self.leaves.first().filter(|_| self.at == 0)
    }

    fn entry(&self) -> Option<&'a (K, V)> {
        self.leaves.first().map(|leaf| &leaf[self.at])
    }

    fn step(&mut self) {
        self.at += 1;
        if self.leaves.first().is_some_and(|leaf| leaf.len() == self.at) {
            self.skip_leaf();
        }
    }

    fn skip_leaf(&mut self) {
        (self.leaves, self.at) = (self.leaves.get(1..).unwrap_or_default(), 0);
    }
}

impl<K, V> Leaves<K, V> {
    /// How many entries there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no entry.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Entries in order of their keys.
    pub fn iter(&self) -> Iter<'_, K, V> {
        self.into_iter()
    }

    /// Keys in order.
    pub fn keys(&self) -> impl Iterator<Item = &K> {
        self.iter().map(|(key, _)| key)
    }

    /// Values in order of their keys.
    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.iter().map(|(_, value)| value)
    }

    /// The value at the key to which `order` is `Equal`; of every other it says on which side of that one it is.
    pub fn find(&self, order: impl Fn(&K) -> Ordering) -> Option<&V> {
        let leaf = self.leaves.get(self.leaf_of(&order))?;
        let at = leaf.binary_search_by(|(key, _)| order(key)).ok()?;
        Some(&leaf[at].1)
    }

    /// The entries beyond the first ones, those of which `before` holds.
    pub fn after(&self, before: impl Fn(&K) -> bool) -> Iter<'_, K, V> {
        let rest = &self.leaves[self.leaves.partition_point(|leaf| leaf.last().is_some_and(|(key, _)| before(key)))..];
        let mut leaves = rest.iter();
        let entries = leaves.next().map_or(&[][..], |leaf| &leaf[leaf.partition_point(|(key, _)| before(key))..]);
        Iter { leaves, entries: entries.iter() }
    }

    /// The leaf in which the key sought is, if it is there at all.
    fn leaf_of(&self, order: impl Fn(&K) -> Ordering) -> usize {
        self.leaves.partition_point(|leaf| leaf.last().is_some_and(|(key, _)| order(key).is_lt()))
    }
}

impl<K: Ord, V> Leaves<K, V> {
    /// Calls `each` with every key at which this and `now` hold different values, in order, and with the two values.
    /// `same` is asked where both have one. Leaves that the two share are not looked into, so of two of which one was
    /// made from the other it costs what changed and a look at every leaf.
    pub fn differing<'a>(
        &'a self,
        now: &'a Self,
        same: impl Fn(&V, &V) -> bool,
        mut each: impl FnMut(&'a K, Option<&'a V>, Option<&'a V>),
    ) {
        let (mut before, mut now) = (Cursor::at_start(self), Cursor::at_start(now));
        loop {
            while let (Some(was), Some(is)) = (before.whole_leaf(), now.whole_leaf())
                && Arc::ptr_eq(was, is)
            {
                before.skip_leaf();
                now.skip_leaf();
            }
            let (was, is) = (before.entry(), now.entry());
            let order = match (was, is) {
                (None, None) => return,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some((was, _)), Some((is, _))) => was.cmp(is),
            };
            let was = was.filter(|_| order.is_le());
            let is = is.filter(|_| order.is_ge());
            if was.is_some() {
                before.step();
            }
            if is.is_some() {
                now.step();
            }
            let differ = was.zip(is).is_none_or(|((_, was), (_, is))| !same(was, is));
            if differ && let Some((key, _)) = was.or(is) {
                each(key, was.map(|(_, value)| value), is.map(|(_, value)| value));
            }
        }
    }

    /// The value at this key.
    #[must_use]
    pub fn get(&self, key: &K) -> Option<&V> {
        self.find(|other| other.cmp(key))
    }

    /// Whether there is an entry of this key.
    #[must_use]
    pub fn contains_key(&self, key: &K) -> bool {
        self.get(key).is_some()
    }
}

impl<K: Ord + Clone, V: Clone> Leaves<K, V> {
    /// Puts a value; gives the one that was there.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        // A key beyond all others goes into the last leaf.
        let place = self.leaf_of(|other| other.cmp(&key)).min(self.leaves.len().saturating_sub(1));
        let leaves = Arc::make_mut(&mut self.leaves);
        if leaves.is_empty() {
            leaves.push(Arc::default());
        }
        let leaf = Arc::make_mut(&mut leaves[place]);
        let at = match leaf.binary_search_by(|(other, _)| other.cmp(&key)) {
            Ok(at) => return Some(std::mem::replace(&mut leaf[at].1, value)),
            Err(at) => at,
        };
        if leaf.len() < FULL {
            leaf.insert(at, (key, value));
        } else {
            let mut upper = leaf.split_off(FULL / 2);
            match at.checked_sub(FULL / 2) {
                Some(at) => upper.insert(at, (key, value)),
                None => leaf.insert(at, (key, value)),
            }
            leaves.insert(place + 1, Arc::new(upper));
        }
        self.len += 1;
        None
    }

    /// Takes an entry out; gives its value.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        let place = self.leaf_of(|other| other.cmp(key));
        let at = self.leaves.get(place)?.binary_search_by(|(other, _)| other.cmp(key)).ok()?;
        let leaves = Arc::make_mut(&mut self.leaves);
        let leaf = Arc::make_mut(&mut leaves[place]);
        let (_, value) = leaf.remove(at);
        self.len -= 1;
        if leaf.is_empty() {
            leaves.remove(place);
            return Some(value);
        }
        let few =
            |first: &usize| leaves.get(first + 1).is_some_and(|second| leaves[*first].len() + second.len() <= FULL / 2);
        if let Some(first) = [place, place.saturating_sub(1)].into_iter().find(few) {
            let second = leaves.remove(first + 1);
            Arc::make_mut(&mut leaves[first]).extend(second.iter().cloned());
        }
        Some(value)
    }
}

impl<K, V> Clone for Leaves<K, V> {
    fn clone(&self) -> Self {
        Self { leaves: Arc::clone(&self.leaves), len: self.len }
    }
}
impl<K, V> Default for Leaves<K, V> {
    fn default() -> Self {
        Self { leaves: Arc::default(), len: 0 }
    }
}
/// By entries: how they lie in leaves is of no account.
impl<K: PartialEq, V: PartialEq> PartialEq for Leaves<K, V> {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.leaves, &other.leaves) || (self.len == other.len && self.iter().eq(other.iter()))
    }
}
impl<K: Eq, V: Eq> Eq for Leaves<K, V> {}
impl<K: fmt::Debug, V: fmt::Debug> fmt::Debug for Leaves<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    impl<K: Ord, V> Leaves<K, V> {
        fn assert_sound(&self) {
            assert_eq!(self.len, self.leaves.iter().map(|leaf| leaf.len()).sum::<usize>());
            assert!(self.leaves.iter().all(|leaf| (1..=FULL).contains(&leaf.len())));
            assert!(self.keys().is_sorted_by(|a, b| a < b));
        }
    }

    proptest! {
        // Long histories, so that leaves split and come together again.
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn it_is_a_map(changes in prop::collection::vec((0u16..600, prop::option::weighted(0.6, any::<u8>())), 0..3000)) {
            let (mut map, mut model) = (Leaves::default(), BTreeMap::new());
            let mut held = Vec::new();
            for (number, (key, value)) in changes.into_iter().enumerate() {
                let was = match value {
                    Some(value) => (map.insert(key, value), model.insert(key, value)),
                    None => (map.remove(&key), model.remove(&key)),
                };
                prop_assert_eq!(was.0, was.1);
                if number % 500 == 0 {
                    held.push((map.clone(), model.clone()));
                }
            }
            held.push((map, model));
            for (map, model) in held {
                map.assert_sound();
                prop_assert!(map.iter().eq(&model));
                prop_assert_eq!(map.is_empty(), model.is_empty());
                for key in 0..600 {
                    prop_assert_eq!(map.get(&key), model.get(&key));
                    prop_assert!(key % 50 != 0 || map.after(|other| *other < key).eq(model.range(key..)));
                }
            }
        }

        #[test]
        fn two_differ_in_what_was_changed_between_them(
            before in prop::collection::vec((0u16..600, any::<u8>()), 0..1000),
            changes in prop::collection::vec((0u16..600, prop::option::weighted(0.5, any::<u8>())), 0..300),
        ) {
            let mut map = Leaves::default();
            for (key, value) in before {
                map.insert(key, value);
            }
            let before = map.clone();
            for (key, value) in changes {
                match value {
                    Some(value) => map.insert(key, value),
                    None => map.remove(&key),
                };
            }
            let mut told = Vec::new();
            before.differing(&map, |was, is| was == is, |key, was, is| told.push((*key, was.copied(), is.copied())));
            let differing = (0..600).filter(|key| before.get(key) != map.get(key));
            let expected: Vec<_> =
                differing.map(|key| (key, before.get(&key).copied(), map.get(&key).copied())).collect();
            prop_assert_eq!(told, expected);
        }
    }

    thread_local!(static COPIES: Cell<usize> = const { Cell::new(0) });

    /// Counts how often it is copied.
    #[derive(Debug)]
    struct Entry;

    impl Clone for Entry {
        fn clone(&self) -> Self {
            COPIES.set(COPIES.get() + 1);
            Entry
        }
    }

    /// Entries and leaves that were copied in `work`, and the map that it left.
    fn copied(map: &Leaves<u32, Entry>, work: impl FnOnce(&mut Leaves<u32, Entry>) -> Option<Entry>) -> (usize, usize) {
        let mut next = map.clone();
        COPIES.set(0);
        let _ = work(&mut next);
        let shared = |leaf: &&Leaf<u32, Entry>| map.leaves.iter().any(|before| Arc::ptr_eq(before, leaf));
        (COPIES.get(), next.leaves.iter().filter(|leaf| !shared(leaf)).count())
    }

    #[test]
    fn a_change_beside_a_reader_copies_a_leaf_and_not_the_map() {
        let mut map = Leaves::default();
        for key in 0..10_000_u32 {
            // In no order, as the identities of rows come.
            map.insert(2 * (key * 7919 % 10_000), Entry);
        }
        assert_eq!(COPIES.get(), 0, "what nobody shares is not copied");
        for key in (0..10_000).step_by(100) {
            for (entries, leaves) in [
                copied(&map, |map| map.insert(2 * key, Entry)),
                copied(&map, |map| map.insert(2 * key + 1, Entry)),
                copied(&map, |map| map.remove(&(2 * key))),
            ] {
                assert!(entries <= FULL && leaves <= 2, "{entries} entries and {leaves} leaves of 10,000 entries");
            }
        }
    }

    #[test]
    fn what_two_share_is_not_looked_into() {
        let mut map: Leaves<u32, u32> = Leaves::default();
        (0..10_000).for_each(|key| assert_eq!(map.insert(2 * key, key), None));
        for (key, value) in [(5_000, Some(1)), (5_001, Some(1)), (6_000, None)] {
            let mut next = map.clone();
            match value {
                Some(value) => next.insert(key, value),
                None => next.remove(&key),
            };
            let (asked, told) = (Cell::new(0), Cell::new(0));
            let same = |was: &u32, is: &u32| {
                asked.set(asked.get() + 1);
                was == is
            };
            map.differing(&next, same, |at, _, _| {
                assert_eq!(*at, key);
                told.set(told.get() + 1);
            });
            assert_eq!(told.get(), 1);
            assert!(asked.get() <= FULL, "{} of 10,000 looked at", asked.get());
        }
    }

    #[test]
    fn what_empties_is_put_together() {
        let mut map: Leaves<u32, u32> = Leaves::default();
        (0..10_000).for_each(|key| assert_eq!(map.insert(key, key), None));
        (0..10_000).filter(|key| key % 100 != 0).for_each(|key| assert_eq!(map.remove(&key), Some(key)));
        map.assert_sound();
        assert!(map.leaves.len() <= 8, "{} leaves for {} entries", map.leaves.len(), map.len());
    }
}
