//! What a physical function is told about its virtual functions over rtnetlink, and what it tells of them: MAC address, VLAN,
//! rates, spoof check, trust, link state (`ip link set PF vf N …`). Their octets are in `codec`; which VF is whose, and VFs whose
//! settings are devlink's (switchdev), is no matter of this module.
//!
//! **What the kernel tells by itself.** A change that is made over rtnetlink is followed by an `RTM_NEWLINK` of the *physical*
//! function (group `RTNLGRP_LINK`), which says nothing of VFs: who sees one reads the VFs again ([`read`]). No event comes
//!
//! - while the physical function is down (`netdev_state_change` in `net/core/dev.c` looks at `IFF_UP`);
//! - when a message that sets several things for one VF is refused halfway: what came before the refusal is in force, and nobody
//!   was told (`do_setlink` in `net/core/rtnetlink.c` counts a VF as changed when all of it was taken). [`set`] then sends one
//!   thing at a time, so that an event follows what *it* does;
//! - when the VF's own driver changes something (a trusted VF that takes another MAC address over its mailbox), when the NIC
//!   does, or when VFs come and go by `sriov_numvfs`.
//!
//! So events are enough for drift that other programs make on a function that is up, and for the rest somebody reads now and then.

mod codec;

use std::collections::BTreeMap;
use std::fmt;

use nix::errno::Errno;
use rtnetlink::packet_core::NLM_F_ACK;
use rtnetlink::packet_route::link::{LinkAttribute, LinkExtentMask, LinkMessage};
use serde::{Deserialize, Serialize};

use crate::error::Extack;
use crate::link_request::{LinkError, LinkSocket, Peer, RTM_GETLINK, RTM_SETLINK};

const ETH_P_8021Q: u16 = 0x8100;
const ETH_P_8021AD: u16 = 0x88a8;

/// What the physical function has for one VF.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VfSettings {
    /// The MAC address that the VF gets; `None` while the host left it to the VF or the driver (all zero).
    pub mac: Option<[u8; 6]>,
    /// The VLAN that the NIC puts the VF into, unseen by it.
    pub vlan: Vlan,
    /// Guaranteed rate in Mbit/s, 0 for none.
    pub min_tx_rate_mbps: u32,
    /// Greatest rate in Mbit/s, 0 for no limit.
    pub max_tx_rate_mbps: u32,
    /// Whether the NIC drops what the VF sends from another address; `None` when the driver does not tell.
    pub spoof_check: Option<bool>,
    /// Whether the VF may do what changes what others receive, promiscuous mode for one; `None` when the driver does not tell.
    pub trust: Option<bool>,
    /// Whether the VF may ask for the RSS key and table; `None` when the driver does not tell.
    pub rss_query: Option<bool>,
    /// The link that the VF sees.
    pub link_state: LinkState,
}

/// A VLAN that a NIC puts a VF into.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Vlan {
    /// 1 to 4094; 0 for none.
    pub id: u16,
    /// Priority, 0 to 7.
    pub qos: u8,
    /// The tag.
    pub protocol: VlanProtocol,
}

/// The tag of a VLAN (`linux/if_ether.h`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum VlanProtocol {
    /// 802.1Q.
    #[default]
    Dot1q,
    /// 802.1ad.
    Dot1ad,
    /// Another ethertype.
    Other(u16),
}

impl From<u16> for VlanProtocol {
    fn from(ethertype: u16) -> Self {
        match ethertype {
            ETH_P_8021Q => VlanProtocol::Dot1q,
            ETH_P_8021AD => VlanProtocol::Dot1ad,
            other => VlanProtocol::Other(other),
        }
    }
}

impl From<VlanProtocol> for u16 {
    fn from(protocol: VlanProtocol) -> Self {
        match protocol {
            VlanProtocol::Dot1q => ETH_P_8021Q,
            VlanProtocol::Dot1ad => ETH_P_8021AD,
            VlanProtocol::Other(other) => other,
        }
    }
}

/// The link that a VF sees (`IFLA_VF_LINK_STATE_…`, `linux/if_link.h`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum LinkState {
    /// As the physical function's.
    #[default]
    Auto,
    /// Up, whatever the cable does: VFs reach each other.
    Enable,
    /// Down.
    Disable,
    /// Another number.
    Other(u32),
}

impl From<u32> for LinkState {
    fn from(number: u32) -> Self {
        match number {
            0 => LinkState::Auto,
            1 => LinkState::Enable,
            2 => LinkState::Disable,
            other => LinkState::Other(other),
        }
    }
}

impl From<LinkState> for u32 {
    fn from(state: LinkState) -> Self {
        match state {
            LinkState::Auto => 0,
            LinkState::Enable => 1,
            LinkState::Disable => 2,
            LinkState::Other(other) => other,
        }
    }
}

