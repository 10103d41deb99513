//! The devlink library against the real kernel: a NIC of netdevsim (Linux 6.1), which has an eswitch, rates and health reporters.
//!
//! Not here: sub-functions, which netdevsim has not had since Linux 5.17, functions with a MAC address or capabilities, and inline modes
//! and encapsulation, which it never had. Their octets are tested beside the codec.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use devlink::{
    Capabilities, Capability, Device, Devlink, Error, Eswitch, EswitchChange, EswitchMode, Ethtool, Event, Extack,
    Flavour, FunctionChange, FunctionState, HW_TC_OFFLOAD, LinkRef, Monitor, MonitorConfig, Netdev, NewParent,
    NewSubFunction, Port, PortHandle, Rate, RateChange, RateHandle, ReloadAction, Reporter, ReporterState,
};
use serde_json::{Value, json};
use tokio::time::timeout;
use vifd_integration::lab::in_vm;

use crate::nics::script;

/// How long the kernel may take to tell something.
const SOON: Duration = Duration::from_secs(20);

/// A NIC with a number of functions, in legacy mode; gone with the value.
struct Nic {
    device: Device,
}

impl Nic {
    fn with_functions(functions: u32) -> Result<Nic> {
        script(&format!(
            r#"modprobe psample
            insmod "$VIFD_VM/netdevsim/stock/netdevsim.ko"
            echo '10 1' >/sys/bus/netdevsim/new_device
            echo {functions} >/sys/kernel/debug/netdevsim/netdevsim10/max_vfs
            echo {functions} >/sys/bus/netdevsim/devices/netdevsim10/sriov_numvfs"#
        ))?;
        Ok(Nic { device: "netdevsim/netdevsim10".parse()? })
    }

    fn port(&self, index: u32) -> PortHandle {
        PortHandle { device: self.device.clone(), index }
    }
}

impl Drop for Nic {
    fn drop(&mut self) {
        let gone = script("echo 10 >/sys/bus/netdevsim/del_device; rmmod netdevsim");
        if let Err(error) = gone {
            println!("{error:#}");
        }
    }
}

fn played(scene: impl AsyncFnOnce() -> Result<()>) -> Result<()> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(scene())
}

const fn mode(mode: EswitchMode) -> EswitchChange {
    EswitchChange { mode: Some(mode), inline_mode: None, encap: None }
}

/// Events until one of them is the one that is waited for, that one included.
async fn until(monitor: &mut Monitor, mut last: impl FnMut(&Event) -> bool) -> Result<Vec<Event>> {
    let mut events = Vec::new();
    loop {
        let event = timeout(SOON, monitor.next()).await.with_context(|| format!("only {events:#?}"))??;
        let found = last(&event);
        events.push(event);
        if found {
            return Ok(events);
        }
    }
}

fn vf(port: &Port) -> Option<u16> {
    match port.flavour {
        Flavour::PciVf { controller: 0, external: false, pf: 0, vf } => Some(vf),
        _ => None,
    }
}

/// A port as `devlink -j port show` has it.
fn as_json(port: &Port) -> Result<(String, Value)> {
    let mut fields = json!({ "type": port.kind.to_string(), "flavour": port.flavour.to_string() });
    if let Some(netdev) = &port.netdev {
        fields["netdev"] = json!(netdev.name);
        let index: u32 = std::fs::read_to_string(format!("/sys/class/net/{}/ifindex", netdev.name))?.trim().parse()?;
        assert_eq!(netdev.index, index, "{port:?}");
    }
    if let Some(splittable) = port.splittable {
        fields["splittable"] = json!(splittable);
    }
    match port.flavour {
        Flavour::Physical { number: Some(number), split: None } => fields["port"] = json!(number),
        Flavour::PciVf { controller, external, pf, vf } => {
            fields["controller"] = json!(controller);
            fields["external"] = json!(external);
            fields["pfnum"] = json!(pf);
            fields["vfnum"] = json!(vf);
        }
        other => bail!("netdevsim has no ports of {other:?}"),
    }
    ensure!(port.function.is_none() && port.lanes.is_none() && port.ibdev.is_none(), "nor with more: {port:?}");
    Ok((port.handle().to_string(), fields))
}

