//! Matches as text. Written as `ovs-ofctl dump-flows` writes them, with one exception: where that leaves out a part
//! of a match (the mask of `tun_gbp_flags`, a packet type of Ethernet, `nsh_c1` of another MD type), it is written
//! here. (`nw_frag=later` stays what both of two matches are called that no packet tells apart.) Read as `ovs-ofctl add-flow` reads them, with one exception: a
//! field without its prerequisites is refused and not left out.

use std::fmt::{self, Write};

use super::needs::{ARP, ICMP, ICMPV6, IPV4, IPV6, Kind, MPLS, MPLS_MULTICAST, RARP, SCTP, TCP, UDP};
use super::{Entry, Match, MatchBuilder};
use crate::field::table::Shown;
use crate::field::text::{digits, parse_value, show_hex, show_value};
use crate::field::{COUNT, Oxm, Subfield, low_bits, oxm_number};
use crate::text::{KeyValues, PortNames, Show, Unnamed, octets, show_octets, text_form, wrong};
use crate::{Field, TextError};

/// What stands for an Ethernet type, or one and an IP protocol. Of several the first is written.
const PROTOCOLS: &[(&str, u16, Option<u8>)] = &[
    ("ip", IPV4, None),
    ("ipv4", IPV4, None),
    ("ip4", IPV4, None),
    ("icmp", IPV4, Some(ICMP)),
    ("tcp", IPV4, Some(TCP)),
    ("udp", IPV4, Some(UDP)),
    ("sctp", IPV4, Some(SCTP)),
    ("ipv6", IPV6, None),
    ("ip6", IPV6, None),
    ("icmp6", IPV6, Some(ICMPV6)),
    ("tcp6", IPV6, Some(TCP)),
    ("udp6", IPV6, Some(UDP)),
    ("sctp6", IPV6, Some(SCTP)),
    ("arp", ARP, None),
    ("rarp", RARP, None),
    ("mpls", MPLS, None),
    ("mplsm", MPLS_MULTICAST, None),
];

/// The order of fields in a text. A protocol's name stands where the Ethernet type does in the first place.
const ORDER: &[(Field, u8)] = &[
    (Field::PKT_MARK, 1),
    (Field::RECIRC_ID, 1),
    (Field::DP_HASH, 1),
    (Field::CONJ_ID, 1),
    (Field::ACTSET_OUTPUT, 1),
    // State, zone, mark, label, addresses, protocol, ports.
    (Field::CT_STATE, 11),
    (Field::PACKET_TYPE, 1),
    (Field::ETH_TYPE, 1),
    (Field::REG, 16),
    (Field::TUN_ID, 1),
    (Field::TUN_SRC, 4),
    (Field::TUN_GBP_ID, 2),
    (Field::TUN_ERSPAN_VER, 1),
    (Field::TUN_ERSPAN_IDX, 1),
    (Field::TUN_ERSPAN_DIR, 2),
    (Field::TUN_GTPU_FLAGS, 2),
    (Field::TUN_FLAGS, 1),
    (Field::TUN_METADATA, 64),
    (Field::METADATA, 1),
    (Field::IN_PORT, 1),
    (Field::VLAN_VID, 2),
    (Field::VLAN_TCI, 1),
    (Field::ETH_SRC, 2),
    (OTHER_ETH_TYPE, 1),
    (Field::IPV6_SRC, 2),
    (Field::IPV6_LABEL, 1),
    (Field::ARP_SPA, 2),
    (Field::NSH_FLAGS, 10),
    (Field::IP_SRC, 2),
    (Field::IP_PROTO, 1),
    (Field::ARP_OP, 1),
    (Field::ARP_SHA, 2),
    (Field::IP_DSCP, 3),
    (Field::MPLS_LABEL, 1),
    (Field::MPLS_TC, 1),
    (Field::MPLS_TTL, 1),
    (Field::MPLS_BOS, 1),
    (Field::IP_FRAG, 1),
    (Field::ICMP_TYPE, 4),
    (Field::ND_TARGET, 1),
    (Field::ND_SLL, 2),
    (Field::ND_RESERVED, 1),
    (Field::ND_OPTIONS_TYPE, 1),
    (Field::TCP_SRC, 2),
    (Field::UDP_SRC, 4),
    (Field::TCP_FLAGS, 1),
];

