//! VIFs that are functions of a NIC whose embedded switch takes flows: vifd from the record to the proof, with Open vSwitch's
//! kernel datapath over netdevsim. What is counted of the flows and why is `offload.rs`'s business.

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use vifd_integration::lab::{Config, GUEST_DEVICE, Namespace, Ovs, Record, Stream, Switch, Vifd, in_vm, network_id};

use crate::nics::script;
use crate::offload::{Nic, filters, of, offloading};

/// The NIC, as devlink names it.
const DEVICE: &str = "netdevsim/netdevsim10";
/// Where its number of functions is written.
const NUMBER: &str = "/sys/bus/netdevsim/devices/netdevsim10/sriov_numvfs";

/// `[[nic]]` of a host that offloads to two functions.
const SWITCHDEV: &str = "eswitch = \"switchdev\"\nvfs = 2";
/// Of the network, in octets.
const MTU: &str = "1450";
const MANAGED: &str = "flows = \"managed\"";

/// Open vSwitch and vifd on a host with a NIC in legacy mode, without functions.
struct Host {
    vifd: Vifd,
    ovs: Ovs,
    // After the namespace that it is in.
    _nic: Nic,
}

impl Host {
    /// Keys of `[[bridge]]` and of `[[nic]]`; which form of netdevsim.
    fn start(form: &str, bridge: &str, nic: &str) -> Result<Host> {
        Host::on(offloading()?, form, bridge, nic)
    }

    /// The same on another Open vSwitch.
    fn on(ovs: Ovs, form: &str, bridge: &str, nic: &str) -> Result<Host> {
        let _nic = Nic;
        let make = format!(
            "modprobe psample
            insmod \"$VIFD_VM/netdevsim/{form}/netdevsim.ko\"
            echo '10 1' >/sys/bus/netdevsim/new_device"
        );
        ovs.namespace().run("bash", ["-euc", &make])?;
        script("echo 64 >/sys/kernel/debug/netdevsim/netdevsim10/max_vfs")?;
        let mut vifd = Vifd::beside(&ovs)?;
        vifd.config = Config { more: tables(bridge, nic), max_removals: "100%".into(), ..Config::default() };
        vifd.start()?;
        Ok(Host { vifd, ovs, _nic })
    }

    fn shell(&self, text: &str) -> Result<String> {
        self.ovs.namespace().run("bash", ["-euc", text])
    }

    fn ready(&mut self, record: &Record) -> Result<Value> {
        self.vifd.wait_for(&record.id(), "ready")
    }

    /// The number of a function's port on the NIC, and its representor.
    fn representor(&self, vf: u32) -> Result<(u32, String)> {
        representors(&self.ovs)?.remove(&vf).with_context(|| format!("no representor of function {vf}"))
    }

    /// Joins the far side of a function to its representor, as it is now: what the guest sends is what the representor
    /// receives, and with the form that passes packets on, what is sent to the representor is what the guest receives.
    fn join(&self, vf: u32) -> Result<()> {
        let (port, representor) = self.representor(vf)?;
        let text = format!(
            "tc qdisc del dev w{vf} ingress 2>/dev/null || true
            tc qdisc add dev w{vf} ingress
            tc filter add dev w{vf} ingress matchall action mirred ingress redirect dev {representor}
            cat /sys/class/net/w{vf}/ifindex"
        );
        let index = self.shell(&text)?;
        let peer = format!("/sys/kernel/debug/netdevsim/netdevsim10/ports/{port}/peer_ifindex");
        script(&format!("[[ ! -e {peer} ]] || echo {} >{peer}", index.trim())).map(drop)
    }

    /// The guest that has a function.
    fn guest(&self, vf: u32, record: &Record) -> Result<Namespace> {
        let guest = Namespace::new()?;
        let (mac, address) = (record.mac(), format!("{}/24", record.ip()));
        self.ovs.namespace().veth(&format!("w{vf}"), &guest, GUEST_DEVICE, Some(&mac), Some(&address))?;
        guest.plain_device(GUEST_DEVICE)?;
        // As DHCP would tell it: Open vSwitch drops what is larger than its ports.
        guest.run("ip", ["link", "set", GUEST_DEVICE, "mtu", MTU])?;
        self.join(vf)?;
        Ok(guest)
    }

