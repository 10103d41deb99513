//! Port profiles as rtnetlink has them (`IFLA_VF_PORTS`, `IFLA_PORT_SELF`, `linux/if_link.h`). What is sent to whom and when lives
//! in `port_profile`.
//!
//! By hand: `netlink-packet-route` has none of it.

use rtnetlink::packet_core::{DefaultNla, Emitable};
use rtnetlink::packet_route::link::{LinkAttribute, LinkVfInfo, LinkVfPort, VfInfo, VfInfoMac, VfInfoVlan, VfPort};

use crate::link_request::each;

use super::{Abandoned, PortProfile, Request, Response, State};

const IFLA_IFNAME: u16 = 3;
const IFLA_VF_PORTS: u16 = 24;
const IFLA_PORT_SELF: u16 = 25;
const IFLA_VF_PORT: u16 = 1;

const IFLA_PORT_VF: u16 = 1;
const IFLA_PORT_PROFILE: u16 = 2;
const IFLA_PORT_VSI_TYPE: u16 = 3;
const IFLA_PORT_INSTANCE_UUID: u16 = 4;
const IFLA_PORT_HOST_UUID: u16 = 5;
const IFLA_PORT_REQUEST: u16 = 6;
const IFLA_PORT_RESPONSE: u16 = 7;

/// The link itself, and none of its VFs.
const PORT_SELF_VF: u32 = u32::MAX;

/// One `IFLA_VF_PORT`, or the inside of `IFLA_PORT_SELF`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Port {
    /// `PORT_SELF_VF` for the link itself.
    pub(super) vf: Option<u32>,
    pub(super) instance: Option<[u8; 16]>,
    pub(super) request: Option<u8>,
    pub(super) response: Option<u16>,
}

/// Where in a message the ports are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// `IFLA_PORT_SELF`.
    Own,
    /// `IFLA_VF_PORTS`, of this VF.
    Vf(u32),
    /// `IFLA_VF_PORTS`, of no VF: lldpad knows interfaces, MAC addresses and VLANs.
    NoVf,
}

impl Place {
    fn vf(self) -> u32 {
        match self {
            Place::Vf(vf) => vf,
            Place::Own | Place::NoVf => PORT_SELF_VF,
        }
    }
}

/// The attributes that ask for something. A MAC address and a VLAN are told where they are given.
pub(super) fn write(
    place: Place,
    mac: Option<[u8; 6]>,
    vlan: Option<u16>,
    profile: Option<&PortProfile>,
    request: Request,
) -> Vec<LinkAttribute> {
    let vf = place.vf();
    let filter: Vec<VfInfo> = [
        mac.map(|mac| VfInfo::Mac(VfInfoMac::new(vf, &mac))),
        vlan.map(|vlan| VfInfo::Vlan(VfInfoVlan::new(vf, vlan.into(), 0))),
    ]
    .into_iter()
    .flatten()
    .collect();
    let mut port = Vec::new();
    match profile {
        Some(PortProfile::Qbg { manager, type_id, type_version, instance }) => {
            // struct ifla_port_vsi; the type's octets are in the order in which libvirt and lldpad have them.
            let [low, middle, high, _] = type_id.to_le_bytes();
            port.push((IFLA_PORT_VSI_TYPE, vec![*manager, low, middle, high, *type_version, 0, 0, 0]));
            port.push((IFLA_PORT_INSTANCE_UUID, instance.to_vec()));
        }
        Some(PortProfile::Qbh { profile, instance, host }) => {
            port.push((IFLA_PORT_PROFILE, [profile.as_bytes(), b"\0"].concat()));
            port.extend(instance.map(|instance| (IFLA_PORT_INSTANCE_UUID, instance.to_vec())));
            port.extend(host.map(|host| (IFLA_PORT_HOST_UUID, host.to_vec())));
        }
        None => {}
    }
    if let Place::Vf(vf) = place {
        port.push((IFLA_PORT_VF, vf.to_ne_bytes().to_vec()));
    }
    port.push((IFLA_PORT_REQUEST, vec![u8::from(request)]));
    let port = LinkVfPort(port.into_iter().map(|(kind, value)| VfPort::Other(DefaultNla::new(kind, value))).collect());
    let mut attributes = Vec::new();
    if !filter.is_empty() {
        attributes.push(LinkAttribute::VfInfoList(vec![LinkVfInfo(filter)]));
    }
    attributes.push(match place {
        // That crate takes the inside of IFLA_PORT_SELF for a list within it.
        Place::Own => {
            let mut inside = vec![0; port.0.as_slice().buffer_len()];
            port.0.as_slice().emit(&mut inside);
            LinkAttribute::Other(DefaultNla::new(IFLA_PORT_SELF, inside))
        }
        Place::Vf(_) | Place::NoVf => LinkAttribute::VfPorts(vec![port]),
    });
    attributes
}

