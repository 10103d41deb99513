//! The order in which the operations of a batch are sent to one switch, and what became of each. Pure.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use flows::message::{Message, PacketOut};
use flows::session::{self, CallError, Refusal};
use flows::{FlowCommand, FlowId, FlowMod, GroupCommand, MeterCommand, MeterMod};

use super::FlowChange;
use crate::backend::{Attributed, Outcome, Party};

/// When an operation of a batch is done. A deleted group or meter takes the flows with it that use it, and Open vSwitch
/// takes no meters in a bundle; so everything comes before what uses it and goes after.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Zones that are to be empty when their flows come, each for itself.
    Zones,
    /// Meters that are new or different, each for itself.
    MetersFirst,
    /// The bundle: groups that are new or different,
    Groups,
    /// flows that are not wanted,
    FlowDeletions,
    /// flows that are new or different,
    Flows,
    /// groups that are not wanted.
    GroupDeletions,
    /// Meters that are not wanted, each for itself.
    MetersLast,
    /// What is told when all of that is in force.
    Announcements,
}

impl Stage {
    /// When this is done.
    #[must_use]
    pub fn of(change: &FlowChange) -> Stage {
        match change {
            FlowChange::Meter(change) if change.command == MeterCommand::Delete => Stage::MetersLast,
            FlowChange::Meter(_) => Stage::MetersFirst,
            FlowChange::Group(change) if change.command == GroupCommand::Delete => Stage::GroupDeletions,
            FlowChange::Group(_) => Stage::Groups,
            FlowChange::Flow(change) => match change.command {
                FlowCommand::Delete | FlowCommand::DeleteStrict => Stage::FlowDeletions,
                FlowCommand::Add | FlowCommand::Modify | FlowCommand::ModifyStrict => Stage::Flows,
            },
            FlowChange::FlushZone(_) => Stage::Zones,
            FlowChange::Announce(_) => Stage::Announcements,
        }
    }
}

/// A batch for one switch on its way.
#[derive(Debug)]
pub(super) struct Batch {
    ops: Vec<Attributed<FlowChange>>,
    outcomes: Vec<Outcome>,
    /// Places in `ops` in the order in which they are done.
    order: Vec<usize>,
    /// The bundles to come, the next one last.
    bundles: Vec<Part>,
    /// Bundles that were refused.
    refusals: usize,
}

/// What of the operations for a bundle is one; nobody's of whom something was refused.
#[derive(Debug)]
struct Part {
    /// On whose behalf; `None` is everybody's.
    parties: Option<BTreeSet<Party>>,
    stages: RangeInclusive<Stage>,
}

impl Part {
    fn of(parties: Option<BTreeSet<Party>>) -> Part {
        Part { parties, stages: Stage::Groups..=Stage::GroupDeletions }
    }
}

/// So many bundles may be refused until the rest waits for the next batch: one where everybody is refused would take as
/// many bundles as it has parties.
const MOST_REFUSALS: usize = 32;

impl Batch {
    pub(super) fn new(ops: Vec<Attributed<FlowChange>>) -> Self {
        let mut order: Vec<usize> = (0..ops.len()).collect();
        order.sort_by_key(|place| Stage::of(&ops[*place].op));
        Batch { outcomes: vec![Outcome::Untried; ops.len()], order, ops, bundles: vec![Part::of(None)], refusals: 0 }
    }

    /// The operations of these stages that may be done, in order: nobody's whose operation was refused before. What one
    /// of theirs goes without would be wrong by itself, such as a flow whose meter is not there.
    fn places(&self, stages: RangeInclusive<Stage>) -> Vec<usize> {
        let refused: BTreeSet<_> = self
            .outcomes
            .iter()
            .zip(&self.ops)
            .filter(|(outcome, _)| matches!(outcome, Outcome::Failed(_) | Outcome::BatchFailed(_) | Outcome::Unknown))
            .map(|(_, op)| &op.party)
            .collect();
        let due = |place: &usize| {
            let op = &self.ops[*place];
            let untried = self.outcomes[*place] == Outcome::Untried;
            untried && stages.contains(&Stage::of(&op.op)) && !refused.contains(&op.party)
        };
        self.order.iter().copied().filter(due).collect()
    }

    /// Zones to be emptied, and their places.
    pub(super) fn zones(&self) -> (Vec<usize>, Vec<u16>) {
        let places = self.places(Stage::Zones..=Stage::Zones);
        let zone = |place: &usize| match &self.ops[*place].op {
            FlowChange::FlushZone(zone) => Some(*zone),
            _ => None,
        };
        let zones = places.iter().filter_map(zone).collect();
        (places, zones)
    }

