//! `VIFVHostUser` on an Open vSwitch port: `dpdkvhostuser` where the guest connects, `dpdkvhostuserclient` where
//! the guest listens.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::{
    Blueprint, Isolation, Unbuildable, WantedBridge, WantedPort, datapath_type, interface_id, interface_ids,
    is_trunk_bridge, mtu,
};
use crate::backend::ovs::StringMap;
use crate::model::{OpenVSwitchProfile, VhostUserMode, Vif, cut_name};
use crate::plan::Settings;
use crate::record::validate::is_below;

pub(super) fn blueprint(
    vif: &Vif,
    path: &str,
    mode: VhostUserMode,
    bridge: &str,
    profile: &OpenVSwitchProfile,
    settings: &Settings,
) -> Result<Blueprint, Unbuildable> {
    let ids = interface_ids(vif, interface_id(vif, profile), bridge);
    let isolation = (settings.isolate && !is_trunk_bridge(bridge)).then_some(Isolation::Trunk);
    let (port, socket, socket_dirs) = port(vif, path, mode, bridge, ids, isolation, settings)?;
    Ok(Blueprint {
        socket_dirs,
        bridges: vec![WantedBridge {
            name: bridge.to_owned(),
            datapath_type: datapath_type(profile, "netdev"),
            disposable: is_trunk_bridge(bridge),
        }],
        ports: vec![port],
        socket: Some(socket),
        ..Blueprint::default()
    })
}

/// The guest's port on `bridge`, its socket, and the directory that the guest makes that in.
pub(super) fn port(
    vif: &Vif,
    path: &str,
    mode: VhostUserMode,
    bridge: &str,
    ids: StringMap,
    isolation: Option<Isolation>,
    settings: &Settings,
) -> Result<(WantedPort, PathBuf, Vec<PathBuf>), Unbuildable> {
    let socket = allowed(path, settings)?;
    let (kind, options, socket_dirs) = match mode {
        VhostUserMode::Client => ("dpdkvhostuser", StringMap::new(), Vec::new()),
        VhostUserMode::Server => (
            "dpdkvhostuserclient",
            BTreeMap::from([("vhost-server-path".to_owned(), path.to_owned())]),
            socket.parent().map(Path::to_path_buf).into_iter().collect(),
        ),
    };
    let port = WantedPort {
        options,
        ids,
        mtu_request: Some(mtu(vif, settings)),
        isolation,
        ..WantedPort::new(bridge, cut_name("vhu", vif.id), kind)
    };
    Ok((port, socket, socket_dirs))
}

/// `path`, when it is below the directory of sockets.
fn allowed(path: &str, settings: &Settings) -> Result<PathBuf, Unbuildable> {
    let socket = PathBuf::from(path);
    if is_below(&socket, &settings.socket_dir) {
        Ok(socket)
    } else {
        Err(Unbuildable {
            field: "vif.path".to_owned(),
            reason: format!("{path} is not below {} ([vhostuser] dir)", settings.socket_dir.display()),
        })
    }
}
