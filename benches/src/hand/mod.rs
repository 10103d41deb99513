//! The floor: what vifd does, done by hand for one purpose, with everything known beforehand. Links by ioctl and
//! netlink, one transaction on a raw socket, and then waiting for ovs-vswitchd, which is most of it.

pub mod genetlink;
pub mod heard;
pub mod ovsdb;
pub mod pair;
pub mod tap;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::{Value, json};
use vifd_integration::lab::{Ovs, Record};

use self::ovsdb::Connection;
use self::pair::Pair;
use self::tap::{Kernel, Tap};

/// Name of the bridge of the records that are measured.
pub const BRIDGE: &str = "br-int";

/// How many links are deleted in one request.
const TOGETHER: usize = 100;

/// Somebody who knows what to do.
pub struct Hand<'a> {
    ovs: &'a Ovs,
    database: Connection,
    root: Value,
    bridge: Value,
}

/// A port that was plugged by hand.
#[derive(Clone, Debug)]
pub struct Plugged {
    /// Row of the port.
    pub port: String,
    /// Links to delete: the tap, or a bridge and one end of a pair.
    pub links: Vec<String>,
}

/// What the kernel makes for a VIF.
enum Device {
    Tap(Tap),
    Pair(Pair),
}

impl Device {
    fn make(&self, kernel: &Kernel) -> Result<()> {
        match self {
            Device::Tap(tap) => kernel.make(tap),
            Device::Pair(pair) => pair.make(kernel),
        }
    }

    /// Names of the links with which all of it goes.
    fn links(self) -> Vec<String> {
        match self {
            Device::Tap(tap) => vec![tap.name],
            Device::Pair(Pair { names: [bridge, inner, _], .. }) => vec![bridge, inner],
        }
    }
}

impl<'a> Hand<'a> {
    /// Connects, and looks up what transactions need.
    ///
    /// # Errors
    /// When the database does not answer or has no bridge.
    pub fn on(ovs: &'a Ovs) -> Result<Hand<'a>> {
        let mut database = Connection::open(&ovs.endpoint())?;
        let look = json!(["Open_vSwitch",
            {"op": "select", "table": "Open_vSwitch", "where": [], "columns": ["_uuid"]},
            {"op": "select", "table": "Bridge", "where": [["name", "==", BRIDGE]], "columns": ["_uuid"]}]);
        let found = database.call("transact", &look)?;
        let uuid = |place: usize| found[place]["rows"][0]["_uuid"].clone();
        let (root, bridge) = (uuid(0), uuid(1));
        let monitor = json!(["Open_vSwitch", "floor", {
            "Interface": {"columns": ["name", "ofport"], "select": {"initial": false}},
            "Open_vSwitch": {"columns": ["cur_cfg"], "select": {"initial": false}}}]);
        database.call("monitor", &monitor)?;
        Ok(Hand { ovs, database, root, bridge })
    }

    /// Plugs: one transaction, and the links while it is on its way, until every port has its `ofport`. With the links
    /// first ovs-vswitchd looks at all of its ports once for their sake, before it comes to the transaction.
    ///
    /// # Errors
    /// When the kernel or the database refuse.
    pub fn plug(&mut self, records: &[Record]) -> Result<(Vec<Plugged>, Duration)> {
        let devices: Vec<Device> = records.iter().zip(0..).map(|(record, number)| device_of(record, number)).collect();
        let names = names(records);
        let request = self.insertion(records);
        self.drain()?;
        let (database, namespace) = (&mut self.database, self.ovs.namespace());

        let (results, took) = namespace.enter(|| {
            let kernel = Kernel::open()?;
            // A pair is made in so many steps that ovs-vswitchd would look again and again while it comes about.
            let (first, meanwhile): (Vec<_>, Vec<_>) = devices.iter().partition(|one| matches!(one, Device::Pair(_)));
            let start = Instant::now();
            first.iter().try_for_each(|device| device.make(&kernel))?;
            database.post(&request)?;
            meanwhile.iter().try_for_each(|device| device.make(&kernel))?;
            let results = database.results(&request)?;
            wait_for_ofports(database, &names)?;
            Ok((results, start.elapsed()))
        })?;
        let plugged = devices.into_iter().zip(results.iter().step_by(2)).map(|(device, result)| {
            let port = result["uuid"][1].as_str().context("the row of a new port")?.to_owned();
            Ok(Plugged { port, links: device.links() })
        });
        Ok((plugged.collect::<Result<_>>()?, took))
    }

    /// Inserts ports and waits for nothing: for a database that no ovs-vswitchd reads.
    ///
    /// # Errors
    /// When the database refuses.
    pub fn insert(&mut self, records: &[Record]) -> Result<()> {
        let request = self.insertion(records);
        self.database.transact(&request).map(drop)
    }

    /// Makes the taps of records and nothing else.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn make_taps(&self, records: &[Record]) -> Result<()> {
        self.ovs.namespace().enter(|| {
            let kernel = Kernel::open()?;
            records.iter().try_for_each(|record| kernel.make(&tap_of(record)))
        })
    }

