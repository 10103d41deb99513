//! VIFs that have functions of NICs, and the NICs.

use std::sync::Arc;

use devlink::vf::Vlan;
use devlink::{Device, EswitchMode, FunctionNumber, FunctionPart};
use serde_json::{Value, json};
use vifd::backend::nics::{EswitchSetting, NicOp};
use vifd::backend::world::World;
use vifd::model::{Nic, NicFunction, NicPort, Representor, VfSettings, Vif};
use vifd::plan::NicSettings;

use crate::case::{A, B, Case, ovs, record, whole_life};

pub(crate) fn nic(case: &mut Case, driver: &str) -> Device {
    case.world.add_nic("0000:03:00.0".parse().unwrap(), driver, 8)
}

/// One that the configuration wants in switchdev mode, with so many functions.
pub(crate) fn offloading(case: &mut Case, driver: &str, vfs: u32) -> Device {
    let device = nic(case, driver);
    let wanted = NicSettings { switchdev: true, vfs: Some(vfs), ..NicSettings::default() };
    case.settings.nics.insert(device.clone(), wanted);
    device
}

pub(crate) fn change(case: &mut Case, device: &Device, change: impl FnOnce(&mut Nic)) {
    change(Arc::make_mut(Arc::make_mut(&mut case.world.nics).nics.get_mut(device).unwrap()));
}

pub(crate) fn function(case: &mut Case, device: &Device, vf: u16, edit: impl FnOnce(&mut NicFunction)) {
    let number = FunctionNumber { controller: None, pf: 0, part: FunctionPart::Vf(vf) };
    change(case, device, |nic| edit(nic.functions.get_mut(&number).unwrap()));
}

fn at(case: &mut Case, address: devlink::PciAddress) -> &mut vifd::model::PciFunction {
    Arc::make_mut(&mut case.world.nics).pci.get_mut(&address).unwrap()
}

pub(crate) fn vf(number: u16) -> String {
    let device = Device { bus: "pci".to_owned(), dev: "0000:03:00.0".to_owned() };
    World::function_address(&device, number).unwrap().to_string()
}

pub(crate) fn host_device(id: &str, number: u16, extra: &Value) -> Arc<Vif> {
    let mut vif = json!({"type": "hostdevice", "dev_address": vf(number)});
    for (key, value) in extra.as_object().unwrap() {
        vif[key] = value.clone();
    }
    record(id, &vif)
}

pub(crate) fn offloaded(id: &str, number: u16, name: Option<&str>) -> Arc<Vif> {
    let mut profile = ovs(&json!({"interface_id": id}));
    if let Some(name) = name {
        profile["datapath_offload"] = json!({"representor_name": name, "representor_address": vf(number)});
    }
    let mac = format!("52:54:00:00:00:{number:02x}");
    host_device(id, number, &json!({"dev_type": "ethernet", "address": mac, "port_profile": profile}))
}

pub(crate) fn legacy(id: &str, number: u16, extra: &Value) -> Arc<Vif> {
    let mut vif = json!({"dev_type": "ethernet", "network": {"vlan": 100}});
    for (key, value) in extra.as_object().unwrap() {
        vif[key] = value.clone();
    }
    host_device(id, number, &vif)
}

/// From legacy mode without functions to two ports, and back to what the functions were.
#[test]
fn a_nic_is_brought_to_switchdev_mode_and_its_representors_are_ports() {
    let mut case = Case::new([offloaded(A, 0, Some("nicdc065497-3c")), offloaded(B, 1, None)]);
    offloading(&mut case, "ice", 2);
    insta::assert_snapshot!(whole_life(&mut case));
}

#[test]
fn a_driver_that_wants_no_functions_in_the_way_gets_them_taken_away_and_brought_back() {
    let mut case = Case::new([offloaded(A, 0, None)]);
    let device = offloading(&mut case, "ice", 4);
    case.settings.nics.get_mut(&device).unwrap().switchdev = false;
    case.converge();
    case.say("now switchdev, and nothing is said of functions");
    case.settings.nics.insert(device, NicSettings { switchdev: true, ..NicSettings::default() });
    case.converge();
    insta::assert_snapshot!(case.text);
}

#[test]
fn a_driver_that_wants_functions_unbound_gets_them_unbound_and_bound_again() {
    let mut case = Case::new([offloaded(A, 0, None)]);
    let device = offloading(&mut case, "mlx5_core", 2);
    case.settings.nics.get_mut(&device).unwrap().switchdev = false;
    case.converge();
    case.say("now switchdev");
    case.settings.nics.get_mut(&device).unwrap().switchdev = true;
    case.converge();
    insta::assert_snapshot!(case.text);
}

