//! VF settings as rtnetlink has them (`IFLA_VFINFO_LIST`, `linux/if_link.h`). What is asked and when lives in `vf`.
//!
//! Written with the attributes of `netlink-packet-route`, a VLAN of another protocol excepted. Read by hand, because that crate's reading of them says less than the
//! kernel does: a spoof check or a trust that the driver does not tell (`-1`) becomes `false`, a VLAN protocol that it does not
//! know becomes 802.1Q, and one attribute of another length makes the whole link unreadable.

use std::collections::BTreeMap;

use rtnetlink::packet_core::{DefaultNla, Emitable};
use rtnetlink::packet_route::link::{
    LinkVfInfo, VfInfo, VfInfoLinkState, VfInfoMac, VfInfoRate, VfInfoSpoofCheck, VfInfoTrust, VfInfoVlan,
};

use crate::link_request::each;

use super::{LinkState, Setting, VfSettings, Vlan, VlanProtocol};

const IFLA_NUM_VF: u16 = 21;
const IFLA_VFINFO_LIST: u16 = 22;
const IFLA_VF_INFO: u16 = 1;

const IFLA_VF_MAC: u16 = 1;
const IFLA_VF_VLAN: u16 = 2;
const IFLA_VF_TX_RATE: u16 = 3;
const IFLA_VF_SPOOFCHK: u16 = 4;
const IFLA_VF_LINK_STATE: u16 = 5;
const IFLA_VF_RATE: u16 = 6;
const IFLA_VF_RSS_QUERY_EN: u16 = 7;
const IFLA_VF_TRUST: u16 = 9;
const IFLA_VF_VLAN_LIST: u16 = 12;
const IFLA_VF_VLAN_INFO: u16 = 1;

/// Reads the VFs that the attributes of a link tell of; `None` when they are cut off.
///
/// The length of an attribute has 16 bits, and kernels that do not check it let a longer list
/// of VFs start again at 0: what is behind then looks like anything. A VF that is missing from a short list is one that the
/// driver says nothing of.
pub(super) fn read(attributes: &[u8]) -> Option<BTreeMap<u32, VfSettings>> {
    let mut there = None;
    let mut vfs = BTreeMap::new();
    for (kind, value) in each(attributes) {
        match kind {
            // The first: the kernel writes it before the list.
            IFLA_NUM_VF => there = there.or(number(value, 0)),
            IFLA_VFINFO_LIST => {
                vfs.extend(each(value).filter(|vf| vf.0 == IFLA_VF_INFO).filter_map(|vf| read_one(vf.1)));
            }
            _ => {}
        }
    }
    let cut_off = attributes.len() > usize::from(u16::MAX) && vfs.len() < there.unwrap_or(0) as usize;
    (!cut_off).then_some(vfs)
}

/// One `IFLA_VF_INFO`; `None` when nothing in it has the VF's number.
fn read_one(attributes: &[u8]) -> Option<(u32, VfSettings)> {
    let mut vf = None;
    let mut settings = VfSettings::default();
    let (mut old_rate, mut rates) = (None, None);
    let mut vlans_told = false;
    for (kind, value) in each(attributes) {
        // Every structure that is read here begins with the VF, except for the list.
        let of = if kind == IFLA_VF_VLAN_LIST { None } else { number(value, 0) };
        match kind {
            IFLA_VF_MAC => {
                let mac = value.get(4..10).and_then(<[u8]>::first_chunk);
                settings.mac = mac.copied().filter(|mac| *mac != [0; 6]);
            }
            IFLA_VF_VLAN if !vlans_told => settings.vlan = vlan(value, None).unwrap_or_default(),
            IFLA_VF_VLAN_LIST => {
                // A list of one so far (MAX_VLAN_LIST_LEN, linux/if_link.h); it says more than IFLA_VF_VLAN does.
                let first = each(value).find(|entry| entry.0 == IFLA_VF_VLAN_INFO);
                let first = first.and_then(|(_, entry)| {
                    let protocol = entry.get(12..14)?.first_chunk()?;
                    vlan(entry, Some(u16::from_be_bytes(*protocol)))
                });
                vlans_told = first.is_some();
                settings.vlan = first.unwrap_or(settings.vlan);
            }
            IFLA_VF_TX_RATE => old_rate = number(value, 4),
            IFLA_VF_RATE => rates = number(value, 4).zip(number(value, 8)),
            IFLA_VF_SPOOFCHK => settings.spoof_check = flag(value),
            IFLA_VF_TRUST => settings.trust = flag(value),
            IFLA_VF_RSS_QUERY_EN => settings.rss_query = flag(value),
            IFLA_VF_LINK_STATE => settings.link_state = number(value, 4).map(LinkState::from).unwrap_or_default(),
            _ => continue,
        }
        vf = vf.or(of);
    }
    // Kernels before 3.16 know one rate.
    (settings.min_tx_rate_mbps, settings.max_tx_rate_mbps) = rates.unwrap_or((0, old_rate.unwrap_or(0)));
    vf.map(|vf| (vf, settings))
}

