//! What `ofproto/trace` (`ovs-vswitchd(8)`) says of a packet, in terms of VIFs and networks. [`explain`] is pure: the text
//! of a trace in, what it means out; whatever the text is, it is read as far as it makes sense.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use super::owners::{Belongs, Owners};
use super::packet::{Around, Question, To, packet};
use super::{InspectError, Inspector};
use crate::backend::unixctl::{self, ControlError};
use crate::model::{MacAddr, VifId};
use crate::plan::FlowsOf;
use crate::plan::pipeline::{Place, Reason, tables};
use crate::status::VifStatus;

/// Steps that are told of: a flood to as many VIFs as Open vSwitch lets a packet reach takes fewer.
const MOST_STEPS: usize = 20_000;
/// Receivers that a sentence names.
const MOST_NAMES: usize = 6;

/// `GET /v1/vifs/{id}/trace`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Trace {
    /// Name of the bridge.
    pub bridge: String,
    /// The packet, as `ofproto/trace` was asked.
    pub packet: String,
    /// What was assumed, a sentence each.
    pub assumed: Vec<String>,
    /// The flows that it went by.
    pub steps: Vec<Step>,
    /// Where it left.
    pub sent: Vec<Sent>,
    /// Where it, or a copy of it, was dropped.
    pub dropped: Vec<Dropped>,
    /// All of that in one sentence.
    pub sentence: String,
    /// What Open vSwitch said.
    pub text: String,
}

/// A flow that a packet went by.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// The table.
    pub table: u8,
    /// What it is called.
    pub name: Option<String>,
    /// What the flow matches, with its priority; empty where there was none.
    pub flow: String,
    /// Whose flow it is; none where there was none.
    pub of: Option<Belongs>,
    /// Its cookie.
    pub cookie: Option<String>,
    /// What it did, as `ofproto/trace` says.
    pub actions: Vec<String>,
    /// How often the packet had come back from connection tracking.
    pub round: usize,
    /// How deep in groups and the like.
    pub depth: usize,
    /// Whether it is the rest of a flow that was told of before: what a group does after another of its buckets.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub continued: bool,
}

/// A port that a packet left by.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sent {
    /// Name of the port.
    pub port: String,
    /// The VIF that has it.
    pub to: Option<Belongs>,
    /// Whether it is an uplink.
    pub uplink: bool,
    /// The tag that it left with.
    pub vlan: Option<u16>,
}

/// A place where a packet was dropped.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Dropped {
    /// One of the reasons of `docs/flows.md`; none where the flow is not vifd's.
    pub reason: Option<String>,
    /// What that means.
    pub meaning: String,
    /// The table.
    pub table: u8,
    /// What it is called.
    pub name: Option<String>,
    /// Whose flow dropped it.
    pub of: Option<Belongs>,
}

/// What a reason means; `docs/flows.md` has the same words.
pub(super) fn meaning(reason: Reason) -> &'static str {
    match reason {
        Reason::Inactive => "The VIF is not active.",
        Reason::Tagged => "A tag that is no sub-port's.",
        Reason::Mac => "Another's Ethernet source.",
        Reason::Arp => "Another's address in ARP or RARP.",
        Reason::Nd => "Another's address in neighbour discovery, or discovery that cannot be read.",
        Reason::RouterAdvertisement => "A router advertisement of a guest.",
        Reason::MulticastQuery => "A query for members of multicast groups from a guest.",
        Reason::DhcpServer => "An answer of a DHCP server from a guest.",
        Reason::Ip => "Another's IP source.",
        Reason::Ethertype => "Neither IP nor ARP.",
        Reason::EgressRules => "No rule lets it pass from the guest.",
        Reason::IngressRules => "No rule lets it pass to the guest.",
        Reason::Invalid => "Part of no connection, and begins none.",
        Reason::ReservedMulticast => "01:80:c2:00:00:00 to 0f, which no bridge forwards.",
        Reason::UnknownDestination => "From an uplink, and nobody here has the address; or there is no uplink.",
        Reason::Hairpin => "A flood does not go back to its sender.",
        Reason::Unclassified => "From no port of a VIF or uplink, or flows are missing.",
    }
}

/// What lets such packets pass, where a record can.
pub(super) fn remedy(reason: Reason) -> Option<&'static str> {
    match reason {
        Reason::Mac | Reason::Arp | Reason::Nd | Reason::Ip => {
            Some("policy.allowed_address_pairs of its record lets it use further addresses")
        }
        Reason::EgressRules | Reason::IngressRules => Some("policy.rules of its record says what may pass"),
        Reason::Inactive => Some("the record says \"active\": false"),
        _ => None,
    }
}

