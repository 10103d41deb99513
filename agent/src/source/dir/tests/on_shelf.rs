//! Every transition of the shelf's diagram, and random histories against a fresh reading.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::sync::Arc;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::super::shelf::{Reading, Shelf};
use super::{id, vif};
use crate::model::VifId;
use crate::record::Refused;
use crate::source::Intake;

const SETTLE: Duration = Duration::from_millis(500);
const GRACE: Duration = Duration::from_millis(50);

/// A shelf and its clock.
struct Story {
    shelf: Shelf,
    now: Instant,
    entombed: BTreeSet<VifId>,
}

impl Story {
    fn new() -> Story {
        Story { shelf: Shelf::new(SETTLE, GRACE, []), now: Instant::now(), entombed: BTreeSet::new() }
    }

    /// Files that are there from the start, which is a while ago.
    fn start(files: Vec<(OsString, Reading)>) -> Story {
        let mut story = Story::new();
        story.arrived(files);
        story.pass(500);
        story
    }

    /// `count` VIFs in as many files, present from the start.
    fn with(count: u32) -> Story {
        Story::start((0..count).map(|n| good(n, n)).collect())
    }

    fn note(&mut self, effects: super::super::shelf::Effects) {
        self.entombed.extend(effects.entomb);
        for id in effects.exhume {
            self.entombed.remove(&id);
        }
        assert_eq!(self.intake().desired.deleted, self.entombed, "tombstones on disk are those in force");
    }

    fn arrived(&mut self, files: Vec<(OsString, Reading)>) {
        let effects = self.shelf.arrived(files, self.now);
        self.note(effects);
    }

    fn vanished(&mut self) {
        let effects = self.shelf.vanished("the directory is not there".into());
        self.note(effects);
    }

    fn take(&mut self, files: Vec<(OsString, Reading)>) {
        let effects = self.shelf.take(files, self.now);
        self.note(effects);
    }

    fn pass(&mut self, milliseconds: u64) {
        self.now += Duration::from_millis(milliseconds);
        let effects = self.shelf.settled(self.now);
        self.note(effects);
    }

    fn intake(&self) -> Intake {
        self.shelf.assert_in_step();
        self.shelf.intake()
    }

    #[track_caller]
    fn expect(&self, synced: bool, vifs: impl IntoIterator<Item = u32>, deleted: impl IntoIterator<Item = u32>) {
        let intake = self.intake();
        let ids = |numbers: Vec<u32>| numbers.into_iter().map(id).collect::<BTreeSet<_>>();
        assert_eq!(intake.desired.vifs.keys().copied().collect::<BTreeSet<_>>(), ids(vifs.into_iter().collect()));
        assert_eq!(intake.desired.deleted, ids(deleted.into_iter().collect()));
        assert_eq!(intake.desired.synced, synced, "{:?}", intake.problem);
        assert_eq!(intake.problem.is_none(), synced);
    }
}

fn file(number: u32) -> OsString {
    format!("{number:04}.json").into()
}

fn good(file_number: u32, n: u32) -> (OsString, Reading) {
    (file(file_number), Reading::Good(Arc::new(vif(n, 1))))
}

fn bad(file_number: u32, n: Option<u32>) -> (OsString, Reading) {
    let refused = Refused { vif: n.map(id), generation: None, field: "vif".into(), reason: "wrong".into() };
    (file(file_number), Reading::Bad(refused))
}

fn absent(file_number: u32) -> (OsString, Reading) {
    (file(file_number), Reading::Absent)
}

#[test]
fn an_empty_directory_at_the_first_start_is_a_host_without_vifs() {
    Story::with(0).expect(true, [], []);
}

#[test]
fn nothing_is_concluded_before_the_first_reading() {
    let shelf = Shelf::new(SETTLE, GRACE, [id(7)]);
    assert!(!shelf.intake().desired.synced);
    assert_eq!(shelf.intake().desired.deleted, BTreeSet::from([id(7)]));
}