    /// Waits until the status says of a VIF's flows what Open vSwitch and tc say, and gives the condition and the two counts.
    fn told(&mut self, record: &Record, port: &str) -> Result<(Value, u64, u64)> {
        let (ovs, id) = (&self.ovs, record.id());
        let mut last = String::new();
        let told = self.vifd.until(&format!("the status of {port} has the datapath's counts"), |vifd| {
            let dump = |kind: &str| ovs.appctl(["dpctl/dump-flows", "-m", "--names", "system@ovs-system", kind]);
            let (all, hardware) = (dump("type=all")?, dump("type=offloaded")?);
            let status = vifd.status(&id)?.context("no status")?;
            let counts = [&status["facts"]["offloaded_flows"], &status["facts"]["software_flows"]];
            last = format!("{status}\n{all}");
            let [Some(offloaded), Some(software)] = counts.map(Value::as_u64) else { return Ok(None) };
            let same = offloaded == of(&hardware, port) && offloaded + software == of(&all, port);
            Ok(same.then(|| (condition(&status, "Offloaded"), offloaded, software)))
        });
        told.with_context(|| last)
    }
}

/// The tables of a configuration.
fn tables(bridge: &str, nic: &str) -> String {
    format!(
        "[[bridge]]\nname = \"br-int\"\n{bridge}\n[[nic]]\ndevice = \"{DEVICE}\"\n{nic}\n[offload]\nlook_every = \"1s\"\n"
    )
}

/// The representors of functions: by function, the number of the port and the netdev.
fn representors(ovs: &Ovs) -> Result<BTreeMap<u32, (u32, String)>> {
    let text = ovs.namespace().run("devlink", ["-j", "port", "show"])?;
    let shown: Value = serde_json::from_str(&text).context("devlink port show")?;
    let ports = shown["port"].as_object().into_iter().flatten().filter_map(|(handle, port)| {
        let vf = port["vfnum"].as_u64()?.try_into().ok()?;
        Some((vf, (handle.rsplit('/').next()?.parse().ok()?, port["netdev"].as_str()?.to_owned())))
    });
    Ok(ports.collect())
}

/// The mode of the NIC's embedded switch.
fn mode(ovs: &Ovs) -> Result<String> {
    let text = ovs.namespace().run("devlink", ["dev", "eswitch", "show", DEVICE])?;
    Ok(text.split(' ').skip_while(|word| *word != "mode").nth(1).unwrap_or_default().trim().to_owned())
}

fn condition(status: &Value, kind: &str) -> Value {
    let conditions = status["conditions"].as_array().into_iter().flatten();
    conditions.into_iter().find(|condition| condition["type"] == kind).cloned().unwrap_or_default()
}

/// A function as a VIF, whose profile has these keys; without any it has no profile.
fn host_device(vf: u32, profile: Value) -> Record {
    let id = format!("{vf:08x}-4c1d-4d7e-9a52-0d4a8c3e5f60");
    let mut vif = json!({
        "type": "hostdevice", "id": id, "dev_type": "ethernet", "dev_address": format!("{DEVICE}:pf0vf{vf}"),
        "address": format!("22:52:27:00:00:{vf:02x}"),
        "network": {
            "id": network_id(1), "bridge": "br-int", "mtu": 1450,
            "subnets": [{"cidr": "10.0.0.0/24", "ips": [{"address": format!("10.0.0.{}", 100 + vf)}]}],
        },
    });
    if !profile.is_null() {
        vif["port_profile"] = profile;
    }
    Record::native(&vif)
}

/// One whose representor becomes a port, by the name that it has or by another.
fn offloaded(vf: u32, name: Option<&str>) -> Record {
    let mut profile = json!({"type": "openvswitch", "datapath_type": "system"});
    if let Some(name) = name {
        let address = format!("{DEVICE}:pf0vf{vf}");
        profile["datapath_offload"] = json!({"representor_name": name, "representor_address": address});
    }
    host_device(vf, profile)
}

/// What the physical function says of a function.
fn settings(host: &Host, vf: usize) -> Result<Value> {
    let text = host.shell("ip -j -d link show $(ls /sys/bus/netdevsim/devices/netdevsim10/net | grep -x eth0)")?;
    let links: Value = serde_json::from_str(&text)?;
    Ok(links[0]["vfinfo_list"][vf].clone())
}

/// Files of notes on functions.
fn notes(host: &Host) -> Result<usize> {
    Ok(fs::read_dir(host.vifd.state().join("nics"))?.count())
}

