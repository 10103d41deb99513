//! Ports as octets, both ways: what Linux 6.1 says of netdevsim's, and what `linux/devlink.h` says of those that netdevsim lacks.

use super::*;
use crate::wire::{Attributes, Malformed, Writer};

fn written(fill: impl FnOnce(&mut Writer)) -> Vec<u8> {
    let mut writer = Writer::default();
    fill(&mut writer);
    writer.octets().to_vec()
}

fn read(octets: &[u8]) -> Result<Port, Malformed> {
    Port::decode(Attributes::new(octets))
}

fn port(index: u32, flavour: Flavour) -> Port {
    Port {
        bus: "pci".to_owned(),
        dev: "0000:03:00.0".to_owned(),
        index,
        kind: PortType::Ethernet,
        flavour,
        netdev: None,
        ibdev: None,
        lanes: None,
        splittable: None,
        function: None,
    }
}

/// `pci/0000:03:00.0`, as every message begins.
#[rustfmt::skip]
const DEVICE: &[u8] = &[
    8, 0, // length
    1, 0, // DEVLINK_ATTR_BUS_NAME
    b'p', b'c', b'i', 0,
    17, 0, // length, without padding
    2, 0, // DEVLINK_ATTR_DEV_NAME
    b'0', b'0', b'0', b'0', b':', b'0', b'3', b':', b'0', b'0', b'.', b'0', 0, 0, 0, 0,
];

#[test]
fn a_function_s_port_as_the_kernel_writes_it() {
    #[rustfmt::skip]
    let octets = [
        &[14, 0][..], // length
        &[1, 0], // DEVLINK_ATTR_BUS_NAME
        b"netdevsim\0", &[0; 2], // padding
        &[16, 0], // length
        &[2, 0], // DEVLINK_ATTR_DEV_NAME
        b"netdevsim10\0",
        &[8, 0, 3, 0], // DEVLINK_ATTR_PORT_INDEX
        &[128, 0, 0, 0],
        &[6, 0, 4, 0], // DEVLINK_ATTR_PORT_TYPE
        &[2, 0, 0, 0], // DEVLINK_PORT_TYPE_ETH; padding
        &[8, 0, 6, 0], // DEVLINK_ATTR_PORT_NETDEV_IFINDEX
        &[3, 0, 0, 0],
        &[9, 0, 7, 0], // DEVLINK_ATTR_PORT_NETDEV_NAME
        b"eth1\0", &[0; 3], // padding
        &[5, 0, 148, 0], // DEVLINK_ATTR_PORT_SPLITTABLE
        &[0, 0, 0, 0],
        &[6, 0, 77, 0], // DEVLINK_ATTR_PORT_FLAVOUR
        &[4, 0, 0, 0], // DEVLINK_PORT_FLAVOUR_PCI_VF; padding
        &[8, 0, 150, 0], // DEVLINK_ATTR_PORT_CONTROLLER_NUMBER
        &[0, 0, 0, 0],
        &[6, 0, 127, 0], // DEVLINK_ATTR_PORT_PCI_PF_NUMBER
        &[0, 0, 0, 0],
        &[6, 0, 128, 0], // DEVLINK_ATTR_PORT_PCI_VF_NUMBER
        &[1, 0, 0, 0],
        &[5, 0, 149, 0], // DEVLINK_ATTR_PORT_EXTERNAL
        &[0, 0, 0, 0],
        &[4, 0, 145, 0x80], // DEVLINK_ATTR_PORT_FUNCTION, empty: netdevsim says nothing of it
    ]
    .concat();
    let expected = Port {
        bus: "netdevsim".to_owned(),
        dev: "netdevsim10".to_owned(),
        netdev: Some(Netdev { index: 3, name: "eth1".to_owned() }),
        splittable: Some(false),
        ..port(128, Flavour::PciVf { controller: 0, external: false, pf: 0, vf: 1 })
    };
    assert_eq!(read(&octets), Ok(expected));
}

