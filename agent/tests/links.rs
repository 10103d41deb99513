//! The links backend on a real kernel. Every test runs in a network namespace of its own, which goes with the
//! test's thread; nothing is seen of it outside. It takes root, `ip` and `/dev/net/tun`: without them the tests
//! fail and say so.

// The functions that the tests share are tests too.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeSet;
use std::fs;
use std::future::Future;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, unshare};
use tokio::sync::watch;
use vifd::backend::links::{LinkOp, Links, LinksConfig, ResyncReason};
use vifd::backend::{Attributed, Backend, Outcome};
use vifd::model::{FileOwner, Link, LinkKind, LinkState, MacAddr, View};

/// For the kernel to tell us of a change: milliseconds on an idle machine.
const PATIENCE: Duration = Duration::from_secs(10);

const MARK: &str = "vifd/1 test dc065497-3c8d-4f44-8fb4-e1d33c16a536";

/// Runs `body` on a thread with a network namespace of its own.
fn in_namespace<F: Future<Output = ()>>(body: impl FnOnce() -> F + Send + 'static) {
    assert!(nix::unistd::geteuid().is_root(), "needs root: it makes a network namespace");
    assert!(Path::new("/dev/net/tun").exists(), "needs /dev/net/tun");
    let thread = std::thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace of its own");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(body());
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

fn ip(arguments: &str) {
    let output = Command::new("ip").args(arguments.split(' ')).output().expect("needs ip (iproute2)");
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

fn ip_batch(commands: &str) {
    let mut child = Command::new("ip").args(["-batch", "-"]).stdin(Stdio::piped()).spawn().expect("needs ip");
    child.stdin.take().unwrap().write_all(commands.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
}

fn tap(name: &str) -> LinkOp {
    LinkOp::CreateTap { name: name.into(), mac: None, mtu: 1500, multi_queue: false, up: true, alias: MARK.into() }
}

fn change(link: &Link) -> LinkOp {
    LinkOp::ChangeLink { index: link.index, name: link.name.clone(), mac: None, mtu: None, up: None, alias: None }
}

fn delete(link: &Link) -> LinkOp {
    let alias = link.alias.clone().unwrap_or_default();
    LinkOp::DeleteLink { index: link.index, name: link.name.clone(), alias }
}

async fn apply(links: &mut Links, ops: impl IntoIterator<Item = LinkOp>) -> Vec<Outcome> {
    links.apply(ops.into_iter().map(|op| Attributed { vif: None, op }).collect()).await
}

/// Waits until the view shows what is wanted.
async fn shown(view: &mut watch::Receiver<View<LinkState>>, what: &str, test: impl Fn(&LinkState) -> bool) {
    let shown = tokio::time::timeout(PATIENCE, view.wait_for(|view| view.ready().is_some_and(&test))).await;
    let shown = shown.map(|view| drop(view.unwrap()));
    assert!(shown.is_ok(), "not shown in {PATIENCE:?}: {what}: {:#?}", view.borrow());
}

/// A link as the view has it now.
fn seen(links: &Links, name: &str) -> Option<Link> {
    links.observe().borrow().ready()?.links.get(name).map(|link| Link::clone(link))
}

async fn ready(config: LinksConfig) -> (Links, watch::Receiver<View<LinkState>>) {
    let links = Links::spawn(config).unwrap();
    let mut view = links.observe();
    shown(&mut view, "the first view", |state| state.links.contains_key("lo")).await;
    (links, view)
}

#[test]
fn a_tap_is_as_it_was_asked_for() {
    in_namespace(|| async {
        let (mut links, _) = ready(LinksConfig::default()).await;
        let mac = MacAddr([0xfe, 0x16, 0x3e, 1, 2, 3]);
        let full = LinkOp::CreateTap {
            name: "tap-full".into(),
            mac: Some(mac),
            mtu: 1450,
            multi_queue: true,
            up: true,
            alias: MARK.into(),
        };
        // While it is down the kernel tells of neither the mark nor the persistence: the backend has to ask.
        let down = LinkOp::CreateTap {
            name: "tap-down".into(),
            mac: None,
            mtu: 9000,
            multi_queue: false,
            up: false,
            alias: "other".into(),
        };
        assert_eq!(apply(&mut links, [full, down]).await, [Outcome::Done, Outcome::Done]);
        assert_eq!(links.statistics().writes, 2);

        let full = seen(&links, "tap-full").unwrap();
        let expected = Link {
            index: full.index,
            name: "tap-full".into(),
            kind: LinkKind::Tap { multi_queue: true, persistent: true },
            mac: Some(mac),
            mtu: 1450,
            up: true,
            alias: Some(MARK.into()),
            master: None,
        };
        assert_eq!(full, expected);
        let down = seen(&links, "tap-down").unwrap();
        assert!(down.mac.is_some(), "the kernel chose one");
        let expected = Link {
            index: down.index,
            name: "tap-down".into(),
            kind: LinkKind::Tap { multi_queue: false, persistent: true },
            mac: down.mac,
            mtu: 9000,
            up: false,
            alias: Some("other".into()),
            master: None,
        };
        assert_eq!(down, expected);

        // The same from another mouth: as `ip tuntap add` makes them.
        let told = Command::new("ip").args(["-d", "link", "show", "tap-full"]).output().unwrap();
        let told = String::from_utf8(told.stdout).unwrap();
        for word in
            ["tun type tap pi off vnet_hdr off", "persist on", "multi_queue", "mtu 1450", "fe:16:3e:01:02:03", MARK]
        {
            assert!(told.contains(word), "{word:?} is not in {told}");
        }
        if Path::new("/proc/sys/net/ipv6").exists() {
            let disabled = fs::read_to_string("/proc/sys/net/ipv6/conf/tap-full/disable_ipv6").unwrap();
            assert_eq!(disabled.trim(), "1");
        }
    });
}

#[test]
fn a_failed_operation_stops_no_other_and_leaves_no_tap() {
    in_namespace(|| async {
        let (mut links, _) = ready(LinksConfig::default()).await;
        ip("link add taken type bridge");
        let LinkOp::CreateTap { name: _, mac, multi_queue, up, alias, .. } = tap("x") else { unreachable!() };
        let too_big = LinkOp::CreateTap { name: "tap-big".into(), mac, mtu: 1 << 20, multi_queue, up, alias };
        let outcomes = apply(&mut links, [too_big, tap("tap%d"), tap("taken"), tap("tap-good"), tap("tap-good")]).await;
        assert!(matches!(&outcomes[0], Outcome::Failed(why) if why.contains("tap-big")), "{outcomes:?}");
        assert!(matches!(&outcomes[1], Outcome::Failed(why) if why.contains("not a name")), "{outcomes:?}");
        assert!(matches!(&outcomes[2], Outcome::Conflict(why) if why.contains("\"taken\" exists")), "{outcomes:?}");
        assert_eq!(outcomes[3], Outcome::Done);
        assert!(matches!(&outcomes[4], Outcome::Conflict(_)), "a tap is never taken over: {outcomes:?}");
        let view = links.observe();
        let names: BTreeSet<_> = view.borrow().ready().unwrap().links.keys().cloned().collect();
        assert_eq!(names, ["lo", "tap-good", "taken"].map(String::from).into());
    });
}

/// The other half of the next test: makes taps until it is killed.
#[test]
#[ignore = "run by a_crash_leaves_only_marked_taps, which kills it"]
fn victim() {
    let Ok(round) = std::env::var("VICTIM_ROUND") else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut links = Links::spawn(LinksConfig::default()).unwrap();
        println!("started");
        apply(&mut links, (0..5000).map(|number| tap(&format!("t{round}-{number}")))).await;
    });
}

#[test]
fn a_crash_leaves_only_marked_taps() {
    in_namespace(|| async {
        for round in 0..15 {
            let mut victim = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "victim", "--ignored", "--nocapture"])
                .env("VICTIM_ROUND", round.to_string())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let mut lines = std::io::BufRead::lines(std::io::BufReader::new(victim.stdout.take().unwrap()));
            assert!(lines.any(|line| line.unwrap().ends_with("started")));
            // Somewhere in the life of some tap, a different place each time.
            std::thread::sleep(Duration::from_micros(5000 + round * 731));
            victim.kill().unwrap();
            victim.wait().unwrap();
        }
        let (mut links, view) = ready(LinksConfig::default()).await;
        let left: Vec<Link> = {
            let view = view.borrow();
            let links = &view.ready().unwrap().links;
            links.values().filter(|link| link.name != "lo").map(|link| Link::clone(link)).collect()
        };
        assert!(!left.is_empty(), "the victims died before they made anything");
        for link in &left {
            assert_eq!(link.kind, LinkKind::Tap { multi_queue: false, persistent: true }, "{link:?}");
            assert_eq!(link.alias.as_deref(), Some(MARK), "{link:?}");
        }
        eprintln!("{} taps survived 15 crashes, all of them marked", left.len());
        let outcomes = apply(&mut links, left.iter().map(delete)).await;
        assert!(outcomes.iter().all(|outcome| *outcome == Outcome::Done), "{outcomes:?}");
    });
}

