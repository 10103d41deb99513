use super::{Blueprint, tap};
use crate::model::Vif;
use crate::plan::Settings;

pub(super) fn blueprint(vif: &Vif, vif_name: &str, settings: &Settings) -> Blueprint {
    let profile = vif.profile.as_ref().and_then(|profile| profile.kind.openvswitch());
    let multi_queue = profile.is_some_and(|profile| profile.multiqueue);
    Blueprint { links: vec![tap(vif, vif_name, multi_queue, settings)], ..Blueprint::default() }
}
