//! One flow of a datapath, as `dpctl/dump-flows -m --names` of ovs-vswitchd writes it (`ovs-vswitchd(8)`; OVS's
//! `format_dpif_flow` in `lib/dpctl.c`, `odp_flow_format` and `format_odp_actions` in `lib/odp-util.c`). It is read as far
//! as it makes sense, whatever it is: what is not known stays there as text. What a flow means is not judged here.

use std::time::Duration;

/// A line of a dump that is longer is no flow: the longest, with 4,096 outputs of 15 octets each, is shorter.
pub const LONGEST_LINE: usize = 128 << 10;
/// Keys within keys, and actions within actions, that are looked at.
const DEEPEST: usize = 4;

/// Actions that are one word, without which a word is the name of a port.
const WORDS: [&str; 9] =
    ["drop", "ct", "ct_clear", "pop_vlan", "pop_eth", "pop_nsh", "push_nsh", "dec_ttl", "dec_nsh_ttl"];
/// Actions that have actions in them.
const COMPOUND: [&str; 3] = ["sample", "clone", "check_pkt_len"];

/// A flow of a datapath. Everything is as it was written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DatapathFlow<'a> {
    /// Its unique identifier, a UUID.
    pub ufid: Option<&'a str>,
    /// What it matches, in order; what an encapsulated packet has to have follows what the outer one has.
    pub keys: Vec<Key<'a>>,
    /// Packets that it took.
    pub packets: u64,
    /// Octets of these.
    pub bytes: u64,
    /// How long ago it took the last one; `None` if it never did.
    pub used: Option<Duration>,
    /// Whether it is in hardware.
    pub offloaded: Offloaded,
    /// What carries it out: `ovs` (the datapath itself), `tc`, `dpdk`.
    pub layer: Option<&'a str>,
    /// What it does, in order; one `drop` where that is nothing.
    pub actions: Vec<Action<'a>>,
    /// Parts that are none of these.
    pub rest: Vec<&'a str>,
}

/// What a flow has to do with hardware.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Offloaded {
    /// Nothing.
    #[default]
    No,
    /// Hardware tells which packets are the flow's and the datapath acts.
    Partial,
    /// Hardware matches and acts.
    Yes,
}

/// A part of what a flow matches, such as `eth(src=…,dst=…)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key<'a> {
    /// `eth`
    pub name: &'a str,
    /// `src=…,dst=…`
    pub value: &'a str,
}

/// One action, such as `ct(commit,zone=5)`, `pop_vlan`, or the name of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Action<'a> {
    /// Name of the action or of the port.
    pub name: &'a str,
    /// What stands in its parentheses.
    pub arguments: Option<&'a str>,
}

impl<'a> Action<'a> {
    fn of(text: &'a str) -> Self {
        match call(text) {
            Some((name, arguments)) => Action { name, arguments: Some(arguments) },
            None => Action { name: text, arguments: None },
        }
    }

    /// Whether it sends the packet out of the port that it is named after.
    #[must_use]
    pub fn is_output(&self) -> bool {
        self.arguments.is_none() && !WORDS.contains(&self.name)
    }
}

/// `name(inside)`
fn call(text: &str) -> Option<(&str, &str)> {
    let (name, inside) = text.strip_suffix(')')?.split_once('(')?;
    (!name.contains(':')).then_some((name, inside))
}

