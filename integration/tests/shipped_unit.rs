//! The agent as it is shipped: systemd as process 1 reads the unit in `deploy/`, installed by the commands of the README,
//! beside Open vSwitch under Debian's own units. What it is allowed is enough for every type of VIF, and no more than the
//! documentation says.

use std::os::unix::fs::{MetadataExt, PermissionsExt};

use anyhow::{Context, Result};
use serde_json::Value;
use vifd_integration::lab::{Machine, Record};

/// Bits of `linux/capability.h`.
const CHOWN: u64 = 1 << 0;
const DAC_OVERRIDE: u64 = 1 << 1;
const FOWNER: u64 = 1 << 3;
const NET_ADMIN: u64 = 1 << 12;

/// On the userspace datapath: no kernel module is in the machine.
fn netdev(name: &str) -> Result<Record> {
    Ok(Record::fixture(name)?.with_profile("datapath_type", "netdev"))
}

/// A hexadecimal field of `/proc/PID/status`.
fn capabilities(machine: &Machine, field: &str) -> Result<u64> {
    let status = machine.run(&format!("cat /proc/{}/status", machine.main_pid("vifd")?))?;
    let value = status.lines().find_map(|line| line.strip_prefix(field)).context("a field of status")?;
    Ok(u64::from_str_radix(value.trim(), 16)?)
}

/// Findings of `vifd doctor` that are not fine, whatever its exit code.
fn complaints(machine: &Machine) -> Result<Vec<Value>> {
    let output = machine.output("vifd doctor -o json")?;
    let findings: Vec<Value> = serde_json::from_slice(&output.stdout)
        .with_context(|| format!("the doctor said {}", String::from_utf8_lossy(&output.stderr)))?;
    Ok(findings.into_iter().filter(|finding| finding["verdict"] != "ok").collect())
}

#[test]
fn every_type_is_plugged_and_unplugged() -> Result<()> {
    let mut machine = Machine::with_vifd()?;
    assert_eq!(complaints(&machine)?, [] as [Value; 0], "right after the installation");
    let hypervisors = netdev("openvswitch-create-port")?.numbered(1);
    let tended = netdev("openvswitch")?.numbered(2);
    let records = [
        netdev("openvswitch-create-tap")?.numbered(3),
        netdev("openvswitch-multiqueue")?.numbered(4),
        netdev("openvswitch-trunk")?.numbered(5),
        Record::fixture("openvswitch-netdev")?.numbered(6),
        Record::fixture("generic")?.numbered(7),
        hypervisors.clone(),
        tended.clone(),
    ];
    for record in &records {
        machine.put(record)?;
    }
    // What the hypervisor does: it makes the one's device, and the other's device and port.
    machine.run(&format!("ip tuntap add {} mode tap && ip link set {0} up", hypervisors.vif_name()))?;
    let bridge = tended.bridge();
    let (port, id) = (tended.vif_name(), tended.id());
    machine.until("the bridge is there", |machine| {
        Ok(machine.output(&format!("ovs-vsctl br-exists {bridge}"))?.status.success().then_some(()))
    })?;
    machine.run(&format!(
        "ip tuntap add {port} mode tap && ip link set {port} up && ovs-vsctl --timeout=20 add-port {bridge} {port} \
         -- set Interface {port} external_ids:iface-id={id}"
    ))?;
    for record in &records {
        machine.wait_for(record, "ready")?;
    }
    for record in [&records[0], &records[3]] {
        let off = machine.run(&format!("cat /proc/sys/net/ipv6/conf/{}/disable_ipv6", record.vif_name()))?;
        assert_eq!(off.trim(), "1", "of {}", record.vif_name());
    }
    for record in &records {
        machine.unplug(record)?;
    }
    let left = machine.run("ip -o link show type tun | grep -o 'tap[^:]*' | sort; ovs-vsctl list-ports br-int")?;
    assert_eq!(left.lines().collect::<Vec<_>>(), [hypervisors.vif_name(), port], "what the hypervisor made stays");
    Ok(())
}

