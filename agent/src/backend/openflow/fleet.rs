//! The backend: a task for each managed bridge that is in the database, and one view of them all.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use flows::message::AsyncMask;
use flows::session::{Config, Handle, Session};
use futures::future::join_all;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use super::dial::Management;
use super::switch::{Command, Switch, Terms};
use super::{FlowChange, FlowOp};
use crate::backend::{Attributed, Backend, Outcome};
use crate::model::{FlowState, OvsState, View};

/// Pauses between attempts to connect. A socket is there a moment before anybody listens on it; that it is there is
/// noticed, and the longest pause is for what is not.
const PAUSES: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

/// Everything that the switches say.
type States = BTreeMap<String, View<FlowState>>;

/// The session with one switch, for people and metrics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SwitchSession {
    /// Whether its view is complete.
    pub up: bool,
    /// How it is, e.g. `synchronised`.
    pub detail: String,
    /// Connections that ended.
    pub restarts: u64,
}

/// Where tasks put what their switches say, for everybody to see.
pub(super) struct Wall {
    states: watch::Sender<View<States>>,
    sessions: watch::Sender<BTreeMap<String, SwitchSession>>,
}

impl Wall {
    /// An empty one.
    pub(super) fn new() -> Self {
        Wall { states: watch::Sender::new(View::Ready(Arc::default())), sessions: watch::Sender::default() }
    }

    /// Puts up what is on a switch, or that it cannot be seen. Of a switch without a place there is nothing to put up.
    pub(super) fn put(&self, bridge: &str, state: Option<FlowState>, detail: &str) {
        let up = state.is_some();
        self.states.send_if_modified(|states| {
            let same = match (states.ready().and_then(|states| states.get(bridge)), &state) {
                (None, _) | (Some(View::Syncing), None) => true,
                (Some(View::Ready(shown)), Some(state)) => **shown == *state,
                _ => false,
            };
            if let (false, View::Ready(states)) = (same, states) {
                let view = state.map_or(View::Syncing, |state| View::Ready(Arc::new(state)));
                Arc::make_mut(states).insert(bridge.to_owned(), view);
            }
            !same
        });
        self.sessions.send_if_modified(|sessions| {
            let Some(session) = sessions.get_mut(bridge).filter(|known| known.up != up || known.detail != detail)
            else {
                return false;
            };
            session.restarts += u64::from(session.up && !up);
            (session.up, session.detail) = (up, detail.to_owned());
            true
        });
    }

    fn open(&self, bridge: &str) {
        self.states.send_modify(|states| {
            if let View::Ready(states) = states {
                Arc::make_mut(states).insert(bridge.to_owned(), View::Syncing);
            }
        });
        let session = SwitchSession { detail: "connecting".to_owned(), ..SwitchSession::default() };
        self.sessions.send_modify(|sessions| {
            sessions
                .entry(bridge.to_owned())
                .and_modify(|known| known.detail.clone_from(&session.detail))
                .or_insert(session);
        });
    }

    /// Takes a switch down; while it is only away, its session is still told of.
    fn close(&self, bridge: &str, away: bool) {
        self.put(bridge, None, "ovs-vswitchd is not running");
        self.states.send_modify(|states| {
            if let View::Ready(states) = states {
                Arc::make_mut(states).remove(bridge);
            }
        });
        if !away {
            self.sessions.send_modify(|sessions| drop(sessions.remove(bridge)));
        }
    }
}

/// A switch's task, from outside.
struct Post {
    terms: watch::Sender<Terms>,
    door: Door,
    task: JoinHandle<()>,
}

/// The way to a switch.
#[derive(Clone)]
struct Door {
    commands: mpsc::Sender<Command>,
    handle: Handle,
}

type Doors = BTreeMap<String, Door>;

/// The OpenFlow backend.
pub struct OpenFlow {
    states: watch::Receiver<View<States>>,
    sessions: watch::Receiver<BTreeMap<String, SwitchSession>>,
    doors: watch::Receiver<Doors>,
}

/// What a fleet goes by.
struct Fleet {
    rundir: PathBuf,
    owner: u16,
    ovs: watch::Receiver<View<OvsState>>,
    managed: watch::Receiver<BTreeSet<String>>,
    doors: watch::Sender<Doors>,
    wall: Arc<Wall>,
    posts: BTreeMap<String, Post>,
}

impl OpenFlow {
    /// Follows the bridges named `managed` as far as they are in the database, by their management sockets
    /// (`rundir/BRIDGE.mgmt`). `owner` is the tag in the upper 16 bits of our cookies.
    #[must_use]
    pub fn spawn(
        rundir: PathBuf,
        owner: u16,
        ovs: watch::Receiver<View<OvsState>>,
        managed: watch::Receiver<BTreeSet<String>>,
    ) -> Self {
        let wall = Arc::new(Wall::new());
        let (states, sessions) = (wall.states.subscribe(), wall.sessions.subscribe());
        let (doors_sender, doors) = watch::channel(Doors::new());
        let fleet = Fleet { rundir, owner, ovs, managed, doors: doors_sender, wall, posts: BTreeMap::new() };
        tokio::spawn(fleet.run());
        OpenFlow { states, sessions, doors }
    }

    /// The sessions by bridge, as they change.
    #[must_use]
    pub fn sessions(&self) -> watch::Receiver<BTreeMap<String, SwitchSession>> {
        self.sessions.clone()
    }