#[test]
fn what_is_done_by_hand_is_seen() {
    in_namespace(|| async {
        let (links, mut view) = ready(LinksConfig::default()).await;
        ip("link add first type bridge");
        shown(&mut view, "a new link", |state| state.links.contains_key("first")).await;
        let index = seen(&links, "first").unwrap().index;
        assert_eq!(seen(&links, "first").unwrap().kind, LinkKind::Other("bridge".into()));

        ip("link set first name second");
        shown(&mut view, "a rename", |state| {
            state.links.get("second").is_some_and(|link| link.index == index) && !state.links.contains_key("first")
        })
        .await;
        ip("link set second mtu 1400 address 02:00:00:00:00:01 up");
        shown(&mut view, "its changes", |state| {
            let link = &state.links["second"];
            (link.mtu, link.mac, link.up) == (1400, Some(MacAddr([2, 0, 0, 0, 0, 1])), true)
        })
        .await;
        ip("link set second alias handwritten");
        shown(&mut view, "its alias", |state| state.links["second"].alias.as_deref() == Some("handwritten")).await;

        // The kernel says RTM_DELLINK, of the bridge's family, of a link that only leaves its bridge.
        ip("link add port type veth peer name peer");
        ip("link set port master second");
        shown(&mut view, "a master", |state| state.links.get("port").is_some_and(|port| port.master == Some(index)))
            .await;
        ip("link set port nomaster");
        shown(&mut view, "no master", |state| state.links["port"].master.is_none()).await;

        ip("link delete second");
        shown(&mut view, "a deletion", |state| !state.links.contains_key("second")).await;

        ip("tuntap add mode tun name layer3");
        shown(&mut view, "a layer 3 tun", |state| state.links.contains_key("layer3")).await;
        assert_eq!(seen(&links, "layer3").unwrap().kind, LinkKind::Other("tun".into()));
        let statistics = links.statistics();
        assert_eq!((statistics.writes, statistics.resyncs.iter().sum::<u64>()), (0, 1), "events were enough");
        assert!(statistics.events >= 8, "{statistics:?}");
    });
}

