//! What must not happen to NICs and to those who live on them: guests, containers and agents of others, VIFs whose notes are
//! being written, and everybody after a reboot.

use std::collections::BTreeMap;
use std::sync::Arc;

use devlink::vf::{Vlan, VlanProtocol};
use devlink::{Device, EswitchMode};
use serde_json::json;
use vifd::model::{AgentId, DriverBefore, Transition};
use vifd::plan::NicSettings;

use crate::case::{A, B, Case, record};
use crate::functions::{change, function, legacy, nic, offloaded, offloading, vf};

/// a VIF that is to be preserved and whose record is gone keeps its function from everybody for ever.
#[test]
fn never_a_preserved_vif_that_is_gone_keeps_the_function_from_the_next() {
    let mut case = Case::new([legacy(A, 0, &json!({"preserve_on_delete": true}))]);
    let device = nic(&mut case, "igb");
    case.settings.nics.insert(device.clone(), NicSettings { vfs: Some(1), ..NicSettings::default() });
    change(&mut case, &device, |nic| nic.eswitch = None);
    case.converge();
    case.say("A is deleted, the next guest gets the function");
    case.desired.deleted = std::mem::take(&mut case.desired.vifs).keys().copied().collect();
    case.converge();
    let next = legacy(B, 0, &json!({"address": "52:54:00:00:00:99"}));
    case.desired.vifs.insert(next.id, next);
    case.converge();
    let text = &case.text;
    assert!(text.contains(&format!("{B}: plugged")));
}

/// the functions are there when vifd starts (a boot script), the NIC is configured switchdev, and a record has one in legacy
/// mode (a macvtap): note and transition are written in one plan, and each waits for the other for ever.
#[test]
fn never_a_note_and_a_transition_of_one_plan_wait_for_each_other() {
    let vif = json!({"type": "direct", "vif_name": "tap1", "dev_address": vf(0), "mode": "passthrough", "port_profile": null});
    let mut case = Case::new([]);
    let device = nic(&mut case, "ice");
    case.settings.nics.insert(device.clone(), NicSettings { vfs: Some(2), ..NicSettings::default() });
    case.converge();
    case.say("vifd starts with switchdev configured and a record");
    let vif = record(A, &vif);
    case.desired.vifs.insert(vif.id, vif);
    case.settings.nics.get_mut(&device).unwrap().switchdev = true;
    case.converge();
    let text = &case.text;
    assert!(case.world.nics.transitions.is_empty(), "the transition has an end");
    assert!(!text.contains("whose functions are away"), "they are not away");
}

/// a driver for which nothing has to be done before: eswitch changed in the very plan in which the VIF that lives on the NIC is
/// noted (after `vifd release` and `vifd resume`, a lost state directory, or the first start).
#[test]
fn never_the_eswitch_is_changed_under_a_vif_whose_note_is_being_written() {
    let vif = json!({"type": "direct", "vif_name": "tap1", "dev_address": vf(0), "mode": "passthrough", "port_profile": null});
    let mut case = Case::new([record(A, &vif)]);
    let device = nic(&mut case, "nfp");
    case.settings.nics.insert(device.clone(), NicSettings { vfs: Some(1), ..NicSettings::default() });
    case.converge();
    case.say("released; configured switchdev; resumed");
    Arc::make_mut(&mut case.world.nics).undo.clear();
    case.settings.nics.get_mut(&device).unwrap().switchdev = true;
    case.converge();
    let text = &case.text;
    assert!(!text.contains("to switchdev mode\n"), "not under the VIF");
}

/// somebody else has functions in ways that `is_taken` does not know: a variant driver (`mlx5_vfio_pci`), and a netdev that is
/// in another network namespace (a container's).
#[test]
fn never_functions_of_guests_and_containers_are_taken_away() {
    let mut case = Case::new([]);
    let device = offloading(&mut case, "mlx5_core", 2);
    case.settings.nics.get_mut(&device).unwrap().switchdev = false;
    case.converge();
    {
        let nics = Arc::make_mut(&mut case.world.nics);
        let guest = nics.pci.get_mut(&vf(0).parse().unwrap()).unwrap();
        guest.driver = Some("mlx5_vfio_pci".into());
        guest.netdevs.clear();
        let container = nics.pci.get_mut(&vf(1).parse().unwrap()).unwrap();
        container.driver = Some("mlx5_core".into());
        container.netdevs.clear();
    }
    case.settings.nics.get_mut(&device).unwrap().switchdev = true;
    case.converge();
    let text = &case.text;
    assert!(!text.contains("off its driver"));
}

