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
    fn what_is_no_device_is_no_tun_driver() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert_eq!(tun_at(file.path()).verdict, Level::Fail);
        assert_eq!(tun_at(Path::new("/nowhere/tun")).verdict, Level::Fail);
    }
}
