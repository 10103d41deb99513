//! Health reporters (`devlink health`): what a driver watches of its device, and how often it had to step in.

use std::fmt;

use crate::device::Device;
use crate::wire::numbers::attr;
use crate::wire::{Attributes, Malformed, Writer};

/// A health reporter (`DEVLINK_CMD_HEALTH_REPORTER_GET`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reporter {
    /// Whose it is.
    pub device: Device,
    /// The port that it watches, if it is not for the whole device.
    pub port: Option<u32>,
    /// Its name, such as `fw_fatal` or `tx`.
    pub name: String,
    /// How things are.
    pub state: ReporterState,
    /// Errors since it is there.
    pub errors: u64,
    /// How often it put things right.
    pub recoveries: u64,
    /// Whether it does so by itself; `None` if it never can.
    pub auto_recover: Option<bool>,
    /// How long it waits after one time before it does so by itself again, in milliseconds.
    pub graceful_period: Option<u64>,
}

/// `enum devlink_health_reporter_state`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ReporterState {
    /// Nothing is wrong.
    Healthy,
    /// Something is, and was not put right.
    Error,
    /// One that this library does not know.
    Other(u8),
}

/// As devlink(8) has it: `healthy`.
impl fmt::Display for ReporterState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReporterState::Healthy => f.write_str("healthy"),
            ReporterState::Error => f.write_str("error"),
            ReporterState::Other(number) => write!(f, "state {number}"),
        }
    }
}

impl ReporterState {
    fn from_number(number: u8) -> Self {
        match number {
            0 => ReporterState::Healthy,
            1 => ReporterState::Error,
            other => ReporterState::Other(other),
        }
    }

    fn number(self) -> u8 {
        match self {
            ReporterState::Healthy => 0,
            ReporterState::Error => 1,
            ReporterState::Other(other) => other,
        }
    }
}

impl Reporter {
    pub(crate) fn decode(attributes: Attributes<'_>) -> Result<Self, Malformed> {
        let device = Device::decode(attributes)?;
        let port = attributes.find_kind(attr::PORT_INDEX)?.map(|port| port.u32()).transpose()?;
        let (mut name, mut state) = (None, None);
        let (mut errors, mut recoveries, mut auto_recover, mut graceful_period) = (0, 0, None, None);
        for attribute in attributes.need(attr::HEALTH_REPORTER)?.nested() {
            let attribute = attribute?;
            match attribute.kind {
                attr::HEALTH_REPORTER_NAME => name = Some(attribute.text()),
                attr::HEALTH_REPORTER_STATE => state = Some(ReporterState::from_number(attribute.u8()?)),
                attr::HEALTH_REPORTER_ERR_COUNT => errors = attribute.u64()?,
                attr::HEALTH_REPORTER_RECOVER_COUNT => recoveries = attribute.u64()?,
                attr::HEALTH_REPORTER_AUTO_RECOVER => auto_recover = Some(attribute.bool()?),
                attr::HEALTH_REPORTER_GRACEFUL_PERIOD => graceful_period = Some(attribute.u64()?),
                _ => {}
            }
        }
        let name = name.ok_or(Malformed::Missing { kind: attr::HEALTH_REPORTER_NAME })?;
        let state = state.ok_or(Malformed::Missing { kind: attr::HEALTH_REPORTER_STATE })?;
        Ok(Reporter { device, port, name, state, errors, recoveries, auto_recover, graceful_period })
    }

    pub(crate) fn encode(&self, writer: &mut Writer) {
        self.device.encode(writer);
        if let Some(port) = self.port {
            writer.u32(attr::PORT_INDEX, port);
        }
        writer.nested(attr::HEALTH_REPORTER, |writer| {
            writer.text(attr::HEALTH_REPORTER_NAME, &self.name);
            writer.u8(attr::HEALTH_REPORTER_STATE, self.state.number());
            writer.u64(attr::HEALTH_REPORTER_ERR_COUNT, self.errors);
            writer.u64(attr::HEALTH_REPORTER_RECOVER_COUNT, self.recoveries);
            if let Some(auto_recover) = self.auto_recover {
                writer.u8(attr::HEALTH_REPORTER_AUTO_RECOVER, u8::from(auto_recover));
            }
            if let Some(graceful_period) = self.graceful_period {
                writer.u64(attr::HEALTH_REPORTER_GRACEFUL_PERIOD, graceful_period);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// netdevsim's, as Linux 6.1 writes it: the nest has no flag that says so.
    #[test]
    fn a_reporter_that_has_put_something_right() {
        #[rustfmt::skip]
        let octets = [
            &[6, 0, 1, 0, b'b', 0, 0, 0][..], // DEVLINK_ATTR_BUS_NAME
            &[6, 0, 2, 0, b'd', 0, 0, 0], // DEVLINK_ATTR_DEV_NAME
            &[100, 0, 114, 0], // DEVLINK_ATTR_HEALTH_REPORTER
            &[10, 0, 115, 0], b"dummy\0", &[0; 2], // DEVLINK_ATTR_HEALTH_REPORTER_NAME; padding
            &[5, 0, 116, 0, 0, 0, 0, 0], // DEVLINK_ATTR_HEALTH_REPORTER_STATE: healthy; padding
            &[12, 0, 117, 0, 2, 0, 0, 0, 0, 0, 0, 0], // DEVLINK_ATTR_HEALTH_REPORTER_ERR_COUNT
            &[12, 0, 118, 0, 1, 0, 0, 0, 0, 0, 0, 0], // DEVLINK_ATTR_HEALTH_REPORTER_RECOVER_COUNT
            &[12, 0, 120, 0, 0xf4, 1, 0, 0, 0, 0, 0, 0], // DEVLINK_ATTR_HEALTH_REPORTER_GRACEFUL_PERIOD: 500 ms
            &[5, 0, 121, 0, 1, 0, 0, 0], // DEVLINK_ATTR_HEALTH_REPORTER_AUTO_RECOVER; padding
            &[12, 0, 119, 0, 0x74, 0xbd, 0xfb, 0xff, 0, 0, 0, 0], // DEVLINK_ATTR_HEALTH_REPORTER_DUMP_TS
            &[12, 0, 137, 0, 0xac, 0x55, 0x76, 0xdd, 0xe6, 0x9f, 0xea, 0x18], // …_DUMP_TS_NS
            &[5, 0, 141, 0, 1, 0, 0, 0], // …_AUTO_DUMP
        ]
        .concat();
        let reporter = Reporter {
            device: Device { bus: "b".to_owned(), dev: "d".to_owned() },
            port: None,
            name: "dummy".to_owned(),
            state: ReporterState::Healthy,
            errors: 2,
            recoveries: 1,
            auto_recover: Some(true),
            graceful_period: Some(500),
        };
        assert_eq!(Reporter::decode(Attributes::new(&octets)), Ok(reporter.clone()));
        let of_a_port = Reporter { port: Some(1), state: ReporterState::Error, ..reporter };
        let mut writer = Writer::default();
        of_a_port.encode(&mut writer);
        assert_eq!(Reporter::decode(Attributes::new(writer.octets())), Ok(of_a_port));
        let bare = Attributes::new(&octets[..16]);
        assert_eq!(Reporter::decode(bare), Err(Malformed::Missing { kind: attr::HEALTH_REPORTER }));
    }
}
