//! The task that speaks for guests to the switches beyond the cables: it asks for associations and has them undone, and asks
//! how far those are that were noted down. lldpad tells of itself only to the socket that asked, so there is one for all.
//!
//! ```text
//!   requests of a batch ───────────────┐
//!   lldpad: the bridge gave a VSI up ──┼─► ask for each that is noted ─► publish, if it is another state
//!   its time has come ─────────────────┘              │
//!          ▲                                          ▼
//!          └── soon after a change, and later and later without one
//! ```
//!
//! What makes it right:
//!
//! * Not every loss is told (a bridge that went away, lldpad that was started again), so it is asked for now and then as well;
//!   see ADR 20. Where nothing is noted, nobody is asked, and there is no socket.
//! * A refusal is told once by lldpad, and is then forgotten: it is remembered here for a while, and may be asked for again
//!   after that.
//! * What was asked to go is shown as leaving until it is gone, so that it is not asked twice.
//!
//! What is asked for and when is the planner's to say (`plan/associations.rs`).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use devlink::port_profile::{
    self, PortProfile, PortProfileError, Request, Response, State, StationPort, abandoned, lldpad,
};
use devlink::{LinkError, LinkSocket, Peer};
use nix::errno::Errno;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use uuid::Uuid;

use super::notes::Notes;
use super::perform::{Moved, guard};
use crate::blocking::blocking;
use crate::model::{Association, AssociationState, StationProfile, VifId};

/// After a change it is asked for again after this, then after twice as long, and so on.
const SOON: Duration = Duration::from_millis(50);
/// The longest pause while an answer is awaited.
const AWAITED: Duration = Duration::from_secs(2);
/// A refusal is remembered so long.
const REFUSED_FOR: Duration = Duration::from_secs(30);
/// What was asked to go and is there after this may be asked again. lldpad gives its bridge some seconds.
const GONE_WITHIN: Duration = Duration::from_secs(10);

/// How far associations are, each with what it is about.
pub(super) type States = BTreeMap<VifId, (Association, AssociationState)>;

