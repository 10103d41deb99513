//! The library against a real ovsdb-server: transactions and what becomes of them, the replica and what it
//! follows. Connections of other kinds and their failures are in `connections.rs`.

#![allow(missing_docs)]

mod ovs;

use ovs::Server;
use ovsdb::outcome::Outcome;
use ovsdb::session::Handle;
use ovsdb::transact::{NewRow, Transaction, Values};
use ovsdb::value::Uuid;
use ovsdb::vswitch::{Bridge, Interface, OpenVSwitch, Port, Snapshot};

fn database(handle: &Handle<Snapshot>) -> std::sync::Arc<Snapshot> {
    handle.snapshot().borrow().ready().expect("ready").clone()
}

/// Puts a port with one interface on a bridge that the transaction knows by `bridge`.
fn add_port<G: Clone>(txn: &mut Transaction<G>, name: &str, id: &str) -> (NewRow, NewRow) {
    let interface = txn.insert(
        &Values::new()
            .with(Interface::NAME, name)
            .with(Interface::TYPE, "internal")
            .with(Interface::EXTERNAL_IDS, [("iface-id", id)]),
    );
    let port = txn.insert(&Values::new().with(Port::NAME, name).with(Port::INTERFACES, interface));
    (port, interface)
}

/// A bridge `br0` in a database that `ovs-vsctl init` has initialised.
async fn with_bridge(server: &Server) -> (Handle<Snapshot>, Uuid) {
    server.vsctl(&["init"]);
    let handle = server.session().await;
    let mut txn = Transaction::new(());
    let (port, _) = add_port(&mut txn, "br0", "");
    let bridge = txn.insert(&Values::new().with(Bridge::NAME, "br0").with(Bridge::PORTS, port));
    let root = database(&handle).open_vswitch.clone().unwrap();
    txn.mutate(root.uuid, [OpenVSwitch::BRIDGES.insert(bridge)]);
    let Outcome::Committed(applied) = handle.transact(&txn).await else { panic!() };
    (handle, applied.uuid(bridge).unwrap())
}

#[tokio::test]
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
