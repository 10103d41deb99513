//! The flows of one owner as the switch has them, beside what the planner wants; and what there is on each bridge.

use std::collections::{BTreeMap, BTreeSet};

use flows::diff::diff_flows;
use flows::message::FlowsRequest;
use flows::{Flow, FlowCommand, FlowId, FlowStats};
use serde::{Deserialize, Serialize};

use super::{Belongs, InspectError, Inspector, Whose};
use crate::model::{FlowState, VifId};
use crate::plan::pipeline::{Cookie, tables};
use crate::plan::{FlowsOf, Intended};
use crate::reconciler::Command;

/// Where Open vSwitch keeps flows of its own making, such as those of its rules in-band (`TBL_INTERNAL`, ovs-fields(7)).
const HIDDEN: u8 = 254;
/// Flows of others that are told of one by one.
const MOST_OTHERS: usize = 1000;
/// Cookies of others that are asked for.
const MOST_COOKIES: usize = 100;
/// Of those that stand above ours, in the summary of a bridge.
const MOST_ABOVE: usize = 20;

/// `GET /v1/vifs/{id}/flows` and `/v1/bridges/{name}/flows`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FlowListing {
    /// Name of the bridge.
    pub bridge: String,
    /// Whose flows.
    pub of: Belongs,
    /// Their cookies.
    pub cookies: Vec<String>,
    /// Whether they were compared with what is wanted.
    pub compared: bool,
    /// Why not, or what else is to be said; a sentence, may be empty.
    pub note: String,
    /// Those tables that have some.
    pub tables: Vec<TableListing>,
    /// The groups that go with them, as they are wanted, in the text of `ovs-ofctl`.
    pub groups: Vec<String>,
}

/// A table's part of the flows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TableListing {
    /// The table.
    pub table: u8,
    /// What it is called; none for a table that vifd does not use.
    pub name: Option<String>,
    /// Highest priority first.
    pub flows: Vec<FlowLine>,
}

/// One flow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowLine {
    /// How it stands.
    pub standing: Standing,
    /// As `ovs-ofctl --no-stats dump-flows` has it.
    pub flow: String,
    /// Packets that it matched; absent for one that is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub packets: Option<u64>,
    /// Octets of these.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// How long it has been there, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<u64>,
}

/// How a flow stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Standing {
    /// It is there, and wanted as far as that is known.
    There,
    /// It is there and not wanted, or not like that.
    Unwanted,
    /// It is wanted and not there.
    Missing,
}

/// What there is on a managed bridge: one of `GET /v1/bridges`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BridgeFlows {
    /// Name of the bridge.
    pub bridge: String,
    /// Whether its switch is seen. Otherwise everything below is nothing.
    pub up: bool,
    /// How the session with it is.
    pub detail: String,
    /// Why vifd does not manage it although it is configured to, and what to do; empty when it does.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub unmanaged: String,
    /// Flows of vifd's.
    pub flows: usize,
    /// Groups in vifd's range.
    pub groups: usize,
    /// Meters in vifd's range.
    pub meters: usize,
    /// Flows of others.
    pub foreign_flows: usize,
    /// Those of them that stand above a flow of vifd's in its table: packets may go by them instead.
    pub foreign_above: usize,
    /// The first twenty of these, in the text of `ovs-ofctl`, always with their table.
    pub above: Vec<String>,
}

impl BridgeFlows {
    /// Takes stock of a switch.
    pub(super) fn count(bridge: &str, state: &FlowState, ours: [crate::plan::IdRange; 2]) -> Self {
        let [groups, meters] = ours;
        let above = above(state);
        BridgeFlows {
            bridge: bridge.to_owned(),
            up: true,
            detail: String::new(),
            unmanaged: String::new(),
            flows: state.owned.values().map(|set| set.len()).sum(),
            groups: state.groups.keys().filter(|id| groups.contains(**id)).count(),
            meters: state.meters.keys().filter(|id| meters.contains(**id)).count(),
            foreign_flows: state.foreign.values().map(|set| set.len()).sum(),
            foreign_above: above.len(),
            above: above.into_iter().take(MOST_ABOVE).map(with_table).collect(),
        }
    }
}

