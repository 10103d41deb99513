//! Updates of a monitor, in both forms, applied to the replica of Open vSwitch's database: the replica that follows
//! them one by one is the one that is made of the rows that there are in the end.

use std::sync::{Arc, LazyLock};

use ovsdb::replica::{Replica as _, Rows};
use ovsdb::schema::DatabaseSchema;
use ovsdb::table::{Layout, Table};
use ovsdb::update::{Applied, Form, UpdateError, apply};
use ovsdb::vswitch::Snapshot;
use ovsdb::words::Words;
use serde_json::{Value, json};

use super::{choice, presentable};

/// Open vSwitch's own schema, as a server gave it.
static LAYOUT: LazyLock<Arc<Layout>> = LazyLock::new(|| {
    let schema = serde_json::from_str(include_str!("../../corpus/ovsdb_schema/vswitch")).expect("a seed");
    let schema = DatabaseSchema::decode(&schema).expect("a schema");
    Arc::new(Layout::check(&schema, Snapshot::TABLES).expect("of Open vSwitch"))
});

/// More rows than any of these updates can have.
const MOST: usize = 1 << 20;

fn empty() -> Snapshot {
    let mut replica = Snapshot::new(["iface-id", "vifd-vif"]);
    replica.reset(&LAYOUT);
    replica
}

fn follow(replica: &mut Snapshot, form: Form, updates: &str) -> Result<Applied, UpdateError> {
    apply(replica, &LAYOUT, &mut Words::default(), form, MOST, updates)
}

/// The rows of the table at this position, as updates that insert them.
fn inserts<T: Table>(table: usize, rows: &Rows<T>) -> String {
    let layout = &LAYOUT.tables()[table];
    let row = |row: &T| -> Value {
        let cell = |(place, name, _): (usize, &str, _)| Some((name.to_owned(), row.cell(place)?.to_json()));
        layout.present().filter_map(cell).collect()
    };
    let rows = rows.iter().map(|(uuid, of)| (uuid.to_string(), json!({"insert": row(of)})));
    json!({layout.name(): rows.collect::<Value>()}).to_string()
}

pub(crate) fn check(data: &[u8]) -> bool {
    let (choice, data) = choice(data);
    let Ok(text) = std::str::from_utf8(data) else { return false };
    let form = if choice % 2 == 0 { Form::Differences } else { Form::Values };
    let mut replica = empty();
    let mut rows = 0;
    let mut accepted = false;
    for updates in text.lines() {
        match follow(&mut replica, form, updates) {
            Ok(applied) => rows = rows + applied.inserted - applied.deleted,
            Err(error) => {
                presentable(&error);
                return accepted;
            }
        }
        accepted = true;
    }
    let Snapshot { open_vswitch, bridges, ports, interfaces, qos, .. } = &replica;
    assert_eq!(rows, open_vswitch.len() + bridges.len() + ports.len() + interfaces.len() + qos.len());
    let mut anew = empty();
    for updates in
        [inserts(0, open_vswitch), inserts(1, bridges), inserts(2, ports), inserts(3, interfaces), inserts(4, qos)]
    {
        follow(&mut anew, Form::Differences, &updates).expect("rows that there are can be inserted");
    }
    assert_eq!(open_vswitch, &anew.open_vswitch);
    assert_eq!(bridges, &anew.bridges);
    assert_eq!(ports, &anew.ports);
    assert_eq!(interfaces, &anew.interfaces);
    assert_eq!(qos, &anew.qos);
    for (uuid, interface) in interfaces.iter() {
        if let Some(value) = interface.external_ids.get("iface-id") {
            assert!(replica.interfaces_with("iface-id", value).any(|found| found.uuid == *uuid));
        }
    }
    accepted
}