    /// Deletes the taps of records and nothing else.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn delete_taps(&self, records: &[Record]) -> Result<()> {
        let names: Vec<String> = records.iter().map(Record::vif_name).collect();
        self.ovs.namespace().enter(|| {
            let kernel = Kernel::open()?;
            names.chunks(TOGETHER).try_for_each(|some| kernel.delete_together(some.iter().map(String::as_str)))
        })
    }

    /// Puts ports whose taps are there back: one transaction, until each has its `ofport`.
    ///
    /// # Errors
    /// When the database refuses.
    pub fn put_back(&mut self, records: &[Record]) -> Result<()> {
        let request = self.insertion(records);
        self.database.transact(&request)?;
        wait_for_ofports(&mut self.database, &names(records))
    }

    /// Unplugs: one transaction, until ovs-vswitchd has acted on it, and then the links. Both at the same time take
    /// longer (`docs/adr/0009-bulk-removal.md`).
    ///
    /// # Errors
    /// When the kernel or the database refuse.
    pub fn unplug(&mut self, plugged: &[Plugged]) -> Result<Duration> {
        let next = self.next_cfg()? + 1;
        let ports: Vec<Value> = plugged.iter().map(|plugged| json!(["uuid", plugged.port])).collect();
        let operations = json!(["Open_vSwitch", self.removal(&ports), self.raise_next_cfg()]);
        let request = self.database.request("transact", &operations);
        let (database, namespace) = (&mut self.database, self.ovs.namespace());
        namespace.enter(|| {
            let kernel = Kernel::open()?;
            let start = Instant::now();
            database.transact(&request)?;
            wait_for_cfg(database, next)?;
            // Not all in one: the kernel's lock of all links is held as long as one request takes.
            let links: Vec<&str> = plugged.iter().flat_map(|plugged| &plugged.links).map(String::as_str).collect();
            for some in links.chunks(TOGETHER) {
                kernel.delete_together(some.iter().copied())?;
            }
            Ok(start.elapsed())
        })
    }

    /// Takes a port out of the bridge, and its row with it, and does not wait for ovs-vswitchd.
    ///
    /// # Errors
    /// When the database refuses.
    pub fn remove(&mut self, port: &Value) -> Result<()> {
        let operation = self.removal(std::slice::from_ref(port));
        self.transact(&[operation]).map(drop)
    }

    /// Waits until new interfaces of these records have their `ofport`, as told since [`Hand::drain`].
    ///
    /// # Errors
    /// When the connection ends.
    pub fn until_usable(&mut self, records: &[Record]) -> Result<()> {
        wait_for_ofports(&mut self.database, &names(records))
    }

    /// Forgets what was told until now.
    ///
    /// # Errors
    /// When the database does not answer.
    pub fn drain(&mut self) -> Result<()> {
        self.database.call("echo", &json!([]))?;
        self.database.forget();
        Ok(())
    }

    /// The rows of a table in which `column` is `value`, with these columns.
    ///
    /// # Errors
    /// When the database does not answer.
    pub fn look(&mut self, table: &str, column: &str, value: &str, columns: &[&str]) -> Result<Vec<Value>> {
        let select = json!({"op": "select", "table": table, "where": [[column, "==", value]], "columns": columns});
        let mut answer = self.transact(&[select])?;
        Ok(answer[0]["rows"].as_array_mut().map(std::mem::take).unwrap_or_default())
    }

    /// Waits until ovs-vswitchd has acted on everything that is in the database.
    ///
    /// # Errors
    /// When the database does not answer.
    pub fn catch_up(&mut self) -> Result<Duration> {
        let next = self.next_cfg()? + 1;
        let request = json!(["Open_vSwitch", self.raise_next_cfg()]);
        let request = self.database.request("transact", &request);
        let start = Instant::now();
        self.database.transact(&request)?;
        wait_for_cfg(&mut self.database, next)?;
        Ok(start.elapsed())
    }

    /// Any transaction, for what a measurement does to the host.
    ///
    /// # Errors
    /// When it is refused.
    pub fn transact(&mut self, operations: &[Value]) -> Result<Vec<Value>> {
        let params: Vec<Value> = std::iter::once(json!("Open_vSwitch")).chain(operations.iter().cloned()).collect();
        let request = self.database.request("transact", &Value::Array(params));
        self.database.transact(&request)
    }

    /// The monitor's connection, for whoever waits for something else.
    pub fn database(&mut self) -> &mut Connection {
        &mut self.database
    }

    /// One transaction with everything in it.
    fn insertion(&mut self, records: &[Record]) -> (u64, String) {
        let mut operations = vec![json!("Open_vSwitch")];
        let mut ports = Vec::new();
        for (number, record) in records.iter().enumerate() {
            operations.extend(insert(number, record));
            ports.push(json!(["named-uuid", format!("p{number}")]));
        }
        operations.push(json!({"op": "mutate", "table": "Bridge", "where": [["_uuid", "==", self.bridge]],
            "mutations": [["ports", "insert", ["set", ports]]]}));
        self.database.request("transact", &Value::Array(operations))
    }

    fn removal(&self, ports: &[Value]) -> Value {
        json!({"op": "mutate", "table": "Bridge", "where": [["_uuid", "==", self.bridge]],
            "mutations": [["ports", "delete", ["set", ports]]]})
    }

    fn raise_next_cfg(&self) -> Value {
        json!({"op": "mutate", "table": "Open_vSwitch", "where": [["_uuid", "==", self.root]],
            "mutations": [["next_cfg", "+=", 1]]})
    }

    fn next_cfg(&mut self) -> Result<i64> {
        let look = json!(["Open_vSwitch", {"op": "select", "table": "Open_vSwitch", "where": [],
            "columns": ["next_cfg"]}]);
        let answer = self.database.call("transact", &look)?;
        self.database.forget();
        answer[0]["rows"][0]["next_cfg"].as_i64().context("next_cfg")
    }
}

