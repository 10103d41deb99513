//! The function behind a port of a NIC's switch: its MAC address, whether it is in use, and what it is able to do. Its place on
//! a bus is not known here.

use std::fmt;

/// What a port says of the function behind it (`DEVLINK_ATTR_PORT_FUNCTION`). What the driver or the kernel does not know is
/// `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PortFunction {
    /// The MAC address that the function has by default; all zeros if none was set. `None` also when it has not six octets, as of
    /// InfiniBand.
    pub hw_addr: Option<[u8; 6]>,
    /// Whether it is meant to be in use (sub-functions; since Linux 5.12).
    pub state: Option<FunctionState>,
    /// Whether it is in use.
    pub opstate: Option<FunctionOpState>,
    /// What it is able to do (since Linux 6.2).
    pub caps: Capabilities,
}

/// `enum devlink_port_fn_state`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FunctionState {
    /// No driver can have it.
    Inactive,
    /// Drivers may have it.
    Active,
    /// One that this library does not know.
    Other(u8),
}

/// `enum devlink_port_fn_opstate`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FunctionOpState {
    /// No driver has it: its port may be deleted.
    Detached,
    /// A driver has it, wherever that is. After it was made inactive, it goes on until the driver lets go.
    Attached,
    /// One that this library does not know.
    Other(u8),
}

/// One thing that a function may be able to do (`enum devlink_port_fn_attr_cap`). There is none for trust: that is set on the
/// physical function's link (`IFLA_VF_TRUST`), or by a parameter of the driver's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Capability {
    /// RDMA over Converged Ethernet.
    Roce,
    /// Live migration.
    Migratable,
    /// IPsec, the cryptography (since Linux 6.7).
    IpsecCrypto,
    /// IPsec, whole packets (since Linux 6.7).
    IpsecPacket,
}

impl Capability {
    /// All of them.
    pub const ALL: [Capability; 4] =
        [Capability::Roce, Capability::Migratable, Capability::IpsecCrypto, Capability::IpsecPacket];

    /// Its bit in `DEVLINK_PORT_FN_ATTR_CAPS`.
    #[must_use]
    pub fn bit(self) -> u32 {
        1 << match self {
            Capability::Roce => 0,
            Capability::Migratable => 1,
            Capability::IpsecCrypto => 2,
            Capability::IpsecPacket => 3,
        }
    }
}

/// Capabilities as `struct nla_bitfield32` has them: of which something is said, and what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// Bits of those that are on; only those that are in `selector` too mean anything.
    pub value: u32,
    /// Bits of those of which something is said.
    pub selector: u32,
}

impl Capabilities {
    /// Whether it is on; `None` if nothing is said of it.
    #[must_use]
    pub fn get(self, capability: Capability) -> Option<bool> {
        (self.selector & capability.bit() != 0).then_some(self.value & capability.bit() != 0)
    }

    /// The same with one of them on or off.
    #[must_use]
    pub fn with(self, capability: Capability, on: bool) -> Self {
        let value = if on { self.value | capability.bit() } else { self.value & !capability.bit() };
        Capabilities { value, selector: self.selector | capability.bit() }
    }

    /// RDMA over Converged Ethernet.
    #[must_use]
    pub fn roce(self) -> Option<bool> {
        self.get(Capability::Roce)
    }

    /// Live migration.
    #[must_use]
    pub fn migratable(self) -> Option<bool> {
        self.get(Capability::Migratable)
    }
}

/// What is to be changed of the function behind a port (`DEVLINK_CMD_PORT_SET`); what is `None` or not selected is left as it
/// is. Many drivers take a change of MAC address and of capabilities only while no driver has the function.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FunctionChange {
    /// See [`PortFunction::hw_addr`].
    pub hw_addr: Option<[u8; 6]>,
    /// See [`PortFunction::state`].
    pub state: Option<FunctionState>,
    /// See [`PortFunction::caps`].
    pub caps: Capabilities,
}

/// As devlink(8) has it: `active`.
impl fmt::Display for FunctionState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FunctionState::Inactive => f.write_str("inactive"),
            FunctionState::Active => f.write_str("active"),
            FunctionState::Other(number) => write!(f, "state {number}"),
        }
    }
}

/// As devlink(8) has it: `attached`.
impl fmt::Display for FunctionOpState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FunctionOpState::Detached => f.write_str("detached"),
            FunctionOpState::Attached => f.write_str("attached"),
            FunctionOpState::Other(number) => write!(f, "state {number}"),
        }
    }
}

/// As devlink(8) has it: `ipsec_crypto`.
impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Capability::Roce => "roce",
            Capability::Migratable => "migratable",
            Capability::IpsecCrypto => "ipsec_crypto",
            Capability::IpsecPacket => "ipsec_packet",
        })
    }
}

/// As a sentence has it: `hw_addr 02:00:00:00:00:01, state active`.
impl fmt::Display for FunctionChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        if let Some(address) = self.hw_addr {
            let octets: Vec<String> = address.iter().map(|octet| format!("{octet:02x}")).collect();
            parts.push(format!("hw_addr {}", octets.join(":")));
        }
        if let Some(state) = self.state {
            parts.push(format!("state {state}"));
        }
        for capability in Capability::ALL {
            if let Some(on) = self.caps.get(capability) {
                parts.push(format!("{capability} {}", if on { "on" } else { "off" }));
            }
        }
        f.write_str(if parts.is_empty() { "nothing" } else { "" })?;
        f.write_str(&parts.join(", "))
    }
}