async fn ports_are_those_of_devlink_8(devlink: &Devlink) -> Result<Vec<Port>> {
    let ports = devlink.ports(|error| panic!("{error}")).await?;
    let ours: serde_json::Map<_, _> = ports.iter().map(as_json).collect::<Result<_>>()?;
    let shown: Value = serde_json::from_str(&script("devlink -j port show")?)?;
    assert_eq!(json!({ "port": ours }), shown);
    for port in &ports {
        assert_eq!(&devlink.port(&port.handle()).await?, port);
    }
    Ok(ports)
}

#[test]
fn an_eswitch_changes_its_mode_and_every_representor_is_told() -> Result<()> {
    in_vm(|| {
        let nic = Nic::with_functions(3)?;
        played(async || {
            let devlink = Devlink::open()?;
            let mut monitor = Monitor::open(MonitorConfig::default())?;
            let device = &nic.device;
            assert_eq!(devlink.devices(|error| panic!("{error}")).await?, [devlink.device(device).await?]);
            let legacy = Eswitch { mode: Some(EswitchMode::Legacy), inline_mode: None, encap: None };
            assert_eq!(devlink.eswitch(device).await?, legacy);
            assert_eq!(ports_are_those_of_devlink_8(&devlink).await?.len(), 1, "its uplink");

            devlink.set_eswitch(device, mode(EswitchMode::Switchdev)).await?;
            assert_eq!(devlink.eswitch(device).await?.mode, Some(EswitchMode::Switchdev));
            let mut there = BTreeSet::new();
            let events = until(&mut monitor, |event| {
                if let Event::PortNew(port @ Port { netdev: Some(_), .. }) = event {
                    there.extend(vf(port));
                }
                there.len() == 3
            })
            .await?;
            let bare =
                |event: &&Event| matches!(event, Event::PortNew(port) if vf(port).is_some() && port.netdev.is_none());
            assert_eq!(events.iter().filter(bare).count(), 3, "each port comes before its link: {events:#?}");
            let leaves: Vec<_> = events.iter().filter(|event| matches!(event, Event::RateNew(_))).collect();
            assert_eq!(leaves.len(), 3, "{events:#?}");
            let ports = ports_are_those_of_devlink_8(&devlink).await?;
            assert_eq!(ports.iter().filter_map(vf).collect::<BTreeSet<_>>(), BTreeSet::from([0, 1, 2]));

            // This kernel tells nothing of a name that udev gives; a list has it, and the index stays.
            let renamed = ports.iter().find(|port| vf(port) == Some(1)).context("function 1")?;
            let link = renamed.netdev.as_ref().context("its link")?;
            script(&format!("ip link set {} name pf0vf1rep", link.name))?;
            let named = Netdev { index: link.index, name: "pf0vf1rep".to_owned() };
            assert_eq!(devlink.port(&renamed.handle()).await?, Port { netdev: Some(named), ..renamed.clone() });
            ports_are_those_of_devlink_8(&devlink).await?;

            devlink.set_eswitch(device, mode(EswitchMode::Legacy)).await?;
            let mut gone = BTreeSet::new();
            let is_last = |event: &Event| {
                if let Event::PortDel(port) = event {
                    assert_eq!(port.netdev, None);
                    gone.extend(vf(port));
                }
                gone.len() == 3
            };
            until(&mut monitor, is_last).await?;
            assert_eq!(devlink.eswitch(device).await?, legacy);
            assert_eq!(devlink.ports(|error| panic!("{error}")).await?.len(), 1);
            Ok(())
        })
    })
}