/// Where an Ethernet type without a name has its place: that of a field which no canonical match has.
const OTHER_ETH_TYPE: Field = Field::NW_TOS;

static RANKS: [u8; COUNT] = ranks();

const fn ranks() -> [u8; COUNT] {
    let mut ranks = [u8::MAX; COUNT];
    let mut rank = 0;
    let mut row = 0;
    while row < ORDER.len() {
        let mut member = 0;
        while member < ORDER[row].1 {
            ranks[(ORDER[row].0.0 + member) as usize] = rank;
            rank += 1;
            member += 1;
        }
        row += 1;
    }
    ranks
}

fn rank(field: Option<Field>) -> u8 {
    field.map_or(u8::MAX, |field| RANKS[usize::from(field.0)])
}

impl Show for Match {
    fn show(&self, out: &mut dyn Write, names: &dyn PortNames) -> fmt::Result {
        self.show_with(out, names, None).map(drop)
    }
}

text_form!(Match);

impl Match {
    /// Writes it, a priority before it, and says whether there was anything to write.
    pub(crate) fn show_with(
        &self,
        out: &mut dyn Write,
        names: &dyn PortNames,
        priority: Option<u16>,
    ) -> Result<bool, fmt::Error> {
        let mut entries: Vec<Entry<'_>> = self.entries().collect();
        let eth_type = entries.iter().find(|entry| entry.field == Some(Field::ETH_TYPE)).map(|entry| entry.numbers().0);
        let kind = eth_type.map(|kind| kind as u16);
        let proto =
            entries.iter().find(|entry| entry.field == Some(Field::IP_PROTO)).map(|entry| entry.numbers().0 as u8);
        let protocol = PROTOCOLS
            .iter()
            .find(|(_, known, known_proto)| Some(*known) == kind && known_proto.is_some() && *known_proto == proto)
            .or_else(|| PROTOCOLS.iter().find(|(_, known, proto)| Some(*known) == kind && proto.is_none()));
        let bare = entries
            .iter()
            .find(|entry| entry.field == Some(Field::PACKET_TYPE))
            .is_some_and(|entry| entry.numbers().0 >> 16 == 1);
        entries.sort_by_key(|entry| match entry.field {
            Some(Field::ETH_TYPE) if protocol.is_none() => rank(Some(OTHER_ETH_TYPE)),
            field => rank(field),
        });
        let mut list = crate::text::Commas::new(out);
        if let Some(priority) = priority {
            list.put(format_args!("priority={priority}"))?;
        }
        let mut any = priority.is_some();
        for entry in &entries {
            match (entry.field, protocol) {
                (Some(Field::ETH_TYPE), Some((name, _, _))) => list.put(format_args!("{name}"))?,
                (Some(Field::IP_PROTO), Some((_, _, Some(_)))) if !bare => continue,
                (Some(Field::VLAN_VID | Field::VLAN_PCP | Field::VLAN_TCI), _) => {
                    // The first of them writes them all.
                    if entry.field == Some(Field::VLAN_PCP) {
                        continue;
                    }
                    self.show_vlan(&mut list)?;
                }
                _ => show_entry(entry, list.next()?, names)?,
            }
            any = true;
        }
        Ok(any)
    }

    fn show_vlan(&self, list: &mut crate::text::Commas<'_>) -> fmt::Result {
        let (vid, vid_mask) = self.get(Field::VLAN_VID).unwrap_or_default();
        let (pcp, pcp_mask) = self.get(Field::VLAN_PCP).unwrap_or_default();
        let parts = (vid & 0x1fff | (pcp & 7) << 13, vid_mask & 0x1fff | (pcp_mask & 7) << 13);
        let (tci, mask) = self.get(Field::VLAN_TCI).unwrap_or(parts);
        let (vid_mask, pcp_mask) = (mask & 0xfff, mask & 0xe000);
        let whole = matches!(vid_mask, 0 | 0xfff) && matches!(pcp_mask, 0 | 0xe000) && mask & 0xefff != 0;
        if mask & tci & 0x1000 != 0 && whole {
            if vid_mask != 0 {
                list.put(format_args!("dl_vlan={}", tci & 0xfff))?;
            }
            if pcp_mask != 0 {
                list.put(format_args!("dl_vlan_pcp={}", tci >> 13))?;
            }
            Ok(())
        } else if mask == 0xffff {
            list.put(format_args!("vlan_tci=0x{tci:04x}"))
        } else {
            list.put(format_args!("vlan_tci=0x{tci:04x}/0x{mask:04x}"))
        }
    }
}

