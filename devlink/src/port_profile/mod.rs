//! Port profiles: what a host asks the switch for on behalf of a guest's port, over rtnetlink. 802.1Qbg by way of lldpad, which
//! speaks VDP to the bridge at the other end of the cable; 802.1Qbh by way of the kernel and a NIC that speaks it (Cisco's
//! enic). Their octets are in `codec`; which VIF wants which profile is no matter of this module.
//!
//! A request is taken or refused at once, and what the switch says to it comes later and is asked for with [`state`]: nothing here
//! waits. The requests are those that libvirt sends (`virnetdevvportprofile.c`), and lldpad 1.1 takes; those to the
//! kernel have not been tried on a NIC that takes them.

mod codec;

use std::fmt;
use std::io;
use std::path::Path;

use rtnetlink::packet_core::NLM_F_ACK;
use rtnetlink::packet_route::link::{LinkAttribute, LinkExtentMask, LinkMessage};

use crate::link_request::{LinkError, LinkSocket, Peer, RTM_GETLINK, RTM_SETLINK};

use codec::Place;

/// Where lldpad writes its process id, which is its netlink port too (`lldpad.h`).
pub const LLDPAD_PID_FILE: &str = "/var/run/lldpad.pid";

/// `PORT_PROFILE_MAX` (`linux/if_link.h`), less the final zero.
const PROFILE_NAME_MAX: usize = 39;

/// What a port is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PortProfile {
    /// 802.1Qbg: a VSI type of a VSI manager.
    Qbg {
        /// VSI manager id.
        manager: u8,
        /// VSI type id, 24 bits.
        type_id: u32,
        /// Version of the type.
        type_version: u8,
        /// Which VSI it is: a UUID.
        instance: [u8; 16],
    },
    /// 802.1Qbh: a profile by name.
    Qbh {
        /// 1 to 39 octets.
        profile: String,
        /// Whose port it is: the guest's UUID.
        instance: Option<[u8; 16]>,
        /// On which host: its UUID.
        host: Option<[u8; 16]>,
    },
}

impl PortProfile {
    fn instance(&self) -> Option<[u8; 16]> {
        match self {
            PortProfile::Qbg { instance, .. } => Some(*instance),
            PortProfile::Qbh { instance, .. } => *instance,
        }
    }

    fn check(&self) -> Result<(), PortProfileError> {
        match self {
            PortProfile::Qbg { type_id, .. } if *type_id >= 1 << 24 => Err(PortProfileError::TypeId(*type_id)),
            PortProfile::Qbh { profile, .. }
                if profile.is_empty() || profile.len() > PROFILE_NAME_MAX || profile.contains('\0') =>
            {
                Err(PortProfileError::ProfileName(profile.clone()))
            }
            _ => Ok(()),
        }
    }
}

/// A guest's port at a physical link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StationPort {
    /// The index of the link that has the cable: of a VF, that of its physical function.
    pub index: u32,
    /// The VF whose port it is; `None` for the link itself. lldpad knows no VFs.
    pub vf: Option<u32>,
    /// The guest's MAC address. The kernel is told it for a VF.
    pub mac: [u8; 6],
    /// The guest's VLAN; `None` for none, of which lldpad is told as VLAN 0. The kernel is told it for a VF.
    pub vlan: Option<u16>,
}

/// What is asked of the switch (`PORT_REQUEST_…`, `linux/if_link.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Check that it could be associated.
    PreAssociate,
    /// And reserve what it takes.
    PreAssociateWithReservation,
    /// Let it pass.
    Associate,
    /// No longer.
    Disassociate,
}

impl From<Request> for u8 {
    fn from(request: Request) -> Self {
        match request {
            Request::PreAssociate => 0,
            Request::PreAssociateWithReservation => 1,
            Request::Associate => 2,
            Request::Disassociate => 3,
        }
    }
}

/// What the switch says (`PORT_VDP_RESPONSE_…` and `PORT_PROFILE_RESPONSE_…`, `linux/if_link.h`).
///
/// The VDP numbers are named as in that header, which has them from the draft of 802.1Qbg. Of a bridge that speaks the standard of
/// 2012 lldpad passes on the standard's: 3 the VSI manager is not reached, 4 other reasons, 5 an invalid VLAN, address or group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Response {
    /// VDP: done.
    VdpSuccess,
    /// VDP: the request cannot be read.
    VdpInvalidFormat,
    /// VDP: the bridge has no room for it.
    VdpInsufficientResources,
    /// VDP: the VSI type is not in use.
    VdpUnusedVtid,
    /// VDP: the VSI type is not allowed here.
    VdpVtidViolation,
    /// VDP: this version of the VSI type is not allowed here.
    VdpVtidVersionViolation,
    /// VDP: bridge and host are out of step.
    VdpOutOfSync,
    /// Profile: done.
    ProfileSuccess,
    /// Profile: not done yet.
    ProfileInProgress,
    /// Profile: there is no such profile.
    ProfileInvalid,
    /// Profile: not in this state of the port.
    ProfileBadState,
    /// Profile: the switch has no room for it.
    ProfileInsufficientResources,
    /// Profile: failed.
    ProfileError,
    /// Another number.
    Other(u16),
}

