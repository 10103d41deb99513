//! What is kept from one plan to the next, so that a plan costs what changed. Nothing of it is needed: with an empty
//! memory everything has changed, and the plan is the same. But for one thing: what VIFs and networks have on managed
//! bridges, numbers above all, is read from there once; later, what differs from it is somebody's hand
//! ([`Memo::forgetful`]).
//!
//! The verdict on a VIF for which there is nothing to do stands until its record or something that was looked at for
//! it is another. Everybody else is planned every time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, LazyLock};

use super::blueprint::{Blueprint, Layout, Unbuildable, blueprint};
use super::flows::Switches;
use super::inventory::Inventory;
use super::sight::Look;
use super::{Inputs, Judgement, Settings};
use crate::model::table::{pack, worth_packing};
use crate::model::{Desired, LinkState, NicState, Observed, OvsState, SwitchStates, Table, View, Vif, VifId};

type Built = Arc<Result<Blueprint, Unbuildable>>;

/// The memory of a planner.
#[derive(Debug, Default)]
pub struct Memo {
    settings: Option<Settings>,
    /// What the last plan saw.
    observed: Observed,
    /// What the last plan saw of the switches.
    flows: SwitchStates,
    /// What the last plan was to bring about.
    vifs: Table<VifId, Vif>,
    pub(super) inventory: Inventory,
    /// What is known of flows.
    pub(super) switches: Switches,
    /// The verdicts of the last plan.
    pub(super) judgements: Table<VifId, Judgement>,
    /// Those of them that are on VIFs which nobody wanted.
    pub(super) leaving: BTreeSet<VifId>,
    /// Wanted VIFs whose verdicts do not stand.
    restless: BTreeSet<VifId>,
    /// What the other verdicts rest on.
    standing: BTreeMap<VifId, Box<[Look]>>,
    /// The same the other way round.
    looks: BTreeSet<(Look, VifId)>,
    /// What is wanted for those that are restless.
    blueprints: BTreeMap<VifId, (Arc<Vif>, Layout, Built)>,
}

impl Memo {
    /// A memory of which all is gone that may be: a plan with it is the same as with this one.
    #[must_use]
    pub fn forgetful(&self) -> Memo {
        Memo { settings: self.settings.clone(), switches: self.switches.forgetful(), ..Memo::default() }
    }

    /// Takes in what changed since the last plan. Answers the wanted VIFs that have to be planned.
    pub(super) fn refresh(&mut self, inputs: &Inputs<'_>) -> BTreeSet<VifId> {
        if self.settings.as_ref() != Some(inputs.settings) {
            // What VIFs and networks have is theirs under any settings that let them.
            let before = self.settings.take();
            let switches =
                before.map_or_else(Switches::default, |before| self.switches.under(&before, inputs.settings));
            *self = Memo { settings: Some(inputs.settings.clone()), switches, ..Memo::default() };
        }
        if condition(&self.observed) != condition(inputs.observed) {
            self.restless.extend(std::mem::take(&mut self.standing).into_keys());
            self.looks.clear();
        }
        for id in std::mem::take(&mut self.leaving) {
            self.judgements.remove(&id);
            self.unsettle(id);
        }
        self.follow_records(inputs.desired);
        self.follow_host(inputs);
        self.follow_switches(inputs);
        for id in inputs.clashes.keys() {
            // Sub-ports rest on what becomes of their trunk.
            self.stir(&Look::Vif(*id));
            self.unsettle(*id);
        }
        self.restless.clone()
    }

    fn follow_records(&mut self, desired: &Desired) {
        let before = std::mem::replace(&mut self.vifs, desired.vifs.clone());
        before.differing(&desired.vifs, |id, _, is| {
            self.stir(&Look::Vif(*id));
            self.unsettle(*id);
            if is.is_some() {
                self.restless.insert(*id);
            } else {
                self.restless.remove(id);
                self.blueprints.remove(id);
                self.judgements.remove(id);
                self.switches.unplace(*id);
            }
        });
    }

    fn follow_switches(&mut self, inputs: &Inputs<'_>) {
        let (bridges, renumbered) = self.switches.refresh(inputs);
        for bridge in bridges {
            self.stir(&Look::Switch(bridge.into()));
        }
        for id in renumbered {
            self.unsettle(id);
        }
        let before = std::mem::replace(&mut self.flows, Arc::clone(&inputs.observed.flows));
        if Arc::ptr_eq(&before, &inputs.observed.flows) {
            return;
        }
        for (bridge, now) in inputs.observed.flows.iter() {
            // One that comes or goes is another condition of the bridge.
            let Some((before, now)) = before.get(bridge).and_then(View::ready).zip(now.ready()) else { continue };
            if !before.foreign.is(&now.foreign) || before.limits != now.limits {
                self.stir(&Look::Switch(bridge.as_str().into()));
            }
            let mut looks = Vec::new();
            before
                .owned
                .differing(&now.owned, |cookie, _, _| looks.push(Look::Cookie(bridge.as_str().into(), *cookie)));
            before.meters.differing(&now.meters, |id, _, _| looks.push(Look::Meter(bridge.as_str().into(), *id)));
            looks.iter().for_each(|look| self.stir(look));
        }
    }

