//! The packet that a trace is of, in the words of `ofproto/trace` (`ovs-fields(7)`): what was asked for, and from the
//! records what was not. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::model::{Desired, MacAddr, Vif, VifId};
use crate::plan::pipeline::{NetworkKey, Uplink};

/// Most octets of a flow that is said raw, and of the states of connection tracking.
const LONGEST: usize = 2000;
/// Most states of connection tracking.
const MOST_STATES: usize = 16;

/// Stands for whoever is not on this host, such as a router: locally administered, and nobody's.
const SOMEBODY: MacAddr = MacAddr([0x02, 0, 0, 0, 0, 0x01]);
const EVERYBODY: MacAddr = MacAddr([0xff; 6]);
/// Source port of TCP and UDP: the first of the dynamic ones (RFC 6335, section 6).
const SOURCE_PORT: u16 = 49152;

/// What is asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Question {
    /// Where to.
    pub to: Option<To>,
    /// What kind of packet.
    pub kind: Option<Kind>,
    /// The packet itself; nothing else is asked then but the direction.
    pub flow: Option<String>,
    /// Towards the VIF from its network's uplink, instead of from it.
    pub from_uplink: bool,
    /// What connection tracking is to tell, one after the other; `trk,new` beyond.
    pub conntrack: Vec<String>,
}

/// Where a packet is to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum To {
    /// To a VIF of this host.
    Vif(VifId),
    /// To an Ethernet address.
    Mac(MacAddr),
    /// To an IP address.
    Ip(IpAddr),
}

/// A kind of packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Who has this address: ARP, or neighbour discovery.
    Arp,
    /// An echo request.
    Icmp,
    /// TCP to this port.
    Tcp(u16),
    /// UDP to this port.
    Udp(u16),
}

/// What is known of the VIF.
#[derive(Clone, Copy, Debug)]
pub(super) struct Around<'a> {
    /// Its record.
    pub vif: &'a Vif,
    /// Its OpenFlow port.
    pub port: u16,
    /// Its VLAN there, where it is a sub-port.
    pub vlan: Option<u16>,
    /// Where its network leaves the host.
    pub uplink: Option<Uplink>,
    /// All records.
    pub desired: &'a Desired,
}

/// A packet for `ofproto/trace`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Packet {
    /// The argument.
    pub flow: String,
    /// What was assumed, a sentence each.
    pub assumed: Vec<String>,
}

/// What is asked makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(super) struct Senseless {
    /// Name of the parameter.
    pub parameter: &'static str,
    /// What is wrong with it.
    pub message: String,
}

fn senseless(parameter: &'static str, message: impl Into<String>) -> Senseless {
    Senseless { parameter, message: message.into() }
}

/// One end of a packet.
struct End {
    mac: MacAddr,
    addresses: Vec<IpAddr>,
}

impl End {
    fn of(vif: &Vif) -> Self {
        End { mac: vif.address.unwrap_or(SOMEBODY), addresses: fixed(vif).collect() }
    }

    /// The first address of the same family as `like`, or any.
    fn address(&self, like: Option<IpAddr>) -> Option<IpAddr> {
        self.addresses.iter().copied().find(|address| like.is_none_or(|like| like.is_ipv4() == address.is_ipv4()))
    }
}

fn fixed(vif: &Vif) -> impl Iterator<Item = IpAddr> + '_ {
    let subnets = vif.network.iter().flat_map(|network| &network.subnets);
    subnets.flat_map(|subnet| subnet.ips.iter().map(|ip| ip.address))
}

fn gateway(vif: &Vif) -> Option<IpAddr> {
    vif.network.iter().flat_map(|network| &network.subnets).find_map(|subnet| subnet.gateway)
}

