//! Which netdev represents which function, with the NICs of several families: what their drivers make of a switch.
//!
//! Netdevs have names that say nothing, as udev and people may give them: `eth0`, `eth1`, in no order.

use std::collections::BTreeSet;

use devlink::{
    Device, Doubt, Flavour, Found, FunctionAddress, How, Netdev, NetdevFacts, Port, PortType, Represented, Representor,
    Sysfs, Uplink, uplink,
};

use crate::tree::{Says, Tree};

fn address(text: &str) -> FunctionAddress {
    text.parse().unwrap()
}

fn pci(address: &str) -> Device {
    Device { bus: "pci".to_owned(), dev: address.to_owned() }
}

/// What is found for an address, in short: the netdev's name and the function in devlink's terms, or why none is.
fn found(sysfs: &Sysfs, ports: &[Port], text: &str) -> String {
    found_among(&sysfs.netdevs(|name, error| panic!("{name}: {error}")).unwrap(), sysfs, ports, text)
}

fn found_among(netdevs: &[NetdevFacts], sysfs: &Sysfs, ports: &[Port], text: &str) -> String {
    match sysfs.representor(&address(text), ports, netdevs).unwrap() {
        Representor::Found(Found { netdev, function, .. }) => format!("{netdev} {function}"),
        Representor::Ambiguous { candidates, doubt } => format!("{doubt:?}: {}", Vec::from_iter(candidates).join(" ")),
        other => format!("{other:?}"),
    }
}

fn represented(sysfs: &Sysfs, ports: &[Port], netdev: &str) -> String {
    represented_among(&sysfs.netdevs(|name, error| panic!("{name}: {error}")).unwrap(), sysfs, ports, netdev)
}

fn represented_among(netdevs: &[NetdevFacts], sysfs: &Sysfs, ports: &[Port], netdev: &str) -> String {
    match sysfs.represented(netdev, ports, netdevs).unwrap() {
        Some(Represented { function, pci: Some(pci) }) => format!("{function} {pci}"),
        Some(Represented { function, pci: None }) => function.to_string(),
        None => "nothing".to_owned(),
    }
}

/// A devlink port with this netdev.
fn port(device: &Device, index: u32, flavour: Flavour, netdev: Option<&str>) -> Port {
    Port {
        bus: device.bus.clone(),
        dev: device.dev.clone(),
        index,
        kind: PortType::Ethernet,
        flavour,
        netdev: netdev.map(|name| Netdev { index: 1000 + index, name: name.to_owned() }),
        ibdev: None,
        lanes: None,
        splittable: None,
        function: None,
    }
}

fn vf(pf: u16, vf: u16) -> Flavour {
    Flavour::PciVf { controller: 0, external: false, pf, vf }
}

/// How many virtual functions each physical function of the two-port NIC has.
const VFS: u8 = 5;

/// Addresses of virtual functions as mlx5's hardware gives them out: behind those of the physical ones.
fn vfs_of(function: u8) -> Vec<String> {
    let first = 2 + u16::from(function * VFS);
    (0..u16::from(VFS))
        .map(|vf| first + vf)
        .map(|number| format!("0000:03:{:02x}.{}", number / 8, number % 8))
        .collect()
}

/// Whether representors stand on the physical function. They did not always, and should not by the documentation.
#[derive(Clone, Copy, PartialEq)]
enum Hung {
    OnPf,
    OnNothing,
}

/// How a driver writes the name of a virtual function's port.
type Write = fn(u8, u8) -> String;

const PF_AND_VF: Write = |pf, vf| format!("pf{pf}vf{vf}");
const VF: Write = |_, vf| format!("vf{vf}");
const NUMBER: Write = |_, vf| vf.to_string();

