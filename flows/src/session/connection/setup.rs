//! The beginning of a connection: the versions of both hellos, what the switch is to send by itself, what it is.

use bytes::Bytes;

use super::pending::Pending;
use super::{Connection, unexpected};
use crate::Header;
use crate::message::{AsyncMask, Features, Hello, Kind, Message, SwitchConfig, SwitchError};
use crate::session::{SessionError, SessionState};

/// Octets of a packet that a packet-in would carry: Open vSwitch's default. None are asked for.
const MISS_SEND_LEN: u16 = 128;

impl Connection<'_> {
    pub(super) fn greet(&mut self, header: Header, body: &Bytes) -> Result<(), SessionError> {
        match Kind(header.kind) {
            Kind::HELLO => {}
            Kind::ERROR => return Err(SessionError::HelloRefused(SwitchError::decode(body)?)),
            _ => return Err(unexpected(header, "a hello")),
        }
        let hello = Hello::decode(body);
        if !hello.agrees(header.version) {
            return Err(SessionError::Version { offered: offered(hello, header.version) });
        }
        self.greeted = true;
        if self.session.config.events.is_empty() {
            self.request(&Message::FeaturesRequest, Pending::Features);
        } else {
            self.request(&Message::GetConfigRequest, Pending::Config);
        }
        Ok(())
    }

    /// Takes an answer to a request of the setup.
    pub(super) fn set_up(&mut self, pending: &Pending, header: Header, body: &Bytes) -> Result<(), SessionError> {
        match pending {
            Pending::Features => self.features(Features::decode(expect(header, Kind::FEATURES_REPLY, body)?)?),
            Pending::Config => {
                let config = SwitchConfig::decode(expect(header, Kind::GET_CONFIG_REPLY, body)?)?;
                self.ask_for_events(config);
            }
            // The others have no answer.
            _ => {}
        }
        Ok(())
    }

    /// Chooses which messages the switch sends by itself. How it treats fragments, which is in the same message, stays as it
    /// is.
    fn ask_for_events(&mut self, config: SwitchConfig) {
        let config = SwitchConfig { miss_send_len: MISS_SEND_LEN, ..config };
        self.request(&Message::SetConfig(config), Pending::Setup("a configuration"));
        // What is not said stays as it is without: the first three are sent.
        let kinds = [AsyncMask::PACKET_IN, AsyncMask::PORT_STATUS, AsyncMask::FLOW_REMOVED, AsyncMask::REQUESTFORWARD];
        let events = &self.session.config.events;
        let asked = |kind| events.iter().find(|mask| mask.kind == kind).map_or(0, |mask| mask.reasons);
        let masks = kinds.map(|kind| AsyncMask { kind, reasons: asked(kind) }).to_vec();
        self.request(&Message::SetAsync(masks), Pending::Setup("a choice of events"));
        self.request(&Message::FeaturesRequest, Pending::Features);
    }

    fn features(&mut self, features: Features) {
        // What was refused was refused before.
        self.requests.forget_setup();
        self.ready = true;
        let target = self.session.config.switch.target();
        let datapath_id = format_args!("{:016x}", features.datapath_id);
        tracing::info!(target, %datapath_id, "the session with the switch is ready");
        self.session.state.send_replace(SessionState::Ready(features));
    }
}

/// What is behind the header, if it is of the type that is due.
fn expect(header: Header, kind: Kind, body: &Bytes) -> Result<&Bytes, SessionError> {
    if header.kind == kind.0 { Ok(body) } else { Err(unexpected(header, "an answer to the setup")) }
}

/// The versions that a switch offers, in words.
fn offered(hello: Hello, version: u8) -> String {
    let name = |version: u32| match version {
        1..=31 => format!("1.{}", version - 1),
        _ => format!("version {version}"),
    };
    match hello.versions {
        None => format!("{} at most", name(version.into())),
        Some(versions) => {
            let versions: Vec<String> = (1..32).filter(|bit| versions & 1 << bit != 0).map(name).collect();
            if versions.is_empty() { "none".to_owned() } else { versions.join(", ") }
        }
    }
}
