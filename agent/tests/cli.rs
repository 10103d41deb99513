//! The program as scripts meet it: exit codes, what goes to standard output and what to standard error.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use anyhow::Result;
use serde_json::Value;

fn vifd(root: &Path, arguments: &[&str]) -> Result<Output> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vifd"));
    command.args(arguments).env_remove("VIFD_CONFIG").env("VIFD_SOCKET", root.join("api.sock"));
    Ok(command.stdin(Stdio::null()).output()?)
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap_or(-1)
}

const GOOD: &str = r#"{"vif": {"type": "openvswitch", "id": "dc065497-3c8d-4f44-8fb4-e1d33c16a536",
    "address": "52:54:00:12:34:56", "vif_name": "tap1",
    "network": {"id": "b82c1929-051e-481d-8110-4669916c7915", "bridge": "br-int"},
    "port_profile": {"type": "openvswitch"}}}"#;

#[test]
fn no_agent_is_exit_code_4() -> Result<()> {
    let root = tempfile::tempdir()?;
    fs::write(root.path().join("good.json"), GOOD)?;
    let good = root.path().join("good.json");
    let good = good.to_string_lossy();
    let id = "dc065497-3c8d-4f44-8fb4-e1d33c16a536";
    for arguments in [
        &["status"][..],
        &["import"],
        &["nics"],
        &["plan"],
        &["get"],
        &["get", id],
        &["describe", "tap1"],
        &["plug", &good],
        &["plug", &good, "--wait"],
        &["unplug", id],
        &["pause"],
        &["resume", id],
        &["confirm-removals"],
        &["release", "--yes"],
    ] {
        let output = vifd(root.path(), arguments)?;
        assert_eq!(code(&output), 4, "{arguments:?}: {output:?}");
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(said.contains("nothing listens at"), "{arguments:?}: {said}");
    }
    Ok(())
}

#[test]
fn what_goes_wrong_is_an_object_for_programs() -> Result<()> {
    let root = tempfile::tempdir()?;
    let said = |arguments: &[&str]| -> Result<Vec<Value>> {
        let output = vifd(root.path(), arguments)?;
        assert!(output.stdout.is_empty(), "{output:?}");
        let lines = String::from_utf8(output.stderr)?;
        Ok(lines.lines().map(serde_json::from_str).collect::<Result<_, _>>()?)
    };
    let away = said(&["get", "-o", "json"])?;
    assert_eq!((away.len(), &away[0]["error"]["code"]), (1, &Value::from("unreachable")), "{away:?}");
    let [wrong, odd] = ["wrong.json", "odd.json"].map(|name| root.path().join(name).to_string_lossy().into_owned());
    fs::write(&wrong, GOOD.replace("tap1", "a name that is too long"))?;
    let pairs = r#"{"policy": {"allowed_address_pairs": [{"ip": "10.1.0.1/16"}]}, "vif""#;
    fs::write(&odd, GOOD.replacen("{\"vif\"", pairs, 1).replace("dc065497", "ec065497"))?;
    let wrong = said(&["plug", &wrong, &odd, &odd, "-o", "json"])?;
    assert_eq!(wrong[0]["error"]["code"], "invalid_record");
    assert_eq!(wrong[0]["error"]["field"], "vif.vif_name");
    assert!(wrong[0]["error"]["message"].as_str().is_some_and(|text| text.contains("wrong.json: vif.vif_name: ")));
    // What was passed over in a record that is good is said for each, and one VIF is there twice.
    let warned = &wrong[1]["warning"];
    assert_eq!(warned["field"], "policy.allowed_address_pairs[0].ip");
    assert!(warned["message"].as_str().is_some_and(|text| text.contains("odd.json: policy.allowed")), "{wrong:?}");
    assert_eq!((&wrong[2], &wrong[3]["error"]["field"]), (&wrong[1], &Value::from("vif.id")));
    assert_eq!(wrong.len(), 4, "{wrong:?}");
    // A configuration that is wrong elsewhere is told beside the answer, or whatever there is instead.
    let config = root.path().join("vifd.toml").to_string_lossy().into_owned();
    let socket = root.path().join("api.sock");
    fs::write(&config, format!("[api]\nsocket = {socket:?}\n[agent]\nresync = 7\n"))?;
    let mut command = Command::new(env!("CARGO_BIN_EXE_vifd"));
    let output = command.args(["get", "-o", "json", "--config", &config]).env_remove("VIFD_SOCKET").output()?;
    let lines = String::from_utf8(output.stderr)?;
    let told: Vec<Value> = lines.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told[0]["warning"]["message"].as_str().is_some_and(|text| text.contains("all the same")), "{told:?}");
    assert_eq!(told[1]["error"]["code"], "unreachable");
    Ok(())
}

