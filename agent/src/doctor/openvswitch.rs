//! Open vSwitch: the database, its schema, the switch itself, and the interface types that the records need.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ovsdb::pairs::Pairs;
use ovsdb::session::{Session, SessionError, SessionState};
use ovsdb::text::Text;
use ovsdb::vswitch::{OpenVSwitch, Snapshot};

use super::files::Wanted;
use super::{Finding, chain};
use crate::backend::ovs::control_sockets;
use crate::backend::unixctl;
use crate::config::Config;
use crate::offload::{Datapath, DatapathFlow, LONGEST_LINE};
use crate::run::session_config;

/// For the database to be connected to and read.
const PATIENCE: Duration = Duration::from_secs(5);

pub(super) async fn examine(config: &Config, wanted: &Wanted) -> Vec<Finding> {
    let endpoint = config.ovsdb.endpoint.0.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let root = match root_row(config).await {
        Ok(root) => root,
        Err((message, remedy)) => {
            let message = format!("{endpoint}: {message}");
            return vec![Finding::fail("ovsdb", message, remedy), switch(config, None)];
        }
    };
    let mut findings = vec![database(&endpoint, root.as_deref()), switch(config, root.as_deref())];
    if let Some(root) = &root {
        findings.extend(interface_types(&root.iface_types, root.dpdk_initialized, wanted));
        if wanted.offload {
            let is_set = root.other_config.get("hw-offload") == Some("true");
            let in_effect = if is_set { flows_in_tc(&config.rundir()).await } else { None };
            findings.push(offload(&root.other_config, in_effect));
        }
    }
    findings
}

/// The row that everything hangs from; none in a database that was never initialised.
async fn root_row(config: &Config) -> Result<Option<Arc<OpenVSwitch>>, (String, &'static str)> {
    let start = "start ovsdb-server, or correct ovsdb.endpoint in the configuration";
    let session = session_config(&config.ovsdb)
        .map_err(|error| (format!("{error:#}"), "correct [ovsdb] in the configuration"))?;
    let handle = Session::spawn(session, Snapshot::new::<String>([]));
    let mut state = handle.state();
    let settled = state.wait_for(|state| matches!(state, SessionState::Ready | SessionState::Failed(_)));
    let state = match tokio::time::timeout(PATIENCE, settled).await {
        Ok(Ok(state)) => state.clone(),
        Ok(Err(_)) => return Err(("the session ended by itself".into(), start)),
        Err(_) => return Err((format!("no answer within {PATIENCE:?}"), start)),
    };
    if let SessionState::Failed(error) = state {
        let remedy = match &*error {
            SessionError::Schema(_) | SessionError::SchemaRefused { .. } | SessionError::SchemaUndecodable(_) => {
                "the database is not one that vifd understands: upgrade Open vSwitch, then `ovs-ctl restart`"
            }
            SessionError::Connect { source, .. } if source.kind() == std::io::ErrorKind::PermissionDenied => {
                "run this as root, or as a user that may open the socket"
            }
            _ => start,
        };
        return Err((chain(&*error), remedy));
    }
    let view = handle.snapshot().borrow().clone();
    Ok(view.ready().and_then(|snapshot| snapshot.root().cloned()))
}

fn database(endpoint: &str, root: Option<&OpenVSwitch>) -> Finding {
    match root {
        None => Finding::fail("ovsdb", format!("{endpoint}: the database is empty"), "run `ovs-vsctl init`"),
        Some(root) => {
            // Only ovs-ctl writes it.
            let version = root.db_version.as_ref().map(|version| format!(", database {version}")).unwrap_or_default();
            Finding::ok("ovsdb", format!("{endpoint}: connected, the schema fits{version}"))
        }
    }
}

fn switch(config: &Config, root: Option<&OpenVSwitch>) -> Finding {
    let rundir = config.rundir();
    let version = root.and_then(|root| root.ovs_version.as_ref());
    let version = version.map(|version| format!(", Open vSwitch {version}")).unwrap_or_default();
    if control_sockets(&rundir).iter().any(|socket| UnixStream::connect(socket).is_ok()) {
        return Finding::ok("ovs-vswitchd", format!("runs{version}"));
    }
    let message = format!("no ovs-vswitchd answers in {}", rundir.display());
    Finding::fail("ovs-vswitchd", message, "start ovs-vswitchd, or set ovsdb.rundir to where its sockets are")
}

