//! Kernel links over rtnetlink and `/dev/net/tun`, the devices of macvtaps, and the directory of vhost-user sockets.
//!
//! This file has the face, [`Links`]. The view is made in `follow.rs` (from `table.rs`, `devices.rs` and `sockets/`), operations
//! (`op.rs`) are done in `perform.rs` (with `make.rs`, `uplink.rs`, `transfer.rs`, `request.rs`, `tun.rs`,
//! `devices.rs` and `sockets/`).

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};

use crate::backend::{Attributed, Backend, Outcome};
use crate::blocking::blocking;
use crate::model::{AgentId, LinkState, View, nursery};

mod codec;
mod devices;
mod follow;
mod make;
mod op;
mod perform;
mod request;
mod sockets;
mod statistics;
pub mod table;
mod together;
mod transfer;
mod tun;
mod uplink;

pub use op::{LinkChange, LinkOp, NewKind, NewLink};
pub use statistics::{LinkStatistics, ResyncReason};

use devices::{DeviceDirectory, Devices};
use follow::{Connection, Follower, Settle};
use request::Which;
use sockets::{AllowedDirectory, Sockets};
use statistics::Counters;

/// For the view to show a batch. It takes milliseconds; so long only when no netlink socket can be had.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(30);

/// How the backend is set up.
#[derive(Clone, Debug)]
pub struct LinksConfig {
    /// `[vhostuser] dir`: where vhost-user sockets are allowed, an absolute path. It need not exist. Without
    /// it the view has no sockets, and operations on them fail.
    pub socket_directory: Option<PathBuf>,
    /// `[macvtap] dir`: where the character devices of macvtaps are, an absolute path. Without it the view has none, and
    /// operations on them fail.
    pub device_directory: Option<PathBuf>,
    /// Octets of kernel memory in which notifications may wait (`SO_RCVBUF`). The kernel takes some 3 KiB for
    /// each, and a new tap sends about five. What does not fit is made good by a dump.
    pub receive_buffer: usize,
    /// The link group that new links are in until they have their mark ([`crate::model::nursery`]).
    pub nursery: u32,
}

impl Default for LinksConfig {
    fn default() -> Self {
        LinksConfig {
            socket_directory: None,
            device_directory: None,
            receive_buffer: 16 << 20,
            nursery: nursery(&AgentId("vifd".into())),
        }
    }
}

/// Why the backend did not start.
#[derive(Debug, thiserror::Error)]
pub enum LinksError {
    /// No netlink socket.
    #[error("cannot open a netlink socket: {0}")]
    Netlink(#[source] io::Error),
}

/// The links of the network namespace in which it was started, as a backend.
pub struct Links {
    view: watch::Receiver<View<LinkState>>,
    settle: mpsc::Sender<Settle>,
    allowed: Option<AllowedDirectory>,
    devices: Option<DeviceDirectory>,
    counters: Arc<Counters>,
    nursery: u32,
}

impl Links {
    /// Starts to follow the kernel. The tasks end when the value is dropped.
    ///
    /// Network namespaces belong to threads: it must be called on one of the namespace that is meant, in a
    /// Tokio runtime whose threads are in the same.
    ///
    /// # Errors
    ///
    /// When there is no netlink socket to be had.
    pub fn spawn(config: LinksConfig) -> Result<Self, LinksError> {
        let connection = Connection::open(config.receive_buffer).map_err(LinksError::Netlink)?;
        let allowed = config.socket_directory.map(AllowedDirectory::new);
        let sockets = allowed.clone().map(Sockets::spawn);
        let directory = config.device_directory.map(DeviceDirectory::new);
        let devices = directory.clone().map(Devices::new);
        let counters = Arc::new(Counters::default());
        let (sender, view) = watch::channel(View::Syncing);
        let (settle, requests) = mpsc::channel(1);
        let follower =
            Follower::new(connection, config.receive_buffer, sockets, devices, sender, Arc::clone(&counters));
        tokio::spawn(follower.run(requests));
        Ok(Links { view, settle, allowed, devices: directory, counters, nursery: config.nursery })
    }

    /// What was counted since the start.
    #[must_use]
    pub fn statistics(&self) -> LinkStatistics {
        self.counters.read()
    }

    /// The same, readable after the backend has been handed to its task.
    pub fn counters(&self) -> impl Fn() -> LinkStatistics + Send + Sync + 'static {
        let counters = Arc::clone(&self.counters);
        move || counters.read()
    }

    /// Waits until the view shows what was done; `false` when it does not come to that.
    async fn settle(&self, touched: Vec<Which>, sockets: bool, resync: bool) -> bool {
        let (done, shown) = oneshot::channel();
        let settled =
            async { self.settle.send(Settle { touched, sockets, resync, done }).await.is_ok() && shown.await.is_ok() };
        tokio::time::timeout(SETTLE_TIMEOUT, settled).await.unwrap_or(false)
    }
}

