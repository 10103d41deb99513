//! What rtnetlink messages say, as `model::Link`, and the table that they are merged into. Pure: no sockets.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use ipnet::IpNet;
use rtnetlink::packet_core::Nla;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::{
    AddressAttribute, AddressHeader, AddressHeaderFlags, AddressMessage, AddressScope,
};
use rtnetlink::packet_route::link::{
    BridgeStpState, InfoBridge, InfoData, InfoKind, InfoMacVtap, InfoTun, InfoVlan, LinkAttribute, LinkFlags, LinkInfo,
    LinkLayerType, LinkMessage, MacVtapMode,
};

use crate::model::{BridgeConfig, DeviceOwner, DirectMode, Link, LinkKind, MacAddr, Table};

/// Attributes in `IFLA_INFO_DATA` of a tun link (`linux/if_link.h`), one octet each. In the kernel since 4.17;
/// netlink-packet-route hands them on undecoded.
const IFLA_TUN_TYPE: u16 = 3;
const IFLA_TUN_PERSIST: u16 = 6;
const IFLA_TUN_MULTI_QUEUE: u16 = 7;
/// `IFF_TAP` (`linux/if_tun.h`) as `IFLA_TUN_TYPE` gives it.
const TYPE_TAP: u8 = 2;

/// Whether a message is about a link as such. Bridges and IPv6 speak of their ports and settings in the same
/// message types: a link that leaves a bridge is reported by `RTM_DELLINK` with family `AF_BRIDGE`, and lives on.
#[must_use]
pub fn speaks_of_a_link(message: &LinkMessage) -> bool {
    message.header.interface_family == AddressFamily::Unspec
}

/// The link that an `RTM_NEWLINK` describes; `None` when it does not name one (wireless events do not).
#[must_use]
pub fn read(message: &LinkMessage) -> Option<Link> {
    let header = &message.header;
    let mut link = Link {
        mtu: 0,
        up: header.flags.contains(LinkFlags::Up),
        promiscuous: header.flags.contains(LinkFlags::Promisc),
        ..Link::new(header.index, "", LinkKind::Other(String::new()))
    };
    let mut elsewhere = false;
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(text) => link.name.clone_from(text),
            LinkAttribute::Address(octets) if header.link_layer_type == LinkLayerType::Ether => {
                link.mac = <[u8; 6]>::try_from(octets.as_slice()).ok().map(MacAddr);
            }
            LinkAttribute::Mtu(octets) => link.mtu = *octets,
            LinkAttribute::IfAlias(text) if !text.is_empty() => link.alias = Some(text.clone()),
            LinkAttribute::Controller(index) if *index != 0 => link.master = Some(*index),
            LinkAttribute::Link(index) if *index != 0 => link.lower = Some(*index),
            LinkAttribute::LinkNetNsId(_) => elsewhere = true,
            LinkAttribute::Group(group) => link.group = *group,
            LinkAttribute::LinkInfo(infos) => link.kind = read_kind(infos),
            _ => {}
        }
    }
    if elsewhere {
        link.lower = None;
    }
    (!link.name.is_empty()).then_some(link)
}

/// The address that an `RTM_NEWADDR` or `RTM_DELADDR` is about, if it is of global scope and not one that IPv6 makes up for
/// a while (RFC 8981).
#[must_use]
pub fn read_address(message: &AddressMessage) -> Option<IpNet> {
    let AddressHeader { family, prefix_len, flags, scope, .. } = &message.header;
    // The kernel's bit for a secondary address is that of a temporary one where it is IPv6 (`linux/if_addr.h`).
    let temporary = *family == AddressFamily::Inet6 && flags.contains(AddressHeaderFlags::Secondary);
    if *scope != AddressScope::Universe || temporary {
        return None;
    }
    let (mut own, mut other) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(address) => own = Some(*address),
            // Of the far end, where there is one; otherwise our own, and of IPv6 the only one told.
            AddressAttribute::Address(address) => other = Some(*address),
            _ => {}
        }
    }
    IpNet::new(own.or(other)?, *prefix_len).ok()
}