/// A ConnectX-5 or -6 with two ports in switchdev mode, and virtual functions (`mlx5/core/en_rep.c`,
/// `esw/devlink_port.c`): the netdev of virtual function 3 of the second is `eth1_3`.
fn mlx5(switches: [&str; 2], hung: Hung, write: Write) -> Tree {
    let tree = Tree::new();
    for function in 0..2 {
        let switch = switches[usize::from(function)];
        let says = Says { switch, port: &format!("p{function}") };
        let pf = format!("0000:03:00.{function}");
        let mut made = tree
            .pci(&pf, 0x15b3, 0x101d)
            .driver("mlx5_core")
            .sriov(64)
            .netdev(&format!("uplink{function}"), says)
            .vfs(0x101e, &vfs_of(function));
        for vf in 0..VFS {
            let (name, port) = (format!("eth{function}_{vf}"), write(function, vf));
            let says = Says { switch, port: &port };
            match hung {
                Hung::OnPf => made = made.netdev(&name, says),
                Hung::OnNothing => tree.netdev(&name, says),
            }
        }
    }
    tree
}

const TWO: [&str; 2] = ["b8599f0300ff6a3c", "b8599f0300ff6a3d"];
/// In a bond both ports are on one switch (Linux 5.1, "In case of LAG, one switch parent id is used").
const BONDED: [&str; 2] = ["b8599f0300ff6a3c"; 2];

/// Each of the functions has its own representor, and that leads back to it.
fn all_are_found(sysfs: &Sysfs, ports: &[Port]) {
    let netdevs = sysfs.netdevs(|name, error| panic!("{name}: {error}")).unwrap();
    for function in 0..2 {
        for (vf, address) in vfs_of(function).iter().enumerate() {
            let netdev = format!("eth{function}_{vf}");
            let port = format!("pci/0000:03:00.{function}:pf{function}vf{vf}");
            assert_eq!(found_among(&netdevs, sysfs, ports, address), format!("{netdev} {port}"), "{address}");
            assert_eq!(found_among(&netdevs, sysfs, ports, &port), format!("{netdev} {port}"));
            assert_eq!(represented_among(&netdevs, sysfs, ports, &netdev), format!("{port} {address}"));
        }
    }
}

#[test]
fn mlx5_with_a_switch_for_each_port() {
    for hung in [Hung::OnPf, Hung::OnNothing] {
        for write in [PF_AND_VF, VF, NUMBER] {
            let tree = mlx5(TWO, hung, write);
            all_are_found(&tree.sysfs(), &[]);
        }
    }
    let tree = mlx5(TWO, Hung::OnPf, PF_AND_VF);
    let sysfs = tree.sysfs();
    let netdevs = sysfs.netdevs(|name, error| panic!("{name}: {error}")).unwrap();
    assert_eq!(uplink(&pci("0000:03:00.1"), &[], &netdevs), Uplink::Found { netdev: "uplink1".into(), bond: None });
    assert_eq!(represented(&sysfs, &[], "uplink1"), "nothing");
}

#[test]
fn mlx5_in_a_bond_has_the_right_physical_function() {
    for (hung, write) in [(Hung::OnPf, PF_AND_VF), (Hung::OnNothing, PF_AND_VF), (Hung::OnPf, VF), (Hung::OnPf, NUMBER)]
    {
        let tree = mlx5(BONDED, hung, write);
        tree.bond("bond0", &["uplink0", "uplink1"]);
        all_are_found(&tree.sysfs(), &[]);
        let bonded = |netdev: &str| Uplink::Found { netdev: netdev.to_owned(), bond: Some("bond0".to_owned()) };
        let netdevs = tree.sysfs().netdevs(|name, error| panic!("{name}: {error}")).unwrap();
        assert_eq!(uplink(&pci("0000:03:00.0"), &[], &netdevs), bonded("uplink0"));
        assert_eq!(uplink(&pci("0000:03:00.1"), &[], &netdevs), bonded("uplink1"));
    }
    // A bridge over the uplink is no bond.
    let tree = mlx5(TWO, Hung::OnPf, PF_AND_VF);
    tree.bond("br0", &["uplink0"]);
    std::fs::remove_dir_all(tree.path("class/net/br0/bonding")).unwrap();
    let netdevs = tree.sysfs().netdevs(|name, error| panic!("{name}: {error}")).unwrap();
    assert_eq!(uplink(&pci("0000:03:00.0"), &[], &netdevs), Uplink::Found { netdev: "uplink0".into(), bond: None });
}

