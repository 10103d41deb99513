//! `VIFGeneric`: a persistent tap, attached to nothing.

use super::{Blueprint, WantedTap, mtu, ovs_profile};
use crate::model::Vif;
use crate::plan::Settings;

pub(super) fn blueprint(vif: &Vif, vif_name: &str, settings: &Settings) -> Blueprint {
    Blueprint {
        taps: vec![WantedTap {
            name: vif_name.to_owned(),
            mac: vif.address,
            mtu: mtu(vif, settings),
            multi_queue: ovs_profile(vif.profile.as_ref()).is_some_and(|profile| profile.multiqueue),
            up: vif.active,
            alias: String::new(),
        }],
        ..Blueprint::default()
    }
}
