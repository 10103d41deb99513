//! Fuzz targets: everything that decodes what others wrote, each with the properties that must hold for any bytes
//! whatever. A target is one file of `targets/`, a line in the list here and a folder of seeds in `corpus/`.
//!
//! libFuzzer calls the bodies through `src/bin/target.rs`; `tests/corpus.rs` replays the corpora on any Rust. The
//! properties are assertions, so nothing here gives an error.

#![allow(clippy::expect_used, clippy::panic, reason = "a property that does not hold is told by a panic")]

mod targets;

use std::path::PathBuf;

/// Something to fuzz.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Name of its file and of its folder of seeds.
    pub name: &'static str,
    /// Longer inputs, in bytes, show nothing that shorter ones do not.
    pub max_len: usize,
    /// Panics when a property does not hold. Answers whether the input was accepted, so that a corpus that is turned
    /// away at the door is noticed.
    pub check: fn(&[u8]) -> bool,
}

macro_rules! targets {
    ($($name:ident $max_len:literal,)*) => {
        /// Every target, in order of name.
        pub const TARGETS: &[Target] =
            &[$(Target { name: stringify!($name), max_len: $max_len, check: targets::$name::check }),*];
    };
}

targets! {
    agent_api 4096,
    agent_config 4096,
    agent_datapath 4096,
    agent_links 4096,
    agent_marks 1024,
    agent_orders 2048,
    agent_record 16384,
    devlink_function 128,
    devlink_message 4096,
    devlink_pci 64,
    flows_frames 4096,
    flows_message 4096,
    flows_session 4096,
    flows_text 1024,
    ovsdb_endpoint 256,
    ovsdb_framing 4096,
    ovsdb_message 4096,
    ovsdb_outcome 4096,
    ovsdb_schema 32768,
    ovsdb_session 8192,
    ovsdb_update 16384,
    ovsdb_value 4096,
}

impl Target {
    /// The target of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Target> {
        TARGETS.iter().find(|target| target.name == name).copied()
    }

    /// The folder of its seeds.
    #[must_use]
    pub fn seeds(&self) -> PathBuf {
        [env!("CARGO_MANIFEST_DIR"), "corpus", self.name].iter().collect()
    }
}
