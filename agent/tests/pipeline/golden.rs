//! Flows in `ovs-ofctl`'s words, for every shape of VIF and network.

use std::fmt::Write as _;

use flows::Flow;
use rstest::{Context, rstest};
use serde_json::{Value, json};
use vifd::plan::pipeline::{self, Attachment, Member, NetworkFacts, PortFacts, Uplink, tables};

use crate::scene::{Bridge, network, owner, vif, with_addresses};

/// The flows by table, each with what its place is.
pub(crate) fn text(flows: &[Flow]) -> String {
    let mut text = String::new();
    let mut table = None;
    for flow in flows {
        if table != Some(flow.table) {
            table = Some(flow.table);
            let _ = writeln!(text, "# {} {}", flow.table, tables::name(flow.table).unwrap());
        }
        let _ = write!(text, "{flow}");
        if let Some(counts) = tables::counts(tables::Place::of(flow)) {
            let _ = write!(text, "  # {counts:?}");
        }
        text.push('\n');
    }
    text
}

fn port(policy: &Value) -> PortFacts {
    on(policy, Attachment { port: 5, vlan: None })
}

fn on(policy: &Value, at: Attachment) -> PortFacts {
    Bridge::default().add(&vif(5, 1, policy), at).ports.remove(0)
}

#[rstest]
#[case::plain(port(&json!({})))]
#[case::port_security_off(port(&json!({"port_security": false})))]
#[case::sub_port(on(&json!({}), Attachment { port: 7, vlan: Some(100) }))]
#[case::address_pairs(port(&json!({"allowed_address_pairs": [
    {"ip": "10.9.0.0/24"}, {"mac": "00:00:5e:00:01:01", "ip": "10.0.0.100"}, {"mac": "52:54:00:00:01:05"},
    {"ip": "fd01::/64"}, {"mac": "00:00:5e:00:01:01", "ip": "0.0.0.0/0"},
]})))]
#[case::rates(port(&json!({"rate": {"egress_kbps": 10000, "ingress_kbps": 20000}})))]
#[case::no_addresses(PortFacts { fixed: Vec::new(), ..port(&json!({})) })]
#[case::inactive(PortFacts { active: false, ..port(&json!({})) })]
#[case::inactive_sub_port(PortFacts { active: false, ..on(&json!({}), Attachment { port: 7, vlan: Some(100) }) })]
#[case::no_rules_allow(port(&json!({"rules": []})))]
#[case::rules(port(&json!({"rules": [
    {"direction": "egress"},
    {"direction": "egress", "ethertype": "IPv6"},
    {"direction": "ingress", "protocol": "tcp", "port_min": 22},
    {"direction": "ingress", "protocol": "tcp", "port_min": 8000, "port_max": 8009, "remote_ip_prefix": "10.8.0.0/16"},
    {"direction": "ingress", "ethertype": "IPv6", "protocol": "udp", "port_min": 0, "port_max": 65535},
    {"direction": "ingress", "protocol": "icmp", "port_min": 8},
    {"direction": "ingress", "ethertype": "IPv6", "protocol": "icmp", "port_min": 128, "port_max": 0},
    {"direction": "ingress", "protocol": 112, "remote_ip_prefix": "0.0.0.0/0"},
    {"direction": "ingress", "protocol": "sctp"},
]})))]
#[case::group_rules(port(&json!({"rules": [
    {"direction": "ingress", "remote_group": "web"},
    {"direction": "ingress", "protocol": "tcp", "port_min": 5432, "remote_group": "db"},
    {"direction": "ingress", "protocol": "tcp", "port_min": 5432, "remote_group": "web"},
    {"direction": "egress", "ethertype": "IPv6", "remote_group": "db"},
]})))]
#[case::rules_without_port_security_on_a_sub_port(
    on(&json!({"port_security": false, "rules": [{"direction": "egress"}], "rate": {"egress_kbps": 1}}),
       Attachment { port: 7, vlan: Some(100) })
)]
fn vifs(#[context] case: Context, #[case] facts: PortFacts) {
    check("vif", case.description.unwrap(), &text(&pipeline::vif(&facts)));
}

fn member(port: u16, rules: bool) -> Member {
    Member { at: Attachment { port, vlan: None }, rules, shared: Vec::new() }
}

fn facts(members: Vec<Member>, uplink: Option<Uplink>) -> NetworkFacts {
    NetworkFacts { owner: owner(), key: network(1), members, uplink, limbo: Vec::new(), groups: vec![1, 2, 3] }
}

const TAGGED: Option<Uplink> = Some(Uplink { port: 9, vlan: Some(100) });

#[rstest]
#[case::on_a_vlan(facts(vec![member(1, false), member(2, true)], TAGGED))]
#[case::flat(facts(vec![member(1, false)], Some(Uplink { port: 9, vlan: None })))]
#[case::without_uplink(facts(vec![member(1, false), member(2, false)], None))]
#[case::alone(facts(vec![member(1, false)], None))]
#[case::shared_addresses(facts(
    vec![
        Member { shared: vec!["00:00:5e:00:01:01".parse().unwrap()], ..member(1, false) },
        Member { shared: vec!["00:00:5e:00:01:01".parse().unwrap()], ..member(2, true) },
    ],
    TAGGED
))]
fn networks(#[context] case: Context, #[case] facts: NetworkFacts) {
    let network = pipeline::network(&facts).unwrap();
    let groups: String = network.groups.iter().map(|group| format!("{group}\n")).collect();
    check("network", case.description.unwrap(), &format!("{}{groups}", text(&network.flows)));
}

#[test]
fn bridges() {
    check("bridge", "every", &text(&pipeline::bridge(owner())));
}

#[test]
fn groups_of_rules() {
    let mut bridge = Bridge::default();
    bridge.plain(&vif(1, 1, &json!({"groups": ["web"], "group_members": {"db": ["10.7.0.0/24", "10.0.0.1"]}})));
    bridge.plain(&with_addresses(2, 1, &json!({"groups": ["db", "web"]}), &["10.0.0.2"]));
    check("groups", "of_rules", &text(&pipeline::groups(owner(), &bridge.members())));
}

#[test]
fn meters() {
    let mut bridge = Bridge::default();
    for (number, rate) in [(1, json!({"egress_kbps": 100})), (2, json!({"ingress_kbps": 1_000_000, "egress_kbps": 1}))]
    {
        bridge.plain(&vif(number, 1, &json!({ "rate": rate })));
    }
    let meters: String = bridge.everything().meters.iter().map(|meter| format!("{meter}\n")).collect();
    check("meters", "of_vifs", &meters);
}

fn check(kind: &str, case: &str, text: &str) {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path("../snapshots");
    settings.set_prepend_module_to_snapshot(false);
    settings.bind(|| insta::assert_snapshot!(format!("pipeline__{kind}_{case}"), text));
}