    /// Meters of this stage, and their places.
    pub(super) fn meters(&self, stage: Stage) -> (Vec<usize>, Vec<MeterMod>) {
        let places = self.places(stage..=stage);
        let meter = |place: &usize| match &self.ops[*place].op {
            FlowChange::Meter(change) => Some(change.clone()),
            _ => None,
        };
        let meters = places.iter().filter_map(meter).collect();
        (places, meters)
    }

    /// What is done at once, and the places: everything, and where that was refused what is left of it, in parts. Nothing
    /// when there is no more.
    pub(super) fn bundle(&mut self) -> (Vec<usize>, Vec<Message>) {
        while let Some(Part { parties, stages }) = self.bundles.pop() {
            let mut places = self.places(stages);
            if let Some(parties) = parties {
                places.retain(|place| parties.contains(&self.ops[*place].party));
            }
            if places.is_empty() {
                continue;
            }
            let message = |place: &usize| match &self.ops[*place].op {
                FlowChange::Flow(change) => Some(Message::FlowMod(change.clone())),
                FlowChange::Group(change) => Some(Message::GroupMod(change.clone())),
                FlowChange::Meter(_) | FlowChange::FlushZone(_) | FlowChange::Announce(_) => None,
            };
            let messages = places.iter().filter_map(message).collect();
            return (places, messages);
        }
        Default::default()
    }

    /// Announcements on behalf of those of whom everything was done.
    pub(super) fn announcements(&self) -> Vec<(usize, PacketOut)> {
        let undone: BTreeSet<_> = self
            .order
            .iter()
            .filter(|place| !matches!(self.ops[**place].op, FlowChange::Announce(_)))
            .filter(|place| self.outcomes[**place] != Outcome::Done)
            .map(|place| &self.ops[*place].party)
            .collect();
        let places = self.places(Stage::Announcements..=Stage::Announcements).into_iter();
        let packet = |place: usize| match &self.ops[place].op {
            FlowChange::Announce(packet) if !undone.contains(&self.ops[place].party) => Some((place, packet.clone())),
            _ => None,
        };
        places.filter_map(packet).collect()
    }

    /// What became of messages that were sent each for itself.
    pub(super) fn each(&mut self, places: &[usize], answer: Result<Vec<Refusal>, CallError>) {
        match answer {
            Ok(refusals) => {
                self.all(places, &Outcome::Done);
                for refusal in refusals {
                    match refusal.index.and_then(|index| places.get(index)) {
                        Some(place) => self.fail(*place, &refusal),
                        None => self.all(places, &Outcome::BatchFailed(refusal.error.to_string())),
                    }
                }
            }
            Err(CallError::NotSent) => self.all(places, &Outcome::Untried),
            Err(CallError::Disconnected) => self.all(places, &Outcome::Unknown),
            Err(error) => self.all(places, &Outcome::BatchFailed(error.to_string())),
        }
    }

    /// What became of the bundle.
    pub(super) fn bundled(&mut self, places: &[usize], outcome: session::Outcome) {
        match outcome {
            session::Outcome::Committed => self.all(places, &Outcome::Done),
            session::Outcome::NotSent => self.all(places, &Outcome::Untried),
            session::Outcome::Unknown => self.all(places, &Outcome::Unknown),
            session::Outcome::Refused(refusals) => {
                let mut named = false;
                for refusal in &refusals {
                    if let Some(place) = refusal.index.and_then(|index| places.get(index)) {
                        self.fail(*place, refusal);
                        named = true;
                    }
                }
                let words = refusals.first().map_or_else(String::new, |refusal| refusal.error.to_string());
                self.again(places, named, &words);
            }
        }
    }

