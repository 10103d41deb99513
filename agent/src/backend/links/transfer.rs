//! Addresses, routes and neighbours as rtnetlink lists them, rewritten for another device. They are taken octet by octet,
//! with nothing changed but what names the device, so that what this program does not know is kept. Pure: no sockets.
//! In which order they go is `uplink.rs`'s business.

use std::collections::BTreeMap;

/// Families (`linux/socket.h`), as an octet.
pub(super) const AF_INET: u8 = 2;
pub(super) const AF_INET6: u8 = 10;

/// `struct ifaddrmsg`, `struct rtmsg`, `struct ndmsg`, `struct rtnexthop`, `struct nlattr`: octets each.
const IFADDRMSG: usize = 8;
const RTMSG: usize = 12;
const NDMSG: usize = 12;
const RTNEXTHOP: usize = 8;
const ATTRIBUTE: usize = 4;

/// Attributes of addresses and their flags (`linux/if_addr.h`).
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_LABEL: u16 = 3;
const IFA_BROADCAST: u16 = 4;
const IFA_CACHEINFO: u16 = 6;
const IFA_FLAGS: u16 = 8;
const IFA_RT_PRIORITY: u16 = 9;
const IFA_PROTO: u16 = 11;
const IFA_F_NODAD: u32 = 0x02;
const IFA_F_DADFAILED: u32 = 0x08;
const IFA_F_TENTATIVE: u32 = 0x40;
const IFA_F_PERMANENT: u32 = 0x80;
/// The flags that somebody asks for: `NODAD`, `HOMEADDRESS`, `NOPREFIXROUTE`, `MCAUTOJOIN`. The others are the kernel's
/// findings, or belong to autoconfiguration (`MANAGETEMPADDR`), which stays where it was.
const ASKED: u32 = IFA_F_NODAD | 0x10 | 0x200 | 0x400;

/// Attributes of routes and next hops (`linux/rtnetlink.h`).
const RTA_DST: u16 = 1;
const RTA_SRC: u16 = 2;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PRIORITY: u16 = 6;
const RTA_PREFSRC: u16 = 7;
const RTA_METRICS: u16 = 8;
const RTA_MULTIPATH: u16 = 9;
const RTA_FLOW: u16 = 11;
const RTA_CACHEINFO: u16 = 12;
const RTA_TABLE: u16 = 15;
const RTA_VIA: u16 = 18;
const RTA_PREF: u16 = 20;
const RTA_ENCAP_TYPE: u16 = 21;
const RTA_ENCAP: u16 = 22;
const RTA_EXPIRES: u16 = 23;
/// What a route is made of, beside its next hops. A next hop object (`RTA_NH_ID`) is not among it: the kernel lists what it
/// stands for, too, and that is what moves.
const ROUTE: [u16; 13] = [
    RTA_DST,
    RTA_SRC,
    RTA_OIF,
    RTA_GATEWAY,
    RTA_PRIORITY,
    RTA_PREFSRC,
    RTA_METRICS,
    RTA_FLOW,
    RTA_TABLE,
    RTA_VIA,
    RTA_PREF,
    RTA_ENCAP_TYPE,
    RTA_ENCAP,
];
const RTN_UNICAST: u8 = 1;
const RTPROT_KERNEL: u8 = 2;
/// The one flag of a next hop that somebody asks for; the others are the kernel's findings.
const RTNH_F_ONLINK: u8 = 4;
/// Ticks per second in which the kernel tells when a route expires (`USER_HZ`).
const USER_HZ: u32 = 100;

/// Attributes of neighbours and their states (`linux/neighbour.h`).
const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
const NUD_PROBE: u16 = 0x10;
const NUD_PERMANENT: u16 = 0x80;
/// `REACHABLE`, `STALE`, `DELAY`, `PROBE`: something is known to be there.
const NUD_KNOWN: u16 = 0x02 | 0x04 | 0x08 | NUD_PROBE;
const NTF_PROXY: u8 = 0x08;

/// Two devices.
#[derive(Clone, Copy, Debug)]
pub(super) struct Way<'a> {
    /// Index and name of the one that has them.
    pub(super) from: (u32, &'a str),
    /// Of the one that is to have them.
    pub(super) to: (u32, &'a str),
}

/// An address of global scope: what adds it to the other device, and what takes it from the first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) family: u8,
    /// `RTM_NEWADDR`, for the target. IPv6 does not look for duplicates of an address that it has.
    pub(super) add: Vec<u8>,
    /// The same without that exception, unless it had it before. IPv6 tells of a new address, and makes its local route, some
    /// time later on another thread; of one that is changed, at once.
    pub(super) settle: Option<Vec<u8>>,
    /// `RTM_DELADDR`, for the source.
    pub(super) remove: Vec<u8>,
    /// `RTM_DELADDR`, for the target.
    pub(super) undo: Vec<u8>,
    /// Whether it goes away at some time, unless somebody renews it.
    pub(super) expires: bool,
}