#[test]
fn names_without_a_physical_function_in_a_bond_are_ambiguous() {
    for write in [VF, NUMBER] {
        let tree = mlx5(BONDED, Hung::OnNothing, write);
        let sysfs = tree.sysfs();
        assert_eq!(found(&sysfs, &[], &vfs_of(1)[3]), "SharedSwitch: eth0_3 eth1_3");
        assert_eq!(found(&sysfs, &[], "pci/0000:03:00.0:pf0vf3"), "SharedSwitch: eth0_3 eth1_3");
        assert_eq!(represented(&sysfs, &[], "eth1_3"), "nothing");
    }
    // The other port's representors may be there before one's own.
    let tree = mlx5(BONDED, Hung::OnNothing, NUMBER);
    std::fs::remove_file(tree.path("class/net/eth1_3")).unwrap();
    assert_eq!(found(&tree.sysfs(), &[], &vfs_of(1)[3]), "SharedSwitch: eth0_3");
    // Nor is it certain when the other port's netdev is in another network namespace and says nothing.
    std::fs::remove_file(tree.path("class/net/uplink0")).unwrap();
    assert_eq!(found(&tree.sysfs(), &[], &vfs_of(1)[3]), "SharedSwitch: eth0_3");
}

#[test]
fn a_representor_that_is_not_there_yet_is_not_anothers() {
    for hung in [Hung::OnPf, Hung::OnNothing] {
        let tree = mlx5(BONDED, hung, PF_AND_VF);
        std::fs::remove_file(tree.path("class/net/eth1_1")).unwrap();
        assert_eq!(found(&tree.sysfs(), &[], &vfs_of(1)[1]), "NotYet");
        for vf in 0..VFS {
            let _ = std::fs::remove_file(tree.path(&format!("class/net/eth1_{vf}")));
        }
        assert_eq!(found(&tree.sysfs(), &[], &vfs_of(1)[1]), "NotYet");
    }
}

#[test]
fn what_has_no_representor_is_told_apart() {
    let tree = Tree::new();
    let vfs = ["0000:03:00.2".to_owned()];
    tree.pci("0000:03:00.0", 0x15b3, 0x101d).sriov(8).netdev("uplink", Says::default()).vfs(0x101e, &vfs);
    let sysfs = tree.sysfs();
    assert_eq!(found(&sysfs, &[], "0000:03:00.2"), "NotSwitchdev(Device { bus: \"pci\", dev: \"0000:03:00.0\" })");
    assert!(found(&sysfs, &[], "0000:03:00.0").starts_with("NotVirtual"));
    assert_eq!(found(&sysfs, &[], "0000:03:00.3"), "Absent");
    assert_eq!(found(&sysfs, &[], "pci/0000:04:00.0:pf0vf0"), "Absent");
    // In legacy mode the uplink is whatever netdev there is.
    let netdevs = sysfs.netdevs(|name, error| panic!("{name}: {error}")).unwrap();
    assert_eq!(uplink(&pci("0000:03:00.0"), &[], &netdevs), Uplink::Found { netdev: "uplink".into(), bond: None });
    assert_eq!(uplink(&pci("0000:04:00.0"), &[], &netdevs), Uplink::None);
}

/// An E810 with two ports (`ice_devlink.c`, `ice_repr.c`): both are on one switch, whose number is the card's serial
/// number, and physical functions are numbered by the firmware. Behind a VMD, so that domains have five digits.
#[test]
fn ice_has_one_switch_for_the_card() {
    for hung in [Hung::OnPf, Hung::OnNothing] {
        let tree = Tree::new();
        for function in 0..2u8 {
            let switch = "40a6b7ffff2b5c10";
            let vfs: Vec<String> = (0..3).map(|vf| format!("10000:b1:{:02x}.{vf}", 1 + function)).collect();
            let mut made = tree
                .pci(&format!("10000:b1:00.{function}"), 0x8086, 0x1592)
                .driver("ice")
                .sriov(128)
                .netdev(&format!("uplink{function}"), Says { switch, port: &format!("p{function}") })
                .vfs(0x1889, &vfs);
            for vf in 0..3 {
                let (name, port) = (format!("eth{}", 9 - 3 * function - vf), format!("pf{function}vf{vf}"));
                match hung {
                    Hung::OnPf => made = made.netdev(&name, Says { switch, port: &port }),
                    Hung::OnNothing => tree.netdev(&name, Says { switch, port: &port }),
                }
            }
        }
        let sysfs = tree.sysfs();
        assert_eq!(found(&sysfs, &[], "10000:b1:01.2"), "eth7 pci/10000:b1:00.0:pf0vf2");
        assert_eq!(found(&sysfs, &[], "10000:b1:02.2"), "eth4 pci/10000:b1:00.1:pf1vf2");
        assert_eq!(represented(&sysfs, &[], "eth4"), "pci/10000:b1:00.1:pf1vf2 10000:b1:02.2");
    }
}

