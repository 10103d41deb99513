//! The measurements, a file each. To join: a file with a function from a [`Stage`] to a [`Finding`], and a line here.

mod bulk;
mod codec;
mod devlink_ports;
mod drift;
mod flow_tables;
mod framing;
mod hybrid;
mod idle;
mod lookup;
mod plan;
mod plug;
mod representors;
mod restart;
mod snapshot;
pub mod stage;
mod start;

use anyhow::Result;

use self::stage::Stage;
use crate::{Finding, Scale};

/// A measurement.
pub struct Measurement {
    /// Its name, as `ONLY=` takes it.
    pub name: &'static str,
    /// What it measures, a line.
    pub about: &'static str,
    /// Does it.
    pub run: fn(&mut Stage) -> Result<Finding>,
}

/// Every measurement, in the order of `make bench`: those that share hosts come last, so that no other is measured
/// beside an Open vSwitch that has nothing to do with it.
pub const ALL: &[Measurement] = &[
    Measurement { name: "plan", about: "planning a host on which nothing changed", run: plan::measure },
    Measurement { name: "framing", about: "cutting a stream of JSON into messages", run: framing::measure },
    Measurement { name: "codec", about: "a flow into octets and out of them", run: codec::measure },
    Measurement {
        name: "flows",
        about: "10,000 and 100,000 flows: by bundle, and compared",
        run: flow_tables::measure,
    },
    Measurement { name: "restart", about: "flows back after ovs-vswitchd started anew", run: restart::measure },
    Measurement { name: "snapshot", about: "15 MB of database into the replica", run: snapshot::measure },
    Measurement { name: "bulk", about: "250 to 4,000 VIFs at once: plug and unplug", run: bulk::measure },
    Measurement { name: "hybrid", about: "100 to 1,000 hybrid VIFs at once: plug and unplug", run: hybrid::measure },
    Measurement { name: "representors", about: "representors into hardware, in the VM", run: representors::measure },
    Measurement { name: "devlink", about: "a dump of up to 1,000 ports, in the VM", run: devlink_ports::measure },
    Measurement { name: "lookup", about: "which netdev represents a function, by sysfs", run: lookup::measure },
    Measurement { name: "plug", about: "one VIF more, with 0 to 4,000 present", run: plug::measure },
    Measurement { name: "drift", about: "what somebody else changed until it is right again", run: drift::measure },
    Measurement { name: "start", about: "vifd started on a host that has its VIFs", run: start::measure },
    Measurement { name: "idle", about: "processor and memory while nothing has to be done", run: idle::measure },
];

/// What a measurement runs of itself elsewhere ([`crate::elsewhere`]): its name and what it does there.
pub type Part = (&'static str, fn(Scale) -> Result<Finding>);

/// Every one of them.
pub const PARTS: &[Part] =
    &[("representors", representors::part), ("devlink", devlink_ports::part), ("lookup", lookup::part)];
