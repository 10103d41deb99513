//! Functions that somebody gets whole: the driver that they are bound to, and the hint that says which it is.

use devlink::FunctionAddress;

use super::super::blueprint::WantedFunction;
use super::super::compare::{Findings, Work};
use super::super::sight::Sight;
use super::{Claim, Hitch};
use crate::backend::nics::NicOp;
use crate::model::{DriverBefore, NicState, PciFunction, Undo, VifId};

impl Work<'_> {
    /// A function that is nobody's virtual one gets its driver.
    pub(super) fn plain(
        &self,
        claim: &Claim<'_>,
        function: &PciFunction,
        nics: &NicState,
        sight: &mut Sight<'_>,
        found: &mut Findings,
    ) -> Result<(), Hitch> {
        let Claim { id, wanted, undo, .. } = *claim;
        let same = |other: &VifId, undo: &Undo| *other != id && undo.function.as_ref() == Some(&wanted.address);
        if let Some((other, _)) = nics.undo.iter().find(|(other, undo)| same(other, undo)) {
            return Err(Hitch::Missing(format!("function {}, which still belongs to VIF {other}", wanted.address)));
        }
        if function.driver != wanted.driver {
            self.is_idle(&wanted.address, function, nics, sight)?;
        }
        self.remember(undo, claim.note.clone().bound(wanted, Some(function)), found)?;
        self.driver(claim, Some(function), found)?;
        hint(id, wanted, nics, found);
        Ok(())
    }

    /// Refuses to take a function from the host that lives by it.
    fn is_idle(
        &self,
        address: &FunctionAddress,
        function: &PciFunction,
        nics: &NicState,
        sight: &mut Sight<'_>,
    ) -> Result<(), Hitch> {
        if let Some(netdev) = function.netdevs.iter().find(|name| sight.link(name).is_some_and(|link| link.up)) {
            return Err(Hitch::Conflict(format!(
                "PCI function {address} is not taken from the host: its netdev {netdev} is up"
            )));
        }
        let nic = if let FunctionAddress::Pci(pci) = address { nics.nics.get(&(*pci).into()) } else { None };
        match nic {
            Some(nic) if nic.vfs.is_some_and(|vfs| vfs.made > 0) => Err(Hitch::Conflict(format!(
                "PCI function {address} is not taken from the host: it has virtual functions"
            ))),
            _ => Ok(()),
        }
    }

    /// The driver that the function is bound to.
    pub(super) fn driver(
        &self,
        claim: &Claim<'_>,
        function: Option<&PciFunction>,
        found: &mut Findings,
    ) -> Result<(), Hitch> {
        let Claim { wanted, undo, .. } = *claim;
        let before = undo.and_then(|undo| undo.driver.as_ref());
        found.facts.driver = function.and_then(|function| function.driver.clone());
        let Some(driver) = &wanted.driver else {
            // One that is wanted no more goes back to what it was.
            if let (Some(before), Some(has), FunctionAddress::Pci(address)) = (before, function, &wanted.address)
                && !before.is(has)
            {
                let DriverBefore { driver, driver_override } = before.clone();
                found.nics.push(NicOp::Bind { function: *address, driver, driver_override });
            }
            return Ok(());
        };
        let (Some(function), FunctionAddress::Pci(address)) = (function, &wanted.address) else {
            let reason =
                format!("{} is not on the PCI bus of this host and cannot be bound to {driver}", wanted.address);
            return Err(Hitch::Missing(reason));
        };
        if function.driver.as_deref() == Some(driver) {
            return Ok(());
        }
        if driver == "vfio-pci" && function.iommu_group.is_none() {
            return Err(Hitch::Missing(format!(
                "{address} to be in an IOMMU group, without which it cannot be given to a guest: is the IOMMU on \
                 (intel_iommu=on, amd_iommu=on)?"
            )));
        }
        let (driver, function) = (Some(driver.clone()), *address);
        found.nics.push(NicOp::Bind { function, driver_override: driver.clone(), driver });
        Ok(())
    }
}

impl Undo {
    /// With how the function is bound, where that is to be changed. What was given back before is nobody's business.
    pub(super) fn bound(mut self, wanted: &WantedFunction, function: Option<&PciFunction>) -> Self {
        let is_back = |before: &DriverBefore| function.is_some_and(|has| before.is(has));
        if wanted.driver.is_none() && self.driver.as_ref().is_some_and(is_back) {
            self.driver = None;
        }
        if let (Some(driver), Some(function)) = (&wanted.driver, function)
            && function.driver.as_ref() != Some(driver)
        {
            self.driver.get_or_insert_with(|| DriverBefore::of(function));
        }
        self
    }
}

/// Tells the application which function it has, once it is bound.
pub(super) fn hint(vif: VifId, wanted: &WantedFunction, nics: &NicState, found: &mut Findings) {
    if let FunctionAddress::Pci(function) = wanted.address
        && found.nics.is_empty()
        && nics.hints.get(&vif) != Some(&function)
    {
        found.nics.push(NicOp::Hint { vif, function });
    }
}
