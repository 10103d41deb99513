//! The switch between hosts: a bridge that learns, of an Open vSwitch of its own, with a trunk to each host and machines
//! that are on no host.

use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result};

use super::guest::GUEST_DEVICE;
use super::namespace::Namespace;
use super::ovs::{Ovs, Switch};

const BRIDGE: &str = "rack";

/// Such a switch.
#[derive(Debug)]
pub struct Rack {
    ovs: Ovs,
    ports: AtomicU32,
}

impl Rack {
    /// Starts it.
    ///
    /// # Errors
    /// As [`Ovs::start`].
    pub fn start() -> Result<Rack> {
        let ovs = Ovs::start(Switch::Userspace)?;
        ovs.vsctl(["add-br", BRIDGE, "--", "set", "Bridge", BRIDGE, "datapath_type=netdev"])?;
        Ok(Rack { ovs, ports: AtomicU32::new(0) })
    }

    /// Leads a cable to a host, where the device `name` is its end: a trunk of all VLANs, or without tags in one of them.
    ///
    /// # Errors
    /// When the name is taken.
    pub fn join(&self, host: &Ovs, name: &str, vlan: Option<u16>) -> Result<()> {
        self.cable(host.namespace(), name, vlan, None, None)
    }

    /// A machine that is on no host, on a VLAN of the rack. Its device is [`GUEST_DEVICE`].
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn machine(&self, vlan: u16, mac: &str, address: &str) -> Result<Namespace> {
        let machine = Namespace::new()?;
        self.cable(&machine, GUEST_DEVICE, Some(vlan), Some(mac), Some(address))?;
        machine.plain_device(GUEST_DEVICE)?;
        Ok(machine)
    }

    fn cable(
        &self,
        to: &Namespace,
        there: &str,
        vlan: Option<u16>,
        mac: Option<&str>,
        address: Option<&str>,
    ) -> Result<()> {
        let here = format!("port{}", self.ports.fetch_add(1, Ordering::Relaxed));
        self.ovs.namespace().veth(&here, to, there, mac, address)?;
        let tag = vlan.map_or("tag=[]".to_owned(), |vlan| format!("tag={vlan}"));
        self.ovs.vsctl(["add-port", BRIDGE, &here, "--", "set", "Port", &here, &tag])?;
        Ok(())
    }

    /// The port that an Ethernet address was last heard at, if it was.
    ///
    /// # Errors
    /// When the switch does not answer.
    pub fn place_of(&self, mac: &str) -> Result<Option<u32>> {
        let text = self.ovs.appctl(["fdb/show", BRIDGE])?;
        let Some(line) = text.lines().find(|line| line.contains(mac)) else { return Ok(None) };
        let port = line.split_whitespace().next().context("a port")?;
        Ok(Some(port.parse()?))
    }
}
