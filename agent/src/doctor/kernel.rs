//! The kernel: the tun driver, and whether we may use it.

use std::fs;
use std::io;
use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;

use super::Finding;

/// `CAP_NET_ADMIN` of `linux/capability.h`.
const CAP_NET_ADMIN: u32 = 12;

/// Name of the finding on capabilities, whoever's they are.
pub(super) const CAPABILITIES: &str = "capabilities";

pub(super) fn tun() -> Finding {
    tun_at(Path::new("/dev/net/tun"))
}

fn tun_at(path: &Path) -> Finding {
    let name = "tun driver";
    let remedy = "run `modprobe tun`; in a container, pass the device in";
    match fs::metadata(path) {
        Ok(metadata) if !metadata.file_type().is_char_device() => {
            Finding::fail(name, format!("{} is not a device", path.display()), remedy)
        }
        Ok(_) => match fs::OpenOptions::new().read(true).write(true).open(path) {
            Ok(_) => Finding::ok(name, format!("{} can be opened", path.display())),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                let remedy = "run this as the agent runs; in a container, allow the device";
                Finding::fail(name, format!("{} cannot be opened: {error}", path.display()), remedy)
            }
            Err(error) => Finding::fail(name, format!("{} cannot be opened: {error}", path.display()), remedy),
        },
        Err(error) => Finding::fail(name, format!("{} cannot be had: {error}", path.display()), remedy),
    }
}

/// What Open vSwitch needs of the kernel for flows in tc; the last one for VIFs with rules alone. tc loads what it needs,
/// so it is enough that a module can be loaded.
const TC_MODULES: [&str; 8] =
    ["sch_ingress", "cls_flower", "act_mirred", "act_gact", "act_vlan", "act_pedit", "act_police", "act_ct"];

/// The kernel's classifier and actions, by which flows get to a NIC.
pub(super) fn tc_modules() -> Finding {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    tc_modules_at(Path::new("/"), release.trim())
}

fn tc_modules_at(root: &Path, release: &str) -> Finding {
    let name = "tc modules";
    let folder = root.join("lib/modules").join(release);
    // A line for each: `kernel/net/sched/act_ct.ko`, in modules.dep with what it needs behind a colon.
    let list = |file: &str| fs::read_to_string(folder.join(file)).ok();
    let (built_in, loadable) = (list("modules.builtin"), list("modules.dep"));
    let has = |list: &Option<String>, module: &str| {
        let names =
            list.iter().flat_map(|list| list.lines()).filter_map(|line| line.split(':').next()?.split('/').next_back());
        names.filter_map(|file| file.split('.').next()).any(|found| found == module)
    };
    let absent = |module: &&str| {
        !root.join("sys/module").join(module).exists() && !has(&built_in, module) && !has(&loadable, module)
    };
    let absent: Vec<&str> = TC_MODULES.into_iter().filter(absent).collect();
    if absent.is_empty() {
        return Finding::ok(name, format!("{} are there", TC_MODULES.join(", ")));
    }
    if built_in.is_none() && loadable.is_none() {
        let message = format!(
            "{} are not loaded; what the kernel has is not to be seen in {}",
            absent.join(", "),
            folder.display()
        );
        return Finding::warn(name, message, "run `modprobe -a` with their names; in a container, look at the host");
    }
    let message = format!("this kernel has no {}: what needs them is in software", absent.join(", "));
    Finding::warn(
        name,
        message,
        "install the kernel's extra modules (Debian has them in linux-image, Ubuntu in linux-modules-extra)",
    )
}

pub(super) fn capabilities() -> Finding {
    let name = CAPABILITIES;
    match fs::read_to_string("/proc/self/status").ok().as_deref().and_then(effective) {
        Some(set) if set & (1 << CAP_NET_ADMIN) != 0 => Finding::ok(name, "CAP_NET_ADMIN is there"),
        Some(_) => Finding::fail(
            name,
            "CAP_NET_ADMIN is missing: links cannot be made or changed",
            "run as root, or give the service AmbientCapabilities=CAP_NET_ADMIN",
        ),
        None => Finding::warn(name, "/proc/self/status does not tell", "mount /proc"),
    }
}

/// The effective set (capabilities(7), proc(5)).
fn effective(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Level;

    #[test]
    fn the_effective_set_is_read() {
        assert_eq!(effective("Name:\tvifd\nCapEff:\t0000000000001000\n"), Some(1 << CAP_NET_ADMIN));
        assert_eq!(effective("Name:\tvifd\n"), None);
    }

    #[test]
    fn modules_of_tc_are_loaded_built_in_or_can_be_loaded() {
        let root = tempfile::tempdir().unwrap();
        let found = || tc_modules_at(root.path(), "6.1.0");
        assert!(found().verdict == Level::Warn && found().message.contains("is not to be seen"), "{:?}", found());
        let folder = root.path().join("lib/modules/6.1.0");
        fs::create_dir_all(&folder).unwrap();
        let files = TC_MODULES[2..].iter().map(|module| format!("kernel/net/sched/{module}.ko.xz: kernel/net/x.ko\n"));
        fs::write(folder.join("modules.dep"), files.collect::<String>()).unwrap();
        assert!(found().message.contains("has no sch_ingress, cls_flower:"), "{:?}", found());
        fs::write(folder.join("modules.builtin"), "kernel/net/sched/cls_flower.ko\n").unwrap();
        assert!(found().message.contains("has no sch_ingress:"), "{:?}", found());
        fs::create_dir_all(root.path().join("sys/module/sch_ingress")).unwrap();
        assert_eq!(found().verdict, Level::Ok);
    }

    #[test]
    fn what_is_no_device_is_no_tun_driver() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert_eq!(tun_at(file.path()).verdict, Level::Fail);
        assert_eq!(tun_at(Path::new("/nowhere/tun")).verdict, Level::Fail);
    }
}
