//! What goes wrong in a round. A fault is a file here and a line in [`ALL`].
//!
//! A fault strikes, lasts, and is lifted; whatever it did to the host is undone by then, except what it has a right
//! to leave (see [`Marks`]). Its parameters are drawn before the round, so that they stand in the schedule.

mod clock;
mod compact;
mod cut;
mod dates;
mod disk_full;
mod kill;
mod overrun;
mod slow;
mod stop;
mod terminate;

use std::fmt::Display;

use anyhow::Result;

use super::dice::Dice;
use super::life::{Clock, Life};
use super::scene::{Daemons, Scene};

/// A fault with its parameters, which its `Display` tells.
pub trait Fault: Display {
    /// Does it.
    ///
    /// # Errors
    /// When it could not be done. The round fails: a fault that does nothing proves nothing.
    fn strike(&mut self, scene: &mut Scene) -> Result<()>;

    /// Ends it.
    ///
    /// # Errors
    /// When it could not be ended.
    fn lift(&mut self, scene: &mut Scene) -> Result<()>;
}

/// What a fault is done to. A round does not have two faults on one target, which could not be undone in any order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    /// One of the processes.
    Process(Daemons),
    /// The connection between vifd and ovsdb-server.
    Wire,
    /// The database's file.
    Database,
    /// The file system of records and state.
    Disk,
    /// vifd's wall clock.
    Clock,
    /// What the kernel tells of links. It stops vifd, too.
    Netlink,
}

/// What a fault has a right to leave behind. The oracle forgives no more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    /// ovs-vswitchd was started again: ports may have other OpenFlow numbers, and vifd asks it once to carry out its
    /// configuration, which is a write.
    pub new_switch: bool,
    /// vifd was started again: its counters begin anew.
    pub new_vifd: bool,
}

/// A kind of fault.
pub struct Kind {
    /// Its name, as on the command line and in the documents.
    pub name: &'static str,
    /// What it is done to.
    pub target: Target,
    /// What it may leave.
    pub marks: Marks,
    /// Whether it can be had in a life.
    pub fits: fn(&Life) -> bool,
    /// Draws the parameters of one.
    pub draw: fn(&mut Dice) -> Box<dyn Fault>,
}

const NONE: Marks = Marks { new_switch: false, new_vifd: false };
const NEW_VIFD: Marks = Marks { new_switch: false, new_vifd: true };
const NEW_SWITCH: Marks = Marks { new_switch: true, new_vifd: false };

const VIFD: Target = Target::Process(Daemons::Vifd);
const SERVER: Target = Target::Process(Daemons::Server);
const SWITCH: Target = Target::Process(Daemons::Switch);

const fn kind(name: &'static str, target: Target, marks: Marks, draw: fn(&mut Dice) -> Box<dyn Fault>) -> Kind {
    Kind { name, target, marks, fits: if marks.new_vifd { vifd_goes } else { any }, draw }
}

/// Every fault.
pub const ALL: &[Kind] = &[
    kind("kill-vifd", VIFD, NEW_VIFD, |dice| kill::draw(Daemons::Vifd, dice)),
    kind("kill-ovsdb-server", SERVER, NONE, |dice| kill::draw(Daemons::Server, dice)),
    kind("kill-ovs-vswitchd", SWITCH, NEW_SWITCH, |dice| kill::draw(Daemons::Switch, dice)),
    kind("stop-vifd", VIFD, NONE, |dice| stop::draw(Daemons::Vifd, dice)),
    kind("stop-ovsdb-server", SERVER, NONE, |dice| stop::draw(Daemons::Server, dice)),
    kind("stop-ovs-vswitchd", SWITCH, NONE, |dice| stop::draw(Daemons::Switch, dice)),
    kind("terminate-vifd", VIFD, NEW_VIFD, |dice| terminate::draw(Daemons::Vifd, dice)),
    kind("terminate-ovsdb-server", SERVER, NONE, |dice| terminate::draw(Daemons::Server, dice)),
    kind("terminate-ovs-vswitchd", SWITCH, NEW_SWITCH, |dice| terminate::draw(Daemons::Switch, dice)),
    kind("cut", Target::Wire, NONE, cut::draw),
    kind("slow", Target::Wire, NONE, slow::draw),
    kind("compact", Target::Database, NONE, compact::draw),
    kind("disk-full", Target::Disk, NONE, disk_full::draw),
    Kind { fits: |life| life.clock == Clock::Faked, ..kind("clock", Target::Clock, NONE, clock::draw) },
    kind("dates", Target::Disk, NONE, dates::draw),
    kind("overrun", Target::Netlink, NONE, overrun::draw),
];

fn any(_: &Life) -> bool {
    true
}

fn vifd_goes(life: &Life) -> bool {
    !life.vifd_stays
}

impl Target {
    /// Whether two faults can be in one round.
    pub(super) fn agrees_with(self, other: Target) -> bool {
        let stops_vifd = |target| matches!(target, Target::Netlink | VIFD);
        self != other && !(stops_vifd(self) && stops_vifd(other))
    }
}
