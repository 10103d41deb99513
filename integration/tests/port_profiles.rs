//! Port profiles: 802.1Qbg by way of a real lldpad, whose peer at the other end of the cable is another one in the role of the
//! bridge, and what a kernel says whose drivers have no port profiles. The VIFs that want them are tested elsewhere.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use devlink::port_profile::{
    Abandoned, PortProfile, PortProfileError, Request, Response, State, StationPort, abandoned, associate,
    disassociate, lldpad, request, state,
};
use devlink::{LinkError, LinkSocket, Peer};
use vifd_integration::lab::{Edge, Lldpad, Namespace, Qbg, until};

/// Two namespaces with a cable between them, and the index of the host's end.
fn cable() -> Result<(Namespace, Namespace, u32)> {
    let (host, bridge) = (Namespace::new()?, Namespace::new()?);
    host.veth("uplink", &bridge, "port", None, None)?;
    let link = host.link("uplink")?.context("uplink is not there")?;
    Ok((host, bridge, u32::try_from(link.index)?))
}

fn port(index: u32, last: u8) -> StationPort {
    StationPort { index, vf: None, mac: [2, 0, 0, 0, 0, last], vlan: Some(100) }
}

fn qbg_of(instance: u8) -> PortProfile {
    PortProfile::Qbg { manager: 1, type_id: 0x0a_0b0c, type_version: 3, instance: [instance; 16] }
}

/// Does `work` in the namespace with a socket of it, on a runtime of its own.
fn ask<T: Send>(
    namespace: &Namespace,
    work: impl AsyncFnOnce(&mut LinkSocket) -> Result<T, PortProfileError> + Send,
) -> Result<Result<T, PortProfileError>> {
    namespace.enter(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let mut socket = LinkSocket::open()?;
            Ok(work(&mut socket).await)
        })
    })
}

fn refused_with(result: Result<(), PortProfileError>, errno: i32) -> Result<()> {
    match result {
        Err(PortProfileError::Link(LinkError::Refused { refusal, .. })) if refusal.errno == errno => Ok(()),
        other => bail!("it was to be refused with {errno}: {other:?}"),
    }
}

const ENXIO: i32 = 6;
const ENODEV: i32 = 19;
const EOPNOTSUPP: i32 = 95;

/// A host and a bridge whose lldpads have agreed on VDP, and the host's.
struct Edges {
    host: Namespace,
    index: u32,
    peer: Peer,
    station: Lldpad,
    bridge: Lldpad,
    _outside: Namespace,
}

impl Edges {
    fn agreed(qbg: Qbg) -> Result<Edges> {
        let (host, outside, index) = cable()?;
        let bridge = Lldpad::start(&outside, "port", Edge::Bridge, qbg)?;
        let station = Lldpad::start(&host, "uplink", Edge::Station, qbg)?;
        let peer = lldpad(&station.pid_file()?)?;
        assert_eq!(peer, Peer::Lldpad { port: station.port() });
        let edges = Edges { host, index, peer, station, bridge, _outside: outside };
        // Each end hears of the other when that one sends its next frame, and the host refuses every request until then.
        if qbg == Qbg::Draft {
            edges.until("the host has VDP", || {
                let tried = edges
                    .ask(async |socket, edges| associate(socket, edges.peer, &port(index, 9), &qbg_of(9)).await)?;
                Ok(tried.is_ok())
            })?;
            return Ok(edges);
        }
        // It gives every VSI up at once until it has heard the host's times as well.
        let mut since = None;
        edges.until("a VSI lasts", || {
            match ask(&edges.host, async |socket| state(socket, edges.peer, &port(index, 9), &qbg_of(9)).await)? {
                Ok(State::Answered(Response::VdpSuccess)) => {
                    return Ok(since.get_or_insert_with(Instant::now).elapsed() > Duration::from_secs(1));
                }
                Ok(State::Pending) => {}
                _ => {
                    let _ = edges
                        .ask(async |socket, edges| associate(socket, edges.peer, &port(index, 9), &qbg_of(9)).await)?;
                }
            }
            since = None;
            Ok(false)
        })?;
        Ok(edges)
    }

    fn ask<T: Send>(
        &self,
        work: impl AsyncFnOnce(&mut LinkSocket, &Edges) -> Result<T, PortProfileError> + Send,
    ) -> Result<Result<T, PortProfileError>> {
        ask(&self.host, async |socket| work(socket, self).await)
    }

    fn state(&self, last: u8) -> Result<State> {
        Ok(self.ask(async |socket, edges| state(socket, edges.peer, &port(edges.index, last), &qbg_of(last)).await)??)
    }

    fn until(&self, what: &str, mut check: impl FnMut() -> Result<bool>) -> Result<()> {
        until(what, Duration::from_secs(40), || Ok(check()?.then_some(())))
            .with_context(|| format!("station:\n{}\nbridge:\n{}", self.station.log(), self.bridge.log()))
    }

    fn associate(&self, last: u8) -> Result<()> {
        Ok(self.ask(async |socket, edges| {
            associate(socket, edges.peer, &port(edges.index, last), &qbg_of(last)).await
        })??)
    }

    /// Every state of a VSI in turn until this one.
    fn states_until(&self, last: u8, end: State) -> Result<Vec<State>> {
        let mut seen = Vec::new();
        let waited = self.until(&format!("VSI {last} is {end:?}"), || {
            seen.push(self.state(last)?);
            seen.dedup();
            Ok(seen.last() == Some(&end))
        });
        waited.with_context(|| format!("VSI {last} was {seen:?}"))?;
        Ok(seen)
    }
}

