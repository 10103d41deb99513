//! What is told of the flows of managed bridges, on real ovs-vswitchd: `vifd flows`, against `ovs-ofctl`.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use serde_json::Value;
use vifd_integration::lab::{Config, Guest, Ovs, Switch, Vifd, guest_record, network_id};

const MANAGED: &str = "[[bridge]]\nname = \"br-int\"\nflows = \"managed\"\ndatapath_type = \"netdev\"\n";

/// Two guests on one network and one on another, all ready.
struct Scene {
    ovs: Ovs,
    vifd: Vifd,
    a: Guest,
    b: Guest,
    stranger: Guest,
}

fn scene() -> Result<Scene> {
    let ovs = Ovs::start(Switch::Userspace)?;
    let mut vifd = Vifd::beside(&ovs)?;
    vifd.config = Config { more: MANAGED.into(), ..Config::default() };
    vifd.start()?;
    let a = Guest::plug(&ovs, &mut vifd, guest_record(11, 1)?)?;
    let b = Guest::plug(&ovs, &mut vifd, guest_record(12, 1)?)?;
    let stranger = Guest::plug(&ovs, &mut vifd, guest_record(13, 2)?)?;
    Ok(Scene { ovs, vifd, a, b, stranger })
}

impl Scene {
    /// The answer to a GET that is to be good.
    fn get(&self, target: &str) -> Result<Value> {
        let answer = self.vifd.api("GET", target, None)?;
        anyhow::ensure!(answer.status == 200, "{target}: {} {}", answer.status, answer.body);
        Ok(serde_json::from_str(&answer.body)?)
    }

    /// The flows of a cookie as `ovs-ofctl` has them.
    fn of_cookie(&self, cookie: &str) -> Result<BTreeSet<String>> {
        let text = self.ofctl(&["--no-stats", "dump-flows"], &format!("cookie={cookie}/-1"))?;
        let lines = text.lines().map(|line| line.trim().to_owned());
        Ok(lines.filter(|line| line.contains("actions=")).collect())
    }

    fn ofctl(&self, command: &[&str], what: &str) -> Result<String> {
        let socket = format!("unix:{}", self.ovs.run_directory().join("br-int.mgmt").display());
        self.ovs.ofctl([&["-O", "OpenFlow14"], command, &[&socket, what]].concat())
    }

    /// What `vifd` with these arguments prints.
    fn cli(&self, arguments: &[&str]) -> Result<String> {
        let output = self.vifd.cli(arguments)?;
        let error = String::from_utf8_lossy(&output.stderr);
        anyhow::ensure!(output.status.success(), "vifd {arguments:?}: {error}");
        Ok(String::from_utf8(output.stdout)?)
    }
}

/// The flows of a listing that stand so.
fn standing(listing: &Value, standing: &str) -> Vec<String> {
    let tables = listing["tables"].as_array().into_iter().flatten();
    let flows = tables.flat_map(|table| table["flows"].as_array().into_iter().flatten());
    let flows = flows.filter(|flow| flow["standing"] == standing);
    flows.filter_map(|flow| flow["flow"].as_str().map(str::to_owned)).collect()
}

