//! What is kept from one plan to the next. Nothing of it is ever needed: a plan without it is the same plan.
//!
//! The verdict on a VIF for which there is nothing to do is kept together with all that was looked at for it, and
//! stands for as long as that, its record and the settings are the very same. Of the others the blueprint is kept.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::blueprint::{Blueprint, Layout, Unbuildable, blueprint};
use super::inventory::{Inventory, Owned};
use super::sight::{Evidence, Same};
use super::{Inputs, Judgement, Settings};
use crate::model::{Observed, Vif, VifId};

type Built = Arc<Result<Blueprint, Unbuildable>>;

/// The memory of a planner.
#[derive(Debug, Default)]
pub struct Memo {
    settings: Option<Settings>,
    /// What the last plan saw.
    observed: Observed,
    inventory: Arc<Inventory>,
    /// VIFs for which nothing was to be done. All of them were found to stand by the last plan.
    settled: BTreeMap<VifId, Settled>,
    blueprints: BTreeMap<VifId, (Arc<Vif>, Layout, Built)>,
}

/// A verdict and what it rests on.
#[derive(Debug)]
pub(super) struct Settled {
    pub(super) vif: Arc<Vif>,
    pub(super) owned: Option<Arc<Owned>>,
    pub(super) evidence: Evidence,
    pub(super) judgement: Arc<Judgement>,
    /// Disposable bridges that the VIF wants.
    pub(super) bridges: Vec<String>,
}

impl Memo {
    /// Drops what does not hold any more of what all VIFs share. Answers what is ours on the host.
    pub(super) fn prepare(&mut self, inputs: &Inputs<'_>) -> (Arc<Inventory>, Option<Same>) {
        if self.settings.as_ref() != Some(inputs.settings) {
            *self = Memo { settings: Some(inputs.settings.clone()), ..Memo::default() };
        }
        let same = Same::of(&self.observed, inputs.observed);
        if same.is_none() {
            self.settled.clear();
        }
        let same_qos = || match (self.observed.ovs.ready(), inputs.observed.ovs.ready()) {
            (Some(before), Some(now)) => before.qos.is(&now.qos),
            _ => false,
        };
        if !(same.is_some_and(Same::all) && same_qos()) {
            self.inventory = Arc::new(Inventory::take(inputs.observed, inputs.settings, &self.inventory));
        }
        self.observed = inputs.observed.clone();
        let vifs = &inputs.desired.vifs;
        if self.settled.len() + self.blueprints.len() > vifs.len() {
            self.settled.retain(|id, _| vifs.contains_key(id));
            self.blueprints.retain(|id, _| vifs.contains_key(id));
        }
        (Arc::clone(&self.inventory), same)
    }

    /// The verdict on a VIF, if the one that was given still stands.
    pub(super) fn standing(&self, vif: &Arc<Vif>, owned: Option<&Arc<Owned>>, same: Option<Same>) -> Option<&Settled> {
        let settled = self.settled.get(&vif.id)?;
        let (links, ovs) = (self.observed.links.ready()?, self.observed.ovs.ready()?);
        let stands = Arc::ptr_eq(&settled.vif, vif)
            && settled.owned.as_ref().map(Arc::as_ptr) == owned.map(Arc::as_ptr)
            && settled.evidence.holds(links, ovs, same?);
        stands.then_some(settled)
    }

    /// There is nothing to do for a VIF.
    pub(super) fn settle(&mut self, id: VifId, settled: Settled) {
        self.blueprints.remove(&id);
        self.settled.insert(id, settled);
    }

    /// There is something to do for a VIF, or it cannot be said on what the verdict rests.
    pub(super) fn unsettle(&mut self, id: VifId) {
        self.settled.remove(&id);
    }

    /// What a VIF wants.
    pub(super) fn blueprint(&mut self, vif: &Arc<Vif>, layout: Layout, settings: &Settings) -> Built {
        if let Some((record, of, blueprint)) = self.blueprints.get(&vif.id)
            && Arc::ptr_eq(record, vif)
            && *of == layout
        {
            return Arc::clone(blueprint);
        }
        let made = Arc::new(blueprint(vif, layout, settings));
        self.blueprints.insert(vif.id, (Arc::clone(vif), layout, Arc::clone(&made)));
        made
    }
}
