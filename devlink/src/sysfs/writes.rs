//! What is changed through sysfs: how many virtual functions there are, and which driver has a function.
//!
//! Each call is one wish, refused with a reason. Whether a change is wanted, and who must be asked first, is the caller's.

use super::functions::{device_folder, folder};
use super::{Sysfs, SysfsError};
use crate::{Device, PciAddress, function};

impl Sysfs {
    /// Makes a device have `wanted` virtual ones, from none or to none. It is nothing if it has as many.
    ///
    /// Returns after the functions are made and, with `sriov_drivers_autoprobe`, drivers have taken them: seconds, for
    /// many.
    ///
    /// # Errors
    /// [`SysfsError::NotThroughZero`] if there are others, which would have to go first: the kernel says EBUSY to such a
    /// change, and who really wants it calls [`Sysfs::remake_vfs`]. [`SysfsError::NoSriov`], [`SysfsError::TooManyVfs`],
    /// and what the kernel refuses: EBUSY, where a function is in a guest's hands or the switch does not allow it now.
    pub fn set_num_vfs(&self, device: &Device, wanted: u32) -> Result<(), SysfsError> {
        match self.num_vfs_for(device, wanted)? {
            now if now == wanted => Ok(()),
            now if now != 0 && wanted != 0 => Err(SysfsError::NotThroughZero { device: device.clone(), now, wanted }),
            _ => self.write_num_vfs(device, wanted),
        }
    }

    /// Takes all virtual functions away from a device and makes `wanted` new ones, even if it has as many: whoever
    /// uses one loses it. If the second half fails there are none.
    ///
    /// # Errors
    /// Those of [`Sysfs::set_num_vfs`], but for [`SysfsError::NotThroughZero`].
    pub fn remake_vfs(&self, device: &Device, wanted: u32) -> Result<(), SysfsError> {
        if self.num_vfs_for(device, wanted)? != 0 {
            self.write_num_vfs(device, 0)?;
        }
        if wanted == 0 { Ok(()) } else { self.write_num_vfs(device, wanted) }
    }

    /// How many virtual functions there are now, if there can be as many as are wanted.
    fn num_vfs_for(&self, device: &Device, wanted: u32) -> Result<u32, SysfsError> {
        let sriov = self.sriov(device)?;
        if sriov.is_none() && !self.exists(&device_folder(device)?)? {
            return Err(SysfsError::NoDevice(device.clone()));
        }
        let sriov = sriov.ok_or_else(|| SysfsError::NoSriov(device.clone()))?;
        match sriov.total {
            Some(total) if wanted > total => Err(SysfsError::TooManyVfs { device: device.clone(), total, wanted }),
            _ => Ok(sriov.num),
        }
    }

    fn write_num_vfs(&self, device: &Device, wanted: u32) -> Result<(), SysfsError> {
        self.write(&format!("{}/sriov_numvfs", device_folder(device)?), &format!("{wanted}\n"))
    }

    /// Says whether drivers are looked for when virtual functions are made. Without, they are made faster and no netdev
    /// of theirs appears on the host.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn set_drivers_autoprobe(&self, pf: PciAddress, on: bool) -> Result<(), SysfsError> {
        self.write(&format!("{}/sriov_drivers_autoprobe", folder(pf)), if on { "1\n" } else { "0\n" })
    }

    /// Says which driver alone may have a PCI function from now on, or that any may that knows it. A driver that has it
    /// keeps it until it is unbound.
    ///
    /// # Errors
    /// [`SysfsError::BadName`] for what cannot be a driver, and what the kernel refuses.
    pub fn set_driver_override(&self, address: PciAddress, driver: Option<&str>) -> Result<(), SysfsError> {
        let driver = driver.map(checked).transpose()?.unwrap_or_default();
        self.write(&format!("{}/driver_override", folder(address)), &format!("{driver}\n"))
    }

    /// Takes a PCI function from its driver; nothing if it has none. Returns after the driver let go: vfio-pci does not
    /// before the guest has.
    ///
    /// # Errors
    /// [`SysfsError::NoFunction`], and what the kernel refuses.
    pub fn unbind(&self, address: PciAddress) -> Result<(), SysfsError> {
        if !self.exists(&folder(address))? {
            return Err(SysfsError::NoFunction(address));
        }
        match self.driver(address)? {
            None => Ok(()),
            Some(driver) => self.write(&format!("bus/pci/drivers/{driver}/unbind"), &address.to_string()),
        }
    }

    /// Gives a PCI function to a driver, which takes it if it knows it or is its override.
    ///
    /// # Errors
    /// [`SysfsError::NoFunction`], [`SysfsError::NoDriver`], and what the kernel refuses: ENODEV if the driver does not
    /// know the function, EBUSY if another has it.
    pub fn bind(&self, address: PciAddress, driver: &str) -> Result<(), SysfsError> {
        let folder_of_driver = format!("bus/pci/drivers/{}", checked(driver)?);
        if !self.exists(&folder(address))? {
            return Err(SysfsError::NoFunction(address));
        }
        if !self.exists(&folder_of_driver)? {
            return Err(SysfsError::NoDriver(driver.to_owned()));
        }
        self.write(&format!("{folder_of_driver}/bind"), &address.to_string())
    }

    /// Has the kernel look for a driver for a PCI function: its override, or whichever knows it. That none was found is
    /// no error; [`Sysfs::driver`] says who has it then.
    ///
    /// # Errors
    /// [`SysfsError::NoFunction`], and what the kernel or the driver refuses.
    pub fn probe(&self, address: PciAddress) -> Result<(), SysfsError> {
        if !self.exists(&folder(address))? {
            return Err(SysfsError::NoFunction(address));
        }
        self.write("bus/pci/drivers_probe", &address.to_string())
    }
}

fn checked(driver: &str) -> Result<&str, SysfsError> {
    if function::is_sysfs_name(driver) { Ok(driver) } else { Err(SysfsError::BadName(function::shown(driver))) }
}
