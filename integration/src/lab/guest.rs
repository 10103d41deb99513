//! Guests that speak: a network namespace with an address on each VIF, joined to its port by a veth pair as a hypervisor
//! would by a tap.

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::namespace::{Namespace, Ping, Pinging};
use super::ovs::Ovs;
use super::packet_socket::PacketSocket;
use super::record::Record;
use super::vifd::Vifd;

/// Name of the only device of a guest.
pub const GUEST_DEVICE: &str = "eth0";

/// A guest with one VIF, on a port that vifd makes.
#[derive(Debug)]
pub struct Guest {
    /// Its VIF's record, as it was put last.
    pub record: Record,
    namespace: Namespace,
}

/// The record of guest `number` on network `network`: a port on bridge `br-int` of the userspace datapath, the address
/// `10.0.0.number/24`.
///
/// # Errors
/// When there is no fixture to make it from.
pub fn guest_record(number: u32, network: u32) -> Result<Record> {
    let record = Record::fixture("openvswitch-netdev")?.numbered(number);
    let record = record.with_profile("create_port", true).with_profile("create_tap", false);
    Ok(record.with_profile("datapath_type", "netdev").with_network("id", json!(network_id(network))))
}

/// The same in the native form, in which a record says whether its VIF is active: os-vif's objects are, whatever they say.
#[must_use]
pub fn native_record(record: &Record, active: bool) -> Value {
    let data = |object: &Value| object["versioned_object.data"].clone();
    let network = data(&record.0["vif"]["versioned_object.data"]["network"]);
    json!({"vif": {
        "type": "openvswitch", "id": record.id(), "vif_name": record.vif_name(), "address": record.mac(), "active": active,
        "network": {
            "id": network["id"], "bridge": network["bridge"], "mtu": network["mtu"],
            "subnets": [{"cidr": "10.0.0.0/24", "ips": [{"address": record.ip()}]}],
        },
        "port_profile": {"type": "openvswitch", "create_port": true, "datapath_type": "netdev"},
    }})
}

/// The record of guest `number` on network `network` in the native form, with an address of IPv4 and one of IPv6:
/// `10.0.0.number/24` and `fd00::number/64`.
#[must_use]
pub fn native_guest(number: u32, network: u32) -> Record {
    let id = format!("{number:08x}-4c1d-4d7e-9a52-0d4a8c3e5f60");
    let [_, a, b, c] = number.to_be_bytes();
    Record::native(&json!({
        "type": "openvswitch", "id": id, "vif_name": format!("tap{id}")[..14],
        "address": format!("22:52:26:{a:02x}:{b:02x}:{c:02x}"),
        "network": {
            "id": network_id(network), "bridge": "br-int", "mtu": 1500,
            "subnets": [
                {"cidr": "10.0.0.0/24", "ips": [{"address": format!("10.{a}.{b}.{c}")}]},
                {"cidr": "fd00::/64", "ips": [{"address": format!("fd00::{number:x}")}]},
            ],
        },
        "port_profile": {"type": "openvswitch", "create_port": true, "datapath_type": "netdev"},
    }))
}

/// The id of network `network`.
#[must_use]
pub fn network_id(network: u32) -> String {
    format!("{network:08x}-929d-4bf4-8f3d-36b2a9c0b6a2")
}

impl Guest {
    /// Makes the guest and its device; its record is not put yet.
    ///
    /// # Errors
    /// When its device cannot be made.
    pub fn new(ovs: &Ovs, record: Record) -> Result<Guest> {
        let namespace = Namespace::new()?;
        let address = format!("{}/24", record.ip());
        // The device is the guest's: the host's own IPv6 must not speak there, as on a hypervisor's tap.
        let quiet = "/proc/sys/net/ipv6/conf/default/disable_ipv6";
        ovs.namespace().enter(|| std::fs::write(quiet, "1").context(quiet))?;
        ovs.namespace().veth(&record.vif_name(), &namespace, GUEST_DEVICE, Some(&record.mac()), Some(&address))?;
        let guest = Guest { record, namespace };
        if let Some(address) = guest.ipv6() {
            guest.namespace.run("ip", ["addr", "add", &format!("{address}/64"), "dev", GUEST_DEVICE, "nodad"])?;
        }
        guest.namespace.plain_device(GUEST_DEVICE)?;
        Ok(guest)
    }

    /// Its fixed address of IPv6, if its record is native and has one.
    #[must_use]
    pub fn ipv6(&self) -> Option<String> {
        let address = self.record.0.pointer("/vif/network/subnets/1/ips/0/address")?;
        Some(address.as_str()?.to_owned())
    }

    /// Opens a socket for frames on its device.
    ///
    /// # Errors
    /// As [`PacketSocket::open`].
    pub fn frames(&self) -> Result<PacketSocket> {
        PacketSocket::open(&self.namespace, GUEST_DEVICE)
    }

    /// Makes the guest, puts its record and waits until it is ready.
    ///
    /// # Errors
    /// When it does not get ready.
    pub fn plug(ovs: &Ovs, vifd: &mut Vifd, record: Record) -> Result<Guest> {
        let guest = Guest::new(ovs, record)?;
        vifd.put(&guest.record)?;
        vifd.wait_for(&guest.record.id(), "ready")?;
        Ok(guest)
    }

    /// Where it runs.
    #[must_use]
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Pings another guest, `count` times, five times a second.
    ///
    /// # Errors
    /// As [`Namespace::ping`].
    pub fn ping(&self, other: &Guest, count: u32) -> Result<Ping> {
        self.namespace.ping(&other.record.ip(), count)
    }

    /// Whether another guest answers at all.
    ///
    /// # Errors
    /// As [`Namespace::ping`].
    pub fn reaches(&self, other: &Guest) -> Result<bool> {
        Ok(self.ping(other, 2)?.received > 0)
    }

    /// Whether nobody at an address answers, to two echo requests within half a second.
    ///
    /// # Errors
    /// When ping is missing.
    pub fn hears_nothing_of(&self, address: &str) -> Result<bool> {
        let mut command = self.namespace.command("ping")?;
        command.args(["-n", "-q", "-i", "0.1", "-c", "2", "-W", "0.5", address]);
        // 1 is its word for no reply; 2 for that it could not even ask.
        let code = command.output()?.status.code();
        anyhow::ensure!(matches!(code, Some(0 | 1)), "ping {address} ended with {code:?}");
        // The kernel goes on asking for a while who it is, and then fails whoever waits, however lately it began to.
        self.namespace.run("ip", ["neigh", "flush", "dev", GUEST_DEVICE])?;
        Ok(code == Some(1))
    }

    /// Goes on pinging another guest until [`Pinging::stop`].
    ///
    /// # Errors
    /// When ping is missing.
    pub fn keep_pinging(&self, other: &Guest) -> Result<Pinging> {
        self.namespace.keep_pinging(&other.record.ip())
    }
}
