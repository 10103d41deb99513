//! PCI functions and netdevs in a sysfs tree that was made for it: what is read, what is written, what is refused.

use std::collections::BTreeSet;
use std::os::unix::fs::symlink;

use devlink::{Device, Iommu, PciAddress, Role, Sysfs, SysfsError};

use crate::tree::{Says, Tree};

const PF: &str = "10000:03:00.0";

fn at(address: &str) -> PciAddress {
    address.parse().unwrap()
}

fn names(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}

/// An 82576 with twelve functions, in a five-digit domain.
fn nic() -> Tree {
    let tree = Tree::new();
    let vfs: Vec<String> = (0..12).map(|vf| format!("10000:03:{:02x}.{}", 16 + vf / 8, vf % 8)).collect();
    tree.pci(PF, 0x8086, 0x10c9)
        .driver("igb")
        .sriov(63)
        .iommu_group(7)
        .netdev("uplink", Says::default())
        .vfs(0x10ca, &vfs);
    tree.of(&vfs[2]).driver("igbvf").iommu_group(8).netdev("guest", Says::default());
    tree
}

#[test]
fn a_physical_function_has_its_virtual_ones_in_the_order_of_their_numbers() {
    let tree = nic();
    let function = tree.sysfs().pci_function(at(PF)).unwrap();
    assert_eq!((function.vendor, function.device, function.class), (0x8086, 0x10c9, 0x02_0000));
    assert_eq!(function.driver.as_deref(), Some("igb"));
    assert_eq!(function.driver_override, None);
    assert!(function.modalias.unwrap().starts_with("pci:v00008086d000010C9"));
    assert_eq!(function.netdevs, names(&["uplink"]));
    let Role::Physical { sriov: Some(sriov) } = function.role else { panic!("{:?}", function.role) };
    assert_eq!((sriov.total, sriov.num, sriov.autoprobe), (Some(63), 12, true));
    // virtfn10 is before virtfn2 in a listing.
    let numbers: Vec<u16> = sriov.vfs.keys().copied().collect();
    assert_eq!(numbers, (0..12).collect::<Vec<u16>>());
    assert_eq!(sriov.vfs[&2], at("10000:03:10.2"));
    assert_eq!(sriov.vfs[&10], at("10000:03:11.2"));
}

#[test]
fn a_virtual_function_knows_whose_it_is_and_which() {
    let tree = nic();
    let function = tree.sysfs().pci_function(at("10000:03:10.2")).unwrap();
    assert_eq!(function.role, Role::Virtual { pf: at(PF), index: Some(2) });
    assert_eq!(function.iommu, Some(Iommu { group: 8, members: names(&["10000:03:10.2"]) }));
    assert_eq!(function.netdevs, names(&["guest"]));
    let last = tree.sysfs().role(at("10000:03:11.3")).unwrap();
    assert_eq!(last, Role::Virtual { pf: at(PF), index: Some(11) });
    // One that is just being made has its link already, and its physical function none to it.
    std::fs::remove_file(tree.path(&format!("bus/pci/devices/{PF}/virtfn11"))).unwrap();
    assert_eq!(tree.sysfs().role(at("10000:03:11.3")).unwrap(), Role::Virtual { pf: at(PF), index: None });
}

#[test]
fn an_iommu_group_has_all_its_members() {
    let tree = Tree::new();
    tree.pci("0000:04:00.0", 0x8086, 0x1521).iommu_group(31);
    tree.pci("0000:04:00.1", 0x8086, 0x1521).iommu_group(31);
    let iommu = tree.sysfs().pci_function(at("0000:04:00.1")).unwrap().iommu.unwrap();
    assert_eq!(iommu, Iommu { group: 31, members: names(&["0000:04:00.0", "0000:04:00.1"]) });
}