/// What adds a route over the other device, and what takes the one over the first away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Route {
    pub(super) family: u8,
    /// `RTM_NEWROUTE`.
    pub(super) add: Vec<u8>,
    /// `RTM_DELROUTE`.
    pub(super) remove: Vec<u8>,
}

/// Reads an `RTM_NEWADDR` from behind its header; `None` if it does not move.
pub(super) fn address(message: &[u8], way: &Way<'_>) -> Option<Address> {
    let (&header, rest) = message.split_first_chunk::<IFADDRMSG>()?;
    let [family, prefix, flags, scope, index @ ..] = header;
    if u32::from_ne_bytes(index) != way.from.0 || scope != 0 || !matches!(family, AF_INET | AF_INET6) {
        return None;
    }
    let attributes = attributes(rest)?;
    let flags = attributes.get(&IFA_FLAGS).and_then(|flags| number(flags)).unwrap_or_else(|| flags.into());
    let looked_for = flags & (IFA_F_TENTATIVE | IFA_F_DADFAILED) == 0;
    let asked = flags & ASKED;
    let message = |flags: u32| {
        let mut bytes = vec![family, prefix, 0, scope];
        bytes.extend(way.to.0.to_ne_bytes());
        for kind in [IFA_LOCAL, IFA_ADDRESS, IFA_BROADCAST, IFA_CACHEINFO, IFA_RT_PRIORITY, IFA_PROTO] {
            if let Some(value) = attributes.get(&kind) {
                put(&mut bytes, kind, value);
            }
        }
        if let Some(label) = attributes.get(&IFA_LABEL).and_then(|label| relabel(label, way)) {
            put(&mut bytes, IFA_LABEL, &label);
        }
        put(&mut bytes, IFA_FLAGS, &flags.to_ne_bytes());
        bytes
    };
    let hurry = family == AF_INET6 && looked_for;
    let mut remove = header.to_vec();
    remove[2] = 0;
    for kind in [IFA_LOCAL, IFA_ADDRESS] {
        if let Some(value) = attributes.get(&kind) {
            put(&mut remove, kind, value);
        }
    }
    let mut undo = remove.clone();
    undo[4..8].copy_from_slice(&way.to.0.to_ne_bytes());
    Some(Address {
        family,
        add: message(if hurry { asked | IFA_F_NODAD } else { asked }),
        settle: hurry.then(|| message(asked)),
        remove,
        undo,
        expires: flags & IFA_F_PERMANENT == 0,
    })
}

/// Reads an `RTM_NEWROUTE` from behind its header; `None` if it does not move: it is over other devices, or comes and goes
/// with an address.
pub(super) fn route(message: &[u8], way: &Way<'_>) -> Option<Route> {
    let (&header, rest) = message.split_first_chunk::<RTMSG>()?;
    let [family, destination_length, _, _, _, protocol, _, kind, ..] = header;
    if kind != RTN_UNICAST || !matches!(family, AF_INET | AF_INET6) {
        return None;
    }
    let attributes = attributes(rest)?;
    let link_local = |to: &&[u8]| {
        family == AF_INET6 && destination_length >= 10 && matches!(to, [0xfe, second, ..] if second & 0xc0 == 0x80)
    };
    // Each device has its own, and the address that it belongs to stays.
    if protocol == RTPROT_KERNEL && attributes.get(&RTA_DST).is_some_and(link_local) {
        return None;
    }
    let over = |index: &[u8]| number(index) == Some(way.from.0);
    let single = attributes.get(&RTA_OIF).is_some_and(|index| over(index));
    let several = attributes.get(&RTA_MULTIPATH).copied();
    if !single
        && !several.is_some_and(|hops| next_hops(hops).is_some_and(|hops| hops.iter().any(|hop| over(&hop[4..8]))))
    {
        return None;
    }
    let message = |to: u32, adds: bool| -> Option<Vec<u8>> {
        let mut bytes = header.to_vec();
        // `rtm_flags`.
        bytes[8..].copy_from_slice(&(u32_of(&header[8..])? & u32::from(RTNH_F_ONLINK)).to_ne_bytes());
        for kind in ROUTE {
            match attributes.get(&kind) {
                Some(_) if kind == RTA_OIF => put(&mut bytes, kind, &to.to_ne_bytes()),
                Some(value) => put(&mut bytes, kind, value),
                None => {}
            }
        }
        if let Some(hops) = several {
            put(&mut bytes, RTA_MULTIPATH, &rewritten(hops, family, way.from.0, to)?);
        }
        if let Some(seconds) =
            attributes.get(&RTA_CACHEINFO).and_then(|info| expiry(info)).filter(|_| adds && family == AF_INET6)
        {
            put(&mut bytes, RTA_EXPIRES, &seconds.to_ne_bytes());
        }
        Some(bytes)
    };
    Some(Route { family, add: message(way.to.0, true)?, remove: message(way.from.0, false)? })
}

