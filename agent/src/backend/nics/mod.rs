//! NICs over devlink, sysfs, ethtool and rtnetlink, and the notes on what they were before.
//!
//! This file has the face, [`Nics`]. What happens is heard in `hear.rs`, everything is looked at in `look.rs` and made into one
//! state in `view.rs`, by the task in `follow.rs`; how far the switches are with what they were asked for, the task in
//! `associations.rs` asks. Operations (`op.rs`) are done in `perform.rs` (with `drivers.rs`, and what may hang
//! by `under_way.rs`); notes are kept in `notes.rs`;
//! `hints.rs` tells containers which function they have.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use devlink::Sysfs;
use devlink::port_profile::LLDPAD_PID_FILE;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot, watch};

use crate::backend::links::ResyncReason;
use crate::backend::{Attributed, Backend, Outcome};
use crate::blocking::blocking;
use crate::model::{NicState, View};
use crate::state_dir::StateDir;

mod associations;
mod drivers;
mod follow;
mod hear;
mod hints;
mod look;
mod notes;
mod op;
mod perform;
mod statistics;
mod under_way;
mod view;

pub use op::{EswitchSetting, NicOp};
pub use statistics::NicStatistics;

use associations::Associations;
use drivers::Drivers;
use follow::{Follower, Settle};
use hear::Ears;
use hints::Hints;
use look::Eyes;
use notes::Notes;
use perform::Hands;
use statistics::Counters;
use under_way::UnderWay;
use view::keep_rows;

/// For the view to show a batch. It takes milliseconds; longer while somebody else has a NIC's lock.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(60);

/// How the backend is set up.
#[derive(Clone, Debug)]
pub struct NicsConfig {
    /// The state directory, in which it keeps its notes: an absolute path, made where it is missing.
    pub state_dir: PathBuf,
    /// Where sysfs is, `/sys`. It need not be there.
    pub sysfs: PathBuf,
    /// `[nested_dpdk] dir`: where it says which function which VIF has, an absolute path, made with the first of them.
    pub hints: PathBuf,
    /// Where the devices of IOMMU groups are, `/dev/vfio`. It need not be there.
    pub vfio: PathBuf,
    /// Octets of kernel memory in which the notifications of one kind may wait (`SO_RCVBUF`). What does not fit costs one more
    /// look at everything.
    pub receive_buffer: usize,
    /// The file in which lldpad writes its process id. It need not be there.
    pub lldpad_pid_file: PathBuf,
    /// How far associations are that were asked for on behalf of VIFs is asked at least so often; never without a cause where
    /// this is `None`. While there are none, nobody is asked.
    pub ask_every: Option<Duration>,
}

impl NicsConfig {
    /// This host's NICs, with notes in `state_dir`.
    #[must_use]
    pub fn new(state_dir: &Path) -> Self {
        NicsConfig {
            state_dir: state_dir.to_owned(),
            hints: state_dir.join("pci-address"),
            sysfs: "/sys".into(),
            vfio: "/dev/vfio".into(),
            receive_buffer: 4 << 20,
            lldpad_pid_file: LLDPAD_PID_FILE.into(),
            ask_every: Some(Duration::from_secs(10)),
        }
    }
}

