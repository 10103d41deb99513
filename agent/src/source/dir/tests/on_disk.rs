//! The source on a real directory.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::time::timeout;

use super::super::{DirSource, Options};
use super::{decode, id, record};
use crate::model::VifId;
use crate::source::{Intake, WriteError};

/// Only keeps a failed test from hanging.
const LIMIT: Duration = Duration::from_secs(20);

struct Scene {
    root: TempDir,
    source: DirSource,
}

impl Scene {
    /// A source on `vifs` below a fresh directory, which `prepare` may fill.
    async fn start(prepare: impl FnOnce(&Path)) -> Scene {
        let root = tempfile::tempdir().unwrap();
        let vifs = root.path().join("vifs");
        fs::create_dir(&vifs).unwrap();
        prepare(&vifs);
        let source = spawn(root.path());
        let scene = Scene { root, source };
        let filling = |intake: &Intake| intake.problem.as_ref().is_some_and(|p| p.contains("only just come"));
        scene.until("it has been read and is quiet", |intake| intake.revision > 0 && !filling(intake)).await;
        scene
    }

    fn vifs(&self) -> PathBuf {
        self.root.path().join("vifs")
    }

    fn file(&self, name: &str) -> PathBuf {
        self.vifs().join(name)
    }

    /// Writes as a careful writer does.
    fn write(&self, name: &str, text: &str) {
        let new = self.root.path().join("new");
        fs::write(&new, text).unwrap();
        fs::rename(new, self.file(name)).unwrap();
    }