/// The packet that is asked for.
///
/// # Errors
/// What is asked makes no sense, or is not enough.
pub(super) fn packet(question: &Question, around: Around<'_>) -> Result<Packet, Senseless> {
    for state in &question.conntrack {
        let word = |byte: u8| byte.is_ascii_lowercase() || byte == b',' || byte == b'|';
        if state.is_empty() || state.len() > LONGEST || !state.bytes().all(word) {
            let message = format!("{state:?} is no state such as trk,new or trk,est,rpl");
            return Err(senseless("ct_next", message));
        }
    }
    if question.conntrack.len() > MOST_STATES {
        return Err(senseless("ct_next", format!("at most {MOST_STATES} states")));
    }
    if question.from_uplink && question.to.is_some() {
        return Err(senseless("to", "what comes from the uplink is for the VIF itself"));
    }
    let (port, tag) = match (question.from_uplink, around.uplink) {
        (false, _) => (around.port, around.vlan),
        (true, Some(uplink)) => (uplink.port, uplink.vlan),
        (true, None) => {
            return Err(senseless(
                "from_uplink",
                "its network has no uplink that can be used: uplinks under [[bridge]] in the configuration names them",
            ));
        }
    };
    let mut assumed = Vec::new();
    if let Some(flow) = &question.flow {
        return raw(flow, port, question).map(|flow| Packet { flow, assumed });
    }
    let (kind, destination) = match (question.kind, question.to) {
        (Some(kind), to) => (kind, to),
        (None, Some(to)) => (Kind::Icmp, Some(to)),
        (None, None) if question.from_uplink => (Kind::Icmp, None),
        (None, None) => (Kind::Arp, None),
    };
    let (from, to) = if question.from_uplink {
        assumed.push(format!("it comes from {SOMEBODY}, which stands for whoever is behind the uplink"));
        (End { mac: SOMEBODY, addresses: gateway(around.vif).into_iter().collect() }, End::of(around.vif))
    } else {
        let receiver = receiver(destination, kind, around, &mut assumed)?;
        if kind == Kind::Arp {
            // Who has the address is what it asks everybody.
            assumed.clear();
        }
        (End::of(around.vif), receiver)
    };
    let mut fields = vec![format!("in_port={port}")];
    fields.extend(tag.map(|vlan| format!("dl_vlan={vlan}")));
    let target = to.address(from.address(None).filter(|_| destination.is_none())).or_else(|| to.address(None));
    let source = from.address(target);
    if source.is_none() {
        assumed.push(match target {
            Some(IpAddr::V6(_)) => {
                "the sender has no IPv6 address that is known, so it sends from the link-local one of its MAC address"
                    .to_owned()
            }
            _ => "the sender has no IPv4 address that is known, so it sends from none".to_owned(),
        });
    }
    let (source, target) = match (source, target) {
        (Some(IpAddr::V6(source)), Some(IpAddr::V6(target))) => (IpAddr::V6(source), IpAddr::V6(target)),
        (None, Some(IpAddr::V6(target))) => (link_local(from.mac).into(), target.into()),
        (source, target) => {
            let nobody = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
            if target.is_none() {
                assumed.push("the address that it is for is not known, so it is for 0.0.0.0".to_owned());
            }
            (source.unwrap_or(nobody), target.unwrap_or(nobody))
        }
    };
    fields.push(match kind {
        Kind::Arp => asks_who_has(from.mac, source, target),
        _ => format!("dl_src={},dl_dst={},{}", from.mac, to.mac, carried(kind, source, target)),
    });
    Ok(Packet { flow: fields.join(","), assumed })
}

/// A packet as it is said, with the port that it comes in by if that is not said.
fn raw(flow: &str, port: u16, question: &Question) -> Result<String, Senseless> {
    let flow = flow.trim();
    if question.to.is_some() || question.kind.is_some() {
        return Err(senseless("flow", "a packet that is said raw has its destination and its kind in it"));
    }
    // What begins with a dash would be an option, some of which do more than look.
    if flow.is_empty() || flow.starts_with('-') || flow.len() > LONGEST || flow.chars().any(char::is_control) {
        return Err(senseless("flow", "it is to be such as icmp,dl_src=52:54:00:00:00:01,nw_dst=10.0.0.2"));
    }
    let said =
        flow.split([',', ' ']).any(|field| field.trim().starts_with("in_port=") || field.starts_with("in_port:"));
    Ok(if said { flow.to_owned() } else { format!("in_port={port},{flow}") })
}

