//! What is on the host that os-vif, libvirt or a vifd that let go of it made, and that carries no mark: what it is, by which
//! signs, whether a record is here for it and what vifd would do with that, and the record that it would need. Pure; it
//! writes nothing and makes nothing up: what the host does not tell is named. What is taken for what is in `signs`.

mod signs;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use self::signs::{Sign, Signs};
use crate::backend::links::LinkOp;
use crate::backend::ovs::{OvsOp, StringMap};
use crate::model::{Desired, Mark, Table, Vif, VifId, VifKind};
use crate::plan::{Holds, Inputs, Memo, OWNER, Orders, Plan, Settings, Verdict, plan};
use crate::reconciler::Seen;
use crate::record;

/// `GET /v1/candidates`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Candidates {
    /// Whether `agent.adopt` is `os-vif`.
    pub adopt: bool,
    /// Whether plans are carried out; otherwise they are only shown.
    pub enforce: bool,
    /// VIFs of which something carries vifd's marks already.
    pub owned: usize,
    /// What carries none, in order of names.
    pub candidates: Vec<Candidate>,
    /// What looks like it and is somebody else's.
    pub foreign: Vec<Foreign>,
}

/// Something that may become a VIF's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Candidate {
    /// Name of the port with the `iface-id`, or of the link where there is no port.
    pub name: String,
    /// The Open vSwitch bridge that it is on, or else the Linux bridge.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bridge: Option<String>,
    /// Type of the VIF in the native form, as far as the host tells.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Type of its port profile, likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// Who made it.
    pub made_by: MadeBy,
    /// What says so, a sentence each.
    pub evidence: Vec<String>,
    /// The id of the VIF, only where the name of the port is cut from the UUID in its `iface-id`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<VifId>,
    /// Whether there is a record for it and what becomes of it with that.
    pub standing: Standing,
    /// The VIF whose record it is, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vif: Option<VifId>,
    /// Where there is none: the record in the native form with everything that the host tells. Nothing when what is there
    /// is no VIF by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record: Option<Value>,
    /// Paths of the fields that this record lacks and the host cannot tell.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unknown: Vec<String>,
}

/// Who made something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MadeBy {
    /// os-vif.
    OsVif,
    /// libvirt, for a VIF whose port os-vif leaves to it.
    Libvirt,
    /// vifd, which took its marks off (`vifd release`).
    Vifd,
    /// One of them: there is no sign of which.
    Unknown,
}

impl fmt::Display for MadeBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            MadeBy::OsVif => "os-vif",
            MadeBy::Libvirt => "libvirt",
            MadeBy::Vifd => "vifd",
            MadeBy::Unknown => "unknown",
        })
    }
}

/// What becomes of a candidate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// In a word.
    pub state: State,
    /// In a sentence; of a conflict the planner's own.
    pub message: String,
}

/// What becomes of a candidate, in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Its record is here, and the plan marks it.
    Adopted,
    /// Its record is here, and the plan would mark it with `adopt = "os-vif"`.
    Adoptable,
    /// Its record is here, and something is not as it says, or somebody else's.
    Conflict,
    /// Its record is here and cannot be honoured.
    Rejected,
    /// Its record is here, and vifd does without a mark on it for now.
    Left,
    /// There is no record for it.
    NoRecord,
}

impl State {
    /// The word, as in JSON, for people.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            State::Adopted => "adopted",
            State::Adoptable => "adoptable",
            State::Conflict => "conflict",
            State::Rejected => "rejected",
            State::Left => "left",
            State::NoRecord => "no record",
        }
    }
}

/// Things of somebody else's, by why they are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Foreign {
    /// Whose, a sentence.
    pub reason: String,
    /// How many.
    pub count: usize,
    /// The first few of them, by name.
    pub names: Vec<String>,
}

/// What is there to be taken over, on this bridge where one is named. Nothing while a view is not complete.
#[must_use]
pub fn candidates(seen: &Seen, bridge: Option<&str>, now: Instant) -> Option<Candidates> {
    let (links, ovs) = (seen.observed.links.ready()?, seen.observed.ovs.ready()?);
    let Signs { mut found, mut foreign } = signs::read(links, seen.observed.nics.ready(), ovs, &seen.settings);
    if let Some(bridge) = bridge {
        found.retain(|sign| sign.is_on(bridge));
        foreign.retain(|(_, on, _)| on == bridge);
    }
    let records = Records::new(&seen.desired);
    let planner = Planner::new(seen, &records, &found, now);
    let candidates = found.into_iter().map(|sign| judge(sign, seen, &records, &planner)).collect();
    Some(Candidates {
        adopt: seen.settings.adopt,
        enforce: seen.enforce,
        owned: crate::plan::on_host(&seen.observed, &seen.settings).len(),
        candidates,
        foreign: counted(foreign),
    })
}

