//! From what the planner says of a VIF to what people and programs are told: phase, reason, one sentence,
//! conditions. Pure; both clocks are arguments.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use super::{Condition, ConditionKind, Phase, Truth, VifStatus, Word};
use crate::model::{Vif, VifId};
use crate::offload::Proof;
use crate::plan::{Cause, Facts, Judgement, Missing, Verdict};
use crate::source::Rejection;

/// All that is known of one VIF.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// Identity.
    pub id: VifId,
    /// The record in force, if any.
    pub vif: Option<&'a Vif>,
    /// The newest record, where it was refused.
    pub rejection: Option<&'a Rejection>,
    /// The planner's word; `None` before the first plan that knows the VIF.
    pub judgement: Option<&'a Judgement>,
    /// Whether the agent carries out what it plans; otherwise it only observes (`agent.mode`).
    pub enforce: bool,
    /// What was seen of its flows in the datapath, where they are to be in hardware and were looked at.
    pub proof: Option<&'a Proof>,
}

/// Phase, reason and sentence.
struct Words {
    phase: Phase,
    reason: &'static str,
    message: String,
}

impl VifStatus {
    /// The status of a VIF. `previous` is what was last told of it: what did not change keeps its time. `now` and
    /// `today` are the same moment on the two clocks.
    #[must_use]
    pub fn render(subject: Subject<'_>, previous: Option<&VifStatus>, now: Instant, today: SystemTime) -> VifStatus {
        let Words { phase, reason, message } = words(subject, now, today);
        let mut conditions = conditions(subject, reason, &message, today);
        for condition in &mut conditions {
            if let Some(before) = previous.and_then(|status| status.condition(condition.kind))
                && before.status == condition.status
            {
                condition.since = before.since;
            }
        }
        let observed_generation =
            subject.vif.map(|vif| vif.generation).or(previous.map(|status| status.observed_generation)).unwrap_or(0);
        VifStatus {
            id: subject.id,
            kind: match (subject.vif, previous) {
                (Some(vif), _) => vif.kind.type_name().into(),
                (None, Some(status)) => status.kind.clone(),
                (None, None) => Word::default(),
            },
            phase,
            reason: reason.into(),
            message,
            generation: subject.rejection.and_then(|rejection| rejection.generation).unwrap_or(observed_generation),
            observed_generation,
            instance: match subject.vif {
                Some(vif) => vif.instance.as_ref().and_then(|instance| instance.name.clone()),
                None => previous.and_then(|status| status.instance.clone()),
            },
            addresses: subject.vif.map(addresses).unwrap_or_default(),
            conditions,
            facts: subject.judgement.map(|judgement| facts(judgement, subject.proof)).unwrap_or_default(),
            since: previous.filter(|status| status.phase == phase).map_or(today, |status| status.since),
        }
    }
}

/// What the planner saw, and what the datapath told.
fn facts(judgement: &Judgement, proof: Option<&Proof>) -> Arc<Facts> {
    let mut facts = Arc::clone(&judgement.facts);
    let counts = proof.filter(|_| judgement.verdict == Verdict::Ready).and_then(|proof| proof.counts.as_ref());
    if let (Some(_), Some(counts)) = (&judgement.offload, counts) {
        Arc::make_mut(&mut facts).offload = Some(Box::new(counts.clone()));
    }
    facts
}

fn addresses(vif: &Vif) -> Vec<IpAddr> {
    let subnets = vif.network.iter().flat_map(|network| &network.subnets);
    // By way of a slice, as there is no room in one.
    subnets.flat_map(|subnet| &subnet.ips).map(|ip| ip.address).collect::<Box<[IpAddr]>>().into_vec()
}