/// What a record asks the kernel for; `number` is its own.
fn device_of(record: &Record, number: u32) -> Device {
    match record.hybrid_links() {
        Some(names) => Device::Pair(Pair { names, alias: format!("floor for {}", record.id()), number }),
        None => Device::Tap(tap_of(record)),
    }
}

/// The tap that a record asks for.
fn tap_of(record: &Record) -> Tap {
    let mut mac = [0; 6];
    for (octet, text) in mac.iter_mut().zip(record.mac().split(':')) {
        *octet = u8::from_str_radix(text, 16).unwrap_or_default();
    }
    Tap { name: record.vif_name(), mac, mtu: 1450, alias: format!("floor for {}", record.id()) }
}

/// Rows as large as vifd's: the same keys, with other names where they are its marks.
fn insert(number: usize, record: &Record) -> [Value; 2] {
    let (id, name) = (record.id(), record.port_name());
    let marks = [["floor-owner", "hand"], ["floor-form", "1"], ["floor-vif", &id]];
    let ids = [
        ["iface-id", &id],
        ["iface-status", "active"],
        ["attached-mac", &record.mac()],
        ["vm-uuid", "6b0c1c1a-7a52-4b5f-8f0e-3a1d8c6f2b01"],
    ];
    let ids: Vec<_> = marks.iter().chain(&ids).collect();
    [
        json!({"op": "insert", "table": "Port", "uuid-name": format!("p{number}"), "row": {
            "name": name, "interfaces": ["named-uuid", format!("i{number}")],
            "external_ids": ["map", marks], "other_config": ["map", [["transient", "true"]]]}}),
        json!({"op": "insert", "table": "Interface", "uuid-name": format!("i{number}"), "row": {
            "name": name, "external_ids": ["map", ids]}}),
    ]
}

fn names(records: &[Record]) -> BTreeSet<String> {
    records.iter().map(Record::port_name).collect()
}

/// Waits until every interface of these names has a positive `ofport`.
fn wait_for_ofports(database: &mut Connection, names: &BTreeSet<String>) -> Result<()> {
    let mut usable = BTreeSet::new();
    while usable.len() < names.len() {
        let update = database.update()?;
        for change in update["params"][1]["Interface"].as_object().into_iter().flat_map(|rows| rows.values()) {
            let new = &change["new"];
            let known = new["name"].as_str().and_then(|name| names.get(name));
            match (known, new["ofport"].as_i64()) {
                (Some(name), Some(1..)) => usable.insert(name),
                (Some(name), _) => usable.remove(name),
                (None, _) => false,
            };
        }
    }
    Ok(())
}

/// Waits until `cur_cfg` is `wanted` or more.
fn wait_for_cfg(database: &mut Connection, wanted: i64) -> Result<()> {
    loop {
        let update = database.update()?;
        let rows = update["params"][1]["Open_vSwitch"].as_object();
        if rows.into_iter().flatten().any(|(_, row)| row["new"]["cur_cfg"].as_i64() >= Some(wanted)) {
            return Ok(());
        }
    }
}
