//! One switch: its session, what is told of its flows, and the batches for it. One task has all of it.
//!
//! ```text
//!              ┌──── the connection ended, or saved flows are being put back ────┐
//!              ▼                                                                 │
//!   Syncing ──► session ready ──► look: all flows, groups, meters ──► Ready ──► updates, batches, audits
//! ```

use std::collections::BTreeSet;
use std::future::{Future, pending};
use std::ops::ControlFlow;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use flows::message::{FlowUpdate, FragmentHandling, Kind, Message};
use flows::session::{CallError, FlowWatch, Handle, SessionState, WatchEnd, WatchEvent};
use flows::{FlowCommand, FlowId, FlowMod};
use futures::FutureExt;
use ovsdb::text::Text;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout_at};
use uuid::Uuid;

use super::FlowChange;
use super::batch::{Batch, Stage};
use super::fleet::Wall;
use super::picture::Picture;
use crate::backend::{Attributed, Outcome};
use crate::model::{Bridge, FlowState, Limits};

/// How long after a change of the bridge's row it is looked at again: ovs-vswitchd acts on the row when it has seen it.
const SETTLING: Duration = Duration::from_millis(500);
/// How long the switch may take to tell of what it has committed, before it is looked at anew.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long nothing may be told any more until it counts that all of it was.
const QUIET: Duration = Duration::from_millis(300);
/// How long all of the comparing of an audit may take, while batches wait: two looks and two times of quiet.
const AUDIT: Duration = Duration::from_secs(1);
/// The pause after a look that failed although the session did not.
const PAUSE: Duration = Duration::from_millis(100);

/// What the database says about a switch that matters for its flows.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Terms {
    /// Saved flows are being put back: what is there is not what will be.
    pub(super) restoring: bool,
    /// Changing any of these may drop all flows under an open connection.
    epoch: (Option<Text>, BTreeSet<Uuid>, BTreeSet<Text>, Option<Text>),
}

impl Terms {
    pub(super) fn of(bridge: &Bridge, restoring: bool) -> Self {
        let Bridge { fail_mode, controllers, protocols, datapath_id, .. } = bridge.clone();
        Terms { restoring, epoch: (fail_mode, controllers, protocols, datapath_id) }
    }
}

/// What a switch's task may be told.
pub(super) enum Command {
    /// Do this.
    Apply(Vec<Attributed<FlowChange>>, oneshot::Sender<Vec<Outcome>>),
    /// Look at everything anew.
    Look(oneshot::Sender<()>),
}

impl Command {
    /// The answer while the switch cannot be seen. Who does not wait any more does not mind.
    fn decline(self) {
        match self {
            Command::Apply(ops, reply) => drop(reply.send(vec![Outcome::Untried; ops.len()])),
            Command::Look(reply) => drop(reply.send(())),
        }
    }
}

