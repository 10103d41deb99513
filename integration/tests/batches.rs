//! Promise 2: a thousand VIFs from an empty host take one OVSDB transaction, and an unchanged
//! restart of vifd writes nothing, by its own count and by the database's log.

use std::time::{Duration, Instant};

use anyhow::Result;
use vifd_integration::lab::{LogRecord, Ovs, Record, Switch, Usage, Vifd};

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

/// Two hundred hybrid VIFs: a Linux bridge, a veth pair and a port each. Five times over, since what is left behind by one
/// round shows by the fifth.
#[test]
fn hybrid_vifs_take_two_batches_of_links_and_leave_nothing() -> Result<()> {
    const VIFS: u32 = 200;
    let ovs = Ovs::start(Switch::Userspace)?;
    let mut vifd = Vifd::beside(&ovs)?;
    vifd.config.max_removals = "100%".into();
    let one = Record::fixture("bridge-hybrid")?.with_profile("datapath_type", "netdev");
    let records: Vec<Record> = (1..=VIFS).map(|number| one.clone().numbered(number)).collect();
    records.iter().try_for_each(|record| vifd.put(record))?;
    let empty = ovs.log()?.len();
    let start = Instant::now();
    vifd.start()?;
    vifd.wait_for_all(VIFS as usize, "ready", LIMIT)?;
    println!("{VIFS} hybrid VIFs ready after {:?}", start.elapsed());
    let log = ovs.log()?;
    let ports: Vec<usize> =
        log[empty..].iter().map(|record| record.inserted("Port", "name")).filter(|count| *count > 0).collect();
    assert_eq!(ports.iter().sum::<usize>(), VIFS as usize + 1, "{ports:?}");
    assert!(ports.iter().any(|count| *count >= VIFS as usize), "in one transaction: {ports:?}");
    let batches = vifd.metric("vifd_batches_total", "backend=\"links\"")?;
    assert!(batches <= 2.0, "{batches} batches of links");

    settled(&mut vifd, &ovs)?;
    vifd.stop()?;
    let (log, links) = (ovs.log()?.len(), ovs.namespace().links()?);
    assert_eq!(links.len(), 3 * VIFS as usize + own_links(&ovs)?);
    vifd.start()?;
    vifd.wait_for_all(VIFS as usize, "ready", LIMIT)?;
    assert_eq!(ovs.log()?.len(), log, "the restart wrote");
    assert_eq!(vifd.metric("vifd_writes_total", "")?, 0.0);
    assert_eq!(ovs.namespace().links()?, links);

    // Fewer of them: ovs-vswitchd takes its time for every port that goes.
    let some = &records[..VIFS as usize / 4];
    let rest = records.len() - some.len();
    let mut resident = Vec::new();
    for round in 1..=5 {
        let start = Instant::now();
        some.iter().try_for_each(|record| vifd.remove(record))?;
        vifd.until_within(LIMIT, "some are gone", |vifd| Ok((vifd.statuses()?.len() == rest).then_some(())))?;
        println!("round {round}: gone within {:?}", start.elapsed());
        let left: Vec<String> = ovs.namespace().links()?.into_iter().map(|(name, _)| name).collect();
        assert_eq!(left.len(), 3 * rest + own_links(&ovs)?, "round {round}: {left:?}");
        for (table, kept) in [("Port", rest), ("Interface", rest), ("QoS", 0), ("Queue", 0)] {
            let rows = ovs.vsctl(["--bare", "--columns=external_ids", "list", table])?;
            assert_eq!(rows.matches("vifd-vif").count(), kept, "round {round}: {table} {rows}");
        }
        let pid = vifd.daemon().map(|daemon| daemon.pid()).unwrap_or_default();
        resident.push(Usage::of(pid)?.resident);
        if round < 5 {
            let start = Instant::now();
            some.iter().try_for_each(|record| vifd.put(record))?;
            vifd.wait_for_all(VIFS as usize, "ready", LIMIT)?;
            println!("round {round}: ready again within {:?}", start.elapsed());
        }
    }
    // An allocator keeps some of what it was given; what grows with each round is another thing.
    assert!(resident[4] < resident[1] + (4 << 10), "KiB after each round: {resident:?}");
    Ok(())
}

/// Links that ovs-vswitchd makes for itself.
fn own_links(ovs: &Ovs) -> Result<usize> {
    let own = |name: &str| name.starts_with("ovs-") || name.starts_with("br-");
    Ok(ovs.namespace().links()?.iter().filter(|(name, _)| own(name)).count())
}
