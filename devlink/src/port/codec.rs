//! Ports as octets: the attributes of `DEVLINK_CMD_PORT_NEW` and its like, both ways.

use super::{
    Capabilities, Flavour, FunctionChange, FunctionOpState, FunctionState, Netdev, NewSubFunction, Port, PortFunction,
    PortHandle, PortType, Split,
};
use crate::device::Device;
use crate::wire::numbers::{attr, flavour, function};
use crate::wire::{Attributes, Malformed, Writer};

impl PortHandle {
    pub(crate) fn encode(&self, writer: &mut Writer) {
        self.device.encode(writer);
        writer.u32(attr::PORT_INDEX, self.index);
    }
}

impl PortType {
    fn from_number(number: u16) -> Self {
        match number {
            0 => PortType::NotSet,
            1 => PortType::Auto,
            2 => PortType::Ethernet,
            3 => PortType::Infiniband,
            other => PortType::Other(other),
        }
    }

    fn number(self) -> u16 {
        match self {
            PortType::NotSet => 0,
            PortType::Auto => 1,
            PortType::Ethernet => 2,
            PortType::Infiniband => 3,
            PortType::Other(other) => other,
        }
    }
}

/// What the attributes say that a flavour is made of, in whatever order they come.
#[derive(Default)]
struct Parts {
    flavour: Option<u16>,
    number: Option<u32>,
    group: Option<u32>,
    subport: Option<u32>,
    controller: Option<u32>,
    external: bool,
    pf: Option<u16>,
    vf: Option<u16>,
    sf: Option<u32>,
}

impl Parts {
    fn flavour(&self) -> Result<Flavour, Malformed> {
        let Parts { number, external, .. } = *self;
        // Kernels before 5.10 know no controllers.
        let controller = self.controller.unwrap_or(0);
        let pf = || self.pf.ok_or(Malformed::Missing { kind: attr::PORT_PCI_PF_NUMBER });
        Ok(match self.flavour {
            None => Flavour::Unset,
            Some(flavour::PHYSICAL) => {
                Flavour::Physical { number, split: self.group.map(|group| Split { group, subport: self.subport }) }
            }
            Some(flavour::CPU) => Flavour::Cpu { number },
            Some(flavour::DSA) => Flavour::Dsa { number },
            Some(flavour::PCI_PF) => Flavour::PciPf { controller, external, pf: pf()? },
            Some(flavour::PCI_VF) => {
                let vf = self.vf.ok_or(Malformed::Missing { kind: attr::PORT_PCI_VF_NUMBER })?;
                Flavour::PciVf { controller, external, pf: pf()?, vf }
            }
            Some(flavour::PCI_SF) => {
                let sf = self.sf.ok_or(Malformed::Missing { kind: attr::PORT_PCI_SF_NUMBER })?;
                Flavour::PciSf { controller, external, pf: pf()?, sf }
            }
            Some(flavour::VIRTUAL) => Flavour::Virtual,
            Some(flavour::UNUSED) => Flavour::Unused,
            Some(other) => Flavour::Other(other),
        })
    }
}

