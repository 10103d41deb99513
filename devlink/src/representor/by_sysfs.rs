//! Representors by what sysfs says of netdevs: the switch they are on, the name of their port, the device they stand on.
//!
//! For drivers without devlink ports for functions, and kernels before Linux 5.3. Such a netdev may stand on the device
//! whose switch it is on, or on none (`Documentation/networking/representors.rst` wants none, udev's names want one).

use std::collections::BTreeSet;

use super::{Doubt, How, PfNumber, PortName, Representor, SoughtFunction, ambiguous, pci};
use crate::{Device, FunctionPart, NetdevFacts};

/// The device that a netdev stands on: the one whose switch it is, none, or another.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Parent {
    This,
    None,
    Other,
}

/// A netdev that is some function's, by the name of its port.
struct Candidate<'a> {
    netdev: &'a NetdevFacts,
    parent: Parent,
    controller: Option<u32>,
    pf: Option<u16>,
    part: FunctionPart,
}

/// What is known of the switch and of the numbers on it.
struct OnSwitch {
    /// The number of the device's physical function; none if that is not certain.
    number: Option<u16>,
    /// The number is a guess that something speaks against.
    contested: bool,
    /// No other device is on the switch.
    alone: bool,
}

/// How much speaks for a candidate.
enum Weight {
    Nothing,
    Doubtful,
    Certain,
}

impl Candidate<'_> {
    /// Whether it is a port of the device: what stands on nothing is, if nobody else is on the switch.
    fn is_its(&self, alone: bool) -> bool {
        match self.parent {
            Parent::This => true,
            Parent::None => alone,
            Parent::Other => false,
        }
    }
}

/// The function that a port's name says: controller, physical function, part.
pub(super) fn function_of(netdev: &NetdevFacts) -> Option<(Option<u32>, Option<u16>, FunctionPart)> {
    match netdev.phys_port_name.as_deref()?.parse().ok()? {
        PortName::Function { controller, pf, part, .. } => Some((controller, pf, part)),
        PortName::Number(number) => Some((None, None, FunctionPart::Vf(u16::try_from(number).ok()?))),
        PortName::Physical { .. } => None,
    }
}

impl SoughtFunction {
    /// By what sysfs says of netdevs.
    pub(super) fn by_sysfs(&self, netdevs: &[NetdevFacts]) -> Representor {
        let switches: BTreeSet<&str> = netdevs
            .iter()
            .filter(|netdev| netdev.device.as_ref() == Some(&self.device))
            .filter_map(|netdev| netdev.phys_switch_id.as_deref())
            .collect();
        if switches.is_empty() {
            return Representor::NotSwitchdev(self.device.clone());
        }
        let on_switch: Vec<&NetdevFacts> = netdevs
            .iter()
            .filter(|netdev| netdev.phys_switch_id.as_deref().is_some_and(|id| switches.contains(id)))
            .collect();
        let sharers = self.sharers(netdevs, &on_switch);
        let all: Vec<Candidate<'_>> = on_switch
            .iter()
            .filter_map(|netdev| {
                let (controller, pf, part) = function_of(netdev)?;
                let parent = match &netdev.device {
                    None => Parent::None,
                    Some(device) if *device == self.device => Parent::This,
                    Some(_) => Parent::Other,
                };
                Some(Candidate { netdev, parent, controller, pf, part })
            })
            .collect();
        let switch = self.on_switch(netdevs, &switches, &sharers, &all);
        let (mut certain, mut doubtful) = (Vec::new(), Vec::new());
        for candidate in &all {
            match self.weigh(candidate, &switch) {
                Weight::Certain => certain.push(candidate),
                Weight::Doubtful => doubtful.push(candidate),
                Weight::Nothing => {}
            }
        }
        if certain.iter().any(|candidate| candidate.parent == Parent::This) {
            // What stands elsewhere is another's with the same number.
            certain.retain(|candidate| candidate.parent == Parent::This);
            doubtful.clear();
        }
        let names = certain.iter().chain(&doubtful).map(|candidate| candidate.netdev.name.as_str());
        match (&certain[..], &doubtful[..]) {
            ([], []) => Representor::NotYet,
            ([one], []) => {
                let (PfNumber::Known(said) | PfNumber::Digit(said)) = self.pf;
                let pf = one.pf.or(switch.number).unwrap_or(said);
                let port_name = one.netdev.phys_port_name.clone().unwrap_or_default();
                self.found(pf, &one.netdev.name, one.netdev.ifindex, How::Sysfs { port_name })
            }
            ([_, ..], _) => ambiguous(names, Doubt::Several),
            ([], _) if switch.alone => ambiguous(names, Doubt::OtherNumbers),
            ([], _) => ambiguous(names, Doubt::SharedSwitch),
        }
    }