/// what an operator had overridden (driverctl) is cleared by the transition, and is not put back.
#[test]
fn never_a_driver_override_is_lost_by_a_transition() {
    let mut case = Case::new([]);
    let device = offloading(&mut case, "mlx5_core", 1);
    case.settings.nics.get_mut(&device).unwrap().switchdev = false;
    case.converge();
    let address: devlink::PciAddress = vf(0).parse().unwrap();
    Arc::make_mut(&mut case.world.nics).pci.get_mut(&address).unwrap().driver_override = Some("vf".into());
    case.settings.nics.get_mut(&device).unwrap().switchdev = true;
    case.converge();
    assert_eq!(case.world.nics.pci[&address].driver_override.as_deref(), Some("vf"));
}

/// a guest comes in the middle of a transition: what was taken off its driver stays off while the guest lives.
#[test]
fn never_a_guest_in_the_middle_of_a_transition_keeps_the_others_off() {
    let mut case = Case::new([]);
    let device = offloading(&mut case, "mlx5_core", 2);
    case.settings.nics.get_mut(&device).unwrap().switchdev = false;
    case.converge();
    {
        // vifd was killed here.
        let nics = Arc::make_mut(&mut case.world.nics);
        let before = || DriverBefore { driver: Some("vf".into()), driver_override: None };
        let both = [(vf(0).parse().unwrap(), before()), (vf(1).parse().unwrap(), before())].into();
        let note = vifd::model::Transition {
            agent: case.settings.agent.clone(),
            nic: device.to_string(),
            vfs: 2,
            unbound: both,
        };
        nics.transitions.insert(device.clone(), Arc::new(note));
        let of = nics.pci.get_mut(&vf(0).parse().unwrap()).unwrap();
        of.driver = None;
        of.netdevs.clear();
        nics.pci.get_mut(&vf(1).parse().unwrap()).unwrap().driver = Some("vfio-pci".into());
    }
    case.settings.nics.get_mut(&device).unwrap().switchdev = true;
    let other = legacy(A, 0, &json!({"type": "hostdevice"}));
    case.desired.vifs.insert(other.id, other);
    case.converge();
    assert!(case.world.nics.pci[&vf(0).parse().unwrap()].driver.is_some(), "it is brought back");
}

/// the representor of a function whose VIF never had to do with it is set down.
#[test]
fn never_a_representor_of_somebody_elses_is_set_down() {
    let vif = json!({
        "type": "nested_dpdk", "pci_address": vf(0), "dev_driver": "uio_pci_generic",
        "port_profile": {"type": "k8s_dpdk", "l3_setup": true},
    });
    let mut case = Case::new([]);
    offloading(&mut case, "ice", 1);
    case.converge();
    case.say("somebody else has the representor on a bridge, and it is up");
    let name = case
        .world
        .nics
        .nics
        .values()
        .next()
        .unwrap()
        .functions
        .values()
        .next()
        .unwrap()
        .representor
        .netdev()
        .unwrap()
        .name
        .clone();
    {
        let mut link = (*case.world.kernel.links[&name]).clone();
        link.up = true;
        case.world.kernel.links.insert(name.clone(), Arc::new(link));
    }
    let vif = record(A, &vif);
    case.desired.vifs.insert(vif.id, vif);
    case.converge();
    case.unplug();
    assert!(case.world.kernel.links[&name].up);
}

