//! The agent's user: who it is, what it is allowed, and whether it gets at what it needs. A running agent is looked at;
//! where there is none, the user that it would have.

use std::ffi::CString;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use nix::unistd::{Gid, User, getgrouplist};
use ovsdb::endpoint::Endpoint;
use rustix::fs::StatVfsMountFlags;
use rustix::thread::CapabilitySet;
use tokio::net::UnixStream;

use super::Finding;
use super::access::{Account, Wish, allowed};
use super::files::Wanted;
use super::kernel::CAPABILITIES;
use crate::backend::ovs::control_sockets;
use crate::config::{Config, Flows};
use crate::privileges::{names, needed};
use crate::state_dir;

/// Of the shipped unit.
const USER: &str = "vifd";
/// Where drop-ins are.
const UNITS: [&str; 3] = ["/etc/systemd/system", "/run/systemd/system", "/usr/lib/systemd/system"];
const MENDED_BY_TMPFILES: &str = "run `systemd-tmpfiles --create vifd.conf`";

/// The agent, as far as its privileges go.
struct Agent {
    name: String,
    account: Account,
    /// Of the process, where it runs.
    capabilities: Option<CapabilitySet>,
    /// What the process sees as `/`, where it runs.
    root: Option<PathBuf>,
}

pub(super) async fn examine(config: &Config, socket: &Path, wanted: &Wanted) -> Vec<Finding> {
    let agent = match running(socket).await {
        Some(agent) => Ok(agent),
        None => expected(config),
    };
    let agent = match agent {
        Ok(agent) => agent,
        Err(finding) => return vec![finding],
    };
    let mut findings = vec![user(&agent)];
    findings.extend(agent.capabilities.map(|has| capabilities(has, &agent, config)));
    findings.extend(sysfs(config, &agent, wanted));
    findings.extend(state(config, &agent));
    findings.extend(records(config, &agent));
    findings.extend(open_vswitch(config, &agent));
    if wanted.vhost_user {
        findings.extend(vhost_user(config, &agent));
    }
    findings
}

/// Who answers on the API's socket.
async fn running(socket: &Path) -> Option<Agent> {
    let peer = UnixStream::connect(socket).await.ok()?.peer_cred().ok()?;
    let status = fs::read_to_string(format!("/proc/{}/status", peer.pid()?)).ok()?;
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let mut gids: Vec<u32> = field("Groups:")?.split_whitespace().filter_map(|gid| gid.parse().ok()).collect();
    gids.push(peer.gid());
    let capabilities = u64::from_str_radix(field("CapEff:")?, 16).ok().map(CapabilitySet::from_bits_retain);
    let name = User::from_uid(peer.uid().into()).ok().flatten();
    let name = name.map_or_else(|| peer.uid().to_string(), |user| user.name);
    let root = Some(format!("/proc/{}/root", peer.pid()?).into());
    Some(Agent { name, account: Account { uid: peer.uid(), gids }, capabilities, root })
}

/// Who it would be.
fn expected(config: &Config) -> Result<Agent, Finding> {
    let name = if config.agent.user.is_empty() { USER } else { &config.agent.user };
    let looked_up = User::from_name(name).ok().flatten().and_then(|user| {
        let gids = getgrouplist(&CString::new(name).ok()?, user.gid).ok()?;
        Some(Account { uid: user.uid.as_raw(), gids: gids.into_iter().map(Gid::as_raw).collect() })
    });
    let Some(account) = looked_up else {
        let message = format!("there is no user {name}, as which the agent should run");
        let remedy = "install deploy/sysusers.d/vifd.conf, then run `systemd-sysusers`";
        return Err(Finding::warn("user", message, remedy));
    };
    Ok(Agent { name: name.to_owned(), account, capabilities: None, root: None })
}

fn user(agent: &Agent) -> Finding {
    let name = "user";
    let runs = if agent.capabilities.is_some() { "runs" } else { "does not run; it would" };
    if agent.account.uid == 0 {
        let remedy = "start it with the shipped unit, or set agent.user in the configuration and restart it";
        return Finding::warn(name, "the agent runs as root, with every capability", remedy);
    }
    Finding::ok(name, format!("the agent {runs} as {} ({})", agent.name, agent.account.uid))
}

