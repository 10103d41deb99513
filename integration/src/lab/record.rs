//! Records as a controller writes them: files made by the real os-vif, changed where a test wants
//! them otherwise.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Map, Value, json};

const DATA: &str = "versioned_object.data";

/// A record: an os-vif object with its instance, and what `vifd` takes beside them.
#[derive(Clone, Debug, PartialEq)]
pub struct Record(pub Value);

impl Record {
    /// A VIF of `integration/fixtures/os-vif`, by name.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn fixture(name: &str) -> Result<Record> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/os-vif");
        Record::read(&folder.join(format!("{name}.json")))
    }

    /// The files of `docs/examples`, in order of name.
    ///
    /// # Errors
    /// When one cannot be read.
    pub fn examples() -> Result<Vec<(PathBuf, Record)>> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/examples");
        let mut files = Vec::new();
        for entry in fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "json") {
                files.push(path);
            }
        }
        files.sort();
        files
            .into_iter()
            .map(|path| {
                let record = Record::read(&path)?;
                Ok((path, record))
            })
            .collect()
    }

    fn read(path: &Path) -> Result<Record> {
        let text = fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
        let value = serde_json::from_str(&text).with_context(|| format!("parsing {}", path.display()))?;
        Ok(Record(value))
    }

    /// The same VIF once more, as number `number`: an identity, a MAC, an address and device
    /// names of its own.
    #[must_use]
    pub fn numbered(mut self, number: u32) -> Record {
        let id = format!("{number:08x}-4c1d-4d7e-9a52-0d4a8c3e5f60");
        let name = |prefix: &str| json!(format!("{prefix}{id}")[..14]);
        let [_, a, b, c] = number.to_be_bytes();
        let data = self.vif_mut();
        data.insert("id".into(), json!(id));
        data.insert("address".into(), json!(format!("22:52:26:{a:02x}:{b:02x}:{c:02x}")));
        if data.contains_key("vif_name") {
            data.insert("vif_name".into(), name("tap"));
        }
        own_bridge(data, &name("qbr"));
        if let Some(profile) = self.profile_mut() {
            profile.insert("interface_id".into(), json!(id));
            own_bridge(profile, &name("qbr"));
        }
        if let Some(ip) =
            self.0.pointer_mut(&pointer("vif", &["network", "subnets", "objects/0", "ips", "objects/0", "address"]))
        {
            *ip = json!(format!("10.{a}.{b}.{c}"));
        }
        self
    }

    /// The VIF in the native form, in which a record says more than os-vif's objects do: members go into it as they are.
    #[must_use]
    pub fn native(vif: &Value) -> Record {
        Record(json!({ "vif": vif }))
    }

    /// Identity of the VIF.
    #[must_use]
    pub fn id(&self) -> String {
        self.text("id")
    }

    /// Name of its device.
    #[must_use]
    pub fn vif_name(&self) -> String {
        self.text("vif_name")
    }

    /// The links that a hybrid VIF has beside the guest's: its Linux bridge, the end of the pair in it, and the end that is
    /// the port on Open vSwitch.
    #[must_use]
    pub fn hybrid_links(&self) -> Option<[String; 3]> {
        let hybrid = self.0["vif"]["versioned_object.name"] == "VIFBridge"
            && self.0["vif"][DATA]["port_profile"]["versioned_object.name"] == "VIFPortProfileOpenVSwitch";
        let end = |prefix: &str| format!("{prefix}{}", self.id())[..14].to_owned();
        hybrid.then(|| [self.field("bridge_name").unwrap_or_default().to_owned(), end("qvb"), end("qvo")])
    }

    /// Name of its port on Open vSwitch.
    #[must_use]
    pub fn port_name(&self) -> String {
        self.hybrid_links().map_or_else(|| self.vif_name(), |[.., outer]| outer)
    }

    /// Its MAC.
    #[must_use]
    pub fn mac(&self) -> String {
        self.text("address")
    }

    /// Its first fixed IP address, or an empty text.
    #[must_use]
    pub fn ip(&self) -> String {
        if let Some(ip) = self.0.pointer("/vif/network/subnets/0/ips/0/address") {
            return ip.as_str().unwrap_or_default().to_owned();
        }
        let path = ["network", "subnets", "objects/0", "ips", "objects/0", "address"];
        let value = self.0.pointer(&pointer("vif", &path));
        value.and_then(Value::as_str).unwrap_or_default().to_owned()
    }

    /// Name of the instance.
    #[must_use]
    pub fn instance_name(&self) -> String {
        let value = self.0.pointer(&pointer("instance", &["name"]));
        value.and_then(Value::as_str).unwrap_or_default().to_owned()
    }

    /// Identity of the instance.
    #[must_use]
    pub fn instance_id(&self) -> String {
        let value = self.0.pointer(&pointer("instance", &["uuid"]));
        value.and_then(Value::as_str).unwrap_or_default().to_owned()
    }

    /// The bridge of its network.
    #[must_use]
    pub fn bridge(&self) -> String {
        let value = self.0.pointer(&pointer("vif", &["network", "bridge"]));
        value.and_then(Value::as_str).unwrap_or_default().to_owned()
    }

    /// A text field of the VIF object, if it is set.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&str> {
        self.0["vif"][DATA][name].as_str()
    }

    /// Changes a field of the VIF object.
    #[must_use]
    pub fn with(mut self, field: &str, value: impl Into<Value>) -> Record {
        self.vif_mut().insert(field.into(), value.into());
        self
    }

    /// Changes a field of its port profile. Does nothing to a VIF without one.
    #[must_use]
    pub fn with_profile(mut self, field: &str, value: impl Into<Value>) -> Record {
        if let Some(profile) = self.profile_mut() {
            profile.insert(field.into(), value.into());
        }
        self
    }

    /// Changes a field of its network. Does nothing to a VIF without one.
    #[must_use]
    pub fn with_network(mut self, field: &str, value: impl Into<Value>) -> Record {
        if let Some(Value::Object(network)) = self.vif_mut().get_mut("network") {
            members(network).insert(field.into(), value.into());
        }
        self
    }

    /// The same VIF with another policy, or another member beside the VIF.
    #[must_use]
    pub fn beside(mut self, member: &str, value: impl Into<Value>) -> Record {
        self.0[member] = value.into();
        self
    }

    fn text(&self, field: &str) -> String {
        let vif = &self.0["vif"];
        let value = &vif.get(DATA).unwrap_or(vif)[field];
        value.as_str().unwrap_or_default().to_owned()
    }

    fn vif_mut(&mut self) -> &mut Map<String, Value> {
        members(object(&mut self.0["vif"]))
    }

    fn profile_mut(&mut self) -> Option<&mut Map<String, Value>> {
        Some(members(self.vif_mut().get_mut("port_profile")?.as_object_mut()?))
    }
}