impl Flavour {
    fn encode(&self, writer: &mut Writer) {
        let number = match *self {
            Flavour::Physical { .. } => flavour::PHYSICAL,
            Flavour::Cpu { .. } => flavour::CPU,
            Flavour::Dsa { .. } => flavour::DSA,
            Flavour::PciPf { .. } => flavour::PCI_PF,
            Flavour::PciVf { .. } => flavour::PCI_VF,
            Flavour::PciSf { .. } => flavour::PCI_SF,
            Flavour::Virtual => flavour::VIRTUAL,
            Flavour::Unused => flavour::UNUSED,
            Flavour::Unset => return,
            Flavour::Other(other) => other,
        };
        writer.u16(attr::PORT_FLAVOUR, number);
        match *self {
            Flavour::Physical { number, .. } | Flavour::Cpu { number } | Flavour::Dsa { number } => {
                if let Some(number) = number {
                    writer.u32(attr::PORT_NUMBER, number);
                }
            }
            Flavour::PciPf { controller, external, pf }
            | Flavour::PciVf { controller, external, pf, .. }
            | Flavour::PciSf { controller, external, pf, .. } => {
                writer.u32(attr::PORT_CONTROLLER_NUMBER, controller).u16(attr::PORT_PCI_PF_NUMBER, pf);
                writer.u8(attr::PORT_EXTERNAL, u8::from(external));
            }
            Flavour::Virtual | Flavour::Unused | Flavour::Unset | Flavour::Other(_) => {}
        }
        match *self {
            Flavour::Physical { split: Some(split), .. } => {
                writer.u32(attr::PORT_SPLIT_GROUP, split.group);
                if let Some(subport) = split.subport {
                    writer.u32(attr::PORT_SPLIT_SUBPORT_NUMBER, subport);
                }
            }
            Flavour::PciVf { vf, .. } => {
                writer.u16(attr::PORT_PCI_VF_NUMBER, vf);
            }
            Flavour::PciSf { sf, .. } => {
                writer.u32(attr::PORT_PCI_SF_NUMBER, sf);
            }
            _ => {}
        }
    }
}

impl Port {
    pub(crate) fn decode(attributes: Attributes<'_>) -> Result<Self, Malformed> {
        let Device { bus, dev } = Device::decode(attributes)?;
        let (mut index, mut kind, mut parts) = (None, PortType::NotSet, Parts::default());
        let (mut link_index, mut link_name, mut ibdev) = (None, None, None);
        let (mut lanes, mut splittable, mut function) = (None, None, None);
        for attribute in attributes {
            let attribute = attribute?;
            match attribute.kind {
                attr::PORT_INDEX => index = Some(attribute.u32()?),
                attr::PORT_TYPE => kind = PortType::from_number(attribute.u16()?),
                attr::PORT_NETDEV_IFINDEX => link_index = Some(attribute.u32()?),
                attr::PORT_NETDEV_NAME => link_name = Some(attribute.text()),
                attr::PORT_IBDEV_NAME => ibdev = Some(attribute.text()),
                attr::PORT_LANES => lanes = Some(attribute.u32()?),
                attr::PORT_SPLITTABLE => splittable = Some(attribute.bool()?),
                attr::PORT_FLAVOUR => parts.flavour = Some(attribute.u16()?),
                attr::PORT_NUMBER => parts.number = Some(attribute.u32()?),
                attr::PORT_SPLIT_GROUP => parts.group = Some(attribute.u32()?),
                attr::PORT_SPLIT_SUBPORT_NUMBER => parts.subport = Some(attribute.u32()?),
                attr::PORT_CONTROLLER_NUMBER => parts.controller = Some(attribute.u32()?),
                attr::PORT_EXTERNAL => parts.external = attribute.bool()?,
                attr::PORT_PCI_PF_NUMBER => parts.pf = Some(attribute.u16()?),
                attr::PORT_PCI_VF_NUMBER => parts.vf = Some(attribute.u16()?),
                attr::PORT_PCI_SF_NUMBER => parts.sf = Some(attribute.u32()?),
                attr::PORT_FUNCTION => function = Some(PortFunction::decode(attribute.nested())?),
                _ => {}
            }
        }
        Ok(Port {
            bus,
            dev,
            index: index.ok_or(Malformed::Missing { kind: attr::PORT_INDEX })?,
            kind,
            flavour: parts.flavour()?,
            netdev: link_index.zip(link_name).map(|(index, name)| Netdev { index, name }),
            ibdev,
            lanes,
            splittable,
            // A nest with nothing in it says nothing: drivers leave one where they refuse to say more.
            function: function.filter(|function| *function != PortFunction::default()),
        })
    }

