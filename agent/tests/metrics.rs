//! The exposition as promtool sees it.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, ensure};
use uuid::Uuid;
use vifd::backend::Outcome;
use vifd::inspect::{BridgeCounts, BridgeFlows, Count, FlowMetrics, Traffic};
use vifd::metrics;
use vifd::model::VifId;
use vifd::offload::OffloadCounts;
use vifd::plan::Facts;
use vifd::status::{HostStatus, Phase, VifStatus};

/// What `promtool check metrics` has to say.
fn promtool(text: &str) -> Result<String> {
    let mut child = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("promtool is needed for this test (Debian: package prometheus)")?;
    child.stdin.take().context("its standard input")?.write_all(text.as_bytes())?;
    let output = child.wait_with_output()?;
    Ok(String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
}

fn host() -> HostStatus {
    let vif = |n: u128, phase, bridge: Option<&str>| VifStatus {
        id: VifId(Uuid::from_u128(n)),
        kind: "openvswitch".into(),
        phase,
        reason: "".into(),
        message: String::new(),
        generation: 0,
        observed_generation: 0,
        instance: None,
        addresses: Vec::new(),
        conditions: Vec::new(),
        facts: Facts { bridge: bridge.map(str::to_owned), ..Facts::default() }.into(),
        since: SystemTime::now() - Duration::from_secs(5),
    };
    let mut offloaded = vif(4, Phase::Working, Some("br-int"));
    let counts = OffloadCounts { offloaded_flows: 7, software_flows: 2, offload_reason: None };
    offloaded.facts = Facts { offload: Some(Box::new(counts)), ..Facts::default() }.into();
    let vifs = [
        vif(1, Phase::Ready, Some("br-int")),
        vif(2, Phase::Failed, None),
        vif(3, Phase::Ready, Some("odd\"na\\me\n")),
        offloaded,
    ];
    HostStatus {
        vifs: vifs.into_iter().map(|vif| (vif.id, Arc::new(vif))).collect(),
        holds: BTreeMap::from([("ovsdb", 2)]),
        foreign_conflicts: 1,
        ..HostStatus::default()
    }
}

fn switches() -> FlowMetrics {
    let traffic = Traffic {
        egress: Count { packets: 3, bytes: 294 },
        dropped: BTreeMap::from([("mac_spoof".into(), 2)]),
        ..Traffic::default()
    };
    let flows = BridgeFlows { bridge: "odd\"na\\me\n".into(), up: true, flows: 95, ..BridgeFlows::default() };
    let dropped = BTreeMap::from([("unclassified", 7)]);
    FlowMetrics {
        vifs: BTreeMap::from([(VifId(Uuid::from_u128(1)), traffic)]),
        bridges: vec![BridgeCounts { flows, dropped, read: Some(SystemTime::now()) }],
    }
}

#[test]
fn promtool_finds_nothing_to_say() -> Result<()> {
    ensure!(!promtool("a_total 1\n")?.is_empty(), "promtool itself must be able to complain");

    let exporter = metrics::install();
    // Before anything happened, what is known beforehand is there.
    let text = exporter.render(&HostStatus::default(), &FlowMetrics::default(), SystemTime::now());
    assert_eq!(promtool(&text)?, "", "{text}");
    for line in ["vifd_writes_total{backend=\"ovsdb\"} 0", "vifd_session_restarts_total{peer=\"ovsdb\"} 0"] {
        assert!(text.lines().any(|found| found == line), "{line} is missing:\n{text}");
    }

    metrics::record_plan(Duration::from_micros(700));
    metrics::batch("ovsdb");
    metrics::writes("ovsdb", 3);
    let outcomes = [Outcome::Done, Outcome::Failed("no".into()), Outcome::Untried];
    metrics::record_apply("ovsdb", Duration::from_millis(40), &outcomes);
    metrics::session_up(metrics::peer::OVSDB, true);
    metrics::session_restart(metrics::peer::OVSDB);
    metrics::resync(metrics::peer::OVSDB, "closed");
    metrics::ready(Duration::from_millis(80));
    metrics::drift_repair(Duration::from_millis(30));
    exporter.upkeep();
    let text = exporter.render(&host(), &switches(), SystemTime::now());
    assert_eq!(promtool(&text)?, "", "{text}");
    for line in [
        "vifd_writes_total{backend=\"ovsdb\"} 3",
        "vifd_batches_total{backend=\"ovsdb\"} 1",
        "vifd_operations_total{backend=\"ovsdb\",outcome=\"failed\"} 1",
        "vifd_operations_total{backend=\"links\",outcome=\"done\"} 0",
        "vifd_plan_seconds_bucket{le=\"0.0003\"} 0",
        "vifd_plan_seconds_bucket{le=\"0.001\"} 1",
        "vifd_apply_seconds_count{backend=\"ovsdb\"} 1",
        "vifd_ready_seconds_count 1",
        "vifd_drift_repair_seconds_count 1",
        "vifd_session_up{peer=\"ovsdb\"} 1",
        "vifd_session_restarts_total{peer=\"ovsdb\"} 1",
        "vifd_resyncs_total{peer=\"ovsdb\",reason=\"closed\"} 1",
        "vifd_vifs{phase=\"ready\"} 2",
        "vifd_vifs{phase=\"waiting\"} 0",
        "vifd_vif_ready{vif=\"00000000-0000-0000-0000-000000000002\",bridge=\"\",type=\"openvswitch\"} 0",
        "vifd_holds{backend=\"ovsdb\"} 2",
        "vifd_holds{backend=\"links\"} 0",
        "vifd_foreign_conflicts 1",
        "vifd_vif_flows{vif=\"00000000-0000-0000-0000-000000000004\",state=\"offloaded\"} 7",
        "vifd_vif_flows{vif=\"00000000-0000-0000-0000-000000000004\",state=\"software\"} 2",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is missing:\n{text}");
    }

    // The reference lists exactly what there is.
    let reference = include_str!("../../docs/metrics.md");
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let name = rest.split(' ').next().unwrap_or_default();
            assert!(reference.contains(&format!("`{name}")), "docs/metrics.md does not tell of {name}");
        }
    }
    let documented = reference.lines().filter_map(|line| line.strip_prefix("| `")?.split(['`', '{']).next());
    for name in documented {
        assert!(text.contains(&format!("# HELP {name} ")), "{name} of docs/metrics.md is not there");
    }
    // The dashboard asks for nothing else.
    let dashboard = include_str!("../../deploy/grafana-dashboard.json");
    for word in dashboard.split(|c: char| !c.is_ascii_alphanumeric() && c != '_') {
        let family = ["_bucket", "_count", "_sum"].iter().find_map(|end| word.strip_suffix(end)).unwrap_or(word);
        if word.starts_with("vifd_") {
            let known = [word, family].iter().any(|name| text.contains(&format!("# TYPE {name} ")));
            assert!(known, "the dashboard asks for {word}");
        }
    }
    Ok(())
}
