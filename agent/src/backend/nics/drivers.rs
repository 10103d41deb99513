//! Giving PCI functions to drivers, and making virtual ones: what the kernel does within a write to sysfs, and may not come back
//! from before a guest lets go.
//!
//! `vfio-pci` lets a function go when nobody has it open any more, and whoever writes to `unbind` waits for that in the kernel,
//! where no signal ends it. So it is looked for before, and each such write has a thread of its own and a deadline; while one
//! hangs there is no second.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

use devlink::{Device, PciAddress, Role, Sysfs, SysfsError};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;

/// The driver that gives functions to guests.
const VFIO: &str = "vfio-pci";
/// For a driver to let go of a function.
const UNBOUND_WITHIN: Duration = Duration::from_secs(2);
/// For virtual functions to go, one after the other.
const REMOVED_WITHIN: Duration = Duration::from_secs(20);
/// For virtual functions to be made and their drivers to begin; some firmware takes a second for each.
const MADE_WITHIN: Duration = Duration::from_secs(90);

/// Why something was not done with a function.
#[derive(Debug, thiserror::Error)]
pub(super) enum DriverError {
    /// The function or the NIC is not there, or not as it was.
    #[error("{0}")]
    Another(String),
    #[error(transparent)]
    Sysfs(#[from] SysfsError),
    #[error("PCI function {0} is not taken from vfio-pci: a guest still has it")]
    InUse(PciAddress),
    #[error(
        "{0} is not done after {1:?}: a guest still has a function, or the driver is stuck; it is left to end by itself"
    )]
    Late(String, Duration),
    #[error("{0} was begun before and is not done yet: a guest still has a function, or the driver is stuck")]
    Busy(String),
    #[error("PCI function {function} is bound to {} and not to {wanted}", bound.as_deref().unwrap_or("no driver"))]
    NotTaken { function: PciAddress, wanted: String, bound: Option<String> },
    #[error("no driver takes PCI function {0}")]
    NobodyTakes(PciAddress),
    #[error("there is no PCI driver {0:?}: its module is not loaded")]
    NoDriver(String),
    #[error("cannot start a thread: {0}")]
    Thread(#[source] std::io::Error),
    #[error("this host has no sysfs")]
    NoSysfs,
}

/// The way to the drivers.
#[derive(Clone, Debug)]
pub(super) struct Drivers {
    sysfs: Option<Sysfs>,
    /// Where the devices of IOMMU groups are.
    vfio: PathBuf,
    /// Writes that are under way, by the function or the NIC that they are about.
    under_way: Arc<Mutex<BTreeSet<Device>>>,
}

impl Drivers {
    pub(super) fn new(sysfs: Option<Sysfs>, vfio: PathBuf) -> Self {
        Drivers { sysfs, vfio, under_way: Arc::default() }
    }

    fn sysfs(&self) -> Result<&Sysfs, DriverError> {
        self.sysfs.as_ref().ok_or(DriverError::NoSysfs)
    }

    /// Makes virtual functions where there are none, or takes all away.
    pub(super) fn set_vfs(&self, nic: &Device, count: u32) -> Result<(), DriverError> {
        let sysfs = self.sysfs()?.clone();
        if count == 0 {
            for vf in sysfs.sriov(nic)?.into_iter().flat_map(|sriov| sriov.vfs.into_values()) {
                self.not_in_use(&sysfs, vf)?;
            }
        }
        let limit = if count == 0 { REMOVED_WITHIN } else { MADE_WITHIN };
        let what = format!("setting the number of virtual functions of {nic} to {count}");
        let device = nic.clone();
        self.within(limit, nic, what, move || sysfs.set_num_vfs(&device, count))
    }

    /// Has a function bound to `driver`, or to none, with this `driver_override` from then on.
    pub(super) fn bind(
        &self,
        function: PciAddress,
        driver: Option<&str>,
        driver_override: Option<&str>,
    ) -> Result<(), DriverError> {
        let sysfs = self.sysfs()?;
        self.is_there(sysfs, function)?;
        if let Some(driver) = driver
            && !sysfs.root().join("bus/pci/drivers").join(driver).exists()
        {
            // Known before the function is taken from whoever has it.
            return Err(DriverError::NoDriver(driver.to_owned()));
        }
        let bound = sysfs.driver(function)?;
        let rebound = if bound.as_deref() == driver { Ok(()) } else { self.rebind(sysfs, function, driver) };
        // It takes no function from its driver; and it is as it is to be even where the driver is not.
        let overridden = sysfs.set_driver_override(function, driver_override);
        rebound?;
        Ok(overridden?)
    }

    /// Takes a function off its driver, where it has one, and has it bound again: to the same, where it had one.
    pub(super) fn probe_again(&self, function: PciAddress) -> Result<(), DriverError> {
        let sysfs = self.sysfs()?;
        self.is_there(sysfs, function)?;
        if let Some(driver) = sysfs.driver(function)? {
            let before = sysfs.pci_function(function)?.driver_override;
            let rebound = self.rebind(sysfs, function, Some(&driver));
            let overridden = sysfs.set_driver_override(function, before.as_deref());
            rebound?;
            return Ok(overridden?);
        }
        self.probe(sysfs, function)?;
        sysfs.driver(function)?.map(drop).ok_or(DriverError::NobodyTakes(function))
    }

