//! Why a flow is in software. What Open vSwitch gives to tc at all is by `netdev_tc_flow_put`, `test_key_and_mask` and
//! `netdev_tc_parse_nl_actions` of `lib/netdev-offload-tc.c` in Open vSwitch 3.1, which later releases have changed
//! little; what a NIC takes of that is its driver's to say, which tells nobody.

use super::flow::{Action, DatapathFlow, Offloaded};
use super::ground::Ground;

/// `ETH_P_IP` and `ETH_P_IPV6` of `linux/if_ether.h`.
const IP: [u16; 2] = [0x0800, 0x86dd];
/// `TCA_ACT_MAX_NUM` of OVS's `lib/tc.h`: actions of a flow that tc is given.
const MOST_ACTIONS: usize = 16;
/// Actions that Open vSwitch translates for tc; `set` and `ct` with restrictions.
const ACTIONS: [&str; 10] =
    ["ct", "ct_clear", "pop_vlan", "push_vlan", "push_mpls", "pop_mpls", "recirc", "meter", "check_pkt_len", "set"];
/// What `set` may set.
const SETTABLE: [&str; 7] = ["eth", "ipv4", "ipv6", "tcp", "udp", "mpls", "tunnel"];
/// Keys that it does not translate, whatever they say.
const KEYS: [&str; 6] = ["skb_priority", "dp_hash", "ct_tuple4", "ct_tuple6", "nsh", "nd_ext"];

/// Why a flow is in software. In order of what is told first where several are as frequent.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// Open vSwitch is not to offload anything.
    OffloadNotSet,
    /// Open vSwitch is to keep everything out of hardware.
    PolicySkipsHardware,
    /// The NIC's embedded switch switches by itself.
    LegacyEswitch(String),
    /// The netdev that the packets come from is not to offload.
    TcOffloadOff(String),
    /// The NIC tells the packets apart and the datapath acts.
    Partial,
    /// Open vSwitch has no translation of this action for tc.
    Action(String),
    /// More actions than tc is given.
    ManyActions,
    /// Open vSwitch has no translation of this key for tc.
    Match(String),
    /// The flow is before or behind connection tracking or the like, and did not get to tc.
    Recirculation,
    /// Open vSwitch or the kernel's tc did not take it, and there is nothing about it that says why.
    Refused,
    /// It is in tc, and the NIC did not take it.
    RefusedByNic,
    /// It comes from or goes to something that is in no NIC, and what that is.
    Software(String, String),
    /// It is to many.
    Flood,
    /// It asks for fields of neighbour discovery.
    NeighbourDiscovery,
    /// It asks for the type of an ICMP message, which few NICs can.
    Icmp,
    /// It is of fragments.
    Fragment,
    /// It is not of IP.
    NotIp,
}

impl Reason {
    /// Why this flow is in software.
    #[must_use]
    pub fn of(flow: &DatapathFlow<'_>, ground: &Ground) -> Reason {
        let kernel = flow.layer != Some("dpdk");
        if !ground.hw_offload {
            return Reason::OffloadNotSet;
        }
        if kernel && ground.skips_hardware {
            return Reason::PolicySkipsHardware;
        }
        let software = |port: &str| {
            let kind = ground.port(port)?.software.clone()?;
            Some(Reason::Software(port.to_owned(), kind))
        };
        let from = flow.in_port();
        if let Some(reason) = software(from) {
            return reason;
        }
        if let Some(port) = ground.port(from) {
            if port.switchdev == Some(false) {
                return Reason::LegacyEswitch(from.to_owned());
            }
            if port.tc_offload == Some(false) {
                return Reason::TcOffloadOff(from.to_owned());
            }
        }
        let outputs = flow.outputs();
        if flow.is_multicast() || outputs.len() > 1 {
            return Reason::Flood;
        }
        if let Some(reason) = outputs.iter().find_map(|port| software(port)) {
            return reason;
        }
        if flow.offloaded == Offloaded::Partial {
            return Reason::Partial;
        }
        Reason::of_nature(flow).unwrap_or_else(|| match flow.layer {
            Some("tc") => Reason::RefusedByNic,
            _ => Reason::of_translation(flow),
        })
    }

