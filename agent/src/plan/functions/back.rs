//! Giving a function back: to what was noted down of it, in the order that its driver wants.

use devlink::{FunctionAddress, PciAddress};

use super::super::associations::{Leaving, leaving};
use super::{Seen, set_vf};
use crate::backend::links::{LinkChange, LinkOp};
use crate::backend::nics::NicOp;
use crate::model::{DriverBefore, LinkState, MacAddr, NicState, Undo, VfChange, VfSettings};

/// What has the switch forget a VIF and brings its function back to what was noted down of it; the last of it strikes out the
/// note. Its ports and links are gone; links that others have for ports (`has_port`) are left alone.
///
/// # Errors
/// What has to come first, that this plan does nothing about.
pub(in crate::plan) fn give_back(
    undo: &Undo,
    nics: &NicState,
    links: &LinkState,
    has_port: impl Fn(&str) -> bool,
) -> Result<(Vec<LinkOp>, Vec<NicOp>), String> {
    let (mut link_ops, mut nic_ops, mut lacks) = (Vec::new(), Vec::new(), None);
    match leaving(undo, nics) {
        Leaving::Gone => {}
        Leaving::Ask(op) => return Ok((link_ops, vec![op])),
        Leaving::Wait(what) => return Err(what),
    }
    let address = match &undo.function {
        Some(FunctionAddress::Pci(pci)) => Some(*pci),
        Some(FunctionAddress::Port { .. }) | None => None,
    };
    if let Some(Ok((nic, number, function))) = undo.function.as_ref().map(|function| nics.function(function)) {
        let seen = Seen { nics, nic, function, number };
        if undo.represented
            && let Some(representor) = function.representor.netdev()
            && let Some(link) = links.links.get(&representor.name)
            && !has_port(&representor.name)
        {
            let free = |name: &&String| !links.links.contains_key(*name);
            let rename = undo.representor.as_ref().filter(|name| **name != representor.name).filter(free).cloned();
            if link.up || rename.is_some() {
                let change = Box::new(LinkChange { rename, up: Some(false), ..LinkChange::default() });
                link_ops.push(LinkOp::ChangeLink { index: link.index, name: link.name.clone(), change });
            }
        }
        if let Some(port) = function.port {
            let hw_addr = undo.hw_addr.filter(|before| port.hw_addr.is_some_and(|has| has != *before));
            let active = undo.active.filter(|before| port.active == Some(!before));
            if hw_addr.is_some() || active.is_some() {
                nic_ops.push(NicOp::SetFunction { nic: nic.device.clone(), port: port.index, hw_addr, active });
            }
        }
        if let Some(has) = function.settings
            && let change = back(undo, has)
            && !change.is_empty()
        {
            match set_vf(&seen, change) {
                Ok(op) => nic_ops.push(op),
                Err(what) => lacks = Some(what),
            }
        }
    }
    if !undo.settings.is_empty()
        && let Some(Ok((nic, number, function))) = undo.function.as_ref().map(|function| nics.function(function))
        && function.settings.is_none()
    {
        lacks = Some(format!("what the physical function of NIC {} says of {number}: it says nothing", nic.device));
    }
    if nics.hints.contains_key(&undo.vif) {
        nic_ops.push(NicOp::TakeHint(undo.vif));
    }
    if !nic_ops.is_empty() {
        return Ok((link_ops, nic_ops));
    }
    if let Some(what) = lacks {
        return if link_ops.is_empty() { Err(what) } else { Ok((link_ops, nic_ops)) };
    }
    // A driver that begins takes what its function was given by then, so it begins last.
    nic_ops.extend(address.and_then(|address| begin_again(undo, address, nics, links)));
    if link_ops.is_empty() && nic_ops.is_empty() {
        nic_ops.push(NicOp::Forget(undo.vif));
    }
    Ok((link_ops, nic_ops))
}

/// Gives a function back to its driver: where it had another, or where a macvtap stood on its netdev, which then has the
/// guest's address and MTU until its driver has made another.
fn begin_again(undo: &Undo, address: PciAddress, nics: &NicState, links: &LinkState) -> Option<NicOp> {
    let has = nics.pci.get(&address)?;
    if let Some(before) = undo.driver.as_ref().filter(|before| !before.is(has)) {
        let DriverBefore { driver, driver_override } = before.clone();
        return Some(NicOp::Bind { function: address, driver, driver_override });
    }
    let stood = |name: &String| links.links.get(name).is_some_and(|link| Some(link.index) == undo.netdev);
    has.netdevs.iter().any(stood).then(|| match undo.driver {
        Some(_) => NicOp::ProbeAgain { function: address },
        None => NicOp::Remember(Box::new(Undo { driver: Some(DriverBefore::of(has)), ..undo.clone() })),
    })
}

/// What is another than noted, by its physical function.
fn back(undo: &Undo, has: VfSettings) -> VfChange {
    let change = undo.settings.from(has);
    // One that had none of its own may have chosen another by now: the one that it was given is what goes.
    let is_its_own = |mac: &MacAddr| *mac == MacAddr::default() && has.mac != undo.given;
    VfChange { mac: change.mac.filter(|mac| !is_its_own(mac)), ..change }
}