fn capabilities(has: CapabilitySet, agent: &Agent, config: &Config) -> Finding {
    let name = CAPABILITIES;
    let needs = needed(config);
    let missing = needs.difference(has);
    if missing.contains(CapabilitySet::NET_ADMIN) {
        let remedy = "start it with the shipped unit (AmbientCapabilities=CAP_NET_ADMIN), then `vifd doctor` again";
        return Finding::fail(name, "CAP_NET_ADMIN is missing: links cannot be made or changed", remedy);
    }
    if !missing.is_empty() {
        let vhostuser = &config.vhostuser;
        let of_sockets = !vhostuser.owner.is_empty() || !vhostuser.group.is_empty();
        let taken: Vec<(&str, &str)> = [
            (of_sockets, "[vhostuser] owner and group", "vhost-user"),
            (config.macvtap.changes_devices(), "[macvtap] owner, group and mode", "macvtap"),
            (!config.nic.is_empty(), "[[nic]]", "nics"),
        ]
        .into_iter()
        .filter_map(|(is, keys, drop_in)| is.then_some((keys, drop_in)))
        .collect();
        let keys = taken.iter().map(|(keys, _)| *keys).collect::<Vec<_>>().join(", and ");
        let drop_ins: Vec<String> =
            taken.iter().map(|(_, drop_in)| format!("deploy/vifd.service.d/{drop_in}.conf")).collect();
        let message = format!("{} is missing, which {keys} take", names(missing));
        let remedy = format!(
            "install {} into /etc/systemd/system/vifd.service.d, then run `systemctl daemon-reload && systemctl \
             restart vifd`",
            drop_ins.join(" and ")
        );
        return Finding::fail(name, message, remedy);
    }
    let more = has.difference(needs);
    // Said of root already.
    if !more.is_empty() && agent.account.uid != 0 {
        let message = format!("{} is more than this configuration takes", names(more));
        let remedy = "remove the drop-in of a feature that is not used: see `systemctl cat vifd`";
        return Finding::warn(name, message, remedy);
    }
    Finding::ok(name, names(needs))
}

/// Whether a running agent may make virtual functions and give them drivers, where that is asked of it.
fn sysfs(config: &Config, agent: &Agent, wanted: &Wanted) -> Option<Finding> {
    let drivers = wanted.functions.iter().any(|function| function.driver.is_some());
    if config.nic.is_empty() && !drivers {
        return None;
    }
    let name = "sysfs";
    // The mount that it has there.
    let mount = rustix::fs::statvfs(agent.root.as_ref()?.join("sys/bus/pci")).ok()?;
    let is_roots = agent.account.uid != 0 && !agent.capabilities?.contains(CapabilitySet::DAC_OVERRIDE);
    if !mount.f_flag.contains(StatVfsMountFlags::RDONLY) && !is_roots {
        return Some(Finding::ok(name, format!("{} may make virtual functions and give them drivers", agent.name)));
    }
    let message =
        format!("{} may not write to sysfs: it makes no virtual functions and gives none a driver", agent.name);
    let listed = if config.nic.is_empty() { "name the NIC in a [[nic]] of the configuration, " } else { "" };
    let remedy = format!(
        "{listed}install deploy/vifd.service.d/nics.conf into /etc/systemd/system/vifd.service.d, then run `systemctl \
         daemon-reload && systemctl restart vifd`"
    );
    Some(Finding::fail(name, message, remedy))
}

/// What others could lay into the state directory.
fn state(config: &Config, agent: &Agent) -> Option<Finding> {
    let path = &config.agent.state_dir;
    // That it is missing or unreadable is told elsewhere.
    let metadata = fs::symlink_metadata(path).ok()?;
    let distrust = state_dir::judge(path, &metadata, agent.account.uid).err()?;
    let message = format!("{distrust}");
    let (message, remedy) = match message.split_once(": ") {
        Some((message, remedy)) => (message.to_owned(), remedy.to_owned()),
        None => (message, "correct agent.state_dir in the configuration".to_owned()),
    };
    Some(Finding::fail("state directory", message, remedy))
}