    /// What the packets are.
    fn of_nature(flow: &DatapathFlow<'_>) -> Option<Reason> {
        let fragment = |key| matches!(flow.field(key, "frag"), Some(("first" | "later", _)));
        if ["target", "sll", "tll"].into_iter().any(|field| flow.matches("nd", field)) {
            Some(Reason::NeighbourDiscovery)
        } else if flow.matches("icmp", "type") || flow.matches("icmpv6", "type") {
            Some(Reason::Icmp)
        } else if fragment("ipv4") || fragment("ipv6") {
            Some(Reason::Fragment)
        } else if flow.eth_type().is_some_and(|kind| !IP.contains(&kind)) {
            Some(Reason::NotIp)
        } else {
            None
        }
    }

    /// What of it Open vSwitch does not give to tc.
    fn of_translation(flow: &DatapathFlow<'_>) -> Reason {
        if let Some(action) = flow.actions.iter().find_map(untranslated) {
            return Reason::Action(action);
        }
        if flow.actions.len() > MOST_ACTIONS {
            return Reason::ManyActions;
        }
        // A mark that has to be 0, all of it, is passed over.
        let mark = flow.matches_key("skb_mark") && flow.key("skb_mark").is_some_and(|mark| mark != "0");
        let key = KEYS.into_iter().find(|key| match flow.key(key) {
            Some(value) if value.contains('=') => {
                value.split(',').filter_map(|part| part.split_once('=')).any(|(field, _)| flow.matches(key, field))
            }
            Some(_) => flow.matches_key(key),
            None => false,
        });
        if let Some(key) = key.or(mark.then_some("skb_mark")) {
            return Reason::Match(key.to_owned());
        }
        if flow.is_recirculated() || flow.actions.iter().any(|action| action.name == "recirc") {
            return Reason::Recirculation;
        }
        Reason::Refused
    }

    /// Whether it is for what the packets are, and what they are between: no setting and no other NIC changes that. It
    /// is not held against a VIF.
    #[must_use]
    pub fn is_by_nature(&self) -> bool {
        matches!(
            self,
            Reason::Software(..)
                | Reason::Flood
                | Reason::NeighbourDiscovery
                | Reason::Icmp
                | Reason::Fragment
                | Reason::NotIp
        )
    }

    /// One word for programs.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Reason::OffloadNotSet => "HwOffloadNotSet",
            Reason::PolicySkipsHardware => "TcPolicySkipsHardware",
            Reason::LegacyEswitch(_) => "EswitchInLegacyMode",
            Reason::TcOffloadOff(_) => "HwTcOffloadOff",
            Reason::Partial => "PartiallyOffloaded",
            Reason::Action(_) => "ActionNotOffloadable",
            Reason::ManyActions => "TooManyActions",
            Reason::Match(_) => "MatchNotOffloadable",
            Reason::Recirculation => "RecirculationNotOffloaded",
            Reason::Refused => "NotTakenByTc",
            Reason::RefusedByNic => "RefusedByNic",
            Reason::Software(..) => "PortNotOffloadable",
            Reason::Flood => "Flood",
            Reason::NeighbourDiscovery => "NeighbourDiscovery",
            Reason::Icmp => "IcmpType",
            Reason::Fragment => "Fragment",
            Reason::NotIp => "NotIp",
        }
    }

    /// For people, behind "because": what is so, and what to do about it where something can be done.
    #[must_use]
    pub fn sentence(&self) -> String {
        match self {
            Reason::OffloadNotSet => {
                "other_config:hw-offload of Open vSwitch is not true (`ovs-vsctl set Open_vSwitch . \
                                      other_config:hw-offload=true`, and start ovs-vswitchd again)"
                    .into()
            }
            Reason::PolicySkipsHardware => "other_config:tc-policy of Open vSwitch is skip_hw (`ovs-vsctl remove \
                                            Open_vSwitch . other_config tc-policy`, and start ovs-vswitchd again)"
                .into(),
            Reason::LegacyEswitch(port) => {
                format!(
                    "the embedded switch of the NIC of {port} is in legacy mode (nic.eswitch in vifd's configuration)"
                )
            }
            Reason::TcOffloadOff(port) => {
                format!("hw-tc-offload of {port} is off (`ethtool -K {port} hw-tc-offload on`)")
            }
            Reason::Partial => "the NIC can match them and not do what they do".into(),
            Reason::Action(action) => format!("Open vSwitch cannot give the action {action} to tc"),
            Reason::ManyActions => format!("Open vSwitch gives tc {MOST_ACTIONS} actions at most"),
            Reason::Match(key) => format!("Open vSwitch cannot give a match on {key} to tc"),
            Reason::Recirculation => {
                "tc did not take what comes before and behind connection tracking: that needs a kernel \
                                      with CONFIG_NET_TC_SKB_EXT, and an ovs-vswitchd that was started with \
                                      other_config:hw-offload=true"
                    .into()
            }
            Reason::Refused => "tc did not take them, or they are older than other_config:hw-offload, after which \
                                ovs-vswitchd has to be started again (`ovs-appctl vlog/set netdev_offload_tc:file:dbg` has \
                                its log say what tc does not take)"
                .into(),
            Reason::RefusedByNic => {
                "they are in tc and the NIC did not take them (its driver may say why in the kernel's \
                                     log)"
                    .into()
            }
            Reason::Software(port, kind) => format!("{port} is in no NIC ({kind})"),
            Reason::Flood => "they are floods".into(),
            Reason::NeighbourDiscovery => "they match fields of neighbour discovery".into(),
            Reason::Icmp => "they match types of ICMP messages".into(),
            Reason::Fragment => "they are of fragments".into(),
            Reason::NotIp => "they are not of IP".into(),
        }
    }
}

