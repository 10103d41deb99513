//! Updates of a monitor, in both forms, applied to the replica of Open vSwitch's database: the replica that follows
//! them one by one is the one that is made of the rows that there are in the end.

use std::sync::{Arc, LazyLock};

use ovsdb::replica::Replica as _;
use ovsdb::schema::DatabaseSchema;
use ovsdb::table::Layout;
use ovsdb::update::{Contents, Form, apply};
use ovsdb::vswitch::Snapshot;

use super::{choice, presentable};

/// Open vSwitch's own schema, as a server gave it.
static LAYOUT: LazyLock<Arc<Layout>> = LazyLock::new(|| {
    let schema = serde_json::from_str(include_str!("../../corpus/ovsdb_schema/vswitch")).expect("a seed");
    let schema = DatabaseSchema::decode(&schema).expect("a schema");
    Arc::new(Layout::check(&schema, Snapshot::TABLES).expect("of Open vSwitch"))
});

fn empty() -> Snapshot {
    let mut replica = Snapshot::new(["iface-id", "vifd-vif"]);
    replica.reset(&LAYOUT);
    replica
}

pub(crate) fn check(data: &[u8]) -> bool {
    let (choice, data) = choice(data);
    let Ok(text) = std::str::from_utf8(data) else { return false };
    let form = if choice % 2 == 0 { Form::Differences } else { Form::Values };
    let mut contents = Contents::new(&LAYOUT);
    let mut replica = empty();
    let mut accepted = false;
    for updates in text.lines() {
        let touched = match apply(&mut contents, &LAYOUT, form, updates) {
            Ok(touched) => touched,
            Err(error) => {
                presentable(&error);
                return accepted;
            }
        };
        for row in touched {
            match contents.get(row.table, row.uuid) {
                Some(cells) => {
                    if let Err(error) = replica.set(row.table, row.uuid, cells) {
                        presentable(&error);
                        return accepted;
                    }
                }
                None => replica.remove(row.table, row.uuid),
            }
        }
        accepted = true;
    }
    let mut anew = empty();
    for table in 0..LAYOUT.tables().len() {
        for (uuid, cells) in contents.rows(table) {
            anew.set(table, uuid, cells).expect("it was taken before");
        }
    }
    assert_eq!(replica.bridges, anew.bridges);
    assert_eq!(replica.ports, anew.ports);
    assert_eq!(replica.interfaces, anew.interfaces);
    assert_eq!(replica.qos, anew.qos);
    for (uuid, interface) in replica.interfaces.iter() {
        if let Some(value) = interface.external_ids.get("iface-id") {
            assert!(replica.interfaces_with("iface-id", value).any(|found| found.uuid == *uuid));
        }
    }
    accepted
}