fn read_kind(infos: &[LinkInfo]) -> LinkKind {
    let mut kind = None;
    let mut data = None;
    for info in infos {
        match info {
            LinkInfo::Kind(is) => kind = Some(is),
            LinkInfo::Data(is) => data = Some(is),
            _ => {}
        }
    }
    let other = || LinkKind::Other(kind.map(ToString::to_string).unwrap_or_default());
    match (kind, data) {
        (Some(InfoKind::Tun), Some(InfoData::Tun(data))) => read_tun(data).unwrap_or_else(other),
        (Some(InfoKind::Bridge), Some(InfoData::Bridge(data))) => LinkKind::Bridge(read_bridge(data)),
        (Some(InfoKind::Veth), _) => LinkKind::Veth,
        (Some(InfoKind::Vlan), Some(InfoData::Vlan(data))) => {
            let id = data.iter().find_map(|info| if let InfoVlan::Id(id) = info { Some(*id) } else { None });
            id.map_or_else(other, |id| LinkKind::Vlan { id })
        }
        (Some(InfoKind::MacVtap), Some(InfoData::MacVtap(data))) => {
            let mode = data.iter().find_map(|info| match info {
                InfoMacVtap::Mode(MacVtapMode::Vepa) => Some(DirectMode::Vepa),
                InfoMacVtap::Mode(MacVtapMode::Bridge) => Some(DirectMode::Bridge),
                InfoMacVtap::Mode(MacVtapMode::Passthrough) => Some(DirectMode::Passthrough),
                _ => None,
            });
            LinkKind::Macvtap { mode }
        }
        _ => other(),
    }
}

/// The settings of a bridge; what a kernel does not tell is as it is on a new one (`net/bridge/br_device.c`).
fn read_bridge(data: &[InfoBridge]) -> BridgeConfig {
    let mut config = BridgeConfig { ageing_time: 30_000, forward_delay: 1_500, stp: false, multicast_snooping: true };
    for info in data {
        match info {
            InfoBridge::AgeingTime(time) => config.ageing_time = *time,
            InfoBridge::ForwardDelay(delay) => config.forward_delay = *delay,
            InfoBridge::StpState(state) => config.stp = *state != BridgeStpState::Disabled,
            InfoBridge::MulticastSnooping(snooping) => config.multicast_snooping = *snooping,
            _ => {}
        }
    }
    config
}

/// What a tun link is, if it is a tap.
fn read_tun(tun: &[InfoTun]) -> Option<LinkKind> {
    let octet = |wanted: u16| {
        tun.iter().filter(move |nla| nla.kind() == wanted && nla.value_len() == 1).map(|nla| {
            let mut value = [0];
            nla.emit_value(&mut value);
            value[0]
        })
    };
    octet(IFLA_TUN_TYPE).eq([TYPE_TAP]).then(|| LinkKind::Tap {
        multi_queue: octet(IFLA_TUN_MULTI_QUEUE).any(|value| value != 0),
        persistent: octet(IFLA_TUN_PERSIST).any(|value| value != 0),
    })
}

/// Every link of the namespace, as the messages so far add up.
#[derive(Debug, Default)]
pub struct LinkTable {
    by_name: Table<String, Link>,
    names: HashMap<u32, String>,
    /// By index; the few links that have any.
    addresses: BTreeMap<u32, BTreeSet<IpNet>>,
    /// By index: the nodes of macvtaps' character devices, of which the kernel's messages say nothing.
    macvtaps: BTreeMap<u32, Option<DeviceOwner>>,
    /// Macvtaps whose nodes have to be looked at.
    suspects: BTreeSet<u32>,
}

impl LinkTable {
    /// Every link by name.
    #[must_use]
    pub fn by_name(&self) -> &Table<String, Link> {
        &self.by_name
    }

