//! The agent itself: whether one runs, whether it answers, whether it is well.

use std::fs::{File, TryLockError};
use std::path::Path;
use std::time::{Duration, Instant};

use flows::{Flow, FlowFlags};
use nix::unistd::Group;

use super::Finding;
use crate::api::body::HostSummary;
use crate::api::client::{Client, ClientError};
use crate::config::Config;
use crate::inspect::BridgeFlows;

/// For an agent to become ready.
const PATIENCE: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(100);

pub(super) async fn examine(config: &Config, socket: &Path) -> Vec<Finding> {
    let client = Client::new(socket.to_owned());
    let mut answer = client.get::<HostSummary>("/v1/status").await;
    // One that has only just started is still looking around.
    let patience = Instant::now() + PATIENCE;
    while matches!(&answer, Ok(host) if !host.ready) && Instant::now() < patience {
        tokio::time::sleep(PAUSE).await;
        answer = client.get::<HostSummary>("/v1/status").await;
    }
    let lock = config.agent.state_dir.join("lock");
    let held = is_held(&lock);
    let mut findings: Vec<Finding> = group(&config.api.group).into_iter().collect();
    match &answer {
        Ok(host) => {
            let message = format!("vifd {} answers on {}", host.version, socket.display());
            findings.push(if host.version == env!("CARGO_PKG_VERSION") {
                Finding::ok("agent", message)
            } else {
                let remedy = "restart the agent to run the version that is installed";
                Finding::warn("agent", format!("{message}, this is {}", env!("CARGO_PKG_VERSION")), remedy)
            });
            findings.push(readiness(host));
            let bridges: Vec<BridgeFlows> = client.get("/v1/bridges").await.unwrap_or_default();
            findings.extend(bridges.iter().filter_map(unmanaged));
            findings.extend(bridges.iter().filter_map(others));
            if held == Some(false) {
                let message = format!("the agent that answers does not hold {}", lock.display());
                let remedy = "it runs with another configuration: compare `systemctl cat vifd`";
                findings.push(Finding::warn("lock", message, remedy));
            }
        }
        Err(error @ ClientError::Forbidden { .. }) => {
            let remedy = match config.api.group.as_str() {
                "" => "run this as root".to_owned(),
                group => format!("run this as root or as a member of the group {group}"),
            };
            findings.push(Finding::warn("agent", error.to_string(), remedy));
        }
        Err(error) if held == Some(true) => {
            let message = format!("an agent holds {} and does not answer: {error}", lock.display());
            let remedy = "it runs with another api.socket, or hangs: see `journalctl -u vifd`, then restart it";
            findings.push(Finding::fail("agent", message, remedy));
        }
        Err(error @ ClientError::Absent { .. }) => {
            let remedy = "run `systemctl start vifd`, or say with --config or --socket where it listens";
            findings.push(Finding::warn("agent", error.to_string(), remedy));
        }
        Err(error) => {
            let remedy = "see `journalctl -u vifd`, then restart it";
            findings.push(Finding::fail("agent", error.to_string(), remedy));
        }
    }
    findings
}

/// The group whose members may use the API, where it is not there.
fn group(name: &str) -> Option<Finding> {
    if name.is_empty() {
        return None;
    }
    match Group::from_name(name) {
        Ok(Some(_)) => None,
        Ok(None) => {
            let message = format!("there is no group {name} ([api] group): the socket keeps the group of the agent");
            let remedy = format!("run `groupadd --system {name}` and restart the agent, or correct api.group");
            Some(Finding::warn("api group", message, remedy))
        }
        Err(error) => {
            let remedy = "see that groups can be looked up: `getent group`";
            Some(Finding::warn("api group", format!("{name} cannot be looked up: {error}"), remedy))
        }
    }
}

fn readiness(host: &HostSummary) -> Finding {
    if host.ready {
        return Finding::ok("readiness", "the agent is ready");
    }
    let remedy = "the sentences say what to do; `vifd status` shows the whole";
    Finding::fail("readiness", host.not_ready.join("; "), remedy)
}

/// A bridge that is configured to be managed, and is somebody else's.
fn unmanaged(bridge: &BridgeFlows) -> Option<Finding> {
    if bridge.unmanaged.is_empty() {
        return None;
    }
    // The remedy is the last of the sentence; where there is none, two agents are configured for one bridge.
    let (message, remedy) = bridge
        .unmanaged
        .rsplit_once(": ")
        .unwrap_or((&bridge.unmanaged, "leave it to whoever has it, or see that only one has it"));
    Some(Finding::fail("bridge", format!("{message}, so vifd makes no flows there"), remedy))
}