#[test]
fn it_may_do_what_it_needs_and_nothing_else() -> Result<()> {
    let mut machine = Machine::with_vifd()?;
    for field in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
        assert_eq!(capabilities(&machine, field)?, NET_ADMIN, "{field}");
    }
    let pid = machine.main_pid("vifd")?;
    let status = machine.run(&format!("cat /proc/{pid}/status"))?;
    let user = machine.run("id -u vifd")?;
    assert!(status.contains(&format!("Uid:\t{0}\t{0}\t{0}\t{0}", user.trim())), "{status}");
    assert!(status.contains("NoNewPrivs:\t1") && status.contains("Seccomp:\t2"), "{status}");
    let mounts = machine.run(&format!("cat /proc/{pid}/mounts"))?;
    // The last mount on a place is the one that is seen.
    let options = |place: &str| {
        let mount = mounts.lines().rfind(|line| line.split(' ').nth(1) == Some(place));
        mount.and_then(|line| line.split(' ').nth(3)).unwrap_or_default().to_owned()
    };
    for (place, may) in [
        ("/", "ro,"),
        ("/run", "ro,"),
        ("/proc/sys", "ro,"),
        ("/proc/sys/net", "rw,"),
        ("/run/vifd", "rw,"),
        ("/var/lib/vifd", "rw,"),
    ] {
        assert!(options(place).starts_with(may), "{place} is not {may}:\n{mounts}");
    }
    let devices = machine.run(&format!("ls /proc/{pid}/root/dev /proc/{pid}/root/dev/net"))?;
    assert!(devices.contains("tun") && !devices.contains("kmsg") && !devices.contains("loop"), "{devices}");

    // Without its one capability it says so, and so does the doctor.
    machine.run(
        "mkdir -p /etc/systemd/system/vifd.service.d
         printf '[Service]\\nAmbientCapabilities=\\n' >/etc/systemd/system/vifd.service.d/none.conf
         systemctl daemon-reload; systemctl restart vifd",
    )?;
    let record = netdev("openvswitch-create-tap")?;
    machine.put(&record)?;
    let refused = machine.wait_for(&record, "failed")?;
    assert!(refused.to_string().contains("Operation not permitted"), "{refused}");
    let said = complaints(&machine)?;
    assert!(said.iter().any(|one| one["name"] == "capabilities" && one["verdict"] == "fail"), "{said:?}");
    machine.run("rm /etc/systemd/system/vifd.service.d/none.conf; systemctl daemon-reload; systemctl restart vifd")?;
    machine.wait_for(&record, "ready")?;
    Ok(())
}

#[test]
fn files_and_sockets_are_for_whom_they_are() -> Result<()> {
    let machine = Machine::with_vifd()?;
    let record = netdev("openvswitch-create-tap")?;
    machine.run("useradd --system mallory; useradd --system --groups vifd alice")?;
    // Handed in by a member of the group, through the API.
    fs_write(&machine, "tmp/vif.json", &record.0.to_string())?;
    let plugged = machine.output_as("alice", "vifd plug /tmp/vif.json --wait")?;
    assert!(plugged.status.success(), "{plugged:?}");
    machine.run("vifd pause; vifd resume")?;
    let id: u32 = machine.run("id -u vifd")?.trim().parse()?;
    let record_file = format!("var/lib/vifd/vifs/{}.json", record.id());
    for (path, mode) in [
        ("run/vifd", 0o755),
        ("run/vifd/api.sock", 0o660),
        ("var/lib/vifd", 0o750),
        ("var/lib/vifd/vifs", 0o750),
        (record_file.as_str(), 0o640),
        ("var/lib/vifd/state", 0o750),
        ("var/lib/vifd/state/deleted", 0o750),
        ("var/lib/vifd/state/lock", 0o640),
        ("var/lib/vifd/state/agent-id", 0o640),
        ("var/lib/vifd/state/pauses.json", 0o640),
    ] {
        let metadata = machine.path(path).symlink_metadata().with_context(|| path.to_owned())?;
        assert_eq!(metadata.permissions().mode() & 0o7777, mode, "{path}");
        assert_eq!((metadata.uid(), metadata.gid()), (id, id), "{path}");
    }
    for attempt in [
        "vifd status",
        "vifd plug /tmp/vif.json",
        "ls /var/lib/vifd/vifs",
        "ls /var/lib/vifd/state",
        "touch /run/vifd/x",
        "mv /run/vifd/api.sock /run/vifd/y",
        "ovs-vsctl --timeout=5 show",
        "kill -HUP $(pidof vifd)",
    ] {
        let output = machine.output_as("mallory", attempt)?;
        assert!(!output.status.success(), "mallory could {attempt:?}: {output:?}");
    }
    // The agent's user by itself gets at the database, which is what it is for, and at nothing of root's.
    assert!(machine.output_as("vifd", "ovs-vsctl --timeout=5 get Open_vSwitch . ovs_version")?.status.success());
    for attempt in ["cat /etc/shadow", "touch /run/openvswitch/x", "cat /etc/openvswitch/conf.db"] {
        assert!(!machine.output_as("vifd", attempt)?.status.success(), "vifd could {attempt:?}");
    }
    Ok(())
}

