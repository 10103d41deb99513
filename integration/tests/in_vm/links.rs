//! Links that the machine's own kernel need not know: VLANs.

use anyhow::Result;
use serde_json::json;
use vifd_integration::lab::{Host, Record, Vifd, differences, in_vm, uplinked};

/// As os-vif's linux_bridge plugin has it. 4.3.1 makes the VLAN link and then fails over a call of its own
/// (`lab_links.rs`); the bridge is what it makes for a flat network on that link. (os-vif takes a minute to start in here.)
#[test]
fn a_linux_bridge_on_a_vlan() -> Result<()> {
    in_vm(|| {
        let ([_, host], [_, outside]) = uplinked()?;
        let mut vifd = Vifd::beside(&host)?;
        vifd.start()?;
        let before = Host::observe(&host)?.0;
        let mut model = before.clone();
        model["links"]["vlan99"] = json!({
            "kind": "vlan", "settings": {"id": 99, "protocol": "802.1Q"}, "below": "eth1", "master": "brq-vlan",
            "mac": "02:00:00:00:00:01", "mtu": 1450, "up": true, "promiscuous": false, "addresses": [], "routes": [],
        });
        model["links"]["brq-vlan"] = json!({
            "kind": "bridge", "master": null, "mac": "02:00:00:00:00:01", "mtu": 1450, "up": true, "promiscuous": false,
            "settings": {"ageing_time": 30_000, "stp_state": 0, "forward_delay": 0, "mcast_snooping": 0},
            "sysctls": {"disable_ipv6": "1", "arp_ignore": "1", "arp_announce": "2"}, "addresses": [], "routes": [],
        });
        let becomes = |vifd: &mut Vifd, model: &serde_json::Value| {
            let mut last = Vec::new();
            let done = vifd.until("the host is as its model", |_| {
                last = differences(model, &Host::observe(&host)?.0, &["/links"]);
                Ok(last.is_empty().then_some(()))
            });
            anyhow::Context::with_context(done, || last.join("\n"))
        };
        let one = Record::fixture("bridge-vlan")?
            .with_network("should_provide_bridge", true)
            .with_network("should_provide_vlan", true);
        let two = one.clone().numbered(2);
        for record in [&one, &two, &one] {
            vifd.put(record)?;
            becomes(&mut vifd, &model)?;
        }
        assert_eq!(outside.ping("192.0.2.5", 2)?.received, 2, "the interface itself is as it was");
        vifd.remove(&one)?;
        vifd.wait_gone(&one.id())?;
        becomes(&mut vifd, &model)?;
        vifd.remove(&two)?;
        vifd.wait_gone(&two.id())?;
        becomes(&mut vifd, &before)
    })
}