    fn on_switch(
        &self,
        netdevs: &[NetdevFacts],
        switches: &BTreeSet<&str>,
        sharers: &BTreeSet<Device>,
        all: &[Candidate<'_>],
    ) -> OnSwitch {
        let alone = sharers.is_empty();
        let its = all.iter().filter(|candidate| candidate.controller.is_none() && candidate.is_its(alone));
        let seen = its.filter_map(|candidate| candidate.pf).collect();
        let number = self.pf_number(&seen, &with_ports(netdevs, switches));
        // A digit alone is no proof where another device on the switch has the same, or the uplink has another number.
        let contested = match self.pf {
            PfNumber::Known(_) => false,
            PfNumber::Digit(digit) => {
                sharers.iter().filter_map(pci).any(|sharer| u16::from(sharer.function) == digit)
                    || self.uplink_number(netdevs).is_some_and(|port| number.map(u32::from) != Some(port))
            }
        };
        OnSwitch { number, contested, alone }
    }

    fn weigh(&self, candidate: &Candidate<'_>, switch: &OnSwitch) -> Weight {
        if (candidate.controller, candidate.part) != (self.controller, self.part) {
            return Weight::Nothing;
        }
        match (candidate.pf, switch.number) {
            (Some(pf), Some(number)) if pf != number => Weight::Nothing,
            (Some(_), Some(_)) => match candidate.parent {
                Parent::This => Weight::Certain,
                Parent::None if !switch.contested => Weight::Certain,
                Parent::None | Parent::Other => Weight::Doubtful,
            },
            (Some(_), None) if candidate.is_its(switch.alone) => Weight::Doubtful,
            (Some(_), None) => Weight::Nothing,
            // A name without a physical function is of the device's own, which is not the one that is asked for if that
            // has another number.
            (None, _) if matches!(self.pf, PfNumber::Known(pf) if pf != self.digit()) => Weight::Doubtful,
            (None, _) if candidate.is_its(switch.alone) => Weight::Certain,
            (None, _) if candidate.parent == Parent::None => Weight::Doubtful,
            (None, _) => Weight::Nothing,
        }
    }

    /// The number that the device's physical function has if nothing says another.
    fn digit(&self) -> u16 {
        pci(&self.device).map_or(0, |address| address.function.into())
    }

    /// The number of the device's physical port, if it has one port and that says it. Drivers number a physical function
    /// and its port alike, if each has one.
    fn uplink_number(&self, netdevs: &[NetdevFacts]) -> Option<u32> {
        let mut numbers =
            netdevs.iter().filter(|netdev| netdev.device.as_ref() == Some(&self.device)).filter_map(|netdev| {
                match netdev.phys_port_name.as_deref()?.parse().ok()? {
                    PortName::Physical { port, .. } => Some(port),
                    _ => None,
                }
            });
        numbers.next().filter(|_| numbers.next().is_none())
    }

    /// The other devices on the device's switch: those whose netdevs say so, and neighbours with virtual functions of
    /// which no netdev is here to say anything.
    fn sharers(&self, netdevs: &[NetdevFacts], on_switch: &[&NetdevFacts]) -> BTreeSet<Device> {
        let seen =
            on_switch.iter().filter_map(|netdev| netdev.device.as_ref()).filter(|device| **device != self.device);
        let silent =
            self.neighbours.iter().filter(|neighbour| neighbour.num_vfs > 0).map(|it| Device::from(it.address));
        let silent = silent.filter(|device| !netdevs.iter().any(|netdev| netdev.device.as_ref() == Some(device)));
        seen.cloned().chain(silent).collect()
    }
}

/// The devices that have ports for functions themselves, or a switch of their own.
fn with_ports(netdevs: &[NetdevFacts], switches: &BTreeSet<&str>) -> BTreeSet<Device> {
    let has = |netdev: &&NetdevFacts| {
        netdev.phys_switch_id.as_deref().is_some_and(|id| !switches.contains(id) || function_of(netdev).is_some())
    };
    netdevs.iter().filter(has).filter_map(|netdev| netdev.device.clone()).collect()
}
