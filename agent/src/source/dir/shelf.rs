//! What the files of the directory add up to: a state machine without I/O and without a clock.
//!
//! Its hard part is telling a VIF that somebody deleted from a directory that went away:
//!
//! ```text
//!                        quiet: what is missing is absent
//!            ┌───────────────────────────────────────────────────┐
//!            │                                                   ▼      many removals
//!  Gone ──► Returned ◄─────────── nothing is missing ─┐        Firm ◄──────────────────► Burst
//!    │       │                    any more            │          ▲       quiet: deletes    │
//!    │       │ no file is there                       │          │                         │
//!    │       └───────────────────────────────────► Emptied ──────┘                         │
//!    │                                              ▲   ▲   confirmed: deletes             │
//!    └── it is there, without a file or ────────────┘   └───── no file is left ────────────┘
//!        it went when it was Emptied
//! ```
//!
//! The start is `Gone`, and from every state the directory's going leads there. A file that comes or goes has
//! the quiet of `Returned` and `Burst` begin anew. `Emptied` is about VIFs that were known: without one missing,
//! there is no such state.
//!
//! In `Gone`, `Returned` and `Emptied` the set is not synced, and the VIFs that were known and are without a file
//! are kept in it. In `Firm`, `Returned` and `Emptied` a few VIFs that lose their files are deleted, though not
//! at first sight: a file that is replaced by removing it and making it anew is absent for a moment. Only when
//! nothing has happened to it for a grace is it believed to be gone.
//!
//! Reading files, watching them and writing tombstones is not done here: see `disk` and `watch`. What is told
//! of all this is in `telling`.

mod telling;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ffi::{OsStr, OsString};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::model::table::{pack, worth_packing};
use crate::model::{Table, Vif, VifId};
use crate::record::Refused;

/// What a file was found to be.
#[derive(Clone, Debug)]
pub(super) enum Reading {
    /// A good record.
    Good(Arc<Vif>),
    /// Not a good record. `vif` is what the file or else its name says.
    Bad(Refused),
    /// No such file.
    Absent,
}

/// What has to be done on disk after an input, and whether there is something to publish.
#[derive(Debug, Default, PartialEq, Eq)]
#[must_use]
pub(super) struct Effects {
    /// The intake is not as it was.
    pub(super) changed: bool,
    /// VIFs that were deleted: their tombstones have to be on disk before the change is published.
    pub(super) entomb: Vec<VifId>,
    /// VIFs whose tombstones can go.
    pub(super) exhume: Vec<VifId>,
}

impl Effects {
    /// Adds what another input asked for.
    pub(super) fn merge(&mut self, other: Effects) {
        self.changed |= other.changed;
        self.entomb.extend(other.entomb);
        self.exhume.extend(other.exhume);
    }
}

/// One file.
#[derive(Debug, Default)]
struct Entry {
    /// The last good record.
    good: Option<Arc<Vif>>,
    /// What is wrong with it now.
    bad: Option<Box<Refused>>,
}

/// The files that hold a good record of one VIF, in order of their names: nearly always one.
#[derive(Debug, Default)]
struct Holders(Vec<OsString>);

impl Holders {
    fn first(&self) -> Option<&OsString> {
        self.0.first()
    }

    fn insert(&mut self, name: OsString) {
        if let Err(at) = self.0.binary_search(&name) {
            self.0.reserve_exact(1);
            self.0.insert(at, name);
        }
    }

