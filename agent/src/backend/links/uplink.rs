//! An interface joins a bridge, which takes over its addresses and routes, or leaves it. What is asked of the kernel for
//! each is made in `transfer.rs`; here is the order.
//!
//! ```text
//!  join: addresses on the bridge ─► the interface into it ─► routes over the bridge ─► routes, then addresses, off the interface
//!  leave: addresses on the interface ─► routes over it ─► routes, then addresses, off the bridge ─► the interface out of it
//! ```
//!
//! * A route over the new device is put beside the one over the old before that goes, so one is there at every moment.
//!   Routes go before the addresses of their device do: with the last address the kernel takes all that are left.
//! * Every step does nothing where it was done before. What the planner sees of it is whether the interface is in the bridge
//!   and whether it has addresses, so coming out of the bridge is the last step, and its addresses go last when it joins.
//! * A bridge hears for its ports, so what was learnt of neighbours goes along: asked anew, the answer would come to the
//!   device that has not asked.

use std::fs;
use std::io;
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use rtnetlink::packet_core::{NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE, NLM_F_REPLACE};
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};

use super::make::{set_flag, write_setting};
use super::perform::{OpError, gone_or, netlink};
use super::request::{Requests, Which};
use super::transfer::{self, AF_INET6, Address, Route, Way};
use crate::model::Link;

/// Types of messages (`linux/rtnetlink.h`).
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_GETADDR: u16 = 22;
const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const RTM_GETROUTE: u16 = 26;
const RTM_NEWNEIGH: u16 = 28;
const RTM_GETNEIGH: u16 = 30;
/// Octets that a question for a list begins with: `struct ifaddrmsg`, `struct rtmsg`, `struct ndmsg`. All families.
const IFADDRMSG: [u8; 8] = [0; 8];
const RTMSG: [u8; 12] = [0; 12];
const NDMSG: [u8; 12] = [0; 12];
/// For the kernel to begin to use what was set just now, which it does on another thread: milliseconds.
const BEGIN: Duration = Duration::from_secs(2);

/// See `LinkOp::MoveUplink`.
///
/// The interface's MTU is raised to `mtu` where it is lower, and never lowered: others may stand on it. A bridge has
/// IPv6 off until it gets an address of that family; then it is on, without autoconfiguration. Addresses that have a
/// lifetime keep what is left of it. An address of IPv6 that was looked for is not looked for again (`nodad`), which is taken
/// back at once, and stays if a crash comes between.
pub(super) fn move_uplink(
    requests: &mut Requests,
    interface: &(u32, String),
    bridge: &(u32, String),
    mtu: Option<u32>,
    join: bool,
) -> Result<(), OpError> {
    let what = if join { "take" } else { "let" };
    let out_of = if join { "into" } else { "out of" };
    let what = format!("{what} {:?} {out_of} bridge {:?}", interface.1, bridge.1);
    let (port, master) = (look(requests, interface, &what)?, look(requests, bridge, &what)?);
    match port.master {
        Some(other) if other != bridge.0 => {
            return Err(OpError::Guard(format!("cannot {what}: it is in another bridge or bond")));
        }
        _ => {}
    }
    ready(requests, &port, mtu.filter(|_| join), &what)?;
    let ends = ((interface.0, interface.1.as_str()), (bridge.0, bridge.1.as_str()));
    let way = if join { Way { from: ends.0, to: ends.1 } } else { Way { from: ends.1, to: ends.0 } };
    if join {
        ready(requests, &master, None, &what)?;
        keep_address(requests, &master, &port, &what)?;
    }
    let addresses = addresses(requests, &way, &what)?;
    if addresses.iter().any(|address| address.family == AF_INET6)
        || !routes(requests, &way, AF_INET6, &what)?.is_empty()
    {
        with_ipv6(way.to.1, join)?;
    }
    add_addresses(requests, &addresses, &way, &what)?;
    if join && port.master.is_none() {
        if let Err(error) = enslave(requests, interface.0, bridge.0, &what) {
            // It has something else on it, say: what the bridge has for it would be there twice.
            for address in addresses.iter().rev() {
                let _ = requests.tell(RTM_DELADDR, NLM_F_ACK, &address.undo);
            }
            return Err(error);
        }
        wait(|| {
            Ok(fs::read_to_string(format!("/sys/class/net/{}/operstate", bridge.1))
                .map_or(true, |state| state != "down\n"))
        })
        .map_err(netlink(&what))?;
    }
    take_neighbours(requests, &way, &what)?;
    move_routes(requests, &way, &what)?;
    // The kernel takes the secondary ones with the first: from the last to the first, each is taken for itself.
    for address in addresses.iter().rev() {
        let removed = requests.tell(RTM_DELADDR, NLM_F_ACK, &address.remove);
        unless(removed, &[Errno::EADDRNOTAVAIL]).map_err(gone_or(way.from.0, &what))?;
    }
    if !join {
        if port.master.is_some() {
            enslave(requests, interface.0, 0, &what)?;
        }
        // As it was made.
        write_setting("ipv6", &bridge.1, "disable_ipv6", "1")?;
    }
    Ok(())
}

