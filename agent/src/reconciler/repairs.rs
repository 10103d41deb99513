//! What was mended of VIFs that were ready, in words for the log: what is done, when they are ready again. Which VIFs those
//! are is `telling`'s knowledge.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use flows::FlowCommand;

use crate::backend::links::LinkOp;
use crate::backend::nics::NicOp;
use crate::backend::openflow::{FlowChange, FlowOp};
use crate::backend::ovs::OvsOp;
use crate::backend::{Attributed, Outcome};
use crate::model::VifId;
use crate::plan::{BackendName, LINKS, NICS, OPENFLOW, OVSDB, Verdict};

/// What an operation mends.
#[derive(Debug)]
enum Mend {
    Words(String),
    FlowMade,
    FlowDeleted,
    Meter,
}

/// What was mended of one VIF; flows are many and are counted.
#[derive(Debug, Default)]
struct Mended {
    words: Vec<String>,
    made: usize,
    deleted: usize,
    meters: usize,
}

/// What is being mended and what was, of VIFs for which `drifted` says so.
#[derive(Debug, Default)]
pub(super) struct Repairs {
    /// Operations of the batches under way, by their places.
    handed: BTreeMap<BackendName, Vec<(usize, VifId, Mend)>>,
    /// What was done for VIFs that are not ready yet.
    done: BTreeMap<VifId, Mended>,
}

impl Repairs {
    /// A batch for the kernel was handed out.
    pub(super) fn links(&mut self, ops: &[Attributed<LinkOp>], drifted: impl Fn(VifId) -> bool) {
        self.hand(LINKS, ops, drifted, |op| {
            Some(Mend::Words(match op {
                LinkOp::CreateLink { link, kind } => format!("{} {} was gone: made again", kind.name(), link.name),
                other => other.to_string(),
            }))
        });
    }

    /// A batch for the NICs was handed out.
    pub(super) fn nics(&mut self, ops: &[Attributed<NicOp>], drifted: impl Fn(VifId) -> bool) {
        self.hand(NICS, ops, drifted, |op| match op {
            NicOp::Remember(_) | NicOp::Forget(_) | NicOp::RememberTransition(_) | NicOp::ForgetTransition(_) => None,
            other => Some(Mend::Words(other.to_string())),
        });
    }

    /// A batch for the database was handed out.
    pub(super) fn ovs(&mut self, ops: &[Attributed<OvsOp>], drifted: impl Fn(VifId) -> bool) {
        self.hand(OVSDB, ops, drifted, |op| {
            Some(Mend::Words(match op {
                OvsOp::InsertPort(port) => {
                    format!("port {} was gone from bridge {}: made again", port.name, port.bridge)
                }
                other => other.to_string(),
            }))
        });
    }

    /// A batch for the switches was handed out.
    pub(super) fn flows(&mut self, ops: &[Attributed<FlowOp>], drifted: impl Fn(VifId) -> bool) {
        self.hand(OPENFLOW, ops, drifted, |op| match &op.change {
            FlowChange::Flow(change) => Some(match change.command {
                FlowCommand::Delete | FlowCommand::DeleteStrict => Mend::FlowDeleted,
                FlowCommand::Add | FlowCommand::Modify | FlowCommand::ModifyStrict => Mend::FlowMade,
            }),
            FlowChange::Meter(_) => Some(Mend::Meter),
            FlowChange::Group(_) | FlowChange::FlushZone(_) | FlowChange::Announce(_) => None,
        });
    }

    fn hand<Op>(
        &mut self,
        backend: BackendName,
        ops: &[Attributed<Op>],
        drifted: impl Fn(VifId) -> bool,
        mend: impl Fn(&Op) -> Option<Mend>,
    ) {
        // A VIF's operations stand together: it is asked for once.
        let mut last = None;
        let mut handed = Vec::new();
        for (place, Attributed { party, op }) in ops.iter().enumerate() {
            let Some(vif) = party.vif() else { continue };
            let is_drifted = match last {
                Some((asked, answer)) if asked == vif => answer,
                _ => drifted(vif),
            };
            last = Some((vif, is_drifted));
            if is_drifted {
                handed.extend(mend(op).map(|mend| (place, vif, mend)));
            }
        }
        self.handed.insert(backend, handed);
    }

    /// A batch came back: what of it was done counts.
    pub(super) fn learn(&mut self, backend: BackendName, outcomes: &[Outcome]) {
        for (place, vif, mend) in self.handed.remove(backend).unwrap_or_default() {
            if outcomes.get(place) != Some(&Outcome::Done) {
                continue;
            }
            let mended = self.done.entry(vif).or_default();
            match mend {
                // What is tried again and again until all of it goes is told once.
                Mend::Words(words) if mended.words.contains(&words) => {}
                Mend::Words(words) => mended.words.push(words),
                Mend::FlowMade => mended.made += 1,
                Mend::FlowDeleted => mended.deleted += 1,
                Mend::Meter => mended.meters += 1,
            }
        }
    }

