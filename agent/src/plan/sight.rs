//! The host as one VIF's planning sees it: every look is noted, so that what was concluded can be kept for as long
//! as everything that was looked at is as it was. What is kept, and when it is dropped, is `memo`'s business.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::model::{FileOwner, Interface, Link, LinkState, Observed, OvsState, Port};

/// A look at the host on behalf of one VIF. Planning that VIF looks through this and through nothing else, what is
/// our own of it ([`super::inventory`]) aside.
pub(super) struct Sight<'a> {
    pub(super) links: &'a LinkState,
    pub(super) ovs: Option<&'a OvsState>,
    evidence: Evidence,
    /// Something was seen of which nothing is noted: what is concluded holds for this plan alone.
    fleeting: bool,
}

/// What was looked at, and what was there.
#[derive(Debug, Default)]
pub(super) struct Evidence {
    names: Vec<Named>,
    /// Bridges that were there. How they were was not looked at.
    bridges: Vec<String>,
    directories: Vec<(PathBuf, Option<FileOwner>)>,
}

/// Everything that has a name: a netdev, its port and its interface are looked at together.
#[derive(Debug)]
struct Named {
    name: String,
    link: Option<Arc<Link>>,
    port: Option<Arc<Port>>,
    interface: Option<Arc<Interface>>,
}

/// Which tables are the very ones that evidence was last found to hold in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Same {
    links: bool,
    ports: bool,
    interfaces: bool,
    bridges: bool,
    directories: bool,
}

impl<'a> Sight<'a> {
    pub(super) fn new(links: &'a LinkState, ovs: Option<&'a OvsState>) -> Self {
        Sight { links, ovs, evidence: Evidence::default(), fleeting: false }
    }

    pub(super) fn link(&mut self, name: &str) -> Option<&'a Link> {
        self.note(name);
        self.links.links.get(name).map(AsRef::as_ref)
    }

    pub(super) fn port(&mut self, name: &str) -> Option<&'a Port> {
        self.note(name);
        self.ovs?.ports.get(name).map(AsRef::as_ref)
    }

    pub(super) fn interface(&mut self, name: &str) -> Option<&'a Interface> {
        self.note(name);
        self.ovs?.interfaces.get(name).map(AsRef::as_ref)
    }

    /// The port that has an interface of this name.
    pub(super) fn port_with(&mut self, interface: &str) -> Option<&'a Port> {
        self.fleeting = true;
        self.ovs?.ports.values().find(|port| port.interfaces.contains(interface)).map(AsRef::as_ref)
    }

    /// Whether a bridge is there.
    pub(super) fn has_bridge(&mut self, name: &str) -> bool {
        let there = self.ovs.is_some_and(|ovs| ovs.bridges.contains_key(name));
        // Of one that is not there it matters whether this plan makes it.
        self.fleeting |= !there;
        if there {
            self.evidence.bridges.push(name.to_owned());
        }
        there
    }

    pub(super) fn directory(&mut self, path: &Path) -> Option<&'a FileOwner> {
        let owner = self.links.sockets.directories.get(path);
        self.evidence.directories.push((path.to_path_buf(), owner.cloned()));
        owner
    }

    /// Whether a netdev has to stay because a port row names it, or might.
    pub(super) fn is_named_by_a_port(&mut self, name: &str) -> bool {
        self.ovs.is_none() || self.interface(name).is_some()
    }

    /// Everything that was looked at, where that is known.
    pub(super) fn into_evidence(self) -> Option<Evidence> {
        (!self.fleeting).then_some(self.evidence)
    }

    fn note(&mut self, name: &str) {
        if self.evidence.names.iter().any(|named| named.name == name) {
            return;
        }
        self.evidence.names.push(Named {
            name: name.to_owned(),
            link: self.links.links.get(name).cloned(),
            port: self.ovs.and_then(|ovs| ovs.ports.get(name)).cloned(),
            interface: self.ovs.and_then(|ovs| ovs.interfaces.get(name)).cloned(),
        });
    }
}

impl Evidence {
    /// Whether everything that was looked at is as it was.
    pub(super) fn holds(&self, links: &LinkState, ovs: &OvsState, same: Same) -> bool {
        fn is<T>(noted: Option<&Arc<T>>, there: Option<&Arc<T>>) -> bool {
            noted.map(Arc::as_ptr) == there.map(Arc::as_ptr)
        }
        let named = |named: &Named| {
            let Named { name, link, port, interface } = named;
            (same.links || is(link.as_ref(), links.links.get(name)))
                && (same.ports || is(port.as_ref(), ovs.ports.get(name)))
                && (same.interfaces || is(interface.as_ref(), ovs.interfaces.get(name)))
        };
        let directory = |(path, owner): &(PathBuf, _)| links.sockets.directories.get(path) == Option::as_ref(owner);
        self.names.iter().all(named)
            && (same.bridges || self.bridges.iter().all(|name| ovs.bridges.contains_key(name)))
            && (same.directories || self.directories.iter().all(directory))
    }
}

impl Same {
    /// Compares two views by identity.
    pub(super) fn of(before: &Observed, now: &Observed) -> Option<Same> {
        let (Some(links), Some(ovs)) = (before.links.ready(), before.ovs.ready()) else { return None };
        let (Some(links_now), Some(ovs_now)) = (now.links.ready(), now.ovs.ready()) else { return None };
        // Whether the switch runs is everybody's business.
        (ovs.vswitchd_alive == ovs_now.vswitchd_alive).then(|| Same {
            links: links.links.is(&links_now.links),
            ports: ovs.ports.is(&ovs_now.ports),
            interfaces: ovs.interfaces.is(&ovs_now.interfaces),
            bridges: ovs.bridges.is(&ovs_now.bridges),
            directories: links.sockets.directories == links_now.sockets.directories,
        })
    }

    /// Whether what is ours is the same as well, QoS rows aside.
    pub(super) fn all(self) -> bool {
        self.links && self.ports && self.interfaces && self.bridges
    }
}
