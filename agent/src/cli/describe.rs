//! `describe`: everything about one VIF, for people in sections.

use std::fmt::Write as _;

use serde_json::Value;

use super::Failure;
use super::output::{Cell, Output, mark};
use super::vifs::{resolve, typed};
use crate::api::client::Client;
use crate::inspect::Traffic;
use crate::model::{AddressPair, Policy, Vif};
use crate::record;
use crate::status::{Condition, ConditionKind, Truth, VifStatus};

pub(super) async fn describe(client: &Client, word: &str, output: &Output) -> Result<(), Failure> {
    let id = resolve(client, word).await?;
    let mut answer: Value = client.get(&format!("/v1/vifs/{id}")).await?;
    let vif: VifStatus = typed(&answer)?;
    // A VIF that is only left over on the host has no record.
    let record: Option<Value> = client.get(&format!("/v1/vifs/{id}/record")).await.ok();
    // As it was handed in, so in either form.
    let wanted = record.as_ref().and_then(|record| record::decode(record.to_string().as_bytes()).ok());
    answer["record"] = record.unwrap_or_default();
    // Only on managed bridges, and only while their switches answer.
    let traffic: Option<Traffic> = match vif.condition(ConditionKind::FlowsReady) {
        Some(_) => client.get(&format!("/v1/vifs/{id}/traffic")).await.ok(),
        None => None,
    };
    answer["traffic"] = serde_json::to_value(&traffic).unwrap_or_default();
    output.answer(&answer, || {
        let mut text = sections(&vif, wanted.as_ref().map(|record| &record.vif), output);
        text.push_str(&traffic.map(|traffic| counted(&traffic, output)).unwrap_or_default());
        text
    })
}

/// Whether vifd makes the flows by which the VIF's traffic passes; `None` while that is not known.
fn filters(status: &VifStatus) -> Option<bool> {
    if status.condition(ConditionKind::FlowsReady).is_some() {
        return Some(true);
    }
    // Before the VIF is looked at, or where its record cannot be honoured, nothing is said of flows.
    status.condition(ConditionKind::Plugged).filter(|plugged| plugged.status == Truth::True).map(|_| false)
}

/// What a record wants, beside what the status has of it. `bridge` is the bridge of Open vSwitch that it is on,
/// `filters` whether vifd does something about rules there.
fn wishes(vif: &Vif, bridge: Option<&str>, filters: Option<bool>, output: &Output) -> String {
    let mut text = output.paint.strong("\nWanted\n");
    let mut entry = |name: &str, value: String| {
        if !value.is_empty() {
            let _ = writeln!(text, "  {name:<16}{value}");
        }
    };
    if let Some(network) = &vif.network {
        let names = [network.label.clone(), network.id.map(|id| id.to_string())];
        entry("network", names.into_iter().flatten().collect::<Vec<_>>().join(" "));
        entry("vlan", network.vlan.map_or_else(String::new, |vlan| vlan.to_string()));
    }
    entry("parent", vif.parent.map_or_else(String::new, |parent| format!("{}, VLAN {}", parent.vif, parent.vlan)));
    if !vif.active {
        entry("active", "false".to_owned());
    }
    let Policy { port_security, rules, groups, allowed_address_pairs, rate, .. } = &vif.policy;
    if !port_security {
        entry("port_security", "off: it may use any address".to_owned());
    }
    entry(
        "rules",
        match (rules.as_deref(), filters) {
            (None, Some(true)) => "none: no more than port security filters".to_owned(),
            (None, _) => "none".to_owned(),
            (Some([]), Some(false)) => "an empty list".to_owned(),
            (Some([]), _) => "an empty list: nothing passes".to_owned(),
            (Some(rules), _) => rules.len().to_string(),
        },
    );
    entry("groups", groups.join(", "));
    let pair = |pair: &AddressPair| {
        let (mac, ip) = (pair.mac.map(|mac| mac.to_string()), pair.ip.map(|ip| ip.to_string()));
        mac.into_iter().chain(ip).collect::<Vec<_>>().join(" ")
    };
    entry("address pairs", allowed_address_pairs.iter().map(pair).collect::<Vec<_>>().join(", "));
    let rates = [("to the guest", rate.ingress_kbps), ("from the guest", rate.egress_kbps)];
    let rates = rates.iter().filter(|(_, kbps)| *kbps > 0).map(|(way, kbps)| format!("{kbps} kbit/s {way}"));
    entry("rate", rates.collect::<Vec<_>>().join(", "));
    if filters == Some(false) {
        let why = bridge.map_or_else(
            || "it has no port on a bridge of Open vSwitch whose flows vifd makes".to_owned(),
            |bridge| format!("vifd does not make the flows of bridge {bridge}"),
        );
        entry("policy", format!("not enforced: {why}"));
    }
    text
}

