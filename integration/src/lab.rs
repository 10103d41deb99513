//! The lab: private daemons, namespaces and peers, each taken down when its value is dropped.
//!
//! ```no_run
//! use vifd_integration::lab::{Ovs, Record, Switch, Vifd};
//!
//! # fn main() -> anyhow::Result<()> {
//! let ovs = Ovs::start(Switch::Dummy)?; //        ovsdb-server and ovs-vswitchd in a namespace
//! let mut vifd = Vifd::beside(&ovs)?; //          not started yet: `vifd.config` may be changed
//! vifd.start()?;
//! let tap = Record::fixture("openvswitch-create-tap")?; //  a VIF as os-vif serializes it
//! vifd.put(&tap)?;
//! vifd.wait_for(&tap.id(), "ready")?;
//! # Ok(()) }
//! ```
//!
//! A daemon or peer is one file here: it starts its process with [`Namespace::daemon`] and says by
//! name which tool is missing. A scenario is one file in `tests/`.

mod compare;
mod device;
mod dhcp;
mod emulated;
mod flow_rows;
pub mod frame;
mod guest;
mod hostile;
mod hosts;
mod http;
mod libvirt;
mod links;
mod lldpad;
mod machine;
mod namespace;
mod osvif;
mod ovs;
mod packet_socket;
mod plain_ovs;
mod process;
mod prometheus;
mod rack;
mod record;
mod scenes;
mod stream;
mod switch_account;
mod tools;
mod usage;
mod vhost;
mod vifd;
mod vm;
mod wait;

pub use compare::{Host, differences};
pub use device::{Device, character_device, open_as};
pub use dhcp::{DhcpServer, dhcp_lease};
pub use emulated::Emulated;
pub use flow_rows::FlowRow;
pub use guest::{GUEST_DEVICE, Guest, guest_record, native_guest, native_record, network_id};
pub use hostile::{Hostile, Mischief, Wire};
pub use hosts::{Hosts, uplinked};
pub use http::{Response, request};
pub use libvirt::Domain;
pub use links::shown_links;
pub use lldpad::{Edge, Lldpad, Qbg};
pub use machine::Machine;
pub use namespace::{Link, Namespace, Ping, Pinging};
pub use osvif::{LinuxBridgeConfig, OsVif, OsVifConfig};
pub use ovs::{LogRecord, Ovs, Row, Switch, schema};
pub use packet_socket::PacketSocket;
pub use plain_ovs::{PlainOvs, filter};
pub use process::{Daemon, Lifetime};
pub use prometheus::{Prometheus, check_metrics};
pub use rack::Rack;
pub use record::Record;
pub use scenes::in_vm;
pub use stream::{Stream, Streamed};
pub use switch_account::Asked;
pub use tools::{find_tool, tools_folder};
pub use usage::Usage;
pub use vhost::{Testpmd, VhostPeer};
pub use vifd::{Config, Vifd};
pub use vm::{Ran, Vm};
pub use wait::{interrupt, until};
