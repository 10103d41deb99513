//! What is told of the flows of managed bridges, on real ovs-vswitchd: `vifd flows` and `vifd trace`, against what
//! `ovs-ofctl` and guests see.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};

use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use vifd_integration::lab::{
    Config, GUEST_DEVICE, Guest, Ovs, Record, Switch, Vifd, check_metrics, guest_record, native_record, network_id,
};

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

/// A reload with more or fewer managed bridges.
fn reload(vifd: &mut Vifd, more: &str) -> Result<()> {
    vifd.config.more = more.to_owned();
    vifd.write_config()?;
    vifd.signal(Signal::SIGHUP)
}

#[test]
fn what_is_configured_and_cannot_be_is_told() -> Result<()> {
    let mut scene = scene()?;
    let logged = |vifd: &Vifd, word: &str| -> Result<Option<()>> {
        Ok(std::fs::read_to_string(vifd.log_file())?.lines().any(|line| line.contains(word)).then_some(()))
    };

    // A bridge of somebody else, before any VIF comes to it.
    let (ovs, vifd) = (&scene.ovs, &mut scene.vifd);
    ovs.vsctl(["add-br", "br-their", "--", "set", "Bridge", "br-their", "datapath_type=netdev"])?;
    let switch = format!("unix:{}", ovs.run_directory().join("br-their.mgmt").display());
    ovs.ofctl(["-O", "OpenFlow14", "add-flow", &switch, "table=3,priority=7,actions=drop"])?;
    let theirs = format!("{MANAGED}[[bridge]]\nname = \"br-their\"\nflows = \"managed\"\ndatapath_type = \"netdev\"\n");
    reload(vifd, &theirs)?;
    vifd.until("the log has it", |vifd| {
        logged(vifd, "bridge br-their was not made by vifd and forwards without flows")
    })?;
    let remedy = "set fail_mode=secure on it, or set takeover = true under [[bridge]] br-their";
    for verb in ["flows", "status", "doctor"] {
        let text = String::from_utf8(scene.vifd.cli(&[verb])?.stdout)?;
        assert!(text.contains("br-their was not made by vifd") && text.contains(remedy), "{verb}: {text}");
    }
    // It is told what goes when it is taken over.
    reload(&mut scene.vifd, &format!("{theirs}takeover = true\n"))?;
    scene.vifd.until("the log has it", |vifd| logged(vifd, "takes over a bridge of somebody else"))?;
    let log = std::fs::read_to_string(scene.vifd.log_file())?;
    let line = log.lines().find(|line| line.contains("takes over a bridge of somebody else")).unwrap_or_default();
    assert!(line.contains("WARN") && line.contains("br-their") && line.contains("flows=1"), "{line}");
    scene.vifd.until("it is managed", |vifd| {
        let bridges: Value = serde_json::from_str(&vifd.api("GET", "/v1/bridges", None)?.body)?;
        let theirs = bridges.as_array().into_iter().flatten().find(|bridge| bridge["bridge"] == "br-their");
        Ok(theirs
            .is_some_and(|bridge| bridge["flows"].as_u64() > Some(0) && bridge["unmanaged"].is_null())
            .then_some(()))
    })?;

    // A bridge that ovs-vswitchd cannot make.
    let nowhere = guest_record(15, 3)?.with_network("bridge", "br-two").with_profile("datapath_type", "nonsense");
    // Its guest has to be there longer than the question.
    let nowhere = Guest::new(&scene.ovs, nowhere)?;
    scene.vifd.put(&nowhere.record)?;
    let status =
        scene.vifd.wait_until(&nowhere.record.id(), "its bridge", |status| status["reason"] == "WaitingForBridge")?;
    let message = status["message"].as_str().unwrap_or_default();
    assert!(message.contains("bridge br-two (datapath_type nonsense)") && message.contains("its log"), "{message}");

    // An update that clashes with another VIF leaves what is there, and says so. A third keeps the network one of several.
    let _third = Guest::plug(&scene.ovs, &mut scene.vifd, guest_record(16, 1)?)?;
    let (a, b) = (&scene.a.record, &scene.b.record);
    let (id, name) = (b.id(), b.vif_name());
    let port = port(&scene.b, &scene.vifd)?;
    scene.vifd.put(&b.clone().with("address", a.mac()))?;
    let status = scene.vifd.wait_until(&id, "refused", |status| status["reason"] == "CannotBeHonoured")?;
    let message = status["message"].as_str().unwrap_or_default();
    assert!(message.ends_with(&format!("port {name} on bridge br-int is left as it was")), "{message}");
    assert_eq!((&status["facts"]["ofport"], &status["facts"]["mac"]), (&Value::from(port), &Value::from(b.mac())));
    assert!(scene.cli(&["describe", &name])?.contains(&format!("ofport          {port}\n")));
    assert!(scene.a.reaches(&scene.b)?);
    scene.vifd.put(b)?;
    scene.vifd.wait_for(&id, "ready")?;

    // What is mended is in the log, a line for all flows of a VIF.
    scene.ofctl(&["del-flows"], &format!("table=20,reg5={port:#x}"))?;
    scene.vifd.until("the repair is logged", |vifd| logged(vifd, "repaired: 1 flow put back"))
}

