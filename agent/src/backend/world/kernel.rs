//! The kernel's side of a world in memory.

use std::sync::Arc;

use super::{Refusal, World};
use crate::backend::Outcome;
use crate::backend::links::{LinkChange, LinkOp, NewKind, NewLink};
use crate::model::{DeviceOwner, FileOwner, Link, LinkKind, MacAddr};

impl World {
    /// Somebody other than vifd makes a link.
    pub fn add_link(&mut self, name: &str, kind: LinkKind, mac: Option<MacAddr>) {
        self.serial += 1;
        let index = u32::try_from(self.serial).unwrap_or(u32::MAX);
        // As devtmpfs makes it.
        let device = matches!(kind, LinkKind::Macvtap { .. }).then_some(DeviceOwner { uid: 0, gid: 0, mode: 0o600 });
        let link = Link { mac, device, ..Link::new(index, name, kind) };
        self.kernel.links.insert(name.to_owned(), Arc::new(link));
    }

    /// A link goes, with what cannot be without it: the other end of a veth, and what stands on it. What was in it as in
    /// a bridge is free.
    pub fn remove_link(&mut self, name: &str) {
        let Some(link) = self.kernel.links.remove(name) else { return };
        let of = |held: Option<u32>| held == Some(link.index);
        let others: Vec<Arc<Link>> = self.kernel.links.values().cloned().collect();
        for other in others {
            if of(other.lower) {
                self.remove_link(&other.name);
            } else if of(other.master)
                && let Some(other) = self.kernel.links.get_mut(&other.name)
            {
                Arc::make_mut(other).master = None;
            }
        }
        self.follow_names();
    }

    /// Somebody gives a link another name.
    pub fn rename_link(&mut self, from: &str, to: &str) {
        if let Some(mut link) = self.kernel.links.remove(from) {
            Arc::make_mut(&mut link).name = to.to_owned();
            self.kernel.links.insert(to.to_owned(), link);
        }
        self.follow_names();
    }

    /// Does one kernel operation.
    pub fn apply_link(&mut self, op: &LinkOp) -> Outcome {
        let outcome = self.try_link(op).err().unwrap_or(Outcome::Done);
        if outcome == Outcome::Done {
            self.writes += 1;
        }
        outcome
    }

    fn try_link(&mut self, op: &LinkOp) -> Result<(), Refusal> {
        match op {
            LinkOp::CreateLink { link, kind } => self.create_link(link, kind)?,
            LinkOp::ChangeLink { index, name, change } => {
                self.is_still(*index, name)?;
                self.change_link(name, change)?;
            }
            LinkOp::DeleteLink { index, name, alias } => {
                self.is_still(*index, name)?;
                if self.link(name)?.alias.as_deref().unwrap_or_default() != alias {
                    return Err(Outcome::Conflict(format!("{name} is another link now")));
                }
                self.remove_link(name);
            }
            LinkOp::MoveUplink { interface, bridge, mtu, join } => {
                self.is_still(interface.0, &interface.1)?;
                self.is_still(bridge.0, &bridge.1)?;
                let (from, to) = if *join { (interface, bridge) } else { (bridge, interface) };
                let addresses = std::mem::take(&mut self.link(&from.1)?.addresses);
                let to = self.link(&to.1)?;
                to.addresses.extend(addresses);
                to.addresses.sort();
                to.addresses.dedup();
                let interface = self.link(&interface.1)?;
                interface.master = join.then_some(bridge.0);
                interface.up = true;
                interface.mtu = mtu.map_or(interface.mtu, |mtu| interface.mtu.max(mtu));
            }
            LinkOp::OwnDevice { index, name, access } => {
                self.is_still(*index, name)?;
                let link = self.link(name)?;
                let device = link.device.as_mut().ok_or_else(|| Outcome::Conflict(format!("{name} has no device")))?;
                device.uid = access.uid.unwrap_or(device.uid);
                device.gid = access.gid.unwrap_or(device.gid);
                device.mode = access.mode.unwrap_or(device.mode);
            }
            LinkOp::MakeSocketDirectory { path, owner } => {
                self.kernel.sockets.directories.insert(path.clone(), owner.clone());
            }
            LinkOp::RemoveSocket { path } => {
                self.kernel.sockets.sockets.remove(path);
            }
        }
        Ok(())
    }

