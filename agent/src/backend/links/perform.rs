//! Doing a batch: every operation in order, an outcome for each, on a thread that may block.
//! What the kernel makes of it is seen by `follow.rs`; nothing here writes to the view.

use std::io;
use std::thread;

use rtnetlink::packet_route::link::{
    BridgeStpState, InfoBridge, InfoData, InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};

use crate::backend::{Attributed, Outcome};
use crate::model::Link;

use super::devices::{DeviceDirectory, DeviceError};
use super::make::{self, bridge_data, bridge_index, check_name, set_flag};
use super::request::{Requests, Which, no_such_device};
use super::sockets::{AllowedDirectory, SocketError};
use super::together::{self, Doomed, NotTogether};
use super::tun::TunError;
use super::{LinkChange, LinkOp, NewKind, NewLink, uplink};

/// What a batch came to.
pub(super) struct Performed {
    /// One per operation.
    pub(super) outcomes: Vec<Outcome>,
    /// The links of which the kernel may not have told all: the view must show how they are now.
    pub(super) touched: Vec<Which>,
    /// Whether the socket directory was written to.
    pub(super) sockets: bool,
}

/// Why an operation was not done.
#[derive(Debug, thiserror::Error)]
pub(super) enum OpError {
    /// The kernel is not as the operation supposed.
    #[error("{0}")]
    Guard(String),
    #[error(
        "cannot {what}: {source}; {on:?} is in a bridge or bond, or another macvtap has it for itself (passthrough) or \
         keeps it from being had alone"
    )]
    Taken { what: String, on: String, source: io::Error },
    #[error("{0:?} is not a name that an interface can have")]
    Name(String),
    #[error(transparent)]
    Tun(#[from] TunError),
    #[error("cannot {what}: {source}")]
    Netlink { what: String, source: io::Error },
    #[error("cannot {what}: this kernel has no links of kind {kind:?} (a module is missing): {source}")]
    NoSuchKind { what: String, kind: &'static str, source: io::Error },
    #[error("cannot set {setting} of {name:?}: {source}")]
    Setting { name: String, setting: &'static str, source: io::Error },
    #[error(transparent)]
    Sockets(#[from] SocketError),
    #[error("no directory of vhost-user sockets is configured")]
    NoSocketDirectory,
    #[error(transparent)]
    Device(#[from] DeviceError),
    #[error("no directory of macvtaps' devices is configured")]
    NoDeviceDirectory,
}

impl From<OpError> for Outcome {
    fn from(error: OpError) -> Self {
        match error {
            OpError::Guard(_)
            | OpError::Tun(TunError::Exists(_))
            | OpError::Device(DeviceError::Absent(_) | DeviceError::Another { .. } | DeviceError::NotInSysfs { .. }) => {
                Outcome::Conflict(error.to_string())
            }
            _ => Outcome::Failed(error.to_string()),
        }
    }
}

/// How many links are deleted at a time. A deletion is mostly waiting, outside of the kernel's lock, for every
/// processor to have let go of the link: some 20 ms each, one after another.
const DELETERS: usize = 32;

/// Does `batch`. An operation that fails does not stop the others.
pub(super) fn perform(
    batch: &[Attributed<LinkOp>],
    allowed: Option<&AllowedDirectory>,
    devices: Option<&DeviceDirectory>,
    nursery: u32,
) -> Performed {
    let mut performed = Performed { outcomes: Vec::with_capacity(batch.len()), touched: Vec::new(), sockets: false };
    // Opened for the batch alone, and not before a link is to be touched: nothing of an earlier batch can be
    // left in it.
    let mut requests = None;
    // Deletions that follow one another may be done in any order, and at once.
    for run in batch.chunk_by(|one, next| is_deletion(&one.op) && is_deletion(&next.op)) {
        if run.len() > 1 {
            for some in run.chunks(together::MOST) {
                performed.outcomes.extend(delete_together(some).unwrap_or_else(|| delete_at_once(some)));
            }
            continue;
        }
        for Attributed { op, .. } in run {
            let result = match op {
                LinkOp::MakeSocketDirectory { path, owner } => {
                    performed.sockets = true;
                    allowed.ok_or(OpError::NoSocketDirectory).and_then(|dir| Ok(dir.make_directory(path, owner)?))
                }
                LinkOp::RemoveSocket { path } => {
                    performed.sockets = true;
                    allowed.ok_or(OpError::NoSocketDirectory).and_then(|dir| Ok(dir.remove_socket(path)?))
                }
                LinkOp::OwnDevice { index, name, access } => open(&mut requests).and_then(|requests| {
                    guard(requests, *index, name, None)?;
                    Ok(devices.ok_or(OpError::NoDeviceDirectory)?.put_right(*index, name, access)?)
                }),
                _ => open(&mut requests).and_then(|requests| on_link(requests, op, nursery)),
            };
            performed.outcomes.push(result.map_or_else(Outcome::from, |()| Outcome::Done));
        }
    }
    performed.touched =
        batch.iter().zip(&performed.outcomes).flat_map(|(op, outcome)| untold(&op.op, outcome)).collect();
    performed
}

/// The links of which no notification need have told all that was done. Setting a link up is the last step of
/// making it and is told of, with everything that was done before; deleting it is, too.
fn untold(op: &LinkOp, outcome: &Outcome) -> Vec<Which> {
    match op {
        LinkOp::CreateLink { link, kind } if is_told(link, kind) && *outcome == Outcome::Done => Vec::new(),
        LinkOp::DeleteLink { .. } if *outcome == Outcome::Done => Vec::new(),
        LinkOp::CreateLink { link, kind } => {
            let peer = if let NewKind::Veth(peer) = kind { Some(peer) } else { None };
            [Some(link), peer].into_iter().flatten().map(|link| Which::Name(link.name.clone())).collect()
        }
        LinkOp::ChangeLink { index, .. } | LinkOp::DeleteLink { index, .. } | LinkOp::OwnDevice { index, .. } => {
            vec![Which::Index(*index)]
        }
        LinkOp::MoveUplink { interface, bridge, .. } => vec![Which::Index(interface.0), Which::Index(bridge.0)],
        LinkOp::MakeSocketDirectory { .. } | LinkOp::RemoveSocket { .. } => Vec::new(),
    }
}

fn is_told(link: &NewLink, kind: &NewKind) -> bool {
    link.up && if let NewKind::Veth(peer) = kind { peer.up } else { true }
}

fn is_deletion(op: &LinkOp) -> bool {
    matches!(op, LinkOp::DeleteLink { .. })
}

/// Deletes links as a group; `None` where that is not to be had, and then none is deleted.
fn delete_together(run: &[Attributed<LinkOp>]) -> Option<Vec<Outcome>> {
    if run.len() < together::LEAST {
        return None;
    }
    let doomed: Vec<Doomed<'_>> = run
        .iter()
        .filter_map(|op| match &op.op {
            LinkOp::DeleteLink { index, name, alias } => Some(Doomed { index: *index, name, alias }),
            _ => None,
        })
        .collect();
    let deleted = Requests::open().map_err(|source| NotTogether::Kernel { what: "open a netlink socket", source });
    match deleted.and_then(|mut requests| together::delete(&mut requests, &doomed)) {
        Ok(()) => Some(vec![Outcome::Done; run.len()]),
        Err(why) => {
            tracing::debug!(%why, "links are deleted one by one");
            None
        }
    }
}

fn delete_at_once(run: &[Attributed<LinkOp>]) -> Vec<Outcome> {
    thread::scope(|scope| {
        let deleters: Vec<_> = run
            .chunks(run.len().div_ceil(DELETERS))
            .map(|share| (share.len(), scope.spawn(move || delete_in_turn(share))))
            .collect();
        deleters
            .into_iter()
            .flat_map(|(operations, deleter)| deleter.join().unwrap_or_else(|_| vec![Outcome::Unknown; operations]))
            .collect()
    })
}

fn delete_in_turn(share: &[Attributed<LinkOp>]) -> Vec<Outcome> {
    let mut requests = None;
    share
        .iter()
        .map(|Attributed { op, .. }| {
            let LinkOp::DeleteLink { index, name, alias } = op else { return Outcome::Untried };
            let result = open(&mut requests).and_then(|requests| delete(requests, *index, name, alias));
            result.map_or_else(Outcome::from, |()| Outcome::Done)
        })
        .collect()
}

fn open(requests: &mut Option<Requests>) -> Result<&mut Requests, OpError> {
    match requests {
        Some(open) => Ok(open),
        closed => Ok(closed.insert(Requests::open().map_err(netlink("open a netlink socket"))?)),
    }
}

fn on_link(requests: &mut Requests, op: &LinkOp, nursery: u32) -> Result<(), OpError> {
    match op {
        LinkOp::CreateLink { link, kind } => make::make(requests, link, kind, nursery),
        LinkOp::ChangeLink { index, name, change: to } => change(requests, *index, name, to),
        LinkOp::DeleteLink { index, name, alias } => delete(requests, *index, name, alias),
        LinkOp::MoveUplink { interface, bridge, mtu, join } => {
            for (index, name) in [interface, bridge] {
                guard(requests, *index, name, None)?;
            }
            uplink::move_uplink(requests, interface, bridge, *mtu, *join)
        }
        // `perform` does these itself.
        LinkOp::OwnDevice { .. } | LinkOp::MakeSocketDirectory { .. } | LinkOp::RemoveSocket { .. } => Ok(()),
    }
}

fn change(requests: &mut Requests, index: u32, name: &str, change: &LinkChange) -> Result<(), OpError> {
    let what = format!("change link {name:?}");
    let LinkChange { rename, mac, mtu, up, promiscuous, master, unattached, bridge, alias } = change;
    let link = guard(requests, index, name, None)?;
    if *unattached && link.master.is_some() {
        return Err(OpError::Guard(format!("link {name:?} is in a bridge already")));
    }
    if let Some(to) = rename {
        rename_link(requests, index, to, &what)?;
    }
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.attributes.extend(mac.map(|mac| LinkAttribute::Address(mac.0.to_vec())));
    message.attributes.extend(mtu.map(LinkAttribute::Mtu));
    message.attributes.extend(alias.clone().map(LinkAttribute::IfAlias));
    if let Some(master) = master {
        message.attributes.push(LinkAttribute::Controller(bridge_index(requests, master, &what)?));
    }
    if let Some(up) = up {
        set_flag(&mut message, LinkFlags::Up, *up);
    }
    if let Some(promiscuous) = promiscuous {
        set_flag(&mut message, LinkFlags::Promisc, *promiscuous);
    }
    requests.set(message).map_err(gone_or(index, &what))?;
    let Some(config) = bridge else { return Ok(()) };
    if !config.stp {
        // While STP is on the kernel refuses a forward delay below two seconds, and it looks at that first.
        set_bridge(requests, index, InfoData::Bridge(vec![InfoBridge::StpState(BridgeStpState::Disabled)]), &what)?;
    }
    set_bridge(requests, index, bridge_data(config), &what)
}

/// `RTM_NEWLINK` without `NLM_F_CREATE` is how the kernel takes what only one kind of link has.
fn set_bridge(requests: &mut Requests, index: u32, data: InfoData, what: &str) -> Result<(), OpError> {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.attributes.push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Bridge), LinkInfo::Data(data)]));
    requests.change(message).map_err(gone_or(index, what))
}