fn words(subject: Subject<'_>, now: Instant, today: SystemTime) -> Words {
    let told = |phase, reason, message: String| Words { phase, reason, message };
    let Some(judgement) = subject.judgement else {
        return match (subject.vif, subject.rejection) {
            (None, Some(rejection)) => told(Phase::Failed, "RecordRejected", refused(rejection)),
            _ => told(Phase::Pending, "NotPlanned", "known, not planned yet".into()),
        };
    };
    let facts = &judgement.facts;
    match &judgement.verdict {
        Verdict::Ready => told(Phase::Ready, "Ready", usable(judgement, subject.vif)),
        Verdict::Plugged(missing) => {
            let (reason, sentence) = missing_words(missing);
            told(Phase::Plugged, reason, format!("all that vifd does is done; {sentence}"))
        }
        Verdict::Working if !subject.enforce => {
            let message =
                format!("{} would be brought into shape; the agent only observes (agent.mode)", object(facts));
            told(Phase::Waiting, "Observing", message)
        }
        Verdict::Working => told(Phase::Working, "Applying", format!("{} is being brought into shape", object(facts))),
        Verdict::Waiting(missing) => {
            let (reason, sentence) = missing_words(missing);
            told(Phase::Waiting, reason, sentence)
        }
        Verdict::Rejected { field, reason } => {
            let field = if field.is_empty() { String::new() } else { format!("{field}: ") };
            // An update: what the record before it made is not touched.
            let left = match facts.port.is_some() || facts.netdev.is_some() {
                true => format!("; {} is left as it was", object(facts)),
                false => String::new(),
            };
            told(Phase::Failed, "CannotBeHonoured", format!("the record cannot be honoured: {field}{reason}{left}"))
        }
        Verdict::Conflict { reason } => {
            told(Phase::Conflict, "Conflict", format!("{reason}; it is left alone until that changes"))
        }
        Verdict::Failed { reason } => told(Phase::Failed, "DeviceFailed", format!("{}: {reason}", object(facts))),
        Verdict::FlowsFailed { reason } => told(Phase::Failed, "FlowsFailed", format!("{}: {reason}", object(facts))),
        Verdict::Held { cause, error, backend, until } => {
            let next = today + until.saturating_duration_since(now);
            let next = humantime::format_rfc3339_seconds(next);
            if *cause == Cause::Quarrel {
                let message =
                    format!("somebody else undoes what vifd does again and again: {error}; left alone until {next}");
                return told(Phase::Failed, "Quarrel", message);
            }
            told(Phase::Failed, "Refused", format!("{} refused: {error}; tried again at {next}", peer(backend)))
        }
        Verdict::Removing if !subject.enforce => {
            let message = format!("{} would be removed; the agent only observes (agent.mode)", object(facts));
            told(Phase::Removing, "Observing", message)
        }
        Verdict::Removing => told(Phase::Removing, "Removing", format!("{} is being removed", object(facts))),
        Verdict::RemovalStopped => {
            let message = format!(
                "{} has no record any more and stays until `vifd confirm-removals`: too many VIFs lost theirs at \
                 once (max_removals)",
                object(facts)
            );
            told(Phase::Removing, "RemovalStopped", message)
        }
        Verdict::Paused { all } => {
            let resume = match all {
                true => "vifd resume".to_owned(),
                false => format!("vifd resume {}", name(subject.id, facts)),
            };
            match subject.vif {
                Some(_) => {
                    let message = format!("paused: {} needs work and is left as it is until `{resume}`", object(facts));
                    told(Phase::Waiting, "Paused", message)
                }
                None => {
                    let message =
                        format!("paused: {} has no record any more and stays until `{resume}`", object(facts));
                    told(Phase::Removing, "Paused", message)
                }
            }
        }
    }
}

/// `record alice.json is refused: vif.network.mtu: …`
fn refused(rejection: &Rejection) -> String {
    let Rejection { record, field, reason, .. } = rejection;
    let colon = if field.is_empty() { " " } else { ": " };
    let field = if field.is_empty() { "it" } else { field };
    format!("record {record} is refused: {field}{colon}{reason}")
}

