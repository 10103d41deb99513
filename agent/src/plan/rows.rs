//! The rows of one port: what they lack of what is wanted, and whether ovs-vswitchd has made them usable. Whose
//! the port is has been settled before, in `compare`.

use std::collections::{BTreeMap, BTreeSet};

use ovsdb::pairs::Pairs;

use super::blueprint::{Isolation, Maker, WantedPort};
use super::compare::Findings;
use super::sight::Sight;
use super::{Missing, PRESERVE, Settings};
use crate::backend::ovs::{ACCESS, NewPort, OvsOp, StringMap};
use crate::model::{Interface, Port};

/// The entries of `wanted` that `map` has as they are.
pub(super) fn entries(map: &Pairs, wanted: &StringMap) -> StringMap {
    wanted
        .iter()
        .filter(|(key, value)| map.get(key) == Some(value.as_str()))
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect()
}

/// The entries of `wanted` that `map` lacks or has otherwise.
pub(super) fn differences(map: &Pairs, wanted: &StringMap) -> StringMap {
    wanted
        .iter()
        .filter(|(key, value)| map.get(key) != Some(value.as_str()))
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect()
}

/// The same of `external_ids`, where a mark that says `preserve` and is not wanted any more has to be unsaid.
fn changed_ids(is: &Pairs, wanted: &StringMap) -> StringMap {
    let mut changed = differences(is, wanted);
    if !wanted.contains_key(PRESERVE) && is.get(PRESERVE).is_some_and(|value| value == "true") {
        changed.insert(PRESERVE.to_owned(), "false".to_owned());
    }
    changed
}

/// `transient=true`: only ovs-ctl acts on it, at boot, by removing the port.
fn port_config() -> StringMap {
    BTreeMap::from([("transient".to_owned(), "true".to_owned())])
}

pub(super) fn new_port(wanted: &WantedPort) -> NewPort {
    let (tag, trunks, vlan_mode) = match (wanted.access, wanted.isolation) {
        (Some(vlan), _) => (Some(vlan), BTreeSet::new(), Some(ACCESS.to_owned())),
        (None, isolation) => isolation.map(Isolation::columns).unwrap_or_default(),
    };
    NewPort {
        bridge: wanted.bridge.clone(),
        name: wanted.name.clone(),
        tag,
        trunks,
        vlan_mode,
        other_config: port_config(),
        qos: wanted.qos.clone(),
        external_ids: wanted.marks.clone(),
        kind: wanted.kind.clone(),
        options: wanted.options.clone(),
        interface_ids: wanted.ids.clone(),
        mac: wanted.mac,
        mtu_request: wanted.mtu_request,
    }
}

/// What has to be true still when an interface is changed.
pub(super) enum Guard {
    /// Our mark, as far as it is there: one that somebody removed (and left on the port) must not keep us from
    /// putting it back.
    Mark,
    /// What made the port ours to claim.
    Ids(StringMap),
}

/// Puts our marks, and the ids that go with them, on the rows of a port that somebody else made.
pub(super) fn marks_alone(wanted: &WantedPort, (port, interface): (&Port, &Interface), guard: StringMap) -> [OvsOp; 2] {
    let interface = OvsOp::ChangeInterface {
        uuid: interface.uuid,
        name: interface.name.to_string(),
        guard,
        kind: None,
        options: StringMap::new(),
        external_ids: changed_ids(&interface.external_ids, &wanted.ids),
        mac: None,
        mtu_request: None,
    };
    let port = OvsOp::ChangePort {
        uuid: port.uuid,
        name: port.name.to_string(),
        bridge: port.bridge.to_string(),
        external_ids: changed_ids(&port.external_ids, &wanted.marks),
        other_config: StringMap::new(),
        access: None,
    };
    [interface, port]
}

