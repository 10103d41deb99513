//! Reading the values of single keys. Every error is one sentence about the value; the key and the line come
//! from the caller.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use devlink::{Device, InlineMode};
use ovsdb::endpoint::Endpoint;
use serde::de::{Deserializer, Error, Unexpected, Visitor};
use serde::{Deserialize, Serialize, Serializer};
use tracing_subscriber::filter::Targets;

use super::{Eswitch, SourceKind};
use crate::model::AgentId;
use crate::plan::IdRange;
use crate::record::validate;

/// Shortest time between two resyncs: below it, a slow host would do nothing else.
const SHORTEST_RESYNC: Duration = Duration::from_secs(1);
/// Shortest time between two looks at the datapath, each of which ovs-vswitchd answers in its main thread.
const SHORTEST_LOOK: Duration = Duration::from_secs(1);
/// Longest path of a unix socket, unix(7).
const MAX_SOCKET_PATH: usize = 107;

/// A type that is one string in the file.
macro_rules! text_value {
    ($name:ident) => {
        impl TryFrom<String> for $name {
            type Error = String;
            fn try_from(text: String) -> Result<Self, String> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> String {
                value.to_string()
            }
        }
    };
}

/// `agent.resync`: a time such as `10m`, or `off`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Resync(pub Option<Duration>);

text_value!(Resync);

impl Default for Resync {
    fn default() -> Self {
        Resync(Some(Duration::from_secs(600)))
    }
}

impl FromStr for Resync {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "off" {
            return Ok(Resync(None));
        }
        match humantime::parse_duration(text) {
            Ok(time) if time >= SHORTEST_RESYNC => Ok(Resync(Some(time))),
            Ok(_) => Err(format!("\"{text}\" is shorter than one second; \"off\" turns it off")),
            Err(_) => Err(format!("\"{text}\" is neither a time such as \"10m\" nor \"off\"")),
        }
    }
}

impl fmt::Display for Resync {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(time) => humantime::format_duration(time).fmt(f),
            None => f.write_str("off"),
        }
    }
}

/// `offload.look_every` and `lldpad.ask_every`: a time such as `15s`, or `0` for never.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct LookEvery(pub Option<Duration>);

text_value!(LookEvery);

impl Default for LookEvery {
    fn default() -> Self {
        LookEvery(Some(Duration::from_secs(15)))
    }
}

impl FromStr for LookEvery {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match humantime::parse_duration(text) {
            _ if text == "0" => Ok(LookEvery(None)),
            Ok(time) if time.is_zero() => Ok(LookEvery(None)),
            Ok(time) if time >= SHORTEST_LOOK => Ok(LookEvery(Some(time))),
            Ok(_) => Err(format!("\"{text}\" is shorter than one second; \"0\" turns it off")),
            Err(_) => Err(format!("\"{text}\" is neither a time such as \"15s\" nor \"0\" for never")),
        }
    }
}

impl fmt::Display for LookEvery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(time) => humantime::format_duration(time).fmt(f),
            None => f.write_str("0"),
        }
    }
}

/// After how long without a packet a flow of the datapath goes; `keep` leaves Open vSwitch's own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MaxIdle(pub Option<Duration>);

text_value!(MaxIdle);

impl FromStr for MaxIdle {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match humantime::parse_duration(text) {
            _ if text == "keep" => Ok(MaxIdle(None)),
            // ovs-vswitchd.conf.db(5): at least 500 milliseconds.
            Ok(time) if time >= Duration::from_millis(500) => Ok(MaxIdle(Some(time))),
            Ok(_) => Err(format!("\"{text}\" is shorter than Open vSwitch's least, \"500ms\"")),
            Err(_) => Err(format!("\"{text}\" is neither a time such as \"30s\" nor \"keep\"")),
        }
    }
}

impl fmt::Display for MaxIdle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(time) => humantime::format_duration(time).fmt(f),
            None => f.write_str("keep"),
        }
    }
}

/// Permission bits, written as octal digits in quotation marks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FileMode(pub u32);

text_value!(FileMode);

impl FromStr for FileMode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digits = (3..=4).contains(&text.len()) && text.bytes().all(|byte| (b'0'..=b'7').contains(&byte));
        let mode = digits.then(|| u32::from_str_radix(text, 8).ok()).flatten();
        mode.map(FileMode).ok_or_else(|| format!("\"{text}\" is not a file mode such as \"0770\""))
    }
}

impl fmt::Display for FileMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04o}", self.0)
    }
}