#[test]
fn a_driver_that_wants_functions_first_gets_them_first() {
    let mut case = Case::new([offloaded(A, 0, None)]);
    offloading(&mut case, "bnxt_en", 2);
    case.converge();
    insta::assert_snapshot!(case.text);
}

#[test]
fn nothing_is_changed_under_those_who_live_on_a_nic() {
    let mut case = Case::new([legacy(A, 0, &json!({}))]);
    let device = nic(&mut case, "ice");
    case.settings.nics.insert(device.clone(), NicSettings { vfs: Some(2), ..NicSettings::default() });
    case.converge();
    case.say("another mode, other functions");
    case.settings.nics.insert(device.clone(), NicSettings { switchdev: true, vfs: Some(4), ..NicSettings::default() });
    case.converge();
    case.say("the VIF goes, and a guest that nobody told of has a function");
    case.desired.deleted = std::mem::take(&mut case.desired.vifs).keys().copied().collect();
    let address = vf(1).parse().unwrap();
    let has = Arc::make_mut(&mut case.world.nics).pci.get_mut(&address).unwrap();
    has.driver = Some("vfio-pci".into());
    has.netdevs.clear();
    case.converge();
    case.say("the guest goes");
    Arc::make_mut(&mut case.world.nics).pci.get_mut(&address).unwrap().driver = None;
    case.converge();
    insta::assert_snapshot!(case.text);
}

/// What a VIF that waits for the mode says is what is in the NIC's way, and who waits for it is in nobody's.
#[test]
fn who_waits_for_the_mode_says_what_is_in_its_way() {
    let mut case = Case::new([legacy(A, 0, &json!({}))]);
    let device = nic(&mut case, "netdevsim");
    case.settings.nics.insert(device.clone(), NicSettings { vfs: Some(2), ..NicSettings::default() });
    case.converge();
    case.say("another mode is wanted, and a VIF for it");
    case.settings.nics.get_mut(&device).unwrap().switchdev = true;
    let late = offloaded(B, 1, None);
    case.desired.vifs.insert(late.id, late);
    case.converge();
    case.say("the first VIF goes");
    case.desired.vifs.remove(&A.parse().unwrap());
    case.desired.deleted.insert(A.parse().unwrap());
    case.converge();
    case.say("the NIC comes out of the mode by itself");
    change(&mut case, &device, |nic| nic.eswitch.as_mut().unwrap().mode = Some(EswitchMode::Legacy));
    function(&mut case, &device, 1, |of| of.representor = Representor::None);
    case.converge();
    insta::assert_snapshot!(case.text);
}

#[test]
fn a_nic_that_nobody_wants_in_switchdev_mode_is_left_in_legacy_mode() {
    let mut case = Case::new([offloaded(A, 0, None)]);
    let device = nic(&mut case, "ice");
    case.settings.nics.insert(device, NicSettings { vfs: Some(1), ..NicSettings::default() });
    case.converge();
    insta::assert_snapshot!(case.text);
}

#[test]
fn what_is_not_there_is_told() {
    let mut case = Case::new([offloaded(A, 0, None), legacy(B, 7, &json!({"dev_address": "10000:e1:00.0"}))]);
    case.converge();
    case.say("a NIC that cannot have so many functions, and has no eswitch");
    let device = offloading(&mut case, "igb", 40);
    change(&mut case, &device, |nic| nic.eswitch = None);
    case.converge();
    case.say("only the number is wrong");
    case.settings.nics.get_mut(&device).unwrap().switchdev = false;
    case.converge();
    insta::assert_snapshot!(case.text);
}

#[test]
fn a_representor_that_goes_comes_back_by_another_name_or_cannot_be_told() {
    let mut case = Case::new([offloaded(A, 0, Some("nicdc065497-3c"))]);
    let device = offloading(&mut case, "ice", 1);
    case.converge();
    case.say("udev gives it its own name");
    case.world.rename_link("nicdc065497-3c", "eth7");
    case.world.switch();
    case.converge();
    case.say("it goes");
    case.world.remove_link("nicdc065497-3c");
    case.world.switch();
    case.converge();
    case.say("it is one of two");
    function(&mut case, &device, 0, |of| of.representor = Representor::Ambiguous(vec!["eth7".into(), "eth8".into()]));
    case.converge();
    insta::assert_snapshot!(case.text);
}

