//! What a batch mends of VIFs that were ready, in words for the log. Which VIFs those are is `telling`'s knowledge.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use flows::FlowCommand;

use crate::backend::Attributed;
use crate::backend::links::LinkOp;
use crate::backend::openflow::{FlowChange, FlowOp};
use crate::backend::ovs::OvsOp;
use crate::model::VifId;

/// Operations on behalf of one VIF; flows are many and are counted.
#[derive(Debug, Default)]
struct Mended {
    words: Vec<String>,
    made: usize,
    deleted: usize,
    meters: usize,
}

/// What is mended, by VIF: of those for which `drifted` says so.
#[derive(Debug, Default)]
pub(super) struct Repairs(BTreeMap<VifId, Mended>);

impl Repairs {
    /// Takes in a batch for the kernel.
    pub(super) fn links(&mut self, ops: &[Attributed<LinkOp>], drifted: impl Fn(VifId) -> bool) {
        self.take(ops, drifted, |op, mended| {
            mended.words.push(match op {
                LinkOp::CreateTap { name, .. } => format!("tap {name} was gone: made again"),
                other => other.to_string(),
            });
        });
    }

    /// Takes in a batch for the database.
    pub(super) fn ovs(&mut self, ops: &[Attributed<OvsOp>], drifted: impl Fn(VifId) -> bool) {
        self.take(ops, drifted, |op, mended| {
            mended.words.push(match op {
                OvsOp::InsertPort(port) => {
                    format!("port {} was gone from bridge {}: made again", port.name, port.bridge)
                }
                other => other.to_string(),
            });
        });
    }

    /// Takes in a batch for the switches.
    pub(super) fn flows(&mut self, ops: &[Attributed<FlowOp>], drifted: impl Fn(VifId) -> bool) {
        self.take(ops, drifted, |op, mended| match &op.change {
            FlowChange::Flow(change) => match change.command {
                FlowCommand::Delete | FlowCommand::DeleteStrict => mended.deleted += 1,
                FlowCommand::Add | FlowCommand::Modify | FlowCommand::ModifyStrict => mended.made += 1,
            },
            FlowChange::Meter(_) => mended.meters += 1,
            FlowChange::Group(_) | FlowChange::FlushZone(_) | FlowChange::Announce(_) => {}
        });
    }

    fn take<Op>(
        &mut self,
        ops: &[Attributed<Op>],
        drifted: impl Fn(VifId) -> bool,
        mut note: impl FnMut(&Op, &mut Mended),
    ) {
        // A VIF's operations stand together: it is asked for once.
        let mut last = None;
        for Attributed { party, op } in ops {
            let Some(vif) = party.vif() else { continue };
            let is_drifted = match last {
                Some((asked, answer)) if asked == vif => answer,
                _ => drifted(vif),
            };
            last = Some((vif, is_drifted));
            if is_drifted {
                note(op, self.0.entry(vif).or_default());
            }
        }
    }

    /// One sentence for each VIF.
    pub(super) fn into_sentences(self) -> impl Iterator<Item = (VifId, String)> {
        self.0.into_iter().map(|(vif, mended)| (vif, mended.sentence())).filter(|(_, sentence)| !sentence.is_empty())
    }
}

impl Mended {
    fn sentence(self) -> String {
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

    #[test]
    fn a_vif_has_one_sentence_and_strangers_none() {
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
        repairs.ovs(&[ports(one), ports(other)], drifted);
        let flows = [
            flow(FlowCommand::Add, one),
            flow(FlowCommand::Add, one),
            flow(FlowCommand::DeleteStrict, one),
            flow(FlowCommand::Add, other),
            Attributed { party: Party::All, ..flow(FlowCommand::Add, one) },
        ];
        repairs.flows(&flows, drifted);
        let told: Vec<_> = repairs.into_sentences().collect();
        let sentence = "port tap1 was gone from bridge br-int: made again; 2 flows put back; 1 flow taken away";
        assert_eq!(told, [(one, sentence.to_owned())]);
    }
}
