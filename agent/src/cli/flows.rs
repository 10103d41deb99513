//! `flows`: what switches do for VIFs, networks and bridges.

use std::fmt::Write as _;

use serde_json::Value;

use super::output::{Cell, Output};
use super::vifs::{encoded, resolve, typed};
use super::{Failure, Flows};
use crate::api::client::Client;
use crate::inspect::{Belongs, BridgeFlows, FlowLine, FlowListing, Standing};

pub(super) async fn flows(client: &Client, flows: Flows, output: &Output) -> Result<(), Failure> {
    let target = match (&flows.vif, &flows.network, &flows.bridge) {
        (Some(word), _, _) => format!("/v1/vifs/{}/flows", resolve(client, word).await?),
        (_, Some(network), bridge) => {
            let bridge = bridge.as_ref().map_or_else(String::new, |bridge| format!("?bridge={}", encoded(bridge)));
            format!("/v1/networks/{}/flows{bridge}", encoded(network))
        }
        (_, _, Some(bridge)) => {
            let foreign = if flows.foreign { "?foreign=true" } else { "" };
            format!("/v1/bridges/{}/flows{foreign}", encoded(bridge))
        }
        _ => return bridges(client, output).await,
    };
    let answer: Value = client.get(&target).await?;
    let listing: FlowListing = typed(&answer)?;
    output.answer(&answer, || text(&listing, !flows.no_stats, output))
}

async fn bridges(client: &Client, output: &Output) -> Result<(), Failure> {
    let answer: Value = client.get("/v1/bridges").await?;
    let bridges: Vec<BridgeFlows> = typed(&answer)?;
    output.answer(&answer, || match bridges.is_empty() {
        true => "No bridge has flows of vifd's: there is no [[bridge]] with flows = \"managed\".\n".into(),
        false => summary(&bridges, output),
    })
}

const HEADER: [&str; 7] = ["BRIDGE", "FLOWS", "GROUPS", "METERS", "FOREIGN", "ABOVE", "SWITCH"];

fn summary(bridges: &[BridgeFlows], output: &Output) -> String {
    let rows = bridges.iter().map(|bridge| {
        let count = |count: usize| Cell::from(if bridge.up { count.to_string() } else { "?".into() });
        vec![
            bridge.bridge.clone().into(),
            count(bridge.flows),
            count(bridge.groups),
            count(bridge.meters),
            count(bridge.foreign_flows),
            count(bridge.foreign_above),
            bridge.detail.clone().into(),
        ]
    });
    let mut text = output.table(&HEADER, rows);
    for bridge in bridges.iter().filter(|bridge| !bridge.unmanaged.is_empty()) {
        let _ = writeln!(text, "\n{}", output.paint.bad(&format!("Not managed: {}", bridge.unmanaged)));
    }
    for bridge in bridges.iter().filter(|bridge| bridge.foreign_above > 0) {
        let _ = writeln!(
            text,
            "\n{}",
            output.paint.bad(&format!(
                "Flows of somebody else above vifd's on {}, by which packets may go instead: {}",
                bridge.bridge, bridge.foreign_above
            ))
        );
        for flow in &bridge.above {
            let _ = writeln!(text, "    {flow}");
        }
        if bridge.above.len() < bridge.foreign_above {
            let _ = writeln!(text, "    …");
        }
    }
    text
}

/// The listing for people.
fn text(listing: &FlowListing, counts: bool, output: &Output) -> String {
    let paint = output.paint;
    let of = match &listing.of {
        Belongs::Bridge => "What all VIFs share".to_owned(),
        Belongs::Other => "Flows of somebody else".to_owned(),
        Belongs::Network { .. } => format!("What the VIFs of {} share", listing.of),
        of => of.to_string(),
    };
    let mut text = paint.strong(&format!("{of} on bridge {}", listing.bridge));
    text.push('\n');
    if !listing.note.is_empty() {
        let _ = writeln!(text, "{}", paint.pending(&listing.note));
    }
    if listing.tables.is_empty() {
        text.push_str("No flows.\n");
    }
    for table in &listing.tables {
        let name = table.name.as_deref().unwrap_or("not vifd's");
        let _ = writeln!(text, "\n{}", paint.strong(&format!("table {} {name}", table.table)));
        for line in &table.flows {
            let flow = if counts { counted(line, table.table) } else { line.flow.clone() };
            let shown = match line.standing {
                Standing::There => format!("    {flow}"),
                Standing::Unwanted => paint.bad(&format!("  - {flow}")),
                Standing::Missing => paint.good(&format!("  + {flow}")),
            };
            let _ = writeln!(text, "{shown}");
        }
    }
    if !listing.groups.is_empty() {
        let _ = writeln!(text, "\n{}", paint.strong("groups"));
        for group in &listing.groups {
            let _ = writeln!(text, "    {group}");
        }
    }
    let standings = || listing.tables.iter().flat_map(|table| &table.flows).map(|line| line.standing);
    if standings().any(|standing| standing != Standing::There) {
        text.push_str("\n+ wanted and not there; - there and not wanted, or not like that\n");
    }
    text
}