/// Why a look came to nothing.
#[derive(Debug, thiserror::Error)]
enum Blind {
    #[error(transparent)]
    Call(#[from] CallError),
    #[error(transparent)]
    Watch(#[from] WatchEnd),
    #[error("the switch keeps to {0:?} for fragments: its flows cannot match what they carry")]
    Fragments(FragmentHandling),
}

/// A switch.
pub(super) struct Switch {
    bridge: String,
    handle: Handle,
    terms: watch::Receiver<Terms>,
    commands: mpsc::Receiver<Command>,
    wall: Arc<Wall>,
    owner: u16,
    picture: Picture,
    /// Absent while nothing is seen, and for a switch that tells nothing by itself: that one is looked at again.
    watch: Option<FlowWatch>,
    /// What others do to groups and meters. What we do ourselves is not told.
    requests: broadcast::Receiver<Message>,
    /// Fragments are treated as our flows rely on: a first one has the ports and types that it carries. Otherwise a
    /// guest's router advertisement would be none as soon as it is a fragment.
    fragments: bool,
    /// What happens to flows is told, as far as that can be known. Otherwise only what is asked for counts.
    is_told: bool,
    /// More is happening than is told; what was told so far is not a whole.
    paused: bool,
}

impl Switch {
    pub(super) fn new(
        bridge: String,
        owner: u16,
        handle: Handle,
        terms: watch::Receiver<Terms>,
        commands: mpsc::Receiver<Command>,
        wall: Arc<Wall>,
    ) -> Self {
        let (picture, requests) = (Picture::new(owner), handle.events());
        Switch {
            bridge,
            handle,
            terms,
            commands,
            wall,
            owner,
            picture,
            watch: None,
            requests,
            fragments: false,
            is_told: true,
            paused: false,
        }
    }

    /// Follows the switch until nobody can tell it anything any more.
    pub(super) async fn run(mut self) {
        let mut session = self.handle.state();
        loop {
            self.watch = None;
            self.wall.hide(&self.bridge, &words(&session.borrow(), self.terms.borrow().restoring));
            if self.wait(&mut session).await.is_break() {
                return;
            }
            // Another connection may be to another release.
            self.is_told = true;
            if let Err(error) = self.look().await {
                tracing::debug!(bridge = self.bridge, %error, "the switch could not be looked at");
                sleep(PAUSE).await;
                continue;
            }
            if self.follow(&mut session).await.is_break() {
                return;
            }
        }
    }

    /// Waits until there is something to be seen.
    async fn wait(&mut self, session: &mut watch::Receiver<SessionState>) -> ControlFlow<()> {
        loop {
            let words = {
                let (session, terms) = (session.borrow_and_update(), self.terms.borrow_and_update());
                if matches!(*session, SessionState::Ready(_)) && !terms.restoring {
                    return ControlFlow::Continue(());
                }
                words(&session, terms.restoring)
            };
            self.wall.hide(&self.bridge, &words);
            tokio::select! {
                changed = session.changed() => if changed.is_err() { return ControlFlow::Break(()) },
                changed = self.terms.changed() => if changed.is_err() { return ControlFlow::Break(()) },
                command = self.commands.recv() => match command {
                    None => return ControlFlow::Break(()),
                    Some(command) => command.decline(),
                },
            }
        }
    }

    /// Follows what is seen until it is not any more.
    async fn follow(&mut self, session: &mut watch::Receiver<SessionState>) -> ControlFlow<()> {
        let mut epoch = self.terms.borrow().epoch.clone();
        let mut look_at: Option<Instant> = None;
        loop {
            let looked = tokio::select! {
                event = next(&mut self.watch) => self.drain(event).await,
                changed = session.changed() => match changed {
                    Ok(()) if matches!(*session.borrow(), SessionState::Ready(_)) => Ok(()),
                    Ok(()) => return ControlFlow::Continue(()),
                    Err(_) => return ControlFlow::Break(()),
                },
                changed = self.terms.changed() => {
                    if changed.is_err() {
                        return ControlFlow::Break(());
                    }
                    let terms = self.terms.borrow_and_update().clone();
                    if terms.restoring {
                        return ControlFlow::Continue(());
                    }
                    if epoch != terms.epoch {
                        epoch = terms.epoch;
                        look_at = Some(Instant::now() + SETTLING);
                    }
                    Ok(())
                }
                command = self.commands.recv() => match command {
                    None => return ControlFlow::Break(()),
                    Some(Command::Look(reply)) => {
                        let looked = self.audit().await;
                        let _ = reply.send(());
                        looked
                    }
                    Some(Command::Apply(ops, reply)) => {
                        let (outcomes, seen) = self.apply(Batch::new(ops)).await;
                        if seen.is_err() {
                            // Nothing must be planned from what was seen before.
                            self.wall.hide(&self.bridge, "looking anew");
                        }
                        let _ = reply.send(outcomes);
                        seen
                    }
                },
                () = others(&mut self.requests) => {
                    let looked = self.look_at_others().await;
                    self.show();
                    looked.map_err(Blind::from)
                }
                () = at(look_at) => {
                    look_at = None;
                    self.look().await
                }
            };
            if let Err(error) = looked {
                tracing::debug!(bridge = self.bridge, %error, "the switch cannot be seen any more");
                return ControlFlow::Continue(());
            }
        }
    }

    /// Looks at everything. What is as it was stays the very same.
    async fn look(&mut self) -> Result<(), Blind> {
        // One watch at a time for a session.
        self.watch = None;
        self.paused = false;
        let mut picture = Picture::new(self.owner);
        let watch = match self.is_told {
            true => self.handle.watch_flows().await.map(Some),
            false => Ok(None),
        };
        match watch {
            Ok(Some(mut watch)) => {
                while let WatchEvent::Updates(updates) = watch.next().await? {
                    updates
                        .into_iter()
                        .for_each(|update| self.paused = take(&mut picture, update).unwrap_or(self.paused));
                }
                self.watch = Some(watch);
            }
            // Open vSwitch before 2.16 tells nothing by itself over OpenFlow 1.4.
            Ok(None) | Err(CallError::Refused(_)) => picture = self.dump().await?,
            Err(error) => return Err(error.into()),
        }
        let before = std::mem::replace(&mut self.picture, picture);
        self.look_beside_flows().await?;
        self.picture.recognise(&before);
        self.show();
        Ok(())
    }

    /// Looks at everything else.
    async fn look_beside_flows(&mut self) -> Result<(), Blind> {
        self.look_at_others().await?;
        // Of this nothing is told either. On a bridge without flows of ours it is somebody else's matter.
        self.fragments = false;
        if !self.picture.state().owned.is_empty() {
            self.match_fragments().await?;
        }
        Ok(())
    }

    /// Looks at everything: first whether what was told is what is there. It is not where a switch reads our request
    /// otherwise than those that we know, and would leave us blind from here on.
    async fn audit(&mut self) -> Result<(), Blind> {
        // Where somebody is at work all the time it is not to be found out, and is as good as told.
        let told = timeout_at(Instant::now() + AUDIT, self.was_told_all()).await;
        match told.unwrap_or(Ok(None))? {
            Some(true) => {
                self.look_beside_flows().await?;
                self.show();
                return Ok(());
            }
            Some(false) => {
                self.is_told = false;
                let bridge = &self.bridge;
                tracing::warn!(
                    bridge,
                    "the switch does not tell of all changes of flows: they are found at resyncs alone"
                );
            }
            None => {}
        }
        self.look().await
    }

    /// Whether what was told is what is there, where that can be said: when somebody is at work, what is there is ahead of
    /// what was told.
    async fn was_told_all(&mut self) -> Result<Option<bool>, Blind> {
        if self.watch.is_none() {
            return Ok(None);
        }
        let mut before: Option<Picture> = None;
        loop {
            let picture = self.dump().await?;
            let is_quiet = self.picture.agrees_with(&picture) || !self.hear().await?;
            if self.watch.is_none() || self.paused {
                return Ok(None);
            }
            if self.picture.agrees_with(&picture) {
                return Ok(Some(true));
            }
            if is_quiet && before.is_some_and(|before| before.agrees_with(&picture)) {
                return Ok(Some(false));
            }
            before = Some(picture);
        }
    }

    /// All flows, as the switch has them when it is asked.
    async fn dump(&mut self) -> Result<Picture, Blind> {
        let handle = self.handle.clone();
        let mut picture = Picture::new(self.owner);
        for stats in self.meanwhile(async move { handle.dump_flows().await }).await?? {
            picture.put(FlowId::of(&stats.flow), stats.flow);
        }
        Ok(picture)
    }

    /// Takes in what is told, until nothing is; answers whether something was.
    async fn hear(&mut self) -> Result<bool, Blind> {
        let mut heard = false;
        while let Ok(event) = timeout_at(Instant::now() + QUIET, next(&mut self.watch)).await {
            self.take(event?);
            heard = true;
        }
        Ok(heard)
    }

    /// Has the switch treat fragments as our flows rely on, before there are any and as long as there are some.
    async fn match_fragments(&mut self) -> Result<(), Blind> {
        match self.handle.treat_fragments(FragmentHandling::Match).await? {
            FragmentHandling::Match => {
                self.fragments = true;
                Ok(())
            }
            other => {
                let error = Blind::Fragments(other);
                tracing::warn!(bridge = self.bridge, %error, "the switch cannot be used");
                Err(error)
            }
        }
    }

    /// Looks at groups and meters, of which it is told only that somebody changed some.
    async fn look_at_others(&mut self) -> Result<(), CallError> {
        let groups = self.handle.dump_groups().await?;
        let max_meters = match self.handle.meter_features().await {
            Ok(features) => features.max_meters,
            Err(CallError::Refused(_)) => 0,
            Err(error) => return Err(error),
        };
        let meters = if max_meters == 0 { Vec::new() } else { self.handle.dump_meters().await? };
        self.picture.put_others(groups, meters, Limits { max_meters });
        Ok(())
    }

    /// Takes in an event and all that has come by now.
    async fn drain(&mut self, event: Result<WatchEvent, WatchEnd>) -> Result<(), Blind> {
        let mut next_event = Some(event);
        while let Some(event) = next_event {
            self.take(event?);
            next_event = self.watch.as_mut().and_then(|watch| watch.next().now_or_never());
        }
        if self.picture.removed > 0 {
            self.look_at_others().await?;
        }
        self.show();
        Ok(())
    }

    fn take(&mut self, event: WatchEvent) {
        if let WatchEvent::Updates(updates) = event {
            for update in updates {
                self.paused = take(&mut self.picture, update).unwrap_or(self.paused);
            }
        }
    }

    fn show(&self) {
        if !self.paused {
            self.wall.show(&self.bridge, self.picture.state());
        }
    }

    /// Does a batch. The answer comes when it can be seen, or with the reason why not.
    async fn apply(&mut self, mut batch: Batch) -> (Vec<Outcome>, Result<(), Blind>) {
        let seen = self.carry_out(&mut batch).await;
        (batch.into_outcomes(), seen)
    }

    async fn carry_out(&mut self, batch: &mut Batch) -> Result<(), Blind> {
        if !self.fragments {
            self.match_fragments().await?;
        }
        let handle = self.handle.clone();
        let (places, zones) = batch.zones();
        if !zones.is_empty() {
            let answer = self.meanwhile(handle.flush_zones(zones)).await?;
            batch.each(&places, answer);
        }
        for stage in [Stage::MetersFirst, Stage::Groups, Stage::MetersLast] {
            if stage == Stage::Groups {
                loop {
                    let (places, messages) = batch.bundle();
                    if messages.is_empty() {
                        break;
                    }
                    let outcome = self.meanwhile(handle.bundle(messages)).await?;
                    batch.bundled(&places, outcome);
                }
            } else {
                let (places, meters) = batch.meters(stage);
                if !meters.is_empty() {
                    let answer = self.meanwhile(handle.meters(meters)).await?;
                    batch.each(&places, answer);
                }
            }
        }
        for (place, packet) in batch.announcements() {
            let answer = match self.meanwhile(handle.packet_out(packet)).await? {
                Err(CallError::Refused(error)) => {
                    tracing::warn!(bridge = self.bridge, %error, "a guest could not be announced");
                    Ok(Vec::new())
                }
                answer => answer.map(|()| Vec::new()),
            };
            batch.each(&[place], answer);
        }
        if batch.is_unknown() {
            return Err(CallError::Disconnected.into());
        }
        if self.watch.is_none() {
            return self.look().await;
        }
        if !self.see(&batch.effects()).await? {
            // Somebody else is changing the same flows at this moment, or the switch shows a flow otherwise than it was
            // given; either way what counts is what is there.
            return self.look().await;
        }
        // What the switch refused may have relied on what is not there any more.
        if batch.touched_others() || batch.is_refused() || self.picture.removed > batch.deleted() {
            self.look_at_others().await?;
        }
        self.picture.removed = 0;
        self.show();
        Ok(())
    }

    /// Takes in what is told while something is under way, so that it does not pile up.
    async fn meanwhile<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Blind> {
        let mut work = pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return Ok(done),
                event = next(&mut self.watch) => match event {
                    Ok(event) => self.take(event),
                    // What becomes of the work is told all the same.
                    Err(_) => {
                        self.watch = None;
                        return Ok(work.await);
                    }
                },
            }
        }
    }

