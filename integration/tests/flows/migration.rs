//! A guest that moves from host to host while somebody talks to it.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use vifd_integration::lab::frame::{IPV4, RARP, kind, mac};
use vifd_integration::lab::{Asked, GUEST_DEVICE, Guest, PacketSocket, Rack, Record, native_guest};

use crate::scene::{BRIDGE, Host, places};

const UPLINK: &str = "uplinks = [{ port = \"trunk\" }]";

fn active(active: bool) -> Record {
    native_guest(11, 1).with_network("vlan", 100).with("active", active)
}

/// A host at the rack.
fn host(rack: &Rack) -> Result<Host> {
    let host = Host::with(UPLINK)?;
    rack.join(&host.ovs, "trunk", None)?;
    host.ovs.vsctl(["add-port", BRIDGE, "trunk"])?;
    Ok(host)
}

/// Makes the guest active on one host after it was made inactive on the other. Answers how long nobody could reach it.
fn switch_over(
    (from, left): (&mut Host, &mut Guest),
    (to, arrived): (&mut Host, &mut Guest),
    wire: &PacketSocket,
) -> Result<Duration> {
    wire.heard()?;
    let asked = to.ovs.account()?.len();
    let start = Instant::now();
    // It does not run on both: it is stopped, and goes on elsewhere.
    left.namespace().run("ip", ["link", "set", GUEST_DEVICE, "down"])?;
    arrived.namespace().run("ip", ["link", "set", GUEST_DEVICE, "up"])?;
    from.change(left, active(false))?;
    to.change(arrived, active(true))?;
    let rarp = wire.hear("a reverse ARP request", |frame| kind(frame) == RARP)?;
    // From then on its answers come from there, when the switches between have forgotten where it was.
    let guest = mac(&arrived.record.mac());
    wire.hear("an answer of the guest", |frame| frame[6..12] == guest && kind(frame) == IPV4)?;
    let took = start.elapsed();
    assert_eq!((&rarp[..6], &rarp[6..12], &rarp[22..28]), (&[0xff; 6][..], &guest[..], &guest[..]));

    let asked: Vec<Asked> = to.ovs.account()?.split_off(asked).into_iter().filter(Asked::modifies).collect();
    assert_eq!(asked.iter().filter(|asked| asked.commits()).count(), 1, "activation is one bundle: {asked:?}");
    let last = asked.last().context("nothing was asked")?;
    assert_eq!(last.message, "PACKET_OUT", "the announcement, after it");
    assert_eq!(asked.iter().filter(|asked| !asked.message.starts_with("BUNDLE_")).count(), 1, "{asked:?}");
    Ok(took)
}

#[test]
fn of_a_guest_costs_what_the_switch_over_takes() -> Result<()> {
    let rack = Rack::start()?;
    let (mut a, mut b) = (host(&rack)?, host(&rack)?);
    let outside = rack.machine(100, "22:52:26:00:01:01", "10.0.0.200/24")?;
    let wire = PacketSocket::open(&outside, GUEST_DEVICE)?;
    let [mut here, neighbour] = a.plug([active(true), native_guest(12, 1).with_network("vlan", 100)])?;
    let address = here.record.ip();
    let ping = outside.keep_pinging(&address)?;
    let guest = here.record.mac();
    let place = || rack.place_of(&guest);
    assert!(neighbour.reaches(&here)?);
    let at_home = place()?;

    // The destination is there, and attracts nothing, whatever it says.
    let [mut there] = b.plug([active(false)])?;
    b.ovs.keep_account()?;
    a.ovs.keep_account()?;
    let ear = there.frames()?;
    let own = b.rows()?.into_iter().filter(|row| (row.table, row.priority) == places::INACTIVE).count();
    assert_eq!(own, 1);
    let _ = there.ping(&neighbour, 3)?;
    assert!(neighbour.reaches(&here)?);
    assert_eq!(place()?, at_home);
    assert_eq!(ear.heard()?, Vec::<Vec<u8>>::new());
    let quiet = ping.stop()?;
    assert!(quiet.sent > 10 && quiet.sent - quiet.received <= 1, "{quiet:?}");

    let ping = outside.keep_pinging(&address)?;
    std::thread::sleep(Duration::from_millis(200));
    let mut took = switch_over((&mut a, &mut here), (&mut b, &mut there), &wire)?;
    assert!(neighbour.reaches(&there)?, "by the uplink");
    assert_ne!(place()?, at_home);
    // Back, as after a migration that failed.
    took += switch_over((&mut b, &mut there), (&mut a, &mut here), &wire)?;
    assert!(neighbour.reaches(&here)?);
    assert_eq!(place()?, at_home);
    b.vifd.remove(&there.record)?;
    b.vifd.wait_gone(&there.record.id())?;
    std::thread::sleep(Duration::from_millis(200));
    let ping = ping.stop()?;
    // One request every 20 ms; of each switch-over the first and the last may be half in it.
    let most = took.as_millis() as u32 / 20 + 5;
    println!("{} of {} requests were lost in {took:?} of two switch-overs", ping.sent - ping.received, ping.sent);
    assert!(ping.received > 20 && ping.sent - ping.received <= most, "{ping:?} in {took:?}");
    Ok(())
}
