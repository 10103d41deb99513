//! `VIFGeneric`: a persistent tap, attached to nothing.

use super::{Blueprint, WantedTap, mtu};
use crate::model::Vif;
use crate::plan::Settings;

pub(super) fn blueprint(vif: &Vif, vif_name: &str, settings: &Settings) -> Blueprint {
    let profile = vif.profile.as_ref().and_then(|profile| profile.kind.openvswitch());
    Blueprint {
        taps: vec![WantedTap {
            name: vif_name.to_owned(),
            mac: vif.address,
            mtu: mtu(vif, settings),
            multi_queue: profile.is_some_and(|profile| profile.multiqueue),
            up: vif.active,
            alias: String::new(),
        }],
        ..Blueprint::default()
    }
}