fn look(requests: &mut Requests, (index, name): &(u32, String), what: &str) -> Result<Link, OpError> {
    let link = requests.get(&Which::Index(*index)).map_err(netlink(what))?;
    link.ok_or_else(|| OpError::Guard(format!("cannot {what}: {name:?} is gone")))
}

/// Sets a link up, and its MTU to at least `mtu`.
fn ready(requests: &mut Requests, link: &Link, mtu: Option<u32>, what: &str) -> Result<(), OpError> {
    let mut message = LinkMessage::default();
    message.header.index = link.index;
    message.attributes.extend(mtu.filter(|mtu| *mtu > link.mtu).map(LinkAttribute::Mtu));
    if !link.up {
        set_flag(&mut message, LinkFlags::Up, true);
    }
    if message.attributes.is_empty() && link.up {
        return Ok(());
    }
    requests.set(message).map_err(gone_or(link.index, what))
}

/// Gives a bridge the link-layer address of its uplink, by which the neighbours know the host. Left to itself a bridge has the
/// least of its ports' addresses: with a guest's device it may be another, and nobody would find the host until he asks anew.
fn keep_address(requests: &mut Requests, bridge: &Link, interface: &Link, what: &str) -> Result<(), OpError> {
    let Some(mac) = interface.mac else { return Ok(()) };
    let mut message = LinkMessage::default();
    message.header.index = bridge.index;
    // Also where it is that already: one that was set stays.
    message.attributes.push(LinkAttribute::Address(mac.0.to_vec()));
    requests.set(message).map_err(gone_or(bridge.index, what))
}

/// Turns IPv6 on; on a bridge without addresses that nobody gave it.
fn with_ipv6(name: &str, bridge: bool) -> Result<(), OpError> {
    if bridge {
        for (setting, value) in [("accept_ra", "0"), ("autoconf", "0"), ("addr_gen_mode", "1")] {
            write_setting("ipv6", name, setting, value)?;
        }
    }
    write_setting("ipv6", name, "disable_ipv6", "0")
}

fn addresses(requests: &mut Requests, way: &Way<'_>, what: &str) -> Result<Vec<Address>, OpError> {
    let listed = requests.list_of(RTM_GETADDR, RTM_NEWADDR, &IFADDRMSG).map_err(netlink(what))?;
    Ok(listed.iter().filter_map(|message| transfer::address(message, way)).collect())
}

/// Routes of every table.
fn routes(requests: &mut Requests, way: &Way<'_>, family: u8, what: &str) -> Result<Vec<Route>, OpError> {
    let mut question = RTMSG;
    question[0] = family;
    let listed = requests.list_of(RTM_GETROUTE, RTM_NEWROUTE, &question).map_err(netlink(what))?;
    let routes = listed.iter().filter_map(|message| transfer::route(message, way));
    Ok(routes.filter(|route| family == 0 || route.family == family).collect())
}

