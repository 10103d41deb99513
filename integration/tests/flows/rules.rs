//! Rules, and the connections that they let pass: over restarts of vifd, and not beyond their revocation.

use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};
use vifd_integration::lab::{Guest, Stream, native_guest};

use crate::scene::Host;

const WEB: u16 = 8080;
const LONG: Duration = Duration::from_secs(15);

fn web(rules: &[Value]) -> Value {
    json!({"rules": rules})
}

fn connect(from: &Guest, to: &Guest) -> Result<Stream> {
    Stream::begin(from.namespace(), to.namespace(), (to.record.ip().parse::<std::net::IpAddr>()?, WEB).into())
}

#[test]
fn let_connections_pass_until_they_are_revoked() -> Result<()> {
    let mut host = Host::start()?;
    let from_clients = json!({"direction": "ingress", "protocol": "tcp", "port_min": WEB, "remote_group": "clients"});
    let ping = json!({"direction": "ingress", "protocol": "icmp", "remote_ip_prefix": "10.0.0.13/32"});
    let records = [
        native_guest(11, 1).beside("policy", web(&[from_clients.clone(), ping.clone()])),
        native_guest(12, 1).beside("policy", json!({"groups": ["clients"]})),
        native_guest(13, 1),
    ];
    let [mut server, client, mut other] = host.plug(records)?;
    assert!(other.reaches(&server)?, "a rule for its prefix");
    assert!(client.hears_nothing_of(&server.record.ip())?, "no rule for its prefix");
    assert!(server.hears_nothing_of(&other.record.ip())?, "no rule lets it begin anything");
    assert!(connect(&other, &server).is_err(), "not in the group");

    // A connection goes on while vifd is away, and is the same one when it is back.
    let stream = connect(&client, &server)?;
    let before = host.texts()?;
    host.vifd.stop()?;
    assert!(stream.goes_on(1 << 20, LONG));
    host.vifd.start()?;
    for guest in [&server, &client, &other] {
        host.vifd.wait_for(&guest.record.id(), "ready")?;
    }
    assert!(stream.goes_on(1 << 20, LONG));
    assert_eq!(host.texts()?, before);

    // It ends when its rule does, and not with the rule of another; and goes on where it was when the rule is back.
    let record = server.record.clone();
    host.change(&mut server, record.clone().beside("policy", web(&[from_clients])))?;
    assert!(stream.goes_on(1 << 20, LONG));
    assert!(other.hears_nothing_of(&server.record.ip())?);
    host.change(&mut server, record.clone().beside("policy", web(&[ping])))?;
    assert!(!stream.goes_on(1, Duration::from_secs(1)), "the rule of an established connection was revoked");
    host.change(&mut server, record)?;
    assert!(stream.goes_on(1 << 18, LONG), "the rule is back");
    let streamed = stream.end()?;
    assert_eq!(streamed.sent, streamed.received, "{streamed:?}");

    // Who joins a group is one of it.
    let record = other.record.clone().beside("policy", json!({"groups": ["clients"]}));
    host.change(&mut other, record)?;
    let streamed = connect(&other, &server)?.end()?;
    assert_eq!(streamed.sent, streamed.received, "{streamed:?}");
    Ok(())
}

/// There is one zone, and it passes from one guest to another.
#[test]
fn a_guest_inherits_no_connections() -> Result<()> {
    let mut host = Host::with("[openflow]\nzones = \"40000-40000\"")?;
    let begins = web(&[json!({"direction": "egress"})]);
    let [first, peer] = host.plug([native_guest(11, 1).beside("policy", begins), native_guest(13, 1)])?;
    assert!(first.reaches(&peer)?);
    let tracked = |host: &Host| host.ovs.appctl(["dpctl/dump-conntrack", "zone=40000"]);
    assert!(tracked(&host)?.contains(&first.record.ip()), "{}", tracked(&host)?);

    // vifd comes and goes, and they stay.
    host.vifd.stop()?;
    host.vifd.start()?;
    host.vifd.wait_for(&first.record.id(), "ready")?;
    assert!(tracked(&host)?.contains(&first.record.ip()));

    host.vifd.remove(&first.record)?;
    host.vifd.wait_gone(&first.record.id())?;
    let [_second] = host.plug([native_guest(12, 1).beside("policy", web(&[]))])?;
    assert!(!tracked(&host)?.contains(&first.record.ip()), "{}", tracked(&host)?);
    Ok(())
}