/// The parts of a text between commas that stand in no parentheses, without the blanks around them.
fn parts(text: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0_usize;
    text.split(move |character| {
        match character {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        character == ',' && depth == 0
    })
    .map(str::trim)
    .filter(|part| !part.is_empty())
}

impl<'a> DatapathFlow<'a> {
    /// Reads a line of a dump; `None` for one that is no flow, such as the heading of a thread.
    #[must_use]
    pub fn parse(line: &'a str) -> Option<Self> {
        if line.len() > LONGEST_LINE {
            return None;
        }
        // There is no colon in the name of a netdev, so this is in no key.
        let (before, actions) = line.split_once(", actions:")?;
        let mut flow = DatapathFlow::default();
        flow.read(before, 0);
        let (actions, extra) = match actions.split_once(", dp-extra-info:") {
            Some((actions, extra)) => (actions, Some(extra)),
            None => (actions, None),
        };
        flow.actions = parts(actions).map(Action::of).collect();
        flow.rest.extend(extra);
        flow.keys.iter().any(|key| key.name == "in_port").then_some(flow)
    }

    fn read(&mut self, text: &'a str, depth: usize) {
        for part in parts(text) {
            match call(part) {
                Some(("encap", inside)) if depth < DEEPEST => self.read(inside, depth + 1),
                Some((name, value)) => self.keys.push(Key { name, value }),
                None => self.fact(part),
            }
        }
    }

    /// `packets:7` and the like.
    fn fact(&mut self, part: &'a str) {
        match part.split_once(':') {
            Some(("ufid", ufid)) => self.ufid = Some(ufid),
            Some(("packets", text)) if let Ok(number) = text.parse() => self.packets = number,
            Some(("bytes", text)) if let Ok(number) = text.parse() => self.bytes = number,
            Some(("used", "never")) => self.used = None,
            Some(("used", text)) if let Some(ago) = seconds(text) => self.used = Some(ago),
            Some(("offloaded", "yes")) => self.offloaded = Offloaded::Yes,
            Some(("offloaded", "partial")) => self.offloaded = Offloaded::Partial,
            Some(("offloaded", "no")) => self.offloaded = Offloaded::No,
            Some(("dp", layer)) => self.layer = Some(layer),
            _ => self.rest.push(part),
        }
    }

    /// What a key says; of several of one name the innermost.
    #[must_use]
    pub fn key(&self, name: &str) -> Option<&'a str> {
        self.keys.iter().rev().find(|key| key.name == name).map(|key| key.value)
    }

    /// The port that its packets come from.
    #[must_use]
    pub fn in_port(&self) -> &'a str {
        self.key("in_port").unwrap_or_default()
    }

    /// Whether its packets have been through the datapath before, as behind connection tracking.
    #[must_use]
    pub fn is_recirculated(&self) -> bool {
        self.key("recirc_id").is_some_and(|id| !is_zero(id))
    }

    /// Type of the packet behind its VLAN tags, where one is asked for.
    #[must_use]
    pub fn eth_type(&self) -> Option<u16> {
        let digits = self.key("eth_type")?.strip_prefix("0x")?;
        u16::from_str_radix(digits, 16).ok()
    }

    /// Value and mask of a field of a key; no mask where all of it has to be so.
    #[must_use]
    pub fn field(&self, key: &str, field: &str) -> Option<(&'a str, Option<&'a str>)> {
        let value = parts(self.key(key)?).find_map(|part| part.strip_prefix(field)?.strip_prefix('='))?;
        Some(match value.split_once('/') {
            Some((value, mask)) => (value, Some(mask)),
            None => (value, None),
        })
    }

    /// Whether a field has to have some value; `-m` prints those too that may have any.
    #[must_use]
    pub fn matches(&self, key: &str, field: &str) -> bool {
        self.field(key, field).is_some_and(|(_, mask)| mask.is_none_or(|mask| !is_zero(mask)))
    }

    /// Whether a key that is one value, such as `skb_mark(0/0)`, has to have some value.
    #[must_use]
    pub fn matches_key(&self, key: &str) -> bool {
        self.key(key).is_some_and(|value| value.split_once('/').is_none_or(|(_, mask)| !is_zero(mask)))
    }

    /// Whether its packets are to a group of stations.
    #[must_use]
    pub fn is_multicast(&self) -> bool {
        let octet = |address: &str| u8::from_str_radix(address.get(..2)?, 16).ok();
        let Some((address, mask)) = self.field("eth", "dst") else { return false };
        let bit = |octet: Option<u8>| octet.is_some_and(|octet| octet & 1 == 1);
        bit(octet(address)) && mask.is_none_or(|mask| bit(octet(mask)))
    }

    /// The ports that it sends packets to, those that only some packets get among them.
    #[must_use]
    pub fn outputs(&self) -> Vec<&'a str> {
        let mut ports = Vec::new();
        for action in &self.actions {
            outputs(*action, 0, &mut ports);
        }
        ports
    }
}