/// `macvtap.mode`: permission bits of a device, or empty for as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DeviceMode(pub Option<u32>);

text_value!(DeviceMode);

impl FromStr for DeviceMode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Ok(DeviceMode(None));
        }
        match text.parse()? {
            FileMode(mode) if mode <= 0o777 => Ok(DeviceMode(Some(mode))),
            FileMode(_) => Err(format!("\"{text}\" is not a device's mode such as \"0660\"")),
        }
    }
}

impl fmt::Display for DeviceMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |mode| FileMode(mode).fmt(f))
    }
}

/// `metrics.listen`: an address with a port; empty is off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Listen(pub Option<SocketAddr>);

text_value!(Listen);

impl Default for Listen {
    fn default() -> Self {
        Listen(Some(SocketAddr::from(([127, 0, 0, 1], 9466))))
    }
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Ok(Listen(None));
        }
        let wrong =
            |_| format!("\"{text}\" is not an address with a port, such as \"127.0.0.1:9466\" or \"[::]:9466\"");
        text.parse().map(|address| Listen(Some(address))).map_err(wrong)
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |address| address.fmt(f))
    }
}

/// `defaults.qos_type`: a type of table QoS (ovs-vswitchd.conf.db(5)) that works on system ports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct QosType(String);

text_value!(QosType);

/// The types that os-vif offers, and netem.
const QOS_TYPES: [&str; 7] =
    ["linux-htb", "linux-hfsc", "linux-sfq", "linux-codel", "linux-fq_codel", "linux-netem", "linux-noop"];

impl Default for QosType {
    fn default() -> Self {
        QosType("linux-noop".into())
    }
}

impl FromStr for QosType {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.is_empty() || QOS_TYPES.contains(&text) {
            return Ok(QosType(text.to_owned()));
        }
        Err(format!("\"{text}\" is not one of {}, and not empty for none", QOS_TYPES.join(", ")))
    }
}

impl fmt::Display for QosType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// `log.level`: a level, or levels of modules as in the environment variable `RUST_LOG`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Level(String);

text_value!(Level);

impl Level {
    /// What is logged at this level.
    #[must_use]
    pub fn targets(&self) -> Targets {
        // It was parsed before; what it is not, is not logged.
        self.0.parse().unwrap_or_default()
    }
}

impl Default for Level {
    fn default() -> Self {
        Level("info".into())
    }
}

impl FromStr for Level {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // A bare word that is no level would pass as the name of a module at which everything is logged.
        let bare = !text.contains(['=', ',']);
        let known = ["off", "error", "warn", "info", "debug", "trace"].contains(&text);
        if (bare && !known) || text.parse::<Targets>().is_err() {
            return Err(format!(
                "\"{text}\" is neither off, error, warn, info, debug or trace nor levels of modules such as \"info,vifd::plan=debug\""
            ));
        }
        Ok(Level(text.to_owned()))
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// `ovsdb.endpoint`: one endpoint or a list of them, at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoints(pub Vec<Endpoint>);

impl Default for Endpoints {
    fn default() -> Self {
        Endpoints(vec![Endpoint::Unix("/run/openvswitch/db.sock".into())])
    }
}

impl Endpoints {
    /// Whether one of them is `ssl:`.
    #[must_use]
    pub fn needs_tls(&self) -> bool {
        self.0.iter().any(|endpoint| matches!(endpoint, Endpoint::Ssl(..)))
    }

    /// The directory of the first `unix:` endpoint.
    #[must_use]
    pub fn directory(&self) -> Option<&Path> {
        self.0.iter().find_map(|endpoint| match endpoint {
            Endpoint::Unix(path) => path.parent(),
            _ => None,
        })
    }
}

fn endpoint(text: &str) -> Result<Endpoint, String> {
    match text.parse() {
        Ok(Endpoint::Unix(path)) if !path.is_absolute() => Err(format!("\"{text}\" has no absolute path")),
        Ok(endpoint) => Ok(endpoint),
        Err(error) => Err(error.to_string()),
    }
}

impl Serialize for Endpoints {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.as_slice() {
            [only] => serializer.collect_str(only),
            several => serializer.collect_seq(several.iter().map(ToString::to_string)),
        }
    }
}

impl<'de> Deserialize<'de> for Endpoints {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrMany;

        impl<'de> Visitor<'de> for OneOrMany {
            type Value = Endpoints;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an endpoint or a list of endpoints")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Endpoints, E> {
                Ok(Endpoints(vec![endpoint(text).map_err(E::custom)?]))
            }

            fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut list: A) -> Result<Endpoints, A::Error> {
                let mut endpoints = Vec::new();
                while let Some(text) = list.next_element::<String>()? {
                    endpoints.push(endpoint(&text).map_err(A::Error::custom)?);
                }
                if endpoints.is_empty() {
                    Err(A::Error::custom("has no endpoint in it"))
                } else {
                    Ok(Endpoints(endpoints))
                }
            }
        }

        deserializer.deserialize_any(OneOrMany)
    }
}

/// `agent.max_removals`: a share such as `"10%"`, or a number of VIFs.
pub(super) mod max_removals {
    use super::*;
    use crate::plan::MaxRemovals;

    pub(in crate::config) fn serialize<S: serde::Serializer>(value: &MaxRemovals, s: S) -> Result<S::Ok, S::Error> {
        match value {
            MaxRemovals::Percent(percent) => s.collect_str(&format_args!("{percent}%")),
            MaxRemovals::Count(count) => count.serialize(s),
        }
    }

    pub(in crate::config) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<MaxRemovals, D::Error> {
        struct PercentOrCount;

        impl Visitor<'_> for PercentOrCount {
            type Value = MaxRemovals;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a share such as \"10%\" or a number of VIFs")
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<MaxRemovals, E> {
                let count = usize::try_from(number).map_err(|_| E::invalid_value(Unexpected::Signed(number), &self))?;
                Ok(MaxRemovals::Count(count))
            }

            fn visit_u64<E: Error>(self, number: u64) -> Result<MaxRemovals, E> {
                let count =
                    usize::try_from(number).map_err(|_| E::invalid_value(Unexpected::Unsigned(number), &self))?;
                Ok(MaxRemovals::Count(count))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<MaxRemovals, E> {
                let percent = text.strip_suffix('%').filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
                match percent.and_then(|digits| digits.parse().ok()) {
                    Some(percent) if percent <= 100 => Ok(MaxRemovals::Percent(percent)),
                    _ => Err(E::invalid_value(Unexpected::Str(text), &self)),
                }
            }
        }

        d.deserialize_any(PercentOrCount)
    }
}

fn text<'de, D: Deserializer<'de>>(d: D) -> Result<String, D::Error> {
    String::deserialize(d)
}

/// It becomes a word of `ifalias` and a value of `external_ids`.
pub(super) fn agent_id<'de, D: Deserializer<'de>>(d: D) -> Result<AgentId, D::Error> {
    let id = text(d)?;
    let plain = id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    if plain && (1..=63).contains(&id.len()) {
        Ok(AgentId(id))
    } else {
        Err(D::Error::custom(format_args!("\"{id}\" is not 1 to 63 letters, digits, dots, underscores and hyphens")))
    }
}

pub(super) fn absolute<'de, D: Deserializer<'de>>(d: D) -> Result<PathBuf, D::Error> {
    let path = text(d)?;
    if Path::new(&path).is_absolute() {
        Ok(path.into())
    } else {
        Err(D::Error::custom(format_args!("\"{path}\" is not an absolute path")))
    }
}

pub(super) fn absolute_or_empty<'de, D: Deserializer<'de>>(d: D) -> Result<PathBuf, D::Error> {
    let path = text(d)?;
    if path.is_empty() || Path::new(&path).is_absolute() {
        Ok(path.into())
    } else {
        Err(D::Error::custom(format_args!("\"{path}\" is not an absolute path")))
    }
}

pub(super) fn socket<'de, D: Deserializer<'de>>(d: D) -> Result<PathBuf, D::Error> {
    let path = absolute(d)?;
    if path.as_os_str().len() > MAX_SOCKET_PATH {
        return Err(D::Error::custom(format_args!("is longer than the {MAX_SOCKET_PATH} bytes of a socket's path")));
    }
    Ok(path)
}

pub(super) fn mtu<'de, D: Deserializer<'de>>(d: D) -> Result<u32, D::Error> {
    let mtu = u32::deserialize(d)?;
    if (68..=65535).contains(&mtu) {
        Ok(mtu)
    } else {
        Err(D::Error::custom(format_args!("{mtu} is not an MTU (68 to 65535 octets)")))
    }
}

pub(super) fn interface_name<'de, D: Deserializer<'de>>(d: D) -> Result<String, D::Error> {
    let name = text(d)?;
    match validate::interface_name(&name) {
        Ok(()) => Ok(name),
        Err(reason) => Err(D::Error::custom(format_args!("\"{name}\" {reason}"))),
    }
}