fn interface_types(offered: &BTreeSet<Text>, dpdk: Option<bool>, wanted: &Wanted) -> Option<Finding> {
    let missing: Vec<&str> = wanted.interface_types.iter().copied().filter(|kind| !offered.contains(*kind)).collect();
    let name = "interface types";
    if wanted.interface_types.is_empty() {
        return None;
    }
    if offered.is_empty() {
        return Some(Finding::warn(name, "the switch does not say which it has", "start ovs-vswitchd"));
    }
    if !missing.is_empty() {
        let message = format!("records need {}, which this Open vSwitch does not have", missing.join(", "));
        return Some(Finding::fail(name, message, "install Open vSwitch with DPDK (openvswitch-switch-dpdk)"));
    }
    if dpdk != Some(true) {
        let remedy = "run `ovs-vsctl set Open_vSwitch . other_config:dpdk-init=true` and restart ovs-vswitchd";
        return Some(Finding::fail(name, "records need DPDK, which is not initialised", remedy));
    }
    let kinds: Vec<&str> = wanted.interface_types.iter().copied().collect();
    Some(Finding::ok(name, format!("{} can be had", kinds.join(", "))))
}

/// Whether a flow is in tc, as proof that ovs-vswitchd offloads; `None` where none is, or nobody says.
async fn flows_in_tc(rundir: &Path) -> Option<bool> {
    let arguments = ["-m", Datapath::Kernel.name(), "type=tc"];
    let mut found = false;
    let mut look = |line: Option<&str>| {
        found |= line.and_then(DatapathFlow::parse).is_some_and(|flow| flow.layer == Some("tc"));
        if found { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let asked = unixctl::ask_for_lines(rundir, "dpctl/dump-flows", &arguments, PATIENCE, LONGEST_LINE, &mut look);
    asked.await.ok()?;
    found.then_some(true)
}

/// What Open vSwitch has to have for flows to be in hardware. What the database says, a running ovs-vswitchd may have been
/// started without.
fn offload(other_config: &Pairs, in_effect: Option<bool>) -> Finding {
    let name = "hw-offload";
    let setting = |key| other_config.get(key);
    let restart = "and start ovs-vswitchd again";
    if setting("hw-offload") != Some("true") {
        let remedy = format!("run `ovs-vsctl set Open_vSwitch . other_config:hw-offload=true`, {restart}");
        let message = "other_config:hw-offload is not true: all flows are in software";
        return Finding::warn(name, message, remedy);
    }
    let (policy, idle) = (setting("tc-policy").unwrap_or("none"), setting("max-idle").unwrap_or("10000"));
    let told = format!("other_config:hw-offload is true, tc-policy {policy}, max-idle {idle} ms");
    if policy == "skip_hw" {
        let remedy = format!("run `ovs-vsctl remove Open_vSwitch . other_config tc-policy`, {restart}");
        return Finding::warn(name, format!("{told}: flows are in tc and never in hardware"), remedy);
    }
    if in_effect == Some(true) {
        return Finding::ok(name, format!("{told}; flows are in tc"));
    }
    // It is not to be had from ovs-vswitchd: its log alone has "netdev: Flow API Enabled".
    Finding::ok(name, format!("{told}; whether ovs-vswitchd was started since is not known while no flow is in tc"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offloading_is_told_with_what_has_to_be_done() {
        let found = |settings: &[(&'static str, &'static str)], in_effect| {
            let settings = settings.iter().copied().collect();
            let Finding { verdict, message, remedy, .. } = offload(&settings, in_effect);
            (verdict, format!("{message} → {remedy}"))
        };
        let on = ("hw-offload", "true");
        let (level, text) = found(&[("hw-offload", "false")], None);
        assert!(level == Level::Warn && text.contains("hw-offload=true`, and start ovs-vswitchd again"), "{text}");
        let (level, text) = found(&[on, ("tc-policy", "skip_hw")], Some(true));
        assert!(level == Level::Warn && text.contains("never in hardware"), "{text}");
        let (level, text) = found(&[on, ("max-idle", "30000")], Some(true));
        assert!(level == Level::Ok && text.contains("tc-policy none, max-idle 30000 ms; flows are in tc"), "{text}");
        let (level, text) = found(&[on], None);
        assert!(level == Level::Ok && text.contains("not known"), "{text}");
    }
    use crate::doctor::Level;

    #[test]
    fn types_are_missed_only_where_records_need_them() {
        let level = |types: &[&str], dpdk, wanted: &Wanted| {
            let offered = types.iter().map(|kind| Text::from(*kind)).collect();
            interface_types(&offered, Some(dpdk), wanted).map(|finding| finding.verdict)
        };
        let nothing = Wanted::default();
        assert_eq!(level(&["tap"], false, &nothing), None);
        let vhost = Wanted { interface_types: BTreeSet::from(["dpdkvhostuser"]), ..Wanted::default() };
        assert_eq!(level(&[], false, &vhost), Some(Level::Warn));
        assert_eq!(level(&["tap"], false, &vhost), Some(Level::Fail));
        assert_eq!(level(&["dpdkvhostuser"], false, &vhost), Some(Level::Fail));
        assert_eq!(level(&["dpdkvhostuser"], true, &vhost), Some(Level::Ok));
    }
}