#[test]
fn what_is_there_at_first_is_in_force_at_once_and_known_to_be_all_once_it_is_quiet() {
    let mut story = Story::new();
    story.arrived(vec![good(0, 0)]);
    story.expect(false, [0], []);
    story.pass(400);
    story.take(vec![good(1, 1)]);
    story.pass(400);
    story.expect(false, 0..2, []);
    story.pass(100);
    story.expect(true, 0..2, []);
}

#[test]
fn few_removals_are_explicit_a_grace_later_also_the_last_one() {
    for settled in [true, false] {
        let mut story = Story::new();
        story.arrived(vec![good(0, 0), good(1, 1)]);
        story.pass(if settled { 500 } else { 0 });
        story.take(vec![absent(0)]);
        story.pass(49);
        story.expect(settled, 0..2, []);
        story.pass(1);
        story.expect(settled, [1], [0]);
        story.take(vec![absent(1)]);
        story.pass(50);
        story.expect(settled, [], [0, 1]);
        story.pass(500);
        story.expect(true, [], [0, 1]);
    }
}

#[test]
fn a_file_that_is_made_anew_was_never_gone() {
    let mut story = Story::with(3);
    let before = story.intake();
    story.take(vec![absent(0)]);
    story.pass(49);
    // Something happens to it, and again it is not there when it is looked at.
    story.take(vec![absent(0)]);
    story.pass(49);
    story.shelf.stirred([&file(0)], story.now);
    story.pass(49);
    story.expect(true, 0..3, []);
    // It is there, but not yet written.
    story.take(vec![bad(0, None)]);
    story.pass(1000);
    story.expect(true, 0..3, []);
    story.take(vec![good(0, 0)]);
    story.pass(1000);
    story.expect(true, 0..3, []);
    assert!(Arc::ptr_eq(&before.desired.vifs[&id(0)], &story.intake().desired.vifs[&id(0)]));
}

#[test]
fn records_that_swap_their_files_are_not_deleted() {
    let mut story = Story::with(2);
    story.take(vec![good(0, 1)]);
    story.take(vec![good(1, 0)]);
    story.pass(500);
    story.expect(true, 0..2, []);
}

#[test]
fn rewriting_many_files_one_after_the_other_is_no_burst() {
    let mut story = Story::with(20);
    for n in 0..20 {
        story.take(vec![absent(n)]);
        story.pass(10);
        story.take(vec![good(n, n)]);
    }
    story.expect(true, 0..20, []);
    story.take(vec![absent(0)]);
    story.pass(50);
    story.expect(true, 1..20, [0]);
}

#[test]
fn a_burst_waits_for_a_file_that_is_being_made_anew() {
    let mut story = Story::with(20);
    story.take((0..10).map(absent).collect());
    story.pass(499);
    story.shelf.stirred([&file(3)], story.now);
    story.pass(499);
    story.expect(true, 0..20, []);
    story.take(vec![good(3, 3)]);
    story.pass(500);
    story.expect(true, std::iter::once(3).chain(10..20), (0..3).chain(4..10));
}

#[test]
fn a_tenth_of_a_large_set_is_few() {
    let mut story = Story::with(100);
    story.take((0..10).map(absent).collect());
    story.pass(50);
    story.expect(true, 10..100, 0..10);
}

#[test]
fn small_removals_in_a_row_add_up_to_a_burst() {
    let mut story = Story::with(20);
    for n in 0..6 {
        story.take(vec![absent(n)]);
        story.pass(20);
    }
    // The sixth makes it a burst, and those before it that are not believed to be gone yet belong to it.
    story.expect(true, 3..20, 0..3);
    story.pass(500);
    story.expect(true, 6..20, 0..6);
}

#[test]
fn slow_removals_are_each_for_themselves() {
    let mut story = Story::with(20);
    for n in 0..10 {
        story.take(vec![absent(n)]);
        story.pass(200);
        story.expect(true, n + 1..20, 0..=n);
    }
}

#[test]
fn a_burst_that_leaves_files_is_explicit_once_it_is_quiet() {
    let mut story = Story::with(100);
    story.take((0..40).map(absent).collect());
    story.expect(true, 0..100, []);
    story.pass(400);
    story.take((40..60).map(absent).collect());
    story.pass(400);
    story.expect(true, 0..100, []);
    story.pass(100);
    story.expect(true, 60..100, 0..60);
}

