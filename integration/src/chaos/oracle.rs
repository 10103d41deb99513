//! What has to be true when a round is over. Each check is a function over what was seen before and after, so that the
//! tests below can show that it sees what it is for. What vifd says of itself was waited for before; here it is the
//! host that is asked.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use serde_json::Value;

use super::fault::Marks;
use super::look::{Look, Process, entry, references, text};
use super::round::Touch;
use super::wanted::{Guest, MADE, Wanted};
use crate::lab::{Link, Record, Row, Switch};

/// What is judged.
pub struct Judged<'a> {
    /// Which switch it is.
    pub switch: Switch,
    /// What is wanted now.
    pub wanted: &'a Wanted,
    /// What was done to those that were there before and are there now.
    pub touched: BTreeMap<u32, Touch>,
    /// Those whose link was deleted.
    pub links_lost: Vec<u32>,
    /// What the faults have a right to leave.
    pub marks: Marks,
    /// The host before.
    pub before: &'a Look,
    /// The host now.
    pub after: &'a Look,
}

/// A check and its name: a line for each thing that is wrong.
pub type Check = (&'static str, fn(&Judged<'_>) -> Result<Vec<String>>);

/// Every check.
pub const CHECKS: &[Check] = &[
    ("honoured", honoured),
    ("leaks", leaks),
    ("files", files),
    ("foreign", foreign),
    ("identity", identity),
    ("flows", flows),
];

/// Everything that is wrong, with the name of the check that found it.
///
/// # Errors
/// When a record cannot be made.
pub fn judge(judged: &Judged<'_>) -> Result<Vec<String>> {
    let mut wrong = Vec::new();
    for (name, check) in CHECKS {
        wrong.extend(check(judged)?.into_iter().map(|line| format!("{name}: {line}")));
    }
    Ok(wrong)
}

impl Judged<'_> {
    fn records(&self) -> Result<Vec<(&Guest, Record)>> {
        self.wanted.guests.values().map(|guest| Ok((guest, guest.record(self.switch)?))).collect()
    }
}

/// Columns that somebody asks for. The rest is what ovs-vswitchd found.
const ASKED: &[(&str, &[&str])] = &[
    ("Bridge", &["name", "datapath_type", "fail_mode", "external_ids", "other_config", "protocols"]),
    ("Port", &["name", "tag", "vlan_mode", "trunks", "external_ids", "other_config", "interfaces", "qos"]),
    ("Interface", &["name", "type", "options", "external_ids", "other_config", "mtu_request", "mac", "ofport_request"]),
    ("QoS", &["type", "external_ids", "other_config", "queues"]),
    ("Open_vSwitch", &["external_ids", "other_config", "manager_options", "ssl"]),
];

