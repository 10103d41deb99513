//! Whose a flow is, and which network a packet is on: numbers made of names, the same in every run and release. The
//! hash is FNV-1a of 64 bits (draft-eastlake-fnv), whose upper bits are folded into the lower ones.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use uuid::Uuid;

use crate::model::{AgentId, Vif, VifId};

/// Bits of a cookie, and of the metadata, that say what it is of.
const OF_BITS: u32 = 48;
const OF_MASK: u64 = (1 << OF_BITS) - 1;

/// FNV-1a, 64 bits.
fn fnv(parts: &[&[u8]]) -> u64 {
    let octets = parts.iter().flat_map(|part| part.iter());
    octets.fold(0xcbf2_9ce4_8422_2325, |hash, octet| (hash ^ u64::from(*octet)).wrapping_mul(0x0000_0100_0000_01b3))
}

/// Folded into the 48 lowest bits, and never 0.
fn fnv48(parts: &[&[u8]]) -> u64 {
    let hash = fnv(parts);
    ((hash >> OF_BITS) ^ (hash & OF_MASK)).max(1)
}

/// The 16 bits that all flows of an agent share: hash of `[agent] id`, folded; never 0, which is the cookie of those who
/// think of none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OwnerTag(pub u16);

impl OwnerTag {
    /// The tag of an agent.
    #[must_use]
    pub fn of(agent: &AgentId) -> Self {
        let hash = fnv(&[agent.0.as_bytes()]);
        let folded = (hash >> 48) ^ (hash >> 32) ^ (hash >> 16) ^ hash;
        OwnerTag((folded as u16).max(1))
    }

    /// Whether a flow with this cookie is this agent's.
    #[must_use]
    pub fn owns(self, cookie: u64) -> bool {
        cookie >> OF_BITS == u64::from(self.0)
    }
}

/// What a flow is of, and whose: 16 bits of [`OwnerTag`], 48 bits of hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cookie(pub u64);

impl Cookie {
    fn new(owner: OwnerTag, parts: &[&[u8]]) -> Self {
        Cookie(u64::from(owner.0) << OF_BITS | fnv48(parts))
    }

    /// Of a VIF's flows: hash of `vif` and the 16 octets of its id.
    #[must_use]
    pub fn vif(owner: OwnerTag, vif: VifId) -> Self {
        Self::new(owner, &[b"vif", vif.0.as_bytes()])
    }

    /// Of a network's flows: the network's metadata.
    #[must_use]
    pub fn network(owner: OwnerTag, network: NetworkKey) -> Self {
        Cookie(u64::from(owner.0) << OF_BITS | network.metadata())
    }

    /// Of the flows that every bridge has: hash of `bridge`.
    #[must_use]
    pub fn bridge(owner: OwnerTag) -> Self {
        Self::new(owner, &[b"bridge"])
    }

    /// Of the flows of the groups that rules name: hash of `groups`.
    #[must_use]
    pub fn groups(owner: OwnerTag) -> Self {
        Self::new(owner, &[b"groups"])
    }
}

impl fmt::Display for Cookie {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#018x}", self.0)
    }
}

/// Which network a VIF is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NetworkKey {
    /// The one with this id.
    Network(Uuid),
    /// One of its own: the record names none, or gives it no id.
    Alone(VifId),
}

impl NetworkKey {
    /// The network of a VIF.
    #[must_use]
    pub fn of(vif: &Vif) -> Self {
        vif.network.as_ref().and_then(|network| network.id).map_or(NetworkKey::Alone(vif.id), NetworkKey::Network)
    }

    /// What `metadata` is on its packets: 48 bits, hash of `network` or `alone` and the 16 octets of the id. Never 0.
    #[must_use]
    pub fn metadata(self) -> u64 {
        match self {
            NetworkKey::Network(id) => fnv48(&[b"network", id.as_bytes()]),
            NetworkKey::Alone(vif) => fnv48(&[b"alone", vif.0.as_bytes()]),
        }
    }
}

impl fmt::Display for NetworkKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NetworkKey::Network(id) => write!(f, "network {id}"),
            NetworkKey::Alone(vif) => write!(f, "VIF {vif}"),
        }
    }
}

/// What [`super::conjunctions`] begins with: never 0, which is no conjunction.
pub(super) fn conjunction(name: &str) -> u32 {
    let hash = fnv(&[b"group", name.as_bytes()]);
    (((hash >> 32) ^ hash) as u32).max(1)
}

/// A number for every name, by a hash where it is free, else the next that is.
pub(super) fn numbered(names: &BTreeSet<&str>, hash: impl Fn(&str) -> u32) -> BTreeMap<String, u32> {
    let mut taken = BTreeSet::new();
    let number = |name: &str| {
        let mut number = hash(name);
        while !taken.insert(number) {
            number = number.checked_add(1).unwrap_or(1);
        }
        (name.to_owned(), number)
    };
    names.iter().copied().map(number).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vectors of the draft's appendix.
    #[test]
    fn the_hash_is_fnv_1a() {
        assert_eq!(fnv(&[]), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv(&[b"a"]), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(fnv(&[b"foo", b"bar"]), 0x8594_4171_f739_67e8);
        assert_eq!(fnv48(&[b"a"]), 0xdc4c_8601_ec8c ^ 0xaf63);
    }

    /// They are on switches: another value would make flows of before somebody else's.
    #[test]
    fn numbers_stay_what_they_were() {
        let id = Uuid::from_u128(0xdc06_5497_3c8d_4f44_8fb4_e1d3_3c16_a536);
        let (vif, network) = (VifId(id), NetworkKey::Network(id));
        let owner = OwnerTag::of(&AgentId("vifd".into()));
        let seen = [
            Cookie::vif(owner, vif).to_string(),
            Cookie::network(owner, network).to_string(),
            Cookie::network(owner, NetworkKey::Alone(vif)).to_string(),
            Cookie::bridge(owner).to_string(),
            Cookie::groups(owner).to_string(),
        ];
        let known = [
            "0x50111ec59cd9017a",
            "0x5011c8fc715e9fcb",
            "0x5011e47e52f053eb",
            "0x50113637e7ce9f4c",
            "0x5011b12395803174",
        ];
        assert_eq!(seen, known);
        assert_eq!(Cookie::network(owner, network).0 & OF_MASK, network.metadata());
    }

    #[test]
    fn an_owner_owns_its_cookies_alone() {
        let owner = OwnerTag(0x1234);
        let cookie = Cookie::bridge(owner).0;
        assert!(owner.owns(cookie));
        assert!(!OwnerTag(0x1235).owns(cookie));
        assert!(!owner.owns(0) && !owner.owns(0x1234));
    }

    #[test]
    fn a_number_is_one_names() {
        let same = numbered(&BTreeSet::from(["a", "b", "c"]), |_| u32::MAX);
        assert_eq!(same.into_values().collect::<Vec<_>>(), [u32::MAX, 1, 2]);
        let alone = numbered(&BTreeSet::from(["web"]), conjunction);
        let among = numbered(&BTreeSet::from(["db", "web", "zone"]), conjunction);
        assert_eq!(alone["web"], among["web"]);
    }
}