/// The action, where it has no translation.
fn untranslated(action: &Action<'_>) -> Option<String> {
    let arguments = action.arguments.unwrap_or_default();
    match action.name {
        "drop" if action.arguments.is_none() => None,
        "ct" if arguments.contains("helper=") => Some("ct(helper)".to_owned()),
        "set" => {
            let field = arguments.split('(').next().unwrap_or_default();
            (!SETTABLE.contains(&field)).then(|| format!("set({})", field.chars().take(20).collect::<String>()))
        }
        name if action.is_output() || ACTIONS.contains(&name) => None,
        // It may be anything that is in a dump.
        name => Some(name.chars().take(20).collect()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::super::ground::Port;
    use super::*;

    fn ground() -> Ground {
        let software = |kind: &str| Port { software: Some(kind.to_owned()), ..Port::default() };
        let ports = HashMap::from([
            ("eth1".to_owned(), Port { tc_offload: Some(true), switchdev: Some(true), ..Port::default() }),
            ("p2".to_owned(), software("veth")),
            ("br0".to_owned(), software("internal")),
            ("off".to_owned(), Port { tc_offload: Some(false), ..Port::default() }),
            ("legacy".to_owned(), Port { tc_offload: Some(false), switchdev: Some(false), ..Port::default() }),
        ]);
        Ground { hw_offload: true, skips_hardware: false, ports }
    }

    const UNICAST: &str = "eth(src=02:00:00:00:00:01,dst=02:00:00:00:00:02),eth_type(0x0800)";

    fn reason(keys: &str, layer: &str, actions: &str) -> Reason {
        reason_on(&ground(), keys, layer, actions)
    }

    fn reason_on(ground: &Ground, keys: &str, layer: &str, actions: &str) -> Reason {
        let line = format!("ufid:x, recirc_id(0),{keys}, packets:1, bytes:98, used:0.1s, {layer}, actions:{actions}");
        Reason::of(&DatapathFlow::parse(&line).unwrap(), ground)
    }

    #[test]
    fn settings_come_first_and_then_the_port_that_packets_come_from() {
        let plain = format!("in_port(eth1),{UNICAST}");
        let off = Ground { hw_offload: false, ..ground() };
        assert_eq!(reason_on(&off, &plain, "dp:ovs", "userspace(pid=1),eth2"), Reason::OffloadNotSet);
        let skips = Ground { skips_hardware: true, ..ground() };
        assert_eq!(reason_on(&skips, &plain, "dp:tc", "p2"), Reason::PolicySkipsHardware);
        let from = |port| reason(&format!("in_port({port}),{UNICAST}"), "dp:tc", "eth1");
        assert_eq!(from("p2"), Reason::Software("p2".into(), "veth".into()));
        assert_eq!(from("off"), Reason::TcOffloadOff("off".into()));
        assert_eq!(from("legacy"), Reason::LegacyEswitch("legacy".into()));
        assert_eq!(from("vxlan_sys_4789"), Reason::RefusedByNic, "of a port that nobody knows nothing is said");
    }

    #[test]
    fn what_packets_are_is_not_held_against_anybody() {
        let of = |keys: &str, actions: &str| reason(&format!("in_port(eth1),{keys}"), "dp:tc", actions);
        let group = "eth(src=02:00:00:00:00:01,dst=33:33:00:00:00:16),eth_type(0x86dd)";
        let arp = "eth(src=02:00:00:00:00:01,dst=02:00:00:00:00:02),eth_type(0x0806),arp(op=1)";
        let six = "eth(dst=02:00:00:00:00:02),eth_type(0x86dd),ipv6(src=::/::,proto=58,frag=no)";
        let found = [
            of(group, "eth2"),
            of(UNICAST, "br0,p2,eth2"),
            of(UNICAST, "p2"),
            of(arp, "eth2"),
            of(
                &format!("{six},icmpv6(type=135,code=0/0),nd(target=fe80::1,sll=00:00:00:00:00:00/00:00:00:00:00:00)"),
                "eth2",
            ),
            of(&format!("{six},icmpv6(type=128/0xfc,code=0/0)"), "eth2"),
            of(&format!("{UNICAST},ipv4(proto=17,frag=later)"), "eth2"),
        ];
        let software = Reason::Software("p2".into(), "veth".into());
        use Reason::{Flood, Fragment, Icmp, NeighbourDiscovery, NotIp};
        assert_eq!(found, [Flood, Flood, software, NotIp, NeighbourDiscovery, Icmp, Fragment]);
        assert!(found.iter().all(Reason::is_by_nature));
        // Whatever may be there says nothing.
        let any = "ipv4(proto=1,frag=no),icmp(type=0/0,code=0/0)";
        assert_eq!(of(&format!("{UNICAST},{any}"), "eth2"), Reason::RefusedByNic);
    }

    #[test]
    fn what_open_vswitch_does_not_give_to_tc_is_named() {
        let of = |more: &str, actions: &str| reason(&format!("in_port(eth1),{UNICAST}{more}"), "dp:ovs", actions);
        let controller = "userspace(pid=4294967295,controller(reason=1,dont_send=0)),eth2";
        assert_eq!(of("", controller), Reason::Action("userspace".into()));
        assert_eq!(
            of("", "sample(sample=10.0%,actions(userspace(pid=1,actions))),eth2"),
            Reason::Action("sample".into())
        );
        assert_eq!(of("", "ct(commit,zone=5,helper=ftp),recirc(0x1)"), Reason::Action("ct(helper)".into()));
        assert_eq!(of("", "set(skb_priority(0x1)),eth2"), Reason::Action("set(skb_priority)".into()));
        assert_eq!(of("", &format!("{}eth2", "pop_vlan,".repeat(16))), Reason::ManyActions);
        assert_eq!(of(",skb_mark(0x5)", "eth2"), Reason::Match("skb_mark".into()));
        assert_eq!(of(",ct_tuple4(src=10.0.0.1,dst=0.0.0.0/0.0.0.0)", "eth2"), Reason::Match("ct_tuple4".into()));
        assert_eq!(of("", "ct(zone=5),recirc(0x8)"), Reason::Recirculation);
        let plain = ",skb_mark(0),dp_hash(0/0),ct_tuple4(src=0.0.0.0/0.0.0.0,proto=0/0),key32(00 00/00 00)";
        assert_eq!(of(plain, "meter(0),set(ipv4(ttl=63)),push_vlan(vid=5,pcp=0),eth2"), Reason::Refused);
        assert_eq!(of("", "drop"), Reason::Refused);
    }

    #[test]
    fn hardware_that_does_half_of_it_is_told() {
        let keys = format!("in_port(eth1),{UNICAST}");
        assert_eq!(reason(&keys, "offloaded:partial, dp:ovs", "eth2"), Reason::Partial);
    }
}