#[test]
fn a_burst_that_leaves_nothing_removes_nothing_until_it_is_confirmed() {
    let mut story = Story::with(100);
    story.take((0..60).map(absent).collect());
    story.take((60..100).map(absent).collect());
    story.expect(false, 0..100, []);
    story.pass(60_000);
    story.expect(false, 0..100, []);
    assert!(story.intake().problem.unwrap().contains("is empty, but 100 VIFs"));
    let (ids, effects) = story.shelf.confirm_empty();
    story.note(effects);
    assert_eq!(ids.len(), 100);
    story.expect(true, [], 0..100);
}

#[test]
fn only_an_emptied_directory_can_be_confirmed() {
    for mut story in [Story::with(3), Story::with(0)] {
        assert_eq!(story.shelf.confirm_empty().0, BTreeSet::new());
    }
    let mut story = Story::with(3);
    story.vanished();
    assert_eq!(story.shelf.confirm_empty().0, BTreeSet::new());
    story.expect(false, 0..3, []);
}

/// A hundred VIFs that an emptied directory lacks.
fn emptied() -> Story {
    let mut story = Story::with(100);
    story.take((0..100).map(absent).collect());
    story
}

#[test]
fn after_emptying_each_is_missed_until_it_is_back() {
    let mut story = emptied();
    let before = story.intake();
    for n in 0..100 {
        story.expect(false, 0..100, []);
        story.take(vec![good(n, n)]);
        story.pass(60_000);
        let missing = format!("{} VIFs", 99 - n);
        assert!(n == 99 || story.intake().problem.unwrap().contains(&missing));
    }
    story.expect(true, 0..100, []);
    let after = story.intake();
    assert!((0..100).all(|n| Arc::ptr_eq(&before.desired.vifs[&id(n)], &after.desired.vifs[&id(n)])));
}

#[test]
fn after_emptying_what_nobody_knew_replaces_nothing() {
    let mut story = emptied();
    story.take(vec![good(0, 0), good(200, 200)]);
    story.pass(60_000);
    story.expect(false, (0..100).chain([200]), []);
    let (ids, effects) = story.shelf.confirm_empty();
    story.note(effects);
    assert_eq!(ids, (1..100).map(id).collect());
    story.expect(true, [0, 200], 1..100);
}

#[test]
fn after_emptying_what_is_missing_can_be_deleted_by_name() {
    let mut story = emptied();
    story.take((0..98).map(|n| good(n, n)).collect());
    for n in [98, 99] {
        story.expect(false, (0..98).chain(n..100), 98..n);
        let effects = story.shelf.delete(id(n), story.now);
        story.note(effects);
    }
    story.pass(500);
    story.expect(true, 0..98, [98, 99]);
}

#[test]
fn after_emptying_a_file_that_is_back_can_be_removed_unless_none_is_left() {
    let mut story = emptied();
    story.take(vec![good(0, 0), good(1, 1)]);
    story.take(vec![absent(0)]);
    story.pass(50);
    story.expect(false, 1..100, [0]);
    story.take(vec![absent(1)]);
    story.pass(60_000);
    story.expect(false, 1..100, [0]);
}

#[test]
fn after_emptying_the_directory_s_absence_changes_nothing() {
    let mut story = emptied();
    story.vanished();
    story.arrived(vec![good(0, 0)]);
    story.pass(60_000);
    story.expect(false, 0..100, []);
    story.vanished();
    story.arrived((0..100).map(|n| good(n, n)).collect());
    story.pass(500);
    story.expect(true, 0..100, []);
    // What was missing was back: what is missing now is missing from a directory that came whole.
    story.vanished();
    story.arrived(vec![good(0, 0)]);
    story.pass(500);
    story.expect(true, [0], []);
}

#[test]
fn a_directory_that_goes_takes_nothing_with_it() {
    let mut story = Story::with(3);
    story.vanished();
    story.expect(false, 0..3, []);
    story.pass(60_000);
    story.expect(false, 0..3, []);
}

#[test]
fn a_directory_that_goes_during_a_burst_takes_nothing_with_it() {
    let mut story = Story::with(100);
    story.take((0..50).map(absent).collect());
    story.vanished();
    story.pass(60_000);
    story.expect(false, 0..100, []);
}

