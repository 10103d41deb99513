//! What a process uses of the host, by `/proc`.

use std::fs;

use anyhow::{Context, Result};

/// See proc_pid_status(5) and proc_pid_fd(5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// `VmRSS`: resident memory, in KiB.
    pub resident: u64,
    /// `VmHWM`: the most that it ever was, in KiB.
    pub peak: u64,
    /// Open file descriptors.
    pub descriptors: usize,
}

impl Usage {
    /// Of the process `pid`.
    ///
    /// # Errors
    /// When it is gone.
    pub fn of(pid: u32) -> Result<Usage> {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).with_context(|| format!("process {pid}"))?;
        let value = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).with_context(|| name.to_owned())
        };
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd"))?.count();
        Ok(Usage { resident: value("VmRSS:")?, peak: value("VmHWM:")?, descriptors })
    }
}
