//! More notifications of links than fit into the socket, while vifd stands still: some are lost.

use std::fmt;

use anyhow::{Result, bail};
use nix::sys::signal::Signal;

use super::Fault;
use crate::chaos::{Daemons, Dice, Scene};

/// vifd asks for 16 MiB, the kernel takes twice that (socket(7), `SO_RCVBUF`), and one of these fills some 16 KiB.
const NOTIFICATIONS: usize = 3_000;

struct Overrun {
    lost_before: u64,
}

pub(super) fn draw(_: &mut Dice) -> Box<dyn Fault> {
    Box::new(Overrun { lost_before: 0 })
}

impl Fault for Overrun {
    fn strike(&mut self, scene: &mut Scene) -> Result<()> {
        self.lost_before = scene.lost_notifications()?;
        scene.signal(Daemons::Vifd, Signal::SIGSTOP)?;
        // ovs-vswitchd would list routes and addresses for each of them, and the flood would take seconds.
        let switch_too = scene.answers(Daemons::Switch);
        if switch_too {
            scene.signal(Daemons::Switch, Signal::SIGSTOP)?;
        }
        scene.flood(NOTIFICATIONS)?;
        if switch_too {
            scene.signal(Daemons::Switch, Signal::SIGCONT)?;
        }
        Ok(())
    }

    fn lift(&mut self, scene: &mut Scene) -> Result<()> {
        let lost = scene.lost_notifications()?;
        scene.signal(Daemons::Vifd, Signal::SIGCONT)?;
        if lost == self.lost_before {
            bail!("{NOTIFICATIONS} notifications overran nobody's socket");
        }
        Ok(())
    }
}

impl fmt::Display for Overrun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("netlink overrun")
    }
}