    /// Waits until these changes can be seen; answers whether they could.
    async fn see(&mut self, effects: &[&FlowMod]) -> Result<bool, Blind> {
        let deadline = Instant::now() + PATIENCE;
        // They are told in the order in which they were made, so those at the end come last.
        let mut unseen = effects.len();
        loop {
            while unseen > 0 && self.is_seen(effects[unseen - 1]) {
                unseen -= 1;
            }
            if unseen == 0 {
                return Ok(true);
            }
            match timeout_at(deadline, next(&mut self.watch)).await {
                Ok(event) => self.take(event?),
                Err(_) => return Ok(false),
            }
        }
    }

    fn is_seen(&self, change: &FlowMod) -> bool {
        let flow = self.picture.flow(&FlowId::of(&change.flow));
        match change.command {
            FlowCommand::Delete | FlowCommand::DeleteStrict => {
                flow.is_none_or(|flow| (flow.cookie ^ change.flow.cookie) & change.cookie_mask != 0)
            }
            FlowCommand::Add => flow.is_some_and(|flow| {
                (flow.cookie, &flow.instructions) == (change.flow.cookie, &change.flow.instructions)
            }),
            // One that is not there any more is not made by changing it.
            FlowCommand::Modify | FlowCommand::ModifyStrict => {
                flow.is_none_or(|flow| flow.instructions == change.flow.instructions)
            }
        }
    }
}