#[test]
fn usage_does_not_ask_for_what_the_environment_says() -> Result<()> {
    let output = Command::new(env!("CARGO_BIN_EXE_vifd"))
        .args(["trace"])
        .env("VIFD_CONFIG", "/nowhere.toml")
        .env("VIFD_SOCKET", "/nowhere.sock")
        .stdin(Stdio::null())
        .output()?;
    let said = String::from_utf8(output.stderr)?;
    assert!(said.contains("Usage:") && !said.contains("--config") && !said.contains("--socket"), "{said}");
    let output = Command::new(env!("CARGO_BIN_EXE_vifd"))
        .args(["get"])
        .env("VIFD_CONFIG", "/nowhere.toml")
        .env("VIFD_SOCKET", "/nowhere.sock")
        .stdin(Stdio::null())
        .output()?;
    assert!(String::from_utf8(output.stderr)?.contains("/nowhere.sock"));
    Ok(())
}

#[test]
fn usage_is_exit_code_2_and_help_is_0() -> Result<()> {
    let root = tempfile::tempdir()?;
    for arguments in [&[][..], &["fly"], &["plug"], &["unplug", "tap1"], &["get", "-o", "xml"]] {
        assert_eq!(code(&vifd(root.path(), arguments)?), 2, "{arguments:?}");
    }
    for arguments in [&["--help"][..], &["plug", "--help"], &["--version"]] {
        let output = vifd(root.path(), arguments)?;
        assert_eq!(code(&output), 0, "{arguments:?}");
        assert!(output.stderr.is_empty());
    }
    Ok(())
}

#[test]
fn a_bad_configuration_is_exit_code_1_and_names_the_key() -> Result<()> {
    let root = tempfile::tempdir()?;
    let path = root.path().join("vifd.toml");
    fs::write(&path, "[agent]\ncolour = \"red\"\n")?;
    let path = path.to_string_lossy();
    let output = Command::new(env!("CARGO_BIN_EXE_vifd")).args(["run", "--config", &path]).output()?;
    assert_eq!(code(&output), 1);
    assert!(String::from_utf8_lossy(&output.stderr).contains("colour"), "{output:?}");
    Ok(())
}

/// What the host does not know, or does not let be, is told alone: nothing that had begun meanwhile complains.
#[test]
fn a_start_that_fails_says_why_and_nothing_else() -> Result<()> {
    let root = tempfile::tempdir()?;
    fs::create_dir_all(root.path().join("vifs"))?;
    fs::create_dir(root.path().join("taken"))?;
    let config = root.path().join("vifd.toml");
    let (shown, path) = (root.path().display(), config.to_string_lossy());
    for (wrong, api, said) in [("owner = \"nobody-here\"", "api.sock", "nobody-here"), ("", "taken", "taken")] {
        let text = format!(
            "[agent]\nstate_dir = \"{shown}/state\"\n[ovsdb]\nendpoint = \"unix:{shown}/db.sock\"\n\
             [source]\npath = \"{shown}/vifs\"\n[api]\nsocket = \"{shown}/{api}\"\n[metrics]\nlisten = \"\"\n\
             [vhostuser]\ndir = \"{shown}/vhost\"\n{wrong}\n"
        );
        fs::write(&config, text)?;
        let output = Command::new(env!("CARGO_BIN_EXE_vifd")).args(["run", "--config", &path]).output()?;
        assert_eq!(code(&output), 1, "{output:?}");
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(error.contains(said), "{error}");
        assert!(!error.contains("cancelled"), "{error}");
    }
    Ok(())
}

#[test]
fn validate_says_which_field_of_which_file() -> Result<()> {
    let root = tempfile::tempdir()?;
    let (good, bad) = (root.path().join("good.json"), root.path().join("bad.json"));
    fs::write(&good, GOOD)?;
    fs::write(&bad, GOOD.replace("52:54:00:12:34:56", "soft"))?;
    let (good, bad) = (good.to_string_lossy(), bad.to_string_lossy());
    let output = vifd(root.path(), &["validate", &good])?;
    assert_eq!(code(&output), 0, "{output:?}");
    let output = vifd(root.path(), &["validate", &good, &bad, "-o", "json"])?;
    assert_eq!(code(&output), 1);
    let checked: Value = serde_json::from_slice(&output.stdout)?;
    assert_eq!((&checked[0]["valid"], &checked[1]["valid"]), (&Value::Bool(true), &Value::Bool(false)));
    assert_eq!(checked[1]["field"], "vif.address");
    // The same VIF twice.
    let output = vifd(root.path(), &["validate", &good, &good, "-o", "json"])?;
    assert_eq!(code(&output), 1);
    // A third that clashes with the first is to blame for that, and not the first.
    let third = root.path().join("third.json").to_string_lossy().into_owned();
    fs::write(&third, GOOD.replace("dc065497", "ec065497"))?;
    let output = vifd(root.path(), &["validate", &good, &good, &third, "-o", "json"])?;
    let checked: Value = serde_json::from_slice(&output.stdout)?;
    let fields = ["valid", "field"].map(|key| [0, 1, 2].map(|at| checked[at][key].clone()));
    assert_eq!(fields[0], [true, false, false], "{checked:#}");
    assert_eq!(fields[1], ["", "vif.id", "vif.vif_name"], "{checked:#}");
    let output = vifd(root.path(), &["plug", &good, &good])?;
    assert_eq!(code(&output), 1);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("earlier file") && said.contains("nothing was handed in"), "{said}");
    // Nothing is handed in when one is no good.
    let output = vifd(root.path(), &["plug", &good, &bad])?;
    assert_eq!(code(&output), 1);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("vif.address") && said.contains("nothing was handed in"), "{said}");
    Ok(())
}

