//! Links of every kind: made, changed, refused, and what a crash leaves of them.

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use vifd::backend::links::{LinkChange, LinkOp, Links, LinksConfig, NewKind, NewLink};
use vifd::backend::{Backend, Outcome};
use vifd::model::{BridgeConfig, DirectMode, Link, LinkKind, MacAddr};

use super::{MARK, PATIENCE, apply, change, delete, fresh, in_namespace, ip, ready, seen, shown};

/// As os-vif makes the bridge of a hybrid plug.
const HYBRID: BridgeConfig = BridgeConfig { ageing_time: 0, forward_delay: 0, stp: false, multicast_snooping: false };

fn create(link: NewLink, kind: NewKind) -> LinkOp {
    LinkOp::CreateLink { link: Box::new(link), kind }
}

fn bridge(name: &str) -> LinkOp {
    create(fresh(name), NewKind::Bridge(HYBRID))
}

/// A veth pair as of a hybrid plug; the first end goes into the bridge, if there is one.
pub(super) fn pair(one: &str, two: &str, bridge: &str) -> LinkOp {
    let end = |name| NewLink { promiscuous: true, mtu: Some(1450), ..fresh(name) };
    let master = Some(bridge.to_owned()).filter(|bridge| !bridge.is_empty());
    create(NewLink { master, ..end(one) }, NewKind::Veth(Box::new(end(two))))
}

pub(super) fn macvtap(name: &str, on: &str, mode: DirectMode) -> LinkOp {
    create(NewLink { mtu: Some(1450), ..fresh(name) }, NewKind::Macvtap { on: on.into(), mode })
}

fn setting(family: &str, link: &str, setting: &str) -> String {
    fs::read_to_string(format!("/proc/sys/net/{family}/conf/{link}/{setting}")).unwrap().trim().to_owned()
}

fn names(links: &Links) -> Vec<String> {
    links.observe().borrow().ready().unwrap().links.keys().cloned().collect()
}

#[test]
fn a_hybrid_set_is_made_in_one_batch() {
    in_namespace(|| async {
        let (mut links, _) = ready(LinksConfig::default()).await;
        let mac = MacAddr([0x0e, 0, 0, 0, 0, 7]);
        let made = create(NewLink { mac: Some(mac), mtu: Some(1450), ..fresh("qbr") }, NewKind::Bridge(HYBRID));
        let outcomes = apply(&mut links, [made, pair("qvb", "qvo", "qbr")]).await;
        assert_eq!(outcomes, [Outcome::Done, Outcome::Done]);

        let [qbr, qvb, qvo] = ["qbr", "qvb", "qvo"].map(|name| seen(&links, name).unwrap());
        let alias = Some(MARK.to_owned());
        let expected = Link {
            mac: Some(mac),
            mtu: 1450,
            up: true,
            alias: alias.clone(),
            ..Link::new(qbr.index, "qbr", LinkKind::Bridge(HYBRID))
        };
        assert_eq!(qbr, expected);
        for (end, other, master) in [(&qvb, &qvo, Some(qbr.index)), (&qvo, &qvb, None)] {
            let expected = Link {
                mac: end.mac,
                mtu: 1450,
                up: true,
                promiscuous: true,
                alias: alias.clone(),
                master,
                lower: Some(other.index),
                ..Link::new(end.index, end.name.clone(), LinkKind::Veth)
            };
            assert_eq!(*end, expected);
        }
        assert_eq!(setting("ipv6", "qbr", "disable_ipv6"), "1");
        assert_eq!(
            (setting("ipv4", "qbr", "arp_ignore"), setting("ipv4", "qbr", "arp_announce")),
            ("1".into(), "2".into())
        );
        assert_eq!(setting("ipv6", "qvo", "disable_ipv6"), "0", "as os-vif leaves it");

        // One end takes the other with it, of which the view knows when `apply` returns.
        assert_eq!(apply(&mut links, [delete(&qvo), delete(&qbr)]).await, [Outcome::Done, Outcome::Done]);
        assert_eq!(names(&links), ["lo"]);
    });
}