#[test]
fn names_may_change_hands() {
    in_namespace(|| async {
        let (links, mut view) = ready(LinksConfig::default()).await;
        ip_batch("link add name a type bridge\nlink add name b type bridge\n");
        shown(&mut view, "two links", |state| state.links.contains_key("b")).await;
        let (a, b) = (seen(&links, "a").unwrap().index, seen(&links, "b").unwrap().index);
        ip_batch("link set dev a name swap\nlink set dev b name a\nlink set dev swap name b\n");
        shown(&mut view, "swapped names", |state| {
            let index = |name| state.links.get(name).map(|link| link.index);
            (index("a"), index("b"), state.links.len()) == (Some(b), Some(a), 3)
        })
        .await;
    });
}

#[test]
fn a_changed_link_is_shown_when_apply_returns() {
    in_namespace(|| async {
        let (mut links, _) = ready(LinksConfig::default()).await;
        apply(&mut links, [tap("tap1")]).await;
        let before = seen(&links, "tap1").unwrap();
        let mac = Some(MacAddr([2, 0, 0, 0, 0, 9]));
        let LinkOp::ChangeLink { index, name, .. } = change(&before) else { unreachable!() };
        let outcomes = apply(
            &mut links,
            [LinkOp::ChangeLink { index, name, mac, mtu: Some(1400), up: Some(false), alias: Some("new mark".into()) }],
        )
        .await;
        assert_eq!(outcomes, [Outcome::Done]);
        let after = seen(&links, "tap1").unwrap();
        let expected = Link { mac, mtu: 1400, up: false, alias: Some("new mark".into()), ..before };
        assert_eq!(after, expected);

        // The link is down now: of an alias alone the kernel sends no notification.
        let LinkOp::ChangeLink { index, name, mac, mtu, up, .. } = change(&after) else { unreachable!() };
        let outcomes =
            apply(&mut links, [LinkOp::ChangeLink { index, name, mac, mtu, up, alias: Some(String::new()) }]).await;
        assert_eq!(outcomes, [Outcome::Done]);
        assert_eq!(seen(&links, "tap1").unwrap(), Link { alias: None, ..after });
    });
}

