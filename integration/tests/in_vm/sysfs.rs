//! sysfs as the real kernel has it: virtual functions that come and go and change their driver (the emulated igb), and
//! representors, which devlink and sysfs have to say the same of (netdevsim).

use std::collections::BTreeSet;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use devlink::{
    Device, Devlink, Found, FunctionAddress, How, NetdevFacts, PciAddress, Port, Representor, Role, Sysfs, SysfsError,
    Uplink, uplink,
};
use vifd_integration::lab::in_vm;

use crate::nics::script;

const EBUSY: Option<i32> = Some(16);
const ENODEV: Option<i32> = Some(19);

/// Waits for what comes a moment later: a driver's netdev, udev's name for it.
fn within_seconds<T>(what: &str, mut look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let begun = Instant::now();
    loop {
        if let Some(seen) = look()? {
            return Ok(seen);
        }
        ensure!(begun.elapsed() < Duration::from_secs(20), "{what} does not come");
        sleep(Duration::from_millis(100));
    }
}

fn netdevs(sysfs: &Sysfs, address: PciAddress) -> Result<BTreeSet<String>> {
    Ok(sysfs.pci_function(address)?.netdevs)
}

#[test]
fn igb_functions_come_and_go_and_change_their_driver() -> Result<()> {
    in_vm(|| {
        script("modprobe igb; modprobe igbvf; modprobe vfio-pci")?;
        let sysfs = Sysfs::system()?;
        let is_igb = |driver: &Option<String>| driver.as_deref() == Some("igb");
        let nic = within_seconds("igb's NIC", || {
            let found = sysfs.sriov_nics()?.into_iter().find(|nic| is_igb(&nic.driver) && !nic.netdevs.is_empty());
            Ok(found)
        })?;
        ensure!((nic.total_vfs, nic.num_vfs) == (Some(7), 0), "{nic:?}");
        let (device, pf) = (nic.device.clone(), nic.device.dev.parse::<PciAddress>()?);
        let name = nic.netdevs.first().context("a netdev")?;
        assert_eq!(sysfs.netdev(name)?.context("the netdev")?.device.as_ref(), Some(&device));
        assert_eq!(
            uplink(&device, &[], &sysfs.netdevs(|name, error| panic!("{name}: {error}"))?),
            Uplink::Found { netdev: name.clone(), bond: None }
        );
        let is = sysfs.pci_function(pf)?;
        assert_eq!((is.vendor, is.device, is.class), (0x8086, 0x10c9, 0x02_0000));
        assert!(is.modalias.is_some_and(|alias| alias.starts_with("pci:v00008086d000010C9")));

        // From none and to none.
        sysfs.set_drivers_autoprobe(pf, false)?;
        sysfs.set_num_vfs(&device, 4)?;
        let sriov = sysfs.sriov(&device)?.context("SR-IOV")?;
        assert_eq!((sriov.num, sriov.autoprobe, sriov.vfs.len()), (4, false, 4));
        for (index, vf) in &sriov.vfs {
            assert_eq!(sysfs.role(*vf)?, Role::Virtual { pf, index: Some(*index) });
        }
        let refused = sysfs.set_num_vfs(&device, 2).unwrap_err();
        assert!(matches!(refused, SysfsError::NotThroughZero { now: 4, wanted: 2, .. }), "{refused}");
        let kernel = std::fs::write(format!("/sys/bus/pci/devices/{pf}/sriov_numvfs"), "2\n").unwrap_err();
        assert_eq!(kernel.raw_os_error(), EBUSY);
        let refused = sysfs.set_num_vfs(&device, 8).unwrap_err();
        assert!(matches!(refused, SysfsError::TooManyVfs { total: 7, wanted: 8, .. }), "{refused}");
        sysfs.remake_vfs(&device, 2)?;
        let vf = sysfs.sriov(&device)?.context("SR-IOV")?.vfs[&1];

        // No driver is looked for, and none may have it that is not its override.
        assert_eq!(sysfs.driver(vf)?, None);
        let refused = sysfs.bind(vf, "igbvf").unwrap_err();
        assert_eq!(refused.errno(), ENODEV, "{refused}");
        let told = refused.to_string();
        assert!(told.contains("/sys/bus/pci/drivers/igbvf/bind: ENODEV, there is no such device"), "{told}");
        sysfs.probe(vf)?;
        assert_eq!(sysfs.driver(vf)?, None);
        sysfs.set_driver_override(vf, Some("igbvf"))?;
        sysfs.probe(vf)?;
        assert_eq!(sysfs.driver(vf)?.as_deref(), Some("igbvf"));
        within_seconds("igbvf's netdev", || Ok(netdevs(&sysfs, vf)?.into_iter().next()))?;

        // To a guest.
        sysfs.unbind(vf)?;
        sysfs.set_driver_override(vf, Some("vfio-pci"))?;
        sysfs.bind(vf, "vfio-pci")?;
        let guests = sysfs.pci_function(vf)?;
        assert_eq!(guests.driver.as_deref(), Some("vfio-pci"));
        assert_eq!(guests.driver_override.as_deref(), Some("vfio-pci"));
        assert_eq!(guests.netdevs, BTreeSet::new());
        let iommu = guests.iommu.context("an IOMMU group")?;
        assert!(iommu.members.contains(&vf.to_string()), "{iommu:?}");

        // And back.
        sysfs.set_driver_override(vf, None)?;
        let refused = sysfs.bind(vf, "igbvf").unwrap_err();
        assert_eq!(refused.errno(), EBUSY, "{refused}");
        sysfs.unbind(vf)?;
        sysfs.unbind(vf)?;
        sysfs.set_drivers_autoprobe(pf, true)?;
        sysfs.probe(vf)?;
        let back = sysfs.pci_function(vf)?;
        assert_eq!((back.driver.as_deref(), back.driver_override), (Some("igbvf"), None));
        within_seconds("igbvf's netdev", || Ok(netdevs(&sysfs, vf)?.into_iter().next()))?;

        let address = FunctionAddress::from(vf);
        let found = sysfs.representor(&address, &[], &sysfs.netdevs(|name, error| panic!("{name}: {error}"))?)?;
        assert_eq!(found, Representor::NotSwitchdev(device.clone()));
        sysfs.set_num_vfs(&device, 0)?;
        assert!(matches!(sysfs.role(vf), Err(SysfsError::NoFunction(_))));
        assert_eq!(
            sysfs.representor(&address, &[], &sysfs.netdevs(|name, error| panic!("{name}: {error}"))?)?,
            Representor::Absent
        );
        script("rmmod igbvf igb")?;
        Ok(())
    })
}