/// What is needed to understand a trace.
#[derive(Clone, Copy, Debug)]
pub struct Sense<'a> {
    /// The bridge that it is of.
    pub bridge: &'a str,
    /// Whose cookies and ports are.
    pub owners: &'a Owners,
    /// Ports that lead out of the host.
    pub uplinks: &'a [String],
}

/// What a trace means.
#[must_use]
pub fn explain(text: &str, sense: Sense<'_>) -> Trace {
    let mut trace = Trace { bridge: sense.bridge.to_owned(), text: text.to_owned(), ..Trace::default() };
    let mut failure = None;
    let mut round = 0;
    let mut places: Vec<Option<u16>> = Vec::new();
    // With which it comes; every resumption begins with a line of its own on that.
    let mut vlan = None;
    for line in text.lines() {
        let (depth, words) = (line.len() - line.trim_start().len(), line.trim());
        if let Some(actions) = line.strip_prefix("Datapath actions: ") {
            sent(actions, vlan, sense, &mut trace.sent);
        } else if let Some(flow) = line.strip_prefix("Flow: ") {
            let tag = flow.split(',').find_map(|field| field.strip_prefix("dl_vlan="));
            vlan = tag.and_then(|tag| tag.parse().ok());
        } else if line.starts_with("recirc(") {
            round += 1;
            if line.contains("default ct_state=") {
                let at = trace.steps.last().map_or(String::new(), |step| format!(", after table {}", step.table));
                trace.assumed.push(format!(
                    "connection tracking is taken to say trk,new, the first packet of a connection (lookup {round}{at})"
                ));
            }
        } else if words.starts_with("Translation failed") || words.starts_with(">>>>") {
            failure = Some(words.trim_matches(['>', '<', ' ']).to_owned());
        } else if trace.steps.len() < MOST_STEPS
            && let Some((mut step, priority)) = step(words, sense)
        {
            (step.round, step.depth) = (round, depth / 4);
            trace.steps.push(step);
            places.push(priority);
        } else if depth > 0 && !is_frame(words) {
            action(&mut trace.steps, &mut places, depth, words);
        }
    }
    if trace.steps.len() == MOST_STEPS {
        trace.assumed.push(format!("only the first {MOST_STEPS} steps are told of"));
    }
    let flooded = !trace.sent.is_empty();
    // The first line is the packet itself.
    let packet = text.lines().find_map(|line| line.strip_prefix("Flow: ")).unwrap_or_default();
    let to = packet.split(',').find_map(|field| field.strip_prefix("dl_dst=")?.parse::<MacAddr>().ok());
    let unicast = to.is_some_and(|mac| mac.0[0] & 1 == 0);
    let drops = trace.steps.iter().zip(&places).filter_map(|(step, priority)| dropped(step, *priority, unicast));
    // A flood that came back to its sender is no fault.
    let hairpin = Reason::Hairpin.name();
    trace.dropped = drops.filter(|drop| !(flooded && drop.reason.as_deref() == Some(hairpin))).collect();
    trace.sentence = sentence(&trace, failure.as_deref());
    trace
}

/// Takes in an action, of whichever flow it is: the buckets of a group go on where those before them have ended.
fn action(steps: &mut Vec<Step>, places: &mut Vec<Option<u16>>, depth: usize, words: &str) {
    let Some(at) = steps.iter().rposition(|step| step.depth * 4 < depth) else { return };
    if at + 1 < steps.len() && steps.len() < MOST_STEPS {
        steps.push(Step { actions: Vec::new(), continued: true, ..steps[at].clone() });
        places.push(places[at]);
    }
    let Some(step) = steps.last_mut() else { return };
    // What is recirculated goes no further here, which Open vSwitch calls a drop.
    if words.starts_with("-> A clone of the packet is forked") && step.actions.last().is_some_and(|last| last == "drop")
    {
        step.actions.pop();
    }
    step.actions.push(words.to_owned());
}

/// A headline, a rule or the like, which is no action.
fn is_frame(words: &str) -> bool {
    let again = words == "thaw" || words.starts_with("Resuming from table");
    again
        || words.is_empty()
        || words.starts_with("bridge(\"")
        || words.bytes().all(|byte| byte == b'-' || byte == b'=')
}

/// `12. ip,reg5=0x1, priority 20, cookie 0x50…` or ` 5. No match.`, with the priority where there is a flow.
fn step(words: &str, sense: Sense<'_>) -> Option<(Step, Option<u16>)> {
    let (table, rest) = words.split_once(". ")?;
    let table: u8 = table.parse().ok()?;
    let step = |flow: &str, of, cookie| Step {
        table,
        name: tables::name(table).map(str::to_owned),
        flow: flow.to_owned(),
        of,
        cookie,
        actions: Vec::new(),
        round: 0,
        depth: 0,
        continued: false,
    };
    if rest.starts_with("No match") {
        return Some((step("", None, None), None));
    }
    let (flow, cookie) = match rest.rsplit_once(", cookie 0x") {
        Some((flow, cookie)) => (flow, u64::from_str_radix(cookie.trim(), 16).ok()?),
        None => (rest, 0),
    };
    let (_, priority) = flow.rsplit_once("priority ")?;
    let priority = priority.trim().parse().ok()?;
    Some((step(flow, Some(sense.owners.of(cookie)), Some(format!("{cookie:#x}"))), Some(priority)))
}