    fn remove(&mut self, name: &OsStr) {
        self.0.retain(|known| known != name);
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// How far the directory can be trusted to tell what is wanted.
#[derive(Debug)]
enum Footing {
    /// Watched without a gap.
    Firm,
    /// More files went than one expects somebody to delete.
    Burst { settle_at: Instant },
    /// The directory is not there or not readable. `emptied`: it was found empty before that, and what was
    /// missing then has not been seen since.
    Gone { why: String, emptied: bool },
    /// It is there, for the first time or again; files may still be on their way. Without a time there is a
    /// file that may hold any VIF.
    Returned { settle_at: Option<Instant> },
    /// It was there without a file although VIFs were known, and some of them are still missing.
    Emptied,
}

/// A VIF that lost its file a moment ago.
#[derive(Debug)]
struct Doubt {
    vif: Arc<Vif>,
    /// When it is deleted, unless something happens to its file.
    until: Instant,
}

/// The files and what they add up to.
#[derive(Debug)]
pub(super) struct Shelf {
    settle: Duration,
    grace: Duration,
    footing: Footing,
    files: BTreeMap<OsString, Entry>,
    /// Which files hold a good record of a VIF, in order of their names: the first counts.
    holders: BTreeMap<VifId, Holders>,
    /// Files that are no good records.
    bad: BTreeSet<OsString>,
    /// VIFs that several files hold.
    shared: BTreeSet<VifId>,
    /// The record in force of every VIF: of those that a file holds, and of those in `leaving` and `doubted`.
    wanted: Table<VifId, Vif>,
    /// VIFs that no file holds any more and that are still wanted until it is clear why.
    leaving: BTreeMap<VifId, Arc<Vif>>,
    /// VIFs that no file holds any more, deleted when that is still so a grace later. None of them is in `leaving`.
    doubted: BTreeMap<VifId, Doubt>,
    /// The files that are not there any more of the VIFs in `leaving` and `doubted`.
    traces: BTreeMap<OsString, VifId>,
    /// VIFs that were deleted by name, with the revision that deleted them.
    tombstones: BTreeMap<VifId, u64>,
    /// Explicit deletes of late, so that many small ones are seen as a burst, too.
    recent: VecDeque<(Instant, usize)>,
    revision: u64,
}

impl Shelf {
    /// A shelf that has seen no directory yet. `settle` is how long the directory has to be quiet before
    /// removals in bulk, or the whole set after its arrival, are believed; `grace` is how long a file has to be
    /// gone.
    pub(super) fn new(settle: Duration, grace: Duration, tombstones: impl IntoIterator<Item = VifId>) -> Self {
        Shelf {
            settle,
            grace,
            footing: Footing::Gone { why: "the directory has not been read yet".into(), emptied: false },
            files: BTreeMap::new(),
            holders: BTreeMap::new(),
            bad: BTreeSet::new(),
            shared: BTreeSet::new(),
            wanted: Table::default(),
            leaving: BTreeMap::new(),
            doubted: BTreeMap::new(),
            traces: BTreeMap::new(),
            tombstones: tombstones.into_iter().map(|id| (id, 0)).collect(),
            recent: VecDeque::new(),
            revision: 0,
        }
    }

    /// The directory is there (for the first time, or again) and holds exactly these files. They are in force
    /// at once; that others are missing is believed later.
    pub(super) fn arrived(&mut self, readings: Vec<(OsString, Reading)>, now: Instant) -> Effects {
        self.footing =
            if self.emptied() { Footing::Emptied } else { Footing::Returned { settle_at: Some(now + self.settle) } };
        self.keep_all();
        let mut effects = self.take_in(readings, now);
        effects.changed = true;
        self.revision += 1;
        effects
    }

    /// The directory is not there, or cannot be read.
    pub(super) fn vanished(&mut self, why: String) -> Effects {
        let news = !matches!(&self.footing, Footing::Gone { why: before, .. } if *before == why);
        let emptied = self.emptied();
        self.keep_all();
        self.footing = Footing::Gone { why, emptied };
        self.changed(news)
    }

    fn emptied(&self) -> bool {
        matches!(self.footing, Footing::Emptied | Footing::Gone { emptied: true, .. })
    }

    /// Everything that is known is kept although no file holds it.
    fn keep_all(&mut self) {
        let known: Vec<_> = self.good().collect();
        self.leaving.extend(known);
        self.keep_doubted();
        let files = std::mem::take(&mut self.files);
        self.traces.extend(files.into_iter().filter_map(|(name, entry)| Some((name, entry.good?.id))));
        self.holders.clear();
        self.bad.clear();
        self.shared.clear();
        self.recent.clear();
    }

    fn keep_doubted(&mut self) {
        let doubted = std::mem::take(&mut self.doubted);
        self.leaving.extend(doubted.into_iter().map(|(id, doubt)| (id, doubt.vif)));
    }

    /// Takes in what some files are now. They are those to which something happened.
    pub(super) fn take(&mut self, readings: Vec<(OsString, Reading)>, now: Instant) -> Effects {
        let effects = self.take_in(readings, now);
        self.revision += u64::from(effects.changed);
        effects
    }

    fn take_in(&mut self, readings: Vec<(OsString, Reading)>, now: Instant) -> Effects {
        let known = self.holders.len() + self.leaving.len() + self.doubted.len();
        let news = readings.len();
        let mut effects = Effects::default();
        let mut touched = BTreeMap::new();
        for (name, reading) in readings {
            if matches!(reading, Reading::Absent) && !self.files.contains_key(&name) {
                self.stir(&name, now);
            } else {
                effects.changed |= self.read(name, reading, &mut touched);
            }
        }
        let mut lost = Vec::new();
        let ids: Vec<VifId> = touched.keys().copied().collect();
        for (id, before) in touched {
            if self.holders.contains_key(&id) {
                self.leaving.remove(&id);
                self.doubted.remove(&id);
                if self.tombstones.remove(&id).is_some() {
                    effects.exhume.push(id);
                }
            } else if let Some(vif) = before {
                lost.push((id, vif));
            }
        }
        self.part_with(lost, known, now);
        self.renew(ids);
        if effects.changed && worth_packing(news, self.files.len()) {
            pack(&mut self.files);
            pack(&mut self.holders);
            self.wanted.pack();
        }
        if let Footing::Returned { settle_at } = &mut self.footing
            && effects.changed
        {
            *settle_at = Some(now + self.settle);
        }
        self.look_around(now);
        effects
    }

    /// Something happened to these files, but it is not known yet what.
    pub(super) fn stirred<'a>(&mut self, names: impl IntoIterator<Item = &'a OsString>, now: Instant) {
        for name in names {
            self.stir(name, now);
        }
    }

    /// Something happened to a file that is not there: somebody may be replacing it.
    fn stir(&mut self, name: &OsStr, now: Instant) {
        let Some(id) = self.traces.get(name) else { return };
        if let Some(doubt) = self.doubted.get_mut(id) {
            doubt.until = now + self.grace;
            return;
        }
        match &mut self.footing {
            Footing::Burst { settle_at } | Footing::Returned { settle_at: Some(settle_at) } => {
                *settle_at = now + self.settle;
            }
            Footing::Returned { settle_at: None } | Footing::Firm | Footing::Gone { .. } | Footing::Emptied => {}
        }
    }

    /// Notices that the directory is without files, or that nothing is missing from it any more.
    fn look_around(&mut self, now: Instant) {
        let (leaving, doubted) = (&self.leaving, &self.doubted);
        self.traces.retain(|_, id| leaving.contains_key(id) || doubted.contains_key(id));
        match self.footing {
            Footing::Burst { .. } | Footing::Returned { .. } if self.files.is_empty() && !self.leaving.is_empty() => {
                self.footing = Footing::Emptied;
            }
            Footing::Emptied if self.leaving.is_empty() => {
                // Others than those that were known may be on their way, too.
                self.footing = Footing::Returned { settle_at: Some(now + self.settle) };
            }
            _ => {}
        }
    }

    /// Takes in one file. Notes in `touched` the VIFs whose holders changed, with the record they had.
    fn read(&mut self, name: OsString, reading: Reading, touched: &mut BTreeMap<VifId, Option<Arc<Vif>>>) -> bool {
        let held = self.files.get(&name).and_then(|entry| entry.good.clone());
        match reading {
            Reading::Absent => {
                let Some(entry) = self.files.remove(&name) else { return false };
                self.bad.remove(&name);
                if let Some(vif) = entry.good {
                    self.traces.insert(name.clone(), vif.id);
                    self.drop_holder(vif, &name, touched);
                }
            }
            Reading::Good(vif) => {
                let id = vif.id;
                let vif = self.known(id, touched).filter(|known| *known == vif).unwrap_or(vif);
                let entry = self.files.entry(name.clone()).or_default();
                if entry.bad.is_none() && entry.good.as_ref() == Some(&vif) {
                    return false;
                }
                *entry = Entry { good: Some(vif), bad: None };
                self.bad.remove(&name);
                if let Some(old) = held.filter(|old| old.id != id) {
                    self.drop_holder(old, &name, touched);
                }
                touched.entry(id).or_insert(None);
                self.hold(id, name);
            }
            Reading::Bad(refused) => {
                // The VIF as it last was: from this file, which may have been away in the meantime, or from another.
                let adopted = match held {
                    None => refused.vif.or(self.traces.get(&name).copied()).and_then(|id| self.homeless(id)),
                    Some(_) => None,
                };
                let entry = self.files.entry(name.clone()).or_default();
                let bad = Some(Box::new(refused));
                self.bad.insert(name.clone());
                if entry.bad == bad && adopted.is_none() {
                    return false;
                }
                entry.bad = bad;
                if let Some(vif) = adopted {
                    let id = vif.id;
                    entry.good = Some(vif);
                    touched.entry(id).or_insert(None);
                    self.hold(id, name);
                }
            }
        }
        true
    }

    /// The record in force of a VIF, also of one that no file holds any more since this taking in began: who
    /// follows the records knows by the pointer that one is unchanged.
    fn known(&self, id: VifId, touched: &BTreeMap<VifId, Option<Arc<Vif>>>) -> Option<Arc<Vif>> {
        winner(&self.files, &self.holders, id)
            .or_else(|| self.homeless(id))
            .or_else(|| touched.get(&id).cloned().flatten())
    }

    /// The record of a VIF that is wanted although no file holds it.
    fn homeless(&self, id: VifId) -> Option<Arc<Vif>> {
        self.leaving.get(&id).or_else(|| self.doubted.get(&id).map(|doubt| &doubt.vif)).cloned()
    }

    /// The file `name` holds a good record of a VIF.
    fn hold(&mut self, id: VifId, name: OsString) {
        let names = self.holders.entry(id).or_default();
        names.insert(name);
        if names.0.len() > 1 {
            self.shared.insert(id);
        }
    }

    /// The records in force of these VIFs may be others now.
    fn renew(&mut self, ids: impl IntoIterator<Item = VifId>) {
        for id in ids {
            let is = winner(&self.files, &self.holders, id).or_else(|| self.homeless(id));
            let was = self.wanted.get(&id);
            if was.map(Arc::as_ptr) == is.as_ref().map(Arc::as_ptr) {
                continue;
            }
            match is {
                Some(vif) => self.wanted.insert(id, vif),
                None => self.wanted.remove(&id),
            };
        }
    }

    /// The file `name` does not hold `vif` any more.
    fn drop_holder(&mut self, vif: Arc<Vif>, name: &OsStr, touched: &mut BTreeMap<VifId, Option<Arc<Vif>>>) {
        let id = vif.id;
        let Some(names) = self.holders.get_mut(&id) else { return };
        let counted = names.first().is_some_and(|first| first == name);
        names.remove(name);
        // When several files of one VIF go at once, the record that counted first is the one to remember.
        if counted || names.is_empty() {
            touched.entry(id).or_insert(Some(vif));
        }
        if names.0.len() < 2 {
            self.shared.remove(&id);
        }
        if names.is_empty() {
            self.holders.remove(&id);
        }
    }

    /// Decides what it means that no file holds these VIFs any more.
    fn part_with(&mut self, lost: Vec<(VifId, Arc<Vif>)>, known: usize, now: Instant) {
        if lost.is_empty() {
            return;
        }
        while self.recent.front().is_some_and(|(at, _)| now.saturating_duration_since(*at) >= self.settle) {
            self.recent.pop_front();
        }
        let deleted: usize = self.recent.iter().map(|(_, count)| count).sum();
        let few = deleted + self.doubted.len() + lost.len() <= (known + deleted).div_ceil(10).max(5);
        match &mut self.footing {
            Footing::Firm | Footing::Returned { .. } | Footing::Emptied if few => {
                let until = now + self.grace;
                self.doubted.extend(lost.into_iter().map(|(id, vif)| (id, Doubt { vif, until })));
                return;
            }
            Footing::Firm => self.footing = Footing::Burst { settle_at: now + self.settle },
            Footing::Burst { settle_at } => *settle_at = now + self.settle,
            Footing::Gone { .. } | Footing::Returned { .. } | Footing::Emptied => {}
        }
        self.keep_doubted();
        self.leaving.extend(lost);
    }

    fn entomb(&mut self, id: VifId, effects: &mut Effects) {
        // The revision that the caller is about to reach.
        self.tombstones.insert(id, self.revision + 1);
        effects.entomb.push(id);
        effects.changed = true;
    }

    /// What is kept in step with the files is what the files add up to.
    #[cfg(test)]
    pub(super) fn assert_in_step(&self) {
        let mut wanted: BTreeMap<VifId, Arc<Vif>> = self.leaving.clone();
        wanted.extend(self.doubted.iter().map(|(id, doubt)| (*id, Arc::clone(&doubt.vif))));
        wanted.extend(self.good());
        assert_eq!(*self.wanted, wanted);
        assert!(wanted.iter().all(|(id, vif)| Arc::ptr_eq(vif, &self.wanted[id])));
        let bad = self.files.iter().filter(|(_, entry)| entry.bad.is_some()).map(|(name, _)| name.clone());
        assert_eq!(self.bad, bad.collect());
        let mut holders: BTreeMap<VifId, Vec<OsString>> = BTreeMap::new();
        for (name, entry) in &self.files {
            if let Some(vif) = &entry.good {
                holders.entry(vif.id).or_default().push(name.clone());
            }
        }
        assert!(self.holders.iter().map(|(id, names)| (id, &names.0)).eq(&holders));
        let shared = holders.iter().filter(|(_, names)| names.len() > 1).map(|(id, _)| *id);
        assert_eq!(self.shared, shared.collect());
    }

    /// When [`Shelf::settled`] has to be called.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let doubted = self.doubted.values().map(|doubt| doubt.until).min();
        doubted.into_iter().chain(self.settle_at()).min()
    }

