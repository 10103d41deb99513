//! What became of a transaction: whatever the server answers, nothing is taken for committed that an error speaks of.

use ovsdb::message::ServerError;
use ovsdb::outcome::Outcome;
use ovsdb::transact::{Transaction, Values};
use ovsdb::value::parse_uuid;
use ovsdb::vswitch::{Bridge, Interface, Port};
use serde_json::Value;

use super::{choice, presentable};

/// The row that the transaction of this target changes.
const ROW: &str = "bbbbbbbb-0000-4000-8000-00000000000b";

pub(crate) fn check(data: &[u8]) -> bool {
    let (choice, data) = choice(data);
    let Ok(answer) = serde_json::from_slice::<Value>(data) else { return false };
    // One operation of each kind, tagged by position.
    let mut txn = Transaction::new(0);
    txn.require(Bridge::NAME.equals("br0"));
    let row = txn.tag(1).insert(&Values::new().with(Interface::NAME, "tap0"));
    let known = parse_uuid(ROW).expect("it is one");
    txn.tag(2).mutate(known, [Port::TRUNKS.insert([5])]);
    let selection = txn.tag(3).select::<Port>(known, &["name", "trunks"]);
    txn.tag(4).comment("a comment");

    let is_error = |result: &Value| result.get("error").is_some_and(|error| !error.is_null());
    let failed = answer.as_array().is_some_and(|results| results.iter().any(is_error));
    let refused = choice % 8 == 0;
    let outcome = txn.outcome(if refused { Err(ServerError::decode(&answer)) } else { Ok(answer) });
    assert!(outcome.applied().is_none() || !(failed || refused), "{outcome:?}");
    match outcome {
        Outcome::Committed(applied) | Outcome::Unchanged(applied) => {
            assert!(applied.uuid(row).is_some(), "an insert that has no identity");
            assert!(applied.count(2).is_some());
            for found in applied.rows(selection) {
                if let Err(error) = Port::NAME.read(found) {
                    presentable(&error);
                }
            }
            true
        }
        Outcome::Conflict { op, tag } => {
            assert_eq!((op, tag), (0, 0), "only the guard can conflict");
            true
        }
        Outcome::Rejected(rejection) => {
            presentable(&rejection.error);
            assert_eq!(rejection.op, rejection.tag);
            assert!(rejection.suspects.iter().all(|(op, tag)| op == tag && [1, 2].contains(op)));
            true
        }
        Outcome::NotSent => panic!("it was answered"),
        Outcome::Unknown => false,
    }
}