fn found(sysfs: &Sysfs, address: &FunctionAddress, ports: &[Port], netdevs: &[NetdevFacts]) -> Result<Found> {
    match sysfs.representor(address, ports, netdevs)? {
        Representor::Found(found) => Ok(found),
        other => anyhow::bail!("{address}: {other:?}"),
    }
}

/// What devlink has for ports now.
fn ports() -> Result<Vec<Port>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(runtime.block_on(async { Devlink::open()?.ports(|error| panic!("{error}")).await })?)
}

#[test]
fn devlink_and_sysfs_find_the_same_representors() -> Result<()> {
    in_vm(|| {
        script(
            r#"modprobe psample
            insmod "$VIFD_VM/netdevsim/stock/netdevsim.ko"
            echo '10 1' >/sys/bus/netdevsim/new_device
            echo '11 1' >/sys/bus/netdevsim/new_device
            echo 12 >/sys/kernel/debug/netdevsim/netdevsim10/max_vfs"#,
        )?;
        let sysfs = Sysfs::system()?;
        let device: Device = "netdevsim/netdevsim10".parse()?;
        let function = |vf: u32| format!("{device}:pf0vf{vf}").parse::<FunctionAddress>();
        sysfs.set_num_vfs(&device, 2)?;
        // A switch in legacy mode has no representors.
        assert!(!matches!(
            sysfs.representor(&function(0)?, &ports()?, &sysfs.netdevs(|name, error| panic!("{name}: {error}"))?)?,
            Representor::Found(_)
        ));
        let refused = sysfs.set_num_vfs(&device, 12).unwrap_err();
        assert!(matches!(refused, SysfsError::NotThroughZero { now: 2, wanted: 12, .. }), "{refused}");
        sysfs.remake_vfs(&device, 12)?;
        script(
            "devlink dev eswitch set netdevsim/netdevsim10 mode switchdev; devlink dev eswitch set netdevsim/netdevsim11 mode switchdev",
        )?;

        let agree = || -> Result<BTreeSet<String>> {
            let (ports, netdevs) = (ports()?, sysfs.netdevs(|name, error| panic!("{name}: {error}"))?);
            let mut names = BTreeSet::new();
            for vf in 0..12 {
                let address = function(vf)?;
                let by_devlink = found(&sysfs, &address, &ports, &netdevs)?;
                let by_sysfs = found(&sysfs, &address, &[], &netdevs)?;
                assert!(matches!(by_devlink.how, How::Devlink { .. }), "{by_devlink:?}");
                assert_eq!(by_sysfs.how, How::Sysfs { port_name: format!("pf0vf{vf}") });
                assert_eq!(by_devlink, Found { how: by_devlink.how.clone(), ..by_sysfs });
                for ports in [&ports[..], &[]] {
                    let back = sysfs.represented(&by_devlink.netdev, ports, &netdevs)?.context("no function")?;
                    assert_eq!((back.function, back.pci), (address.clone(), None));
                }
                names.insert(by_devlink.netdev);
            }
            let up = uplink(&device, &ports, &netdevs);
            assert!(matches!(&up, Uplink::Found { netdev, bond: None } if !names.contains(netdev)), "{up:?}");
            assert_eq!(up, uplink(&device, &[], &netdevs));
            assert_eq!(sysfs.representor(&function(12)?, &ports, &netdevs)?, Representor::NotYet);
            assert_eq!(sysfs.representor(&function(12)?, &[], &netdevs)?, Representor::NotYet);
            let other = "netdevsim/netdevsim11:pf0vf1".parse()?;
            assert_eq!(sysfs.representor(&other, &ports, &netdevs)?, Representor::NotYet);
            assert_eq!(sysfs.representor(&other, &[], &netdevs)?, Representor::NotYet);
            Ok(names)
        };
        let names = agree()?;
        assert_eq!(names.len(), 12);
        // Names say nothing: two of them swap theirs.
        let [one, other] = [3, 10].map(|vf| {
            let at = function(vf).map_err(anyhow::Error::from);
            at.and_then(|at| found(&sysfs, &at, &[], &sysfs.netdevs(|name, error| panic!("{name}: {error}"))?))
                .map(|found| found.netdev)
        });
        let (one, other) = (one?, other?);
        script(&format!("ip link set {one} name swap; ip link set {other} name {one}; ip link set swap name {other}"))?;
        assert_eq!(agree()?, names);
        assert_eq!(
            found(&sysfs, &function(3)?, &ports()?, &sysfs.netdevs(|name, error| panic!("{name}: {error}"))?)?.netdev,
            other
        );
        script("echo 10 >/sys/bus/netdevsim/del_device; echo 11 >/sys/bus/netdevsim/del_device; rmmod netdevsim")?;
        assert_eq!(
            sysfs.representor(&function(3)?, &[], &sysfs.netdevs(|name, error| panic!("{name}: {error}"))?)?,
            Representor::Absent
        );
        Ok(())
    })
}
