//! Operations in words, for `vifd plan` and the log.

use std::fmt;

use crate::backend::links::{LinkChange, LinkOp, NewKind, NewLink};
use crate::backend::ovs::{OvsOp, StringMap};
use crate::model::{BridgeConfig, DeviceAccess, device_name};

impl fmt::Display for LinkOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LinkOp::CreateLink { link, kind } => create(f, link, kind),
            LinkOp::ChangeLink { name, change, .. } => {
                write!(f, "change link {name}:")?;
                changes(f, change)
            }
            LinkOp::MoveUplink { interface, bridge, join: true, .. } => {
                write!(f, "put {} into bridge {}, which takes over its addresses and routes", interface.1, bridge.1)
            }
            LinkOp::MoveUplink { interface, bridge, join: false, .. } => {
                write!(f, "take {} out of bridge {} and give it back its addresses and routes", interface.1, bridge.1)
            }
            LinkOp::DeleteLink { name, .. } => write!(f, "delete link {name}"),
            LinkOp::OwnDevice { index, name, access } => {
                write!(f, "change {}, the device of {name}:", device_name(*index))?;
                accesses(f, access)
            }
            LinkOp::MakeSocketDirectory { path, owner } => {
                write!(f, "make directory {} (mode {:04o})", path.display(), owner.mode)
            }
            LinkOp::RemoveSocket { path } => write!(f, "remove left-over socket {}", path.display()),
        }
    }
}

fn create(f: &mut fmt::Formatter<'_>, link: &NewLink, kind: &NewKind) -> fmt::Result {
    let NewLink { name, mac, mtu, up, promiscuous: _, master, alias: _ } = link;
    write!(f, "create {} {name} (", kind.name())?;
    match kind {
        NewKind::Tap { .. } => {}
        NewKind::Bridge(config) => {
            settings(f, config)?;
            write!(f, ", ")?;
        }
        NewKind::Veth(peer) => write!(f, "peer {}, ", peer.name)?,
        NewKind::Vlan { on, id } => write!(f, "id {id} on {on}, ")?,
        NewKind::Macvtap { on, mode } => write!(f, "{} on {on}, ", mode.name())?,
    }
    if let Some(mtu) = mtu {
        write!(f, "mtu {mtu}, ")?;
    }
    if let Some(mac) = mac {
        write!(f, "address {mac}, ")?;
    }
    if let NewKind::Tap { multi_queue: true } = kind {
        write!(f, "multi_queue, ")?;
    }
    if let Some(master) = master {
        write!(f, "in bridge {master}, ")?;
    }
    write!(f, "{})", if *up { "up" } else { "down" })
}

fn accesses(f: &mut fmt::Formatter<'_>, access: &DeviceAccess) -> fmt::Result {
    let DeviceAccess { uid, gid, mode } = access;
    if let Some(uid) = uid {
        write!(f, " owner {uid}")?;
    }
    if let Some(gid) = gid {
        write!(f, " group {gid}")?;
    }
    if let Some(mode) = mode {
        write!(f, " mode {mode:04o}")?;
    }
    Ok(())
}

fn settings(f: &mut fmt::Formatter<'_>, config: &BridgeConfig) -> fmt::Result {
    let BridgeConfig { ageing_time, forward_delay, stp, multicast_snooping } = config;
    write!(f, "ageing_time {ageing_time}, forward_delay {forward_delay}, ")?;
    write!(f, "stp_state {}, mcast_snooping {}", u8::from(*stp), u8::from(*multicast_snooping))
}

fn changes(f: &mut fmt::Formatter<'_>, change: &LinkChange) -> fmt::Result {
    let LinkChange { rename, mac, mtu, up, promiscuous, master, unattached: _, bridge, alias } = change;
    if let Some(rename) = rename {
        write!(f, " rename to {rename}")?;
    }
    if let Some(mac) = mac {
        write!(f, " address {mac}")?;
    }
    if let Some(mtu) = mtu {
        write!(f, " mtu {mtu}")?;
    }
    if let Some(up) = up {
        write!(f, " {}", if *up { "up" } else { "down" })?;
    }
    if let Some(promiscuous) = promiscuous {
        write!(f, " promisc {}", if *promiscuous { "on" } else { "off" })?;
    }
    if let Some(master) = master {
        write!(f, " into bridge {master}")?;
    }
    if let Some(config) = bridge {
        write!(f, " ")?;
        settings(f, config)?;
    }
    match alias.as_deref() {
        Some("") => write!(f, " take the mark off"),
        Some(_) => write!(f, " put the mark on"),
        None => Ok(()),
    }
}

impl fmt::Display for OvsOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OvsOp::InsertBridge { name, datapath_type, secure, .. } => {
                let secure = if *secure { ", fail_mode secure" } else { "" };
                write!(f, "insert bridge {name} (datapath_type {datapath_type}{secure})")
            }
            OvsOp::SecureBridge { name, .. } => {
                write!(f, "set fail_mode of bridge {name} to secure, without in-band control")
            }
            OvsOp::ConfigureSwitch { other_config } => {
                f.write_str("set other_config of Open vSwitch:")?;
                other_config.iter().try_for_each(|(key, value)| write!(f, " {key}={value}"))
            }
            OvsOp::DeleteBridge { name, .. } => write!(f, "delete bridge {name}"),
            OvsOp::InsertPort(port) => {
                write!(f, "insert port {} into bridge {}", port.name, port.bridge)?;
                if !port.kind.is_empty() {
                    write!(f, " (type {})", port.kind)?;
                }
                Ok(())
            }
            OvsOp::DeletePort { name, bridge, .. } => write!(f, "delete port {name} from bridge {bridge}"),
            OvsOp::ChangePort { name, external_ids, other_config, access, .. } => {
                write!(f, "change port {name}:")?;
                if let Some(vlan) = access {
                    write!(f, " tag={vlan} vlan_mode=access")?;
                }
                map(f, "external_ids", external_ids)?;
                map(f, "other_config", other_config)
            }
            OvsOp::ChangeInterface { name, kind, options, external_ids, mac, mtu_request, .. } => {
                write!(f, "change interface {name}:")?;
                if let Some(kind) = kind {
                    write!(f, " type={kind:?}")?;
                }
                if let Some(mac) = mac {
                    write!(f, " mac={mac}")?;
                }
                if let Some(mtu) = mtu_request {
                    write!(f, " mtu_request={mtu}")?;
                }
                map(f, "options", options)?;
                map(f, "external_ids", external_ids)
            }
            OvsOp::DeleteQos { uuid, .. } => write!(f, "delete left-over QoS row {uuid}"),
            OvsOp::Mark { table, name, external_ids, .. } => {
                write!(f, "change {table:?} {name}:")?;
                map(f, "external_ids", external_ids)
            }
            OvsOp::Unmark { table, name, keys, .. } => {
                write!(f, "change {table:?} {name}:")?;
                keys.iter().try_for_each(|key| write!(f, " remove external_ids:{key}"))
            }
        }
    }
}

fn map(f: &mut fmt::Formatter<'_>, column: &str, entries: &StringMap) -> fmt::Result {
    entries.iter().try_for_each(|(key, value)| write!(f, " {column}:{key}={value}"))
}
