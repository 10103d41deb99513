//! Transactions and what becomes of them.

use ovsdb::message::ErrorKind;
use ovsdb::outcome::{Outcome, Rejection};
use ovsdb::session::CallError;
use ovsdb::transact::{Transaction, Until, Values, Where};
use ovsdb::value::Uuid;
use ovsdb::vswitch::{Bridge, Interface, Port};

use crate::ovs::{Server, add_port, database, with_bridge};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_committed_is_in_the_snapshot_when_the_answer_comes() {
    let server = Server::start();
    let (handle, bridge) = with_bridge(&server).await;
    for i in 0..200 {
        let name = format!("p{i}");
        let mut txn = Transaction::new(());
        let (port, interface) = add_port(&mut txn, &name, &format!("id-{i}"));
        txn.mutate(bridge, [Bridge::PORTS.insert(port)]);
        let Outcome::Committed(applied) = handle.transact(&txn).await else { panic!() };
        // Not a single await in between: the snapshot has it now or the promise is broken.
        let database = database(&handle);
        let row = database.port(&name).expect("the port is there");
        assert_eq!(Some(row.uuid), applied.uuid(port));
        assert_eq!(database.bridge_of_port(row.uuid).unwrap().name, "br0");
        assert_eq!(database.interface(&name).map(|row| row.uuid), applied.uuid(interface));
        let found: Vec<_> = database.interfaces_with("iface-id", &format!("id-{i}")).collect();
        assert_eq!(found.len(), 1);
        assert_eq!(database.port_of_interface(found[0].uuid).unwrap().uuid, row.uuid);
    }
    assert_eq!(server.vsctl(&["list-ports", "br0"]).lines().count(), 200);
}

#[tokio::test]
async fn a_failed_guard_is_a_conflict_and_names_its_tag() {
    let server = Server::start();
    let (handle, bridge) = with_bridge(&server).await;
    let mut txn = Transaction::new("bridge");
    txn.require(Bridge::NAME.equals("br0"));
    txn.tag("port");
    txn.require_none(Port::NAME.equals("br0"));
    txn.tag("change");
    txn.mutate(bridge, Bridge::EXTERNAL_IDS.put([("k", "v")]));
    assert_eq!(handle.transact(&txn).await, Outcome::Conflict { op: 1, tag: "port" });
    assert!(database(&handle).bridge("br0").unwrap().external_ids.is_empty());
    assert!(handle.snapshot().borrow().ready().is_some());
}

