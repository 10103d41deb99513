//! Hundreds of hybrid VIFs at once, onto a host without any, and off it again: a Linux bridge, a veth pair and a port each.

use anyhow::{Context, Result};

use super::bulk::{self, FLOOR, OS_VIF, VIFD};
use super::stage::Stage;
use crate::{Chart, Finding, Role, Unit, host, rounds};

/// Measures.
pub(super) fn measure(stage: &mut Stage) -> Result<Finding> {
    let scale = stage.scale;
    let mut finding = Finding::new(
        "hybrid",
        "Hybrid VIFs in bulk: plug and unplug",
        "A Linux bridge, a veth pair into it and a port of Open vSwitch for each VIF. As with taps: each run on a fresh
         switch; vifd from a directory being renamed into place until the last VIF is ready, and until every row and
         link of all but one is gone; os-vif asked for one after another, in a process that stays. The floor: for
         each VIF one netlink message that makes the bridge, one that makes the pair and three for marks and flags, and
         then one transaction for all; off again by one transaction, and then the links, a hundred per
         request.",
    );
    let mut plug = Chart::new("hybrid-plug", "Plugging hybrid VIFs in bulk", "VIFs", Unit::Seconds);
    let mut unplug = Chart::new("hybrid-unplug", "Unplugging hybrid VIFs in bulk", "VIFs", Unit::Seconds);
    for count in scale.pick(&[100, 250, 1000][..], &[50, 100]) {
        let records = host::hybrid_records(0..*count)?;
        let turns = if *count < 1000 { scale.pick(3, 1) } else { 1 };
        let samples: [Vec<bulk::Sample>; 2] = rounds(turns, |side, _| match side {
            0 => bulk::by_hand(&records),
            _ => bulk::by_vifd(&records),
        })
        .with_context(|| format!("{count} hybrid VIFs"))?;
        // With a thousand it takes an hour and more, of which most is unplugging.
        let peer = if *count <= 250 {
            vec![bulk::by_os_vif(&records).with_context(|| format!("{count} hybrid VIFs by os-vif"))?]
        } else {
            Vec::new()
        };
        let [floor, ours] = samples;
        for (who, role, samples) in [(FLOOR, Role::Floor, floor), (VIFD, Role::Ours, ours), (OS_VIF, Role::Peer, peer)]
        {
            if samples.is_empty() {
                continue;
            }
            let x = f64::from(*count);
            plug.add(who, role, x, samples.iter().map(|sample| sample.plug).collect());
            unplug.add(who, role, x, samples.iter().map(|sample| sample.unplug).collect());
        }
    }
    bulk::aims(&mut finding, &plug, &unplug);
    finding.charts = vec![plug, unplug];
    Ok(finding)
}
