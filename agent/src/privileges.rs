//! What the agent has to be allowed, and giving up the rest where it was started as root. Under the shipped unit
//! systemd has done that already and nothing happens here.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;

use anyhow::{Context as _, bail};
use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::unistd::{User, fchownat, initgroups, setgid, setuid};
use rustix::thread::{CapabilitySet, CapabilitySets};

use crate::config::Config;

/// Taps and links, their sysctls, and receive buffers beyond the limit (capabilities(7)).
const LINKS: CapabilitySet = CapabilitySet::NET_ADMIN;
/// Directories and devices that are to belong to somebody else, and putting them right afterwards.
const FOREIGN_FILES: CapabilitySet = CapabilitySet::CHOWN.union(CapabilitySet::FOWNER);

/// Attributes of PCI functions in sysfs, which are root's: how many virtual ones there are, and which driver has one.
const DRIVERS: CapabilitySet = CapabilitySet::DAC_OVERRIDE;

/// The capabilities that the features of a configuration take.
pub(crate) fn needed(config: &Config) -> CapabilitySet {
    let sockets = !config.vhostuser.owner.is_empty() || !config.vhostuser.group.is_empty();
    let foreign = if sockets || config.macvtap.changes_devices() { FOREIGN_FILES } else { CapabilitySet::empty() };
    let drivers = if config.nic.is_empty() { CapabilitySet::empty() } else { DRIVERS };
    LINKS.union(foreign).union(drivers)
}

/// The names of capabilities as systemd and capsh write them.
pub(crate) fn names(set: CapabilitySet) -> String {
    set.iter_names().map(|(name, _)| format!("CAP_{name}")).collect::<Vec<_>>().join(" ")
}

/// Becomes `agent.user`, with the capabilities that are needed and no others. Does nothing where that is empty or the
/// process is not root's. Must be called while the process has one thread: capabilities are the thread's.
///
/// # Errors
/// There is no such user, or the kernel refuses; the process must not go on then.
pub(crate) fn give_up(config: &Config) -> anyhow::Result<()> {
    let name = &config.agent.user;
    if name.is_empty() || !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let user = User::from_name(name)
        .with_context(|| format!("agent.user: {name:?} cannot be looked up"))?
        .with_context(|| format!("agent.user: there is no user {name:?} on this host: run `systemd-sysusers`"))?;
    if user.uid.is_root() {
        bail!("agent.user: {name:?} is root; leave the key empty to stay root");
    }
    make_directory(&config.agent.state_dir, 0o750, &user)?;
    if let Some(directory) = config.api.socket.parent() {
        make_directory(directory, 0o755, &user)?;
    }
    let kept = needed(config);
    become_user(&user, name, kept).with_context(|| format!("cannot become {name:?} with {} alone", names(kept)))
}

/// Makes a directory of the agent's own where it is missing; the user could not.
fn make_directory(path: &Path, mode: u32, user: &User) -> anyhow::Result<()> {
    if fs::symlink_metadata(path).is_ok() {
        return Ok(());
    }
    let made = || -> anyhow::Result<()> {
        if let Some(above) = path.parent() {
            DirBuilder::new().recursive(true).mode(0o755).create(above)?;
        }
        DirBuilder::new().mode(mode).create(path)?;
        // Not through a link that was laid in its place meanwhile: this is root.
        Ok(fchownat(AT_FDCWD, path, Some(user.uid), Some(user.gid), AtFlags::AT_SYMLINK_NOFOLLOW)?)
    };
    made().with_context(|| format!("cannot make {} for {}", path.display(), user.name))
}

fn become_user(user: &User, name: &str, kept: CapabilitySet) -> anyhow::Result<()> {
    initgroups(&std::ffi::CString::new(name)?, user.gid)?;
    setgid(user.gid)?;
    for capability in CapabilitySet::all().difference(kept).iter() {
        match rustix::thread::remove_capability_from_bounding_set(capability) {
            // A kernel that does not know it yet.
            Ok(()) | Err(rustix::io::Errno::INVAL) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    rustix::thread::set_keep_capabilities(true)?;
    setuid(user.uid)?;
    let sets = CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
    rustix::thread::set_capabilities(None, sets)?;
    rustix::thread::set_keep_capabilities(false)?;
    rustix::thread::set_no_new_privs(true)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn what_is_somebody_elses_takes_more() {
        let needs = |text: &str| names(needed(&Config::parse(text, Path::new("vifd.toml")).unwrap()));
        assert_eq!(needs(""), "CAP_NET_ADMIN");
        assert_eq!(needs("[vhostuser]\nmode = '0700'"), "CAP_NET_ADMIN");
        assert_eq!(needs("[vhostuser]\ngroup = 'kvm'"), "CAP_CHOWN CAP_FOWNER CAP_NET_ADMIN");
        assert_eq!(needs("[macvtap]\ndir = '/dev'"), "CAP_NET_ADMIN");
        assert_eq!(needs("[macvtap]\nmode = '0660'"), "CAP_CHOWN CAP_FOWNER CAP_NET_ADMIN");
        assert_eq!(needs("[[nic]]\ndevice = 'pci/0000:03:00.0'"), "CAP_DAC_OVERRIDE CAP_NET_ADMIN");
    }
}