/// The port of the link itself and those of its VFs, as far as they can be read.
pub(super) fn read(attributes: &[u8]) -> (Option<Port>, Vec<Port>) {
    let (mut own, mut vfs) = (None, Vec::new());
    for (kind, value) in each(attributes) {
        match kind {
            IFLA_PORT_SELF => own = Some(read_one(value)),
            IFLA_VF_PORTS => vfs.extend(each(value).filter(|port| port.0 == IFLA_VF_PORT).map(|port| read_one(port.1))),
            _ => {}
        }
    }
    (own, vfs)
}

fn read_one(attributes: &[u8]) -> Port {
    let mut port = Port::default();
    for (kind, value) in each(attributes) {
        match kind {
            IFLA_PORT_VF => port.vf = value.first_chunk().map(|vf| u32::from_ne_bytes(*vf)),
            IFLA_PORT_INSTANCE_UUID => port.instance = value.first_chunk().copied(),
            // One octet, and lldpad writes two.
            IFLA_PORT_REQUEST => {
                port.request = match value {
                    [request] => Some(*request),
                    [low, high, ..] => u8::try_from(u16::from_ne_bytes([*low, *high])).ok(),
                    [] => None,
                }
            }
            IFLA_PORT_RESPONSE => port.response = value.first_chunk().map(|response| u16::from_ne_bytes(*response)),
            _ => {}
        }
    }
    port
}

/// The state of a port among those of a link. A VF's port is the one with its number, and with the instance where one is asked for.
pub(super) fn state(attributes: &[u8], place: Place, instance: Option<[u8; 16]>) -> State {
    let (own, vfs) = read(attributes);
    let port = match place {
        Place::Own => own,
        Place::Vf(_) | Place::NoVf => vfs.into_iter().find(|port| {
            port.vf.unwrap_or(PORT_SELF_VF) == place.vf() && (instance.is_none() || port.instance == instance)
        }),
    };
    // An adapter goes on telling of a port that it let go (enic); lldpad forgets it.
    let let_go = |port: &Port| place != Place::NoVf && port.request == Some(Request::Disassociate.into());
    match port {
        None => State::Absent,
        Some(port) if let_go(&port) && port.response.map(Response::from).is_some_and(Response::is_success) => {
            State::Absent
        }
        Some(Port { response: None, .. }) => State::Pending,
        Some(Port { response: Some(response), .. }) => State::Answered(Response::from(response)),
    }
}

