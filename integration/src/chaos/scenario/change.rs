//! Records that change: the MAC, the MTU, the bridge, `iface-id`, one or several at a time.

use super::Scenario;
use crate::chaos::wanted::{MADE, SHARED};
use crate::chaos::{Act, Dice, Form, Guest};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "change",
    acts: |_, wanted, dice| {
        let count = usize::try_from(dice.from_to(1, 5)).unwrap_or(1);
        let chosen = wanted.some(count, dice);
        chosen
            .into_iter()
            .map(|guest| Act::Put { guest: changed(guest.clone(), dice), over_api: dice.percent(40) })
            .collect()
    },
};

fn changed(mut guest: Guest, dice: &mut Dice) -> Guest {
    // Where a tended port is, and under which id, is the hypervisor's to change.
    let most = if guest.form == Form::Tended { 5 } else { 9 };
    match dice.from_to(0, most) {
        0..=2 => guest.mac = guest.mac.wrapping_add(1),
        3..=5 => guest.mtu = if guest.mtu == 1450 { 1400 } else { 1450 },
        6..=7 => {
            let others: Vec<&'static str> =
                [SHARED].into_iter().chain(MADE).filter(|name| *name != guest.bridge).collect();
            guest.bridge = dice.pick(&others);
        }
        8 => guest.interface_id = Some(format!("interface-{:x}", dice.roll())),
        _ => {
            guest.mac = guest.mac.wrapping_add(1);
            guest.mtu = if guest.mtu == 1450 { 1400 } else { 1450 };
        }
    }
    guest
}
