//! Port numbers of OpenFlow 1.1 and later, and the reserved ones by name.

/// A port number, 32 bits (OpenFlow 1.4.1, 7.2.1.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortNo(pub u32);

impl PortNo {
    /// The number of ports that OVS can address: below are switch ports, from here to [`PortNo::IN_PORT`] none.
    pub const MAX: PortNo = PortNo(0xffff_ff00);
    /// `OFPP_UNSET`: no output in the action set.
    pub const UNSET: PortNo = PortNo(0xffff_fff7);
    /// `OFPP_IN_PORT`: back to where the packet came from.
    pub const IN_PORT: PortNo = PortNo(0xffff_fff8);
    /// `OFPP_TABLE`: the flow tables (of a packet-out).
    pub const TABLE: PortNo = PortNo(0xffff_fff9);
    /// `OFPP_NORMAL`: as a learning switch would.
    pub const NORMAL: PortNo = PortNo(0xffff_fffa);
    /// `OFPP_FLOOD`: all ports but the one it came from, and those that do not flood.
    pub const FLOOD: PortNo = PortNo(0xffff_fffb);
    /// `OFPP_ALL`: all ports but the one it came from.
    pub const ALL: PortNo = PortNo(0xffff_fffc);
    /// `OFPP_CONTROLLER`.
    pub const CONTROLLER: PortNo = PortNo(0xffff_fffd);
    /// `OFPP_LOCAL`: the bridge's own port.
    pub const LOCAL: PortNo = PortNo(0xffff_fffe);
    /// `OFPP_ANY`: no port in particular.
    pub const ANY: PortNo = PortNo(0xffff_ffff);
}