/// What is to be changed for a VF; the rest stays as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VfChange {
    /// The MAC address; all zero leaves it to the VF or the driver again, where the driver takes that.
    pub mac: Option<[u8; 6]>,
    /// The VLAN; [`Vlan::default`] for none.
    pub vlan: Option<Vlan>,
    /// Guaranteed rate in Mbit/s, 0 for none.
    pub min_tx_rate_mbps: Option<u32>,
    /// Greatest rate in Mbit/s, 0 for no limit.
    pub max_tx_rate_mbps: Option<u32>,
    /// Spoof check.
    pub spoof_check: Option<bool>,
    /// Trust.
    pub trust: Option<bool>,
    /// The link that the VF sees.
    pub link_state: Option<LinkState>,
}

impl VfChange {
    /// Whether it changes nothing.
    pub fn is_empty(&self) -> bool {
        *self == VfChange::default()
    }
}

/// A setting by the name that `ip link set … vf` has for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum VfField {
    /// The MAC address.
    Mac,
    /// VLAN, priority and tag: the kernel takes them as one.
    Vlan,
    /// Both rates: the kernel takes them as one.
    Rate,
    /// Spoof check.
    SpoofCheck,
    /// The link that the VF sees.
    LinkState,
    /// Trust.
    Trust,
}

impl fmt::Display for VfField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            VfField::Mac => "mac",
            VfField::Vlan => "vlan",
            VfField::Rate => "rate",
            VfField::SpoofCheck => "spoofchk",
            VfField::LinkState => "state",
            VfField::Trust => "trust",
        })
    }
}

/// Why VF settings were not read, or not all set.
#[derive(Debug, thiserror::Error)]
pub enum VfError {
    /// The request as a whole came to nothing.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// There are more VFs than the kernel can tell of: their descriptions share one attribute of at most 64 KiB, which 330 VFs fill.
    /// Linux 6.1 cuts them off; a kernel that checks refuses (`EMSGSIZE`).
    #[error("the kernel cannot tell of so many VFs in one message")]
    TooMany,
    /// The physical function has no such VF.
    #[error("there is no VF {0}")]
    NoSuchVf(u32),
    /// Some settings were refused; the others of the change are in force.
    #[error("VF {vf}: {}", list(refused))]
    Refused {
        /// The VF.
        vf: u32,
        /// What was refused, and how, in the order in which the kernel takes settings.
        refused: Vec<(VfField, Extack)>,
    },
}

fn list(refused: &[(VfField, Extack)]) -> String {
    let each: Vec<String> = refused.iter().map(|(field, refusal)| format!("{field} is refused: {refusal}")).collect();
    each.join("; ")
}

/// One thing that the kernel takes or refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Setting {
    Mac([u8; 6]),
    Vlan(Vlan),
    Rate { min: u32, max: u32 },
    SpoofCheck(bool),
    LinkState(LinkState),
    Trust(bool),
}

impl Setting {
    fn field(self) -> VfField {
        match self {
            Setting::Mac(_) => VfField::Mac,
            Setting::Vlan(_) => VfField::Vlan,
            Setting::Rate { .. } => VfField::Rate,
            Setting::SpoofCheck(_) => VfField::SpoofCheck,
            Setting::LinkState(_) => VfField::LinkState,
            Setting::Trust(_) => VfField::Trust,
        }
    }
}

/// Every VF of the physical function with this index, by number. None where a link has none, or can have none.
///
/// One link is asked for, never a list of links: for one the kernel measures how much room its VFs take, while a list comes in
/// pieces of a size that many VFs do not fit into. Statistics are left out (`RTEXT_FILTER_SKIP_STATS`), which lets half as many
/// VFs more into an attribute. Ports of port profiles are told of by the same answer (`crate::port_profile`).
///
/// # Errors
/// [`VfError::TooMany`] where there are more than the kernel can tell of, and [`VfError::Link`].
pub async fn read(socket: &mut LinkSocket, index: u32) -> Result<BTreeMap<u32, VfSettings>, VfError> {
    let mut question = LinkMessage::default();
    question.header.index = index;
    question.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::Vf, LinkExtentMask::SkipStats]));
    match socket.ask(Peer::Kernel, RTM_GETLINK, 0, &question).await {
        Ok(Some(answer)) => codec::read(answer.attributes()).ok_or(VfError::TooMany),
        Ok(None) => Err(LinkError::Malformed(Peer::Kernel, "a question without an answer").into()),
        Err(LinkError::Refused { refusal, .. }) if refusal.errno == Errno::EMSGSIZE as i32 => Err(VfError::TooMany),
        Err(error) => Err(error.into()),
    }
}