/// A record with a policy.
fn with_policy(mut record: Record, policy: Value) -> Record {
    record.0["policy"] = policy;
    record
}

impl Scene {
    /// The last line of a trace.
    fn sentence(&self, arguments: &[&str]) -> Result<String> {
        let text = self.cli(&[&["trace"], arguments].concat())?;
        Ok(text.lines().last().unwrap_or_default().trim_start_matches("→ ").to_owned())
    }
}

#[test]
fn a_trace_says_who_gets_a_packet_or_why_nobody_does() -> Result<()> {
    let mut scene = scene()?;
    let name = |guest: &Guest| guest.record.vif_name();
    let (a, b, stranger) = (name(&scene.a), name(&scene.b), name(&scene.stranger));
    let is = |sentence: String, word: &str| assert!(sentence.contains(word), "{word:?} is not in {sentence:?}");

    is(scene.sentence(&[&a, "--to", &b])?, &format!("delivered to VIF {b}"));
    is(scene.sentence(&[&a, "--to", &scene.b.record.ip(), "--tcp-dst", "22"])?, &format!("delivered to VIF {b}"));
    is(scene.sentence(&[&a, "--arp", "--to", &scene.b.record.ip()])?, &format!("delivered to VIF {b}"));
    // Nobody it knows, and no uplink: another network's guest is no other case.
    is(scene.sentence(&[&a, "--to", "02:00:00:00:00:99"])?, "unknown_destination (table 40 lookup)");
    is(scene.sentence(&[&a, "--to", &stranger])?, "unknown_destination (table 40 lookup)");
    let spoofed = format!("ip,dl_src={},dl_dst={}", scene.b.record.mac(), scene.b.record.mac());
    is(scene.sentence(&[&a, "--flow", &spoofed])?, "mac_spoof (table 10 port-security)");
    let spoofed = format!("ip,dl_src={},dl_dst={},nw_src=10.0.0.99", scene.a.record.mac(), scene.b.record.mac());
    is(scene.sentence(&[&a, "--flow", &spoofed])?, "ip_spoof (table 12 port-security-ip)");
    is(scene.sentence(&[&a, "--flow", "dl_vlan=7,ip"])?, "vlan_tag (table 0 classify)");

    // As programs see it: every flow of the way is somebody's.
    let trace = scene.get(&format!("/v1/vifs/{}/trace?to={}", scene.a.record.id(), scene.b.record.id()))?;
    let steps = trace["steps"].as_array().context("steps")?;
    let tables: Vec<u64> = steps.iter().filter_map(|step| step["table"].as_u64()).collect();
    assert_eq!(tables, [0, 10, 11, 12, 20, 40, 60]);
    assert_eq!((&steps[0]["of"]["kind"], &steps[0]["of"]["port"]), (&Value::from("vif"), &Value::from(a.clone())));
    assert_eq!((&steps[2]["of"]["kind"], &steps[6]["of"]["port"]), (&Value::from("bridge"), &Value::from(b.clone())));

    // Rules: what connection tracking says decides.
    let rules = json!({"rules": [{"direction": "ingress", "protocol": "tcp", "port_min": 22, "port_max": 22}]});
    let guarded = Guest::plug(&scene.ovs, &mut scene.vifd, with_policy(guest_record(14, 1)?, rules))?;
    let guarded = name(&guarded);
    is(scene.sentence(&[&a, "--to", &guarded, "--tcp-dst", "22"])?, &format!("delivered to VIF {guarded}"));
    is(scene.sentence(&[&a, "--to", &guarded, "--tcp-dst", "23"])?, "ingress_rules (table 51 ingress-rules)");
    is(scene.sentence(&[&guarded, "--to", &a])?, "egress_rules (table 31 egress-rules)");
    is(scene.sentence(&[&guarded, "--to", &a, "--ct-next", "trk,est,rpl"])?, &format!("delivered to VIF {a}"));
    assert!(scene.cli(&["trace", &a, "--to", &guarded])?.contains("connection tracking is taken to say trk,new"));

    // An inactive one, which is not here as yet.
    let id = scene.b.record.id();
    scene.vifd.put_text(&id, &native_record(&scene.b.record, false).to_string())?;
    scene.vifd.until("it is quarantined", |vifd| {
        let answer = vifd.api("GET", &format!("/v1/vifs/{id}/flows"), None)?;
        Ok((answer.status == 200 && answer.body.matches("\"standing\"").count() == 1).then_some(()))
    })?;
    is(scene.sentence(&[&b, "--to", &a])?, "inactive (table 0 classify)");
    is(scene.sentence(&[&a, "--to", &b])?, "unknown_destination (table 40 lookup)");

    // What makes no sense, and that nothing was written by any of it.
    let mine = format!("/v1/vifs/{}/trace", scene.a.record.id());
    for (query, status, word) in [
        ("?flow=-generate", 400, "flow"),
        ("?flow=nonsense", 400, "ovs-vswitchd refuses"),
        ("?to=nobody", 400, "no MAC"),
        ("?arp=true&icmp=true", 400, "one of"),
        ("?tcp_dst=http", 400, "no port"),
        ("?ct_next=--generate", 400, "no state"),
        ("?from_uplink=true", 400, "no uplink"),
    ] {
        let answer = scene.vifd.api("GET", &format!("{mine}{query}"), None)?;
        assert!(answer.status == status && answer.body.contains(word), "{query}: {} {}", answer.status, answer.body);
    }
    Ok(())
}

