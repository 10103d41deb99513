//! Open vSwitch: the database, its schema, the switch itself, and the interface types that the records need.

use std::collections::BTreeSet;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use ovsdb::session::{Session, SessionError, SessionState};
use ovsdb::text::Text;
use ovsdb::vswitch::{OpenVSwitch, Snapshot};

use super::files::Wanted;
use super::{Finding, chain};
use crate::backend::ovs::control_sockets;
use crate::config::Config;
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

#[cfg(test)]
mod tests {
    use super::*;
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
