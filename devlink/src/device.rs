//! devlink devices: their handle, what they say of themselves, and their reload. Which of them there are, a
//! [`Devlink`](crate::Devlink) says.

use std::fmt;
use std::str::FromStr;

use crate::wire::numbers::attr;
use crate::wire::{Attributes, Malformed, Writer};

/// The handle of a devlink device, such as `pci/0000:03:00.0` or `auxiliary/mlx5_core.sf.2`: printed and parsed as devlink(8)
/// has it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Device {
    /// Bus (`DEVLINK_ATTR_BUS_NAME`).
    pub bus: String,
    /// Name of the device on the bus (`DEVLINK_ATTR_DEV_NAME`).
    pub dev: String,
}

/// Text that is not `BUS/DEV`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not the handle of a devlink device (such as pci/0000:03:00.0)")]
pub struct InvalidDevice(pub String);

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.bus, self.dev)
    }
}

impl FromStr for Device {
    type Err = InvalidDevice;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let plain =
            |part: &str| !part.is_empty() && !part.contains(|c: char| c == '/' || c.is_whitespace() || c.is_control());
        match text.split_once('/') {
            Some((bus, dev)) if plain(bus) && plain(dev) => Ok(Device { bus: bus.to_owned(), dev: dev.to_owned() }),
            _ => Err(InvalidDevice(text.chars().take(80).collect())),
        }
    }
}

impl Device {
    pub(crate) fn decode(attributes: Attributes<'_>) -> Result<Self, Malformed> {
        Ok(Device { bus: attributes.need(attr::BUS_NAME)?.text(), dev: attributes.need(attr::DEV_NAME)?.text() })
    }

    pub(crate) fn encode(&self, writer: &mut Writer) {
        writer.text(attr::BUS_NAME, &self.bus).text(attr::DEV_NAME, &self.dev);
    }
}

/// What the kernel says of a device (`DEVLINK_CMD_NEW`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceStatus {
    /// Which.
    pub device: Device,
    /// Its last reload failed half-way: it is of no use before another one succeeds (`DEVLINK_ATTR_RELOAD_FAILED`).
    pub reload_failed: bool,
    /// How often this host has reloaded it since it is there, whatever the action (`DEVLINK_ATTR_RELOAD_STATS`).
    pub reloads: u32,
    /// How often another host that shares the NIC has (`DEVLINK_ATTR_REMOTE_RELOAD_STATS`).
    pub remote_reloads: u32,
}

/// What a device's driver says of it (`DEVLINK_CMD_INFO_GET`, `devlink dev info`). What it does not say is empty or `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeviceInfo {
    /// Name of the driver.
    pub driver: Option<String>,
    /// Serial number of the device.
    pub serial_number: Option<String>,
    /// Serial number of the board.
    pub board_serial_number: Option<String>,
    /// Of what never changes, such as `board.id`.
    pub fixed: Vec<Version>,
    /// Of what runs, such as `fw.mgmt`.
    pub running: Vec<Version>,
    /// Of what would run after a reset.
    pub stored: Vec<Version>,
}

/// One version (`DEVLINK_ATTR_INFO_VERSION_NAME`, `…_VALUE`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// Of what: the names are in the kernel's `devlink-info.rst`, and drivers have more.
    pub name: String,
    /// As the driver writes it.
    pub value: String,
}

/// What a reload does (`enum devlink_reload_action`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ReloadAction {
    /// The driver lets go of all that it has made, its links among it, and begins anew.
    DriverReinit,
    /// The firmware that is stored is started.
    FirmwareActivate,
}

impl ReloadAction {
    const ALL: [ReloadAction; 2] = [ReloadAction::DriverReinit, ReloadAction::FirmwareActivate];

    pub(crate) fn number(self) -> u8 {
        match self {
            ReloadAction::DriverReinit => 1,
            ReloadAction::FirmwareActivate => 2,
        }
    }

    /// Those that were carried out, by `DEVLINK_ATTR_RELOAD_ACTIONS_PERFORMED`.
    pub(crate) fn performed(attributes: &[u8]) -> Result<Vec<Self>, Malformed> {
        let Some(performed) = Attributes::new(attributes).find_kind(attr::RELOAD_ACTIONS_PERFORMED)? else {
            return Ok(Vec::new());
        };
        let (value, selector) = performed.bitfield()?;
        let done = |action: &ReloadAction| value & selector & (1 << action.number()) != 0;
        Ok(Self::ALL.into_iter().filter(done).collect())
    }
}

/// As devlink(8) has it: `driver_reinit`.
impl fmt::Display for ReloadAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ReloadAction::DriverReinit => "driver_reinit",
            ReloadAction::FirmwareActivate => "fw_activate",
        })
    }
}

