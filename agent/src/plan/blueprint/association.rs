//! Port profiles of `VIFDirect`: what the switch beyond the cable is to let pass for the guest, 802.1Qbg and 802.1Qbh. At which
//! link that is asked for, the host alone tells: see `associations`.

use super::{Unbuildable, needed};
use crate::model::{MacAddr, ProfileKind, StationProfile, Vif};

/// What the switch is asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct WantedAssociation {
    /// What the guest's port is to be.
    pub profile: StationProfile,
    /// The guest's address.
    pub mac: MacAddr,
    /// The network's VLAN, where the macvtap does not stand on one.
    pub vlan: Option<u16>,
    /// Whether it stays when the VIF goes.
    pub preserve: bool,
}

pub(super) fn wanted(vif: &Vif, profile: Option<&ProfileKind>) -> Result<Option<WantedAssociation>, Unbuildable> {
    let profile = match profile {
        Some(ProfileKind::Qbg { manager_id, type_id, type_id_version, instance_id }) => StationProfile::Qbg {
            manager: *manager_id,
            type_id: *type_id,
            type_version: *type_id_version,
            instance: instance_id.unwrap_or(vif.id.0),
        },
        Some(ProfileKind::Qbh { profile_id }) => {
            let instance = vif.instance.as_ref().and_then(|instance| instance.uuid.parse().ok());
            StationProfile::Qbh { profile: profile_id.clone(), instance }
        }
        _ => return Ok(None),
    };
    let address = vif.address.map(|address| address.to_string());
    needed(vif, "vif.address", address.as_deref())?;
    let vlan = vif.network.as_ref().and_then(|network| network.vlan);
    let preserve = vif.preserve_on_delete;
    Ok(vif.address.map(|mac| WantedAssociation { profile, mac, vlan, preserve }))
}
