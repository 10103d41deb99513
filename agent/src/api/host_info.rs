//! What this version can plug, as os-vif's `HostInfo` object: the same shape that os-vif's own
//! `os_vif.host_info()` has, with the version ranges that are really understood.

use serde_json::{Value, json};

use crate::record::newest_version;

/// The VIF objects that are plugged, each with the port profiles that it may have.
const PLUGGED: &[(&str, &[&str])] = &[
    ("VIFGeneric", &["VIFPortProfileOpenVSwitch"]),
    ("VIFBridge", &["VIFPortProfileOpenVSwitch"]),
    ("VIFOpenVSwitch", &["VIFPortProfileOpenVSwitch"]),
    ("VIFDirect", &[]),
    (
        "VIFVHostUser",
        &["VIFPortProfileOpenVSwitch", "VIFPortProfileFPOpenVSwitch", "VIFPortProfileFPBridge", "VIFPortProfileFPTap"],
    ),
];

/// The serialized object.
pub(super) fn primitive() -> Value {
    let vifs: Vec<Value> = PLUGGED
        .iter()
        .map(|(name, profiles)| {
            let profiles: Vec<Value> = profiles
                .iter()
                .map(|profile| {
                    let mut data = range(profile);
                    data["profile_object_name"] = json!(profile);
                    object("HostPortProfileInfo", "1.0", &data)
                })
                .collect();
            let mut data = range(name);
            data["vif_object_name"] = json!(name);
            data["supported_port_profiles"] = json!(profiles);
            object("HostVIFInfo", "1.1", &data)
        })
        .collect();
    let plugin = object("HostPluginInfo", "1.0", &json!({"plugin_name": "vifd", "vif_info": vifs}));
    object("HostInfo", "1.0", &json!({"plugin_info": [plugin]}))
}

fn range(name: &str) -> Value {
    let (major, minor) = newest_version(name).unwrap_or((1, 0));
    json!({"min_version": "1.0", "max_version": format!("{major}.{minor}")})
}

fn object(name: &str, version: &str, data: &Value) -> Value {
    let changes: Vec<&String> = data.as_object().into_iter().flat_map(|fields| fields.keys()).collect();
    json!({
        "versioned_object.changes": changes,
        "versioned_object.name": name,
        "versioned_object.namespace": "os_vif",
        "versioned_object.version": version,
        "versioned_object.data": data,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_object_is_one_that_records_know_and_the_ranges_are_theirs() {
        for (name, profiles) in PLUGGED {
            for object in std::iter::once(name).chain(*profiles) {
                assert!(newest_version(object).is_some(), "{object}");
            }
        }
        let info = primitive();
        let vifs = &info["versioned_object.data"]["plugin_info"][0]["versioned_object.data"]["vif_info"];
        let vhost = &vifs[4]["versioned_object.data"];
        assert_eq!(vhost["vif_object_name"], "VIFVHostUser");
        assert_eq!(vhost["max_version"], "1.1");
        let profile = &vhost["supported_port_profiles"][0]["versioned_object.data"];
        assert_eq!((&profile["min_version"], &profile["max_version"]), (&json!("1.0"), &json!("1.4")));
    }
}
