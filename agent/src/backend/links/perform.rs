//! Doing a batch: every operation in order, an outcome for each, on a thread that may block.
//! What the kernel makes of it is seen by `follow.rs`; nothing here writes to the view.

use std::fs;
use std::io;
use std::thread;

use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};

use crate::backend::{Attributed, Outcome};
use crate::model::{IFNAMSIZ, Link, MacAddr};

use super::LinkOp;
use super::request::{Requests, Which, no_such_device};
use super::sockets::{AllowedDirectory, SocketError};
use super::together::{self, Doomed, NotTogether};
use super::tun::{Tap, TunError};

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
enum OpError {
    /// The kernel is not as the operation supposed.
    #[error("{0}")]
    Guard(String),
    #[error("{0:?} is not a name that an interface can have")]
    Name(String),
    #[error(transparent)]
    Tun(#[from] TunError),
    #[error("cannot {what}: {source}")]
    Netlink { what: String, source: io::Error },
    #[error("cannot turn IPv6 off on {name:?}: {source}")]
    Ipv6 { name: String, source: io::Error },
    #[error(transparent)]
    Sockets(#[from] SocketError),
    #[error("no directory of vhost-user sockets is configured")]
    NoSocketDirectory,
}

impl From<OpError> for Outcome {
    fn from(error: OpError) -> Self {
        match error {
            OpError::Guard(_) | OpError::Tun(TunError::Exists(_)) => Outcome::Conflict(error.to_string()),
            _ => Outcome::Failed(error.to_string()),
        }
    }
}

/// How many links are deleted at a time. A deletion is mostly waiting, outside of the kernel's lock, for every
/// processor to have let go of the link: some 20 ms each, one after another.
const DELETERS: usize = 32;

/// Does `batch`. An operation that fails does not stop the others.
pub(super) fn perform(batch: &[Attributed<LinkOp>], allowed: Option<&AllowedDirectory>) -> Performed {
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
                _ => open(&mut requests).and_then(|requests| on_link(requests, op)),
            };
            performed.outcomes.push(result.map_or_else(Outcome::from, |()| Outcome::Done));
        }
    }
    performed.touched =
        batch.iter().zip(&performed.outcomes).filter_map(|(op, outcome)| untold(&op.op, outcome)).collect();
    performed
}

