//! The links of a namespace with their addresses, routes and settings, in a form in which two hosts can be compared. One
//! `ip` reads them all, however many they are. [`Link`](super::Link) is the short form, for tests about one link.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Map, Value, json};

use super::namespace::Namespace;

/// What is set, of what `ip` tells of links of a kind; the rest are defaults, counters and timers.
const SETTINGS: &[(&str, &[&str])] = &[
    ("bridge", &["ageing_time", "stp_state", "forward_delay", "mcast_snooping"]),
    ("vlan", &["protocol", "id"]),
    ("macvtap", &["mode"]),
    ("macvlan", &["mode"]),
    ("tun", &["type", "persist", "multi_queue"]),
];

/// Kernel settings of a link, as `family/name`.
const SYSCTLS: &[&str] = &["ipv6/disable_ipv6", "ipv4/arp_ignore", "ipv4/arp_announce"];

/// Every link by name but the loopback and those that `left_out` says: kind, settings of its kind, MTU, whether it is up
/// and promiscuous, master, the link below it (of a veth its peer, `elsewhere` if that is in another namespace),
/// sysctls, addresses and routes.
///
/// A MAC that the kernel drew is `random`; that of a bridge too, unless it is one of its ports' that was not drawn.
/// Addresses and routes that the kernel makes of a MAC, and its local and multicast routes, are left out.
///
/// # Errors
/// When `ip` prints what is not understood.
pub fn shown_links(namespace: &Namespace, left_out: impl Fn(&str) -> bool) -> Result<Map<String, Value>> {
    let Read { links, routes, drawn } = Read::all(namespace)?;
    let mut shown = Map::new();
    for link in &links {
        let name = text(&link["ifname"]);
        if name == "lo" || left_out(&name) {
            continue;
        }
        let kind = text(&link["linkinfo"]["info_kind"]);
        let flag = |wanted: &str| link["flags"].as_array().is_some_and(|flags| flags.iter().any(|flag| flag == wanted));
        // The number that stands for no link is 0, and `ip` leaves it out.
        let below = match (&link["link"], &link["link_netnsid"]) {
            (Value::String(below), Value::Null) => json!(below),
            (_, Value::Null) => Value::Null,
            _ => json!("elsewhere"),
        };
        let known = |link: &Value| drawn.get(&text(&link["ifname"])) == Some(&false);
        let ports: Vec<&Value> = links.iter().filter(|port| port["master"] == name.as_str()).collect();
        let of_a_port = kind == "bridge" && ports.iter().any(|port| port["address"] == link["address"] && known(port));
        let mac = if known(link) || of_a_port { link["address"].clone() } else { json!("random") };
        let set = SETTINGS.iter().find(|(of, _)| *of == kind).map_or(&[][..], |(_, names)| names);
        let settings = set.iter().map(|name| ((*name).to_owned(), link["linkinfo"]["info_data"][*name].clone()));
        let routes = routes.iter().filter(|route| route["dev"] == name.as_str() && !kernels_own(route));
        shown.insert(
            name.clone(),
            json!({
                "kind": kind, "settings": settings.collect::<Map<_, _>>(), "mac": mac, "mtu": link["mtu"],
                "up": flag("UP"), "promiscuous": flag("PROMISC"), "master": link["master"], "below": below,
                "sysctls": Value::Null, "addresses": addresses(link),
                "routes": sorted(routes.map(route)),
            }),
        );
    }
    sysctls(namespace, &mut shown)?;
    Ok(shown)
}

/// What `ip` and sysfs say.
struct Read {
    links: Vec<Value>,
    routes: Vec<Value>,
    /// By name of the link whether the kernel drew its MAC.
    drawn: BTreeMap<String, bool>,
}

impl Read {
    fn all(namespace: &Namespace) -> Result<Read> {
        // sysfs shows the namespace in which it was mounted, which `ip netns exec` does: hence a process for all of it.
        let script = "printf 'address show\\nroute show table all\\n' | ip -json -details -batch - && \
                      grep -H . /sys/class/net/*/addr_assign_type";
        let printed = namespace.run("sh", ["-c", script])?;
        let (json, types): (Vec<&str>, Vec<&str>) = printed.lines().partition(|line| !line.starts_with("/sys/"));
        let json = json.concat();
        let mut answers = serde_json::Deserializer::from_str(&json).into_iter::<Vec<Value>>();
        let mut next = || answers.next().context("ip said too little")?.context("ip -json");
        let (links, routes) = (next()?, next()?);
        let drawn = types.iter().filter_map(|line| {
            let (path, kind) = line.split_once(':')?;
            let name = Path::new(path).parent()?.file_name()?.to_str()?;
            // NET_ADDR_RANDOM of linux/netdevice.h.
            Some((name.to_owned(), kind == "1"))
        });
        Ok(Read { links, routes, drawn: drawn.collect() })
    }
}

fn sysctls(namespace: &Namespace, links: &mut Map<String, Value>) -> Result<()> {
    namespace.enter(|| {
        for (name, link) in links.iter_mut() {
            let read = SYSCTLS.iter().map(|setting| {
                let (family, setting) = setting.split_once('/').unwrap_or_default();
                let path = Path::new("/proc/sys/net").join(family).join("conf").join(name).join(setting);
                // A kernel without IPv6 has no such files.
                let text = fs::read_to_string(path).ok();
                (setting.to_owned(), json!(text.as_deref().map(str::trim)))
            });
            link["sysctls"] = read.collect::<Map<_, _>>().into();
        }
        Ok(())
    })
}

/// `10.0.0.2/24 scope global`, sorted.
fn addresses(link: &Value) -> Value {
    let all = link["addr_info"].as_array().map_or(&[][..], Vec::as_slice);
    let given = all.iter().filter(|address| !(address["family"] == "inet6" && address["scope"] == "link"));
    sorted(given.map(|address| {
        let secondary = if address["secondary"] == true { " secondary" } else { "" };
        format!("{}/{} scope {}{secondary}", text(&address["local"]), address["prefixlen"], text(&address["scope"]))
    }))
}

/// `default via 10.0.0.1 protocol boot scope global`, with whatever else is set.
fn route(route: &Value) -> String {
    let mut shown = text(&route["dst"]);
    for (key, word) in [
        ("gateway", "via"),
        ("table", "table"),
        ("protocol", "protocol"),
        ("scope", "scope"),
        ("prefsrc", "src"),
        ("metric", "metric"),
    ] {
        match &route[key] {
            Value::Null => {}
            Value::String(main) if key == "table" && main == "main" => {}
            Value::String(value) => shown += &format!(" {word} {value}"),
            value => shown += &format!(" {word} {value}"),
        }
    }
    shown
}

fn kernels_own(route: &Value) -> bool {
    let unicast = route["type"].is_null() || route["type"] == "unicast";
    let automatic = ["fe80::", "ff00::"].iter().any(|prefix| text(&route["dst"]).starts_with(prefix));
    !unicast || automatic
}

fn sorted(values: impl Iterator<Item = String>) -> Value {
    let mut values: Vec<String> = values.collect();
    values.sort();
    json!(values)
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