/// As a port it keeps its name, unless it is another link by now: Open vSwitch follows no port that is renamed.
#[test]
fn a_representor_without_a_name_of_its_own_keeps_that_of_its_port() {
    let mut case = Case::new([offloaded(A, 0, None)]);
    let device = offloading(&mut case, "ice", 1);
    case.converge();
    case.say("somebody renames it");
    // The datapath, which has no row in this world, is its master.
    Arc::make_mut(case.world.kernel.links.get_mut("r3000pf0vf0").unwrap()).master = Some(1);
    case.world.rename_link("r3000pf0vf0", "eth7");
    case.world.switch();
    case.converge();
    case.say("it goes, and comes back by another name");
    case.world.remove_link("r3000pf0vf0");
    case.world.switch();
    function(&mut case, &device, 0, |of| of.representor = Representor::None);
    case.converge();
    case.world.add_link("eth8", vifd::model::LinkKind::Other("ice".into()), None);
    let index = case.world.kernel.links["eth8"].index;
    function(&mut case, &device, 0, |of| {
        of.representor = Representor::Is(NicPort { index, name: "eth8".into(), tc_offload: Some(true) });
    });
    case.converge();
    insta::assert_snapshot!(case.text);
}

/// The links are read before the NICs are.
#[test]
fn a_representor_that_has_its_name_by_now_is_in_nobodys_way() {
    let mut case = Case::new([offloaded(A, 0, Some("nicdc065497-3c"))]);
    let device = offloading(&mut case, "ice", 1);
    case.converge();
    function(&mut case, &device, 0, |of| {
        let Representor::Is(port) = &mut of.representor else { panic!("{of:?}") };
        port.name = "eth7".into();
    });
    case.converge();
    insta::assert_snapshot!(case.text);
}

#[test]
fn a_name_that_another_link_has_is_a_conflict() {
    let mut case = Case::new([offloaded(A, 0, Some("eth9"))]);
    offloading(&mut case, "ice", 1);
    case.world.add_link("eth9", vifd::model::LinkKind::Veth, None);
    case.converge();
    insta::assert_snapshot!(case.text);
}

/// Somebody else has the function first; a record that moves to another function gives the first one back.
#[test]
fn a_record_that_moves_to_another_function_gives_the_first_one_back() {
    let mut case = Case::new([offloaded(A, 0, None)]);
    offloading(&mut case, "ice", 2);
    case.converge();
    case.say("another function");
    let moved = offloaded(A, 1, None);
    case.desired.vifs.insert(moved.id, moved);
    case.converge();
    insta::assert_snapshot!(case.text);
}

#[test]
fn settings_of_a_function_are_set_kept_and_given_back() {
    let policy = json!({"type": "hostdevice"});
    let mut case = Case::new([legacy(A, 0, &policy)]);
    let device = nic(&mut case, "igb");
    case.settings.nics.insert(device.clone(), NicSettings { vfs: Some(2), ..NicSettings::default() });
    change(&mut case, &device, |nic| nic.eswitch = None);
    case.converge();
    case.say("somebody changes them");
    function(&mut case, &device, 0, |of| {
        of.settings = Some(VfSettings {
            vlan: Vlan { id: 7, ..Vlan::default() },
            spoof_check: Some(false),
            trust: Some(true),
            ..of.settings.unwrap()
        });
    });
    case.converge().unplug();
    let settings = case.world.nics.nics[&device].functions.values().next().unwrap().settings;
    case.say(&format!("{settings:?}"));
    insta::assert_snapshot!(case.text);
}

#[test]
fn a_generic_device_is_bound_to_vfio_and_back() {
    let mut case = Case::new([legacy(A, 0, &json!({"dev_type": "generic"}))]);
    let device = nic(&mut case, "igb");
    case.settings.nics.insert(device, NicSettings { vfs: Some(1), ..NicSettings::default() });
    let text = whole_life(&mut case);
    insta::assert_snapshot!(text);
}

