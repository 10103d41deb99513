//! A host that os-vif 5.3.0 plugged is taken over: with a record for each VIF and `adopt = "os-vif"`, marks are added and
//! nothing else changes; no packet is lost; and what is unplugged later goes as os-vif would have it go.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use vifd_integration::lab::{
    Domain, Guest, Host, Hostile, Link, OsVif, OsVifConfig, Ovs, Record, Row, Switch, Vifd, differences, find_tool,
    guest_record,
};

const TABLES: [&str; 4] = ["Bridge", "Port", "Interface", "QoS"];
/// Columns in which ovs-vswitchd counts or tells of moments.
const COUNTED: [&str; 5] = ["statistics", "status", "rstp_status", "rstp_statistics", "_version"];
/// What adopting may add to a map.
const MARKS: [&str; 6] = ["vifd-owner", "vifd-vif", "vifd-format", "vm-id", "vm-uuid", "transient"];

/// Everything there is on a host.
#[derive(Clone, Debug, PartialEq)]
struct Seen {
    /// By table and UUID.
    rows: BTreeMap<(String, String), Row>,
    links: BTreeMap<String, Link>,
}

impl Seen {
    fn of(ovs: &Ovs) -> Result<Seen> {
        let mut rows = BTreeMap::new();
        for (table, all) in ovs.tables(TABLES)? {
            for mut row in all {
                row.retain(|column, _| !COUNTED.contains(&column.as_str()));
                rows.insert((table.to_owned(), row["_uuid"].as_str().unwrap_or_default().to_owned()), row);
            }
        }
        Ok(Seen { rows, links: ovs.namespace().links()?.into_iter().collect() })
    }

    /// What differs from `before`, a line each.
    fn changes(&self, before: &Seen) -> Vec<String> {
        let mut found = Vec::new();
        for key in before.rows.keys().chain(self.rows.keys()) {
            match (before.rows.get(key), self.rows.get(key)) {
                (Some(was), Some(is)) => {
                    let columns = was.iter().filter(|(column, value)| is.get(*column) != Some(value));
                    found.extend(
                        columns.map(|(column, was)| format!("{key:?} {column}: {was} -> {:?}", is.get(column))),
                    );
                }
                (was, is) => found.push(format!("{key:?}: {was:?} -> {is:?}")),
            }
        }
        for name in before.links.keys().chain(self.links.keys()) {
            let (was, is) = (before.links.get(name), self.links.get(name));
            if was != is {
                found.push(format!("link {name}: {was:?} -> {is:?}"));
            }
        }
        found.sort();
        found.dedup();
        found
    }

    /// The same host without the marks that were not there before.
    fn unmarked(&self, before: &Seen) -> Seen {
        let mut bare = self.clone();
        for (key, row) in &mut bare.rows {
            for column in ["external_ids", "other_config"] {
                let had = |entry: &str| before.rows.get(key).is_some_and(|row| row[column].get(entry).is_some());
                if let Some(Value::Object(map)) = row.get_mut(column) {
                    map.retain(|key, _| !MARKS.contains(&key.as_str()) || had(key));
                }
            }
        }
        for link in bare.links.values_mut().filter(|link| link.alias.starts_with("vifd/")) {
            link.alias.clear();
        }
        bare
    }

    /// Ports with our mark, by name.
    fn marked_ports(&self) -> Vec<&str> {
        let ports = self.rows.iter().filter(|((table, _), row)| table == "Port" && is_marked(row));
        ports.filter_map(|(_, row)| row["name"].as_str()).collect()
    }
}

/// Fails when there is more between two looks at a host than marks.
fn unchanged(after: &Seen, before: &Seen) {
    let changes = after.unmarked(before).changes(before);
    assert!(changes.is_empty(), "{}", changes.join("\n"));
}

fn is_marked(row: &Row) -> bool {
    row["external_ids"].get("vifd-owner").is_some()
}

/// The name of the port that os-vif makes for a vhost-user VIF.
fn vhost_port(record: &Record) -> String {
    format!("vhu{}", record.id())[..14].to_owned()
}

fn vhost(ovs: &Ovs, fixture: &str, number: u32) -> Result<Record> {
    let record = Record::fixture(fixture)?.numbered(number);
    let path = ovs.run_directory().join(vhost_port(&record));
    Ok(record.with("path", path.to_string_lossy().as_ref()))
}

fn adopting(ovs: &Ovs, records: &[Record]) -> Result<Vifd> {
    let mut vifd = Vifd::beside(ovs)?;
    vifd.config.adopt = "os-vif".into();
    for record in records {
        vifd.put(record)?;
    }
    Ok(vifd)
}

fn wait_for_all(vifd: &mut Vifd, records: &[Record], phase: &str) -> Result<()> {
    records.iter().try_for_each(|record| vifd.wait_for(&record.id(), phase).map(drop))
}