/// generic becomes ethernet: the guest's netdev is wanted, and the function stays with vfio-pci; said to be ready.
#[test]
fn never_a_record_that_wants_no_driver_any_more_keeps_it() {
    let mut case = Case::new([legacy(A, 0, &json!({"dev_type": "generic"}))]);
    let device = nic(&mut case, "igb");
    case.settings.nics.insert(device.clone(), NicSettings { vfs: Some(1), ..NicSettings::default() });
    change(&mut case, &device, |nic| nic.eswitch = None);
    case.converge();
    case.say("ethernet");
    let changed = legacy(A, 0, &json!({"dev_type": "ethernet"}));
    case.desired.vifs.insert(changed.id, changed);
    case.converge();
    let pci = &case.world.nics.pci[&vf(0).parse().unwrap()];
    assert_eq!((pci.driver.as_deref(), pci.driver_override.as_deref()), (Some("vf"), None));
}

/// a physical function whose virtual ones VIFs have is taken off its driver for an application, with all of them.
#[test]
fn never_a_physical_function_is_taken_from_under_its_vifs() {
    let nested = json!({
        "type": "nested_dpdk", "pci_address": "0000:03:00.0", "dev_driver": "uio_pci_generic",
        "port_profile": {"type": "k8s_dpdk", "l3_setup": true},
    });
    let mut case = Case::new([legacy(A, 0, &json!({}))]);
    let device = nic(&mut case, "igb");
    case.settings.nics.insert(device.clone(), NicSettings { vfs: Some(1), ..NicSettings::default() });
    change(&mut case, &device, |nic| nic.eswitch = None);
    case.converge();
    let nested = record(B, &nested);
    case.desired.vifs.insert(nested.id, nested);
    case.converge();
    let text = &case.text;
    assert!(!text.contains("bind 0000:03:00.0 to"));
}

/// no address was noted (the function chose its own later): zeros are given back, the function's driver chooses another, and so on.
#[test]
fn no_address_is_given_back_to_a_function_that_chooses_one() {
    let mut case = Case::new([legacy(A, 0, &json!({}))]);
    let device = nic(&mut case, "igb");
    case.settings.nics.insert(device.clone(), NicSettings { vfs: Some(1), ..NicSettings::default() });
    change(&mut case, &device, |nic| nic.eswitch = None);
    case.converge();
    case.say("unplug; its driver chooses an address whenever the physical function has none for it");
    case.desired.deleted = std::mem::take(&mut case.desired.vifs).keys().copied().collect();
    for round in 0..4 {
        let observed = case.world.observed();
        let (holds, flight, clashes) = (vifd::plan::Holds::default(), Default::default(), BTreeMap::new());
        let inputs = vifd::plan::Inputs {
            desired: &case.desired,
            clashes: &clashes,
            observed: &observed,
            holds: &holds,
            orders: &case.orders,
            in_flight: &flight,
            settings: &case.settings,
        };
        let plan = vifd::plan::plan(inputs, &mut vifd::plan::Memo::default(), std::time::Instant::now());
        let ops: Vec<String> = plan.nics.iter().map(|op| op.op.to_string()).collect();
        eprintln!("{round}: {ops:?}");
        for op in &plan.nics {
            case.world.apply_nic(&op.op);
        }
        function(&mut case, &device, 0, |of| {
            if let Some(settings) = &mut of.settings {
                settings.mac.get_or_insert(vifd::model::MacAddr([2, 0, 0, 0, 7, round]));
            }
        });
    }
    assert!(case.world.nics.undo.is_empty(), "it is given back");
}

/// what is in the way of the NIC is not told of the VIFs that wait for it.
#[test]
fn never_a_vif_is_told_that_its_nic_is_on_its_way_although_it_is_hindered() {
    let mut case = Case::new([legacy(A, 0, &json!({}))]);
    let device = nic(&mut case, "ice");
    case.settings.nics.insert(device.clone(), NicSettings { vfs: Some(2), ..NicSettings::default() });
    case.converge();
    case.settings.nics.get_mut(&device).unwrap().switchdev = true;
    let other = offloaded(B, 1, None);
    case.desired.vifs.insert(other.id, other);
    case.converge();
    let text = &case.text;
    assert!(!text.contains("which is on its way to switchdev mode"));
}

