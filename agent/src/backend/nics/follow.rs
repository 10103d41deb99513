//! The task that follows the NICs: it hears that something may have changed, looks at everything, and alone publishes the view.
//!
//! ```text
//!   event ─► a moment for what comes with it ─► look at everything ─► publish, if it is another state
//!                                                     ▲    │ cannot be read whole
//!   operations done, guard that did not hold, audit ──┘    └─► the old view stands; again, later
//! ```
//!
//! What makes it right:
//!
//! * Nothing is worked out from an event, so that none can be misunderstood, and one that was lost costs one more look.
//! * What waits in the sockets is passed over *before* the look: it is older. What comes during it leads to another look.
//! * Some changes are told by no event (the mode of an eswitch that has no functions, settings of virtual functions while their
//!   physical one is down, `driver_override`). Our own are looked at after each batch; those of others with the next event, or
//!   at the next audit.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use devlink::{PciAddress, Sysfs};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use super::associations::States;
use super::hear::{Ears, Heard, Interest};
use super::hints::Hints;
use super::look::{Eyes, LookError, Seen};
use super::notes::{Noted, Notes};
use super::statistics::Counters;
use super::under_way::UnderWay;
use super::view::keep_rows;
use crate::backend::links::ResyncReason;
use crate::blocking::blocking;
use crate::model::{Association, AssociationState, NicState, Undo, View, VifId};

/// Which function which VIF was told to have.
type Given = BTreeMap<VifId, PciAddress>;

/// For the events that come with one: 64 representors appear one by one.
const SETTLE: Duration = Duration::from_millis(3);
/// Looking takes at most a fifth of the time, however much happens.
const REST: u32 = 4;
/// Between attempts at a look: the first, and the longest. The longest rest, too.
const RETRY: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

/// For a look: whoever else has the lock of a NIC, such as `devlink dev reload`, has it for seconds, or for a minute or two.
const LOOKED_WITHIN: Duration = Duration::from_secs(60);

/// A request to make the view show what was done.
pub(super) struct Settle {
    /// Why everything is looked at, if it is not for what was done alone.
    pub(super) resync: Option<ResyncReason>,
    /// Answered when the view is published.
    pub(super) done: oneshot::Sender<()>,
}

/// The task's state.
pub(super) struct Follower {
    ears: Ears,
    receive_buffer: usize,
    sysfs: Option<Sysfs>,
    /// `None` while they are looked with, and after a look that broke off.
    eyes: Option<Eyes>,
    under_way: UnderWay,
    notes: Arc<Mutex<Notes>>,
    hints: Hints,
    interest: Interest,
    associations: watch::Receiver<States>,
    view: watch::Sender<View<NicState>>,
    counters: Arc<Counters>,
    /// When to look, if there is a cause.
    look_at: Option<Instant>,
    /// Before this, no event is a cause.
    rest_until: Instant,
}

impl Follower {
    pub(super) fn new(
        (ears, receive_buffer): (Ears, usize),
        sysfs: Option<Sysfs>,
        under_way: UnderWay,
        (notes, hints): (Arc<Mutex<Notes>>, Hints),
        associations: watch::Receiver<States>,
        view: watch::Sender<View<NicState>>,
        counters: Arc<Counters>,
    ) -> Self {
        let eyes = Some(Eyes::open(sysfs.clone(), under_way.clone()));
        let rest_until = Instant::now();
        let interest = Interest::default();
        Follower {
            ears,
            receive_buffer,
            sysfs,
            eyes,
            under_way,
            notes,
            hints,
            interest,
            associations,
            view,
            counters,
            look_at: None,
            rest_until,
        }
    }

    /// Follows until nobody can ask any more.
    pub(super) async fn run(mut self, mut requests: mpsc::Receiver<Settle>) {
        self.counters.resync(ResyncReason::Start);
        self.look().await;
        loop {
            tokio::select! {
                // What comes before a look that is due is passed over by it.
                heard = self.ears.next(&self.interest), if self.look_at.is_none() => self.heard(heard),
                () = tokio::time::sleep_until(self.look_at.unwrap_or(self.rest_until)), if self.look_at.is_some() => {
                    self.counters.event();
                    self.look().await;
                }
                // What nobody waits for any more came to an end.
                () = self.under_way.ended_late() => self.heard(Heard::Change),
                // The task that asks ends with the backend.
                Ok(()) = self.associations.changed() => self.show_associations(),
                request = requests.recv() => {
                    let Some(Settle { resync, done }) = request else { return };
                    if let Some(reason) = resync {
                        self.counters.resync(reason);
                    }
                    self.look().await;
                    // The asker may have given up.
                    let _ = done.send(());
                }
            }
        }
    }

