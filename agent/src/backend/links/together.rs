//! Deleting many links by one request: they are put into a link group that no other link is in, looked at once more,
//! and deleted as a group, for which the kernel waits once and not for each of them
//! (`docs/adr/0009-bulk-removal.md`). Which operations go this way is `perform.rs`'s business; whatever is not as it
//! should be on this way goes back to it, to be done one by one.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, RandomState};
use std::io;

use rtnetlink::packet_route::link::{LinkAttribute, LinkMessage};

use super::request::{Requests, Which};
use crate::model::Link;

/// So many in one request: the kernel's lock of all links is held as long as one request takes.
pub(super) const MOST: usize = 100;
/// Fewer are not worth a list of all links.
pub(super) const LEAST: usize = 8;
/// Numbers below are what people choose, and have names (`/etc/iproute2/group`).
const LEAST_GROUP: u32 = 1 << 24;

/// A link that is to be deleted, as far as it must still be what it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Doomed<'a> {
    pub(super) index: u32,
    pub(super) name: &'a str,
    pub(super) alias: &'a str,
}

impl Doomed<'_> {
    fn is(&self, link: &Link) -> bool {
        link.index == self.index && link.name == self.name && link.alias.as_deref().unwrap_or_default() == self.alias
    }
}

/// Why nothing was deleted. None of it is a failure of the operations: one by one each gets an answer of its own.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotTogether {
    /// A link is not what it was, or gone.
    #[error("link {0:?} is not what it was")]
    Changed(String),
    /// A link that is not to be deleted is in the group.
    #[error("link {0:?} came into the group")]
    Stranger(String),
    /// No number was free.
    #[error("no link group is free")]
    NoGroup,
    /// The kernel's word.
    #[error("{what}: {source}")]
    Kernel {
        /// What was asked for.
        what: &'static str,
        /// Its answer.
        source: io::Error,
    },
}

/// Deletes all of `doomed`, at most [`MOST`], or none of them.
///
/// Each is looked at by its index, put into the group by its index, and looked at again in a list of all links, which
/// tells as well who else is in the group. Only the moment between that list and the request is left in which somebody
/// could put another link into it, who would have to guess one number of four thousand million.
pub(super) fn delete(requests: &mut Requests, doomed: &[Doomed<'_>]) -> Result<(), NotTogether> {
    let used: BTreeSet<u32> = list(requests)?.into_iter().map(|link| link.group).collect();
    let group = free_group(&used, || RandomState::new().hash_one(doomed.len())).ok_or(NotTogether::NoGroup)?;
    let mut moved = BTreeMap::new();
    let deleted = gather(requests, doomed, group, &mut moved).and_then(|()| {
        check(doomed, &list(requests)?, group)?;
        requests.delete_group(group).map_err(kernel("delete a group of links"))
    });
    if deleted.is_err() {
        for (index, before) in moved {
            // One that is gone needs no group any more; one that stays in it is deleted by its index all the same.
            let _ = put(requests, index, before);
        }
    }
    deleted
}

/// Puts every link into the group, after a look at it; notes in `moved` where each was before.
fn gather(
    requests: &mut Requests,
    doomed: &[Doomed<'_>],
    group: u32,
    moved: &mut BTreeMap<u32, u32>,
) -> Result<(), NotTogether> {
    for one in doomed {
        let found = requests.get(&Which::Index(one.index)).map_err(kernel("look at a link"))?;
        let link = found.filter(|link| one.is(link)).ok_or_else(|| NotTogether::Changed(one.name.to_owned()))?;
        moved.insert(one.index, link.group);
        put(requests, one.index, group).map_err(kernel("put a link into a group"))?;
    }
    Ok(())
}

fn put(requests: &mut Requests, index: u32, group: u32) -> io::Result<()> {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.attributes.push(LinkAttribute::Group(group));
    requests.set(message)
}

/// Whether the group holds all of `doomed`, as they were, and nobody else.
fn check(doomed: &[Doomed<'_>], all: &[Link], group: u32) -> Result<(), NotTogether> {
    let mut expected: BTreeMap<u32, &Doomed<'_>> = doomed.iter().map(|one| (one.index, one)).collect();
    for link in all.iter().filter(|link| link.group == group) {
        match expected.remove(&link.index) {
            Some(one) if one.is(link) => {}
            Some(one) => return Err(NotTogether::Changed(one.name.to_owned())),
            None => return Err(NotTogether::Stranger(link.name.clone())),
        }
    }
    match expected.into_values().next() {
        None => Ok(()),
        Some(missing) => Err(NotTogether::Changed(missing.name.to_owned())),
    }
}

/// A number that no link has.
fn free_group(used: &BTreeSet<u32>, mut random: impl FnMut() -> u64) -> Option<u32> {
    // The upper half of the hash is as random as the lower.
    let mut numbers = std::iter::repeat_with(|| u32::try_from(random() >> 32).unwrap_or(u32::MAX)).take(100);
    numbers.find(|number| *number >= LEAST_GROUP && !used.contains(number))
}

fn list(requests: &mut Requests) -> Result<Vec<Link>, NotTogether> {
    requests.list().map_err(kernel("list the links"))
}

fn kernel(what: &'static str) -> impl FnOnce(io::Error) -> NotTogether {
    move |source| NotTogether::Kernel { what, source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::LinkKind;

    fn link(index: u32, name: &str, alias: &str, group: u32) -> Link {
        let alias = Some(alias.to_owned()).filter(|alias| !alias.is_empty());
        Link { alias, group, ..Link::new(index, name, LinkKind::Other(String::new())) }
    }

    #[test]
    fn a_group_is_deleted_only_with_exactly_the_links_that_were_put_into_it() {
        let doomed = [(1, "tap1"), (2, "tap2")].map(|(index, name)| Doomed { index, name, alias: "ours" });
        let others = [link(8, "lo", "", 0), link(9, "eth0", "ours", 6)];
        let verdict = |members: &[Link]| {
            let all: Vec<_> = others.iter().chain(members).cloned().collect();
            check(&doomed, &all, 7).map_err(|error| error.to_string())
        };
        assert_eq!(verdict(&[link(1, "tap1", "ours", 7), link(2, "tap2", "ours", 7)]), Ok(()));
        for (wrong, word) in [
            (vec![link(1, "tap1", "ours", 7)], "\"tap2\" is not what it was"),
            (vec![link(1, "tap1", "ours", 7), link(2, "tap2", "ours", 6)], "\"tap2\" is not what it was"),
            (vec![link(1, "tap1", "ours", 7), link(2, "new", "ours", 7)], "\"tap2\" is not what it was"),
            (vec![link(1, "tap1", "theirs", 7), link(2, "tap2", "ours", 7)], "\"tap1\" is not what it was"),
            (vec![link(1, "tap1", "", 7), link(2, "tap2", "ours", 7)], "\"tap1\" is not what it was"),
            (
                vec![link(1, "tap1", "ours", 7), link(2, "tap2", "ours", 7), link(3, "tap3", "ours", 7)],
                "\"tap3\" came into the group",
            ),
        ] {
            assert!(verdict(&wrong).unwrap_err().contains(word), "{wrong:?}");
        }
    }

    #[test]
    fn a_free_group_is_none_that_is_used_or_that_people_choose() {
        let numbers = [5_u64, 1 << 24, 1 << 25].map(|number| number << 32);
        let mut left = numbers.into_iter();
        assert_eq!(free_group(&BTreeSet::from([1 << 24]), || left.next().unwrap()), Some(1 << 25));
        assert_eq!(free_group(&BTreeSet::new(), || 0), None);
    }
}
