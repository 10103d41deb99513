//! Functions that are joined to a network by what their physical function says of them: address, VLAN, rate and the like; and
//! macvtaps on the netdev of such a function.

use devlink::FunctionAddress;
use devlink::vf::Vlan;

use super::super::blueprint::{Blueprint, FunctionSettings, LinkMaker, Make};
use super::super::compare::{Findings, Work};
use super::super::sight::Sight;
use super::{Claim, Hitch, Seen, set_vf};
use crate::backend::nics::NicOp;
use crate::model::{DriverBefore, MacAddr, PciFunction, Undo, VfChange, VfSettings};

impl Work<'_> {
    /// The guest has the function itself.
    pub(super) fn by_settings(
        &self,
        claim: &Claim<'_>,
        settings: &FunctionSettings,
        seen: &Seen<'_>,
        found: &mut Findings,
    ) -> Result<(), Hitch> {
        let has = told(seen)?;
        if seen.nic.is_switchdev() {
            return Err(Hitch::Missing(format!(
                "NIC {} to leave switchdev mode, in which a function without a port on a bridge gets no traffic",
                seen.nic.device
            )));
        }
        let note = claim.note.clone().kept(claim.wanted.mac, has);
        self.remember(claim.undo, note.clone(), found)?;
        set(claim, settings, seen, &note, found)?;
        if found.nics.is_empty() {
            // A guest that gets it by then reads what was set.
            self.driver(claim, seen.pci(), found)?;
        }
        Ok(())
    }

    /// A macvtap stands on its netdev.
    pub(super) fn under_a_macvtap(
        &self,
        claim: &Claim<'_>,
        settings: &FunctionSettings,
        seen: &Seen<'_>,
        built: &mut Blueprint,
        sight: &mut Sight<'_>,
        found: &mut Findings,
    ) -> Result<(), Hitch> {
        let wanted = claim.wanted;
        let has = told(seen)?;
        let mut note = claim.note.clone().kept(wanted.mac, has);
        let on = |pci: &PciFunction| pci.netdevs.first().and_then(|name| sight.link(name)).map(|link| link.mac);
        let netdev_mac = seen.pci().and_then(on);
        let stands = self.inventory.by_vif.get(&claim.id).is_some_and(|owned| !owned.links.is_empty());
        // The driver has the address that its function was given when it began, and may be denied any other.
        let stale = !stands && wanted.mac.is_some_and(|mac| netdev_mac.is_some_and(|has| has != Some(mac)));
        if let (true, Some(pci)) = (stale, seen.pci()) {
            // It is away for a moment, and may stay so where that is our last.
            note.driver.get_or_insert_with(|| DriverBefore::of(pci));
        }
        self.remember(claim.undo, note.clone(), found)?;
        let change = set(claim, settings, seen, &note, found)?;
        let pci = seen.pci().ok_or_else(|| Hitch::Missing(format!("{} is not on this host", seen.number)))?;
        let so_far = found.nics.len();
        self.driver(claim, Some(pci), found)?;
        if found.nics.len() > so_far {
            return Err(Hitch::Working);
        }
        let netdev = netdev(pci, &wanted.address)?;
        let Some(link) = sight.link(netdev) else {
            return Err(Hitch::Missing(format!("netdev {netdev}, which has not been seen yet")));
        };
        if stale {
            if let (None, Some(function)) = (change.mac, seen.function.pci) {
                found.nics.push(NicOp::ProbeAgain { function });
            }
            return Err(Hitch::Working);
        }
        self.remember(claim.undo, Undo { netdev: Some(link.index), ..note }, found)?;
        stand_on(pci, &wanted.address, built, true)
    }
}

impl Undo {
    /// With what its physical function says of it, all of which is kept from now on; its address only where it is given one.
    fn kept(mut self, mac: Option<MacAddr>, has: VfSettings) -> Self {
        let before = VfChange::to(has);
        self.settings = self.settings.or(VfChange { mac: mac.and(before.mac), ..before });
        self
    }
}

/// What the physical function tells of it.
fn told(seen: &Seen<'_>) -> Result<VfSettings, Hitch> {
    seen.function.settings.ok_or_else(|| {
        Hitch::Missing(format!(
            "driver {} to tell of function {} of NIC {}: it tells nothing of it",
            seen.driver(),
            seen.number,
            seen.nic.device
        ))
    })
}

/// Has the physical function told what it is to say; answers what of that is another than now.
fn set(
    claim: &Claim<'_>,
    settings: &FunctionSettings,
    seen: &Seen<'_>,
    note: &Undo,
    found: &mut Findings,
) -> Result<VfChange, Hitch> {
    let has = told(seen)?;
    // One that it was given goes where it is to have its own.
    let own = || note.settings.mac.unwrap_or_default();
    let mac = claim.wanted.mac.or_else(|| note.given.filter(|given| has.mac == Some(*given)).map(|_| own()));
    let (change, lacks) = difference(mac, settings, has);
    if let Some(lacks) = lacks {
        let reason = format!("driver {} cannot set {lacks} of function {}", seen.driver(), seen.number);
        found.failed.get_or_insert(reason);
    }
    if !change.is_empty() {
        found.nics.push(set_vf(seen, change).map_err(Hitch::Missing)?);
    }
    Ok(change)
}

fn netdev<'a>(function: &'a PciFunction, address: &FunctionAddress) -> Result<&'a str, Hitch> {
    let netdev = function.netdevs.first().map(String::as_str);
    netdev.ok_or_else(|| Hitch::Missing(format!("a netdev of {address} in this network namespace: it has none")))
}

/// The macvtap of a blueprint stands on the netdev of a function.
pub(super) fn stand_on(
    function: &PciFunction,
    address: &FunctionAddress,
    built: &mut Blueprint,
    ours: bool,
) -> Result<(), Hitch> {
    let netdev = netdev(function, address)?;
    for link in &mut built.links {
        match &mut link.maker {
            LinkMaker::Nic => netdev.clone_into(&mut link.name),
            LinkMaker::Vifd(Make::Macvtap { on, .. }) => netdev.clone_into(on),
            _ => {}
        }
    }
    if !ours {
        // A physical function is the host's, and set up by whoever has it.
        built.links.retain(|link| link.maker != LinkMaker::Nic);
    }
    Ok(())
}

/// What to change of a virtual function by its physical one; and what is wanted that its driver does not know.
fn difference(mac: Option<MacAddr>, wanted: &FunctionSettings, has: VfSettings) -> (VfChange, Option<&'static str>) {
    let FunctionSettings { vlan, max_rate, spoof_check, trust } = *wanted;
    // Of the priority nothing is wanted.
    let qos = if has.vlan.id == vlan { has.vlan.qos } else { 0 };
    let whole = VfChange {
        mac,
        vlan: Some(Vlan { id: vlan, qos, ..Vlan::default() }),
        max_rate: Some(max_rate),
        spoof_check: Some(spoof_check),
        trust: Some(trust),
    };
    let change = whole.from(has);
    let lacks = match (has.spoof_check, has.trust) {
        (_, None) if trust => Some("the trust"),
        (None, _) if !spoof_check => Some("the spoof check"),
        _ => None,
    };
    (change, lacks)
}