/// the mode is refused every time. What brings the functions back succeeds and lifts the hold, so that they are taken away and
/// made again without a pause.
#[test]
fn never_a_mode_that_is_refused_makes_functions_come_and_go() {
    use vifd::backend::{Outcome, Party};
    let mut case = Case::new([]);
    let device = offloading(&mut case, "ice", 2);
    case.settings.nics.get_mut(&device).unwrap().switchdev = false;
    case.converge();
    case.settings.nics.get_mut(&device).unwrap().switchdev = true;
    case.world
        .refused
        .insert(format!("set the eswitch of {device} to switchdev mode"), "Operation not supported".into());
    let (mut holds, now) = (vifd::plan::Holds::default(), std::time::Instant::now());
    let (mut taken, flight, clashes) = (0, Default::default(), BTreeMap::new());
    for round in 0..20 {
        let observed = case.world.observed();
        let inputs = vifd::plan::Inputs {
            desired: &case.desired,
            clashes: &clashes,
            observed: &observed,
            holds: &holds,
            orders: &case.orders,
            in_flight: &flight,
            settings: &case.settings,
        };
        let plan = vifd::plan::plan(inputs, &mut vifd::plan::Memo::default(), now);
        for op in &plan.nics {
            taken += usize::from(op.op.to_string().ends_with("to 0"));
            let outcome = case.world.apply_nic(&op.op);
            eprintln!("{round}: {} -> {outcome:?}", op.op);
            // As `Reconciler::note_outcomes` does while the quarrel is not hot.
            match outcome {
                Outcome::Done => holds.succeeded(Party::Nic(device.to_string()), vifd::plan::NICS),
                Outcome::Failed(error) => holds.refused(Party::Nic(device.to_string()), vifd::plan::NICS, error, now),
                _ => {}
            }
        }
    }
    assert!(taken <= 1, "the functions were taken away {taken} times at one moment");
}

/// the physical function's netdev is not in this network namespace when the VIF goes: the note is struck out, the address and the
/// VLAN stay, and nothing says so.
#[test]
fn never_a_note_is_struck_out_although_nothing_could_be_given_back() {
    let mut case = Case::new([legacy(A, 0, &json!({}))]);
    let device = nic(&mut case, "igb");
    case.settings.nics.insert(device.clone(), NicSettings { vfs: Some(1), ..NicSettings::default() });
    change(&mut case, &device, |nic| nic.eswitch = None);
    case.converge();
    case.say("the uplink goes for a while (a reload, another namespace): nobody tells of the settings");
    let mut uplinks = Vec::new();
    change(&mut case, &device, |nic| uplinks = std::mem::take(&mut nic.uplinks));
    let mut settings = None;
    function(&mut case, &device, 0, |of| settings = of.settings.take());
    case.unplug();
    case.say("it is back");
    change(&mut case, &device, |nic| nic.uplinks = uplinks);
    function(&mut case, &device, 0, |of| of.settings = settings);
    case.converge();
    let has = case.world.nics.nics[&device].functions.values().next().unwrap().settings.unwrap();
    assert_eq!((has.mac, has.vlan), (None, Vlan::default()));
}

/// the representor has its name by the kernel's word and not yet by the NICs' (their look comes later): said to be a conflict with
/// itself.
#[test]
fn a_representor_is_no_conflict_with_itself() {
    let mut case = Case::new([offloaded(A, 0, Some("nicdc065497-3c"))]);
    offloading(&mut case, "ice", 1);
    case.converge();
    let stale = Arc::clone(&case.world.nics);
    case.world.rename_link("nicdc065497-3c", "eth7");
    case.world.switch();
    let before = std::mem::replace(&mut case.world.nics, stale);
    case.world.rename_link("eth7", "nicdc065497-3c");
    // vifd sees what the NICs were when the representor was eth7.
    let renamed = std::mem::replace(&mut case.world.nics, before);
    drop(renamed);
    let verdict = crate::case::judged(&case, A).verdict;
    eprintln!("{verdict:?}");
    assert!(!matches!(verdict, vifd::plan::Verdict::Conflict { .. }));
}