fn records(config: &Config, agent: &Agent) -> Option<Finding> {
    let path = &config.source.path;
    let shown = path.display();
    match allowed(path, &agent.account, Wish::List) {
        Ok(false) => {
            let message = format!("{} may not read {shown}", agent.name);
            let remedy = format!("run `chown {0}: {shown} && chmod u+rwx {shown}`", agent.name);
            Some(Finding::fail("records", message, remedy))
        }
        // Its absence is told elsewhere.
        Ok(true) | Err(_) => None,
    }
}

/// The sockets that are there, and those that the next start of Open vSwitch makes.
fn open_vswitch(config: &Config, agent: &Agent) -> Vec<Finding> {
    let name = "ovs sockets";
    let rundir = config.rundir();
    let mut sockets = control_sockets(&rundir);
    sockets.extend(config.ovsdb.endpoint.0.iter().filter_map(|endpoint| match endpoint {
        Endpoint::Unix(path) => Some(path.clone()),
        _ => None,
    }));
    // Those of bridges that are there; vifd's flows go by them.
    let managed = config.bridge.iter().filter(|bridge| bridge.flows == Flows::Managed);
    sockets.extend(managed.map(|bridge| rundir.join(format!("{}.mgmt", bridge.name))));
    // A daemon that was killed leaves its socket behind.
    let dead = |socket: &PathBuf| {
        std::os::unix::net::UnixStream::connect(socket).is_err_and(|error| error.kind() != ErrorKind::PermissionDenied)
    };
    sockets.retain(|socket| !dead(socket));
    if sockets.is_empty() {
        return Vec::new();
    }
    let enters = allowed(&rundir, &agent.account, Wish::List).unwrap_or(true);
    let closed = sockets.iter().find(|socket| !allowed(socket, &agent.account, Wish::Write).unwrap_or(true));
    let mut findings = Vec::new();
    if let Some(closed) = closed.or_else(|| (!enters).then_some(&rundir)) {
        let message = format!("{} may not use {}", agent.name, closed.display());
        findings.push(Finding::fail(name, message, MENDED_BY_TMPFILES));
    } else {
        findings.push(Finding::ok(name, format!("{} may use those in {}", agent.name, rundir.display())));
    }
    if agent.account.uid != 0 {
        findings.extend(["ovsdb-server", "ovs-vswitchd"].into_iter().filter_map(|daemon| umask(&rundir, daemon)));
    }
    findings
}

/// Sockets that a daemon makes with such a mask are not for groups, whatever the directory's access control list says.
fn umask(rundir: &Path, daemon: &str) -> Option<Finding> {
    let pid = fs::read_to_string(rundir.join(format!("{daemon}.pid"))).ok()?;
    let status = fs::read_to_string(format!("/proc/{}/status", pid.trim())).ok()?;
    let umask = status.lines().find_map(|line| line.strip_prefix("Umask:"))?.trim();
    let installed = UNITS.iter().any(|units| Path::new(units).join(format!("{daemon}.service.d/vifd.conf")).exists());
    if installed || u32::from_str_radix(umask, 8).ok()? & 0o020 == 0 {
        return None;
    }
    let message = format!("{daemon} runs with umask {umask}: what it makes when it is started anew is closed to vifd");
    let remedy = format!(
        "install deploy/{daemon}.service.d/vifd.conf into /etc/systemd/system/{daemon}.service.d, then run `systemctl \
         daemon-reload`; it holds from the next start of {daemon}"
    );
    Some(Finding::warn("ovs sockets", message, remedy))
}

fn vhost_user(config: &Config, agent: &Agent) -> Option<Finding> {
    let path = &config.vhostuser.dir;
    match allowed(path, &agent.account, Wish::Change) {
        Ok(false) => {
            let message = format!("{} may not make and remove files in {}", agent.name, path.display());
            let remedy = "install what docs/deployment.md has for vhost-user, then run `systemd-tmpfiles --create \
                          vifd.vhost-user.conf`";
            Some(Finding::fail("vhost-user sockets", message, remedy))
        }
        // Its absence is told elsewhere.
        Ok(true) | Err(_) => None,
    }
}
