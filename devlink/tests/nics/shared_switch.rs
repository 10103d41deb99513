//! Whatever NICs a host has and however their drivers name ports: a representor that is found is the function's own.
//!
//! The world is made by what is true (which netdev is whose), then told as sysfs tells it, and looked at through that.

use std::collections::{BTreeMap, BTreeSet};

use devlink::{
    Device, FunctionPart, Neighbour, NetdevFacts, PciAddress, PfNumber, Representor, Sought, SoughtFunction,
};
use proptest::prelude::*;

/// A physical function in such a world.
#[derive(Clone, Debug)]
struct Pf {
    /// The number that its ports say; with `digit` the same it is bare metal.
    number: u16,
    /// The last digit of its address.
    digit: u8,
    /// Which virtual functions have a representor already.
    vfs: BTreeSet<u16>,
    /// Whether its uplink is in this network namespace.
    visible: bool,
}

/// How all of a card's ports are told.
#[derive(Clone, Copy, Debug)]
struct Telling {
    names_have_pf: bool,
    hung_on_pf: bool,
    one_switch: bool,
    /// The physical functions are on one PCI bus, not on one each.
    one_bus: bool,
}

fn address(index: usize, pf: &Pf, telling: Telling) -> PciAddress {
    let bus = if telling.one_bus { 3 } else { 3 + u8::try_from(index).unwrap() };
    // Two of one digit on one bus are two devices.
    let device = if telling.one_bus { u8::try_from(index).unwrap() } else { 0 };
    PciAddress { domain: 0x1_0000, bus, device, function: pf.digit }
}

fn netdev(name: String, device: Option<Device>, switch: String, port: String) -> NetdevFacts {
    NetdevFacts {
        name,
        ifindex: 1,
        device,
        phys_switch_id: Some(switch),
        phys_port_name: Some(port),
        phys_port_id: None,
        dev_port: None,
        master: None,
        bond_slaves: None,
    }
}

/// What sysfs says, and whose each representor is: by physical function and virtual function.
fn told(pfs: &[Pf], telling: Telling) -> (Vec<NetdevFacts>, BTreeMap<(usize, u16), String>) {
    let mut netdevs = Vec::new();
    let mut whose = BTreeMap::new();
    for (index, pf) in pfs.iter().enumerate() {
        let switch = if telling.one_switch { "5a".to_owned() } else { format!("5a{index}") };
        let device = Device::from(address(index, pf, telling));
        if pf.visible {
            netdevs.push(netdev(format!("up{index}"), Some(device.clone()), switch.clone(), format!("p{}", pf.number)));
        }
        for vf in &pf.vfs {
            let name = format!("rep{index}_{vf}");
            let port = if telling.names_have_pf { format!("pf{}vf{vf}", pf.number) } else { vf.to_string() };
            netdevs.push(netdev(name.clone(), telling.hung_on_pf.then(|| device.clone()), switch.clone(), port));
            whose.insert((index, *vf), name);
        }
    }
    netdevs.sort_by(|a, b| a.name.cmp(&b.name));
    (netdevs, whose)
}

fn sought(pfs: &[Pf], index: usize, vf: u16, telling: Telling) -> Sought {
    let own = address(index, &pfs[index], telling);
    let neighbours = pfs
        .iter()
        .enumerate()
        .map(|(index, pf)| Neighbour { address: address(index, pf, telling), num_vfs: 4 })
        .filter(|neighbour| neighbour.address != own)
        .collect();
    Sought::Function(SoughtFunction {
        device: own.into(),
        controller: None,
        pf: PfNumber::Digit(own.function.into()),
        part: FunctionPart::Vf(vf),
        neighbours,
    })
}

fn pf() -> impl Strategy<Value = (u8, BTreeSet<u16>, bool)> {
    (0u8..2, prop::collection::btree_set(0u16..4, 0..4), prop::bool::weighted(0.8))
}

fn telling() -> impl Strategy<Value = Telling> {
    any::<[bool; 4]>().prop_map(|[names_have_pf, hung_on_pf, one_switch, one_bus]| Telling {
        names_have_pf,
        hung_on_pf,
        one_switch,
        one_bus,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn what_is_found_is_never_anothers(
        pfs in prop::collection::vec(pf(), 1..4),
        swapped: bool,
        telling in telling(),
    ) {
        let count = u16::try_from(pfs.len()).unwrap();
        let pfs: Vec<Pf> = (0..count)
            .zip(pfs)
            .map(|(index, (digit, vfs, visible))| {
                let number = if swapped { count - 1 - index } else { index };
                Pf { number, digit, vfs, visible }
            })
            .collect();
        let (netdevs, whose) = told(&pfs, telling);
        for index in 0..pfs.len() {
            for vf in 0..4 {
                if let Representor::Found(found) = sought(&pfs, index, vf, telling).representor(&[], &netdevs) {
                    prop_assert_eq!(Some(&found.netdev), whose.get(&(index, vf)), "VF {} of {:?}", vf, pfs[index]);
                }
            }
        }
    }

    /// On bare metal, with names or devices that say whose a port is, every representor is found.
    #[test]
    fn on_bare_metal_all_are_found(
        vfs in prop::collection::vec(prop::collection::btree_set(0u16..4, 0..4), 1..4),
        mut telling in telling(),
    ) {
        telling.names_have_pf |= !telling.hung_on_pf;
        telling.one_bus = true;
        let numbered = (0u16..).zip(0u8..).zip(vfs);
        let pfs: Vec<Pf> = numbered.map(|((number, digit), vfs)| Pf { number, digit, vfs, visible: true }).collect();
        let (netdevs, whose) = told(&pfs, telling);
        for ((index, vf), name) in &whose {
            match sought(&pfs, *index, *vf, telling).representor(&[], &netdevs) {
                Representor::Found(found) => prop_assert_eq!(&found.netdev, name),
                other => prop_assert!(false, "VF {} of {:?}: {:?}", vf, pfs[*index], other),
            }
        }
    }
}
