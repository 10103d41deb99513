//! Making one link, of any kind, so that a crash anywhere leaves what can be told from a stranger's: a tap is
//! persistent only after it has its mark, anything else is in the nursery until then.

use std::fs;
use std::io;

use rtnetlink::packet_route::link::{
    BridgeStpState, InfoBridge, InfoData, InfoKind, InfoMacVtap, InfoVeth, InfoVlan, LinkAttribute, LinkFlags,
    LinkInfo, LinkMessage, MacVtapMode,
};

use super::perform::{OpError, gone_or, netlink};
use super::request::{Requests, Which};
use super::tun::Tap;
use super::{NewKind, NewLink};
use crate::model::{BridgeConfig, DirectMode, IFNAMSIZ, Link, LinkKind};

/// Makes `new`, which is of this kind; `nursery` is the group that it is in meanwhile. What is refused before the link has
/// its mark leaves no link.
pub(super) fn make(requests: &mut Requests, new: &NewLink, kind: &NewKind, nursery: u32) -> Result<(), OpError> {
    check_name(&new.name)?;
    let what = format!("make {} {:?}", kind.name(), new.name);
    let infos = match kind {
        NewKind::Tap { multi_queue } => return make_tap(requests, new, *multi_queue, &what),
        NewKind::Veth(peer) => {
            check_name(&peer.name)?;
            let end = InfoVeth::Peer(bare(peer, nursery));
            vec![LinkInfo::Kind(InfoKind::Veth), LinkInfo::Data(InfoData::Veth(end))]
        }
        NewKind::Bridge(config) => vec![LinkInfo::Kind(InfoKind::Bridge), LinkInfo::Data(bridge_data(config))],
        NewKind::Vlan { id, .. } => {
            vec![LinkInfo::Kind(InfoKind::Vlan), LinkInfo::Data(InfoData::Vlan(vec![InfoVlan::Id(*id)]))]
        }
        NewKind::Macvtap { mode, .. } => {
            let mode = match mode {
                DirectMode::Vepa => MacVtapMode::Vepa,
                DirectMode::Bridge => MacVtapMode::Bridge,
                DirectMode::Passthrough => MacVtapMode::Passthrough,
            };
            vec![LinkInfo::Kind(InfoKind::MacVtap), LinkInfo::Data(InfoData::MacVtap(vec![InfoMacVtap::Mode(mode)]))]
        }
    };
    let lower = match kind {
        NewKind::Vlan { on, .. } | NewKind::Macvtap { on, .. } => Some(below(requests, on, &what)?),
        _ => None,
    };
    requests.create(creation(new, infos, lower, nursery)).map_err(refused(kind, new, &what))?;
    let index = made(requests, &new.name, nursery)?;
    let mut links = vec![(new, index)];
    let marked = mark(requests, kind, &mut links, nursery, &what);
    if marked.is_err() {
        // Both ends of a veth go. One that cannot be deleted is seen in the nursery, or has its mark.
        let _ = requests.delete(index);
    }
    marked?;
    links.iter().try_for_each(|(new, index)| finish(requests, *index, new))
}

fn make_tap(requests: &mut Requests, new: &NewLink, multi_queue: bool, what: &str) -> Result<(), OpError> {
    let tap = Tap::create(&new.name, multi_queue)?;
    let index = find(requests, &new.name)?.index;
    requests.set(dress(index, new, None)).map_err(netlink(what))?;
    no_ipv6(&new.name)?;
    // From here on the tap stays, whatever becomes of us; until here it goes with `tap`.
    tap.persist()?;
    // Closed before it is up: the kernel takes longer to take its reader from a link that is up.
    drop(tap);
    finish(requests, index, new)
}

/// Gives a link that is in the nursery its settings and its mark, with which it leaves the nursery. Adds the other end of a
/// veth to `links`.
fn mark<'a>(
    requests: &mut Requests,
    kind: &'a NewKind,
    links: &mut Vec<(&'a NewLink, u32)>,
    nursery: u32,
    what: &str,
) -> Result<(), OpError> {
    if let NewKind::Veth(peer) = kind {
        links.push((&**peer, made(requests, &peer.name, nursery)?));
    }
    for (new, index) in links.iter() {
        match kind {
            NewKind::Bridge(_) => {
                no_ipv6(&new.name)?;
                // As os-vif has it: it answers ARP for addresses of its own alone, and from the best of them.
                write_setting("ipv4", &new.name, "arp_ignore", "1")?;
                write_setting("ipv4", &new.name, "arp_announce", "2")?;
            }
            NewKind::Macvtap { .. } => no_ipv6(&new.name)?,
            NewKind::Tap { .. } | NewKind::Veth(_) | NewKind::Vlan { .. } => {}
        }
        // An end of a veth that is still in the nursery takes the other with it.
        requests.set(dress(*index, new, Some(0))).map_err(netlink(what))?;
    }
    Ok(())
}