/// Writes one field.
fn show_entry(entry: &Entry<'_>, out: &mut dyn Write, names: &dyn PortNames) -> fmt::Result {
    let Some(field) = entry.field else {
        out.write_str("oxm(")?;
        show_octets(out, entry.octets, "")?;
        return out.write_char(')');
    };
    let (value, mask) = entry.numbers();
    let masked = entry.mask.is_some();
    match field {
        Field::PACKET_TYPE if value == 0 => return out.write_str("eth"),
        // OVS keeps flags of its own in the same place, so that it never sees them all matched.
        Field::TUN_FLAGS => return out.write_str(if value & 1 != 0 { "tun_flags=+oam" } else { "tun_flags=-oam" }),
        Field::IP_DSCP => return write!(out, "nw_tos={}", value << 2),
        _ if field.is_tun_metadata() && entry.mask.is_some_and(|mask| mask.iter().all(|octet| *octet == 0)) => {
            return write!(out, "{field}");
        }
        _ => {}
    }
    let mut name = String::new();
    field.write_match_name(&mut name)?;
    write!(out, "{name}=")?;
    match field.row().shown {
        Shown::Form => show_value(out, field, entry.value, entry.mask, names),
        Shown::Alt => {
            show_hex(out, entry.value)?;
            let Some(mask) = entry.mask else { return Ok(()) };
            out.write_char('/')?;
            show_hex(out, mask)
        }
        Shown::Dec if !masked => write!(out, "{value}"),
        Shown::Dec8 if !masked => write!(out, "{value}"),
        Shown::Dec8 => write!(out, "{value:#04x}/{mask:#04x}"),
        Shown::Dec | Shown::Hex if masked => write!(out, "{value:#x}/{mask:#x}"),
        Shown::Dec | Shown::Hex => write!(out, "{value:#x}"),
        Shown::Hex4 => write!(out, "{value:#06x}"),
        Shown::Hex5 if masked => write!(out, "{value:#07x}/{mask:#07x}"),
        Shown::Hex5 => write!(out, "{value:#07x}"),
    }
}

/// Fields that are one for a text, until it is known which kind of packet it speaks of.
const SAME: &[&[Field]] = &[
    &[Field::TCP_SRC, Field::UDP_SRC, Field::SCTP_SRC, Field::ICMP_TYPE, Field::ICMPV6_TYPE],
    &[Field::TCP_DST, Field::UDP_DST, Field::SCTP_DST, Field::ICMP_CODE, Field::ICMPV6_CODE],
    &[Field::IP_SRC, Field::ARP_SPA],
    &[Field::IP_DST, Field::ARP_TPA],
    &[Field::IP_PROTO, Field::ARP_OP],
    &[Field::ARP_SHA, Field::ND_SLL],
    &[Field::ARP_THA, Field::ND_TLL],
];

/// A match that is being read, key by key.
#[derive(Debug, Default)]
pub(crate) struct MatchText {
    builder: MatchBuilder,
}