    /// What becomes of the others after a refused bundle. Open vSwitch names the first operation that it refuses and looks
    /// no further. One bad party is left out, and everything else is one bundle again; after that they are halved, so
    /// that each bundle that is refused finds a further one, and what is sent in all grows with the depth of that. Flows of
    /// those who only have some taken away go before the halves: a table that is full has room again for what comes. With a
    /// group would go flows that name it until others are what they are to be; groups go when their half does.
    fn again(&mut self, places: &[usize], named: bool, words: &str) {
        self.refusals += 1;
        let blamed: BTreeSet<_> = places
            .iter()
            .filter(|place| self.outcomes[**place] != Outcome::Untried)
            .map(|place| &self.ops[*place].party)
            .collect();
        let others: BTreeSet<&Party> = places.iter().map(|place| &self.ops[*place].party).collect();
        let mut others: Vec<Party> = others.difference(&blamed).map(|party| (*party).clone()).collect();
        // What VIFs rely on comes before them, and what nobody wants any more goes last.
        others.sort_by_key(|party| match party {
            Party::Sharers(..) => 0,
            Party::Vif(_) | Party::Nic(_) | Party::NicMode(_) => 1,
            Party::All => 2,
        });
        if !named && others.len() < 2 {
            self.all(places, &Outcome::Failed(words.to_owned()));
        } else if self.refusals >= MOST_REFUSALS {
            self.bundles.clear();
        } else if named && self.refusals == 1 {
            self.bundles.push(Part::of(None));
        } else {
            let is_deletion = |op: &FlowChange| matches!(Stage::of(op), Stage::FlowDeletions | Stage::GroupDeletions);
            let changes = places.iter().map(|place| &self.ops[*place]).filter(|op| !is_deletion(&op.op));
            let changing: BTreeSet<&Party> = changes.map(|op| &op.party).collect();
            let leaving: BTreeSet<Party> = others.iter().filter(|party| !changing.contains(party)).cloned().collect();
            let deletions = (leaving.len() < others.len())
                .then_some(Part { parties: Some(leaving), stages: Stage::FlowDeletions..=Stage::FlowDeletions });
            let second = others.split_off(others.len() / 2);
            self.bundles.extend([second, others].map(|half| Part::of(Some(half.into_iter().collect()))));
            self.bundles.extend(deletions);
        }
    }

    /// An operation was refused; the words say which, of a VIF's many.
    fn fail(&mut self, place: usize, refusal: &Refusal) {
        let words = format!("{}: {}", refusal.error, self.ops[place].op);
        self.outcomes[place] = Outcome::Failed(words);
    }

    fn all(&mut self, places: &[usize], outcome: &Outcome) {
        for place in places {
            self.outcomes[*place] = outcome.clone();
        }
    }

    /// Whether groups or meters may be others than before.
    pub(super) fn touched_others(&self) -> bool {
        let other = |op: &Attributed<FlowChange>| matches!(op.op, FlowChange::Group(_) | FlowChange::Meter(_));
        self.ops.iter().zip(&self.outcomes).any(|(op, outcome)| other(op) && *outcome != Outcome::Untried)
    }

    /// The flows that took effect, in the order in which they did: the last word on an identity counts.
    pub(super) fn effects(&self) -> Vec<&FlowMod> {
        let done = self.order.iter().filter(|place| self.outcomes[**place] == Outcome::Done);
        let change = |place: &usize| match &self.ops[*place].op {
            FlowChange::Flow(change) => Some(change),
            _ => None,
        };
        let mut seen = BTreeSet::new();
        let mut effects: Vec<&FlowMod> =
            done.filter_map(change).rev().filter(|change| seen.insert(FlowId::of(&change.flow))).collect();
        effects.reverse();
        effects
    }

    /// How many flows it took away.
    pub(super) fn deleted(&self) -> usize {
        self.effects().into_iter().filter(|change| change.command == FlowCommand::DeleteStrict).count()
    }

    /// Whether the switch refused any of it.
    pub(super) fn is_refused(&self) -> bool {
        self.outcomes.iter().any(|outcome| matches!(outcome, Outcome::Failed(_) | Outcome::BatchFailed(_)))
    }

    pub(super) fn is_unknown(&self) -> bool {
        self.outcomes.contains(&Outcome::Unknown)
    }

    /// One outcome per operation.
    pub(super) fn into_outcomes(self) -> Vec<Outcome> {
        self.outcomes
    }
}

#[cfg(test)]
mod tests {
    use flows::message::SwitchError;
    use flows::session::RefusalError;
    use flows::{GroupMod, Meter};
    use uuid::Uuid;

    use super::*;
    use crate::model::VifId;

    fn flow(command: FlowCommand, text: &str) -> FlowChange {
        FlowChange::Flow(FlowMod::new(command, text.parse().unwrap()))
    }

    fn meter(command: MeterCommand, id: u32) -> FlowChange {
        let meter: Meter = format!("meter={id} kbps band=type=drop rate=1").parse().unwrap();
        FlowChange::Meter(MeterMod { command, meter })
    }