/// The second function of such a card, given to a guest: its address ends in 0 there, and its ports say `pf1`.
#[test]
fn a_physical_function_in_a_guest_keeps_its_number() {
    let vfs = ["0000:05:01.0".to_owned(), "0000:05:01.1".to_owned()];
    let guest = |hung: Hung, address: &str, number: u8| {
        let tree = Tree::new();
        let says = Says { switch: "40a6b7ffff2b5c10", port: "p1" };
        let mut made = tree.pci(address, 0x8086, 0x1592).sriov(128).netdev("uplink", says).vfs(0x1889, &vfs);
        for vf in 0..2 {
            let (name, port) = (format!("eth{vf}"), format!("pf{number}vf{vf}"));
            let says = Says { switch: says.switch, port: &port };
            match hung {
                Hung::OnPf => made = made.netdev(&name, says),
                Hung::OnNothing => tree.netdev(&name, says),
            }
        }
        tree
    };
    for hung in [Hung::OnPf, Hung::OnNothing] {
        let tree = guest(hung, "0000:05:00.0", 1);
        assert_eq!(found(&tree.sysfs(), &[], &vfs[1]), "eth1 pci/0000:05:00.0:pf1vf1");
        assert_eq!(represented(&tree.sysfs(), &[], "eth1"), "pci/0000:05:00.0:pf1vf1 0000:05:01.1");
        // A neighbour could be number 1, and the ports its: one switch may be for both.
        tree.pci("0000:05:00.1", 0x8086, 0x1592).sriov(128);
        assert_eq!(found(&tree.sysfs(), &[], &vfs[1]), "OtherNumbers: eth1");
        // Unless it has ports itself.
        tree.of("0000:05:00.1").netdev("eth9", Says { switch: "40a6b7ffff2b5c10", port: "pf0vf0" });
        let other = if hung == Hung::OnPf { "eth1 pci/0000:05:00.0:pf1vf1" } else { "NotYet" };
        assert_eq!(found(&tree.sysfs(), &[], &vfs[1]), other);
    }
    // Two functions that both end in 0, with one switch: what stands on nothing may be either's.
    let tree = guest(Hung::OnNothing, "0000:05:00.0", 0);
    tree.pci("0000:06:00.0", 0x8086, 0x1592)
        .sriov(128)
        .netdev("uplink2", Says { switch: "40a6b7ffff2b5c10", port: "p0" });
    assert_eq!(found(&tree.sysfs(), &[], &vfs[1]), "SharedSwitch: eth1");
    assert_eq!(represented(&tree.sysfs(), &[], "eth1"), "nothing");
}

/// A Netronome Agilio (`nfp_net_repr.c`, `nfp_port.c`): one physical function, two ports, a representor for the physical
/// function itself; its own netdev is on no switch.
#[test]
fn nfp_has_one_physical_function_for_two_ports() {
    let tree = Tree::new();
    let vfs = ["0000:01:08.0".to_owned(), "0000:01:08.1".to_owned()];
    let switch = "00154d1300bd";
    tree.pci("0000:01:00.0", 0x19ee, 0x4000)
        .driver("nfp")
        .sriov(48)
        .netdev("vnic", Says { switch: "", port: "n0" })
        .netdev("port0", Says { switch, port: "p0" })
        .netdev("port1", Says { switch, port: "p1" })
        .netdev("host", Says { switch, port: "pf0" })
        .netdev("ethx", Says { switch, port: "pf0vf1" })
        .netdev("ethy", Says { switch, port: "pf0vf0" })
        .vfs(0x6003, &vfs);
    let sysfs = tree.sysfs();
    assert_eq!(found(&sysfs, &[], &vfs[0]), "ethy pci/0000:01:00.0:pf0vf0");
    assert_eq!(found(&sysfs, &[], &vfs[1]), "ethx pci/0000:01:00.0:pf0vf1");
    assert_eq!(found(&sysfs, &[], "pci/0000:01:00.0:pf0"), "host pci/0000:01:00.0:pf0");
    assert_eq!(represented(&sysfs, &[], "host"), "pci/0000:01:00.0:pf0");
    assert_eq!(represented(&sysfs, &[], "vnic"), "nothing");
    assert_eq!(represented(&sysfs, &[], "port0"), "nothing");
    let several = Uplink::Several(BTreeSet::from(["port0".to_owned(), "port1".to_owned()]));
    assert_eq!(
        uplink(&pci("0000:01:00.0"), &[], &sysfs.netdevs(|name, error| panic!("{name}: {error}")).unwrap()),
        several
    );
}