#[test]
fn what_is_missing_when_it_comes_back_is_absent_once_it_is_quiet() {
    let mut story = Story::with(10);
    story.vanished();
    story.arrived((0..4).map(|n| good(n, n)).collect());
    story.expect(false, 0..10, []);
    story.pass(400);
    story.take(vec![good(4, 4)]);
    story.pass(400);
    story.expect(false, 0..10, []);
    story.pass(100);
    story.expect(true, 0..5, []);
}

#[test]
fn a_file_removed_before_it_settles_is_deleted() {
    let mut story = Story::with(3);
    story.vanished();
    story.arrived((0..3).map(|n| good(n, n)).collect());
    story.take(vec![absent(2)]);
    story.pass(500);
    story.expect(true, 0..2, [2]);
}

#[test]
fn many_removed_before_it_settles_are_absent_not_deleted() {
    let mut story = Story::new();
    story.arrived((0..20).map(|n| good(n, n)).collect());
    story.take((0..10).map(absent).collect());
    story.expect(false, 0..20, []);
    story.pass(500);
    story.expect(true, 10..20, []);
}

#[test]
fn empty_when_it_comes_back_is_not_believed() {
    let mut story = Story::with(3);
    story.vanished();
    story.arrived(vec![]);
    story.take(vec![good(0, 0)]);
    story.pass(60_000);
    story.expect(false, 0..3, []);
}

#[test]
fn a_record_that_is_the_same_after_the_directory_s_absence_is_the_same() {
    let mut story = Story::with(2);
    let before = story.intake();
    story.vanished();
    let (_, other) = (file(1), Reading::Good(Arc::new(vif(1, 2))));
    story.arrived(vec![good(7, 0), (file(1), other)]);
    let after = story.intake();
    assert!(Arc::ptr_eq(&before.desired.vifs[&id(0)], &after.desired.vifs[&id(0)]));
    assert_eq!(after.desired.vifs[&id(1)].generation, 2);
    // Mended as it was, and renamed.
    story.take(vec![bad(1, None)]);
    story.take(vec![(file(1), Reading::Good(Arc::new(vif(1, 2))))]);
    story.take(vec![absent(1), (file(9), Reading::Good(Arc::new(vif(1, 2))))]);
    assert!(Arc::ptr_eq(&after.desired.vifs[&id(1)], &story.intake().desired.vifs[&id(1)]));
}

#[test]
fn a_directory_that_appears_late_is_believed_once_it_is_quiet() {
    let mut story = Story::new();
    story.vanished();
    story.arrived(vec![good(0, 0)]);
    story.expect(false, [0], []);
    story.pass(500);
    story.expect(true, [0], []);
}

#[test]
fn a_spoilt_file_leaves_its_vif_as_it_was_and_says_why() {
    let mut story = Story::with(2);
    story.take(vec![bad(1, None)]);
    story.expect(true, 0..2, []);
    let rejections = story.intake().rejections;
    assert_eq!((rejections[0].record.as_str(), rejections[0].vif), ("0001.json", Some(id(1))));
    story.take(vec![good(1, 1)]);
    assert!(story.intake().rejections.is_empty());
}

#[test]
fn a_spoilt_file_keeps_its_last_good_record_over_the_directory_s_absence() {
    let mut story = Story::with(2);
    for named in [Some(1), None] {
        story.vanished();
        story.arrived(vec![good(0, 0), bad(1, named)]);
        story.pass(500);
        story.expect(true, 0..2, []);
        assert!(story.intake().desired.unreadable.is_empty());
    }
}

#[test]
fn a_bad_record_of_a_known_id_is_unreadable_and_does_not_stop_the_rest() {
    let story = Story::start(vec![good(0, 0), bad(1, Some(1))]);
    story.expect(true, [0], []);
    assert_eq!(story.intake().desired.unreadable, BTreeSet::from([id(1)]));
}

#[test]
fn a_bad_record_that_may_be_any_vif_makes_absence_unsafe() {
    let mut story = Story::start(vec![good(0, 0), bad(1, None)]);
    story.expect(false, [0], []);
    assert!(story.intake().problem.unwrap().contains("0001.json"));
    story.take(vec![absent(1)]);
    story.expect(true, [0], []);
}

