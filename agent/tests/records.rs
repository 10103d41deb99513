//! Records as os-vif 5.3.0 writes them, what becomes of them, and what is refused for which field. That
//! reading follows the table of objects is tested next to it, in `src/record/tests.rs`.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use rstest::rstest;
use serde_json::{Map, Value, json};
use vifd::config::Config;
use vifd::model::{Direction, Ethertype, Protocol, Rule, VifKind};
use vifd::plan::blueprint::{Blueprint, Layout, blueprint};
use vifd::record::{self, Limits, MAX_BYTES, Record, Refused, decode, to_native};

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

/// The records of a directory by name.
fn records(directory: &str) -> BTreeMap<String, Value> {
    let read = |path: PathBuf| {
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        (name, serde_json::from_slice(&fs::read(path).unwrap()).unwrap())
    };
    fs::read_dir(repository(directory)).unwrap().map(|entry| read(entry.unwrap().path())).collect()
}

fn samples() -> BTreeMap<String, Value> {
    records("integration/fixtures/os-vif")
}

fn sample(name: &str) -> Value {
    samples().remove(name).unwrap()
}

fn read(record: &Value) -> Result<Record, Refused> {
    decode(record.to_string().as_bytes())
}

/// The samples that os-vif's own plugins refuse too, and the field that is missing.
const REFUSED: [(&str, &str); 2] =
    [("openvswitch-no-address", "vif.network"), ("openvswitch-no-profile", "vif.port_profile")];

#[test]
fn samples_are_read_as_they_always_were() {
    let samples = samples();
    let network = to_native(&read(&samples["openvswitch"]).unwrap().vif)["vif"]["network"].clone();
    let mut golden = BTreeMap::new();
    for (name, sample) in samples.iter().filter(|(name, _)| !name.contains('@')) {
        let told = match read(sample) {
            Ok(Record { vif, warnings }) => {
                assert_eq!(warnings, [], "{name}");
                let mut native = to_native(&vif);
                assert_eq!(read(&native).unwrap().vif, vif, "{name}");
                if name != "openvswitch" && native["vif"]["network"] == network {
                    native["vif"]["network"] = json!("as that of openvswitch");
                }
                native
            }
            Err(refused) => {
                assert!(REFUSED.contains(&(name.as_str(), refused.field.as_str())), "{name}: {refused}");
                json!(refused.to_string())
            }
        };
        golden.insert(name.as_str(), told);
    }
    assert_eq!(golden.len(), 30);
    insta::assert_json_snapshot!("os_vif", golden);
}

/// What is in `newest` and in `older` both: what an older sender can say.
fn common(newest: &Value, older: &Value) -> Value {
    match (newest, older) {
        (Value::Object(newest), Value::Object(older)) => {
            let both = newest.iter().filter_map(|(key, value)| Some((key.clone(), common(value, older.get(key)?))));
            both.collect::<Map<_, _>>().into()
        }
        (Value::Array(newest), Value::Array(older)) => {
            newest.iter().zip(older).map(|(newest, older)| common(newest, older)).collect()
        }
        _ => newest.clone(),
    }
}

#[test]
fn older_versions_say_less_and_nothing_else() {
    let samples = samples();
    let mut tried = 0;
    for (name, older) in samples.iter().filter(|(name, _)| name.contains('@')) {
        let newest = &samples[name.split_once('@').unwrap().0];
        let expected = read(&common(newest, older));
        let found = read(older);
        match (found, expected) {
            (Ok(found), Ok(expected)) => {
                assert_eq!(found.vif, expected.vif, "{name}");
                // os-vif forgets to leave this one out for readers of that age.
                assert!(found.warnings.iter().all(|w| w.field == "vif.port_profile.datapath_offload"), "{name}");
            }
            (Err(found), Err(_)) => assert!(name.starts_with("openvswitch-no-profile"), "{name}: {found}"),
            (found, expected) => panic!("{name}: {found:?} and {expected:?}"),
        }
        tried += 1;
    }
    assert_eq!(tried, 55);
}

#[test]
fn the_examples_are_good() {
    let examples = records("docs/examples");
    assert_eq!(examples.len(), 5);
    for (name, example) in examples {
        assert_eq!(read(&example).unwrap_or_else(|refused| panic!("{name}: {refused}")).warnings, [], "{name}");
    }
}

