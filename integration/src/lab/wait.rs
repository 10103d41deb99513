//! Waiting for something another process does. Deadlines here only keep a failed test from hanging:
//! they are generous, and no test measures a promise with them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::vm::Vm;

const PAUSE: Duration = Duration::from_millis(10);
/// In the VM, where to ask takes so much of the processor that what is waited for comes later.
const PAUSE_IN_VM: Duration = Duration::from_millis(60);

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Ends every wait of this process, now and later, with an error, so that a program that was asked
/// to stop unwinds through its destructors and takes its lab down.
pub fn interrupt() {
    INTERRUPTED.store(true, Ordering::Relaxed);
}

/// Asks `check` again and again until it gives a value. Its errors end the wait at once.
///
/// # Errors
/// What `check` failed with; or, with `what` named, that it gave nothing within `limit`, or that
/// [`interrupt`] was called.
pub fn until<T>(what: &str, limit: Duration, mut check: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let start = Instant::now();
    let pause = if Vm::inside() { PAUSE_IN_VM } else { PAUSE };
    loop {
        if let Some(value) = check().with_context(|| format!("while waiting until {what}"))? {
            return Ok(value);
        }
        if INTERRUPTED.load(Ordering::Relaxed) {
            bail!("interrupted while waiting until {what}");
        }
        if start.elapsed() > limit {
            bail!("waited {limit:?} in vain until {what}");
        }
        std::thread::sleep(pause);
    }
}
