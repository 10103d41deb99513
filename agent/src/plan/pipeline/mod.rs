//! What a switch does with packets on a bridge that vifd manages: the flows, groups and meters of VIFs and networks.
//! Pure: facts in, flows out, the same for the same facts; nothing is compared here with what a switch has, and nothing
//! is sent.
//!
//! ```text
//!          ┌─ 10 ─ 11 ─ 12 ─┐      ┌─ 30 ─ 31 ─ 32 ─┐           ┌─ 50 ─ 51 ─ 52 ─┐
//!  VIF ─ 0 ┤  port security ├─ 20 ─┤  egress rules  ├─ 40 ──────┤ ingress rules  ├─ 60 ─ VIF, uplink
//!          └────────────────┘  │   └────────────────┘  │ lookup └────────────────┘  │
//!  uplink ─ 0 ─────────────────│───────────────────────┘                            │
//!                            meter                                                meter
//! ```
//!
//! Every way through it is chosen where it begins (a VIF without rules skips their tables), and a packet that a table has
//! no flow for is dropped: where flows are missing, nothing passes. [`tables`] is the map; `docs/flows.md` is for
//! operators.

mod announce;
mod classify;
pub mod cookie;
pub mod facts;
mod flood;
mod lookup;
mod output;
mod pen;
mod port_security;
mod ranges;
mod rate;
mod rules;
pub mod tables;

use std::collections::{BTreeMap, BTreeSet};

use flows::{Flow, Group};

pub use announce::announcement;
pub use cookie::{Cookie, NetworkKey, OwnerTag};
pub use facts::{
    Attachment, DhcpServers, Member, MeterIds, NetworkFacts, PortFacts, RuleFacts, Uplink, member_addresses,
};
pub use flood::{copied_to, flooded, groups_needed, served};
pub use rate::meters;
pub use rules::{groups, membership};
pub use tables::{Counts, Place, Reason};

use self::pen::Pen;

/// The flows of a VIF: one that drops everything of an inactive one, else its way through all tables. In order of tables
/// and priorities, no identity twice.
#[must_use]
pub fn vif(port: &PortFacts) -> Vec<Flow> {
    let mut pen = Pen::new(Cookie::vif(port.owner, port.id));
    if !port.active {
        classify::quarantine(&mut pen, port.at);
        return pen.finish();
    }
    classify::vif(&mut pen, port);
    if port.port_security {
        port_security::vif(&mut pen, port);
    }
    rate::vif(&mut pen, port);
    rules::vif(&mut pen, port);
    lookup::vif(&mut pen, port);
    output::vif(&mut pen, port);
    pen.finish()
}

/// What a network has on a bridge.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetworkFlows {
    /// As with [`vif`].
    pub flows: Vec<Flow>,
    /// The groups that flood it.
    pub groups: Vec<Group>,
}

/// A network was given fewer ids than it has groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a network that takes {needed} groups was given {given} ids")]
pub struct TooFewGroups {
    /// Groups that it takes.
    pub needed: usize,
    /// Ids that it was given.
    pub given: usize,
}

/// The flows and groups of a network. Ids beyond those needed are not used.
///
/// # Errors
/// There are fewer ids than [`groups_needed`] says.
pub fn network(facts: &NetworkFacts) -> Result<NetworkFlows, TooFewGroups> {
    let needed = groups_needed(&facts.members, facts.uplink, facts.limbo.len());
    let given = facts.groups.len();
    let Some(ids) = facts.groups.get(..needed) else { return Err(TooFewGroups { needed, given }) };
    let mut pen = Pen::new(Cookie::network(facts.owner, facts.key));
    classify::network(&mut pen, facts);
    lookup::network(&mut pen, facts, ids);
    output::network(&mut pen, facts);
    Ok(NetworkFlows { flows: pen.finish(), groups: flood::groups(facts) })
}

/// The flows that every managed bridge has: what is the same for all VIFs, and the end of every table.
#[must_use]
pub fn bridge(owner: OwnerTag) -> Vec<Flow> {
    let mut pen = Pen::new(Cookie::bridge(owner));
    classify::bridge(&mut pen);
    port_security::bridge(&mut pen);
    rate::bridge(&mut pen);
    rules::bridge(&mut pen);
    lookup::bridge(&mut pen);
    output::bridge(&mut pen);
    pen.finish()
}

/// A `conj_id` for every group that rules name: 32 bits of a hash of its name. Of two names with the same hash the later
/// gets the next number that is free, so that a number is always one group's alone; every other group keeps its own
/// whichever groups there are.
#[must_use]
pub fn conjunctions<'a>(names: impl IntoIterator<Item = &'a str>) -> BTreeMap<String, u32> {
    cookie::numbered(&names.into_iter().collect::<BTreeSet<_>>(), cookie::conjunction)
}
