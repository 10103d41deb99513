//! The replica follows the database, whichever way it is monitored.

use std::io;

use ovsdb::endpoint::{Connect, Connecting};
use ovsdb::framing::{Limits, Splitter};
use ovsdb::outcome::Outcome;
use ovsdb::session::{Config, Handle};
use ovsdb::transact::{Transaction, Values, Where};
use ovsdb::value::Uuid;
use ovsdb::vswitch::{Bridge, Interface, OpenVSwitch, Port, Qos, Snapshot};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use crate::ovs::{Server, add_port, database, ready, with_bridge};

/// A way to a server on which calls of some methods get lost in translation, as if the server were older.
struct Older {
    path: std::path::PathBuf,
    lacks: &'static [&'static str],
}

impl Connect for Older {
    fn connect(&self) -> Connecting<'_> {
        Box::pin(async move {
            let (mut from_server, mut to_server) = UnixStream::connect(&self.path).await?.into_split();
            let (ours, theirs) = tokio::io::duplex(1 << 20);
            let (mut from_client, mut to_client) = tokio::io::split(theirs);
            tokio::spawn(async move { tokio::io::copy(&mut from_server, &mut to_client).await });
            let lacks = self.lacks;
            tokio::spawn(async move {
                let mut splitter = Splitter::new(Limits::default());
                while from_client.read_buf(splitter.buffer()).await? > 0 {
                    while let Some(message) = splitter.next_message().unwrap() {
                        let mut text = String::from_utf8(message.to_vec()).unwrap();
                        for method in lacks {
                            text = text.replace(&format!("\"{method}\""), "\"no_such_method\"");
                        }
                        to_server.write_all(text.as_bytes()).await?;
                    }
                }
                io::Result::Ok(())
            });
            Ok(Box::new(ours) as Box<_>)
        })
    }

    fn target(&self) -> String {
        "an older server".to_owned()
    }
}

/// Numbers that look random and are the same in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> Option<T> {
        (!from.is_empty()).then(|| from[self.below(from.len() as u64) as usize])
    }
}

/// One transaction of some operations on columns of every kind.
fn change(dice: &mut Dice, now: &Snapshot, bridge: Uuid, serial: u64) -> Transaction {
    let ports: Vec<Uuid> = now.ports.values().filter(|port| port.name != "br0").map(|port| port.uuid).collect();
    let interfaces: Vec<Uuid> = now.interfaces.keys().copied().collect();
    let qos: Vec<Uuid> = now.qos.keys().copied().collect();
    let mut txn = Transaction::new(());
    for step in 0..=dice.below(4) {
        let (key, value) = (format!("k{}", dice.below(4)), format!("v{}", dice.below(3)));
        let (a, b) = (dice.below(12).cast_signed(), dice.below(12).cast_signed());
        match dice.below(12) {
            0 | 1 => {
                let (port, _) = add_port(&mut txn, &format!("p{serial}-{step}"), &value);
                txn.mutate(bridge, [Bridge::PORTS.insert(port)]);
            }
            2 if ports.len() > 4 => {
                let port = dice.pick(&ports).unwrap();
                txn.mutate(bridge, [Bridge::PORTS.remove(port)]);
                // The row is gone with its last reference; operations on it find nothing.
            }
            3 => drop(txn.insert(&Values::new().with(Qos::TYPE, key.as_str()))),
            4 if qos.len() > 2 => txn.delete::<Qos>(dice.pick(&qos).unwrap()),
            _ => {
                if let Some(port) = dice.pick(&ports) {
                    let tag = (a > 3).then_some(a);
                    txn.update(port, &Values::new().with(Port::TAG, tag));
                    txn.mutate(port, [Port::TRUNKS.insert([a, b]), Port::TRUNKS.remove([b + 1])]);
                    txn.mutate(port, Port::EXTERNAL_IDS.put([(key.as_str(), value.as_str())]));
                }
                if let Some(interface) = dice.pick(&interfaces) {
                    txn.mutate(interface, [Interface::EXTERNAL_IDS.remove_keys([format!("k{}", a % 4)])]);
                    txn.mutate(interface, Interface::EXTERNAL_IDS.put([("iface-id", value.as_str())]));
                    txn.update(interface, &Values::new().with(Interface::OFPORT, Some(b)));
                }
                if let Some(qos) = dice.pick(&qos) {
                    txn.update(qos, &Values::new().with(Qos::TYPE, value.as_str()));
                }
            }
        }
    }
    // With it every session knows when it has seen everything before.
    txn.mutate(Where::all(), [OpenVSwitch::NEXT_CFG.increase_by(1)]);
    txn
}

