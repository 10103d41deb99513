//! Guests on macvtaps (`VIFDirect`): a packet crosses in each mode, to whom the mode lets it.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;

use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use nix::sys::stat::{Mode, SFlag, mknod};
use vifd_integration::lab::{Device, Emulated, Namespace, Ovs, Record, Switch, Vifd, character_device, open_as};

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

/// A user of no name, as a hypervisor may be.
const HYPERVISOR: u32 = 64055;

/// Owner, group and mode.
fn access(path: &Path) -> Result<(u32, u32, u32)> {
    let is = fs::metadata(path)?;
    Ok((is.uid(), is.gid(), is.mode() & 0o7777))
}

#[test]
fn a_hypervisor_that_is_not_roots_gets_the_device() -> Result<()> {
    let (ovs, outside) = (Ovs::start(Switch::Dummy)?, Namespace::new()?);
    ovs.namespace().veth("lower", &outside, "upper", None, Some("10.0.0.99/24"))?;
    // Nodes are made by the test: in the host's /dev those of all network namespaces have one set of names.
    let devices = tempfile::tempdir()?;
    fs::set_permissions(devices.path(), fs::Permissions::from_mode(0o755))?;
    let config = |group: &str| {
        let directory = devices.path().display();
        format!("[macvtap]\ndir = \"{directory}\"\nowner = \"{HYPERVISOR}\"\ngroup = \"{group}\"\nmode = \"0640\"\n")
    };
    let mut vifd = Vifd::beside(&ovs)?;
    vifd.config.more = config("");
    vifd.start()?;
    let record = record(11, "bridge")?;
    vifd.put(&record)?;
    let name = record.vif_name();

    let status = vifd.wait_for(&record.id(), "plugged")?;
    let (device, number) = character_device(ovs.namespace(), &name)?;
    let node = devices.path().join(device);
    assert_eq!(status["facts"]["device"], node.to_str().context("its path")?);
    assert_eq!(status["reason"], "WaitingForDevice");
    mknod(&node, SFlag::S_IFCHR, Mode::S_IRUSR | Mode::S_IWUSR, number)?;
    vifd.wait_for(&record.id(), "ready")?;
    assert_eq!(access(&node)?, (HYPERVISOR, 0, 0o640), "the group is left as it is");

    // By hand, then by the configuration.
    chown(&node, Some(0), Some(0))?;
    vifd.until("the owner is put back", |_| Ok((access(&node)? == (HYPERVISOR, 0, 0o640)).then_some(())))?;
    vifd.config.more = config("7");
    vifd.write_config()?;
    vifd.signal(Signal::SIGHUP)?;
    vifd.until("the group is another", |_| Ok((access(&node)? == (HYPERVISOR, 7, 0o640)).then_some(())))?;
    vifd.wait_for(&record.id(), "ready")?;

    assert!(open_as(ovs.namespace(), &node, &name, HYPERVISOR + 1).is_err(), "it is not for others");
    let opened = open_as(ovs.namespace(), &node, &name, HYPERVISOR)?;
    let guest = Emulated::on(opened, &record.mac(), &format!("{}/24", record.ip()))?;
    assert_eq!(guest.namespace().ping("10.0.0.99", 3)?.received, 3);
    drop(guest);
    fs::remove_file(&node)?;
    vifd.wait_for(&record.id(), "plugged")?;
    vifd.remove(&record)?;
    vifd.wait_gone(&record.id())?;
    assert_eq!(ovs.namespace().link(&name)?, None);
    Ok(())
}
