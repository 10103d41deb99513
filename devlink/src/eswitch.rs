//! The switch that is embedded in a NIC (`devlink dev eswitch`): its mode, its inline mode and its encapsulation.

use std::fmt;
use std::str::FromStr;

use crate::wire::numbers::attr;
use crate::wire::{Attributes, Malformed, Writer};

/// How a NIC's switch is set (`DEVLINK_CMD_ESWITCH_GET`). What its driver does not know is `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Eswitch {
    /// Whether there are representors.
    pub mode: Option<EswitchMode>,
    /// How much of a packet's headers its function has to put into the descriptor.
    pub inline_mode: Option<InlineMode>,
    /// Whether the switch encapsulates (tunnels).
    pub encap: Option<bool>,
}

/// `enum devlink_eswitch_mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EswitchMode {
    /// By MAC address and VLAN, as the driver has it; no representors.
    Legacy,
    /// A representor for each function; flows decide.
    Switchdev,
    /// As `Switchdev`, but no traffic passes until it is made `Switchdev` (since Linux 6.19).
    SwitchdevInactive,
    /// One that this library does not know.
    Other(u16),
}

/// `enum devlink_eswitch_inline_mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum InlineMode {
    /// Nothing.
    None,
    /// Layer 2.
    Link,
    /// Up to layer 3.
    Network,
    /// Up to layer 4.
    Transport,
    /// One that this library does not know.
    Other(u8),
}

/// What is to be changed of a NIC's switch; `None` is left as it is. Nothing but what is given is sent, since a driver may
/// refuse the whole request for a setting that it does not know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EswitchChange {
    /// See [`Eswitch::mode`].
    pub mode: Option<EswitchMode>,
    /// See [`Eswitch::inline_mode`].
    pub inline_mode: Option<InlineMode>,
    /// See [`Eswitch::encap`].
    pub encap: Option<bool>,
}

/// Text that is no mode of devlink(8)'s.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a mode (legacy, switchdev or switchdev_inactive; inline: none, link, network or transport)")]
pub struct InvalidMode(pub String);

impl fmt::Display for EswitchMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EswitchMode::Legacy => f.write_str("legacy"),
            EswitchMode::Switchdev => f.write_str("switchdev"),
            EswitchMode::SwitchdevInactive => f.write_str("switchdev_inactive"),
            EswitchMode::Other(number) => number.fmt(f),
        }
    }
}

impl FromStr for EswitchMode {
    type Err = InvalidMode;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "legacy" => Ok(EswitchMode::Legacy),
            "switchdev" => Ok(EswitchMode::Switchdev),
            "switchdev_inactive" => Ok(EswitchMode::SwitchdevInactive),
            other => Err(InvalidMode(other.chars().take(80).collect())),
        }
    }
}

impl fmt::Display for InlineMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            InlineMode::None => f.write_str("none"),
            InlineMode::Link => f.write_str("link"),
            InlineMode::Network => f.write_str("network"),
            InlineMode::Transport => f.write_str("transport"),
            InlineMode::Other(number) => number.fmt(f),
        }
    }
}

impl FromStr for InlineMode {
    type Err = InvalidMode;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "none" => Ok(InlineMode::None),
            "link" => Ok(InlineMode::Link),
            "network" => Ok(InlineMode::Network),
            "transport" => Ok(InlineMode::Transport),
            other => Err(InvalidMode(other.chars().take(80).collect())),
        }
    }
}

impl EswitchMode {
    fn from_number(number: u16) -> Self {
        match number {
            0 => EswitchMode::Legacy,
            1 => EswitchMode::Switchdev,
            2 => EswitchMode::SwitchdevInactive,
            other => EswitchMode::Other(other),
        }
    }

    fn number(self) -> u16 {
        match self {
            EswitchMode::Legacy => 0,
            EswitchMode::Switchdev => 1,
            EswitchMode::SwitchdevInactive => 2,
            EswitchMode::Other(other) => other,
        }
    }
}

impl InlineMode {
    fn from_number(number: u8) -> Self {
        match number {
            0 => InlineMode::None,
            1 => InlineMode::Link,
            2 => InlineMode::Network,
            3 => InlineMode::Transport,
            other => InlineMode::Other(other),
        }
    }

    fn number(self) -> u8 {
        match self {
            InlineMode::None => 0,
            InlineMode::Link => 1,
            InlineMode::Network => 2,
            InlineMode::Transport => 3,
            InlineMode::Other(other) => other,
        }
    }
}

