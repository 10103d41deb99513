//! What the files of the directory add up to: a state machine without I/O and without a clock.
//!
//! Its hard part is telling a VIF that somebody deleted from a directory that went away:
//!
//! ```text
//!              few removals: explicit deletes
//!               ┌──────┐
//!               ▼      │    many removals     quiet, files left: explicit deletes
//!  start ────►  Firm ──┴────────────────► Burst ─────────────────────────► Firm
//!               │ ▲                         │ quiet, no file left
//!               │ │ quiet: what is          ▼
//!   directory   │ │ missing is absent     Empty ──── confirmed: explicit deletes ───► Firm
//!   goes (from  ▼ │                         │ ▲
//!   any state) Gone ──── it is back ──► Returned ── quiet, no file there ──► Empty
//!                                           ▲ │ a file comes
//!                                           └─┘
//! ```
//!
//! In `Gone`, `Returned` and `Empty` the set is not synced, and the VIFs without a file are kept in it.
//! Reading files, watching them and writing tombstones is not done here: see `disk` and `watch`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ffi::{OsStr, OsString};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::model::{Desired, Vif, VifId};
use crate::record::Refused;
use crate::source::{Intake, Rejection};

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
    bad: Option<Refused>,
}

/// How far the directory can be trusted to tell what is wanted.
#[derive(Debug)]
enum Footing {
    /// Watched without a gap.
    Firm,
    /// More files went than one expects somebody to delete.
    Burst { settle_at: Instant },
    /// The directory is not there or not readable.
    Gone { why: String },
    /// It is there again; files may still be on their way. Without a time there is a file that may hold
    /// any VIF.
    Returned { settle_at: Option<Instant> },
    /// There, but without files although VIFs were known.
    Empty,
}

/// The files and what they add up to.
#[derive(Debug)]
pub(super) struct Shelf {
    settle: Duration,
    footing: Footing,
    files: BTreeMap<OsString, Entry>,
    /// Which files hold a good record of a VIF, in order of their names: the first counts.
    holders: BTreeMap<VifId, BTreeSet<OsString>>,
    /// VIFs that no file holds any more and that are still wanted until it is clear why.
    leaving: BTreeMap<VifId, Arc<Vif>>,
    /// VIFs that were deleted by name, with the revision that deleted them.
    tombstones: BTreeMap<VifId, u64>,
    /// Explicit deletes of late, so that many small ones are seen as a burst, too.
    recent: VecDeque<(Instant, usize)>,
    revision: u64,
}

impl Shelf {
    /// A shelf that has seen no directory yet. `settle` is how long the directory has to be quiet before
    /// removals in bulk, or its return, are believed.
    pub(super) fn new(settle: Duration, tombstones: impl IntoIterator<Item = VifId>) -> Self {
        Shelf {
            settle,
            footing: Footing::Gone { why: "the directory has not been read yet".into() },
            files: BTreeMap::new(),
            holders: BTreeMap::new(),
            leaving: BTreeMap::new(),
            tombstones: tombstones.into_iter().map(|id| (id, 0)).collect(),
            recent: VecDeque::new(),
            revision: 0,
        }
    }

    /// The directory is there (for the first time, or again) and holds exactly these files.
    pub(super) fn arrived(&mut self, readings: Vec<(OsString, Reading)>, now: Instant) -> Effects {
        let first = self.revision == 0;
        self.keep_all();
        self.footing = Footing::Returned { settle_at: Some(now + self.settle) };
        let mut effects = self.take(readings, now);
        if first {
            self.footing = Footing::Firm;
        }
        effects.changed = true;
        self.revision += 1;
        effects
    }

    /// The directory is not there, or cannot be read.
    pub(super) fn vanished(&mut self, why: String) -> Effects {
        let news = !matches!(&self.footing, Footing::Gone { why: before } if *before == why);
        self.keep_all();
        self.footing = Footing::Gone { why };
        self.changed(news)
    }

    /// Everything that is known is kept although no file holds it.
    fn keep_all(&mut self) {
        let known: Vec<_> = self.good().collect();
        self.leaving.extend(known);
        self.files.clear();
        self.holders.clear();
        self.recent.clear();
    }

    /// Takes in what some files are now.
    pub(super) fn take(&mut self, readings: Vec<(OsString, Reading)>, now: Instant) -> Effects {
        let known = self.holders.len() + self.leaving.len();
        let mut effects = Effects::default();
        let mut touched = BTreeMap::new();
        for (name, reading) in readings {
            effects.changed |= self.read(name, reading, &mut touched);
        }
        let mut lost = Vec::new();
        for (id, before) in touched {
            if self.holders.contains_key(&id) {
                self.leaving.remove(&id);
                if self.tombstones.remove(&id).is_some() {
                    effects.exhume.push(id);
                }
            } else if let Some(vif) = before {
                lost.push((id, vif));
            }
        }
        self.part_with(lost, known, now, &mut effects);
        match &mut self.footing {
            Footing::Empty if !self.files.is_empty() => {
                self.footing = Footing::Returned { settle_at: Some(now + self.settle) };
            }
            Footing::Returned { settle_at } if effects.changed => *settle_at = Some(now + self.settle),
            _ => {}
        }
        self.revision += u64::from(effects.changed);
        effects
    }

