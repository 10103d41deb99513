//! devlink devices: their handle, what they say of themselves, and their reload. Which of them there are, a
//! [`Devlink`](crate::Devlink) says.

use std::fmt;
use std::str::FromStr;

use crate::wire::numbers::attr;
use crate::wire::{Attributes, Malformed, Writer};

/// The handle of a devlink device, such as `pci/0000:03:00.0` or `auxiliary/mlx5_core.sf.2`: printed and parsed as devlink(8)
/// has it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Device {
    /// Bus (`DEVLINK_ATTR_BUS_NAME`).
    pub bus: String,
    /// Name of the device on the bus (`DEVLINK_ATTR_DEV_NAME`).
    pub dev: String,
}

/// Text that is not `BUS/DEV`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not the handle of a devlink device (such as pci/0000:03:00.0)")]
pub struct InvalidDevice(pub String);

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.bus, self.dev)
    }
}

impl FromStr for Device {
    type Err = InvalidDevice;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let plain =
            |part: &str| !part.is_empty() && !part.contains(|c: char| c == '/' || c.is_whitespace() || c.is_control());
        match text.split_once('/') {
            Some((bus, dev)) if plain(bus) && plain(dev) => Ok(Device { bus: bus.to_owned(), dev: dev.to_owned() }),
            _ => Err(InvalidDevice(text.chars().take(80).collect())),
        }
    }
}

impl Device {
    pub(crate) fn decode(attributes: Attributes<'_>) -> Result<Self, Malformed> {
        let text = |kind| Ok(attributes.find_kind(kind)?.ok_or(Malformed::Missing { kind })?.text());
        Ok(Device { bus: text(attr::BUS_NAME)?, dev: text(attr::DEV_NAME)? })
    }

    pub(crate) fn encode(&self, writer: &mut Writer) {
        writer.text(attr::BUS_NAME, &self.bus).text(attr::DEV_NAME, &self.dev);
    }
}