/// Takes in one update; answers whether there is a pause from now on, where it says so.
fn take(picture: &mut Picture, update: FlowUpdate) -> Option<bool> {
    match update {
        FlowUpdate::Flow(update) => picture.take(update),
        FlowUpdate::Paused => return Some(true),
        FlowUpdate::Resumed => return Some(false),
        // Not asked for.
        FlowUpdate::Abbreviated { .. } => {}
    }
    None
}

async fn next(watch: &mut Option<FlowWatch>) -> Result<WatchEvent, WatchEnd> {
    match watch {
        Some(watch) => watch.next().await,
        None => pending().await,
    }
}

/// Waits until others have changed groups or meters, and takes in all that is told of it by now.
async fn others(requests: &mut broadcast::Receiver<Message>) {
    loop {
        match requests.recv().await {
            Ok(message) if message.kind() == Kind::REQUESTFORWARD => break,
            Ok(_) => {}
            Err(RecvError::Lagged(_)) => break,
            // That the session is over is told by its state.
            Err(RecvError::Closed) => pending().await,
        }
    }
    while !matches!(requests.try_recv(), Err(TryRecvError::Empty | TryRecvError::Closed)) {}
}

async fn at(when: Option<Instant>) {
    match when {
        Some(when) => sleep_until(when).await,
        None => pending().await,
    }
}

/// How a session is that nothing can be seen over.
fn words(session: &SessionState, restoring: bool) -> String {
    match session {
        SessionState::Connecting => "connecting".to_owned(),
        SessionState::Failed(error) => {
            let mut words = format!("reconnecting: {error}");
            let mut cause = std::error::Error::source(error.as_ref());
            while let Some(error) = cause {
                words.push_str(&format!(": {error}"));
                cause = error.source();
            }
            words
        }
        SessionState::Ready(_) if restoring => "waiting for saved flows to be put back (flow-restore-wait)".to_owned(),
        SessionState::Ready(_) => "synchronising".to_owned(),
    }
}

impl Wall {
    /// What is on a switch.
    fn show(&self, bridge: &str, state: FlowState) {
        self.put(bridge, Some(state), "synchronised");
    }

    /// It cannot be seen what is on a switch, and why.
    fn hide(&self, bridge: &str, why: &str) {
        self.put(bridge, None, why);
    }
}

#[cfg(test)]
mod tests;