    fn settle_at(&self) -> Option<Instant> {
        match self.footing {
            Footing::Burst { settle_at } => Some(settle_at),
            Footing::Returned { settle_at } => settle_at,
            Footing::Firm | Footing::Gone { .. } | Footing::Emptied => None,
        }
    }

    /// The files that are not there any more and that held VIFs of which that is not believed yet.
    pub(super) fn missed(&self) -> impl Iterator<Item = &OsString> {
        self.traces.keys()
    }

    /// Concludes what time has made certain. Whoever calls this has read what is [`Shelf::missed`] once more.
    pub(super) fn settled(&mut self, now: Instant) -> Effects {
        let mut effects = Effects::default();
        self.end_doubts(now, &mut effects);
        self.end_waiting(now, &mut effects);
        self.look_around(now);
        self.revision += u64::from(effects.changed);
        effects
    }

    /// What has been gone for the grace is deleted.
    fn end_doubts(&mut self, now: Instant, effects: &mut Effects) {
        let due: Vec<VifId> = self.doubted.iter().filter(|(_, doubt)| doubt.until <= now).map(|(id, _)| *id).collect();
        if due.is_empty() {
            return;
        }
        effects.changed = true;
        // Others are missing already and now no file is left: that is no deleting of these few.
        if self.files.is_empty() && !self.leaving.is_empty() {
            self.keep_doubted();
            return;
        }
        self.recent.push_back((now, due.len()));
        for id in &due {
            self.doubted.remove(id);
            self.entomb(*id, effects);
        }
        self.renew(due);
    }