fn fs_write(machine: &Machine, path: &str, text: &str) -> Result<()> {
    std::fs::write(machine.path(path), text)?;
    Ok(())
}

#[test]
fn it_comes_back_to_an_open_vswitch_that_is_restarted() -> Result<()> {
    let mut machine = Machine::with_vifd()?;
    let record = netdev("openvswitch-create-tap")?;
    machine.put(&record)?;
    machine.wait_for(&record, "ready")?;
    let second = netdev("openvswitch-create-tap")?;
    for (number, harm) in [
        "systemctl restart openvswitch-switch",
        "kill -KILL $(cat /run/openvswitch/ovsdb-server.pid)",
        "kill -KILL $(cat /run/openvswitch/ovs-vswitchd.pid)",
        "systemctl stop openvswitch-switch ovsdb-server; rm -r /run/openvswitch; systemctl start openvswitch-switch",
    ]
    .into_iter()
    .enumerate()
    {
        machine.run(harm)?;
        // A plug needs the database, the switch, and a look at the switch's control socket.
        let more = second.clone().numbered(u32::try_from(number)? + 20);
        machine.put(&more)?;
        machine.wait_for(&more, "ready").with_context(|| format!("after {harm}"))?;
        machine.wait_for(&record, "ready").with_context(|| format!("after {harm}"))?;
    }
    // Its sockets were made anew each time, and are open to vifd and closed to everybody else.
    assert_eq!(complaints(&machine)?, [] as [Value; 0]);

    // A wrong line in some other package's tmpfiles.d keeps no switch from starting.
    machine.run(
        "echo 'nonsense /run/x' >/etc/tmpfiles.d/wrong.conf
         systemctl restart openvswitch-switch; ovs-vsctl --timeout=20 show",
    )?;
    let said = machine.run("journalctl --no-pager --unit=ovsdb-server")?;
    assert!(said.contains("/etc/tmpfiles.d/wrong.conf:1"), "{said}");
    machine.wait_for(&record, "ready")?;
    Ok(())
}

/// A bridge's management socket is made by ovs-vswitchd with the bridge, whenever that is.
#[test]
fn flows_take_the_sockets_of_bridges_which_are_open_to_it() -> Result<()> {
    let mut machine = Machine::with_vifd()?;
    machine.run(
        "printf '\\n[[bridge]]\\nname = \"br-int\"\\nflows = \"managed\"\\ndatapath_type = \"netdev\"\\n' \
             >>/etc/vifd/vifd.toml
         systemctl restart vifd",
    )?;
    let record = netdev("openvswitch-create-tap")?;
    machine.put(&record)?;
    // An ovs-vswitchd that has run since before the installation makes it closed, and the doctor says so.
    machine.until("the bridge is there", |machine| {
        Ok(machine.output("test -S /run/openvswitch/br-int.mgmt")?.status.success().then_some(()))
    })?;
    let said = complaints(&machine)?;
    let named = said.iter().find(|one| one["message"].to_string().contains("br-int.mgmt"));
    let named = named.with_context(|| format!("nothing of the socket in {said:#?}"))?;
    assert!(named["remedy"].to_string().contains("systemd-tmpfiles --create vifd.conf"), "{named}");
    machine.run("systemd-tmpfiles --create vifd.conf")?;
    machine.wait_for(&record, "ready")?;

    for harm in [
        "systemctl restart openvswitch-switch",
        "kill -KILL $(cat /run/openvswitch/ovs-vswitchd.pid)",
        // The socket goes with the bridge and comes with the next one.
        "ovs-vsctl --timeout=20 del-br br-int",
    ] {
        machine.run(harm)?;
        // Whether it still is, or is again: the flows are asked for over the one socket, the trace over the other.
        machine.until(&format!("flows after {harm}"), |machine| {
            let id = record.id();
            let flows = machine.output(&format!("vifd flows {id}"))?;
            let trace = machine.output(&format!("vifd trace {id} --to ff:ff:ff:ff:ff:ff"))?;
            let (flows, trace) = (String::from_utf8_lossy(&flows.stdout), String::from_utf8_lossy(&trace.stdout));
            let whole = flows.contains("table 60 output") && !flows.contains("  + ");
            Ok((whole && trace.contains("→ ")).then_some(()))
        })?;
        machine.wait_for(&record, "ready").with_context(|| format!("after {harm}"))?;
    }
    assert_eq!(complaints(&machine)?, [] as [Value; 0]);
    let others = machine.output_as("nobody", "ovs-ofctl -O OpenFlow14 show unix:/run/openvswitch/br-int.mgmt")?;
    assert!(!others.status.success(), "it is open to everybody");
    Ok(())
}