fn rename_link(requests: &mut Requests, index: u32, to: &str, what: &str) -> Result<(), OpError> {
    check_name(to)?;
    let mut rename = LinkMessage::default();
    rename.header.index = index;
    rename.attributes.push(LinkAttribute::IfName(to.to_owned()));
    let mut renamed = requests.set(rename.clone());
    if renamed.as_ref().is_err_and(|error| error.raw_os_error() == Some(nix::libc::EBUSY)) {
        // Kernels before 6.2 rename no link that is up; whoever wants it up says so in the same operation.
        let mut down = LinkMessage::default();
        down.header.index = index;
        set_flag(&mut down, LinkFlags::Up, false);
        requests.set(down).map_err(gone_or(index, what))?;
        renamed = requests.set(rename);
    }
    renamed.map_err(|error| match error.raw_os_error() {
        Some(nix::libc::EEXIST) => OpError::Guard(format!("cannot {what}: a link named {to:?} exists")),
        _ => gone_or(index, what)(error),
    })
}

fn delete(requests: &mut Requests, index: u32, name: &str, alias: &str) -> Result<(), OpError> {
    guard(requests, index, name, Some(alias))?;
    requests.delete(index).map_err(gone_or(index, &format!("delete link {name:?}")))
}

/// Sees to it that `index` is still what the planner saw.
fn guard(requests: &mut Requests, index: u32, name: &str, alias: Option<&str>) -> Result<Link, OpError> {
    let found =
        requests.get(&Which::Index(index)).map_err(netlink(&format!("look at link {name:?} (index {index})")))?;
    check(found, index, name, alias).map_err(OpError::Guard)
}

