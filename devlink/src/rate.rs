//! Rates of a NIC's switch (`devlink port function rate`): leaves, which are ports, and the nodes of the tree above them.

use std::fmt;

use crate::device::Device;
use crate::port::PortHandle;
use crate::wire::numbers::attr;
use crate::wire::{Attributes, Malformed, Writer};

/// `enum devlink_rate_type`.
const LEAF: u16 = 0;
const NODE: u16 = 1;

/// What a rate is the rate of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RateHandle {
    /// What one port sends to the switch.
    Leaf(PortHandle),
    /// What several send together.
    Node {
        /// The device in whose tree it is.
        device: Device,
        /// Its name, as the one who made it chose.
        name: String,
    },
}

/// A rate object (`DEVLINK_CMD_RATE_GET`, since Linux 5.14). Leaves come and go with their ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Which.
    pub of: RateHandle,
    /// What it gets at least, in octets per second; 0 for no such promise.
    pub tx_share: u64,
    /// What it gets at most, in octets per second; 0 for no limit.
    pub tx_max: u64,
    /// The node above it.
    pub parent: Option<String>,
}

/// What is to be changed of a rate, or how a new node is to be; what is `None` is left as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RateChange {
    /// See [`Rate::tx_share`].
    pub tx_share: Option<u64>,
    /// See [`Rate::tx_max`].
    pub tx_max: Option<u64>,
    /// See [`Rate::parent`].
    pub parent: Option<NewParent>,
}

/// Where in the tree a rate is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NewParent {
    /// At its top.
    None,
    /// Below a node of this name.
    Node(String),
}

impl fmt::Display for RateHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RateHandle::Leaf(port) => port.fmt(f),
            RateHandle::Node { device, name } => write!(f, "{device}/{name}"),
        }
    }
}

/// As a sentence has it: `tx_max 125000 octets/s, parent gold`.
impl fmt::Display for RateChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parent = |parent: &NewParent| match parent {
            NewParent::None => "no parent".to_owned(),
            NewParent::Node(name) => format!("parent {name}"),
        };
        let parts = [
            self.tx_share.map(|rate| format!("tx_share {rate} octets/s")),
            self.tx_max.map(|rate| format!("tx_max {rate} octets/s")),
            self.parent.as_ref().map(parent),
        ];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        f.write_str(if parts.is_empty() { "nothing" } else { "" })?;
        f.write_str(&parts.join(", "))
    }
}

impl RateHandle {
    pub(crate) fn encode(&self, writer: &mut Writer) {
        match self {
            RateHandle::Leaf(port) => port.encode(writer),
            RateHandle::Node { device, name } => {
                device.encode(writer);
                writer.text(attr::RATE_NODE_NAME, name);
            }
        }
    }
}

impl Rate {
    /// `None` when it is of no kind that this library knows.
    pub(crate) fn decode(attributes: Attributes<'_>) -> Result<Option<Self>, Malformed> {
        let device = Device::decode(attributes)?;
        let (mut kind, mut port, mut name) = (None, None, None);
        let (mut tx_share, mut tx_max, mut parent) = (0, 0, None);
        for attribute in attributes {
            let attribute = attribute?;
            match attribute.kind {
                attr::RATE_TYPE => kind = Some(attribute.u16()?),
                attr::PORT_INDEX => port = Some(attribute.u32()?),
                attr::RATE_NODE_NAME => name = Some(attribute.text()),
                attr::RATE_TX_SHARE => tx_share = attribute.u64()?,
                attr::RATE_TX_MAX => tx_max = attribute.u64()?,
                attr::RATE_PARENT_NODE_NAME => parent = Some(attribute.text()),
                _ => {}
            }
        }
        let of = match kind {
            Some(LEAF) => {
                let index = port.ok_or(Malformed::Missing { kind: attr::PORT_INDEX })?;
                RateHandle::Leaf(PortHandle { device, index })
            }
            Some(NODE) => {
                let name = name.ok_or(Malformed::Missing { kind: attr::RATE_NODE_NAME })?;
                RateHandle::Node { device, name }
            }
            _ => return Ok(None),
        };
        Ok(Some(Rate { of, tx_share, tx_max, parent }))
    }

    pub(crate) fn encode(&self, writer: &mut Writer) {
        self.of.encode(writer);
        writer.u16(attr::RATE_TYPE, if matches!(self.of, RateHandle::Leaf(_)) { LEAF } else { NODE });
        writer.u64(attr::RATE_TX_SHARE, self.tx_share).u64(attr::RATE_TX_MAX, self.tx_max);
        if let Some(parent) = &self.parent {
            writer.text(attr::RATE_PARENT_NODE_NAME, parent);
        }
    }
}

