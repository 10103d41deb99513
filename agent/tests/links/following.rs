//! Following the kernel: what others do, what was lost, and guards against what was not seen.

use std::collections::BTreeSet;
use std::io::Write;
use std::process::{Command, Stdio};

use vifd::backend::Outcome;
use vifd::backend::links::{LinkChange, LinksConfig, ResyncReason};
use vifd::model::{BridgeConfig, Link, LinkKind, MacAddr};

/// What the kernel makes of `ip link add … type bridge`.
const NEW_BRIDGE: BridgeConfig =
    BridgeConfig { ageing_time: 30_000, forward_delay: 1_500, stp: false, multicast_snooping: true };

use super::{apply, change, delete, in_namespace, ip, ready, seen, shown, tap};

fn ip_batch(commands: &str) {
    let mut child = Command::new("ip").args(["-batch", "-"]).stdin(Stdio::piped()).spawn().expect("needs ip");
    child.stdin.take().unwrap().write_all(commands.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
}

#[test]
fn what_is_done_by_hand_is_seen() {
    in_namespace(|| async {
        let (links, mut view) = ready(LinksConfig::default()).await;
        ip("link add first type bridge");
        shown(&mut view, "a new link", |state| state.links.contains_key("first")).await;
        let index = seen(&links, "first").unwrap().index;
        assert_eq!(seen(&links, "first").unwrap().kind, LinkKind::Bridge(NEW_BRIDGE));

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

        // Of its ports a bridge speaks in the same messages, with less in them: RTM_NEWLINK without the kind at
        // every change of a port's setting, RTM_DELLINK when a link merely leaves.
        ip("link add port type veth peer name peer");
        ip("link set port master second");
        ip("link set port type bridge_slave priority 5");
        ip("link set peer mtu 1400");
        shown(&mut view, "a change after the bridge's message", |state| {
            state.links.get("peer").is_some_and(|peer| peer.mtu == 1400)
        })
        .await;
        let port = seen(&links, "port").unwrap();
        assert_eq!((port.kind, port.master), (LinkKind::Veth, Some(index)));
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
        let alias = Some("new mark".to_owned());
        let to = LinkChange { mac, mtu: Some(1400), up: Some(false), alias, ..LinkChange::default() };
        let outcomes = apply(&mut links, [change(&before, to)]).await;
        assert_eq!(outcomes, [Outcome::Done]);
        let after = seen(&links, "tap1").unwrap();
        let expected = Link { mac, mtu: 1400, up: false, alias: Some("new mark".into()), ..before };
        assert_eq!(after, expected);

        // The link is down now: of an alias alone the kernel sends no notification.
        let to = LinkChange { alias: Some(String::new()), ..LinkChange::default() };
        let outcomes = apply(&mut links, [change(&after, to)]).await;
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
                change(&Link { index: 4_000_000, ..one.clone() }, LinkChange::default()),
                change(&Link { name: "two".into(), ..one.clone() }, LinkChange::default()),
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
        assert_eq!(seen(&links, "one").unwrap().kind, LinkKind::Bridge(NEW_BRIDGE));
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
fn what_was_queued_before_a_loss_does_not_overtake_the_list() {
    in_namespace(|| async {
        // Room for several hundred notifications: more than are read from a socket in one go.
        let config = LinksConfig { receive_buffer: 1 << 20, ..LinksConfig::default() };
        ip("link add noise type bridge");
        ip("link add quiet type bridge");
        let (links, mut view) = ready(config).await;
        let noise = |count| (0..count).map(|n| format!("link set noise mtu {}\n", 1300 + n % 2)).collect::<String>();
        // The first change is among those that are read late, the second among those that are lost.
        ip_batch(&format!("{}link set quiet mtu 1300\n{}link set quiet mtu 1400\n", noise(300), noise(3000)));
        let is_so = |view: &vifd::model::LinkState| view.links.get("quiet").is_some_and(|link| link.mtu == 1400);
        shown(&mut view, "the change that was lost", is_so).await;
        assert!(links.statistics().resyncs_for(ResyncReason::Overrun) >= 1, "nothing was lost");
        // And what comes later is about what comes later.
        ip("link set noise mtu 1234");
        shown(&mut view, "a change after the flood", |state| state.links["noise"].mtu == 1234).await;
        assert!(view.borrow().ready().is_some_and(&is_so), "an old notification came after the list");
    });
}