/// Every record that docs/records.md shows whole is good, and something is made of it. What is cut has an ellipsis.
#[test]
fn the_records_of_the_documentation_are_good() {
    let text = fs::read_to_string(repository("docs/records.md")).unwrap();
    let blocks = text.split("```json\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let whole: Vec<&str> = blocks.filter(|block| !block.contains('…')).collect();
    assert_eq!(whole.len(), 15);
    let settings = Config::default().settings().unwrap();
    for block in whole {
        let record = decode(block.as_bytes()).unwrap_or_else(|refused| panic!("{refused}\n{block}"));
        assert_eq!(record.warnings, [], "{block}");
        let made = blueprint(&record.vif, Layout::Plain, &settings);
        assert_ne!(made.unwrap_or_else(|wrong| panic!("{wrong:?}\n{block}")), Blueprint::default(), "{block}");
    }
}

/// Puts `value` at `path` (or takes away what is there) in either form of a record.
fn put(record: &mut Value, path: &str, value: Option<Value>) {
    let mut at = record;
    let steps: Vec<_> = path.split('.').flat_map(|step| step.split(['[', ']']).filter(|s| !s.is_empty())).collect();
    let (last, steps) = steps.split_last().unwrap();
    for step in steps {
        at = child(enter(at), step);
    }
    let at = enter(at);
    match (value, at) {
        (Some(value), Value::Array(list)) => list[last.parse::<usize>().unwrap()] = value,
        (Some(value), at) => at[*last] = value,
        (None, at) => drop(at.as_object_mut().unwrap().remove(*last).unwrap()),
    }
}

/// The inside of an os-vif object, the elements of an os-vif list; anything else as it is.
fn enter(value: &mut Value) -> &mut Value {
    if value.get("versioned_object.data").is_none() {
        return value;
    }
    let data = &mut value["versioned_object.data"];
    if data.get("objects").is_some() { &mut data["objects"] } else { data }
}

fn child<'v>(value: &'v mut Value, step: &str) -> &'v mut Value {
    match step.parse::<usize>() {
        Ok(at) => &mut value[at],
        Err(_) => &mut value[step],
    }
}

fn absent() -> Option<Value> {
    None
}

fn is(value: Value) -> Option<Value> {
    Some(value)
}

fn rules(rules: &Value) -> Option<Value> {
    is(json!({ "rules": rules }))
}

/// One rule that would be good but for this.
fn rule(with: &Value) -> Option<Value> {
    let mut rule = json!({"direction": "ingress"});
    rule.as_object_mut().unwrap().extend(with.as_object().unwrap().clone());
    rules(&json!([rule]))
}

