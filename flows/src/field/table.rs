//! The one table of fields: every field that OVS 3.1 matches or sets by OpenFlow, in the order in which OVS writes
//! them into a match (`lib/nx-match.c`, `nx_put_raw`); behind them those that are other names for the same bits and
//! never in a canonical match. The facts are those of OVS's `include/openvswitch/meta-flow.h`. How they are read
//! and written is not here.

use super::Field;
use super::header::Class::{self, Eric, NxEt, NxNsh, NxmNx, NxmOf, OnfEt, OxmOf, PktReg};

/// How a value is written in an action (`set_field:…`, `learn(…)`), and read everywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Dec,
    Hex,
    Mac,
    Ipv4,
    Ipv6,
    Port,
    CtState,
    TunFlags,
    TcpFlags,
    Frag,
    PacketType,
}

/// How a value is written in a match, where OVS is of another mind than in actions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shown {
    /// As in actions.
    Form,
    /// C's `%#x`: no prefix before 0.
    Alt,
    /// Decimal; `0x%x/0x%x` where masked.
    Dec,
    /// Decimal; `0x%02x/0x%02x` where masked.
    Dec8,
    /// `0x%x`.
    Hex,
    /// `0x%04x`.
    Hex4,
    /// `0x%05x`.
    Hex5,
}

/// What else must be matched for a field to mean something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Needs {
    Nothing,
    Ethernet,
    Vlan,
    Mpls,
    Ipv4,
    Ipv6,
    Ip,
    Arp,
    Tcp,
    Udp,
    Sctp,
    Icmpv4,
    Icmpv6,
    Nd,
    NdSolicit,
    NdAdvert,
    Nsh,
    Ct,
    CtPorts,
}

/// May be matched under a mask.
pub(super) const M: u8 = 1;
/// May be set by an action.
pub(super) const W: u8 = 2;
/// Both.
const MW: u8 = M | W;
/// Neither.
const O: u8 = 0;

/// A field, or a family of fields with consecutive numbers.
#[derive(Debug)]
pub(crate) struct Row {
    /// The name, without the number of a family's member.
    pub name: &'static str,
    /// The name that matches are written with.
    pub match_name: &'static str,
    /// Further names that are understood.
    pub aliases: &'static [&'static str],
    /// Members of the family; 0 for a field that is alone.
    pub family: u8,
    /// The number of the family's first member.
    pub first: u8,
    /// Bits that mean something, the low ones.
    pub bits: u16,
    /// Octets on the wire; for tunnel options the most there can be.
    pub octets: u8,
    /// [`M`], [`W`].
    pub access: u8,
    pub needs: Needs,
    pub form: Form,
    pub shown: Shown,
    /// Class, number and name of its headers: actions use the first, matches the last.
    pub headers: &'static [(Class, u8, &'static str)],
}

impl Row {
    /// The fields of this row.
    pub(super) const fn count(&self) -> usize {
        if self.family == 0 { 1 } else { self.family as usize }
    }

    const fn shown(mut self, match_name: &'static str, shown: Shown) -> Row {
        self.match_name = match_name;
        self.shown = shown;
        self
    }

    const fn also(mut self, aliases: &'static [&'static str]) -> Row {
        self.aliases = aliases;
        self
    }

    const fn family(mut self, count: u8, first: u8) -> Row {
        self.family = count;
        self.first = first;
        self
    }
}

const fn row(
    name: &'static str,
    (bits, octets): (u16, u8),
    access: u8,
    needs: Needs,
    form: Form,
    headers: &'static [(Class, u8, &'static str)],
) -> Row {
    let (match_name, shown) = (name, Shown::Form);
    Row { name, match_name, aliases: &[], family: 0, first: 0, bits, octets, access, needs, form, shown, headers }
}

/// Headers of OpenFlow 1.5 and of drafts, for fields that 1.4 has by another: read, never written.
pub(super) const LATER: &[(Class, u8, Field)] =
    &[(NxEt, 0, Field::DP_HASH), (OxmOf, 43, Field::ACTSET_OUTPUT), (OxmOf, 42, Field::TCP_FLAGS)];

/// Makes the table, and a constant of [`Field`] for every row (for the first member of a family).
macro_rules! fields {
    ($($name:ident = $row:expr;)*) => {
        #[allow(non_camel_case_types, clippy::upper_case_acronyms, reason = "one for each constant, by its name")]
        enum Index { $($name),* }
        /// The table.
        pub(crate) static ROWS: [Row; [$(Index::$name as usize),*].len()] = ROWS_CONST;
        /// The same for constants, which may not read statics.
        pub(super) const ROWS_CONST: [Row; [$(Index::$name as usize),*].len()] = [$($row),*];
        impl Field {
            $(
                #[doc = concat!("`", stringify!($name), "` (of a family the first).")]
                pub const $name: Field = Field::first_of(Index::$name as usize);
            )*
        }
    };
}

