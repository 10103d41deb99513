//! PCI addresses as sysfs and `lspci -D` write them.

use std::fmt;
use std::str::FromStr;

/// A PCI function: `DDDD:BB:DD.F`, all hexadecimal.
///
/// The domain has four digits on most machines and more (up to eight) behind Intel VMD and on some
/// hypervisors; sysfs pads it to four. The device has 5 bits and the function 3 (`linux/pci.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PciAddress {
    /// Domain (segment).
    pub domain: u32,
    /// Bus.
    pub bus: u8,
    /// Device, 0 to 31.
    pub device: u8,
    /// Function, 0 to 7.
    pub function: u8,
}

/// Text that is not `DDDD:BB:DD.F`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a PCI address (such as 0000:03:00.2)")]
pub struct InvalidPciAddress(pub String);

impl FromStr for PciAddress {
    type Err = InvalidPciAddress;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let (domain, rest) = text.split_once(':')?;
            let (bus, rest) = rest.split_once(':')?;
            let (device, function) = rest.split_once('.')?;
            let hex = |digits: &str, least: usize, most: usize| {
                let fits = (least..=most).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_hexdigit());
                fits.then(|| u32::from_str_radix(digits, 16).ok()).flatten()
            };
            let device = u8::try_from(hex(device, 2, 2)?).ok()?;
            let function = u8::try_from(hex(function, 1, 1)?).ok()?;
            let bus = u8::try_from(hex(bus, 2, 2)?).ok()?;
            (device < 32 && function < 8).then_some(PciAddress { domain: hex(domain, 4, 8)?, bus, device, function })
        };
        parse().ok_or_else(|| InvalidPciAddress(text.to_owned()))
    }
}

impl fmt::Display for PciAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04x}:{:02x}:{:02x}.{:x}", self.domain, self.bus, self.device, self.function)
    }
}

impl serde::Serialize for PciAddress {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for PciAddress {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn wrong_text_is_refused() {
        for wrong in
            ["", "0000:03:00", "03:00.2", "0000:03:20.0", "0000:03:00.8", "0000:3:00.1", "000g:03:00.1", "0000:03:00x2"]
        {
            assert!(wrong.parse::<PciAddress>().is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn text_round_trips(domain: u32, bus: u8, device in 0u8..32, function in 0u8..8) {
            let address = PciAddress { domain, bus, device, function };
            prop_assert_eq!(address.to_string().parse(), Ok(address));
        }
    }
}
