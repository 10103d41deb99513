//! Giving PCI functions to drivers, and making virtual ones: what the kernel does within a write to sysfs, and may not come back
//! from before a guest lets go.
//!
//! `vfio-pci` lets a function go when nobody has it open any more, and whoever writes to `unbind` waits for that in the kernel,
//! where no signal ends it, with the function's lock. So it is looked for before; and each operation has a deadline
//! (`under_way.rs`).

use std::path::{Path, PathBuf};
use std::time::Duration;

use devlink::{Device, PciAddress, Sysfs, SysfsError};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;

use super::under_way::{Hung, UnderWay};

/// The driver that gives functions to guests.
const VFIO: &str = "vfio-pci";
/// For a function to be taken from its driver, and for the other to begin; some firmware takes seconds.
const BOUND_WITHIN: Duration = Duration::from_secs(5);
/// For virtual functions to be made or to go, one after the other, and for their drivers to begin or end.
const COUNTED_WITHIN: Duration = Duration::from_secs(90);

/// Why something was not done with a function.
#[derive(Debug, thiserror::Error)]
pub(super) enum DriverError {
    #[error("PCI function {0} is gone")]
    Gone(PciAddress),
    #[error("{0}{drop_in}", drop_in = if is_denied(.0) { TAKES_DROP_IN } else { "" })]
    Sysfs(#[from] SysfsError),
    #[error("PCI function {0} is not taken from vfio-pci: a guest still has it")]
    InUse(PciAddress),
    #[error(transparent)]
    Hung(#[from] Hung),
    #[error("PCI function {function} is bound to {} and not to {wanted}", bound.as_deref().unwrap_or("no driver"))]
    NotTaken { function: PciAddress, wanted: String, bound: Option<String> },
    #[error("no driver takes PCI function {0}")]
    NobodyTakes(PciAddress),
    #[error("there is no PCI driver {0:?}: its module is not loaded")]
    NoDriver(String),
    #[error("this host has no sysfs")]
    NoSysfs,
}

/// Behind an error that comes of running as the shipped unit has it: its sysfs is read-only, and its attributes are root's.
const TAKES_DROP_IN: &str = "; vifd may do it with deploy/vifd.service.d/nics.conf (docs/deployment.md, NICs)";

/// Whether it was not allowed, by the mode of a file or by a file system that is read-only.
fn is_denied(error: &SysfsError) -> bool {
    matches!(error, SysfsError::Write { .. })
        && error.errno().map(Errno::from_raw).is_some_and(|errno| matches!(errno, Errno::EACCES | Errno::EROFS))
}

/// The way to the drivers.
#[derive(Clone, Debug)]
pub(super) struct Drivers {
    bus: Option<Bus>,
    under_way: UnderWay,
}

impl Drivers {
    /// With the devices of IOMMU groups in `vfio`.
    pub(super) fn new(sysfs: Option<Sysfs>, vfio: PathBuf) -> Self {
        Drivers { bus: sysfs.map(|sysfs| Bus { sysfs, vfio }), under_way: UnderWay::default() }
    }

    pub(super) fn under_way(&self) -> UnderWay {
        self.under_way.clone()
    }

    /// Makes virtual functions where there are none, or takes all away.
    pub(super) fn set_vfs(&self, nic: &Device, count: u32) -> Result<(), DriverError> {
        let what = format!("setting the number of virtual functions of {nic} to {count}");
        let device = nic.clone();
        self.within(COUNTED_WITHIN, nic, what, move |bus| bus.set_vfs(&device, count))
    }

    /// Has a function bound to `driver`, or to none, with this `driver_override` from then on.
    pub(super) fn bind(
        &self,
        function: PciAddress,
        driver: Option<&str>,
        driver_override: Option<&str>,
    ) -> Result<(), DriverError> {
        let what = match driver {
            Some(driver) => format!("binding PCI function {function} to {driver}"),
            None => format!("taking PCI function {function} off its driver"),
        };
        let (driver, driver_override) = (driver.map(str::to_owned), driver_override.map(str::to_owned));
        let bind = move |bus: &Bus| bus.bind(function, driver.as_deref(), driver_override.as_deref());
        self.within(BOUND_WITHIN, &function.into(), what, bind)
    }

    /// Takes a function off its driver, where it has one, and has it bound again: to the same, where it had one.
    pub(super) fn probe_again(&self, function: PciAddress) -> Result<(), DriverError> {
        let what = format!("having the driver of PCI function {function} look at it again");
        self.within(BOUND_WITHIN, &function.into(), what, move |bus| bus.probe_again(function))
    }

    fn within(
        &self,
        limit: Duration,
        on: &Device,
        what: String,
        work: impl FnOnce(&Bus) -> Result<(), DriverError> + Send + 'static,
    ) -> Result<(), DriverError> {
        let bus = self.bus.clone().ok_or(DriverError::NoSysfs)?;
        self.under_way.within(limit, on, what, move || work(&bus))
    }
}

/// What is done, however long it takes.
#[derive(Clone, Debug)]
struct Bus {
    sysfs: Sysfs,
    /// Where the devices of IOMMU groups are.
    vfio: PathBuf,
}

impl Bus {
    fn set_vfs(&self, nic: &Device, count: u32) -> Result<(), DriverError> {
        if count == 0 {
            for vf in self.sysfs.sriov(nic)?.into_iter().flat_map(|sriov| sriov.vfs.into_values()) {
                self.not_in_use(vf)?;
            }
        }
        Ok(self.sysfs.set_num_vfs(nic, count)?)
    }

    fn bind(
        &self,
        function: PciAddress,
        driver: Option<&str>,
        driver_override: Option<&str>,
    ) -> Result<(), DriverError> {
        if let Some(driver) = driver
            && !self.sysfs.root().join("bus/pci/drivers").join(driver).exists()
        {
            // Known before the function is taken from whoever has it.
            return Err(DriverError::NoDriver(driver.to_owned()));
        }
        let bound = self.driver(function)?;
        let rebound = if bound.as_deref() == driver { Ok(()) } else { self.rebind(function, driver) };
        if let Err(DriverError::InUse(_)) = rebound {
            // Nothing was begun.
            return rebound;
        }
        // It takes no function from its driver; and it is as it is to be even where the driver is not.
        let overridden = self.sysfs.set_driver_override(function, driver_override);
        rebound?;
        Ok(overridden?)
    }

    fn probe_again(&self, function: PciAddress) -> Result<(), DriverError> {
        if let Some(driver) = self.driver(function)? {
            let before = self.sysfs.pci_function(function)?.driver_override;
            let rebound = self.rebind(function, Some(&driver));
            let overridden = self.sysfs.set_driver_override(function, before.as_deref());
            rebound?;
            return Ok(overridden?);
        }
        self.sysfs.probe(function)?;
        self.driver(function)?.map(drop).ok_or(DriverError::NobodyTakes(function))
    }

    /// Takes a function off its driver and has it bound to `driver`, which is its override until somebody sets another: without,
    /// whichever knows it might take it, and a virtual function none where `sriov_drivers_autoprobe` is off
    /// (`pci_device_can_probe`, `drivers/pci/pci-driver.c`).
    fn rebind(&self, function: PciAddress, driver: Option<&str>) -> Result<(), DriverError> {
        self.not_in_use(function)?;
        if driver.is_some() {
            self.sysfs.set_driver_override(function, driver)?;
        }
        self.sysfs.unbind(function)?;
        let Some(driver) = driver else { return Ok(()) };
        self.sysfs.probe(function)?;
        let bound = self.driver(function)?;
        if bound.as_deref() == Some(driver) {
            return Ok(());
        }
        Err(DriverError::NotTaken { function, wanted: driver.to_owned(), bound })
    }

    /// The driver of a function that is there.
    fn driver(&self, function: PciAddress) -> Result<Option<String>, DriverError> {
        if !self.sysfs.root().join("bus/pci/devices").join(function.to_string()).exists() {
            return Err(DriverError::Gone(function));
        }
        Ok(self.sysfs.driver(function)?)
    }

    /// Refuses what would wait for a guest: a group is opened by one alone (`vfio_group_fops_open`, `drivers/vfio/vfio_main.c`).
    /// Whoever may not open it, or opens functions one by one (`/dev/vfio/devices`), is left to the deadline.
    fn not_in_use(&self, function: PciAddress) -> Result<(), DriverError> {
        if self.sysfs.driver(function)?.as_deref() != Some(VFIO) {
            return Ok(());
        }
        let Some(iommu) = self.sysfs.pci_function(function)?.iommu else { return Ok(()) };
        if is_open(&self.vfio.join(iommu.group.to_string())) { Err(DriverError::InUse(function)) } else { Ok(()) }
    }
}

fn is_open(group: &Path) -> bool {
    open(group, OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty()).err() == Some(Errno::EBUSY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_allowed_is_told_with_what_allows_it() {
        let told = |errno: Errno| {
            let source = std::io::Error::from_raw_os_error(errno as i32);
            let path = "/sys/bus/pci/devices/0000:03:00.0/sriov_numvfs".into();
            DriverError::from(SysfsError::Write { path, value: "4".into(), source }).to_string()
        };
        for errno in [Errno::EACCES, Errno::EROFS] {
            assert!(told(errno).contains("sriov_numvfs") && told(errno).contains("nics.conf"), "{}", told(errno));
        }
        assert!(!told(Errno::EBUSY).contains("nics.conf"));
    }

    #[test]
    fn what_is_not_there_is_said_to_be_gone() {
        let root = tempfile::tempdir().unwrap();
        let drivers = Drivers::new(Sysfs::at(root.path()).ok(), "/nowhere".into());
        let gone = drivers.bind("0000:03:00.0".parse().unwrap(), None, None).unwrap_err();
        assert!(matches!(gone, DriverError::Gone(_)));
        let drivers = Drivers::new(None, "/nowhere".into());
        assert!(matches!(drivers.set_vfs(&"pci/0000:03:00.0".parse().unwrap(), 2), Err(DriverError::NoSysfs)));
    }
}