/// Whom a packet of the VIF's is for.
fn receiver(to: Option<To>, kind: Kind, around: Around<'_>, assumed: &mut Vec<String>) -> Result<End, Senseless> {
    let network = NetworkKey::of(around.vif);
    let neighbours = || around.desired.vifs.values().filter(|vif| NetworkKey::of(vif) == network);
    match to {
        Some(To::Vif(id)) => {
            let other = around.desired.vifs.get(&id);
            let other = other.ok_or_else(|| senseless("to", format!("there is no record of VIF {id}")))?;
            if NetworkKey::of(other) != network {
                assumed.push("it is for a VIF of another network, as if that were on the VIF's own".to_owned());
            }
            Ok(End::of(other))
        }
        Some(To::Mac(mac)) => {
            let holder = neighbours().find(|vif| vif.address == Some(mac));
            Ok(End { mac, addresses: holder.into_iter().flat_map(|vif| fixed(vif)).collect() })
        }
        Some(To::Ip(address)) => Ok(at(address, neighbours(), assumed)),
        None => match gateway(around.vif) {
            Some(address) => Ok(at(address, neighbours(), assumed)),
            // It asks for its own address, as guests do when they begin.
            None if kind == Kind::Arp => Ok(End { mac: EVERYBODY, addresses: fixed(around.vif).take(1).collect() }),
            None => Err(senseless("to", "the record has no gateway: say where to (a VIF, a MAC or an IP address)")),
        },
    }
}

/// Whoever has an IP address.
fn at<'a>(
    address: IpAddr,
    mut neighbours: impl Iterator<Item = &'a std::sync::Arc<Vif>>,
    assumed: &mut Vec<String>,
) -> End {
    let mac = match address {
        IpAddr::V4(Ipv4Addr::BROADCAST) => EVERYBODY,
        // RFC 1112, section 6.4, and RFC 2464, section 7.
        IpAddr::V4(group) if group.is_multicast() => {
            let [_, b, c, d] = group.octets();
            MacAddr([0x01, 0, 0x5e, b & 0x7f, c, d])
        }
        IpAddr::V6(group) if group.is_multicast() => multicast(group),
        _ => match neighbours.find(|vif| fixed(vif).any(|own| own == address)).and_then(|vif| vif.address) {
            Some(mac) => mac,
            None => {
                assumed.push(format!(
                    "no VIF of its network here has {address}: {SOMEBODY} stands for whoever has, such as a router"
                ));
                SOMEBODY
            }
        },
    };
    End { mac, addresses: vec![address] }
}

/// The link-local address that a host makes of its MAC address (RFC 4291, appendix A).
fn link_local(mac: MacAddr) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac.0;
    Ipv6Addr::from([0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 0x02, b, c, 0xff, 0xfe, d, e, f])
}

fn multicast(group: Ipv6Addr) -> MacAddr {
    let octets = group.octets();
    MacAddr([0x33, 0x33, octets[12], octets[13], octets[14], octets[15]])
}

/// ARP, or a neighbour solicitation (RFC 4861, section 4.3).
fn asks_who_has(mac: MacAddr, source: IpAddr, target: IpAddr) -> String {
    match (source, target) {
        (IpAddr::V6(source), IpAddr::V6(target)) => {
            let [.., a, b, c] = target.octets();
            let group = Ipv6Addr::from([0xff, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x01, 0xff, a, b, c]);
            format!(
                "dl_src={mac},dl_dst={},icmp6,ipv6_src={source},ipv6_dst={group},nw_ttl=255,icmpv6_type=135,\
                 icmpv6_code=0,nd_target={target},nd_sll={mac}",
                multicast(group)
            )
        }
        _ => format!(
            "dl_src={mac},dl_dst={EVERYBODY},arp,arp_op=1,arp_sha={mac},arp_tha=00:00:00:00:00:00,arp_spa={source},\
             arp_tpa={target}"
        ),
    }
}