#[test]
fn a_macvtap_stands_on_a_function() {
    let vif = json!({"type": "direct", "vif_name": "tap1", "dev_address": vf(0), "mode": "passthrough", "port_profile": null});
    let mut case = Case::new([record(A, &vif)]);
    let device = nic(&mut case, "igb");
    case.settings.nics.insert(device.clone(), NicSettings { vfs: Some(1), ..NicSettings::default() });
    case.converge().show();
    case.say("the function has no netdev for a while");
    let address: devlink::PciAddress = vf(0).parse().unwrap();
    let netdevs = std::mem::take(&mut Arc::make_mut(&mut case.world.nics).pci.get_mut(&address).unwrap().netdevs);
    case.converge();
    Arc::make_mut(&mut case.world.nics).pci.get_mut(&address).unwrap().netdevs = netdevs;
    case.unplug();
    insta::assert_snapshot!(case.text);
}

/// As the macvtap comes and as it goes.
#[test]
fn a_driver_that_was_on_its_way_back_when_vifd_was_killed_comes_back() {
    let vif = json!({"type": "direct", "vif_name": "tap1", "dev_address": vf(0), "mode": "passthrough", "port_profile": null});
    let mut case = Case::new([record(A, &vif)]);
    let device = nic(&mut case, "igb");
    case.settings.nics.insert(device, NicSettings { vfs: Some(1), ..NicSettings::default() });
    let address: devlink::PciAddress = vf(0).parse().unwrap();
    let off = |case: &mut Case| {
        assert!(case.world.nics.undo.values().any(|undo| undo.driver.is_some()), "noted before it is away");
        case.say("vifd is killed when the driver is off the function");
        for name in std::mem::take(&mut at(case, address).netdevs) {
            case.world.remove_link(&name);
        }
        let function = at(case, address);
        function.driver_override = function.driver.take();
    };
    assert!(!case.rounds(4));
    off(&mut case);
    case.converge();
    case.say("unplug");
    case.desired.deleted = std::mem::take(&mut case.desired.vifs).keys().copied().collect();
    assert!(!case.rounds(3));
    off(&mut case);
    case.converge();
    let function = at(&mut case, address).clone();
    case.say(&format!("{:?} {:?}", function.driver, function.driver_override));
    insta::assert_snapshot!(case.text);
}

/// The function goes back to its driver, which gives it the netdev that the macvtap stands on.
#[test]
fn a_macvtap_stands_on_a_function_that_the_guest_had_whole() {
    let mut case = Case::new([legacy(A, 0, &json!({"dev_type": "generic"}))]);
    let device = nic(&mut case, "igb");
    case.settings.nics.insert(device, NicSettings { vfs: Some(1), ..NicSettings::default() });
    case.converge();
    case.say("a macvtap, in a mode in which the function keeps its own address");
    let vif =
        json!({"type": "direct", "vif_name": "tap1", "dev_address": vf(0), "mode": "bridge", "port_profile": null});
    let direct = record(A, &vif);
    case.desired.vifs.insert(direct.id, direct);
    case.converge().unplug();
    insta::assert_snapshot!(case.text);
}

#[test]
fn a_representor_of_dpdks() {
    let profile = ovs(&json!({"datapath_type": "netdev"}));
    let mut case = Case::new([host_device(A, 3, &json!({"port_profile": profile}))]);
    offloading(&mut case, "mlx5_core", 4);
    insta::assert_snapshot!(whole_life(&mut case));
}

#[test]
fn a_nested_application_gets_a_driver_and_the_driver_is_given_back() {
    let vif = json!({
        "type": "nested_dpdk", "pci_address": "0000:00:05.0", "dev_driver": "uio_pci_generic",
        "port_profile": {"type": "k8s_dpdk", "l3_setup": true},
    });
    let mut case = Case::new([record(A, &vif)]);
    let function = vifd::model::PciFunction { driver: Some("virtio-pci".into()), ..Default::default() };
    Arc::make_mut(&mut case.world.nics).pci.insert("0000:00:05.0".parse().unwrap(), function);
    insta::assert_snapshot!(whole_life(&mut case));
}