use Form::{CtState, Dec, Frag, Hex, Ipv4, Ipv6, Mac, Port, TcpFlags, TunFlags};
use Needs::{Ethernet, Nothing};

#[rustfmt::skip]
fields! {
    PACKET_TYPE = row("packet_type", (32, 4), O, Nothing, Form::PacketType, &[(OxmOf, 44, "PACKET_TYPE")]);
    DP_HASH = row("dp_hash", (32, 4), M, Nothing, Hex, &[(NxmNx, 35, "DP_HASH")]).shown("dp_hash", Shown::Alt);
    RECIRC_ID = row("recirc_id", (32, 4), O, Nothing, Dec, &[(NxmNx, 36, "RECIRC_ID")]).shown("recirc_id", Shown::Alt);
    CONJ_ID = row("conj_id", (32, 4), O, Nothing, Dec, &[(NxmNx, 37, "CONJ_ID")]);
    IN_PORT = row("in_port_oxm", (32, 4), W, Nothing, Port, &[(OxmOf, 0, "IN_PORT")]).shown("in_port", Shown::Form);
    ACTSET_OUTPUT = row("actset_output", (32, 4), O, Nothing, Port, &[(OnfEt, 43, "ACTSET_OUTPUT")]);
    ETH_SRC = row("eth_src", (48, 6), MW, Ethernet, Mac, &[(NxmOf, 2, "ETH_SRC"), (OxmOf, 4, "ETH_SRC")]).shown("dl_src", Shown::Form);
    ETH_DST = row("eth_dst", (48, 6), MW, Ethernet, Mac, &[(NxmOf, 1, "ETH_DST"), (OxmOf, 3, "ETH_DST")]).shown("dl_dst", Shown::Form);
    ETH_TYPE = row("eth_type", (16, 2), O, Ethernet, Hex, &[(NxmOf, 3, "ETH_TYPE"), (OxmOf, 5, "ETH_TYPE")]).shown("dl_type", Shown::Hex4);
    VLAN_VID = row("vlan_vid", (12, 2), MW, Ethernet, Dec, &[(OxmOf, 6, "VLAN_VID")]);
    VLAN_PCP = row("vlan_pcp", (3, 1), W, Needs::Vlan, Dec, &[(OxmOf, 7, "VLAN_PCP")]).shown("dl_vlan_pcp", Shown::Form);
    MPLS_TC = row("mpls_tc", (3, 1), W, Needs::Mpls, Dec, &[(OxmOf, 35, "MPLS_TC")]);
    MPLS_BOS = row("mpls_bos", (1, 1), O, Needs::Mpls, Dec, &[(OxmOf, 36, "MPLS_BOS")]);
    MPLS_TTL = row("mpls_ttl", (8, 1), W, Needs::Mpls, Dec, &[(NxmNx, 30, "MPLS_TTL")]);
    MPLS_LABEL = row("mpls_label", (20, 4), W, Needs::Mpls, Dec, &[(OxmOf, 34, "MPLS_LABEL")]);
    IP_SRC = row("ip_src", (32, 4), MW, Needs::Ipv4, Ipv4, &[(NxmOf, 7, "IP_SRC"), (OxmOf, 11, "IPV4_SRC")]).shown("nw_src", Shown::Form);
    IP_DST = row("ip_dst", (32, 4), MW, Needs::Ipv4, Ipv4, &[(NxmOf, 8, "IP_DST"), (OxmOf, 12, "IPV4_DST")]).shown("nw_dst", Shown::Form);
    IPV6_SRC = row("ipv6_src", (128, 16), MW, Needs::Ipv6, Ipv6, &[(NxmNx, 19, "IPV6_SRC"), (OxmOf, 26, "IPV6_SRC")]);
    IPV6_DST = row("ipv6_dst", (128, 16), MW, Needs::Ipv6, Ipv6, &[(NxmNx, 20, "IPV6_DST"), (OxmOf, 27, "IPV6_DST")]);
    IP_FRAG = row("ip_frag", (2, 1), M, Needs::Ip, Frag, &[(NxmNx, 26, "IP_FRAG")]).shown("nw_frag", Shown::Form);
    IP_DSCP = row("ip_dscp", (6, 1), W, Needs::Ip, Dec, &[(OxmOf, 8, "IP_DSCP")]);
    IP_ECN = row("nw_ecn", (2, 1), W, Needs::Ip, Dec, &[(NxmNx, 28, "IP_ECN"), (OxmOf, 9, "IP_ECN")]).also(&["ip_ecn"]);
    IP_TTL = row("nw_ttl", (8, 1), W, Needs::Ip, Dec, &[(NxmNx, 29, "IP_TTL")]);
    IPV6_LABEL = row("ipv6_label", (20, 4), MW, Needs::Ipv6, Hex, &[(NxmNx, 27, "IPV6_LABEL"), (OxmOf, 28, "IPV6_FLABEL")]).shown("ipv6_label", Shown::Hex5);
    IP_PROTO = row("nw_proto", (8, 1), O, Needs::Ip, Dec, &[(NxmOf, 6, "IP_PROTO"), (OxmOf, 10, "IP_PROTO")]).also(&["ip_proto"]);
    TCP_SRC = row("tcp_src", (16, 2), MW, Needs::Tcp, Dec, &[(NxmOf, 9, "TCP_SRC"), (OxmOf, 13, "TCP_SRC")]).shown("tp_src", Shown::Dec);
    TCP_DST = row("tcp_dst", (16, 2), MW, Needs::Tcp, Dec, &[(NxmOf, 10, "TCP_DST"), (OxmOf, 14, "TCP_DST")]).shown("tp_dst", Shown::Dec);
    TCP_FLAGS = row("tcp_flags", (12, 2), M, Needs::Tcp, TcpFlags, &[(NxmNx, 34, "TCP_FLAGS"), (OnfEt, 42, "TCP_FLAGS")]);
    UDP_SRC = row("udp_src", (16, 2), MW, Needs::Udp, Dec, &[(NxmOf, 11, "UDP_SRC"), (OxmOf, 15, "UDP_SRC")]).shown("tp_src", Shown::Dec);
    UDP_DST = row("udp_dst", (16, 2), MW, Needs::Udp, Dec, &[(NxmOf, 12, "UDP_DST"), (OxmOf, 16, "UDP_DST")]).shown("tp_dst", Shown::Dec);
    SCTP_SRC = row("sctp_src", (16, 2), MW, Needs::Sctp, Dec, &[(OxmOf, 17, "SCTP_SRC")]).shown("tp_src", Shown::Dec);
    SCTP_DST = row("sctp_dst", (16, 2), MW, Needs::Sctp, Dec, &[(OxmOf, 18, "SCTP_DST")]).shown("tp_dst", Shown::Dec);
    ICMP_TYPE = row("icmp_type", (8, 1), W, Needs::Icmpv4, Dec, &[(NxmOf, 13, "ICMP_TYPE"), (OxmOf, 19, "ICMPV4_TYPE")]);
    ICMP_CODE = row("icmp_code", (8, 1), W, Needs::Icmpv4, Dec, &[(NxmOf, 14, "ICMP_CODE"), (OxmOf, 20, "ICMPV4_CODE")]);
    ICMPV6_TYPE = row("icmpv6_type", (8, 1), W, Needs::Icmpv6, Dec, &[(NxmNx, 21, "ICMPV6_TYPE"), (OxmOf, 29, "ICMPV6_TYPE")]).shown("icmp_type", Shown::Form);
    ICMPV6_CODE = row("icmpv6_code", (8, 1), W, Needs::Icmpv6, Dec, &[(NxmNx, 22, "ICMPV6_CODE"), (OxmOf, 30, "ICMPV6_CODE")]).shown("icmp_code", Shown::Form);
    ND_RESERVED = row("nd_reserved", (32, 4), W, Needs::Nd, Dec, &[(Eric, 1, "ICMPV6_ND_RESERVED")]);
    ND_TARGET = row("nd_target", (128, 16), MW, Needs::Nd, Ipv6, &[(NxmNx, 23, "ND_TARGET"), (OxmOf, 31, "IPV6_ND_TARGET")]);
    ND_OPTIONS_TYPE = row("nd_options_type", (8, 1), W, Needs::Nd, Dec, &[(Eric, 2, "ICMPV6_ND_OPTIONS_TYPE")]);
    ND_SLL = row("nd_sll", (48, 6), MW, Needs::NdSolicit, Mac, &[(NxmNx, 24, "ND_SLL"), (OxmOf, 32, "IPV6_ND_SLL")]);
    ND_TLL = row("nd_tll", (48, 6), MW, Needs::NdAdvert, Mac, &[(NxmNx, 25, "ND_TLL"), (OxmOf, 33, "IPV6_ND_TLL")]);
    ARP_OP = row("arp_op", (16, 2), W, Needs::Arp, Dec, &[(NxmOf, 15, "ARP_OP"), (OxmOf, 21, "ARP_OP")]);
    ARP_SPA = row("arp_spa", (32, 4), MW, Needs::Arp, Ipv4, &[(NxmOf, 16, "ARP_SPA"), (OxmOf, 22, "ARP_SPA")]);
    ARP_TPA = row("arp_tpa", (32, 4), MW, Needs::Arp, Ipv4, &[(NxmOf, 17, "ARP_TPA"), (OxmOf, 23, "ARP_TPA")]);
    ARP_SHA = row("arp_sha", (48, 6), MW, Needs::Arp, Mac, &[(NxmNx, 17, "ARP_SHA"), (OxmOf, 24, "ARP_SHA")]);
    ARP_THA = row("arp_tha", (48, 6), MW, Needs::Arp, Mac, &[(NxmNx, 18, "ARP_THA"), (OxmOf, 25, "ARP_THA")]);
    TUN_ID = row("tun_id", (64, 8), MW, Nothing, Hex, &[(NxmNx, 16, "TUN_ID"), (OxmOf, 38, "TUNNEL_ID")]).also(&["tunnel_id"]).shown("tun_id", Shown::Alt);
    TUN_FLAGS = row("tun_flags", (1, 2), MW, Nothing, TunFlags, &[(NxmNx, 104, "TUN_FLAGS")]);
    TUN_SRC = row("tun_src", (32, 4), MW, Nothing, Ipv4, &[(NxmNx, 31, "TUN_IPV4_SRC")]);
    TUN_DST = row("tun_dst", (32, 4), MW, Nothing, Ipv4, &[(NxmNx, 32, "TUN_IPV4_DST")]);
    TUN_IPV6_SRC = row("tun_ipv6_src", (128, 16), MW, Nothing, Ipv6, &[(NxmNx, 109, "TUN_IPV6_SRC")]);
    TUN_IPV6_DST = row("tun_ipv6_dst", (128, 16), MW, Nothing, Ipv6, &[(NxmNx, 110, "TUN_IPV6_DST")]);
    TUN_GBP_ID = row("tun_gbp_id", (16, 2), MW, Nothing, Dec, &[(NxmNx, 38, "TUN_GBP_ID")]).shown("tun_gbp_id", Shown::Dec);
    TUN_GBP_FLAGS = row("tun_gbp_flags", (8, 1), MW, Nothing, Hex, &[(NxmNx, 39, "TUN_GBP_FLAGS")]).shown("tun_gbp_flags", Shown::Alt);
    TUN_METADATA = row("tun_metadata", (992, 124), MW, Nothing, Hex, &[(NxmNx, 40, "TUN_METADATA")]).family(64, 0);
    TUN_ERSPAN_IDX = row("tun_erspan_idx", (20, 4), MW, Nothing, Hex, &[(NxEt, 11, "ERSPAN_IDX")]).shown("tun_erspan_idx", Shown::Alt);
    TUN_ERSPAN_VER = row("tun_erspan_ver", (4, 1), MW, Nothing, Dec, &[(NxEt, 12, "ERSPAN_VER")]).shown("tun_erspan_ver", Shown::Dec);
    TUN_ERSPAN_DIR = row("tun_erspan_dir", (1, 1), MW, Nothing, Dec, &[(NxEt, 13, "ERSPAN_DIR")]).shown("tun_erspan_dir", Shown::Dec);
    TUN_ERSPAN_HWID = row("tun_erspan_hwid", (6, 1), MW, Nothing, Hex, &[(NxEt, 14, "ERSPAN_HWID")]).shown("tun_erspan_hwid", Shown::Alt);
    TUN_GTPU_FLAGS = row("tun_gtpu_flags", (8, 1), M, Nothing, Hex, &[(NxEt, 15, "GTPU_FLAGS")]).shown("gtpu_flags", Shown::Alt);
    TUN_GTPU_MSGTYPE = row("tun_gtpu_msgtype", (8, 1), M, Nothing, Dec, &[(NxEt, 16, "GTPU_MSGTYPE")]).shown("gtpu_msgtype", Shown::Dec);
    NSH_FLAGS = row("nsh_flags", (8, 1), MW, Needs::Nsh, Dec, &[(NxNsh, 1, "FLAGS")]).shown("nsh_flags", Shown::Dec8);
    NSH_TTL = row("nsh_ttl", (8, 1), W, Needs::Nsh, Dec, &[(NxNsh, 10, "TTL")]);
    NSH_MDTYPE = row("nsh_mdtype", (8, 1), O, Needs::Nsh, Dec, &[(NxNsh, 2, "MDTYPE")]);
    NSH_NP = row("nsh_np", (8, 1), O, Needs::Nsh, Dec, &[(NxNsh, 3, "NP")]);
    NSH_SPI = row("nsh_spi", (24, 4), W, Needs::Nsh, Hex, &[(NxNsh, 4, "SPI")]).also(&["nsp"]).shown("nsh_spi", Shown::Hex);
    NSH_SI = row("nsh_si", (8, 1), W, Needs::Nsh, Dec, &[(NxNsh, 5, "SI")]).also(&["nsi"]);
    NSH_C = row("nsh_c", (32, 4), MW, Needs::Nsh, Hex, &[(NxNsh, 6, "C")]).also(&["nshc"]).family(4, 1).shown("nsh_c", Shown::Hex);
    REG = row("reg", (32, 4), MW, Nothing, Hex, &[(NxmNx, 0, "REG")]).family(16, 0).shown("reg", Shown::Alt);
    PKT_MARK = row("pkt_mark", (32, 4), MW, Nothing, Hex, &[(NxmNx, 33, "PKT_MARK")]).shown("pkt_mark", Shown::Alt);
    CT_STATE = row("ct_state", (32, 4), M, Nothing, CtState, &[(NxmNx, 105, "CT_STATE")]);
    CT_ZONE = row("ct_zone", (16, 2), O, Nothing, Hex, &[(NxmNx, 106, "CT_ZONE")]).shown("ct_zone", Shown::Dec);
    CT_MARK = row("ct_mark", (32, 4), MW, Nothing, Hex, &[(NxmNx, 107, "CT_MARK")]).shown("ct_mark", Shown::Alt);
    CT_LABEL = row("ct_label", (128, 16), MW, Nothing, Hex, &[(NxmNx, 108, "CT_LABEL")]);
    CT_NW_SRC = row("ct_nw_src", (32, 4), M, Needs::Ct, Ipv4, &[(NxmNx, 120, "CT_NW_SRC")]);
    CT_IPV6_SRC = row("ct_ipv6_src", (128, 16), M, Needs::Ct, Ipv6, &[(NxmNx, 122, "CT_IPV6_SRC")]);
    CT_NW_DST = row("ct_nw_dst", (32, 4), M, Needs::Ct, Ipv4, &[(NxmNx, 121, "CT_NW_DST")]);
    CT_IPV6_DST = row("ct_ipv6_dst", (128, 16), M, Needs::Ct, Ipv6, &[(NxmNx, 123, "CT_IPV6_DST")]);
    CT_NW_PROTO = row("ct_nw_proto", (8, 1), O, Needs::Ct, Dec, &[(NxmNx, 119, "CT_NW_PROTO")]);
    CT_TP_SRC = row("ct_tp_src", (16, 2), M, Needs::CtPorts, Dec, &[(NxmNx, 124, "CT_TP_SRC")]).shown("ct_tp_src", Shown::Dec);
    CT_TP_DST = row("ct_tp_dst", (16, 2), M, Needs::CtPorts, Dec, &[(NxmNx, 125, "CT_TP_DST")]).shown("ct_tp_dst", Shown::Dec);
    METADATA = row("metadata", (64, 8), MW, Nothing, Hex, &[(OxmOf, 2, "METADATA")]).shown("metadata", Shown::Alt);

    // Other names for bits of the above: actions use them, a canonical match does not.
    IN_PORT_NXM = row("in_port", (16, 2), W, Nothing, Port, &[(NxmOf, 0, "IN_PORT")]);
    VLAN_TCI = row("vlan_tci", (16, 2), MW, Ethernet, Hex, &[(NxmOf, 4, "VLAN_TCI")]).shown("vlan_tci", Shown::Hex4);
    NW_TOS = row("nw_tos", (8, 1), W, Needs::Ip, Dec, &[(NxmOf, 5, "IP_TOS")]);
    XREG = row("xreg", (64, 8), MW, Nothing, Hex, &[(PktReg, 0, "")]).family(8, 0);
    XXREG = row("xxreg", (128, 16), MW, Nothing, Hex, &[(NxmNx, 111, "XXREG")]).family(4, 0);
}