    /// Takes in what a link now is. Returns whether that is news.
    ///
    /// The latest word on a name wins: while a rename is half reported, the older holder of the name is
    /// forgotten until its own message comes.
    pub fn seen(&mut self, link: impl Into<Arc<Link>>) -> bool {
        let mut link = link.into();
        if let Some(addresses) = self.addresses.get(&link.index) {
            // Of which messages about links say nothing.
            Arc::make_mut(&mut link).addresses = addresses.iter().copied().collect();
        }
        if matches!(link.kind, LinkKind::Macvtap { .. }) {
            if let Some(device) = *self.macvtaps.entry(link.index).or_default() {
                Arc::make_mut(&mut link).device = Some(device);
            }
        } else {
            self.macvtaps.remove(&link.index);
        }
        if self.by_name.get(&link.name).is_some_and(|known| *known == link) {
            return false;
        }
        self.forget(link.index);
        self.suspect(link.index);
        self.names.insert(link.index, link.name.clone());
        if let Some(displaced) = self.by_name.insert(link.name.clone(), link) {
            self.names.remove(&displaced.index);
        }
        true
    }

    /// Gives back room, when all links have just been listed.
    pub(super) fn pack(&mut self) {
        self.by_name.pack();
        self.names.shrink_to_fit();
    }

    /// Forgets a link. Returns whether it was known.
    pub fn gone(&mut self, index: u32) -> bool {
        self.addresses.remove(&index);
        self.macvtaps.remove(&index);
        self.forget(index)
    }

    /// Whether there is a macvtap.
    pub(super) fn has_macvtaps(&self) -> bool {
        !self.macvtaps.is_empty()
    }

    /// The node of a link may be another now, if it is a macvtap.
    pub(super) fn suspect(&mut self, index: u32) {
        if self.macvtaps.contains_key(&index) {
            self.suspects.insert(index);
        }
    }

    /// The node of every macvtap may be another now.
    pub(super) fn suspect_all(&mut self) {
        self.suspects.extend(self.macvtaps.keys());
    }

    /// Index and name of the macvtaps whose nodes have to be looked at; whoever asks does it.
    pub(super) fn take_suspects(&mut self) -> Vec<(u32, String)> {
        let suspects = std::mem::take(&mut self.suspects);
        suspects.into_iter().filter_map(|index| Some((index, self.names.get(&index)?.clone()))).collect()
    }

    /// Takes in how the node of a macvtap is. Returns whether that is news.
    pub(super) fn device(&mut self, index: u32, device: Option<DeviceOwner>) -> bool {
        let Some(known) = self.macvtaps.get_mut(&index) else { return false };
        let news = *known != device;
        *known = device;
        if news && let Some(link) = self.names.get(&index).and_then(|name| self.by_name.get_mut(name)) {
            Arc::make_mut(link).device = device;
        }
        news
    }

    /// Takes in that a link, which need not be known yet, has an address, or has it no more. Returns whether that is news.
    pub fn address(&mut self, index: u32, address: IpNet, there: bool) -> bool {
        let known = self.addresses.entry(index).or_default();
        let news = if there { known.insert(address) } else { known.remove(&address) };
        if news && let Some(link) = self.names.get(&index).and_then(|name| self.by_name.get_mut(name)) {
            Arc::make_mut(link).addresses = known.iter().copied().collect();
        }
        if known.is_empty() {
            self.addresses.remove(&index);
        }
        news
    }

    fn forget(&mut self, index: u32) -> bool {
        self.names.remove(&index).is_some_and(|name| self.by_name.remove(&name).is_some())
    }
}

#[cfg(test)]
mod tests {
    use rtnetlink::packet_core::{NetlinkBuffer, NetlinkDeserializable};
    use rtnetlink::packet_route::RouteNetlinkMessage;

    use super::*;

    fn link(index: u32, name: &str) -> Link {
        Link::new(index, name, LinkKind::Other(String::new()))
    }