impl DeviceStatus {
    pub(crate) fn decode(attributes: Attributes<'_>) -> Result<Self, Malformed> {
        let failed = attributes.find_kind(attr::RELOAD_FAILED)?.map(|failed| failed.bool()).transpose()?;
        let (mut reloads, mut remote_reloads) = (0, 0);
        if let Some(statistics) = attributes.find_kind(attr::DEV_STATS)? {
            for attribute in statistics.nested() {
                let attribute = attribute?;
                match attribute.kind {
                    attr::RELOAD_STATS => reloads = count_reloads(attribute.nested())?,
                    attr::REMOTE_RELOAD_STATS => remote_reloads = count_reloads(attribute.nested())?,
                    _ => {}
                }
            }
        }
        let device = Device::decode(attributes)?;
        Ok(DeviceStatus { device, reload_failed: failed.unwrap_or(false), reloads, remote_reloads })
    }

    pub(crate) fn encode(&self, writer: &mut Writer) {
        self.device.encode(writer);
        writer.u8(attr::RELOAD_FAILED, u8::from(self.reload_failed));
        writer.nested(attr::DEV_STATS, |writer| {
            writer.nested(attr::RELOAD_STATS, |writer| encode_reloads(writer, self.reloads));
            writer.nested(attr::REMOTE_RELOAD_STATS, |writer| encode_reloads(writer, self.remote_reloads));
        });
    }
}

/// The sum of `DEVLINK_ATTR_RELOAD_STATS`: a nest for each action, and in that one for each of its limits.
fn count_reloads(statistics: Attributes<'_>) -> Result<u32, Malformed> {
    let mut sum = 0u32;
    for action in statistics.of_kind(attr::RELOAD_ACTION_INFO) {
        for limits in action?.nested().of_kind(attr::RELOAD_ACTION_STATS) {
            for entry in limits?.nested().of_kind(attr::RELOAD_STATS_ENTRY) {
                let count = entry?.nested().need(attr::RELOAD_STATS_VALUE)?.u32()?;
                sum = sum.saturating_add(count);
            }
        }
    }
    Ok(sum)
}

fn encode_reloads(writer: &mut Writer, count: u32) {
    writer.nested(attr::RELOAD_ACTION_INFO, |writer| {
        writer.u8(attr::RELOAD_ACTION, ReloadAction::DriverReinit.number());
        writer.nested(attr::RELOAD_ACTION_STATS, |writer| {
            writer.nested(attr::RELOAD_STATS_ENTRY, |writer| {
                writer.u8(attr::RELOAD_STATS_LIMIT, 0).u32(attr::RELOAD_STATS_VALUE, count);
            });
        });
    });
}

impl DeviceInfo {
    /// Reads the attributes of `DEVLINK_CMD_INFO_GET`'s answer: what comes behind `struct genlmsghdr`.
    ///
    /// # Errors
    /// Where a length is wrong, or a version lacks its name or its value. What is unknown is passed over.
    pub fn decode(attributes: &[u8]) -> Result<Self, Malformed> {
        let mut info = DeviceInfo::default();
        for attribute in Attributes::new(attributes) {
            let attribute = attribute?;
            match attribute.kind {
                attr::INFO_DRIVER_NAME => info.driver = Some(attribute.text()),
                attr::INFO_SERIAL_NUMBER => info.serial_number = Some(attribute.text()),
                attr::INFO_BOARD_SERIAL_NUMBER => info.board_serial_number = Some(attribute.text()),
                attr::INFO_VERSION_FIXED => info.fixed.push(Version::decode(attribute.nested())?),
                attr::INFO_VERSION_RUNNING => info.running.push(Version::decode(attribute.nested())?),
                attr::INFO_VERSION_STORED => info.stored.push(Version::decode(attribute.nested())?),
                _ => {}
            }
        }
        Ok(info)
    }
}