fn carried(kind: Kind, source: IpAddr, target: IpAddr) -> String {
    let six = target.is_ipv6();
    let addresses = if six {
        format!("ipv6_src={source},ipv6_dst={target},nw_ttl=64")
    } else {
        format!("nw_src={source},nw_dst={target},nw_ttl=64")
    };
    match kind {
        // Said otherwise, above.
        Kind::Arp => addresses,
        Kind::Icmp if six => format!("icmp6,{addresses},icmpv6_type=128,icmpv6_code=0"),
        Kind::Icmp => format!("icmp,{addresses},icmp_type=8,icmp_code=0"),
        Kind::Tcp(port) => {
            format!("{},{addresses},tcp_src={SOURCE_PORT},tcp_dst={port}", if six { "tcp6" } else { "tcp" })
        }
        Kind::Udp(port) => {
            // DHCP of a client.
            let from = match (six, port) {
                (false, 67) => 68,
                (true, 547) => 546,
                _ => SOURCE_PORT,
            };
            format!("{},{addresses},udp_src={from},udp_dst={port}", if six { "udp6" } else { "udp" })
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::record;

    fn vif(number: u8, network: u8, addresses: &[&str], gateway: Option<&str>) -> Vif {
        let ips: Vec<_> = addresses.iter().map(|address| json!({"address": address})).collect();
        let text = json!({"vif": {
            "type": "openvswitch", "id": format!("{number:08x}-0000-4000-8000-000000000000"),
            "address": format!("52:54:00:00:00:{number:02x}"), "vif_name": format!("tap{number}"),
            "network": {"id": format!("{network:08x}-0000-4000-8000-000000000000"), "bridge": "br-int",
                        "subnets": [{"cidr": "10.0.0.0/24", "gateway": gateway, "ips": ips}]},
            "port_profile": {"type": "openvswitch", "create_port": true},
        }});
        record::decode(text.to_string().as_bytes()).unwrap().vif
    }

    fn of(question: &Question, own: &Vif, others: &[Vif]) -> Result<Packet, Senseless> {
        let mut desired = Desired::default();
        for vif in others.iter().chain([own]) {
            desired.vifs.insert(vif.id, Arc::new(vif.clone()));
        }
        let uplink = Some(Uplink { port: 9, vlan: Some(100) });
        packet(question, Around { vif: own, port: 5, vlan: None, uplink, desired: &desired })
    }

    fn told(question: &Question) -> String {
        let own = vif(1, 1, &["10.0.0.1", "fd00::1"], Some("10.0.0.254"));
        let others = [vif(2, 1, &["10.0.0.2", "fd00::2"], None), vif(3, 2, &["10.0.0.2"], None)];
        match of(question, &own, &others) {
            Ok(packet) => [vec![packet.flow], packet.assumed].concat().join("\n  "),
            Err(error) => format!("{}: {error}", error.parameter),
        }
    }

    #[test]
    fn what_is_not_said_is_taken_from_the_records() {
        let to = |text: &str| {
            Some(match (text.parse(), text.parse()) {
                (Ok(mac), _) => To::Mac(mac),
                (_, Ok(address)) => To::Ip(address),
                _ => To::Vif(text.parse().unwrap()),
            })
        };
        let question = |text: Option<&str>, kind| Question { to: text.and_then(to), kind, ..Question::default() };
        let vif_2 = "00000002-0000-4000-8000-000000000000";
        let uplink = |kind| Question { kind, from_uplink: true, ..Question::default() };
        let raw = |flow: &str| Question { flow: Some(flow.to_owned()), ..Question::default() };
        let all = [
            question(None, None),
            question(Some(vif_2), None),
            question(Some("00000003-0000-4000-8000-000000000000"), None),
            question(Some("00000004-0000-4000-8000-000000000000"), None),
            question(Some("52:54:00:00:00:02"), Some(Kind::Tcp(80))),
            question(Some("52:54:00:00:00:77"), Some(Kind::Udp(53))),
            question(Some("10.0.0.2"), Some(Kind::Arp)),
            question(Some("fd00::2"), Some(Kind::Arp)),
            question(Some("fd00::2"), Some(Kind::Tcp(22))),
            question(Some("192.0.2.1"), Some(Kind::Icmp)),
            question(Some("255.255.255.255"), Some(Kind::Udp(67))),
            question(Some("224.0.0.251"), Some(Kind::Udp(5353))),
            question(Some("ff02::fb"), Some(Kind::Udp(5353))),
            uplink(None),
            uplink(Some(Kind::Arp)),
            Question { to: to(vif_2), ..uplink(None) },
            raw(" icmp,nw_dst=10.0.0.2 "),
            raw("in_port=3,dl_vlan=7"),
            raw("-generate"),
            raw("ip\nin_port=3"),
            Question { kind: Some(Kind::Arp), ..raw("ip") },
            Question { conntrack: vec!["trk,new --generate".into()], ..question(None, None) },
        ];
        insta::assert_snapshot!(all.iter().map(told).collect::<Vec<_>>().join("\n"));
    }

    #[test]
    fn records_without_addresses_are_no_obstacle() {
        let bare = vif(1, 1, &[], None);
        let error = of(&Question { kind: Some(Kind::Icmp), ..Question::default() }, &bare, &[]).unwrap_err();
        assert_eq!(error.parameter, "to");
        let to = Some(To::Ip("fd00::9".parse().unwrap()));
        let packet = of(&Question { to, ..Question::default() }, &bare, &[]).unwrap();
        assert!(packet.flow.contains("ipv6_src=fe80::5054:ff:fe00:1,"), "{packet:?}");
        assert_eq!(packet.assumed.len(), 2, "{packet:?}");
    }
}