    /// The directory has been quiet for long enough.
    fn end_waiting(&mut self, now: Instant, effects: &mut Effects) {
        if self.settle_at().is_none_or(|at| now < at) {
            return;
        }
        let gone = match self.footing {
            Footing::Burst { .. } => {
                let gone = std::mem::take(&mut self.leaving);
                for id in gone.keys() {
                    self.entomb(*id, effects);
                }
                gone
            }
            _ if !self.leaving.is_empty() && self.nameless().is_some() => {
                self.footing = Footing::Returned { settle_at: None };
                effects.changed = true;
                return;
            }
            _ => std::mem::take(&mut self.leaving),
        };
        self.renew(gone.into_keys());
        self.footing = Footing::Firm;
        effects.changed = true;
    }

    /// Somebody deletes this VIF by name. Its files are expected to be gone from disk.
    pub(super) fn delete(&mut self, id: VifId, now: Instant) -> Effects {
        let mut effects = Effects::default();
        for name in self.files_of(id) {
            effects.changed |= self.read(name, Reading::Absent, &mut BTreeMap::new());
        }
        self.leaving.remove(&id);
        self.doubted.remove(&id);
        self.renew([id]);
        self.entomb(id, &mut effects);
        self.look_around(now);
        self.revision += 1;
        effects
    }