#[test]
fn the_doctor_names_what_mends_it() -> Result<()> {
    let mut machine = Machine::with_vifd()?;
    let expect = |machine: &Machine, name: &str, remedy: &str| -> Result<()> {
        let said = complaints(machine)?;
        let found = said.iter().any(|one| one["name"] == name && one["remedy"].to_string().contains(remedy));
        assert!(found, "nothing of {name} with {remedy:?} in {said:#?}");
        Ok(())
    };
    // Open vSwitch without the drop-ins: closed after its restart.
    machine.run(
        "rm -r /etc/systemd/system/ovs*.service.d; systemctl daemon-reload; systemctl restart openvswitch-switch",
    )?;
    expect(&machine, "ovs sockets", "systemd-tmpfiles --create vifd.conf")?;
    expect(&machine, "ovs sockets", "deploy/ovs-vswitchd.service.d/vifd.conf")?;
    machine.run("systemd-tmpfiles --create vifd.conf")?;
    machine.until("vifd is connected again", |machine| {
        let said = complaints(machine)?;
        Ok(said.iter().all(|one| one["verdict"] != "fail").then_some(()))
    })?;
    // Until it is restarted again, which the other finding is about.
    expect(&machine, "ovs sockets", "deploy/ovsdb-server.service.d/vifd.conf")?;

    machine.run("chown root /var/lib/vifd/state")?;
    expect(&machine, "state directory", "chown -R")?;
    machine.run("chown vifd /var/lib/vifd/state; chmod g+w /var/lib/vifd/state")?;
    expect(&machine, "state directory", "chmod go-w /var/lib/vifd/state")?;
    machine.run("chmod g-w /var/lib/vifd/state; chown root:root /var/lib/vifd/vifs")?;
    expect(&machine, "records", "chown vifd: /var/lib/vifd/vifs")?;
    machine.run("chown vifd: /var/lib/vifd/vifs; sed -i 's/^owner = \"\"/owner = \"root\"/' /etc/vifd/vifd.toml")?;
    expect(&machine, "capabilities", "vhost-user.conf")?;
    Ok(())
}

#[test]
fn vhost_user_takes_its_drop_ins() -> Result<()> {
    let mut machine = Machine::with_vifd()?;
    machine.follow("## vhost-user")?;
    // As an operator who wants guests of the group kvm to make their sockets, and DPDK in a small machine.
    machine.run(
        "groupadd --system kvm; sed -i 's/^group = \"\"/group = \"kvm\"/' /etc/vifd/vifd.toml; systemctl restart vifd
         update-alternatives --set ovs-vswitchd /usr/lib/openvswitch-switch-dpdk/ovs-vswitchd-dpdk
         ovs-vsctl --no-wait set Open_vSwitch . other_config:dpdk-init=true other_config:pmd-cpu-mask=0x2 \
           other_config:per-port-memory=true \
           other_config:dpdk-extra='\"--no-pci --no-huge --legacy-mem -m 512 --no-telemetry\"'
         systemctl restart openvswitch-switch",
    )?;
    assert_eq!(capabilities(&machine, "CapEff:")?, NET_ADMIN | CHOWN | FOWNER);
    let path = |name: &str| format!("/var/run/openvswitch/{name}");
    let client = Record::fixture("vhostuser-client")?;
    let client = client.clone().with("path", path(&client.vif_name()));
    let server = Record::fixture("vhostuser-server")?.numbered(20).with("path", path("guests/server.sock"));
    for record in [&client, &server] {
        machine.put(record)?;
    }
    for record in [&client, &server] {
        machine.wait_for(record, "ready")?;
    }
    let said = complaints(&machine)?;
    assert_eq!(said, [] as [Value; 0]);
    let group: u32 = machine.run("getent group kvm | cut -d: -f3")?.trim().parse()?;
    let folder = machine.path("run/openvswitch/guests").metadata()?;
    assert_eq!((folder.gid(), folder.permissions().mode() & 0o7777), (group, 0o770), "as [vhostuser] says");
    // A switch that was killed leaves its socket behind, and who unplugs then has to take it away.
    let left = machine.path(&format!("run/openvswitch/{}", client.vif_name()));
    machine.run("systemctl stop ovs-vswitchd; systemctl start ovsdb-server")?;
    machine.run(&format!(
        "rm -f /run/openvswitch/{0}; perl -MSocket -e 'socket(S, AF_UNIX, SOCK_STREAM, 0); \
         bind(S, sockaddr_un(\"/run/openvswitch/{0}\")) || die'",
        client.vif_name()
    ))?;
    assert!(left.symlink_metadata().is_ok());
    for record in [&client, &server] {
        machine.unplug(record)?;
    }
    assert!(left.symlink_metadata().is_err(), "the socket is left over");
    Ok(())
}

