//! The character devices of macvtaps, in a directory of our own: there are nodes of other namespaces in `/dev`.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use tokio::sync::watch;
use vifd::backend::links::{LinkOp, LinksConfig};
use vifd::backend::{Backend, Outcome};
use vifd::model::{DeviceAccess, DeviceOwner, DirectMode, Link, LinkState, View};

use super::kinds::{macvtap, pair};
use super::{apply, delete, in_namespace, ready, seen, shown};

const ROOTS: DeviceOwner = DeviceOwner { uid: 0, gid: 0, mode: 0o600 };
const ACCESS: DeviceAccess = DeviceAccess { uid: Some(12345), gid: None, mode: Some(0o660) };
const HYPERVISORS: DeviceOwner = DeviceOwner { uid: 12345, gid: 0, mode: 0o660 };

/// Puts something at a path.
type Put<'a> = &'a dyn Fn(&Path);

/// Gives this thread, and those that it starts, the `/sys` of its network namespace.
fn own_sysfs() {
    unshare(CloneFlags::CLONE_NEWNS).expect("a mount namespace of its own");
    for arguments in [&["--make-rprivate", "/"][..], &["-t", "sysfs", "sysfs", "/sys"]] {
        let status = Command::new("mount").args(arguments).status().expect("needs mount");
        assert!(status.success(), "mount {arguments:?}");
    }
}

/// Makes the node of a macvtap, as devtmpfs does.
fn make_node(directory: &Path, link: &Link) -> PathBuf {
    let number = fs::read_to_string(format!("/sys/class/macvtap/tap{}/dev", link.index)).unwrap();
    let (major, minor) = number.trim().split_once(':').unwrap();
    node(&directory.join(format!("tap{}", link.index)), makedev(major.parse().unwrap(), minor.parse().unwrap()))
}

fn node(path: &Path, number: u64) -> PathBuf {
    mknod(path, SFlag::S_IFCHR, Mode::S_IRUSR | Mode::S_IWUSR, number).unwrap();
    path.to_owned()
}

fn on_disk(path: &Path) -> DeviceOwner {
    let is = fs::metadata(path).unwrap();
    DeviceOwner { uid: is.uid(), gid: is.gid(), mode: is.mode() & 0o7777 }
}

fn own(link: &Link) -> LinkOp {
    LinkOp::OwnDevice { index: link.index, name: link.name.clone(), access: ACCESS }
}

async fn device_is(view: &mut watch::Receiver<View<LinkState>>, what: &str, device: Option<DeviceOwner>) {
    shown(view, what, |state| state.links.get("direct").is_some_and(|link| link.device == device)).await;
}

#[test]
fn owner_and_mode_of_a_device_are_seen_and_put_right() {
    in_namespace(|| async {
        own_sysfs();
        let scratch = tempfile::tempdir().unwrap();
        let config = LinksConfig { device_directory: Some(scratch.path().to_owned()), ..LinksConfig::default() };
        let (mut links, mut view) = ready(config).await;
        let made = apply(&mut links, [pair("one", "two", ""), macvtap("direct", "two", DirectMode::Bridge)]).await;
        assert_eq!(made, [Outcome::Done, Outcome::Done]);
        let link = seen(&links, "direct").unwrap();
        assert_eq!(link.device, None, "nobody has made one yet");
        let outcomes = apply(&mut links, [own(&link)]).await;
        assert!(matches!(&outcomes[0], Outcome::Conflict(why) if why.contains("there is no")), "{outcomes:?}");

        let path = make_node(scratch.path(), &link);
        device_is(&mut view, "a node that was made", Some(ROOTS)).await;
        assert_eq!(apply(&mut links, [own(&link)]).await, [Outcome::Done]);
        assert_eq!(seen(&links, "direct").unwrap().device, Some(HYPERVISORS), "when `apply` returns");
        assert_eq!(on_disk(&path), HYPERVISORS);
        chown(&path, Some(7), Some(8)).unwrap();
        device_is(&mut view, "another owner", Some(DeviceOwner { uid: 7, gid: 8, mode: 0o660 })).await;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o606)).unwrap();
        device_is(&mut view, "another mode", Some(DeviceOwner { uid: 7, gid: 8, mode: 0o606 })).await;
        assert_eq!(apply(&mut links, [own(&link)]).await, [Outcome::Done]);
        assert_eq!(on_disk(&path), DeviceOwner { gid: 8, ..HYPERVISORS }, "the group is left as it is");

        // It keeps its device under another name, and whoever means the old one changes nothing.
        chown(&path, Some(0), Some(0)).unwrap();
        let wrong = Link { name: "direct2".into(), ..link.clone() };
        let outcomes = apply(&mut links, [own(&wrong)]).await;
        assert!(matches!(outcomes[0], Outcome::Conflict(_)), "{outcomes:?}");
        assert_eq!(on_disk(&path).uid, 0);

        fs::remove_file(&path).unwrap();
        device_is(&mut view, "a node that was removed", None).await;
        make_node(scratch.path(), &link);
        device_is(&mut view, "a node that was made again", Some(ROOTS)).await;
        assert_eq!(apply(&mut links, [delete(&link)]).await, [Outcome::Done]);
        assert_eq!(seen(&links, "direct"), None);
    });
}