/// i40e's and bnxt's forms: numbers alone, and a physical function's own representor that is number 65535.
#[test]
fn plain_numbers_are_virtual_functions() {
    let tree = Tree::new();
    let vfs: Vec<String> = (0..3).map(|vf| format!("0000:42:02.{vf}")).collect();
    let switch = "3cfdfea318f8";
    tree.pci("0000:42:00.0", 0x8086, 0x1583)
        .driver("i40e")
        .sriov(64)
        .netdev("p4p1", Says { switch, port: "" })
        .vfs(0x154c, &vfs);
    for (name, port) in [("rep-b", "1"), ("rep-a", "0"), ("rep-c", "2"), ("rep-pf", "65535")] {
        tree.netdev(name, Says { switch, port });
    }
    let sysfs = tree.sysfs();
    assert_eq!(found(&sysfs, &[], &vfs[0]), "rep-a pci/0000:42:00.0:pf0vf0");
    assert_eq!(found(&sysfs, &[], &vfs[2]), "rep-c pci/0000:42:00.0:pf0vf2");
    assert_eq!(represented(&sysfs, &[], "rep-c"), "pci/0000:42:00.0:pf0vf2 0000:42:02.2");
    let netdevs = sysfs.netdevs(|name, error| panic!("{name}: {error}")).unwrap();
    assert_eq!(uplink(&pci("0000:42:00.0"), &[], &netdevs), Uplink::Found { netdev: "p4p1".into(), bond: None });
}

/// A DPU: the functions of the server that it is in are on an external controller, with the same numbers as its own.
#[test]
fn a_controllers_functions_are_its_own() {
    let tree = Tree::new();
    let switch = "b8599f0300ff6a3c";
    let mut made = tree.pci("0000:03:00.0", 0x15b3, 0xa2d6).sriov(16).netdev("p0", Says { switch, port: "p0" });
    for (name, port) in [
        ("eth0", "c1pf0"),
        ("eth1", "c1pf0vf1"),
        ("eth2", "pf0vf1"),
        ("eth3", "pf0sf1"),
        ("eth4", "c2pf0vf1"),
        ("eth5", "c1pf0sf1"),
        ("eth6", "pf0sf88"),
    ] {
        made = made.netdev(name, Says { switch, port });
    }
    let vfs = ["0000:03:00.3".to_owned(), "0000:03:00.4".to_owned()];
    made.vfs(0x101e, &vfs);
    let sysfs = tree.sysfs();
    for (function, netdev) in [
        ("c1pf0", "eth0"),
        ("c1pf0vf1", "eth1"),
        ("pf0vf1", "eth2"),
        ("pf0sf1", "eth3"),
        ("c2pf0vf1", "eth4"),
        ("c1pf0sf1", "eth5"),
        ("pf0sf88", "eth6"),
    ] {
        let text = format!("pci/0000:03:00.0:{function}");
        assert_eq!(found(&sysfs, &[], &text), format!("{netdev} {text}"));
        let pci = if function == "pf0vf1" { " 0000:03:00.4" } else { "" };
        assert_eq!(represented(&sysfs, &[], netdev), format!("{text}{pci}"));
    }
    for absent in ["c1pf1vf1", "c3pf0vf1", "c1pf0vf0", "pf0", "pf0vf0", "pf0sf2"] {
        assert_eq!(found(&sysfs, &[], &format!("pci/0000:03:00.0:{absent}")), "NotYet", "{absent}");
    }
    assert_eq!(found(&sysfs, &[], "0000:03:00.4"), "eth2 pci/0000:03:00.0:pf0vf1");
    assert_eq!(found(&sysfs, &[], "0000:03:00.3"), "NotYet");
}

