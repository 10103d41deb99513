//! What became of a transaction: reading the server's answer against the operations sent. Pure.

use serde_json::Value;

use crate::message::{ErrorKind, ServerError};
use crate::transact::{Kind, NewRow, Op, Selection, Transaction};
use crate::value::{Uuid, decode_uuid};

/// What became of a transaction.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome<G = ()> {
    /// It took effect and changed nothing: no operations, or none that inserted or found a row.
    Unchanged(Applied),
    /// It took effect. What it changed is in the replica already.
    Committed(Applied),
    /// A guard failed: the database is not what the transaction assumed. Nothing took effect.
    Conflict {
        /// The `wait` that failed.
        op: usize,
        /// Its tag.
        tag: G,
    },
    /// The server (or, for strings that cannot be sent, this library) refused it. Nothing took effect.
    Rejected(Rejection<G>),
    /// It was never sent: the session is not ready. Nothing took effect; it may be tried again.
    NotSent,
    /// The connection broke after it was sent, or the answer made no sense: it may or may not have taken
    /// effect. Look at the database again; never send it again blindly.
    Unknown,
}

impl<G> Outcome<G> {
    /// The results, when it took effect.
    #[must_use]
    pub fn applied(&self) -> Option<&Applied> {
        match self {
            Self::Unchanged(applied) | Self::Committed(applied) => Some(applied),
            _ => None,
        }
    }

    /// A short word for metrics and logs.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Unchanged(_) => "unchanged",
            Self::Committed(_) => "committed",
            Self::Conflict { .. } => "conflict",
            Self::Rejected(_) => "rejected",
            Self::NotSent => "not_sent",
            Self::Unknown => "unknown",
        }
    }
}

/// Why a transaction was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection<G = ()> {
    /// The operation that failed; `None` when all of them worked and their sum did not (a reference without
    /// a row, a name that is taken, the server's disk), or the request as a whole was refused.
    pub op: Option<usize>,
    /// The tag of that operation.
    pub tag: Option<G>,
    /// What the server said.
    pub error: ServerError,
    /// Without `op`: the modifying operations whose rows the server's explanation names, and their tags. Empty when it
    /// names none that are known.
    pub suspects: Vec<(usize, G)>,
}

/// The results of the operations of a transaction that took effect.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Applied {
    results: Vec<OpResult>,
}

#[derive(Clone, Debug, PartialEq)]
enum OpResult {
    Inserted(Uuid),
    Count(u64),
    Rows(Vec<Value>),
    Nothing,
}

impl Applied {
    /// The identity that a new row got; `None` when the handle is of another transaction.
    #[must_use]
    pub fn uuid(&self, row: NewRow) -> Option<Uuid> {
        match self.results.get(row.op)? {
            OpResult::Inserted(uuid) => Some(*uuid),
            _ => None,
        }
    }

    /// The identities of all new rows, in order of their operations.
    pub fn inserted(&self) -> impl Iterator<Item = Uuid> {
        self.results.iter().filter_map(|result| match result {
            OpResult::Inserted(uuid) => Some(*uuid),
            _ => None,
        })
    }

    /// How many rows an `update`, `mutate` or `delete` found, by its position in the transaction.
    #[must_use]
    pub fn count(&self, op: usize) -> Option<u64> {
        match self.results.get(op)? {
            OpResult::Count(count) => Some(*count),
            _ => None,
        }
    }

    /// The rows that a `select` found; read them with [`crate::table::Column`]'s `read`.
    #[must_use]
    pub fn rows(&self, selection: Selection) -> &[Value] {
        match self.results.get(selection.op) {
            Some(OpResult::Rows(rows)) => rows,
            _ => &[],
        }
    }

    fn changed(&self) -> bool {
        self.results.iter().any(|result| match result {
            OpResult::Inserted(_) => true,
            OpResult::Count(count) => *count > 0,
            OpResult::Rows(_) | OpResult::Nothing => false,
        })
    }
}

impl<G: Clone> Transaction<G> {
    /// Why this transaction must not be sent, if so: an operation has a string with NUL in it, over which
    /// the server would drop the connection.
    #[must_use]
    pub fn refusal(&self) -> Option<Rejection<G>> {
        let op = self.ops.iter().position(|op| op.has_nul)?;
        let error = ServerError::nul();
        Some(Rejection { op: Some(op), tag: self.tag_of(op).cloned(), error, suspects: Vec::new() })
    }

