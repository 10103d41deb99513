//! Guests on Linux bridges: a packet crosses each type that has one, whoever puts the tap on the bridge, and what somebody
//! breaks between guest and network is mended.

use anyhow::{Context, Result};
use serde_json::{Value, json};
use vifd_integration::lab::{Device, Domain, Emulated, Ovs, Record, Switch, Vifd, shown_links, uplinked};

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

#[test]
fn guests_of_a_flat_network_reach_the_network() -> Result<()> {
    let ([_, ovs], [_, outside]) = uplinked()?;
    outside.run("ip", ["addr", "add", "10.0.0.99/24", "dev", "there"])?;
    let mut vifd = Vifd::beside(&ovs)?;
    vifd.start()?;
    let record = |number| -> Result<Record> {
        Ok(Record::fixture("bridge-flat")?.with_network("should_provide_bridge", true).numbered(number))
    };
    let (one, two) = (record(11)?, record(12)?);
    for record in [&one, &two] {
        vifd.put(record)?;
        vifd.wait_until(&record.id(), "all that vifd makes", |status| {
            status["phase"] == "plugged" || status["phase"] == "ready"
        })?;
    }
    // libvirt attaches the tap itself; another may leave it to vifd.
    let mut domain = Domain::define(one.clone());
    domain.start(&ovs)?;
    let left = Emulated::start(ovs.namespace(), Device::Tap(&two.vif_name()), &two.mac(), &format!("{}/24", two.ip()))?;
    ovs.namespace().run("ip", ["link", "set", &two.vif_name(), "up"])?;
    for record in [&one, &two] {
        vifd.wait_for(&record.id(), "ready")?;
    }
    let guests = [domain.guest()?, &left];
    assert_eq!(guests[0].namespace().ping(&two.ip(), 3)?.received, 3);
    for guest in guests {
        assert_eq!(guest.namespace().ping("10.0.0.99", 3)?.received, 3, "to the network");
    }
    assert_eq!(outside.ping("192.0.2.5", 3)?.received, 3, "the host is still there");
    // Taken off its bridge by hand it is put back.
    ovs.namespace().run("ip", ["link", "set", &two.vif_name(), "nomaster"])?;
    vifd.until("the tap is back on its bridge", |_| {
        let link = ovs.namespace().link(&two.vif_name())?;
        Ok(link.is_some_and(|link| link.master.as_deref() == Some("brq-flat")).then_some(()))
    })?;
    for record in [&one, &two] {
        vifd.remove(record)?;
        vifd.wait_gone(&record.id())?;
    }
    assert_eq!(outside.ping("192.0.2.5", 3)?.received, 3, "and still");
    Ok(())
}

/// os-vif moves the first address of each network and the routes of the main table; vifd all there are.
#[test]
fn an_interface_loses_no_address_and_no_route() -> Result<()> {
    let ([_, ovs], _outside) = uplinked()?;
    for arguments in [
        "addr add 192.0.2.6/24 dev eth1",
        "addr add 198.51.100.7/32 dev eth1",
        "route add 203.0.113.0/24 via 192.0.2.1 dev eth1 proto static metric 7 src 192.0.2.6",
        "route add 203.0.113.0/24 via 192.0.2.1 dev eth1 table 100",
    ] {
        ovs.namespace().run("ip", arguments.split(' '))?;
    }
    let mut vifd = Vifd::beside(&ovs)?;
    vifd.start()?;
    let seen = |link: &str| -> Result<[Value; 2]> {
        let links = shown_links(ovs.namespace(), |_| false)?;
        Ok(["addresses", "routes"].map(|of| links.get(link).map_or(Value::Null, |link| link[of].clone())))
    };
    let before = seen("eth1")?;
    let record = Record::fixture("bridge-flat")?.with_network("should_provide_bridge", true);
    vifd.put(&record)?;
    let mut last = [Value::Null, Value::Null];
    let moved = vifd.until("the bridge has what the interface had", |_| {
        last = seen("brq-flat")?;
        Ok((last == before).then_some(()))
    });
    moved.with_context(|| format!("{last:#?} instead of {before:#?}"))?;
    assert_eq!(seen("eth1")?, [json!([]), json!([])]);
    vifd.remove(&record)?;
    vifd.wait_gone(&record.id())?;
    assert_eq!(seen("eth1")?, before);
    Ok(())
}
