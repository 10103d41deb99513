//! Table 20, where everything that a guest may send is counted and metered, and the meters. Towards a guest the meter
//! stands at its output (see `output`), which copies for several pass by.

use flows::{Band, BandKind, Instructions, Meter, MeterFlags};

use super::facts::{MeterIds, PortFacts};
use super::pen::{Pen, any, from};
use super::tables::{EGRESS_TRACK, FROM_VIF, LOOKUP, Place, SENT};
use crate::model::Rate;

/// The smallest burst, in kbit: two of the largest packets that a guest's driver hands over in one piece (64 KiB). With
/// less none of them would ever pass.
const LEAST_BURST: u32 = 2 * 64 * 1024 * 8 / 1000;

/// The meters of a VIF: kbit/s with a burst of a tenth of a second, and never less than the largest packets need. There
/// is none for a rate without limit, nor for a direction without an id.
#[must_use]
pub fn meters(rate: &Rate, ids: MeterIds) -> Vec<Meter> {
    let each = [(ids.from_vif, rate.egress_kbps), (ids.to_vif, rate.ingress_kbps)];
    each.into_iter().filter_map(|(id, kbps)| meter(id?, kbps)).collect()
}

fn meter(id: u32, kbps: u64) -> Option<Meter> {
    if kbps == 0 {
        return None;
    }
    let rate = u32::try_from(kbps).unwrap_or(u32::MAX);
    let band = Band { rate, burst: (rate / 10).max(LEAST_BURST), kind: BandKind::Drop };
    let flags = MeterFlags(MeterFlags::KBPS.0 | MeterFlags::BURST.0 | MeterFlags::STATS.0);
    Some(Meter { id, flags, bands: [band].into() })
}

pub(super) fn vif(pen: &mut Pen, port: &PortFacts) {
    let next = if port.rules.is_some() { EGRESS_TRACK } else { LOOKUP };
    let meter = port.meters.from_vif;
    pen.write(SENT, from(port.at.id()), Instructions { meter, goto_table: Some(next), ..Instructions::default() });
}

pub(super) fn bridge(pen: &mut Pen) {
    pen.drop(Place::miss(FROM_VIF), any());
}
