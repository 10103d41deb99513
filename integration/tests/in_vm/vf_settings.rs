//! What a physical function is told about its functions, on the igb that QEMU has and on the kernel's netdevsim: as `ip` shows it,
//! refusals by name, and of which changes the kernel tells by itself.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use devlink::vf::{LinkState, VfChange, VfError, VfField, VfSettings, Vlan, VlanProtocol, read, set};
use devlink::{LinkError, LinkSocket};
use rtnetlink::sys::protocols::NETLINK_ROUTE;
use rtnetlink::sys::{Socket, SocketAddr};
use serde_json::Value;
use vifd_integration::lab::in_vm;

const EINVAL: i32 = 22;
const ENODEV: i32 = 19;
const EOPNOTSUPP: i32 = 95;

const MAC: [u8; 6] = [0x02, 0x11, 0x22, 0x33, 0x44, 0x51];

/// Runs a script in the VM's own network namespace, where its NICs are.
fn script(text: &str) -> Result<String> {
    let output = Command::new("bash").args(["-euc", text]).output().context("bash")?;
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success(), "{}\n{printed}{}", output.status, String::from_utf8_lossy(&output.stderr));
    Ok(printed)
}

/// A physical function, and the questions to it.
struct Nic {
    name: String,
    index: u32,
    runtime: tokio::runtime::Runtime,
    socket: LinkSocket,
}

impl Nic {
    /// Whose name the script prints.
    fn from(text: &str) -> Result<Nic> {
        let name = script(text)?.trim().to_owned();
        let index = fs::read_to_string(format!("/sys/class/net/{name}/ifindex"))?.trim().parse()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let socket = runtime.block_on(async { LinkSocket::open() })?;
        Ok(Nic { name, index, runtime, socket })
    }

