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

/// Makes `new`, which is of this kind; `nursery` is the group that it is in meanwhile.
pub(super) fn make(requests: &mut Requests, new: &NewLink, kind: &NewKind, nursery: u32) -> Result<(), OpError> {
    check_name(&new.name)?;
    let what = format!("make {} {:?}", kind.name(), new.name);
    match kind {
        NewKind::Tap { multi_queue } => {
            let tap = Tap::create(&new.name, *multi_queue)?;
            let index = made(requests, &new.name)?.index;
            requests.set(dress(index, new, None)).map_err(netlink(&what))?;
            no_ipv6(&new.name)?;
            // From here on the tap stays, whatever becomes of us; until here it goes with `tap`.
            tap.persist()?;
            // Closed before it is up: the kernel takes longer to take its reader from a link that is up.
            drop(tap);
            finish(requests, index, new)
        }
        NewKind::Veth(peer) => {
            check_name(&peer.name)?;
            let mut end = bare(peer, nursery);
            end.attributes.extend(peer.mtu.map(LinkAttribute::Mtu));
            let mut message = bare(new, nursery);
            message.attributes.push(LinkAttribute::LinkInfo(vec![
                LinkInfo::Kind(InfoKind::Veth),
                LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(end))),
            ]));
            requests.create(message).map_err(exists_or(&new.name, &what))?;
            let ends = [(new, made(requests, &new.name)?), (&**peer, made(requests, &peer.name)?)];
            // The first mark of the two is the second step from which nobody has to guess: an end that is still in the
            // nursery takes the other with it.
            for (new, link) in &ends {
                requests.set(dress(link.index, new, Some(0))).map_err(netlink(&what))?;
            }
            ends.iter().try_for_each(|(new, link)| finish(requests, link.index, new))
        }
        NewKind::Bridge(config) => {
            let infos = vec![LinkInfo::Kind(InfoKind::Bridge), LinkInfo::Data(bridge_data(config))];
            let index = create(requests, new, infos, None, nursery, &what)?;
            no_ipv6(&new.name)?;
            // As os-vif has it: it answers ARP for addresses of its own alone, and from the best of them.
            write_setting("ipv4", &new.name, "arp_ignore", "1")?;
            write_setting("ipv4", &new.name, "arp_announce", "2")?;
            requests.set(dress(index, new, Some(0))).map_err(netlink(&what))?;
            finish(requests, index, new)
        }
        NewKind::Vlan { on, id } => {
            let lower = below(requests, on, &what)?;
            let infos = vec![LinkInfo::Kind(InfoKind::Vlan), LinkInfo::Data(InfoData::Vlan(vec![InfoVlan::Id(*id)]))];
            let index = create(requests, new, infos, Some(lower), nursery, &what)?;
            requests.set(dress(index, new, Some(0))).map_err(netlink(&what))?;
            finish(requests, index, new)
        }
        NewKind::Macvtap { on, mode } => {
            let lower = below(requests, on, &what)?;
            let mode = match mode {
                DirectMode::Vepa => MacVtapMode::Vepa,
                DirectMode::Bridge => MacVtapMode::Bridge,
                DirectMode::Passthrough => MacVtapMode::Passthrough,
            };
            let infos = vec![
                LinkInfo::Kind(InfoKind::MacVtap),
                LinkInfo::Data(InfoData::MacVtap(vec![InfoMacVtap::Mode(mode)])),
            ];
            let index = create(requests, new, infos, Some(lower), nursery, &what)?;
            no_ipv6(&new.name)?;
            requests.set(dress(index, new, Some(0))).map_err(netlink(&what))?;
            finish(requests, index, new)
        }
    }
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

fn create(
    requests: &mut Requests,
    new: &NewLink,
    infos: Vec<LinkInfo>,
    lower: Option<u32>,
    nursery: u32,
    what: &str,
) -> Result<u32, OpError> {
    let mut message = bare(new, nursery);
    message.attributes.extend(lower.map(LinkAttribute::Link));
    message.attributes.push(LinkAttribute::LinkInfo(infos));
    requests.create(message).map_err(exists_or(&new.name, what))?;
    Ok(made(requests, &new.name)?.index)
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

/// The link that was made just now.
fn made(requests: &mut Requests, name: &str) -> Result<Link, OpError> {
    // If someone (udev) renamed it meanwhile, give up: a tap goes, and what is in the nursery is seen there.
    let link = requests.get(&Which::Name(name.to_owned())).map_err(netlink(&format!("find link {name:?}")))?;
    link.ok_or_else(|| OpError::Guard(format!("link {name:?} was taken away as it was made")))
}

/// Index of the link that another is to stand on.
fn below(requests: &mut Requests, on: &str, what: &str) -> Result<u32, OpError> {
    let link = requests.get(&Which::Name(on.to_owned())).map_err(netlink(what))?;
    link.map(|link| link.index).ok_or_else(|| OpError::Guard(format!("cannot {what}: there is no {on:?}")))
}

fn exists_or(name: &str, what: &str) -> impl FnOnce(io::Error) -> OpError {
    let (name, what) = (name.to_owned(), what.to_owned());
    move |source| {
        if source.kind() == io::ErrorKind::AlreadyExists {
            OpError::Guard(format!("a link named {name:?} exists"))
        } else {
            OpError::Netlink { what, source }
        }
    }
}

/// Turns IPv6 off before the link is up, as os-vif does: it may carry the guest's own address, and the host
/// would answer for the guest's link-local address in duplicate address detection.
fn no_ipv6(name: &str) -> Result<(), OpError> {
    write_setting("ipv6", name, "disable_ipv6", "1")
}

/// Writes a setting below `/proc/sys/net`, where there is one: a kernel without IPv6 has none, nor has a link whose MTU is
/// below 1280, at which the kernel keeps IPv6 off by itself.
fn write_setting(family: &str, name: &str, setting: &'static str, value: &str) -> Result<(), OpError> {
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
    use super::*;

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