/// Brings the rows of a port that is ours, or about to be, to what is wanted, entry by entry.
pub(super) fn change_rows(
    wanted: &WantedPort,
    (port, interface): (&Port, &Interface),
    settings: &Settings,
    guard: Guard,
    found: &mut Findings,
) {
    let ours = wanted.maker == Maker::Vifd;
    let kind = (ours && interface.kind != wanted.kind).then(|| wanted.kind.clone());
    let options = if ours { differences(&interface.options, &wanted.options) } else { StringMap::new() };
    let external_ids = changed_ids(&interface.external_ids, &wanted.ids);
    let mac = wanted.mac.filter(|_| ours && interface.mac != wanted.mac);
    let mtu_request = wanted.mtu_request.filter(|_| ours && interface.mtu_request != wanted.mtu_request);
    if kind.is_some() || !options.is_empty() || !external_ids.is_empty() || mac.is_some() || mtu_request.is_some() {
        found.ovs.push(OvsOp::ChangeInterface {
            uuid: interface.uuid,
            name: interface.name.to_string(),
            guard: match guard {
                Guard::Mark => entries(&interface.external_ids, &settings.guard()),
                Guard::Ids(ids) => ids,
            },
            kind,
            options,
            external_ids,
            mac,
            mtu_request,
        });
    }
    let external_ids = changed_ids(&port.external_ids, &wanted.marks);
    let transient = port.other_config.get("transient").is_some_and(|value| value == "true");
    let access = wanted
        .access
        .filter(|vlan| port.tag != Some(*vlan) || port.vlan_mode.as_deref() != Some(ACCESS) || !port.trunks.is_empty());
    if !external_ids.is_empty() || !transient || access.is_some() {
        found.ovs.push(OvsOp::ChangePort {
            uuid: port.uuid,
            name: port.name.to_string(),
            bridge: port.bridge.to_string(),
            external_ids,
            other_config: if transient { StringMap::new() } else { port_config() },
            access,
        });
    }
}

/// Whether ovs-vswitchd has made the port usable, and what is missing otherwise.
pub(super) fn usable(
    wanted: &WantedPort,
    first: bool,
    interface: &Interface,
    sight: &mut Sight<'_>,
    found: &mut Findings,
) {
    if !sight.sees_vswitchd() {
        found.unanswered.get_or_insert(Missing::Vswitchd);
        return;
    }
    let error = interface.fault();
    let usable = error.is_none() && interface.ofport.is_some_and(|ofport| ofport > 0);
    let connected = interface.status.get("status").is_some_and(|status| status == "connected");
    let link = sight.link(&wanted.name);
    if first {
        found.facts.ofport = interface.ofport;
        found.facts.interface_type = Some(interface.type_name().to_owned());
        // The kernel's word first: Open vSwitch hears of a change from it.
        found.facts.mtu = link.map(|link| link.mtu).or(interface.mtu);
        found.port_ready = Some(usable);
        if found.vhost_connected.is_some() {
            found.vhost_connected = Some(usable && connected);
        }
    }
    if usable {
        if first && found.vhost_connected == Some(true) && !interface.link_up {
            found.unanswered.get_or_insert(Missing::VhostLink(wanted.name.clone()));
        }
        return;
    }
    let netdev_missing = interface.kind.is_empty() && found.link_ready.is_none() && link.is_none();
    // Open vSwitch hears of a new device a moment after we do, and has the old error until then.
    let just_came =
        interface.kind.is_empty() && link.is_some() && error.is_some_and(|error| error.contains("No such device"));
    match (error, interface.ofport) {
        _ if just_came => {
            found.unanswered.get_or_insert(Missing::Ofport(wanted.name.clone()));
        }
        _ if netdev_missing => {
            found.brought.get_or_insert(Missing::Netdev(wanted.name.clone()));
        }
        (Some(error), _) => {
            // The VIF's own port is named by whoever tells of it.
            let which = if first { String::new() } else { format!(" of port {}", wanted.name) };
            // What it says of a type that it does not have is that something could not be added.
            let cure = match wanted.kind.starts_with("dpdk") {
                true => format!("; type {} is there with DPDK alone (`vifd doctor`)", wanted.kind),
                false => String::new(),
            };
            found.failed.get_or_insert(format!("Open vSwitch says{which}: {error}{cure}"));
        }
        (None, Some(-1)) => {
            found.failed.get_or_insert(format!(
                "Open vSwitch could not make port {} and gave no reason: see the log of ovs-vswitchd",
                wanted.name
            ));
        }
        _ => {
            let missing = match sight.unmade(&wanted.bridge) {
                Some(datapath_type) => Missing::Bridge { bridge: wanted.bridge.clone(), datapath_type },
                None => Missing::Ofport(wanted.name.clone()),
            };
            found.unanswered.get_or_insert(missing);
        }
    }
}