/// What a step dropped, if it did.
fn dropped(step: &Step, priority: Option<u16>, unicast: bool) -> Option<Dropped> {
    let (table, name, of) = (step.table, step.name.clone(), step.of.clone());
    let because = |reason: Reason| Dropped {
        reason: Some(reason.name().to_owned()),
        meaning: meaning(reason).to_owned(),
        table,
        name: name.clone(),
        of: of.clone(),
    };
    let Some(priority) = priority else {
        return Some(because(tables::dropped_at(Place::miss(table)).unwrap_or(Reason::Unclassified)));
    };
    if step.continued || step.actions.first().is_none_or(|action| action != "drop") {
        return None;
    }
    if of == Some(Belongs::Other) {
        let meaning = "A flow that is not vifd's drops it.".to_owned();
        return Some(Dropped { reason: None, meaning, table, name: step.name.clone(), of });
    }
    let reason = tables::dropped_at(Place { table, priority })?;
    let mut dropped = because(reason);
    if reason == Reason::Hairpin && unicast {
        dropped.meaning = "It is for its own sender.".to_owned();
    }
    // Which of the two it is tells the flow.
    if reason == Reason::UnknownDestination {
        dropped.meaning = match priority {
            0 => "Nobody here who is active has the address, and its network has no uplink.",
            _ => "It came from an uplink, and nobody here has the address.",
        }
        .to_owned();
    }
    Some(dropped)
}