    fn create_link(&mut self, link: &NewLink, kind: &NewKind) -> Result<(), Refusal> {
        let below = |world: &mut World, on: &str| world.link(on).map(|link| link.index);
        let (seen, lower) = match kind {
            NewKind::Tap { multi_queue } => (LinkKind::Tap { multi_queue: *multi_queue, persistent: true }, None),
            NewKind::Bridge(config) => (LinkKind::Bridge(*config), None),
            NewKind::Veth(_) => (LinkKind::Veth, None),
            NewKind::Vlan { on, id } => (LinkKind::Vlan { id: *id }, Some(below(self, on)?)),
            NewKind::Macvtap { on, mode } => (LinkKind::Macvtap { mode: Some(*mode) }, Some(below(self, on)?)),
        };
        let index = self.put_link(link, seen.clone())?;
        self.link(&link.name)?.lower = lower;
        if let NewKind::Veth(peer) = kind {
            let other = self.put_link(peer, seen)?;
            self.link(&link.name)?.lower = Some(other);
            self.link(&peer.name)?.lower = Some(index);
        }
        Ok(())
    }

    fn put_link(&mut self, new: &NewLink, kind: LinkKind) -> Result<u32, Refusal> {
        let NewLink { name, mac, mtu, up, promiscuous, master, alias } = new;
        if let Some(error) = self.refused.get(name) {
            return Err(Outcome::Failed(error.clone()));
        }
        if self.kernel.links.contains_key(name) {
            return Err(Outcome::Conflict(format!("{name} exists")));
        }
        self.add_link(name, kind, *mac);
        let change = LinkChange {
            mtu: *mtu,
            up: Some(*up),
            promiscuous: Some(*promiscuous),
            master: master.clone(),
            alias: Some(alias.clone()),
            ..LinkChange::default()
        };
        self.change_link(name, &change)?;
        Ok(self.link(name)?.index)
    }

    fn change_link(&mut self, name: &str, change: &LinkChange) -> Result<(), Refusal> {
        let LinkChange { rename, mac, mtu, up, promiscuous, master, unattached, bridge, alias } = change;
        let master = match master {
            Some(master) => match self.link(master)? {
                Link { index, kind: LinkKind::Bridge(_), .. } => Some(*index),
                _ => return Err(Outcome::Conflict(format!("{master} is no bridge"))),
            },
            None => None,
        };
        let link = self.link(name)?;
        if *unattached && link.master.is_some() {
            return Err(Outcome::Conflict(format!("{name} is in a bridge already")));
        }
        link.mac = mac.or(link.mac);
        link.mtu = mtu.unwrap_or(link.mtu);
        link.up = up.unwrap_or(link.up);
        link.promiscuous = promiscuous.unwrap_or(link.promiscuous);
        link.master = master.or(link.master);
        if let Some(alias) = alias {
            link.alias = Some(alias.clone()).filter(|alias| !alias.is_empty());
        }
        if let Some(config) = bridge {
            link.kind = LinkKind::Bridge(*config);
        }
        if let Some(rename) = rename {
            if self.kernel.links.contains_key(rename) {
                return Err(Outcome::Conflict(format!("{rename} exists")));
            }
            self.rename_link(name, rename);
        }
        Ok(())
    }

    fn is_still(&mut self, index: u32, name: &str) -> Result<(), Refusal> {
        match self.link(name)?.index == index {
            true => Ok(()),
            false => Err(Outcome::Conflict(format!("{name} is another link now"))),
        }
    }

    fn link(&mut self, name: &str) -> Result<&mut Link, Refusal> {
        let link = self.kernel.links.get_mut(name).ok_or_else(|| Outcome::Conflict(format!("no link {name}")))?;
        Ok(Arc::make_mut(link))
    }

    /// Somebody gives the device of a link an owner or a mode, or takes it away.
    pub fn set_device(&mut self, name: &str, device: Option<DeviceOwner>) {
        if let Some(link) = self.kernel.links.get_mut(name) {
            Arc::make_mut(link).device = device;
        }
    }

    /// Makes the directory of vhost-user sockets.
    pub fn add_socket_dir(&mut self, path: &std::path::Path) {
        let owner = FileOwner { uid: 0, gid: 0, mode: 0o755, label: None };
        self.kernel.sockets.directories.insert(path.to_path_buf(), owner);
    }
}
