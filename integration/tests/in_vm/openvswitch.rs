//! Open vSwitch's kernel datapath, under bridges of type `system`.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use serde_json::json;
use vifd_integration::lab::{
    Config, Device, Emulated, Guest, Ovs, Record, Switch, Vifd, guest_record, in_vm, native_guest,
};

/// The link that is the master of every link of the datapath.
const DATAPATH: &str = "ovs-system";

fn host() -> Result<(Ovs, Vifd)> {
    let ovs = Ovs::start(Switch::Kernel)?;
    let mut vifd = Vifd::beside(&ovs)?;
    vifd.start()?;
    Ok((ovs, vifd))
}

#[test]
fn taps_that_vifd_makes_are_ports_of_the_kernel() -> Result<()> {
    in_vm(|| {
        let (ovs, mut vifd) = host()?;
        let empty = ovs.namespace().links()?;
        let record = |number| -> Result<Record> {
            let record = Record::fixture("openvswitch-create-tap")?.numbered(number);
            Ok(record.with_profile("datapath_type", "system"))
        };
        let [a, b] = [record(11)?, record(12)?];
        let mut guests = Vec::new();
        for record in [&a, &b] {
            vifd.put(record)?;
            vifd.wait_for(&record.id(), "ready")?;
            let link = ovs.namespace().link(&record.vif_name())?.context("its tap")?;
            assert_eq!((link.kind.as_str(), link.master.as_deref()), ("tun", Some(DATAPATH)));
            let (tap, address) = (record.vif_name(), format!("{}/24", record.ip()));
            guests.push(Emulated::start(ovs.namespace(), Device::Tap(&tap), &record.mac(), &address)?);
        }
        let ping = guests[0].namespace().ping(&b.ip(), 5)?;
        assert_eq!((ping.sent, ping.received), (5, 5));
        let flows = ovs.appctl(["dpctl/dump-flows", "system@ovs-system"])?;
        let from_a = format!("src={}", a.mac());
        assert!(flows.lines().any(|flow| flow.contains(&from_a)), "{flows}");
        drop(guests);

        for record in [&a, &b] {
            vifd.remove(record)?;
            vifd.wait_gone(&record.id())?;
            assert_eq!(ovs.namespace().link(&record.vif_name())?, None);
        }
        assert_eq!(ovs.rows("QoS")?.len(), 0);
        let ports = ovs.rows("Port")?;
        assert_eq!(ports.len(), 1, "the bridge's own: {ports:?}");
        ovs.vsctl(["del-br", &a.bridge()])?;
        vifd.until("the links are those of before", |_| Ok((ovs.namespace().links()? == empty).then_some(())))
    })
}

/// What a flap would change: rows of interfaces by their UUIDs, links by their indices.
fn identities(ovs: &Ovs) -> Result<(BTreeMap<String, String>, BTreeMap<String, u64>)> {
    let rows = ovs.rows("Interface")?.iter().map(|row| (row["name"].to_string(), row["_uuid"].to_string())).collect();
    let links = ovs.namespace().links()?.into_iter().map(|(name, link)| (name, link.index)).collect();
    Ok((rows, links))
}

#[test]
fn a_killed_ovs_vswitchd_leaves_the_kernel_forwarding() -> Result<()> {
    in_vm(|| {
        let (mut ovs, mut vifd) = host()?;
        let record =
            |number| -> Result<Record> { Ok(guest_record(number, 1)?.with_profile("datapath_type", "system")) };
        let a = Guest::plug(&ovs, &mut vifd, record(11)?)?;
        let b = Guest::plug(&ovs, &mut vifd, record(12)?)?;
        let tap = Record::fixture("openvswitch-create-tap")?.numbered(13);
        vifd.put(&tap)?;
        vifd.wait_for(&tap.id(), "ready")?;
        let ids = [a.record.id(), b.record.id(), tap.id()];
        let before = identities(&ovs)?;

        // What the kernel has learned to forward it goes on forwarding.
        assert_eq!(a.ping(&b, 3)?.received, 3);
        let ping = a.keep_pinging(&b)?;
        ovs.stop_vswitchd(Signal::SIGKILL)?;
        for id in &ids {
            vifd.wait_for(id, "waiting")?;
        }
        assert_eq!(identities(&ovs)?, before, "while it is away");
        std::thread::sleep(Duration::from_secs(1));
        let ping = ping.stop()?;
        assert!(ping.sent > 20 && ping.sent - ping.received <= 2, "{ping:?}");

        ovs.start_vswitchd()?;
        for id in &ids {
            vifd.wait_for(id, "ready")?;
        }
        assert!(a.reaches(&b)?, "ready, and no ping crosses");
        assert_eq!(identities(&ovs)?, before);
        Ok(())
    })
}

#[test]
fn rules_are_kept_by_the_connection_tracking_of_the_kernel() -> Result<()> {
    in_vm(|| {
        let ovs = Ovs::start(Switch::Kernel)?;
        let mut vifd = Vifd::beside(&ovs)?;
        let more = "[[bridge]]\nname = \"br-int\"\nflows = \"managed\"\n[openflow]\nzones = \"40000-40000\"\n";
        vifd.config = Config { more: more.to_owned(), ..Config::default() };
        vifd.start()?;
        let ping = json!({"direction": "ingress", "protocol": "icmp", "remote_ip_prefix": "10.0.0.13/32"});
        let record = |number| native_guest(number, 1).with_profile("datapath_type", "system");
        let server = Guest::plug(&ovs, &mut vifd, record(11).beside("policy", json!({"rules": [ping]})))?;
        let stranger = Guest::plug(&ovs, &mut vifd, record(12))?;
        let friend = Guest::plug(&ovs, &mut vifd, record(13))?;

        let reply = friend.ping(&server, 3)?;
        assert_eq!(reply.received, 3, "a rule for its prefix");
        assert!(stranger.hears_nothing_of(&server.record.ip())?, "no rule for its prefix");
        assert!(server.hears_nothing_of(&friend.record.ip())?, "no rule lets it begin anything");
        assert!(friend.reaches(&stranger)?, "neither has rules");

        let flows = ovs.appctl(["dpctl/dump-flows", "system@ovs-system"])?;
        assert!(flows.contains("zone=40000"), "{flows}");
        let tracked = ovs.appctl(["dpctl/dump-conntrack", "system@ovs-system", "zone=40000"])?;
        assert!(tracked.contains(&friend.record.ip()) && !tracked.contains(&stranger.record.ip()), "{tracked}");
        Ok(())
    })
}