impl Response {
    const ALL: [(u16, Response, &'static str); 13] = [
        (0, Response::VdpSuccess, "success"),
        (1, Response::VdpInvalidFormat, "the request has an invalid format"),
        (2, Response::VdpInsufficientResources, "the bridge has insufficient resources"),
        (3, Response::VdpUnusedVtid, "the VSI type is not in use"),
        (4, Response::VdpVtidViolation, "the VSI type is not allowed here"),
        (5, Response::VdpVtidVersionViolation, "this version of the VSI type is not allowed here"),
        (6, Response::VdpOutOfSync, "bridge and host are out of sync"),
        (0x100, Response::ProfileSuccess, "success"),
        (0x101, Response::ProfileInProgress, "in progress"),
        (0x102, Response::ProfileInvalid, "the profile is invalid"),
        (0x103, Response::ProfileBadState, "the port is in a bad state for it"),
        (0x104, Response::ProfileInsufficientResources, "the switch has insufficient resources"),
        (0x105, Response::ProfileError, "the profile failed"),
    ];

    /// Whether the switch did it.
    pub fn is_success(self) -> bool {
        matches!(self, Response::VdpSuccess | Response::ProfileSuccess)
    }
}

impl From<u16> for Response {
    fn from(number: u16) -> Self {
        Self::ALL.iter().find(|row| row.0 == number).map_or(Response::Other(number), |row| row.1)
    }
}

impl fmt::Display for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Response::Other(number) => write!(f, "response {number:#x}"),
            known => f.write_str(Self::ALL.iter().find(|row| row.1 == *known).map_or("", |row| row.2)),
        }
    }
}

/// How far a port is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Nobody knows of it: never asked for, or disassociated. Of lldpad also: refused, which it tells once, or not answered by the
    /// bridge, which it gives up after some seconds without a word. Of the kernel also: the driver has no ports.
    Absent,
    /// Asked for, and not answered.
    Pending,
    /// Answered. Of a VSI that lldpad gave up because its bridge went away, the last answer is told once more.
    Answered(Response),
}

/// A VSI that the bridge gave up by itself, as lldpad tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Abandoned {
    /// The name of the link.
    pub link: String,
    /// Which VSI.
    pub instance: [u8; 16],
    /// What became of it, a `PORT_REQUEST_…`: 3 is disassociated.
    pub request: u8,
}

/// Why nothing was asked for, or told.
#[derive(Debug, thiserror::Error)]
pub enum PortProfileError {
    /// The request came to nothing.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// More than 24 bits.
    #[error("VSI type {0} has more than 24 bits")]
    TypeId(u32),
    /// Not 1 to 39 octets, or with a zero in it.
    #[error("{0:?} is no name of a port profile: it has 1 to 39 octets, none of them zero")]
    ProfileName(String),
    /// The pid file cannot be read.
    #[error("{file} does not tell where lldpad is")]
    NoLldpad {
        /// The file.
        file: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// lldpad, by what it wrote into its pid file ([`LLDPAD_PID_FILE`]).
///
/// # Errors
/// [`PortProfileError::NoLldpad`]. That the process is gone is found out by asking it ([`LinkError::NobodyThere`]).
pub fn lldpad(pid_file: &Path) -> Result<Peer, PortProfileError> {
    let told = std::fs::read(pid_file).and_then(|content| {
        pid(&content).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "there is no process id in it"))
    });
    let no_lldpad = |source| PortProfileError::NoLldpad { file: pid_file.display().to_string(), source };
    told.map(|port| Peer::Lldpad { port }).map_err(no_lldpad)
}

/// The number at the beginning: lldpad fills the line up to 32 octets with zeros.
fn pid(content: &[u8]) -> Option<u32> {
    let digits: Vec<u8> = content.iter().copied().take_while(u8::is_ascii_digit).collect();
    str::from_utf8(&digits).ok()?.parse().ok().filter(|pid| *pid != 0)
}

/// Asks for a port to be associated with a profile.
///
/// # Errors
/// As of [`request`].
pub async fn associate(
    socket: &mut LinkSocket,
    to: Peer,
    port: &StationPort,
    profile: &PortProfile,
) -> Result<(), PortProfileError> {
    request(socket, to, port, profile, Request::Associate).await
}

/// Asks for a port to be disassociated from its profile.
///
/// # Errors
/// As of [`request`].
pub async fn disassociate(
    socket: &mut LinkSocket,
    to: Peer,
    port: &StationPort,
    profile: &PortProfile,
) -> Result<(), PortProfileError> {
    request(socket, to, port, profile, Request::Disassociate).await
}