/// The outputs in a list of datapath actions (`--names`): `push_vlan(vid=100,pcp=0),eth1,pop_vlan,tap2`.
fn sent(actions: &str, mut vlan: Option<u16>, sense: Sense<'_>, all: &mut Vec<Sent>) {
    let mut depth = 0_usize;
    let pieces = actions.split(|letter| {
        match letter {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        letter == ',' && depth == 0
    });
    for action in pieces.map(str::trim) {
        if let Some(tag) = action.strip_prefix("push_vlan(") {
            let vid = tag.split([',', ')']).find_map(|field| field.strip_prefix("vid="));
            vlan = vid.and_then(|vid| vid.parse().ok());
        } else if action == "pop_vlan" {
            vlan = None;
        } else if let Some(inner) = action.strip_prefix("clone(").and_then(|rest| rest.strip_suffix(')')) {
            sent(inner, vlan, sense, all);
        } else if !action.contains('(') && !matches!(action, "drop" | "ct_clear" | "pop_eth" | "") {
            all.push(Sent {
                to: sense.owners.at(sense.bridge, action, vlan),
                uplink: sense.uplinks.iter().any(|uplink| uplink == action),
                port: action.to_owned(),
                vlan,
            });
        }
    }
}

fn sentence(trace: &Trace, failure: Option<&str>) -> String {
    let mut words = String::new();
    let vifs: Vec<&Sent> = trace.sent.iter().filter(|sent| sent.to.is_some() && !sent.uplink).collect();
    let shown: Vec<String> = vifs.iter().take(MOST_NAMES).map(|sent| receiver(sent)).collect();
    match &vifs[..] {
        [] => {}
        [_] => words = format!("delivered to {}", shown.join(", ")),
        all => {
            let more = all.len().saturating_sub(MOST_NAMES);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            words = format!("delivered to {} VIFs: {}{more}", all.len(), shown.join(", "));
        }
    }
    for sent in trace.sent.iter().filter(|sent| sent.to.is_none() || sent.uplink) {
        if !words.is_empty() {
            words.push_str(", and ");
        }
        let tag = sent.vlan.map_or_else(|| "without a tag".to_owned(), |vlan| format!("on VLAN {vlan}"));
        let _ = match (sent.uplink, sent.port == trace.bridge) {
            (true, _) => write!(words, "leaves by the uplink {} {tag}", sent.port),
            (false, true) => write!(words, "delivered to the host itself ({})", sent.port),
            (false, false) => write!(words, "leaves by port {}, which is no VIF's, {tag}", sent.port),
        };
    }
    let nowhere = words.is_empty();
    // The same at each of many VIFs is said once.
    let mut said: Vec<String> = Vec::new();
    let mut unsaid = 0;
    for drop in if nowhere { &trace.dropped[trace.dropped.len().saturating_sub(1)..] } else { &trace.dropped[..] } {
        let table = drop.name.as_ref().map_or_else(|| drop.table.to_string(), |name| format!("{} {name}", drop.table));
        let why = match &drop.reason {
            Some(reason) => format!("{reason} (table {table}): {}", drop.meaning),
            None => format!("table {table}: {}", drop.meaning),
        };
        let told = match (nowhere, &drop.of) {
            (true, _) => format!("dropped, {why}"),
            (false, Some(of @ Belongs::Vif { .. })) => format!("not to {of}, {why}"),
            (false, _) => format!("a copy is dropped, {why}"),
        };
        match said.contains(&told) {
            true => {}
            false if said.len() < MOST_NAMES => said.push(told),
            false => unsaid += 1,
        }
    }
    for told in said {
        words = if words.is_empty() { told } else { format!("{}; {told}", words.trim_end_matches('.')) };
    }
    if unsaid > 0 {
        let _ = write!(words, " (and {unsaid} more)");
    }
    match failure {
        Some(failure) if nowhere => format!("dropped by Open vSwitch itself: {failure}"),
        Some(failure) => format!("{words} (Open vSwitch: {failure})"),
        None if words.is_empty() => "not sent anywhere".to_owned(),
        None => words,
    }
}

fn receiver(sent: &Sent) -> String {
    // Which VLAN of a trunk says the sub-port's name.
    sent.to.as_ref().map_or_else(|| sent.port.clone(), ToString::to_string)
}

/// Why a VIF cannot get a packet that is on this bridge.
fn out_of_reach(to: &VifStatus, bridge: &str) -> Option<String> {
    let who = Belongs::to(to);
    match (to.facts.bridge.as_deref(), to.facts.ofport) {
        (None, _) => Some(format!("{who} is on no bridge")),
        (Some(other), _) if other != bridge => Some(format!("{who} is on bridge {other}")),
        (Some(_), Some(1..)) => None,
        (Some(_), _) => Some(format!("{who} has no usable port yet: {}", to.message)),
    }
}

impl Inspector {
    /// Has the switch say where a packet from a VIF would go, or one to it. Nothing is sent and nothing is changed by it.
    ///
    /// # Errors
    /// What is asked makes no sense, or the switch cannot be asked.
    pub async fn trace(&self, id: VifId, question: &Question) -> Result<Trace, InspectError> {
        let status = self.eyes.status.borrow().clone();
        let vif = status.vifs.get(&id);
        let vif = vif.ok_or_else(|| InspectError::Unknown(format!("VIF {id} is not known on this host")))?;
        let no_port = || {
            let who = Belongs::to(vif);
            InspectError::NotOurs(format!("{who} has no usable port on a bridge with managed flows: {}", vif.message))
        };
        let bridge = vif.facts.bridge.clone().ok_or_else(no_port)?;
        self.managed(&bridge)?;
        let port = vif.facts.ofport.and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0);
        let port = port.ok_or_else(no_port)?;
        let desired = self.eyes.records.borrow().desired.clone();
        let record = desired.vifs.get(&id);
        let record = record.ok_or_else(|| InspectError::NotOurs(format!("VIF {id} has no record any more")))?;
        let intended = self.intended(FlowsOf::Vif(id)).await?.unwrap_or_default();
        let (uplink, vlan) = (intended.uplink, intended.vlan);
        let asked = packet(question, Around { vif: record, port, vlan, uplink, desired: &desired });
        let asked =
            asked.map_err(|error| InspectError::Unclear { parameter: error.parameter, message: error.message })?;
        let mut arguments = vec!["--names"];
        arguments.extend(question.conntrack.iter().flat_map(|state| ["--ct-next", state]));
        arguments.extend([bridge.as_str(), &asked.flow]);
        let answer = unixctl::ask(&self.eyes.rundir, "ofproto/trace", &arguments, unixctl::PATIENCE).await;
        let text = answer.map_err(|error| match error {
            // What is said raw, it reads itself.
            ControlError::Refused(_) if question.flow.is_some() => {
                InspectError::Unclear { parameter: "flow", message: error.to_string() }
            }
            error => InspectError::Control(error),
        })?;
        let owners = self.owners();
        let uplinks: Vec<String> = {
            let control = self.eyes.control.borrow();
            let managed = control.settings.bridges.get(&bridge);
            managed.into_iter().flat_map(|managed| &managed.uplinks).map(|uplink| uplink.port.clone()).collect()
        };
        let mut trace = explain(&text, Sense { bridge: &bridge, owners: &owners, uplinks: &uplinks });
        if let Some(To::Vif(other)) = question.to
            && let Some(why) = status.vifs.get(&other).and_then(|other| out_of_reach(other, &bridge))
        {
            trace.sentence = format!("{}; {why}", trace.sentence.trim_end_matches('.'));
        }
        trace.assumed.splice(0..0, asked.assumed);
        trace.packet = asked.flow;
        Ok(trace)
    }
}

#[cfg(test)]
mod tests;