#[test]
fn a_vsi_is_associated_by_lldpad_and_its_bridge_and_let_go() -> Result<()> {
    let edges = Edges::agreed(Qbg::Standard)?;
    let success = State::Answered(Response::VdpSuccess);
    for last in [1, 2] {
        assert_eq!(edges.state(last)?, State::Absent);
        edges.associate(last)?;
        println!("VSI {last}: {:?}", edges.states_until(last, success)?);
    }
    // One is let go, the other stays.
    edges.ask(async |socket, edges| disassociate(socket, edges.peer, &port(edges.index, 1), &qbg_of(1)).await)??;
    println!("let go: {:?}", edges.states_until(1, State::Absent)?);
    assert_eq!(edges.state(2)?, success);
    Ok(())
}

#[test]
fn a_vsi_whose_bridge_does_not_answer_is_pending_and_then_forgotten() -> Result<()> {
    let edges = Edges::agreed(Qbg::Draft)?;
    edges.associate(1)?;
    assert_eq!(edges.states_until(1, State::Absent)?, [State::Pending, State::Absent]);
    Ok(())
}

#[test]
fn lldpad_refuses_where_it_has_no_vdp() -> Result<()> {
    let (host, _outside, index) = cable()?;
    let station = Lldpad::start(&host, "elsewhere", Edge::Station, Qbg::Draft)?;
    let peer = Peer::Lldpad { port: station.port() };
    until("lldpad is there", Duration::from_secs(20), || {
        let told = ask(&host, async |socket| state(socket, peer, &port(index, 1), &qbg_of(1)).await)?;
        match told {
            Err(PortProfileError::Link(LinkError::NobodyThere(_))) => Ok(None),
            Err(PortProfileError::Link(LinkError::Refused { refusal, .. })) if refusal.errno == ENODEV => Ok(Some(())),
            other => bail!("lldpad said {other:?}"),
        }
    })?;
    refused_with(ask(&host, async |socket| associate(socket, peer, &port(index, 1), &qbg_of(1)).await)?, ENXIO)
}

#[test]
fn a_vsi_that_its_bridge_gives_up_is_told_to_who_asked_for_it() -> Result<()> {
    let edges = Edges::agreed(Qbg::Standard)?;
    let told = edges.host.enter(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let (mut socket, mut another) = (LinkSocket::open()?, LinkSocket::open()?);
            let (port, profile) = (port(edges.index, 1), qbg_of(1));
            associate(&mut socket, edges.peer, &port, &profile).await?;
            let success = async {
                while state(&mut socket, edges.peer, &port, &profile).await? != State::Answered(Response::VdpSuccess) {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                anyhow::Ok(())
            };
            tokio::time::timeout(Duration::from_secs(40), success).await.context("the bridge does not answer")??;
            // What another program sends is not lldpad's.
            let us = Peer::Lldpad { port: socket.port() };
            let other = qbg_of(2);
            tokio::select! {
                told = abandoned(&mut socket, edges.peer) => bail!("it was another's: {told:?}"),
                _ = disassociate(&mut another, us, &port, &other) => bail!("it was answered"),
                () = tokio::time::sleep(Duration::from_millis(100)) => {}
            }
            // A host that is not heard of for some seconds has no VSIs any more.
            edges.station.pause(Duration::from_secs(8))?;
            let told = tokio::time::timeout(Duration::from_secs(40), abandoned(&mut socket, edges.peer)).await;
            Ok(told.context("lldpad says nothing")??)
        })
    });
    let told = told.with_context(|| format!("station:\n{}\nbridge:\n{}", edges.station.log(), edges.bridge.log()))?;
    assert_eq!(told, [Abandoned { link: "uplink".into(), instance: [1; 16], request: 3 }]);
    assert_eq!(edges.state(1)?, State::Absent);
    Ok(())
}

#[test]
fn nobody_at_lldpads_port_is_told() -> Result<()> {
    let (host, _outside, index) = cable()?;
    // No process has such an id, and the kernel gives no socket such a port by itself.
    let nobody = Peer::Lldpad { port: 0x7fff_fffe };
    match ask(&host, async |socket| associate(socket, nobody, &port(index, 1), &qbg_of(1)).await)? {
        Err(PortProfileError::Link(LinkError::NobodyThere(at))) if at == nobody => Ok(()),
        other => bail!("nobody said {other:?}"),
    }
}

#[test]
fn a_kernel_without_port_profiles_says_so() -> Result<()> {
    let (host, _outside, index) = cable()?;
    let profile = PortProfile::Qbh { profile: "gold".into(), instance: Some([1; 16]), host: Some([2; 16]) };
    for vf in [None, Some(0)] {
        let port = StationPort { vf, vlan: None, ..port(index, 1) };
        for to_do in [Request::PreAssociateWithReservation, Request::Associate, Request::Disassociate] {
            let asked = ask(&host, async |socket| request(socket, Peer::Kernel, &port, &profile, to_do).await)?;
            refused_with(asked, EOPNOTSUPP)?;
        }
        let seen = ask(&host, async |socket| state(socket, Peer::Kernel, &port, &profile).await)??;
        assert_eq!(seen, State::Absent);
    }
    Ok(())
}