#[rstest]
// The VIF itself
#[case("openvswitch", "vif.id", absent(), "is missing")]
#[case("openvswitch", "vif.id", is(json!("dc065497")), "\"dc065497\" is not a UUID")]
#[case("openvswitch", "vif.address", absent(), "VIFOpenVSwitch with VIFPortProfileOpenVSwitch needs it")]
#[case("openvswitch", "vif.address", is(Value::Null), "is missing")]
#[case("openvswitch", "vif.address", is(json!("52:54:00:12:34")), "is not a MAC address")]
#[case("openvswitch", "vif.address", is(json!("01:00:5e:00:00:01")), "01:00:5e:00:00:01 is a group address")]
#[case("openvswitch", "vif.address", is(json!("ff:ff:ff:ff:ff:ff")), "group address")]
#[case("openvswitch", "vif.address", is(json!("00:00:00:00:00:00")), "all zero")]
#[case("openvswitch", "vif.active", is(json!("yes")), "expected true or false, got \"yes\"")]
#[case("openvswitch", "vif.vif_name", absent(), "VIFOpenVSwitch cannot do without it")]
#[case("openvswitch", "vif.vif_name", is(json!("")), "is missing")]
#[case("openvswitch", "vif.vif_name", is(json!("tap0123456789abc")), "has 16 bytes and an interface name at most 15")]
#[case("openvswitch", "vif.vif_name", is(json!("täp0123456789")), "")]
#[case("openvswitch", "vif.vif_name", is(json!("tap/1")), "has '/' in it")]
#[case("openvswitch", "vif.vif_name", is(json!("tap 1")), "has ' ' in it")]
#[case("openvswitch", "vif.vif_name", is(json!("tap\u{a0}1")), "in it")]
#[case("openvswitch", "vif.vif_name", is(json!("tap%d")), "has '%' in it")]
#[case("openvswitch", "vif.vif_name", is(json!("tap\u{0}")), "control character")]
#[case("openvswitch", "vif.vif_name", is(json!(".")), "cannot be the name")]
#[case("openvswitch", "vif.vif_name", is(json!("..")), "cannot be the name")]
#[case("openvswitch", "vif.vif_name", is(json!("all")), "cannot be the name")]
#[case("openvswitch", "vif.vif_name", is(json!("br-int")), "the bridge that the VIF is plugged into")]
#[case("openvswitch", "vif.bridge_name", is(json!("br/int")), "has '/' in it")]
#[case("openvswitch", "vif.port_profile", absent(), "VIFOpenVSwitch needs one of VIFPortProfileOpenVSwitch,")]
#[case("openvswitch", "vif.network", absent(), "needs it")]
#[case("openvswitch", "vif.network.bridge", absent(), "needs it")]
#[case("openvswitch", "vif.network.bridge", is(json!("br-0123456789abcdef")), "has 19 bytes")]
#[case("bridge-hybrid", "vif.bridge_name", absent(), "VIFBridge with VIFPortProfileOpenVSwitch needs it")]
#[case("bridge-hybrid", "vif.port_profile", absent(), "VIFBridge needs one of VIFPortProfileOpenVSwitch")]
#[case("bridge-hybrid", "vif.address", absent(), "needs it")]
#[case("direct", "vif.mode", is(json!("private")), "\"private\" is not one of vepa, passthrough, bridge")]
#[case("direct", "vif.dev_address", is(json!("03:00.2")), "\"03:00.2\" is not a PCI address")]
#[case("direct", "vif.vlan_name", is(json!("vlan:99")), "has ':' in it")]
#[case("vhostuser-server", "vif.mode", absent(), "is missing")]
#[case("vhostuser-server", "vif.mode", is(json!("both")), "\"both\" is not one of client, server")]
#[case("vhostuser-server", "vif.path", absent(), "is missing")]
#[case("vhostuser-server", "vif.path", is(json!("vhu.sock")), "is not an absolute path")]
#[case("vhostuser-server", "vif.path", is(json!("/run/../etc/x")), "has \"..\" in it")]
#[case("vhostuser-server", "vif.path", is(json!("/run/vhost/")), "is a directory")]
#[case("vhostuser-server", "vif.path", is(json!(format!("/{}", "x".repeat(107)))), "has 108 bytes")]
#[case("vhostuser-server", "vif.network", absent(), "needs it")]
#[case("hostdevice-legacy", "vif.dev_address", absent(), "VIFHostDevice cannot do without it")]
#[case("hostdevice-legacy", "vif.dev_type", is(json!("vdpa")), "is not one of ethernet, generic")]
#[case("hostdevice-legacy", "vif.dev_address", is(json!("123456789:00:00.0")), "is not a PCI address")]
#[case("hostdevice-offload", "vif.port_profile", absent(), "is missing")]
#[case("nested-dpdk", "vif.pci_address", absent(), "is missing")]
#[case("nested-dpdk", "vif.dev_driver", is(json!("../../x")), "is not the name of a driver")]
// Profiles
#[case("openvswitch", "vif.port_profile.interface_id", is(json!(5)), "expected text, got 5")]
#[case("openvswitch", "vif.port_profile.interface_id", is(json!("x".repeat(256))), "longer than 255 bytes")]
#[case("openvswitch", "vif.port_profile.create_port", is(json!(1)), "expected true or false, got 1")]
#[case("bridge-hybrid", "vif.port_profile.create_tap", is(json!(true)), "a VIFBridge has no tap to create")]
#[case("vhostuser-client", "vif.port_profile.create_tap", is(json!(true)), "a VIFVHostUser has no tap")]
#[case("vhostuser-fp-bridge", "vif.port_profile.bridge_name", absent(), "cannot do without it")]
#[case("vhostuser-fp-openvswitch", "vif.port_profile.bridge_name", is(json!("a b")), "has ' ' in it")]
#[case("vhostuser-fp-tap", "vif.port_profile.mac_address", is(json!("03:00:00:00:00:01")), "group address")]
#[case("direct-8021qbg", "vif.port_profile.manager_id", is(json!(256)), "256 is not a whole number from 0 to 255")]
#[case("direct-8021qbg", "vif.port_profile.type_id", is(json!(1 << 24)), "from 0 to 16777215")]
#[case("direct-8021qbg", "vif.port_profile.type_id_version", is(json!(523)), "from 0 to 255")]
#[case("direct-8021qbg", "vif.port_profile.type_id", absent(), "is missing")]
#[case("direct-8021qbg", "vif.port_profile.instance_id", is(json!("x")), "is not a UUID")]
#[case("direct-8021qbh", "vif.port_profile.profile_id", is(json!("x".repeat(40))), "longer than 39 bytes")]
#[case("hostdevice-representor", "vif.port_profile.representor_address", is(json!("eth0")), "is not a PCI address")]
#[case("hostdevice-offload", "vif.port_profile.datapath_offload.representor_name", is(json!("a/b")), "has '/' in it")]
// Networks
#[case("openvswitch", "vif.network.id", is(json!("private")), "\"private\" is not a UUID")]
#[case("openvswitch", "vif.network.mtu", is(json!(67)), "67 is not a whole number from 68 to 65535")]
#[case("openvswitch", "vif.network.mtu", is(json!(65536)), "65536 is not")]
#[case("openvswitch", "vif.network.mtu", is(json!(1450.5)), "1450.5 is not")]
#[case("openvswitch", "vif.network.mtu", is(json!("1450")), "\"1450\" is not a whole number")]
#[case("bridge-vlan", "vif.network.vlan", is(json!(0)), "0 is not a whole number from 1 to 4094")]
#[case("bridge-vlan", "vif.network.vlan", is(json!(4095)), "4095 is not")]
#[case("openvswitch", "vif.network.subnets[0].cidr", is(json!("10.0.0.0/33")), "is not an IP address with a prefix")]
#[case("openvswitch", "vif.network.subnets[0].gateway", is(json!("gw")), "\"gw\" is not an IP address")]
#[case("openvswitch", "vif.network.subnets[0].dns[0]", is(json!(8)), "expected text, got 8")]
#[case("openvswitch", "vif.network.subnets[0].ips[0].address", is(json!("10.0.0.256")), "is not an IP address")]
#[case("openvswitch", "vif.network.subnets[0].routes[0].cidr", absent(), "Route cannot do without it")]
#[case("openvswitch", "vif.network.subnets[0]", is(json!([])), "expected an object, got a list")]
#[case("openvswitch", "vif.network.subnets", is(json!("none")), "expected a list, got \"none\"")]
// What is not the VIF
#[case("openvswitch", "instance.uuid", absent(), "InstanceInfo cannot do without it")]
#[case("openvswitch", "instance.name", is(json!(7)), "expected text, got 7")]
#[case("openvswitch", "generation", is(json!(-1)), "-1 is not a whole number")]
#[case("openvswitch", "parent", is(json!("x")), "expected an object, got \"x\"")]
#[case("openvswitch", "parent.vlan", is(json!({"vif": "dc065497-3c8d-4f44-8fb4-e1d33c16a536"})), "is missing")]
#[case("openvswitch", "policy.rules[1]", rules(&json!([{"direction": "egress"}, 1])), "expected an object, got 1")]
#[case("openvswitch", "policy.rules[0].direction", rules(&json!([{}])), "is missing")]
#[case("openvswitch", "policy.rules[0].direction", rule(&json!({"direction": "in"})), "not one of ingress, egress")]
#[case("openvswitch", "policy.rules[0].ethertype", rule(&json!({"ethertype": "IPX"})), "not one of IPv4, IPv6")]
#[case("openvswitch", "policy.rules[0].protocol", rule(&json!({"protocol": 256})), "256 is not a number from 0 to 255")]
#[case("openvswitch", "policy.rules[0].protocol", rule(&json!({"protocol": "gre"})), "nor one of tcp, udp, sctp, icmp, icmpv6")]
#[case("openvswitch", "policy.rules[0].protocol", rule(&json!({"protocol": "+6"})), "\"+6\" is not a number")]
#[case("openvswitch", "policy.rules[0].protocol", rule(&json!({"protocol": "icmpv6"})), "needs the ethertype IPv6")]
#[case("openvswitch", "policy.rules[0].port_min", rule(&json!({"port_min": 80})), "needs the protocol tcp")]
#[case("openvswitch", "policy.rules[0].port_max", rule(&json!({"protocol": 112, "port_max": 80})), "needs the protocol tcp")]
#[case("openvswitch", "policy.rules[0].port_max", rule(&json!({"protocol": "tcp", "port_max": 80})), "needs a port_min")]
#[case(
    "openvswitch", "policy.rules[0].port_max",
    rule(&json!({"protocol": "udp", "port_min": 81, "port_max": 80})), "is less than port_min"
)]
#[case("openvswitch", "policy.rules[0].port_min", rule(&json!({"protocol": "tcp", "port_min": 65536})), "from 0 to 65535")]
#[case("openvswitch", "policy.rules[0].port_min", rule(&json!({"protocol": "icmp", "port_min": 256})), "is the type of icmp")]
#[case(
    "openvswitch", "policy.rules[0].port_max",
    rule(&json!({"protocol": "icmp", "port_min": 8, "port_max": 256})), "is the code of icmp"
)]
#[case("openvswitch", "policy.rules[0].remote_ip_prefix", rule(&json!({"remote_ip_prefix": "fd00::/8"})), "rule's ethertype")]
#[case("openvswitch", "policy.rules[0].remote_ip_prefix", rule(&json!({"remote_ip_prefix": "all"})), "IP address or prefix")]
#[case(
    "openvswitch", "policy.rules[0].remote_group",
    rule(&json!({"remote_ip_prefix": "10.0.0.0/8", "remote_group": "web"})), "two rules say it"
)]
#[case("openvswitch", "policy.rules[0].port", rule(&json!({"port": 80})), "is not a field of rule")]
#[case("openvswitch", "policy.rules", rules(&json!(vec![json!({"direction": "egress"}); 1001])), "are 1001 and may be 1000")]
#[case("openvswitch", "policy.groups[1]", is(json!({"groups": ["web", ""]})), "without a name")]
#[case("openvswitch", "policy.groups[0]", is(json!({"groups": [7]})), "expected text, got 7")]
#[case("openvswitch", "policy.group_members", is(json!({"group_members": {"": []}})), "without a name")]
#[case("openvswitch", "policy.group_members", is(json!({"group_members": ["web"]})), "expected an object, got a list")]
#[case("openvswitch", "policy.group_members.web", is(json!({"group_members": {"web": "10.0.0.1"}})), "expected a list")]
#[case(
    "openvswitch", "policy.group_members.web[1]",
    is(json!({"group_members": {"web": ["10.0.0.1", "10.0.0.0/33"]}})), "is not an IP address or prefix"
)]
#[case("openvswitch", "policy.port_security", is(json!({"port_security": 0})), "expected true or false, got 0")]
#[case("openvswitch", "policy.allowed_address_pairs[0]", is(json!({"allowed_address_pairs": [{}]})), "needs a mac, an ip")]
#[case(
    "openvswitch", "policy.allowed_address_pairs[0].ip",
    is(json!({"allowed_address_pairs": [{"ip": "10.0.0.0/99"}]})), "is not an IP address or prefix"
)]
#[case(
    "openvswitch", "policy.allowed_address_pairs[0].mac",
    is(json!({"allowed_address_pairs": [{"mac": "33:33:00:00:00:01"}]})), "group address"
)]
#[case("openvswitch", "policy.rate.egress_kbps", is(json!({"rate": {"egress_kbps": 4294967296_u64}})), "4294967296 is not")]
#[case("openvswitch", "policy.colour", is(json!({"colour": "red"})), "is not a field of policy, which has port_security,")]
fn the_field_is_named(#[case] name: &str, #[case] field: &str, #[case] value: Option<Value>, #[case] reason: &str) {
    let os_vif = sample(name);
    let native = to_native(&read(&os_vif).unwrap().vif);
    for mut record in [os_vif, native] {
        // What is not in the sample is put there whole.
        let (path, value) = match field.split_once('.') {
            Some((whole @ ("policy" | "parent"), _)) => (whole, value.clone()),
            _ => (field, value.clone()),
        };
        put(&mut record, path, value);
        if reason.is_empty() {
            read(&record).unwrap();
            continue;
        }
        let refused = read(&record).unwrap_err();
        assert_eq!(refused.field, field, "{refused}");
        assert!(refused.reason.contains(reason), "{refused}");
        assert_eq!(refused.vif.is_some(), field != "vif.id", "{refused:?}");
    }
}