#[test]
fn while_any_vif_may_be_hidden_a_returned_directory_is_not_believed() {
    let mut story = Story::with(3);
    story.vanished();
    story.arrived(vec![good(0, 0), bad(9, None)]);
    story.pass(60_000);
    story.expect(false, 0..3, []);
    story.take(vec![absent(9)]);
    story.pass(500);
    story.expect(true, [0], []);
}

#[test]
fn of_two_files_the_first_by_name_counts() {
    let mut story = Story::start(vec![(file(5), Reading::Good(Arc::new(vif(0, 5)))), good(3, 0)]);
    let intake = story.intake();
    assert_eq!(intake.desired.vifs[&id(0)].generation, 1);
    assert_eq!(intake.rejections[0].record, "0005.json");
    assert_eq!(intake.rejections[0].vif, Some(id(0)));
    story.take(vec![absent(3)]);
    assert_eq!(story.intake().desired.vifs[&id(0)].generation, 5);
    story.expect(true, [0], []);
}

#[test]
fn a_file_that_becomes_another_vif_s_deletes_the_first() {
    let mut story = Story::with(2);
    story.take(vec![good(1, 7)]);
    story.pass(50);
    story.expect(true, [0, 7], [1]);
}

#[test]
fn a_renamed_file_is_still_its_vif() {
    let mut story = Story::with(2);
    story.take(vec![absent(1), good(9, 1)]);
    story.pass(500);
    story.expect(true, 0..2, []);
}

#[test]
fn a_vif_that_is_back_is_not_deleted_any_more() {
    let mut story = Story::with(2);
    story.take(vec![absent(1)]);
    story.pass(50);
    story.expect(true, [0], [1]);
    story.take(vec![good(1, 1)]);
    story.expect(true, 0..2, []);
}

#[test]
fn what_is_gone_is_forgotten_unless_it_was_deleted_again_since() {
    let mut story = Story::with(2);
    story.take(vec![absent(1)]);
    story.pass(50);
    let deleted = story.intake().revision;
    let effects = story.shelf.gone(id(1), deleted - 1);
    story.note(effects);
    story.expect(true, [0], [1]);
    let effects = story.shelf.gone(id(1), deleted);
    story.note(effects);
    story.expect(true, [0], []);
}

#[test]
fn deleting_by_name_passes_whatever_the_state() {
    let mut story = Story::with(100);
    story.take((0..100).map(absent).collect());
    story.pass(500);
    let effects = story.shelf.delete(id(3), story.now);
    story.note(effects);
    story.expect(false, (0..100).filter(|n| *n != 3), [3]);
    // A VIF that has no record at all.
    let effects = story.shelf.delete(id(1000), story.now);
    story.note(effects);
    story.expect(false, (0..100).filter(|n| *n != 3), [3, 1000]);
}

#[test]
fn deleting_by_name_takes_every_file_of_the_vif_and_no_other() {
    let mut story = Story::start(vec![good(0, 0), good(1, 0), bad(2, Some(0)), good(3, 1)]);
    story.take(vec![bad(3, Some(0))]);
    assert_eq!(story.shelf.files_of(id(0)), [file(0), file(1), file(2)]);
    let effects = story.shelf.delete(id(0), story.now);
    story.note(effects);
    story.expect(true, [1], [0]);
}

#[test]
fn reading_the_same_again_is_no_news() {
    let mut story = Story::start(vec![good(0, 0), bad(1, Some(1))]);
    let before = story.intake();
    story.take(vec![good(0, 0), bad(1, Some(1)), absent(8)]);
    let after = story.intake();
    assert_eq!(before.revision, after.revision);
    assert!(Arc::ptr_eq(&before.desired.vifs[&id(0)], &after.desired.vifs[&id(0)]));
}