/// As os-vif and Nova leave it: in switchdev mode, the representor named and up, flows given to the NIC, the function's address
/// set, and a port. Nothing of it is made anew or goes down; when the VIF goes, it goes as one that vifd made.
#[test]
fn a_representor_that_os_vif_plugged_is_taken_over_as_it_is() {
    let mut case = Case::new([offloaded(A, 0, Some("nicdc065497-3c"))]);
    let device = nic(&mut case, "ice");
    let setting = EswitchSetting::Mode(EswitchMode::Switchdev);
    case.world.apply_nic(&NicOp::SetEswitch { nic: device.clone(), setting });
    case.world.apply_nic(&NicOp::SetVfCount { nic: device.clone(), count: 1 });
    let netdev = |case: &Case| {
        let function = case.world.nics.nics[&device].functions.values().next().unwrap();
        function.representor.netdev().unwrap().name.clone()
    };
    let name = netdev(&case);
    case.world.rename_link(&name, "nicdc065497-3c");
    let link = Arc::make_mut(case.world.kernel.links.get_mut("nicdc065497-3c").unwrap());
    (link.up, link.mtu) = (true, 1450);
    function(&mut case, &device, 0, |of| {
        let mac = Some("52:54:00:00:00:00".parse().unwrap());
        of.settings = Some(VfSettings { mac, ..of.settings.unwrap() });
        let Representor::Is(port) = &mut of.representor else { panic!("it has one") };
        port.tc_offload = Some(true);
    });
    case.world.switch();
    let ids =
        [("iface-id", A), ("iface-status", "active"), ("attached-mac", "52:54:00:00:00:00"), ("vm-uuid", "guest")];
    let ids = ids.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
    case.world.add_port("br-int", "nicdc065497-3c", "", ids);
    case.world.switch();
    case.say("adoption is off");
    case.converge();
    case.say("the record goes, and what is there is os-vif's as before");
    let vifs = std::mem::take(&mut case.desired.vifs);
    case.desired.deleted = vifs.keys().copied().collect();
    case.converge().show();
    case.say("adoption is on, and another name is wanted");
    case.settings.adopt = true;
    let other = offloaded(A, 0, Some("rep0"));
    case.desired.vifs.insert(other.id, other);
    case.converge();
    case.say("its own name");
    case.desired.vifs = vifs;
    case.converge().show().unplug();
    insta::assert_snapshot!(case.text);
}

#[test]
fn what_is_to_stay_stays_and_is_found_again() {
    let vif = legacy(A, 0, &json!({"preserve_on_delete": true}));
    let mut case = Case::new([Arc::clone(&vif)]);
    let device = nic(&mut case, "igb");
    case.settings.nics.insert(device, NicSettings { vfs: Some(1), ..NicSettings::default() });
    case.converge();
    case.say("unplug");
    case.desired.deleted = std::mem::take(&mut case.desired.vifs).keys().copied().collect();
    case.converge();
    case.say("plug");
    case.desired.vifs.insert(vif.id, vif);
    case.converge();
    insta::assert_snapshot!(case.text);
}

#[test]
fn no_mode_is_put_back() {
    let mut case = Case::new([]);
    let device = nic(&mut case, "ice");
    change(&mut case, &device, |nic| nic.eswitch.as_mut().unwrap().mode = Some(EswitchMode::Switchdev));
    case.settings.nics.insert(device, NicSettings { vfs: Some(1), ..NicSettings::default() });
    case.converge();
    insta::assert_snapshot!(case.text);
}

/// What the configuration says of the whole switch is set, and set again when somebody changes it; the rest is not vifd's.
#[test]
fn settings_of_the_whole_switch() {
    let mut case = Case::new([]);
    case.world.ovs.other_config.extend([("max-idle".to_owned(), "30000".to_owned())]);
    case.converge();
    let wanted = [("hw-offload", "true"), ("tc-policy", "none")];
    case.settings.switch_config = wanted.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    case.say("configured");
    case.converge();
    case.say("somebody changes it");
    case.world.ovs.other_config.extend([("hw-offload".to_owned(), "false".to_owned())]);
    case.converge();
    case.say(&format!("{:?}", case.world.ovs.other_config));
    insta::assert_snapshot!(case.text);
}

/// What a record wants no more goes back to what it was, while the VIF lives.
#[test]
fn a_record_that_wants_less_gives_back() {
    let mut case = Case::new([legacy(A, 0, &json!({"dev_type": "generic"}))]);
    let device = nic(&mut case, "igb");
    case.settings.nics.insert(device, NicSettings { vfs: Some(1), ..NicSettings::default() });
    case.converge();
    case.say("no guest gets it whole any more");
    let vif = legacy(A, 0, &json!({}));
    case.desired.vifs.insert(vif.id, vif);
    case.converge();
    insta::assert_snapshot!(case.text);
    let mut case = Case::new([offloaded(A, 0, Some("nicdc065497-3c"))]);
    offloading(&mut case, "ice", 1);
    case.converge();
    case.say("no name is wanted any more");
    let vif = offloaded(A, 0, None);
    case.desired.vifs.insert(vif.id, vif);
    case.converge();
    insta::assert_snapshot!("a_record_that_wants_no_name_any_more", case.text);
}
