//! Features of links (`ethtool -k`, `ethtool -K`), over the generic netlink family `ethtool`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::conversation::{Conversation, Request};
use crate::error::Error;
use crate::wire::numbers::ethtool;
use crate::wire::{Attributes, Malformed, Writer};

/// Flows of tc may be handed to the device (`NETIF_F_HW_TC`): offloading begins with it.
pub const HW_TC_OFFLOAD: &str = "hw-tc-offload";

/// The kernel's ethtool (since Linux 5.7), of the network namespace in which it was opened. Clones share one socket, on which
/// requests are made one after the other.
#[derive(Clone, Debug)]
pub struct Ethtool {
    conversation: Conversation,
}

/// Which link.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LinkRef {
    /// By its index (`ifindex`): it stays the same link when it gets another name.
    Index(u32),
    /// By its name, whichever link has that.
    Name(String),
}

/// The features of a link, by the names that ethtool(8) has for them (`ETHTOOL_MSG_FEATURES_GET`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Features {
    /// All that this kernel knows.
    pub known: BTreeSet<String>,
    /// Those that can be changed on this link.
    pub hw: BTreeSet<String>,
    /// Those that are wanted on.
    pub wanted: BTreeSet<String>,
    /// Those that are on.
    pub active: BTreeSet<String>,
    /// Those that can be changed on no link.
    pub nochange: BTreeSet<String>,
}

impl Features {
    /// Whether it can be changed on this link; ethtool(8) says `[fixed]` if not.
    #[must_use]
    pub fn is_fixed(&self, name: &str) -> bool {
        !self.hw.contains(name) || self.nochange.contains(name)
    }
}

impl fmt::Display for LinkRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LinkRef::Index(index) => write!(f, "link {index}"),
            LinkRef::Name(name) => f.write_str(name),
        }
    }
}

impl LinkRef {
    fn encode(&self, writer: &mut Writer) {
        writer.nested(ethtool::HEADER, |writer| {
            match self {
                LinkRef::Index(index) => writer.u32(ethtool::HEADER_DEV_INDEX, *index),
                LinkRef::Name(name) => writer.text(ethtool::HEADER_DEV_NAME, name),
            };
        });
    }
}

impl Ethtool {
    /// Opens it in the network namespace of the calling thread.
    ///
    /// # Errors
    /// When there is no socket to be had, or the kernel has no such family ([`Error::NoFamily`]).
    pub fn open() -> Result<Self, Error> {
        Ok(Ethtool { conversation: Conversation::open("ethtool")? })
    }

    /// The features of a link.
    ///
    /// # Errors
    /// An [`Error`] that names the request and has the kernel's own words.
    pub async fn features(&self, link: &LinkRef) -> Result<Features, Error> {
        let mut request = Request { command: ethtool::FEATURES_GET, ..Request::default() };
        link.encode(&mut request.attributes);
        let words = format!("look at the features of {link}");
        let replies = self.conversation.ask(words.clone(), request).await?;
        let Some(reply) = replies.first() else { return Err(Error::Lost { request: words }) };
        Features::decode(reply.octets()).map_err(|source| Error::Malformed { request: words, source })
    }

    /// Turns a feature on or off, by its name, and answers what was changed with it: each feature that is another way now. It is
    /// empty when nothing was to be done.
    ///
    /// # Errors
    /// An [`Error`] that names the request and has the kernel's own words; [`Error::FeatureNotSet`] when the feature is not as it was
    /// asked for. The kernel calls that a success and says so in its answer only.
    pub async fn set_feature(&self, link: &LinkRef, name: &str, on: bool) -> Result<BTreeMap<String, bool>, Error> {
        let mut request = Request { command: ethtool::FEATURES_SET, ..Request::default() };
        link.encode(&mut request.attributes);
        encode_wanted(&mut request.attributes, name, on);
        let words = format!("turn {name} of {link} {}", if on { "on" } else { "off" });
        let replies = self.conversation.ask(words.clone(), request).await?;
        // Without an answer, what is said below has to be looked at all the same.
        let answer = replies.first().map_or(Ok(Answer::default()), |reply| Answer::decode(reply.octets()));
        let Answer { not_set, changed } = answer.map_err(|source| Error::Malformed { request: words, source })?;
        let as_asked = match replies.is_empty() {
            true => self.features(link).await?.active.contains(name) == on,
            false => !not_set.contains_key(name),
        };
        if as_asked {
            return Ok(changed);
        }
        let fixed = self.features(link).await?.is_fixed(name);
        Err(Error::FeatureNotSet { link: link.to_string(), feature: name.to_owned(), on, fixed })
    }
}