/// The attribute that gives a bridge its settings.
pub(super) fn bridge_data(config: &BridgeConfig) -> InfoData {
    InfoData::Bridge(vec![
        InfoBridge::AgeingTime(config.ageing_time),
        InfoBridge::ForwardDelay(config.forward_delay),
        InfoBridge::StpState(if config.stp { BridgeStpState::KernelStp } else { BridgeStpState::Disabled }),
        InfoBridge::MulticastSnooping(config.multicast_snooping),
    ])
}

/// Index of the bridge of this name.
pub(super) fn bridge_index(requests: &mut Requests, name: &str, what: &str) -> Result<u32, OpError> {
    let found = requests.get(&Which::Name(name.to_owned())).map_err(netlink(what))?;
    match found {
        Some(Link { index, kind: LinkKind::Bridge(_), .. }) => Ok(index),
        Some(link) => {
            Err(OpError::Guard(format!("cannot {what}: {name:?} is a {} and not a bridge", link.kind.name())))
        }
        None => Err(OpError::Guard(format!("cannot {what}: there is no bridge {name:?}"))),
    }
}

pub(super) fn set_flag(message: &mut LinkMessage, flag: LinkFlags, on: bool) {
    if on {
        message.header.flags |= flag;
    }
    message.header.change_mask |= flag;
}

/// The request for a link that is in the nursery.
fn creation(new: &NewLink, infos: Vec<LinkInfo>, lower: Option<u32>, nursery: u32) -> LinkMessage {
    let mut message = bare(new, nursery);
    message.attributes.extend(lower.map(LinkAttribute::Link));
    message.attributes.push(LinkAttribute::LinkInfo(infos));
    message
}

/// A new link with what the kernel takes at once; a mark is not among it.
fn bare(new: &NewLink, nursery: u32) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::IfName(new.name.clone()));
    message.attributes.push(LinkAttribute::Group(nursery));
    message.attributes.extend(new.mac.map(|mac| LinkAttribute::Address(mac.0.to_vec())));
    message
}

/// Mark, MTU and address of a new link, and the group that it is in from now on, where that is another.
fn dress(index: u32, new: &NewLink, group: Option<u32>) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.attributes.push(LinkAttribute::IfAlias(new.alias.clone()));
    message.attributes.extend(group.map(LinkAttribute::Group));
    message.attributes.extend(new.mtu.map(LinkAttribute::Mtu));
    message.attributes.extend(new.mac.map(|mac| LinkAttribute::Address(mac.0.to_vec())));
    message
}

/// The last step, of which the kernel tells with everything before it: into its bridge, and up.
fn finish(requests: &mut Requests, index: u32, new: &NewLink) -> Result<(), OpError> {
    let what = format!("set {:?} up", new.name);
    let mut message = LinkMessage::default();
    message.header.index = index;
    if let Some(master) = &new.master {
        message.attributes.push(LinkAttribute::Controller(bridge_index(requests, master, &what)?));
    }
    if new.promiscuous {
        set_flag(&mut message, LinkFlags::Promisc, true);
    }
    if new.up {
        set_flag(&mut message, LinkFlags::Up, true);
    }
    if message.attributes.is_empty() && message.header.change_mask.is_empty() {
        return Ok(());
    }
    requests.set(message).map_err(gone_or(index, &what))
}

/// Index of the link that was made just now, in the nursery.
fn made(requests: &mut Requests, name: &str, nursery: u32) -> Result<u32, OpError> {
    match find(requests, name)? {
        Link { index, group, .. } if group == nursery => Ok(index),
        _ => Err(OpError::Guard(format!("another link took the name {name:?} as it was made"))),
    }
}

fn find(requests: &mut Requests, name: &str) -> Result<Link, OpError> {
    // If someone (udev) renamed it meanwhile, give up: a tap goes, and what is in the nursery is seen there.
    let link = requests.get(&Which::Name(name.to_owned())).map_err(netlink(&format!("find link {name:?}")))?;
    link.ok_or_else(|| OpError::Guard(format!("link {name:?} was taken away as it was made")))
}

/// Index of the link that another is to stand on.
fn below(requests: &mut Requests, on: &str, what: &str) -> Result<u32, OpError> {
    let link = requests.get(&Which::Name(on.to_owned())).map_err(netlink(what))?;
    link.map(|link| link.index).ok_or_else(|| OpError::Guard(format!("cannot {what}: there is no {on:?}")))
}