#[test]
fn what_is_refused_comes_with_the_kernels_words() -> Result<()> {
    in_vm(|| {
        let nic = Nic::with_functions(1)?;
        played(async || {
            let devlink = Devlink::open()?;
            let device = &nic.device;
            devlink.set_eswitch(device, mode(EswitchMode::Switchdev)).await?;
            let function = nic.port(128);

            let address = FunctionChange { hw_addr: Some([2, 0, 0, 0, 0, 1]), ..FunctionChange::default() };
            let error = devlink.set_function(&function, &address).await.unwrap_err();
            assert_eq!(
                error.to_string(),
                "cannot set the function behind port netdevsim/netdevsim10/128: hw_addr 02:00:00:00:00:01: leftover: Port doesn't \
                 support function attributes (EOPNOTSUPP: Operation not supported on transport endpoint)"
            );
            assert!(error.is_unsupported());

            // An attribute that this kernel does not know is named.
            let caps = Capabilities::default().with(Capability::Roce, false);
            let change = FunctionChange { caps, ..FunctionChange::default() };
            let error = devlink.set_function(&function, &change).await.unwrap_err();
            let refusal = error.refusal().context("a refusal")?;
            assert!(refusal.is_invalid() && !error.is_unsupported(), "{error}");
            assert_eq!(refusal.attribute.and_then(|attribute| attribute.kind), Some(4), "{error}");
            assert!(refusal.text.as_ref().is_some_and(|text| text.contains("port function attributes")), "{error}");
            let active = FunctionChange { state: Some(FunctionState::Active), ..FunctionChange::default() };
            let error = devlink.set_function(&function, &active).await.unwrap_err();
            assert!(error.is_unsupported(), "{error}");

            // Each setting of the switch is one of its own.
            let encap = EswitchChange { encap: Some(true), ..EswitchChange::default() };
            let error = devlink.set_eswitch(device, encap).await.unwrap_err();
            assert!(error.is_unsupported(), "{error}");
            let unknown = EswitchChange { mode: Some(EswitchMode::Other(7)), ..EswitchChange::default() };
            let error = devlink.set_eswitch(device, unknown).await.unwrap_err();
            assert!(error.refusal().is_some_and(Extack::is_invalid), "{error}");
            assert_eq!(devlink.eswitch(device).await?.mode, Some(EswitchMode::Switchdev));

            // netdevsim of Linux 6.1 has no sub-functions.
            let new = NewSubFunction { device: device.clone(), pf: 0, sf: Some(5), controller: None };
            let error = devlink.new_sub_function(&new).await.unwrap_err();
            assert!(error.is_unsupported(), "{error}");
            assert!(devlink.delete_port(&function).await.unwrap_err().is_unsupported());

            let absent = devlink.eswitch(&"pci/0000:00:1f.9".parse()?).await.unwrap_err();
            assert!(absent.refusal().is_some_and(Extack::is_absent), "{absent}");
            let absent = devlink.port(&nic.port(4711)).await.unwrap_err();
            assert!(absent.refusal().is_some_and(Extack::is_absent), "{absent}");
            Ok(())
        })
    })
}