/// What vifd has written so far neither inserted nor deleted a row.
fn neither_inserted_nor_deleted(ovs: &Ovs, transactions_before: usize) -> Result<()> {
    for record in &ovs.log()?[transactions_before..] {
        for (table, column) in [("Bridge", "name"), ("Port", "name"), ("Interface", "name"), ("QoS", "type")] {
            let (inserted, deleted) = (record.inserted(table, column), record.deleted(table));
            ensure!((inserted, deleted) == (0, 0), "{table}: {inserted} inserted, {deleted} deleted: {record:?}");
        }
    }
    Ok(())
}

/// Every type that os-vif can plug on the userspace datapath, with DPDK for the vhost-user ones, while guests talk.
#[test]
fn a_host_is_taken_over_and_nobody_notices() -> Result<()> {
    let ovs = Ovs::start(Switch::Dpdk)?;
    let mut plain = OsVif::beside(&ovs, OsVifConfig::default())?;
    let mut per_port = OsVif::beside(&ovs, OsVifConfig { per_port_bridge: true, ..OsVifConfig::default() })?;
    let guest = |number| Guest::new(&ovs, guest_record(number, 1)?);
    let (alice, bob, carol, dave) = (guest(1)?, guest(2)?, guest(3)?, guest(4)?);
    let netdev = |fixture: &str, number| -> Result<Record> {
        Ok(Record::fixture(fixture)?.with_profile("datapath_type", "netdev").numbered(number))
    };
    // Nova's default: libvirt makes the port.
    let dave_record = dave.record.clone().with_profile("create_port", false);
    let mut records = vec![
        alice.record.clone(),
        bob.record.clone(),
        dave_record.clone(),
        netdev("openvswitch-create-tap", 5)?,
        netdev("openvswitch-multiqueue", 6)?,
        netdev("openvswitch-trunk", 7)?,
        vhost(&ovs, "vhostuser-client", 8)?,
        // os-vif takes the bridge for the kernel's where nobody says more, and makes a QoS row.
        vhost(&ovs, "vhostuser-server", 9)?.with_profile("datapath_type", Value::Null),
    ];
    for record in &records {
        plain.plug(record)?;
    }
    let apart = [carol.record.clone(), netdev("openvswitch-create-tap", 10)?];
    for record in &apart {
        per_port.plug(record)?;
    }
    records.extend(apart);
    let (name, id, mac) = (dave_record.vif_name(), dave_record.id(), dave_record.mac());
    let ids = [("iface-id", id.as_str()), ("iface-status", "active"), ("attached-mac", mac.as_str())];
    let ids: Vec<String> = ids.iter().map(|(key, value)| format!("external_ids:{key}=\"{value}\"")).collect();
    let mut add = vec!["add-port", "br-int", &name, "--", "set", "Interface", &name];
    add.extend(ids.iter().map(String::as_str));
    ovs.vsctl(add)?;
    ensure!(!ovs.rows("QoS")?.is_empty(), "os-vif made no QoS row");
    for record in records.iter().filter(|record| record.0.to_string().contains("\"create_tap\":true")) {
        // ovs-vswitchd gives a device that it opened before it was up its flags back when the bridge changes.
        ovs.namespace().run("ip", ["link", "set", &record.vif_name(), "up"])?;
    }

    let peers = [&bob, &carol, &dave];
    for peer in peers {
        ensure!(alice.reaches(peer)?, "before vifd");
    }
    let pings = peers.iter().map(|peer| alice.keep_pinging(peer)).collect::<Result<Vec<_>>>()?;
    let (before, transactions) = (Seen::of(&ovs)?, ovs.log()?.len());
    let mut vifd = adopting(&ovs, &records)?;
    vifd.start()?;
    wait_for_all(&mut vifd, &records, "ready")?;
    let after = Seen::of(&ovs)?;
    unchanged(&after, &before);
    let bridges =
        |row: &&str| before.rows.values().any(|bridge| bridge.contains_key("fail_mode") && bridge["name"] == **row);
    let ports = before.rows.iter().filter(|((table, _), _)| table == "Port").map(|(_, row)| &row["name"]);
    let ports: Vec<&str> = ports.filter_map(Value::as_str).filter(|name| !bridges(name)).collect();
    let mut marked = after.marked_ports();
    marked.sort_unstable();
    let mut expected = ports;
    expected.sort_unstable();
    assert_eq!(marked, expected, "every port that os-vif made is ours");
    neither_inserted_nor_deleted(&ovs, transactions)?;
    assert_eq!(vifd.metric("vifd_operations_total", "outcome=\"failed\"")?, 0.0);

    // They are ours by their marks from then on.
    vifd.stop()?;
    vifd.config.adopt = "never".into();
    vifd.start()?;
    wait_for_all(&mut vifd, &records, "ready")?;
    assert_eq!(vifd.metric("vifd_writes_total", "")?, 0.0);
    let changes = Seen::of(&ovs)?.changes(&after);
    assert!(changes.is_empty(), "{}", changes.join("\n"));
    for ping in pings {
        let ping = ping.stop()?;
        ensure!(ping.received + 1 >= ping.sent, "packets were lost: {ping:?}");
    }

    for record in &records {
        vifd.remove(record)?;
        vifd.wait_gone(&record.id())?;
    }
    vifd.until("the trunk's bridge is gone", |_| Ok((ovs.rows("Bridge")?.len() == 1).then_some(())))?;
    assert_eq!(ovs.vsctl(["list-ports", "br-int"])?, "");
    assert_eq!(ovs.rows("QoS")?, Vec::<Row>::new());
    let taps: Vec<_> = ovs.namespace().links()?.into_iter().filter(|(_, link)| !link.alias.is_empty()).collect();
    assert!(taps.is_empty(), "{taps:?}");
    Ok(())
}