#[rstest]
#[case(json!({"type": "openvswitch"}), "vif.id", "is missing")]
#[case(json!({}), "vif.type", "is missing; it is one of generic, bridge, openvswitch, direct, vhostuser, hostdevice,")]
#[case(json!({"type": "VIFOpenVSwitch"}), "vif.type", "\"VIFOpenVSwitch\" is not one of generic")]
#[case(json!({"type": 5}), "vif.type", "5 is not one of")]
#[case(json!({"type": "generic", "vifname": "tap1"}), "vif.vifname", "is not a field of generic, which has id, address,")]
#[case(json!({"type": "generic", "path": "/x"}), "vif.path", "is not a field of generic")]
#[case(
    json!({"type": "generic", "id": "dc065497-3c8d-4f44-8fb4-e1d33c16a536", "vif_name": "t",
           "network": {"type": "network"}}),
    "vif.network.type", "is not a field here"
)]
#[case(
    json!({"type": "generic", "id": "dc065497-3c8d-4f44-8fb4-e1d33c16a536", "vif_name": "t",
           "port_profile": {"interface_id": "x"}}),
    "vif.port_profile.type", "it is one of base, openvswitch, fp_openvswitch"
)]
#[case(json!([]), "vif", "expected an object, got a list")]
#[case(Value::Null, "vif", "is missing")]
fn native_vifs_name_their_field(#[case] vif: Value, #[case] field: &str, #[case] reason: &str) {
    let refused = read(&json!({ "vif": vif })).unwrap_err();
    assert_eq!(refused.field, field, "{refused}");
    assert!(refused.reason.contains(reason), "{refused}");
}