    /// Reads the answer to the `transact` call of this transaction (RFC 7047, 4.1.3): one result per
    /// operation; after one that failed nulls; after all of them an error when the commit failed.
    #[must_use]
    pub fn outcome(&self, answer: Result<Value, ServerError>) -> Outcome<G> {
        let results = match answer {
            Ok(Value::Array(results)) if results.len() >= self.len() => results,
            Ok(_) => return Outcome::Unknown,
            Err(error) => return self.rejected(None, error, &[]),
        };
        let error = results.iter().position(|result| result.get("error").is_some_and(|error| !error.is_null()));
        if let Some(at) = error {
            let error = ServerError::decode(&results[at]);
            return match self.ops.get(at) {
                Some(op) if op.kind == Kind::Wait && error.kind() == ErrorKind::TimedOut => {
                    Outcome::Conflict { op: at, tag: op.tag.clone() }
                }
                Some(_) => self.rejected(Some(at), error, &[]),
                None => self.rejected(None, error, &results),
            };
        }
        let results = self.ops.iter().zip(results).map(|(op, result)| read_result(op.kind, result));
        // No error and yet no result that fits: whatever this is, it is no proof that nothing happened.
        let Some(results) = results.collect() else {
            return Outcome::Unknown;
        };
        let applied = Applied { results };
        if applied.changed() { Outcome::Committed(applied) } else { Outcome::Unchanged(applied) }
    }

    fn rejected(&self, op: Option<usize>, error: ServerError, results: &[Value]) -> Outcome<G> {
        let tag = op.and_then(|op| self.tag_of(op)).cloned();
        let mut suspects = Vec::new();
        // The explanation of a commit error names rows by UUID: those that this transaction inserted and
        // those that it modified can be traced to their operations.
        if let (None, Some(details)) = (op, &error.details) {
            let named = uuids_in(details);
            let modifying = |op: &Op<G>| matches!(op.kind, Kind::Insert | Kind::Count);
            for (at, op) in self.ops.iter().enumerate().filter(|(_, op)| modifying(op)) {
                let inserted = results.get(at).and_then(|result| decode_uuid(result.get("uuid")?).ok());
                if inserted.or(op.row).is_some_and(|uuid| named.contains(&uuid)) {
                    suspects.push((at, op.tag.clone()));
                }
            }
        }
        Outcome::Rejected(Rejection { op, tag, error, suspects })
    }
}

fn read_result(kind: Kind, mut result: Value) -> Option<OpResult> {
    Some(match kind {
        Kind::Insert => OpResult::Inserted(decode_uuid(result.get("uuid")?).ok()?),
        Kind::Count => OpResult::Count(result.get("count")?.as_u64()?),
        Kind::Select => match result.get_mut("rows")?.take() {
            Value::Array(rows) => OpResult::Rows(rows),
            _ => return None,
        },
        Kind::Wait | Kind::Other => result.is_object().then_some(OpResult::Nothing)?,
    })
}

