//! A restart of ovs-vswitchd, told from its end to the moment when the database speaks of the new process.
//!
//! ```text
//!              control socket gone              control socket answers
//!   running ─────────────────────────► down ─────────────────────────► starting
//!      ▲                                                                  │ next_cfg + 1
//!      └───────────────────────── cur_cfg has caught up ◄─────────────────┘
//! ```
//!
//! A new ovs-vswitchd answers on its control socket long before it has looked at its thousands of ports, and until
//! then the database has what the old one left: `ofport` and `status` of a datapath that is gone. `cur_cfg` follows
//! `next_cfg` only when a configuration was carried out (ovs-vswitchd.conf.db(5)), so `next_cfg` is raised once and
//! waited for. A switch that ran before us is taken as it is: an unchanged restart of the agent writes nothing.

use std::time::Duration;

use ovsdb::outcome::Outcome;
use ovsdb::session::{Handle, SessionState};
use ovsdb::transact::Transaction;
use ovsdb::vswitch::{OpenVSwitch, Snapshot};
use tokio::sync::watch;

use crate::metrics;
use crate::plan::OVSDB;

/// After a transaction that was not carried out.
const PAUSE: Duration = Duration::from_secs(1);

/// Whether ovs-vswitchd runs *and* the database speaks of this run of it. `alive` tells of its control socket; while
/// `enforce` is false nothing is written and the socket's word is all there is.
pub(super) fn follow(
    mut alive: watch::Receiver<Option<bool>>,
    enforce: watch::Receiver<bool>,
    handle: Handle<Snapshot>,
) -> watch::Receiver<Option<bool>> {
    let (sender, receiver) = watch::channel(None);
    tokio::spawn(async move {
        let mut was_down = false;
        loop {
            let now = *alive.borrow_and_update();
            was_down |= now == Some(false);
            if now == Some(true) && was_down && *enforce.borrow() {
                tokio::select! {
                    () = caught_up(&handle) => {}
                    // It went again, or nobody is there any more: look again.
                    changed = alive.changed() => if changed.is_err() { return } else { continue },
                    () = sender.closed() => return,
                }
            }
            was_down &= now != Some(true);
            sender.send_replace(now);
            tokio::select! {
                changed = alive.changed() => if changed.is_err() { return },
                () = sender.closed() => return,
            }
        }
    });
    receiver
}

/// Raises `next_cfg` and waits until `cur_cfg` is there.
async fn caught_up(handle: &Handle<Snapshot>) {
    let (mut state, mut snapshots) = (handle.state(), handle.snapshot());
    loop {
        // The sender lives as long as the handle.
        let _ = state.wait_for(|state| matches!(state, SessionState::Ready)).await;
        if let Some(target) = raise(handle).await {
            // A database that was restored meanwhile may be behind the number that was asked for.
            let done = |root: &OpenVSwitch| root.cur_cfg >= target.min(root.next_cfg);
            let root = |db: &Snapshot| db.root().is_some_and(|root| done(root));
            let _ = snapshots.wait_for(|view| view.ready().is_some_and(|db| root(db))).await;
            return;
        }
        tracing::debug!("next_cfg could not be raised: tried again");
        tokio::time::sleep(PAUSE).await;
    }
}

/// The value that `next_cfg` has now.
async fn raise(handle: &Handle<Snapshot>) -> Option<i64> {
    let root = |handle: &Handle<Snapshot>| handle.snapshot().borrow().ready().and_then(|db| db.root().cloned());
    let mut transaction = Transaction::new(());
    transaction.mutate(root(handle)?.uuid, [OpenVSwitch::NEXT_CFG.increase_by(1)]);
    metrics::writes(OVSDB, 1);
    match handle.transact(&transaction).await {
        // The snapshot has the effects already; if somebody raised it further, all the better.
        Outcome::Committed(_) => Some(root(handle)?.next_cfg),
        _ => None,
    }
}
