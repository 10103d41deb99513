//! How the sessions with the peers are: for the status, and as metrics. Backends count; this carries what they
//! counted to `metrics` when it changes.

use std::collections::BTreeMap;
use std::sync::Arc;

use ovsdb::session::{LockState, SessionState, Statistics};
use tokio::sync::watch;

use crate::backend::links::{LinkStatistics, ResyncReason};
use crate::backend::nics::NicStatistics;
use crate::backend::openflow::SwitchSession;
use crate::metrics::{self, peer};
use crate::model::{LinkState, NicState, View};
use crate::status::SessionStatus;

/// What is to be seen of the peers.
#[derive(Clone)]
pub struct Peers {
    /// The endpoints of ovsdb-server, for people.
    pub endpoint: String,
    /// The session with it.
    pub ovsdb: watch::Receiver<SessionState>,
    /// Its counters.
    pub ovsdb_statistics: Arc<dyn Fn() -> Statistics + Send + Sync>,
    /// Whether the lock is ours.
    pub lock: watch::Receiver<LockState>,
    /// Whether ovs-vswitchd runs, where that can be seen.
    pub vswitchd: Option<watch::Receiver<Option<bool>>>,
    /// The kernel's view.
    pub links: watch::Receiver<View<LinkState>>,
    /// The kernel backend's counters.
    pub links_statistics: Arc<dyn Fn() -> LinkStatistics + Send + Sync>,
    /// The view of the NICs.
    pub nics: watch::Receiver<View<NicState>>,
    /// Their backend's counters.
    pub nics_statistics: Arc<dyn Fn() -> NicStatistics + Send + Sync>,
    /// The switches of managed bridges.
    pub switches: watch::Receiver<BTreeMap<String, SwitchSession>>,
}

impl Peers {
    /// Whether no other agent of the same name can be at work: the lock is ours, or the database cannot be reached
    /// and so the lock not be asked for.
    #[must_use]
    pub fn may_write(&self) -> bool {
        let unreachable = matches!(*self.ovsdb.borrow(), SessionState::Failed(_));
        unreachable || *self.lock.borrow() == LockState::Held
    }

    /// The sessions in fixed order.
    #[must_use]
    pub fn status(&self) -> Vec<SessionStatus> {
        let (up, words) = match &*self.ovsdb.borrow() {
            SessionState::Connecting => (false, "connecting".to_owned()),
            SessionState::Syncing => (false, "synchronising".to_owned()),
            SessionState::Ready => match &*self.lock.borrow() {
                LockState::Held => (true, "synchronised".to_owned()),
                LockState::Waiting => (false, "waiting for the lock".to_owned()),
                LockState::Stolen => (false, "somebody stole the lock".to_owned()),
                LockState::Refused(error) => (false, format!("the lock was refused: {error}")),
            },
            SessionState::Failed(error) => (false, format!("reconnecting: {}", chain(error.as_ref()))),
        };
        let mut sessions =
            vec![SessionStatus { peer: peer::OVSDB.into(), up, detail: format!("{}, {words}", self.endpoint) }];
        if let Some(vswitchd) = &self.vswitchd {
            let (up, detail) = match *vswitchd.borrow() {
                Some(true) => (true, "running"),
                Some(false) => (false, "not running, or still starting"),
                None => (false, "not looked for yet"),
            };
            sessions.push(SessionStatus { peer: "vswitchd".into(), up, detail: detail.into() });
        }
        let up = self.links.borrow().ready().is_some();
        let detail = if up { "rtnetlink, synchronised" } else { "rtnetlink, synchronising" };
        sessions.push(SessionStatus { peer: peer::KERNEL.into(), up, detail: detail.into() });
        let (up, detail) = match self.nics.borrow().ready() {
            Some(nics) => (true, format!("devlink and sysfs, synchronised; {} NICs", nics.nics.len())),
            None => (false, "devlink and sysfs, synchronising".to_owned()),
        };
        sessions.push(SessionStatus { peer: peer::DEVLINK.into(), up, detail });
        let switches = self.switches.borrow();
        sessions.extend(switches.iter().map(|(bridge, switch)| SessionStatus {
            peer: peer::switch(bridge),
            up: switch.up,
            detail: switch.detail.clone(),
        }));
        sessions
    }

