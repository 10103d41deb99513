//! What happens to one VIF happens to its flows alone: those of others are not as much as replaced by themselves.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use serde_json::json;
use vifd_integration::lab::{FlowRow, Guest, native_guest};

use crate::scene::{BRIDGE, Host};

type Identity = (u8, u16, String);

/// Every flow that is not one of the guest's.
fn others(host: &Host, guest: u64) -> Result<BTreeMap<Identity, FlowRow>> {
    let rows = host.rows()?.into_iter().filter(|row| row.cookie != guest);
    Ok(rows.map(|row| ((row.table, row.priority, row.matching.clone()), row)).collect())
}

/// That each flow is there still, and counts on.
fn go_on(before: &BTreeMap<Identity, FlowRow>, now: &BTreeMap<Identity, FlowRow>) -> Result<()> {
    for (identity, before) in before {
        let now = now.get(identity).with_context(|| format!("{before:?} is gone"))?;
        assert_eq!(before.actions, now.actions, "{identity:?}");
        assert!(now.duration >= before.duration, "replaced: {before:?}, {now:?}");
        assert!(now.packets >= before.packets, "begun anew: {before:?}, {now:?}");
    }
    Ok(())
}

#[test]
fn a_change_of_a_vif_changes_only_its_flows() -> Result<()> {
    let mut host = Host::start()?;
    let [a, b, mut moved, c] =
        host.plug([native_guest(11, 1), native_guest(12, 1), native_guest(13, 1), native_guest(14, 2)])?;
    let ping = a.keep_pinging(&b)?;
    let cookie = host.cookie(&moved)?;
    let counted = |host: &Host| -> Result<u64> { host.counted(&a, crate::scene::places::SENT) };
    let before = others(&host, cookie)?;
    let sent = counted(&host)?;

    // Another address.
    let mut record = moved.record.clone();
    record.0["vif"]["network"]["subnets"][0]["ips"][0]["address"] = json!("10.0.0.113");
    host.change(&mut moved, record.clone())?;
    moved.namespace().run("ip", ["addr", "del", "10.0.0.13/24", "dev", "eth0"])?;
    moved.namespace().run("ip", ["addr", "add", "10.0.0.113/24", "dev", "eth0"])?;
    assert!(moved.reaches(&a)?);
    let after = others(&host, cookie)?;
    assert_eq!(before.len(), after.len());
    go_on(&before, &after)?;

    // Another network: the two floods change, in their groups; no flow but its own does.
    record = record.with_network("id", c.record.0["vif"]["network"]["id"].clone());
    host.change(&mut moved, record)?;
    assert!(moved.reaches(&c)? && moved.hears_nothing_of(&a.record.ip())?);
    let after = others(&host, cookie)?;
    go_on(&before, &after)?;
    let new: Vec<_> = after.iter().filter(|(identity, _)| !before.contains_key(*identity)).collect();
    assert!(new.iter().all(|((table, priority, _), _)| (*table, *priority) == (40, 50)), "a flood of two: {new:?}");
    let ping = ping.stop()?;
    assert!(ping.sent - ping.received <= 1, "{ping:?}");
    assert!(counted(&host)? > sent);
    Ok(())
}

#[test]
fn a_vif_that_leaves_takes_its_flows_along_before_its_port_goes() -> Result<()> {
    let mut host = Host::start()?;
    let [a, b] = host.plug([native_guest(11, 1), native_guest(12, 1)])?;
    let before = host.texts()?;
    let [late]: [Guest; 1] = host.plug([native_guest(14, 1)])?;
    assert!(late.reaches(&a)?);
    assert!(host.texts()?.len() > before.len());
    host.vifd.remove(&late.record)?;
    host.vifd.wait_gone(&late.record.id())?;
    host.until_flows_are("its flows are gone and the others as they were", &before)?;
    assert!(host.ovs.row("Port", &late.record.vif_name())?.is_none());
    assert!(a.reaches(&b)?);
    Ok(())
}

/// Two networks that say the same VLAN of one uplink: the one that has it keeps it, over a restart too.
#[test]
fn a_vlan_is_one_networks() -> Result<()> {
    let mut host = Host::with("uplinks = [{ port = \"trunk\" }]")?;
    host.ovs.vsctl(["add-port", BRIDGE, "trunk", "--", "set", "Interface", "trunk", "type=internal"])?;
    let on_vlan = |number, network, vlan: u16| native_guest(number, network).with_network("vlan", vlan);
    let [a, _b] = host.plug([on_vlan(12, 2, 100), on_vlan(13, 3, 300)])?;
    let arriving = |host: &Host| -> Result<Vec<FlowRow>> {
        let mut rows = host.rows()?;
        rows.retain(|row| row.table == 0 && row.matching.contains("dl_vlan=100"));
        Ok(rows)
    };
    let [before] = &arriving(&host)?[..] else { anyhow::bail!("not one: {:?}", host.rows()) };
    // Its id comes first.
    let late = Guest::new(&host.ovs, on_vlan(11, 1, 100))?;
    host.vifd.put(&late.record)?;
    let status = host.vifd.wait_for(&late.record.id(), "conflict")?;
    let message = status["message"].as_str().unwrap_or_default();
    assert!(message.contains("VLAN 100") && message.contains("network 00000002-"), "{message}");
    host.vifd.stop()?;
    host.vifd.start()?;
    host.vifd.wait_for(&a.record.id(), "ready")?;
    host.vifd.wait_for(&late.record.id(), "conflict")?;
    let [after] = &arriving(&host)?[..] else { anyhow::bail!("not one: {:?}", host.rows()) };
    assert_eq!((before.cookie, &before.actions), (after.cookie, &after.actions));
    assert!(after.duration >= before.duration, "it was replaced");

    host.vifd.remove(&a.record)?;
    host.vifd.wait_for(&late.record.id(), "ready")?;
    let [other] = &arriving(&host)?[..] else { anyhow::bail!("not one: {:?}", host.rows()) };
    assert_ne!(other.cookie, before.cookie);
    Ok(())
}