/// Asks for something. That it was taken is no answer of the switch: see [`state`].
///
/// # Errors
/// A profile that cannot be said, and [`LinkError`]. A kernel whose driver has no port profiles says `EOPNOTSUPP`; lldpad says `ENXIO`
/// of an interface where VDP is off, or whose bridge has not offered it yet.
pub async fn request(
    socket: &mut LinkSocket,
    to: Peer,
    port: &StationPort,
    profile: &PortProfile,
    request: Request,
) -> Result<(), PortProfileError> {
    profile.check()?;
    let mut message = LinkMessage::default();
    message.header.index = port.index;
    message.attributes = match to {
        // lldpad finds a VSI by all of it, also to let it go.
        Peer::Lldpad { .. } => {
            let vlan = port.vlan.unwrap_or(0);
            codec::write(Place::NoVf, Some(port.mac), Some(vlan), Some(profile), request)
        }
        // enic wants nothing but the request to let a port go.
        Peer::Kernel if request == Request::Disassociate => codec::write(place(to, port), None, None, None, request),
        // The link has its address by itself. Kernels refuse a VF's address for what is no VF (EINVAL), which is what libvirt sends.
        Peer::Kernel => {
            let (mac, vlan) = port.vf.map_or((None, None), |_| (Some(port.mac), port.vlan));
            codec::write(place(to, port), mac, vlan, Some(profile), request)
        }
    };
    socket.ask(to, RTM_SETLINK, NLM_F_ACK, &message).await?;
    Ok(())
}

/// How far a port is.
///
/// # Errors
/// [`LinkError`]. lldpad says `ENODEV` of an interface where it has no VDP.
pub async fn state(
    socket: &mut LinkSocket,
    to: Peer,
    port: &StationPort,
    profile: &PortProfile,
) -> Result<State, PortProfileError> {
    let mut question = LinkMessage::default();
    question.header.index = port.index;
    if to == Peer::Kernel {
        let mask = vec![LinkExtentMask::Vf, LinkExtentMask::SkipStats];
        question.attributes.push(LinkAttribute::ExtMask(mask));
    }
    let answer = socket.ask(to, RTM_GETLINK, 0, &question).await?;
    let answer = answer.ok_or(LinkError::Malformed(to, "a question without an answer"))?;
    Ok(codec::state(answer.attributes(), place(to, port), profile.instance()))
}

/// Waits until lldpad tells that the bridge gave up VSIs that were asked for through this very socket. May be dropped at any time.
///
/// It is told when a bridge says so, and only for a VSI whose [`state`] was asked for since the request: until then lldpad takes it
/// that somebody will ask. Of a bridge that went away, and of lldpad itself being started again, nobody tells: the state is to be
/// asked for now and then.
///
/// # Errors
/// That the socket failed.
pub async fn abandoned(socket: &mut LinkSocket, lldpad: Peer) -> Result<Vec<Abandoned>, PortProfileError> {
    Ok(codec::abandoned(socket.unasked(lldpad).await?.attributes()))
}

fn place(to: Peer, port: &StationPort) -> Place {
    match (to, port.vf) {
        (Peer::Lldpad { .. }, _) => Place::NoVf,
        (Peer::Kernel, Some(vf)) => Place::Vf(vf),
        (Peer::Kernel, None) => Place::Own,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn responses_keep_their_numbers_and_have_words() {
        for (number, response, words) in Response::ALL {
            assert_eq!((Response::from(number), response.to_string().as_str()), (response, words));
        }
        assert_eq!(Response::from(0x42).to_string(), "response 0x42");
        assert!(
            Response::from(0).is_success() && Response::from(0x100).is_success() && !Response::from(0x101).is_success()
        );
    }

    #[test]
    fn a_pid_file_is_read_as_lldpad_writes_it() {
        assert_eq!(pid(b"4321\n\0\0\0\0"), Some(4321));
        for nothing in [&b""[..], b"\n", b"0\n", b"x1", b"99999999999\n"] {
            assert_eq!(pid(nothing), None, "{nothing:?}");
        }
        let error = lldpad(Path::new("/nowhere/lldpad.pid")).unwrap_err();
        assert_eq!(error.to_string(), "/nowhere/lldpad.pid does not tell where lldpad is");
    }

    #[test]
    fn a_profile_that_cannot_be_said_is_refused() {
        let qbg = |type_id| PortProfile::Qbg { manager: 0, type_id, type_version: 0, instance: [0; 16] };
        assert!(qbg(0xff_ffff).check().is_ok());
        assert!(matches!(qbg(0x100_0000).check(), Err(PortProfileError::TypeId(0x100_0000))));
        let qbh = |profile: &str| PortProfile::Qbh { profile: profile.into(), instance: None, host: None };
        assert!(qbh(&"p".repeat(39)).check().is_ok());
        for wrong in ["", "a\0b", &"p".repeat(40)] {
            assert!(matches!(qbh(wrong).check(), Err(PortProfileError::ProfileName(_))), "{wrong:?}");
        }
    }

    #[tokio::test]
    async fn the_loopback_interface_has_no_ports() {
        let mut socket = LinkSocket::open().unwrap();
        let port = StationPort { index: 1, vf: None, mac: [2, 0, 0, 0, 0, 1], vlan: None };
        let profile = PortProfile::Qbh { profile: "gold".into(), instance: None, host: None };
        assert_eq!(state(&mut socket, Peer::Kernel, &port, &profile).await.unwrap(), State::Absent);
    }
}