/// One bit of `ETHTOOL_A_FEATURES_WANTED`, all others left as they are: without `ETHTOOL_A_BITSET_NOMASK`, what is named is what is
/// meant, and its value whether it is on.
fn encode_wanted(writer: &mut Writer, name: &str, on: bool) {
    writer.nested(ethtool::WANTED, |writer| {
        writer.nested(ethtool::BITSET_BITS, |writer| {
            writer.nested(ethtool::BITS_BIT, |writer| {
                writer.text(ethtool::BIT_NAME, name);
                if on {
                    writer.bytes(ethtool::BIT_VALUE, &[]);
                }
            });
        });
    });
}

/// `ETHTOOL_MSG_FEATURES_SET_REPLY`.
#[derive(Debug, Default)]
struct Answer {
    /// What was asked for and is not so, as it was asked for.
    not_set: BTreeMap<String, bool>,
    /// What is another way now.
    changed: BTreeMap<String, bool>,
}

impl Answer {
    fn decode(attributes: &[u8]) -> Result<Self, Malformed> {
        let mut answer = Answer::default();
        for attribute in Attributes::new(attributes) {
            let attribute = attribute?;
            match attribute.kind {
                ethtool::WANTED => answer.not_set = bits(attribute.nested())?,
                ethtool::ACTIVE => answer.changed = bits(attribute.nested())?,
                _ => {}
            }
        }
        Ok(answer)
    }
}

impl Features {
    /// Reads the attributes of `ETHTOOL_MSG_FEATURES_GET_REPLY`: what comes behind `struct genlmsghdr`.
    ///
    /// # Errors
    /// Where a length is wrong. What is unknown is passed over.
    pub fn decode(attributes: &[u8]) -> Result<Self, Malformed> {
        let mut features = Features::default();
        for attribute in Attributes::new(attributes) {
            let attribute = attribute?;
            let set = match attribute.kind {
                ethtool::HW => &mut features.hw,
                ethtool::WANTED => &mut features.wanted,
                ethtool::ACTIVE => &mut features.active,
                ethtool::NOCHANGE => &mut features.nochange,
                _ => continue,
            };
            let bits = bits(attribute.nested())?;
            set.extend(bits.iter().filter(|(_, on)| **on).map(|(name, _)| name.clone()));
            features.known.extend(bits.into_keys());
        }
        Ok(features)
    }
}