    /// Takes in one file. Notes in `touched` the VIFs whose holders changed, with the record they had.
    fn read(&mut self, name: OsString, reading: Reading, touched: &mut BTreeMap<VifId, Option<Arc<Vif>>>) -> bool {
        let held = self.files.get(&name).and_then(|entry| entry.good.clone());
        match reading {
            Reading::Absent => {
                let Some(entry) = self.files.remove(&name) else { return false };
                if let Some(vif) = entry.good {
                    self.drop_holder(vif, &name, touched);
                }
            }
            Reading::Good(vif) => {
                let entry = self.files.entry(name.clone()).or_default();
                if entry.bad.is_none() && entry.good.as_ref() == Some(&vif) {
                    return false;
                }
                let id = vif.id;
                *entry = Entry { good: Some(vif), bad: None };
                if let Some(old) = held.filter(|old| old.id != id) {
                    self.drop_holder(old, &name, touched);
                }
                touched.entry(id).or_insert(None);
                self.holders.entry(id).or_default().insert(name);
            }
            Reading::Bad(refused) => {
                // The VIF as it last was: from this file, or from before the directory went.
                let adopted = match (&held, refused.vif) {
                    (None, Some(id)) => self.leaving.get(&id).cloned(),
                    _ => None,
                };
                let entry = self.files.entry(name.clone()).or_default();
                let bad = Some(refused);
                if entry.bad == bad && adopted.is_none() {
                    return false;
                }
                entry.bad = bad;
                if let Some(vif) = adopted {
                    let id = vif.id;
                    entry.good = Some(vif);
                    touched.entry(id).or_insert(None);
                    self.holders.entry(id).or_default().insert(name);
                }
            }
        }
        true
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
        if names.is_empty() {
            self.holders.remove(&id);
        }
    }

    /// Decides what it means that no file holds these VIFs any more.
    fn part_with(&mut self, lost: Vec<(VifId, Arc<Vif>)>, known: usize, now: Instant, effects: &mut Effects) {
        if lost.is_empty() {
            return;
        }
        while self.recent.front().is_some_and(|(at, _)| now.saturating_duration_since(*at) >= self.settle) {
            self.recent.pop_front();
        }
        let lately: usize = self.recent.iter().map(|(_, count)| count).sum();
        let few = lately + lost.len() <= (known + lately).div_ceil(10).max(5);
        match &mut self.footing {
            Footing::Firm if few => {
                self.recent.push_back((now, lost.len()));
                for (id, _) in lost {
                    self.entomb(id, effects);
                }
                return;
            }
            Footing::Firm => self.footing = Footing::Burst { settle_at: now + self.settle },
            Footing::Burst { settle_at } => *settle_at = now + self.settle,
            Footing::Gone { .. } | Footing::Returned { .. } | Footing::Empty => {}
        }
        self.leaving.extend(lost);
    }

    fn entomb(&mut self, id: VifId, effects: &mut Effects) {
        // The revision that the caller is about to reach.
        self.tombstones.insert(id, self.revision + 1);
        effects.entomb.push(id);
        effects.changed = true;
    }

