//! Schemas: any JSON is a schema that serves, one that lacks something, or none; and each says so shortly.

use ovsdb::replica::Replica as _;
use ovsdb::schema::DatabaseSchema;
use ovsdb::table::Layout;
use ovsdb::value::Uuid;
use ovsdb::vswitch::{Bridge, Interface, OpenVSwitch, Port, Qos, Snapshot};
use serde_json::Value;

use super::presentable;

pub(crate) fn check(data: &[u8]) -> bool {
    let Ok(json) = serde_json::from_slice::<Value>(data) else { return false };
    let schema = match DatabaseSchema::decode(&json) {
        Ok(schema) => schema,
        Err(error) => {
            presentable(&error);
            return false;
        }
    };
    match Layout::check(&schema, Snapshot::TABLES) {
        Ok(layout) => {
            for table in layout.tables() {
                for (at, name, ty) in table.present() {
                    assert_eq!(table.column(name), Some((at, name, ty)));
                    ty.check_len(ty.default_datum().len()).expect("a default fits its column");
                }
                // Every declared table has a row of defaults; which one this is, its name says.
                let made = match table.name() {
                    "Open_vSwitch" => table.default_row::<OpenVSwitch>(Uuid::nil()).is_ok(),
                    "Bridge" => table.default_row::<Bridge>(Uuid::nil()).is_ok(),
                    "Port" => table.default_row::<Port>(Uuid::nil()).is_ok(),
                    "Interface" => table.default_row::<Interface>(Uuid::nil()).is_ok(),
                    _ => table.default_row::<Qos>(Uuid::nil()).is_ok(),
                };
                assert!(made, "no defaults for {}", table.name());
            }
            true
        }
        Err(error) => {
            presentable(&error);
            false
        }
    }
}
