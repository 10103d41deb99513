//! Octets: messages and attributes of generic netlink. Nothing here knows what a message is about.
//!
//! Numbers are in the machine's order, as everything in netlink is (`linux/netlink.h`).

pub(crate) mod attributes;
pub(crate) mod messages;
pub(crate) mod numbers;

pub(crate) use attributes::{Attributes, Writer};

/// Octets that are not what they have to be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// A message or an attribute says that it is longer than what it is in, or shorter than its own header.
    #[error("{what} has {said} octets by its header, and there are {there}")]
    Length {
        /// What it is.
        what: &'static str,
        /// Its length as it says itself.
        said: usize,
        /// How many octets there are, the header included.
        there: usize,
    },
    /// An attribute of a fixed size has another one.
    #[error("attribute {kind} has {len} octets instead of {expected}")]
    Size {
        /// Its type.
        kind: u16,
        /// The length of its payload.
        len: usize,
        /// What it would be.
        expected: usize,
    },
    /// What always has an attribute lacks it.
    #[error("a message without attribute {kind}")]
    Missing {
        /// Its type.
        kind: u16,
    },
}