/// What the flows of a VIF have counted.
fn counted(traffic: &Traffic, output: &Output) -> String {
    let paint = output.paint;
    let mut text = paint.strong("\nTraffic\n");
    for (name, count) in [("sent", traffic.egress), ("received", traffic.ingress)] {
        let packets = if count.packets == 1 { "packet" } else { "packets" };
        let _ = writeln!(text, "  {name:<16}{} {packets}, {} octets", count.packets, count.bytes);
    }
    let drops: Vec<String> = traffic.dropped.iter().map(|(reason, packets)| format!("{packets} {reason}")).collect();
    let _ =
        writeln!(text, "  {:<16}{}", "dropped", if drops.is_empty() { "none".to_owned() } else { drops.join(", ") });
    if let Some(read) = traffic.read {
        let _ = writeln!(text, "  {:<16}{}", "counted at", humantime::format_rfc3339_seconds(read));
    }
    for sentence in &traffic.lately {
        let _ = writeln!(text, "  {:<16}{}", "", paint.bad(sentence));
    }
    text
}

fn sections(vif: &VifStatus, wanted: Option<&Vif>, output: &Output) -> String {
    let paint = output.paint;
    let mut text = String::new();
    let mut entry = |name: &str, value: &str| {
        if !value.is_empty() {
            let _ = writeln!(text, "{name:<12}{value}");
        }
    };
    let phase = format!("{} {}", mark(vif.phase), vif.phase);
    let since = humantime::format_rfc3339_seconds(vif.since);
    let addresses: Vec<String> = vif.addresses.iter().map(ToString::to_string).collect();
    entry("VIF", &paint.strong(&vif.id.to_string()));
    entry("Type", &vif.kind);
    entry("Guest", vif.instance.as_deref().unwrap_or_default());
    entry("Addresses", &addresses.join(", "));
    entry("Phase", &format!("{} since {since} ({})", paint.phase(vif.phase, &phase), vif.reason));
    entry("", &vif.message);
    let behind = if vif.generation == vif.observed_generation {
        vif.generation.to_string()
    } else {
        format!("{}, in force is {}", vif.generation, vif.observed_generation)
    };
    entry("Generation", &behind);
    text.push_str(&paint.strong("\nConditions\n"));
    let conditions = vif.conditions.iter().map(|condition| {
        let name = format!("{:?}", condition.kind);
        let since = humantime::format_rfc3339_seconds(condition.since).to_string();
        let Condition { status, reason, message, .. } = condition.clone();
        vec![format!("  {name}").into(), Cell::truth(status), since.into(), reason.into_owned().into(), message.into()]
    });
    text.push_str(&output.uncut().table(&["  TYPE", "STATUS", "SINCE", "REASON", "MESSAGE"], conditions));
    text.push_str(
        &wanted.map(|wanted| wishes(wanted, vif.facts.bridge.as_deref(), filters(vif), output)).unwrap_or_default(),
    );
    text.push_str(&paint.strong("\nOn this host\n"));
    let facts = serde_json::to_value(&vif.facts).unwrap_or_default();
    let facts: Vec<_> = facts.as_object().into_iter().flatten().filter(|(name, _)| *name != "unseen").collect();
    if facts.is_empty() {
        text.push_str("  nothing\n");
    }
    for (name, value) in facts {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let seen = if vif.facts.unseen.iter().any(|unseen| unseen == name) { " (wanted, and not there)" } else { "" };
        let _ = writeln!(text, "  {name:<16}{value}{seen}");
    }
    text
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use serde_json::json;

    use super::*;
    use crate::plan::Facts;
    use crate::status::Phase;

    #[test]
    fn a_description_tells_what_is_wanted_and_what_is_there() {
        let record = json!({
            "vif": {
                "type": "openvswitch", "id": "dc065497-3c8d-4f44-8fb4-e1d33c16a536", "vif_name": "tap1",
                "address": "52:54:00:12:34:56",
                "network": {"id": "b82c1929-051e-481d-8110-4669916c7915", "bridge": "br-int", "label": "blue", "vlan": 100},
                "port_profile": {"type": "openvswitch", "create_port": true},
            },
            "policy": {
                "rules": [{"direction": "ingress"}], "groups": ["web"], "rate": {"egress_kbps": 5000},
                "allowed_address_pairs": [{"mac": "52:54:00:00:00:07", "ip": "10.0.0.7"}, {"ip": "10.1.0.0/16"}],
            },
        });
        let wanted = record::decode(record.to_string().as_bytes()).unwrap().vif;
        let facts = Facts {
            bridge: Some("br-int".into()),
            port: Some("tap1".into()),
            zone: Some(32768),
            unseen: vec!["port".into()],
            ..Facts::default()
        };
        let vif = VifStatus {
            id: wanted.id,
            kind: "openvswitch".into(),
            phase: Phase::Working,
            reason: "Applying".into(),
            message: "port tap1 on bridge br-int is being brought into shape".into(),
            generation: 0,
            observed_generation: 0,
            instance: None,
            addresses: Vec::new(),
            conditions: Vec::new(),
            facts: facts.into(),
            since: SystemTime::UNIX_EPOCH,
        };
        insta::assert_snapshot!(sections(&vif, Some(&wanted), &Output::plain()));
        let told = |bridge, filters| wishes(&wanted, bridge, filters, &Output::plain());
        assert!(!told(Some("br-int"), Some(true)).contains("not enforced"));
        assert!(
            told(Some("br-int"), Some(false)).contains("not enforced: vifd does not make the flows of bridge br-int\n")
        );
        assert!(told(None, Some(false)).contains("not enforced: it has no port"));
        let nothing = VifStatus { facts: Facts::default().into(), ..vif };
        assert!(sections(&nothing, None, &Output::plain()).ends_with("\nOn this host\n  nothing\n"));
    }
}
