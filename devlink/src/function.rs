//! How a function of a NIC is named: [`FunctionAddress`], by its PCI address or in devlink's terms.
//!
//! Names only. Who stands behind a name is read in `sysfs`, and whose netdev represents it in `representor`.

use std::fmt;
use std::str::FromStr;

use crate::{Device, PciAddress};

/// A function of a NIC.
///
/// As text either a PCI address (`0000:03:00.2`), or `BUS/DEV:` with the name that devlink gives the function's port:
/// `pci/0000:03:00.0:pf0vf1`, `netdevsim/netdevsim10:pf0sf88`, `pci/0000:03:00.0:c1pf0` (`net/devlink/port.c`,
/// `__devlink_port_phys_port_name_get`). BUS and DEV are those of the devlink instance that has the embedded switch.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FunctionAddress {
    /// A PCI function of this host.
    Pci(PciAddress),
    /// A function that has a port on a devlink instance's switch; it need not be one of this host.
    Port {
        /// The devlink instance.
        device: Device,
        /// Which function.
        function: FunctionNumber,
    },
}

/// Which function of a NIC, in devlink's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FunctionNumber {
    /// The number of the external controller that has the function, as on a DPU or on a NIC of several hosts; none when
    /// the function belongs to the controller that has the switch.
    pub controller: Option<u32>,
    /// The physical function. It is often the last digit of its PCI address, and not always: a function that was passed
    /// to a guest has another digit there.
    pub pf: u16,
    /// What is on the physical function.
    pub part: FunctionPart,
}

/// Which part of a physical function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FunctionPart {
    /// The physical function itself.
    Pf,
    /// Its virtual function of this number.
    Vf(u16),
    /// Its sub-function of this number.
    Sf(u32),
}

/// Text that is not a [`FunctionAddress`]: which part is wrong, and how.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not the address of a function: {wrong}")]
pub struct InvalidFunctionAddress {
    /// The text, or its first 80 characters.
    pub text: String,
    /// What is wrong in it.
    pub wrong: WrongPart,
}

/// The part of a function's address that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WrongPart {
    /// No `/`, so it should have been a PCI address.
    #[error("neither a PCI address (such as 0000:03:00.2) nor BUS/DEV:FUNCTION (such as pci/0000:03:00.0:pf0vf1)")]
    Neither,
    /// The bus.
    #[error("{0:?} is not the name of a bus")]
    Bus(String),
    /// The device on a bus.
    #[error("{1:?} is not the name of a device on bus {0:?}")]
    Dev(String, String),
    /// No function behind the device.
    #[error("no :pfN, :pfNvfM or :pfNsfM behind the device")]
    NoFunction,
    /// The function.
    #[error("{0:?} is not a function: {1}")]
    Function(String, &'static str),
}

/// As much of a text as an error shows of it.
pub(crate) fn shown(text: &str) -> String {
    text.chars().take(80).collect()
}

/// Takes a decimal number from the front of `text`: its value and the rest. A number has one spelling: no sign, no
/// needless zeros.
pub(crate) fn number<T: FromStr>(text: &str) -> Option<(T, &str)> {
    let end = text.bytes().position(|byte| !byte.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    let canonical = digits == "0" || !digits.starts_with('0');
    canonical.then(|| digits.parse().ok()).flatten().map(|value| (value, rest))
}

/// Takes `prefix` and a number from the front of `text`. Without the prefix there is none, and the text is as it was.
pub(crate) fn numbered<'a, T: FromStr>(text: &'a str, prefix: &str) -> Option<(Option<T>, &'a str)> {
    match text.strip_prefix(prefix) {
        Some(digits) => number(digits).map(|(value, rest)| (Some(value), rest)),
        None => Some((None, text)),
    }
}

impl FromStr for FunctionNumber {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (controller, rest) =
            numbered(text, "c").ok_or("c is followed by the number of a controller, below 4294967296")?;
        let (pf, rest) = numbered(rest, "pf").ok_or("pf is followed by the number of a physical function, to 65535")?;
        let pf = pf.ok_or("it begins with pf and a number, before which there may be c and a number")?;
        let part = match rest.get(..2) {
            _ if rest.is_empty() => Some((FunctionPart::Pf, "")),
            Some("vf") => number(&rest[2..]).map(|(vf, rest)| (FunctionPart::Vf(vf), rest)),
            Some("sf") => number(&rest[2..]).map(|(sf, rest)| (FunctionPart::Sf(sf), rest)),
            _ => return Err("behind pf and its number there is nothing, vf and a number, or sf and a number"),
        };
        let (part, rest) = part.ok_or("vf is followed by a number to 65535, sf by one below 4294967296")?;
        if !rest.is_empty() {
            return Err("something is behind it");
        }
        Ok(FunctionNumber { controller, pf, part })
    }
}

