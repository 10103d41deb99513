//! Metrics: `promtool check metrics` finds nothing to say, a real Prometheus scrapes them, and they
//! tell of VIFs that come and go.

use anyhow::Result;
use vifd_integration::lab::{Ovs, Prometheus, Record, Switch, Vifd, check_metrics};

/// The names of the contract (docs: metrics) that this version has.
const NAMES: &[&str] = &[
    "vifd_vifs",
    "vifd_vif_ready",
    "vifd_vif_phase_seconds",
    "vifd_writes_total",
    "vifd_operations_total",
    "vifd_batches_total",
    "vifd_plan_seconds",
    "vifd_apply_seconds",
    "vifd_session_up",
    "vifd_session_restarts_total",
    "vifd_resyncs_total",
    "vifd_holds",
    "vifd_foreign_conflicts",
];

#[test]
fn promtool_finds_nothing_to_say() -> Result<()> {
    let ovs = Ovs::start(Switch::Dummy)?;
    let mut vifd = Vifd::beside(&ovs)?;
    vifd.start()?;
    check_metrics(&vifd.metrics()?)?;
    let record = Record::fixture("openvswitch-create-tap")?;
    vifd.put(&record)?;
    vifd.wait_for(&record.id(), "ready")?;
    let text = vifd.metrics()?;
    check_metrics(&text)?;
    for name in NAMES {
        assert!(text.contains(&format!("# HELP {name} ")), "{name} is missing:\n{text}");
    }
    Ok(())
}

#[test]
fn prometheus_scrapes_what_the_host_has() -> Result<()> {
    let ovs = Ovs::start(Switch::Dummy)?;
    let mut vifd = Vifd::beside(&ovs)?;
    vifd.start()?;
    let records: Result<Vec<Record>> =
        (1..=3).map(|number| Ok(Record::fixture("openvswitch-create-tap")?.numbered(number))).collect();
    let records = records?;
    for record in &records {
        vifd.put(record)?;
        vifd.wait_for(&record.id(), "ready")?;
    }
    let mut prometheus = Prometheus::scraping(ovs.namespace(), vifd.metrics_listen())?;
    prometheus.wait_for_scrape()?;
    let ready = prometheus.query("vifd_vif_ready")?;
    assert_eq!(ready.len(), 3, "{ready:?}");
    for (labels, value) in &ready {
        assert_eq!(*value, 1.0, "{labels}");
        assert_eq!(labels["bridge"], "br-int");
        assert_eq!(labels["type"], "openvswitch");
    }
    let sum: f64 = prometheus.query("vifd_vifs")?.iter().map(|(_, value)| value).sum();
    assert_eq!(sum, 3.0);

    // The series of a VIF go with it.
    vifd.remove(&records[0])?;
    vifd.wait_gone(&records[0].id())?;
    assert!(!vifd.metrics()?.contains(&records[0].id()));
    vifd.until("Prometheus has seen it go", |_| Ok((prometheus.query("vifd_vif_ready")?.len() == 2).then_some(())))
}