#[test]
fn what_is_not_there_is_told_so() {
    let tree = nic();
    let sysfs = tree.sysfs();
    let absent = at("0000:ff:00.0");
    for error in [
        sysfs.pci_function(absent).unwrap_err(),
        sysfs.role(absent).unwrap_err(),
        sysfs.unbind(absent).unwrap_err(),
        sysfs.bind(absent, "igb").unwrap_err(),
        sysfs.probe(absent).unwrap_err(),
    ] {
        assert!(matches!(error, SysfsError::NoFunction(address) if address == absent), "{error}");
    }
    assert!(sysfs.netdev("gone").unwrap().is_none());
    assert!(sysfs.sriov(&absent.into()).unwrap().is_none());
    let error = sysfs.set_num_vfs(&absent.into(), 1).unwrap_err();
    assert_eq!(error.to_string(), "there is no device pci/0000:ff:00.0");
    let error = Sysfs::at(tree.path("nowhere")).unwrap_err();
    assert!(error.to_string().ends_with("nowhere: ENOENT, there is no such function, driver or attribute"), "{error}");
}

#[test]
fn the_number_of_virtual_functions_changes_from_none_and_to_none() {
    let tree = nic();
    let sysfs = tree.sysfs();
    let device = Device::from(at(PF));
    let file = format!("bus/pci/devices/{PF}/sriov_numvfs");

    sysfs.set_num_vfs(&device, 12).unwrap();
    assert_eq!(tree.read(&file), "12\n");
    let error = sysfs.set_num_vfs(&device, 4).unwrap_err();
    assert!(matches!(error, SysfsError::NotThroughZero { now: 12, wanted: 4, .. }), "{error}");
    assert_eq!(tree.read(&file), "12\n");
    let error = sysfs.set_num_vfs(&device, 64).unwrap_err();
    assert_eq!(error.to_string(), "pci/10000:03:00.0 can have 63 virtual functions, and 64 are wanted");

    // A file keeps what is longer than what is written over it; sysfs does not.
    tree.file(&file, "9\n");
    sysfs.remake_vfs(&device, 4).unwrap();
    assert_eq!(tree.read(&file), "4\n");
    sysfs.set_num_vfs(&device, 0).unwrap();
    assert_eq!(tree.read(&file), "0\n");
    sysfs.set_num_vfs(&device, 3).unwrap();
    assert_eq!(tree.read(&file), "3\n");

    sysfs.set_drivers_autoprobe(at(PF), false).unwrap();
    assert!(!sysfs.sriov(&device).unwrap().unwrap().autoprobe);

    let error = sysfs.set_num_vfs(&at("10000:03:10.0").into(), 1).unwrap_err();
    assert!(matches!(error, SysfsError::NoSriov(_)), "{error}");
}

#[test]
fn a_driver_is_given_and_given_back() {
    let tree = nic();
    let sysfs = tree.sysfs();
    let vf = at("10000:03:10.2");
    sysfs.set_driver_override(vf, Some("vfio-pci")).unwrap();
    assert_eq!(sysfs.pci_function(vf).unwrap().driver_override.as_deref(), Some("vfio-pci"));
    let error = sysfs.bind(vf, "vfio-pci").unwrap_err();
    assert_eq!(error.to_string(), "there is no PCI driver \"vfio-pci\": its module is not loaded");
    sysfs.unbind(vf).unwrap();
    assert_eq!(tree.read("bus/pci/drivers/igbvf/unbind"), "10000:03:10.2");
    sysfs.bind(vf, "igbvf").unwrap();
    assert_eq!(tree.read("bus/pci/drivers/igbvf/bind"), "10000:03:10.2");
    sysfs.probe(vf).unwrap();
    assert_eq!(tree.read("bus/pci/drivers_probe"), "10000:03:10.2");
    // One without a driver has nothing to be taken from.
    sysfs.unbind(at("10000:03:10.3")).unwrap();
    assert_eq!(tree.read("bus/pci/drivers/igbvf/unbind"), "10000:03:10.2");

    tree.file("bus/pci/devices/10000:03:10.2/driver_override", "");
    sysfs.set_driver_override(vf, None).unwrap();
    assert_eq!(tree.read("bus/pci/devices/10000:03:10.2/driver_override"), "\n");
    assert_eq!(sysfs.pci_function(vf).unwrap().driver_override, None);
}