#[test]
fn the_flows_of_a_vif_are_those_of_its_cookie() -> Result<()> {
    let mut scene = scene()?;
    let id = scene.a.record.id();
    let target = format!("/v1/vifs/{id}/flows");
    let listing = scene.get(&target)?;
    assert_eq!((&listing["compared"], &listing["bridge"]), (&Value::Bool(true), &Value::from("br-int")));
    let cookie = listing["cookies"][0].as_str().context("a cookie")?.to_owned();
    let told: BTreeSet<String> = standing(&listing, "there").into_iter().collect();
    assert!(told.len() > 10, "{told:?}");
    assert_eq!(told, scene.of_cookie(&cookie)?);
    assert_eq!(standing(&listing, "missing").len() + standing(&listing, "unwanted").len(), 0);

    // As people see it: the very lines of ovs-ofctl below the tables' names.
    let text = scene.cli(&["flows", &scene.a.record.vif_name(), "--no-stats"])?;
    for flow in &told {
        assert!(text.contains(&format!("    {flow}\n")), "{flow} is not in\n{text}");
    }
    assert!(text.contains("table 12 port-security-ip\n"), "{text}");
    assert!(scene.cli(&["flows", &id])?.contains("n_packets="));

    // What its network and its bridge share.
    let network = scene.get(&format!("/v1/networks/{}/flows", network_id(1)))?;
    let cookie = network["cookies"][0].as_str().context("a cookie")?;
    assert_eq!(standing(&network, "there").into_iter().collect::<BTreeSet<_>>(), scene.of_cookie(cookie)?);
    assert_eq!(network["groups"].as_array().map(Vec::len), Some(1), "{network}");
    let bridge = scene.get("/v1/bridges/br-int/flows")?;
    assert!(standing(&bridge, "there").len() > 50 && standing(&bridge, "missing").is_empty(), "{bridge}");

    // While nothing is mended, what was done by hand is to be seen.
    scene.vifd.api("POST", "/v1/pause", None)?;
    scene.ofctl(
        &["--strict", "del-flows"],
        &format!("table=20,priority=100,reg5={:#x}", port(&scene.a, &scene.vifd)?),
    )?;
    scene.ofctl(
        &["add-flow"],
        &format!(
            "cookie={},table=40,priority=77,dl_dst=02::1,actions=drop",
            listing["cookies"][0].as_str().unwrap_or_default()
        )
        .replace("02::1", "02:00:00:00:00:01"),
    )?;
    let damaged = scene.get(&target)?;
    assert_eq!(standing(&damaged, "missing").len(), 1, "{damaged}");
    assert!(standing(&damaged, "missing")[0].contains("table=20"));
    assert_eq!(standing(&damaged, "unwanted").len(), 1, "{damaged}");
    let text = scene.cli(&["flows", &id])?;
    assert!(text.contains("\n  + cookie=") && text.contains("\n  - cookie="), "{text}");
    scene.vifd.api("POST", "/v1/resume", None)?;
    scene.vifd.until("it is mended", |_| Ok((scene.a.reaches(&scene.b)?).then_some(())))?;
    Ok(())
}

/// The OpenFlow port of a guest.
fn port(guest: &Guest, vifd: &Vifd) -> Result<i64> {
    let status = vifd.status(&guest.record.id())?.context("a status")?;
    status["facts"]["ofport"].as_i64().context("a port")
}

#[test]
fn what_is_somebody_elses_is_counted_and_told() -> Result<()> {
    let mut scene = scene()?;
    let bridges = scene.get("/v1/bridges")?;
    let flows =
        scene.ofctl(&["--no-stats", "dump-flows"], "")?.lines().filter(|line| line.contains("actions=")).count();
    assert_eq!(bridges[0]["flows"], flows, "{bridges}");
    // The stranger is alone on its network, which takes no group.
    assert_eq!((&bridges[0]["groups"], &bridges[0]["foreign_flows"]), (&Value::from(1), &Value::from(0)));
    scene.ofctl(&["add-flow"], "cookie=0x77,table=40,priority=900,dl_dst=02:00:00:00:00:01,actions=drop")?;
    scene.ofctl(&["add-flow"], "cookie=0x77,table=99,actions=drop")?;
    scene.vifd.until("they are seen", |vifd| {
        let bridges: Value = serde_json::from_str(&vifd.api("GET", "/v1/bridges", None)?.body)?;
        Ok((bridges[0]["foreign_flows"] == 2).then_some(()))
    })?;
    let bridges = scene.get("/v1/bridges")?;
    assert_eq!(bridges[0]["foreign_above"], 1, "{bridges}");
    let text = scene.cli(&["flows"])?;
    assert!(text.contains("table=40, priority=900,dl_dst=02:00:00:00:00:01 actions=drop"), "{text}");
    let others = scene.get("/v1/bridges/br-int/flows?foreign=true")?;
    assert_eq!(standing(&others, "there").len(), 2, "{others}");

    // What cannot be listed, and why.
    for (target, status, word) in [
        ("/v1/bridges/br-other/flows".to_owned(), 409, "managed"),
        ("/v1/networks/nobodys/flows".to_owned(), 404, "no record"),
        (format!("/v1/vifs/{}/flows", "00000000-0000-4000-8000-000000000000"), 404, "not known"),
        (format!("/v1/vifs/{}/flows?tables=3", scene.stranger.record.id()), 400, "no such parameter"),
    ] {
        let answer = scene.vifd.api("GET", &target, None)?;
        assert!(answer.status == status && answer.body.contains(word), "{target}: {} {}", answer.status, answer.body);
    }
    Ok(())
}