/// The kernel's datapath, as far as rows go: dead VLAN and QoS as os-vif makes them, and what neutron and OVN write
/// afterwards.
#[test]
fn what_others_wrote_stays_until_the_port_goes() -> Result<()> {
    let (theirs, ours) = (Ovs::start(Switch::Dummy)?, Ovs::start(Switch::Dummy)?);
    let record = |fixture: &str, number| Ok::<_, anyhow::Error>(Record::fixture(fixture)?.numbered(number));
    let plain = [
        record("openvswitch-create-port", 1)?,
        record("openvswitch-create-tap", 2)?,
        record("openvswitch-multiqueue", 3)?,
        record("openvswitch-trunk", 4)?,
        record("openvswitch-create-tap", 5)?,
    ];
    let apart = [record("openvswitch-create-tap", 6)?, record("openvswitch-create-port", 7)?];
    let records = [&plain[..], &apart].concat();
    for ovs in [&theirs, &ours] {
        let config = OsVifConfig { isolate: true, ..OsVifConfig::default() };
        let mut osvif = OsVif::beside(ovs, config)?;
        plain.iter().try_for_each(|record| osvif.plug(record))?;
        let mut osvif = OsVif::beside(ovs, OsVifConfig { per_port_bridge: true, ..config })?;
        apart.iter().try_for_each(|record| osvif.plug(record))?;
        // The network agent wires one up, and gives one a QoS row of its own.
        let (wired, limited) = (records[0].vif_name(), records[1].vif_name());
        ovs.vsctl(["set", "Port", &wired, "tag=7", "other_config:net_uuid=1", "external_ids:neutron=1"])?;
        ovs.vsctl(["clear", "Port", &wired, "trunks", "vlan_mode"])?;
        ovs.vsctl(["set", "Interface", &wired, "external_ids:ovn-installed=true", "ingress_policing_rate=1000"])?;
        let id = format!("external_ids:id={limited}");
        ovs.vsctl(["--", "set", "Port", &limited, "qos=@q", "--", "--id=@q", "create", "QoS", "type=linux-htb", &id])?;
    }
    let (before, transactions) = (Seen::of(&ours)?, ours.log()?.len());
    let mut vifd = adopting(&ours, &records)?;
    vifd.start()?;
    wait_for_all(&mut vifd, &records, "ready")?;
    unchanged(&Seen::of(&ours)?, &before);
    neither_inserted_nor_deleted(&ours, transactions)?;

    // What is unplugged goes as os-vif has it go.
    for (config, some) in [(false, &plain[..]), (true, &apart)] {
        let mut osvif = OsVif::beside(&theirs, OsVifConfig { per_port_bridge: config, ..OsVifConfig::default() })?;
        some.iter().try_for_each(|record| osvif.unplug(record))?;
    }
    for record in &records {
        vifd.remove(record)?;
        vifd.wait_gone(&record.id())?;
    }
    let model = Host::observe(&theirs)?;
    let mut last = Vec::new();
    let same = vifd.until("both hosts are the same", |_| {
        last =
            differences(&model.0, &Host::observe(&ours)?.0, &["/bridges", "/ports", "/interfaces", "/links", "/qos"]);
        Ok(last.is_empty().then_some(()))
    });
    same.with_context(|| last.join("\n"))
}

/// One thing is not as its record says.
struct Differing {
    fixture: &'static str,
    /// What somebody did to the port `{}` (or the tap) that os-vif made.
    harm: &'static [&'static str],
    /// Of what vifd says.
    says: &'static str,
}