/// Flows of somebody else by which packets may go instead of by vifd's.
fn others(bridge: &BridgeFlows) -> Option<Finding> {
    let first = bridge.above.first()?;
    let BridgeFlows { bridge: name, foreign_above, .. } = bridge;
    let flows = if *foreign_above == 1 { "flow of somebody else stands" } else { "flows of somebody else stand" };
    let message = format!("{foreign_above} {flows} above vifd's on bridge {name}, such as {first}");
    let mut remedy = format!("find out who makes them (`vifd flows --bridge {name} --foreign` lists them)");
    // Exactly that one: without a match, or without --strict, flows of everybody would go.
    if let Ok(flow) = first.parse::<Flow>() {
        let table = if flow.table == 0 { "table=0, " } else { "" };
        let flags = FlowFlags::default();
        let which = Flow { cookie: 0, idle_timeout: 0, hard_timeout: 0, importance: 0, flags, ..flow }.to_string();
        let which = which.split(" actions=").next().unwrap_or_default();
        remedy.push_str(&format!(
            "; one that nobody misses goes with `ovs-ofctl -O OpenFlow14 --strict del-flows {name} '{table}{which}'`"
        ));
    }
    Some(Finding::warn("flows", message, remedy))
}

/// Whether somebody has the lock of the state directory; `None` when that cannot be seen.
fn is_held(lock: &Path) -> Option<bool> {
    match File::open(lock) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Some(false),
        Err(_) => None,
        // Shared, and given back at once with the file.
        Ok(file) => match file.try_lock_shared() {
            Ok(()) => Some(false),
            Err(TryLockError::WouldBlock) => Some(true),
            Err(TryLockError::Error(_)) => None,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_that_is_not_there_is_named() {
        assert_eq!(group(""), None);
        assert_eq!(group("root"), None);
        let finding = group("no-such-group-here").unwrap();
        assert!(finding.message.contains("no-such-group-here") && finding.remedy.contains("groupadd"), "{finding:?}");
    }

    #[test]
    fn a_bridge_of_somebody_else_is_told_with_what_to_do() {
        assert_eq!(unmanaged(&BridgeFlows::default()), None);
        let of = |unmanaged: &str| BridgeFlows { unmanaged: unmanaged.into(), ..BridgeFlows::default() };
        let finding = unmanaged(&of("bridge br-a has a controller: take it off, or the like")).unwrap();
        assert_eq!(finding.message, "bridge br-a has a controller, so vifd makes no flows there");
        assert_eq!(finding.remedy, "take it off, or the like");
        let finding = unmanaged(&of("bridge br-a belongs to agent \"other\"")).unwrap();
        assert!(finding.message.contains("belongs to agent") && finding.remedy.contains("only one"), "{finding:?}");
    }

    #[test]
    fn flows_of_others_are_deleted_one_by_one() {
        let bridge = |above: &[&str]| BridgeFlows {
            bridge: "br-int".into(),
            up: true,
            foreign_above: above.len(),
            above: above.iter().map(|flow| (*flow).to_owned()).collect(),
            ..BridgeFlows::default()
        };
        assert_eq!(others(&bridge(&[])), None);
        let one = others(&bridge(&["cookie=0x7, table=0, priority=5000,icmp actions=drop"])).unwrap();
        assert!(one.message.starts_with("1 flow of somebody else stands above"), "{one:?}");
        let command = "`ovs-ofctl -O OpenFlow14 --strict del-flows br-int 'table=0, priority=5000,icmp'`";
        assert!(one.remedy.ends_with(command), "{one:?}");
        let two =
            others(&bridge(&["table=20, priority=99,in_port=3 actions=drop", "table=21, priority=99 actions=drop"]))
                .unwrap();
        assert!(two.message.starts_with("2 flows of somebody else stand above"), "{two:?}");
        assert!(two.remedy.ends_with("del-flows br-int 'table=20, priority=99,in_port=3'`"), "{two:?}");
    }

    #[test]
    fn a_held_lock_is_seen_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        assert_eq!(is_held(&path), Some(false));
        let file = File::create(&path).unwrap();
        assert_eq!(is_held(&path), Some(false));
        file.try_lock().unwrap();
        assert_eq!(is_held(&path), Some(true));
        drop(file);
        assert_eq!(is_held(&path), Some(false));
    }
}
