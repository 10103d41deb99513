//! What a session keeps in step with the server: the trait of a replica, the view of it that readers get,
//! and the parts that replicas are built of. All of it is cheap to clone: a snapshot shares with the next
//! one every table that did not change in between.
//!
//! The replica of Open vSwitch's database is [`crate::vswitch::Snapshot`].

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Deref;
use std::sync::Arc;

use serde::de::Deserializer;

use crate::leaves::Leaves;
use crate::pairs::Pairs;
use crate::table::{Layout, TableDecl};
use crate::text::Text;
use crate::update::RowUpdate;
use crate::value::Uuid;

/// What a reader sees of a database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum View<R> {
    /// The contents are not complete: nothing may be concluded from what is missing.
    Syncing,
    /// The database as of one message of the server: never half a transaction.
    Ready(Arc<R>),
}

impl<R> View<R> {
    /// The contents, when they are complete.
    #[must_use]
    pub fn ready(&self) -> Option<&Arc<R>> {
        match self {
            Self::Syncing => None,
            Self::Ready(replica) => Some(replica),
        }
    }
}

/// Typed contents of a database that a session maintains. A clone is a snapshot, so it has to be cheap.
pub trait Replica: Clone + Send + Sync + 'static {
    /// Name of the database.
    const DATABASE: &'static str;
    /// The tables to monitor. With none of them a session carries calls and locks only.
    const TABLES: &'static [TableDecl];

    /// Forgets every row. Columns lie as `layout` says until the next reset.
    fn reset(&mut self, layout: &Arc<Layout>);

    /// Takes a new or changed row of the table at this position of [`Replica::TABLES`]: [`RowUpdate::apply`] does so.
    ///
    /// # Errors
    /// When it cannot be applied; the session then drops everything and starts over.
    fn set<'de, D: Deserializer<'de>>(&mut self, table: usize, row: RowUpdate<'_, D>) -> Result<(), D::Error>;

    /// Drops a row; answers whether it was there.
    fn remove(&mut self, table: usize, uuid: Uuid) -> bool;
}

/// No replica: for a session that is used for calls, transactions or locks only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NoReplica;

impl Replica for NoReplica {
    const DATABASE: &'static str = "Open_vSwitch";
    const TABLES: &'static [TableDecl] = &[];
    fn reset(&mut self, _: &Arc<Layout>) {}
    fn set<'de, D: Deserializer<'de>>(&mut self, _: usize, row: RowUpdate<'_, D>) -> Result<(), D::Error> {
        Err(row.unknown_table())
    }
    fn remove(&mut self, _: usize, _: Uuid) -> bool {
        false
    }
}

/// The rows of one table by identity. Read it as the map that it derefs to.
#[derive(Debug, PartialEq, Eq)]
pub struct Rows<T>(Leaves<Uuid, Arc<T>>);

impl<T> Rows<T> {
    /// Puts a row; gives the one that was there.
    pub fn put(&mut self, uuid: Uuid, row: Arc<T>) -> Option<Arc<T>> {
        self.0.insert(uuid, row)
    }

    /// Puts a row in place of the one of this identity, or takes that one out; gives the one that was there.
    pub fn place(&mut self, uuid: Uuid, row: Option<Arc<T>>) -> Option<Arc<T>> {
        match row {
            Some(row) => self.put(uuid, row),
            None => self.take(uuid),
        }
    }

    /// Calls `each` with the identity of every row that is another in `now`, or is not in one of the two. A row that did
    /// not change is the very one that it was.
    pub fn differing<'a>(&'a self, now: &'a Self, mut each: impl FnMut(Uuid, Option<&'a Arc<T>>, Option<&'a Arc<T>>)) {
        self.0.differing(&now.0, Arc::ptr_eq, |uuid, was, is| each(*uuid, was, is));
    }

    /// Takes a row out.
    pub fn take(&mut self, uuid: Uuid) -> Option<Arc<T>> {
        self.0.remove(&uuid)
    }
}