/// `ping` and TCP.
fn converse(from: &Namespace, to: &Namespace, record: &Record) -> Result<()> {
    let ping = from.ping(&record.ip(), 3)?;
    ensure!(ping.received > 0, "{ping:?}");
    let stream = Stream::begin(from, to, (record.ip().parse::<std::net::IpAddr>()?, 5001).into())?;
    ensure!(stream.goes_on(1 << 18, Duration::from_secs(30)), "256 KiB by TCP");
    let streamed = stream.end()?;
    ensure!(streamed.sent == streamed.received, "{streamed:?}");
    Ok(())
}

/// What somebody who only sees OVSDB finds there: ports and queues.
fn ports(ovs: &Ovs) -> Result<Vec<String>> {
    let mut rows = ovs.tables(["Port", "Interface", "QoS"])?;
    let mut names = |table| -> Vec<String> {
        let rows = rows.remove(table).unwrap_or_default();
        let mut names: Vec<String> =
            rows.iter().map(|row| row["name"].as_str().unwrap_or_default().to_owned()).collect();
        names.sort();
        names
    };
    let (ports, interfaces) = (names("Port"), names("Interface"));
    ensure!(ports == interfaces, "{ports:?} and {interfaces:?}");
    let queues = rows.remove("QoS").unwrap_or_default().len();
    ensure!(queues + 1 == ports.len(), "{queues} rows of QoS for {ports:?}");
    Ok(ports)
}

#[test]
fn a_nic_in_legacy_mode_comes_to_switch_what_two_guests_say() -> Result<()> {
    in_vm(|| {
        let mut host = Host::start("flower", MANAGED, SWITCHDEV)?;
        let records = [offloaded(0, Some("nic-a")), offloaded(1, None)];
        for record in &records {
            host.vifd.put(record)?;
        }
        for record in &records {
            host.ready(record)?;
        }
        ensure!(mode(&host.ovs)? == "switchdev");
        let names = [host.representor(0)?.1, host.representor(1)?.1];
        ensure!(names[0] == "nic-a", "{names:?}");
        for (vf, name) in names.iter().enumerate() {
            let link = host.ovs.namespace().link(name)?.context("the representor")?;
            ensure!(link.master.as_deref() == Some("ovs-system") && link.up, "{link:?}");
            ensure!(settings(&host, vf)?["address"] == records[vf].mac(), "{}", settings(&host, vf)?);
        }
        ensure!(notes(&host)? == 2);

        let guests = [host.guest(0, &records[0])?, host.guest(1, &records[1])?];
        converse(&guests[0], &guests[1], &records[1])?;
        for (record, name) in records.iter().zip(&names) {
            let (condition, offloaded, software) = host.told(record, name)?;
            println!("{name}: {offloaded} offloaded, {software} in software, {condition}");
            ensure!(condition["status"] == "True" && offloaded > 0, "{condition}");
        }
        let hardware = host.ovs.appctl(["dpctl/dump-flows", "-m", "--names", "system@ovs-system", "type=offloaded"])?;
        let in_hardware = names.iter().map(|port| Ok(filters(&host.ovs, port)?.1)).sum::<Result<usize>>()?;
        ensure!(in_hardware == hardware.lines().count(), "tc has {in_hardware} in hardware:\n{hardware}");

        // Away and back.
        for record in &records {
            host.vifd.remove(record)?;
        }
        for record in &records {
            host.vifd.wait_gone(&record.id())?;
        }
        ensure!(ports(&host.ovs)? == ["br-int"]);
        ensure!(notes(&host)? == 0);
        let (_, named_back) = host.representor(0)?;
        ensure!(named_back != "nic-a", "{named_back}");
        for name in [&named_back, &names[1]] {
            let link = host.ovs.namespace().link(name)?.context("the representor")?;
            ensure!(link.master.is_none() && !link.up, "{link:?}");
        }
        for vf in 0..2 {
            let has = settings(&host, vf)?;
            ensure!(has["address"] == "00:00:00:00:00:00", "{has}");
        }
        for record in &records {
            host.vifd.put(record)?;
        }
        for record in &records {
            host.ready(record)?;
        }
        ensure!(guests[1].ping(&records[0].ip(), 3)?.received > 0, "plugged again");

        // Who starts again finds everything as it is to be.
        let before = ports(&host.ovs)?;
        host.vifd.stop()?;
        host.vifd.start()?;
        for record in &records {
            host.ready(record)?;
        }
        ensure!(host.vifd.metric("vifd_writes_total", "")? == 0.0, "{}", host.vifd.metrics()?);
        ensure!(ports(&host.ovs)? == before);
        Ok(())
    })
}