impl Eswitch {
    /// Reads the attributes of `DEVLINK_CMD_ESWITCH_GET`'s answer: what comes behind `struct genlmsghdr`.
    ///
    /// # Errors
    /// Where a length is wrong. What is unknown is passed over.
    pub fn decode(attributes: &[u8]) -> Result<Self, Malformed> {
        let mut eswitch = Eswitch::default();
        for attribute in Attributes::new(attributes) {
            let attribute = attribute?;
            match attribute.kind {
                attr::ESWITCH_MODE => eswitch.mode = Some(EswitchMode::from_number(attribute.u16()?)),
                attr::ESWITCH_INLINE_MODE => eswitch.inline_mode = Some(InlineMode::from_number(attribute.u8()?)),
                attr::ESWITCH_ENCAP_MODE => eswitch.encap = Some(attribute.bool()?),
                _ => {}
            }
        }
        Ok(eswitch)
    }
}

impl EswitchChange {
    pub(crate) fn encode(&self, writer: &mut Writer) {
        if let Some(mode) = self.mode {
            writer.u16(attr::ESWITCH_MODE, mode.number());
        }
        if let Some(inline_mode) = self.inline_mode {
            writer.u8(attr::ESWITCH_INLINE_MODE, inline_mode.number());
        }
        if let Some(encap) = self.encap {
            writer.u8(attr::ESWITCH_ENCAP_MODE, u8::from(encap));
        }
    }
}

/// As a sentence has it: `mode switchdev, encapsulation off`.
impl fmt::Display for EswitchChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let encap = self.encap.map(|encap| if encap { "on" } else { "off" });
        let parts = [
            self.mode.map(|mode| format!("mode {mode}")),
            self.inline_mode.map(|mode| format!("inline mode {mode}")),
            encap.map(|encap| format!("encapsulation {encap}")),
        ];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        f.write_str(if parts.is_empty() { "nothing" } else { "" })?;
        f.write_str(&parts.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_change_has_what_is_to_be_changed_and_no_more() {
        let all = EswitchChange {
            mode: Some(EswitchMode::Switchdev),
            inline_mode: Some(InlineMode::Transport),
            encap: Some(true),
        };
        #[rustfmt::skip]
        let octets = [
            6, 0, 25, 0, // DEVLINK_ATTR_ESWITCH_MODE
            1, 0, 0, 0, // DEVLINK_ESWITCH_MODE_SWITCHDEV; padding
            5, 0, 26, 0, // DEVLINK_ATTR_ESWITCH_INLINE_MODE
            3, 0, 0, 0, // DEVLINK_ESWITCH_INLINE_MODE_TRANSPORT; padding
            5, 0, 62, 0, // DEVLINK_ATTR_ESWITCH_ENCAP_MODE
            1, 0, 0, 0, // DEVLINK_ESWITCH_ENCAP_MODE_BASIC; padding
        ];
        let written = |change: EswitchChange| {
            let mut writer = Writer::default();
            change.encode(&mut writer);
            writer.octets().to_vec()
        };
        assert_eq!(written(all), octets);
        let read = Eswitch { mode: all.mode, inline_mode: all.inline_mode, encap: all.encap };
        assert_eq!(Eswitch::decode(&octets), Ok(read));
        assert_eq!(all.to_string(), "mode switchdev, inline mode transport, encapsulation on");
        let nothing = EswitchChange::default();
        for (change, octets) in [
            (EswitchChange { mode: all.mode, ..nothing }, &octets[..8]),
            (EswitchChange { inline_mode: all.inline_mode, ..nothing }, &octets[8..16]),
            (EswitchChange { encap: all.encap, ..nothing }, &octets[16..]),
        ] {
            assert_eq!(written(change), octets);
        }
        assert_eq!((written(nothing), nothing.to_string()), (Vec::new(), "nothing".to_owned()));
        assert_eq!(Eswitch::decode(&[5, 0, 25, 0, 1, 0, 0, 0]), Err(Malformed::Size { kind: 25, len: 1, expected: 2 }));
    }

    proptest! {
        #[test]
        fn every_mode_has_a_number_and_a_name(mode: u16, inline: u8) {
            let (mode, number) = (EswitchMode::from_number(mode), mode);
            prop_assert_eq!(mode.number(), number);
            prop_assert_eq!(mode.to_string().parse().ok(), Some(mode).filter(|_| number < 3));
            let (inline_mode, number) = (InlineMode::from_number(inline), inline);
            prop_assert_eq!(inline_mode.number(), number);
            prop_assert_eq!(inline_mode.to_string().parse().ok(), Some(inline_mode).filter(|_| number < 4));
        }
    }
}