const DIFFERING: &[Differing] = &[
    Differing {
        fixture: "openvswitch-create-port",
        harm: &["ovs-vsctl", "set", "Interface", "{}", "external_ids:iface-id=other"],
        says: "has iface-id other, the record says",
    },
    Differing {
        fixture: "openvswitch-create-tap",
        harm: &["ovs-vsctl", "set", "Interface", "{}", "external_ids:attached-mac=\"22:00:00:00:00:01\""],
        says: "has attached-mac 22:00:00:00:00:01, the record says",
    },
    Differing {
        fixture: "openvswitch-create-tap",
        harm: &["ip", "link", "set", "{}", "address", "22:00:00:00:00:02"],
        says: "has address 22:00:00:00:00:02, the record says",
    },
    Differing {
        fixture: "openvswitch-create-tap",
        harm: &["ip", "link", "del", "{}"],
        says: "has iface-id none, the record says",
    },
    Differing {
        fixture: "openvswitch-create-port",
        harm: &["ovs-vsctl", "del-port", "{}", "--", "add-br", "br-other", "--", "add-port", "br-other", "{}"],
        says: "is on bridge br-other, not on br-int",
    },
    Differing {
        fixture: "openvswitch-create-port",
        harm: &["ovs-vsctl", "set", "Interface", "{}", "type=internal"],
        says: "has type internal, the record says system",
    },
    Differing {
        fixture: "vhostuser-server",
        harm: &["ovs-vsctl", "set", "Interface", "{}", "options:vhost-server-path=/run/other.sock"],
        says: "has vhost-server-path /run/other.sock, the record says",
    },
];

#[test]
fn what_is_not_as_the_record_says_is_a_conflict_and_left_alone() -> Result<()> {
    let ovs = Ovs::start(Switch::Dummy)?;
    let mut osvif = OsVif::beside(&ovs, OsVifConfig::default())?;
    let mut records = Vec::new();
    for (case, number) in DIFFERING.iter().zip(1..) {
        let server = case.fixture == "vhostuser-server";
        let record =
            if server { vhost(&ovs, case.fixture, number)? } else { Record::fixture(case.fixture)?.numbered(number) };
        osvif.plug(&record)?;
        let name = if server { vhost_port(&record) } else { record.vif_name() };
        let harm: Vec<&str> =
            case.harm[1..].iter().map(|word| if *word == "{}" { name.as_str() } else { word }).collect();
        match case.harm[0] {
            "ovs-vsctl" => drop(ovs.vsctl(harm)?),
            program => drop(ovs.namespace().run(program, harm)?),
        }
        if case.harm.contains(&"del") {
            // A tap that is made anew would fall to it.
            ovs.vsctl(["remove", "Interface", &name, "external_ids", "iface-id"])?;
        }
        records.push(record);
    }
    let before = Seen::of(&ovs)?;
    let mut vifd = adopting(&ovs, &records)?;
    vifd.start()?;
    for (record, case) in records.iter().zip(DIFFERING) {
        let status = vifd.wait_for(&record.id(), "conflict")?;
        let message = status["message"].as_str().unwrap_or_default();
        assert!(message.contains(case.says), "{message:?} does not say {:?}", case.says);
    }
    let changes = Seen::of(&ovs)?.changes(&before);
    assert!(changes.is_empty(), "{}", changes.join("\n"));
    assert_eq!(vifd.metric("vifd_writes_total", "")?, 0.0);
    Ok(())
}

/// What is to happen when vifd has decided and the database has yet to hear of it.
static RACE: Mutex<Option<(String, Vec<String>)>> = Mutex::new(None);

fn race(call: &Value) {
    // The marks of an adoption.
    if call["method"] != "transact" || !call.to_string().contains("vifd-owner") {
        return;
    }
    let Some((database, arguments)) = RACE.lock().unwrap_or_else(PoisonError::into_inner).take() else { return };
    let run = || -> Result<bool> {
        let mut command = std::process::Command::new(find_tool("ovs-vsctl")?);
        command.args(["--no-wait", "--timeout=20", &format!("--db={database}")]).args(&arguments);
        Ok(command.status()?.success())
    };
    // Where it did not happen, the test finds no conflict.
    assert!(run().is_ok_and(|done| done), "{arguments:?}");
}