/// Changes settings of a VF of the physical function with this index. Who sets one of the two rates keeps the other.
///
/// All go in one message, which the kernel does step by step until the first refusal: it says neither which setting it refused
/// nor what it did until then. So a change that is refused is sent again, one setting at a time, to the end: whatever can be set is,
/// and every refusal has a name. Nothing is put back: who wants all or nothing has read the settings before.
///
/// # Errors
/// [`VfError::Refused`] names every setting that was refused. [`VfError::Link`] when the link is gone, nobody may change it, or the
/// kernel was not reached; what was changed until then is not known.
pub async fn set(socket: &mut LinkSocket, index: u32, vf: u32, change: &VfChange) -> Result<(), VfError> {
    let rates = match (change.min_tx_rate_mbps, change.max_tx_rate_mbps) {
        (None, None) => None,
        (Some(min), Some(max)) => Some((min, max)),
        (min, max) => {
            let vfs = read(socket, index).await?;
            let now = vfs.get(&vf).ok_or(VfError::NoSuchVf(vf))?;
            Some((min.unwrap_or(now.min_tx_rate_mbps), max.unwrap_or(now.max_tx_rate_mbps)))
        }
    };
    let settings = settings(change, rates);
    if settings.is_empty() {
        return Ok(());
    }
    let Some(refusal) = send(socket, index, vf, &settings).await? else { return Ok(()) };
    if let [only] = settings[..] {
        return Err(VfError::Refused { vf, refused: vec![(only.field(), refusal)] });
    }
    let mut refused = Vec::new();
    for setting in settings {
        if let Some(refusal) = send(socket, index, vf, &[setting]).await? {
            refused.push((setting.field(), refusal));
        }
    }
    // What is refused among others and not by itself is in force now.
    if refused.is_empty() { Ok(()) } else { Err(VfError::Refused { vf, refused }) }
}

/// A change in the order in which the kernel does it (`do_setvfinfo`, `net/core/rtnetlink.c`).
fn settings(change: &VfChange, rates: Option<(u32, u32)>) -> Vec<Setting> {
    let settings = [
        change.mac.map(Setting::Mac),
        change.vlan.map(Setting::Vlan),
        rates.map(|(min, max)| Setting::Rate { min, max }),
        change.spoof_check.map(Setting::SpoofCheck),
        change.link_state.map(Setting::LinkState),
        change.trust.map(Setting::Trust),
    ];
    settings.into_iter().flatten().collect()
}

/// Sends one message with these; `Some` when it was refused for what it sets.
async fn send(socket: &mut LinkSocket, index: u32, vf: u32, settings: &[Setting]) -> Result<Option<Extack>, LinkError> {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.attributes.push(LinkAttribute::VfInfoList(vec![codec::write(vf, settings)]));
    match socket.ask(Peer::Kernel, RTM_SETLINK, NLM_F_ACK, &message).await {
        Ok(_) => Ok(None),
        // Those are of the request as a whole: there is no such link, or nobody may change it.
        Err(LinkError::Refused { refusal, .. })
            if ![Errno::EPERM as i32, Errno::ENODEV as i32].contains(&refusal.errno) =>
        {
            Ok(Some(refusal))
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_told_by_name() {
        let invalid = Extack { errno: 22, text: None, attribute: None, missing: None };
        let unsupported = Extack { errno: 95, text: Some("Not here.".into()), ..invalid.clone() };
        let refused = vec![(VfField::Rate, unsupported), (VfField::Trust, invalid)];
        assert_eq!(
            VfError::Refused { vf: 3, refused }.to_string(),
            "VF 3: rate is refused: Not here (EOPNOTSUPP: Operation not supported on transport endpoint); \
             trust is refused: EINVAL: Invalid argument"
        );
    }

    #[tokio::test]
    async fn a_link_without_vfs_has_none_and_one_that_is_not_there_is_an_error() {
        let mut socket = LinkSocket::open().unwrap();
        let loopback = 1;
        assert_eq!(read(&mut socket, loopback).await.unwrap(), BTreeMap::new());
        let error = read(&mut socket, u32::MAX >> 1).await.unwrap_err();
        assert!(matches!(&error, VfError::Link(LinkError::Refused { refusal, .. }) if refusal.is_absent()), "{error}");
        // One of the two rates asks for the other.
        let change = VfChange { max_tx_rate_mbps: Some(1), ..VfChange::default() };
        assert!(matches!(set(&mut socket, loopback, 0, &change).await, Err(VfError::NoSuchVf(0))));
        set(&mut socket, loopback, 0, &VfChange::default()).await.unwrap();
    }
}