    /// Takes a function off its driver and has it bound to `driver`, which is its override until somebody sets another: without,
    /// whichever knows it might take it, and a virtual function none where `sriov_drivers_autoprobe` is off
    /// (`pci_device_can_probe`, `drivers/pci/pci-driver.c`).
    fn rebind(&self, sysfs: &Sysfs, function: PciAddress, driver: Option<&str>) -> Result<(), DriverError> {
        if driver.is_some() {
            sysfs.set_driver_override(function, driver)?;
        }
        if sysfs.driver(function)?.is_some() {
            self.unbind(sysfs, function)?;
        }
        let Some(driver) = driver else { return Ok(()) };
        self.probe(sysfs, function)?;
        let bound = sysfs.driver(function)?;
        if bound.as_deref() == Some(driver) {
            return Ok(());
        }
        Err(DriverError::NotTaken { function, wanted: driver.to_owned(), bound })
    }

    fn is_there(&self, sysfs: &Sysfs, function: PciAddress) -> Result<Role, DriverError> {
        match sysfs.role(function) {
            Err(SysfsError::NoFunction(_)) => Err(DriverError::Another(format!("PCI function {function} is gone"))),
            role => Ok(role?),
        }
    }

    fn unbind(&self, sysfs: &Sysfs, function: PciAddress) -> Result<(), DriverError> {
        self.not_in_use(sysfs, function)?;
        let sysfs = sysfs.clone();
        let what = format!("taking PCI function {function} from its driver");
        self.within(UNBOUND_WITHIN, &function.into(), what, move || sysfs.unbind(function))
    }

    fn probe(&self, sysfs: &Sysfs, function: PciAddress) -> Result<(), DriverError> {
        let sysfs = sysfs.clone();
        let what = format!("having PCI function {function} bound");
        self.within(MADE_WITHIN, &function.into(), what, move || sysfs.probe(function))
    }

    /// Refuses what would wait for a guest: a group is opened by one alone (`vfio_group_fops_open`, `drivers/vfio/group.c`).
    /// Whoever may not open it, or opens functions one by one (`/dev/vfio/devices`), is left to the deadline.
    fn not_in_use(&self, sysfs: &Sysfs, function: PciAddress) -> Result<(), DriverError> {
        if sysfs.driver(function)?.as_deref() != Some(VFIO) {
            return Ok(());
        }
        let Some(iommu) = sysfs.pci_function(function)?.iommu else { return Ok(()) };
        if is_open(&self.vfio.join(iommu.group.to_string())) {
            return Err(DriverError::InUse(function));
        }
        Ok(())
    }

    /// Does what may block on a thread of its own, and waits for it so long.
    fn within(
        &self,
        limit: Duration,
        about: &Device,
        what: String,
        work: impl FnOnce() -> Result<(), SysfsError> + Send + 'static,
    ) -> Result<(), DriverError> {
        let under_way = || self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        if !under_way().insert(about.clone()) {
            return Err(DriverError::Busy(what));
        }
        let (done, end) = mpsc::channel();
        let ended = UnderWay { all: Arc::clone(&self.under_way), about: about.clone() };
        let begun = thread::Builder::new().name("nic".to_owned()).spawn(move || {
            let outcome = work();
            drop(ended);
            // Nobody may wait for it any more.
            let _ = done.send(outcome);
        });
        begun.map_err(DriverError::Thread)?;
        match end.recv_timeout(limit) {
            Ok(outcome) => Ok(outcome?),
            Err(_) => Err(DriverError::Late(what, limit)),
        }
    }
}

/// Struck out at the end, however that comes.
struct UnderWay {
    all: Arc<Mutex<BTreeSet<Device>>>,
    about: Device,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.all.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.about);
    }
}

fn is_open(group: &Path) -> bool {
    open(group, OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty()).err() == Some(Errno::EBUSY)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn what_hangs_is_not_waited_for_and_not_begun_twice() {
        let drivers = Drivers::new(None, "/nowhere".into());
        let nic: Device = "pci/0000:03:00.0".parse().unwrap();
        let (let_go, held) = mpsc::channel::<()>();
        let soon = Duration::from_millis(20);
        let hangs = move || {
            // Ends when the other end is gone.
            let _ = held.recv();
            Ok(())
        };
        let late = drivers.within(soon, &nic, "unbinding".into(), hangs).unwrap_err();
        assert!(late.to_string().contains("a guest still has"), "{late}");
        let again = drivers.within(soon, &nic, "unbinding".into(), || panic!("begun twice")).unwrap_err();
        assert!(matches!(&again, DriverError::Busy(_)), "{again}");
        let other = "pci/0000:03:00.1".parse().unwrap();
        drivers.within(Duration::from_secs(20), &other, "unbinding".into(), || Ok(())).unwrap();

        drop(let_go);
        let begun = Instant::now();
        while let Err(error) = drivers.within(Duration::from_secs(20), &nic, "unbinding".into(), || Ok(())) {
            assert!(begun.elapsed() < Duration::from_secs(20), "{error}");
            thread::sleep(Duration::from_millis(5));
        }
        assert!(matches!(drivers.set_vfs(&nic, 2), Err(DriverError::NoSysfs)));
    }
}
