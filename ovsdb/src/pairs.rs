//! Maps of strings to strings, as `external_ids` and the like are, kept so that thousands of rows which say the same
//! hold it once: a clone shares, and so does whatever [`crate::words`] has seen before.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::text::Text;

/// A map of strings to strings in the order of its keys. Made to be read: a change makes it anew, and most have a
/// dozen entries at most.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pairs(Arc<[Pair]>);

type Pair = (Text, Text);
/// Pairs in the order of their keys.
pub type Iter<'a> = std::iter::Map<std::slice::Iter<'a, Pair>, fn(&'a Pair) -> (&'a str, &'a str)>;

impl Pairs {
    /// Takes pairs in any order; of equal keys the last one stays.
    fn from_unsorted(mut pairs: Vec<Pair>) -> Self {
        // The sort is stable, so the last of equal keys is the last of its run.
        pairs.sort_by(|a, b| a.0.cmp(&b.0));
        pairs.reverse();
        pairs.dedup_by(|earlier, later| earlier.0 == later.0);
        pairs.reverse();
        Self(pairs.into())
    }

    /// Takes pairs that are in the order of their keys, each of which is there once.
    pub(crate) fn from_sorted(pairs: &[Pair]) -> Self {
        debug_assert!(pairs.is_sorted_by(|a, b| a.0 < b.0));
        Self(pairs.into())
    }

    pub(crate) fn as_slice(&self) -> &[Pair] {
        &self.0
    }

    /// The value at a key.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        // A dozen entries at most, so a walk is as good as a search, and it touches no more memory.
        self.iter().find_map(|(known, value)| (known == key).then_some(value))
    }

    /// Whether there is a value at a key.
    #[must_use]
    pub fn contains_key(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    /// Pairs in the order of their keys.
    pub fn iter(&self) -> Iter<'_> {
        self.0.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// How many pairs there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Sets the value at a key.
    pub fn insert(&mut self, key: impl Into<Text>, value: impl Into<Text>) {
        self.extend([(key, value)]);
    }

    /// Keeps the pairs for which `keep` holds.
    pub fn retain(&mut self, mut keep: impl FnMut(&str, &str) -> bool) {
        self.0 = self.0.iter().filter(|(key, value)| keep(key, value)).cloned().collect();
    }

    /// Forgets all of them.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// Goes by a difference as `update2` reports it: the very pair goes, any other is the new value at its key.
    pub(crate) fn change(&mut self, difference: &Self) {
        let kept = self.0.iter().filter(|(key, _)| !difference.contains_key(key));
        let new = difference.0.iter().filter(|(key, value)| self.get(key) != Some(value));
        *self = kept.chain(new).cloned().collect();
    }
}

impl fmt::Debug for Pairs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl<K: Into<Text>, V: Into<Text>> FromIterator<(K, V)> for Pairs {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(pairs: I) -> Self {
        Self::from_unsorted(pairs.into_iter().map(|(key, value)| (key.into(), value.into())).collect())
    }
}
impl<K: Into<Text>, V: Into<Text>> Extend<(K, V)> for Pairs {
    fn extend<I: IntoIterator<Item = (K, V)>>(&mut self, pairs: I) {
        let new = pairs.into_iter().map(|(key, value)| (key.into(), value.into()));
        *self = self.0.iter().cloned().chain(new).collect();
    }
}
impl<K: Into<Text>, V: Into<Text>, const N: usize> From<[(K, V); N]> for Pairs {
    fn from(pairs: [(K, V); N]) -> Self {
        pairs.into_iter().collect()
    }
}
impl From<BTreeMap<String, String>> for Pairs {
    fn from(pairs: BTreeMap<String, String>) -> Self {
        pairs.into_iter().collect()
    }
}
impl From<&Pairs> for BTreeMap<String, String> {
    fn from(pairs: &Pairs) -> Self {
        pairs.iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
    }
}
impl<'a> IntoIterator for &'a Pairs {
    type Item = (&'a str, &'a str);
    type IntoIter = Iter<'a>;
    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_in_order_and_the_last_of_equal_keys_stays() {
        let pairs = Pairs::from([("b", "1"), ("a", "2"), ("b", "3")]);
        assert_eq!(pairs.iter().collect::<Vec<_>>(), [("a", "2"), ("b", "3")]);
        assert_eq!((pairs.get("b"), pairs.get("c"), pairs.len()), (Some("3"), None, 2));
        assert_eq!(format!("{pairs:?}"), r#"{"a": "2", "b": "3"}"#);
    }

    #[test]
    fn a_change_is_for_the_one_that_is_changed() {
        let before = Pairs::from([("a", "1"), ("b", "2")]);
        let mut after = before.clone();
        after.extend([("a", "3"), ("c", "4")]);
        after.retain(|key, _| key != "b");
        assert_eq!(after, Pairs::from([("a", "3"), ("c", "4")]));
        assert_eq!(before, Pairs::from([("a", "1"), ("b", "2")]));
    }
}
