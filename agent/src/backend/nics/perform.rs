//! Doing a batch: every operation in order, an outcome for each, on a thread that may block. What came of it is seen by
//! `look.rs`; nothing here writes to the view.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use devlink::port_profile::Request;
use devlink::{
    Device, Devlink, EswitchChange, Ethtool, FunctionChange, FunctionState, HW_TC_OFFLOAD, LinkError, LinkRef,
    LinkSocket, PortHandle, SysfsError, vf,
};
use nix::errno::Errno;
use nix::net::if_::if_indextoname;
use tokio::runtime::Handle;

use super::associations::{AssociationError, Associations};
use super::drivers::{DriverError, Drivers};
use super::hints::Hints;
use super::notes::{NoteError, Notes};
use super::under_way::Hung;
use super::{EswitchSetting, NicOp};
use crate::backend::{Attributed, Outcome};
use crate::model::VfChange;

/// For a mode to be changed. Drivers take seconds, with many functions tens of them; `mlx5` gives its firmware a minute for a
/// command and two to come up (`tout_def_sw_val`, `drivers/net/ethernet/mellanox/mlx5/core/lib/tout.c`).
const SWITCHED_WITHIN: Duration = Duration::from_secs(300);
/// For a function to be set by its port: a command or two.
const SET_WITHIN: Duration = Duration::from_secs(90);

/// What operations are done with.
#[derive(Clone)]
pub(super) struct Hands {
    pub(super) notes: Arc<Mutex<Notes>>,
    pub(super) hints: Hints,
    pub(super) drivers: Drivers,
    pub(super) associations: Associations,
}

impl Hands {
    /// Does with devlink what may hang in the kernel, where it has the NIC's lock.
    fn under_way(
        &self,
        limit: Duration,
        nic: &Device,
        op: &NicOp,
        work: impl FnOnce() -> Result<(), devlink::Error> + Send + 'static,
    ) -> Result<(), OpError> {
        self.drivers.under_way().within(limit, nic, op.to_string(), || work().map_err(OpError::from))
    }
}

