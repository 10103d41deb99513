//! Taps: what they are made of, and what is left when making them fails.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use vifd::backend::links::{LinkChange, LinkOp, Links, LinksConfig, NewKind, NewLink};
use vifd::backend::{Backend, Outcome};
use vifd::model::{Link, LinkKind, MacAddr};

use super::{MARK, apply, change, delete, fresh, in_namespace, ip, ready, seen, tap};

#[test]
fn a_tap_is_as_it_was_asked_for() {
    in_namespace(|| async {
        let (mut links, _) = ready(LinksConfig::default()).await;
        let mac = MacAddr([0xfe, 0x16, 0x3e, 1, 2, 3]);
        let full = LinkOp::CreateLink {
            link: Box::new(NewLink { mac: Some(mac), mtu: Some(1450), ..fresh("tap-full") }),
            kind: NewKind::Tap { multi_queue: true },
        };
        // While it is down the kernel tells of neither the mark nor the persistence: the backend has to ask.
        let link = NewLink { mtu: Some(9000), up: false, alias: "other".into(), ..fresh("tap-down") };
        let down = LinkOp::CreateLink { link: Box::new(link), kind: NewKind::Tap { multi_queue: false } };
        assert_eq!(apply(&mut links, [full, down]).await, [Outcome::Done, Outcome::Done]);
        assert_eq!(links.statistics().writes, 2);

        let full = seen(&links, "tap-full").unwrap();
        let expected = Link {
            mac: Some(mac),
            mtu: 1450,
            up: true,
            alias: Some(MARK.into()),
            ..Link::new(full.index, "tap-full", LinkKind::Tap { multi_queue: true, persistent: true })
        };
        assert_eq!(full, expected);
        let down = seen(&links, "tap-down").unwrap();
        assert!(down.mac.is_some(), "the kernel chose one");
        let expected = Link {
            mac: down.mac,
            mtu: 9000,
            alias: Some("other".into()),
            ..Link::new(down.index, "tap-down", LinkKind::Tap { multi_queue: false, persistent: true })
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
        let link = Box::new(NewLink { mtu: Some(1 << 20), ..fresh("tap-big") });
        let too_big = LinkOp::CreateLink { link, kind: NewKind::Tap { multi_queue: false } };
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
        const ROUNDS: u64 = 40;
        for round in 0..ROUNDS {
            let mut victim = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "taps::victim", "--ignored", "--nocapture"])
                .env("VICTIM_ROUND", round.to_string())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let mut lines = std::io::BufRead::lines(std::io::BufReader::new(victim.stdout.take().unwrap()));
            assert!(lines.any(|line| line.unwrap().ends_with("started")));
            // Somewhere in the life of some tap, a different place each time.
            std::thread::sleep(Duration::from_micros(5000 + round * 331));
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
        eprintln!("{} taps survived {ROUNDS} crashes, all of them marked", left.len());
        let outcomes = apply(&mut links, left.iter().map(delete)).await;
        assert!(outcomes.iter().all(|outcome| *outcome == Outcome::Done), "{outcomes:?}");
    });
}

#[test]
fn thousands_of_taps_go_in_one_batch() {
    in_namespace(|| async {
        const TAPS: usize = 2000;
        let (mut links, view) = ready(LinksConfig::default()).await;
        let ops = (0..TAPS).map(|number| {
            let [high, low] = u16::try_from(number).unwrap().to_be_bytes();
            let link = NewLink {
                mac: Some(MacAddr([0xfe, 0x16, 0x3e, 0, high, low])),
                mtu: Some(1450),
                alias: format!("vifd/1 test {number}"),
                ..fresh(&format!("tap{number}"))
            };
            LinkOp::CreateLink { link: Box::new(link), kind: NewKind::Tap { multi_queue: false } }
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
            taps.iter().map(|link| change(link, LinkChange { mtu: Some(1400), ..LinkChange::default() })),
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

#[test]
fn many_deletions_spare_what_is_not_what_it_was() {
    in_namespace(|| async {
        let (mut links, view) = ready(LinksConfig::default()).await;
        let outcomes = apply(&mut links, (0..30).map(|number| tap(&format!("tap{number}")))).await;
        assert!(outcomes.iter().all(|outcome| *outcome == Outcome::Done), "{outcomes:?}");
        ip("link add stranger type bridge");
        let doomed: Vec<Link> = (0..30).map(|number| seen(&links, &format!("tap{number}")).unwrap()).collect();
        // Behind the planner's back: one is somebody else's now, one has another name, one is gone.
        ip("link set tap3 alias theirs");
        ip("link set tap4 down");
        ip("link set tap4 name renamed");
        ip("link delete tap5");
        let outcomes = apply(&mut links, doomed.iter().map(delete)).await;
        for (link, outcome) in doomed.iter().zip(&outcomes) {
            let changed = ["tap3", "tap4", "tap5"].contains(&link.name.as_str());
            assert_eq!(matches!(outcome, Outcome::Conflict(_)), changed, "{}: {outcome:?}", link.name);
            assert_eq!(*outcome == Outcome::Done, !changed, "{}: {outcome:?}", link.name);
        }
        let names: BTreeSet<_> = view.borrow().ready().unwrap().links.keys().cloned().collect();
        assert_eq!(names, ["lo", "renamed", "stranger", "tap3"].map(String::from).into());
        // They are where they were, in no group of ours.
        let told = Command::new("ip").args(["-o", "link", "show", "group", "default"]).output().unwrap();
        let told = String::from_utf8(told.stdout).unwrap();
        assert!(["renamed", "stranger", "tap3"].iter().all(|name| told.contains(name)), "{told}");
    });
}