/// Names of foreign things that are told.
const MOST_NAMES: usize = 5;

fn counted(foreign: Vec<(String, String, String)>) -> Vec<Foreign> {
    let mut by_reason: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, _, reason) in foreign {
        by_reason.entry(reason).or_default().push(name);
    }
    let one = |(reason, mut names): (String, Vec<String>)| {
        let count = names.len();
        names.truncate(MOST_NAMES);
        Foreign { reason, count, names }
    };
    by_reason.into_iter().map(one).collect()
}

/// The records by what can be seen of their VIFs.
struct Records<'a> {
    desired: &'a Desired,
    by_interface_id: BTreeMap<String, VifId>,
    by_device: BTreeMap<&'a str, VifId>,
}

impl<'a> Records<'a> {
    fn new(desired: &'a Desired) -> Self {
        let (mut by_interface_id, mut by_device) = (BTreeMap::new(), BTreeMap::new());
        for (id, vif) in &desired.vifs {
            by_interface_id.insert(id.to_string(), *id);
            let profile = vif.profile.as_ref().and_then(|profile| profile.kind.openvswitch());
            by_interface_id.extend(profile.and_then(|of| of.interface_id.clone()).map(|of| (of, *id)));
            by_device.extend(device(vif).map(|name| (name, *id)));
        }
        Records { desired, by_interface_id, by_device }
    }

    /// The record that is meant for it: by its id, else by the name of its device.
    fn of(&self, sign: &Sign) -> Option<&'a Arc<Vif>> {
        let by_id = sign.id.filter(|id| self.desired.vifs.contains_key(id));
        let by_interface_id = || self.by_interface_id.get(sign.interface_id.as_ref()?).copied();
        let by_device = || self.by_device.get(sign.device.as_str()).copied();
        self.desired.vifs.get(&by_id.or_else(by_interface_id).or_else(by_device)?)
    }
}

/// The name that a record has for the guest's device.
fn device(vif: &Vif) -> Option<&str> {
    match &vif.kind {
        VifKind::Generic { vif_name } | VifKind::OpenVSwitch { vif_name, .. } => Some(vif_name),
        VifKind::Bridge { vif_name, .. } | VifKind::VHostUser { vif_name, .. } | VifKind::Direct { vif_name, .. } => {
            vif_name.as_deref()
        }
        VifKind::HostDevice { .. } | VifKind::NestedDpdk { .. } => None,
    }
}

/// What the planner says of the records that there are and of those that there could be.
struct Planner {
    /// As the configuration is.
    now: Plan,
    /// With `adopt = "os-vif"`, and with the proposals.
    adopting: Plan,
    /// What the records that could be lack by themselves, where they lack something.
    lacking: BTreeMap<VifId, String>,
}

impl Planner {
    fn new(seen: &Seen, records: &Records<'_>, found: &[Sign], now: Instant) -> Self {
        let mut vifs: BTreeMap<VifId, Arc<Vif>> = BTreeMap::new();
        let (mut proposals, mut lacking) = (BTreeMap::new(), BTreeMap::new());
        for sign in found {
            if let Some(vif) = records.of(sign) {
                vifs.insert(vif.id, Arc::clone(vif));
                let trunk = vif.parent.and_then(|parent| seen.desired.vifs.get(&parent.vif));
                vifs.extend(trunk.map(|trunk| (trunk.id, Arc::clone(trunk))));
            } else if let Some(id) = sign.id
                && let Some(record) = &sign.record
            {
                match record::decode(record.to_string().as_bytes()) {
                    Ok(record) => drop(proposals.insert(id, Arc::new(record.vif))),
                    Err(refused) => drop(lacking.insert(id, refused.to_string())),
                }
            }
        }
        // Neither what others want nor what nobody wants matters: nothing of this is carried out.
        let with = |settings: &Settings, more: &BTreeMap<VifId, Arc<Vif>>| {
            let all: BTreeMap<_, _> = vifs.iter().chain(more).map(|(id, vif)| (*id, Arc::clone(vif))).collect();
            let desired = Desired { vifs: Table::from(all), ..Desired::default() };
            let inputs = Inputs {
                desired: &desired,
                clashes: &seen.clashes,
                observed: &seen.observed,
                holds: &Holds::default(),
                orders: &Orders::default(),
                in_flight: &BTreeSet::new(),
                settings,
            };
            plan(inputs, &mut Memo::default(), now)
        };
        let adopting = Settings { adopt: true, ..seen.settings.clone() };
        Planner { now: with(&seen.settings, &BTreeMap::new()), adopting: with(&adopting, &proposals), lacking }
    }
}