/// Making virtual functions and giving them drivers is writing to files of root's, in a sysfs that is read-only without the
/// drop-in.
#[test]
fn functions_of_nics_take_their_drop_in() -> Result<()> {
    let machine = Machine::with_vifd()?;
    machine.run(
        "printf '\\n[[nic]]\\ndevice = \"pci/0000:7f:00.0\"\\nvfs = 2\\n' >>/etc/vifd/vifd.toml; systemctl restart vifd",
    )?;
    // With what the agent sees of the host and what it may: back to what is there already.
    let attempt = |place: &str| {
        let (pid, may) = (machine.main_pid("vifd")?, capabilities(&machine, "CapEff:")?);
        let more = if may & DAC_OVERRIDE == 0 { "" } else { ",+dac_override" };
        machine.output(&format!(
            "nsenter --target={pid} --mount setpriv --reuid=vifd --regid=vifd --clear-groups \
               --inh-caps=-all,+net_admin{more} --ambient-caps=-all,+net_admin{more} \
               bash -c 'read -r is <{place} && echo $is >{place}' 2>&1"
        ))
    };
    let places = ["/sys/bus/pci/drivers_autoprobe", "/sys/devices/virtual/net/lo/tx_queue_len"];
    let closed = "/sys/module/tcp_cubic/parameters/beta";
    for place in places {
        let refused = attempt(place)?;
        let said = String::from_utf8_lossy(&refused.stdout).into_owned();
        assert!(!refused.status.success() && said.contains("Read-only file system"), "{place}: {refused:?}");
    }
    let said = complaints(&machine)?;
    for (name, words) in [("capabilities", "nics.conf"), ("sysfs", "nics.conf"), ("nic", "devlink dev")] {
        let found = said.iter().find(|one| one["name"] == name).with_context(|| format!("no {name} in {said:#?}"))?;
        assert!(found["verdict"] == "fail" && found["remedy"].to_string().contains(words), "{found}");
    }

    machine.follow("## NICs")?;
    assert_eq!(capabilities(&machine, "CapEff:")?, NET_ADMIN | DAC_OVERRIDE);
    for place in places {
        let done = attempt(place)?;
        assert!(done.status.success(), "{place}: {done:?}");
    }
    if machine.output(&format!("test -e {closed}"))?.status.success() {
        assert!(!attempt(closed)?.status.success(), "all of sysfs is open");
    }
    // The NIC is as absent as before, and nothing else is wrong.
    let said = complaints(&machine)?;
    assert_eq!(said.iter().map(|one| &one["name"]).collect::<Vec<_>>(), ["nic"], "{said:#?}");
    let nics = machine.run("vifd nics")?;
    assert!(nics.contains("this host has no NIC pci/0000:7f:00.0"), "{nics}");
    let journal = machine.run("journalctl --no-pager --unit=vifd; vifd status")?;
    assert_eq!(journal.matches("this host has no NIC pci/0000:7f:00.0").count(), 3, "once for each start: {journal}");
    Ok(())
}

/// Exposure as `systemd-analyze` puts it, in tenths.
fn exposure(text: &str) -> Option<u32> {
    let (whole, tenth) = text.trim().split_once('.')?;
    Some(whole.parse::<u32>().ok()? * 10 + tenth.get(..1)?.parse::<u32>().ok()?)
}