fn outputs<'a>(action: Action<'a>, depth: usize, ports: &mut Vec<&'a str>) {
    if action.is_output() && !action.name.contains(['=', ':', '<', '*']) {
        ports.push(action.name);
    } else if let Some(inside) = action.arguments
        && depth < DEEPEST
        && (COMPOUND.contains(&action.name) || (depth > 0 && ["actions", "gt", "le"].contains(&action.name)))
    {
        for part in parts(inside) {
            outputs(Action::of(part), depth + 1, ports);
        }
    }
}

/// `0.742s`
fn seconds(text: &str) -> Option<Duration> {
    Duration::try_from_secs_f64(text.strip_suffix('s')?.parse().ok()?).ok()
}

/// Whether a number, an address or a mask has no bit set, however it is written.
fn is_zero(text: &str) -> bool {
    !text.contains(|character| !matches!(character, '0' | 'x' | ':' | '.' | ' '))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Written by Open vSwitch 3.1.0 over the kernel's datapath with `hw-offload`.
    const IN_HARDWARE: &str = "ufid:5777c2da-cbeb-40a1-acf2-88e53acf1ed3, skb_priority(0/0),skb_mark(0/0),ct_state(0/0),\
        ct_zone(0/0),ct_mark(0/0),ct_label(0/0),recirc_id(0),dp_hash(0/0),in_port(eth2),packet_type(ns=0/0,id=0/0),\
        eth(src=f2:4e:c9:ab:3a:14,dst=32:b3:41:c8:00:f7),eth_type(0x0800),ipv4(src=0.0.0.0/0.0.0.0,dst=0.0.0.0/0.0.0.0,\
        proto=1,tos=0/0,ttl=0/0,frag=no),icmp(type=0/0xf8,code=0/0), packets:2, bytes:168, used:1.721s, offloaded:yes, \
        dp:tc, actions:eth1";

    #[test]
    fn a_flow_in_hardware() {
        let flow = DatapathFlow::parse(IN_HARDWARE).unwrap();
        assert_eq!(flow.ufid, Some("5777c2da-cbeb-40a1-acf2-88e53acf1ed3"));
        assert_eq!((flow.in_port(), flow.outputs()), ("eth2", vec!["eth1"]));
        assert_eq!((flow.packets, flow.bytes, flow.used), (2, 168, Some(Duration::from_millis(1721))));
        assert_eq!((flow.offloaded, flow.layer), (Offloaded::Yes, Some("tc")));
        assert_eq!((flow.eth_type(), flow.is_recirculated(), flow.is_multicast()), (Some(0x800), false, false));
        assert_eq!(flow.field("ipv4", "proto"), Some(("1", None)));
        assert!(flow.matches("ipv4", "proto") && flow.matches("icmp", "type"));
        assert!(!flow.matches("icmp", "code") && !flow.matches("ipv4", "src") && !flow.matches_key("skb_mark"));
        assert_eq!(flow.rest, [] as [&str; 0]);
    }

    #[test]
    fn a_flow_of_the_kernel_s_datapath_behind_connection_tracking() {
        let flow = DatapathFlow::parse(
            "ufid:8b54067e-50bf-49bd-be1c-25597e27d2f3, recirc_id(0x8),dp_hash(0/0),skb_priority(0/0),in_port(eth1),\
             skb_mark(0/0),ct_state(0/0x20),ct_zone(0/0),ct_mark(0/0),ct_label(0/0),eth(src=32:b3:41:c8:00:f7,\
             dst=33:33:00:00:00:16),eth_type(0x86dd),ipv6(src=::/::,dst=::/::,label=0/0,proto=0/0,tclass=0/0,hlimit=0/0,\
             frag=no),key32(00 00/00 00), packets:2, bytes:196, used:never, dp:ovs, \
             actions:ct(commit,zone=5),sample(sample=10.0%,actions(userspace(pid=4294967295,sFlow(vid=0,pcp=0,output=4),\
             actions),p9)),check_pkt_len(size=1500,gt(drop),le(p3)),set(eth(dst=02:00:00:00:00:01)),eth2",
        );
        let flow = flow.unwrap();
        assert!(flow.is_recirculated() && flow.is_multicast() && flow.matches_key("ct_state"));
        assert_eq!((flow.offloaded, flow.layer, flow.used), (Offloaded::No, Some("ovs"), None));
        assert_eq!(flow.key("key32"), Some("00 00/00 00"), "what nobody knows is there as text");
        let names: Vec<&str> = flow.actions.iter().map(|action| action.name).collect();
        assert_eq!(names, ["ct", "sample", "check_pkt_len", "set", "eth2"]);
        assert_eq!(flow.outputs(), ["p9", "p3", "eth2"]);
    }

    #[test]
    fn a_flow_of_the_userspace_datapath_behind_a_tag() {
        let flow = DatapathFlow::parse(
            "ufid:6e5c9ac4-8a32-4f6e-a51f-6b3c0b2f0a11, recirc_id(0),in_port(eth2),packet_type(ns=0,id=0),\
             eth_type(0x8100),vlan(vid=5,pcp=0),encap(eth_type(0x0800),ipv4(proto=17,frag=no),udp(dst=53)), packets:0, \
             bytes:0, used:never, flags:SFP., offloaded:partial, dp:ovs, actions:pop_vlan,4, \
             dp-extra-info:miniflow_bits(5,1)",
        );
        let flow = flow.unwrap();
        assert_eq!((flow.offloaded, flow.eth_type()), (Offloaded::Partial, Some(0x800)));
        assert_eq!(flow.field("udp", "dst"), Some(("53", None)));
        assert_eq!(flow.outputs(), ["4"], "a port without a name has its number");
        assert_eq!(flow.rest, ["flags:SFP.", "miniflow_bits(5,1)"]);
    }

    #[test]
    fn what_is_no_flow_is_none() {
        let long = format!("in_port(a), packets:0, bytes:0, used:never, actions:{}", "b,".repeat(LONGEST_LINE));
        for line in ["", "flow-dump from the main thread:", "eth_type(0x0800), actions:drop", &long] {
            assert_eq!(DatapathFlow::parse(line), None);
        }
    }

    proptest! {
        #[test]
        fn anything_is_read(line in "\\PC*") {
            if let Some(flow) = DatapathFlow::parse(&line) {
                let _ = (flow.outputs(), flow.is_multicast(), flow.is_recirculated(), flow.eth_type());
            }
        }

        /// Parts of flows in any order, with parentheses left out and put in.
        #[test]
        fn anything_like_a_flow_is_read(
            parts in prop::collection::vec(
                prop::sample::select(vec![
                    "in_port(", "eth1", ")", "(", ",", ", ", "eth(dst=", "01:00", "/", "0x", "é", "recirc_id(0x1)", "used:",
                    "-1s", "1e400s", "packets:18446744073709551616", "encap(", "sample(", "actions(", ", actions:", "dp:",
                    "eth_type(0x0800)", "=", ":",
                ]),
                0..60,
            )
        ) {
            let line = format!("in_port(a),{}", parts.concat());
            if let Some(flow) = DatapathFlow::parse(&line) {
                let _ = (flow.outputs(), flow.is_multicast(), flow.is_recirculated(), flow.eth_type(), flow.matches("eth", "dst"));
                prop_assert!(!flow.keys.is_empty());
            }
        }

        /// What is written as Open vSwitch writes it is read as it was meant.
        #[test]
        fn names_and_numbers_come_back(
            port in "[a-z][a-z0-9._-]{0,14}", outs in prop::collection::vec("p[0-9]{1,3}", 1..20), packets: u64, bytes: u64,
            recirculated: u16, hardware: bool,
        ) {
            let line = format!(
                "ufid:x, recirc_id({recirculated:#x}),in_port({port}),eth_type(0x0800), packets:{packets}, bytes:{bytes}, \
                 used:never{}, dp:tc, actions:{}", if hardware { ", offloaded:yes" } else { "" }, outs.join(",")
            );
            let flow = DatapathFlow::parse(&line).unwrap();
            prop_assert_eq!(flow.in_port(), port);
            prop_assert_eq!(flow.outputs(), outs);
            prop_assert_eq!((flow.packets, flow.bytes, flow.is_recirculated()), (packets, bytes, recirculated > 0));
            prop_assert_eq!(flow.offloaded == Offloaded::Yes, hardware);
        }
    }
}
