//! What the source of records wants of this host.

use std::collections::BTreeSet;

use super::{Table, Vif, VifId};

/// The wanted VIFs, the last good record of each.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Desired {
    /// Whether `vifs` is known to be the whole set. While it is not, absence from it means nothing.
    pub synced: bool,
    /// The wanted VIFs.
    pub vifs: Table<VifId, Vif>,
    /// VIFs that somebody deleted by name, as opposed to VIFs that are merely absent: their removal is
    /// not counted against `max_removals`. An id leaves this set when nothing of it is left on the host.
    pub deleted: BTreeSet<VifId>,
    /// VIFs whose newest record was rejected and that have no good one: their presence on the host is not
    /// to be taken for absence from the set.
    pub unreadable: BTreeSet<VifId>,
}
