//! NICs and the functions that they give to guests, as far as vifd reads them; and what it notes down of a function before
//! it changes anything of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use devlink::port_profile::Response;
use devlink::vf::Vlan;
use devlink::{Device, Eswitch, EswitchMode, FunctionAddress, FunctionNumber, PciAddress};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{AgentId, MacAddr, VifId};

/// What devlink, sysfs and rtnetlink say of the NICs of this host.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NicState {
    /// Those that have an embedded switch, or functions to give away, by their devlink handle.
    pub nics: BTreeMap<Device, Arc<Nic>>,
    /// Every network function on the PCI bus, virtual ones among them.
    pub pci: BTreeMap<PciAddress, PciFunction>,
    /// What was noted down of functions and associations that VIFs have: by that they are ours.
    pub undo: BTreeMap<VifId, Arc<Undo>>,
    /// How far the associations are that were noted down; of one that nobody was asked about yet there is nothing.
    pub associations: BTreeMap<VifId, AssociationState>,
    /// What was noted down of NICs whose functions are away while their mode changes.
    pub transitions: BTreeMap<Device, Arc<Transition>>,
    /// Which function applications in containers are told to have, by VIF.
    pub hints: BTreeMap<VifId, PciAddress>,
    /// Notes of a later format: left alone and reported.
    pub newer: usize,
}

/// One NIC: a devlink instance, or a physical function without one that can have virtual functions.
#[derive(Clone, Debug, PartialEq)]
pub struct Nic {
    /// `pci/0000:03:00.0`, whether devlink knows it or not; `netdevsim/netdevsim10`.
    pub device: Device,
    /// Its driver, where it has one.
    pub driver: Option<String>,
    /// Netdevs of its physical functions in this network namespace; in switchdev mode its uplinks.
    pub uplinks: Vec<NicPort>,
    /// Its embedded switch; `None` where it has none, or nobody can set it.
    pub eswitch: Option<Eswitch>,
    /// Its virtual functions; `None` where it can have none.
    pub vfs: Option<VfCount>,
    /// Its functions: physical ones where others can have them, virtual ones, sub-functions.
    pub functions: BTreeMap<FunctionNumber, NicFunction>,
}

/// A netdev of a NIC's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NicPort {
    /// Kernel index.
    pub index: u32,
    /// Name.
    pub name: String,
    /// `hw-tc-offload`: whether it hands flows to the NIC; `None` where it cannot.
    pub tc_offload: Option<bool>,
}

/// How many virtual functions a physical one has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VfCount {
    /// There are.
    pub made: u32,
    /// There can be.
    pub most: u32,
}

/// One function of a NIC.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NicFunction {
    /// Its PCI address, where it has one and it is on this host.
    pub pci: Option<PciAddress>,
    /// Its representor.
    pub representor: Representor,
    /// What its devlink port tells of it.
    pub port: Option<FunctionPort>,
    /// What its physical function tells of it (`ip link show`), where it is a virtual one.
    pub settings: Option<VfSettings>,
}

/// The netdev that stands for a function on the host.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Representor {
    /// There is none: not yet, or the mode knows none.
    #[default]
    None,
    /// This one.
    Is(NicPort),
    /// What is known does not say which of these (names of netdevs).
    Ambiguous(Vec<String>),
}

impl Representor {
    /// The netdev, where it is known.
    #[must_use]
    pub fn netdev(&self) -> Option<&NicPort> {
        match self {
            Representor::Is(port) => Some(port),
            Representor::None | Representor::Ambiguous(_) => None,
        }
    }
}

/// The `function` of a devlink port (`devlink-port(8)`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FunctionPort {
    /// Index of the port on its devlink instance.
    pub index: u32,
    /// Address of the function; `None` where the driver lets nobody set it.
    pub hw_addr: Option<MacAddr>,
    /// Whether it is active; `None` where that cannot be set.
    pub active: Option<bool>,
}

/// What a physical function can be told about a virtual one. What is `None` its driver does not tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VfSettings {
    /// Address; `None` while the function chooses its own.
    pub mac: Option<MacAddr>,
    /// VLAN that its traffic is put into, with its priority and its tag.
    pub vlan: Vlan,
    /// Mbit/s that it may send, 0 for no limit.
    pub max_rate: u32,
    /// Whether frames from another address than its own are dropped.
    pub spoof_check: Option<bool>,
    /// Whether it may ask for more than its own (promiscuous mode, other addresses).
    pub trust: Option<bool>,
}