#[test]
fn a_sub_function_with_all_that_is_said_of_it() {
    #[rustfmt::skip]
    let octets = [
        DEVICE,
        &[8, 0, 3, 0], // DEVLINK_ATTR_PORT_INDEX
        &[0, 128, 0, 0],
        &[6, 0, 4, 0], // DEVLINK_ATTR_PORT_TYPE
        &[2, 0, 0, 0], // DEVLINK_PORT_TYPE_ETH; padding
        &[8, 0, 6, 0], // DEVLINK_ATTR_PORT_NETDEV_IFINDEX
        &[9, 0, 0, 0],
        &[18, 0, 7, 0], // DEVLINK_ATTR_PORT_NETDEV_NAME
        b"en3f0c1pf0s88\0", &[0; 2], // padding
        &[6, 0, 77, 0], // DEVLINK_ATTR_PORT_FLAVOUR
        &[7, 0, 0, 0], // DEVLINK_PORT_FLAVOUR_PCI_SF; padding
        &[8, 0, 150, 0], // DEVLINK_ATTR_PORT_CONTROLLER_NUMBER
        &[1, 0, 0, 0],
        &[6, 0, 127, 0], // DEVLINK_ATTR_PORT_PCI_PF_NUMBER
        &[0, 0, 0, 0],
        &[5, 0, 149, 0], // DEVLINK_ATTR_PORT_EXTERNAL
        &[1, 0, 0, 0],
        &[8, 0, 164, 0], // DEVLINK_ATTR_PORT_PCI_SF_NUMBER
        &[88, 0, 0, 0],
        &[44, 0, 145, 0x80], // DEVLINK_ATTR_PORT_FUNCTION, nested
        &[10, 0, 1, 0], // DEVLINK_PORT_FUNCTION_ATTR_HW_ADDR
        &[2, 0, 0, 0, 0, 88, 0, 0], // the address; padding
        &[5, 0, 2, 0], // DEVLINK_PORT_FN_ATTR_STATE
        &[1, 0, 0, 0], // active
        &[12, 0, 4, 0], // DEVLINK_PORT_FN_ATTR_CAPS, struct nla_bitfield32
        &[1, 0, 0, 0], // value: RoCE
        &[3, 0, 0, 0], // selector: RoCE, migratable
        &[5, 0, 3, 0], // DEVLINK_PORT_FN_ATTR_OPSTATE
        &[0, 0, 0, 0], // detached
    ]
    .concat();
    let caps = Capabilities::default().with(Capability::Roce, true).with(Capability::Migratable, false);
    let expected = Port {
        netdev: Some(Netdev { index: 9, name: "en3f0c1pf0s88".to_owned() }),
        function: Some(PortFunction {
            hw_addr: Some([2, 0, 0, 0, 0, 88]),
            state: Some(FunctionState::Active),
            opstate: Some(FunctionOpState::Detached),
            caps,
        }),
        ..port(32768, Flavour::PciSf { controller: 1, external: true, pf: 0, sf: 88 })
    };
    assert_eq!(read(&octets), Ok(expected.clone()));
    assert_eq!(written(|writer| expected.encode(writer)), octets);
    assert_eq!((caps.roce(), caps.migratable(), caps.get(Capability::IpsecPacket)), (Some(true), Some(false), None));
}

#[test]
fn an_uplink_that_is_split() {
    #[rustfmt::skip]
    let octets = [
        DEVICE,
        &[8, 0, 3, 0, 1, 0, 0, 0], // DEVLINK_ATTR_PORT_INDEX
        &[6, 0, 4, 0, 3, 0, 0, 0], // DEVLINK_ATTR_PORT_TYPE: DEVLINK_PORT_TYPE_IB
        &[11, 0, 8, 0], b"mlx5_0\0", &[0], // DEVLINK_ATTR_PORT_IBDEV_NAME
        &[8, 0, 147, 0, 2, 0, 0, 0], // DEVLINK_ATTR_PORT_LANES
        &[5, 0, 148, 0, 1, 0, 0, 0], // DEVLINK_ATTR_PORT_SPLITTABLE
        &[6, 0, 77, 0, 0, 0, 0, 0], // DEVLINK_ATTR_PORT_FLAVOUR: DEVLINK_PORT_FLAVOUR_PHYSICAL
        &[8, 0, 78, 0, 1, 0, 0, 0], // DEVLINK_ATTR_PORT_NUMBER
        &[8, 0, 10, 0, 4, 0, 0, 0], // DEVLINK_ATTR_PORT_SPLIT_GROUP
        &[8, 0, 79, 0, 3, 0, 0, 0], // DEVLINK_ATTR_PORT_SPLIT_SUBPORT_NUMBER
    ]
    .concat();
    let split = Some(Split { group: 4, subport: Some(3) });
    let expected = Port {
        kind: PortType::Infiniband,
        ibdev: Some("mlx5_0".to_owned()),
        lanes: Some(2),
        splittable: Some(true),
        ..port(1, Flavour::Physical { number: Some(1), split })
    };
    assert_eq!(read(&octets), Ok(expected.clone()));
    assert_eq!(written(|writer| expected.encode(writer)), octets);
}