#[test]
fn a_refused_write_says_where_and_why() {
    let tree = nic();
    std::fs::remove_file(tree.path("bus/pci/drivers_probe")).unwrap();
    let error = tree.sysfs().probe(at(PF)).unwrap_err();
    let path = tree.path("bus/pci/drivers_probe");
    assert_eq!(
        error.to_string(),
        format!("cannot write \"{PF}\" to {}: ENOENT, there is no such function, driver or attribute", path.display())
    );
    assert_eq!(error.errno(), Some(2));
}

#[test]
fn names_do_not_lead_elsewhere() {
    let tree = nic();
    let sysfs = tree.sysfs();
    for name in ["", ".", "..", "../../bus", "a b", "a\n"] {
        assert!(matches!(sysfs.netdev(name), Err(SysfsError::BadName(_))), "{name:?}");
        assert!(matches!(sysfs.bind(at(PF), name), Err(SysfsError::BadName(_))), "{name:?}");
        assert!(matches!(sysfs.set_driver_override(at(PF), Some(name)), Err(SysfsError::BadName(_))), "{name:?}");
        let device = Device { bus: name.to_owned(), dev: "x".to_owned() };
        assert!(matches!(sysfs.sriov(&device), Err(SysfsError::BadName(_))), "{name:?}");
    }
}

#[test]
fn links_do_not_lead_out_of_the_tree() {
    let tree = nic();
    let outside = tempfile::tempdir().unwrap();
    std::fs::create_dir(outside.path().join("stranger")).unwrap();
    let folder = tree.path("bus/pci/devices/10000:03:10.4");
    symlink(outside.path(), folder.join("net")).unwrap();
    let error = tree.sysfs().pci_function(at("10000:03:10.4")).unwrap_err();
    assert!(error.to_string().ends_with("10000:03:10.4/net: EXDEV, a link leads out of sysfs"), "{error}");

    let numvfs = outside.path().join("numvfs");
    std::fs::write(&numvfs, "0\n").unwrap();
    let attribute = tree.path(&format!("bus/pci/devices/{PF}/sriov_drivers_autoprobe"));
    std::fs::remove_file(&attribute).unwrap();
    symlink(format!("{}{}", "../".repeat(40), numvfs.display()), &attribute).unwrap();
    let error = tree.sysfs().set_drivers_autoprobe(at(PF), true).unwrap_err();
    assert!(error.to_string().contains("EXDEV"), "{error}");
    assert_eq!(std::fs::read_to_string(numvfs).unwrap(), "0\n");
}

#[test]
fn what_is_read_has_bounds_and_a_form() {
    let tree = nic();
    let attribute = format!("bus/pci/devices/{PF}/modalias");
    tree.file(&attribute, &"x".repeat(1 << 20));
    let error = tree.sysfs().pci_function(at(PF)).unwrap_err();
    assert_eq!(error.errno(), Some(7), "{error}");
    tree.file(&attribute, "");
    assert_eq!(tree.sysfs().pci_function(at(PF)).unwrap().modalias, None);
    tree.file(&format!("bus/pci/devices/{PF}/sriov_numvfs"), "many\n");
    let error = tree.sysfs().sriov(&at(PF).into()).unwrap_err();
    assert!(error.to_string().ends_with("sriov_numvfs says \"many\", which is not a number"), "{error}");
}