/// What to change of a virtual function by its physical one. What is `None` is left as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct VfChange {
    /// New address; zeros for none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<MacAddr>,
    /// New VLAN; number 0 for none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vlan: Option<Vlan>,
    /// New limit, Mbit/s, 0 for none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_rate: Option<u32>,
    /// New spoof check.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spoof_check: Option<bool>,
    /// New trust.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trust: Option<bool>,
}

impl VfChange {
    /// What makes all that is told of a virtual function be as it is.
    #[must_use]
    pub fn to(is: VfSettings) -> Self {
        let VfSettings { mac, vlan, max_rate, spoof_check, trust } = is;
        VfChange { mac: Some(mac.unwrap_or_default()), vlan: Some(vlan), max_rate: Some(max_rate), spoof_check, trust }
    }

    /// With what `other` changes of the rest.
    #[must_use]
    pub fn or(self, other: VfChange) -> Self {
        VfChange {
            mac: self.mac.or(other.mac),
            vlan: self.vlan.or(other.vlan),
            max_rate: self.max_rate.or(other.max_rate),
            spoof_check: self.spoof_check.or(other.spoof_check),
            trust: self.trust.or(other.trust),
        }
    }

    /// What of it is another than what is. What the driver does not tell cannot be compared, and is left out.
    #[must_use]
    pub fn from(self, is: VfSettings) -> Self {
        let same_vlan = |vlan: &Vlan| *vlan == is.vlan || (vlan.id == 0 && is.vlan.id == 0);
        VfChange {
            mac: self.mac.filter(|mac| *mac != is.mac.unwrap_or_default()),
            vlan: self.vlan.filter(|vlan| !same_vlan(vlan)),
            max_rate: self.max_rate.filter(|rate| *rate != is.max_rate),
            spoof_check: self.spoof_check.filter(|on| is.spoof_check == Some(!on)),
            trust: self.trust.filter(|on| is.trust == Some(!on)),
        }
    }

    /// Whether it changes nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == VfChange::default()
    }
}

/// A network function on the PCI bus.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PciFunction {
    /// Of which NIC, and which of its functions.
    pub of: Option<(Device, FunctionNumber)>,
    /// The driver that it is bound to.
    pub driver: Option<String>,
    /// `driver_override`, where there is one.
    pub driver_override: Option<String>,
    /// Its IOMMU group.
    pub iommu_group: Option<u32>,
    /// Names of its netdevs in this network namespace.
    pub netdevs: BTreeSet<String>,
}

/// What has to be undone of a VIF that the host's own objects do not tell: how its function was before vifd changed anything
/// of it, and what was asked of the switch. It is noted down, and seen to be, before the first change, and struck out when
/// the function is seen to be as it was and the switch knows of nothing.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Undo {
    /// Whose note it is.
    pub agent: AgentId,
    /// The VIF that has the function.
    pub vif: VifId,
    /// The function; a VIF on a link of the host's has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub function: Option<FunctionAddress>,
    /// `preserve_on_delete`: the function stays as it is when the VIF goes.
    #[serde(default)]
    pub preserve: bool,
    /// The address that the VIF has given it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub given: Option<MacAddr>,
    /// Whether its representor is the VIF's port.
    #[serde(default)]
    pub represented: bool,
    /// Name that its representor had, where it was to get another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub representor: Option<String>,
    /// Its address by its devlink port, where it was to get another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hw_addr: Option<MacAddr>,
    /// Whether it was active by its devlink port, where that was to be another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active: Option<bool>,
    /// What its physical function said of it: of each setting that vifd keeps what it was, and of no other.
    #[serde(default, skip_serializing_if = "VfChange::is_empty")]
    pub settings: VfChange,
    /// Its driver, where it was to get another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub driver: Option<DriverBefore>,
    /// What the switch at the other end of the cable is asked for on its behalf.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub association: Option<Association>,
    /// Index of its netdev, where that was to be set up for a macvtap: it is another when its driver has begun again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub netdev: Option<u32>,
}

/// A guest's port as the switch beyond a physical link is to know it, with all it takes to ask for that and to have it undone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Association {
    /// Kernel index of the link that has the cable; of a virtual function that is its physical one's.
    pub index: u32,
    /// Name of that link.
    pub link: String,
    /// Which virtual function of that link it is for, where the adapter is asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vf: Option<u32>,
    /// The guest's address.
    pub mac: MacAddr,
    /// The VLAN of the guest's frames on the cable; `None` for none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vlan: Option<u16>,
    /// What it is to be.
    pub profile: StationProfile,
}