#[test]
fn a_network_with_an_uplink_is_traced_both_ways() -> Result<()> {
    let ovs = Ovs::start(Switch::Userspace)?;
    let mut vifd = Vifd::beside(&ovs)?;
    let more = MANAGED.to_owned() + "uplinks = [{ port = \"up0\", networks = [\"*\"] }]\n";
    vifd.config = Config { more, ..Config::default() };
    vifd.start()?;
    vifd.until("the bridge is there", |_| Ok(ovs.row("Bridge", "br-int")?.map(drop)))?;
    ovs.vsctl(["add-port", "br-int", "up0", "--", "set", "Interface", "up0", "type=internal"])?;
    let record = guest_record(11, 1)?.with_network("vlan", 100);
    let a = Guest::plug(&ovs, &mut vifd, record)?;
    let b = Guest::plug(&ovs, &mut vifd, guest_record(12, 1)?.with_network("vlan", 100))?;
    let scene = Scene { stranger: Guest::new(&ovs, guest_record(13, 2)?)?, ovs, vifd, a, b };
    let (a, b) = (scene.a.record.vif_name(), scene.b.record.vif_name());
    let outside = scene.sentence(&[&a, "--to", "02:00:00:00:00:99"])?;
    assert_eq!(outside, "leaves by the uplink up0 on VLAN 100");
    assert_eq!(scene.sentence(&[&a, "--from-uplink"])?, format!("delivered to VIF {a} (vm-1)"));
    let flood = scene.sentence(&[&a, "--arp", "--to", "10.0.0.200"])?;
    assert_eq!(flood, format!("delivered to VIF {b} (vm-1), and leaves by the uplink up0 on VLAN 100"));
    Ok(())
}