/// Puts the addresses on the target, in their order: which is the first of a network, and which a secondary one, follows
/// from it.
fn add_addresses(requests: &mut Requests, addresses: &[Address], way: &Way<'_>, what: &str) -> Result<(), OpError> {
    if addresses.iter().any(|address| address.expires) {
        tracing::warn!(
            from = way.from.1,
            to = way.to.1,
            "addresses move that have a lifetime: whoever renews them has to do so on the other device from now on"
        );
    }
    let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE;
    for address in addresses {
        requests.tell(RTM_NEWADDR, flags, &address.add).map_err(gone_or(way.to.0, what))?;
    }
    for settle in addresses.iter().filter_map(|address| address.settle.as_ref()) {
        requests.tell(RTM_NEWADDR, flags, settle).map_err(gone_or(way.to.0, what))?;
    }
    Ok(())
}

/// What is known of neighbours. Nothing depends on it but how soon the first packet gets there.
fn take_neighbours(requests: &mut Requests, way: &Way<'_>, what: &str) -> Result<(), OpError> {
    let listed = requests.list_of(RTM_GETNEIGH, RTM_NEWNEIGH, &NDMSG).map_err(netlink(what))?;
    for neighbour in listed.iter().filter_map(|message| transfer::neighbour(message, way)) {
        if let Err(error) = requests.tell(RTM_NEWNEIGH, NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE, &neighbour) {
            tracing::debug!(%error, "a neighbour has to be found anew");
        }
    }
    Ok(())
}

fn move_routes(requests: &mut Requests, way: &Way<'_>, what: &str) -> Result<(), OpError> {
    let mut left = routes(requests, way, 0, what)?;
    // A gateway is refused until the route to it is there: that came with its address, unless the address has none
    // (`IFA_F_NOPREFIXROUTE`), and then it is among these and goes through in the next round.
    let mut added = Vec::with_capacity(left.len());
    while !left.is_empty() {
        let mut refused = Vec::new();
        let mut first = None;
        let before = left.len();
        for route in left {
            let answer = requests.tell(RTM_NEWROUTE, NLM_F_ACK | NLM_F_CREATE | NLM_F_APPEND, &route.add);
            match unless(answer, &[Errno::EEXIST]) {
                Ok(()) => added.push(route),
                Err(error) => {
                    first.get_or_insert(error);
                    refused.push(route);
                }
            }
        }
        left = refused;
        if let Some(error) = first.filter(|_| left.len() == before) {
            return Err(gone_or(way.to.0, &format!("{what}: add a route"))(error));
        }
    }
    for route in &added {
        let removed = requests.tell(RTM_DELROUTE, NLM_F_ACK, &route.remove);
        unless(removed, &[Errno::ESRCH]).map_err(gone_or(way.from.0, what))?;
    }
    Ok(())
}

/// Into the bridge of this index; out of any with 0.
fn enslave(requests: &mut Requests, interface: u32, bridge: u32, what: &str) -> Result<(), OpError> {
    let mut message = LinkMessage::default();
    message.header.index = interface;
    message.attributes.push(LinkAttribute::Controller(bridge));
    requests.set(message).map_err(gone_or(interface, what))
}

/// An answer that says no more than that it was done before is none.
fn unless(answer: io::Result<()>, done: &[Errno]) -> io::Result<()> {
    answer.or_else(|error| match error.raw_os_error() {
        Some(code) if done.contains(&Errno::from_raw(code)) => Ok(()),
        _ => Err(error),
    })
}

/// Waits for something that the kernel does by itself, and goes on without it if it does not come.
fn wait(mut is: impl FnMut() -> io::Result<bool>) -> io::Result<()> {
    let end = Instant::now() + BEGIN;
    while !is()? && Instant::now() < end {
        thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}
