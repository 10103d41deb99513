//! vifd's library: everything behind the `vifd` binary.
//!
//! The shape of the agent is one loop, and the folders follow it:
//!
//! ```text
//!  record  ─►  source  ─► Desired  ─┐
//!                                   ├─► plan ─► ops ─► backend ─► the host
//!  backend (views) ──► Observed   ─┘      └─► verdicts ─► status ─► api, metrics, cli
//! ```
//!
//! * [`model`]: what is wanted and what is seen, as plain data
//! * [`record`]: the wire forms of a VIF (os-vif's and the native one) and their validation
//! * [`source`]: where records come from
//! * [`plan`](mod@plan): the pure decision, no I/O and no clock
//! * [`backend`]: effects, one per peer
//! * [`reconciler`]: the task that joins them
//! * [`status`], [`sessions`], [`metrics`], [`api`], [`cli`], [`doctor`], [`log`]: the faces
//! * [`inspect`]: what people ask of switches
//! * [`offload`]: proof that flows are in hardware
//! * [`config`], [`run`]: the configuration, and the wiring of it all

pub mod api;
pub mod backend;
mod blocking;
pub mod cli;
pub mod config;
pub mod doctor;
pub mod inspect;
pub mod log;
pub mod metrics;
pub mod model;
pub mod offload;
pub mod plan;
mod privileges;
pub mod queue;
pub mod reconciler;
pub mod record;
mod registration;
pub mod run;
pub mod sessions;
pub mod source;
mod state_dir;
pub mod status;
mod way;
