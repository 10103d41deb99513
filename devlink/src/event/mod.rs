//! What the kernel tells of devlink without being asked, as data and as octets. Where it comes from is `monitor.rs`'s business.

use crate::device::{Device, DeviceStatus};
use crate::health::Reporter;
use crate::port::Port;
use crate::rate::Rate;
use crate::wire::messages::{Messages, Payload, notification, overrun};
use crate::wire::numbers::command;
use crate::wire::{Attributes, Malformed, Writer};

#[cfg(test)]
mod tests;

/// A notification. There is none of a change of an eswitch's mode, which shows in its ports. A reload shows in its ports too, and
/// ends with [`Event::DeviceNew`], whose [`DeviceStatus`] has counted it or says that it failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A device is there, or something was changed of it.
    DeviceNew(DeviceStatus),
    /// A device is gone.
    DeviceDel(Device),
    /// A port is there, or something was changed of it: its link came or went. That its link got another name is not told by
    /// Linux 6.1 and before; who needs the name follows the link by its index, over rtnetlink.
    PortNew(Port),
    /// A port is gone. What is said of it besides its handle is what is left of it.
    PortDel(Port),
    /// A health reporter has seen something, or put something right.
    HealthReporter(Reporter),
    /// A rate is there, or was changed.
    RateNew(Rate),
    /// A rate is gone.
    RateDel(Rate),
    /// Something of which this library knows no more than that.
    Other {
        /// Which (`enum devlink_command`).
        command: u8,
        /// Of what device, if it says so.
        device: Option<Device>,
    },
    /// Notifications were lost: everything has to be listed anew. [`Monitor`](crate::Monitor) makes it, it is no message.
    Overrun,
}

impl Event {
    /// The notifications of a datagram to the family with this number, in order. After the first that is malformed there is
    /// nothing more.
    pub fn decode(family: u16, datagram: &[u8]) -> impl Iterator<Item = Result<Event, Malformed>> {
        Messages::new(datagram).filter_map(move |message| match message {
            Ok(message) => match message.payload {
                Payload::Generic { family: of, command, attributes } if of == family => {
                    Some(Event::read(command, attributes))
                }
                Payload::Overrun => Some(Ok(Event::Overrun)),
                _ => None,
            },
            Err(error) => Some(Err(error)),
        })
    }

    fn read(command: u8, attributes: Attributes<'_>) -> Result<Self, Malformed> {
        Ok(match command {
            command::NEW => Event::DeviceNew(DeviceStatus::decode(attributes)?),
            command::DEL => Event::DeviceDel(Device::decode(attributes)?),
            command::PORT_NEW => Event::PortNew(Port::decode(attributes)?),
            command::PORT_DEL => Event::PortDel(Port::decode(attributes)?),
            command::HEALTH_REPORTER_RECOVER => Event::HealthReporter(Reporter::decode(attributes)?),
            command::RATE_NEW | command::RATE_DEL => match Rate::decode(attributes)? {
                Some(rate) if command == command::RATE_NEW => Event::RateNew(rate),
                Some(rate) => Event::RateDel(rate),
                None => Event::Other { command, device: Some(Device::decode(attributes)?) },
            },
            _ => Event::Other { command, device: Device::decode(attributes).ok() },
        })
    }

    /// The message that decodes to it, as the kernel would send it to the family with this number: for tests, and to play back what
    /// was recorded.
    #[must_use]
    pub fn encode(&self, family: u16) -> Vec<u8> {
        let mut writer = Writer::default();
        let command = match self {
            Event::DeviceNew(status) => {
                status.encode(&mut writer);
                command::NEW
            }
            Event::DeviceDel(device) => {
                device.encode(&mut writer);
                command::DEL
            }
            Event::PortNew(port) => {
                port.encode(&mut writer);
                command::PORT_NEW
            }
            Event::PortDel(port) => {
                port.encode(&mut writer);
                command::PORT_DEL
            }
            Event::HealthReporter(reporter) => {
                reporter.encode(&mut writer);
                command::HEALTH_REPORTER_RECOVER
            }
            Event::RateNew(rate) => {
                rate.encode(&mut writer);
                command::RATE_NEW
            }
            Event::RateDel(rate) => {
                rate.encode(&mut writer);
                command::RATE_DEL
            }
            Event::Other { command, device } => {
                if let Some(device) = device {
                    device.encode(&mut writer);
                }
                *command
            }
            Event::Overrun => return overrun(),
        };
        notification(family, command, &writer)
    }
}
