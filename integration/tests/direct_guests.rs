//! Guests on macvtaps (`VIFDirect`): a packet crosses in each mode, to whom the mode lets it.

use anyhow::Result;
use vifd_integration::lab::{Device, Emulated, Namespace, Ovs, Record, Switch, Vifd};

fn record(number: u32, mode: &str) -> Result<Record> {
    // Over a link that has a name instead of a PCI function.
    Ok(Record::fixture("direct")?.numbered(number).with("vlan_name", "lower").with("mode", mode))
}

#[test]
fn guests_on_macvtaps_reach_whom_the_mode_lets_them() -> Result<()> {
    for (mode, among) in [("bridge", 3), ("vepa", 0)] {
        let (ovs, outside) = (Ovs::start(Switch::Dummy)?, Namespace::new()?);
        ovs.namespace().veth("lower", &outside, "upper", None, Some("10.0.0.99/24"))?;
        let mut vifd = Vifd::beside(&ovs)?;
        vifd.start()?;
        let records = [record(11, mode)?, record(12, mode)?];
        let mut guests = Vec::new();
        for record in &records {
            vifd.put(record)?;
            vifd.wait_for(&record.id(), "ready")?;
            let (name, address) = (record.vif_name(), format!("{}/24", record.ip()));
            guests.push(Emulated::start(ovs.namespace(), Device::Macvtap(&name), &record.mac(), &address)?);
        }
        for guest in &guests {
            assert_eq!(guest.namespace().ping("10.0.0.99", 3)?.received, 3, "{mode}: to the outside");
        }
        assert_eq!(guests[0].namespace().ping(&records[1].ip(), 3)?.received, among, "{mode}: among each other");
        drop(guests);
        for record in &records {
            vifd.remove(record)?;
            vifd.wait_gone(&record.id())?;
            assert_eq!(ovs.namespace().link(&record.vif_name())?, None);
        }
    }
    Ok(())
}

#[test]
fn one_guest_has_its_interface_passed_through() -> Result<()> {
    let (ovs, outside) = (Ovs::start(Switch::Dummy)?, Namespace::new()?);
    ovs.namespace().veth("lower", &outside, "upper", None, Some("10.0.0.99/24"))?;
    let mut vifd = Vifd::beside(&ovs)?;
    vifd.start()?;
    let record = record(11, "passthrough")?;
    vifd.put(&record)?;
    vifd.wait_for(&record.id(), "ready")?;
    let (name, address) = (record.vif_name(), format!("{}/24", record.ip()));
    let guest = Emulated::start(ovs.namespace(), Device::Macvtap(&name), &record.mac(), &address)?;
    assert_eq!(guest.namespace().ping("10.0.0.99", 3)?.received, 3);
    Ok(())
}