#[test]
fn a_nic_that_takes_no_flows_has_ready_vifs_and_is_told_of() -> Result<()> {
    in_vm(|| {
        // By the older profile, on a bridge that switches by itself.
        let mut host = Host::start("stock", "", SWITCHDEV)?;
        let named = |vf: u32| {
            let name = format!("nic-{vf}");
            host_device(vf, json!({"type": "ovs_representor", "representor_name": name}))
        };
        let records = [named(0), named(1)];
        for record in &records {
            host.vifd.put(record)?;
        }
        for record in &records {
            host.ready(record)?;
        }
        let guests = [host.guest(0, &records[0])?, host.guest(1, &records[1])?];
        // Nobody hears anything, so they know each other, and the bridge learns who is where.
        for (guest, other) in [(0, 1), (1, 0), (0, 1)] {
            let neighbour =
                format!("neigh replace {} lladdr {} dev {GUEST_DEVICE}", records[other].ip(), records[other].mac());
            guests[guest].run("ip", neighbour.split(' '))?;
            // Nobody answers.
            let _ = guests[guest].run("ping", ["-q", "-c", "2", "-i", "0.2", "-W", "0.1", &records[other].ip()]);
        }
        for (vf, record) in records.iter().enumerate() {
            let name = format!("nic-{vf}");
            let (condition, offloaded, software) = host.told(record, &name)?;
            println!("{name}: {offloaded} offloaded, {software} in software, {condition}");
            ensure!(condition["status"] == "False" && condition["reason"] == "RefusedByNic", "{condition}");
            ensure!(offloaded == 0 && software > 0);
            let status = host.vifd.status(&record.id())?.context("no status")?;
            ensure!(status["phase"] == "ready", "{status}");
        }
        Ok(())
    })
}

#[test]
fn a_nic_changes_its_mode_when_nobody_lives_on_it() -> Result<()> {
    const FUNCTIONS: u32 = 64;
    in_vm(|| {
        // Its part in 64 ports would be most of the time.
        let ovs = Ovs::start(Switch::Dummy)?;
        let mut host = Host::on(ovs, "stock", "", &format!("vfs = {FUNCTIONS}"))?;
        let mut legacy = host_device(0, Value::Null);
        legacy.0["vif"]["network"]["vlan"] = json!(100);
        host.vifd.put(&legacy)?;
        host.ready(&legacy)?;
        let has = settings(&host, 0)?;
        ensure!(has["address"] == legacy.mac() && has["vlan_list"][0]["vlan"] == 100, "{has}");

        host.vifd.config.more = tables("", &format!("eswitch = \"switchdev\"\nvfs = {FUNCTIONS}"));
        host.vifd.write_config()?;
        host.vifd.signal(Signal::SIGHUP)?;
        // All but the first, in no order.
        let records: Vec<Record> = (1..FUNCTIONS).map(|vf| offloaded(vf * 29 % FUNCTIONS, None)).collect();
        for record in &records {
            host.vifd.put(record)?;
        }
        let refused = format!("not changed under the VIFs that live on it: {}", legacy.id());
        let waits = |status: &Value| {
            status["phase"] == "waiting" && status["message"].as_str().is_some_and(|said| said.contains(&refused))
        };
        host.vifd.until("all but one say what is in the way", |vifd| {
            let waiting = vifd.statuses()?.iter().filter(|status| waits(status)).count();
            Ok((waiting == records.len()).then_some(()))
        })?;
        ensure!(host.vifd.status(&legacy.id())?.is_some_and(|status| status["phase"] == "ready"));
        ensure!(mode(&host.ovs)? == "legacy");

        host.vifd.remove(&legacy)?;
        let begun = Instant::now();
        let appeared = host.vifd.until("its representors", |_| {
            Ok((representors(&host.ovs)?.len() == FUNCTIONS as usize).then(Instant::now))
        })?;
        host.vifd.wait_for_all(records.len(), "ready", Duration::from_secs(90))?;
        println!(
            "{:?} from the last VIF to {FUNCTIONS} representors, {:?} from there to ready VIFs",
            appeared - begun,
            appeared.elapsed()
        );
        ensure!(ports(&host.ovs)?.len() == FUNCTIONS as usize);
        ensure!(settings(&host, 0)?["address"] == "00:00:00:00:00:00");

        Ok(())
    })
}