    /// Follows the peers until the receiver is dropped; it changes when what [`Peers::status`] tells may have.
    #[must_use]
    pub fn follow(&self) -> watch::Receiver<()> {
        let (sender, receiver) = watch::channel(());
        let mut peers = self.clone();
        tokio::spawn(async move {
            let (_kept, never) = watch::channel(None);
            let mut vswitchd = peers.vswitchd.clone().unwrap_or(never);
            let mut counted = Counted::default();
            loop {
                counted.count(&peers);
                let gone = tokio::select! {
                    changed = peers.ovsdb.changed() => changed.is_err(),
                    changed = peers.lock.changed() => changed.is_err(),
                    changed = vswitchd.changed() => changed.is_err(),
                    // Counted when something happens to the links; told only when the view comes or goes.
                    changed = peers.links.changed() => changed.is_err(),
                    changed = peers.nics.changed() => changed.is_err(),
                    changed = peers.switches.changed() => changed.is_err(),
                    () = sender.closed() => true,
                };
                if gone {
                    return;
                }
                sender.send_replace(());
            }
        });
        receiver
    }
}

/// What has been carried to the metrics already.
#[derive(Default)]
struct Counted {
    restarts: u64,
    ovsdb_resyncs: BTreeMap<&'static str, u64>,
    links_resyncs: BTreeMap<&'static str, u64>,
    nics_resyncs: BTreeMap<&'static str, u64>,
    switch_restarts: BTreeMap<String, u64>,
}

impl Counted {
    fn count(&mut self, peers: &Peers) {
        let up = matches!(*peers.ovsdb.borrow(), SessionState::Ready) && *peers.lock.borrow() == LockState::Held;
        metrics::session_up(peer::OVSDB, up);
        metrics::session_up(peer::KERNEL, peers.links.borrow().ready().is_some());
        let ovsdb = (peers.ovsdb_statistics)();
        let restarts = ovsdb.restarts.values().sum();
        for _ in self.restarts..restarts {
            metrics::session_restart(peer::OVSDB);
        }
        self.restarts = restarts;
        carry(peer::OVSDB, &mut self.ovsdb_resyncs, ovsdb.resyncs.into_iter());
        let links = (peers.links_statistics)();
        let links = ResyncReason::ALL.iter().map(|reason| (reason.name(), links.resyncs_for(*reason)));
        carry(peer::KERNEL, &mut self.links_resyncs, links);
        metrics::session_up(peer::DEVLINK, peers.nics.borrow().ready().is_some());
        let nics = (peers.nics_statistics)();
        let nics = ResyncReason::ALL.iter().map(|reason| (reason.name(), nics.resyncs_for(*reason)));
        carry(peer::DEVLINK, &mut self.nics_resyncs, nics);
        let switches = peers.switches.borrow().clone();
        for bridge in self.switch_restarts.keys().filter(|bridge| !switches.contains_key(*bridge)) {
            // A series cannot be taken back; a session that nobody wants is down.
            metrics::session_up(peer::switch(bridge), false);
        }
        for (bridge, switch) in &switches {
            metrics::session_up(peer::switch(bridge), switch.up);
            let before = self.switch_restarts.get(bridge).copied().unwrap_or(0);
            (before..switch.restarts).for_each(|_| metrics::session_restart(peer::switch(bridge)));
        }
        self.switch_restarts = switches.into_iter().map(|(bridge, switch)| (bridge, switch.restarts)).collect();
    }
}

fn carry(peer: &'static str, before: &mut BTreeMap<&'static str, u64>, now: impl Iterator<Item = (&'static str, u64)>) {
    for (reason, count) in now {
        let before = before.entry(reason).or_default();
        for _ in *before..count {
            metrics::resync(peer, reason);
        }
        *before = count;
    }
}

/// An error with everything that led to it.
fn chain(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        words.push_str(": ");
        words.push_str(&error.to_string());
        cause = error.source();
    }
    words
}