#[test]
fn netdevs_say_what_they_stand_on_and_under() {
    let tree = Tree::new();
    for function in 0..2 {
        let says = Says { switch: "9c63c00300f0d24c", port: &format!("p{function}") };
        tree.pci(&format!("0000:03:00.{function}"), 0x15b3, 0x101d).netdev(&format!("eth{function}"), says);
    }
    tree.bond("bond0", &["eth0", "eth1"]);
    tree.bond("bond1", &[]);
    tree.netdev("tap1", Says::default());
    let netdevs = tree.sysfs().netdevs(|name, error| panic!("{name}: {error}")).unwrap();
    let told: Vec<&str> = netdevs.iter().map(|netdev| netdev.name.as_str()).collect();
    assert_eq!(told, ["bond0", "bond1", "eth0", "eth1", "tap1"]);
    assert_eq!(netdevs[0].bond_slaves, Some(names(&["eth0", "eth1"])));
    assert_eq!(netdevs[1].bond_slaves, Some(names(&[])));
    let slave = &netdevs[3];
    assert_eq!(slave.device, Some(at("0000:03:00.1").into()));
    assert_eq!(slave.phys_switch_id.as_deref(), Some("9c63c00300f0d24c"));
    assert_eq!(slave.phys_port_name.as_deref(), Some("p1"));
    assert_eq!(slave.master.as_deref(), Some("bond0"));
    assert_eq!((slave.dev_port, &slave.bond_slaves), (Some(0), &None));
    assert_eq!((&netdevs[4].device, &netdevs[4].phys_switch_id), (&None, &None));
}

#[test]
fn a_netdev_that_cannot_be_read_hides_no_other() {
    let tree = Tree::new();
    for name in ["eth0", "tapé", "odd"] {
        tree.netdev(name, Says::default());
    }
    tree.file("class/net/odd/ifindex", "many\n");
    tree.file("class/net/bonding_masters", "bond0\n");
    let mut said = Vec::new();
    let netdevs = tree.sysfs().netdevs(|name, error| said.push(format!("{name}: {error}"))).unwrap();
    assert_eq!(netdevs.iter().map(|netdev| netdev.name.as_str()).collect::<Vec<_>>(), ["eth0", "tapé"]);
    assert!(matches!(&said[..], [only] if only.starts_with("odd: ") && only.contains("many")), "{said:?}");
}

#[test]
fn nics_with_functions_are_listed() {
    let tree = nic();
    // Not a NIC, a NIC without functions, and one of netdevsim's.
    tree.pci("0000:00:1f.0", 0x8086, 0x2918).sriov(4);
    tree.file("bus/pci/devices/0000:00:1f.0/class", "0x060100\n");
    tree.pci("0000:05:00.0", 0x8086, 0x100e).netdev("eth9", Says::default());
    tree.device("netdevsim", "netdevsim10").num_vfs(2).netdev("eni10np1", Says::default());
    let nics = tree.sysfs().sriov_nics().unwrap();
    let told: Vec<String> = nics
        .iter()
        .map(|nic| format!("{} {:?} {:?} {} {:?}", nic.device, nic.driver, nic.total_vfs, nic.num_vfs, nic.netdevs))
        .collect();
    assert_eq!(
        told,
        [
            "netdevsim/netdevsim10 None None 2 {\"eni10np1\"}",
            "pci/10000:03:00.0 Some(\"igb\") Some(63) 12 {\"uplink\"}"
        ]
    );
}

#[test]
fn errors_of_the_kernel_have_their_names_and_paths() {
    for (number, told) in [
        (1, "EPERM, this process may not"),
        (2, "ENOENT, there is no such function"),
        (13, "EACCES, this process may not"),
        (16, "EBUSY, it is in use"),
        (18, "EXDEV, a link leads out"),
        (19, "ENODEV, there is no such device"),
        (30, "EROFS, sysfs is mounted read-only"),
        (95, "EOPNOTSUPP, the driver has no such thing"),
        (5, "(os error 5)"),
    ] {
        let source = std::io::Error::from_raw_os_error(number);
        let error = SysfsError::Write { path: "/sys/x/bind".into(), value: PF.to_owned(), source };
        let text = error.to_string();
        assert!(text.starts_with("cannot write \"10000:03:00.0\" to /sys/x/bind: ") && text.contains(told), "{text}");
        assert_eq!(error.errno(), Some(number));
    }
}