#[test]
fn operations_are_guarded_by_what_was_seen() {
    in_namespace(|| async {
        let (mut links, _) = ready(LinksConfig::default()).await;
        apply(&mut links, [tap("one"), tap("two"), tap("three")]).await;
        let [one, two, three] = ["one", "two", "three"].map(|name| seen(&links, name).unwrap());

        let outcomes = apply(
            &mut links,
            [
                // Its index now belongs to another name.
                delete(&Link { index: two.index, ..one.clone() }),
                // Its mark is not the one that was seen.
                delete(&Link { alias: Some("vifd/1 other".into()), ..one.clone() }),
                delete(&Link { alias: None, ..one.clone() }),
                // It never was.
                delete(&Link { index: 4_000_000, ..one.clone() }),
                change(&Link { index: 4_000_000, ..one.clone() }),
                change(&Link { name: "two".into(), ..one.clone() }),
                delete(&three),
            ],
        )
        .await;
        for outcome in &outcomes[..6] {
            assert!(matches!(outcome, Outcome::Conflict(_)), "{outcomes:?}");
        }
        assert_eq!(outcomes[6], Outcome::Done);
        assert_eq!(seen(&links, "one"), Some(one.clone()));
        assert_eq!(seen(&links, "two"), Some(two));
        assert_eq!(seen(&links, "three"), None);
        let statistics = links.statistics();
        assert_eq!((statistics.writes, statistics.resyncs_for(ResyncReason::Conflict)), (4, 1));

        // Made again under the old name: the index is the guard. No view needs to have shown it.
        ip("link delete one");
        ip("link add one type bridge");
        let outcomes = apply(&mut links, [delete(&one)]).await;
        assert!(matches!(&outcomes[0], Outcome::Conflict(why) if why.contains("gone")), "{outcomes:?}");
        assert_eq!(seen(&links, "one").unwrap().kind, LinkKind::Other("bridge".into()));
    });
}

