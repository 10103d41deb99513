//! What the controller wants: the guests, and the records that say so.

use std::collections::BTreeMap;

use anyhow::Result;

use super::dice::Dice;
use crate::lab::{Record, Switch};

/// The bridge that is there before vifd and is somebody else's.
pub(super) const SHARED: &str = "br-int";
/// Bridges that vifd makes when they are wanted.
pub(super) const MADE: [&str; 2] = ["br-one", FLOWS];
/// The one of these whose flows vifd makes, too.
pub(super) const FLOWS: &str = "br-two";

/// What a guest's VIF is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Form {
    /// vifd makes tap and port.
    Tap,
    /// The same with several queues.
    Multiqueue,
    /// vifd makes the port alone. On the dummy switch, which needs no device.
    Port,
    /// The hypervisor makes the port and vifd tends it, as Nova has it by default. On the dummy switch.
    Tended,
    /// A tap that is attached to nothing.
    Generic,
    /// A Linux bridge and a veth pair, one end of which is the port. Its guest is not there.
    Hybrid,
}

impl Form {
    /// Those that can be ready on a switch.
    #[must_use]
    pub fn on(switch: Switch) -> &'static [Form] {
        match switch {
            Switch::Dummy => {
                &[Form::Tap, Form::Tap, Form::Multiqueue, Form::Port, Form::Tended, Form::Generic, Form::Hybrid]
            }
            Switch::Userspace | Switch::Kernel | Switch::Dpdk => {
                &[Form::Tap, Form::Tap, Form::Multiqueue, Form::Generic]
            }
        }
    }

    /// Whether vifd makes a tap.
    #[must_use]
    pub fn has_tap(self) -> bool {
        !matches!(self, Form::Port | Form::Tended | Form::Hybrid)
    }

    /// Whether it is a port of Open vSwitch.
    #[must_use]
    pub fn has_port(self) -> bool {
        self != Form::Generic
    }

    fn fixture(self) -> &'static str {
        match self {
            Form::Tap => "openvswitch-create-tap",
            Form::Multiqueue => "openvswitch-multiqueue",
            Form::Port => "openvswitch-create-port",
            Form::Tended => "openvswitch",
            Form::Generic => "generic",
            Form::Hybrid => "bridge-hybrid",
        }
    }
}

/// A guest's VIF as it is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guest {
    /// Which guest.
    pub number: u32,
    /// What its VIF is.
    pub form: Form,
    /// The bridge of its network.
    pub bridge: &'static str,
    /// Octets.
    pub mtu: u32,
    /// The last octet of its MAC.
    pub mac: u8,
    /// `iface-id`, where it is not the VIF's id.
    pub interface_id: Option<String>,
}

impl Guest {
    /// Whether vifd makes its flows.
    #[must_use]
    pub fn has_flows(&self) -> bool {
        self.form.has_port() && self.bridge == FLOWS
    }

    /// A new guest.
    pub fn draw(number: u32, switch: Switch, dice: &mut Dice) -> Guest {
        Guest {
            number,
            form: dice.pick(Form::on(switch)),
            bridge: if dice.percent(70) { SHARED } else { dice.pick(&MADE) },
            mtu: 1450,
            mac: 0,
            interface_id: None,
        }
    }

    /// The record that asks for it.
    ///
    /// # Errors
    /// When its fixture cannot be read.
    pub fn record(&self, switch: Switch) -> Result<Record> {
        let record = Record::fixture(self.form.fixture())?.numbered(self.number);
        // Octets 3 and 4 have the low bits of the number: 65,536 guests are told apart.
        let [_, _, high, low] = self.number.to_be_bytes();
        let mut record = record
            .with("address", format!("22:52:26:{high:02x}:{low:02x}:{:02x}", self.mac))
            .with_network("bridge", self.bridge)
            .with_network("mtu", self.mtu);
        if let Some(id) = &self.interface_id {
            record = record.with_profile("interface_id", id.as_str());
        }
        if switch == Switch::Userspace {
            record = record.with_profile("datapath_type", "netdev");
        }
        Ok(record)
    }
}

/// Everything that is wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// By number.
    pub guests: BTreeMap<u32, Guest>,
    /// The number of the next new guest. None is used twice.
    pub next: u32,
}

impl Wanted {
    /// Adds so many guests.
    pub fn welcome(&mut self, count: u32, switch: Switch, dice: &mut Dice) {
        for _ in 0..count {
            let guest = Guest::draw(self.next, switch, dice);
            self.next += 1;
            self.guests.insert(guest.number, guest);
        }
    }

    /// Up to `count` guests, different ones.
    #[must_use]
    pub fn some(&self, count: usize, dice: &mut Dice) -> Vec<&Guest> {
        let mut guests = dice.shuffled(self.guests.values());
        guests.truncate(count);
        guests
    }
}
