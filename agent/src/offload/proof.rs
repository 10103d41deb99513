//! Which VIF a flow of a datapath belongs to, how many of a VIF's are in hardware, and what that says of it. Lines of a dump
//! in, a [`Proof`] for each VIF out.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};

use super::flow::{DatapathFlow, Offloaded};
use super::ground::{Expectations, Ground};
use super::reason::Reason;
use crate::model::VifId;
use crate::status::Truth;

/// What was seen of a VIF's flows in the datapath, at the last look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    /// How many there are; `None` while they cannot be read.
    pub counts: Option<OffloadCounts>,
    /// Whether its traffic is in hardware.
    pub truth: Truth,
    /// One word in CamelCase.
    pub reason: &'static str,
    /// One sentence.
    pub message: String,
    /// Whether that is of an earlier look: there is no flow now that would say anything.
    pub is_earlier: bool,
}

/// How many flows a VIF has in the datapath.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OffloadCounts {
    /// In hardware.
    pub offloaded_flows: u64,
    /// In software.
    pub software_flows: u64,
    /// Why most of these are there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offload_reason: Option<String>,
}

/// What was proved of each VIF.
pub type Proofs = BTreeMap<VifId, std::sync::Arc<Proof>>;

/// The flows of one VIF.
#[derive(Debug, Default)]
struct Count {
    offloaded: u64,
    software: BTreeMap<Reason, u64>,
}

/// Counts the flows of a dump, a line at a time.
#[derive(Debug)]
pub struct Tally<'a> {
    ground: &'a Ground,
    /// VIFs by their ports.
    vifs: HashMap<&'a str, Vec<VifId>>,
    counts: BTreeMap<VifId, Count>,
    flows: usize,
}

impl<'a> Tally<'a> {
    /// For the flows of these VIFs; those of others are only passed over.
    pub fn new<'b>(ground: &'a Ground, expected: impl IntoIterator<Item = (&'b VifId, &'a str)>) -> Self {
        let mut vifs: HashMap<&str, Vec<VifId>> = HashMap::new();
        let mut counts = BTreeMap::new();
        for (id, port) in expected {
            vifs.entry(port).or_default().push(*id);
            counts.insert(*id, Count::default());
        }
        Tally { ground, vifs, counts, flows: 0 }
    }

    /// Takes in a line of the dump.
    pub fn line(&mut self, line: &str) {
        let Some(flow) = DatapathFlow::parse(line) else { return };
        self.flows += 1;
        let mut ports = flow.outputs();
        ports.push(flow.in_port());
        ports.sort_unstable();
        ports.dedup();
        let mut reason = None;
        for id in ports.iter().filter_map(|port| self.vifs.get(port)).flatten() {
            let Some(count) = self.counts.get_mut(id) else { continue };
            if flow.offloaded == Offloaded::Yes {
                count.offloaded += 1;
            } else {
                let reason = reason.get_or_insert_with(|| Reason::of(&flow, self.ground));
                *count.software.entry(reason.clone()).or_default() += 1;
            }
        }
    }

    /// Flows seen so far, whosever they are.
    #[must_use]
    pub fn flows(&self) -> usize {
        self.flows
    }

    /// What the flows say. `cut` says that there were more of them than were read.
    #[must_use]
    pub fn finish(self, cut: bool) -> BTreeMap<VifId, Proof> {
        let ground = self.ground;
        let seen = cut.then_some(self.flows);
        let ports: BTreeMap<VifId, &str> =
            self.vifs.iter().flat_map(|(port, ids)| ids.iter().map(|id| (*id, *port))).collect();
        self.counts
            .into_iter()
            .map(|(id, count)| {
                let mut proof = count.proof(ports.get(&id).copied().unwrap_or_default(), ground);
                if let Some(seen) = seen {
                    proof.message.push_str(&format!("; only the first {seen} flows of the datapath were looked at"));
                }
                (id, proof)
            })
            .collect()
    }
}

