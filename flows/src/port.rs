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

impl PortNo {
    /// The number it had in the 16 bits of OpenFlow 1.0, as many of OVS's own actions still have it. Nothing, for
    /// numbers that OVS cannot address.
    #[must_use]
    pub fn to_u16(self) -> Option<u16> {
        match self.0 {
            0..0xff00 => Some(self.0 as u16),
            0xffff_ff00.. => Some((self.0 & 0xffff) as u16),
            _ => None,
        }
    }

    /// The port with a number of OpenFlow 1.0.
    #[must_use]
    pub fn from_u16(number: u16) -> Self {
        if number < 0xff00 { PortNo(number.into()) } else { PortNo(u32::from(number) | 0xffff_0000) }
    }

    /// Its 16 bits; those of [`PortNo::ANY`] for a number that OVS cannot address, which no switch outputs to.
    pub(crate) fn short(self) -> u16 {
        self.to_u16().unwrap_or(0xffff)
    }
}

impl std::fmt::Display for PortNo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        crate::text::show_port(f, *self, &crate::text::Unnamed)
    }
}