/// a host is taken over from os-vif, which renames no representor; Nova always names one. The representor is renamed while it is a
/// port with traffic, the port that os-vif made stays behind, and another one is made with the same iface-id.
#[test]
fn never_a_representor_is_renamed_while_it_is_the_port_that_os_vif_made() {
    let mut case = Case::new([]);
    offloading(&mut case, "ice", 1);
    case.settings.adopt = true;
    case.converge();
    let name = case
        .world
        .nics
        .nics
        .values()
        .next()
        .unwrap()
        .functions
        .values()
        .next()
        .unwrap()
        .representor
        .netdev()
        .unwrap()
        .name
        .clone();
    let ids = [
        ("iface-id", A),
        ("attached-mac", "52:54:00:00:00:00"),
        ("iface-status", "active"),
        ("vm-uuid", "c1c0a3f1-8f2a-4c8e-9b0a-0b5a4f8d7e66"),
    ];
    case.world.add_port("br-int", &name, "", ids.map(|(key, value)| (key.to_owned(), value.to_owned())).into());
    case.world.switch();
    case.say("os-vif's port is there; vifd starts");
    let vif = offloaded(A, 0, Some("nicdc065497-3c"));
    case.desired.vifs.insert(vif.id, vif);
    case.converge().show();
    assert_eq!(case.world.ovs.ports.values().filter(|port| port.name != "br-int").count(), 1, "one port");
}

/// somebody else's port has the representor, and adoption is off: a conflict, and the function is changed all the same.
#[test]
fn never_a_function_is_changed_although_its_representor_is_somebody_elses_port() {
    let mut case = Case::new([]);
    offloading(&mut case, "ice", 1);
    case.converge();
    let name = case
        .world
        .nics
        .nics
        .values()
        .next()
        .unwrap()
        .functions
        .values()
        .next()
        .unwrap()
        .representor
        .netdev()
        .unwrap()
        .name
        .clone();
    case.world.add_port("br-int", &name, "", [("iface-id".to_owned(), "of-another-guest".to_owned())].into());
    case.world.switch();
    case.say("another guest has it; vifd starts");
    let vif = offloaded(A, 0, Some("nicdc065497-3c"));
    case.desired.vifs.insert(vif.id, vif);
    case.converge();
    let text = &case.text;
    assert!(!text.contains("change virtual function") && !text.contains("rename"), "nothing of another's is touched");
}

/// a record that changes its type keeps the function that it had.
#[test]
fn never_a_record_of_another_type_keeps_the_function() {
    let mut case = Case::new([legacy(A, 0, &json!({}))]);
    let device = nic(&mut case, "igb");
    case.settings.nics.insert(device.clone(), NicSettings { vfs: Some(1), ..NicSettings::default() });
    change(&mut case, &device, |nic| nic.eswitch = None);
    case.converge();
    case.say("a tap");
    let tap = crate::case::guest(A, 1, true);
    case.desired.vifs.insert(tap.id, tap);
    case.converge();
    assert!(case.world.nics.undo.is_empty());
}

/// What a reboot (or the reload of the PF's driver) leaves: notes on disk, the NIC in legacy mode, functions with fresh settings as
/// `vfs` says.
fn reboot(case: &mut Case, device: &Device, vfs: u32) {
    use vifd::backend::nics::NicOp;
    change(case, device, |nic| nic.eswitch.as_mut().unwrap().mode = Some(EswitchMode::Legacy));
    for count in [0, vfs] {
        case.world.apply_nic(&NicOp::SetVfCount { nic: device.clone(), count });
    }
    case.world.switch();
    case.say(&format!("the host was rebooted, {vfs} functions"));
}

/// the host reboots with a boot script that makes functions before vifd starts (or the PF's driver is reloaded): by its note the VIF
/// "lives on" the NIC, which therefore never gets to switchdev mode again.
#[test]
fn after_a_reboot_a_nic_gets_to_switchdev_mode_again() {
    let mut case = Case::new([offloaded(A, 0, None)]);
    let device = offloading(&mut case, "ice", 2);
    case.converge();
    reboot(&mut case, &device, 2);
    case.converge();
    let text = &case.text;
    assert!(text.lines().last().unwrap().contains("plugged, Ready"));
}

/// the same for bnxt_en without a boot script: functions come first, and then the VIF lives on them.
#[test]
fn after_a_reboot_functions_that_come_first_are_in_nobodys_way() {
    let mut case = Case::new([offloaded(A, 0, None)]);
    let device = offloading(&mut case, "bnxt_en", 2);
    case.converge();
    reboot(&mut case, &device, 0);
    case.converge();
    let text = &case.text;
    assert!(text.lines().last().unwrap().contains("plugged, Ready"));
}