#[test]
fn the_sandbox_is_as_tight_as_the_documentation_says() -> Result<()> {
    let machine = Machine::boot()?;
    machine.bring_repository()?;
    let documented = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/deployment.md"))?;
    machine.run("install target/release/vifd /usr/bin")?;
    for (drop_in, row) in [
        (None, "| `deploy/vifd.service` | "),
        (Some("vhost-user.conf"), "| with `vifd.service.d/vhost-user.conf` | "),
        (Some("macvtap.conf"), "| with `vifd.service.d/macvtap.conf` | "),
        (Some("nics.conf"), "| with `vifd.service.d/nics.conf` | "),
    ] {
        // systemd-analyze takes the drop-ins beside a unit with it.
        let unit = format!("/tmp/{}/vifd.service", drop_in.unwrap_or("alone"));
        machine.run(&format!("install -D -m 0644 deploy/vifd.service {unit}"))?;
        if let Some(drop_in) = drop_in {
            machine.run(&format!("install -D -m 0644 -t {unit}.d deploy/vifd.service.d/{drop_in}"))?;
        }
        let said =
            documented.lines().find_map(|line| line.strip_prefix(row)).context("the row of the documentation")?;
        let found = machine.run(&format!("systemd-analyze security --no-pager --offline=true {unit}"))?;
        let (_, last) = found.rsplit_once("vifd.service: ").context("the overall exposure")?;
        let (found, said) = (exposure(last).context("a number")?, exposure(said).context("a number")?);
        assert_eq!(found, said, "tenths of exposure of {unit}: say so in docs/deployment.md if it is meant");
    }
    // systemd understands every line of what is shipped.
    let verified = machine.output("systemd-analyze verify deploy/vifd.service 2>&1 | grep vifd.service: || true")?;
    assert_eq!(String::from_utf8_lossy(&verified.stdout), "");
    Ok(())
}