#[test]
fn rates_make_a_tree_that_holds_the_mode() -> Result<()> {
    in_vm(|| {
        let nic = Nic::with_functions(2)?;
        played(async || {
            let devlink = Devlink::open()?;
            let device = &nic.device;
            devlink.set_eswitch(device, mode(EswitchMode::Switchdev)).await?;
            let mut monitor = Monitor::open(MonitorConfig::default())?;
            let leaf = |index| RateHandle::Leaf(nic.port(index));
            let gold = RateHandle::Node { device: device.clone(), name: "gold".to_owned() };
            let plain = |of: RateHandle| Rate { of, tx_share: 0, tx_max: 0, parent: None };
            assert_eq!(devlink.rates().await?, [plain(leaf(128)), plain(leaf(129))]);

            let gigabit = RateChange { tx_max: Some(125_000_000), ..RateChange::default() };
            devlink.new_rate(device, "gold", &gigabit).await?;
            let node = Rate { tx_max: 125_000_000, ..plain(gold.clone()) };
            assert_eq!(devlink.rate(&gold).await?, Some(node.clone()));
            until(&mut monitor, |event| *event == Event::RateNew(node.clone())).await?;

            let below = RateChange {
                tx_share: Some(1_250_000),
                tx_max: Some(12_500_000),
                parent: Some(NewParent::Node("gold".to_owned())),
            };
            devlink.set_rate(&leaf(128), &below).await?;
            let set = Rate { of: leaf(128), tx_share: 1_250_000, tx_max: 12_500_000, parent: Some("gold".to_owned()) };
            assert_eq!(devlink.rate(&leaf(128)).await?, Some(set.clone()));
            until(&mut monitor, |event| *event == Event::RateNew(set.clone())).await?;
            assert_eq!(devlink.rates().await?.len(), 3);

            let odd = RateChange { tx_share: Some(1), ..RateChange::default() };
            let error = devlink.set_rate(&leaf(128), &odd).await.unwrap_err();
            assert_eq!(
                error.to_string(),
                "cannot set rate netdevsim/netdevsim10/128: tx_share 1 octets/s: netdevsim: TX rate value not in link speed units \
                 of 1Mbps (EINVAL: Invalid argument)"
            );
            let error = devlink.set_eswitch(device, mode(EswitchMode::Legacy)).await.unwrap_err();
            assert_eq!(
                error.to_string(),
                "cannot set the eswitch of netdevsim/netdevsim10: mode legacy: leftover: Rate node(s) exists (EBUSY: Device or \
                 resource busy)"
            );
            let error = devlink.delete_rate(device, "gold").await.unwrap_err();
            assert!(error.to_string().contains("Node has children"), "{error}");

            let top = RateChange { parent: Some(NewParent::None), ..RateChange::default() };
            devlink.set_rate(&leaf(128), &top).await?;
            assert_eq!(devlink.rate(&leaf(128)).await?, Some(Rate { parent: None, ..set }));
            devlink.delete_rate(device, "gold").await?;
            until(&mut monitor, |event| *event == Event::RateDel(node.clone())).await?;
            devlink.set_eswitch(device, mode(EswitchMode::Legacy)).await?;
            assert_eq!(devlink.rates().await?, []);
            Ok(())
        })
    })
}

