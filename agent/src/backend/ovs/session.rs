//! The backend: a session with ovsdb-server, the view that the planner reads, and the lock that keeps a second
//! agent of the same name from writing.

use std::future::Future;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ovsdb::session::{Config, Handle, LockMode, LockState, Session, SessionState, Statistics};
use ovsdb::vswitch::Snapshot;
use tokio::sync::watch;

use super::mirror::Mirror;
use super::transaction::Batch;
use super::{OvsOp, liveness, restart};
use crate::backend::{Attributed, Backend, Outcome};
use crate::model::{AgentId, OvsState, View};

/// How long a new agent waits for the lock of one that is on its way out.
const LOCK_PATIENCE: Duration = Duration::from_secs(10);

/// Another vifd with the same `agent.id` writes to this database.
#[derive(Debug, thiserror::Error)]
#[error(
    "another vifd with agent.id {0:?} holds the lock {1} on this Open vSwitch database: stop it, or give one of the two another agent.id"
)]
pub struct OtherInstance(String, String);

/// The OVSDB backend.
#[derive(Debug)]
pub struct Ovs {
    handle: Handle<Snapshot>,
    publisher: Arc<Publisher>,
    /// Held so that the view is followed as long as this lives.
    view: watch::Receiver<View<OvsState>>,
    lock: String,
    /// Whether the lock is ours. Nothing is written without it.
    held: watch::Receiver<LockState>,
}

/// Makes the view of the planner from the replica and ovs-vswitchd's being alive. Both the task that follows
/// them and `apply` publish, so that a batch's effects are in the view when `apply` returns.
#[derive(Debug)]
struct Publisher {
    snapshots: watch::Receiver<ovsdb::replica::View<Snapshot>>,
    alive: Option<watch::Receiver<Option<bool>>>,
    view: watch::Sender<View<OvsState>>,
    mirror: Mutex<Mirror>,
}

impl Publisher {
    /// Never held over an await. A panic while it is held would leave a cache, not a truth.
    fn mirror(&self) -> MutexGuard<'_, Mirror> {
        self.mirror.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn publish(&self) {
        let mut mirror = self.mirror();
        let alive = self.alive.as_ref().map_or(Some(true), |alive| *alive.borrow());
        // A database that `ovs-vsctl init` has not seen yet has no root row, and nothing can hang from it.
        let snapshot = self.snapshots.borrow().ready().filter(|db| db.root().is_some()).cloned();
        let view = match (snapshot, alive) {
            (Some(snapshot), Some(alive)) => View::Ready(Arc::new(mirror.reflect(&snapshot, alive))),
            _ => View::Syncing,
        };
        self.view.send_if_modified(|current| {
            let same = match (&*current, &view) {
                (View::Syncing, View::Syncing) => true,
                (View::Ready(current), View::Ready(new)) => current == new,
                _ => false,
            };
            if !same {
                *current = view;
            }
            !same
        });
    }
}

impl Ovs {
    /// Starts the session and asks for the lock, which this agent keeps as long as it lives. `rundir` is where
    /// ovs-vswitchd's control socket is; without it ovs-vswitchd is taken to be alive. While `enforce` is false
    /// nothing is written.
    pub async fn spawn(
        config: Config,
        rundir: Option<PathBuf>,
        agent: &AgentId,
        enforce: watch::Receiver<bool>,
    ) -> Self {
        let handle = Session::spawn(config, Snapshot::new::<String>([]));
        let lock = lock_name(agent);
        let held = handle.lock(&lock, LockMode::Queue).await;
        let alive = rundir.map(|rundir| restart::follow(liveness::follow(rundir), enforce, handle.clone()));
        let (sender, view) = watch::channel(View::Syncing);
        let publisher = Arc::new(Publisher {
            snapshots: handle.snapshot(),
            alive: alive.clone(),
            view: sender,
            mirror: Mutex::default(),
        });
        tokio::spawn(follow(Arc::clone(&publisher), handle.snapshot(), alive));
        Ovs { handle, publisher, view, lock, held }
    }

    /// Whether the lock is ours, as it changes.
    #[must_use]
    pub fn lock(&self) -> watch::Receiver<LockState> {
        self.held.clone()
    }

    /// Ends when somebody else has the lock and does not let go of it. While the database cannot be reached
    /// that is not known: whoever cannot reach it cannot do harm to it either.
    pub fn other_instance(&self, agent: &AgentId) -> impl Future<Output = OtherInstance> + Send + 'static {
        let (mut session, mut held) = (self.handle.state(), self.held.clone());
        let error = OtherInstance(agent.to_string(), self.lock.clone());
        async move {
            loop {
                // Both senders live as long as the session; without a session nobody waits here any more.
                let _ = session.wait_for(|state| matches!(state, SessionState::Ready)).await;
                tokio::select! {
                    // It is ours; look again when it is not any more.
                    () = async { drop(held.wait_for(|state| *state == LockState::Held).await) } => {
                        let _ = held.wait_for(|state| *state != LockState::Held).await;
                    }
                    // After a reconnection the lock is asked for anew, and its time starts anew.
                    () = async { drop(session.wait_for(|state| !matches!(state, SessionState::Ready)).await) } => {}
                    () = tokio::time::sleep(LOCK_PATIENCE) => return error,
                }
            }
        }
    }

    /// What the session is doing.
    #[must_use]
    pub fn state(&self) -> watch::Receiver<SessionState> {
        self.handle.state()
    }

    /// The session's own counters, readable as long as the process lives.
    pub fn statistics(&self) -> impl Fn() -> Statistics + Send + Sync + 'static {
        let handle = self.handle.clone();
        move || handle.statistics()
    }

    /// Whether ovs-vswitchd runs, as it changes; absent where that cannot be seen.
    #[must_use]
    pub fn vswitchd(&self) -> Option<watch::Receiver<Option<bool>>> {
        self.publisher.alive.clone()
    }
}

