//! The VM of the lab: a command in it is as one here, but for the kernel.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use vifd_integration::lab::{Vm, until};

#[test]
fn a_command_gives_its_output_and_its_status_and_leaves_nothing() -> Result<()> {
    let vm = Vm::new()?;
    let folder = tempfile::tempdir()?;
    std::fs::write(folder.path().join("here"), "of this machine")?;
    let mut command = Command::new("bash");
    command.args(["-c", r#"cat here; echo "; $WORD" >&2; uname -r; echo >there; echo back >/vm/file; exit 7"#]);
    command.env("WORD", "it's \"quoted\"").current_dir(folder.path());
    let ran = vm.run(&command)?;
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let (words, release) = ran.output.trim().split_once('\n').context("two lines")?;
    assert_eq!((ran.status, words), (7, r#"of this machine; it's "quoted""#));
    assert!(release.starts_with("6.1.") && release != kernel.trim(), "{release}");
    assert_eq!(std::fs::read_to_string(vm.shared().join("file"))?, "back\n");
    assert!(!folder.path().join("there").exists(), "what is written there stays there");
    assert!(ran.booted > Duration::ZERO && ran.booted < ran.took, "{ran:?}");
    println!("booted in {:.1?}, all of it took {:.1?}", ran.booted, ran.took);
    Ok(())
}

/// Whether a process has this in its command line.
fn runs(what: &Path) -> Result<bool> {
    let what = what.display().to_string();
    let command_lines = std::fs::read_dir("/proc")?.flatten().map(|process| process.path().join("cmdline"));
    let emulators = command_lines.filter_map(|file| std::fs::read_to_string(file).ok());
    Ok(emulators.filter(|line| line.contains("qemu-system")).any(|line| line.contains(&what)))
}

#[test]
fn what_takes_too_long_is_ended() -> Result<()> {
    let vm = Vm::new()?.within(Duration::from_secs(3));
    let mut command = Command::new("sleep");
    let error = vm.run(command.arg("1000")).err().context("it slept")?;
    assert!(format!("{error:#}").contains("in vain until the VM ends"), "{error:#}");
    // Its emulator is killed by the kernel, with the script that started it.
    until("the emulator is gone", Duration::from_secs(10), || Ok((!runs(&vm.shared())?).then_some(())))
}

#[test]
fn a_machine_without_it_is_told_so() -> Result<()> {
    let empty = tempfile::tempdir()?;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("vm/run");
    let output = Command::new(script).arg("true").env("VIFD_LAB", empty.path()).output()?;
    assert_eq!(output.status.code(), Some(125));
    let said = String::from_utf8(output.stderr)?;
    assert!(said.starts_with("there is no VM in ") && said.contains("make deps"), "{said}");
    Ok(())
}