/// An interface that a batch puts into a bridge or lets out of it.
#[derive(Debug, PartialEq, Eq)]
struct Move {
    interface: String,
    bridge: String,
    join: bool,
    /// Addresses of global scope that go along.
    addresses: usize,
}

impl Move {
    /// Whoever looks for the host's address has to find where it went.
    fn log(&self) {
        let Move { interface, bridge, join, addresses } = self;
        let sentence = match join {
            true => "put into the bridge, which has its addresses and routes now",
            false => "let out of the bridge, and has its addresses and routes again",
        };
        tracing::info!(interface, bridge, addresses, "{sentence}");
    }
}

/// The moves of a batch by their places in it, with what is seen before them.
fn moves(batch: &[Attributed<LinkOp>], seen: &View<LinkState>) -> Vec<(usize, Move)> {
    let addresses = |name: &str| seen.ready()?.links.get(name).map(|link| link.addresses.len());
    let moved = batch.iter().enumerate().filter_map(|(place, op)| {
        let LinkOp::MoveUplink { interface, bridge, join, .. } = &op.op else { return None };
        let (interface, bridge, join) = (interface.1.clone(), bridge.1.clone(), *join);
        let addresses = addresses(if join { &interface } else { &bridge }).unwrap_or_default();
        Some((place, Move { interface, bridge, join, addresses }))
    });
    moved.collect()
}

impl Backend for Links {
    type State = LinkState;
    type Op = LinkOp;

    const NAME: &'static str = "links";

    fn observe(&self) -> watch::Receiver<View<LinkState>> {
        self.view.clone()
    }

    /// Not atomic: an operation that fails leaves the others be. An operation that was done in part (a tap that
    /// could not be set up, say) is `Failed`, and the view tells what is.
    async fn apply(&mut self, batch: Vec<Attributed<LinkOp>>) -> Vec<Outcome> {
        if batch.is_empty() {
            return Vec::new();
        }
        let operations = batch.len();
        let (allowed, devices) = (self.allowed.clone(), self.devices.clone());
        let nursery = self.nursery;
        let moves = moves(&batch, &self.view.borrow());
        let performed = blocking(move || perform::perform(&batch, allowed.as_ref(), devices.as_ref(), nursery)).await;
        let (outcomes, settled) = match performed {
            Ok(done) => {
                let written = done.outcomes.iter().filter(|outcome| !matches!(outcome, Outcome::Conflict(_))).count();
                self.counters.wrote(written as u64);
                let resync = written < operations;
                for (_, told) in moves.iter().filter(|(place, _)| done.outcomes.get(*place) == Some(&Outcome::Done)) {
                    told.log();
                }
                (done.outcomes, self.settle(done.touched, done.sockets, resync).await)
            }
            Err(error) => {
                // A defect of ours in one operation: the batch is halved until it is found, and its VIF held.
                tracing::error!(%error, "a batch on links was broken off");
                let broken = vec![Outcome::BatchFailed(format!("internal error: {error}")); operations];
                (broken, self.settle(Vec::new(), true, true).await)
            }
        };
        if settled { outcomes } else { vec![Outcome::Unknown; operations] }
    }

    async fn resync(&mut self) {
        // Without an answer the follower is at it already.
        let _ = self.settle(Vec::new(), true, true).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::backend::Party;
    use crate::model::{Link, LinkKind};

    #[test]
    fn a_move_is_told_with_the_addresses_of_whoever_has_them() {
        let link = |index, name: &str, addresses: &[&str]| {
            let mut link = Link::new(index, name, LinkKind::Other(String::new()));
            link.addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
            (name.to_owned(), Arc::new(link))
        };
        let links = [link(1, "eth1", &["192.0.2.7/24", "2001:db8::7/64"]), link(2, "brq1", &["198.51.100.1/24"])];
        let seen = View::Ready(Arc::new(LinkState { links: links.into_iter().collect(), ..LinkState::default() }));
        let op =
            |join| LinkOp::MoveUplink { interface: (1, "eth1".into()), bridge: (2, "brq1".into()), mtu: None, join };
        let other = LinkOp::DeleteLink { index: 3, name: "tap3".into(), alias: String::new() };
        let batch = [op(true), other, op(false)].map(|op| Attributed { party: Party::All, op });
        let told = |join, addresses| Move { interface: "eth1".into(), bridge: "brq1".into(), join, addresses };
        assert_eq!(moves(&batch, &seen), [(0, told(true, 2)), (2, told(false, 1))]);
    }
}
