//! How many flows a VIF takes: what `docs/flows.md` says.

use std::collections::BTreeSet;

use flows::FlowId;
use serde_json::{Value, json};
use vifd::plan::pipeline::{self, Attachment, Place, PortFacts, Reason, tables};

use crate::scene::{Bridge, owner, vif, with_addresses};
use crate::traces;

fn count(policy: &Value, addresses: &[&str]) -> usize {
    let mut bridge = Bridge::default();
    pipeline::vif(&bridge.plain(&with_addresses(5, 1, policy, addresses)).ports[0]).len()
}

#[test]
fn the_documentation_counts_them() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/flows.md");
    let document = std::fs::read_to_string(path).unwrap();
    let (v4, both) = (["10.0.0.5"], ["10.0.0.5", "fd00::5"]);
    let rules =
        json!({"rules": [{"direction": "egress"}, {"direction": "ingress", "protocol": "tcp", "port_min": 22}]});
    let inactive = PortFacts { active: false, ..Bridge::default().plain(&vif(5, 1, &json!({}))).ports[0].clone() };
    let on_trunk = |vlan| {
        let vif = with_addresses(5, 1, &json!({}), &both);
        let port = Bridge::default().add(&vif, Attachment { port: 5, vlan }).ports[0].clone();
        pipeline::vif(&PortFacts { trunk: true, ..port }).len()
    };
    for (what, flows) in [
        ("port security off", count(&json!({"port_security": false}), &both)),
        ("one IPv4 address", count(&json!({}), &v4)),
        ("one IPv4 and one IPv6 address", count(&json!({}), &both)),
        (
            "the same and an address pair for IPv4",
            count(&json!({"allowed_address_pairs": [{"ip": "10.9.0.1"}]}), &both),
        ),
        ("the same with rates instead", count(&json!({"rate": {"egress_kbps": 1, "ingress_kbps": 1}}), &both)),
        ("the same with two rules instead", count(&rules, &both)),
        ("the same with sub-ports instead", on_trunk(None)),
        ("the same as a sub-port instead", on_trunk(Some(101))),
        ("inactive", pipeline::vif(&inactive).len()),
        ("every bridge", pipeline::bridge(owner()).len()),
    ] {
        let row = format!("| {what} | {flows} |");
        assert!(document.contains(&row), "docs/flows.md lacks {row}");
    }
}

#[test]
fn the_documentation_has_every_table_and_reason() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/flows.md");
    let document = std::fs::read_to_string(path).unwrap();
    for (table, name) in tables::TABLES {
        // The tables for ingress share a line.
        let told =
            document.contains(&format!("| {table} | {name} |")) || (50..60).contains(&table) && document.contains(name);
        assert!(told, "docs/flows.md lacks table {table}");
    }
    for reason in Reason::ALL {
        assert!(document.contains(&format!("| `{reason}` |")), "docs/flows.md lacks {reason}");
    }
}

/// What one VIF or network has, no other has too: who comes later would replace it.
#[test]
fn every_flow_is_one_owners() {
    let flows = traces::bridge().everything().flows;
    let identities: BTreeSet<_> = flows.iter().map(FlowId::of).collect();
    assert_eq!(identities.len(), flows.len());
    for flow in flows {
        flow.matching.check().unwrap_or_else(|missing| panic!("{flow}: {missing}"));
        let drops = flow.instructions.is_empty();
        assert!(!drops || tables::dropped_at(Place::of(&flow)).is_some(), "{flow} drops for no reason");
        assert!(owner().owns(flow.cookie), "{flow} is nobody's");
    }
}
