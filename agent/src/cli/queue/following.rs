//! A list that goes on over lost connections: each key as it is, and then every change, once.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, SystemTime};

use super::is_unreachable;
use crate::queue::{Bucket, Entry, Happening, Operation, QueueError, Watch};

/// How long to wait before a list that could not be read is asked for again.
const AGAIN: Duration = Duration::from_secs(1);

/// What is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// A key has this value.
    Set(Entry),
    /// A key that had a value has none any more.
    Gone(String),
    /// The list is whole; told once.
    Listed,
}

/// Some keys of a bucket.
#[derive(Debug)]
pub(super) struct Following {
    bucket: Bucket,
    filter: String,
    watch: Watch,
    lost: bool,
    seen: Seen,
}

impl Following {
    /// # Errors
    /// There is no such bucket, it may not be read, or the queue does not answer.
    pub(super) async fn begin(bucket: Bucket, filter: &str) -> Result<Following, QueueError> {
        let watch = bucket.watch(filter).await?;
        Ok(Following { bucket, filter: filter.to_owned(), watch, lost: false, seen: Seen::default() })
    }

    /// The next change. Nothing is lost when this is dropped before it is ready.
    ///
    /// # Errors
    /// After a lost connection the bucket is not there, or may not be read, any more.
    pub(super) async fn next(&mut self) -> Result<Change, QueueError> {
        loop {
            if let Some(change) = self.seen.owed.pop_front() {
                return Ok(change);
            }
            if self.lost {
                match self.bucket.watch(&self.filter).await {
                    Ok(watch) => {
                        (self.watch, self.lost) = (watch, false);
                        self.seen.begin();
                    }
                    Err(error) if is_unreachable(&error) => tokio::time::sleep(AGAIN).await,
                    Err(error) => return Err(error),
                }
                continue;
            }
            match self.watch.next().await {
                Ok(happening) => self.seen.take(happening),
                Err(_) => self.lost = true,
            }
        }
    }

    /// Everything up to [`Change::Listed`]: the entries that have a value, by key.
    ///
    /// # Errors
    /// As [`Following::next`].
    pub(super) async fn list(&mut self) -> Result<BTreeMap<String, Entry>, QueueError> {
        let mut entries = BTreeMap::new();
        loop {
            match self.next().await? {
                Change::Set(entry) => {
                    entries.insert(entry.key.clone(), entry);
                }
                Change::Gone(key) => {
                    entries.remove(&key);
                }
                Change::Listed => return Ok(entries),
            }
        }
    }
}

/// What was told, so that reading the list again tells only what is different.
#[derive(Debug)]
struct Seen {
    here: BTreeMap<String, (u64, SystemTime)>,
    /// The keys of the list that is being read.
    listing: Option<BTreeSet<String>>,
    listed: bool,
    owed: VecDeque<Change>,
}

impl Default for Seen {
    fn default() -> Seen {
        Seen { here: BTreeMap::new(), listing: Some(BTreeSet::new()), listed: false, owed: VecDeque::new() }
    }
}

impl Seen {
    /// The list is read from its beginning.
    fn begin(&mut self) {
        self.listing = Some(BTreeSet::new());
    }

    fn take(&mut self, happening: Happening) {
        match happening {
            Happening::Entry(entry) if entry.operation == Operation::Put => {
                if let Some(listing) = &mut self.listing {
                    listing.insert(entry.key.clone());
                }
                // In a bucket that was made anew, the same revision is another write.
                let stamp = (entry.revision, entry.written_at);
                if self.here.insert(entry.key.clone(), stamp) != Some(stamp) {
                    self.owed.push_back(Change::Set(entry));
                }
            }
            Happening::Entry(entry) => {
                if let Some(listing) = &mut self.listing {
                    listing.remove(&entry.key);
                }
                if self.here.remove(&entry.key).is_some() {
                    self.owed.push_back(Change::Gone(entry.key));
                }
            }
            Happening::Complete => {
                let listed = self.listing.take().unwrap_or_default();
                let absent: Vec<String> = self.here.keys().filter(|key| !listed.contains(*key)).cloned().collect();
                for key in absent {
                    self.here.remove(&key);
                    self.owed.push_back(Change::Gone(key));
                }
                if !std::mem::replace(&mut self.listed, true) {
                    self.owed.push_back(Change::Listed);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(key: &str, revision: u64, operation: Operation) -> Happening {
        let written_at = SystemTime::UNIX_EPOCH + Duration::from_secs(revision);
        Happening::Entry(Entry { key: key.into(), revision, operation, value: "v".into(), written_at })
    }

    fn told(seen: &mut Seen, happenings: impl IntoIterator<Item = Happening>) -> Vec<String> {
        happenings.into_iter().for_each(|happening| seen.take(happening));
        let words = |change| match change {
            Change::Set(entry) => format!("{}={}", entry.key, entry.revision),
            Change::Gone(key) => format!("-{key}"),
            Change::Listed => "listed".to_owned(),
        };
        seen.owed.drain(..).map(words).collect()
    }

    #[test]
    fn a_list_that_is_read_again_tells_only_what_is_different() {
        use Operation::{Delete, Put};
        let mut seen = Seen::default();
        let first = [entry("a", 1, Put), entry("b", 2, Put), entry("c", 3, Delete), Happening::Complete];
        assert_eq!(told(&mut seen, first), ["a=1", "b=2", "listed"]);
        assert_eq!(told(&mut seen, [entry("a", 4, Put), entry("a", 5, Delete)]), ["a=4", "-a"]);
        assert_eq!(told(&mut seen, [entry("d", 6, Put)]), ["d=6"]);
        seen.begin();
        // While the connection was away `b` was changed, `d` removed without a trace, `a` written.
        assert_eq!(told(&mut seen, [entry("b", 7, Put), entry("a", 8, Put)]), ["b=7", "a=8"]);
        assert_eq!(told(&mut seen, [Happening::Complete]), ["-d"]);
        seen.begin();
        assert_eq!(told(&mut seen, [entry("b", 7, Put), entry("a", 8, Put), Happening::Complete]), [""; 0]);
    }
}