fn rejection<G>(outcome: Outcome<G>) -> Rejection<G>
where
    G: std::fmt::Debug,
{
    match outcome {
        Outcome::Rejected(rejection) => rejection,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_operation_that_fails_is_named() {
    let server = Server::start();
    let (handle, bridge) = with_bridge(&server).await;
    let mut txn = Transaction::new(0);
    add_port(&mut txn, "good", "");
    txn.tag(1);
    let interface = txn.insert(&Values::new().with(Interface::NAME, "bad"));
    let row = Values::new().with(Port::NAME, "bad").with(Port::INTERFACES, interface).with(Port::TAG, 5000);
    let port = txn.insert(&row);
    txn.tag(2);
    txn.mutate(bridge, [Bridge::PORTS.insert(port)]);
    let rejection = rejection(handle.transact(&txn).await);
    assert_eq!((rejection.op, rejection.tag), (Some(3), Some(1)));
    assert_eq!(rejection.error.kind(), ErrorKind::ConstraintViolation);
    assert_eq!(
        rejection.error.to_string(),
        "constraint violation: 5000 is not in the valid range 0 to 4095 (inclusive)"
    );
    assert!(database(&handle).port("good").is_none());
}

#[tokio::test]
async fn a_commit_that_fails_is_told_from_an_operation_and_traced_to_its_rows() {
    let server = Server::start();
    let (handle, bridge) = with_bridge(&server).await;

    // A name that is taken: the schema's index is checked at the commit.
    let mut txn = Transaction::new("good");
    let (good, _) = add_port(&mut txn, "good", "");
    txn.tag("twin");
    let (twin, _) = add_port(&mut txn, "br0", "");
    txn.tag("bridge");
    txn.mutate(bridge, [Bridge::PORTS.insert([good, twin])]);
    let taken = rejection(handle.transact(&txn).await);
    assert_eq!((taken.op, taken.tag), (None, None));
    assert_eq!(taken.error.kind(), ErrorKind::ConstraintViolation);
    assert_eq!(taken.suspects.len(), 1, "{taken:?}");
    assert_eq!(taken.suspects[0].1, "twin");

    // A reference to a row that does not exist.
    let mut txn = Transaction::new("reference");
    txn.comment("something harmless first");
    txn.mutate(bridge, [Bridge::PORTS.insert(Uuid::from_u128(1))]);
    let dangling = rejection(handle.transact(&txn).await);
    assert_eq!(dangling.op, None);
    assert_eq!(dangling.error.kind(), ErrorKind::ReferentialIntegrity);
    assert_eq!(dangling.suspects, [(1, "reference")]);

    // A row that others refer to.
    let mut txn = Transaction::new("delete");
    txn.delete::<Port>(database(&handle).port("br0").unwrap().uuid);
    let referred = rejection(handle.transact(&txn).await);
    assert_eq!(referred.error.kind(), ErrorKind::ReferentialIntegrity);
    assert_eq!(referred.suspects, [(0, "delete")]);
    assert!(database(&handle).port("good").is_none());
}

#[tokio::test]
async fn mutations_touch_their_part_and_nothing_else() {
    let server = Server::start();
    let (handle, bridge) = with_bridge(&server).await;
    server.vsctl(&["set", "bridge", "br0", "external_ids:theirs=1", "external_ids:shared=old"]);

    let mut txn = Transaction::new(());
    txn.mutate(bridge, Bridge::EXTERNAL_IDS.put([("ours", "1"), ("shared", "new")]));
    assert_eq!(handle.transact(&txn).await.name(), "committed");
    let ids = &database(&handle).bridge("br0").unwrap().external_ids.clone();
    let pairs: Vec<_> = ids.iter().collect();
    assert_eq!(pairs, [("ours", "1"), ("shared", "new"), ("theirs", "1")]);

    let mut txn = Transaction::new(());
    let remove = [Bridge::EXTERNAL_IDS.remove([("shared", "old")]), Bridge::EXTERNAL_IDS.remove_keys(["ours"])];
    txn.mutate(bridge, remove);
    assert_eq!(handle.transact(&txn).await.name(), "committed");
    let ids = &database(&handle).bridge("br0").unwrap().external_ids.clone();
    let pairs: Vec<_> = ids.iter().collect();
    assert_eq!(pairs, [("shared", "new"), ("theirs", "1")], "a pair of another value stays");
}

#[tokio::test]
async fn selects_guards_and_unfound_rows() {
    let server = Server::start();
    let (handle, bridge) = with_bridge(&server).await;

    let mut txn = Transaction::new(());
    let rows = txn.select::<Bridge>(bridge, &["name", "fail_mode", "external_ids"]);
    let same = [Values::new().with(Bridge::NAME, "br0").with(Bridge::FAIL_MODE, None)];
    txn.wait(bridge, Until::Equal, &same);
    txn.delete::<Port>(Uuid::from_u128(1));
    let Outcome::Unchanged(applied) = handle.transact(&txn).await else { panic!() };
    assert_eq!(Bridge::NAME.read(&applied.rows(rows)[0]).unwrap(), "br0");
    assert_eq!(Bridge::FAIL_MODE.read(&applied.rows(rows)[0]).unwrap(), None);
    assert_eq!(applied.count(2), Some(0));

    // The guard that plugging relies on: this row, still with this pair.
    let guard = |id: &str| {
        let mut txn = Transaction::new(());
        txn.require(Where::from(bridge).and(Bridge::EXTERNAL_IDS.includes([("id", id)])));
        txn.mutate(bridge, Bridge::OTHER_CONFIG.put([("seen", id)]));
        txn
    };
    assert_eq!(handle.transact(&guard("x")).await.name(), "conflict");
    server.vsctl(&["set", "bridge", "br0", "external_ids:id=x"]);
    assert_eq!(handle.transact(&guard("x")).await.name(), "committed");
    assert_eq!(handle.transact(&Transaction::new(())).await.name(), "unchanged");
}

#[tokio::test]
async fn what_the_server_would_hang_up_on_is_not_sent() {
    let server = Server::start();
    let (handle, bridge) = with_bridge(&server).await;
    let mut txn = Transaction::new("fine");
    txn.comment("x");
    txn.tag("nul");
    txn.mutate(bridge, Bridge::EXTERNAL_IDS.put([("k", "a\0b")]));
    let refused = rejection(handle.transact(&txn).await);
    assert_eq!((refused.op, refused.tag), (Some(1), Some("nul")));
    let params = serde_json::json!(["Open_vSwitch", {"op": "comment", "comment": "a\0b"}]);
    let Err(CallError::Server(error)) = handle.call("transact", &params).await else { panic!() };
    assert_eq!(error.kind(), ErrorKind::Syntax);

    // Not superstition: this is what a NUL does to a connection.
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut raw = tokio::net::UnixStream::connect(server.path("db.sock")).await.unwrap();
    raw.write_all(&ovsdb::message::request(1, "transact", &params)).await.unwrap();
    assert_eq!(raw.read(&mut [0; 64]).await.unwrap(), 0);
    assert_eq!(handle.statistics().connections, 1);
}

#[tokio::test]
async fn four_thousand_ports_in_one_transaction_and_one_notification() {
    let server = Server::start();
    let (handle, bridge) = with_bridge(&server).await;
    let before = handle.statistics();
    let mut txn = Transaction::new(0);
    let mut ports = Vec::new();
    for i in 0..4000 {
        txn.tag(i);
        ports.push(add_port(&mut txn, &format!("p{i}"), &format!("id-{i}")).0);
    }
    txn.mutate(bridge, [Bridge::PORTS.insert(ports)]);
    let mut views = handle.snapshot();
    views.borrow_and_update();
    let watcher = tokio::spawn(async move {
        let mut sizes = Vec::new();
        while sizes.last() != Some(&4001) {
            views.changed().await.unwrap();
            sizes.push(views.borrow_and_update().ready().unwrap().ports.len());
        }
        sizes
    });
    let Outcome::Committed(applied) = handle.transact(&txn).await else { panic!() };
    assert_eq!(applied.inserted().count(), 8000);
    assert_eq!(database(&handle).ports.len(), 4001);
    assert_eq!(watcher.await.unwrap(), [4001], "one transaction, one notification");
    let after = handle.statistics();
    assert_eq!(after.messages_sent, before.messages_sent + 1);
    // The update and the answer; nothing in small pieces.
    assert_eq!(after.messages_received, before.messages_received + 2);

    let begun = std::time::Instant::now();
    let second = server.session().await;
    println!("4,001 ports: a session is ready {:?} after its start", begun.elapsed());
    let (first, second) = (database(&handle), database(&second));
    assert_eq!(*first, *second, "the followed and the fresh replica are the same, indexes included");
    assert_eq!(second.interfaces_with("iface-id", "id-3999").count(), 1);
}
