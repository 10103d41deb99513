//! What can be asked of NICs. How it is done is `perform.rs`'s business.

use std::fmt;

use devlink::vf::{Vlan, VlanProtocol};
use devlink::{Device, EswitchMode, InlineMode, PciAddress};

use crate::model::{Association, MacAddr, Transition, Undo, VfChange, VifId};

/// One operation.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum NicOp {
    /// Notes down how a function was and what the switch is asked for, in place of what was noted for the same VIF. It is on disk when this is done.
    Remember(Box<Undo>),
    /// Strikes out what was noted for a VIF.
    Forget(VifId),
    /// Asks the switch for what is noted for a VIF. That it is done says that the request was taken, and no more.
    Associate {
        /// The VIF.
        vif: VifId,
        /// What is noted.
        association: Box<Association>,
    },
    /// Has that undone.
    Disassociate {
        /// The VIF.
        vif: VifId,
        /// What is noted.
        association: Box<Association>,
    },
    /// Notes down what has to come back when a NIC has changed its mode.
    RememberTransition(Box<Transition>),
    /// Strikes that out.
    ForgetTransition(Device),
    /// Tells the application which function the VIF has.
    Hint {
        /// The VIF.
        vif: VifId,
        /// Its function.
        function: PciAddress,
    },
    /// Tells it so no more.
    TakeHint(VifId),
    /// Changes how the embedded switch of a NIC works.
    SetEswitch {
        /// Which NIC.
        nic: Device,
        /// What of it.
        setting: EswitchSetting,
    },
    /// Makes or takes away virtual functions. The kernel goes from none to some and from some to none alone.
    SetVfCount {
        /// Which NIC.
        nic: Device,
        /// How many; 0 takes all away.
        count: u32,
    },
    /// Sets what a devlink port tells of its function. What is `None` is left as it is.
    SetFunction {
        /// Which NIC.
        nic: Device,
        /// Index of the port.
        port: u32,
        /// Address; zeros for none.
        hw_addr: Option<MacAddr>,
        /// Whether it is active.
        active: Option<bool>,
    },
    /// Sets what a physical function says of a virtual one, provided that `uplink` has this index and name still.
    SetVf {
        /// Index and name of the physical function's netdev.
        uplink: (u32, String),
        /// Which virtual function.
        vf: u32,
        /// What to change.
        change: VfChange,
    },
    /// Has a netdev hand flows to its NIC, or not, provided that `index` still has this `name`.
    SetTcOffload {
        /// Kernel index.
        index: u32,
        /// Its name, as a guard.
        name: String,
        /// Whether it does.
        on: bool,
    },
    /// Takes a PCI function off its driver, where it is bound to another than `driver`, and has it bound to that.
    Bind {
        /// Which function.
        function: PciAddress,
        /// The driver to be bound to; none leaves it without.
        driver: Option<String>,
        /// `driver_override` from then on; none lets the kernel choose.
        driver_override: Option<String>,
    },
    /// Takes a PCI function off its driver and has it bound again, so that the driver reads its address anew.
    ProbeAgain {
        /// Which function.
        function: PciAddress,
    },
}

/// A setting of an embedded switch.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum EswitchSetting {
    /// Its mode.
    Mode(EswitchMode),
    /// How much of a packet's headers its functions have to tell.
    InlineMode(InlineMode),
    /// Whether it can encapsulate.
    Encap(bool),
}

impl fmt::Display for NicOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NicOp::Remember(undo) => match (&undo.function, &undo.association) {
                (Some(function), None) => write!(f, "note down how {function} is"),
                (None, Some(association)) => write!(f, "note down {association}"),
                (Some(function), Some(association)) => write!(f, "note down how {function} is, and {association}"),
                (None, None) => f.write_str("note down nothing"),
            },
            NicOp::Forget(vif) => write!(f, "strike out the note on VIF {vif}"),
            NicOp::Associate { association, .. } => write!(f, "associate {association}"),
            NicOp::Disassociate { association, .. } => write!(f, "disassociate {association}"),
            NicOp::RememberTransition(of) => write!(f, "note down the functions of {}", of.nic),
            NicOp::ForgetTransition(nic) => write!(f, "strike out the note on the functions of {nic}"),
            NicOp::Hint { vif, function } => write!(f, "tell the application that VIF {vif} has {function}"),
            NicOp::TakeHint(vif) => write!(f, "tell the application no more which function VIF {vif} has"),
            NicOp::SetEswitch { nic, setting } => match setting {
                EswitchSetting::Mode(mode) => write!(f, "set the eswitch of {nic} to {mode} mode"),
                EswitchSetting::InlineMode(mode) => write!(f, "set the eswitch of {nic} to inline mode {mode}"),
                EswitchSetting::Encap(on) => write!(f, "set encapsulation by the eswitch of {nic} {}", on_off(*on)),
            },
            NicOp::SetVfCount { nic, count } => write!(f, "set the number of virtual functions of {nic} to {count}"),
            NicOp::SetFunction { nic, port, hw_addr, active } => {
                write!(f, "change the function of port {nic}/{port}:")?;
                if let Some(hw_addr) = hw_addr {
                    write!(f, " address {hw_addr}")?;
                }
                match active {
                    Some(true) => f.write_str(" active"),
                    Some(false) => f.write_str(" inactive"),
                    None => Ok(()),
                }
            }
            NicOp::SetVf { uplink: (_, uplink), vf, change } => {
                let VfChange { mac, vlan, max_rate, spoof_check, trust } = change;
                write!(f, "change virtual function {vf} of {uplink}:")?;
                if let Some(mac) = mac {
                    write!(f, " address {mac}")?;
                }
                if let Some(Vlan { id, qos, protocol }) = vlan {
                    write!(f, " VLAN {id}")?;
                    if *qos != 0 {
                        write!(f, " priority {qos}")?;
                    }
                    match protocol {
                        VlanProtocol::Dot1q => {}
                        VlanProtocol::Dot1ad => f.write_str(" (802.1ad)")?,
                        VlanProtocol::Other(ethertype) => write!(f, " (tag {ethertype:#06x})")?,
                    }
                }
                if let Some(rate) = max_rate {
                    write!(f, " at most {rate} Mbit/s")?;
                }
                if let Some(on) = spoof_check {
                    write!(f, " spoof check {}", on_off(*on))?;
                }
                if let Some(on) = trust {
                    write!(f, " trust {}", on_off(*on))?;
                }
                Ok(())
            }
            NicOp::SetTcOffload { name, on, .. } => write!(f, "set hw-tc-offload of {name} {}", on_off(*on)),
            NicOp::Bind { function, driver: Some(driver), .. } => write!(f, "bind {function} to driver {driver}"),
            NicOp::Bind { function, driver: None, .. } => write!(f, "take {function} off its driver"),
            NicOp::ProbeAgain { function } => write!(f, "have the driver of {function} look at it again"),
        }
    }
}

fn on_off(on: bool) -> &'static str {
    if on { "on" } else { "off" }
}