/// Every VIF that is wanted is on the host as its record says.
fn honoured(judged: &Judged<'_>) -> Result<Vec<String>> {
    let mut wrong = Vec::new();
    for (guest, record) in judged.records()? {
        let name = record.port_name();
        let mut expect = |what: &str, is: String, wanted: String| {
            if is != wanted {
                wrong.push(format!("{name} ({:?} {}): {what} is {is:?}, not {wanted:?}", guest.form, guest.number));
            }
        };
        let status = judged.after.statuses.iter().find(|status| status["id"] == record.id());
        expect("phase", status.map_or("none".into(), |status| status["phase"].to_string()), "\"ready\"".into());
        if guest.form.has_port() {
            let port = judged.after.named("Port", &name);
            let interface = judged.after.named("Interface", &name);
            let (Some(port), Some(interface)) = (port, interface) else {
                wrong.push(format!("{name} ({:?} {}): there is no such port", guest.form, guest.number));
                continue;
            };
            let bridge = judged.after.bridge_of(port).map_or("none", |bridge| text(bridge, "name"));
            expect("bridge", bridge.into(), guest.bridge.into());
            let interface_id = guest.interface_id.clone().unwrap_or_else(|| record.id());
            for (key, value) in [("iface-id", interface_id), ("attached-mac", record.mac()), ("vifd-vif", record.id())]
            {
                expect(key, entry(interface, "external_ids", key).into(), value);
            }
            let number = interface.get("ofport").and_then(Value::as_i64).unwrap_or(-1);
            expect("ofport > 0", (number > 0).to_string(), "true".into());
            expect("its port's interfaces", references(port, "interfaces").join(" "), text(interface, "_uuid").into());
        }
        if let Some(links) = record.hybrid_links() {
            let found: Vec<Option<&Link>> = links.iter().map(|name| judged.after.links.get(name)).collect();
            let [Some(bridge), Some(inner), Some(outer)] = found[..] else {
                wrong.push(format!("{name} (Hybrid {}): of {links:?} there are {found:?}", guest.number));
                continue;
            };
            let mark = format!("vifd/1 vifd {}", record.id());
            for (link, kind, master) in
                [(bridge, "bridge", None), (inner, "veth", Some(&links[0])), (outer, "veth", None)]
            {
                expect("kind", link.kind.clone(), kind.into());
                expect("up", link.up.to_string(), "true".into());
                expect("mark", link.alias.clone(), mark.clone());
                expect("master", format!("{:?}", link.master), format!("{:?}", master.cloned()));
            }
            for end in [inner, outer] {
                expect("mtu", end.mtu.to_string(), guest.mtu.to_string());
                expect("promiscuous", end.promiscuous.to_string(), "true".into());
            }
            if judged.switch == Switch::Userspace {
                expect("in the datapath", judged.after.taken.contains(&outer.index).to_string(), "true".into());
            }
        }
        if guest.form.has_tap() {
            let Some(link) = judged.after.links.get(&name) else {
                wrong.push(format!("{name} ({:?} {}): there is no such link", guest.form, guest.number));
                continue;
            };
            expect("mtu", link.mtu.to_string(), guest.mtu.to_string());
            expect("up", link.up.to_string(), "true".into());
            expect("mac", link.mac.clone(), record.mac());
            if guest.form.has_port() && judged.switch == Switch::Userspace {
                expect("in the datapath", judged.after.taken.contains(&link.index).to_string(), "true".into());
            }
            expect("multi_queue", link.multi_queue.to_string(), (guest.form == super::Form::Multiqueue).to_string());
        }
    }
    Ok(wrong)
}

/// Nothing is on the host that nobody wants and that was not there before vifd.
fn leaks(judged: &Judged<'_>) -> Result<Vec<String>> {
    let mut wrong = Vec::new();
    let records = judged.records()?;
    let ids: BTreeSet<String> = records.iter().map(|(_, record)| record.id()).collect();
    let with = |has: fn(&Guest) -> bool| -> BTreeSet<String> {
        records.iter().filter(|(guest, _)| has(guest)).map(|(_, record)| record.port_name()).collect()
    };
    let (ports, mut wanted) = (with(|guest| guest.form.has_port()), with(|guest| guest.form.has_tap()));
    wanted.extend(records.iter().filter_map(|(_, record)| record.hybrid_links()).flatten());
    for table in ["Port", "Interface", "QoS"] {
        for row in judged.after.table(table) {
            let owner = entry(row, "external_ids", "vifd-vif");
            if !owner.is_empty() && !ids.contains(owner) {
                wrong.push(format!("{table} {:?} is marked for VIF {owner}, which nobody wants", text(row, "name")));
            }
        }
    }
    for row in judged.after.table("Port") {
        let name = text(row, "name");
        // A bridge has a port of its name.
        if !ports.contains(name) && !is_foreign(name) && judged.after.named("Bridge", name).is_none() {
            wrong.push(format!("port {name} is nobody's"));
        }
    }
    let used: BTreeSet<&str> = judged.after.table("Port").flat_map(|row| references(row, "qos")).collect();
    for row in judged.after.table("QoS").filter(|row| !is_foreign(entry(row, "external_ids", "id"))) {
        if !used.contains(text(row, "_uuid")) {
            wrong.push(format!("QoS {} has no port: {:?}", text(row, "_uuid"), row.get("external_ids")));
        }
    }
    for row in judged.after.table("Bridge") {
        let name = text(row, "name");
        if !MADE.contains(&name) && judged.before.named("Bridge", name).is_none() {
            wrong.push(format!("bridge {name} is nobody's"));
        }
    }
    for name in judged.after.links.keys() {
        if !wanted.contains(name) && !is_foreign(name) {
            wrong.push(format!("link {name} is nobody's"));
        }
    }
    for status in &judged.after.statuses {
        if !status["id"].as_str().is_some_and(|id| ids.contains(id)) {
            wrong.push(format!("vifd knows a VIF that nobody wants: {status}"));
        }
    }
    Ok(wrong)
}