/// netdevsim's functions are on no PCI bus.
#[test]
fn a_device_need_not_be_a_pci_function() {
    let tree = Tree::new();
    let switch = "7b3a61c2d5";
    tree.device("netdevsim", "netdevsim10")
        .num_vfs(2)
        .netdev("eni10np1", Says { switch, port: "p1" })
        .netdev("eth0", Says { switch, port: "pf0vf1" })
        .netdev("eth1", Says { switch, port: "pf0vf0" });
    let sysfs = tree.sysfs();
    assert_eq!(found(&sysfs, &[], "netdevsim/netdevsim10:pf0vf1"), "eth0 netdevsim/netdevsim10:pf0vf1");
    assert_eq!(represented(&sysfs, &[], "eth1"), "netdevsim/netdevsim10:pf0vf0");
    assert_eq!(found(&sysfs, &[], "netdevsim/netdevsim10:pf1vf1"), "NotYet");
}

#[test]
fn a_name_without_a_physical_function_is_of_the_devices_own() {
    for write in [VF, NUMBER] {
        let tree = mlx5(TWO, Hung::OnPf, write);
        assert_eq!(found(&tree.sysfs(), &[], "pci/0000:03:00.1:pf1vf3"), "eth1_3 pci/0000:03:00.1:pf1vf3");
        assert_eq!(found(&tree.sysfs(), &[], "pci/0000:03:00.1:pf7vf3"), "OtherNumbers: eth1_3");
    }
}

#[test]
fn two_that_say_the_same_are_ambiguous() {
    let tree = mlx5(TWO, Hung::OnPf, PF_AND_VF);
    tree.of("0000:03:00.0").netdev("twin", Says { switch: TWO[0], port: "pf0vf3" });
    assert_eq!(found(&tree.sysfs(), &[], &vfs_of(0)[3]), "Several: eth0_3 twin");
}

/// The ports that mlx5 shows to devlink for the tree above.
fn mlx5_ports(numbers: [u16; 2]) -> Vec<Port> {
    let mut ports = Vec::new();
    for (function, number) in numbers.into_iter().enumerate() {
        let device = pci(&format!("0000:03:00.{function}"));
        let physical = Flavour::Physical { number: Some(u32::from(number)), split: None };
        ports.push(port(&device, 65535, physical, Some(&format!("uplink{function}"))));
        for index in 0..u16::from(VFS) {
            ports.push(port(&device, 1 + u32::from(index), vf(number, index), Some(&format!("eth{function}_{index}"))));
        }
    }
    ports
}

#[test]
fn devlink_says_the_same_as_sysfs_and_comes_first() {
    let tree = mlx5(BONDED, Hung::OnNothing, NUMBER);
    let sysfs = tree.sysfs();
    let ports = mlx5_ports([0, 1]);
    all_are_found(&sysfs, &ports);
    let netdevs = sysfs.netdevs(|name, error| panic!("{name}: {error}")).unwrap();
    let Representor::Found(one) = sysfs.representor(&address(&vfs_of(1)[3]), &ports, &netdevs).unwrap() else {
        panic!("not found");
    };
    assert_eq!((one.how, one.ifindex), (How::Devlink { port: 4 }, 1004));
    let Uplink::Found { netdev, .. } = uplink(&pci("0000:03:00.1"), &ports, &netdevs) else { panic!("no uplink") };
    assert_eq!(netdev, "uplink1");
}