impl fmt::Display for FunctionNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(controller) = self.controller {
            write!(f, "c{controller}")?;
        }
        write!(f, "pf{}", self.pf)?;
        match self.part {
            FunctionPart::Pf => Ok(()),
            FunctionPart::Vf(vf) => write!(f, "vf{vf}"),
            FunctionPart::Sf(sf) => write!(f, "sf{sf}"),
        }
    }
}

/// Whether this can be the name of a bus, a device or a driver in sysfs: a file name without blanks and colons at its
/// ends.
pub(crate) fn is_sysfs_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_graphic() && byte != b'/';
    !name.is_empty() && name.len() <= 255 && name.bytes().all(plain) && name != "." && name != ".."
}

impl FromStr for FunctionAddress {
    type Err = InvalidFunctionAddress;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = |wrong| InvalidFunctionAddress { text: shown(text), wrong };
        let Some((bus, rest)) = text.split_once('/') else {
            return text.parse().map(FunctionAddress::Pci).map_err(|_| wrong(WrongPart::Neither));
        };
        if !is_sysfs_name(bus) || bus.contains(':') {
            return Err(wrong(WrongPart::Bus(shown(bus))));
        }
        // The name of a device may have colons of its own. What is behind the last of them begins like a function, or
        // there is no function: 0000:03:00.0 ends in 00.0.
        let Some((dev, function)) = rest.rsplit_once(':').filter(|(_, last)| last.starts_with(['c', 'p'])) else {
            return Err(wrong(WrongPart::NoFunction));
        };
        let dev = match bus {
            // One device has one name.
            "pci" => dev.parse::<PciAddress>().ok().map(|address| address.to_string()),
            _ => is_sysfs_name(dev).then(|| dev.to_owned()),
        }
        .ok_or_else(|| wrong(WrongPart::Dev(shown(bus), shown(dev))))?;
        let function = function.parse().map_err(|why| wrong(WrongPart::Function(shown(function), why)))?;
        Ok(FunctionAddress::Port { device: Device { bus: bus.to_owned(), dev }, function })
    }
}

impl fmt::Display for FunctionAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FunctionAddress::Pci(address) => address.fmt(f),
            FunctionAddress::Port { device, function } => write!(f, "{device}:{function}"),
        }
    }
}

impl From<PciAddress> for Device {
    fn from(address: PciAddress) -> Self {
        Device { bus: "pci".to_owned(), dev: address.to_string() }
    }
}

impl From<PciAddress> for FunctionAddress {
    fn from(address: PciAddress) -> Self {
        FunctionAddress::Pci(address)
    }
}

impl serde::Serialize for FunctionAddress {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for FunctionAddress {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn port(bus: &str, dev: &str, controller: Option<u32>, pf: u16, part: FunctionPart) -> FunctionAddress {
        FunctionAddress::Port {
            device: Device { bus: bus.to_owned(), dev: dev.to_owned() },
            function: FunctionNumber { controller, pf, part },
        }
    }

    #[test]
    fn a_function_has_one_text() {
        let pci: PciAddress = "10000:03:00.2".parse().unwrap();
        for (text, address) in [
            ("10000:03:00.2", FunctionAddress::Pci(pci)),
            ("netdevsim/netdevsim10:pf0vf1", port("netdevsim", "netdevsim10", None, 0, FunctionPart::Vf(1))),
            ("pci/0000:03:00.0:pf0sf88", port("pci", "0000:03:00.0", None, 0, FunctionPart::Sf(88))),
            ("pci/10000:03:00.1:c1pf1vf127", port("pci", "10000:03:00.1", Some(1), 1, FunctionPart::Vf(127))),
            ("pci/0000:03:00.0:pf1", port("pci", "0000:03:00.0", None, 1, FunctionPart::Pf)),
            ("auxiliary/mlx5_core.sf.4:pf0", port("auxiliary", "mlx5_core.sf.4", None, 0, FunctionPart::Pf)),
        ] {
            assert_eq!(text.parse(), Ok(address.clone()), "{text}");
            assert_eq!(address.to_string(), text);
            let json = serde_json::to_string(&address).unwrap();
            assert_eq!(json, format!("{text:?}"));
            assert_eq!(serde_json::from_str::<FunctionAddress>(&json).unwrap(), address);
        }
        // One PCI device has one name.
        assert_eq!("pci/0000:0A:00.0:pf0".parse::<FunctionAddress>().unwrap().to_string(), "pci/0000:0a:00.0:pf0");
    }

