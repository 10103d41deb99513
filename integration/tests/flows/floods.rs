//! Networks of a thousand and more guests on one bridge. Guests are ports of the dummy datapath here, and what a broadcast
//! becomes is what the switch says that it would do.

use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use vifd_integration::lab::{Config, Ovs, Record, Switch, Vifd, native_guest};

use crate::scene::BRIDGE;

const LONG: Duration = Duration::from_secs(120);
/// What docs/flows.md says about the greatest flood, on a network without uplink, of VIFs with rules.
const MOST: u32 = 1_000;

fn guest(number: u32, policy: Value) -> Record {
    native_guest(number, 1).with_profile("datapath_type", "system").beside("policy", policy)
}

/// Ports that a broadcast of a port leaves by.
fn reached(ovs: &Ovs, from: &Record) -> Result<usize> {
    let row = ovs.row("Interface", &from.vif_name())?.context("no interface")?;
    let flow = format!("in_port={},arp,dl_src={},dl_dst=ff:ff:ff:ff:ff:ff", row["ofport"], from.mac());
    let text = ovs.appctl(["ofproto/trace", BRIDGE, &flow])?;
    let actions = text.lines().find_map(|line| line.strip_prefix("Datapath actions: ")).context("no actions")?;
    Ok(actions.split(',').filter(|action| action.parse::<u32>().is_ok()).count())
}

#[test]
fn reach_everybody_or_say_why_not() -> Result<()> {
    let ovs = Ovs::start(Switch::Dummy)?;
    let mut vifd = Vifd::beside(&ovs)?;
    let more = format!("[[bridge]]\nname = \"{BRIDGE}\"\nflows = \"managed\"\n");
    vifd.config = Config { more, ..Config::default() };
    // A copy for a VIF with rules may go through four tables.
    let rules = json!({"port_security": false, "rules": []});
    for number in 1..=MOST + 2 {
        vifd.put(&guest(number, rules.clone()))?;
    }
    vifd.start()?;
    let all = MOST as usize + 2;
    vifd.until_within(LONG, "all but two are ready", |vifd| {
        let statuses = vifd.statuses()?;
        let phase = |name: &str| statuses.iter().filter(|status| status["phase"] == name).count();
        Ok((statuses.len() == all && phase("ready") == all - 2 && phase("failed") == 2).then_some(()))
    })?;
    for beyond in [MOST + 1, MOST + 2] {
        let status = vifd.status(&guest(beyond, rules.clone()).id())?.context("no status")?;
        let message = status["message"].as_str().unwrap_or_default();
        assert!(message.contains(&format!("broadcasts reach {MOST} of them, and not this one")), "{message}");
    }
    assert_eq!(reached(&ovs, &guest(1, rules.clone()))?, MOST as usize - 1);
    assert_eq!(reached(&ovs, &guest(MOST + 1, rules))?, MOST as usize, "what those beyond send reaches the others");
    Ok(())
}