/// as F24 for a driver that wants functions unbound.
#[test]
fn after_a_reload_mlx5_gets_to_switchdev_mode_again() {
    let mut case = Case::new([offloaded(A, 0, None)]);
    let device = offloading(&mut case, "mlx5_core", 2);
    case.converge();
    reboot(&mut case, &device, 2);
    case.converge();
    let text = &case.text;
    assert!(text.lines().last().unwrap().contains("plugged, Ready"));
}

/// somebody gives the function's netdev another address (a bond does, NetworkManager does): the function is taken off its driver
/// under whoever uses the netdev, again and again, although the address that the NIC has for it is right.
#[test]
fn a_function_in_use_is_not_probed_again() {
    use vifd::model::{FunctionPort, MacAddr};
    let mut case = Case::new([offloaded(A, 0, None)]);
    let device = offloading(&mut case, "mlx5_core", 1);
    let vif = std::mem::take(&mut case.desired.vifs);
    case.converge();
    function(&mut case, &device, 0, |of| {
        of.port = Some(FunctionPort { index: 1, hw_addr: Some(MacAddr::default()), active: None });
    });
    case.desired.vifs = vif;
    case.converge();
    case.say("the netdev is in a bond, which gave it its own address");
    let address: devlink::PciAddress = vf(0).parse().unwrap();
    let netdev = {
        let pci = Arc::make_mut(&mut case.world.nics);
        let of = pci.pci.get_mut(&address).unwrap();
        of.driver = Some("mlx5_core".into());
        of.netdevs.first().unwrap().clone()
    };
    let mut link = (*case.world.kernel.links[&netdev]).clone();
    (link.up, link.mac) = (true, Some(MacAddr([2, 0, 0, 0, 0, 0xbb])));
    case.world.kernel.links.insert(netdev, Arc::new(link));
    case.converge();
    let text = &case.text;
    assert!(!text.contains("look at it again"));
}

/// The address alone is changed of a function whose representor is a port: the limit, which the operator sets meanwhile, is the
/// operator's.
#[test]
fn never_settings_that_vifd_did_not_change_are_put_back() {
    let mut case = Case::new([offloaded(A, 0, None)]);
    let device = offloading(&mut case, "ice", 1);
    case.converge();
    function(&mut case, &device, 0, |of| {
        let of = of.settings.as_mut().unwrap();
        (of.max_rate, of.trust) = (500, Some(true));
    });
    case.converge().unplug();
    let has = case.world.nics.nics[&device].functions.values().next().unwrap().settings.unwrap();
    assert_eq!((has.mac, has.max_rate, has.trust), (None, 500, Some(true)));
}

#[test]
fn a_function_that_was_inactive_is_inactive_again() {
    use vifd::model::{FunctionPort, MacAddr};
    let mut case = Case::new([offloaded(A, 0, None)]);
    let device = offloading(&mut case, "mlx5_core", 1);
    let vif = std::mem::take(&mut case.desired.vifs);
    case.converge();
    let port = FunctionPort { index: 1, hw_addr: Some(MacAddr::default()), active: Some(false) };
    function(&mut case, &device, 0, |of| of.port = Some(port));
    let has = |case: &Case| case.world.nics.nics[&device].functions.values().next().unwrap().port;
    case.desired.vifs = vif;
    case.converge();
    assert_eq!(has(&case).unwrap().active, Some(true));
    case.unplug();
    assert_eq!(has(&case), Some(port));
}

