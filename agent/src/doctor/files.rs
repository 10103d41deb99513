//! Directories: records, state, vhost-user sockets.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::Arc;

use nix::unistd::{AccessFlags, access};

use super::Finding;
use crate::config::Config;
use crate::model::{VhostUserMode, VifKind};
use crate::plan::Settings;
use crate::plan::blueprint::{Layout, WantedFunction, blueprint};
use crate::record;

/// What the records that are there will need of the host.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    /// Types of Open vSwitch interfaces beyond the ones that every switch has.
    pub(super) interface_types: BTreeSet<&'static str>,
    /// Whether there are vhost-user VIFs.
    pub(super) vhost_user: bool,
    /// Whether there are VIFs whose flows may be in hardware.
    pub(super) offload: bool,
    /// The functions of NICs that VIFs are to have.
    pub(super) functions: Vec<WantedFunction>,
}

pub(super) struct Records {
    pub(super) finding: Finding,
    pub(super) wanted: Wanted,
}

/// The directory of records, and what is in it.
pub(super) fn records(config: &Config) -> Records {
    let path = &config.source.path;
    let mut wanted = Wanted::default();
    // What is not known is told elsewhere, and then there are no functions.
    let finding = records_at(path, config.settings().ok().as_ref(), &mut wanted);
    Records { finding, wanted }
}

fn records_at(path: &Path, settings: Option<&Settings>, wanted: &mut Wanted) -> Finding {
    let name = "records";
    let shown = path.display();
    let make = format!("make it: install -d -m 0750 {shown}; or correct source.path in the configuration");
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) => return Finding::fail(name, format!("{shown} cannot be read: {error}"), make),
    };
    let (mut good, mut bad) = (0, Vec::new());
    let mut vifs = BTreeMap::new();
    for entry in entries.filter_map(Result::ok) {
        let file_name = entry.file_name().to_string_lossy().into_owned();
        if !file_name.ends_with(".json") || file_name.starts_with('.') {
            continue;
        }
        match fs::read(entry.path())
            .map_err(|error| error.to_string())
            .and_then(|bytes| record::decode(&bytes).map_err(|refused| refused.to_string()))
        {
            Ok(record) => {
                good += 1;
                if let VifKind::VHostUser { mode, .. } = record.vif.kind {
                    wanted.vhost_user = true;
                    wanted.interface_types.insert(match mode {
                        VhostUserMode::Client => "dpdkvhostuser",
                        VhostUserMode::Server => "dpdkvhostuserclient",
                    });
                }
                let blueprint = settings.and_then(|of| blueprint(&record.vif, Layout::Plain, of).ok());
                if let Some(function) = blueprint.and_then(|blueprint| blueprint.function) {
                    wanted.offload |= function.way.is_represented();
                    wanted.functions.push(function);
                }
                vifs.insert(record.vif.id, Arc::new(record.vif));
            }
            Err(why) => bad.push(format!("{file_name} ({why})")),
        }
    }
    if let Some(first) = bad.first() {
        let message = format!("{} of {} records in {shown} are no good, e.g. {first}", bad.len(), good + bad.len());
        return Finding::warn(name, message, format!("`vifd validate {shown}/*.json` says what is wrong with each"));
    }
    if access(path, AccessFlags::W_OK).is_err() {
        let remedy =
            format!("give the agent's user write permission on {shown}, unless only files are to be dropped there");
        return Finding::warn(name, format!("{shown} is not writable: the API cannot take records"), remedy);
    }
    if let Ok(metadata) = fs::metadata(path)
        && metadata.permissions().mode() & 0o002 != 0
    {
        let message = format!("{shown} can be written by everybody, who can then plug and unplug");
        return Finding::fail(name, message, format!("run `chmod o-w {shown}`"));
    }
    let doubts = record::doubts(&vifs);
    let first = doubts.iter().find_map(|(id, warnings)| Some((id, warnings.first()?)));
    if let Some((id, warning)) = first {
        let several = if doubts.len() == 1 { "1 record is" } else { &format!("{} records are", doubts.len()) };
        let message = format!("{several} hardly meant so, e.g. of VIF {id}: {warning}");
        return Finding::warn(name, message, format!("`vifd validate {shown}/*.json` says what is odd with each"));
    }
    Finding::ok(name, format!("{good} in {shown}"))
}

/// The state directory.
pub(super) fn state(config: &Config) -> Finding {
    let name = "state";
    let path = &config.agent.state_dir;
    let shown = path.display();
    match fs::metadata(path) {
        // The agent makes it.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Finding::ok(name, format!("{shown} is made at the first start"))
        }
        Err(error) => {
            let remedy = "correct its permissions, or agent.state_dir in the configuration";
            Finding::fail(name, format!("{shown} cannot be read: {error}"), remedy)
        }
        Ok(metadata) if !metadata.is_dir() => {
            let remedy = "move it away, or correct agent.state_dir in the configuration";
            Finding::fail(name, format!("{shown} is not a directory"), remedy)
        }
        Ok(_) if access(path, AccessFlags::W_OK).is_err() => {
            let remedy = format!("give the agent's user write permission on {shown}");
            Finding::fail(name, format!("{shown} is not writable: deletions and pauses cannot be remembered"), remedy)
        }
        Ok(_) => Finding::ok(name, format!("{shown} can be written")),
    }
}

/// The directory of vhost-user sockets, where records need it.
pub(super) fn sockets(config: &Config, wanted: &Wanted) -> Option<Finding> {
    if !wanted.vhost_user {
        return None;
    }
    let name = "vhost-user sockets";
    let path = &config.vhostuser.dir;
    let shown = path.display();
    Some(match fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => {
            let (uid, gid, mode) = (metadata.uid(), metadata.gid(), metadata.permissions().mode() & 0o7777);
            Finding::ok(name, format!("{shown} belongs to {uid}:{gid}, mode {mode:04o}"))
        }
        Ok(_) => {
            Finding::fail(name, format!("{shown} is not a directory"), "correct vhostuser.dir in the configuration")
        }
        Err(error) => {
            let remedy = "start ovs-vswitchd, which makes it, or correct vhostuser.dir in the configuration";
            Finding::fail(name, format!("{shown} cannot be had: {error}"), remedy)
        }
    })
}