/// Why the backend did not start.
#[derive(Debug, thiserror::Error)]
pub enum NicsError {
    /// No netlink socket.
    #[error("cannot open a netlink socket: {0}")]
    Netlink(#[source] io::Error),
    /// The notes cannot be read.
    #[error("the notes on functions of NICs: {0}")]
    Notes(#[source] io::Error),
}

/// Looks at the NICs of this host once, for whoever does not follow them. It blocks. There are no notes in the answer.
///
/// # Errors
/// What is there cannot be read as a whole.
pub async fn look(sysfs: &Path) -> Result<NicState, String> {
    let seen =
        Eyes::open(Sysfs::at(sysfs).ok(), UnderWay::default()).look().await.map_err(|error| error.to_string())?;
    Ok(NicState { nics: keep_rows(&BTreeMap::new(), seen.nics), pci: seen.pci, ..NicState::default() })
}

/// The NICs of this host whose devlink and netdevs are in the network namespace in which it was started, as a backend.
pub struct Nics {
    view: watch::Receiver<View<NicState>>,
    settle: mpsc::Sender<Settle>,
    hands: Hands,
    counters: Arc<Counters>,
}

impl Nics {
    /// Starts to follow the NICs. The task ends when the value is dropped.
    ///
    /// Network namespaces belong to threads: it must be called on one of the namespace that is meant, in a Tokio runtime whose
    /// threads are in the same.
    ///
    /// # Errors
    ///
    /// When there is no netlink socket to be had, or the notes cannot be read. That there is no devlink and no sysfs is none: then
    /// there are no NICs.
    pub fn spawn(config: NicsConfig) -> Result<Self, NicsError> {
        let notes =
            StateDir::open(&config.state_dir).and_then(|state| Notes::open(&state)).map_err(NicsError::Notes)?;
        let notes = Arc::new(Mutex::new(notes));
        // Before the first look: what happens meanwhile leads to another.
        let ears = Ears::open(config.receive_buffer).map_err(NicsError::Netlink)?;
        let sysfs = Sysfs::at(&config.sysfs)
            .inspect_err(|error| tracing::warn!(%error, "functions of NICs are not to be seen"))
            .ok();
        let drivers = Drivers::new(sysfs.clone(), config.vfio);
        let hints = Hints(config.hints);
        let counters = Arc::new(Counters::default());
        let associations = Associations::spawn(Arc::clone(&notes), config.lldpad_pid_file, config.ask_every);
        let (sender, view) = watch::channel(View::Syncing);
        let (settle, requests) = mpsc::channel(1);
        let follower = Follower::new(
            (ears, config.receive_buffer),
            sysfs,
            drivers.under_way(),
            (Arc::clone(&notes), hints.clone()),
            associations.states(),
            sender,
            Arc::clone(&counters),
        );
        tokio::spawn(follower.run(requests));
        Ok(Nics { view, settle, hands: Hands { notes, hints, drivers, associations }, counters })
    }

    /// What was counted since the start.
    #[must_use]
    pub fn statistics(&self) -> NicStatistics {
        self.counters.read()
    }

    /// The same, readable after the backend has been handed to its task.
    pub fn counters(&self) -> impl Fn() -> NicStatistics + Send + Sync + 'static {
        let counters = Arc::clone(&self.counters);
        move || counters.read()
    }

    /// Waits until the view shows what was done; `false` when it does not come to that.
    async fn settle(&self, resync: Option<ResyncReason>) -> bool {
        let (done, shown) = oneshot::channel();
        let settled = async { self.settle.send(Settle { resync, done }).await.is_ok() && shown.await.is_ok() };
        tokio::time::timeout(SETTLE_TIMEOUT, settled).await.unwrap_or(false)
    }
}

impl Backend for Nics {
    type State = NicState;
    type Op = NicOp;

    const NAME: &'static str = "nics";

    fn observe(&self) -> watch::Receiver<View<NicState>> {
        self.view.clone()
    }

    /// Not atomic: an operation that fails leaves the others be. An operation that was done in part (one setting of several of a
    /// virtual function, say) is `Failed`, and the view tells what is.
    async fn apply(&mut self, batch: Vec<Attributed<NicOp>>) -> Vec<Outcome> {
        if batch.is_empty() {
            return Vec::new();
        }
        let operations = batch.len();
        let any_association = batch.iter().any(|op| concerns_associations(&op.op));
        let (hands, runtime) = (self.hands.clone(), Handle::current());
        let performed = blocking(move || runtime.block_on(perform::perform(&batch, &hands))).await;
        let (outcomes, resync) = match performed {
            Ok(outcomes) => {
                let written = outcomes.iter().filter(|outcome| !matches!(outcome, Outcome::Conflict(_))).count();
                self.counters.wrote(written as u64);
                (outcomes, (written < operations).then_some(ResyncReason::Conflict))
            }
            Err(error) => {
                // A defect of ours in one operation: the batch is halved until it is found, and its VIF held.
                tracing::error!(%error, "a batch on NICs was broken off");
                let broken = vec![Outcome::BatchFailed(format!("internal error: {error}")); operations];
                (broken, Some(ResyncReason::Conflict))
            }
        };
        if any_association {
            self.hands.associations.refresh().await;
        }
        if self.settle(resync).await { outcomes } else { vec![Outcome::Unknown; operations] }
    }

    async fn resync(&mut self) {
        self.hands.associations.refresh().await;
        // Without an answer the follower is at it already.
        let _ = self.settle(None).await;
    }
}

/// Whether the state of an association may be another after this.
fn concerns_associations(op: &NicOp) -> bool {
    match op {
        NicOp::Remember(undo) => undo.association.is_some(),
        NicOp::Forget(_) | NicOp::Associate { .. } | NicOp::Disassociate { .. } => true,
        _ => false,
    }
}