impl<T> Clone for Rows<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}
impl<T> Default for Rows<T> {
    fn default() -> Self {
        Self(Leaves::default())
    }
}
impl<T> Deref for Rows<T> {
    type Target = Leaves<Uuid, Arc<T>>;
    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

/// Finds the one row that a key belongs to, where the schema makes the key unique.
///
/// Within one message of the server the successor of a row may come before the row goes. So a key belongs
/// to whoever took it last, and giving it back is for its owner only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UniqueIndex<K: Ord + Clone>(Leaves<K, Uuid>);

impl<K: Ord + Clone> UniqueIndex<K> {
    /// The row.
    #[must_use]
    pub fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<Uuid>
    where
        K: std::borrow::Borrow<Q>,
    {
        self.0.find(|other| other.borrow().cmp(key)).copied()
    }

    /// The key belongs to `row` from now on.
    pub fn put(&mut self, key: K, row: Uuid) {
        if self.0.get(&key) != Some(&row) {
            self.0.insert(key, row);
        }
    }

    /// The key is free, if `row` still has it.
    pub fn release(&mut self, key: &K, row: Uuid) {
        if self.0.get(key) == Some(&row) {
            self.0.remove(key);
        }
    }
}

impl<K: Ord + Clone> Default for UniqueIndex<K> {
    fn default() -> Self {
        Self(Leaves::default())
    }
}

/// Finds the rows that have a given value at a given key of `external_ids`, for the keys asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PairIndex {
    keys: Arc<BTreeSet<String>>,
    /// By key, the values that rows have there. A map of few entries.
    rows: BTreeMap<String, Leaves<(Text, Uuid), ()>>,
}

impl PairIndex {
    /// An empty index for these keys.
    pub fn new<K: Into<String>>(keys: impl IntoIterator<Item = K>) -> Self {
        let keys = keys.into_iter().map(Into::into).collect();
        Self { keys: Arc::new(keys), rows: BTreeMap::new() }
    }

    /// Rows with this pair, in order of identity; none when the key is not indexed.
    pub fn get(&self, key: &str, value: &str) -> impl Iterator<Item = Uuid> {
        let values = self.rows.get(key).into_iter();
        let found = values.flat_map(move |values| values.after(move |(other, _)| other.as_str() < value));
        found.map(|(entry, ())| entry).take_while(move |(other, _)| other == value).map(|(_, row)| *row)
    }

    /// Forgets the rows, not the keys.
    pub fn clear(&mut self) {
        self.rows.clear();
    }

    /// The pairs of a row went from `old` to `new`.
    pub fn change(&mut self, row: Uuid, old: &Pairs, new: &Pairs) {
        for key in self.keys.iter() {
            let (old, new) = (old.get(key), new.get(key));
            if old == new {
                continue;
            }
            let values = self.rows.entry(key.clone()).or_default();
            if let Some(old) = old {
                values.remove(&(old.into(), row));
            }
            if let Some(new) = new {
                values.insert((new.into(), row), ());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_survives_the_row_that_lost_it() {
        let (old, new) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let mut index = UniqueIndex::default();
        index.put("tap0".to_owned(), old);
        index.put("tap0".to_owned(), new);
        index.release(&"tap0".to_owned(), old);
        assert_eq!(index.get("tap0"), Some(new));
        index.release(&"tap0".to_owned(), new);
        assert_eq!(index.get("tap0"), None);
    }

    #[test]
    fn pairs_are_found_for_the_keys_asked_for() {
        let map = |pairs: &[(&str, &str)]| pairs.iter().copied().collect::<Pairs>();
        let (a, b) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let mut index = PairIndex::new(["iface-id"]);
        let none = Pairs::default();
        let x = map(&[("iface-id", "x"), ("other", "y")]);
        index.change(b, &none, &x);
        index.change(a, &none, &x);
        assert_eq!(index.get("iface-id", "x").collect::<Vec<_>>(), [a, b]);
        assert_eq!(index.get("other", "y").count(), 0);
        let before = index.clone();
        index.change(a, &x, &map(&[("iface-id", "z")]));
        index.change(b, &x, &none);
        assert_eq!(index.get("iface-id", "x").count(), 0);
        assert_eq!(index.get("iface-id", "z").collect::<Vec<_>>(), [a]);
        assert_eq!(before.get("iface-id", "x").count(), 2, "a snapshot does not change");
    }
}