#[tokio::test]
async fn all_ways_of_monitoring_see_what_a_fresh_reader_sees() {
    let server = Server::start();
    let (writer, bridge) = with_bridge(&server).await;
    let older = |lacks| ready(Config::new(Older { path: server.path("db.sock"), lacks }));
    let update2 = older(&["monitor_cond_since"]).await;
    let update1 = older(&["monitor_cond_since", "monitor_cond"]).await;
    let mut dice = Dice(7);
    let mut changed = 0;
    for serial in 0..300 {
        let txn = change(&mut dice, &database(&writer), bridge, serial);
        match writer.transact(&txn).await {
            Outcome::Committed(_) => changed += 1,
            other => panic!("{serial}: {other:?} {:?}", txn.to_json()),
        }
        if serial % 20 == 0 {
            let fresh = database(&server.session().await);
            let seen = |handle: &Handle<Snapshot>| {
                let (mut views, fresh) = (handle.snapshot(), fresh.clone());
                async move {
                    let target = fresh.root().unwrap().next_cfg;
                    let there =
                        views.wait_for(|view| view.ready().is_some_and(|db| db.root().unwrap().next_cfg == target));
                    there.await.unwrap().ready().unwrap().clone()
                }
            };
            for handle in [&writer, &update2, &update1] {
                assert_eq!(*seen(handle).await, *fresh, "after transaction {serial}");
            }
        }
    }
    assert_eq!(changed, 300);
    for handle in [&writer, &update2, &update1] {
        assert_eq!(handle.statistics().connections, 1, "no update was impossible");
    }
    assert!(database(&writer).ports.len() > 20 && database(&writer).qos.len() > 2);
}

#[tokio::test]
async fn others_writes_are_seen() {
    let server = Server::start();
    let (handle, _) = with_bridge(&server).await;
    let mut views = handle.snapshot();
    server.vsctl(&[
        "add-port",
        "br0",
        "theirs",
        "tag=7",
        "--",
        "set",
        "interface",
        "theirs",
        "external_ids:iface-id=x",
    ]);
    let view = views.wait_for(|view| view.ready().is_some_and(|db| db.port("theirs").is_some())).await.unwrap().clone();
    let database = view.ready().unwrap();
    assert_eq!(database.port("theirs").unwrap().tag, Some(7));
    assert_eq!(database.interfaces_with("iface-id", "x").next().unwrap().name, "theirs");
    server.vsctl(&["del-port", "theirs"]);
    views.wait_for(|view| view.ready().is_some_and(|db| db.interface("theirs").is_none())).await.unwrap();
    assert!(database.port("theirs").is_some(), "the older snapshot is as it was");
}

#[tokio::test]
async fn a_condition_leaves_other_rows_out() {
    let server = Server::start();
    let (everything, _) = with_bridge(&server).await;
    for (port, tag) in [("a", "tag=1"), ("b", "tag=2")] {
        server.vsctl(&["add-port", "br0", port, tag]);
    }
    let config = Config::endpoint(server.endpoint().parse().unwrap(), None).only(&Port::TAG.equals(Some(1)));
    let handle = ready(config).await;
    assert_eq!(database(&handle).ports.values().map(|port| port.name.as_str()).collect::<Vec<_>>(), ["a"]);
    assert_eq!(database(&handle).interfaces.len(), 3);
    // A row that comes to meet the condition is an insert, one that ceases to, a delete.
    let mut views = handle.snapshot();
    server.vsctl(&["set", "port", "b", "tag=1", "--", "set", "port", "a", "tag=3"]);
    let moved = views.wait_for(|view| view.ready().is_some_and(|db| db.port("b").is_some()));
    assert!(moved.await.unwrap().ready().unwrap().port("a").is_none());
    assert_eq!(database(&everything).ports.len(), 3);
}
