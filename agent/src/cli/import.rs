//! `import`: what is on the host to be taken over, and how.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::Value;

use super::Failure;
use super::output::{Cell, Output};
use super::vifs::{encoded, typed};
use crate::api::client::Client;
use crate::inspect::candidates::{Candidate, Candidates, State};

pub(super) async fn import(client: &Client, bridge: Option<&str>, output: &Output) -> Result<(), Failure> {
    let filter = bridge.map_or_else(String::new, |bridge| format!("?bridge={}", encoded(bridge)));
    let answer: Value = client.get(&format!("/v1/candidates{filter}")).await?;
    let candidates: Candidates = typed(&answer)?;
    output.answer(&answer, || text(&candidates, output))
}

const HEADER: [&str; 6] = ["NAME", "BRIDGE", "TYPE", "MADE BY", "ID", "STANDING"];

fn text(all: &Candidates, output: &Output) -> String {
    let mut text = String::new();
    if !all.candidates.is_empty() {
        text = output.table(&HEADER, all.candidates.iter().map(row));
        text.push('\n');
    }
    text.push_str(&summary(all));
    let unknown: Vec<&str> = all.candidates.iter().flat_map(|of| &of.unknown).map(String::as_str).collect();
    if !unknown.is_empty() {
        text.push_str(
            "`vifd import -o json` has the record that each needs, and names what the host does not tell of it.\n",
        );
    }
    for foreign in &all.foreign {
        let more = if foreign.count > foreign.names.len() { ", …" } else { "" };
        let _ = writeln!(
            text,
            "Not vifd's to take: {} {} ({}{more})",
            foreign.count,
            foreign.reason,
            foreign.names.join(", ")
        );
    }
    text.push_str(advice(all));
    text
}

fn row(of: &Candidate) -> Vec<Cell> {
    let kind = match (&of.kind, &of.profile) {
        (Some(kind), Some(profile)) if kind != profile => format!("{kind} ({profile})"),
        (Some(kind), _) => kind.clone(),
        (None, _) => "?".to_owned(),
    };
    let id = of.vif.or(of.id).map_or_else(|| "not known".to_owned(), |id| id.to_string());
    let standing = match of.standing.state {
        // The table would say it again in every line.
        State::NoRecord if of.id.is_some() && of.standing.message == "there is no record for it" => {
            "no record".to_owned()
        }
        state => format!("{}: {}", state.name(), of.standing.message),
    };
    let bridge = of.bridge.clone().unwrap_or_else(|| "-".to_owned());
    vec![of.name.clone().into(), bridge.into(), kind.into(), of.made_by.to_string().into(), id.into(), standing.into()]
}

/// A line on how many there are of what.
fn summary(all: &Candidates) -> String {
    let mut states: BTreeMap<State, usize> = BTreeMap::new();
    for of in &all.candidates {
        *states.entry(of.standing.state).or_default() += 1;
    }
    let mut text = match all.candidates.len() {
        0 => "Nothing is here to be taken over".to_owned(),
        count => {
            let states = states.iter().map(|(state, count)| format!("{count} {}", state.name()));
            format!("{count} to be taken over: {}", states.collect::<Vec<_>>().join(", "))
        }
    };
    let vifs = if all.owned == 1 { "VIF carries" } else { "VIFs carry" };
    let _ = writeln!(text, "; {} {vifs} vifd's marks already.", all.owned);
    text
}

/// What to do next.
fn advice(all: &Candidates) -> &'static str {
    let any = |state| all.candidates.iter().any(|of| of.standing.state == state);
    match (all.adopt, all.enforce) {
        _ if all.candidates.is_empty() => "",
        (false, _) => {
            "Adoption is off: hand in the records, set adopt = \"os-vif\" under [agent] in the configuration, then \
             `systemctl reload vifd`.\n"
        }
        (true, false) => {
            "Adoption is on, and the agent observes only (agent.mode): `vifd plan` says what it would mark.\n"
        }
        (true, true) if any(State::NoRecord) => "Adoption is on: what gets a record is taken over.\n",
        (true, true) => "Adoption is on.\n",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inspect::candidates::{Foreign, MadeBy, Standing};

    fn candidate(name: &str, state: State, message: &str) -> Candidate {
        Candidate {
            name: name.into(),
            bridge: Some("br-int".into()),
            kind: Some("bridge".into()),
            profile: Some("openvswitch".into()),
            made_by: MadeBy::OsVif,
            evidence: vec![],
            id: None,
            standing: Standing { state, message: message.into() },
            vif: None,
            record: None,
            unknown: vec!["vif.id".into()],
        }
    }

    #[test]
    fn what_is_there_is_counted_and_it_is_said_how_to_go_on() {
        let output = Output::plain();
        let mut all = Candidates::default();
        assert_eq!(text(&all, &output), "Nothing is here to be taken over; 0 VIFs carry vifd's marks already.\n");
        all.owned = 1;
        all.candidates = vec![
            candidate("qvo1", State::Conflict, "port qvo1 is on bridge br-x"),
            candidate("qvo2", State::NoRecord, "there is no record for it, and its id is not known"),
        ];
        all.foreign = vec![Foreign { reason: "made by OVN".into(), count: 7, names: vec!["a".into(), "b".into()] }];
        let shown = text(&all, &output);
        for expected in [
            "NAME  BRIDGE  TYPE                  MADE BY  ID         STANDING\n",
            "qvo1  br-int  bridge (openvswitch)  os-vif   not known  conflict: port qvo1 is on bridge br-x\n",
            "2 to be taken over: 1 conflict, 1 no record; 1 VIF carries vifd's marks already.\n",
            "Not vifd's to take: 7 made by OVN (a, b, …)\n",
            "Adoption is off",
            "adopt = \"os-vif\" under [agent]",
        ] {
            assert!(shown.contains(expected), "{shown}");
        }
        all.adopt = true;
        assert!(text(&all, &output).contains("observes only"));
        all.enforce = true;
        assert!(text(&all, &output).ends_with("Adoption is on: what gets a record is taken over.\n"));
    }
}
