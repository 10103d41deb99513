//! The directory of vhost-user sockets.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use tokio::sync::watch;
use vifd::backend::Outcome;
use vifd::backend::links::{LinkOp, LinksConfig};
use vifd::model::{FileOwner, LinkState, View};

use super::{apply, in_namespace, ready, seen, shown, tap};

/// A directory that is removed with its content at the end of the test.
fn scratch() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("vifd-links-").tempdir().unwrap()
}

fn config(directory: &Path) -> LinksConfig {
    LinksConfig { socket_directory: Some(directory.to_owned()), ..LinksConfig::default() }
}

fn make(path: PathBuf, uid: u32, mode: u32) -> LinkOp {
    LinkOp::MakeSocketDirectory { path, owner: FileOwner { uid, gid: uid, mode, label: None } }
}

fn directories(view: &watch::Receiver<View<LinkState>>) -> Vec<PathBuf> {
    view.borrow().ready().unwrap().sockets.directories.keys().cloned().collect()
}

#[test]
fn socket_directories_are_made_and_put_right() {
    in_namespace(|| async {
        let scratch = scratch();
        let allowed = scratch.path().join("vhost");
        let (mut links, view) = ready(config(&allowed)).await;
        assert_eq!(directories(&view), [] as [PathBuf; 0], "it does not exist yet");

        let outcomes = apply(&mut links, [make(allowed.join("a/b"), 12345, 0o2770)]).await;
        assert_eq!(outcomes, [Outcome::Done]);
        assert_eq!(directories(&view), [allowed.clone(), allowed.join("a"), allowed.join("a/b")]);
        let on_disk = fs::metadata(allowed.join("a/b")).unwrap();
        assert_eq!((on_disk.uid(), on_disk.gid(), on_disk.mode() & 0o7777), (12345, 12345, 0o2770));
        let owner = view.borrow().ready().unwrap().sockets.directories[&allowed.join("a/b")].clone();
        assert_eq!((owner.uid, owner.gid, owner.mode), (12345, 12345, 0o2770));

        // The one that is named is put right; those on the way are left as they are.
        fs::set_permissions(allowed.join("a"), fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(apply(&mut links, [make(allowed.join("a/b"), 54321, 0o700)]).await, [Outcome::Done]);
        let state = view.borrow().ready().unwrap().sockets.directories.clone();
        assert_eq!((state[&allowed.join("a/b")].uid, state[&allowed.join("a/b")].mode), (54321, 0o700));
        assert_eq!((state[&allowed.join("a")].uid, state[&allowed.join("a")].mode), (12345, 0o755));

        // A label is set where one is given, and left alone where none is.
        let label = Some("system_u:object_r:virt_var_run_t:s0".to_owned());
        let labelled = FileOwner { uid: 54321, gid: 54321, mode: 0o700, label };
        let path = allowed.join("a/b");
        let outcomes = apply(&mut links, [LinkOp::MakeSocketDirectory { path, owner: labelled.clone() }]).await;
        assert_eq!(outcomes, [Outcome::Done], "the file system must have security attributes");
        assert_eq!(view.borrow().ready().unwrap().sockets.directories[&allowed.join("a/b")], labelled);
        assert_eq!(apply(&mut links, [make(allowed.join("a/b"), 54321, 0o711)]).await, [Outcome::Done]);
        let state = view.borrow().ready().unwrap().sockets.directories[&allowed.join("a/b")].clone();
        assert_eq!(state, FileOwner { mode: 0o711, ..labelled });

        for outside in ["../elsewhere", "a/../../elsewhere", "a/b/c/d"] {
            let outcomes = apply(&mut links, [make(allowed.join(outside), 0, 0o700)]).await;
            assert!(matches!(&outcomes[0], Outcome::Failed(why) if why.contains("levels below")), "{outcomes:?}");
        }
        assert!(!scratch.path().join("elsewhere").exists());
    });
}

#[test]
fn symbolic_links_below_the_directory_are_not_followed() {
    in_namespace(|| async {
        let scratch = scratch();
        let real = scratch.path().join("real");
        let outside = scratch.path().join("outside");
        fs::create_dir_all(&real).unwrap();
        fs::create_dir_all(outside.join("deep")).unwrap();
        // The way to the directory may be a link, as /var/run is.
        let allowed = scratch.path().join("vhost");
        symlink(&real, &allowed).unwrap();
        symlink(&outside, allowed.join("link")).unwrap();
        let _outside = UnixListener::bind(outside.join("sock")).unwrap();
        let _inside = UnixListener::bind(allowed.join("sock")).unwrap();
        symlink(allowed.join("sock"), allowed.join("sock-link")).unwrap();
        let before = fs::metadata(&outside).unwrap();

        let (mut links, view) = ready(config(&allowed)).await;
        assert_eq!(directories(&view), std::slice::from_ref(&allowed));
        let sockets = view.borrow().ready().unwrap().sockets.sockets.clone();
        assert_eq!(sockets, [allowed.join("sock")].into());

        let outcomes = apply(
            &mut links,
            [
                make(allowed.join("link"), 12345, 0o777),
                make(allowed.join("link/deep"), 12345, 0o777),
                make(allowed.join("link/new"), 12345, 0o777),
                LinkOp::RemoveSocket { path: allowed.join("link/sock") },
                LinkOp::RemoveSocket { path: allowed.join("sock-link") },
            ],
        )
        .await;
        assert!(outcomes.iter().all(|outcome| matches!(outcome, Outcome::Failed(_))), "{outcomes:?}");
        let after = fs::metadata(&outside).unwrap();
        assert_eq!((after.uid(), after.mode()), (before.uid(), before.mode()));
        assert_ne!(fs::metadata(outside.join("deep")).unwrap().uid(), 12345);
        assert!(!outside.join("new").exists());
        assert!(outside.join("sock").exists());
        assert!(allowed.join("sock").exists());
    });
}

#[test]
fn only_sockets_are_removed() {
    in_namespace(|| async {
        let scratch = scratch();
        let allowed = scratch.path().join("vhost");
        fs::create_dir_all(allowed.join("a")).unwrap();
        fs::write(allowed.join("file"), "kept").unwrap();
        drop(UnixListener::bind(allowed.join("a/left-over")).unwrap());
        drop(UnixListener::bind(scratch.path().join("outside")).unwrap());
        let (mut links, view) = ready(config(&allowed)).await;
        let remove = |path: PathBuf| LinkOp::RemoveSocket { path };
        let outcomes = apply(
            &mut links,
            [
                remove(allowed.join("a/left-over")),
                remove(allowed.join("a/never-was")),
                remove(allowed.join("file")),
                remove(allowed.join("a")),
                remove(allowed.clone()),
                remove(scratch.path().join("outside")),
            ],
        )
        .await;
        assert_eq!(outcomes[..2], [Outcome::Done, Outcome::Done]);
        for outcome in &outcomes[2..] {
            assert!(matches!(outcome, Outcome::Failed(_)), "{outcomes:?}");
        }
        assert!(allowed.join("file").exists() && allowed.join("a").exists() && scratch.path().join("outside").exists());
        assert_eq!(view.borrow().ready().unwrap().sockets.sockets, BTreeSet::new());
    });
}

#[test]
fn changes_in_the_socket_directory_are_seen_wherever_they_happen() {
    in_namespace(|| async {
        let scratch = scratch();
        let allowed = scratch.path().join("run/vhost");
        let (links, mut view) = ready(config(&allowed)).await;

        // Twice: it appears together with its parent, changes, and goes.
        for round in 0..2 {
            fs::create_dir_all(allowed.join("vm")).unwrap();
            let socket = allowed.join("vm/sock");
            let listener = UnixListener::bind(&socket).unwrap();
            shown(&mut view, &format!("a socket, round {round}"), |state| state.sockets.sockets.contains(&socket))
                .await;
            fs::set_permissions(allowed.join("vm"), fs::Permissions::from_mode(0o711)).unwrap();
            shown(&mut view, "a new mode", |state| state.sockets.directories[&allowed.join("vm")].mode == 0o711).await;
            fs::remove_file(&socket).unwrap();
            shown(&mut view, "no socket", |state| state.sockets.sockets.is_empty()).await;
            drop(listener);
            // Deleted and made again at once.
            fs::remove_dir_all(&allowed).unwrap();
            fs::create_dir(&allowed).unwrap();
            drop(UnixListener::bind(allowed.join("again")).unwrap());
            shown(&mut view, "a directory made again", |state| {
                state.sockets.sockets.contains(&allowed.join("again"))
                    && state.sockets.directories.keys().eq([&allowed])
            })
            .await;
            drop(UnixListener::bind(allowed.join("later")).unwrap());
            shown(&mut view, "a change in it", |state| state.sockets.sockets.contains(&allowed.join("later"))).await;
            fs::remove_dir_all(scratch.path().join("run")).unwrap();
            shown(&mut view, "no directory", |state| state.sockets.directories.is_empty()).await;
        }
        assert_eq!(links.statistics().writes, 0);
    });
}

#[test]
fn links_are_shown_where_no_socket_directory_can_be() {
    in_namespace(|| async {
        let scratch = scratch();
        fs::write(scratch.path().join("file"), "in the way").unwrap();
        let (mut links, view) = ready(config(&scratch.path().join("file/vhost"))).await;
        assert_eq!(directories(&view), [] as [PathBuf; 0]);
        let outcomes = apply(&mut links, [make(scratch.path().join("file/vhost/a"), 0, 0o700), tap("tap1")]).await;
        assert!(matches!(outcomes[0], Outcome::Failed(_)), "{outcomes:?}");
        assert_eq!(outcomes[1], Outcome::Done);
        assert!(seen(&links, "tap1").is_some());
    });
}
