//! One target under libFuzzer: the one that `VIFD_FUZZ_TARGET` names. One program for all of them, since linking the
//! agent once takes long enough.

#![no_main]

use std::sync::LazyLock;

use vifd_fuzz::{TARGETS, Target};

/// Read once: a process fuzzes one target.
static TARGET: LazyLock<Target> = LazyLock::new(|| {
    let name = std::env::var("VIFD_FUZZ_TARGET").unwrap_or_default();
    Target::named(&name).unwrap_or_else(|| {
        let names: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
        eprintln!("VIFD_FUZZ_TARGET is {name:?} and may be one of {}", names.join(", "));
        std::process::exit(2)
    })
});

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    (TARGET.check)(data);
});
