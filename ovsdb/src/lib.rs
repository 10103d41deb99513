//! An OVSDB client: RFC 7047 with the extensions of ovsdb-server(7), over unix sockets, TCP and TLS.
//!
//! A program declares the tables and columns it uses ([`table!`]) or takes those of Open vSwitch
//! ([`vswitch`]), starts a [`session::Session`], reads typed snapshots that follow the database, and sends
//! transactions of which it learns exactly what became.
//!
//! ```no_run
//! use ovsdb::outcome::Outcome;
//! use ovsdb::session::{Config, Session, SessionState};
//! use ovsdb::transact::{Transaction, Values};
//! use ovsdb::vswitch::{Bridge, Interface, Port, Snapshot};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let config = Config::endpoint("unix:/run/openvswitch/db.sock".parse()?, None);
//! let session = Session::spawn(config, Snapshot::new(["iface-id"]));
//! session.state().wait_for(|state| matches!(state, SessionState::Ready)).await?;
//!
//! let mut views = session.snapshot();
//! let view = views.borrow_and_update().clone();
//! let Some(bridge) = view.ready().and_then(|db| db.bridge("br-int")) else { return Ok(()) };
//!
//! // One transaction: a port with its interface, on a bridge that must still have its name.
//! let mut add = Transaction::new("plug tap0");
//! add.require(Bridge::NAME.equals("br-int"));
//! let interface = add.insert(
//!     &Values::new()
//!         .with(Interface::NAME, "tap0")
//!         .with(Interface::TYPE, "internal")
//!         .with(Interface::EXTERNAL_IDS, [("iface-id", "8d2b…")]),
//! );
//! let port = add.insert(&Values::new().with(Port::NAME, "tap0").with(Port::INTERFACES, interface));
//! add.mutate(bridge.uuid, [Bridge::PORTS.insert(port)]);
//!
//! match session.transact(&add).await {
//!     Outcome::Committed(applied) => println!("port {:?}", applied.uuid(port)),
//!     Outcome::Conflict { tag, .. } => println!("{tag}: the bridge is gone"),
//!     Outcome::Rejected(why) => println!("{:?}: {}", why.tag, why.error),
//!     Outcome::NotSent | Outcome::Unknown | Outcome::Unchanged(_) => println!("look again"),
//! }
//! # Ok(())
//! # }
//! ```
//!
//! What is promised:
//!
//! - A view is [`replica::View::Syncing`] or the database as of one message of the server: never a part.
//! - When a transaction is reported as committed, the view has its effects already.
//! - A transaction is never sent twice. One whose fate is not known is [`outcome::Outcome::Unknown`].
//! - Updates that cannot be true end the connection; the contents are then read anew.
//! - Nothing that a server sends makes this library panic, or use memory without bound: see [`framing::Limits`].
//! - A server that does not answer, or not in time, is left and tried again, whatever else it sends.

#[cfg(test)]
mod annotated;
pub mod endpoint;
pub mod framing;
pub mod leaves;
pub mod message;
pub mod outcome;
pub mod pairs;
pub mod read;
pub mod replica;
pub mod schema;
pub mod session;
pub mod table;
pub mod text;
pub use ::tls;
pub mod transact;
pub mod update;
pub mod value;
pub mod vswitch;
pub mod words;