/// A bitset (`ETHTOOL_A_BITSET_…`) in its long form: each bit that it says anything of, and what. With
/// `ETHTOOL_A_BITSET_NOMASK` it has those alone that are on.
fn bits(bitset: Attributes<'_>) -> Result<BTreeMap<String, bool>, Malformed> {
    let only_those_on = bitset.find_kind(ethtool::BITSET_NOMASK)?.is_some();
    let mut all = BTreeMap::new();
    let Some(list) = bitset.find_kind(ethtool::BITSET_BITS)? else { return Ok(all) };
    for bit in list.nested().of_kind(ethtool::BITS_BIT) {
        let bit = bit?.nested();
        // One that the kernel has no name for cannot be spoken of.
        if let Some(name) = bit.find_kind(ethtool::BIT_NAME)? {
            let on = only_those_on || bit.find_kind(ethtool::BIT_VALUE)?.is_some();
            all.insert(name.text(), on);
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn set(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn a_request_names_one_feature() {
        let mut writer = Writer::default();
        LinkRef::Index(258).encode(&mut writer);
        encode_wanted(&mut writer, "rx-all", true);
        #[rustfmt::skip]
        let octets = [
            &[12, 0, 1, 0x80][..], // ETHTOOL_A_FEATURES_HEADER, nested
            &[8, 0, 1, 0, 2, 1, 0, 0], // ETHTOOL_A_HEADER_DEV_INDEX
            &[28, 0, 3, 0x80], // ETHTOOL_A_FEATURES_WANTED, nested
            &[24, 0, 3, 0x80], // ETHTOOL_A_BITSET_BITS
            &[20, 0, 1, 0x80], // ETHTOOL_A_BITSET_BITS_BIT
            &[11, 0, 2, 0], b"rx-all\0", &[0], // ETHTOOL_A_BITSET_BIT_NAME; padding
            &[4, 0, 3, 0], // ETHTOOL_A_BITSET_BIT_VALUE, a flag
        ]
        .concat();
        assert_eq!(writer.octets(), octets);
        let mut off = Writer::default();
        LinkRef::Name("eth0".to_owned()).encode(&mut off);
        encode_wanted(&mut off, "rx-all", false);
        #[rustfmt::skip]
        let octets = [
            &[16, 0, 1, 0x80][..], // ETHTOOL_A_FEATURES_HEADER, nested
            &[9, 0, 2, 0], b"eth0\0", &[0; 3], // ETHTOOL_A_HEADER_DEV_NAME; padding
            &[24, 0, 3, 0x80, 20, 0, 3, 0x80, 16, 0, 1, 0x80], // the same nests
            &[11, 0, 2, 0], b"rx-all\0", &[0], // ETHTOOL_A_BITSET_BIT_NAME; no value
        ]
        .concat();
        assert_eq!(off.octets(), octets);
    }

    /// As Linux 6.1 answers: it was asked for loopback on, where that is fixed.
    #[test]
    fn an_answer_says_what_was_not_done() {
        #[rustfmt::skip]
        let octets = [
            &[24, 0, 1, 0x80][..], // ETHTOOL_A_FEATURES_HEADER
            &[8, 0, 1, 0, 2, 0, 0, 0], // ETHTOOL_A_HEADER_DEV_INDEX
            &[9, 0, 2, 0], b"eth0\0", &[0; 3], // ETHTOOL_A_HEADER_DEV_NAME; padding
            &[48, 0, 3, 0x80], // ETHTOOL_A_FEATURES_WANTED: what is not as it was asked for
            &[8, 0, 2, 0, 64, 0, 0, 0], // ETHTOOL_A_BITSET_SIZE
            &[36, 0, 3, 0x80], // ETHTOOL_A_BITSET_BITS
            &[32, 0, 1, 0x80], // ETHTOOL_A_BITSET_BITS_BIT
            &[8, 0, 1, 0, 42, 0, 0, 0], // ETHTOOL_A_BITSET_BIT_INDEX
            &[13, 0, 2, 0], b"loopback\0", &[0; 3], // ETHTOOL_A_BITSET_BIT_NAME; padding
            &[4, 0, 3, 0], // ETHTOOL_A_BITSET_BIT_VALUE: it was to be on
            &[16, 0, 4, 0x80], // ETHTOOL_A_FEATURES_ACTIVE: what is another way now
            &[8, 0, 2, 0, 64, 0, 0, 0], // ETHTOOL_A_BITSET_SIZE
            &[4, 0, 3, 0x80], // ETHTOOL_A_BITSET_BITS: nothing
        ]
        .concat();
        let answer = Answer::decode(&octets).unwrap();
        assert_eq!(answer.not_set, BTreeMap::from([("loopback".to_owned(), true)]));
        assert!(answer.changed.is_empty());
    }

    #[test]
    fn bitsets_with_and_without_a_mask() {
        let bit = |name: &str, on: bool| {
            let mut writer = Writer::default();
            writer.nested(ethtool::BITS_BIT, |writer| {
                writer.text(ethtool::BIT_NAME, name);
                if on {
                    writer.bytes(ethtool::BIT_VALUE, &[]);
                }
            });
            writer.octets().to_vec()
        };
        let mut writer = Writer::default();
        writer.nested(ethtool::HW, |writer| {
            writer.bytes(ethtool::BITSET_BITS, &[bit("a", true), bit("b", false), bit("c", false)].concat());
        });
        writer.nested(ethtool::WANTED, |writer| {
            writer.bytes(ethtool::BITSET_NOMASK, &[]).bytes(ethtool::BITSET_BITS, &bit("a", false));
        });
        writer.nested(ethtool::ACTIVE, |writer| {
            writer.bytes(ethtool::BITSET_NOMASK, &[]).bytes(ethtool::BITSET_BITS, &bit("b", false));
        });
        writer.nested(ethtool::NOCHANGE, |writer| {
            writer.bytes(ethtool::BITSET_BITS, &bit("c", true));
        });
        let features = Features::decode(writer.octets()).unwrap();
        let expected = Features {
            known: set(&["a", "b", "c"]),
            hw: set(&["a"]),
            wanted: set(&["a"]),
            active: set(&["b"]),
            nochange: set(&["c"]),
        };
        assert_eq!(features, expected);
        assert_eq!(["a", "b", "c", "d"].map(|name| features.is_fixed(name)), [false, true, true, true]);
    }

    proptest! {
        #[test]
        fn any_octets_are_read(octets: Vec<u8>) {
            let _ = Features::decode(&octets);
            let _ = Answer::decode(&octets);
        }
    }
}