impl RateChange {
    pub(crate) fn encode(&self, writer: &mut Writer) {
        if let Some(tx_share) = self.tx_share {
            writer.u64(attr::RATE_TX_SHARE, tx_share);
        }
        if let Some(tx_max) = self.tx_max {
            writer.u64(attr::RATE_TX_MAX, tx_max);
        }
        match &self.parent {
            // A name without a letter takes it out of the tree.
            Some(NewParent::None) => _ = writer.text(attr::RATE_PARENT_NODE_NAME, ""),
            Some(NewParent::Node(name)) => _ = writer.text(attr::RATE_PARENT_NODE_NAME, name),
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device() -> Device {
        Device { bus: "b".to_owned(), dev: "d".to_owned() }
    }

    /// `b/d`.
    const DEVICE: &[u8] = &[6, 0, 1, 0, b'b', 0, 0, 0, 6, 0, 2, 0, b'd', 0, 0, 0];

    fn written(fill: impl FnOnce(&mut Writer)) -> Vec<u8> {
        let mut writer = Writer::default();
        fill(&mut writer);
        writer.octets().to_vec()
    }

    #[test]
    fn leaves_and_nodes_both_ways() {
        #[rustfmt::skip]
        let leaf = [
            DEVICE,
            &[8, 0, 3, 0, 128, 0, 0, 0], // DEVLINK_ATTR_PORT_INDEX
            &[6, 0, 165, 0, 0, 0, 0, 0], // DEVLINK_ATTR_RATE_TYPE: DEVLINK_RATE_TYPE_LEAF; padding
            &[12, 0, 166, 0, 0xd0, 0x12, 0x13, 0, 0, 0, 0, 0], // DEVLINK_ATTR_RATE_TX_SHARE: 1,250,000 octets/s
            &[12, 0, 167, 0, 0, 0, 0, 0, 1, 0, 0, 0], // DEVLINK_ATTR_RATE_TX_MAX: 2^32 octets/s
            &[9, 0, 169, 0], b"gold\0", &[0; 3], // DEVLINK_ATTR_RATE_PARENT_NODE_NAME; padding
        ]
        .concat();
        let of = RateHandle::Leaf(PortHandle { device: device(), index: 128 });
        let rate = Rate { of, tx_share: 1_250_000, tx_max: 1 << 32, parent: Some("gold".to_owned()) };
        assert_eq!(Rate::decode(Attributes::new(&leaf)), Ok(Some(rate.clone())));
        assert_eq!(written(|writer| rate.encode(writer)), leaf);
        assert_eq!(rate.of.to_string(), "b/d/128");

        #[rustfmt::skip]
        let node = [
            DEVICE,
            &[9, 0, 168, 0], b"gold\0", &[0; 3], // DEVLINK_ATTR_RATE_NODE_NAME; padding
            &[6, 0, 165, 0, 1, 0, 0, 0], // DEVLINK_ATTR_RATE_TYPE: DEVLINK_RATE_TYPE_NODE; padding
            &[12, 0, 166, 0, 0, 0, 0, 0, 0, 0, 0, 0], // DEVLINK_ATTR_RATE_TX_SHARE: none
            &[12, 0, 167, 0, 64, 0, 0, 0, 0, 0, 0, 0], // DEVLINK_ATTR_RATE_TX_MAX
        ]
        .concat();
        let of = RateHandle::Node { device: device(), name: "gold".to_owned() };
        let rate = Rate { of, tx_share: 0, tx_max: 64, parent: None };
        assert_eq!(Rate::decode(Attributes::new(&node)), Ok(Some(rate.clone())));
        assert_eq!(written(|writer| rate.encode(writer)), node);

        let mut other = node.clone();
        other[32] = 7;
        assert_eq!(Rate::decode(Attributes::new(&other)), Ok(None), "a kind that is to come");
        other[32] = 0;
        assert_eq!(Rate::decode(Attributes::new(&other)), Err(Malformed::Missing { kind: attr::PORT_INDEX }));
    }

    #[test]
    fn a_change_has_what_is_to_be_changed_and_no_more() {
        let change = RateChange { tx_share: Some(8), tx_max: None, parent: Some(NewParent::Node("gold".to_owned())) };
        #[rustfmt::skip]
        let octets = [
            &[12, 0, 166, 0, 8, 0, 0, 0, 0, 0, 0, 0][..], // DEVLINK_ATTR_RATE_TX_SHARE
            &[9, 0, 169, 0], b"gold\0", &[0; 3], // DEVLINK_ATTR_RATE_PARENT_NODE_NAME; padding
        ]
        .concat();
        assert_eq!(written(|writer| change.encode(writer)), octets);
        assert_eq!(change.to_string(), "tx_share 8 octets/s, parent gold");
        let out = RateChange { parent: Some(NewParent::None), ..RateChange::default() };
        let octets = [5, 0, 169, 0, 0, 0, 0, 0]; // DEVLINK_ATTR_RATE_PARENT_NODE_NAME: "", padding
        assert_eq!(written(|writer| out.encode(writer)), octets);
        assert!(written(|writer| RateChange::default().encode(writer)).is_empty());
    }
}