/// The text of `ovs-ofctl`, in which table 0 goes without saying, with it.
fn with_table(flow: &Flow) -> String {
    let text = Flow { cookie: 0, ..flow.clone() }.to_string();
    let text = if flow.table == 0 { format!("table=0, {text}") } else { text };
    match flow.cookie {
        0 => text,
        cookie => format!("cookie={cookie:#x}, {text}"),
    }
}

/// Flows of others in our tables that have a higher priority than one of ours there, the ends of tables aside.
fn above(state: &FlowState) -> Vec<&Flow> {
    if state.foreign.is_empty() {
        return Vec::new();
    }
    let mut lowest: BTreeMap<u8, u16> = BTreeMap::new();
    for id in state.owned.values().flat_map(|set| set.keys()).filter(|id| id.priority > 0) {
        lowest.entry(id.table).and_modify(|lowest| *lowest = id.priority.min(*lowest)).or_insert(id.priority);
    }
    let others = state.foreign.values().flat_map(|set| set.values()).map(AsRef::as_ref);
    let mut above: Vec<&Flow> =
        others.filter(|flow| lowest.get(&flow.table).is_some_and(|lowest| flow.priority > *lowest)).collect();
    above.sort_by_key(|flow| (flow.table, std::cmp::Reverse(flow.priority)));
    above
}

impl Inspector {
    /// What there is on every managed bridge, by name.
    #[must_use]
    pub fn bridges(&self) -> Vec<BridgeFlows> {
        let settings = self.eyes.control.borrow().settings.clone();
        let states = self.eyes.states.borrow().clone();
        let status = self.eyes.status.borrow().clone();
        let one = |bridge: &String| {
            let session = self.session(bridge);
            let state = states.ready().and_then(|states| states.get(bridge)?.ready());
            let counted = state.map(|state| BridgeFlows::count(bridge, state, [settings.groups, settings.meters]));
            let counted = counted.unwrap_or_else(|| BridgeFlows { bridge: bridge.clone(), ..BridgeFlows::default() });
            let unmanaged = status.unmanaged.get(bridge).cloned().unwrap_or_default();
            BridgeFlows { up: session.up, detail: session.detail, unmanaged, ..counted }
        };
        settings.bridges.keys().map(one).collect()
    }

    /// The flows of `whose`, with what they counted.
    ///
    /// # Errors
    /// There is nothing to list, or the switch cannot be asked.
    pub async fn listing(&self, whose: Whose) -> Result<FlowListing, InspectError> {
        match whose {
            Whose::Vif(id) => self.of_vif(id).await,
            Whose::Network(word, bridge) => {
                let key = self.network(&word)?;
                let bridge = match bridge {
                    Some(bridge) => bridge,
                    None => {
                        let mut bridges = self.ask(|reply| Command::BridgesOf(key, reply)).await?;
                        if bridges.len() > 1 {
                            let message = format!("network {word} is on {}: say which", bridges.join(", "));
                            return Err(InspectError::Unclear { parameter: "bridge", message });
                        }
                        bridges.pop().ok_or_else(|| {
                            InspectError::Unknown(format!("network {word} has no VIF on a bridge with managed flows"))
                        })?
                    }
                };
                self.managed(&bridge)?;
                let intended = self
                    .intended(FlowsOf::Network(bridge.clone(), key))
                    .await?
                    .ok_or_else(|| InspectError::Unknown(format!("network {word} has no VIF on bridge {bridge}")))?;
                let of = self.owners().of(Cookie::network(self.tag(), key).0);
                self.compared(intended, of, "").await
            }
            Whose::Bridge(bridge) => {
                self.managed(&bridge)?;
                let intended = self.intended(FlowsOf::Bridge(bridge.clone())).await?;
                let intended = intended.unwrap_or(Intended { bridge, ..Intended::default() });
                self.compared(intended, Belongs::Bridge, "").await
            }
            Whose::Others(bridge) => self.of_others(bridge).await,
        }
    }