/// The link of which no notification need have told all that was done. Setting a link up is the last step of
/// making it and is told of, with everything that was done before; deleting it is, too.
fn untold(op: &LinkOp, outcome: &Outcome) -> Option<Which> {
    match op {
        LinkOp::CreateTap { up: true, .. } | LinkOp::DeleteLink { .. } if *outcome == Outcome::Done => None,
        LinkOp::CreateTap { name, .. } => Some(Which::Name(name.clone())),
        LinkOp::ChangeLink { index, .. } | LinkOp::DeleteLink { index, .. } => Some(Which::Index(*index)),
        LinkOp::MakeSocketDirectory { .. } | LinkOp::RemoveSocket { .. } => None,
    }
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
            let result = open(&mut requests).and_then(|requests| on_link(requests, op));
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

fn on_link(requests: &mut Requests, op: &LinkOp) -> Result<(), OpError> {
    match op {
        LinkOp::CreateTap { name, mac, mtu, multi_queue, up, alias } => {
            check_name(name)?;
            let tap = Tap::create(name, *multi_queue)?;
            let index = index_of(requests, name)?;
            dress(requests, index, *mac, *mtu, alias).map_err(netlink(&format!("set up tap {name:?}")))?;
            disable_ipv6(name).map_err(|source| OpError::Ipv6 { name: name.clone(), source })?;
            // From here on the tap stays, whatever becomes of us; until here it goes with `tap`.
            tap.persist()?;
            // Closed before it is up: the kernel takes longer to take its reader from a link that is up.
            drop(tap);
            if *up { set_up(requests, index, true).map_err(netlink(&format!("set tap {name:?} up"))) } else { Ok(()) }
        }
        LinkOp::ChangeLink { index, name, mac, mtu, up, alias } => {
            guard(requests, *index, name, None)?;
            let mut message = LinkMessage::default();
            message.header.index = *index;
            if let Some(mac) = mac {
                message.attributes.push(LinkAttribute::Address(mac.0.to_vec()));
            }
            if let Some(mtu) = mtu {
                message.attributes.push(LinkAttribute::Mtu(*mtu));
            }
            if let Some(alias) = alias {
                message.attributes.push(LinkAttribute::IfAlias(alias.clone()));
            }
            if let Some(up) = up {
                set_up_flag(&mut message, *up);
            }
            requests.set(message).map_err(gone_or(*index, &format!("change link {name:?}")))
        }
        LinkOp::DeleteLink { index, name, alias } => {
            guard(requests, *index, name, Some(alias))?;
            requests.delete(*index).map_err(gone_or(*index, &format!("delete link {name:?}")))
        }
        // `perform` does these itself.
        LinkOp::MakeSocketDirectory { .. } | LinkOp::RemoveSocket { .. } => Ok(()),
    }
}

/// Sees to it that `index` is still what the planner saw.
fn guard(requests: &mut Requests, index: u32, name: &str, alias: Option<&str>) -> Result<(), OpError> {
    let found =
        requests.get(&Which::Index(index)).map_err(netlink(&format!("look at link {name:?} (index {index})")))?;
    check(found.as_ref(), index, name, alias).map_err(OpError::Guard)
}

fn check(found: Option<&Link>, index: u32, name: &str, alias: Option<&str>) -> Result<(), String> {
    let Some(link) = found else { return Err(format!("link {name:?} (index {index}) is gone")) };
    if link.name != name {
        return Err(format!("index {index} is link {:?} and not {name:?}", link.name));
    }
    match (alias, link.alias.as_deref().unwrap_or_default()) {
        (Some(wanted), has) if wanted != has => Err(format!("link {name:?} is marked {has:?} and not {wanted:?}")),
        _ => Ok(()),
    }
}

fn index_of(requests: &mut Requests, name: &str) -> Result<u32, OpError> {
    // The name is ours since TUNSETIFF. If someone (udev) renamed the tap meanwhile, give up: it goes.
    let link = requests.get(&Which::Name(name.to_owned())).map_err(netlink(&format!("find tap {name:?}")))?;
    link.map(|link| link.index).ok_or_else(|| OpError::Guard(format!("tap {name:?} was taken away as it was made")))
}

/// Address, MTU and mark of a new tap.
fn dress(requests: &mut Requests, index: u32, mac: Option<MacAddr>, mtu: u32, alias: &str) -> io::Result<()> {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.attributes.push(LinkAttribute::IfAlias(alias.to_owned()));
    message.attributes.push(LinkAttribute::Mtu(mtu));
    if let Some(mac) = mac {
        message.attributes.push(LinkAttribute::Address(mac.0.to_vec()));
    }
    requests.set(message)
}

fn set_up(requests: &mut Requests, index: u32, up: bool) -> io::Result<()> {
    let mut message = LinkMessage::default();
    message.header.index = index;
    set_up_flag(&mut message, up);
    requests.set(message)
}

fn set_up_flag(message: &mut LinkMessage, up: bool) {
    message.header.flags = if up { LinkFlags::Up } else { LinkFlags::empty() };
    message.header.change_mask = LinkFlags::Up;
}

/// Turns IPv6 off before the tap is up, as os-vif does: the tap may carry the guest's own address, and the host
/// would answer for the guest's link-local address in duplicate address detection.
fn disable_ipv6(name: &str) -> io::Result<()> {
    match fs::write(format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6"), "1") {
        // A kernel without IPv6, or an MTU below 1280, at which the kernel keeps IPv6 off by itself.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// The kernel's rules for names (`dev_valid_name`), and `%`, which `TUNSETIFF` would take as a template.
fn check_name(name: &str) -> Result<(), OpError> {
    let fits = (1..IFNAMSIZ).contains(&name.len()) && name != "." && name != "..";
    if fits && name.bytes().all(|byte| byte.is_ascii_graphic() && !b"/:%".contains(&byte)) {
        Ok(())
    } else {
        Err(OpError::Name(name.to_owned()))
    }
}

fn netlink(what: &str) -> impl FnOnce(io::Error) -> OpError {
    let what = what.to_owned();
    |source| OpError::Netlink { what, source }
}

/// A link that went between guard and write is a conflict and not a failure.
fn gone_or(index: u32, what: &str) -> impl FnOnce(io::Error) -> OpError {
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
        let link = Link {
            index: 4,
            name: "tap1".into(),
            kind: LinkKind::Other(String::new()),
            mac: None,
            mtu: 1500,
            up: true,
            alias: Some("ours".into()),
            master: None,
        };
        let bare = Link { alias: None, ..link.clone() };
        assert_eq!(check(Some(&link), 4, "tap1", Some("ours")), Ok(()));
        assert_eq!(check(Some(&link), 4, "tap1", None), Ok(()));
        assert!(check(None, 4, "tap1", None).unwrap_err().contains("is gone"));
        assert!(check(Some(&link), 4, "tap2", None).unwrap_err().contains("\"tap1\" and not \"tap2\""));
        assert!(check(Some(&link), 4, "tap1", Some("theirs")).unwrap_err().contains("\"ours\" and not \"theirs\""));
        assert!(check(Some(&bare), 4, "tap1", Some("ours")).unwrap_err().contains("\"\" and not \"ours\""));
    }

    #[test]
    fn names_that_the_kernel_would_refuse_or_expand_are_refused() {
        for right in ["tap0", "a", "fifteen-letters", "eth0.100", "tap@x"] {
            assert!(check_name(right).is_ok(), "{right}");
        }
        for wrong in ["", ".", "..", "sixteen-letters-", "a/b", "a:b", "tap%d", "a b", "a\n", "\u{e9}t\u{e9}"] {
            assert!(check_name(wrong).is_err(), "{wrong}");
        }
    }
}