    fn tombstones(&self) -> BTreeSet<String> {
        let names = fs::read_dir(self.root.path().join("state/deleted")).unwrap();
        names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    async fn until(&self, what: &str, good: impl Fn(&Intake) -> bool) -> Intake {
        let mut intake = self.source.observe();
        match timeout(LIMIT, intake.wait_for(|intake| good(intake))).await {
            Ok(found) => found.unwrap().clone(),
            Err(_) => panic!("never: {what}; last {:?}", self.source.observe().borrow()),
        }
    }

    async fn until_vifs(&self, synced: bool, vifs: impl IntoIterator<Item = u32>) -> Intake {
        let vifs: BTreeSet<VifId> = vifs.into_iter().map(id).collect();
        let wanted = |intake: &Intake| intake.desired.vifs.keys().copied().collect::<BTreeSet<_>>();
        self.until(&format!("synced={synced} {vifs:?}"), |i| i.desired.synced == synced && wanted(i) == vifs).await
    }
}

fn spawn(root: &Path) -> DirSource {
    DirSource::spawn(Options::new(root.join("vifs"), root.join("state"), decode())).unwrap()
}

#[tokio::test]
async fn files_that_are_no_records_are_ignored_and_refusals_are_told() {
    let scene = Scene::start(|vifs| {
        fs::write(vifs.join("a.json"), record(1, 1)).unwrap();
        fs::write(vifs.join(".b.json"), "{").unwrap();
        fs::write(vifs.join("README"), "{").unwrap();
        fs::write(vifs.join("b.json.orig"), "{").unwrap();
        fs::create_dir(vifs.join("directory.json")).unwrap();
        symlink(vifs.join("a.json"), vifs.join("link.json")).unwrap();
        nix::unistd::mkfifo(&vifs.join("pipe.json"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        fs::write(vifs.join("large.json"), vec![b' '; (1 << 20) + 1]).unwrap();
        fs::write(vifs.join(format!("{}.json", id(9))), "{").unwrap();
    })
    .await;
    let intake = scene.source.observe().borrow().clone();
    assert_eq!(intake.desired.vifs.keys().collect::<Vec<_>>(), [&id(1)]);
    let refused: Vec<_> = intake.rejections.iter().map(|r| (r.record.as_str(), r.reason.as_str())).collect();
    let named = format!("{}.json", id(9));
    assert_eq!(refused[0].0, named);
    assert_eq!(
        refused[1..],
        [
            ("directory.json", "is not a regular file"),
            ("large.json", "is larger than 1048576 bytes"),
            ("link.json", "is a symbolic link, and those are not followed"),
            ("pipe.json", "is not a regular file"),
        ]
    );
    assert_eq!(intake.desired.unreadable, BTreeSet::from([id(9)]));
    assert!(!intake.desired.synced, "large.json may be the record of any VIF");
}

#[tokio::test]
async fn changes_are_seen() {
    let scene = Scene::start(|_| {}).await;
    scene.until_vifs(true, []).await;
    scene.write("a.json", &record(1, 1));
    scene.until_vifs(true, [1]).await;
    fs::write(scene.file("b.json"), record(2, 1)).unwrap();
    scene.until_vifs(true, [1, 2]).await;
    fs::hard_link(scene.file("b.json"), scene.file("c.json")).unwrap();
    scene.until("the second file is told", |intake| intake.rejections.len() == 1).await;
    fs::remove_file(scene.file("c.json")).unwrap();
    scene.write("a.json", "{");
    let told = |intake: &Intake| intake.rejections.iter().map(|r| r.record.clone()).collect::<Vec<_>>() == ["a.json"];
    let intake = scene.until("spoilt", told).await;
    assert_eq!(intake.desired.vifs.len(), 2);
    scene.write("a.json", &record(1, 2));
    scene.until("mended", |intake| intake.desired.vifs[&id(1)].generation == 2).await;
    fs::rename(scene.file("a.json"), scene.file("a.json.off")).unwrap();
    let intake = scene.until_vifs(true, [2]).await;
    assert_eq!(intake.desired.deleted, BTreeSet::from([id(1)]));
    assert_eq!(scene.tombstones(), BTreeSet::from([id(1).to_string()]));
    fs::rename(scene.file("a.json.off"), scene.file("a.json")).unwrap();
    scene.until("not deleted", |intake| intake.desired.deleted.is_empty()).await;
}

#[tokio::test]
async fn a_write_is_durable_under_its_own_name_and_replaces_what_counts() {
    let scene = Scene::start(|vifs| fs::write(vifs.join("alice.json"), record(1, 1)).unwrap()).await;
    let revision = scene.source.put(id(2), record(2, 1).into_bytes()).await.unwrap();
    let intake = scene.source.observe().borrow().clone();
    assert!(intake.revision >= revision && intake.desired.vifs.contains_key(&id(2)));
    assert_eq!(fs::read_to_string(scene.file(&format!("{}.json", id(2)))).unwrap(), record(2, 1));
    // A file with another name that holds the VIF is the one to replace.
    scene.source.put(id(1), record(1, 2).into_bytes()).await.unwrap();
    assert_eq!(fs::read_to_string(scene.file("alice.json")).unwrap(), record(1, 2));
    assert_eq!(scene.source.get(id(1)).await.unwrap().unwrap(), record(1, 2).into_bytes());
    assert_eq!(scene.source.get(id(3)).await.unwrap(), None);
    assert_eq!(fs::read_dir(scene.vifs()).unwrap().count(), 2, "no temporary file stays");

    let refused = scene.source.put(id(1), b"{}".to_vec()).await.unwrap_err();
    assert!(matches!(refused, WriteError::Refused(refusal) if refusal.field == "vif.number"));
    let refused = scene.source.put(id(7), record(1, 1).into_bytes()).await.unwrap_err();
    assert!(matches!(refused, WriteError::Refused(refusal) if refusal.field == "vif.id"));
    // The name that a write would take is taken by another VIF's record.
    scene.write(&format!("{}.json", id(4)), &record(5, 1));
    scene.until_vifs(true, [1, 2, 5]).await;
    let conflict = scene.source.put(id(4), record(4, 1).into_bytes()).await.unwrap_err();
    assert!(matches!(conflict, WriteError::Conflict(_)), "{conflict}");
}

#[tokio::test]
async fn a_deletion_survives_a_restart_until_nothing_is_left() {
    let scene = Scene::start(|vifs| {
        fs::write(vifs.join("a.json"), record(1, 1)).unwrap();
        fs::write(vifs.join("b.json"), record(1, 1)).unwrap();
        fs::write(vifs.join("c.json"), record(2, 1)).unwrap();
    })
    .await;
    scene.source.delete(id(1)).await.unwrap();
    assert_eq!(fs::read_dir(scene.vifs()).unwrap().count(), 1, "both files of the VIF are gone");
    assert_eq!(scene.source.observe().borrow().desired.deleted, BTreeSet::from([id(1)]));
    let Scene { root, source } = scene;
    drop(source);
    let scene = Scene { source: spawn(root.path()), root };
    let intake = scene.until_vifs(true, [2]).await;
    assert_eq!(intake.desired.deleted, BTreeSet::from([id(1)]));
    scene.source.gone(id(1), intake.revision).await;
    scene.until("forgotten", |intake| intake.desired.deleted.is_empty()).await;
    scene.source.confirm_empty().await.unwrap(); // answered after the tombstone went
    assert_eq!(scene.tombstones(), BTreeSet::new());
}

#[tokio::test]
async fn a_deleted_directory_takes_nothing_with_it_and_is_read_when_it_is_back() {
    let scene = Scene::start(|vifs| {
        for n in 0..3 {
            fs::write(vifs.join(format!("{n}.json")), record(n, 1)).unwrap();
        }
    })
    .await;
    for _ in 0..2 {
        fs::remove_dir_all(scene.vifs()).unwrap();
        let intake = scene.until_vifs(false, 0..3).await;
        assert!(intake.problem.unwrap().contains("is not there"));
        let refused = scene.source.put(id(1), record(1, 1).into_bytes()).await.unwrap_err();
        assert!(matches!(refused, WriteError::Unavailable(_)));
        let refused = scene.source.delete(id(1)).await.unwrap_err();
        assert!(matches!(refused, WriteError::Unavailable(_)));

        fs::create_dir(scene.vifs()).unwrap();
        scene.until("empty", |intake| intake.problem.as_ref().is_some_and(|p| p.contains("is empty"))).await;
        scene.until_vifs(false, 0..3).await;
        for n in 0..3 {
            scene.write(&format!("{n}.json"), &record(n, 1));
        }
        let intake = scene.until_vifs(true, 0..3).await;
        assert!(intake.desired.deleted.is_empty());
    }
    // It is watched again.
    fs::remove_file(scene.file("2.json")).unwrap();
    let intake = scene.until_vifs(true, 0..2).await;
    assert_eq!(intake.desired.deleted, BTreeSet::from([id(2)]));
}

#[tokio::test]
async fn a_directory_above_that_is_moved_away_is_noticed() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("a/b/vifs");
    fs::create_dir_all(&path).unwrap();
    fs::write(path.join("1.json"), record(1, 1)).unwrap();
    let source = DirSource::spawn(Options::new(path, root.path().join("state"), decode())).unwrap();
    let scene = Scene { root, source };
    scene.until_vifs(true, [1]).await;
    fs::rename(scene.root.path().join("a"), scene.root.path().join("x")).unwrap();
    scene.until_vifs(false, [1]).await;
    // What is there now is another directory, and what it lacks is absent, not deleted.
    fs::create_dir_all(scene.root.path().join("new/b/vifs")).unwrap();
    fs::write(scene.root.path().join("new/b/vifs/2.json"), record(2, 1)).unwrap();
    fs::rename(scene.root.path().join("new"), scene.root.path().join("a")).unwrap();
    let intake = scene.until_vifs(true, [2]).await;
    assert!(intake.desired.deleted.is_empty());
    fs::rename(scene.root.path().join("a"), scene.root.path().join("y")).unwrap();
    scene.until_vifs(false, [2]).await;
    fs::rename(scene.root.path().join("x"), scene.root.path().join("a")).unwrap();
    scene.until_vifs(true, [1]).await;
}

#[tokio::test]
async fn a_directory_behind_a_symbolic_link_is_found_when_it_comes() {
    let root = tempfile::tempdir().unwrap();
    symlink(root.path().join("elsewhere/vifs"), root.path().join("vifs")).unwrap();
    let scene = Scene { source: spawn(root.path()), root };
    scene.until("it is missed", |intake| intake.revision > 0).await;
    fs::create_dir_all(scene.root.path().join("elsewhere/vifs")).unwrap();
    fs::write(scene.file("1.json"), record(1, 1)).unwrap();
    scene.until_vifs(true, [1]).await;
    fs::remove_dir_all(scene.root.path().join("elsewhere")).unwrap();
    scene.until_vifs(false, [1]).await;
}

#[tokio::test]
async fn a_file_in_its_place_is_told() {
    let scene = Scene::start(|vifs| fs::write(vifs.join("1.json"), record(1, 1)).unwrap()).await;
    fs::rename(scene.vifs(), scene.root.path().join("away")).unwrap();
    fs::write(scene.vifs(), "").unwrap();
    let said = |intake: &Intake| intake.problem.as_ref().is_some_and(|p| p.contains("is not a directory"));
    scene.until("told", said).await;
    scene.until_vifs(false, [1]).await;
}

#[tokio::test]
async fn an_emptied_directory_unplugs_nothing_until_confirmed() {
    let scene = Scene::start(|vifs| {
        for n in 0..100 {
            fs::write(vifs.join(format!("{n}.json")), record(n, 1)).unwrap();
        }
    })
    .await;
    for entry in fs::read_dir(scene.vifs()).unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
    }
    let intake = scene.until_vifs(false, 0..100).await;
    assert!(intake.desired.deleted.is_empty());
    let confirmed = scene.source.confirm_empty().await.unwrap();
    assert_eq!(confirmed.len(), 100);
    let intake = scene.until_vifs(true, []).await;
    assert_eq!(intake.desired.deleted.len(), 100);
    assert_eq!(scene.tombstones().len(), 100);
}

#[tokio::test]
async fn many_removals_that_leave_files_are_meant() {
    let scene = Scene::start(|vifs| {
        for n in 0..100 {
            fs::write(vifs.join(format!("{n}.json")), record(n, 1)).unwrap();
        }
    })
    .await;
    for n in 0..60 {
        fs::remove_file(scene.file(&format!("{n}.json"))).unwrap();
    }
    let intake = scene.until_vifs(true, 60..100).await;
    assert_eq!(intake.desired.deleted.len(), 60);
}

#[tokio::test]
async fn concurrent_writes_all_arrive() {
    let scene = Scene::start(|_| {}).await;
    let mut writers = tokio::task::JoinSet::new();
    for n in 0..500 {
        let source = scene.source.clone();
        writers.spawn(async move {
            source.put(id(n % 250), record(n % 250, 1).into_bytes()).await.unwrap();
            if n % 5 == 0 { source.delete(id(n % 250)).await } else { Ok(0) }.unwrap();
        });
    }
    while let Some(done) = writers.join_next().await {
        done.unwrap();
    }
    let left = |intake: &Intake| intake.desired.vifs.len();
    let now = left(&scene.source.observe().borrow());
    assert_eq!(fs::read_dir(scene.vifs()).unwrap().count(), now);
    assert!((200..=250).contains(&now), "{now}");
    drop(scene.source);
    let fresh = Scene { source: spawn(scene.root.path()), root: scene.root };
    fresh.until("the same after a restart", |intake| intake.desired.synced && left(intake) == now).await;
}

/// 10,000 records are read whole, and a change among them is one new intake. How long it took is printed.
#[tokio::test]
async fn ten_thousand_files() {
    const MANY: u32 = 10_000;
    let root = tempfile::tempdir().unwrap();
    fs::create_dir(root.path().join("vifs")).unwrap();
    for n in 0..MANY {
        fs::write(root.path().join(format!("vifs/{n}.json")), record(n, 1)).unwrap();
    }
    let began = Instant::now();
    let scene = Scene { source: spawn(root.path()), root };
    scene.until("all are read", |intake| intake.desired.synced && intake.desired.vifs.len() == MANY as usize).await;
    println!("{MANY} records read in {:?}", began.elapsed());

    let before = scene.source.observe().borrow().revision;
    let began = Instant::now();
    scene.write("17.json", &record(17, 2));
    scene.until("the change is seen", |intake| intake.desired.vifs[&id(17)].generation == 2).await;
    println!("a change among them seen in {:?}", began.elapsed());
    assert_eq!(scene.source.observe().borrow().revision, before + 1, "its own reading wakes it not");
}

/// Files are replaced the way tar, git and install do it, removed and made anew, over and over: nobody may see
/// their VIFs deleted, or without a record.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_is_replaced_by_removing_it_is_never_missed() {
    const FILES: u32 = 4;
    const ROUNDS: u64 = 1500;
    let root = tempfile::tempdir().unwrap();
    fs::create_dir(root.path().join("vifs")).unwrap();
    for n in 0..FILES {
        fs::write(root.path().join(format!("vifs/{n}.json")), record(n, 0)).unwrap();
    }
    let mut options = Options::new(root.path().join("vifs"), root.path().join("state"), decode());
    // Longer than a busy machine lets a writer wait between its removing and its making.
    options.grace = Duration::from_millis(250);
    let scene = Scene { source: DirSource::spawn(options).unwrap(), root };
    let whole: BTreeSet<VifId> = (0..FILES).map(id).collect();
    scene.until_vifs(true, 0..FILES).await;

