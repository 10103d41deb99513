//! Makes sysfs trees in temporary folders, laid out as the kernel lays out its own: devices in `devices/`, everything else
//! links to them, and all links are relative.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use devlink::{PciAddress, Sysfs};

/// A tree that goes with it.
pub(crate) struct Tree {
    root: tempfile::TempDir,
}

/// A device that is being made.
pub(crate) struct Made<'a> {
    tree: &'a Tree,
    /// Its folder below the root.
    folder: String,
}

/// What a driver says of a netdev; empty texts are what it does not say.
#[derive(Clone, Copy, Default)]
pub(crate) struct Says<'a> {
    pub(crate) switch: &'a str,
    pub(crate) port: &'a str,
}

impl Tree {
    pub(crate) fn new() -> Self {
        let tree = Tree { root: tempfile::tempdir().unwrap() };
        for folder in ["bus/pci/devices", "bus/pci/drivers", "class/net", "devices/virtual/net"] {
            fs::create_dir_all(tree.path(folder)).unwrap();
        }
        tree.file("bus/pci/drivers_probe", "");
        tree
    }

    pub(crate) fn sysfs(&self) -> Sysfs {
        Sysfs::at(self.root.path()).unwrap()
    }

    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.root.path().join(path)
    }

    pub(crate) fn file(&self, path: &str, text: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    pub(crate) fn read(&self, path: &str) -> String {
        fs::read_to_string(self.path(path)).unwrap()
    }

    /// A link at `from` to `to`, both from the root; the link itself is relative.
    pub(crate) fn link(&self, from: &str, to: &str) {
        let path = self.path(from);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        symlink(relative(Path::new(from).parent().unwrap(), to), path).unwrap();
    }

    /// A PCI function of a network controller, without a driver.
    pub(crate) fn pci(&self, address: &str, vendor: u16, device: u16) -> Made<'_> {
        let parsed: PciAddress = address.parse().unwrap();
        let folder = format!("devices/pci{:04x}:00/{address}", parsed.domain);
        let file = |name: &str, text: String| self.file(&format!("{folder}/{name}"), &text);
        file("vendor", format!("{vendor:#06x}\n"));
        file("device", format!("{device:#06x}\n"));
        file("class", "0x020000\n".to_owned());
        file("modalias", format!("pci:v{vendor:08X}d{device:08X}sv00000000sd00000000bc02sc00i00\n"));
        file("driver_override", "(null)\n".to_owned());
        self.link(&format!("{folder}/subsystem"), "bus/pci");
        self.link(&format!("bus/pci/devices/{address}"), &folder);
        Made { tree: self, folder }
    }

    /// A device of another bus.
    pub(crate) fn device(&self, bus: &str, dev: &str) -> Made<'_> {
        let folder = format!("devices/{dev}");
        fs::create_dir_all(self.path(&format!("bus/{bus}"))).unwrap();
        fs::create_dir_all(self.path(&folder)).unwrap();
        self.link(&format!("{folder}/subsystem"), &format!("bus/{bus}"));
        self.link(&format!("bus/{bus}/devices/{dev}"), &folder);
        Made { tree: self, folder }
    }

    /// A PCI function again.
    pub(crate) fn of(&self, address: &str) -> Made<'_> {
        let parsed: PciAddress = address.parse().unwrap();
        Made { tree: self, folder: format!("devices/pci{:04x}:00/{address}", parsed.domain) }
    }

    /// A netdev that stands on no device.
    pub(crate) fn netdev(&self, name: &str, says: Says<'_>) {
        self.netdev_at(&format!("devices/virtual/net/{name}"), name, says);
    }

    fn netdev_at(&self, folder: &str, name: &str, says: Says<'_>) {
        let index = fs::read_dir(self.path("class/net")).unwrap().count() + 2;
        self.file(&format!("{folder}/ifindex"), &format!("{index}\n"));
        self.file(&format!("{folder}/dev_port"), "0\n");
        // A regular file cannot refuse to be read as the kernel does (EOPNOTSUPP): what is not said is not there.
        for (file, text) in [("phys_switch_id", says.switch), ("phys_port_name", says.port)] {
            if !text.is_empty() {
                self.file(&format!("{folder}/{file}"), &format!("{text}\n"));
            }
        }
        self.link(&format!("{folder}/subsystem"), "class/net");
        self.link(&format!("class/net/{name}"), folder);
    }

    /// A bond over netdevs that there are.
    pub(crate) fn bond(&self, name: &str, slaves: &[&str]) {
        let folder = format!("devices/virtual/net/{name}");
        self.netdev_at(&folder, name, Says::default());
        self.file(&format!("{folder}/bonding/slaves"), &format!("{}\n", slaves.join(" ")));
        self.file("class/net/bonding_masters", &format!("{name}\n"));
        for slave in slaves {
            symlink(format!("../../../../virtual/net/{name}"), self.path(&format!("class/net/{slave}/master")))
                .unwrap();
        }
    }
}

impl Made<'_> {
    fn file(self, name: &str, text: &str) -> Self {
        self.tree.file(&format!("{}/{name}", self.folder), text);
        self
    }

    pub(crate) fn driver(self, name: &str) -> Self {
        let driver = format!("bus/pci/drivers/{name}");
        for file in ["bind", "unbind"] {
            self.tree.file(&format!("{driver}/{file}"), "");
        }
        self.tree.link(&format!("{}/driver", self.folder), &driver);
        self
    }

    pub(crate) fn sriov(self, total: u32) -> Self {
        self.file("sriov_totalvfs", &format!("{total}\n"))
            .file("sriov_numvfs", "0\n")
            .file("sriov_drivers_autoprobe", "1\n")
    }

    pub(crate) fn num_vfs(self, num: u32) -> Self {
        self.file("sriov_numvfs", &format!("{num}\n"))
    }

    pub(crate) fn iommu_group(self, group: u32) -> Self {
        let name = self.folder.rsplit('/').next().unwrap().to_owned();
        let members = format!("kernel/iommu_groups/{group}");
        self.tree.link(&format!("{members}/devices/{name}"), &self.folder);
        self.tree.link(&format!("{}/iommu_group", self.folder), &members);
        self
    }

    /// Makes virtual functions, whose addresses are told: the first is number 0. They have no netdevs.
    pub(crate) fn vfs(self, device: u16, addresses: &[String]) -> Self {
        for (index, address) in addresses.iter().enumerate() {
            let vf = self.tree.pci(address, 0x15b3, device);
            self.tree.link(&format!("{}/physfn", vf.folder), &self.folder);
            self.tree.link(&format!("{}/virtfn{index}", self.folder), &vf.folder);
        }
        self.num_vfs(u32::try_from(addresses.len()).unwrap())
    }

    pub(crate) fn netdev(self, name: &str, says: Says<'_>) -> Self {
        let folder = format!("{}/net/{name}", self.folder);
        self.tree.netdev_at(&folder, name, says);
        self.tree.link(&format!("{folder}/device"), &self.folder);
        self
    }
}

/// The relative path from a folder to something, both below one root.
fn relative(from: &Path, to: &str) -> PathBuf {
    let mut path: PathBuf = from.components().map(|_| "..").collect();
    path.push(to);
    path
}