    #[test]
    fn an_error_says_which_part_is_wrong() {
        let wrong = |text: &str| text.parse::<FunctionAddress>().unwrap_err().to_string();
        for (text, part) in [
            ("", "neither a PCI address"),
            ("03:00.0", "neither a PCI address"),
            ("/0000:03:00.0:pf0vf1", "\"\" is not the name of a bus"),
            ("pci:0/x:pf0vf1", "\"pci:0\" is not the name of a bus"),
            ("pci/03:00.0:pf0vf1", "\"03:00.0\" is not the name of a device on bus \"pci\""),
            ("netdevsim/..:pf0vf1", "\"..\" is not the name of a device on bus \"netdevsim\""),
            ("netdevsim/a/b:pf0vf1", "\"a/b\" is not the name"),
            ("pci/0000:03:00.0", "no :pfN"),
            ("netdevsim/netdevsim10", "no :pfN"),
            ("netdevsim/netdevsim10:", "no :pfN"),
            ("netdevsim/netdevsim10:p0", "it begins with pf"),
            ("netdevsim/netdevsim10:c1vf0", "it begins with pf"),
            ("netdevsim/netdevsim10:cpf0vf0", "number of a controller"),
            ("netdevsim/netdevsim10:pfvf0", "number of a physical function"),
            ("netdevsim/netdevsim10:pf65536vf0", "number of a physical function"),
            ("netdevsim/netdevsim10:pf00vf0", "number of a physical function"),
            ("netdevsim/netdevsim10:pf0vf65536", "vf is followed by a number to 65535"),
            ("netdevsim/netdevsim10:pf0vf", "vf is followed by a number"),
            ("netdevsim/netdevsim10:pf0sf4294967296", "sf by one below 4294967296"),
            ("netdevsim/netdevsim10:pf0rep1", "behind pf and its number"),
            ("netdevsim/netdevsim10:pf0vf1x", "something is behind it"),
            ("netdevsim/netdevsim10:pf0\u{e9}", "behind pf and its number"),
        ] {
            assert!(wrong(text).contains(part), "{text}: {}", wrong(text));
        }
    }

    fn address() -> impl Strategy<Value = FunctionAddress> {
        let part = prop_oneof![
            Just(FunctionPart::Pf),
            any::<u16>().prop_map(FunctionPart::Vf),
            any::<u32>().prop_map(FunctionPart::Sf)
        ];
        let pci = (any::<u32>(), any::<u8>(), 0u8..32, 0u8..8).prop_map(|(domain, bus, device, function)| PciAddress {
            domain,
            bus,
            device,
            function,
        });
        (any::<Option<u32>>(), any::<u16>(), part, pci, 0..3, 0u32..1000).prop_map(
            |(controller, pf, part, pci, form, id)| match form {
                0 => FunctionAddress::Pci(pci),
                1 => port("pci", &pci.to_string(), controller, pf, part),
                _ => port("netdevsim", &format!("netdevsim{id}"), controller, pf, part),
            },
        )
    }

    proptest! {
        #[test]
        fn text_round_trips(address in address()) {
            prop_assert_eq!(address.to_string().parse(), Ok(address));
        }

        #[test]
        fn what_is_parsed_prints_as_what_is_parsed_again(
            text in "(pci|netdevsim|[a-z/:]{0,4})/?[0-9a-f:.é]{0,14}:?(c[0-9]{1,11})?(pf[0-9]{0,6})?([vs]f[0-9]{0,11})?\\PC{0,2}"
        ) {
            if let Ok(address) = text.parse::<FunctionAddress>() {
                prop_assert_eq!(address.to_string().parse(), Ok(address));
            }
        }

        #[test]
        fn any_text_is_taken_or_refused(text in "\\PC*") {
            let _ = text.parse::<FunctionAddress>();
        }
    }
}
