//! A switch that refuses flows: who wanted them is held, alone and with the switch's words, and nobody else.

use anyhow::Result;
use serde_json::json;
use vifd_integration::lab::{Guest, native_guest};

use crate::scene::{BRIDGE, Host};

/// Lets a table have no more flows than these.
fn limit(host: &Host, table: u8, flows: usize) -> Result<()> {
    let full = format!("flow_limit={flows}");
    let tables = format!("flow_tables:{table}=@full");
    let make = ["--", "--id=@full", "create", "Flow_Table", &full, "overflow_policy=refuse"];
    host.ovs.vsctl(make.into_iter().chain(["--", "set", "Bridge", BRIDGE, &tables])).map(drop)
}

fn of_table(host: &Host, table: u8) -> Result<usize> {
    Ok(host.rows()?.iter().filter(|row| row.table == table).count())
}

#[test]
fn hold_one_vif_alone() -> Result<()> {
    let mut host = Host::start()?;
    let [a, b] = host.plug([native_guest(11, 1), native_guest(12, 1)])?;
    // Only VIFs with port security have flows in that table.
    limit(&host, 12, of_table(&host, 12)?)?;
    let refused = Guest::new(&host.ovs, native_guest(13, 1))?;
    let open = Guest::new(&host.ovs, native_guest(14, 1).beside("policy", json!({"port_security": false})))?;
    host.vifd.put(&refused.record)?;
    host.vifd.put(&open.record)?;
    let held = |status: &serde_json::Value| status["reason"] == "Refused";
    let status = host.vifd.wait_until(&refused.record.id(), "the switch refused its flows", held)?;
    let message = status["message"].as_str().unwrap_or_default();
    println!("{message}");
    assert!(message.contains("TABLE_FULL"), "{message}");
    host.vifd.wait_for(&open.record.id(), "ready")?;
    assert!(open.reaches(&a)? && a.reaches(&b)?);
    assert!(refused.hears_nothing_of(&a.record.ip())?, "none of its flows is there without the others");
    let unready = host.vifd.statuses()?.iter().filter(|status| status["phase"] != "ready").count();
    assert_eq!(unready, 1, "the others are what they were");

    // What others lack meanwhile is put back, and what is theirs changes.
    let wanted = host.texts()?;
    host.by_hand("del-flows", "table=40")?;
    host.until_flows_are("deleted flows are back", &wanted)?;
    host.vifd.remove(&open.record)?;
    host.vifd.wait_gone(&open.record.id())?;

    host.ovs.vsctl(["clear", "Bridge", BRIDGE, "flow_tables"])?;
    host.vifd.wait_for(&refused.record.id(), "ready")?;
    assert!(refused.reaches(&a)?);
    Ok(())
}

/// One network's flow is refused while another network changes.
#[test]
fn hold_one_network_alone() -> Result<()> {
    let mut host = Host::with("uplinks = [{ port = \"trunk\" }]")?;
    host.ovs.vsctl(["add-port", BRIDGE, "trunk", "--", "set", "Interface", "trunk", "type=internal"])?;
    let on_vlan = |number, network: u16| native_guest(number, network.into()).with_network("vlan", 100 * network);
    let [mut a, b] = host.plug([on_vlan(11, 1), on_vlan(12, 1)])?;
    limit(&host, 60, of_table(&host, 60)?)?;
    let refused = Guest::new(&host.ovs, on_vlan(13, 2))?;
    host.vifd.put(&refused.record)?;
    let held = |status: &serde_json::Value| status["reason"] == "Refused";
    host.vifd.wait_until(&refused.record.id(), "the switch refused its flows", held)?;

    // An address that others of the network may come to have is the network's business.
    let pair = json!({"allowed_address_pairs": [{"mac": "22:52:26:00:00:63", "ip": "10.0.0.99"}]});
    let record = a.record.clone().beside("policy", pair);
    host.change(&mut a, record)?;
    let shared = host.rows()?.into_iter().filter(|row| (row.table, row.priority) == (40, 90)).count();
    assert_eq!(shared, 1);
    assert!(a.reaches(&b)?);
    host.vifd.wait_until(&refused.record.id(), "it is refused still", held)?;

    host.ovs.vsctl(["clear", "Bridge", BRIDGE, "flow_tables"])?;
    host.vifd.wait_for(&refused.record.id(), "ready")?;
    Ok(())
}
