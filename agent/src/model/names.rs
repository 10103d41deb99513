//! Identities: VIF ids, MAC addresses, interface names, and the marks that say who owns what.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Identity of one VIF: os-vif's `VIF.id`, a UUID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct VifId(pub Uuid);

impl fmt::Display for VifId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for VifId {
    type Err = uuid::Error;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Uuid::parse_str(text).map(VifId)
    }
}

/// Who we are in every mark: `[agent] id` of the configuration. Two agents on one host have two ids.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct AgentId(pub String);

impl fmt::Display for AgentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An Ethernet address, printed in lower case with colons.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MacAddr(pub [u8; 6]);

/// Text that is not six hexadecimal octets joined by `:` or `-`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a MAC address (six hexadecimal octets such as 52:54:00:12:34:56)")]
pub struct InvalidMac(pub String);

impl FromStr for MacAddr {
    type Err = InvalidMac;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || InvalidMac(text.to_owned());
        let mut octets = [0; 6];
        let mut parts = text.split([':', '-']);
        for octet in &mut octets {
            let part = parts.next().ok_or_else(wrong)?;
            if part.len() != 2 || !part.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(wrong());
            }
            *octet = u8::from_str_radix(part, 16).map_err(|_| wrong())?;
        }
        if parts.next().is_some() { Err(wrong()) } else { Ok(MacAddr(octets)) }
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for MacAddr {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for MacAddr {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Bytes that the kernel gives an interface name, the closing NUL included (`linux/if.h`).
pub const IFNAMSIZ: usize = 16;

/// `prefix` and the VIF's id, cut as os-vif cuts device names (14 characters), so that an upgrade from
/// os-vif finds the same ports.
#[must_use]
pub fn cut_name(prefix: &str, id: VifId) -> String {
    let mut name = format!("{prefix}{id}");
    name.truncate(14);
    name
}

/// The mark on a kernel link (`ifalias`): format version, agent, and which VIF it is for.
///
/// Text forms: `vifd/1 AGENT VIF`, with ` preserve` behind it where the link stays when its VIF goes; `vifd/1 AGENT
/// shared`, or `vifd/1 AGENT unwanted` when the last VIF that wanted it has gone and a guest has not, with ` uplink=NAME` behind it where it is a bridge that took an interface in. A format that we do not know
/// is kept as `Newer` and left alone; the second form is one of those to releases before 0.3.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mark {
    /// Made by vifd.
    Made {
        /// By which agent.
        agent: AgentId,
        /// For which VIF.
        vif: VifId,
        /// Whether it stays when the VIF goes (`preserve_on_delete`).
        preserve: bool,
    },
    /// Made by vifd for every VIF that wants it.
    Shared {
        /// By which agent.
        agent: AgentId,
        /// Whether the last VIF that wanted it was taken away by name, so that it goes as soon as it can.
        unwanted: bool,
        /// The interface whose addresses and routes a bridge took over, and that gets them back.
        uplink: Option<String>,
    },
    /// Made by a later release of vifd in a format this one does not know: never touched, reported.
    Newer(String),
}

/// Words of a mark.
const SHARED: &str = "shared";
const UNWANTED: &str = "unwanted";
const UPLINK: &str = "uplink=";

/// The link group (`IFLA_GROUP`) that a link of `agent`'s is in from the moment it is made until it has its mark, so that
/// what a crash leaves in between is known for what it is. Far above the numbers that people choose, and another for
/// another agent.
#[must_use]
pub fn nursery(agent: &AgentId) -> u32 {
    // FNV-1a.
    let hash = agent.0.bytes().fold(0x811c_9dc5, |hash: u32, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    hash | 0x8000_0000
}

impl Mark {
    /// Reads an `ifalias`; `None` when it is not one of vifd's.
    #[must_use]
    pub fn parse(alias: &str) -> Option<Mark> {
        let rest = alias.strip_prefix("vifd/")?;
        let newer = || Mark::Newer(alias.to_owned());
        let mut words = rest.split(' ');
        let (Some("1"), Some(agent), Some(of)) = (words.next(), words.next(), words.next()) else {
            return Some(newer());
        };
        let agent = AgentId(agent.to_owned());
        let (more, end) = (words.next(), words.next());
        if end.is_some() {
            return Some(newer());
        }
        Some(match (of.parse(), more) {
            (Ok(vif), None) => Mark::Made { agent, vif, preserve: false },
            (Ok(vif), Some("preserve")) => Mark::Made { agent, vif, preserve: true },
            (Err(_), more) if of == SHARED || of == UNWANTED => {
                let unwanted = of == UNWANTED;
                match more.map(|more| more.strip_prefix(UPLINK)) {
                    None => Mark::Shared { agent, unwanted, uplink: None },
                    Some(Some(uplink)) => Mark::Shared { agent, unwanted, uplink: Some(uplink.to_owned()) },
                    Some(None) => newer(),
                }
            }
            _ => newer(),
        })
    }

    /// The text of the mark that `agent` puts on what several VIFs share.
    #[must_use]
    pub fn shared_text(agent: &AgentId, unwanted: bool, uplink: Option<&str>) -> String {
        let uplink = uplink.map(|uplink| format!(" {UPLINK}{uplink}")).unwrap_or_default();
        format!("vifd/1 {agent} {}{uplink}", if unwanted { UNWANTED } else { SHARED })
    }

    /// The text of the mark that `agent` puts on what it makes for `vif`.
    #[must_use]
    pub fn text(agent: &AgentId, vif: VifId, preserve: bool) -> String {
        format!("vifd/1 {agent} {vif}{}", if preserve { " preserve" } else { "" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mac_reads_both_separators_and_prints_lower_case() {
        assert_eq!("52-54-00-AB-cd-01".parse::<MacAddr>().unwrap().to_string(), "52:54:00:ab:cd:01");
        for wrong in ["", "52:54:00:ab:cd", "52:54:00:ab:cd:01:02", "52:54:0:ab:cd:01", "+1:54:00:ab:cd:01"] {
            assert!(wrong.parse::<MacAddr>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn mark_round_trips_and_newer_is_told_apart() {
        let vif: VifId = "dc065497-3c8d-4f44-8fb4-e1d33c16a536".parse().unwrap();
        let agent = AgentId("vifd".into());
        for preserve in [false, true] {
            let mark = Mark::Made { agent: agent.clone(), vif, preserve };
            assert_eq!(Mark::parse(&Mark::text(&agent, vif, preserve)), Some(mark));
        }
        for (unwanted, uplink) in [(false, None), (true, None), (false, Some("eth1")), (true, Some("eth1"))] {
            let mark = Mark::Shared { agent: agent.clone(), unwanted, uplink: uplink.map(str::to_owned) };
            assert_eq!(Mark::parse(&Mark::shared_text(&agent, unwanted, uplink)), Some(mark));
        }
        assert_eq!(Mark::parse("vifd/1 vifd shared with=x"), Some(Mark::Newer("vifd/1 vifd shared with=x".into())));
        let later = format!("{} x", Mark::text(&agent, vif, true));
        assert_eq!(Mark::parse(&later), Some(Mark::Newer(later.clone())));
        assert_eq!(Mark::parse("vifd/2 x"), Some(Mark::Newer("vifd/2 x".into())));
        assert_eq!(Mark::parse("to core switch"), None);
    }

    #[test]
    fn names_are_cut_as_os_vif_cuts_them() {
        let vif: VifId = "dc065497-3c8d-4f44-8fb4-e1d33c16a536".parse().unwrap();
        assert_eq!(cut_name("vhu", vif), "vhudc065497-3c");
        assert_eq!(cut_name("pb", vif), "pbdc065497-3c8");
    }
}
