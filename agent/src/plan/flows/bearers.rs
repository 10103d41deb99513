//! Whose a number is. Cookies and metadata are hashes, so two owners of flows may have the same one: then who had it
//! first has flows and the other one has none, since nobody could tell these apart, nor packets of two networks. It
//! is known from the records alone, before any flow is made.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::super::pipeline::{Cookie, NetworkKey, OwnerTag};
use crate::model::{Table, Vif, VifId};

/// An owner of flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Bearer {
    /// What every bridge has.
    Bridge,
    /// The members of groups that rules name.
    Groups,
    /// What the VIFs of a network share.
    Network(NetworkKey),
    /// A VIF.
    Vif(VifId),
}

impl Bearer {
    /// What its flows have in common with nobody else's, as a rule.
    fn number(self) -> u64 {
        // The upper bits are the agent's, and so all the same.
        let agent = OwnerTag(0);
        match self {
            Bearer::Bridge => Cookie::bridge(agent).0,
            Bearer::Groups => Cookie::groups(agent).0,
            Bearer::Network(key) => key.metadata(),
            Bearer::Vif(id) => Cookie::vif(agent, id).0,
        }
    }
}

impl std::fmt::Display for Bearer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Bearer::Bridge => write!(f, "what every bridge has"),
            Bearer::Groups => write!(f, "the groups of rules"),
            Bearer::Network(NetworkKey::Network(id)) => write!(f, "network {id}"),
            Bearer::Network(NetworkKey::Alone(id)) => write!(f, "the network of VIF {id} alone"),
            Bearer::Vif(id) => write!(f, "VIF {id}"),
        }
    }
}

/// Everybody whom records make an owner of flows, on whatever bridge.
#[derive(Clone, Debug, Default)]
pub(super) struct Bearers {
    made_from: Table<VifId, Vif>,
    /// Who has a number, and by how many records.
    first: BTreeMap<u64, (Bearer, usize)>,
    /// Who would have it as well.
    others: BTreeMap<(u64, Bearer), usize>,
}

impl Bearers {
    /// These are the records now. Who had a number by those before keeps it.
    pub(super) fn follow(&mut self, vifs: &Table<VifId, Vif>) {
        let before = std::mem::replace(&mut self.made_from, vifs.clone());
        let of = |vif: &Arc<Vif>| [Bearer::Network(NetworkKey::of(vif)), Bearer::Vif(vif.id)];
        before.differing(vifs, |_, was, is| {
            is.into_iter().flat_map(of).for_each(|bearer| self.come(bearer));
            was.into_iter().flat_map(of).for_each(|bearer| self.go(bearer));
        });
    }

    fn come(&mut self, bearer: Bearer) {
        let number = bearer.number();
        let (first, records) = self.first.entry(number).or_insert((bearer, 0));
        if *first == bearer {
            *records += 1;
        } else {
            *self.others.entry((number, bearer)).or_default() += 1;
        }
    }

    fn go(&mut self, bearer: Bearer) {
        let number = bearer.number();
        let Some((first, records)) = self.first.get_mut(&number) else { return };
        if *first == bearer {
            *records -= 1;
            if *records > 0 {
                return;
            }
            let next = self.others.range((number, Bearer::Bridge)..).next().filter(|((of, _), _)| *of == number);
            match next.map(|((_, bearer), records)| (*bearer, *records)) {
                Some(next) => {
                    self.others.remove(&(number, next.0));
                    self.first.insert(number, next);
                }
                None => drop(self.first.remove(&number)),
            }
        } else if let Some(records) = self.others.get_mut(&(number, bearer)) {
            *records -= 1;
            if *records == 0 {
                self.others.remove(&(number, bearer));
            }
        }
    }

    /// Who else has the number that would be this one's.
    pub(super) fn before(&self, bearer: Bearer) -> Option<Bearer> {
        let number = bearer.number();
        let fixed = [Bearer::Bridge, Bearer::Groups].into_iter().find(|fixed| fixed.number() == number);
        fixed.or_else(|| self.first.get(&number).map(|(first, _)| *first)).filter(|first| *first != bearer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two VIFs with the same hash of 48 bits.
    const ONE: &str = "4c491231-8168-483c-8000-000000000000";
    const OTHER: &str = "2a433b2a-406a-41cd-8000-000000000000";

    #[test]
    fn who_has_a_number_keeps_it_until_its_last_record_goes() {
        let [one, other] = [ONE, OTHER].map(|id| Bearer::Vif(id.parse().unwrap()));
        assert_eq!(one.number(), other.number());
        let mut bearers = Bearers::default();
        [one, one, other].into_iter().for_each(|bearer| bearers.come(bearer));
        assert_eq!((bearers.before(one), bearers.before(other)), (None, Some(one)));
        bearers.go(one);
        assert_eq!((bearers.before(one), bearers.before(other)), (None, Some(one)));
        bearers.go(one);
        assert_eq!((bearers.before(one), bearers.before(other)), (Some(other), None));
        bearers.go(other);
        assert!(bearers.first.is_empty() && bearers.others.is_empty());
    }
}