#[rstest]
#[case("vif.versioned_object.name", json!("VIFBase"), "os-vif object \"VIFBase\" is not known; expected VIFGeneric,")]
#[case("vif.versioned_object.name", json!("Network"), "a Network cannot stand here; expected VIFGeneric")]
#[case("vif.versioned_object.name", json!(1), "expected text, got 1")]
#[case("vif.versioned_object.namespace", json!("nova_object"), "\"nova_object\" is not os_vif")]
#[case("vif.versioned_object.version", json!("2.0"), "VIFOpenVSwitch \"2.0\" is of another major version than 1")]
#[case("vif.versioned_object.version", json!("1.1"), "VIFOpenVSwitch 1.1 is newer than 1.0, the newest that is known")]
#[case("vif.versioned_object.version", json!("1"), "is not a version such as 1.0")]
#[case("vif.versioned_object.version", json!("1.+0"), "is not a version such as 1.0")]
#[case("vif.versioned_object.version", json!("1.99999999999"), "is not a version")]
#[case("vif.versioned_object.data", json!([]), "expected an object, got a list")]
#[case("vif.port_profile.versioned_object.name", json!("VIFPortProfileIVS"), "is not known; expected VIFPortProfileBase, VIF")]
#[case("vif.port_profile.versioned_object.version", json!("1.5"), "newer than 1.4")]
#[case("vif.network.versioned_object.version", json!("1.2"), "newer than 1.1")]
#[case("vif.network.subnets.versioned_object.name", json!("RouteList"), "\"RouteList\" cannot stand here; expected SubnetList")]
#[case("vif.network.subnets.versioned_object.version", json!("1.1"), "SubnetList 1.1 is newer than 1.0")]
#[case("instance.versioned_object.version", json!("1.1"), "InstanceInfo 1.1 is newer than 1.0")]
#[case("instance.versioned_object.name", json!("Subnet"), "a Subnet cannot stand here; expected InstanceInfo")]
fn envelopes_are_judged(#[case] field: &str, #[case] value: Value, #[case] reason: &str) {
    let mut record = sample("openvswitch");
    let (object, key) = field.split_once(".versioned_object.").unwrap();
    let key = format!("versioned_object.{key}");
    let mut at = &mut record;
    for step in object.split('.') {
        at = if at.get("versioned_object.data").is_some() {
            &mut at["versioned_object.data"][step]
        } else {
            &mut at[step]
        };
    }
    at[&key] = value;
    let wrong = read(&with(&sample("openvswitch"), object, at)).unwrap_err();
    assert_eq!(wrong.field, field, "{wrong}");
    assert!(wrong.reason.contains(reason), "{wrong}");
    at.as_object_mut().unwrap().remove(&key);
    let missing = read(&with(&sample("openvswitch"), object, at)).unwrap_err();
    assert_eq!((missing.field.as_str(), missing.reason.as_str()), (field, "is missing from the os-vif object"));
}

