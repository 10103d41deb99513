//! Building transactions (RFC 7047 sections 4.1.3 and 5.2): a list of operations, each with a tag. The
//! terms that operations are made of are in `transact/terms.rs`; what became of a transaction is read in
//! [`crate::outcome`]; sending is for [`crate::session`].

mod terms;

use std::collections::BTreeSet;

use serde::ser::{Serialize, SerializeSeq, Serializer};
use serde_json::{Map as Object, Value, json};

pub use self::terms::{Assign, Condition, Mutation, NewRow, RowRef, Selection, Values, Where};
use crate::table::Table;
use crate::value::Uuid;

/// What a `wait` wants of the rows it names and the rows it gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// They are the same.
    Equal,
    /// They are not the same.
    NotEqual,
}

/// What an operation does, as far as reading its result needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Insert,
    /// `update`, `mutate` and `delete`: a count.
    Count,
    Select,
    Wait,
    /// `comment`, `assert` and `abort`: nothing.
    Other,
}

/// What is known of an operation besides its JSON.
#[derive(Clone, Debug)]
pub(crate) struct Op<G> {
    pub(crate) kind: Kind,
    pub(crate) tag: G,
    /// The row it is about, where that is given by identity.
    pub(crate) row: Option<Uuid>,
    /// It has a string that must not be sent; see [`crate::value::Atom::has_nul`].
    pub(crate) has_nul: bool,
}

/// A list of operations that take effect together or not at all.
///
/// Every operation carries a tag of the caller's, by which outcomes name the operation that failed.
#[derive(Clone, Debug)]
pub struct Transaction<G = ()> {
    json: Vec<Value>,
    pub(crate) ops: Vec<Op<G>>,
    tag: G,
}

impl<G: Clone + Default> Default for Transaction<G> {
    fn default() -> Self {
        Self::new(G::default())
    }
}

impl<G: Clone> Transaction<G> {
    /// No operations; those to come carry `tag`.
    #[must_use]
    pub fn new(tag: G) -> Self {
        Self { json: Vec::new(), ops: Vec::new(), tag }
    }

    /// Operations from here on carry `tag`.
    pub fn tag(&mut self, tag: G) -> &mut Self {
        self.tag = tag;
        self
    }

    /// Number of operations.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ops.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    /// The tag of an operation.
    #[must_use]
    pub fn tag_of(&self, op: usize) -> Option<&G> {
        self.ops.get(op).map(|op| &op.tag)
    }

    /// The operations as they are sent.
    #[must_use]
    pub fn to_json(&self) -> &[Value] {
        &self.json
    }

    /// Operations that modify the database when they find a row: all but waits, selects, comments and
    /// asserts.
    #[must_use]
    pub fn modifying_ops(&self) -> usize {
        self.ops.iter().filter(|op| matches!(op.kind, Kind::Insert | Kind::Count)).count()
    }

    fn push(&mut self, kind: Kind, row: Option<Uuid>, has_nul: bool, json: Value) -> usize {
        self.json.push(json);
        self.ops.push(Op { kind, tag: self.tag.clone(), row, has_nul });
        self.ops.len() - 1
    }

    /// Inserts a row; columns that are not given get their defaults. Unless the table is a root table, some
    /// row has to refer to it in the end, or the server drops it without a word.
    pub fn insert<T: Table>(&mut self, values: &Values<T>) -> NewRow {
        let row = NewRow { op: self.ops.len() };
        let op = json!({
            "op": "insert", "table": T::DECL.name, "row": values.to_json(), "uuid-name": row.name(),
        });
        self.push(Kind::Insert, None, values.has_nul(), op);
        row
    }

    /// Sets whole columns. Nothing is sent when no column is given.
    pub fn update<T: Table>(&mut self, rows: impl Into<Where<T>>, values: &Values<T>) {
        let rows = rows.into();
        if values.is_empty() {
            return;
        }
        let op = json!({
            "op": "update", "table": T::DECL.name, "where": rows.to_json(), "row": values.to_json(),
        });
        self.push(Kind::Count, rows.row(), rows.has_nul() || values.has_nul(), op);
    }

    /// Changes parts of columns, in the order given. Nothing is sent when there is no mutation.
    pub fn mutate<T: Table>(&mut self, rows: impl Into<Where<T>>, mutations: impl IntoIterator<Item = Mutation<T>>) {
        let rows = rows.into();
        let mut has_nul = rows.has_nul();
        let mutations = mutations.into_iter().map(|mutation| {
            has_nul |= mutation.has_nul();
            mutation.to_json()
        });
        let mutations: Vec<Value> = mutations.collect();
        if mutations.is_empty() {
            return;
        }
        let op = json!({
            "op": "mutate", "table": T::DECL.name, "where": rows.to_json(), "mutations": mutations,
        });
        self.push(Kind::Count, rows.row(), has_nul, op);
    }