    let mut intake = scene.source.observe();
    let watching = tokio::spawn(async move {
        let mut seen = 0;
        loop {
            let now = intake.borrow_and_update().clone();
            assert_eq!(now.desired.deleted, BTreeSet::new());
            assert_eq!(now.desired.vifs.keys().copied().collect::<BTreeSet<_>>(), whole);
            seen += 1;
            if now.desired.vifs.values().all(|vif| vif.generation == ROUNDS) {
                return seen;
            }
            intake.changed().await.unwrap();
        }
    });
    let directory = scene.vifs();
    let writing = tokio::task::spawn_blocking(move || {
        for round in 1..=ROUNDS {
            for n in 0..FILES {
                let path = directory.join(format!("{n}.json"));
                fs::remove_file(&path).unwrap();
                // Now and then as long as it takes for the absence to be read.
                if round % 30 == 0 && n == 0 {
                    std::thread::sleep(Duration::from_millis(60));
                }
                fs::write(&path, record(n, round)).unwrap();
            }
        }
    });
    writing.await.unwrap();
    let seen = timeout(LIMIT, watching).await.expect("the last generation is never seen").unwrap();
    println!("{seen} intakes seen during {} rewrites", ROUNDS * u64::from(FILES));
    assert!(seen > 10, "it was hardly looked at");
    // And what is removed for good goes.
    fs::remove_file(scene.file("0.json")).unwrap();
    let last = scene.until_vifs(true, 1..FILES).await;
    assert_eq!(last.desired.deleted, BTreeSet::from([id(0)]));
}
