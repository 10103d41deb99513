//! The database is compacted: its log becomes one record, and ovsdb-server is busy meanwhile.

use std::fmt;

use anyhow::Result;

use super::Fault;
use crate::chaos::{Daemons, Dice, Scene};

struct Compact;

pub(super) fn draw(_: &mut Dice) -> Box<dyn Fault> {
    Box::new(Compact)
}

impl Fault for Compact {
    fn strike(&mut self, scene: &mut Scene) -> Result<()> {
        // A server that is away or stands still, for another fault, is asked when that is over.
        if scene.answers(Daemons::Server) {
            scene.ovs.server_appctl(["ovsdb-server/compact"]).map(drop)
        } else {
            Ok(())
        }
    }

    fn lift(&mut self, scene: &mut Scene) -> Result<()> {
        if scene.answers(Daemons::Server) {
            scene.ovs.server_answers()?;
            scene.ovs.server_appctl(["ovsdb-server/compact"])?;
        }
        Ok(())
    }
}

impl fmt::Display for Compact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("database compacted")
    }
}