    pub(crate) fn encode(&self, writer: &mut Writer) {
        self.handle().encode(writer);
        writer.u16(attr::PORT_TYPE, self.kind.number());
        if let Some(netdev) = &self.netdev {
            writer.u32(attr::PORT_NETDEV_IFINDEX, netdev.index).text(attr::PORT_NETDEV_NAME, &netdev.name);
        }
        if let Some(ibdev) = &self.ibdev {
            writer.text(attr::PORT_IBDEV_NAME, ibdev);
        }
        if let Some(lanes) = self.lanes {
            writer.u32(attr::PORT_LANES, lanes);
        }
        if let Some(splittable) = self.splittable {
            writer.u8(attr::PORT_SPLITTABLE, u8::from(splittable));
        }
        self.flavour.encode(writer);
        if let Some(function) = &self.function {
            writer.nested(attr::PORT_FUNCTION, |writer| function.encode(writer));
        }
    }
}

impl FunctionState {
    fn from_number(number: u8) -> Self {
        match number {
            0 => FunctionState::Inactive,
            1 => FunctionState::Active,
            other => FunctionState::Other(other),
        }
    }

    fn number(self) -> u8 {
        match self {
            FunctionState::Inactive => 0,
            FunctionState::Active => 1,
            FunctionState::Other(other) => other,
        }
    }
}

impl FunctionOpState {
    fn from_number(number: u8) -> Self {
        match number {
            0 => FunctionOpState::Detached,
            1 => FunctionOpState::Attached,
            other => FunctionOpState::Other(other),
        }
    }

    fn number(self) -> u8 {
        match self {
            FunctionOpState::Detached => 0,
            FunctionOpState::Attached => 1,
            FunctionOpState::Other(other) => other,
        }
    }
}

impl PortFunction {
    fn decode(attributes: Attributes<'_>) -> Result<Self, Malformed> {
        let mut behind = PortFunction::default();
        for attribute in attributes {
            let attribute = attribute?;
            match attribute.kind {
                function::HW_ADDR => behind.hw_addr = attribute.bytes().try_into().ok(),
                function::STATE => behind.state = Some(FunctionState::from_number(attribute.u8()?)),
                function::OPSTATE => behind.opstate = Some(FunctionOpState::from_number(attribute.u8()?)),
                function::CAPS => {
                    let (value, selector) = attribute.bitfield()?;
                    behind.caps = Capabilities { value, selector };
                }
                _ => {}
            }
        }
        Ok(behind)
    }

    fn encode(&self, writer: &mut Writer) {
        let PortFunction { hw_addr, state, opstate, caps } = *self;
        FunctionChange { hw_addr, state, caps }.fill(writer);
        if let Some(opstate) = opstate {
            writer.u8(function::OPSTATE, opstate.number());
        }
    }
}

impl FunctionChange {
    pub(crate) fn encode(&self, writer: &mut Writer) {
        writer.nested(attr::PORT_FUNCTION, |writer| self.fill(writer));
    }

    fn fill(&self, writer: &mut Writer) {
        if let Some(address) = self.hw_addr {
            writer.bytes(function::HW_ADDR, &address);
        }
        if let Some(state) = self.state {
            writer.u8(function::STATE, state.number());
        }
        if self.caps != Capabilities::default() {
            writer.bitfield(function::CAPS, self.caps.value, self.caps.selector);
        }
    }
}

impl NewSubFunction {
    pub(crate) fn encode(&self, writer: &mut Writer) {
        self.device.encode(writer);
        writer.u16(attr::PORT_FLAVOUR, flavour::PCI_SF).u16(attr::PORT_PCI_PF_NUMBER, self.pf);
        if let Some(sf) = self.sf {
            writer.u32(attr::PORT_PCI_SF_NUMBER, sf);
        }
        if let Some(controller) = self.controller {
            writer.u32(attr::PORT_CONTROLLER_NUMBER, controller);
        }
    }
}
