//! Watching the flows of a real switch.

use flows::FlowTable;
use flows::message::{FlowUpdate, UpdateEvent, UpdatedFlow};
use flows::session::{FlowWatch, Outcome, WatchEnd, WatchEvent};

use crate::ovs::{PATIENCE, Switch, add, flow, many, output_to, path, wait_ready};

async fn next(watch: &mut FlowWatch) -> Result<Vec<FlowUpdate>, WatchEnd> {
    match tokio::time::timeout(PATIENCE, watch.next()).await.expect("an update")? {
        WatchEvent::Updates(updates) => Ok(updates),
        WatchEvent::Complete => Ok(Vec::new()),
    }
}

/// The next update of a flow.
async fn one(watch: &mut FlowWatch) -> UpdatedFlow {
    let updates = next(watch).await.unwrap();
    match &updates[..] {
        [FlowUpdate::Flow(flow)] => flow.clone(),
        other => panic!("{other:?}"),
    }
}

/// Follows what happens until `enough`.
async fn follow(watch: &mut FlowWatch, table: &mut FlowTable, enough: impl Fn(&FlowTable, bool) -> bool) {
    let mut resumed = false;
    while !enough(table, resumed) {
        for update in next(watch).await.unwrap() {
            match update {
                FlowUpdate::Flow(update) => drop(table.update(update)),
                FlowUpdate::Paused => resumed = false,
                FlowUpdate::Resumed => resumed = true,
                FlowUpdate::Abbreviated { xid } => panic!("abbreviated: {xid}"),
            }
        }
    }
}

#[tokio::test]
async fn whatever_anyone_does_is_seen() {
    let switch = Switch::start();
    let handle = switch.session().await;
    switch.ofctl("add-flow", &["cookie=1,table=2,priority=3,in_port=1,actions=output:2"]);
    let mut watch = handle.watch_flows().await.unwrap();
    let initial = one(&mut watch).await;
    assert_eq!((initial.event, initial.table, initial.priority, initial.cookie), (UpdateEvent::Initial, 2, 3, 1));
    assert_eq!(initial.instructions.apply[..], [output_to(2)]);
    assert_eq!(next(&mut watch).await, Ok(Vec::new()), "complete");

    switch.ofctl("add-flow", &["cookie=2,priority=7,idle_timeout=60,actions=drop"]);
    let added = one(&mut watch).await;
    assert_eq!((added.event, added.cookie, added.idle_timeout), (UpdateEvent::Added, 2, 60));
    switch.ofctl("mod-flows", &["table=2,actions=output:3"]);
    let modified = one(&mut watch).await;
    assert_eq!((modified.event, modified.cookie), (UpdateEvent::Modified, 1));
    assert_eq!(modified.instructions.apply[..], [output_to(3)]);
    switch.ofctl("del-flows", &["table=2"]);
    let removed = one(&mut watch).await;
    assert_eq!((removed.event, removed.cookie, removed.reason), (UpdateEvent::Removed, 1, 2));

    // Our own doings come in full, too.
    assert_eq!(handle.bundle(vec![add(&flow(9, 1, 3, "", &[]))]).await, Outcome::Committed);
    let own = one(&mut watch).await;
    assert_eq!((own.event, own.table, own.cookie), (UpdateEvent::Added, 9, 3));

    // Another watch can follow when this one is gone, and sees what is there.
    drop(watch);
    let mut table = FlowTable::new();
    let mut watch = handle.watch_flows().await.unwrap();
    follow(&mut watch, &mut table, |table, _| table.len() == 2).await;
    let there = handle.dump_flows().await.unwrap().into_iter().map(|stats| stats.flow).collect();
    assert_eq!(table, there);
}

#[tokio::test]
async fn after_a_pause_nothing_is_missing() {
    let switch = Switch::start();
    let handle = switch.session().await;
    let mut watch = handle.watch_flows().await.unwrap();
    // The session has no thread of its own and stands still while other programs run: there soon is more to tell than
    // the socket has room for, and Open vSwitch pauses.
    let added = switch.path("flows");
    let lines = (0..20_000).map(|number: u32| {
        let [_, a, b, c] = number.to_be_bytes();
        format!("cookie=7,priority=100,in_port=1,dl_src=02:00:00:{a:02x}:{b:02x}:{c:02x},actions=output:2\n")
    });
    std::fs::write(&added, lines.collect::<String>()).unwrap();
    switch.ofctl("add-flows", &["--bundle", path(&added)]);
    // What happens in the pause: some of the flows go, some change, some come.
    switch.ofctl("del-flows", &["in_port=1,dl_src=02:00:00:00:00:00/ff:ff:ff:ff:f0:00"]);
    switch.ofctl("mod-flows", &["in_port=1,dl_src=02:00:00:00:10:00/ff:ff:ff:ff:f0:00,actions=output:3"]);
    switch.ofctl("add-flow", &["cookie=8,table=1,actions=drop"]);
    let mut table = FlowTable::new();
    follow(&mut watch, &mut table, |table, resumed| table.len() == 20_000 - 4096 + 1 && resumed).await;
    let there: FlowTable = handle.dump_flows().await.unwrap().into_iter().map(|stats| stats.flow).collect();
    assert_eq!(table, there);
    let changed = table.iter().filter(|flow| flow.instructions.apply[..] == [output_to(3)]).count();
    assert_eq!(changed, 4096);
    switch.ofctl("del-flows", &[]);
    follow(&mut watch, &mut table, |table, _| table.is_empty()).await;
}

#[tokio::test]
async fn a_flush_by_a_change_of_the_bridge_is_seen() {
    let switch = Switch::start();
    let handle = switch.session().await;
    assert_eq!(handle.bundle(many(100, 7).iter().map(add).collect()).await, Outcome::Committed);
    let mut watch = handle.watch_flows().await.unwrap();
    let mut table = FlowTable::new();
    follow(&mut watch, &mut table, |table, _| table.len() == 100).await;
    switch.vsctl(&["set", "bridge", "br0", "fail_mode=standalone"]);
    // Ours go; a standalone bridge has one flow of its own.
    follow(&mut watch, &mut table, |table, _| table.iter().all(|flow| flow.cookie != 7)).await;
    assert_eq!(handle.statistics().connections, 1, "the connection stayed up");
}

#[tokio::test]
async fn the_end_of_the_switch_ends_the_watching() {
    let mut switch = Switch::start();
    let handle = switch.session().await;
    let mut watch = handle.watch_flows().await.unwrap();
    assert_eq!(next(&mut watch).await, Ok(Vec::new()), "complete");
    switch.down();
    assert_eq!(next(&mut watch).await, Err(WatchEnd::Disconnected));
    switch.up();
    wait_ready(&handle).await;
    let mut watch = handle.watch_flows().await.unwrap();
    assert_eq!(next(&mut watch).await, Ok(Vec::new()), "complete");
}