    /// Deletes rows. A row of a table that is no root table goes by itself with the last reference to it.
    pub fn delete<T: Table>(&mut self, rows: impl Into<Where<T>>) {
        let rows = rows.into();
        let op = json!({"op": "delete", "table": T::DECL.name, "where": rows.to_json()});
        self.push(Kind::Count, rows.row(), rows.has_nul(), op);
    }

    /// Reads columns as they are at this point of the transaction.
    pub fn select<T: Table>(&mut self, rows: impl Into<Where<T>>, columns: &[&str]) -> Selection {
        let rows = rows.into();
        let op = json!({"op": "select", "table": T::DECL.name, "where": rows.to_json(), "columns": columns});
        Selection { op: self.push(Kind::Select, rows.row(), rows.has_nul(), op) }
    }

    /// Goes on only if the rows that meet the conditions, seen through the columns of `expected`, are (not)
    /// the `expected` ones; without those, if there are none (or some). It never waits: the timeout is 0.
    pub fn wait<T: Table>(&mut self, rows: impl Into<Where<T>>, until: Until, expected: &[Values<T>]) {
        let rows = rows.into();
        let columns: BTreeSet<&str> = expected.iter().flat_map(Values::columns).collect();
        let columns: Vec<&str> = if columns.is_empty() { vec!["_uuid"] } else { columns.into_iter().collect() };
        let has_nul = rows.has_nul() || expected.iter().any(Values::has_nul);
        let op = json!({
            "op": "wait", "timeout": 0, "table": T::DECL.name, "where": rows.to_json(), "columns": columns,
            "until": match until { Until::Equal => "==", Until::NotEqual => "!=" },
            "rows": expected.iter().map(Values::to_json).collect::<Vec<_>>(),
        });
        self.push(Kind::Wait, rows.row(), has_nul, op);
    }

    /// Guard: goes on only if some row meets every condition, e.g. this row still has this name and this
    /// `external_ids` pair.
    pub fn require<T: Table>(&mut self, rows: impl Into<Where<T>>) {
        self.wait(rows, Until::NotEqual, &[]);
    }

    /// Guard: goes on only if no row meets every condition.
    pub fn require_none<T: Table>(&mut self, rows: impl Into<Where<T>>) {
        self.wait(rows, Until::Equal, &[]);
    }

    /// A line for the server's log and database file: who did this, and why.
    pub fn comment(&mut self, text: &str) {
        self.push(Kind::Other, None, text.contains('\0'), json!({"op": "comment", "comment": text}));
    }

    /// Goes on only if this session holds the lock; `not owner` otherwise.
    pub fn assert(&mut self, lock: &str) {
        self.push(Kind::Other, None, lock.contains('\0'), json!({"op": "assert", "lock": lock}));
    }

    /// Fails the transaction: `aborted`. What operations before it would have given is in no outcome; it
    /// proves that they are well-formed.
    pub fn abort(&mut self) {
        self.push(Kind::Other, None, false, json!({"op": "abort"}));
    }

    /// The parameters of the `transact` call.
    pub(crate) fn params<'a>(&'a self, database: &'a str) -> Params<'a> {
        Params { database, ops: &self.json }
    }
}

/// `[database, operation…]`.
pub(crate) struct Params<'a> {
    database: &'a str,
    ops: &'a [Value],
}

impl Serialize for Params<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut seq = serializer.serialize_seq(Some(1 + self.ops.len()))?;
        seq.serialize_element(self.database)?;
        for op in self.ops {
            seq.serialize_element(op)?;
        }
        seq.end()
    }
}