/// The object on the host that people know the VIF by.
fn object(facts: &Facts) -> String {
    match facts {
        Facts { port: Some(port), bridge: Some(bridge), vlan: Some(vlan), .. } => {
            format!("VLAN {vlan} of port {port} on bridge {bridge}")
        }
        Facts { port: Some(port), bridge: Some(bridge), .. } => format!("port {port} on bridge {bridge}"),
        Facts { netdev: Some(netdev), .. } => format!("device {netdev}"),
        Facts { guest_device: Some(device), linux_bridge: Some(bridge), .. } => {
            format!("device {device} in bridge {bridge}")
        }
        Facts { port: Some(port), .. } => format!("port {port}"),
        Facts { bridge: Some(bridge), .. } | Facts { linux_bridge: Some(bridge), .. } => {
            format!("the VIF on bridge {bridge}")
        }
        _ => "the VIF".into(),
    }
}

/// What a command line takes for the VIF.
fn name(id: VifId, facts: &Facts) -> String {
    facts.name().map_or_else(|| id.to_string(), Cow::into_owned)
}

fn usable(judgement: &Judgement, vif: Option<&Vif>) -> String {
    let facts = &judgement.facts;
    let mut message = match facts.ofport {
        Some(ofport) => format!("{} is usable (ofport {ofport})", object(facts)),
        None => format!("{} is usable", object(facts)),
    };
    if let (Some(_), Some(device)) = (&facts.port, &facts.guest_device) {
        message.push_str(&format!(" for device {device}"));
    }
    if vif.is_some_and(|vif| !vif.active) {
        message.push_str(", and not active: nothing passes until its record says so");
    }
    if judgement.vhost_connected == Some(false) {
        let socket = facts.socket.as_deref().unwrap_or("its socket");
        message.push_str(&format!("; the guest is not connected to {socket}"));
    }
    message
}

fn peer(backend: &str) -> &str {
    match backend {
        "ovsdb" => "the Open vSwitch database",
        "links" => "the kernel",
        "nics" => "the NIC",
        "openflow" => "the switch",
        other => other,
    }
}

fn missing_words(missing: &Missing) -> (&'static str, String) {
    match missing {
        Missing::View("links") => ("WaitingForKernel", "waiting for the kernel's list of links".into()),
        Missing::View("nics") => ("WaitingForNics", "waiting for what devlink and sysfs say of the NICs".into()),
        Missing::Function(sentence) => ("WaitingForFunction", format!("waiting for {sentence}")),
        Missing::View(backend) => {
            ("WaitingForOvsdb", format!("waiting for {}: is ovsdb-server running (`vifd doctor`)?", peer(backend)))
        }
        Missing::Records => (
            "WaitingForRecords",
            "waiting for the whole set of records (`vifd status` says why it is not complete): without it nothing is \
             removed"
                .into(),
        ),
        Missing::Vswitchd => (
            "VswitchdNotRunning",
            "ovs-vswitchd is not running, or still starting: no port can be used until it runs".into(),
        ),
        Missing::HypervisorPort { port, bridge } => (
            "WaitingForHypervisorPort",
            format!("waiting for the hypervisor to add port {port} to bridge {bridge} when the guest starts"),
        ),
        Missing::Netdev(netdev) => {
            ("WaitingForNetdev", format!("waiting for the hypervisor to make device {netdev} when the guest starts"))
        }
        Missing::Device(path) => (
            "WaitingForDevice",
            format!(
                "waiting for {path}, by which the hypervisor opens the macvtap: the kernel makes it in a host's /dev; a \
                 container, or a unit with PrivateDevices=, has to be given that (macvtap.dir)"
            ),
        ),
        Missing::Ofport(port) => ("WaitingForOfport", format!("waiting for ovs-vswitchd to take in port {port}")),
        Missing::Bridge { bridge, datapath_type } => (
            "WaitingForBridge",
            format!(
                "waiting for ovs-vswitchd to make bridge {bridge} (datapath_type {datapath_type}): where it cannot, its \
                 log says why"
            ),
        ),
        Missing::Busy(sentence) => ("WaitingForOther", sentence.clone()),
        Missing::Switch(bridge) => (
            "WaitingForSwitch",
            format!("waiting for the switch of bridge {bridge} to tell its flows: see the session openflow:{bridge}"),
        ),
        Missing::Parent(sentence) => ("WaitingForParent", sentence.clone()),
        Missing::Uplink(sentence) => ("WaitingForUplink", sentence.clone()),
        Missing::VhostLink(port) => (
            "VhostLinkDown",
            format!(
                "the guest is connected to port {port}, but its link is down: ovs-vswitchd could not get memory \
                 for it (see its log; raise dpdk-socket-mem or set per-port-memory)"
            ),
        ),
    }
}