#[test]
fn a_representor_is_followed_wherever_it_goes() -> Result<()> {
    in_vm(|| {
        let mut host = Host::start("flower", "", "eswitch = \"switchdev\"")?;
        let records = [offloaded(0, Some("nic-a")), offloaded(1, None)];
        for record in &records {
            host.vifd.put(record)?;
        }
        for record in &records {
            host.vifd.wait_for(&record.id(), "waiting")?;
        }
        let ovs = &host.ovs;
        host.vifd.until("switchdev mode", |_| Ok((mode(ovs)? == "switchdev").then_some(())))?;
        // It appears late.
        host.shell(&format!("echo 2 >{NUMBER}"))?;
        let ports_are = |host: &mut Host, what: &str| -> Result<()> {
            let (ovs, ids) = (&host.ovs, [records[0].id(), records[1].id()]);
            let mut last = String::new();
            let right = host.vifd.until(what, |vifd| {
                let there = representors(ovs)?;
                let (Some((_, first)), Some((_, second))) = (there.get(&0), there.get(&1)) else { return Ok(None) };
                let mut wanted = vec!["br-int".to_owned(), first.clone(), second.clone()];
                wanted.sort();
                let links = ovs.namespace().links()?;
                let is_port =
                    |name: &str| links.iter().any(|(of, link)| of == name && link.up && link.master.is_some());
                let statuses = ids.iter().map(|id| vifd.status(id)).collect::<Result<Vec<_>>>()?;
                let ready = statuses.iter().flatten().filter(|status| status["phase"] == "ready").count();
                let found = ports(ovs);
                last = format!("{there:?} {found:?} {links:?} {statuses:?}");
                Ok((first == "nic-a"
                    && found.is_ok_and(|found| found == wanted)
                    && is_port(first)
                    && is_port(second)
                    && ready == 2)
                    .then_some(()))
            });
            right.with_context(|| last)
        };
        ports_are(&mut host, "those that appeared late are ports")?;
        let (_, unnamed) = host.representor(1)?;
        // Somebody renames them. This kernel renames no link that is up.
        for vf in [0, 1] {
            let (_, name) = host.representor(vf)?;
            let rename = format!("link set {name} down\nlink set {name} name renamed{vf}\nlink set renamed{vf} up\n");
            // vifd may be the quicker, and set it up.
            host.shell(&format!(
                "for try in {{1..20}}; do echo '{rename}' | ip -batch - 2>/dev/null && exit; done; exit 1"
            ))?;
        }
        // Open vSwitch follows no port that is renamed: they get the names of their ports back.
        ports_are(&mut host, "those that were renamed are ports")?;
        ensure!(host.representor(1)?.1 == unnamed);

        // They vanish with a reload of the NIC, after which this one has no ports of its functions until these are made again,
        // and return as others.
        host.shell(&format!("devlink dev reload {DEVICE}"))?;
        for record in &records {
            host.vifd.wait_for(&record.id(), "waiting")?;
        }
        host.shell(&format!("echo 0 >{NUMBER}; echo 2 >{NUMBER}"))?;
        ports_are(&mut host, "those that returned are ports")?;

        // More happens than anybody can be told of, and is seen all the same.
        host.vifd.signal(Signal::SIGSTOP)?;
        host.shell(&format!(
            "for mtu in {{1300..5300}}; do echo link set {unnamed} mtu $mtu; done | ip -batch -
            echo 0 >{NUMBER}; echo 2 >{NUMBER}"
        ))?;
        host.vifd.signal(Signal::SIGCONT)?;
        ports_are(&mut host, "those that nobody heard of are ports")?;
        let overruns = host.vifd.metric("vifd_resyncs_total", "reason=\"overrun\"")?;
        ensure!(overruns > 0.0, "nothing was lost: {}", host.vifd.metrics()?);

        let guests = [host.guest(0, &records[0])?, host.guest(1, &records[1])?];
        converse(&guests[0], &guests[1], &records[1])?;
        let (condition, offloaded, _) = host.told(&records[1], &host.representor(1)?.1)?;
        ensure!(condition["status"] == "True" && offloaded > 0, "{condition}");
        Ok(())
    })
}
