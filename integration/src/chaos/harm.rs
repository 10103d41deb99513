//! Harm that hands do: an operator's slip, a script that ran on the wrong host.

use anyhow::Result;

use super::wanted::{FLOWS, Form, Guest};
use crate::lab::{Ovs, Record};

/// What is left of the VIF's rows and links.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Damage {
    /// The rows and the link are there; what they say is wrong.
    Contents,
    /// The link has gone, the rows are there.
    Link,
    /// The port has gone, the link is there.
    Port,
}

/// One kind of harm.
#[derive(Debug)]
pub struct Harm {
    /// Said in the schedule.
    pub name: &'static str,
    /// What it leaves.
    pub damage: Damage,
    /// Which guests it can be done to.
    pub fits: fn(&Guest) -> bool,
    does: fn(&Ovs, &Record) -> Result<String>,
}

impl Harm {
    /// Does it. What is not there at the moment, or cannot be reached for a fault, is not harmed.
    pub(super) fn does(&self, ovs: &Ovs, record: &Record) -> Result<()> {
        (self.does)(ovs, record).map(drop)
    }
}

/// Everything that hands do.
pub const HARMS: &[Harm] = &[
    Harm {
        name: "del-port",
        damage: Damage::Port,
        fits: port,
        does: |ovs, vif| vsctl(ovs, &["del-port", &vif.port_name()]),
    },
    Harm {
        name: "port made again by its hypervisor",
        damage: Damage::Port,
        fits: |guest| guest.form == Form::Tended,
        does: |ovs, vif| {
            let name = vif.port_name();
            vsctl(
                ovs,
                &[
                    "--if-exists",
                    "del-port",
                    &name,
                    "--",
                    "add-port",
                    &vif.bridge(),
                    &name,
                    "--",
                    "set",
                    "Interface",
                    &name,
                    &iface_id(vif),
                ],
            )
        },
    },
    Harm {
        name: "iface-id changed",
        damage: Damage::Contents,
        fits: port,
        does: |ovs, vif| vsctl(ovs, &["set", "Interface", &vif.port_name(), "external_ids:iface-id=other"]),
    },
    Harm {
        name: "attached-mac removed",
        damage: Damage::Contents,
        fits: port,
        does: |ovs, vif| vsctl(ovs, &["remove", "Interface", &vif.port_name(), "external_ids", "attached-mac"]),
    },
    Harm {
        name: "mark of the interface removed",
        damage: Damage::Contents,
        fits: port,
        does: |ovs, vif| {
            let keys = ["vifd-owner", "vifd-vif", "vifd-format"];
            vsctl(ovs, &[&["remove", "Interface", &vif.port_name(), "external_ids"], &keys[..]].concat())
        },
    },
    Harm {
        name: "mark of the port removed",
        damage: Damage::Contents,
        fits: port,
        does: |ovs, vif| {
            let keys = ["vifd-owner", "vifd-vif", "vifd-format"];
            vsctl(ovs, &[&["remove", "Port", &vif.port_name(), "external_ids"], &keys[..]].concat())
        },
    },
    Harm {
        name: "QoS cleared",
        damage: Damage::Contents,
        fits: port,
        does: |ovs, vif| vsctl(ovs, &["clear", "Port", &vif.port_name(), "qos"]),
    },
    Harm { name: "tap deleted", damage: Damage::Link, fits: tap, does: |ovs, vif| ip(ovs, &["del", &vif.vif_name()]) },
    Harm {
        name: "tap set down",
        damage: Damage::Contents,
        fits: tap,
        does: |ovs, vif| ip(ovs, &["set", &vif.vif_name(), "down"]),
    },
    Harm {
        name: "MTU changed",
        damage: Damage::Contents,
        fits: tap,
        does: |ovs, vif| ip(ovs, &["set", &vif.vif_name(), "mtu", "1300"]),
    },
    Harm {
        name: "flows of its port deleted",
        damage: Damage::Contents,
        fits: Guest::has_flows,
        does: |ovs, vif| ofctl(ovs, "del-flows", &format!("in_port={}", vif.port_name())),
    },
    Harm {
        name: "flows of its port changed",
        damage: Damage::Contents,
        fits: Guest::has_flows,
        does: |ovs, vif| ofctl(ovs, "mod-flows", &format!("in_port={},actions=drop", vif.port_name())),
    },
    Harm {
        name: "everybody's outputs deleted",
        damage: Damage::Contents,
        fits: Guest::has_flows,
        does: |ovs, _| ofctl(ovs, "del-flows", "table=60"),
    },
    Harm {
        name: "MAC of the tap changed",
        damage: Damage::Contents,
        fits: tap,
        does: |ovs, vif| ip(ovs, &["set", &vif.vif_name(), "address", "02:00:00:00:00:01"]),
    },
    Harm {
        name: "Linux bridge deleted",
        damage: Damage::Contents,
        fits: hybrid,
        does: |ovs, vif| ip(ovs, &["del", &links(vif)[0]]),
    },
    Harm {
        name: "veth pair deleted",
        damage: Damage::Link,
        fits: hybrid,
        does: |ovs, vif| ip(ovs, &["del", &links(vif)[1]]),
    },
    Harm {
        name: "Linux bridge set down",
        damage: Damage::Contents,
        fits: hybrid,
        does: |ovs, vif| ip(ovs, &["set", &links(vif)[0], "down"]),
    },
    Harm {
        name: "veth taken from its bridge",
        damage: Damage::Contents,
        fits: hybrid,
        does: |ovs, vif| ip(ovs, &["set", &links(vif)[1], "nomaster"]),
    },
    Harm {
        name: "veth renamed",
        damage: Damage::Contents,
        fits: hybrid,
        does: |ovs, vif| ip(ovs, &["set", &links(vif)[1], "name", &format!("x{}", &links(vif)[1][3..])]),
    },
    Harm {
        name: "mark of a veth wiped",
        damage: Damage::Contents,
        fits: hybrid,
        does: |ovs, vif| ip(ovs, &["set", &links(vif)[1], "alias", ""]),
    },
];