/// The others of a group are elsewhere as a rule, which is nothing to warn of.
#[test]
fn a_group_that_nobody_is_in_is_told_of_several_records_and_of_none_alone() -> Result<()> {
    let root = tempfile::tempdir()?;
    let path = |name: &str| root.path().join(name).to_string_lossy().into_owned();
    let rules = r#"{"policy": {"rules": [{"direction": "ingress", "remote_group": "web"}]}, "vif""#;
    let (asking, member) = (path("asking.json"), path("member.json"));
    fs::write(&asking, GOOD.replacen("{\"vif\"", rules, 1))?;
    let member_of = |group: &str| {
        let groups = format!(r#"{{"policy": {{"groups": ["{group}"]}}, "vif""#);
        let other = GOOD.replace("dc065497", "ec065497").replace("tap1", "tap2").replace("34:56", "34:57");
        fs::write(&member, other.replacen("{\"vif\"", &groups, 1))
    };
    let warnings = |files: &[&str]| -> Result<Value> {
        let output = vifd(root.path(), &[&["validate", "-o", "json"], files].concat())?;
        assert_eq!(code(&output), 0, "{output:?}");
        let checked: Value = serde_json::from_slice(&output.stdout)?;
        Ok(checked[0]["warnings"].clone())
    };
    member_of("Web")?;
    assert_eq!(warnings(&[&asking])?, serde_json::json!([]));
    assert_eq!(warnings(&[&asking, &member])?[0]["field"], "policy.rules[0].remote_group");
    member_of("web")?;
    assert_eq!(warnings(&[&asking, &member])?, serde_json::json!([]));
    Ok(())
}

#[test]
fn schema_is_json_in_every_format_and_completions_are_a_script() -> Result<()> {
    let root = tempfile::tempdir()?;
    for format in ["table", "json"] {
        let output = vifd(root.path(), &["schema", "-o", format])?;
        let schema: Value = serde_json::from_slice(&output.stdout)?;
        assert!(schema["$schema"].is_string());
    }
    let output = vifd(root.path(), &["completions", "bash"])?;
    assert!(String::from_utf8_lossy(&output.stdout).contains("confirm-removals"));
    Ok(())
}

#[test]
fn a_support_bundle_is_written_without_an_agent_and_says_what_is_missing() -> Result<()> {
    let root = tempfile::tempdir()?;
    let config = root.path().join("vifd.toml");
    let shown = root.path().display();
    let text = format!(
        "[agent]\nstate_dir = \"{shown}/state\"\n[ovsdb]\nendpoint = \"ssl:127.0.0.1:1\"\nkey = \"{shown}/secret\"\n\
         cert = \"{shown}/cert\"\nca = \"{shown}/ca\"\n[source]\npath = \"{shown}/vifs\"\n"
    );
    fs::write(&config, text)?;
    fs::write(root.path().join("secret"), "SECRET")?;
    let directory = root.path().join("bundle");
    let (config, directory_text) = (config.to_string_lossy(), directory.to_string_lossy());
    let output = vifd(root.path(), &["support-bundle", &directory_text, "--config", &config])?;
    assert_eq!(code(&output), 0, "{output:?}");
    for name in ["config.toml", "versions.json", "doctor.json", "missing.txt"] {
        let content = fs::read_to_string(directory.join(name))?;
        assert!(!content.contains("SECRET"), "{name}");
    }
    assert!(fs::read_to_string(directory.join("missing.txt"))?.contains("status.json"));
    let findings: Value = serde_json::from_slice(&fs::read(directory.join("doctor.json"))?)?;
    assert!(findings.as_array().is_some_and(|all| all.len() > 5), "{findings}");
    // It is never written over another one.
    let output = vifd(root.path(), &["support-bundle", &directory_text, "--config", &config])?;
    assert_eq!(code(&output), 1);
    assert!(String::from_utf8_lossy(&output.stderr).contains("name another directory"), "{output:?}");
    // The doctor's exit code says that something is wrong.
    let output = vifd(root.path(), &["doctor", "--config", &config, "-o", "json"])?;
    assert_eq!(code(&output), 1);
    let findings: Value = serde_json::from_slice(&output.stdout)?;
    assert_eq!(findings[0]["verdict"], "ok", "{findings}");
    Ok(())
}