    /// Nothing of a deleted VIF is left on the host, as of `revision`.
    pub(super) fn gone(&mut self, id: VifId, revision: u64) -> Effects {
        let mut effects = Effects::default();
        if self.tombstones.get(&id).is_some_and(|deleted_in| *deleted_in <= revision) {
            self.tombstones.remove(&id);
            effects.exhume.push(id);
            effects.changed = true;
            self.revision += 1;
        }
        effects
    }

    /// An operator says that emptying the directory was meant: what was known and is still missing is deleted.
    /// Answers which VIFs; none when the directory was not emptied.
    pub(super) fn confirm_empty(&mut self) -> (BTreeSet<VifId>, Effects) {
        let mut effects = Effects::default();
        if !matches!(self.footing, Footing::Emptied) {
            return (BTreeSet::new(), effects);
        }
        let ids: BTreeSet<VifId> = std::mem::take(&mut self.leaving).into_keys().collect();
        for id in &ids {
            self.entomb(*id, &mut effects);
        }
        self.renew(ids.iter().copied());
        self.footing = Footing::Firm;
        effects.changed = true;
        self.revision += 1;
        (ids, effects)
    }

    fn changed(&mut self, changed: bool) -> Effects {
        self.revision += u64::from(changed);
        Effects { changed, ..Effects::default() }
    }