    fn follow_host(&mut self, inputs: &Inputs<'_>) {
        let before = std::mem::replace(&mut self.observed, inputs.observed.clone());
        let (was, is) = (seen(&before), seen(inputs.observed));
        let differences = self.inventory.follow(was, is, inputs.settings);
        for name in differences.names {
            self.stir(&Look::Name(name.into()));
        }
        for name in differences.bridges {
            self.stir(&Look::Bridge(name.into()));
        }
        let (was, is) = (&was.links.sockets.directories, &is.links.sockets.directories);
        if !same_view(&before.links, &inputs.observed.links) && was != is {
            let differing = was.keys().chain(is.keys()).filter(|path| was.get(*path) != is.get(*path));
            for path in differing {
                self.stir(&Look::Directory(path.as_path().into()));
            }
        }
        if !same_view(&before.nics, &inputs.observed.nics) {
            self.stir(&Look::Nics);
        }
        for id in differences.vifs {
            self.stir(&Look::Vif(id));
            self.unsettle(id);
        }
    }

    /// What these looks saw is another: the verdicts that rest on it do not stand any more.
    fn stir(&mut self, look: &Look) {
        let from = (look.clone(), VifId(uuid::Uuid::nil()));
        let ids: Vec<VifId> = self.looks.range(from..).take_while(|(of, _)| of == look).map(|(_, id)| *id).collect();
        for id in ids {
            self.unsettle(id);
        }
    }

    /// The verdict on a VIF stands on these looks until further notice.
    pub(super) fn settle(&mut self, id: VifId, looks: Vec<Look>) {
        self.restless.remove(&id);
        self.blueprints.remove(&id);
        self.looks.extend(looks.iter().map(|look| (look.clone(), id)));
        self.standing.insert(id, looks.into());
    }

    /// Gives back room after so many VIFs were planned.
    pub(super) fn pack(&mut self, planned: usize) {
        if worth_packing(planned, self.standing.len()) {
            pack(&mut self.standing);
            self.looks = std::mem::take(&mut self.looks).into_iter().collect();
            self.judgements.pack();
        }
    }

    /// Answers whether there was a verdict that stood.
    pub(super) fn unsettle(&mut self, id: VifId) -> bool {
        let Some(looks) = self.standing.remove(&id) else { return false };
        for look in looks {
            self.looks.remove(&(look, id));
        }
        self.restless.insert(id)
    }

    /// Whether a VIF whose verdict stands wants this disposable bridge or shared link.
    pub(super) fn is_wanted(&self, share: &str) -> bool {
        let look = Look::Wants(share.into());
        self.looks.range((look.clone(), VifId(uuid::Uuid::nil()))..).next().is_some_and(|(of, _)| *of == look)
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
        // While a view is not complete nobody's verdict stands, and thousands of blueprints would be kept for nothing.
        if self.observed.links.ready().is_some() && self.observed.ovs.ready().is_some() {
            self.blueprints.insert(vif.id, (Arc::clone(vif), layout, Arc::clone(&made)));
        }
        made
    }
}

/// What there is in views.
#[derive(Clone, Copy)]
pub(super) struct Seen<'a> {
    pub(super) links: &'a LinkState,
    pub(super) ovs: &'a OvsState,
    pub(super) nics: &'a NicState,
}

/// What there is in views; nothing in those that are not complete.
pub(super) fn seen(observed: &Observed) -> Seen<'_> {
    static NOTHING: LazyLock<(LinkState, OvsState, NicState)> = LazyLock::new(Default::default);
    let (links, ovs, nics) = &*NOTHING;
    Seen {
        links: observed.links.ready().unwrap_or(links),
        ovs: observed.ovs.ready().unwrap_or(ovs),
        nics: observed.nics.ready().unwrap_or(nics),
    }
}

/// What every verdict rests on: which views are complete, and whether ovs-vswitchd runs.
fn condition(observed: &Observed) -> (bool, bool, Option<bool>) {
    let ovs = observed.ovs.ready().map(|ovs| ovs.vswitchd_alive);
    (observed.links.ready().is_some(), observed.nics.ready().is_some(), ovs)
}

fn same_view<T>(a: &View<T>, b: &View<T>) -> bool {
    match (a, b) {
        (View::Ready(a), View::Ready(b)) => Arc::ptr_eq(a, b),
        _ => false,
    }
}