#[test]
fn systemd_starts_reloads_revives_and_stops_it_under_traffic() -> Result<()> {
    let mut machine = Machine::with_vifd()?;
    let guests = [netdev("openvswitch-create-port")?.numbered(1), netdev("openvswitch-create-port")?.numbered(2)];
    for record in &guests {
        let name = record.vif_name();
        machine.run(&format!(
            "ip netns add {name}; ip link add {name} type veth peer name eth0 netns {name}; ip link set {name} up
             ip -n {name} link set eth0 address {} up; ip -n {name} addr add {}/8 dev eth0",
            record.mac(),
            record.ip()
        ))?;
        machine.put(record)?;
        machine.wait_for(record, "ready")?;
    }
    machine.run(&format!(
        "ip netns exec {} ping -n -q -i 0.02 {} >/tmp/ping.log 2>&1 & echo $! >/tmp/ping.pid",
        guests[0].vif_name(),
        guests[1].ip()
    ))?;

    // `systemctl` comes back when READY=1 has come, or fails.
    machine.run("systemctl restart vifd")?;
    machine.run("sed -i 's/^level = .*/level = \"debug\"/' /etc/vifd/vifd.toml; systemctl reload vifd")?;
    machine.until("it was read again", |machine| {
        let journal = machine.run("journalctl --no-pager --unit=vifd")?;
        Ok(journal.contains("the configuration was read again").then_some(()))
    })?;
    assert!(machine.output("systemctl is-active vifd")?.status.success(), "after the reload");

    let was = machine.main_pid("vifd")?;
    machine.run("systemctl kill --signal=KILL vifd")?;
    machine
        .until("systemd has started it again", |machine| Ok(machine.main_pid("vifd").ok().filter(|pid| *pid != was)))?;
    machine.wait_for(&guests[0], "ready")?;

    // It is started as often as it takes: systemd's own limit is five attempts in ten seconds.
    machine
        .run("mv /etc/vifd/vifd.toml /tmp; echo '[agnt]' >/etc/vifd/vifd.toml; systemctl restart --no-block vifd")?;
    machine.until("it was started again and again", |machine| {
        let restarts = machine.run("systemctl show --property=NRestarts --value vifd")?;
        Ok(restarts.trim().parse::<u32>().is_ok_and(|restarts| restarts > 6).then_some(()))
    })?;
    machine.run("mv /tmp/vifd.toml /etc/vifd")?;
    machine.wait_for(&guests[0], "ready")?;

    // One that hangs gives no sign of life. It is 30 s as shipped, which a test need not wait for.
    machine.run(
        "mkdir -p /run/systemd/system/vifd.service.d
         printf '[Service]\\nWatchdogSec=5\\n' >/run/systemd/system/vifd.service.d/watchdog.conf
         systemctl daemon-reload; systemctl restart vifd",
    )?;
    let was = machine.main_pid("vifd")?;
    machine.run(&format!("kill -STOP {was}"))?;
    machine.until("the watchdog has noticed", |machine| Ok(machine.main_pid("vifd").ok().filter(|pid| *pid != was)))?;
    assert!(machine.run("journalctl --no-pager --unit=vifd")?.contains("Watchdog timeout"));
    machine.wait_for(&guests[0], "ready")?;
    let metrics = machine.run("perl -MIO::Socket::INET -e '
        my $s = IO::Socket::INET->new(\"127.0.0.1:9466\") or die; print $s \"GET /metrics HTTP/1.0\\r\\n\\r\\n\"; print <$s>'")?;
    let writes: Vec<&str> = metrics.lines().filter(|line| line.starts_with("vifd_writes_total")).collect();
    assert!(writes.iter().all(|line| line.ends_with(" 0")), "{writes:?}");

    let rows = "ovs-vsctl --columns=_uuid,name,ofport,external_ids list Interface; ip -o link show type veth";
    let before = machine.run(rows)?;
    machine.run("systemctl stop vifd")?;
    assert_eq!(machine.run(rows)?, before, "stopping it changed something");
    machine.run("systemctl start vifd")?;
    machine.wait_for(&guests[1], "ready")?;
    let counts = machine.run(
        "kill -INT $(cat /tmp/ping.pid); while kill -0 $(cat /tmp/ping.pid) 2>/dev/null; do sleep 0.1; done
        sed -n 's/^\\([0-9]*\\) packets transmitted, \\([0-9]*\\) received.*/\\1 \\2/p' /tmp/ping.log",
    )?;
    let (sent, received) = counts.trim().split_once(' ').with_context(|| format!("counts of ping: {counts:?}"))?;
    let (sent, received): (u32, u32) = (sent.parse()?, received.parse()?);
    assert!(sent > 100 && received + 1 >= sent, "{sent} sent, {received} received");
    Ok(())
}

#[test]
fn started_by_hand_it_gives_up_what_it_does_not_need() -> Result<()> {
    let mut machine = Machine::with_vifd()?;
    machine.run("systemctl stop vifd; rm -rf /run/vifd /var/lib/vifd/state")?;
    // As root and not told otherwise it stays root, and the doctor says so.
    machine.run("(exec setsid vifd run >/tmp/vifd.log 2>&1) & echo $! >/tmp/vifd.pid")?;
    machine.until("it answers", |machine| Ok(machine.output("vifd status")?.status.success().then_some(())))?;
    let said = complaints(&machine)?;
    assert!(said.iter().any(|one| one["name"] == "user" && one["message"].to_string().contains("as root")), "{said:?}");
    machine.run("kill $(cat /tmp/vifd.pid); while [ -e /run/vifd/api.sock ]; do sleep 0.1; done")?;
    machine.run("rm -rf /run/vifd /var/lib/vifd/state; sed -i 's/^user = .*/user = \"vifd\"/' /etc/vifd/vifd.toml")?;
    machine.run("(exec setsid vifd run >/tmp/vifd.log 2>&1) & echo $! >/tmp/vifd.pid")?;
    let record = netdev("openvswitch-create-tap")?;
    machine.put(&record)?;
    machine.wait_for(&record, "ready")?;
    let status = machine.run("cat /proc/$(cat /tmp/vifd.pid)/task/*/status")?;
    for (field, wanted) in [("CapPrm:", NET_ADMIN), ("CapEff:", NET_ADMIN), ("CapBnd:", NET_ADMIN), ("CapInh:", 0)] {
        let found: Vec<u64> =
            status.lines().filter_map(|line| u64::from_str_radix(line.strip_prefix(field)?.trim(), 16).ok()).collect();
        assert!(found.len() > 1, "one of each thread");
        assert!(found.iter().all(|one| *one == wanted), "{field} {found:x?}");
    }
    assert!(!status.contains("Uid:\t0") && !status.contains("NoNewPrivs:\t0"), "{status}");
    assert_eq!(complaints(&machine)?, [] as [Value; 0]);
    machine.unplug(&record)?;
    machine.run("kill $(cat /tmp/vifd.pid); while [ -e /run/vifd/api.sock ]; do sleep 0.1; done")?;

    machine.run("sed -i 's/^user = .*/user = \"nobody-here\"/' /etc/vifd/vifd.toml")?;
    let refused = machine.output("vifd run")?;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("there is no user") && said.contains("nobody-here"), "{said}");
    Ok(())
}