/// `record` with `object` in place of the one at that path.
fn with(record: &Value, path: &str, object: &Value) -> Value {
    let mut record = record.clone();
    put(&mut record, path, Some(object.clone()));
    record
}

#[test]
fn a_profile_that_does_not_go_with_the_type_is_refused() {
    let mut record = sample("openvswitch");
    let tap = sample("vhostuser-fp-tap")["vif"]["versioned_object.data"]["port_profile"].clone();
    put(&mut record, "vif.port_profile", Some(tap));
    let refused = read(&record).unwrap_err();
    assert_eq!(refused.field, "vif.port_profile");
    assert!(refused.reason.starts_with("VIFPortProfileFPTap does not go with VIFOpenVSwitch, which takes VIFPort"));
}

#[test]
fn what_is_not_a_record_is_refused() {
    let refuse = |bytes: &[u8], reason: &str| {
        let refused = decode(bytes).unwrap_err();
        assert_eq!(refused.field, "");
        assert!(refused.to_string().contains(reason), "{refused}");
        refused
    };
    refuse(b" \n", "the record is empty");
    refuse(b"{\"vif\": {\n\"id\" 5}}", "at line 2");
    refuse(b"[]", "expected an object");
    refuse("[".repeat(100_000).as_bytes(), "recursion limit exceeded");
    refuse(&vec![b' '; MAX_BYTES + 1], "has 1048577 bytes and may have 1048576");
    let bare = refuse(sample("openvswitch")["vif"].to_string().as_bytes(), "is a bare os-vif object");
    assert!(bare.vif.is_some());
}