    /// The file that counts for a VIF, or else the first that speaks of it and holds no other.
    pub(super) fn file_of(&self, id: VifId) -> Option<OsString> {
        match self.holders.get(&id).and_then(Holders::first) {
            Some(name) => Some(name.clone()),
            None => self.files_of(id).into_iter().next(),
        }
    }

    /// Every file that holds a VIF, or speaks of it and holds no other.
    pub(super) fn files_of(&self, id: VifId) -> Vec<OsString> {
        let speaks =
            |name: &&OsString| self.files.get(*name).is_some_and(|entry| entry.good.is_none() && entry.speaks_of(id));
        let holders = self.holders.get(&id).map_or(&[][..], |names| &names.0);
        let names: BTreeSet<&OsString> = holders.iter().chain(self.bad.iter().filter(speaks)).collect();
        names.into_iter().cloned().collect()
    }

    /// The VIF that a file holds or speaks of.
    pub(super) fn occupant(&self, name: &OsStr) -> Option<VifId> {
        let entry = self.files.get(name)?;
        match &entry.good {
            Some(vif) => Some(vif.id),
            None => entry.bad.as_ref().and_then(|refused| refused.vif),
        }
    }

    /// The names of all files.
    pub(super) fn names(&self) -> impl Iterator<Item = &OsString> {
        self.files.keys()
    }

    /// Revision of the last change.
    pub(super) fn revision(&self) -> u64 {
        self.revision
    }

    fn good(&self) -> impl Iterator<Item = (VifId, Arc<Vif>)> {
        self.holders.keys().filter_map(|id| Some((*id, winner(&self.files, &self.holders, *id)?)))
    }

    /// A bad file that does not say which VIF it is, nor ever did.
    fn nameless(&self) -> Option<&OsString> {
        let nameless = |entry: &Entry| entry.good.is_none() && entry.bad.as_ref().is_some_and(|bad| bad.vif.is_none());
        self.bad.iter().find(|name| self.files.get(*name).is_some_and(nameless))
    }
}

impl Entry {
    fn speaks_of(&self, id: VifId) -> bool {
        self.bad.as_ref().is_some_and(|refused| refused.vif == Some(id))
    }
}

/// The record in force of a VIF that some file holds.
fn winner(files: &BTreeMap<OsString, Entry>, holders: &BTreeMap<VifId, Holders>, id: VifId) -> Option<Arc<Vif>> {
    files.get(holders.get(&id)?.first()?)?.good.clone()
}