impl MatchText {
    /// Takes a key and its value, if it is one of a match.
    pub(crate) fn take(&mut self, key: &str, value: &str, names: &dyn PortNames) -> Result<bool, TextError> {
        if let Some((_, kind, proto)) = PROTOCOLS.iter().find(|(name, _, _)| *name == key) {
            self.builder.set(Field::ETH_TYPE, u128::from(*kind), u128::MAX);
            if let Some(proto) = proto {
                self.set(&Oxm::new(Field::IP_PROTO, u128::from(*proto)));
            }
        } else if key == "eth" {
            self.builder.set(Field::PACKET_TYPE, 0, u128::MAX);
        } else if key == "dl_vlan" {
            // Of OpenFlow 1.0: a tag with this number, or none at all.
            match crate::text::u16(value, "a VLAN")? {
                0xffff => self.builder.set(Field::VLAN_TCI, 0, u128::MAX),
                vlan @ 0..=0xfff => self.builder.set(Field::VLAN_VID, u128::from(vlan) | 0x1000, u128::MAX),
                _ => return Err(wrong(value, "a VLAN has 12 bits")),
            }
        } else if key == "oxm" {
            self.builder.set_unknown(&unknown_entry(value)?);
        } else if let Some(field) = Field::by_name(key) {
            if value.is_empty() && field.is_tun_metadata() {
                self.set(&Oxm::from_octets(field, &[], Some(&[])));
            } else {
                let oxm = parse_value(field, value, names)?;
                let bits = match field {
                    Field::VLAN_VID => 13,
                    // OVS keeps it in the place of the IP protocol.
                    Field::ARP_OP => 8,
                    _ => field.bits(),
                };
                if bits < 128 && oxm.numbers().0 & !low_bits(bits.into()) != 0 {
                    return Err(wrong(value, format!("{key} has {bits} bits")));
                }
                self.set(&oxm);
            }
        } else if key.contains('[') || Field::by_header_name(key).is_some() {
            let subfield = Subfield::parse(key)?;
            let number = oxm_number(&digits(value, subfield.field.octets())?);
            if number & !low_bits(subfield.bits.into()) != 0 {
                return Err(wrong(value, format!("{key} has {} bits", subfield.bits)));
            }
            if !self.builder.set_bits(subfield, number) {
                return Err(wrong(key, "this field is not matched by bits"));
            }
        } else {
            return Ok(false);
        }
        Ok(true)
    }

    fn set(&mut self, oxm: &Oxm) {
        if let Some(same) = SAME.iter().find(|same| same.contains(&oxm.field())) {
            same.iter().for_each(|field| self.builder.clear(*field));
        }
        self.builder.set_oxm(oxm);
    }

    /// The match, its fields those of the kind of packet that it speaks of.
    pub(crate) fn finish(mut self) -> Result<Match, TextError> {
        for same in SAME {
            let kind = Kind::of(|field| Some(self.builder.get(field)).filter(|(_, mask)| *mask != 0));
            let Some(given) = same.iter().copied().find(|field| self.builder.get(*field).1 != 0) else { continue };
            let fitting = same.iter().copied().find(|field| kind.lacks(field.row().needs).is_none());
            let Some(fitting) = fitting.filter(|fitting| *fitting != given) else { continue };
            let (value, mask) = self.builder.get(given);
            let exact = mask == low_bits(given.octets() * 8);
            let all = low_bits(fitting.octets() * 8);
            if value & !all != 0 {
                return Err(wrong(&value.to_string(), format!("too much for {fitting}")));
            }
            self.builder.clear(given);
            self.builder.put(fitting, value, if exact { all } else { mask });
        }
        let matching = self.builder.build();
        if matching.get(Field::VLAN_TCI).is_some() {
            // OVS would make of it what it can say, which is something else.
            return Err(wrong(&matching.to_string(), "OpenFlow 1.4 matches all bits of a VLAN's priority or none"));
        }
        matching.check().map_err(|missing| wrong(&matching.to_string(), missing.to_string()))?;
        Ok(matching)
    }
}

/// An entry of an unknown field: hexadecimal digits.
fn unknown_entry(text: &str) -> Result<Vec<u8>, TextError> {
    let octets = octets(text)?;
    let mut entries = super::Entries::new(&octets);
    match (entries.next(), entries.rest()) {
        (Some(Entry { field: None, .. }), []) => Ok(octets),
        _ => Err(wrong(text, "not the OXM entry of an unknown field")),
    }
}

impl Match {
    /// Reads a match as `ovs-ofctl add-flow` does; ports may have names.
    ///
    /// # Errors
    /// A part of it is no match, or a field lacks its prerequisites.
    pub fn parse(text: &str, names: &dyn PortNames) -> Result<Self, TextError> {
        let mut matching = MatchText::default();
        for (key, value) in KeyValues::new(text) {
            if !matching.take(key, value, names)? {
                return Err(wrong(key, "no such field"));
            }
        }
        matching.finish()
    }
}

impl std::str::FromStr for Match {
    type Err = TextError;

    fn from_str(text: &str) -> Result<Self, TextError> {
        Self::parse(text, &Unnamed)
    }
}
