//! The links of hybrid VIFs by the shortest way: of each a Linux bridge in one message, a veth pair in one more with its
//! place, MTU and flags, three marks and three files. Indices are chosen beforehand, so that nobody asks for one. What
//! they have in the end is what vifd's have. Run it on a thread of the namespace that is meant.

use std::fs;

use anyhow::{Context, Result};
use nix::libc::{
    IFF_PROMISC, IFF_UP, IFLA_IFALIAS, IFLA_IFNAME, IFLA_INFO_DATA, IFLA_INFO_KIND, IFLA_LINKINFO, IFLA_MASTER,
    IFLA_MTU, RTM_NEWLINK,
};

use super::tap::{Kernel, Message, with_nul};

/// Above every index that the kernel would give by itself in a namespace of its own.
const FIRST_INDEX: u32 = 1 << 20;
const MTU: u32 = 1450;

// linux/if_link.h and linux/veth.h.
const IFLA_BR_FORWARD_DELAY: u16 = 1;
const IFLA_BR_AGEING_TIME: u16 = 4;
const IFLA_BR_STP_STATE: u16 = 5;
const IFLA_BR_MCAST_SNOOPING: u16 = 23;
const VETH_INFO_PEER: u16 = 1;

/// The links of one hybrid VIF.
#[derive(Clone, Debug)]
pub struct Pair {
    /// Its bridge, the end in it, and the end that is the port.
    pub names: [String; 3],
    /// `ifalias` of each.
    pub alias: String,
    /// Which VIF it is, for the indices.
    pub number: u32,
}

impl Pair {
    /// Makes them.
    ///
    /// # Errors
    /// When the kernel refuses any of it.
    pub fn make(&self, kernel: &Kernel) -> Result<()> {
        let first = FIRST_INDEX + 3 * self.number;
        let [bridge, inner, outer] = &self.names;
        let mut data = attribute(IFLA_BR_FORWARD_DELAY, &0_u32.to_ne_bytes());
        data.extend(attribute(IFLA_BR_AGEING_TIME, &0_u32.to_ne_bytes()));
        data.extend(attribute(IFLA_BR_STP_STATE, &0_u32.to_ne_bytes()));
        data.extend(attribute(IFLA_BR_MCAST_SNOOPING, &[0]));
        let mut message = Message::new(RTM_NEWLINK, IFF_UP).about(first).creating();
        message.attribute(IFLA_IFNAME, &with_nul(bridge));
        message.attribute(IFLA_LINKINFO, &info("bridge", &data));
        kernel.ask(message).with_context(|| format!("making bridge {bridge}"))?;
        for (setting, value) in [("ipv6", "disable_ipv6=1"), ("ipv4", "arp_ignore=1"), ("ipv4", "arp_announce=2")] {
            let (name, value) = value.split_once('=').unwrap_or_default();
            fs::write(format!("/proc/sys/net/{setting}/conf/{bridge}/{name}"), value)?;
        }

        let flags = IFF_UP | IFF_PROMISC;
        // `struct ifinfomsg` of the other end, and its attributes. It cannot be up before it has its peer.
        let mut peer = vec![0; 16];
        peer[4..8].copy_from_slice(&(first + 2).to_ne_bytes());
        peer.extend(attribute(IFLA_IFNAME, &with_nul(outer)));
        peer.extend(attribute(IFLA_MTU, &MTU.to_ne_bytes()));
        let mut message = Message::new(RTM_NEWLINK, flags).about(first + 1).creating();
        message.attribute(IFLA_IFNAME, &with_nul(inner));
        message.attribute(IFLA_MTU, &MTU.to_ne_bytes());
        message.attribute(IFLA_MASTER, &first.to_ne_bytes());
        message.attribute(IFLA_LINKINFO, &info("veth", &attribute(VETH_INFO_PEER, &peer)));
        kernel.ask(message).with_context(|| format!("making the pair {inner} and {outer}"))?;
        // A mark is not taken with the making.
        for (index, flags) in [(first, 0), (first + 1, 0), (first + 2, flags)] {
            let mut message = Message::new(RTM_NEWLINK, flags).about(index);
            message.attribute(IFLA_IFALIAS, self.alias.as_bytes());
            kernel.ask(message).with_context(|| format!("marking link {index}"))?;
        }
        Ok(())
    }
}

fn info(kind: &str, data: &[u8]) -> Vec<u8> {
    [attribute(IFLA_INFO_KIND, kind.as_bytes()), attribute(IFLA_INFO_DATA, data)].concat()
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
    let mut octets = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
    octets.extend_from_slice(value);
    octets.resize(octets.len().next_multiple_of(4), 0);
    octets
}