    fn group(command: GroupCommand, id: u32) -> FlowChange {
        FlowChange::Group(GroupMod { command, group: format!("group_id={id},type=all").parse().unwrap() })
    }

    fn of(vif: u128, op: FlowChange) -> Attributed<FlowChange> {
        Attributed { party: VifId(Uuid::from_u128(vif)).into(), op }
    }

    fn refused(index: usize) -> Refusal {
        let data = bytes::Bytes::new();
        let error = SwitchError { vendor: flows::message::Vendor::Standard, kind: 5, code: 1, data };
        Refusal { index: Some(index), error: RefusalError::Switch(error) }
    }

    #[test]
    fn everything_comes_before_what_uses_it_and_goes_after() {
        let mut batch = Batch::new(vec![
            of(1, meter(MeterCommand::Delete, 9)),
            of(1, group(GroupCommand::Delete, 9)),
            of(1, flow(FlowCommand::Add, "table=1,in_port=1 actions=drop")),
            of(1, flow(FlowCommand::DeleteStrict, "table=1,in_port=2 actions=drop")),
            of(1, group(GroupCommand::Add, 1)),
            of(1, meter(MeterCommand::Add, 1)),
        ]);
        assert_eq!(batch.meters(Stage::MetersFirst).0, [5]);
        assert_eq!(batch.bundle().0, [4, 3, 2, 1]);
        assert_eq!(batch.meters(Stage::MetersLast).0, [0]);
    }

    #[test]
    fn what_it_took_away_is_what_it_had_done() {
        let deletion =
            |vif, port| of(vif, flow(FlowCommand::DeleteStrict, &format!("table=1,in_port={port} actions=drop")));
        let mut batch = Batch::new(vec![deletion(1, 1), deletion(1, 2), deletion(2, 3)]);
        let (places, _) = batch.bundle();
        assert_eq!(batch.deleted(), 0);
        batch.bundled(&places, session::Outcome::Committed);
        assert_eq!(batch.deleted(), 3);
    }

    #[test]
    fn a_refused_meter_keeps_the_flows_of_its_vif_out_of_the_bundle_and_nobody_elses() {
        let mut batch = Batch::new(vec![
            of(1, meter(MeterCommand::Add, 1)),
            of(2, meter(MeterCommand::Add, 2)),
            of(1, flow(FlowCommand::Add, "table=1,in_port=1 actions=meter:1")),
            of(2, flow(FlowCommand::Add, "table=1,in_port=2 actions=meter:2")),
        ]);
        let (places, _) = batch.meters(Stage::MetersFirst);
        batch.each(&places, Ok(vec![refused(0)]));
        let (places, messages) = batch.bundle();
        assert_eq!((places.as_slice(), messages.len()), (&[3][..], 1));
        batch.bundled(&places, session::Outcome::Committed);
        let outcomes = batch.into_outcomes();
        assert!(matches!(outcomes[0], Outcome::Failed(_)));
        assert_eq!(outcomes[1..], [Outcome::Done, Outcome::Untried, Outcome::Done]);
    }

    /// A switch that names the first operation of a bad party, or nobody. Answers how many bundles it was sent, and how many
    /// messages.
    fn send(batch: &mut Batch, bad: &BTreeSet<u128>, names: bool) -> (usize, usize) {
        let (mut bundles, mut sent) = (0, 0);
        loop {
            let (places, messages) = batch.bundle();
            if places.is_empty() {
                return (bundles, sent);
            }
            (bundles, sent) = (bundles + 1, sent + messages.len());
            let is_bad = |place: &usize| bad.contains(&batch.ops[*place].party.vif().unwrap().0.as_u128());
            let outcome = match places.iter().position(is_bad) {
                None => session::Outcome::Committed,
                Some(place) if names => session::Outcome::Refused(vec![refused(place)]),
                Some(_) => session::Outcome::Refused(vec![Refusal { index: None, ..refused(0) }]),
            };
            batch.bundled(&places, outcome);
        }
    }