    fn heard(&mut self, heard: Heard) {
        match heard {
            Heard::Change => {}
            Heard::Overrun => self.counters.resync(ResyncReason::Overrun),
            Heard::Lost => self.open_ears(),
        }
        self.look_at.get_or_insert_with(|| self.rest_until.max(Instant::now() + SETTLE));
    }

    /// Opens the sockets anew; the old ones stay where there are none to be had.
    fn open_ears(&mut self) {
        self.counters.resync(ResyncReason::ConnectionLost);
        match Ears::open(self.receive_buffer) {
            Ok(ears) => self.ears = ears,
            Err(error) => {
                tracing::warn!(%error, "cannot open a netlink socket");
                self.rest_until = Instant::now() + RETRY.1;
            }
        }
    }

    /// Looks at everything until it is seen whole, and publishes that. The old view stands meanwhile.
    async fn look(&mut self) {
        let (mut pause, mut failure) = (RETRY.0, None);
        loop {
            self.look_at = None;
            match self.ears.drain() {
                Some(Heard::Lost) => self.open_ears(),
                Some(_) => self.counters.resync(ResyncReason::Overrun),
                None => {}
            }
            let begun = Instant::now();
            let seen = self.try_look().await;
            let took = begun.elapsed();
            self.counters.looked(took);
            self.rest_until = Instant::now() + (took * REST).min(RETRY.1);
            match seen {
                Ok((seen, noted, hints)) => return self.publish(seen, noted, hints),
                Err(error) => {
                    self.counters.resync(ResyncReason::NoAnswer);
                    let words = error.to_string();
                    if failure.as_ref() != Some(&words) {
                        tracing::warn!(%error, "the NICs are not seen whole: what was seen before stands, and they are looked at again");
                        failure = Some(words);
                    }
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(RETRY.1);
        }
    }

    async fn try_look(&mut self) -> Result<(Seen, Noted, Given), Broken> {
        let mut eyes = self.eyes.take().unwrap_or_else(|| Eyes::open(self.sysfs.clone(), self.under_way.clone()));
        let (notes, hints, runtime) = (Arc::clone(&self.notes), self.hints.clone(), Handle::current());
        let looked = blocking(move || {
            let seen = runtime.block_on(tokio::time::timeout(LOOKED_WITHIN, eyes.look()));
            let noted = notes.lock().unwrap_or_else(PoisonError::into_inner).noted().clone();
            (eyes, seen, noted, hints.all())
        });
        let (eyes, seen, noted, hints) = looked.await?;
        // What failed once may be of no use any more. What is asked still is not asked by others meanwhile: each would wait, too.
        self.eyes = (!matches!(seen, Ok(Err(_)))).then_some(eyes);
        let hints = hints.unwrap_or_else(|error| {
            tracing::warn!(%error, "cannot read which function which VIF was told to have");
            BTreeMap::new()
        });
        let seen = seen.map_err(|_| Broken::Late)?;
        Ok((seen?, noted, hints))
    }

    /// Shows how far associations are in the view that stands.
    fn show_associations(&mut self) {
        let states = self.associations.borrow_and_update().clone();
        self.view.send_if_modified(|view| {
            let View::Ready(state) = view else { return false };
            let associations = noted_of(&states, &state.undo);
            if state.associations == associations {
                return false;
            }
            *view = View::Ready(Arc::new(NicState { associations, ..NicState::clone(state) }));
            true
        });
    }

    fn publish(&mut self, seen: Seen, noted: Noted, hints: Given) {
        let Seen { nics, pci, interest } = seen;
        self.interest = interest;
        let states = self.associations.borrow_and_update().clone();
        self.view.send_if_modified(|view| {
            let before = view.ready();
            let nics = keep_rows(before.map_or(&BTreeMap::new(), |state| &state.nics), nics);
            let Noted { undo, transitions, newer } = noted;
            let associations = noted_of(&states, &undo);
            let state = NicState { nics, pci, undo, associations, transitions, hints, newer };
            if before.is_some_and(|before| *before == state) {
                return false;
            }
            *view = View::Ready(Arc::new(state));
            true
        });
    }
}

/// The states of what is noted: one may be of what was noted before.
fn noted_of(states: &States, undo: &BTreeMap<VifId, Arc<Undo>>) -> BTreeMap<VifId, AssociationState> {
    let is_noted =
        |vif: &VifId, of: &Association| undo.get(vif).is_some_and(|undo| undo.association.as_ref() == Some(of));
    let told = states.iter().filter(|(vif, (of, _))| is_noted(vif, of));
    told.map(|(vif, (_, state))| (*vif, state.clone())).collect()
}

/// Why a look came to nothing.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error(transparent)]
    Look(#[from] LookError),
    #[error("the kernel has not answered for {LOOKED_WITHIN:?}: a driver is stuck, or takes long to begin again")]
    Late,
    #[error("internal error: {0}")]
    Panic(#[from] tokio::task::JoinError),
}
