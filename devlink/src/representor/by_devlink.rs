//! Representors by devlink's ports, which say everything: the device, the controller, the numbers, the netdev.

use std::collections::BTreeSet;

use super::{Doubt, How, Representor, SoughtFunction, ambiguous};
use crate::{Device, Flavour, FunctionNumber, FunctionPart, Port};

/// The function that a port is for; none for other ports.
pub(super) fn function_of(port: &Port) -> Option<FunctionNumber> {
    let (controller, external, pf, part) = match port.flavour {
        Flavour::PciPf { controller, external, pf } => (controller, external, pf, FunctionPart::Pf),
        Flavour::PciVf { controller, external, pf, vf } => (controller, external, pf, FunctionPart::Vf(vf)),
        Flavour::PciSf { controller, external, pf, sf } => (controller, external, pf, FunctionPart::Sf(sf)),
        _ => return None,
    };
    Some(FunctionNumber { controller: external.then_some(controller), pf, part })
}

impl SoughtFunction {
    /// By devlink's ports; none if they have nothing to do with functions of this device, as with drivers that have
    /// representors and no devlink ports for them.
    pub(super) fn by_devlink(&self, ports: &[Port]) -> Option<Representor> {
        let of_functions = || ports.iter().filter_map(|port| Some((port, function_of(port)?)));
        let own: Vec<(&Port, FunctionNumber)> =
            of_functions().filter(|(port, _)| (&port.bus, &port.dev) == (&self.device.bus, &self.device.dev)).collect();
        if own.is_empty() {
            return None;
        }
        let seen = own.iter().filter(|(_, of)| of.controller.is_none()).map(|(_, of)| of.pf).collect();
        let have_ports: BTreeSet<Device> = of_functions().map(|(port, _)| port.device()).collect();
        let pf = self.pf_number(&seen, &have_ports);
        let fits: Vec<(&Port, FunctionNumber)> = own
            .into_iter()
            .filter(|(_, of)| {
                (of.controller, of.part) == (self.controller, self.part) && pf.is_none_or(|pf| pf == of.pf)
            })
            .collect();
        let netdevs = || fits.iter().filter_map(|(port, _)| Some(port.netdev.as_ref()?.name.as_str()));
        Some(match fits[..] {
            [] => Representor::NotYet,
            _ if pf.is_none() => ambiguous(netdevs(), Doubt::OtherNumbers),
            [(port, of)] => match &port.netdev {
                None => Representor::NotYet,
                Some(netdev) => self.found(of.pf, &netdev.name, netdev.index, How::Devlink { port: port.index }),
            },
            _ => ambiguous(netdevs(), Doubt::Several),
        })
    }
}