#[test]
fn a_refusal_tells_whose_it_is() {
    let mut record = sample("openvswitch");
    record["generation"] = json!(7);
    put(&mut record, "vif.network.mtu", Some(json!(1)));
    let refused = read(&record).unwrap_err();
    assert_eq!(refused.generation, Some(7));
    let id = record["vif"]["versioned_object.data"]["id"].as_str().unwrap();
    assert_eq!(refused.vif.unwrap().to_string(), id);
    assert_eq!(refused.to_string(), "vif.network.mtu: 1 is not a whole number from 68 to 65535");
}

/// Everything that may be absent is: what is left means the defaults.
#[test]
fn absent_fields_have_os_vifs_defaults() {
    let record = json!({
        "vif": {
            "type": "openvswitch", "id": "DC065497-3C8D-4F44-8FB4-E1D33C16A536", "address": "52-54-00-AB-CD-EF",
            "vif_name": "tap1", "network": { "bridge": "br-int" }, "port_profile": { "type": "openvswitch" },
        },
    });
    let vif = read(&record).unwrap().vif;
    assert_eq!(vif.id.to_string(), "dc065497-3c8d-4f44-8fb4-e1d33c16a536");
    assert_eq!(vif.address.unwrap().to_string(), "52:54:00:ab:cd:ef");
    assert!(vif.active && !vif.preserve_on_delete && !vif.has_traffic_filtering);
    assert!(vif.policy.port_security && vif.policy.spoof_check && !vif.policy.trust);
    assert_eq!((vif.generation, vif.instance, vif.parent), (0, None, None));
    let profile = vif.profile.unwrap();
    let ovs = profile.kind.openvswitch().unwrap();
    assert!(!ovs.create_port && !ovs.create_tap && !ovs.multiqueue && ovs.interface_id.is_none());
    assert_eq!(vif.network.unwrap().mtu, None);
}

#[test]
fn nothing_and_zero_are_no_mtu_as_with_os_vif() {
    for mtu in [json!(0), Value::Null] {
        let mut record = sample("openvswitch");
        put(&mut record, "vif.network.mtu", Some(mtu));
        assert_eq!(read(&record).unwrap().vif.network.unwrap().mtu, None);
    }
}

#[test]
fn long_pci_domains_are_taken() {
    let mut record = sample("hostdevice-legacy");
    put(&mut record, "vif.dev_address", Some(json!("10000:e1:00.0")));
    let VifKind::HostDevice { dev_address, .. } = read(&record).unwrap().vif.kind else { panic!() };
    assert_eq!(dev_address.to_string(), "10000:e1:00.0");
}

/// What os-vif itself passes over or never sends is passed over here too, and said once.
#[test]
fn oddities_of_os_vif_objects_are_warnings() {
    let mut record = sample("openvswitch");
    put(&mut record, "vif.queues", Some(json!(4)));
    put(&mut record, "vif.network.label", Some(Value::Null));
    put(&mut record, "vif.network.subnets[0].ips[0].mac", Some(json!("x")));
    let subnet = record.pointer("/vif/versioned_object.data/network/versioned_object.data/subnets").unwrap().clone();
    let list = enter(record.pointer_mut("/vif/versioned_object.data/network/versioned_object.data/subnets").unwrap());
    list.as_array_mut().unwrap().push(subnet["versioned_object.data"]["objects"][0].clone());
    let warnings: Vec<_> = read(&record).unwrap().warnings.iter().map(ToString::to_string).collect();
    assert_eq!(
        warnings,
        [
            "vif.queues: VIFOpenVSwitch has no field \"queues\"; it is ignored",
            "vif.network.label: Network cannot have null as its label; it is taken for absent",
            "vif.network.subnets[0].ips[0].mac: FixedIP has no field \"mac\"; it is ignored",
            // The subnet is there twice.
            "vif.network.subnets[1].ips[0].address: 10.0.0.5 is there twice",
        ]
    );
}