#[test]
fn health_and_reloads_are_told() -> Result<()> {
    in_vm(|| {
        let nic = Nic::with_functions(1)?;
        played(async || {
            let devlink = Devlink::open()?;
            let device = &nic.device;
            let mut monitor = Monitor::open(MonitorConfig::default())?;
            let info = devlink.info(device).await?;
            assert_eq!(info.driver.as_deref(), Some("netdevsim"));
            let version = |versions: &[devlink::Version]| {
                versions.iter().map(|version| format!("{} {}", version.name, version.value)).collect::<Vec<_>>()
            };
            assert_eq!(
                (version(&info.running), version(&info.stored)),
                (vec!["fw.mgmt 10.20.30".to_owned()], vec!["fw.mgmt 10.20.30".to_owned()])
            );

            let healthy = Reporter {
                device: device.clone(),
                port: None,
                name: "dummy".to_owned(),
                state: ReporterState::Healthy,
                errors: 0,
                recoveries: 0,
                auto_recover: Some(true),
                graceful_period: Some(0),
            };
            assert_eq!(devlink.reporter(device, "dummy").await?, healthy);
            let names: Vec<_> = devlink.reporters().await?.into_iter().map(|reporter| reporter.name).collect();
            assert_eq!(names, ["empty", "dummy"]);
            script("echo wrong >/sys/kernel/debug/netdevsim/netdevsim10/health/break_health")?;
            let broken = Reporter { state: ReporterState::Error, errors: 1, ..healthy.clone() };
            let recovered = Reporter { errors: 1, recoveries: 1, ..healthy.clone() };
            let told = until(&mut monitor, |event| *event == Event::HealthReporter(recovered.clone())).await?;
            assert!(told.contains(&Event::HealthReporter(broken)), "{told:#?}");
            assert_eq!(devlink.reporter(device, "dummy").await?, recovered);
            script(
                "echo 1 >/sys/kernel/debug/netdevsim/netdevsim10/health/fail_recover
                echo again >/sys/kernel/debug/netdevsim/netdevsim10/health/break_health || true",
            )?;
            let left = Reporter { state: ReporterState::Error, errors: 2, recoveries: 1, ..healthy };
            assert_eq!(devlink.reporter(device, "dummy").await?, left);
            let error = devlink.reporter(device, "none").await.unwrap_err();
            assert!(error.refusal().is_some(), "{error}");

            // A reload: the ports go and come, and it is counted.
            let before = devlink.device(device).await?;
            assert_eq!((before.reload_failed, before.reloads), (false, 0));
            let done = devlink.reload(device, ReloadAction::DriverReinit).await?;
            assert_eq!(done, [ReloadAction::DriverReinit]);
            let events =
                until(&mut monitor, |event| matches!(event, Event::DeviceNew(status) if status.reloads == 1)).await?;
            let gone = events.iter().position(|event| matches!(event, Event::PortDel(_))).context("no port went")?;
            let back = |event: &Event| matches!(event, Event::PortNew(port) if port.netdev.is_some());
            assert!(events[gone..].iter().any(back), "{events:#?}");
            assert!(events.iter().any(|event| matches!(event, Event::Other { device: Some(of), .. } if of == device)));

            let error = devlink.reload(device, ReloadAction::FirmwareActivate).await.unwrap_err();
            assert!(error.is_unsupported(), "{error}");
            script("echo 1 >/sys/kernel/debug/netdevsim/netdevsim10/fail_reload")?;
            let error = devlink.reload(device, ReloadAction::DriverReinit).await.unwrap_err();
            assert!(error.to_string().contains("User setup the reload to fail for testing purposes"), "{error}");
            until(&mut monitor, |event| matches!(event, Event::DeviceNew(status) if status.reload_failed)).await?;
            assert!(devlink.device(device).await?.reload_failed);
            script("echo 0 >/sys/kernel/debug/netdevsim/netdevsim10/fail_reload")?;
            devlink.reload(device, ReloadAction::DriverReinit).await?;
            assert!(!devlink.device(device).await?.reload_failed);
            Ok(())
        })
    })
}

#[test]
fn what_does_not_fit_is_told_as_an_overrun() -> Result<()> {
    in_vm(|| {
        let nic = Nic::with_functions(64)?;
        played(async || {
            let devlink = Devlink::open()?;
            let mut tiny = Monitor::open(MonitorConfig { receive_buffer: 1 })?;
            let mut roomy = Monitor::open(MonitorConfig::default())?;
            devlink.set_eswitch(&nic.device, mode(EswitchMode::Switchdev)).await?;
            assert_eq!(timeout(SOON, tiny.next()).await??, Event::Overrun);
            // What was lost is in the list that is made after that.
            assert_eq!(devlink.ports(|error| panic!("{error}")).await?.iter().filter_map(vf).count(), 64);
            let quiet = timeout(Duration::from_millis(300), tiny.next()).await;
            assert!(quiet.is_err(), "nothing happened after the list: {quiet:?}");
            // And it hears again.
            devlink.new_rate(&nic.device, "gold", &RateChange::default()).await?;
            until(&mut tiny, |event| matches!(event, Event::RateNew(_))).await?;
            devlink.delete_rate(&nic.device, "gold").await?;

            let mut there = BTreeSet::new();
            let events = until(&mut roomy, |event| {
                if let Event::PortNew(port @ Port { netdev: Some(_), .. }) = event {
                    there.extend(vf(port));
                }
                there.len() == 64
            })
            .await?;
            assert!(!events.contains(&Event::Overrun));
            Ok(())
        })
    })
}

