//! Where the programs of other projects are. `make deps` installs them or unpacks them into the
//! tools folder; this only finds them and says by name which is missing.

use std::env;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The folder that `make deps` fills: `target/lab` of this workspace, or `$VIFD_LAB`.
#[must_use]
pub fn tools_folder() -> PathBuf {
    env::var_os("VIFD_LAB").map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/lab"), PathBuf::from)
}

/// Path of the program `name`: from the tools folder, else from `PATH`, else from the folders that
/// Debian keeps Open vSwitch's daemons in.
///
/// # Errors
/// When it is nowhere; the message names it.
pub fn find_tool(name: &str) -> Result<PathBuf> {
    let unpacked = tools_folder().join("root");
    let own = ["bin", "usr/bin", "usr/sbin", "usr/lib/openvswitch-switch", "usr/lib/openvswitch-switch-dpdk"]
        .map(|folder| unpacked.join(folder));
    let path = env::var_os("PATH").unwrap_or_default();
    let system =
        ["/usr/sbin", "/sbin", "/usr/lib/openvswitch-switch", "/usr/lib/openvswitch-switch-dpdk"].map(PathBuf::from);
    own.into_iter()
        .chain(env::split_paths(&path))
        .chain(system)
        .map(|folder| folder.join(name))
        .find(|candidate| executable(candidate))
        .with_context(|| format!("{name} is not on this machine: run `make deps`"))
}

fn executable(path: &Path) -> bool {
    path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}