    /// The session with a bridge, for asking what is in no view: counters.
    pub fn handles(&self) -> impl Fn(&str) -> Option<Handle> + Send + Sync + 'static {
        let doors = self.doors.clone();
        move |bridge| doors.borrow().get(bridge).map(|door| door.handle.clone())
    }
}

impl Fleet {
    async fn run(mut self) {
        loop {
            let wanted = self.wanted();
            if let Some(wanted) = wanted {
                self.bring_to(wanted).await;
            }
            tokio::select! {
                changed = self.ovs.changed() => if changed.is_err() { return },
                changed = self.managed.changed() => if changed.is_err() { return },
                () = self.wall.states.closed() => return,
            }
        }
    }

    /// The switches to follow; nothing where that cannot be told at the moment.
    fn wanted(&mut self) -> Option<(BTreeMap<String, Terms>, bool)> {
        let managed = self.managed.borrow_and_update();
        let ovs = self.ovs.borrow_and_update();
        let ovs = ovs.ready()?;
        let bridges = managed.iter().filter_map(|name| ovs.bridges.get(name.as_str()));
        let bridges = bridges.map(|bridge| (bridge.name.to_string(), Terms::of(bridge, ovs.restoring)));
        Some((bridges.filter(|_| ovs.vswitchd_alive).collect(), !ovs.vswitchd_alive))
    }

    async fn bring_to(&mut self, (wanted, away): (BTreeMap<String, Terms>, bool)) {
        let gone: Vec<String> = self.posts.keys().filter(|bridge| !wanted.contains_key(*bridge)).cloned().collect();
        let changed = !gone.is_empty() || wanted.keys().any(|bridge| !self.posts.contains_key(bridge));
        for bridge in gone {
            if let Some(post) = self.posts.remove(&bridge) {
                post.task.abort();
                // Only when it has ended does nothing more come from it.
                let _ = post.task.await;
                self.wall.close(&bridge, away);
            }
        }
        for (bridge, terms) in wanted {
            match self.posts.get(&bridge) {
                Some(post) => {
                    post.terms.send_if_modified(|current| {
                        let changed = *current != terms;
                        *current = terms;
                        changed
                    });
                }
                None => {
                    let post = self.start(&bridge, terms);
                    self.posts.insert(bridge, post);
                }
            }
        }
        if changed {
            self.doors.send_replace(self.posts.iter().map(|(name, post)| (name.clone(), post.door.clone())).collect());
        }
        if !away {
            let known = self.posts.keys().cloned().collect::<BTreeSet<_>>();
            self.wall.sessions.send_if_modified(|sessions| {
                let before = sessions.len();
                sessions.retain(|bridge, _| known.contains(bridge));
                sessions.len() != before
            });
        }
    }

    fn start(&self, bridge: &str, terms: Terms) -> Post {
        let handle = Session::spawn(session_config(&self.rundir, bridge));
        let (terms, receiver) = watch::channel(terms);
        let (commands, inbox) = mpsc::channel(4);
        self.wall.open(bridge);
        let switch =
            Switch::new(bridge.to_owned(), self.owner, handle.clone(), receiver, inbox, Arc::clone(&self.wall));
        Post { terms, door: Door { commands, handle }, task: tokio::spawn(switch.run()) }
    }
}

fn session_config(rundir: &Path, bridge: &str) -> Config {
    let mut config = Config::new(Management(rundir.join(format!("{bridge}.mgmt"))));
    (config.min_backoff, config.max_backoff) = PAUSES;
    config.events = vec![AsyncMask::REQUESTS];
    config
}

impl Backend for OpenFlow {
    type State = States;
    type Op = FlowOp;

    const NAME: &'static str = "openflow";

    fn observe(&self) -> watch::Receiver<View<States>> {
        self.states.clone()
    }

    async fn apply(&mut self, ops: Vec<Attributed<FlowOp>>) -> Vec<Outcome> {
        let mut outcomes = vec![Outcome::Untried; ops.len()];
        let mut by_bridge: BTreeMap<String, (Vec<usize>, Vec<Attributed<FlowChange>>)> = BTreeMap::new();
        for (place, Attributed { party, op: FlowOp { bridge, change } }) in ops.into_iter().enumerate() {
            let (places, changes) = by_bridge.entry(bridge).or_default();
            places.push(place);
            changes.push(Attributed { party, op: change });
        }
        let doors = self.doors.borrow().clone();
        let asked = by_bridge.into_iter().filter_map(|(bridge, (places, changes))| {
            let door = doors.get(&bridge)?.clone();
            Some(async move { (places, ask(&door, changes).await) })
        });
        for (places, answers) in join_all(asked).await {
            for (place, answer) in places.into_iter().zip(answers) {
                outcomes[place] = answer;
            }
        }
        outcomes
    }

    /// Groups and meters that others change are told by nobody.
    async fn resync(&mut self) {
        let doors = self.doors.borrow().clone();
        join_all(doors.values().map(|door| async {
            let (reply, looked) = oneshot::channel();
            if door.commands.send(Command::Look(reply)).await.is_ok() {
                let _ = looked.await;
            }
        }))
        .await;
    }
}

/// Has a switch do its part. One that went away meanwhile leaves it unknown, and is seen no more.
async fn ask(door: &Door, changes: Vec<Attributed<FlowChange>>) -> Vec<Outcome> {
    let count = changes.len();
    let (reply, answer) = oneshot::channel();
    if door.commands.send(Command::Apply(changes, reply)).await.is_err() {
        return vec![Outcome::Untried; count];
    }
    answer.await.unwrap_or_else(|_| vec![Outcome::Unknown; count])
}