#[test]
fn what_changes_while_vifd_decides_is_not_adopted() -> Result<()> {
    let ovs = Ovs::start(Switch::Dummy)?;
    let mut osvif = OsVif::beside(&ovs, OsVifConfig::default())?;
    let real = ovs.run_directory().join("db.sock");
    let wire = Hostile::listen(&ovs.run_directory().join("watched.sock"), &real, |wire| wire.pass_watched(race))?;
    ovs.vsctl(["add-br", "br-other"])?;
    let mut vifd = Vifd::beside(&ovs)?;
    vifd.config.adopt = "os-vif".into();
    vifd.config.endpoint = Some(wire.endpoint());
    vifd.start()?;
    let races: [(&str, &[&str], &str); 4] = [
        ("openvswitch-create-tap", &["set", "Interface", "{}", "external_ids:iface-id=other"], "has iface-id other"),
        (
            "openvswitch-create-tap",
            &["set", "Interface", "{}", "external_ids:attached-mac=\"22:00:00:00:00:01\""],
            "has attached-mac 22:00:00:00:00:01",
        ),
        (
            "openvswitch-create-tap",
            &[
                "--", "--id=@p", "get", "Port", "{}", "--", "remove", "Bridge", "br-int", "ports", "@p", "--", "add",
                "Bridge", "br-other", "ports", "@p",
            ],
            "is on bridge br-other, not on br-int",
        ),
        // The hypervisor's own port, which needs no adoption.
        ("openvswitch", &["set", "Interface", "{}", "external_ids:iface-id=other"], "has iface-id other"),
    ];
    for ((fixture, harm, says), number) in races.into_iter().zip(1..) {
        let record = Record::fixture(fixture)?.numbered(number);
        osvif.plug(&record)?;
        let (name, id) = (record.vif_name(), record.id());
        if fixture == "openvswitch" {
            let id = format!("external_ids:iface-id={id}");
            ovs.vsctl(["add-port", "br-int", &name, "--", "set", "Interface", &name, &id])?;
        }
        let arguments = harm.iter().map(|word| if *word == "{}" { name.clone() } else { (*word).to_owned() }).collect();
        *RACE.lock().unwrap_or_else(PoisonError::into_inner) = Some((ovs.endpoint(), arguments));
        let conflicts = vifd.metric("vifd_operations_total", "outcome=\"conflict\"")?;
        vifd.put(&record)?;
        vifd.wait_until(&id, "a conflict", |status| {
            status["phase"] == "conflict" && status["message"].as_str().is_some_and(|message| message.contains(says))
        })?;
        assert!(RACE.lock().unwrap_or_else(PoisonError::into_inner).is_none(), "{says}: nothing was adopted");
        vifd.until(&format!("{says}: the database refused it"), |vifd| {
            let refused = vifd.metric("vifd_operations_total", "outcome=\"conflict\"")?;
            Ok((refused > conflicts).then_some(()))
        })?;
        let row = ovs.row("Interface", &name)?.context("the interface")?;
        assert_eq!(row["external_ids"].get("vifd-owner"), None, "{says}");
        assert!(ovs.namespace().link(&name)?.is_none_or(|link| link.alias.is_empty()), "{says}: the tap is marked");
    }
    Ok(())
}

/// What vifd keeps right of its own ports it keeps right of these too, but only once they are its own.
#[test]
fn an_mtu_is_put_right_when_the_port_is_ours() -> Result<()> {
    let ovs = Ovs::start(Switch::Dummy)?;
    let mut osvif = OsVif::beside(&ovs, OsVifConfig::default())?;
    let tap = Record::fixture("openvswitch-create-tap")?.with_network("mtu", 1500);
    let server = vhost(&ovs, "vhostuser-server", 2)?.with_network("mtu", 1500);
    osvif.plug(&tap)?;
    osvif.plug(&server)?;
    let records = [tap.clone().with_network("mtu", 1400), server.with_network("mtu", 1400)];
    let index = |name: &str| Ok::<_, anyhow::Error>(ovs.namespace().link(name)?.context("the tap")?.index);
    let before = index(&tap.vif_name())?;
    let mut vifd = adopting(&ovs, &records)?;
    vifd.start()?;
    vifd.wait_for(&tap.id(), "ready")?;
    // Without DPDK its port does not come up.
    vifd.wait_until(&records[1].id(), "its port", |status| status["reason"] == "DeviceFailed")?;
    assert_eq!(ovs.namespace().link(&tap.vif_name())?.context("the tap")?.mtu, 1400);
    assert_eq!(index(&tap.vif_name())?, before);
    assert_eq!(ovs.row("Interface", &vhost_port(&records[1]))?.context("the port")?["mtu_request"], json!(1400));
    Ok(())
}

/// The steps of `docs/migration.md`.
#[test]
fn a_host_changes_hands_and_back() -> Result<()> {
    let ovs = Ovs::start(Switch::Dummy)?;
    let mut osvif = OsVif::beside(&ovs, OsVifConfig::default())?;
    let fixtures = ["openvswitch-create-port", "openvswitch-create-tap", "openvswitch-multiqueue", "openvswitch-trunk"];
    let numbered = |(fixture, number)| Ok(Record::fixture(fixture)?.numbered(number));
    let records = fixtures.into_iter().zip(1..).map(numbered).collect::<Result<Vec<Record>>>()?;
    let empty = Host::observe(&ovs)?;
    records.iter().try_for_each(|record| osvif.plug(record))?;
    let before = Seen::of(&ovs)?;
    let mut vifd = adopting(&ovs, &records)?;
    vifd.config.mode = "observe".into();
    vifd.start()?;

    let plan: Value = vifd.until("a whole plan", |vifd| {
        let plan: Value = serde_json::from_slice(&vifd.cli(&["plan", "-o", "json"])?.stdout)?;
        Ok(plan["operations"].as_array().is_some_and(|all| all.len() >= 2 * fixtures.len()).then_some(plan))
    })?;
    for operation in plan["operations"].as_array().into_iter().flatten() {
        let words = operation["action"].as_str().unwrap_or_default();
        assert!(words.starts_with("change ") && words.contains(":vifd-owner="), "{words}");
    }
    let conflicts = vifd.cli(&["get", "--phase", "conflict", "-o", "json"])?;
    assert_eq!(serde_json::from_slice::<Value>(&conflicts.stdout)?, json!([]));
    let changes = Seen::of(&ovs)?.changes(&before);
    assert!(changes.is_empty(), "it only looks: {changes:?}");

    for (mode, adopt) in [("enforce", "os-vif"), ("enforce", "never")] {
        (vifd.config.mode, vifd.config.adopt) = (mode.into(), adopt.into());
        vifd.write_config()?;
        vifd.signal(Signal::SIGHUP)?;
        wait_for_all(&mut vifd, &records, "ready")?;
    }
    unchanged(&Seen::of(&ovs)?, &before);
    // nova-compute plugs everything again when it starts.
    let ours = Seen::of(&ovs)?;
    records.iter().try_for_each(|record| osvif.plug(record))?;
    let changes = Seen::of(&ovs)?.changes(&ours);
    assert!(changes.is_empty(), "{}", changes.join("\n"));

    assert!(vifd.cli(&["release", "--yes"])?.status.success());
    vifd.stop()?;
    let left = Seen::of(&ovs)?;
    unchanged(&left, &before);
    assert_eq!(left.marked_ports(), Vec::<&str>::new());
    records.iter().try_for_each(|record| osvif.unplug(record))?;
    let after = Host::observe(&ovs)?;
    assert_eq!((&after.0["qos"], &after.0["links"]), (&empty.0["qos"], &empty.0["links"]));
    assert_eq!(ovs.vsctl(["list-ports", "br-int"])?, "");
    Ok(())
}

