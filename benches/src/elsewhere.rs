//! Where a measurement needs another kernel, or another `/sys`, than this machine has: this program is run again there with
//! `--part`, measures, and leaves its finding in a file.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use vifd_integration::lab::{Vm, find_tool};

use crate::{Finding, Scale};

/// Runs a part in the VM (`docs/testing.md`), whose processors are emulated: ten times slower, so that ratios alone count.
///
/// # Errors
/// When the VM does not run here, or the part fails or takes longer than `limit`.
pub fn in_vm(part: &str, scale: Scale, limit: Duration) -> Result<Finding> {
    let vm = Vm::new()?.within(limit);
    let mut command = Command::new(std::env::current_exe()?);
    arguments(&mut command, part, scale, Path::new("/vm/finding.json"));
    // Finding the lines of a backtrace takes an emulated processor half a minute.
    command.env("RUST_BACKTRACE", "0").env_remove("RUST_LIB_BACKTRACE");
    let ran = vm.run(&command)?;
    ensure!(ran.status == 0, "{part} in the VM ended with {}:\n{}", ran.status, ran.output);
    print!("{}", ran.output);
    taken(&vm.shared().join("finding.json"))
}

/// Runs a part in mount and network namespaces of its own, where it may mount over `/sys` and make links.
///
/// # Errors
/// When this is not root, or the part fails.
pub fn in_namespaces(part: &str, scale: Scale) -> Result<Finding> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("finding.json");
    let mut command = Command::new(find_tool("unshare")?);
    command.args(["--mount", "--net"]).arg(std::env::current_exe()?);
    arguments(&mut command, part, scale, &file);
    let status = command.status().context("starting unshare")?;
    ensure!(status.success(), "{part} in namespaces of its own: {status}");
    taken(&file)
}

/// Leaves what a part found.
///
/// # Errors
/// When the file cannot be written.
pub fn leave(finding: &Finding, file: &Path) -> Result<()> {
    fs::write(file, serde_json::to_string(finding)?).with_context(|| file.display().to_string())
}

fn arguments(command: &mut Command, part: &str, scale: Scale, file: &Path) {
    command.args(["--part", part, "--leave"]).arg(file);
    if scale.quick {
        command.arg("--quick");
    }
}

fn taken(file: &Path) -> Result<Finding> {
    let text = fs::read_to_string(file).with_context(|| file.display().to_string())?;
    serde_json::from_str(&text).with_context(|| format!("the finding in {}", file.display()))
}