pub(super) fn system() -> String {
    "system".into()
}

pub(super) fn datapath_type<'de, D: Deserializer<'de>>(d: D) -> Result<String, D::Error> {
    let kind = text(d)?;
    match kind.as_str() {
        "system" | "netdev" => Ok(kind),
        _ => Err(D::Error::custom(format_args!("\"{kind}\" is neither \"system\" nor \"netdev\""))),
    }
}

/// A range such as `"1-32767"` within what there is; whole numbers, both ends in it.
fn range<'de, D: Deserializer<'de>>(d: D, greatest: u32) -> Result<IdRange, D::Error> {
    let text = text(d)?;
    let number = |text: &str| text.trim().parse::<u32>().ok();
    let ends = text.split_once('-').and_then(|(first, last)| Some((number(first)?, number(last)?)));
    match ends {
        Some((first, last)) if 1 <= first && first <= last && last <= greatest => Ok(IdRange { first, last }),
        Some(_) => Err(D::Error::custom(format_args!("\"{text}\" is not a range between 1 and {greatest}"))),
        None => Err(D::Error::custom(format_args!("\"{text}\" is not a range such as \"1-32767\""))),
    }
}

/// A key that is a range of numbers of which the greatest is known.
macro_rules! range_value {
    ($name:ident, $greatest:literal) => {
        pub(super) mod $name {
            use super::{Deserializer, IdRange};

            pub(in crate::config) fn serialize<S: serde::Serializer>(value: &IdRange, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(value)
            }

            pub(in crate::config) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<IdRange, D::Error> {
                super::range(d, $greatest)
            }
        }
    };
}

// OFPG_MAX and OFPM_MAX of OpenFlow 1.4.1; a zone is 16 bits, and zone 0 is everybody's.
range_value!(groups, 0xffff_ff00);
range_value!(meters, 0xffff_0000);
range_value!(zones, 65535);

pub(super) fn every_network() -> Vec<String> {
    vec!["*".into()]
}

/// Writes what is read from a text as that text.
pub(super) fn as_text<S: Serializer>(value: &impl fmt::Display, s: S) -> Result<S::Ok, S::Error> {
    s.collect_str(value)
}

/// The same of what may be absent, and is skipped then.
pub(super) fn as_text_if_any<S: Serializer>(value: &Option<impl fmt::Display>, s: S) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) => s.collect_str(value),
        None => s.serialize_none(),
    }
}

pub(super) fn nic<'de, D: Deserializer<'de>>(d: D) -> Result<Device, D::Error> {
    let device = text(d)?;
    let wrong = || D::Error::custom(format_args!("\"{device}\" is not a devlink handle such as \"pci/0000:03:00.0\""));
    let handle: Device = device.parse().map_err(|_| wrong())?;
    if handle.bus == "pci" && handle.dev.parse::<devlink::PciAddress>().is_err() { Err(wrong()) } else { Ok(handle) }
}

/// Reads one of the words that this version does, or says of one that it knows that it does not.
fn word<'de, D: Deserializer<'de>, T>(d: D, can: &str, value: T, cannot: &str) -> Result<T, D::Error> {
    let word = text(d)?;
    if word == can {
        Ok(value)
    } else if word == cannot {
        Err(D::Error::custom(format_args!("\"{cannot}\" is not supported by this version yet; \"{can}\" is")))
    } else {
        Err(D::Error::custom(format_args!("\"{word}\" is not \"{can}\"")))
    }
}

pub(super) fn source_kind<'de, D: Deserializer<'de>>(d: D) -> Result<SourceKind, D::Error> {
    word(d, "dir", SourceKind::Dir, "nats")
}

pub(super) fn eswitch<'de, D: Deserializer<'de>>(d: D) -> Result<Eswitch, D::Error> {
    let word = text(d)?;
    match word.as_str() {
        "keep" => Ok(Eswitch::Keep),
        "switchdev" => Ok(Eswitch::Switchdev),
        _ => Err(D::Error::custom(format_args!("\"{word}\" is neither \"keep\" nor \"switchdev\""))),
    }
}

pub(super) fn inline_mode<'de, D: Deserializer<'de>>(d: D) -> Result<Option<InlineMode>, D::Error> {
    let word = text(d)?;
    let wrong =
        |_| D::Error::custom(format_args!("\"{word}\" is none of \"none\", \"link\", \"network\", \"transport\""));
    word.parse().map(Some).map_err(wrong)
}
