//! Promise 6: two dpdk-testpmd peers, one of each mode, exchange packets through ports that vifd
//! made on OVS-DPDK, and `VhostConnected` follows a peer that goes and comes back.
//!
//! One test, because DPDK takes a processor for itself while it runs.

use std::os::unix::fs::{FileTypeExt, PermissionsExt};

use anyhow::{Context, Result};
use serde_json::Value;
use vifd_integration::lab::{Ovs, Record, Switch, Testpmd, VhostPeer, Vifd};

fn connected(status: &Value) -> &str {
    status["conditions"]
        .as_array()
        .and_then(|all| all.iter().find(|one| one["type"] == "VhostConnected"))
        .and_then(|one| one["status"].as_str())
        .unwrap_or_default()
}

#[test]
fn peers_of_both_modes_exchange_packets() -> Result<()> {
    let ovs = Ovs::start(Switch::Dpdk)?;
    let mut vifd = Vifd::beside(&ovs)?;
    vifd.start()?;
    let path = |name: &str| ovs.run_directory().join(name);
    let place = |record: Record, name: &str| record.with("path", path(name).to_string_lossy().as_ref());
    let client = Record::fixture("vhostuser-client")?;
    let name = client.vif_name();
    let client = place(client, &name);
    let server = place(Record::fixture("vhostuser-server")?, "guests/server.sock");
    for record in [&client, &server] {
        vifd.put(record)?;
    }
    for record in [&client, &server] {
        let status = vifd.wait_for(&record.id(), "ready")?;
        assert_eq!(connected(&status), "False", "nobody is there yet: {status}");
    }
    let socket = path(&name);
    assert!(socket.metadata().context("the socket of OVS")?.file_type().is_socket());
    let folder = path("guests").metadata().context("the folder of the guest's socket")?;
    assert_eq!(folder.permissions().mode() & 0o7777, 0o770, "as [vhostuser] mode says");

    let peers = [VhostPeer::Client(socket.clone()), VhostPeer::Server(path("guests/server.sock"))];
    for round in ["first", "second"] {
        let mut guest = Testpmd::start(ovs.namespace(), &peers, "flowgen")?;
        for record in [&client, &server] {
            vifd.wait_until(&record.id(), "its guest", |status| connected(status) == "True")?;
        }
        vifd.until("packets cross both ways", |_| {
            let Ok(counts) = guest.received() else {
                return Ok(None); // the first counts are not printed yet
            };
            Ok(counts.iter().all(|count| *count > 1000).then_some(()))
        })
        .with_context(|| format!("{round} guest: {:?}", guest.received()))?;
        drop(guest); // as a crash would end it; its socket stays
        for record in [&client, &server] {
            let status = vifd.wait_until(&record.id(), "lost its guest", |status| connected(status) == "False")?;
            assert_eq!(status["phase"], "ready", "{status}");
        }
        // A guest that makes its socket expects none to be there.
        std::fs::remove_file(path("guests/server.sock"))?;
    }

    for record in [&client, &server] {
        vifd.remove(record)?;
        vifd.wait_gone(&record.id())?;
    }
    assert!(!socket.exists(), "the socket of OVS is left over");
    assert!(path("guests").exists(), "what is the guest's stays");
    assert_eq!(ovs.vsctl(["list-ports", &client.bridge()])?, "");
    Ok(())
}