#[test]
fn warnings_are_bounded() {
    let mut record = sample("openvswitch");
    for number in 0..10_000 {
        put(&mut record, &format!("vif.unknown{number}"), Some(json!(number)));
    }
    let warnings = read(&record).unwrap().warnings;
    assert!((2..100).contains(&warnings.len()), "{}", warnings.len());
    assert_eq!(warnings.last().unwrap().message, "there are more warnings than are shown here");
}

#[test]
fn sockets_are_allowed_below_the_directory_alone() {
    let record = sample("vhostuser-server").to_string();
    let within = |directory: &str| {
        let limits = Limits { socket_dir: directory.into() };
        record::decode_within(record.as_bytes(), &limits).map_err(|refused| refused.to_string())
    };
    assert!(within("/var/run/openvswitch").is_ok());
    assert!(within("/var/run").is_ok());
    for elsewhere in ["/var/run/open", "/run/openvswitch", "/var/run/openvswitch/vhudc060013-3c"] {
        let refused = within(elsewhere).unwrap_err();
        assert!(refused.starts_with(&format!("vif.path: is not below {elsewhere}, where")), "{refused}");
    }
    let limits = Limits { socket_dir: "/nowhere".into() };
    assert!(record::decode_within(sample("openvswitch").to_string().as_bytes(), &limits).is_ok());
}

#[test]
fn versions_are_told() {
    assert_eq!(record::newest_version("VIFPortProfileOpenVSwitch"), Some((1, 4)));
    assert_eq!(record::newest_version("VIFVHostUser"), Some((1, 1)));
    assert_eq!(record::newest_version("VIFBase"), None);
}

#[test]
fn rules_are_read_as_they_are_meant() {
    let mut record = sample("openvswitch");
    record["policy"] = json!({
        "rules": [
            {"direction": "egress"},
            {"direction": "ingress", "ethertype": "IPv6", "protocol": "icmp", "port_min": 128, "port_max": 0},
            {"direction": "ingress", "protocol": "6", "port_min": 22, "remote_group": "admins", "description": "ssh"},
            {"direction": "ingress", "protocol": 112, "remote_ip_prefix": "10.0.0.1"},
        ],
        "groups": ["web"],
        "group_members": {"admins": ["10.9.0.0/24", "fd00::1"]},
    });
    let policy = read(&record).unwrap().vif.policy;
    let rule = |direction| Rule {
        direction,
        ethertype: Ethertype::IPv4,
        protocol: None,
        port_min: None,
        port_max: None,
        remote_ip_prefix: None,
        remote_group: None,
        description: None,
    };
    let expected = vec![
        rule(Direction::Egress),
        Rule {
            ethertype: Ethertype::IPv6,
            protocol: Some(Protocol::ICMP),
            port_min: Some(128),
            port_max: Some(0),
            ..rule(Direction::Ingress)
        },
        Rule {
            protocol: Some(Protocol::TCP),
            port_min: Some(22),
            remote_group: Some("admins".into()),
            description: Some("ssh".into()),
            ..rule(Direction::Ingress)
        },
        Rule {
            protocol: Some(Protocol(112)),
            remote_ip_prefix: Some("10.0.0.1/32".parse().unwrap()),
            ..rule(Direction::Ingress)
        },
    ];
    assert_eq!(policy.rules, Some(expected));
    assert_eq!(policy.groups, ["web"]);
    let members: Vec<_> = policy.group_members["admins"].iter().map(ToString::to_string).collect();
    assert_eq!(members, ["10.9.0.0/24", "fd00::1/128"]);

    // No rule at all is something else than no word about rules.
    for (rules, expected) in [(json!([]), Some(Vec::new())), (Value::Null, None)] {
        record["policy"] = json!({ "rules": rules });
        let read = self::read(&record).unwrap();
        assert_eq!(read.vif.policy.rules, expected);
        assert_eq!(self::read(&to_native(&read.vif)).unwrap().vif.policy, read.vif.policy);
    }
}
