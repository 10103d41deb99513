//! What libvirt does on a host for a guest with one interface: on an Open vSwitch bridge, where the record leaves the port to
//! it (`create_port` false, Nova's default), or on a Linux bridge (`VIFBridge`). It is done in the order of
//! `virNetDevTapCreateInBridgePort` and `qemuProcessStop`, by the means it has: a tap that goes when it is closed,
//! ovs-vsctl, and the kernel.

use std::fs::File;

use anyhow::{Context, Result, bail};

use super::device::Device;
use super::emulated::Emulated;
use super::ovs::Ovs;
use super::record::Record;

/// A guest of libvirt's on one host. Dropping it kills the guest, and leaves its port behind.
#[derive(Debug)]
pub struct Domain {
    /// What its interface was defined from.
    pub record: Record,
    address: String,
    state: State,
}

#[derive(Debug)]
enum State {
    Off,
    /// The device is there and nobody is behind it: a guest that is being migrated here.
    Incoming(File),
    Running(Emulated),
}

impl Domain {
    /// Defines the guest of a record; its address has 24 bits of network.
    #[must_use]
    pub fn define(record: Record) -> Domain {
        let address = format!("{}/24", record.ip());
        Domain { record, address, state: State::Off }
    }

    /// The guest, while it runs.
    ///
    /// # Errors
    /// When it does not.
    pub fn guest(&self) -> Result<&Emulated> {
        match &self.state {
            State::Running(guest) => Ok(guest),
            State::Off | State::Incoming(_) => bail!("the guest of {} does not run", self.record.id()),
        }
    }

    /// Starts the guest.
    ///
    /// # Errors
    /// When it is there already, or the bridge is not.
    pub fn start(&mut self, ovs: &Ovs) -> Result<()> {
        self.prepare(ovs)?;
        self.resume()
    }

    /// Makes ready for a guest that will be migrated here: the tap and the port are made, and nothing comes out of them.
    ///
    /// # Errors
    /// As [`Domain::start`].
    pub fn prepare(&mut self, ovs: &Ovs) -> Result<()> {
        let name = self.record.vif_name();
        let device = Device::Tap(&name).open(ovs.namespace())?;
        // The host's end has the guest's address but for its first octet, so that the host is not taken for the guest.
        let mac = format!("fe{}", self.record.mac().get(2..).context("a MAC")?);
        ovs.namespace().run("ip", ["link", "set", &name, "address", &mac])?;
        match self.linux_bridge() {
            Some(bridge) => ovs.namespace().run("ip", ["link", "set", &name, "master", bridge]).map(drop)?,
            None => self.renew_port(ovs)?,
        }
        ovs.namespace().run("ip", ["link", "set", &name, "up"])?;
        self.state = State::Incoming(device);
        Ok(())
    }

    /// Lets the guest run that was prepared for. QEMU would say by a RARP where it is now; here its first packet does.
    ///
    /// # Errors
    /// When none was.
    pub fn resume(&mut self) -> Result<()> {
        match std::mem::replace(&mut self.state, State::Off) {
            State::Incoming(device) => {
                self.state = State::Running(Emulated::on(device, &self.record.mac(), &self.address)?);
                Ok(())
            }
            State::Off | State::Running(_) => bail!("nothing was prepared for the guest of {}", self.record.id()),
        }
    }

    /// `virNetDevOpenvswitchAddPort`: whatever port has the name goes, and a new one comes, in one transaction.
    ///
    /// # Errors
    /// When the bridge is not there.
    pub fn renew_port(&self, ovs: &Ovs) -> Result<()> {
        let name = self.record.vif_name();
        let bridge = self.record.bridge();
        let mut arguments = vec!["--", "--if-exists", "del-port", &name, "--", "add-port", &bridge, &name];
        let keys = [
            format!("external_ids:attached-mac=\"{}\"", self.record.mac()),
            format!("external_ids:iface-id=\"{}\"", self.record.id()),
            format!("external_ids:vm-id=\"{}\"", self.record.instance_id()),
            "external_ids:iface-status=active".to_owned(),
        ];
        for key in &keys {
            arguments.extend(["--", "set", "Interface", &name, key]);
        }
        arguments.extend(["--", "set", "Port", &name, "other_config:transient=true"]);
        ovs.vsctl(arguments).map(drop)
    }

    /// Kills the guest: its tap goes with it, and its port stays for now.
    pub fn kill(&mut self) {
        self.state = State::Off;
    }

    /// `virNetDevOpenvswitchRemovePort`.
    ///
    /// # Errors
    /// When ovs-vswitchd does not answer.
    pub fn remove_port(&self, ovs: &Ovs) -> Result<()> {
        ovs.vsctl(["--", "--if-exists", "del-port", &self.record.vif_name()]).map(drop)
    }

    /// Stops the guest.
    ///
    /// # Errors
    /// As [`Domain::remove_port`].
    pub fn stop(&mut self, ovs: &Ovs) -> Result<()> {
        self.kill();
        if self.linux_bridge().is_some() { Ok(()) } else { self.remove_port(ovs) }
    }

    fn linux_bridge(&self) -> Option<&str> {
        let bridged = self.record.0["vif"]["versioned_object.name"] == "VIFBridge";
        self.record.field("bridge_name").filter(|_| bridged)
    }
}