#[test]
fn a_macvtap_has_the_mode_that_was_asked_for() {
    in_namespace(|| async {
        let (mut links, _) = ready(LinksConfig::default()).await;
        apply(&mut links, [bridge("lower"), pair("one", "two", "lower")]).await;
        for mode in [DirectMode::Vepa, DirectMode::Bridge, DirectMode::Passthrough] {
            let mac = Some(MacAddr([2, 0, 0, 0, 0, 8]));
            let kind = NewKind::Macvtap { on: "two".into(), mode };
            let made = create(NewLink { mac, mtu: Some(1400), ..fresh("direct") }, kind);
            assert_eq!(apply(&mut links, [made]).await, [Outcome::Done], "{mode:?}");
            let link = seen(&links, "direct").unwrap();
            let expected = Link {
                mac,
                mtu: 1400,
                up: true,
                alias: Some(MARK.into()),
                lower: Some(seen(&links, "two").unwrap().index),
                ..Link::new(link.index, "direct", LinkKind::Macvtap { mode: Some(mode) })
            };
            assert_eq!(link, expected);
            assert_eq!(setting("ipv6", "direct", "disable_ipv6"), "1");
            assert_eq!(apply(&mut links, [delete(&link)]).await, [Outcome::Done]);
        }
    });
}

/// VLAN links themselves are made in the VM lab, whose kernel has them: `integration/tests/in_vm.rs`.
#[test]
fn a_kind_that_the_kernel_does_not_have_is_named() {
    in_namespace(|| async {
        let (mut links, _) = ready(LinksConfig::default()).await;
        let vlan = create(fresh("lo.7"), NewKind::Vlan { on: "lo".into(), id: 7 });
        let outcomes = apply(
            &mut links,
            [bridge("below"), create(fresh("vlan7"), NewKind::Vlan { on: "below".into(), id: 7 }), vlan],
        )
        .await;
        if outcomes[1] == Outcome::Done {
            eprintln!("this kernel has VLAN links: what is said where it has none was not tried");
            let link = seen(&links, "vlan7").unwrap();
            assert_eq!(link.kind, LinkKind::Vlan { id: 7 });
            assert_eq!((link.up, link.alias.as_deref()), (true, Some(MARK)));
            return;
        }
        assert!(
            matches!(&outcomes[1], Outcome::Failed(why) if why.contains("cannot make vlan \"vlan7\": this kernel has no links of kind \"vlan\"")),
            "{outcomes:?}"
        );
        assert_eq!(names(&links), ["below", "lo"]);
    });
}

