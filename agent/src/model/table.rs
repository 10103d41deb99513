//! Rows by name or identity that views and plans share. Whoever hands out a new table hands out a row that did not
//! change as the very one that it was: so a walk over the pointers of two tables, microseconds for thousands of rows,
//! tells what is another.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

/// Rows by name or identity; used as the map that it derefs to. A clone shares all of it, and whoever changes one of
/// two that share pays for the copy. So that two are one and the same ([`Table::is`]) says at once that no row differs.
#[derive(Debug, PartialEq, Eq)]
pub struct Table<K, T>(Arc<BTreeMap<K, Arc<T>>>);

impl<K, T> Table<K, T> {
    /// Whether the two are one: then they are equal. Two that are not one may be equal, too.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl<K: Ord, T> Table<K, T> {
    /// Calls `each` with every key at which this and the table `now` hold different rows by identity, in order. A row
    /// says which key is its own: one row under two keys is not looked for.
    pub fn differing<'a>(&'a self, now: &'a Self, mut each: impl FnMut(&'a K, Option<&'a Arc<T>>, Option<&'a Arc<T>>)) {
        if self.is(now) {
            return;
        }
        let (mut before, mut now) = (self.iter().peekable(), now.iter().peekable());
        loop {
            let order = match (before.peek(), now.peek()) {
                (None, None) => return,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some((_, was)), Some((_, is))) if Arc::ptr_eq(was, is) => {
                    before.next();
                    now.next();
                    continue;
                }
                (Some((a, _)), Some((b, _))) => a.cmp(b),
            };
            let was = if order.is_le() { before.next() } else { None };
            let is = if order.is_ge() { now.next() } else { None };
            if let Some((key, _)) = was.or(is) {
                each(key, was.map(|(_, row)| row), is.map(|(_, row)| row));
            }
        }
    }
}

impl<K, T> Clone for Table<K, T> {
    fn clone(&self) -> Self {
        Table(Arc::clone(&self.0))
    }
}
impl<K, T> Default for Table<K, T> {
    fn default() -> Self {
        Table(Arc::default())
    }
}
impl<K: Ord, T> FromIterator<(K, Arc<T>)> for Table<K, T> {
    fn from_iter<I: IntoIterator<Item = (K, Arc<T>)>>(rows: I) -> Self {
        Table(Arc::new(rows.into_iter().collect()))
    }
}
impl<K, T> From<BTreeMap<K, Arc<T>>> for Table<K, T> {
    fn from(rows: BTreeMap<K, Arc<T>>) -> Self {
        Table(Arc::new(rows))
    }
}
impl<'a, K, T> IntoIterator for &'a Table<K, T> {
    type Item = (&'a K, &'a Arc<T>);
    type IntoIter = std::collections::btree_map::Iter<'a, K, Arc<T>>;
    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}
impl<K, T> Deref for Table<K, T> {
    type Target = BTreeMap<K, Arc<T>>;
    fn deref(&self) -> &Self::Target {
        &self.0
    }
}
impl<K: Clone, T> DerefMut for Table<K, T> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        Arc::make_mut(&mut self.0)
    }
}

impl<K: Ord + Clone, T> Table<K, T> {
    /// See [`pack`].
    pub fn pack(&mut self) {
        pack(&mut **self);
    }
}

/// Gives back the room that a map has left: the nodes of one that was filled in the order of its keys are half empty.
/// It costs a walk over the map: see [`worth_packing`].
pub fn pack<K: Ord, V>(map: &mut BTreeMap<K, V>) {
    *map = std::mem::take(map).into_iter().collect();
}

/// Whether a map is to be packed by whoever has put so many of `all` entries into it: all at once, as at a start, and not
/// one by one, which would walk over the whole of it each time.
#[must_use]
pub fn worth_packing(put: usize, all: usize) -> bool {
    4 * put > all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_went_or_changed_is_told_in_order() {
        let rows: Vec<Arc<u8>> = (0..6).map(Arc::new).collect();
        let table = |picked: &[(u8, usize)]| -> Table<u8, u8> {
            picked.iter().map(|(key, row)| (*key, Arc::clone(&rows[*row]))).collect()
        };
        let before = table(&[(1, 1), (2, 2), (3, 3), (9, 0)]);
        let now = table(&[(0, 0), (1, 1), (3, 4), (5, 5)]);
        let mut told = Vec::new();
        before.differing(&now, |key, was, is| told.push((*key, was.map(|row| **row), is.map(|row| **row))));
        let expected =
            [(0, None, Some(0)), (2, Some(2), None), (3, Some(3), Some(4)), (5, None, Some(5)), (9, Some(0), None)];
        assert_eq!(told, expected);
        now.differing(&now.clone(), |key, _, _| panic!("{key}"));
    }
}
