//! The host as one VIF's planning sees it: every look is noted, so that what was concluded can be kept until something
//! of it changes. What is kept, and when it is dropped, is `memo`'s business.

use std::path::Path;
use std::sync::Arc;

use super::pipeline::Cookie;
use crate::model::{Bridge, FileOwner, Interface, Link, LinkState, NicState, Observed, OvsState, Port, VifId};

/// Something that a verdict rests on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Look {
    /// Everything of this name: the netdev, the port and the interface.
    Name(Arc<str>),
    /// That a bridge of this name is there. How it is was not looked at.
    Bridge(Arc<str>),
    /// A directory of vhost-user sockets.
    Directory(Arc<Path>),
    /// How things are with the switch of this bridge, and what others have on it.
    Switch(Arc<str>),
    /// Flows of this bridge with this cookie.
    Cookie(Arc<str>, u64),
    /// A meter of this bridge.
    Meter(Arc<str>, u32),
    /// The NICs, whatever of them.
    Nics,
    /// Another VIF: its record, and what is ours of it.
    Vif(VifId),
    /// The VIF wants this disposable bridge or shared link. It rests on nothing, others rest on it.
    Wants(Arc<str>),
}

/// A look at the host on behalf of one VIF. Planning that VIF looks through this and through nothing else, what is
/// our own of it ([`super::inventory`]) aside.
pub(super) struct Sight<'a> {
    links: &'a LinkState,
    ovs: Option<&'a OvsState>,
    nics: Option<&'a NicState>,
    looks: Vec<Look>,
    /// Something was seen of which nothing is noted: what is concluded holds for this plan alone.
    fleeting: bool,
}

impl<'a> Sight<'a> {
    pub(super) fn new(links: &'a LinkState, observed: &'a Observed) -> Self {
        let (ovs, nics) = (observed.ovs.ready(), observed.nics.ready());
        Sight { links, ovs, nics, looks: Vec::new(), fleeting: false }
    }

    pub(super) fn link(&mut self, name: &str) -> Option<&'a Link> {
        self.note(name);
        self.links.links.get(name).map(AsRef::as_ref)
    }

    /// The link of this index, as one that stands on it says. That one is noted, and so is this by its name.
    pub(super) fn link_below(&mut self, index: u32) -> Option<&'a Link> {
        let link = self.links.links.values().find(|link| link.index == index)?;
        self.note(&link.name);
        Some(link)
    }

    pub(super) fn port(&mut self, name: &str) -> Option<&'a Port> {
        self.note(name);
        self.ovs?.ports.get(name).map(AsRef::as_ref)
    }

    pub(super) fn interface(&mut self, name: &str) -> Option<&'a Interface> {
        self.note(name);
        self.ovs?.interfaces.get(name).map(AsRef::as_ref)
    }

    /// The NICs, where they are seen. Everybody is planned anew when that changes.
    pub(super) fn nics(&mut self) -> Option<&'a NicState> {
        self.looks.push(Look::Nics);
        self.nics
    }

    /// The port that has an interface of this name.
    pub(super) fn port_with(&mut self, interface: &str) -> Option<&'a Port> {
        self.fleeting = true;
        self.ovs?.ports.values().find(|port| port.has_interface(interface)).map(AsRef::as_ref)
    }

    /// Whether a bridge is there.
    pub(super) fn has_bridge(&mut self, name: &str) -> bool {
        let there = self.ovs.is_some_and(|ovs| ovs.bridges.contains_key(name));
        if there {
            self.looks.push(Look::Bridge(name.into()));
        }
        // Of one that is not there it matters whether this plan makes it.
        self.fleeting |= !there;
        there
    }

    /// A bridge as it is. No more is noted of it than [`Sight::has_bridge`] does.
    pub(super) fn bridge(&self, name: &str) -> Option<&'a Bridge> {
        self.ovs?.bridges.get(name).map(AsRef::as_ref)
    }

    /// Whether a bridge is one of the userspace datapath. Somebody can change that while it lives (`datapath_type` is
    /// mutable), and no more is noted of a bridge than that it is there.
    pub(super) fn is_userspace(&mut self, bridge: &str) -> bool {
        self.fleeting = true;
        self.ovs.and_then(|ovs| ovs.bridges.get(bridge)).is_some_and(|bridge| bridge.is_userspace())
    }

    /// The datapath type of a bridge that ovs-vswitchd has not made: then its local port, which has its name, has no
    /// number.
    pub(super) fn unmade(&mut self, bridge: &str) -> Option<String> {
        if self.interface(bridge)?.ofport.is_some_and(|ofport| ofport >= 0) {
            return None;
        }
        self.fleeting = true;
        let datapath_type = &self.ovs?.bridges.get(bridge)?.datapath_type;
        Some(if datapath_type.is_empty() { "system".to_owned() } else { datapath_type.to_string() })
    }

    /// Whether ovs-vswitchd has yet to carry out something, such as the deletion of a port.
    pub(super) fn vswitchd_is_behind(&mut self) -> bool {
        self.fleeting = true;
        self.ovs.is_some_and(|ovs| ovs.vswitchd_behind)
    }

    pub(super) fn directory(&mut self, path: &Path) -> Option<&'a FileOwner> {
        self.looks.push(Look::Directory(path.into()));
        self.links.sockets.directories.get(path)
    }

    pub(super) fn switch(&mut self, bridge: &str) {
        self.looks.push(Look::Switch(bridge.into()));
    }

    pub(super) fn cookie(&mut self, bridge: &str, cookie: Cookie) {
        self.looks.push(Look::Cookie(bridge.into(), cookie.0));
    }

    pub(super) fn meter(&mut self, bridge: &str, id: u32) {
        self.looks.push(Look::Meter(bridge.into(), id));
    }

    /// Something was seen that is not noted.
    pub(super) fn glimpse(&mut self) {
        self.fleeting = true;
    }

    /// Whether a netdev has to stay because a port row names it, or might.
    pub(super) fn is_named_by_a_port(&mut self, name: &str) -> bool {
        self.ovs.is_none() || self.interface(name).is_some()
    }

    /// Whether the database is seen at all. Everybody is planned anew when that changes.
    pub(super) fn sees_ovs(&self) -> bool {
        self.ovs.is_some()
    }

    /// Whether ovs-vswitchd runs. Everybody is planned anew when that changes.
    pub(super) fn sees_vswitchd(&self) -> bool {
        self.ovs.is_some_and(|ovs| ovs.vswitchd_alive)
    }

    /// Everything that was looked at, where that is known.
    pub(super) fn into_looks(self) -> Option<Vec<Look>> {
        (!self.fleeting).then_some(self.looks)
    }

    fn note(&mut self, name: &str) {
        let noted = |look: &Look| matches!(look, Look::Name(noted) if **noted == *name);
        if !self.looks.iter().any(noted) {
            self.looks.push(Look::Name(name.into()));
        }
    }
}