/// In a VLAN of the right number and the wrong tag its traffic gets nowhere.
#[test]
fn a_vlan_of_another_tag_is_another_and_comes_back() {
    let mut case = Case::new([legacy(A, 0, &json!({}))]);
    let device = nic(&mut case, "igb");
    let vif = std::mem::take(&mut case.desired.vifs);
    case.settings.nics.insert(device.clone(), NicSettings { vfs: Some(1), ..NicSettings::default() });
    case.converge();
    let before = Vlan { id: 100, qos: 3, protocol: VlanProtocol::Dot1ad };
    function(&mut case, &device, 0, |of| of.settings.as_mut().unwrap().vlan = before);
    let has = |case: &Case| case.world.nics.nics[&device].functions.values().next().unwrap().settings.unwrap().vlan;
    case.desired.vifs = vif;
    case.converge();
    assert_eq!(has(&case), Vlan { id: 100, qos: 3, ..Vlan::default() }, "of the priority nothing is wanted");
    case.unplug();
    assert_eq!(has(&case), before);
}

/// What was set for a guest that had the function itself goes when its representor becomes a port, and is nobody's from then on.
#[test]
fn settings_that_a_record_keeps_no_more_go_back_once() {
    let mut case = Case::new([legacy(A, 0, &json!({}))]);
    let device = nic(&mut case, "netdevsim");
    case.settings.nics.insert(device.clone(), NicSettings { vfs: Some(1), ..NicSettings::default() });
    case.converge();
    let has = |case: &Case| case.world.nics.nics[&device].functions.values().next().unwrap().settings.unwrap().vlan.id;
    assert_eq!(has(&case), 100);
    case.settings.nics.get_mut(&device).unwrap().switchdev = true;
    let vif = offloaded(A, 0, None);
    case.desired.vifs.insert(vif.id, vif);
    case.converge();
    assert_eq!(has(&case), 0);
    function(&mut case, &device, 0, |of| of.settings.as_mut().unwrap().vlan.id = 7);
    case.converge().unplug();
    assert_eq!(has(&case), 7, "the operator's");
}

/// vifd is told to let go in the middle of a change of the mode.
#[test]
fn a_release_brings_back_what_is_away_and_leaves_functions_and_hints() {
    let nested = json!({
        "type": "nested_dpdk", "pci_address": "0000:00:05.0", "dev_driver": "uio_pci_generic",
        "port_profile": {"type": "k8s_dpdk", "l3_setup": true},
    });
    let mut case = Case::new([record(A, &nested)]);
    let device = nic(&mut case, "mlx5_core");
    case.settings.nics.insert(device.clone(), NicSettings { vfs: Some(2), ..NicSettings::default() });
    let plain = vifd::model::PciFunction { driver: Some("virtio-pci".into()), ..Default::default() };
    Arc::make_mut(&mut case.world.nics).pci.insert("0000:00:05.0".parse().unwrap(), plain);
    case.converge();
    let away: devlink::PciAddress = vf(1).parse().unwrap();
    let before = DriverBefore { driver: Some("vf".into()), driver_override: None };
    let transition =
        |agent| Transition { agent, nic: device.to_string(), vfs: 2, unbound: [(away, before.clone())].into() };
    let gone: Device = "pci/0000:09:00.0".parse().unwrap();
    let of_another = Transition { agent: AgentId("other".into()), ..transition(case.settings.agent.clone()) };
    let nics = Arc::make_mut(&mut case.world.nics);
    nics.transitions.insert(device.clone(), Arc::new(transition(case.settings.agent.clone())));
    nics.transitions.insert(gone.clone(), Arc::new(of_another));
    let function = nics.pci.get_mut(&away).unwrap();
    (function.driver, function.netdevs) = (None, Default::default());
    let hints = nics.hints.clone();
    assert_eq!((hints.len(), nics.undo.len()), (1, 1));
    for _ in 0..3 {
        for op in &vifd::plan::release(&case.world.observed(), &case.settings).nics {
            case.say(&op.op.to_string());
            assert_eq!(case.world.apply_nic(&op.op), vifd::backend::Outcome::Done);
        }
    }
    let nics = &case.world.nics;
    assert_eq!(nics.pci[&away].driver, before.driver, "{}", case.text);
    assert_eq!((nics.undo.len(), nics.transitions.keys().collect::<Vec<_>>(), &nics.hints), (0, vec![&gone], &hints));
    assert_eq!(nics.pci[&"0000:00:05.0".parse().unwrap()].driver.as_deref(), Some("uio_pci_generic"));
    assert!(vifd::plan::release(&case.world.observed(), &case.settings).nics.is_empty());
}