#[test]
fn what_identifies_a_function_must_be_there() {
    let index = [8, 0, 3, 0, 1, 0, 0, 0];
    let flavour = |number| [6, 0, 77, 0, number, 0, 0, 0];
    let with = |more: &[&[u8]]| read(&[DEVICE, &index, &more.concat()].concat());
    let missing = |kind| Err(Malformed::Missing { kind });
    assert_eq!(read(DEVICE), missing(3));
    assert_eq!(read(&index), missing(1));
    assert_eq!(with(&[&flavour(4)]), missing(128));
    assert_eq!(with(&[&flavour(4), &[6, 0, 128, 0, 1, 0, 0, 0]]), missing(127));
    assert_eq!(with(&[&flavour(7), &[6, 0, 127, 0, 1, 0, 0, 0]]), missing(164));
    assert_eq!(with(&[&flavour(3)]), missing(127));
    // Nothing is missing from what is not known; kernels before 5.10 have no controllers.
    let flavours = [(5, Flavour::Virtual), (6, Flavour::Unused), (99, Flavour::Other(99))];
    for (number, expected) in flavours {
        assert_eq!(with(&[&flavour(number)]).map(|port| port.flavour), Ok(expected));
    }
    let old = with(&[&flavour(3), &[6, 0, 127, 0, 1, 0, 0, 0]]).map(|port| port.flavour);
    assert_eq!(old, Ok(Flavour::PciPf { controller: 0, external: false, pf: 1 }));
    assert_eq!(
        with(&[&[6, 0, 145, 0x80, 1, 0, 0, 0]]),
        Err(Malformed::Length { what: "an attribute", said: 4, there: 2 })
    );
    // An address of InfiniBand is none.
    let long = [28, 0, 145, 0x80, 24, 0, 1, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20];
    assert_eq!(with(&[&long]).map(|port| port.function), Ok(None));
}

#[test]
fn what_is_asked_for() {
    let new = NewSubFunction { device: "pci/0000:03:00.0".parse().unwrap(), pf: 1, sf: Some(88), controller: Some(2) };
    #[rustfmt::skip]
    let octets = [
        DEVICE,
        &[6, 0, 77, 0, 7, 0, 0, 0], // DEVLINK_ATTR_PORT_FLAVOUR: DEVLINK_PORT_FLAVOUR_PCI_SF; padding
        &[6, 0, 127, 0, 1, 0, 0, 0], // DEVLINK_ATTR_PORT_PCI_PF_NUMBER; padding
        &[8, 0, 164, 0, 88, 0, 0, 0], // DEVLINK_ATTR_PORT_PCI_SF_NUMBER
        &[8, 0, 150, 0, 2, 0, 0, 0], // DEVLINK_ATTR_PORT_CONTROLLER_NUMBER
    ]
    .concat();
    assert_eq!(written(|writer| new.encode(writer)), octets);
    assert_eq!(new.to_string(), "sub-function 88 of controller 2 of pf 1 on pci/0000:03:00.0");
    let any = NewSubFunction { sf: None, controller: None, ..new };
    assert_eq!(written(|writer| any.encode(writer)), octets[..octets.len() - 16]);

    let caps = Capabilities::default().with(Capability::Migratable, true);
    let change = FunctionChange { hw_addr: None, state: Some(FunctionState::Inactive), caps };
    #[rustfmt::skip]
    let octets = [
        24, 0, 145, 0x80, // DEVLINK_ATTR_PORT_FUNCTION, nested
        5, 0, 2, 0, // DEVLINK_PORT_FN_ATTR_STATE
        0, 0, 0, 0, // inactive; padding
        12, 0, 4, 0, // DEVLINK_PORT_FN_ATTR_CAPS
        2, 0, 0, 0, // value: migratable
        2, 0, 0, 0, // selector: the others stay as they are
    ];
    assert_eq!(written(|writer| change.encode(writer)), octets);
    assert_eq!(change.to_string(), "state inactive, migratable on");
    assert_eq!(FunctionChange::default().to_string(), "nothing");
    let handle = PortHandle { device: "pci/0000:03:00.0".parse().unwrap(), index: 258 };
    let octets = [DEVICE, &[8, 0, 3, 0, 2, 1, 0, 0]].concat(); // DEVLINK_ATTR_PORT_INDEX
    assert_eq!(written(|writer| handle.encode(writer)), octets);
    assert_eq!(handle.to_string(), "pci/0000:03:00.0/258");
}
