//! Macvtaps over VLAN links that vifd makes, and the devices that the kernel makes for them in `/dev`.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use vifd_integration::lab::{Emulated, Namespace, Ovs, Record, Switch, Vifd, in_vm, open_as};

/// A user of no name, as a hypervisor may be.
const HYPERVISOR: u32 = 64055;

fn owner(path: &Path) -> Result<(u32, u32)> {
    let is = fs::metadata(path)?;
    Ok((is.uid(), is.mode() & 0o7777))
}

#[test]
fn a_macvtap_stands_on_a_vlan_and_its_device_is_the_hypervisors() -> Result<()> {
    in_vm(|| {
        let (ovs, outside) = (Ovs::start(Switch::Dummy)?, Namespace::new()?);
        ovs.namespace().veth("lower", &outside, "upper", None, None)?;
        outside.run("ip", ["link", "add", "link", "upper", "name", "upper7", "type", "vlan", "id", "7"])?;
        outside.run("ip", ["addr", "add", "10.0.0.99/24", "dev", "upper7"])?;
        outside.run("ip", ["link", "set", "upper7", "up"])?;
        let before = ovs.namespace().links()?;
        let mut vifd = Vifd::beside(&ovs)?;
        vifd.config.more = format!("[macvtap]\nowner = \"{HYPERVISOR}\"\nmode = \"0660\"\n");
        vifd.start()?;
        let record = Record::fixture("direct")?.numbered(11).with("vlan_name", "lower7").with("mode", "bridge");
        let record = record.with_network("bridge_interface", "lower").with_network("vlan", 7);
        vifd.put(&record)?;
        let status = vifd.wait_for(&record.id(), "ready")?;
        let name = record.vif_name();
        assert_eq!(ovs.namespace().link("lower7")?.context("its VLAN link")?.kind, "vlan");
        assert_eq!(ovs.namespace().link(&name)?.context("the macvtap")?.kind, "macvtap");

        let device = PathBuf::from(status["facts"]["device"].as_str().context("its device")?);
        assert_eq!(owner(&device)?, (HYPERVISOR, 0o660));
        chown(&device, Some(0), None)?;
        vifd.until("the owner is put back", |_| Ok((owner(&device)? == (HYPERVISOR, 0o660)).then_some(())))?;
        let opened = open_as(ovs.namespace(), &device, &name, HYPERVISOR)?;
        let guest = Emulated::on(opened, &record.mac(), &format!("{}/24", record.ip()))?;
        assert_eq!(guest.namespace().ping("10.0.0.99", 3)?.received, 3, "over the VLAN");
        drop(guest);

        vifd.remove(&record)?;
        vifd.wait_gone(&record.id())?;
        vifd.until("the links are those of before", |_| Ok((ovs.namespace().links()? == before).then_some(())))?;
        assert!(!device.exists(), "the kernel takes the device with it");
        Ok(())
    })
}