/// An ovs-vswitchd that hangs, and somebody in its place who says what no ovs-vswitchd says.
#[test]
fn whoever_does_not_answer_a_trace_is_named() -> Result<()> {
    let ovs = Ovs::start(Switch::Userspace)?;
    let mut vifd = Vifd::beside(&ovs)?;
    // A run directory in which the switch is the real one and the control socket is not.
    let rundir = tempfile::tempdir()?;
    std::os::unix::fs::symlink(ovs.run_directory().join("br-int.mgmt"), rundir.path().join("br-int.mgmt"))?;
    let socket = rundir.path().join("ovs-vswitchd.1.ctl");
    let liar = std::os::unix::net::UnixListener::bind(&socket)?;
    let answers = std::sync::Arc::new(std::sync::Mutex::new(Vec::<u8>::new()));
    let said = std::sync::Arc::clone(&answers);
    std::thread::spawn(move || {
        let mut kept = Vec::new();
        for mut stream in liar.incoming().flatten() {
            let answer = said.lock().map(|answer| answer.clone()).unwrap_or_default();
            // Those who ask nothing see only that somebody is there.
            let _ = stream.set_read_timeout(Some(std::time::Duration::from_millis(200)));
            let mut question = [0; 4096];
            if stream.read(&mut question).is_ok_and(|length| length > 0) {
                let _ = stream.write_all(&answer);
            }
            kept.push(stream);
        }
    });
    let endpoint = format!("{}\"\nrundir = \"{}", ovs.endpoint(), rundir.path().display());
    vifd.config = Config { more: MANAGED.into(), endpoint: Some(endpoint), ..Config::default() };
    vifd.start()?;
    let a = Guest::plug(&ovs, &mut vifd, guest_record(11, 1)?)?;
    let target = format!("/v1/vifs/{}/trace", a.record.id());
    let huge = [b"{\"id\":0,\"error\":null,\"result\":\"".to_vec(), vec![b'x'; 20 << 20]].concat();
    for (answer, status, word) in [
        (b"220 mail".to_vec(), 503, "ovs-vswitchd.1.ctl"),
        (br#"{"id":0,"result":null,"error":"no such bridge\n"}"#.to_vec(), 409, "no such bridge"),
        (huge, 503, "exceeds"),
        // Nothing but nonsense is told of nonsense.
        (br#"{"id":0,"result":"\u0000 7. No match.\nDatapath actions: ((((","error":null}"#.to_vec(), 200, "sentence"),
        (Vec::new(), 503, "did not answer within"),
    ] {
        *answers.lock().map_err(|_| anyhow::anyhow!("the liar is dead"))? = answer;
        let answer = vifd.api_within(std::time::Duration::from_secs(60), "GET", &target, None)?;
        assert!(answer.status == status && answer.body.contains(word), "{word}: {} {}", answer.status, answer.body);
    }
    std::fs::remove_file(&socket)?;
    let answer = vifd.api("GET", &target, None)?;
    assert!(answer.status == 503 && answer.body.contains("ovs-vswitchd.PID.ctl"), "{}", answer.body);
    Ok(())
}

impl Scene {
    /// A counter of a guest's, as Prometheus would scrape it.
    fn counted(&self, name: &str, guest: &Guest, label: &str) -> Result<f64> {
        self.vifd.metric(name, &format!("vif=\"{}\",{label}", guest.record.id()))
    }
}

#[test]
fn packets_are_counted_for_their_vif_whatever_becomes_of_flows() -> Result<()> {
    let mut scene = scene()?;
    let (egress, ingress) = ("direction=\"egress\"", "direction=\"ingress\"");
    assert!(scene.a.reaches(&scene.b)?);
    assert_eq!(scene.a.ping(&scene.b, 20)?.received, 20);
    let wait = |scene: &mut Scene, what: &str, good: &dyn Fn(&Scene) -> Result<bool>| -> Result<()> {
        let begin = std::time::Instant::now();
        while !good(scene)? {
            anyhow::ensure!(begin.elapsed().as_secs() < 60, "{what}");
            std::thread::sleep(std::time::Duration::from_millis(500));
        }
        Ok(())
    };
    // Each of the 22 pings is one packet either way, and there was some ARP.
    let seen = |scene: &Scene, name: &str, label: &str| scene.counted(name, &scene.a, label);
    wait(&mut scene, "22 packets either way", &|scene| {
        let (out, back) =
            (seen(scene, "vifd_vif_packets_total", egress)?, seen(scene, "vifd_vif_packets_total", ingress)?);
        Ok((22.0..40.0).contains(&out) && (22.0..40.0).contains(&back))
    })?;
    assert!(seen(&scene, "vifd_vif_bytes_total", egress)? >= 22.0 * 98.0);
    assert!(!scene.vifd.metrics()?.contains("vifd_vif_dropped_packets_total{"), "no reason without a packet");
    check_metrics(&scene.vifd.metrics()?)?;

    // A guest that says it is another.
    let before = seen(&scene, "vifd_vif_packets_total", egress)?;
    scene.a.namespace().run("ip", ["link", "set", GUEST_DEVICE, "address", "02:00:00:00:00:77"])?;
    assert!(!scene.a.reaches(&scene.b)?);
    wait(&mut scene, "the spoofed packets are counted", &|scene| {
        Ok(seen(scene, "vifd_vif_dropped_packets_total", "reason=\"mac_spoof\"")? > 0.0)
    })?;
    let text = scene.cli(&["describe", &scene.a.record.vif_name()])?;
    assert!(text.contains("mac_spoof") && text.contains("Another's Ethernet source"), "{text}");
    scene.a.namespace().run("ip", ["link", "set", GUEST_DEVICE, "address", &scene.a.record.mac()])?;

    // Flows that are made anew begin at 0; what is told of the VIF does not.
    scene.ofctl(&["del-flows"], "table=20")?;
    scene.vifd.until("they are back", |_| Ok(scene.a.reaches(&scene.b)?.then_some(())))?;
    wait(&mut scene, "the count goes on", &|scene| Ok(seen(scene, "vifd_vif_packets_total", egress)? > before))?;

    // Of the bridge.
    assert!(scene.vifd.metric("vifd_bridge_flows", "bridge=\"br-int\"")? > 100.0);
    assert!(scene.vifd.metric("vifd_bridge_counters_read_timestamp_seconds", "")? > 1e9);
    let ours = "cookie=0x77,table=40,priority=900,dl_dst=02:00:00:00:00:01,actions=drop";
    scene.ofctl(&["add-flow"], ours)?;
    wait(&mut scene, "somebody else's is counted", &|scene| {
        Ok(scene.vifd.metric("vifd_bridge_foreign_flows_above", "")? == 1.0)
    })?;
    let doctor = String::from_utf8(scene.vifd.cli(&["doctor"])?.stdout)?;
    assert!(doctor.contains("above vifd's on bridge br-int"), "{doctor}");

    // A switch that does not answer holds nobody up.
    let vswitchd = scene.ovs.vswitchd().context("it runs")?;
    vswitchd.signal(Signal::SIGSTOP)?;
    std::thread::sleep(std::time::Duration::from_secs(6));
    let begin = std::time::Instant::now();
    let answers: Vec<bool> = std::thread::scope(|threads| {
        let scrape = || scene.vifd.metrics().is_ok_and(|text| text.contains("vifd_vif_packets_total{"));
        let scrapes: Vec<_> = (0..6).map(|_| threads.spawn(scrape)).collect();
        scrapes.into_iter().map(|scrape| scrape.join().unwrap_or(false)).collect()
    });
    let took = begin.elapsed();
    vswitchd.signal(Signal::SIGCONT)?;
    assert_eq!(answers, [true; 6]);
    assert!(took.as_secs() < 5, "six scrapes took {took:?} of a switch that hangs");
    Ok(())
}
