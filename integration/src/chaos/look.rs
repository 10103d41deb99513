//! A look at everything on the host, for the oracle. Nothing is judged here.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

use super::harm;
use crate::lab::{Link, Ovs, Row, Vifd};

const TABLES: [&str; 5] = ["Open_vSwitch", "Bridge", "Port", "Interface", "QoS"];

/// What a process uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Process {
    /// Process id.
    pub pid: u32,
    /// Open file descriptors.
    pub descriptors: usize,
    /// Resident memory in KiB.
    pub resident: u64,
}

impl Process {
    /// Reads it from `/proc` (proc_pid_status(5): `VmRSS`).
    pub(super) fn read(pid: u32) -> Result<Process> {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).context("vifd's /proc")?;
        let resident =
            status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.split_whitespace().next()?.parse().ok());
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd"))?.count();
        Ok(Process { pid, descriptors, resident: resident.context("no VmRSS")? })
    }
}

/// The host at one moment.
#[derive(Clone, Debug, Default)]
pub struct Look {
    /// Rows by table and UUID.
    pub rows: BTreeMap<String, BTreeMap<String, Row>>,
    /// Links by name, the loopback and the switch's own left out.
    pub links: BTreeMap<String, Link>,
    /// Indexes of the links that packet sockets are bound to: through them the userspace datapath moves packets.
    pub taken: BTreeSet<u64>,
    /// What is in the directory of records, by file name.
    pub records: BTreeMap<String, String>,
    /// Names in the state directory, and in `deleted` below it.
    pub state: Vec<String>,
    /// vifd's statuses.
    pub statuses: Vec<Value>,
    /// The flows of the bridge whose flows vifd makes, as ovs-ofctl(8) writes them, sorted.
    pub flows: Vec<String>,
}

impl Look {
    /// Looks. `ignored` is a link that the harness itself changes.
    pub(super) fn take(ovs: &Ovs, vifd: &Vifd, ignored: &str) -> Result<Look> {
        let mut rows: BTreeMap<String, BTreeMap<String, Row>> = BTreeMap::new();
        for (table, found) in ovs.tables(TABLES)? {
            let by_uuid = found.into_iter().map(|row| (text(&row, "_uuid").to_owned(), row)).collect();
            rows.insert(table.to_owned(), by_uuid);
        }
        let bridges: Vec<&str> = rows["Bridge"].values().map(|row| text(row, "name")).collect();
        let links = ovs.namespace().links()?;
        let own = |name: &str| name == ignored || name.starts_with("ovs-") || bridges.contains(&name);
        let links = links.into_iter().filter(|(name, _)| !own(name)).collect();
        // proc(5), /proc/net/packet: the fifth column.
        let sockets = ovs.namespace().enter(|| Ok(fs::read_to_string("/proc/thread-self/net/packet")?))?;
        let index = |line: &str| line.split_whitespace().nth(4)?.parse().ok();
        let taken = sockets.lines().skip(1).filter_map(index).collect();
        let mut records = BTreeMap::new();
        for name in names(&vifd.records())? {
            let text = fs::read_to_string(vifd.records().join(&name)).with_context(|| name.clone())?;
            records.insert(name, text);
        }
        let mut state = names(&vifd.state())?;
        state.extend(names(&vifd.state().join("deleted"))?.into_iter().map(|name| format!("deleted/{name}")));
        let statuses = vifd.statuses()?;
        let dump = ovs.ofctl(["-O", "OpenFlow14", "--no-stats", "dump-flows", &harm::switch_of_flows(ovs)])?;
        let mut flows: Vec<String> = dump.lines().map(|line| line.trim().to_owned()).collect();
        flows.retain(|line| line.contains("actions="));
        flows.sort();
        Ok(Look { rows, links, taken, records, state, statuses, flows })
    }

    /// The rows of a table.
    pub fn table(&self, table: &str) -> impl Iterator<Item = &Row> {
        self.rows.get(table).into_iter().flat_map(BTreeMap::values)
    }

    /// The row of a table that has this `name`.
    #[must_use]
    pub fn named(&self, table: &str, name: &str) -> Option<&Row> {
        self.table(table).find(|row| text(row, "name") == name)
    }

    /// The OpenFlow number of a port.
    #[must_use]
    pub fn number_of(&self, interface: &str) -> Option<i64> {
        self.named("Interface", interface)?.get("ofport")?.as_i64().filter(|number| *number > 0)
    }

    /// The bridge that has a port.
    #[must_use]
    pub fn bridge_of(&self, port: &Row) -> Option<&Row> {
        let uuid = text(port, "_uuid");
        self.table("Bridge").find(|bridge| references(bridge, "ports").contains(&uuid))
    }
}

/// A column with a text.
pub(super) fn text<'a>(row: &'a Row, column: &str) -> &'a str {
    row.get(column).and_then(Value::as_str).unwrap_or_default()
}

/// A value in a column with a map.
pub(super) fn entry<'a>(row: &'a Row, column: &str, key: &str) -> &'a str {
    row.get(column).and_then(|map| map[key].as_str()).unwrap_or_default()
}

/// The UUIDs in a column that holds one or a set of them.
pub(super) fn references<'a>(row: &'a Row, column: &str) -> Vec<&'a str> {
    let value = row.get(column).unwrap_or(&Value::Null);
    let set = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
    set.iter().filter_map(Value::as_str).collect()
}

fn names(folder: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}