    async fn of_vif(&self, id: VifId) -> Result<FlowListing, InspectError> {
        let status = self.eyes.status.borrow().clone();
        let vif = status.vifs.get(&id);
        let vif = vif.ok_or_else(|| InspectError::Unknown(format!("VIF {id} is not known on this host")))?;
        let wanted = self.eyes.records.borrow().desired.vifs.contains_key(&id);
        let mut note = "";
        let intended = match self.intended(FlowsOf::Vif(id)).await? {
            Some(mut intended) => {
                self.managed(&intended.bridge)?;
                // What was planned for another port, or before there is one, says nothing about now.
                if intended.port.map(i64::from) != vif.facts.ofport {
                    intended.flows = None;
                    note = "its port is not usable yet, so it is not known what it takes";
                }
                intended
            }
            None => {
                let bridge = vif.facts.bridge.clone().ok_or_else(|| {
                    InspectError::NotOurs(format!("VIF {id} is on no Open vSwitch bridge, so it has no flows"))
                })?;
                let cookies = vec![Cookie::vif(self.tag(), id)];
                let flows = (!wanted).then(Vec::new);
                Intended { bridge, cookies, flows, ..Intended::default() }
            }
        };
        self.managed(&intended.bridge)?;
        self.compared(intended, Belongs::to(vif), note).await
    }

    async fn compared(&self, intended: Intended, of: Belongs, note: &str) -> Result<FlowListing, InspectError> {
        let there = self.with_cookies(&intended.bridge, intended.cookies.iter().map(|cookie| cookie.0)).await?;
        Ok(FlowListing {
            of,
            cookies: intended.cookies.iter().map(ToString::to_string).collect(),
            compared: intended.flows.is_some(),
            note: note.to_owned(),
            tables: by_table(lines(intended.flows.as_deref(), &there)),
            groups: intended.groups.iter().map(ToString::to_string).collect(),
            bridge: intended.bridge,
        })
    }

    async fn of_others(&self, bridge: String) -> Result<FlowListing, InspectError> {
        self.managed(&bridge)?;
        let cookies: Vec<u64> = {
            let states = self.eyes.states.borrow();
            let state = states
                .ready()
                .and_then(|states| states.get(&bridge)?.ready())
                .ok_or_else(|| InspectError::Away { bridge: bridge.clone(), reason: self.session(&bridge).detail })?;
            state.foreign.keys().copied().collect()
        };
        let mut there = self.with_cookies(&bridge, cookies.iter().copied().take(MOST_COOKIES)).await?;
        there.retain(|stats| stats.flow.table != HIDDEN);
        let more = there.len() > MOST_OTHERS || cookies.len() > MOST_COOKIES;
        there.truncate(MOST_OTHERS);
        let note = if more { "there are more: `ovs-ofctl dump-flows` has them all" } else { "" };
        Ok(FlowListing {
            of: Belongs::Other,
            cookies: cookies.iter().take(MOST_COOKIES).map(|cookie| format!("{cookie:#x}")).collect(),
            compared: false,
            note: note.to_owned(),
            tables: by_table(lines(None, &there)),
            groups: Vec::new(),
            bridge,
        })
    }

    /// The flows with exactly these cookies.
    async fn with_cookies(
        &self,
        bridge: &str,
        cookies: impl Iterator<Item = u64>,
    ) -> Result<Vec<FlowStats>, InspectError> {
        let cookies: Vec<u64> = cookies.collect();
        self.call(bridge, async |handle| {
            let mut all = Vec::new();
            for cookie in cookies {
                let request = FlowsRequest { cookie, cookie_mask: u64::MAX, ..FlowsRequest::default() };
                all.extend(handle.flows(request).await?);
            }
            Ok(all)
        })
        .await
    }
}

type Line = (u8, std::cmp::Reverse<u16>, FlowLine);

/// Flows that are there beside those that are wanted, where that is known.
fn lines(wanted: Option<&[Flow]>, there: &[FlowStats]) -> Vec<Line> {
    let (mut unwanted, mut missing) = (BTreeSet::new(), BTreeSet::new());
    let changes = wanted.map(|wanted| diff_flows(wanted, there.iter().map(|stats| &stats.flow), |_| true).changes);
    for change in changes.into_iter().flatten() {
        let id = FlowId::of(&change.flow);
        if !matches!(change.command, FlowCommand::Delete | FlowCommand::DeleteStrict) {
            missing.insert(id.clone());
        }
        // One that is to be another is shown as it is and as it should be.
        unwanted.insert(id);
    }
    let line = |flow: &Flow, standing, stats: Option<&FlowStats>| {
        let line = FlowLine {
            standing,
            flow: flow.to_string(),
            packets: stats.map(|stats| stats.packet_count),
            bytes: stats.map(|stats| stats.byte_count),
            seconds: stats.map(|stats| stats.duration.as_secs()),
        };
        (flow.table, std::cmp::Reverse(flow.priority), line)
    };
    let there = there.iter().map(|stats| {
        let standing = if unwanted.contains(&FlowId::of(&stats.flow)) { Standing::Unwanted } else { Standing::There };
        line(&stats.flow, standing, Some(stats))
    });
    let absent = wanted.into_iter().flatten().filter(|flow| missing.contains(&FlowId::of(flow)));
    let mut lines: Vec<Line> = there.chain(absent.map(|flow| line(flow, Standing::Missing, None))).collect();
    lines.sort_by(|(table, priority, line), (other_table, other_priority, other)| {
        (table, priority, &line.flow, line.standing).cmp(&(other_table, other_priority, &other.flow, other.standing))
    });
    lines
}

