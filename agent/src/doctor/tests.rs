//! The whole examination on hosts made of temporary directories.

use std::fs;
use std::path::Path;

use super::*;

fn config(root: &Path) -> std::path::PathBuf {
    let path = root.join("vifd.toml");
    let root = root.display();
    let text = format!(
        "[agent]\nstate_dir = \"{root}/state\"\n[ovsdb]\nendpoint = \"unix:{root}/db.sock\"\n\
         [source]\npath = \"{root}/vifs\"\n[api]\nsocket = \"{root}/api.sock\"\n[vhostuser]\ndir = \"{root}/sockets\"\n"
    );
    fs::write(&path, text).unwrap();
    path
}

fn find<'a>(findings: &'a [Finding], name: &str) -> Option<&'a Finding> {
    findings.iter().find(|finding| finding.name == name)
}

const VHOST: &str = r#"{"vif": {"type": "vhostuser", "id": "dc065497-3c8d-4f44-8fb4-e1d33c16a536",
    "address": "52:54:00:12:34:56", "path": "/run/openvswitch/vhu1", "mode": "client",
    "network": {"id": "b82c1929-051e-481d-8110-4669916c7915", "bridge": "br-int"},
    "port_profile": {"type": "openvswitch"}}}"#;

#[tokio::test]
async fn a_bare_host_is_told_what_to_do_about_everything() {
    let root = tempfile::tempdir().unwrap();
    let findings = examine(&config(root.path()), None).await;
    for (name, level) in [
        ("configuration", Level::Ok),
        ("ovsdb", Level::Fail),
        ("ovs-vswitchd", Level::Fail),
        ("records", Level::Fail),
        ("state", Level::Ok),
        ("agent", Level::Warn),
    ] {
        let finding = find(&findings, name).unwrap_or_else(|| panic!("{name} is missing: {findings:?}"));
        assert_eq!(finding.verdict, level, "{finding:?}");
    }
    assert!(find(&findings, "vhost-user sockets").is_none(), "nobody needs them");
    assert!(findings.iter().all(|finding| (finding.verdict == Level::Ok) == finding.remedy.is_empty()), "{findings:?}");
}

#[tokio::test]
async fn records_are_looked_into() {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir(root.path().join("vifs")).unwrap();
    fs::write(root.path().join("vifs/a.json"), VHOST).unwrap();
    fs::write(root.path().join("vifs/.b.json"), "{").unwrap();
    let path = config(root.path());
    let findings = examine(&path, None).await;
    assert_eq!(find(&findings, "records").unwrap().verdict, Level::Ok, "{findings:?}");
    assert_eq!(find(&findings, "vhost-user sockets").unwrap().verdict, Level::Fail, "{findings:?}");
    fs::create_dir(root.path().join("sockets")).unwrap();
    fs::write(root.path().join("vifs/b.json"), "{").unwrap();
    let findings = examine(&path, None).await;
    assert_eq!(find(&findings, "vhost-user sockets").unwrap().verdict, Level::Ok, "{findings:?}");
    let records = find(&findings, "records").unwrap();
    assert_eq!(records.verdict, Level::Warn);
    assert!(records.message.contains("1 of 2") && records.message.contains("b.json"), "{records:?}");
    // What only all of them together show: one address for two. The members of a group may be elsewhere.
    let group = r#""policy": {"rules": [{"direction": "ingress", "remote_group": "web"}]}, "vif""#;
    let record = |id: &str, address: &str| {
        let mut record: serde_json::Value = serde_json::from_str(&VHOST.replacen("\"vif\"", group, 1)).unwrap();
        record["vif"]["id"] = id.into();
        record["vif"]["network"]["subnets"] = serde_json::json!([{"ips": [{"address": address}]}]);
        record.to_string()
    };
    fs::write(root.path().join("vifs/a.json"), record("dc065497-3c8d-4f44-8fb4-e1d33c16a536", "10.0.0.5")).unwrap();
    for (address, verdict) in [("10.0.0.6", Level::Ok), ("10.0.0.5", Level::Warn)] {
        let other = record("ec065497-3c8d-4f44-8fb4-e1d33c16a536", address);
        fs::write(root.path().join("vifs/b.json"), other).unwrap();
        let findings = examine(&path, None).await;
        assert_eq!(find(&findings, "records").unwrap().verdict, verdict, "{findings:?}");
    }
    let findings = examine(&path, None).await;
    let records = find(&findings, "records").unwrap();
    assert!(records.message.contains("has the address 10.0.0.5"), "{records:?}");
    assert!(records.remedy.contains("vifd validate"), "{records:?}");
}

#[tokio::test]
async fn a_broken_configuration_is_named_and_does_not_stop_the_rest() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("vifd.toml");
    fs::write(&path, "[agent]\ncolour = \"red\"\n").unwrap();
    let findings = examine(&path, Some(&root.path().join("api.sock"))).await;
    let configuration = find(&findings, "configuration").unwrap();
    assert_eq!(configuration.verdict, Level::Fail);
    assert!(configuration.message.contains("colour"), "{configuration:?}");
    assert!(findings.len() > 5, "{findings:?}");
}