/// What lldpad says by itself when the bridge gives a VSI up. It says the link's name; the index it may leave 0.
pub(super) fn abandoned(attributes: &[u8]) -> Vec<Abandoned> {
    let name = each(attributes).find(|(kind, _)| *kind == IFLA_IFNAME).map(|(_, name)| name);
    let name = String::from_utf8_lossy(name.unwrap_or_default()).trim_end_matches('\0').to_owned();
    let (_, ports) = read(attributes);
    ports
        .into_iter()
        .filter_map(|port| Some(Abandoned { link: name.clone(), instance: port.instance?, request: port.request? }))
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rtnetlink::packet_route::link::LinkMessage;

    use super::*;

    const MAC: [u8; 6] = [0x02, 0x11, 0x22, 0x33, 0x44, 0x51];
    const INSTANCE: [u8; 16] = [0xa1; 16];
    const HOST: [u8; 16] = [0xb2; 16];

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

    fn on_the_wire(attributes: Vec<LinkAttribute>) -> Vec<u8> {
        let mut link = LinkMessage::default();
        link.attributes = attributes;
        let mut octets = vec![0; link.buffer_len()];
        link.emit(&mut octets);
        octets.split_off(16)
    }

    fn qbg() -> PortProfile {
        PortProfile::Qbg { manager: 7, type_id: 0x0a0b0c, type_version: 2, instance: INSTANCE }
    }

    #[test]
    fn lldpad_is_told_mac_vlan_and_vsi() {
        let own = n(u32::MAX); // PORT_SELF_VF
        let expected = [
            attribute(
                22, // IFLA_VFINFO_LIST
                &[&attribute(
                    1, // IFLA_VF_INFO
                    &[
                        &attribute(1, &[&own, &MAC, &[0; 26]]), // IFLA_VF_MAC: vf, mac[32]
                        &attribute(2, &[&own, &n(100), &n(0)]), // IFLA_VF_VLAN: vf, vlan, qos
                    ],
                )],
            ),
            attribute(
                24, // IFLA_VF_PORTS
                &[&attribute(
                    1, // IFLA_VF_PORT
                    &[
                        // IFLA_PORT_VSI_TYPE: vsi_mgr_id, vsi_type_id[3], vsi_type_version, pad[3]
                        &attribute(3, &[&[7], &[0x0c, 0x0b, 0x0a], &[2], &[0; 3]]),
                        &attribute(4, &[&INSTANCE]), // IFLA_PORT_INSTANCE_UUID
                        &attribute(6, &[&[2]]),      // IFLA_PORT_REQUEST: PORT_REQUEST_ASSOCIATE
                    ],
                )],
            ),
        ];
        let written = write(Place::NoVf, Some(MAC), Some(100), Some(&qbg()), Request::Associate);
        assert_eq!(on_the_wire(written), expected.concat());
    }

    #[test]
    fn the_kernel_is_told_a_profile_by_name() {
        let profile = PortProfile::Qbh { profile: "gold".into(), instance: Some(INSTANCE), host: Some(HOST) };
        let inside = |vf: Option<u32>| {
            [
                attribute(2, &[b"gold\0"]),                               // IFLA_PORT_PROFILE
                attribute(4, &[&INSTANCE]),                               // IFLA_PORT_INSTANCE_UUID
                attribute(5, &[&HOST]),                                   // IFLA_PORT_HOST_UUID
                vf.map(|vf| attribute(1, &[&n(vf)])).unwrap_or_default(), // IFLA_PORT_VF
                attribute(6, &[&[1]]),                                    // IFLA_PORT_REQUEST: PREASSOCIATE_RR
            ]
            .concat()
        };
        let mac = |vf| attribute(22, &[&attribute(1, &[&attribute(1, &[&n(vf), &MAC, &[0; 26]])])]);
        let request = Request::PreAssociateWithReservation;
        assert_eq!(
            on_the_wire(write(Place::Vf(3), Some(MAC), None, Some(&profile), request)),
            [mac(3), attribute(24, &[&attribute(1, &[&inside(Some(3))])])].concat()
        );
        assert_eq!(
            on_the_wire(write(Place::Own, None, None, Some(&profile), request)),
            attribute(25, &[&inside(None)]) // IFLA_PORT_SELF
        );
        // To let go: IFLA_PORT_VF, and IFLA_PORT_REQUEST with PORT_REQUEST_DISASSOCIATE.
        let released = [attribute(1, &[&n(3)]), attribute(6, &[&[3]])].concat();
        assert_eq!(
            on_the_wire(write(Place::Vf(3), None, None, None, Request::Disassociate)),
            attribute(24, &[&attribute(1, &[&released])])
        );
    }

    #[test]
    fn a_port_is_found_by_its_vf_and_its_instance() {
        let port = |vf: u32, instance: &[u8], response: Option<u16>| {
            let response = response.map(|response| attribute(7, &[&response.to_ne_bytes()])).unwrap_or_default();
            // IFLA_VF_PORT: IFLA_PORT_INSTANCE_UUID, IFLA_PORT_VF, IFLA_PORT_RESPONSE
            attribute(1, &[&attribute(4, &[instance]), &attribute(1, &[&n(vf)]), &response])
        };
        let told = [
            // IFLA_VF_PORTS
            attribute(
                24,
                &[&port(u32::MAX, &HOST, Some(0)), &port(u32::MAX, &INSTANCE, Some(3)), &port(0, &INSTANCE, None)],
            ),
            // IFLA_PORT_SELF: IFLA_PORT_RESPONSE
            attribute(25, &[&attribute(7, &[&0x101u16.to_ne_bytes()])]),
        ]
        .concat();
        let refused = State::Answered(Response::VdpUnusedVtid);
        assert_eq!(state(&told, Place::NoVf, Some(INSTANCE)), refused);
        assert_eq!(state(&told, Place::NoVf, Some(HOST)), State::Answered(Response::VdpSuccess));
        assert_eq!(state(&told, Place::Vf(0), Some(INSTANCE)), State::Pending);
        assert_eq!(state(&told, Place::Vf(0), None), State::Pending);
        assert_eq!(state(&told, Place::Vf(0), Some(HOST)), State::Absent);
        assert_eq!(state(&told, Place::Vf(1), None), State::Absent);
        assert_eq!(state(&told, Place::Own, None), State::Answered(Response::ProfileInProgress));
        assert_eq!(state(&[], Place::Own, None), State::Absent);
        // IFLA_PORT_REQUEST in two octets, as enic writes it, and IFLA_PORT_RESPONSE.
        let let_go = |response: u16| {
            let port = [attribute(6, &[&3u16.to_ne_bytes()]), attribute(7, &[&response.to_ne_bytes()])];
            attribute(25, &[&port.concat()])
        };
        assert_eq!(state(&let_go(0x100), Place::Own, None), State::Absent);
        assert_eq!(state(&let_go(0x101), Place::Own, None), State::Answered(Response::ProfileInProgress));
    }

    #[test]
    fn what_lldpad_tells_by_itself_is_read() {
        let port = [
            attribute(3, &[&[7, 0x0c, 0x0b, 0x0a, 2, 0, 0, 0]]), // IFLA_PORT_VSI_TYPE
            attribute(4, &[&INSTANCE]),                          // IFLA_PORT_INSTANCE_UUID
            attribute(1, &[&n(u32::MAX)]),                       // IFLA_PORT_VF
            attribute(6, &[&3u16.to_ne_bytes()]),                // IFLA_PORT_REQUEST, in two octets
        ];
        // IFLA_IFNAME; IFLA_VF_PORTS with IFLA_VF_PORT
        let told = [attribute(3, &[b"eth0\0"]), attribute(24, &[&attribute(1, &[&port.concat()])])].concat();
        assert_eq!(abandoned(&told), [Abandoned { link: "eth0".into(), instance: INSTANCE, request: 3 }]);
    }

    proptest! {
        #[test]
        fn octets_by_chance_are_read_without_a_panic(octets in prop::collection::vec(any::<u8>(), 0..80), at in 0usize..200) {
            let mut nearly = on_the_wire(write(Place::Vf(1), Some(MAC), None, Some(&qbg()), Request::Associate));
            let at = at % nearly.len();
            for (to, from) in nearly[at..].iter_mut().zip(&octets) {
                *to = *from;
            }
            let inside = attribute(24, &[&attribute(1, &[&octets])]);
            for octets in [octets.as_slice(), &nearly, &nearly[..at], &inside] {
                state(octets, Place::Own, None);
                state(octets, Place::Vf(1), Some(INSTANCE));
                abandoned(octets);
            }
        }
    }
}
