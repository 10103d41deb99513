//! What is told for every verdict (golden: `INSTA_UPDATE=always cargo test` writes them again), and what
//! keeps its time.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime};

use super::*;
use crate::model::Vif;
use crate::plan::{Cause, Judgement, LINKS, Missing, OVSDB, Verdict};
use crate::source::Rejection;

fn vif() -> Vif {
    let record = r#"{
        "vif": {
            "type": "openvswitch", "id": "dc065497-3c8d-4f44-8fb4-e1d33c16a536", "address": "52:54:00:12:34:56",
            "vif_name": "tap1",
            "network": {
                "id": "b82c1929-051e-481d-8110-4669916c7915", "bridge": "br-int",
                "subnets": [{"cidr": "10.0.0.0/24", "ips": [{"address": "10.0.0.5"}]}]
            },
            "port_profile": {"type": "openvswitch", "create_port": true}
        },
        "instance": {"uuid": "0a11ce00-0000-4000-8000-000000000001", "name": "alice"},
        "generation": 7
    }"#;
    crate::record::decode(record.as_bytes()).unwrap().vif
}

fn facts() -> Facts {
    Facts {
        bridge: Some("br-int".into()),
        port: Some("tap1".into()),
        ofport: Some(5),
        interface_type: Some("system".into()),
        netdev: Some("tap1".into()),
        socket: None,
        device: None,
        mac: Some("52:54:00:12:34:56".parse().unwrap()),
        mtu: Some(1500),
        ..Facts::default()
    }
}

fn judgement(verdict: Verdict) -> Judgement {
    let ready = verdict == Verdict::Ready;
    let plugged = ready || matches!(verdict, Verdict::Plugged(_));
    Judgement {
        verdict,
        link_ready: Some(plugged),
        port_ready: Some(ready),
        flows_ready: None,
        vhost_connected: None,
        plugged,
        offload: None,
        facts: facts().into(),
    }
}

fn rejection() -> Rejection {
    Rejection {
        record: "alice.json".into(),
        vif: Some(vif().id),
        generation: Some(8),
        field: "vif.network.mtu".into(),
        reason: "is larger than 65535".into(),
    }
}

fn day(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000 + seconds)
}

fn render(subject: Subject<'_>, previous: Option<&VifStatus>, today: SystemTime) -> VifStatus {
    VifStatus::render(subject, previous, Instant::now(), today)
}

#[test]
fn every_verdict() {
    let now = Instant::now();
    let waits = [
        Missing::View(OVSDB),
        Missing::View(LINKS),
        Missing::Records,
        Missing::Vswitchd,
        Missing::HypervisorPort { port: "tap1".into(), bridge: "br-int".into() },
        Missing::Netdev("tap1".into()),
        Missing::Device("/dev/tap7".into()),
        Missing::Ofport("tap1".into()),
        Missing::Bridge { bridge: "br-int".into(), datapath_type: "system".into() },
        Missing::Parent("waiting for VIF 7, the trunk that this is a sub-port of".into()),
        Missing::Busy("port tap1 is still VIF 7's".into()),
        Missing::VhostLink("vhu1".into()),
    ];
    let mut verdicts = vec![Verdict::Ready, Verdict::Working];
    verdicts.extend(waits.iter().cloned().map(Verdict::Waiting));
    verdicts.extend([
        Verdict::Plugged(Missing::Netdev("tap1".into())),
        Verdict::Rejected { field: "vif.vif_name".into(), reason: "tap1 is the name of VIF 7, too".into() },
        Verdict::Conflict { reason: "port tap1 on bridge br-ex is not vifd's".into() },
        Verdict::Failed { reason: "could not open network device tap1 (No such device)".into() },
        Verdict::FlowsFailed { reason: "no conntrack zone is free (openflow.zones)".into() },
        Verdict::Held {
            cause: Cause::Refused,
            error: "constraint violation".into(),
            backend: OVSDB,
            until: now + Duration::from_secs(4),
        },
        Verdict::Held {
            cause: Cause::Quarrel,
            error: "change port tap1: external_ids:iface-id=7".into(),
            backend: OVSDB,
            until: now + Duration::from_secs(4),
        },
        Verdict::Removing,
        Verdict::RemovalStopped,
        Verdict::Paused { all: true },
        Verdict::Paused { all: false },
    ]);
    let vif = vif();
    let mut told = BTreeMap::new();
    for verdict in verdicts {
        let wanted = !matches!(verdict, Verdict::Removing | Verdict::RemovalStopped);
        let name = match &verdict {
            Verdict::Held { cause: Cause::Refused, .. } => "Held".into(),
            Verdict::Held { cause: Cause::Quarrel, .. } => "Held, Quarrel".into(),
            other => format!("{other:?}"),
        };
        let judgement = judgement(verdict);
        let subject = Subject {
            id: vif.id,
            vif: wanted.then_some(&vif),
            rejection: None,
            judgement: Some(&judgement),
            enforce: true,
            proof: None,
        };
        told.insert(name, VifStatus::render(subject, None, now, day(0)));
    }
    insta::assert_json_snapshot!(told);
}

#[test]
fn vhost_user_is_ready_without_its_guest_and_says_so() {
    let vif = vif();
    for connected in [false, true] {
        let mut judgement = judgement(Verdict::Ready);
        judgement.vhost_connected = Some(connected);
        judgement.facts = Facts { socket: Some("/run/openvswitch/vhu1".into()), ..facts() }.into();
        let status = render(
            Subject {
                id: vif.id,
                vif: Some(&vif),
                rejection: None,
                judgement: Some(&judgement),
                enforce: true,
                proof: None,
            },
            None,
            day(0),
        );
        assert_eq!(status.phase, Phase::Ready);
        let guest = status.condition(ConditionKind::VhostConnected).unwrap();
        assert_eq!(guest.status, if connected { Truth::True } else { Truth::False });
        assert_eq!(status.message.contains("/run/openvswitch/vhu1"), !connected);
    }
}