fn check(found: Option<Link>, index: u32, name: &str, alias: Option<&str>) -> Result<Link, String> {
    let Some(link) = found else { return Err(format!("link {name:?} (index {index}) is gone")) };
    if link.name != name {
        return Err(format!("index {index} is link {:?} and not {name:?}", link.name));
    }
    match (alias, link.alias.as_deref().unwrap_or_default()) {
        (Some(wanted), has) if wanted != has => Err(format!("link {name:?} is marked {has:?} and not {wanted:?}")),
        _ => Ok(link),
    }
}

pub(super) fn netlink(what: &str) -> impl FnOnce(io::Error) -> OpError {
    let what = what.to_owned();
    |source| OpError::Netlink { what, source }
}

/// A link that went between guard and write is a conflict and not a failure.
pub(super) fn gone_or(index: u32, what: &str) -> impl FnOnce(io::Error) -> OpError {
    let what = what.to_owned();
    move |source| {
        if no_such_device(&source) {
            OpError::Guard(format!("cannot {what}: index {index} is gone"))
        } else {
            OpError::Netlink { what, source }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::LinkKind;

    #[test]
    fn the_guard_wants_index_name_and_mark() {
        let kind = LinkKind::Other(String::new());
        let link = Link { up: true, alias: Some("ours".into()), ..Link::new(4, "tap1", kind) };
        let bare = Link { alias: None, ..link.clone() };
        assert_eq!(check(Some(link.clone()), 4, "tap1", Some("ours")).as_ref(), Ok(&link));
        assert_eq!(check(Some(link.clone()), 4, "tap1", None).as_ref(), Ok(&link));
        assert!(check(None, 4, "tap1", None).unwrap_err().contains("is gone"));
        assert!(check(Some(link.clone()), 4, "tap2", None).unwrap_err().contains("\"tap1\" and not \"tap2\""));
        assert!(check(Some(link), 4, "tap1", Some("theirs")).unwrap_err().contains("\"ours\" and not \"theirs\""));
        assert!(check(Some(bare), 4, "tap1", Some("ours")).unwrap_err().contains("\"\" and not \"ours\""));
    }
}