#[test]
fn what_is_refused_leaves_nothing_without_a_mark() {
    in_namespace(|| async {
        let (mut links, _) = ready(LinksConfig::default()).await;
        ip("link add taken type bridge");
        ip("link add end type veth peer name other");
        let with_mtu = |name: &str, mtu| NewLink { mtu: Some(mtu), ..fresh(name) };
        let enslaved = |name: &str, master: &str| NewLink { master: Some(master.into()), ..fresh(name) };
        let veth = |one, two| create(one, NewKind::Veth(Box::new(two)));
        let outcomes = apply(
            &mut links,
            [
                bridge("taken"),
                veth(fresh("fresh"), fresh("taken")),
                veth(fresh("taken"), fresh("fresh")),
                macvtap("direct", "missing", DirectMode::Bridge),
                create(with_mtu("bad1", 70_000), NewKind::Bridge(HYBRID)),
                veth(with_mtu("bad2", 1500), with_mtu("bad3", 70_000)),
                create(with_mtu("bad4", 9_000), NewKind::Macvtap { on: "end".into(), mode: DirectMode::Bridge }),
                create(NewLink { alias: "x".repeat(300), ..fresh("bad5") }, NewKind::Bridge(HYBRID)),
                veth(fresh("good1"), enslaved("good2", "nowhere")),
                veth(fresh("good3"), enslaved("good4", "end")),
            ],
        )
        .await;
        let conflict = |at: usize, words: &str| {
            assert!(matches!(&outcomes[at], Outcome::Conflict(why) if why.contains(words)), "{at}: {outcomes:#?}");
        };
        let failed = |at: usize, words: &str| {
            assert!(matches!(&outcomes[at], Outcome::Failed(why) if why.contains(words)), "{at}: {outcomes:#?}");
        };
        conflict(0, "a link named \"taken\" exists");
        conflict(1, "a link named \"fresh\" or \"taken\" exists");
        conflict(2, "a link named \"taken\" or \"fresh\" exists");
        conflict(3, "cannot make macvtap \"direct\": there is no \"missing\"");
        failed(4, "cannot make bridge \"bad1\"");
        failed(5, "cannot make veth \"bad2\"");
        failed(6, "cannot make macvtap \"bad4\"");
        failed(7, "cannot make bridge \"bad5\"");
        conflict(8, "there is no bridge \"nowhere\"");
        conflict(9, "\"end\" is a veth and not a bridge");
        // What has its mark stays, and the planner sees to the rest of it.
        assert_eq!(names(&links), ["end", "good1", "good2", "good3", "good4", "lo", "other", "taken"]);
        for name in ["good1", "good2", "good3", "good4"] {
            let link = seen(&links, name).unwrap();
            assert_eq!((link.alias.as_deref(), link.group, link.master), (Some(MARK), 0, None), "{link:?}");
        }
        assert!(seen(&links, "taken").is_some_and(|link| link.alias.is_none()), "a link is never taken over");
    });
}

#[test]
fn changes_are_shown_when_apply_returns() {
    in_namespace(|| async {
        let (mut links, _) = ready(LinksConfig::default()).await;
        apply(&mut links, [bridge("qbr"), bridge("qbs"), pair("qvb", "qvo", "qbr")]).await;
        let qvo = seen(&links, "qvo").unwrap();
        let to = |to: LinkChange| LinkChange { ..to };
        let none = LinkChange::default;

        // A rename, up again in the same operation.
        let renamed = to(LinkChange { rename: Some("qvx".into()), up: Some(true), ..none() });
        assert_eq!(apply(&mut links, [change(&qvo, renamed)]).await, [Outcome::Done]);
        let qvx = seen(&links, "qvx").unwrap();
        assert_eq!(qvx, Link { name: "qvx".into(), ..qvo });
        assert_eq!(seen(&links, "qvo"), None);
        // One that is down stays so, and is told of.
        let down = to(LinkChange { up: Some(false), ..none() });
        apply(&mut links, [change(&qvx, down)]).await;
        let qvx = Link { up: false, ..qvx };
        let renamed = to(LinkChange { rename: Some("qvo".into()), ..none() });
        assert_eq!(apply(&mut links, [change(&qvx, renamed)]).await, [Outcome::Done]);
        assert_eq!(seen(&links, "qvo").unwrap(), Link { name: "qvo".into(), ..qvx });
        let taken = to(LinkChange { rename: Some("qvb".into()), ..none() });
        let qvo = seen(&links, "qvo").unwrap();
        let outcomes = apply(&mut links, [change(&qvo, taken)]).await;
        assert!(matches!(&outcomes[0], Outcome::Conflict(why) if why.contains("\"qvb\" exists")), "{outcomes:?}");

        for up in [false, true] {
            // Of a link that is down the kernel tells less.
            for promiscuous in [true, false] {
                let qvo = seen(&links, "qvo").unwrap();
                let change_to = to(LinkChange { promiscuous: Some(promiscuous), up: Some(up), ..none() });
                assert_eq!(apply(&mut links, [change(&qvo, change_to)]).await, [Outcome::Done]);
                assert_eq!(seen(&links, "qvo").unwrap(), Link { promiscuous, up, ..qvo });
            }
            for name in ["qbs", "qbr"] {
                let index = seen(&links, name).unwrap().index;
                let qvo = seen(&links, "qvo").unwrap();
                let change_to = to(LinkChange { master: Some(name.into()), up: Some(up), ..none() });
                assert_eq!(apply(&mut links, [change(&qvo, change_to)]).await, [Outcome::Done]);
                assert_eq!(seen(&links, "qvo").unwrap(), Link { master: Some(index), up, ..qvo });
            }
            for config in
                [BridgeConfig { ageing_time: 1_000, forward_delay: 200, stp: true, multicast_snooping: true }, HYBRID]
            {
                let qbs = seen(&links, "qbs").unwrap();
                let change_to = to(LinkChange { bridge: Some(config), up: Some(up), ..none() });
                assert_eq!(apply(&mut links, [change(&qbs, change_to)]).await, [Outcome::Done]);
                assert_eq!(seen(&links, "qbs").unwrap(), Link { kind: LinkKind::Bridge(config), up, ..qbs });
            }
        }
        let nowhere = to(LinkChange { master: Some("qvb".into()), ..none() });
        let qvo = seen(&links, "qvo").unwrap();
        let outcomes = apply(&mut links, [change(&qvo, nowhere)]).await;
        assert!(
            matches!(&outcomes[0], Outcome::Conflict(why) if why.contains("is a veth and not a bridge")),
            "{outcomes:?}"
        );
    });
}