fn conditions(subject: Subject<'_>, reason: &'static str, message: &str, since: SystemTime) -> Vec<Condition> {
    use ConditionKind::{Accepted, FlowsReady, LinkReady, Offloaded, Plugged, PortReady, VhostConnected};
    let condition = |kind, status, reason: &'static str, message: &str| Condition {
        kind,
        status,
        reason: reason.into(),
        message: message.to_owned(),
        since,
    };
    let verdict = subject.judgement.map(|judgement| &judgement.verdict);
    let facts = subject.judgement.map(|of| [of.link_ready, of.port_ready, of.flows_ready, of.vhost_connected]);
    // Thousands of VIFs keep theirs: no more room than for what follows.
    let offload = subject.judgement.and_then(|of| of.offload.as_ref());
    let room = 2 + facts.iter().flatten().flatten().count() + usize::from(offload.is_some());
    let mut conditions = Vec::with_capacity(room);
    match (subject.rejection, verdict, subject.vif) {
        (Some(rejection), ..) => {
            conditions.push(condition(Accepted, Truth::False, "RecordRejected", &refused(rejection)));
        }
        (None, Some(Verdict::Rejected { .. }), _) => {
            conditions.push(condition(Accepted, Truth::False, reason, message));
        }
        (None, _, Some(_)) => conditions.push(condition(Accepted, Truth::True, "Accepted", "")),
        // Nobody wants it: there is no record to accept.
        (None, _, None) => {}
    }
    let Some(judgement) = subject.judgement else { return conditions };
    let blind =
        matches!(judgement.verdict, Verdict::Waiting(Missing::View(_) | Missing::Vswitchd | Missing::Switch(_)));
    let mut observed = |kind, fact: Option<bool>, so: &'static str| match fact {
        Some(true) => conditions.push(condition(kind, Truth::True, so, "")),
        Some(false) if blind => conditions.push(condition(kind, Truth::Unknown, reason, message)),
        Some(false) => conditions.push(condition(kind, Truth::False, reason, message)),
        None => {}
    };
    observed(Plugged, Some(judgement.plugged), "Plugged");
    observed(LinkReady, judgement.link_ready, "AsWanted");
    observed(PortReady, judgement.port_ready, "Usable");
    observed(FlowsReady, judgement.flows_ready, "Installed");
    match judgement.vhost_connected {
        Some(false) if !blind => {
            conditions.push(condition(VhostConnected, Truth::False, "NoGuest", "the guest is not connected"));
        }
        fact => observed(VhostConnected, fact, "Connected"),
    }
    if offload.is_some() {
        conditions.push(match subject.proof {
            _ if judgement.verdict != Verdict::Ready => condition(Offloaded, Truth::Unknown, reason, message),
            Some(proof) => condition(Offloaded, proof.truth, proof.reason, &proof.message),
            None => {
                let message = "nobody has looked yet (offload.look_every of the configuration)";
                condition(Offloaded, Truth::Unknown, "NotLookedAt", message)
            }
        });
    }
    conditions
}