/// Of the names that the scene gave to what is others'.
fn is_foreign(name: &str) -> bool {
    ["foreign0", "foreign1", "internal0", "br-int", "br-foreign", "someone", "nobody"].contains(&name)
}

/// Records and the files of others are as they were written, and nothing else is in vifd's directories.
fn files(judged: &Judged<'_>) -> Result<Vec<String>> {
    let mut expected: BTreeMap<String, String> = BTreeMap::new();
    for (name, text) in
        judged.before.records.iter().filter(|(name, _)| !name.ends_with("-4c1d-4d7e-9a52-0d4a8c3e5f60.json"))
    {
        expected.insert(name.clone(), text.clone());
    }
    for (_, record) in judged.records()? {
        expected.insert(format!("{}.json", record.id()), record.0.to_string());
    }
    let mut wrong = Vec::new();
    for (name, text) in &expected {
        match judged.after.records.get(name) {
            None => wrong.push(format!("record {name} has gone")),
            Some(is) if is != text => wrong.push(format!("{name} is not as it was written: {is}")),
            Some(_) => {}
        }
    }
    for name in judged.after.records.keys().filter(|name| !expected.contains_key(*name)) {
        wrong.push(format!("{name} is left in the directory of records"));
    }
    for name in &judged.after.state {
        if !["agent-id", "deleted", "lock", "nics", "pauses.json"].contains(&&**name) {
            wrong.push(format!("{name} is left in the state directory"));
        }
    }
    Ok(wrong)
}

/// What is somebody else's is as it was.
fn foreign(judged: &Judged<'_>) -> Result<Vec<String>> {
    let mut wrong = Vec::new();
    for (table, columns) in ASKED {
        for before in judged.before.table(table) {
            let ours = !entry(before, "external_ids", "vifd-owner").is_empty();
            let id = entry(before, "external_ids", "id");
            if ours || MADE.contains(&text(before, "name")) || (*table == "QoS" && !is_foreign(id)) {
                continue;
            }
            let uuid = text(before, "_uuid");
            match judged.after.rows.get(*table).and_then(|rows| rows.get(uuid)) {
                None => wrong.push(format!("{table} {:?} has gone", text(before, "name"))),
                Some(after) => wrong.extend(differences(before, after, columns).map(|line| format!("{table} {line}"))),
            }
        }
    }
    for (name, before) in judged.before.links.iter().filter(|(name, _)| is_foreign(name)) {
        match judged.after.links.get(name) {
            Some(after) if after == before => {}
            after => wrong.push(format!("link {name} was {before:?} and is {after:?}")),
        }
    }
    Ok(wrong)
}

/// Ports that were right are the same ports: rows, keys of others on them, OpenFlow numbers, links.
fn identity(judged: &Judged<'_>) -> Result<Vec<String>> {
    let mut wrong = Vec::new();
    for (guest, record) in judged.records()? {
        let Some(touch) = judged.touched.get(&guest.number) else { continue };
        let name = record.port_name();
        let rows = |table: &str| (judged.before.named(table, &name), judged.after.named(table, &name));
        for (table, columns) in ASKED.iter().filter(|(table, _)| ["Port", "Interface"].contains(table)) {
            let (Some(before), Some(after)) = rows(table) else { continue };
            if *touch == Touch::Remade {
                continue;
            }
            let (was, is) = (text(before, "_uuid"), text(after, "_uuid"));
            if was != is {
                wrong.push(format!("{table} {name}, {touch:?} done to it, was row {was} and is {is}"));
                continue;
            }
            if *touch == Touch::Nothing {
                wrong.extend(differences(before, after, columns).map(|line| format!("{table} {line}")));
            }
            for column in ["external_ids", "other_config"] {
                let (was, is) = (entry(before, column, "somebody"), entry(after, column, "somebody"));
                if was != is {
                    wrong.push(format!("{table} {name}: {column}:somebody was {was:?} and is {is:?}"));
                }
            }
            let (was, is) = (before.get("ofport"), after.get("ofport"));
            let link_lost = judged.links_lost.contains(&guest.number);
            if was != is && !judged.marks.new_switch && !link_lost {
                wrong.push(format!("{table} {name}, {touch:?} done to it: ofport was {was:?} and is {is:?}"));
            }
        }
        let links = (judged.before.links.get(&name), judged.after.links.get(&name));
        if let (Some(before), Some(after)) = links {
            // The switch makes its links promiscuous when it has taken them, a moment after it has numbered them.
            let as_before = Link { promiscuous: before.promiscuous, ..after.clone() };
            if *touch == Touch::Nothing && *before != as_before {
                wrong.push(format!("link {name} was {before:?} and is {after:?}"));
            }
            if *touch == Touch::Contents && before.index != after.index && !judged.links_lost.contains(&guest.number) {
                wrong.push(format!("link {name} was made again: index {} and now {}", before.index, after.index));
            }
        }
    }
    Ok(wrong)
}

