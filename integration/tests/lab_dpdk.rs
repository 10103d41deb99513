//! The lab's DPDK: ports that ovs-vsctl makes carry packets between guests of both modes. When this
//! fails, the machine or the lab is at fault, not vifd. One test: see vhost_user.rs.

use std::time::Duration;

use anyhow::Result;
use vifd_integration::lab::{Ovs, Switch, Testpmd, VhostPeer, until};

#[test]
fn guests_of_both_modes_exchange_packets() -> Result<()> {
    let ovs = Ovs::start(Switch::Dpdk)?;
    let server = ovs.run_directory().join("server.sock");
    ovs.vsctl([
        "add-br",
        "br0",
        "--",
        "set",
        "Bridge",
        "br0",
        "datapath_type=netdev",
        "--",
        "add-port",
        "br0",
        "vhu0",
        "--",
        "set",
        "Interface",
        "vhu0",
        "type=dpdkvhostuser",
        "--",
        "add-port",
        "br0",
        "vhu1",
        "--",
        "set",
        "Interface",
        "vhu1",
        "type=dpdkvhostuserclient",
        &format!("options:vhost-server-path={}", server.display()),
    ])?;
    let peers = [VhostPeer::Client(ovs.run_directory().join("vhu0")), VhostPeer::Server(server)];
    let mut guest = Testpmd::start(ovs.namespace(), &peers, "flowgen")?;
    until("packets cross both ways", Duration::from_secs(30), || {
        let Ok(counts) = guest.received() else {
            return Ok(None); // the first counts are not printed yet
        };
        Ok(counts.iter().all(|count| *count > 100).then_some(()))
    })
}