#[test]
fn what_an_attacker_lays_is_refused_by_name() -> Result<()> {
    let mut machine = Machine::with_vifd()?;
    machine.run("systemctl stop vifd; useradd --system mallory; install -d -o vifd /tmp/own; echo precious >/tmp/victim; chown vifd /tmp/victim")?;
    let config = "[agent]\nstate_dir = '/tmp/own/state'\n[api]\nsocket = '/tmp/own/run/api.sock'\n";
    fs_write(&machine, "tmp/vifd.toml", config)?;
    for (laid, path) in [
        ("install -d -o mallory /tmp/elsewhere; ln -s /tmp/elsewhere /tmp/own/state", "/tmp/own/state"),
        ("install -d -o mallory /tmp/own/state", "/tmp/own/state"),
        ("install -d -o vifd -m 0777 /tmp/own/state", "/tmp/own/state"),
        ("install -d -o vifd /tmp/own/state; ln -s /tmp/victim /tmp/own/state/lock", "/tmp/own/state/lock"),
        (
            "install -d -o vifd /tmp/own/state; ln -s /tmp/victim /tmp/own/state/pauses.json",
            "/tmp/own/state/pauses.json",
        ),
        ("install -d -o vifd /tmp/own/state; ln -s /tmp /tmp/own/state/deleted", "/tmp/own/state/deleted"),
        ("install -d -o vifd /tmp/own/run; ln -s /tmp/victim /tmp/own/run/api.sock", "/tmp/own/run/api.sock"),
        ("install -d -o vifd /tmp/own/run; echo x >/tmp/own/run/api.sock", "/tmp/own/run/api.sock"),
        ("install -d -o vifd -m 0777 /tmp/own/run", "/tmp/own/run"),
    ] {
        machine.run(&format!("rm -rf /tmp/own/* /tmp/elsewhere; {laid}"))?;
        let output = machine.output_as("vifd", "timeout 10 vifd run --config /tmp/vifd.toml")?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "started in spite of {laid}: {said}");
        let last = said.lines().last().unwrap_or_default();
        assert!(last.contains(path), "{laid}: {last}");
        assert_eq!(machine.run("cat /tmp/victim")?, "precious\n", "{laid}");
    }

    // A directory of records into which mallory may write, as a careless host has it.
    machine.run(
        "systemctl start vifd; groupadd drop; usermod --append --groups drop mallory; chgrp drop /var/lib/vifd/vifs
        chmod 2770 /var/lib/vifd/vifs; chmod o+x /var/lib/vifd; echo hush-hush >/tmp/secret; chmod 0644 /tmp/secret",
    )?;
    let record = netdev("openvswitch-create-tap")?;
    let laid = machine.output_as(
        "mallory",
        &format!(
            "cd /var/lib/vifd/vifs && ln -s /tmp/secret a.json && mkfifo b.json && ln -s /tmp/victim .{}.json.new",
            record.id()
        ),
    )?;
    assert!(laid.status.success(), "{laid:?}");
    // The kernel's fs.protected_hardlinks would keep mallory from it; where it is off, she could.
    machine.run("ln /tmp/secret /var/lib/vifd/vifs/c.json")?;
    for (file, why) in [("a.json", "symbolic link"), ("b.json", "not a regular file"), ("c.json", "hard links")] {
        machine.until(&format!("{file} is refused"), |machine| {
            let status = machine.run("vifd status -o json")?;
            Ok((status.contains(file) && status.contains(why)).then_some(()))
        })?;
    }
    assert!(
        !machine.run("vifd status -o json; journalctl --no-pager --unit=vifd")?.contains("hush"),
        "told to who may not read it"
    );
    fs_write(&machine, "tmp/vif.json", &record.0.to_string())?;
    machine.run("vifd plug /tmp/vif.json --wait")?;
    assert_eq!(machine.run("cat /tmp/victim")?, "precious\n", "written through a link");
    let written = machine.path(&format!("var/lib/vifd/vifs/{}.json", record.id())).symlink_metadata()?;
    assert!(written.is_file());

    // Everybody may write: nothing of it is believed any more, and what is there stays.
    machine.run("chmod o+w /var/lib/vifd/vifs")?;
    machine.until("it is refused", |machine| {
        let status = machine.run("vifd status -o json")?;
        Ok(status.contains("can be written by everybody").then_some(()))
    })?;
    machine.run(&format!("ip link show {}", record.vif_name()))?;
    machine.run("chmod o-w /var/lib/vifd/vifs")?;
    machine.wait_for(&record, "ready")?;
    Ok(())
}