/// On the bridge whose flows vifd makes each VIF can send and is sent to, nobody else is, the flows of others stand, and
/// those of VIFs that were right are the same.
fn flows(judged: &Judged<'_>) -> Result<Vec<String>> {
    let mut wrong = Vec::new();
    let (before, after) = (&judged.before.flows, &judged.after.flows);
    let mut numbers = BTreeSet::new();
    for (guest, record) in judged.records()?.into_iter().filter(|(guest, _)| guest.has_flows()) {
        let name = record.port_name();
        let Some(number) = judged.after.number_of(&name) else { continue };
        numbers.insert(number);
        if classified(after, number).is_none() {
            wrong.push(format!("{name}: nothing takes what it sends, from port {number}"));
        }
        if !after.iter().any(|flow| actions(flow).any(|action| action == format!("output:{number}"))) {
            wrong.push(format!("{name}: nothing is sent to it, to port {number}"));
        }
        let untouched = judged.touched.get(&guest.number) == Some(&Touch::Nothing);
        if untouched && !judged.marks.new_switch && judged.before.number_of(&name) == Some(number) {
            let of = |flows: &[String]| -> BTreeSet<String> {
                let cookie = classified(flows, number).and_then(|flow| cookie(flow)).unwrap_or("none").to_owned();
                flows.iter().filter(|flow| self::cookie(flow) == Some(&cookie)).cloned().collect()
            };
            let (was, is) = (of(before), of(after));
            wrong.extend(was.difference(&is).map(|flow| format!("{name} had {flow}")));
            wrong.extend(is.difference(&was).map(|flow| format!("{name} had not {flow}")));
        }
    }
    for flow in after {
        let from = flow.split([',', ' ']).find_map(|part| part.strip_prefix("in_port=")?.parse().ok());
        let to = actions(flow).find_map(|action| action.strip_prefix("output:")?.parse().ok());
        if from.or(to).is_some_and(|number: i64| !numbers.contains(&number)) {
            wrong.push(format!("is about a port of nobody's: {flow}"));
        }
    }
    for flow in before.iter().filter(|flow| cookie(flow) == Some("0x50b")) {
        if !judged.marks.new_switch && !after.contains(flow) {
            wrong.push(format!("has gone, and is somebody else's: {flow}"));
        }
    }
    Ok(wrong)
}

/// The flow that takes what a port sends.
fn classified(flows: &[String], number: i64) -> Option<&String> {
    let from = format!("in_port={number}");
    flows.iter().find(|flow| flow.split([',', ' ']).any(|part| part == from) && flow.contains("goto_table"))
}

fn cookie(flow: &str) -> Option<&str> {
    flow.strip_prefix("cookie=")?.split(',').next()
}

fn actions(flow: &str) -> impl Iterator<Item = &str> {
    flow.split_once("actions=").into_iter().flat_map(|(_, actions)| actions.split(','))
}

fn differences<'a>(before: &'a Row, after: &'a Row, columns: &'a [&str]) -> impl Iterator<Item = String> + 'a {
    columns.iter().filter(|column| before.get(**column) != after.get(**column)).map(|column| {
        let show = |row: &Row| row.get(*column).map_or("nothing".into(), ToString::to_string);
        format!("{:?}: {column} was {} and is {}", text(before, "name"), show(before), show(after))
    })
}

/// More than that, and a process has grown: descriptors of answers that are still being closed, allocations that
/// are kept for the next time.
const SLACK: (usize, u64) = (12, 48 << 10);

/// Whether a process uses more than it did when it was first looked at.
#[must_use]
pub fn grown(before: Process, after: Process) -> Vec<String> {
    let mut wrong = Vec::new();
    if before.pid == after.pid {
        if after.descriptors > before.descriptors + SLACK.0 {
            wrong.push(format!("growth: {} descriptors, {} before", after.descriptors, before.descriptors));
        }
        if after.resident > before.resident + SLACK.1 {
            wrong.push(format!("growth: {} KiB resident, {} before", after.resident, before.resident));
        }
    }
    wrong
}

