//! Promise 2: a thousand VIFs from an empty host take one OVSDB transaction, and an unchanged
//! restart of vifd writes nothing, by its own count and by the database's log.

use std::time::{Duration, Instant};

use anyhow::Result;
use vifd_integration::lab::{LogRecord, Ovs, Record, Switch, Vifd};

const COUNT: u32 = 1000;
const LIMIT: Duration = Duration::from_secs(240);

#[test]
fn a_thousand_vifs_take_one_transaction_and_a_restart_none() -> Result<()> {
    let ovs = Ovs::start(Switch::Userspace)?;
    let mut vifd = Vifd::beside(&ovs)?;
    let one = Record::fixture("openvswitch-netdev")?;
    for number in 1..=COUNT {
        vifd.put(&one.clone().numbered(number))?;
    }
    let empty = ovs.log()?.len();
    let before = Instant::now();
    vifd.start()?;
    vifd.wait_for_all(COUNT as usize, "ready", LIMIT)?;
    println!("{COUNT} VIFs with taps ready after {:?}", before.elapsed());

    let log = ovs.log()?;
    let ports: Vec<usize> =
        log[empty..].iter().map(|record| record.inserted("Port", "name")).filter(|count| *count > 0).collect();
    // The thousand, and the bridge's own port with them or before.
    assert_eq!(ports.iter().sum::<usize>(), COUNT as usize + 1, "{ports:?}");
    let largest = ports.iter().max().copied().unwrap_or_default();
    assert!(largest >= COUNT as usize, "in one transaction: {ports:?}");
    let written = vifd.metric("vifd_writes_total", "")?;
    assert!(written >= f64::from(COUNT), "{written} writes are counted");

    settled(&mut vifd, &ovs)?;
    let links = ovs.namespace().links()?;
    vifd.stop()?;
    let log = ovs.log()?.len();
    vifd.start()?;
    vifd.wait_for_all(COUNT as usize, "ready", LIMIT)?;
    let new: Vec<LogRecord> = ovs.log()?.split_off(log);
    assert!(new.is_empty(), "the restart wrote {new:?}");
    assert_eq!(vifd.metric("vifd_writes_total", "")?, 0.0);
    assert_eq!(ovs.namespace().links()?, links);
    Ok(())
}

/// ovs-vswitchd goes on writing for a while what it found out of new ports.
fn settled(vifd: &mut Vifd, ovs: &Ovs) -> Result<()> {
    let mut last = 0;
    let mut since = Instant::now();
    vifd.until("the database is quiet", |_| {
        let now = ovs.log()?.len();
        if now != last {
            (last, since) = (now, Instant::now());
        }
        Ok((since.elapsed() > Duration::from_secs(2)).then_some(()))
    })
}