/// `<where>` of a monitor: rows that meet any of the conditions, all rows when there is none.
pub(crate) fn monitor_request(columns: Vec<&str>, conditions: &[Value]) -> Value {
    let mut request = Object::new();
    request.insert("columns".to_owned(), Value::from(columns));
    if !conditions.is_empty() {
        request.insert("where".to_owned(), Value::from(conditions.to_vec()));
    }
    Value::Object(request)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::annotated;
    use crate::vswitch::{Bridge, Interface, OpenVSwitch, Port, Qos};

    const U: &str = "aaaaaaaa-0000-4000-8000-00000000000a";

    fn row() -> Uuid {
        Uuid::try_parse(U).unwrap()
    }

    /// Every operation in the form of RFC 7047 section 5.2.
    #[test]
    fn operations_as_they_are_sent() {
        let mut txn = Transaction::new(());
        txn.require(
            Where::from(row()).and(Bridge::NAME.equals("br0")).and(Bridge::EXTERNAL_IDS.includes([("k", "v")])),
        );
        txn.require_none(Port::NAME.equals("tap0"));
        let same = [Values::new().with(Interface::TYPE, "tap").with(Interface::NAME, "tap0")];
        txn.wait(row(), Until::Equal, &same);
        let interface = txn.insert(&Values::new().with(Interface::NAME, "tap0").with(Interface::MTU_REQUEST, 1450));
        let port = txn.insert(&Values::new().with(Port::NAME, "tap0").with(Port::INTERFACES, interface));
        txn.mutate(row(), [Bridge::PORTS.insert([RowRef::from(port), RowRef::from(row())])]);
        txn.mutate(row(), Bridge::EXTERNAL_IDS.put([("b", "2"), ("a", "1")]));
        txn.mutate(row(), [Bridge::EXTERNAL_IDS.remove_keys(["a"]), Bridge::EXTERNAL_IDS.remove([("b", "2")])]);
        txn.update(port, &Values::new().with(Port::TAG, None).with(Port::TRUNKS, [3, 1]));
        txn.mutate(Where::all(), [OpenVSwitch::NEXT_CFG.increase_by(1)]);
        txn.delete::<Qos>(row());
        txn.select::<Bridge>(Bridge::NAME.differs(""), &["name", "_uuid"]);
        txn.comment("who and why");
        txn.assert("lock");
        txn.abort();
        let expected = annotated::json(&format!(
            r#"[
            {{ "op": "wait", "timeout": 0, "table": "Bridge",
               "where": [["_uuid", "==", ["uuid", "{U}"]],       // this row …
                         ["name", "==", "br0"],                  // … still of this name …
                         ["external_ids", "includes", ["map", [["k", "v"]]]]],  // … and with this pair
               "columns": ["_uuid"], "until": "!=", "rows": [] }},  // anything but nothing
            {{ "op": "wait", "timeout": 0, "table": "Port", "where": [["name", "==", "tap0"]],
               "columns": ["_uuid"], "until": "==", "rows": [] }},  // nothing
            {{ "op": "wait", "timeout": 0, "table": "Interface", "where": [["_uuid", "==", ["uuid", "{U}"]]],
               "columns": ["name", "type"], "until": "==", "rows": [{{ "name": "tap0", "type": "tap" }}] }},
            {{ "op": "insert", "table": "Interface", "uuid-name": "row3",
               "row": {{ "name": "tap0", "mtu_request": 1450 }} }},
            {{ "op": "insert", "table": "Port", "uuid-name": "row4",
               "row": {{ "name": "tap0", "interfaces": ["named-uuid", "row3"] }} }},  // the row of operation 3
            {{ "op": "mutate", "table": "Bridge", "where": [["_uuid", "==", ["uuid", "{U}"]]],
               "mutations": [["ports", "insert", ["set", [["uuid", "{U}"], ["named-uuid", "row4"]]]]] }},
            {{ "op": "mutate", "table": "Bridge", "where": [["_uuid", "==", ["uuid", "{U}"]]],
               "mutations": [["external_ids", "delete", ["set", ["a", "b"]]],  // insert alone keeps old values
                             ["external_ids", "insert", ["map", [["a", "1"], ["b", "2"]]]]] }},
            {{ "op": "mutate", "table": "Bridge", "where": [["_uuid", "==", ["uuid", "{U}"]]],
               "mutations": [["external_ids", "delete", "a"],              // the key, whatever its value
                             ["external_ids", "delete", ["map", [["b", "2"]]]]] }},  // the very pair
            {{ "op": "update", "table": "Port", "where": [["_uuid", "==", ["named-uuid", "row4"]]],
               "row": {{ "tag": ["set", []], "trunks": ["set", [1, 3]] }} }},
            {{ "op": "mutate", "table": "Open_vSwitch", "where": [], "mutations": [["next_cfg", "+=", 1]] }},
            {{ "op": "delete", "table": "QoS", "where": [["_uuid", "==", ["uuid", "{U}"]]] }},
            {{ "op": "select", "table": "Bridge", "where": [["name", "!=", ""]], "columns": ["name", "_uuid"] }},
            {{ "op": "comment", "comment": "who and why" }},
            {{ "op": "assert", "lock": "lock" }},
            {{ "op": "abort" }}
        ]"#
        ));
        assert_eq!(Value::from(txn.to_json().to_vec()), expected);
        assert_eq!(serde_json::to_value(txn.params("db")).unwrap()[0], "db");
        assert_eq!(txn.modifying_ops(), 8);
    }

    #[test]
    fn nothing_to_set_is_no_operation() {
        let mut txn = Transaction::new(());
        txn.update(row(), &Values::<Port>::new());
        txn.mutate::<Port>(row(), []);
        assert!(txn.is_empty());
    }

    #[test]
    fn nul_is_found_wherever_it_hides() {
        let build: [fn(&mut Transaction<u8>); 5] = [
            |txn| {
                txn.insert(&Values::new().with(Port::NAME, "a\0"));
            },
            |txn| txn.mutate(row(), [Port::EXTERNAL_IDS.insert([("a\0", "b")])]),
            |txn| txn.delete(Where::<Port>::from(Port::NAME.equals("a\0"))),
            |txn| txn.comment("a\0"),
            |txn| txn.require::<Port>(Port::EXTERNAL_IDS.includes([("a", "\0")])),
        ];
        for build in build {
            let mut txn = Transaction::new(1);
            txn.comment("fine");
            assert_eq!(txn.refusal(), None);
            txn.tag(2);
            build(&mut txn);
            let refusal = txn.refusal().unwrap();
            assert_eq!((refusal.op, refusal.tag), (Some(1), Some(2)));
        }
    }
}