/// What it means that the kernel did not make a link.
fn refused(kind: &NewKind, new: &NewLink, what: &str) -> impl FnOnce(io::Error) -> OpError {
    let taken = match kind {
        NewKind::Veth(peer) => format!("a link named {:?} or {:?} exists", new.name, peer.name),
        _ => format!("a link named {:?} exists", new.name),
    };
    let stands_on = if let NewKind::Macvtap { on, .. } = kind { Some(on.clone()) } else { None };
    let (kind, what) = (kind.name(), what.to_owned());
    move |source| match source.raw_os_error() {
        Some(nix::libc::EEXIST) => OpError::Guard(taken),
        Some(nix::libc::EOPNOTSUPP) => OpError::NoSuchKind { what, kind, source },
        Some(nix::libc::EBUSY | nix::libc::EINVAL) if let Some(on) = stands_on => OpError::Taken { what, on, source },
        _ => OpError::Netlink { what, source },
    }
}

/// Turns IPv6 off before the link is up, as os-vif does: it may carry the guest's own address, and the host
/// would answer for the guest's link-local address in duplicate address detection.
fn no_ipv6(name: &str) -> Result<(), OpError> {
    write_setting("ipv6", name, "disable_ipv6", "1")
}

/// Writes a setting below `/proc/sys/net`, where there is one: a kernel without IPv6 has none, nor has a link whose MTU is
/// below 1280, at which the kernel keeps IPv6 off by itself.
pub(super) fn write_setting(family: &str, name: &str, setting: &'static str, value: &str) -> Result<(), OpError> {
    match fs::write(format!("/proc/sys/net/{family}/conf/{name}/{setting}"), value) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result.map_err(|source| OpError::Setting { name: name.to_owned(), setting, source }),
    }
}

/// The kernel's rules for names (`dev_valid_name`), and `%`, which `TUNSETIFF` would take as a template.
pub(super) fn check_name(name: &str) -> Result<(), OpError> {
    let fits = (1..IFNAMSIZ).contains(&name.len()) && name != "." && name != "..";
    if fits && name.bytes().all(|byte| byte.is_ascii_graphic() && !b"/:%".contains(&byte)) {
        Ok(())
    } else {
        Err(OpError::Name(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use rtnetlink::packet_core::Emitable;

    use super::*;

    #[test]
    fn a_vlan_is_asked_for_as_the_kernel_reads_it() {
        let new = NewLink {
            name: "eth0.7".into(),
            mac: None,
            mtu: Some(1500),
            up: true,
            promiscuous: false,
            master: None,
            alias: "mark".into(),
        };
        let infos = vec![LinkInfo::Kind(InfoKind::Vlan), LinkInfo::Data(InfoData::Vlan(vec![InfoVlan::Id(7)]))];
        let message = creation(&new, infos, Some(2), 0x0102_0304);
        let mut bytes = vec![0; message.buffer_len()];
        message.emit(&mut bytes);
        let attribute = |kind: u16, value: &[u8]| {
            let length = u16::try_from(4 + value.len()).unwrap();
            let mut bytes = [&length.to_ne_bytes(), &kind.to_ne_bytes(), value].concat();
            bytes.resize(bytes.len().next_multiple_of(4), 0);
            bytes
        };
        let expected = [
            vec![0; 16],                                   // struct ifinfomsg: any family, no index, no flags
            attribute(3, b"eth0.7\0"),                     // IFLA_IFNAME
            attribute(27, &0x0102_0304_u32.to_ne_bytes()), // IFLA_GROUP
            attribute(5, &2_u32.to_ne_bytes()),            // IFLA_LINK
            attribute(
                18, // IFLA_LINKINFO
                &[
                    attribute(1, b"vlan\0"),                           // IFLA_INFO_KIND
                    attribute(2, &attribute(1, &7_u16.to_ne_bytes())), // IFLA_INFO_DATA: IFLA_VLAN_ID
                ]
                .concat(),
            ),
        ]
        .concat();
        // NLA_F_NESTED may be set or not: the kernel takes both.
        let plain: Vec<u8> =
            bytes.iter().enumerate().map(|(at, byte)| if at % 4 == 3 { byte & 0x7f } else { *byte }).collect();
        assert_eq!(plain, expected, "{bytes:?}");
    }

    #[test]
    fn names_that_the_kernel_would_refuse_or_expand_are_refused() {
        for right in ["tap0", "a", "fifteen-letters", "eth0.100", "tap@x"] {
            assert!(check_name(right).is_ok(), "{right}");
        }
        for wrong in ["", ".", "..", "sixteen-letters-", "a/b", "a:b", "tap%d", "a b", "a\n", "\u{e9}t\u{e9}"] {
            assert!(check_name(wrong).is_err(), "{wrong}");
        }
    }
}