impl Count {
    fn proof(self, port: &str, ground: &Ground) -> Proof {
        let Count { offloaded, software } = &self;
        let total: u64 = software.values().sum();
        // Of those that are as many, the first in order.
        let top = |by_nature: bool| {
            let those = software.iter().filter(move |(reason, _)| reason.is_by_nature() == by_nature);
            those.rev().max_by_key(|(_, flows)| **flows)
        };
        let (fault, nature) = (top(false), top(true));
        let told = |truth, reason, message: String| Proof {
            counts: Some(OffloadCounts {
                offloaded_flows: *offloaded,
                software_flows: total,
                offload_reason: fault.or(nature).map(|(reason, _)| reason.sentence()),
            }),
            truth,
            reason,
            message,
            is_earlier: false,
        };
        // What is so for all flows is so before there are any.
        let flow =
            DatapathFlow { keys: vec![super::flow::Key { name: "in_port", value: port }], ..DatapathFlow::default() };
        let forbidden = match Reason::of(&flow, ground) {
            reason @ (Reason::OffloadNotSet
            | Reason::PolicySkipsHardware
            | Reason::LegacyEswitch(_)
            | Reason::TcOffloadOff(_)
            | Reason::Software(..)) => Some(reason),
            _ => None,
        };
        match (fault, nature) {
            (Some((reason, flows)), _) => {
                let avoidable: u64 =
                    software.iter().filter(|(reason, _)| !reason.is_by_nature()).map(|(_, flows)| flows).sum();
                let most = if *flows == avoidable { String::new() } else { format!("{flows} of them because ") };
                let rest = [(*offloaded, "in hardware"), (total - avoidable, "in software that no NIC could have")];
                let rest = rest.iter().filter(|(flows, _)| *flows > 0);
                let rest: Vec<String> = rest.map(|(flows, what)| format!("; {flows} {what}")).collect();
                let message = format!(
                    "{} in software that could be in hardware: {most}{}{}",
                    are(avoidable),
                    reason.sentence(),
                    rest.concat()
                );
                told(Truth::False, reason.word(), message)
            }
            _ if let Some(reason) = forbidden => {
                let message = format!("nothing that it sends can be in hardware: {}", reason.sentence());
                told(Truth::False, reason.word(), message)
            }
            (None, nature) if *offloaded > 0 => {
                let mut message = format!("{} in hardware", are(*offloaded));
                if let Some((reason, flows)) = nature {
                    let most = if *flows == total { String::new() } else { format!(" ({flows} of these)") };
                    message.push_str(&format!(", and {total} that no NIC could have: {}{most}", reason.sentence()));
                }
                told(Truth::True, "InHardware", message)
            }
            (None, Some((reason, _))) => {
                let message = format!(
                    "no flow seen yet that could be in hardware; {} in software: {}",
                    are(total),
                    reason.sentence()
                );
                told(Truth::Unknown, "NothingToOffload", message)
            }
            (None, None) => {
                let message = "no flow seen yet: there is one when there is traffic".to_owned();
                told(Truth::Unknown, "NoFlowSeen", message)
            }
        }
    }
}

/// `1 flow is`, `7 flows are`
fn are(flows: u64) -> String {
    if flows == 1 { "1 flow is".to_owned() } else { format!("{flows} flows are") }
}

impl Proof {
    /// What is told where the datapath cannot be looked at.
    #[must_use]
    pub fn unread(error: &str) -> Proof {
        let message = format!("the flows of the datapath cannot be read: {error}");
        Proof { counts: None, truth: Truth::Unknown, reason: "CannotBeRead", message, is_earlier: false }
    }

    /// What is told when this was seen after `before` on the same grounds. Flows go ten seconds after their traffic
    /// (`max-idle`): that there is none that says anything takes nothing back.
    #[must_use]
    pub fn after(self, before: Option<&Proof>) -> Proof {
        let Some(before) = before.filter(|before| before.truth != Truth::Unknown) else { return self };
        if self.truth != Truth::Unknown || self.counts.is_none() {
            return self;
        }
        let message = if before.is_earlier {
            before.message.clone()
        } else {
            format!("when there was traffic last, {}", before.message)
        };
        Proof { truth: before.truth, reason: before.reason, message, is_earlier: true, ..self }
    }
}

/// What is proved of VIFs, whatever their datapath said: `expected` in, a dump as text in, for tests and tools.
#[must_use]
pub fn prove(dump: &str, ground: &Ground, expected: &Expectations) -> BTreeMap<VifId, Proof> {
    let mut tally = Tally::new(ground, expected.iter().map(|(id, wanted)| (id, wanted.port.as_str())));
    dump.lines().for_each(|line| tally.line(line));
    tally.finish(false)
}
