//! Schemas: any JSON is a schema that serves, one that lacks something, or none; and each says so shortly.

use ovsdb::replica::Replica as _;
use ovsdb::schema::DatabaseSchema;
use ovsdb::table::Layout;
use ovsdb::vswitch::Snapshot;
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
                    assert_eq!(table.column(name), Some((at, ty)));
                    ty.check_len(ty.default_datum().len()).expect("a default fits its column");
                }
                assert!(table.default_row().cells().len() >= table.present().count());
            }
            true
        }
        Err(error) => {
            presentable(&error);
            false
        }
    }
}
