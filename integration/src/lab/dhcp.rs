//! DHCP between guests: the server and the client of BusyBox.

use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;

use anyhow::{Context, Result};

use super::guest::GUEST_DEVICE;
use super::namespace::{Namespace, private_directory};
use super::process::{Daemon, Lifetime};
use super::tools::find_tool;

/// A server on the device of a guest. Dropping it ends it.
#[derive(Debug)]
pub struct DhcpServer {
    _daemon: Daemon,
    _directory: tempfile::TempDir,
}

impl DhcpServer {
    /// Starts it with leases for these Ethernet addresses, and for nobody else.
    ///
    /// # Errors
    /// When BusyBox is missing.
    pub fn start(namespace: &Namespace, leases: &[(String, String)]) -> Result<DhcpServer> {
        let directory = private_directory()?;
        let at = |name: &str| directory.path().join(name);
        let mut text = format!(
            "interface {GUEST_DEVICE}\nstart 10.0.0.250\nend 10.0.0.250\nmax_leases 1\nlease_file {}\npidfile {}\n\
             option subnet 255.255.255.0\noption lease 600\n",
            at("leases").display(),
            at("pid").display(),
        );
        for (mac, address) in leases {
            text += &format!("static_lease {mac} {address}\n");
        }
        let config = at("udhcpd.conf");
        fs::write(&config, text)?;
        fs::write(at("leases"), "")?;
        let configure = |command: &mut std::process::Command| {
            command.args(["udhcpd", "-f"]).arg(&config);
        };
        let daemon = namespace.daemon(&find_tool("busybox")?, configure, &at("log"), Lifetime::Test)?;
        Ok(DhcpServer { _daemon: daemon, _directory: directory })
    }
}

/// Asks for an address on the device of a guest, so many times, a second apart; `None` when nobody gives one. It is put on no
/// device.
///
/// # Errors
/// When BusyBox is missing, or says what is no address.
pub fn dhcp_lease(namespace: &Namespace, attempts: u32) -> Result<Option<Ipv4Addr>> {
    let directory = private_directory()?;
    let script = directory.path().join("script");
    fs::write(&script, "#!/bin/sh\n[ \"$1\" != bound ] || echo \"bound to $ip\"\n")?;
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
    let mut command = namespace.command("busybox")?;
    command.args(["udhcpc", "-f", "-q", "-n", "-i", GUEST_DEVICE, "-T", "1", "-t", &attempts.to_string(), "-s"]);
    command.arg(&script);
    let printed = command.output().context("running udhcpc")?;
    let text = String::from_utf8_lossy(&printed.stdout);
    let bound = text.lines().find_map(|line| line.strip_prefix("bound to "));
    bound.map(|address| address.trim().parse().with_context(|| format!("udhcpc said {text}"))).transpose()
}