#[test]
fn addresses_are_followed() {
    in_namespace(|| async {
        ip("link add early type bridge");
        ip("addr add 192.0.2.1/24 dev early");
        let (links, mut view) = ready(LinksConfig::default()).await;
        let of = |links: &Links, name: &str| -> Vec<String> {
            seen(links, name).unwrap().addresses.iter().map(ToString::to_string).collect()
        };
        assert_eq!(of(&links, "early"), ["192.0.2.1/24"]);
        assert!(of(&links, "lo").is_empty(), "of the host alone");
        ip("addr add 192.0.2.2/24 dev early");
        ip("link set early up");
        ip("addr add 2001:db8::1/64 dev early nodad");
        ip("addr add 198.51.100.1 peer 198.51.100.2/32 dev early");
        ip("addr add 169.254.1.1/16 dev early scope link");
        // Of which messages about the link say nothing.
        ip("link set early mtu 1400");
        shown(&mut view, "all of them", |state| {
            let early = &state.links["early"];
            early.mtu == 1400 && early.addresses.len() == 4
        })
        .await;
        assert_eq!(of(&links, "early"), ["192.0.2.1/24", "192.0.2.2/24", "198.51.100.1/32", "2001:db8::1/64"]);
        // The secondary address goes with the first.
        ip("addr del 192.0.2.1/24 dev early");
        shown(&mut view, "fewer", |state| state.links["early"].addresses.len() == 2).await;
        ip("link set early down");
        ip("link set early name late");
        shown(&mut view, "the rename", |state| state.links.contains_key("late")).await;
        // IPv6 lets go of addresses when the link goes down.
        shown(&mut view, "one", |state| state.links["late"].addresses.len() == 1).await;
        assert_eq!(of(&links, "late"), ["198.51.100.1/32"]);
        let statistics = links.statistics();
        assert_eq!(statistics.resyncs.iter().sum::<u64>(), 1, "events were enough");
    });
}

/// The other half of the next test: makes links until it is killed.
#[test]
#[ignore = "run by a_crash_leaves_marked_links_or_the_nursery, which kills it"]
fn victim() {
    let Ok(round) = std::env::var("VICTIM_ROUND") else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut links = Links::spawn(LinksConfig::default()).unwrap();
        println!("started");
        let ops = (0..3000).flat_map(|number| {
            let name = |kind: &str| format!("{kind}{round}-{number}");
            [
                bridge(&name("qbr")),
                pair(&name("qvb"), &name("qvo"), &name("qbr")),
                macvtap(&name("mac"), &name("qvo"), DirectMode::Bridge),
            ]
        });
        apply(&mut links, ops).await;
    });
}