fn by_table(lines: Vec<Line>) -> Vec<TableListing> {
    let mut tables: Vec<TableListing> = Vec::new();
    for (table, _, line) in lines {
        match tables.last_mut().filter(|last| last.table == table) {
            Some(last) => last.flows.push(line),
            None => {
                let name = tables::name(table).map(str::to_owned);
                tables.push(TableListing { table, name, flows: vec![line] });
            }
        }
    }
    tables
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::model::FlowSet;

    fn there(text: &str, packet_count: u64) -> FlowStats {
        FlowStats { flow: text.parse().unwrap(), duration: Duration::from_secs(7), packet_count, byte_count: 9 }
    }

    #[test]
    fn what_is_missing_and_what_is_too_much_is_marked() {
        let wanted: Vec<Flow> = [
            "cookie=0x1, table=10, priority=100,in_port=1 actions=drop",
            "cookie=0x1, table=10, priority=100,in_port=2 actions=drop",
            "cookie=0x1, table=40, priority=10 actions=output:3",
        ]
        .map(|text| text.parse().unwrap())
        .into();
        let there = [
            there("cookie=0x1, table=40, priority=10 actions=output:4", 1),
            there("cookie=0x1, table=10, priority=100,in_port=1 actions=drop", 2),
            there("cookie=0x1, table=10, priority=200,in_port=1 actions=drop", 3),
        ];
        let told = by_table(lines(Some(&wanted), &there));
        let shown: Vec<_> = told
            .iter()
            .flat_map(|table| table.flows.iter().map(|line| (table.table, line.standing, line.packets)))
            .collect();
        use Standing::{Missing, There, Unwanted};
        let expected = [
            (10, Unwanted, Some(3)),
            (10, There, Some(2)),
            (10, Missing, None),
            (40, Missing, None),
            (40, Unwanted, Some(1)),
        ];
        assert_eq!(shown, expected);
        assert_eq!(told[1].name.as_deref(), Some("lookup"));
        let unknown = lines(None, &there);
        assert!(unknown.iter().all(|(_, _, line)| line.standing == There), "{unknown:?}");
    }

    #[test]
    fn those_above_ours_are_counted_in_our_tables_alone() {
        let set = |texts: &[&str]| {
            let flows = texts.iter().map(|text| text.parse::<Flow>().unwrap());
            Arc::new(flows.map(|flow| (FlowId::of(&flow), Arc::new(flow))).collect::<FlowSet>())
        };
        let mut state = FlowState::default();
        state
            .owned
            .insert(7, set(&["table=40, priority=0 actions=drop", "table=40, priority=10,in_port=1 actions=drop"]));
        assert_eq!(BridgeFlows::count("b", &state, [IdRange { first: 1, last: 9 }; 2]).foreign_above, 0);
        state.foreign.insert(
            8,
            set(&[
                "table=40, priority=5,in_port=1 actions=drop",
                "table=40, priority=11,in_port=2 actions=drop",
                "table=77, priority=900,in_port=2 actions=drop",
            ]),
        );
        let counted = BridgeFlows::count("b", &state, [IdRange { first: 1, last: 9 }; 2]);
        assert_eq!((counted.flows, counted.foreign_flows, counted.foreign_above), (2, 3, 1));
        assert_eq!(counted.above, ["table=40, priority=11,in_port=2 actions=drop"]);
    }

    use crate::plan::IdRange;
}
