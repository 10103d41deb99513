//! Whose a cookie is and whose a port, in the words that people know things by. Pure.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::model::{Desired, VifId};
use crate::plan::pipeline::{Cookie, NetworkKey, OwnerTag};
use crate::status::{HostStatus, VifStatus};

/// What a flow is of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Belongs {
    /// A VIF.
    Vif {
        /// Its id.
        id: VifId,
        /// Its port, where it has one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        port: Option<String>,
        /// Its guest, where the record says so.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        guest: Option<String>,
    },
    /// What the VIFs of a network share.
    Network {
        /// Its id; absent for the network of a VIF that is on none with an id.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        id: Option<Uuid>,
        /// Its label, where records have one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        label: Option<String>,
    },
    /// What every managed bridge has.
    Bridge,
    /// The members of the groups that rules name.
    Groups,
    /// What this agent made for a VIF or network that it does not know any more.
    Forgotten,
    /// Somebody else.
    Other,
}

impl Belongs {
    /// A VIF, as its status tells of it.
    #[must_use]
    pub fn to(vif: &VifStatus) -> Belongs {
        let port = vif.facts.name().map(Cow::into_owned);
        Belongs::Vif { id: vif.id, port, guest: vif.instance.clone() }
    }
}

impl fmt::Display for Belongs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Belongs::Vif { id, port, guest } => {
                match port {
                    Some(port) => write!(f, "VIF {port}")?,
                    None => write!(f, "VIF {id}")?,
                }
                guest.as_ref().map_or(Ok(()), |guest| write!(f, " ({guest})"))
            }
            Belongs::Network { label: Some(label), .. } => write!(f, "network {label}"),
            Belongs::Network { id: Some(id), .. } => write!(f, "network {id}"),
            Belongs::Network { .. } => f.write_str("a network of its own"),
            Belongs::Bridge => f.write_str("every bridge"),
            Belongs::Groups => f.write_str("the groups of rules"),
            Belongs::Forgotten => f.write_str("vifd, for what is not known any more"),
            Belongs::Other => f.write_str("somebody else"),
        }
    }
}

/// Everything that cookies can be of at the moment.
#[derive(Clone, Debug)]
pub struct Owners {
    tag: OwnerTag,
    by_cookie: BTreeMap<u64, Belongs>,
    /// VIFs by bridge and port, and VLAN of sub-ports.
    by_port: BTreeMap<(String, String, Option<u16>), VifId>,
}

impl Owners {
    /// The VIFs and networks of these records, and the VIFs that are still on the host.
    #[must_use]
    pub fn new(tag: OwnerTag, desired: &Desired, status: &HostStatus) -> Self {
        let mut by_cookie =
            BTreeMap::from([(Cookie::bridge(tag).0, Belongs::Bridge), (Cookie::groups(tag).0, Belongs::Groups)]);
        let mut by_port = BTreeMap::new();
        for vif in desired.vifs.values() {
            let key = NetworkKey::of(vif);
            let network = by_cookie.entry(Cookie::network(tag, key).0).or_insert_with(|| {
                let id = match key {
                    NetworkKey::Network(id) => Some(id),
                    NetworkKey::Alone(_) => None,
                };
                Belongs::Network { id, label: None }
            });
            if let (Belongs::Network { label, .. }, Some(network)) = (network, &vif.network)
                && label.is_none()
            {
                label.clone_from(&network.label);
            }
        }
        for (id, vif) in &status.vifs {
            by_cookie.insert(Cookie::vif(tag, *id).0, Belongs::to(vif));
            if let (Some(bridge), Some(port)) = (&vif.facts.bridge, &vif.facts.port) {
                by_port.insert((bridge.clone(), port.clone(), vif.facts.vlan), *id);
            }
        }
        Owners { tag, by_cookie, by_port }
    }

    /// What a flow with this cookie is of.
    #[must_use]
    pub fn of(&self, cookie: u64) -> Belongs {
        match self.by_cookie.get(&cookie) {
            Some(known) => known.clone(),
            None if self.tag.owns(cookie) => Belongs::Forgotten,
            None => Belongs::Other,
        }
    }

    /// Whether a cookie is of something that is known.
    #[must_use]
    pub fn knows(&self, cookie: u64) -> bool {
        self.by_cookie.contains_key(&cookie)
    }

    /// The VIF that has this port, or this VLAN of it.
    #[must_use]
    pub fn at(&self, bridge: &str, port: &str, vlan: Option<u16>) -> Option<Belongs> {
        let id = self.by_port.get(&(bridge.to_owned(), port.to_owned(), vlan))?;
        self.by_cookie.get(&Cookie::vif(self.tag, *id).0).cloned()
    }
}