#[test]
fn a_crash_leaves_marked_links_or_the_nursery() {
    in_namespace(|| async {
        const ROUNDS: u64 = 40;
        for round in 0..ROUNDS {
            let mut victim = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "kinds::victim", "--ignored", "--nocapture"])
                .env("VICTIM_ROUND", round.to_string())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let mut lines = std::io::BufRead::lines(std::io::BufReader::new(victim.stdout.take().unwrap()));
            assert!(lines.any(|line| line.unwrap().ends_with("started")));
            let first = format!("qbr{round}-0:");
            let begun = Instant::now();
            while !fs::read_to_string("/proc/thread-self/net/dev").unwrap().contains(&first) {
                assert!(begun.elapsed() < PATIENCE, "the victim makes nothing");
            }
            // Somewhere in the life of some link, a different place each time.
            std::thread::sleep(Duration::from_micros(round * 331));
            victim.kill().unwrap();
            victim.wait().unwrap();
        }
        let config = LinksConfig::default();
        let nursery = config.nursery;
        let (mut links, view) = ready(config).await;
        let left: Vec<Link> = {
            let view = view.borrow();
            let links = &view.ready().unwrap().links;
            links.values().filter(|link| link.name != "lo").map(|link| Link::clone(link)).collect()
        };
        let (marked, newborn): (Vec<Link>, Vec<Link>) = left.into_iter().partition(|link| link.alias.is_some());
        for link in &marked {
            assert_eq!((link.alias.as_deref(), link.group), (Some(MARK), 0), "{link:?}");
        }
        for link in &newborn {
            assert_eq!(link.group, nursery, "{link:?}");
        }
        eprintln!("{} links survived {ROUNDS} crashes, {} of them in the nursery", marked.len(), newborn.len());
        apply(&mut links, marked.iter().chain(&newborn).map(delete)).await;
        // What stood on another or was its other end went with it: the second word about it is a conflict.
        assert_eq!(names(&links), ["lo"]);
    });
}

#[test]
fn hundreds_of_hybrid_sets_in_one_batch() {
    in_namespace(|| async {
        const SETS: usize = 300;
        let (mut links, view) = ready(LinksConfig::default()).await;
        ip("link add stranger type bridge");
        ip("link add strange1 type veth peer name strange2");
        let begun = Instant::now();
        let ops = (0..SETS).flat_map(|number| {
            let name = |kind: &str| format!("{kind}{number}");
            [bridge(&name("qbr")), pair(&name("qvb"), &name("qvo"), &name("qbr"))]
        });
        let outcomes = apply(&mut links, ops).await;
        let made = begun.elapsed();
        assert!(outcomes.iter().all(|outcome| *outcome == Outcome::Done));
        let ours: Vec<Link> = {
            let view = view.borrow();
            let links = &view.ready().unwrap().links;
            links.values().filter(|link| link.alias.is_some()).map(|link| Link::clone(link)).collect()
        };
        assert_eq!(ours.len(), 3 * SETS);
        assert!(ours.iter().all(|link| link.up && link.group == 0));

        // As the planner has it: one end of each pair, and the bridge.
        let begun = Instant::now();
        let outcomes = apply(&mut links, ours.iter().filter(|link| !link.name.starts_with("qvb")).map(delete)).await;
        let deleted = begun.elapsed();
        assert!(outcomes.iter().all(|outcome| *outcome == Outcome::Done), "{outcomes:?}");
        assert_eq!(names(&links), ["lo", "strange1", "strange2", "stranger"]);
        eprintln!("{SETS} hybrid sets: made in {made:?}, deleted in {deleted:?}; {:?}", links.statistics());
    });
}