#[test]
fn nothing_but_the_device_of_the_macvtap_is_changed() {
    in_namespace(|| async {
        own_sysfs();
        let scratch = tempfile::tempdir().unwrap();
        let config = LinksConfig { device_directory: Some(scratch.path().to_owned()), ..LinksConfig::default() };
        let (mut links, mut view) = ready(config).await;
        apply(
            &mut links,
            [
                pair("one", "two", ""),
                macvtap("direct", "two", DirectMode::Bridge),
                macvtap("other", "two", DirectMode::Bridge),
            ],
        )
        .await;
        let [link, other] = ["direct", "other"].map(|name| seen(&links, name).unwrap());
        let path = make_node(scratch.path(), &link);
        let others = make_node(scratch.path(), &other);
        device_is(&mut view, "a node", Some(ROOTS)).await;
        fs::remove_file(&path).unwrap();
        device_is(&mut view, "none", None).await;

        let file = scratch.path().join("file");
        let in_its_place: [(&str, Put<'_>); 4] = [
            ("a link to a file", &|path| symlink(&file, path).unwrap()),
            ("a link to another's device", &|path| symlink(&others, path).unwrap()),
            ("a file", &|path| fs::write(path, "").unwrap()),
            ("another device", &|path| drop(node(path, makedev(1, 3)))),
        ];
        for (what, put) in in_its_place {
            fs::write(&file, "").unwrap();
            put(&path);
            let before = fs::symlink_metadata(&path).unwrap();
            links.resync().await;
            assert_eq!(seen(&links, "direct").unwrap().device, None, "{what}");
            let outcomes = apply(&mut links, [own(&link)]).await;
            let refused = matches!(&outcomes[0], Outcome::Conflict(why) if why.contains("is not the character device"));
            assert!(refused, "{what}: {outcomes:?}");
            let after = fs::symlink_metadata(&path).unwrap();
            assert_eq!((after.uid(), after.mode()), (before.uid(), before.mode()), "{what}");
            assert_eq!(fs::metadata(&file).unwrap().uid(), 0, "{what}");
            assert_eq!(on_disk(&others), ROOTS, "{what}");
            fs::remove_file(&path).unwrap();
        }
    });
}

#[test]
fn without_a_sysfs_of_the_namespace_there_is_no_device() {
    in_namespace(|| async {
        let scratch = tempfile::tempdir().unwrap();
        let config = LinksConfig { device_directory: Some(scratch.path().to_owned()), ..LinksConfig::default() };
        let (mut links, _) = ready(config).await;
        apply(&mut links, [pair("one", "two", ""), macvtap("direct", "two", DirectMode::Bridge)]).await;
        let link = seen(&links, "direct").unwrap();
        node(&scratch.path().join(format!("tap{}", link.index)), makedev(1, 3));
        let outcomes = apply(&mut links, [own(&link)]).await;
        assert!(matches!(&outcomes[0], Outcome::Conflict(why) if why.contains("sysfs")), "{outcomes:?}");
        assert_eq!(seen(&links, "direct").unwrap().device, None);
    });
}