/// Reads an `RTM_NEWNEIGH` from behind its header: the `RTM_NEWNEIGH` that makes the target know what the source knows, and
/// ask the neighbour whether it is so, which tells the neighbour as well.
pub(super) fn neighbour(message: &[u8], way: &Way<'_>) -> Option<Vec<u8>> {
    let (&header, rest) = message.split_first_chunk::<NDMSG>()?;
    let state = u16::from_ne_bytes([header[8], header[9]]);
    let state = match state {
        NUD_PERMANENT => NUD_PERMANENT,
        known if known & NUD_KNOWN != 0 => NUD_PROBE,
        _ => return None,
    };
    let attributes = attributes(rest)?;
    let (to, at) = (attributes.get(&NDA_DST)?, attributes.get(&NDA_LLADDR)?);
    // IPv6 enters multicast groups itself.
    let of_a_host = matches!((header[0], to.first()?), (AF_INET, 0..=223) | (AF_INET6, 0..=254));
    if u32_of(&header[4..8])? != way.from.0 || header[10] & NTF_PROXY != 0 || !of_a_host {
        return None;
    }
    let mut bytes = vec![header[0], 0, 0, 0];
    bytes.extend(way.to.0.to_ne_bytes());
    bytes.extend(state.to_ne_bytes());
    bytes.extend([0, 0]);
    put(&mut bytes, NDA_DST, to);
    put(&mut bytes, NDA_LLADDR, at);
    Some(bytes)
}

/// The name that an old tool shows for an address: that of the device, and a colon and more. `None` for the device's own.
fn relabel(label: &[u8], way: &Way<'_>) -> Option<Vec<u8>> {
    let label = label.strip_suffix(b"\0").unwrap_or(label);
    let own = match label.strip_prefix(way.from.1.as_bytes()) {
        Some(b"") => return None,
        Some(behind) if behind.starts_with(b":") => [way.to.1.as_bytes(), behind].concat(),
        _ => label.to_vec(),
    };
    // One that would be too long stays as it is.
    let own = if own.len() < crate::model::IFNAMSIZ { own } else { label.to_vec() };
    (own != way.to.1.as_bytes()).then(|| [own.as_slice(), b"\0"].concat())
}

/// Next hops (`struct rtnexthop` with attributes, one after another), each from its header to its end.
fn next_hops(mut rest: &[u8]) -> Option<Vec<&[u8]>> {
    let mut hops = Vec::new();
    while !rest.is_empty() {
        let length = usize::from(u16::from_ne_bytes(*rest.first_chunk()?));
        if length < RTNEXTHOP {
            return None;
        }
        hops.push(rest.get(..length)?);
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Some(hops)
}

/// The next hops with `from` replaced by `to`. IPv6 keeps a route for each and takes only those that are meant; to IPv4 all
/// of them are one route.
fn rewritten(hops: &[u8], family: u8, from: u32, to: u32) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    for hop in next_hops(hops)? {
        let is_meant = u32_of(&hop[4..8])? == from;
        if family == AF_INET6 && !is_meant {
            continue;
        }
        let at = bytes.len();
        bytes.extend_from_slice(hop);
        bytes[at + 2] &= RTNH_F_ONLINK;
        if is_meant {
            bytes[at + 4..at + 8].copy_from_slice(&to.to_ne_bytes());
        }
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }
    Some(bytes)
}

/// `rta_expires` of `struct rta_cacheinfo`, in whole seconds, where it is not 0.
fn expiry(info: &[u8]) -> Option<u32> {
    Some(u32_of(info.get(8..12)?)?.div_ceil(USER_HZ)).filter(|seconds| *seconds != 0)
}

