//! Kernel links over rtnetlink and `/dev/net/tun`, and the directory of vhost-user sockets.

use std::path::PathBuf;

use crate::model::{FileOwner, MacAddr};

/// What can be asked of the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkOp {
    /// Makes a persistent tap. It becomes persistent only after the mark is on it, so that a crash in
    /// between leaves nothing.
    CreateTap {
        /// At most 15 bytes.
        name: String,
        /// Link-layer address; the kernel's choice when absent.
        mac: Option<MacAddr>,
        /// Octets.
        mtu: u32,
        /// `IFF_MULTI_QUEUE`.
        multi_queue: bool,
        /// Whether to set it up.
        up: bool,
        /// `IFLA_IFALIAS`: our mark.
        alias: String,
    },
    /// Changes what is `Some`, provided that `index` still has this `name`.
    ChangeLink {
        /// Kernel index.
        index: u32,
        /// Its name, as the guard.
        name: String,
        /// New link-layer address.
        mac: Option<MacAddr>,
        /// New MTU in octets.
        mtu: Option<u32>,
        /// New administrative state.
        up: Option<bool>,
        /// New mark (`IFLA_IFALIAS`); empty to take it off.
        alias: Option<String>,
    },
    /// Deletes a link, provided that `index` still has this `name` and `alias`.
    DeleteLink {
        /// Kernel index.
        index: u32,
        /// Its name, as a guard.
        name: String,
        /// Its mark, as a guard.
        alias: String,
    },
    /// Makes a directory (and those above it, below the allowed one) for vhost-user sockets, or puts its
    /// owner and mode right.
    MakeSocketDirectory {
        /// Absolute path.
        path: PathBuf,
        /// How it shall be. `uid`, `gid` and `mode` are set; the label where there is one.
        owner: FileOwner,
    },
    /// Removes a left-over socket; anything that is not a socket is refused.
    RemoveSocket {
        /// Absolute path.
        path: PathBuf,
    },
}