    /// The record changed: what is done for the new one is no repair.
    pub(super) fn forget(&mut self, vif: VifId) {
        self.done.remove(&vif);
        self.handed.values_mut().for_each(|ops| ops.retain(|(_, of, _)| *of != vif));
    }

    /// One sentence for each VIF that is ready again. Of one that nobody wants any more, and of one whose guest stopped,
    /// nothing was repaired.
    pub(super) fn finished<'a>(&mut self, verdict: impl Fn(VifId) -> Option<&'a Verdict>) -> Vec<(VifId, String)> {
        let mut sentences = Vec::new();
        self.done.retain(|vif, mended| match verdict(*vif) {
            Some(Verdict::Ready) => {
                sentences.push((*vif, mended.sentence()));
                false
            }
            None | Some(Verdict::Removing) => false,
            Some(other) => !other.is_hypervisors_turn(),
        });
        sentences
    }
}

impl Mended {
    fn sentence(&self) -> String {
        let mut text = self.words.join("; ");
        for (count, one, several, done) in [
            (self.made, "flow", "flows", "put back"),
            (self.deleted, "flow", "flows", "taken away"),
            (self.meters, "meter", "meters", "put back"),
        ] {
            if count > 0 {
                let colon = if text.is_empty() { "" } else { "; " };
                // Writing into a String cannot fail.
                let _ = write!(text, "{colon}{count} {} {done}", if count == 1 { one } else { several });
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use flows::{Flow, FlowMod};
    use uuid::Uuid;

    use super::*;
    use crate::backend::Party;
    use crate::backend::ovs::NewPort;
    use crate::plan::Missing;

    #[test]
    fn a_vif_has_one_sentence_when_it_is_ready_and_strangers_none() {
        let (one, other) = (VifId(Uuid::from_u128(1)), VifId(Uuid::from_u128(2)));
        let of = |vif: VifId| Party::Vif(vif);
        let port = NewPort { name: "tap1".into(), bridge: "br-int".into(), ..NewPort::default() };
        let flow = |command, vif| {
            let flow: Flow = "table=1, priority=7 actions=drop".parse().unwrap();
            let change = FlowChange::Flow(FlowMod::new(command, flow));
            Attributed { party: of(vif), op: FlowOp { bridge: "br-int".into(), change } }
        };
        let mut repairs = Repairs::default();
        let drifted = |vif| vif == one;
        let ports = |vif| Attributed { party: of(vif), op: OvsOp::InsertPort(Box::new(port.clone())) };
        let flows = [
            flow(FlowCommand::Add, one),
            flow(FlowCommand::Add, one),
            flow(FlowCommand::DeleteStrict, one),
            flow(FlowCommand::Add, other),
            Attributed { party: Party::All, ..flow(FlowCommand::Add, one) },
            flow(FlowCommand::Add, one),
        ];
        let ready = |_| Some(&Verdict::Ready);
        let done = [Outcome::Done, Outcome::Done];
        repairs.ovs(&[ports(one), ports(other)], drifted);
        assert_eq!(repairs.finished(ready), [], "nothing is done yet");
        repairs.learn(OVSDB, &done);
        repairs.flows(&flows, drifted);
        let refused = Outcome::Failed("full".into());
        repairs.learn(OPENFLOW, &[vec![Outcome::Done; 5], vec![refused]].concat());
        assert_eq!(repairs.finished(|_| Some(&Verdict::Working)), [], "not yet");
        let sentence = "port tap1 was gone from bridge br-int: made again; 2 flows put back; 1 flow taken away";
        assert_eq!(repairs.finished(ready), [(one, sentence.to_owned())]);
        assert_eq!(repairs.finished(ready), [], "it is told once");

        // A guest that stops takes its device with it, and what went for that is no repair when it comes back.
        let device = Verdict::Plugged(Missing::Netdev("tap1".into()));
        for verdict in [Some(&device), Some(&Verdict::Removing), None] {
            repairs.ovs(&[ports(one)], drifted);
            repairs.learn(OVSDB, &done);
            assert_eq!(repairs.finished(|_| verdict), []);
            assert_eq!(repairs.finished(ready), []);
        }
        // Nor what was done for a record that is not in force any more.
        repairs.ovs(&[ports(one)], drifted);
        repairs.forget(one);
        repairs.learn(OVSDB, &done);
        assert_eq!(repairs.finished(ready), []);
    }
}