/// Attributes by type, flags beside the type left out; `None` when they are malformed.
fn attributes(mut rest: &[u8]) -> Option<BTreeMap<u16, &[u8]>> {
    let mut attributes = BTreeMap::new();
    while rest.len() >= ATTRIBUTE {
        let length = usize::from(u16::from_ne_bytes(*rest.first_chunk()?));
        let kind = u16::from_ne_bytes(*rest[2..].first_chunk()?);
        attributes.insert(kind & 0x3fff, rest.get(ATTRIBUTE..length)?);
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Some(attributes)
}

fn put(bytes: &mut Vec<u8>, kind: u16, value: &[u8]) {
    // An attribute came with a length of 16 bits, and none is made longer.
    let length = u16::try_from(ATTRIBUTE + value.len()).unwrap_or(u16::MAX);
    bytes.extend(length.to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend_from_slice(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

fn number(value: &[u8]) -> Option<u32> {
    value.try_into().ok().map(u32::from_ne_bytes)
}

fn u32_of(value: &[u8]) -> Option<u32> {
    value.first_chunk().copied().map(u32::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WAY: Way<'_> = Way { from: (3, "eth0"), to: (6, "brq0123456789a") };

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        put(&mut bytes, kind, value);
        bytes
    }

    /// `struct ifaddrmsg` of a /24 or /64 on device 3.
    fn of_address(family: u8, scope: u8, more: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = vec![family, if family == AF_INET { 24 } else { 64 }, 0x80, scope];
        bytes.extend(3_u32.to_ne_bytes());
        [bytes, more.concat()].concat()
    }

    #[test]
    fn an_address_keeps_what_was_asked_for_and_not_what_was_found() {
        let listed = of_address(
            AF_INET,
            0,
            &[
                attribute(IFA_ADDRESS, &[10, 0, 0, 1]),
                attribute(IFA_LOCAL, &[10, 0, 0, 2]),
                attribute(IFA_LABEL, b"eth0:1\0"),
                attribute(IFA_FLAGS, &0x0281_u32.to_ne_bytes()), // NOPREFIXROUTE, PERMANENT, SECONDARY
                attribute(IFA_RT_PRIORITY, &100_u32.to_ne_bytes()),
                attribute(99, b"of a later kernel"),
            ],
        );
        let address = address(&listed, &WAY).unwrap();
        let head = |index: u32| [vec![AF_INET, 24, 0, 0], index.to_ne_bytes().to_vec()].concat();
        let own = [attribute(IFA_LOCAL, &[10, 0, 0, 2]), attribute(IFA_ADDRESS, &[10, 0, 0, 1])].concat();
        let add = [
            head(6),
            own.clone(),
            attribute(IFA_RT_PRIORITY, &100_u32.to_ne_bytes()),
            attribute(IFA_LABEL, b"eth0:1\0"), // with the bridge's name it would be too long
            attribute(IFA_FLAGS, &0x0200_u32.to_ne_bytes()),
        ];
        assert_eq!(address.add, add.concat());
        assert_eq!(address.remove, [head(3), own].concat());
        assert_eq!((address.settle, address.expires), (None, false));
    }

    #[test]
    fn ipv6_looks_for_no_duplicate_of_its_own_address() {
        let flags = |message: &[u8]| number(attributes(&message[IFADDRMSG..]).unwrap()[&IFA_FLAGS]).unwrap();
        let listed = |flags: u32| of_address(AF_INET6, 0, &[attribute(IFA_FLAGS, &flags.to_ne_bytes())]);
        let known = address(&listed(IFA_F_PERMANENT), &WAY).unwrap();
        assert_eq!((flags(&known.add), known.settle.as_deref().map(flags)), (IFA_F_NODAD, Some(0)));
        // One that was not looked for yet is.
        let tentative = address(&listed(IFA_F_PERMANENT | IFA_F_TENTATIVE), &WAY).unwrap();
        assert_eq!((flags(&tentative.add), tentative.settle), (0, None));
        assert!(address(&listed(0), &WAY).unwrap().expires);
    }

    #[test]
    fn other_scopes_and_devices_stay() {
        assert_eq!(address(&of_address(AF_INET6, 253, &[]), &WAY), None); // RT_SCOPE_LINK
        let other = Way { from: (4, "eth1"), ..WAY };
        assert_eq!(address(&of_address(AF_INET, 0, &[]), &other), None);
        for end in 0..IFADDRMSG {
            assert_eq!(address(&of_address(AF_INET, 0, &[])[..end], &WAY), None);
        }
    }

    #[test]
    fn labels_follow_the_device_where_they_fit() {
        let way = Way { from: (3, "eth0"), to: (6, "br0") };
        let back = Way { from: way.to, to: way.from };
        assert_eq!(relabel(b"eth0\0", &way), None);
        assert_eq!(relabel(b"eth0:1\0", &way).unwrap(), b"br0:1\0");
        assert_eq!(relabel(b"br0:1\0", &back).unwrap(), b"eth0:1\0");
        assert_eq!(relabel(b"other\0", &way).unwrap(), b"other\0");
        // It kept its name on the way there.
        assert_eq!(relabel(b"eth0:1\0", &Way { from: WAY.to, to: WAY.from }).unwrap(), b"eth0:1\0");
    }

    /// `struct rtmsg` of a unicast route, with a flag of the kernel's (`RTNH_F_LINKDOWN`) and one of ours (`RTNH_F_ONLINK`).
    fn of_route(family: u8, more: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = vec![family, 0, 0, 0, 254, 4, 0, RTN_UNICAST];
        bytes.extend(0x14_u32.to_ne_bytes());
        [bytes, more.concat()].concat()
    }

    fn hop(index: u32, flags: u8) -> Vec<u8> {
        let mut bytes = vec![0, 0, flags, 2];
        bytes.extend(index.to_ne_bytes());
        bytes.extend(attribute(RTA_GATEWAY, &[10, 0, 0, 1]));
        let length = u16::try_from(bytes.len()).unwrap();
        bytes[..2].copy_from_slice(&length.to_ne_bytes());
        bytes
    }

    #[test]
    fn of_several_next_hops_those_over_the_device_move() {
        let hops = [hop(3, 0x14), hop(9, 0)].concat();
        for (family, with) in [(AF_INET, [hop(6, 4), hop(9, 0)].concat()), (AF_INET6, hop(6, 4))] {
            let route = route(&of_route(family, &[attribute(RTA_MULTIPATH, &hops)]), &WAY).unwrap();
            let moved = attributes(&route.add[RTMSG..]).unwrap();
            assert_eq!(moved[&RTA_MULTIPATH], with, "{family}");
            assert_eq!(route.add[8..12], 4_u32.to_ne_bytes());
            let without = if family == AF_INET { [hop(3, 4), hop(9, 0)].concat() } else { hop(3, 4) };
            assert_eq!(attributes(&route.remove[RTMSG..]).unwrap()[&RTA_MULTIPATH], without, "{family}");
        }
        assert_eq!(route(&of_route(AF_INET, &[attribute(RTA_MULTIPATH, &hop(9, 0))]), &WAY), None);
        let half = &hop(3, 0)[..7];
        assert_eq!(route(&of_route(AF_INET, &[attribute(RTA_MULTIPATH, half)]), &WAY), None);
    }

    #[test]
    fn a_route_of_ipv6_expires_when_it_would_have() {
        let over = attribute(RTA_OIF, &3_u32.to_ne_bytes());
        let mut info = [0; 32];
        info[8..12].copy_from_slice(&12_345_u32.to_ne_bytes());
        let listed = of_route(AF_INET6, &[over.clone(), attribute(RTA_CACHEINFO, &info)]);
        let moved = route(&listed, &WAY).unwrap();
        let attributes_of = |message: &[u8], kind: u16| {
            attributes(&message[RTMSG..]).unwrap().get(&kind).map(|value| number(value).unwrap())
        };
        assert_eq!(attributes_of(&moved.add, RTA_EXPIRES), Some(124));
        assert_eq!((attributes_of(&moved.add, RTA_OIF), attributes_of(&moved.remove, RTA_OIF)), (Some(6), Some(3)));
        assert_eq!(attributes_of(&moved.remove, RTA_EXPIRES), None);
    }

    #[test]
    fn neighbours_are_asked_and_dead_ones_left() {
        let of = |state: u16, flags: u8, to: &[u8]| {
            let mut bytes = vec![AF_INET, 0, 0, 0];
            bytes.extend(3_u32.to_ne_bytes());
            bytes.extend(state.to_ne_bytes());
            bytes.extend([flags, 1]);
            [bytes, attribute(NDA_DST, to), attribute(NDA_LLADDR, &[2, 0, 0, 0, 0, 1])].concat()
        };
        let state = |listed: &[u8]| neighbour(listed, &WAY).map(|message| u16::from_ne_bytes([message[8], message[9]]));
        assert_eq!(state(&of(0x04, 0, &[10, 0, 0, 1])), Some(NUD_PROBE)); // NUD_STALE
        assert_eq!(state(&of(NUD_PERMANENT, 0, &[10, 0, 0, 1])), Some(NUD_PERMANENT));
        assert_eq!(state(&of(0x20, 0, &[10, 0, 0, 1])), None); // NUD_FAILED
        assert_eq!(state(&of(0x04, NTF_PROXY, &[10, 0, 0, 1])), None);
        assert_eq!(state(&of(0x04, 0, &[224, 0, 0, 1])), None);
    }
}