#[test]
fn a_feature_is_set_or_said_to_be_fixed() -> Result<()> {
    in_vm(|| {
        let _nic = Nic::with_functions(0)?;
        played(async || {
            let name = script("ls /sys/bus/netdevsim/devices/netdevsim10/net")?.trim().to_owned();
            let index: u32 = std::fs::read_to_string(format!("/sys/class/net/{name}/ifindex"))?.trim().parse()?;
            let ethtool = Ethtool::open()?;
            let (by_name, by_index) = (LinkRef::Name(name.clone()), LinkRef::Index(index));
            let before = ethtool.features(&by_name).await?;
            assert_eq!(ethtool.features(&by_index).await?, before);
            // As ethtool(8) has them, which says other names for some.
            let shown = script(&format!("ethtool -k {name}"))?;
            for (feature, line) in [
                (HW_TC_OFFLOAD, "hw-tc-offload: off"),
                ("loopback", "loopback: off [fixed]"),
                ("highdma", "highdma: on [fixed]"),
            ] {
                assert!(shown.lines().any(|shown| shown.trim() == line), "{shown}");
                assert_eq!(before.active.contains(feature), line.contains(": on"), "{feature}: {before:#?}");
                assert_eq!(before.is_fixed(feature), line.ends_with("[fixed]"), "{feature}: {before:#?}");
                assert!(before.known.contains(feature));
            }

            let changed = ethtool.set_feature(&by_index, HW_TC_OFFLOAD, true).await?;
            assert_eq!(changed.into_iter().collect::<Vec<_>>(), [(HW_TC_OFFLOAD.to_owned(), true)]);
            assert!(ethtool.features(&by_name).await?.active.contains(HW_TC_OFFLOAD));
            assert!(script(&format!("ethtool -k {name}"))?.contains("hw-tc-offload: on"));
            assert!(ethtool.set_feature(&by_name, HW_TC_OFFLOAD, true).await?.is_empty(), "it is on already");
            ethtool.set_feature(&by_name, HW_TC_OFFLOAD, false).await?;
            assert_eq!(ethtool.features(&by_name).await?, before);

            let error = ethtool.set_feature(&by_name, "loopback", true).await.unwrap_err();
            assert!(matches!(&error, Error::FeatureNotSet { fixed: true, on: true, .. }), "{error:?}");
            assert_eq!(error.to_string(), format!("{name} leaves loopback off: it is fixed there"));
            assert!(ethtool.set_feature(&by_name, "loopback", false).await?.is_empty(), "it is off already");
            let error = ethtool.set_feature(&by_name, "tea", true).await.unwrap_err();
            assert_eq!(
                error.refusal().and_then(|refusal| refusal.text.as_deref()),
                Some("bit name not found"),
                "{error}"
            );
            let error = ethtool.features(&LinkRef::Index(4_000_000)).await.unwrap_err();
            assert!(error.refusal().is_some_and(Extack::is_absent), "{error}");
            Ok(())
        })
    })
}

/// What is dropped was not done, or was: requests after it have their own answers. With so many ports a list takes several datagrams.
#[test]
fn a_dropped_request_leaves_the_next_ones_alone() -> Result<()> {
    in_vm(|| {
        let nic = Nic::with_functions(300)?;
        played(async || {
            let devlink = Devlink::open()?;
            let change = devlink.set_eswitch(&nic.device, mode(EswitchMode::Switchdev));
            assert!(timeout(Duration::from_millis(1), change).await.is_err(), "300 ports in a millisecond");
            // It waits for the one before, and when its turn comes nobody wants it any more.
            let back = devlink.set_eswitch(&nic.device, mode(EswitchMode::Legacy));
            assert!(timeout(Duration::from_millis(1), back).await.is_err(), "300 ports in two milliseconds");
            for _ in 0..20 {
                let _ = timeout(Duration::from_micros(50), devlink.ports(|error| panic!("{error}"))).await;
            }
            let both = tokio::join!(devlink.ports(|error| panic!("{error}")), devlink.eswitch(&nic.device));
            assert_eq!((both.0?.len(), both.1?.mode), (301, Some(EswitchMode::Switchdev)));
            Ok(())
        })
    })
}