    fn igb() -> Result<Nic> {
        Nic::from(
            r#"
            modprobe igb
            for nic in /sys/bus/pci/devices/*; do
              [[ $(<$nic/vendor):$(<$nic/device) == 0x8086:0x10c9 ]] && break
            done
            for second in {1..100}; do [[ -d $nic/net ]] && break; sleep 0.1; done
            echo 0 >$nic/sriov_drivers_autoprobe
            echo 2 >$nic/sriov_numvfs
            ls $nic/net"#,
        )
    }

    fn netdevsim(functions: u32) -> Result<Nic> {
        Nic::from(&format!(
            r#"
            modprobe psample
            insmod "$VIFD_VM/netdevsim/stock/netdevsim.ko"
            echo '10 1' >/sys/bus/netdevsim/new_device
            echo {functions} >/sys/kernel/debug/netdevsim/netdevsim10/max_vfs
            echo {functions} >/sys/bus/netdevsim/devices/netdevsim10/sriov_numvfs
            ls /sys/bus/netdevsim/devices/netdevsim10/net"#
        ))
    }

    fn end_netdevsim() -> Result<()> {
        script("echo 10 >/sys/bus/netdevsim/del_device; rmmod netdevsim").map(drop)
    }

    fn read(&mut self) -> Result<BTreeMap<u32, VfSettings>, VfError> {
        self.runtime.block_on(read(&mut self.socket, self.index))
    }

    fn vf(&mut self, vf: u32) -> Result<VfSettings> {
        self.read()?.remove(&vf).with_context(|| format!("VF {vf} is not told of"))
    }

    fn set(&mut self, vf: u32, change: VfChange) -> Result<(), VfError> {
        self.runtime.block_on(set(&mut self.socket, self.index, vf, &change))
    }

    /// The names and the numbers of what was refused.
    fn refused(&mut self, vf: u32, change: VfChange) -> Result<Vec<(VfField, i32)>> {
        match self.set(vf, change) {
            Err(VfError::Refused { vf: of, refused }) if of == vf => {
                Ok(refused.into_iter().map(|(field, refusal)| (field, refusal.errno)).collect())
            }
            other => bail!("it was to be refused: {other:?}"),
        }
    }

    /// A VF as `ip` shows it.
    fn shown(&self, vf: usize) -> Result<Value> {
        let links: Value = serde_json::from_str(&script(&format!("ip -j -d link show {}", self.name))?)?;
        Ok(links[0]["vfinfo_list"][vf].clone())
    }

    fn up(&self, up: bool) -> Result<()> {
        script(&format!("ip link set {} {}", self.name, if up { "up" } else { "down" })).map(drop)
    }
}

/// What the kernel tells of links by itself.
struct Events(Socket);

impl Events {
    fn open() -> Result<Events> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        const RTMGRP_LINK: u32 = 1;
        socket.bind(&SocketAddr::new(0, RTMGRP_LINK))?;
        socket.set_non_blocking(true)?;
        Ok(Events(socket))
    }

    /// How many were told of the link since the last time: the kernel tells before it answers.
    fn of(&self, nic: &Nic) -> Result<usize> {
        const RTM_NEWLINK: u16 = 16;
        let mut told = 0;
        loop {
            match self.0.recv_from_full() {
                Ok((event, _)) => {
                    let kind = u16::from_ne_bytes([event[4], event[5]]);
                    let index = event.get(20..24).and_then(|index| index.first_chunk()).context("a short event")?;
                    told += usize::from(kind == RTM_NEWLINK && u32::from_ne_bytes(*index) == nic.index);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(told),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Waits until nothing was told for a second, as after a link was set up.
    fn settle(&self, nic: &Nic) -> Result<()> {
        let begun = Instant::now();
        let mut quiet = Instant::now();
        while quiet.elapsed() < Duration::from_secs(1) {
            ensure!(begun.elapsed() < Duration::from_secs(30), "{} is never quiet", nic.name);
            sleep(Duration::from_millis(50));
            if self.of(nic)? > 0 {
                quiet = Instant::now();
            }
        }
        Ok(())
    }
}

#[test]
fn igb_takes_vf_settings_and_tells_of_them() -> Result<()> {
    in_vm(|| {
        let mut igb = Nic::igb()?;
        igb.up(true)?;
        let events = Events::open()?;
        events.settle(&igb)?;
        let before = igb.read()?;
        println!("before: {before:?}");
        assert_eq!(before.keys().copied().collect::<Vec<_>>(), [0, 1]);
        assert_eq!(events.of(&igb)?, 0, "to be asked is nothing to tell");

        let vlan = Vlan { id: 100, qos: 3, protocol: VlanProtocol::Dot1q };
        let change = VfChange {
            mac: Some(MAC),
            vlan: Some(vlan),
            max_tx_rate_mbps: Some(100),
            spoof_check: Some(false),
            trust: Some(true),
            ..VfChange::default()
        };
        igb.set(1, change)?;
        assert_eq!(events.of(&igb)?, 1, "one message, one event");
        let wanted = VfSettings {
            mac: Some(MAC),
            vlan,
            max_tx_rate_mbps: 100,
            spoof_check: Some(false),
            trust: Some(true),
            ..before[&1]
        };
        assert_eq!(igb.read()?, BTreeMap::from([(0, before[&0]), (1, wanted)]));
        let shown = igb.shown(1)?;
        assert_eq!(shown["address"], "02:11:22:33:44:51", "{shown}");
        assert_eq!(shown["vlan_list"][0]["vlan"], 100, "{shown}");
        assert_eq!(shown["vlan_list"][0]["qos"], 3, "{shown}");
        assert_eq!(shown["rate"]["max_tx"], 100, "{shown}");
        assert_eq!((&shown["spoofchk"], &shown["trust"]), (&false.into(), &true.into()), "{shown}");

        // igb has no link state of a VF: the rest of the change is done all the same, and told once, by the message that was not refused.
        let other = [0x02, 0x11, 0x22, 0x33, 0x44, 0x61];
        let change = VfChange { mac: Some(other), link_state: Some(LinkState::Disable), ..VfChange::default() };
        assert_eq!(igb.refused(1, change)?, [(VfField::LinkState, EOPNOTSUPP)]);
        assert_eq!(igb.vf(1)?, VfSettings { mac: Some(other), ..wanted });
        assert_eq!(events.of(&igb)?, 1, "a message that is refused halfway is not told of");
        // And no guaranteed rate; a VF that is not there is refused in everything.
        let change = VfChange { min_tx_rate_mbps: Some(5), ..VfChange::default() };
        assert_eq!(igb.refused(1, change)?, [(VfField::Rate, EINVAL)]);
        let change = VfChange { mac: Some(MAC), trust: Some(true), ..VfChange::default() };
        assert_eq!(igb.refused(7, change)?, [(VfField::Mac, EINVAL), (VfField::Trust, EINVAL)]);
        assert_eq!(events.of(&igb)?, 0);

        // What others do is told as well, but not of a function that is down.
        script(&format!("ip link set {} vf 0 trust on", igb.name))?;
        assert_eq!(events.of(&igb)?, 1);
        assert_eq!(igb.vf(0)?.trust, Some(true));
        igb.up(false)?;
        events.settle(&igb)?;
        igb.set(0, VfChange { trust: Some(false), ..VfChange::default() })?;
        assert_eq!((events.of(&igb)?, igb.vf(0)?.trust), (0, Some(false)));

        // Given back: no address of the host's, no VLAN.
        let back = VfChange { mac: Some([0; 6]), vlan: Some(Vlan::default()), ..VfChange::default() };
        igb.set(1, back)?;
        let now = igb.vf(1)?;
        assert_eq!((now.mac, now.vlan), (None, Vlan::default()));
        script(&format!("echo 0 >/sys/class/net/{}/device/sriov_numvfs", igb.name))?;
        assert_eq!(igb.read()?, BTreeMap::new());
        script("rmmod igb")?;
        match igb.read() {
            Err(VfError::Link(LinkError::Refused { refusal, .. })) if refusal.errno == ENODEV => Ok(()),
            other => bail!("the NIC is gone: {other:?}"),
        }
    })
}

#[test]
fn vf_settings_of_many_functions_are_read_until_they_are_too_many() -> Result<()> {
    in_vm(|| {
        const FUNCTIONS: u32 = 256;
        let mut nic = Nic::netdevsim(FUNCTIONS)?;
        let all = nic.read()?;
        assert_eq!(all.len(), FUNCTIONS as usize);

        // The last one, in everything that there is.
        let vlan = Vlan { id: 7, qos: 5, protocol: VlanProtocol::Dot1ad };
        let change = VfChange {
            mac: Some(MAC),
            vlan: Some(vlan),
            min_tx_rate_mbps: Some(10),
            max_tx_rate_mbps: Some(200),
            spoof_check: Some(true),
            trust: Some(true),
            link_state: Some(LinkState::Enable),
        };
        nic.set(FUNCTIONS - 1, change)?;
        let wanted = VfSettings {
            mac: Some(MAC),
            vlan,
            min_tx_rate_mbps: 10,
            max_tx_rate_mbps: 200,
            spoof_check: Some(true),
            trust: Some(true),
            link_state: LinkState::Enable,
            ..all[&(FUNCTIONS - 1)]
        };
        assert_eq!(nic.vf(FUNCTIONS - 1)?, wanted);
        // One rate leaves the other as it is.
        nic.set(FUNCTIONS - 1, VfChange { max_tx_rate_mbps: Some(0), ..VfChange::default() })?;
        let wanted = VfSettings { max_tx_rate_mbps: 0, ..wanted };
        assert_eq!(nic.vf(FUNCTIONS - 1)?, wanted);
        // A VLAN that there is not is refused by name, and what is before and behind it is done.
        let impossible = Vlan { id: 5000, ..vlan };
        let change = VfChange { mac: Some([2; 6]), vlan: Some(impossible), trust: Some(false), ..VfChange::default() };
        assert_eq!(nic.refused(FUNCTIONS - 1, change)?, [(VfField::Vlan, EINVAL)]);
        assert_eq!(nic.vf(FUNCTIONS - 1)?, VfSettings { mac: Some([2; 6]), trust: Some(false), ..wanted });
        Nic::end_netdevsim()?;

        let mut nic = Nic::netdevsim(400)?;
        let told = nic.read();
        ensure!(matches!(told, Err(VfError::TooMany)), "{told:?}");
        Nic::end_netdevsim()
    })
}