async fn follow(
    publisher: Arc<Publisher>,
    mut snapshots: watch::Receiver<ovsdb::replica::View<Snapshot>>,
    alive: Option<watch::Receiver<Option<bool>>>,
) {
    // Without a liveness to follow, one that never changes.
    let (_kept, never) = watch::channel(None);
    let mut alive = alive.unwrap_or(never);
    loop {
        publisher.publish();
        tokio::select! {
            changed = snapshots.changed() => if changed.is_err() { return },
            changed = alive.changed() => if changed.is_err() { return },
            () = publisher.view.closed() => return,
        }
    }
}

/// The lock's name: an `<id>` of RFC 7047, so everything but letters and digits is spelt in hexadecimal.
fn lock_name(agent: &AgentId) -> String {
    let mut name = "vifd_".to_owned();
    for byte in agent.0.bytes() {
        if byte.is_ascii_alphanumeric() {
            name.push(char::from(byte));
        } else {
            name.push_str(&format!("_{byte:02x}"));
        }
    }
    name
}

impl Backend for Ovs {
    type State = OvsState;
    type Op = OvsOp;

    const NAME: &'static str = "ovsdb";

    fn observe(&self) -> watch::Receiver<View<OvsState>> {
        self.view.clone()
    }

    async fn apply(&mut self, ops: Vec<Attributed<OvsOp>>) -> Vec<Outcome> {
        // After a reconnection the lock is asked for anew, and nothing can be written before it is there.
        // What was planned before may be wrong by then: plan again.
        if *self.held.borrow() != LockState::Held {
            let _ = self.held.wait_for(|state| *state == LockState::Held).await;
            self.publisher.publish();
            return vec![Outcome::Untried; ops.len()];
        }
        let root = {
            let snapshots = self.publisher.snapshots.borrow();
            snapshots.ready().and_then(|snapshot| snapshot.root()).map(|root| root.uuid)
        };
        let state = self.view.borrow().clone();
        let (Some(root), Some(state)) = (root, state.ready()) else {
            return vec![Outcome::Untried; ops.len()];
        };
        let batch = Batch::new(&ops, state, root, &self.lock);
        if batch.is_empty() {
            return batch.outcomes(&ovsdb::outcome::Outcome::NotSent);
        }
        let before = {
            let mut mirror = self.publisher.mirror();
            let before = mirror.disbelief();
            mirror.disbelieve(&batch.remade, i64::MAX);
            mirror.let_go(&batch.let_go, i64::MAX);
            before
        };
        let outcome = self.handle.transact(&batch.transaction).await;
        if matches!(outcome, ovsdb::outcome::Outcome::Unknown | ovsdb::outcome::Outcome::NotSent) {
            // What was done is for the next contents to tell; until they are here nothing can be planned.
            let mut session = self.handle.state();
            let _ = session.wait_for(|state| matches!(state, SessionState::Ready)).await;
        }
        let may_be_committed =
            matches!(outcome, ovsdb::outcome::Outcome::Committed(_) | ovsdb::outcome::Outcome::Unknown);
        if may_be_committed && !(batch.remade.is_empty() && batch.let_go.is_empty()) {
            // Of one whose fate is not known the same: if it was not carried out, `cur_cfg` is there already.
            let mut snapshots = self.handle.snapshot();
            let next_cfg = |view: &ovsdb::replica::View<Snapshot>| Some(view.ready()?.root()?.next_cfg);
            let seen = snapshots.wait_for(|view| next_cfg(view).is_some()).await.ok().and_then(|view| next_cfg(&view));
            let mut mirror = self.publisher.mirror();
            mirror.disbelieve(&batch.remade, seen.unwrap_or(0));
            mirror.let_go(&batch.let_go, seen.unwrap_or(0));
        } else {
            let mut mirror = self.publisher.mirror();
            mirror.restore(before);
            mirror.keep(&batch.let_go);
        }
        self.publisher.publish();
        batch.outcomes(&outcome)
    }

    /// The server tells of every change or the session starts over: there is nothing to audit.
    async fn resync(&mut self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lock_names_are_ids_and_tell_agents_apart() {
        let name = |agent: &str| lock_name(&AgentId(agent.to_owned()));
        assert_eq!(name("vifd"), "vifd_vifd");
        assert_eq!(name("a-b.c"), "vifd_a_2db_2ec");
        assert_ne!(name("a_2d"), name("a-"));
    }
}
