//! Guests on Linux bridges: a packet crosses each type that has one, whoever puts the tap on the bridge, and what somebody
//! breaks between guest and network is mended.

use anyhow::Result;
use vifd_integration::lab::{Domain, Ovs, Record, Switch, Vifd};

fn hybrid(number: u32) -> Result<Record> {
    Ok(Record::fixture("bridge-hybrid")?.with_profile("datapath_type", "netdev").numbered(number))
}

#[test]
fn hybrid_guests_reach_each_other_through_open_vswitch() -> Result<()> {
    let ovs = Ovs::start(Switch::Userspace)?;
    let mut vifd = Vifd::beside(&ovs)?;
    vifd.start()?;
    let (one, two) = (hybrid(11)?, hybrid(12)?);
    for record in [&one, &two] {
        vifd.put(record)?;
        vifd.wait_until(&record.id(), "all that vifd makes", |status| {
            status["phase"] == "plugged" || status["phase"] == "ready"
        })?;
    }
    let mut guests = [Domain::define(one.clone()), Domain::define(two.clone())];
    guests.iter_mut().try_for_each(|guest| guest.start(&ovs))?;
    for record in [&one, &two] {
        vifd.wait_for(&record.id(), "ready")?;
    }
    let pings = || guests[0].guest()?.namespace().ping(&two.ip(), 3).map(|ping| ping.received);
    assert_eq!(pings()?, 3);

    // Each part of the way, broken by hand.
    let name = |prefix: &str| format!("{prefix}{}", one.id())[..14].to_owned();
    let (bridge, inner, outer) = (name("qbr"), name("qvb"), name("qvo"));
    let host = ovs.namespace();
    let ip = |arguments: &[&str]| host.run("ip", arguments).map(drop);
    for (harm, arguments) in [
        ("the pair is deleted", &["link", "del", &inner][..]),
        ("the inner end is taken off its bridge", &["link", "set", &inner, "nomaster"]),
        ("the outer end is set down", &["link", "set", &outer, "down"]),
        ("the bridge is set down", &["link", "set", &bridge, "down"]),
    ] {
        let before = vifd.metric("vifd_writes_total", "")?;
        ip(arguments)?;
        vifd.until(&format!("{harm}: mended"), |vifd| {
            Ok((vifd.metric("vifd_writes_total", "")? > before).then_some(()))
        })?;
        vifd.wait_for(&one.id(), "ready")?;
        vifd.until(&format!("{harm}: packets pass again"), |_| Ok((pings()? == 3).then_some(())))?;
    }
    for record in [&one, &two] {
        vifd.remove(record)?;
        vifd.wait_gone(&record.id())?;
    }
    drop(guests);
    let left: Vec<String> = host.links()?.into_iter().map(|(name, _)| name).collect();
    assert!(!left.iter().any(|name| name.starts_with('q') || name.starts_with("tap")), "{left:?}");
    Ok(())
}