    fn names(table: &LinkTable) -> Vec<(&str, u32)> {
        assert_eq!(table.by_name.len(), table.names.len());
        for (index, name) in &table.names {
            assert_eq!(table.by_name[name].index, *index);
        }
        table.by_name.iter().map(|(name, link)| (name.as_str(), link.index)).collect()
    }

    /// One attribute (`struct nlattr`): length, type, value, padding to four octets.
    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(u16::try_from(4 + value.len()).unwrap().to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    /// `RTM_NEWLINK` of an Ethernet link, up, with index 7.
    fn message(family: u8, attributes: &[Vec<u8>]) -> LinkMessage {
        let mut bytes = vec![family, 0]; // ifi_family, padding
        bytes.extend(1u16.to_ne_bytes()); // ifi_type: ARPHRD_ETHER
        bytes.extend(7u32.to_ne_bytes()); // ifi_index
        bytes.extend(0x1003u32.to_ne_bytes()); // ifi_flags: UP, BROADCAST, MULTICAST
        bytes.extend(0u32.to_ne_bytes()); // ifi_change
        bytes.extend(attributes.concat());
        let mut framed = Vec::new();
        framed.extend(u32::try_from(16 + bytes.len()).unwrap().to_ne_bytes()); // nlmsg_len
        framed.extend(16u16.to_ne_bytes()); // nlmsg_type: RTM_NEWLINK
        framed.extend([0; 10]); // flags, sequence, port
        framed.extend(&bytes);
        let header =
            rtnetlink::packet_core::Parseable::parse(&NetlinkBuffer::new_checked(framed.as_slice()).unwrap()).unwrap();
        match RouteNetlinkMessage::deserialize(&header, &bytes).unwrap() {
            RouteNetlinkMessage::NewLink(message) => message,
            other => panic!("{other:?}"),
        }
    }

    fn tun_info(data: &[Vec<u8>]) -> Vec<u8> {
        // IFLA_LINKINFO { IFLA_INFO_KIND "tun", IFLA_INFO_DATA { … } }
        attribute(18, &[attribute(1, b"tun\0"), attribute(2, &data.concat())].concat())
    }

    #[test]
    fn a_tap_is_read_with_its_flags() {
        let message = message(
            0,
            &[
                attribute(3, b"tap1\0"),                              // IFLA_IFNAME
                attribute(1, &[0x52, 0x54, 0, 0, 0, 1]),              // IFLA_ADDRESS
                attribute(4, &1450u32.to_ne_bytes()),                 // IFLA_MTU
                attribute(10, &3u32.to_ne_bytes()),                   // IFLA_MASTER
                attribute(20, b"vifd/1 a b\0"),                       // IFLA_IFALIAS
                attribute(9999, b"an attribute of a later kernel\0"), // not known
                tun_info(&[attribute(3, &[2]), attribute(6, &[1]), attribute(7, &[1])]),
            ],
        );
        assert!(speaks_of_a_link(&message));
        assert_eq!(
            read(&message).unwrap(),
            Link {
                kind: LinkKind::Tap { multi_queue: true, persistent: true },
                mac: Some(MacAddr([0x52, 0x54, 0, 0, 0, 1])),
                mtu: 1450,
                up: true,
                alias: Some("vifd/1 a b".into()),
                master: Some(3),
                ..link(7, "tap1")
            }
        );
    }

    #[test]
    fn a_tun_without_ethernet_is_not_a_tap() {
        let layer3 = message(0, &[attribute(3, b"tun0\0"), tun_info(&[attribute(3, &[1]), attribute(6, &[1])])]);
        assert_eq!(read(&layer3).unwrap().kind, LinkKind::Other("tun".into()));
        let before_4_17 = message(0, &[attribute(3, b"tun0\0"), tun_info(&[])]);
        assert_eq!(read(&before_4_17).unwrap().kind, LinkKind::Other("tun".into()));
    }

    #[test]
    fn a_message_without_a_name_or_of_a_bridge_is_no_link() {
        assert_eq!(read(&message(0, &[attribute(4, &1500u32.to_ne_bytes())])), None);
        assert!(!speaks_of_a_link(&message(7, &[attribute(3, b"tap1\0")]))); // AF_BRIDGE
    }

    #[test]
    fn addresses_stay_with_their_link_whatever_is_told_of_it() {
        let addresses = ["10.0.0.2/24", "2001:db8::2/64"].map(|address| address.parse::<IpNet>().unwrap());
        let of = |table: &LinkTable, name: &str| table.by_name[name].addresses.clone();
        let mut table = LinkTable::default();
        // They may be told before the link is.
        assert!(table.address(1, addresses[1], true));
        table.seen(link(1, "a"));
        assert!(table.address(1, addresses[0], true));
        assert!(!table.address(1, addresses[0], true), "the same again is no news");
        assert_eq!(of(&table, "a"), addresses);
        assert!(!table.seen(link(1, "a")), "nor is the link, of which messages tell without them");
        assert!(table.seen(link(1, "b")));
        assert_eq!(of(&table, "b"), addresses);
        assert!(table.address(1, addresses[0], false));
        assert_eq!(of(&table, "b"), addresses[1..]);
        // The next one of this index has its own.
        assert!(table.gone(1));
        assert!(!table.address(1, addresses[1], false));
        table.seen(link(1, "c"));
        assert!(of(&table, "c").is_empty() && table.addresses.is_empty());
    }

    #[test]
    fn the_device_of_a_macvtap_stays_with_it_and_is_looked_at_when_something_changes() {
        let macvtap = |name| Link::new(7, name, LinkKind::Macvtap { mode: None });
        let device = Some(DeviceOwner { uid: 107, gid: 0, mode: 0o600 });
        let mut table = LinkTable::default();
        table.seen(link(1, "a"));
        assert!(!table.has_macvtaps());
        table.suspect(1);
        assert_eq!(table.take_suspects(), []);
        assert!(table.seen(macvtap("b")));
        assert_eq!(table.take_suspects(), [(7, "b".into())]);
        assert!(table.device(7, device) && !table.device(7, device));
        assert!(!table.seen(macvtap("b")), "messages tell of the link without it");
        assert_eq!((table.by_name["b"].device, table.take_suspects()), (device, Vec::new()));
        table.seen(macvtap("c"));
        assert_eq!(table.by_name["c"].device, device);
        assert_eq!(table.take_suspects(), [(7, "c".into())]);
        table.suspect_all();
        assert_eq!(table.take_suspects(), [(7, "c".into())]);
        // The next one of this index has its own.
        table.suspect(7);
        table.gone(7);
        assert_eq!(table.take_suspects(), []);
        assert!(!table.device(7, device) && !table.has_macvtaps());
        table.seen(macvtap("d"));
        assert_eq!(table.by_name["d"].device, None);
    }

    #[test]
    fn a_rename_keeps_the_index_and_frees_the_old_name() {
        let mut table = LinkTable::default();
        assert!(table.seen(link(1, "a")));
        assert!(!table.seen(link(1, "a")), "the same again is no news");
        assert!(table.seen(link(1, "b")));
        assert_eq!(names(&table), [("b", 1)]);
        assert!(table.gone(1));
        assert!(!table.gone(1));
        assert_eq!(names(&table), []);
    }

    #[test]
    fn the_latest_word_on_a_name_wins_until_the_other_is_heard_of() {
        let mut table = LinkTable::default();
        table.seen(link(1, "a"));
        table.seen(link(2, "b"));
        // 1 becomes tmp, 2 becomes a, 1 becomes b; of the first step nothing is heard.
        table.seen(link(2, "a"));
        assert_eq!(names(&table), [("a", 2)]);
        table.seen(link(1, "b"));
        assert_eq!(names(&table), [("a", 2), ("b", 1)]);
        // A late goodbye of an index that is gone takes nobody else's name.
        table.seen(link(3, "a"));
        assert!(!table.gone(2));
        assert_eq!(names(&table), [("a", 3), ("b", 1)]);
    }
}