/// Between guest and port are a Linux bridge and a veth: all of it is marked, or nothing.
#[test]
fn hybrid_vifs_are_taken_over_with_their_bridges_and_veths() -> Result<()> {
    let (theirs, ours) = (Ovs::start(Switch::Userspace)?, Ovs::start(Switch::Userspace)?);
    let hybrid = |number| -> Result<Record> {
        Ok(Record::fixture("bridge-hybrid")?.with_profile("datapath_type", "netdev").numbered(number))
    };
    let records = [hybrid(11)?, hybrid(12)?];
    let odd = hybrid(13)?;
    let all = [&records[..], std::slice::from_ref(&odd)].concat();
    let mut model = OsVif::beside(&theirs, OsVifConfig::default())?;
    let mut osvif = OsVif::beside(&ours, OsVifConfig::default())?;
    for record in &all {
        model.plug(record)?;
        osvif.plug(record)?;
    }
    let name = |prefix: &str, record: &Record| format!("{prefix}{}", record.id())[..14].to_owned();
    let other = "external_ids:attached-mac=\"22:00:00:00:00:01\"";
    ours.vsctl(["set", "Interface", &name("qvo", &odd), other])?;
    let mut guests = records.clone().map(Domain::define);
    guests.iter_mut().try_for_each(|guest| guest.start(&ours))?;
    let namespace = guests[0].guest()?.namespace();
    ensure!(namespace.ping(&records[1].ip(), 3)?.received > 0, "before vifd");
    let ping = namespace.keep_pinging(&records[1].ip())?;
    let (before, transactions) = (Seen::of(&ours)?, ours.log()?.len());

    let mut vifd = adopting(&ours, &all)?;
    vifd.start()?;
    wait_for_all(&mut vifd, &records, "ready")?;
    let status = vifd.wait_for(&odd.id(), "conflict")?;
    let message = status["message"].as_str().unwrap_or_default();
    assert!(message.contains("has attached-mac 22:00:00:00:00:01, the record says"), "{message}");
    let after = Seen::of(&ours)?;
    unchanged(&after, &before);
    neither_inserted_nor_deleted(&ours, transactions)?;
    let marked: Vec<&str> =
        after.links.iter().filter(|(_, link)| !link.alias.is_empty()).map(|(name, _)| name.as_str()).collect();
    let mut parts: Vec<String> =
        records.iter().flat_map(|record| ["qbr", "qvb", "qvo"].map(|prefix| name(prefix, record))).collect();
    parts.sort_unstable();
    assert_eq!(marked, parts, "the guests' own devices are not");
    let mut ports = after.marked_ports();
    ports.sort_unstable();
    assert_eq!(ports, records.each_ref().map(|record| name("qvo", record)));
    let ping = ping.stop()?;
    ensure!(ping.received + 1 >= ping.sent, "packets were lost: {ping:?}");

    drop(guests);
    for record in &records {
        model.unplug(record)?;
        vifd.remove(record)?;
        vifd.wait_gone(&record.id())?;
    }
    ours.vsctl(["set", "Interface", &name("qvo", &odd), &format!("external_ids:attached-mac=\"{}\"", odd.mac())])?;
    vifd.wait_for(&odd.id(), "ready")?;
    model.unplug(&odd)?;
    vifd.remove(&odd)?;
    vifd.wait_gone(&odd.id())?;
    let (model, mut last) = (Host::observe(&theirs)?, Vec::new());
    let same = vifd.until("both hosts are the same", |_| {
        last =
            differences(&model.0, &Host::observe(&ours)?.0, &["/bridges", "/ports", "/interfaces", "/links", "/qos"]);
        Ok(last.is_empty().then_some(()))
    });
    same.with_context(|| last.join("\n"))
}

