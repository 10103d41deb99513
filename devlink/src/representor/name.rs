//! What `phys_port_name` says: [`PortName`].

use std::fmt;
use std::str::FromStr;

use crate::FunctionPart;
use crate::function::{number, numbered, shown};

/// Which port a netdev is, by the name that its driver gives the port.
///
/// devlink makes the names for drivers that leave it to it (`net/devlink/port.c`, `__devlink_port_phys_port_name_get`);
/// others make their own, nearly alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PortName {
    /// A port with a cable: `p0`, a part of one `p0s1`, one of a line card `l2p0`.
    Physical {
        /// The line card.
        linecard: Option<u32>,
        /// The port.
        port: u32,
        /// The part of a port that was split.
        split: Option<u32>,
    },
    /// The port of a function: `pf0vf1`, `c1pf0vf1`, `pf0sf88`, `pf0`, `vf1`.
    Function {
        /// The external controller that has the function.
        controller: Option<u32>,
        /// The physical port before it, as in `p0pf1vf2`.
        port: Option<u32>,
        /// The physical function, if the name says it.
        pf: Option<u16>,
        /// What of it.
        part: FunctionPart,
    },
    /// A number alone: for drivers before Linux 5.1, that of a virtual function; for others, any port's.
    Number(u32),
}

/// A name of a form that this library does not know.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not the name of a port that is known here (such as p0, pf0vf1)")]
pub struct UnknownPortName(pub String);

impl FromStr for PortName {
    type Err = UnknownPortName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(text).ok_or_else(|| UnknownPortName(shown(text)))
    }
}

fn parse(text: &str) -> Option<PortName> {
    if let Some((number, "")) = number(text) {
        return Some(PortName::Number(number));
    }
    if let Some(vf) = text.strip_prefix("vf") {
        // `vf1@pf0` is what drivers outside of the kernel have said.
        let (vf, rest) = number(vf)?;
        let (pf, rest) = numbered(rest, "@pf")?;
        let part = FunctionPart::Vf(vf);
        return rest.is_empty().then_some(PortName::Function { controller: None, port: None, pf, part });
    }
    let (linecard, rest) = numbered(text, "l")?;
    let (controller, rest) = numbered(rest, "c")?;
    let (port, rest) = if rest.starts_with("pf") { (None, rest) } else { numbered(rest, "p")? };
    let (pf, rest) = numbered(rest, "pf")?;
    if pf.is_none() {
        let (split, rest) = numbered(rest, "s")?;
        let whole = rest.is_empty() && controller.is_none();
        return whole.then_some(PortName::Physical { linecard, port: port?, split });
    }
    let (vf, rest) = numbered(rest, "vf")?;
    let (sf, rest) = numbered(rest, "sf")?;
    let part = match (vf, sf) {
        (None, None) => FunctionPart::Pf,
        (Some(vf), None) => FunctionPart::Vf(vf),
        (None, Some(sf)) => FunctionPart::Sf(sf),
        (Some(_), Some(_)) => return None,
    };
    let whole = rest.is_empty() && linecard.is_none();
    whole.then_some(PortName::Function { controller, port, pf, part })
}

impl fmt::Display for PortName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut write = |prefix: &str, number: Option<u32>| match number {
            Some(number) => write!(f, "{prefix}{number}"),
            None => Ok(()),
        };
        match *self {
            PortName::Number(number) => write("", Some(number)),
            PortName::Physical { linecard, port, split } => {
                write("l", linecard)?;
                write("p", Some(port))?;
                write("s", split)
            }
            PortName::Function { controller, port, pf, part } => {
                write("c", controller)?;
                write("p", port)?;
                write("pf", pf.map(u32::from))?;
                match part {
                    FunctionPart::Pf => Ok(()),
                    FunctionPart::Vf(vf) => write("vf", Some(vf.into())),
                    FunctionPart::Sf(sf) => write("sf", Some(sf)),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn function(controller: Option<u32>, port: Option<u32>, pf: Option<u16>, part: FunctionPart) -> PortName {
        PortName::Function { controller, port, pf, part }
    }

    #[test]
    fn names_of_drivers() {
        use FunctionPart::{Pf, Sf, Vf};
        for (text, name) in [
            ("p0", PortName::Physical { linecard: None, port: 0, split: None }),
            ("p1s3", PortName::Physical { linecard: None, port: 1, split: Some(3) }),
            ("l2p10", PortName::Physical { linecard: Some(2), port: 10, split: None }),
            ("pf0", function(None, None, Some(0), Pf)),
            ("c1pf0", function(Some(1), None, Some(0), Pf)),
            ("pf0vf1", function(None, None, Some(0), Vf(1))),
            ("pf1vf10", function(None, None, Some(1), Vf(10))),
            ("c1pf0vf1", function(Some(1), None, Some(0), Vf(1))),
            ("pf0sf88", function(None, None, Some(0), Sf(88))),
            ("p0pf1vf2", function(None, Some(0), Some(1), Vf(2))),
            ("vf1", function(None, None, None, Vf(1))),
            ("1", PortName::Number(1)),
        ] {
            assert_eq!(text.parse(), Ok(name), "{text}");
            assert_eq!(name.to_string(), text);
        }
        assert_eq!("vf1@pf0".parse(), Ok(function(None, None, Some(0), Vf(1))));
    }

    #[test]
    fn other_names_are_not_taken_for_these() {
        for text in [
            "",
            "n0",
            "p",
            "pf",
            "vf",
            "c1",
            "c1p0",
            "c1vf0",
            "l1pf0",
            "pf0vf",
            "pf0vf1x",
            "pf0vf1sf2",
            "pf0vf65536",
            "01",
            "-1",
            "p0 ",
            "vf1@",
            "vf1@pf",
            "vf1@pf0x",
            "sf1",
            "4294967296",
            "pf0vf01",
        ] {
            assert!(text.parse::<PortName>().is_err(), "{text}");
        }
    }

    fn name() -> impl Strategy<Value = PortName> {
        use FunctionPart::{Pf, Sf, Vf};
        let part = prop_oneof![Just(Pf), any::<u16>().prop_map(Vf), any::<u32>().prop_map(Sf)];
        prop_oneof![
            any::<u32>().prop_map(PortName::Number),
            any::<u16>().prop_map(|vf| function(None, None, None, Vf(vf))),
            any::<(Option<u32>, u32, Option<u32>)>().prop_map(|(linecard, port, split)| PortName::Physical {
                linecard,
                port,
                split
            }),
            (any::<(Option<u32>, Option<u32>, u16)>(), part).prop_map(|((controller, port, pf), part)| function(
                controller,
                port,
                Some(pf),
                part
            )),
        ]
    }

    proptest! {
        #[test]
        fn text_round_trips(name in name()) {
            prop_assert_eq!(name.to_string().parse(), Ok(name));
        }

        #[test]
        fn any_text_is_taken_or_refused(text in "[lcpvsf@0-9]{0,12}\\PC{0,2}") {
            let _ = text.parse::<PortName>();
        }
    }
}