#[test]
fn lost_notifications_lead_to_a_new_list() {
    in_namespace(|| async {
        // Room for about one notification.
        let config = LinksConfig { receive_buffer: 4096, ..LinksConfig::default() };
        let (mut links, mut view) = ready(config).await;
        let mut commands = String::new();
        for number in 0..200 {
            commands.push_str(&format!("link add flood{number} type bridge\n"));
        }
        for number in 0..100 {
            commands.push_str(&format!("link delete flood{number}\nlink set flood{} mtu 1234\n", number + 100));
        }
        for number in 100..200 {
            commands.push_str(&format!("link set flood{number} name stays{number} mtu 1300\n"));
        }
        // This thread's runtime reads nothing while `ip` runs.
        ip_batch(&commands);
        let expected: BTreeSet<String> =
            (100..200).map(|number| format!("stays{number}")).chain(["lo".into()]).collect();
        shown(&mut view, "what is left after the flood", |state| {
            state.links.keys().eq(&expected)
                && state.links.values().filter(|link| link.name != "lo").all(|link| link.mtu == 1300)
        })
        .await;
        let statistics = links.statistics();
        assert!(statistics.resyncs_for(ResyncReason::Overrun) >= 1, "nothing was lost: {statistics:?}");

        // With so little room a batch overruns too, and is shown all the same.
        let outcomes = apply(&mut links, (0..100).map(|number| tap(&format!("tap{number}")))).await;
        assert!(outcomes.iter().all(|outcome| *outcome == Outcome::Done), "{outcomes:?}");
        let taps = view.borrow().ready().unwrap().links.values().filter(|link| link.up && link.alias.is_some()).count();
        assert_eq!(taps, 100);
    });
}

#[test]
fn thousands_of_taps_go_in_one_batch() {
    in_namespace(|| async {
        const TAPS: usize = 2000;
        let (mut links, view) = ready(LinksConfig::default()).await;
        let ops = (0..TAPS).map(|number| {
            let [high, low] = u16::try_from(number).unwrap().to_be_bytes();
            LinkOp::CreateTap {
                name: format!("tap{number}"),
                mac: Some(MacAddr([0xfe, 0x16, 0x3e, 0, high, low])),
                mtu: 1450,
                multi_queue: false,
                up: true,
                alias: format!("vifd/1 test {number}"),
            }
        });
        let begun = Instant::now();
        let outcomes = apply(&mut links, ops).await;
        let made = begun.elapsed();
        assert!(outcomes.iter().all(|outcome| *outcome == Outcome::Done));
        let taps: Vec<Link> = {
            let view = view.borrow();
            view.ready()
                .unwrap()
                .links
                .values()
                .filter(|link| link.name != "lo")
                .map(|link| Link::clone(link))
                .collect()
        };
        assert_eq!(taps.len(), TAPS);
        for tap in &taps {
            assert_eq!(tap.kind, LinkKind::Tap { multi_queue: false, persistent: true }, "{tap:?}");
            assert_eq!((tap.mtu, tap.up), (1450, true), "{tap:?}");
            assert_eq!(tap.alias, Some(format!("vifd/1 test {}", &tap.name[3..])));
        }

        let begun = Instant::now();
        let outcomes = apply(
            &mut links,
            taps.iter().map(|link| LinkOp::ChangeLink {
                index: link.index,
                name: link.name.clone(),
                mac: None,
                mtu: Some(1400),
                up: None,
                alias: None,
            }),
        )
        .await;
        let changed = begun.elapsed();
        assert!(outcomes.iter().all(|outcome| *outcome == Outcome::Done));
        assert!(view.borrow().ready().unwrap().links.values().all(|link| link.name == "lo" || link.mtu == 1400));

        let begun = Instant::now();
        let outcomes = apply(&mut links, taps.iter().map(delete)).await;
        let deleted = begun.elapsed();
        assert!(outcomes.iter().all(|outcome| *outcome == Outcome::Done));
        assert_eq!(view.borrow().ready().unwrap().links.len(), 1);
        eprintln!(
            "{TAPS} taps: made in {made:?}, changed in {changed:?}, deleted in {deleted:?}; {:?}",
            links.statistics()
        );
    });
}

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
        assert_eq!(directories(&view), [allowed.clone()]);
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