/// Writes of vifd, as its own counter has them.
#[derive(Clone, Copy, Debug)]
pub struct Writes {
    /// Before the round.
    pub before: f64,
    /// With everything ready after it.
    pub ready: f64,
    /// After vifd has looked at everything once more, without a cause.
    pub later: f64,
}

/// Whether vifd wrote what nothing asked for: with everything ready, or at all in a round that was `calm`.
#[must_use]
pub fn silence(calm: bool, marks: Marks, writes: Writes) -> Vec<String> {
    let mut wrong = Vec::new();
    // A new process counts from nothing. A new switch is told to carry everything out anew, which is a write.
    let expected = if marks.new_vifd { 0.0 } else { writes.before };
    if calm && !marks.new_switch && writes.ready > expected {
        wrong.push(format!("silence: {} writes, and nothing had changed", writes.ready - expected));
    }
    if writes.later > writes.ready {
        wrong.push(format!("silence: {} writes with everything ready", writes.later - writes.ready));
    }
    wrong
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::chaos::Form;

    /// One guest with tap and port beside a foreign bridge with a foreign port, all right.
    fn host() -> Result<(Wanted, Look)> {
        let guest = Guest { number: 7, form: Form::Tap, bridge: "br-int", mtu: 1450, mac: 0, interface_id: None };
        let record = guest.record(Switch::Dummy)?;
        let (id, name) = (record.id(), record.vif_name());
        let mut look = Look::default();
        let mut row = |table: &str, uuid: &str, content: Value| {
            let mut row: Row = serde_json::from_value(content).unwrap_or_default();
            row.insert("_uuid".into(), uuid.into());
            look.rows.entry(table.into()).or_default().insert(uuid.into(), row);
        };
        let marks = json!({"vifd-owner": "vifd", "vifd-vif": id});
        row("Bridge", "b", json!({"name": "br-int", "ports": ["p", "f"], "external_ids": {"somebody": "else"}}));
        row(
            "Port",
            "p",
            json!({"name": name, "interfaces": "i", "qos": "q", "external_ids": marks,
            "other_config": {"somebody": "stamp"}}),
        );
        row("Port", "f", json!({"name": "foreign0", "tag": 7, "interfaces": "fi", "qos": []}));
        row(
            "Interface",
            "i",
            json!({"name": name, "ofport": 3, "external_ids": {"vifd-owner": "vifd", "vifd-vif": id,
            "iface-id": id, "attached-mac": record.mac(), "somebody": "stamp"}}),
        );
        row("Interface", "fi", json!({"name": "foreign0", "ofport": 1}));
        row("QoS", "q", json!({"external_ids": {"vifd-owner": "vifd", "vifd-vif": id}}));
        row("QoS", "fq", json!({"external_ids": {"id": "nobody"}}));
        let link = |index, mac: String| Link {
            index,
            kind: "tun".into(),
            mac,
            mtu: 1450,
            up: true,
            promiscuous: false,
            master: None,
            alias: String::new(),
            multi_queue: false,
        };
        look.links.insert(name, link(5, record.mac()));
        look.links.insert("foreign1".into(), link(6, "02:00:00:00:00:09".into()));
        look.records.insert(format!("{id}.json"), record.0.to_string());
        look.records.insert("README".into(), "theirs".into());
        look.state = ["agent-id", "deleted", "lock"].map(str::to_owned).to_vec();
        look.statuses = vec![json!({"id": id, "phase": "ready"})];
        let wanted = Wanted { guests: BTreeMap::from([(7, guest)]), next: 8 };
        Ok((wanted, look))
    }

    fn verdict(touch: Touch, marks: Marks, change: impl FnOnce(&mut Look)) -> Result<Vec<String>> {
        let (wanted, before) = host()?;
        let mut after = before.clone();
        change(&mut after);
        let touched = BTreeMap::from([(7, touch)]);
        judge(&Judged {
            switch: Switch::Dummy,
            wanted: &wanted,
            touched,
            links_lost: Vec::new(),
            marks,
            before: &before,
            after: &after,
        })
    }

    fn column(look: &mut Look, table: &str, uuid: &str, column: &str, value: Value) {
        let rows = look.rows.entry(table.into()).or_default();
        rows.entry(uuid.into()).or_default().insert(column.into(), value);
    }

    fn remade(look: &mut Look, table: &str, uuid: &str) {
        let rows = look.rows.entry(table.into()).or_default();
        if let Some(mut row) = rows.remove(uuid) {
            row.insert("_uuid".into(), format!("{uuid}2").into());
            rows.insert(format!("{uuid}2"), row);
        }
    }

    #[test]
    fn a_host_that_is_right_is_right() -> Result<()> {
        assert_eq!(verdict(Touch::Nothing, Marks::default(), |_| {})?, Vec::<String>::new());
        Ok(())
    }

    #[test]
    fn every_check_sees_what_it_is_for() -> Result<()> {
        type Harm = fn(&mut Look);
        let cases: &[(&str, &str, Harm)] = &[
            ("honoured", "phase", |look| look.statuses[0]["phase"] = json!("waiting")),
            ("honoured", "ofport", |look| column(look, "Interface", "i", "ofport", json!(-1))),
            ("honoured", "no such port", |look| drop(look.rows.get_mut("Interface").map(|rows| rows.remove("i")))),
            ("honoured", "bridge", |look| column(look, "Bridge", "b", "ports", json!("f"))),
            ("honoured", "no such link", |look| look.links.retain(|name, _| name == "foreign1")),
            ("honoured", "mtu", |look| look.links.values_mut().for_each(|link| link.mtu = 1500)),
            ("leaks", "nobody wants", |look| {
                column(look, "Port", "z", "external_ids", json!({"vifd-vif": "another"}));
            }),
            ("leaks", "port z", |look| column(look, "Port", "z", "name", json!("z"))),
            ("leaks", "has no port", |look| column(look, "QoS", "z", "external_ids", json!({}))),
            ("leaks", "bridge z", |look| column(look, "Bridge", "z", "name", json!("z"))),
            ("leaks", "link z", |look| {
                let link = look.links["foreign1"].clone();
                look.links.insert("z".into(), link);
            }),
            ("leaks", "knows a VIF", |look| look.statuses.push(json!({"id": "another"}))),
            ("files", "README", |look| drop(look.records.insert("README".into(), "ours".into()))),
            ("files", "has gone", |look| look.records.clear()),
            ("files", ".new", |look| drop(look.records.insert(".x.json.new".into(), String::new()))),
            ("files", "deleted/", |look| look.state.push("deleted/x".into())),
            ("foreign", "Port \"foreign0\" has gone", |look| {
                drop(look.rows.get_mut("Port").map(|rows| rows.remove("f")));
            }),
            ("foreign", "tag", |look| column(look, "Port", "f", "tag", json!([]))),
            ("foreign", "external_ids", |look| column(look, "Bridge", "b", "external_ids", json!({}))),
            ("foreign", "QoS", |look| drop(look.rows.get_mut("QoS").map(|rows| rows.remove("fq")))),
            ("foreign", "foreign1", |look| drop(look.links.remove("foreign1"))),
            ("identity", "was row i", |look| {
                remade(look, "Interface", "i");
                column(look, "Port", "p", "interfaces", json!("i2"));
            }),
            ("identity", "other_config", |look| column(look, "Port", "p", "other_config", json!({}))),
            ("identity", "ofport", |look| column(look, "Interface", "i", "ofport", json!(4))),
            ("identity", "index", |look| look.links.values_mut().for_each(|link| link.index += 10)),
        ];
        for (check, said, harm) in cases {
            let wrong = verdict(Touch::Nothing, Marks::default(), *harm)?;
            let found = wrong.iter().any(|line| line.starts_with(check) && line.contains(said));
            assert!(found, "{check} did not see {said}: {wrong:?}");
        }
        Ok(())
    }

    #[test]
    fn what_a_round_has_a_right_to_is_forgiven_and_no_more() -> Result<()> {
        let renumbered = |look: &mut Look| column(look, "Interface", "i", "ofport", json!(4));
        let new_switch = Marks { new_switch: true, ..Marks::default() };
        assert_eq!(verdict(Touch::Nothing, new_switch, renumbered)?, Vec::<String>::new());
        let made_again = |look: &mut Look| {
            remade(look, "Port", "p");
            column(look, "Bridge", "b", "ports", json!(["p2", "f"]));
        };
        assert_eq!(verdict(Touch::Remade, Marks::default(), made_again)?, Vec::<String>::new());
        assert!(!verdict(Touch::Contents, Marks::default(), made_again)?.is_empty());
        assert!(!verdict(Touch::Nothing, new_switch, made_again)?.is_empty());
        Ok(())
    }

    #[test]
    fn flows_are_a_guest_s_own_and_others_stand() -> Result<()> {
        let (mut wanted, mut before) = host()?;
        wanted.guests.values_mut().for_each(|guest| guest.bridge = crate::chaos::wanted::FLOWS);
        let right = [
            "cookie=0x50b, table=99, actions=drop",
            "cookie=0x7, priority=100,in_port=3 actions=set_field:0x5->metadata,goto_table:10",
            "cookie=0x7, priority=90,in_port=3 actions=drop",
            "cookie=0x7, table=60, priority=100,reg6=0x3 actions=set_field:0->in_port,output:3",
        ];
        before.flows = right.map(str::to_owned).to_vec();
        let said = |change: fn(&mut Vec<String>), marks| {
            let mut after = before.clone();
            change(&mut after.flows);
            let touched = BTreeMap::from([(7, Touch::Nothing)]);
            let (switch, wanted, before, after) = (Switch::Dummy, &wanted, &before, &after);
            flows(&Judged { switch, wanted, touched, links_lost: Vec::new(), marks, before, after })
        };
        let none = Marks::default();
        assert_eq!(said(|_| {}, none)?, Vec::<String>::new());
        for (words, change) in [
            ("has gone", (|flows| drop(flows.remove(0))) as fn(&mut Vec<String>)),
            ("nothing takes", |flows| drop(flows.remove(1))),
            ("had cookie", |flows| drop(flows.remove(2))),
            ("nothing is sent", |flows| drop(flows.remove(3))),
            ("had not", |flows| flows.push("cookie=0x7, table=12, actions=drop".into())),
            ("nobody's", |flows| flows.push("cookie=0x8, priority=100,in_port=4 actions=drop".into())),
            ("nobody's", |flows| flows.push("cookie=0x8, table=60, reg6=0x4 actions=output:4".into())),
        ] {
            let wrong = said(change, none)?;
            assert!(wrong.iter().any(|line| line.contains(words)), "{words}: {wrong:?}");
        }
        // A new switch has no flows of others.
        let new_switch = Marks { new_switch: true, ..none };
        assert_eq!(said(|flows| drop(flows.remove(0)), new_switch)?, Vec::<String>::new());
        Ok(())
    }

    #[test]
    fn a_write_without_a_cause_is_heard_and_one_with_a_cause_is_not() {
        let heard = |calm, new_switch, new_vifd, [before, ready, later]: [f64; 3]| {
            silence(calm, Marks { new_switch, new_vifd }, Writes { before, ready, later })
        };
        for calm in [false, true] {
            assert_eq!(heard(calm, false, false, [7.0, 7.0, 7.0]), Vec::<String>::new());
            let wrong = heard(calm, true, true, [7.0, 9.0, 11.0]);
            assert_eq!(wrong, ["silence: 2 writes with everything ready"], "calm: {calm}");
        }
        assert_eq!(heard(true, false, false, [7.0, 10.0, 10.0]), ["silence: 3 writes, and nothing had changed"]);
        // Somebody asked for something; the switch is new; the process is new, and silent.
        assert_eq!(heard(false, false, false, [7.0, 10.0, 10.0]), Vec::<String>::new());
        assert_eq!(heard(true, true, false, [7.0, 10.0, 10.0]), Vec::<String>::new());
        assert_eq!(heard(true, false, true, [7.0, 0.0, 0.0]), Vec::<String>::new());
        assert_eq!(heard(true, false, true, [7.0, 1.0, 1.0]), ["silence: 1 writes, and nothing had changed"]);
    }

    #[test]
    fn a_process_that_grows_is_seen_and_a_new_one_is_not_compared() {
        let before = Process { pid: 1, descriptors: 20, resident: 20_000 };
        assert!(grown(before, Process { descriptors: 30, ..before }).is_empty());
        assert_eq!(grown(before, Process { descriptors: 40, ..before }).len(), 1);
        assert_eq!(grown(before, Process { resident: 80_000, ..before }).len(), 1);
        assert!(grown(before, Process { pid: 2, descriptors: 40, resident: 80_000 }).is_empty());
    }
}