/// Every UUID in a text.
fn uuids_in(text: &str) -> Vec<Uuid> {
    let words = text.split(|c: char| !c.is_ascii_hexdigit() && c != '-');
    words.filter(|word| word.len() == 36).filter_map(|word| Uuid::try_parse(word).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::annotated;
    use crate::transact::Values;
    use crate::vswitch::{Bridge, Interface, Port};

    const A: &str = "aaaaaaaa-0000-4000-8000-00000000000a";
    const B: &str = "bbbbbbbb-0000-4000-8000-00000000000b";

    fn uuid(text: &str) -> Uuid {
        Uuid::try_parse(text).unwrap()
    }

    /// A guard, an insert, a mutation of row B and a select, tagged 0 to 3.
    fn transaction() -> (Transaction<u8>, NewRow, Selection) {
        let mut txn = Transaction::new(0);
        txn.require(Bridge::NAME.equals("br0"));
        let row = txn.tag(1).insert(&Values::new().with(Interface::NAME, "tap0"));
        txn.tag(2).mutate(uuid(B), [Port::TRUNKS.insert([5])]);
        let selection = txn.tag(3).select::<Port>(uuid(B), &["name", "trunks"]);
        (txn, row, selection)
    }

    #[test]
    fn every_result_is_read() {
        let (txn, row, selection) = transaction();
        let answer = annotated::json(&format!(
            r#"[
            {{}},                                                  // wait
            {{ "uuid": ["uuid", "{A}"] }},                         // insert
            {{ "count": 1 }},                                      // mutate: rows found
            {{ "rows": [{{ "name": "p", "trunks": ["set", [1, 5]] }}] }}  // select
        ]"#
        ));
        let Outcome::Committed(applied) = txn.outcome(Ok(answer)) else { panic!() };
        assert_eq!(applied.uuid(row), Some(uuid(A)));
        assert_eq!(applied.inserted().collect::<Vec<_>>(), [uuid(A)]);
        assert_eq!(applied.count(2), Some(1));
        assert_eq!(applied.count(1), None);
        let rows = applied.rows(selection);
        assert_eq!(Port::NAME.read(&rows[0]).unwrap(), "p");
        assert_eq!(Port::TRUNKS.read(&rows[0]).unwrap(), [1, 5].into());
        assert_eq!(Port::TAG.read(&rows[0]).unwrap_err().to_string(), "tag: not in the row");
    }

    #[test]
    fn errors_are_attributed() {
        let (txn, ..) = transaction();
        let guard = annotated::json(
            r#"[
            { "error": "timed out", "details": "\"where\" clause test failed" },
            null, null, null                                       // not tried
        ]"#,
        );
        assert_eq!(txn.outcome(Ok(guard)), Outcome::Conflict { op: 0, tag: 0 });

        let operation = annotated::json(&format!(
            r#"[
            {{}}, {{ "uuid": ["uuid", "{A}"] }},
            {{ "error": "constraint violation", "details": "5000 is not in the valid range 0 to 4095 (inclusive)" }},
            null
        ]"#
        ));
        let Outcome::Rejected(rejection) = txn.outcome(Ok(operation)) else { panic!() };
        assert_eq!((rejection.op, rejection.tag), (Some(2), Some(2)));
        assert_eq!(rejection.suspects, []);
        assert_eq!(rejection.error.kind(), ErrorKind::ConstraintViolation);

        // One element more than there were operations: all of them worked, and the commit did not.
        let commit = |details: &str| {
            annotated::json(&format!(
                r#"[ {{}}, {{ "uuid": ["uuid", "{A}"] }}, {{ "count": 1 }}, {{ "rows": [] }},
                     {{ "error": "referential integrity violation", "details": "{details}" }} ]"#
            ))
        };
        for (details, suspects) in [
            (format!("row {A} was inserted by this transaction"), vec![(1, 1)]),
            (format!("row {B}, and ({A})"), vec![(1, 1), (2, 2)]),
            ("something of no rows".to_owned(), vec![]),
        ] {
            let Outcome::Rejected(rejection) = txn.outcome(Ok(commit(&details))) else { panic!() };
            assert_eq!((rejection.op, rejection.tag), (None, None));
            assert_eq!(rejection.suspects, suspects, "{details}");
            assert_eq!(rejection.error.kind(), ErrorKind::ReferentialIntegrity);
        }

        let error = ServerError { error: "unknown database".to_owned(), details: None };
        let Outcome::Rejected(rejection) = txn.outcome(Err(error.clone())) else { panic!() };
        assert_eq!((rejection.op, rejection.error), (None, error));
    }

    #[test]
    fn a_timeout_of_anything_but_a_wait_is_no_conflict() {
        let mut txn = Transaction::new(());
        txn.comment("x");
        let answer = annotated::json(r#"[{ "error": "timed out" }]"#);
        assert_eq!(txn.outcome(Ok(answer)).name(), "rejected");
    }

    #[test]
    fn what_found_no_row_changed_nothing() {
        let mut txn = Transaction::new(());
        txn.delete::<Port>(uuid(B));
        assert_eq!(txn.outcome(Ok(annotated::json(r#"[{ "count": 0 }]"#))).name(), "unchanged");
        assert_eq!(txn.outcome(Ok(annotated::json(r#"[{ "count": 1 }]"#))).name(), "committed");
    }

    #[test]
    fn an_answer_that_makes_no_sense_proves_nothing() {
        let (txn, ..) = transaction();
        for answer in ["null", "{}", "[]", "[{},{},{},{}]", r#"[{},{"uuid":"x"},{"count":1},{"rows":[]}]"#] {
            assert_eq!(txn.outcome(Ok(annotated::json(answer))), Outcome::Unknown, "{answer}");
        }
    }
}
