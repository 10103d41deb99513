//! Effects: one backend per peer. A backend shows what its peer says and applies batches; it decides nothing.

pub mod links;
pub mod nics;
pub mod openflow;
pub mod ovs;
pub mod stage;
pub mod unixctl;
pub mod world;

use std::collections::BTreeSet;
use std::future::Future;
use std::hash::Hash;

use tokio::sync::watch;

use crate::model::{View, VifId};

/// On whose behalf an operation is done. Who is refused is held, and nobody else.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Party {
    /// A VIF's.
    Vif(VifId),
    /// Those VIFs' that share the flows of one cookie on a bridge, which is named first: a network's, or all on it.
    Sharers(String, u64),
    /// Those VIFs' that have functions of a NIC, which its devlink handle names.
    Nic(String),
    /// The same, where it is about the mode of the NIC's eswitch: what is refused of that says nothing of the rest.
    NicMode(String),
    /// Several VIFs', or nobody's any more.
    All,
}

impl Party {
    /// The VIF, where it is one alone.
    #[must_use]
    pub fn vif(&self) -> Option<VifId> {
        match self {
            Party::Vif(id) => Some(*id),
            Party::Sharers(..) | Party::Nic(_) | Party::NicMode(_) | Party::All => None,
        }
    }

    /// Whether these are sharers of flows with one of these cookies.
    #[must_use]
    pub fn shares(&self, cookies: &BTreeSet<u64>) -> bool {
        matches!(self, Party::Sharers(_, cookie) if cookies.contains(cookie))
    }
}

impl From<VifId> for Party {
    fn from(id: VifId) -> Self {
        Party::Vif(id)
    }
}

impl From<Option<VifId>> for Party {
    fn from(id: Option<VifId>) -> Self {
        id.map_or(Party::All, Party::Vif)
    }
}

/// An operation and on whose behalf it is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attributed<Op> {
    /// On whose behalf.
    pub party: Party,
    /// What to do.
    pub op: Op,
}

/// What became of one operation of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Done, and the view shows it.
    Done,
    /// A guard did not hold: the peer is not as it was when the operation was planned. Plan again.
    Conflict(String),
    /// The peer refused this operation, in its words.
    Failed(String),
    /// Not done, because another operation of the same atomic batch was refused.
    Untried,
    /// The peer refused the batch as a whole and named no operation, in its words.
    BatchFailed(String),
    /// The peer refuses every batch, for a reason that is no operation's (its disk, a lock), in its words.
    PeerFailed(String),
    /// The connection went after the batch was sent. The view tells what is.
    Unknown,
}

/// One peer of the agent.
///
/// One batch at a time is in flight. `apply` returns only after the view holds the batch's effects, or has
/// been synchronised again since.
pub trait Backend: Send + 'static {
    /// What the peer says.
    type State: Send + Sync + 'static;
    /// What can be asked of it.
    type Op: Clone + Hash + Send + 'static;

    /// The name in metrics: `ovsdb`, `links`, `nics` or `openflow`.
    const NAME: &'static str;

    /// The peer's state, as it changes.
    fn observe(&self) -> watch::Receiver<View<Self::State>>;

    /// Does `batch` and answers one outcome per operation, in the same order.
    fn apply(&mut self, batch: Vec<Attributed<Self::Op>>) -> impl Future<Output = Vec<Outcome>> + Send;

    /// Reads the peer's state anew, as an audit of what events told; returns when the view holds it. A peer
    /// whose updates cannot be missed has nothing to do here.
    fn resync(&mut self) -> impl Future<Output = ()> + Send;
}