/// Why a request was not taken.
#[derive(Debug, thiserror::Error)]
pub(super) enum AssociationError {
    /// The planner saw another note.
    #[error("{0} is not what is noted for VIF {1}")]
    NotNoted(Box<Association>, VifId),
    /// The link.
    #[error(transparent)]
    Moved(#[from] Moved),
    /// There is no lldpad.
    #[error("{0}")]
    NoLldpad(String),
    /// The driver has no port profiles.
    #[error("the driver of {0} has no port profiles (802.1Qbh): {1}")]
    NoProfiles(String, #[source] PortProfileError),
    /// VDP is off, or not agreed on.
    #[error("lldpad takes no VSI at {0}: VDP is off there, or its bridge has not offered it yet: {1}")]
    NoVdp(String, #[source] PortProfileError),
    /// Anything else.
    #[error("{0}: {1}")]
    Refused(Box<Association>, #[source] PortProfileError),
    /// The task has ended.
    #[error("internal error: nobody asks for associations any more")]
    Ended,
}

impl AssociationError {
    /// Whether things are not as they were when it was planned.
    pub(super) fn is_conflict(&self) -> bool {
        matches!(self, AssociationError::NotNoted(..) | AssociationError::Moved(_) | AssociationError::NoLldpad(_))
    }
}

/// What the task is asked for.
enum Asked {
    /// To ask a switch for something.
    Request {
        vif: VifId,
        association: Association,
        request: Request,
        taken: oneshot::Sender<Result<(), AssociationError>>,
    },
    /// To ask how far everything is. Answered when that is published.
    States(oneshot::Sender<()>),
}

/// The way to the task.
#[derive(Clone)]
pub(super) struct Associations {
    asked: mpsc::Sender<Asked>,
    states: watch::Receiver<States>,
}

impl Associations {
    /// Starts the task, in the network namespace of the runtime's threads. It ends when nobody can ask any more.
    pub(super) fn spawn(notes: Arc<Mutex<Notes>>, pid_file: PathBuf, every: Option<Duration>) -> Self {
        let (states, shown) = watch::channel(States::new());
        let (asked, requests) = mpsc::channel(1);
        let envoy = Envoy {
            notes,
            pid_file,
            every,
            socket: None,
            lldpad: None,
            rows: BTreeMap::new(),
            pause: SOON,
            ask_at: Some(Instant::now()),
            states,
        };
        tokio::spawn(envoy.run(requests));
        Associations { asked, states: shown }
    }

    /// How far they are, as it is learnt.
    pub(super) fn states(&self) -> watch::Receiver<States> {
        self.states.clone()
    }

    /// Asks for an association, or for its end. That it was taken is no answer of the switch.
    pub(super) async fn request(
        &self,
        vif: VifId,
        association: &Association,
        request: Request,
    ) -> Result<(), AssociationError> {
        let (taken, answer) = oneshot::channel();
        let asked = Asked::Request { vif, association: association.clone(), request, taken };
        self.asked.send(asked).await.map_err(|_| AssociationError::Ended)?;
        answer.await.unwrap_or(Err(AssociationError::Ended))
    }

    /// Has everything asked for, and waits for that.
    pub(super) async fn refresh(&self) {
        let (done, shown) = oneshot::channel();
        // Without the task there is nothing new.
        if self.asked.send(Asked::States(done)).await.is_ok() {
            let _ = shown.await;
        }
    }
}

/// The task's state.
struct Envoy {
    notes: Arc<Mutex<Notes>>,
    /// Where lldpad writes its process id.
    pid_file: PathBuf,
    /// The longest pause without a cause; for ever where there is none.
    every: Option<Duration>,
    /// Open while something is noted.
    socket: Option<LinkSocket>,
    /// Who was asked last.
    lldpad: Option<Peer>,
    rows: BTreeMap<VifId, Row>,
    pause: Duration,
    ask_at: Option<Instant>,
    states: watch::Sender<States>,
}

/// One association that is noted down.
#[derive(Debug)]
struct Row {
    association: Association,
    state: Option<AssociationState>,
    /// What the switch refused, and until when that is remembered.
    refused: Option<(Response, Instant)>,
    /// It was asked to go; until then it may take.
    leaves_until: Option<Instant>,
}

/// What came of a question.
#[derive(Clone, Debug)]
enum Told {
    State(State),
    Nobody(String),
    Unknown(String),
}

impl Row {
    fn new(association: Association) -> Self {
        Row { association, state: None, refused: None, leaves_until: None }
    }

    /// A request was taken: what was said before says nothing of it.
    fn asked(&mut self, request: Request, now: Instant) {
        self.refused = None;
        self.leaves_until = (request == Request::Disassociate).then(|| now + GONE_WITHIN);
    }

    /// Answers whether that is another state than before.
    fn learn(&mut self, told: Told, now: Instant) -> bool {
        let leaves = self.leaves_until.is_some_and(|until| now < until);
        let state = match told {
            Told::Unknown(what) => AssociationState::Unknown(what),
            Told::Nobody(what) => {
                (self.refused, self.leaves_until) = (None, None);
                AssociationState::Nobody(what)
            }
            Told::State(State::Absent) => {
                self.leaves_until = None;
                self.refused = self.refused.filter(|(_, until)| now < *until);
                self.refused.map_or(AssociationState::Absent, |(response, _)| AssociationState::Refused(response))
            }
            Told::State(_) if leaves => AssociationState::Leaving,
            Told::State(State::Pending | State::Answered(Response::ProfileInProgress)) => AssociationState::Pending,
            Told::State(State::Answered(response)) if response.is_success() => AssociationState::Associated,
            Told::State(State::Answered(response)) => {
                let (_, until) = *self.refused.get_or_insert((response, now + REFUSED_FOR));
                if now < until { AssociationState::Refused(response) } else { AssociationState::Absent }
            }
        };
        let state = Some(state);
        let changed = self.state != state;
        self.state = state;
        changed
    }

    fn is_awaited(&self) -> bool {
        matches!(self.state, Some(AssociationState::Pending | AssociationState::Leaving))
    }
}

impl Envoy {
    async fn run(mut self, mut asked: mpsc::Receiver<Asked>) {
        loop {
            let at = self.ask_at;
            tokio::select! {
                asked = asked.recv() => match asked {
                    None => return,
                    Some(Asked::Request { vif, association, request, taken }) => {
                        // Whoever asked may have given up.
                        let _ = taken.send(self.request(vif, association, request).await);
                    }
                    Some(Asked::States(shown)) => {
                        self.ask().await;
                        let _ = shown.send(());
                    }
                },
                heard = hear(&mut self.socket, self.lldpad) => {
                    if let Err(error) = heard {
                        tracing::info!(%error, "lldpad is not to be heard on this socket any more");
                        self.socket = None;
                    }
                    let soon = Instant::now() + SOON;
                    (self.pause, self.ask_at) = (SOON, Some(at.map_or(soon, |at| at.min(soon))));
                }
                () = tokio::time::sleep_until(at.unwrap_or_else(Instant::now)), if at.is_some() => self.ask().await,
            }
        }
    }

    async fn request(
        &mut self,
        vif: VifId,
        association: Association,
        request: Request,
    ) -> Result<(), AssociationError> {
        let Some(row) = self.rows.get_mut(&vif).filter(|row| row.association == association) else {
            return Err(AssociationError::NotNoted(Box::new(association), vif));
        };
        guard(association.index, &association.link)?;
        let peer = match association.profile {
            StationProfile::Qbg { .. } => found(&self.pid_file).await.map_err(AssociationError::NoLldpad)?,
            StationProfile::Qbh { .. } => Peer::Kernel,
        };
        if peer != Peer::Kernel {
            self.lldpad = Some(peer);
        }
        let (port, profile) = wire(&association);
        let refused = |error: PortProfileError| {
            let errno = match &error {
                PortProfileError::Link(LinkError::Refused { refusal, .. }) => Errno::from_raw(refusal.errno),
                PortProfileError::Link(LinkError::NobodyThere(_)) => {
                    return AssociationError::NoLldpad(not_running(&error));
                }
                _ => Errno::UnknownErrno,
            };
            match (errno, peer) {
                (Errno::EOPNOTSUPP, Peer::Kernel) => AssociationError::NoProfiles(association.link.clone(), error),
                (Errno::ENXIO | Errno::ENODEV, Peer::Lldpad { .. }) => {
                    AssociationError::NoVdp(association.link.clone(), error)
                }
                _ => AssociationError::Refused(Box::new(association.clone()), error),
            }
        };
        let socket = opened(&mut self.socket).map_err(refused)?;
        port_profile::request(socket, peer, &port, &profile, request).await.map_err(refused)?;
        row.asked(request, Instant::now());
        Ok(())
    }

    /// Asks how far everything is that is noted, and publishes it.
    async fn ask(&mut self) {
        let notes = Arc::clone(&self.notes);
        let noted = blocking(move || {
            let notes = notes.lock().unwrap_or_else(PoisonError::into_inner);
            let noted = notes.noted().undo.iter();
            noted.filter_map(|(vif, undo)| Some((*vif, undo.association.clone()?))).collect::<BTreeMap<_, _>>()
        });
        let Ok(noted) = noted.await else {
            // Whoever wrote the notes has said what is wrong.
            self.ask_at = Some(Instant::now() + AWAITED);
            return;
        };
        self.rows.retain(|vif, row| noted.get(vif) == Some(&row.association));
        let mut changed = self.rows.len() != self.states.borrow().len();
        for (vif, association) in noted {
            self.rows.entry(vif).or_insert_with(|| Row::new(association));
        }
        if self.rows.is_empty() {
            (self.socket, self.lldpad, self.pause, self.ask_at) = (None, None, SOON, None);
        } else {
            changed |= self.ask_each().await;
            self.pause = if changed { SOON } else { self.pause.saturating_mul(2) };
            let most = if self.rows.values().any(Row::is_awaited) { Some(AWAITED) } else { self.every };
            self.ask_at = match most {
                Some(most) => Some(Instant::now() + self.pause.min(most)),
                None => (self.pause <= AWAITED).then(|| Instant::now() + self.pause),
            };
        }
        if changed {
            let told = |(vif, row): (&VifId, &Row)| Some((*vif, (row.association.clone(), row.state.clone()?)));
            self.states.send_replace(self.rows.iter().filter_map(told).collect());
        }
    }

    async fn ask_each(&mut self) -> bool {
        let now = Instant::now();
        let of_lldpad = |row: &Row| matches!(row.association.profile, StationProfile::Qbg { .. });
        let any = self.rows.values().any(of_lldpad);
        let mut lldpad = if any { found(&self.pid_file).await.map_err(Told::Nobody) } else { Ok(Peer::Kernel) };
        self.lldpad = lldpad.as_ref().ok().copied().filter(|_| any);
        let mut changed = false;
        for row in self.rows.values_mut() {
            let peer = if of_lldpad(row) { lldpad.clone() } else { Ok(Peer::Kernel) };
            let told = match peer {
                Err(told) => told,
                Ok(peer) => match state(&mut self.socket, peer, &row.association).await {
                    Err(PortProfileError::Link(error @ LinkError::NoAnswer(_))) => {
                        // The others are not waited for as well.
                        let told = Told::Unknown(error.to_string());
                        if of_lldpad(row) {
                            lldpad = Err(told.clone());
                        }
                        told
                    }
                    answer => heard_of(&row.association, answer),
                },
            };
            changed |= row.learn(told, now);
        }
        changed
    }
}

/// Waits for lldpad to say that something changed.
async fn hear(socket: &mut Option<LinkSocket>, lldpad: Option<Peer>) -> Result<(), PortProfileError> {
    match (socket, lldpad) {
        (Some(socket), Some(lldpad)) => abandoned(socket, lldpad).await.map(drop),
        _ => std::future::pending().await,
    }
}

/// lldpad as it is now; or a sentence on its absence.
async fn found(pid_file: &Path) -> Result<Peer, String> {
    let pid_file = pid_file.to_owned();
    match blocking(move || lldpad(&pid_file)).await {
        Ok(Ok(peer)) => Ok(peer),
        Ok(Err(error)) => Err(not_running(&error)),
        Err(error) => Err(format!("lldpad, which was not looked for: internal error: {error}")),
    }
}

fn not_running(error: &PortProfileError) -> String {
    let cause = std::error::Error::source(error).map_or_else(String::new, |cause| format!(" ({cause})"));
    format!("lldpad, which is not running: {error}{cause}")
}

async fn state(
    socket: &mut Option<LinkSocket>,
    peer: Peer,
    association: &Association,
) -> Result<State, PortProfileError> {
    let (port, profile) = wire(association);
    let asked = match opened(socket) {
        Ok(socket) => port_profile::state(socket, peer, &port, &profile).await,
        Err(error) => Err(error),
    };
    if let Err(PortProfileError::Link(LinkError::Socket(_))) = &asked {
        *socket = None;
    }
    asked
}

fn heard_of(association: &Association, answer: Result<State, PortProfileError>) -> Told {
    let Association { index, link, .. } = association;
    if let Err(moved) = guard(*index, link) {
        return Told::Nobody(moved.to_string());
    }
    match answer {
        Ok(state) => Told::State(state),
        Err(error @ PortProfileError::Link(LinkError::NobodyThere(_))) => Told::Nobody(not_running(&error)),
        Err(PortProfileError::Link(LinkError::Refused { peer: Peer::Lldpad { .. }, refusal }))
            if refusal.errno == Errno::ENODEV as i32 =>
        {
            Told::Nobody(format!("VDP at {link}, which lldpad does not have there"))
        }
        Err(error) => Told::Unknown(format!("word of {association}: {error}")),
    }
}

fn opened(socket: &mut Option<LinkSocket>) -> Result<&mut LinkSocket, PortProfileError> {
    match socket {
        Some(socket) => Ok(socket),
        none => Ok(none.insert(LinkSocket::open().map_err(LinkError::from)?)),
    }
}

/// As the kernel and lldpad have it.
fn wire(association: &Association) -> (StationPort, PortProfile) {
    let Association { index, link: _, vf, mac, vlan, profile } = association;
    let profile = match profile {
        StationProfile::Qbg { manager, type_id, type_version, instance } => PortProfile::Qbg {
            manager: *manager,
            type_id: *type_id,
            type_version: *type_version,
            instance: instance.into_bytes(),
        },
        StationProfile::Qbh { profile, instance } => {
            PortProfile::Qbh { profile: profile.clone(), instance: instance.map(Uuid::into_bytes), host: None }
        }
    };
    (StationPort { index: *index, vf: *vf, mac: mac.0, vlan: *vlan }, profile)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{AgentId, MacAddr, Undo};
    use crate::state_dir::StateDir;

    fn row() -> Row {
        let profile = StationProfile::Qbg { manager: 1, type_id: 2, type_version: 3, instance: Uuid::from_u128(4) };
        let mac = MacAddr([2, 0, 0, 0, 0, 1]);
        Row::new(Association { index: 1, link: "lo".into(), vf: None, mac, vlan: Some(100), profile })
    }

    fn after(row: &mut Row, told: State, now: Instant) -> AssociationState {
        row.learn(Told::State(told), now);
        row.state.clone().unwrap()
    }

    const SUCCESS: State = State::Answered(Response::VdpSuccess);

    #[test]
    fn a_refusal_is_remembered_for_a_while_and_until_it_is_asked_for_again() {
        let (mut row, start) = (row(), Instant::now());
        let refused = AssociationState::Refused(Response::VdpUnusedVtid);
        assert_eq!(after(&mut row, State::Pending, start), AssociationState::Pending);
        // lldpad tells it once.
        assert_eq!(after(&mut row, State::Answered(Response::VdpUnusedVtid), start), refused);
        assert_eq!(after(&mut row, State::Absent, start + REFUSED_FOR / 2), refused);
        assert_eq!(after(&mut row, State::Absent, start + REFUSED_FOR), AssociationState::Absent);
        row.asked(Request::Associate, start + REFUSED_FOR);
        assert_eq!(after(&mut row, SUCCESS, start + REFUSED_FOR), AssociationState::Associated);
        // The kernel tells it for ever.
        let answered = State::Answered(Response::ProfileInvalid);
        let refused = AssociationState::Refused(Response::ProfileInvalid);
        assert_eq!(after(&mut row, answered, start), refused);
        assert_eq!(after(&mut row, answered, start + REFUSED_FOR), AssociationState::Absent);
        row.asked(Request::Associate, start + REFUSED_FOR);
        assert_eq!(after(&mut row, answered, start + REFUSED_FOR), refused, "another answer");
        row.asked(Request::Associate, start);
        assert_eq!(after(&mut row, State::Absent, start), AssociationState::Absent, "it was not answered yet");
        assert_eq!(after(&mut row, State::Answered(Response::ProfileInProgress), start), AssociationState::Pending);
    }

    #[test]
    fn what_was_asked_to_go_is_leaving_until_it_is_gone_or_stays() {
        let (mut row, start) = (row(), Instant::now());
        assert_eq!(after(&mut row, SUCCESS, start), AssociationState::Associated);
        row.asked(Request::Disassociate, start);
        assert_eq!(after(&mut row, SUCCESS, start), AssociationState::Leaving);
        assert!(row.is_awaited());
        assert_eq!(after(&mut row, SUCCESS, start + GONE_WITHIN), AssociationState::Associated, "to be asked again");
        row.asked(Request::Disassociate, start);
        assert_eq!(after(&mut row, State::Absent, start), AssociationState::Absent);
        assert_eq!(after(&mut row, SUCCESS, start), AssociationState::Associated, "somebody else asked for it");
        assert!(row.learn(Told::Nobody("lldpad".into()), start) && !row.is_awaited());
        assert!(!row.learn(Told::Nobody("lldpad".into()), start), "it is the same");
    }

    #[test]
    fn a_link_that_is_gone_or_another_has_no_associations() {
        let gone = Association { index: u32::MAX >> 1, ..row().association };
        assert!(matches!(heard_of(&gone, Ok(SUCCESS)), Told::Nobody(what) if what.contains("is gone")));
        let other = Association { link: "eth0".into(), ..row().association };
        assert!(matches!(heard_of(&other, Ok(SUCCESS)), Told::Nobody(what) if what.contains("and not \"eth0\"")));
        assert!(matches!(heard_of(&row().association, Ok(SUCCESS)), Told::State(SUCCESS)));
    }

    fn noted(directory: &Path, association: Association) -> (Arc<Mutex<Notes>>, VifId) {
        let mut notes = Notes::open(&StateDir::open(directory).unwrap()).unwrap();
        let vif: VifId = "6d9bf3a1-0000-4000-8000-000000000001".parse().unwrap();
        let mut undo = Undo::new(AgentId("vifd".into()), vif, None, false);
        undo.association = Some(association);
        notes.remember(&undo).unwrap();
        (Arc::new(Mutex::new(notes)), vif)
    }

    #[tokio::test]
    async fn without_lldpad_and_without_a_driver_that_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let vsi = row().association;
        let (notes, vif) = noted(&directory.path().join("state"), vsi.clone());
        let pid_file = directory.path().join("lldpad.pid");
        let associations = Associations::spawn(Arc::clone(&notes), pid_file, None);
        associations.refresh().await;
        let shown = associations.states().borrow().clone();
        let (_, AssociationState::Nobody(what)) = &shown[&vif] else { panic!("{shown:?}") };
        assert!(what.starts_with("lldpad, which is not running: ") && what.contains("lldpad.pid"), "{what}");
        let refused = associations.request(vif, &vsi, Request::Associate).await.unwrap_err();
        assert!(refused.is_conflict() && refused.to_string().starts_with("lldpad, which is not running"), "{refused}");

        // The kernel's loopback interface has no port profiles.
        let gold = StationProfile::Qbh { profile: "gold".into(), instance: None };
        let gold = Association { profile: gold, ..vsi };
        let refused = associations.request(vif, &gold, Request::Associate).await.unwrap_err();
        assert!(refused.is_conflict() && refused.to_string().contains("is not what is noted"), "{refused}");
        let undo = notes.lock().unwrap().noted().undo[&vif].clone();
        let undo = Undo { association: Some(gold.clone()), ..(*undo).clone() };
        notes.lock().unwrap().remember(&undo).unwrap();
        associations.refresh().await;
        assert_eq!(associations.states().borrow()[&vif], (gold.clone(), AssociationState::Absent));
        let refused = associations.request(vif, &gold, Request::Associate).await.unwrap_err();
        assert!(!refused.is_conflict(), "{refused}");
        assert!(!refused.to_string().is_empty());

        notes.lock().unwrap().forget(vif).unwrap();
        associations.refresh().await;
        assert!(associations.states().borrow().is_empty());
    }
}