/// The links of a hybrid VIF.
fn links(vif: &Record) -> [String; 3] {
    vif.hybrid_links().unwrap_or_default()
}

fn hybrid(guest: &Guest) -> bool {
    guest.form == Form::Hybrid
}

/// What a hypervisor does when a guest with a tended port starts.
pub(super) fn start_guest(ovs: &Ovs, vif: &Record) -> Result<()> {
    let name = vif.vif_name();
    vsctl(ovs, &["--may-exist", "add-port", &vif.bridge(), &name, "--", "set", "Interface", &name, &iface_id(vif)])
        .map(drop)
}

fn iface_id(vif: &Record) -> String {
    format!("external_ids:iface-id={}", vif.id())
}

fn port(guest: &Guest) -> bool {
    guest.form.has_port()
}

fn tap(guest: &Guest) -> bool {
    guest.form.has_tap()
}

/// ovs-vsctl that does not wait long: its database may be stopped.
fn vsctl(ovs: &Ovs, args: &[&str]) -> Result<String> {
    ovs.vsctl(["--timeout=1", "--no-wait"].iter().chain(args))
}

/// Where the bridge is spoken to whose flows vifd makes.
pub(super) fn switch_of_flows(ovs: &Ovs) -> String {
    format!("unix:{}", ovs.run_directory().join(format!("{FLOWS}.mgmt")).display())
}

fn ofctl(ovs: &Ovs, command: &str, what: &str) -> Result<String> {
    ovs.ofctl(["--timeout=1", "-O", "OpenFlow14", command, &switch_of_flows(ovs), what])
}

fn ip(ovs: &Ovs, args: &[&str]) -> Result<String> {
    ovs.namespace().run("ip", ["link"].iter().chain(args))
}
