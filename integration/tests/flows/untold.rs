//! A switch that tells nobody when flows are changed: what it is asked counts, and it is said that it does not tell.

use std::io::{Read, Write, copy};
use std::os::unix::net::{UnixListener, UnixStream};
use std::thread;

use anyhow::{Context, Result};

use crate::scene::{BRIDGE, Host};
use vifd_integration::lab::native_guest;

/// `OFPT_MULTIPART_REPLY`, which what a flow monitor tells is as well: with the transaction of nobody's request.
const MULTIPART_REPLY: u8 = 19;

/// Hands on what a switch says, but for what its flow monitors tell by themselves.
fn hand_on(mut switch: UnixStream, mut client: UnixStream) -> std::io::Result<()> {
    loop {
        // Version, type, length and transaction of every message.
        let mut message = vec![0; 8];
        switch.read_exact(&mut message)?;
        let length = usize::from(u16::from_be_bytes([message[2], message[3]]));
        message.resize(length.max(8), 0);
        switch.read_exact(&mut message[8..])?;
        if message[1] != MULTIPART_REPLY || message[4..8] != [0; 4] {
            client.write_all(&message)?;
        }
    }
}

/// Stands between everybody and the switch of the bridge from now on.
fn silence(host: &Host) -> Result<()> {
    let public = host.ovs.run_directory().join(format!("{BRIDGE}.mgmt"));
    let real = public.with_extension("real");
    std::fs::rename(&public, &real)?;
    let listener = UnixListener::bind(&public)?;
    thread::spawn(move || {
        for client in listener.incoming() {
            let Ok((client, switch)) = client.and_then(|client| Ok((client, UnixStream::connect(&real)?))) else {
                return;
            };
            let (Ok(mut from), Ok(mut to)) = (client.try_clone(), switch.try_clone()) else { return };
            thread::spawn(move || {
                // Whichever end goes, the other one is told.
                let _ = copy(&mut from, &mut to);
                let _ = to.shutdown(std::net::Shutdown::Both);
            });
            thread::spawn(move || {
                let told = client.try_clone();
                let _ = hand_on(switch, client);
                told.map(|client| client.shutdown(std::net::Shutdown::Both))
            });
        }
    });
    Ok(())
}

#[test]
fn changes_are_found_by_asking_and_that_they_are_not_told_is_said_once() -> Result<()> {
    const WORDS: &str = "the switch does not tell of all changes of flows";
    let mut host = Host::start()?;
    let [a, b] = host.plug([native_guest(11, 1), native_guest(12, 1)])?;
    let wanted = host.texts()?;
    host.vifd.config.resync = "1s".into();
    host.vifd.stop()?;
    // As long as everything is told there is nothing to say.
    host.vifd.start()?;
    host.by_hand("del-flows", "table=40")?;
    host.until_flows_are("what was told is put back", &wanted)?;
    thread::sleep(std::time::Duration::from_secs(3));
    let said =
        |host: &Host| Ok::<_, anyhow::Error>(std::fs::read_to_string(host.vifd.log_file())?.matches(WORDS).count());
    assert_eq!(said(&host)?, 0);

    host.vifd.stop()?;
    silence(&host).context("standing in between")?;
    host.vifd.start()?;
    host.vifd.wait_for(&a.record.id(), "ready")?;
    for _ in 0..2 {
        host.by_hand("del-flows", "table=40")?;
        host.until_flows_are("what was not told is put back", &wanted)?;
    }
    host.vifd.wait_for(&a.record.id(), "ready")?;
    assert!(a.reaches(&b)?);
    assert_eq!(said(&host)?, 1);
    Ok(())
}
