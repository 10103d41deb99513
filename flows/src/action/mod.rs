//! What is done with a packet: OpenFlow 1.4's actions and OVS 3.1's own (`ovs-actions(7)`). How they are on the wire
//! is `decode` and `encode`, as text `show` and `parse`; actions with much inside have a file each.

mod conntrack;
mod controller;
mod decode;
mod encap;
mod encode;
mod hashing;
mod learn;
mod parse;
mod sample;
mod show;

pub use conntrack::{Conntrack, Nat, NatFlags, NatRange, Zone};
pub use controller::Controller;
pub(crate) use decode::read_actions;
pub use encap::{Encap, EncapProperty, PacketType};
pub(crate) use encode::put_actions;
pub use hashing::{Bundle, BundleAlgorithm, HashFields, Multipath, MultipathAlgorithm};
pub use learn::{Learn, LearnFlags, LearnSource, LearnSpec, LearnTarget};
pub(crate) use parse::{Context, check_list, parse_bare};
pub use sample::{Sample, SampleDirection};
pub(crate) use show::show_actions;

use crate::field::{Field, Oxm, Subfield};
use crate::port::PortNo;

/// How deep actions may lie within actions (`clone`, `ct`).
pub const MAX_DEPTH: usize = 64;

/// The experimenter of OVS's own actions and fields (`NX_VENDOR_ID`).
const NICIRA: u32 = 0x0000_2320;

/// An action.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Action {
    /// `output:PORT`, or for reserved ports their name: `NORMAL`, `CONTROLLER:65535`.
    Output {
        /// Where to.
        port: PortNo,
        /// Octets of the packet for the controller; 0 for other ports.
        max_len: u16,
    },
    /// `output:FIELD[..]`.
    OutputField {
        /// What holds the port number.
        source: Subfield,
        /// Octets of the packet for the controller.
        max_len: u16,
    },
    /// `output(port=PORT,max_len=N)`: no more of the packet than so many octets.
    OutputTruncated {
        /// Where to.
        port: PortNo,
        /// Octets, at least 14.
        max_len: u32,
    },
    /// `controller(…)`.
    Controller(Box<Controller>),
    /// `bundle(…)` and `bundle_load(…)`.
    Bundle(Box<Bundle>),
    /// `group:ID`.
    Group(u32),
    /// `set_queue:ID`.
    SetQueue(u32),
    /// `pop_queue`.
    PopQueue,
    /// `set_field:VALUE[/MASK]->FIELD`.
    SetField(Oxm),
    /// `load:VALUE->FIELD[..]`.
    Load {
        /// The value, of no more bits than the destination.
        value: u64,
        /// Where it goes, up to 64 bits.
        dest: Subfield,
    },
    /// `move:FIELD[..]->FIELD[..]`.
    Move {
        /// From where.
        source: Subfield,
        /// To where; of the same width.
        dest: Subfield,
    },
    /// `push_vlan:ETHERTYPE`.
    PushVlan(u16),
    /// `pop_vlan`.
    PopVlan,
    /// `push_mpls:ETHERTYPE`.
    PushMpls(u16),
    /// `pop_mpls:ETHERTYPE`.
    PopMpls(u16),
    /// `set_mpls_ttl(TTL)`.
    SetMplsTtl(u8),
    /// `dec_mpls_ttl`.
    DecMplsTtl,
    /// `mod_nw_ttl:TTL`.
    SetTtl(u8),
    /// `dec_ttl`.
    DecTtl,
    /// `dec_ttl(ID,…)`: the controllers that are told of packets without any left.
    DecTtlFor(Box<[u16]>),
    /// `push:FIELD[..]`, to the stack.
    StackPush(Subfield),
    /// `pop:FIELD[..]`, from the stack.
    StackPop(Subfield),
    /// `resubmit(PORT,TABLE[,ct])`.
    Resubmit {
        /// What is matched as the port it came from; [`PortNo::IN_PORT`] for where it did.
        port: PortNo,
        /// The table; 255 for the one that the flow is in.
        table: u8,
        /// Match the connection's original direction in place of the packet's fields.
        ct: bool,
    },
    /// `learn(…)`.
    Learn(Box<Learn>),
    /// `conjunction(ID,CLAUSE/CLAUSES)`.
    Conjunction {
        /// The value of `conj_id` that stands for it.
        id: u32,
        /// Which clause, from 0 (in text from 1).
        clause: u8,
        /// How many there are, 2 to 64.
        clauses: u8,
    },
    /// `multipath(…)`.
    Multipath(Box<Multipath>),
    /// `note:OCTETS`: nothing. On the wire their number is 6, 14, 22, …; zeros fill it up.
    Note(Box<[u8]>),
    /// `exit`: no more actions, also none of the tables that resubmitted here.
    Exit,
    /// `sample(…)`.
    Sample(Box<Sample>),
    /// `fin_timeout(…)`: other timeouts, in seconds, once a connection ends.
    FinTimeout {
        /// Seconds without a packet; 0 for no change.
        idle: u16,
        /// Seconds; 0 for no change.
        hard: u16,
    },
    /// `check_pkt_larger(LENGTH)->FIELD[BIT]`.
    CheckPacketLarger {
        /// Octets.
        length: u16,
        /// The bit that says whether the packet has more.
        dest: Subfield,
    },
    /// `ct(…)`.
    Conntrack(Box<Conntrack>),
    /// `nat(…)`, only within `ct(…)`.
    Nat(Box<Nat>),
    /// `ct_clear`.
    CtClear,
    /// `clone(…)`: with a copy.
    Clone(Box<[Action]>),
    /// `encap(…)`.
    Encap(Box<Encap>),
    /// `decap(…)`.
    Decap(PacketType),
    /// `dec_nsh_ttl`.
    DecNshTtl,
    /// `delete_field:FIELD`: a tunnel option.
    DeleteField(Field),
    /// What this crate does not know, or that names a field it does not know: the whole action with its header.
    Unknown(Box<[u8]>),
}

impl Action {
    /// `output:PORT`.
    #[must_use]
    pub fn output(port: PortNo) -> Self {
        let max_len = if port == PortNo::CONTROLLER { u16::MAX } else { 0 };
        Action::Output { port, max_len }
    }

    /// `set_field:VALUE->FIELD`.
    #[must_use]
    pub fn set_field(field: Field, value: impl Into<u128>) -> Self {
        Action::SetField(Oxm::new(field, value.into()))
    }

    /// `resubmit(,TABLE)`.
    #[must_use]
    pub fn resubmit(table: u8) -> Self {
        Action::Resubmit { port: PortNo::IN_PORT, table, ct: false }
    }

    /// The field that it sets or loads.
    pub(crate) fn target(&self) -> Option<Field> {
        match self {
            Action::SetField(oxm) => Some(oxm.field()),
            Action::Load { dest, .. } | Action::Move { dest, .. } => Some(dest.field),
            _ => None,
        }
    }
}

impl Action {
    /// Reads a list of actions, all of `bytes`.
    ///
    /// # Errors
    /// They are no actions.
    pub fn decode_all(bytes: &[u8]) -> Result<Box<[Action]>, crate::DecodeError> {
        read_actions(crate::wire::Reader::new(bytes, "list of actions"), 0)
    }

    /// Writes a list of actions.
    pub fn encode_all(actions: &[Action], out: &mut bytes::BytesMut) {
        put_actions(actions, out);
    }
}
