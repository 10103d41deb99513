//! A [`World`] behind the [`Backend`] trait: what the reconciler is tested on, and what simulated fleets run.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use super::links::LinkOp;
use super::nics::NicOp;
use super::openflow::FlowOp;
use super::ovs::OvsOp;
use super::world::World;
use super::{Attributed, Backend, Outcome};
use crate::model::{FlowState, LinkState, NicState, OvsState, View};

/// A world that backends share. ovs-vswitchd takes its turn after every change.
#[derive(Clone, Debug)]
pub struct Stage {
    world: Arc<Mutex<World>>,
    links: watch::Sender<View<LinkState>>,
    nics: watch::Sender<View<NicState>>,
    ovs: watch::Sender<View<OvsState>>,
    flows: watch::Sender<View<BTreeMap<String, View<FlowState>>>>,
    /// How long a batch takes.
    pub latency: Duration,
}

/// The kernel of a [`Stage`].
#[derive(Debug)]
pub struct StagedLinks(Stage);

/// The NICs of a [`Stage`].
#[derive(Debug)]
pub struct StagedNics(Stage);

/// The switches of a [`Stage`].
#[derive(Debug)]
pub struct StagedFlows(Stage);

/// The database of a [`Stage`].
#[derive(Debug)]
pub struct StagedOvs {
    stage: Stage,
    /// Port names for whose sake a whole transaction is refused without a word on which operation it was.
    mute: Vec<String>,
}

impl Stage {
    /// Puts a world on stage.
    #[must_use]
    pub fn new(world: World) -> Self {
        let stage = Stage {
            world: Arc::new(Mutex::new(world)),
            links: watch::Sender::new(View::Syncing),
            nics: watch::Sender::new(View::Syncing),
            ovs: watch::Sender::new(View::Syncing),
            flows: watch::Sender::new(View::Syncing),
            latency: Duration::ZERO,
        };
        stage.change(|_| {});
        stage
    }

    /// The backends. For the sake of the ports named `mute` the database refuses whole transactions.
    #[must_use]
    pub fn backends(&self, mute: &[&str]) -> (StagedLinks, StagedNics, StagedOvs, StagedFlows) {
        let mute = mute.iter().map(|name| (*name).to_owned()).collect();
        let ovs = StagedOvs { stage: self.clone(), mute };
        (StagedLinks(self.clone()), StagedNics(self.clone()), ovs, StagedFlows(self.clone()))
    }

    /// Something happens to the world; whoever watches sees it.
    pub fn change<T>(&self, change: impl FnOnce(&mut World) -> T) -> T {
        let mut world = self.lock();
        let result = change(&mut world);
        world.switch();
        self.links.send_replace(View::Ready(Arc::new(world.kernel.clone())));
        self.nics.send_replace(View::Ready(Arc::clone(&world.nics)));
        self.ovs.send_replace(View::Ready(Arc::new(world.ovs.clone())));
        self.flows.send_replace(View::Ready(world.flows()));
        result
    }

    /// A look at the world.
    pub fn look<T>(&self, look: impl FnOnce(&World) -> T) -> T {
        look(&self.lock())
    }

    /// A world in which somebody panicked is still a world.
    fn lock(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Backend for StagedLinks {
    type State = LinkState;
    type Op = LinkOp;
    const NAME: &'static str = "links";

    fn observe(&self) -> watch::Receiver<View<LinkState>> {
        self.0.links.subscribe()
    }

    async fn apply(&mut self, batch: Vec<Attributed<LinkOp>>) -> Vec<Outcome> {
        tokio::time::sleep(self.0.latency).await;
        self.0.change(|world| batch.iter().map(|op| world.apply_link(&op.op)).collect())
    }

    async fn resync(&mut self) {}
}

impl Backend for StagedNics {
    type State = NicState;
    type Op = NicOp;
    const NAME: &'static str = "nics";

    fn observe(&self) -> watch::Receiver<View<NicState>> {
        self.0.nics.subscribe()
    }

    async fn apply(&mut self, batch: Vec<Attributed<NicOp>>) -> Vec<Outcome> {
        tokio::time::sleep(self.0.latency).await;
        self.0.change(|world| batch.iter().map(|op| world.apply_nic(&op.op)).collect())
    }

    async fn resync(&mut self) {}
}

impl Backend for StagedFlows {
    type State = BTreeMap<String, View<FlowState>>;
    type Op = FlowOp;
    const NAME: &'static str = "openflow";

    fn observe(&self) -> watch::Receiver<View<Self::State>> {
        self.0.flows.subscribe()
    }

    async fn apply(&mut self, batch: Vec<Attributed<FlowOp>>) -> Vec<Outcome> {
        tokio::time::sleep(self.0.latency).await;
        self.0.change(|world| world.apply_flows(&batch))
    }

    async fn resync(&mut self) {}
}

impl Backend for StagedOvs {
    type State = OvsState;
    type Op = OvsOp;
    const NAME: &'static str = "ovsdb";

    fn observe(&self) -> watch::Receiver<View<OvsState>> {
        self.stage.ovs.subscribe()
    }

    async fn apply(&mut self, batch: Vec<Attributed<OvsOp>>) -> Vec<Outcome> {
        tokio::time::sleep(self.stage.latency).await;
        let refused =
            |op: &Attributed<OvsOp>| matches!(&op.op, OvsOp::InsertPort(port) if self.mute.contains(&port.name));
        if batch.iter().any(refused) {
            return vec![Outcome::BatchFailed("constraint violation".to_owned()); batch.len()];
        }
        self.stage.change(|world| world.apply_ovs(&batch))
    }

    async fn resync(&mut self) {}
}