/// What a guest's port is to be for the switch.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum StationProfile {
    /// 802.1Qbg, by way of lldpad.
    Qbg {
        /// VSI manager.
        manager: u8,
        /// VSI type, 24 bits.
        type_id: u32,
        /// Version of the type.
        type_version: u8,
        /// Which VSI.
        instance: Uuid,
    },
    /// 802.1Qbh, by way of the kernel and the adapter.
    Qbh {
        /// Name of the profile.
        profile: String,
        /// The guest, where it is known by a UUID.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        instance: Option<Uuid>,
    },
}

impl fmt::Display for StationProfile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StationProfile::Qbg { manager, type_id, type_version, instance } => {
                write!(f, "VSI {instance} (manager {manager}, type {type_id} version {type_version})")
            }
            StationProfile::Qbh { profile, .. } => write!(f, "port profile {profile}"),
        }
    }
}

impl fmt::Display for Association {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", self.profile, self.link)?;
        self.vf.map_or(Ok(()), |vf| write!(f, " for its virtual function {vf}"))
    }
}

/// How far an association is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AssociationState {
    /// Nobody knows of it.
    Absent,
    /// It was asked for, and the switch has not answered.
    Pending,
    /// The switch lets the guest's traffic pass.
    Associated,
    /// The switch refused it a moment ago.
    Refused(Response),
    /// It was asked to be undone, and is still there.
    Leaving,
    /// There is nobody who could know of it, as when lldpad does not run: the sentence says who is missing.
    Nobody(String),
    /// Nothing can be said of it: the sentence says why.
    Unknown(String),
}

/// How a function was bound.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct DriverBefore {
    /// To this driver; to none when absent.
    pub driver: Option<String>,
    /// `driver_override`.
    pub driver_override: Option<String>,
}

impl DriverBefore {
    /// How a function is bound now.
    #[must_use]
    pub fn of(function: &PciFunction) -> Self {
        DriverBefore { driver: function.driver.clone(), driver_override: function.driver_override.clone() }
    }

    /// Whether it is bound so.
    #[must_use]
    pub fn is(&self, function: &PciFunction) -> bool {
        self.driver == function.driver && self.driver_override == function.driver_override
    }
}

/// What has to come back when a NIC has changed its mode.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Transition {
    /// Whose note it is.
    pub agent: AgentId,
    /// The NIC, as devlink calls it.
    pub nic: String,
    /// Virtual functions there were.
    pub vfs: u32,
    /// Functions that were taken off their drivers, with these.
    pub unbound: BTreeMap<PciAddress, DriverBefore>,
}

impl Undo {
    /// A note of nothing that was changed or asked for yet.
    #[must_use]
    pub fn new(agent: AgentId, vif: VifId, function: Option<&FunctionAddress>, preserve: bool) -> Self {
        Undo {
            agent,
            vif,
            function: function.cloned(),
            preserve,
            given: None,
            represented: false,
            representor: None,
            hw_addr: None,
            active: None,
            settings: VfChange::default(),
            driver: None,
            association: None,
            netdev: None,
        }
    }
}

impl NicState {
    /// The function that an address means, with its NIC.
    ///
    /// # Errors
    /// There is none: what is missing, as what somebody waits for.
    pub fn function(&self, address: &FunctionAddress) -> Result<(&Arc<Nic>, FunctionNumber, &NicFunction), String> {
        let (device, number) = match address {
            FunctionAddress::Pci(pci) => {
                let function =
                    self.pci.get(pci).ok_or_else(|| format!("PCI function {pci}, which this host does not have"))?;
                function.of.clone().ok_or_else(|| format!("a virtual function at {pci}: what is there is none"))?
            }
            FunctionAddress::Port { device, function } => (device.clone(), *function),
        };
        let nic = self.nics.get(&device).ok_or_else(|| format!("NIC {device}, which this host does not have"))?;
        let function = nic
            .functions
            .get(&number)
            .ok_or_else(|| format!("function {number} of NIC {device}, which has no such function"))?;
        Ok((nic, number, function))
    }
}

impl Nic {
    /// Whether its embedded switch is in switchdev mode.
    #[must_use]
    pub fn is_switchdev(&self) -> bool {
        self.eswitch.is_some_and(|eswitch| eswitch.mode == Some(EswitchMode::Switchdev))
    }
}
