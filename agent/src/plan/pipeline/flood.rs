//! The groups that flood a network: one bucket for each member and one for the uplink. A network has as many groups as
//! its buckets need, since a group is one message, and no more members than one packet can go to.

use flows::{Action, Bucket, Group, GroupKind};

use super::facts::{Member, NetworkFacts, Uplink};
use super::lookup;
use super::pen::{TO, set};
use super::tables::OUTPUT;

/// Most buckets in one group. Each is 48 octets: its head, `set_field` of a register, `resubmit`. A message has at most
/// 65,535, with the heads of the group, and of the bundle that it is in.
const BUCKETS: usize = 60_000 / 48;

/// Most tables that a flooded packet may go through (`MAX_RESUBMITS` of OVS's `ofproto/ofproto-dpif-xlate.c` is 4,096,
/// beyond which the whole packet is dropped), less what other tables take.
const MOST_TABLES: usize = 4_000;

/// Most octets of actions that a packet may take in Linux (`MAX_ACTIONS_BUFSIZE` of `net/openvswitch/flow_netlink.c`, 32 KiB;
/// later kernels take more), beyond which nobody gets it; less what it takes beside its copies.
const MOST_OCTETS: usize = 32 * 1024 - 512;

/// What a copy takes of both.
#[derive(Clone, Copy)]
struct Cost {
    tables: usize,
    octets: usize,
}

/// A copy goes through its output, and through three tables for rules before that. In the datapath it is an output of 8
/// octets, with a tag 12 more to push and pop it.
fn cost(vlan: Option<u16>, rules: bool) -> Cost {
    let tagged = if vlan.is_some() { 12 } else { 0 };
    Cost { tables: if rules { 4 } else { 1 }, octets: 8 + tagged }
}

/// How many of the members, from the first on, a packet of this network can be flooded to. The others get what is sent to
/// their addresses, but neither broadcast nor multicast.
#[must_use]
pub fn flooded(members: &[Member], uplink: Option<Uplink>) -> usize {
    let mut taken = uplink.map_or(Cost { tables: 0, octets: 0 }, |uplink| cost(uplink.vlan, false));
    let fits = |member: &&Member| {
        let more = cost(member.at.vlan, member.rules);
        taken = Cost { tables: taken.tables + more.tables, octets: taken.octets + more.octets };
        taken.tables <= MOST_TABLES && taken.octets <= MOST_OCTETS
    };
    members.iter().take_while(fits).count()
}

fn bucket(to: u32, table: u8) -> Bucket {
    Bucket::new([set(TO, to), Action::resubmit(table)])
}

/// The place that a bucket of such a group sends to: [`super::Attachment::id`] of a VIF, the port of an uplink. `None`
/// for a bucket that is not of our making.
#[must_use]
pub fn served(bucket: &Bucket) -> Option<u32> {
    receiver(&bucket.actions)
}

/// The same of a copy for an address of several VIFs.
#[must_use]
pub fn copied_to(action: &Action) -> Option<u32> {
    match action {
        Action::Clone(actions) => receiver(actions),
        _ => None,
    }
}

fn receiver(actions: &[Action]) -> Option<u32> {
    match actions {
        [Action::SetField(to), Action::Resubmit { .. }] if to.field() == TO => u32::try_from(to.numbers().0).ok(),
        _ => None,
    }
}

/// The buckets of a network, in the groups that they fit into. A network with one place alone has nothing to flood.
fn buckets(facts: &NetworkFacts) -> Vec<Vec<Bucket>> {
    let reached = &facts.members[..flooded(&facts.members, facts.uplink)];
    let uplink = facts.uplink.map(|uplink| bucket(uplink.port.into(), OUTPUT));
    let all: Vec<_> = uplink
        .into_iter()
        .chain(reached.iter().map(|member| bucket(member.at.id(), lookup::next(member.rules))))
        .chain(facts.limbo.iter().cloned())
        .collect();
    all.chunks(BUCKETS).take(groups_of(all.len())).map(<[Bucket]>::to_vec).collect()
}

/// The groups that so many buckets fit into.
fn groups_of(buckets: usize) -> usize {
    if buckets < 2 { 0 } else { buckets.div_ceil(BUCKETS) }
}

/// How many groups a network takes, with so many buckets of [`NetworkFacts::limbo`]: their ids are the planner's to find.
#[must_use]
pub fn groups_needed(members: &[Member], uplink: Option<Uplink>, limbo: usize) -> usize {
    groups_of(flooded(members, uplink) + usize::from(uplink.is_some()) + limbo)
}

pub(super) fn groups(facts: &NetworkFacts) -> Vec<Group> {
    let buckets = buckets(facts);
    let group = |(buckets, id): (Vec<Bucket>, &u32)| Group { id: *id, kind: GroupKind::All, buckets: buckets.into() };
    buckets.into_iter().zip(&facts.groups).map(group).collect()
}