/// An object of os-vif's as the native form has it.
fn flat(value: &Value) -> Value {
    match value {
        Value::Object(map) => match map.get("versioned_object.data") {
            Some(data) => match data.get("objects") {
                Some(list) => flat(list),
                None => flat(data),
            },
            None => map.iter().map(|(key, value)| (key.clone(), flat(value))).collect(),
        },
        Value::Array(list) => list.iter().map(flat).collect(),
        other => other.clone(),
    }
}

/// The record that `vifd import` shows, with what it says the host cannot tell taken from the record that it was plugged
/// with. What is not in that is in neither.
fn completed(candidate: &Value, plugged: &Record) -> Result<Record> {
    let (mut record, whole) = (candidate["record"].clone(), flat(&plugged.0));
    for path in candidate["unknown"].as_array().context("unknown")? {
        let path = path.as_str().context("a path")?;
        let pointer = format!("/{}", path.replace('.', "/"));
        let Some(value) = whole.pointer(&pointer) else { continue };
        let mut place = &mut record;
        for step in path.split('.') {
            place = &mut place[step];
        }
        ensure!(place.is_null(), "{path} is said not to be known, and is there: {candidate}");
        *place = value.clone();
    }
    Ok(Record(record))
}

fn imported(vifd: &Vifd) -> Result<Value> {
    let output = vifd.cli(&["import", "-o", "json"])?;
    ensure!(output.status.success(), "{output:?}");
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// What `vifd import` shows is enough to take a host over whose records are lost, but for what it names.
#[test]
fn what_import_shows_is_taken_over_by_marks_alone() -> Result<()> {
    let ovs = Ovs::start(Switch::Dummy)?;
    let mut plain = OsVif::beside(&ovs, OsVifConfig::default())?;
    let mut per_port = OsVif::beside(&ovs, OsVifConfig { per_port_bridge: true, ..OsVifConfig::default() })?;
    let fixtures = ["openvswitch-create-port", "openvswitch-create-tap", "openvswitch-multiqueue", "openvswitch-trunk"];
    let mut records = Vec::new();
    for (fixture, number) in fixtures.into_iter().chain(["bridge-hybrid"]).zip(1..) {
        records.push(Record::fixture(fixture)?.numbered(number));
    }
    records.push(vhost(&ovs, "vhostuser-client", 7)?);
    records.push(vhost(&ovs, "vhostuser-server", 8)?);
    records.iter().try_for_each(|record| plain.plug(record))?;
    let apart = Record::fixture("openvswitch-create-tap")?.numbered(9);
    per_port.plug(&apart)?;
    let tended = Record::fixture("openvswitch")?.numbered(10);
    plain.plug(&tended)?;
    let (name, id, mac) = (tended.vif_name(), tended.id(), tended.mac());
    let ids = [("iface-id", &id), ("iface-status", &"active".to_owned()), ("attached-mac", &mac), ("vm-id", &id)];
    let ids = ids.map(|(key, value)| format!("external_ids:{key}=\"{value}\""));
    let mut add = vec!["add-port", "br-int", &name, "--", "set", "Interface", &name];
    add.extend(ids.iter().map(String::as_str));
    ovs.vsctl(add)?;
    // What is nobody's VIF.
    ovs.vsctl(["add-port", "br-int", "dhcp", "--", "set", "Interface", "dhcp", "type=internal", &ids[0], &ids[2]])?;
    records.extend([apart, tended.clone()]);
    let (before, transactions) = (Seen::of(&ovs)?, ovs.log()?.len());

    let mut vifd = adopting(&ovs, &[])?;
    vifd.config.mode = "observe".into();
    vifd.start()?;
    let all = vifd.until("the host is seen", |vifd| Ok(imported(vifd).ok()))?;
    let candidates = all["candidates"].as_array().context("candidates")?;
    let found: Vec<&Value> = candidates.iter().map(|candidate| &candidate["name"]).collect();
    assert_eq!(candidates.len(), records.len(), "{found:?}");
    assert_eq!((&all["foreign"][0]["count"], &all["foreign"][0]["names"]), (&json!(1), &json!(["dhcp"])));
    let table = vifd.cli(&["import", "--bridge", "br-int"])?;
    let table = String::from_utf8_lossy(&table.stdout).into_owned();
    assert!(table.contains("8 to be taken over: 8 no record"), "{table}");
    for record in &records {
        let candidate = candidates.iter().find(|candidate| candidate["id"] == record.id().as_str());
        let candidate = candidate.with_context(|| format!("no candidate for {record:?}: {all}"))?;
        let maker = if *record == tended { "libvirt" } else { "os-vif" };
        assert_eq!((&candidate["made_by"], &candidate["standing"]["state"]), (&json!(maker), &json!("no_record")));
        vifd.put(&completed(candidate, record)?)?;
    }
    let standings = |vifd: &Vifd| -> Result<Vec<String>> {
        let all = imported(vifd)?;
        let candidates = all["candidates"].as_array().into_iter().flatten();
        Ok(candidates.map(|candidate| format!("{} {}", candidate["name"], candidate["standing"])).collect())
    };
    let mut last = Vec::new();
    let adopted = vifd.until("all of them would be taken over", |vifd| {
        last = standings(vifd)?;
        Ok(last.iter().all(|standing| standing.contains("\"adopted\"")).then_some(()))
    });
    adopted.with_context(|| last.join("\n"))?;
    let plan: Value = vifd.until("a whole plan", |vifd| {
        let plan: Value = serde_json::from_slice(&vifd.cli(&["plan", "-o", "json"])?.stdout)?;
        Ok(plan["operations"].as_array().is_some_and(|all| all.len() >= 2 * records.len()).then_some(plan))
    })?;
    for operation in plan["operations"].as_array().into_iter().flatten() {
        let words = operation["action"].as_str().unwrap_or_default();
        assert!(
            !words.starts_with("insert") && !words.starts_with("delete") && words.contains("vifd-owner"),
            "{words}"
        );
    }
    let changes = Seen::of(&ovs)?.changes(&before);
    assert!(changes.is_empty(), "it only looks: {changes:?}");

    vifd.config.mode = "enforce".into();
    vifd.write_config()?;
    vifd.signal(Signal::SIGHUP)?;
    vifd.until("nothing is left to be taken over", |vifd| {
        let all = imported(vifd)?;
        Ok((all["candidates"] == json!([]) && all["owned"] == records.len()).then_some(()))
    })?;
    unchanged(&Seen::of(&ovs)?, &before);
    neither_inserted_nor_deleted(&ovs, transactions)
}

/// The pair by which neutron's agent joins a trunk bridge with the bridge of a sub-port's network.
#[test]
fn sub_ports_of_neutrons_are_taken_over_as_they_are() -> Result<()> {
    let ovs = Ovs::start(Switch::Dummy)?;
    let mut osvif = OsVif::beside(&ovs, OsVifConfig::default())?;
    let trunk = Record::fixture("openvswitch-trunk")?.numbered(1);
    let parent = json!({ "vif": trunk.id(), "vlan": 101 });
    let sub_port = Record::fixture("openvswitch")?.numbered(2).beside("parent", parent.clone());
    osvif.plug(&trunk)?;
    // As `ovs_lib.add_patch_port` and `trunk_manager.SubPort.plug` do it.
    let (near, far) = (format!("spt-{}", sub_port.id()), format!("spi-{}", sub_port.id()));
    let (near, far) = (&near[..15], &far[..15]);
    ovs.vsctl(["--may-exist", "add-br", "br-int"])?;
    for (bridge, port, peer) in [(trunk.bridge().as_str(), near, far), ("br-int", far, near)] {
        let ids = [("iface-id", sub_port.id()), ("attached-mac", sub_port.mac())];
        let ids = ids.map(|(key, value)| format!("external_ids:{key}=\"{value}\""));
        let peer = format!("options:peer={peer}");
        ovs.vsctl(["add-port", bridge, port, "--", "set", "Interface", port, "type=patch", &peer, &ids[0], &ids[1]])?;
    }
    ovs.vsctl(["set", "Port", near, "vlan_mode=access", "tag=101"])?;
    let (before, transactions) = (Seen::of(&ovs)?, ovs.log()?.len());
    let mut vifd = adopting(&ovs, &[])?;
    vifd.start()?;
    let all = vifd.until("the host is seen", |vifd| Ok(imported(vifd).ok()))?;
    let candidates = all["candidates"].as_array().context("candidates")?;
    let shown = candidates.iter().find(|candidate| candidate["name"] == far).context("the sub-port")?;
    assert_eq!((&shown["id"], &shown["record"]["parent"]), (&json!(sub_port.id()), &parent));
    assert_eq!(candidates.len(), 2, "the trunk's port is the other: {all}");

    let records = [trunk, sub_port];
    records.iter().try_for_each(|record| vifd.put(record))?;
    wait_for_all(&mut vifd, &records, "ready")?;
    let after = Seen::of(&ovs)?;
    unchanged(&after, &before);
    neither_inserted_nor_deleted(&ovs, transactions)?;
    let mut marked = after.marked_ports();
    marked.sort_unstable();
    assert_eq!(marked, [far, near, records[0].vif_name().as_str()]);
    assert_eq!(imported(&vifd)?["candidates"], json!([]));
    for record in records.iter().rev() {
        vifd.remove(record)?;
        vifd.wait_gone(&record.id())?;
    }
    vifd.until("the trunk's bridge is gone", |_| Ok((ovs.rows("Bridge")?.len() == 1).then_some(())))?;
    assert_eq!(ovs.vsctl(["list-ports", "br-int"])?, "");
    Ok(())
}