    #[test]
    fn several_refused_parties_are_found_in_one_batch_and_everybody_else_is_served() {
        let ops = || -> Vec<_> {
            let text = |op| format!("table=1,in_port={op} actions=drop");
            (0..2000).map(|op: u128| of(op / 2, flow(FlowCommand::Add, &text(op)))).collect()
        };
        let [some, few] =
            [&[3, 4, 500, 501, 502, 700, 999][..], &[3, 700]].map(|bad| BTreeSet::from_iter(bad.iter().copied()));
        for (bad, names, most_bundles) in [(some, true, 2 * 7 + 1), (few, false, 2 * 10 * 2 + 1)] {
            let mut batch = Batch::new(ops());
            let (bundles, sent) = send(&mut batch, &bad, names);
            assert!(bundles <= most_bundles, "{bundles} bundles");
            assert!(sent < 2000 * 12, "{sent} messages");
            for (op, outcome) in (0u128..).zip(batch.into_outcomes()) {
                let (bad, failed) = (bad.contains(&(op / 2)), matches!(outcome, Outcome::Failed(_)));
                assert!(
                    if bad { failed || outcome == Outcome::Untried } else { outcome == Outcome::Done },
                    "{op}: {outcome:?}"
                );
                assert!(!bad || op % 2 == 1 || failed, "{op}: {outcome:?}");
            }
        }
        // One alone is left out, and the others are one bundle.
        assert_eq!(send(&mut Batch::new(ops()), &BTreeSet::from([7]), true), (2, 2000 + 1998));
        // Where all are bad not all of them are tried.
        let (bundles, _) = send(&mut Batch::new(ops()), &(0..1000).collect(), true);
        assert_eq!(bundles, MOST_REFUSALS);
    }

    /// Two bad ones, and a table that is full until somebody's flows go.
    #[test]
    fn in_halves_what_goes_makes_room_first_but_for_groups() {
        let add = |vif, port| of(vif, flow(FlowCommand::Add, &format!("table=1,in_port={port} actions=drop")));
        let delete = |vif, port| {
            let op = flow(FlowCommand::DeleteStrict, &format!("table=1,in_port={port} actions=drop"));
            Attributed { party: if vif == 0 { Party::All } else { of(vif, op.clone()).party }, op }
        };
        let sweep = Attributed { party: Party::All, op: group(GroupCommand::Delete, 7) };
        // The last has flows that go and one that comes.
        let ops = vec![
            add(1, 1),
            add(2, 2),
            add(3, 3),
            add(4, 4),
            delete(5, 5),
            sweep,
            delete(0, 6),
            delete(6, 7),
            add(6, 8),
        ];
        let (bad, mut free) = ([1, 2], 0);
        let mut batch = Batch::new(ops);
        let mut sent = Vec::new();
        loop {
            let (places, _) = batch.bundle();
            if places.is_empty() {
                break;
            }
            let count = |stage| places.iter().filter(|place| Stage::of(&batch.ops[**place].op) == stage).count();
            let room = free + count(Stage::FlowDeletions);
            let is_bad = |place: &usize| bad.map(|bad| of(bad, add(1, 1).op).party).contains(&batch.ops[*place].party);
            let outcome = match places.iter().position(is_bad) {
                Some(place) => session::Outcome::Refused(vec![refused(place)]),
                None if room < count(Stage::Flows) => {
                    session::Outcome::Refused(vec![Refusal { index: None, ..refused(0) }])
                }
                None => {
                    free = room - count(Stage::Flows);
                    session::Outcome::Committed
                }
            };
            batch.bundled(&places, outcome);
            sent.push(places);
        }
        // Everything, all but the first, what makes room, and the halves; with the second of them goes the group.
        assert_eq!(sent[2..], [vec![4, 6], vec![2, 3], vec![7, 8, 5]], "{sent:?}");
        let outcomes = batch.into_outcomes();
        assert!(outcomes[..2].iter().all(|outcome| matches!(outcome, Outcome::Failed(_))), "{outcomes:?}");
        assert!(outcomes[2..].iter().all(|outcome| *outcome == Outcome::Done), "{outcomes:?}");
    }

    #[test]
    fn a_refused_bundle_blames_what_the_switch_names() {
        let ops = vec![
            of(1, flow(FlowCommand::Add, "table=1,in_port=1 actions=drop")),
            of(2, flow(FlowCommand::Add, "table=1,in_port=2 actions=drop")),
        ];
        let mut batch = Batch::new(ops.clone());
        let (places, _) = batch.bundle();
        assert!(!batch.is_refused());
        batch.bundled(&places, session::Outcome::Refused(vec![refused(1)]));
        assert!(batch.is_refused());
        let outcomes = batch.into_outcomes();
        assert_eq!(outcomes[0], Outcome::Untried);
        assert!(matches!(&outcomes[1], Outcome::Failed(_)));
        let mut batch = Batch::new(ops);
        batch.bundled(&places, session::Outcome::Unknown);
        assert!(batch.is_unknown());
    }
}