/// The line as `ovs-ofctl dump-flows` has it, with what was counted.
fn counted(line: &FlowLine, table: u8) -> String {
    let (Some(packets), Some(bytes), Some(seconds)) = (line.packets, line.bytes, line.seconds) else {
        return line.flow.clone();
    };
    let rest = line.flow.as_str();
    let (cookie, rest) = match rest.strip_prefix("cookie=").and_then(|rest| rest.split_once(", ")) {
        Some((cookie, rest)) => (cookie, rest),
        None => ("0x0", rest),
    };
    let rest = rest.strip_prefix(&format!("table={table}, ")).unwrap_or(rest);
    format!("cookie={cookie}, duration={seconds}s, table={table}, n_packets={packets}, n_bytes={bytes}, {rest}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inspect::TableListing;

    fn line(standing: Standing, flow: &str, packets: Option<u64>) -> FlowLine {
        FlowLine { standing, flow: flow.into(), packets, bytes: packets.map(|n| n * 98), seconds: packets.map(|_| 7) }
    }

    fn listing() -> FlowListing {
        let table = |table, name: Option<&str>, flows| TableListing { table, name: name.map(str::to_owned), flows };
        let guest = Some("alice".to_owned());
        FlowListing {
            bridge: "br-int".into(),
            of: Belongs::Vif { id: crate::model::VifId(uuid::Uuid::nil()), port: Some("tap1".into()), guest },
            cookies: vec!["0x50111ec59cd9017a".into()],
            compared: true,
            note: String::new(),
            tables: vec![
                table(
                    0,
                    Some("classify"),
                    vec![line(Standing::There, "cookie=0x5, priority=100,in_port=1 actions=goto_table:10", Some(3))],
                ),
                table(
                    10,
                    Some("port-security"),
                    vec![
                        line(Standing::Unwanted, "cookie=0x5, table=10, priority=10,reg5=0x1 actions=drop", Some(0)),
                        line(Standing::Missing, "cookie=0x5, table=10, priority=10,reg5=0x2 actions=drop", None),
                    ],
                ),
            ],
            groups: vec!["group_id=1,type=all,bucket=actions=output:1".into()],
        }
    }

    #[test]
    fn flows_for_people() {
        insta::assert_snapshot!(text(&listing(), true, &Output::plain()));
        let without = text(&listing(), false, &Output::plain());
        assert!(without.contains("    cookie=0x5, priority=100,in_port=1 actions=goto_table:10\n"), "{without}");
    }

    #[test]
    fn bridges_for_people() {
        let good = BridgeFlows {
            bridge: "br-int".into(),
            up: true,
            detail: "synchronised".into(),
            flows: 95,
            groups: 1,
            foreign_flows: 2,
            foreign_above: 1,
            above: vec!["table=40, priority=99 actions=drop".into()],
            ..BridgeFlows::default()
        };
        let away = BridgeFlows { bridge: "br-dmz".into(), detail: "connecting".into(), ..BridgeFlows::default() };
        let theirs = BridgeFlows {
            bridge: "br-their".into(),
            up: true,
            detail: "synchronised".into(),
            unmanaged:
                "bridge br-their has a controller: take it off, or set takeover = true under [[bridge]] br-their".into(),
            ..BridgeFlows::default()
        };
        insta::assert_snapshot!(summary(&[away, good, theirs], &Output::plain()));
    }
}
