//! Guests for vhost-user ports: dpdk-testpmd with virtio-user devices.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use super::namespace::{Namespace, private_directory};
use super::process::{Daemon, Lifetime, tail};
use super::tools::find_tool;
use super::wait::until;

/// One end of a vhost-user socket, seen from the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VhostPeer {
    /// Connects to the socket of a `dpdkvhostuser` port.
    Client(PathBuf),
    /// Makes the socket that a `dpdkvhostuserclient` port connects to.
    Server(PathBuf),
}

/// A running testpmd. Its two processors are the host's first (DPDK's OVS polls on the second).
/// Dropping it kills it, as a guest may be.
#[derive(Debug)]
pub struct Testpmd {
    daemon: Daemon,
    log: PathBuf,
    ports: usize,
    _directory: tempfile::TempDir,
}

impl Testpmd {
    /// Starts one testpmd that is every one of `peers` at once, with `--forward-mode=forward`:
    /// `flowgen` keeps sending on every port and takes in what comes, `icmpecho` answers pings. (`io`, which sends on
    /// what it got, goes silent for good where the first burst came before the other side was up.)
    ///
    /// # Errors
    /// When dpdk-testpmd is missing or ends at once.
    pub fn start(namespace: &Namespace, peers: &[VhostPeer], forward: &str) -> Result<Testpmd> {
        let directory = private_directory()?;
        let log = directory.path().join("testpmd.log");
        let prefix = directory.path().file_name().context("a directory without a name")?.to_string_lossy().into_owned();
        let configure = |command: &mut std::process::Command| {
            command.env("RUNTIME_DIRECTORY", directory.path());
            command.args(["--no-pci", "--no-huge", "-m", "256", "--no-telemetry"]);
            command.args(["--lcores", "0@0,1@0"]);
            command.arg(format!("--file-prefix={prefix}"));
            for (n, peer) in peers.iter().enumerate() {
                let device = match peer {
                    VhostPeer::Client(path) => device(n, path, ""),
                    VhostPeer::Server(path) => device(n, path, ",server=1"),
                };
                command.arg(device);
            }
            command.args(["--", "--auto-start", "--tx-first", "--nb-cores=1"]);
            command.arg(format!("--forward-mode={forward}"));
            command.args(["--txd=1024", "--rxd=1024", "--total-num-mbufs=8192"]);
            command.args(["--stats-period", "1"]);
        };
        let program = find_tool("dpdk-testpmd")?;
        let mut daemon = namespace.daemon(&program, configure, &log, Lifetime::Test)?;
        until("testpmd forwards", Duration::from_secs(60), || {
            daemon.check_running()?;
            Ok(tail(&log, usize::MAX).contains("NIC statistics").then_some(()))
        })?;
        Ok(Testpmd { daemon, log, ports: peers.len(), _directory: directory })
    }

    /// Packets received so far by each port, in the order of the peers.
    ///
    /// # Errors
    /// When testpmd has ended, or printed no count for some port yet.
    pub fn received(&mut self) -> Result<Vec<u64>> {
        self.daemon.check_running()?;
        received(&tail(&self.log, usize::MAX), self.ports)
    }
}

fn device(number: usize, path: &Path, more: &str) -> String {
    let path = path.display();
    format!("--vdev=net_virtio_user{number},path={path}{more},queue_size=1024")
}

/// The newest `RX-packets:` under each `NIC statistics for port N`.
fn received(log: &str, ports: usize) -> Result<Vec<u64>> {
    let mut counts = vec![None; ports];
    let mut port = None;
    for line in log.lines() {
        if let Some((_, rest)) = line.split_once("NIC statistics for port ") {
            port = rest.split(' ').next().and_then(|n| n.parse::<usize>().ok());
        } else if let Some((_, rest)) = line.split_once("RX-packets: ")
            && let Some(count) = port.and_then(|n| counts.get_mut(n))
        {
            *count = rest.split_whitespace().next().and_then(|n| n.parse().ok());
        }
    }
    counts.into_iter().collect::<Option<Vec<u64>>>().with_context(|| format!("testpmd counts no packets yet:\n{log}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_counts_are_read() -> Result<()> {
        let log = "\
  ######################## NIC statistics for port 0  ########################
  RX-packets: 5          RX-missed: 0          RX-bytes:  320
  ######################## NIC statistics for port 1  ########################
  RX-packets: 0          RX-missed: 0          RX-bytes:  0
  ######################## NIC statistics for port 0  ########################
  RX-packets: 17         RX-missed: 0          RX-bytes:  320
";
        assert_eq!(received(log, 2)?, [17, 0]);
        assert!(received(log, 3).is_err());
        Ok(())
    }
}