/// Why an operation was not done.
#[derive(Debug, thiserror::Error)]
enum OpError {
    /// The kernel is not as the operation supposed.
    #[error(transparent)]
    Moved(#[from] Moved),
    #[error(transparent)]
    Devlink(#[from] devlink::Error),
    #[error("cannot change virtual function {vf} of {uplink:?}: {source}")]
    Vf { uplink: String, vf: u32, source: vf::VfError },
    #[error("cannot open a netlink socket: {0}")]
    Socket(#[source] std::io::Error),
    #[error(transparent)]
    Driver(#[from] DriverError),
    #[error(transparent)]
    Hung(#[from] Hung),
    #[error(transparent)]
    Note(#[from] NoteError),
    #[error("cannot say which function the VIF has (nested_dpdk.dir): {0}")]
    Hint(#[source] std::io::Error),
    #[error(transparent)]
    Association(#[from] AssociationError),
}

impl OpError {
    /// Whether what the operation is about is gone, or is not as it was when it was planned.
    fn is_conflict(&self) -> bool {
        match self {
            OpError::Moved(_) | OpError::Driver(DriverError::Gone(_)) => true,
            OpError::Devlink(error) => error.refusal().is_some_and(devlink::Extack::is_absent),
            OpError::Vf { source: vf::VfError::NoSuchVf(_), .. } => true,
            OpError::Vf { source: vf::VfError::Link(LinkError::Refused { refusal, .. }), .. } => {
                refusal.errno == Errno::ENODEV as i32
            }
            OpError::Driver(DriverError::Sysfs(error)) => {
                matches!(error, SysfsError::NoFunction(_) | SysfsError::NoDevice(_) | SysfsError::NotThroughZero { .. })
            }
            OpError::Association(error) => error.is_conflict(),
            OpError::Vf { .. }
            | OpError::Socket(_)
            | OpError::Driver(_)
            | OpError::Hung(_)
            | OpError::Note(_)
            | OpError::Hint(_) => false,
        }
    }
}

impl From<OpError> for Outcome {
    fn from(error: OpError) -> Self {
        if error.is_conflict() { Outcome::Conflict(error.to_string()) } else { Outcome::Failed(error.to_string()) }
    }
}

/// Sockets for one batch, each opened when it is needed: nothing of an earlier batch can be left in them, and nobody who looks
/// waits for a change.
#[derive(Default)]
struct Sockets {
    ethtool: Option<Ethtool>,
    links: Option<LinkSocket>,
}

impl Sockets {
    fn ethtool(&mut self) -> Result<&Ethtool, devlink::Error> {
        opened(&mut self.ethtool, Ethtool::open).map(|ethtool| &*ethtool)
    }

    fn links(&mut self) -> Result<&mut LinkSocket, OpError> {
        opened(&mut self.links, LinkSocket::open).map_err(OpError::Socket)
    }
}

fn opened<T, E>(kept: &mut Option<T>, open: impl FnOnce() -> Result<T, E>) -> Result<&mut T, E> {
    match kept {
        Some(kept) => Ok(kept),
        none => Ok(none.insert(open()?)),
    }
}

/// Does `batch`. An operation that fails does not stop the others. It blocks.
pub(super) async fn perform(batch: &[Attributed<NicOp>], hands: &Hands) -> Vec<Outcome> {
    let mut sockets = Sockets::default();
    let mut outcomes = Vec::with_capacity(batch.len());
    for Attributed { op, .. } in batch {
        let done = one(op, hands, &mut sockets).await;
        outcomes.push(done.map_or_else(Outcome::from, |()| Outcome::Done));
    }
    outcomes
}

async fn one(op: &NicOp, hands: &Hands, sockets: &mut Sockets) -> Result<(), OpError> {
    let notes = || hands.notes.lock().unwrap_or_else(PoisonError::into_inner);
    match op {
        NicOp::Remember(undo) => notes().remember(undo)?,
        NicOp::Forget(vif) => notes().forget(*vif)?,
        NicOp::Associate { vif, association } => {
            hands.associations.request(*vif, association, Request::Associate).await?;
        }
        NicOp::Disassociate { vif, association } => {
            hands.associations.request(*vif, association, Request::Disassociate).await?;
        }
        NicOp::RememberTransition(transition) => notes().remember_transition(transition)?,
        NicOp::ForgetTransition(nic) => notes().forget_transition(nic)?,
        NicOp::Hint { vif, function } => hands.hints.write(*vif, *function).map_err(OpError::Hint)?,
        NicOp::TakeHint(vif) => hands.hints.remove(*vif).map_err(OpError::Hint)?,
        NicOp::SetEswitch { nic, setting } => {
            let change = match *setting {
                EswitchSetting::Mode(mode) => EswitchChange { mode: Some(mode), ..EswitchChange::default() },
                EswitchSetting::InlineMode(mode) => {
                    EswitchChange { inline_mode: Some(mode), ..EswitchChange::default() }
                }
                EswitchSetting::Encap(on) => EswitchChange { encap: Some(on), ..EswitchChange::default() },
            };
            let (device, runtime) = (nic.clone(), Handle::current());
            let set = async move { Devlink::open()?.set_eswitch(&device, change).await };
            hands.under_way(SWITCHED_WITHIN, nic, op, move || runtime.block_on(set))?;
        }
        NicOp::SetVfCount { nic, count } => hands.drivers.set_vfs(nic, *count)?,
        NicOp::SetFunction { nic, port, hw_addr, active } => {
            let state = active.map(|active| if active { FunctionState::Active } else { FunctionState::Inactive });
            let change = FunctionChange { hw_addr: hw_addr.map(|mac| mac.0), state, ..FunctionChange::default() };
            let (port, runtime) = (PortHandle { device: nic.clone(), index: *port }, Handle::current());
            let set = async move { Devlink::open()?.set_function(&port, &change).await };
            hands.under_way(SET_WITHIN, nic, op, move || runtime.block_on(set))?;
        }
        NicOp::SetVf { uplink: (index, name), vf, change } => {
            guard(*index, name)?;
            let set = vf::set(sockets.links()?, *index, *vf, &wire(change)).await;
            set.map_err(|source| OpError::Vf { uplink: name.clone(), vf: *vf, source })?;
        }
        NicOp::SetTcOffload { index, name, on } => {
            guard(*index, name)?;
            sockets.ethtool()?.set_feature(&LinkRef::Index(*index), HW_TC_OFFLOAD, *on).await?;
        }
        NicOp::Bind { function, driver, driver_override } => {
            hands.drivers.bind(*function, driver.as_deref(), driver_override.as_deref())?;
        }
        NicOp::ProbeAgain { function } => hands.drivers.probe_again(*function)?,
    }
    Ok(())
}

fn wire(change: &VfChange) -> vf::VfChange {
    let VfChange { mac, vlan, max_rate, spoof_check, trust } = *change;
    vf::VfChange {
        mac: mac.map(|mac| mac.0),
        vlan,
        max_tx_rate_mbps: max_rate,
        spoof_check,
        trust,
        ..vf::VfChange::default()
    }
}

/// A link is not what the planner saw.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Moved(String);

/// Sees to it that `index` is still what the planner saw.
pub(super) fn guard(index: u32, name: &str) -> Result<(), Moved> {
    match if_indextoname(index) {
        Ok(found) if found.to_bytes() == name.as_bytes() => Ok(()),
        Ok(found) if !found.is_empty() => Err(Moved(format!("index {index} is link {found:?} and not {name:?}"))),
        _ => Err(Moved(format!("link {name:?} (index {index}) is gone"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guard_wants_index_and_name() {
        assert!(guard(1, "lo").is_ok());
        assert!(guard(1, "eth0").unwrap_err().to_string().contains("is link \"lo\" and not \"eth0\""));
        let gone = OpError::from(guard(u32::MAX >> 1, "eth0").unwrap_err());
        assert!(gone.is_conflict() && gone.to_string().contains("is gone"), "{gone}");
    }
}
