//! What is wrong with bytes or with a text, and where. Nothing is decoded here.

/// Bytes that are not what they should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{fault} at octet {offset} of the {what}")]
pub struct DecodeError {
    /// What was being read.
    pub what: &'static str,
    /// Octets from the begin of what was given to the decoder to what is wrong.
    pub offset: usize,
    /// What is wrong there.
    pub fault: Fault,
}

/// What can be wrong with bytes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// It ends too early.
    #[error("{have} octets where {need} are needed")]
    Truncated {
        /// Octets needed.
        need: usize,
        /// Octets there.
        have: usize,
    },
    /// A length field that cannot be.
    #[error("a length of {0}")]
    Length(usize),
    /// A field with a value it cannot have.
    #[error("{name} is {value:#x}")]
    Value {
        /// The field, by the name it has in the specification or in OVS's headers.
        name: &'static str,
        /// Its value.
        value: u64,
    },
    /// The same match field twice.
    #[error("{0} a second time")]
    Duplicate(crate::Field),
    /// Actions in actions in actions.
    #[error("actions nested more than {0} deep")]
    Depth(usize),
}

/// A text that is no flow, match, action, group or meter.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}: {fault}")]
pub struct TextError {
    /// The part of the text that is wrong.
    pub what: String,
    /// What is wrong with it.
    pub fault: String,
}