/// Gives a VIF that has a bridge to itself (os-vif's `qbr…`) one of another name.
fn own_bridge(object: &mut Map<String, Value>, name: &Value) {
    if let Some(bridge) = object.get_mut("bridge_name")
        && bridge.as_str().is_some_and(|bridge| bridge.starts_with("qbr"))
    {
        *bridge = name.clone();
    }
}

/// The members of an object in either form.
fn members(object: &mut Map<String, Value>) -> &mut Map<String, Value> {
    if object.contains_key(DATA) { self::object(&mut object[DATA]) } else { object }
}

/// A JSON pointer through nested os-vif objects: every field is under its object's data.
fn pointer(member: &str, fields: &[&str]) -> String {
    let mut path = format!("/{member}/{DATA}");
    for (n, field) in fields.iter().enumerate() {
        if n > 0 {
            path += &format!("/{DATA}");
        }
        path += &format!("/{field}");
    }
    path
}

/// The object at a place, made if something else is there.
fn object(place: &mut Value) -> &mut Map<String, Value> {
    if !place.is_object() {
        *place = Value::Object(Map::new());
    }
    match place {
        Value::Object(map) => map,
        _ => unreachable!("made an object above"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_numbered_record_differs_in_everything_that_must() -> Result<()> {
        let one = Record::fixture("openvswitch-create-tap")?.numbered(1);
        let other = Record::fixture("openvswitch-create-tap")?.numbered(0x0102_0304);
        assert_eq!(other.id(), "01020304-4c1d-4d7e-9a52-0d4a8c3e5f60");
        assert_eq!(other.vif_name(), "tap01020304-4c");
        assert_eq!(other.mac(), "22:52:26:02:03:04");
        assert_eq!((one.ip(), other.ip()), ("10.0.0.1".into(), "10.2.3.4".into()));
        assert_eq!(one.bridge(), "br-int");
        let hybrid = Record::fixture("bridge-hybrid")?.numbered(7);
        assert_eq!(hybrid.hybrid_links(), Some(["qbr", "qvb", "qvo"].map(|prefix| format!("{prefix}00000007-4c"))));
        assert_eq!((hybrid.port_name(), one.port_name()), ("qvo00000007-4c".into(), one.vif_name()));
        assert_eq!(Record::fixture("bridge-flat")?.numbered(7).field("bridge_name"), Some("brq-flat"), "shared");
        Ok(())
    }

    #[test]
    fn every_fixture_is_a_record() -> Result<()> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/os-vif");
        let mut count = 0;
        for entry in fs::read_dir(folder)? {
            let record = Record::read(&entry?.path())?;
            assert_eq!(record.id().len(), 36, "{record:?}");
            count += 1;
        }
        assert!(count > 80, "{count} fixtures");
        Ok(())
    }
}
