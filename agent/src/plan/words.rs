//! Operations in words, for `vifd plan` and the log.

use std::fmt;

use crate::backend::links::LinkOp;
use crate::backend::ovs::{OvsOp, StringMap};

impl fmt::Display for LinkOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LinkOp::CreateTap { name, mac, mtu, multi_queue, up, .. } => {
                write!(f, "create tap {name} (mtu {mtu}")?;
                if let Some(mac) = mac {
                    write!(f, ", address {mac}")?;
                }
                if *multi_queue {
                    write!(f, ", multi_queue")?;
                }
                write!(f, ", {})", if *up { "up" } else { "down" })
            }
            LinkOp::ChangeLink { name, mac, mtu, up, alias, .. } => {
                write!(f, "change link {name}:")?;
                if let Some(mac) = mac {
                    write!(f, " address {mac}")?;
                }
                if let Some(mtu) = mtu {
                    write!(f, " mtu {mtu}")?;
                }
                if let Some(up) = up {
                    write!(f, " {}", if *up { "up" } else { "down" })?;
                }
                match alias.as_deref() {
                    Some("") => write!(f, " take the mark off"),
                    Some(_) => write!(f, " put the mark on"),
                    None => Ok(()),
                }
            }
            LinkOp::DeleteLink { name, .. } => write!(f, "delete link {name}"),
            LinkOp::MakeSocketDirectory { path, owner } => {
                write!(f, "make directory {} (mode {:04o})", path.display(), owner.mode)
            }
            LinkOp::RemoveSocket { path } => write!(f, "remove left-over socket {}", path.display()),
        }
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
            OvsOp::DeleteBridge { name, .. } => write!(f, "delete bridge {name}"),
            OvsOp::InsertPort(port) => {
                write!(f, "insert port {} into bridge {}", port.name, port.bridge)?;
                if !port.kind.is_empty() {
                    write!(f, " (type {})", port.kind)?;
                }
                Ok(())
            }
            OvsOp::DeletePort { name, bridge, .. } => write!(f, "delete port {name} from bridge {bridge}"),
            OvsOp::ChangePort { name, external_ids, other_config, .. } => {
                write!(f, "change port {name}:")?;
                map(f, "external_ids", external_ids)?;
                map(f, "other_config", other_config)
            }
            OvsOp::ChangeInterface { name, kind, options, external_ids, mtu_request, .. } => {
                write!(f, "change interface {name}:")?;
                if let Some(kind) = kind {
                    write!(f, " type={kind:?}")?;
                }
                if let Some(mtu) = mtu_request {
                    write!(f, " mtu_request={mtu}")?;
                }
                map(f, "options", options)?;
                map(f, "external_ids", external_ids)
            }
            OvsOp::DeleteQos { uuid, .. } => write!(f, "delete left-over QoS row {uuid}"),
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