/// One thing that happens to a directory.
#[derive(Clone, Debug)]
enum Happening {
    Write(u32, u32, u64),
    Spoil(u32, Option<u32>),
    Remove(u32),
    Rename(u32, u32),
    Clear,
    Go,
    Return,
    Pass(u64),
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        8 => (0u32..12, 0u32..10, 1u64..3).prop_map(|(f, n, g)| Happening::Write(f, n, g)),
        2 => (0u32..12, proptest::option::of(0u32..10)).prop_map(|(f, n)| Happening::Spoil(f, n)),
        4 => (0u32..12).prop_map(Happening::Remove),
        2 => (0u32..12, 0u32..12).prop_map(|(a, b)| Happening::Rename(a, b)),
        1 => Just(Happening::Clear),
        1 => Just(Happening::Go),
        2 => Just(Happening::Return),
        3 => (0u64..600).prop_map(Happening::Pass),
    ]
}

proptest! {
    /// Whatever happened before: once it is quiet, what the files hold is wanted just as a fresh reading
    /// has it, nothing is both wanted and deleted, and a VIF goes only by name, or while the set is synced.
    #[test]
    fn any_history_ends_as_a_fresh_reading(history in proptest::collection::vec(happening(), 0..60)) {
        let mut story = Story::with(0);
        let mut there = true;
        let mut files: BTreeMap<OsString, Reading> = BTreeMap::new();
        for happening in history {
            let wanted_before: BTreeSet<VifId> = story.intake().desired.vifs.keys().copied().collect();
            match happening {
                Happening::Write(f, n, generation) => {
                    files.insert(file(f), Reading::Good(Arc::new(vif(n, generation))));
                    if there { story.take(vec![(file(f), files[&file(f)].clone())]); }
                }
                Happening::Spoil(f, n) => {
                    files.insert(file(f), bad(f, n).1);
                    if there { story.take(vec![(file(f), files[&file(f)].clone())]); }
                }
                Happening::Remove(f) => {
                    files.remove(&file(f));
                    if there { story.take(vec![absent(f)]); }
                }
                Happening::Rename(a, b) if a != b => {
                    if let Some(reading) = files.remove(&file(a)) {
                        files.insert(file(b), reading.clone());
                        if there { story.take(vec![absent(a), (file(b), reading)]); }
                    }
                }
                Happening::Rename(..) => {}
                Happening::Clear => {
                    let all = std::mem::take(&mut files);
                    if there { story.take(all.into_keys().map(|name| (name, Reading::Absent)).collect()); }
                }
                Happening::Go => { there = false; story.vanished(); }
                Happening::Return if !there => {
                    there = true;
                    story.arrived(files.clone().into_iter().collect());
                }
                Happening::Return => {}
                Happening::Pass(milliseconds) => story.pass(milliseconds),
            }
            let desired = story.intake().desired;
            prop_assert!(desired.deleted.iter().all(|id| !desired.vifs.contains_key(id)));
            for id in wanted_before {
                let explained = desired.vifs.contains_key(&id) || desired.deleted.contains(&id) || desired.synced;
                prop_assert!(explained, "{id} went while the set was not synced");
            }
        }
        if !there {
            story.arrived(files.clone().into_iter().collect());
        }
        story.pass(1000);
        story.pass(1000);
        let end = story.intake();
        let fresh = Story::start(files.clone().into_iter().collect()).intake();
        // A spoilt file may keep what it last held; every other file counts as in a fresh reading.
        let spoilt = files.values().any(|reading| matches!(reading, Reading::Bad(..)));
        if !spoilt {
            // An emptied directory lacks what it lacks until somebody says that it may.
            if !end.desired.synced {
                let (missing, effects) = story.shelf.confirm_empty();
                story.note(effects);
                prop_assert!(!missing.is_empty() && missing.iter().all(|id| !fresh.desired.vifs.contains_key(id)));
            }
            let end = story.intake();
            prop_assert!(end.desired.synced);
            prop_assert_eq!(&end.desired.vifs, &fresh.desired.vifs);
            prop_assert_eq!(&end.rejections, &fresh.rejections);
            prop_assert!(end.desired.unreadable.is_empty());
        }
        for (id, vif) in &fresh.desired.vifs {
            if !spoilt { prop_assert_eq!(end.desired.vifs.get(id), Some(vif)); }
            else { prop_assert!(end.desired.vifs.contains_key(id)); }
        }
    }
}