/// Whether a plan puts vifd's mark on something of this VIF's that is there.
fn marks(plan: &Plan, vif: VifId) -> bool {
    let says = |ids: &StringMap| ids.contains_key(OWNER);
    let of_row = |op: &OvsOp| match op {
        OvsOp::ChangeInterface { external_ids, .. }
        | OvsOp::ChangePort { external_ids, .. }
        | OvsOp::Mark { external_ids, .. } => says(external_ids),
        _ => false,
    };
    let of_link = |op: &LinkOp| match op {
        LinkOp::ChangeLink { change, .. } => change.alias.as_deref().and_then(Mark::parse).is_some(),
        _ => false,
    };
    plan.ovs.iter().any(|op| op.party.vif() == Some(vif) && of_row(&op.op))
        || plan.links.iter().any(|op| op.party.vif() == Some(vif) && of_link(&op.op))
}

/// Why a plan does not mark it, where it says so.
fn refusal(plan: &Plan, vif: VifId) -> Option<Standing> {
    match &plan.judgements.get(&vif)?.verdict {
        Verdict::Conflict { reason } => Some(Standing { state: State::Conflict, message: reason.clone() }),
        Verdict::Rejected { field, reason } => {
            Some(Standing { state: State::Rejected, message: format!("{field}: {reason}") })
        }
        _ => None,
    }
}

fn judge(sign: Sign, seen: &Seen, records: &Records<'_>, planner: &Planner) -> Candidate {
    let vif = records.of(&sign).map(|vif| vif.id);
    let standing = match vif {
        Some(vif) => with_record(vif, planner),
        None => without_record(&sign, planner),
    };
    let known = vif.is_some() || seen.desired.unreadable.iter().any(|id| Some(*id) == sign.id);
    Candidate {
        name: sign.name,
        bridge: sign.bridge,
        kind: sign.kind.map(str::to_owned),
        profile: sign.profile.map(str::to_owned),
        made_by: sign.made_by,
        evidence: sign.evidence,
        id: sign.id,
        standing,
        vif,
        record: sign.record.filter(|_| !known),
        unknown: if known { Vec::new() } else { sign.unknown },
    }
}

fn with_record(vif: VifId, planner: &Planner) -> Standing {
    let standing = |state, message: &str| Standing { state, message: message.to_owned() };
    if marks(&planner.now, vif) {
        standing(State::Adopted, "its record is here, and vifd's plan marks it")
    } else if marks(&planner.adopting, vif) {
        standing(State::Adoptable, "its record is here: with adopt = \"os-vif\" vifd would mark it")
    } else if let Some(refusal) = refusal(&planner.adopting, vif) {
        refusal
    } else {
        standing(State::Left, "its record is here, and vifd needs no mark on it")
    }
}

fn without_record(sign: &Sign, planner: &Planner) -> Standing {
    let message = match (&sign.record, sign.id) {
        (None, _) => "it is no VIF by itself and goes with those that use it".to_owned(),
        (Some(_), None) => {
            "there is no record for it, and its id is not known: its name is not cut from a UUID in its iface-id"
                .to_owned()
        }
        (Some(_), Some(id)) => match (planner.lacking.get(&id), refusal(&planner.adopting, id)) {
            (Some(lacking), _) => {
                format!("there is no record for it, and this one lacks what the host does not tell: {lacking}")
            }
            (None, Some(refusal)) => format!("there is no record for it, and with this one: {}", refusal.message),
            (None, None) => "there is no record for it".to_owned(),
        },
    };
    Standing { state: State::NoRecord, message }
}