#[test]
fn devlink_knows_the_number_of_a_physical_function() {
    // Given to a guest the other way round.
    let tree = mlx5(TWO, Hung::OnPf, |pf, vf| format!("pf{}vf{vf}", 1 - pf));
    let swapped = "eth1_3 pci/0000:03:00.1:pf0vf3";
    assert_eq!(found(&tree.sysfs(), &mlx5_ports([1, 0]), &vfs_of(1)[3]), swapped);
    assert_eq!(found(&tree.sysfs(), &[], &vfs_of(1)[3]), swapped);
    // The other one has a switch of its own, and no ports there yet: these are not its.
    for vf in 0..VFS {
        std::fs::remove_file(tree.path(&format!("class/net/eth0_{vf}"))).unwrap();
    }
    assert_eq!(found(&tree.sysfs(), &[], &vfs_of(1)[3]), swapped);

    // One switch for both physical functions: the second has ports of the first's device.
    let tree = mlx5(TWO, Hung::OnPf, PF_AND_VF);
    let device = pci("0000:03:00.0");
    let both: Vec<Port> = [(1, 0, 3, "eth0_3"), (2, 1, 3, "eth1_3"), (3, 1, 4, "eth1_4")]
        .map(|(index, pf, number, netdev)| port(&device, index, vf(pf, number), Some(netdev)))
        .into();
    assert_eq!(found(&tree.sysfs(), &both, &vfs_of(0)[3]), "eth0_3 pci/0000:03:00.0:pf0vf3");
    assert_eq!(found(&tree.sysfs(), &both, &vfs_of(0)[4]), "NotYet");
    // Those of the second are there first.
    assert_eq!(found(&tree.sysfs(), &both[1..], &vfs_of(0)[4]), "OtherNumbers: eth1_4");
    assert_eq!(found(&tree.sysfs(), &both, "pci/0000:03:00.0:pf1vf4"), "eth1_4 pci/0000:03:00.0:pf1vf4");
}

#[test]
fn a_port_of_devlink_without_a_netdev_is_not_there_yet() {
    let tree = mlx5(TWO, Hung::OnPf, PF_AND_VF);
    let mut ports = mlx5_ports([0, 1]);
    ports[4].netdev = None;
    assert_eq!(found(&tree.sysfs(), &ports, &vfs_of(0)[3]), "NotYet");
    ports.remove(4);
    assert_eq!(found(&tree.sysfs(), &ports, &vfs_of(0)[3]), "NotYet");
    ports.push(port(&pci("0000:03:00.0"), 900, vf(0, 4), Some("twin")));
    assert_eq!(found(&tree.sysfs(), &ports, &vfs_of(0)[4]), "Several: eth0_4 twin");
}

#[test]
fn devlink_without_ports_for_functions_is_passed_over() {
    let tree = mlx5(TWO, Hung::OnPf, PF_AND_VF);
    let ports: Vec<Port> =
        mlx5_ports([0, 1]).into_iter().filter(|port| matches!(port.flavour, Flavour::Physical { .. })).collect();
    let netdevs: Vec<NetdevFacts> = tree.sysfs().netdevs(|name, error| panic!("{name}: {error}")).unwrap();
    let sought = address(&vfs_of(1)[3]);
    let Representor::Found(one) = tree.sysfs().representor(&sought, &ports, &netdevs).unwrap() else {
        panic!("not found");
    };
    assert_eq!(one.how, How::Sysfs { port_name: "pf1vf3".to_owned() });
}

#[test]
fn an_external_controllers_port_is_not_a_local_functions() {
    let tree = mlx5(TWO, Hung::OnPf, PF_AND_VF);
    let device = pci("0000:03:00.0");
    let external = Flavour::PciVf { controller: 1, external: true, pf: 0, vf: 3 };
    let sub = Flavour::PciSf { controller: 0, external: false, pf: 0, sf: 3 };
    let ports = [port(&device, 1, external, Some("ext")), port(&device, 2, sub, Some("sub"))];
    let sysfs = tree.sysfs();
    assert_eq!(found(&sysfs, &ports, &vfs_of(0)[3]), "NotYet");
    assert_eq!(found(&sysfs, &ports, "pci/0000:03:00.0:c1pf0vf3"), "ext pci/0000:03:00.0:c1pf0vf3");
    assert_eq!(found(&sysfs, &ports, "pci/0000:03:00.0:pf0sf3"), "sub pci/0000:03:00.0:pf0sf3");
    assert_eq!(represented(&sysfs, &ports, "ext"), "pci/0000:03:00.0:c1pf0vf3");
}

#[test]
fn doubts_are_told_in_words() {
    for doubt in [Doubt::SharedSwitch, Doubt::OtherNumbers, Doubt::Several] {
        assert!(doubt.to_string().contains("ports"), "{doubt}");
    }
}