impl Version {
    fn decode(attributes: Attributes<'_>) -> Result<Self, Malformed> {
        let text = |kind| Ok::<_, Malformed>(attributes.need(kind)?.text());
        Ok(Version { name: text(attr::INFO_VERSION_NAME)?, value: text(attr::INFO_VERSION_VALUE)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn wrong_handles_are_refused() {
        for wrong in ["", "pci", "/0000:03:00.0", "pci/", "pci/a/1", "pci/a b", "pci/a\0", "p\nci/a"] {
            assert!(wrong.parse::<Device>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn versions_of_a_driver() {
        #[rustfmt::skip]
        let octets = [
            &[9, 0, 98, 0][..], b"mlx5\0", &[0; 3], // DEVLINK_ATTR_INFO_DRIVER_NAME; padding
            &[6, 0, 99, 0], b"7\0", &[0; 2], // DEVLINK_ATTR_INFO_SERIAL_NUMBER; padding
            &[6, 0, 146, 0], b"8\0", &[0; 2], // DEVLINK_ATTR_INFO_BOARD_SERIAL_NUMBER; padding
            &[20, 0, 100, 0], // DEVLINK_ATTR_INFO_VERSION_FIXED, a nest without its flag
            &[7, 0, 103, 0], b"id\0", &[0], // DEVLINK_ATTR_INFO_VERSION_NAME; padding
            &[6, 0, 104, 0], b"A\0", &[0; 2], // DEVLINK_ATTR_INFO_VERSION_VALUE; padding
            &[20, 0, 101, 0x80], // DEVLINK_ATTR_INFO_VERSION_RUNNING
            &[7, 0, 103, 0], b"fw\0", &[0],
            &[6, 0, 104, 0], b"1\0", &[0; 2],
            &[20, 0, 102, 0x80], // DEVLINK_ATTR_INFO_VERSION_STORED
            &[7, 0, 103, 0], b"fw\0", &[0],
            &[6, 0, 104, 0], b"2\0", &[0; 2],
        ]
        .concat();
        let version = |name: &str, value: &str| vec![Version { name: name.to_owned(), value: value.to_owned() }];
        let expected = DeviceInfo {
            driver: Some("mlx5".to_owned()),
            serial_number: Some("7".to_owned()),
            board_serial_number: Some("8".to_owned()),
            fixed: version("id", "A"),
            running: version("fw", "1"),
            stored: version("fw", "2"),
        };
        assert_eq!(DeviceInfo::decode(&octets), Ok(expected));
        let nameless = [12, 0, 100, 0, 8, 0, 104, 0, 1, 0, 0, 0];
        assert_eq!(DeviceInfo::decode(&nameless), Err(Malformed::Missing { kind: attr::INFO_VERSION_NAME }));
    }

    #[test]
    fn reloads_are_counted() {
        #[rustfmt::skip]
        let octets = [
            &[6, 0, 1, 0, b'b', 0, 0, 0][..], // DEVLINK_ATTR_BUS_NAME
            &[6, 0, 2, 0, b'd', 0, 0, 0], // DEVLINK_ATTR_DEV_NAME
            &[5, 0, 136, 0, 1, 0, 0, 0], // DEVLINK_ATTR_RELOAD_FAILED; padding
            &[80, 0, 156, 0x80], // DEVLINK_ATTR_DEV_STATS
            &[60, 0, 157, 0x80], // DEVLINK_ATTR_RELOAD_STATS
            &[56, 0, 162, 0x80], // DEVLINK_ATTR_RELOAD_ACTION_INFO
            &[5, 0, 153, 0, 1, 0, 0, 0], // DEVLINK_ATTR_RELOAD_ACTION: driver_reinit; padding
            &[44, 0, 163, 0x80], // DEVLINK_ATTR_RELOAD_ACTION_STATS
            &[20, 0, 158, 0x80], // DEVLINK_ATTR_RELOAD_STATS_ENTRY
            &[5, 0, 159, 0, 0, 0, 0, 0], // DEVLINK_ATTR_RELOAD_STATS_LIMIT: none; padding
            &[8, 0, 160, 0, 3, 0, 0, 0], // DEVLINK_ATTR_RELOAD_STATS_VALUE
            &[20, 0, 158, 0x80], // DEVLINK_ATTR_RELOAD_STATS_ENTRY
            &[5, 0, 159, 0, 1, 0, 0, 0], // DEVLINK_ATTR_RELOAD_STATS_LIMIT: no_reset; padding
            &[8, 0, 160, 0, 1, 0, 0, 0], // DEVLINK_ATTR_RELOAD_STATS_VALUE
            &[16, 0, 161, 0x80], // DEVLINK_ATTR_REMOTE_RELOAD_STATS
            &[12, 0, 162, 0x80], // DEVLINK_ATTR_RELOAD_ACTION_INFO
            &[5, 0, 153, 0, 1, 0, 0, 0], // DEVLINK_ATTR_RELOAD_ACTION: driver_reinit; padding
        ]
        .concat();
        let device = Device { bus: "b".to_owned(), dev: "d".to_owned() };
        let status = DeviceStatus { device, reload_failed: true, reloads: 4, remote_reloads: 0 };
        assert_eq!(DeviceStatus::decode(Attributes::new(&octets)), Ok(status.clone()));
        let performed = [12, 0, 154, 0, 6, 0, 0, 0, 2, 0, 0, 0]; // DEVLINK_ATTR_RELOAD_ACTIONS_PERFORMED: value, selector
        assert_eq!(ReloadAction::performed(&performed), Ok(vec![ReloadAction::DriverReinit]));
        assert_eq!(ReloadAction::performed(&[]), Ok(Vec::new()));
    }

    proptest! {
        #[test]
        fn handles_round_trip(bus in "[a-z]{1,8}", dev in "[!-.0-~]{1,20}") {
            let device = Device { bus, dev };
            prop_assert_eq!(device.to_string().parse(), Ok(device));
        }

        #[test]
        fn any_octets_are_read(octets: Vec<u8>) {
            let _ = DeviceInfo::decode(&octets);
            let _ = ReloadAction::performed(&octets);
        }
    }
}
