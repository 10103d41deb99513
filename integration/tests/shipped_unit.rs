//! The agent as it is shipped: systemd as process 1 reads the unit in `deploy/`, installed by the commands of the README,
//! beside Open vSwitch under Debian's own units. What it is allowed is enough for every type of VIF, and no more than the
//! documentation says.

use std::os::unix::fs::{MetadataExt, PermissionsExt};

use anyhow::{Context, Result};
use serde_json::Value;
use vifd_integration::lab::{Machine, Record};

/// Bits of `linux/capability.h`.
const CHOWN: u64 = 1 << 0;
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
    let second = netdev("openvswitch-create-tap")?.numbered(2);
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
        let more = second.clone().numbered(u32::try_from(number)? + 2);
        machine.put(&more)?;
        machine.wait_for(&more, "ready").with_context(|| format!("after {harm}"))?;
        machine.wait_for(&record, "ready").with_context(|| format!("after {harm}"))?;
    }
    // Its sockets were made anew each time, and are open to vifd and closed to everybody else.
    assert_eq!(complaints(&machine)?, [] as [Value; 0]);
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
    let server = Record::fixture("vhostuser-server")?.with("path", path("guests/server.sock"));
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
