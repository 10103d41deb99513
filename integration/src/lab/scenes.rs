//! Tests that are played in the VM, all of a test program's in one boot. Outside, the first of them boots the VM, where the
//! same program plays each in a process of its own, one after the other; every test then has its own scene's result.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};

use super::process::output;
use super::vm::{SHARED, Vm};

/// What one scene may take, in seconds: it keeps one that hangs from holding up the others.
const LIMIT: u64 = 120;

/// Plays each scene of its arguments (the program first), and leaves what it came to in the shared folder.
const PLAY: &str = r#"
up() { read -r seconds _ </proc/uptime && echo "$seconds"; }
program=$1; shift
for scene; do
  begun=$(up)
  timeout --kill-after=5 "$LIMIT" "$program" --exact "$scene" --include-ignored --nocapture >"$SHARED/$scene.output" 2>&1
  echo "$? $begun $(up)" >"$SHARED/$scene.result"
done
"#;

/// What a scene came to.
#[derive(Debug)]
struct Played {
    /// 0 if all is well; 124 if it took too long.
    status: i32,
    /// By the VM's clock.
    took: Duration,
    output: String,
}

static PLAYED: OnceLock<Result<BTreeMap<String, Played>, String>> = OnceLock::new();

/// Has the calling test played in the VM: give it everything that the test does, as a closure. The tests that go into one
/// boot are those that this run of the test program was asked for.
///
/// # Errors
/// When the machine cannot run the VM, or the scene fails; with what it printed.
pub fn in_vm<F: FnOnce() -> Result<()>>(scene: F) -> Result<()> {
    if Vm::inside() {
        return scene();
    }
    let name = name_of::<F>()?;
    // Others wait here while the first test is at it.
    let all = PLAYED.get_or_init(|| play().map_err(|error| format!("{error:#}")));
    let all = all.as_ref().map_err(|error| anyhow!("no scene was played in the VM: {error}"))?;
    let played = all.get(name).with_context(|| format!("{name} is not among the scenes that were played"))?;
    let Played { status, took, output } = played;
    match status {
        0 => println!("{name} took {took:.1?} in the VM:\n{output}"),
        124 => bail!("{name} took more than {LIMIT} s in the VM and was ended:\n{output}"),
        _ => bail!("{name} failed in the VM after {took:.1?} (exit {status}):\n{output}"),
    }
    Ok(())
}

/// The path of the test that made a closure, below its test program: as the test is called.
fn name_of<F>() -> Result<&'static str> {
    let path = std::any::type_name::<F>();
    let test = path.strip_suffix("::{{closure}}").and_then(|path| Some(path.split_once("::")?.1));
    test.with_context(|| format!("a scene is a closure of its test, which {path} is not"))
}

fn play() -> Result<BTreeMap<String, Played>> {
    let program = std::env::current_exe()?;
    let mut list = Command::new(&program);
    // Filters as this run has them: who asks for one scene gets one.
    list.args(std::env::args_os().skip(1)).args(["--list", "--format", "terse"]);
    let list = output(list)?;
    let scenes: Vec<&str> = list.lines().filter_map(|line| line.strip_suffix(": test")).collect();
    let mut command = Command::new("bash");
    command.args(["-c", PLAY, "bash"]).arg(&program).args(&scenes);
    // Finding the lines of a backtrace takes an emulated processor half a minute.
    command
        .env("RUST_BACKTRACE", "0")
        .env_remove("RUST_LIB_BACKTRACE")
        .env("SHARED", SHARED)
        .env("LIMIT", LIMIT.to_string());
    let slowest = LIMIT * u64::try_from(scenes.len())?;
    let vm = Vm::new()?.within(Duration::from_secs(60 + slowest));
    let ran = vm.run(&command)?;
    if ran.status != 0 {
        bail!("playing the scenes ended with {}:\n{}", ran.status, ran.output);
    }
    println!("{} scenes: {:.1?} with a boot of {:.1?}", scenes.len(), ran.took, ran.booted);
    scenes
        .into_iter()
        .map(|scene| {
            let told = |what: &str| fs::read(vm.shared().join(format!("{scene}.{what}")));
            let result = String::from_utf8(told("result").with_context(|| format!("{scene} came to no end"))?)?;
            let [status, begun, ended] = result.split_whitespace().collect::<Vec<_>>()[..] else {
                bail!("the result of {scene}: {result}");
            };
            let took = Duration::from_secs_f64((ended.parse::<f64>()? - begun.parse::<f64>()?).max(0.0));
            let output = String::from_utf8_lossy(&told("output")?).into_owned();
            Ok((scene.to_owned(), Played { status: status.parse()?, took, output }))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name<F: FnOnce() -> Result<()>>(_: F) -> Result<&'static str> {
        name_of::<F>()
    }

    #[test]
    fn a_scene_is_called_as_its_test() -> Result<()> {
        assert_eq!(name(|| Ok(()))?, "lab::scenes::tests::a_scene_is_called_as_its_test");
        assert_eq!(std::thread::current().name(), Some(name(|| Ok(()))?), "as the test harness calls it");
        Ok(())
    }
}