/// `struct ifla_vf_vlan`, and the beginning of `struct ifla_vf_vlan_info`: VF, VLAN, priority.
fn vlan(value: &[u8], protocol: Option<u16>) -> Option<Vlan> {
    Some(Vlan {
        id: u16::try_from(number(value, 4)?).ok()?,
        qos: u8::try_from(number(value, 8)?).ok()?,
        protocol: protocol.map_or(VlanProtocol::Dot1q, VlanProtocol::from),
    })
}

/// A setting that the kernel begins with all bits set and a driver that has it overwrites.
fn flag(value: &[u8]) -> Option<bool> {
    number(value, 4).filter(|setting| *setting != u32::MAX).map(|setting| setting != 0)
}

fn number(value: &[u8], offset: usize) -> Option<u32> {
    value.get(offset..)?.first_chunk().map(|octets| u32::from_ne_bytes(*octets))
}

/// One `IFLA_VF_INFO` that sets this.
pub(super) fn write(vf: u32, settings: &[Setting]) -> LinkVfInfo {
    LinkVfInfo(settings.iter().map(|setting| write_one(vf, *setting)).collect())
}

fn write_one(vf: u32, setting: Setting) -> VfInfo {
    match setting {
        Setting::Mac(mac) => VfInfo::Mac(VfInfoMac::new(vf, &mac)),
        // The list is of kernel 4.9, and some drivers that refuse 802.1ad need not be asked.
        Setting::Vlan(Vlan { id, qos, protocol: VlanProtocol::Dot1q }) => {
            VfInfo::Vlan(VfInfoVlan::new(vf, id.into(), qos.into()))
        }
        Setting::Vlan(Vlan { id, qos, protocol }) => {
            let mut info = Vec::from([vf, id.into(), qos.into()].map(u32::to_ne_bytes).as_flattened());
            info.extend(u16::from(protocol).to_be_bytes());
            info.extend([0; 2]);
            let info = DefaultNla::new(IFLA_VF_VLAN_INFO, info);
            let mut list = vec![0; info.buffer_len()];
            info.emit(&mut list);
            VfInfo::Other(DefaultNla::new(IFLA_VF_VLAN_LIST, list))
        }
        Setting::Rate { min, max } => VfInfo::Rate(VfInfoRate::new(vf, min, max)),
        Setting::SpoofCheck(on) => VfInfo::SpoofCheck(VfInfoSpoofCheck::new(vf, on)),
        Setting::LinkState(state) => VfInfo::LinkState(VfInfoLinkState::new(vf, u32::from(state).into())),
        Setting::Trust(on) => VfInfo::Trust(VfInfoTrust::new(vf, on)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rtnetlink::packet_route::link::{LinkAttribute, LinkMessage};

    use super::*;

    /// An attribute: `nla_len`, `nla_type`, its value, padded to four octets.
    fn attribute(kind: u16, value: &[&[u8]]) -> Vec<u8> {
        let value = value.concat();
        let mut octets = Vec::from(((value.len() + 4) as u16).to_ne_bytes());
        octets.extend(kind.to_ne_bytes());
        octets.extend(value);
        octets.resize(octets.len().next_multiple_of(4), 0);
        octets
    }

    fn n(number: u32) -> [u8; 4] {
        number.to_ne_bytes()
    }

    const MAC: [u8; 6] = [0x02, 0x11, 0x22, 0x33, 0x44, 0x51];

    /// VF 3 as a kernel of 6.1 tells of it, statistics skipped.
    fn kernel_tells() -> Vec<u8> {
        attribute(
            1, // IFLA_VF_INFO
            &[
                &attribute(1, &[&n(3), &MAC, &[0; 26]]),  // IFLA_VF_MAC: vf, mac[32]
                &attribute(13, &[&[0xff; 6], &[0; 26]]),  // IFLA_VF_BROADCAST: broadcast[32]
                &attribute(2, &[&n(3), &n(100), &n(5)]),  // IFLA_VF_VLAN: vf, vlan, qos
                &attribute(6, &[&n(3), &n(10), &n(200)]), // IFLA_VF_RATE: vf, min_tx_rate, max_tx_rate
                &attribute(3, &[&n(3), &n(200)]),         // IFLA_VF_TX_RATE: vf, rate
                &attribute(4, &[&n(3), &n(1)]),           // IFLA_VF_SPOOFCHK: vf, setting
                &attribute(5, &[&n(3), &n(2)]),           // IFLA_VF_LINK_STATE: vf, IFLA_VF_LINK_STATE_DISABLE
                &attribute(7, &[&n(3), &n(0)]),           // IFLA_VF_RSS_QUERY_EN: vf, setting
                &attribute(9, &[&n(3), &n(u32::MAX)]),    // IFLA_VF_TRUST: vf, setting: not told
                &attribute(
                    12, // IFLA_VF_VLAN_LIST
                    // IFLA_VF_VLAN_INFO: vf, vlan, qos, vlan_proto (network byte order), padding of the structure
                    &[&attribute(1, &[&n(3), &n(100), &n(5), &[0x88, 0xa8], &[0; 2]])],
                ),
                &attribute(8, &[&attribute(0, &[&[0; 8]])]), // IFLA_VF_STATS, had they not been skipped
            ],
        )
    }

    fn settings() -> VfSettings {
        VfSettings {
            mac: Some(MAC),
            vlan: Vlan { id: 100, qos: 5, protocol: VlanProtocol::Dot1ad },
            min_tx_rate_mbps: 10,
            max_tx_rate_mbps: 200,
            spoof_check: Some(true),
            trust: None,
            rss_query: Some(false),
            link_state: LinkState::Disable,
        }
    }

    #[test]
    fn what_the_kernel_tells_is_read() {
        let link = [
            attribute(3, &[b"eth0\0"]), // IFLA_IFNAME
            attribute(21, &[&n(2)]),    // IFLA_NUM_VF
            attribute(22, &[&kernel_tells(), &attribute(1, &[&attribute(1, &[&n(7), &[0; 32]])])]), // IFLA_VFINFO_LIST
        ]
        .concat();
        let seven = VfSettings::default();
        assert_eq!(read(&link), Some(BTreeMap::from([(3, settings()), (7, seven)])));
        assert_eq!(seven.mac, None);
        assert_eq!(read(&attribute(3, &[b"lo\0"])), Some(BTreeMap::new()));
    }

    #[test]
    fn a_kernel_that_knows_one_rate_and_one_vlan_protocol_is_read() {
        let vf = [attribute(3, &[&n(0), &n(50)]), attribute(2, &[&n(0), &n(7), &n(0)])].concat();
        let (number, read) = read_one(&vf).expect("it is numbered");
        assert_eq!((number, read.min_tx_rate_mbps, read.max_tx_rate_mbps), (0, 0, 50));
        assert_eq!(read.vlan, Vlan { id: 7, qos: 0, protocol: VlanProtocol::Dot1q });
    }

    #[test]
    fn a_list_that_is_longer_than_its_length_can_say_is_cut_off() {
        let vf = kernel_tells();
        for (vfs, whole) in [(200, true), (400, false)] {
            let list: Vec<u8> = (0..vfs).flat_map(|number| numbered(&vf, number)).collect();
            let mut link = attribute(21, &[&n(vfs)]); // IFLA_NUM_VF
            link.extend((list.len() as u16).wrapping_add(4).to_ne_bytes()); // what is left of the length
            link.extend(22u16.to_ne_bytes()); // IFLA_VFINFO_LIST
            link.extend(list);
            assert_eq!(read(&link).map(|read| read.len()), whole.then_some(vfs as usize));
        }
    }

    /// An `IFLA_VF_INFO` of VF 3 as one of another VF: the number is the first of its first attribute.
    fn numbered(vf: &[u8], number: u32) -> Vec<u8> {
        let mut vf = vf.to_vec();
        vf[8..12].copy_from_slice(&n(number));
        vf
    }

    #[test]
    fn vfs_that_the_driver_says_nothing_of_are_not_there() {
        let link = [attribute(21, &[&n(2)]), attribute(22, &[])].concat();
        assert_eq!(read(&link), Some(BTreeMap::new()));
    }

    /// What `write` makes of these, on the wire.
    fn written(settings: &[Setting]) -> Vec<u8> {
        let mut link = LinkMessage::default();
        link.attributes.push(LinkAttribute::VfInfoList(vec![write(3, settings)]));
        let mut octets = vec![0; link.buffer_len()];
        link.emit(&mut octets);
        octets.split_off(16)
    }

    #[test]
    fn what_is_set_is_written() {
        let vlan = |protocol| Setting::Vlan(Vlan { id: 100, qos: 5, protocol });
        for (setting, expected) in [
            (Setting::Mac(MAC), attribute(1, &[&n(3), &MAC, &[0; 26]])),
            (vlan(VlanProtocol::Dot1q), attribute(2, &[&n(3), &n(100), &n(5)])),
            (
                vlan(VlanProtocol::Dot1ad),
                attribute(12, &[&attribute(1, &[&n(3), &n(100), &n(5), &[0x88, 0xa8], &[0; 2]])]),
            ),
            (Setting::Rate { min: 10, max: 200 }, attribute(6, &[&n(3), &n(10), &n(200)])),
            (Setting::SpoofCheck(true), attribute(4, &[&n(3), &n(1)])),
            (Setting::LinkState(LinkState::Disable), attribute(5, &[&n(3), &n(2)])),
            (Setting::Trust(false), attribute(9, &[&n(3), &n(0)])),
        ] {
            // IFLA_VFINFO_LIST, IFLA_VF_INFO
            let expected = attribute(22, &[&attribute(1, &[&expected])]);
            assert_eq!(written(&[setting]), expected, "{setting:?}");
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        let wanted = VfSettings { trust: Some(true), rss_query: None, ..settings() };
        let octets = written(&[
            Setting::Mac(MAC),
            Setting::Vlan(wanted.vlan),
            Setting::Rate { min: 10, max: 200 },
            Setting::SpoofCheck(true),
            Setting::LinkState(LinkState::Disable),
            Setting::Trust(true),
        ]);
        assert_eq!(read(&octets), Some(BTreeMap::from([(3, wanted)])));
    }

    proptest! {
        #[test]
        fn octets_by_chance_are_read_without_a_panic(octets in prop::collection::vec(any::<u8>(), 0..120), at in 0usize..500) {
            read(&octets);
            read_one(&octets);
            read(&attribute(22, &[&attribute(1, &[&octets])]));
            // And octets that are nearly right.
            let mut nearly = attribute(22, &[&kernel_tells()]);
            let at = at % nearly.len();
            for (to, from) in nearly[at..].iter_mut().zip(octets) {
                *to = from;
            }
            read(&nearly);
            nearly.truncate(at);
            read(&nearly);
        }
    }
}