    /// When [`Shelf::settled`] has to be called.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match self.footing {
            Footing::Burst { settle_at } => Some(settle_at),
            Footing::Returned { settle_at } => settle_at,
            Footing::Firm | Footing::Gone { .. } | Footing::Empty => None,
        }
    }

    /// The directory has been quiet for long enough.
    pub(super) fn settled(&mut self, now: Instant) -> Effects {
        let mut effects = Effects::default();
        if self.deadline().is_none_or(|at| now < at) {
            return effects;
        }
        match self.footing {
            Footing::Burst { .. } | Footing::Returned { .. } if self.files.is_empty() && !self.leaving.is_empty() => {
                self.footing = Footing::Empty;
            }
            Footing::Burst { .. } => {
                for id in std::mem::take(&mut self.leaving).into_keys() {
                    self.entomb(id, &mut effects);
                }
                self.footing = Footing::Firm;
            }
            Footing::Returned { .. } if !self.leaving.is_empty() && self.nameless().is_some() => {
                self.footing = Footing::Returned { settle_at: None };
                return effects;
            }
            _ => {
                self.leaving.clear();
                self.footing = Footing::Firm;
            }
        }
        effects.changed = true;
        self.revision += 1;
        effects
    }

    /// Somebody deletes this VIF by name. Its files are expected to be gone from disk.
    pub(super) fn delete(&mut self, id: VifId) -> Effects {
        let mut effects = Effects::default();
        for name in self.files_of(id) {
            effects.changed |= self.read(name, Reading::Absent, &mut BTreeMap::new());
        }
        self.leaving.remove(&id);
        self.entomb(id, &mut effects);
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

    /// An operator says that the empty directory is meant: what was known is deleted. Empty when the
    /// directory is not in that state.
    pub(super) fn confirm_empty(&mut self) -> (BTreeSet<VifId>, Effects) {
        let mut effects = Effects::default();
        if !matches!(self.footing, Footing::Empty) {
            return (BTreeSet::new(), effects);
        }
        let ids: BTreeSet<VifId> = std::mem::take(&mut self.leaving).into_keys().collect();
        for id in &ids {
            self.entomb(*id, &mut effects);
        }
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
        match self.holders.get(&id).and_then(BTreeSet::first) {
            Some(name) => Some(name.clone()),
            None => self.files_of(id).into_iter().next(),
        }
    }

    /// Every file that holds a VIF, or speaks of it and holds no other.
    pub(super) fn files_of(&self, id: VifId) -> Vec<OsString> {
        self.files
            .iter()
            .filter(|(_, entry)| match &entry.good {
                Some(vif) => vif.id == id,
                None => entry.speaks_of(id),
            })
            .map(|(name, _)| name.clone())
            .collect()
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
        self.files
            .iter()
            .find(|(_, entry)| entry.good.is_none() && matches!(entry.bad, Some(Refused { vif: None, .. })))
            .map(|(name, _)| name)
    }

    fn problem(&self) -> Option<String> {
        let kept = self.leaving.len();
        match &self.footing {
            Footing::Gone { why } => return Some(format!("{why}; the last known records stay in force")),
            Footing::Empty => {
                return Some(format!(
                    "the directory is empty, but {kept} VIFs were known: they stay as they are until their \
                     records are back or `vifd confirm-removals` says that they are to go"
                ));
            }
            Footing::Returned { settle_at: Some(_) } => {
                return Some(format!(
                    "the directory is there again and still being filled; {kept} VIFs are without a file"
                ));
            }
            Footing::Returned { settle_at: None } | Footing::Firm | Footing::Burst { .. } => {}
        }
        self.nameless().map(|name| {
            format!(
                "{} cannot be read and may be the record of any VIF, so no VIF is taken for absent until it is mended or removed",
                name.display()
            )
        })
    }

    /// The intake as of now.
    pub(super) fn intake(&self) -> Intake {
        let mut vifs: BTreeMap<VifId, Arc<Vif>> = self.leaving.clone();
        vifs.extend(self.good());
        let unreadable = self
            .files
            .values()
            .filter_map(|entry| entry.bad.as_ref()?.vif)
            .filter(|id| !vifs.contains_key(id) && !self.tombstones.contains_key(id))
            .collect();
        let problem = self.problem();
        Intake {
            desired: Arc::new(Desired {
                synced: problem.is_none(),
                vifs,
                deleted: self.tombstones.keys().copied().collect(),
                unreadable,
            }),
            rejections: Arc::new(self.rejections()),
            problem,
            revision: self.revision,
        }
    }

    fn rejections(&self) -> Vec<Rejection> {
        let mut rejections = Vec::new();
        for (name, entry) in &self.files {
            let record = name.display().to_string();
            if let Some(Refused { vif, generation, field, reason }) = entry.bad.clone() {
                let vif = vif.or(entry.good.as_ref().map(|vif| vif.id));
                rejections.push(Rejection { record, vif, generation, field, reason });
                continue;
            }
            let Some(vif) = &entry.good else { continue };
            let first = self.holders.get(&vif.id).and_then(BTreeSet::first);
            if let Some(first) = first.filter(|first| *first != name) {
                rejections.push(Rejection {
                    record,
                    vif: Some(vif.id),
                    generation: Some(vif.generation),
                    field: "vif.id".into(),
                    reason: format!(
                        "{} holds the same VIF, and of two files the first by name counts",
                        first.display()
                    ),
                });
            }
        }
        rejections
    }
}

impl Entry {
    fn speaks_of(&self, id: VifId) -> bool {
        self.bad.as_ref().is_some_and(|refused| refused.vif == Some(id))
    }
}

/// The record in force of a VIF that some file holds.
fn winner(
    files: &BTreeMap<OsString, Entry>,
    holders: &BTreeMap<VifId, BTreeSet<OsString>>,
    id: VifId,
) -> Option<Arc<Vif>> {
    files.get(holders.get(&id)?.first()?)?.good.clone()
}