#[test]
fn a_rejected_update_keeps_the_phase_of_the_last_good_record() {
    let vif = vif();
    let judgement = judgement(Verdict::Ready);
    let rejection = rejection();
    let subject = Subject {
        id: vif.id,
        vif: Some(&vif),
        rejection: Some(&rejection),
        judgement: Some(&judgement),
        enforce: true,
        proof: None,
    };
    let status = render(subject, None, day(0));
    assert_eq!(status.phase, Phase::Ready);
    assert_eq!((status.generation, status.observed_generation), (8, 7));
    let accepted = status.condition(ConditionKind::Accepted).unwrap();
    assert_eq!(accepted.status, Truth::False);
    assert_eq!(accepted.message, "record alice.json is refused: vif.network.mtu: is larger than 65535");
}

#[test]
fn a_record_that_was_never_good_fails() {
    let rejection = rejection();
    let subject =
        Subject { id: vif().id, vif: None, rejection: Some(&rejection), judgement: None, enforce: true, proof: None };
    let status = render(subject, None, day(0));
    assert_eq!((status.phase, &*status.reason), (Phase::Failed, "RecordRejected"));
    assert!(status.message.contains("vif.network.mtu"), "{}", status.message);
    assert_eq!(status.conditions.len(), 1);
}

#[test]
fn a_vif_of_a_linux_bridge_is_called_by_the_guests_device() {
    let vif = vif();
    let told = |facts: Facts| {
        let judgement = Judgement { facts: facts.into(), ..judgement(Verdict::Ready) };
        let subject = Subject {
            id: vif.id,
            vif: Some(&vif),
            rejection: None,
            judgement: Some(&judgement),
            enforce: true,
            proof: None,
        };
        render(subject, None, day(0)).message
    };
    let (guest_device, linux_bridge) = (Some("tap1".to_owned()), Some("brqblue".to_owned()));
    let plain = Facts { guest_device: guest_device.clone(), linux_bridge: linux_bridge.clone(), ..Facts::default() };
    assert_eq!(plain.name().as_deref(), Some("tap1"));
    assert!(plain.is_on("brqblue") && !plain.is_on("br-int"));
    assert_eq!(told(plain), "device tap1 in bridge brqblue is usable");
    assert_eq!(told(Facts { linux_bridge, ..Facts::default() }), "the VIF on bridge brqblue is usable");
    let hybrid = Facts { port: Some("qvo1".into()), guest_device, ..facts() };
    assert_eq!(told(hybrid), "port qvo1 on bridge br-int is usable (ofport 5) for device tap1");
}

#[test]
fn what_did_not_change_keeps_its_time() {
    let vif = vif();
    let of = |verdict, previous: Option<&VifStatus>, at| {
        let judgement = judgement(verdict);
        let subject = Subject {
            id: vif.id,
            vif: Some(&vif),
            rejection: None,
            judgement: Some(&judgement),
            enforce: true,
            proof: None,
        };
        render(subject, previous, day(at))
    };
    let first = of(Verdict::Working, None, 0);
    let second = of(Verdict::Working, Some(&first), 10);
    assert_eq!(second, first);
    let third = of(Verdict::Ready, Some(&second), 20);
    assert_eq!(third.since, day(20));
    assert_eq!(third.condition(ConditionKind::Accepted).unwrap().since, day(0));
    assert_eq!(third.condition(ConditionKind::PortReady).unwrap().since, day(20));
    let paused = of(Verdict::Paused { all: true }, Some(&third), 30);
    assert_eq!((paused.phase, &*paused.reason, paused.since), (Phase::Waiting, "Paused", day(30)));
    assert_eq!(*paused.facts, facts());
}

#[test]
fn who_only_observes_does_not_claim_to_work() {
    let vif = vif();
    for (verdict, wanted, phase) in
        [(Verdict::Working, true, Phase::Waiting), (Verdict::Removing, false, Phase::Removing)]
    {
        let judgement = judgement(verdict);
        let subject = Subject {
            id: vif.id,
            vif: wanted.then_some(&vif),
            rejection: None,
            judgement: Some(&judgement),
            enforce: false,
            proof: None,
        };
        let status = render(subject, None, day(0));
        assert_eq!((status.phase, &*status.reason), (phase, "Observing"));
        assert!(status.message.contains("would be") && status.message.contains("only observes"), "{}", status.message);
    }
}

#[test]
fn a_status_reads_back_as_it_was_written() {
    let vif = vif();
    let judgement = judgement(Verdict::Ready);
    let subject = Subject {
        id: vif.id,
        vif: Some(&vif),
        rejection: None,
        judgement: Some(&judgement),
        enforce: true,
        proof: None,
    };
    let status = render(subject, None, day(0));
    let text = serde_json::to_string(&status).unwrap();
    assert_eq!(serde_json::from_str::<VifStatus>(&text).unwrap(), status);
}

#[test]
fn a_port_that_is_usable_by_a_guest_that_may_not_is_called_so() {
    let vif = Vif { active: false, ..vif() };
    let judgement = judgement(Verdict::Ready);
    let subject = Subject {
        id: vif.id,
        vif: Some(&vif),
        rejection: None,
        judgement: Some(&judgement),
        enforce: true,
        proof: None,
    };
    let status = render(subject, None, day(0));
    assert!(status.phase == Phase::Ready && status.message.contains("not active"), "{}", status.message);
}
